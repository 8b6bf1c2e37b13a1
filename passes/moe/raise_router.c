/// Routers that a graph spells out become `route`: from the experts' operands backwards, through the forms of
/// the table, to the scores. What the table doesn't know stays as it is: the experts run all the same.
#include <math.h>
#include <string.h>

#include "ir/op_table.h"
#include "passes/findings.h"
#include "passes/generic/rewrite.h"
#include "passes/moe/pattern.h"

/// How weights come from the chosen scores; outermost first. ?x is what is weighed.
static const struct {
    const char *pattern, *weigh;
} weighings[] = {
    {"mul(?x, $s)", NULL},
    {"div(?x, reduce_sum(?x))", "renorm"},
    {"div(?x, reduce_sum(abs(?x)))", "renorm"},
    {"div(?x, add(reduce_sum(?x), $e))", "renorm"},
    {"div(?x, max(reduce_sum(?x), $l))", "renorm"},
    {"softmax(?x)", "softmax"},
    {"sigmoid(?x)", "sigmoid"}, // of scores that are chosen as they are
};

/// What becomes of the scores ?x before the experts are chosen.
static const struct {
    const char *pattern, *act;
} activations[] = {
    {"softmax(?x)", "softmax"},
    {"sigmoid(?x)", "sigmoid"},
    {"sqrt(softplus(?x))", "sqrtsoftplus"},
};

/// Only experts of the best groups count: scores ?s of others are $f. ?g: scores by group, ?m: how good groups are.
static const struct {
    const char *pattern;
} limits[] = {
    {"where(cast(expand(scatter_elements(0, %1topk(?m, ?k), 1))), ?s, $f)"},
    {"where(less(0, expand(scatter_elements(0, %1topk(?m, ?k), 1))), ?s, $f)"},
    {"where(cast(expand(reduce_max@2(onehot(%1topk(?m, ?k), ?d, ?v)))), ?s, $f)"},
    {"where(less(0, expand(reduce_max@2(onehot(%1topk(?m, ?k), ?d, ?v)))), ?s, $f)"},
};

static const struct {
    const char *pattern, *score;
} group_scores[] = {
    {"reduce_max(?g)", "max"},
    {"reduce_sum(%0topk(?g, 2))", "top2"},
};

/// SparseMixer in two rounds: scores ?l, then ?s, which lacks the first choice ?a; ?b is the second. Each is weighed by
/// the softmax over the experts within $j of the best.
static const char sparse_mixer[] =
    "concat(gather_elements(softmax(where(less($j, div(sub(reduce_max(?l), ?l), max(abs(?l), reduce_max(?l)))), $f, ?l)), ?a), "
    "gather_elements(softmax(where(less($j, div(sub(reduce_max(?s), ?l), max(abs(?l), reduce_max(?s)))), $f, ?s)), ?b))";

typedef struct routing {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_op *experts, *topk;
    pm_value *weights; ///< what `route` gives in its stead
    pm_value *scores, *bias;
    const char *act, *weigh, *group_score;
    bool sparse_mixer;
    double jitter;
    bool sigmoid_after; ///< chosen by the scores, weighed by their sigmoid
    double eps, least, scale;
    int64_t groups, keep;
    const char *why; ///< where matching stopped
    const pm_op *stopped;
} routing;

static bool stop(routing *r, const pm_value *v, const char *why)
{
    r->why = why;
    r->stopped = v->def;
    return false;
}

static int64_t last_extent(const routing *r, const pm_value *v, int32_t from_end)
{
    int64_t n = -1;
    if (v->type->rank > from_end)
        (void)pm_dim_is_const(r->m, v->type->dims[v->type->rank - 1 - from_end], &n);
    return n;
}

/// Weights back to the chosen scores.
static bool match_weights(routing *r, pm_value *v, pm_value **out)
{
    for (size_t i = 0; i < PM_COUNT(weighings);) {
        pm_match match;
        if (!pm_pattern_matches(weighings[i].pattern, v, r->m, &match)) {
            i++;
            continue;
        }
        if (weighings[i].weigh && r->weigh)
            return stop(r, v, "the weights are weighed twice");
        if (match.has_number['s' - 'a']) {
            if (r->weigh)
                return stop(r, v, "scores are scaled before they are weighed");
            r->scale *= match.numbers['s' - 'a'];
        }
        if (match.has_number['e' - 'a'])
            r->eps = match.numbers['e' - 'a'];
        if (match.has_number['l' - 'a'])
            r->least = match.numbers['l' - 'a'];
        if (weighings[i].weigh)
            r->weigh = weighings[i].weigh;
        v = pm_match_value(&match, 'x');
        i = 0;
    }
    *out = v;
    return true;
}

static bool match_limit(routing *r, pm_value **selection)
{
    pm_match match, score;
    for (size_t i = 0; i < PM_COUNT(limits); i++) {
        if (!pm_pattern_matches(limits[i].pattern, *selection, r->m, &match))
            continue;
        pm_value *s = pm_match_value(&match, 's'), *by_group = pm_match_value(&match, 'm');
        size_t n;
        if (!pm_value_const_ints(pm_match_value(&match, 'k'), &r->keep, 1, &n) || n != 1)
            return stop(r, *selection, "how many groups are kept isn't known");
        for (size_t k = 0; k < PM_COUNT(group_scores); k++) {
            if (!pm_pattern_matches(group_scores[k].pattern, by_group, r->m, &score) ||
                pm_match_value(&score, 'g') != s)
                continue;
            // rows of groups side by side, as `route` has them
            const pm_op *op = by_group->def;
            const pm_value *grouped = op->operands[0];
            if (k == 1)
                grouped = grouped->def->operands[0];
            r->groups = last_extent(r, grouped, 1);
            int64_t each = last_extent(r, grouped, 0), all = last_extent(r, *selection, 0);
            if (r->groups < 1 || each < 1 || r->groups * each != all)
                return stop(r, *selection, "groups of another shape");
            double fill = match.numbers['f' - 'a'];
            r->group_score = group_scores[k].score;
            if (!(fill == -INFINITY || fill <= -1e30 || fill == 0))
                return stop(r, *selection, "experts of other groups still count");
            *selection = s;
            // zero is less than any activated score, as long as no bias is added
            pm_match biased;
            return fill != 0 || !pm_pattern_matches("add(?x, ?b)", s, r->m, &biased) ||
                   stop(r, s, "experts of other groups still count");
        }
        return stop(r, *selection, "groups are scored in a way that isn't known");
    }
    return true;
}

static bool is_vector_of_experts(const routing *r, const pm_value *v)
{
    int64_t count;
    return pm_value_const(v) && pm_type_const_count(r->m, v->type, &count) &&
           count == last_extent(r, r->topk->operands[0], 0) && v->type->elem == PM_F32;
}

static void match_activation(routing *r, pm_value *v)
{
    pm_match match;
    r->act = "none";
    r->scores = v;
    for (size_t i = 0; i < PM_COUNT(activations); i++)
        if (pm_pattern_matches(activations[i].pattern, v, r->m, &match)) {
            r->act = activations[i].act;
            r->scores = pm_match_value(&match, 'x');
        }
}

static bool match_router(routing *r)
{
    pm_value *chosen, *selection = pm_under_views(r->topk->operands[0]), *active;
    pm_match match;
    if (!match_weights(r, r->weights, &chosen))
        return false;
    pm_value *masked = selection;
    if (!match_limit(r, &selection))
        return false;
    active = selection;
    if (pm_pattern_matches("add(?x, ?b)", selection, r->m, &match) &&
        is_vector_of_experts(r, pm_match_value(&match, 'b'))) {
        r->bias = pm_match_value(&match, 'b');
        active = pm_match_value(&match, 'x');
    }
    match_activation(r, active);
    if (r->bias && strcmp(r->act, "none") == 0) { // a bias of the router itself: part of the scores
        r->scores = selection;
        active = selection;
        r->bias = NULL;
    }
    bool values = chosen == r->topk->results[0]; // the chosen scores themselves
    bool gathered = pm_value_is(chosen, PM_OP_gather_elements) &&
                    pm_under_views(chosen->def->operands[0]) == active &&
                    pm_under_views(chosen->def->operands[1]) == r->topk->results[1];
    if (!(values && selection == active) && !(values && masked == selection && !r->bias) && !gathered)
        return stop(r, chosen, "weights come from other scores than those that were chosen by");
    r->sigmoid_after = r->weigh && strcmp(r->weigh, "sigmoid") == 0;
    if (!r->weigh || r->sigmoid_after)
        r->weigh = "as_is";
    return !r->sigmoid_after || strcmp(r->act, "none") == 0 || stop(r, chosen, "scores are activated twice");
}

static bool match_sparse_mixer(routing *r, const pm_value *ids)
{
    pm_match match, parts;
    if (!pm_pattern_matches(sparse_mixer, r->weights, r->m, &match) ||
        !pm_pattern_matches("concat(?a, ?b)", (pm_value *)ids, r->m, &parts))
        return stop(r, r->weights, "the experts aren't chosen by a topk of scores");
    pm_value *l = pm_match_value(&match, 'l'), *s = pm_match_value(&match, 's');
    pm_value *a = pm_match_value(&match, 'a'), *b = pm_match_value(&match, 'b');
    pm_match first, second, masked;
    bool fits = match.numbers['f' - 'a'] == -INFINITY && pm_match_value(&parts, 'a') == a &&
                pm_match_value(&parts, 'b') == b && pm_pattern_matches("argmax(?l)", a, r->m, &first) &&
                pm_match_value(&first, 'l') == l && pm_pattern_matches("argmax(?s)", b, r->m, &second) &&
                pm_match_value(&second, 's') == s &&
                pm_pattern_matches("scatter_elements(?l, ?a, $f)", s, r->m, &masked) &&
                pm_match_value(&masked, 'l') == l && pm_match_value(&masked, 'a') == a &&
                masked.numbers['f' - 'a'] == -INFINITY;
    if (!fits)
        return stop(r, r->weights, "the rounds of a SparseMixer don't fit together");
    r->scores = l;
    r->act = "softmax";
    r->weigh = "as_is";
    r->sparse_mixer = true;
    r->jitter = match.numbers['j' - 'a'] / 2;
    return true;
}

/// A factor by expert beside the weights stays outside: w * f[ids].
static pm_value *inside_factor(pm_value *w)
{
    pm_value *v = pm_under_views(w);
    if (!pm_value_is(v, PM_OP_mul))
        return w;
    for (uint32_t i = 0; i < 2; i++) {
        const pm_value *f = pm_under_views(v->def->operands[i]);
        if ((pm_value_is(f, PM_OP_gather) || pm_value_is(f, PM_OP_gather_nd)) && pm_value_const(f->def->operands[0]))
            return v->def->operands[1 - i];
    }
    return w;
}

static pm_status replace(routing *r)
{
    pm_op *op = r->experts, *route;
    pm_builder b = {op->graph, r->weights->def->next ? r->weights->def->next : op,
                    pm_loc_derive(r->m, r->weights->def->loc, "raise-router")};
    // behind whichever of its operands comes last
    pm_dim dims[2] = {op->operands[1]->type->dims[0], r->scores->type->dims[r->scores->type->rank - 1]};
    pm_value *scores, *weights, *bias = r->bias, *old[2] = {r->weights, op->operands[1]};
    int64_t top_k = last_extent(r, op->operands[1], 0);
    PM_TRY(pm_build_reshape_dims(&b, r->scores, 2, dims, &scores));
    if (bias)
        PM_TRY(pm_build_reshape_dims(&b, bias, 1, dims + 1, &bias));
    const pm_attr attrs[] = {
        pm_attr_i64("top_k", top_k), pm_attr_str("act", r->act), pm_attr_str("weigh", r->weigh),
        pm_attr_f64("eps", r->eps), pm_attr_f64("least", r->least), pm_attr_f64("scale", r->scale),
        pm_attr_i64("groups", r->groups), pm_attr_i64("keep_groups", r->keep),
        pm_attr_str("group_score", r->group_score),
        pm_attr_str("select", r->sparse_mixer ? "sparsemixer" : "topk"), pm_attr_f64("jitter", r->jitter),
    };
    pm_value *operands[3] = {scores, bias, NULL};
    if (r->sigmoid_after)
        PM_TRY(pm_build1(&b, &operands[2], PM_OP_sigmoid, PM_OPERANDS(scores), PM_NO_ATTRS));
    PM_TRY(pm_build(&b, PM_OP_route, operands, operands[2] ? 3 : bias ? 2 : 1, attrs, PM_COUNT(attrs), 0, &route));
    weights = route->results[1];
    PM_TRY(pm_build_reshape_dims(&b, weights, r->weights->type->rank, r->weights->type->dims, &weights));
    if (weights->type->elem != r->weights->type->elem)
        PM_TRY(pm_build1(&b, &weights, PM_OP_cast, PM_OPERANDS(weights),
                         PM_ATTRS(pm_attr_elem("to", r->weights->type->elem))));
    pm_value_replace(r->weights, weights);
    pm_op_set_operand(op, 1, route->results[0]);
    pm_found_raised(r->ctx, route, "plain ops", old, PM_COUNT(old));
    pm_pass_changed(r->ctx);
    pm_pass_count(r->ctx, "routers raised");
    return PM_OK;
}

static void note(const routing *r)
{
    pm_near_miss miss = {
        .what = "router", .op = r->experts, .loc = r->experts->loc,
        .stopped_op = r->stopped ? pm_op_info_of(r->stopped)->name : NULL,
        .stopped = r->stopped ? r->stopped->loc : NULL,
        .why = r->why ? r->why : "the experts aren't chosen by a topk of scores",
        .cost = "the choice is computed op by op, as the graph writes it"};
    pm_found_near_miss(r->ctx, &miss);
}

/// The ids under casts and views.
static pm_value *under_integer_views(pm_value *v)
{
    while (pm_value_is(v, PM_OP_reshape) || (pm_value_is(v, PM_OP_cast) && pm_elem_is_int(v->def->operands[0]->type->elem)))
        v = v->def->operands[0];
    return v;
}

static pm_status visit(pm_pass_ctx *ctx, pm_op *op)
{
    routing r = {.ctx = ctx, .m = ctx->module, .experts = op, .scale = 1, .groups = 1, .keep = 1,
                 .group_score = "max", .jitter = 0.01};
    pm_value *ids = under_integer_views(op->operands[1]);
    if (pm_value_is(ids, PM_OP_route))
        return PM_OK;
    r.weights = pm_under_views(inside_factor(op->operands[2]));
    if (pm_value_is(ids, PM_OP_concat) && r.weights->def && op->operands[1]->type->rank == 2) {
        if (match_sparse_mixer(&r, ids))
            return replace(&r);
        note(&r);
        return PM_OK;
    }
    if (!pm_value_is(ids, PM_OP_topk) || ids->index != 1 || !pm_op_i64(ids->def, "largest") ||
        op->operands[1]->type->rank != 2) {
        note(&r);
        return PM_OK;
    }
    r.topk = ids->def;
    if (!r.weights->def || !match_router(&r)) {
        note(&r);
        return PM_OK;
    }
    return replace(&r);
}

pm_status pm_pass_raise_router(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], ctx->module->arena, &graphs);
        for (size_t k = 0; k < graphs.n; k++)
            for (pm_op *op = graphs.data[k]->first; op; op = op->next)
                if (op->code == PM_OP_experts)
                    PM_TRY(visit(ctx, op));
    }
    return PM_OK;
}
