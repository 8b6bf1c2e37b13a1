/// Memory plan: every value gets its place, before any size is known.
///
/// Values of one entry share slots of one arena: a slot serves values that live one after the other; its
/// size is the largest of theirs, as an expression; slots lie one behind the other. So two values
/// either share an offset or never overlap, whatever the symbols are.
#include "ir/op_table.h"
#include "passes/passes.h"

typedef struct slot {
    pm_dim size;
    int64_t typical; ///< bytes at typical sizes, for choosing
    uint64_t free_at; ///< number of the op after whose end the slot is free
    PM_VEC(pm_value *) members;
} slot;

typedef struct plan {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_graph *g;
    uint64_t *last_use; ///< by value id (roots only)
    PM_VEC(slot) slots;
    int64_t *typical;   ///< by symbol
} plan;

enum { ALIGN = 64 };

static pm_value *root_of(pm_value *v)
{
    while (v->place.kind == PM_PLACE_ALIAS)
        v = v->def->operands[v->place.index];
    return v;
}

/// Whether operand `i` of `op` is read as bytes (a shape that is known is not).
static bool reads_bytes(const pm_op *op, uint32_t i)
{
    const pm_value *v = op->operands[i];
    switch (op->code) {
    case PM_OP_reshape:
    case PM_OP_expand: return i == 0 || !v->content;
    case PM_OP_fill:
    case PM_OP_empty: return i != 0 || !v->content;
    case PM_OP_shape: return false;
    default: return true;
    }
}

static bool is_weight_op(const pm_op *op)
{
    return op->code == PM_OP_const || (pm_op_info_of(op)->traits & PM_T_WEIGHT);
}

/// Whether the op runs: one whose results have no place computes what only packing reads, unless it
/// finds an extent.
static bool runs(const pm_op *op)
{
    if (is_weight_op(op))
        return false;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_value *v = op->results[i];
        if (v->place.kind != PM_PLACE_NONE)
            return true;
        for (int32_t k = 0; k < v->type->rank; k++)
            if (pm_dim_is_dynamic(op->graph->module, v->type->dims[k]))
                return true;
    }
    return op->n_results == 0;
}

/// Users of `v` have their places already.
static bool is_read(const pm_value *v)
{
    for (const pm_use *use = v->uses; use; use = use->next)
        if (runs(use->op) && reads_bytes(use->op, use->index))
            return true;
    for (size_t i = 0; i < v->graph->results.n; i++)
        if (v->graph->results.data[i] == v)
            return true;
    return false;
}

/// ---- results: written where the caller wants them ---------------------------------------------------------

/// A copy of `v` as an op of its own, before the end of the entry.
static pm_status copy_value(plan *p, pm_value *v, pm_value **out)
{
    pm_builder b = {p->g, NULL, v->def ? pm_loc_derive(p->m, v->def->loc, "plan-memory")
                                       : pm_loc_intern(p->m, &(pm_loc){.what = "result", .name = v->name ? v->name : "argument"})};
    return pm_build1(&b, out, PM_OP_cast, PM_OPERANDS(v), PM_ATTRS(pm_attr_elem("to", v->type->elem)));
}

/// The value whose bytes `v` shows, following views and in-place ops.
static pm_value *origin(pm_value *v)
{
    while (v->def && v->def->n_operands && v->def->operands[0] &&
           (pm_op_info_of(v->def)->traits & (PM_T_VIEW | PM_T_INPLACE)))
        v = v->def->operands[0];
    return v;
}

static pm_status separate_results(plan *p)
{
    for (size_t i = 0; i < p->g->results.n; i++) {
        if (p->g->result_states.data[i] >= 0)
            continue;
        pm_value *v = p->g->results.data[i], *from = origin(v);
        bool copy = !from->def || is_weight_op(from->def);
        for (size_t k = 0; k < i; k++)
            copy = copy || origin(p->g->results.data[k]) == from;
        if (!copy)
            continue;
        pm_value *fresh;
        PM_TRY(copy_value(p, v, &fresh));
        p->g->results.data[i] = fresh;
        pm_pass_count(p->ctx, "results copied");
    }
    return PM_OK;
}

/// ---- places -----------------------------------------------------------------------------------------------

static pm_status place_args(plan *p)
{
    for (size_t i = 0; i < p->g->args.n; i++) {
        int32_t state = p->g->arg_states.data[i];
        p->g->args.data[i]->place =
            state >= 0 ? (pm_place){PM_PLACE_STATE, (uint32_t)state, PM_DIM_NONE}
                       : (pm_place){PM_PLACE_INPUT, (uint32_t)i, PM_DIM_NONE};
    }
    return PM_OK;
}

static void place_result(plan *p, pm_op *op, uint32_t i)
{
    pm_value *v = op->results[i];
    uint32_t traits = pm_op_info_of(op)->traits;
    v->place = (pm_place){PM_PLACE_NONE, 0, PM_DIM_NONE};
    if (!is_read(v) && !(traits & PM_T_INPLACE)) {
        // Several results: all have a place when one has (the op writes them all).
        bool other = false;
        for (uint32_t k = 0; k < op->n_results; k++)
            other = other || is_read(op->results[k]);
        if (!other || is_weight_op(op))
            return;
    }
    if (is_weight_op(op))
        v->place.kind = PM_PLACE_WEIGHT;
    else if (i == 0 && (traits & (PM_T_VIEW | PM_T_INPLACE)))
        v->place.kind = PM_PLACE_ALIAS;
    else
        v->place.kind = PM_PLACE_ARENA; // its offset follows
    (void)p;
}

static pm_status place_outputs(plan *p)
{
    for (size_t i = 0; i < p->g->results.n; i++) {
        pm_value *root = root_of(p->g->results.data[i]);
        int32_t state = p->g->result_states.data[i];
        if (state >= 0) {
            if (root->place.kind != PM_PLACE_STATE || root->place.index != (uint32_t)state)
                return pm_error(p->ctx->diag, root->def ? root->def->loc : NULL, PM_ERR_UNSUPPORTED,
                                "result %zu of entry %s does not update state '%s' in place", i,
                                p->g->name, p->m->states.data[state].name);
        } else if (root->place.kind == PM_PLACE_ARENA &&
                   !pm_dim_is_dynamic(p->m, pm_type_bytes(p->m, root->type))) {
            root->place = (pm_place){PM_PLACE_OUTPUT, (uint32_t)i, PM_DIM_NONE};
        }
    }
    return PM_OK;
}

static void note_uses(plan *p)
{
    uint64_t number = 0;
    for (pm_op *op = p->g->first; op; op = op->next) {
        number++;
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] && reads_bytes(op, i))
                p->last_use[root_of(op->operands[i])->id] = number;
        for (uint32_t i = 0; i < op->n_results; i++)
            if (op->results[i]->place.kind != PM_PLACE_NONE)
                p->last_use[root_of(op->results[i])->id] = number;
    }
    for (size_t i = 0; i < p->g->results.n; i++)
        p->last_use[root_of(p->g->results.data[i])->id] = UINT64_MAX;
}

static int64_t typical_bytes(plan *p, pm_dim size)
{
    int64_t bytes = 0;
    return pm_dim_eval(p->m, size, p->typical, &bytes) ? bytes : INT64_MAX;
}

/// The free slot that wastes least; among those too small, the largest.
static slot *choose_slot(plan *p, int64_t typical, uint64_t number)
{
    slot *best = NULL;
    for (size_t i = 0; i < p->slots.n; i++) {
        slot *s = &p->slots.data[i];
        if (s->free_at >= number)
            continue;
        if (!best || (best->typical < typical ? s->typical > best->typical
                                              : s->typical >= typical && s->typical < best->typical))
            best = s;
    }
    return best;
}

/// The runtime hands out memory of its own for the value, when its size is known.
static void place_dynamic(plan *p, pm_value *v)
{
    v->place = (pm_place){PM_PLACE_DYNAMIC, p->g->n_dynamic++, PM_DIM_NONE};
}

static void place_in_arena(plan *p, pm_value *v, uint64_t number)
{
    pm_dim size = pm_dim_upper(p->m, pm_type_bytes(p->m, v->type));
    bool result = p->last_use[v->id] == UINT64_MAX; // of unknown size: the runtime hands out its own memory
    if (size == PM_DIM_NONE || pm_dim_is_error(p->m, size) || result) {
        place_dynamic(p, v);
        return;
    }
    int64_t typical = typical_bytes(p, size);
    slot *s = choose_slot(p, typical, number);
    if (!s) {
        slot fresh = {.size = size, .typical = typical};
        PM_PUSH(p->m->arena, &p->slots, fresh);
        s = &p->slots.data[p->slots.n - 1];
    }
    s->size = pm_dim_max(p->m, s->size, size);
    s->typical = typical > s->typical ? typical : s->typical;
    s->free_at = p->last_use[v->id] > number ? p->last_use[v->id] : number;
    PM_PUSH(p->m->arena, &s->members, v);
}

static void place_slots(plan *p)
{
    uint64_t number = 0;
    for (pm_op *op = p->g->first; op; op = op->next) {
        number++;
        for (uint32_t i = 0; i < op->n_results; i++)
            if (op->results[i]->place.kind == PM_PLACE_ARENA)
                place_in_arena(p, op->results[i], number);
    }
    pm_dim offset = pm_dim_const(p->m, 0), align = pm_dim_const(p->m, ALIGN);
    for (size_t i = 0; i < p->slots.n; i++) {
        slot *s = &p->slots.data[i];
        // At least one unit each, so that equal offsets mean the same slot.
        pm_dim units = pm_dim_max(p->m, pm_dim_ceildiv(p->m, s->size, align), pm_dim_const(p->m, 1));
        pm_dim end = pm_dim_add(p->m, offset, pm_dim_mul(p->m, units, align));
        bool is_expression = !pm_dim_is_error(p->m, s->size) && !pm_dim_is_error(p->m, end);
        for (size_t k = 0; k < s->members.n; k++)
            if (is_expression)
                s->members.data[k]->place.offset = offset;
            else // more than an expression may hold
                place_dynamic(p, s->members.data[k]);
        if (is_expression)
            offset = end;
    }
    p->g->arena_bytes = offset;
}

static pm_status plan_entry(pm_pass_ctx *ctx, pm_graph *g)
{
    pm_module *m = ctx->module;
    plan p = {.ctx = ctx, .m = m, .g = g};
    PM_TRY(separate_results(&p));
    p.last_use = PM_NEW_ARRAY(m->arena, uint64_t, m->next_value + 1);
    p.typical = PM_NEW_ARRAY(m->arena, int64_t, m->symbols.n + 1);
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        p.typical[i] = s->hi < 256 ? s->lo : s->lo > 256 ? s->lo : 256;
    }
    g->n_dynamic = 0;
    PM_TRY(place_args(&p));
    for (pm_op *op = g->last; op; op = op->prev) // users first
        for (uint32_t i = 0; i < op->n_results; i++)
            place_result(&p, op, i);
    PM_TRY(place_outputs(&p));
    note_uses(&p);
    place_slots(&p);
    pm_pass_changed(ctx);
    return PM_OK;
}

pm_status pm_pass_plan_memory(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        PM_TRY(plan_entry(ctx, ctx->module->entries.data[i]));
    return PM_OK;
}
