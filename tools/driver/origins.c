/// A node is a layer's when raising took its place, or when all who used it are: the constants, shapes and casts that
/// were folded or merged before had no other purpose.
#include "tools/driver/origins.h"

#include <string.h>

#include "passes/generic/rewrite.h"

typedef struct origin {
    const pm_loc *loc;
    uint32_t first, n; ///< of its operands
    uint32_t n_users;
} origin;

struct pm_origins {
    pm_module *module;
    PM_VEC(origin) ops;
    PM_VEC(uint32_t) operands;
};

pm_origins *pm_origins_take(pm_module *m)
{
    pm_origins *o = PM_NEW(m->arena, pm_origins);
    pm_map number; // op -> its number + 1
    pm_map_init(&number, m->arena);
    o->module = m;
    for (size_t e = 0; e < m->entries.n; e++)
        for (pm_op *op = m->entries.data[e]->first; op; op = pm_op_next_nested(m->entries.data[e], op)) {
            origin one = {.loc = pm_loc_origin(op->loc), .first = (uint32_t)o->operands.n};
            for (uint32_t i = 0; i < op->n_operands; i++) {
                const pm_op *def = op->operands[i] ? op->operands[i]->def : NULL;
                uintptr_t k = def ? (uintptr_t)pm_map_get(&number, &def, sizeof def) : 0;
                if (!k)
                    continue;
                PM_PUSH(m->arena, &o->operands, (uint32_t)k - 1);
                o->ops.data[k - 1].n_users++;
                one.n++;
            }
            // what a region gives belongs to the op that has it, which came before: counted as used for good
            PM_PUSH(m->arena, &o->ops, one);
            *pm_map_at(&number, &op, sizeof op) = (void *)(uintptr_t)o->ops.n;
        }
    for (size_t e = 0; e < m->entries.n; e++)
        for (size_t i = 0; i < m->entries.data[e]->results.n; i++) {
            const pm_op *def = m->entries.data[e]->results.data[i]->def;
            uintptr_t k = def ? (uintptr_t)pm_map_get(&number, &def, sizeof def) : 0;
            if (k)
                o->ops.data[k - 1].n_users++;
        }
    return o;
}

/// Places whose ops are still there, in whatever form; those made by raising don't count.
static void find_alive(pm_module *m, pm_map *alive)
{
    for (size_t e = 0; e < m->entries.n; e++) {
        pm_graph_vec graphs; // the experts' own regions aren't among them
        pm_bodies_of(m->entries.data[e], m->arena, &graphs);
        for (size_t g = 0; g < graphs.n; g++)
            for (const pm_op *op = graphs.data[g]->first; op; op = op->next) {
                bool raised = false;
                const pm_loc *loc = op->loc;
                for (; loc->from; loc = loc->from)
                    raised = raised || (loc->by && strncmp(loc->by, "raise-", 6) == 0);
                if (!raised)
                    *pm_map_at(alive, &loc, sizeof loc) = m;
            }
    }
}

typedef struct assignment {
    const pm_origins *o;
    pm_summary *s;
    pm_arena *arena;
    uint32_t *owner, *left; ///< by op: 2 * layer + (1: its router) + 1; users that are nobody's yet
    pm_map alive;
    PM_VEC(uint32_t) work;
} assignment;

static void take(assignment *a, uint32_t op, uint32_t owner)
{
    const pm_loc *loc = a->o->ops.data[op].loc;
    if (a->owner[op] || pm_map_get(&a->alive, &loc, sizeof loc))
        return;
    a->owner[op] = owner;
    PM_PUSH(a->arena, &a->work, op);
}

static uint32_t owner_of(const pm_summary *s, const pm_op *op)
{
    for (size_t i = 0; i < s->layers.n; i++)
        if (s->layers.data[i].op == op || s->layers.data[i].route == op)
            return (uint32_t)(2 * i + 1 + (s->layers.data[i].route == op));
    return 0;
}

void pm_origins_assign(const pm_origins *o, const pm_findings *findings, pm_summary *s)
{
    pm_arena *arena = s->module->arena;
    assignment a = {.o = o, .s = s, .arena = arena, .owner = PM_NEW_ARRAY(arena, uint32_t, o->ops.n + 1),
                    .left = PM_NEW_ARRAY(arena, uint32_t, o->ops.n + 1)};
    pm_map first; // place -> the owner that raising says
    pm_map_init(&first, arena);
    pm_map_init(&a.alive, arena);
    find_alive(s->module, &a.alive);
    for (size_t i = 0; i < findings->raised.n; i++) {
        const pm_raised *raised = &findings->raised.data[i];
        uint32_t owner = owner_of(s, raised->op);
        if (owner && s->layers.data[(owner - 1) / 2].op == raised->op)
            s->layers.data[(owner - 1) / 2].form = raised->form;
        for (size_t k = 0; owner && k < raised->places.n; k++) {
            void **slot = pm_map_at(&first, &raised->places.data[k], sizeof raised->places.data[k]);
            if (!*slot)
                *slot = (void *)(uintptr_t)owner;
        }
    }
    for (uint32_t i = 0; i < o->ops.n; i++) {
        a.left[i] = o->ops.data[i].n_users;
        uintptr_t owner = (uintptr_t)pm_map_get(&first, &o->ops.data[i].loc, sizeof o->ops.data[i].loc);
        if (owner)
            take(&a, i, (uint32_t)owner);
    }
    while (a.work.n) {
        uint32_t op = a.work.data[--a.work.n];
        const origin *one = &o->ops.data[op];
        for (uint32_t i = 0; i < one->n; i++) {
            uint32_t operand = o->operands.data[one->first + i];
            if (--a.left[operand] == 0)
                take(&a, operand, a.owner[op]);
        }
    }
    pm_map seen;
    pm_map_init(&seen, arena);
    for (uint32_t i = 0; i < o->ops.n; i++) {
        const pm_loc *loc = o->ops.data[i].loc;
        if (!a.owner[i] || !loc->detail || pm_map_get(&seen, &loc, sizeof loc))
            continue; // tensors are named by who uses them
        *pm_map_at(&seen, &loc, sizeof loc) = s;
        pm_layer_summary *layer = &s->layers.data[(a.owner[i] - 1) / 2];
        PM_PUSH(arena, (a.owner[i] - 1) % 2 ? &layer->route_nodes : &layer->nodes, loc);
    }
}
