/* Batched product of two activations. A block of the second operand, 64 columns by up to MATMUL_BLOCK of k,
 * is packed into scratch, unless it can be read in place; then the register tile of all products does the work. */
#include "codegen/kernels/gemm_tile.h"

enum {
    MATMUL_PANEL = 64,
    MATMUL_BLOCK = 512,
    MATMUL_VECS = PM_VW == 16 ? 4 : 2,
    MATMUL_COLUMNS = MATMUL_VECS * PM_VW, ///< columns of a tile
    MATMUL_ROWS = 6,
    MATMUL_SLICE = 48, ///< rows that one worker takes at a time, a multiple of MATMUL_ROWS
};

/// Columns of a panel that are computed: one vector where no more are there.
PM_INLINE int64_t matmul_width(int64_t cols)
{
    return cols <= PM_VW ? PM_VW : MATMUL_PANEL;
}

/// Element (k0 + i, col0 + j) of the second operand to packed[i][j], for i < part and j below the width; zeros
/// beyond its edge.
PM_INLINE void matmul_pack(const float *b, float *packed, int64_t n, int64_t k, int64_t trans_b,
                           int64_t col0, int64_t cols, int64_t k0, int64_t part)
{
    int64_t width = matmul_width(cols);
    if (!trans_b) {
        PM_NO_UNROLL for (int64_t i = 0; i < part; i++)
        {
            const float *from = b + (k0 + i) * n + col0;
            float *to = packed + i * MATMUL_PANEL;
            if (cols == MATMUL_PANEL) {
                PM_UNROLL for (int64_t j = 0; j < MATMUL_PANEL; j += PM_VW)
                    pm_v_store(to + j, pm_v_load(from + j));
                continue;
            }
            PM_NO_UNROLL for (int64_t j = 0; j < width; j++)
                to[j] = j < cols ? from[j] : 0.0f;
        }
        return;
    }
    PM_NO_UNROLL for (int64_t j = 0; j < width; j += PM_VW)
    {
        const float *from = b + (col0 + j) * k + k0;
        int64_t i = 0;
        if (j + PM_VW <= cols) {
            PM_NO_UNROLL for (; i + PM_VW <= part; i += PM_VW)
                pm_v_transpose(from + i, k, packed + i * MATMUL_PANEL + j, MATMUL_PANEL);
        }
        PM_NO_UNROLL for (; i < part; i++)
        {
            PM_NO_UNROLL for (int64_t c = 0; c < PM_VW; c++)
                packed[i * MATMUL_PANEL + j + c] = j + c < cols ? from[c * k + i] : 0.0f;
        }
    }
}

#define MATMUL_CASE(n, vecs)                                                                       \
    case n: pm_tile(PM_KIND_F32, n, 1, vecs, 0, in, tile, MATMUL_PANEL, 0, more); break
#define MATMUL_CASES(vecs)                                                                         \
    switch (rows) {                                                                                \
        MATMUL_CASE(1, vecs);                                                                      \
        MATMUL_CASE(2, vecs);                                                                      \
        MATMUL_CASE(3, vecs);                                                                      \
        MATMUL_CASE(4, vecs);                                                                      \
        MATMUL_CASE(5, vecs);                                                                      \
        MATMUL_CASE(6, vecs);                                                                      \
    default: __builtin_unreachable();                                                              \
    }

PM_INLINE void matmul_tile(int64_t rows, bool is_narrow, const pm_tile_in *in, float *tile, bool more)
{
    if (is_narrow)
        MATMUL_CASES(1)
    else
        MATMUL_CASES(MATMUL_VECS)
}

#undef MATMUL_CASES
#undef MATMUL_CASE

/// Where one slice of rows and one panel of columns are.
typedef struct matmul_part {
    const float *a, *b; ///< of this batch
    float *c;
    int64_t row0, row1, col0, cols;
    bool is_packed; ///< all of k is in `packed` already
} matmul_part;

/// Computes the slice into `tiles` [MATMUL_SLICE][MATMUL_PANEL], block of k by block.
PM_INLINE void matmul_slice(const matmul_part *p, int64_t m, int64_t n, int64_t k, int64_t trans_a,
                            int64_t trans_b, float *packed, float *tiles)
{
    int64_t a_row = trans_a ? 1 : k, a_k = trans_a ? m : 1, k0 = 0;
    bool in_place = !trans_b && p->cols == MATMUL_PANEL && p->row1 - p->row0 <= MATMUL_ROWS;
    PM_NO_UNROLL do {
        int64_t part = pm_min_i64(in_place ? k : MATMUL_BLOCK, k - k0);
        const float *from = in_place ? p->b + p->col0 : packed;
        if (!in_place && !p->is_packed)
            matmul_pack(p->b, packed, n, k, trans_b, p->col0, p->cols, k0, part);
        PM_NO_UNROLL for (int64_t col = 0; col < p->cols; col += MATMUL_COLUMNS)
        {
            PM_NO_UNROLL for (int64_t row = p->row0; row < p->row1; row += MATMUL_ROWS)
            {
                pm_tile_in in = {p->a + row * a_row + k0 * a_k, a_row, a_k, from + col, 0,
                                 in_place ? n : MATMUL_PANEL, part, NULL, 0, false};
                matmul_tile(pm_min_i64(p->row1 - row, MATMUL_ROWS), p->cols <= PM_VW, &in,
                            tiles + (row - p->row0) * MATMUL_PANEL + col, k0 > 0);
            }
        }
        k0 += part;
    } while (k0 < k);
}

PM_KERNEL void pm_k_matmul_f32(const float *a, const float *b, float *c, int64_t batch, int64_t m,
                               int64_t n, int64_t k, int64_t stride_a, int64_t stride_b,
                               int64_t trans_a, int64_t trans_b, uint8_t *scratch, int64_t worker,
                               int64_t n_workers)
{
    float tiles[MATMUL_SLICE * MATMUL_PANEL] __attribute__((aligned(64)));
    float *packed = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int64_t panels = (n + MATMUL_PANEL - 1) / MATMUL_PANEL;
    int64_t slices = (m + MATMUL_SLICE - 1) / MATMUL_SLICE, begin, end;
    int64_t before = -1;
    pm_share(batch * panels * slices, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end; unit++)
    {
        int64_t which = unit / slices / panels, col0 = unit / slices % panels * MATMUL_PANEL;
        int64_t row0 = unit % slices * MATMUL_SLICE;
        matmul_part p = {a + which * stride_a,
                         b + which * stride_b,
                         c + which * m * n,
                         row0,
                         pm_min_i64(row0 + MATMUL_SLICE, m),
                         col0,
                         pm_min_i64(n - col0, MATMUL_PANEL),
                         unit / slices == before && k <= MATMUL_BLOCK};
        matmul_slice(&p, m, n, k, trans_a, trans_b, packed, tiles);
        before = unit / slices;
        PM_NO_UNROLL for (int64_t r = 0; r < p.row1 - row0; r++)
        {
            float *to = p.c + (row0 + r) * n + col0;
            for (int64_t j = 0; j < p.cols; j++)
                to[j] = tiles[r * MATMUL_PANEL + j];
        }
    }
}
