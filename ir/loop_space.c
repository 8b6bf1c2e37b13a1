#include "ir/loop_space.h"

#include "ir/op_table.h"

static bool is_one(const pm_module *m, pm_dim dim)
{
    int64_t n;
    return pm_dim_is_const(m, dim, &n) && n == 1;
}

static pm_dim count(pm_module *m, const pm_type *type, int32_t to)
{
    pm_dim n = pm_dim_const(m, 1);
    for (int32_t i = 0; i < to; i++)
        n = pm_dim_mul(m, n, type->dims[i]);
    return n;
}

pm_rows pm_rows_of(pm_module *m, const pm_type *type)
{
    PM_ASSERT(type->rank > 0);
    return (pm_rows){count(m, type, type->rank - 1), type->dims[type->rank - 1]};
}

bool pm_type_is_one_element(const pm_module *m, const pm_type *type)
{
    for (int32_t i = 0; i < type->rank; i++)
        if (!is_one(m, type->dims[i]))
            return false;
    return true;
}

pm_row_fit pm_rows_fit(pm_module *m, pm_rows space, const pm_type *type)
{
    if (pm_type_is_one_element(m, type))
        return PM_FIT_ONE;
    pm_rows own = pm_rows_of(m, type);
    bool same_columns = pm_dim_same(own.columns, space.columns);
    if (same_columns && pm_dim_same(own.rows, space.rows))
        return PM_FIT_FULL;
    if (same_columns && is_one(m, own.rows))
        return PM_FIT_COLUMN;
    if (is_one(m, own.columns) && pm_dim_same(own.rows, space.rows))
        return PM_FIT_ROW;
    return PM_FIT_NONE;
}

bool pm_type_broadcasts_into(const pm_module *m, const pm_type *type, const pm_type *space)
{
    if (type->rank > space->rank)
        return false;
    for (int32_t i = 1; i <= type->rank; i++) {
        pm_dim from = type->dims[type->rank - i];
        if (!pm_dim_same(from, space->dims[space->rank - i]) && !is_one(m, from))
            return false;
    }
    return true;
}

bool pm_op_has_row_statistics(const pm_op *op)
{
    if (op->results[0]->type->elem == PM_F64)
        return false;
    if (op->code == PM_OP_softmax) {
        int64_t axis = pm_op_i64(op, "axis");
        return axis == -1 || axis == op->results[0]->type->rank - 1;
    }
    return op->code == PM_OP_rms_norm || op->code == PM_OP_layer_norm;
}

bool pm_op_gathers_rows(const pm_op *op)
{
    int64_t choices;
    switch (op->code) {
    case PM_OP_gather_rows: return true;
    case PM_OP_combine:
        return pm_dim_is_const(op->graph->module, op->operands[1]->type->dims[1], &choices) &&
               choices <= PM_LOOP_MAX_CHOICES;
    case PM_OP_gather:
        return op->operands[0]->type->rank == 2 && op->results[0]->type->rank > 1 &&
               (pm_op_i64(op, "axis") == 0 || pm_op_i64(op, "axis") == -2);
    default: return false;
    }
}

static bool can_loop_elementwise(const pm_op *op)
{
    pm_elem elem = op->operands[0]->type->elem;
    bool is_float = pm_elem_is_float(elem), is_double = elem == PM_F64;
    switch (op->code) {
    case PM_OP_div: return is_float; // integers check their divisor: as reference
    case PM_OP_exp:
    case PM_OP_log:
    case PM_OP_sin:
    case PM_OP_cos:
    case PM_OP_tanh:
    case PM_OP_erf:
    case PM_OP_sigmoid:
    case PM_OP_silu:
    case PM_OP_gelu:
    case PM_OP_softplus: return !is_double; // the mathematics of double precision runs as reference
    case PM_OP_pow: return is_float && !is_double && op->operands[1]->type->elem == elem;
    case PM_OP_asin: // the long tail runs as reference
    case PM_OP_acos:
    case PM_OP_atan:
    case PM_OP_shift:
    case PM_OP_mod:
    case PM_OP_sign:
    case PM_OP_isinf: return false;
    default: return true;
    }
}

bool pm_op_can_loop(const pm_op *op)
{
    uint32_t traits = pm_op_info_of(op)->traits;
    if (traits & PM_T_ELEMENTWISE)
        return can_loop_elementwise(op);
    if (traits & PM_T_REDUCE)
        return op->code != PM_OP_reduce_mean || pm_elem_is_float(op->results[0]->type->elem);
    switch (op->code) {
    case PM_OP_transpose:
    case PM_OP_expand:
    case PM_OP_fill: return true;
    default: return pm_op_has_row_statistics(op) || pm_op_gathers_rows(op);
    }
}
