/// Canonical forms: each op's own fold hook (identities; ir/ops/hooks_fold.c), and the rules below,
/// which need more than one op's knowledge. Runs to a fixed point over a work list: an op is looked at
/// again only when one of its operands was replaced, so the work is linear in what changes.
///
/// Nothing here changes a NaN, an infinity or the sign of a zero. A product with a constant matrix
/// becomes `linear`, whose sums `eval` takes in the same order as those of `matmul`.
#include <math.h>
#include <string.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef struct canonicaliser {
    pm_pass_ctx *ctx;
    pm_arena *scratch;
    pm_id_set overwritten;
    PM_VEC(pm_op *) work; ///< a stack; op->mark is 1 while an op is on it
} canonicaliser;

/* ---- rules ----------------------------------------------------------------------------------- */

/// Tries one rule: *out_value replaces the op's result, NULL: it doesn't fit.
typedef pm_status rule_fn(pm_builder *b, pm_op *op, pm_value **out_value);

/// not(not(x)), neg(neg(x)).
static pm_status fold_twice(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    pm_value *inner = op->operands[0];
    if (pm_value_is(inner, op->code))
        *out_value = inner->def->operands[0];
    return PM_OK;
}

/// abs(abs(x)) and the like: once is enough.
static pm_status fold_idempotent(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    if (pm_value_is(op->operands[0], op->code))
        *out_value = op->operands[0];
    return PM_OK;
}

/// abs(neg(x)) is abs(x).
static pm_status fold_abs(pm_builder *b, pm_op *op, pm_value **out_value)
{
    if (pm_value_is(op->operands[0], PM_OP_neg))
        return pm_build1(b, out_value, PM_OP_abs, PM_OPERANDS(op->operands[0]->def->operands[0]),
                         PM_NO_ATTRS);
    return fold_idempotent(b, op, out_value);
}

/// where(not(c), x, y) is where(c, y, x).
static pm_status fold_select(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_value *condition = op->operands[0];
    if (!pm_value_is(condition, PM_OP_not))
        return PM_OK;
    return pm_build1(b, out_value, PM_OP_where,
                     PM_OPERANDS(condition->def->operands[0], op->operands[2], op->operands[1]),
                     PM_NO_ATTRS);
}

/// One piece is the whole.
static pm_status fold_split(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    if (op->n_results == 1 && op->results[0]->type == op->operands[0]->type)
        *out_value = op->operands[0];
    return PM_OK;
}

/// x and x, x or x.
static pm_status fold_same(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    if (op->operands[0] == op->operands[1])
        *out_value = op->operands[0];
    return PM_OK;
}

static bool is_plain_weight(const pm_value *v)
{
    return pm_value_is(v, PM_OP_const) && !v->type->layout;
}

/// True when the constant extents of the matrix are there and none is 0.
static bool is_proper_matrix(const pm_module *m, const pm_type *type)
{
    int64_t rows, columns;
    return type->rank == 2 && pm_dim_is_const(m, type->dims[0], &rows) && rows > 0 &&
           pm_dim_is_const(m, type->dims[1], &columns) && columns > 0;
}

/// The value with its last two axes swapped.
static pm_status turned(pm_builder *b, pm_value *x, pm_value **out_value)
{
    int64_t perm[PM_MAX_RANK];
    int32_t rank = x->type->rank;
    for (int32_t i = 0; i < rank; i++)
        perm[i] = i;
    perm[rank - 2] = rank - 1;
    perm[rank - 1] = rank - 2;
    return pm_build1(b, out_value, PM_OP_transpose, PM_OPERANDS(x),
                     PM_ATTRS(pm_attr_ints("perm", perm, (size_t)rank)));
}

/// A matrix of codes with one scale for all of it, the other way around.
static pm_status turned_codes(pm_builder *b, pm_op *codes, pm_value **out_value)
{
    pm_module *m = codes->graph->module;
    pm_value *factors = codes->operands[1], *turn;
    int64_t rows = 0, bits = pm_op_i64(codes, "bits");
    const pm_data *scales = pm_value_const(factors);
    if (bits != 8 || codes->n_operands != 2 || !scales || !pm_dim_is_const(m, codes->results[0]->type->dims[1], &rows))
        return PM_OK;
    // as many scales as there are rows now
    const pm_dim dims[] = {codes->results[0]->type->dims[1], pm_dim_const(m, 1)};
    int64_t size = pm_elem_size(factors->type->elem), bytes, k;
    const uint8_t *from;
    if (!pm_dim_is_const(m, codes->operands[0]->type->dims[0], &k) || !pm_mul_i64(rows, size, &bytes))
        return PM_OK;
    PM_TRY(pm_data_bytes(m, scales, &from));
    if (scales->size < (uint64_t)size || memcmp(from, from + size, scales->size - (size_t)size) != 0)
        return PM_OK;
    uint8_t *all = pm_arena_alloc(m->arena, (size_t)bytes, 16);
    for (int64_t i = 0; i < rows; i++)
        memcpy(all + i * size, from, (size_t)size);
    pm_data *data = PM_NEW(m->arena, pm_data);
    *data = (pm_data){.size = (uint64_t)bytes, .bytes = all};
    PM_TRY(pm_build_const(b, pm_type_get(m, factors->type->elem, 2, dims), data, NULL, &factors));
    PM_TRY(turned(b, codes->operands[0], &turn));
    return pm_build1(b, out_value, PM_OP_dequantize, PM_OPERANDS(turn, factors),
                     PM_ATTRS(pm_attr_i64("k", k), pm_attr_i64("bits", bits), pm_attr_str("format", pm_op_str(codes, "format"))));
}

/// What a product multiplies with, [N, K], when that is codes of constants: in the operand that they were rounded to,
/// or turned around. NULL: it isn't.
static pm_status find_codes(pm_builder *b, const pm_op *op, pm_value **out_value)
{
    pm_value *w = op->operands[1];
    bool is_turned = !pm_op_i64(op, "trans_b");
    *out_value = NULL;
    if (pm_value_is(w, PM_OP_cast)) // what packing makes of codes isn't rounded again
        w = w->def->operands[0];
    if (is_turned && pm_value_is(w, PM_OP_transpose) && w->type->rank == 2 && pm_op_attr(w->def, "perm")->n == 2 &&
        pm_op_attr(w->def, "perm")->ints[0] == 1) {
        w = w->def->operands[0];
        is_turned = false;
    }
    if (!pm_value_is_codes(w) || !is_proper_matrix(op->graph->module, w->type))
        return PM_OK;
    if (is_turned)
        return turned_codes(b, w->def, out_value);
    *out_value = w;
    return PM_OK;
}

/// A product with a constant matrix is `linear`: its weights get packed. Of floats that panels (f32 or bf16)
/// hold: small ones are widened, and the product rounded to them.
static pm_status fold_product(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_value *x = op->operands[0], *w = op->operands[1];
    pm_elem elem = x->type->elem;
    if (!pm_value_is(w, PM_OP_const) && x->type->rank >= 1 && (elem == PM_F32 || elem == PM_F16 || elem == PM_BF16)) {
        PM_TRY(find_codes(b, op, &w));
        if (!w)
            return PM_OK;
        if (pm_op_i64(op, "trans_a") && x->type->rank > 1)
            PM_TRY(turned(b, x, &x));
        return pm_build1(b, out_value, PM_OP_linear, PM_OPERANDS(x, w), PM_NO_ATTRS);
    }
    if (!is_plain_weight(w) || !is_proper_matrix(op->graph->module, w->type) || w->type->elem != elem ||
        (elem != PM_F32 && elem != PM_F16 && elem != PM_BF16) || x->type->rank < 1)
        return PM_OK;
    if (pm_op_i64(op, "trans_a") && x->type->rank > 1)
        PM_TRY(turned(b, x, &x));
    if (!pm_op_i64(op, "trans_b"))
        PM_TRY(turned(b, w, &w));
    return pm_build1(b, out_value, PM_OP_linear, PM_OPERANDS(x, w), PM_NO_ATTRS);
}

/// The x of x - max(x) along the axis; NULL: it is something else.
static pm_value *before_shift(pm_value *v, int64_t axis)
{
    if (!pm_value_is(v, PM_OP_sub) || !pm_value_is(v->def->operands[1], PM_OP_reduce_max))
        return NULL;
    const pm_op *most = v->def->operands[1]->def;
    const pm_attr *axes = pm_op_attr(most, "axes");
    pm_value *x = v->def->operands[0];
    bool same = axes->n == 1 && axes->ints[0] + (axes->ints[0] < 0 ? x->type->rank : 0) == axis;
    return same && most->operands[0] == x && pm_op_i64(most, "keepdims") && x->type == v->type ? x : NULL;
}

/// Softmax subtracts the largest itself. Along another axis than the last: that one goes last, where
/// rows are rows.
static pm_status fold_softmax(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_value *x = op->operands[0];
    int64_t perm[PM_MAX_RANK], axis = pm_op_i64(op, "axis");
    int32_t rank = x->type->rank;
    axis += axis < 0 ? rank : 0;
    if (before_shift(x, axis))
        return pm_build1(b, out_value, PM_OP_softmax, PM_OPERANDS(before_shift(x, axis)),
                         PM_ATTRS(pm_attr_i64("axis", axis), pm_attr_bool("log", pm_op_i64(op, "log") != 0)));
    if (rank < 2 || axis == rank - 1 || x->type->elem == PM_F64)
        return PM_OK;
    for (int32_t i = 0; i < rank; i++)
        perm[i] = i;
    perm[axis] = rank - 1;
    perm[rank - 1] = axis; // a swap: its own inverse
    const pm_attr turn = pm_attr_ints("perm", perm, (size_t)rank);
    PM_TRY(pm_build1(b, &x, PM_OP_transpose, PM_OPERANDS(x), PM_ATTRS(turn)));
    PM_TRY(pm_build1(b, &x, PM_OP_softmax, PM_OPERANDS(x),
                     PM_ATTRS(pm_attr_bool("log", pm_op_i64(op, "log") != 0))));
    return pm_build1(b, out_value, PM_OP_transpose, PM_OPERANDS(x), PM_ATTRS(turn));
}

static bool is_all(const pm_attr *attr, int64_t value)
{
    for (size_t i = 0; attr->present && i < attr->n; i++)
        if (attr->ints[i] != value)
            return false;
    return true;
}

/// Windows that lie side by side: as many as fill each axis. *out_n: the axes.
static bool tiles_windows(const pm_op *op, int64_t *out_counts, int64_t *out_sizes, int32_t *out_n)
{
    const pm_module *m = op->graph->module;
    const pm_type *x = op->operands[0]->type, *w = op->operands[1]->type;
    const pm_attr *strides = pm_op_attr(op, "strides");
    int32_t n = x->rank - 2;
    int64_t extent, channels;
    if (!is_plain_weight(op->operands[1]) || x->elem != PM_F32 || w->elem != PM_F32 || 2 * n + 2 > PM_MAX_RANK ||
        pm_op_i64(op, "group") != 1 || !is_all(pm_op_attr(op, "pads"), 0) ||
        !is_all(pm_op_attr(op, "dilations"), 1) || !pm_dim_is_const(m, x->dims[1], &channels) || channels < 1)
        return false;
    for (int32_t i = 0; i < n; i++) {
        int64_t *size = &out_sizes[i];
        if (!pm_dim_is_const(m, w->dims[i + 2], size) || !pm_dim_is_const(m, x->dims[i + 2], &extent) ||
            *size < 1 || extent < 1 || extent % *size != 0 || (strides->present ? strides->ints[i] : 1) != *size)
            return false;
        out_counts[i] = extent / *size;
    }
    *out_n = n;
    return true;
}

/// A convolution whose windows lie side by side (patches of an image) is a product of each window with
/// the weights.
static pm_status fold_windows(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_module *m = op->graph->module;
    pm_value *x = op->operands[0], *w = op->operands[1];
    pm_value *bias = op->n_operands > 2 ? op->operands[2] : NULL;
    int64_t counts[PM_MAX_RANK], sizes[PM_MAX_RANK], perm[PM_MAX_RANK], back[PM_MAX_RANK];
    int32_t n, at = 0;
    if (!tiles_windows(op, counts, sizes, &n) || (bias && bias->type->elem != PM_F32))
        return PM_OK;
    // [B, C, n1, s1, …] to [B, n1, …, C, s1, …] to [B, n1, …, C*s1*…]
    pm_dim split[PM_MAX_RANK] = {x->type->dims[0], x->type->dims[1]}, joined[PM_MAX_RANK] = {split[0]};
    pm_dim flat[2] = {w->type->dims[0], w->type->dims[1]};
    for (int32_t i = 0; i < n; i++) {
        split[2 + 2 * i] = joined[1 + i] = pm_dim_const(m, counts[i]);
        split[3 + 2 * i] = pm_dim_const(m, sizes[i]);
        flat[1] = pm_dim_mul(m, flat[1], split[3 + 2 * i]);
    }
    joined[1 + n] = flat[1];
    perm[at++] = 0;
    for (int32_t i = 0; i < n; i++)
        perm[at++] = 2 + 2 * i;
    perm[at++] = 1;
    for (int32_t i = 0; i < n; i++)
        perm[at++] = 3 + 2 * i;
    back[0] = 0;
    back[1] = n + 1;
    for (int32_t i = 0; i < n; i++)
        back[2 + i] = 1 + i;
    PM_TRY(pm_build_reshape_dims(b, x, 2 + 2 * n, split, &x));
    PM_TRY(pm_build1(b, &x, PM_OP_transpose, PM_OPERANDS(x),
                     PM_ATTRS(pm_attr_ints("perm", perm, (size_t)at))));
    PM_TRY(pm_build_reshape_dims(b, x, n + 2, joined, &x));
    PM_TRY(pm_build_reshape_dims(b, w, 2, flat, &w));
    pm_value *const operands[] = {x, w, bias};
    PM_TRY(pm_build1(b, &x, PM_OP_linear, operands, bias ? 3 : 2, PM_NO_ATTRS));
    return pm_build1(b, out_value, PM_OP_transpose, PM_OPERANDS(x),
                     PM_ATTRS(pm_attr_ints("perm", back, (size_t)n + 2)));
}

/// Constants stand on the right of what commutes, so that other rules look there alone. Not of float
/// min and max: which of 0 and -0 comes out hangs on the order.
static void constants_right(canonicaliser *c, pm_op *op)
{
    if (!(pm_op_info_of(op)->traits & PM_T_COMMUTES) || !pm_value_const(op->operands[0]) ||
        pm_value_const(op->operands[1]) ||
        ((op->code == PM_OP_min || op->code == PM_OP_max) &&
         pm_elem_is_float(op->operands[0]->type->elem)))
        return;
    pm_value *first = op->operands[0];
    pm_op_set_operand(op, 0, op->operands[1]);
    pm_op_set_operand(op, 1, first);
    pm_pass_changed(c->ctx);
    pm_pass_count(c->ctx, "constants moved right");
}

static rule_fn *rule_of(const pm_op *op)
{
    switch (op->code) {
    case PM_OP_not:
    case PM_OP_neg: return fold_twice;
    case PM_OP_abs: return fold_abs;
    case PM_OP_relu:
    case PM_OP_floor:
    case PM_OP_ceil:
    case PM_OP_round:
    case PM_OP_sign: return fold_idempotent;
    case PM_OP_where: return fold_select;
    case PM_OP_and:
    case PM_OP_or: return fold_same;
    case PM_OP_split: return fold_split;
    case PM_OP_matmul: return fold_product;
    case PM_OP_softmax: return fold_softmax;
    case PM_OP_conv: return fold_windows;
    default: return NULL;
    }
}

/* ---- the work list --------------------------------------------------------------------------- */

static void push(canonicaliser *c, pm_op *op)
{
    if (op->mark)
        return;
    op->mark = 1;
    PM_PUSH(c->scratch, &c->work, op);
}

static void push_users(canonicaliser *c, const pm_value *v)
{
    for (const pm_use *use = v->uses; use; use = use->next)
        push(c, use->op);
}

/// Ops that a rule put before `op`, and what their regions hold. Their locations are derived here,
/// where it is known that they stay.
static void push_new(canonicaliser *c, pm_op *from, pm_op *op)
{
    for (pm_op *fresh = from; fresh != op; fresh = fresh->next) {
        fresh->loc = pm_loc_derive(c->ctx->module, fresh->loc, "canonicalise");
        push(c, fresh);
        for (uint32_t i = 0; i < fresh->n_regions; i++) // depth: PM_MAX_REGION_DEPTH
            push_new(c, fresh->regions[i]->first, NULL);
    }
}

static bool is_unused(const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++)
        if (pm_value_is_used(op->results[i]))
            return false;
    return op->n_results > 0 && !(pm_op_info_of(op)->traits & PM_T_IMPURE);
}

/// Ops that a rule built in vain.
static void erase_new(pm_op *before_first, pm_op *op)
{
    while (op->prev != before_first && is_unused(op->prev))
        pm_op_erase(op->prev);
}

static pm_status try_rule(canonicaliser *c, pm_op *op, rule_fn *rule, const char *what, bool *out_done)
{
    pm_op *previous = op->prev;
    pm_graph *g = op->graph;
    pm_builder b = {g, op, op->loc};
    pm_value *value = NULL;
    PM_TRY(rule(&b, op, &value));
    pm_value *old = op->n_results ? op->results[0] : NULL;
    if (value && (value->type != old->type || value == old ||
                  !pm_may_stand_for(&c->overwritten, old, value))) {
        erase_new(previous, op);
        value = NULL;
    }
    bool spliced = !value && op->n_results > 1 && is_unused(op); // `if`: replaced its results itself
    if (!value && !spliced)
        return PM_OK;
    push_new(c, previous ? previous->next : g->first, op);
    if (value) {
        push_users(c, old);
        if (!value->name)
            value->name = old->name;
        if (!value->content)
            value->content = old->content;
        pm_value_replace(old, value);
    }
    pm_op_erase(op);
    pm_pass_changed(c->ctx);
    pm_pass_count(c->ctx, what);
    *out_done = true;
    return PM_OK;
}

static pm_status visit(canonicaliser *c, pm_op *op)
{
    const pm_op_info *info = pm_op_info_of(op);
    bool done = false;
    if (op->n_results == 1 && is_unused(op))
        return PM_OK; // left to dce
    c->ctx->module->device = op->device;
    constants_right(c, op);
    if (info->fold)
        PM_TRY(try_rule(c, op, info->fold, info->name, &done));
    rule_fn *rule = rule_of(op);
    if (!done && rule)
        PM_TRY(try_rule(c, op, rule, info->name, &done));
    return PM_OK;
}

pm_status pm_pass_canonicalise(pm_pass_ctx *ctx)
{
    pm_arena *scratch = pm_arena_child(ctx->module->arena);
    canonicaliser c = {.ctx = ctx, .scratch = scratch};
    pm_graph_vec graphs;
    pm_graphs_of(ctx->module, scratch, &graphs);
    c.overwritten = pm_overwritten_values(ctx->module, &graphs, scratch);
    for (size_t i = 0; i < graphs.n; i++)
        for (pm_op *op = graphs.data[i]->first; op; op = op->next)
            op->mark = 0;
    // on a stack: the first op of the first graph is to be on top
    for (size_t i = graphs.n; i-- > 0;)
        for (pm_op *op = graphs.data[i]->last; op; op = op->prev)
            push(&c, op);
    // every replacement removes an op; only new ops could go round in circles
    uint64_t fuel = 64 * (uint64_t)c.work.n + 1024;
    for (; c.work.n > 0 && fuel > 0; fuel--) {
        pm_op *op = c.work.data[--c.work.n];
        op->mark = 0;
        if (op->graph)
            PM_TRY(visit(&c, op));
    }
    if (fuel == 0)
        pm_pass_count(ctx, "stopped before the end");
    ctx->module->device = NULL;
    pm_arena_destroy(scratch);
    return PM_OK;
}
