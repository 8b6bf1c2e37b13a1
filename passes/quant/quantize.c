#include <string.h>

#include "base/containers.h"
#include "ir/op_table.h"
#include "passes/passes.h"

typedef struct quantizer {
    pm_pass_ctx *ctx;
    pm_map rounded; ///< a value, of a graph and for a device -> the value in bf16
} quantizer;

typedef struct rounded_key {
    const pm_value *value;
    const pm_graph *graph;
    const char *device;
} rounded_key;

/// One cast for all products of a value: it stands before the first of them.
static pm_status rounded_once(quantizer *q, pm_op *op, pm_value **out)
{
    pm_value *x = op->operands[0];
    rounded_key key = {x, op->graph, op->device};
    void **slot = pm_map_at(&q->rounded, &key, sizeof key);
    if (!*slot) {
        pm_value *cast;
        pm_builder b = {op->graph, op, pm_loc_derive(q->ctx->module, op->loc, "quantize")};
        q->ctx->module->device = op->device;
        pm_status status = pm_build1(&b, &cast, PM_OP_cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", PM_BF16)));
        q->ctx->module->device = NULL;
        PM_TRY(status);
        *slot = cast;
    }
    *out = *slot;
    return PM_OK;
}

/// Products in bf16: activations are rounded by an explicit cast, which fusion joins to their producer.
static pm_status to_bf16(quantizer *q, pm_op *op)
{
    pm_value *rounded;
    if (pm_op_i64(op, "compute") == PM_BF16 || op->operands[0]->type->elem != PM_F32)
        return PM_OK;
    PM_TRY(rounded_once(q, op, &rounded));
    pm_op_set_operand(op, 0, rounded);
    pm_op_set_i64(op, "compute", PM_BF16);
    pm_pass_changed(q->ctx);
    pm_pass_count(q->ctx, "products in bf16");
    return PM_OK;
}

static pm_status visit(quantizer *q, pm_op *op)
{
    switch (op->code) {
    case PM_OP_linear:
    case PM_OP_grouped_linear: // the host multiplies codes in f32: they have fewer bits already
        return pm_value_is(op->operands[1], PM_OP_dequantize) && !op->device ? PM_OK : to_bf16(q, op);
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
    quantizer q = {.ctx = ctx};
    pm_map_init(&q.rounded, ctx->module->arena);
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        for (pm_op *op = ctx->module->entries.data[i]->first; op;
             op = pm_op_next_nested(ctx->module->entries.data[i], op))
            PM_TRY(visit(&q, op));
    return PM_OK;
}
