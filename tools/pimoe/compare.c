#include "tools/pimoe/compare.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/elem.h"
#include "runtime/program_args.h"

pm_tolerance pm_tolerance_of(int32_t elem, bool bf16_products)
{
    if (bf16_products && (elem == PM_F32 || elem == PM_F64 || elem == PM_F16))
        return (pm_tolerance){2e-2, 1e-6};
    switch (elem) {
    case PM_F32: return (pm_tolerance){1e-4, 1e-6};
    case PM_F64: return (pm_tolerance){1e-9, 1e-12};
    case PM_F16: return (pm_tolerance){1e-2, 1e-6};
    case PM_BF16: return (pm_tolerance){2e-2, 1e-6};
    default: return (pm_tolerance){0, 0};
    }
}

static bool is_float(int32_t elem)
{
    return elem == PM_F32 || elem == PM_F64 || elem == PM_F16 || elem == PM_BF16;
}

/// Difference of two integers, exact where doubles would not be.
static double int_difference(int32_t elem, const void *a, const void *b, int64_t i)
{
    if (elem == PM_I64) {
        int64_t x = ((const int64_t *)a)[i], y = ((const int64_t *)b)[i];
        return x > y ? (double)((uint64_t)x - (uint64_t)y) : (double)((uint64_t)y - (uint64_t)x);
    }
    if (elem == PM_U64) {
        uint64_t x = ((const uint64_t *)a)[i], y = ((const uint64_t *)b)[i];
        return x > y ? (double)(x - y) : (double)(y - x);
    }
    return fabs(pm_program_element(elem, a, i) - pm_program_element(elem, b, i));
}

static double difference(double got, double want)
{
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want) ? 0 : INFINITY;
    return got == want ? 0 : fabs(got - want); // equal infinities differ by nothing
}

/// The largest finite magnitude among n expected elements.
static double largest(const pm_npy *want, int64_t from, int64_t n)
{
    double scale = 0;
    for (int64_t i = from; i < from + n; i++) {
        double v = fabs(pm_program_element(want->elem, want->data, i));
        if (isfinite(v) && v > scale)
            scale = v;
    }
    return scale;
}

/// One row, whose elements count as relative to `scale`.
static void compare_row(const pm_npy *want, const pm_tensor_arg *got, int64_t from, int64_t n, double allowed,
                        double scale, pm_comparison *out)
{
    for (int64_t i = from; i < from + n; i++) {
        double g = pm_program_element(out->elem, got->data, i), w = pm_program_element(want->elem, want->data, i);
        double d = is_float(out->elem) ? difference(g, w) : int_difference(out->elem, got->data, want->data, i);
        double relative = d == 0 ? 0 : scale > 0 ? d / scale : INFINITY;
        out->n_bad += !(d <= allowed);
        out->max_abs = d > out->max_abs ? d : out->max_abs;
        if (i == 0 || relative > out->max_rel) {
            out->max_rel = relative;
            out->worst = i;
            out->got = g;
            out->want = w;
        }
    }
}

void pm_compare(const pm_npy *want, int32_t elem, const pm_tensor_arg *got, pm_tolerance tolerance,
                pm_comparison *out)
{
    *out = (pm_comparison){.elem = elem, .rank = got->rank, .want_elem = want->elem, .want_rank = want->rank, .n = 1};
    memcpy(out->dims, got->dims, sizeof out->dims);
    memcpy(out->want_dims, want->dims, sizeof out->want_dims);
    out->other_type = is_float(elem) != is_float(want->elem) || (!is_float(elem) && elem != want->elem);
    out->other_shape = got->rank != want->rank;
    for (int32_t i = 0; i < want->rank && !out->other_shape; i++) {
        out->other_shape = got->dims[i] != want->dims[i];
        out->n *= want->dims[i];
    }
    if (out->other_shape || out->other_type) {
        out->max_abs = out->max_rel = INFINITY;
        return;
    }
    int64_t width = want->rank > 0 ? want->dims[want->rank - 1] : 1;
    double whole = largest(want, 0, out->n);
    for (int64_t row = 0; row < out->n; row += width) {
        double scale = largest(want, row, width);
        compare_row(want, got, row, width, tolerance.atol + tolerance.rtol * scale, scale > 0 ? scale : whole, out);
    }
    out->pass = out->n_bad == 0;
}
