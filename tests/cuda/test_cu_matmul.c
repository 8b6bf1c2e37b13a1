/* Templates of matrix products: against the op's meaning, in batches that broadcast, turned and not. */
#include <check.h>

#include "codegen/cuda/kernels/cu_matmul_sizes.h"
#include "tests/cuda/cu_run.h"

pm_eval_fn pm_eval_matmul;

enum { MAX_RANK = 6 };

typedef struct shape {
    int64_t m, n, k;
    int32_t n_a, n_b; ///< extents of the batch
    int64_t a[4], b[4];
} shape;

static const shape shapes[] = {
    {1, 1, 1, 0, 0, {0}, {0}},
    {64, 64, 16, 0, 0, {0}, {0}},
    {65, 31, 33, 1, 1, {3}, {3}},
    {7, 130, 65, 2, 2, {2, 3}, {2, 3}},
    {8, 33, 257, 2, 2, {2, 1}, {1, 3}},
    {9, 40, 64, 3, 1, {2, 1, 2}, {2}},
    {3, 7, 100, 0, 2, {0}, {2, 2}},
    {130, 8, 24, 4, 4, {2, 1, 1, 2}, {1, 2, 1, 2}},
    {1, 64, 128, 4, 4, {1, 2, 1, 2}, {2, 2, 1, 1}},
    {2, 300, 8, 1, 0, {2}, {0}},
    {70, 9, 0, 0, 0, {0}, {0}},
    {5, 5, 0, 1, 1, {2}, {2}},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/// elem: as cu_product.h numbers them.
static float value_at(const void *from, int elem, int64_t i)
{
    return elem == 0   ? ((const float *)from)[i]
           : elem == 1 ? from_bf16(((const uint16_t *)from)[i])
                       : (float)((const _Float16 *)from)[i];
}

/// At a multiple of 16 bytes.
static void *elements(int elem, int64_t n)
{
    void *to = guarded((n * (elem ? 2 : 4) + 15) / 16 * 16);
    for (int64_t i = 0; i < n; i++) {
        float x = next_float();
        if (elem == 0)
            ((float *)to)[i] = x;
        else if (elem == 1)
            ((uint16_t *)to)[i] = to_bf16(x);
        else
            ((_Float16 *)to)[i] = (_Float16)x;
    }
    return to;
}

/// Extents of an operand with its matrices' ones behind, and their product.
static int64_t whole_dims(const int64_t *batch, int32_t n, int64_t rows, int64_t columns, int64_t *out)
{
    int64_t count = rows * columns;
    for (int32_t i = 0; i < n; i++) {
        out[i] = batch[i];
        count *= batch[i];
    }
    out[n] = rows;
    out[n + 1] = columns;
    return count;
}

/// The batch's extents of one side, with ones before them.
static void batch_of(const int64_t *batch, int32_t n, int64_t out[4])
{
    for (int32_t i = 0; i < 4; i++)
        out[i] = i < 4 - n ? 1 : batch[i - (4 - n)];
}

static void run(const shape *s, int turned_a, int turned_b, int elem)
{
    int64_t a_dims[MAX_RANK], b_dims[MAX_RANK], y_dims[MAX_RANK], a_batch[4], b_batch[4], extent[4], batches = 1;
    int64_t a_count = whole_dims(s->a, s->n_a, turned_a ? s->k : s->m, turned_a ? s->m : s->k, a_dims);
    int64_t b_count = whole_dims(s->b, s->n_b, turned_b ? s->n : s->k, turned_b ? s->k : s->n, b_dims);
    batch_of(s->a, s->n_a, a_batch);
    batch_of(s->b, s->n_b, b_batch);
    for (int i = 0; i < 4; i++) {
        extent[i] = a_batch[i] > b_batch[i] ? a_batch[i] : b_batch[i];
        batches *= extent[i];
    }
    int32_t n_batch = s->n_a > s->n_b ? s->n_a : s->n_b;
    int64_t count = whole_dims(extent + 4 - n_batch, n_batch, s->m, s->n, y_dims);
    void *a = elements(elem, a_count), *b = elements(elem, b_count);
    float *want = guarded_floats(count), *a_wide = guarded_floats(a_count), *b_wide = guarded_floats(b_count);
    for (int64_t i = 0; i < a_count; i++)
        a_wide[i] = value_at(a, elem, i);
    for (int64_t i = 0; i < b_count; i++)
        b_wide[i] = value_at(b, elem, i);
    pm_tensor in[] = {tensor(a_wide, a_dims, s->n_a + 2, PM_F32), tensor(b_wide, b_dims, s->n_b + 2, PM_F32)};
    pm_tensor out = tensor(want, y_dims, n_batch + 2, PM_F32);
    pm_attr_value attrs[] = {{.i = turned_a}, {.i = turned_b}};
    ck_assert_int_eq(pm_eval_matmul(&(pm_eval_args){in, 2, &out, 1, attrs}), 0);
    uint64_t words[21] = {at(a), at(b), 0, (uint64_t)s->m, (uint64_t)s->n, (uint64_t)s->k};
    int64_t a_step = 1, b_step = 1;
    for (int i = 3; i >= 0; i--) {
        words[6 + i] = (uint64_t)extent[i];
        words[10 + i] = a_batch[i] == 1 ? 0 : (uint64_t)a_step;
        words[14 + i] = b_batch[i] == 1 ? 0 : (uint64_t)b_step;
        a_step *= a_batch[i];
        b_step *= b_batch[i];
    }
    words[18] = (uint64_t)turned_a;
    words[19] = (uint64_t)turned_b;
    words[20] = (uint64_t)elem;
    for (int few = 0; few < 2; few++) {
        int64_t height = few ? CU_MATMUL_FEW_ROWS : CU_MATMUL_ROWS;
        int64_t width = few ? CU_MATMUL_FEW_COLUMNS : CU_MATMUL_COLUMNS;
        void *y = guarded(count * (elem ? 2 : 4));
        float *got = guarded_floats(count);
        words[2] = at(y);
        cu_run(few ? "pm_cu_matmul_few" : "pm_cu_matmul", batches * ceil_div(s->m, height) * ceil_div(s->n, width),
               few ? 256 : 128, 0, words, 21);
        for (int64_t i = 0; i < count; i++)
            got[i] = value_at(y, elem, i);
        check_near(few ? "matmul of few rows" : "matmul", got, want, count,
                   elem == 0 ? 2e-5 : elem == 1 ? 0x1p-8 : 0x1p-10);
    }
}

START_TEST(multiplies)
{
    for (int turned = 0; turned < 4; turned++)
        run(&shapes[_i], turned & 1, turned >> 1, 0);
}
END_TEST

START_TEST(multiplies_short_elements)
{
    run(&shapes[_i], _i & 1, _i >> 1 & 1, 1);
    run(&shapes[_i], _i >> 1 & 1, _i & 1, 2);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda matmul");
    TCase *c = tcase_create("matmul");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, multiplies, 0, N_SHAPES);
    tcase_add_loop_test(c, multiplies_short_elements, 0, N_SHAPES);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
