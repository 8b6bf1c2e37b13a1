/* Products on CUDA cores, in f32: few rows, by warps that read rows of the weight, and tiles of many. */
#include "codegen/cuda/kernels/cu_f32_tile.h"

/* ---- few rows ---------------------------------------------------------------------------------------------- */

/* A warp has CU_FEW_GROUP columns and, of k, every CU_FEW_SLICES-th step: so x, once in registers, serves four columns,
 * and a short k keeps all warps busy. Sums: a lane's factors in order, lanes by halving distance, slices in order.
 *
 * To keep an H100's memory busy, 132 SMs must have about 3.35 TB/s * 600 ns = 2 MB under way, 15 KB each. A lane has
 * CU_FEW_GROUP times `depth` loads under way: of 16 bits 4 * 2 * 16 bytes, so a block has 32 KB; f32 the same; codes of
 * 8 bits too; of 4 bits 4 * 4 * 4 bytes, 16 KB. 1024 columns are 128 blocks, so one on nearly each SM; 4096 are 512, of
 * which an SM holds two or more. */
enum {
    CU_FEW_WARPS = 8,
    CU_FEW_SLICES = 4,
    CU_FEW_GROUP = CU_FEW_COLUMNS * CU_FEW_SLICES / CU_FEW_WARPS,
    CU_FEW_STEP = CU_WARP * CU_EIGHT,
    CU_FEW_STRIDE = CU_FEW_STEP * CU_FEW_SLICES,
    CU_FEW_DEPTH = 4,
    CU_FEW_SUMS = CU_FEW_ROWS * CU_FEW_GROUP /* one for each lane */
};

/// Steps whose loads are under way together. Several rows have enough to do with one.
PM_DEVICE int64_t few_depth(const cu_product *p, int32_t most_rows)
{
    int64_t bits = pm_cu_weight_bits(p), depth = most_rows > 1 || bits == 32 ? 1 : bits == 16 ? 2 : CU_FEW_DEPTH;
    return pm_cu_min(depth, (p->k + CU_FEW_STRIDE - 1) / CU_FEW_STRIDE);
}

/// Whether eight codes are summed before they are scaled: rounded factors aren't.
PM_DEVICE int32_t few_scales_late(const cu_product *p)
{
    return p->bits && !p->rounds && pm_cu_blocks_are_even(p);
}

/// One step: factors i to i + 7 of a group's columns, times those of each row.
PM_DEVICE void few_step(const cu_product *p, const cu_rows *rows, const cu_weight *w, int64_t i, const cu_raw *raw,
                        const uint32_t *first_x, int32_t most_rows, float *sum)
{
    float factors[CU_FEW_GROUP][CU_EIGHT], scale[CU_FEW_GROUP];
    int32_t is_late = few_scales_late(p);
    PM_UNROLL for (int32_t c = 0; c < CU_FEW_GROUP; c++)
    {
        if (is_late)
            scale[c] = pm_cu_weight_decode_unscaled(p, &raw[c], factors[c]);
        else
            pm_cu_weight_decode(p, &w[c], i, &raw[c], factors[c]);
    }
    PM_UNROLL for (int32_t r = 0; r < most_rows; r++)
    {
        uint32_t words[CU_EIGHT];
        float x[CU_EIGHT];
        if (r >= rows->count)
            break;
        if (r == 0)
            pm_cu_x_decode(p, first_x, x);
        if (r > 0) {
            pm_cu_x_load(p, pm_cu_x_is_even(p), rows->first + r, i, words);
            pm_cu_x_decode(p, words, x);
        }
        PM_UNROLL for (int32_t c = 0; c < CU_FEW_GROUP; c++)
        {
            float *to = &sum[r * CU_FEW_GROUP + c], part = is_late ? 0.0f : *to;
            PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
                part = pm_fmaf(factors[c][j], x[j], part);
            *to = is_late ? pm_fmaf(part, scale[c], *to) : part;
        }
    }
}

/// A warp's slice of k: what each lane has of each row and column.
PM_DEVICE void few_slice(const cu_product *p, const cu_rows *rows, const cu_weight *w, int32_t slice, int32_t most_rows,
                         float *sum)
{
    int64_t depth = few_depth(p, most_rows);
    int32_t is_even = pm_cu_w_is_even(p), x_is_even = pm_cu_x_is_even(p);
    for (int64_t base = slice * CU_FEW_STEP; base < p->k; base += depth * CU_FEW_STRIDE) {
        cu_raw raw[CU_FEW_DEPTH][CU_FEW_GROUP];
        uint32_t x[CU_FEW_DEPTH][CU_EIGHT];
        PM_UNROLL for (int32_t d = 0; d < CU_FEW_DEPTH; d++)
        {
            int64_t i = base + d * CU_FEW_STRIDE + pm_lane() * CU_EIGHT;
            if (d >= depth)
                break;
            PM_UNROLL for (int32_t c = 0; c < CU_FEW_GROUP; c++)
                pm_cu_weight_load(p, is_even, &w[c], i, &raw[d][c]);
            pm_cu_x_load(p, x_is_even, rows->first, i, x[d]);
        }
        PM_UNROLL for (int32_t d = 0; d < CU_FEW_DEPTH; d++)
        {
            int64_t step = base + d * CU_FEW_STRIDE;
            if (d >= depth || step >= p->k)
                break;
            few_step(p, rows, w, step + pm_lane() * CU_EIGHT, raw[d], x[d], most_rows, sum);
        }
    }
}

/// Sums `n` values, a power of two up to 32, over a warp's lanes: lane l gets value number l / (32 / n).
PM_DEVICE float few_reduce(float *value, int32_t n)
{
    PM_UNROLL for (int32_t distance = CU_WARP / 2; distance > 0; distance /= 2)
    {
        int32_t is_upper = (pm_lane() & distance) != 0;
        n /= 2;
        if (n == 0)
            value[0] += pm_shfl_xor_f32(value[0], distance);
        PM_UNROLL for (int32_t i = 0; i < CU_WARP / 2; i++)
            if (i < n) {
                float kept = is_upper ? value[i + n] : value[i], sent = is_upper ? value[i] : value[i + n];
                value[i] = kept + pm_shfl_xor_f32(sent, distance);
            }
    }
    return value[0];
}

PM_DEVICE void few_tile(const cu_product *p, const cu_rows *rows, int64_t column0, float *parts, int32_t most_rows)
{
    int32_t slice = pm_warp() % CU_FEW_SLICES, group = pm_warp() / CU_FEW_SLICES;
    int32_t n = most_rows * CU_FEW_GROUP, share = CU_WARP / n;
    cu_weight w[CU_FEW_GROUP];
    float sum[CU_FEW_SUMS];
    PM_UNROLL for (int32_t c = 0; c < CU_FEW_GROUP; c++)
        w[c] = pm_cu_weight_row(p, rows->expert, pm_cu_min(column0 + group * CU_FEW_GROUP + c, p->n - 1));
    PM_UNROLL for (int32_t i = 0; i < CU_FEW_SUMS; i++)
        sum[i] = 0.0f;
    few_slice(p, rows, w, slice, most_rows, sum);
    float total = few_reduce(sum, n);
    if (pm_lane() % share == 0)
        parts[(slice * (CU_FEW_WARPS / CU_FEW_SLICES) + group) * CU_FEW_SUMS + pm_lane() / share] = total;
    pm_sync();
    int64_t row = pm_thread() / CU_FEW_COLUMNS, column = column0 + pm_thread() % CU_FEW_COLUMNS;
    if (row >= rows->count || column >= p->n)
        return;
    int32_t of_block = pm_thread() % CU_FEW_COLUMNS;
    const float *part = parts + of_block / CU_FEW_GROUP * CU_FEW_SUMS + row * CU_FEW_GROUP + of_block % CU_FEW_GROUP;
    float y = part[0];
    for (int32_t s = 1; s < CU_FEW_SLICES; s++)
        y += part[s * (CU_FEW_WARPS / CU_FEW_SLICES) * CU_FEW_SUMS];
    if (p->bias)
        y += pm_cu_element(p->bias, p->bias_elem, rows->expert * p->n + column);
    pm_cu_store(p->y, p->y_elem, (rows->first + row) * p->n + column, y);
}

/// Block number `block` of a product's.
PM_DEVICE void few_block(const cu_product *p, int64_t block, float *parts)
{
    int64_t columns = pm_cu_ceil_div(p->n, CU_FEW_COLUMNS), column0 = block % columns * CU_FEW_COLUMNS;
    cu_rows found = pm_cu_rows_of(p, block / columns, CU_FEW_ROWS);
    if (found.count <= 0)
        return;
    if (found.count == 1) /* the usual: takes fewer registers' worth of work */
        few_tile(p, &found, column0, parts, 1);
    else
        few_tile(p, &found, column0, parts, CU_FEW_ROWS);
}

#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(CU_FEW_WARPS * CU_WARP, 2)
/* CU_FEW_ROWS rows by CU_FEW_COLUMNS columns. */
PM_GLOBAL void pm_cu_product_few(CU_PRODUCT_PARAMETERS)
{
    PM_SHARED(float, parts, CU_FEW_WARPS * CU_FEW_SUMS);
    CU_PRODUCT(p);
    few_block(&p, pm_block(), parts);
}

/// What products of the same rows, with weights of the same kind, have each for itself.
typedef struct few_sibling {
    const void *w, *scales, *zeros, *bias;
    void *y;
    int64_t n, expert_bytes;
} few_sibling;

#define FEW_SIBLING_PARAMETERS(i)                                                                              \
    const void *w##i, const void *scales##i, const void *zeros##i, const void *bias##i, void *y##i, int64_t n##i, \
        int64_t expert_bytes##i

#define FEW_SIBLING(s, i)                                                                                      \
    (s).w = w##i;                                                                                              \
    (s).scales = scales##i;                                                                                    \
    (s).zeros = PM_FIXED(ZERO, zero_elem) == CU_NONE ? (const void *)0 : zeros##i;                             \
    (s).bias = bias##i;                                                                                        \
    (s).y = y##i;                                                                                              \
    (s).n = n##i;                                                                                              \
    (s).expert_bytes = expert_bytes##i

PM_DEVICE void few_take_sibling(cu_product *p, const few_sibling *s)
{
    p->w = s->w;
    p->scales = s->scales;
    p->zeros = s->zeros;
    p->bias = s->bias;
    p->y = s->y;
    p->n = s->n;
    p->expert_bytes = s->expert_bytes;
}

/* Up to CU_SIBLINGS products of the same rows: queries, keys and values; gates and what they gate. The blocks of each, as
 * product_few has them, behind those of the one before. n 0: there is none. A launch waits for the one before, and a short
 * product alone doesn't keep the memory busy. */
PM_GLOBAL void pm_cu_products_few(CU_PRODUCT_PARAMETERS, FEW_SIBLING_PARAMETERS(1), FEW_SIBLING_PARAMETERS(2),
                                  FEW_SIBLING_PARAMETERS(3))
{
    PM_SHARED(float, parts, CU_FEW_WARPS * CU_FEW_SUMS);
    few_sibling others[CU_SIBLINGS - 1];
    CU_PRODUCT(p);
    FEW_SIBLING(others[0], 1);
    FEW_SIBLING(others[1], 2);
    FEW_SIBLING(others[2], 3);
    int64_t columns = pm_cu_ceil_div(p.n, CU_FEW_COLUMNS), at = pm_block();
    PM_UNROLL for (int32_t i = 0; i < CU_SIBLINGS - 1; i++)
        columns += pm_cu_ceil_div(others[i].n, CU_FEW_COLUMNS);
    int64_t row_tiles = pm_blocks() / columns;
    PM_UNROLL for (int32_t i = 0; i < CU_SIBLINGS - 1; i++)
    {
        int64_t before = row_tiles * pm_cu_ceil_div(p.n, CU_FEW_COLUMNS);
        if (at < before)
            break;
        at -= before;
        few_take_sibling(&p, &others[i]);
    }
    few_block(&p, at, parts);
}

/* ---- tiles ------------------------------------------------------------------------------------------------- */

/// What a thread has on its way to shared memory, and where it belongs.
typedef struct cu_f32_load {
    int64_t x_row;
    cu_weight w_row;
    uint32_t x[CU_EIGHT];
    cu_raw w;
} cu_f32_load;

PM_DEVICE void f32_load(const cu_product *p, int64_t k0, cu_f32_load *load)
{
    pm_cu_x_load(p, pm_cu_x_is_even(p), load->x_row, k0 + pm_cu_f32_k(), load->x);
    pm_cu_weight_load(p, pm_cu_w_is_even(p), &load->w_row, k0 + pm_cu_f32_k(), &load->w);
}

PM_DEVICE void f32_store(const cu_product *p, int64_t k0, const cu_f32_load *load, float *x_tile, float *w_tile)
{
    float eight[CU_EIGHT];
    pm_cu_x_decode(p, load->x, eight);
    pm_cu_f32_put(x_tile, eight);
    pm_cu_weight_decode(p, &load->w_row, k0 + pm_cu_f32_k(), &load->w, eight);
    pm_cu_f32_put(w_tile, eight);
}

/// Writes what there is of the tile.
PM_DEVICE void f32_finish(const cu_product *p, const cu_rows *rows, int64_t column0,
                          float sum[CU_F32_HIGH][CU_F32_WIDE])
{
    PM_UNROLL for (int32_t j = 0; j < CU_F32_WIDE; j++)
    {
        int64_t column = column0 + pm_thread() % CU_F32_X + j * CU_F32_X;
        if (column >= p->n)
            break;
        float bias = p->bias ? pm_cu_element(p->bias, p->bias_elem, rows->expert * p->n + column) : 0.0f;
        PM_UNROLL for (int32_t i = 0; i < CU_F32_HIGH; i++)
        {
            int64_t row = pm_thread() / CU_F32_X + i * CU_F32_Y;
            if (row < rows->count)
                pm_cu_store(p->y, p->y_elem, (rows->first + row) * p->n + column,
                            p->bias ? sum[i][j] + bias : sum[i][j]);
        }
    }
}

#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(CU_F32_THREADS, 4)
/* CU_F32_ROWS rows by CU_F32_COLUMNS columns. */
PM_GLOBAL void pm_cu_product_f32(CU_PRODUCT_PARAMETERS)
{
    PM_SHARED(float, x_tiles, 2 * CU_F32_SIDE);
    PM_SHARED(float, w_tiles, 2 * CU_F32_SIDE);
    CU_PRODUCT(p);
    int64_t columns = pm_cu_ceil_div(p.n, CU_F32_COLUMNS), column0 = pm_block() % columns * CU_F32_COLUMNS;
    cu_rows found = pm_cu_rows_of(&p, pm_block() / columns, CU_F32_ROWS);
    cu_f32_load load;
    float sum[CU_F32_HIGH][CU_F32_WIDE];
    if (found.count <= 0)
        return;
    /* a row that the tile has not: its last one again, whose products nobody stores; columns alike */
    load.x_row = found.first + pm_cu_min(pm_cu_f32_row(), found.count - 1);
    load.w_row = pm_cu_weight_row(&p, found.expert, pm_cu_min(column0 + pm_cu_f32_row(), p.n - 1));
    pm_cu_f32_clear(sum);
    f32_load(&p, 0, &load);
    f32_store(&p, 0, &load, x_tiles, w_tiles);
    pm_sync();
    for (int64_t k0 = 0, stage = 0; k0 < p.k; k0 += CU_F32_STEP, stage ^= 1) {
        int64_t next = k0 + CU_F32_STEP, there = (stage ^ 1) * CU_F32_SIDE;
        if (next < p.k)
            f32_load(&p, next, &load);
        pm_cu_f32_multiply(x_tiles + stage * CU_F32_SIDE, w_tiles + stage * CU_F32_SIDE, sum);
        if (next < p.k)
            f32_store(&p, next, &load, x_tiles + there, w_tiles + there);
        pm_sync();
    }
    f32_finish(&p, &found, column0, sum);
}
