#include <string.h>

#include "ir/op_table.h"
#include "passes/passes.h"

/// Products in bf16: activations are rounded by an explicit cast, which fusion joins to their producer.
static pm_status to_bf16(pm_pass_ctx *ctx, pm_op *op)
{
    if (pm_op_i64(op, "compute") == PM_BF16 || op->operands[0]->type->elem != PM_F32)
        return PM_OK;
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "quantize")};
    pm_value *x = op->operands[0], *rounded = NULL;
    for (pm_use *use = x->uses; use; use = use->next) // one cast for all products of a value
        if (use->op->code == PM_OP_cast && use->op->graph == op->graph &&
            pm_op_i64(use->op, "to") == PM_BF16)
            rounded = use->op->results[0];
    if (!rounded)
        PM_TRY(pm_build1(&b, &rounded, PM_OP_cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", PM_BF16))));
    pm_op_set_operand(op, 0, rounded);
    pm_op_set_i64(op, "compute", PM_BF16);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "products in bf16");
    return PM_OK;
}

static pm_status visit(pm_pass_ctx *ctx, pm_op *op)
{
    switch (op->code) {
    case PM_OP_linear:
    case PM_OP_grouped_linear: // a weight that has fewer bits already stays
        return pm_value_is(op->operands[1], PM_OP_dequantize) ? PM_OK : to_bf16(ctx, op);
    case PM_OP_attention:
    case PM_OP_sdpa: // where there are units for it: devices
        pm_op_set_i64(op, "compute", PM_BF16);
        return PM_OK;
    default: return PM_OK;
    }
}

pm_status pm_pass_quantize(pm_pass_ctx *ctx)
{
    const char *how = ctx->options->quantize;
    if (!how || strcmp(how, "none") == 0)
        return PM_OK;
    if (strcmp(how, "bf16") != 0)
        return pm_error(ctx->diag, NULL, PM_ERR_UNSUPPORTED,
                        "--quantize=%s is not there yet; there are: none, bf16", how);
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        for (pm_op *op = ctx->module->entries.data[i]->first; op;
             op = pm_op_next_nested(ctx->module->entries.data[i], op))
            PM_TRY(visit(ctx, op));
    return PM_OK;
}
