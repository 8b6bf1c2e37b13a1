/// The register tile of all products: rows of one matrix times vectors of columns of another.
///
/// `kind`, `rows`, `groups` and `vecs` are constants where it is called, so that every loop over the
/// tile unrolls and the accumulators are registers. Each element is one chain of fused multiply-adds in
/// the order of k, whatever the tile around it.
#ifndef PM_GEMM_TILE_H
#define PM_GEMM_TILE_H

#include "codegen/kernels/vec.h"

/// Weights' type and arithmetic: see kernels.h.
enum { PM_KIND_F32, PM_KIND_B16, PM_KIND_DOT };

/// Elements of the first operand at a[row * a_row + k * a_k] (dot: a_k is 1); `groups` panels at
/// w + group * w_group, in each the vectors of step s at w + s * w_step + j * PM_VW * pair, in elements.
typedef struct pm_tile_in {
    const void *a;
    int64_t a_row, a_k;
    const void *w;
    int64_t w_group, w_step;
    int64_t k;          ///< even, except in the last part of a pair kind's chain
    const char *ahead;  ///< memory to fetch meanwhile: ahead_lines lines, ahead_step bytes after each step
    int64_t ahead_step;
    bool ahead_far;     ///< into the L2 cache only: so much is on its way that it would fill L1
} pm_tile_in;

PM_INLINE float pm_bf16_wide(uint16_t x)
{
    return pm_float_of((uint32_t)x << 16);
}

PM_INLINE pm_vf pm_v_even(pm_vu pairs)
{
    return (pm_vf)(pairs << 16);
}

PM_INLINE pm_vf pm_v_odd(pm_vu pairs)
{
    return (pm_vf)(pairs & 0xffff0000u);
}

PM_INLINE uint32_t pm_pair_at(const uint16_t *p)
{
    typedef uint32_t any __attribute__((aligned(2), may_alias));
    return *(const any *)p;
}

/* Hides that `p` is still the same, so that what it points to is loaded again: vectors of weights kept
 * between the two halves of a step would take registers from many accumulators. */
#define PM_RELOAD(p, accumulators)                                                                 \
    do {                                                                                           \
        if ((accumulators) > (PM_VW == 16 ? 16 : 8))                                               \
            __asm__("" : "+r"(p));                                                                 \
    } while (0)

/// Pairs of the columns of vector j of all groups.
PM_INLINE pm_vu pm_pairs_at(const uint16_t *w, int64_t w_group, int vecs, int j)
{
    return *(const pm_vu *)(w + j / vecs * w_group + j % vecs * PM_VW * 2);
}

/// pm_tile_step for bf16 products: of each pair the odd product first, as vdpbf16ps does.
PM_INLINE void pm_dot_step(int rows, int columns, int vecs, const pm_tile_in *in, const uint16_t *a,
                           const uint16_t *w, bool half, pm_vf *acc)
{
#if PM_DOT_BF16
    typedef __bf16 pairs __attribute__((vector_size(PM_VW * 4)));
    PM_UNROLL for (int r = 0; r < rows; r++) {
        const uint16_t *at = a + r * in->a_row;
        pm_vu x = (half ? *at : pm_pair_at(at)) + (pm_vu){0};
        PM_UNROLL for (int j = 0; j < columns; j++)
            acc[r * columns + j] = (pm_vf)__builtin_ia32_dpbf16ps_512(
                acc[r * columns + j], (pairs)x, (pairs)pm_pairs_at(w, in->w_group, vecs, j));
    }
#else
    PM_UNROLL for (int r = 0; r < rows && !half; r++) {
        pm_vf x = pm_v_splat(pm_bf16_wide(a[r * in->a_row + 1]));
        PM_UNROLL for (int j = 0; j < columns; j++)
            acc[r * columns + j] = pm_v_fma(x, pm_v_odd(pm_pairs_at(w, in->w_group, vecs, j)),
                                            acc[r * columns + j]);
    }
    PM_RELOAD(w, rows * columns);
    PM_UNROLL for (int r = 0; r < rows; r++) {
        pm_vf x = pm_v_splat(pm_bf16_wide(a[r * in->a_row]));
        PM_UNROLL for (int j = 0; j < columns; j++)
            acc[r * columns + j] = pm_v_fma(x, pm_v_even(pm_pairs_at(w, in->w_group, vecs, j)),
                                            acc[r * columns + j]);
    }
#endif
}

/// One step of k (a pair of k for the kinds of paired weights) of the whole tile. `half`: the pair has
/// no second element, and a must not be read there.
PM_INLINE void pm_tile_step(int kind, int rows, int groups, int vecs, const pm_tile_in *in,
                            int64_t step, bool half, pm_vf *acc)
{
    int columns = groups * vecs;
    if (kind == PM_KIND_F32) {
        const float *a = (const float *)in->a + step * in->a_k;
        const float *w = (const float *)in->w + step * in->w_step;
        PM_UNROLL for (int r = 0; r < rows; r++) {
            pm_vf x = pm_v_splat(a[r * in->a_row]);
            PM_UNROLL for (int j = 0; j < columns; j++) {
                const float *b = w + j / vecs * in->w_group + j % vecs * PM_VW;
                acc[r * columns + j] = pm_v_fma(x, pm_v_load(b), acc[r * columns + j]);
            }
        }
        return;
    }
    const uint16_t *w = (const uint16_t *)in->w + step * in->w_step;
    if (kind == PM_KIND_DOT) {
        pm_dot_step(rows, columns, vecs, in, (const uint16_t *)in->a + 2 * step, w, half, acc);
        return;
    }
    const float *a = (const float *)in->a + 2 * step * in->a_k;
    PM_UNROLL for (int r = 0; r < rows; r++) {
        pm_vf x = pm_v_splat(a[r * in->a_row]);
        PM_UNROLL for (int j = 0; j < columns; j++) {
            pm_vf b = pm_v_even(pm_pairs_at(w, in->w_group, vecs, j));
            acc[r * columns + j] = pm_v_fma(x, b, acc[r * columns + j]);
        }
    }
    if (half)
        return;
    PM_RELOAD(w, rows * columns);
    PM_UNROLL for (int r = 0; r < rows; r++) {
        pm_vf x = pm_v_splat(a[r * in->a_row + in->a_k]);
        PM_UNROLL for (int j = 0; j < columns; j++) {
            pm_vf b = pm_v_odd(pm_pairs_at(w, in->w_group, vecs, j));
            acc[r * columns + j] = pm_v_fma(x, b, acc[r * columns + j]);
        }
    }
}

/// Multiplies a tile of rows x (groups * vecs) vectors, into tile[group * group_ld + row * ld + column];
/// goes on with the chains that are there when `more`. ahead_lines: cache lines fetched in each step (and group).
PM_INLINE void pm_tile(int kind, int rows, int groups, int vecs, int ahead_lines,
                       const pm_tile_in *in, float *tile, int64_t ld, int64_t group_ld, bool more)
{
    pm_vf acc[32];
    int columns = groups * vecs;
    PM_UNROLL for (int r = 0; r < rows; r++) PM_UNROLL for (int j = 0; j < columns; j++)
    {
        const float *from = tile + j / vecs * group_ld + r * ld + j % vecs * PM_VW;
        acc[r * columns + j] = (pm_vf){0};
        if (more)
            acc[r * columns + j] = pm_v_load(from);
    }
    int64_t steps = kind == PM_KIND_F32 ? in->k : in->k / 2;
    const char *ahead = in->ahead;
    int64_t group_bytes = in->w_group * (kind == PM_KIND_F32 ? 4 : 2);
    PM_NO_UNROLL for (int64_t s = 0; s < steps; s++) {
        PM_UNROLL for (int line = 0; line < groups * ahead_lines; line++) {
            const char *at = ahead + line / ahead_lines * group_bytes + line % ahead_lines * 64;
            if (in->ahead_far)
                __builtin_prefetch(at, 0, 2);
            else
                __builtin_prefetch(at, 0, 3);
        }
        ahead += in->ahead_step;
        pm_tile_step(kind, rows, groups, vecs, in, s, false, acc);
    }
    if (kind != PM_KIND_F32 && in->k % 2)
        pm_tile_step(kind, rows, groups, vecs, in, steps, true, acc);
    PM_UNROLL for (int r = 0; r < rows; r++) PM_UNROLL for (int j = 0; j < columns; j++)
        pm_v_store(tile + j / vecs * group_ld + r * ld + j % vecs * PM_VW, acc[r * columns + j]);
}

/// Bytes ahead of a stream of weights that are fetched; hardware prefetchers stop at a page's end.
enum { PM_AHEAD = 4096 };

/// Where finished tiles go: the one that is not NULL.
typedef struct pm_tile_out {
    pm_k_epilogue *plain;
    pm_k_expert_epilogue *of_expert;
    void *ctx;
    int64_t expert;
} pm_tile_out;

PM_INLINE void pm_tile_finish(const pm_tile_out *out, const float *tile, int64_t ld, int64_t row0,
                              int64_t rows, int64_t panel)
{
    if (out->plain)
        out->plain(tile, ld, row0, rows, panel, out->ctx);
    else
        out->of_expert(tile, ld, row0, rows, panel, out->expert, out->ctx);
}

/// The tile for `left` more rows when `before` rows precede them: fewer different tiles exist than row
/// counts, so that a ragged end takes a tile that begins in rows already done, and computes them again.
/// A tile of 1 or 2 rows waits for weights as long as one of 3: what would leave so few behind the widest tile
/// is divided more evenly.
PM_INLINE int64_t pm_tile_rows(int64_t widest, int64_t left, int64_t before)
{
    int64_t smaller = 1, limit = left > widest && left - widest <= 2 ? widest - 1 : widest;
    PM_UNROLL for (int64_t rows = 1; rows <= 12; rows++)
    {
        if (rows > widest || rows == 5 || rows == 7 || (rows > 8 && rows < 12))
            continue;
        if (rows >= left && rows - left <= before)
            return rows;
        if (rows <= left && rows <= limit)
            smaller = rows;
    }
    return smaller;
}

#endif
