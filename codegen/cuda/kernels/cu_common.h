/// What templates that are no products share: sums and maxima over warps and blocks, small arithmetic.
///
/// Sums run over a fixed tree (lanes by halving distance, then warps in order), so a row's bits follow from its
/// length and the number of threads alone.
#ifndef PM_CU_COMMON_H
#define PM_CU_COMMON_H

#include "codegen/cuda/kernels/cuda_kernel.h"

enum { CU_WARP = 32 };

/// Floats that are moved together.
typedef struct PM_ALIGN(8) cu_pair {
    float at[2];
} cu_pair;

typedef struct PM_ALIGN(16) cu_four {
    float at[4];
} cu_four;

PM_DEVICE int64_t pm_cu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

PM_DEVICE int64_t pm_cu_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

PM_DEVICE int64_t pm_cu_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

PM_DEVICE float pm_cu_larger(float a, float b)
{
    return a > b ? a : b;
}

/// All lanes get the sum.
PM_DEVICE float pm_cu_warp_sum(float x)
{
    PM_UNROLL for (int32_t step = CU_WARP / 2; step > 0; step /= 2)
        x += pm_shfl_xor_f32(x, step);
    return x;
}

/// Each lane gets the sum of those up to it, and its own.
PM_DEVICE int32_t pm_cu_warp_sum_before(int32_t x)
{
    for (int32_t step = 1; step < CU_WARP; step *= 2) {
        int32_t other = (int32_t)pm_shfl_u32((uint32_t)x, pm_lane() >= step ? pm_lane() - step : pm_lane());
        x += pm_lane() >= step ? other : 0;
    }
    return x;
}

/// NaNs don't count.
PM_DEVICE float pm_cu_warp_max(float x)
{
    PM_UNROLL for (int32_t step = CU_WARP / 2; step > 0; step /= 2)
        x = pm_cu_larger(x, pm_shfl_xor_f32(x, step));
    return x;
}

/// Of all threads of a block; parts: shared, one float for each warp. All threads call it, and get the sum.
PM_DEVICE float pm_cu_block_sum(float x, float *parts)
{
    float sum = 0.0f;
    x = pm_cu_warp_sum(x);
    if (pm_lane() == 0)
        parts[pm_warp()] = x;
    pm_sync();
    for (int32_t i = 0; i < pm_threads() / CU_WARP; i++)
        sum += parts[i];
    pm_sync();
    return sum;
}

PM_DEVICE float pm_cu_block_max(float x, float *parts)
{
    float largest;
    x = pm_cu_warp_max(x);
    if (pm_lane() == 0)
        parts[pm_warp()] = x;
    pm_sync();
    largest = parts[0];
    for (int32_t i = 1; i < pm_threads() / CU_WARP; i++)
        largest = pm_cu_larger(largest, parts[i]);
    pm_sync();
    return largest;
}

/// Number of bits that are set.
PM_DEVICE int32_t pm_cu_count_bits(uint32_t x)
{
    x = x - (x >> 1 & 0x55555555u);
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    return (int32_t)(((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}

#endif
