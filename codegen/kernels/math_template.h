/* Exponential and hyperbolic tangent, for floats and for vectors of them. Included once for each:
 *   PM_M(name)          name of a function of this instance
 *   PM_M_F, PM_M_U      float and uint32_t, or vectors of them
 *   PM_M_C(x)           x in every lane
 *   PM_M_IF(c, a, b)    lane by lane
 *
 * Branch-free. A NaN passes through: comparisons with it are false, and no conversion to an integer
 * type (undefined for it) is used: adding 1.5 * 2^23 rounds and leaves the integer in the low bits.
 */

PM_INLINE PM_M_F PM_M(poly_step)(PM_M_F p, PM_M_F x, float c)
{
    return __builtin_elementwise_fma(p, x, PM_M_C(c));
}

/// e^(x + low) = result * *out_scale, for x up to 89; x below -150 counts as -150. The result is a normal
/// number, and scale may be too small to be one only after the caller has multiplied: so no bits are lost.
PM_INLINE PM_M_F PM_M(exp_parts)(PM_M_F x, PM_M_F low, PM_M_F *out_scale)
{
    const PM_M_F magic = PM_M_C(0x1.8p23f);
    x = PM_M_IF(x > 89.0f, PM_M_C(89.0f), x);
    x = PM_M_IF(x < -150.0f, PM_M_C(-150.0f), x);
    PM_M_F shifted = __builtin_elementwise_fma(x, PM_M_C(0x1.715476p0f), magic);
    PM_M_F n = shifted - magic;
    /* ln 2 in two parts, the first short enough for an exact product */
    PM_M_F r = __builtin_elementwise_fma(n, PM_M_C(-0x1.62e4p-1f), x);
    r = __builtin_elementwise_fma(n, PM_M_C(-0x1.7f7d1cp-20f), r) + low;
    PM_M_F p = PM_M_C(0x1.6a2268p-10f);
    p = PM_M(poly_step)(p, r, 0x1.123b02p-7f);
    p = PM_M(poly_step)(p, r, 0x1.5558f8p-5f);
    p = PM_M(poly_step)(p, r, 0x1.555490p-3f);
    p = PM_M(poly_step)(p, r, 0x1.fffffcp-2f);
    p = __builtin_elementwise_fma(r * r, p, r) + 1.0f;
    PM_M_U bits = (PM_M_U)PM_M_BITS(shifted);
    /* n = half + rest; each half is the exponent of a normal number */
    PM_M_U half = PM_M_HALF(bits - 0x4b400000u);
    PM_M_U rest = bits - 0x4b400000u - half;
    *out_scale = PM_M_FLOAT((rest + 127u) << 23);
    return p * PM_M_FLOAT((half + 127u) << 23);
}

PM_INLINE PM_M_F PM_M(exp)(PM_M_F x)
{
    PM_M_F scale;
    PM_M_F p = PM_M(exp_parts)(x, PM_M_C(0.0f), &scale);
    return p * scale;
}

PM_INLINE PM_M_F PM_M(tanh)(PM_M_F x)
{
    PM_M_F a = __builtin_elementwise_abs(x), y = x * x;
    PM_M_F p = PM_M_C(-0x1.9b3036p-8f);
    p = PM_M(poly_step)(p, y, 0x1.593d04p-6f);
    p = PM_M(poly_step)(p, y, -0x1.b9287ap-5f);
    p = PM_M(poly_step)(p, y, 0x1.110d26p-3f);
    p = PM_M(poly_step)(p, y, -0x1.55554ap-2f);
    PM_M_F small = __builtin_elementwise_fma(a * y, p, a);
    PM_M_F large = 1.0f - 2.0f / (PM_M(exp)(a + a) + 1.0f);
    return __builtin_elementwise_copysign(PM_M_IF(a < 0.55f, small, large), x);
}
