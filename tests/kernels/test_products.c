/* Products: every element must be exactly one chain of fused multiply-adds over k, whatever the row count,
 * the panel, the workers, the kernel. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/kernels_native.h"

enum { KIND_F32, KIND_B16, KIND_DOT };

typedef void linear_kernel(const void *a, const void *w, int64_t m, int64_t n, int64_t k,
                       pm_k_epilogue *epilogue, void *ctx, int64_t worker, int64_t n_workers);
typedef void grouped_kernel(const void *a, const void *w, int64_t expert_stride,
                        const int32_t *offsets, int64_t experts, int64_t n, int64_t k,
                        pm_k_expert_epilogue *epilogue, void *ctx, int64_t worker,
                        int64_t n_workers);
typedef void constant_kernel(const void *a, const void *w, int64_t m, pm_k_epilogue *epilogue,
                         void *ctx, int64_t worker, int64_t n_workers);

typedef struct variant {
    int kind;
    int64_t panel;
    linear_kernel *linear;
    grouped_kernel *grouped;
    constant_kernel *constant;
} variant;

/* The kernels differ in the types that their pointers point to, which the calling convention does not see. */
#define V(kind, name, panel)                                                                       \
    {kind, panel, (linear_kernel *)(void *)pm_k_linear_##name##_p##panel,                              \
     (grouped_kernel *)(void *)pm_k_grouped_##name##_p##panel,                                         \
     (constant_kernel *)(void *)t_linear_##name##_p##panel}
#define V_PANEL(panel) V(KIND_F32, f32, panel), V(KIND_B16, b16, panel), V(KIND_DOT, dot, panel)
static const variant variants[] = {
#if PM_VW == 16
    V_PANEL(16), V_PANEL(32), V_PANEL(64)
#else
    V_PANEL(8), V_PANEL(16), V_PANEL(32)
#endif
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

/// One chain, as the contract states it.
static float chain(int kind, const float *a, const float *w, int64_t k)
{
    float sum = 0.0f;
    if (kind != KIND_DOT) {
        for (int64_t i = 0; i < k; i++)
            sum = fmaf(a[i], kind == KIND_B16 ? from_bf16(to_bf16(w[i])) : w[i], sum);
        return sum;
    }
    for (int64_t i = 0; i < k; i += 2) {
        if (i + 1 < k)
            sum = fmaf(from_bf16(to_bf16(a[i + 1])), from_bf16(to_bf16(w[i + 1])), sum);
        sum = fmaf(from_bf16(to_bf16(a[i])), from_bf16(to_bf16(w[i])), sum);
    }
    return sum;
}

/// The epilogue's argument block: where results go, and a count of the writes of each element.
typedef struct sink {
    float *c;
    uint8_t *writes;
    int64_t m, n, panel;
    const int32_t *offsets;
    int64_t experts;
} sink;

static void store_tile(const float *tile, int64_t ld, int64_t row0, int64_t rows,
                       int64_t panel_index, void *ctx)
{
    sink *s = ctx;
    ck_assert(rows >= 1 && rows <= 12 && row0 >= 0 && row0 + rows <= s->m);
    ck_assert(panel_index >= 0 && panel_index * s->panel < s->n);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < s->panel && panel_index * s->panel + j < s->n; j++) {
            int64_t at = (row0 + r) * s->n + panel_index * s->panel + j;
            s->c[at] = tile[r * ld + j];
            s->writes[at]++;
        }
}

static void store_expert_tile(const float *tile, int64_t ld, int64_t row0, int64_t rows,
                              int64_t panel_index, int64_t expert, void *ctx)
{
    sink *s = ctx;
    ck_assert(expert >= 0 && expert < s->experts);
    ck_assert(row0 >= s->offsets[expert] && row0 + rows <= s->offsets[expert + 1]);
    store_tile(tile, ld, row0, rows, panel_index, ctx);
}

static sink sink_make(int64_t m, int64_t n, int64_t panel)
{
    sink s = {calloc((size_t)(m * n) + 1, 4), calloc((size_t)(m * n) + 1, 1), m, n, panel, NULL, 0};
    return s;
}

static void sink_check(const sink *s, const float *want)
{
    for (int64_t i = 0; i < s->m * s->n; i++) {
        ck_assert_msg(s->writes[i] == 1, "element %ld of %ldx%ld written %d times", (long)i,
                      (long)s->m, (long)s->n, s->writes[i]);
        ck_assert_msg(memcmp(&s->c[i], &want[i], 4) == 0,
                      "element [%ld, %ld] of %ldx%ld is %.9g, must be %.9g", (long)(i / s->n),
                      (long)(i % s->n), (long)s->m, (long)s->n, (double)s->c[i], (double)want[i]);
    }
    free(s->c);
    free(s->writes);
}

/// a as the kernel takes it, ending at a guard.
static void *activations(int kind, const float *a, int64_t count)
{
    if (kind != KIND_DOT)
        return memcpy(guarded_floats(count), a, (size_t)count * 4);
    uint16_t *out = guarded(count * 2);
    for (int64_t i = 0; i < count; i++)
        out[i] = to_bf16(a[i]);
    return out;
}

static void *weights(const variant *v, const float *w, int64_t n, int64_t k)
{
    if (v->kind == KIND_F32)
        return pack_f32(w, n, k, v->panel);
    return pack_bf16(w, n, k, v->panel);
}

static float *random_matrix(int64_t rows, int64_t columns)
{
    float *x = malloc((size_t)(rows * columns) * 4 + 4);
    fill_random(x, rows * columns);
    return x;
}

/// Every element of a [m][k] times w [n][k].
static float *product(int kind, const float *a, const float *w, int64_t m, int64_t n, int64_t k)
{
    float *c = malloc((size_t)(m * n) * 4 + 4);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            c[i * n + j] = chain(kind, a + i * k, w + j * k, k);
    return c;
}

static void check_linear(const variant *v, int64_t m, int64_t n, int64_t k)
{
    float *a = random_matrix(m, k), *w = random_matrix(n, k);
    float *want = product(v->kind, a, w, m, n, k);
    void *ka = activations(v->kind, a, m * k), *kw = weights(v, w, n, k);
    for (int64_t workers = 1; workers <= 3; workers++) {
        sink s = sink_make(m, n, v->panel);
        for (int64_t i = 0; i < workers; i++)
            v->linear(ka, kw, m, n, k, store_tile, &s, i, workers);
        sink_check(&s, want);
        if (n == T_N && k == T_K) {
            s = sink_make(m, n, v->panel);
            for (int64_t i = 0; i < workers; i++)
                v->constant(ka, kw, m, store_tile, &s, i, workers);
            sink_check(&s, want);
        }
    }
    free(a);
    free(w);
    free(want);
}

START_TEST(linear_row_counts)
{
    const variant *v = &variants[_i];
    for (int64_t m = 0; m <= 13; m++) {
        check_linear(v, m, 2 * v->panel + 3, 37);
        check_linear(v, m, v->panel, 16);
    }
    check_linear(v, 1, 11 * v->panel - 1, 9);
    check_linear(v, 3, 1, 1);
    check_linear(v, 2, 7, 2);
}
END_TEST

START_TEST(linear_constant_shapes)
{
    const int64_t rows[] = {1, 2, 5, 6, 67};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_linear(&variants[_i], rows[i], T_N, T_K);
}
END_TEST

START_TEST(linear_large)
{
    const variant *v = &variants[_i];
    /* more rows than wait in the buffer, and k beyond one block of every panel width and kind */
    check_linear(v, 300, v->panel + 5, 19);
    check_linear(v, 29, v->panel, 65536 / v->panel * 2 + 65536 / v->panel + 3);
}
END_TEST

static void check_grouped(const variant *v, const int32_t *rows_of, int64_t experts, int64_t n,
                          int64_t k)
{
    int32_t offsets[65] = {0};
    for (int64_t e = 0; e < experts; e++)
        offsets[e + 1] = offsets[e] + rows_of[e];
    int64_t m = offsets[experts], padded = (n + v->panel - 1) / v->panel * v->panel;
    int64_t stride = (v->kind == KIND_F32 ? k : (k + 1) / 2 * 2) * padded;
    int64_t size = v->kind == KIND_F32 ? 4 : 2;
    float *a = random_matrix(m, k), *w = random_matrix(experts * n, k);
    float *want = malloc((size_t)(m * n) * 4 + 4);
    uint8_t *kw = guarded(experts * stride * size);
    for (int64_t e = 0; e < experts; e++) {
        const float *w_expert = w + e * n * k;
        memcpy(kw + e * stride * size, weights(v, w_expert, n, k), (size_t)(stride * size));
        for (int64_t i = offsets[e]; i < offsets[e + 1]; i++)
            for (int64_t j = 0; j < n; j++)
                want[i * n + j] = chain(v->kind, a + i * k, w_expert + j * k, k);
    }
    void *ka = activations(v->kind, a, m * k);
    int32_t *guarded_offsets = guarded((experts + 1) * 4);
    memcpy(guarded_offsets, offsets, (size_t)(experts + 1) * 4);
    for (int64_t workers = 1; workers <= 3; workers++) {
        sink s = sink_make(m, n, v->panel);
        s.offsets = guarded_offsets;
        s.experts = experts;
        for (int64_t i = 0; i < workers; i++)
            v->grouped(ka, kw, stride, guarded_offsets, experts, n, k, store_expert_tile, &s, i,
                       workers);
        sink_check(&s, want);
    }
    free(a);
    free(w);
    free(want);
}

START_TEST(grouped)
{
    const variant *v = &variants[_i];
    check_grouped(v, (int32_t[]){0, 1, 0, 1, 0}, 5, 2 * v->panel, 33);
    check_grouped(v, (int32_t[]){0, 0, 0}, 3, v->panel, 8);
    check_grouped(v, (int32_t[]){1, 2, 3, 4, 5, 6, 7, 0, 13, 25}, 10, v->panel + 1, 40);
    check_grouped(v, (int32_t[]){5, 11, 1}, 3, 3 * v->panel, 17);
    check_grouped(v, (int32_t[]){70}, 1, v->panel, 21);
}
END_TEST

/// Each worker's share of single-row work on many panels must be even.
static int64_t tiles_of_worker;

static void count_tile(const float *tile, int64_t ld, int64_t row0, int64_t rows,
                       int64_t panel_index, int64_t expert, void *ctx)
{
    (void)tile, (void)ld, (void)row0, (void)rows, (void)panel_index, (void)expert, (void)ctx;
    tiles_of_worker++;
}

START_TEST(grouped_balance)
{
    const variant *v = &variants[_i];
    int32_t offsets[9] = {0, 0, 1, 1, 1, 1, 2, 2, 2};
    int64_t n = 3 * v->panel, k = 8;
    float *w = random_matrix(8 * n, k);
    void *a = activations(v->kind, w, 2 * k), *kw = weights(v, w, 8 * n, k);
    for (int64_t worker = 0; worker < 2; worker++) {
        tiles_of_worker = 0;
        v->grouped(a, kw, n * k, offsets, 8, n, k, count_tile, NULL, worker, 2);
        ck_assert_int_eq(tiles_of_worker, 3);
    }
    free(w);
}
END_TEST

static void check_matmul(int64_t batch, int64_t m, int64_t n, int64_t k, int trans_a, int trans_b,
                         bool share_b)
{
    float *a = guarded_floats(batch * m * k), *b = guarded_floats((share_b ? 1 : batch) * k * n);
    fill_random(a, batch * m * k);
    fill_random(b, (share_b ? 1 : batch) * k * n);
    uint8_t *scratch = guarded(PM_K_MATMUL_SCRATCH(k));
    for (int64_t workers = 1; workers <= 3; workers++) {
        float *c = guarded_floats(batch * m * n);
        for (int64_t i = 0; i < workers; i++)
            pm_k_matmul_f32(a, b, c, batch, m, n, k, m * k, share_b ? 0 : k * n, trans_a, trans_b,
                            scratch, i, workers);
        for (int64_t at = 0; at < batch * m * n; at++) {
            int64_t x = at / n / m, i = at / n % m, j = at % n;
            const float *bx = b + (share_b ? 0 : x * k * n);
            float sum = 0.0f;
            for (int64_t s = 0; s < k; s++)
                sum = fmaf(a[x * m * k + (trans_a ? s * m + i : i * k + s)],
                           trans_b ? bx[j * k + s] : bx[s * n + j], sum);
            ck_assert_msg(memcmp(&sum, &c[at], 4) == 0, "%ld,%ld,%ld: %g must be %g", (long)x,
                          (long)i, (long)j, (double)c[at], (double)sum);
        }
    }
}

START_TEST(matmul)
{
    for (int trans = 0; trans < 4; trans++) {
        for (int64_t m = 0; m <= 13; m++)
            check_matmul(2, m, 67, 9, trans & 1, trans >> 1, m % 2);
        check_matmul(1, 5, 64, 33, trans & 1, trans >> 1, false);
        check_matmul(3, 100, 130, 17, trans & 1, trans >> 1, true);
        check_matmul(1, 1, 1, 1, trans & 1, trans >> 1, false);
        check_matmul(2, 3, 5, 0, trans & 1, trans >> 1, false);
        check_matmul(3, 50, 8, 40, trans & 1, trans >> 1, false);
        check_matmul(2, 13, 16, 600, trans & 1, trans >> 1, true);
        check_matmul(2, 13, 17, 33, trans & 1, trans >> 1, true);
        check_matmul(4, 1, 70, 40, trans & 1, trans >> 1, false);
        check_matmul(1, 7, 70, 1100, trans & 1, trans >> 1, false);
        check_matmul(1, 2, 64, 1100, trans & 1, trans >> 1, false);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("products");
    TCase *c = tcase_create("products");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, linear_row_counts, 0, N_VARIANTS);
    tcase_add_loop_test(c, linear_constant_shapes, 0, N_VARIANTS);
    tcase_add_loop_test(c, linear_large, 0, N_VARIANTS);
    tcase_add_loop_test(c, grouped, 0, N_VARIANTS);
    tcase_add_loop_test(c, grouped_balance, 0, N_VARIANTS);
    tcase_add_test(c, matmul);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
