/* Attention to whole tensors of keys and values, and their growth. A block of keys is transposed into scratch
 * once for a tile of rows; then all is as in the caches. */
#include "codegen/kernels/attention_tile.h"

/* ---- growth ----------------------------------------------------------------------------------------- */

PM_INLINE void copy_floats(float *to, const float *from, int64_t n)
{
    int64_t i = 0;
    PM_NO_UNROLL for (; i + PM_VW <= n; i += PM_VW)
        pm_v_store(to + i, pm_v_load(from + i));
    PM_NO_UNROLL for (; i < n; i++)
        to[i] = from[i];
}

/// The rows begin..end of a head's `length`: those at at..at+t are new, of the others `before` are of the past.
PM_INLINE void append_rows(float *out, const float *past, const float *rows, int64_t row_stride,
                           int64_t at, int64_t t, int64_t before, int64_t size, int64_t begin,
                           int64_t end)
{
    int64_t kept = pm_min_i64(end, pm_min_i64(at, before));
    if (begin < kept)
        copy_floats(out + begin * size, past + begin * size, (kept - begin) * size);
    for (int64_t r = pm_max_i64(begin, at); r < pm_min_i64(end, at + t); r++)
        copy_floats(out + r * size, rows + (r - at) * row_stride, size);
    int64_t later = pm_max_i64(begin, at + t);
    kept = pm_min_i64(end, before);
    if (later < kept)
        copy_floats(out + later * size, past + later * size, (kept - later) * size);
    PM_NO_UNROLL for (int64_t r = pm_max_i64(begin, before); r < end; r++)
    {
        if (r >= at && r < at + t)
            continue;
        PM_NO_UNROLL for (int64_t d = 0; d < size; d++)
            out[r * size + d] = 0.0f;
    }
}

PM_KERNEL int32_t pm_k_kv_append(const float *rows, const int64_t *at, int64_t at_step,
                                 const float *past, float *out, int64_t batch, int64_t t,
                                 int64_t kv_heads, int64_t size, int64_t before, int64_t length,
                                 int64_t apart, int64_t worker, int64_t n_workers)
{
    PM_NO_UNROLL for (int64_t b = 0; b < batch; b++)
    {
        int64_t first = at[b * at_step];
        if (first < 0 || t > length || first > length - t)
            return 1;
    }
    int64_t row_stride = apart ? size : kv_heads * size, head_stride = apart ? t * size : size;
    int64_t begin, end;
    pm_share(batch * kv_heads * length, worker, n_workers, &begin, &end);
    PM_NO_UNROLL while (begin < end)
    {
        int64_t head = begin / length, from = begin % length;
        int64_t to = pm_min_i64(length, from + (end - begin)), b = head / kv_heads;
        append_rows(out + head * length * size, past ? past + head * before * size : NULL,
                    rows + b * t * kv_heads * size + head % kv_heads * head_stride, row_stride,
                    at[b * at_step], t, past ? before : 0, size, from, to);
        begin += to - from;
    }
    return 0;
}

/* ---- attention -------------------------------------------------------------------------------------- */

/// Everything about one sequence and key-value head.
typedef struct sdpa_head {
    attention_tile tile;
    const float *keys, *values; ///< of the head; key_row apart
    int64_t key_row;
    float *packed;              ///< a block of keys as attention_block_in has it
    const float *mask;          ///< of the sequence; NULL: none, or it's of bools
    const uint8_t *bools;
    int64_t mask_head, mask_row, masked; ///< strides; keys that the mask has
    int64_t first_head, group, row0;
    int64_t past, total, left, right; ///< left and right: -1 for no bound
} sdpa_head;

#define FAR ((int64_t)1 << 61) /* beyond every key */

PM_INLINE int64_t sdpa_end(const sdpa_head *h, int64_t row)
{
    int64_t end = h->right < 0 ? h->total : h->past + row / h->group + pm_min_i64(h->right, FAR) + 1;
    return pm_max_i64(pm_min_i64(end, h->total), 0);
}

PM_INLINE int64_t sdpa_begin(const sdpa_head *h, int64_t row)
{
    int64_t begin = h->left < 0 ? 0 : h->past + row / h->group - pm_min_i64(h->left, FAR);
    return pm_min_i64(pm_max_i64(begin, 0), sdpa_end(h, row));
}

/// Keys 0..n of the block at `from` into columns of [ATTENTION_KEYS / 16][head_dim][16].
PM_INLINE void pack_keys(const sdpa_head *h, const float *from, int64_t n)
{
    int64_t hd = h->tile.head_dim, key = 0;
    PM_NO_UNROLL for (; key + PM_VW <= n; key += PM_VW)
    {
        float *to = h->packed + key / 16 * 16 * hd + key % 16;
        const float *row = from + key * h->key_row;
        int64_t d = 0;
        PM_NO_UNROLL for (; d + PM_VW <= hd; d += PM_VW)
        {
            PM_UNROLL for (int k = 0; k < PM_VW; k++)
                __builtin_prefetch(row + (k + ATTENTION_KEYS) * h->key_row + d, 0, 2);
            pm_v_transpose(row + d, h->key_row, to + d * 16, 16);
        }
        if (d < hd)
            pm_v_transpose_part(row + d, h->key_row, hd - d, to + d * 16, 16);
    }
    PM_NO_UNROLL for (; key < n; key++)
        PM_NO_UNROLL for (int64_t d = 0; d < hd; d++)
            h->packed[(key / 16 * hd + d) * 16 + key % 16] = from[key * h->key_row + d];
}

/// A row of the mask as biases; those that aren't infinite stay so.
PM_INLINE const float *mask_bias(const void *context, int64_t row, int64_t key0, float *buffer)
{
    const sdpa_head *h = context;
    const float infinity = __builtin_inff();
    row += h->row0;
    int64_t at = row / h->group * h->mask_row + (h->first_head + row % h->group) * h->mask_head + key0;
    int64_t n = pm_min_i64(h->masked - key0, ATTENTION_KEYS), i = 0;
    if (h->bools) {
        PM_NO_UNROLL for (; i < n; i++)
            buffer[i] = h->bools[at + i] ? 0.0f : -infinity;
    } else {
        PM_NO_UNROLL for (; i < n; i++)
        {
            float x = h->mask[at + i], scaled = x * LOG2_E;
            buffer[i] = scaled == -infinity && x != -infinity ? -0x1.fffffep127f : scaled;
        }
    }
    PM_NO_UNROLL for (; i < ATTENTION_KEYS; i++)
        buffer[i] = -infinity;
    return buffer;
}

/// Rows h->row0..h->row0+rows: queries of one key-value head; q and out are at its first head's first token, and go
/// on by strides of tokens and heads.
PM_INLINE void sdpa_tile(const sdpa_head *h, const float *q, int64_t q_token, int64_t q_head, float *out,
                         int64_t out_token, int64_t out_head, const float *sinks, float scale,
                         float nothing, int64_t rows)
{
    const attention_tile *t = &h->tile;
    bool masked = h->mask || h->bools;
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        int64_t row = h->row0 + r, head = row % h->group;
        t->begin[r] = sdpa_begin(h, row);
        t->end[r] = sdpa_end(h, row);
        attention_begin_row(t, r, q + row / h->group * q_token + head * q_head, scale,
                            sinks ? sinks + head : NULL);
    }
    int64_t key0 = t->begin[0] / ATTENTION_KEYS * ATTENTION_KEYS, end = t->end[rows - 1];
    PM_NO_UNROLL for (; key0 < end; key0 += ATTENTION_KEYS)
    {
        pack_keys(h, h->keys + key0 * h->key_row, pm_min_i64(end - key0, ATTENTION_KEYS));
        attention_block_in in = {key0, h->packed, h->values + key0 * t->value_row, NULL,
                                 masked ? mask_bias : NULL, h, masked};
        attention_rows(t, &in, rows);
    }
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        int64_t row = h->row0 + r;
        float *to = out + row / h->group * out_token + row % h->group * out_head;
        float total = pm_v_sum(pm_v_load(t->total + r * PM_VW));
        if (total == 0.0f) {
            PM_NO_UNROLL for (int64_t d = 0; d < t->value_dim; d++)
                to[d] = nothing;
        } else {
            scale_row(to, t->sum + r * t->value_dim, t->value_dim, 1.0f / total);
        }
    }
}

PM_KERNEL int32_t pm_k_sdpa(const float *q, const float *k, const float *v, const void *mask,
                            const int64_t *past, const int64_t *total, const float *sinks, float *out,
                            int64_t batch, int64_t t, int64_t keys, int64_t heads, int64_t kv_heads,
                            int64_t head_dim, int64_t value_dim, int64_t apart, int64_t masked,
                            int64_t is_bool, int64_t mask_batch, int64_t mask_head,
                            int64_t mask_row, int64_t past_step, int64_t total_step, float scale,
                            int64_t left, int64_t right, float softcap, float nothing,
                            uint8_t *scratch, int64_t worker, int64_t n_workers)
{
    int64_t group = heads / kv_heads, rows = t * group;
    bool q_apart = apart & 1, k_apart = apart & 2, v_apart = apart & 4;
    sdpa_head h = {.group = group, .left = left, .right = right, .masked = mask ? masked : keys,
                   .mask_head = mask_head, .mask_row = mask_row};
    h.tile = (attention_tile){.head_dim = head_dim, .value_dim = value_dim, .softcap = softcap};
    h.tile.value_row = v_apart ? value_dim : kv_heads * value_dim;
    h.key_row = k_apart ? head_dim : kv_heads * head_dim;
    h.packed = attention_buffers(&h.tile, scratch);
    if (h.masked > keys)
        return 1;
    PM_NO_UNROLL for (int64_t b = 0; b < batch; b++)
    {
        if (past && (past[b * past_step] > FAR || past[b * past_step] < -FAR))
            return 1;
        if (total && (total[b * total_step] < 0 || total[b * total_step] > keys))
            return 1;
    }
    /* with few sequences and heads smaller tiles, so that all workers have some */
    int64_t heads_in_all = pm_max_i64(batch * kv_heads, 1);
    int64_t wanted = (n_workers + heads_in_all - 1) / heads_in_all;
    int64_t tile_rows = pm_min_i64(ATTENTION_ROWS, (rows + wanted - 1) / wanted);
    int64_t tiles = tile_rows > 0 ? (rows + tile_rows - 1) / tile_rows : 0;
    /* first pass: the cost of all; second: this worker's part of it */
    int64_t cost = 0, begin = 0, end = 0;
    PM_NO_UNROLL for (int64_t pass = 0; pass < 2; pass++)
    {
        if (pass == 1)
            pm_share(cost, worker, n_workers, &begin, &end);
        cost = 0;
        PM_NO_UNROLL for (int64_t unit = 0; unit < batch * kv_heads * tiles; unit++)
        {
            int64_t kv = unit / tiles, b = kv / kv_heads, head = kv % kv_heads;
            h.row0 = unit % tiles * tile_rows;
            int64_t now = pm_min_i64(rows - h.row0, tile_rows);
            h.past = past ? past[b * past_step] : 0;
            h.total = pm_min_i64(total ? total[b * total_step] : keys, h.masked);
            bool mine = pass == 1 && cost >= begin && cost < end;
            int64_t seen = sdpa_end(&h, h.row0 + now - 1) - sdpa_begin(&h, h.row0);
            cost += (pm_max_i64(seen, 0) + ATTENTION_KEYS) * now;
            if (!mine)
                continue;
            h.first_head = head * group;
            h.keys = k + b * keys * kv_heads * head_dim + head * (k_apart ? keys : 1) * head_dim;
            h.values = v + b * keys * kv_heads * value_dim + head * (v_apart ? keys : 1) * value_dim;
            h.bools = mask && is_bool ? (const uint8_t *)mask + b * mask_batch : NULL;
            h.mask = mask && !is_bool ? (const float *)mask + b * mask_batch : NULL;
            int64_t q_token = q_apart ? 1 : heads, q_head = q_apart ? t : 1;
            int64_t at = b * t * heads + h.first_head * q_head;
            sdpa_tile(&h, q + at * head_dim, q_token * head_dim, q_head * head_dim,
                      out + at * value_dim, q_token * value_dim, q_head * value_dim,
                      sinks ? sinks + h.first_head : NULL, scale, nothing, now);
        }
    }
    return 0;
}
