#include "passes/moe/spell_out.h"

#include <string.h>

#include "passes/generic/rewrite.h"

typedef struct speller {
    pm_module *m;
    const pm_moe_facts *facts;
    pm_arena *scratch;
    int64_t experts[16]; ///< of the routers so far
    int n_experts;
    pm_spellings *out;
} speller;

static bool is_width(const speller *s, int64_t n)
{
    for (int i = 0; i < s->n_experts; i++)
        if (s->experts[i] == n)
            return true;
    return false;
}

static void note_router(speller *s, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_moe_fact *fact = pm_moe_fact_of(s->facts, op->results[i]);
        if (fact && fact->seed->ids == op->results[i] && fact->seed->experts > 1 &&
            !is_width(s, fact->seed->experts) && s->n_experts < (int)PM_COUNT(s->experts))
            s->experts[s->n_experts++] = fact->seed->experts;
    }
}

static int64_t extent(const speller *s, const pm_value *v, int32_t axis)
{
    int64_t n;
    axis += axis < 0 ? v->type->rank : 0;
    return axis >= 0 && pm_dim_is_const(s->m, v->type->dims[axis], &n) ? n : -1;
}

/// A constant, or a view of one.
static bool is_constant(const pm_value *v)
{
    while (pm_value_is(v, PM_OP_transpose) || pm_value_is(v, PM_OP_reshape))
        v = v->def->operands[0];
    return pm_value_const(v) != NULL;
}

static void instead(speller *s, pm_value *was, pm_value *now, uint32_t first)
{
    pm_spelling spelling = {was, now, first};
    pm_value_replace(was, now);
    PM_PUSH(s->scratch, &s->out[0], spelling);
}

/* ---- products with dense weights --------------------------------------------------------------- */

/// Dense weights whose axis `axis` counts experts, and nothing else does.
static bool counts_experts(const speller *s, const pm_value *v, int32_t axis)
{
    const pm_moe_fact *fact = pm_moe_fact_of(s->facts, v);
    const pm_atom *atom;
    return fact && fact->kind == PM_FACT_MASKED && fact->expert < 0 && fact->off == 0 &&
           pm_axes_at(&fact->axes, axis, &atom) == 1 && atom->kind == PM_ATOM_ID;
}

/// y[.., h] = sum over e of a[.., h, e] * w[.., e].
static pm_status product(speller *s, pm_op *op)
{
    pm_value *a = op->operands[0], *b = op->operands[1], *y;
    int32_t rank = op->results[0]->type->rank;
    if (pm_op_i64(op, "trans_a") || pm_op_i64(op, "trans_b") || a->type->rank != rank || b->type->rank != rank || rank < 3)
        return PM_OK;
    bool right = extent(s, b, -1) == 1 && counts_experts(s, b, rank - 2);
    bool left = !right && extent(s, a, -2) == 1 && counts_experts(s, a, rank - 1);
    if (!right && !left)
        return PM_OK;
    uint32_t first = s->m->next_serial;
    pm_builder at = {op->graph, op, pm_loc_derive(s->m, op->loc, "raise-experts")};
    pm_value *weights = right ? b : a, *other = right ? a : b;
    pm_dim dims[PM_MAX_RANK];
    memcpy(dims, weights->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 1] = weights->type->dims[rank - 2];
    dims[rank - 2] = weights->type->dims[rank - 1];
    const int64_t axis = right ? rank - 1 : rank - 2;
    PM_TRY(pm_build_reshape_dims(&at, weights, rank, dims, &weights));
    PM_TRY(pm_build1(&at, &y, PM_OP_mul, PM_OPERANDS(other, weights), PM_NO_ATTRS));
    PM_TRY(pm_build1(&at, &y, PM_OP_reduce_sum, PM_OPERANDS(y),
                     PM_ATTRS(pm_attr_ints("axes", &axis, 1), pm_attr_bool("keepdims", true))));
    if (y->type == op->results[0]->type)
        instead(s, op->results[0], y, first);
    return PM_OK;
}

/* ---- experts side by side ------------------------------------------------------------------------ */

/// Puts single pieces along `axis`, one for each expert.
static bool stacks_experts(const speller *s, const pm_value *v, int32_t axis)
{
    if (!pm_value_is(v, PM_OP_concat) || !is_width(s, v->def->n_operands))
        return false;
    int64_t along = pm_op_i64(v->def, "axis");
    if ((along < 0 ? along + v->type->rank : along) != axis)
        return false;
    for (uint32_t i = 0; i < v->def->n_operands; i++)
        if (extent(s, v->def->operands[i], axis) != 1)
            return false;
    return true;
}

static pm_status piece_of(pm_builder *b, pm_value *v, int32_t axis, int64_t e, pm_value **out)
{
    const int64_t one = 1, end = e + 1, along = axis;
    pm_value *from, *to, *axes;
    PM_TRY(pm_build_const_ints(b, PM_I64, 1, &one, &e, &from));
    PM_TRY(pm_build_const_ints(b, PM_I64, 1, &one, &end, &to));
    PM_TRY(pm_build_const_ints(b, PM_I64, 1, &one, &along, &axes));
    return pm_build1(b, out, PM_OP_slice, PM_OPERANDS(v, from, to, axes), PM_NO_ATTRS);
}

/// sum over e of stack[e] * weights[e]: piece by piece.
static pm_status sum_of_stack(speller *s, pm_op *op)
{
    const pm_attr *axes = pm_op_attr(op, "axes");
    pm_value *x = op->operands[0], *weights = NULL, *y = NULL;
    if (axes->n != 1 || x->type->rank < 2)
        return PM_OK;
    int32_t axis = (int32_t)(axes->ints[0] < 0 ? axes->ints[0] + x->type->rank : axes->ints[0]);
    pm_value *stack = x;
    if (pm_value_is(x, PM_OP_mul)) {
        bool first = stacks_experts(s, x->def->operands[0], axis);
        stack = x->def->operands[!first];
        weights = x->def->operands[first];
        if (weights->type->rank != x->type->rank || extent(s, weights, axis) != extent(s, x, axis))
            return PM_OK;
    }
    if (!stacks_experts(s, stack, axis))
        return PM_OK;
    uint32_t first = s->m->next_serial;
    pm_builder at = {op->graph, op, pm_loc_derive(s->m, op->loc, "raise-experts")};
    for (uint32_t e = 0; e < stack->def->n_operands; e++) {
        pm_value *part = stack->def->operands[e], *weight;
        if (weights) {
            PM_TRY(piece_of(&at, weights, axis, e, &weight));
            PM_TRY(pm_build1(&at, &part, PM_OP_mul, PM_OPERANDS(part, weight), PM_NO_ATTRS));
        }
        if (y)
            PM_TRY(pm_build1(&at, &y, PM_OP_add, PM_OPERANDS(y, part), PM_NO_ATTRS));
        else
            y = part;
    }
    PM_TRY(pm_build_reshape_dims(&at, y, op->results[0]->type->rank, op->results[0]->type->dims, &y));
    if (y->type == op->results[0]->type)
        instead(s, op->results[0], y, first);
    return PM_OK;
}

/* ---- one product for all experts ------------------------------------------------------------------ */

/// [.., experts * n] of a product with constant weights (and a bias), cut into [.., experts, n].
static pm_status cut_product(speller *s, pm_op *op)
{
    const pm_type *to = op->results[0]->type, *from = op->operands[0]->type;
    pm_value *x = op->operands[0], *bias = NULL, *y;
    int32_t rank = to->rank;
    if (rank < 3 || from->rank < 2 || !is_width(s, extent(s, op->results[0], -2)))
        return PM_OK;
    int64_t e = extent(s, op->results[0], -2), n = extent(s, op->results[0], -1), k;
    if (pm_value_is(x, PM_OP_add)) {
        bias = x->def->operands[1];
        x = x->def->operands[0];
    }
    if (!pm_value_is(x, PM_OP_linear) || n < 1 || extent(s, x, -1) != e * n || !is_constant(x->def->operands[1]) ||
        x->def->operands[1]->type->rank != 2 || x->def->operands[1]->type->elem != x->type->elem || (bias && (!is_constant(bias) || bias->type->rank != 1)))
        return PM_OK;
    pm_value *rows = x->def->operands[0], *w = x->def->operands[1];
    k = extent(s, w, 1);
    uint32_t first = s->m->next_serial;
    pm_builder at = {op->graph, op, pm_loc_derive(s->m, op->loc, "raise-experts")};
    pm_dim count = pm_dim_const(s->m, 1), one = pm_dim_const(s->m, 1), experts = pm_dim_const(s->m, e),
           own = pm_dim_const(s->m, n), inner = pm_dim_const(s->m, k);
    for (int32_t i = 0; i < rows->type->rank - 1; i++)
        count = pm_dim_mul(s->m, count, rows->type->dims[i]);
    const int64_t perm[] = {1, 0, 2};
    PM_TRY(pm_build_reshape_dims(&at, rows, 3, (const pm_dim[]){one, count, inner}, &rows));
    PM_TRY(pm_build_reshape_dims(&at, w, 3, (const pm_dim[]){experts, own, inner}, &w));
    PM_TRY(pm_build1(&at, &y, PM_OP_matmul, PM_OPERANDS(rows, w), PM_ATTRS(pm_attr_bool("trans_b", true))));
    if (bias) {
        PM_TRY(pm_build_reshape_dims(&at, bias, 3, (const pm_dim[]){experts, one, own}, &bias));
        PM_TRY(pm_build1(&at, &y, PM_OP_add, PM_OPERANDS(y, bias), PM_NO_ATTRS));
    }
    PM_TRY(pm_build1(&at, &y, PM_OP_transpose, PM_OPERANDS(y), PM_ATTRS(pm_attr_ints("perm", perm, 3))));
    PM_TRY(pm_build_reshape_dims(&at, y, rank, to->dims, &y));
    if (y->type == to)
        instead(s, op->results[0], y, first);
    return PM_OK;
}

pm_status pm_spell_out(pm_module *m, pm_graph *g, const pm_moe_facts *facts, pm_arena *scratch, pm_spellings *out)
{
    speller s = {.m = m, .facts = facts, .scratch = scratch, .out = out};
    for (pm_op *op = g->first; op; op = op->next) {
        note_router(&s, op);
        if (!s.n_experts || !op->n_results || !pm_elem_is_float(op->results[0]->type->elem))
            continue;
        switch (op->code) {
        case PM_OP_matmul: PM_TRY(product(&s, op)); break;
        case PM_OP_reduce_sum: PM_TRY(sum_of_stack(&s, op)); break;
        case PM_OP_reshape: PM_TRY(cut_product(&s, op)); break;
        default: break;
        }
    }
    return PM_OK;
}
