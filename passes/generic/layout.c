#include "ir/op_table.h"
#include "passes/passes.h"

/// Columns of a panel: as many as registers hold, fewer for narrow matrices.
static int64_t panel_for(const pm_pass_ctx *ctx, int64_t n)
{
    int64_t lanes = ctx->options->vector_floats;
    return n > 2 * lanes ? 4 * lanes : n > lanes ? 2 * lanes : lanes;
}

static bool is_weight(const pm_value *v)
{
    return v->def && (v->def->code == PM_OP_const || v->def->code == PM_OP_stack);
}

/// Name of the experts that share `offsets`: that of their first weight, so that all entries agree.
static const char *group_of(pm_pass_ctx *ctx, const pm_value *offsets, const pm_value *w)
{
    for (const pm_use *use = offsets->uses; use; use = use->next)
        if (use->op->code == PM_OP_grouped_linear && pm_value_is(use->op->operands[1], PM_OP_pack)) {
            const pm_attr *group = pm_op_attr(use->op->operands[1]->def, "group");
            if (group->s)
                return group->s;
        }
    const pm_value *first = pm_value_is(w, PM_OP_stack) ? w->def->operands[0] : w;
    const pm_data *data = pm_value_const(first);
    if (first->name)
        return first->name;
    return pm_arena_printf(ctx->module->arena, "experts@%llx",
                           (unsigned long long)(data ? data->offset : first->id));
}

static pm_status pack_weight(pm_pass_ctx *ctx, pm_op *op)
{
    pm_module *m = ctx->module;
    pm_value *w = op->operands[1], *packed;
    if (w->type->layout)
        return PM_OK;
    bool trans = false;
    if (pm_value_is(w, PM_OP_transpose) && is_weight(w->def->operands[0])) {
        w = w->def->operands[0];
        trans = true;
    }
    if (!is_weight(w))
        return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "the weight of %s must be a constant", pm_op_info_of(op)->name);
    int64_t n = 0;
    int32_t rank = w->type->rank;
    if (!pm_dim_is_const(m, w->type->dims[trans ? rank - 1 : rank - 2], &n))
        return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED, "weights need constant dims");
    // bf16 is widened exactly while it is multiplied; everything else is kept as f32.
    bool bf16 = w->type->elem == PM_BF16 || pm_op_i64(op, "compute") == PM_BF16;
    pm_attr attrs[6] = {pm_attr_i64("panel", panel_for(ctx, n)), pm_attr_i64("pair", bf16 ? 2 : 1),
                        pm_attr_elem("elem", bf16 ? PM_BF16 : PM_F32), pm_attr_bool("trans", trans)};
    size_t n_attrs = 4;
    if (op->code == PM_OP_grouped_linear) // experts of one layer: those of one routing
        attrs[n_attrs++] = pm_attr_str("group", group_of(ctx, op->operands[2], w));
    pm_builder b = {op->graph, op, pm_loc_derive(m, op->loc, "layout")};
    PM_TRY(pm_build1(&b, &packed, PM_OP_pack, PM_OPERANDS(w), attrs, n_attrs));
    pm_op_set_operand(op, 1, packed);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "weights packed");
    return PM_OK;
}

pm_status pm_pass_layout(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        for (pm_op *op = ctx->module->entries.data[i]->first; op; op = op->next)
            if (op->code == PM_OP_linear || op->code == PM_OP_grouped_linear)
                PM_TRY(pack_weight(ctx, op));
    return PM_OK;
}
