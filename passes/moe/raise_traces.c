/// Traces of a model that ran once: what they took from their example is said, before anything else is made of them.
#include <inttypes.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/moe/moe_facts.h"
#include "passes/passes.h"

/// A trace that cut the list of experts that were hit: with fewer pieces than experts it can't be right.
static pm_status report_trace(const pm_pass_ctx *ctx, const pm_hits_split *hits)
{
    pm_status status = pm_error(
        ctx->diag, hits->op->loc, PM_ERR_INVALID,
        "the router chooses among %" PRId64 " experts, but the graph visits just %" PRIu32
        ", as many as the example hit that it was traced with: it is wrong for any other input",
        hits->seed->experts, hits->op->n_results);
    pm_note(ctx->diag, hits->seed->ids->def->loc,
            "the router is here; export again with experts that don't depend on the input (batched or grouped "
            "products), or with an exporter that doesn't trace");
    return status;
}

/// Piece i of all is expert i; the op fails for inputs that hit fewer, which the model itself doesn't.
static pm_status name_pieces(pm_pass_ctx *ctx, const pm_hits_split *hits)
{
    pm_op *op = hits->op;
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "raise-traces")};
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        int64_t dims[PM_MAX_RANK], count;
        const int64_t id = i;
        pm_value *number;
        if (!pm_type_const_count(ctx->module, type, &count) || count != 1)
            return PM_OK;
        for (int32_t k = 0; k < type->rank; k++)
            dims[k] = 1;
        PM_TRY(pm_build_const_ints(&b, type->elem, type->rank, dims, &id, &number));
        pm_value_replace(op->results[i], number);
    }
    pm_warning(ctx->diag, op->loc, "trace_of_hits",
               "a trace that visits as many experts as its example hit, here all %" PRId64
               ": read as visiting those that are chosen", hits->seed->experts);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "lists of hit experts");
    return PM_OK;
}

/// A list of what was found among so many, cut into single pieces: nothing but a trace does that. It is right only
/// for inputs in which just as many are found.
static pm_status report_cut_list(pm_pass_ctx *ctx, const pm_op *op)
{
    const pm_value *v = op->operands[0];
    int64_t whole, piece;
    while (pm_value_is(v, PM_OP_reshape) || pm_value_is(v, PM_OP_transpose))
        v = v->def->operands[0];
    if (!pm_value_is(v, PM_OP_nonzero) || v->def->operands[0]->type->rank != 1 || op->n_results < 2 ||
        !pm_dim_is_const(ctx->module, v->def->operands[0]->type->dims[0], &whole))
        return PM_OK;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (!pm_type_const_count(ctx->module, op->results[i]->type, &piece) || piece != 1 ||
            !pm_value_is_used(op->results[i]))
            return PM_OK;
    pm_status status = pm_error(
        ctx->diag, op->loc, PM_ERR_INVALID,
        "a list of up to %" PRId64 " is cut into just %" PRIu32
        " pieces, as many as there were in the example that the graph was traced with: it is wrong for any other input",
        whole, op->n_results);
    pm_note(ctx->diag, v->def->loc,
            "the list is made here; export again with experts that don't depend on the input (batched or grouped "
            "products), or with an exporter that doesn't trace");
    return status;
}

static pm_status raise_traces(pm_pass_ctx *ctx, pm_graph *g, pm_arena *scratch)
{
    pm_moe_facts facts;
    PM_TRY(pm_moe_facts_find(ctx->module, g, scratch, &facts));
    for (size_t k = 0; k < facts.hits.n; k++) {
        const pm_hits_split *hits = &facts.hits.data[k];
        PM_TRY(hits->op->n_results == hits->seed->experts ? name_pieces(ctx, hits)
                                                          : report_trace(ctx, hits));
    }
    for (const pm_op *op = g->first; op; op = op->next)
        if (op->code == PM_OP_split)
            PM_TRY(report_cut_list(ctx, op));
    return PM_OK;
}

pm_status pm_pass_raise_traces(pm_pass_ctx *ctx)
{
    pm_arena *scratch = pm_arena_child(ctx->module->arena);
    pm_status status = PM_OK;
    for (size_t i = 0; i < ctx->module->entries.n && status == PM_OK; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], scratch, &graphs);
        for (size_t k = 0; k < graphs.n && status == PM_OK; k++)
            status = raise_traces(ctx, graphs.data[k], scratch);
    }
    pm_arena_destroy(scratch);
    return status;
}
