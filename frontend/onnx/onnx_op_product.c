/* Handlers: matrix products, convolution, rotary embedding. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_gemm, pm_onnx_do_fused_matmul, pm_onnx_do_grouped_matmul, pm_onnx_do_conv, pm_onnx_do_rotary,
    pm_onnx_do_rotary_ms;

static pm_status scale(pm_onnx_call *call, pm_value *x, double by, pm_value **out)
{
    *out = x;
    if (by == 1)
        return PM_OK;
    pm_value *factor;
    PM_TRY(pm_onnx_scalar(call, x->type->elem, by, &factor));
    return pm_onnx_build(call, out, PM_OP_mul, PM_OPERANDS(x, factor), PM_NO_ATTRS);
}

static pm_status product(pm_onnx_call *call, pm_value **out)
{
    return pm_onnx_build(
        call, out, PM_OP_matmul, call->in, 2,
        PM_ATTRS(pm_attr_bool("trans_a", pm_onnx_attr_of(call, "transA")->i != 0),
                 pm_attr_bool("trans_b", pm_onnx_attr_of(call, "transB")->i != 0)));
}

pm_status pm_onnx_do_gemm(pm_onnx_call *call)
{
    for (int i = 0; i < 2; i++) {
        if (call->in[i]->type->rank != 2)
            return pm_onnx_error(call, PM_ERR_INVALID, "input %d has rank %" PRId32 ", must be 2",
                                 i, call->in[i]->type->rank);
    }
    pm_value *x, *c;
    PM_TRY(product(call, &x));
    PM_TRY(scale(call, x, pm_onnx_attr_of(call, "alpha")->f, &x));
    if (call->n_in > 2) {
        if (call->in[2]->type->rank > 2)
            return pm_onnx_error(call, PM_ERR_INVALID,
                                 "input 2 has rank %" PRId32 ", must be 2 at most",
                                 call->in[2]->type->rank);
        PM_TRY(scale(call, call->in[2], pm_onnx_attr_of(call, "beta")->f, &c));
        PM_TRY(pm_onnx_build(call, &x, PM_OP_add, PM_OPERANDS(x, c), PM_NO_ATTRS));
    }
    call->out[0] = x;
    return PM_OK;
}

/* [M, batch dims, K] as [batch dims, M, K]. */
static pm_status batch_first(pm_onnx_call *call, size_t input)
{
    int64_t perm[PM_MAX_RANK];
    int32_t rank = call->in[input]->type->rank;
    for (int32_t i = 0; i < rank; i++)
        perm[i] = i < rank - 2 ? i + 1 : i == rank - 2 ? 0 : i;
    return rank < 3 ? PM_OK : pm_onnx_transpose(call, call->in[input], perm, &call->in[input]);
}

pm_status pm_onnx_do_fused_matmul(pm_onnx_call *call)
{
    if (pm_onnx_attr_of(call, "transBatchA")->i)
        PM_TRY(batch_first(call, 0));
    if (pm_onnx_attr_of(call, "transBatchB")->i)
        PM_TRY(batch_first(call, 1));
    pm_value *x;
    PM_TRY(product(call, &x));
    return scale(call, x, pm_onnx_attr_of(call, "alpha")->f, &call->out[0]);
}

/* x [M, K], weights [G, K, N], indices [M, k]: [M, k, N], each row by the matrices that it names. */
pm_status pm_onnx_do_grouped_matmul(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    const pm_type *x = call->in[0]->type, *indices = call->in[2]->type;
    if (x->rank != 2 || call->in[1]->type->rank != 3 || indices->rank != 2)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "needs an input of rank 2, weights of rank 3 and indices of rank 2");
    pm_dim one = pm_dim_const(m, 1);
    const pm_dim rows[] = {x->dims[0], one, one, x->dims[1]};
    const pm_dim out[] = {x->dims[0], indices->dims[1], call->in[1]->type->dims[2]};
    pm_value *weights, *row, *y;
    PM_TRY(pm_onnx_build(call, &weights, PM_OP_gather, PM_OPERANDS(call->in[1], call->in[2]),
                         PM_ATTRS(pm_attr_i64("axis", 0))));
    PM_TRY(pm_onnx_reshape(call, call->in[0], rows, 4, &row));
    PM_TRY(pm_onnx_build(call, &y, PM_OP_matmul, PM_OPERANDS(row, weights), PM_NO_ATTRS));
    return pm_onnx_reshape(call, y, out, 3, &call->out[0]);
}

/* ---- convolution ---- */

enum { MAX_SPATIAL = PM_MAX_RANK - 2 };

/* One number per spatial axis from an attribute, or `fallback`. */
static pm_status spatial(pm_onnx_call *call, const char *name, size_t n, int64_t lowest,
                         int64_t fallback, int64_t *out)
{
    const pm_onnx_attr *attr = pm_onnx_attr_of(call, name);
    if (attr->given && attr->n != n)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s has %zu numbers, must have %zu", name,
                             attr->n, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = attr->given ? attr->ints[i] : fallback;
        if (out[i] < lowest || out[i] > INT32_MAX)
            return pm_onnx_error(call, PM_ERR_INVALID, "%s holds %" PRId64, name, out[i]);
    }
    return PM_OK;
}

/* Pads that make the output ceil(input / stride) long. */
static pm_status same_pads(pm_onnx_call *call, size_t n, const int64_t *strides,
                           const int64_t *dilations, bool upper, int64_t *out)
{
    pm_module *m = call->onnx->module;
    for (size_t i = 0; i < n; i++) {
        int64_t size, kernel;
        if (!pm_dim_is_const(m, call->in[0]->type->dims[i + 2], &size) ||
            !pm_dim_is_const(m, call->in[1]->type->dims[i + 2], &kernel))
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "auto_pad needs sizes that are known");
        if (kernel < 1 || size < 0 || kernel > INT32_MAX || size > INT32_MAX)
            return pm_onnx_error(call, PM_ERR_INVALID, "dim %zu doesn't fit a convolution", i + 2);
        int64_t count = (size + strides[i] - 1) / strides[i];
        int64_t total = (count - 1) * strides[i] + (kernel - 1) * dilations[i] + 1 - size;
        if (total < 0)
            total = 0;
        out[i] = upper ? total / 2 : total - total / 2;
        out[i + n] = total - out[i];
    }
    return PM_OK;
}

static pm_status check_kernel(pm_onnx_call *call, size_t n)
{
    const pm_onnx_attr *shape = pm_onnx_attr_of(call, "kernel_shape");
    if (shape->given && shape->n != n)
        return pm_onnx_error(call, PM_ERR_INVALID, "kernel_shape has %zu numbers, must have %zu",
                             shape->n, n);
    for (size_t i = 0; shape->given && i < n; i++) {
        int64_t kernel;
        if (pm_dim_is_const(call->onnx->module, call->in[1]->type->dims[i + 2], &kernel) &&
            kernel != shape->ints[i])
            return pm_onnx_error(call, PM_ERR_INVALID,
                                 "kernel_shape says %" PRId64 ", but the weights have %" PRId64,
                                 shape->ints[i], kernel);
    }
    return PM_OK;
}

pm_status pm_onnx_do_conv(pm_onnx_call *call)
{
    int32_t rank = call->in[0]->type->rank;
    if (rank < 3 || call->in[1]->type->rank != rank)
        return pm_onnx_error(call, PM_ERR_INVALID, "input and weights must have one rank, above 2");
    size_t n = (size_t)rank - 2;
    int64_t strides[MAX_SPATIAL], dilations[MAX_SPATIAL], pads[2 * MAX_SPATIAL];
    PM_TRY(check_kernel(call, n));
    PM_TRY(spatial(call, "strides", n, 1, 1, strides));
    PM_TRY(spatial(call, "dilations", n, 1, 1, dilations));
    PM_TRY(spatial(call, "pads", 2 * n, 0, 0, pads));
    const char *mode = pm_onnx_attr_of(call, "auto_pad")->s;
    bool upper = strcmp(mode, "SAME_UPPER") == 0;
    if (upper || strcmp(mode, "SAME_LOWER") == 0)
        PM_TRY(same_pads(call, n, strides, dilations, upper, pads));
    else if (strcmp(mode, "NOTSET") != 0 && strcmp(mode, "VALID") != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "auto_pad is '%s'", mode);
    return pm_onnx_build(call, &call->out[0], PM_OP_conv, call->in, call->n_in,
                         PM_ATTRS(pm_attr_i64("group", pm_onnx_attr_of(call, "group")->i),
                                  pm_attr_ints("strides", strides, n),
                                  pm_attr_ints("dilations", dilations, n),
                                  pm_attr_ints("pads", pads, 2 * n)));
}

/* ---- rotary embedding ---- */

static pm_status build2(pm_onnx_call *call, pm_opcode op, pm_value *x, pm_value *y, pm_value **out)
{
    return pm_onnx_build(call, out, op, PM_OPERANDS(x, y), PM_NO_ATTRS);
}

static pm_status strided(pm_onnx_call *call, pm_value *x, int64_t axis, int64_t start,
                         pm_value **out)
{
    const int64_t end = INT64_MAX, step = 2;
    pm_value *operands[5] = {x};
    PM_TRY(pm_onnx_vector(call, &start, 1, &operands[1]));
    PM_TRY(pm_onnx_vector(call, &end, 1, &operands[2]));
    PM_TRY(pm_onnx_vector(call, &axis, 1, &operands[3]));
    PM_TRY(pm_onnx_vector(call, &step, 1, &operands[4]));
    return pm_onnx_build(call, out, PM_OP_slice, operands, 5, PM_NO_ATTRS);
}

static pm_status join(pm_onnx_call *call, pm_value *a, pm_value *b, int64_t axis, pm_value **out)
{
    return pm_onnx_build(call, out, PM_OP_concat, PM_OPERANDS(a, b),
                         PM_ATTRS(pm_attr_i64("axis", axis)));
}

/* x [.., 2h] turned by cos, sin [.., h]: (a, b) to (a cos - b sin, a sin + b cos), where a and b
 * are the halves of x or its even and odd elements. */
static pm_status rotate(pm_onnx_call *call, pm_value *x, pm_value *cosine, pm_value *sine,
                        int64_t half, bool interleaved, pm_value **out)
{
    int64_t last = x->type->rank - 1;
    pm_value *a, *b, *p, *q, *re, *im;
    if (interleaved) {
        PM_TRY(strided(call, x, last, 0, &a));
        PM_TRY(strided(call, x, last, 1, &b));
    } else {
        PM_TRY(pm_onnx_slice(call, x, last, 0, half, &a));
        PM_TRY(pm_onnx_slice(call, x, last, half, 2 * half, &b));
    }
    PM_TRY(build2(call, PM_OP_mul, a, cosine, &p));
    PM_TRY(build2(call, PM_OP_mul, b, sine, &q));
    PM_TRY(build2(call, PM_OP_sub, p, q, &re));
    PM_TRY(build2(call, PM_OP_mul, a, sine, &p));
    PM_TRY(build2(call, PM_OP_mul, b, cosine, &q));
    PM_TRY(build2(call, PM_OP_add, p, q, &im));
    if (!interleaved)
        return join(call, re, im, last, out);
    /* [.., h] twice to [.., h, 2] to [.., 2h] */
    pm_dim dims[PM_MAX_RANK + 1];
    if (x->type->rank == PM_MAX_RANK)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "rank is too high");
    memcpy(dims, re->type->dims, (size_t)(last + 1) * sizeof *dims);
    dims[last + 1] = pm_dim_const(call->onnx->module, 1);
    PM_TRY(pm_onnx_reshape(call, re, dims, (int32_t)last + 2, &re));
    PM_TRY(pm_onnx_reshape(call, im, dims, (int32_t)last + 2, &im));
    PM_TRY(join(call, re, im, last + 1, out));
    return pm_onnx_reshape(call, *out, x->type->dims, x->type->rank, out);
}

/* The first elements of each row, as many as the tables have; the others stay. */
static pm_status rotate_first(pm_onnx_call *call, pm_value *x, pm_value *cosine, pm_value *sine,
                              bool interleaved, pm_value **out)
{
    int32_t last = x->type->rank - 1;
    int64_t width = pm_onnx_extent(call, x, last), half = pm_onnx_extent(call, cosine, cosine->type->rank - 1);
    pm_value *rest = NULL;
    if (half < 1 || width < 2 * half)
        return pm_onnx_error(call, PM_ERR_INVALID, "the heads are narrower than the cache");
    if (width > 2 * half) {
        PM_TRY(pm_onnx_slice(call, x, last, 2 * half, width, &rest));
        PM_TRY(pm_onnx_slice(call, x, last, 0, 2 * half, &x));
    }
    PM_TRY(rotate(call, x, cosine, sine, half, interleaved, out));
    return rest ? join(call, *out, rest, last, out) : PM_OK;
}

/* What both forms of the operator have in common once their inputs are in order: x as given,
 * cosine and sine [B, T, h] of each position. */
static pm_status rotary(pm_onnx_call *call, pm_value *x, pm_value *cosine, pm_value *sine)
{
    pm_module *m = call->onnx->module;
    const pm_type *given = x->type;
    int64_t half, width, heads = pm_onnx_attr_of(call, "num_heads")->i;
    bool interleaved = pm_onnx_attr_of(call, "interleaved")->i != 0;
    if (cosine->type->rank != 3 || (given->rank != 3 && given->rank != 4))
        return pm_onnx_error(call, PM_ERR_INVALID, "needs an input of rank 3 or 4");
    if (!pm_dim_is_const(m, cosine->type->dims[2], &half) || half < 1)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the width of the cache must be known");
    pm_dim one = pm_dim_const(m, 1);
    const pm_dim *table = cosine->type->dims;
    if (given->rank == 3) {
        if (!pm_dim_is_const(m, given->dims[2], &width))
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the width of the input must be known");
        if (heads == 0)
            heads = width / (2 * half);
        if (heads < 1 || width % heads)
            return pm_onnx_error(call, PM_ERR_INVALID,
                                 "width %" PRId64 " isn't a multiple of %" PRId64 " heads", width,
                                 heads);
        const pm_dim dims[] = {given->dims[0], given->dims[1], pm_dim_const(m, heads),
                               pm_dim_const(m, width / heads)};
        PM_TRY(pm_onnx_reshape(call, x, dims, 4, &x));
        const pm_dim cache[] = {table[0], table[1], one, table[2]};
        PM_TRY(pm_onnx_reshape(call, cosine, cache, 4, &cosine));
        PM_TRY(pm_onnx_reshape(call, sine, cache, 4, &sine));
    } else {
        const pm_dim cache[] = {table[0], one, table[1], table[2]};
        PM_TRY(pm_onnx_reshape(call, cosine, cache, 4, &cosine));
        PM_TRY(pm_onnx_reshape(call, sine, cache, 4, &sine));
    }
    if (!pm_dim_is_const(m, x->type->dims[3], &width) || width < 2 * half)
        return pm_onnx_error(call, PM_ERR_INVALID, "the heads are narrower than the cache");
    int64_t turned = pm_onnx_attr_of(call, "rotary_embedding_dim")->i;
    if (turned != 0 && turned != 2 * half)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "rotary_embedding_dim is %" PRId64 ", but the cache has %" PRId64,
                             turned, 2 * half);
    PM_TRY(rotate_first(call, x, cosine, sine, interleaved, &x));
    return pm_onnx_reshape(call, x, given->dims, given->rank, &call->out[0]);
}

static pm_status look_up(pm_onnx_call *call, pm_value *cache, pm_value *positions, pm_value **out)
{
    if (cache->type->rank != 2 || positions->type->rank != 2)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "needs caches of rank 2 and positions of rank 2");
    return pm_onnx_build(call, out, PM_OP_gather, PM_OPERANDS(cache, positions),
                         PM_ATTRS(pm_attr_i64("axis", 0)));
}

pm_status pm_onnx_do_rotary(pm_onnx_call *call)
{
    pm_value *cosine = call->in[1], *sine = call->in[2];
    if (call->n_in > 3) {
        PM_TRY(look_up(call, cosine, call->in[3], &cosine));
        PM_TRY(look_up(call, sine, call->in[3], &sine));
    }
    return rotary(call, call->in[0], cosine, sine);
}

pm_status pm_onnx_do_rotary_ms(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    pm_value *x = call->in[0], *positions = call->in[1], *cosine, *sine;
    if (pm_onnx_attr_of(call, "is_packed_batching")->i || pm_onnx_attr_of(call, "scale")->f != 1)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "packed batching and scale");
    if (positions->type->rank == 1 && x->type->rank >= 3) {
        /* one number: where the sequence begins */
        pm_dim length = x->type->dims[x->type->rank == 3 ? 1 : 2], one = pm_dim_const(m, 1);
        pm_value *zero, *step, *count, *range;
        const pm_dim row[] = {one, length};
        PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
        PM_TRY(pm_onnx_scalar(call, PM_I64, 1, &step));
        PM_TRY(pm_build_dims(&call->b, 1, &length, &count));
        PM_TRY(pm_onnx_reshape(call, count, NULL, 0, &count));
        PM_TRY(
            pm_onnx_build(call, &range, PM_OP_range, PM_OPERANDS(zero, count, step), PM_NO_ATTRS));
        PM_TRY(build2(call, PM_OP_add, range, positions, &positions));
        PM_TRY(pm_onnx_reshape(call, positions, row, 2, &positions));
    }
    PM_TRY(look_up(call, call->in[2], positions, &cosine));
    PM_TRY(look_up(call, call->in[3], positions, &sine));
    return rotary(call, x, cosine, sine);
}
