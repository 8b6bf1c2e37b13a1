/// Reductions and ops along an axis: verify, infer.
#include "ir/ops/hooks.h"

/* ---- verify ---------------------------------------------------------------------------------- */

pm_status pm_verify_axes(const pm_op *op, pm_diag *diag)
{
    const pm_attr *axes = pm_op_attr(op, "axes");
    int32_t rank = pm_hook_type(op, 0)->rank;
    uint32_t seen = 0;
    if (pm_hook_type(op, 0)->elem == PM_BOOL)
        return pm_hook_error(op, diag, "operand 0 must be of numbers, found %s",
                             pm_hook_type_text(op, 0));
    for (size_t i = 0; i < axes->n; i++) {
        int32_t axis;
        PM_TRY(pm_hook_axis(op, diag, "an axis of axes", axes->ints[i], rank, &axis));
        if (seen & 1u << axis)
            return pm_hook_error(op, diag, "axes names axis %d twice", (int)axis);
        seen |= 1u << axis;
    }
    return PM_OK;
}

pm_status pm_verify_axis(const pm_op *op, pm_diag *diag)
{
    int32_t axis;
    if (op->code == PM_OP_softmax)
        PM_TRY(pm_hook_float(op, diag, 0));
    if (pm_hook_type(op, 0)->elem == PM_BOOL)
        return pm_hook_error(op, diag, "operand 0 must be of numbers, found %s",
                             pm_hook_type_text(op, 0));
    return pm_hook_axis(op, diag, "axis", pm_op_i64(op, "axis"), pm_hook_type(op, 0)->rank, &axis);
}

pm_status pm_verify_norm(const pm_op *op, pm_diag *diag)
{
    const pm_type *x = pm_hook_type(op, 0);
    PM_TRY(pm_hook_float(op, diag, 0));
    if (x->rank == 0)
        return pm_hook_error(op, diag, "operand 0 needs an axis to normalise over, found %s",
                             pm_hook_type_text(op, 0));
    for (uint32_t i = 1; i < op->n_operands; i++) {
        if (!pm_hook_has(op, i))
            continue;
        PM_TRY(pm_hook_elem(op, diag, i, x->elem));
        PM_TRY(pm_hook_rank(op, diag, i, 1));
        PM_TRY(pm_hook_extent(op, diag, i == 1 ? "the length of scale" : "the length of bias",
                              pm_hook_type(op, i)->dims[0], x->dims[x->rank - 1]));
    }
    if (!(pm_op_f64(op, "eps") >= 0))
        return pm_hook_error(op, diag, "eps is %g, must be 0 or more", pm_op_f64(op, "eps"));
    return PM_OK;
}

pm_status pm_verify_topk(const pm_op *op, pm_diag *diag)
{
    int32_t axis;
    int64_t count, k, extent;
    const pm_type *x = pm_hook_type(op, 0);
    PM_TRY(pm_verify_axis(op, diag));
    PM_TRY(pm_hook_axis(op, diag, "axis", pm_op_i64(op, "axis"), x->rank, &axis));
    PM_TRY(pm_hook_int(op, diag, 1));
    if (!pm_type_const_count(pm_hook_module(op), pm_hook_type(op, 1), &count) || count != 1)
        return pm_hook_error(op, diag, "k must be one integer, found %s", pm_hook_type_text(op, 1));
    pm_dim known = pm_hook_scalar(op->operands[1]);
    if (!pm_dim_is_const(pm_hook_module(op), known, &k))
        return PM_OK;
    if (k < 0)
        return pm_hook_error(op, diag, "k is %" PRId64 ", must be 0 or more", k);
    if (pm_dim_is_const(pm_hook_module(op), x->dims[axis], &extent) && k > extent)
        return pm_hook_error(op, diag,
                             "k is %" PRId64 ", but axis %d has only %" PRId64 " elements", k,
                             (int)axis, extent);
    return PM_OK;
}

/* ---- infer ----------------------------------------------------------------------------------- */

static pm_dim reduce_two(pm_module *m, pm_opcode code, pm_dim a, pm_dim b)
{
    switch (code) {
    case PM_OP_reduce_sum: return pm_dim_add(m, a, b);
    case PM_OP_reduce_prod: return pm_dim_mul(m, a, b);
    case PM_OP_reduce_min: return pm_dim_min(m, a, b);
    case PM_OP_reduce_max: return pm_dim_max(m, a, b);
    default: return PM_DIM_NONE;
    }
}

static void infer_reduce_content(pm_infer *inf, bool reduces)
{
    pm_module *m = inf->module;
    size_t n;
    const pm_dim *x = pm_hook_content(inf->op->operands[0], &n);
    if (x == NULL || pm_elem_is_float(inf->types[0]->elem))
        return;
    if (!reduces) {
        pm_infer_content(inf, 0, x, n);
        return;
    }
    pm_dim acc;
    if (n > 0)
        acc = x[0];
    else if (inf->op->code == PM_OP_reduce_prod || inf->op->code == PM_OP_reduce_sum)
        acc = pm_dim_const(m, inf->op->code == PM_OP_reduce_prod);
    else
        return;
    if (inf->op->code == PM_OP_reduce_mean)
        return;
    for (size_t i = 1; i < n; i++)
        acc = reduce_two(m, inf->op->code, acc, x[i]);
    pm_infer_content(inf, 0, &acc, 1);
}

pm_status pm_infer_reduce(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    const pm_attr *axes = pm_op_attr(op, "axes");
    bool keepdims = pm_op_i64(op, "keepdims");
    uint32_t reduced = 0;
    for (size_t i = 0; i < axes->n; i++)
        reduced |= 1u << (axes->ints[i] < 0 ? axes->ints[i] + x->rank : axes->ints[i]);
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = 0;
    for (int32_t i = 0; i < x->rank; i++) {
        if (!(reduced & 1u << i))
            dims[rank++] = x->dims[i];
        else if (keepdims)
            dims[rank++] = pm_dim_const(inf->module, 1);
    }
    PM_TRY(pm_hook_result(inf, 0, x->elem, rank, dims));
    infer_reduce_content(inf, reduced != 0);
    return PM_OK;
}

pm_status pm_infer_argmax(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis = pm_hook_axis_of(op, "axis", x->rank), rank = 0;
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < x->rank; i++) {
        if (i != axis)
            dims[rank++] = x->dims[i];
        else if (pm_op_i64(op, "keepdims"))
            dims[rank++] = pm_dim_const(inf->module, 1);
    }
    return pm_hook_result(inf, 0, PM_I64, rank, dims);
}

pm_status pm_infer_topk(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis = pm_hook_axis_of(op, "axis", x->rank);
    pm_dim dims[PM_MAX_RANK];
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    pm_dim k = pm_hook_scalar(op->operands[1]);
    dims[axis] = k != PM_DIM_NONE ? k : pm_infer_fresh(inf, 0, axis, x->dims[axis]);
    PM_TRY(pm_hook_result(inf, 0, x->elem, x->rank, dims));
    return pm_hook_result(inf, 1, PM_I64, x->rank, dims);
}
