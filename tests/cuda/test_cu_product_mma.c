/* Templates of products on tensor cores: against the ops' meaning, in bf16 and in f16, whatever factors are stored
 * as. */
#include <check.h>
#include <math.h>

#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "tests/cuda/product_case.h"

static const product_road mma = {"pm_cu_product_mma", 256, 48 << 10, CU_MMA_ROWS, CU_MMA_COLUMNS};

/// Sums of up to 600 factors in f32.
static const double tolerance = 4e-5;

static const weight_kind *kind(const char *name)
{
    for (int i = 0; i < n_weight_kinds; i++)
        if (strcmp(weight_kinds[i].name, name) == 0)
            return &weight_kinds[i];
    ck_abort_msg("no weight %s", name);
}

/// A factor that f32 rounded before bf16 does may be one unit away.
static double tolerance_of(const product_case *c)
{
    bool is_exact = c->weight->zero_elem == NO_ELEM || c->weight->zero_elem == ELEM_U8;
    return tolerance + (is_exact ? 0 : 4e-3);
}

static void run(const product_case *c, const product_road *to, bool tries_alone)
{
    product p = product_of(c);
    product_run(&p, to);
    product_check(&p, to->kernel, tolerance_of(c));
    for (int64_t row = p.owned - 1; tries_alone && row >= 0; row -= p.owned / 2 + 1)
        product_check_alone(&p, row, to);
}

/// Rows, columns, factors.
static const int64_t shapes[][3] = {{1, 8, 64},    {63, 100, 72}, {64, 1, 512},  {65, 256, 8},    {127, 8, 100},
                                    {128, 128, 64}, {129, 300, 40}, {300, 100, 72}, {2, 300, 512}, {17, 33, 257}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/// Elements of x, y and bias, with weights of 16 bits: both factors bf16, both f16, and what is rounded.
START_TEST(of_elements)
{
    static const int64_t elems[] = {ELEM_BF16, ELEM_F16, ELEM_F32};
    const int64_t *d = shapes[_i];
    for (int x = 0; x < 3; x++)
        for (int w = 0; w < 3; w++) {
            const weight_kind *of[] = {kind("bf16"), kind("f16"), kind("f32")};
            product_case c = {of[w], d[0], d[1], d[2], 0, elems[x], elems[(x + w + _i) % 3],
                              (x + w) % 2 ? elems[w] : NO_ELEM, EVEN, x != 1 || w != 1, false};
            run(&c, &mma, x == w);
        }
}
END_TEST

START_TEST(of_every_weight)
{
    static const int64_t elems[] = {ELEM_BF16, ELEM_F32};
    const weight_kind *w = &weight_kinds[_i];
    for (int s = 0; s < N_SHAPES; s += 3) {
        const int64_t *d = shapes[(s + _i) % N_SHAPES];
        product_case c = {w, d[0], d[1], d[2], 0, elems[s % 2], elems[(s + _i) % 2], s % 2 ? ELEM_F32 : NO_ELEM, EVEN,
                          true, false};
        run(&c, &mma, s == 0);
    }
}
END_TEST

static const int64_t experts[] = {4, 1, 7, 40, 33, 3};
enum { N_GROUPED = sizeof experts / sizeof experts[0] };

START_TEST(of_experts)
{
    static const int64_t elems[] = {ELEM_BF16, ELEM_F16};
    for (int s = 0; s < N_SPREADS; s++) {
        const weight_kind *of[] = {kind("bf16"), kind("f16"), kind("int4 of 32")};
        const int64_t *d = shapes[(_i + 3 * s) % N_SHAPES];
        bool is_f16 = s == 1;
        product_case c = {of[s], d[0] + 3, d[1] < 140 ? d[1] : 140, d[2], experts[_i], elems[is_f16], elems[_i % 2],
                          s % 2 ? ELEM_BF16 : NO_ELEM, (spread)((s + _i) % N_SPREADS), !is_f16, _i % 2 == 1};
        run(&c, &mma, true);
    }
}
END_TEST

/// Rows that hold no numbers keep that to themselves, also those of other experts beside them.
START_TEST(no_number_leaks)
{
    product_case c = {kind("bf16"), 140, 12, 64, 5, ELEM_BF16, ELEM_F32, NO_ELEM, EVEN, true, false};
    product p = product_of(&c);
    static const int64_t odd[] = {7, 30, 139}; /* the last one is nobody's */
    for (int i = 0; i < 3; i++)
        for (int64_t k = 0; k < c.k; k++)
            ((uint16_t *)p.x)[odd[i] * c.k + k] = to_bf16(i == 1 ? INFINITY : NAN);
    product_run(&p, &mma);
    for (int64_t i = 0; i < p.owned * c.n; i++) {
        bool is_odd = i / c.n == odd[0] || i / c.n == odd[1];
        ck_assert(is_odd ? !isfinite(((float *)p.y)[i])
                         : fabs((double)((float *)p.y)[i] - (double)p.want[i]) < 1e-3);
    }
}
END_TEST

START_TEST(offsets_that_lie)
{
    product_case c = {kind(_i ? "int4 of 32" : "bf16"), 11, 9, 64, 4, ELEM_BF16, ELEM_F32, ELEM_F32, EVEN, true, false};
    product p = product_of(&c);
    product_check_lies(&p, &mma);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda products on tensor cores");
    TCase *c = tcase_create("mma");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, of_elements, 0, N_SHAPES);
    tcase_add_loop_test(c, of_every_weight, 0, n_weight_kinds);
    tcase_add_loop_test(c, of_experts, 0, N_GROUPED);
    tcase_add_test(c, no_number_leaks);
    tcase_add_loop_test(c, offsets_that_lie, 0, 2);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
