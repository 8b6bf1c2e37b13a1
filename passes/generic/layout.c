#include <inttypes.h>
#include <string.h>

#include "ir/op_table.h"
#include "ir/strided.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

/// Columns of a panel: as many as registers hold, fewer for narrow matrices.
static int64_t panel_for(const pm_pass_ctx *ctx, int64_t n)
{
    int64_t lanes = ctx->options->vector_floats;
    return n > 2 * lanes ? 4 * lanes : n > lanes ? 2 * lanes : lanes;
}

static bool is_weight(const pm_value *v)
{
    return v->def && (v->def->code == PM_OP_const || v->def->code == PM_OP_stack);
}

/// Name of the experts that share `offsets`: that of their first weight, so that all entries agree.
static const char *group_of(pm_pass_ctx *ctx, const pm_value *offsets, const pm_value *w)
{
    for (const pm_use *use = offsets->uses; use; use = use->next)
        if (use->op->code == PM_OP_grouped_linear && pm_value_is(use->op->operands[1], PM_OP_pack)) {
            const pm_attr *group = pm_op_attr(use->op->operands[1]->def, "group");
            if (group->s)
                return group->s;
        }
    const pm_value *first = w; // of stacks, views and codes: what they begin with
    while (first->def && first->def->code != PM_OP_const && first->def->n_operands)
        first = first->def->operands[0];
    const pm_data *data = pm_value_const(first);
    if (first->name)
        return first->name;
    return pm_arena_printf(ctx->module->arena, "experts@%llx",
                           (unsigned long long)(data ? data->offset : first->id));
}

static pm_status cast_operand(pm_builder *b, pm_op *op, uint32_t i, pm_elem elem)
{
    pm_value *v = op->operands[i];
    if (v->type->elem == elem)
        return PM_OK;
    PM_TRY(pm_build1(b, &v, PM_OP_cast, PM_OPERANDS(v), PM_ATTRS(pm_attr_elem("to", elem))));
    pm_op_set_operand(op, i, v);
    return PM_OK;
}

/// Kernels multiply in f32. Double precision has none: a plain product of matrices.
static pm_status use_matmul(pm_pass_ctx *ctx, pm_op *op)
{
    if (op->code == PM_OP_grouped_linear)
        return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "experts in f64 are not supported");
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "layout")};
    pm_value *y;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i])
            PM_TRY(cast_operand(&b, op, i, PM_F64));
    PM_TRY(pm_build1(&b, &y, PM_OP_matmul, PM_OPERANDS(op->operands[0], op->operands[1]),
                     PM_ATTRS(pm_attr_bool("trans_b", true))));
    if (op->n_operands > 2 && op->operands[2])
        PM_TRY(pm_build1(&b, &y, PM_OP_add, PM_OPERANDS(y, op->operands[2]), PM_NO_ATTRS));
    if (y->type->elem != op->results[0]->type->elem)
        PM_TRY(pm_build1(&b, &y, PM_OP_cast, PM_OPERANDS(y),
                         PM_ATTRS(pm_attr_elem("to", op->results[0]->type->elem))));
    pm_value_replace(op->results[0], y);
    pm_op_erase(op);
    pm_pass_changed(ctx);
    return PM_OK;
}

/// ---- factors of 16 bits on devices ------------------------------------------------------------------------

/// The rows of `v` that `token` names, made once for all that want them.
static pm_status gather_narrow(pm_builder *b, pm_value *v, pm_value *token, pm_value **out)
{
    for (pm_use *use = v->uses; use; use = use->next)
        if (use->op->code == PM_OP_gather_rows && use->op->operands[1] == token && use->op->graph == b->graph) {
            *out = use->op->results[0];
            return PM_OK;
        }
    return pm_build1(b, out, PM_OP_gather_rows, PM_OPERANDS(v, token), PM_NO_ATTRS);
}

/// What x was before it was widened to f32, or before its rows were and then gathered. NULL: it always was in f32.
static pm_value *widened_from(pm_value *x, pm_elem elem)
{
    if (pm_value_is(x, PM_OP_gather_rows))
        x = x->def->operands[0];
    if (pm_value_is(x, PM_OP_cast) && x->type->elem == PM_F32)
        x = x->def->operands[0];
    return x->type->elem == elem ? x : NULL;
}

/// Where both factors had 16 bits before they were widened, tensor cores multiply them, exactly as f32 would.
static pm_status use_narrow_factors(pm_pass_ctx *ctx, pm_op *op)
{
    pm_value *x = op->operands[0], *w = op->operands[1], *narrow;
    if (pm_value_is(w, PM_OP_cast) && w->type->elem == PM_F32)
        w = w->def->operands[0];
    pm_elem elem = w->type->elem, result = op->results[0]->type->elem;
    narrow = elem == PM_F16 || elem == PM_BF16 ? widened_from(x, elem) : NULL;
    if (!narrow || pm_op_i64(op, "compute") != PM_F32 || (result != PM_F32 && x != narrow))
        return PM_OK;
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "layout")};
    if (pm_value_is(x, PM_OP_gather_rows) && x->type->elem == PM_F32) {
        b.before = x->def;
        PM_TRY(gather_narrow(&b, narrow, x->def->operands[1], &narrow));
    }
    pm_op_set_operand(op, 0, narrow);
    pm_op_set_operand(op, 1, w);
    pm_op_set_i64(op, "compute", elem);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "products of 16 bits");
    return PM_OK;
}

/// Operands in the elements that kernels read: x in f32 (in bf16 where that is asked for), the bias in f32; the
/// result is rounded to what it was.
static pm_status use_kernel_elements(pm_pass_ctx *ctx, pm_op *op)
{
    pm_elem x = (pm_elem)pm_op_i64(op, "compute");
    pm_elem result = op->results[0]->type->elem;
    uint32_t bias = op->code == PM_OP_linear ? 2 : 3;
    pm_builder b = {op->graph, op, pm_loc_derive(ctx->module, op->loc, "layout")};
    PM_TRY(cast_operand(&b, op, 0, x));
    if (op->n_operands > bias && op->operands[bias] && op->operands[bias]->type->elem == PM_F64)
        PM_TRY(cast_operand(&b, op, bias, PM_F32));
    PM_TRY(pm_op_infer(op));
    if (op->results[0]->type->elem == result)
        return PM_OK;
    pm_value *y;
    b.before = op->next;
    PM_TRY(pm_build1(&b, &y, PM_OP_cast, PM_OPERANDS(op->results[0]),
                     PM_ATTRS(pm_attr_elem("to", result))));
    pm_value_replace(op->results[0], y);
    pm_op_set_operand(y->def, 0, op->results[0]); // but for its own
    return PM_OK;
}

/// What `pack` takes instead of a weight: constants, views of them, and stacks; below a conversion that
/// packing does itself.
static pm_value *source_of(const pm_pass_ctx *ctx, pm_value *w)
{
    pm_strided view;
    if (pm_value_is(w, PM_OP_cast) && w->type->elem == PM_F32 && pm_elem_is_float(w->def->operands[0]->type->elem) &&
        w->def->operands[0]->type->elem != PM_F64)
        w = w->def->operands[0];
    return pm_strided_of(ctx->module, w, &view) && is_weight(view.root) ? w : NULL;
}

static pm_status not_constant(pm_pass_ctx *ctx, const pm_op *op)
{
    return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED, "the weight of %s must be a constant",
                    pm_op_info_of(op)->name);
}

/// The attributes of a pack of low-bit weights.
static pm_status lowbit_attrs(pm_pass_ctx *ctx, const pm_op *op, const pm_op *deq, pm_attr *attrs,
                              size_t *n_attrs)
{
    int64_t bits = pm_op_i64(deq, "bits"), block = pm_op_i64(deq, "block"), k = pm_op_i64(deq, "k");
    int64_t per_word = 32 / bits, scale, zero = PM_ZERO_NONE;
    for (uint32_t i = 0; i < deq->n_operands; i++)
        if (deq->operands[i] && !source_of(ctx, deq->operands[i]))
            return not_constant(ctx, op);
    switch (deq->operands[1]->type->elem) {
    case PM_F16: scale = PM_SCALE_F16; break;
    case PM_BF16: scale = PM_SCALE_BF16; break;
    case PM_U8: scale = PM_SCALE_E8M0; break;
    default: scale = PM_SCALE_F32; break;
    }
    if (deq->n_operands > 2 && deq->operands[2])
        zero = deq->operands[2]->type->elem == PM_U8 ? PM_ZERO_I8 : PM_ZERO_F32;
    if (block == 0 || block > k) // one block, of whole words
        block = (k + per_word - 1) / per_word * per_word;
    if (block < 1 || block % per_word != 0)
        return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "blocks of %" PRId64 " codes of %" PRId64 " bits don't fill 32-bit words", block,
                        bits);
    attrs[(*n_attrs)++] = pm_attr_i64("bits", bits);
    attrs[(*n_attrs)++] = pm_attr_i64("block", block);
    attrs[(*n_attrs)++] = pm_attr_i64("scale", scale);
    attrs[(*n_attrs)++] = pm_attr_i64("zero", zero);
    attrs[(*n_attrs)++] = pm_attr_i64("floats", strcmp(pm_op_str(deq, "format"), "int") != 0);
    return PM_OK;
}

static bool swaps_last(const pm_op *transpose)
{
    const pm_attr *perm = pm_op_attr(transpose, "perm");
    bool swaps = perm->n >= 2;
    for (size_t i = 0; i + 2 < perm->n; i++)
        swaps = swaps && perm->ints[i] == (int64_t)i;
    return swaps && perm->ints[perm->n - 1] == (int64_t)perm->n - 2;
}

static pm_status pack_weight(pm_pass_ctx *ctx, pm_op *op)
{
    enum { MAX_ATTRS = 10 };
    pm_module *m = ctx->module;
    pm_value *w = op->operands[1], *packed;
    if (w->type->layout)
        return PM_OK;
    bool lowbit = pm_value_is(w, PM_OP_dequantize), trans = false;
    if (pm_value_is(w, PM_OP_transpose) && is_weight(w->def->operands[0]) && swaps_last(w->def)) {
        w = w->def->operands[0];
        trans = true;
    }
    if (!lowbit)
        w = source_of(ctx, w);
    if (!w)
        return not_constant(ctx, op);
    int64_t n = 0;
    int32_t rank = w->type->rank;
    if (!pm_dim_is_const(m, w->type->dims[trans ? rank - 1 : rank - 2], &n))
        return pm_error(ctx->diag, op->loc, PM_ERR_UNSUPPORTED, "weights need constant dims");
    // bf16 is widened exactly while it is multiplied; everything else is kept as f32.
    bool bf16 = !lowbit && (w->type->elem == PM_BF16 || pm_op_i64(op, "compute") == PM_BF16);
    pm_attr attrs[MAX_ATTRS] = {pm_attr_i64("panel", panel_for(ctx, n)), pm_attr_i64("pair", bf16 ? 2 : 1),
                                pm_attr_elem("elem", bf16 ? PM_BF16 : PM_F32),
                                pm_attr_bool("trans", trans)};
    size_t n_attrs = 4;
    if (op->code == PM_OP_grouped_linear) // experts of one layer: those of one routing
        attrs[n_attrs++] = pm_attr_str("group", group_of(ctx, op->operands[2], w));
    if (lowbit)
        PM_TRY(lowbit_attrs(ctx, op, w->def, attrs, &n_attrs));
    pm_builder b = {op->graph, op, pm_loc_derive(m, op->loc, "layout")};
    PM_TRY(pm_build1(&b, &packed, PM_OP_pack, PM_OPERANDS(w), attrs, n_attrs));
    pm_op_set_operand(op, 1, packed);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "weights packed");
    return PM_OK;
}

/// Whether the bytes are in the payload as they are: constants, stacks of them.
static bool is_stored_as_is(const pm_value *w)
{
    for (uint32_t i = 0; pm_value_is(w, PM_OP_stack) && i < w->def->n_operands; i++)
        if (!pm_value_is(w->def->operands[i], PM_OP_const))
            return false;
    return is_weight(w);
}

/// Devices beside the CPU take weights row by row, [.., N, K]: as they are stored where that is so, else as a pack
/// whose panels are single rows. Codes of few bits stay behind `dequantize`, which has no device and doesn't run
/// where products read codes. What is no constant is a matrix like any other.
static pm_status use_rows(pm_pass_ctx *ctx, pm_op *op)
{
    pm_module *m = ctx->module;
    pm_value *w = op->operands[1], *rows;
    if (pm_value_is(w, PM_OP_dequantize) && ctx->options->device_reads_codes && pm_value_is_codes(w))
        w->def->device = NULL;
    if (w->type->layout || pm_value_is(w, PM_OP_dequantize))
        return PM_OK;
    bool trans = pm_value_is(w, PM_OP_transpose) && is_weight(w->def->operands[0]) && swaps_last(w->def);
    w = source_of(ctx, trans ? w->def->operands[0] : w);
    if (!w)
        return PM_OK;
    pm_elem compute = (pm_elem)pm_op_i64(op, "compute");
    pm_elem elem = compute != PM_F32 ? compute : w->type->elem == PM_BF16 ? PM_BF16 : PM_F32;
    if (trans || !is_stored_as_is(w) || (elem != PM_F32 && w->type->elem != elem)) {
        pm_builder b = {op->graph, op, pm_loc_derive(m, op->loc, "layout")};
        PM_TRY(pm_build1(&b, &rows, PM_OP_pack, PM_OPERANDS(w),
                         PM_ATTRS(pm_attr_i64("panel", 1), pm_attr_elem("elem", elem), pm_attr_bool("trans", trans))));
        w = rows;
        pm_pass_count(ctx, "weights row by row");
    }
    if (w == op->operands[1])
        return PM_OK;
    pm_op_set_operand(op, 1, w);
    pm_pass_changed(ctx);
    return PM_OK;
}

static pm_status visit_graph(pm_pass_ctx *ctx, pm_graph *g)
{
    for (pm_op *op = g->first, *next; op; op = next) {
        next = op->next;
        if (op->code != PM_OP_linear && op->code != PM_OP_grouped_linear)
            continue;
        ctx->module->device = op->device;
        if (op->operands[0]->type->elem == PM_F64 || op->operands[1]->type->elem == PM_F64) {
            PM_TRY(use_matmul(ctx, op));
            continue;
        }
        if (op->device)
            PM_TRY(use_narrow_factors(ctx, op));
        else if (pm_op_i64(op, "compute") == PM_F16) // the host multiplies in f32: the same numbers
            pm_op_set_i64(op, "compute", PM_F32);
        PM_TRY(use_kernel_elements(ctx, op));
        PM_TRY(op->device ? use_rows(ctx, op) : pack_weight(ctx, op));
    }
    ctx->module->device = NULL;
    return PM_OK;
}

pm_status pm_pass_layout(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_graph_vec graphs;
        pm_bodies_of(ctx->module->entries.data[i], ctx->module->arena, &graphs);
        for (size_t k = 0; k < graphs.n; k++)
            PM_TRY(visit_graph(ctx, graphs.data[k]));
    }
    return PM_OK;
}
