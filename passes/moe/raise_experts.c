/// Experts that a graph spells out become one `experts` op.
///
/// Exporters hide a layer of experts in many shapes, but all of them end in a sum: over the choices of a token,
/// over all experts, or expert by expert onto an accumulator. This pass looks at such sums, takes out of them what
/// an expert computes on a row (expert_body.c), and says it once: tokens, chosen experts, weights, bodies.
/// moe_facts.c knows what indices and masks mean; nothing here depends on who wrote the graph.
#include <inttypes.h>
#include <string.h>

#include "ir/extent_rules.h"
#include "ir/op_table.h"
#include "passes/findings.h"
#include "passes/generic/rewrite.h"
#include "passes/moe/expert_parts.h"
#include "passes/moe/spell_out.h"
#include "passes/passes.h"

typedef struct near_miss {
    const pm_seed *seed;
    size_t n_nodes; ///< how far matching came
    pm_near_miss miss;
} near_miss;

typedef struct raiser {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_arena *scratch;
    pm_moe_facts facts;
    PM_VEC(const pm_seed *) seeds; ///< in the order of the graph
    uint32_t n_layers;
    PM_VEC(near_miss) missed;
} raiser;

/// A sum that may be over experts: its place, and the values that hold the experts' results.
typedef struct candidate {
    pm_op *anchor;
    pm_value *result;      ///< what the sum gives
    pm_value **results;    ///< one, or one for each expert
    uint32_t width;
    const pm_seed *seed;
    bool by_choice;        ///< one for each choice of a token instead
    bool scatters;         ///< each is of rows picked for its expert
    int32_t summed_axis;   ///< of the one value; -1: the results are added up as they are
    pm_value **others;     ///< what else the sum holds (a residual)
    size_t n_others;
} candidate;

/* ---- building -------------------------------------------------------------------------------- */

static pm_dim count_of(raiser *r, const pm_seed *seed, bool choices)
{
    pm_dim count = pm_dim_const(r->m, 1);
    for (int32_t i = 0; i < seed->n_dims; i++)
        if ((i == seed->choice) == choices)
            count = pm_dim_mul(r->m, count, seed->dims[i]);
    return count;
}

/// [tokens, k] of a value over the choices, whatever the order of its axes.
static pm_status by_choice(raiser *r, pm_builder *b, pm_value *v, const pm_axes *axes, const pm_seed *seed,
                           pm_value **out)
{
    pm_dim dims[2] = {count_of(r, seed, false), count_of(r, seed, true)};
    int64_t perm[PM_MAX_RANK];
    int32_t n = 0, choice_axis = -1;
    bool only_choice = true;
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].kind == PM_ATOM_SEED && axes->atoms[i].at == seed->choice)
            choice_axis = axes->atoms[i].axis;
    for (int32_t i = 0; choice_axis >= 0 && i < axes->n; i++)
        only_choice = only_choice && (axes->atoms[i].axis != choice_axis || axes->atoms[i].at == seed->choice);
    if (choice_axis >= 0 && only_choice) { // the choices last
        for (int32_t i = 0; i < axes->rank; i++)
            if (i != choice_axis)
                perm[n++] = i;
        perm[n++] = choice_axis;
        if (choice_axis != axes->rank - 1)
            PM_TRY(pm_build1(b, &v, PM_OP_transpose, PM_OPERANDS(v), PM_ATTRS(pm_attr_ints("perm", perm, (size_t)n))));
    }
    if (choice_axis < 0 && seed->choice >= 0) { // one weight for all choices of a token
        pm_value *shape;
        pm_dim one[2] = {dims[0], pm_dim_const(r->m, 1)};
        PM_TRY(pm_build_reshape_dims(b, v, 2, one, &v));
        PM_TRY(pm_build_dims(b, 2, dims, &shape));
        return pm_build1(b, out, PM_OP_expand, PM_OPERANDS(v, shape), PM_NO_ATTRS);
    }
    return pm_build_reshape_dims(b, v, 2, dims, out);
}

/// Dense weights that are computed, element by element, from the choices' weights put at their experts: at the
/// chosen experts they are what is computed from the choices' weights. NULL: they aren't.
static pm_status undense(raiser *r, pm_builder *b, pm_value *w, pm_value **out)
{
    pm_op *chain[4];
    int n = 0;
    *out = NULL;
    for (;; w = w->def->operands[0]) {
        const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, w);
        if (!fact || fact->kind != PM_FACT_MASKED || !w->def)
            return PM_OK;
        if (fact->source) {
            *out = fact->source;
            break;
        }
        if (w->def->code == PM_OP_transpose || w->def->code == PM_OP_reshape)
            continue;
        if (w->def->n_operands != 1 || n == (int)PM_COUNT(chain) ||
            !(pm_op_info_of(w->def)->traits & PM_T_ELEMENTWISE))
            return PM_OK;
        chain[n++] = w->def;
    }
    while (n-- > 0)
        PM_TRY(pm_build1(b, out, chain[n]->code, PM_OPERANDS(*out), chain[n]->attrs, chain[n]->n_attrs));
    return PM_OK;
}

/// The weights of the choices [tokens, k] in f32, from what the body found.
static pm_status build_weights(raiser *r, pm_builder *b, const pm_expert_body *body, pm_value *ids,
                               pm_value **out)
{
    const pm_seed *seed = body->seed;
    pm_value *w = body->apply_input ? body->input_weight : body->result->weight;
    bool is_dense = body->apply_input ? body->input_dense : body->result->is_dense_weight;
    pm_dim dims[2] = {count_of(r, seed, false), count_of(r, seed, true)};
    static const float one = 1;
    if (!w) {
        pm_value *shape, *value;
        PM_TRY(pm_build_dims(b, 2, dims, &shape));
        PM_TRY(pm_build_const_f32(b, 0, NULL, &one, &value));
        return pm_build1(b, out, PM_OP_fill, PM_OPERANDS(shape, value), PM_NO_ATTRS);
    }
    pm_axes axes = pm_moe_fact_of(&r->facts, w)->axes;
    pm_value *plain = NULL;
    if (is_dense)
        PM_TRY(undense(r, b, w, &plain));
    if (plain) {
        const pm_value *source = plain;
        while (!pm_moe_fact_of(&r->facts, source))
            source = source->def->operands[0];
        axes = pm_moe_fact_of(&r->facts, source)->axes;
        PM_TRY(by_choice(r, b, plain, &axes, seed, out));
    } else if (is_dense) { // [.., experts] by tokens: those that were chosen
        int64_t perm[PM_MAX_RANK];
        int32_t n = 0, id_axis = -1;
        for (int32_t i = 0; i < axes.n; i++)
            if (axes.atoms[i].kind == PM_ATOM_ID)
                id_axis = axes.atoms[i].axis;
        for (int32_t i = 0; i < axes.rank; i++)
            if (i != id_axis)
                perm[n++] = i;
        perm[n++] = id_axis;
        if (id_axis != axes.rank - 1)
            PM_TRY(pm_build1(b, &w, PM_OP_transpose, PM_OPERANDS(w), PM_ATTRS(pm_attr_ints("perm", perm, (size_t)n))));
        pm_dim dense[2] = {dims[0], pm_dim_const(r->m, seed->experts)};
        PM_TRY(pm_build_reshape_dims(b, w, 2, dense, &w));
        PM_TRY(pm_build1(b, out, PM_OP_gather_elements, PM_OPERANDS(w, ids), PM_ATTRS(pm_attr_i64("axis", 1))));
    } else {
        PM_TRY(by_choice(r, b, w, &axes, seed, out));
    }
    if ((*out)->type->elem != PM_F32)
        PM_TRY(pm_build1(b, out, PM_OP_cast, PM_OPERANDS(*out), PM_ATTRS(pm_attr_elem("to", PM_F32))));
    return PM_OK;
}

static pm_status build_ids(raiser *r, pm_builder *b, const pm_seed *seed, pm_value **out)
{
    const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, seed->ids);
    PM_TRY(by_choice(r, b, seed->ids, &fact->axes, seed, out));
    if ((*out)->type->elem != PM_I32)
        PM_TRY(pm_build1(b, out, PM_OP_cast, PM_OPERANDS(*out), PM_ATTRS(pm_attr_elem("to", PM_I32))));
    return PM_OK;
}

/// The rows' type in a region, and its captured arguments.
static pm_graph *add_region(raiser *r, pm_op *op, const pm_type *x, const pm_value_vec *operands, bool slices)
{
    pm_graph *region = pm_region_create(op);
    pm_dim bound = pm_dim_mul(r->m, x->dims[0], pm_dim_const(r->m, pm_op_i64(op, "top_k")));
    pm_dim dims[2] = {pm_dim_fresh(r->m, "n", bound), x->dims[1]};
    (void)pm_graph_add_arg(region, "rows", pm_type_get(r->m, x->elem, 2, dims), -1);
    for (size_t i = 3; i < operands->n; i++) {
        const pm_type *type = operands->data[i]->type;
        if (slices)
            type = pm_type_get(r->m, type->elem, type->rank - 1, type->dims + 1);
        (void)pm_graph_add_arg(region, NULL, type, -1);
    }
    return region;
}

static const char *layer_name(raiser *r)
{
    return pm_arena_printf(r->scratch, "layers.%u", r->n_layers);
}

/// The experts op from one body that all share, or one of each expert.
static pm_status build_experts(raiser *r, pm_builder *b, const candidate *c, pm_expert_body *bodies,
                               uint32_t n_bodies, pm_value **out)
{
    const pm_seed *seed = c->seed;
    int64_t top_k = 1;
    (void)pm_dim_is_const(r->m, count_of(r, seed, true), &top_k);
    pm_value_vec operands = {0};
    pm_value *x = bodies[0].x, *ids, *weights;
    pm_dim dims[2] = {count_of(r, seed, false), pm_dim_const(r->m, 1)};
    pm_axes axes = {0};
    for (size_t i = 0; i < bodies[0].nodes.n; i++) // the row's width: what isn't tokens
        if (bodies[0].nodes.data[i]->values[0] == x)
            axes = bodies[0].nodes.data[i]->axes;
    for (int32_t i = 0; i < axes.n; i++)
        if (axes.atoms[i].kind == PM_ATOM_PLAIN)
            dims[1] = pm_dim_mul(r->m, dims[1], axes.atoms[i].dim);
    PM_TRY(pm_build_reshape_dims(b, x, 2, dims, &x));
    PM_TRY(build_ids(r, b, seed, &ids));
    PM_TRY(build_weights(r, b, &bodies[0], ids, &weights));
    PM_PUSH(r->scratch, &operands, x);
    PM_PUSH(r->scratch, &operands, ids);
    PM_PUSH(r->scratch, &operands, weights);
    if (n_bodies == 1)
        PM_TRY(pm_expert_body_captures(&bodies[0], b, &operands));
    const pm_attr attrs[] = {
        pm_attr_i64("experts", seed->experts), pm_attr_i64("top_k", top_k),
        pm_attr_str("apply", bodies[0].apply_input ? "input" : "output"),
        pm_attr_str("name", layer_name(r)),
    };
    pm_op *op;
    PM_TRY(pm_op_create(b->graph, b->before, PM_OP_experts, b->loc, operands.data, operands.n, attrs,
                        PM_COUNT(attrs), 1, 0, &op));
    for (uint32_t i = 0; i < n_bodies; i++) {
        pm_graph *region = add_region(r, op, x->type, &operands, n_bodies == 1);
        PM_TRY(pm_expert_body_emit(&bodies[i], region, 3));
    }
    PM_TRY(pm_op_infer(op));
    *out = op->results[0];
    return PM_OK;
}

/// What comes out of the sum: tokens in front, then the row, and nothing else.
static bool result_fits(raiser *r, const candidate *c, const pm_expert_body *body)
{
    pm_axes axes = body->result->axes;
    const pm_atom *atom;
    if (c->summed_axis >= 0) {
        if (pm_axes_at(&axes, c->summed_axis, &atom) != 1 ||
            !(atom->kind == PM_ATOM_ID || (atom->kind == PM_ATOM_SEED && atom->at == c->seed->choice)))
            return false;
        if (atom->kind == PM_ATOM_ID && !body->result->weight && !body->input_weight)
            return false; // all experts of every token: no choice in it
        pm_axes_drop_atoms(&axes, c->summed_axis);
    }
    int32_t next = 0;
    bool rows = true, any_list = false;
    for (int32_t i = 0; i < axes.n; i++) {
        const pm_atom *a = &axes.atoms[i];
        if (a->kind == PM_ATOM_LIST) {
            any_list = true;
        } else if (a->kind == PM_ATOM_SEED && rows) {
            next += next == c->seed->choice;
            if (a->at != next++)
                return false;
        } else if (a->kind == PM_ATOM_PLAIN) {
            rows = false;
        } else {
            return false;
        }
    }
    next += next == c->seed->choice;
    (void)r;
    return any_list || next == c->seed->n_dims;
}

/// How the graph writes the experts, for people.
static const char *form_of(const candidate *c, const pm_expert_body *body)
{
    const pm_atom *atom;
    for (size_t i = 0; i < body->nodes.n; i++) {
        const pm_body_node *node = body->nodes.data[i];
        if (node->picks || node->mask)
            return "every expert on every token, of which each choice takes its own";
        if (node->n_parts > 1)
            return "rows picked expert by expert";
    }
    if (c->by_choice)
        return "choice by choice";
    if (c->scatters)
        return "rows picked expert by expert";
    if (c->width > 1)
        return "every expert on every token, one by one";
    if (c->summed_axis >= 0 && pm_axes_at(&body->result->axes, c->summed_axis, &atom) == 1 && atom->kind == PM_ATOM_ID)
        return "every expert on every token, in batched products";
    for (size_t i = 0; i < body->nodes.n; i++)
        for (int32_t k = 0; k < body->nodes.data[i]->axes.n; k++)
            if (body->nodes.data[i]->axes.atoms[k].kind == PM_ATOM_LIST)
                return "rows sorted by expert";
    return "weights gathered by choice";
}

static pm_status replace(raiser *r, const candidate *c, pm_expert_body *bodies, uint32_t n_bodies)
{
    pm_builder b = {c->anchor->graph, c->anchor, pm_loc_derive(r->m, c->anchor->loc, "raise-experts")};
    pm_value *experts, *y;
    PM_TRY(build_experts(r, &b, c, bodies, n_bodies, &experts));
    y = experts;
    PM_TRY(pm_build_reshape_dims(&b, y, c->result->type->rank, c->result->type->dims, &y));
    if (y->type->elem != c->result->type->elem)
        PM_TRY(pm_build1(&b, &y, PM_OP_cast, PM_OPERANDS(y), PM_ATTRS(pm_attr_elem("to", c->result->type->elem))));
    for (size_t i = 0; i < c->n_others; i++) {
        pm_value *other = c->others[i];
        if (other->type != y->type)
            PM_TRY(pm_build_reshape_dims(&b, other, y->type->rank, y->type->dims, &other));
        PM_TRY(pm_build1(&b, &y, PM_OP_add, PM_OPERANDS(y, other), PM_NO_ATTRS));
    }
    if (!y->name)
        y->name = c->result->name;
    pm_value_replace(c->result, y);
    pm_found_raised(r->ctx, experts->def, form_of(c, &bodies[0]), &c->result, 1);
    r->n_layers++;
    pm_pass_changed(r->ctx);
    pm_pass_count(r->ctx, "layers of experts raised");
    return PM_OK;
}

/* ---- trying ---------------------------------------------------------------------------------- */

/// What is run as long as the experts aren't raised.
static const char *cost_of(raiser *r, const candidate *c)
{
    int64_t top_k = 1;
    (void)pm_dim_is_const(r->m, count_of(r, c->seed, true), &top_k);
    bool by_choice = c->by_choice;
    if (c->summed_axis >= 0) {
        int64_t extent;
        by_choice = !pm_dim_is_const(r->m, c->results[0]->type->dims[c->summed_axis], &extent) ||
                    extent != c->seed->experts;
    }
    if (by_choice)
        return "every choice gets a copy of its expert's weights";
    if (c->scatters)
        return pm_arena_printf(r->m->arena, "the rows of %" PRId64 " experts are picked and added one by one",
                               c->seed->experts);
    return pm_arena_printf(r->m->arena, "all %" PRId64 " experts run on every token, of which it chooses %" PRId64,
                           c->seed->experts, top_k);
}

/// Kept until the end: by then it is known whether the sum was a part of something that was raised.
static void note(raiser *r, const candidate *c, const pm_expert_body *body)
{
    bool any = c->width > 1;
    for (size_t i = 0; i < body->nodes.n && !any; i++)
        any = body->nodes.data[i] != body->result && (body->nodes.data[i]->kind == PM_BODY_STACK ||
                                                      body->nodes.data[i]->kind == PM_BODY_WEIGHT);
    if (!any || !(r->ctx->findings || r->ctx->notes))
        return; // a sum of something else
    near_miss near = {
        .seed = c->seed, .n_nodes = body->nodes.n,
        .miss = {.what = "experts", .op = c->anchor, .loc = c->anchor->loc,
                 .stopped_op = body->stopped ? pm_op_info_of(body->stopped)->name : NULL,
                 .stopped = body->stopped ? body->stopped->loc : NULL,
                 .why = body->why ? body->why : "the sum has another shape", .cost = cost_of(r, c)}};
    PM_PUSH(r->scratch, &r->missed, near);
}

/// Ops that something depends on, after raising, have mark 1.
static void mark_live(raiser *r, pm_graph *g)
{
    PM_VEC(pm_op *) work = {0};
    for (pm_op *op = g->first; op; op = op->next)
        op->mark = 0;
    for (size_t i = 0; i < g->results.n; i++)
        if (g->results.data[i]->def)
            PM_PUSH(r->scratch, &work, g->results.data[i]->def);
    while (work.n) {
        pm_op *op = work.data[--work.n];
        if (op->mark)
            continue;
        op->mark = 1;
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] && op->operands[i]->def && !op->operands[i]->def->mark)
                PM_PUSH(r->scratch, &work, op->operands[i]->def);
    }
}

/// Of the near misses of each router that are still there, the one that came furthest.
static void tell_near_misses(raiser *r, pm_graph *g)
{
    if (!r->missed.n)
        return;
    mark_live(r, g);
    for (size_t s = 0; s < r->seeds.n; s++) {
        const near_miss *best = NULL;
        for (size_t i = 0; i < r->missed.n; i++) {
            const near_miss *near = &r->missed.data[i];
            if (near->seed == r->seeds.data[s] && near->miss.op->mark && near->miss.op->graph &&
                (!best || near->n_nodes >= best->n_nodes))
                best = near;
        }
        if (best)
            pm_found_near_miss(r->ctx, &best->miss);
    }
}

static pm_status try_unlike(raiser *r, const candidate *c, bool *out_done)
{
    pm_expert_body *bodies = PM_NEW_ARRAY(r->scratch, pm_expert_body, c->width);
    for (uint32_t i = 0; i < c->width; i++) {
        if (!pm_expert_body_find(&bodies[i], &r->facts, c->seed, &c->results[i], 1, false) ||
            !result_fits(r, c, &bodies[i])) {
            note(r, c, &bodies[i]);
            return PM_OK;
        }
        const pm_expert_body *first = &bodies[0], *own = &bodies[i];
        bool same = own->result->weight == first->result->weight &&
                    own->result->is_dense_weight == first->result->is_dense_weight && !own->apply_input;
        pm_value *a = own->x, *b = first->x;
        while (pm_value_is(a, PM_OP_reshape))
            a = a->def->operands[0];
        while (pm_value_is(b, PM_OP_reshape))
            b = b->def->operands[0];
        if (!same || a != b)
            return PM_OK;
    }
    *out_done = true;
    return replace(r, c, bodies, c->width);
}

static pm_status try_candidate(raiser *r, const candidate *c, bool *out_done)
{
    pm_expert_body body;
    *out_done = false;
    if (pm_expert_body_find(&body, &r->facts, c->seed, c->results, c->width, c->by_choice) && result_fits(r, c, &body)) {
        *out_done = true;
        return replace(r, c, &body, 1);
    }
    if (c->width > 1 && !c->by_choice)
        return try_unlike(r, c, out_done);
    note(r, c, &body);
    return PM_OK;
}

static bool has_plain_atom(const pm_axes *axes)
{
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].kind == PM_ATOM_PLAIN)
            return true;
    return false;
}

/* ---- sums over an axis ----------------------------------------------------------------------- */

static bool is_sum_extent(raiser *r, const pm_seed *seed, pm_dim extent)
{
    int64_t n;
    return extent == count_of(r, seed, true) ||
           (pm_dim_is_const(r->m, extent, &n) && n == seed->experts);
}

/// reduce_sum over one axis whose extent is that of the choices, or of the experts, of a router before it.
static pm_status try_axis_sum(raiser *r, pm_op *op)
{
    const pm_attr *axes = pm_op_attr(op, "axes");
    pm_value *x = op->operands[0];
    if (axes->n != 1 || !pm_elem_is_float(x->type->elem) || x->type->rank < 2)
        return PM_OK;
    int32_t axis = (int32_t)(axes->ints[0] < 0 ? axes->ints[0] + x->type->rank : axes->ints[0]);
    const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, x);
    if (fact && fact->kind == PM_FACT_AXES) {
        if (!has_plain_atom(&fact->axes))
            return PM_OK; // a sum of weights, in the router
    }
    int tries = 0;
    for (size_t i = r->seeds.n; i-- > 0 && tries < 4;) {
        if (!is_sum_extent(r, r->seeds.data[i], x->type->dims[axis]))
            continue;
        tries++;
        candidate c = {.anchor = op, .result = op->results[0], .results = &x, .width = 1,
                       .seed = r->seeds.data[i], .summed_axis = axis};
        bool done;
        PM_TRY(try_candidate(r, &c, &done));
        if (done)
            return PM_OK;
    }
    return PM_OK;
}

/* ---- sums expert by expert ------------------------------------------------------------------- */

typedef struct chain {
    pm_value **parts; ///< by expert
    int64_t n;        ///< of them: experts, or choices
    bool by_choice;
    const pm_seed *seed;
    PM_VEC(pm_value *) others;
    bool wrong, scatters;
    const pm_op *last;
} chain;

static void add_part(raiser *r, chain *k, const pm_seed *seed, bool by_choice, int64_t at, pm_value *part)
{
    if (!k->seed) {
        k->seed = seed;
        k->by_choice = by_choice;
        k->n = seed->experts;
        if (by_choice)
            (void)pm_dim_is_const(r->m, count_of(r, seed, true), &k->n);
        k->parts = PM_NEW_ARRAY(r->scratch, pm_value *, (size_t)k->n);
    }
    if (k->seed != seed || k->by_choice != by_choice || at < 0 || at >= k->n || k->parts[at])
        k->wrong = true;
    else
        k->parts[at] = part;
}

/// The rows of which list an index [rows], [rows, 1] or spread over the row's width names tokens of.
static const pm_row_list *token_rows(raiser *r, pm_value *index)
{
    const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, pm_body_row_numbers(r->m, index));
    if (!fact || fact->kind != PM_FACT_FORMS || fact->n_forms != 1 ||
        !pm_form_is_token(r->m, fact->seed, &fact->forms[0]))
        return NULL;
    for (int32_t i = 0; i < fact->axes.n; i++)
        if (fact->axes.atoms[i].kind == PM_ATOM_LIST && fact->axes.atoms[i].axis == 0)
            return fact->axes.atoms[i].list;
    return NULL;
}

/// acc[rows] + y, for scatter(acc, rows, acc[rows] + y): y. NULL: it is something else.
static pm_value *added_rows(raiser *r, const pm_op *scatter)
{
    pm_value *sum = scatter->operands[2], *acc = scatter->operands[0];
    if (!pm_value_is(sum, PM_OP_add) || pm_value_use_count(sum) != 1 || !pm_op_extents_fit(sum->def))
        return NULL;
    for (uint32_t i = 0; i < 2; i++) {
        const pm_value *picked = sum->def->operands[i];
        if (!pm_value_is(picked, PM_OP_gather_nd) && !pm_value_is(picked, PM_OP_gather) &&
            !pm_value_is(picked, PM_OP_gather_elements))
            continue;
        const pm_op *pick = picked->def;
        const pm_row_list *list = token_rows(r, scatter->operands[1]);
        bool front = pick->code == PM_OP_gather_nd ? pm_op_i64(pick, "batch_dims") == 0 : pm_op_i64(pick, "axis") == 0;
        if (pick->operands[0] == acc && list && token_rows(r, pick->operands[1]) == list && front)
            return sum->def->operands[1 - i];
    }
    return NULL;
}

/// Rows added at their tokens: acc + scatter(rows). `*out_acc`: what they are added to.
static bool scattered_rows(raiser *r, pm_op *op, const pm_row_list **out_list, pm_value **out_rows,
                           pm_value **out_acc)
{
    const char *reduction = pm_op_str(op, "reduction");
    if (!pm_body_writes_rows(r->m, op))
        return false;
    *out_list = token_rows(r, op->operands[1]);
    *out_rows = op->operands[2];
    *out_acc = op->operands[0];
    if (!*out_list || !pm_op_extents_fit(op) || op->results[0]->type->dims[0] != count_of(r, (*out_list)->seed, false))
        return false;
    if (strcmp(reduction, "add") == 0)
        return true;
    // without a reduction rows replace what was there: right for zeros, or for sums with it, if no token comes twice
    if (strcmp(reduction, "none") != 0 || !(*out_list)->seed->distinct || (*out_list)->kind != PM_LIST_PICKED)
        return false;
    pm_value *added = added_rows(r, op);
    *out_rows = added ? added : *out_rows;
    return added || pm_body_is_zeros(r->m, op->operands[0]);
}

/// Takes a sum apart: what each expert adds, and what else there is.
static void collect(raiser *r, pm_op *root, chain *k)
{
    PM_VEC(pm_value *) work = {0};
    PM_PUSH(r->scratch, &work, root->results[0]);
    while (work.n && !k->wrong) {
        pm_value *v = work.data[--work.n];
        pm_op *op = v->def;
        const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, v);
        const pm_row_list *list;
        pm_value *rows, *acc;
        if (fact && fact->kind == PM_FACT_MASKED && fact->expert >= 0 && fact->off == 0 && fact->choice < 0) {
            add_part(r, k, fact->seed, false, fact->expert, v);
            continue;
        }
        if (op && (op->code == PM_OP_scatter_nd || op->code == PM_OP_scatter_elements) &&
            scattered_rows(r, op, &list, &rows, &acc)) {
            while (pm_value_is(rows, PM_OP_expand) && rows->def->operands[0]->type == rows->type)
                rows = rows->def->operands[0];
            k->scatters = true;
            add_part(r, k, list->seed, false, list->expert, rows);
            if (list->kind != PM_LIST_PICKED || !list->exact)
                k->wrong = true;
            if (!pm_body_is_zeros(r->m, acc))
                PM_PUSH(r->scratch, &work, acc);
            continue;
        }
        bool inside = v == root->results[0] || pm_value_use_count(v) == 1;
        if (op && op->code == PM_OP_add && inside && op->operands[0]->type->rank == op->operands[1]->type->rank) {
            k->wrong = k->wrong || !pm_op_extents_fit(op);
            PM_PUSH(r->scratch, &work, op->operands[0]);
            PM_PUSH(r->scratch, &work, op->operands[1]);
            continue;
        }
        if (op && op->code == PM_OP_reshape && inside && pm_value_is(op->operands[0], PM_OP_add)) {
            PM_PUSH(r->scratch, &work, op->operands[0]);
            continue;
        }
        if (fact && fact->kind == PM_FACT_AXES && fact->choice >= 0 && has_plain_atom(&fact->axes)) {
            add_part(r, k, fact->seed, true, fact->choice, v);
            continue;
        }
        if (!pm_body_is_zeros(r->m, v))
            PM_PUSH(r->scratch, &k->others, v);
    }
}

/// The op adds to a sum that goes on in its user.
static bool goes_on(raiser *r, const pm_op *op)
{
    const pm_value *v = op->results[0];
    if (pm_value_use_count(v) == 2 && v->uses && v->uses->next) // x[rows] += y
        for (const pm_use *use = v->uses; use; use = use->next)
            if ((use->op->code == PM_OP_scatter_nd || use->op->code == PM_OP_scatter_elements) && use->index == 0 &&
                added_rows(r, use->op))
                return true;
    if (pm_value_use_count(v) != 1 || !v->uses)
        return false;
    const pm_op *user = v->uses->op;
    switch (user->code) {
    case PM_OP_add:
        for (const pm_use *use = user->results[0]->uses; use; use = use->next)
            if (use->index == 2 && (use->op->code == PM_OP_scatter_nd || use->op->code == PM_OP_scatter_elements) &&
                added_rows(r, use->op))
                return false; // rows of an expert, not the sum
        return true;
    case PM_OP_scatter_nd:
    case PM_OP_scatter_elements: return v->uses->index == 0;
    default: return false;
    }
}

static bool has_id_axis(const pm_axes *axes)
{
    for (int32_t i = 0; i < axes->n; i++)
        if (axes->atoms[i].kind == PM_ATOM_ID)
            return true;
    return false;
}

/// Whether the graph has something of this expert elsewhere: then it isn't lost, just written in a way that isn't known.
static bool is_elsewhere(raiser *r, const pm_seed *seed, int64_t expert)
{
    for (size_t i = 0; i < r->facts.n; i++) {
        const pm_moe_fact *fact = r->facts.of[i];
        if (!fact || fact->seed != seed)
            continue;
        if (fact->kind == PM_FACT_MASKED && fact->expert == expert)
            return true;
        if (fact->kind == PM_FACT_OF_ID && pm_fact_only_expert(fact) == expert && fact->table[expert] == 1 &&
            !has_id_axis(&fact->axes))
            return true;
    }
    return false;
}

static bool any_lost(raiser *r, const chain *k)
{
    for (int64_t e = 0; e < k->n; e++)
        if (!k->parts[e] && !is_elsewhere(r, k->seed, e))
            return true;
    return false;
}

/// An export that lost experts computes something else than the model: never silently.
static pm_status report_lost(raiser *r, const candidate *c, const chain *k, int64_t found)
{
    int64_t missing = 0;
    while (missing < k->n && k->parts[missing])
        missing++;
    pm_status status = pm_error(
        r->ctx->diag, c->anchor->loc, PM_ERR_INVALID,
        "the router chooses among %" PRId64 " experts, but the graph holds only %" PRId64
        " (expert %" PRId64 " is missing): tokens that choose a missing expert get nothing from it",
        k->n, found, missing);
    pm_note(r->ctx->diag, k->seed->ids->def ? k->seed->ids->def->loc : c->anchor->loc,
            "the router is here; tracing drops experts that saw no token: export again with a longer input, "
            "or with an exporter that doesn't trace");
    return status;
}

/// All rows in the order of their experts, added at their tokens.
static pm_status try_sorted_rows(raiser *r, pm_op *op, bool *out_done)
{
    const pm_row_list *list;
    pm_value *rows, *acc;
    const pm_atom *atom;
    pm_expert_body body;
    *out_done = false;
    if (!scattered_rows(r, op, &list, &rows, &acc) || list->kind != PM_LIST_SORTED)
        return PM_OK;
    candidate c = {.anchor = op, .result = op->results[0], .results = &rows, .width = 1, .seed = list->seed,
                   .summed_axis = -1, .others = &acc, .n_others = !pm_body_is_zeros(r->m, acc)};
    if (!pm_expert_body_find(&body, &r->facts, c.seed, c.results, 1, false) || !result_fits(r, &c, &body)) {
        note(r, &c, &body);
        return PM_OK;
    }
    if (pm_axes_at(&body.result->axes, 0, &atom) != 1 || atom->kind != PM_ATOM_LIST || atom->list != list)
        return PM_OK;
    *out_done = true;
    return replace(r, &c, &body, 1);
}

/// Results that are picked rows are worth nothing as others' addends: they must be in the sum alone.
static pm_status try_chain(raiser *r, pm_op *op)
{
    chain k = {0};
    bool done = false;
    if (op->code != PM_OP_add)
        PM_TRY(try_sorted_rows(r, op, &done));
    if (done)
        return PM_OK;
    collect(r, op, &k);
    if (!k.seed || k.wrong)
        return PM_OK;
    int64_t found = 0;
    for (int64_t e = 0; e < k.n; e++)
        found += k.parts[e] != NULL;
    candidate c = {.anchor = op, .result = op->results[0], .results = k.parts, .width = (uint32_t)k.n,
                   .seed = k.seed, .by_choice = k.by_choice, .scatters = k.scatters, .summed_axis = -1, .others = k.others.data, .n_others = k.others.n};
    if (found != k.n && k.by_choice)
        return PM_OK;
    if (found != k.n)
        return (found > 1 || k.scatters) && any_lost(r, &k) ? report_lost(r, &c, &k, found) : PM_OK;
    return try_candidate(r, &c, &done);
}

/* ---- no sum at all ----------------------------------------------------------------------------- */

/// Where a token has one choice, its expert's result may just be picked.
static pm_status try_pick(raiser *r, pm_op *op)
{
    const pm_seed *seed = r->seeds.data[r->seeds.n - 1];
    if (seed->choice >= 0 || !pm_elem_is_float(op->results[0]->type->elem))
        return PM_OK;
    candidate c = {.anchor = op, .result = op->results[0], .results = op->results, .width = 1, .seed = seed,
                   .summed_axis = -1};
    pm_expert_body body;
    if (!pm_expert_body_find(&body, &r->facts, seed, c.results, 1, false) || !body.result->picks ||
        !result_fits(r, &c, &body))
        return PM_OK;
    return replace(r, &c, &body, 1);
}

/* ---- sums within a product ------------------------------------------------------------------- */

/// A product that sums over the choices and the row at once (an einsum "tki,tkin->tn") as a sum over the
/// choices of products: which is then looked at as such.
static pm_status split_product(raiser *r, pm_op *op)
{
    pm_value *a = op->operands[0], *w = op->operands[1];
    pm_expert_body body;
    int32_t rank = w->type->rank;
    const pm_atom *atom;
    if (r->seeds.n == 0 || rank < 3 || a->type->rank != rank || pm_op_i64(op, "trans_a") ||
        pm_op_i64(op, "trans_b") || pm_value_const(w))
        return PM_OK;
    const pm_seed *seed = r->seeds.data[r->seeds.n - 1];
    (void)pm_expert_body_find(&body, &r->facts, seed, &w, 1, false);
    if (!body.result || body.result->state != 2 || body.result->kind != PM_BODY_STACK)
        return PM_OK;
    if (pm_axes_at(&body.result->axes, rank - 2, &atom) != 2 || atom[0].kind != PM_ATOM_SEED ||
        atom[0].at != seed->choice || atom[1].kind != PM_ATOM_PLAIN)
        return PM_OK;
    pm_builder b = {op->graph, op, pm_loc_derive(r->m, op->loc, "raise-experts")};
    pm_dim dims[PM_MAX_RANK + 1];
    int64_t perm[PM_MAX_RANK + 1];
    pm_value *y;
    memcpy(dims, w->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 2] = atom[0].dim;
    dims[rank - 1] = atom[1].dim;
    dims[rank] = w->type->dims[rank - 1];
    PM_TRY(pm_build_reshape_dims(&b, w, rank + 1, dims, &w));
    memcpy(dims, a->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 1] = atom[0].dim;
    dims[rank] = atom[1].dim;
    PM_TRY(pm_build_reshape_dims(&b, a, rank + 1, dims, &a));
    for (int32_t i = 0; i <= rank; i++)
        perm[i] = i;
    perm[rank - 2] = rank - 1;
    perm[rank - 1] = rank - 2;
    PM_TRY(pm_build1(&b, &a, PM_OP_transpose, PM_OPERANDS(a), PM_ATTRS(pm_attr_ints("perm", perm, (size_t)rank + 1))));
    PM_TRY(pm_build1(&b, &y, PM_OP_matmul, PM_OPERANDS(a, w), PM_NO_ATTRS));
    const int64_t axis = rank - 2;
    PM_TRY(pm_build1(&b, &y, PM_OP_reduce_sum, PM_OPERANDS(y), PM_ATTRS(pm_attr_ints("axes", &axis, 1), pm_attr_bool("keepdims", false))));
    pm_value_replace(op->results[0], y);
    pm_pass_changed(r->ctx);
    pm_op *sum = y->def;
    pm_op_erase(op);
    return try_axis_sum(r, sum);
}

/// A product that sums over the choices alone, with their weights (an einsum "tkh,tk->th"), as a sum of rows times
/// weights. That over all experts was spelled out before (spell_out.h).
static pm_status split_weighing(raiser *r, pm_op *op)
{
    bool trans[2] = {pm_op_i64(op, "trans_a") != 0, pm_op_i64(op, "trans_b") != 0};
    for (int side = 0; side < 2; side++) {
        pm_value *w = op->operands[side], *x = op->operands[1 - side], *y;
        const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, w);
        int32_t rank = w->type->rank;
        const pm_atom *atom;
        if (!fact || rank < 2 || x->type->rank != rank || has_plain_atom(&fact->axes) || !pm_op_extents_fit(op) ||
            fact->kind != PM_FACT_AXES)
            continue;
        // where the sum runs: along the last axis but one of the right operand, unless that is transposed
        int32_t own = (side == 1) != trans[side] ? rank - 2 : rank - 1;
        int32_t other = (side == 0) != trans[1 - side] ? rank - 2 : rank - 1;
        if (pm_axes_at(&fact->axes, 2 * rank - 3 - own, &atom) != 0 || pm_axes_at(&fact->axes, own, &atom) != 1 ||
            atom->kind != PM_ATOM_SEED || atom->at != fact->seed->choice)
            continue;
        pm_builder b = {op->graph, op, pm_loc_derive(r->m, op->loc, "raise-experts")};
        int64_t perm[PM_MAX_RANK];
        for (int32_t i = 0; i < rank; i++)
            perm[i] = i;
        perm[rank - 2] = rank - 1;
        perm[rank - 1] = rank - 2;
        if (own != other)
            PM_TRY(pm_build1(&b, &x, PM_OP_transpose, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("perm", perm, (size_t)rank))));
        PM_TRY(pm_build1(&b, &y, PM_OP_mul, PM_OPERANDS(x, w), PM_NO_ATTRS));
        const int64_t axis = own;
        PM_TRY(pm_build1(&b, &y, PM_OP_reduce_sum, PM_OPERANDS(y),
                         PM_ATTRS(pm_attr_ints("axes", &axis, 1), pm_attr_bool("keepdims", false))));
        pm_op *sum = y->def;
        const pm_type *type = op->results[0]->type;
        PM_TRY(pm_build_reshape_dims(&b, y, type->rank, type->dims, &y));
        pm_value_replace(op->results[0], y);
        pm_pass_changed(r->ctx);
        pm_op_erase(op);
        return try_axis_sum(r, sum);
    }
    return PM_OK;
}

/* ---- the pass -------------------------------------------------------------------------------- */

static void find_seeds(raiser *r, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_moe_fact *fact = pm_moe_fact_of(&r->facts, op->results[i]);
        if (fact && fact->seed->ids == op->results[i])
            PM_PUSH(r->scratch, &r->seeds, fact->seed);
    }
}

static pm_status visit(raiser *r, pm_op *op)
{
    find_seeds(r, op);
    if (r->seeds.n == 0 || !op->graph)
        return PM_OK;
    switch (op->code) {
    case PM_OP_reduce_sum: return try_axis_sum(r, op);
    case PM_OP_matmul:
        PM_TRY(split_weighing(r, op));
        return op->graph ? split_product(r, op) : PM_OK;
    case PM_OP_add:
    case PM_OP_scatter_nd:
    case PM_OP_scatter_elements:
        return pm_elem_is_float(op->results[0]->type->elem) && !goes_on(r, op) ? try_chain(r, op) : PM_OK;
    case PM_OP_gather:
    case PM_OP_gather_nd:
    case PM_OP_gather_elements: return try_pick(r, op);
    default: return PM_OK;
    }
}

/// Whether experts have taken the place of what was written out.
static bool is_raised(const pm_spelling *s)
{
    for (const pm_op *op = s->now->def; op && op->serial >= s->first; op = op->operands[0]->def) {
        if (op->code == PM_OP_experts)
            return true;
        if (!op->n_operands || !op->operands[0])
            break;
    }
    return false;
}

/// What was written in another way and is still there gets its former way back.
static void spell_back(raiser *r, pm_graph *g, const pm_spellings *spellings)
{
    if (!spellings->n)
        return;
    mark_live(r, g);
    for (size_t i = spellings->n; i-- > 0;) {
        const pm_spelling *s = &spellings->data[i];
        if (s->now->def && s->now->def->mark && !is_raised(s))
            pm_value_replace(s->now, s->was);
    }
}

static pm_status visit_graph(raiser *r, pm_graph *g)
{
    r->seeds.n = 0;
    r->missed.n = 0;
    pm_spellings spellings = {0};
    PM_TRY(pm_moe_facts_find(r->m, g, r->scratch, &r->facts));
    PM_TRY(pm_spell_out(r->m, g, &r->facts, r->scratch, &spellings));
    if (spellings.n)
        PM_TRY(pm_moe_facts_find(r->m, g, r->scratch, &r->facts));
    for (pm_op *op = g->first, *next; op; op = next) {
        next = op->next;
        PM_TRY(visit(r, op));
    }
    spell_back(r, g, &spellings);
    tell_near_misses(r, g);
    return PM_OK;
}

pm_status pm_pass_raise_experts(pm_pass_ctx *ctx)
{
    pm_arena *scratch = pm_arena_child(ctx->module->arena);
    raiser r = {.ctx = ctx, .m = ctx->module, .scratch = scratch};
    pm_status status = PM_OK;
    for (size_t i = 0; i < ctx->module->entries.n && status == PM_OK; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], scratch, &graphs);
        r.n_layers = 0;
        for (size_t k = 0; k < graphs.n && status == PM_OK; k++)
            status = visit_graph(&r, graphs.data[k]);
    }
    pm_arena_destroy(scratch);
    return status;
}
