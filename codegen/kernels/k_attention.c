/* Attention over the caches, causal or not. Rows lie token by token, the heads of one key-value head together. */
#include "codegen/kernels/attention_tile.h"

/// Everything about one sequence and key-value head.
typedef struct attention_head {
    attention_tile tile;
    const float *keys, *values; ///< [capacity / 16][head_dim][16] and [capacity][value_dim]
    const float *sinks;         ///< of the heads that share these keys; NULL: none
    const float *bias;          ///< likewise, [reach] each; NULL: none
    int64_t past, group, window, chunk, reach, causal;
    float scale;
    int64_t row0; ///< of the tile
} attention_head;

/// Keys that a row sees: begin..end.
PM_INLINE int64_t keys_end(const attention_head *h, int64_t row)
{
    return h->causal ? h->past + row / h->group + 1 : h->past;
}

PM_INLINE int64_t keys_begin(const attention_head *h, int64_t row)
{
    int64_t end = keys_end(h, row), begin = h->window > 0 ? pm_max_i64(end - h->window, 0) : 0;
    return h->chunk > 0 ? pm_max_i64(begin, (end - 1) / h->chunk * h->chunk) : begin;
}

/// The biases of a block's scores: by how far the keys are from the row's token.
PM_INLINE const float *distance_bias(const void *context, int64_t row, int64_t key0, float *buffer)
{
    const attention_head *h = context;
    row += h->row0;
    int64_t position = (h->causal ? h->past : 0) + row / h->group, middle = h->reach / 2;
    const float *bias = h->bias + row % h->group * h->reach;
    PM_NO_UNROLL for (int64_t i = 0; i < ATTENTION_KEYS; i++)
    {
        int64_t at = pm_max_i64(key0 + i - position + middle, 0);
        buffer[i] = bias[pm_min_i64(at, h->reach - 1)] * LOG2_E;
    }
    return buffer;
}

/// Rows h->row0..h->row0+rows of a head; q and out are at the head's first element of token 0, a token apart
/// `heads` times an element of theirs.
PM_INLINE void cached_tile(const attention_head *h, const float *q, float *out, int64_t heads,
                           int64_t rows)
{
    const attention_tile *t = &h->tile;
    int64_t hd = t->head_dim, vd = t->value_dim;
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        int64_t row = h->row0 + r;
        t->begin[r] = keys_begin(h, row);
        t->end[r] = keys_end(h, row);
        attention_begin_row(t, r, q + row / h->group * heads * hd + row % h->group * hd, h->scale,
                            h->sinks ? h->sinks + row % h->group : NULL);
    }
    int64_t key0 = t->begin[0] / ATTENTION_KEYS * ATTENTION_KEYS, end = t->end[rows - 1];
    PM_NO_UNROLL for (; key0 < end; key0 += ATTENTION_KEYS)
    {
        const float *keys = h->keys + key0 * hd;
        attention_block_in in = {key0, keys, h->values + key0 * vd, keys + ATTENTION_KEYS * hd,
                                 h->bias ? distance_bias : NULL, h, false};
        attention_rows(t, &in, rows);
    }
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        int64_t row = h->row0 + r;
        float *to = out + row / h->group * heads * vd + row % h->group * vd;
        float total = pm_v_sum(pm_v_load(t->total + r * PM_VW));
        scale_row(to, t->sum + r * vd, vd, 1.0f / total);
    }
}

PM_KERNEL void pm_k_attention(const float *q, const float *key_cache, const float *value_cache,
                              const int64_t *past, const float *sinks, float *out, int64_t batch,
                              int64_t t, int64_t heads, int64_t kv_heads, int64_t head_dim,
                              int64_t value_dim, int64_t capacity, float scale, int64_t window,
                              int64_t chunk, float softcap, const float *bias, int64_t reach,
                              int64_t causal, uint8_t *scratch, int64_t worker, int64_t n_workers)
{
    int64_t group = heads / kv_heads, rows = t * group;
    attention_head h = {.group = group, .window = window, .chunk = chunk, .reach = reach,
                        .causal = causal, .scale = scale};
    h.tile = (attention_tile){.head_dim = head_dim, .value_dim = value_dim, .value_row = value_dim,
                              .softcap = softcap};
    attention_buffers(&h.tile, scratch);
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
            int64_t head = unit / tiles, row0 = unit % tiles * tile_rows;
            int64_t now = pm_min_i64(rows - row0, tile_rows), b = head / kv_heads;
            h.past = past[b];
            if (h.past < 0 || h.past > capacity - (causal ? t : 0))
                continue;
            bool mine = pass == 1 && cost >= begin && cost < end;
            int64_t seen = keys_end(&h, row0 + now - 1) - keys_begin(&h, row0);
            cost += (seen + ATTENTION_KEYS) * now;
            if (!mine)
                continue;
            h.keys = key_cache + head * capacity * head_dim;
            h.values = value_cache + head * capacity * value_dim;
            int64_t first = head % kv_heads * group, at = b * t * heads + first;
            h.sinks = sinks ? sinks + first : NULL;
            h.bias = bias ? bias + first * reach : NULL;
            h.row0 = row0;
            cached_tile(&h, q + at * head_dim, out + at * value_dim, heads, now);
        }
    }
}
