/* Handlers: attention as one operator. All forms become the same few plain ops: scores of each query and key,
 * what is allowed, softmax, the sum of the values. Heads that share keys are rows of one product. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_attention, pm_onnx_do_multi_head, pm_onnx_do_group_query;

/* One attention, in f32: q [B, H, T, d], k [B, G, N, d], v [B, G, N, e], where G divides H. */
typedef struct attention {
    pm_onnx_call *call;
    pm_value *q, *k, *v;
    pm_value *allowed; ///< bool, broadcasts to [B, H, T, N]; NULL: all
    pm_value *bias;    ///< added to the scores, broadcasts likewise; NULL: none
    pm_value *sink;    ///< [H]: the score of a key that has no value; NULL: none
    double scale, softcap;
    pm_value *scores[4]; ///< before softcap, after it, with bias, after softmax: [B, H, T, N]
} attention;

/* ---- small builders ---- */

static pm_dim constant(const pm_onnx_call *call, int64_t n)
{
    return pm_dim_const(call->onnx->module, n);
}

static pm_status compute(pm_onnx_call *call, const char *text, pm_value *x, pm_value *y, pm_value *z,
                         pm_value **out)
{
    return pm_onnx_expr(call, text, (pm_value *const[]){x, y, z}, out);
}

static pm_status joined(pm_onnx_call *call, pm_value *x, pm_value *y, int64_t axis, pm_value **out)
{
    return pm_onnx_build(call, out, PM_OP_concat, PM_OPERANDS(x, y), PM_ATTRS(pm_attr_i64("axis", axis)));
}

/* [B, T, heads * d] to [B, heads, T, d]. */
static pm_status by_head(pm_onnx_call *call, pm_value *x, int64_t heads, pm_value **out)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    int64_t width = pm_onnx_extent(call, x, 2);
    if (heads < 1 || width < 1 || width % heads != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "a width of %" PRId64 " isn't a multiple of %" PRId64 " heads",
                             width, heads);
    const pm_dim dims[] = {x->type->dims[0], x->type->dims[1], constant(call, heads), constant(call, width / heads)};
    PM_TRY(pm_onnx_reshape(call, x, dims, 4, &x));
    return pm_onnx_transpose(call, x, perm, out);
}

/* [B, heads, T, d] to [B, T, heads * d]. */
static pm_status side_by_side(pm_onnx_call *call, pm_value *x, pm_value **out)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    const pm_dim *d = x->type->dims;
    const pm_dim dims[] = {d[0], d[2], pm_dim_mul(call->onnx->module, d[1], d[3])};
    PM_TRY(pm_onnx_transpose(call, x, perm, &x));
    return pm_onnx_reshape(call, x, dims, 3, out);
}

/* An extent as a scalar. */
static pm_status extent_value(pm_onnx_call *call, pm_dim dim, pm_value **out)
{
    PM_TRY(pm_build_dims(&call->b, 1, &dim, out));
    return pm_onnx_reshape(call, *out, NULL, 0, out);
}

/* 0, 1, … below a scalar. */
static pm_status counting(pm_onnx_call *call, pm_value *end, pm_value **out)
{
    pm_value *zero, *one;
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, PM_I64, 1, &one));
    return pm_onnx_build(call, out, PM_OP_range, PM_OPERANDS(zero, end, one), PM_NO_ATTRS);
}

/* A vector along one axis of four. */
static pm_status along(pm_onnx_call *call, pm_value *x, int axis, pm_value **out)
{
    pm_dim dims[] = {constant(call, 1), constant(call, 1), constant(call, 1), constant(call, 1)};
    dims[axis] = x->type->dims[0];
    return pm_onnx_reshape(call, x, dims, 4, out);
}

/* ---- attention itself ---- */

/* A score beside the others that takes its part of the softmax and gives nothing. */
static pm_status softmax_with_sink(attention *a, pm_value *scores, pm_value **out)
{
    pm_onnx_call *call = a->call;
    const pm_dim *d = scores->type->dims;
    const pm_dim column[] = {constant(call, 1), d[1], constant(call, 1), constant(call, 1)};
    const pm_dim wide[] = {d[0], d[1], d[2], constant(call, 1)};
    pm_value *sink, *shape, *zero, *end, *axis;
    const int64_t three = 3, from = 0, before_last = -1;
    PM_TRY(pm_onnx_reshape(call, a->sink, column, 4, &sink));
    PM_TRY(pm_build_dims(&call->b, 4, wide, &shape));
    PM_TRY(pm_onnx_build(call, &sink, PM_OP_expand, PM_OPERANDS(sink, shape), PM_NO_ATTRS));
    PM_TRY(joined(call, scores, sink, 3, &scores));
    PM_TRY(pm_onnx_build(call, &scores, PM_OP_softmax, PM_OPERANDS(scores), PM_ATTRS(pm_attr_i64("axis", -1))));
    PM_TRY(pm_onnx_vector(call, &from, 1, &zero));
    PM_TRY(pm_onnx_vector(call, &before_last, 1, &end));
    PM_TRY(pm_onnx_vector(call, &three, 1, &axis));
    return pm_onnx_build(call, out, PM_OP_slice, PM_OPERANDS(scores, zero, end, axis), PM_NO_ATTRS);
}

/* Softmax; a query that sees no key gets nothing. */
static pm_status probabilities(attention *a, pm_value *scores, pm_value **out)
{
    static const int64_t last = 3;
    pm_onnx_call *call = a->call;
    pm_value *most, *lowest, *zero, *none;
    if (a->sink)
        return softmax_with_sink(a, scores, out);
    PM_TRY(pm_onnx_build(call, out, PM_OP_softmax, PM_OPERANDS(scores), PM_ATTRS(pm_attr_i64("axis", -1))));
    if (!a->allowed && !a->bias)
        return PM_OK;
    PM_TRY(pm_onnx_scalar(call, PM_F32, -INFINITY, &lowest));
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &zero));
    PM_TRY(pm_onnx_build(call, &most, PM_OP_reduce_max, PM_OPERANDS(scores), PM_ATTRS(pm_attr_ints("axes", &last, 1))));
    PM_TRY(pm_onnx_build(call, &none, PM_OP_equal, PM_OPERANDS(most, lowest), PM_NO_ATTRS));
    return pm_onnx_build(call, out, PM_OP_where, PM_OPERANDS(none, zero, *out), PM_NO_ATTRS);
}

/* The result [B, H, T, e]. */
static pm_status attend(attention *a, pm_value **out)
{
    pm_onnx_call *call = a->call;
    pm_module *m = call->onnx->module;
    const pm_dim *q = a->q->type->dims, *k = a->k->type->dims, *v = a->v->type->dims;
    int64_t heads = pm_onnx_extent(call, a->q, 1), groups = pm_onnx_extent(call, a->k, 1);
    pm_value *factor, *scores;
    if (groups < 1 || heads % groups != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "%" PRId64 " heads can't share %" PRId64 " keys", heads, groups);
    pm_dim rows = pm_dim_mul(m, constant(call, heads / groups), q[2]);
    const pm_dim grouped[] = {q[0], k[1], rows, q[3]}, flat[] = {q[0], q[1], q[2], k[2]};
    const pm_dim regrouped[] = {q[0], k[1], rows, k[2]}, result[] = {q[0], q[1], q[2], v[3]};
    PM_TRY(pm_onnx_reshape(call, a->q, grouped, 4, &scores));
    PM_TRY(pm_onnx_build(call, &scores, PM_OP_matmul, PM_OPERANDS(scores, a->k), PM_ATTRS(pm_attr_bool("trans_b", true))));
    PM_TRY(pm_onnx_reshape(call, scores, flat, 4, &scores));
    PM_TRY(pm_onnx_scalar(call, PM_F32, a->scale, &factor));
    PM_TRY(compute(call, "mul(x, y)", scores, factor, NULL, &scores));
    a->scores[0] = scores;
    if (a->softcap > 0) {
        PM_TRY(pm_onnx_scalar(call, PM_F32, a->softcap, &factor));
        PM_TRY(compute(call, "mul(y, tanh(div(x, y)))", scores, factor, NULL, &scores));
    }
    a->scores[1] = scores;
    if (a->bias)
        PM_TRY(compute(call, "add(x, y)", scores, a->bias, NULL, &scores));
    if (a->allowed) {
        PM_TRY(pm_onnx_scalar(call, PM_F32, -INFINITY, &factor));
        PM_TRY(pm_onnx_build(call, &scores, PM_OP_where, PM_OPERANDS(a->allowed, scores, factor), PM_NO_ATTRS));
    }
    a->scores[2] = scores;
    PM_TRY(probabilities(a, scores, &scores));
    a->scores[3] = scores;
    PM_TRY(pm_onnx_reshape(call, scores, regrouped, 4, &scores));
    PM_TRY(pm_onnx_build(call, &scores, PM_OP_matmul, PM_OPERANDS(scores, a->v), PM_NO_ATTRS));
    return pm_onnx_reshape(call, scores, result, 4, out);
}

/* Keys that stand before a query, and at most `left` before or `right` behind (-1: any). `first` [B or 1] is the
 * position of the first query; positions of keys count from 0. */
static pm_status allow_positions(attention *a, pm_value *first, bool causal, int64_t left, int64_t right)
{
    pm_onnx_call *call = a->call;
    pm_value *queries, *keys, *end, *limit, *own, *both;
    PM_TRY(extent_value(call, a->q->type->dims[2], &end));
    PM_TRY(counting(call, end, &queries));
    PM_TRY(extent_value(call, a->k->type->dims[2], &end));
    PM_TRY(counting(call, end, &keys));
    PM_TRY(along(call, queries, 2, &queries));
    PM_TRY(along(call, keys, 3, &keys));
    PM_TRY(along(call, first, 0, &first));
    PM_TRY(compute(call, "add(x, y)", first, queries, NULL, &queries));
    const struct {
        bool used;
        int64_t reach;
        const char *text;
    } limits[] = {{causal, 0, "less_equal(y, x)"},
                  {left >= 0, left, "less_equal(x, add(y, z))"},
                  {right >= 0, right, "less_equal(y, add(x, z))"}};
    for (size_t i = 0; i < PM_COUNT(limits); i++) {
        if (!limits[i].used)
            continue;
        PM_TRY(pm_onnx_scalar(call, PM_I64, (double)limits[i].reach, &limit));
        PM_TRY(compute(call, limits[i].text, queries, keys, limit, &own));
        both = own;
        if (a->allowed)
            PM_TRY(compute(call, "and(x, y)", a->allowed, own, NULL, &both));
        a->allowed = both;
    }
    return PM_OK;
}

/* A mask as operators have it: true or added, its axes aligned at the end. */
static pm_status take_mask(attention *a, pm_value *mask)
{
    pm_onnx_call *call = a->call;
    pm_dim dims[4];
    int32_t rank = mask->type->rank;
    if (rank < 1 || rank > 4)
        return pm_onnx_error(call, PM_ERR_INVALID, "the mask must have 1 to 4 axes, but is %s",
                             pm_type_text(call->onnx->module, mask->type));
    for (int32_t i = 0; i < 4; i++)
        dims[i] = i < 4 - rank ? constant(call, 1) : mask->type->dims[i - (4 - rank)];
    PM_TRY(pm_onnx_reshape(call, mask, dims, 4, &mask));
    if (mask->type->elem == PM_BOOL) {
        a->allowed = mask;
        return PM_OK;
    }
    return pm_onnx_cast(call, mask, PM_F32, &a->bias);
}

static pm_status in_f32(attention *a)
{
    PM_TRY(pm_onnx_cast(a->call, a->q, PM_F32, &a->q));
    PM_TRY(pm_onnx_cast(a->call, a->k, PM_F32, &a->k));
    return pm_onnx_cast(a->call, a->v, PM_F32, &a->v);
}

static double scale_or_default(const attention *a)
{
    const pm_onnx_attr *scale = pm_onnx_attr_of(a->call, "scale");
    int64_t width = pm_onnx_extent(a->call, a->q, 3);
    return scale->present && scale->f != 0 ? scale->f : 1 / sqrt(width > 0 ? (double)width : 1);
}

/* Sets output i, when it's asked for. */
static pm_status give(pm_onnx_call *call, size_t i, pm_value *v, pm_elem elem)
{
    return i < call->n_out ? pm_onnx_cast(call, v, elem, &call->out[i]) : PM_OK;
}

static pm_status need_rank(pm_onnx_call *call, int i, const char *what, int32_t low, int32_t high)
{
    pm_value *v = pm_onnx_input(call, i);
    if (!v)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s is missing", what);
    if (v->type->rank < low || v->type->rank > high || !pm_elem_is_float(v->type->elem))
        return pm_onnx_wrong_shape(call, i, what, low == 3 ? "floats [B, T, heads * width]" : "floats [B, heads, T, width]");
    return PM_OK;
}

/* Past before new, along the axis of keys. */
static pm_status with_past(attention *a, int past_key)
{
    pm_onnx_call *call = a->call;
    if (!pm_onnx_input(call, past_key))
        return PM_OK;
    PM_TRY(need_rank(call, past_key, "past_key", 4, 4));
    PM_TRY(need_rank(call, past_key + 1, "past_value", 4, 4));
    PM_TRY(joined(call, call->in[past_key], a->k, 2, &a->k));
    return joined(call, call->in[past_key + 1], a->v, 2, &a->v);
}

/* ---- the standard operator ---- */

/* The mask may be shorter than the keys: what is missing is not allowed. */
static pm_status pad_mask(attention *a, pm_value **mask)
{
    pm_onnx_call *call = a->call;
    pm_module *m = call->onnx->module;
    int32_t rank = (*mask)->type->rank;
    pm_dim have = (*mask)->type->dims[rank - 1], want = a->k->type->dims[2];
    int64_t lacking;
    if (have == want || !pm_dim_is_const(m, pm_dim_sub(m, want, have), &lacking) || lacking <= 0)
        return PM_OK;
    pm_dim dims[PM_MAX_RANK];
    pm_value *shape, *value;
    memcpy(dims, (*mask)->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 1] = constant(call, lacking);
    PM_TRY(pm_build_dims(&call->b, rank, dims, &shape));
    PM_TRY(pm_onnx_scalar(call, (*mask)->type->elem, (*mask)->type->elem == PM_BOOL ? 0 : -INFINITY, &value));
    PM_TRY(pm_onnx_build(call, &value, PM_OP_expand, PM_OPERANDS(value, shape), PM_NO_ATTRS));
    return joined(call, *mask, value, rank - 1, mask);
}

/* Only the first lengths[b] keys are there. */
static pm_status limit_keys(attention *a, pm_value *lengths)
{
    pm_onnx_call *call = a->call;
    pm_value *end, *keys, *own;
    PM_TRY(extent_value(call, a->k->type->dims[2], &end));
    PM_TRY(counting(call, end, &keys));
    PM_TRY(along(call, keys, 3, &keys));
    PM_TRY(along(call, lengths, 0, &lengths));
    PM_TRY(compute(call, "less(x, y)", keys, lengths, NULL, &own));
    if (a->allowed)
        PM_TRY(compute(call, "and(x, y)", a->allowed, own, NULL, &own));
    a->allowed = own;
    return PM_OK;
}

/* Where the first query stands: behind the past, or behind what a cache outside holds. */
static pm_status first_position(attention *a, pm_dim past, pm_value *lengths, pm_value **out)
{
    pm_onnx_call *call = a->call;
    pm_value *own;
    if (!lengths)
        return pm_build_dims(&call->b, 1, &past, out);
    PM_TRY(extent_value(call, a->q->type->dims[2], &own));
    return compute(call, "sub(x, y)", lengths, own, NULL, out);
}

pm_status pm_onnx_do_attention(pm_onnx_call *call)
{
    attention a = {.call = call, .softcap = pm_onnx_attr_of(call, "softcap")->f};
    bool flat = call->in[0]->type->rank == 3;
    pm_elem elem = call->in[0]->type->elem;
    for (int i = 0; i < 3; i++)
        PM_TRY(need_rank(call, i, i == 0 ? "Q" : i == 1 ? "K" : "V", flat ? 3 : 4, flat ? 3 : 4));
    a.q = call->in[0];
    a.k = call->in[1];
    a.v = call->in[2];
    if (flat) {
        PM_TRY(by_head(call, a.q, pm_onnx_attr_of(call, "q_num_heads")->i, &a.q));
        PM_TRY(by_head(call, a.k, pm_onnx_attr_of(call, "kv_num_heads")->i, &a.k));
        PM_TRY(by_head(call, a.v, pm_onnx_attr_of(call, "kv_num_heads")->i, &a.v));
    }
    pm_value *past = pm_onnx_input(call, 4), *lengths = pm_onnx_input(call, 6), *mask = pm_onnx_input(call, 3);
    pm_dim before = past && past->type->rank == 4 ? past->type->dims[2] : constant(call, 0);
    pm_value *first, *y;
    PM_TRY(with_past(&a, 4));
    PM_TRY(give(call, 1, a.k, a.k->type->elem));
    PM_TRY(give(call, 2, a.v, a.v->type->elem));
    PM_TRY(in_f32(&a));
    a.scale = scale_or_default(&a);
    if (mask) {
        PM_TRY(pad_mask(&a, &mask));
        PM_TRY(take_mask(&a, mask));
    }
    bool causal = pm_onnx_attr_of(call, "is_causal")->i != 0;
    int64_t left = pm_onnx_attr_of(call, "left_window_size")->i, right = pm_onnx_attr_of(call, "right_window_size")->i;
    if (causal || left >= 0 || right >= 0) {
        PM_TRY(first_position(&a, before, past ? NULL : lengths, &first));
        PM_TRY(allow_positions(&a, first, causal, left, right));
    }
    if (lengths)
        PM_TRY(limit_keys(&a, lengths));
    PM_TRY(attend(&a, &y));
    if (flat)
        PM_TRY(side_by_side(call, y, &y));
    PM_TRY(give(call, 0, y, elem));
    int64_t mode = pm_onnx_attr_of(call, "qk_matmul_output_mode")->i;
    if (mode < 0 || mode > 3)
        return pm_onnx_error(call, PM_ERR_INVALID, "qk_matmul_output_mode is %" PRId64 ", must be 0 to 3", mode);
    return give(call, 3, a.scores[mode], elem);
}

/* ---- com.microsoft.MultiHeadAttention ---- */

/* The part of the bias that belongs to q, k or v, added. */
static pm_status add_part(pm_onnx_call *call, pm_value *x, pm_value *bias, int64_t from, int64_t n, pm_value **out)
{
    pm_value *part;
    *out = x;
    if (!bias)
        return PM_OK;
    PM_TRY(pm_onnx_slice(call, bias, 0, from, from + n, &part));
    return compute(call, "add(x, y)", x, part, NULL, out);
}

/* Keys or values: [B, L, D], or by head already. */
static pm_status keys_by_head(pm_onnx_call *call, int i, const char *what, int64_t heads, pm_value *bias,
                              int64_t from, pm_value **out)
{
    PM_TRY(need_rank(call, i, what, 3, 4));
    if (call->in[i]->type->rank == 4) {
        *out = call->in[i];
        return PM_OK;
    }
    PM_TRY(add_part(call, call->in[i], bias, from, pm_onnx_extent(call, call->in[i], 2), out));
    return by_head(call, *out, heads, out);
}

/* Which keys are padding: lengths [B], or [B, L] with 0 where a key doesn't count. */
static pm_status key_padding(attention *a, pm_value *mask)
{
    pm_onnx_call *call = a->call;
    pm_value *zero, *keep, *lowest, *none, *end, *keys;
    PM_TRY(pm_onnx_cast(call, mask, PM_I64, &mask));
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    if (mask->type->rank == 1) {
        PM_TRY(extent_value(call, a->k->type->dims[2], &end));
        PM_TRY(counting(call, end, &keys));
        PM_TRY(along(call, keys, 3, &keys));
        PM_TRY(along(call, mask, 0, &mask));
        PM_TRY(compute(call, "less(x, y)", keys, mask, NULL, &keep));
    } else if (mask->type->rank == 2 || mask->type->rank == 3) {
        bool of_queries = mask->type->rank == 3;
        const pm_dim dims[] = {mask->type->dims[0], constant(call, 1),
                               of_queries ? mask->type->dims[1] : constant(call, 1), mask->type->dims[of_queries ? 2 : 1]};
        PM_TRY(pm_onnx_reshape(call, mask, dims, 4, &mask));
        PM_TRY(compute(call, "less(y, x)", mask, zero, NULL, &keep));
    } else {
        return pm_onnx_wrong_shape(call, 4, "key_padding_mask", "[B], [B, L] or [B, T, L]");
    }
    PM_TRY(pm_onnx_scalar(call, PM_F32, pm_onnx_attr_of(call, "mask_filter_value")->f, &lowest));
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &none));
    PM_TRY(pm_onnx_build(call, &keep, PM_OP_where, PM_OPERANDS(keep, none, lowest), PM_NO_ATTRS));
    if (a->bias)
        PM_TRY(compute(call, "add(x, y)", a->bias, keep, NULL, &keep));
    a->bias = keep;
    return PM_OK;
}

pm_status pm_onnx_do_multi_head(pm_onnx_call *call)
{
    attention a = {.call = call};
    int64_t heads = pm_onnx_attr_of(call, "num_heads")->i;
    pm_elem elem = call->in[0]->type->elem;
    if (call->in[0]->type->rank == 5 || !pm_onnx_input(call, 1) || !pm_onnx_input(call, 2))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "queries, keys and values packed into one tensor");
    if (pm_onnx_input(call, 8) || pm_onnx_input(call, 9))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "past_sequence_length and cache_indirection");
    PM_TRY(need_rank(call, 0, "query", 3, 3));
    int64_t width = pm_onnx_extent(call, call->in[0], 2);
    pm_value *bias = pm_onnx_input(call, 3), *past = pm_onnx_input(call, 6), *first, *y;
    PM_TRY(add_part(call, call->in[0], bias, 0, width, &a.q));
    PM_TRY(by_head(call, a.q, heads, &a.q));
    PM_TRY(keys_by_head(call, 1, "key", heads, bias, width, &a.k));
    PM_TRY(keys_by_head(call, 2, "value", heads, bias, 2 * width, &a.v));
    pm_dim before = past && past->type->rank == 4 ? past->type->dims[2] : constant(call, 0);
    PM_TRY(with_past(&a, 6));
    PM_TRY(give(call, 1, a.k, a.k->type->elem));
    PM_TRY(give(call, 2, a.v, a.v->type->elem));
    PM_TRY(in_f32(&a));
    a.scale = scale_or_default(&a);
    if (pm_onnx_input(call, 5))
        PM_TRY(take_mask(&a, call->in[5]));
    if (pm_onnx_input(call, 4))
        PM_TRY(key_padding(&a, call->in[4]));
    if (pm_onnx_attr_of(call, "unidirectional")->i) {
        PM_TRY(first_position(&a, before, NULL, &first));
        PM_TRY(allow_positions(&a, first, true, -1, -1));
    }
    PM_TRY(attend(&a, &y));
    PM_TRY(side_by_side(call, y, &y));
    PM_TRY(give(call, 0, y, elem));
    return give(call, 3, a.scores[2], elem);
}

/* ---- com.microsoft.GroupQueryAttention ---- */

enum {
    IN_QUERY, IN_KEY, IN_VALUE, IN_PAST_KEY, IN_PAST_VALUE, IN_SEQLENS, IN_TOTAL, IN_COS, IN_SIN, IN_POSITIONS,
    IN_BIAS, IN_SINK, IN_K_SCALE, IN_V_SCALE, IN_Q_NORM, IN_K_NORM,
};

typedef struct group_query {
    attention a;
    int64_t heads, groups, width;
    pm_value *q, *k, *v; ///< [B, T, heads, width]
    pm_value *before;    ///< i64[B]: how many keys each sequence has already
    pm_value *keys;      ///< i64[N]: 0, 1, …: as many as the present has room for
} group_query;

static pm_status split_heads(group_query *g, pm_value *x, int64_t heads, pm_value **out)
{
    const pm_dim dims[] = {x->type->dims[0], x->type->dims[1], constant(g->a.call, heads), constant(g->a.call, g->width)};
    if (pm_onnx_extent(g->a.call, x, 2) != heads * g->width)
        return pm_onnx_error(g->a.call, PM_ERR_INVALID, "%" PRId64 " heads of %" PRId64 " don't make a width of %" PRId64,
                             heads, g->width, pm_onnx_extent(g->a.call, x, 2));
    return pm_onnx_reshape(g->a.call, x, dims, 4, out);
}

/* Queries, keys and values, which may stand side by side in one tensor. */
static pm_status read_heads(group_query *g)
{
    pm_onnx_call *call = g->a.call;
    g->heads = pm_onnx_attr_of(call, "num_heads")->i;
    g->groups = pm_onnx_attr_of(call, "kv_num_heads")->i;
    PM_TRY(need_rank(call, IN_QUERY, "query", 3, 3));
    if (g->heads < 1 || g->groups < 1 || g->heads % g->groups != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "num_heads is %" PRId64 ", kv_num_heads %" PRId64 ": the first must be a multiple",
                             g->heads, g->groups);
    pm_value *q = call->in[IN_QUERY], *k = pm_onnx_input(call, IN_KEY), *v = pm_onnx_input(call, IN_VALUE);
    int64_t all = g->heads + 2 * g->groups, width = pm_onnx_extent(call, q, 2);
    g->width = width / (k ? g->heads : all);
    if (!k) {
        pm_value *packed = q;
        if (width % all != 0)
            return pm_onnx_error(call, PM_ERR_INVALID, "a packed width of %" PRId64 " isn't one of %" PRId64 " heads", width, all);
        int64_t at = g->heads * g->width, step = g->groups * g->width;
        PM_TRY(pm_onnx_slice(call, packed, 2, 0, at, &q));
        PM_TRY(pm_onnx_slice(call, packed, 2, at, at + step, &k));
        PM_TRY(pm_onnx_slice(call, packed, 2, at + step, at + 2 * step, &v));
    }
    if (!v)
        return pm_onnx_error(call, PM_ERR_INVALID, "value is missing");
    PM_TRY(split_heads(g, q, g->heads, &g->q));
    PM_TRY(split_heads(g, k, g->groups, &g->k));
    return split_heads(g, v, g->groups, &g->v);
}

/* How many keys were there before, by sequence, and how many there is room for. */
static pm_status find_lengths(group_query *g)
{
    pm_onnx_call *call = g->a.call;
    pm_value *seqlens = pm_onnx_input(call, IN_SEQLENS), *total = pm_onnx_input(call, IN_TOTAL), *tokens, *zero, *room;
    pm_value *past = pm_onnx_input(call, IN_PAST_KEY);
    if (!seqlens || !total || seqlens->type->rank < 1 || seqlens->type->rank > 2)
        return pm_onnx_error(call, PM_ERR_INVALID, "seqlens_k must be i32[B], and total_sequence_length a number");
    PM_TRY(pm_onnx_cast(call, seqlens, PM_I64, &seqlens));
    PM_TRY(pm_onnx_reshape(call, seqlens, g->q->type->dims, 1, &seqlens));
    PM_TRY(pm_onnx_cast(call, total, PM_I64, &total));
    PM_TRY(pm_onnx_reshape(call, total, NULL, 0, &total));
    PM_TRY(extent_value(call, g->q->type->dims[1], &tokens));
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    PM_TRY(compute(call, "max(sub(add(x, 1), y), z)", seqlens, tokens, zero, &g->before));
    room = total;
    if (past) {
        PM_TRY(need_rank(call, IN_PAST_KEY, "past_key", 4, 4));
        PM_TRY(need_rank(call, IN_PAST_VALUE, "past_value", 4, 4));
        PM_TRY(extent_value(call, past->type->dims[2], &room));
        PM_TRY(compute(call, "max(x, y)", total, room, NULL, &room));
    }
    return counting(call, room, &g->keys);
}

/* Heads normed, one by one. */
static pm_status norm_heads(group_query *g, int i, pm_value **x)
{
    pm_value *weight = pm_onnx_input(g->a.call, i);
    if (!weight)
        return PM_OK;
    return pm_onnx_build(g->a.call, x, PM_OP_rms_norm, PM_OPERANDS(*x, weight),
                         PM_ATTRS(pm_attr_f64("eps", pm_onnx_attr_of(g->a.call, "qk_norm_epsilon")->f)));
}

/* Rotates by the positions of the new tokens. */
static pm_status rotate_heads(group_query *g)
{
    pm_onnx_call *call = g->a.call;
    pm_value *positions = pm_onnx_input(call, IN_POSITIONS), *tables[2], *end;
    if (!pm_onnx_attr_of(call, "do_rotary")->i)
        return PM_OK;
    const pm_dim *d = g->q->type->dims, rows[] = {d[0], constant(call, 1)}, row[] = {constant(call, 1), d[1]};
    if (positions) {
        PM_TRY(pm_onnx_cast(call, positions, PM_I64, &positions));
        PM_TRY(pm_onnx_reshape(call, positions, d, 2, &positions));
    } else {
        pm_value *first;
        PM_TRY(extent_value(call, d[1], &end));
        PM_TRY(counting(call, end, &positions));
        PM_TRY(pm_onnx_reshape(call, positions, row, 2, &positions));
        PM_TRY(pm_onnx_reshape(call, g->before, rows, 2, &first));
        PM_TRY(compute(call, "add(x, y)", first, positions, NULL, &positions));
    }
    for (int i = 0; i < 2; i++) {
        pm_value *cache = pm_onnx_input(call, IN_COS + i);
        if (!cache || cache->type->rank != 2)
            return pm_onnx_error(call, PM_ERR_INVALID, "do_rotary needs cos_cache and sin_cache [positions, half]");
        PM_TRY(pm_onnx_build(call, &tables[i], PM_OP_gather, PM_OPERANDS(cache, positions), PM_ATTRS(pm_attr_i64("axis", 0))));
        const pm_dim wide[] = {d[0], d[1], constant(call, 1), cache->type->dims[1]};
        PM_TRY(pm_onnx_reshape(call, tables[i], wide, 4, &tables[i]));
    }
    bool interleaved = pm_onnx_attr_of(call, "rotary_interleaved")->i != 0;
    PM_TRY(pm_onnx_rotate(call, g->q, tables[0], tables[1], interleaved, &g->q));
    return pm_onnx_rotate(call, g->k, tables[0], tables[1], interleaved, &g->k);
}

/* The present: the past's first keys, then the new ones, then nothing. `in` is the past, by input. */
static pm_status extend(group_query *g, int in, pm_value *fresh, pm_value **out)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    pm_onnx_call *call = g->a.call;
    pm_module *m = call->onnx->module;
    pm_value *past = pm_onnx_input(call, in), *all, *index, *first, *room, *tokens, *none, *at;
    PM_TRY(pm_onnx_transpose(call, fresh, perm, &fresh));
    const pm_dim *d = fresh->type->dims, lacking[] = {d[0], d[1], constant(call, 1), d[3]};
    pm_dim before = past ? past->type->dims[2] : constant(call, 0);
    all = fresh;
    if (past)
        PM_TRY(joined(call, past, fresh, 2, &all));
    PM_TRY(pm_build_dims(&call->b, 4, lacking, &none));
    PM_TRY(pm_onnx_scalar(call, fresh->type->elem, 0, &at));
    PM_TRY(pm_onnx_build(call, &none, PM_OP_expand, PM_OPERANDS(at, none), PM_NO_ATTRS));
    PM_TRY(joined(call, all, none, 2, &all));
    PM_TRY(along(call, g->keys, 2, &index));
    PM_TRY(along(call, g->before, 0, &first));
    PM_TRY(extent_value(call, before, &room));
    PM_TRY(extent_value(call, pm_dim_add(m, before, d[2]), &tokens));
    // key j is j of the past, or j - first of the new ones, which stand behind the room of the past
    PM_TRY(compute(call, "add(sub(x, y), z)", index, first, room, &at));
    PM_TRY(compute(call, "min(x, y)", at, tokens, NULL, &at));
    PM_TRY(compute(call, "less(x, y)", index, first, NULL, &none));
    PM_TRY(pm_onnx_build(call, &index, PM_OP_where, PM_OPERANDS(none, index, at), PM_NO_ATTRS));
    const pm_dim wide[] = {d[0], d[1], g->keys->type->dims[0], d[3]};
    PM_TRY(pm_build_dims(&call->b, 4, wide, &none));
    PM_TRY(pm_onnx_build(call, &index, PM_OP_expand, PM_OPERANDS(index, none), PM_NO_ATTRS));
    return pm_onnx_build(call, out, PM_OP_gather_elements, PM_OPERANDS(all, index), PM_ATTRS(pm_attr_i64("axis", 2)));
}

/* Scores that aren't of keys: one of each head, or 0 for all. */
static pm_status take_sink(group_query *g)
{
    pm_onnx_call *call = g->a.call;
    const pm_dim heads = constant(call, g->heads);
    pm_value *shape, *zero;
    if (pm_onnx_input(call, IN_SINK)) {
        PM_TRY(pm_onnx_cast(call, call->in[IN_SINK], PM_F32, &g->a.sink));
        return pm_onnx_reshape(call, g->a.sink, &heads, 1, &g->a.sink);
    }
    if (!pm_onnx_attr_of(call, "smooth_softmax")->i)
        return PM_OK;
    PM_TRY(pm_build_dims(&call->b, 1, &heads, &shape));
    PM_TRY(pm_onnx_scalar(call, PM_F32, 0, &zero));
    return pm_onnx_build(call, &g->a.sink, PM_OP_expand, PM_OPERANDS(zero, shape), PM_NO_ATTRS);
}

pm_status pm_onnx_do_group_query(pm_onnx_call *call)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    group_query g = {.a = {.call = call, .softcap = pm_onnx_attr_of(call, "softcap")->f}};
    pm_elem elem = call->in[0]->type->elem;
    pm_value *y;
    if (pm_onnx_input(call, IN_K_SCALE) || pm_onnx_input(call, IN_V_SCALE))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "a quantised key-value cache");
    PM_TRY(read_heads(&g));
    PM_TRY(find_lengths(&g));
    PM_TRY(norm_heads(&g, IN_Q_NORM, &g.q));
    PM_TRY(norm_heads(&g, IN_K_NORM, &g.k));
    PM_TRY(rotate_heads(&g));
    PM_TRY(pm_onnx_transpose(call, g.q, perm, &g.a.q));
    PM_TRY(extend(&g, IN_PAST_KEY, g.k, &g.a.k));
    PM_TRY(extend(&g, IN_PAST_VALUE, g.v, &g.a.v));
    PM_TRY(give(call, 1, g.a.k, elem));
    PM_TRY(give(call, 2, g.a.v, elem));
    PM_TRY(in_f32(&g.a));
    g.a.scale = scale_or_default(&g.a);
    PM_TRY(take_sink(&g));
    if (pm_onnx_input(call, IN_BIAS))
        PM_TRY(take_mask(&g.a, call->in[IN_BIAS]));
    int64_t window = pm_onnx_attr_of(call, "local_window_size")->i;
    PM_TRY(allow_positions(&g.a, g.before, true, window > 0 ? window - 1 : -1, -1));
    PM_TRY(attend(&g.a, &y));
    PM_TRY(side_by_side(call, y, &y));
    PM_TRY(give(call, 0, y, elem));
    if (call->n_out > 3)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the scores as an output");
    return PM_OK;
}
