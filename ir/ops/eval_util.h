/// What the eval functions share: elements by type, walks over strided axes, indices.
///
/// Everything here is always inlined, so that a caller whose types and extents are constants keeps
/// neither a switch over types nor a loop over axes. Elements are read and written with memcpy:
/// buffers are reused for other types.
#ifndef PM_IR_OPS_EVAL_UTIL_H
#define PM_IR_OPS_EVAL_UTIL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "ir/eval.h"

#define PM_INLINE static inline __attribute__((always_inline, unused))

/* ---- operands and attributes -------------------------------------------------------------------- */

/// True when the optional operand is there.
PM_INLINE int32_t pm_has(const pm_eval_args *args, int32_t operand)
{
    return operand < args->n_in && args->in[operand].data != NULL;
}

PM_INLINE int32_t pm_attr_is(const pm_attr_value *attr, const char *text)
{
    return attr->s != NULL && strcmp(attr->s, text) == 0;
}

/// An axis counted from the end when negative; -1 when there is no such axis.
PM_INLINE int32_t pm_axis(int64_t axis, int32_t rank)
{
    axis += axis < 0 ? rank : 0;
    return axis >= 0 && axis < rank ? (int32_t)axis : -1;
}

/// Product of extents first … last - 1. Zero when one of them is, whatever the others are.
PM_INLINE int64_t pm_product(const int64_t *dims, int32_t first, int32_t last)
{
    uint64_t product = 1;
    int32_t is_empty = 0;
    for (int32_t i = first; i < last; i++) {
        product *= (uint64_t)dims[i];
        is_empty |= dims[i] == 0;
    }
    return is_empty ? 0 : (int64_t)product;
}

PM_INLINE int64_t pm_elements(const pm_tensor *t)
{
    return pm_product(t->dims, 0, t->rank);
}

PM_INLINE int32_t pm_same_dims(const pm_tensor *a, const pm_tensor *b)
{
    int32_t same = a->rank == b->rank;
    for (int32_t i = 0; same && i < a->rank; i++)
        same = a->dims[i] == b->dims[i];
    return same;
}

/* ---- element types ------------------------------------------------------------------------------ */

PM_INLINE int64_t pm_bytes_of(int32_t elem)
{
    switch (elem) {
#define X(id, name, bytes, ...)                                                                    \
    case PM_##id:                                                                                  \
        return bytes;
        PM_ELEMS(X)
#undef X
    default:
        return 0;
    }
}

PM_INLINE int32_t pm_is_float(int32_t elem)
{
    return elem == PM_F32 || elem == PM_F64 || elem == PM_F16 || elem == PM_BF16;
}

PM_INLINE float pm_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

PM_INLINE float pm_bf16_value(uint16_t bits)
{
    return pm_float_of_bits((uint32_t)bits << 16);
}

PM_INLINE float pm_f16_value(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31;
    uint32_t mantissa = bits & 0x3ff;
    if (exponent == 0) { // subnormal: a multiple of 2^-24
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    uint32_t widened = exponent == 31 ? 255 : exponent + 112;
    return pm_float_of_bits(sign | widened << 23 | mantissa << 13);
}

/// The bits of the nearest number of a format with a sign, `exponent_bits` and `mantissa_bits`;
/// halves to even, in one rounding. A NaN stays a (quiet) NaN.
PM_INLINE uint16_t pm_round_bits(double value, int32_t exponent_bits, int32_t mantissa_bits)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint64_t sign = bits >> 63 << (exponent_bits + mantissa_bits);
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    int32_t biased = (int32_t)(bits >> 52 & 0x7ff);
    int32_t top = (1 << exponent_bits) - 1, exponent = biased - 1023 + (top >> 1);
    uint64_t infinity = (uint64_t)top << mantissa_bits;
    if (biased == 0x7ff && fraction != 0)
        return (uint16_t)(sign | infinity | UINT64_C(1) << (mantissa_bits - 1) |
                          fraction >> (52 - mantissa_bits));
    if (exponent >= top)
        return (uint16_t)(sign | infinity);
    // a subnormal result keeps fewer bits; far below there is only zero
    int32_t shift = 52 - mantissa_bits + (exponent > 0 ? 0 : 1 - exponent);
    if (shift > 54)
        return (uint16_t)sign;
    uint64_t significand = fraction | UINT64_C(1) << 52;
    uint64_t kept = significand >> shift, rest = significand & ((UINT64_C(1) << shift) - 1);
    uint64_t half = UINT64_C(1) << (shift - 1);
    kept += rest > half || (rest == half && (kept & 1));
    // `kept` has the leading one, which counts up the exponent; so does a carry
    if (exponent > 0)
        kept += (uint64_t)(exponent - 1) << mantissa_bits;
    return (uint16_t)(sign | kept);
}

/// The nearest bf16, as a float.
PM_INLINE float pm_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return value;
    bits += 0x7fff + (bits >> 16 & 1);
    return pm_float_of_bits(bits & 0xffff0000);
}

/// The double with `value`'s magnitude, rounded so that rounding it again to 8 or 11 bits of
/// mantissa gives what a single rounding would (bits that don't fit leave a trace in the last one).
PM_INLINE double pm_sticky_double(uint64_t magnitude)
{
    if (magnitude >> 53 == 0)
        return (double)magnitude;
    return (double)(magnitude >> 11 | ((magnitude & 0x7ff) != 0)) * 2048.0;
}

/// Truncates towards zero; out of range is the nearest end, NaN is 0.
PM_INLINE int64_t pm_saturate(double value, int32_t bits)
{
    double limit = (double)(UINT64_C(1) << (bits - 1));
    int64_t top = (int64_t)((UINT64_C(1) << (bits - 1)) - 1);
    if (value != value)
        return 0;
    return value >= limit ? top : value <= -limit ? -top - 1 : (int64_t)value;
}

PM_INLINE uint64_t pm_saturate_unsigned(double value, int32_t bits)
{
    double limit = 2.0 * (double)(UINT64_C(1) << (bits - 1));
    if (!(value > 0))
        return 0;
    return value >= limit ? UINT64_MAX >> (64 - bits) : (uint64_t)value;
}

#define PM_LOAD(type, data, i)                                                                     \
    type loaded;                                                                                   \
    memcpy(&loaded, (const char *)(data) + (i) * (int64_t)sizeof loaded, sizeof loaded)
#define PM_STORE(type, data, i, value)                                                             \
    do {                                                                                           \
        type stored = (type)(value);                                                               \
        memcpy((char *)(data) + (i) * (int64_t)sizeof stored, &stored, sizeof stored);             \
    } while (0)

/// Element i, exact but for 64-bit integers.
PM_INLINE double pm_get_f64(const void *data, int32_t elem, int64_t i)
{
    switch (elem) {
    case PM_F32: { PM_LOAD(float, data, i); return loaded; }
    case PM_F64: { PM_LOAD(double, data, i); return loaded; }
    case PM_F16: { PM_LOAD(uint16_t, data, i); return pm_f16_value(loaded); }
    case PM_BF16: { PM_LOAD(uint16_t, data, i); return pm_bf16_value(loaded); }
    case PM_I64: { PM_LOAD(int64_t, data, i); return (double)loaded; }
    case PM_I32: { PM_LOAD(int32_t, data, i); return loaded; }
    case PM_I16: { PM_LOAD(int16_t, data, i); return loaded; }
    case PM_I8: { PM_LOAD(int8_t, data, i); return loaded; }
    case PM_U64: { PM_LOAD(uint64_t, data, i); return (double)loaded; }
    case PM_U32: { PM_LOAD(uint32_t, data, i); return loaded; }
    case PM_U16: { PM_LOAD(uint16_t, data, i); return loaded; }
    case PM_U8: { PM_LOAD(uint8_t, data, i); return loaded; }
    case PM_BOOL: { PM_LOAD(uint8_t, data, i); return loaded != 0; }
    default: return 0;
    }
}

/// Stores the nearest number of the type; integers truncate and saturate, bool is != 0.
PM_INLINE void pm_set_f64(void *data, int32_t elem, int64_t i, double value)
{
    switch (elem) {
    case PM_F32: PM_STORE(float, data, i, value); break;
    case PM_F64: PM_STORE(double, data, i, value); break;
    case PM_F16: PM_STORE(uint16_t, data, i, pm_round_bits(value, 5, 10)); break;
    case PM_BF16: PM_STORE(uint16_t, data, i, pm_round_bits(value, 8, 7)); break;
    case PM_I64: PM_STORE(int64_t, data, i, pm_saturate(value, 64)); break;
    case PM_I32: PM_STORE(int32_t, data, i, pm_saturate(value, 32)); break;
    case PM_I16: PM_STORE(int16_t, data, i, pm_saturate(value, 16)); break;
    case PM_I8: PM_STORE(int8_t, data, i, pm_saturate(value, 8)); break;
    case PM_U64: PM_STORE(uint64_t, data, i, pm_saturate_unsigned(value, 64)); break;
    case PM_U32: PM_STORE(uint32_t, data, i, pm_saturate_unsigned(value, 32)); break;
    case PM_U16: PM_STORE(uint16_t, data, i, pm_saturate_unsigned(value, 16)); break;
    case PM_U8: PM_STORE(uint8_t, data, i, pm_saturate_unsigned(value, 8)); break;
    case PM_BOOL: PM_STORE(uint8_t, data, i, value != 0); break;
    default: break;
    }
}

/// Element i as an integer: u64 by its bits, floats truncated.
PM_INLINE int64_t pm_get_i64(const void *data, int32_t elem, int64_t i)
{
    switch (elem) {
    case PM_I64: { PM_LOAD(int64_t, data, i); return loaded; }
    case PM_I32: { PM_LOAD(int32_t, data, i); return loaded; }
    case PM_I16: { PM_LOAD(int16_t, data, i); return loaded; }
    case PM_I8: { PM_LOAD(int8_t, data, i); return loaded; }
    case PM_U64: { PM_LOAD(uint64_t, data, i); return (int64_t)loaded; }
    case PM_U32: { PM_LOAD(uint32_t, data, i); return loaded; }
    case PM_U16: { PM_LOAD(uint16_t, data, i); return loaded; }
    case PM_U8: { PM_LOAD(uint8_t, data, i); return loaded; }
    case PM_BOOL: { PM_LOAD(uint8_t, data, i); return loaded != 0; }
    default: return pm_saturate(pm_get_f64(data, elem, i), 64);
    }
}

/// Stores an integer (of a u64 its bits): integers wrap, bool is != 0, floats round once.
PM_INLINE void pm_set_i64(void *data, int32_t elem, int64_t i, int64_t value, int32_t is_u64)
{
    int32_t is_negative = !is_u64 && value < 0;
    uint64_t magnitude = is_negative ? -(uint64_t)value : (uint64_t)value;
    double sticky;
    switch (elem) {
    case PM_F32: PM_STORE(float, data, i, is_u64 ? (float)(uint64_t)value : (float)value); break;
    case PM_F64: PM_STORE(double, data, i, is_u64 ? (double)(uint64_t)value : (double)value); break;
    case PM_F16:
    case PM_BF16:
        sticky = pm_sticky_double(magnitude);
        pm_set_f64(data, elem, i, is_negative ? -sticky : sticky);
        break;
    case PM_I64: PM_STORE(int64_t, data, i, value); break;
    case PM_I32: PM_STORE(uint32_t, data, i, value); break;
    case PM_I16: PM_STORE(uint16_t, data, i, value); break;
    case PM_I8: PM_STORE(uint8_t, data, i, value); break;
    case PM_U64: PM_STORE(uint64_t, data, i, value); break;
    case PM_U32: PM_STORE(uint32_t, data, i, value); break;
    case PM_U16: PM_STORE(uint16_t, data, i, value); break;
    case PM_U8: PM_STORE(uint8_t, data, i, value); break;
    case PM_BOOL: PM_STORE(uint8_t, data, i, value != 0); break;
    default: break;
    }
}

/// Copies n elements.
PM_INLINE void pm_copy(void *to, int64_t to_at, const void *from, int64_t from_at, int64_t n,
                       int32_t elem)
{
    int64_t size = pm_bytes_of(elem);
    if (n > 0)
        memcpy((char *)to + to_at * size, (const char *)from + from_at * size, (size_t)(n * size));
}

/// Copies `runs` runs of n elements, that are to_step and from_step elements apart.
PM_INLINE void pm_copy_runs(void *to, int64_t to_at, int64_t to_step, const void *from, int64_t from_at,
                            int64_t from_step, int64_t n, int64_t runs, int32_t elem)
{
    int64_t size = pm_bytes_of(elem), bytes = n * size, i = 0;
    char *out = (char *)to + to_at * size;
    const char *in = (const char *)from + from_at * size;
    to_step *= size, from_step *= size;
#define RUNS(constant)                                                                             \
    case constant:                                                                                 \
        for (; i < runs; i++, out += to_step, in += from_step)                                     \
            memcpy(out, in, constant);                                                             \
        break;
    if (bytes == 4 && to_step == 4 && from_step == 8) // every second one
        for (; i < runs; i++)
            memcpy(out + 4 * i, in + 8 * i, 4);
    switch (bytes) { // short ones without a call for each
        RUNS(1)
        RUNS(2)
        RUNS(4)
        RUNS(8)
        RUNS(16)
        RUNS(32)
        RUNS(64)
    case 0: break;
    default:
        for (; i < runs; i++, out += to_step, in += from_step)
            memcpy(out, in, (size_t)bytes);
    }
#undef RUNS
}

/// Copies one element, whatever its type.
PM_INLINE void pm_copy_one(void *to, int64_t to_at, const void *from, int64_t from_at, int32_t elem)
{
    switch (pm_bytes_of(elem)) {
    case 1: { PM_LOAD(uint8_t, from, from_at); PM_STORE(uint8_t, to, to_at, loaded); break; }
    case 2: { PM_LOAD(uint16_t, from, from_at); PM_STORE(uint16_t, to, to_at, loaded); break; }
    case 4: { PM_LOAD(uint32_t, from, from_at); PM_STORE(uint32_t, to, to_at, loaded); break; }
    case 8: { PM_LOAD(uint64_t, from, from_at); PM_STORE(uint64_t, to, to_at, loaded); break; }
    default: break;
    }
}

/// Order of two elements of one tensor: -1, 0, 1. NaN is the largest.
PM_INLINE int32_t pm_compare(const void *data, int32_t elem, int64_t i, int64_t j)
{
    if (pm_is_float(elem)) {
        double a = pm_get_f64(data, elem, i), b = pm_get_f64(data, elem, j);
        if (a != a || b != b)
            return (a != a) - (b != b);
        return (a > b) - (a < b);
    }
    int64_t a = pm_get_i64(data, elem, i), b = pm_get_i64(data, elem, j);
    if (elem == PM_U64)
        return ((uint64_t)a > (uint64_t)b) - ((uint64_t)a < (uint64_t)b);
    return (a > b) - (a < b);
}

/// The larger; NaN wins, and 0 is larger than -0.
PM_INLINE double pm_larger(double a, double b)
{
    if (a != a || b != b)
        return a != a ? a : b;
    if (a == b)
        return signbit(a) ? b : a;
    return a > b ? a : b;
}

/// The smaller; NaN wins, and -0 is smaller than 0.
PM_INLINE double pm_smaller(double a, double b)
{
    if (a != a || b != b)
        return a != a ? a : b;
    if (a == b)
        return signbit(a) ? a : b;
    return a < b ? a : b;
}

PM_INLINE int64_t pm_larger_int(int64_t a, int64_t b, int32_t elem)
{
    if (elem == PM_U64)
        return (uint64_t)a > (uint64_t)b ? a : b;
    return a > b ? a : b;
}

PM_INLINE int64_t pm_smaller_int(int64_t a, int64_t b, int32_t elem)
{
    if (elem == PM_U64)
        return (uint64_t)a < (uint64_t)b ? a : b;
    return a < b ? a : b;
}

PM_INLINE int64_t pm_wrap_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

PM_INLINE int64_t pm_wrap_mul(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

/* ---- indices and lists -------------------------------------------------------------------------- */

/// Index i of an index tensor into an axis of n elements, negative ones from the end; -1 when out
/// of range.
PM_INLINE int64_t pm_index(const pm_tensor *indices, int64_t i, int64_t n)
{
    int64_t at = pm_get_i64(indices->data, indices->elem, i);
    if (indices->elem == PM_U64 && at < 0)
        return -1;
    at += at < 0 ? n : 0;
    return at >= 0 && at < n ? at : -1;
}

/// The elements of an integer list; -1 when it isn't one or has more than `max`.
PM_INLINE int64_t pm_list(const pm_tensor *t, int64_t *out, int64_t max)
{
    int64_t n = pm_elements(t);
    if (t->rank > 1 || n > max)
        return -1;
    for (int64_t i = 0; i < n; i++)
        out[i] = pm_get_i64(t->data, t->elem, i);
    return n;
}

/* ---- walks -------------------------------------------------------------------------------------- */

enum { PM_WALK_OPERANDS = 4 };

/// A row-major walk over `dims`, a row (the last axis) at a time, with an offset and a stride per
/// axis for each of some operands.
typedef struct pm_walk {
    int32_t rank, n_operands;
    int64_t dims[PM_MAX_RANK], index[PM_MAX_RANK];
    int64_t stride[PM_WALK_OPERANDS][PM_MAX_RANK];
    int64_t offset[PM_WALK_OPERANDS];
} pm_walk;

/// Starts a walk; no extents are one row of one element. Strides are 0 until they are set.
PM_INLINE void pm_walk_begin(pm_walk *w, const int64_t *dims, int32_t rank, int32_t n_operands)
{
    w->rank = rank > 0 ? rank : 1;
    w->n_operands = n_operands;
    w->dims[0] = 1;
    for (int32_t d = 0; d < w->rank; d++) {
        if (rank > 0)
            w->dims[d] = dims[d];
        w->index[d] = 0;
        for (int32_t k = 0; k < n_operands; k++)
            w->stride[k][d] = 0;
    }
    for (int32_t k = 0; k < n_operands; k++)
        w->offset[k] = 0;
}

/// Number of rows.
PM_INLINE int64_t pm_walk_rows(const pm_walk *w)
{
    return w->dims[w->rank - 1] == 0 ? 0 : pm_product(w->dims, 0, w->rank - 1);
}

PM_INLINE int64_t pm_walk_row(const pm_walk *w)
{
    return w->dims[w->rank - 1];
}

/// Goes on to the next row (from the last to the first).
PM_INLINE void pm_walk_next(pm_walk *w)
{
    for (int32_t d = w->rank - 2; d >= 0; d--) {
        int32_t carries = ++w->index[d] == w->dims[d];
        for (int32_t k = 0; k < w->n_operands; k++)
            w->offset[k] += carries ? -w->stride[k][d] * (w->dims[d] - 1) : w->stride[k][d];
        if (!carries)
            return;
        w->index[d] = 0;
    }
}

/// Strides of a row-major tensor.
PM_INLINE void pm_strides(const int64_t *dims, int32_t rank, int64_t *out)
{
    uint64_t stride = 1;
    for (int32_t d = rank - 1; d >= 0; d--) {
        out[d] = (int64_t)stride;
        stride *= (uint64_t)dims[d];
    }
}

/// Operand k broadcasts to the walk. Returns 1 when it doesn't.
PM_INLINE int32_t pm_walk_broadcast(pm_walk *w, int32_t k, const pm_tensor *t)
{
    uint64_t stride = 1;
    int32_t fault = t->rank > w->rank;
    for (int32_t d = w->rank - 1; d >= 0 && !fault; d--) {
        int32_t from = d - (w->rank - t->rank);
        int64_t extent = from >= 0 ? t->dims[from] : 1;
        fault = extent != 1 && extent != w->dims[d];
        w->stride[k][d] = extent == 1 ? 0 : (int64_t)stride;
        stride *= (uint64_t)extent;
    }
    return fault;
}

#endif
