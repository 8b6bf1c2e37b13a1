/* Einsum as transposes, sums and matrix products, folded from the left. */
#include <ctype.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_einsum;

enum { MAX_TERMS = 16, MAX_KEEP = (MAX_TERMS + 1) * PM_MAX_RANK };

/* An operand with one letter per dim. */
typedef struct term {
    pm_value *value;
    char labels[PM_MAX_RANK + 1];
} term;

static bool has(const char *labels, char c)
{
    return c && strchr(labels, c) != NULL;
}

/* Cuts "ij,jk->ik" into labels; no arrow: the letters that occur once, in alphabetical order. */
static pm_status parse_equation(pm_onnx_call *call, term *terms, size_t n_terms, char *output)
{
    const char *text = pm_onnx_attr_of(call, "equation")->s;
    size_t index = 0, length = 0, n_output = 0;
    unsigned counts[128] = {0};
    bool arrow = false;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == ' ')
            continue;
        if (c == '.')
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "an ellipsis in the equation");
        if (c == ',' && !arrow) {
            index++;
            length = 0;
        } else if (c == '-' && text[1] == '>' && !arrow) {
            arrow = true;
            text++;
        } else if (c < 128 && isalpha(c) && arrow) {
            if (n_output == PM_MAX_RANK || has(output, (char)c) || !counts[c])
                return pm_onnx_error(call, PM_ERR_INVALID, "bad output in the equation");
            output[n_output++] = (char)c;
        } else if (c < 128 && isalpha(c)) {
            if (index >= n_terms || length == PM_MAX_RANK)
                return pm_onnx_error(call, PM_ERR_INVALID, "the equation doesn't fit the inputs");
            if (has(terms[index].labels, (char)c))
                return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                                     "a letter twice in one input (a diagonal)");
            terms[index].labels[length++] = (char)c;
            counts[c]++;
        } else {
            return pm_onnx_error(call, PM_ERR_INVALID, "unexpected '%c' in the equation", c);
        }
    }
    if (index + 1 != n_terms)
        return pm_onnx_error(call, PM_ERR_INVALID, "the equation has %zu inputs, the node %zu",
                             index + 1, n_terms);
    for (unsigned c = 0; !arrow && c < 128; c++) {
        if (counts[c] == 1 && n_output < PM_MAX_RANK)
            output[n_output++] = (char)c;
    }
    return PM_OK;
}

/* Sums out the letters that are not in `keep`. */
static pm_status sum_out(pm_onnx_call *call, term *t, const char *keep)
{
    int64_t axes[PM_MAX_RANK];
    size_t n = 0, rest = 0;
    char labels[PM_MAX_RANK + 1] = "";
    for (size_t i = 0; t->labels[i]; i++) {
        if (has(keep, t->labels[i]))
            labels[rest++] = t->labels[i];
        else
            axes[n++] = (int64_t)i;
    }
    memcpy(t->labels, labels, sizeof labels);
    if (n == 0)
        return PM_OK;
    return pm_onnx_build(call, &t->value, PM_OP_reduce_sum, PM_OPERANDS(t->value),
                         PM_ATTRS(pm_attr_ints("axes", axes, n), pm_attr_bool("keepdims", false)));
}

static pm_status reorder(pm_onnx_call *call, term *t, const char *labels)
{
    int64_t perm[PM_MAX_RANK];
    for (size_t i = 0; labels[i]; i++)
        perm[i] = strchr(t->labels, labels[i]) - t->labels;
    PM_TRY(pm_onnx_transpose(call, t->value, perm, &t->value));
    memmove(t->labels, labels, strlen(labels) + 1);
    return PM_OK;
}

/* Letters of `from` that are (or, with `absent`, aren't) in `in`, appended to `out`. */
static void select_labels(const char *from, const char *in, bool absent, char *out)
{
    size_t n = strlen(out);
    for (; *from; from++) {
        if (has(in, *from) != absent)
            out[n++] = *from;
    }
    out[n] = 0;
}

static pm_dim extent(pm_module *m, const term *t, const char *labels)
{
    pm_dim out = pm_dim_const(m, 1);
    for (; *labels; labels++)
        out = pm_dim_mul(m, out, t->value->type->dims[strchr(t->labels, *labels) - t->labels]);
    return out;
}

/* a and b into a: [batch, a's own, shared] x [batch, shared, b's own]. */
static pm_status multiply(pm_onnx_call *call, term *a, term *b, const char *keep)
{
    pm_module *m = call->onnx->module;
    char both[PM_MAX_RANK + 1] = "", batch[PM_MAX_RANK + 1] = "", shared[PM_MAX_RANK + 1] = "";
    char own_a[PM_MAX_RANK + 1] = "", own_b[PM_MAX_RANK + 1] = "";
    char wanted[MAX_KEEP + PM_MAX_RANK + 1];
    snprintf(wanted, sizeof wanted, "%s%s", keep, b->labels);
    PM_TRY(sum_out(call, a, wanted));
    snprintf(wanted, sizeof wanted, "%s%s", keep, a->labels);
    PM_TRY(sum_out(call, b, wanted));
    select_labels(a->labels, b->labels, false, both);
    select_labels(both, keep, false, batch);
    select_labels(both, keep, true, shared);
    select_labels(a->labels, b->labels, true, own_a);
    select_labels(b->labels, a->labels, true, own_b);
    char order_a[3 * PM_MAX_RANK + 1], order_b[3 * PM_MAX_RANK + 1], result[3 * PM_MAX_RANK + 1];
    snprintf(order_a, sizeof order_a, "%s%s%s", batch, own_a, shared);
    snprintf(order_b, sizeof order_b, "%s%s%s", batch, shared, own_b);
    int n_result = snprintf(result, sizeof result, "%s%s%s", batch, own_a, own_b);
    size_t n_batch = strlen(batch);
    if (n_result > PM_MAX_RANK || n_batch + 2 > PM_MAX_RANK)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "a product of rank above %d", PM_MAX_RANK);
    PM_TRY(reorder(call, a, order_a));
    PM_TRY(reorder(call, b, order_b));
    pm_dim dims_a[PM_MAX_RANK], dims_b[PM_MAX_RANK], dims[PM_MAX_RANK];
    for (size_t i = 0; i < n_batch; i++) {
        dims_a[i] = a->value->type->dims[i];
        dims_b[i] = b->value->type->dims[i];
    }
    dims_a[n_batch] = extent(m, a, own_a);
    dims_a[n_batch + 1] = extent(m, a, shared);
    dims_b[n_batch] = extent(m, b, shared);
    dims_b[n_batch + 1] = extent(m, b, own_b);
    for (int i = 0; i < n_result; i++) {
        const term *from = has(own_b, result[i]) ? b : a;
        dims[i] = from->value->type->dims[strchr(from->labels, result[i]) - from->labels];
    }
    PM_TRY(pm_onnx_reshape(call, a->value, dims_a, (int32_t)n_batch + 2, &a->value));
    PM_TRY(pm_onnx_reshape(call, b->value, dims_b, (int32_t)n_batch + 2, &b->value));
    PM_TRY(
        pm_onnx_build(call, &a->value, PM_OP_matmul, PM_OPERANDS(a->value, b->value), PM_NO_ATTRS));
    PM_TRY(pm_onnx_reshape(call, a->value, dims, n_result, &a->value));
    memcpy(a->labels, result, (size_t)n_result + 1);
    return PM_OK;
}

pm_status pm_onnx_do_einsum(pm_onnx_call *call)
{
    term terms[MAX_TERMS] = {0};
    char output[PM_MAX_RANK + 1] = "", keep[MAX_KEEP + 1];
    if (call->n_in > MAX_TERMS)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "more than %d inputs", MAX_TERMS);
    PM_TRY(parse_equation(call, terms, call->n_in, output));
    for (size_t i = 0; i < call->n_in; i++) {
        if (!call->in[i] || strlen(terms[i].labels) != (size_t)call->in[i]->type->rank)
            return pm_onnx_error(call, PM_ERR_INVALID,
                                 "the equation doesn't fit the rank of input %zu", i);
        terms[i].value = call->in[i];
    }
    for (size_t i = 1; i < call->n_in; i++) {
        size_t n = strlen(output);
        memcpy(keep, output, n);
        for (size_t k = i + 1; k < call->n_in; k++) {
            memcpy(keep + n, terms[k].labels, strlen(terms[k].labels));
            n += strlen(terms[k].labels);
        }
        keep[n] = 0;
        PM_TRY(multiply(call, &terms[0], &terms[i], keep));
    }
    PM_TRY(sum_out(call, &terms[0], output));
    PM_TRY(reorder(call, &terms[0], output));
    call->out[0] = terms[0].value;
    return PM_OK;
}
