/* Rotary positions, and what is written into key-value caches. */
#include "codegen/cuda/kernels/cu_common.h"

enum { CU_KEY_BLOCK = 16 };

/* See rope_table in ir/ops.def. A thread for each angle. */
PM_GLOBAL void pm_cu_rope_table(const int64_t *past, const float *inv_freq, float *table, int64_t batch,
                                int64_t t, int64_t half, int64_t scale)
{
    int64_t n = PM_FIXED(HALF, half), at = pm_block() * pm_threads() + pm_thread();
    int64_t row = at / n, i = at % n;
    if (row >= batch * t)
        return;
    float factor = (float)PM_WORD_F64(scale);
    float angle = (float)(past[row / t] + row % t) * inv_freq[i];
    table[row * 2 * n + i] = pm_cosf(angle) * factor;
    table[row * 2 * n + n + i] = pm_sinf(angle) * factor;
}

/* See rope in ir/ops.def. A thread for each pair, and for each element that isn't turned; x and out may be the
 * same. */
PM_GLOBAL void pm_cu_rope(const float *x, const float *table, float *out, int64_t rows, int64_t heads,
                          int64_t head_dim, int64_t half, int64_t offset, int64_t interleaved)
{
    int64_t hd = PM_FIXED(HEAD_DIM, head_dim), n = PM_FIXED(HALF, half), first = PM_FIXED(OFFSET, offset);
    int64_t units = hd - n, at = pm_block() * pm_threads() + pm_thread();
    int64_t head = at / units, unit = at % units;
    if (head >= rows * heads)
        return;
    const float *from = x + head * hd;
    float *to = out + head * hd;
    if (unit >= n) {
        int64_t i = unit - n < first ? unit - n : unit + n;
        to[i] = from[i];
        return;
    }
    const float *cosine = table + head / heads * 2 * n;
    int32_t is_pair = PM_FIXED(INTERLEAVED, interleaved) != 0;
    int64_t apart = is_pair ? 1 : n, i = first + (is_pair ? 2 * unit : unit);
    float a = from[i], b = from[i + apart], c = cosine[unit], s = cosine[n + unit];
    to[i] = a * c - b * s;
    to[i + apart] = b * c + a * s;
}

/// Whether a sequence's new rows fit; else one thread says so.
PM_DEVICE int32_t cache_fits(int64_t past, int64_t t, int64_t capacity, int32_t *status, int64_t mark)
{
    if (past >= 0 && past <= capacity - t)
        return 1;
    if (pm_thread() == 0)
        pm_fail(status, mark);
    return 0;
}

/* See cache_key in ir/ops.def; keys lie as [position / 16][head_dim][16]. A block for each 16 positions of a
 * head: threads go along the positions, as what is written lies. */
PM_GLOBAL void pm_cu_cache_key(float *cache, const float *k, const int64_t *past, int64_t batch, int64_t t,
                               int64_t kv_heads, int64_t head_dim, int64_t capacity, int32_t *status,
                               int64_t mark)
{
    int64_t hd = PM_FIXED(HEAD_DIM, head_dim), kv = PM_FIXED(KV_HEADS, kv_heads);
    int64_t pieces = t / CU_KEY_BLOCK + 2, unit = pm_block() / pieces, piece = pm_block() % pieces;
    int64_t b = unit / kv, head = unit % kv;
    if (b >= batch || !cache_fits(past[b], t, capacity, status, mark))
        return;
    int64_t first = (past[b] / CU_KEY_BLOCK + piece) * CU_KEY_BLOCK;
    for (int64_t i = pm_thread(); i < hd * CU_KEY_BLOCK; i += pm_threads()) {
        int64_t token = first + i % CU_KEY_BLOCK - past[b], d = i / CU_KEY_BLOCK;
        if (token >= 0 && token < t)
            cache[unit * capacity * hd + first * hd + i] = k[((b * t + token) * kv + head) * hd + d];
    }
}

/* See cache_value in ir/ops.def. A block for each token of a head. */
PM_GLOBAL void pm_cu_cache_value(float *cache, const float *v, const int64_t *past, int64_t batch, int64_t t,
                                 int64_t kv_heads, int64_t head_dim, int64_t capacity, int32_t *status,
                                 int64_t mark)
{
    int64_t vd = PM_FIXED(HEAD_DIM, head_dim), kv = PM_FIXED(KV_HEADS, kv_heads);
    int64_t head = pm_block() % kv, row = pm_block() / kv, b = row / pm_cu_max(t, 1);
    if (b >= batch || !cache_fits(past[b], t, capacity, status, mark))
        return;
    float *to = cache + ((b * kv + head) * capacity + past[b] + row % t) * vd;
    for (int64_t d = pm_thread(); d < vd; d += pm_threads())
        to[d] = v[pm_block() * vd + d];
}

/* See kv_append in ir/ops.def, and pm_k_kv_append for the arguments. A block for each row of the result. */
PM_GLOBAL void pm_cu_kv_append(const float *rows, const int64_t *at, int64_t at_step, const float *past,
                               float *out, int64_t batch, int64_t t, int64_t kv_heads, int64_t size,
                               int64_t before, int64_t length, int64_t apart, int32_t *status,
                               int64_t mark)
{
    int64_t n = PM_FIXED(SIZE, size), kv = PM_FIXED(KV_HEADS, kv_heads);
    int64_t head = pm_block() / length, position = pm_block() % length, b = head / kv;
    if (b >= batch)
        return;
    int64_t first = at[b * at_step], token = position - first;
    if (!cache_fits(first, t, length, status, mark))
        return;
    const float *from = (const float *)0;
    if (token >= 0 && token < t)
        from = rows + (PM_FIXED(APART, apart) ? head * t + token : (b * t + token) * kv + head % kv) * n;
    else if (past && position < before)
        from = past + (head * before + position) * n;
    for (int64_t i = pm_thread(); i < n; i += pm_threads())
        out[pm_block() * n + i] = from ? from[i] : 0.0f;
}
