/// Vectors of the kernel templates: PM_VW floats, the operations on them, and nothing else.
///
/// Multiply-adds are written out (pm_v_fma) and contraction is off, so that the bits of a chain
/// never depend on what the optimiser finds profitable for one row count and not for another.
#ifndef PM_VEC_H
#define PM_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codegen/kernels/kernels.h"

#define PM_INLINE static inline __attribute__((always_inline))
/// Also inlined by plain -O3 (tests, benchmarks), as the specialiser does.
#define PM_KERNEL __attribute__((always_inline))
/// On every loop over a register tile: otherwise accumulators stay in memory.
#define PM_UNROLL _Pragma("clang loop unroll(full)")
#define PM_NO_UNROLL _Pragma("clang loop unroll(disable)")

typedef float pm_vf __attribute__((vector_size(PM_VW * 4), aligned(4), may_alias));
typedef int32_t pm_vi __attribute__((vector_size(PM_VW * 4), aligned(4), may_alias));
typedef uint32_t pm_vu __attribute__((vector_size(PM_VW * 4), aligned(2), may_alias));

PM_INLINE pm_vf pm_v_load(const float *p)
{
    return *(const pm_vf *)p;
}

PM_INLINE void pm_v_store(float *p, pm_vf x)
{
    *(pm_vf *)p = x;
}

/// The first n < PM_VW elements at p, 0 in the others, which aren't read.
PM_INLINE pm_vf pm_v_load_part(const float *p, int64_t n)
{
#if PM_VW == 16
    typedef float aligned_vf __attribute__((vector_size(64)));
    return __builtin_ia32_loadups512_mask(p, (aligned_vf){0}, (uint16_t)((1u << n) - 1));
#else
    typedef float aligned_vf __attribute__((vector_size(32)));
    typedef int32_t aligned_vi __attribute__((vector_size(32)));
    aligned_vi lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    return __builtin_ia32_maskloadps256((const aligned_vf *)p, lanes < (int32_t)n);
#endif
}

/// Stores the first n < PM_VW elements; the others' memory isn't touched.
PM_INLINE void pm_v_store_part(float *p, pm_vf x, int64_t n)
{
#if PM_VW == 16
    __builtin_ia32_storeups512_mask(p, x, (uint16_t)((1u << n) - 1));
#else
    typedef float aligned_vf __attribute__((vector_size(32)));
    typedef int32_t aligned_vi __attribute__((vector_size(32)));
    aligned_vi lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    __builtin_ia32_maskstoreps256((aligned_vf *)p, lanes < (int32_t)n, x);
#endif
}

PM_INLINE pm_vf pm_v_splat(float x)
{
    return x - (pm_vf){0};
}

PM_INLINE pm_vi pm_v_splat_i(int32_t x)
{
    return x + (pm_vi){0};
}

PM_INLINE pm_vf pm_v_fma(pm_vf a, pm_vf b, pm_vf c)
{
    return __builtin_elementwise_fma(a, b, c);
}

/// Where mask is all ones a, where it is zero b.
PM_INLINE pm_vf pm_v_select(pm_vi mask, pm_vf a, pm_vf b)
{
    return (pm_vf)(((pm_vi)a & mask) | ((pm_vi)b & ~mask));
}

PM_INLINE pm_vf pm_v_max(pm_vf a, pm_vf b)
{
    return pm_v_select(a > b, a, b);
}

/// 0, 1, 2, …
PM_INLINE pm_vi pm_v_iota(void)
{
#if PM_VW == 16
    return (pm_vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
    return (pm_vi){0, 1, 2, 3, 4, 5, 6, 7};
#endif
}

/// a0 b0 a1 b1 …, of the lower halves, and of the upper.
PM_INLINE pm_vf pm_v_interleave_low(pm_vf a, pm_vf b)
{
#if PM_VW == 16
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#else
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#endif
}

PM_INLINE pm_vf pm_v_interleave_high(pm_vf a, pm_vf b)
{
#if PM_VW == 16
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
#else
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#endif
}

/// Rows become columns.
PM_INLINE void pm_v_transpose_rows(pm_vf *x)
{
    pm_vf y[PM_VW];
    /* each round interleaves row i with row i + PM_VW / 2; after log2(PM_VW) rounds rows are columns */
    PM_UNROLL for (int round = 1; round < PM_VW; round *= 2)
    {
        PM_UNROLL for (int i = 0; i < PM_VW / 2; i++)
        {
            y[2 * i] = pm_v_interleave_low(x[i], x[i + PM_VW / 2]);
            y[2 * i + 1] = pm_v_interleave_high(x[i], x[i + PM_VW / 2]);
        }
        PM_UNROLL for (int i = 0; i < PM_VW; i++)
            x[i] = y[i];
    }
}

/// Transposes PM_VW rows of PM_VW floats, from_ld apart, to rows to_ld apart.
PM_INLINE void pm_v_transpose(const float *from, int64_t from_ld, float *to, int64_t to_ld)
{
    pm_vf x[PM_VW];
    PM_UNROLL for (int i = 0; i < PM_VW; i++)
        x[i] = pm_v_load(from + i * from_ld);
    pm_v_transpose_rows(x);
    PM_UNROLL for (int i = 0; i < PM_VW; i++)
        pm_v_store(to + i * to_ld, x[i]);
}

/// As pm_v_transpose, of rows of n < PM_VW floats.
PM_INLINE void pm_v_transpose_part(const float *from, int64_t from_ld, int64_t n, float *to,
                                   int64_t to_ld)
{
    pm_vf x[PM_VW];
    PM_UNROLL for (int i = 0; i < PM_VW; i++)
        x[i] = pm_v_load_part(from + i * from_ld, n);
    pm_v_transpose_rows(x);
    PM_UNROLL for (int i = 0; i < PM_VW; i++)
        if (i < n)
            pm_v_store(to + i * to_ld, x[i]);
}

typedef float pm_v4f __attribute__((vector_size(16)));

PM_INLINE pm_v4f pm_v_quarters(pm_vf x, int which)
{
    return (pm_v4f){x[4 * which], x[4 * which + 1], x[4 * which + 2], x[4 * which + 3]};
}

/// Sum of the lanes, always added in the same order.
PM_INLINE float pm_v_sum(pm_vf x)
{
    pm_v4f s = pm_v_quarters(x, 0) + pm_v_quarters(x, 1);
#if PM_VW == 16
    s = s + (pm_v_quarters(x, 2) + pm_v_quarters(x, 3));
#endif
    return (s[0] + s[2]) + (s[1] + s[3]);
}

PM_INLINE pm_v4f pm_v4_max(pm_v4f a, pm_v4f b)
{
    typedef int32_t v4i __attribute__((vector_size(16)));
    v4i mask = a > b;
    return (pm_v4f)(((v4i)a & mask) | ((v4i)b & ~mask));
}

/// Largest of the lanes; which NaN it gives, if any is one, is not defined.
PM_INLINE float pm_v_largest(pm_vf x)
{
    pm_v4f s = pm_v4_max(pm_v_quarters(x, 0), pm_v_quarters(x, 1));
#if PM_VW == 16
    s = pm_v4_max(s, pm_v4_max(pm_v_quarters(x, 2), pm_v_quarters(x, 3)));
#endif
    float a = s[0] > s[2] ? s[0] : s[2], b = s[1] > s[3] ? s[1] : s[3];
    return a > b ? a : b;
}

PM_INLINE int64_t pm_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

PM_INLINE int64_t pm_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/// The part of 0..count that worker `worker` of n_workers takes: contiguous, sizes differ by 1 at most.
PM_INLINE void pm_share(int64_t count, int64_t worker, int64_t n_workers, int64_t *out_begin,
                        int64_t *out_end)
{
    *out_begin = count * worker / n_workers;
    *out_end = count * (worker + 1) / n_workers;
}

PM_INLINE uint32_t pm_bits_of(float x)
{
    union {
        float f;
        uint32_t u;
    } c = {.f = x};
    return c.u;
}

PM_INLINE float pm_float_of(uint32_t x)
{
    union {
        uint32_t u;
        float f;
    } c = {.u = x};
    return c.f;
}

#endif
