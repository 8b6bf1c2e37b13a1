// Ops on several devices: whatever is placed where, the passes keep the values, and what they make is in order.

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "passes/passes.h"
#include "tests/unit/random_graph.h"

enum { N_SEEDS = 240 };

static pm_arena *arena;
static pm_diag *diag;

static const pm_device devices[] = {{"cpu0", 40e9, 200e9, 40e9, UINT64_MAX},
                                    {"emu0", 400e9, 2e12, 20e9, UINT64_MAX},
                                    {"emu1", 400e9, 2e12, 20e9, UINT64_MAX}};

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

static const char *shown(const pm_module *m)
{
    fprintf(stderr, "%s\n", text_of(write_module, m));
    return "(see above)";
}

static pm_array *run(const pm_module *m, const pm_graph *like, uint64_t seed)
{
    const pm_graph *entry = m->entries.data[0];
    pm_array *inputs = random_inputs(arena, like, seed);
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    pm_status status = pm_interpret(arena, entry, inputs, entry->args.n, outputs);
    ck_assert_msg(status == PM_OK, "%s\n%s", text_of(write_diag, diag), status == PM_OK ? "" : shown(m));
    return outputs;
}

/// Experts, routers and every third op go anywhere.
static void place_at_random(pm_module *m, uint64_t seed)
{
    random_state r = {seed};
    for (pm_op *op = m->entries.data[0]->first; op; op = op->next) {
        const char *name = devices[random_below(&r, PM_COUNT(devices))].name;
        if (op->code == PM_OP_experts) {
            const char *list = name;
            for (int64_t e = 1; e < pm_op_i64(op, "experts"); e++)
                list = pm_arena_printf(arena, "%s,%s", list, devices[random_below(&r, PM_COUNT(devices))].name);
            pm_op_set_str(op, "devices", list);
        } else if (op->code == PM_OP_route) {
            pm_op_set_str(op, "device", name);
        } else if (random_below(&r, 3) == 0 && op->n_regions == 0 && op->code != PM_OP_const &&
                   !(pm_op_info_of(op)->traits & PM_T_WEIGHT)) {
            op->device = pm_intern(m, name);
        }
    }
}

static size_t count_transfers(const pm_module *m)
{
    size_t n = 0;
    for (const pm_op *op = m->entries.data[0]->first; op; op = op->next)
        n += op->code == PM_OP_transfer;
    return n;
}

/// Runs the passes with `n_devices` of the devices and compares; what comes out prints and parses as itself.
static pm_module *keeps_values(uint64_t seed, unsigned what, const char *passes, bool at_random, size_t n_devices)
{
    pm_module *m = random_module_of(arena, diag, seed, what), *again = NULL;
    ck_assert_msg(m != NULL, "%s", text_of(write_diag, diag));
    const pm_module *before = random_module_of(arena, diag, seed, what);
    pm_array *want = run(before, before->entries.data[0], seed);
    if (at_random)
        place_at_random(m, seed * 31 + 7);
    pm_pass_options options = {.opt_level = 3, .vector_floats = 8, .quantize = "none", .devices = devices,
                               .n_devices = n_devices};
    pm_pass_run passes_run = {.options = &options, .passes = passes, .verify_each = true, .pass_limit = -1,
                              .out = stderr};
    pm_status status = pm_passes_run(m, &passes_run);
    ck_assert_msg(status == PM_OK, "seed %llu: %s\n%s", (unsigned long long)seed, text_of(write_diag, diag),
                  status == PM_OK ? "" : shown(m));
    pm_array *got = run(m, before->entries.data[0], seed);
    for (size_t i = 0; i < before->entries.data[0]->results.n; i++) {
        const char *difference = arrays_differ(arena, &want[i], &got[i], 1e-5);
        ck_assert_msg(difference == NULL, "seed %llu, result %zu: %s\n%s", (unsigned long long)seed, i, difference,
                      difference == NULL ? "" : shown(m));
    }
    char *text = text_of(write_module, m);
    ck_assert_msg(pm_module_parse(arena, diag, "m.pm", text, strlen(text), NULL, &again) == PM_OK, "%s",
                  text_of(write_diag, diag));
    ck_assert_str_eq(text_of(write_module, again), text);
    return m;
}

static unsigned kind_of(int seed)
{
    return seed % 3 == 2 ? RANDOM_MOST | RANDOM_CONTROL : seed % 3 == 1 ? RANDOM_MOE : RANDOM_MOST;
}

START_TEST(test_anywhere)
{
    keeps_values((uint64_t)_i, kind_of(_i),
                 "lower-experts,shapes,canonicalise,fold,cse,assign-devices,quantize,layout,dce,transfers,fuse,dce,"
                 "plan-memory",
                 true, 2 + (size_t)_i % 2);
}
END_TEST

START_TEST(test_pipelines)
{
    static const char *const levels[] = {"O0", "O1", "O3"};
    keeps_values((uint64_t)_i, kind_of(_i), levels[_i % 3], false, 2 + (size_t)_i % 2);
}
END_TEST

START_TEST(test_cpu_alone)
{
    pm_module *m = keeps_values((uint64_t)_i, RANDOM_MOST, "O3", false, 1);
    ck_assert_uint_eq(count_transfers(m), 0);
    ck_assert_uint_eq(m->entries.data[0]->device_arenas.n, 0);
    for (const pm_op *op = m->entries.data[0]->first; op; op = op->next)
        ck_assert_ptr_null(op->device);
}
END_TEST

START_TEST(test_there_are_transfers)
{
    size_t n = 0, both = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        const pm_module *m = keeps_values(seed, RANDOM_MOE, "O3", true, 3);
        n += count_transfers(m) > 0;
        both += m->entries.data[0]->device_arenas.n == 2;
    }
    ck_assert_uint_gt(n, 8);
    ck_assert_uint_gt(both, 0);
}
END_TEST

/* ---- what the verifier refuses ----------------------------------------------------------------- */

static const char *const wrong[] = {
    // in a region
    "entry main(%c: bool[], %x: f32[4]) -> (y: %y) { %y = if(%c, %x) regions { (%u: f32[4]) -> (%v) { "
    "%v = relu(%u) on emu0 } (%u: f32[4]) -> (%v) { %v = neg(%u) } } }",
    "entry main() -> (y: %y) { %y = const {value = [1]} on emu0 : f32[1] }",
    // read where it doesn't lie
    "entry main(%x: f32[4] @ input(0)) -> (y: %z) plan(arena = 64, arena emu0 = 64) "
    "{ %y = relu(%x) on emu0 : f32[4] @ arena(0) %z = transfer(%y) : f32[4] @ output(0) }",
    "entry main(%x: f32[4] @ input(0)) -> (y: %z) plan(arena = 64, arena emu0 = 64) "
    "{ %y = transfer(%x) on emu0 : f32[4] @ arena(0) %z = relu(%y) : f32[4] @ output(0) }",
    "entry main(%x: f32[4] @ input(0)) -> (y: %x) plan(arena emu0 = 64) { }",
    "entry main(%x: f32[4] @ input(0)) -> (y: %x) plan(arena = 0, arena emu0 = 64, arena emu0 = 64) { }",
    "entry main(%x: f32[4]) -> (y: %y) { %y = relu(%x) on \"\" : f32[4] }",
};

START_TEST(test_refused)
{
    const char *text = pm_arena_printf(arena, "module \"m\" { %s }", wrong[_i]);
    pm_module *m = NULL;
    ck_assert_int_eq(pm_module_parse(arena, diag, "m.pm", text, strlen(text), NULL, &m), PM_ERR_INVALID);
}
END_TEST

int main(void)
{
    const char *more = getenv("PM_SEEDS");
    int n_seeds = more != NULL ? atoi(more) : N_SEEDS;
    Suite *suite = suite_create("devices");
    TCase *tests = tcase_create("devices");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_anywhere, 0, n_seeds);
    tcase_add_loop_test(tests, test_pipelines, 0, n_seeds / 2);
    tcase_add_loop_test(tests, test_cpu_alone, 0, 10);
    tcase_add_test(tests, test_there_are_transfers);
    tcase_add_loop_test(tests, test_refused, 0, (int)PM_COUNT(wrong));
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
