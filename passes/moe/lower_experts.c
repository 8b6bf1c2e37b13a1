/// `experts` into what runs: rows sorted by expert, the experts' bodies over them, and their sum.
#include <string.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef struct renamed {
    uint32_t symbol;
    pm_dim outside;
} renamed;

typedef struct lowering {
    pm_pass_ctx *ctx;
    uint32_t layer;    ///< number of the experts op in its entry
    const char *owner; ///< of the constants that are copied, or NULL
    pm_builder b;
    pm_op *op;
    const uint32_t *subset; ///< numbers of the experts that run here; NULL: all
    uint32_t n_experts;     ///< that run here
    bool is_shared;         ///< the body runs over the rows of all of them: a template, or one unlike expert on a device
    pm_value *ids;          ///< i32[M, k]: the chosen experts' numbers here; n_experts: runs elsewhere
    pm_value **captured;    ///< their tensors
    pm_value *token, *offsets, *slot;
    pm_value *scaled; ///< sorted rows times their weights, when those apply to the input
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

/// An axis that isn't that of the rows.
static bool is_inner_axis(int64_t axis, int32_t rank)
{
    return (axis < 0 ? axis + rank : axis) > 0;
}

/// A slice along constant axes that aren't the rows'.
static bool cuts_within_rows(const pm_op *op)
{
    int64_t axes[PM_MAX_RANK];
    size_t n;
    if (op->n_operands < 4 || !op->operands[3] ||
        !pm_value_const_ints(op->operands[3], axes, PM_MAX_RANK, &n))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_inner_axis(axes[i], op->operands[0]->type->rank))
            return false;
    return true;
}

static bool is_row_wise_along(const pm_op *op)
{
    const pm_type *x = op->operands[0]->type;
    switch (op->code) {
    case PM_OP_softmax:
    case PM_OP_cumsum:
    case PM_OP_argmax:
    case PM_OP_argmin:
    case PM_OP_topk:
    case PM_OP_concat:
    case PM_OP_split:
    case PM_OP_gather:
    case PM_OP_gather_elements: return is_inner_axis(pm_op_i64(op, "axis"), x->rank);
    case PM_OP_rms_norm:
    case PM_OP_layer_norm: return x->rank > 1;
    case PM_OP_transpose: return pm_op_attr(op, "perm")->ints[0] == 0;
    case PM_OP_slice: return cuts_within_rows(op);
    case PM_OP_linear:
    case PM_OP_matmul:
    case PM_OP_reshape: // the leading extent stays
    case PM_OP_expand: return true;
    default: return pm_op_info_of(op)->traits & (PM_T_ELEMENTWISE | PM_T_REDUCE);
    }
}

/// Whether the values of `types` have the rows in front and nowhere else. `*out_found`: some have.
static bool rows_in_front(const pm_module *m, pm_value *const *values, uint32_t n, pm_dim rows,
                          uint32_t symbol, bool *out_found)
{
    *out_found = false;
    for (uint32_t i = 0; i < n; i++)
        for (int32_t k = 0; values[i] && k < values[i]->type->rank; k++) {
            pm_dim dim = values[i]->type->dims[k];
            if (!pm_dim_mentions(m, dim, symbol))
                continue;
            if (k > 0 || !pm_dim_same(dim, rows))
                return false;
            *out_found = true;
        }
    return true;
}

/// A template's body runs over the rows of all experts at once: each row of its results may depend
/// on that row alone.
static bool is_row_wise(const pm_module *m, const pm_op *op)
{
    pm_dim rows = op->graph->args.data[0]->type->dims[0];
    uint32_t symbol;
    bool takes, gives;
    if (!pm_dim_is_symbol(m, rows, &symbol) ||
        !rows_in_front(m, op->operands, op->n_operands, rows, symbol, &takes) ||
        !rows_in_front(m, op->results, op->n_results, rows, symbol, &gives))
        return false;
    if (!takes) // new values: extents, or the same for all rows
        return !gives || op->code == PM_OP_fill || op->code == PM_OP_expand;
    return gives && is_row_wise_along(op);
}

/// Ops whose meaning is not in operands and attributes alone.
static pm_status copy_special(lowering *l, pm_op *op, pm_value **out)
{
    const pm_value *old = op->results[0];
    if (op->code == PM_OP_const) {
        PM_TRY(pm_build_const(&l->b, old->type, pm_value_const(old), old->name, out));
        if (l->owner)
            pm_op_set_str((*out)->def, "owner", l->owner);
        return PM_OK;
    }
    int64_t n = 0;
    (void)pm_dim_is_const(l->ctx->module, old->type->dims[0], &n);
    pm_dim *content = PM_NEW_ARRAY(l->ctx->module->arena, pm_dim, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        content[i] = outside(l, old->content[i]);
    return pm_build_dims(&l->b, (int32_t)n, content, out);
}

/// Whether the op means the same of all experts' tensors, along their first axis, as of one expert's.
static bool is_alike_stacked(const pm_op *op)
{
    return op->code == PM_OP_dequantize || (op->code == PM_OP_cast && op->n_operands == 1);
}

/// An op of experts' own tensors alone is one of the stacked tensors.
static pm_status copy_of_slices(lowering *l, pm_op *op, bool *out_done)
{
    pm_value *operands[4] = {NULL}, *y;
    if (!is_alike_stacked(op) || op->n_operands > PM_COUNT(operands))
        return PM_OK;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (op->operands[i] && !stacked(l, op->operands[i]))
            return PM_OK;
        operands[i] = stacked(l, op->operands[i]);
    }
    PM_TRY(pm_build1(&l->b, &y, op->code, operands, op->n_operands, op->attrs, op->n_attrs));
    pm_map_put(&l->slices, &op->results[0]->id, sizeof op->results[0]->id, y);
    *out_done = true;
    return PM_OK;
}

/// A view of an expert's own tensor is the view of all experts' tensors.
static pm_status copy_stacked_view(lowering *l, pm_op *op)
{
    pm_value *x = stacked(l, op->operands[0]), *y;
    const pm_type *type = op->results[0]->type;
    if (op->code == PM_OP_transpose) {
        const pm_attr *perm = pm_op_attr(op, "perm");
        int64_t shifted[PM_MAX_RANK + 1] = {0};
        for (size_t i = 0; i < perm->n; i++)
            shifted[i + 1] = perm->ints[i] + 1;
        PM_TRY(pm_build1(&l->b, &y, PM_OP_transpose, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_ints("perm", shifted, perm->n + 1))));
    } else if (op->code == PM_OP_reshape) {
        pm_dim dims[PM_MAX_RANK + 1] = {x->type->dims[0]};
        memcpy(dims + 1, type->dims, (size_t)type->rank * sizeof *dims);
        PM_TRY(pm_build_reshape_dims(&l->b, x, type->rank + 1, dims, &y));
    } else {
        PM_TRY(pm_build1(&l->b, &y, op->code, PM_OPERANDS(x), op->attrs, op->n_attrs));
    }
    pm_map_put(&l->slices, &op->results[0]->id, sizeof(uint32_t), y);
    return PM_OK;
}

static pm_status sorted(lowering *l, pm_value *values, pm_value **out);

/// An expert's own tensor beside rows: each row's is that of its expert, [rows, ...].
static pm_status own_rows(lowering *l, pm_value *x, int32_t rank, pm_value **out)
{
    pm_module *m = l->ctx->module;
    pm_dim flat[2] = {x->type->dims[0], pm_dim_const(m, 1)}, dims[PM_MAX_RANK + 1];
    pm_value *ids;
    for (int32_t i = 1; i < x->type->rank; i++)
        flat[1] = pm_dim_mul(m, flat[1], x->type->dims[i]);
    int32_t gap = rank - x->type->rank; // extents of 1 between the rows and the tensor's own
    for (int32_t i = 1; i < rank; i++)
        dims[i] = i <= gap ? pm_dim_const(m, 1) : x->type->dims[i - gap];
    ids = l->ids;
    if (l->subset) { // rows that aren't ours take any
        int64_t last = (int64_t)l->n_experts - 1;
        pm_value *limit;
        PM_TRY(pm_build_const_ints(&l->b, PM_I32, 0, NULL, &last, &limit));
        PM_TRY(pm_build1(&l->b, &ids, PM_OP_min, PM_OPERANDS(ids, limit), PM_NO_ATTRS));
    }
    PM_TRY(sorted(l, ids, &ids));
    dims[0] = ids->type->dims[0];
    PM_TRY(pm_build_reshape_dims(&l->b, x, 2, flat, &x));
    PM_TRY(pm_build1(&l->b, &x, PM_OP_gather_rows, PM_OPERANDS(x, ids), PM_NO_ATTRS));
    return pm_build_reshape_dims(&l->b, x, rank, dims, out);
}

static bool is_view_of_stacked(const lowering *l, const pm_op *op)
{
    return (op->code == PM_OP_transpose || op->code == PM_OP_reshape || op->code == PM_OP_cast) &&
           stacked(l, op->operands[0]);
}

/// One op of a body, over the rows of all experts at once (template) or of one.
static pm_status copy_op(lowering *l, pm_op *op)
{
    pm_value **operands = PM_NEW_ARRAY(l->ctx->module->arena, pm_value *, op->n_operands + 1);
    l->b.loc = pm_loc_derive(l->ctx->module, op->loc, "lower-experts");
    bool of_slices = false;
    PM_TRY(copy_of_slices(l, op, &of_slices));
    if (of_slices)
        return PM_OK;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!op->operands[i])
            continue;
        if (stacked(l, op->operands[i]) && (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE)) {
            PM_TRY(own_rows(l, stacked(l, op->operands[i]), op->results[0]->type->rank, &operands[i]));
            continue;
        }
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
    pm_value *bias = op->n_operands > 2 ? op->operands[2] : NULL;
    if (!x)
        return copy_op(l, op);
    l->b.loc = pm_loc_derive(l->ctx->module, op->loc, "lower-experts");
    pm_value *operands[] = {x, stacked(l, op->operands[1]), l->offsets,
                            bias ? stacked(l, bias) : NULL};
    PM_TRY(pm_build1(&l->b, &y, PM_OP_grouped_linear, operands, operands[3] ? 4 : 3,
                     PM_ATTRS(pm_attr_elem("compute", (pm_elem)pm_op_i64(op, "compute")))));
    if (bias && !operands[3]) // all experts' own
        PM_TRY(pm_build1(&l->b, &y, PM_OP_add, PM_OPERANDS(y, mapped(l, bias)), PM_NO_ATTRS));
    map_value(l, op->results[0], y);
    return PM_OK;
}

/// One expert's tensor as that of all experts that there are: one. Of weights what makes them, so that they stay weights.
static pm_status as_stack_of_one(lowering *l, pm_value *v, pm_value **out)
{
    pm_module *m = l->ctx->module;
    pm_dim dims[PM_MAX_RANK + 1] = {pm_dim_const(m, 1)};
    if (pm_value_is(v, PM_OP_cast) || pm_value_is(v, PM_OP_dequantize)) {
        pm_value *operands[4] = {NULL};
        for (uint32_t i = 0; i < v->def->n_operands && i < PM_COUNT(operands); i++)
            if (v->def->operands[i])
                PM_TRY(as_stack_of_one(l, v->def->operands[i], &operands[i])); // depth: of an expression of weights
        return pm_build1(&l->b, out, v->def->code, operands, v->def->n_operands, v->def->attrs, v->def->n_attrs);
    }
    if (pm_value_const(v))
        return pm_build1(&l->b, out, PM_OP_stack, PM_OPERANDS(v), PM_NO_ATTRS);
    memcpy(dims + 1, v->type->dims, (size_t)v->type->rank * sizeof *dims);
    return pm_build_reshape_dims(&l->b, v, v->type->rank + 1, dims, out);
}

/// An unlike expert's product becomes a grouped one, so that rows of other experts cost nothing.
static pm_status stack_weights_of(lowering *l, pm_op *op)
{
    for (uint32_t i = 1; i < op->n_operands; i++) {
        pm_value *v = op->operands[i] ? mapped(l, op->operands[i]) : NULL, *one;
        if (!v || stacked(l, op->operands[i]))
            continue;
        PM_TRY(as_stack_of_one(l, v, &one));
        pm_map_put(&l->slices, &op->operands[i]->id, sizeof op->operands[i]->id, one);
    }
    return PM_OK;
}

static pm_status copy_body(lowering *l, pm_graph *body, pm_value **out)
{
    for (pm_op *op = body->first; op; op = op->next) {
        if (l->is_shared && is_view_of_stacked(l, op)) {
            l->b.loc = pm_loc_derive(l->ctx->module, op->loc, "lower-experts");
            PM_TRY(copy_stacked_view(l, op));
            continue;
        }
        if (l->is_shared && !is_row_wise(l->ctx->module, op))
            return pm_error(l->ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                            "%s mixes the rows of an expert, which is not supported in a body that "
                            "all experts share", pm_op_info_of(op)->name);
        if (op->code == PM_OP_linear && l->is_shared && l->op->n_regions > 1)
            PM_TRY(stack_weights_of(l, op));
        bool grouped = op->code == PM_OP_linear && stacked(l, op->operands[1]);
        PM_TRY(grouped ? copy_grouped(l, op) : copy_op(l, op));
    }
    *out = mapped(l, body->results.data[0]);
    PM_ASSERT(*out);
    return PM_OK;
}

/// Values of the choices [M, k] in the order of the sorted rows [M * k].
static pm_status sorted(lowering *l, pm_value *values, pm_value **out)
{
    pm_module *m = l->ctx->module;
    const pm_type *type = values->type;
    pm_dim n = pm_dim_mul(m, type->dims[0], type->dims[1]);
    static const uint8_t nothing[8];
    const pm_data zero_data = {.size = pm_elem_size(type->elem), .bytes = nothing};
    pm_value *shape, *zero, *zeros, *flat, *slot;
    PM_TRY(pm_build_dims(&l->b, 1, &n, &shape));
    PM_TRY(pm_build_const(&l->b, pm_type_get(m, type->elem, 0, NULL), &zero_data, NULL, &zero));
    PM_TRY(pm_build1(&l->b, &zeros, PM_OP_fill, PM_OPERANDS(shape, zero), PM_NO_ATTRS));
    PM_TRY(pm_build_reshape_dims(&l->b, values, 1, &n, &flat));
    PM_TRY(pm_build_reshape_dims(&l->b, l->slot, 1, &n, &slot));
    return pm_build1(&l->b, out, PM_OP_scatter_elements, PM_OPERANDS(zeros, slot, flat),
                     PM_NO_ATTRS);
}

/// The weights apply to the input: rows are scaled once they are sorted, and each row is one of its
/// own from there on.
static pm_status scale_rows(lowering *l)
{
    pm_module *m = l->ctx->module;
    pm_value *x = l->op->operands[0], *rows, *weight, *own;
    PM_TRY(pm_build1(&l->b, &rows, PM_OP_gather_rows, PM_OPERANDS(x, l->token), PM_NO_ATTRS));
    PM_TRY(sorted(l, l->op->operands[2], &weight));
    PM_TRY(sorted(l, l->slot, &own));
    pm_dim column[] = {weight->type->dims[0], pm_dim_const(m, 1)};
    PM_TRY(pm_build_reshape_dims(&l->b, weight, 2, column, &weight));
    if (x->type->elem != PM_F32)
        PM_TRY(pm_build1(&l->b, &weight, PM_OP_cast, PM_OPERANDS(weight),
                         PM_ATTRS(pm_attr_elem("to", x->type->elem))));
    PM_TRY(pm_build1(&l->b, &l->scaled, PM_OP_mul, PM_OPERANDS(rows, weight), PM_NO_ATTRS));
    l->token = own;
    return PM_OK;
}

/// The results are added up as they are.
static pm_status ones_like(lowering *l, const pm_value *weight, pm_value **out)
{
    static const float one = 1;
    pm_value *shape, *value;
    PM_TRY(pm_build_dims(&l->b, 2, weight->type->dims, &shape));
    PM_TRY(pm_build_const_f32(&l->b, 0, NULL, &one, &value));
    return pm_build1(&l->b, out, PM_OP_fill, PM_OPERANDS(shape, value), PM_NO_ATTRS);
}

/// layer:number:name of an unlike expert; what it alone uses becomes one section of the artifact.
static const char *owner_name(const lowering *l, uint32_t expert)
{
    const pm_attr *names = pm_op_attr(l->op, "names");
    const char *at = names->s ? names->s : "";
    for (uint32_t i = 0; i < expert && at; i++)
        at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL;
    int n = at ? (int)strcspn(at, ",") : 0;
    return pm_arena_printf(l->ctx->module->arena, "%u:%u:%s/%.*s", l->layer, expert,
                           pm_op_str(l->op, "name"), n ? n : 1, n ? at : "?");
}

/// Beside the rows of our experts those of the others, which get nothing from us.
static pm_status rows_of_others(lowering *l, const pm_value *like, pm_value **out)
{
    static const float nothing = 0;
    pm_value *rows, *shape, *zero;
    PM_TRY(pm_build1(&l->b, &rows, PM_OP_expert_rows, PM_OPERANDS(l->op->operands[0], l->token, l->offsets),
                     PM_ATTRS(pm_attr_i64("expert", l->n_experts))));
    pm_dim dims[] = {rows->type->dims[0], like->type->dims[1]};
    PM_TRY(pm_build_dims(&l->b, 2, dims, &shape));
    PM_TRY(pm_build_const_f32(&l->b, 0, NULL, &nothing, &zero));
    if (like->type->elem != PM_F32)
        PM_TRY(pm_build1(&l->b, &zero, PM_OP_cast, PM_OPERANDS(zero), PM_ATTRS(pm_attr_elem("to", like->type->elem))));
    return pm_build1(&l->b, out, PM_OP_fill, PM_OPERANDS(shape, zero), PM_NO_ATTRS);
}

static pm_status lower_unlike(lowering *l, pm_value **out_rows)
{
    uint32_t n = l->n_experts;
    pm_value **results = PM_NEW_ARRAY(l->ctx->module->arena, pm_value *, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t e = l->subset ? l->subset[i] : i;
        pm_graph *body = l->op->regions[e];
        pm_value *rows;
        PM_TRY(pm_build1(&l->b, &rows, PM_OP_expert_rows,
                         PM_OPERANDS(l->scaled ? l->scaled : l->op->operands[0], l->token,
                                     l->offsets),
                         PM_ATTRS(pm_attr_i64("expert", i))));
        l->extents.n = 0;
        map_value(l, body->args.data[0], rows);
        map_extents(l, body->args.data[0]->type, rows->type);
        for (size_t k = 1; k < body->args.n; k++)
            map_value(l, body->args.data[k], l->op->operands[2 + k]);
        l->owner = owner_name(l, e);
        PM_TRY(copy_body(l, body, &results[i]));
    }
    l->owner = NULL;
    if (l->subset)
        PM_TRY(rows_of_others(l, results[0], &results[n]));
    return pm_build1(&l->b, out_rows, PM_OP_concat, results, n + (l->subset != NULL), PM_ATTRS(pm_attr_i64("axis", 0)));
}

/// ---- experts of several devices ---------------------------------------------------------------------------------

/// Experts that run on one device, in order.
typedef struct expert_group {
    const char *device; ///< NULL: nobody asks
    uint32_t *experts, n;
    bool is_single; ///< one that is unlike the others, beside the host: among the rows of all, of which it takes its own
} expert_group;

typedef PM_VEC(expert_group) expert_groups;

static bool is_row_wise_body(const pm_module *m, const pm_graph *body)
{
    for (const pm_op *op = body->first; op; op = op->next)
        if (op->n_regions > 0 || !is_row_wise(m, op))
            return false;
    return true;
}

/// The device's group; unlike experts have one each beside the host, where the number of rows must be known before.
static expert_group *group_on(pm_pass_ctx *ctx, const pm_op *op, const char *device, bool is_host, expert_groups *groups)
{
    for (size_t g = 0; g < groups->n; g++)
        if (groups->data[g].device == device && !groups->data[g].is_single && (is_host || op->n_regions == 1))
            return &groups->data[g];
    uint32_t n = (uint32_t)pm_op_i64(op, "experts");
    expert_group fresh = {device, PM_NEW_ARRAY(ctx->module->arena, uint32_t, n), 0, !is_host && op->n_regions > 1};
    PM_PUSH(ctx->module->arena, groups, fresh);
    return &groups->data[groups->n - 1];
}

/// The experts of each device that `devices` names; the host's last, so that the others are at work meanwhile.
static expert_groups groups_of(pm_pass_ctx *ctx, const pm_op *op)
{
    pm_module *m = ctx->module;
    expert_groups groups = {0};
    bool one = ctx->options->n_devices < 2;
    const char *host = one ? NULL : pm_intern(m, ctx->options->devices[0].name), *device = host;
    const pm_attr *devices = pm_op_attr(op, "devices");
    const char *at = devices->present && devices->s && !one ? devices->s : "";
    for (uint32_t e = 0; e < (uint32_t)pm_op_i64(op, "experts"); e++) {
        size_t length = strcspn(at, ",");
        if (length > 0)
            device = pm_intern(m, pm_arena_strndup(m->arena, at, length));
        at += length + (at[length] == ',');
        bool must_stay = op->n_regions > 1 && device != host && !is_row_wise_body(m, op->regions[e]);
        if (must_stay)
            pm_pass_count(ctx, "experts that mix rows, on the host");
        const char *there = must_stay ? host : device;
        expert_group *group = group_on(ctx, op, there, there == host, &groups);
        group->experts[group->n++] = e;
    }
    for (size_t g = 0; g + 1 < groups.n; g++)
        if (groups.data[g].device == host) {
            expert_group last = groups.data[g];
            groups.data[g] = groups.data[g + 1];
            groups.data[g + 1] = last;
        }
    return groups;
}

/// The slices of `n` experts of a constant; of one, squeezed.
static pm_status const_slice(lowering *l, pm_value *v, uint32_t first, uint32_t n, bool squeeze, pm_value **out)
{
    pm_module *m = l->ctx->module;
    const pm_data *data = pm_value_const(v);
    pm_dim dims[PM_MAX_RANK];
    uint64_t each = data->size / (uint64_t)pm_op_i64(l->op, "experts");
    memcpy(dims, v->type->dims, (size_t)v->type->rank * sizeof *dims);
    dims[0] = pm_dim_const(m, n);
    const pm_type *type = pm_type_get(m, v->type->elem, v->type->rank - squeeze, dims + squeeze);
    pm_data part = {.size = each * n, .file = data->file, .offset = data->offset + each * first,
                    .bytes = data->bytes ? data->bytes + each * first : NULL};
    return pm_build_const(&l->b, type, &part, v->name, out);
}

/// Of a tensor [E, …] the part of the experts that run here: of weights what makes them, so that they stay weights.
static pm_status part_of(lowering *l, pm_value *v, pm_value **out)
{
    pm_module *m = l->ctx->module;
    uint32_t n = l->n_experts;
    bool in_a_row = l->subset[n - 1] - l->subset[0] == n - 1;
    if (pm_value_const(v) && in_a_row)
        return const_slice(l, v, l->subset[0], n, false, out);
    if (pm_value_const(v) || pm_value_is(v, PM_OP_stack)) {
        pm_value **parts = PM_NEW_ARRAY(m->arena, pm_value *, n);
        for (uint32_t i = 0; i < n; i++) {
            if (pm_value_is(v, PM_OP_stack))
                parts[i] = v->def->operands[l->subset[i]];
            else
                PM_TRY(const_slice(l, v, l->subset[i], 1, true, &parts[i]));
        }
        return pm_build1(&l->b, out, PM_OP_stack, parts, n, PM_NO_ATTRS);
    }
    bool transposed = pm_value_is(v, PM_OP_transpose) && pm_op_attr(v->def, "perm")->ints[0] == 0;
    if (transposed || pm_value_is(v, PM_OP_cast) || pm_value_is(v, PM_OP_dequantize)) { // expert by expert
        pm_value *operands[4] = {NULL};
        for (uint32_t i = 0; i < v->def->n_operands && i < PM_COUNT(operands); i++)
            if (v->def->operands[i])
                PM_TRY(part_of(l, v->def->operands[i], &operands[i])); // depth: of an expression of weights
        return pm_build1(&l->b, out, v->def->code, operands, v->def->n_operands, v->def->attrs, v->def->n_attrs);
    }
    pm_value *which;
    int64_t *numbers = PM_NEW_ARRAY(m->arena, int64_t, n), count = n;
    for (uint32_t i = 0; i < n; i++)
        numbers[i] = l->subset[i];
    PM_TRY(pm_build_const_ints(&l->b, PM_I32, 1, &count, numbers, &which));
    return pm_build1(&l->b, out, PM_OP_gather, PM_OPERANDS(v, which), PM_ATTRS(pm_attr_i64("axis", 0)));
}

/// Numbers of the chosen experts as this device has them; those of others are one more.
static pm_status own_numbers(lowering *l)
{
    int64_t n = pm_op_i64(l->op, "experts");
    int64_t *numbers = PM_NEW_ARRAY(l->ctx->module->arena, int64_t, (size_t)n);
    pm_value *table;
    for (int64_t e = 0; e < n; e++)
        numbers[e] = l->n_experts;
    for (uint32_t i = 0; i < l->n_experts; i++)
        numbers[l->subset[i]] = i;
    PM_TRY(pm_build_const_ints(&l->b, PM_I32, 1, &n, numbers, &table));
    return pm_build1(&l->b, &l->ids, PM_OP_gather, PM_OPERANDS(table, l->ids), PM_ATTRS(pm_attr_i64("axis", 0)));
}

static pm_status range_of(lowering *l, pm_value *x, int64_t first, int64_t last, pm_value **out)
{
    static const int64_t one = 1;
    pm_value *from, *to;
    PM_TRY(pm_build_const_ints(&l->b, PM_I64, 1, &one, &first, &from));
    PM_TRY(pm_build_const_ints(&l->b, PM_I64, 1, &one, &last, &to));
    return pm_build1(&l->b, out, PM_OP_slice, PM_OPERANDS(x, from, to, NULL, NULL), PM_NO_ATTRS);
}

/// Rows behind those of our experts are zero.
static pm_status only_own_rows(lowering *l, pm_value *last, pm_value **inout_rows)
{
    static const int64_t one = 1, zero = 0;
    static const float nothing = 0;
    pm_module *m = l->ctx->module;
    const pm_type *type = (*inout_rows)->type;
    pm_dim column[] = {type->dims[0], pm_dim_const(m, 1)};
    pm_value *n, *from, *step, *numbers, *own, *none;
    PM_TRY(pm_build_dims(&l->b, 1, type->dims, &n));
    PM_TRY(pm_build_const_ints(&l->b, PM_I64, 1, &one, &zero, &from));
    PM_TRY(pm_build_const_ints(&l->b, PM_I64, 1, &one, &one, &step));
    PM_TRY(pm_build1(&l->b, &numbers, PM_OP_range, PM_OPERANDS(from, n, step), PM_NO_ATTRS));
    PM_TRY(pm_build1(&l->b, &last, PM_OP_cast, PM_OPERANDS(last), PM_ATTRS(pm_attr_elem("to", PM_I64))));
    PM_TRY(pm_build1(&l->b, &own, PM_OP_less, PM_OPERANDS(numbers, last), PM_NO_ATTRS));
    PM_TRY(pm_build_reshape_dims(&l->b, own, 2, column, &own));
    PM_TRY(pm_build_const_f32(&l->b, 0, NULL, &nothing, &none));
    if (type->elem != PM_F32)
        PM_TRY(pm_build1(&l->b, &none, PM_OP_cast, PM_OPERANDS(none), PM_ATTRS(pm_attr_elem("to", type->elem))));
    return pm_build1(&l->b, inout_rows, PM_OP_where, PM_OPERANDS(own, *inout_rows, none), PM_NO_ATTRS);
}

/// A template, or one unlike expert, over rows that aren't all ours.
static pm_status lower_shared(lowering *l, pm_value **out_rows)
{
    pm_graph *body = l->op->regions[l->op->n_regions > 1 ? l->subset[0] : 0];
    pm_value *rows = l->scaled;
    if (!rows)
        PM_TRY(pm_build1(&l->b, &rows, PM_OP_gather_rows,
                         PM_OPERANDS(l->op->operands[0], l->token), PM_NO_ATTRS));
    map_value(l, body->args.data[0], rows);
    map_extents(l, body->args.data[0]->type, rows->type);
    for (size_t i = 1; i < body->args.n; i++) {
        if (l->op->n_regions > 1) // unlike experts see all of it
            map_value(l, body->args.data[i], l->op->operands[2 + i]);
        else
            pm_map_put(&l->slices, &body->args.data[i]->id, sizeof(uint32_t), l->captured[i - 1]);
    }
    if (l->op->n_regions > 1)
        l->owner = owner_name(l, l->subset[0]);
    pm_status status = copy_body(l, body, out_rows);
    l->owner = NULL;
    return status;
}

/// What experts of one device add to each token. `is_part`: others run elsewhere.
static pm_status lower_group(pm_pass_ctx *ctx, pm_op *op, uint32_t layer, const expert_group *group, bool is_part,
                             pm_value **out)
{
    pm_module *m = ctx->module;
    lowering l = {.ctx = ctx, .op = op, .layer = layer, .subset = is_part ? group->experts : NULL,
                  .n_experts = group->n, .is_shared = op->n_regions == 1 || group->is_single, .ids = op->operands[1],
                  .captured = PM_NEW_ARRAY(m->arena, pm_value *, op->n_operands),
                  .b = {op->graph, op, pm_loc_derive(m, op->loc, "lower-experts")}};
    pm_value *rows, *weight = op->operands[2], *last = NULL;
    pm_map_init(&l.values, m->arena);
    pm_map_init(&l.slices, m->arena);
    for (uint32_t i = 3; i < op->n_operands; i++) {
        l.captured[i - 3] = op->operands[i];
        if (is_part && op->n_regions == 1)
            PM_TRY(part_of(&l, op->operands[i], &l.captured[i - 3]));
    }
    pm_op *order;
    if (is_part)
        PM_TRY(own_numbers(&l));
    PM_TRY(pm_build(&l.b, PM_OP_expert_order, PM_OPERANDS(l.ids),
                    PM_ATTRS(pm_attr_i64("experts", l.n_experts + is_part)), 0, &order));
    l.token = order->results[0];
    l.offsets = order->results[1];
    l.slot = order->results[2];
    if (is_part && l.is_shared) {
        PM_TRY(range_of(&l, order->results[1], l.n_experts, l.n_experts + 1, &last));
        PM_TRY(range_of(&l, order->results[1], 0, l.n_experts + 1, &l.offsets));
    }
    if (strcmp(pm_op_str(op, "apply"), "input") == 0) {
        PM_TRY(scale_rows(&l));
        PM_TRY(ones_like(&l, weight, &weight));
    }
    PM_TRY(l.is_shared ? lower_shared(&l, &rows) : lower_unlike(&l, &rows));
    l.b.loc = pm_loc_derive(m, op->loc, "lower-experts");
    if (last)
        PM_TRY(only_own_rows(&l, last, &rows));
    return pm_build1(&l.b, out, PM_OP_combine, PM_OPERANDS(rows, l.slot, weight), PM_NO_ATTRS);
}

static pm_status lower(pm_pass_ctx *ctx, pm_op *op, uint32_t layer)
{
    pm_module *m = ctx->module;
    expert_groups groups = groups_of(ctx, op);
    pm_value *sum = NULL, *part;
    for (size_t g = 0; g < groups.n; g++) {
        m->device = groups.data[g].device;
        PM_TRY(lower_group(ctx, op, layer, &groups.data[g], groups.n > 1 || groups.data[g].is_single, &part));
        if (sum) { // where the first of them is
            m->device = groups.data[0].device;
            pm_builder b = {op->graph, op, pm_loc_derive(m, op->loc, "lower-experts")};
            PM_TRY(pm_build1(&b, &part, PM_OP_add, PM_OPERANDS(sum, part), PM_NO_ATTRS));
        }
        sum = part;
    }
    m->device = NULL;
    pm_value_replace(op->results[0], sum);
    pm_op_erase(op);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "layers of experts");
    return PM_OK;
}

pm_status pm_pass_lower_experts(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        uint32_t layer = 0;
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], ctx->module->arena, &graphs);
        for (size_t k = 0; k < graphs.n; k++)
            for (pm_op *op = graphs.data[k]->first, *next; op; op = next) {
                next = op->next;
                if (op->code == PM_OP_experts)
                    PM_TRY(lower(ctx, op, layer++));
            }
    }
    return PM_OK;
}
