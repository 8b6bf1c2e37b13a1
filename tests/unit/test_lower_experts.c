// Experts as sorted rows: what runs over the rows of all experts at once must be row-wise.

#include <check.h>
#include <string.h>

#include "ir/text.h"
#include "passes/passes.h"

static pm_arena *arena;
static pm_diag *diag;

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

/// Lowers a module whose shared body is `body`, from %rows [r, 4] to %o.
static pm_status lower(const char *body)
{
    const char *text = pm_arena_printf(
        arena,
        "module \"m\" {\n"
        "  symbol N in [0, 20]\n"
        "  symbol r dynamic in [0, 40] <= 2*N\n"
        "  entry main(%%x: f32[N, 4], %%expert: i32[N, 2], %%weight: f32[N, 2],\n"
        "             %%w: f32[3, 4, 4]) -> (y: %%y) {\n"
        "    %%y = experts(%%x, %%expert, %%weight, %%w) {experts = 3, top_k = 2} : f32[N, 4] "
        "regions {\n"
        "      (%%rows: f32[r, 4], %%v: f32[4, 4]) -> (%%o) {\n%s\n}\n    }\n  }\n}\n",
        body);
    pm_module *m = NULL;
    ck_assert_int_eq(pm_module_parse(arena, diag, "m.pm", text, strlen(text), NULL, &m), PM_OK);
    pm_pass_options options = {.quantize = "none", .vector_floats = 8};
    pm_pass_run run = {.options = &options,
                       .passes = "lower-experts",
                       .verify_each = true,
                       .pass_limit = -1,
                       .out = stderr};
    return pm_passes_run(m, &run);
}

static const char *const row_wise[] = {
    "%a = linear(%rows, %v) %o = silu(%a)",
    "%o = softmax(%rows) {axis = 1}",
    "%m = reduce_max(%rows) {axes = [1]} %o = sub(%rows, %m)",
    ("%s = dims [r, 2, 2] %t = reshape(%rows, %s) %u = transpose(%t) {perm = [0, 2, 1]} "
     "%z = dims [r, 4] %o = reshape(%u, %z)"),
    "%c = const {value = [1, 2, 3, 4]} : f32[4] %o = mul(%rows, %c)",
};

START_TEST(test_row_wise)
{
    ck_assert_int_eq(lower(row_wise[_i]), PM_OK);
}
END_TEST

static const char *const mixing[] = {
    "%o = softmax(%rows) {axis = 0}",
    "%m = reduce_max(%rows) {axes = [0]} %o = sub(%rows, %m)",
    "%o = cumsum(%rows) {axis = 0}",
    "%t = transpose(%rows) {perm = [1, 0]} %g = matmul(%t, %rows) %o = matmul(%rows, %g)",
};

START_TEST(test_mixing)
{
    ck_assert_int_eq(lower(mixing[_i]), PM_ERR_UNSUPPORTED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lower_experts");
    TCase *tests = tcase_create("lower_experts");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, test_row_wise, 0, sizeof row_wise / sizeof *row_wise);
    tcase_add_loop_test(tests, test_mixing, 0, sizeof mixing / sizeof *mixing);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
