/// A loop over the experts that some row chose becomes a loop over all experts.
///
/// Its list is nonzero(hits) and its rounds take e from there: list[i]. Round e may run for an expert
/// without rows as well when it then changes nothing that the loop carries. What is known of such an e
/// follows from hits[e] being false, backwards through the ops that made hits: slice e of a mask is all
/// false, or no choice is e. Then e is the iteration itself, in the same order, and the trip count is a
/// constant: pass unroll makes plain ops of it.
#include "ir/op_table.h"
#include "passes/generic/supposing.h"
#include "passes/passes.h"

enum { MAX_STEPS = 16 };

typedef enum slice_kind {
    SLICE_ZERO, ///< slice e of the value along `axis` is all 0
    NO_ELEMENT, ///< no element of the value is e
} slice_kind;

typedef struct slice_fact {
    slice_kind kind;
    const pm_value *value;
    int32_t axis;
} slice_fact;

typedef struct hit_loop {
    pm_pass_ctx *ctx;
    pm_supposing s;
    pm_op *loop;
    pm_graph *body;
    const pm_op *nonzero;
    int64_t experts;
    pm_id_set lists;       ///< arguments that show the list
    pm_id_set numbers;     ///< values of the body that are e
    PM_VEC(pm_op *) picks; ///< ops that take e from the list
    PM_VEC(slice_fact) facts;
} hit_loop;

/* ---- what hits were made of ------------------------------------------------------------------------ */

/// The axis of a reduction's operand that axis `axis` of its result was; -1: none.
static int32_t before_reduction(const pm_op *op, int32_t axis)
{
    const pm_attr *axes = pm_op_attr(op, "axes");
    int32_t rank = op->operands[0]->type->rank, at = 0;
    for (int32_t i = 0; i < rank; i++) {
        bool reduced = false;
        for (size_t k = 0; k < axes->n; k++)
            reduced = reduced || (axes->ints[k] < 0 ? axes->ints[k] + rank : axes->ints[k]) == i;
        if (at == axis && !reduced)
            return i;
        at += !reduced || pm_op_i64(op, "keepdims");
    }
    return -1;
}

/// The axis before a reshape that only adds or takes away axes of 1; -1: another one.
static int32_t before_reshape(const pm_module *m, const pm_op *op, int32_t axis)
{
    const pm_type *from = op->operands[0]->type, *to = op->results[0]->type;
    int64_t one;
    int32_t found = -1, i = 0, k = 0;
    for (;;) {
        while (i < from->rank && pm_dim_is_const(m, from->dims[i], &one) && one == 1)
            i++;
        while (k < to->rank && pm_dim_is_const(m, to->dims[k], &one) && one == 1)
            k++;
        if (i == from->rank || k == to->rank)
            return i == from->rank && k == to->rank ? found : -1;
        if (!pm_dim_same(from->dims[i], to->dims[k]))
            return -1;
        found = k == axis ? i : found;
        i++;
        k++;
    }
}

/// 0, 1, 2, … along the axis, and 1 in all others.
static bool counts_along(pm_module *m, pm_value *v, int32_t rank, int32_t axis, int64_t experts)
{
    enum { MOST = 1024 };
    int64_t values[MOST], extent;
    size_t n;
    int32_t at = axis - (rank - v->type->rank);
    if (experts > MOST || at < 0 || !pm_value_const_ints(v, values, MOST, &n) || (int64_t)n != experts ||
        !pm_dim_is_const(m, v->type->dims[at], &extent) || extent != experts)
        return false;
    for (size_t i = 0; i < n; i++)
        if (values[i] != (int64_t)i)
            return false;
    return true;
}

static void note_fact(hit_loop *h, slice_kind kind, const pm_value *v, int32_t axis)
{
    PM_PUSH(h->s.scratch, &h->facts, ((slice_fact){kind, v, axis}));
}

/// No choice is e: neither is one in what the value was reshaped from.
static void note_no_element(hit_loop *h, pm_value *v)
{
    for (int step = 0; step < MAX_STEPS; step++) {
        note_fact(h, NO_ELEMENT, v, 0);
        if (!pm_value_is(v, PM_OP_reshape) && !pm_value_is(v, PM_OP_transpose))
            return;
        v = v->def->operands[0];
    }
}

/// onehot or a comparison with 0, 1, 2, … : the values that say which slices are true.
static pm_value *choices_of(hit_loop *h, const pm_op *op, const pm_type *type, int32_t axis)
{
    pm_module *m = h->s.m;
    int64_t extent;
    if (op->code == PM_OP_equal)
        for (uint32_t i = 0; i < 2; i++) {
            pm_value *ids = op->operands[1 - i];
            int32_t at = axis - (type->rank - ids->type->rank);
            if (counts_along(m, op->operands[i], type->rank, axis, h->experts) &&
                (at < 0 || (pm_dim_is_const(m, ids->type->dims[at], &extent) && extent == 1)))
                return ids;
        }
    if (op->code == PM_OP_onehot) {
        int64_t at = pm_op_i64(op, "axis"), values[2];
        size_t n;
        if ((at < 0 ? at + type->rank : at) == axis && pm_value_const_ints(op->operands[2], values, 2, &n) &&
            n == 2 && values[0] == 0 && values[1] != 0)
            return op->operands[0];
    }
    return NULL;
}

/// Slice e of hits is false: follows it backwards.
static void follow(hit_loop *h, pm_value *v, int32_t axis)
{
    for (int step = 0; step < MAX_STEPS && axis >= 0; step++) {
        note_fact(h, SLICE_ZERO, v, axis);
        const pm_op *op = v->def;
        pm_value *ids = op ? choices_of(h, op, v->type, axis) : NULL;
        if (ids) {
            note_no_element(h, ids);
            return;
        }
        if (!op || op->n_operands == 0)
            return;
        pm_value *from = op->operands[0];
        switch (op->code) {
        case PM_OP_less: // 0 < x
            from = op->operands[1];
            if (!pm_is_zero_const(op->operands[0]) || from->type->rank != v->type->rank ||
                !pm_is_not_negative(from, 0))
                return;
            break;
        case PM_OP_cast:
            if (from->type->elem != PM_BOOL && v->type->elem != PM_BOOL)
                return;
            break;
        case PM_OP_reduce_sum:
        case PM_OP_reduce_max:
            if (!pm_is_not_negative(from, 0))
                return;
            axis = before_reduction(op, axis);
            break;
        case PM_OP_transpose: axis = (int32_t)pm_op_attr(op, "perm")->ints[axis]; break;
        case PM_OP_reshape: axis = before_reshape(h->s.m, op, axis); break;
        default: return;
        }
        v = from;
    }
}

/* ---- the loop ---------------------------------------------------------------------------------------- */

/// The nonzero that a value shows, or NULL.
static const pm_op *list_of(const pm_value *v)
{
    for (int step = 0; step < MAX_STEPS && v->def; step++) {
        if (v->def->code == PM_OP_nonzero)
            return v->def;
        if (v->def->code != PM_OP_reshape && v->def->code != PM_OP_transpose)
            return NULL;
        v = v->def->operands[0];
    }
    return NULL;
}

/// Whether the rounds are as many as there are hits of one axis, and nothing else ends the loop.
static bool goes_over_hits(hit_loop *h)
{
    const pm_op *loop = h->loop;
    const uint8_t *bytes;
    uint32_t captured = 2 + (uint32_t)pm_op_i64(loop, "carried");
    const pm_data *condition = pm_value_const(loop->operands[1]);
    const pm_value *trips = loop->operands[0];
    if (pm_op_i64(loop, "scanned") || !trips->content || !condition ||
        h->body->results.data[0] != h->body->args.data[1] ||
        pm_data_bytes(h->s.m, condition, &bytes) != PM_OK || !bytes[0])
        return false;
    for (uint32_t i = captured; i < loop->n_operands; i++) {
        const pm_op *list = list_of(loop->operands[i]);
        if (!list || (h->nonzero && h->nonzero != list))
            continue;
        const pm_type *hits = list->operands[0]->type;
        if (hits->rank == 1 && pm_dim_is_const(h->s.m, hits->dims[0], &h->experts) && h->experts > 0 &&
            pm_dim_same(list->results[0]->type->dims[1], trips->content[0])) {
            h->nonzero = list;
            pm_id_set_add(&h->lists, h->body->args.data[i]->id);
        }
    }
    return h->nonzero != NULL;
}

static bool is_number(const hit_loop *h, const pm_value *v)
{
    return pm_id_set_has(&h->numbers, v->id);
}

/// list[i], as one element.
static bool takes_number(const hit_loop *h, const pm_op *op)
{
    const pm_value *round = h->body->args.data[0];
    while (op->code == PM_OP_gather) {
        const pm_value *index = op->operands[1];
        int64_t n, axis = pm_op_i64(op, "axis");
        const pm_type *list = op->operands[0]->type;
        axis = axis < 0 ? axis + list->rank : axis;
        if (pm_value_is(index, PM_OP_reshape))
            index = index->def->operands[0];
        return index == round && pm_type_const_count(h->s.m, op->results[0]->type, &n) && n == 1 &&
               pm_dim_same(list->dims[axis], h->nonzero->results[0]->type->dims[1]);
    }
    return false;
}

/// Arguments get what is known of the operands: of the slices, and that they are what they are.
static void enter(hit_loop *h)
{
    for (uint32_t i = 2; i < h->loop->n_operands; i++) {
        pm_value *arg = h->body->args.data[i];
        size_t n = h->facts.n;
        pm_suppose_note(&h->s, arg, (pm_supposed){PM_SUPPOSED_SAME, arg});
        for (size_t k = 0; k < n && i >= 2 + (uint32_t)pm_op_i64(h->loop, "carried"); k++)
            if (h->facts.data[k].value == h->loop->operands[i])
                note_fact(h, h->facts.data[k].kind, arg, h->facts.data[k].axis);
    }
}

static const slice_fact *fact_of(const hit_loop *h, const pm_value *v, slice_kind kind)
{
    for (size_t i = 0; i < h->facts.n; i++)
        if (h->facts.data[i].value == v && h->facts.data[i].kind == kind)
            return &h->facts.data[i];
    return NULL;
}

/// Slice e taken by the number, or a comparison with it.
static bool is_slice_of_nothing(const hit_loop *h, const pm_op *op)
{
    if (op->code == PM_OP_gather && is_number(h, op->operands[1])) {
        const slice_fact *fact = fact_of(h, op->operands[0], SLICE_ZERO);
        int64_t axis = pm_op_i64(op, "axis");
        return fact && (axis < 0 ? axis + op->operands[0]->type->rank : axis) == fact->axis;
    }
    for (uint32_t i = 0; op->code == PM_OP_equal && i < 2; i++)
        if (is_number(h, op->operands[i]) && fact_of(h, op->operands[1 - i], NO_ELEMENT))
            return true;
    return false;
}

/// e is in range wherever there are as many as experts.
static bool picks_in_range(const hit_loop *h, const pm_op *op)
{
    int64_t axis, extent;
    if (op->code != PM_OP_gather || !is_number(h, op->operands[1]))
        return false;
    axis = pm_op_i64(op, "axis");
    axis = axis < 0 ? axis + op->operands[0]->type->rank : axis;
    return pm_dim_is_const(h->s.m, op->operands[0]->type->dims[axis], &extent) && extent >= h->experts;
}

static bool shows_number(const hit_loop *h, const pm_op *op)
{
    return (op->code == PM_OP_reshape || op->code == PM_OP_cast) && is_number(h, op->operands[0]) &&
           pm_elem_is_int(op->results[0]->type->elem);
}

static bool uses_list(const hit_loop *h, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && pm_id_set_has(&h->lists, op->operands[i]->id))
            return true;
    return false;
}

static bool look_through_op(hit_loop *h, pm_op *op)
{
    if (uses_list(h, op)) {
        if (!takes_number(h, op))
            return false;
        pm_id_set_add(&h->numbers, op->results[0]->id);
        PM_PUSH(h->s.scratch, &h->picks, op);
        return true;
    }
    if (shows_number(h, op)) {
        pm_id_set_add(&h->numbers, op->results[0]->id);
        return true;
    }
    if (is_slice_of_nothing(h, op)) {
        pm_suppose_note(&h->s, op->results[0], (pm_supposed){PM_SUPPOSED_ZERO, NULL});
        return true;
    }
    if (!picks_in_range(h, op) && !pm_suppose_is_harmless(&h->s, op))
        return false;
    pm_suppose_look_at(&h->s, op);
    return true;
}

/// Whether a round for an expert that nobody chose changes nothing.
static bool changes_nothing(hit_loop *h)
{
    int64_t carried = pm_op_i64(h->loop, "carried");
    pm_suppose_begin(&h->s);
    follow(h, h->nonzero->operands[0], 0);
    enter(h);
    for (pm_op *op = h->body->first; op; op = op->next)
        if (!look_through_op(h, op))
            return false;
    for (int64_t i = 0; i < carried; i++) {
        pm_value *before = h->body->args.data[2 + i], *after = h->body->results.data[1 + i];
        pm_supposed k = pm_suppose_know(&h->s, after);
        if (k.fact != PM_SUPPOSED_SAME || k.same_as != before || before->type != after->type)
            return false;
    }
    return h->picks.n > 0;
}

/// e becomes the iteration, the trip count the number of experts.
static pm_status go_over_all(hit_loop *h)
{
    pm_builder b = {h->loop->graph, h->loop, pm_loc_derive(h->s.m, h->loop->loc, "hit-loops")};
    pm_value *trips, *number;
    PM_TRY(pm_build_const_ints(&b, PM_I64, 0, NULL, &h->experts, &trips));
    pm_op_set_operand(h->loop, 0, trips);
    for (size_t i = 0; i < h->picks.n; i++) {
        pm_op *op = h->picks.data[i];
        b = (pm_builder){h->body, op, pm_loc_derive(h->s.m, op->loc, "hit-loops")};
        PM_TRY(pm_build_reshape_dims(&b, h->body->args.data[0], op->results[0]->type->rank,
                                     op->results[0]->type->dims, &number));
        pm_value_replace(op->results[0], number);
        pm_op_erase(op);
    }
    pm_pass_changed(h->ctx);
    pm_pass_count(h->ctx, "loops over all experts");
    return PM_OK;
}

static pm_status visit(pm_pass_ctx *ctx, pm_op *loop, pm_arena *scratch)
{
    pm_module *m = ctx->module;
    hit_loop h = {.ctx = ctx, .s = {.m = m, .scratch = scratch}, .loop = loop, .body = loop->regions[0],
                  .lists = pm_id_set_create(scratch, m->next_value),
                  .numbers = pm_id_set_create(scratch, m->next_value)};
    return goes_over_hits(&h) && changes_nothing(&h) ? go_over_all(&h) : PM_OK;
}

pm_status pm_pass_hit_loops(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_graph *entry = ctx->module->entries.data[i];
        for (pm_op *op = entry->first; op; op = pm_op_next_nested(entry, op)) {
            if (op->code != PM_OP_loop)
                continue;
            pm_arena *scratch = pm_arena_child(ctx->module->arena);
            pm_status status = visit(ctx, op, scratch);
            pm_arena_destroy(scratch);
            PM_TRY(status);
        }
    }
    return PM_OK;
}
