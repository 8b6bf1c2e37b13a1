// Passes: what the pass manager promises; and random modules mean the same after every pass and
// every pipeline as before.

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "passes/passes.h"
#include "random_graph.h"

enum { N_SEEDS = 150 };

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

static char *text_of(void (*write)(FILE *out, const void *what), const void *what)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    write(out, what);
    fclose(out);
    char *copy = pm_arena_strndup(arena, text, n);
    free(text);
    return copy;
}

static void write_module(FILE *out, const void *what)
{
    pm_module_print(what, out);
}

static void write_diag(FILE *out, const void *what)
{
    pm_diag_print(what, out, false);
}

/// For messages: long texts go to stderr, since Check refuses them.
static const char *shown(const pm_module *m)
{
    fprintf(stderr, "%s\n", text_of(write_module, m));
    return "(see above)";
}

/* ---- random modules --------------------------------------------------------------------------- */

static const pm_device cpu = {"cpu0", 40e9, 200e9, 40e9, UINT64_MAX};
static const pm_pass_options plain = {.opt_level = 3, .vector_floats = 16, .quantize = "none",
                                      .devices = &cpu, .n_devices = 1};

static pm_array *interpreted(const pm_module *m, const pm_graph *like, uint64_t seed)
{
    const pm_graph *entry = m->entries.data[0];
    pm_array *inputs = random_inputs(arena, like, seed);
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    pm_status status = pm_interpret(arena, entry, inputs, entry->args.n, outputs);
    ck_assert_msg(status == PM_OK, "%s\n%s", text_of(write_diag, diag),
                  status == PM_OK ? "" : shown(m));
    return outputs;
}

static unsigned kind_of(int seed)
{
    return seed % 3 == 2 ? RANDOM_MOST | RANDOM_CONTROL : seed % 3 == 1 ? RANDOM_MOE : RANDOM_MOST;
}

/// Passes that compute float sums anew in another order; all others keep every bit.
static double tolerance_of(const char *passes)
{
    // packed weights are f32: products of f64 lose what f32 can't hold
    return strstr(passes, "layout") || passes[0] == 'O' ? 1e-5 : 0;
}

/// False: refused with a message.
static bool compare(const char *passes, uint64_t seed)
{
    pm_module *m = random_module_of(arena, diag, seed, kind_of((int)seed));
    ck_assert_ptr_nonnull(m);
    pm_module *original = random_module_of(arena, diag, seed, kind_of((int)seed));
    pm_pass_run run = {.options = &plain, .passes = passes, .pass_limit = -1, .verify_each = true};
    pm_status status = pm_passes_run(m, &run);
    if (status == PM_ERR_UNSUPPORTED)
        return false;
    ck_assert_msg(status == PM_OK, "%s, seed %llu: %s%s", passes, (unsigned long long)seed,
                  text_of(write_diag, diag), shown(m));
    pm_array *want = interpreted(original, original->entries.data[0], seed);
    pm_array *got = interpreted(m, original->entries.data[0], seed);
    for (size_t i = 0; i < original->entries.data[0]->results.n; i++) {
        const char *difference = arrays_differ(arena, &want[i], &got[i], tolerance_of(passes));
        if (difference)
            ck_abort_msg("%s, seed %llu, result %zu: %s\n%s%s", passes, (unsigned long long)seed, i,
                         difference, shown(original), shown(m));
    }
    return true;
}

START_TEST(test_each_pass_keeps_results)
{
    for (size_t i = 0; i < pm_pass_count_all; i++)
        compare(pm_pass_table[i].name, (uint64_t)_i);
}
END_TEST

START_TEST(test_pipelines_keep_results)
{
    static const char *const lists[] = {"O0", "O1", "O2", "O3",
                                        "shapes,canonicalise,fold,canonicalise,cse,dce"};
    for (size_t i = 0; i < PM_COUNT(lists); i++)
        compare(lists[i], (uint64_t)_i);
}
END_TEST

START_TEST(test_few_are_refused)
{
    // else the tests above would say little
    int n_refused = 0;
    for (uint64_t seed = 0; seed < 60; seed++)
        n_refused += !compare("O3", seed);
    ck_assert_msg(n_refused <= 15, "%d of 60 modules are refused", n_refused);
}
END_TEST

int main(void)
{
    // PM_SEEDS=n runs more of them
    const char *more = getenv("PM_SEEDS");
    int n_seeds = more != NULL ? atoi(more) : N_SEEDS;
    Suite *suite = suite_create("passes");
    TCase *tests = tcase_create("passes");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_each_pass_keeps_results, 0, n_seeds);
    tcase_add_loop_test(tests, test_pipelines_keep_results, 0, n_seeds);
    tcase_add_test(tests, test_few_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
