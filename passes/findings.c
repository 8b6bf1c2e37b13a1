#include "passes/findings.h"

#include <stdint.h>

#include "ir/op_table.h"

const pm_loc *pm_loc_origin(const pm_loc *loc)
{
    while (loc && loc->from)
        loc = loc->from;
    return loc;
}

typedef struct walk {
    pm_findings *findings;
    pm_raised *raised;
    pm_map seen;     ///< places that are noted
    pm_map left;     ///< op -> how many of its uses aren't by dead ops, plus 1
    PM_VEC(pm_op *) work;
} walk;

static void note_place(walk *w, const pm_loc *loc)
{
    loc = pm_loc_origin(loc);
    void **slot = pm_map_at(&w->seen, &loc, sizeof loc);
    if (!*slot)
        PM_PUSH(w->findings->arena, &w->raised->places, loc);
    *slot = w;
}

static uint32_t uses_of(const pm_op *op)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < op->n_results; i++)
        n += pm_value_use_count(op->results[i]);
    return n;
}

/// One use fewer: without any the op is dead, too.
static void drop_use(walk *w, pm_op *op)
{
    void **slot = pm_map_at(&w->left, &op, sizeof op);
    if (!*slot)
        *slot = (void *)((uintptr_t)uses_of(op) + 1);
    *slot = (void *)((uintptr_t)*slot - 1);
    if ((uintptr_t)*slot == 1)
        PM_PUSH(w->findings->arena, &w->work, op);
}

void pm_found_raised(pm_pass_ctx *ctx, const pm_op *op, const char *form, pm_value *const *values, size_t n)
{
    if (!ctx->findings)
        return;
    pm_arena *arena = ctx->findings->arena;
    pm_raised raised = {.op = op, .form = form};
    walk w = {.findings = ctx->findings, .raised = &raised};
    pm_map_init(&w.seen, arena);
    pm_map_init(&w.left, arena);
    for (size_t i = 0; i < n; i++) {
        void **slot = values[i]->def ? pm_map_at(&w.left, &values[i]->def, sizeof values[i]->def) : NULL;
        if (slot && !*slot && uses_of(values[i]->def) == 0) {
            *slot = (void *)(uintptr_t)1;
            PM_PUSH(arena, &w.work, values[i]->def);
        }
    }
    while (w.work.n) {
        pm_op *dead = w.work.data[--w.work.n];
        note_place(&w, dead->loc);
        for (uint32_t i = 0; i < dead->n_regions; i++)
            for (const pm_op *o = dead->regions[i]->first; o; o = o->next)
                note_place(&w, o->loc);
        for (uint32_t i = 0; i < dead->n_operands; i++)
            if (dead->operands[i] && dead->operands[i]->def)
                drop_use(&w, dead->operands[i]->def);
    }
    PM_PUSH(arena, &ctx->findings->raised, raised);
}

void pm_found_near_miss(pm_pass_ctx *ctx, const pm_near_miss *miss)
{
    if (ctx->findings)
        PM_PUSH(ctx->findings->arena, &ctx->findings->missed, *miss);
    if (ctx->notes)
        fprintf(ctx->notes, "  at %s: %s\n", pm_loc_text(ctx->module->arena, miss->loc),
                pm_near_miss_text(ctx->module->arena, miss));
}

const char *pm_near_miss_text(pm_arena *arena, const pm_near_miss *miss)
{
    const char *stopped = "";
    if (miss->stopped_op)
        stopped = pm_arena_printf(arena, "matching stopped at %s (%s): ", miss->stopped_op,
                                  pm_loc_text(arena, pm_loc_origin(miss->stopped)));
    return pm_arena_printf(arena, "%s not raised: %s%s; instead: %s", miss->what, stopped, miss->why, miss->cost);
}
