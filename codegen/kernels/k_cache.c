/* Writes new keys and values into the key-value caches. */
#include "codegen/kernels/vec.h"

/// 1 when the t new positions of some sequence do not fit.
PM_INLINE int32_t cache_misfit(const int64_t *past, int64_t batch, int64_t t, int64_t capacity)
{
    int32_t bad = 0;
    PM_NO_UNROLL for (int64_t b = 0; b < batch; b++)
        bad |= past[b] < 0 || past[b] > capacity - t;
    return bad;
}

enum { KEY_BLOCK = 16 };

/// A whole block of keys, from rows `ld` apart.
PM_INLINE void cache_key_block(float *to, const float *from, int64_t ld, int64_t head_dim)
{
    int64_t d = 0;
    PM_NO_UNROLL for (; d + PM_VW <= head_dim; d += PM_VW)
    {
        PM_UNROLL for (int part = 0; part < KEY_BLOCK; part += PM_VW)
            pm_v_transpose(from + part * ld + d, ld, to + d * KEY_BLOCK + part, KEY_BLOCK);
    }
    PM_NO_UNROLL for (; d < head_dim; d++)
    {
        PM_NO_UNROLL for (int64_t i = 0; i < KEY_BLOCK; i++)
            to[d * KEY_BLOCK + i] = from[i * ld + d];
    }
}

/* Keys lie as [position / 16][head_dim][16], so that one vector is one element of 16 keys. Workers take
 * (sequence, head, token) in contiguous ranges: a block of 16 at a border is written by two, at different places. */
PM_KERNEL int32_t pm_k_cache_key(float *cache, const float *k, const int64_t *past, int64_t batch,
                                 int64_t t, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                 int64_t worker, int64_t n_workers)
{
    if (cache_misfit(past, batch, t, capacity))
        return 1;
    int64_t begin, end;
    pm_share(batch * kv_heads * t, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end;)
    {
        int64_t token = unit % t, head = unit / t % kv_heads, b = unit / t / kv_heads;
        const float *from = k + ((b * t + token) * kv_heads + head) * head_dim;
        int64_t position = past[b] + token, lane = position % KEY_BLOCK;
        float *to = cache + (b * kv_heads + head) * capacity * head_dim +
                    (position - lane) * head_dim + lane;
        if (lane == 0 && pm_min_i64(end - unit, t - token) >= KEY_BLOCK) {
            cache_key_block(to, from, kv_heads * head_dim, head_dim);
            unit += KEY_BLOCK;
            continue;
        }
        PM_NO_UNROLL for (int64_t d = 0; d < head_dim; d++)
            to[d * KEY_BLOCK] = from[d];
        unit++;
    }
    return 0;
}

PM_KERNEL int32_t pm_k_cache_value(float *cache, const float *v, const int64_t *past, int64_t batch,
                                   int64_t t, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                   int64_t worker, int64_t n_workers)
{
    if (cache_misfit(past, batch, t, capacity))
        return 1;
    int64_t begin, end;
    pm_share(batch * kv_heads * t, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end; unit++)
    {
        int64_t token = unit % t, head = unit / t % kv_heads, b = unit / t / kv_heads;
        const float *from = v + ((b * t + token) * kv_heads + head) * head_dim;
        float *to = cache + ((b * kv_heads + head) * capacity + past[b] + token) * head_dim;
        for (int64_t d = 0; d < head_dim; d++)
            to[d] = from[d];
    }
    return 0;
}
