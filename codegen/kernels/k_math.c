/* The math of generated loops. Polynomials were fitted by Remez' algorithm to the error that is stated
 * where it matters; tests/kernels sweeps them all against double precision. */
#include "codegen/kernels/math_inline.h"

static const float pm_nan_f = __builtin_nanf("");
static const float pm_inf_f = __builtin_inff();

PM_INLINE float step(float p, float x, float c)
{
    return __builtin_elementwise_fma(p, x, c);
}

PM_INLINE double step_d(double p, double x, double c)
{
    return __builtin_elementwise_fma(p, x, c);
}

PM_INLINE uint64_t bits_of_double(double x)
{
    union {
        double f;
        uint64_t u;
    } c = {.f = x};
    return c.u;
}

PM_INLINE double double_of(uint64_t x)
{
    union {
        uint64_t u;
        double f;
    } c = {.u = x};
    return c.f;
}

PM_KERNEL float pm_m_exp(float x)
{
    return pm_s_exp(x);
}

PM_KERNEL float pm_m_tanh(float x)
{
    return pm_s_tanh(x);
}

/// log(1 + f) + n ln 2 for f in [sqrt(1/2) - 1, sqrt(2) - 1].
PM_INLINE float log_of_parts(float f, float n)
{
    float p = 0x1.1457a4p-4f;
    p = step(p, f, -0x1.de3c12p-4f);
    p = step(p, f, 0x1.e6f06ap-4f);
    p = step(p, f, -0x1.fc2208p-4f);
    p = step(p, f, 0x1.233768p-3f);
    p = step(p, f, -0x1.555c4ep-3f);
    p = step(p, f, 0x1.99a4b6p-3f);
    p = step(p, f, -0x1.000006p-2f);
    p = step(p, f, 0x1.555548p-2f);
    float square = f * f;
    float low = __builtin_elementwise_fma(n, 0x1.7f7d1cp-20f, f * square * p);
    low = __builtin_elementwise_fma(square, -0.5f, low);
    return __builtin_elementwise_fma(n, 0x1.62e4p-1f, f + low);
}

PM_KERNEL float pm_m_log(float x)
{
    const uint32_t root_half = 0x3f3504f3;
    bool tiny = x < 0x1p-126f;
    uint32_t bits = pm_bits_of(tiny ? x * 0x1p23f : x) - root_half;
    float n = (float)((int32_t)bits >> 23) - (tiny ? 23.0f : 0.0f);
    float f = pm_float_of((bits & 0x7fffff) + root_half) - 1.0f;
    float y = log_of_parts(f, n);
    y = x == 0.0f ? -pm_inf_f : y;
    y = x < 0.0f ? pm_nan_f : y;
    return x < pm_inf_f ? y : x; /* infinity and NaN */
}

/// Sine (quarter 0) or cosine (1) of x. Reduction and series in double precision: a float's pi/2 in
/// three parts would do up to 1e5, this holds up to 2^50, where floats are 2^27 apart.
PM_INLINE float sin_from_quarter(float x, uint64_t quarter)
{
    const double magic = 0x1.8p52;
    double wide = __builtin_elementwise_abs(x) < 0x1p50f ? x : x - x;
    double shifted = __builtin_elementwise_fma(wide, 0x1.45f306dc9c883p-1, magic);
    double n = shifted - magic;
    double r = __builtin_elementwise_fma(n, -0x1.921fb54442d18p0, wide);
    r = __builtin_elementwise_fma(n, -0x1.1a62633145c07p-54, r);
    double y = r * r;
    double s = -1.0 / 39916800;
    s = step_d(s, y, 1.0 / 362880);
    s = step_d(s, y, -1.0 / 5040);
    s = step_d(s, y, 1.0 / 120);
    s = step_d(s, y, -1.0 / 6);
    s = __builtin_elementwise_fma(r * y, s, r);
    double c = 1.0 / 479001600;
    c = step_d(c, y, -1.0 / 3628800);
    c = step_d(c, y, 1.0 / 40320);
    c = step_d(c, y, -1.0 / 720);
    c = step_d(c, y, 1.0 / 24);
    c = step_d(c, y, -0.5);
    c = step_d(c, y, 1.0);
    uint64_t q = bits_of_double(shifted) + quarter;
    double result = q & 1 ? c : s;
    return (float)(q & 2 ? -result : result);
}

PM_KERNEL float pm_m_sin(float x)
{
    float y = sin_from_quarter(x, 0);
    return x == 0.0f ? x : y;
}

PM_KERNEL float pm_m_cos(float x)
{
    return sin_from_quarter(x, 1);
}

PM_KERNEL float pm_m_erf(float x)
{
    float a = __builtin_elementwise_abs(x), y = x * x;
    float p = 0x1.496a44p-14f;
    p = step(p, y, -0x1.a3f706p-11f);
    p = step(p, y, 0x1.5405b2p-8f);
    p = step(p, y, -0x1.b7f90ep-6f);
    p = step(p, y, 0x1.ce2cf8p-4f);
    p = step(p, y, -0x1.81273ep-2f);
    p = step(p, y, 0x1.20dd74p0f);
    float small = a * p;
    /* log of 1 - erf(a), for a in [0.98, 4]; 1 - erf(4) is below half an ulp of 1 */
    float b = a > 4.0f ? 4.0f : a;
    float q = -0x1.6c068cp-16f;
    q = step(q, b, 0x1.ceeaeap-12f);
    q = step(q, b, -0x1.1398fap-8f);
    q = step(q, b, 0x1.9d0bd4p-6f);
    q = step(q, b, -0x1.bc18d0p-4f);
    q = step(q, b, -0x1.4434f0p-1f);
    q = step(q, b, -0x1.212c2cp0f);
    q = step(q, b, 0x1.8b3f16p-13f);
    float large = 1.0f - pm_s_exp(q);
    return __builtin_elementwise_copysign(a < 1.0f ? small : large, x);
}

/// (n + n_low) / (1 + e), rounded about once.
PM_INLINE float over_one_plus(float n, float n_low, float e)
{
    float d = 1.0f + e, d_low = e - (d - 1.0f);
    float inverse = 1.0f / d;
    float q = n * inverse;
    float rest = __builtin_elementwise_fma(-q, d, n) + __builtin_elementwise_fma(-q, d_low, n_low);
    return __builtin_elementwise_fma(rest, inverse, q);
}

PM_KERNEL float pm_m_sigmoid(float x)
{
    float scale, a = __builtin_elementwise_abs(x);
    float part = pm_s_exp_parts(-a, 0.0f, &scale);
    float y = over_one_plus(x < 0.0f ? part : 1.0f, 0.0f, part * scale);
    /* scaled last, so that no bits are lost where e^x is smaller than any normal number */
    return y * (x < 0.0f ? scale : 1.0f);
}

PM_KERNEL float pm_m_silu(float x)
{
    float scale, a = __builtin_elementwise_abs(x);
    float part = pm_s_exp_parts(-a, 0.0f, &scale);
    float factor = x < 0.0f ? part : 1.0f;
    /* |x| beyond 2^64 would overflow in the residual; x / (1 + e) is x there, or zero below 0 */
    float bounded = x < -150.0f ? -150.0f : x;
    float n = bounded * factor;
    float y = over_one_plus(n, __builtin_elementwise_fma(bounded, factor, -n), part * scale);
    return (x < 40.0f ? y : x) * (x < 0.0f ? scale : 1.0f);
}

PM_KERNEL float pm_m_gelu(float x)
{
    float a = __builtin_elementwise_abs(x);
    a = a > 20.0f ? 20.0f : a;
    /* Near zero x (1/2 + x p(x^2)). */
    float square = a * a;
    float p = -0x1.f4b4b8p-18f;
    p = step(p, square, 0x1.d9bc6ap-14f);
    p = step(p, square, -0x1.36d862p-10f);
    p = step(p, square, 0x1.46cc3ap-7f);
    p = step(p, square, -0x1.105826p-4f);
    p = step(p, square, 0x1.988454p-2f);
    float near = x * __builtin_elementwise_fma(x, p, 0.5f);
    /* Else x minus, below zero 0 minus, a Phi(-a); Phi(-a) = e^(-a^2/2) g(a), the square in two parts;
     * g is a polynomial in 1 / (1 + 0.296875 a), for a >= 1. */
    float d = __builtin_elementwise_fma(a, 0.296875f, 1.0f);
    float d_low = __builtin_elementwise_fma(a, 0.296875f, 1.0f - d);
    float t = 1.0f / d;
    float t_low = __builtin_elementwise_fma(-t, d_low, __builtin_elementwise_fma(-t, d, 1.0f));
    /* the square's rest, and about what t's rounding error does to t g */
    float low = __builtin_elementwise_fma(a, a, -square) * -0.5f;
    low = __builtin_elementwise_fma(t_low, 1.5f, low);
    float g = 0x1.bb075cp-6f;
    g = step(g, t, -0x1.4353fep-4f);
    g = step(g, t, 0x1.6daa2p-5f);
    g = step(g, t, 0x1.111144p-6f);
    g = step(g, t, 0x1.d640ap-5f);
    g = step(g, t, 0x1.6b8482p-4f);
    g = step(g, t, 0x1.b87ad8p-4f);
    g = step(g, t, 0x1.e55a5cp-4f);
    g = step(g, t, 0x1.e51a18p-4f);
    float scale;
    float part = pm_s_exp_parts(-0.5f * square, low, &scale);
    float lost = a * t * (part * g) * scale;
    float far = (x > 0.0f ? x : 0.0f) - lost;
    return a < 1.0f ? near : far;
}

PM_KERNEL float pm_m_gelu_tanh(float x)
{
    float a = __builtin_elementwise_abs(x);
    a = a > 20.0f ? 20.0f : a;
    /* (1 + tanh(u)) / 2 = sigmoid(2u); 2u = a (c1 + c2 a^2) in two parts, for e^-2u magnifies its error */
    const float c1 = 0x1.988454p0f, c1_low = -0x1.857936p-25f;
    const float c2 = 0x1.2444f2p-4f, c2_low = 0x1.49b16ap-29f;
    float square = a * a, square_low = __builtin_elementwise_fma(a, a, -square);
    float cubic = square * c2;
    float cubic_low = __builtin_elementwise_fma(square, c2, -cubic) +
                      __builtin_elementwise_fma(square_low, c2, square * c2_low);
    float sum = cubic + c1, back = sum - cubic;
    float sum_low = (cubic - (sum - back)) + (c1 - back) + (cubic_low + c1_low);
    float u = a * sum;
    float low = __builtin_elementwise_fma(a, sum_low, __builtin_elementwise_fma(a, sum, -u));
    float scale;
    float part = pm_s_exp_parts(-u, -low, &scale);
    float n = a * part;
    float lost =
        over_one_plus(n, __builtin_elementwise_fma(a, part, -n), part * scale) * scale;
    return (x > 0.0f ? x : 0.0f) - lost;
}

PM_KERNEL float pm_m_softplus(float x)
{
    float e = pm_s_exp(-__builtin_elementwise_abs(x));
    bool upper = e > 0.41421354f;
    float y = log_of_parts(upper ? __builtin_elementwise_fma(e, 0.5f, -0.5f) : e,
                           upper ? 1.0f : 0.0f);
    return (x > 0.0f ? x : 0.0f) + y;
}

/// log2 of a >= 0, to about 2^-40.
PM_INLINE double log2_of(double a)
{
    const uint64_t root_half = 0x3fe6a09e667f3bcd;
    uint64_t bits = bits_of_double(a) - root_half;
    /* the exponent as a double without a conversion from int64, which AVX2 lacks */
    double n = double_of(((bits >> 52) ^ 0x800) | 0x4330000000000000) - (0x1p52 + 0x800);
    double m = double_of((bits & 0xfffffffffffff) + root_half);
    double s = (m - 1.0) / (m + 1.0), y = s * s;
    double p = 1.0 / 15;
    p = step_d(p, y, 1.0 / 13);
    p = step_d(p, y, 1.0 / 11);
    p = step_d(p, y, 1.0 / 9);
    p = step_d(p, y, 1.0 / 7);
    p = step_d(p, y, 1.0 / 5);
    p = step_d(p, y, 1.0 / 3);
    p = __builtin_elementwise_fma(s * y, p, s);
    double result = __builtin_elementwise_fma(p, 2 * 1.4426950408889634, n);
    result = a == 0.0 ? -(double)pm_inf_f : result;
    return a < (double)pm_inf_f ? result : a;
}

/// 2^t; t beyond 200 counts as 200.
PM_INLINE double exp2_of(double t)
{
    const double magic = 0x1.8p52;
    t = t > 200.0 ? 200.0 : t;
    t = t < -200.0 ? -200.0 : t;
    double shifted = t + magic;
    double r = (t - (shifted - magic)) * 0.6931471805599453;
    double p = 1.0 / 362880;
    p = step_d(p, r, 1.0 / 40320);
    p = step_d(p, r, 1.0 / 5040);
    p = step_d(p, r, 1.0 / 720);
    p = step_d(p, r, 1.0 / 120);
    p = step_d(p, r, 1.0 / 24);
    p = step_d(p, r, 1.0 / 6);
    p = step_d(p, r, 0.5);
    p = step_d(p, r, 1.0);
    p = step_d(p, r, 1.0);
    return p * double_of((bits_of_double(shifted) + 1023) << 52);
}

PM_KERNEL float pm_m_pow(float x, float y)
{
    float a = __builtin_elementwise_abs(x), b = __builtin_elementwise_abs(y);
    float result = (float)exp2_of((double)y * log2_of(a));
    bool whole = __builtin_elementwise_floor(b) == b;
    bool odd = whole && b < 0x1p24f && __builtin_elementwise_floor(b * 0.5f) * 2.0f != b;
    bool negative = (pm_bits_of(x) >> 31) != 0;
    result = (odd & negative) ? -result : result;
    result = ((x < 0.0f) & (a < pm_inf_f) & !whole) ? pm_nan_f : result;
    result = ((a == 1.0f) & (b == pm_inf_f)) ? 1.0f : result;
    return ((x == 1.0f) | (y == 0.0f)) ? 1.0f : result;
}

PM_KERNEL uint16_t pm_m_f32_to_bf16(float x)
{
    uint32_t bits = pm_bits_of(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

PM_KERNEL float pm_m_bf16_to_f32(uint16_t x)
{
    return pm_float_of((uint32_t)x << 16);
}

/// Extents from outside: what wraps is noted, not computed with.
PM_KERNEL int64_t pm_m_add_i64(int64_t x, int64_t y, int32_t *overflow)
{
    int64_t sum;
    *overflow |= __builtin_add_overflow(x, y, &sum);
    return sum;
}

PM_KERNEL int64_t pm_m_mul_i64(int64_t x, int64_t y, int32_t *overflow)
{
    int64_t product;
    *overflow |= __builtin_mul_overflow(x, y, &product);
    return product;
}
