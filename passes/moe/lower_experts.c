/// `experts` into what runs: rows sorted by expert, the experts' bodies over them, and their sum.
#include <string.h>

#include "ir/op_table.h"
#include "passes/passes.h"

typedef struct renamed {
    uint32_t symbol;
    pm_dim outside;
} renamed;

typedef struct lowering {
    pm_pass_ctx *ctx;
    pm_builder b;
    pm_op *op;
    pm_value *token, *offsets, *slot;
    pm_map values;  ///< region value id -> value outside
    pm_map slices;  ///< region argument id -> stacked value of all experts
    PM_VEC(renamed) extents; ///< symbols of the region, and what they are outside
} lowering;

static pm_value *mapped(const lowering *l, const pm_value *v)
{
    return pm_map_get(&l->values, &v->id, sizeof v->id);
}

static void map_value(lowering *l, const pm_value *from, pm_value *to)
{
    pm_map_put(&l->values, &from->id, sizeof from->id, to);
}

static pm_value *stacked(const lowering *l, const pm_value *v)
{
    return v ? pm_map_get(&l->slices, &v->id, sizeof v->id) : NULL;
}

/// An extent of the region, outside.
static pm_dim outside(const lowering *l, pm_dim dim)
{
    for (size_t i = 0; i < l->extents.n; i++)
        dim = pm_dim_replace(l->ctx->module, dim, l->extents.data[i].symbol,
                             l->extents.data[i].outside);
    return dim;
}

/// Notes which extents of `to` stand for data-dependent ones of `from`.
static void map_extents(lowering *l, const pm_type *from, const pm_type *to)
{
    uint32_t symbol;
    for (int32_t i = 0; i < from->rank && i < to->rank; i++)
        if (pm_dim_is_symbol(l->ctx->module, from->dims[i], &symbol) &&
            outside(l, from->dims[i]) != to->dims[i])
            PM_PUSH(l->ctx->module->arena, &l->extents,
                    ((renamed){symbol, to->dims[i]}));
}

/// Ops whose meaning is not in operands and attributes alone.
static pm_status copy_special(lowering *l, pm_op *op, pm_value **out)
{
    const pm_value *old = op->results[0];
    if (op->code == PM_OP_const)
        return pm_build_const(&l->b, old->type, pm_value_const(old), old->name, out);
    int64_t n = 0;
    (void)pm_dim_is_const(l->ctx->module, old->type->dims[0], &n);
    pm_dim *content = PM_NEW_ARRAY(l->ctx->module->arena, pm_dim, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        content[i] = outside(l, old->content[i]);
    return pm_build_dims(&l->b, (int32_t)n, content, out);
}

/// One op of a body, over the rows of all experts at once (template) or of one.
static pm_status copy_op(lowering *l, pm_op *op)
{
    pm_value **operands = PM_NEW_ARRAY(l->ctx->module->arena, pm_value *, op->n_operands + 1);
    l->b.loc = pm_loc_derive(l->ctx->module, op->loc, "lower-experts");
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!op->operands[i])
            continue;
        if (stacked(l, op->operands[i]))
            return pm_error(l->ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                            "%s of an expert's own tensor is not supported in a template body",
                            pm_op_info_of(op)->name);
        operands[i] = mapped(l, op->operands[i]);
        PM_ASSERT(operands[i]);
    }
    if (op->n_regions)
        return pm_error(l->ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "%s within an expert is not supported yet", pm_op_info_of(op)->name);
    if (op->code == PM_OP_const || op->code == PM_OP_dims) {
        pm_value *value;
        PM_TRY(copy_special(l, op, &value));
        map_value(l, op->results[0], value);
        return PM_OK;
    }
    pm_op *copy;
    PM_TRY(pm_build(&l->b, op->code, operands, op->n_operands, op->attrs, op->n_attrs, op->n_results,
                    &copy));
    for (uint32_t i = 0; i < op->n_results; i++) {
        map_value(l, op->results[i], copy->results[i]);
        map_extents(l, op->results[i]->type, copy->results[i]->type);
    }
    return PM_OK;
}

static pm_status copy_grouped(lowering *l, pm_op *op)
{
    pm_value *x = mapped(l, op->operands[0]), *y;
    if (!x || (op->n_operands > 2 && op->operands[2] && !stacked(l, op->operands[2])))
        return copy_op(l, op);
    l->b.loc = pm_loc_derive(l->ctx->module, op->loc, "lower-experts");
    pm_value *operands[] = {x, stacked(l, op->operands[1]), l->offsets,
                            op->n_operands > 2 ? stacked(l, op->operands[2]) : NULL};
    PM_TRY(pm_build1(&l->b, &y, PM_OP_grouped_linear, operands, operands[3] ? 4 : 3,
                     PM_ATTRS(pm_attr_elem("compute", (pm_elem)pm_op_i64(op, "compute")))));
    map_value(l, op->results[0], y);
    return PM_OK;
}

static pm_status copy_body(lowering *l, pm_graph *body, pm_value **out)
{
    for (pm_op *op = body->first; op; op = op->next) {
        bool grouped = op->code == PM_OP_linear && stacked(l, op->operands[1]);
        PM_TRY(grouped ? copy_grouped(l, op) : copy_op(l, op));
    }
    *out = mapped(l, body->results.data[0]);
    PM_ASSERT(*out);
    return PM_OK;
}

static pm_status lower_template(lowering *l, pm_value **out_rows)
{
    pm_graph *body = l->op->regions[0];
    pm_value *rows;
    PM_TRY(pm_build1(&l->b, &rows, PM_OP_gather_rows, PM_OPERANDS(l->op->operands[0], l->token), PM_NO_ATTRS));
    map_value(l, body->args.data[0], rows);
    map_extents(l, body->args.data[0]->type, rows->type);
    for (size_t i = 1; i < body->args.n; i++)
        pm_map_put(&l->slices, &body->args.data[i]->id, sizeof(uint32_t), l->op->operands[2 + i]);
    return copy_body(l, body, out_rows);
}

static pm_status lower_unlike(lowering *l, pm_value **out_rows)
{
    uint32_t n = l->op->n_regions;
    pm_value **results = PM_NEW_ARRAY(l->ctx->module->arena, pm_value *, n);
    for (uint32_t e = 0; e < n; e++) {
        pm_graph *body = l->op->regions[e];
        pm_value *rows;
        PM_TRY(pm_build1(&l->b, &rows, PM_OP_expert_rows,
                         PM_OPERANDS(l->op->operands[0], l->token, l->offsets),
                         PM_ATTRS(pm_attr_i64("expert", e))));
        map_value(l, body->args.data[0], rows);
    map_extents(l, body->args.data[0]->type, rows->type);
        for (size_t i = 1; i < body->args.n; i++)
            map_value(l, body->args.data[i], l->op->operands[2 + i]);
        PM_TRY(copy_body(l, body, &results[e]));
    }
    return pm_build1(&l->b, out_rows, PM_OP_concat, results, n, PM_ATTRS(pm_attr_i64("axis", 0)));
}

static pm_status lower(pm_pass_ctx *ctx, pm_op *op)
{
    pm_module *m = ctx->module;
    lowering l = {.ctx = ctx, .op = op,
                  .b = {op->graph, op, pm_loc_derive(m, op->loc, "lower-experts")}};
    pm_map_init(&l.values, m->arena);
    pm_map_init(&l.slices, m->arena);
    if (strcmp(pm_op_str(op, "apply"), "output") != 0)
        return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "experts whose input is scaled are not supported yet");
    pm_op *order;
    PM_TRY(pm_build(&l.b, PM_OP_expert_order, PM_OPERANDS(op->operands[1]),
                    PM_ATTRS(pm_attr_i64("experts", pm_op_i64(op, "experts"))), 0, &order));
    l.token = order->results[0];
    l.offsets = order->results[1];
    l.slot = order->results[2];
    pm_value *rows, *sum;
    PM_TRY(op->n_regions == 1 ? lower_template(&l, &rows) : lower_unlike(&l, &rows));
    l.b.loc = pm_loc_derive(m, op->loc, "lower-experts");
    PM_TRY(pm_build1(&l.b, &sum, PM_OP_combine, PM_OPERANDS(rows, l.slot, op->operands[2]), PM_NO_ATTRS));
    pm_value_replace(op->results[0], sum);
    pm_op_erase(op);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "layers of experts");
    return PM_OK;
}

pm_status pm_pass_lower_experts(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        for (pm_op *op = ctx->module->entries.data[i]->first, *next; op; op = next) {
            next = op->next;
            if (op->code == PM_OP_experts)
                PM_TRY(lower(ctx, op));
        }
    return PM_OK;
}
