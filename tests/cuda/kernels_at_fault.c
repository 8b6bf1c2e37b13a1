/* Kernels with one fault each, for test_cu_check.c, beside what is right. */
#include "codegen/cuda/kernels/cuda_kernel.h"

/// x of the block turned round, through shared memory.
PM_GLOBAL void pm_cu_turn(float *y, const float *x, int64_t meets)
{
    PM_SHARED(float, all, 128);
    int32_t t = pm_thread();
    all[t] = x[t];
    if (meets)
        pm_sync();
    y[t] = all[127 - t];
}

PM_GLOBAL void pm_cu_pass_warp(float *y, const float *x, int64_t meets)
{
    PM_SHARED(float, all, 64);
    int32_t t = pm_thread();
    all[t] = x[t];
    if (meets)
        pm_sync_warp();
    y[t] = all[t ^ 1];
}

PM_GLOBAL void pm_cu_reach(float *y, const float *x, int64_t n, int64_t extra)
{
    int64_t i = pm_block() * pm_threads() + pm_thread();
    if (i < n)
        y[i] = x[i + extra];
}

PM_GLOBAL void pm_cu_reach_shared(float *y, int64_t count)
{
    PM_SHARED(float, before, 64);
    float *all = (float *)pm_dynamic_shared();
    before[pm_thread()] = 1.0f;
    for (int64_t i = pm_thread(); i < count; i += pm_threads())
        all[i] = 2.0f;
    pm_sync();
    y[pm_thread()] = all[pm_thread()] + before[pm_thread()];
}

PM_GLOBAL void pm_cu_unwritten(float *y)
{
    PM_SHARED(float, all, 64);
    if (pm_thread() < 31)
        all[pm_thread()] = 1.0f;
    pm_sync();
    y[pm_thread()] = all[pm_thread()];
}

/// Four floats a thread on their way beside.
PM_GLOBAL void pm_cu_fetch(float *y, const float *x, int64_t commits, int64_t left, int64_t syncs)
{
    PM_SHARED(float, all, 128);
    int32_t t = pm_thread();
    pm_cp_async16(all + 4 * t, x + 4 * t, 16);
    if (commits)
        pm_cp_async_commit();
    if (left)
        pm_cp_async_wait(1);
    else
        pm_cp_async_wait(0);
    if (syncs)
        pm_sync();
    for (int32_t i = 0; i < 4; i++)
        y[i * 32 + t] = all[i * 32 + t];
}

/// Two stages: the barrier that keeps a copy from a stage that others still read is there or not.
PM_GLOBAL void pm_cu_stages(float *y, const float *x, int64_t n, int64_t syncs)
{
    PM_SHARED(float, all, 2 * 256);
    int32_t t = pm_thread();
    float sum = 0.0f;
    pm_cp_async16(all + 4 * t, x + 4 * t, 16);
    pm_cp_async_commit();
    for (int64_t i = 0; i < n; i++) {
        if (i + 1 < n)
            pm_cp_async16(all + (i + 1) % 2 * 256 + 4 * t, x + (i + 1) * 256 + 4 * t, 16);
        pm_cp_async_commit();
        pm_cp_async_wait(1);
        pm_sync();
        for (int32_t j = 0; j < 4; j++)
            sum += all[i % 2 * 256 + (4 * t + j * 77) % 256];
        if (syncs)
            pm_sync();
    }
    y[t] = sum;
}

/// Threads that don't meet.
PM_GLOBAL void pm_cu_part(float *y, int64_t kind)
{
    int32_t t = pm_thread();
    if (kind == 1 && t == 40)
        return;
    if (kind == 2 && t == 5)
        pm_sync_warp();
    if (kind == 3 && t >= 32) {
        pm_sync();
        y[t] = 1.0f;
    } else {
        pm_sync();
        y[t] = 2.0f;
    }
    if (kind == 4 && t < 8)
        y[t] = pm_shfl_f32((float)t, 3);
    if (kind == 5)
        y[t] = pm_lane() < 16 ? pm_shfl_f32((float)t, 3) : (float)pm_ballot(1);
    pm_sync();
}

/// Two blocks write one place.
PM_GLOBAL void pm_cu_both(float *y)
{
    y[pm_thread()] = (float)pm_block();
}

PM_GLOBAL void pm_cu_count(int32_t *n, int64_t atomic)
{
    if (atomic)
        pm_atomic_add_i32(n, 1);
    else
        *n += 1;
}

PM_GLOBAL void pm_cu_much(float *y)
{
    PM_SHARED(float, all, 60000);
    all[pm_thread()] = 1.0f;
    y[pm_thread()] = all[pm_thread()];
}

#if defined(PM_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// d [64][64] = a [64][depth] b [64][depth], depth a multiple of 64: 64 of k at a time through shared memory.
PM_GLOBAL void pm_cu_warpgroup(float *d, const uint16_t *a, const uint16_t *b, int64_t depth, int64_t swizzle, int64_t fault)
{
    enum { ROWS = 64, PART = 64 * 64 };
    uint16_t *sa = (uint16_t *)pm_aligned_matrix(pm_dynamic_shared()), *sb = sa + PART;
    int32_t t = pm_thread(), mode = (int32_t)swizzle, width = mode ? 128 >> mode : 8;
    float sum[32];
    PM_UNROLL for (int32_t i = 0; i < 32; i++)
        sum[i] = 0.0f;
    for (int64_t k = 0; k < depth; k += 64) {
        for (int32_t i = t; i < ROWS * 8; i += pm_threads()) {
            /* 16 bytes of row r: matrices of `width` elements of k lie one behind the other */
            int32_t r = i / 8, from = i % 8 * 8, part = from / width;
            int32_t at = part * ROWS * width * 2 + pm_swizzled((r * width + from % width) * 2, mode);
            pm_cp_async16((uint8_t *)sa + at, a + r * depth + k + from, 16);
            pm_cp_async16((uint8_t *)sb + at, b + r * depth + k + from, 16);
        }
        pm_cp_async_commit();
        if (fault != 1)
            pm_cp_async_wait(0);
        if (fault != 5)
            pm_fence_async();
        if (fault != 2)
            pm_sync();
        if (fault != 3)
            pm_wgmma_fence();
        for (int32_t step = 0; step < 64; step += 16) {
            /* not swizzled: the second half of 16 is the next matrix */
            int32_t part = step / width, at = part * ROWS * width + step % width;
            int32_t leading = ROWS * 16, stride = mode ? 16 * width : 128;
            pm_wgmma_bf16_n64(sum, pm_wgmma_matrix(sa + at, leading, stride, mode),
                              pm_wgmma_matrix(sb + at, leading, stride, mode));
        }
        pm_wgmma_commit();
        if (fault != 4)
            pm_wgmma_wait(0);
        pm_sync();
    }
    for (int32_t i = 0; i < 32; i++)
        d[(pm_warp() * 16 + pm_lane() / 4 + i % 4 / 2 * 8) * 64 + i / 4 * 8 + pm_lane() % 4 * 2 + i % 2] = sum[i];
}

/// The same by two warpgroups: one thread of the second has tiles brought into two stages, the first multiplies.
PM_GLOBAL void pm_cu_pipeline(float *d, const void *map_a, const void *map_b, int64_t depth, int64_t fault)
{
    enum { TILE = 64 * 64 * 2 };
    PM_SHARED(uint64_t, full, 2);
    PM_SHARED(uint64_t, empty, 2);
    uint8_t *tiles = pm_aligned_matrix(pm_dynamic_shared());
    int32_t t = pm_thread(), n = (int32_t)(depth / 64);
    if (t == 0)
        for (int32_t i = 0; i < 2; i++) {
            pm_mbarrier_init(full + i, 1);
            pm_mbarrier_init(empty + i, 128);
        }
    pm_fence_async();
    pm_sync();
    if (t == 128) {
        if (fault != 5)
            pm_tma_acquire(map_a);
        pm_tma_acquire(map_b);
        for (int32_t i = 0; i < n; i++) {
            int32_t s = i % 2;
            if (fault != 1)
                pm_mbarrier_wait(empty + s, (i / 2 & 1) ^ 1);
            pm_mbarrier_expect(full + s, fault == 2 ? TILE : 2 * TILE);
            pm_tma_load_3d(tiles + s * 2 * TILE, map_a, i * 64, 0, 0, full + s);
            pm_tma_load_3d(tiles + s * 2 * TILE + TILE, map_b, i * 64, 0, 0, full + s);
        }
    }
    if (t >= 128)
        return;
    float sum[32];
    PM_UNROLL for (int32_t i = 0; i < 32; i++)
        sum[i] = 0.0f;
    for (int32_t i = 0; i < n; i++) {
        int32_t s = i % 2;
        if (fault != 3)
            pm_mbarrier_wait(full + s, i / 2 & 1);
        pm_wgmma_fence();
        PM_UNROLL for (int32_t step = 0; step < 4; step++)
            pm_wgmma_bf16_n64(sum, pm_wgmma_matrix(tiles + s * 2 * TILE + step * 32, 16, 1024, PM_SWIZZLE_128),
                              pm_wgmma_matrix(tiles + s * 2 * TILE + TILE + step * 32, 16, 1024, PM_SWIZZLE_128));
        pm_wgmma_commit();
        pm_wgmma_wait(0);
        if (fault != 4)
            pm_mbarrier_arrive(empty + s);
    }
    PM_UNROLL for (int32_t i = 0; i < 32; i++)
        d[(pm_warp() * 16 + pm_lane() / 4 + i % 4 / 2 * 8) * 64 + i / 4 * 8 + pm_lane() % 4 * 2 + i % 2] = sum[i];
}

PM_GLOBAL void pm_cu_bulk(float *y, const float *x, int64_t bytes, int64_t waits)
{
    PM_SHARED(uint64_t, full, 1);
    PM_SHARED(float, all, 64);
    if (pm_thread() == 0) {
        pm_mbarrier_init(full, 1);
        pm_fence_async();
        pm_mbarrier_expect(full, (int32_t)bytes);
        pm_bulk_load(all, x, 256, full);
    }
    pm_sync();
    if (waits)
        pm_mbarrier_wait(full, 0);
    y[pm_thread()] = all[pm_thread()];
}
#endif

#ifdef PM_EMU
/// The product by warpgroups with one part of its pipeline left out.
#include "codegen/cuda/kernels/cu_product_tile.h"

extern int32_t cu_left_out; /* 0: none */
int32_t cu_left_out;

#define OR_NOT(number, call) (cu_left_out == (number) ? (void)0 : (call))
#define IS_ONE_OF(barrier, first) ((uint64_t)(barrier) - (uint64_t)(first) < 32u)
#undef pm_cp_async_wait
#undef pm_wgmma_wait
#define pm_mbarrier_wait(barrier, parity) OR_NOT(IS_ONE_OF(barrier, s->empty) ? 1 : 2, (pm_mbarrier_wait)(barrier, parity))
#define pm_cp_async_wait(groups) OR_NOT(3, pm_emu_cp_async_wait(groups))
#define pm_fence_async() OR_NOT(4, (pm_fence_async)())
#define pm_wgmma_wait(groups) OR_NOT((groups) ? 5 : 6, pm_emu_wgmma_wait(groups))
#define pm_sync_warp() OR_NOT(7, (pm_sync_warp)())
#define pm_wgmma_fence() OR_NOT(8, (pm_wgmma_fence)())
#define pm_tma_acquire(map) OR_NOT(9, (pm_tma_acquire)(map))
#define pm_cu_product_wgmma pm_cu_product_at_fault
#include "codegen/cuda/kernels/cu_product_wgmma.c"
#endif
