/// Attention of many rows (prefill): a block goes through the keys of a tile of rows with online softmax, in exact
/// f32 on CUDA cores.
#ifndef PM_CU_ATTENTION_TILE_H
#define PM_CU_ATTENTION_TILE_H

#include "codegen/cuda/kernels/cu_attention.h"

/* A thread has 4 rows and 4 keys of a block's scores, then the same rows and every 16th group of 4 columns of the
 * sums: thread 16 * y + x has rows 4 * y …, keys 4 * x …, columns 64 * i + 4 * x …. */
enum {
    CU_TILE_ROWS = 64,
    CU_TILE_KEYS = 64,
    CU_TILE_THREADS = 256,
    CU_TILE_STEP = 32,        /* elements of queries and keys in shared memory at a time */
    CU_TILE_LD = CU_TILE_ROWS + 4,
    CU_TILE_MAX_COLUMNS = 256 /* of the values; blocks share what is more */
};

#ifdef PM_CONST_VALUE_DIM
enum { CU_TILE_COLUMNS = PM_CONST_VALUE_DIM < CU_TILE_MAX_COLUMNS ? PM_CONST_VALUE_DIM : CU_TILE_MAX_COLUMNS };
#else
enum { CU_TILE_COLUMNS = CU_TILE_MAX_COLUMNS };
#endif
enum {
    CU_TILE_GROUPS = (CU_TILE_COLUMNS + 63) / 64,
    CU_TILE_WIDTH = CU_TILE_GROUPS * 64,
    CU_TILE_VALUES = CU_TILE_WIDTH > 128 ? 8 : 16 /* keys whose values are in shared memory, which has 48 KiB */
};

typedef struct cu_tile_shared {
    PM_ALIGN(16) float query[CU_TILE_STEP * CU_TILE_LD], key[CU_TILE_STEP * CU_TILE_LD]; ///< [element][row or key]
    float weight[CU_TILE_KEYS * CU_TILE_ROWS]; ///< pm_cu_tile_weight
    float value[CU_TILE_VALUES * CU_TILE_WIDTH];
} cu_tile_shared;

/// A thread's part of a tile.
typedef struct cu_tile {
    int64_t row0, column0;
    int32_t y, x; ///< rows 4 * y …
    int64_t begin[4], end[4];
    float largest[4], total[4];
    float sum[4][CU_TILE_GROUPS * 4];
} cu_tile;

/// Where the weights of a key for rows 4 * y … lie: eight lanes that write those of every fourth key, four floats each,
/// touch all banks once.
PM_DEVICE int32_t pm_cu_tile_weight(int32_t key, int32_t y)
{
    return key * CU_TILE_ROWS + (y ^ (key / 4 & 15)) * 4;
}

/// Element and row of what a thread brings i-th of rows that are turned: a warp has eight elements of four rows, which are
/// whole sectors there and touch all banks here.
PM_DEVICE int32_t pm_cu_tile_element(int32_t i)
{
    return i / (8 * CU_TILE_ROWS) * 8 + i % 8;
}

PM_DEVICE int32_t pm_cu_tile_row(int32_t i)
{
    return i / 8 % CU_TILE_ROWS;
}

/// Elements d0..d0+n of the tile's queries and of the block's keys before `end`, turned.
PM_DEVICE void pm_cu_tile_load(const cu_attention *a, const cu_sight *s, cu_tile_shared *shared, int64_t row0,
                               int64_t key0, int64_t end, int64_t d0, int32_t n)
{
    const float *keys = a->k + s->b * a->k_batch + s->head * a->k_head;
    PM_UNROLL_BY(2) for (int32_t i = pm_thread(); i < CU_TILE_STEP * CU_TILE_ROWS; i += CU_TILE_THREADS)
    {
        int32_t d = pm_cu_tile_element(i), at = pm_cu_tile_row(i);
        int64_t row = row0 + at;
        if (d < n)
            shared->query[d * CU_TILE_LD + at] =
                row < a->rows ? a->q[pm_cu_row_at(a, s, row, a->head_dim) + d0 + d] : 0.0f;
    }
    PM_NO_UNROLL for (int32_t i = pm_thread(); i < CU_TILE_STEP * CU_TILE_KEYS; i += CU_TILE_THREADS)
    {
        int32_t d = a->k_row ? pm_cu_tile_element(i) : i / CU_KEY_LANES % CU_TILE_STEP;
        int32_t at = a->k_row ? pm_cu_tile_row(i) : i / (CU_KEY_LANES * CU_TILE_STEP) * CU_KEY_LANES + i % CU_KEY_LANES;
        int64_t key = key0 + at;
        if (d >= n)
            continue;
        int64_t from = a->k_row ? key * a->k_row + d0 + d
                                : (key / CU_KEY_LANES * a->head_dim + d0 + d) * CU_KEY_LANES + key % CU_KEY_LANES;
        shared->key[d * CU_TILE_LD + at] = key < end ? keys[from] : 0.0f;
    }
}

/// A block's products: score[i][j] of this thread's row i and key j.
PM_DEVICE void pm_cu_tile_products(const cu_attention *a, const cu_sight *s, cu_tile_shared *shared,
                                   const cu_tile *t, int64_t key0, int64_t end, float score[4][4])
{
    PM_UNROLL for (int32_t i = 0; i < 16; i++)
        score[i / 4][i % 4] = 0.0f;
    for (int64_t d0 = 0; d0 < a->head_dim; d0 += CU_TILE_STEP) {
        int32_t n = (int32_t)pm_cu_min(a->head_dim - d0, CU_TILE_STEP);
        pm_sync();
        pm_cu_tile_load(a, s, shared, t->row0, key0, end, d0, n);
        pm_sync();
        PM_UNROLL_BY(8) for (int32_t d = 0; d < n; d++)
        {
            const float *q = shared->query + d * CU_TILE_LD + 4 * t->y;
            const float *k = shared->key + d * CU_TILE_LD + 4 * t->x;
            PM_UNROLL for (int32_t i = 0; i < 16; i++)
                score[i / 4][i % 4] = pm_fmaf(q[i / 4], k[i % 4], score[i / 4][i % 4]);
        }
    }
}

/// Sums or maxima over the 16 threads that share rows.
PM_DEVICE float pm_cu_row_reduce(float x, int32_t is_max)
{
    PM_UNROLL for (int32_t step = 8; step > 0; step /= 2)
    {
        float other = pm_shfl_xor_f32(x, step);
        x = is_max ? pm_cu_larger(x, other) : x + other;
    }
    return x;
}

/// Turns a block's products into weights, in shared memory too; scales what there was before.
PM_DEVICE void pm_cu_tile_weigh(const cu_attention *a, const cu_sight *s, cu_tile_shared *shared, cu_tile *t,
                                int64_t key0, float score[4][4])
{
    PM_UNROLL for (int32_t i = 0; i < 4; i++)
    {
        float now = -PM_INFINITY, total = 0.0f;
        int32_t begin = pm_cu_within(t->begin[i] - key0, CU_TILE_KEYS);
        int32_t end = pm_cu_within(t->end[i] - key0, CU_TILE_KEYS);
        PM_UNROLL for (int32_t j = 0; j < 4; j++)
        {
            int32_t key = 4 * t->x + j;
            score[i][j] = key >= begin && key < end
                              ? pm_cu_score(a, s, t->row0 + 4 * t->y + i, key0 + key, score[i][j])
                              : -PM_INFINITY;
            now = pm_cu_larger(now, score[i][j]);
        }
        now = pm_cu_larger(pm_cu_row_reduce(now, 1), t->largest[i]);
        PM_UNROLL for (int32_t j = 0; j < 4; j++)
        {
            score[i][j] = score[i][j] == -PM_INFINITY ? 0.0f : pm_expf(score[i][j] - now);
            total += score[i][j];
        }
        float factor = t->largest[i] == now ? 1.0f : pm_expf(t->largest[i] - now);
        t->total[i] = t->total[i] * factor + pm_cu_row_reduce(total, 0);
        t->largest[i] = now;
        PM_UNROLL for (int32_t c = 0; c < CU_TILE_GROUPS * 4; c++)
            t->sum[i][c] *= factor;
    }
    PM_UNROLL for (int32_t j = 0; j < 4; j++)
    {
        cu_four w;
        PM_UNROLL for (int32_t i = 0; i < 4; i++)
            w.at[i] = score[i][j];
        *(cu_four *)(shared->weight + pm_cu_tile_weight(4 * t->x + j, t->y)) = w;
    }
}

/// Adds keys first..last of the block times their weights. all: every row sees all of them; else a key that a row
/// doesn't see must not even be multiplied by its weight 0, for it may be no number.
PM_DEVICE void pm_cu_tile_values(const cu_attention *a, const cu_sight *s, cu_tile_shared *shared, cu_tile *t,
                                 int64_t key0, int32_t first, int32_t last, int32_t all)
{
    const float *values = a->v + s->b * a->v_batch + s->head * a->v_head + t->column0;
    int32_t columns = (int32_t)pm_cu_min(a->value_dim - t->column0, CU_TILE_COLUMNS);
    for (int32_t from = first / CU_TILE_VALUES * CU_TILE_VALUES; from < last; from += CU_TILE_VALUES) {
        pm_sync();
        for (int32_t i = pm_thread(); i < CU_TILE_VALUES * CU_TILE_WIDTH; i += CU_TILE_THREADS) {
            int32_t key = from + i / CU_TILE_WIDTH, column = i % CU_TILE_WIDTH;
            shared->value[i] = key >= first && key < last && column < columns
                                   ? values[(key0 + key) * a->v_row + column]
                                   : 0.0f;
        }
        pm_sync();
        for (int32_t k = 0; k < CU_TILE_VALUES; k++) {
            const float *w = shared->weight + pm_cu_tile_weight(from + k, t->y);
            PM_UNROLL for (int32_t g = 0; g < CU_TILE_GROUPS; g++)
            {
                const float *v = shared->value + k * CU_TILE_WIDTH + 64 * g + 4 * t->x;
                PM_UNROLL for (int32_t i = 0; i < 16; i++)
                {
                    float *sum = &t->sum[i / 4][4 * g + i % 4];
                    if (all || w[i / 4] != 0.0f)
                        *sum = pm_fmaf(w[i / 4], v[i % 4], *sum);
                }
            }
        }
    }
}

/// Rows row0 … of one key-value head, and CU_TILE_COLUMNS columns of their values from column0 on.
PM_DEVICE void pm_cu_tile_rows(const cu_attention *a, const cu_sight *s, cu_tile_shared *shared, int64_t row0,
                               int64_t column0)
{
    cu_tile t;
    int64_t first, last, all_begin, all_end;
    int64_t last_row = pm_cu_min(row0 + CU_TILE_ROWS, a->rows) - 1;
    t.row0 = row0;
    t.column0 = column0;
    t.y = pm_thread() / 16;
    t.x = pm_thread() % 16;
    PM_UNROLL for (int32_t i = 0; i < 4; i++)
    {
        int64_t row = row0 + 4 * t.y + i, head = s->head * a->group + row % a->group;
        t.begin[i] = t.end[i] = 0;
        t.largest[i] = -PM_INFINITY;
        t.total[i] = 0.0f;
        if (row < a->rows) {
            pm_cu_sees(a, s, row / a->group, &t.begin[i], &t.end[i]);
            if (a->sinks) { /* as a key without a value that was seen first */
                t.largest[i] = a->sinks[head];
                t.total[i] = 1.0f;
            }
        }
        PM_UNROLL for (int32_t c = 0; c < CU_TILE_GROUPS * 4; c++)
            t.sum[i][c] = 0.0f;
    }
    pm_cu_sees(a, s, row0 / a->group, &first, &all_end);
    pm_cu_sees(a, s, last_row / a->group, &all_begin, &last);
    for (int64_t key0 = first / CU_TILE_KEYS * CU_TILE_KEYS; key0 < last; key0 += CU_TILE_KEYS) {
        float score[4][4];
        int32_t all = key0 >= all_begin && key0 + CU_TILE_KEYS <= all_end && a->add_kind < CU_ADD_FLOATS;
        pm_cu_tile_products(a, s, shared, &t, key0, last, score);
        pm_cu_tile_weigh(a, s, shared, &t, key0, score);
        pm_cu_tile_values(a, s, shared, &t, key0, (int32_t)pm_cu_max(first - key0, 0),
                          (int32_t)pm_cu_min(last - key0, CU_TILE_KEYS), all);
    }
    PM_UNROLL for (int32_t i = 0; i < 4; i++)
    {
        int64_t row = row0 + 4 * t.y + i;
        if (row >= a->rows)
            continue;
        float *to = a->out + pm_cu_row_at(a, s, row, a->value_dim);
        PM_UNROLL for (int32_t c = 0; c < CU_TILE_GROUPS * 4; c++)
        {
            int64_t column = column0 + c / 4 * 64 + 4 * t.x + c % 4;
            if (column < pm_cu_min(a->value_dim, column0 + CU_TILE_COLUMNS))
                to[column] = t.total[i] == 0.0f ? a->nothing : t.sum[i][c] / t.total[i];
        }
    }
}

#endif
