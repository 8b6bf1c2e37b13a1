/// What pimoe check calls the same.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/elem.h"
#include "tools/pimoe/compare.h"

static int failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition);                                      \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static pm_comparison compare(int32_t elem, int64_t rows, int64_t width, const void *want, const void *got, size_t size)
{
    pm_npy w = {.elem = elem, .rank = 2, .dims = {rows, width}, .data = want, .size = size};
    pm_tensor_arg g = {.data = (void *)(uintptr_t)got, .size = size, .rank = 2, .dims = {rows, width}};
    pm_comparison c;
    pm_compare(&w, elem, &g, pm_tolerance_of(elem, false), &c);
    return c;
}

static pm_comparison floats(int64_t rows, int64_t width, const float *want, const float *got)
{
    return compare(PM_F32, rows, width, want, got, (size_t)(rows * width) * sizeof(float));
}

int main(void)
{
    pm_comparison c = floats(1, 3, (float[]){1, 2, 100}, (float[]){1, 2.005f, 100});
    CHECK(c.pass && c.worst == 1 && fabs(c.max_rel - 5e-5) < 1e-6 && fabs(c.max_abs - 5e-3) < 1e-5);
    c = floats(1, 3, (float[]){1, 2, 100}, (float[]){1, 2.02f, 100});
    CHECK(!c.pass && c.n_bad == 1 && c.n == 3);
    // the large row does not excuse the small one
    c = floats(2, 1, (float[]){1e7f, 2}, (float[]){1e7f, 2.01f});
    CHECK(!c.pass && c.worst == 1);
    // a row of zeros: the absolute tolerance alone
    c = floats(2, 2, (float[]){0, 0, 1, 1}, (float[]){5e-7f, 0, 1, 1});
    CHECK(c.pass && c.max_rel > 0 && isfinite(c.max_rel));
    c = floats(1, 2, (float[]){0, 0}, (float[]){1e-5f, 0});
    CHECK(!c.pass && isinf(c.max_rel));
    // not numbers
    c = floats(1, 3, (float[]){NAN, INFINITY, -INFINITY}, (float[]){NAN, INFINITY, -INFINITY});
    CHECK(c.pass && c.max_abs == 0);
    c = floats(1, 2, (float[]){1, 2}, (float[]){NAN, 2});
    CHECK(!c.pass && isinf(c.max_abs) && c.worst == 0);
    c = floats(1, 2, (float[]){INFINITY, 2}, (float[]){-INFINITY, 2});
    CHECK(!c.pass);
    c = floats(1, 2, (float[]){INFINITY, 2}, (float[]){3e38f, 2});
    CHECK(!c.pass);
    // integers are exact, beyond what a double holds
    c = compare(PM_I64, 1, 2, (int64_t[]){INT64_MAX, 5}, (int64_t[]){INT64_MAX - 1, 5}, 16);
    CHECK(!c.pass && c.max_abs == 1 && c.n_bad == 1);
    c = compare(PM_I64, 1, 2, (int64_t[]){INT64_MIN, 5}, (int64_t[]){INT64_MIN, 5}, 16);
    CHECK(c.pass);
    c = compare(PM_BOOL, 1, 2, (uint8_t[]){1, 0}, (uint8_t[]){1, 1}, 2);
    CHECK(!c.pass);
    // nothing at all is the same as nothing
    c = floats(3, 0, NULL, NULL);
    CHECK(c.pass && c.n == 0);
    // other shapes and types
    pm_npy w = {.elem = PM_F32, .rank = 1, .dims = {2}, .data = (const uint8_t *)(float[]){1, 2}, .size = 8};
    pm_tensor_arg g = {.data = (float[]){1, 2}, .size = 8, .rank = 2, .dims = {1, 2}};
    pm_compare(&w, PM_F32, &g, (pm_tolerance){1, 1}, &c);
    CHECK(!c.pass && c.other_shape);
    g.rank = 1;
    g.dims[0] = 2;
    pm_compare(&w, PM_I32, &g, (pm_tolerance){1, 1}, &c);
    CHECK(!c.pass && c.other_type);
    return failures != 0;
}
