/* Cosines and sines of the positions. */
#include "codegen/kernels/vec.h"

PM_KERNEL void pm_k_rope_table(const int64_t *past, const float *inv_freq, float *table,
                               int64_t batch, int64_t t, int64_t half, float scale, int64_t worker,
                               int64_t n_workers)
{
    int64_t begin, end;
    pm_share(batch * t, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t row = begin; row < end; row++)
    {
        float position = (float)(past[row / t] + row % t);
        float *to = table + row * 2 * half;
        for (int64_t i = 0; i < half; i++) {
            float angle = position * inv_freq[i];
            to[i] = pm_m_cos(angle) * scale;
            to[half + i] = pm_m_sin(angle) * scale;
        }
    }
}
