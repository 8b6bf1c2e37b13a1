/// An `if` that only saves work is its branch: `if any row chose this expert: acc + f(rows), else acc`.
///
/// From the condition follows what is known where the other branch would run (supposing.h). With that the branch
/// that stays is looked through: when it then gives what the other one gives, and can't be at fault, it may
/// always run. So experts behind branches become a chain of plain ops, as those without.
#include "ir/op_table.h"
#include "passes/generic/supposing.h"
#include "passes/passes.h"

typedef struct chooser {
    pm_pass_ctx *ctx;
    const pm_id_set *overwritten;
    pm_supposing s;
} chooser;

/// Looks through a branch; false when it had better not run.
static bool look_through(chooser *c, const pm_op *op, uint32_t branch, bool must_be_harmless)
{
    const pm_graph *g = op->regions[branch];
    for (size_t i = 0; i < g->args.n; i++) {
        pm_value *outside = op->operands[1 + i];
        pm_supposed k = pm_suppose_know(&c->s, outside);
        pm_suppose_note(&c->s, g->args.data[i],
                        k.fact != PM_SUPPOSED_NOTHING ? k : (pm_supposed){PM_SUPPOSED_SAME, outside});
    }
    for (pm_op *inner = g->first; inner; inner = inner->next) {
        if (must_be_harmless && !pm_suppose_is_harmless(&c->s, inner))
            return false;
        pm_suppose_look_at(&c->s, inner);
    }
    return true;
}

static bool agree(const chooser *c, const pm_value *a, const pm_value *b)
{
    pm_supposed k = pm_suppose_know(&c->s, a), l = pm_suppose_know(&c->s, b);
    return a->type == b->type && k.fact != PM_SUPPOSED_NOTHING && k.fact == l.fact && k.same_as == l.same_as;
}

/// Whether branch `kept` gives what the other one gives where that would run.
static bool can_keep(chooser *c, pm_op *op, uint32_t kept)
{
    pm_suppose_begin(&c->s);
    pm_suppose(&c->s, op->operands[0], kept == 1);
    pm_suppose_look_outside(&c->s, op);
    if (c->s.outer.n == 0 || !look_through(c, op, kept, true) || !look_through(c, op, 1 - kept, false))
        return false;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (!agree(c, op->regions[kept]->results.data[i], op->regions[1 - kept]->results.data[i]) ||
            op->results[i]->type != op->regions[kept]->results.data[i]->type)
            return false;
    return op->n_results > 0;
}

static pm_status keep(chooser *c, pm_op *op, uint32_t kept)
{
    pm_builder b = {op->graph, op, op->loc};
    pm_op *previous = op->prev;
    pm_value **values = PM_NEW_ARRAY(c->s.scratch, pm_value *, op->n_results + 1);
    PM_TRY(pm_region_inline(&b, op->regions[kept], op->operands + 1, values));
    for (uint32_t i = 0; i < op->n_results; i++)
        if (values[i]->type != op->results[i]->type)
            return pm_error(c->ctx->diag, op->loc, PM_ERR_INTERNAL, "a branch changes its type");
    for (pm_op *fresh = previous ? previous->next : op->graph->first; fresh != op; fresh = fresh->next)
        fresh->loc = pm_loc_derive(c->s.m, fresh->loc, "branches");
    for (uint32_t i = 0; i < op->n_results; i++) {
        PM_TRY(pm_stand_in(op, c->overwritten, op->results[i], values[i], &values[i]));
        pm_value_replace(op->results[i], values[i]);
    }
    pm_op_erase(op);
    pm_pass_changed(c->ctx);
    pm_pass_count(c->ctx, "branches that always run");
    return PM_OK;
}

static pm_status visit(chooser *c, pm_op *op)
{
    for (uint32_t kept = 0; kept < 2; kept++)
        if (op->regions[kept]->first && can_keep(c, op, kept))
            return keep(c, op, kept);
    return PM_OK;
}

pm_status pm_pass_branches(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_graph_vec all;
    pm_graphs_of(m, m->arena, &all);
    pm_id_set overwritten = pm_overwritten_values(m, &all, m->arena);
    for (size_t i = 0; i < m->entries.n; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(m->entries.data[i], m->arena, &graphs);
        for (size_t k = graphs.n; k-- > 0;) // inner ones first: what they become, outer ones see
            for (pm_op *op = graphs.data[k]->first, *next; op; op = next) {
                next = op->next;
                if (op->code != PM_OP_if)
                    continue;
                chooser c = {.ctx = ctx, .overwritten = &overwritten, .s = {.m = m, .scratch = pm_arena_child(m->arena)}};
                pm_status status = visit(&c, op);
                pm_arena_destroy(c.s.scratch);
                PM_TRY(status);
            }
    }
    return PM_OK;
}
