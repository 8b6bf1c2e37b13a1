/* Products on the tensor cores of an sm_90a: both factors in bf16, or both in f16, as they are stored; sums in f32.
 *
 * A block has three warpgroups. The last one brings steps of 64 of k into CU_WGMMA_STAGES stages: w by the tensor memory
 * accelerator, which counts its bytes at the stage's barrier `full`; rows of x, which begin anywhere, by cp.async, 16
 * bytes a thread, where the accelerator would have put them. The other two multiply, 64 rows by all columns each, and
 * report at `empty` that a stage may be written again. A block walks over tiles, as many as there are more than blocks:
 * the next tile's factors come while results of the last one leave.
 *
 * What bounds it, as numbers of the chip say (nobody has measured yet): a step takes the tensor cores 1024 clocks (128 x
 * 256 x 64 at 2048 a clock) and brings 48 KB: 48 bytes a clock for each multiprocessor, 6336 for the 132 of an H100,
 * where an A100's L2 is said to give 5120. So the L2 is what ends first, near four fifths of the peak, but for what blocks
 * that read the same at once share; tiles in the order of pm_cu_tile_at make that much. Shared memory is as busy: 10 KB
 * are read for 128 clocks, 80 bytes a clock, and 48 written, of 128. A wider tile has no registers; clusters, whose blocks
 * get one copy of w together, would halve two thirds of the bytes. Nothing is multiplied while results leave, which counts
 * where k is short. */
#include "codegen/cuda/kernels/cu_product_tile.h"

enum {
    CU_WGMMA_THREADS = 384,
    CU_WGMMA_GROUP = 128,    /* threads of a warpgroup */
    CU_WGMMA_MULTIPLIERS = 2, /* warpgroups */
    CU_WGMMA_HIGH = CU_WGMMA_ROWS / CU_WGMMA_MULTIPLIERS,
    CU_WGMMA_STEP = 64,
    CU_WGMMA_STAGES = 4,
    /* Rows of a step are reported when so many later steps have been sent: it takes them 2048 clocks, and they are
     * still there a step before they are wanted. One more, and the multipliers would wait for what is there. */
    CU_WGMMA_LATE = 2,
    CU_WGMMA_ROW_BYTES = 2 * CU_WGMMA_STEP,
    CU_WGMMA_EIGHTS = CU_WGMMA_STEP / CU_EIGHT,
    CU_WGMMA_APART = CU_WGMMA_GROUP / CU_WGMMA_EIGHTS, /* rows of x that a thread brings eights of are so far apart */
    CU_WGMMA_EACH = CU_WGMMA_ROWS / CU_WGMMA_APART,
    CU_WGMMA_X_BYTES = CU_WGMMA_ROWS * CU_WGMMA_ROW_BYTES,
    CU_WGMMA_W_BYTES = CU_WGMMA_COLUMNS * CU_WGMMA_ROW_BYTES,
    CU_WGMMA_STAGE_BYTES = CU_WGMMA_X_BYTES + CU_WGMMA_W_BYTES,
    CU_WGMMA_PATCH = 64, /* columns that a warp hands out together */
    CU_WGMMA_PATCH_BYTES = CU_PATCH_ROWS * (CU_WGMMA_PATCH + CU_PATCH_PAD) * 2,
    /* of a thread: together what 168 for each would be */
    CU_WGMMA_FEW_REGISTERS = 40,
    CU_WGMMA_MANY_REGISTERS = 232
};

#if defined(PM_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

typedef struct wgmma_shared {
    uint8_t *stages, *staged;
    uint64_t *full, *empty;
} wgmma_shared;

/// A stage, and whether it is used for the 1st, 3rd, .. time (0) or the 2nd, 4th, .. (1).
typedef struct wgmma_turn {
    int32_t stage, parity;
} wgmma_turn;

typedef struct wgmma_tile {
    cu_rows rows;
    int64_t column0;
} wgmma_tile;

PM_DEVICE void wgmma_advance(wgmma_turn *turn)
{
    turn->stage++;
    if (turn->stage == CU_WGMMA_STAGES) {
        turn->stage = 0;
        turn->parity ^= 1;
    }
}

PM_DEVICE int64_t wgmma_tiles(const cu_product *p)
{
    return pm_cu_row_tiles(p, CU_WGMMA_ROWS) * pm_cu_ceil_div(p->n, CU_WGMMA_COLUMNS);
}

PM_DEVICE wgmma_tile wgmma_tile_at(const cu_product *p, int64_t number)
{
    wgmma_tile tile;
    int64_t row_tile;
    pm_cu_tile_at(number, pm_cu_row_tiles(p, CU_WGMMA_ROWS), pm_cu_ceil_div(p->n, CU_WGMMA_COLUMNS), &row_tile,
                  &tile.column0);
    tile.rows = pm_cu_rows_of(p, row_tile, CU_WGMMA_ROWS);
    tile.column0 *= CU_WGMMA_COLUMNS;
    return tile;
}

/// This warp's share of a stage is done, in the eyes of all its lanes.
PM_DEVICE void wgmma_report(uint64_t *barrier)
{
    pm_sync_warp();
    if (pm_lane() == 0)
        pm_mbarrier_arrive(barrier);
}

/// ---- the warpgroup that brings factors ----------------------------------------------------------------------

/// This thread's eights of x of step k0, for rows of the tile that there are; zeros for others, and behind k.
PM_DEVICE void wgmma_send_x(const cu_product *p, const cu_rows *rows, int64_t k0, uint8_t *stage)
{
    int32_t thread = pm_thread() % CU_WGMMA_GROUP, row = thread / CU_WGMMA_EIGHTS, eight = thread % CU_WGMMA_EIGHTS;
    int64_t k = k0 + eight * CU_EIGHT, row_bytes = p->k * 2;
    int32_t is_inside = k < p->k;
    const uint8_t *from = (const uint8_t *)p->x + (rows->first + pm_cu_min(row, rows->count - 1)) * row_bytes +
                          (is_inside ? k * 2 : 0);
    uint8_t *to = stage + pm_swizzled(row * CU_WGMMA_ROW_BYTES + eight * 16, PM_SWIZZLE_128);
    PM_UNROLL for (int32_t e = 0; e < CU_WGMMA_EACH; e++)
    {
        int32_t sends = is_inside && row + e * CU_WGMMA_APART < rows->count;
        pm_cp_async16(to + e * CU_WGMMA_APART * CU_WGMMA_ROW_BYTES,
                      from + (sends ? e * CU_WGMMA_APART * row_bytes : 0), sends ? 16 : 0);
    }
    pm_cp_async_commit();
}

/// Rows of x that have come are there for the tensor cores, which see memory another way than threads do.
PM_DEVICE void wgmma_report_x(const wgmma_shared *s, wgmma_turn *reported)
{
    pm_fence_async();
    wgmma_report(s->full + reported->stage);
    wgmma_advance(reported);
}

PM_DEVICE void wgmma_bring(const cu_product *p, const wgmma_shared *s)
{
    wgmma_turn turn = {0, 0}, reported = {0, 0};
    int32_t is_first = pm_thread() % CU_WGMMA_GROUP == 0;
    if (is_first)
        pm_tma_acquire(p->map);
    PM_NO_UNROLL for (int64_t number = pm_block(); number < wgmma_tiles(p); number += pm_blocks())
    {
        wgmma_tile tile = wgmma_tile_at(p, number);
        int32_t late = 0;
        if (tile.rows.count <= 0)
            continue;
        PM_NO_UNROLL for (int64_t k = 0; k < p->k; k += CU_WGMMA_STEP)
        {
            uint8_t *stage = s->stages + turn.stage * CU_WGMMA_STAGE_BYTES;
            pm_mbarrier_wait(s->empty + turn.stage, turn.parity ^ 1);
            if (is_first) {
                pm_mbarrier_expect(s->full + turn.stage, CU_WGMMA_W_BYTES);
                pm_tma_load_3d(stage + CU_WGMMA_X_BYTES, p->map, (int32_t)k, (int32_t)tile.column0,
                               (int32_t)tile.rows.expert, s->full + turn.stage);
            }
            wgmma_send_x(p, &tile.rows, k, stage);
            wgmma_advance(&turn);
            if (late == CU_WGMMA_LATE) {
                pm_cp_async_wait(CU_WGMMA_LATE);
                wgmma_report_x(s, &reported);
            } else {
                late++;
            }
        }
        pm_cp_async_wait(0); /* it takes longer to find the next tile */
        PM_NO_UNROLL for (; late > 0; late--)
            wgmma_report_x(s, &reported);
    }
}

/// ---- warpgroups that multiply -------------------------------------------------------------------------------

/// Adds the products of a step.
PM_DEVICE void wgmma_multiply(const uint8_t *stage, int32_t is_f16, float *sums)
{
    const uint8_t *x = stage + pm_warp() / 4 * (CU_WGMMA_HIGH * CU_WGMMA_ROW_BYTES), *w = stage + CU_WGMMA_X_BYTES;
    pm_wgmma_fence();
    PM_UNROLL for (int32_t step = 0; step < CU_WGMMA_STEP / 16; step++)
    {
        uint64_t a = pm_wgmma_matrix(x + step * 32, 16, 8 * CU_WGMMA_ROW_BYTES, PM_SWIZZLE_128);
        uint64_t b = pm_wgmma_matrix(w + step * 32, 16, 8 * CU_WGMMA_ROW_BYTES, PM_SWIZZLE_128);
        if (is_f16)
            pm_wgmma_f16_n256(sums, a, b);
        else
            pm_wgmma_bf16_n256(sums, a, b);
    }
    pm_wgmma_commit();
}

/// Steps of a tile. While the tensor cores are at one, the next one is given to them.
PM_DEVICE void wgmma_sum(const cu_product *p, const wgmma_shared *s, int32_t is_f16, wgmma_turn *turn, float *sums)
{
    int32_t last = -1;
    PM_NO_UNROLL for (int64_t k = 0; k < p->k; k += CU_WGMMA_STEP)
    {
        pm_mbarrier_wait(s->full + turn->stage, turn->parity);
        wgmma_multiply(s->stages + turn->stage * CU_WGMMA_STAGE_BYTES, is_f16, sums);
        pm_wgmma_wait(1);
        if (last >= 0)
            wgmma_report(s->empty + last);
        last = turn->stage;
        wgmma_advance(turn);
    }
    pm_wgmma_wait(0);
    wgmma_report(s->empty + last);
}

/// Steps of a tile that has no rows for this warpgroup.
PM_DEVICE void wgmma_pass(const cu_product *p, const wgmma_shared *s, wgmma_turn *turn)
{
    PM_NO_UNROLL for (int64_t k = 0; k < p->k; k += CU_WGMMA_STEP)
    {
        pm_mbarrier_wait(s->full + turn->stage, turn->parity);
        wgmma_report(s->empty + turn->stage);
        wgmma_advance(turn);
    }
}

PM_DEVICE void wgmma_make(const cu_product *p, const wgmma_shared *s, int32_t is_f16)
{
    wgmma_turn turn = {0, 0};
    uint32_t *staged = (uint32_t *)(s->staged + pm_warp() * CU_WGMMA_PATCH_BYTES);
    PM_NO_UNROLL for (int64_t number = pm_block(); number < wgmma_tiles(p); number += pm_blocks())
    {
        wgmma_tile tile = wgmma_tile_at(p, number);
        if (tile.rows.count <= 0)
            continue;
        if (tile.rows.count <= pm_warp() / 4 * CU_WGMMA_HIGH) {
            wgmma_pass(p, s, &turn);
            continue;
        }
        float sums[CU_WGMMA_COLUMNS / 2];
        PM_UNROLL for (int32_t i = 0; i < CU_WGMMA_COLUMNS / 2; i++)
            sums[i] = 0.0f;
        wgmma_sum(p, s, is_f16, &turn, sums);
        pm_wgmma_results(sums, CU_WGMMA_COLUMNS);
        cu_tile_out out = pm_cu_tile_out(p, &tile.rows, tile.column0, CU_WGMMA_COLUMNS);
        PM_UNROLL for (int32_t column = 0; column < CU_WGMMA_COLUMNS; column += CU_WGMMA_PATCH)
            pm_cu_patch_out(p, &out, pm_warp() * CU_PATCH_ROWS, column, CU_WGMMA_PATCH, sums + column / 2, staged);
    }
}

/// ---- the block ----------------------------------------------------------------------------------------------

PM_DEVICE void wgmma_run(const cu_product *p)
{
    PM_SHARED(uint64_t, full, CU_WGMMA_STAGES);
    PM_SHARED(uint64_t, empty, CU_WGMMA_STAGES);
    wgmma_shared s;
    s.full = full;
    s.empty = empty;
    s.stages = pm_aligned_matrix(pm_dynamic_shared());
    s.staged = s.stages + CU_WGMMA_STAGES * CU_WGMMA_STAGE_BYTES;
    if (pm_thread() == 0) {
        for (int32_t i = 0; i < CU_WGMMA_STAGES; i++) {
            pm_mbarrier_init(full + i, CU_WGMMA_GROUP / CU_WARP + 1); /* warps that bring x, and the one for w */
            pm_mbarrier_init(empty + i, CU_WGMMA_MULTIPLIERS * CU_WGMMA_GROUP / CU_WARP);
        }
        pm_fence_async();
    }
    pm_sync();
    if (pm_thread() >= CU_WGMMA_MULTIPLIERS * CU_WGMMA_GROUP) {
        pm_registers_down(CU_WGMMA_FEW_REGISTERS);
        wgmma_bring(p, &s);
        return;
    }
    pm_registers_up(CU_WGMMA_MANY_REGISTERS);
    if (pm_cu_is_of_f16(p))
        wgmma_make(p, &s, 1);
    else
        wgmma_make(p, &s, 0);
}
#endif

#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(CU_WGMMA_THREADS, 1)
/* CU_WGMMA_ROWS rows by CU_WGMMA_COLUMNS columns. x and w have elements of the same 16 bits, k is a multiple of 8, `map`
 * is there. Any number of blocks: one for each multiprocessor is enough. */
PM_GLOBAL void pm_cu_product_wgmma(CU_PRODUCT_PARAMETERS)
{
#if defined(PM_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    CU_PRODUCT(p);
    wgmma_run(&p);
#endif
}
