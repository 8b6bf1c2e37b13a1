/* What attention kernels share: a tile of rows against blocks of keys, with online softmax.
 *
 * A row is one head of one token; rows whose heads share a key-value head are worked on together, so that
 * a key is read once for many rows. Keys are taken in blocks that begin at multiples of ATTENTION_KEYS. What a
 * row computes depends on its own block sequence alone, and a block of which it sees nothing changes no bit
 * of it: so bits are the same in any tile, batch or call. */
#ifndef PM_ATTENTION_TILE_H
#define PM_ATTENTION_TILE_H

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
#define LEAST_POWER 126.0f /* power_of_2(-x) is no less beyond it */

/// A tile of rows. Buffers are in a worker's scratch: see attention_buffers.
typedef struct attention_tile {
    int64_t head_dim, value_dim, value_row; ///< value_row: from a value to the next key's
    float softcap;
    float *q, *sum;    ///< [ATTENTION_ROWS][head_dim], [ATTENTION_ROWS][value_dim]
    float *score;      ///< [ATTENTION_ROWS][ATTENTION_KEYS]
    float *total;      ///< [ATTENTION_ROWS][PM_VW]: sums of weights, lane by lane
    float *largest;    ///< [ATTENTION_ROWS]
    int64_t *begin, *end; ///< [ATTENTION_ROWS]: keys that a row sees; neither falls from row to row
} attention_tile;

/// What is added to the scores of a row with a block of keys, times LOG2_E: [ATTENTION_KEYS], in `buffer`.
typedef const float *attention_bias_fn(const void *context, int64_t row, int64_t key0, float *buffer);

/// A block of keys: from key0 on, laid out as [ATTENTION_KEYS / 16][head_dim][16], and its first value.
typedef struct attention_block_in {
    int64_t key0;
    const float *keys, *values;
    const float *ahead;      ///< memory that the next block's keys are in, or NULL
    attention_bias_fn *bias; ///< NULL: none
    const void *context;
    bool masked;             ///< a bias of -infinity means that the key isn't seen
} attention_block_in;

/// Lays a tile's buffers out from `scratch` on; returns what is behind them, aligned.
PM_INLINE float *attention_buffers(attention_tile *t, uint8_t *scratch)
{
    t->begin = (int64_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    t->end = t->begin + ATTENTION_ROWS;
    t->score = (float *)(t->end + ATTENTION_ROWS);
    t->total = t->score + ATTENTION_ROWS * ATTENTION_KEYS;
    t->largest = t->total + ATTENTION_ROWS * PM_VW;
    t->q = t->largest + 64;
    t->sum = t->q + ATTENTION_ROWS * t->head_dim;
    return (float *)(((uintptr_t)(t->sum + ATTENTION_ROWS * t->value_dim) + 63) & ~(uintptr_t)63);
}

/// 2^x for x <= 0, to 1.6e-7 of it; results too small to be normal numbers may be the smallest of them.
/// Weights are powers of 2, not of e, for their reduction is one subtraction.
PM_INLINE pm_vf power_of_2(pm_vf x)
{
    x = pm_v_select(x < -LEAST_POWER, pm_v_splat(-LEAST_POWER), x);
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
    if (i < n)
        pm_v_store_part(to + i, pm_v_load_part(from + i, n - i) * factor, n - i);
}

/// rows (1, 2, 4 or 6) x the keys of `groups` blocks of 16 from `column` on, into t->score. Fetches the next block:
/// keys lie in streams too short for hardware to notice.
PM_INLINE void score_tile(const attention_tile *t, const attention_block_in *in, int64_t rows,
                          int groups, int64_t first, int64_t column)
{
    pm_tile_in tile = {t->q + first * t->head_dim, t->head_dim, 1, in->keys + column * t->head_dim,
                       16 * t->head_dim, 16, t->head_dim,
                       (const char *)(in->ahead + (in->ahead ? column * t->head_dim : 0)), in->ahead ? 64 : 0, true};
    float *to = t->score + first * ATTENTION_KEYS + column;
    int lines = in->ahead ? 1 : 0;
    switch (rows) {
    case 1: pm_tile(PM_KIND_F32, 1, groups, KEY_VECS, lines, &tile, to, ATTENTION_KEYS, 16, false); break;
    case 2: pm_tile(PM_KIND_F32, 2, groups, KEY_VECS, lines, &tile, to, ATTENTION_KEYS, 16, false); break;
    case 4: pm_tile(PM_KIND_F32, 4, groups, KEY_VECS, lines, &tile, to, ATTENTION_KEYS, 16, false); break;
    default: pm_tile(PM_KIND_F32, 6, groups, KEY_VECS, lines, &tile, to, ATTENTION_KEYS, 16, false);
    }
}

/// Adds weights times `vecs` vectors of the values of keys from..to (of the block) to the sums.
PM_INLINE void value_tile(const attention_tile *t, const attention_block_in *in, int64_t rows,
                          int vecs, int64_t first, int64_t from, int64_t to, int64_t column)
{
    pm_tile_in tile = {t->score + first * ATTENTION_KEYS + from, ATTENTION_KEYS, 1,
                       in->values + from * t->value_row + column, 0, t->value_row, to - from,
                       (const char *)(in->values + (from + VALUES_AHEAD) * t->value_row + column),
                       t->value_row * 4, true};
    float *sum = t->sum + first * t->value_dim + column;
    int64_t ld = t->value_dim;
    int lines = (vecs * PM_VW + 15) / 16;
    switch (rows) {
    case 1: pm_tile(PM_KIND_F32, 1, 1, vecs, lines, &tile, sum, ld, 0, true); break;
    case 2: pm_tile(PM_KIND_F32, 2, 1, vecs, lines, &tile, sum, ld, 0, true); break;
    case 4: pm_tile(PM_KIND_F32, 4, 1, vecs, lines, &tile, sum, ld, 0, true); break;
    default: pm_tile(PM_KIND_F32, 6, 1, vecs, lines, &tile, sum, ld, 0, true);
    }
}

/// As value_tile, for `rows` rows (a constant) and the columns from `column` on, fewer than a vector.
PM_INLINE void value_end_rows(const attention_tile *t, const attention_block_in *in, int rows,
                              int64_t first, int64_t from, int64_t to, int64_t column)
{
    pm_vf acc[ATTENTION_PART];
    int64_t n = t->value_dim - column;
    float *sum = t->sum + first * t->value_dim + column;
    const float *value = in->values + from * t->value_row + column;
    PM_UNROLL for (int r = 0; r < rows; r++)
        acc[r] = pm_v_load_part(sum + r * t->value_dim, n);
    PM_NO_UNROLL for (int64_t i = from; i < to; i++)
    {
        pm_vf x = pm_v_load_part(value, n);
        PM_UNROLL for (int r = 0; r < rows; r++)
            acc[r] = pm_v_fma(pm_v_splat(t->score[(first + r) * ATTENTION_KEYS + i]), x, acc[r]);
        value += t->value_row;
    }
    PM_UNROLL for (int r = 0; r < rows; r++)
        pm_v_store_part(sum + r * t->value_dim, acc[r], n);
}

PM_INLINE void value_end(const attention_tile *t, const attention_block_in *in, int64_t rows,
                         int64_t first, int64_t from, int64_t to, int64_t column)
{
    switch (rows) {
    case 1: value_end_rows(t, in, 1, first, from, to, column); break;
    case 2: value_end_rows(t, in, 2, first, from, to, column); break;
    case 4: value_end_rows(t, in, 4, first, from, to, column); break;
    default: value_end_rows(t, in, 6, first, from, to, column);
    }
}

/// As value_tile, for `rows` rows (a constant) and 8 columns: half a vector, twice as many at once.
PM_INLINE void value_half_rows(const attention_tile *t, const attention_block_in *in, int rows,
                               int64_t first, int64_t from, int64_t to, int64_t column)
{
    typedef float half __attribute__((vector_size(32), aligned(4), may_alias));
    half acc[ATTENTION_PART];
    float *sum = t->sum + first * t->value_dim + column;
    const float *value = in->values + from * t->value_row + column;
    PM_UNROLL for (int r = 0; r < rows; r++)
        acc[r] = *(const half *)(sum + r * t->value_dim);
    PM_NO_UNROLL for (int64_t i = from; i < to; i++)
    {
        half x = *(const half *)value;
        PM_UNROLL for (int r = 0; r < rows; r++)
            acc[r] = __builtin_elementwise_fma(t->score[(first + r) * ATTENTION_KEYS + i] - (half){0}, x, acc[r]);
        value += t->value_row;
    }
    PM_UNROLL for (int r = 0; r < rows; r++)
        *(half *)(sum + r * t->value_dim) = acc[r];
}

PM_INLINE void value_half(const attention_tile *t, const attention_block_in *in, int64_t rows,
                          int64_t first, int64_t from, int64_t to, int64_t column)
{
    switch (rows) {
    case 1: value_half_rows(t, in, 1, first, from, to, column); break;
    case 2: value_half_rows(t, in, 2, first, from, to, column); break;
    case 4: value_half_rows(t, in, 4, first, from, to, column); break;
    default: value_half_rows(t, in, 6, first, from, to, column);
    }
}

/// As value_tile, for all columns.
PM_INLINE void add_values(const attention_tile *t, const attention_block_in *in, int64_t rows,
                          int64_t first, int64_t from, int64_t to)
{
    if (from >= to)
        return;
    int64_t column = 0;
    PM_NO_UNROLL for (; column + WIDE_VECS * PM_VW <= t->value_dim; column += WIDE_VECS * PM_VW)
        value_tile(t, in, rows, WIDE_VECS, first, from, to, column);
    if (WIDE_VECS == 4 && column + 2 * PM_VW <= t->value_dim) {
        value_tile(t, in, rows, 2, first, from, to, column);
        column += 2 * PM_VW;
    }
    if (column + PM_VW <= t->value_dim) {
        value_tile(t, in, rows, 1, first, from, to, column);
        column += PM_VW;
    }
    if (PM_VW == 16 && column + 8 <= t->value_dim) {
        value_half(t, in, rows, first, from, to, column);
        column += 8;
    }
    if (column < t->value_dim)
        value_end(t, in, rows, first, from, to, column);
}

/// Turns a row's scores of one block into weights; updates its largest score, total and sums. Unless
/// `whole`, keys outside begin..end (relative to the block) get weight 0. bias: of its scores, or NULL;
/// with `masked` that of a key that isn't seen is -infinity. False: next to what the row has seen already
/// nothing of the block counts (as where a mask adds the least of floats): there are no weights, nor changes.
PM_INLINE bool weigh_row(const attention_tile *t, int64_t row, bool whole, int64_t begin,
                         int64_t end, const float *bias, bool masked)
{
    const float infinity = __builtin_inff();
    float *score = t->score + row * ATTENTION_KEYS;
    pm_vf x[BLOCK_VECS], top[BLOCK_VECS], added[BLOCK_VECS];
    pm_vi seen[BLOCK_VECS], far_below = pm_v_splat_i(-1);
    float before = t->largest[row], limit = before - LEAST_POWER;
    PM_UNROLL for (int j = 0; j < BLOCK_VECS; j++)
    {
        x[j] = pm_v_load(score + j * PM_VW);
        if (t->softcap != 0.0f)
            x[j] = pm_v_tanh(x[j]) * (t->softcap * LOG2_E);
        pm_vi lane = pm_v_iota() + j * PM_VW;
        seen[j] = (lane >= (int32_t)begin) & (lane < (int32_t)end);
        if (bias) {
            pm_vf added_bias = pm_v_load(bias + j * PM_VW);
            x[j] = x[j] + added_bias;
            if (masked)
                seen[j] &= added_bias != -infinity;
        }
        if (!whole || masked)
            x[j] = pm_v_select(seen[j], x[j], pm_v_splat(-infinity));
        top[j] = x[j];
        far_below &= x[j] < limit; /* not a NaN */
    }
    if (__builtin_reduce_and(far_below))
        return false;
    PM_UNROLL for (int step = 1; step < BLOCK_VECS; step *= 2)
        PM_UNROLL for (int j = 0; j < BLOCK_VECS; j += 2 * step)
            top[j] = pm_v_max(top[j], top[j + step]);
    float now = pm_v_largest(top[0]);
    now = now > before ? now : before;
    float base = now == -infinity ? 0.0f : now;
    PM_UNROLL for (int j = 0; j < BLOCK_VECS; j++)
    {
        added[j] = power_of_2(x[j] - base);
        if (!whole || masked)
            added[j] = pm_v_select(seen[j], added[j], pm_v_splat(0.0f));
        pm_v_store(score + j * PM_VW, added[j]);
    }
    PM_UNROLL for (int step = 1; step < BLOCK_VECS; step *= 2)
        PM_UNROLL for (int j = 0; j < BLOCK_VECS; j += 2 * step)
            added[j] = added[j] + added[j + step];
    pm_vf total = pm_v_load(t->total + row * PM_VW);
    if (now != before) {
        pm_vf factor = power_of_2(pm_v_splat(before - base));
        total = total * factor;
        float *sum = t->sum + row * t->value_dim;
        scale_row(sum, sum, t->value_dim, factor[0]);
        t->largest[row] = now;
    }
    pm_v_store(t->total + row * PM_VW, total + added[0]);
    return true;
}

/// One block of keys for the rows first..first+rows of the tile.
PM_INLINE void attention_block(const attention_tile *t, const attention_block_in *in, int64_t first,
                               int64_t rows)
{
    int64_t last = first + rows - 1, key0 = in->key0;
    int64_t first_begin = t->begin[first] - key0, first_end = t->end[first] - key0;
    int64_t last_begin = t->begin[last] - key0, last_end = t->end[last] - key0;
    if (last_end <= 0 || first_begin >= ATTENTION_KEYS)
        return;
    /* buffers hold ATTENTION_ROWS rows: what rows past the last compute goes nowhere */
    int64_t padded = rows > 4 ? 6 : rows == 3 ? 4 : rows;
    int64_t groups = pm_min_i64((last_end + 15) / 16, ATTENTION_KEYS / 16), g = 0;
    PM_NO_UNROLL for (; g + WIDE_GROUPS <= groups; g += WIDE_GROUPS)
        score_tile(t, in, padded, WIDE_GROUPS, first, 16 * g);
    if (WIDE_GROUPS > 1) {
        PM_NO_UNROLL for (; g < groups; g++)
            score_tile(t, in, padded, 1, first, 16 * g);
    }
    int64_t counting = 0;
    bool counts[ATTENTION_PART];
    PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
    {
        int64_t begin = t->begin[r] - key0, end = t->end[r] - key0;
        float buffer[ATTENTION_KEYS];
        const float *bias = in->bias ? in->bias(in->context, r, key0, buffer) : NULL;
        if (begin <= 0 && end >= ATTENTION_KEYS)
            counts[r - first] = weigh_row(t, r, true, 0, ATTENTION_KEYS, bias, in->masked);
        else
            counts[r - first] = weigh_row(t, r, false, pm_max_i64(begin, 0),
                                          pm_max_i64(pm_min_i64(end, ATTENTION_KEYS), 0), bias,
                                          in->masked);
        counting += counts[r - first];
    }
    if (counting < rows) {
        PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
            if (counts[r - first])
                add_values(t, in, 1, r, pm_max_i64(t->begin[r] - key0, 0),
                           pm_min_i64(t->end[r] - key0, ATTENTION_KEYS));
        return;
    }
    /* Keys that all rows see go through the tile, the others row by row: a key that a row may not see (of a
     * later token, or not written yet) must not even be multiplied by its weight 0. */
    int64_t from = pm_min_i64(pm_max_i64(last_begin, 0), ATTENTION_KEYS);
    int64_t to = pm_max_i64(pm_min_i64(first_end, ATTENTION_KEYS), from);
    if (from > pm_max_i64(first_begin, 0)) {
        PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
            add_values(t, in, 1, r, pm_max_i64(t->begin[r] - key0, 0),
                       pm_min_i64(from, t->end[r] - key0));
    }
    add_values(t, in, padded, first, from, to);
    if (pm_min_i64(last_end, ATTENTION_KEYS) > to) {
        PM_NO_UNROLL for (int64_t r = first; r < first + rows; r++)
            add_values(t, in, 1, r, pm_max_i64(to, t->begin[r] - key0),
                       pm_min_i64(t->end[r] - key0, ATTENTION_KEYS));
    }
}

/// One block of keys for all rows of the tile.
PM_INLINE void attention_rows(const attention_tile *t, const attention_block_in *in, int64_t rows)
{
    PM_NO_UNROLL for (int64_t first = 0; first < rows; first += ATTENTION_PART)
        attention_block(t, in, first, pm_min_i64(rows - first, ATTENTION_PART));
}

/// Begins a row: its query times what scores are multiplied by, and a sink (of which 1 is the weight) if any.
PM_INLINE void attention_begin_row(const attention_tile *t, int64_t row, const float *q, float scale,
                                   const float *sink)
{
    float factor = t->softcap != 0.0f ? scale / t->softcap : scale * LOG2_E;
    scale_row(t->q + row * t->head_dim, q, t->head_dim, factor);
    PM_NO_UNROLL for (int64_t d = 0; d < t->value_dim; d++)
        t->sum[row * t->value_dim + d] = 0.0f;
    pm_v_store(t->total + row * PM_VW, pm_v_splat(0.0f));
    t->largest[row] = -__builtin_inff();
    if (sink) { /* as a key without a value that was seen first */
        t->largest[row] = *sink * LOG2_E;
        t->total[row * PM_VW] = 1.0f;
    }
}

#endif
