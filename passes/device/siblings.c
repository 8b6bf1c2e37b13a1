/// Products of the same rows come together: queries, keys and values, or gates and what they gate. Where rows are few, one
/// launch then makes several (codegen/mlir/plan_product.c), which alone would be too short to keep a device's memory busy.
#include <stdlib.h>

#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef PM_VEC(pm_op *) op_vec;

static bool is_product(const pm_op *op)
{
    return op->code == PM_OP_linear || op->code == PM_OP_grouped_linear;
}

static bool is_of_weights(const pm_op *op)
{
    return op->code == PM_OP_const || op->code == PM_OP_dequantize || (pm_op_info_of(op)->traits & PM_T_WEIGHT);
}

static bool is_there(const pm_value *v, const pm_op *place)
{
    return !v || !v->def || v->def->graph != place->graph || v->def->mark <= place->mark;
}

/// Puts what `op` needs and `place` hasn't into `out`, users first. False: it isn't weights alone.
static bool find_weights(pm_arena *scratch, const pm_op *op, const pm_op *place, op_vec *out)
{
    size_t first = out->n;
    for (size_t at = first; op; op = at < out->n ? out->data[at++] : NULL)
        for (uint32_t i = 0; i < op->n_operands; i++) {
            const pm_value *v = op->operands[i];
            if (is_there(v, place))
                continue;
            if (!is_of_weights(v->def)) // offsets, say
                return false;
            PM_PUSH(scratch, out, v->def);
        }
    return true;
}

/// `behind`, or what comes behind it if it is the op itself.
static pm_op *put_before(pm_op *op, pm_op *behind, const pm_op *first)
{
    op->mark = first->mark;
    if (op == behind)
        return behind->next;
    pm_op_move_before(op, behind);
    return behind;
}

static int by_place(const void *a, const void *b)
{
    const pm_op *const *x = a, *const *y = b;
    return ((*x)->mark > (*y)->mark) - ((*x)->mark < (*y)->mark);
}

/// Later products of first's rows go behind it. op->mark: the number of an op; of what was moved, that of its new place.
static void gather(pm_pass_ctx *ctx, pm_arena *scratch, pm_op *first)
{
    pm_op *behind = first->next;
    op_vec others = {0};
    for (const pm_use *use = first->operands[0]->uses; use; use = use->next)
        if (use->op && use->op->code == first->code && use->op->graph == first->graph &&
            use->op->device == first->device && use->op->operands[0] == first->operands[0] &&
            use->op->mark > first->mark)
            PM_PUSH(scratch, &others, use->op);
    if (others.n > 1)
        qsort(others.data, others.n, sizeof *others.data, by_place);
    for (size_t i = 0; i < others.n; i++) {
        op_vec weights = {0};
        pm_op *op = others.data[i];
        if (op->mark == first->mark || !find_weights(scratch, op, first, &weights))
            continue;
        while (weights.n) { // what was found twice is there before its first user
            pm_op *weight = weights.data[--weights.n];
            if (weight->mark != first->mark)
                behind = put_before(weight, behind, first);
        }
        if (op != behind) {
            pm_pass_changed(ctx);
            pm_pass_count(ctx, "products moved to their siblings");
        }
        behind = put_before(op, behind, first);
    }
}

static void visit_entry(pm_pass_ctx *ctx, pm_graph *g, pm_arena *scratch)
{
    op_vec products = {0};
    uint32_t n = 0;
    for (pm_op *op = g->first; op; op = op->next) {
        op->mark = n++;
        if (op->device && is_product(op))
            PM_PUSH(scratch, &products, op);
    }
    uint32_t *place = PM_NEW_ARRAY(scratch, uint32_t, products.n + 1);
    for (size_t i = 0; i < products.n; i++)
        place[i] = products.data[i]->mark;
    for (size_t i = 0; i < products.n; i++)
        if (products.data[i]->mark == place[i])
            gather(ctx, scratch, products.data[i]);
}

pm_status pm_pass_siblings(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_arena *scratch = pm_arena_child(ctx->module->arena);
        visit_entry(ctx, ctx->module->entries.data[i], scratch);
        pm_arena_destroy(scratch);
    }
    return PM_OK;
}
