/// Recurrences over the tokens of a sequence: verify, infer. Result 0 is operand 0, the state, in place.
#include "ir/ops/hooks.h"

/// The optional i64[B]: tokens that each sequence has seen before.
static pm_status check_seen(const pm_op *op, pm_diag *diag, uint32_t operand)
{
    if (!pm_hook_has(op, operand))
        return PM_OK;
    PM_TRY(pm_hook_elem(op, diag, operand, PM_I64));
    PM_TRY(pm_hook_rank(op, diag, operand, 1));
    return pm_hook_extent(op, diag, "the length of past", pm_hook_type(op, operand)->dims[0],
                          pm_hook_type(op, 0)->dims[0]);
}

/// [B, T, width], of the batch of operand 0 and the tokens of operand 1. PM_DIM_NONE: any width.
static pm_status check_rows(const pm_op *op, pm_diag *diag, uint32_t operand, const char *what,
                            pm_dim width)
{
    PM_TRY(pm_hook_float(op, diag, operand));
    PM_TRY(pm_hook_rank(op, diag, operand, 3));
    const pm_dim *dims = pm_hook_type(op, operand)->dims;
    char text[64];
    snprintf(text, sizeof text, "the batch of %s", what);
    PM_TRY(pm_hook_extent(op, diag, text, dims[0], pm_hook_type(op, 0)->dims[0]));
    snprintf(text, sizeof text, "the tokens of %s", what);
    PM_TRY(pm_hook_extent(op, diag, text, dims[1], pm_hook_type(op, 1)->dims[1]));
    snprintf(text, sizeof text, "the columns of %s", what);
    return width == PM_DIM_NONE ? PM_OK : pm_hook_extent(op, diag, text, dims[2], width);
}

static pm_status check_state(const pm_op *op, pm_diag *diag, int32_t rank)
{
    PM_TRY(pm_hook_float(op, diag, 0));
    return pm_hook_rank(op, diag, 0, rank);
}

pm_status pm_verify_causal_conv(const pm_op *op, pm_diag *diag)
{
    PM_TRY(check_state(op, diag, 3));
    pm_module *m = pm_hook_module(op);
    pm_dim channels = pm_hook_type(op, 0)->dims[1], one = pm_dim_const(m, 1);
    PM_TRY(check_rows(op, diag, 1, "x", channels));
    PM_TRY(pm_hook_float(op, diag, 2));
    PM_TRY(pm_hook_rank(op, diag, 2, 3));
    const pm_dim *w = pm_hook_type(op, 2)->dims;
    PM_TRY(pm_hook_extent(op, diag, "the first extent of w", w[0], channels));
    PM_TRY(pm_hook_extent(op, diag, "the second extent of w", w[1], one));
    PM_TRY(pm_hook_extent(op, diag, "the kernel (one more than the state holds)", w[2],
                          pm_dim_add(m, pm_hook_type(op, 0)->dims[2], one)));
    if (pm_hook_has(op, 3)) {
        PM_TRY(pm_hook_float(op, diag, 3));
        PM_TRY(pm_hook_rank(op, diag, 3, 1));
        PM_TRY(pm_hook_extent(op, diag, "the length of bias", pm_hook_type(op, 3)->dims[0],
                              channels));
    }
    return check_seen(op, diag, 4);
}

/// The heads that `width` columns hold, which must be known.
static pm_status count_heads(const pm_op *op, pm_diag *diag, const char *what, pm_dim width,
                             int64_t size, int64_t *out_heads)
{
    int64_t columns;
    if (!pm_dim_is_const(pm_hook_module(op), width, &columns))
        return pm_hook_error(op, diag, "the columns of %s must be known", what);
    if (size < 1 || columns < size || columns % size != 0)
        return pm_hook_error(op, diag,
                             "%s has %" PRId64 " columns, must be a multiple of %" PRId64, what,
                             columns, size);
    *out_heads = columns / size;
    return PM_OK;
}

static pm_status check_decay(const pm_op *op, pm_diag *diag, int64_t heads, int64_t key_size)
{
    pm_module *m = pm_hook_module(op);
    if (!pm_hook_has(op, 4))
        return PM_OK;
    PM_TRY(pm_hook_float(op, diag, 4));
    const pm_type *decay = pm_hook_type(op, 4);
    if (decay->rank == 1)
        return pm_hook_extent(op, diag, "the length of decay", decay->dims[0],
                              pm_dim_const(m, heads));
    PM_TRY(check_rows(op, diag, 4, "decay", PM_DIM_NONE));
    int64_t width;
    if (pm_dim_is_const(m, decay->dims[2], &width) &&
        (width == heads || width == heads * key_size))
        return PM_OK;
    return pm_hook_error(op, diag,
                         "decay must have %" PRId64 " columns, one for each head, or %" PRId64
                         ", found %s",
                         heads, heads * key_size, pm_hook_type_text(op, 4));
}

pm_status pm_verify_linear_attention(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    int64_t heads, key_size, value_size, q_heads, k_heads, width;
    PM_TRY(check_state(op, diag, 4));
    const pm_type *state = pm_hook_type(op, 0);
    if (!pm_dim_is_const(m, state->dims[1], &heads) ||
        !pm_dim_is_const(m, state->dims[2], &key_size) ||
        !pm_dim_is_const(m, state->dims[3], &value_size) || heads < 1)
        return pm_hook_error(op, diag, "heads and their sizes must be known, found state %s",
                             pm_hook_type_text(op, 0));
    PM_TRY(check_rows(op, diag, 1, "q", PM_DIM_NONE));
    PM_TRY(check_rows(op, diag, 2, "k", PM_DIM_NONE));
    PM_TRY(check_rows(op, diag, 3, "v", pm_dim_mul(m, state->dims[1], state->dims[3])));
    PM_TRY(count_heads(op, diag, "q", pm_hook_type(op, 1)->dims[2], key_size, &q_heads));
    PM_TRY(count_heads(op, diag, "k", pm_hook_type(op, 2)->dims[2], key_size, &k_heads));
    if (heads % k_heads != 0 || (heads % q_heads != 0 && q_heads % heads != 0))
        return pm_hook_error(op, diag,
                             "%" PRId64 " heads of q and %" PRId64 " of k can't share %" PRId64
                             " states evenly",
                             q_heads, k_heads, heads);
    PM_TRY(check_decay(op, diag, heads, key_size));
    if (pm_hook_has(op, 5)) {
        PM_TRY(check_rows(op, diag, 5, "beta", PM_DIM_NONE));
        if (!pm_dim_is_const(m, pm_hook_type(op, 5)->dims[2], &width) ||
            (width != 1 && width != heads))
            return pm_hook_error(op, diag, "beta must have 1 or %" PRId64 " columns, found %s",
                                 heads, pm_hook_type_text(op, 5));
    }
    return check_seen(op, diag, 6);
}

pm_status pm_verify_selective_scan(const pm_op *op, pm_diag *diag)
{
    PM_TRY(check_state(op, diag, 3));
    const pm_dim *state = pm_hook_type(op, 0)->dims;
    PM_TRY(check_rows(op, diag, 1, "x", state[1]));
    PM_TRY(check_rows(op, diag, 2, "dt", state[1]));
    PM_TRY(pm_hook_float(op, diag, 3));
    PM_TRY(pm_hook_rank(op, diag, 3, 2));
    for (int32_t i = 0; i < 2; i++)
        PM_TRY(pm_hook_extent(op, diag, "an extent of a", pm_hook_type(op, 3)->dims[i],
                              state[i + 1]));
    PM_TRY(check_rows(op, diag, 4, "b", state[2]));
    PM_TRY(check_rows(op, diag, 5, "c", state[2]));
    return check_seen(op, diag, 6);
}

/// The state, and as many rows as operand 1 has. Queries may outnumber the states of linear_attention.
pm_status pm_infer_recurrence(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *state = pm_hook_type(op, 0), *x = pm_hook_type(op, 1);
    pm_dim dims[3] = {x->dims[0], x->dims[1], x->dims[2]};
    if (op->code == PM_OP_linear_attention) {
        int64_t heads, key_size, width;
        bool known = pm_dim_is_const(inf->module, state->dims[1], &heads) &&
                     pm_dim_is_const(inf->module, state->dims[2], &key_size) &&
                     pm_dim_is_const(inf->module, x->dims[2], &width);
        PM_ASSERT(known);
        int64_t q_heads = width / key_size;
        dims[2] = pm_dim_mul(inf->module, state->dims[3],
                             pm_dim_const(inf->module, q_heads > heads ? q_heads : heads));
    }
    inf->types[0] = state;
    return pm_hook_result(inf, 1, x->elem, 3, dims);
}
