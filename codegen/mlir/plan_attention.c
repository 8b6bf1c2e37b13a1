/// Launches of attention: few tokens of a sequence by blocks that split the keys and others that put the parts
/// together, many by blocks that have all keys of a tile of rows.
#include <math.h>
#include <string.h>

#include "codegen/mlir/launch_plan.h"
#include "codegen/mlir/lowerings.h"
#include "runtime/runtime_abi.h"

/* as codegen/cuda/kernels/cu_attention_split.h and _tile.h have them */
enum { FEW_TOKENS = 4, SPLIT_KEYS = 256, SPLIT_ROWS = 8, TILE_ROWS = 64, TILE_COLUMNS = 256, PARTIAL_EXTRA = 2 };
enum { FLASH_MOST_HEAD = 256, FLASH_WIDE_HEAD = 128, FLASH_COLUMNS = 128 }; ///< cu_attention_mma.h; its tiles have TILE_ROWS, too

/// An op attention or sdpa.
typedef struct attending {
    launch *l;
    int64_t heads, kv_heads, head_dim, value_dim;
    MlirValue batch, t, keys; ///< keys: those that there is room for
    void (*push)(const struct attending *a, MlirValue batch); ///< all words but those of partial results
    const char *split, *join, *tile, *bf16; ///< templates
} attending;

static const pm_value *operand(const launch *l, uint32_t i)
{
    return i < l->op->n_operands ? l->op->operands[i] : NULL;
}

static bool known(const launch *l, const pm_value *v, int32_t i, int64_t *out)
{
    return pm_dim_is_const(l->n->e->module, v->type->dims[i < 0 ? v->type->rank + i : i], out);
}

static MlirValue scaled(launch *l, MlirValue x, int64_t by)
{
    return mb_mul(l->b, x, mb_i64(l->b, by));
}

/// As many sequences at a time as there is room for the parts of: the same parts whatever the batch.
static void plan_split(const attending *a, MlirValue batch, MlirValue at_a_time, MlirValue splits)
{
    launch *l = a->l;
    mb *b = l->b;
    mb_loop loop;
    int64_t group = a->heads / a->kv_heads, rows = group < SPLIT_ROWS ? group : SPLIT_ROWS;
    MlirValue scratch = pm_launch_scratch(l);
    MlirValue partial = mb_op(b, "llvm.ptrtoint", b->i64, &scratch, 1, NULL, 0);
    mb_for_begin(b, &loop, mb_i64(b, 0), batch, at_a_time, NULL, 0);
    MlirValue n = mb_bin(b, "minsi", at_a_time, mb_sub(b, batch, loop.index));
    for (int32_t step = 0; step < 2; step++) {
        pm_launch_use(l, step == 0 ? a->split : a->join);
        a->push(a, n);
        pm_launch_i64(l, partial);
        pm_launch_i64(l, loop.index);
        MlirValue tiles = pm_launch_ceil_div(l, scaled(l, a->t, group), rows);
        MlirValue blocks = step == 0 ? mb_mul(b, scaled(l, tiles, a->kv_heads), splits) : scaled(l, a->t, a->heads);
        pm_launch_blocks(l, mb_mul(b, n, blocks));
        pm_launch_finish(l);
    }
    mb_for_end(b, &loop, NULL, NULL);
}

static pm_status plan(const attending *a, const pm_value *q, int32_t token_dim)
{
    launch *l = a->l;
    mb *b = l->b;
    int64_t t, room = pm_emit_scratch_bytes(l->op) * PM_RT_DEVICE_WORKERS;
    bool t_known = known(l, q, token_dim, &t);
    MlirValue one = mb_i64(b, 1), none = mb_i64(b, 0), is_few = {0};
    MlirValue rows = scaled(l, a->t, a->heads / a->kv_heads);
    bool rounds = pm_op_attr(l->op, "compute")->i == PM_BF16 && a->head_dim <= FLASH_MOST_HEAD;
    int64_t columns = !rounds ? TILE_COLUMNS : a->head_dim > FLASH_WIDE_HEAD ? FLASH_COLUMNS / 2 : FLASH_COLUMNS;
    MlirValue pieces = mb_i64(b, (a->value_dim + columns - 1) / columns);
    MlirValue tiles = mb_mul(b, mb_mul(b, a->batch, scaled(l, pm_launch_ceil_div(l, rows, TILE_ROWS), a->kv_heads)), pieces);
    bool may_be_few = !t_known || t <= FEW_TOKENS;
    if (may_be_few) {
        MlirValue splits = pm_launch_ceil_div(l, a->keys, SPLIT_KEYS);
        MlirValue parts = mb_mul(b, scaled(l, a->t, a->heads), splits);
        MlirValue bytes = mb_bin(b, "maxsi", scaled(l, parts, (a->value_dim + PARTIAL_EXTRA) * 4), one);
        MlirValue at_a_time = mb_bin(b, "divui", mb_i64(b, room), bytes);
        is_few = mb_bin(b, "andi", mb_cmpi(b, "sle", a->t, mb_i64(b, FEW_TOKENS)), mb_cmpi(b, "sge", at_a_time, one));
        plan_split(a, mb_select(b, is_few, a->batch, none), mb_bin(b, "maxsi", at_a_time, one), splits);
    }
    pm_launch_use(l, rounds ? a->bf16 : a->tile);
    a->push(a, a->batch);
    pm_launch_blocks(l, may_be_few ? mb_select(b, is_few, none, tiles) : tiles);
    return PM_OK;
}

static void push_heads(const attending *a)
{
    pm_launch_fix(a->l, "HEADS", a->heads);
    pm_launch_fix(a->l, "KV_HEADS", a->kv_heads);
    pm_launch_fix(a->l, "HEAD_DIM", a->head_dim);
    pm_launch_fix(a->l, "VALUE_DIM", a->value_dim);
}

static void fix_f64(launch *l, const char *name, double value)
{
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    pm_launch_fix(l, name, bits);
}

/// ---- to caches --------------------------------------------------------------------------------------------

static void push_cached(const attending *a, MlirValue batch)
{
    launch *l = a->l;
    pm_op *op = l->op;
    const pm_value *bias = operand(l, 5);
    for (uint32_t i = 0; i < 5; i++)
        pm_launch_operand(l, i);
    pm_launch_value(l, op->results[0]);
    pm_launch_i64(l, batch);
    pm_launch_i64(l, a->t);
    push_heads(a);
    pm_launch_i64(l, a->keys);
    pm_launch_f64(l, pm_op_f64(op, "scale"));
    pm_launch_fix(l, "WINDOW", pm_op_i64(op, "window"));
    pm_launch_fix(l, "CHUNK", pm_op_i64(op, "chunk"));
    fix_f64(l, "SOFTCAP", pm_op_f64(op, "softcap"));
    pm_launch_operand(l, 5);
    if (bias)
        pm_launch_dim(l, bias, 1, "REACH");
    else
        pm_launch_fix(l, "REACH", 0);
    pm_launch_fix(l, "CAUSAL", pm_op_i64(op, "causal"));
    pm_launch_status(l);
}

pm_status pm_plan_attention(launch *l)
{
    enum { KEY_BLOCK = 16 };
    pm_op *op = l->op;
    const pm_value *q = operand(l, 0), *keys = operand(l, 1), *values = operand(l, 2);
    attending a = {.l = l, .heads = pm_op_i64(op, "heads"), .kv_heads = pm_op_i64(op, "kv_heads"),
                   .push = push_cached, .split = "attention_split", .join = "attention_join",
                   .tile = "attention_tile", .bf16 = "attention_bf16"};
    const pm_value *sinks = operand(l, 4), *bias = operand(l, 5);
    if (!pm_kernel_all_f32(op, 3) || (sinks && sinks->type->elem != PM_F32) || (bias && bias->type->elem != PM_F32) ||
        !known(l, keys, 3, &a.head_dim) || !known(l, values, 3, &a.value_dim) || a.value_dim < 1)
        return PM_ERR_UNSUPPORTED;
    a.batch = pm_launch_dim_of(l, q, 0);
    a.t = pm_launch_dim_of(l, q, 1);
    a.keys = scaled(l, pm_launch_dim_of(l, keys, 2), KEY_BLOCK);
    return plan(&a, q, 1);
}

/// ---- to whole tensors -------------------------------------------------------------------------------------

/// A stride along dim `axis` of a value: 0 where that is 1 and so broadcast.
static MlirValue stride_along(launch *l, const pm_value *v, int32_t axis, MlirValue stride)
{
    mb *b = l->b;
    return mb_select(b, mb_cmpi(b, "eq", pm_launch_dim_of(l, v, axis), mb_i64(b, 1)), mb_i64(b, 0), stride);
}

static MlirValue step_of(launch *l, const pm_value *numbers)
{
    return numbers ? stride_along(l, numbers, 0, mb_i64(l->b, 1)) : mb_i64(l->b, 0);
}

/// Keys of the mask, whether it's of bools, its strides over sequences, heads and queries.
static void push_mask(launch *l, const pm_value *mask)
{
    mb *b = l->b;
    MlirValue none = mb_i64(b, 0), stride = mask ? pm_launch_dim_of(l, mask, -1) : none, strides[3] = {none, none, none};
    pm_launch_i64(l, stride);
    pm_launch_fix(l, "IS_BOOL", mask && mask->type->elem == PM_BOOL);
    for (int32_t i = 2; i >= 0; i--) {
        int32_t axis = mask ? mask->type->rank - 4 + i : -1;
        if (axis < 0)
            continue;
        strides[i] = stride_along(l, mask, axis, stride);
        stride = mb_mul(b, stride, pm_launch_dim_of(l, mask, axis));
    }
    for (int32_t i = 0; i < 3; i++)
        pm_launch_i64(l, strides[i]);
}

static bool is_apart(const launch *l, uint32_t i)
{
    return operand(l, i)->type->rank == 4;
}

static void push_whole(const attending *a, MlirValue batch)
{
    launch *l = a->l;
    pm_op *op = l->op;
    for (uint32_t i = 0; i < 7; i++)
        pm_launch_operand(l, i);
    pm_launch_value(l, op->results[0]);
    pm_launch_i64(l, batch);
    pm_launch_i64(l, a->t);
    pm_launch_i64(l, a->keys);
    push_heads(a);
    pm_launch_fix(l, "APART", (is_apart(l, 0) ? 1 : 0) | (is_apart(l, 1) ? 2 : 0) | (is_apart(l, 2) ? 4 : 0));
    push_mask(l, operand(l, 3));
    pm_launch_i64(l, step_of(l, operand(l, 4)));
    pm_launch_i64(l, step_of(l, operand(l, 5)));
    pm_launch_f64(l, pm_op_f64(op, "scale"));
    pm_launch_fix(l, "LEFT", pm_op_i64(op, "left"));
    pm_launch_fix(l, "RIGHT", pm_op_i64(op, "right"));
    fix_f64(l, "SOFTCAP", pm_op_f64(op, "softcap"));
    pm_launch_f64(l, strcmp(pm_op_str(op, "unseen"), "nan") == 0 ? (double)NAN : 0.0);
    pm_launch_status(l);
}

pm_status pm_plan_sdpa(launch *l)
{
    pm_op *op = l->op;
    const pm_value *q = operand(l, 0), *mask = operand(l, 3), *sinks = operand(l, 6);
    attending a = {.l = l, .heads = pm_op_i64(op, "heads"), .kv_heads = pm_op_i64(op, "kv_heads"),
                   .push = push_whole, .split = "sdpa_split", .join = "sdpa_join", .tile = "sdpa_tile",
                   .bf16 = "sdpa_bf16"};
    if (!pm_kernel_all_f32(op, 3) || (sinks && sinks->type->elem != PM_F32) ||
        (mask && mask->type->elem != PM_F32 && mask->type->elem != PM_BOOL) ||
        !pm_kernel_head_size(q, a.heads, &a.head_dim) ||
        !pm_kernel_head_size(operand(l, 2), a.kv_heads, &a.value_dim) || a.value_dim < 1)
        return PM_ERR_UNSUPPORTED;
    a.batch = pm_launch_dim_of(l, q, 0);
    a.t = pm_launch_dim_of(l, q, is_apart(l, 0) ? 2 : 1);
    a.keys = pm_launch_dim_of(l, operand(l, 1), is_apart(l, 1) ? 2 : 1);
    return plan(&a, q, is_apart(l, 0) ? 2 : 1);
}
