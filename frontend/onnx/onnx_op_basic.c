/* Handlers: constants and elementwise operators that need more than a row of the table. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_identity, pm_onnx_do_constant, pm_onnx_do_dropout, pm_onnx_do_gelu,
    pm_onnx_do_bias_gelu, pm_onnx_do_cast_like, pm_onnx_do_clip, pm_onnx_do_variadic,
    pm_onnx_do_constant_of_shape, pm_onnx_do_shift;

pm_status pm_onnx_do_identity(pm_onnx_call *call)
{
    call->out[0] = call->in[0];
    return PM_OK;
}

/* Of the many forms that a Constant has exactly one may be given. */
static pm_status find_given(pm_onnx_call *call, size_t *out_index)
{
    size_t n = 0;
    for (size_t i = 0; i < call->n_decls; i++) {
        if (call->attrs[i].given) {
            *out_index = i;
            n++;
        }
    }
    if (n != 1)
        return pm_onnx_error(call, PM_ERR_INVALID, "has %zu values, must have one", n);
    return PM_OK;
}

pm_status pm_onnx_do_constant(pm_onnx_call *call)
{
    size_t index = 0;
    PM_TRY(find_given(call, &index));
    const pm_onnx_attr *value = &call->attrs[index];
    const int64_t dims[] = {(int64_t)value->n};
    switch (call->decls[index].kind) {
    case PM_ONNX_TENSOR:
        return pm_onnx_const(call->onnx, &call->b, value->tensor, call->node->output[0],
                             &call->out[0]);
    case PM_ONNX_FLOAT: return pm_onnx_scalar(call, PM_F32, value->f, &call->out[0]);
    case PM_ONNX_INT:
        return pm_build_const_ints(&call->b, PM_I64, 0, NULL, &value->i, &call->out[0]);
    case PM_ONNX_INTS:
        return pm_build_const_ints(&call->b, PM_I64, 1, dims, value->ints, &call->out[0]);
    case PM_ONNX_FLOATS: {
        float *floats = PM_NEW_ARRAY(call->onnx->temp, float, value->n);
        for (size_t i = 0; i < value->n; i++)
            floats[i] = (float)value->floats[i];
        return pm_build_const_f32(&call->b, 1, dims, floats, &call->out[0]);
    }
    default:
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "'%s' is not supported",
                             call->decls[index].name);
    }
}

pm_status pm_onnx_do_dropout(pm_onnx_call *call)
{
    if (call->n_in > 2) {
        uint8_t on = 1;
        const uint8_t *bytes = &on;
        const pm_data *data = pm_value_const(call->in[2]);
        if (data)
            PM_TRY(pm_data_bytes(call->onnx->module, data, &bytes));
        if (*bytes)
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "training is not supported");
    }
    call->out[0] = call->in[0];
    if (call->n_out < 2)
        return PM_OK;
    /* the mask: everything is kept */
    pm_value *shape, *yes;
    const int64_t one = 1;
    PM_TRY(pm_onnx_build(call, &shape, PM_OP_shape, call->in, 1, PM_NO_ATTRS));
    PM_TRY(pm_build_const_ints(&call->b, PM_BOOL, 0, NULL, &one, &yes));
    return pm_onnx_build(call, &call->out[1], PM_OP_fill, PM_OPERANDS(shape, yes), PM_NO_ATTRS);
}

pm_status pm_onnx_do_gelu(pm_onnx_call *call)
{
    const char *form = pm_onnx_attr_of(call, "approximate")->s;
    bool is_tanh = strcmp(form, "tanh") == 0;
    if (!is_tanh && strcmp(form, "none") != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "approximate is '%s', must be none or tanh",
                             form);
    return pm_onnx_build(call, &call->out[0], PM_OP_gelu, PM_OPERANDS(call->in[0]),
                         PM_ATTRS(pm_attr_bool("tanh", is_tanh)));
}

pm_status pm_onnx_do_bias_gelu(pm_onnx_call *call)
{
    pm_value *x = call->in[0];
    if (call->n_in > 1)
        PM_TRY(pm_onnx_build(call, &x, PM_OP_add, call->in, 2, PM_NO_ATTRS));
    return pm_onnx_build(call, &call->out[0], PM_OP_gelu, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_bool("tanh", strcmp(call->row->text, "tanh") == 0)));
}

pm_status pm_onnx_do_shift(pm_onnx_call *call)
{
    const char *direction = pm_onnx_attr_of(call, "direction")->s;
    bool is_left = strcmp(direction, "LEFT") == 0;
    if (!is_left && strcmp(direction, "RIGHT") != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "direction is '%s', must be LEFT or RIGHT",
                             direction);
    return pm_onnx_build(call, &call->out[0], PM_OP_shift, call->in, 2,
                         PM_ATTRS(pm_attr_bool("left", is_left)));
}

pm_status pm_onnx_do_cast_like(pm_onnx_call *call)
{
    return pm_onnx_cast(call, call->in[0], call->in[1]->type->elem, &call->out[0]);
}

static pm_status clip_bound(pm_onnx_call *call, size_t input, const char *attr, pm_value **out)
{
    *out = NULL;
    if (!call->n_decls) {
        if (input < call->n_in)
            *out = call->in[input];
        return PM_OK;
    }
    const pm_onnx_attr *value = pm_onnx_attr_of(call, attr);
    return value->given ? pm_onnx_scalar(call, call->in[0]->type->elem, value->f, out) : PM_OK;
}

pm_status pm_onnx_do_clip(pm_onnx_call *call)
{
    pm_value *x = call->in[0], *lo, *hi;
    PM_TRY(clip_bound(call, 1, "min", &lo));
    PM_TRY(clip_bound(call, 2, "max", &hi));
    if (lo)
        PM_TRY(pm_onnx_build(call, &x, PM_OP_max, PM_OPERANDS(x, lo), PM_NO_ATTRS));
    if (hi)
        PM_TRY(pm_onnx_build(call, &x, PM_OP_min, PM_OPERANDS(x, hi), PM_NO_ATTRS));
    call->out[0] = x;
    return PM_OK;
}

pm_status pm_onnx_do_variadic(pm_onnx_call *call)
{
    pm_value *x = call->in[0];
    for (size_t i = 1; i < call->n_in; i++) {
        if (!call->in[i])
            return pm_onnx_error(call, PM_ERR_INVALID, "input %zu is missing", i);
        PM_TRY(pm_onnx_build(call, &x, (pm_opcode)call->row->op, PM_OPERANDS(x, call->in[i]),
                             PM_NO_ATTRS));
    }
    if (strcmp(call->row->text, "mean") == 0 && call->n_in > 1) {
        pm_value *n;
        PM_TRY(pm_onnx_scalar(call, x->type->elem, (double)call->n_in, &n));
        PM_TRY(pm_onnx_build(call, &x, PM_OP_div, PM_OPERANDS(x, n), PM_NO_ATTRS));
    }
    call->out[0] = x;
    return PM_OK;
}

pm_status pm_onnx_do_constant_of_shape(pm_onnx_call *call)
{
    pm_value *value;
    const pm_onnx_attr *attr = pm_onnx_attr_of(call, "value");
    if (!attr->given) {
        PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &value));
    } else {
        PM_TRY(pm_onnx_const(call->onnx, &call->b, attr->tensor, call->node->output[0], &value));
        int64_t count;
        if (pm_onnx_is_float8(call->onnx, value))
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "'value' of FLOAT8E4M3FN");
        if (!pm_type_const_count(call->onnx->module, value->type, &count) || count != 1)
            return pm_onnx_error(call, PM_ERR_INVALID, "'value' must have one element");
    }
    return pm_onnx_build(call, &call->out[0], PM_OP_fill, PM_OPERANDS(call->in[0], value),
                         PM_NO_ATTRS);
}
