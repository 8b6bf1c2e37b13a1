/// How each kind of op looks on one row.
#include "passes/moe/expert_parts.h"

#include <string.h>

#include "ir/op_table.h"

/* ---- rules: one per kind of op --------------------------------------------------------------- */

/// The single operand that is in the body.
pm_body_node *pm_body_data_of(const pm_body_node *node)
{
    return node->operands[0];
}

/// Passes on what a linear op on rows leaves as it is.
static void like_operand(pm_body_node *node, const pm_body_node *x)
{
    node->kind = x->kind;
    node->weight = x->weight;
    node->is_dense_weight = x->is_dense_weight;
    node->zero_stays = x->zero_stays;
}

/// An op that isn't linear sees the weight: then the weight must belong to the input.
static bool settle_weight(pm_expert_body *body, pm_body_node *node, const pm_body_node *x)
{
    if (!x->weight || x->kind != PM_BODY_ROWS)
        return true;
    return pm_body_stop(body, node, "the weight of the choice goes through something that isn't linear");
}

/// Constants that run along the experts of another operand differ by expert.
static bool mark_id_axis(pm_expert_body *body, pm_body_node *constant, const pm_axes *other, int32_t rank,
                         int32_t from, int32_t to)
{
    if (constant->kind != PM_BODY_SHARED)
        return true;
    int32_t shift = rank - constant->axes.rank, other_shift = rank - other->rank, found = -1;
    for (int32_t axis = from; axis < to; axis++) {
        const pm_atom *mine, *theirs;
        int64_t extent;
        if (pm_axes_at(&constant->axes, axis - shift, &mine) != 1 || mine->kind != PM_ATOM_PLAIN ||
            pm_axes_at(other, axis - other_shift, &theirs) != 1 ||
            (theirs->kind != PM_ATOM_ID && theirs->kind != PM_ATOM_SPREAD) ||
            !pm_dim_is_const(body->module, mine->dim, &extent) || extent != body->seed->experts)
            continue;
        if (found >= 0)
            return false;
        found = axis - shift;
    }
    if (found < 0)
        return constant->id_axis < 0;
    if (constant->id_axis >= 0 && constant->id_axis != found)
        return false;
    for (int32_t i = 0; i < constant->axes.n; i++)
        if (constant->axes.atoms[i].axis == found)
            constant->axes.atoms[i].kind = PM_ATOM_ID;
    constant->id_axis = found;
    constant->kind = PM_BODY_STACK;
    return true;
}

static bool combine_weights(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *weighted = NULL, *other = NULL;
    for (uint32_t i = 0; i < 2; i++)
        if (node->operands[i]->kind == PM_BODY_WEIGHT) {
            weighted = node->operands[i];
            other = node->operands[1 - i];
        }
    if (pm_body_op_of(node)->code != PM_OP_mul || other->kind != PM_BODY_ROWS)
        return pm_body_stop(body, node, "the weight of the choice isn't a factor");
    if (other->weight)
        return pm_body_stop(body, node, "there is a second weight of the choice");
    like_operand(node, other);
    node->is_input = other->is_input;
    node->weight = weighted->weight;
    node->is_dense_weight = weighted->is_dense_weight;
    return true;
}

static bool zero_after(const pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    bool all = true, any = false;
    for (uint32_t i = 0; i < node->n_operands; i++)
        if (node->operands[i]->kind == PM_BODY_ROWS) {
            all = all && node->operands[i]->zero_stays;
            any = any || node->operands[i]->zero_stays;
        } else {
            all = false;
        }
    switch (op->code) {
    case PM_OP_mul: return any;
    case PM_OP_add:
    case PM_OP_sub:
    case PM_OP_neg:
    case PM_OP_abs:
    case PM_OP_relu:
    case PM_OP_silu:
    case PM_OP_gelu:
    case PM_OP_tanh:
    case PM_OP_erf:
    case PM_OP_cast:
    case PM_OP_sqrt: return all;
    case PM_OP_div: return node->operands[0]->kind == PM_BODY_ROWS && node->operands[0]->zero_stays &&
                           node->operands[1]->kind == PM_BODY_SHARED;
    case PM_OP_min:
    case PM_OP_max: return all;
    default: return false;
    }
}

/// A number on every row, times the weights: an expert that gives the same whatever it gets (nothing, mostly).
static bool filled_rows(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *weight = node->operands[node->operands[0]->kind != PM_BODY_WEIGHT];
    pm_body_node *number = node->operands[node->operands[0]->kind == PM_BODY_WEIGHT];
    if (pm_body_op_of(node)->code != PM_OP_mul ||
        !pm_axes_broadcast(&weight->axes, &number->axes, node->values[0]->type->rank, &node->axes))
        return pm_body_stop(body, node, "it doesn't depend on the rows");
    node->kind = PM_BODY_ROWS;
    node->weight = weight->weight;
    node->is_dense_weight = weight->is_dense_weight;
    return true;
}

bool pm_body_keeps_row(const pm_body_node *x, const pm_axes *result)
{
    const pm_atom *first;
    for (int32_t i = 0; i < x->axes.n && x->kind == PM_BODY_ROWS; i++) {
        int32_t n = pm_axes_at(result, x->axes.atoms[i].axis + result->rank - x->axes.rank, &first);
        for (int32_t k = 0; k < n && x->axes.atoms[i].kind == PM_ATOM_PLAIN; k++)
            if (first[k].kind != PM_ATOM_PLAIN)
                return false;
    }
    return true;
}

static bool elementwise(pm_expert_body *body, pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    int32_t rank = op->results[0]->type->rank, n_rows = 0, n_weights = 0;
    const pm_body_node *rows = NULL;
    for (uint32_t i = 0; i < node->n_operands; i++) {
        n_weights += node->operands[i]->kind == PM_BODY_WEIGHT;
        if (node->operands[i]->kind == PM_BODY_ROWS) {
            n_rows++;
            rows = rows && rows->weight ? rows : node->operands[i];
        }
    }
    if (!n_rows && n_weights == 1 && node->n_operands == 2 && (node->operands[0]->is_filled || node->operands[1]->is_filled))
        return filled_rows(body, node);
    if (!n_rows)
        return pm_body_stop(body, node, "it doesn't depend on the rows");
    pm_axes axes = {.rank = rank};
    for (uint32_t i = 0; i < node->n_operands; i++) {
        if (node->operands[i]->kind == PM_BODY_SHARED && rows &&
            !mark_id_axis(body, node->operands[i], &rows->axes, rank, 0, rank))
            return pm_body_stop(body, node, "a constant is used both by expert and by all");
        if (!pm_axes_broadcast(&axes, &node->operands[i]->axes, rank, &axes))
            return pm_body_stop(body, node, "its operands count different things");
    }
    for (uint32_t i = 0; i < node->n_operands; i++)
        if (!pm_body_keeps_row(node->operands[i], &axes))
            return pm_body_stop(body, node, "its operands count different things");
    node->axes = axes;
    if (n_weights)
        return n_weights == 1 && node->n_operands == 2
                   ? combine_weights(body, node)
                   : pm_body_stop(body, node, "the weights of the choices are computed in the body");
    // a factor goes through products with what has none
    bool linear = (op->code == PM_OP_mul && n_rows == 1) || op->code == PM_OP_neg ||
                  (op->code == PM_OP_div && node->operands[0]->kind == PM_BODY_ROWS && n_rows == 1);
    if (linear && rows->weight) {
        like_operand(node, rows);
        node->zero_stays = zero_after(node);
        return true;
    }
    for (uint32_t i = 0; i < node->n_operands; i++)
        if (!settle_weight(body, node, node->operands[i]))
            return false;
    node->kind = PM_BODY_ROWS;
    node->zero_stays = zero_after(node);
    return true;
}

/// Rows go into a product. The input times its weight: from here on the rows are as `experts` hands them over.
static bool into_product(pm_expert_body *body, pm_body_node *node, pm_body_node *x)
{
    like_operand(node, x);
    if (!x->is_input)
        return true;
    if (x->weight) {
        body->apply_input = true;
        body->input_weight = x->weight;
        body->input_dense = x->is_dense_weight;
        node->weight = NULL;
        node->is_dense_weight = false;
    } else {
        body->plain_input = true;
    }
    return !(body->apply_input && body->plain_input) ||
           pm_body_stop(body, node, "the input is used with its weight and without");
}

static bool linear(pm_expert_body *body, pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    pm_body_node *x = node->operands[0], *w = node->operands[1];
    pm_body_node *bias = node->n_operands > 2 ? node->operands[2] : NULL;
    int32_t rank = x->axes.rank;
    if (x->kind != PM_BODY_ROWS || w->kind == PM_BODY_ROWS || w->kind == PM_BODY_WEIGHT ||
        !pm_body_is_inner_axis(body, &x->axes, rank - 1))
        return pm_body_stop(body, node, "the product isn't one of rows and weights");
    if (bias && !x->is_input && !settle_weight(body, node, x))
        return false;
    if (!into_product(body, node, x))
        return false;
    node->zero_stays = x->zero_stays && !bias;
    node->axes = x->axes;
    pm_body_set_axis_plain(&node->axes, rank - 1, body->module, op->results[0]->type->dims[rank - 1]);
    return true;
}

void pm_body_find_sides(const pm_body_node *node, pm_body_sides *s)
{
    const pm_op *op = pm_body_op_of(node);
    bool trans[2] = {pm_op_i64(op, "trans_a") != 0, pm_op_i64(op, "trans_b") != 0};
    s->rows_left = node->operands[0]->kind == PM_BODY_ROWS;
    s->rows = node->operands[s->rows_left ? 0 : 1];
    s->stack = node->operands[s->rows_left ? 1 : 0];
    int32_t sum[2], other[2];
    for (int32_t i = 0; i < 2; i++) {
        int32_t rank = node->operands[i]->axes.rank;
        bool last = i == 0 ? !trans[0] : trans[1];
        sum[i] = last ? rank - 1 : rank - 2;
        other[i] = last ? rank - 2 : rank - 1;
    }
    s->rows_sum = sum[!s->rows_left];
    s->rows_free = other[!s->rows_left];
    s->stack_sum = sum[s->rows_left];
    s->stack_free = other[s->rows_left];
}

static pm_axes leading_axes(const pm_axes *axes)
{
    pm_axes out = {.rank = axes->rank - 2};
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].axis < axes->rank - 2)
            pm_axes_put(&out, axes->atoms[i], axes->atoms[i].axis);
    return out;
}

static void copy_axis(pm_axes *to, int32_t axis, const pm_axes *from, int32_t from_axis)
{
    const pm_atom *first;
    int32_t n = pm_axes_at(from, from_axis, &first);
    for (int32_t i = 0; i < n; i++)
        pm_axes_put(to, first[i], axis);
}

static bool matmul(pm_expert_body *body, pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    int32_t rank = op->results[0]->type->rank, plain;
    pm_body_sides s;
    if (node->operands[0]->axes.rank < 2 || node->operands[1]->axes.rank < 2)
        return pm_body_stop(body, node, "a product with a vector");
    pm_body_find_sides(node, &s);
    if (s.rows->kind != PM_BODY_ROWS || s.stack->kind == PM_BODY_ROWS || s.stack->kind == PM_BODY_WEIGHT)
        return pm_body_stop(body, node, "the product isn't one of rows and weights");
    if (s.stack->kind == PM_BODY_SHARED && s.stack->axes.rank > 2) {
        pm_axes stack = leading_axes(&s.stack->axes), rows = leading_axes(&s.rows->axes);
        (void)stack;
        int32_t shift = rank - s.stack->axes.rank;
        pm_axes wide = rows;
        for (int32_t axis = 0; axis < rank - 2; axis++) { // an axis that rows lack is spread over
            const pm_atom *mine, *theirs;
            if (!pm_axes_at(&rows, axis - (rank - s.rows->axes.rank), &theirs) &&
                pm_axes_at(&s.stack->axes, axis - shift, &mine) == 1 && rows.rank == rank - 2)
                pm_axes_put(&wide, (pm_atom){.kind = PM_ATOM_SPREAD, .dim = mine->dim}, axis);
        }
        wide.rank = rank; // aligned from the front: leading axes
        if (rows.rank != rank - 2 || s.stack->axes.rank != rank ||
            !mark_id_axis(body, s.stack, &wide, rank, 0, rank - 2))
            return pm_body_stop(body, node, "the weights' axis of experts isn't found");
    }
    // the sum runs over the row alone
    if (!pm_body_is_inner_axis(body, &s.rows->axes, s.rows_sum) || !pm_body_is_inner_axis(body, &s.stack->axes, s.stack_sum))
        return pm_body_stop(body, node, "the sum runs over more than the row");
    pm_axes a = leading_axes(&node->operands[0]->axes), b = leading_axes(&node->operands[1]->axes), out;
    if (!pm_axes_broadcast(&a, &b, rank - 2, &out))
        return pm_body_stop(body, node, "its operands count different things");
    (void)pm_body_inner_of(body, &s.rows->axes, s.rows_free, &plain);
    if (plain && !s.rows_left)
        return pm_body_stop(body, node, "the rows stand in columns");
    pm_dim dims[PM_MAX_RANK];
    if (pm_body_inner_dims(body, &s.stack->axes, dims) > 2)
        return pm_body_stop(body, node, "the weights have more than two axes of their own");
    out.rank = rank;
    copy_axis(&out, rank - 2, s.rows_left ? &s.rows->axes : &s.stack->axes,
              s.rows_left ? s.rows_free : s.stack_free);
    copy_axis(&out, rank - 1, s.rows_left ? &s.stack->axes : &s.rows->axes,
              s.rows_left ? s.stack_free : s.rows_free);
    if (!pm_axes_fit(&out))
        return pm_body_stop(body, node, "it has too many axes");
    if (!into_product(body, node, s.rows))
        return false;
    node->axes = out;
    return true;
}

static bool reshape(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    like_operand(node, x);
    node->is_input = x->is_input;
    if (x->kind == PM_BODY_WEIGHT)
        return pm_body_stop(body, node, "the weights of the choices are computed in the body");
    return pm_axes_reshape(body->module, &x->axes, node->values[0]->type, &node->axes) ||
           pm_body_stop(body, node, "rows and their extents are mixed");
}

static bool transpose(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    like_operand(node, x);
    node->is_input = x->is_input;
    node->axes = pm_axes_permuted(&x->axes, pm_op_attr(pm_body_op_of(node), "perm")->ints);
    return x->kind != PM_BODY_WEIGHT || pm_body_stop(body, node, "the weights of the choices are computed in the body");
}

static bool expand(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_type *type = node->values[0]->type;
    like_operand(node, x);
    if (x->kind == PM_BODY_SHARED && x->axes.n == 0) {
        node->is_filled = true;
        node->axes = pm_axes_plain(body->module, type);
        return pm_axes_fit(&node->axes);
    }
    node->is_input = x->is_input;
    return pm_axes_expand(body->module, &x->axes, type, &node->axes) && x->kind == PM_BODY_ROWS;
}

static bool tile(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_type *type = node->values[0]->type;
    int64_t repeats[PM_MAX_RANK];
    size_t n;
    if (x->kind != PM_BODY_ROWS || !pm_value_const_ints(pm_body_op_of(node)->operands[1], repeats, PM_MAX_RANK, &n) ||
        n != (size_t)type->rank)
        return pm_body_stop(body, node, "repeats aren't constant");
    like_operand(node, x);
    node->is_input = x->is_input;
    node->axes = (pm_axes){.rank = type->rank};
    for (int32_t axis = 0; axis < type->rank; axis++) {
        if (repeats[axis] > 1)
            pm_axes_put(&node->axes, (pm_atom){.kind = PM_ATOM_SPREAD,
                                               .dim = pm_dim_const(body->module, repeats[axis])}, axis);
        copy_axis(&node->axes, axis, &x->axes, axis);
    }
    return pm_axes_fit(&node->axes);
}

/// Ops along an axis that must be one of the row's.
static bool along(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_op *op = pm_body_op_of(node);
    int32_t axis = pm_body_positive(pm_op_i64(op, "axis"), x->axes.rank);
    if (x->kind != PM_BODY_ROWS || !pm_body_is_inner_axis(body, &x->axes, axis) || !settle_weight(body, node, x))
        return pm_body_stop(body, node, "it mixes rows");
    node->kind = PM_BODY_ROWS;
    node->axes = x->axes;
    return true;
}

static bool norm(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    if (x->kind != PM_BODY_ROWS || !pm_body_is_inner_axis(body, &x->axes, x->axes.rank - 1) ||
        !settle_weight(body, node, x))
        return pm_body_stop(body, node, "it mixes rows");
    for (uint32_t i = 1; i < node->n_operands; i++)
        if (node->operands[i] && node->operands[i]->kind != PM_BODY_SHARED)
            return pm_body_stop(body, node, "a norm has weights of each expert");
    node->kind = PM_BODY_ROWS;
    node->axes = x->axes;
    return true;
}

static bool reduce(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_op *op = pm_body_op_of(node);
    const pm_attr *axes = pm_op_attr(op, "axes");
    bool keep = pm_op_i64(op, "keepdims");
    if (x->kind != PM_BODY_ROWS || (op->code != PM_OP_reduce_sum && op->code != PM_OP_reduce_mean &&
                                    !settle_weight(body, node, x)))
        return pm_body_stop(body, node, "it mixes rows");
    like_operand(node, x);
    node->axes = x->axes;
    for (size_t i = 0; i < axes->n; i++) {
        int32_t axis = pm_body_positive(axes->ints[i], x->axes.rank);
        if (!pm_body_is_inner_axis(body, &x->axes, axis))
            return pm_body_stop(body, node, "it mixes rows");
        pm_axes_drop_atoms(&node->axes, axis);
    }
    for (int32_t axis = x->axes.rank - 1; !keep && axis >= 0; axis--)
        for (size_t i = 0; i < axes->n; i++)
            if (pm_body_positive(axes->ints[i], x->axes.rank) == axis)
                pm_axes_remove(&node->axes, axis);
    return true;
}

/// The experts' own rows of those in their order.
static bool cut_rows(pm_expert_body *body, pm_body_node *node, int32_t axis)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_axes *own = &pm_moe_fact_of(body->facts, node->values[0])->axes;
    const pm_atom *rows, *list;
    if (pm_axes_at(&x->axes, axis, &rows) != 1 || rows->kind != PM_ATOM_LIST || rows->list != body->seed->sorted ||
        pm_axes_at(own, axis, &list) != 1)
        return pm_body_stop(body, node, "it cuts between rows");
    like_operand(node, x);
    node->axes = x->axes;
    for (int32_t i = 0; i < node->axes.n; i++)
        if (node->axes.atoms[i].axis == axis)
            node->axes.atoms[i] = *list;
    return true;
}

static bool split(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    int32_t axis = pm_body_positive(pm_op_i64(pm_body_op_of(node), "axis"), x->axes.rank);
    if (node->cut)
        return cut_rows(body, node, axis);
    if (x->kind != PM_BODY_ROWS || !pm_body_is_inner_axis(body, &x->axes, axis))
        return pm_body_stop(body, node, "it cuts between rows");
    like_operand(node, x);
    node->axes = x->axes;
    pm_body_set_axis_plain(&node->axes, axis, body->module, node->values[0]->type->dims[axis]);
    return true;
}

static bool slice(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_op *op = pm_body_op_of(node);
    const pm_type *from = op->operands[0]->type, *to = op->results[0]->type;
    if (x->kind != PM_BODY_ROWS)
        return pm_body_stop(body, node, "it cuts something else than rows");
    like_operand(node, x);
    node->axes = x->axes;
    for (uint32_t i = 1; i < op->n_operands; i++)
        if (op->operands[i] && !pm_value_const(op->operands[i]))
            return pm_body_stop(body, node, "where it cuts isn't constant");
    for (int32_t axis = 0; axis < from->rank; axis++) {
        if (from->dims[axis] == to->dims[axis])
            continue;
        if (!pm_body_is_inner_axis(body, &x->axes, axis))
            return pm_body_stop(body, node, "it cuts between rows");
        pm_body_set_axis_plain(&node->axes, axis, body->module, to->dims[axis]);
    }
    return true;
}

static bool replace_rows(pm_expert_body *body, pm_body_node *node, const pm_axes *index)
{
    pm_body_node *x = pm_body_data_of(node);
    const pm_op *op = pm_body_op_of(node);
    pm_axes rows = *index;
    int32_t axis = 0;
    if (op->code == PM_OP_gather)
        axis = pm_body_positive(pm_op_i64(op, "axis"), x->axes.rank);
    else
        pm_axes_remove(&rows, op->operands[1]->type->rank - 1);
    for (int32_t i = 0; i < x->axes.n; i++)
        if (x->axes.atoms[i].axis == axis && x->axes.atoms[i].kind == PM_ATOM_PLAIN)
            return pm_body_stop(body, node, "it picks within the row");
    like_operand(node, x);
    node->is_input = x->is_input;
    node->axes = (pm_axes){.rank = x->axes.rank - 1 + rows.rank};
    for (int32_t k = 0; k < axis; k++)
        copy_axis(&node->axes, k, &x->axes, k);
    for (int32_t k = 0; k < rows.rank; k++)
        copy_axis(&node->axes, axis + k, &rows, k);
    for (int32_t k = axis + 1; k < x->axes.rank; k++)
        copy_axis(&node->axes, k - 1 + rows.rank, &x->axes, k);
    return pm_axes_fit(&node->axes);
}

/// Each token's row, as many times as it has choices; or each choice's.
static bool repeats_tokens(const pm_expert_body *body, const pm_atom *atoms, int32_t n)
{
    const pm_seed *seed = body->seed;
    bool fits = n == seed->n_dims;
    for (int32_t i = 0; i < n && fits; i++)
        fits = (atoms[i].kind == PM_ATOM_SEED && atoms[i].at == i) ||
               (i == seed->choice && atoms[i].kind == PM_ATOM_SPREAD && atoms[i].dim == seed->dims[i]);
    return fits;
}

/// From an axis of all tokens, and nothing else.
static bool gathers_tokens(const pm_expert_body *body, const pm_op *op, const pm_body_node *x)
{
    const pm_atom *atoms;
    bool nd = op->code == PM_OP_gather_nd;
    int32_t at = 0, n = pm_axes_at(&x->axes, nd ? 0 : pm_body_positive(pm_op_i64(op, "axis"), x->axes.rank), &atoms);
    int64_t depth = 1;
    if (nd && (pm_op_i64(op, "batch_dims") != 0 || op->operands[1]->type->rank < 1 ||
               !pm_dim_is_const(body->module, op->operands[1]->type->dims[op->operands[1]->type->rank - 1], &depth)))
        return false;
    for (int32_t i = 0; i < n; i++, at++) {
        at += at == body->seed->choice;
        if (atoms[i].kind != PM_ATOM_SEED || atoms[i].at != at)
            return false;
    }
    at += at == body->seed->choice;
    return x->is_input && depth == 1 && n > 0 && at == body->seed->n_dims;
}

/// Rows picked by an index: of tokens for a list, of sorted rows for a segment, or back into their order.
static bool gather(pm_expert_body *body, pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    const pm_moe_fact *index = pm_moe_fact_of(body->facts, op->operands[1]);
    pm_body_node *x = pm_body_data_of(node);
    pm_axes numbers;
    const pm_atom *first;
    if (pm_body_picks_experts(body, node))
        return pm_body_pick_experts(body, node);
    if (x->kind != PM_BODY_ROWS || (node->by_choice && node->width > 1))
        return pm_body_stop(body, node, "it picks from something else than rows");
    if (!index && gathers_tokens(body, op, x) && pm_body_numbers_tokens(body, op->operands[1], &numbers)) {
        node->repeats = true;
        return replace_rows(body, node, &numbers);
    }
    if (!index) { // constant positions along the row
        int32_t axis = op->code == PM_OP_gather ? pm_body_positive(pm_op_i64(op, "axis"), x->axes.rank) : -1;
        if (axis < 0 || !pm_body_is_inner_axis(body, &x->axes, axis) || !pm_value_const(op->operands[1]) ||
            op->operands[1]->type->rank > 1)
            return pm_body_stop(body, node, "rows are picked in a way that isn't known");
        like_operand(node, x);
        node->axes = x->axes;
        if (op->operands[1]->type->rank == 0)
            pm_axes_remove(&node->axes, axis);
        else
            pm_body_set_axis_plain(&node->axes, axis, body->module, op->results[0]->type->dims[axis]);
        return true;
    }
    int32_t axis = op->code == PM_OP_gather ? pm_body_positive(pm_op_i64(op, "axis"), x->axes.rank) : 0;
    int32_t n = pm_axes_at(&x->axes, axis, &first);
    bool fits;
    if (index->kind == PM_FACT_INVERSE) {
        fits = n == 1 && first->kind == PM_ATOM_LIST && first->list == index->list;
    } else if (index->kind == PM_FACT_FORMS && index->n_forms == 1 && index->forms[0].position_in) {
        fits = n == 1 && first->kind == PM_ATOM_LIST && first->list == index->forms[0].position_in;
    } else if (index->kind == PM_FACT_FORMS && index->n_forms == 1 && body->seed->choice >= 0 &&
               pm_form_is_choice(body->module, body->seed, &index->forms[0])) {
        fits = repeats_tokens(body, first, n);
    } else if (index->kind == PM_FACT_FORMS && index->n_forms == 1) {
        fits = x->is_input && pm_form_is_token(body->module, body->seed, &index->forms[0]);
        for (int32_t i = 0, tokens = 0; i < n; i++) {
            fits = fits && first[i].kind == PM_ATOM_SEED;
            tokens++;
            if (i == n - 1)
                fits = fits && tokens == body->seed->n_dims - (body->seed->choice >= 0);
        }
    } else {
        fits = false;
    }
    return fits ? replace_rows(body, node, &index->axes) : pm_body_stop(body, node, "rows are picked in a way that isn't known");
}

/// Parts of rows side by side.
static bool concat(pm_expert_body *body, pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    int32_t rank = op->results[0]->type->rank, axis = pm_body_positive(pm_op_i64(op, "axis"), rank);
    for (uint32_t i = 0; i < node->n_operands; i++) {
        pm_body_node *x = node->operands[i];
        if (x->kind != PM_BODY_ROWS || x->weight != node->operands[0]->weight ||
            !pm_body_is_inner_axis(body, &x->axes, axis))
            return pm_body_stop(body, node, "it puts rows below one another");
    }
    like_operand(node, node->operands[0]);
    node->axes = node->operands[0]->axes;
    pm_body_set_axis_plain(&node->axes, axis, body->module, op->results[0]->type->dims[axis]);
    return true;
}

/// The experts' segments of a sorted list below one another: the list. The one operand is the tuple of all.
bool pm_body_segments(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = node->operands[0];
    like_operand(node, x);
    node->axes = x->axes;
    for (int32_t i = 0; i < node->axes.n; i++)
        if (node->axes.atoms[i].kind == PM_ATOM_LIST) {
            const pm_row_list *segment = node->axes.atoms[i].list;
            if (segment->kind != PM_LIST_SEGMENT || segment->expert != 0)
                return pm_body_stop(body, node, "the rows of experts aren't put together in order");
            node->axes.atoms[i].list = segment->of;
            node->axes.atoms[i].dim = node->values[0]->type->dims[node->axes.atoms[i].axis];
            return true;
        }
    return pm_body_stop(body, node, "it puts rows below one another");
}

pm_body_rule *pm_body_rule_of(const pm_op *op)
{
    static pm_body_rule *const rules[PM_OP_COUNT] = {
        [PM_OP_linear] = linear,       [PM_OP_matmul] = matmul,      [PM_OP_reshape] = reshape,
        [PM_OP_transpose] = transpose, [PM_OP_expand] = expand,      [PM_OP_tile] = tile,
        [PM_OP_softmax] = along,       [PM_OP_rms_norm] = norm,      [PM_OP_layer_norm] = norm,
        [PM_OP_reduce_sum] = reduce,   [PM_OP_reduce_mean] = reduce, [PM_OP_reduce_max] = reduce,
        [PM_OP_reduce_min] = reduce,   [PM_OP_split] = split,        [PM_OP_slice] = slice,
        [PM_OP_gather] = gather,       [PM_OP_gather_nd] = gather,   [PM_OP_concat] = concat,
        [PM_OP_gather_elements] = pm_body_pick_experts,
    };
    if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE)
        return elementwise;
    return rules[op->code];
}
