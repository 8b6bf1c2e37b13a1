/// Entries: the line of dispatches that every worker runs, and the plans of their sizes.
#include <string.h>

#include "codegen/mlir/launch_plan.h"
#include "ir/builder.h"
#include "ir/extent_rules.h"
#include "runtime/runtime_abi.h"

_Static_assert(sizeof(void *) == 8, "generated code addresses pm_rt_call by 64-bit offsets");

static MlirValue call_field(entry *n, size_t offset, MlirType type)
{
    return mb_load(n->b, type, mb_at_const(n->b, n->b->i8, n->call, (int64_t)offset));
}

const char *pm_entry_value_device(const pm_value *v)
{
    const pm_value *root = pm_value_root(v);
    if (root->place.kind == PM_PLACE_STATE)
        return root->graph->module->states.data[root->place.index].device;
    return root->def ? root->def->device : NULL;
}

location pm_entry_location(const pm_value *v)
{
    if (pm_entry_value_device(v))
        return (location){0}; // what a device does it does in order
    const pm_place *p = &pm_value_root(v)->place;
    return (location){p->kind, p->kind == PM_PLACE_ARENA ? 0 : p->index,
                      p->kind == PM_PLACE_ARENA ? p->offset : 0};
}

static bool needs_no_order(location at)
{
    return at.kind == PM_PLACE_WEIGHT || at.kind == PM_PLACE_INPUT || at.kind == PM_PLACE_NONE ||
           at.kind == PM_PLACE_LOCAL;
}

static bool same_location(location a, location b)
{
    return a.kind == b.kind && a.index == b.index && a.offset == b.offset;
}

MlirValue pm_entry_pointer(entry *n, const pm_value *value)
{
    mb *b = n->b;
    const pm_value *v = pm_value_root(value);
    MlirValue table = {0};
    switch (v->place.kind) {
    case PM_PLACE_ARENA:
        return mb_at(b, b->i8, n->arena, n->offsets[v->place.offset]);
    case PM_PLACE_WEIGHT:
        return mb_at_const(b, b->i8, n->weights, (int64_t)pm_weights_offset(n->e->weights, v));
    case PM_PLACE_LOCAL: return n->locals.data[v->place.index];
    case PM_PLACE_INPUT: table = n->inputs; break;
    case PM_PLACE_OUTPUT: table = n->outputs; break;
    case PM_PLACE_STATE: table = n->states; break;
    case PM_PLACE_DYNAMIC: table = call_field(n, offsetof(pm_rt_call, dynamic), b->ptr); break;
    default: return mb_null(b);
    }
    return mb_load(b, b->ptr, mb_at_const(b, b->ptr, table, v->place.index));
}

void pm_entry_barrier(entry *n)
{
    mb *b = n->b;
    MlirValue args[] = {n->call, n->worker};
    mb_call(b, "pm_rt_barrier", (MlirType){0}, args, 2);
    if (n->may_fail) {
        MlirValue error = call_field(n, offsetof(pm_rt_call, error), b->i32);
        mb_return_if(b, mb_cmpi(b, "ne", error, mb_int(b, b->i32, 0)));
    }
    n->may_fail = false;
    n->epoch.n = 0;
}

/// Whether an access must wait for what was touched since the last barrier.
static bool conflicts(const entry *n, location at, bool written)
{
    for (size_t i = 0; i < n->epoch.n; i++)
        if ((written || n->epoch.data[i].written) && same_location(at, n->epoch.data[i].at))
            return true;
    return false;
}

void pm_entry_touch(entry *n, location at, bool written)
{
    access a = {at, written};
    if (needs_no_order(at))
        return;
    for (size_t i = 0; i < n->epoch.n; i++)
        if (n->epoch.data[i].written == written && same_location(at, n->epoch.data[i].at))
            return;
    PM_PUSH(n->e->arena, &n->epoch, a);
}

void pm_entry_access(entry *n, const pm_value *read, const pm_value *written)
{
    if ((read && conflicts(n, pm_entry_location(read), false)) ||
        (written && conflicts(n, pm_entry_location(written), true)))
        pm_entry_barrier(n);
    if (read)
        pm_entry_touch(n, pm_entry_location(read), false);
    if (written)
        pm_entry_touch(n, pm_entry_location(written), true);
}

static void await_one(entry *n, const coming *c)
{
    mb *b = n->b;
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    MlirValue args[] = {n->call, mb_i64(b, pm_entry_device(n, c->device)), pm_entry_pointer(n, c->value),
                        mb_i64(b, c->dispatch)};
    mb_call(b, "pm_rt_arrive", (MlirType){0}, args, PM_COUNT(args));
    mb_if_end(b, &first);
    pm_entry_touch(n, pm_entry_location(c->value), true);
    n->may_fail = true;
}

void pm_entry_await(entry *n, const pm_value *value)
{
    const pm_value *root = value ? pm_value_root(value) : NULL;
    size_t kept = 0;
    for (size_t i = 0; i < n->coming.n; i++) {
        const coming *c = &n->coming.data[i];
        if (!value || root == c->value || root == c->source)
            await_one(n, c);
        else
            n->coming.data[kept++] = *c;
    }
    n->coming.n = kept;
}

/// Before an op: what it reads on the host must be there, what it overwrites on a device gone. (pass plan-memory counts on
/// the host's part.)
static void await_for(entry *n, const pm_op *op)
{
    bool reads_host = !op->device || op->code == PM_OP_transfer;
    for (uint32_t i = 0; i < op->n_operands && reads_host; i++)
        if (op->operands[i] && pm_entry_value_device(op->operands[i]) == NULL)
            pm_entry_await(n, op->operands[i]);
    for (uint32_t i = 0; i < op->n_results && op->device; i++)
        pm_entry_await(n, op->results[i]);
}

static void order(entry *n, const pm_op *op)
{
    bool wait = false;
    for (uint32_t i = 0; i < op->n_operands && !wait; i++)
        wait = op->operands[i] && conflicts(n, pm_entry_location(op->operands[i]), false);
    for (uint32_t i = 0; i < op->n_results && !wait; i++)
        wait = conflicts(n, pm_entry_location(op->results[i]), true);
    if (wait)
        pm_entry_barrier(n);
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i])
            pm_entry_touch(n, pm_entry_location(op->operands[i]), false);
    for (uint32_t i = 0; i < op->n_results; i++)
        pm_entry_touch(n, pm_entry_location(op->results[i]), true);
}

void pm_entry_fault(entry *n, MlirValue status, int64_t dispatch)
{
    mb *b = n->b;
    mb_if bad;
    mb_if_begin(b, &bad, mb_cmpi(b, "ne", status, mb_int(b, b->i32, 0)));
    MlirValue args[] = {n->call, mb_i64(b, dispatch)};
    mb_call(b, "pm_rt_fail", (MlirType){0}, args, 2);
    mb_if_end(b, &bad);
    n->may_fail = true;
}

static MlirValue copy_symbols(entry *n, const pm_dispatch_fn *fn)
{
    mb *b = n->b;
    MlirValue list = mb_alloca(b, b->i64, (int64_t)fn->n_symbols);
    for (size_t i = 0; i < fn->n_symbols; i++)
        mb_store(b, mb_load(b, b->i64, mb_at_const(b, b->i64, n->symbols, fn->symbols[i])),
                 mb_at_const(b, b->i64, list, (int64_t)i));
    return list;
}

/// The values of the symbols that a dispatch mentions; they are bound by now.
static MlirValue symbols_for(entry *n, const pm_dispatch_fn *fn)
{
    bool in_place = true;
    for (size_t i = 0; i < fn->n_symbols && in_place; i++)
        in_place = fn->symbols[i] == i;
    if (in_place)
        return n->symbols;
    size_t size = fn->n_symbols * sizeof *fn->symbols;
    for (size_t i = n->symbol_lists.n; i-- > 0;) {
        MlirValue *known = pm_map_get(&n->symbol_lists.data[i], fn->symbols, size);
        if (known)
            return *known;
    }
    MlirValue *list = PM_NEW(n->e->arena, MlirValue);
    *list = copy_symbols(n, fn);
    pm_map_put(&n->symbol_lists.data[n->symbol_lists.n - 1], fn->symbols, size, list);
    return *list;
}

static MlirValue call_function(entry *n, pm_op *op, const pm_dispatch_fn *fn, bool extent,
                               MlirValue symbols, MlirValue scratch)
{
    pm_value **values;
    size_t count = pm_dispatch_values(n->e, op, &values);
    if (extent)
        count -= op->n_results;
    MlirValue *args = PM_NEW_ARRAY(n->e->arena, MlirValue, count + 4);
    for (size_t i = 0; i < count; i++)
        args[i] = pm_entry_pointer(n, values[i]);
    args[count] = symbols;
    args[count + 1] = scratch;
    args[count + 2] = n->worker;
    args[count + 3] = n->n_workers;
    return mb_call(n->b, fn->name, n->b->i32, args, count + 4);
}

/// Symbols that first appear in the results of `op`: it binds them while the entry runs.
static bool binds_symbols(entry *n, const pm_op *op)
{
    bool any = false;
    for (uint32_t i = 0; i < op->n_results; i++)
        for (int32_t k = 0; k < op->results[i]->type->rank; k++) {
            uint32_t s;
            if (pm_dim_is_symbol(n->e->module, op->results[i]->type->dims[k], &s) &&
                n->e->module->symbols.data[s].data_dependent && !n->bound[s])
                any = true;
        }
    return any;
}

void pm_entry_bind(entry *n, uint32_t symbol)
{
    if (n->bound[symbol])
        return;
    PM_PUSH(n->e->arena, &n->bound_list, symbol);
    n->bound[symbol] = (uint32_t)n->bound_list.n;
}

/// Worker 0 finds the extents, the others wait.
static pm_status bind_symbols(entry *n, pm_op *op, int64_t dispatch)
{
    mb *b = n->b;
    pm_module *m = n->e->module;
    if (!pm_op_info_of(op)->extent)
        return pm_error(n->e->diag, op->loc, PM_ERR_INTERNAL, "%s has extents that nothing finds",
                        pm_op_info_of(op)->name);
    pm_dispatch_fn fn;
    PM_TRY(pm_extent_function(n->e, op, &fn));
    pm_entry_barrier(n);
    MlirValue symbols = copy_symbols(n, &fn); // some are not bound yet: the copy serves this call alone
    MlirValue extents = mb_alloca(b, b->i64, (int64_t)op->n_results * PM_MAX_RANK);
    mb_if first, good;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    MlirValue status = call_function(n, op, &fn, true, symbols, extents);
    pm_entry_fault(n, status, dispatch);
    mb_if_begin(b, &good, mb_cmpi(b, "eq", status, mb_int(b, b->i32, 0)));
    for (uint32_t i = 0; i < op->n_results; i++)
        for (int32_t k = 0; k < op->results[i]->type->rank; k++) {
            uint32_t s;
            pm_dim dim = op->results[i]->type->dims[k];
            MlirValue found = mb_load(b, b->i64, mb_at_const(b, b->i64, extents, (int64_t)i * PM_MAX_RANK + k));
            if (pm_dim_is_symbol(m, dim, &s) && m->symbols.data[s].data_dependent && !n->bound[s]) {
                mb_store(b, found, mb_at_const(b, b->i64, n->symbols, s));
                pm_entry_bind(n, s);
            }
        }
    // Once all are bound: extents that are expressions must agree.
    for (uint32_t i = 0; i < op->n_results; i++)
        for (int32_t k = 0; k < op->results[i]->type->rank; k++) {
            MlirValue found = mb_load(b, b->i64, mb_at_const(b, b->i64, extents, (int64_t)i * PM_MAX_RANK + k));
            MlirValue want = pm_emit_dim_at(n->e, n->symbols, op->results[i]->type->dims[k]);
            pm_entry_fault(n, mb_convert(b, "extui", mb_cmpi(b, "ne", found, want), b->i32), dispatch);
        }
    mb_if_end(b, &good);
    mb_if_end(b, &first);
    pm_entry_barrier(n);
    return PM_OK;
}

static MlirValue overflow_flag(mb *b)
{
    MlirValue flag = mb_alloca(b, b->i32, 1);
    mb_store(b, mb_int(b, b->i32, 0), flag);
    return flag;
}

/// The value, or -1 when it, or another one that shares the flag, didn't fit: the runtime refuses that.
static MlirValue unless_overflow(mb *b, MlirValue flag, MlirValue value)
{
    MlirValue wrapped = mb_cmpi(b, "ne", mb_load(b, b->i32, flag), mb_int(b, b->i32, 0));
    return mb_select(b, wrapped, mb_i64(b, -1), value);
}

MlirValue pm_entry_bytes(entry *n, const pm_type *type)
{
    MlirValue flag = overflow_flag(n->b);
    MlirValue bytes = pm_emit_bytes_checked(n->e, n->symbols, type, flag);
    return unless_overflow(n->b, flag, bytes);
}

/// Dynamic results get their memory before the dispatch.
static void place_results(entry *n, const pm_op *op, int64_t dispatch)
{
    mb *b = n->b;
    bool any = false;
    for (uint32_t i = 0; i < op->n_results; i++)
        any = any || op->results[i]->place.kind == PM_PLACE_DYNAMIC;
    if (!any)
        return;
    pm_entry_barrier(n);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", n->worker, mb_i64(b, 0)));
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_value *v = op->results[i];
        if (v->place.kind != PM_PLACE_DYNAMIC)
            continue;
        MlirValue args[] = {n->call, mb_i64(b, v->place.index), pm_entry_bytes(n, v->type),
                            mb_i64(b, dispatch)};
        mb_call(b, "pm_rt_place", (MlirType){0}, args, 4);
    }
    mb_if_end(b, &first);
    n->may_fail = true;
    pm_entry_barrier(n);
}

static bool has_place(const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++)
        if (op->results[i]->place.kind != PM_PLACE_NONE)
            return true;
    return false;
}

static bool may_fail(const pm_op *op, const pm_lowering *how)
{
    if (how->kind == 0)
        return true;
    switch (op->code) {
    case PM_OP_cache_key:
    case PM_OP_cache_value:
    case PM_OP_kv_append:
    case PM_OP_sdpa:
    case PM_OP_causal_conv: // as reference where elements aren't f32
    case PM_OP_linear_attention:
    case PM_OP_selective_scan:
    case PM_OP_expert_order:
    case PM_OP_fused:
    case PM_OP_gather_rows:
    case PM_OP_combine: return true;
    default: return how->kind == 1; // loops may run as reference
    }
}

static bool not_bound(const pm_module *m, uint32_t symbol, const void *arg)
{
    const entry *n = arg;
    return m->symbols.data[symbol].data_dependent && !n->bound[symbol];
}

/// Extents of an op that must fit, of which only the run can tell whether they do.
typedef struct extent_checks {
    entry *n;
    int64_t dispatch; ///< -1: they are just counted
    int count;
} extent_checks;

static void check_extents(void *user, pm_dim a, pm_dim b, bool broadcast)
{
    extent_checks *c = user;
    entry *n = c->n;
    pm_module *m = n->e->module;
    uint32_t symbol;
    int64_t x = 0, y = 0;
    if (pm_dim_same(a, b))
        return;
    bool a_const = pm_dim_is_const(m, a, &x), b_const = pm_dim_is_const(m, b, &y);
    if ((a_const && b_const) || (broadcast && ((a_const && x == 1) || (b_const && y == 1))) ||
        pm_dim_find_symbol(m, a, not_bound, n, &symbol) || pm_dim_find_symbol(m, b, not_bound, n, &symbol))
        return; // inference has compared them, they fit, or they aren't known yet
    c->count++;
    if (c->dispatch < 0)
        return;
    mb *code = n->b;
    MlirValue u = pm_emit_dim_at(n->e, n->symbols, a), v = pm_emit_dim_at(n->e, n->symbols, b);
    MlirValue bad = mb_cmpi(code, "ne", u, v);
    if (broadcast) {
        bad = mb_bin(code, "andi", bad, mb_cmpi(code, "ne", u, mb_i64(code, 1)));
        bad = mb_bin(code, "andi", bad, mb_cmpi(code, "ne", v, mb_i64(code, 1)));
    }
    pm_entry_fault(n, mb_convert(code, "extui", bad, code->i32), c->dispatch);
    mb_return_if(code, bad); // every worker finds the same, so all of them leave
}

/// Emits the checks of an op, and of what it fused; `dispatch` -1: only counts them.
static int check_op(entry *n, const pm_op *op, int64_t dispatch)
{
    extent_checks checks = {n, dispatch, 0};
    pm_op_extent_rules(op, check_extents, &checks);
    for (const pm_op *o = op->code == PM_OP_fused ? op->regions[0]->first : NULL; o; o = o->next)
        pm_op_extent_rules(o, check_extents, &checks);
    return checks.count;
}

static pm_status emit_op(entry *n, pm_op *op)
{
    emitter *e = n->e;
    const pm_lowering *how = pm_lowering_of(op);
    if (!how || how->gone)
        return pm_error(e->diag, op->loc, PM_ERR_UNSUPPORTED, "%s can't be compiled yet",
                        pm_op_info_of(op)->name);
    if (how->weight)
        return PM_OK;
    int64_t number = (int64_t)e->dispatches.n;
    bool binds = binds_symbols(n, op) || pm_op_finds_extents(op);
    bool checks = has_place(op) && !how->control && check_op(n, op, -1) > 0;
    if (binds || !(how->view || (pm_op_info_of(op)->traits & PM_T_SHAPE)))
        await_for(n, op);
    if (!binds && !checks && (how->view || !has_place(op)))
        return PM_OK;
    pm_dispatch info = {
        .name = pm_arena_printf(e->arena, "%s %u", pm_op_info_of(op)->name, op->serial),
        .loc = op->loc, .entry = n->number, .kind = how->kind};
    PM_PUSH(e->arena, &e->dispatches, info);
    if (how->control)
        return op->code == PM_OP_if ? pm_emit_if(n, op, number) : pm_emit_loop(n, op, number);
    if (binds)
        PM_TRY(bind_symbols(n, op, number));
    if (checks)
        check_op(n, op, number);
    if (how->view || !has_place(op))
        return PM_OK;
    if (op->device || op->code == PM_OP_transfer)
        return pm_emit_device_op(n, op, number);
    pm_dispatch_fn fn;
    PM_TRY(pm_dispatch_function(e, op, &fn));
    place_results(n, op, number);
    order(n, op);
    MlirValue status = call_function(n, op, &fn, false, symbols_for(n, &fn), n->scratch);
    if (may_fail(op, how))
        pm_entry_fault(n, status, number);
    return PM_OK;
}

pm_status pm_entry_ops(entry *n, pm_graph *graph)
{
    for (pm_op *op = graph->first; op; op = op->next)
        PM_TRY(emit_op(n, op));
    return PM_OK;
}

static pm_dim largest_offset(const pm_graph *graph)
{
    pm_dim largest = 0;
    for (pm_op *op = graph->first; op; op = pm_op_next_nested(graph, op)) {
        for (uint32_t i = 0; i < op->n_results; i++)
            if (op->results[i]->place.kind == PM_PLACE_ARENA && op->results[i]->place.offset > largest)
                largest = op->results[i]->place.offset;
        for (size_t i = 0; op->code == PM_OP_loop && i < op->regions[0]->args.n; i++) {
            const pm_place *p = &op->regions[0]->args.data[i]->place;
            if (p->kind == PM_PLACE_ARENA && p->offset > largest)
                largest = p->offset;
        }
    }
    return largest;
}

static void emit_offset(entry *n, const pm_value *v)
{
    if (v->place.kind == PM_PLACE_ARENA && !n->offsets[v->place.offset].ptr)
        pm_emit_dim_cached(n->e, n->symbols, v->place.offset, n->offsets);
}

/// Places depend on the caller's symbols alone: computed once, where they dominate everything.
static void emit_offsets(entry *n)
{
    n->offsets = PM_NEW_ARRAY(n->e->arena, MlirValue, (size_t)largest_offset(n->graph) + 1);
    for (pm_op *op = n->graph->first; op; op = pm_op_next_nested(n->graph, op)) {
        for (uint32_t i = 0; i < op->n_results; i++)
            emit_offset(n, op->results[i]);
        for (size_t i = 0; op->code == PM_OP_loop && i < op->regions[0]->args.n; i++)
            emit_offset(n, op->regions[0]->args.data[i]);
    }
}

static pm_status emit_run(emitter *e, pm_graph *graph, uint32_t number)
{
    mb *b = &e->b;
    entry n = {.e = e, .b = b, .graph = graph, .number = number};
    MlirType types[] = {b->ptr, b->i64, b->i64};
    mb_function f;
    mb_function_begin(b, &f, pm_arena_printf(e->arena, "pm_run_%u", number), (MlirType){0}, types, 3,
                      NULL, false, NULL);
    n.call = mb_function_arg(&f, 0);
    n.worker = mb_function_arg(&f, 1);
    n.n_workers = mb_function_arg(&f, 2);
    n.arena = call_field(&n, offsetof(pm_rt_call, arena), b->ptr);
    n.inputs = call_field(&n, offsetof(pm_rt_call, inputs), b->ptr);
    n.outputs = call_field(&n, offsetof(pm_rt_call, outputs), b->ptr);
    n.states = call_field(&n, offsetof(pm_rt_call, states), b->ptr);
    n.weights = call_field(&n, offsetof(pm_rt_call, weights), b->ptr);
    n.symbols = call_field(&n, offsetof(pm_rt_call, symbols), b->ptr);
    MlirValue room = call_field(&n, offsetof(pm_rt_call, scratch_bytes), b->i64);
    n.scratch = mb_at(b, b->i8, call_field(&n, offsetof(pm_rt_call, scratch), b->ptr),
                      mb_mul(b, room, n.worker));
    if (e->n_devices)
        n.words = mb_alloca(b, b->i64, PM_LAUNCH_MAX_WORDS);
    emit_offsets(&n);
    pm_map lists;
    pm_map_init(&lists, e->arena);
    PM_PUSH(e->arena, &n.symbol_lists, lists);
    n.bound = PM_NEW_ARRAY(e->arena, uint32_t, e->module->symbols.n + 1);
    pm_status status = pm_entry_ops(&n, graph);
    pm_entry_await(&n, NULL);
    mb_return(b, (MlirValue){0});
    mb_function_end(b, &f);
    return status;
}

/// ---- plans ------------------------------------------------------------------------------------------

static void store_number(mb *b, MlirValue out, int64_t index, MlirValue value)
{
    mb_store(b, value, mb_at_const(b, b->i64, out, index));
}

/// Value of an extent, -1 while a data-dependent symbol in it is not bound.
static MlirValue planned_dim(emitter *e, MlirValue symbols, pm_dim dim, MlirValue flag)
{
    mb *b = &e->b;
    MlirValue value = pm_emit_dim_checked(e, symbols, dim, flag);
    if (!pm_dim_is_dynamic(e->module, dim))
        return value;
    for (uint32_t s = 0; s < e->module->symbols.n; s++) {
        if (!e->module->symbols.data[s].data_dependent)
            continue;
        MlirValue unbound = mb_cmpi(
            b, "slt", mb_load(b, b->i64, mb_at_const(b, b->i64, symbols, s)), mb_i64(b, 0));
        bool mentions = pm_dim_mentions(e->module, dim, s);
        if (mentions)
            value = mb_select(b, unbound, mb_i64(b, -1), value);
    }
    return value;
}

static pm_dim device_arena(const pm_graph *graph, const char *device)
{
    for (size_t i = 0; i < graph->device_arenas.n; i++)
        if (strcmp(graph->device_arenas.data[i].device, device) == 0)
            return graph->device_arenas.data[i].bytes;
    return pm_dim_const(graph->module, 0);
}

/// One piece of scratch that the ops of a device need.
static int64_t device_scratch(pm_graph *graph, const char *device)
{
    int64_t most = 0;
    for (pm_op *op = graph->first; op; op = pm_op_next_nested(graph, op)) {
        int64_t bytes = op->device && strcmp(op->device, device) == 0 ? pm_emit_scratch_bytes(op) : 0;
        most = bytes > most ? bytes : most;
    }
    return (most + 63) / 64 * 64;
}

static void emit_plan(emitter *e, pm_graph *graph, uint32_t number)
{
    mb *b = &e->b;
    MlirType types[] = {b->ptr, b->ptr};
    mb_function f;
    mb_function_begin(b, &f, pm_arena_printf(e->arena, "pm_plan_%u", number), (MlirType){0}, types, 2,
                      NULL, false, NULL);
    MlirValue symbols = mb_function_arg(&f, 0), out = mb_function_arg(&f, 1);
    MlirValue flag = overflow_flag(b), unused = overflow_flag(b);
    int64_t scratch = 0, at = 2;
    for (pm_op *op = graph->first; op; op = pm_op_next_nested(graph, op)) {
        int64_t bytes = op->device ? 0 : pm_emit_scratch_bytes(op);
        scratch = bytes > scratch ? bytes : scratch;
    }
    MlirValue arena = pm_emit_dim_checked(e, symbols, graph->arena_bytes, flag);
    store_number(b, out, 0, unless_overflow(b, flag, arena));
    store_number(b, out, 1, mb_i64(b, scratch));
    for (size_t i = 0; i < graph->args.n + graph->results.n; i++) {
        const pm_type *type = i < graph->args.n ? graph->args.data[i]->type
                                                : graph->results.data[i - graph->args.n]->type;
        for (int32_t k = 0; k < type->rank; k++)
            store_number(b, out, at++, planned_dim(e, symbols, type->dims[k], unused));
    }
    for (size_t i = 0; i < e->n_devices; i++) {
        MlirValue device_flag = overflow_flag(b);
        MlirValue bytes = pm_emit_dim_checked(e, symbols, device_arena(graph, e->devices[i].name), device_flag);
        store_number(b, out, at++, unless_overflow(b, device_flag, bytes));
        store_number(b, out, at++, mb_i64(b, device_scratch(graph, e->devices[i].name)));
    }
    mb_return(b, (MlirValue){0});
    mb_function_end(b, &f);
}

static void emit_state_bytes(emitter *e)
{
    mb *b = &e->b;
    MlirType types[] = {b->ptr, b->ptr};
    mb_function f;
    mb_function_begin(b, &f, "pm_state_bytes", (MlirType){0}, types, 2, NULL, false, NULL);
    for (size_t i = 0; i < e->module->states.n; i++) {
        MlirValue flag = overflow_flag(b);
        MlirValue bytes = pm_emit_bytes_checked(e, mb_function_arg(&f, 0),
                                                e->module->states.data[i].type, flag);
        store_number(b, mb_function_arg(&f, 1), (int64_t)i, unless_overflow(b, flag, bytes));
    }
    mb_return(b, (MlirValue){0});
    mb_function_end(b, &f);
}

pm_status pm_emit_entries(emitter *e)
{
    for (uint32_t i = 0; i < e->module->entries.n; i++) {
        PM_TRY(emit_run(e, e->module->entries.data[i], i));
        emit_plan(e, e->module->entries.data[i], i);
    }
    emit_state_bytes(e);
    return PM_OK;
}
