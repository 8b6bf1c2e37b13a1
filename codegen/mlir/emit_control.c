/// if and loop. All workers read the condition behind a barrier, so all take the same way; what stands in
/// a region are dispatches of the entry like all others.
///
/// A loop's carried values have memory of their own: the initial values are copied there, and each round's
/// results at its end. A barrier ends each round. Extents that change from round to round are bound anew by
/// worker 0 between two barriers, and what has them lies in the dynamic region, where a slot keeps its
/// memory as long as it is large enough.
#include <string.h>

#include "codegen/mlir/emit_entry.h"
#include "runtime/runtime_abi.h"

/// Values that are handed on: from a branch to the results of its `if`, from one round to the next.
typedef struct handover {
    entry *n;
    int64_t dispatch;
    pm_value *const *from;
    pm_value *const *to; ///< with places of their own; PM_PLACE_NONE: not wanted
    size_t count;
} handover;

/// ---- regions ----------------------------------------------------------------------------------------

/// What holds where a region begins.
typedef struct state {
    PM_VEC(access) epoch;
    bool may_fail;
    size_t n_bound;
} state;

static state save(entry *n)
{
    state s = {.may_fail = n->may_fail, .n_bound = n->bound_list.n};
    for (size_t i = 0; i < n->epoch.n; i++)
        PM_PUSH(n->e->arena, &s.epoch, n->epoch.data[i]);
    return s;
}

static void restore(entry *n, const state *s)
{
    n->epoch.n = 0;
    for (size_t i = 0; i < s->epoch.n; i++)
        PM_PUSH(n->e->arena, &n->epoch, s->epoch.data[i]);
    n->may_fail = s->may_fail;
}

/// Another way leads here, on which this was touched.
static void join(entry *n, const state *s)
{
    for (size_t i = 0; i < s->epoch.n; i++)
        pm_entry_touch(n, s->epoch.data[i].at, s->epoch.data[i].written);
    n->may_fail |= s->may_fail;
}

static pm_status region_ops(entry *n, pm_graph *region)
{
    pm_map lists;
    pm_map_init(&lists, n->e->arena);
    PM_PUSH(n->e->arena, &n->symbol_lists, lists);
    return pm_entry_ops(n, region);
}

/// Behind the region: what it found and copied isn't there.
static void leave_region(entry *n, const state *before)
{
    n->symbol_lists.n--;
    while (n->bound_list.n > before->n_bound)
        n->bound[n->bound_list.data[--n->bound_list.n]] = 0;
}

/// ---- handing values on --------------------------------------------------------------------------------

static bool is_wanted(const pm_value *v)
{
    return v->place.kind != PM_PLACE_NONE;
}

static bool is_dynamic_place(const pm_value *v)
{
    return pm_value_root(v)->place.kind == PM_PLACE_DYNAMIC;
}

/// A symbol that `to` gets from what is handed over. Symbols that carried values share have been bound for
/// the first of them; the others are compared.
static bool binds(const entry *n, pm_dim dim, uint32_t *out_symbol)
{
    return pm_dim_is_symbol(n->e->module, dim, out_symbol) &&
           n->e->module->symbols.data[*out_symbol].data_dependent;
}

/// Whether a symbol is among the first `outside` ones: it belongs to what stands around.
static bool was_bound(const entry *n, uint32_t symbol, size_t outside)
{
    return n->bound[symbol] != 0 && n->bound[symbol] <= outside;
}

static void compare(handover *h, MlirValue found, pm_dim want)
{
    mb *b = h->n->b;
    MlirValue value = pm_emit_dim_at(h->n->e, h->n->symbols, want);
    pm_entry_fault(h->n, mb_convert(b, "extui", mb_cmpi(b, "ne", found, value), b->i32), h->dispatch);
}

/// Visits the extents that aren't the same expression on both sides. Symbols that had no value outside belong
/// to those who take; each is stored once. Without `found` it only counts.
static size_t each_extent(handover *h, size_t outside, MlirValue *found, bool store)
{
    entry *n = h->n;
    mb *b = n->b;
    size_t at = 0;
    PM_VEC(uint32_t) stored = {0};
    for (size_t i = 0; i < h->count; i++) {
        const pm_type *from = h->from[i]->type, *to = h->to[i]->type;
        for (int32_t k = 0; k < to->rank; k++) {
            uint32_t symbol;
            if (from->dims[k] == to->dims[k])
                continue;
            bool own = binds(n, to->dims[k], &symbol) && !was_bound(n, symbol, outside), first = own;
            for (size_t s = 0; s < stored.n && own; s++)
                first = first && stored.data[s] != symbol;
            if (found && !store)
                found[at] = pm_emit_dim_at(n->e, n->symbols, from->dims[k]);
            if (store && first)
                mb_store(b, found[at], mb_at_const(b, b->i64, n->symbols, symbol));
            if (first)
                PM_PUSH(n->e->arena, &stored, symbol);
            at++;
        }
    }
    for (size_t i = 0, k = 0; i < h->count && store; i++) // when all are stored
        for (int32_t d = 0; d < h->to[i]->type->rank; d++)
            if (h->from[i]->type->dims[d] != h->to[i]->type->dims[d])
                compare(h, found[k++], h->to[i]->type->dims[d]);
    return at;
}

static void place_dynamic(handover *h, const pm_value *to)
{
    mb *b = h->n->b;
    MlirValue args[] = {h->n->call, mb_i64(b, pm_value_root(to)->place.index),
                        pm_entry_bytes(h->n, to->type), mb_i64(b, h->dispatch)};
    mb_call(b, "pm_rt_place", (MlirType){0}, args, 4);
}

/// Extents that differ are bound or compared, and dynamic values get their memory: by worker 0.
static void hand_over_extents(handover *h, size_t outside)
{
    entry *n = h->n;
    mb *b = n->b;
    size_t n_extents = each_extent(h, outside, NULL, false);
    bool any = n_extents > 0;
    for (size_t i = 0; i < h->count; i++)
        any = any || (is_wanted(h->to[i]) && is_dynamic_place(h->to[i]));
    if (!any)
        return;
    pm_entry_barrier(n);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    MlirValue *found = PM_NEW_ARRAY(n->e->arena, MlirValue, n_extents + 1);
    each_extent(h, outside, found, false); // all before any is stored: they may be of each other
    each_extent(h, outside, found, true);
    for (size_t i = 0; i < h->count; i++)
        if (is_wanted(h->to[i]) && is_dynamic_place(h->to[i]))
            place_dynamic(h, h->to[i]);
    mb_if_end(b, &first);
    n->may_fail = true;
    pm_entry_barrier(n);
}

/// Every worker copies its share.
static void copy_bytes(entry *n, MlirValue from, MlirValue to, MlirValue bytes)
{
    enum { GRAIN = 4096 };
    mb *b = n->b;
    MlirValue grain = mb_i64(b, GRAIN);
    MlirValue units = mb_bin(b, "divui", mb_add(b, bytes, mb_i64(b, GRAIN - 1)), grain);
    MlirValue next = mb_add(b, n->worker, mb_i64(b, 1));
    MlirValue lo = mb_mul(b, mb_bin(b, "divui", mb_mul(b, units, n->worker), n->n_workers), grain);
    MlirValue hi = mb_mul(b, mb_bin(b, "divui", mb_mul(b, units, next), n->n_workers), grain);
    hi = mb_bin(b, "minsi", hi, bytes);
    mb_if some;
    mb_if_begin(b, &some, mb_cmpi(b, "slt", lo, hi));
    MlirValue args[] = {mb_at(b, b->i8, to, lo), mb_at(b, b->i8, from, lo), mb_sub(b, hi, lo)};
    mb_call(b, "memcpy", b->ptr, args, 3);
    mb_if_end(b, &some);
}

static void hand_over(handover *h, size_t outside)
{
    entry *n = h->n;
    hand_over_extents(h, outside);
    for (size_t i = 0; i < h->count; i++) {
        if (!is_wanted(h->to[i]) || pm_value_root(h->from[i]) == pm_value_root(h->to[i]))
            continue;
        pm_entry_access(n, h->from[i], h->to[i]);
        copy_bytes(n, pm_entry_pointer(n, h->from[i]), pm_entry_pointer(n, h->to[i]),
                   pm_entry_bytes(n, h->to[i]->type));
    }
}

/// Symbols that `to` has beside those that are there: they are, from now on.
static void bind_all(entry *n, pm_value *const *to, size_t count)
{
    uint32_t symbol;
    for (size_t i = 0; i < count; i++)
        for (int32_t k = 0; k < to[i]->type->rank; k++)
            if (binds(n, to[i]->type->dims[k], &symbol))
                pm_entry_bind(n, symbol);
}

static MlirValue load_bool(entry *n, const pm_value *v)
{
    mb *b = n->b;
    return mb_cmpi(b, "ne", mb_load(b, b->i8, pm_entry_pointer(n, v)), mb_int(b, b->i8, 0));
}

/// ---- if -----------------------------------------------------------------------------------------------

pm_status pm_emit_if(entry *n, pm_op *op, int64_t dispatch)
{
    mb *b = n->b;
    size_t outside = n->bound_list.n;
    pm_entry_access(n, op->operands[0], NULL);
    MlirValue cond = load_bool(n, op->operands[0]);
    MlirBlock ways[] = {mb_block(b), mb_block(b)}, behind = mb_block(b);
    mb_branch_if(b, cond, ways[0], ways[1]);
    state before = save(n), after_first = {0};
    for (uint32_t r = 0; r < 2; r++) {
        mb_enter(b, ways[r]);
        restore(n, &before);
        PM_TRY(region_ops(n, op->regions[r]));
        handover h = {n, dispatch, op->regions[r]->results.data, op->results, op->n_results};
        hand_over(&h, outside);
        leave_region(n, &before);
        mb_branch(b, behind);
        if (r == 0)
            after_first = save(n);
    }
    join(n, &after_first);
    mb_enter(b, behind);
    bind_all(n, op->results, op->n_results);
    return PM_OK;
}

/// ---- loop ---------------------------------------------------------------------------------------------

typedef struct loop {
    entry *n;
    pm_op *op;
    pm_graph *body;
    int64_t dispatch;
    size_t carried, scanned;
    MlirValue trips, round, goes_on; ///< round and goes_on: this worker's memory
    size_t outside; ///< so many symbols have had values before
} loop;

/// Where slice `round` of a scanned result lies, and how large it is.
static MlirValue slice_of(loop *l, const pm_value *result, const pm_value *slice, MlirValue *out_bytes)
{
    mb *b = l->n->b;
    *out_bytes = pm_entry_bytes(l->n, slice->type);
    MlirValue at = mb_mul(b, mb_load(b, b->i64, l->round), *out_bytes);
    return mb_at(b, b->i8, pm_entry_pointer(l->n, result), at);
}

/// Worker 0: the first slice says the extents of all, those of the others must be the same.
static void compare_slice(loop *l, const pm_value *result, const pm_value *slice)
{
    entry *n = l->n;
    mb *b = n->b;
    MlirValue is_first = mb_cmpi(b, "eq", mb_load(b, b->i64, l->round), mb_i64(b, 0));
    handover h = {.n = n, .dispatch = l->dispatch};
    for (int32_t k = 0; k < slice->type->rank; k++) {
        uint32_t symbol;
        pm_dim want = result->type->dims[k + 1], have = slice->type->dims[k];
        if (have == want)
            continue;
        MlirValue found = pm_emit_dim_at(n->e, n->symbols, have);
        if (binds(n, want, &symbol) && !was_bound(n, symbol, l->outside)) {
            mb_if first;
            mb_if_begin(b, &first, is_first);
            mb_store(b, found, mb_at_const(b, b->i64, n->symbols, symbol));
            mb_if_end(b, &first);
        }
        compare(&h, found, want);
    }
}

/// Worker 0: room for one more slice.
static void grow(loop *l, const pm_value *result, const pm_value *slice)
{
    mb *b = l->n->b;
    MlirValue args[] = {l->n->call, mb_i64(b, pm_value_root(result)->place.index),
                        mb_load(b, b->i64, l->round), pm_entry_bytes(l->n, slice->type),
                        mb_i64(b, l->dispatch)};
    mb_call(b, "pm_rt_grow", (MlirType){0}, args, 5);
}

static void append_slices(loop *l)
{
    entry *n = l->n;
    mb *b = n->b;
    bool any = false;
    for (size_t i = 0; i < l->scanned; i++) {
        const pm_value *result = l->op->results[l->carried + i];
        const pm_value *slice = l->body->results.data[1 + l->carried + i];
        any = any || is_dynamic_place(result);
        for (int32_t k = 0; k < slice->type->rank; k++)
            any = any || slice->type->dims[k] != result->type->dims[k + 1];
    }
    if (any) {
        pm_entry_barrier(n);
        mb_if first;
        mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
        for (size_t i = 0; i < l->scanned; i++) {
            const pm_value *result = l->op->results[l->carried + i];
            const pm_value *slice = l->body->results.data[1 + l->carried + i];
            compare_slice(l, result, slice);
            if (is_wanted(result) && is_dynamic_place(result))
                grow(l, result, slice);
        }
        mb_if_end(b, &first);
        n->may_fail = true;
        pm_entry_barrier(n);
    }
    for (size_t i = 0; i < l->scanned; i++) {
        const pm_value *result = l->op->results[l->carried + i];
        const pm_value *slice = l->body->results.data[1 + l->carried + i];
        MlirValue bytes;
        if (!is_wanted(result))
            continue;
        pm_entry_access(n, slice, result);
        MlirValue to = slice_of(l, result, slice, &bytes);
        copy_bytes(n, pm_entry_pointer(n, slice), to, bytes);
    }
}

/// Scanned results of no rounds: no bytes, and extents of 0 where nothing else says.
static void begin_scanned(loop *l)
{
    entry *n = l->n;
    mb *b = n->b;
    uint32_t symbol;
    bool any = false;
    for (size_t i = l->carried; i < l->op->n_results; i++)
        for (int32_t k = 0; k < l->op->results[i]->type->rank; k++)
            any = any || is_dynamic_place(l->op->results[i]) ||
                  (binds(n, l->op->results[i]->type->dims[k], &symbol) && !was_bound(n, symbol, l->outside));
    if (!any)
        return;
    pm_entry_barrier(n);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    for (size_t i = l->carried; i < l->op->n_results; i++) {
        const pm_value *result = l->op->results[i];
        for (int32_t k = 0; k < result->type->rank; k++)
            if (binds(n, result->type->dims[k], &symbol) && !was_bound(n, symbol, l->outside))
                mb_store(b, mb_i64(b, 0), mb_at_const(b, b->i64, n->symbols, symbol));
        if (is_wanted(result) && is_dynamic_place(result)) {
            MlirValue args[] = {n->call, mb_i64(b, pm_value_root(result)->place.index), mb_i64(b, 0),
                                mb_i64(b, l->dispatch)};
            mb_call(b, "pm_rt_place", (MlirType){0}, args, 4);
        }
    }
    mb_if_end(b, &first);
    n->may_fail = true;
    pm_entry_barrier(n);
}

/// How many rounds there were, and the extents of what was carried.
static void bind_results(loop *l)
{
    entry *n = l->n;
    mb *b = n->b;
    uint32_t symbol;
    handover h = {n, l->dispatch, l->body->args.data + 2, l->op->results, l->carried};
    bool any = each_extent(&h, l->outside, NULL, false) > 0 || l->scanned > 0;
    if (!any)
        return;
    pm_entry_barrier(n);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    MlirValue *found = PM_NEW_ARRAY(n->e->arena, MlirValue, each_extent(&h, l->outside, NULL, false) + 1);
    each_extent(&h, l->outside, found, false);
    each_extent(&h, l->outside, found, true);
    for (size_t i = l->carried; i < l->op->n_results; i++) {
        pm_dim rounds = l->op->results[i]->type->dims[0];
        MlirValue count = mb_load(b, b->i64, l->round);
        if (binds(n, rounds, &symbol) && !was_bound(n, symbol, l->outside))
            mb_store(b, count, mb_at_const(b, b->i64, n->symbols, symbol));
        compare(&h, count, rounds);
    }
    mb_if_end(b, &first);
    n->may_fail = true;
    pm_entry_barrier(n);
}

/// One round, from the region's ops to the values of the next.
static pm_status emit_round(loop *l)
{
    entry *n = l->n;
    mb *b = n->b;
    PM_TRY(region_ops(n, l->body));
    append_slices(l);
    handover h = {n, l->dispatch, l->body->results.data + 1, l->body->args.data + 2, l->carried};
    hand_over(&h, l->outside);
    pm_entry_barrier(n);
    MlirValue goes_on = load_bool(n, l->body->results.data[0]);
    mb_store(b, mb_convert(b, "extui", goes_on, b->i8), l->goes_on);
    MlirValue round = mb_add(b, mb_load(b, b->i64, l->round), mb_i64(b, 1));
    mb_store(b, round, l->round);
    return PM_OK;
}

static MlirValue local(entry *n, const pm_value *v, MlirType type)
{
    MlirValue memory = mb_alloca(n->b, type, 1);
    while (n->locals.n <= v->place.index)
        PM_PUSH(n->e->arena, &n->locals, memory);
    n->locals.data[v->place.index] = memory;
    return memory;
}

/// Trip count and condition, and the values that the first round gets.
static void begin_loop(loop *l)
{
    entry *n = l->n;
    mb *b = n->b;
    pm_entry_access(n, l->op->operands[0], NULL);
    pm_entry_access(n, l->op->operands[1], NULL);
    l->trips = mb_load(b, b->i64, pm_entry_pointer(n, l->op->operands[0]));
    l->round = local(n, l->body->args.data[0], b->i64);
    l->goes_on = local(n, l->body->args.data[1], b->i8);
    mb_store(b, mb_i64(b, 0), l->round);
    mb_store(b, mb_convert(b, "extui", load_bool(n, l->op->operands[1]), b->i8), l->goes_on);
    begin_scanned(l);
    handover h = {n, l->dispatch, l->op->operands + 2, l->body->args.data + 2, l->carried};
    hand_over(&h, l->outside);
}

pm_status pm_emit_loop(entry *n, pm_op *op, int64_t dispatch)
{
    mb *b = n->b;
    size_t carried = (size_t)pm_op_i64(op, "carried");
    loop l = {.n = n, .op = op, .body = op->regions[0], .dispatch = dispatch, .carried = carried,
              .scanned = op->n_results - carried, .outside = n->bound_list.n};
    begin_loop(&l);
    MlirBlock head = mb_block(b), body = mb_block(b), behind = mb_block(b);
    // workers read the condition behind the barrier that ends a round
    pm_entry_touch(n, pm_entry_location(l.body->results.data[0]), false);
    state before = save(n);
    bind_all(n, l.body->args.data + 2, carried);
    mb_branch(b, head);
    mb_enter(b, head);
    MlirValue more = mb_cmpi(b, "slt", mb_load(b, b->i64, l.round), l.trips);
    MlirValue goes_on = mb_cmpi(b, "ne", mb_load(b, b->i8, l.goes_on), mb_int(b, b->i8, 0));
    mb_branch_if(b, mb_bin(b, "andi", more, goes_on), body, behind);
    mb_enter(b, body);
    PM_TRY(emit_round(&l));
    mb_branch(b, head);
    mb_enter(b, behind);
    leave_region(n, &before);
    restore(n, &before);
    bind_results(&l);
    bind_all(n, op->results, op->n_results);
    return PM_OK;
}
