#include "ir/op_table.h"
#include "passes/passes.h"

/// Ops before their users: one walk from the end removes whole chains.
static void sweep(pm_pass_ctx *ctx, pm_graph *g)
{
    for (pm_op *op = g->last, *prev; op; op = prev) {
        prev = op->prev;
        bool used = pm_op_info_of(op)->traits & PM_T_IMPURE && op->n_results == 0;
        for (uint32_t i = 0; i < op->n_results && !used; i++)
            used = pm_value_use_count(op->results[i]) > 0;
        if (used)
            continue;
        pm_op_erase(op);
        pm_pass_changed(ctx);
        pm_pass_count(ctx, "removed");
    }
}

pm_status pm_pass_dce(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        sweep(ctx, ctx->module->entries.data[i]);
    return PM_OK;
}
