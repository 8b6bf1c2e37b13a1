/// What regions take from outside: constants are made again inside, where they fold and products pack
/// them; what no region uses isn't taken any more. A value that a loop carries and never changes is what
/// it was before the loop.
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef struct body {
    pm_pass_ctx *ctx;
    const pm_id_set *overwritten;
    pm_op *op;
    uint32_t own;      ///< operands that no argument stands for: a condition
    uint32_t captured; ///< number of the first captured operand
} body;

/// Constants and extents have no operands: they can stand anywhere their symbols are known.
static bool can_be_made_again(const pm_value *v)
{
    return pm_value_is(v, PM_OP_const) || pm_value_is(v, PM_OP_dims);
}

static pm_status make_again(body *t, uint32_t operand)
{
    pm_op *op = t->op, *def = op->operands[operand]->def, *copy;
    for (uint32_t r = 0; r < op->n_regions; r++) {
        pm_graph *g = op->regions[r];
        pm_value *arg = g->args.data[operand - t->own];
        if (!pm_value_is_used(arg))
            continue;
        pm_map none;
        pm_map_init(&none, g->module->arena);
        PM_TRY(pm_op_clone(def, g, g->first, &none, &copy));
        copy->is_clone = false; // finds no extents
        copy->loc = pm_loc_derive(g->module, def->loc, "captures");
        pm_value_replace(arg, copy->results[0]);
        pm_pass_changed(t->ctx);
        pm_pass_count(t->ctx, "constants made again");
    }
    return PM_OK;
}

/// A loop gives as a result what it was given.
static void bypass(body *t, uint32_t carried)
{
    const pm_graph *g = t->op->regions[0];
    pm_value *given = t->op->operands[2 + carried], *result = t->op->results[carried];
    if (g->results.data[1 + carried] != g->args.data[2 + carried] || given->type != result->type ||
        !pm_value_is_used(result) || !pm_may_stand_for(t->overwritten, result, given))
        return;
    pm_value_replace(result, given);
    pm_pass_changed(t->ctx);
    pm_pass_count(t->ctx, "unchanged values");
}

static void drop_unused(body *t)
{
    pm_op *op = t->op;
    for (uint32_t i = op->n_operands; i-- > t->captured;) {
        bool used = false;
        for (uint32_t r = 0; r < op->n_regions; r++)
            used = used || pm_value_is_used(op->regions[r]->args.data[i - t->own]);
        if (used)
            continue;
        pm_op_drop_captured(op, i, i - t->own);
        pm_pass_changed(t->ctx);
        pm_pass_count(t->ctx, "captures dropped");
    }
}

static pm_status take_constants(pm_pass_ctx *ctx, const pm_id_set *overwritten, pm_op *op)
{
    bool is_if = op->code == PM_OP_if;
    body t = {.ctx = ctx, .overwritten = overwritten, .op = op, .own = is_if ? 1 : 0,
              .captured = is_if ? 1 : 2 + (uint32_t)pm_op_i64(op, "carried")};
    for (uint32_t i = 0; i + 2 < t.captured; i++)
        bypass(&t, i);
    for (uint32_t i = t.captured; i < op->n_operands; i++)
        if (can_be_made_again(op->operands[i]))
            PM_TRY(make_again(&t, i));
    drop_unused(&t);
    return PM_OK;
}

static bool is_body(const pm_op *op)
{
    return op->code == PM_OP_if || op->code == PM_OP_loop;
}

pm_status pm_pass_captures(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_graph_vec all;
    pm_graphs_of(m, m->arena, &all);
    pm_id_set overwritten = pm_overwritten_values(m, &all, m->arena);
    for (size_t i = 0; i < m->entries.n; i++) {
        pm_graph *g = m->entries.data[i];
        PM_VEC(pm_op *) ops = {0};
        for (pm_op *op = g->first; op; op = pm_op_next_nested(g, op))
            if (is_body(op))
                PM_PUSH(m->arena, &ops, op);
        for (size_t k = 0; k < ops.n; k++) // outer ones first: constants go all the way in
            PM_TRY(take_constants(ctx, &overwritten, ops.data[k]));
        for (size_t k = ops.n; k-- > 0;) // inner ones first: what they dropped, outer ones drop
            PM_TRY(take_constants(ctx, &overwritten, ops.data[k]));
    }
    return PM_OK;
}
