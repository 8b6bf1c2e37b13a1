#include "passes/moe/expert_parts.h"

#include <string.h>

#include "ir/extent_rules.h"
#include "ir/op_table.h"

/* ---- helpers --------------------------------------------------------------------------------- */

bool pm_body_stop(pm_expert_body *body, const pm_body_node *node, const char *why)
{
    if (!body->why) {
        body->stopped = node ? node->values[0]->def : NULL;
        body->why = why;
    }
    return false;
}

static bool is_row_atom(const pm_atom *atom)
{
    return atom->kind == PM_ATOM_SEED || atom->kind == PM_ATOM_LIST;
}

/// The row's own part of an axis: the product of its plain atoms; 1 when there is none.
pm_dim pm_body_inner_of(const pm_expert_body *body, const pm_axes *axes, int32_t axis, int32_t *out_n)
{
    const pm_atom *atom;
    int32_t n = pm_axes_at(axes, axis, &atom), plain = 0;
    pm_dim dim = pm_dim_const(body->module, 1);
    for (int32_t i = 0; i < n; i++)
        if (atom[i].kind == PM_ATOM_PLAIN) {
            dim = pm_dim_mul(body->module, dim, atom[i].dim);
            plain++;
        }
    *out_n = plain;
    return dim;
}

/// All of an axis belongs to the row.
bool pm_body_is_inner_axis(const pm_expert_body *body, const pm_axes *axes, int32_t axis)
{
    const pm_atom *atom;
    int32_t n = pm_axes_at(axes, axis, &atom), plain;
    (void)pm_body_inner_of(body, axes, axis, &plain);
    return n == plain && n > 0;
}

/// Extents of the row: one for each axis that has a part of it.
int32_t pm_body_inner_dims(const pm_expert_body *body, const pm_axes *axes, pm_dim *out)
{
    int32_t n = 0, plain;
    for (int32_t axis = 0; axis < axes->rank; axis++) {
        pm_dim dim = pm_body_inner_of(body, axes, axis, &plain);
        if (plain)
            out[n++] = dim;
    }
    return n;
}

/// Which of the row's extents an axis is.
int32_t pm_body_inner_index(const pm_expert_body *body, const pm_axes *axes, int32_t axis)
{
    int32_t n = 0, plain;
    for (int32_t k = 0; k < axis; k++) {
        (void)pm_body_inner_of(body, axes, k, &plain);
        n += plain > 0;
    }
    return n;
}

void pm_body_set_axis_plain(pm_axes *axes, int32_t axis, pm_module *m, pm_dim dim)
{
    pm_axes out = {.rank = axes->rank};
    int64_t one;
    for (int32_t k = 0; k < axes->rank; k++) {
        if (k == axis && !(pm_dim_is_const(m, dim, &one) && one == 1))
            pm_axes_put(&out, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = dim}, k);
        for (int32_t i = 0; k != axis && i < axes->n; i++)
            if (axes->atoms[i].axis == k)
                pm_axes_put(&out, axes->atoms[i], k);
    }
    *axes = out;
}

int32_t pm_body_positive(int64_t axis, int32_t rank)
{
    return (int32_t)(axis < 0 ? axis + rank : axis);
}

pm_op *pm_body_op_of(const pm_body_node *node)
{
    return node->values[0]->def;
}

/* ---- constants ------------------------------------------------------------------------------- */

/// A constant, or a view of one.
static bool is_constant(const pm_value *v)
{
    for (int step = 0; v && v->def && step < PM_BODY_MAX_CHAIN; step++) {
        switch (v->def->code) {
        case PM_OP_const:
        case PM_OP_stack: return true;
        case PM_OP_transpose:
        case PM_OP_reshape:
        case PM_OP_cast: v = v->def->operands[0]; continue;
        default: return v->def->code == PM_OP_fill && pm_value_const(v->def->operands[0]) &&
                        pm_value_const(v->def->operands[1]);
        }
    }
    return false;
}

static bool constant_node(pm_expert_body *body, pm_body_node *node)
{
    node->axes = pm_axes_plain(body->module, node->values[0]->type);
    node->kind = node->width > 1 ? PM_BODY_STACK : PM_BODY_SHARED;
    if (node->width > 1 && node->by_choice)
        return pm_body_stop(body, node, "the choices don't share their weights");
    if (!pm_axes_fit(&node->axes))
        return pm_body_stop(body, node, "it has too many axes");
    for (uint32_t i = 1; i < node->width; i++)
        if (node->values[i]->type != node->values[0]->type)
            return pm_body_stop(body, node, "the experts' weights have unlike shapes");
    return true;
}

/// The same value, or a constant of the same elements: exporters write a weight again for each use of it.
static bool same_tensor(const pm_expert_body *body, const pm_value *a, const pm_value *b)
{
    const pm_data *x = pm_value_const(a), *y = pm_value_const(b);
    const uint8_t *left, *right;
    if (a == b)
        return true;
    return x && y && a->type == b->type && x->size == y->size && pm_data_bytes(body->module, x, &left) == PM_OK &&
           pm_data_bytes(body->module, y, &right) == PM_OK && memcmp(left, right, x->size) == 0;
}

/// Every choice gathers from the same tensor, by its own ids.
static bool gathers_by_choice(const pm_expert_body *body, const pm_body_node *node)
{
    for (uint32_t i = 0; i < node->width; i++) {
        const pm_op *op = node->values[i]->def;
        const pm_moe_fact *ids = pm_moe_fact_of(body->facts, op->operands[1]);
        if (!same_tensor(body, op->operands[0], pm_body_op_of(node)->operands[0]) || !ids || !pm_fact_is_id(ids) ||
            ids->seed != body->seed || ids->choice != (node->by_choice ? (int32_t)i : -1))
            return false;
    }
    return node->by_choice || node->width == 1;
}

/// W[ids]: each choice's slice of the stacked tensor.
static bool gathered_node(pm_expert_body *body, pm_body_node *node, const pm_moe_fact *ids)
{
    const pm_op *op = pm_body_op_of(node);
    const pm_type *w = op->operands[0]->type, *index = op->operands[1]->type;
    int64_t experts;
    bool nd = op->code == PM_OP_gather_nd;
    if (ids->seed != body->seed || !gathers_by_choice(body, node) || w->rank < 1 ||
        !pm_dim_is_const(body->module, w->dims[0], &experts) || experts != body->seed->experts ||
        (!nd && pm_body_positive(pm_op_i64(op, "axis"), w->rank) != 0))
        return pm_body_stop(body, node, "weights are gathered in a way that isn't known");
    pm_axes axes = ids->axes, plain = pm_axes_plain(body->module, w);
    if (nd)
        pm_axes_remove(&axes, index->rank - 1);
    int32_t lead = axes.rank;
    axes.rank += w->rank - 1;
    for (int32_t i = 0; i < plain.n; i++)
        if (plain.atoms[i].axis > 0)
            pm_axes_put(&axes, plain.atoms[i], lead + plain.atoms[i].axis - 1);
    node->axes = axes;
    node->kind = PM_BODY_STACK;
    return pm_axes_fit(&axes) || pm_body_stop(body, node, "it has too many axes");
}

/* ---- leaves ---------------------------------------------------------------------------------- */

/// Axes of the tokens' data: the seed's tokens in front, the row behind.
static bool label_tokens(pm_expert_body *body, const pm_value *v, pm_axes *out)
{
    pm_module *m = body->module;
    const pm_seed *seed = body->seed;
    pm_axes plain = pm_axes_plain(m, v->type);
    int32_t at = 0;
    *out = (pm_axes){.rank = v->type->rank};
    for (int32_t i = 0; i < plain.n; i++) {
        pm_dim have = pm_dim_const(m, 1);
        int32_t first = at;
        while (at < seed->n_dims && have != plain.atoms[i].dim) {
            if (at != seed->choice)
                have = pm_dim_mul(m, have, seed->dims[at]);
            at++;
        }
        if (first < seed->n_dims && have != plain.atoms[i].dim && first != seed->choice)
            return false;
        if (have != plain.atoms[i].dim || first == at) {
            at = seed->n_dims;
            pm_axes_put(out, plain.atoms[i], plain.atoms[i].axis);
            continue;
        }
        for (int32_t k = first; k < at; k++)
            if (k != seed->choice)
                pm_axes_put(out, (pm_atom){.kind = PM_ATOM_SEED, .at = k, .dim = seed->dims[k]},
                            plain.atoms[i].axis);
        if (at == seed->choice)
            at = seed->n_dims;
    }
    return at >= seed->n_dims && pm_axes_fit(out);
}

/// The value under reshapes: two views of the same data are the same input.
static pm_value *under_views(pm_value *v)
{
    while (pm_value_is(v, PM_OP_reshape))
        v = v->def->operands[0];
    return v;
}

static bool input_node(pm_expert_body *body, pm_body_node *node)
{
    pm_value *v = node->values[0];
    if (!label_tokens(body, v, &node->axes))
        return pm_body_stop(body, node, "the experts' input doesn't have the tokens of the router");
    if (body->x && under_views(body->x) != under_views(v))
        return pm_body_stop(body, node, "the experts have more than one input");
    if (!body->x)
        body->x = v;
    node->kind = PM_BODY_ROWS;
    node->is_input = node->zero_stays = true;
    return true;
}

/// Axes of the tokens and choices alone, not of rows in some order.
static bool counts_choices(const pm_axes *axes)
{
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].kind != PM_ATOM_SEED)
            return false;
    return axes->n > 0;
}

/// A number per choice: what the results (or the inputs) are multiplied with.
static bool weight_node(pm_expert_body *body, pm_body_node *node)
{
    const pm_moe_fact *first = pm_moe_fact_of(body->facts, node->values[0]);
    pm_value *weight = NULL;
    bool dense = false;
    for (uint32_t i = 0; i < node->width; i++) {
        const pm_moe_fact *fact = pm_moe_fact_of(body->facts, node->values[i]);
        pm_value *own = NULL;
        bool own_dense = false;
        if (!fact || fact->seed != body->seed || fact->kind != first->kind ||
            fact->choice != (node->by_choice ? (int32_t)i : -1))
            return false;
        if (fact->source) {
            own = fact->source;
        } else if (fact->kind == PM_FACT_MASKED) {
            own = fact->expert >= 0 ? fact->dense : node->values[i];
            own_dense = true;
        } else if (fact->kind == PM_FACT_AXES && node->width == 1 && counts_choices(&fact->axes)) {
            own = node->values[i];
        }
        if (!own || (weight && own != weight) || (i && own_dense != dense))
            return pm_body_stop(body, node, "the experts' weights don't come from one tensor");
        weight = own;
        dense = own_dense;
    }
    if (dense && !body->seed->distinct)
        return pm_body_stop(body, node, "a token may choose an expert twice");
    node->kind = PM_BODY_WEIGHT;
    node->axes = first->axes;
    node->weight = weight;
    node->is_dense_weight = dense;
    return true;
}

/// True when a value has a fact that makes it a weight of choices.
static bool looks_like_weight(const pm_expert_body *body, const pm_value *v)
{
    const pm_moe_fact *fact = pm_moe_fact_of(body->facts, v);
    if (!fact || fact->seed != body->seed || !pm_elem_is_float(v->type->elem))
        return false;
    bool rows = false;
    for (int32_t i = 0; i < fact->axes.n; i++) {
        const pm_atom *atom = &fact->axes.atoms[i];
        if (atom->kind == PM_ATOM_PLAIN)
            return false;
        rows = rows || is_row_atom(atom);
    }
    if (fact->kind == PM_FACT_MASKED)
        return fact->off == 0;
    return rows && fact->kind == PM_FACT_AXES;
}

/* ---- the walk -------------------------------------------------------------------------------- */

static pm_body_node *node_for(pm_expert_body *body, pm_value *const *values, uint32_t width)
{
    bool same = true;
    for (uint32_t i = 1; i < width; i++)
        same = same && values[i] == values[0];
    if (same)
        width = 1;
    uint64_t key = (uint64_t)values[0]->id << 32 | width;
    pm_body_node *node = pm_map_get(&body->known, &key, sizeof key);
    if (node) {
        for (uint32_t i = 1; i < width; i++)
            if (node->values[i] != values[i])
                return NULL;
        return node;
    }
    node = PM_NEW(body->arena, pm_body_node);
    *node = (pm_body_node){.width = width, .id_axis = -1};
    node->values = PM_NEW_ARRAY(body->arena, pm_value *, width);
    memcpy(node->values, values, width * sizeof *values);
    pm_map_put(&body->known, &key, sizeof key, node);
    return node;
}

bool pm_body_attr_same(const pm_attr *a, const pm_attr *b)
{
    if (a->present != b->present || a->i != b->i || a->n != b->n)
        return false;
    if (memcmp(&a->f, &b->f, sizeof a->f) != 0 || (a->s != b->s && (!a->s || !b->s || strcmp(a->s, b->s) != 0)))
        return false;
    return (!a->ints || memcmp(a->ints, b->ints, a->n * sizeof *a->ints) == 0) &&
           (!a->floats || memcmp(a->floats, b->floats, a->n * sizeof *a->floats) == 0);
}

/// All ops of the tuple do the same.
static bool alike(const pm_body_node *node)
{
    const pm_op *first = pm_body_op_of(node);
    if (!first)
        return false;
    for (uint32_t i = 1; i < node->width; i++) {
        const pm_op *op = node->values[i]->def;
        if (!op || op->code != first->code || op->n_operands != first->n_operands || op->n_regions ||
            node->values[i]->index != node->values[0]->index ||
            node->values[i]->type->rank != node->values[0]->type->rank)
            return false;
        for (uint32_t k = 0; k < op->n_attrs; k++)
            if (!pm_body_attr_same(&op->attrs[k], &first->attrs[k]))
                return false;
    }
    return first->n_regions == 0;
}

/// Operands that are part of the body; the others are read where they are (shapes, indices, bounds).
static uint32_t body_operands(const pm_op *op)
{
    switch (op->code) {
    case PM_OP_reshape:
    case PM_OP_expand:
    case PM_OP_tile:
    case PM_OP_slice:
    case PM_OP_split:
    case PM_OP_gather:
    case PM_OP_gather_elements:
    case PM_OP_gather_nd: return 1;
    default: return op->n_operands;
    }
}

static bool same_side_operands(pm_expert_body *body, const pm_body_node *node, uint32_t from)
{
    const pm_op *first = pm_body_op_of(node);
    if (first->code == PM_OP_reshape || first->code == PM_OP_expand)
        return true; // their extents are those of the results
    for (uint32_t k = from; k < first->n_operands; k++)
        for (uint32_t i = 1; i < node->width; i++)
            if (node->values[i]->def->operands[k] != first->operands[k] &&
                !(pm_moe_fact_of(body->facts, first->operands[k])))
                return false;
    return true;
}

static void note_list(pm_expert_body *body, uint32_t expert, const pm_row_list *list)
{
    if (!body->lists)
        body->lists = PM_NEW_ARRAY(body->arena, const pm_row_list *, (size_t)body->seed->experts);
    if ((int64_t)expert >= body->seed->experts || (body->lists[expert] && body->lists[expert] != list))
        body->lists_differ = true;
    else
        body->lists[expert] = list;
}

/// Picks by index in a tuple: expert i's own list each time, in the same way.
static bool own_lists(pm_expert_body *body, const pm_body_node *node)
{
    const pm_op *first = pm_body_op_of(node);
    if (node->width == 1 || node->by_choice || (first->code != PM_OP_gather && first->code != PM_OP_gather_nd))
        return true;
    for (uint32_t i = 0; i < node->width; i++) {
        const pm_moe_fact *index = pm_moe_fact_of(body->facts, node->values[i]->def->operands[1]);
        if (!index || index->kind != PM_FACT_FORMS || index->n_forms != 1 || index->axes.n != 1 ||
            index->axes.atoms[0].kind != PM_ATOM_LIST ||
            index->axes.atoms[0].list->expert != (int64_t)i)
            return false;
        note_list(body, i, index->axes.atoms[0].list);
    }
    return true;
}

bool pm_body_is_segment_concat(const pm_expert_body *body, const pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    return node->width == 1 && op->code == PM_OP_concat && op->n_operands == body->seed->experts &&
           body->seed->sorted && pm_body_positive(pm_op_i64(op, "axis"), op->results[0]->type->rank) == 0 &&
           pm_dim_is_dynamic(body->module, op->operands[0]->type->dims[0]);
}

static bool is_before(const pm_expert_body *body, const pm_op *op)
{
    return op->serial < body->seed->n_before && body->seed->before[op->serial];
}

/// All pieces of the rows in the order of their experts, one for each.
static bool cuts_by_expert(const pm_expert_body *body, const pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    if (op->n_results != body->seed->experts || node->width != op->n_results || node->by_choice)
        return false;
    for (uint32_t i = 0; i < node->width; i++) {
        const pm_moe_fact *fact = pm_moe_fact_of(body->facts, node->values[i]);
        bool own = false;
        for (int32_t k = 0; fact && fact->seed == body->seed && k < fact->axes.n; k++)
            own = own || (fact->axes.atoms[k].kind == PM_ATOM_LIST &&
                          fact->axes.atoms[k].list->kind == PM_LIST_SEGMENT &&
                          fact->axes.atoms[k].list->expert == (int64_t)i);
        if (!own || node->values[i]->def != op || node->values[i]->index != i)
            return false;
    }
    return true;
}

/// Leaves are known at once; of others the operands come first.
typedef enum { LEAF, INNER, WRONG } found;

static bool has_rule(const pm_expert_body *body, const pm_body_node *node)
{
    const pm_op *op = pm_body_op_of(node);
    return pm_body_rule_of(op) && (op->code != PM_OP_gather_elements || pm_body_picks_experts(body, node));
}

static found classify(pm_expert_body *body, pm_body_node *node)
{
    pm_value *v = node->values[0];
    bool constant = true;
    for (uint32_t i = 0; i < node->width && constant; i++)
        constant = is_constant(node->values[i]);
    if (constant)
        return constant_node(body, node) ? LEAF : WRONG;
    if (looks_like_weight(body, v) && weight_node(body, node))
        return LEAF;
    const pm_op *op = v->def;
    if (op && (op->code == PM_OP_gather || op->code == PM_OP_gather_nd) && is_constant(op->operands[0])) {
        const pm_moe_fact *ids = pm_moe_fact_of(body->facts, op->operands[1]);
        if (ids && pm_fact_is_id(ids))
            return gathered_node(body, node, ids) ? LEAF : WRONG;
    }
    if (node->width == 1 && op && (op->code == PM_OP_gather || op->code == PM_OP_gather_nd) &&
        is_constant(op->operands[0]) && !pm_moe_fact_of(body->facts, op->operands[1]))
        return input_node(body, node) ? LEAF : WRONG; // an embedding
    if (op && !is_before(body, op) && pm_body_find_join(body, node))
        return INNER;
    node->cut = op && op->code == PM_OP_split && cuts_by_expert(body, node);
    if (node->cut)
        return INNER;
    const pm_op *base = under_views(v)->def;
    pm_axes ignored;
    bool may_be_input = node->width == 1 && (!op || is_before(body, op) || !has_rule(body, node) ||
                                             ((!base || is_before(body, base)) && label_tokens(body, v, &ignored)));
    if (may_be_input)
        return input_node(body, node) ? LEAF : WRONG;
    if (!op || !alike(node) || !has_rule(body, node) || !same_side_operands(body, node, body_operands(op)) ||
        !own_lists(body, node)) {
        (void)pm_body_stop(body, node, node->width > 1 ? "the experts don't do the same here" : "it isn't known in an expert");
        return WRONG;
    }
    for (uint32_t i = 0; i < node->width; i++)
        if (!pm_op_extents_fit(node->values[i]->def)) {
            (void)pm_body_stop(body, node, "only the run can tell whether its extents fit");
            return WRONG;
        }
    return INNER;
}

/// The operand nodes of a node, made and put on the stack.
typedef PM_VEC(pm_body_node *) node_vec;

static bool push_operands(pm_expert_body *body, pm_body_node *node, node_vec *stack)
{
    const pm_op *op = pm_body_op_of(node);
    bool whole = pm_body_is_segment_concat(body, node) || pm_body_stacks_experts(body, node);
    bool by_choice = node->by_choice && !whole && !pm_body_picks_experts(body, node);
    pm_value **all = node->parts ? node->parts : op->operands; // of a whole
    uint32_t n_all = node->parts ? node->n_parts : op->n_operands;
    whole = whole || node->parts;
    node->n_operands = whole ? 1 : body_operands(op);
    node->operands = PM_NEW_ARRAY(body->arena, pm_body_node *, node->n_operands + 1);
    pm_value **tuple = PM_NEW_ARRAY(body->arena, pm_value *, node->width + n_all);
    for (uint32_t k = 0; k < node->n_operands; k++) {
        uint32_t width = whole ? n_all : node->width;
        for (uint32_t i = 0; i < width; i++)
            tuple[i] = whole ? all[i] : node->values[i]->def->operands[k];
        if (!tuple[0])
            return pm_body_stop(body, node, "an operand is missing");
        node->operands[k] = node_for(body, tuple, width);
        if (!node->operands[k] || node->operands[k]->state == 1)
            return pm_body_stop(body, node, "the experts' ops are mixed");
        if (node->operands[k]->state == 0) {
            node->operands[k]->by_choice = by_choice;
            PM_PUSH(body->arena, stack, node->operands[k]);
        }
    }
    return true;
}

static bool walk(pm_expert_body *body, pm_body_node *root)
{
    node_vec stack = {0};
    PM_PUSH(body->arena, &stack, root);
    while (stack.n) {
        pm_body_node *node = stack.data[stack.n - 1];
        if (node->state == 2) {
            stack.n--;
            continue;
        }
        if (node->state == 0) {
            found what = classify(body, node);
            if (what == WRONG)
                return false;
            node->state = what == LEAF ? 2 : 1;
            if (what == LEAF)
                PM_PUSH(body->arena, &body->nodes, node);
            else if (!push_operands(body, node, &stack))
                return false;
            continue;
        }
        pm_body_rule *rule = node->parts                             ? pm_body_join
                             : pm_body_is_segment_concat(body, node) ? pm_body_segments
                             : pm_body_stacks_experts(body, node)    ? pm_body_stack_experts
                                                                     : pm_body_rule_of(pm_body_op_of(node));
        if (!rule(body, node))
            return pm_body_stop(body, node, "it doesn't work row by row");
        for (uint32_t i = 0; i < node->n_operands; i++)
            if (node->operands[i]->kind == PM_BODY_STACK && node->kind == PM_BODY_ROWS)
                node->operands[i]->captured = true;
        node->state = 2;
        PM_PUSH(body->arena, &body->nodes, node);
        if (body->nodes.n > PM_BODY_MAX_NODES)
            return pm_body_stop(body, node, "there are too many ops");
    }
    return true;
}

/// Finds what the ids depend on, once for each seed: the experts' input is among it.
static void find_before(const pm_expert_body *body)
{
    pm_seed *seed = (pm_seed *)body->seed;
    PM_VEC(pm_op *) work = {0};
    if (seed->before)
        return;
    seed->n_before = body->module->next_serial;
    uint8_t *before = PM_NEW_ARRAY(body->arena, uint8_t, seed->n_before + 1);
    seed->before = before;
    if (seed->ids->def)
        PM_PUSH(body->arena, &work, seed->ids->def);
    while (work.n) {
        pm_op *op = work.data[--work.n];
        if (op->serial >= seed->n_before || before[op->serial])
            continue;
        before[op->serial] = 1;
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] && op->operands[i]->def)
                PM_PUSH(body->arena, &work, op->operands[i]->def);
    }
}

/// Each expert's part of a tuple has the shape of the first's, but for its own number of rows: else one of them
/// doesn't do what the first does (weights along another axis), though its ops are the same.
static bool shapes_agree(pm_expert_body *body, uint32_t width)
{
    pm_dim *rows = PM_NEW_ARRAY(body->arena, pm_dim, width); // of each expert's list
    for (uint32_t i = 0; i < width; i++)
        rows[i] = PM_DIM_NONE;
    for (size_t pass = 0; pass < 2; pass++) // the lists first: what is spread over them may come before them
        for (size_t at = 0; at < body->nodes.n; at++) {
            const pm_body_node *node = body->nodes.data[at];
            const pm_type *first = node->values[0]->type;
            for (int32_t axis = 0; node->width > 1 && axis < first->rank; axis++) {
                const pm_atom *atom;
                bool is_list = pm_axes_at(&node->axes, axis, &atom) == 1 && atom->kind == PM_ATOM_LIST;
                for (uint32_t i = 0; is_list && pass == 0 && i < node->width; i++)
                    if (rows[i] == PM_DIM_NONE)
                        rows[i] = node->values[i]->type->dims[axis];
                for (uint32_t i = 0; pass == 1 && i < node->width; i++) {
                    pm_dim have = node->values[i]->type->dims[axis], want = first->dims[axis];
                    if (want == rows[0] && (is_list || have != want))
                        want = rows[i];
                    if (have != want)
                        return pm_body_stop(body, node, "the experts' shapes aren't the same here");
                }
            }
        }
    return true;
}

bool pm_expert_body_find(pm_expert_body *body, pm_moe_facts *facts, const pm_seed *seed,
                         pm_value *const *results, uint32_t width, bool by_choice)
{
    *body = (pm_expert_body){.facts = facts, .module = facts->module, .arena = facts->arena, .seed = seed,
                             .by_choice = by_choice};
    pm_map_init(&body->known, body->arena);
    find_before(body);
    body->result = node_for(body, results, width);
    body->result->by_choice = by_choice;
    if (!walk(body, body->result) || !shapes_agree(body, width > seed->experts ? width : (uint32_t)seed->experts))
        return false;
    if (body->result->kind != PM_BODY_ROWS || !body->x)
        return pm_body_stop(body, body->result, "there is nothing of an expert in it");
    if (body->apply_input && body->result->weight)
        return pm_body_stop(body, body->result, "there is a second weight of the choice");
    if (body->apply_input && !body->result->zero_stays && body->input_dense)
        return pm_body_stop(body, body->result, "experts that aren't chosen give something");
    return true;
}
