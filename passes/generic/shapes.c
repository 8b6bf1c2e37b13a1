#include <string.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

/// Operand that says the result's dims, or -1.
static int shape_operand(const pm_op *op)
{
    switch (op->code) {
    case PM_OP_reshape:
    case PM_OP_expand: return 1;
    case PM_OP_fill:
    case PM_OP_empty: return 0;
    default: return -1;
    }
}

/// The shape is what it says, also where one of the extents turns out to be 0.
static void take_zero(pm_pass_ctx *ctx, pm_op *op)
{
    if (op->code != PM_OP_reshape || pm_op_i64(op, "allowzero"))
        return;
    pm_op_set_i64(op, "allowzero", 1);
    pm_pass_changed(ctx);
}

/// The shape of a value as `dims` ops before `op`: known as expressions, read by nobody.
static pm_status use_dims(pm_pass_ctx *ctx, pm_op *op, uint32_t operand)
{
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "shapes")};
    const pm_type *type = op->results[0]->type;
    pm_value *dims;
    PM_TRY(pm_build_dims(&b, type->rank, type->dims, &dims));
    pm_op_set_operand(op, operand, dims);
    take_zero(ctx, op);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "shapes known");
    return PM_OK;
}

/// A shape that says the extents already: as a constant, or as `dims`.
static bool says_extents(const pm_op *op, pm_value *shape)
{
    const pm_type *type = op->results[0]->type;
    int64_t extent, n;
    if (!(pm_value_is(shape, PM_OP_const) || pm_value_is(shape, PM_OP_dims)) || !shape->content ||
        !pm_type_const_count(op->graph->module, shape->type, &n) || n != type->rank)
        return false;
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_dim_same(shape->content[i], type->dims[i]) ||
            (pm_dim_is_const(op->graph->module, type->dims[i], &extent) && extent < 0))
            return false;
    return true;
}

static pm_status visit(pm_pass_ctx *ctx, pm_op *op)
{
    int at = shape_operand(op);
    if (at >= 0) {
        pm_value *shape = op->operands[at];
        if (says_extents(op, shape))
            take_zero(ctx, op);
        else if (!pm_op_finds_extents(op))
            return use_dims(ctx, op, (uint32_t)at);
        return PM_OK;
    }
    if (op->n_results != 1 || !op->results[0]->content || op->code == PM_OP_const ||
        op->code == PM_OP_dims || op->results[0]->type->rank != 1 ||
        op->results[0]->type->elem != PM_I64)
        return PM_OK;
    pm_value *old = op->results[0];
    int64_t n;
    if (!pm_dim_is_const(ctx->module, old->type->dims[0], &n) || pm_value_use_count(old) == 0)
        return PM_OK;
    for (int64_t i = 0; i < n; i++) // not what is only known during the run
        if (pm_dim_is_dynamic(ctx->module, old->content[i]))
            return PM_OK;
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "shapes")};
    pm_value *dims;
    PM_TRY(pm_build_dims(&b, (int32_t)n, old->content, &dims));
    pm_value_replace(old, dims);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "shape arithmetic known");
    return PM_OK;
}

pm_status pm_pass_shapes(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], ctx->module->arena, &graphs);
        for (size_t k = 0; k < graphs.n; k++)
            for (pm_op *op = graphs.data[k]->first, *next; op; op = next) {
                next = op->next;
                PM_TRY(visit(ctx, op));
            }
    }
    return PM_OK;
}
