// The interpreter: symbols, regions, experts, packed weights, and errors that name their place.

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ir/interp.h"
#include "ir/text.h"
#include "tests/unit/random_graph.h"

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

static const char *first_error(void)
{
    for (size_t i = 0; i < pm_diag_size(diag); i++)
        if (pm_diag_at(diag, i)->severity == PM_ERROR)
            return pm_diag_at(diag, i)->text;
    return "(no error)";
}

static pm_module *parsed_in(const char *body, const char *dir)
{
    pm_module *m = NULL;
    const char *text = pm_arena_printf(arena, "module \"t\" {\n%s\n}\n", body);
    pm_status status = pm_module_parse(arena, diag, "t.pm", text, strlen(text), dir, &m);
    ck_assert_msg(status == PM_OK, "%s in\n%s", first_error(), text);
    return m;
}

static pm_array floats(int32_t rank, const int64_t *dims, const float *values)
{
    pm_array a = {.elem = PM_F32, .rank = rank};
    for (int32_t i = 0; i < rank; i++)
        a.dims[i] = dims[i];
    size_t n = (size_t)array_count(&a);
    a.data = PM_NEW_ARRAY(arena, float, n);
    if (n > 0)
        memcpy(a.data, values, n * sizeof(float));
    return a;
}

static pm_array ints(int32_t rank, const int64_t *dims, const int64_t *values)
{
    pm_array a = floats(0, NULL, (const float[]){0});
    a.elem = PM_I64;
    a.rank = rank;
    for (int32_t i = 0; i < rank; i++)
        a.dims[i] = dims[i];
    size_t n = (size_t)array_count(&a);
    a.data = PM_NEW_ARRAY(arena, int64_t, n);
    if (n > 0)
        memcpy(a.data, values, n * sizeof(int64_t));
    return a;
}

#define DIMS(...)                                                                                  \
    (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[])                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define F(...) ((const float[]){__VA_ARGS__})
#define I(...) ((const int64_t[]){__VA_ARGS__})

static pm_array *run(const pm_module *m, const pm_array *inputs, size_t n)
{
    const pm_graph *entry = m->entries.data[0];
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    pm_status status = pm_interpret(arena, entry, inputs, n, outputs);
    ck_assert_msg(status == PM_OK, "%s", first_error());
    return outputs;
}

static pm_array *run_text(const char *body, const pm_array *inputs, size_t n)
{
    return run(parsed_in(body, NULL), inputs, n);
}

/// The run must fail with that message; returns the error's entry.
static const pm_diag_entry *refused(const char *body, const pm_array *inputs, size_t n,
                                    const char *message)
{
    pm_module *m = parsed_in(body, NULL);
    const pm_graph *entry = m->entries.data[0];
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    pm_status status = pm_interpret(arena, entry, inputs, n, outputs);
    ck_assert_msg(status != PM_OK, "accepted");
    ck_assert_msg(strstr(first_error(), message) != NULL, "'%s', expected '%s'", first_error(),
                  message);
    return pm_diag_at(diag, pm_diag_size(diag) - 1);
}

static void check(const pm_array *got, const pm_array *want, double tolerance)
{
    const char *difference = arrays_differ(arena, want, got, tolerance);
    ck_assert_msg(difference == NULL, "%s", difference);
}

static void check_floats(const pm_array *got, int32_t rank, const int64_t *dims,
                         const float *values)
{
    pm_array want = floats(rank, dims, values);
    check(got, &want, 1e-6);
}

// ---- symbols and data ----

START_TEST(test_symbols_are_bound)
{
    const pm_array inputs[] = {floats(DIMS(6), F(1, 2, 3, 4, 5, 6)),
                               floats(DIMS(2, 3), F(1, 1, 1, 2, 2, 2))};
    // the first argument's extent is known only after the second's
    pm_array *out = run_text("symbol B symbol T\n"
                             "entry e(%a: f32[B*T], %b: f32[B, T]) -> (%y, %d) {\n"
                             "  %s = dims [B, T]\n"
                             "  %r = reshape(%a, %s)\n"
                             "  %y = add(%r, %b)\n"
                             "  %d = dims [B + 10*T, 7, floordiv(T, B)]\n}",
                             inputs, 2);
    check_floats(&out[0], DIMS(2, 3), F(2, 3, 4, 6, 7, 8));
    pm_array want = ints(DIMS(3), I(32, 7, 1));
    check(&out[1], &want, 0);
}
END_TEST

START_TEST(test_symbols_bound_by_rounding)
{
    // C stands in no extent alone: it is the most that gives the rounded one
    const pm_array inputs[] = {floats(DIMS(2, 1), F(1, 2))};
    const char *body = "symbol C in [1, %s]\nentry e(%%x: f32[ceildiv(C, 16), 1]) -> (%%d) {"
                       " %%d = dims [C] }";
    pm_array want = ints(DIMS(1), I(32));
    check(run_text(pm_arena_printf(arena, body, "1024"), inputs, 1), &want, 0);
    want = ints(DIMS(1), I(20));
    check(run_text(pm_arena_printf(arena, body, "20"), inputs, 1), &want, 0);
    refused(pm_arena_printf(arena, body, "16"), inputs, 1, "f32[2, 1], expected f32[1, 1]");
    diag = pm_diag_create(arena);
    refused("symbol T\nentry e(%x: f32[3*T]) -> (%d) { %d = dims [T] }",
            (const pm_array[]){floats(DIMS(4), F(1, 2, 3, 4))}, 1, "with 3*T = 3");
}
END_TEST

START_TEST(test_inputs_that_do_not_fit)
{
    const char *body = "symbol B in [1, 2]\nentry e(%a: f32[B, 3], %b: f32[B]) -> (%a) {}";
    const pm_array a = floats(DIMS(2, 3), F(1, 2, 3, 4, 5, 6)), b = floats(DIMS(2), F(1, 2));
    refused(body, (const pm_array[]){a, floats(DIMS(1), F(1))}, 2,
            "argument 'b' is f32[1], expected f32[B] with B = 2");
    diag = pm_diag_create(arena);
    refused(body, (const pm_array[]){floats(DIMS(2, 2), F(1, 2, 3, 4)), b}, 2,
            "argument 'a' is f32[2, 2], expected f32[B, 3]");
    diag = pm_diag_create(arena);
    refused(body, (const pm_array[]){floats(DIMS(3, 3), F(1, 2, 3, 4, 5, 6, 7, 8, 9)), b}, 2,
            "B must be in [1, 2]");
    diag = pm_diag_create(arena);
    refused(body, (const pm_array[]){a, ints(DIMS(2), I(1, 2))}, 2,
            "argument 'b' is i64[2], expected f32[B]");
    diag = pm_diag_create(arena);
    refused(body, (const pm_array[]){a, floats(DIMS(2, 1), F(1, 2))}, 2,
            "argument 'b' is f32[2, 1]");
    diag = pm_diag_create(arena);
    refused(body, &a, 1, "entry 'e' takes 2 inputs, found 1");
    diag = pm_diag_create(arena);
    pm_array none = b;
    none.data = NULL;
    refused(body, (const pm_array[]){a, none}, 2, "argument 'b' has no data");
    diag = pm_diag_create(arena);
    none.dims[0] = -2;
    refused(body, (const pm_array[]){a, none}, 2, "argument 'b' has no data, or no valid size");
}
END_TEST

START_TEST(test_inputs_stay)
{
    // in-place ops and states give copies
    pm_array cache = floats(DIMS(1, 1, 2, 1), F(8, 9)), v = floats(DIMS(1, 1, 1), F(5));
    pm_array past = ints(DIMS(1), I(1));
    pm_array *out = run_text("state \"v\" : f32[1, 1, 2, 1]\n"
                             "entry e(%c: f32[1, 1, 2, 1] state \"v\", %v: f32[1, 1, 1], "
                             "%past: i64[1]) -> (%y state \"v\", again: %c state \"v\") {\n"
                             "%y = cache_value(%c, %v, %past) }",
                             (const pm_array[]){cache, v, past}, 3);
    check_floats(&out[0], DIMS(1, 1, 2, 1), F(8, 5));
    check_floats(&out[1], DIMS(1, 1, 2, 1), F(8, 9));
    ck_assert(((float *)cache.data)[1] == 9);
}
END_TEST

START_TEST(test_data_dependent)
{
    pm_array x = floats(DIMS(5), F(0, 3, 0, -1, 2));
    const char *body = "symbol N in [1, 10]\n"
                       "entry e(%x: f32[N]) -> (%values, %n, %sum) {\n"
                       "  %z = const {value = [0]} : f32[]\n"
                       "  %where = nonzero(%x)\n"
                       "  %all = const {value = [-1]} : i64[1]\n"
                       "  %list = reshape(%where, %all)\n"
                       "  %values = gather(%x, %list)\n"
                       "  %n = shape(%values)\n"
                       "  %sum = reduce_sum(%values) {axes = [0]}\n}";
    pm_array *out = run_text(body, &x, 1);
    check_floats(&out[0], DIMS(3), F(3, -1, 2));
    pm_array n = ints(DIMS(1), I(3));
    check(&out[1], &n, 0);
    check_floats(&out[2], DIMS(1), F(4));
    x = floats(DIMS(2), F(0, 0));
    out = run_text(body, &x, 1);
    ck_assert_int_eq(out[0].dims[0], 0);
    check_floats(&out[2], DIMS(1), F(0));
    // a bound is a promise that memory planning relies on
    x = floats(DIMS(5), F(1, 3, 1, -1, 2));
    refused("symbol N in [1, 10]\nsymbol n dynamic in [0, 3]\n"
            "entry e(%x: f32[N]) -> (%w) { %w = nonzero(%x) : i64[1, n] }",
            &x, 1, "n must be in [0, 3]");
}
END_TEST

START_TEST(test_empty_tensors)
{
    pm_array x = floats(DIMS(0, 4), NULL);
    x.data = NULL;
    pm_array *out = run_text("symbol B\nentry e(%x: f32[B, 4]) -> (%y, %s) {\n"
                             "  %w = const {value = splat(1)} : f32[3, 4]\n"
                             "  %y = linear(%x, %w)\n"
                             "  %s = reduce_sum(%x) {axes = [0], keepdims = false}\n}",
                             &x, 1);
    ck_assert_int_eq(out[0].dims[0], 0);
    check_floats(&out[1], DIMS(4), F(0, 0, 0, 0));
}
END_TEST

START_TEST(test_constants_from_files)
{
    char dir[] = "/tmp/pm_interp_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    char *path = pm_arena_printf(arena, "%s/w", dir);
    const float values[3] = {1.5f, -2, 3};
    FILE *file = fopen(path, "wb");
    fputc(0, file); // so that the elements are not aligned
    fwrite(values, sizeof values, 1, file);
    fclose(file);
    pm_module *m = parsed_in("entry e() -> (%y) {\n"
                             "  %w = const {value = file(\"w\", 1, 12)} : f32[3]\n"
                             "  %y = neg(%w)\n}",
                             dir);
    check_floats(run(m, NULL, 0), DIMS(3), F(-1.5f, 2, -3));
    // the same when the file is mapped
    const pm_op *w = m->entries.data[0]->first;
    pm_file *mapped = (pm_file *)pm_value_const(w->results[0])->file;
    ck_assert_int_eq(pm_file_map(arena, diag, mapped), PM_OK);
    check_floats(run(m, NULL, 0), DIMS(3), F(-1.5f, 2, -3));
    unlink(path);
    rmdir(dir);
}
END_TEST

START_TEST(test_memory_follows_liveness)
{
    // 1,500 MiB pass through, two tensors live at a time
    enum { N_OPS = 1500 };
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    fprintf(out, "entry e(%%0: f32[262144]) -> (%%%d) {\n", (int)N_OPS);
    for (int i = 0; i < N_OPS; i++)
        fprintf(out, "%%%d = relu(%%%d)\n", i + 1, i);
    fputs("}", out);
    fclose(out);
    pm_array x = {PM_F32, 1, {262144}, PM_NEW_ARRAY(arena, float, 262144)};
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    pm_array *y = run_text(text, &x, 1);
    getrusage(RUSAGE_SELF, &after);
    free(text);
    check(y, &x, 0);
    ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 800 << 10); // ASan keeps freed memory
}
END_TEST

// ---- errors in the data ----

START_TEST(test_data_at_fault)
{
    pm_array x = floats(DIMS(3), F(1, 2, 3)), bad = ints(DIMS(1), I(3));
    const pm_diag_entry *error =
        refused("entry e(%x: f32[3], %i: i64[1]) -> (%y) {\n"
                "  %y = gather(%x, %i) loc(\"model.onnx\" node \"pick\" (\"Gather\"))\n}",
                (const pm_array[]){x, bad}, 2, "gather: the data are at fault");
    ck_assert_str_eq(error->loc->file, "model.onnx");
    ck_assert_str_eq(error->loc->name, "pick");
    diag = pm_diag_create(arena);
    pm_array zero = ints(DIMS(1), I(0));
    refused("entry e(%a: i64[1], %b: i64[1]) -> (%y) { %y = div(%a, %b) }",
            (const pm_array[]){bad, zero}, 2, "div: the data are at fault");
    diag = pm_diag_create(arena);
    // sizes that the text promises, and the data don't keep
    refused("symbol N in [1, 10]\nsymbol n dynamic in [0, 10]\n"
            "entry e(%x: f32[N], %s: i64[1]) -> (%y) { %y = reshape(%x, %s) : f32[2*N] }",
            (const pm_array[]){x, ints(DIMS(1), I(-1))}, 2, "expected f32[2*N] with 2*N = 6");
    diag = pm_diag_create(arena);
    refused("entry e(%s: i64[2]) -> (%y) { %v = const {value = [0]} : f32[] %y = fill(%s, %v) }",
            (const pm_array[]){ints(DIMS(2), I(INT64_MAX, INT64_MAX))}, 1, "too large");
}
END_TEST

// ---- regions ----

START_TEST(test_fused)
{
    pm_array x = floats(DIMS(2), F(-1, 4));
    pm_array *out =
        run_text("symbol B\nentry e(%x: f32[B]) -> (%y, %z) {\n"
                 "  %y, %z = fused(%x, %x) regions { (%a: f32[B], %b: f32[B]) -> (%c, %a) "
                 "{ %c = mul(%a, %b) } }\n}",
                 &x, 1);
    check_floats(&out[0], DIMS(2), F(1, 16));
    check_floats(&out[1], DIMS(2), F(-1, 4));
}
END_TEST

START_TEST(test_if)
{
    const char *body = "entry e(%c: bool[], %x: f32[2]) -> (%y) {\n"
                       "  %y = if(%c, %x) regions {\n"
                       "    (%x: f32[2]) -> (%y) { %y = neg(%x) }\n"
                       "    (%x: f32[2]) -> (%x) { }\n  }\n}";
    pm_array x = floats(DIMS(2), F(-1, 4));
    uint8_t truth = 1, lie = 0;
    check_floats(run_text(body, (const pm_array[]){{PM_BOOL, 0, {0}, &truth}, x}, 2), DIMS(2),
                 F(1, -4));
    check_floats(run_text(body, (const pm_array[]){{PM_BOOL, 0, {0}, &lie}, x}, 2), DIMS(2),
                 F(-1, 4));
}
END_TEST

/// Doubles x until `limit` rounds are done or the sum is 8 or more; scans x.
static const char loop_body[] =
    "entry e(%n: i64[], %x: f32[2]) -> (%y, %s) {\n"
    "  %true = const {value = [true]} : bool[]\n"
    "  %limit = const {value = [8]} : f32[]\n"
    "  %y, %s = loop(%n, %true, %x, %limit) {carried = 1, scanned = 1} regions {\n"
    "    (%i: i64[], %go: bool[], %x: f32[2], %limit: f32[]) -> (%more, %twice, %x) {\n"
    "      %twice = add(%x, %x)\n"
    "      %sum = reduce_sum(%twice) {axes = [0], keepdims = false}\n"
    "      %more = less(%sum, %limit)\n    }\n  }\n}";

START_TEST(test_loop)
{
    pm_array x = floats(DIMS(2), F(1, 0)), n = ints(0, NULL, I(10));
    pm_array *out = run_text(loop_body, (const pm_array[]){n, x}, 2);
    check_floats(&out[0], DIMS(2), F(8, 0));
    check_floats(&out[1], DIMS(3, 2), F(1, 0, 2, 0, 4, 0));
    n = ints(0, NULL, I(2));
    out = run_text(loop_body, (const pm_array[]){n, x}, 2);
    check_floats(&out[0], DIMS(2), F(4, 0));
    check_floats(&out[1], DIMS(2, 2), F(1, 0, 2, 0));
    n = ints(0, NULL, I(0));
    out = run_text(loop_body, (const pm_array[]){n, x}, 2);
    check_floats(&out[0], DIMS(2), F(1, 0));
    check_floats(&out[1], DIMS(0, 2), NULL);
}
END_TEST

START_TEST(test_symbols_of_regions_begin_anew)
{
    // each round finds another number of elements under the same symbol
    pm_array x = floats(DIMS(3), F(1, 2, 3)), n = ints(0, NULL, I(3));
    pm_array *out = run_text("entry e(%n: i64[], %x: f32[3]) -> (%y, %s) {\n"
                             "  %true = const {value = [true]} : bool[]\n"
                             "  %y, %s = loop(%n, %true, %x) {carried = 1, scanned = 1} regions {\n"
                             "    (%i: i64[], %go: bool[], %x: f32[3]) -> (%go, %less, %count) {\n"
                             "      %one = const {value = [1]} : f32[]\n"
                             "      %w = nonzero(%x)\n"
                             "      %shape = shape(%w)\n"
                             "      %at = const {value = [1]} : i64[1]\n"
                             "      %count = gather(%shape, %at)\n"
                             "      %d = sub(%x, %one)\n"
                             "      %less = relu(%d)\n    }\n  }\n}",
                             (const pm_array[]){n, x}, 2);
    check_floats(&out[0], DIMS(3), F(0, 0, 0));
    pm_array want = ints(DIMS(3, 1), I(3, 2, 1));
    check(&out[1], &want, 0);
}
END_TEST

START_TEST(test_errors_in_regions_leak_nothing)
{
    // fails in the second round, deep inside; LeakSanitizer watches
    pm_array x = floats(DIMS(2), F(1, 2)), n = ints(0, NULL, I(3));
    const pm_diag_entry *error =
        refused("entry e(%n: i64[], %x: f32[2]) -> (%y, %s) {\n"
                "  %true = const {value = [true]} : bool[]\n"
                "  %y, %s = loop(%n, %true, %x) {carried = 1, scanned = 1} regions {\n"
                "    (%i: i64[], %go: bool[], %x: f32[2]) -> (%go, %z, %x) {\n"
                "      %one = const {value = [1]} : i64[]\n"
                "      %j = add(%i, %one)\n"
                "      %z = fused(%x, %j) regions { (%a: f32[2], %j: i64[]) -> (%b) {\n"
                "        %g = gather(%a, %j)\n        %b = add(%a, %g)\n      } }\n    }\n  }\n}",
                (const pm_array[]){n, x}, 2, "gather: the data are at fault");
    ck_assert_uint_eq(error->loc->line, 9);
}
END_TEST

// ---- experts ----

static const char scaled_experts[] =
    "symbol M\nsymbol n dynamic in [0, inf]\n"
    "entry e(%x: f32[M, 2], %w: f32[M, 2], %i: i64[M, 2]) -> (%y) {\n"
    "  %e = cast(%i) {to = i32}\n"
    "  %scale = const {value = [1, 1, 10, 10, 100, 100]} : f32[3, 2]\n"
    "  %bias = const {value = [0, 0, 1]} : f32[3]\n"
    "  %y = experts(%x, %e, %w, %scale, %bias) {experts = 3, top_k = 2, apply = \"%s\"} regions {\n"
    "    (%r: f32[n, 2], %s: f32[2], %b: f32[]) -> (%o) { %m = mul(%r, %s) %o = add(%m, %b) }\n"
    "  }\n}";

static const char *with_apply(const char *apply)
{
    const char *at = strstr(scaled_experts, "\"%s\"");
    return pm_arena_printf(arena, "%.*s\"%s\"%s", (int)(at - scaled_experts), scaled_experts, apply,
                           at + 4);
}

START_TEST(test_experts_template)
{
    const pm_array inputs[] = {floats(DIMS(3, 2), F(1, 2, 3, 4, 5, 6)),
                               floats(DIMS(3, 2), F(0.5f, 0.5f, 0.25f, 0.75f, 1, 0)),
                               ints(DIMS(3, 2), I(2, 0, 0, 1, 1, 1))};
    // token 0: 0.5*(100x+1) + 0.5*x; token 1: 0.25*x + 0.75*10x; token 2 twice the same expert
    check_floats(run_text(with_apply("output"), inputs, 3), DIMS(3, 2),
                 F(51, 101.5f, 23.25f, 31, 50, 60));
    // scaled before: token 0: 100*0.5*x + 1 + 0.5*x
    check_floats(run_text(with_apply("input"), inputs, 3), DIMS(3, 2),
                 F(51.5f, 102, 23.25f, 31, 50, 60));
    // no tokens at all
    const pm_array empty[] = {floats(DIMS(0, 2), NULL), floats(DIMS(0, 2), NULL),
                              ints(DIMS(0, 2), NULL)};
    check_floats(run_text(with_apply("output"), empty, 3), DIMS(0, 2), NULL);
    const pm_array bad[] = {inputs[0], inputs[1], ints(DIMS(3, 2), I(2, 0, 0, 3, 1, 1))};
    refused(with_apply("output"), bad, 3, "experts: the data are at fault");
    diag = pm_diag_create(arena);
    const pm_array negative[] = {inputs[0], inputs[1], ints(DIMS(3, 2), I(2, 0, 0, -1, 1, 1))};
    refused(with_apply("output"), negative, 3, "experts: the data are at fault");
}
END_TEST

START_TEST(test_experts_unlike)
{
    const pm_array inputs[] = {floats(DIMS(3, 2), F(1, 2, 3, 4, 5, 6)),
                               floats(DIMS(3, 1), F(1, 2, 3)), ints(DIMS(3, 1), I(2, 0, 1))};
    pm_array *out =
        run_text("symbol M\nsymbol n0 dynamic symbol n1 dynamic symbol n2 dynamic\n"
                 "entry e(%x: f32[M, 2], %w: f32[M, 1], %i: i64[M, 1]) -> (%y) {\n"
                 "  %e = cast(%i) {to = i32}\n"
                 "  %bias = const {value = [10, 20]} : f32[2]\n"
                 "  %y = experts(%x, %e, %w, %bias) {experts = 3, top_k = 1} regions {\n"
                 "    region same(%r: f32[n0, 2], %b: f32[2]) -> (%r) {}\n"
                 "    region add(%r: f32[n1, 2], %b: f32[2]) -> (%o) { %o = add(%r, %b) }\n"
                 "    region minus(%r: f32[n2, 2], %b: f32[2]) -> (%o) { %o = neg(%r) }\n  }\n}",
                 inputs, 3);
    check_floats(&out[0], DIMS(3, 2), F(-1, -2, 6, 8, 45, 78));
}
END_TEST

START_TEST(test_experts_lowered)
{
    // the ops that lowering makes of experts give the same bits
    static const char body[] =
        "symbol M\nsymbol n dynamic\n"
        "entry e(%x: f32[M, 3], %s: f32[M, 4]) -> (%y, %z) {\n"
        "  %e, %p = route(%s) {top_k = 2}\n"
        "  %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, 0.5, 0.25, 1, 3, 1, 2, -4, "
        "5,"
        " 6, 1, 0, 1]} : f32[4, 2, 3]\n"
        "  %b = const {value = [1, 2, 3, 4, 5, 6, 7, 8]} : f32[4, 2]\n"
        "  %y = experts(%x, %e, %p, %w, %b) {experts = 4, top_k = 2} regions {\n"
        "    (%r: f32[n, 3], %w: f32[2, 3], %b: f32[2]) -> (%o) { %o = linear(%r, %w, %b) }\n  }\n"
        "  %t, %o, %slot = expert_order(%e) {experts = 4}\n"
        "  %r = gather_rows(%x, %t)\n"
        "  %g = grouped_linear(%r, %w, %o, %b)\n"
        "  %z = combine(%g, %slot, %p)\n}";
    pm_module *m = parsed_in(body, NULL);
    for (uint64_t seed = 0; seed < 20; seed++) {
        pm_array *inputs = random_inputs(arena, m->entries.data[0], seed);
        pm_array *out = run(m, inputs, 2);
        check(&out[0], &out[1], 0);
    }
    // one expert's rows, found when it runs
    pm_array *out = run_text(
        "symbol M\nentry e(%x: f32[M, 1], %i: i64[M, 1]) -> (%r) {\n"
        "  %e = cast(%i) {to = i32}\n"
        "  %t, %o, %s = expert_order(%e) {experts = 3}\n"
        "  %r = expert_rows(%x, %t, %o) {expert = 1}\n}",
        (const pm_array[]){floats(DIMS(4, 1), F(1, 2, 3, 4)), ints(DIMS(4, 1), I(1, 0, 1, 2))}, 2);
    check_floats(&out[0], DIMS(2, 1), F(1, 3));
}
END_TEST

// ---- packed weights ----

START_TEST(test_packed_weights)
{
    // panels that don't divide the rows, pairs that don't divide the columns, stored turned, two
    // sources
    const char *body =
        "symbol M\nentry e(%x: f32[M, 3]) -> (%plain, %a, %b, %c, %gate, %up) {\n"
        "  %w = const {value = [1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2, -3, 0.5, 0.25, 1]} : f32[5, 3]\n"
        "  %u = const {value = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]} : f32[5, 3]\n"
        "  %wt = transpose(%w) {perm = [1, 0]}\n"
        "  %plain = linear(%x, %w)\n"
        "  %p = pack(%w) {panel = 8}\n"
        "  %a = linear(%x, %p)\n"
        "  %q = pack(%w) {panel = 4, pair = 2, elem = bf16}\n"
        "  %b = linear(%x, %q)\n"
        "  %r = pack(%wt) {panel = 16, trans = true}\n"
        "  %c = linear(%x, %r)\n"
        "  %s = pack(%w, %u) {panel = 4}\n"
        "  %gate = linear(%x, %s)\n"
        "  %up = linear(%x, %s) {source = 1}\n}";
    pm_array x = floats(DIMS(2, 3), F(1, -2, 0.5f, 2, 0, 1));
    pm_array *out = run_text(body, &x, 1);
    for (int i = 1; i < 5; i++)
        check(&out[i], &out[0], 0); // these weights are exact in bf16
    check_floats(&out[5], DIMS(2, 5), F(3, -4.5f, -7.5f, -3, -0.5f, 10, 11, 9, 14, 27));
    // stacks of matrices
    pm_array *grouped = run_text("entry e(%x: f32[3, 2]) -> (%y, %z) {\n"
                                 "  %v = const {value = [1, 2, 3, 4, 5, 6]} : f32[3, 2]\n"
                                 "  %w = const {value = [7, 8, 9, 10, 11, 12]} : f32[3, 2]\n"
                                 "  %s = stack(%v, %w)\n"
                                 "  %p = pack(%s) {panel = 2}\n"
                                 "  %o = const {value = [0, 1, 3]} : i32[3]\n"
                                 "  %y = grouped_linear(%x, %s, %o)\n"
                                 "  %z = grouped_linear(%x, %p, %o)\n}",
                                 (const pm_array[]){floats(DIMS(3, 2), F(1, 1, 1, 0, 0, 1))}, 1);
    check_floats(&grouped[0], DIMS(3, 3), F(3, 7, 11, 7, 9, 11, 8, 10, 12));
    check(&grouped[1], &grouped[0], 0);
}
END_TEST

// ---- language models ----

static const char attention_body[] =
    "symbol B in [1, 4]\nsymbol T in [1, 8]\n"
    "state \"k\" : f32[B, 1, 1, 4, 16]\nstate \"v\" : f32[B, 1, 16, 4]\n"
    "entry e(%x: f32[B, T, 8], %past: i64[B], %kc: f32[B, 1, 1, 4, 16] state \"k\", "
    "%vc: f32[B, 1, 16, 4] state \"v\") -> (y: %y, k: %k2 state \"k\", v: %v2 state \"v\") {\n"
    "  %wk = const {value = [1, 0, 0, 0.5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0.25, 0, 0, 0, 0, 1, 0, 0, "
    "0, "
    "0.5, 0, 0, 0, 0, 1, 0, 0, 0, -1]} : f32[4, 8]\n"
    "  %f = const {value = [1, 0.1]} : f32[2]\n"
    "  %k0 = linear(%x, %wk)\n"
    "  %table = rope_table(%past, %f, %x)\n"
    "  %k = rope(%k0, %table) {head_dim = 4}\n"
    "  %q = rope(%x, %table) {head_dim = 4}\n"
    "  %k2 = cache_key(%kc, %k, %past)\n"
    "  %v2 = cache_value(%vc, %k0, %past)\n"
    "  %y = attention(%q, %k2, %v2, %past) {heads = 2, kv_heads = 1, scale = 0.5}\n}";

START_TEST(test_decoding_equals_prefill)
{
    // five tokens at once, and one after the other through the states
    pm_module *m = parsed_in(attention_body, NULL);
    float *x = PM_NEW_ARRAY(arena, float, 2 * 5 * 8);
    random_state r = {7};
    for (int i = 0; i < 80; i++)
        x[i] = (float)random_below(&r, 33) / 8 - 2;
    float *zeros = PM_NEW_ARRAY(arena, float, 2 * 4 * 16);
    pm_array k = floats(DIMS(2, 1, 1, 4, 16), zeros), v = floats(DIMS(2, 1, 16, 4), zeros);
    pm_array *all =
        run(m, (const pm_array[]){floats(DIMS(2, 5, 8), x), ints(DIMS(2), I(0, 0)), k, v}, 4);
    for (int64_t t = 0; t < 5; t++) {
        float token[16];
        for (int b = 0; b < 2; b++)
            memcpy(token + 8 * b, x + (b * 5 + t) * 8, 8 * sizeof(float));
        pm_array *one = run(
            m, (const pm_array[]){floats(DIMS(2, 1, 8), token), ints(DIMS(2), I(t, t)), k, v}, 4);
        for (int b = 0; b < 2; b++)
            for (int i = 0; i < 8; i++)
                ck_assert_double_eq_tol(array_element(&one[0], b * 8 + i),
                                        array_element(&all[0], (b * 5 + t) * 8 + i), 1e-6);
        k = one[1];
        v = one[2];
    }
    check(&k, &all[1], 1e-6);
    check(&v, &all[2], 1e-6);
    // beyond the cache
    const pm_array late[] = {floats(DIMS(2, 1, 8), x), ints(DIMS(2), I(0, 16)), k, v};
    refused(attention_body, late, 4, "the data are at fault");
}
END_TEST

START_TEST(test_other_ops)
{
    // those that random modules don't have
    pm_array x = floats(DIMS(2, 3), F(1, 2, 3, 4, 5, 6));
    pm_array *out =
        run_text("entry e(%x: f32[2, 3]) -> (%prod, %ge, %gn, %se, %sn, %range, %conv, %last, "
                 "%nan, %inf) {\n"
                 "  %i = const {value = [2, 0]} : i64[2, 1]\n"
                 "  %n = const {value = [1, 0, 0, 2]} : i64[2, 2]\n"
                 "  %u = const {value = [10, 20]} : f32[2, 1]\n"
                 "  %v = const {value = [10, 20]} : f32[2]\n"
                 "  %0 = const {value = [1]} : f32[]\n  %1 = const {value = [2]} : f32[]\n"
                 "  %2 = const {value = [0.25]} : f32[]\n"
                 "  %prod = reduce_prod(%x) {axes = [1], keepdims = false}\n"
                 "  %ge = gather_elements(%x, %i) {axis = 1}\n"
                 "  %gn = gather_nd(%x, %n)\n"
                 "  %se = scatter_elements(%x, %i, %u) {axis = 1}\n"
                 "  %sn = scatter_nd(%x, %n, %v) {reduction = \"add\"}\n"
                 "  %range = range(%0, %1, %2)\n"
                 "  %s = const {value = [1, 1, 6]} : i64[3]\n"
                 "  %signal = reshape(%x, %s)\n"
                 "  %kernel = const {value = [1, -1]} : f32[1, 1, 2]\n"
                 "  %conv = conv(%signal, %kernel) {strides = [2], pads = [1, 0]}\n"
                 "  %seq = const {value = [1, 2, 3]} : i64[3]\n"
                 "  %s2 = const {value = [1, 2, 3]} : i64[3]\n"
                 "  %xt = reshape(%x, %s2)\n"
                 "  %last = last_rows(%xt)\n"
                 "  %nan = isnan(%x)\n  %inf = isinf(%x)\n}",
                 &x, 1);
    check_floats(&out[0], DIMS(2), F(6, 120));
    check_floats(&out[1], DIMS(2, 1), F(3, 4));
    check_floats(&out[2], DIMS(2), F(4, 3));
    check_floats(&out[3], DIMS(2, 3), F(1, 2, 10, 20, 5, 6));
    check_floats(&out[4], DIMS(2, 3), F(1, 2, 23, 14, 5, 6));
    check_floats(&out[5], DIMS(4), F(1, 1.25f, 1.5f, 1.75f));
    check_floats(&out[6], DIMS(1, 1, 3), F(-1, -1, -1));
    check_floats(&out[7], DIMS(1, 1, 3), F(4, 5, 6));
    for (int i = 0; i < 6; i++)
        ck_assert(array_element(&out[8], i) == 0 && array_element(&out[9], i) == 0);
}
END_TEST

START_TEST(test_depth)
{
    // 64 groups, one within the other
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    fputs("entry e(%x: f32[1]) -> (%y) { ", out);
    for (int i = 0; i < PM_MAX_REGION_DEPTH; i++)
        fputs("%y = fused(%x) regions { (%x: f32[1]) -> (%y) { ", out);
    fputs("%y = neg(%x) ", out);
    for (int i = 0; i < PM_MAX_REGION_DEPTH; i++)
        fputs("} } ", out);
    fputs("}", out);
    fclose(out);
    pm_array x = floats(DIMS(1), F(3));
    check_floats(run_text(text, &x, 1), DIMS(1), F(-3));
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("interp");
    TCase *tests = tcase_create("interp");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_symbols_are_bound);
    tcase_add_test(tests, test_symbols_bound_by_rounding);
    tcase_add_test(tests, test_inputs_that_do_not_fit);
    tcase_add_test(tests, test_inputs_stay);
    tcase_add_test(tests, test_data_dependent);
    tcase_add_test(tests, test_empty_tensors);
    tcase_add_test(tests, test_constants_from_files);
    tcase_add_test(tests, test_memory_follows_liveness);
    tcase_add_test(tests, test_data_at_fault);
    tcase_add_test(tests, test_fused);
    tcase_add_test(tests, test_if);
    tcase_add_test(tests, test_loop);
    tcase_add_test(tests, test_symbols_of_regions_begin_anew);
    tcase_add_test(tests, test_errors_in_regions_leak_nothing);
    tcase_add_test(tests, test_experts_template);
    tcase_add_test(tests, test_experts_unlike);
    tcase_add_test(tests, test_experts_lowered);
    tcase_add_test(tests, test_packed_weights);
    tcase_add_test(tests, test_decoding_equals_prefill);
    tcase_add_test(tests, test_other_ops);
    tcase_add_test(tests, test_depth);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
