/// Results of all experts for all tokens, of which each choice takes its own: gathered by the chosen ids. On one row
/// nothing happens, but what counted tokens and experts counts tokens and choices behind it.
#include "passes/moe/expert_parts.h"

#include "ir/op_table.h"

/// What an index, or a term of one, says: the chosen expert or the token itself, times a factor.
typedef struct term {
    bool is_id;
    pm_dim factor;
    pm_axes axes; ///< of the index
} term;

typedef struct pick {
    term terms[2];
    int32_t n;
    int32_t axis;  ///< of the data: the first that is picked from
    int32_t batch; ///< axes in front that data and index share
    bool flat;     ///< one axis of the data counts tokens and experts; the terms are added
} pick;

static bool is_count(const pm_expert_body *body, const pm_atom *atom)
{
    return atom->kind == PM_ATOM_SEED && atom->at != body->seed->choice;
}

static pm_dim count_tokens(const pm_expert_body *body)
{
    pm_dim n = pm_dim_const(body->module, 1);
    for (int32_t i = 0; i < body->seed->n_dims; i++)
        if (i != body->seed->choice)
            n = pm_dim_mul(body->module, n, body->seed->dims[i]);
    return n;
}

/// All tokens in order along `axis`, and nothing else there.
static bool counts_tokens(const pm_expert_body *body, const pm_axes *axes, int32_t axis, int32_t *out_n)
{
    const pm_atom *atom;
    int32_t n = pm_axes_at(axes, axis, &atom), at = 0, i = 0;
    for (; i < n && is_count(body, &atom[i]); i++, at++) {
        at += at == body->seed->choice;
        if (atom[i].at != at)
            break;
    }
    *out_n = i;
    at += at == body->seed->choice;
    return i > 0 && at == body->seed->n_dims;
}

/* ---- the index --------------------------------------------------------------------------------- */

/// 0, 1, 2, ... up to `n`.
static bool counts_up(const pm_value *v, pm_dim n)
{
    int64_t first, step;
    size_t count;
    return pm_value_is(v, PM_OP_range) && v->type->dims[0] == n &&
           pm_value_const_ints(v->def->operands[0], &first, 1, &count) && first == 0 &&
           pm_value_const_ints(v->def->operands[2], &step, 1, &count) && step == 1;
}

/// The tokens, each as many times as it has choices: (0, 1, 2, ...) / k.
static bool counts_slowly(const pm_expert_body *body, const pm_value *v)
{
    int64_t by, k;
    size_t count;
    return body->seed->choice >= 0 && body->seed->choice == body->seed->n_dims - 1 && pm_value_is(v, PM_OP_div) &&
           v->type->rank == 1 &&
           pm_dim_is_const(body->module, body->seed->dims[body->seed->choice], &k) &&
           pm_value_const_ints(v->def->operands[1], &by, 1, &count) && by == k &&
           counts_up(v->def->operands[0], pm_dim_mul(body->module, count_tokens(body), pm_dim_const(body->module, k)));
}

/// The number of each token, seen through views: which axes of `v` count them.
bool pm_body_numbers_tokens(const pm_expert_body *body, pm_value *v, pm_axes *out)
{
    const pm_op *chain[PM_BODY_MAX_CHAIN];
    int n = 0;
    while (v->def && (v->def->code == PM_OP_reshape || v->def->code == PM_OP_expand || v->def->code == PM_OP_cast)) {
        if (n == PM_BODY_MAX_CHAIN)
            return false;
        chain[n++] = v->def;
        v = v->def->operands[0];
    }
    bool slowly = counts_slowly(body, v);
    if (!slowly && !counts_up(v, count_tokens(body)))
        return false;
    *out = (pm_axes){.rank = 1};
    for (int32_t i = 0; i < body->seed->n_dims; i++)
        if (i != body->seed->choice)
            pm_axes_put(out, (pm_atom){.kind = PM_ATOM_SEED, .at = i, .dim = body->seed->dims[i]}, 0);
    if (slowly)
        pm_axes_put(out, (pm_atom){.kind = PM_ATOM_SPREAD, .dim = body->seed->dims[body->seed->choice]}, 0);
    while (n-- > 0) {
        pm_axes in = *out;
        const pm_type *type = chain[n]->results[0]->type;
        if ((chain[n]->code == PM_OP_reshape && !pm_axes_reshape(body->module, &in, type, out)) ||
            (chain[n]->code == PM_OP_expand && !pm_axes_expand(body->module, &in, type, out)))
            return false;
    }
    return true;
}

static bool read_term(const pm_expert_body *body, pm_value *v, int32_t choice, term *out)
{
    const pm_moe_fact *fact = pm_moe_fact_of(body->facts, v);
    out->factor = pm_dim_const(body->module, 1);
    out->is_id = fact && fact->seed == body->seed && fact->choice == choice && pm_fact_is_id(fact);
    if (out->is_id)
        out->axes = fact->axes;
    return out->is_id || pm_body_numbers_tokens(body, v, &out->axes);
}

/// One integer, constant or an extent.
static bool read_factor(pm_value *v, pm_module *m, pm_dim *out)
{
    int64_t value, count;
    size_t n;
    while (pm_value_is(v, PM_OP_reshape) || pm_value_is(v, PM_OP_cast))
        v = v->def->operands[0];
    if (pm_value_const_ints(v, &value, 1, &n) && n == 1) {
        *out = pm_dim_const(m, value);
        return true;
    }
    if (!v->content || !pm_type_const_count(m, v->type, &count) || count != 1)
        return false;
    *out = v->content[0];
    return true;
}

/// token * experts + id, or id * tokens + token.
static bool read_sum(const pm_expert_body *body, const pm_value *index, int32_t choice, pick *p)
{
    if (!pm_value_is(index, PM_OP_add))
        return false;
    p->n = 2;
    p->flat = true;
    for (uint32_t i = 0; i < 2; i++) {
        pm_value *v = index->def->operands[i];
        pm_dim factor = pm_dim_const(body->module, 1);
        for (uint32_t k = 0; k < 2 && pm_value_is(v, PM_OP_mul); k++)
            if (read_factor(v->def->operands[k], body->module, &factor)) {
                v = v->def->operands[1 - k];
                break;
            }
        if (!read_term(body, v, choice, &p->terms[i]))
            return false;
        p->terms[i].factor = factor;
        int32_t shift = index->type->rank - p->terms[i].axes.rank;
        for (int32_t k = 0; k < p->terms[i].axes.n; k++)
            p->terms[i].axes.atoms[k].axis += shift;
        p->terms[i].axes.rank += shift;
    }
    return p->terms[0].is_id != p->terms[1].is_id;
}

/// One term for each axis that is picked from, side by side along the last axis.
static bool read_places(const pm_expert_body *body, pm_value *index, int32_t choice, pick *p)
{
    int64_t depth;
    int32_t last = index->type->rank - 1;
    if (last < 0 || !pm_dim_is_const(body->module, index->type->dims[last], &depth) || depth < 1 || depth > 2)
        return false;
    p->n = (int32_t)depth;
    bool apart = pm_value_is(index, PM_OP_concat) && index->def->n_operands == 2 &&
                 pm_body_positive(pm_op_i64(index->def, "axis"), last + 1) == last;
    if (depth == 2 && !apart)
        return false;
    for (int32_t i = 0; i < p->n; i++) {
        if (!read_term(body, depth == 1 ? index : index->def->operands[i], choice, &p->terms[i]))
            return false;
        pm_axes_remove(&p->terms[i].axes, last);
    }
    return p->n == 1 ? p->terms[0].is_id : p->terms[0].is_id != p->terms[1].is_id;
}

static bool read_pick(const pm_expert_body *body, const pm_op *op, int32_t choice, pick *p)
{
    pm_value *index = op->operands[1];
    int32_t rank = op->operands[0]->type->rank;
    *p = (pick){.n = 1};
    switch (op->code) {
    case PM_OP_gather_elements:
        p->axis = pm_body_positive(pm_op_i64(op, "axis"), rank);
        return read_term(body, index, choice, &p->terms[0]) && p->terms[0].is_id;
    case PM_OP_gather:
        p->axis = pm_body_positive(pm_op_i64(op, "axis"), rank);
        return read_sum(body, index, choice, p);
    case PM_OP_gather_nd:
        p->axis = p->batch = (int32_t)pm_op_i64(op, "batch_dims");
        return read_places(body, index, choice, p);
    default: return false;
    }
}

bool pm_body_picks_experts(const pm_expert_body *body, const pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    pick p;
    return op && op->n_operands > 1 && read_pick(body, op, node->by_choice ? 0 : -1, &p);
}

/* ---- what it gives ------------------------------------------------------------------------------- */

/// The index names each token's own row: where its ids count tokens, `other` counts the same ones.
static bool same_tokens(const pm_expert_body *body, const pm_axes *ids, int32_t axis, const pm_axes *other,
                        int32_t other_axis)
{
    const pm_atom *a, *b;
    int32_t n = pm_axes_at(ids, axis, &a), k = pm_axes_at(other, other_axis, &b), tokens = 0;
    for (int32_t i = 0; i < k; i++) {
        if (!is_count(body, &b[i]))
            continue;
        while (tokens < n && !is_count(body, &a[tokens]))
            tokens++;
        if (tokens >= n || a[tokens].at != b[i].at)
            return false;
        tokens++;
    }
    while (tokens < n && !is_count(body, &a[tokens]))
        tokens++;
    return tokens >= n;
}

/// An axis that counts experts alone, or all tokens alone.
static bool term_fits(const pm_expert_body *body, const term *t, const pm_axes *data, int32_t axis)
{
    const pm_atom *atom;
    int32_t n = pm_axes_at(data, axis, &atom), tokens;
    return t->is_id ? n == 1 && atom->kind == PM_ATOM_ID
                    : counts_tokens(body, data, axis, &tokens) && tokens == n;
}

/// One axis of tokens and experts: the factors are what stands behind.
static bool sum_fits(const pm_expert_body *body, const pick *p, const pm_axes *data)
{
    const pm_atom *atom;
    int32_t n = pm_axes_at(data, p->axis, &atom), tokens;
    const term *id = &p->terms[!p->terms[0].is_id], *token = &p->terms[p->terms[0].is_id];
    pm_dim one = pm_dim_const(body->module, 1), experts = pm_dim_const(body->module, body->seed->experts);
    if (n > 1 && atom->kind == PM_ATOM_ID) {
        pm_axes behind = *data;
        pm_axes_drop_atoms(&behind, p->axis);
        for (int32_t i = 1; i < n; i++)
            pm_axes_put(&behind, atom[i], p->axis);
        return counts_tokens(body, &behind, p->axis, &tokens) && tokens == n - 1 &&
               id->factor == count_tokens(body) && token->factor == one;
    }
    return counts_tokens(body, data, p->axis, &tokens) && tokens == n - 1 && atom[n - 1].kind == PM_ATOM_ID &&
           token->factor == experts && id->factor == one;
}

static void copy_atoms(pm_axes *to, int32_t axis, const pm_axes *from, int32_t from_axis)
{
    const pm_atom *atom;
    int32_t n = pm_axes_at(from, from_axis, &atom);
    for (int32_t i = 0; i < n; i++)
        pm_axes_put(to, atom[i], axis);
}

/// Elements picked one by one: the index has the result's axes.
static bool pick_elements(const pm_expert_body *body, const pick *p, const pm_op *op, const pm_axes *data, pm_axes *out)
{
    const pm_axes *ids = &p->terms[0].axes;
    const pm_type *from = op->operands[0]->type, *index = op->operands[1]->type;
    const pm_atom *atom;
    *out = (pm_axes){.rank = data->rank};
    for (int32_t axis = 0; axis < data->rank; axis++) {
        int32_t n = pm_axes_at(ids, axis, &atom);
        if (axis == p->axis) {
            if (!term_fits(body, &p->terms[0], data, axis) || (n && is_count(body, atom)))
                return false;
            copy_atoms(out, axis, ids, axis);
            continue;
        }
        if (from->dims[axis] != index->dims[axis] || !same_tokens(body, ids, axis, data, axis))
            return false;
        for (int32_t i = 0; i < n; i++)
            if (!is_count(body, &atom[i]) && atom[i].kind != PM_ATOM_SPREAD)
                return false;
        copy_atoms(out, axis, data, axis);
    }
    return true;
}

/// Rows picked: the index's axes stand where those were that are picked from.
static bool pick_rows(const pm_expert_body *body, const pick *p, const pm_axes *data, pm_axes *out)
{
    const pm_axes *ids = &p->terms[!p->terms[0].is_id].axes;
    int32_t gone = p->flat ? 1 : p->n, front = p->flat ? p->axis : 0, behind = front + ids->rank;
    for (int32_t axis = 0; axis < p->batch; axis++)
        if (!same_tokens(body, ids, axis, data, axis))
            return false;
    for (int32_t i = 0; i < p->n; i++) {
        if (!p->flat && !term_fits(body, &p->terms[i], data, p->axis + i))
            return false;
        for (int32_t axis = 0; axis < ids->rank && !p->terms[i].is_id; axis++)
            if (!same_tokens(body, ids, axis, &p->terms[i].axes, axis))
                return false;
    }
    if (p->flat && !sum_fits(body, p, data))
        return false;
    *out = (pm_axes){.rank = data->rank - gone - p->batch + ids->rank};
    for (int32_t axis = 0; axis < front; axis++)
        copy_atoms(out, axis, data, axis);
    for (int32_t axis = 0; axis < ids->rank; axis++)
        copy_atoms(out, front + axis, ids, axis);
    for (int32_t axis = p->axis + gone; axis < data->rank; axis++)
        copy_atoms(out, behind++, data, axis);
    return true;
}

/// Every token and choice once, the row, and nothing else.
static bool is_by_choice(const pm_expert_body *body, const pm_axes *axes, bool of_one)
{
    uint32_t seen = 0;
    for (int32_t i = 0; i < axes->n; i++) {
        const pm_atom *atom = &axes->atoms[i];
        if (atom->kind == PM_ATOM_PLAIN)
            continue;
        if (atom->kind != PM_ATOM_SEED || seen >> atom->at & 1)
            return false;
        seen |= 1u << atom->at;
    }
    for (int32_t i = 0; i < body->seed->n_dims; i++)
        if (i != body->seed->choice && !(seen >> i & 1))
            return false;
    return body->seed->choice < 0 || of_one || seen >> body->seed->choice & 1;
}

bool pm_body_pick_experts(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = pm_body_data_of(node);
    node->picks = true;
    node->kind = PM_BODY_ROWS;
    node->zero_stays = x->zero_stays;
    if (x->kind != PM_BODY_ROWS || x->width > 1 || x->weight || (node->width > 1 && !node->by_choice))
        return pm_body_stop(body, node, "experts' results are picked from something else than rows of all experts");
    for (uint32_t i = 0; i < node->width; i++) {
        const pm_op *op = node->values[i]->def;
        pick p;
        pm_axes axes;
        bool fits = read_pick(body, op, node->by_choice ? (int32_t)i : -1, &p) && pm_axes_fit(&p.terms[0].axes) &&
                    (op->code == PM_OP_gather_elements ? pick_elements(body, &p, op, &x->axes, &axes)
                                                       : pick_rows(body, &p, &x->axes, &axes)) &&
                    pm_axes_fit(&axes) && is_by_choice(body, &axes, node->by_choice);
        if (!fits)
            return pm_body_stop(body, node, "experts' results are picked in a way that isn't known");
        if (i && !pm_axes_same(&axes, &node->axes))
            return pm_body_stop(body, node, "the choices pick in different ways");
        node->axes = axes;
    }
    return true;
}

/* ---- experts side by side ------------------------------------------------------------------------ */

/// The results of all experts, one after the other along an axis of their own, or in front of the tokens'.
bool pm_body_stacks_experts(const pm_expert_body *body, const pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    int64_t one;
    if (node->width != 1 || !op || op->code != PM_OP_concat || op->n_operands != body->seed->experts)
        return false;
    int32_t axis = pm_body_positive(pm_op_i64(op, "axis"), op->results[0]->type->rank);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        pm_dim dim = op->operands[i]->type->dims[axis];
        if (!(pm_dim_is_const(body->module, dim, &one) && one == 1) && dim != count_tokens(body))
            return false;
    }
    return true;
}

bool pm_body_stack_experts(pm_expert_body *body, pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    pm_body_node *x = node->operands[0];
    int32_t at = pm_body_positive(pm_op_i64(op, "axis"), op->results[0]->type->rank);
    const pm_atom *atom;
    if (x->kind != PM_BODY_ROWS || x->weight || (pm_axes_at(&x->axes, at, &atom) && !is_count(body, atom)))
        return pm_body_stop(body, node, "it puts rows below one another");
    node->kind = PM_BODY_ROWS;
    node->zero_stays = x->zero_stays;
    node->axes = (pm_axes){.rank = x->axes.rank};
    for (int32_t axis = 0; axis < x->axes.rank; axis++) {
        if (axis == at)
            pm_axes_put(&node->axes, (pm_atom){.kind = PM_ATOM_ID, .dim = pm_dim_const(body->module, body->seed->experts)}, axis);
        copy_atoms(&node->axes, axis, &x->axes, axis);
    }
    return pm_axes_fit(&node->axes);
}
