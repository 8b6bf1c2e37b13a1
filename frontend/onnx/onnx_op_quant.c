/* Handlers: weights as codes with scales, DequantizeLinear; floats of 8 bits, which only it and Cast read. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_dequantize_linear, pm_onnx_do_cast;

/* Which elements share a scale. */
typedef struct quant {
    pm_value *x, *scale, *zero;
    pm_elem out;
    int32_t rank;
    bool is_one;   ///< one scale for all
    int64_t axis;  ///< each element along it has its own; with blocks, each block along it
    int64_t block; ///< 0: none
} quant;

/* ---- in general: elements times scales ---- */

/* One value for each element along the axis, as x broadcasts it. */
static pm_status broadcast_factor(pm_onnx_call *call, const quant *q, pm_value *v, pm_value **out)
{
    pm_module *m = call->onnx->module;
    pm_dim dims[PM_MAX_RANK + 1];
    if (q->is_one)
        return pm_onnx_reshape(call, v, NULL, 0, out);
    if (q->block == 0) {
        for (int32_t i = 0; i < q->rank; i++)
            dims[i] = i == q->axis ? v->type->dims[0] : pm_dim_const(m, 1);
        return pm_onnx_reshape(call, v, dims, q->rank, out);
    }
    /* [.., blocks, ..] as [.., blocks, 1, ..], repeated, and what a last block has too many cut off */
    int64_t blocks = pm_onnx_extent(call, v, (int32_t)q->axis), n = pm_onnx_extent(call, q->x, (int32_t)q->axis);
    pm_value *whole;
    if (q->rank == PM_MAX_RANK)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "blocks of a tensor of %d axes", PM_MAX_RANK);
    for (int32_t i = 0, at = 0; i < q->rank; i++) {
        dims[at++] = v->type->dims[i];
        if (i == q->axis)
            dims[at++] = pm_dim_const(m, 1);
    }
    PM_TRY(pm_onnx_reshape(call, v, dims, q->rank + 1, &v));
    dims[q->axis + 1] = pm_dim_const(m, q->block);
    PM_TRY(pm_build_dims(&call->b, q->rank + 1, dims, &whole));
    PM_TRY(pm_onnx_build(call, &v, PM_OP_expand, PM_OPERANDS(v, whole), PM_NO_ATTRS));
    memmove(dims + q->axis + 1, dims + q->axis + 2, (size_t)(q->rank - q->axis - 1) * sizeof *dims);
    dims[q->axis] = pm_dim_const(m, blocks * q->block);
    PM_TRY(pm_onnx_reshape(call, v, dims, q->rank, &v));
    *out = v;
    return blocks * q->block == n ? PM_OK : pm_onnx_slice(call, v, q->axis, 0, n, out);
}

static pm_status times_scale(pm_onnx_call *call, const quant *q, pm_value *x, pm_value **out)
{
    pm_value *scale, *zero;
    if (q->zero) {
        PM_TRY(pm_onnx_cast(call, x, PM_I32, &x));
        PM_TRY(broadcast_factor(call, q, q->zero, &zero));
        PM_TRY(pm_onnx_cast(call, zero, PM_I32, &zero));
        PM_TRY(pm_onnx_build(call, &x, PM_OP_sub, PM_OPERANDS(x, zero), PM_NO_ATTRS));
    }
    PM_TRY(pm_onnx_cast(call, x, PM_F32, &x));
    PM_TRY(broadcast_factor(call, q, q->scale, &scale));
    PM_TRY(pm_onnx_cast(call, scale, PM_F32, &scale));
    PM_TRY(pm_onnx_build(call, &x, PM_OP_mul, PM_OPERANDS(x, scale), PM_NO_ATTRS));
    return pm_onnx_cast(call, x, q->out, out);
}

/* ---- floats of 8 bits ---- */

static pm_status decode(pm_onnx_call *call, pm_value *codes, pm_value *scales, int64_t block, pm_value **out)
{
    int64_t k = pm_onnx_extent(call, codes, codes->type->rank - 1);
    return pm_onnx_build(call, out, PM_OP_dequantize, PM_OPERANDS(codes, scales),
                         PM_ATTRS(pm_attr_i64("k", k), pm_attr_i64("bits", 8), pm_attr_i64("block", block),
                                  pm_attr_str("format", "e4m3")));
}

/* What the codes stand for by themselves: as one line whose scale is 2^0. */
static pm_status decode_alone(pm_onnx_call *call, pm_value *codes, pm_value **out)
{
    enum { POWER_0 = 127 };
    pm_module *m = call->onnx->module;
    const pm_type *type = codes->type;
    const int64_t one[] = {1, 1}, power = POWER_0;
    int64_t count = 0;
    pm_value *scale;
    (void)pm_type_const_count(m, type, &count);
    const pm_dim line[] = {pm_dim_const(m, 1), pm_dim_const(m, count)};
    PM_TRY(pm_onnx_reshape(call, codes, line, 2, &codes));
    PM_TRY(pm_build_const_ints(&call->b, PM_U8, 2, one, &power, &scale));
    PM_TRY(decode(call, codes, scale, 0, out));
    return pm_onnx_reshape(call, *out, type->dims, type->rank, out);
}

/* With its last two axes exchanged. */
static pm_status turned(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    int64_t perm[PM_MAX_RANK];
    int32_t rank = x->type->rank;
    for (int32_t i = 0; i < rank; i++)
        perm[i] = i;
    perm[rank - 1] = rank - 2;
    perm[rank - 2] = rank - 1;
    return pm_onnx_transpose(call, x, perm, out);
}

/* A scale for each row of the codes, [.., rows, 1], as a constant: products want them so. `along`: the axis of the codes
 * whose elements have their own, -1: there is one. */
static pm_status row_scales(pm_onnx_call *call, const quant *q, const pm_value *codes, int64_t along, pm_value **out)
{
    pm_module *m = call->onnx->module;
    int64_t dims[PM_MAX_RANK], inner = 1, rows = 1, bytes;
    size_t size = pm_elem_size(q->scale->type->elem);
    const uint8_t *from = NULL;
    pm_dim known[PM_MAX_RANK];
    for (int32_t i = 0; i < q->rank; i++) {
        dims[i] = i == q->rank - 1 ? 1 : pm_onnx_extent(call, codes, i);
        known[i] = pm_dim_const(m, dims[i]);
        if (!pm_mul_i64(rows, dims[i], &rows))
            return pm_onnx_error(call, PM_ERR_INVALID, "too many rows");
    }
    for (int32_t i = (int32_t)along + 1; i < q->rank && rows > 0; i++)
        inner *= dims[i];
    if (!pm_mul_i64(rows, (int64_t)size, &bytes))
        return pm_onnx_error(call, PM_ERR_INVALID, "too many rows");
    PM_TRY(pm_data_bytes(m, pm_value_const(q->scale), &from));
    uint8_t *all = pm_arena_alloc(m->arena, (size_t)bytes, 16);
    for (int64_t row = 0; row < rows; row++)
        memcpy(all + (size_t)row * size, from + (along < 0 ? 0 : (size_t)(row / inner % dims[along])) * size, size);
    pm_data *data = PM_NEW(m->arena, pm_data);
    *data = (pm_data){.size = (uint64_t)bytes, .bytes = all};
    return pm_build_const(&call->b, pm_type_get(m, q->scale->type->elem, q->rank, known), data, NULL, out);
}

/* A matrix, or a stack of them, whose scales say which of its last two axes products go along: what shares a scale lies
 * side by side in `dequantize`. False in *out_is_one: times_scale must do. */
static pm_status decode_matrix(pm_onnx_call *call, const quant *q, bool *out_done)
{
    int32_t last = q->rank - 1;
    pm_value *codes = q->x, *scales = q->scale;
    *out_done = q->rank >= 2 && pm_value_const(scales) && scales->type->elem != PM_F64 &&
                (q->is_one || q->block == 0 || q->axis >= last - 1);
    if (!*out_done)
        return PM_OK;
    bool turn = !q->is_one && q->axis == (q->block > 0 ? last - 1 : last);
    if (turn)
        PM_TRY(turned(call, codes, &codes));
    if (q->is_one || q->block == 0)
        PM_TRY(row_scales(call, q, codes, q->is_one ? -1 : turn ? last - 1 : q->axis, &scales));
    else if (turn)
        PM_TRY(turned(call, scales, &scales));
    PM_TRY(decode(call, codes, scales, q->block, &codes));
    if (turn)
        PM_TRY(turned(call, codes, &codes));
    return pm_onnx_cast(call, codes, q->out, &call->out[0]);
}

static pm_status no_zero(pm_onnx_call *call, const pm_value *zero)
{
    const uint8_t *bytes;
    const pm_data *data = pm_value_const(zero);
    if (!data)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "a zero point of FLOAT8E4M3FN that is no constant");
    PM_TRY(pm_data_bytes(call->onnx->module, data, &bytes));
    for (uint64_t i = 0; i < data->size; i++)
        if (bytes[i] & 0x7f)
            return pm_onnx_error(call, PM_ERR_INVALID, "the zero point of FLOAT8E4M3FN must be 0");
    return PM_OK;
}

static pm_status dequantize_float8(pm_onnx_call *call, quant *q)
{
    bool done;
    pm_value *x;
    if (q->zero)
        PM_TRY(no_zero(call, q->zero));
    q->zero = NULL;
    PM_TRY(decode_matrix(call, q, &done));
    if (done)
        return PM_OK;
    PM_TRY(decode_alone(call, q->x, &x));
    return times_scale(call, q, x, &call->out[0]);
}

/* ---- DequantizeLinear ---- */

/* Scale or zero point: one, one for each element along the axis, or one for each block along it. */
static pm_status check_factor(pm_onnx_call *call, const quant *q, int i, const char *what)
{
    int64_t dims[PM_MAX_RANK], n = pm_onnx_extent(call, q->x, (int32_t)q->axis);
    if (q->is_one) {
        int64_t count;
        return pm_type_const_count(call->onnx->module, call->in[i]->type, &count) && count == 1 &&
                       call->in[i]->type->rank <= 1
                   ? PM_OK
                   : pm_onnx_wrong_shape(call, i, what, "one number");
    }
    if (q->block == 0)
        return pm_onnx_check_shape(call, i, what, 1, &n);
    for (int32_t d = 0; d < q->rank; d++)
        dims[d] = pm_onnx_extent(call, q->x, d);
    dims[q->axis] = n / q->block + (n % q->block != 0);
    return pm_onnx_check_shape(call, i, what, q->rank, dims);
}

static pm_status read_quant(pm_onnx_call *call, quant *q)
{
    enum { X, SCALE, ZERO };
    int64_t out = pm_onnx_attr_of(call, "output_dtype")->i, count;
    *q = (quant){.x = call->in[X], .scale = call->in[SCALE], .zero = pm_onnx_input(call, ZERO)};
    const pm_type *scale = q->scale->type;
    q->rank = q->x->type->rank;
    q->block = pm_onnx_attr_of(call, "block_size")->i;
    q->out = scale->elem;
    if (!pm_elem_is_float(scale->elem) || scale->elem == PM_F64)
        return pm_onnx_wrong_shape(call, SCALE, "x_scale", "f32, f16 or bf16");
    if (out != 0 && (out < 0 || out > INT32_MAX || !pm_elem_from_onnx((int32_t)out, &q->out) || !pm_elem_is_float(q->out)))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "output_dtype is %" PRId64, out);
    if (q->block < 0 || q->block > INT32_MAX)
        return pm_onnx_error(call, PM_ERR_INVALID, "block_size is %" PRId64, q->block);
    // a line of one number counts as one for all, whatever the axis
    q->is_one = q->block == 0 && (scale->rank == 0 || (scale->rank == 1 && pm_type_const_count(call->onnx->module, scale, &count) &&
                                                       count == 1));
    if (!q->is_one)
        PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, q->rank, &q->axis));
    if (!q->is_one && pm_onnx_extent(call, q->x, (int32_t)q->axis) < 1)
        return pm_onnx_wrong_shape(call, X, "x", "known along the axis");
    PM_TRY(check_factor(call, q, SCALE, "x_scale"));
    return q->zero ? check_factor(call, q, ZERO, "x_zero_point") : PM_OK;
}

pm_status pm_onnx_do_dequantize_linear(pm_onnx_call *call)
{
    enum { X, SCALE, ZERO };
    quant q;
    bool is_float8 = pm_onnx_is_float8(call->onnx, call->in[X]);
    if (pm_onnx_is_float8(call->onnx, call->in[SCALE]))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "x_scale '%s' of FLOAT8E4M3FN", call->node->input[SCALE]);
    PM_TRY(read_quant(call, &q));
    if (q.zero && pm_onnx_is_float8(call->onnx, q.zero) != is_float8)
        return pm_onnx_error(call, PM_ERR_INVALID, "x_zero_point '%s' must have the type of x", call->node->input[ZERO]);
    if (is_float8)
        return dequantize_float8(call, &q);
    PM_TRY(pm_onnx_check_elem(call, ZERO, "x_zero_point", X));
    switch (q.x->type->elem) {
    case PM_I8:
    case PM_U8:
    case PM_I16:
    case PM_U16:
    case PM_I32: return times_scale(call, &q, q.x, &call->out[0]);
    default: return pm_onnx_wrong_shape(call, X, "x", "integers of up to 32 bits, or FLOAT8E4M3FN");
    }
}

/* ---- Cast ---- */

pm_status pm_onnx_do_cast(pm_onnx_call *call)
{
    pm_value *x = call->in[0];
    if (pm_onnx_is_float8(call->onnx, x))
        PM_TRY(decode_alone(call, x, &x));
    return pm_onnx_cast(call, x, (pm_elem)pm_onnx_attr_of(call, "to")->i, &call->out[0]);
}
