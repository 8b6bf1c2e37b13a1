/// Attention of many rows (prefill) on tensor cores: queries, keys, weights and values rounded to bf16, sums in f32.
///
/// Four warps have 16 rows each. Keys that no row of a tile sees count as zeros; the values of all others must be
/// finite, for those that a row doesn't see are multiplied by its weight 0.
#ifndef PM_CU_ATTENTION_MMA_H
#define PM_CU_ATTENTION_MMA_H

#include "codegen/cuda/kernels/cu_attention.h"

enum {
    CU_FLASH_ROWS = 64,
    CU_FLASH_KEYS = 64,
    CU_FLASH_THREADS = 128,
    CU_FLASH_STEP = 128,       /* elements of the keys in shared memory at a time */
    CU_FLASH_MAX_HEAD = 256,
    CU_FLASH_PAD = 8 /* so that eight rows of a matrix lie in different banks */
};

#ifdef PM_CONST_HEAD_DIM
enum { CU_FLASH_HEAD = PM_CONST_HEAD_DIM };
#else
enum { CU_FLASH_HEAD = CU_FLASH_MAX_HEAD };
#endif
/* Columns of the values that a block has: registers hold both a row's query and its sums. */
PM_DEVICE int64_t pm_cu_mma_columns(int64_t head_dim)
{
    return head_dim > 128 ? 64 : 128;
}

#if defined(PM_CONST_HEAD_DIM) && defined(PM_CONST_VALUE_DIM)
enum {
    CU_FLASH_MOST = CU_FLASH_HEAD > 128 ? 64 : 128,
    CU_FLASH_COLUMNS = PM_CONST_VALUE_DIM < CU_FLASH_MOST ? PM_CONST_VALUE_DIM : CU_FLASH_MOST
};
#else
enum { CU_FLASH_COLUMNS = 128 }; /* room for them */
#endif

enum {
    CU_FLASH_HEAD_STEPS = (CU_FLASH_HEAD + 15) / 16,
    CU_FLASH_GROUPS = (CU_FLASH_COLUMNS + 15) / 16, /* of 16 columns of the values */
    CU_FLASH_KEY_LD = CU_FLASH_STEP + CU_FLASH_PAD,   /* of keys row by row … */
    CU_FLASH_TURNED_LD = CU_FLASH_KEYS + CU_FLASH_PAD, /* … and turned, as a key cache has them */
    CU_FLASH_VALUE_LD = CU_FLASH_GROUPS * 16 + CU_FLASH_PAD,
    CU_FLASH_KEY_ROOM = CU_FLASH_STEP * CU_FLASH_TURNED_LD > CU_FLASH_KEYS * CU_FLASH_KEY_LD
                          ? CU_FLASH_STEP * CU_FLASH_TURNED_LD
                          : CU_FLASH_KEYS * CU_FLASH_KEY_LD
};

typedef struct cu_mma_shared {
    PM_ALIGN(16) uint16_t key[CU_FLASH_KEY_ROOM];
    PM_ALIGN(16) uint16_t value[CU_FLASH_KEYS * CU_FLASH_VALUE_LD];
} cu_mma_shared;

/// A thread's part of a tile: rows lane / 4 and lane / 4 + 8 of its warp's 16.
typedef struct cu_mma_tile {
    int32_t row[2], begin[2], end[2]; ///< keys that a row sees: begin … end
    int64_t column0;
    float largest[2], total[2];
    uint32_t query[CU_FLASH_HEAD_STEPS][4];
    float sum[2 * CU_FLASH_GROUPS][4]; ///< of 8 columns each: two of a row, two of the other
} cu_mma_tile;

PM_DEVICE uint32_t pm_cu_pack_bf16(float low, float high)
{
    return (uint32_t)pm_bf16_of_f32(low) | (uint32_t)pm_bf16_of_f32(high) << 16;
}

/// Elements d, d + 1 of a row of q; zeros where there are none.
PM_DEVICE uint32_t pm_cu_mma_query(const cu_attention *a, const cu_sight *s, int64_t row, int64_t d)
{
    if (row >= a->rows || d >= a->head_dim)
        return 0u;
    const float *q = a->q + pm_cu_row_at(a, s, row, a->head_dim) + d;
    return pm_cu_pack_bf16(q[0], d + 1 < a->head_dim ? q[1] : 0.0f);
}

/// Elements d0..d0+CU_FLASH_STEP of a block's keys first..last, row by row.
PM_DEVICE void pm_cu_mma_keys(const cu_attention *a, const float *keys, uint16_t *to, int64_t key0, int32_t first,
                              int32_t last, int64_t d0)
{
    PM_UNROLL_BY(4) for (int32_t i = pm_thread(); i < CU_FLASH_KEYS * CU_FLASH_STEP / 2; i += CU_FLASH_THREADS)
    {
        int32_t key = i / (CU_FLASH_STEP / 2), d = i % (CU_FLASH_STEP / 2) * 2;
        int32_t is_there = key >= first && key < last;
        const float *from = keys + (key0 + key) * a->k_row + d0 + d;
        float low = is_there && d0 + d < a->head_dim ? from[0] : 0.0f;
        float high = is_there && d0 + d + 1 < a->head_dim ? from[1] : 0.0f;
        ((uint32_t *)to)[(key * CU_FLASH_KEY_LD + d) / 2] = pm_cu_pack_bf16(low, high);
    }
}

/// The same of a key cache, turned as it lies.
PM_DEVICE void pm_cu_mma_turned_keys(const cu_attention *a, const float *keys, uint16_t *to, int64_t key0,
                                     int32_t first, int32_t last, int64_t d0)
{
    PM_UNROLL_BY(4) for (int32_t i = pm_thread(); i < CU_FLASH_KEYS * CU_FLASH_STEP / 2; i += CU_FLASH_THREADS)
    {
        /* a warp has eight keys' pairs of eight elements: whole sectors there, and all banks here */
        int32_t key = i / (4 * CU_FLASH_STEP) * 8 + i % 4 * 2, d = i / 4 % CU_FLASH_STEP;
        const float *from =
            keys + ((key0 + key) / CU_KEY_LANES * a->head_dim + d0 + d) * CU_KEY_LANES + key % CU_KEY_LANES;
        cu_pair pair;
        pair.at[0] = pair.at[1] = 0.0f;
        if (d0 + d < a->head_dim && key + 1 >= first && key < last)
            pair = *(const cu_pair *)from; /* lanes of a cache are there, seen or not */
        float low = key >= first ? pair.at[0] : 0.0f, high = key + 1 < last ? pair.at[1] : 0.0f;
        ((uint32_t *)to)[(d * CU_FLASH_TURNED_LD + key) / 2] = pm_cu_pack_bf16(low, high);
    }
}

PM_DEVICE void pm_cu_mma_values(const cu_attention *a, const float *values, uint16_t *to, int64_t key0,
                                int32_t first, int32_t last, int32_t columns)
{
    enum { PAIRS = CU_FLASH_GROUPS * 8 };
    PM_UNROLL_BY(4) for (int32_t i = pm_thread(); i < CU_FLASH_KEYS * PAIRS; i += CU_FLASH_THREADS)
    {
        int32_t key = i / PAIRS, column = i % PAIRS * 2, is_there = key >= first && key < last;
        const float *from = values + (key0 + key) * a->v_row + column;
        float low = is_there && column < columns ? from[0] : 0.0f;
        float high = is_there && column + 1 < columns ? from[1] : 0.0f;
        ((uint32_t *)to)[(key * CU_FLASH_VALUE_LD + column) / 2] = pm_cu_pack_bf16(low, high);
    }
}

/// Adds the products with CU_FLASH_STEP elements of the keys; score: of 8 keys each.
PM_DEVICE void pm_cu_mma_scores(const cu_mma_tile *t, const uint16_t *keys, int64_t d0, int32_t is_turned,
                                float score[CU_FLASH_KEYS / 8][4])
{
    int32_t lane = pm_lane(), matrix = lane / 8, line = lane % 8;
    PM_UNROLL for (int32_t step = 0; step < CU_FLASH_HEAD_STEPS; step++)
    {
        int32_t d = step * 16 - (int32_t)d0;
        if (d < 0 || d >= CU_FLASH_STEP)
            continue;
        PM_UNROLL for (int32_t pair = 0; pair < CU_FLASH_KEYS / 16; pair++)
        {
            uint32_t b[4]; /* two elements by two eights of keys */
            if (is_turned)
                pm_ldmatrix_x4_trans(b, keys + (d + matrix % 2 * 8 + line) * CU_FLASH_TURNED_LD + pair * 16 +
                                            matrix / 2 * 8);
            else
                pm_ldmatrix_x4(b, keys + (pair * 16 + matrix / 2 * 8 + line) * CU_FLASH_KEY_LD + d + matrix % 2 * 8);
            pm_mma_bf16_16816(score[2 * pair], t->query[step], b);
            pm_mma_bf16_16816(score[2 * pair + 1], t->query[step], b + 2);
        }
    }
}

/// Turns a block's products into weights; scales what there was before.
PM_DEVICE void pm_cu_mma_weigh(const cu_attention *a, const cu_sight *s, cu_mma_tile *t, int64_t key0,
                               float score[CU_FLASH_KEYS / 8][4])
{
    PM_UNROLL for (int32_t half = 0; half < 2; half++)
    {
        float now = -PM_INFINITY, total = 0.0f;
        int32_t begin = pm_cu_within(t->begin[half] - key0, CU_FLASH_KEYS);
        int32_t end = pm_cu_within(t->end[half] - key0, CU_FLASH_KEYS);
        PM_UNROLL for (int32_t i = 0; i < CU_FLASH_KEYS / 4; i++)
        {
            int32_t key = i / 2 * 8 + pm_lane() % 4 * 2 + i % 2;
            float *x = &score[i / 2][2 * half + i % 2];
            *x = key >= begin && key < end ? pm_cu_score(a, s, t->row[half], key0 + key, *x) : -PM_INFINITY;
            now = pm_cu_larger(now, *x);
        }
        now = pm_cu_larger(now, pm_shfl_xor_f32(now, 1));
        now = pm_cu_larger(now, pm_shfl_xor_f32(now, 2));
        now = pm_cu_larger(now, t->largest[half]);
        PM_UNROLL for (int32_t i = 0; i < CU_FLASH_KEYS / 4; i++)
        {
            float *x = &score[i / 2][2 * half + i % 2];
            *x = *x == -PM_INFINITY ? 0.0f : pm_expf(*x - now);
            total += *x;
        }
        total += pm_shfl_xor_f32(total, 1);
        total += pm_shfl_xor_f32(total, 2);
        float factor = t->largest[half] == now ? 1.0f : pm_expf(t->largest[half] - now);
        t->total[half] = t->total[half] * factor + total;
        t->largest[half] = now;
        PM_UNROLL for (int32_t c = 0; c < 4 * CU_FLASH_GROUPS; c++)
            t->sum[c / 2][2 * half + c % 2] *= factor;
    }
}

/// Adds the block's values times their weights.
PM_DEVICE void pm_cu_mma_add(cu_mma_tile *t, const uint16_t *values, float weight[CU_FLASH_KEYS / 8][4])
{
    int32_t lane = pm_lane(), matrix = lane / 8, line = lane % 8;
    PM_UNROLL for (int32_t step = 0; step < CU_FLASH_KEYS / 16; step++)
    {
        uint32_t w[4];
        PM_UNROLL for (int32_t i = 0; i < 4; i++)
            w[i] = pm_cu_pack_bf16(weight[2 * step + i / 2][i % 2 * 2], weight[2 * step + i / 2][i % 2 * 2 + 1]);
        PM_UNROLL for (int32_t g = 0; g < CU_FLASH_GROUPS; g++)
        {
            uint32_t b[4];
            pm_ldmatrix_x4_trans(b, values + (step * 16 + matrix % 2 * 8 + line) * CU_FLASH_VALUE_LD + g * 16 +
                                        matrix / 2 * 8);
            pm_mma_bf16_16816(t->sum[2 * g], w, b);
            pm_mma_bf16_16816(t->sum[2 * g + 1], w, b + 2);
        }
    }
}

PM_DEVICE void pm_cu_mma_begin(const cu_attention *a, const cu_sight *s, cu_mma_tile *t, int64_t row0,
                               int64_t column0)
{
    int32_t pair = pm_lane() % 4 * 2;
    t->column0 = column0;
    PM_UNROLL for (int32_t half = 0; half < 2; half++)
    {
        int64_t row = row0 + pm_warp() * 16 + pm_lane() / 4 + 8 * half, begin, end;
        t->row[half] = (int32_t)row;
        t->begin[half] = t->end[half] = 0;
        t->largest[half] = -PM_INFINITY;
        t->total[half] = 0.0f;
        if (row < a->rows) {
            pm_cu_sees(a, s, row / a->group, &begin, &end);
            t->begin[half] = (int32_t)begin;
            t->end[half] = (int32_t)end;
            if (a->sinks) { /* as a key without a value that was seen first */
                t->largest[half] = a->sinks[s->head * a->group + row % a->group];
                t->total[half] = 1.0f;
            }
        }
    }
    PM_UNROLL for (int32_t i = 0; i < 4 * CU_FLASH_HEAD_STEPS; i++)
        t->query[i / 4][i % 4] = pm_cu_mma_query(a, s, t->row[i % 2], i / 4 * 16 + pair + i % 4 / 2 * 8);
    PM_UNROLL for (int32_t i = 0; i < 8 * CU_FLASH_GROUPS; i++)
        t->sum[i / 4][i % 4] = 0.0f;
}

PM_DEVICE void pm_cu_mma_end(const cu_attention *a, const cu_sight *s, const cu_mma_tile *t)
{
    int64_t column_end = pm_cu_min(a->value_dim, t->column0 + pm_cu_mma_columns(a->head_dim));
    PM_UNROLL for (int32_t half = 0; half < 2; half++)
    {
        if (t->row[half] >= a->rows)
            continue;
        float *to = a->out + pm_cu_row_at(a, s, t->row[half], a->value_dim);
        PM_UNROLL for (int32_t c = 0; c < 4 * CU_FLASH_GROUPS; c++)
        {
            int64_t column = t->column0 + c / 2 * 8 + pm_lane() % 4 * 2 + c % 2;
            if (column < column_end)
                to[column] = t->total[half] == 0.0f ? a->nothing : t->sum[c / 2][2 * half + c % 2] / t->total[half];
        }
    }
}

/// Rows row0 … of one key-value head, and a block's columns of their values from column0 on.
PM_DEVICE void pm_cu_mma_rows(const cu_attention *a, const cu_sight *s, cu_mma_shared *shared, int64_t row0,
                              int64_t column0)
{
    cu_mma_tile t;
    int64_t first, last, unused, last_row = pm_cu_min(row0 + CU_FLASH_ROWS, a->rows) - 1;
    const float *keys = a->k + s->b * a->k_batch + s->head * a->k_head;
    const float *values = a->v + s->b * a->v_batch + s->head * a->v_head + column0;
    int32_t columns = (int32_t)pm_cu_min(a->value_dim - column0, pm_cu_mma_columns(a->head_dim));
    pm_cu_mma_begin(a, s, &t, row0, column0);
    pm_cu_sees(a, s, row0 / a->group, &first, &unused);
    pm_cu_sees(a, s, last_row / a->group, &unused, &last);
    for (int64_t key0 = first / CU_FLASH_KEYS * CU_FLASH_KEYS; key0 < last; key0 += CU_FLASH_KEYS) {
        int32_t from = (int32_t)pm_cu_max(first - key0, 0), to = (int32_t)pm_cu_min(last - key0, CU_FLASH_KEYS);
        float score[CU_FLASH_KEYS / 8][4];
        PM_UNROLL for (int32_t i = 0; i < CU_FLASH_KEYS / 2; i++)
            score[i / 4][i % 4] = 0.0f;
        for (int64_t d0 = 0; d0 < a->head_dim; d0 += CU_FLASH_STEP) {
            pm_sync();
            if (a->k_row)
                pm_cu_mma_keys(a, keys, shared->key, key0, from, to, d0);
            else
                pm_cu_mma_turned_keys(a, keys, shared->key, key0, from, to, d0);
            if (d0 == 0)
                pm_cu_mma_values(a, values, shared->value, key0, from, to, columns);
            pm_sync();
            pm_cu_mma_scores(&t, shared->key, d0, a->k_row == 0, score);
        }
        pm_cu_mma_weigh(a, s, &t, key0, score);
        pm_cu_mma_add(&t, shared->value, score);
    }
    pm_cu_mma_end(a, s, &t);
}

#endif
