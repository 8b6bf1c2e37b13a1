#include "ir/extent_rules.h"

#include "ir/op_table.h"

typedef struct rules {
    pm_module *m;
    pm_extent_rule_fn *rule;
    void *user;
} rules;

static void broadcast(const rules *r, const pm_dim *x, int32_t n_x, const pm_dim *y, int32_t n_y)
{
    for (int32_t i = 1; i <= n_x && i <= n_y; i++)
        r->rule(r->user, x[n_x - i], y[n_y - i], true);
}

static void elementwise(const rules *r, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_operands; i++)
        for (uint32_t k = i + 1; k < op->n_operands; k++)
            broadcast(r, op->operands[i]->type->dims, op->operands[i]->type->rank, op->operands[k]->type->dims,
                      op->operands[k]->type->rank);
}

static void products(const rules *r, const pm_op *op)
{
    const pm_type *x = op->operands[0]->type, *y = op->operands[1]->type;
    bool is_matmul = op->code == PM_OP_matmul;
    if (x->rank == 0 || y->rank == 0)
        return;
    int32_t k_x = x->rank - 1, k_y = y->rank > 1 ? y->rank - 2 : 0;
    if (is_matmul && pm_op_i64(op, "trans_a") && x->rank > 1)
        k_x = x->rank - 2;
    if (!is_matmul || (pm_op_i64(op, "trans_b") && y->rank > 1))
        k_y = y->rank - 1;
    r->rule(r->user, x->dims[k_x], y->dims[k_y], false);
    if (is_matmul && x->rank > 2 && y->rank > 2)
        broadcast(r, x->dims, x->rank - 2, y->dims, y->rank - 2);
}

static void concat(const rules *r, const pm_op *op)
{
    const pm_type *x = op->operands[0]->type;
    int64_t axis = pm_op_i64(op, "axis");
    for (uint32_t i = 1; i < op->n_operands; i++)
        for (int32_t d = 0; d < x->rank; d++)
            if (d != (axis < 0 ? axis + x->rank : axis))
                r->rule(r->user, x->dims[d], op->operands[i]->type->dims[d], false);
}

void pm_op_extent_rules(const pm_op *op, pm_extent_rule_fn *rule, void *user)
{
    const rules r = {op->graph->module, rule, user};
    const pm_type *x = op->n_operands && op->operands[0] ? op->operands[0]->type : NULL;
    int64_t n;
    if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE) {
        elementwise(&r, op);
        return;
    }
    switch (op->code) {
    case PM_OP_matmul:
    case PM_OP_linear: products(&r, op); break;
    case PM_OP_concat: concat(&r, op); break;
    case PM_OP_reshape: rule(user, pm_type_count(r.m, x), pm_type_count(r.m, op->results[0]->type), false); break;
    case PM_OP_expand:
        if (op->operands[1]->content && pm_type_const_count(r.m, op->operands[1]->type, &n))
            broadcast(&r, x->dims, x->rank, op->operands[1]->content, (int32_t)n);
        break;
    case PM_OP_scatter_elements:
        for (int32_t i = 0; i < x->rank; i++)
            rule(user, op->operands[1]->type->dims[i], op->operands[2]->type->dims[i], false);
        break;
    default: break;
    }
}
