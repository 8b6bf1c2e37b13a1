/* The math of generated loops: over all magnitudes against double precision, and at special values. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/kernels_native.h"

static double sigmoid_of(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu_of(double x)
{
    return x / (1 + exp(-x));
}

static double gelu_of(double x)
{
    return 0.5 * x * erfc(-x * 0.70710678118654752440);
}

static double gelu_tanh_of(double x)
{
    return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

static double softplus_of(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

/// Beyond 2^50 both count as those of 0: floats are further apart there than a turn.
static double sin_of(double x)
{
    return sin(fabs(x) < 0x1p50 ? x : 0);
}

static double cos_of(double x)
{
    return cos(fabs(x) < 0x1p50 ? x : 0);
}

typedef struct function {
    const char *name;
    void (*loop)(const float *x, float *y, int64_t count);
    double (*reference)(double x);
    double bound; ///< in ulps, as kernels.h says
    /// At 0, infinity and -infinity.
    double at_zero, at_infinity, at_minus_infinity;
} function;

static const function functions[] = {
    {"exp", t_loop_exp, exp, 2, 1, INFINITY, 0},
    {"log", t_loop_log, log, 2, -INFINITY, INFINITY, NAN},
    {"sin", t_loop_sin, sin_of, 2, 0, NAN, NAN},
    {"cos", t_loop_cos, cos_of, 2, 1, NAN, NAN},
    {"tanh", t_loop_tanh, tanh, 2, 0, 1, -1},
    {"erf", t_loop_erf, erf, 4, 0, 1, -1},
    {"sigmoid", t_loop_sigmoid, sigmoid_of, 2, 0.5, 1, 0},
    {"silu", t_loop_silu, silu_of, 2, 0, INFINITY, 0},
    {"gelu", t_loop_gelu, gelu_of, 5, 0, INFINITY, 0},
    {"gelu_tanh", t_loop_gelu_tanh, gelu_tanh_of, 5, 0, INFINITY, 0},
    {"softplus", t_loop_softplus, softplus_of, 2, 0.69314718055994530942, INFINITY, 0},
};
enum { N_FUNCTIONS = sizeof functions / sizeof functions[0], CHUNK = 4096, STEP = 16369 };

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

START_TEST(sweep)
{
    const function *f = &functions[_i];
    float *x = guarded_floats(CHUNK), *y = guarded_floats(CHUNK);
    double worst = 0;
    float worst_at = 0;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32;) {
        int64_t n = 0;
        for (; n < CHUNK && bits < UINT64_C(1) << 32; bits += STEP)
            x[n++] = float_of((uint32_t)bits);
        f->loop(x, y, n);
        for (int64_t i = 0; i < n; i++) {
            if (isinf(x[i]))
                continue;
            double error = ulps(f->reference((double)x[i]), y[i]);
            if (error > worst) {
                worst = error;
                worst_at = x[i];
            }
        }
    }
    ck_assert_msg(worst <= f->bound, "%s(%a) is %g ulp off", f->name, (double)worst_at, worst);
}
END_TEST

START_TEST(specials)
{
    const function *f = &functions[_i];
    const float x[] = {0.0f, INFINITY, -INFINITY, NAN, -0.0f};
    const double want[] = {f->at_zero, f->at_infinity, f->at_minus_infinity, NAN, f->at_zero};
    float y[5];
    f->loop(x, y, 5);
    for (int i = 0; i < 5; i++) {
        if (i > 0 && i < 3 && (f->loop == t_loop_sin || f->loop == t_loop_cos))
            continue; // no angle
        ck_assert_msg(ulps(want[i], y[i]) <= 1, "%s(%g) is %g, must be %g", f->name, (double)x[i],
                      (double)y[i], want[i]);
    }
    // Odd functions keep the sign of zero.
    if (f->at_zero == 0 && f->reference(1) == -f->reference(-1))
        ck_assert(signbit(y[4]) && !signbit(y[0]));
}
END_TEST

START_TEST(power)
{
    enum { N = 60000 };
    float *x = guarded_floats(N), *y = guarded_floats(N), *z = guarded_floats(N);
    for (int64_t i = 0; i < N; i++) {
        x[i] = exp2f(next_float() * 60.0f);
        y[i] = next_float() * (i % 2 ? 2.0f : 30.0f);
        if (i % 5 == 0)
            y[i] = (float)(next_below(9) - 4);
        if (i % 10 == 0)
            x[i] = -x[i];
    }
    t_loop_pow(x, y, z, N);
    for (int64_t i = 0; i < N; i++)
        ck_assert_msg(ulps(pow((double)x[i], (double)y[i]), z[i]) <= 2, "pow(%a, %a) is %a",
                      (double)x[i], (double)y[i], (double)z[i]);
    static const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 2.0f, -2.0f, 0.5f, -0.5f, 3.0f, -3.0f,
                                    INFINITY, -INFINITY, NAN, 1e30f, -1e30f};
    enum { S = sizeof special / sizeof special[0] };
    int64_t n = 0;
    for (int i = 0; i < S; i++)
        for (int j = 0; j < S; j++) {
            x[n] = special[i];
            y[n++] = special[j];
        }
    t_loop_pow(x, y, z, n);
    for (int64_t i = 0; i < n; i++) {
        double want = pow((double)x[i], (double)y[i]);
        // zeros to a negative power: the magnitude; C says which sign
        ck_assert_msg(ulps(fabs(want), fabsf(z[i])) <= 2 &&
                          (isnan(want) || want == 0 || !signbit(want) == !signbit(z[i]) || x[i] == 0),
                      "pow(%g, %g) is %g, must be %g", (double)x[i], (double)y[i], (double)z[i], want);
    }
}
END_TEST

START_TEST(bf16_and_back)
{
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 2039) {
        float x = float_of((uint32_t)bits);
        uint16_t got = pm_m_f32_to_bf16(x);
        if (isnan(x))
            ck_assert(isnan(from_bf16(got)));
        else
            ck_assert_uint_eq(got, to_bf16(x));
    }
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float x = pm_m_bf16_to_f32((uint16_t)bits);
        ck_assert(isnan(x) ? isnan(from_bf16((uint16_t)bits)) : x == from_bf16((uint16_t)bits));
        if (!isnan(x))
            ck_assert_uint_eq(pm_m_f32_to_bf16(x), bits);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("math");
    TCase *t = tcase_create("math");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, sweep, 0, N_FUNCTIONS);
    tcase_add_loop_test(t, specials, 0, N_FUNCTIONS);
    tcase_add_test(t, power);
    tcase_add_test(t, bf16_and_back);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
