/* Templates of rows, caches, routing: against the ops' meaning. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "tests/cuda/cu_run.h"

pm_eval_fn pm_eval_rms_norm, pm_eval_layer_norm, pm_eval_softmax, pm_eval_gather_rows, pm_eval_combine;
pm_eval_fn pm_eval_rope_table, pm_eval_rope, pm_eval_cache_key, pm_eval_cache_value, pm_eval_kv_append;
pm_eval_fn pm_eval_route, pm_eval_expert_order, pm_eval_gather;

static const int64_t row_shapes[][2] = {{1, 1}, {1, 31}, {3, 32}, {9, 100}, {2, 1000}, {17, 7}, {1, 4097}};
enum { N_ROW_SHAPES = sizeof row_shapes / sizeof row_shapes[0] };

START_TEST(norms)
{
    const int64_t *dims = row_shapes[_i], rows = dims[0], n = dims[1];
    float *x = random_floats(rows * n, 4.0f), *scale = random_floats(n, 2.0f), *bias = random_floats(n, 1.0f);
    float *want = guarded_floats(rows * n), *got = guarded_floats(rows * n), *short_got = guarded_floats(rows * n);
    pm_attr_value eps = {.f = 1e-5};
    for (int centred = 0; centred < 2; centred++) {
        pm_tensor in[] = {tensor(x, dims, 2, PM_F32), tensor(scale, &n, 1, PM_F32), tensor(bias, &n, 1, PM_F32)};
        pm_tensor out = tensor(want, dims, 2, PM_F32);
        pm_eval_args args = {in, centred ? 3 : 2, &out, 1, &eps};
        ck_assert_int_eq(centred ? pm_eval_layer_norm(&args) : pm_eval_rms_norm(&args), 0);
        const uint64_t words[] = {at(x), at(scale), centred ? at(bias) : 0, at(got), (uint64_t)rows, (uint64_t)n,
                                  real(1e-5), (uint64_t)centred};
        cu_run("pm_cu_norm", rows, 256, 0, words, 8);
        check_near("norm", got, want, rows * n, 3e-6);
        RUN("pm_cu_norm_short", ceil_div(rows, 8), 256, 0, at(x), at(scale), centred ? at(bias) : 0, at(short_got),
            (uint64_t)rows, (uint64_t)n, real(1e-5), (uint64_t)centred);
        check_near("short norm", short_got, want, rows * n, 3e-6);
    }
}
END_TEST

START_TEST(softmaxes)
{
    const int64_t *dims = row_shapes[_i], rows = dims[0], n = dims[1];
    float *x = random_floats(rows * n, 20.0f);
    float *want = guarded_floats(rows * n), *got = guarded_floats(rows * n);
    if (n > 2)
        x[n / 2] = -INFINITY;
    for (int is_log = 0; is_log < 2; is_log++) {
        pm_tensor in = tensor(x, dims, 2, PM_F32), out = tensor(want, dims, 2, PM_F32);
        pm_attr_value attrs[] = {{.i = -1}, {.i = is_log}};
        pm_eval_args args = {&in, 1, &out, 1, attrs};
        ck_assert_int_eq(pm_eval_softmax(&args), 0);
        RUN("pm_cu_softmax", rows, 256, 0, at(x), at(got), (uint64_t)rows, (uint64_t)n, (uint64_t)is_log);
        check_near("softmax", got, want, rows * n, 3e-6);
        memset(got, 0xff, (size_t)(rows * n) * 4);
        RUN("pm_cu_softmax_short", ceil_div(rows, 8), 256, 0, at(x), at(got), (uint64_t)rows, (uint64_t)n,
            (uint64_t)is_log);
        check_near("short softmax", got, want, rows * n, 3e-6);
    }
}
END_TEST

START_TEST(gathers_and_combines)
{
    const int64_t *dims = row_shapes[_i], m = dims[0], n = dims[1], k = m % 3 + 1, rows = m * k;
    const int64_t slot_dims[] = {m, k}, y_dims[] = {rows, n};
    float *x = random_floats(m * n, 1.0f), *y = guarded_floats(rows * n), *want = guarded_floats(rows * n);
    float *weight = random_floats(rows, 1.0f), *out = guarded_floats(m * n);
    int32_t *token = guarded(rows * 4), *slot = guarded(rows * 4), status = 0;
    for (int64_t i = 0; i < rows; i++) {
        token[i] = (int32_t)next_below(m);
        slot[i] = (int32_t)next_below(rows);
    }
    pm_tensor in[] = {tensor(x, dims, 2, PM_F32), tensor(token, &rows, 1, PM_I32)};
    pm_tensor gathered = tensor(want, y_dims, 2, PM_F32);
    ck_assert_int_eq(pm_eval_gather_rows(&(pm_eval_args){in, 2, &gathered, 1, NULL}), 0);
    RUN("pm_cu_gather_rows", rows, 256, 0, at(x), at(token), at(y), (uint64_t)rows, (uint64_t)n, (uint64_t)m,
        at(&status), 6);
    ck_assert(same_bits(y, want, rows * n));
    pm_tensor of[] = {tensor(y, y_dims, 2, PM_F32), tensor(slot, slot_dims, 2, PM_I32),
                      tensor(weight, slot_dims, 2, PM_F32)};
    pm_tensor combined = tensor(want, dims, 2, PM_F32);
    ck_assert_int_eq(pm_eval_combine(&(pm_eval_args){of, 3, &combined, 1, NULL}), 0);
    RUN("pm_cu_combine", m * ceil_div(n, 256), 256, 0, at(y), at(slot), at(weight), at(out), (uint64_t)m,
        (uint64_t)k, (uint64_t)n, (uint64_t)rows, at(&status), 6);
    check_near("combine", out, want, m * n, 1e-6);
    ck_assert_int_eq(status, 0);
    token[rows - 1] = (int32_t)m;
    RUN("pm_cu_gather_rows", rows, 256, 0, at(x), at(token), at(y), (uint64_t)rows, (uint64_t)n, (uint64_t)m,
        at(&status), 6);
    ck_assert_int_eq(status, 6);
    status = 0;
    slot[rows - 1] = -1;
    RUN("pm_cu_combine", m * ceil_div(n, 256), 256, 0, at(y), at(slot), at(weight), at(out), (uint64_t)m,
        (uint64_t)k, (uint64_t)n, (uint64_t)rows, at(&status), 8);
    ck_assert_int_eq(status, 8);
}
END_TEST

/* ---- moves ------------------------------------------------------------------------------------------------ */

/// Every second row's middle columns of two matrices, into the middle of a wider one; pieces of all sizes.
START_TEST(copies)
{
    const int64_t piece = (int64_t)1 << _i, n[] = {1, 2, 3, 1, 5}, x_strides[] = {0, 70, 20, 0, 1};
    const int64_t y_strides[] = {0, 40, 11, 0, 2}, x_first = 12, y_first = 3;
    uint8_t *x = guarded(140 * piece), *y = guarded(80 * piece), *want = guarded(80 * piece);
    for (int64_t i = 0; i < 140 * piece; i++)
        x[i] = (uint8_t)next_below(256);
    memset(y, 7, (size_t)(80 * piece));
    memset(want, 7, (size_t)(80 * piece));
    for (int64_t a = 0; a < n[1]; a++)
        for (int64_t b = 0; b < n[2]; b++)
            for (int64_t c = 0; c < n[4]; c++)
                memcpy(want + (y_first + a * 40 + b * 11 + c * 2) * piece, x + (x_first + a * 70 + b * 20 + c) * piece,
                       (size_t)piece);
    uint64_t words[20] = {at(x), at(y), (uint64_t)piece, (uint64_t)x_first, (uint64_t)y_first};
    for (int i = 0; i < 5; i++) {
        words[5 + i] = (uint64_t)n[i];
        words[10 + i] = (uint64_t)x_strides[i];
        words[15 + i] = (uint64_t)y_strides[i];
    }
    cu_run("pm_cu_copy", 1, 256, 0, words, 20);
    ck_assert_mem_eq(y, want, (size_t)(80 * piece));
}
END_TEST

START_TEST(gathers_behind_an_axis)
{
    static const int64_t shapes[][4] = {{1, 5, 1, 3}, {2, 7, 33, 4}, {3, 1, 130, 1}, {1, 9, 64, 0}};
    const int64_t *s = shapes[_i], outer = s[0], extent = s[1], inner = s[2], n = s[3], axis = 1;
    const int64_t dims[] = {outer, extent, inner}, out_dims[] = {outer, n, inner};
    float *x = random_floats(outer * extent * inner, 1.0f), *y = guarded_floats(outer * n * inner);
    float *want = guarded_floats(outer * n * inner);
    int64_t *indices = guarded(n * 8);
    int32_t *narrow = guarded(n * 4), status = 0;
    for (int64_t i = 0; i < n; i++)
        narrow[i] = (int32_t)(indices[i] = next_below(2 * extent) - extent);
    pm_tensor in[] = {tensor(x, dims, 3, PM_F32), tensor(indices, &n, 1, PM_I64)}, out = tensor(want, out_dims, 3, PM_F32);
    pm_attr_value attr = {.i = axis};
    ck_assert_int_eq(pm_eval_gather(&(pm_eval_args){in, 2, &out, 1, &attr}), 0);
    for (uint64_t is_long = 0; is_long < 2; is_long++) {
        memset(y, 0xff, (size_t)(outer * n * inner) * 4);
        RUN("pm_cu_gather", ceil_div(outer * n * inner, 256), 256, 0, at(x), is_long ? at(indices) : at(narrow), at(y), 4,
            (uint64_t)outer, (uint64_t)extent, (uint64_t)inner, (uint64_t)n, is_long, at(&status), 9);
        ck_assert(same_bits(y, want, outer * n * inner));
        ck_assert_int_eq(status, 0);
    }
    if (n == 0)
        return;
    indices[n - 1] = extent;
    RUN("pm_cu_gather", ceil_div(outer * n * inner, 256), 256, 0, at(x), at(indices), at(y), 4, (uint64_t)outer,
        (uint64_t)extent, (uint64_t)inner, (uint64_t)n, 1, at(&status), 9);
    ck_assert_int_eq(status, 9);
    ck_assert_float_eq(y[n * inner - 1], 0.0f);
}
END_TEST

/* ---- rope and caches ------------------------------------------------------------------------------------- */

typedef struct rotation {
    int64_t batch, t, heads, head_dim, half, offset, interleaved;
} rotation;

static const rotation rotations[] = {{1, 1, 2, 8, 4, 0, 0},   {2, 3, 3, 64, 16, 8, 0}, {1, 5, 1, 10, 3, 2, 1},
                                     {2, 7, 4, 128, 64, 0, 1}, {1, 300, 2, 6, 1, 0, 0}};
enum { N_ROTATIONS = sizeof rotations / sizeof rotations[0] };

START_TEST(rotates)
{
    rotation r = rotations[_i];
    int64_t rows = r.batch * r.t, n = rows * r.heads * r.head_dim, table_n = rows * 2 * r.half;
    const int64_t table_dims[] = {r.batch, r.t, 2 * r.half}, dims[] = {r.batch, r.t, r.heads * r.head_dim};
    int64_t *past = guarded(r.batch * 8);
    float *inv_freq = guarded_floats(r.half), *x = random_floats(n, 1.0f);
    float *table = guarded_floats(table_n), *want_table = guarded_floats(table_n);
    float *out = guarded_floats(n), *want = guarded_floats(n);
    for (int64_t b = 0; b < r.batch; b++)
        past[b] = next_below(5000);
    for (int64_t i = 0; i < r.half; i++)
        inv_freq[i] = (float)pow(10000, -(double)i / (double)r.half);
    pm_attr_value scale = {.f = 1.25};
    pm_tensor in[] = {tensor(past, &r.batch, 1, PM_I64), tensor(inv_freq, &r.half, 1, PM_F32)};
    pm_tensor made = tensor(want_table, table_dims, 3, PM_F32);
    ck_assert_int_eq(pm_eval_rope_table(&(pm_eval_args){in, 2, &made, 1, &scale}), 0);
    RUN("pm_cu_rope_table", ceil_div(rows * r.half, 256), 256, 0, at(past), at(inv_freq), at(table),
        (uint64_t)r.batch, (uint64_t)r.t, (uint64_t)r.half, real(1.25));
    check_near("rope_table", table, want_table, table_n, 1e-6);
    pm_attr_value attrs[] = {{.i = r.head_dim}, {.i = r.interleaved}, {.i = r.offset}};
    pm_tensor of[] = {tensor(x, dims, 3, PM_F32), tensor(table, table_dims, 3, PM_F32)};
    pm_tensor turned = tensor(want, dims, 3, PM_F32);
    ck_assert_int_eq(pm_eval_rope(&(pm_eval_args){of, 2, &turned, 1, attrs}), 0);
    RUN("pm_cu_rope", ceil_div(rows * r.heads * (r.head_dim - r.half), 256), 256, 0, at(x), at(table), at(out),
        (uint64_t)rows, (uint64_t)r.heads, (uint64_t)r.head_dim, (uint64_t)r.half, (uint64_t)r.offset,
        (uint64_t)r.interleaved);
    check_near("rope", out, want, n, 1e-6);
}
END_TEST

typedef struct cache_case {
    int64_t batch, t, kv_heads, size, capacity;
} cache_case;

static const cache_case cache_cases[] = {
    {1, 1, 1, 8, 16}, {2, 1, 3, 5, 48}, {3, 17, 2, 20, 64}, {1, 40, 1, 64, 48}, {2, 16, 2, 33, 32}};
enum { N_CACHE_CASES = sizeof cache_cases / sizeof cache_cases[0] };

START_TEST(caches)
{
    cache_case c = cache_cases[_i];
    int64_t n = c.batch * c.kv_heads * c.capacity * c.size;
    const int64_t key_dims[] = {c.batch, c.kv_heads, c.capacity / 16, c.size, 16};
    const int64_t value_dims[] = {c.batch, c.kv_heads, c.capacity, c.size};
    const int64_t row_dims[] = {c.batch, c.t, c.kv_heads * c.size};
    float *rows = random_floats(c.batch * c.t * c.kv_heads * c.size, 1.0f);
    int64_t *past = guarded(c.batch * 8);
    int32_t status = 0;
    for (int64_t b = 0; b < c.batch; b++)
        past[b] = next_below(c.capacity - c.t + 1);
    for (int is_key = 0; is_key < 2; is_key++) {
        float *cache = random_floats(n, 1.0f), *want = guarded_floats(n);
        const int64_t *dims = is_key ? key_dims : value_dims;
        pm_tensor in[] = {tensor(cache, dims, is_key ? 5 : 4, PM_F32), tensor(rows, row_dims, 3, PM_F32),
                          tensor(past, &c.batch, 1, PM_I64)};
        pm_tensor out = tensor(want, dims, is_key ? 5 : 4, PM_F32);
        pm_eval_args args = {in, 3, &out, 1, NULL};
        ck_assert_int_eq(is_key ? pm_eval_cache_key(&args) : pm_eval_cache_value(&args), 0);
        int64_t blocks = is_key ? c.batch * c.kv_heads * (c.t / 16 + 2) : c.batch * c.t * c.kv_heads;
        const char *kernel = is_key ? "pm_cu_cache_key" : "pm_cu_cache_value";
        RUN(kernel, blocks, 128, 0, at(cache), at(rows), at(past), (uint64_t)c.batch, (uint64_t)c.t,
            (uint64_t)c.kv_heads, (uint64_t)c.size, (uint64_t)c.capacity, at(&status), 1);
        ck_assert(same_bits(cache, want, n));
        ck_assert_int_eq(status, 0);
        int64_t kept = past[0];
        past[0] = c.capacity - c.t + 1;
        RUN(kernel, blocks, 128, 0, at(cache), at(rows), at(past), (uint64_t)c.batch, (uint64_t)c.t,
            (uint64_t)c.kv_heads, (uint64_t)c.size, (uint64_t)c.capacity, at(&status), 1);
        ck_assert_int_eq(status, 1);
        past[0] = kept;
        status = 0;
    }
}
END_TEST

START_TEST(appends)
{
    cache_case c = cache_cases[_i];
    bool apart = _i % 2, has_past = _i % 3 != 0 || !apart;
    int64_t before = c.capacity / 2, total = c.capacity, one = 1, n = c.batch * c.kv_heads * total * c.size;
    const int64_t joined_dims[] = {c.batch, c.t, c.kv_heads * c.size};
    const int64_t apart_dims[] = {c.batch, c.kv_heads, c.t, c.size};
    const int64_t past_dims[] = {c.batch, c.kv_heads, before, c.size};
    const int64_t out_dims[] = {c.batch, c.kv_heads, total, c.size};
    float *rows = random_floats(c.batch * c.t * c.kv_heads * c.size, 1.0f);
    float *past = random_floats(c.batch * c.kv_heads * before * c.size, 1.0f);
    float *got = guarded_floats(n), *want = guarded_floats(n);
    int64_t *where = guarded(c.batch * 8);
    int32_t status = 0;
    for (int64_t b = 0; b < c.batch; b++)
        where[b] = next_below(total - c.t + 1);
    pm_tensor in[] = {tensor(rows, apart ? apart_dims : joined_dims, apart ? 4 : 3, PM_F32),
                      tensor(where, &c.batch, 1, PM_I64), tensor(&total, &one, 1, PM_I64),
                      tensor(past, past_dims, 4, PM_F32)};
    pm_tensor out = tensor(want, out_dims, 4, PM_F32);
    ck_assert_int_eq(pm_eval_kv_append(&(pm_eval_args){in, has_past ? 4 : 3, &out, 1, NULL}), 0);
    RUN("pm_cu_kv_append", c.batch * c.kv_heads * total, 128, 0, at(rows), at(where), c.batch > 1,
        has_past ? at(past) : 0, at(got), (uint64_t)c.batch, (uint64_t)c.t, (uint64_t)c.kv_heads,
        (uint64_t)c.size, (uint64_t)(has_past ? before : 0), (uint64_t)total, apart, at(&status), 3);
    ck_assert(same_bits(got, want, n));
    ck_assert_int_eq(status, 0);
    where[c.batch - 1] = -1;
    RUN("pm_cu_kv_append", c.batch * c.kv_heads * total, 128, 0, at(rows), at(where), c.batch > 1,
        has_past ? at(past) : 0, at(got), (uint64_t)c.batch, (uint64_t)c.t, (uint64_t)c.kv_heads,
        (uint64_t)c.size, (uint64_t)(has_past ? before : 0), (uint64_t)total, apart, at(&status), 3);
    ck_assert_int_eq(status, 3);
}
END_TEST

/* ---- routing --------------------------------------------------------------------------------------------- */

typedef struct router {
    int64_t experts, top_k, act, weigh, groups, keep_groups, group_score;
    double eps, scale;
    bool biased, weighed, sparse;
    double least;
} router;

static const char *const acts[] = {"softmax", "sigmoid", "sqrtsoftplus", "none"};
static const char *const weighs[] = {"as_is", "softmax", "renorm"};
static const char *const group_scores[] = {"max", "top2"};

static const router routers[] = {
    {8, 2, 0, 2, 1, 1, 0, 0, 1, false, false, false, 0},      {16, 2, 0, 1, 1, 1, 0, 0, 1, false, false, false, 0},
    {60, 4, 0, 0, 1, 1, 0, 0, 1, false, false, false, 0},     {64, 8, 1, 2, 8, 4, 1, 1e-20, 2.5, true, false, false, 0},
    {64, 6, 0, 0, 8, 3, 0, 0, 16, false, false, false, 0},    {256, 9, 2, 2, 1, 1, 0, 1e-6, 1.5, true, false, false, 0},
    {32, 4, 3, 1, 1, 1, 0, 0, 1, true, false, false, 0},      {1, 1, 3, 0, 1, 1, 0, 0, 1, false, false, false, 0},
    {5, 5, 1, 2, 1, 1, 0, 0, 1, false, false, false, 0},      {32, 4, 3, 2, 1, 1, 0, 0, 1, false, true, false, 0},
    {16, 2, 1, 0, 4, 2, 1, 0, 2, true, true, false, 0},       {16, 2, 0, 0, 1, 1, 0, 0, 1, false, false, true, 0},
    {33, 3, 0, 2, 1, 1, 0, 1e-6, 1.5, false, false, true, 0}, {64, 6, 0, 2, 1, 1, 0, 0, 1, true, false, false, 0.2},
    {320, 8, 1, 2, 40, 20, 1, 0, 1, true, false, false, 0},
};
enum { N_ROUTERS = sizeof routers / sizeof routers[0] };

START_TEST(routes)
{
    const router *r = &routers[_i];
    enum { ROWS = 19 };
    const int64_t dims[] = {ROWS, r->experts}, out_dims[] = {ROWS, r->top_k};
    float *score = random_floats(ROWS * r->experts, 3.0f), *bias = random_floats(r->experts, 1.0f);
    float *by = random_floats(ROWS * r->experts, 1.0f);
    float *weight = guarded_floats(ROWS * r->top_k), *want_weight = guarded_floats(ROWS * r->top_k);
    int32_t *expert = guarded(ROWS * r->top_k * 4), *want = guarded(ROWS * r->top_k * 4);
    for (int64_t e = 0; e < r->experts; e++)
        score[e] = 0.5f; /* all equal: the lowest numbers */
    for (int64_t e = 0; e < r->experts; e++)
        score[r->experts + e] = (float)(next_below(3) - 1); /* many equals */
    for (int64_t e = 0; e < r->experts && r->biased; e++)
        bias[e] = e % 2 ? 0.25f : -0.0f;
    pm_attr_value attrs[12] = {{.i = r->top_k}, {.s = acts[r->act]}, {.s = weighs[r->weigh]}, {.f = r->eps},
                               {.f = r->scale}, {.i = r->groups}, {.i = r->keep_groups},
                               {.s = group_scores[r->group_score]}, {.s = NULL},
                               {.s = r->sparse ? "sparsemixer" : "topk"}, {.f = 0.05}, {.f = r->least}};
    pm_tensor in[] = {tensor(score, dims, 2, PM_F32), tensor(r->biased ? bias : NULL, &dims[1], 1, PM_F32),
                      tensor(r->weighed ? by : NULL, dims, 2, PM_F32)};
    pm_tensor out[] = {tensor(want, out_dims, 2, PM_I32), tensor(want_weight, out_dims, 2, PM_F32)};
    ck_assert_int_eq(pm_eval_route(&(pm_eval_args){in, 3, out, 2, attrs}), 0);
    RUN("pm_cu_route", ROWS, 32, 0, at(score), r->biased ? at(bias) : 0,
        r->weighed ? at(by) : 0, at(expert), at(weight), ROWS, (uint64_t)r->experts, (uint64_t)r->top_k,
        (uint64_t)r->act, (uint64_t)r->weigh, real(r->eps), real(r->least), real(r->scale), (uint64_t)r->groups,
        (uint64_t)r->keep_groups, (uint64_t)r->group_score, r->sparse, real(0.05));
    for (int64_t i = 0; i < ROWS * r->top_k; i++)
        ck_assert_int_eq(expert[i], want[i]);
    check_near("route", weight, want_weight, ROWS * r->top_k, 3e-6);
}
END_TEST

static const int64_t orders[][3] = { /* rows, choices of each, experts */
    {1, 1, 1}, {1, 8, 64}, {5, 3, 7}, {100, 2, 8}, {0, 2, 4}, {700, 4, 200}, {33, 1, 1}, {260, 8, 512},
    {40, 4, 3000}};
enum { N_ORDERS = sizeof orders / sizeof orders[0] };

START_TEST(sorts)
{
    int64_t m = orders[_i][0], k = orders[_i][1], experts = orders[_i][2], n = m * k, offsets_n = experts + 1;
    int64_t dims[] = {m, k};
    int32_t *expert = guarded(n * 4), *got[3], *want[3], status = 0;
    const int64_t sizes[] = {n, offsets_n, n};
    for (int i = 0; i < 3; i++) {
        got[i] = guarded(sizes[i] * 4);
        want[i] = guarded(sizes[i] * 4);
    }
    for (int64_t i = 0; i < n; i++) /* some experts get nothing, others much */
        expert[i] = (int32_t)(next_below(2) ? next_below(experts) : next_below(experts / 3 + 1));
    pm_attr_value attr = {.i = experts};
    pm_tensor in = tensor(expert, dims, 2, PM_I32);
    pm_tensor out[] = {tensor(want[0], &sizes[0], 1, PM_I32), tensor(want[1], &sizes[1], 1, PM_I32),
                       tensor(want[2], dims, 2, PM_I32)};
    ck_assert_int_eq(pm_eval_expert_order(&(pm_eval_args){&in, 1, out, 3, &attr}), 0);
    RUN("pm_cu_expert_order", 1, 512, 0, at(expert), at(got[0]), at(got[1]), at(got[2]), (uint64_t)m, (uint64_t)k,
        (uint64_t)experts, at(&status), 4);
    for (int j = 0; j < 3; j++)
        ck_assert_int_eq(memcmp(got[j], want[j], (size_t)sizes[j] * 4), 0);
    ck_assert_int_eq(status, 0);
    if (n == 0)
        return;
    expert[n / 2] = (int32_t)experts;
    RUN("pm_cu_expert_order", 1, 512, 0, at(expert), at(got[0]), at(got[1]), at(got[2]), (uint64_t)m, (uint64_t)k,
        (uint64_t)experts, at(&status), 4);
    ck_assert_int_eq(status, 4);
    for (int j = 0; j < 3; j++)
        for (int64_t i = 0; i < sizes[j]; i++)
            ck_assert_int_eq(got[j][i], 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda rows");
    TCase *c = tcase_create("rows");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, norms, 0, N_ROW_SHAPES);
    tcase_add_loop_test(c, softmaxes, 0, N_ROW_SHAPES);
    tcase_add_loop_test(c, gathers_and_combines, 0, N_ROW_SHAPES);
    tcase_add_loop_test(c, copies, 0, 5);
    tcase_add_loop_test(c, gathers_behind_an_axis, 0, 4);
    tcase_add_loop_test(c, rotates, 0, N_ROTATIONS);
    tcase_add_loop_test(c, caches, 0, N_CACHE_CASES);
    tcase_add_loop_test(c, appends, 0, N_CACHE_CASES);
    tcase_add_loop_test(c, routes, 0, N_ROUTERS);
    tcase_add_loop_test(c, sorts, 0, N_ORDERS);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
