/// Attention over whole tensors of keys and values, and their growth: verify, infer.
#include "ir/ops/hooks.h"

/// Extents of queries, keys or values: [B, heads, rows, size], or [B, rows, heads * size].
typedef struct rows {
    pm_dim batch, rows, size;
} rows;

static pm_status rows_of(const pm_op *op, pm_diag *diag, uint32_t operand, pm_dim heads, rows *out)
{
    pm_module *m = pm_hook_module(op);
    const pm_type *type = pm_hook_type(op, operand);
    PM_TRY(pm_hook_float(op, diag, operand));
    if (type->rank != 3 && type->rank != 4)
        return pm_hook_error(op, diag, "operand %" PRIu32 " must have rank 3 or 4, found %s",
                             operand, pm_hook_type_text(op, operand));
    const pm_dim *dims = type->dims;
    if (type->rank == 4) {
        PM_TRY(pm_hook_extent(op, diag, "the heads of an operand", dims[1], heads));
        *out = (rows){dims[0], dims[2], dims[3]};
        return PM_OK;
    }
    pm_dim rest = pm_dim_mod(m, dims[2], heads);
    if (pm_dim_differs(m, rest, pm_dim_const(m, 0)))
        return pm_hook_error(op, diag, "operand %" PRIu32 " has %s columns, not a multiple of %s heads",
                             operand, pm_dim_text(m, dims[2]), pm_dim_text(m, heads));
    *out = (rows){dims[0], dims[1], pm_dim_floordiv(m, dims[2], heads)};
    return PM_OK;
}

/// i64, one element or one per sequence.
static pm_status check_positions(const pm_op *op, pm_diag *diag, uint32_t operand, pm_dim batch)
{
    pm_module *m = pm_hook_module(op);
    if (!pm_hook_has(op, operand))
        return PM_OK;
    PM_TRY(pm_hook_elem(op, diag, operand, PM_I64));
    PM_TRY(pm_hook_rank(op, diag, operand, 1));
    pm_dim n = pm_hook_type(op, operand)->dims[0];
    if (pm_dim_same(n, pm_dim_const(m, 1)))
        return PM_OK;
    return pm_hook_extent(op, diag, "the number of positions", n, batch);
}

static pm_status same_elem(const pm_op *op, pm_diag *diag, uint32_t a, uint32_t b)
{
    return pm_hook_elem(op, diag, b, pm_hook_type(op, a)->elem);
}

/* ---- kv_append ------------------------------------------------------------------------------- */

enum { NEW, AT, TOTAL, PAST };

/// Heads and head size of the new rows: told by a cache, or by rank 4.
static pm_status new_rows(const pm_op *op, pm_diag *diag, pm_dim *out_heads, rows *out)
{
    const pm_type *type = pm_hook_type(op, NEW);
    if (type->rank == 4)
        *out_heads = type->dims[1];
    else if (pm_hook_has(op, PAST))
        *out_heads = pm_hook_type(op, PAST)->dims[1];
    else
        return pm_hook_error(op, diag, "new rows of rank 3 need a past that tells their heads");
    return rows_of(op, diag, NEW, *out_heads, out);
}

pm_status pm_verify_kv_append(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    pm_dim heads, count;
    rows new;
    if (pm_hook_has(op, PAST)) {
        PM_TRY(pm_hook_rank(op, diag, PAST, 4));
        PM_TRY(same_elem(op, diag, NEW, PAST));
    }
    PM_TRY(new_rows(op, diag, &heads, &new));
    if (pm_hook_has(op, PAST)) {
        const pm_dim *past = pm_hook_type(op, PAST)->dims;
        PM_TRY(pm_hook_extent(op, diag, "the batch of the new rows", new.batch, past[0]));
        PM_TRY(pm_hook_extent(op, diag, "the heads of the new rows", heads, past[1]));
        PM_TRY(pm_hook_extent(op, diag, "the size of the new rows", new.size, past[3]));
    }
    PM_TRY(check_positions(op, diag, AT, new.batch));
    PM_TRY(pm_hook_elem(op, diag, TOTAL, PM_I64));
    count = pm_type_count(m, pm_hook_type(op, TOTAL));
    return pm_hook_extent(op, diag, "the number of elements of total", count, pm_dim_const(m, 1));
}

pm_status pm_infer_kv_append(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    pm_dim heads, total = pm_hook_scalar(op->operands[TOTAL]);
    rows new;
    PM_TRY(new_rows(op, inf->diag, &heads, &new));
    pm_dim past = pm_hook_has(op, PAST) ? pm_hook_type(op, PAST)->dims[2] : pm_dim_const(m, 0);
    int64_t lo, hi;
    if (total != PM_DIM_NONE) {
        pm_dim_range(m, total, &lo, &hi);
        if (hi < 0)
            return pm_infer_error(inf, "total is %s", pm_dim_text(m, total));
        total = pm_dim_max(m, past, total);
    } else {
        total = pm_infer_fresh(inf, 0, 2, PM_DIM_NONE);
    }
    const pm_dim dims[] = {new.batch, heads, total, new.size};
    return pm_hook_result(inf, 0, pm_hook_type(op, NEW)->elem, 4, dims);
}

/* ---- sdpa ------------------------------------------------------------------------------------ */

static pm_status check_mask(const pm_op *op, pm_diag *diag, const rows *q)
{
    pm_module *m = pm_hook_module(op);
    const pm_type *mask = pm_hook_type(op, 3);
    const pm_dim dims[] = {q->batch, pm_dim_const(m, pm_op_i64(op, "heads")), q->rows};
    if (mask->elem != PM_BOOL)
        PM_TRY(pm_hook_float(op, diag, 3));
    if (mask->rank < 1 || mask->rank > 4)
        return pm_hook_error(op, diag, "the mask must have rank 1 to 4, found %s",
                             pm_hook_type_text(op, 3));
    for (int32_t i = 2; i <= mask->rank; i++) {
        pm_dim found = mask->dims[mask->rank - i];
        if (!pm_dim_same(found, pm_dim_const(m, 1)))
            PM_TRY(pm_hook_extent(op, diag, "an extent of the mask", found, dims[4 - i]));
    }
    return PM_OK;
}

pm_status pm_verify_sdpa(const pm_op *op, pm_diag *diag)
{
    static const char *const unseen[] = {"zero", "nan"};
    pm_module *m = pm_hook_module(op);
    int64_t heads = pm_op_i64(op, "heads"), kv_heads = pm_op_i64(op, "kv_heads");
    int64_t left = pm_op_i64(op, "left"), right = pm_op_i64(op, "right");
    rows q, k, v;
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0)
        return pm_hook_error(op, diag, "%" PRId64 " heads can't share %" PRId64 " kv_heads evenly",
                             heads, kv_heads);
    if (left < -1 || right < -1)
        return pm_hook_error(op, diag, "left and right are %" PRId64 " and %" PRId64
                             ", must be -1 (no bound) or more", left, right);
    PM_TRY(pm_hook_one_of(op, diag, "unseen", unseen, PM_COUNT(unseen)));
    pm_dim kv = pm_dim_const(m, kv_heads);
    PM_TRY(rows_of(op, diag, 0, pm_dim_const(m, heads), &q));
    PM_TRY(rows_of(op, diag, 1, kv, &k));
    PM_TRY(rows_of(op, diag, 2, kv, &v));
    PM_TRY(same_elem(op, diag, 0, 1));
    PM_TRY(same_elem(op, diag, 0, 2));
    PM_TRY(pm_hook_extent(op, diag, "the batch of keys", k.batch, q.batch));
    PM_TRY(pm_hook_extent(op, diag, "the batch of values", v.batch, q.batch));
    PM_TRY(pm_hook_extent(op, diag, "the head size of keys", k.size, q.size));
    PM_TRY(pm_hook_extent(op, diag, "the number of values", v.rows, k.rows));
    if (pm_hook_has(op, 3))
        PM_TRY(check_mask(op, diag, &q));
    PM_TRY(check_positions(op, diag, 4, q.batch));
    PM_TRY(check_positions(op, diag, 5, q.batch));
    if (!pm_hook_has(op, 6))
        return PM_OK;
    PM_TRY(pm_hook_float(op, diag, 6));
    PM_TRY(pm_hook_rank(op, diag, 6, 1));
    return pm_hook_extent(op, diag, "the number of sinks", pm_hook_type(op, 6)->dims[0],
                          pm_dim_const(m, heads));
}

pm_status pm_infer_sdpa(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    pm_dim heads = pm_dim_const(m, pm_op_i64(op, "heads"));
    rows q, v;
    PM_TRY(rows_of(op, inf->diag, 0, heads, &q));
    PM_TRY(rows_of(op, inf->diag, 2, pm_dim_const(m, pm_op_i64(op, "kv_heads")), &v));
    const pm_dim separate[] = {q.batch, heads, q.rows, v.size};
    const pm_dim joined[] = {q.batch, q.rows, pm_dim_mul(m, heads, v.size)};
    const pm_type *type = pm_hook_type(op, 0);
    return pm_hook_result(inf, 0, type->elem, type->rank, type->rank == 4 ? separate : joined);
}
