/* Templates of products on CUDA cores: against the ops' meaning, whatever weights are stored as. */
#include <check.h>
#include <math.h>

#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "tests/cuda/product_case.h"

static const product_road roads[] = {{"pm_cu_product_few", 256, 0, CU_FEW_ROWS, CU_FEW_COLUMNS},
                                     {"pm_cu_product_f32", 128, 0, CU_F32_ROWS, CU_F32_COLUMNS}};
enum { N_ROADS = sizeof roads / sizeof roads[0] };

/// Sums of up to 300 factors.
static const double tolerance = 2e-5;

static void run_all(const product_case *c)
{
    static int64_t number;
    product p = product_of(c);
    int64_t alone = p.owned ? number++ * 13 % p.owned : -1;
    for (int r = 0; r < N_ROADS; r++) {
        const product_road *to = &roads[r];
        product_run(&p, to);
        product_check(&p, to->kernel, tolerance);
        if (alone >= 0)
            product_check_alone(&p, alone, to);
    }
}

/// Rows, columns, factors.
static const int64_t shapes[][3] = {{1, 8, 32},   {1, 33, 257}, {2, 7, 100},   {8, 64, 64}, {9, 31, 33},
                                    {63, 33, 31}, {64, 64, 16}, {65, 100, 40}, {5, 1, 7},   {200, 7, 33},
                                    {3, 257, 1},  {1, 9, 1100}, {4, 70, 264}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

START_TEST(of_every_weight)
{
    const weight_kind *w = &weight_kinds[_i];
    for (int s = _i % 2; s < N_SHAPES; s += _i < 3 ? 1 : 2) { /* of codes, every other one */
        const int64_t *d = shapes[s];
        product_case c = {w, d[0], d[1], d[2], 0, ELEM_F32, ELEM_F32, s % 2 ? ELEM_F32 : NO_ELEM, EVEN, false, false};
        run_all(&c);
    }
}
END_TEST

START_TEST(of_every_expert)
{
    static const int64_t experts[] = {4, 7, 40, 3};
    const weight_kind *w = &weight_kinds[_i];
    for (int s = 0; s < 4; s++) {
        const int64_t *d = shapes[(_i + 3 * s) % N_SHAPES];
        product_case c = {w, d[0] + 3, d[1] < 40 ? d[1] : 40, d[2], experts[s], ELEM_F32, ELEM_F32,
                          s % 2 ? ELEM_BF16 : NO_ELEM, (spread)(s % N_SPREADS), false, s % 2 == 1};
        run_all(&c);
    }
}
END_TEST

/// Elements of x, y and bias, and factors that are rounded first.
START_TEST(of_short_elements)
{
    static const int64_t elems[] = {ELEM_F32, ELEM_BF16, ELEM_F16};
    for (int i = 0; i < 12; i++) {
        const int64_t *d = shapes[(i + _i) % N_SHAPES];
        const weight_kind *w = &weight_kinds[(i * 5 + _i) % n_weight_kinds];
        bool exact = w->zero_elem == NO_ELEM || w->zero_elem == ELEM_U8; /* no rounding to f32 may hit a tie of bf16 */
        product_case c = {w, d[0], d[1], d[2], i % 4 ? 0 : 5, elems[_i], elems[i % 3], elems[(i + 1) % 3], EVEN,
                          i % 2 == 0 && exact, false};
        run_all(&c);
    }
}
END_TEST

/// A row that holds no numbers keeps that to itself.
START_TEST(no_number_leaks)
{
    product_case c = {&weight_kinds[_i], 21, 12, 64, 5, ELEM_F32, ELEM_F32, NO_ELEM, EVEN, false, false};
    product p = product_of(&c);
    for (int64_t i = 0; i < c.k; i++) {
        ((float *)p.x)[7 * c.k + i] = NAN;
        ((float *)p.x)[11 * c.k + i] = INFINITY;
        ((float *)p.x)[20 * c.k + i] = NAN; /* nobody's */
    }
    for (int r = 0; r < N_ROADS; r++) {
        const product_road *to = &roads[r];
        product_run(&p, to);
        for (int64_t i = 0; i < p.owned * c.n; i++) {
            bool is_odd = i / c.n == 7 || i / c.n == 11;
            ck_assert(is_odd ? !isfinite(((float *)p.y)[i])
                             : fabs((double)((float *)p.y)[i] - (double)p.want[i]) < 1e-3);
        }
    }
}
END_TEST

START_TEST(offsets_that_lie)
{
    product_case c = {&weight_kinds[3 * _i], 11, 9, 64, 4, ELEM_F32, ELEM_F32, ELEM_F32, EVEN, false, false};
    product p = product_of(&c);
    for (int r = 0; r < N_ROADS; r++)
        product_check_lies(&p, &roads[r]);
}
END_TEST

/// Products of the same rows in one launch: each has the bits it has alone.
START_TEST(siblings)
{
    static const int64_t columns[][CU_SIBLINGS] = {{16, 8, 8, 0}, {7, 33, 0, 0}, {9, 1, 20, 5}, {8, 0, 0, 0}};
    static const int each[] = {WORD_W, WORD_SCALES, WORD_ZEROS, WORD_BIAS, WORD_Y, WORD_N, WORD_EXPERT_BYTES};
    enum { N_EACH = sizeof each / sizeof each[0] };
    for (int s = 0; s < 4; s++) {
        const int64_t rows[] = {1, 9, 2, 17}, *n = columns[s], experts = (_i + s) % 2 ? 5 : 0;
        uint64_t words[PRODUCT_WORDS + (CU_SIBLINGS - 1) * N_EACH] = {0};
        product p[CU_SIBLINGS];
        int64_t blocks = 0;
        void *alone[CU_SIBLINGS];
        for (int i = 0; i < CU_SIBLINGS && n[i]; i++) {
            product_case c = {&weight_kinds[_i], rows[s], n[i], 96, experts, ELEM_F32, ELEM_F32,
                              (i + s) % 2 ? ELEM_F32 : NO_ELEM, SOME_EMPTY, false, i == 1};
            p[i] = product_of(&c);
            p[i].words[WORD_X] = p[0].words[WORD_X];
            p[i].words[WORD_OFFSETS] = p[0].words[WORD_OFFSETS];
            product_run(&p[i], &roads[0]);
            alone[i] = p[i].y;
            p[i].y = guarded(c.rows * c.n * p[i].y_size);
            p[i].words[WORD_Y] = at(p[i].y);
            if (i == 0)
                memcpy(words, p[0].words, sizeof p[0].words);
            for (int k = 0; i > 0 && k < N_EACH; k++)
                words[PRODUCT_WORDS + (i - 1) * N_EACH + k] = p[i].words[each[k]];
            int64_t most = ceil_div(c.rows + (experts ? experts * (CU_FEW_ROWS - 1) : 0), CU_FEW_ROWS);
            blocks += (most < c.rows ? most : c.rows) * ceil_div(c.n, CU_FEW_COLUMNS);
        }
        cu_run("pm_cu_products_few", blocks, roads[0].threads, 0, words, sizeof words / sizeof words[0]);
        for (int i = 0; i < CU_SIBLINGS && n[i]; i++)
            ck_assert_msg(memcmp(p[i].y, alone[i], (size_t)(rows[s] * n[i] * p[i].y_size)) == 0,
                          "%s: number %d of %d columns has other bits alone", weight_kinds[_i].name, i, (int)n[i]);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda products");
    TCase *c = tcase_create("products");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, of_every_weight, 0, n_weight_kinds);
    tcase_add_loop_test(c, of_every_expert, 0, n_weight_kinds);
    tcase_add_loop_test(c, of_short_elements, 0, 3);
    tcase_add_loop_test(c, no_number_leaks, 0, n_weight_kinds);
    tcase_add_loop_test(c, siblings, 0, n_weight_kinds);
    tcase_add_loop_test(c, offsets_that_lie, 0, 3);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
