/* Products with weights of few bits, for one kind of codes and one panel width; the counterpart of
 * gemm_template.h. Included once for each:
 *   PM_T(name)   the name of a function of this instance
 *   PM_T_PANEL   columns of a panel
 *   PM_T_BITS    2, 4 or 8
 *   PM_T_FLOATS  1: codes are floats, of 4 bits e2m1, of 8 e4m3
 * Defines PM_T(panel_rows) and PM_T(single_row).
 *
 * A weight is (code - zero) * scale, rounded as plain f32 arithmetic rounds it, whichever way it is
 * decoded: few rows decode words in registers and multiply at once; many decode a part of the panel into a
 * buffer, which all tiles of rows then read. So the chains are those of the f32 kernel on decoded weights.
 */
#include "codegen/kernels/gemm_tile.h"

#define PM_T_VECS (PM_T_PANEL / PM_VW)
/* As for f32: see gemm_template.h. */
#if PM_VW == 16
#define PM_T_ROWS (PM_T_VECS == 4 ? 6 : PM_T_VECS == 2 ? 8 : 12)
#define PM_T_DIRECT 4
#else
#define PM_T_ROWS (PM_T_VECS == 4 ? 3 : PM_T_VECS == 2 ? 6 : 12)
#define PM_T_DIRECT (PM_T_VECS == 4 ? 1 : 3)
#endif
#define PM_T_TILES (4096 / PM_T_PANEL / PM_T_ROWS)
/* k of a decoded part: 16 KiB. A whole number of words of any kind. */
#define PM_T_PART (4096 / PM_T_PANEL)
#define PM_T_WORD (32 / PM_T_BITS)

#ifndef PM_GEMM_LOWBIT_ONCE
#define PM_GEMM_LOWBIT_ONCE

/// What a product knows of its weights besides their kind: constants of the model.
typedef struct pm_codes {
    int64_t block; ///< codes that share a scale
    int64_t scale; ///< 0 f32, 1 f16, 2 bf16, 3 e8m0
    int64_t zero;  ///< 0 none, 1 i8, 2 f32
} pm_codes;

PM_INLINE int64_t pm_scale_size(const pm_codes *c)
{
    return c->scale == 0 ? 4 : c->scale == 3 ? 1 : 2;
}

PM_INLINE int64_t pm_zero_size(const pm_codes *c)
{
    return c->zero == 0 ? 0 : c->zero == 1 ? 1 : 4;
}

/// Bytes of a block of one panel.
PM_INLINE int64_t pm_block_size(const pm_codes *c, int64_t panel, int64_t bits)
{
    return panel * (pm_scale_size(c) + pm_zero_size(c) + c->block * bits / 8);
}

typedef _Float16 pm_vh __attribute__((vector_size(PM_VW * 2), aligned(2), may_alias));
typedef uint16_t pm_vs __attribute__((vector_size(PM_VW * 2), aligned(2), may_alias));
typedef uint8_t pm_vb __attribute__((vector_size(PM_VW), aligned(1), may_alias));
typedef int8_t pm_vc __attribute__((vector_size(PM_VW), aligned(1), may_alias));

/// Scales of the columns from `column` on of the block at `p`.
PM_INLINE pm_vf pm_scales_at(const uint8_t *p, const pm_codes *c, int64_t column)
{
    if (c->scale == 0)
        return pm_v_load((const float *)p + column);
    if (c->scale == 1)
        return __builtin_convertvector(*(const pm_vh *)(p + column * 2), pm_vf);
    if (c->scale == 2)
        return (pm_vf)(__builtin_convertvector(*(const pm_vs *)(p + column * 2), pm_vu) << 16);
    pm_vu e = __builtin_convertvector(*(const pm_vb *)(p + column), pm_vu);
    pm_vu odd = (pm_vu)(e == 0) | (pm_vu)(e == 255); // 2^-127, and NaN
    return (pm_vf)(e << 23 | (odd & 0x400000));
}

PM_INLINE pm_vf pm_zeros_at(const uint8_t *p, const pm_codes *c, int64_t column)
{
    if (c->zero == 1)
        return __builtin_convertvector(*(const pm_vc *)(p + column), pm_vf);
    return pm_v_load((const float *)p + column);
}

/// Element i mod PM_VW of a table, in each lane; the higher bits of i don't matter.
PM_INLINE pm_vf pm_v_look_up(pm_vf table, pm_vu i)
{
#if PM_VW == 16
    return (pm_vf)__builtin_ia32_permvarsf512((__attribute__((vector_size(64))) float)table,
                                              (__attribute__((vector_size(64))) int)i);
#else
    return (pm_vf)__builtin_ia32_permvarsf256((__attribute__((vector_size(32))) float)table,
                                              (__attribute__((vector_size(32))) int)i);
#endif
}

/// Code i of each word as a float of sign, 4 bits of exponent, 3 of fraction. Its bits move to where those of a float
/// are; below the smallest exponent 1.f * 2^-6 less 1 * 2^-6 is what 0.f means, without a subnormal on the way.
PM_INLINE pm_vf pm_decode_e4m3(pm_vu word, int i)
{
    pm_vu top = word << (24 - 8 * i), size = top >> 4 & 0x07f00000;
    pm_vu small = (pm_vu)((pm_vi)size < 0x00800000), nan = (pm_vu)(size == 0x07f00000);
    pm_vu bits = size + (120u << 23) + (small & 1u << 23);
    pm_vf value = (pm_vf)bits - (pm_vf)(small & 121u << 23);
    return (pm_vf)((pm_vu)value | (top & 0x80000000u) | (nan & 0x7fc00000u));
}

/// What code i of each word stands for, before zero and scale. Integers are in two's complement.
PM_INLINE pm_vf pm_decode(pm_vu word, int bits, int is_float, int i)
{
    if (is_float && bits == 8)
        return pm_decode_e4m3(word, i);
#if PM_VW == 16
    const pm_vf e2m1 = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const pm_vf four = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
    const pm_vf two = {0, 1, -2, -1, 0, 1, -2, -1, 0, 1, -2, -1, 0, 1, -2, -1};
    if (bits == 4)
        return pm_v_look_up(is_float ? e2m1 : four, word >> (4 * i));
#else
    const pm_vf e2m1 = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const pm_vf two = {0, 1, -2, -1, 0, 1, -2, -1};
    if (is_float)
        return (pm_vf)((pm_vu)pm_v_look_up(e2m1, word >> (4 * i)) |
                       (word << (28 - 4 * i) & 0x80000000u));
#endif
    if (bits == 2)
        return pm_v_look_up(two, word >> (2 * i));
    pm_vi code = (pm_vi)(word << (32 - bits - bits * i)) >> (32 - bits);
    return __builtin_convertvector(code, pm_vf);
}
#endif

/// Code i of each of the panel's words, times one column of `a`.
PM_INLINE void PM_T(step)(int rows, const float *a, int64_t a_row, const uint8_t *words, int i,
                          bool has_zero, const pm_vf *scale, const pm_vf *zero, pm_vf *acc)
{
    PM_UNROLL for (int j = 0; j < PM_T_VECS; j++)
    {
        pm_vu word = *(const pm_vu *)(words + j * PM_VW * 4);
        pm_vf value = pm_decode(word, PM_T_BITS, PM_T_FLOATS, i);
        if (has_zero)
            value = value - zero[j];
        value = value * scale[j];
        PM_UNROLL for (int r = 0; r < rows; r++)
            acc[r * PM_T_VECS + j] =
                pm_v_fma(pm_v_splat(a[r * a_row]), value, acc[r * PM_T_VECS + j]);
    }
}

/// One tile of up to PM_T_DIRECT rows: decodes in registers.
PM_INLINE void PM_T(direct)(int rows, const float *a, int64_t a_row, const uint8_t *w,
                            const pm_codes *c, int64_t k, float *tile)
{
    pm_vf acc[16];
    int64_t header = PM_T_PANEL * (pm_scale_size(c) + pm_zero_size(c));
    int64_t size = pm_block_size(c, PM_T_PANEL, PM_T_BITS);
    PM_UNROLL for (int i = 0; i < rows * PM_T_VECS; i++)
        acc[i] = (pm_vf){0};
    PM_NO_UNROLL for (int64_t k0 = 0; k0 < k; k0 += c->block, w += size)
    {
        pm_vf scale[PM_T_VECS], zero[PM_T_VECS];
        PM_UNROLL for (int j = 0; j < PM_T_VECS; j++) {
            scale[j] = pm_scales_at(w, c, j * PM_VW);
            zero[j] = (pm_vf){0};
            if (c->zero)
                zero[j] = pm_zeros_at(w + PM_T_PANEL * pm_scale_size(c), c, j * PM_VW);
        }
        int64_t end = pm_min_i64(k0 + c->block, k), at = k0;
        const uint8_t *words = w + header;
        PM_NO_UNROLL for (; at + PM_T_WORD <= end; at += PM_T_WORD, words += PM_T_PANEL * 4)
        {
            PM_UNROLL for (int line = 0; line < (PM_T_PANEL * 4 + 63) / 64; line++)
                __builtin_prefetch(words + PM_AHEAD / 2 + line * 64, 0, 3);
            PM_UNROLL for (int i = 0; i < PM_T_WORD; i++)
                PM_T(step)(rows, a + at + i, a_row, words, i, c->zero != 0, scale, zero, acc);
        }
        PM_NO_UNROLL for (int i = 0; i < (int)(end - at); i++)
            PM_T(step)(rows, a + at + i, a_row, words, i, c->zero != 0, scale, zero, acc);
    }
    PM_UNROLL for (int r = 0; r < rows; r++) PM_UNROLL for (int j = 0; j < PM_T_VECS; j++)
        pm_v_store(tile + r * PM_T_PANEL + j * PM_VW, acc[r * PM_T_VECS + j]);
}

/// Decodes k0 .. k0 + part of a panel to [part][panel]; k0 is a multiple of PM_T_PART.
PM_INLINE void PM_T(decode_part)(const uint8_t *panel, const pm_codes *c, int64_t k0, int64_t part,
                                 float *out)
{
    int64_t header = PM_T_PANEL * (pm_scale_size(c) + pm_zero_size(c));
    int64_t size = pm_block_size(c, PM_T_PANEL, PM_T_BITS);
    PM_NO_UNROLL for (int64_t at = k0; at < k0 + part; at += PM_T_WORD)
    {
        const uint8_t *w = panel + at / c->block * size;
        const uint8_t *words = w + header + at % c->block / PM_T_WORD * (PM_T_PANEL * 4);
        int64_t have = pm_min_i64(PM_T_WORD, k0 + part - at);
        PM_UNROLL for (int j = 0; j < PM_T_VECS; j++)
        {
            pm_vf scale = pm_scales_at(w, c, j * PM_VW), zero = {0};
            if (c->zero)
                zero = pm_zeros_at(w + PM_T_PANEL * pm_scale_size(c), c, j * PM_VW);
            pm_vu word = *(const pm_vu *)(words + j * PM_VW * 4);
            PM_UNROLL for (int i = 0; i < PM_T_WORD; i++)
            {
                pm_vf value = pm_decode(word, PM_T_BITS, PM_T_FLOATS, i);
                if (c->zero)
                    value = value - zero;
                if (i < have)
                    pm_v_store(out + (at - k0 + i) * PM_T_PANEL + j * PM_VW, value * scale);
            }
        }
    }
}

PM_INLINE void PM_T(few_rows)(const float *a, const uint8_t *w, const pm_codes *c, int64_t row0,
                              int64_t rows, int64_t k, int64_t panel, const pm_tile_out *out)
{
    float tile[PM_T_DIRECT * PM_T_PANEL] __attribute__((aligned(64)));
#define PM_T_CASE(n)                                                                               \
    case n:                                                                                        \
        if (n <= PM_T_DIRECT)                                                                      \
            PM_T(direct)(n, a + row0 * k, k, w, c, k, tile);                                       \
        break;
    switch (rows) {
        PM_T_CASE(1)
        PM_T_CASE(2)
        PM_T_CASE(3)
        PM_T_CASE(4)
    default: __builtin_unreachable();
    }
#undef PM_T_CASE
    pm_tile_finish(out, tile, PM_T_PANEL, row0, rows, panel);
}

/// One tile of f32; `rows` is one of those that pm_tile_rows gives.
PM_INLINE void PM_T(tile)(int64_t rows, const pm_tile_in *in, float *tile, bool more)
{
#define PM_T_CASE(n)                                                                               \
    case n:                                                                                        \
        if (n <= PM_T_ROWS)                                                                        \
            pm_tile(PM_KIND_F32, n, 1, PM_T_VECS, 0, in, tile, PM_T_PANEL, 0, more);               \
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
PM_INLINE void PM_T(panel_rows)(const float *a, const uint8_t *w, const pm_codes *c, int64_t row0,
                                int64_t row1, int64_t k, int64_t panel, const pm_tile_out *out)
{
    float tiles[PM_T_TILES * PM_T_ROWS * PM_T_PANEL] __attribute__((aligned(64)));
    float part[PM_T_PART * PM_T_PANEL] __attribute__((aligned(64)));
    if (row1 - row0 <= PM_T_DIRECT) {
        PM_T(few_rows)(a, w, c, row0, row1 - row0, k, panel, out);
        return;
    }
    PM_NO_UNROLL for (int64_t first = row0; first < row1; first += PM_T_TILES * PM_T_ROWS)
    {
        int64_t end = pm_min_i64(first + PM_T_TILES * PM_T_ROWS, row1);
        int64_t k0 = 0;
        PM_NO_UNROLL do
        {
            int64_t now = pm_min_i64(PM_T_PART, k - k0);
            PM_T(decode_part)(w, c, k0, now, part);
            float *tile = tiles;
            PM_NO_UNROLL for (int64_t row = first; row < end; tile += PM_T_ROWS * PM_T_PANEL)
            {
                int64_t rows = pm_tile_rows(PM_T_ROWS, end - row, row);
                int64_t again = pm_max_i64(rows - (end - row), 0);
                pm_tile_in in = {a + (row - again) * k + k0, k, 1, part, 0, PM_T_PANEL, now,
                                 (const char *)part, 0, false};
                PM_T(tile)(rows, &in, tile, k0 > 0);
                if (k0 + now == k)
                    pm_tile_finish(out, tile + again * PM_T_PANEL, PM_T_PANEL, row, rows - again,
                                   panel);
                row += rows - again;
            }
            k0 += now;
        }
        while (k0 < k);
    }
}

/// One row of `a` times `panels` panels from `w` on.
PM_INLINE void PM_T(single_row)(const float *a, const uint8_t *w, const pm_codes *c, int64_t row,
                                int64_t k, int64_t panel, int64_t panels, const pm_tile_out *out)
{
    int64_t size = (k + c->block - 1) / c->block * pm_block_size(c, PM_T_PANEL, PM_T_BITS);
    PM_NO_UNROLL for (int64_t p = 0; p < panels; p++)
        PM_T(few_rows)(a, w + p * size, c, row, 1, k, panel + p, out);
}
