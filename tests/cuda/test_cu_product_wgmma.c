/* Products by warpgroups: against the ops' meaning, in bf16 and in f16, whole tiles and ragged ones, by as many blocks as
 * there are tiles and by fewer. */
#include <check.h>
#include <math.h>

#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "tests/cuda/product_case.h"

static const product_road wgmma = {"pm_cu_product_wgmma", 384, 216048, CU_WGMMA_ROWS, CU_WGMMA_COLUMNS};

/// Sums of up to 600 factors in f32.
static const double tolerance = 4e-5;

static const weight_kind *kind(int64_t elem)
{
    for (int i = 0; i < n_weight_kinds; i++)
        if (weight_kinds[i].elem == elem)
            return &weight_kinds[i];
    ck_abort_msg("no weight of elements %ld", (long)elem);
}

static product made(const product_case *c)
{
    product p = product_of(c);
    product_map(&p, CU_WGMMA_COLUMNS);
    return p;
}

static void run(const product_case *c, int64_t most_blocks)
{
    product p = made(c);
    p.most_blocks = most_blocks;
    product_run(&p, &wgmma);
    product_check(&p, wgmma.kernel, tolerance);
    for (int64_t row = p.owned - 1; row >= 0; row -= p.owned / 2 + 1)
        product_check_alone(&p, row, &wgmma);
}

/// Rows, columns, factors (multiples of 8).
static const int64_t shapes[][3] = {{1, 8, 64},     {63, 100, 72},  {64, 1, 512},   {65, 256, 8},  {127, 8, 104},
                                    {128, 256, 64}, {129, 300, 40}, {300, 100, 72}, {2, 520, 512}, {17, 33, 264}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

START_TEST(of_elements)
{
    static const int64_t elems[] = {ELEM_BF16, ELEM_F16, ELEM_F32};
    const int64_t *d = shapes[_i];
    for (int is_f16 = 0; is_f16 < 2; is_f16++) {
        product_case c = {kind(elems[is_f16]), d[0], d[1], d[2], 0, elems[is_f16], elems[(is_f16 + _i) % 3],
                          (is_f16 + _i) % 2 ? elems[_i % 3] : NO_ELEM, EVEN, !is_f16, false};
        run(&c, 0);
    }
}
END_TEST

static const int64_t experts[] = {4, 1, 7, 40, 33, 3};
enum { N_GROUPED = sizeof experts / sizeof experts[0] };

START_TEST(of_experts)
{
    static const int64_t elems[] = {ELEM_BF16, ELEM_F16};
    for (int s = 0; s < N_SPREADS; s++) {
        const int64_t *d = shapes[(_i + 3 * s) % N_SHAPES];
        bool is_f16 = s == 1;
        product_case c = {kind(elems[is_f16]), d[0] + 3, d[1] < 140 ? d[1] : 140, d[2], experts[_i], elems[is_f16],
                          elems[_i % 2], s % 2 ? ELEM_BF16 : NO_ELEM, (spread)((s + _i) % N_SPREADS), !is_f16, _i % 2 == 1};
        run(&c, s == 2 ? 0 : s + 1);
    }
}
END_TEST

/// Several tiles a block, with several turns of the stages and with less than one each.
START_TEST(of_few_blocks)
{
    static const int64_t depths[] = {600, 24, 328};
    for (int64_t blocks = 1; blocks <= 3; blocks += 2) {
        product_case dense = {kind(ELEM_BF16), 140, 600, depths[_i], 0, ELEM_BF16, ELEM_BF16, NO_ELEM, EVEN, true, false};
        run(&dense, blocks);
        product_case grouped = {kind(ELEM_F16), 200, 260, depths[_i], 6, ELEM_F16, ELEM_F32, ELEM_F32, SOME_EMPTY, false,
                                true};
        run(&grouped, blocks);
    }
}
END_TEST

/// Rows that hold no numbers keep that to themselves, also those of other experts beside them.
START_TEST(no_number_leaks)
{
    product_case c = {kind(ELEM_BF16), 140, 12, 64, 5, ELEM_BF16, ELEM_F32, NO_ELEM, EVEN, true, false};
    product p = made(&c);
    static const int64_t odd[] = {7, 30, 139}; /* the last one is nobody's */
    for (int i = 0; i < 3; i++)
        for (int64_t k = 0; k < c.k; k++)
            ((uint16_t *)p.x)[odd[i] * c.k + k] = to_bf16(i == 1 ? INFINITY : NAN);
    product_run(&p, &wgmma);
    for (int64_t i = 0; i < p.owned * c.n; i++) {
        bool is_odd = i / c.n == odd[0] || i / c.n == odd[1];
        ck_assert(is_odd ? !isfinite(((float *)p.y)[i])
                         : fabs((double)((float *)p.y)[i] - (double)p.want[i]) < 1e-3);
    }
}
END_TEST

START_TEST(offsets_that_lie)
{
    product_case c = {kind(ELEM_BF16), 11, 9, 64, 4, ELEM_BF16, ELEM_F32, ELEM_F32, EVEN, true, false};
    product p = made(&c);
    product_check_lies(&p, &wgmma);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cuda products by warpgroups");
    TCase *c = tcase_create("wgmma");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, of_elements, 0, N_SHAPES);
    tcase_add_loop_test(c, of_experts, 0, N_GROUPED);
    tcase_add_loop_test(c, of_few_blocks, 0, 3);
    tcase_add_test(c, no_number_leaks);
    tcase_add_test(c, offsets_that_lie);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    enum { EXIT_SKIP = 77 }; // a chip without wgmma
    return cu_has(wgmma.kernel) ? run_suite(suite) : EXIT_SKIP;
}
