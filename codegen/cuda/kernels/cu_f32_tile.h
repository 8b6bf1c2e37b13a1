/// Tiles of 64 by 64 in exact f32, for products of weights and of matrices: what threads have, and how factors lie in shared
/// memory.
///
/// Thread 16 * y + x of 128 has rows y, y + 8 … and columns x, x + 16 … of a tile. Factors lie [row][k] in shared memory,
/// rows 20 floats apart: eight lanes that read four floats of a row each touch all banks once. While a step of k is
/// multiplied, the next one is on its way in registers. Each sum is one chain, k upward.
#ifndef PM_CU_F32_TILE_H
#define PM_CU_F32_TILE_H

#include "codegen/cuda/kernels/cu_weight.h"

enum {
    CU_F32_THREADS = 128,
    CU_F32_STEP = 16,
    CU_F32_LD = CU_F32_STEP + 4,
    CU_F32_X = 16,
    CU_F32_Y = CU_F32_THREADS / CU_F32_X,
    CU_F32_HIGH = CU_F32_ROWS / CU_F32_Y,    /* rows of a thread */
    CU_F32_WIDE = CU_F32_COLUMNS / CU_F32_X, /* columns */
    CU_F32_EIGHTS = CU_F32_STEP / CU_EIGHT,  /* of a row, of which a thread loads one: rows are as many as columns */
    CU_F32_SIDE = CU_F32_ROWS * CU_F32_LD    /* floats of a step's rows, or of its columns */
};

/// Row or column of a tile that this thread loads eight factors of: lanes have different ones.
PM_DEVICE int32_t pm_cu_f32_row(void)
{
    return pm_lane() + pm_warp() / CU_F32_EIGHTS * CU_WARP;
}

/// The first of these eight.
PM_DEVICE int32_t pm_cu_f32_k(void)
{
    return pm_warp() % CU_F32_EIGHTS * CU_EIGHT;
}

/// Puts a thread's eight factors where they belong.
PM_DEVICE void pm_cu_f32_put(float *tile, const float *eight)
{
    float *to = tile + pm_cu_f32_row() * CU_F32_LD + pm_cu_f32_k();
    PM_UNROLL for (int32_t half = 0; half < 2; half++)
    {
        cu_four four;
        PM_UNROLL for (int32_t j = 0; j < 4; j++)
            four.at[j] = eight[4 * half + j];
        ((cu_four *)to)[half] = four;
    }
}

PM_DEVICE void pm_cu_f32_clear(float sum[CU_F32_HIGH][CU_F32_WIDE])
{
    PM_UNROLL for (int32_t i = 0; i < CU_F32_HIGH * CU_F32_WIDE; i++)
        sum[i / CU_F32_WIDE][i % CU_F32_WIDE] = 0.0f;
}

PM_DEVICE void pm_cu_f32_multiply(const float *rows, const float *columns, float sum[CU_F32_HIGH][CU_F32_WIDE])
{
    int32_t y = pm_thread() / CU_F32_X, x = pm_thread() % CU_F32_X;
    PM_UNROLL_BY(2) for (int32_t k = 0; k < CU_F32_STEP; k += 4)
    {
        cu_four w[CU_F32_WIDE];
        PM_UNROLL for (int32_t j = 0; j < CU_F32_WIDE; j++)
            w[j] = *(const cu_four *)(columns + (x + j * CU_F32_X) * CU_F32_LD + k);
        PM_UNROLL for (int32_t i = 0; i < CU_F32_HIGH; i++)
        {
            cu_four a = *(const cu_four *)(rows + (y + i * CU_F32_Y) * CU_F32_LD + k);
            PM_UNROLL for (int32_t j = 0; j < CU_F32_WIDE; j++)
                PM_UNROLL for (int32_t u = 0; u < 4; u++)
                    sum[i][j] = pm_fmaf(a.at[u], w[j].at[u], sum[i][j]);
        }
    }
}

#endif
