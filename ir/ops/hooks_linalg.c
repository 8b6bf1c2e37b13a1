/// Products and the ops of language models: verify, infer.
#include "ir/ops/hooks.h"

/* ---- matmul, linear, conv -------------------------------------------------------------------- */

pm_status pm_infer_matmul(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *a = pm_hook_type(op, 0), *b = pm_hook_type(op, 1);
    if (a->rank == 0 || b->rank == 0)
        return pm_infer_error(inf, "operands need an axis, found %s and %s",
                              pm_hook_type_text(op, 0), pm_hook_type_text(op, 1));
    bool trans_a = pm_op_i64(op, "trans_a") && a->rank > 1;
    bool trans_b = pm_op_i64(op, "trans_b") && b->rank > 1;
    // rows and columns; a vector has none
    pm_dim k_a = a->dims[a->rank - 1 - trans_a];
    pm_dim k_b = b->rank == 1 ? b->dims[0] : b->dims[b->rank - 2 + trans_b];
    if (pm_dim_differs(inf->module, k_a, k_b))
        return pm_infer_error(inf,
                              "%s and %s disagree on the extent that is summed over: %s and %s",
                              pm_hook_type_text(op, 0), pm_hook_type_text(op, 1),
                              pm_dim_text(inf->module, k_a), pm_dim_text(inf->module, k_b));
    pm_dim dims[PM_MAX_RANK + 2];
    int32_t rank = a->rank > 2 ? a->rank - 2 : 0;
    if (rank)
        memcpy(dims, a->dims, (size_t)rank * sizeof *dims);
    PM_TRY(pm_hook_broadcast_dims(inf, dims, &rank, b->dims, b->rank > 2 ? b->rank - 2 : 0));
    if (a->rank > 1)
        dims[rank++] = a->dims[a->rank - 2 + trans_a];
    if (b->rank > 1)
        dims[rank++] = b->dims[b->rank - 1 - trans_b];
    return pm_hook_result(inf, 0, a->elem, rank, dims);
}

static pm_status check_compute(const pm_op *op, pm_diag *diag)
{
    int64_t compute = pm_op_i64(op, "compute");
    if (compute == PM_F32 || compute == PM_BF16)
        return PM_OK;
    if (compute == PM_F16 && pm_hook_type(op, 0)->elem == PM_F16 && pm_hook_type(op, 1)->elem == PM_F16)
        return PM_OK;
    return pm_hook_error(op, diag, "compute is %s, must be f32, bf16, or f16 of factors in f16",
                         pm_elem_name((pm_elem)compute));
}

/// N of the product: rows of the weights, or of one source of a pack of two.
static pm_dim linear_columns(pm_module *m, const pm_type *w)
{
    pm_dim n = w->dims[w->rank - 2];
    return w->layout == NULL || w->layout->ways == 1
               ? n
               : pm_dim_floordiv(m, n, pm_dim_const(m, w->layout->ways));
}

static pm_status check_source(const pm_op *op, pm_diag *diag)
{
    const pm_type *w = pm_hook_type(op, 1);
    int64_t source = pm_op_i64(op, "source"), ways = w->layout == NULL ? 1 : w->layout->ways;
    if (source >= 0 && source < ways)
        return PM_OK;
    return pm_hook_error(op, diag, "source is %" PRId64 ", the weights have %" PRId64, source, ways);
}

/// linear and grouped_linear.
pm_status pm_verify_linear(const pm_op *op, pm_diag *diag)
{
    const pm_type *x = pm_hook_type(op, 0), *w = pm_hook_type(op, 1);
    bool grouped = op->code == PM_OP_grouped_linear;
    uint32_t bias = grouped ? 3 : 2;
    PM_TRY(check_compute(op, diag));
    PM_TRY(pm_hook_float(op, diag, 0));
    PM_TRY(pm_hook_float(op, diag, 1));
    PM_TRY(pm_hook_rank(op, diag, 1, grouped ? 3 : 2));
    if (grouped)
        PM_TRY(pm_hook_rank(op, diag, 0, 2));
    else if (x->rank == 0)
        return pm_hook_error(op, diag, "operand 0 needs an axis, found %s",
                             pm_hook_type_text(op, 0));
    PM_TRY(pm_hook_extent(op, diag, "the last extent of x (K of the weights)", x->dims[x->rank - 1],
                          w->dims[w->rank - 1]));
    if (grouped) {
        pm_module *m = pm_hook_module(op);
        PM_TRY(pm_hook_elem(op, diag, 2, PM_I32));
        PM_TRY(pm_hook_rank(op, diag, 2, 1));
        PM_TRY(pm_hook_extent(op, diag, "the length of offsets", pm_hook_type(op, 2)->dims[0],
                              pm_dim_add(m, w->dims[0], pm_dim_const(m, 1))));
    }
    PM_TRY(check_source(op, diag));
    if (!pm_hook_has(op, bias))
        return PM_OK;
    PM_TRY(pm_hook_float(op, diag, bias));
    PM_TRY(pm_hook_rank(op, diag, bias, grouped ? 2 : 1));
    const pm_type *b = pm_hook_type(op, bias);
    if (grouped)
        PM_TRY(pm_hook_extent(op, diag, "an extent of bias", b->dims[0], w->dims[0]));
    return pm_hook_extent(op, diag, "an extent of bias", b->dims[b->rank - 1],
                          linear_columns(pm_hook_module(op), w));
}

/// Products of 16 bits are summed up, and left, in f32: a rounded x is not what the model computes with.
static pm_elem linear_elem(const pm_op *op)
{
    return pm_op_i64(op, "compute") != PM_F32 ? PM_F32 : pm_hook_type(op, 0)->elem;
}

pm_status pm_infer_linear(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0), *w = pm_hook_type(inf->op, 1);
    pm_dim dims[PM_MAX_RANK];
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[x->rank - 1] = linear_columns(inf->module, w);
    return pm_hook_result(inf, 0, linear_elem(inf->op), x->rank, dims);
}

pm_status pm_infer_grouped_linear(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0), *w = pm_hook_type(inf->op, 1);
    pm_dim dims[2] = {x->dims[0], linear_columns(inf->module, w)};
    return pm_hook_result(inf, 0, linear_elem(inf->op), 2, dims);
}

/// An attribute of conv that lists n numbers, each at least `min`; absent: all are `absent`.
static pm_status conv_list(pm_infer *inf, const char *key, size_t n, int64_t min, int64_t absent,
                           int64_t *out)
{
    const pm_attr *attr = pm_op_attr(inf->op, key);
    if (attr->present && attr->n != n)
        return pm_infer_error(inf, "%s has %zu elements, must have %zu", key, attr->n, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = attr->present ? attr->ints[i] : absent;
        if (out[i] < min || out[i] > INT32_MAX)
            return pm_infer_error(inf,
                                  "%s has the element %" PRId64 ", must be %" PRId64 " or more",
                                  key, out[i], min);
    }
    return PM_OK;
}

pm_status pm_infer_conv(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0), *w = pm_hook_type(op, 1);
    int64_t group = pm_op_i64(op, "group");
    if (x->rank < 3 || w->rank != x->rank || !pm_elem_is_float(x->elem) || w->elem != x->elem)
        return pm_infer_error(inf,
                              "x [B, C, ...] and w [O, C/group, ...] must be floats of the same "
                              "type and rank, found %s and %s",
                              pm_hook_type_text(op, 0), pm_hook_type_text(op, 1));
    if (group < 1)
        return pm_infer_error(inf, "group is %" PRId64 ", must be 1 or more", group);
    size_t n = (size_t)x->rank - 2;
    int64_t strides[PM_MAX_RANK], dilations[PM_MAX_RANK], pads[2 * PM_MAX_RANK];
    PM_TRY(conv_list(inf, "strides", n, 1, 1, strides));
    PM_TRY(conv_list(inf, "dilations", n, 1, 1, dilations));
    PM_TRY(conv_list(inf, "pads", 2 * n, 0, 0, pads));
    pm_dim channels = pm_dim_mul(m, w->dims[1], pm_dim_const(m, group));
    PM_TRY(pm_hook_extent(op, inf->diag, "the channels of x (those of w times group)", x->dims[1],
                          channels));
    if (pm_hook_has(op, 2)) {
        PM_TRY(pm_hook_elem(op, inf->diag, 2, x->elem));
        PM_TRY(pm_hook_rank(op, inf->diag, 2, 1));
        PM_TRY(pm_hook_extent(op, inf->diag, "the length of bias", pm_hook_type(op, 2)->dims[0],
                              w->dims[0]));
    }
    pm_dim dims[PM_MAX_RANK] = {x->dims[0], w->dims[0]}, one = pm_dim_const(m, 1);
    for (size_t i = 0; i < n; i++) {
        // the window spans dilation * (k - 1) + 1
        pm_dim span =
            pm_dim_mul(m, pm_dim_sub(m, w->dims[2 + i], one), pm_dim_const(m, dilations[i]));
        pm_dim room = pm_dim_add(m, x->dims[2 + i], pm_dim_const(m, pads[i] + pads[n + i]));
        room = pm_dim_sub(m, pm_dim_sub(m, room, span), one);
        dims[2 + i] = pm_dim_add(m, pm_dim_floordiv(m, room, pm_dim_const(m, strides[i])), one);
    }
    return pm_hook_result(inf, 0, x->elem, x->rank, dims);
}

/* ---- rotary positions, caches, attention ----------------------------------------------------- */

/// past i64[B], with B that of operand `like`.
static pm_status check_past(const pm_op *op, pm_diag *diag, uint32_t past, pm_dim batch)
{
    PM_TRY(pm_hook_elem(op, diag, past, PM_I64));
    PM_TRY(pm_hook_rank(op, diag, past, 1));
    return pm_hook_extent(op, diag, "the length of past", pm_hook_type(op, past)->dims[0], batch);
}

pm_status pm_infer_rope_table(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    PM_TRY(pm_hook_elem(op, inf->diag, 0, PM_I64));
    PM_TRY(pm_hook_rank(op, inf->diag, 0, 1));
    PM_TRY(pm_hook_elem(op, inf->diag, 1, PM_F32));
    PM_TRY(pm_hook_rank(op, inf->diag, 1, 1));
    pm_dim tokens = pm_dim_const(m, 1);
    if (pm_hook_has(op, 2)) {
        const pm_type *like = pm_hook_type(op, 2);
        if (like->rank < 2)
            return pm_infer_error(inf, "operand 2 must be [B, T, ...], found %s",
                                  pm_hook_type_text(op, 2));
        PM_TRY(check_past(op, inf->diag, 0, like->dims[0]));
        tokens = like->dims[1];
    }
    pm_dim dims[3] = {pm_hook_type(op, 0)->dims[0], tokens,
                      pm_dim_mul(m, pm_dim_const(m, 2), pm_hook_type(op, 1)->dims[0])};
    return pm_hook_result(inf, 0, PM_F32, 3, dims);
}

pm_status pm_verify_rope(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    int64_t head_dim = pm_op_i64(op, "head_dim"), width, rotated;
    PM_TRY(pm_hook_float(op, diag, 0));
    PM_TRY(pm_hook_rank(op, diag, 0, 3));
    PM_TRY(pm_hook_elem(op, diag, 1, PM_F32));
    PM_TRY(pm_hook_rank(op, diag, 1, 3));
    const pm_type *x = pm_hook_type(op, 0), *table = pm_hook_type(op, 1);
    PM_TRY(pm_hook_extent(op, diag, "the batch of the table", table->dims[0], x->dims[0]));
    PM_TRY(pm_hook_extent(op, diag, "the tokens of the table", table->dims[1], x->dims[1]));
    if (head_dim < 2)
        return pm_hook_error(op, diag, "head_dim is %" PRId64 ", must be 2 or more", head_dim);
    if (pm_dim_is_const(m, x->dims[2], &width) && width % head_dim != 0)
        return pm_hook_error(op, diag,
                             "x has %" PRId64 " columns, not a multiple of head_dim %" PRId64,
                             width, head_dim);
    int64_t offset = pm_op_i64(op, "offset");
    if (offset < 0 || offset > head_dim)
        return pm_hook_error(op, diag, "offset is %" PRId64 ", must be in [0, head_dim]", offset);
    if (pm_dim_is_const(m, table->dims[2], &rotated) &&
        (rotated > head_dim - offset || rotated % 2 != 0))
        return pm_hook_error(op, diag,
                             "the table has %" PRId64
                             " columns, must be even and at most head_dim %" PRId64 "%s",
                             rotated, head_dim, offset > 0 ? " less offset" : "");
    return PM_OK;
}

/// A key cache [B, KV, C/16, hd, 16] or value cache [B, KV, C, hd], f32: its kv * hd.
static pm_status check_cache(const pm_op *op, pm_diag *diag, uint32_t operand, bool key,
                             pm_dim *out_width)
{
    pm_module *m = pm_hook_module(op);
    PM_TRY(pm_hook_elem(op, diag, operand, PM_F32));
    PM_TRY(pm_hook_rank(op, diag, operand, key ? 5 : 4));
    const pm_dim *dims = pm_hook_type(op, operand)->dims;
    if (key)
        PM_TRY(pm_hook_extent(op, diag, "the last extent of a key cache", dims[4],
                              pm_dim_const(m, 16)));
    *out_width = pm_dim_mul(m, dims[1], dims[3]);
    return PM_OK;
}

/// cache_key and cache_value.
pm_status pm_verify_cache(const pm_op *op, pm_diag *diag)
{
    pm_dim width;
    PM_TRY(check_cache(op, diag, 0, op->code == PM_OP_cache_key, &width));
    PM_TRY(pm_hook_elem(op, diag, 1, PM_F32));
    PM_TRY(pm_hook_rank(op, diag, 1, 3));
    const pm_type *cache = pm_hook_type(op, 0), *rows = pm_hook_type(op, 1);
    PM_TRY(pm_hook_extent(op, diag, "the batch of the new rows", rows->dims[0], cache->dims[0]));
    PM_TRY(pm_hook_extent(op, diag, "the columns of the new rows (kv heads times head size)",
                          rows->dims[2], width));
    return check_past(op, diag, 2, cache->dims[0]);
}

pm_status pm_verify_attention(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    int64_t heads = pm_op_i64(op, "heads"), kv_heads = pm_op_i64(op, "kv_heads");
    pm_dim key_width, value_width;
    PM_TRY(pm_hook_elem(op, diag, 0, PM_F32));
    PM_TRY(pm_hook_rank(op, diag, 0, 3));
    PM_TRY(check_cache(op, diag, 1, true, &key_width));
    PM_TRY(check_cache(op, diag, 2, false, &value_width));
    const pm_type *q = pm_hook_type(op, 0), *key = pm_hook_type(op, 1),
                  *value = pm_hook_type(op, 2);
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0)
        return pm_hook_error(op, diag, "%" PRId64 " heads can't share %" PRId64 " kv_heads evenly",
                             heads, kv_heads);
    if (pm_op_i64(op, "window") < 0)
        return pm_hook_error(op, diag, "window is %" PRId64 ", must be 0 (none) or more",
                             pm_op_i64(op, "window"));
    if (pm_op_i64(op, "chunk") < 0)
        return pm_hook_error(op, diag, "chunk is %" PRId64 ", must be 0 (none) or more",
                             pm_op_i64(op, "chunk"));
    if (pm_hook_has(op, 4)) {
        PM_TRY(pm_hook_elem(op, diag, 4, PM_F32));
        PM_TRY(pm_hook_rank(op, diag, 4, 1));
        PM_TRY(pm_hook_extent(op, diag, "the number of sinks", pm_hook_type(op, 4)->dims[0],
                              pm_dim_const(m, heads)));
    }
    if (pm_hook_has(op, 5)) {
        int64_t reach;
        PM_TRY(pm_hook_elem(op, diag, 5, PM_F32));
        PM_TRY(pm_hook_rank(op, diag, 5, 2));
        PM_TRY(pm_hook_extent(op, diag, "the heads of bias", pm_hook_type(op, 5)->dims[0],
                              pm_dim_const(m, heads)));
        if (!pm_dim_is_const(m, pm_hook_type(op, 5)->dims[1], &reach) || reach % 2 != 1)
            return pm_hook_error(op, diag, "bias must have an odd number of columns, found %s",
                                 pm_hook_type_text(op, 5));
    }
    if (!pm_op_i64(op, "causal") && (pm_op_i64(op, "window") || pm_op_i64(op, "chunk")))
        return pm_hook_error(op, diag, "windows and chunks are for causal attention");
    pm_dim kv = pm_dim_const(m, kv_heads);
    PM_TRY(pm_hook_extent(op, diag, "the heads of the key cache", key->dims[1], kv));
    PM_TRY(pm_hook_extent(op, diag, "the heads of the value cache", value->dims[1], kv));
    PM_TRY(pm_hook_extent(op, diag, "the capacity of the value cache", value->dims[2],
                          pm_dim_mul(m, key->dims[2], pm_dim_const(m, 16))));
    PM_TRY(pm_hook_extent(op, diag, "the columns of q (heads times head size)", q->dims[2],
                          pm_dim_mul(m, pm_dim_const(m, heads), key->dims[3])));
    for (uint32_t i = 1; i < 3; i++)
        PM_TRY(pm_hook_extent(op, diag, "the batch of a cache", pm_hook_type(op, i)->dims[0],
                              q->dims[0]));
    return check_past(op, diag, 3, q->dims[0]);
}

pm_status pm_infer_attention(pm_infer *inf)
{
    const pm_op *op = inf->op;
    PM_TRY(pm_hook_rank(op, inf->diag, 0, 3));
    PM_TRY(pm_hook_rank(op, inf->diag, 2, 4));
    const pm_type *q = pm_hook_type(op, 0);
    pm_dim heads = pm_dim_const(inf->module, pm_op_i64(op, "heads"));
    pm_dim dims[3] = {q->dims[0], q->dims[1],
                      pm_dim_mul(inf->module, heads, pm_hook_type(op, 2)->dims[3])};
    return pm_hook_result(inf, 0, q->elem, 3, dims);
}

pm_status pm_infer_last_rows(pm_infer *inf)
{
    PM_TRY(pm_hook_rank(inf->op, inf->diag, 0, 3));
    const pm_type *x = pm_hook_type(inf->op, 0);
    pm_dim dims[3] = {x->dims[0], pm_dim_const(inf->module, 1), x->dims[2]};
    return pm_hook_result(inf, 0, x->elem, 3, dims);
}
