/// Instances of the kernel templates with constant shapes, in kernels_native.c.
#ifndef PM_KERNELS_NATIVE_H
#define PM_KERNELS_NATIVE_H

#include "codegen/kernels/kernels.h"

enum { T_N = 136, T_K = 1045, T_HEADS = 8, T_KV_HEADS = 4, T_HEAD_DIM = 32, T_CAPACITY = 208 };

#define T_DECLARE(kind, panel, a_type, w_type)                                                     \
    void t_linear_##kind##_p##panel(const a_type *a, const w_type *w, int64_t m,                   \
                                    pm_k_epilogue *epilogue, void *ctx, int64_t worker,            \
                                    int64_t n_workers);
#define T_DECLARE_PANEL(panel)                                                                     \
    T_DECLARE(f32, panel, float, float)                                                            \
    T_DECLARE(b16, panel, float, uint16_t)                                                         \
    T_DECLARE(dot, panel, uint16_t, uint16_t)
#if PM_VW == 16
T_DECLARE_PANEL(16)
T_DECLARE_PANEL(32)
T_DECLARE_PANEL(64)
#else
T_DECLARE_PANEL(8)
T_DECLARE_PANEL(16)
T_DECLARE_PANEL(32)
#endif

void t_attention(const float *q, const float *key_cache, const float *value_cache,
                 const int64_t *past, float *out, int64_t batch, int64_t t, uint8_t *scratch,
                 int64_t worker, int64_t n_workers);

#define T_LOOPS(X)                                                                                 \
    X(exp) X(log) X(sin) X(cos) X(tanh) X(erf) X(sigmoid) X(silu) X(gelu) X(gelu_tanh) X(softplus)
#define X(name) void t_loop_##name(const float *x, float *y, int64_t count);
T_LOOPS(X)
#undef X
void t_loop_pow(const float *x, const float *y, float *z, int64_t count);

#endif
