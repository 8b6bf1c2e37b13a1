/* Templates of recurrences: against the ops' meaning, all tokens at once and in two calls, a sequence alone and among
 * others. */
#include <check.h>
#include <stdlib.h>

#include "tests/cuda/cu_run.h"

pm_eval_fn pm_eval_causal_conv, pm_eval_linear_attention, pm_eval_selective_scan;

static float *copy_of(const float *x, int64_t n)
{
    float *copy = guarded_floats(n);
    memcpy(copy, x, (size_t)n * 4);
    return copy;
}

/// Tokens first..first+t of [batch][all][width].
static float *tokens_of(const float *x, int64_t batch, int64_t all, int64_t first, int64_t t, int64_t width)
{
    float *part = guarded_floats(batch * t * width);
    for (int64_t b = 0; b < batch && x; b++)
        memcpy(part + b * t * width, x + (b * all + first) * width, (size_t)(t * width) * 4);
    return part;
}

/// Sequence 0 has seen something, the others nothing.
static int64_t *make_past(int64_t batch)
{
    int64_t *past = guarded(batch * 8);
    for (int64_t b = 0; b < batch; b++)
        past[b] = b == 0 ? 5 : 0;
    return past;
}

/* ---- short convolutions ------------------------------------------------------------------------------------ */

static const int64_t convs[][4] = { /* batch, t, channels, K - 1 */
    {1, 1, 1, 3}, {2, 1, 70, 3}, {1, 19, 33, 3}, {3, 2, 64, 4}, {1, 40, 5, 0}, {2, 6, 32, 7}};
enum { N_CONVS = sizeof convs / sizeof convs[0] };

static void run_conv(const int64_t *c, int64_t t, float *state, const float *x, const float *w, const float *bias,
                     const int64_t *past, float *y)
{
    RUN("pm_cu_causal_conv", c[0] * ceil_div(c[2], 32), 256, 0, at(state), at(x), at(w), at(bias), at(past), at(y),
        (uint64_t)c[0], (uint64_t)t, (uint64_t)c[2], (uint64_t)c[3]);
}

START_TEST(convolves)
{
    const int64_t *c = convs[_i], batch = c[0], t = c[1], channels = c[2], before = c[3];
    const int64_t state_dims[] = {batch, channels, before}, x_dims[] = {batch, t, channels};
    const int64_t w_dims[] = {channels, 1, before + 1};
    int64_t n = batch * t * channels, state_n = batch * channels * before, *past = make_past(batch);
    float *state = random_floats(state_n, 1.0f), *x = random_floats(n, 1.0f);
    float *w = random_floats(channels * (before + 1), 1.0f), *bias = _i % 2 ? random_floats(channels, 1.0f) : NULL;
    float *want_state = guarded_floats(state_n), *want = guarded_floats(n), *y = guarded_floats(n);
    pm_tensor in[] = {tensor(state, state_dims, 3, PM_F32), tensor(x, x_dims, 3, PM_F32),
                      tensor(w, w_dims, 3, PM_F32), tensor(bias, &channels, 1, PM_F32),
                      tensor(past, &batch, 1, PM_I64)};
    pm_tensor out[] = {tensor(want_state, state_dims, 3, PM_F32), tensor(want, x_dims, 3, PM_F32)};
    ck_assert_int_eq(pm_eval_causal_conv(&(pm_eval_args){in, 5, out, 2, NULL}), 0);
    float *got_state = copy_of(state, state_n);
    run_conv(c, t, got_state, x, w, bias, past, y);
    check_near("causal_conv", y, want, n, 2e-6);
    ck_assert(same_bits(got_state, want_state, state_n));
    if (t < 2)
        return;
    int64_t half = t / 2, later[] = {7, 7, 7};
    float *pieces = copy_of(state, state_n), *second = guarded_floats(batch * (t - half) * channels);
    run_conv(c, half, pieces, tokens_of(x, batch, t, 0, half, channels), w, bias, past, second);
    run_conv(c, t - half, pieces, tokens_of(x, batch, t, half, t - half, channels), w, bias, later, second);
    ck_assert(same_bits(pieces, want_state, state_n));
    ck_assert(same_bits(second, tokens_of(y, batch, t, half, t - half, channels), batch * (t - half) * channels));
}
END_TEST

/* ---- linear attention -------------------------------------------------------------------------------------- */

typedef struct linear {
    int64_t batch, t, heads, q_heads, k_heads, key_size, value_size, decay_kind, beta_heads, delta;
} linear;

static const linear linears[] = {
    {1, 1, 2, 2, 2, 8, 8, 0, 0, 0},    {2, 5, 4, 2, 2, 64, 40, 1, 4, 1},   {1, 9, 2, 4, 1, 37, 17, 2, 1, 1},
    {3, 2, 3, 3, 3, 128, 20, 3, 0, 0}, {1, 7, 2, 2, 1, 256, 16, 1, 0, 1}, {2, 3, 1, 4, 1, 16, 33, 2, 1, 0},
};
enum { N_LINEARS = sizeof linears / sizeof linears[0] };

typedef struct linear_data {
    float *q, *k, *v, *decay, *beta;
    int64_t *past;
} linear_data;

static int64_t decay_width(const linear *l)
{
    return l->decay_kind == 1 ? l->heads : l->decay_kind == 2 ? l->heads * l->key_size : 0;
}

static int64_t y_width(const linear *l)
{
    return (l->q_heads > l->heads ? l->q_heads : l->heads) * l->value_size;
}

static linear_data make_linear(const linear *l)
{
    int64_t rows = l->batch * l->t;
    linear_data d = {.q = random_floats(rows * l->q_heads * l->key_size, 1.0f),
                     .k = random_floats(rows * l->k_heads * l->key_size, 0.3f),
                     .v = random_floats(rows * l->heads * l->value_size, 1.0f),
                     .decay = l->decay_kind == 3 ? random_floats(l->heads, 0.5f)
                              : l->decay_kind    ? random_floats(rows * decay_width(l), 0.5f)
                                                 : NULL,
                     .beta = l->beta_heads ? random_floats(rows * l->beta_heads, 1.0f) : NULL,
                     .past = make_past(l->batch)};
    return d;
}

static linear_data linear_tokens(const linear *l, const linear_data *d, int64_t first, int64_t t)
{
    linear_data part = *d;
    part.q = tokens_of(d->q, l->batch, l->t, first, t, l->q_heads * l->key_size);
    part.k = tokens_of(d->k, l->batch, l->t, first, t, l->k_heads * l->key_size);
    part.v = tokens_of(d->v, l->batch, l->t, first, t, l->heads * l->value_size);
    if (decay_width(l))
        part.decay = tokens_of(d->decay, l->batch, l->t, first, t, decay_width(l));
    if (d->beta)
        part.beta = tokens_of(d->beta, l->batch, l->t, first, t, l->beta_heads);
    return part;
}

static void run_linear(const linear *l, const linear_data *d, int64_t t, float *state, float *y)
{
    RUN("pm_cu_linear_attention", l->batch * l->heads * ceil_div(l->value_size, 16), 128, 0, at(state), at(d->q),
        at(d->k), at(d->v), at(d->decay), at(d->beta), at(d->past), at(y), (uint64_t)l->batch, (uint64_t)t,
        (uint64_t)l->heads, (uint64_t)l->q_heads, (uint64_t)l->k_heads, (uint64_t)l->key_size,
        (uint64_t)l->value_size, (uint64_t)l->decay_kind, (uint64_t)l->beta_heads, (uint64_t)l->delta, real(0.5));
}

static void linear_reference(const linear *l, const linear_data *d, const float *state, float *out_state, float *y)
{
    const int64_t state_dims[] = {l->batch, l->heads, l->key_size, l->value_size};
    const int64_t q_dims[] = {l->batch, l->t, l->q_heads * l->key_size};
    const int64_t k_dims[] = {l->batch, l->t, l->k_heads * l->key_size};
    const int64_t v_dims[] = {l->batch, l->t, l->heads * l->value_size};
    const int64_t decay_dims[] = {l->batch, l->t, decay_width(l)}, beta_dims[] = {l->batch, l->t, l->beta_heads};
    const int64_t y_dims[] = {l->batch, l->t, y_width(l)};
    pm_tensor in[] = {tensor(state, state_dims, 4, PM_F32), tensor(d->q, q_dims, 3, PM_F32),
                      tensor(d->k, k_dims, 3, PM_F32), tensor(d->v, v_dims, 3, PM_F32),
                      l->decay_kind == 3 ? tensor(d->decay, &l->heads, 1, PM_F32)
                                         : tensor(d->decay, decay_dims, 3, PM_F32),
                      tensor(d->beta, beta_dims, 3, PM_F32), tensor(d->past, &l->batch, 1, PM_I64)};
    pm_tensor out[] = {tensor(out_state, state_dims, 4, PM_F32), tensor(y, y_dims, 3, PM_F32)};
    pm_attr_value attrs[] = {{.i = l->delta}, {.f = 0.5}};
    ck_assert_int_eq(pm_eval_linear_attention(&(pm_eval_args){in, 7, out, 2, attrs}), 0);
}

START_TEST(attends_linearly)
{
    const linear *l = &linears[_i];
    linear_data d = make_linear(l);
    int64_t n = l->batch * l->t * y_width(l), state_n = l->batch * l->heads * l->key_size * l->value_size;
    float *state = random_floats(state_n, 1.0f), *got_state = copy_of(state, state_n);
    float *want_state = guarded_floats(state_n), *want = guarded_floats(n), *y = guarded_floats(n);
    linear_reference(l, &d, state, want_state, want);
    run_linear(l, &d, l->t, got_state, y);
    check_near("linear_attention", y, want, n, 1e-5);
    check_near("its state", got_state, want_state, state_n, 1e-5);
    if (l->t < 2)
        return;
    int64_t half = l->t / 2, rest = l->t - half, later[] = {7, 7, 7};
    float *pieces = copy_of(state, state_n), *second = guarded_floats(l->batch * rest * y_width(l));
    linear_data first_part = linear_tokens(l, &d, 0, half), last_part = linear_tokens(l, &d, half, rest);
    last_part.past = later;
    run_linear(l, &first_part, half, pieces, second);
    run_linear(l, &last_part, rest, pieces, second);
    ck_assert(same_bits(pieces, got_state, state_n));
    ck_assert(same_bits(second, tokens_of(y, l->batch, l->t, half, rest, y_width(l)), l->batch * rest * y_width(l)));
}
END_TEST

/* ---- selective state spaces -------------------------------------------------------------------------------- */

static const int64_t scans[][4] = { /* batch, t, channels, size */
    {1, 1, 1, 1}, {2, 1, 70, 16}, {1, 9, 130, 16}, {3, 5, 64, 7}, {1, 4, 33, 64}};
enum { N_SCANS = sizeof scans / sizeof scans[0] };

typedef struct scan_data {
    float *x, *dt, *a, *b, *c;
} scan_data;

static void run_scan(const int64_t *c, int64_t t, const scan_data *d, const int64_t *past, float *state, float *y)
{
    RUN("pm_cu_selective_scan", c[0] * ceil_div(c[2], 64), 64, 0, at(state), at(d->x), at(d->dt), at(d->a), at(d->b),
        at(d->c), at(past), at(y), (uint64_t)c[0], (uint64_t)t, (uint64_t)c[2], (uint64_t)c[3]);
}

START_TEST(scans_states)
{
    const int64_t *c = scans[_i], batch = c[0], t = c[1], channels = c[2], size = c[3];
    const int64_t state_dims[] = {batch, channels, size}, x_dims[] = {batch, t, channels};
    const int64_t a_dims[] = {channels, size}, b_dims[] = {batch, t, size};
    int64_t n = batch * t * channels, state_n = batch * channels * size, *past = make_past(batch);
    scan_data d = {random_floats(n, 1.0f), random_floats(n, 1.0f), random_floats(channels * size, 1.0f),
                   random_floats(batch * t * size, 1.0f), random_floats(batch * t * size, 1.0f)};
    float *state = random_floats(state_n, 1.0f), *got_state = copy_of(state, state_n);
    float *want_state = guarded_floats(state_n), *want = guarded_floats(n), *y = guarded_floats(n);
    pm_tensor in[] = {tensor(state, state_dims, 3, PM_F32), tensor(d.x, x_dims, 3, PM_F32),
                      tensor(d.dt, x_dims, 3, PM_F32), tensor(d.a, a_dims, 2, PM_F32),
                      tensor(d.b, b_dims, 3, PM_F32), tensor(d.c, b_dims, 3, PM_F32),
                      tensor(past, &batch, 1, PM_I64)};
    pm_tensor out[] = {tensor(want_state, state_dims, 3, PM_F32), tensor(want, x_dims, 3, PM_F32)};
    ck_assert_int_eq(pm_eval_selective_scan(&(pm_eval_args){in, 7, out, 2, NULL}), 0);
    run_scan(c, t, &d, past, got_state, y);
    check_near("selective_scan", y, want, n, 1e-5);
    check_near("its state", got_state, want_state, state_n, 1e-5);
    if (t < 2)
        return;
    int64_t half = t / 2, rest = t - half, later[] = {7, 7, 7};
    scan_data first = {tokens_of(d.x, batch, t, 0, half, channels), tokens_of(d.dt, batch, t, 0, half, channels),
                       d.a, tokens_of(d.b, batch, t, 0, half, size), tokens_of(d.c, batch, t, 0, half, size)};
    scan_data last = {tokens_of(d.x, batch, t, half, rest, channels), tokens_of(d.dt, batch, t, half, rest, channels),
                      d.a, tokens_of(d.b, batch, t, half, rest, size), tokens_of(d.c, batch, t, half, rest, size)};
    float *pieces = copy_of(state, state_n), *second = guarded_floats(batch * rest * channels);
    run_scan(c, half, &first, past, pieces, second);
    run_scan(c, rest, &last, later, pieces, second);
    ck_assert(same_bits(pieces, got_state, state_n));
    ck_assert(same_bits(second, tokens_of(y, batch, t, half, rest, channels), batch * rest * channels));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda recurrences");
    TCase *c = tcase_create("recurrences");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, convolves, 0, N_CONVS);
    tcase_add_loop_test(c, attends_linearly, 0, N_LINEARS);
    tcase_add_loop_test(c, scans_states, 0, N_SCANS);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
