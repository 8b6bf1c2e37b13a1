/// Ops whose dispatch is a call of a C kernel template with constant shapes.
#include <math.h>
#include <string.h>

#include "codegen/kernels/kernels.h"
#include "codegen/mlir/emit_group.h"
#include "codegen/mlir/lowerings.h"

static MlirValue operand(dispatch *d, const pm_op *op, uint32_t i)
{
    return i < op->n_operands && op->operands[i] ? pm_emit_pointer(d, op->operands[i])
                                                 : mb_null(d->b);
}

static MlirValue dim(dispatch *d, const pm_value *v, int32_t i)
{
    return pm_emit_dim(d, v->type->dims[i < 0 ? v->type->rank + i : i]);
}

/// ---- products ---------------------------------------------------------------------------------------

/// The product inside a dispatch, and its operands outside.
typedef struct product {
    pm_op *op; ///< linear or grouped_linear
    pm_value *x, *w, *offsets;
} product;

static product product_of(const dispatch *d)
{
    product p = {.op = d->op};
    if (d->op->code == PM_OP_fused)
        for (p.op = d->op->regions[0]->first; p.op; p.op = p.op->next)
            if (p.op->code == PM_OP_linear || p.op->code == PM_OP_grouped_linear)
                break;
    PM_ASSERT(p.op);
    group g = {.single = d->op,
               .region = d->op->code == PM_OP_fused ? d->op->regions[0] : NULL};
    p.x = pm_group_outer(&g, p.op->operands[0]);
    p.w = pm_group_outer(&g, p.op->operands[1]);
    if (p.op->code == PM_OP_grouped_linear)
        p.offsets = pm_group_outer(&g, p.op->operands[2]);
    return p;
}

pm_status pm_lower_linear(dispatch *d)
{
    mb *b = d->b;
    if (d->e->for_device)
        return pm_lower_device_product(d);
    product p = product_of(d);
    const pm_layout *layout = p.w->type->layout;
    static const char *const codes[] = {"q2", "q4", "q8"};
    bool grouped = p.offsets != NULL;
    if (!layout)
        return pm_error(d->e->diag, d->op->loc, PM_ERR_INTERNAL,
                        "weights of %s are not packed", pm_op_info_of(p.op)->name);
    char epilogue[64], kernel[64];
    snprintf(epilogue, sizeof epilogue, "pm_epilogue_%zu", d->e->dispatch_names.n);
    const char *kind = layout->floats             ? (layout->bits == 8 ? "e4m3" : "e2m1")
                       : layout->bits             ? codes[layout->bits / 4]
                       : p.w->type->elem == PM_F32  ? "f32"
                       : p.x->type->elem == PM_BF16 ? "dot"
                                                    : "b16";
    snprintf(kernel, sizeof kernel, "pm_k_%s_%s_p%d", grouped ? "grouped" : "linear", kind,
             layout->panel);
    MlirValue context;
    PM_TRY(pm_emit_epilogue(d, epilogue, p.op, layout->panel, layout->ways, grouped, &context));
    int64_t n, k, stride = 0;
    int32_t rank = p.w->type->rank;
    bool known = pm_dim_is_const(d->e->module, p.w->type->dims[rank - 2], &n) &&
                 pm_dim_is_const(d->e->module, p.w->type->dims[rank - 1], &k);
    PM_ASSERT(known);
    // With two sources a panel holds half as many columns of each; the kernel sees whole panels.
    int64_t width = layout->panel / layout->ways, per_source = n / layout->ways;
    int64_t columns = layout->ways == 1 ? n : (per_source + width - 1) / width * layout->panel;
    MlirValue args[16];
    size_t at = 0;
    args[at++] = pm_emit_pointer(d, p.x);
    args[at++] = pm_emit_pointer(d, p.w);
    if (grouped) {
        stride = (int64_t)(pm_weights_expert_stride(d->e->weights, p.w) /
                           (layout->bits ? 1 : pm_elem_size(p.w->type->elem)));
        args[at++] = mb_i64(b, stride);
        args[at++] = pm_emit_pointer(d, p.offsets);
        args[at++] = pm_emit_dim(d, p.w->type->dims[0]);
    } else {
        args[at++] = pm_emit_count(d, p.x->type, 0, p.x->type->rank - 1);
    }
    args[at++] = mb_i64(b, columns);
    args[at++] = mb_i64(b, k);
    args[at++] = mb_address(b, epilogue);
    args[at++] = context;
    args[at++] = d->worker;
    args[at++] = d->n_workers;
    if (layout->bits) {
        args[at++] = mb_i64(b, layout->block);
        args[at++] = mb_i64(b, layout->scale);
        args[at++] = mb_i64(b, layout->zero);
    }
    mb_call(b, kernel, (MlirType){0}, args, at);
    return PM_OK;
}

/// The stacks of matrices of a product with broadcasting. The last dims that both operands walk in step, or
/// not at all, are the kernel's; a loop goes through those before.
typedef struct batches {
    int32_t outer; ///< dims of the result before the kernel's
    bool still[2]; ///< an operand that the kernel's dims don't move
} batches;

static bool is_one_dim(const dispatch *d, pm_dim dim)
{
    int64_t n;
    return pm_dim_is_const(d->e->module, dim, &n) && n == 1;
}

/// Whether dim `i` of the result's batch moves an operand; *out_known is false where the run decides.
static bool moves(const dispatch *d, const pm_type *type, const pm_type *out, int32_t i, bool *out_known)
{
    int32_t at = i - (out->rank - type->rank);
    if (at < 0 || (is_one_dim(d, type->dims[at]) && !is_one_dim(d, out->dims[i])))
        return false;
    *out_known = *out_known && pm_dim_same(type->dims[at], out->dims[i]);
    return true;
}

static bool plan_batches(const dispatch *d, const pm_type *const *types, const pm_type *out, batches *plan)
{
    int32_t n = out->rank - 2;
    bool known = true, settled = false;
    *plan = (batches){.outer = n};
    for (int32_t i = n; i-- > 0;) {
        bool moved[2] = {moves(d, types[0], out, i, &known), moves(d, types[1], out, i, &known)};
        if (!known)
            return false;
        if (is_one_dim(d, out->dims[i]) && plan->outer == i + 1) {
            plan->outer = i;
            continue;
        }
        bool fits = !settled || (moved[0] == !plan->still[0] && moved[1] == !plan->still[1]);
        if (!fits || plan->outer != i + 1)
            continue;
        settled = true;
        plan->still[0] = !moved[0];
        plan->still[1] = !moved[1];
        plan->outer = i;
    }
    return true;
}

/// Number of the matrix of an operand at which the kernel's dims begin, for a number of the outer dims.
static MlirValue matrix_at(dispatch *d, const pm_type *type, const pm_type *out, const batches *plan,
                           MlirValue outer)
{
    mb *b = d->b;
    MlirValue at = mb_i64(b, 0), stride = mb_i64(b, 1);
    bool known = true;
    for (int32_t i = out->rank - 2; i-- > 0;) {
        int32_t own = i - (out->rank - type->rank);
        if (i < plan->outer) {
            MlirValue n = pm_emit_dim(d, out->dims[i]);
            if (moves(d, type, out, i, &known))
                at = mb_add(b, at, mb_mul(b, mb_bin(b, "remui", outer, n), stride));
            outer = mb_bin(b, "divui", outer, n);
        }
        if (own >= 0)
            stride = mb_mul(b, stride, pm_emit_dim(d, type->dims[own]));
    }
    return at;
}

static MlirValue matrix_pointer(dispatch *d, const pm_value *v, MlirValue matrix, MlirValue size)
{
    return mb_at(d->b, d->b->f32, pm_emit_pointer(d, v), mb_mul(d->b, matrix, size));
}

pm_status pm_lower_matmul(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *x = op->operands[0], *y = op->operands[1], *out = op->results[0];
    const pm_type *types[] = {x->type, y->type};
    batches plan;
    if (x->type->elem != PM_F32 || x->type->rank < 2 || y->type->rank < 2 ||
        !plan_batches(d, types, out->type, &plan))
        return pm_lower_ref(d);
    bool ta = pm_op_i64(op, "trans_a"), tb = pm_op_i64(op, "trans_b");
    MlirValue m = dim(d, x, ta ? -1 : -2), k = dim(d, x, ta ? -2 : -1), n = dim(d, y, tb ? -2 : -1);
    MlirValue size_x = mb_mul(b, m, k), size_y = mb_mul(b, k, n), zero = mb_i64(b, 0), one = mb_i64(b, 1);
    MlirValue batch = pm_emit_count(d, out->type, plan.outer, out->type->rank - 2);
    mb_loop loop;
    MlirValue outer = zero, first_x = zero, first_y = zero, first_out = zero;
    if (plan.outer) {
        mb_for_begin(b, &loop, zero, pm_emit_count(d, out->type, 0, plan.outer), one, NULL, 0);
        outer = loop.index;
        first_x = matrix_at(d, x->type, out->type, &plan, outer);
        first_y = matrix_at(d, y->type, out->type, &plan, outer);
        first_out = mb_mul(b, outer, batch);
    }
    MlirValue step_x = plan.still[0] ? zero : size_x, step_y = plan.still[1] ? zero : size_y;
    MlirValue at_x = matrix_pointer(d, x, first_x, size_x), at_y = matrix_pointer(d, y, first_y, size_y);
    MlirValue at_out = matrix_pointer(d, out, first_out, mb_mul(b, m, n));
    // a product with one column is one with one row of the transposed: the kernel's vectors are rows
    bool turned = is_one_dim(d, out->type->dims[out->type->rank - 1]) &&
                  !is_one_dim(d, out->type->dims[out->type->rank - 2]);
    MlirValue straight[] = {at_x, at_y, at_out, batch, m, n, k, step_x, step_y, mb_i64(b, ta), mb_i64(b, tb),
                            d->scratch, d->worker, d->n_workers};
    MlirValue swapped[] = {at_y, at_x, at_out, batch, one, m, k, step_y, step_x, zero, mb_i64(b, !ta),
                           d->scratch, d->worker, d->n_workers};
    mb_call(b, "pm_k_matmul_f32", (MlirType){0}, turned ? swapped : straight, PM_COUNT(straight));
    if (plan.outer)
        mb_for_end(b, &loop, NULL, NULL);
    return PM_OK;
}

pm_status pm_lower_softmax(dispatch *d)
{
    pm_op *op = d->op;
    pm_value *x = op->operands[0];
    int32_t last = x->type->rank - 1;
    int64_t axis = pm_op_i64(op, "axis");
    if (x->type->elem != PM_F32 || last < 0 || (axis != -1 && axis != last) || pm_op_i64(op, "log"))
        return pm_lower_loops(d);
    MlirValue args[] = {operand(d, op, 0), pm_emit_pointer(d, op->results[0]), pm_emit_count(d, x->type, 0, last),
                        dim(d, x, last), d->worker, d->n_workers};
    mb_call(d->b, "pm_k_softmax", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

/// ---- language models ----------------------------------------------------------------------------------

pm_status pm_lower_rope_table(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *out = op->results[0];
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), pm_emit_pointer(d, out), dim(d, out, 0),
                        dim(d, out, 1), dim(d, op->operands[1], 0),
                        mb_float(b, b->f32, pm_op_f64(op, "scale")), d->worker, d->n_workers};
    mb_call(b, "pm_k_rope_table", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

pm_status pm_lower_rope(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *x = op->operands[0], *table = op->operands[1];
    if (x->type->elem != PM_F32)
        return pm_lower_ref(d);
    int64_t head_dim = pm_op_i64(op, "head_dim");
    MlirValue rows = pm_emit_count(d, x->type, 0, 2);
    MlirValue heads = mb_bin(b, "divui", dim(d, x, 2), mb_i64(b, head_dim));
    MlirValue half = mb_bin(b, "divui", dim(d, table, 2), mb_i64(b, 2));
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), pm_emit_pointer(d, op->results[0]),
                        rows, heads, mb_i64(b, head_dim), half,
                        mb_i64(b, pm_op_i64(op, "offset")),
                        mb_i64(b, pm_op_i64(op, "interleaved")), d->worker, d->n_workers};
    mb_call(b, "pm_k_rope", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

pm_status pm_lower_cache(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    bool key = op->code == PM_OP_cache_key;
    pm_value *cache = op->operands[0], *rows = op->operands[1];
    if (rows->type->elem != PM_F32 || cache->type->elem != PM_F32)
        return PM_ERR_UNSUPPORTED;
    MlirValue head_dim = dim(d, cache, 3), capacity = dim(d, cache, 2);
    if (key)
        capacity = mb_mul(b, capacity, dim(d, cache, 4));
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), dim(d, rows, 0),
                        dim(d, rows, 1), dim(d, cache, 1), head_dim, capacity, d->worker, d->n_workers};
    d->status = mb_call(b, key ? "pm_k_cache_key" : "pm_k_cache_value", b->i32, args, PM_COUNT(args));
    return PM_OK;
}

pm_status pm_lower_attention(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *q = op->operands[0], *keys = op->operands[1], *values = op->operands[2];
    pm_value *bias = op->n_operands > 5 ? op->operands[5] : NULL;
    if (q->type->elem != PM_F32)
        return PM_ERR_UNSUPPORTED;
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), operand(d, op, 3),
                        operand(d, op, 4), pm_emit_pointer(d, op->results[0]), dim(d, q, 0),
                        dim(d, q, 1), mb_i64(b, pm_op_i64(op, "heads")),
                        mb_i64(b, pm_op_i64(op, "kv_heads")), dim(d, keys, 3), dim(d, values, 3),
                        dim(d, values, 2), mb_float(b, b->f32, pm_op_f64(op, "scale")),
                        mb_i64(b, pm_op_i64(op, "window")), mb_i64(b, pm_op_i64(op, "chunk")),
                        mb_float(b, b->f32, pm_op_f64(op, "softcap")), operand(d, op, 5),
                        bias ? dim(d, bias, 1) : mb_i64(b, 0),
                        mb_i64(b, pm_op_i64(op, "causal")), d->scratch, d->worker, d->n_workers};
    mb_call(b, "pm_k_attention", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

/// A stride along `extent`: 0 where that is 1 and so broadcast.
static MlirValue stride_along(dispatch *d, pm_dim extent, MlirValue stride)
{
    mb *b = d->b;
    int64_t n;
    if (pm_dim_is_const(d->e->module, extent, &n))
        return n == 1 ? mb_i64(b, 0) : stride;
    return mb_select(b, mb_cmpi(b, "eq", pm_emit_dim(d, extent), mb_i64(b, 1)), mb_i64(b, 0), stride);
}

/// Numbers that sequences have each, or all together: how far apart they are.
static MlirValue step_of(dispatch *d, const pm_op *op, uint32_t i)
{
    pm_value *v = i < op->n_operands ? op->operands[i] : NULL;
    return v ? stride_along(d, v->type->dims[0], mb_i64(d->b, 1)) : mb_i64(d->b, 0);
}

bool pm_kernel_head_size(const pm_value *v, int64_t heads, int64_t *out)
{
    const pm_type *type = v->type;
    bool known = pm_dim_is_const(v->graph->module, type->dims[type->rank - 1], out);
    *out /= known && type->rank == 3 ? heads : 1;
    return known;
}

pm_status pm_lower_kv_append(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *rows = op->operands[0], *past = op->n_operands > 3 ? op->operands[3] : NULL;
    pm_value *out = op->results[0];
    bool apart = rows->type->rank == 4;
    if (rows->type->elem != PM_F32)
        return pm_lower_ref(d);
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), step_of(d, op, 1), operand(d, op, 3),
                        pm_emit_pointer(d, out), dim(d, out, 0), dim(d, rows, apart ? 2 : 1),
                        dim(d, out, 1), dim(d, out, 3), past ? dim(d, past, 2) : mb_i64(b, 0),
                        dim(d, out, 2), mb_i64(b, apart), d->worker, d->n_workers};
    d->status = mb_call(b, "pm_k_kv_append", b->i32, args, PM_COUNT(args));
    return PM_OK;
}

/// The strides of a mask [.., M] over sequences, heads and queries.
static void mask_strides(dispatch *d, const pm_value *mask, MlirValue *out)
{
    mb *b = d->b;
    const pm_type *type = mask ? mask->type : NULL;
    MlirValue stride = mask ? dim(d, mask, -1) : mb_i64(b, 0);
    for (int32_t i = 2; i >= 0; i--) {
        int32_t axis = type ? type->rank - 4 + i : -1;
        out[i] = axis >= 0 ? stride_along(d, type->dims[axis], stride) : mb_i64(b, 0);
        if (axis >= 0)
            stride = mb_mul(b, stride, pm_emit_dim(d, type->dims[axis]));
    }
}

pm_status pm_lower_sdpa(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *q = op->operands[0], *k = op->operands[1], *v = op->operands[2];
    pm_value *mask = op->n_operands > 3 ? op->operands[3] : NULL;
    pm_value *sinks = op->n_operands > 6 ? op->operands[6] : NULL;
    int64_t heads = pm_op_i64(op, "heads"), kv_heads = pm_op_i64(op, "kv_heads"), size, value_size;
    if (!pm_kernel_head_size(q, heads, &size) || !pm_kernel_head_size(v, kv_heads, &value_size) ||
        q->type->elem != PM_F32 || (sinks && sinks->type->elem != PM_F32) ||
        (mask && mask->type->elem != PM_F32 && mask->type->elem != PM_BOOL))
        return pm_lower_ref(d);
    bool nan = strcmp(pm_op_str(op, "unseen"), "nan") == 0;
    int64_t apart = (q->type->rank == 4 ? 1 : 0) | (k->type->rank == 4 ? 2 : 0) | (v->type->rank == 4 ? 4 : 0);
    MlirValue strides[3];
    mask_strides(d, mask, strides);
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), operand(d, op, 3),
                        operand(d, op, 4), operand(d, op, 5), operand(d, op, 6),
                        pm_emit_pointer(d, op->results[0]), dim(d, q, 0), dim(d, q, apart & 1 ? 2 : 1),
                        dim(d, k, apart & 2 ? 2 : 1), mb_i64(b, heads), mb_i64(b, kv_heads),
                        mb_i64(b, size), mb_i64(b, value_size), mb_i64(b, apart),
                        mask ? dim(d, mask, -1) : mb_i64(b, 0),
                        mb_i64(b, mask && mask->type->elem == PM_BOOL), strides[0], strides[1], strides[2],
                        step_of(d, op, 4), step_of(d, op, 5), mb_float(b, b->f32, pm_op_f64(op, "scale")),
                        mb_i64(b, pm_op_i64(op, "left")), mb_i64(b, pm_op_i64(op, "right")),
                        mb_float(b, b->f32, pm_op_f64(op, "softcap")),
                        mb_float(b, b->f32, nan ? NAN : 0.0), d->scratch, d->worker, d->n_workers};
    d->status = mb_call(b, "pm_k_sdpa", b->i32, args, PM_COUNT(args));
    return PM_OK;
}

/// ---- recurrences --------------------------------------------------------------------------------------

bool pm_kernel_all_f32(const pm_op *op, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (i < op->n_operands && op->operands[i] && op->operands[i]->type->elem != PM_F32)
            return false;
    return true;
}

pm_status pm_lower_causal_conv(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *state = op->operands[0], *x = op->operands[1];
    if (!pm_kernel_all_f32(op, 4))
        return pm_lower_ref(d);
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), operand(d, op, 3),
                        operand(d, op, 4), pm_emit_pointer(d, op->results[1]), dim(d, x, 0),
                        dim(d, x, 1), dim(d, state, 1), dim(d, state, 2), d->scratch, d->worker,
                        d->n_workers};
    mb_call(b, "pm_k_causal_conv", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

int64_t pm_kernel_decay_kind(const pm_op *op)
{
    if (op->n_operands <= 4 || !op->operands[4])
        return 0;
    const pm_type *decay = op->operands[4]->type, *state = op->operands[0]->type;
    if (decay->rank == 1)
        return 3;
    return pm_dim_same(decay->dims[2], state->dims[1]) ? 1 : 2;
}

pm_status pm_lower_linear_attention(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *state = op->operands[0], *q = op->operands[1], *k = op->operands[2];
    pm_value *beta = op->n_operands > 5 ? op->operands[5] : NULL;
    if (!pm_kernel_all_f32(op, 6))
        return pm_lower_ref(d);
    MlirValue heads = dim(d, state, 1), key_size = dim(d, state, 2), value_size = dim(d, state, 3);
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), operand(d, op, 3),
                        operand(d, op, 4), operand(d, op, 5), operand(d, op, 6),
                        pm_emit_pointer(d, op->results[1]), dim(d, q, 0), dim(d, q, 1), heads,
                        mb_bin(b, "divui", dim(d, q, 2), key_size),
                        mb_bin(b, "divui", dim(d, k, 2), key_size), key_size, value_size,
                        mb_i64(b, pm_kernel_decay_kind(op)), beta ? dim(d, beta, 2) : mb_i64(b, 0),
                        mb_i64(b, pm_op_i64(op, "delta")),
                        mb_float(b, b->f32, pm_op_f64(op, "scale")), d->scratch, d->worker,
                        d->n_workers};
    mb_call(b, "pm_k_linear_attention", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

pm_status pm_lower_selective_scan(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    pm_value *state = op->operands[0], *x = op->operands[1];
    if (!pm_kernel_all_f32(op, 6))
        return pm_lower_ref(d);
    MlirValue args[] = {operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), operand(d, op, 3),
                        operand(d, op, 4), operand(d, op, 5), operand(d, op, 6),
                        pm_emit_pointer(d, op->results[1]), dim(d, x, 0), dim(d, x, 1),
                        dim(d, state, 1), dim(d, state, 2), d->scratch, d->worker, d->n_workers};
    mb_call(b, "pm_k_selective_scan", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

/// ---- mixture of experts -------------------------------------------------------------------------------

int64_t pm_kernel_choice(const pm_op *op, const char *attribute)
{
    static const struct {
        const char *attribute, *words[4];
    } choices[] = {
        {"act", {"softmax", "sigmoid", "sqrtsoftplus", "none"}},
        {"weigh", {"as_is", "softmax", "renorm"}},
        {"group_score", {"max", "top2"}},
        {"select", {"topk", "sparsemixer"}},
    };
    for (size_t i = 0; i < PM_COUNT(choices); i++) {
        if (strcmp(choices[i].attribute, attribute) != 0)
            continue;
        for (size_t k = 0; k < PM_COUNT(choices[i].words) && choices[i].words[k]; k++)
            if (strcmp(pm_op_str(op, attribute), choices[i].words[k]) == 0)
                return (int64_t)k;
    }
    return 0; // the verifier knows the words
}

pm_status pm_lower_route(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && op->operands[i]->type->elem != PM_F32)
            return pm_lower_ref(d);
    MlirValue args[] = {
        operand(d, op, 0), operand(d, op, 1), operand(d, op, 2), pm_emit_pointer(d, op->results[0]),
        pm_emit_pointer(d, op->results[1]), dim(d, op->operands[0], 0), dim(d, op->operands[0], 1),
        mb_i64(b, pm_op_i64(op, "top_k")),
        mb_i64(b, pm_kernel_choice(op, "act")),
        mb_i64(b, pm_kernel_choice(op, "weigh")),
        mb_float(b, b->f32, pm_op_f64(op, "eps")), mb_float(b, b->f32, pm_op_f64(op, "least")),
        mb_float(b, b->f32, pm_op_f64(op, "scale")),
        mb_i64(b, pm_op_i64(op, "groups")), mb_i64(b, pm_op_i64(op, "keep_groups")),
        mb_i64(b, pm_kernel_choice(op, "group_score")),
        mb_i64(b, pm_kernel_choice(op, "select")),
        mb_float(b, b->f32, pm_op_f64(op, "jitter")),
        d->scratch, d->worker, d->n_workers};
    mb_call(b, "pm_k_route", (MlirType){0}, args, PM_COUNT(args));
    return PM_OK;
}

pm_status pm_lower_expert_order(dispatch *d)
{
    mb *b = d->b;
    pm_op *op = d->op;
    MlirValue args[] = {operand(d, op, 0), pm_emit_pointer(d, op->results[0]),
                        pm_emit_pointer(d, op->results[1]), pm_emit_pointer(d, op->results[2]),
                        dim(d, op->operands[0], 0), dim(d, op->operands[0], 1),
                        mb_i64(b, pm_op_i64(op, "experts")), d->worker, d->n_workers};
    d->status = mb_call(b, "pm_k_expert_order", b->i32, args, PM_COUNT(args));
    return PM_OK;
}

pm_status pm_lower_fused(dispatch *d)
{
    const char *kind = pm_op_str(d->op, "kind");
    return strcmp(kind, "loops") == 0 ? pm_lower_loops(d) : pm_lower_linear(d);
}

int64_t pm_emit_scratch_bytes(const pm_op *op)
{
    pm_module *m = op->graph->module;
    int64_t n = 0, k = 0;
    switch (op->code) {
    case PM_OP_attention:
        pm_dim_is_const(m, op->operands[1]->type->dims[3], &k);
        pm_dim_is_const(m, op->operands[2]->type->dims[3], &n);
        return PM_K_ATTENTION_SCRATCH(k > n ? k : n);
    case PM_OP_sdpa:
        if (!pm_kernel_head_size(op->operands[0], pm_op_i64(op, "heads"), &k) ||
            !pm_kernel_head_size(op->operands[2], pm_op_i64(op, "kv_heads"), &n))
            return 0; // runs as reference
        return PM_K_SDPA_SCRATCH(k > n ? k : n);
    case PM_OP_matmul: return PM_K_MATMUL_SCRATCH(k);
    case PM_OP_causal_conv:
        pm_dim_is_const(m, op->operands[0]->type->dims[2], &n);
        return PM_K_CAUSAL_CONV_SCRATCH(n);
    case PM_OP_linear_attention:
        pm_dim_is_const(m, op->operands[0]->type->dims[2], &n);
        return PM_K_LINEAR_ATTENTION_SCRATCH(n);
    case PM_OP_selective_scan:
        pm_dim_is_const(m, op->operands[0]->type->dims[2], &n);
        return PM_K_SELECTIVE_SCAN_SCRATCH(n);
    case PM_OP_route:
        pm_dim_is_const(m, op->operands[0]->type->dims[1], &n);
        return PM_K_ROUTE_SCRATCH(n);
    default: return 0;
    }
}
