/* Batched product of two activations. Panels of the second operand are packed into scratch, 64 columns
 * at a time, unless it can be read in place; then the register tile of all products does the work. */
#include "codegen/kernels/gemm_tile.h"

enum {
    MATMUL_PANEL = 64,
    MATMUL_VECS = PM_VW == 16 ? 4 : 2,
    MATMUL_COLUMNS = MATMUL_VECS * PM_VW, ///< columns of a tile
    MATMUL_ROWS = 6,
    MATMUL_SLICE = 96, ///< rows that one worker takes at a time, a multiple of MATMUL_ROWS
};

/// Columns col0..col0+cols of b as [k][64], the rest zeros.
PM_INLINE void matmul_pack(const float *b, float *packed, int64_t n, int64_t k, int64_t trans_b,
                           int64_t col0, int64_t cols)
{
    for (int64_t i = 0; i < k; i++) {
        float *to = packed + i * MATMUL_PANEL;
        if (trans_b) {
            PM_NO_UNROLL for (int64_t j = 0; j < cols; j++)
                to[j] = b[(col0 + j) * k + i];
        } else {
            PM_NO_UNROLL for (int64_t j = 0; j < cols; j++)
                to[j] = b[i * n + col0 + j];
        }
        PM_NO_UNROLL for (int64_t j = cols; j < MATMUL_PANEL; j++)
            to[j] = 0.0f;
    }
}

PM_INLINE void matmul_tile(int64_t rows, const pm_tile_in *in, float *tile)
{
    switch (rows) {
    case 1: pm_tile(PM_KIND_F32, 1, 1, MATMUL_VECS, 0, in, tile, MATMUL_COLUMNS, 0, false); break;
    case 2: pm_tile(PM_KIND_F32, 2, 1, MATMUL_VECS, 0, in, tile, MATMUL_COLUMNS, 0, false); break;
    case 3: pm_tile(PM_KIND_F32, 3, 1, MATMUL_VECS, 0, in, tile, MATMUL_COLUMNS, 0, false); break;
    case 4: pm_tile(PM_KIND_F32, 4, 1, MATMUL_VECS, 0, in, tile, MATMUL_COLUMNS, 0, false); break;
    case 5: pm_tile(PM_KIND_F32, 5, 1, MATMUL_VECS, 0, in, tile, MATMUL_COLUMNS, 0, false); break;
    default: pm_tile(PM_KIND_F32, 6, 1, MATMUL_VECS, 0, in, tile, MATMUL_COLUMNS, 0, false);
    }
}

PM_KERNEL void pm_k_matmul_f32(const float *a, const float *b, float *c, int64_t batch, int64_t m,
                               int64_t n, int64_t k, int64_t stride_a, int64_t stride_b,
                               int64_t trans_a, int64_t trans_b, uint8_t *scratch, int64_t worker,
                               int64_t n_workers)
{
    float tile[MATMUL_ROWS * MATMUL_COLUMNS] __attribute__((aligned(64)));
    float *packed = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int64_t panels = (n + MATMUL_PANEL - 1) / MATMUL_PANEL;
    int64_t slices = (m + MATMUL_SLICE - 1) / MATMUL_SLICE;
    int64_t a_row = trans_a ? 1 : k, a_k = trans_a ? m : 1;
    int64_t begin, end, have = -1;
    pm_share(batch * panels * slices, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end; unit++)
    {
        int64_t which = unit / slices / panels, panel = unit / slices % panels;
        int64_t row0 = unit % slices * MATMUL_SLICE;
        int64_t row1 = pm_min_i64(row0 + MATMUL_SLICE, m);
        int64_t col0 = panel * MATMUL_PANEL, cols = pm_min_i64(n - col0, MATMUL_PANEL);
        const float *from = b + which * stride_b + col0;
        int64_t w_step = n;
        bool in_place = !trans_b && cols == MATMUL_PANEL && row1 - row0 <= MATMUL_ROWS;
        if (!in_place) {
            if (have != unit / slices)
                matmul_pack(b + which * stride_b, packed, n, k, trans_b, col0, cols);
            have = unit / slices;
            from = packed;
            w_step = MATMUL_PANEL;
        }
        PM_NO_UNROLL for (int64_t col = 0; col < cols; col += MATMUL_COLUMNS)
        {
            int64_t width = pm_min_i64(cols - col, MATMUL_COLUMNS);
            PM_NO_UNROLL for (int64_t row = row0; row < row1; row += MATMUL_ROWS)
            {
                int64_t rows = pm_min_i64(row1 - row, MATMUL_ROWS);
                pm_tile_in in = {a + which * stride_a + row * a_row, a_row, a_k, from + col, 0,
                                 w_step, k, NULL, 0, false};
                matmul_tile(rows, &in, tile);
                float *to = c + (which * m + row) * n + col0 + col;
                PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
                {
                    PM_NO_UNROLL for (int64_t j = 0; j < width; j++)
                        to[r * n + j] = tile[r * MATMUL_COLUMNS + j];
                }
            }
        }
    }
}
