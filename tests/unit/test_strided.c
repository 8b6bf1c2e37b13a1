// Views: each element of a chain of transposes, slices and reshapes lies where strides say, as the
// interpreter finds it; what strides can't say is no view.

#include <check.h>
#include <string.h>

#include "base/str.h"
#include "ir/interp.h"
#include "ir/strided.h"
#include "ir/text.h"

static pm_arena *arena;

static void setup(void)
{
    arena = pm_arena_create();
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

/// %x is i64[2, 6, 4], each element its own number; the view is %v.
static pm_module *parse(const char *chain)
{
    pm_str text = pm_str_new(arena);
    pm_module *m = NULL;
    pm_str_printf(&text, "module \"m\" { entry main() -> (v: %%v) {\n %%x = const {value = [");
    for (int i = 0; i < 48; i++)
        pm_str_printf(&text, "%s%d", i ? ", " : "", i);
    pm_str_printf(&text, "]} : i64[2, 6, 4]\n%s\n} }", chain);
    pm_diag *diag = pm_diag_create(arena);
    pm_status status = pm_module_parse(arena, diag, "m.pm", text.data, strlen(text.data), NULL, &m);
    if (status != PM_OK)
        pm_diag_print(diag, stderr, false);
    ck_assert_int_eq(status, PM_OK);
    return m;
}

#define SLICE(to, from, a, b, axis, step)                                                          \
    "%" to "a = const {value = [" a "]} : i64[1] %" to "b = const {value = [" b "]} : i64[1] "      \
    "%" to "x = const {value = [" axis "]} : i64[1] %" to "s = const {value = [" step "]} : i64[1] " \
    "%" to " = slice(%" from ", %" to "a, %" to "b, %" to "x, %" to "s) "
#define RESHAPE(to, from, rank, dims)                                                              \
    "%" to "d = const {value = [" dims "]} : i64[" rank "] %" to " = reshape(%" from ", %" to "d) "

static const char *const views[] = {
    "%v = transpose(%x) {perm = [2, 0, 1]}",
    SLICE("v", "x", "1", "6", "1", "2"),
    SLICE("v", "x", "-1", "-9", "1", "-2"),
    SLICE("v", "x", "4", "99", "1", "1"),
    SLICE("u", "x", "0", "6", "1", "2") SLICE("v", "u", "1", "3", "1", "1"),
    RESHAPE("u", "x", "2", "12, 4") "%v = transpose(%u) {perm = [1, 0]}",
    RESHAPE("v", "x", "5", "2, 3, 2, 1, 4"),
    RESHAPE("u", "x", "4", "2, 3, 2, 4") SLICE("w", "u", "1", "2", "2", "1") RESHAPE("v", "w", "3", "2, 3, 4"),
    SLICE("u", "x", "1", "5", "1", "1") RESHAPE("v", "u", "2", "2, 16"),
    SLICE("u", "x", "1", "2", "0", "1") RESHAPE("v", "u", "1", "24"),
    "%u = transpose(%x) {perm = [0, 2, 1]} " SLICE("w", "u", "2", "4", "1", "1") "%v = transpose(%w) {perm = [0, 2, 1]}",
    RESHAPE("v", "x", "3", "4, 12, 1"),
};

START_TEST(test_views)
{
    pm_module *m = parse(views[_i]);
    pm_graph *entry = m->entries.data[0];
    pm_value *v = entry->results.data[0];
    pm_strided s;
    pm_array got;
    ck_assert(pm_strided_of(m, v, &s));
    ck_assert(pm_value_const(s.root) != NULL);
    ck_assert_int_eq(pm_interpret(arena, entry, NULL, 0, &got), PM_OK);
    ck_assert_int_eq(got.rank, s.rank);
    int64_t count = 1, index[PM_MAX_RANK] = {0};
    for (int32_t i = 0; i < s.rank; i++) {
        ck_assert_int_eq(got.dims[i], s.dims[i]);
        count *= s.dims[i];
    }
    ck_assert_int_gt(count, 0);
    for (int64_t n = 0; n < count; n++) {
        int64_t at = s.offset;
        for (int32_t i = 0; i < s.rank; i++)
            at += index[i] * s.strides[i];
        ck_assert_int_eq(at, ((const int64_t *)got.data)[n]);
        for (int32_t i = s.rank - 1; i >= 0 && ++index[i] == s.dims[i]; i--)
            index[i] = 0;
    }
}
END_TEST

static const char *const others[] = {
    "%u = transpose(%x) {perm = [0, 2, 1]} " RESHAPE("v", "u", "2", "2, 24"),
    SLICE("u", "x", "0", "6", "1", "2") RESHAPE("v", "u", "2", "2, 12"),
    SLICE("u", "x", "0", "5", "1", "1") RESHAPE("v", "u", "1", "40"),
};

START_TEST(test_others)
{
    pm_module *m = parse(others[_i]);
    pm_strided s;
    ck_assert(!pm_strided_of(m, m->entries.data[0]->results.data[0], &s));
}
END_TEST

START_TEST(test_other_ops_end_a_view)
{
    pm_module *m = parse("%u = neg(%x) %v = transpose(%u) {perm = [1, 0, 2]}");
    const pm_value *v = m->entries.data[0]->results.data[0];
    pm_strided s;
    ck_assert(pm_strided_of(m, v, &s));
    ck_assert_ptr_eq(s.root, v->def->operands[0]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("strided");
    TCase *tc = tcase_create("views");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, test_views, 0, (int)(sizeof views / sizeof views[0]));
    tcase_add_loop_test(tc, test_others, 0, (int)(sizeof others / sizeof others[0]));
    tcase_add_test(tc, test_other_ops_end_a_view);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
