/* Rotary position embedding of queries and keys. */
#include "codegen/kernels/vec.h"

/// 2 * half elements of a head, as two halves.
PM_INLINE void rotate_halves(const float *x, const float *cosine, const float *sine, float *out,
                             int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        out[i] = a * cosine[i] - b * sine[i];
        out[half + i] = b * cosine[i] + a * sine[i];
    }
}

/// The same, as pairs of neighbours.
PM_INLINE void rotate_pairs(const float *x, const float *cosine, const float *sine, float *out,
                            int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        out[2 * i] = a * cosine[i] - b * sine[i];
        out[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
}

PM_KERNEL void pm_k_rope(const float *restrict x, const float *restrict table, float *restrict out,
                         int64_t rows, int64_t heads, int64_t head_dim, int64_t half,
                         int64_t offset, int64_t interleaved, int64_t worker,
                         int64_t n_workers)
{
    int64_t begin, end;
    pm_share(rows * heads, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t at = begin; at < end; at++)
    {
        const float *cosine = table + at / heads * 2 * half, *sine = cosine + half;
        const float *from = x + at * head_dim;
        float *to = out + at * head_dim;
        if (interleaved)
            rotate_pairs(from + offset, cosine, sine, to + offset, half);
        else
            rotate_halves(from + offset, cosine, sine, to + offset, half);
        for (int64_t i = 0; i < offset; i++)
            to[i] = from[i];
        for (int64_t i = offset + 2 * half; i < head_dim; i++)
            to[i] = from[i];
    }
}
