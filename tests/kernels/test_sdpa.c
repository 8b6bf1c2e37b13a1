/* Attention to whole tensors and their growth: against the ops' meaning, and the same bits for any number of workers,
 * for a sequence alone and among others, for all tokens at once and one by one. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "tests/kernels/kernel_test.h"

pm_eval_fn pm_eval_sdpa, pm_eval_kv_append;

enum { NO_MASK, FLOATS, BOOLS, CAUSAL };

typedef struct shape {
    int64_t batch, t, keys, heads, kv_heads, head_dim, value_dim, apart;
    int mask;           ///< its kind
    int64_t mask_dims[4]; ///< of rank 4: 1 or the extent, and at last its keys
    int64_t left, right;
    bool past, total, sinks, nan;
    float softcap;
} shape;

static const shape shapes[] = {
    {1, 5, 5, 2, 2, 16, 16, 0, NO_MASK, {0}, -1, 0, false, false, false, false, 0},
    {2, 1, 200, 8, 2, 32, 32, 6, NO_MASK, {0}, -1, 0, true, true, false, false, 0},
    {2, 70, 131, 4, 1, 20, 12, 7, FLOATS, {2, 1, 70, 131}, -1, -1, false, false, false, false, 0},
    {2, 9, 131, 4, 2, 33, 7, 0, BOOLS, {1, 4, 9, 100}, -1, -1, false, false, false, true, 0},
    {3, 50, 90, 6, 3, 24, 48, 1, BOOLS, {3, 1, 1, 90}, -1, 0, true, false, true, false, 5.0f},
    {2, 33, 77, 4, 4, 64, 64, 2, NO_MASK, {0}, 9, 3, true, true, false, true, 0},
    {1, 100, 100, 2, 1, 128, 40, 4, FLOATS, {1, 2, 100, 60}, 20, 0, false, false, true, false, 3.0f},
    {2, 4, 1, 2, 1, 1, 1, 5, BOOLS, {2, 2, 4, 1}, -1, -1, true, false, false, false, 0},
    {1, 200, 200, 4, 2, 8, 8, 7, CAUSAL, {1, 1, 200, 200}, -1, -1, false, false, false, false, 0},
    {2, 140, 140, 2, 1, 24, 27, 0, CAUSAL, {1, 1, 140, 140}, -1, -1, false, false, true, false, 0},
    {2, 3, 0, 2, 1, 8, 8, 7, NO_MASK, {0}, -1, -1, false, false, false, false, 0},
    {0, 3, 4, 2, 1, 8, 8, 7, NO_MASK, {0}, -1, -1, false, false, false, false, 0},
    {1, 0, 4, 2, 1, 8, 8, 7, NO_MASK, {0}, -1, -1, false, false, false, false, 0},
};

typedef struct operands {
    float *q, *k, *v, *sinks;
    void *mask;
    int64_t *past, *total;
} operands;

static int64_t mask_count(const shape *s)
{
    return s->mask_dims[0] * s->mask_dims[1] * s->mask_dims[2] * s->mask_dims[3];
}

static float *random_floats(int64_t n, float scale)
{
    float *x = guarded_floats(n);
    fill_random(x, n);
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale;
    return x;
}

/// A mask in which every third row sees nothing, or only what the lowest number is added to.
static void *make_mask(const shape *s)
{
    int64_t n = mask_count(s), row = s->mask_dims[3];
    if (s->mask == BOOLS) {
        uint8_t *bools = guarded(n);
        for (int64_t i = 0; i < n; i++)
            bools[i] = i / row % 3 == 2 ? 0 : next_below(3) != 0;
        return bools;
    }
    float *floats = random_floats(n, 3.0f);
    for (int64_t i = 0; i < n && s->mask == CAUSAL; i++) // whole blocks that count for nothing
        floats[i] = i % row <= i / row % s->t ? floats[i] : -0x1.fffffep127f;
    for (int64_t i = 0; i < n && s->mask == FLOATS; i++) {
        int64_t what = next_below(4);
        if (i / row % 3 == 2)
            floats[i] = i / row % 2 ? -INFINITY : -0x1.fffffep127f;
        else if (what < 2)
            floats[i] = what ? -INFINITY : -0x1.fffffep127f;
    }
    return floats;
}

static operands make_operands(const shape *s)
{
    operands o = {.q = random_floats(s->batch * s->t * s->heads * s->head_dim, 3.0f),
                  .k = random_floats(s->batch * s->keys * s->kv_heads * s->head_dim, 1.0f),
                  .v = random_floats(s->batch * s->keys * s->kv_heads * s->value_dim, 1.0f),
                  .sinks = s->sinks ? random_floats(s->heads, 4.0f) : NULL,
                  .mask = s->mask == NO_MASK ? NULL : make_mask(s),
                  .past = s->past ? guarded(s->batch * 8) : NULL,
                  .total = s->total ? guarded(s->batch * 8) : NULL};
    for (int64_t b = 0; b < s->batch; b++) {
        if (o.past)
            o.past[b] = next_below(s->keys + 1) - (b == 1 ? 3 : 0);
        if (o.total)
            o.total[b] = s->keys - next_below(s->keys / 2 + 1);
    }
    return o;
}

static pm_tensor rows_tensor(const float *data, int64_t *dims, const shape *s, int64_t heads, int64_t t,
                             int64_t size, bool apart)
{
    int64_t is_apart[] = {s->batch, heads, t, size}, is_joined[] = {s->batch, t, heads * size};
    memcpy(dims, apart ? is_apart : is_joined, (apart ? 4 : 3) * sizeof *dims);
    return (pm_tensor){(void *)(uintptr_t)data, dims, apart ? 4 : 3, PM_F32};
}

/// What the op means. Data of nothing isn't NULL there, for that is an operand that is absent.
static void reference(const shape *s, const operands *o, float *out)
{
    int64_t dims[4][4];
    pm_tensor in[7] = {
        rows_tensor(o->q, dims[0], s, s->heads, s->t, s->head_dim, s->apart & 1),
        rows_tensor(o->k, dims[1], s, s->kv_heads, s->keys, s->head_dim, s->apart & 2),
        rows_tensor(o->v, dims[2], s, s->kv_heads, s->keys, s->value_dim, s->apart & 4),
        {o->mask, s->mask_dims, 4, s->mask == BOOLS ? PM_BOOL : PM_F32},
        {o->past, &s->batch, 1, PM_I64}, {o->total, &s->batch, 1, PM_I64}, {o->sinks, &s->heads, 1, PM_F32}};
    pm_tensor result = rows_tensor(out, dims[3], s, s->heads, s->t, s->value_dim, s->apart & 1);
    pm_attr_value attrs[7] = {{.i = s->heads}, {.i = s->kv_heads}, {.f = 0.25}, {.i = s->left}, {.i = s->right},
                              {.f = (double)s->softcap}, {.s = s->nan ? "nan" : "zero"}};
    pm_eval_args args = {in, 7, &result, 1, attrs};
    ck_assert_int_eq(pm_eval_sdpa(&args), 0);
}

/// Tokens first..first+t of all sequences, in a shape where tokens come before heads or there is one sequence and head.
static void run(const shape *s, const operands *o, const float *q, const int64_t *past, int64_t t, int64_t batch,
                float *out, int64_t workers)
{
    int64_t larger = s->head_dim > s->value_dim ? s->head_dim : s->value_dim, steps[3] = {0}, stride = 1;
    for (int i = 2; i >= 0; i--) {
        stride *= s->mask_dims[i + 1];
        steps[i] = s->mask_dims[i] == 1 ? 0 : stride;
    }
    for (int64_t w = 0; w < workers; w++)
        ck_assert_int_eq(pm_k_sdpa(q, o->k, o->v, o->mask, past, o->total, o->sinks, out, batch, t, s->keys, s->heads,
                                   s->kv_heads, s->head_dim, s->value_dim, s->apart, s->mask_dims[3],
                                   s->mask == BOOLS, steps[0], steps[1], steps[2], 1, 1, 0.25f, s->left,
                                   s->right, s->softcap, s->nan ? NAN : 0.0f,
                                   guarded(PM_K_SDPA_SCRATCH(larger)), w, workers),
                         0);
}

START_TEST(agrees)
{
    const shape *s = &shapes[_i];
    operands o = make_operands(s);
    int64_t n = s->batch * s->t * s->heads * s->value_dim;
    float *want = guarded_floats(n), *first = guarded_floats(n);
    reference(s, &o, want);
    run(s, &o, o.q, o.past, s->t, s->batch, first, 1);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(isnan(want[i]) ? isnan(first[i]) : fabsf(first[i] - want[i]) < 4e-6f,
                      "element %ld: %g, %g", (long)i, (double)first[i], (double)want[i]);
    for (int64_t workers = 2; workers <= 5; workers++) {
        float *got = guarded_floats(n);
        run(s, &o, o.q, o.past, s->t, s->batch, got, workers);
        for (int64_t i = 0; i < n; i++) // bits; a NaN is one whatever its bits
            ck_assert(memcmp(&got[i], &first[i], 4) == 0 || (isnan(got[i]) && isnan(first[i])));
    }
}
END_TEST

/// Sequences alone, and tokens one by one: the same bits as all at once.
START_TEST(same_bits_in_parts)
{
    const shape s = {3, 40, 150, 4, 2, 24, 16, 0, NO_MASK, {0}, 60, 0, true, false, true, false, 0};
    operands o = make_operands(&s);
    const int64_t past[3] = {110, 0, 64};
    int64_t q_row = s.heads * s.head_dim, out_row = s.heads * s.value_dim;
    float *want = guarded_floats(s.batch * s.t * out_row), *got = guarded_floats(s.t * out_row);
    run(&s, &o, o.q, past, s.t, s.batch, want, 2);
    for (int64_t b = 0; b < s.batch; b++) {
        operands one = o;
        one.k = o.k + b * s.keys * s.kv_heads * s.head_dim;
        one.v = o.v + b * s.keys * s.kv_heads * s.value_dim;
        run(&s, &one, o.q + b * s.t * q_row, past + b, s.t, 1, got, 3);
        ck_assert(same_bits(got, want + b * s.t * out_row, s.t * out_row));
        for (int64_t t = 0; t < s.t; t++) {
            int64_t at = past[b] + t;
            run(&s, &one, o.q + (b * s.t + t) * q_row, &at, 1, 1, got, 1);
            ck_assert(same_bits(got, want + (b * s.t + t) * out_row, out_row));
        }
    }
}
END_TEST

START_TEST(refuses)
{
    float q[8] = {0}, kv[32] = {0}, out[8];
    const int64_t far = INT64_MAX, negative = -1, five = 5;
    const struct {
        const int64_t *past, *total;
        int64_t masked;
    } bad[] = {{&far, NULL, 0}, {NULL, &negative, 0}, {NULL, &five, 0}, {NULL, NULL, 5}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_int_eq(pm_k_sdpa(q, kv, kv, bad[i].masked ? kv : NULL, bad[i].past, bad[i].total, NULL, out, 1, 1, 4, 1,
                                   1, 8, 8, 7, bad[i].masked, 0, 0, 0, 0, 0, 0, 1.0f, -1, -1, 0.0f, 0.0f,
                                   guarded(PM_K_SDPA_SCRATCH(8)), 0, 1), 1);
}
END_TEST

START_TEST(grows)
{
    static const struct {
        int64_t batch, t, heads, size, before, length, at[2];
        bool apart;
    } cases[] = {{2, 3, 2, 5, 4, 7, {4, 1}, false}, {2, 3, 2, 16, 9, 9, {0, 6}, true}, {1, 2, 1, 3, 2, 9, {5}, true},
                 {2, 1, 3, 40, 70, 71, {70, 3}, false}, {1, 4, 2, 8, 0, 4, {0}, true}, {1, 0, 2, 8, 4, 6, {6}, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t batch = cases[i].batch, heads = cases[i].heads, t = cases[i].t, size = cases[i].size;
        int64_t n = batch * heads * cases[i].length * size;
        float *rows = random_floats(batch * t * heads * size, 1.0f), *want = guarded_floats(n);
        float *past = random_floats(batch * heads * cases[i].before * size, 1.0f);
        const int64_t apart[] = {batch, heads, t, size}, joined[] = {batch, t, heads * size}, one = 1;
        const int64_t past_dims[] = {batch, heads, cases[i].before, size}, dims[] = {batch, heads, cases[i].length, size};
        pm_tensor in[] = {{rows, cases[i].apart ? apart : joined, cases[i].apart ? 4 : 3, PM_F32},
                          {(void *)(uintptr_t)cases[i].at, &batch, 1, PM_I64},
                          {(void *)(uintptr_t)&cases[i].length, &one, 1, PM_I64}, {past, past_dims, 4, PM_F32}};
        pm_tensor out = {want, dims, 4, PM_F32};
        pm_eval_args args = {in, 4, &out, 1, NULL};
        ck_assert_int_eq(pm_eval_kv_append(&args), 0);
        for (int64_t workers = 1; workers <= 4; workers++) {
            float *got = guarded_floats(n);
            for (int64_t w = 0; w < workers; w++)
                ck_assert_int_eq(pm_k_kv_append(rows, cases[i].at, 1, past, got, batch, t, heads, size, cases[i].before,
                                                cases[i].length, cases[i].apart, w, workers), 0);
            ck_assert(same_bits(got, want, n));
        }
    }
    float x[4] = {1}, out[8] = {5};
    for (int64_t at = -1; at < 9; at += 4)
        ck_assert_int_eq(pm_k_kv_append(x, &at, 0, NULL, out, 1, 2, 1, 2, 0, 4, 1, 0, 1), 1);
    ck_assert(out[0] == 5);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("sdpa");
    TCase *tests = tcase_create("sdpa");
    tcase_add_loop_test(tests, agrees, 0, sizeof shapes / sizeof shapes[0]);
    tcase_add_test(tests, same_bits_in_parts);
    tcase_add_test(tests, refuses);
    tcase_add_test(tests, grows);
    suite_add_tcase(s, tests);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
