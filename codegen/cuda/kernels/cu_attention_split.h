/// Attention of few rows (decode): the keys are split among blocks in fixed pieces, and a second kernel puts the
/// pieces together.
#ifndef PM_CU_ATTENTION_SPLIT_H
#define PM_CU_ATTENTION_SPLIT_H

#include "codegen/cuda/kernels/cu_attention.h"

enum {
    CU_SPLIT_KEYS = 256, /* of a block; a thread for each */
    CU_SPLIT_THREADS = 256,
    CU_SPLIT_WARPS = CU_SPLIT_THREADS / CU_WARP,
    CU_SPLIT_STEP = 64,  /* elements of the queries in shared memory at a time */
    CU_STAGE_STEP = 16,  /* of keys, where they lie row by row */
};

/* Rows of a block: those of one token, or 8. */
enum { CU_SPLIT_MAX_ROWS = 8 };
#if defined(PM_CONST_HEADS) && defined(PM_CONST_KV_HEADS)
enum {
    CU_SPLIT_GROUP = PM_CONST_HEADS / PM_CONST_KV_HEADS,
    CU_SPLIT_ROWS = CU_SPLIT_GROUP < CU_SPLIT_MAX_ROWS ? CU_SPLIT_GROUP : CU_SPLIT_MAX_ROWS
};
#else
enum { CU_SPLIT_ROWS = CU_SPLIT_MAX_ROWS }; /* room for them */
#endif

PM_DEVICE int64_t pm_cu_split_rows(int64_t group)
{
    return pm_cu_min(group, CU_SPLIT_MAX_ROWS);
}

/// What blocks leave for each row and split: its largest score, the sum of its weights, and the values' sum.
enum { CU_PARTIAL_LARGEST, CU_PARTIAL_TOTAL, CU_PARTIAL_SUM };

/// Shared memory of a block.
typedef struct cu_split_shared {
    float query[CU_SPLIT_STEP * CU_SPLIT_ROWS];
    float weight[CU_SPLIT_KEYS * CU_SPLIT_ROWS];
    float parts[CU_SPLIT_WARPS * CU_SPLIT_ROWS];
    float staged[CU_STAGE_STEP * (CU_SPLIT_KEYS + 1)];
} cu_split_shared;

/// Products of the rows with this thread's key.
PM_DEVICE void pm_cu_split_scores(const cu_attention *a, const cu_sight *s, cu_split_shared *shared,
                                  int64_t row0, int64_t key0, int64_t end, float *score)
{
    int64_t key = key0 + pm_thread(), hd = a->head_dim;
    int32_t is_there = key < end, step = a->k_row ? CU_STAGE_STEP : CU_SPLIT_STEP;
    const float *keys = a->k + s->b * a->k_batch + s->head * a->k_head;
    const float *own = keys + key / CU_KEY_LANES * CU_KEY_LANES * hd + key % CU_KEY_LANES;
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
        score[r] = 0.0f;
    for (int64_t d0 = 0; d0 < hd; d0 += step) {
        int32_t n = (int32_t)pm_cu_min(hd - d0, step);
        pm_sync();
        for (int32_t i = pm_thread(); i < n * CU_SPLIT_ROWS; i += CU_SPLIT_THREADS) {
            int64_t row = row0 + i / n;
            shared->query[i % n * CU_SPLIT_ROWS + i / n] =
                row < a->rows ? a->q[pm_cu_row_at(a, s, row, hd) + d0 + i % n] : 0.0f;
        }
        if (a->k_row) {
            for (int32_t i = pm_thread(); i < n * CU_SPLIT_KEYS; i += CU_SPLIT_THREADS) {
                int64_t at = key0 + i / n;
                shared->staged[i % n * (CU_SPLIT_KEYS + 1) + i / n] =
                    at < end ? keys[at * a->k_row + d0 + i % n] : 0.0f;
            }
        }
        pm_sync();
        if (!is_there)
            continue;
        PM_UNROLL_BY(8) for (int32_t d = 0; d < n; d++)
        {
            float x = a->k_row ? shared->staged[d * (CU_SPLIT_KEYS + 1) + pm_thread()]
                               : own[(d0 + d) * CU_KEY_LANES];
            PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
                score[r] = pm_fmaf(shared->query[d * CU_SPLIT_ROWS + r], x, score[r]);
        }
    }
}

/// The rows' largest scores or sums over the block; x: this thread's, and then the block's.
PM_DEVICE void pm_cu_split_reduce(float *x, float *parts, int32_t is_max)
{
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
    {
        x[r] = is_max ? pm_cu_warp_max(x[r]) : pm_cu_warp_sum(x[r]);
        if (pm_lane() == 0)
            parts[pm_warp() * CU_SPLIT_ROWS + r] = x[r];
    }
    pm_sync();
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
    {
        x[r] = parts[r];
        PM_UNROLL for (int32_t w = 1; w < CU_SPLIT_WARPS; w++)
        {
            float other = parts[w * CU_SPLIT_ROWS + r];
            x[r] = is_max ? pm_cu_larger(x[r], other) : x[r] + other;
        }
    }
    pm_sync();
}

/// The values of keys first..last (of the split), weighed, for all rows: `columns` of them from `column0` on at a
/// time, for which 256 / columns parts of the block take every so many keys (of the split: whoever else sees it).
PM_DEVICE void pm_cu_split_values(const cu_attention *a, const cu_sight *s, cu_split_shared *shared,
                                  int64_t key0, int32_t first, int32_t last, int64_t column0, float *partial,
                                  int64_t partial_ld, int32_t rows)
{
    int32_t columns = (int32_t)pm_cu_min(a->value_dim - column0, CU_SPLIT_THREADS);
    int32_t parts = CU_SPLIT_THREADS / columns, part = pm_thread() / columns, column = pm_thread() % columns;
    const float *values = a->v + s->b * a->v_batch + s->head * a->v_head + key0 * a->v_row + column0 + column;
    float sum[CU_SPLIT_ROWS];
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
        sum[r] = 0.0f;
    if (part < parts) {
        PM_UNROLL_BY(4) for (int32_t i = first / parts * parts + part; i < last; i += parts)
        {
            float x = values[i * a->v_row];
            PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
            {
                float w = shared->weight[i * CU_SPLIT_ROWS + r];
                sum[r] = w != 0.0f ? pm_fmaf(w, x, sum[r]) : sum[r]; /* one that isn't seen may be no number */
            }
        }
    }
    pm_sync(); /* the weights become the parts' sums: [part][row][column] */
    if (part < parts) {
        PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
            shared->weight[(part * CU_SPLIT_ROWS + r) * columns + column] = sum[r];
    }
    pm_sync();
    for (int32_t i = pm_thread(); i < rows * columns; i += CU_SPLIT_THREADS) {
        float total = 0.0f;
        for (int32_t p = 0; p < parts; p++)
            total += shared->weight[p * CU_SPLIT_ROWS * columns + i];
        partial[i / columns * partial_ld + CU_PARTIAL_SUM + column0 + i % columns] = total;
    }
}

/// Elements of what one row leaves for each split.
PM_DEVICE int64_t pm_cu_partial_size(const cu_attention *a)
{
    return a->value_dim + CU_PARTIAL_SUM;
}

/// One split of the keys, for a block's rows from row0 on. partial: [rows of all][splits][value_dim + 2].
PM_DEVICE void pm_cu_split(const cu_attention *a, const cu_sight *s, cu_split_shared *shared, int64_t row0,
                           int64_t split, int64_t splits, float *partial)
{
    int64_t key0 = split * CU_SPLIT_KEYS, key = key0 + pm_thread(), begin, end, first, last, unused;
    int32_t rows = (int32_t)pm_cu_min(a->rows - row0, pm_cu_split_rows(a->group));
    float score[CU_SPLIT_ROWS], largest[CU_SPLIT_ROWS];
    pm_cu_sees(a, s, row0 / a->group, &first, &unused);
    pm_cu_sees(a, s, (row0 + rows - 1) / a->group, &unused, &last);
    if (last <= key0 || first >= key0 + CU_SPLIT_KEYS || first >= last)
        return; /* no row sees anything here */
    pm_cu_split_scores(a, s, shared, row0, key0, last, score);
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
    {
        begin = end = 0;
        if (r < rows)
            pm_cu_sees(a, s, (row0 + r) / a->group, &begin, &end);
        score[r] = key >= begin && key < end ? pm_cu_score(a, s, row0 + r, key, score[r]) : -PM_INFINITY;
        largest[r] = score[r];
    }
    pm_cu_split_reduce(largest, shared->parts, 1);
    int64_t partial_ld = splits * pm_cu_partial_size(a);
    float *to = partial + ((s->place * a->rows + row0) * splits + split) *
                              pm_cu_partial_size(a);
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
    {
        score[r] = score[r] == -PM_INFINITY ? 0.0f : pm_expf(score[r] - largest[r]);
        if (pm_thread() == 0 && r < rows)
            to[r * partial_ld + CU_PARTIAL_LARGEST] = largest[r];
    }
    int32_t from = (int32_t)pm_cu_max(first - key0, 0), to_key = (int32_t)pm_cu_min(last - key0, CU_SPLIT_KEYS);
    for (int64_t column = 0; column < a->value_dim; column += CU_SPLIT_THREADS) {
        PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
            shared->weight[pm_thread() * CU_SPLIT_ROWS + r] = score[r];
        pm_sync();
        pm_cu_split_values(a, s, shared, key0, from, to_key, column, to, partial_ld, rows);
        pm_sync();
    }
    pm_cu_split_reduce(score, shared->parts, 0);
    PM_UNROLL for (int32_t r = 0; r < CU_SPLIT_ROWS; r++)
    {
        if (pm_thread() == 0 && r < rows)
            to[r * partial_ld + CU_PARTIAL_TOTAL] = score[r];
    }
}

/// Puts a row's splits together; a block for each row.
PM_DEVICE void pm_cu_join(const cu_attention *a, const cu_sight *s, int64_t row, int64_t splits,
                          const float *partial)
{
    int64_t size = pm_cu_partial_size(a), first, last;
    int64_t head = s->head * a->group + row % a->group;
    float largest = a->sinks ? a->sinks[head] : -PM_INFINITY, total = a->sinks ? 1.0f : 0.0f;
    const float *from = partial + (s->place * a->rows + row) * splits * size;
    pm_cu_sees(a, s, row / a->group, &first, &last);
    first = first / CU_SPLIT_KEYS;
    last = pm_cu_ceil_div(last, CU_SPLIT_KEYS);
    for (int64_t i = first; i < last; i++)
        largest = pm_cu_larger(largest, from[i * size + CU_PARTIAL_LARGEST]);
    if (largest == -PM_INFINITY)
        last = first; /* nothing is seen */
    else if (a->sinks)
        total = pm_expf(a->sinks[head] - largest);
    for (int64_t i = first; i < last; i++)
        total = pm_fmaf(from[i * size + CU_PARTIAL_TOTAL],
                        pm_expf(from[i * size + CU_PARTIAL_LARGEST] - largest), total);
    float *to = a->out + pm_cu_row_at(a, s, row, a->value_dim);
    for (int64_t d = pm_thread(); d < a->value_dim; d += pm_threads()) {
        float sum = 0.0f;
        for (int64_t i = first; i < last; i++)
            sum = pm_fmaf(from[i * size + CU_PARTIAL_SUM + d],
                          pm_expf(from[i * size + CU_PARTIAL_LARGEST] - largest), sum);
        to[d] = total == 0.0f ? a->nothing : sum / total;
    }
}

#endif
