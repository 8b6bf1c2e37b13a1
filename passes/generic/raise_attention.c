/// Attention as exporters write it becomes `sdpa`: from the product of weights and values backwards, through softmax,
/// a guard against rows that see nothing, sinks, masks, cap and scale, to the product of queries and keys, of which
/// repeated heads and transposed forms are undone. What doesn't fit stays as it was; --stats says where matching stopped.
///
/// May change rounding. A row that sees nothing gives what it gave: NaN, or zeros where the graph guards itself.
/// A key with a score that isn't a number makes its row NaN, also where the graph turned that into zeros.
#include <math.h>
#include <string.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/moe/pattern.h"
#include "passes/passes.h"

enum { MAX_STEPS = 24 };

/// A product that may be attention's second.
typedef struct attention {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_builder b; ///< before the product
    pm_op *weighed, *scored; ///< weights times values, queries times keys
    pm_value *mask, *sink;   ///< as they are in the graph; NULL: none
    const pm_type *masked;   ///< what the mask is added to, or the scores
    bool guarded;            ///< a row of NaN becomes zeros
    double scale, softcap;
    int64_t heads, kv_heads;
    pm_dim batch, tokens, keys;
    const char *why;         ///< where matching stopped
} attention;

static bool stop(attention *a, const char *why)
{
    a->why = why;
    return false;
}

static bool number_of(attention *a, pm_value *v, double *out)
{
    pm_match match;
    if (!pm_pattern_matches("$n", v, a->m, &match))
        return false;
    *out = match.numbers['n' - 'a'];
    return true;
}

static bool is_number(attention *a, pm_value *v, double number)
{
    double found;
    return number_of(a, v, &found) && found == number;
}

static pm_value *under_reshapes(pm_value *v)
{
    while (pm_value_is(v, PM_OP_reshape))
        v = v->def->operands[0];
    return v;
}

static bool is_axis_last(const pm_op *op, const char *key)
{
    int64_t axis = pm_op_i64(op, key);
    return axis == -1 || axis == op->results[0]->type->rank - 1;
}

/* ---- from the weights to the product of queries and keys ---- */

/// where(isnan(w), 0, w) is w with a guard.
static pm_value *unguarded(attention *a, pm_value *w)
{
    const pm_op *op = w->def;
    if (!pm_value_is(w, PM_OP_where) || !pm_value_is(op->operands[0], PM_OP_isnan) ||
        op->operands[0]->def->operands[0] != op->operands[2] || !is_number(a, op->operands[1], 0))
        return w;
    a->guarded = true;
    return op->operands[2];
}

/// Weights of the first columns alone: those behind are of sinks.
static pm_value *unsliced(pm_value *w)
{
    const pm_op *op = w->def;
    int64_t starts[PM_MAX_RANK], steps[PM_MAX_RANK];
    size_t n, n_steps = 0;
    if (!pm_value_is(w, PM_OP_slice) || !pm_value_const_ints(op->operands[1], starts, PM_MAX_RANK, &n) ||
        (op->n_operands > 4 && op->operands[4] &&
         !pm_value_const_ints(op->operands[4], steps, PM_MAX_RANK, &n_steps)))
        return w;
    for (size_t i = 0; i < n; i++)
        if (starts[i] != 0 || (i < n_steps && steps[i] != 1))
            return w;
    return op->operands[0];
}

/// The scores beside the column of sinks; notes the sinks.
static bool beside_sinks(attention *a, pm_value *scores, const pm_type *weights, pm_value **out)
{
    const pm_op *op = scores->def;
    if (!pm_value_is(scores, PM_OP_concat) || op->n_operands != 2 || !is_axis_last(op, "axis"))
        return stop(a, "the weights are a part of a softmax without sinks");
    pm_value *sink = op->operands[1];
    while (pm_value_is(sink, PM_OP_expand))
        sink = sink->def->operands[0];
    const pm_type *type = sink->type, *own = op->operands[0]->type;
    pm_dim one = pm_dim_const(a->m, 1);
    if (own->rank != 4 || type->rank < 3 || type->rank > 4 || own != weights)
        return stop(a, "the sinks aren't one per head");
    for (int32_t i = 0; i < type->rank; i++)
        if (i != type->rank - 3 && !pm_dim_same(type->dims[i], one))
            return stop(a, "the sinks aren't one per head");
    if (!pm_dim_same(type->dims[type->rank - 3], own->dims[1]))
        return stop(a, "the sinks aren't one per head");
    a->sink = sink;
    *out = op->operands[0];
    return true;
}

/// The softmax that weights come from, and its operand.
static bool match_softmax(attention *a, pm_value *w, pm_value **out)
{
    w = unguarded(a, under_reshapes(w));
    pm_value *whole = unsliced(w);
    if (whole != w)
        whole = unguarded(a, whole);
    if (!pm_value_is(whole, PM_OP_softmax) || !is_axis_last(whole->def, "axis") || pm_op_i64(whole->def, "log"))
        return stop(a, NULL); // not attention at all
    uint32_t uses = pm_value_use_count(whole);
    if (uses > (a->guarded ? 2U : 1U))
        return stop(a, "the weights are used elsewhere");
    *out = whole->def->operands[0];
    return whole == w || beside_sinks(a, *out, w->type, out);
}

/// Whether scores lead to a product within a few steps.
static bool leads_to_product(pm_value *v, int steps)
{
    v = under_reshapes(v);
    if (pm_value_is(v, PM_OP_matmul))
        return true;
    if (steps == 0 || !v->def)
        return false;
    switch (v->def->code) {
    case PM_OP_add:
    case PM_OP_mul: return leads_to_product(v->def->operands[0], steps - 1) || leads_to_product(v->def->operands[1], steps - 1);
    case PM_OP_where: return leads_to_product(v->def->operands[1], steps - 1) || leads_to_product(v->def->operands[2], steps - 1);
    case PM_OP_div:
    case PM_OP_tanh: return leads_to_product(v->def->operands[0], steps - 1);
    default: return false;
    }
}

/// Notes a mask; a second one is added to the first.
static pm_status add_mask(attention *a, pm_value *mask, const pm_type *type)
{
    if (a->mask == NULL) {
        a->mask = mask;
        a->masked = type;
        return PM_OK;
    }
    if (a->mask->type->elem != PM_F32 || mask->type->elem != PM_F32 || type->rank != a->masked->rank) {
        a->why = "two masks of different kinds";
        return PM_OK;
    }
    return pm_build1(&a->b, &a->mask, PM_OP_add, PM_OPERANDS(mask, a->mask), PM_NO_ATTRS);
}

/// where(c, scores, f) and where(c, f, scores): with f of -infinity c or its opposite is a mask of bools, with a
/// number that swallows every score one of floats.
static pm_status match_select(attention *a, pm_op *op, pm_value **scores)
{
    int seen_at = leads_to_product(op->operands[1], 4) ? 1 : 2;
    pm_value *fill = op->operands[3 - seen_at], *mask = op->operands[0], *zero;
    const float nothing = 0;
    double number;
    *scores = op->operands[seen_at];
    if (!number_of(a, fill, &number) || number > -1e30) {
        a->why = "what isn't seen gets a score that could be another's";
        return PM_OK;
    }
    if (number == -INFINITY) {
        if (seen_at == 2)
            PM_TRY(pm_build1(&a->b, &mask, PM_OP_not, PM_OPERANDS(mask), PM_NO_ATTRS));
        return add_mask(a, mask, op->results[0]->type);
    }
    PM_TRY(pm_build_const_f32(&a->b, 0, NULL, &nothing, &zero));
    pm_value *const seen_first[] = {mask, zero, fill}, *const seen_last[] = {mask, fill, zero};
    PM_TRY(pm_build1(&a->b, &mask, PM_OP_where, seen_at == 1 ? seen_first : seen_last, 3, PM_NO_ATTRS));
    return add_mask(a, mask, op->results[0]->type);
}

/// One step from scores towards the product; *v stays where there is none.
static pm_status score_step(attention *a, pm_value **v)
{
    pm_op *op = (*v)->def;
    pm_match match;
    double number;
    bool is_plain = a->scale == 1 && a->softcap == 0;
    if (pm_pattern_matches("mul(tanh(div(?x, $c)), $c)", *v, a->m, &match) ||
        (pm_pattern_matches("mul(tanh(mul(?x, $d)), $c)", *v, a->m, &match) &&
         match.numbers['c' - 'a'] * match.numbers['d' - 'a'] == 1)) {
        if (!is_plain)
            a->why = "scores are capped and then scaled";
        a->softcap = match.numbers['c' - 'a'];
        *v = pm_match_value(&match, 'x');
        return PM_OK;
    }
    if (op->code == PM_OP_add || op->code == PM_OP_where) {
        if (!is_plain)
            a->why = "scores are masked and then scaled";
        if (op->code == PM_OP_where)
            return match_select(a, op, v);
        int side = leads_to_product(op->operands[0], 4) ? 0 : 1;
        *v = op->operands[side];
        return add_mask(a, op->operands[1 - side], op->results[0]->type);
    }
    for (int side = 0; side < 2 && (op->code == PM_OP_mul || (op->code == PM_OP_div && side == 1)) ; side++)
        if (number_of(a, op->operands[side], &number) && number != 0 && isfinite(number)) {
            a->scale *= op->code == PM_OP_div ? 1 / number : number;
            *v = op->operands[1 - side];
            return PM_OK;
        }
    a->why = "scores come from an op that attention doesn't have";
    return PM_OK;
}

static pm_status match_scores(attention *a, pm_value *scores)
{
    a->masked = scores->type;
    a->scale = 1;
    for (int i = 0; i < MAX_STEPS && a->why == NULL; i++) {
        scores = under_reshapes(scores);
        if (pm_value_is(scores, PM_OP_matmul)) {
            a->scored = scores->def;
            return PM_OK;
        }
        if (!scores->def)
            break;
        PM_TRY(score_step(a, &scores));
    }
    a->why = a->why ? a->why : "scores aren't a product";
    return PM_OK;
}

/* ---- operands ---- */

/// v without a factor, which goes to the scale; views in between don't matter.
static pm_value *unscaled(attention *a, pm_value *v)
{
    double number;
    for (int i = 0; i < MAX_STEPS; i++) {
        pm_value *inner = under_reshapes(v);
        if (!pm_value_is(inner, PM_OP_mul))
            return v;
        int side = number_of(a, inner->def->operands[1], &number) ? 1 : 0;
        if (side == 0 && !number_of(a, inner->def->operands[0], &number))
            return v;
        if (inner->def->operands[1 - side]->type != inner->type)
            return v;
        a->scale *= number;
        v = inner->def->operands[1 - side];
    }
    return v;
}

static bool swaps_last(const pm_op *op)
{
    const pm_attr *perm = pm_op_attr(op, "perm");
    int64_t n = (int64_t)perm->n;
    for (int64_t i = 0; i < n; i++)
        if (perm->ints[i] != (i == n - 2 ? n - 1 : i == n - 1 ? n - 2 : i))
            return false;
    return n > 1;
}

/// A value [.., S, d] whose last two axes swapped are `v`. is_scored: a factor goes to the scale.
static pm_status turned(attention *a, pm_value *v, bool is_scored, pm_value **out)
{
    int64_t perm[PM_MAX_RANK];
    for (int i = 0; i < MAX_STEPS; i++) {
        v = is_scored ? unscaled(a, v) : v;
        int32_t last = v->type->rank - 1;
        if (pm_value_is(v, PM_OP_transpose) && swaps_last(v->def)) {
            *out = v->def->operands[0];
            return PM_OK;
        }
        pm_value *from = pm_value_is(v, PM_OP_reshape) ? v->def->operands[0] : NULL;
        int32_t from_last = from ? from->type->rank - 1 : 0;
        if (from_last < 1 || last < 1 || !pm_dim_same(from->type->dims[from_last], v->type->dims[last]) ||
            !pm_dim_same(from->type->dims[from_last - 1], v->type->dims[last - 1]))
            break;
        v = from;
    }
    int32_t rank = v->type->rank;
    for (int32_t i = 0; i < rank; i++)
        perm[i] = i == rank - 2 ? rank - 1 : i == rank - 1 ? rank - 2 : i;
    const pm_attr *old = pm_value_is(v, PM_OP_transpose) ? pm_op_attr(v->def, "perm") : NULL;
    for (int32_t i = 0; old && i < rank; i++) // both at once
        perm[i] = old->ints[i == rank - 2 ? rank - 1 : i == rank - 1 ? rank - 2 : i];
    return pm_build1(&a->b, out, PM_OP_transpose, PM_OPERANDS(old ? v->def->operands[0] : v),
                     PM_ATTRS(pm_attr_ints("perm", perm, (size_t)rank)));
}

/// Whether `v` (under views) repeats heads: [B, KV, 1, S, d] expanded to [B, KV, n, S, d], or [B, 1, S, d] to all heads.
/// Then *out_kv heads of *out.
static bool repeats_heads(attention *a, pm_value *v, pm_value **out, int64_t *out_kv)
{
    v = under_reshapes(v);
    if (!pm_value_is(v, PM_OP_expand))
        return false;
    const pm_type *to = v->type, *from = v->def->operands[0]->type;
    int64_t kv = 1, group;
    int32_t axis = to->rank - 3;
    if (from->rank != to->rank || (to->rank != 5 && to->rank != 4))
        return false;
    for (int32_t i = 0; i < to->rank; i++)
        if (i != axis && !pm_dim_same(from->dims[i], to->dims[i]))
            return false;
    if (!pm_dim_same(from->dims[axis], pm_dim_const(a->m, 1)) || !pm_dim_is_const(a->m, to->dims[axis], &group) ||
        (to->rank == 5 && !pm_dim_is_const(a->m, to->dims[1], &kv)) || group * kv != a->heads ||
        !pm_dim_same(to->dims[0], a->batch))
        return false;
    *out = v->def->operands[0];
    *out_kv = kv;
    return true;
}

/// x, in the order of [B, heads, rows, size], as that or as [B, rows, heads * size] where it was transposed from there.
static pm_status rows_of(attention *a, pm_value *x, int64_t heads, pm_dim rows, pm_dim size, pm_value **out)
{
    const pm_dim dims[] = {a->batch, pm_dim_const(a->m, heads), rows, size};
    const pm_value *v = x;
    while (pm_value_is(v, PM_OP_reshape)) // views that only add or take axes of one element don't matter
        v = v->def->operands[0];
    const pm_attr *perm = pm_value_is(v, PM_OP_transpose) && v->type->rank == 4 ? pm_op_attr(v->def, "perm") : NULL;
    if (heads > 1 && perm && perm->ints[0] == 0 && perm->ints[1] == 2 && perm->ints[2] == 1 && perm->ints[3] == 3 &&
        memcmp(v->type->dims, dims, sizeof dims) == 0) {
        const pm_dim joined[] = {dims[0], rows, pm_dim_mul(a->m, dims[1], size)};
        return pm_build_reshape_dims(&a->b, v->def->operands[0], 3, joined, out);
    }
    return pm_build_reshape_dims(&a->b, x, 4, dims, out);
}

/// What batch, heads and rows are: of the scores with their mask when those have four axes, else of a product.
static bool match_extents(attention *a)
{
    const pm_type *product = a->scored->results[0]->type, *weighed = a->weighed->results[0]->type;
    const pm_type *const types[] = {a->masked, product, weighed};
    const pm_type *type = product;
    for (size_t i = 0; i < PM_COUNT(types); i++)
        if (types[i]->rank == 4) {
            type = types[i];
            break;
        }
    if (product->rank != 3 && product->rank != 4)
        return stop(a, "the product has neither three nor four axes");
    a->heads = 1;
    a->batch = type->dims[0];
    a->tokens = product->dims[product->rank - 2];
    a->keys = product->dims[product->rank - 1];
    if (type->rank == 4 && !pm_dim_is_const(a->m, type->dims[1], &a->heads))
        return stop(a, "the number of heads isn't known");
    pm_dim flat = type->rank == 4 ? pm_dim_mul(a->m, type->dims[0], type->dims[1]) : type->dims[0];
    for (size_t i = 0; i < PM_COUNT(types); i++) {
        const pm_type *t = types[i];
        pm_dim n = t->rank == 4 ? pm_dim_mul(a->m, t->dims[0], t->dims[1]) : t->dims[0];
        if (t->rank < 3 || t->rank > 4 || !pm_dim_same(n, flat) || !pm_dim_same(t->dims[t->rank - 2], a->tokens) ||
            (t->rank == 4 && (!pm_dim_same(t->dims[0], type->dims[0]) || !pm_dim_same(t->dims[1], type->dims[1]))) ||
            (i < 2 && !pm_dim_same(t->dims[t->rank - 1], a->keys)))
            return stop(a, "scores and products differ in their extents");
    }
    return true;
}

/// The operands of both products must have the batch of their result.
static bool is_batched(const pm_op *product)
{
    const pm_type *result = product->results[0]->type;
    for (uint32_t i = 0; i < 2; i++) {
        const pm_type *type = product->operands[i]->type;
        if (type->rank != result->rank || type->elem != PM_F32)
            return false;
        for (int32_t d = 0; d < result->rank - 2; d++)
            if (!pm_dim_same(type->dims[d], result->dims[d]))
                return false;
    }
    return !pm_op_i64(product, "trans_a");
}

/// The mask as `sdpa` takes it.
static pm_status match_mask(attention *a)
{
    const pm_type *type = a->mask ? a->mask->type : NULL;
    pm_dim one = pm_dim_const(a->m, 1);
    const pm_dim over[] = {a->batch, pm_dim_const(a->m, a->heads), a->tokens, a->keys};
    if (!type)
        return PM_OK;
    if (type->rank < 1 || type->rank > a->masked->rank || (type->elem != PM_F32 && type->elem != PM_BOOL) ||
        !pm_dim_same(type->dims[type->rank - 1], a->keys)) {
        a->why = "the mask isn't one of the keys";
        return PM_OK;
    }
    if (a->masked->rank == 3 && type->rank == 3) { // one head each, or heads among the batch
        if (a->heads != 1) {
            a->why = "the mask is of another form than the scores";
            return PM_OK;
        }
        const pm_dim dims[] = {type->dims[0], one, type->dims[1], type->dims[2]};
        PM_TRY(pm_build_reshape_dims(&a->b, a->mask, 4, dims, &a->mask));
        type = a->mask->type;
    }
    for (int32_t i = 2; i <= type->rank; i++) {
        pm_dim extent = type->dims[type->rank - i];
        if (!pm_dim_same(extent, one) && !pm_dim_same(extent, over[4 - i]))
            a->why = "the mask has other extents than the scores";
    }
    return PM_OK;
}

static pm_status match_operands(attention *a, pm_value **operands)
{
    pm_value *q, *k = a->scored->operands[1], *v = a->weighed->operands[1], *own_k, *own_v;
    pm_dim size, value_size;
    int64_t kv, kv_v;
    q = unscaled(a, a->scored->operands[0]);
    size = a->scored->operands[0]->type->dims[a->scored->operands[0]->type->rank - 1];
    value_size = a->weighed->results[0]->type->dims[a->weighed->results[0]->type->rank - 1];
    if (pm_op_i64(a->scored, "trans_b"))
        k = unscaled(a, k);
    else
        PM_TRY(turned(a, k, true, &k));
    k = unscaled(a, k);
    if (pm_op_i64(a->weighed, "trans_b"))
        PM_TRY(turned(a, v, false, &v));
    a->kv_heads = a->heads;
    if (repeats_heads(a, k, &own_k, &kv) && repeats_heads(a, v, &own_v, &kv_v) && kv == kv_v) {
        a->kv_heads = kv;
        k = own_k;
        v = own_v;
    }
    PM_TRY(rows_of(a, q, a->heads, a->tokens, size, &operands[0]));
    PM_TRY(rows_of(a, k, a->kv_heads, a->keys, size, &operands[1]));
    PM_TRY(rows_of(a, v, a->kv_heads, a->keys, value_size, &operands[2]));
    operands[3] = a->mask;
    if (a->sink == NULL)
        return PM_OK;
    pm_dim heads = pm_dim_const(a->m, a->heads);
    return pm_build_reshape_dims(&a->b, a->sink, 1, &heads, &operands[6]);
}

/// The result in the form of the product that it replaces.
static pm_status replace(attention *a, pm_value *result)
{
    static const int64_t perm[] = {0, 2, 1, 3};
    const pm_type *type = a->weighed->results[0]->type;
    pm_dim heads = pm_dim_const(a->m, a->heads);
    if (result->type->rank == 3) {
        const pm_dim dims[] = {a->batch, a->tokens, heads, type->dims[type->rank - 1]};
        PM_TRY(pm_build_reshape_dims(&a->b, result, 4, dims, &result));
        PM_TRY(pm_build1(&a->b, &result, PM_OP_transpose, PM_OPERANDS(result),
                         PM_ATTRS(pm_attr_ints("perm", perm, 4))));
    }
    PM_TRY(pm_build_reshape_dims(&a->b, result, type->rank, type->dims, &result));
    pm_value_replace(a->weighed->results[0], result);
    return PM_OK;
}

static pm_status raise_product(attention *a)
{
    pm_value *scores, *operands[7] = {NULL}, *result;
    if (!match_softmax(a, a->weighed->operands[0], &scores))
        return PM_OK;
    PM_TRY(match_scores(a, scores));
    if (a->why || !match_extents(a))
        return PM_OK;
    if (!is_batched(a->scored) || !is_batched(a->weighed)) {
        a->why = "the products broadcast, or aren't f32";
        return PM_OK;
    }
    PM_TRY(match_mask(a));
    if (a->why)
        return PM_OK;
    PM_TRY(match_operands(a, operands));
    const char *unseen = a->mask && !a->guarded && !a->sink ? "nan" : "zero";
    PM_TRY(pm_build1(&a->b, &result, PM_OP_sdpa, operands, PM_COUNT(operands),
                     PM_ATTRS(pm_attr_i64("heads", a->heads), pm_attr_i64("kv_heads", a->kv_heads),
                              pm_attr_f64("scale", a->scale), pm_attr_f64("softcap", a->softcap),
                              pm_attr_str("unseen", unseen))));
    PM_TRY(replace(a, result));
    pm_pass_count(a->ctx, "attention raised");
    pm_pass_changed(a->ctx);
    return PM_OK;
}

pm_status pm_pass_raise_attention(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_arena *scratch = pm_arena_child(m->arena);
    pm_graph_vec graphs = {0};
    pm_status status = PM_OK;
    pm_graphs_of(m, scratch, &graphs);
    for (size_t i = 0; i < graphs.n; i++)
        for (pm_op *op = graphs.data[i]->first; op && status == PM_OK; op = op->next) {
            if (op->code != PM_OP_matmul)
                continue;
            attention a = {.ctx = ctx, .m = m, .weighed = op,
                           .b = {op->graph, op, pm_loc_derive(m, op->loc, "raise-attention")}};
            status = raise_product(&a);
            if (a.why)
                pm_pass_count(ctx, pm_intern(m, a.why));
        }
    pm_arena_destroy(scratch);
    return status;
}
