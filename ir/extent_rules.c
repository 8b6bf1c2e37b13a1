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
    if (x->rank == 0 || y->rank == 0)
        return;
    int32_t k_x = x->rank - 1, k_y = y->rank > 1 ? y->rank - 2 : 0;
    if (pm_op_i64(op, "trans_a") && x->rank > 1)
        k_x = x->rank - 2;
    if (pm_op_i64(op, "trans_b") && y->rank > 1)
        k_y = y->rank - 1;
    r->rule(r->user, x->dims[k_x], y->dims[k_y], false);
    if (x->rank > 2 && y->rank > 2)
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

/// Extents of queries, keys or values: [B, heads, rows, size], or [B, rows, heads * size].
typedef struct head_rows {
    pm_dim batch, heads, rows, size;
} head_rows;

static head_rows head_rows_of(pm_module *m, const pm_type *type, pm_dim heads)
{
    const pm_dim *d = type->dims;
    if (type->rank == 4)
        return (head_rows){d[0], d[1], d[2], d[3]};
    return (head_rows){d[0], heads, d[1], pm_dim_floordiv(m, d[2], heads)};
}

/// Numbers that all sequences share or have each.
static void positions(const rules *r, const pm_op *op, uint32_t i, pm_dim batch)
{
    if (i < op->n_operands && op->operands[i])
        r->rule(r->user, op->operands[i]->type->dims[0], batch, true);
}

static void attention(const rules *r, const pm_op *op)
{
    pm_dim heads = pm_dim_const(r->m, pm_op_i64(op, "heads")), kv = pm_dim_const(r->m, pm_op_i64(op, "kv_heads"));
    head_rows q = head_rows_of(r->m, op->operands[0]->type, heads);
    head_rows k = head_rows_of(r->m, op->operands[1]->type, kv);
    head_rows v = head_rows_of(r->m, op->operands[2]->type, kv);
    const pm_dim pairs[][2] = {{k.batch, q.batch}, {v.batch, q.batch}, {q.heads, heads}, {k.heads, kv},
                               {v.heads, kv},      {k.size, q.size},   {v.rows, k.rows}};
    for (size_t i = 0; i < PM_COUNT(pairs); i++)
        r->rule(r->user, pairs[i][0], pairs[i][1], false);
    if (op->n_operands > 3 && op->operands[3]) {
        const pm_type *mask = op->operands[3]->type;
        const pm_dim over[] = {q.batch, heads, q.rows};
        broadcast(r, mask->dims, mask->rank - 1, over, 3);
    }
    positions(r, op, 4, q.batch);
    positions(r, op, 5, q.batch);
    if (op->n_operands > 6 && op->operands[6])
        r->rule(r->user, op->operands[6]->type->dims[0], heads, false);
}

static void growth(const rules *r, const pm_op *op)
{
    const pm_dim *out = op->results[0]->type->dims;
    head_rows rows = head_rows_of(r->m, op->operands[0]->type, out[1]);
    positions(r, op, 1, rows.batch);
    if (op->n_operands < 4 || !op->operands[3])
        return;
    const pm_dim *past = op->operands[3]->type->dims;
    const pm_dim pairs[][2] = {{past[0], rows.batch}, {past[1], rows.heads}, {past[3], rows.size}};
    for (size_t i = 0; i < PM_COUNT(pairs); i++)
        r->rule(r->user, pairs[i][0], pairs[i][1], false);
}

static void told_by_hook(void *user, pm_dim found, pm_dim expected)
{
    const rules *r = user;
    r->rule(r->user, found, expected, false);
}

/// What the op's own check compares.
static void by_hook(rules *r, const pm_op *op)
{
    const pm_op_info *info = pm_op_info_of(op);
    if (!info->verify)
        return;
    r->m->on_extents = told_by_hook;
    r->m->on_extents_user = r;
    (void)info->verify(op, NULL); // extents that differ for sure were reported before
    r->m->on_extents = NULL;
}

void pm_op_extent_rules(const pm_op *op, pm_extent_rule_fn *rule, void *user)
{
    rules r = {op->graph->module, rule, user};
    const pm_type *x = op->n_operands && op->operands[0] ? op->operands[0]->type : NULL;
    int64_t n;
    if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE) {
        elementwise(&r, op);
        return;
    }
    switch (op->code) {
    case PM_OP_matmul: products(&r, op); break;
    case PM_OP_concat: concat(&r, op); break;
    case PM_OP_sdpa: attention(&r, op); break;
    case PM_OP_kv_append: growth(&r, op); break;
    case PM_OP_reshape: rule(user, pm_type_count(r.m, x), pm_type_count(r.m, op->results[0]->type), false); break;
    case PM_OP_expand:
        if (op->operands[1]->content && pm_type_const_count(r.m, op->operands[1]->type, &n))
            broadcast(&r, x->dims, x->rank, op->operands[1]->content, (int32_t)n);
        break;
    default: by_hook(&r, op); break;
    }
}

typedef struct unproven {
    const pm_module *m;
    bool any;
} unproven;

static void note_unproven(void *user, pm_dim a, pm_dim b, bool broadcast)
{
    unproven *u = user;
    int64_t one;
    bool fits = pm_dim_same(a, b) || (broadcast && ((pm_dim_is_const(u->m, a, &one) && one == 1) ||
                                                    (pm_dim_is_const(u->m, b, &one) && one == 1)));
    u->any = u->any || !fits;
}

bool pm_op_extents_fit(const pm_op *op)
{
    unproven u = {.m = op->graph->module};
    pm_op_extent_rules(op, note_unproven, &u);
    return !u.any;
}
