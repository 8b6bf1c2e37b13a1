/// A body as captures and a region.
#include "passes/moe/expert_parts.h"

#include <string.h>

#include "ir/op_table.h"

/* ---- emission -------------------------------------------------------------------------------- */

typedef struct emitter {
    pm_expert_body *body;
    pm_builder *b;
    pm_dim lead;   ///< the first extent: rows of the region, or experts of a stack
    pm_graph *region;
    uint32_t first;
} emitter;

/// A value [lead, ...] with the row's extents as `axes` have them.
static pm_status to_inner(emitter *e, pm_value *v, const pm_axes *axes, pm_value **out)
{
    pm_dim dims[PM_MAX_RANK + 1];
    dims[0] = e->lead;
    int32_t n = pm_body_inner_dims(e->body, axes, dims + 1);
    return pm_build_reshape_dims(e->b, v, n + 1, dims, out);
}

/// Constants under views, stacked, with the views again on top.
static pm_status emit_stacked_constants(emitter *e, pm_body_node *node, pm_value **out)
{
    pm_op *views[PM_BODY_MAX_CHAIN];
    int n = 0;
    pm_value **parts = PM_NEW_ARRAY(e->body->arena, pm_value *, node->width);
    memcpy(parts, node->values, node->width * sizeof *parts);
    while (parts[0]->def->code == PM_OP_transpose || parts[0]->def->code == PM_OP_reshape ||
           parts[0]->def->code == PM_OP_cast) {
        bool alike_all = true;
        for (uint32_t i = 0; i < node->width && alike_all; i++)
            alike_all = parts[i]->def->code == parts[0]->def->code && parts[i]->type == parts[0]->type &&
                        parts[i]->def->operands[0]->type == parts[0]->def->operands[0]->type &&
                        (parts[0]->def->n_attrs == 0 ||
                         pm_body_attr_same(&parts[i]->def->attrs[0], &parts[0]->def->attrs[0]));
        if (!alike_all || n == PM_BODY_MAX_CHAIN)
            break;
        views[n++] = parts[0]->def;
        for (uint32_t i = 0; i < node->width; i++)
            parts[i] = parts[i]->def->operands[0];
    }
    PM_TRY(pm_build1(e->b, out, PM_OP_stack, parts, node->width, PM_NO_ATTRS));
    while (n-- > 0) {
        const pm_op *view = views[n];
        if (view->code == PM_OP_transpose) {
            const pm_attr *perm = pm_op_attr(view, "perm");
            int64_t shifted[PM_MAX_RANK + 1] = {0};
            for (size_t i = 0; i < perm->n; i++)
                shifted[i + 1] = perm->ints[i] + 1;
            PM_TRY(pm_build1(e->b, out, PM_OP_transpose, PM_OPERANDS(*out),
                             PM_ATTRS(pm_attr_ints("perm", shifted, perm->n + 1))));
        } else if (view->code == PM_OP_cast) {
            PM_TRY(pm_build1(e->b, out, PM_OP_cast, PM_OPERANDS(*out), view->attrs, view->n_attrs));
        } else {
            pm_dim dims[PM_MAX_RANK + 1];
            const pm_type *type = view->results[0]->type;
            dims[0] = pm_dim_const(e->body->module, node->width);
            memcpy(dims + 1, type->dims, (size_t)type->rank * sizeof *dims);
            PM_TRY(pm_build_reshape_dims(e->b, *out, type->rank + 1, dims, out));
        }
    }
    return PM_OK;
}

/// The axis of experts in front.
static pm_status emit_id_first(emitter *e, pm_body_node *node, pm_value **out)
{
    pm_value *v = node->values[0];
    int64_t perm[PM_MAX_RANK];
    int32_t n = 1;
    *out = v;
    if (node->id_axis == 0)
        return PM_OK;
    perm[0] = node->id_axis;
    for (int32_t i = 0; i < v->type->rank; i++)
        if (i != node->id_axis)
            perm[n++] = i;
    return pm_build1(e->b, out, PM_OP_transpose, PM_OPERANDS(v),
                     PM_ATTRS(pm_attr_ints("perm", perm, (size_t)n)));
}

/// Order of the row's extents after a transpose; false: unchanged.
static bool inner_perm(const pm_expert_body *body, const pm_body_node *node, int64_t *out, int32_t *out_n)
{
    const pm_axes *from = &pm_body_data_of(node)->axes;
    const int64_t *perm = pm_op_attr(pm_body_op_of(node), "perm")->ints;
    int32_t n = 1, plain;
    bool changed = false;
    out[0] = 0;
    for (int32_t axis = 0; axis < from->rank; axis++) {
        (void)pm_body_inner_of(body, from, (int32_t)perm[axis], &plain);
        if (!plain)
            continue;
        out[n] = 1 + pm_body_inner_index(body, from, (int32_t)perm[axis]);
        changed = changed || out[n] != n;
        n++;
    }
    *out_n = n;
    return changed;
}

/// Views of rows or stacks: the same on the row's extents.
static pm_status emit_view(emitter *e, pm_body_node *node, pm_value *x, pm_value **out)
{
    int64_t perm[PM_MAX_RANK + 1];
    int32_t n;
    *out = x;
    if (pm_body_op_of(node)->code == PM_OP_transpose && inner_perm(e->body, node, perm, &n))
        PM_TRY(pm_build1(e->b, out, PM_OP_transpose, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_ints("perm", perm, (size_t)n))));
    return to_inner(e, *out, &node->axes, out);
}

static pm_status emit_stack(emitter *e, pm_body_node *node)
{
    pm_value *v;
    e->lead = pm_dim_const(e->body->module, e->body->seed->experts);
    pm_opcode code = pm_body_op_of(node)->code;
    if (!node->n_operands && (code == PM_OP_gather || code == PM_OP_gather_nd))
        v = pm_body_op_of(node)->operands[0]; // W of W[ids]
    else if (!node->n_operands && node->width > 1)
        PM_TRY(emit_stacked_constants(e, node, &v));
    else if (node->n_operands) // a view of a stack
        return emit_view(e, node, pm_body_data_of(node)->emitted, &node->emitted);
    else
        PM_TRY(emit_id_first(e, node, &v));
    return to_inner(e, v, &node->axes, &node->emitted);
}

pm_status pm_expert_body_captures(pm_expert_body *body, pm_builder *b, pm_value_vec *operands)
{
    emitter e = {.body = body, .b = b};
    const pm_loc *loc = b->loc;
    for (size_t i = 0; i < body->nodes.n; i++) {
        pm_body_node *node = body->nodes.data[i];
        if (node->kind != PM_BODY_STACK)
            continue;
        b->loc = pm_body_op_of(node)->loc;
        PM_TRY(emit_stack(&e, node));
        if (!node->captured)
            continue;
        node->argument = (uint32_t)operands->n;
        for (uint32_t k = 0; k < operands->n; k++)
            if (operands->data[k] == node->emitted)
                node->argument = k;
        if (node->argument == operands->n)
            PM_PUSH(body->arena, operands, node->emitted);
    }
    b->loc = loc;
    return PM_OK;
}

/// A constant of all experts, within the region.
static pm_status emit_shared(emitter *e, pm_body_node *node)
{
    pm_op *chain[PM_BODY_MAX_CHAIN];
    int n = 0;
    pm_value *v = node->values[0];
    while (v->def->code != PM_OP_const && v->def->code != PM_OP_stack && v->def->code != PM_OP_fill) {
        chain[n++] = v->def;
        v = v->def->operands[0];
    }
    pm_map map;
    pm_op *copy;
    pm_map_init(&map, e->body->arena);
    for (uint32_t i = 0; i < v->def->n_operands; i++) { // of stack, fill
        pm_op *inner;
        PM_TRY(pm_op_clone(v->def->operands[i]->def, e->region, NULL, &map, &inner));
    }
    PM_TRY(pm_op_clone(v->def, e->region, NULL, &map, &copy));
    while (n-- > 0) {
        for (uint32_t i = 1; i < chain[n]->n_operands; i++)
            if (chain[n]->operands[i] && !pm_value_map_get(&map, chain[n]->operands[i]))
                PM_TRY(pm_op_clone(chain[n]->operands[i]->def, e->region, NULL, &map, &copy));
        PM_TRY(pm_op_clone(chain[n], e->region, NULL, &map, &copy));
    }
    node->emitted = pm_value_map_get(&map, node->values[0]);
    return PM_OK;
}

/// An operand of an elementwise op, shaped so that the row's extents line up with the result's.
static pm_status emit_aligned(emitter *e, const pm_axes *result, pm_body_node *x, pm_value **out)
{
    pm_dim dims[PM_MAX_RANK + 1];
    int32_t n = 0, plain, shift = result->rank - x->axes.rank;
    bool rows = x->kind == PM_BODY_ROWS;
    if (x->is_filled)
        return pm_build_reshape_dims(e->b, pm_body_data_of(x)->emitted, 0, dims, out);
    if (rows)
        dims[n++] = e->lead;
    for (int32_t axis = 0; axis < result->rank; axis++) {
        (void)pm_body_inner_of(e->body, result, axis, &plain);
        if (!plain)
            continue;
        pm_dim dim = pm_body_inner_of(e->body, &x->axes, axis - shift, &plain);
        if (!plain && !rows && n == 0)
            continue; // leading extents of 1
        dims[n++] = dim;
    }
    return pm_build_reshape_dims(e->b, x->emitted, n, dims, out);
}

static pm_status emit_filled(emitter *e, const pm_body_node *node, const pm_body_node *number, pm_value **out)
{
    pm_dim dims[PM_MAX_RANK + 1] = {e->lead};
    int32_t n = 1 + pm_body_inner_dims(e->body, &node->axes, dims + 1);
    pm_value *shape;
    PM_TRY(pm_build_dims(e->b, n, dims, &shape));
    return pm_build1(e->b, out, PM_OP_fill, PM_OPERANDS(shape, pm_body_data_of(number)->emitted), PM_NO_ATTRS);
}

static pm_status emit_elementwise(emitter *e, pm_body_node *node, pm_value **out)
{
    pm_op *op = pm_body_op_of(node);
    pm_value **operands = PM_NEW_ARRAY(e->body->arena, pm_value *, node->n_operands);
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < node->n_operands; i++)
        if (node->operands[i]->kind == PM_BODY_WEIGHT) {
            if (node->operands[1 - i]->is_filled)
                return emit_filled(e, node, node->operands[1 - i], out);
            *out = node->operands[1 - i]->emitted; // the factor is applied outside
            return to_inner(e, *out, &node->axes, out);
        }
    for (uint32_t i = 0; i < node->n_operands; i++) {
        n_rows += node->operands[i]->kind == PM_BODY_ROWS;
        PM_TRY(emit_aligned(e, &node->axes, node->operands[i], &operands[i]));
    }
    // x * W + b with an expert's own bias is one product
    for (uint32_t i = 0; op->code == PM_OP_add && n_rows == 1 && i < 2; i++) {
        pm_value *product = operands[1 - i], *bias = operands[i];
        if (node->operands[i]->kind == PM_BODY_ROWS || !pm_value_is(product, PM_OP_linear) ||
            product->def->n_operands > 2 || bias->type->rank != 1 ||
            bias->type->dims[0] != product->type->dims[product->type->rank - 1])
            continue;
        return pm_build1(e->b, out, PM_OP_linear,
                         PM_OPERANDS(product->def->operands[0], product->def->operands[1], bias),
                         product->def->attrs, product->def->n_attrs);
    }
    return pm_build1(e->b, out, op->code, operands, node->n_operands, op->attrs, op->n_attrs);
}

/// [N, K] of a weight operand, in the region; `turn`: it is [K, N].
static pm_status emit_matrix(emitter *e, pm_body_node *w, pm_dim rows, pm_dim columns, bool turn,
                             pm_value **out)
{
    static const int64_t perm[] = {1, 0};
    pm_dim dims[2] = {turn ? columns : rows, turn ? rows : columns};
    PM_TRY(pm_build_reshape_dims(e->b, w->emitted, 2, dims, out));
    return turn ? pm_build1(e->b, out, PM_OP_transpose, PM_OPERANDS(*out), PM_ATTRS(pm_attr_ints("perm", perm, 2)))
                : PM_OK;
}

static pm_status emit_linear(emitter *e, pm_body_node *node, pm_value **out)
{
    pm_op *op = pm_body_op_of(node);
    pm_value *operands[3] = {node->operands[0]->emitted, NULL, NULL};
    const pm_type *w = op->operands[1]->type;
    PM_TRY(emit_matrix(e, node->operands[1], w->dims[0], w->dims[1], false, &operands[1]));
    if (node->n_operands > 2)
        PM_TRY(pm_build_reshape_dims(e->b, node->operands[2]->emitted, 1, w->dims, &operands[2]));
    return pm_build1(e->b, out, PM_OP_linear, operands, node->n_operands, op->attrs, op->n_attrs);
}

static pm_status emit_matmul(emitter *e, pm_body_node *node, pm_value **out)
{
    pm_body_sides s;
    int32_t plain, n;
    pm_value *x, *w;
    pm_body_find_sides(node, &s);
    pm_dim sum = pm_body_inner_of(e->body, &s.stack->axes, s.stack_sum, &plain);
    pm_dim columns = pm_body_inner_of(e->body, &s.stack->axes, s.stack_free, &plain);
    x = s.rows->emitted;
    // the summed extent last
    int32_t at = 1 + pm_body_inner_index(e->body, &s.rows->axes, s.rows_sum);
    n = x->type->rank;
    if (at != n - 1) {
        int64_t perm[PM_MAX_RANK + 1];
        for (int32_t i = 0, k = 0; i < n; i++)
            if (i != at)
                perm[k++] = i;
        perm[n - 1] = at;
        PM_TRY(pm_build1(e->b, &x, PM_OP_transpose, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("perm", perm, (size_t)n))));
    }
    PM_TRY(emit_matrix(e, s.stack, columns, sum, s.stack_sum < s.stack_free, &w));
    return pm_build1(e->b, out, PM_OP_linear, PM_OPERANDS(x, w), PM_NO_ATTRS);
}

/// Ops with an axis, a list of axes, or pieces along one: the same along the row's extent.
static pm_status emit_along(emitter *e, pm_body_node *node, pm_value **out)
{
    pm_op *op = pm_body_op_of(node), *made;
    const pm_axes *axes = &pm_body_data_of(node)->axes;
    pm_attr *attrs = PM_NEW_ARRAY(e->body->arena, pm_attr, op->n_attrs + 1);
    pm_value **operands = PM_NEW_ARRAY(e->body->arena, pm_value *, op->n_operands + 1);
    memcpy(attrs, op->attrs, op->n_attrs * sizeof *attrs);
    for (uint32_t i = 0; i < op->n_attrs; i++) {
        if (strcmp(attrs[i].key, "axis") == 0)
            attrs[i].i = 1 + pm_body_inner_index(e->body, axes, pm_body_positive(attrs[i].i, axes->rank));
        if (strcmp(attrs[i].key, "axes") == 0) {
            int64_t *moved = PM_NEW_ARRAY(e->body->arena, int64_t, attrs[i].n + 1);
            for (size_t k = 0; k < attrs[i].n; k++)
                moved[k] = 1 + pm_body_inner_index(e->body, axes, pm_body_positive(attrs[i].ints[k], axes->rank));
            attrs[i].ints = moved;
        }
    }
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (i < node->n_operands) {
            operands[i] = node->operands[i]->emitted;
            continue;
        }
        pm_map map;
        pm_op *copy;
        pm_map_init(&map, e->body->arena);
        if (!op->operands[i])
            continue;
        PM_TRY(pm_op_clone(op->operands[i]->def, e->region, NULL, &map, &copy));
        operands[i] = copy->results[0];
    }
    PM_TRY(pm_build(e->b, op->code, operands, op->n_operands, attrs, op->n_attrs, op->n_results, &made));
    *out = made->results[node->values[0]->index];
    return PM_OK;
}

static pm_status emit_slice(emitter *e, pm_body_node *node, pm_value **out)
{
    const pm_op *op = pm_body_op_of(node);
    const pm_axes *axes = &pm_body_data_of(node)->axes;
    int64_t given[PM_MAX_RANK], moved[PM_MAX_RANK];
    size_t n = 0;
    pm_value *operands[5] = {pm_body_data_of(node)->emitted};
    for (uint32_t i = 1; i < op->n_operands; i++) {
        if (!op->operands[i] || i == 3)
            continue;
        pm_map map;
        pm_op *copy;
        pm_map_init(&map, e->body->arena);
        PM_TRY(pm_op_clone(op->operands[i]->def, e->region, NULL, &map, &copy));
        operands[i] = copy->results[0];
    }
    if (op->n_operands > 3 && op->operands[3]) {
        if (!pm_value_const_ints(op->operands[3], given, PM_MAX_RANK, &n))
            return PM_ERR_UNSUPPORTED;
    } else {
        n = (size_t)axes->rank;
        for (size_t i = 0; i < n; i++)
            given[i] = (int64_t)i;
    }
    for (size_t i = 0; i < n; i++)
        moved[i] = 1 + pm_body_inner_index(e->body, axes, pm_body_positive(given[i], axes->rank));
    const int64_t dims[] = {(int64_t)n};
    PM_TRY(pm_build_const_ints(e->b, PM_I64, 1, dims, moved, &operands[3]));
    return pm_build1(e->b, out, PM_OP_slice, operands, op->n_operands > 4 && op->operands[4] ? 5 : 4, PM_NO_ATTRS);
}

static pm_status emit_rows(emitter *e, pm_body_node *node)
{
    pm_value *out;
    pm_op *op = pm_body_op_of(node);
    if (!node->n_operands) { // the input
        return to_inner(e, e->region->args.data[0], &node->axes, &node->emitted);
    }
    e->b->loc = op->loc;
    if (pm_body_is_segment_concat(e->body, node) || pm_body_stacks_experts(e->body, node) || node->parts || node->picks ||
        node->cut || node->repeats) {
        node->emitted = node->operands[0]->emitted;
        return PM_OK;
    }
    switch (op->code) {
    case PM_OP_reshape:
    case PM_OP_transpose:
    case PM_OP_expand:
    case PM_OP_tile: return emit_view(e, node, pm_body_data_of(node)->emitted, &node->emitted);
    case PM_OP_gather:
    case PM_OP_gather_nd:
        if (pm_moe_fact_of(e->body->facts, op->operands[1])) {
            node->emitted = pm_body_data_of(node)->emitted;
            return PM_OK;
        }
        PM_TRY(emit_along(e, node, &out));
        break;
    case PM_OP_linear: PM_TRY(emit_linear(e, node, &out)); break;
    case PM_OP_matmul: PM_TRY(emit_matmul(e, node, &out)); break;
    case PM_OP_slice: PM_TRY(emit_slice(e, node, &out)); break;
    default:
        if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE)
            PM_TRY(emit_elementwise(e, node, &out));
        else
            PM_TRY(emit_along(e, node, &out));
    }
    return to_inner(e, out, &node->axes, &node->emitted);
}

pm_status pm_expert_body_emit(pm_expert_body *body, pm_graph *region, uint32_t first)
{
    pm_builder b = {region, NULL, region->parent->loc};
    emitter e = {.body = body, .b = &b, .region = region, .first = first,
                 .lead = region->args.data[0]->type->dims[0]};
    for (size_t i = 0; i < body->nodes.n; i++) {
        pm_body_node *node = body->nodes.data[i];
        b.loc = pm_body_op_of(node) ? pm_body_op_of(node)->loc : region->parent->loc;
        if (node->kind == PM_BODY_STACK && node->captured)
            node->emitted = region->args.data[1 + node->argument - first];
        else if (node->kind == PM_BODY_SHARED && !node->is_filled)
            PM_TRY(emit_shared(&e, node));
        else if (node->kind == PM_BODY_ROWS)
            PM_TRY(emit_rows(&e, node));
    }
    pm_value *y = body->result->emitted;
    pm_dim dims[2] = {e.lead, pm_dim_const(body->module, 1)};
    for (int32_t i = 1; i < y->type->rank; i++)
        dims[1] = pm_dim_mul(body->module, dims[1], y->type->dims[i]);
    b.loc = region->parent->loc;
    PM_TRY(pm_build_reshape_dims(&b, y, 2, dims, &y));
    pm_graph_add_result(region, NULL, y, -1);
    return PM_OK;
}
