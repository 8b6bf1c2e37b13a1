/* Caches, attention and rotary tables: against double precision, and the same bits for prefill and decode, for
 * any batch and any number of workers. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/kernels_native.h"

typedef struct shape {
    int64_t heads, kv_heads, head_dim, capacity, window;
    float scale, softcap;
    int64_t chunk, value_dim; ///< value_dim 0: as head_dim
    const float *sinks;
} shape;

/// Caches of `batch` sequences, filled with NaN patterns where nothing was written.
typedef struct caches {
    float *keys, *values;
} caches;

static int64_t value_dim(const shape *s)
{
    return s->value_dim > 0 ? s->value_dim : s->head_dim;
}

static caches caches_make(const shape *s, int64_t batch)
{
    int64_t size = batch * s->kv_heads * s->capacity;
    return (caches){guarded_floats(size * s->head_dim), guarded_floats(size * value_dim(s))};
}

static void append(const shape *s, caches c, const float *k, const float *v, const int64_t *past,
                   int64_t batch, int64_t t, int64_t workers)
{
    for (int64_t i = 0; i < workers; i++) {
        ck_assert_int_eq(pm_k_cache_key(c.keys, k, past, batch, t, s->kv_heads, s->head_dim,
                                        s->capacity, i, workers),
                         0);
        ck_assert_int_eq(pm_k_cache_value(c.values, v, past, batch, t, s->kv_heads, value_dim(s),
                                          s->capacity, i, workers),
                         0);
    }
}

static float *attend(const shape *s, caches c, const float *q, const int64_t *past, int64_t batch,
                     int64_t t, int64_t workers)
{
    int64_t vd = value_dim(s), larger = vd > s->head_dim ? vd : s->head_dim;
    float *out = guarded_floats(batch * t * s->heads * vd);
    for (int64_t i = 0; i < workers; i++) {
        uint8_t *scratch = guarded(PM_K_ATTENTION_SCRATCH(larger));
        pm_k_attention(q, c.keys, c.values, past, s->sinks, out, batch, t, s->heads, s->kv_heads,
                       s->head_dim, vd, s->capacity, s->scale, s->window, s->chunk, s->softcap,
                       NULL, 0, 1, scratch, i, workers);
    }
    return out;
}

/// One row in double precision: q of one head, k and v of all positions of its key-value head.
static void reference_row(const shape *s, const float *q, const float *k, const float *v,
                          int64_t head, int64_t position, double *out)
{
    int64_t first = s->window > 0 && position + 1 > s->window ? position + 1 - s->window : 0;
    double sink = s->sinks ? (double)s->sinks[head] : -INFINITY;
    double *score = malloc((size_t)(position + 1) * sizeof *score), largest = sink, sum = 0;
    int64_t stride = s->kv_heads * s->head_dim, value_stride = s->kv_heads * value_dim(s);
    if (s->chunk > 0 && position / s->chunk * s->chunk > first)
        first = position / s->chunk * s->chunk;
    for (int64_t i = first; i <= position; i++) {
        double x = 0;
        for (int64_t d = 0; d < s->head_dim; d++)
            x += (double)q[d] * (double)k[i * stride + d];
        x *= (double)s->scale;
        if (s->softcap > 0)
            x = (double)s->softcap * tanh(x / (double)s->softcap);
        score[i] = x;
        largest = x > largest ? x : largest;
    }
    for (int64_t i = first; i <= position; i++)
        sum += score[i] = exp(score[i] - largest);
    sum += s->sinks ? exp(sink - largest) : 0;
    for (int64_t d = 0; d < value_dim(s); d++) {
        out[d] = 0;
        for (int64_t i = first; i <= position; i++)
            out[d] += score[i] / sum * (double)v[i * value_stride + d];
    }
    free(score);
}

/// A sequence of `total` tokens: all at once, then in the pieces given, then token by token: the same bits.
static void check_sequence(const shape *s, int64_t total, const int64_t *pieces)
{
    int64_t width = s->kv_heads * s->head_dim, q_width = s->heads * s->head_dim;
    int64_t vd = value_dim(s), v_width = s->kv_heads * vd, out_width = s->heads * vd;
    float *q = guarded_floats(total * q_width);
    float *k = guarded_floats(total * width), *v = guarded_floats(total * v_width);
    fill_random(q, total * q_width);
    fill_random(k, total * width);
    fill_random(v, total * v_width);
    for (int64_t i = 0; i < total * q_width; i++)
        q[i] *= 4.0f;
    int64_t zero = 0;
    caches whole = caches_make(s, 1);
    append(s, whole, k, v, &zero, 1, total, 2);
    float *want = attend(s, whole, q, &zero, 1, total, 1);
    double *row = malloc((size_t)vd * sizeof *row);
    for (int64_t t = 0; t < total; t += total > 100 ? 7 : 1)
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t kv = h / (s->heads / s->kv_heads);
            reference_row(s, q + t * q_width + h * s->head_dim, k + kv * s->head_dim,
                          v + kv * vd, h, t, row);
            for (int64_t d = 0; d < vd; d++) {
                double got = (double)want[t * out_width + h * vd + d];
                ck_assert_msg(fabs(got - row[d]) < 4e-6, "token %ld head %ld element %ld: %g, %g",
                              (long)t, (long)h, (long)d, got, row[d]);
            }
        }
    free(row);
    for (int64_t workers = 2; workers <= 5; workers++)
        ck_assert(same_bits(attend(s, whole, q, &zero, 1, total, workers), want, total * out_width));
    for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
        caches c = caches_make(s, 1);
        int64_t step, piece = 0;
        for (int64_t past = 0; past < total; past += step) {
            step = one_by_one || pieces[piece] == 0 ? 1 : pieces[piece++];
            append(s, c, k + past * width, v + past * v_width, &past, 1, step, 1);
            float *got = attend(s, c, q + past * q_width, &past, 1, step, 1 + past % 3);
            ck_assert_msg(same_bits(got, want + past * out_width, step * out_width),
                          "tokens %ld..%ld have other bits", (long)past, (long)(past + step));
        }
    }
}

static const float some_sinks[] = {0.5f, -3.0f, 20.0f, 1.0f, 0.0f, -1.0f, 2.0f, 3.0f};
static const shape shapes[] = {
    {8, 4, 32, 208, 0, 0.1767767f, 0.0f, 0, 0, NULL}, {4, 4, 64, 176, 0, 0.125f, 0.0f, 0, 0, NULL},
    {6, 1, 128, 96, 0, 0.0883883f, 0.0f, 0, 0, NULL}, {2, 1, 80, 80, 0, 0.1118034f, 0.0f, 0, 0, NULL},
    {3, 3, 20, 160, 0, 0.2236068f, 0.0f, 0, 0, NULL}, {8, 2, 32, 208, 70, 0.1767767f, 0.0f, 0, 0, NULL},
    {4, 2, 16, 208, 5, 0.25f, 0.0f, 0, 0, NULL},      {4, 1, 48, 208, 0, 0.1443376f, 15.0f, 0, 0, NULL},
    {5, 5, 7, 208, 64, 0.3779645f, 3.0f, 0, 0, NULL}, {2, 2, 1, 64, 1, 1.0f, 0.0f, 0, 0, NULL},
    {4, 4, 24, 208, 0, 0.2f, 0.0f, 0, 16, NULL},       {4, 2, 16, 208, 0, 0.25f, 0.0f, 70, 40, NULL},
    {8, 2, 32, 208, 0, 0.17f, 0.0f, 0, 0, some_sinks}, {8, 4, 12, 208, 5, 0.3f, 9.0f, 64, 8, some_sinks},
};

START_TEST(prefill_and_decode)
{
    const shape *s = &shapes[_i];
    int64_t total = s->capacity - _i % 3;
    check_sequence(s, total, (int64_t[]){1, 2, 3, 50, 5, 0});
    check_sequence(s, 1, (int64_t[]){0});
    check_sequence(s, 17, (int64_t[]){16, 0});
}
END_TEST

START_TEST(batch_and_constants)
{
    const shape s = {T_HEADS, T_KV_HEADS, T_HEAD_DIM, T_CAPACITY, 0, 0.176776695f, 0.0f, 0, 0, NULL};
    enum { BATCH = 5 };
    const int64_t past[BATCH] = {0, 3, 64, 190, 15};
    int64_t t = 18, width = s.kv_heads * s.head_dim, q_width = s.heads * s.head_dim;
    caches c = caches_make(&s, BATCH);
    float *k = guarded_floats(BATCH * 190 * width), *v = guarded_floats(BATCH * 190 * width);
    fill_random(k, BATCH * 190 * width);
    fill_random(v, BATCH * 190 * width);
    const int64_t zeros[BATCH] = {0};
    append(&s, c, k, v, zeros, BATCH, 190, 1);
    append(&s, c, k, v, past, BATCH, t, 3);
    float *q = guarded_floats(BATCH * t * q_width);
    fill_random(q, BATCH * t * q_width);
    float *want = attend(&s, c, q, past, BATCH, t, 1);
    for (int64_t workers = 1; workers <= 3; workers++) {
        float *got = guarded_floats(BATCH * t * q_width);
        for (int64_t i = 0; i < workers; i++)
            t_attention(q, c.keys, c.values, past, got, BATCH, t,
                        guarded(PM_K_ATTENTION_SCRATCH(T_HEAD_DIM)), i, workers);
        ck_assert(same_bits(got, want, BATCH * t * q_width));
    }
    /* each sequence alone */
    int64_t head_size = s.capacity * s.head_dim * s.kv_heads;
    for (int64_t b = 0; b < BATCH; b++) {
        caches one = {c.keys + b * head_size, c.values + b * head_size};
        float *got = attend(&s, one, q + b * t * q_width, &past[b], 1, t, 2);
        ck_assert(same_bits(got, want + b * t * q_width, t * q_width));
    }
}
END_TEST

/// An infinity or NaN in a later token must not reach an earlier one.
START_TEST(later_tokens_are_unseen)
{
    const shape s = {2, 1, 32, 32, 0, 0.2f, 0.0f, 0, 0, NULL};
    int64_t zero = 0, total = 20;
    float *q = guarded_floats(total * 64), *k = guarded_floats(total * 32);
    float *v = guarded_floats(total * 32);
    fill_random(q, total * 64);
    fill_random(k, total * 32);
    fill_random(v, total * 32);
    caches c = caches_make(&s, 1);
    append(&s, c, k, v, &zero, 1, total, 1);
    float *want = attend(&s, c, q, &zero, 1, total, 1);
    k[19 * 32] = INFINITY;
    v[19 * 32 + 5] = NAN;
    append(&s, c, k, v, &zero, 1, total, 1);
    float *got = attend(&s, c, q, &zero, 1, total, 1);
    ck_assert(same_bits(got, want, 19 * 64));
    ck_assert(isnan(got[19 * 64 + 5]));
}
END_TEST

START_TEST(cache_layout)
{
    const shape s = {2, 2, 3, 32, 0, 1.0f, 0.0f, 0, 0, NULL};
    const int64_t past[2] = {14, 0};
    float k[2 * 4 * 6], v[2 * 4 * 6];
    for (int i = 0; i < 48; i++) {
        k[i] = (float)i;
        v[i] = (float)-i;
    }
    caches c = caches_make(&s, 2);
    memset(c.keys, 0, 2 * 2 * 32 * 3 * 4);
    memset(c.values, 0, 2 * 2 * 32 * 3 * 4);
    append(&s, c, k, v, past, 2, 4, 3);
    int written = 0;
    for (int64_t b = 0; b < 2; b++)
        for (int64_t h = 0; h < 2; h++)
            for (int64_t p = 0; p < 32; p++)
                for (int64_t d = 0; d < 3; d++) {
                    int64_t t = p - past[b];
                    float want = t >= 0 && t < 4 ? (float)(((b * 4 + t) * 2 + h) * 3 + d) : 0.0f;
                    ck_assert_float_eq(
                        c.keys[(((b * 2 + h) * 2 + p / 16) * 3 + d) * 16 + p % 16], want);
                    ck_assert_float_eq(c.values[((b * 2 + h) * 32 + p) * 3 + d], -want);
                    written += want != 0.0f;
                }
    ck_assert_int_eq(written, 47);
}
END_TEST

START_TEST(cache_blocks)
{
    // Whole blocks of 16 keys are written at once; every split and every beginning must give the same bytes.
    for (int64_t head_dim = 1; head_dim <= 33; head_dim += head_dim == 1 ? 15 : 17)
        for (int64_t begin = 0; begin < 20; begin += 5) {
            enum { T = 53, HEADS = 2, CAPACITY = 80 };
            const shape s = {HEADS, HEADS, head_dim, CAPACITY, 0, 1.0f, 0.0f, 0, 0, NULL};
            const int64_t past[2] = {begin, CAPACITY - T};
            float *k = guarded_floats(2 * T * HEADS * head_dim);
            fill_random(k, 2 * T * HEADS * head_dim);
            for (int64_t workers = 1; workers <= 3; workers++) {
                caches c = caches_make(&s, 2);
                int64_t size = 2 * HEADS * CAPACITY * head_dim, written = 0;
                memset(c.keys, 0, (size_t)size * 4);
                append(&s, c, k, k, past, 2, T, workers);
                for (int64_t i = 0; i < size; i++)
                    written += c.keys[i] != 0.0f;
                ck_assert_int_eq(written, 2 * T * HEADS * head_dim);
                for (int64_t b = 0; b < 2; b++)
                    for (int64_t t = 0; t < T; t++)
                        for (int64_t h = 0; h < HEADS; h++) {
                            int64_t p = past[b] + t;
                            const float *at = c.keys + (b * HEADS + h) * CAPACITY * head_dim +
                                              p / 16 * 16 * head_dim + p % 16;
                            for (int64_t d = 0; d < head_dim; d++)
                                ck_assert(at[d * 16] ==
                                          k[((b * T + t) * HEADS + h) * head_dim + d]);
                        }
            }
        }
}
END_TEST

START_TEST(cache_refuses)
{
    const shape s = {1, 1, 4, 16, 0, 1.0f, 0.0f, 0, 0, NULL};
    float k[2 * 3 * 4] = {1}, v[2 * 3 * 4] = {1}, out[2 * 3 * 4];
    static const int64_t bad[][2] = {{0, 14}, {-1, 0}, {0, INT64_MAX}, {INT64_MIN, 0}, {17, 0}};
    caches c = caches_make(&s, 2);
    float *before = malloc(2 * 16 * 4 * 4);
    memcpy(before, c.keys, 2 * 16 * 4 * 4);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (int64_t worker = 0; worker < 2; worker++) {
            ck_assert_int_eq(
                pm_k_cache_key(c.keys, k, bad[i], 2, 3, 1, 4, 16, worker, 2), 1);
            ck_assert_int_eq(
                pm_k_cache_value(c.values, v, bad[i], 2, 3, 1, 4, 16, worker, 2), 1);
        }
        /* must not read outside the caches */
        pm_k_attention(k, c.keys, c.values, bad[i], NULL, out, 2, 3, 1, 1, 4, 4, 16, 1.0f, 0, 0, 0.0f,
                       NULL, 0, 1, guarded(PM_K_ATTENTION_SCRATCH(4)), 0, 1);
    }
    ck_assert_int_eq(memcmp(before, c.keys, 2 * 16 * 4 * 4), 0);
    ck_assert_int_eq(memcmp(before, c.values, 2 * 16 * 4 * 4), 0);
    free(before);
    ck_assert_int_eq(pm_k_cache_key(c.keys, k, (int64_t[]){13, 0}, 2, 3, 1, 4, 16, 0, 1), 0);
}
END_TEST

/// Biases by distance, and keys that all tokens see: against double precision, any workers, any pieces.
START_TEST(biased)
{
    enum { HEADS = 4, SIZE = 12, KEYS = 80, REACH = 11 };
    const bool causal = _i;
    const int64_t t = 70, seen = 71, past = causal ? 3 : seen;
    shape s = {.heads = HEADS, .kv_heads = 2, .head_dim = SIZE, .capacity = KEYS};
    caches c = caches_make(&s, 1);
    float *q = guarded_floats(t * HEADS * SIZE), *bias = guarded_floats(HEADS * REACH);
    float *k = guarded_floats(KEYS * 2 * SIZE), *v = guarded_floats(KEYS * 2 * SIZE);
    fill_random(q, t * HEADS * SIZE);
    fill_random(bias, HEADS * REACH);
    fill_random(k, KEYS * 2 * SIZE);
    fill_random(v, KEYS * 2 * SIZE);
    append(&s, c, k, v, (int64_t[]){0}, 1, causal ? past + t : seen, 1);
    float *first = guarded_floats(t * HEADS * SIZE);
    for (int64_t workers = 1; workers <= 3; workers++) {
        float *out = guarded_floats(t * HEADS * SIZE);
        for (int64_t w = 0; w < workers; w++)
            pm_k_attention(q, c.keys, c.values, &past, NULL, out, 1, t, HEADS, 2, SIZE, SIZE, KEYS,
                           0.5f, 0, 0, 0.0f, bias, REACH, causal,
                           guarded(PM_K_ATTENTION_SCRATCH(SIZE)), w, workers);
        if (workers == 1)
            memcpy(first, out, (size_t)(t * HEADS * SIZE) * sizeof *out);
        ck_assert(same_bits(out, first, t * HEADS * SIZE));
    }
    for (int64_t token = 0; token < t; token++)
        for (int64_t h = 0; h < HEADS; h++) {
            int64_t position = causal ? past + token : token, end = causal ? position + 1 : past;
            double want[SIZE] = {0}, sum = 0;
            for (int64_t i = 0; i < end; i++) {
                int64_t at = i - position + REACH / 2;
                double x = 0;
                for (int64_t d = 0; d < SIZE; d++)
                    x += (double)q[(token * HEADS + h) * SIZE + d] *
                         (double)k[(i * 2 + h / 2) * SIZE + d];
                at = at < 0 ? 0 : at >= REACH ? REACH - 1 : at;
                x = exp(0.5 * x + (double)bias[h * REACH + at]);
                sum += x;
                for (int64_t d = 0; d < SIZE; d++)
                    want[d] += x * (double)v[(i * 2 + h / 2) * SIZE + d];
            }
            for (int64_t d = 0; d < SIZE; d++) {
                double got = (double)first[(token * HEADS + h) * SIZE + d];
                ck_assert_msg(fabs(got - want[d] / sum) < 4e-6, "token %ld head %ld: %g, %g",
                              (long)token, (long)h, got, want[d] / sum);
            }
        }
}
END_TEST

START_TEST(rope_table)
{
    const int64_t past[2] = {0, 100000};
    const float inv_freq[5] = {1.0f, 0.31622776f, 0.1f, 0.001f, 0.0f};
    for (int64_t workers = 1; workers <= 3; workers++) {
        float *table = guarded_floats(2 * 7 * 10);
        for (int64_t i = 0; i < workers; i++)
            pm_k_rope_table(past, inv_freq, table, 2, 7, 5, 1.25f, i, workers);
        for (int64_t row = 0; row < 14; row++)
            for (int64_t i = 0; i < 5; i++) {
                float angle = (float)(past[row / 7] + row % 7) * inv_freq[i];
                const float *at = table + row * 10;
                ck_assert_double_eq_tol((double)at[i], 1.25 * cos((double)angle), 2e-7);
                ck_assert_double_eq_tol((double)at[5 + i], 1.25 * sin((double)angle), 2e-7);
            }
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("attention");
    TCase *c = tcase_create("attention");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, prefill_and_decode, 0, sizeof shapes / sizeof shapes[0]);
    tcase_add_test(c, batch_and_constants);
    tcase_add_test(c, later_tokens_are_unseen);
    tcase_add_test(c, cache_layout);
    tcase_add_test(c, cache_blocks);
    tcase_add_test(c, cache_refuses);
    tcase_add_loop_test(c, biased, 0, 2);
    tcase_add_test(c, rope_table);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
