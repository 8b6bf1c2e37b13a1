/// Factors of products: eight consecutive ones of a row of x or of a weight, whatever they are stored as.
///
/// Loading and decoding are apart, so that many loads can be under way. What is behind k counts as zero and is not
/// read. Where rows begin at multiples of 16 bytes, or of eight codes, eight factors are one load (f32: two); else one
/// for each element or byte.
#ifndef PM_CU_WEIGHT_H
#define PM_CU_WEIGHT_H

#include "codegen/cuda/kernels/cu_product.h"

enum { CU_EIGHT = 8 };

/// ---- elements ---------------------------------------------------------------------------------------------

PM_DEVICE int64_t pm_cu_elem_bits(int64_t elem)
{
    return elem == CU_F32 ? 32 : elem == CU_U8 ? 8 : 16;
}

/// A float from the bits of an element.
PM_DEVICE float pm_cu_as_float(uint32_t bits, int64_t elem)
{
    return elem == CU_F32    ? pm_f32_of_bits(bits)
           : elem == CU_BF16 ? pm_f32_of_bits(bits << 16)
                             : pm_f32_of_f16((uint16_t)bits);
}

/// The bits of element i.
PM_DEVICE uint32_t pm_cu_bits_at(const void *from, int64_t elem, int64_t i)
{
    return elem == CU_F32  ? ((const uint32_t *)from)[i]
           : elem == CU_U8 ? ((const uint8_t *)from)[i]
                           : ((const uint16_t *)from)[i];
}

PM_DEVICE float pm_cu_element(const void *from, int64_t elem, int64_t i)
{
    return pm_cu_as_float(pm_cu_bits_at(from, elem, i), elem);
}

PM_DEVICE void pm_cu_store(void *to, int64_t elem, int64_t i, float x)
{
    if (elem == CU_F32)
        ((float *)to)[i] = x;
    else
        ((uint16_t *)to)[i] = elem == CU_BF16 ? pm_bf16_of_f32(x) : pm_f16_of_f32(x);
}

PM_DEVICE float pm_cu_rounded(float x)
{
    return pm_f32_of_bf16(pm_bf16_of_f32(x));
}

/// Eight elements as they are stored: 8 words, or 4 with two elements each (the first one below).
PM_DEVICE void pm_cu_eight_as_floats(const uint32_t *words, int64_t elem, float *out)
{
    PM_UNROLL for (int32_t i = 0; i < CU_EIGHT; i++)
    {
        if (elem == CU_F32)
            out[i] = pm_f32_of_bits(words[i]);
        else if (elem == CU_BF16)
            out[i] = pm_f32_of_bits(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
        else
            out[i] = pm_f32_of_f16((uint16_t)(i % 2 ? words[i / 2] >> 16 : words[i / 2]));
    }
}

/// The words of the first `count` of eight elements or codes of `bits` bits; zeros behind them.
PM_DEVICE void pm_cu_load_some(uint32_t *words, const void *from, int64_t bits, int64_t count)
{
    int32_t per_word = bits == 32 ? 1 : bits == 16 ? 2 : 4; /* elements or bytes */
    int64_t n = bits < 8 ? (count * bits + 7) / 8 : count;
    PM_UNROLL for (int32_t i = 0; i < CU_EIGHT; i++)
        words[i] = 0u;
    PM_UNROLL for (int32_t i = 0; i < CU_EIGHT; i++)
        if (i < n)
            words[i / per_word] |= (bits == 32   ? ((const uint32_t *)from)[i]
                                    : bits == 16 ? (uint32_t)((const uint16_t *)from)[i]
                                                 : (uint32_t)((const uint8_t *)from)[i])
                                   << (bits == 32 ? 0 : i % per_word * (32 / per_word));
}

/// Elements i to i + 7, of which the first `count` are there (also more, or fewer than none). is_even: all eight or none
/// are, at an address that is a multiple of 16.
PM_DEVICE void pm_cu_load_eight(uint32_t *words, const void *base, int64_t elem, int64_t i, int64_t count,
                                int32_t is_even)
{
    int64_t bytes = elem == CU_F32 ? 4 : 2;
    const uint8_t *from = (const uint8_t *)base + i * bytes;
    if (!is_even || count <= 0) {
        pm_cu_load_some(words, from, 8 * bytes, pm_cu_max(0, pm_cu_min(CU_EIGHT, count)));
        return;
    }
    pm_load16(words, from);
    if (bytes == 4)
        pm_load16(words + 4, from + 16);
}

/// ---- x ----------------------------------------------------------------------------------------------------

/// Whether eight factors from a multiple of eight on are one load: in x, and in w.
PM_DEVICE int32_t pm_cu_x_is_even(const cu_product *p)
{
    return p->k % CU_EIGHT == 0;
}

PM_DEVICE int32_t pm_cu_w_is_even(const cu_product *p)
{
    return p->k % CU_EIGHT == 0 && (p->experts == 0 || p->expert_bytes % 16 == 0);
}

/// Factors i to i + 7 of row `row` as they are stored; i: a multiple of 8, also behind k.
PM_DEVICE void pm_cu_x_load(const cu_product *p, int32_t is_even, int64_t row, int64_t i, uint32_t *words)
{
    pm_cu_load_eight(words, p->x, p->x_elem, row * p->k + i, p->k - i, is_even);
}

/// As products take them.
PM_DEVICE void pm_cu_x_decode(const cu_product *p, const uint32_t *words, float *out)
{
    pm_cu_eight_as_floats(words, p->x_elem, out);
    PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
        out[j] = p->rounds && p->x_elem != CU_BF16 ? pm_cu_rounded(out[j]) : out[j];
}

/// ---- w ----------------------------------------------------------------------------------------------------

/// A row of a weight.
typedef struct cu_weight {
    const uint8_t *codes; ///< or elements
    const uint8_t *zeros; ///< packed ones
    int64_t block;        ///< number of its first block among all rows'
} cu_weight;

/// Eight factors as they are stored, and what their block shares.
typedef struct cu_raw {
    uint32_t words[CU_EIGHT]; ///< f32: 8; 16 bits: 4; codes of 8, 4, 2 bits: 2, 1, the lower half of 1
    uint32_t scale, zero;     ///< the bits
} cu_raw;

PM_DEVICE int64_t pm_cu_weight_bits(const cu_product *p)
{
    return p->bits ? p->bits : pm_cu_elem_bits(p->w_elem);
}

/// Codes that share a scale, and how many such blocks a row has.
PM_DEVICE int64_t pm_cu_block(const cu_product *p)
{
    return p->block ? p->block : p->k;
}

PM_DEVICE int64_t pm_cu_blocks(const cu_product *p)
{
    return p->block ? (p->k + p->block - 1) / p->block : 1;
}

PM_DEVICE cu_weight pm_cu_weight_row(const cu_product *p, int64_t expert, int64_t column)
{
    cu_weight w;
    int64_t row = expert * p->n + column, blocks = pm_cu_blocks(p);
    w.codes = (const uint8_t *)p->w + expert * p->expert_bytes + column * ((p->k * pm_cu_weight_bits(p) + 7) / 8);
    w.zeros = p->zeros && p->zero_elem == CU_U8 ? (const uint8_t *)p->zeros + row * ((blocks * p->bits + 7) / 8)
                                               : (const uint8_t *)0;
    w.block = row * blocks;
    return w;
}

/// Whether blocks don't end within eight factors: then `cu_raw` holds their scale and zero.
PM_DEVICE int32_t pm_cu_blocks_are_even(const cu_product *p)
{
    return p->block % CU_EIGHT == 0;
}

/// The bits of the scale and of the zero of block `block` of a row.
PM_DEVICE void pm_cu_weight_block(const cu_product *p, const cu_weight *w, int64_t block, uint32_t *scale,
                                  uint32_t *zero)
{
    *scale = pm_cu_bits_at(p->scales, p->scale_elem, w->block + block);
    *zero = 0u;
    if (p->format != CU_INT || !p->zeros)
        return;
    if (p->zero_elem == CU_U8) {
        int64_t each = 8 / p->bits;
        *zero = (uint32_t)w->zeros[block / each] >> block % each * p->bits & ((1u << p->bits) - 1u);
    } else {
        *zero = pm_cu_bits_at(p->zeros, p->zero_elem, w->block + block);
    }
}

/// Factors i to i + 7 of a row; i: a multiple of 8, also behind k. is_even: pm_cu_w_is_even.
PM_DEVICE void pm_cu_weight_load(const cu_product *p, int32_t is_even, const cu_weight *w, int64_t i, cu_raw *out)
{
    int64_t bits = pm_cu_weight_bits(p);
    const uint8_t *from = w->codes + (uint64_t)i * (uint64_t)bits / 8;
    int32_t is_inside = i < p->k;
    out->scale = out->zero = 0u;
    if (p->bits && is_inside && pm_cu_blocks_are_even(p))
        pm_cu_weight_block(p, w, (uint32_t)i / (uint32_t)pm_cu_block(p), &out->scale, &out->zero);
    if (!is_even || !is_inside) {
        pm_cu_load_some(out->words, from, bits, pm_cu_max(0, pm_cu_min(CU_EIGHT, p->k - i)));
        return;
    }
    if (bits >= 16)
        pm_stream16(out->words, from);
    if (bits == 32)
        pm_stream16(out->words + 4, from + 16);
    if (bits == 8)
        pm_stream8(out->words, from);
    if (bits == 4)
        out->words[0] = pm_stream4(from);
    if (bits == 2)
        out->words[0] = pm_stream2(from);
}

/// Scales of CU_U8: 2^(s - 127); 255 is no number.
PM_DEVICE float pm_cu_scale(const cu_product *p, uint32_t bits)
{
    if (p->scale_elem != CU_U8)
        return pm_cu_as_float(bits, p->scale_elem);
    return bits == 0u ? pm_f32_of_bits(0x00400000u) : bits == 255u ? PM_NAN : pm_f32_of_bits(bits << 23);
}

PM_DEVICE float pm_cu_zero(const cu_product *p, uint32_t bits)
{
    return !p->zeros               ? (float)(1 << (p->bits - 1))
           : p->zero_elem == CU_U8 ? (float)bits
                                   : pm_cu_as_float(bits, p->zero_elem);
}

/// Eight codes of format CU_INT minus their zero. A byte below the bits of 2^23 is a float that is 2^23 more.
PM_DEVICE void pm_cu_decode_ints(const cu_product *p, const uint32_t *words, float zero, float *out)
{
    const float magic = 8388608.0f;
    int32_t is_whole = !p->zeros || p->zero_elem == CU_U8; /* then magic + zero is exact */
    float less = is_whole ? magic + zero : magic;
    PM_UNROLL for (int32_t i = 0; i < CU_EIGHT; i++)
    {
        uint32_t bits;
        if (p->bits == 8) {
            bits = pm_bytes(words[i / 4], 0x4b000000u, 0x7440u + (uint32_t)(i % 4));
        } else if (p->bits == 4) {
            uint32_t nibbles = (i % 2 ? words[0] >> 4 : words[0]) & 0x0f0f0f0fu;
            bits = pm_bytes(nibbles, 0x4b000000u, 0x7440u + (uint32_t)(i / 2));
        } else {
            bits = (words[0] >> 2 * i & 3u) | 0x4b000000u;
        }
        out[i] = pm_f32_of_bits(bits) - less;
        if (!is_whole)
            out[i] -= zero;
    }
}

/// Eight floats of 4 or 8 bits: sign, exponent and mantissa at their places in an f32 of too small an exponent.
PM_DEVICE void pm_cu_decode_floats(const cu_product *p, const uint32_t *words, float *out)
{
    PM_UNROLL for (int32_t i = 0; i < CU_EIGHT; i++)
    {
        if (p->format == CU_E2M1) {
            int32_t top = (int32_t)(words[0] << (28 - 4 * i)); /* the sign on top */
            out[i] = pm_f32_of_bits((uint32_t)(top >> 6) & 0x81c00000u) * pm_f32_of_bits(253u << 23); /* 2^126 */
        } else {
            uint32_t code = words[i / 4] >> i % 4 * 8 & 255u;
            float x = pm_f32_of_bits((code & 0x80u) << 24 | (code & 0x7fu) << 20);
            out[i] = (code & 0x7fu) == 0x7fu ? PM_NAN : x * pm_f32_of_bits(247u << 23); /* 2^120 */
        }
    }
}

/// Eight factors but for the scale that is returned (elements: 1): where pm_cu_blocks_are_even, or there are elements.
PM_DEVICE float pm_cu_weight_decode_unscaled(const cu_product *p, const cu_raw *raw, float *out)
{
    if (p->bits == 0) {
        pm_cu_eight_as_floats(raw->words, p->w_elem, out);
        return 1.0f;
    }
    if (p->format == CU_INT)
        pm_cu_decode_ints(p, raw->words, pm_cu_zero(p, raw->zero), out);
    else
        pm_cu_decode_floats(p, raw->words, out);
    return pm_cu_scale(p, raw->scale);
}

/// Factors i to i + 7 of a row as products take them: zeros from k on.
PM_DEVICE void pm_cu_weight_decode(const cu_product *p, const cu_weight *w, int64_t i, const cu_raw *raw, float *out)
{
    if (p->bits == 0 || pm_cu_blocks_are_even(p)) {
        float scale = pm_cu_weight_decode_unscaled(p, raw, out);
        PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
            out[j] = p->bits ? out[j] * scale : out[j];
    } else {
        float scale = 0.0f, codes[CU_EIGHT];
        int64_t block = -1;
        cu_raw at = *raw;
        PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
        {
            out[j] = 0.0f;
            if (i + j >= p->k)
                continue;
            if (block != (i + j) / pm_cu_block(p)) {
                block = (i + j) / pm_cu_block(p);
                pm_cu_weight_block(p, w, block, &at.scale, &at.zero);
                scale = pm_cu_weight_decode_unscaled(p, &at, codes);
            }
            out[j] = codes[j] * scale;
        }
    }
    PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
    {
        if (p->k % CU_EIGHT != 0 && i + j >= p->k)
            out[j] = 0.0f;
        if (p->rounds && !(p->bits == 0 && p->w_elem == CU_BF16))
            out[j] = pm_cu_rounded(out[j]);
    }
}

#endif
