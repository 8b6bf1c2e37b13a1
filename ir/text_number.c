#include "ir/text_number.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/type.h"

/// How a float type is laid out in bits.
typedef struct float_form {
    int exponent_bits, mantissa_bits;
    int digits; ///< decimal digits that always do
} float_form;

static float_form form_of(pm_elem elem)
{
    switch (elem) {
    case PM_F64: return (float_form){11, 52, 17};
    case PM_F32: return (float_form){8, 23, 9};
    case PM_F16: return (float_form){5, 10, 5};
    default: return (float_form){8, 7, 4};
    }
}

static double bits_to_double(float_form form, uint64_t bits)
{
    uint64_t exponent_mask = (UINT64_C(1) << form.exponent_bits) - 1;
    uint64_t mantissa = bits & ((UINT64_C(1) << form.mantissa_bits) - 1);
    uint64_t exponent = (bits >> form.mantissa_bits) & exponent_mask;
    bool is_negative = (bits >> (form.mantissa_bits + form.exponent_bits)) & 1;
    int bias = (int)(exponent_mask >> 1);
    double value;
    if (exponent == exponent_mask)
        value = mantissa != 0 ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        value = ldexp((double)mantissa, 1 - bias - form.mantissa_bits);
    else
        value = ldexp((double)(mantissa | UINT64_C(1) << form.mantissa_bits),
                      (int)exponent - bias - form.mantissa_bits);
    return is_negative ? -value : value;
}

/// The nearest float of the form, ties to even; `value` is no NaN. A double that lies between two
/// of these is rounded once, so reading a decimal number rounds at most twice, and never for the
/// digits that the printer writes.
static uint64_t double_to_bits(float_form form, double value)
{
    uint64_t exponent_mask = (UINT64_C(1) << form.exponent_bits) - 1;
    int bias = (int)(exponent_mask >> 1);
    uint64_t sign = (uint64_t)(signbit(value) != 0) << (form.exponent_bits + form.mantissa_bits);
    uint64_t infinity = exponent_mask << form.mantissa_bits;
    value = fabs(value);
    if (value == 0)
        return sign;
    if (isinf(value))
        return sign | infinity;
    int exponent;
    frexp(value, &exponent); // value = 0.5… * 2^exponent
    exponent--;
    if (exponent < 1 - bias)
        exponent = 1 - bias; // subnormal: the same steps as the smallest normal number
    // exact: only the exponent changes, and the result is below 2^54
    double steps = nearbyint(ldexp(value, form.mantissa_bits - exponent));
    uint64_t count = (uint64_t)steps; // mantissa with its leading one; a carry moves the exponent
    uint64_t bits = count + ((uint64_t)(exponent + bias - 1) << form.mantissa_bits);
    return sign | (bits > infinity ? infinity : bits);
}

static uint64_t load_bits(pm_elem elem, const void *bytes)
{
    uint64_t bits = 0;
    switch (pm_elem_size(elem)) {
    case 1: bits = *(const uint8_t *)bytes; break;
    case 2: {
        uint16_t half;
        memcpy(&half, bytes, sizeof half);
        bits = half;
        break;
    }
    case 4: {
        uint32_t word;
        memcpy(&word, bytes, sizeof word);
        bits = word;
        break;
    }
    default: memcpy(&bits, bytes, sizeof bits); break;
    }
    return bits;
}

static void store_bits(pm_elem elem, uint64_t bits, void *out)
{
    switch (pm_elem_size(elem)) {
    case 1: *(uint8_t *)out = (uint8_t)bits; break;
    case 2: {
        uint16_t half = (uint16_t)bits;
        memcpy(out, &half, sizeof half);
        break;
    }
    case 4: {
        uint32_t word = (uint32_t)bits;
        memcpy(out, &word, sizeof word);
        break;
    }
    default: memcpy(out, &bits, sizeof bits); break;
    }
}

/// strtod reads a decimal point as the program's locale has it, so the "C" locale is named.
static double text_to_double(const char *text, char **out_end)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0)
        return strtod(text, out_end);
    double value = strtod_l(text, out_end, plain);
    freelocale(plain);
    return value;
}

/// printf likewise; glibc has no printf that takes a locale.
static void double_to_text(double value, int digits, char out[PM_NUMBER_TEXT])
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t former = plain != (locale_t)0 ? uselocale(plain) : (locale_t)0;
    snprintf(out, PM_NUMBER_TEXT, "%.*g", digits, value);
    if (plain != (locale_t)0) {
        uselocale(former);
        freelocale(plain);
    }
}

static void float_to_text(pm_elem elem, uint64_t bits, char out[PM_NUMBER_TEXT])
{
    float_form form = form_of(elem);
    uint64_t mantissa = bits & ((UINT64_C(1) << form.mantissa_bits) - 1);
    double value = bits_to_double(form, bits);
    if (isnan(value)) {
        bool is_usual = mantissa == UINT64_C(1) << (form.mantissa_bits - 1) &&
                        bits >> (form.mantissa_bits + form.exponent_bits) == 0;
        if (is_usual)
            strcpy(out, "nan");
        else
            snprintf(out, PM_NUMBER_TEXT, "0x%" PRIx64, bits);
        return;
    }
    if (isinf(value)) {
        strcpy(out, value < 0 ? "-inf" : "inf");
        return;
    }
    for (int digits = 1; digits <= form.digits; digits++) {
        double_to_text(value, digits, out);
        if (double_to_bits(form, text_to_double(out, NULL)) == bits)
            return;
    }
}

void pm_f64_to_text(double value, char out[PM_NUMBER_TEXT])
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value))
        strcpy(out, "nan");
    else
        float_to_text(PM_F64, bits, out);
}

void pm_elem_to_text(pm_elem elem, const void *bytes, char out[PM_NUMBER_TEXT])
{
    uint64_t bits = load_bits(elem, bytes);
    switch (elem) {
    case PM_F64:
    case PM_F32:
    case PM_F16:
    case PM_BF16: float_to_text(elem, bits, out); return;
    case PM_BOOL:
        // any byte but 0 and 1 is no bool, yet has to come back as it is
        if (bits > 1)
            snprintf(out, PM_NUMBER_TEXT, "0x%" PRIx64, bits);
        else
            strcpy(out, bits ? "true" : "false");
        return;
    case PM_I8: snprintf(out, PM_NUMBER_TEXT, "%d", (int)(int8_t)bits); return;
    case PM_I16: snprintf(out, PM_NUMBER_TEXT, "%d", (int)(int16_t)bits); return;
    case PM_I32: snprintf(out, PM_NUMBER_TEXT, "%" PRId32, (int32_t)bits); return;
    case PM_I64: snprintf(out, PM_NUMBER_TEXT, "%" PRId64, (int64_t)bits); return;
    default: snprintf(out, PM_NUMBER_TEXT, "%" PRIu64, bits); return;
    }
}

static const char *int_from_text(pm_elem elem, const char *text, void *out_bytes)
{
    static const char range[] = "the number does not fit the element type";
    char *end = NULL;
    unsigned width = pm_elem_size(elem) * 8;
    bool is_signed = elem == PM_I8 || elem == PM_I16 || elem == PM_I32 || elem == PM_I64;
    errno = 0;
    if (is_signed) {
        int64_t value = strtoll(text, &end, 10);
        if (end == text || *end != '\0')
            return "expected an integer";
        int64_t highest = (int64_t)(UINT64_MAX >> (65 - width));
        if (errno != 0 || value > highest || value < -highest - 1)
            return range;
        store_bits(elem, (uint64_t)value, out_bytes);
        return NULL;
    }
    if (*text == '-')
        return range;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end != '\0')
        return "expected an integer";
    if (errno != 0 || value > UINT64_MAX >> (64 - width))
        return range;
    store_bits(elem, value, out_bytes);
    return NULL;
}

const char *pm_elem_from_text(pm_elem elem, const char *text, void *out_bytes)
{
    char *end = NULL;
    if (strncmp(text, "0x", 2) == 0) {
        errno = 0;
        uint64_t bits = strtoull(text + 2, &end, 16);
        if (end == text + 2 || *end != '\0')
            return "expected a hexadecimal number";
        if (errno != 0 || bits > UINT64_MAX >> (64 - pm_elem_size(elem) * 8))
            return "the number does not fit the element type";
        store_bits(elem, bits, out_bytes);
        return NULL;
    }
    if (elem == PM_BOOL) {
        bool is_true = strcmp(text, "true") == 0;
        if (!is_true && strcmp(text, "false") != 0)
            return "expected true or false";
        store_bits(elem, is_true, out_bytes);
        return NULL;
    }
    if (!pm_elem_is_float(elem))
        return int_from_text(elem, text, out_bytes);
    float_form form = form_of(elem);
    if (strcmp(text, "nan") == 0) {
        uint64_t exponent = ((UINT64_C(1) << form.exponent_bits) - 1) << form.mantissa_bits;
        store_bits(elem, exponent | UINT64_C(1) << (form.mantissa_bits - 1), out_bytes);
        return NULL;
    }
    double value = text_to_double(text, &end);
    if (end == text || *end != '\0' || isnan(value))
        return "expected a number";
    store_bits(elem, double_to_bits(form, value), out_bytes);
    return NULL;
}
