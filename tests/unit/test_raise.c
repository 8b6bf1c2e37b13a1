// What is raised computes what was written: every golden file of the raising passes (tests/ir/raise_*.pm), run by the
// interpreter as it is, after the passes that the file names, and after the whole pipeline.

#include <check.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ir/text.h"
#include "passes/passes.h"
#include "tests/unit/random_graph.h"

static pm_arena *arena;
static pm_diag *diag;
static glob_t files;

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

static const char *messages(void)
{
    pm_diag_print(diag, stderr, false);
    return "(see above)";
}

/// The file's options line from "--passes=" on; NULL: it has none.
static char *passes_of(const char *text)
{
    const char *at = strstr(text, "--passes=");
    return at ? pm_arena_strndup(arena, at + 9, strcspn(at + 9, " \n")) : NULL;
}

static pm_module *parsed(const char *path, const char *text)
{
    pm_module *m = NULL;
    ck_assert_msg(pm_module_parse(arena, diag, path, text, strlen(text), NULL, &m) == PM_OK, "%s: %s", path, messages());
    return m;
}

/// NULL: the inputs are refused (extents that the run compares).
static pm_array *interpreted(const pm_module *m, const pm_graph *like, uint64_t seed)
{
    const pm_graph *entry = m->entries.data[0];
    pm_array *inputs = random_inputs(arena, like, seed), *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    return pm_interpret(arena, entry, inputs, entry->args.n, outputs) == PM_OK ? outputs : NULL;
}

START_TEST(test_raising_keeps_results)
{
    static const pm_device cpu = {"cpu0", 40e9, 200e9, 40e9, UINT64_MAX};
    const pm_pass_options options = {.opt_level = 3, .vector_floats = 16, .quantize = "none", .devices = &cpu,
                                     .n_devices = 1};
    const char *path = files.gl_pathv[_i];
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, path, &file), PM_OK);
    ck_assert_int_eq(pm_file_map(arena, diag, file), PM_OK);
    char *text = pm_arena_strndup(arena, (const char *)file->data, file->size);
    const char *const lists[] = {passes_of(text), "O3"};
    if (strstr(text, "// fails:"))
        return; // refused, and not raised
    ck_assert_msg(lists[0] != NULL, "%s names no passes", path);
    for (size_t i = 0; i < PM_COUNT(lists); i++) {
        pm_module *original = parsed(path, text), *m = parsed(path, text);
        const pm_graph *entry = original->entries.data[0];
        pm_pass_run run = {.options = &options, .passes = lists[i], .pass_limit = -1, .verify_each = true};
        ck_assert_msg(pm_passes_run(m, &run) == PM_OK, "%s, %s: %s", path, lists[i], messages());
        for (uint64_t seed = 1; seed <= 4; seed++) {
            pm_array *want = interpreted(original, entry, seed), *got = interpreted(m, entry, seed);
            ck_assert_msg(!want == !got, "%s, %s, inputs %llu: only one of them is refused: %s", path, lists[i],
                          (unsigned long long)seed, messages());
            for (size_t k = 0; want && k < entry->results.n; k++) {
                const char *difference = arrays_differ(arena, &want[k], &got[k], 1e-5);
                ck_assert_msg(!difference, "%s, %s, inputs %llu, result %zu: %s", path, lists[i],
                              (unsigned long long)seed, k, difference);
            }
        }
    }
}
END_TEST

int main(void)
{
    if (glob(PM_SOURCE_DIR "/tests/ir/raise_*.pm", 0, NULL, &files) != 0 || files.gl_pathc < 10) {
        fprintf(stderr, "the golden files aren't there\n");
        return 1;
    }
    Suite *suite = suite_create("raise");
    TCase *tests = tcase_create("golden files");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_raising_keeps_results, 0, (int)files.gl_pathc);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    globfree(&files);
    return failed != 0;
}
