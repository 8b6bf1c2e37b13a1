/// Memory plan: every value gets its place, before any size is known.
///
/// Values of one entry share slots of one arena: a slot serves values that live one after the other; its
/// size is the largest of theirs, as an expression; slots lie one behind the other. So two values
/// either share an offset or never overlap, whatever the symbols are.
///
/// Regions of `if` and `loop` share the entry's arena. Ops are numbered in the order of the text, and an
/// op with regions ends behind the last op in them: what it takes lives until then, what it gives lives
/// from its beginning. So a loop's body never overwrites what the next round reads.
///
/// A device beside the CPU has an arena of its own, planned alike; transfers copy between them, while the device goes on.
/// So what a download reads lives until the host has waited for it, and an upload gets memory that the device has done with
/// since the last download that was waited for: neither copy needs to know of launches.
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef struct slot {
    pm_dim size;
    const char *device; ///< whose arena it is in
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
    bool *is_read;      ///< by value id: its bytes are read
    uint64_t *end;      ///< by op->mark, the op's number: that of the last op in its regions
    uint32_t *since;    ///< by value id: what an upload fills is free from this op's number on
    uint32_t n_local;
    const pm_value *lost; ///< on a device, and too large or unknown in size for its arena; NULL: none
} plan;

enum {
    ALIGN = 64,
    MAX_SCANNED = 1 << 24, ///< bytes that a loop's stacked results are promised before it runs
};

static pm_value *root_of(pm_value *v)
{
    return (pm_value *)pm_value_root(v);
}

static bool has_body(const pm_op *op)
{
    return op->code == PM_OP_if || op->code == PM_OP_loop;
}

/// The argument of region `r` that stands for operand `i`, or NULL (a condition, a trip count).
static pm_value *argument_for(const pm_op *op, uint32_t r, uint32_t i)
{
    uint32_t own = op->code == PM_OP_if ? 1 : 0;
    return i < own || (op->code == PM_OP_loop && i < 2) ? NULL : op->regions[r]->args.data[i - own];
}

/// Operands that a loop copies into what it carries come first.
static uint32_t first_captured(const pm_op *op)
{
    return op->code == PM_OP_if ? 1 : 2 + (uint32_t)pm_op_i64(op, "carried");
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

/// Whether kernels of devices read the codes behind `dequantize`.
static bool stands_for_codes(const pm_op *op)
{
    if (!pm_value_is_codes(op->results[0]))
        return false;
    for (const pm_use *use = op->results[0]->uses; use; use = use->next)
        if (!pm_op_reads_bytes(use->op, use->index))
            return true;
    return false;
}

/// What a region captures is read when its argument is.
static bool use_reads(const plan *p, const pm_use *use)
{
    const pm_op *op = use->op;
    if (op->code == PM_OP_dequantize && stands_for_codes(op))
        return true;
    if (!runs(op) || !pm_op_reads_bytes(op, use->index))
        return false;
    if (!has_body(op) || use->index < first_captured(op))
        return true;
    for (uint32_t r = 0; r < op->n_regions; r++)
        if (p->is_read[argument_for(op, r, use->index)->id])
            return true;
    return false;
}

/// Users of `v` have their places already.
static bool is_read(const plan *p, const pm_value *v)
{
    const pm_op *parent = v->graph->parent;
    for (const pm_use *use = v->uses; use; use = use->next)
        if (use_reads(p, use))
            return true;
    for (size_t i = 0; i < v->graph->results.n; i++) {
        if (v->graph->results.data[i] != v)
            continue;
        size_t loop_own = parent && parent->code == PM_OP_loop ? 1 + (size_t)pm_op_i64(parent, "carried") : 0;
        if (!parent || i < loop_own || p->is_read[parent->results[i - (loop_own ? 1 : 0)]->id])
            return true;
    }
    return false;
}

/// ---- results: written where the caller wants them ---------------------------------------------------------

/// A copy of `v` as an op of its own, before `before` (NULL: the end of its graph).
static pm_status copy_value(plan *p, pm_value *v, pm_op *before, pm_value **out)
{
    pm_builder b = {v->graph, before, v->def ? pm_loc_derive(p->m, v->def->loc, "plan-memory")
                                       : pm_loc_intern(p->m, &(pm_loc){.what = "result", .name = v->name ? v->name : "argument"})};
    return pm_build1(&b, out, PM_OP_cast, PM_OPERANDS(v), PM_ATTRS(pm_attr_elem("to", v->type->elem)));
}

static pm_status separate_results(plan *p)
{
    for (size_t i = 0; i < p->g->results.n; i++) {
        if (p->g->result_states.data[i] >= 0)
            continue;
        pm_value *v = p->g->results.data[i], *from = pm_value_origin(v);
        bool copy = !from->def || is_weight_op(from->def);
        for (size_t k = 0; k < i; k++)
            copy = copy || pm_value_origin(p->g->results.data[k]) == from;
        if (!copy)
            continue;
        pm_value *fresh;
        PM_TRY(copy_value(p, v, NULL, &fresh));
        p->g->results.data[i] = fresh;
        pm_pass_count(p->ctx, "results copied");
    }
    return PM_OK;
}

/// A round's results become the next one's arguments: none may lie where another one's copy is written.
static pm_status separate_carried(plan *p, pm_op *loop)
{
    pm_graph *g = loop->regions[0];
    uint32_t carried = (uint32_t)pm_op_i64(loop, "carried");
    for (uint32_t i = 0; i < carried; i++) {
        pm_value *v = g->results.data[1 + i], *from = pm_value_origin(v), *fresh;
        if (from->def || from->index >= 2 + carried || v == g->args.data[2 + i])
            continue;
        PM_TRY(copy_value(p, v, NULL, &fresh));
        g->results.data[1 + i] = fresh;
        pm_pass_count(p->ctx, "carried values copied");
    }
    return PM_OK;
}

/// Whether something else reads the bytes that `v` shows.
static bool is_shared(const pm_value *v)
{
    while (pm_value_use_count(v) < 2) {
        if (!pm_value_shows_operand(v))
            return false;
        v = v->def->operands[0];
    }
    return true;
}

/// What is overwritten in place must be a state, or nobody else's: no constant, no input, no value that another
/// op reads, in a region none from outside.
static pm_status separate_overwritten(plan *p, pm_op *op)
{
    pm_value *from = pm_value_origin(op->operands[0]), *fresh;
    if (!from->def && from->graph == p->g && p->g->arg_states.data[from->index] >= 0)
        return PM_OK;
    if (from->def && !is_weight_op(from->def) && !has_body(from->def) && !is_shared(op->operands[0]))
        return PM_OK;
    p->m->device = op->device;
    pm_status status = copy_value(p, op->operands[0], op, &fresh);
    p->m->device = NULL;
    PM_TRY(status);
    pm_op_set_operand(op, 0, fresh);
    return PM_OK;
}

static pm_status separate_in_place(plan *p)
{
    for (pm_op *op = p->g->first; op; op = pm_op_next_nested(p->g, op)) {
        if (op->code == PM_OP_loop)
            PM_TRY(separate_carried(p, op));
        if (pm_op_info_of(op)->traits & PM_T_INPLACE && (!op->graph->parent || op->graph->parent->code != PM_OP_fused))
            PM_TRY(separate_overwritten(p, op));
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
    if (!p->is_read[v->id] && !(traits & PM_T_INPLACE)) {
        // Several results: all have a place when one has (the op writes them all).
        bool other = false;
        for (uint32_t k = 0; k < op->n_results; k++)
            other = other || p->is_read[op->results[k]->id];
        if (!other || is_weight_op(op) || has_body(op))
            return;
    }
    if (is_weight_op(op))
        v->place.kind = PM_PLACE_WEIGHT;
    else if (i == 0 && (traits & (PM_T_VIEW | PM_T_INPLACE)))
        v->place.kind = PM_PLACE_ALIAS;
    else if (op->code == PM_OP_loop && i < (uint32_t)pm_op_i64(op, "carried"))
        v->place = (pm_place){PM_PLACE_ALIAS, 2 + i, PM_DIM_NONE};
    else
        v->place.kind = PM_PLACE_ARENA; // its offset follows
}

/// Arguments of a region: carried values have memory of their own, captured ones are seen where they are.
static void place_region_args(plan *p, const pm_op *op, uint32_t r)
{
    const pm_graph *g = op->regions[r];
    uint32_t n_own = op->code == PM_OP_loop ? first_captured(op) : 0;
    for (uint32_t i = 0; i < g->args.n; i++) {
        pm_value *v = g->args.data[i];
        p->is_read[v->id] = is_read(p, v);
        if (i >= n_own)
            v->place = (pm_place){PM_PLACE_ALIAS, op->code == PM_OP_if ? i + 1 : i, PM_DIM_NONE};
        else if (i < 2)
            v->place = (pm_place){PM_PLACE_LOCAL, p->n_local++, PM_DIM_NONE};
        else
            v->place = (pm_place){PM_PLACE_ARENA, 0, PM_DIM_NONE};
    }
}

/// Users first: whether a value is read follows from what runs behind it.
static void place_ops(plan *p, pm_graph *g)
{
    for (pm_op *op = g->last; op; op = op->prev) {
        for (uint32_t i = 0; i < op->n_results; i++)
            p->is_read[op->results[i]->id] = is_read(p, op->results[i]);
        for (uint32_t i = 0; i < op->n_results; i++)
            place_result(p, op, i);
        for (uint32_t r = 0; r < op->n_regions && has_body(op); r++) { // depth: PM_MAX_REGION_DEPTH
            place_ops(p, op->regions[r]);
            place_region_args(p, op, r);
        }
    }
}

static bool is_dynamic(const plan *p, const pm_value *v)
{
    return pm_dim_is_dynamic(p->m, pm_type_bytes(p->m, v->type));
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
        } else if (root->place.kind == PM_PLACE_ARENA && !is_dynamic(p, root) &&
                   !is_dynamic(p, p->g->results.data[i])) {
            root->place = (pm_place){PM_PLACE_OUTPUT, (uint32_t)i, PM_DIM_NONE};
        }
    }
    return PM_OK;
}

/// Branches compute their results where those of the `if` lie, when nothing else lies there.
static void place_branch(plan *p, const pm_op *op, const pm_graph *g)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_value *to = op->results[i];
        pm_value *from = root_of(g->results.data[i]);
        bool known = to->place.kind == PM_PLACE_ARENA || to->place.kind == PM_PLACE_OUTPUT ||
                     to->place.kind == PM_PLACE_RESULT;
        if (known && from->place.kind == PM_PLACE_ARENA && from->def && from->graph == g &&
            pm_dim_same(pm_type_bytes(p->m, from->type), pm_type_bytes(p->m, to->type)) && !is_dynamic(p, to))
            from->place = (pm_place){PM_PLACE_RESULT, i, PM_DIM_NONE};
    }
}

static void place_branches(plan *p)
{
    for (pm_op *op = p->g->first; op; op = pm_op_next_nested(p->g, op)) // outer ones first
        for (uint32_t r = 0; r < op->n_regions && op->code == PM_OP_if; r++)
            place_branch(p, op, op->regions[r]);
}

/// Numbers the ops, from 1 on.
static void number_ops(plan *p)
{
    uint32_t number = 0;
    for (pm_op *op = p->g->first; op; op = pm_op_next_nested(p->g, op))
        op->mark = ++number;
    p->end = PM_NEW_ARRAY(p->m->arena, uint64_t, (size_t)number + 1);
    for (pm_op *op = p->g->first; op; op = pm_op_next_nested(p->g, op))
        for (const pm_op *outer = op; outer; outer = outer->graph->parent) // depth: PM_MAX_REGION_DEPTH
            p->end[outer->mark] = op->mark;
}

static void use_until(plan *p, pm_value *v, uint64_t number)
{
    uint64_t *last = &p->last_use[root_of(v)->id];
    if (*last < number)
        *last = number;
}

/// ---- copies that run beside the device's work ---------------------------------------------------------------

/// The download that brings what the host's memory of `v` holds, or NULL.
static pm_op *download_of(pm_value *v)
{
    pm_op *def = v ? root_of(v)->def : NULL;
    return def && def->code == PM_OP_transfer && !def->device ? def : NULL;
}

/// Whether the host waits for what it is given (pm_entry_await): the op isn't a view of it, and runs on the host or takes
/// it from there.
static bool awaits(const pm_op *op)
{
    return (!op->device || op->code == PM_OP_transfer) && !is_weight_op(op) &&
           !(pm_op_info_of(op)->traits & (PM_T_VIEW | PM_T_SHAPE)) && op->n_results > 0 &&
           op->results[0]->place.kind != PM_PLACE_ALIAS;
}

/// For each upload, the number of the last download from its device that was waited for by then: what the device was given
/// before that is done.
static void note_waits(plan *p)
{
    PM_VEC(pm_op *) waited = {0}; // for which of several devices
    p->since = PM_NEW_ARRAY(p->m->arena, uint32_t, p->m->next_value + 1);
    for (pm_op *op = p->g->first; op; op = op->next) {
        for (uint32_t i = 0; i < op->n_operands && awaits(op); i++) {
            pm_op *download = download_of(op->operands[i]);
            if (download && download->graph == p->g && download->results[0]->place.kind != PM_PLACE_NONE)
                PM_PUSH(p->m->arena, &waited, download);
        }
        if (op->code != PM_OP_transfer || !op->device)
            continue;
        uint32_t *since = &p->since[op->results[0]->id];
        for (size_t i = 0; i < waited.n; i++) {
            const pm_op *download = waited.data[i];
            if (pm_value_device(download->operands[0]) == op->device && download->mark > *since)
                *since = download->mark;
        }
    }
}

static void keep_sources(plan *p)
{
    for (pm_op *op = p->g->first; op; op = op->next) {
        if (op->code != PM_OP_transfer || op->device)
            continue;
        uint64_t read = p->last_use[root_of(op->results[0])->id];
        use_until(p, op->operands[0], read == UINT64_MAX ? UINT64_MAX - 1 : read); // it is no result itself
    }
}

static void note_uses(plan *p)
{
    for (pm_op *op = p->g->first; op; op = pm_op_next_nested(p->g, op)) {
        if (op->graph->parent && op->graph->parent->code == PM_OP_fused)
            continue;
        uint64_t end = p->end[op->mark];
        for (uint32_t i = 0; i < op->n_operands; i++)
            if (op->operands[i] && pm_op_reads_bytes(op, i))
                use_until(p, op->operands[i], end);
        for (uint32_t i = 0; i < op->n_results; i++)
            if (op->results[i]->place.kind != PM_PLACE_NONE)
                use_until(p, op->results[i], end);
        for (uint32_t r = 0; r < op->n_regions && has_body(op); r++) {
            for (size_t i = 0; i < op->regions[r]->args.n; i++)
                use_until(p, op->regions[r]->args.data[i], end);
            for (size_t i = 0; i < op->regions[r]->results.n; i++)
                use_until(p, op->regions[r]->results.data[i], end);
        }
    }
    for (size_t i = 0; i < p->g->results.n; i++)
        use_until(p, p->g->results.data[i], UINT64_MAX);
    keep_sources(p);
    note_waits(p);
}

static int64_t typical_bytes(plan *p, pm_dim size)
{
    int64_t bytes = 0;
    return pm_dim_eval(p->m, size, p->typical, &bytes) ? bytes : INT64_MAX;
}

/// The device's free slot that wastes least; among those too small, the largest.
static slot *choose_slot(plan *p, const char *device, int64_t typical, uint64_t number)
{
    slot *best = NULL;
    for (size_t i = 0; i < p->slots.n; i++) {
        slot *s = &p->slots.data[i];
        if (s->free_at >= number || s->device != device)
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
    p->lost = pm_value_device(v) ? v : p->lost;
}

static bool is_scanned(const pm_value *v)
{
    return pm_value_is(v, PM_OP_loop) && v->place.kind == PM_PLACE_ARENA;
}

static void place_in_arena(plan *p, pm_value *v, uint64_t number)
{
    pm_dim size = pm_dim_upper(p->m, pm_type_bytes(p->m, v->type));
    bool result = p->last_use[v->id] == UINT64_MAX; // of unknown size: the runtime hands out its own memory
    int64_t lo, hi;
    if (size != PM_DIM_NONE && is_scanned(v)) { // a loop that may end early asks for what it needs
        pm_dim_range(p->m, size, &lo, &hi);
        result = result || lo > MAX_SCANNED;
    }
    if (size == PM_DIM_NONE || pm_dim_is_error(p->m, size) || result) {
        place_dynamic(p, v);
        return;
    }
    int64_t typical = typical_bytes(p, size);
    const char *device = pm_value_device(v);
    bool uploaded = device && pm_value_is(v, PM_OP_transfer);
    slot *s = choose_slot(p, device, typical, uploaded ? p->since[v->id] : number);
    if (!s) {
        slot fresh = {.size = size, .device = device, .typical = typical};
        PM_PUSH(p->m->arena, &p->slots, fresh);
        s = &p->slots.data[p->slots.n - 1];
    }
    s->size = pm_dim_max(p->m, s->size, size);
    s->typical = typical > s->typical ? typical : s->typical;
    s->free_at = p->last_use[v->id] > number ? p->last_use[v->id] : number;
    PM_PUSH(p->m->arena, &s->members, v);
}

static void place_value(plan *p, pm_value *v, uint64_t number)
{
    if (v->place.kind == PM_PLACE_ARENA)
        place_in_arena(p, v, number);
}

static void place_slots(plan *p)
{
    for (pm_op *op = p->g->first; op; op = pm_op_next_nested(p->g, op)) {
        if (op->graph->parent && op->graph->parent->code == PM_OP_fused)
            continue;
        for (uint32_t i = 0; i < op->n_results; i++)
            place_value(p, op->results[i], op->mark);
        for (size_t i = 0; op->code == PM_OP_loop && i < op->regions[0]->args.n; i++)
            place_value(p, op->regions[0]->args.data[i], op->mark);
    }
}

/// Gives the slots of a device's arena their offsets; returns its size.
static pm_dim place_arena(plan *p, const char *device)
{
    pm_dim offset = pm_dim_const(p->m, 0), align = pm_dim_const(p->m, ALIGN);
    for (size_t i = 0; i < p->slots.n; i++) {
        slot *s = &p->slots.data[i];
        if (s->device != device)
            continue;
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
    return offset;
}

static pm_status place_arenas(plan *p)
{
    p->g->arena_bytes = place_arena(p, NULL);
    p->g->device_arenas.n = 0;
    for (size_t i = 0; i < p->slots.n; i++) {
        const char *device = p->slots.data[i].device;
        bool is_new = device != NULL;
        for (size_t k = 0; k < p->g->device_arenas.n; k++)
            is_new = is_new && p->g->device_arenas.data[k].device != device;
        if (is_new)
            PM_PUSH(p->m->arena, &p->g->device_arenas, ((pm_device_arena){device, place_arena(p, device)}));
    }
    if (!p->lost)
        return PM_OK;
    return pm_error(p->ctx->diag, p->lost->def ? p->lost->def->loc : NULL, PM_ERR_UNSUPPORTED,
                    "a value on device %s has a size that no expression gives: %s", pm_value_device(p->lost),
                    pm_type_text(p->m, p->lost->type));
}

static pm_status plan_entry(pm_pass_ctx *ctx, pm_graph *g)
{
    pm_module *m = ctx->module;
    plan p = {.ctx = ctx, .m = m, .g = g};
    PM_TRY(separate_results(&p));
    PM_TRY(separate_in_place(&p));
    p.is_read = PM_NEW_ARRAY(m->arena, bool, m->next_value + 1);
    p.last_use = PM_NEW_ARRAY(m->arena, uint64_t, m->next_value + 1);
    p.typical = PM_NEW_ARRAY(m->arena, int64_t, m->symbols.n + 1);
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        p.typical[i] = s->hi < 256 ? s->lo : s->lo > 256 ? s->lo : 256;
    }
    g->n_dynamic = 0;
    PM_TRY(place_args(&p));
    place_ops(&p, g);
    PM_TRY(place_outputs(&p));
    place_branches(&p);
    number_ops(&p);
    note_uses(&p);
    place_slots(&p);
    PM_TRY(place_arenas(&p));
    pm_pass_changed(ctx);
    return PM_OK;
}

pm_status pm_pass_plan_memory(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++)
        PM_TRY(plan_entry(ctx, ctx->module->entries.data[i]));
    return PM_OK;
}
