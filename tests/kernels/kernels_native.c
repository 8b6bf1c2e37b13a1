/* The kernel templates compiled as they would be inside a model, in one unit, with some instances whose
 * shapes are constants. */
#include "tests/kernels/kernels_native.h"

#include "codegen/kernels/k_attention.c"
#include "codegen/kernels/k_cache.c"
#include "codegen/kernels/k_linear.c"
#include "codegen/kernels/k_lowbit.c"
#include "codegen/kernels/k_math.c"
#include "codegen/kernels/k_matmul.c"
#include "codegen/kernels/k_recurrent.c"
#include "codegen/kernels/k_rope.c"
#include "codegen/kernels/k_route.c"
#include "codegen/kernels/k_sdpa.c"
#include "codegen/kernels/k_softmax.c"

#define WRAP(kind, panel, a_type, w_type)                                                          \
    WRAP_(kind, panel, a_type, w_type)
#define WRAP_(kind, panel, a_type, w_type)                                                         \
    void t_linear_##kind##_p##panel(const a_type *a, const w_type *w, int64_t m,                   \
                                    pm_k_epilogue *epilogue, void *ctx, int64_t worker,            \
                                    int64_t n_workers)                                             \
    {                                                                                              \
        pm_k_linear_##kind##_p##panel(a, w, m, T_N, T_K, epilogue, ctx, worker, n_workers);        \
    }
WRAP(f32, PM_NARROW, float, float)
WRAP(f32, PM_MIDDLE, float, float)
WRAP(f32, PM_WIDE, float, float)
WRAP(b16, PM_NARROW, float, uint16_t)
WRAP(b16, PM_MIDDLE, float, uint16_t)
WRAP(b16, PM_WIDE, float, uint16_t)
WRAP(dot, PM_NARROW, uint16_t, uint16_t)
WRAP(dot, PM_MIDDLE, uint16_t, uint16_t)
WRAP(dot, PM_WIDE, uint16_t, uint16_t)

void t_attention(const float *q, const float *key_cache, const float *value_cache,
                 const int64_t *past, float *out, int64_t batch, int64_t t, uint8_t *scratch,
                 int64_t worker, int64_t n_workers)
{
    pm_k_attention(q, key_cache, value_cache, past, NULL, out, batch, t, T_HEADS, T_KV_HEADS,
                   T_HEAD_DIM, T_HEAD_DIM, T_CAPACITY, 0.176776695f, 0, 0, 0.0f, NULL, 0, 1, scratch, worker,
                   n_workers);
}

#define LOOP(name)                                                                                 \
    void t_loop_##name(const float *x, float *y, int64_t count)                                    \
    {                                                                                              \
        for (int64_t i = 0; i < count; i++)                                                        \
            y[i] = pm_m_##name(x[i]);                                                              \
    }
LOOP(exp)
LOOP(log)
LOOP(sin)
LOOP(cos)
LOOP(tanh)
LOOP(erf)
LOOP(sigmoid)
LOOP(silu)
LOOP(gelu)
LOOP(gelu_tanh)
LOOP(softplus)

void t_loop_pow(const float *x, const float *y, float *z, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        z[i] = pm_m_pow(x[i], y[i]);
}
