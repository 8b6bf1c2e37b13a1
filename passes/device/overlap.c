/// Devices and the host work at the same time. What comes from a device is asked for as soon as it is made, and waited for
/// where the host first reads it (docs/gpu.md); what the host does with it goes behind everything that a device can begin
/// without: its other experts, what all tokens share.
///
/// Phases: 0 is what needs nothing that comes from a device; what reads a download is in the odd phase behind that of its
/// maker; what is brought back, and all that follows on devices, is in the next even one. Ops keep their order within a phase.
/// What needs nothing at all (empty caches, ranges) is made in the phase that first reads it, not to hold memory for long.
/// Entries whose extents the data decides keep theirs: ops depend on each other there by more than operands.
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef struct phases {
    pm_pass_ctx *ctx;
    pm_graph *g;
    uint32_t *of_value;   ///< by value id
    uint32_t *of_op;      ///< by op->mark
    bool *of_nothing;     ///< by op->mark
    uint32_t *storage;    ///< by value id: the value that had the memory first
    uint32_t *last_read;  ///< by value id (of storage): phase of the last op that reads it
    bool *overwritten;    ///< by value id (of storage)
    uint32_t last;
} phases;

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static bool is_download(const pm_op *op)
{
    return op->code == PM_OP_transfer && !op->device;
}

static bool data_decides_extents(const pm_graph *g)
{
    for (const pm_op *op = g->first; op; op = op->next)
        for (uint32_t i = 0; i < op->n_results; i++)
            for (int32_t k = 0; k < op->results[i]->type->rank; k++)
                if (pm_dim_is_dynamic(g->module, op->results[i]->type->dims[k]))
                    return true;
    return false;
}

static void find_phase(phases *p, pm_op *op)
{
    uint32_t traits = pm_op_info_of(op)->traits, phase = 0;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i])
            phase = larger(phase, p->of_value[op->operands[i]->id]);
    bool keeps_memory = (traits & (PM_T_VIEW | PM_T_INPLACE)) && op->n_operands > 0 && op->operands[0];
    if (keeps_memory && (traits & PM_T_INPLACE)) { // not before who reads what was there
        phase = larger(phase, p->last_read[p->storage[op->operands[0]->id]]);
        p->overwritten[p->storage[op->operands[0]->id]] = true;
    }
    if (op->device)
        phase = (phase + 1) / 2 * 2;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!op->operands[i])
            continue;
        uint32_t *last = &p->last_read[p->storage[op->operands[i]->id]];
        *last = larger(*last, phase);
    }
    p->of_op[op->mark] = phase;
    p->last = larger(p->last, phase);
    for (uint32_t i = 0; i < op->n_results; i++) {
        uint32_t id = op->results[i]->id;
        p->of_value[id] = is_download(op) ? phase | 1 : phase;
        p->storage[id] = i == 0 && keeps_memory ? p->storage[op->operands[0]->id] : id;
    }
}

/// Constants, extents that are known, and what is made of them alone; not what somebody overwrites: who reads that has its
/// place before him.
static bool needs_nothing(const phases *p, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *v = op->operands[i];
        if (v && (!v->def || v->def->graph != p->g || !p->of_nothing[v->def->mark] || p->overwritten[p->storage[v->id]]))
            return false;
    }
    return op->n_regions == 0;
}

/// Users come first.
static void put_off(phases *p, const pm_op *op)
{
    uint32_t first = UINT32_MAX;
    for (uint32_t i = 0; i < op->n_results; i++)
        for (const pm_use *use = op->results[i]->uses; use; use = use->next)
            if (use->op->graph == p->g && p->of_op[use->op->mark] < first)
                first = p->of_op[use->op->mark];
    if (first != UINT32_MAX)
        p->of_op[op->mark] = first;
}

static void sort_ops(phases *p, pm_op **ops, size_t n)
{
    bool sorted = true;
    for (size_t i = 1; i < n; i++)
        sorted = sorted && p->of_op[ops[i - 1]->mark] <= p->of_op[ops[i]->mark];
    if (sorted)
        return;
    for (uint32_t phase = 0; phase <= p->last; phase++)
        for (size_t i = 0; i < n; i++)
            if (p->of_op[ops[i]->mark] == phase)
                pm_op_move_before(ops[i], NULL);
    pm_pass_changed(p->ctx);
    pm_pass_count(p->ctx, "entries sorted");
}

/// Behind the makers of what they bring.
static void hurry_downloads(phases *p, pm_op **ops, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        pm_op *maker = is_download(ops[i]) ? ops[i]->operands[0]->def : NULL;
        if (!maker || maker->graph != p->g || maker->next == ops[i])
            continue;
        pm_op_move_before(ops[i], maker->next);
        pm_pass_changed(p->ctx);
        pm_pass_count(p->ctx, "downloads asked for earlier");
    }
}

static void visit_entry(pm_pass_ctx *ctx, pm_graph *g, pm_arena *scratch)
{
    size_t n_values = (size_t)ctx->module->next_value + 1;
    phases p = {.ctx = ctx, .g = g, .of_value = PM_NEW_ARRAY(scratch, uint32_t, n_values),
                .storage = PM_NEW_ARRAY(scratch, uint32_t, n_values), .last_read = PM_NEW_ARRAY(scratch, uint32_t, n_values),
                .overwritten = PM_NEW_ARRAY(scratch, bool, n_values)};
    PM_VEC(pm_op *) ops = {0};
    bool any = false;
    for (size_t i = 0; i < g->args.n; i++)
        p.storage[g->args.data[i]->id] = g->args.data[i]->id;
    for (pm_op *op = g->first; op; op = op->next) {
        any = any || is_download(op);
        op->mark = (uint32_t)ops.n;
        PM_PUSH(scratch, &ops, op);
    }
    if (!any || data_decides_extents(g))
        return;
    p.of_op = PM_NEW_ARRAY(scratch, uint32_t, ops.n);
    for (size_t i = 0; i < ops.n; i++)
        find_phase(&p, ops.data[i]);
    p.of_nothing = PM_NEW_ARRAY(scratch, bool, ops.n);
    for (size_t i = 0; i < ops.n; i++)
        p.of_nothing[i] = needs_nothing(&p, ops.data[i]);
    for (size_t i = ops.n; i-- > 0;)
        if (p.of_nothing[i])
            put_off(&p, ops.data[i]);
    sort_ops(&p, ops.data, ops.n);
    hurry_downloads(&p, ops.data, ops.n);
}

pm_status pm_pass_overlap(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_arena *scratch = pm_arena_child(ctx->module->arena);
        visit_entry(ctx, ctx->module->entries.data[i], scratch);
        pm_arena_destroy(scratch);
    }
    return PM_OK;
}
