/* Handlers: recurrences over the tokens of a sequence, with a state that goes in and comes out. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_linear_attention, pm_onnx_do_causal_conv;

/* Halves are computed with in f32. */
static pm_status wide(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    *out = x;
    return x == NULL || x->type->elem == PM_F64 ? PM_OK : pm_onnx_cast(call, x, PM_F32, out);
}

static pm_status zeros(pm_onnx_call *call, int32_t rank, const pm_dim *dims, pm_elem elem, pm_value **out)
{
    pm_value *shape, *zero;
    PM_TRY(pm_build_dims(&call->b, rank, dims, &shape));
    PM_TRY(pm_onnx_scalar(call, elem, 0, &zero));
    return pm_onnx_build(call, out, PM_OP_fill, PM_OPERANDS(shape, zero), PM_NO_ATTRS);
}

/* ---- LinearAttention ---- */

/* What a rule of updates takes. */
static const struct {
    const char *name;
    bool decay, delta;
} rules[] = {
    {"linear", false, false}, {"gated", true, false}, {"delta", false, true}, {"gated_delta", true, true}};

static pm_status read_rule(pm_onnx_call *call, bool *out_delta)
{
    const char *name = pm_onnx_attr_of(call, "update_rule")->s;
    const char *const words[] = {"forbids", "requires"};
    size_t i = 0;
    while (i < PM_COUNT(rules) && strcmp(rules[i].name, name) != 0)
        i++;
    if (i == PM_COUNT(rules))
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "update_rule is '%s', must be linear, gated, delta or gated_delta", name);
    if ((pm_onnx_input(call, 4) != NULL) != rules[i].decay)
        return pm_onnx_error(call, PM_ERR_INVALID, "update_rule %s %s decay", name, words[rules[i].decay]);
    if ((pm_onnx_input(call, 5) != NULL) != rules[i].delta)
        return pm_onnx_error(call, PM_ERR_INVALID, "update_rule %s %s beta", name, words[rules[i].delta]);
    *out_delta = rules[i].delta;
    return PM_OK;
}

/* Columns per head of input `i`, which has rank 3. */
static pm_status size_of_heads(pm_onnx_call *call, int i, int64_t heads, int64_t *out)
{
    const pm_type *type = call->in[i]->type;
    int64_t width;
    if (type->rank != 3)
        return pm_onnx_error(call, PM_ERR_INVALID, "input %d needs rank 3, found %s", i,
                             pm_type_text(call->onnx->module, type));
    if (!pm_dim_is_const(call->onnx->module, type->dims[2], &width))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the width of input %d must be known", i);
    if (heads < 1 || width < 1 || width % heads != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "a width of %" PRId64 " isn't one of %" PRId64 " heads",
                             width, heads);
    *out = width / heads;
    return PM_OK;
}

pm_status pm_onnx_do_linear_attention(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    int64_t q_heads = pm_onnx_attr_of(call, "q_num_heads")->i;
    int64_t heads = pm_onnx_attr_of(call, "kv_num_heads")->i, key_size, value_size;
    double scale = pm_onnx_attr_of(call, "scale")->f;
    bool delta = false;
    pm_value *state = pm_onnx_input(call, 3), *operands[6];
    pm_elem elem = call->in[0]->type->elem, state_elem = state ? state->type->elem : elem;
    PM_TRY(read_rule(call, &delta));
    if (call->row->domain[0] && pm_onnx_attr_of(call, "state_window")->i != 0)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "state_window");
    PM_TRY(size_of_heads(call, 0, q_heads, &key_size));
    PM_TRY(size_of_heads(call, 2, heads, &value_size));
    if (state == NULL) {
        const pm_dim dims[] = {call->in[0]->type->dims[0], pm_dim_const(m, heads),
                               pm_dim_const(m, key_size), pm_dim_const(m, value_size)};
        PM_TRY(zeros(call, 4, dims, elem == PM_F64 ? PM_F64 : PM_F32, &state));
    }
    PM_TRY(wide(call, state, &operands[0]));
    for (int i = 0; i < 3; i++)
        PM_TRY(wide(call, call->in[i], &operands[1 + i]));
    PM_TRY(wide(call, pm_onnx_input(call, 4), &operands[4]));
    PM_TRY(wide(call, pm_onnx_input(call, 5), &operands[5]));
    pm_op *op;
    PM_TRY(pm_build(&call->b, PM_OP_linear_attention, operands, PM_COUNT(operands),
                    PM_ATTRS(pm_attr_bool("delta", delta),
                             pm_attr_f64("scale", scale != 0 ? scale : 1.0 / sqrt((double)key_size))),
                    0, &op));
    PM_TRY(pm_onnx_cast(call, op->results[1], elem, &call->out[0]));
    return call->n_out > 1 ? pm_onnx_cast(call, op->results[0], state_elem, &call->out[1]) : PM_OK;
}

/* ---- CausalConvWithState ---- */

/* [B, C, n] to [B, n, C], and back. */
static pm_status turned(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    const int64_t perm[] = {0, 2, 1};
    return pm_onnx_transpose(call, x, perm, out);
}

/* Forms that only the contributed operator has. */
static pm_status read_form(pm_onnx_call *call, bool *out_channels_last)
{
    static const struct {
        const char *name;
        int64_t plain;
    } forms[] = {{"dilation", 1},         {"ndim", 1},           {"state_window", 0},
                 {"state_length", 0},     {"input_channels", 0}, {"input_channel_offset", 0},
                 {"state_update_capacity", 0}, {"state_channels_last", -1}};
    *out_channels_last = false;
    if (!call->row->domain[0])
        return PM_OK;
    for (size_t i = 0; i < PM_COUNT(forms); i++) {
        int64_t value = pm_onnx_attr_of(call, forms[i].name)->i;
        if (value != forms[i].plain)
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "%s of %" PRId64, forms[i].name, value);
    }
    *out_channels_last = pm_onnx_attr_of(call, "channels_last")->i != 0;
    return PM_OK;
}

/* [B, L, d1, ...] as [B, L, d1 * ...]. */
static pm_status flat_channels(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    pm_module *m = call->onnx->module;
    const pm_type *type = x->type;
    if (type->rank < 3)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 3, found %s", pm_type_text(m, type));
    pm_dim dims[] = {type->dims[0], type->dims[1], type->dims[2]};
    for (int32_t i = 3; i < type->rank; i++)
        dims[2] = pm_dim_mul(m, dims[2], type->dims[i]);
    return pm_onnx_reshape(call, x, dims, 3, out);
}

pm_status pm_onnx_do_causal_conv(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    const char *activation = pm_onnx_attr_of(call, "activation")->s;
    bool silu = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0, channels_last;
    pm_value *x = call->in[0], *w = call->in[1], *state = pm_onnx_input(call, 3), *operands[4], *y;
    pm_elem elem = x->type->elem, inner = elem == PM_F64 ? PM_F64 : PM_F32;
    if (!silu && strcmp(activation, "none") != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "activation is '%s', must be none, silu or swish", activation);
    PM_TRY(read_form(call, &channels_last));
    if (w->type->rank != 3 || (!channels_last && x->type->rank != 3))
        return pm_onnx_error(call, PM_ERR_INVALID, "input and weights need rank 3");
    const pm_type *given = x->type, *given_state = state ? state->type : NULL;
    if (channels_last) {
        PM_TRY(flat_channels(call, x, &x));
        if (state)
            PM_TRY(flat_channels(call, state, &state));
    }
    if (channels_last && state)
        PM_TRY(turned(call, state, &state));
    if (!channels_last)
        PM_TRY(turned(call, x, &x));
    if (state == NULL) {
        pm_dim before = pm_dim_sub(m, w->type->dims[2], pm_dim_const(m, 1));
        const pm_dim dims[] = {x->type->dims[0], x->type->dims[2], before};
        PM_TRY(zeros(call, 3, dims, inner, &state));
    }
    pm_value *const parts[] = {state, x, w, pm_onnx_input(call, 2)};
    for (size_t i = 0; i < PM_COUNT(parts); i++)
        PM_TRY(wide(call, parts[i], &operands[i]));
    pm_op *op;
    PM_TRY(pm_build(&call->b, PM_OP_causal_conv, operands, operands[3] ? 4 : 3, PM_NO_ATTRS, 0, &op));
    y = op->results[1];
    state = op->results[0];
    if (silu)
        PM_TRY(pm_onnx_build(call, &y, PM_OP_silu, PM_OPERANDS(y), PM_NO_ATTRS));
    if (channels_last) {
        PM_TRY(pm_onnx_reshape(call, y, given->dims, given->rank, &y));
        PM_TRY(turned(call, state, &state));
        if (given_state)
            PM_TRY(pm_onnx_reshape(call, state, given_state->dims, given_state->rank, &state));
    } else {
        PM_TRY(turned(call, y, &y));
    }
    PM_TRY(pm_onnx_cast(call, y, elem, &call->out[0]));
    return call->n_out > 1 ? pm_onnx_cast(call, state, elem, &call->out[1]) : PM_OK;
}
