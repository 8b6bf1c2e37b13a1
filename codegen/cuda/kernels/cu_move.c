/// Templates that move elements of any kind: copies with strides (slice, split, concat, last_rows), and gather.
#include "codegen/cuda/kernels/cu_common.h"

/// Sixteen bytes: what a thread moves at most.
typedef struct PM_ALIGN(16) cu_sixteen {
    uint64_t low, high;
} cu_sixteen;

/// One piece of `bytes` bytes (1, 2, 4, 8 or 16), number `from` of x, to number `to` of y.
PM_DEVICE void move_piece(void *y, int64_t to, const void *x, int64_t from, int64_t bytes)
{
    switch (bytes) {
    case 1: ((uint8_t *)y)[to] = ((const uint8_t *)x)[from]; break;
    case 2: ((uint16_t *)y)[to] = ((const uint16_t *)x)[from]; break;
    case 4: ((uint32_t *)y)[to] = ((const uint32_t *)x)[from]; break;
    case 8: ((uint64_t *)y)[to] = ((const uint64_t *)x)[from]; break;
    default: ((cu_sixteen *)y)[to] = ((const cu_sixteen *)x)[from]; break;
    }
}

PM_DEVICE void clear_piece(void *y, int64_t to, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++)
        ((uint8_t *)y)[to * bytes + i] = 0;
}

/* A tensor of extents n0 … n4, read with strides x0 … x4 from piece x_first on, written with strides y0 … y4 from
 * y_first on; all in pieces of `bytes` bytes. A thread for each piece. */
PM_GLOBAL void pm_cu_copy(const void *x, void *y, int64_t bytes, int64_t x_first, int64_t y_first, int64_t n0, int64_t n1,
                          int64_t n2, int64_t n3, int64_t n4, int64_t x0, int64_t x1, int64_t x2, int64_t x3, int64_t x4,
                          int64_t y0, int64_t y1, int64_t y2, int64_t y3, int64_t y4)
{
    int64_t at = pm_block() * pm_threads() + pm_thread();
    const int64_t extents[5] = {n0, n1, n2, n3, n4}, x_strides[5] = {x0, x1, x2, x3, x4}, y_strides[5] = {y0, y1, y2, y3, y4};
    int64_t from = x_first, to = y_first;
    if (at >= n0 * n1 * n2 * n3 * n4)
        return;
    PM_UNROLL for (int32_t i = 4; i > 0; i--) {
        if (extents[i] > 1) { /* the same for all: most tensors have fewer axes, and dividing takes long */
            int64_t index = at % extents[i];
            from += index * x_strides[i];
            to += index * y_strides[i];
            at /= extents[i];
        }
    }
    move_piece(y, to + at * y0, x, from + at * x0, PM_FIXED(BYTES, bytes));
}

/* See gather in ir/ops.def: x is [outer, extent, inner], y [outer, n, inner], in pieces of `bytes` bytes; indices are
 * int64 or int32. A thread for each piece. An index that isn't one is the data's fault, and its row becomes zeros. */
PM_GLOBAL void pm_cu_gather(const void *x, const void *indices, void *y, int64_t bytes, int64_t outer, int64_t extent,
                            int64_t inner, int64_t n, int64_t is_long, int32_t *status, int64_t mark)
{
    int64_t at = pm_block() * pm_threads() + pm_thread(), width = PM_FIXED(INNER, inner), piece = PM_FIXED(BYTES, bytes);
    if (at >= outer * n * width)
        return;
    int64_t column = at % width, i = at / width % n, before = at / width / n;
    int64_t index = PM_FIXED(LONG, is_long) ? ((const int64_t *)indices)[i] : ((const int32_t *)indices)[i];
    index += index < 0 ? extent : 0;
    if (index >= 0 && index < extent) {
        move_piece(y, at, x, (before * extent + index) * width + column, piece);
    } else {
        pm_fail(status, mark);
        clear_piece(y, at, piece);
    }
}
