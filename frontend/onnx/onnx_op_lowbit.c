/* Handlers: weights of few bits. */
#include <inttypes.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_matmul_nbits, pm_onnx_do_gather_block;

pm_status pm_onnx_dequantize(pm_onnx_call *call, pm_value *codes, pm_value *scales, pm_value *zeros,
                             int64_t k, int64_t bits, int64_t block, pm_value **out)
{
    return pm_onnx_build(call, out, PM_OP_dequantize, (pm_value *[]){codes, scales, zeros}, zeros ? 3 : 2,
                         PM_ATTRS(pm_attr_i64("k", k), pm_attr_i64("bits", bits),
                                  pm_attr_i64("block", block)));
}

static pm_status check_bits(pm_onnx_call *call, int64_t bits, int64_t block)
{
    if (bits != 2 && bits != 4 && bits != 8)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "bits is %" PRId64 ", must be 2, 4 or 8", bits);
    if (block < 16 || block > INT32_MAX || (block & (block - 1)) != 0)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "block_size is %" PRId64 ", must be a power of two from 16 on", block);
    return PM_OK;
}

/* An input of `n` rows of `each`, as a matrix; older models store it as one line. */
static pm_status as_matrix(pm_onnx_call *call, int i, const char *what, int64_t n, int64_t each,
                           pm_value **out)
{
    const int64_t dims[] = {n, each};
    int64_t count;
    pm_module *m = call->onnx->module;
    pm_value *v = call->in[i];
    bool is_line = v->type->rank == 1 && pm_type_const_count(m, v->type, &count) && count == n * each;
    if (!is_line)
        PM_TRY(pm_onnx_check_shape(call, i, what, 2, dims));
    pm_dim known[] = {pm_dim_const(m, n), pm_dim_const(m, each)};
    return pm_onnx_reshape(call, v, known, 2, out);
}

static pm_status check_matmul(pm_onnx_call *call, int64_t n, int64_t k, int64_t bits, int64_t block)
{
    enum { A, B, SCALES, GROUPS = 4, BIAS, MAX = 1 << 30 };
    int64_t prepacked = pm_onnx_attr_of(call, "weight_prepacked")->i;
    PM_TRY(check_bits(call, bits, block));
    if (n < 1 || k < 1 || n > MAX || k > MAX)
        return pm_onnx_error(call, PM_ERR_INVALID, "N is %" PRId64 " and K %" PRId64, n, k);
    if (prepacked != 0)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "weight_prepacked is %" PRId64 ": weights in the layout of one device",
                             prepacked);
    if (pm_onnx_input(call, GROUPS))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "g_idx '%s'", call->node->input[GROUPS]);
    const pm_type *a = call->in[A]->type;
    if (!pm_elem_is_float(a->elem) || a->rank < 1 ||
        pm_dim_differs(call->onnx->module, a->dims[a->rank - 1], pm_dim_const(call->onnx->module, k)))
        return pm_onnx_wrong_shape(call, A, "A", pm_arena_printf(call->onnx->temp,
                                                                 "floats of %" PRId64 " columns", k));
    PM_TRY(pm_onnx_check_elem(call, SCALES, "scales", A));
    PM_TRY(pm_onnx_check_elem(call, BIAS, "bias", A));
    if (call->in[B]->type->elem != PM_U8)
        return pm_onnx_wrong_shape(call, B, "B", "u8");
    PM_TRY(pm_onnx_check_shape(call, B, "B", 3,
                               (int64_t[]){n, (k + block - 1) / block, block * bits / 8}));
    return pm_onnx_input(call, BIAS) ? pm_onnx_check_shape(call, BIAS, "bias", 1, &n) : PM_OK;
}

/* Rows as int8 by block, with one scale each: what accuracy_level 4 asks for. The products stay exact. */
static pm_status round_rows(pm_onnx_call *call, pm_value *x, int64_t k, int64_t block, pm_value **out)
{
    pm_module *m = call->onnx->module;
    const pm_type *given = x->type;
    int64_t last = given->rank;
    pm_dim dims[PM_MAX_RANK + 1];
    pm_value *most, *steps, *none, *one, *args[3];
    *out = x;
    int64_t lacking = (block - k % block) % block;
    if (given->rank == PM_MAX_RANK)
        return PM_OK; // more exact than was asked for
    memcpy(dims, given->dims, (size_t)given->rank * sizeof *dims);
    PM_TRY(pm_onnx_cast(call, x, PM_F32, &x));
    if (lacking) { // the last block is filled up
        dims[last - 1] = pm_dim_const(m, lacking);
        PM_TRY(pm_build_dims(&call->b, given->rank, dims, &one));
        PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &none));
        PM_TRY(pm_onnx_build(call, &none, PM_OP_expand, PM_OPERANDS(none, one), PM_NO_ATTRS));
        PM_TRY(pm_onnx_build(call, &x, PM_OP_concat, PM_OPERANDS(x, none), PM_ATTRS(pm_attr_i64("axis", last - 1))));
    }
    const pm_type *whole = x->type;
    dims[last - 1] = pm_dim_const(m, (k + lacking) / block);
    dims[last] = pm_dim_const(m, block);
    PM_TRY(pm_onnx_reshape(call, x, dims, given->rank + 1, &x));
    PM_TRY(pm_onnx_build(call, &most, PM_OP_abs, PM_OPERANDS(x), PM_NO_ATTRS));
    PM_TRY(pm_onnx_build(call, &most, PM_OP_reduce_max, PM_OPERANDS(most), PM_ATTRS(pm_attr_ints("axes", &last, 1))));
    args[0] = most;
    PM_TRY(pm_onnx_expr(call, "div(x, 127)", args, &steps));
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &none));
    PM_TRY(pm_onnx_scalar(call, PM_F32, 1, &one));
    PM_TRY(pm_onnx_build(call, &none, PM_OP_equal, PM_OPERANDS(steps, none), PM_NO_ATTRS));
    PM_TRY(pm_onnx_build(call, &steps, PM_OP_where, PM_OPERANDS(none, one, steps), PM_NO_ATTRS));
    args[0] = x;
    args[1] = steps;
    PM_TRY(pm_onnx_expr(call, "mul(round(div(x, y)), y)", args, &x));
    PM_TRY(pm_onnx_reshape(call, x, whole->dims, whole->rank, &x));
    if (lacking)
        PM_TRY(pm_onnx_slice(call, x, last - 1, 0, k, &x));
    return pm_onnx_cast(call, x, given->elem, out);
}

pm_status pm_onnx_do_matmul_nbits(pm_onnx_call *call)
{
    enum { A, B, SCALES, ZEROS, BIAS = 5 };
    int64_t n = pm_onnx_attr_of(call, "N")->i, k = pm_onnx_attr_of(call, "K")->i;
    int64_t bits = pm_onnx_attr_of(call, "bits")->i, block = pm_onnx_attr_of(call, "block_size")->i;
    pm_module *m = call->onnx->module;
    PM_TRY(check_matmul(call, n, k, bits, block));
    int64_t blocks = (k + block - 1) / block;
    pm_dim dims[] = {pm_dim_const(m, n), pm_dim_const(m, blocks * (block * bits / 8))};
    pm_value *codes, *scales, *zeros = pm_onnx_input(call, ZEROS), *w, *bias = pm_onnx_input(call, BIAS);
    PM_TRY(pm_onnx_reshape(call, call->in[B], dims, 2, &codes));
    PM_TRY(as_matrix(call, SCALES, "scales", n, blocks, &scales));
    if (zeros) {
        bool packed = zeros->type->elem == PM_U8;
        if (!packed && (!pm_elem_is_float(zeros->type->elem) || zeros->type->elem == PM_F64))
            return pm_onnx_wrong_shape(call, ZEROS, "zero_points", "u8, f32, f16 or bf16");
        PM_TRY(as_matrix(call, ZEROS, "zero_points", n, packed ? (blocks * bits + 7) / 8 : blocks, &zeros));
    }
    PM_TRY(pm_onnx_dequantize(call, codes, scales, zeros, k, bits, block, &w));
    pm_value *x = call->in[A];
    if (pm_onnx_attr_of(call, "accuracy_level")->i == 4)
        PM_TRY(round_rows(call, x, k, block, &x));
    return pm_onnx_build(call, &call->out[0], PM_OP_linear, (pm_value *[]){x, w, bias}, bias ? 3 : 2, PM_NO_ATTRS);
}

/* ---- rows of a quantised table ---- */

static pm_status gather(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    *out = NULL;
    return x ? pm_onnx_build(call, out, PM_OP_gather, PM_OPERANDS(x, call->in[1]), PM_NO_ATTRS) : PM_OK;
}

/* Codes, scales and zero points are gathered; only what was asked for is decoded. */
pm_status pm_onnx_do_gather_block(pm_onnx_call *call)
{
    enum { DATA, SCALES = 2, ZEROS };
    int64_t bits = pm_onnx_attr_of(call, "bits")->i, block = pm_onnx_attr_of(call, "block_size")->i;
    const pm_type *type = call->in[DATA]->type;
    int64_t rank = type->rank, axis, quantized, dims[PM_MAX_RANK];
    PM_TRY(check_bits(call, bits, block));
    if (type->elem != PM_U8)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "data '%s' of %s; there is u8",
                             call->node->input[DATA], pm_elem_name(type->elem));
    if (rank < 2)
        return pm_onnx_wrong_shape(call, DATA, "data", "of 2 axes or more");
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "gather_axis")->i, rank, &axis));
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "quantize_axis")->i, rank, &quantized));
    if (axis != 0 || quantized != rank - 1)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "gather_axis is %" PRId64 " and quantize_axis %" PRId64
                             "; must be the first and the last",
                             axis, quantized);
    for (int32_t i = 0; i < rank; i++)
        dims[i] = pm_onnx_extent(call, call->in[DATA], i);
    int64_t k = dims[rank - 1] * (8 / bits), blocks = (k + block - 1) / block;
    dims[rank - 1] = blocks;
    PM_TRY(pm_onnx_check_shape(call, SCALES, "scales", (int32_t)rank, dims));
    if (!pm_elem_is_float(call->in[SCALES]->type->elem))
        return pm_onnx_wrong_shape(call, SCALES, "scales", "floats");
    dims[rank - 1] = (blocks * bits + 7) / 8;
    pm_value *zeros = pm_onnx_input(call, ZEROS), *codes, *scales, *y;
    if (zeros && zeros->type->elem != PM_U8)
        return pm_onnx_wrong_shape(call, ZEROS, "zero_points", "u8");
    if (zeros)
        PM_TRY(pm_onnx_check_shape(call, ZEROS, "zero_points", (int32_t)rank, dims));
    PM_TRY(gather(call, call->in[DATA], &codes));
    PM_TRY(gather(call, call->in[SCALES], &scales));
    PM_TRY(gather(call, zeros, &zeros));
    PM_TRY(pm_onnx_dequantize(call, codes, scales, zeros, k, bits, block, &y));
    return pm_onnx_cast(call, y, call->in[SCALES]->type->elem, &call->out[0]);
}
