/// Control flow whose course is known becomes plain ops: the branch that an `if` takes, and loops whose
/// condition stays true and whose trip count is a constant, when that gives few ops or when the rounds
/// pick from constants by their number. The latter is how loops over experts are written: each round's
/// weights then are constants of their own.
///
/// What was found while the entry runs (a result's extent) may be known now: its symbol is replaced by
/// what it is, everywhere.
#include <string.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

enum {
    MAX_TRIPS = 1024,
    FEW_OPS = 256,      ///< that any loop may become
    MANY_OPS = 1 << 17, ///< that a loop over constants may become
    ALL_OPS = 1 << 20,  ///< that one run of the pass may make
    FEW_NUMBERS = 16,
};

typedef struct unroller {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_arena *scratch; ///< of one loop
    pm_graph_vec graphs;
    pm_id_set overwritten;
    uint64_t made;     ///< ops
} unroller;

/* ---- what is known of an op with regions -------------------------------------------------------- */

static bool known_bool(pm_value *v, bool *out)
{
    const uint8_t *bytes;
    const pm_data *data = pm_value_const(v);
    if (!data || v->type->elem != PM_BOOL || data->size != 1 ||
        pm_data_bytes(v->graph->module, data, &bytes) != PM_OK)
        return false;
    *out = *bytes != 0;
    return true;
}

static bool is_known_true(pm_value *v)
{
    bool value;
    return known_bool(v, &value) && value;
}

/// The rounds of a loop that nothing but the trip count ends.
static bool known_trips(pm_op *loop, int64_t *out_trips)
{
    const pm_graph *g = loop->regions[0];
    bool begins;
    size_t n;
    if (!known_bool(loop->operands[1], &begins))
        return false;
    *out_trips = 0;
    if (!begins)
        return true;
    if (!pm_value_const_ints(loop->operands[0], out_trips, 1, &n) || n != 1)
        return false;
    *out_trips = *out_trips < 0 ? 0 : *out_trips;
    return *out_trips <= 1 || g->results.data[0] == g->args.data[1] || is_known_true(g->results.data[0]);
}

static uint64_t count_ops(const pm_graph *g)
{
    uint64_t n = 0;
    for (pm_op *op = g->first; op; op = pm_op_next_nested(g, op))
        n += op->code != PM_OP_const;
    return n;
}

/* ---- loops over constants ----------------------------------------------------------------------- */

/// What a value of the body hangs on, by value id.
enum { OF_ROUND = 1, OF_CONSTANTS = 2 };

static bool is_few_integers(const pm_module *m, const pm_type *type)
{
    int64_t n;
    return !pm_elem_is_float(type->elem) && pm_type_const_count(m, type, &n) && n <= FEW_NUMBERS;
}

/// Facts of a region's arguments are those of the operands.
static void pass_facts(uint8_t *facts, const pm_op *op)
{
    for (uint32_t r = 0; r < op->n_regions; r++) {
        const pm_graph *g = op->regions[r];
        size_t own = op->code == PM_OP_loop ? 0 : 1; // operands before those that the arguments stand for
        for (size_t i = 0; op->code != PM_OP_experts && i < g->args.n && own + i < op->n_operands; i++) {
            bool carried = op->code == PM_OP_loop && i < 2 + (size_t)pm_op_i64(op, "carried");
            const pm_value *v = op->operands[own + i];
            if (!carried && v)
                facts[g->args.data[i]->id] = facts[v->id];
        }
    }
}

static bool picks(const pm_op *op)
{
    return op->code == PM_OP_gather || op->code == PM_OP_slice || op->code == PM_OP_gather_nd ||
           op->code == PM_OP_gather_elements;
}

/// Whether a round takes a part of a constant that its number says.
static bool picks_from_constants(const unroller *u, const pm_op *loop)
{
    const pm_graph *body = loop->regions[0];
    uint8_t *facts = PM_NEW_ARRAY(u->scratch, uint8_t, u->m->next_value);
    for (uint32_t i = 0; i < loop->n_operands; i++)
        if (loop->operands[i] && pm_value_const(loop->operands[i]))
            facts[loop->operands[i]->id] = OF_CONSTANTS;
    pass_facts(facts, loop);
    facts[body->args.data[0]->id] = OF_ROUND;
    for (pm_op *op = body->first; op; op = pm_op_next_nested(body, op)) {
        uint8_t all = OF_CONSTANTS, any = 0;
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i]) {
                all &= facts[op->operands[i]->id];
                any |= facts[op->operands[i]->id] & OF_ROUND;
            }
        if (picks(op) && facts[op->operands[0]->id] & OF_CONSTANTS && any)
            return true;
        pass_facts(facts, op);
        for (uint32_t i = 0; i < op->n_results && op->n_regions == 0; i++)
            facts[op->results[i]->id] =
                (uint8_t)(all | (any && is_few_integers(u->m, op->results[i]->type) ? any : 0));
    }
    return false;
}

static bool is_worth(unroller *u, const pm_op *loop, int64_t trips)
{
    uint64_t ops = count_ops(loop->regions[0]);
    if (trips > MAX_TRIPS || ops > MANY_OPS)
        return false;
    uint64_t made = (uint64_t)trips * ops;
    if (u->made + made > ALL_OPS) {
        pm_pass_count(u->ctx, "loops left: too many ops");
        return false;
    }
    return made <= FEW_OPS || (made <= MANY_OPS && picks_from_constants(u, loop));
}

/* ---- results -------------------------------------------------------------------------------------- */

/// Extents that were found while the entry ran, and are known now.
static void note_known(unroller *u, pm_symbol_extents *known, const pm_type *old, const pm_type *fresh)
{
    uint32_t symbol;
    for (int32_t i = 0; i < old->rank && i < fresh->rank; i++)
        if (!pm_dim_same(old->dims[i], fresh->dims[i]) &&
            pm_dim_is_symbol(u->m, old->dims[i], &symbol) &&
            u->m->symbols.data[symbol].data_dependent)
            PM_PUSH(u->scratch, known, ((pm_symbol_extent){symbol, fresh->dims[i]}));
}

/// The op gives way to `values`.
static pm_status replace_op(unroller *u, pm_op *op, pm_value **values, const char *what)
{
    pm_symbol_extents known = {0};
    for (uint32_t i = 0; i < op->n_results; i++) {
        note_known(u, &known, op->results[i]->type, values[i]->type);
        PM_TRY(pm_stand_in(op, &u->overwritten, op->results[i], values[i], &values[i]));
        if (!values[i]->name)
            values[i]->name = op->results[i]->name;
        pm_value_replace(op->results[i], values[i]);
    }
    pm_op_erase(op);
    if (known.n)
        pm_symbols_replace(u->m, &known, u->scratch);
    pm_pass_changed(u->ctx);
    pm_pass_count(u->ctx, what);
    return PM_OK;
}

/// Locations of the ops between, which were copied.
static void derive_locations(unroller *u, pm_op *first, const pm_op *end)
{
    for (pm_op *op = first; op != end; op = op->next) {
        op->loc = pm_loc_derive(u->m, op->loc, "unroll");
        u->made++;
    }
}

static pm_status take_branch(unroller *u, pm_op *op, bool condition)
{
    pm_builder b = {op->graph, op, op->loc};
    pm_value **values = PM_NEW_ARRAY(u->scratch, pm_value *, op->n_results + 1);
    PM_TRY(pm_region_inline(&b, op->regions[condition ? 0 : 1], op->operands + 1, values));
    return replace_op(u, op, values, "branches taken");
}

/// The scanned slices of all rounds, stacked.
static pm_status stack(pm_builder *b, unroller *u, pm_value **slices, size_t n, pm_value **out)
{
    pm_dim dims[PM_MAX_RANK];
    const pm_type *type = slices[0]->type;
    dims[0] = pm_dim_const(u->m, 1);
    if (type->rank)
        memcpy(dims + 1, type->dims, (size_t)type->rank * sizeof *dims);
    for (size_t i = 0; i < n; i++)
        PM_TRY(pm_build_reshape_dims(b, slices[i], type->rank + 1, dims, &slices[i]));
    return pm_build1(b, out, PM_OP_concat, slices, n, PM_ATTRS(pm_attr_i64("axis", 0)));
}

/// Whether the loop's scanned results can be built from slices: of equal, known extents.
static bool can_stack(const pm_op *loop, int64_t trips)
{
    size_t carried = (size_t)pm_op_i64(loop, "carried");
    const pm_graph *g = loop->regions[0];
    if (g->results.n == 1 + carried)
        return true;
    if (trips == 0)
        return false;
    for (size_t i = 1 + carried; i < g->results.n; i++)
        for (int32_t k = 0; k < g->results.data[i]->type->rank; k++)
            if (pm_dim_is_dynamic(g->module, g->results.data[i]->type->dims[k]))
                return false;
    return true;
}

static pm_status unroll(unroller *u, pm_op *loop, int64_t trips)
{
    const pm_graph *body = loop->regions[0];
    size_t carried = (size_t)pm_op_i64(loop, "carried"), scanned = loop->n_results - carried;
    pm_builder b = {loop->graph, loop, pm_loc_derive(u->m, loop->loc, "unroll")};
    pm_value **args = PM_NEW_ARRAY(u->scratch, pm_value *, loop->n_operands);
    pm_value **results = PM_NEW_ARRAY(u->scratch, pm_value *, body->results.n);
    pm_value **slices = PM_NEW_ARRAY(u->scratch, pm_value *, scanned * (size_t)trips + 1);
    memcpy(args, loop->operands, loop->n_operands * sizeof *args);
    for (int64_t round = 0; round < trips; round++) {
        PM_TRY(pm_build_const_ints(&b, PM_I64, 0, NULL, &round, &args[0]));
        PM_TRY(pm_region_inline(&b, body, args, results));
        if (carried)
            memcpy(args + 2, results + 1, carried * sizeof *args);
        for (size_t i = 0; i < scanned; i++)
            slices[i * (size_t)trips + (size_t)round] = results[1 + carried + i];
    }
    pm_value **values = PM_NEW_ARRAY(u->scratch, pm_value *, loop->n_results + 1);
    if (carried)
        memcpy(values, args + 2, carried * sizeof *values);
    for (size_t i = 0; i < scanned; i++)
        PM_TRY(stack(&b, u, slices + i * (size_t)trips, (size_t)trips, &values[carried + i]));
    return replace_op(u, loop, values, "loops unrolled");
}

/* ---- the walk ------------------------------------------------------------------------------------- */

static pm_status visit(unroller *u, pm_op *op, bool *out_done)
{
    bool condition;
    int64_t trips;
    if (op->code == PM_OP_if && known_bool(op->operands[0], &condition)) {
        *out_done = true;
        return take_branch(u, op, condition);
    }
    if (op->code == PM_OP_loop && known_trips(op, &trips) && can_stack(op, trips) &&
        is_worth(u, op, trips)) {
        *out_done = true;
        return unroll(u, op, trips);
    }
    return PM_OK;
}

/// What a known op becomes is walked as well: there may be more of them in it.
static pm_status visit_graph(unroller *u, pm_graph *g)
{
    for (pm_op *op = g->first, *next; op; op = next) {
        next = op->next;
        if (op->code != PM_OP_if && op->code != PM_OP_loop && op->code != PM_OP_experts)
            continue;
        pm_op *previous = op->prev;
        bool done = false;
        PM_TRY(visit(u, op, &done));
        if (done) {
            pm_op *first = previous ? previous->next : g->first;
            derive_locations(u, first, next);
            next = first;
            pm_arena_destroy(u->scratch);
            u->scratch = pm_arena_child(u->m->arena);
            continue;
        }
        for (uint32_t r = 0; r < op->n_regions; r++)
            PM_PUSH(u->m->arena, &u->graphs, op->regions[r]);
    }
    return PM_OK;
}

pm_status pm_pass_unroll(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    unroller u = {.ctx = ctx, .m = m, .scratch = pm_arena_child(m->arena)};
    pm_status status = PM_OK;
    pm_graph_vec all;
    pm_graphs_of(m, m->arena, &all);
    u.overwritten = pm_overwritten_values(m, &all, m->arena);
    for (size_t i = 0; i < m->entries.n; i++)
        PM_PUSH(m->arena, &u.graphs, m->entries.data[i]);
    for (size_t i = 0; i < u.graphs.n && status == PM_OK; i++) // grows while it is walked
        status = visit_graph(&u, u.graphs.data[i]);
    pm_arena_destroy(u.scratch);
    return status;
}
