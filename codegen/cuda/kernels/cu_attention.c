/* Attention over key-value caches and over whole tensors: kernels for few rows (split, join) and for many (tile). */
#include "codegen/cuda/kernels/cu_attention_mma.h"
#include "codegen/cuda/kernels/cu_attention_split.h"
#include "codegen/cuda/kernels/cu_attention_tile.h"

/* ---- the two ops as one ----------------------------------------------------------------------------------- */

#define CU_CACHE_ARGS                                                                                          \
    const float *q, const float *key_cache, const float *value_cache, const int64_t *past, const float *sinks, \
        float *out, int64_t batch, int64_t t, int64_t heads, int64_t kv_heads, int64_t head_dim,               \
        int64_t value_dim, int64_t capacity, int64_t scale, int64_t window, int64_t chunk, int64_t softcap,    \
        const float *bias, int64_t reach, int64_t causal, int32_t *status, int64_t mark

/// Op attention's call; what it sees of sequence b and key-value head `head`. Returns 0 when the sequence's past
/// doesn't fit its cache.
PM_DEVICE int32_t of_cache(cu_attention *a, cu_sight *s, int64_t b, int64_t head, CU_CACHE_ARGS)
{
    int64_t is_causal = PM_FIXED(CAUSAL, causal), past_of = past[b];
    a->q = q;
    a->k = key_cache;
    a->v = value_cache;
    a->added = bias;
    a->sinks = sinks;
    a->out = out;
    a->batch = batch;
    a->t = t;
    a->heads = PM_FIXED(HEADS, heads);
    a->kv_heads = PM_FIXED(KV_HEADS, kv_heads);
    a->group = a->heads / a->kv_heads;
    a->rows = t * a->group;
    a->head_dim = PM_FIXED(HEAD_DIM, head_dim);
    a->value_dim = PM_FIXED(VALUE_DIM, value_dim);
    a->q_token = a->heads;
    a->q_head = 1;
    a->q_batch = t * a->heads;
    a->k_row = 0;
    a->k_head = capacity * a->head_dim;
    a->k_batch = a->kv_heads * a->k_head;
    a->v_row = a->value_dim;
    a->v_head = capacity * a->value_dim;
    a->v_batch = a->kv_heads * a->v_head;
    a->reach = PM_FIXED(REACH, reach);
    a->add_kind = a->reach > 0 ? CU_ADD_DISTANCE : CU_ADD_NONE;
    a->mask_batch = a->mask_head = a->mask_row = 0;
    a->left = PM_FIXED(WINDOW, window) - 1; /* no window: no bound */
    a->right = is_causal ? 0 : -1;
    a->chunk = PM_FIXED(CHUNK, chunk);
    a->scale = (float)PM_WORD_F64(scale);
    a->softcap = (float)PM_WORD_F64(PM_FIXED(SOFTCAP, softcap));
    a->nothing = PM_NAN;
    s->b = b;
    s->head = head;
    s->position = is_causal ? past_of : past_of - 1;
    s->step = is_causal;
    s->limit = is_causal ? past_of + t : past_of;
    s->origin = is_causal ? past_of : 0;
    if (past_of >= 0 && past_of <= capacity - (is_causal ? t : 0))
        return 1;
    if (pm_thread() == 0)
        pm_fail(status, mark);
    return 0;
}

#define CU_CACHE_NAMES                                                                                         \
    q, key_cache, value_cache, past, sinks, out, batch, t, heads, kv_heads, head_dim, value_dim, capacity,     \
        scale, window, chunk, softcap, bias, reach, causal, status, mark

#define CU_SDPA_ARGS                                                                                           \
    const float *q, const float *k, const float *v, const void *mask, const int64_t *past,                     \
        const int64_t *total, const float *sinks, float *out, int64_t batch, int64_t t, int64_t keys,          \
        int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t value_dim, int64_t apart, int64_t masked,   \
        int64_t is_bool, int64_t mask_batch, int64_t mask_head, int64_t mask_row, int64_t past_step,           \
        int64_t total_step, int64_t scale, int64_t left, int64_t right, int64_t softcap, int64_t nothing,      \
        int32_t *status, int64_t mark

/// Op sdpa's call, likewise; see pm_k_sdpa for the arguments. Returns 0 when the numbers don't fit the keys.
PM_DEVICE int32_t of_sdpa(cu_attention *a, cu_sight *s, int64_t b, int64_t head, CU_SDPA_ARGS)
{
    const int64_t far = (int64_t)1 << 61; /* beyond every key */
    int64_t lies = PM_FIXED(APART, apart), first = past ? past[b * past_step] : 0;
    int64_t there = total ? total[b * total_step] : keys;
    a->q = q;
    a->k = k;
    a->v = v;
    a->added = mask;
    a->sinks = sinks;
    a->out = out;
    a->batch = batch;
    a->t = t;
    a->heads = PM_FIXED(HEADS, heads);
    a->kv_heads = PM_FIXED(KV_HEADS, kv_heads);
    a->group = a->heads / a->kv_heads;
    a->rows = t * a->group;
    a->head_dim = PM_FIXED(HEAD_DIM, head_dim);
    a->value_dim = PM_FIXED(VALUE_DIM, value_dim);
    a->q_token = lies & 1 ? 1 : a->heads;
    a->q_head = lies & 1 ? t : 1;
    a->q_batch = t * a->heads;
    a->k_row = lies & 2 ? a->head_dim : a->kv_heads * a->head_dim;
    a->k_head = lies & 2 ? keys * a->head_dim : a->head_dim;
    a->k_batch = keys * a->kv_heads * a->head_dim;
    a->v_row = lies & 4 ? a->value_dim : a->kv_heads * a->value_dim;
    a->v_head = lies & 4 ? keys * a->value_dim : a->value_dim;
    a->v_batch = keys * a->kv_heads * a->value_dim;
    a->reach = 0;
    a->add_kind = !mask ? CU_ADD_NONE : PM_FIXED(IS_BOOL, is_bool) ? CU_ADD_BOOLS : CU_ADD_FLOATS;
    a->mask_batch = mask_batch;
    a->mask_head = mask_head;
    a->mask_row = mask_row;
    a->left = pm_cu_min(PM_FIXED(LEFT, left), far);
    a->right = pm_cu_min(PM_FIXED(RIGHT, right), far);
    a->chunk = 0;
    a->scale = (float)PM_WORD_F64(scale);
    a->softcap = (float)PM_WORD_F64(PM_FIXED(SOFTCAP, softcap));
    a->nothing = (float)PM_WORD_F64(nothing);
    s->b = b;
    s->head = head;
    s->position = first;
    s->step = 1;
    s->limit = mask ? pm_cu_min(there, masked) : there;
    s->origin = 0;
    if (first <= far && first >= -far && there >= 0 && there <= keys && (!mask || masked <= keys))
        return 1;
    if (pm_thread() == 0)
        pm_fail(status, mark);
    return 0;
}

#define CU_SDPA_NAMES                                                                                          \
    q, k, v, mask, past, total, sinks, out, batch, t, keys, heads, kv_heads, head_dim, value_dim, apart,       \
        masked, is_bool, mask_batch, mask_head, mask_row, past_step, total_step, scale, left, right, softcap,  \
        nothing, status, mark

/* ---- kernels ------------------------------------------------------------------------------------------------ */

/// What a block has to do: blocks are numbered by sequence, key-value head, tile of rows, and last `inner`.
typedef struct cu_unit {
    int64_t b, head, tile, inner;
} cu_unit;

/// Returns 0 for a block that isn't needed.
PM_DEVICE int32_t unit_of(int64_t batch, int64_t kv_heads, int64_t rows, int64_t tile_rows, int64_t inner,
                                cu_unit *out)
{
    int64_t tiles = pm_cu_ceil_div(rows, tile_rows), unit = pm_block() / inner;
    if (unit >= batch * kv_heads * tiles)
        return 0;
    out->inner = pm_block() % inner;
    out->tile = unit % tiles;
    out->head = unit / tiles % kv_heads;
    out->b = unit / tiles / kv_heads;
    return 1;
}

/* Few rows: one block for each CU_SPLIT_KEYS keys (of `capacity`, or `keys`), pm_cu_split_rows rows, key-value
 * head, sequence. partial: for each row of each head (value_dim + 2) floats for each split. Sequences
 * first … first + batch, of which a launch has as many as there is room for. */
PM_GLOBAL void pm_cu_attention_split(CU_CACHE_ARGS, float *partial, int64_t first)
{
    PM_SHARED(cu_split_shared, shared, 1);
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t splits = pm_cu_ceil_div(capacity, CU_SPLIT_KEYS), kv = PM_FIXED(KV_HEADS, kv_heads);
    int64_t group = PM_FIXED(HEADS, heads) / kv, rows = pm_cu_split_rows(group);
    if (unit_of(batch, kv, t * group, rows, splits, &u) &&
        of_cache(&a, &s, u.b + first, u.head, CU_CACHE_NAMES)) {
        s.place = u.b * kv + u.head;
        pm_cu_split(&a, &s, shared, u.tile * rows, u.inner, splits, partial);
    }
}

PM_GLOBAL void pm_cu_sdpa_split(CU_SDPA_ARGS, float *partial, int64_t first)
{
    PM_SHARED(cu_split_shared, shared, 1);
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t splits = pm_cu_ceil_div(keys, CU_SPLIT_KEYS), kv = PM_FIXED(KV_HEADS, kv_heads);
    int64_t group = PM_FIXED(HEADS, heads) / kv, rows = pm_cu_split_rows(group);
    if (unit_of(batch, kv, t * group, rows, splits, &u) &&
        of_sdpa(&a, &s, u.b + first, u.head, CU_SDPA_NAMES)) {
        s.place = u.b * kv + u.head;
        pm_cu_split(&a, &s, shared, u.tile * rows, u.inner, splits, partial);
    }
}

/* The second half: a block for each row of each head. */
PM_GLOBAL void pm_cu_attention_join(CU_CACHE_ARGS, float *partial, int64_t first)
{
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t splits = pm_cu_ceil_div(capacity, CU_SPLIT_KEYS), kv = PM_FIXED(KV_HEADS, kv_heads);
    if (unit_of(batch, kv, t * (PM_FIXED(HEADS, heads) / kv), 1, 1, &u) &&
        of_cache(&a, &s, u.b + first, u.head, CU_CACHE_NAMES)) {
        s.place = u.b * kv + u.head;
        pm_cu_join(&a, &s, u.tile, splits, partial);
    }
}

PM_GLOBAL void pm_cu_sdpa_join(CU_SDPA_ARGS, float *partial, int64_t first)
{
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t splits = pm_cu_ceil_div(keys, CU_SPLIT_KEYS), kv = PM_FIXED(KV_HEADS, kv_heads);
    if (unit_of(batch, kv, t * (PM_FIXED(HEADS, heads) / kv), 1, 1, &u) &&
        of_sdpa(&a, &s, u.b + first, u.head, CU_SDPA_NAMES)) {
        s.place = u.b * kv + u.head;
        pm_cu_join(&a, &s, u.tile, splits, partial);
    }
}

#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(CU_TILE_THREADS, CU_TILE_COLUMNS > 128 ? 1 : 2)
/* Many rows: one block for each CU_TILE_COLUMNS columns of the values, CU_TILE_ROWS rows, key-value head, sequence.
 * The last tiles, which see most keys, come first. */
PM_GLOBAL void pm_cu_attention_tile(CU_CACHE_ARGS)
{
    PM_SHARED(cu_tile_shared, shared, 1);
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t kv = PM_FIXED(KV_HEADS, kv_heads), rows = t * (PM_FIXED(HEADS, heads) / kv);
    int64_t pieces = pm_cu_ceil_div(PM_FIXED(VALUE_DIM, value_dim), CU_TILE_COLUMNS);
    if (unit_of(batch, kv, rows, CU_TILE_ROWS, pieces, &u) &&
        of_cache(&a, &s, u.b, u.head, CU_CACHE_NAMES))
        pm_cu_tile_rows(&a, &s, shared, (pm_cu_ceil_div(rows, CU_TILE_ROWS) - 1 - u.tile) * CU_TILE_ROWS,
                        u.inner * CU_TILE_COLUMNS);
}

PM_GLOBAL void pm_cu_sdpa_tile(CU_SDPA_ARGS)
{
    PM_SHARED(cu_tile_shared, shared, 1);
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t kv = PM_FIXED(KV_HEADS, kv_heads), rows = t * (PM_FIXED(HEADS, heads) / kv);
    int64_t pieces = pm_cu_ceil_div(PM_FIXED(VALUE_DIM, value_dim), CU_TILE_COLUMNS);
    if (unit_of(batch, kv, rows, CU_TILE_ROWS, pieces, &u) &&
        of_sdpa(&a, &s, u.b, u.head, CU_SDPA_NAMES))
        pm_cu_tile_rows(&a, &s, shared, (pm_cu_ceil_div(rows, CU_TILE_ROWS) - 1 - u.tile) * CU_TILE_ROWS,
                        u.inner * CU_TILE_COLUMNS);
}
#undef PM_BOUNDS
#define PM_BOUNDS

/* The same on tensor cores, in bf16: heads of up to CU_FLASH_MAX_HEAD elements. */
PM_GLOBAL void pm_cu_attention_bf16(CU_CACHE_ARGS)
{
    PM_SHARED(cu_mma_shared, shared, 1);
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t kv = PM_FIXED(KV_HEADS, kv_heads), rows = t * (PM_FIXED(HEADS, heads) / kv);
    int64_t columns = pm_cu_mma_columns(PM_FIXED(HEAD_DIM, head_dim));
    int64_t pieces = pm_cu_ceil_div(PM_FIXED(VALUE_DIM, value_dim), columns);
    if (unit_of(batch, kv, rows, CU_FLASH_ROWS, pieces, &u) && of_cache(&a, &s, u.b, u.head, CU_CACHE_NAMES))
        pm_cu_mma_rows(&a, &s, shared, (pm_cu_ceil_div(rows, CU_FLASH_ROWS) - 1 - u.tile) * CU_FLASH_ROWS,
                       u.inner * columns);
}

PM_GLOBAL void pm_cu_sdpa_bf16(CU_SDPA_ARGS)
{
    PM_SHARED(cu_mma_shared, shared, 1);
    cu_attention a;
    cu_sight s;
    cu_unit u;
    int64_t kv = PM_FIXED(KV_HEADS, kv_heads), rows = t * (PM_FIXED(HEADS, heads) / kv);
    int64_t columns = pm_cu_mma_columns(PM_FIXED(HEAD_DIM, head_dim));
    int64_t pieces = pm_cu_ceil_div(PM_FIXED(VALUE_DIM, value_dim), columns);
    if (unit_of(batch, kv, rows, CU_FLASH_ROWS, pieces, &u) && of_sdpa(&a, &s, u.b, u.head, CU_SDPA_NAMES))
        pm_cu_mma_rows(&a, &s, shared, (pm_cu_ceil_div(rows, CU_FLASH_ROWS) - 1 - u.tile) * CU_FLASH_ROWS,
                       u.inner * columns);
}
