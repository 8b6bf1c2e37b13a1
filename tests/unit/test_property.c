// Random modules: they verify, print and parse to themselves, and mean the same afterwards.

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "tests/unit/random_graph.h"

enum { N_SEEDS = 400 };

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

static char *printed(const pm_module *m)
{
    return text_of(write_module, m);
}

/// For messages: long texts go to stderr, since Check refuses them.
static const char *shown(const char *text)
{
    fprintf(stderr, "%s\n", text);
    return "(see above)";
}

static pm_module *made(uint64_t seed, unsigned what)
{
    pm_module *m = random_module_of(arena, diag, seed, what);
    ck_assert_msg(m != NULL && pm_diag_count(diag, PM_ERROR) == 0, "seed %llu: %s",
                  (unsigned long long)seed, text_of(write_diag, diag));
    return m;
}

static pm_array *run(const pm_module *m, uint64_t seed)
{
    const pm_graph *entry = m->entries.data[0];
    pm_array *inputs = random_inputs(arena, entry, seed);
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    pm_status status = pm_interpret(arena, entry, inputs, entry->args.n, outputs);
    ck_assert_msg(status == PM_OK, "%s\n%s", text_of(write_diag, diag),
                  status == PM_OK ? "" : shown(printed(m)));
    return outputs;
}

/// Of the kinds of modules, by seed.
static unsigned kind_of(int seed)
{
    return seed % 3 == 2 ? RANDOM_MOST | RANDOM_CONTROL : seed % 3 == 1 ? RANDOM_MOE : RANDOM_MOST;
}

START_TEST(test_round_trip)
{
    pm_module *m = made((uint64_t)_i, kind_of(_i)), *again = NULL;
    char *text = printed(m);
    pm_status status = pm_module_parse(arena, diag, "m.pm", text, strlen(text), NULL, &again);
    ck_assert_msg(status == PM_OK, "%s\n%s", text_of(write_diag, diag),
                  status == PM_OK ? "" : shown(text));
    char *second = printed(again);
    if (strcmp(second, text) != 0)
        ck_abort_msg("%s %s", shown(text), shown(second));
    // the same symbols must be bound for the same inputs: those of the text are a subset
    pm_array *want = run(m, (uint64_t)_i);
    const pm_graph *entry = again->entries.data[0];
    pm_array *inputs = random_inputs(arena, m->entries.data[0], (uint64_t)_i);
    pm_array *got = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    ck_assert_int_eq(pm_interpret(arena, entry, inputs, entry->args.n, got), PM_OK);
    for (size_t i = 0; i < entry->results.n; i++) {
        const char *difference = arrays_differ(arena, &want[i], &got[i], 0);
        ck_assert_msg(difference == NULL, "result %zu: %s\n%s", i, difference,
                      difference == NULL ? "" : shown(text));
    }
}
END_TEST

START_TEST(test_results_are_moderate)
{
    // what the generator promises: so comparing with tolerances makes sense
    pm_module *m = made((uint64_t)_i, kind_of(_i));
    pm_array *outputs = run(m, (uint64_t)_i + 1);
    for (size_t i = 0; i < m->entries.data[0]->results.n; i++)
        for (int64_t k = 0; k < array_count(&outputs[i]); k++) {
            double x = array_element(&outputs[i], k);
            if (!isfinite(x) || fabs(x) > 1e6)
                ck_abort_msg("result %zu, element %lld: %g\n%s", i, (long long)k, x,
                             shown(printed(m)));
        }
}
END_TEST

START_TEST(test_seed_decides)
{
    for (uint64_t seed = 0; seed < 30; seed++) {
        char *text = printed(made(seed, RANDOM_MOST));
        ck_assert(strcmp(printed(random_module(arena, diag, seed)), text) == 0);
        ck_assert(strcmp(printed(made(seed + 1000, RANDOM_MOST)), text) != 0);
    }
}
END_TEST

static void count_ops(const pm_graph *g, size_t *counts)
{
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        counts[op->code]++;
        for (uint32_t i = 0; i < op->n_regions; i++)
            count_ops(op->regions[i], counts);
    }
}

START_TEST(test_ops_covered)
{
    // a new op must be generated, or be named here with its reason
    static const pm_opcode exempt[] = {
        PM_OP_fused,           PM_OP_stack,     PM_OP_pack, // made by passes, from others
        PM_OP_expert_rows,     PM_OP_last_rows,             // likewise; see test_interp.c
        PM_OP_rope_table,      PM_OP_rope,      PM_OP_cache_key,
        PM_OP_cache_value,
        PM_OP_attention,                    // a block of their own: test_interp.c
        PM_OP_kv_append,       PM_OP_sdpa,  // operands that fit one another: cases of test_native
        PM_OP_causal_conv,     PM_OP_linear_attention,
        PM_OP_selective_scan,               // likewise: states and their vectors
        PM_OP_capacity,                     // its operands are a route's
        PM_OP_isnan,           PM_OP_isinf, // values stay finite here
        PM_OP_empty,                        // has no value
        PM_OP_transfer,                     // passes make it: placements of their own
        PM_OP_range,           PM_OP_conv,      PM_OP_reduce_prod, // one each in test_interp.c
        PM_OP_gather_elements, PM_OP_gather_nd, PM_OP_scatter_elements,
        PM_OP_scatter_nd,
    };
    size_t counts[PM_OP_COUNT] = {0};
    for (uint64_t seed = 0; seed < 1500; seed++) {
        pm_arena *own = pm_arena_create();
        pm_module *m =
            random_module_of(own, pm_diag_create(own), seed, RANDOM_MOST | RANDOM_CONTROL);
        ck_assert_ptr_nonnull(m);
        count_ops(m->entries.data[0], counts);
        pm_arena_destroy(own);
    }
    for (size_t i = 0; i < PM_COUNT(exempt); i++)
        counts[exempt[i]]++;
    for (size_t i = 0; i < PM_OP_COUNT; i++)
        ck_assert_msg(counts[i] > 0, "no random module has %s", pm_op_table[i].name);
}
END_TEST

START_TEST(test_differences_are_seen)
{
    float a[3] = {1, 2, 3}, b[3] = {1, 2, 3.001f}, c[3] = {1, NAN, 3};
    pm_array x = {PM_F32, 1, {3}, a}, y = {PM_F32, 1, {3}, b}, z = {PM_F32, 1, {3}, c};
    ck_assert_ptr_null(arrays_differ(arena, &x, &x, 0));
    ck_assert_ptr_null(arrays_differ(arena, &z, &z, 0));
    ck_assert_ptr_nonnull(arrays_differ(arena, &x, &y, 1e-5));
    ck_assert_ptr_null(arrays_differ(arena, &x, &y, 1e-3));
    ck_assert_ptr_nonnull(arrays_differ(arena, &x, &z, 1));
    ck_assert_ptr_nonnull(arrays_differ(arena, &z, &x, 1));
    int64_t i[1] = {INT64_MAX}, j[1] = {INT64_MAX - 1};
    pm_array p = {PM_I64, 1, {1}, i}, q = {PM_I64, 1, {1}, j}, r = {PM_I64, 1, {2}, j};
    ck_assert_ptr_nonnull(arrays_differ(arena, &p, &q, 1));
    ck_assert_ptr_nonnull(arrays_differ(arena, &p, &r, 1));
    ck_assert_ptr_nonnull(arrays_differ(arena, &p, &x, 1));
}
END_TEST

int main(void)
{
    // PM_SEEDS=n runs more of them
    const char *more = getenv("PM_SEEDS");
    int n_seeds = more != NULL ? atoi(more) : N_SEEDS;
    Suite *suite = suite_create("property");
    TCase *tests = tcase_create("property");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_round_trip, 0, n_seeds);
    tcase_add_loop_test(tests, test_results_are_moderate, 0, n_seeds / 2);
    tcase_add_test(tests, test_seed_decides);
    tcase_add_test(tests, test_ops_covered);
    tcase_add_test(tests, test_differences_are_seen);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
