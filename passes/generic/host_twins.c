/// A program for devices that also runs where they are missing: each entry once more, under its name and "@host". Placement
/// leaves these on the host. The twins have states of their own (a cache on a device is no cache of the host), and
/// constants that are the same bytes share a place in the artifact.
#include <string.h>

#include "passes/passes.h"

static int32_t twin_of_state(pm_module *m, int32_t state)
{
    const char *name = pm_arena_printf(m->arena, "%s" PM_HOST_SUFFIX, m->states.data[state].name);
    for (size_t i = 0; i < m->states.n; i++)
        if (strcmp(m->states.data[i].name, name) == 0)
            return (int32_t)i;
    return pm_state_add(m, name, m->states.data[state].type);
}

static pm_status add_twin(pm_module *m, pm_graph *g)
{
    pm_graph *twin = pm_entry_create(m, pm_arena_printf(m->arena, "%s" PM_HOST_SUFFIX, g->name));
    pm_map values;
    pm_map_init(&values, m->arena);
    for (size_t i = 0; i < g->args.n; i++) {
        pm_value *arg = g->args.data[i];
        int32_t state = g->arg_states.data[i];
        pm_value *copy = pm_graph_add_arg(twin, arg->name, arg->type, state < 0 ? state : twin_of_state(m, state));
        copy->content = arg->content;
        pm_value_map_put(&values, arg, copy);
    }
    for (pm_op *op = g->first; op; op = op->next) {
        pm_op *copy;
        PM_TRY(pm_op_clone(op, twin, NULL, &values, &copy));
        copy->is_clone = false; // it has the extents of the original: both never run in one call
    }
    for (size_t i = 0; i < g->results.n; i++) {
        int32_t state = g->result_states.data[i];
        pm_graph_add_result(twin, g->result_names.data[i], pm_value_map_get(&values, g->results.data[i]),
                            state < 0 ? state : twin_of_state(m, state));
    }
    return PM_OK;
}

pm_status pm_pass_host_twins(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    size_t n = m->entries.n;
    if (!ctx->options->host_twins)
        return PM_OK;
    for (size_t i = 0; i < n; i++)
        if (pm_graph_is_host_twin(m->entries.data[i]))
            return PM_OK; // they are there
    for (size_t i = 0; i < n; i++)
        PM_TRY(add_twin(m, m->entries.data[i]));
    pm_pass_changed(ctx);
    return PM_OK;
}
