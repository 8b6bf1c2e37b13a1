/// Launches of norms, softmax, routing, rotary positions, caches and recurrences.
#include "codegen/mlir/launch_plan.h"
#include "codegen/mlir/lowerings.h"

enum { SHORT_ROW = 512, ROWS_OF_BLOCK = 8, BLOCK = 256 }; ///< as codegen/cuda/kernels/cu_rows.c has them

static const pm_value *operand(const launch *l, uint32_t i)
{
    return i < l->op->n_operands ? l->op->operands[i] : NULL;
}

static bool known(const launch *l, const pm_value *v, int32_t i, int64_t *out)
{
    return pm_dim_is_const(l->n->e->module, v->type->dims[i < 0 ? v->type->rank + i : i], out);
}

static void results(launch *l)
{
    for (uint32_t i = 0; i < l->op->n_results; i++)
        pm_launch_value(l, l->op->results[i]);
}

/// Blocks for so many threads.
static void threads(launch *l, MlirValue n, int64_t of_block)
{
    pm_launch_blocks(l, pm_launch_ceil_div(l, n, of_block));
}

/// ---- rows -------------------------------------------------------------------------------------------------

/// Rows of the last axis: a block for each, or a warp for those known to be short.
static void use_rows(launch *l, const pm_value *x, const char *template_name, const char *short_name, bool *out_short)
{
    int64_t columns;
    *out_short = known(l, x, -1, &columns) && columns <= SHORT_ROW;
    pm_launch_use(l, *out_short ? short_name : template_name);
}

pm_status pm_plan_norm(launch *l)
{
    const pm_value *x = operand(l, 0);
    bool is_short;
    if (!pm_kernel_all_f32(l->op, 3))
        return PM_ERR_UNSUPPORTED;
    use_rows(l, x, "norm", "norm_short", &is_short);
    for (uint32_t i = 0; i < 3; i++)
        pm_launch_operand(l, i);
    results(l);
    MlirValue rows = pm_launch_count_of(l, x, 0, -1);
    pm_launch_i64(l, rows);
    pm_launch_dim(l, x, -1, "COLUMNS");
    pm_launch_f64(l, pm_op_f64(l->op, "eps"));
    pm_launch_fix(l, "CENTRED", l->op->code == PM_OP_layer_norm);
    threads(l, rows, is_short ? ROWS_OF_BLOCK : 1);
    return PM_OK;
}

pm_status pm_plan_softmax(launch *l)
{
    const pm_value *x = operand(l, 0);
    int64_t axis = pm_op_i64(l->op, "axis");
    bool is_short;
    if (x->type->elem != PM_F32 || x->type->rank < 1 || (axis != -1 && axis != x->type->rank - 1))
        return PM_ERR_UNSUPPORTED;
    use_rows(l, x, "softmax", "softmax_short", &is_short);
    pm_launch_operand(l, 0);
    results(l);
    MlirValue rows = pm_launch_count_of(l, x, 0, -1);
    pm_launch_i64(l, rows);
    pm_launch_dim(l, x, -1, "COLUMNS");
    pm_launch_fix(l, "LOG", pm_op_i64(l->op, "log"));
    threads(l, rows, is_short ? ROWS_OF_BLOCK : 1);
    return PM_OK;
}

pm_status pm_plan_gather_rows(launch *l)
{
    const pm_value *x = operand(l, 0), *out = l->op->results[0];
    int64_t columns, word = 4, size = (int64_t)pm_elem_size(x->type->elem);
    if (!known(l, x, 1, &columns) || columns * size % word != 0)
        return PM_ERR_UNSUPPORTED;
    pm_launch_use(l, "gather_rows");
    pm_launch_operand(l, 0);
    pm_launch_operand(l, 1);
    results(l);
    pm_launch_dim(l, out, 0, NULL);
    pm_launch_fix(l, "WORDS", columns * size / word);
    pm_launch_dim(l, x, 0, NULL);
    pm_launch_status(l);
    pm_launch_blocks(l, pm_launch_dim_of(l, out, 0));
    return PM_OK;
}

pm_status pm_plan_combine(launch *l)
{
    const pm_value *y = operand(l, 0), *slot = operand(l, 1);
    if (y->type->elem != PM_F32)
        return PM_ERR_UNSUPPORTED;
    pm_launch_use(l, "combine");
    for (uint32_t i = 0; i < 3; i++)
        pm_launch_operand(l, i);
    results(l);
    pm_launch_dim(l, slot, 0, NULL);
    pm_launch_dim(l, slot, 1, "TOP_K");
    pm_launch_dim(l, y, 1, "COLUMNS");
    pm_launch_dim(l, y, 0, NULL);
    pm_launch_status(l);
    pm_launch_blocks(l, mb_mul(l->b, pm_launch_dim_of(l, slot, 0),
                               pm_launch_ceil_div(l, pm_launch_dim_of(l, y, 1), BLOCK)));
    return PM_OK;
}

/// ---- experts ----------------------------------------------------------------------------------------------

pm_status pm_plan_route(launch *l)
{
    enum { MOST_EXPERTS = 1024 };
    static const char *const choices[][2] = {{"ACT", "act"}, {"WEIGH", "weigh"}};
    pm_op *op = l->op;
    const pm_value *scores = operand(l, 0);
    int64_t experts;
    if (!pm_kernel_all_f32(op, 3) || !known(l, scores, 1, &experts) || experts > MOST_EXPERTS)
        return PM_ERR_UNSUPPORTED;
    pm_launch_use(l, "route");
    for (uint32_t i = 0; i < 3; i++)
        pm_launch_operand(l, i);
    results(l);
    pm_launch_dim(l, scores, 0, NULL);
    pm_launch_fix(l, "EXPERTS", experts);
    pm_launch_fix(l, "TOP_K", pm_op_i64(op, "top_k"));
    for (size_t i = 0; i < PM_COUNT(choices); i++)
        pm_launch_fix(l, choices[i][0], pm_kernel_choice(op, choices[i][1]));
    pm_launch_f64(l, pm_op_f64(op, "eps"));
    pm_launch_f64(l, pm_op_f64(op, "least"));
    pm_launch_f64(l, pm_op_f64(op, "scale"));
    pm_launch_fix(l, "GROUPS", pm_op_i64(op, "groups"));
    pm_launch_fix(l, "KEEP_GROUPS", pm_op_i64(op, "keep_groups"));
    pm_launch_fix(l, "GROUP_SCORE", pm_kernel_choice(op, "group_score"));
    pm_launch_fix(l, "SELECT", pm_kernel_choice(op, "select"));
    pm_launch_f64(l, pm_op_f64(op, "jitter"));
    pm_launch_blocks(l, pm_launch_dim_of(l, scores, 0));
    return PM_OK;
}

pm_status pm_plan_expert_order(launch *l)
{
    enum { MOST_EXPERTS = 8192 };
    int64_t experts = pm_op_i64(l->op, "experts");
    const pm_value *expert = operand(l, 0);
    if (experts > MOST_EXPERTS || expert->type->elem != PM_I32)
        return PM_ERR_UNSUPPORTED;
    pm_launch_use(l, "expert_order");
    pm_launch_operand(l, 0);
    results(l);
    pm_launch_dim(l, expert, 0, NULL);
    pm_launch_dim(l, expert, 1, "TOP_K");
    pm_launch_fix(l, "EXPERTS", experts);
    pm_launch_status(l);
    pm_launch_blocks(l, mb_i64(l->b, 1));
    return PM_OK;
}

/// ---- positions and caches ---------------------------------------------------------------------------------

pm_status pm_plan_rope_table(launch *l)
{
    const pm_value *out = l->op->results[0], *inv_freq = operand(l, 1);
    if (out->type->elem != PM_F32 || inv_freq->type->elem != PM_F32)
        return PM_ERR_UNSUPPORTED;
    pm_launch_use(l, "rope_table");
    pm_launch_operand(l, 0);
    pm_launch_operand(l, 1);
    results(l);
    pm_launch_dim(l, out, 0, NULL);
    pm_launch_dim(l, out, 1, NULL);
    pm_launch_dim(l, inv_freq, 0, "HALF");
    pm_launch_f64(l, pm_op_f64(l->op, "scale"));
    threads(l, mb_mul(l->b, pm_launch_count_of(l, out, 0, 2), pm_launch_dim_of(l, inv_freq, 0)), BLOCK);
    return PM_OK;
}

pm_status pm_plan_rope(launch *l)
{
    mb *b = l->b;
    pm_op *op = l->op;
    const pm_value *x = operand(l, 0), *table = operand(l, 1);
    int64_t head_dim = pm_op_i64(op, "head_dim"), turned, width;
    if (!pm_kernel_all_f32(op, 2) || !known(l, table, 2, &turned) || !known(l, x, 2, &width))
        return PM_ERR_UNSUPPORTED;
    MlirValue rows = pm_launch_count_of(l, x, 0, 2);
    pm_launch_use(l, "rope");
    pm_launch_operand(l, 0);
    pm_launch_operand(l, 1);
    results(l);
    pm_launch_i64(l, rows);
    pm_launch_const(l, width / head_dim);
    pm_launch_fix(l, "HEAD_DIM", head_dim);
    pm_launch_fix(l, "HALF", turned / 2);
    pm_launch_fix(l, "OFFSET", pm_op_i64(op, "offset"));
    pm_launch_fix(l, "INTERLEAVED", pm_op_i64(op, "interleaved"));
    threads(l, mb_mul(b, rows, mb_i64(b, width / head_dim * (head_dim - turned / 2))), BLOCK);
    return PM_OK;
}

pm_status pm_plan_cache(launch *l)
{
    enum { KEY_BLOCK = 16 };
    mb *b = l->b;
    const pm_value *cache = operand(l, 0), *rows = operand(l, 1);
    bool is_key = l->op->code == PM_OP_cache_key;
    if (!pm_kernel_all_f32(l->op, 2))
        return PM_ERR_UNSUPPORTED;
    MlirValue t = pm_launch_dim_of(l, rows, 1);
    MlirValue heads = mb_mul(b, pm_launch_dim_of(l, cache, 0), pm_launch_dim_of(l, cache, 1));
    MlirValue capacity = mb_mul(b, pm_launch_dim_of(l, cache, 2), mb_i64(b, is_key ? KEY_BLOCK : 1));
    pm_launch_use(l, is_key ? "cache_key" : "cache_value");
    for (uint32_t i = 0; i < 3; i++)
        pm_launch_operand(l, i);
    pm_launch_dim(l, rows, 0, NULL);
    pm_launch_i64(l, t);
    pm_launch_dim(l, cache, 1, "KV_HEADS");
    pm_launch_dim(l, cache, 3, "HEAD_DIM");
    pm_launch_i64(l, capacity);
    pm_launch_status(l);
    MlirValue pieces = is_key ? mb_add(b, mb_bin(b, "divui", t, mb_i64(b, KEY_BLOCK)), mb_i64(b, 2)) : t;
    pm_launch_blocks(l, mb_mul(b, heads, pieces));
    return PM_OK;
}

/// 1, or 0 where one number is that of all sequences.
static MlirValue step_of(launch *l, const pm_value *numbers)
{
    mb *b = l->b;
    MlirValue one = mb_i64(b, 1), none = mb_i64(b, 0);
    return numbers ? mb_select(b, mb_cmpi(b, "eq", pm_launch_dim_of(l, numbers, 0), one), none, one) : none;
}

pm_status pm_plan_kv_append(launch *l)
{
    const pm_value *rows = operand(l, 0), *past = operand(l, 3), *out = l->op->results[0];
    bool apart = rows->type->rank == 4;
    if (rows->type->elem != PM_F32)
        return PM_ERR_UNSUPPORTED;
    pm_launch_use(l, "kv_append");
    pm_launch_operand(l, 0);
    pm_launch_operand(l, 1);
    pm_launch_i64(l, step_of(l, operand(l, 1)));
    pm_launch_operand(l, 3);
    results(l);
    pm_launch_dim(l, out, 0, NULL);
    pm_launch_dim(l, rows, apart ? 2 : 1, NULL);
    pm_launch_dim(l, out, 1, "KV_HEADS");
    pm_launch_dim(l, out, 3, "SIZE");
    if (past)
        pm_launch_dim(l, past, 2, NULL);
    else
        pm_launch_const(l, 0);
    pm_launch_dim(l, out, 2, NULL);
    pm_launch_fix(l, "APART", apart);
    pm_launch_status(l);
    pm_launch_blocks(l, pm_launch_count_of(l, out, 0, 3));
    return PM_OK;
}

/// ---- recurrences: the state is the operand and the result ---------------------------------------------------

/// Pushes the operands, y, sequences and tokens.
static void recurrence(launch *l, const char *template_name, uint32_t n_operands)
{
    const pm_value *x = operand(l, 1);
    pm_launch_use(l, template_name);
    for (uint32_t i = 0; i < n_operands; i++)
        pm_launch_operand(l, i);
    pm_launch_value(l, l->op->results[1]);
    pm_launch_dim(l, x, 0, NULL);
    pm_launch_dim(l, x, 1, NULL);
}

/// Blocks of so many channels of each sequence.
static void channel_blocks(launch *l, int64_t channels)
{
    const pm_value *state = operand(l, 0);
    MlirValue pieces = pm_launch_ceil_div(l, pm_launch_dim_of(l, state, 1), channels);
    pm_launch_blocks(l, mb_mul(l->b, pm_launch_dim_of(l, state, 0), pieces));
}

pm_status pm_plan_causal_conv(launch *l)
{
    enum { CHANNELS_OF_BLOCK = 32 };
    if (!pm_kernel_all_f32(l->op, 4))
        return PM_ERR_UNSUPPORTED;
    recurrence(l, "causal_conv", 5);
    pm_launch_dim(l, operand(l, 0), 1, "CHANNELS");
    pm_launch_dim(l, operand(l, 0), 2, "BEFORE");
    channel_blocks(l, CHANNELS_OF_BLOCK);
    return PM_OK;
}

pm_status pm_plan_linear_attention(launch *l)
{
    enum { COLUMNS_OF_BLOCK = 16, MOST_KEY = 256 };
    mb *b = l->b;
    pm_op *op = l->op;
    const pm_value *state = operand(l, 0), *beta = operand(l, 5);
    int64_t key_size, q_width, k_width, beta_heads = 0;
    if (!pm_kernel_all_f32(op, 6) || !known(l, state, 2, &key_size) || key_size < 1 || key_size > MOST_KEY ||
        !known(l, operand(l, 1), 2, &q_width) || !known(l, operand(l, 2), 2, &k_width) ||
        (beta && !known(l, beta, 2, &beta_heads)))
        return PM_ERR_UNSUPPORTED;
    recurrence(l, "linear_attention", 7);
    pm_launch_dim(l, state, 1, "HEADS");
    pm_launch_fix(l, "Q_HEADS", q_width / key_size);
    pm_launch_fix(l, "K_HEADS", k_width / key_size);
    pm_launch_fix(l, "KEY_SIZE", key_size);
    pm_launch_dim(l, state, 3, "VALUE_SIZE");
    pm_launch_fix(l, "DECAY_KIND", pm_kernel_decay_kind(op));
    pm_launch_fix(l, "BETA_HEADS", beta_heads);
    pm_launch_fix(l, "DELTA", pm_op_i64(op, "delta"));
    pm_launch_f64(l, pm_op_f64(op, "scale"));
    MlirValue pieces = pm_launch_ceil_div(l, pm_launch_dim_of(l, state, 3), COLUMNS_OF_BLOCK);
    pm_launch_blocks(l, mb_mul(b, pm_launch_count_of(l, state, 0, 2), pieces));
    return PM_OK;
}

pm_status pm_plan_selective_scan(launch *l)
{
    enum { CHANNELS_OF_BLOCK = 64, MOST_SIZE = 64 };
    int64_t size;
    if (!pm_kernel_all_f32(l->op, 6) || !known(l, operand(l, 0), 2, &size) || size < 1 || size > MOST_SIZE)
        return PM_ERR_UNSUPPORTED;
    recurrence(l, "selective_scan", 7);
    pm_launch_dim(l, operand(l, 0), 1, "CHANNELS");
    pm_launch_fix(l, "SIZE", size);
    channel_blocks(l, CHANNELS_OF_BLOCK);
    return PM_OK;
}
