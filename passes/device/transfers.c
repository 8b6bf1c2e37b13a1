/// Where an op reads what lies on another device, a `transfer` brings it: one per value and device. What goes to a
/// device goes as soon as it is there; what comes from one is put where the host reads it (pass `overlap` asks for it
/// earlier). Arguments and results of entries lie on the host, states where they live. Constants lie everywhere; extents
/// that are known need no bytes.
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/plan.h"

typedef struct transferrer {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_graph *g;
    pm_map copies; ///< (value id, device) -> the value there
} transferrer;

typedef struct copy_key {
    uint64_t value; ///< as wide as the pointer: a key has no padding
    const char *device;
} copy_key;

/// Constants, and views of them. What an op overwrites in place is where the op runs, whatever it was before.
static bool is_everywhere(pm_value *v)
{
    while (pm_value_shows_operand(v) && !(pm_op_info_of(v->def)->traits & PM_T_INPLACE))
        v = v->def->operands[0];
    const pm_op *def = v->def;
    return def && (def->code == PM_OP_const || (pm_op_info_of(def)->traits & PM_T_WEIGHT));
}

/// For the op `user` (NULL: the graph's results).
static pm_status bring(transferrer *t, pm_value *v, const char *device, pm_op *user, pm_value **out)
{
    copy_key key = {v->id, device};
    void **slot = pm_map_at(&t->copies, &key, sizeof key);
    *out = *slot;
    if (*out)
        return PM_OK;
    pm_op *before = !device ? user : v->def ? v->def->next : t->g->first;
    const pm_loc *from = v->def ? v->def->loc
                                : pm_loc_intern(t->m, &(pm_loc){.what = "argument", .name = v->name ? v->name : "?"});
    pm_builder b = {t->g, before, pm_loc_derive(t->m, from, "transfers")};
    t->m->device = device;
    pm_status status = pm_build1(&b, out, PM_OP_transfer, PM_OPERANDS(v), PM_NO_ATTRS);
    t->m->device = NULL;
    PM_TRY(status);
    (*out)->name = v->name;
    *slot = *out;
    pm_pass_changed(t->ctx);
    pm_pass_count(t->ctx, device ? "to a device" : "to the host");
    return PM_OK;
}

static pm_status visit_op(transferrer *t, pm_op *op)
{
    if (op->code == PM_OP_transfer || (pm_op_info_of(op)->traits & PM_T_WEIGHT))
        return PM_OK;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        pm_value *v = op->operands[i], *here;
        if (!v || pm_value_device(v) == op->device || !pm_op_reads_bytes(op, i) || is_everywhere(v))
            continue;
        PM_TRY(bring(t, v, op->device, op, &here));
        pm_op_set_operand(op, i, here);
    }
    return PM_OK;
}

static pm_status visit_entry(transferrer *t)
{
    for (pm_op *op = t->g->first; op; op = op->next)
        PM_TRY(visit_op(t, op));
    for (size_t i = 0; i < t->g->results.n; i++) {
        pm_value *v = t->g->results.data[i], *here;
        if (t->g->result_states.data[i] >= 0 || !pm_value_device(v) || is_everywhere(v))
            continue;
        PM_TRY(bring(t, v, NULL, NULL, &here));
        t->g->results.data[i] = here;
    }
    return PM_OK;
}

/// The extents at their smallest, and at least 1: those of one token.
static uint64_t bytes_of_token(const pm_module *m, pm_dim bytes)
{
    pm_arena *scratch = pm_arena_child(m->arena);
    int64_t *smallest = PM_NEW_ARRAY(scratch, int64_t, m->symbols.n), value = 0;
    for (size_t i = 0; i < m->symbols.n; i++)
        smallest[i] = m->symbols.data[i].lo > 1 ? m->symbols.data[i].lo : 1;
    bool known = pm_dim_eval(m, bytes, smallest, &value) && value >= 0;
    pm_arena_destroy(scratch);
    return known ? (uint64_t)value : 0;
}

static void note_transfers(pm_pass_ctx *ctx, const pm_graph *g)
{
    pm_plan *plan = ctx->plan;
    const char *host = ctx->options->n_devices > 0 ? ctx->options->devices[0].name : "the host";
    for (const pm_op *op = g->first; op; op = op->next) {
        if (op->code != PM_OP_transfer)
            continue;
        const char *from = pm_value_device(op->operands[0]);
        pm_dim bytes = pm_type_bytes(ctx->module, op->results[0]->type);
        pm_moved moved = {.entry = g->name, .name = op->results[0]->name, .from = from ? from : host,
                          .to = op->device ? op->device : host, .bytes = pm_dim_text(ctx->module, bytes),
                          .token_bytes = bytes_of_token(ctx->module, bytes), .loc = op->loc};
        PM_PUSH(plan->arena, &plan->moved, moved);
    }
}

pm_status pm_pass_transfers(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        transferrer t = {.ctx = ctx, .m = ctx->module, .g = ctx->module->entries.data[i]};
        pm_map_init(&t.copies, ctx->module->arena);
        PM_TRY(visit_entry(&t));
        if (ctx->plan)
            note_transfers(ctx, t.g);
    }
    return PM_OK;
}
