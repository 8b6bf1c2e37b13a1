#include "tests/cuda/cu_run.h"

#include <check.h>
#include <math.h>

void check_near(const char *what, const float *got, const float *want, int64_t n, double tolerance)
{
    for (int64_t i = 0; i < n; i++) {
        double g = (double)got[i], w = (double)want[i];
        bool same = g == w || (isnan(g) && isnan(w)) || fabs(g - w) <= tolerance * (1 + fabs(w));
        ck_assert_msg(same, "%s: element %ld is %g, must be %g", what, (long)i, g, w);
    }
}

float *random_floats(int64_t n, float scale)
{
    float *x = guarded_floats(n);
    for (int64_t i = 0; i < n; i++)
        x[i] = next_float() * scale;
    return x;
}
