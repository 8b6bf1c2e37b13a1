/* Attention over the caches, causal or not, with online softmax.
 *
 * A row is one head of one token; rows whose heads share a key-value head lie together (token by token)
 * and are worked on in tiles, so that a key is read once for many rows. Keys are taken in blocks that begin
 * at multiples of ATTENTION_KEYS. What a row computes depends on its own block sequence alone, and a block
 * of which it sees nothing changes no bit of it: so bits are the same in any tile, batch or call. */
#include "codegen/kernels/gemm_tile.h"
#include "codegen/kernels/math_inline.h"

enum {
    ATTENTION_KEYS = 64,
    ATTENTION_ROWS = 48,                    ///< rows that share one pass over the keys
    ATTENTION_PART = 6,                     ///< of which so many at a time are in registers
    KEY_VECS = 16 / PM_VW,                  ///< vectors of a block of 16 keys
    BLOCK_VECS = ATTENTION_KEYS / PM_VW,    ///< vectors of a block
    WIDE_GROUPS = PM_VW == 16 ? 4 : 1,      ///< blocks of 16 keys that fit the register tile
    VALUES_AHEAD = 16,                      ///< keys whose values are fetched ahead
    WIDE_VECS = PM_VW == 16 ? 4 : 2,        ///< vectors of a value that do
};

#define LOG2_E 0x1.715476p0f

/// Everything about one sequence and key-value head, and the buffers of a tile of rows.
typedef struct attention_head {
    const float *keys, *values; ///< [capacity / 16][head_dim][16] and [capacity][value_dim]
    const float *sinks;         ///< of the heads that share these keys; NULL: none
    const float *bias;          ///< likewise, [reach] each; NULL: none
    int64_t past, group, head_dim, value_dim, capacity, window, chunk, reach, causal;
    float scale, softcap;
    float *q, *sum;    ///< [ATTENTION_ROWS][head_dim], [ATTENTION_ROWS][value_dim]
    float *score;      ///< [ATTENTION_ROWS][ATTENTION_KEYS]
    float *total;      ///< [ATTENTION_ROWS][PM_VW]: sums of weights, lane by lane
    float *largest;    ///< [ATTENTION_ROWS]
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

/// 2^x for x <= 0, to 1.6e-7 of it; results too small to be normal numbers may be the smallest of them.
/// Weights are powers of 2, not of e, for their reduction is one subtraction.
PM_INLINE pm_vf power_of_2(pm_vf x)
{
    x = pm_v_select(x < -126.0f, pm_v_splat(-126.0f), x);
#if PM_VW == 16
    pm_vf n = __builtin_elementwise_roundeven(x);
#else
    const pm_vf magic = pm_v_splat(0x1.8p23f);
    pm_vf shifted = x + magic, n = shifted - magic;
#endif
    pm_vf r = x - n;
    pm_vf p = pm_v_splat(0x1.5bda40p-10f);
    p = pm_v_poly_step(p, r, 0x1.3ce8acp-7f);
    p = pm_v_poly_step(p, r, 0x1.c6b6d8p-5f);
    p = pm_v_poly_step(p, r, 0x1.ebf9c2p-3f);
    p = pm_v_poly_step(p, r, 0x1.62e42ap-1f);
    p = pm_v_poly_step(p, r, 1.0f);
#if PM_VW == 16
    return __builtin_ia32_scalefps512_mask(p, n, p, -1, 4 /* the current rounding */);
#else
    return p * (pm_vf)(((pm_vu)shifted + 127u) << 23);
#endif
}

/// to = from * factor, of n elements.
PM_INLINE void scale_row(float *to, const float *from, int64_t n, float factor)
{
    int64_t i = 0;
    PM_NO_UNROLL for (; i + PM_VW <= n; i += PM_VW)
        pm_v_store(to + i, pm_v_load(from + i) * factor);
    PM_NO_UNROLL for (; i < n; i++)
        to[i] = from[i] * factor;
}

/// rows (1, 2, 4 or 6) x the keys of `groups` blocks of 16 from key0 on, into h->score. Fetches the next block:
/// keys lie in streams too short for hardware to notice.
PM_INLINE void score_tile(const attention_head *h, int64_t rows, int groups, int64_t first,
                          int64_t key0, int64_t column)
{
    pm_tile_in in = {h->q + first * h->head_dim, h->head_dim, 1, h->keys + key0 * h->head_dim,
                     16 * h->head_dim, 16, h->head_dim,
                     (const char *)(h->keys + (key0 + ATTENTION_KEYS) * h->head_dim), 64, true};
    float *to = h->score + first * ATTENTION_KEYS + column;
    switch (rows) {
    case 1: pm_tile(PM_KIND_F32, 1, groups, KEY_VECS, 1, &in, to, ATTENTION_KEYS, 16, false); break;
    case 2: pm_tile(PM_KIND_F32, 2, groups, KEY_VECS, 1, &in, to, ATTENTION_KEYS, 16, false); break;
    case 4: pm_tile(PM_KIND_F32, 4, groups, KEY_VECS, 1, &in, to, ATTENTION_KEYS, 16, false); break;
    default: pm_tile(PM_KIND_F32, 6, groups, KEY_VECS, 1, &in, to, ATTENTION_KEYS, 16, false);
    }
}

/// Adds weights times `vecs` vectors of the values of keys from..to (relative to key0) to the sums.
PM_INLINE void value_tile(const attention_head *h, int64_t rows, int vecs, int64_t first,
                          int64_t key0, int64_t from, int64_t to, int64_t column)
{
    pm_tile_in in = {h->score + first * ATTENTION_KEYS + from, ATTENTION_KEYS, 1,
                     h->values + (key0 + from) * h->value_dim + column, 0, h->value_dim, to - from,
                     (const char *)(h->values + (key0 + from + VALUES_AHEAD) * h->value_dim + column),
                     h->value_dim * 4, true};
    float *sum = h->sum + first * h->value_dim + column;
    int64_t ld = h->value_dim;
    int lines = (vecs * PM_VW + 15) / 16;
    switch (rows) {
    case 1: pm_tile(PM_KIND_F32, 1, 1, vecs, lines, &in, sum, ld, 0, true); break;
    case 2: pm_tile(PM_KIND_F32, 2, 1, vecs, lines, &in, sum, ld, 0, true); break;
    case 4: pm_tile(PM_KIND_F32, 4, 1, vecs, lines, &in, sum, ld, 0, true); break;
    default: pm_tile(PM_KIND_F32, 6, 1, vecs, lines, &in, sum, ld, 0, true);
    }
}

/// As value_tile, for all columns.
PM_INLINE void add_values(const attention_head *h, int64_t rows, int64_t first, int64_t key0,
                          int64_t from, int64_t to)
{
    if (from >= to)
        return;
    int64_t column = 0;
    PM_NO_UNROLL for (; column + WIDE_VECS * PM_VW <= h->value_dim; column += WIDE_VECS * PM_VW)
        value_tile(h, rows, WIDE_VECS, first, key0, from, to, column);
    if (WIDE_VECS == 4 && column + 2 * PM_VW <= h->value_dim) {
        value_tile(h, rows, 2, first, key0, from, to, column);
        column += 2 * PM_VW;
    }
    if (column + PM_VW <= h->value_dim) {
        value_tile(h, rows, 1, first, key0, from, to, column);
        column += PM_VW;
    }
    PM_NO_UNROLL for (; column < h->value_dim; column++)
    {
        PM_NO_UNROLL for (int64_t row = first; row < first + rows; row++)
        {
            float sum = h->sum[row * h->value_dim + column];
            PM_NO_UNROLL for (int64_t i = from; i < to; i++)
                sum = __builtin_elementwise_fma(h->score[row * ATTENTION_KEYS + i],
                                                h->values[(key0 + i) * h->value_dim + column], sum);
            h->sum[row * h->value_dim + column] = sum;
        }
    }
}

/// The biases of a block's scores: by how far the keys are from the row's token.
PM_INLINE void block_bias(const attention_head *h, int64_t row, int64_t key0, float *to)
{
    int64_t position = (h->causal ? h->past : 0) + row / h->group, middle = h->reach / 2;
    const float *bias = h->bias + row % h->group * h->reach;
    PM_NO_UNROLL for (int64_t i = 0; i < ATTENTION_KEYS; i++)
    {
        int64_t at = pm_max_i64(key0 + i - position + middle, 0);
        to[i] = bias[pm_min_i64(at, h->reach - 1)];
    }
}

/// Turns a row's scores of one block into weights; updates its largest score, total and sums. Unless
/// `whole`, keys outside begin..end (relative to the block) get weight 0. bias: of its scores, or NULL.
PM_INLINE void weigh_row(const attention_head *h, int64_t row, bool whole, int64_t begin,
                         int64_t end, const float *bias)
{
    const float infinity = __builtin_inff();
    float *score = h->score + row * ATTENTION_KEYS;
    pm_vf x[BLOCK_VECS], top[BLOCK_VECS], added[BLOCK_VECS];
    pm_vi seen[BLOCK_VECS];
    PM_UNROLL for (int j = 0; j < BLOCK_VECS; j++)
    {
        x[j] = pm_v_load(score + j * PM_VW);
        if (h->softcap != 0.0f)
            x[j] = pm_v_tanh(x[j]) * (h->softcap * LOG2_E);
        if (bias)
            x[j] = x[j] + pm_v_load(bias + j * PM_VW) * LOG2_E;
        pm_vi lane = pm_v_iota() + j * PM_VW;
        seen[j] = (lane >= (int32_t)begin) & (lane < (int32_t)end);
        if (!whole)
            x[j] = pm_v_select(seen[j], x[j], pm_v_splat(-infinity));
        top[j] = x[j];
    }
    PM_UNROLL for (int step = 1; step < BLOCK_VECS; step *= 2)
        PM_UNROLL for (int j = 0; j < BLOCK_VECS; j += 2 * step)
            top[j] = pm_v_max(top[j], top[j + step]);
    float before = h->largest[row], now = pm_v_largest(top[0]);
    now = now > before ? now : before;
    float base = now == -infinity ? 0.0f : now;
    PM_UNROLL for (int j = 0; j < BLOCK_VECS; j++)
    {
        added[j] = power_of_2(x[j] - base);
        if (!whole)
            added[j] = pm_v_select(seen[j], added[j], pm_v_splat(0.0f));
        pm_v_store(score + j * PM_VW, added[j]);
    }
    PM_UNROLL for (int step = 1; step < BLOCK_VECS; step *= 2)
        PM_UNROLL for (int j = 0; j < BLOCK_VECS; j += 2 * step)
            added[j] = added[j] + added[j + step];
    pm_vf total = pm_v_load(h->total + row * PM_VW);
    if (now != before) {
        pm_vf factor = power_of_2(pm_v_splat(before - base));
        total = total * factor;
        float *sum = h->sum + row * h->value_dim;
        scale_row(sum, sum, h->value_dim, factor[0]);
        h->largest[row] = now;
    }
    pm_v_store(h->total + row * PM_VW, total + added[0]);
}

/// One block of keys for the rows first..first+rows of the tile whose row 0 is row0 of the head.
PM_INLINE void attention_block(const attention_head *h, int64_t row0, int64_t first, int64_t rows,
                               int64_t key0)
{
    int64_t first_begin = keys_begin(h, row0 + first) - key0;
    int64_t first_end = keys_end(h, row0 + first) - key0;
    int64_t last_begin = keys_begin(h, row0 + first + rows - 1) - key0;
    int64_t last_end = keys_end(h, row0 + first + rows - 1) - key0;
    if (last_end <= 0 || first_begin >= ATTENTION_KEYS)
        return;
    /* buffers hold ATTENTION_ROWS rows: what rows past the last compute goes nowhere */
    int64_t padded = rows > 4 ? 6 : rows == 3 ? 4 : rows;
    int64_t groups = pm_min_i64((last_end + 15) / 16, ATTENTION_KEYS / 16), g = 0;
    PM_NO_UNROLL for (; g + WIDE_GROUPS <= groups; g += WIDE_GROUPS)
        score_tile(h, padded, WIDE_GROUPS, first, key0 + 16 * g, 16 * g);
    if (WIDE_GROUPS > 1) {
        PM_NO_UNROLL for (; g < groups; g++)
            score_tile(h, padded, 1, first, key0 + 16 * g, 16 * g);
    }
    PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
    {
        int64_t begin = keys_begin(h, row0 + r) - key0, end = keys_end(h, row0 + r) - key0;
        float bias[ATTENTION_KEYS];
        if (h->bias)
            block_bias(h, row0 + r, key0, bias);
        if (begin <= 0 && end >= ATTENTION_KEYS)
            weigh_row(h, r, true, 0, ATTENTION_KEYS, h->bias ? bias : NULL);
        else
            weigh_row(h, r, false, begin, end, h->bias ? bias : NULL);
    }
    /* Keys that all rows see go through the tile, the others row by row: a key that a row may not see (of a
     * later token, or not written yet) must not even be multiplied by its weight 0. */
    int64_t from = pm_min_i64(pm_max_i64(last_begin, 0), ATTENTION_KEYS);
    int64_t to = pm_max_i64(pm_min_i64(first_end, ATTENTION_KEYS), from);
    if (from > pm_max_i64(first_begin, 0)) {
        PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
            add_values(h, 1, r, key0, pm_max_i64(keys_begin(h, row0 + r) - key0, 0),
                       pm_min_i64(from, keys_end(h, row0 + r) - key0));
    }
    add_values(h, padded, first, key0, from, to);
    if (pm_min_i64(last_end, ATTENTION_KEYS) > to) {
        PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
            add_values(h, 1, r, key0, pm_max_i64(to, keys_begin(h, row0 + r) - key0),
                       pm_min_i64(keys_end(h, row0 + r) - key0, ATTENTION_KEYS));
    }
}

/// Rows row0..row0+rows of a head; q and out are at the head's first element of token 0, a token apart
/// `heads` times an element of theirs.
PM_INLINE void attention_tile(const attention_head *h, const float *q, float *out, int64_t heads,
                              int64_t row0, int64_t rows)
{
    int64_t hd = h->head_dim, vd = h->value_dim;
    /* what all scores would be multiplied by */
    float factor = h->softcap != 0.0f ? h->scale / h->softcap : h->scale * LOG2_E;
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        int64_t row = row0 + r;
        const float *from = q + row / h->group * heads * hd + row % h->group * hd;
        scale_row(h->q + r * hd, from, hd, factor);
        PM_NO_UNROLL for (int64_t d = 0; d < vd; d++)
            h->sum[r * vd + d] = 0.0f;
        pm_v_store(h->total + r * PM_VW, pm_v_splat(0.0f));
        h->largest[r] = -__builtin_inff();
        if (h->sinks) { /* as a key without a value that was seen first */
            h->largest[r] = h->sinks[row % h->group] * LOG2_E;
            h->total[r * PM_VW] = 1.0f;
        }
    }
    int64_t end = keys_end(h, row0 + rows - 1);
    int64_t key0 = keys_begin(h, row0) / ATTENTION_KEYS * ATTENTION_KEYS;
    PM_NO_UNROLL for (; key0 < end; key0 += ATTENTION_KEYS)
    {
        PM_NO_UNROLL for (int64_t first = 0; first < rows; first += ATTENTION_PART)
            attention_block(h, row0, first, pm_min_i64(rows - first, ATTENTION_PART), key0);
    }
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        int64_t row = row0 + r;
        float *to = out + row / h->group * heads * vd + row % h->group * vd;
        float total = pm_v_sum(pm_v_load(h->total + r * PM_VW));
        scale_row(to, h->sum + r * vd, vd, 1.0f / total);
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
    attention_head h = {.group = group, .head_dim = head_dim, .value_dim = value_dim,
                        .capacity = capacity, .window = window, .chunk = chunk, .reach = reach,
                        .causal = causal, .scale = scale, .softcap = softcap};
    h.score = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    h.total = h.score + ATTENTION_ROWS * ATTENTION_KEYS;
    h.largest = h.total + ATTENTION_ROWS * PM_VW;
    h.q = h.largest + 64;
    h.sum = h.q + ATTENTION_ROWS * head_dim;
    /* with few sequences and heads smaller tiles, so that all workers have some */
    int64_t wanted = (n_workers + batch * kv_heads - 1) / (batch * kv_heads);
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
            attention_tile(&h, q + at * head_dim, out + at * value_dim, heads, row0, now);
        }
    }
}
