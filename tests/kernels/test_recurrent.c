/* Short convolutions, linear attention and selective scans: against their eval functions; and the same bits
 * however the tokens are cut into calls, and with any number of workers. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "tests/kernels/kernel_test.h"

pm_eval_fn pm_eval_causal_conv, pm_eval_linear_attention, pm_eval_selective_scan;

enum { MAX_IN = 7, BATCH = 2 };

typedef struct shape {
    int64_t tokens, heads, q_heads, k_heads, key_size, value_size;
    int decay, beta, delta; ///< as the kernel counts them; beta: 0 none, 1 for all, 2 per head
} shape;

/// One recurrence on random operands: the kernel and the reference take the same `in`.
typedef struct problem {
    const shape *s;
    int kind; ///< 0 convolution, 1 linear attention, 2 scan
    int64_t dims[MAX_IN + 2][4];
    float *in[MAX_IN]; ///< the first: the state; the last: i64 past
    int64_t past[BATCH];
    int64_t state_size, width; ///< of y
} problem;

static float *random_floats(int64_t n, float scale)
{
    float *x = guarded_floats(n);
    fill_random(x, n);
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale;
    return x;
}

/// Runs `t` tokens from token `at` on; y: where all tokens' rows lie.
static void run_kernel(const problem *p, float *state, int64_t at, int64_t t, const int64_t *past,
                       float *y, int64_t workers)
{
    const shape *s = p->s;
    int64_t h = s->heads, dk = s->key_size, dv = s->value_size;
    const int64_t widths[3][MAX_IN] = {
        {0, h, 0, 0},
        {0, s->q_heads * dk, s->k_heads * dk, h * dv, s->decay == 2 ? h * dk : h,
         s->beta == 1 ? 1 : h},
        {0, h, h, 0, dk, dk},
    };
    float *part[MAX_IN] = {0}, *out = guarded_floats(BATCH * t * p->width);
    for (int i = 1; i < MAX_IN - 1; i++) { // rows of these tokens, dense
        int64_t width = widths[p->kind][i];
        bool is_rows = width > 0 && !(p->kind == 1 && i == 4 && s->decay == 3);
        part[i] = p->in[i];
        if (!is_rows || !p->in[i])
            continue;
        part[i] = guarded_floats(BATCH * t * width);
        for (int64_t b = 0; b < BATCH; b++)
            memcpy(part[i] + b * t * width, p->in[i] + (b * s->tokens + at) * width,
                   (size_t)(t * width) * sizeof(float));
    }
    for (int64_t w = 0; w < workers; w++) {
        if (p->kind == 0)
            pm_k_causal_conv(state, part[1], part[2], part[3], past, out, BATCH, t, h, dk,
                             guarded(PM_K_CAUSAL_CONV_SCRATCH(dk)), w, workers);
        else if (p->kind == 1)
            pm_k_linear_attention(state, part[1], part[2], part[3], part[4], part[5], past, out,
                                  BATCH, t, h, s->q_heads, s->k_heads, dk, dv, s->decay,
                                  s->beta == 1 ? 1 : h, s->delta, 0.5f,
                                  guarded(PM_K_LINEAR_ATTENTION_SCRATCH(dk)), w, workers);
        else
            pm_k_selective_scan(state, part[1], part[2], part[3], part[4], part[5], past, out,
                                BATCH, t, h, dk, guarded(PM_K_SELECTIVE_SCAN_SCRATCH(dk)), w,
                                workers);
    }
    for (int64_t b = 0; b < BATCH; b++)
        memcpy(y + (b * s->tokens + at) * p->width, out + b * t * p->width,
               (size_t)(t * p->width) * sizeof(float));
}

static void run_reference(const problem *p, float *state, float *y)
{
    static pm_eval_fn *const functions[] = {pm_eval_causal_conv, pm_eval_linear_attention,
                                            pm_eval_selective_scan};
    static const int32_t ranks[3][MAX_IN] = {
        {3, 3, 3, 1, 1}, {4, 3, 3, 3, 3, 3, 1}, {3, 3, 3, 2, 3, 3, 1}};
    int n_in = p->kind == 0 ? 5 : 7;
    pm_tensor in[MAX_IN], out[2];
    for (int i = 0; i < n_in; i++)
        in[i] = (pm_tensor){i == n_in - 1 ? (void *)(uintptr_t)p->past : (void *)p->in[i],
                            p->dims[i], ranks[p->kind][i], i == n_in - 1 ? PM_I64 : PM_F32};
    if (p->kind == 1 && p->s->decay == 3)
        in[4].rank = 1;
    out[0] = in[0];
    out[0].data = state;
    out[1] = (pm_tensor){y, p->dims[MAX_IN], 3, PM_F32};
    pm_attr_value attrs[2] = {{.i = p->s->delta, .present = 1}, {.f = 0.5, .present = 1}};
    pm_eval_args args = {in, n_in, out, 2, attrs};
    ck_assert_int_eq(functions[p->kind](&args), 0);
}

static void set_dims(problem *p, int i, int64_t a, int64_t b, int64_t c, int64_t d)
{
    memcpy(p->dims[i], (int64_t[]){a, b, c, d}, sizeof p->dims[i]);
}

static problem make(int kind, const shape *s)
{
    problem p = {.s = s, .kind = kind, .past = {3, 0}};
    int64_t h = s->heads, dk = s->key_size, dv = s->value_size, t = s->tokens, rows = BATCH * t;
    set_dims(&p, kind == 0 ? 4 : 6, BATCH, 0, 0, 0);
    if (kind == 0) {
        p.in[1] = random_floats(rows * h, 1);
        p.in[2] = random_floats(h * (dk + 1), 1);
        p.in[3] = s->beta ? random_floats(h, 1) : NULL;
        set_dims(&p, 0, BATCH, h, dk, 0);
        set_dims(&p, 1, BATCH, t, h, 0);
        set_dims(&p, 2, h, 1, dk + 1, 0);
        set_dims(&p, 3, h, 0, 0, 0);
    } else if (kind == 1) {
        float size = 1.0f / sqrtf((float)dk);
        int64_t decays[] = {0, rows * h, rows * h * dk, h};
        p.in[1] = random_floats(rows * s->q_heads * dk, 1);
        p.in[2] = random_floats(rows * s->k_heads * dk, size);
        p.in[3] = random_floats(rows * h * dv, 1);
        p.in[4] = s->decay ? random_floats(decays[s->decay], 0.5f) : NULL;
        for (int64_t i = 0; i < decays[s->decay]; i++)
            p.in[4][i] = -fabsf(p.in[4][i]);
        p.in[5] = s->beta ? random_floats(rows * (s->beta == 1 ? 1 : h), 1) : NULL;
        set_dims(&p, 0, BATCH, h, dk, dv);
        set_dims(&p, 1, BATCH, t, s->q_heads * dk, 0);
        set_dims(&p, 2, BATCH, t, s->k_heads * dk, 0);
        set_dims(&p, 3, BATCH, t, h * dv, 0);
        set_dims(&p, 4, s->decay == 3 ? h : BATCH, t, s->decay == 2 ? h * dk : h, 0);
        set_dims(&p, 5, BATCH, t, s->beta == 1 ? 1 : h, 0);
    } else {
        const int64_t sizes[] = {0, rows * h, rows * h, h * dk, rows * dk, rows * dk};
        for (int i = 1; i < 6; i++)
            p.in[i] = random_floats(sizes[i], 1);
        for (int64_t i = 0; i < rows * h; i++)
            p.in[2][i] = fabsf(p.in[2][i]);
        for (int64_t i = 0; i < h * dk; i++)
            p.in[3][i] = -fabsf(p.in[3][i]);
        set_dims(&p, 0, BATCH, h, dk, 0);
        for (int i = 1; i < 3; i++)
            set_dims(&p, i, BATCH, t, h, 0);
        set_dims(&p, 3, h, dk, 0, 0);
        for (int i = 4; i < 6; i++)
            set_dims(&p, i, BATCH, t, dk, 0);
    }
    p.state_size = BATCH * h * dk * (kind == 1 ? dv : 1);
    p.in[0] = random_floats(p.state_size, 1);
    p.width = kind == 1 ? (s->q_heads > h ? s->q_heads : h) * dv : h;
    set_dims(&p, MAX_IN, BATCH, t, p.width, 0);
    // the second sequence begins: what its state holds must not count
    for (int64_t i = p.state_size / 2; i < p.state_size; i++)
        p.in[0][i] = NAN;
    return p;
}

static float *copy_of(const float *x, int64_t n)
{
    float *y = guarded_floats(n);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

static void expect_close(const float *got, const float *want, int64_t n)
{
    double largest = 1e-30;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)want[i]));
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)got[i] - (double)want[i]) < 4e-6 * largest,
                      "element %ld: %g, must be %g", (long)i, (double)got[i], (double)want[i]);
}

static void check_problem(int kind, const shape *s)
{
    problem p = make(kind, s);
    int64_t n = BATCH * s->tokens * p.width;
    float *want = guarded_floats(n), *want_state = guarded_floats(p.state_size);
    float *first = guarded_floats(n), *first_state = copy_of(p.in[0], p.state_size);
    run_reference(&p, want_state, want);
    run_kernel(&p, first_state, 0, s->tokens, p.past, first, 1);
    expect_close(first, want, n);
    expect_close(first_state, want_state, p.state_size);
    for (int64_t workers = 2; workers <= 4; workers++) {
        float *y = guarded_floats(n), *state = copy_of(p.in[0], p.state_size);
        run_kernel(&p, state, 0, s->tokens, p.past, y, workers);
        ck_assert(same_bits(y, first, n));
        ck_assert(same_bits(state, first_state, p.state_size));
    }
    float *y = guarded_floats(n), *state = copy_of(p.in[0], p.state_size);
    for (int64_t at = 0, step; at < s->tokens; at += step) {
        step = at == 0 && s->tokens > 3 ? s->tokens / 2 : 1;
        int64_t past[BATCH] = {p.past[0] + at, p.past[1] + at};
        run_kernel(&p, state, at, step, past, y, 1 + at % 3);
    }
    ck_assert(same_bits(y, first, n));
    ck_assert(same_bits(state, first_state, p.state_size));
}

static const shape convolutions[] = {
    {.tokens = 9, .heads = 32, .key_size = 3, .beta = 1}, {.tokens = 1, .heads = 5, .key_size = 2},
    {.tokens = 150, .heads = 19, .key_size = 3, .beta = 1}, {.tokens = 70, .heads = 16, .key_size = 66},
    {.tokens = 4, .heads = 3, .key_size = 0, .beta = 1},  {.tokens = 2, .heads = 40, .key_size = 6},
};

static const shape attentions[] = {
    {9, 4, 2, 2, 8, 8, 1, 2, 1},     {5, 2, 2, 2, 16, 32, 2, 2, 1}, {12, 3, 3, 1, 128, 128, 1, 2, 1},
    {7, 8, 1, 1, 8, 8, 1, 2, 0},     {4, 2, 6, 1, 5, 21, 3, 0, 0},  {3, 2, 2, 2, 7, 16, 0, 1, 1},
    {1, 2, 4, 2, 19, 40, 2, 1, 0},   {33, 1, 1, 1, 1, 1, 1, 0, 0},
};

static const shape scans[] = {
    {.tokens = 9, .heads = 64, .key_size = 8},  {.tokens = 40, .heads = 19, .key_size = 16},
    {.tokens = 3, .heads = 33, .key_size = 21}, {.tokens = 1, .heads = 1, .key_size = 1},
};

START_TEST(convolves)
{
    check_problem(0, &convolutions[_i]);
}
END_TEST

START_TEST(attends)
{
    check_problem(1, &attentions[_i]);
}
END_TEST

START_TEST(scans_states)
{
    check_problem(2, &scans[_i]);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("recurrent");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, convolves, 0, sizeof convolutions / sizeof *convolutions);
    tcase_add_loop_test(tc, attends, 0, sizeof attentions / sizeof *attentions);
    tcase_add_loop_test(tc, scans_states, 0, sizeof scans / sizeof *scans);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
