/// What the tiles of products on tensor cores share: the order of blocks, and results on their way out.
#ifndef PM_CU_PRODUCT_TILE_H
#define PM_CU_PRODUCT_TILE_H

#include "codegen/cuda/kernels/cu_weight.h"

enum {
    CU_TILE_TALL = 16,    /* tiles of rows that go through the columns together */
    CU_PATCH_ROWS = 16,   /* results that a warp hands out together */
    CU_PATCH_PAD = 8      /* so that eight rows of them lie in different banks */
};

/// Tiles of rows that there can be, whatever the offsets.
PM_DEVICE int64_t pm_cu_row_tiles(const cu_product *p, int64_t height)
{
    return pm_cu_min(p->rows, pm_cu_ceil_div(p->rows + p->experts * (height - 1), height));
}

/// Where tile number `tile` is. Those that run at once share rows of x and of w in the L2: they are CU_TILE_TALL tiles
/// high, and as wide as it takes.
PM_DEVICE void pm_cu_tile_at(int64_t tile, int64_t row_tiles, int64_t columns, int64_t *row_tile, int64_t *column_tile)
{
    int64_t group = CU_TILE_TALL * columns, first = tile / group * CU_TILE_TALL, in_group = tile % group;
    int64_t tall = pm_cu_min(CU_TILE_TALL, row_tiles - first);
    *row_tile = first + in_group % tall;
    *column_tile = in_group / tall;
}

/// Whether both factors are multiplied as f16: else as bf16, rounded where they are not.
PM_DEVICE int32_t pm_cu_is_of_f16(const cu_product *p)
{
    return p->x_elem == CU_F16 && p->w_elem == CU_F16 && p->bits == 0 && !p->rounds;
}

typedef struct PM_ALIGN(16) cu_words {
    uint32_t at[4];
} cu_words;

/// Where a tile's results go.
typedef struct cu_tile_out {
    int64_t first_row, count, column0, columns, bias_at;
    int32_t is_even; ///< rows begin at multiples of 16 bytes
} cu_tile_out;

PM_DEVICE cu_tile_out pm_cu_tile_out(const cu_product *p, const cu_rows *rows, int64_t column0, int64_t wide)
{
    cu_tile_out o;
    o.first_row = rows->first;
    o.count = rows->count;
    o.column0 = column0;
    o.columns = pm_cu_min(wide, p->n - column0);
    o.bias_at = rows->expert * p->n + column0;
    o.is_even = p->n % (p->y_elem == CU_F32 ? 4 : 8) == 0 && ((uint64_t)p->y & 15u) == 0u;
    return o;
}

/// Two columns of a row as f32, 8 bytes where they are even.
PM_DEVICE void pm_cu_pair_out(const cu_product *p, const cu_tile_out *o, int32_t row, int32_t column, const float *pair)
{
    if (row >= o->count || column >= o->columns)
        return;
    float *to = (float *)p->y + (o->first_row + row) * p->n + o->column0 + column;
    if (o->is_even) {
        cu_pair both;
        both.at[0] = pair[0];
        both.at[1] = pair[1];
        *(cu_pair *)to = both;
        return;
    }
    to[0] = pair[0];
    if (column + 1 < o->columns)
        to[1] = pair[1];
}

/// Eight columns of a row, of 16 bits each, two in a word.
PM_DEVICE void pm_cu_eight_out(const cu_product *p, const cu_tile_out *o, int32_t row, int32_t column,
                               const uint32_t *words)
{
    if (row >= o->count || column >= o->columns)
        return;
    uint16_t *to = (uint16_t *)p->y + (o->first_row + row) * p->n + o->column0 + column;
    if (o->is_even) {
        *(cu_words *)to = *(const cu_words *)words;
        return;
    }
    PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
        if (column + j < o->columns)
            to[j] = (uint16_t)(words[j / 2] >> j % 2 * 16);
}

/// A warp hands out CU_PATCH_ROWS rows of `wide` columns that it has as fragments (mma.sync's, wgmma's), 4 floats for
/// eight columns: f32 straight, 32 bytes of a row together; 16 bits by way of `staged`, shared memory of the warp alone,
/// [CU_PATCH_ROWS][wide + CU_PATCH_PAD], so that a row's go out together.
PM_DEVICE void pm_cu_patch_out(const cu_product *p, const cu_tile_out *o, int32_t row0, int32_t column0, int32_t wide,
                               const float *sum, uint32_t *staged)
{
    int32_t pitch = wide + CU_PATCH_PAD, eights = wide / CU_EIGHT;
    PM_UNROLL for (int32_t j = 0; j < eights; j++)
    {
        int32_t column = j * CU_EIGHT + pm_lane() % 4 * 2;
        float bias[2], pair[2];
        PM_UNROLL for (int32_t i = 0; i < 2; i++)
            bias[i] = p->bias && column0 + column + i < o->columns
                          ? pm_cu_element(p->bias, p->bias_elem, o->bias_at + column0 + column + i)
                          : 0.0f;
        PM_UNROLL for (int32_t half = 0; half < 2; half++)
        {
            int32_t row = half * 8 + pm_lane() / 4;
            pair[0] = sum[4 * j + 2 * half] + bias[0];
            pair[1] = sum[4 * j + 2 * half + 1] + bias[1];
            if (p->y_elem == CU_F32)
                pm_cu_pair_out(p, o, row0 + row, column0 + column, pair);
            else
                staged[(row * pitch + column) / 2] = p->y_elem == CU_BF16 ? pm_bf16x2_of_f32(pair[0], pair[1])
                                                                          : pm_f16x2_of_f32(pair[0], pair[1]);
        }
    }
    if (p->y_elem == CU_F32)
        return;
    pm_sync_warp();
    PM_UNROLL_BY(2) for (int32_t i = pm_lane(); i < CU_PATCH_ROWS * eights; i += CU_WARP)
        pm_cu_eight_out(p, o, row0 + i / eights, column0 + i % eights * CU_EIGHT,
                        staged + (i / eights * pitch + i % eights * CU_EIGHT) / 2);
    pm_sync_warp();
}

#endif
