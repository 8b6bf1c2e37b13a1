/* Names of dims: "batch", "2", "past + tokens". */
#include <ctype.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

static bool is_name(const char *text)
{
    if (!isalpha((unsigned char)*text) && *text != '_')
        return false;
    while (isalnum((unsigned char)*text) || *text == '_' || *text == '.')
        text++;
    return !*text;
}

void pm_onnx_declare_dims(pm_onnx *onnx, const Onnx__Graph *graph)
{
    for (size_t i = 0; i < graph->n_input; i++) {
        const Onnx__Type *type = graph->input[i]->type;
        const Onnx__Shape *shape = type && type->tensor_type ? type->tensor_type->shape : NULL;
        for (size_t k = 0; shape && k < shape->n_dim && k < PM_MAX_RANK; k++) {
            const char *name = shape->dim[k]->dim_param;
            if (name && is_name(name) && pm_dim_find(onnx->module, name) == PM_DIM_NONE)
                pm_dim_symbol(onnx->module, name, 0, INT64_MAX);
        }
    }
}

/* A number or a declared name; PM_DIM_NONE for anything else. */
static pm_dim parse_atom(pm_onnx *onnx, const char **text)
{
    enum { MAX_DIGITS = 15 };
    const char *at = *text + strspn(*text, " ");
    size_t n = 0;
    while (isalnum((unsigned char)at[n]) || at[n] == '_' || at[n] == '.')
        n++;
    *text = at + n + strspn(at + n, " ");
    if (n == 0 || !isdigit((unsigned char)*at))
        return pm_dim_find(onnx->module, pm_arena_strndup(onnx->temp, at, n));
    int64_t value = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)at[i]) || n > MAX_DIGITS)
            return PM_DIM_NONE;
        value = value * 10 + (at[i] - '0');
    }
    return pm_dim_const(onnx->module, value);
}

static pm_dim parse_product(pm_onnx *onnx, const char **text)
{
    pm_dim out = parse_atom(onnx, text);
    while (out != PM_DIM_NONE && **text == '*') {
        ++*text;
        pm_dim factor = parse_atom(onnx, text);
        out = factor == PM_DIM_NONE ? factor : pm_dim_mul(onnx->module, out, factor);
    }
    return out;
}

pm_dim pm_onnx_parse_dim(pm_onnx *onnx, const char *text)
{
    enum { MAX_LENGTH = 256 };
    const char *at = text;
    if (strlen(text) > MAX_LENGTH)
        return PM_DIM_NONE;
    pm_dim out = parse_product(onnx, &at);
    while (out != PM_DIM_NONE && (*at == '+' || *at == '-')) {
        bool plus = *at++ == '+';
        pm_dim term = parse_product(onnx, &at);
        if (term == PM_DIM_NONE)
            return PM_DIM_NONE;
        out = plus ? pm_dim_add(onnx->module, out, term) : pm_dim_sub(onnx->module, out, term);
    }
    return *at || (out != PM_DIM_NONE && pm_dim_is_error(onnx->module, out)) ? PM_DIM_NONE : out;
}
