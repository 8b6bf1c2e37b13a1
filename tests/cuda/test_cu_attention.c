/* Templates of attention: against the ops' meaning, for few rows and for many, and a sequence's bits alone and among
 * others. Memory that nobody may see holds no numbers. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/cuda/cu_run.h"

pm_eval_fn pm_eval_attention, pm_eval_sdpa, pm_eval_cache_key;

enum { SPLIT_KEYS = 256, SPLIT_ROWS = 8, TILE_ROWS = 64, TILE_COLUMNS = 256 };

/// Which kernels take a call.
enum { SPLIT, TILE, BF16, N_ROADS };
static const char *const roads[] = {"split", "tile", "bf16"};

/// The extents that decide on blocks: key-value heads of all sequences, rows of each, keys.
typedef struct extents {
    int64_t heads, rows, keys, group, head_dim, value_dim;
} extents;

static int64_t split_blocks(const extents *e)
{
    int64_t rows = e->group < SPLIT_ROWS ? e->group : SPLIT_ROWS;
    return e->heads * ceil_div(e->rows, rows) * ceil_div(e->keys, SPLIT_KEYS);
}

static int64_t tile_blocks(const extents *e, int road)
{
    int64_t columns = road == TILE ? TILE_COLUMNS : e->head_dim > 128 ? 64 : 128;
    return e->heads * ceil_div(e->rows, TILE_ROWS) * ceil_div(e->value_dim, columns);
}

static float *partial_of(const extents *e)
{
    return guarded_floats(e->heads * e->rows * ceil_div(e->keys, SPLIT_KEYS) * (e->value_dim + 2));
}

/// Launches what takes the road; n: words, before that of the partial results.
static void run_road(const char *op, int road, const extents *e, uint64_t *words, int n)
{
    char name[64];
    snprintf(name, sizeof name, "pm_cu_%s_%s", op, roads[road]);
    words[n] = at(partial_of(e));
    words[n + 1] = 0; /* the first sequence */
    if (road != SPLIT) {
        cu_run(name, tile_blocks(e, road), road == TILE ? 256 : 128, 0, words, n);
        return;
    }
    cu_run(name, split_blocks(e), 256, 0, words, n + 2);
    snprintf(name, sizeof name, "pm_cu_%s_join", op);
    cu_run(name, e->heads * e->rows, 128, 0, words, n + 2);
}

/// With bf16 it's weights that are rounded, to 8 bits; queries, keys and values are bf16 here to begin with.
static double tolerance_of(int road)
{
    return road == BF16 ? 4e-3 : 4e-6;
}

static void round_to_bf16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = from_bf16(to_bf16(x[i]));
}

static float *random_bf16(int64_t n, float scale)
{
    float *x = random_floats(n, scale);
    round_to_bf16(x, n);
    return x;
}

/* ---- to caches ------------------------------------------------------------------------------------------- */

typedef struct cached {
    int64_t batch, t, heads, kv_heads, head_dim, value_dim, capacity, window, chunk, reach;
    bool causal, sinks;
    double softcap;
    int64_t past; ///< of sequence 0; -1: random
} cached;

static const cached cached_cases[] = {
    {1, 1, 2, 2, 16, 16, 16, 0, 0, 0, true, false, 0, 0},
    {2, 1, 8, 2, 64, 64, 640, 0, 0, 0, true, false, 0, 600},
    {2, 1, 12, 1, 40, 24, 528, 0, 0, 0, true, true, 0, 527},
    {1, 3, 4, 2, 128, 128, 528, 100, 0, 0, true, false, 0, 400},
    {2, 5, 6, 3, 33, 7, 304, 0, 64, 0, true, true, 3, 250},
    {1, 66, 2, 2, 20, 36, 160, 0, 0, 9, true, false, 0, 80},
    {1, 33, 2, 1, 96, 260, 80, 17, 0, 0, true, true, 5, -1},
    {2, 7, 2, 1, 8, 8, 336, 0, 0, 5, false, true, 0, 300},
    {1, 2, 1, 1, 1, 1, 32, 3, 0, 0, false, false, 0, 30},
    {1, 0, 2, 1, 8, 8, 32, 0, 0, 0, true, false, 0, 3},
};
enum { N_CACHED = sizeof cached_cases / sizeof cached_cases[0] };

typedef struct cached_data {
    float *q, *keys, *values, *sinks, *bias;
    int64_t *past;
} cached_data;

/// Caches hold numbers up to the last key that any token sees.
static cached_data make_cached(const cached *c)
{
    int64_t heads = c->batch * c->kv_heads, key_n = heads * c->capacity * c->head_dim;
    cached_data d = {.q = random_bf16(c->batch * c->t * c->heads * c->head_dim, 2.0f),
                     .keys = guarded_floats(key_n), .values = guarded_floats(heads * c->capacity * c->value_dim),
                     .sinks = c->sinks ? random_floats(c->heads, 3.0f) : NULL,
                     .bias = c->reach ? random_floats(c->heads * c->reach, 3.0f) : NULL,
                     .past = guarded(c->batch * 8)};
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t room = c->capacity - (c->causal ? c->t : 0);
        d.past[b] = b || c->past < 0 ? next_below(room + 1) : c->past;
        if (!c->causal && d.past[b] == 0)
            d.past[b] = 1;
        int64_t seen = d.past[b] + (c->causal ? c->t : 0);
        for (int64_t h = b * c->kv_heads; h < (b + 1) * c->kv_heads; h++)
            for (int64_t key = 0; key < seen; key++) {
                float *to = d.keys + (h * c->capacity + key / 16 * 16) * c->head_dim + key % 16;
                for (int64_t i = 0; i < c->head_dim; i++)
                    to[i * 16] = from_bf16(to_bf16(next_float()));
                float *value = d.values + (h * c->capacity + key) * c->value_dim;
                fill_random(value, c->value_dim);
                round_to_bf16(value, c->value_dim);
            }
    }
    return d;
}

static void cached_reference(const cached *c, const cached_data *d, float *out)
{
    const int64_t q_dims[] = {c->batch, c->t, c->heads * c->head_dim};
    const int64_t key_dims[] = {c->batch, c->kv_heads, c->capacity / 16, c->head_dim, 16};
    const int64_t value_dims[] = {c->batch, c->kv_heads, c->capacity, c->value_dim};
    const int64_t bias_dims[] = {c->heads, c->reach}, out_dims[] = {c->batch, c->t, c->heads * c->value_dim};
    pm_tensor in[] = {tensor(d->q, q_dims, 3, PM_F32), tensor(d->keys, key_dims, 5, PM_F32),
                      tensor(d->values, value_dims, 4, PM_F32), tensor(d->past, &c->batch, 1, PM_I64),
                      tensor(d->sinks, &c->heads, 1, PM_F32), tensor(d->bias, bias_dims, 2, PM_F32)};
    pm_tensor result = tensor(out, out_dims, 3, PM_F32);
    pm_attr_value attrs[8] = {{.i = c->heads}, {.i = c->kv_heads}, {.f = 0.3}, {.i = c->window},
                              {.f = c->softcap}, {.s = NULL}, {.i = c->chunk}, {.i = c->causal}};
    ck_assert_int_eq(pm_eval_attention(&(pm_eval_args){in, 6, &result, 1, attrs}), 0);
}

/// `sequence`: -1 for all, or that one alone.
static int32_t run_cached(const cached *c, const cached_data *d, float *out, int64_t sequence, int road)
{
    int64_t b = sequence < 0 ? 0 : sequence, batch = sequence < 0 ? c->batch : 1, kv = b * c->kv_heads;
    int64_t group = c->heads / c->kv_heads;
    extents e = {batch * c->kv_heads, c->t * group, c->capacity, group, c->head_dim, c->value_dim};
    int32_t status = 0;
    uint64_t words[24] = {
        at(d->q + b * c->t * c->heads * c->head_dim), at(d->keys + kv * c->capacity * c->head_dim),
        at(d->values + kv * c->capacity * c->value_dim), at(d->past + b), at(d->sinks), at(out), (uint64_t)batch,
        (uint64_t)c->t, (uint64_t)c->heads, (uint64_t)c->kv_heads, (uint64_t)c->head_dim, (uint64_t)c->value_dim,
        (uint64_t)c->capacity, real(0.3), (uint64_t)c->window, (uint64_t)c->chunk, real(c->softcap), at(d->bias),
        (uint64_t)c->reach, c->causal, at(&status), 11};
    run_road("attention", road, &e, words, 22);
    return status;
}

START_TEST(attends_to_caches)
{
    const cached *c = &cached_cases[_i];
    cached_data d = make_cached(c);
    int64_t n = c->batch * c->t * c->heads * c->value_dim, each = n / c->batch;
    float *want = guarded_floats(n), *alone = guarded_floats(each);
    cached_reference(c, &d, want);
    for (int road = 0; road < N_ROADS; road++) {
        float *got = guarded_floats(n);
        ck_assert_int_eq(run_cached(c, &d, got, -1, road), 0);
        check_near(roads[road], got, want, n, tolerance_of(road));
        ck_assert_int_eq(run_cached(c, &d, alone, c->batch - 1, road), 0);
        ck_assert(same_bits(alone, got + (c->batch - 1) * each, each));
    }
    if (n == 0)
        return;
    d.past[c->batch - 1] = c->capacity + 1;
    for (int road = 0; road < N_ROADS; road++)
        ck_assert_int_eq(run_cached(c, &d, want, -1, road), 11);
}
END_TEST

/// All tokens at once, and in two calls: the same bits where the same kernel takes them.
START_TEST(tokens_in_pieces)
{
    const cached whole = {1, 66, 2, 1, 24, 40, 320, 50, 0, 0, true, true, 2, 220};
    cached first = whole, second = whole;
    first.t = 23;
    second.t = whole.t - first.t;
    cached_data d = make_cached(&whole), later = d;
    int64_t row = whole.heads * whole.value_dim;
    later.q = d.q + first.t * whole.heads * whole.head_dim;
    later.past = guarded(8);
    later.past[0] = d.past[0] + first.t;
    for (int road = 0; road < N_ROADS; road++) {
        float *want = guarded_floats(whole.t * row), *got = guarded_floats(whole.t * row);
        ck_assert_int_eq(run_cached(&whole, &d, want, -1, road), 0);
        ck_assert_int_eq(run_cached(&first, &d, got, -1, road), 0);
        ck_assert_int_eq(run_cached(&second, &later, got + first.t * row, -1, road), 0);
        ck_assert(same_bits(got, want, whole.t * row));
    }
}
END_TEST

/* ---- to whole tensors ------------------------------------------------------------------------------------ */

enum { NO_MASK, FLOATS, BOOLS };

typedef struct shape {
    int64_t batch, t, keys, heads, kv_heads, head_dim, value_dim, apart;
    int mask;             ///< its kind
    int64_t mask_dims[4]; ///< 1 or the extent, and at last its keys
    int64_t left, right;
    bool past, total, sinks, nan;
    double softcap;
} shape;

static const shape shapes[] = {
    {1, 5, 5, 2, 2, 16, 16, 0, NO_MASK, {0}, -1, 0, false, false, false, false, 0},
    {2, 1, 500, 8, 2, 32, 32, 6, NO_MASK, {0}, -1, 0, true, true, false, false, 0},
    {2, 66, 131, 2, 1, 20, 12, 7, FLOATS, {2, 1, 66, 131}, -1, -1, false, false, false, false, 0},
    {2, 9, 331, 4, 2, 33, 7, 0, BOOLS, {1, 4, 9, 300}, -1, -1, false, false, false, true, 0},
    {3, 50, 90, 2, 1, 24, 48, 1, BOOLS, {3, 1, 1, 90}, -1, 0, true, false, true, false, 5},
    {2, 33, 77, 2, 2, 64, 64, 2, NO_MASK, {0}, 9, 3, true, true, false, true, 0},
    {1, 9, 300, 2, 1, 128, 40, 4, FLOATS, {1, 2, 9, 260}, 20, 0, false, false, true, false, 3},
    {2, 4, 1, 2, 1, 1, 1, 5, BOOLS, {2, 2, 4, 1}, -1, -1, true, false, false, false, 0},
    {2, 3, 0, 2, 1, 8, 8, 7, NO_MASK, {0}, -1, -1, false, false, false, false, 0},
    {0, 3, 4, 2, 1, 8, 8, 7, NO_MASK, {0}, -1, -1, false, false, false, false, 0},
    {1, 0, 4, 2, 1, 8, 8, 7, NO_MASK, {0}, -1, -1, false, false, false, false, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct operands {
    float *q, *k, *v, *sinks;
    void *mask;
    int64_t *past, *total;
} operands;

/// A mask in which every third row sees nothing, or only what the lowest number is added to.
static void *make_mask(const shape *s)
{
    int64_t n = s->mask_dims[0] * s->mask_dims[1] * s->mask_dims[2] * s->mask_dims[3], row = s->mask_dims[3];
    if (s->mask == BOOLS) {
        uint8_t *bools = guarded(n);
        for (int64_t i = 0; i < n; i++)
            bools[i] = i / row % 3 == 2 ? 0 : next_below(3) != 0;
        return bools;
    }
    float *floats = random_floats(n, 3.0f);
    for (int64_t i = 0; i < n; i++) {
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
    operands o = {.q = random_bf16(s->batch * s->t * s->heads * s->head_dim, 3.0f),
                  .k = random_bf16(s->batch * s->keys * s->kv_heads * s->head_dim, 1.0f),
                  .v = random_bf16(s->batch * s->keys * s->kv_heads * s->value_dim, 1.0f),
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
    return tensor(data, dims, apart ? 4 : 3, PM_F32);
}

static void sdpa_reference(const shape *s, const operands *o, float *out)
{
    int64_t dims[4][4];
    pm_tensor in[7] = {rows_tensor(o->q, dims[0], s, s->heads, s->t, s->head_dim, s->apart & 1),
                       rows_tensor(o->k, dims[1], s, s->kv_heads, s->keys, s->head_dim, s->apart & 2),
                       rows_tensor(o->v, dims[2], s, s->kv_heads, s->keys, s->value_dim, s->apart & 4),
                       tensor(o->mask, s->mask_dims, 4, s->mask == BOOLS ? PM_BOOL : PM_F32),
                       tensor(o->past, &s->batch, 1, PM_I64), tensor(o->total, &s->batch, 1, PM_I64),
                       tensor(o->sinks, &s->heads, 1, PM_F32)};
    pm_tensor result = rows_tensor(out, dims[3], s, s->heads, s->t, s->value_dim, s->apart & 1);
    pm_attr_value attrs[7] = {{.i = s->heads}, {.i = s->kv_heads}, {.f = 0.25}, {.i = s->left}, {.i = s->right},
                              {.f = s->softcap}, {.s = s->nan ? "nan" : "zero"}};
    ck_assert_int_eq(pm_eval_sdpa(&(pm_eval_args){in, 7, &result, 1, attrs}), 0);
}

static int32_t run_sdpa(const shape *s, const operands *o, float *out, int road)
{
    int64_t group = s->heads / s->kv_heads, stride[3];
    extents e = {s->batch * s->kv_heads, s->t * group, s->keys, group, s->head_dim, s->value_dim};
    int32_t status = 0;
    for (int i = 2, at = (int)s->mask_dims[3]; i >= 0; at *= (int)s->mask_dims[i], i--)
        stride[i] = s->mask_dims[i] == 1 ? 0 : at;
    uint64_t words[32] = {
        at(o->q), at(o->k), at(o->v), at(o->mask), at(o->past), at(o->total), at(o->sinks), at(out),
        (uint64_t)s->batch, (uint64_t)s->t, (uint64_t)s->keys, (uint64_t)s->heads, (uint64_t)s->kv_heads,
        (uint64_t)s->head_dim, (uint64_t)s->value_dim, (uint64_t)s->apart, (uint64_t)s->mask_dims[3],
        s->mask == BOOLS, (uint64_t)stride[0], (uint64_t)stride[1], (uint64_t)stride[2], s->batch > 1,
        s->batch > 1, real(0.25), (uint64_t)s->left, (uint64_t)s->right, real(s->softcap),
        real(s->nan ? (double)NAN : 0.0), at(&status), 20};
    run_road("sdpa", road, &e, words, 30);
    return status;
}

START_TEST(attends_to_tensors)
{
    const shape *s = &shapes[_i];
    operands o = make_operands(s);
    int64_t n = s->batch * s->t * s->heads * s->value_dim;
    float *want = guarded_floats(n);
    sdpa_reference(s, &o, want);
    for (int road = 0; road < N_ROADS; road++) {
        float *got = guarded_floats(n);
        ck_assert_int_eq(run_sdpa(s, &o, got, road), 0);
        check_near(roads[road], got, want, n, tolerance_of(road));
    }
    if (n == 0 || !o.total)
        return;
    o.total[s->batch - 1] = s->keys + 1;
    for (int road = 0; road < N_ROADS; road++)
        ck_assert_int_eq(run_sdpa(s, &o, want, road), 20);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda attention");
    TCase *c = tcase_create("attention");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, attends_to_caches, 0, N_CACHED);
    tcase_add_test(c, tokens_in_pieces);
    tcase_add_loop_test(c, attends_to_tensors, 0, N_SHAPES);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
