/* Products with weights of few bits: every element must be exactly one chain of fused multiply-adds over what
 * `dequantize` says the weights are, whatever the row count, the panel, the workers. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "ir/type.h"
#include "tests/kernels/kernel_test.h"

pm_eval_fn pm_eval_dequantize;

typedef void linear_kernel(PM_K_LINEAR_ARGS(float, uint8_t), PM_K_CODES_ARGS);
typedef void grouped_kernel(PM_K_GROUPED_ARGS(float, uint8_t), PM_K_CODES_ARGS);

typedef struct variant {
    int32_t bits, floats, panel;
    linear_kernel *linear;
    grouped_kernel *grouped;
} variant;

#define V(name, bits, floats, panel)                                                                 \
    {bits, floats, panel, pm_k_linear_##name##_p##panel, pm_k_grouped_##name##_p##panel}
#define V_PANEL(panel) V(q2, 2, 0, panel), V(q4, 4, 0, panel), V(q8, 8, 0, panel), V(e2m1, 4, 1, panel), V(e4m3, 8, 1, panel)
static const variant variants[] = {
#if PM_VW == 16
    V_PANEL(16), V_PANEL(32), V_PANEL(64)
#else
    V_PANEL(8), V_PANEL(16), V_PANEL(32)
#endif
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

/// Weights [n][k]: as the op `dequantize` takes them, decoded by it, and packed.
typedef struct weights {
    pm_layout layout;
    int64_t n, k, blocks, row_bytes;
    uint8_t *codes, *zeros_packed;
    void *scales;
    float *zeros;
    float *decoded;
} weights;

static uint16_t to_f16(float x) // of numbers that need no rounding
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u >> 16 & 0x8000) | (((u >> 23 & 255) - 112) << 10) | (u >> 13 & 1023));
}

static void random_scale(weights *w, int64_t i)
{
    float f = ldexpf(1.0f + (float)next_below(64) / 64, (int)next_below(5) - 4);
    uint16_t half = w->layout.scale == PM_SCALE_F16 ? to_f16(f) : to_bf16(f);
    if (w->layout.scale == PM_SCALE_F32)
        memcpy((uint8_t *)w->scales + 4 * i, &f, 4);
    else if (w->layout.scale == PM_SCALE_E8M0)
        ((uint8_t *)w->scales)[i] = next_below(9) ? (uint8_t)(120 + next_below(12)) : 0;
    else
        memcpy((uint8_t *)w->scales + 2 * i, &half, 2);
}

static void decode(weights *w)
{
    static const int32_t scale_elems[] = {PM_F32, PM_F16, PM_BF16, PM_U8};
    int64_t code_dims[] = {w->n, w->row_bytes}, scale_dims[] = {w->n, w->blocks};
    int64_t zero_dims[] = {w->n, w->layout.zero == PM_ZERO_I8 ? (w->blocks * w->layout.bits + 7) / 8 : w->blocks};
    int64_t dims[] = {w->n, w->k};
    pm_tensor in[] = {{w->codes, code_dims, 2, PM_U8},
                      {w->scales, scale_dims, 2, scale_elems[w->layout.scale]},
                      {w->layout.zero == PM_ZERO_I8 ? (void *)w->zeros_packed : w->zeros, zero_dims, 2,
                       w->layout.zero == PM_ZERO_I8 ? PM_U8 : PM_F32}};
    pm_tensor out = {w->decoded, dims, 2, PM_F32};
    const char *format = !w->layout.floats ? "int" : w->layout.bits == 4 ? "e2m1" : "e4m3";
    pm_attr_value attrs[] = {{.i = w->k}, {.i = w->layout.bits}, {.i = w->layout.block},
                             {.s = format, .n = strlen(format)}};
    pm_eval_args args = {in, w->layout.zero ? 3 : 2, &out, 1, attrs};
    ck_assert_int_eq(pm_eval_dequantize(&args), 0);
}

static weights random_weights(pm_layout layout, int64_t n, int64_t k)
{
    weights w = {.layout = layout, .n = n, .k = k, .blocks = (k + layout.block - 1) / layout.block};
    w.row_bytes = w.blocks * layout.block * layout.bits / 8;
    int64_t packed = n * ((w.blocks * layout.bits + 7) / 8);
    w.codes = calloc((size_t)(n * w.row_bytes) + 1, 1);
    w.zeros_packed = calloc((size_t)packed + 1, 1);
    w.scales = calloc((size_t)(n * w.blocks) + 1, 4);
    w.zeros = calloc((size_t)(n * w.blocks) + 1, 4);
    w.decoded = calloc((size_t)(n * k) + 1, 4);
    for (int64_t i = 0; i < n * w.row_bytes; i++)
        w.codes[i] = (uint8_t)next_below(256);
    for (int64_t i = 0; layout.floats && layout.bits == 8 && i < n * w.row_bytes; i++)
        if ((w.codes[i] & 127) == 127) // NaN: see all_codes
            w.codes[i] ^= 1;
    for (int64_t i = 0; i < packed; i++)
        w.zeros_packed[i] = (uint8_t)next_below(256);
    for (int64_t i = 0; i < n * w.blocks; i++) {
        random_scale(&w, i);
        w.zeros[i] = (float)next_below(1 << layout.bits) + 0.5f;
    }
    decode(&w);
    return w;
}

static uint32_t field(const uint8_t *row, int64_t i, int64_t bits)
{
    return (uint32_t)row[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
}

/// As pm_layout says: element by element, from the text alone.
static void pack(const weights *w, uint8_t *out)
{
    const pm_layout *l = &w->layout;
    static const int64_t scale_sizes[] = {4, 2, 2, 1}, zero_sizes[] = {0, 1, 4};
    int64_t ss = scale_sizes[l->scale], zs = zero_sizes[l->zero], block = pm_layout_block_bytes(l);
    uint32_t middle = l->floats ? 0 : 1u << (l->bits - 1), mask = (1u << l->bits) - 1;
    memset(out, 0, (size_t)((w->n + l->panel - 1) / l->panel * pm_layout_panel_bytes(l, w->k)));
    for (int64_t r = 0; r < w->n; r++)
        for (int64_t i = 0; i < w->k; i++) {
            int64_t b = i / l->block, at = i % l->block * l->bits, column = r % l->panel;
            uint8_t *to = out + r / l->panel * pm_layout_panel_bytes(l, w->k) + b * block;
            uint8_t *words = to + l->panel * (ss + zs), *word = words + (at / 32 * l->panel + column) * 4;
            uint32_t code = (field(w->codes + r * w->row_bytes, i, l->bits) - middle) & mask;
            word[at % 32 / 8] |= (uint8_t)(code << at % 8);
            memcpy(to + column * ss, (const uint8_t *)w->scales + (r * w->blocks + b) * ss, (size_t)ss);
            int64_t row_zeros = (w->blocks * l->bits + 7) / 8;
            float f = w->zeros[r * w->blocks + b] - (float)middle;
            if (l->zero == PM_ZERO_I8)
                to[l->panel * ss + column] =
                    (uint8_t)(field(w->zeros_packed + r * row_zeros, b, l->bits) - middle);
            if (l->zero == PM_ZERO_F32)
                memcpy(to + l->panel * ss + column * 4, &f, 4);
        }
}

static void discard(weights *w)
{
    free(w->codes);
    free(w->zeros_packed);
    free(w->scales);
    free(w->zeros);
    free(w->decoded);
}

typedef struct sink {
    float *c;
    int32_t *writes;
    int64_t m, n, panel;
} sink;

static void store_tile(const float *tile, int64_t ld, int64_t row0, int64_t rows, int64_t panel_index,
                       void *ctx)
{
    sink *s = ctx;
    ck_assert(rows >= 1 && rows <= 12 && row0 >= 0 && row0 + rows <= s->m);
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
    ck_assert(expert >= 0);
    store_tile(tile, ld, row0, rows, panel_index, ctx);
}

/// Rows first .. last - 1 of c [m][n] against chains over decoded weights.
static void check_rows(const sink *s, const float *a, const weights *w, int64_t first, int64_t last)
{
    for (int64_t i = first; i < last; i++)
        for (int64_t j = 0; j < w->n; j++) {
            float sum = 0, got = s->c[i * w->n + j];
            for (int64_t k = 0; k < w->k; k++)
                sum = fmaf(a[i * w->k + k], w->decoded[j * w->k + k], sum);
            ck_assert_int_eq(s->writes[i * w->n + j], 1);
            // zeros that are floats are stored as their distance from the middle
            ck_assert_msg(memcmp(&sum, &got, 4) == 0 || (isnan(sum) && isnan(got)) ||
                              (w->layout.zero == PM_ZERO_F32 && fabsf(sum - got) <= 1e-4f * (fabsf(sum) + 1)),
                          "[%ld, %ld] is %.9g, must be %.9g", (long)i, (long)j, (double)got, (double)sum);
        }
}

static void check_linear(const variant *v, pm_layout layout, int64_t m, int64_t n, int64_t k)
{
    weights w = random_weights(layout, n, k);
    float *a = guarded_floats(m * k);
    int64_t bytes = (n + layout.panel - 1) / layout.panel * pm_layout_panel_bytes(&layout, k);
    uint8_t *packed = guarded(bytes);
    fill_random(a, m * k);
    pack(&w, packed);
    for (int64_t workers = 1; workers <= 3; workers++) {
        sink s = {calloc((size_t)(m * n) + 1, 4), calloc((size_t)(m * n) + 1, 4), m, n, layout.panel};
        for (int64_t i = 0; i < workers; i++)
            v->linear(a, packed, m, n, k, store_tile, &s, i, workers, layout.block, layout.scale,
                      layout.zero);
        check_rows(&s, a, &w, 0, m);
        free(s.c);
        free(s.writes);
    }
    discard(&w);
}

static pm_layout layout_of(const variant *v, int32_t block, int32_t scale, int32_t zero)
{
    return (pm_layout){.panel = v->panel, .pair = 1, .ways = 1, .bits = v->bits, .block = block,
                       .scale = scale, .zero = v->floats ? PM_ZERO_NONE : zero, .floats = v->floats};
}

START_TEST(row_counts)
{
    const variant *v = &variants[_i];
    for (int64_t m = 0; m <= 14; m++)
        check_linear(v, layout_of(v, 32, (int32_t)m % 4, (int32_t)m % 3), m, v->panel + 3, 80);
    check_linear(v, layout_of(v, 16, PM_SCALE_F32, PM_ZERO_I8), 1, 3 * v->panel, 33);
    check_linear(v, layout_of(v, 128, PM_SCALE_F16, PM_ZERO_NONE), 2, 5, 3);
}
END_TEST

/// Each code of 8 bits at each place of a word, NaN among them: in column j code j, times one. Few rows, and many.
START_TEST(all_codes)
{
    const variant *v = &variants[_i];
    enum { CODES = 256, WORD = 4, MANY = 20 };
    pm_layout layout = layout_of(v, WORD, PM_SCALE_F32, PM_ZERO_NONE);
    if (v->bits != 8)
        return;
    weights w = random_weights(layout, CODES, WORD);
    float *a = guarded_floats(MANY * WORD), one = 1;
    uint8_t *packed = guarded((CODES + v->panel - 1) / v->panel * pm_layout_panel_bytes(&layout, WORD));
    for (int64_t place = 0; place < WORD; place++) {
        memset(w.codes, v->floats ? 0 : 128, CODES * WORD);
        for (int64_t code = 0; code < CODES; code++) {
            w.codes[code * WORD + place] = (uint8_t)code;
            memcpy((uint8_t *)w.scales + 4 * code, &one, 4);
        }
        decode(&w);
        pack(&w, packed);
        for (int64_t i = 0; i < MANY * WORD; i++)
            a[i] = i % WORD == place;
        for (int64_t m = 1; m <= MANY; m += MANY - 1) {
            sink s = {calloc((size_t)(m * CODES), 4), calloc((size_t)(m * CODES), 4), m, CODES, layout.panel};
            v->linear(a, packed, m, CODES, WORD, store_tile, &s, 0, 1, layout.block, layout.scale, layout.zero);
            check_rows(&s, a, &w, 0, m);
            free(s.c);
            free(s.writes);
        }
    }
    discard(&w);
}
END_TEST

START_TEST(many_rows)
{
    const variant *v = &variants[_i];
    // more rows than wait in the buffer, and k beyond one decoded part; one block of all
    check_linear(v, layout_of(v, 64, PM_SCALE_BF16, PM_ZERO_I8), 150, v->panel + 1, 4096 / v->panel + 40);
    check_linear(v, layout_of(v, 1056, PM_SCALE_F32, PM_ZERO_F32), 23, v->panel, 1045);
    check_linear(v, layout_of(v, 32, PM_SCALE_E8M0, PM_ZERO_NONE), 67, 2 * v->panel, 96);
}
END_TEST

START_TEST(grouped)
{
    const variant *v = &variants[_i];
    enum { EXPERTS = 6, M = 41, K = 96 };
    static const int32_t offsets[EXPERTS + 1] = {0, 1, 1, 4, 11, 12, M};
    pm_layout layout = layout_of(v, 32, PM_SCALE_F16, PM_ZERO_I8);
    int64_t n = v->panel + 5, bytes = (n + v->panel - 1) / v->panel * pm_layout_panel_bytes(&layout, K);
    int64_t stride = bytes + 64;
    uint8_t *packed = guarded(EXPERTS * stride);
    weights w[EXPERTS];
    float *a = guarded_floats(M * K);
    fill_random(a, M * K);
    for (int64_t e = 0; e < EXPERTS; e++) {
        w[e] = random_weights(layout, n, K);
        pack(&w[e], packed + e * stride);
    }
    for (int64_t workers = 1; workers <= 4; workers++) {
        sink s = {calloc((size_t)(M * n), 4), calloc((size_t)(M * n), 4), M, n, v->panel};
        for (int64_t i = 0; i < workers; i++)
            v->grouped(a, packed, stride, offsets, EXPERTS, n, K, store_expert_tile, &s, i, workers,
                       layout.block, layout.scale, layout.zero);
        for (int64_t e = 0; e < EXPERTS; e++)
            check_rows(&s, a, &w[e], offsets[e], offsets[e + 1]);
        free(s.c);
        free(s.writes);
    }
    for (int64_t e = 0; e < EXPERTS; e++)
        discard(&w[e]);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lowbit");
    TCase *t = tcase_create("lowbit");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, row_counts, 0, N_VARIANTS);
    tcase_add_loop_test(t, all_codes, 0, N_VARIANTS);
    tcase_add_loop_test(t, many_rows, 0, N_VARIANTS);
    tcase_add_loop_test(t, grouped, 0, N_VARIANTS);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
