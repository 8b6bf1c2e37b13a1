/* Softmax of rows against a plain loop in double precision. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "tests/kernels/kernel_test.h"

enum { ROWS = 7 };

static void check(int64_t columns, bool masked, bool poisoned)
{
    float *x = guarded_floats(ROWS * columns), *first = guarded_floats(ROWS * columns);
    fill_random(x, ROWS * columns);
    for (int64_t i = 0; i < ROWS * columns; i++) {
        x[i] *= 30;
        if (masked && i % columns > i / columns) // all of a row but its first few
            x[i] = i % 2 ? -INFINITY : -3.4028235e38f;
    }
    if (poisoned && columns)
        x[2 * columns + columns / 2] = NAN;
    for (int64_t n_workers = 1; n_workers <= 4; n_workers++) {
        float *out = guarded_floats(ROWS * columns);
        for (int64_t worker = 0; worker < n_workers; worker++)
            pm_k_softmax(x, out, ROWS, columns, worker, n_workers);
        if (n_workers == 1)
            memcpy(first, out, (size_t)(ROWS * columns) * sizeof *out);
        ck_assert(same_bits(first, out, ROWS * columns));
    }
    for (int64_t row = 0; row < ROWS; row++) {
        const float *from = x + row * columns, *got = first + row * columns;
        double largest = -INFINITY, sum = 0;
        for (int64_t i = 0; i < columns; i++)
            largest = fmax(largest, (double)from[i]);
        for (int64_t i = 0; i < columns; i++)
            sum += exp((double)from[i] - largest);
        for (int64_t i = 0; i < columns; i++) {
            double below = largest - (double)from[i], want = exp(-below) / sum;
            // the difference is rounded: half a unit of its last place is that much of the exponential
            double allowed = isfinite(below) ? want * (1e-6 + below * 0x1p-24) : 0;
            if (poisoned && row == 2)
                ck_assert(isnan(got[i]));
            else
                ck_assert_msg(fabs((double)got[i] - want) <= allowed + 1e-37,
                              "row %d of %d, column %d: %g, must be %g", (int)row, (int)columns, (int)i,
                              (double)got[i], want);
        }
    }
}

START_TEST(softmax)
{
    static const int64_t columns[] = {0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 257};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        check(columns[i], false, false);
        check(columns[i], true, false);
        check(columns[i], false, true);
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *s = suite_create("softmax");
    TCase *c = tcase_create("all");
    tcase_add_test(c, softmax);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(make_suite);
}
