/// The math that kernels use inside: pm_s_… on a float, pm_v_… on a vector.
#ifndef PM_MATH_INLINE_H
#define PM_MATH_INLINE_H

#include "codegen/kernels/vec.h"

#define PM_M(name) pm_s_##name
#define PM_M_F float
#define PM_M_U uint32_t
#define PM_M_C(x) ((float)(x))
#define PM_M_IF(c, a, b) ((c) ? (a) : (b))
#define PM_M_BITS(x) pm_bits_of(x)
#define PM_M_FLOAT(x) pm_float_of(x)
#define PM_M_HALF(x) ((uint32_t)((int32_t)(x) >> 1))
#include "codegen/kernels/math_template.h"
#undef PM_M
#undef PM_M_F
#undef PM_M_U
#undef PM_M_C
#undef PM_M_IF
#undef PM_M_BITS
#undef PM_M_FLOAT
#undef PM_M_HALF

#define PM_M(name) pm_v_##name
#define PM_M_F pm_vf
#define PM_M_U pm_vu
#define PM_M_C(x) pm_v_splat(x)
#define PM_M_IF(c, a, b) pm_v_select(c, a, b)
#define PM_M_BITS(x) (x)
#define PM_M_FLOAT(x) ((pm_vf)(x))
#define PM_M_HALF(x) ((pm_vu)((pm_vi)(x) >> 1))
#include "codegen/kernels/math_template.h"
#undef PM_M
#undef PM_M_F
#undef PM_M_U
#undef PM_M_C
#undef PM_M_IF
#undef PM_M_BITS
#undef PM_M_FLOAT
#undef PM_M_HALF

#endif
