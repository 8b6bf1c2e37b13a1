/// Codes of a few bits, and what they stand for.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_dequantize;

/// Code i of a row that begins at byte `at`: the first one is in the lowest bits.
PM_INLINE int32_t code_at(const pm_tensor *codes, int64_t at, int64_t i, int64_t bits)
{
    int64_t byte = pm_get_i64(codes->data, PM_U8, at + i * bits / 8);
    return (int32_t)(byte >> (i * bits % 8) & ((1 << bits) - 1));
}

/// Sign, two bits of exponent, one of fraction.
PM_INLINE double e2m1_value(int32_t code)
{
    int32_t exponent = code >> 1 & 3, fraction = code & 1;
    double value = exponent == 0 ? fraction * 0.5 : (double)((2 + fraction) << exponent) / 4;
    return code & 8 ? -value : value;
}

/// Sign, four bits of exponent, three of fraction; no infinities, one NaN of each sign.
PM_INLINE double e4m3_value(int32_t code)
{
    int32_t exponent = code >> 3 & 15, fraction = code & 7;
    double value = exponent == 0                     ? ldexp(fraction, -9)
                   : exponent == 15 && fraction == 7 ? NAN
                                                     : ldexp(8 + fraction, exponent - 10);
    return code & 0x80 ? -value : value;
}

PM_INLINE double scale_at(const pm_tensor *scales, int64_t i)
{
    if (scales->elem != PM_U8)
        return pm_get_f64(scales->data, scales->elem, i);
    int64_t exponent = pm_get_i64(scales->data, PM_U8, i); // e8m0
    return exponent == 255 ? NAN : ldexp(1.0, (int)exponent - 127);
}

/// The codes of the whole bytes among n; how many those are.
PM_INLINE int64_t dequantize_bytes(const uint8_t *codes, float *out, int64_t n, int64_t bits,
                                   float zero, float scale)
{
    int64_t bytes = n * bits / 8;
    if (bits == 4) {
        for (int64_t i = 0; i < bytes; i++) {
            out[2 * i] = ((float)(codes[i] & 15) - zero) * scale;
            out[2 * i + 1] = ((float)(codes[i] >> 4) - zero) * scale;
        }
    } else if (bits == 8) {
        for (int64_t i = 0; i < bytes; i++)
            out[i] = ((float)codes[i] - zero) * scale;
    } else {
        for (int64_t i = 0; i < bytes; i++)
            for (int32_t part = 0; part < 4; part++)
                out[4 * i + part] = ((float)(codes[i] >> (2 * part) & 3) - zero) * scale;
    }
    return bytes * (8 / bits);
}

/// n codes of one block by a table of their values.
PM_INLINE void dequantize_by_table(const uint8_t *codes, const float *values, float *out, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = values[codes[i]] * scale;
}

int32_t pm_eval_dequantize(const pm_eval_args *args)
{
    enum { K, BITS, BLOCK, FORMAT };
    const pm_tensor *codes = &args->in[0], *scales = &args->in[1], *out = &args->out[0];
    const pm_tensor *zeros = pm_has(args, 2) ? &args->in[2] : NULL;
    int64_t k = args->attrs[K].i, bits = args->attrs[BITS].i;
    int64_t block = args->attrs[BLOCK].i ? args->attrs[BLOCK].i : k;
    int32_t is_e2m1 = pm_attr_is(&args->attrs[FORMAT], "e2m1"), is_e4m3 = pm_attr_is(&args->attrs[FORMAT], "e4m3");
    int32_t is_int = !is_e2m1 && !is_e4m3, last = codes->rank - 1;
    if (last < 0 || scales->rank != codes->rank || out->rank != codes->rank ||
        (zeros != NULL && zeros->rank != codes->rank) || codes->elem != PM_U8 || k < 0 || block < 0 ||
        (bits != 2 && bits != 4 && bits != 8) || out->dims[last] != k || (is_e2m1 && bits != 4) || (is_e4m3 && bits != 8))
        return 1;
    int64_t rows = pm_product(codes->dims, 0, last), n_blocks = k == 0 ? 0 : (k - 1) / block + 1;
    int32_t is_packed = zeros != NULL && zeros->elem == PM_U8;
    if (codes->dims[last] < k / (8 / bits) + (k % (8 / bits) != 0) || scales->dims[last] != n_blocks ||
        pm_product(scales->dims, 0, last) != rows || pm_product(out->dims, 0, last) != rows ||
        (zeros != NULL && (pm_product(zeros->dims, 0, last) != rows ||
                           zeros->dims[last] != (is_packed ? (n_blocks * bits + 7) / 8 : n_blocks))))
        return 1;
    int32_t is_table = is_e4m3 && out->elem == PM_F32 && scales->elem != PM_F64;
    float values[256];
    for (int32_t code = 0; is_table && code < 256; code++)
        values[code] = (float)e4m3_value(code);
    // whole bytes of a block whose zero is a whole number are exact in f32 but for the product's rounding
    int32_t is_plain = is_int && out->elem == PM_F32 && (zeros == NULL || is_packed) &&
                       block % (8 / bits) == 0 && scales->elem != PM_F64;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t from = 0; from < k; from += block) {
            int64_t to = k - from < block ? k : from + block, at = row * codes->dims[last];
            double scale = scale_at(scales, row * n_blocks + from / block), zero = is_int ? 1 << (bits - 1) : 0;
            if (is_packed)
                zero = code_at(zeros, row * zeros->dims[last], from / block, bits);
            else if (zeros != NULL)
                zero = pm_get_f64(zeros->data, zeros->elem, row * n_blocks + from / block);
            int64_t i = from;
            if (is_plain)
                i += dequantize_bytes((const uint8_t *)codes->data + at + from * bits / 8,
                                      (float *)out->data + row * k + from, to - from, bits, (float)zero,
                                      (float)scale);
            if (is_table) {
                dequantize_by_table((const uint8_t *)codes->data + at + from, values,
                                    (float *)out->data + row * k + from, to - from, (float)scale);
                i = to;
            }
            for (; i < to; i++) {
                int32_t code = code_at(codes, at, i, bits);
                double value = is_e2m1 ? e2m1_value(code) : is_e4m3 ? e4m3_value(code) : code;
                pm_set_f64(out->data, out->elem, row * k + i, (value - zero) * scale);
            }
        }
    return 0;
}
