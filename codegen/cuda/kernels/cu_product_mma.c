/* Products on tensor cores by mma.sync: factors in bf16, or both in f16, sums in f32. */
#include "codegen/cuda/kernels/cu_product_tile.h"

/* Eight warps, two by four, each with 64 rows and 32 columns. Steps of 32 of k come through shared memory,
 * CU_MMA_STAGES - 1 of them under way while one is multiplied. What has 16 bits there as here is copied beside
 * (cp.async); other factors come through registers, where they are decoded and rounded.
 *
 * A step is 16 KB, so 48 KB a block: two blocks are on a multiprocessor, of an sm_89 too, and one computes while the
 * other begins or ends. Rows of 64 bytes are swizzled: eight lanes that read (ldmatrix) or write 16 bytes of eight
 * rows meet all banks once. */
enum {
    CU_MMA_THREADS = 256,
    CU_MMA_STEP = 32,
    CU_MMA_STAGES = 3,
    CU_MMA_WARPS_WIDE = 4,
    CU_MMA_HIGH = 64, /* of a warp */
    CU_MMA_WIDE = CU_MMA_COLUMNS / CU_MMA_WARPS_WIDE,
    CU_MMA_EIGHTS = CU_MMA_STEP / CU_EIGHT,
    /* eights of a factor that a thread brings, one for each 16 of a step: of rows … */
    CU_MMA_EACH = CU_MMA_ROWS * CU_MMA_EIGHTS / CU_MMA_THREADS,
    CU_MMA_APART = CU_MMA_THREADS / CU_MMA_EIGHTS, /* … so far apart */
    CU_MMA_ROW_BYTES = 2 * CU_MMA_STEP,
    CU_MMA_X_BYTES = CU_MMA_ROWS * CU_MMA_ROW_BYTES,
    CU_MMA_STAGE_BYTES = (CU_MMA_ROWS + CU_MMA_COLUMNS) * CU_MMA_ROW_BYTES,
    CU_MMA_PATCH_BYTES = CU_PATCH_ROWS * (CU_MMA_WIDE + CU_PATCH_PAD) * 2
};

/// How a tile's factors come: those that aren't sent go through registers. Literals, so each way is code of its own.
typedef struct mma_way {
    int32_t is_even, sends_x, sends_w, is_f16;
} mma_way;

/// A row of each factor that a thread brings eights of.
typedef struct mma_line {
    int32_t x_row, has_x, has_w;
    cu_weight w_row;
} mma_line;

/// One eight of each factor on its way through registers.
typedef struct mma_load {
    uint32_t x[CU_EIGHT];
    cu_raw w;
} mma_load;

typedef struct mma_sums {
    float at[CU_MMA_HIGH / 16][CU_MMA_WIDE / 8][4];
} mma_sums;

/// Where eight factors lie in a tile. Eight rows further it is eight rows' bytes further.
PM_DEVICE int32_t mma_place(int32_t row, int32_t eight)
{
    return pm_swizzled(row * CU_MMA_ROW_BYTES + eight * 16, PM_SWIZZLE_64);
}

/// Where the eight number e of this thread goes.
PM_DEVICE int32_t mma_own_place(int32_t e)
{
    return mma_place(pm_thread() / CU_MMA_EIGHTS, pm_thread() % CU_MMA_EIGHTS) + e * CU_MMA_APART * CU_MMA_ROW_BYTES;
}

/// Row number e of this thread. A row that the tile has not: its last one, whose products nobody stores; columns alike.
PM_DEVICE mma_line mma_own_line(const cu_product *p, const cu_rows *rows, int64_t column0, int32_t e)
{
    int64_t line = pm_thread() / CU_MMA_EIGHTS + e * CU_MMA_APART;
    mma_line l;
    l.has_x = line < rows->count;
    l.has_w = column0 + line < p->n;
    l.x_row = (int32_t)(rows->first + pm_cu_min(line, rows->count - 1));
    l.w_row = pm_cu_weight_row(p, rows->expert, pm_cu_min(column0 + line, p->n - 1));
    return l;
}

/// 16 bytes of a row from k on; zeros where there is no such row, or nothing of it.
PM_DEVICE void mma_send_eight(const cu_product *p, uint8_t *to, const uint8_t *row, int64_t k, int32_t is_there)
{
    int32_t sends = is_there && k < p->k;
    pm_cp_async16(to, row + (sends ? k * 2 : 0), sends ? 16 : 0);
}

/// Sends what can be sent of step k0.
PM_DEVICE void mma_send(const cu_product *p, mma_way way, const mma_line *lines, int64_t k0, uint8_t *stage)
{
    int64_t k = k0 + pm_thread() % CU_MMA_EIGHTS * CU_EIGHT;
    PM_UNROLL for (int32_t e = 0; e < CU_MMA_EACH; e++)
    {
        uint8_t *to = stage + mma_own_place(e);
        if (way.sends_x)
            mma_send_eight(p, to, (const uint8_t *)p->x + lines[e].x_row * p->k * 2, k, lines[e].has_x);
        if (way.sends_w)
            mma_send_eight(p, to + CU_MMA_X_BYTES, lines[e].w_row.codes, k, lines[e].has_w);
    }
    pm_cp_async_commit();
}

/// Loads what isn't sent.
PM_DEVICE void mma_fetch(const cu_product *p, mma_way way, const mma_line *line, int64_t k0, mma_load *load)
{
    int64_t k = k0 + pm_thread() % CU_MMA_EIGHTS * CU_EIGHT;
    if (!way.sends_x)
        pm_cu_x_load(p, way.is_even, line->x_row, k, load->x);
    if (!way.sends_w)
        pm_cu_weight_load(p, way.is_even, &line->w_row, k, &load->w);
}

PM_DEVICE void mma_put(uint8_t *to, const float *eight, int32_t is_f16)
{
    cu_words words;
    PM_UNROLL for (int32_t i = 0; i < 4; i++)
        words.at[i] = is_f16 ? pm_f16x2_of_f32(eight[2 * i], eight[2 * i + 1])
                             : pm_bf16x2_of_f32(eight[2 * i], eight[2 * i + 1]);
    *(cu_words *)to = words;
}

/// Decodes what mma_fetch loaded, and stores it where it belongs.
PM_DEVICE void mma_store(const cu_product *p, mma_way way, const mma_line *line, int64_t k0, const mma_load *load,
                         uint8_t *to)
{
    int64_t k = k0 + pm_thread() % CU_MMA_EIGHTS * CU_EIGHT;
    float eight[CU_EIGHT];
    if (!way.sends_x) {
        pm_cu_x_decode(p, load->x, eight);
        mma_put(to, eight, way.is_f16);
    }
    if (!way.sends_w) {
        pm_cu_weight_decode(p, &line->w_row, k, &load->w, eight);
        mma_put(to + CU_MMA_X_BYTES, eight, way.is_f16);
    }
}

/// Step k0 of odd rows: one element at a time, and not beside anything else, for that would take registers.
PM_DEVICE void mma_bring_odd(const cu_product *p, const cu_rows *rows, int64_t column0, mma_way way, int64_t k0,
                             uint8_t *stage)
{
    PM_NO_UNROLL for (int32_t e = 0; e < CU_MMA_EACH; e++)
    {
        mma_line line = mma_own_line(p, rows, column0, e);
        mma_load load;
        mma_fetch(p, way, &line, k0, &load);
        mma_store(p, way, &line, k0, &load, stage + mma_own_place(e));
    }
}

/// Adds the products of 16 of k.
PM_DEVICE void mma_multiply(const uint8_t *stage, int32_t step, int32_t is_f16, mma_sums *sums)
{
    int32_t lane = pm_lane();
    int32_t row0 = pm_warp() / CU_MMA_WARPS_WIDE * CU_MMA_HIGH + lane % 16;
    int32_t column0 = pm_warp() % CU_MMA_WARPS_WIDE * CU_MMA_WIDE + lane / 16 * 8 + lane % 8;
    uint32_t x[CU_MMA_HIGH / 16][4], w[CU_MMA_WIDE / 16][4]; /* w: two eights of columns by two of k */
    const uint8_t *x_from = stage + mma_place(row0, 2 * step + lane / 16);
    const uint8_t *w_from = stage + CU_MMA_X_BYTES + mma_place(column0, 2 * step + lane / 8 % 2);
    PM_UNROLL for (int32_t i = 0; i < CU_MMA_HIGH / 16; i++)
        pm_ldmatrix_x4(x[i], x_from + i * 16 * CU_MMA_ROW_BYTES);
    PM_UNROLL for (int32_t j = 0; j < CU_MMA_WIDE / 16; j++)
        pm_ldmatrix_x4(w[j], w_from + j * 16 * CU_MMA_ROW_BYTES);
    PM_UNROLL for (int32_t i = 0; i < CU_MMA_HIGH / 16; i++)
        PM_UNROLL for (int32_t j = 0; j < CU_MMA_WIDE / 8; j++)
        {
            if (is_f16)
                pm_mma_f16_16816(sums->at[i][j], x[i], &w[j / 2][j % 2 * 2]);
            else
                pm_mma_bf16_16816(sums->at[i][j], x[i], &w[j / 2][j % 2 * 2]);
        }
}

PM_DEVICE void mma_finish(const cu_product *p, const cu_rows *rows, int64_t column0, const mma_sums *sums,
                          uint8_t *shared)
{
    cu_tile_out out = pm_cu_tile_out(p, rows, column0, CU_MMA_COLUMNS);
    uint32_t *staged = (uint32_t *)(shared + pm_warp() * CU_MMA_PATCH_BYTES);
    int32_t row = pm_warp() / CU_MMA_WARPS_WIDE * CU_MMA_HIGH, column = pm_warp() % CU_MMA_WARPS_WIDE * CU_MMA_WIDE;
    PM_UNROLL for (int32_t i = 0; i < CU_MMA_HIGH / 16; i++)
        pm_cu_patch_out(p, &out, row + i * CU_PATCH_ROWS, column, CU_MMA_WIDE, sums->at[i][0], staged);
}

/// Multiplies the step in `stage`, and brings step k0 to `to` meanwhile.
PM_DEVICE void mma_step(const cu_product *p, mma_way way, const mma_line *lines, const uint8_t *stage, mma_sums *sums,
                        int64_t k0, uint8_t *to)
{
    PM_UNROLL for (int32_t e = 0; e < CU_MMA_EACH; e++)
    {
        /* one load is under way while 16 of k are multiplied: registers are what there is least of */
        mma_load load;
        if (way.is_even)
            mma_fetch(p, way, &lines[e], k0, &load);
        if (way.is_f16)
            mma_multiply(stage, e, 1, sums);
        else
            mma_multiply(stage, e, 0, sums);
        if (way.is_even)
            mma_store(p, way, &lines[e], k0, &load, to + mma_own_place(e));
    }
}

PM_DEVICE void mma_tile(const cu_product *p, const cu_rows *rows, int64_t column0, mma_way way)
{
    uint8_t *shared = (uint8_t *)pm_dynamic_shared();
    mma_line lines[CU_MMA_EACH];
    mma_sums sums;
    PM_UNROLL for (int32_t i = 0; i < CU_MMA_HIGH / 16; i++)
        PM_UNROLL for (int32_t j = 0; j < CU_MMA_WIDE / 2; j++)
            sums.at[i][j / 4][j % 4] = 0.0f;
    PM_UNROLL for (int32_t e = 0; e < CU_MMA_EACH; e++)
        if (way.is_even)
            lines[e] = mma_own_line(p, rows, column0, e);
    PM_UNROLL for (int32_t s = 0; s < CU_MMA_STAGES - 1; s++)
    {
        uint8_t *to = shared + s * CU_MMA_STAGE_BYTES;
        mma_send(p, way, lines, s * CU_MMA_STEP, to);
        PM_UNROLL for (int32_t e = 0; e < CU_MMA_EACH; e++)
        {
            mma_load load;
            if (!way.is_even)
                break;
            mma_fetch(p, way, &lines[e], s * CU_MMA_STEP, &load);
            mma_store(p, way, &lines[e], s * CU_MMA_STEP, &load, to + mma_own_place(e));
        }
        if (!way.is_even)
            mma_bring_odd(p, rows, column0, way, s * CU_MMA_STEP, to);
    }
    int32_t now = 0, next = CU_MMA_STAGES - 1;
    PM_NO_UNROLL for (int64_t k = 0; k < p->k; k += CU_MMA_STEP)
    {
        int64_t ahead = k + (CU_MMA_STAGES - 1) * CU_MMA_STEP;
        uint8_t *to = shared + next * CU_MMA_STAGE_BYTES;
        pm_cp_async_wait(1); /* all but the youngest of CU_MMA_STAGES - 1 */
        pm_sync();           /* this step is there for all, and all are done with the one that was in `to` */
        mma_send(p, way, lines, ahead, to);
        if (!way.is_even)
            mma_bring_odd(p, rows, column0, way, ahead, to);
        mma_step(p, way, lines, shared + now * CU_MMA_STAGE_BYTES, &sums, ahead, to);
        now = now + 1 < CU_MMA_STAGES ? now + 1 : 0;
        next = next + 1 < CU_MMA_STAGES ? next + 1 : 0;
    }
    pm_cp_async_wait(0);
    pm_sync(); /* nobody reads factors any more, and none arrives */
    mma_finish(p, rows, column0, &sums, shared);
}

#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(CU_MMA_THREADS, 2)
/* CU_MMA_ROWS rows by CU_MMA_COLUMNS columns. */
PM_GLOBAL void pm_cu_product_mma(CU_PRODUCT_PARAMETERS)
{
    CU_PRODUCT(p);
    int64_t columns = pm_cu_ceil_div(p.n, CU_MMA_COLUMNS), row_tile, column0;
    pm_cu_tile_at(pm_block(), pm_blocks() / columns, columns, &row_tile, &column0);
    cu_rows found = pm_cu_rows_of(&p, row_tile, CU_MMA_ROWS);
    column0 *= CU_MMA_COLUMNS;
    if (found.count <= 0)
        return;
    mma_way way;
    int64_t elem = pm_cu_is_of_f16(&p) ? CU_F16 : CU_BF16;
    int32_t sends_x = p.x_elem == elem, sends_w = p.bits == 0 && p.w_elem == elem;
    p.rounds = 0; /* all are rounded when they are put */
    way.is_f16 = elem == CU_F16;
    way.is_even = pm_cu_x_is_even(&p) && pm_cu_w_is_even(&p);
    way.sends_x = way.sends_w = 0;
    if (!way.is_even) {
        way.is_even = 0;
        mma_tile(&p, &found, column0, way);
        return;
    }
    way.is_even = 1;
    if (sends_x && sends_w) {
        way.sends_x = way.sends_w = 1;
        mma_tile(&p, &found, column0, way);
        return;
    }
    way.is_f16 = 0; /* both factors would have been sent */
    if (sends_x) {
        way.sends_x = 1;
        mma_tile(&p, &found, column0, way);
    } else if (sends_w) {
        way.sends_w = 1;
        mma_tile(&p, &found, column0, way);
    } else {
        mma_tile(&p, &found, column0, way);
    }
}
