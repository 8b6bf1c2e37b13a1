/* The linear and grouped kernels of one instance of gemm_template.h, or, with PM_T_BITS, of
 * gemm_lowbit.h; takes its parameters and
 *   PM_T_NAME    f32, b16, dot; q2, q4, q8, e2m1, e4m3
 * and undefines them all.
 */
#define PM_T_PASTE_(a, b, c) pm_##a##_##b##_p##c
#define PM_T_PASTE(a, b, c) PM_T_PASTE_(a, b, c)
#define PM_T(name) PM_T_PASTE(name, PM_T_NAME, PM_T_PANEL)

#ifdef PM_T_BITS
#include "codegen/kernels/gemm_lowbit.h"
/* What their functions take besides. */
#define PM_T_MORE_ARGS , int64_t block, int64_t scale, int64_t zero
#define PM_T_KNOWN pm_codes known = {block, scale, zero};
#define PM_T_MORE &known,
#define PM_T_SIZE(k) ((k + block - 1) / block * pm_block_size(&known, PM_T_PANEL, PM_T_BITS))
#else
#include "codegen/kernels/gemm_template.h"
#define PM_T_MORE_ARGS
#define PM_T_KNOWN
#define PM_T_MORE
#define PM_T_SIZE(k) ((k + PM_T_PAIR - 1) / PM_T_PAIR * PM_T_PAIR * PM_T_PANEL)
#endif

/* Work is counted in tiles: one tile is up to PM_T_ROWS rows of one panel, panel by panel. Each worker takes
 * one contiguous range of them, so it reads a contiguous range of weights. */

PM_KERNEL void PM_T(k_linear)(PM_K_LINEAR_ARGS(PM_T_A, PM_T_W) PM_T_MORE_ARGS)
{
    PM_T_KNOWN
    pm_tile_out out = {epilogue, NULL, ctx, 0};
    int64_t panels = (n + PM_T_PANEL - 1) / PM_T_PANEL;
    int64_t size = PM_T_SIZE(k);
    int64_t tiles = (m + PM_T_ROWS - 1) / PM_T_ROWS;
    int64_t begin, end;
    pm_share(panels * tiles, worker, n_workers, &begin, &end);
    if (m == 1) {
        PM_T(single_row)(a, w + begin * size, PM_T_MORE 0, k, begin, end - begin, &out);
        return;
    }
    PM_NO_UNROLL while (begin < end)
    {
        int64_t panel = begin / tiles;
        int64_t last = pm_min_i64(end - panel * tiles, tiles);
        PM_T(panel_rows)(a, w + panel * size, PM_T_MORE (begin - panel * tiles) * PM_T_ROWS,
                         pm_min_i64(last * PM_T_ROWS, m), k, panel, &out);
        begin = panel * tiles + last;
    }
}

PM_KERNEL void PM_T(k_grouped)(PM_K_GROUPED_ARGS(PM_T_A, PM_T_W) PM_T_MORE_ARGS)
{
    PM_T_KNOWN
    int64_t panels = (n + PM_T_PANEL - 1) / PM_T_PANEL;
    int64_t size = PM_T_SIZE(k);
    int64_t total = 0;
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
        total += panels * ((offsets[e + 1] - offsets[e] + PM_T_ROWS - 1) / PM_T_ROWS);
    int64_t begin, end;
    pm_share(total, worker, n_workers, &begin, &end);
    /* `before` tiles belong to the experts before e. */
    int64_t before = 0;
    PM_NO_UNROLL for (int64_t e = 0; e < experts && before < end; e++)
    {
        int64_t row0 = offsets[e], rows = offsets[e + 1] - row0;
        int64_t tiles = (rows + PM_T_ROWS - 1) / PM_T_ROWS;
        int64_t at = pm_max_i64(begin - before, 0), stop = pm_min_i64(end - before, panels * tiles);
        before += panels * tiles;
        if (at >= stop)
            continue;
        pm_tile_out out = {NULL, epilogue, ctx, e};
        const PM_T_W *w_expert = w + e * expert_stride;
        if (rows == 1) {
            PM_T(single_row)(a, w_expert + at * size, PM_T_MORE row0, k, at, stop - at, &out);
            continue;
        }
        PM_NO_UNROLL while (at < stop)
        {
            int64_t panel = at / tiles;
            int64_t last = pm_min_i64(stop - panel * tiles, tiles);
            PM_T(panel_rows)(a, w_expert + panel * size, PM_T_MORE row0 + (at - panel * tiles) * PM_T_ROWS,
                             row0 + pm_min_i64(last * PM_T_ROWS, rows), k, panel, &out);
            at = panel * tiles + last;
        }
    }
}

#undef PM_T
#undef PM_T_PASTE
#undef PM_T_PASTE_
#undef PM_T_NAME
#undef PM_T_KIND
#undef PM_T_PANEL
#undef PM_T_A
#undef PM_T_W
#undef PM_T_VECS
#undef PM_T_PAIR
#undef PM_T_STEP
#undef PM_T_LINES
#undef PM_T_ROWS
#undef PM_T_GROUP
#undef PM_T_BLOCK
#undef PM_T_TILES
#undef PM_T_MORE_ARGS
#undef PM_T_KNOWN
#undef PM_T_MORE
#undef PM_T_SIZE
#ifdef PM_T_BITS
#undef PM_T_BITS
#undef PM_T_FLOATS
#undef PM_T_DIRECT
#undef PM_T_PART
#undef PM_T_WORD
#endif
