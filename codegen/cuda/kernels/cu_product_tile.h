/// What the tiles of products on tensor cores share: the order of blocks, and results on their way out.
#ifndef PM_CU_PRODUCT_TILE_H
#define PM_CU_PRODUCT_TILE_H

#include "codegen/cuda/kernels/cu_weight.h"

enum {
    CU_TILE_TALL = 8, /* tiles of rows that go through the columns together */
    CU_TILE_PAD = 8   /* so that eight rows of staged results lie in different banks */
};

/// Which tile is this block's. Blocks that run at once share rows of x and of w in the L2: they are CU_TILE_TALL tiles
/// high, and as wide as it takes.
PM_DEVICE void pm_cu_tile_of_block(int64_t columns, int64_t *row_tile, int64_t *column_tile)
{
    int64_t group = CU_TILE_TALL * columns, first = pm_block() / group * CU_TILE_TALL, in_group = pm_block() % group;
    int64_t tall = pm_cu_min(CU_TILE_TALL, pm_blocks() / columns - first);
    *row_tile = first + in_group % tall;
    *column_tile = in_group / tall;
}

/// Whether both factors are multiplied as f16: else as bf16, rounded where they are not.
PM_DEVICE int32_t pm_cu_is_of_f16(const cu_product *p)
{
    return p->x_elem == CU_F16 && p->w_elem == CU_F16 && p->bits == 0 && !p->rounds;
}

typedef struct PM_ALIGN(8) cu_pair {
    float at[2];
} cu_pair;

typedef struct PM_ALIGN(16) cu_words {
    uint32_t at[4];
} cu_words;

/// Results on their way out: those of 16 bits meet in shared memory, [row][wide + CU_TILE_PAD], so that a row's go out
/// together; f32 goes straight, 32 bytes of a row at a time.
typedef struct cu_tile_out {
    int64_t first_row, count, column0, columns, bias_at;
    int32_t is_even; ///< rows begin at multiples of 16 bytes
    int32_t wide;    ///< columns of a tile
    uint32_t *staged;
} cu_tile_out;

PM_DEVICE cu_tile_out pm_cu_tile_out(const cu_product *p, const cu_rows *rows, int64_t column0, int32_t wide,
                                     void *staged)
{
    cu_tile_out o;
    int64_t each = p->y_elem == CU_F32 ? 4 : 8;
    o.first_row = rows->first;
    o.count = rows->count;
    o.column0 = column0;
    o.columns = pm_cu_min(wide, p->n - column0);
    o.bias_at = rows->expert * p->n + column0;
    o.is_even = p->n % each == 0 && ((uint64_t)p->y & 15u) == 0u;
    o.wide = wide;
    o.staged = (uint32_t *)staged;
    return o;
}

/// What the bias adds to a pair of columns.
PM_DEVICE void pm_cu_tile_bias(const cu_product *p, const cu_tile_out *o, int32_t column, float *bias)
{
    PM_UNROLL for (int32_t i = 0; i < 2; i++)
        bias[i] = p->bias && column + i < o->columns
                      ? pm_cu_element(p->bias, p->bias_elem, o->bias_at + column + i)
                      : 0.0f;
}

/// Two columns of a row: `column` is even.
PM_DEVICE void pm_cu_tile_put(const cu_product *p, const cu_tile_out *o, int32_t row, int32_t column, float low,
                              float high)
{
    if (p->y_elem != CU_F32) {
        o->staged[(row * (o->wide + CU_TILE_PAD) + column) / 2] =
            p->y_elem == CU_BF16 ? pm_bf16x2_of_f32(low, high) : pm_f16x2_of_f32(low, high);
        return;
    }
    if (row >= o->count || column >= o->columns)
        return;
    float *to = (float *)p->y + (o->first_row + row) * p->n + o->column0 + column;
    if (o->is_even) {
        cu_pair pair;
        pair.at[0] = low;
        pair.at[1] = high;
        *(cu_pair *)to = pair;
        return;
    }
    to[0] = low;
    if (column + 1 < o->columns)
        to[1] = high;
}

/// Rows first_row and on of the tile that threads `thread` of `threads` have staged: nothing where y is f32.
PM_DEVICE void pm_cu_tile_flush(const cu_product *p, const cu_tile_out *o, int32_t first_row, int32_t n_rows,
                                int32_t thread, int32_t threads)
{
    int32_t eights = o->wide / CU_EIGHT, pitch = o->wide + CU_TILE_PAD;
    if (p->y_elem == CU_F32)
        return;
    for (int32_t i = thread; i < n_rows * eights; i += threads) {
        int32_t row = first_row + i / eights, column = i % eights * CU_EIGHT;
        if (row >= o->count || column >= o->columns)
            continue;
        const uint32_t *from = o->staged + (row * pitch + column) / 2;
        uint16_t *to = (uint16_t *)p->y + (o->first_row + row) * p->n + o->column0 + column;
        if (o->is_even) {
            *(cu_words *)to = *(const cu_words *)from;
            continue;
        }
        PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
            if (column + j < o->columns)
                to[j] = (uint16_t)(from[j / 2] >> j % 2 * 16);
    }
}

#endif
