/// Which device runs what: with devices beside the CPU, all goes to the first of them, but for
/// - what the placement put elsewhere (op->device, `device` of routers and attention);
/// - control flow and what is in it, and whatever has extents that only the data decides;
/// - arithmetic of integers of rank 0 and 1 whose operands are nothing else: sizes and positions;
/// - views, which follow what they show, and ops of a state, which all go where the state lives.
/// Constants have no device. Before this pass, a device that isn't named isn't decided; behind it, it's the host.
#include <string.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

/// States that one op uses live together: sets of states, by the number of one of them.
typedef struct state_set {
    uint32_t parent;
    bool decided;
    const char *device;
} state_set;

typedef struct assigner {
    pm_pass_ctx *ctx;
    pm_module *m;
    const char *host, *other; ///< interned names: of the CPU, of what takes the rest
    state_set *states;
} assigner;

/// The first op of an entry that may use devices.
static pm_op *device_ops(const pm_graph *entry)
{
    return pm_graph_is_host_twin(entry) ? NULL : entry->first;
}

static uint32_t set_of(const assigner *a, uint32_t state)
{
    while (a->states[state].parent != state)
        state = a->states[state].parent;
    return state;
}

/// The state whose memory operand `i` shows, or -1.
static int32_t state_of(const pm_op *op, uint32_t i)
{
    if (!op->operands[i] || (pm_op_info_of(op)->traits & PM_T_SHAPE))
        return -1;
    const pm_value *from = pm_value_origin(op->operands[i]);
    return from->def || from->graph->parent ? -1 : from->graph->arg_states.data[from->index];
}

static bool is_dynamic(const assigner *a, const pm_value *v)
{
    return pm_dim_is_dynamic(a->m, pm_type_bytes(a->m, v->type));
}

/// Ops whose extents, or those of what they read, the data decides; control flow.
static bool must_stay(const assigner *a, pm_op *op)
{
    if ((op->n_regions > 0 && op->code != PM_OP_fused) || pm_op_finds_extents(op))
        return true;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && is_dynamic(a, op->operands[i]))
            return true;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (is_dynamic(a, op->results[i]))
            return true;
    return false;
}

static bool is_small_int(const pm_value *v)
{
    return v->type->rank <= 1 && !pm_elem_is_float(v->type->elem);
}

static bool is_arithmetic_of_shapes(const pm_op *op)
{
    bool known = op->n_results > 0;
    for (uint32_t i = 0; i < op->n_results; i++) {
        known = known && op->results[i]->content;
        if (!is_small_int(op->results[i]))
            return false;
    }
    if (known || (pm_op_info_of(op)->traits & PM_T_SHAPE))
        return true;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && (!is_small_int(op->operands[i]) || pm_value_device(op->operands[i])))
            return false;
    return op->code != PM_OP_fill; // as large as you like, of nothing
}

static bool has_no_device(const pm_op *op)
{
    return op->code == PM_OP_const || op->code == PM_OP_dims || (pm_op_info_of(op)->traits & PM_T_WEIGHT);
}

/// What the placement said; NULL: nothing.
static const char *placed_on(const assigner *a, const pm_op *op)
{
    bool is_unit = op->code == PM_OP_route || op->code == PM_OP_attention || op->code == PM_OP_sdpa;
    const pm_attr *device = is_unit ? pm_op_attr(op, "device") : NULL;
    if (op->device)
        return op->device;
    return device && device->present && device->s ? pm_intern(a->m, device->s) : NULL;
}

/// ---- states -----------------------------------------------------------------------------------------------

static void join_states(assigner *a, const pm_op *op)
{
    int32_t first = -1;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        int32_t state = state_of(op, i);
        if (state >= 0 && first >= 0)
            a->states[set_of(a, (uint32_t)state)].parent = set_of(a, (uint32_t)first);
        first = first < 0 ? state : first;
    }
}

/// What has to stay decides, then what the placement said first.
static void place_states(assigner *a, pm_op *op)
{
    for (uint32_t i = 0; i < op->n_operands; i++) {
        int32_t state = state_of(op, i);
        if (state < 0)
            continue;
        state_set *set = &a->states[set_of(a, (uint32_t)state)];
        const char *placed = placed_on(a, op);
        if (must_stay(a, op))
            *set = (state_set){.parent = set->parent, .decided = true, .device = a->host};
        else if (!set->decided && placed)
            *set = (state_set){.parent = set->parent, .decided = true, .device = placed};
    }
}

static void decide_states(assigner *a)
{
    a->states = PM_NEW_ARRAY(a->m->arena, state_set, a->m->states.n);
    for (uint32_t i = 0; i < a->m->states.n; i++)
        a->states[i] = (state_set){.parent = i};
    for (size_t i = 0; i < a->m->entries.n; i++)
        for (pm_op *op = device_ops(a->m->entries.data[i]); op; op = op->next)
            join_states(a, op);
    for (size_t i = 0; i < a->m->entries.n; i++)
        for (pm_op *op = device_ops(a->m->entries.data[i]); op; op = op->next)
            place_states(a, op);
    for (size_t i = 0; i < a->m->entries.n; i++) {
        const pm_graph *g = a->m->entries.data[i];
        for (size_t k = 0; pm_graph_is_host_twin(g) && k < g->arg_states.n; k++)
            if (g->arg_states.data[k] >= 0)
                a->states[g->arg_states.data[k]] =
                    (state_set){.parent = (uint32_t)g->arg_states.data[k], .decided = true, .device = a->host};
    }
    for (uint32_t i = 0; i < a->m->states.n; i++) {
        const state_set *set = &a->states[set_of(a, i)];
        const char *device = set->decided ? set->device : a->other;
        a->m->states.data[i].device = device == a->host ? NULL : device;
    }
}

/// ---- ops --------------------------------------------------------------------------------------------------

static const char *device_for(assigner *a, pm_op *op)
{
    if (has_no_device(op) || must_stay(a, op) || pm_graph_is_host_twin(op->graph))
        return a->host;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        int32_t state = state_of(op, i);
        if (state >= 0)
            return a->m->states.data[state].device ? a->m->states.data[state].device : a->host;
    }
    if ((pm_op_info_of(op)->traits & PM_T_VIEW) && op->n_operands > 0) {
        const char *shown = pm_value_device(op->operands[0]);
        return shown ? shown : a->host;
    }
    const char *placed = placed_on(a, op);
    return placed ? placed : is_arithmetic_of_shapes(op) ? a->host : a->other;
}

static void assign(assigner *a, pm_graph *g)
{
    for (pm_op *op = g->first; op; op = op->next) { // what is in regions has none of its own
        const char *device = device_for(a, op);
        op->device = device == a->host ? NULL : device;
        if (op->device) {
            pm_pass_changed(a->ctx);
            pm_pass_count(a->ctx, "ops beside the host");
        }
    }
}

pm_status pm_pass_assign_devices(pm_pass_ctx *ctx)
{
    const pm_pass_options *o = ctx->options;
    pm_module *m = ctx->module;
    if (o->n_devices < 2)
        return PM_OK;
    assigner a = {.ctx = ctx, .m = m, .host = pm_intern(m, o->devices[0].name),
                  .other = pm_intern(m, o->devices[1].name)};
    decide_states(&a);
    for (size_t i = 0; i < m->entries.n; i++)
        assign(&a, m->entries.data[i]);
    return PM_OK;
}
