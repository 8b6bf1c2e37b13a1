/* Products with packed weights, for one kind of weights and one panel width. Included once for each:
 *   PM_T(name)   the name of a function of this instance
 *   PM_T_KIND    PM_KIND_…
 *   PM_T_PANEL   columns of a panel
 *   PM_T_A, PM_T_W  element types
 * Defines PM_T(panel_rows) and PM_T(single_row).
 */
#include "codegen/kernels/gemm_tile.h"

#define PM_T_VECS (PM_T_PANEL / PM_VW)
#define PM_T_PAIR (PM_T_KIND == PM_KIND_F32 ? 1 : 2)
/* Bytes of weights in one step of a tile, and the cache lines they touch. */
#define PM_T_STEP (PM_T_PANEL * 4)
#define PM_T_LINES ((PM_T_STEP + 63) / 64)
/* Rows of the widest tile: enough accumulators to hide the latency, and none spilled. */
#if PM_VW == 16
#define PM_T_ROWS (PM_T_VECS == 4 ? 6 : PM_T_VECS == 2 ? 8 : 12)
#else
#define PM_T_ROWS (PM_T_VECS == 4 ? 3 : PM_T_VECS == 2 ? 6 : 12)
#endif
/* Panels that a single row takes at once: a narrow one alone has too few chains in flight. */
#define PM_T_GROUP (PM_T_VECS == 4 ? 1 : PM_T_VECS == 2 && PM_VW == 16 ? 2 : 4)
/* k of a block: with more than one tile of rows the panel's part stays in the L2 cache. */
#define PM_T_BLOCK (65536 / PM_T_PANEL * PM_T_PAIR)
/* Rows whose tiles wait in a buffer on the stack between blocks of k. */
#define PM_T_TILES (4096 / PM_T_PANEL / PM_T_ROWS)

/// One tile; `rows` is one of those that pm_tile_rows gives.
PM_INLINE void PM_T(tile)(int64_t rows, const pm_tile_in *in, float *tile, bool more)
{
#define PM_T_CASE(n)                                                                               \
    case n:                                                                                        \
        if (n <= PM_T_ROWS)                                                                        \
            pm_tile(PM_T_KIND, n, 1, PM_T_VECS, n == PM_T_ROWS ? 1 : PM_T_LINES, in, tile,         \
                    PM_T_PANEL, 0, more);                                                          \
        break;
    switch (rows) {
        PM_T_CASE(1)
        PM_T_CASE(2)
        PM_T_CASE(3)
        PM_T_CASE(4)
        PM_T_CASE(6)
        PM_T_CASE(8)
        PM_T_CASE(12)
    default: __builtin_unreachable();
    }
#undef PM_T_CASE
}

/// Rows row0..row1 of `a` times the panel `w`.
PM_INLINE void PM_T(panel_rows)(const PM_T_A *a, const PM_T_W *w, int64_t row0, int64_t row1,
                                int64_t k, int64_t panel, const pm_tile_out *out)
{
    float tiles[PM_T_TILES * PM_T_ROWS * PM_T_PANEL] __attribute__((aligned(64)));
    bool alone = row1 - row0 <= PM_T_ROWS;
    int64_t block = alone ? k : PM_T_BLOCK;
    PM_NO_UNROLL for (int64_t first = row0; first < row1; first += PM_T_TILES * PM_T_ROWS)
    {
        int64_t end = pm_min_i64(first + PM_T_TILES * PM_T_ROWS, row1);
        int64_t k0 = 0;
        PM_NO_UNROLL do
        {
            int64_t part = pm_min_i64(block, k - k0);
            const PM_T_W *w_part = w + k0 * PM_T_PANEL;
            /* One tile fetches what it reads itself soon. Of many, each fetches a quarter of what comes after
             * this part: the next part, the next panel, or this panel again. */
            const PM_T_W *after = w_part + part * PM_T_PANEL;
            if (k0 + part == k && end < row1)
                after = w;
            const char *ahead = alone ? (const char *)w_part + PM_AHEAD : (const char *)after;
            int64_t quarter = part * PM_T_PANEL * (int64_t)sizeof(PM_T_W) / 4, fetched = 0;
            float *tile = tiles;
            PM_NO_UNROLL for (int64_t row = first; row < end; tile += PM_T_ROWS * PM_T_PANEL)
            {
                int64_t rows = pm_tile_rows(PM_T_ROWS, end - row, row);
                int64_t again = pm_max_i64(rows - (end - row), 0);
                pm_tile_in in = {a + (row - again) * k + k0,
                                 k,
                                 1,
                                 w_part,
                                 0,
                                 PM_T_PANEL * PM_T_PAIR,
                                 part,
                                 ahead,
                                 alone ? PM_T_STEP : PM_T_STEP / 4,
                                 false};
                PM_T(tile)(rows, &in, tile, k0 > 0);
                if (!alone && ++fetched < 4)
                    ahead += quarter;
                if (k0 + part == k)
                    pm_tile_finish(out, tile + again * PM_T_PANEL, PM_T_PANEL, row, rows - again,
                                   panel);
                row += rows - again;
            }
            k0 += part;
        }
        while (k0 < k);
    }
}

/// One row of `a` times `panels` panels from `w` on.
PM_INLINE void PM_T(single_row)(const PM_T_A *a, const PM_T_W *w, int64_t row, int64_t k,
                                int64_t panel, int64_t panels, const pm_tile_out *out)
{
    float tiles[PM_T_GROUP * PM_T_PANEL] __attribute__((aligned(64)));
    int64_t size = (k + PM_T_PAIR - 1) / PM_T_PAIR * PM_T_PAIR * PM_T_PANEL;
    PM_NO_UNROLL for (int64_t p = 0; p < panels;)
    {
        int64_t now = panels - p >= PM_T_GROUP ? PM_T_GROUP : 1;
        pm_tile_in in = {a + row * k,
                         k,
                         1,
                         w + p * size,
                         size,
                         PM_T_PANEL * PM_T_PAIR,
                         k,
                         (const char *)(w + p * size) + PM_AHEAD / PM_T_GROUP,
                         PM_T_STEP,
                         false};
        if (now == PM_T_GROUP)
            pm_tile(PM_T_KIND, 1, PM_T_GROUP, PM_T_VECS, PM_T_LINES, &in, tiles, PM_T_PANEL,
                    PM_T_PANEL, false);
        else
            pm_tile(PM_T_KIND, 1, 1, PM_T_VECS, PM_T_LINES, &in, tiles, PM_T_PANEL, 0, false);
        PM_NO_UNROLL for (int64_t g = 0; g < now; g++)
            pm_tile_finish(out, tiles + g * PM_T_PANEL, PM_T_PANEL, row, 1, panel + p + g);
        p += now;
    }
}
