#include "tools/driver/sharding.h"

#include <string.h>

#include "frontend/onnx/onnx_sharding.h"
#include "passes/plan.h"

enum { MAX_CHAIN = 64 };

typedef struct sharder {
    pm_arena *arena;
    pm_driver *d;
    pm_map index; ///< place of a node -> its number + 1
    PM_VEC(pm_node_sharding) nodes;
} sharder;

/// The node of that place; NULL where there is none.
static pm_node_sharding *node_at(sharder *s, const pm_loc *loc)
{
    if (!loc->what || !loc->name || strncmp(loc->what, "node", 4) != 0)
        return NULL;
    const char *key = pm_arena_printf(s->arena, "%s/%s", loc->what, loc->name);
    void **slot = pm_map_at(&s->index, key, strlen(key));
    if (!*slot) {
        pm_node_sharding fresh = {.what = loc->what, .name = loc->name};
        PM_PUSH(s->arena, &s->nodes, fresh);
        *slot = (void *)(uintptr_t)s->nodes.n;
    }
    return &s->nodes.data[(uintptr_t)*slot - 1];
}

static void add_device(sharder *s, pm_node_sharding *node, int64_t device)
{
    int64_t *devices = (int64_t *)node->devices;
    for (size_t i = 0; i < node->n_devices; i++)
        if (devices[i] == device)
            return;
    if (!devices)
        node->devices = devices = PM_NEW_ARRAY(s->arena, int64_t, s->d->plan->n_devices);
    size_t at = node->n_devices++;
    for (; at > 0 && devices[at - 1] > device; at--)
        devices[at] = devices[at - 1];
    devices[at] = device;
}

static int64_t number_of(const sharder *s, const char *device)
{
    for (size_t i = 0; device && i < s->d->plan->n_devices; i++)
        if (strcmp(s->d->plan->devices[i].name, device) == 0)
            return (int64_t)i;
    return 0;
}

/// Every node that an op was derived from runs where the op does.
static void add_ops(sharder *s)
{
    for (size_t e = 0; e < s->d->module->entries.n; e++)
        for (const pm_op *op = s->d->module->entries.data[e]->first; op; op = op->next) {
            if (op->code == PM_OP_const || op->code == PM_OP_dims || op->code == PM_OP_transfer)
                continue;
            const pm_loc *loc = op->loc;
            for (int step = 0; loc && step < MAX_CHAIN; step++, loc = loc->from) {
                pm_node_sharding *node = node_at(s, loc);
                if (node)
                    add_device(s, node, number_of(s, op->device));
            }
        }
}

static void add_layer(sharder *s, const pm_loc *loc, const int64_t *experts, size_t n)
{
    pm_node_sharding *node = node_at(s, loc);
    if (!node)
        return;
    for (size_t i = 0; i < n; i++)
        add_device(s, node, experts[i]);
    node->experts = experts;
    node->n_experts = n;
}

/// The nodes that were a layer's: its own, and those that raising found it in.
static void add_experts(sharder *s)
{
    const pm_plan *plan = s->d->plan;
    for (size_t i = 0, n; i < plan->placed.n; i += n) {
        const pm_placed *unit = &plan->placed.data[i];
        n = 1;
        if (strcmp(unit->kind, "expert") != 0)
            continue;
        while (i + n < plan->placed.n && plan->placed.data[i + n].number == n && plan->placed.data[i + n].loc == unit->loc)
            n++;
        int64_t *experts = PM_NEW_ARRAY(s->arena, int64_t, n);
        for (size_t k = 0; k < n; k++)
            experts[k] = unit[k].device;
        add_layer(s, pm_loc_origin(unit->loc), experts, n);
        for (size_t r = 0; s->d->findings && r < s->d->findings->raised.n; r++) {
            const pm_raised *raised = &s->d->findings->raised.data[r];
            for (size_t k = 0; raised->op->loc == unit->loc && k < raised->places.n; k++)
                add_layer(s, raised->places.data[k], experts, n);
        }
    }
}

pm_status pm_sharding_write(pm_driver *d, const char *model, const char *output, size_t *out_annotated)
{
    sharder s = {.arena = d->arena, .d = d};
    pm_map_init(&s.index, d->arena);
    add_ops(&s);
    add_experts(&s);
    const char **names = PM_NEW_ARRAY(d->arena, const char *, d->plan->n_devices);
    for (size_t i = 0; i < d->plan->n_devices; i++)
        names[i] = d->plan->devices[i].name;
    pm_sharding sharding = {.name = "pimoe", .devices = names, .n_devices = d->plan->n_devices,
                            .nodes = s.nodes.data, .n_nodes = s.nodes.n};
    pm_out_file *out;
    PM_TRY(pm_out_open(d->arena, d->diag, output, 0644, &out));
    PM_TRY(pm_onnx_write_sharding(d->arena, d->diag, model, &sharding, out, out_annotated));
    return pm_out_commit(d->diag, out);
}
