// Passes: what the pass manager promises; and random modules mean the same after every pass and
// every pipeline as before.

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "passes/passes.h"
#include "tests/unit/random_graph.h"

enum { N_SEEDS = 300 };

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

static pm_module *parsed(const char *text)
{
    pm_module *m = NULL;
    pm_status status = pm_module_parse(arena, diag, "m.pm", text, strlen(text), NULL, &m);
    ck_assert_msg(status == PM_OK, "%s", text_of(write_diag, diag));
    return m;
}

static const pm_device cpu = {"cpu0", 40e9, 200e9, 40e9, UINT64_MAX};
static const pm_pass_options plain = {.opt_level = 3, .vector_floats = 16, .quantize = "none",
                                      .devices = &cpu, .n_devices = 1};

static size_t count_ops(const pm_graph *g, pm_opcode code)
{
    size_t n = 0;
    for (const pm_op *op = g->first; op; op = op->next)
        n += op->code == code;
    return n;
}

/* ---- the pass manager -------------------------------------------------------------------------- */

static const char small[] = "module \"small\" {\n"
                            "  symbol B in [1, 8]\n"
                            "  entry main(%x: f32[B, 4]) -> (y: %c) {\n"
                            "    %one = const {value = [1]} : f32[]\n"
                            "    %a = mul(%x, %one)\n"
                            "    %b = neg(%a)\n"
                            "    %b2 = neg(%a)\n"
                            "    %c = add(%b, %b2)\n"
                            "  }\n"
                            "}\n";

/// What the pass manager prints about the small module, without the modules themselves.
static char *printed_by(pm_pass_run run)
{
    pm_module *m = parsed(small);
    char *text = NULL;
    size_t n = 0;
    run.options = &plain;
    run.out = open_memstream(&text, &n);
    ck_assert_int_eq(pm_passes_run(m, &run), PM_OK);
    fclose(run.out);
    char *out = pm_arena_alloc(arena, n + 1, 1), *to = out;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (strncmp(line, "// ---- ", 8) == 0)
            to += sprintf(to, "%.*s;", (int)strlen(line) - 13, line + 8);
    free(text);
    return out;
}

START_TEST(test_lists)
{
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "cse,dce", .pass_limit = -1, .print_after = "all"}),
                     "after cse;after dce;");
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "cse,dce,cse", .pass_limit = -1, .print_before = "cse"}),
                     "before cse;before cse;");
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "canonicalise,fold,cse,dce", .pass_limit = -1,
                                              .print_changed = true}),
                     "after canonicalise;after cse;after dce;");
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "fold,cse,dce", .pass_limit = 2, .print_after = "all"}),
                     "after fold;after cse;");
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "fold,cse,dce", .pass_limit = -1, .print_after = "fold,dce",
                                              .stop_after = "cse"}),
                     "after fold;");
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "", .pass_limit = -1, .print_after = "all"}), "");
    // pipelines stand for what they run, alone and in lists
    char *alone = printed_by((pm_pass_run){.pass_limit = -1, .print_after = "all"});
    ck_assert_str_eq(printed_by((pm_pass_run){.passes = "O3", .pass_limit = -1, .print_after = "all"}), alone);
    char *listed = printed_by((pm_pass_run){.passes = "dce,O3", .pass_limit = -1, .print_after = "all"});
    ck_assert_str_eq(listed, pm_arena_printf(arena, "after dce;%s", alone));
}
END_TEST

START_TEST(test_unknown_names)
{
    static const pm_pass_run wrong[] = {
        {.passes = "dce,canonicalize", .pass_limit = -1},
        {.passes = "dce", .print_after = "cse,canonicalize", .pass_limit = -1},
        {.passes = "dce", .print_before = "canonicalize", .pass_limit = -1},
        {.passes = "dce", .stop_after = "canonicalize", .pass_limit = -1},
    };
    for (size_t i = 0; i < PM_COUNT(wrong); i++) {
        pm_module *m = parsed(small);
        char *before = text_of(write_module, m);
        pm_pass_run run = wrong[i];
        run.options = &plain;
        ck_assert_int_eq(pm_passes_run(m, &run), PM_ERR_USAGE);
        const char *words = text_of(write_diag, diag);
        ck_assert_msg(strstr(words, "did you mean 'canonicalise'?") != NULL, "%s", words);
        ck_assert_str_eq(text_of(write_module, m), before); // nothing has run
    }
}
END_TEST

START_TEST(test_all_passes_are_in_pipelines)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_passes_describe(out, true);
    fclose(out);
    for (size_t i = 0; i < pm_pass_count_all; i++) {
        char *row = pm_arena_printf(arena, "| `%s` |", pm_pass_table[i].name);
        ck_assert_msg(strstr(text, row) != NULL, "no row of %s", row);
        char *none = pm_arena_printf(arena, "| `%s` | %s |  |", pm_pass_table[i].name, pm_pass_table[i].help);
        ck_assert_msg(strstr(text, none) == NULL, "%s is in no pipeline", pm_pass_table[i].name);
    }
    free(text);
}
END_TEST

/* ---- placement --------------------------------------------------------------------------------- */

/// Four unlike experts: 64, 64, 16 and 16 rows of weights.
static pm_module *four_experts(void)
{
    static const int rows[4] = {64, 64, 16, 16};
    char *body = "";
    for (int e = 0; e < 4; e++)
        body = pm_arena_printf(arena,
                               "%s      (%%r: f32[n%d, 64]) -> (%%o) {\n"
                               "        %%w = const {value = splat(%d)} : f32[%d, 64]\n"
                               "        %%h = linear(%%r, %%w)\n"
                               "        %%v = const {value = splat(%d)} : f32[64, %d]\n"
                               "        %%o = linear(%%h, %%v)\n      }\n",
                               body, e, e + 1, rows[e], e + 11, rows[e]);
    return parsed(pm_arena_printf(
        arena,
        "module \"four\" {\n  symbol M in [1, 64]\n  symbol n0 dynamic in [0, 64] <= M\n"
        "  symbol n1 dynamic in [0, 64] <= M\n  symbol n2 dynamic in [0, 64] <= M\n"
        "  symbol n3 dynamic in [0, 64] <= M\n"
        "  entry main(%%x: f32[M, 64], %%i: i32[M, 1], %%v: f32[M, 1]) -> (y: %%y) {\n"
        "    %%y = experts(%%x, %%i, %%v) {experts = 4, top_k = 1, name = \"four\"} regions {\n%s    }\n  }\n}\n",
        body));
}

/// Where place-experts puts them; NULL when it refuses.
static const char *placed_on(const pm_device *devices, size_t n_devices, const char *spec)
{
    pm_module *m = four_experts();
    pm_pass_options options = plain;
    options.devices = devices;
    options.n_devices = n_devices;
    options.place = spec;
    pm_pass_run run = {.options = &options, .passes = "place-experts", .pass_limit = -1, .verify_each = true};
    if (pm_passes_run(m, &run) != PM_OK)
        return NULL;
    return pm_op_str(m->entries.data[0]->first, "devices");
}

static void write_trace(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");
    ck_assert_ptr_nonnull(out);
    ck_assert_int_ge(fputs(text, out), 0);
    ck_assert_int_eq(fclose(out), 0);
}

START_TEST(test_placement)
{
    // equal devices share the work: the two large ones apart, the small ones apart
    const pm_device fast_link[2] = {{"cpu0", 1e9, 1e12, 1e15, UINT64_MAX}, {"cpu1", 1e9, 1e12, 1e15, UINT64_MAX}};
    ck_assert_str_eq(placed_on(fast_link, 2, "rest@cpu0"), "cpu0,cpu1,cpu0,cpu1");
    // moving rows costs more than it saves
    const pm_device slow_link[2] = {{"cpu0", 1e9, 1e12, 1e3, UINT64_MAX}, {"cpu1", 1e9, 1e12, 1e3, UINT64_MAX}};
    ck_assert_str_eq(placed_on(slow_link, 2, "rest@cpu0"), "cpu0");
    ck_assert_str_eq(placed_on(slow_link, 2, NULL), "cpu1"); // where the rest goes
    // one that is twenty times as fast gets all
    const pm_device unequal[2] = {{"cpu0", 1e9, 1e12, 1e15, UINT64_MAX}, {"gpu0", 2e10, 2e13, 1e15, UINT64_MAX}};
    ck_assert_str_eq(placed_on(unequal, 2, NULL), "gpu0");
    // each large expert takes 32768 bytes, each small one 8192: what doesn't fit goes on
    ck_assert_str_eq(placed_on(unequal, 2, "gpu0=40960"), "gpu0,cpu0,gpu0,cpu0");
    ck_assert_str_eq(placed_on(unequal, 2, "gpu0=0"), "cpu0");
    // by hand
    ck_assert_str_eq(placed_on(unequal, 2, "experts@cpu0,four.2@gpu0"), "cpu0,cpu0,gpu0,cpu0");
    ck_assert_str_eq(placed_on(unequal, 2, "four@gpu0,experts.0@cpu0"), "cpu0,gpu0,gpu0,gpu0");
    // as they were chosen: the second one is hot, and large ones are dear
    const char *trace = pm_arena_printf(arena, "%s/trace%d.json", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
    write_trace(trace, "{\"layers\": [{\"name\": \"four\", \"counts\": [0, 9000, 1, 800]}]}");
    ck_assert_str_eq(placed_on(unequal, 2, pm_arena_printf(arena, "gpu0=40960,trace:%s", trace)), "cpu0,gpu0,cpu0,gpu0");
    write_trace(trace, "{\"layers\": [{\"name\": \"four\", \"counts\": [0, 9000, 1]}]}");
    ck_assert_ptr_null(placed_on(unequal, 2, pm_arena_printf(arena, "trace:%s", trace)));
    write_trace(trace, "{\"layers\": [{\"name\": \"five\", \"counts\": [1, 1, 1, 1]}]}");
    ck_assert_ptr_null(placed_on(unequal, 2, pm_arena_printf(arena, "trace:%s", trace)));
    write_trace(trace, "{\"layers\": [{\"name\": \"four\", \"counts\": [1, -1, 1, 1]}]}");
    ck_assert_ptr_null(placed_on(unequal, 2, pm_arena_printf(arena, "trace:%s", trace)));
    ck_assert_int_eq(remove(trace), 0);
    ck_assert_ptr_null(placed_on(unequal, 2, "gpu0=8kB,experts@gpu0"));
    ck_assert_ptr_null(placed_on(unequal, 2, "experts.4@gpu0"));
    ck_assert_ptr_null(placed_on(unequal, 2, "cpu0=40kB,gpu0=40kB"));
    const char *words = text_of(write_diag, diag);
    ck_assert_msg(strstr(words, "the weights take 81.9 kB") && strstr(words, "cpu0 may hold 40.0 kB") &&
                  strstr(words, "all devices 80.0 kB") && strstr(words, "has 4 experts, the trace counts 3") &&
                  strstr(words, "'five', which this model has not") && strstr(words, "counts are numbers from 0 on") && strstr(words, "'experts.4@gpu0' names nothing"), "%s", words);
}
END_TEST

/* ---- large graphs ------------------------------------------------------------------------------ */

/// `n` times: identities in a row, equal ops on one value, transposes in a row, a slice of one constant.
static pm_module *large_module(int64_t n)
{
    pm_module *m = pm_module_create(arena, diag, "large");
    pm_graph *g = pm_entry_create(m, "main");
    pm_builder b = {g, NULL, pm_loc_intern(m, NULL)};
    pm_dim dims[] = {pm_dim_symbol(m, "B", 1, 64), pm_dim_const(m, 4)};
    pm_value *x = pm_graph_add_arg(g, "x", pm_type_get(m, PM_F32, 2, dims), -1), *chain = x, *turned = x, *sum = x;
    static const float one = 1;
    float *many = PM_NEW_ARRAY(arena, float, (size_t)n * 16);
    for (int64_t i = 0; i < n * 16; i++)
        many[i] = (float)i; // equal matrices would become one
    pm_value *neutral, *weights;
    ck_assert_int_eq(pm_build_const_f32(&b, 0, NULL, &one, &neutral), PM_OK);
    ck_assert_int_eq(pm_build_const_f32(&b, 3, (int64_t[]){n, 4, 4}, many, &weights), PM_OK);
    for (int64_t i = 0; i < n; i++) {
        pm_value *same, *at, *w, *product;
        ck_assert_int_eq(pm_build1(&b, &chain, PM_OP_mul, PM_OPERANDS(chain, neutral), PM_NO_ATTRS), PM_OK);
        ck_assert_int_eq(pm_build1(&b, &same, PM_OP_neg, PM_OPERANDS(x), PM_NO_ATTRS), PM_OK);
        ck_assert_int_eq(pm_build1(&b, &turned, PM_OP_transpose, PM_OPERANDS(turned),
                                   PM_ATTRS(pm_attr_ints("perm", (int64_t[]){1, 0}, 2))), PM_OK);
        ck_assert_int_eq(pm_build_const_ints(&b, PM_I64, 0, NULL, &i, &at), PM_OK);
        ck_assert_int_eq(pm_build1(&b, &w, PM_OP_gather, PM_OPERANDS(weights, at), PM_NO_ATTRS), PM_OK);
        ck_assert_int_eq(pm_build1(&b, &product, PM_OP_matmul, PM_OPERANDS(x, w), PM_NO_ATTRS), PM_OK);
        ck_assert_int_eq(pm_build1(&b, &product, PM_OP_add, PM_OPERANDS(product, same), PM_NO_ATTRS), PM_OK);
        ck_assert_int_eq(pm_build1(&b, &sum, PM_OP_add, PM_OPERANDS(sum, product), PM_NO_ATTRS), PM_OK);
    }
    pm_graph_add_result(g, "chain", chain, -1);
    pm_graph_add_result(g, "turned", turned, -1);
    pm_graph_add_result(g, "sum", sum, -1);
    return m;
}

START_TEST(test_large_graphs)
{
    enum { N = 24000 }; // about 190,000 ops
    pm_module *m = large_module(N);
    pm_pass_run run = {.options = &plain, .pass_limit = -1,
                       .passes = "shapes,canonicalise,fold,canonicalise,cse,dce,place-experts,lower-experts,shapes,"
                                 "canonicalise,fold,cse,quantize,layout,dce"};
    clock_t start = clock();
    ck_assert_int_eq(pm_passes_run(m, &run), PM_OK);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    const pm_graph *g = m->entries.data[0];
    ck_assert_uint_eq(count_ops(g, PM_OP_matmul), 0);
    ck_assert_uint_eq(count_ops(g, PM_OP_linear), N);
    ck_assert_uint_eq(count_ops(g, PM_OP_pack), N);
    ck_assert_uint_eq(count_ops(g, PM_OP_neg), 1);
    ck_assert_uint_eq(count_ops(g, PM_OP_mul), 0);
    ck_assert_uint_eq(count_ops(g, PM_OP_transpose), 0); // an even number of them
    ck_assert_msg(seconds < 15, "%.1f s", seconds); // a fraction of a second each; quadratic would be minutes
}
END_TEST

/* ---- random modules --------------------------------------------------------------------------- */

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

static bool has_one(const pm_module *m, const pm_type *type)
{
    int64_t extent;
    for (int32_t i = 0; i < type->rank; i++)
        if (pm_dim_is_const(m, type->dims[i], &extent) && extent == 1)
            return true;
    return false;
}

/// What is x again, in a way that a pass should see: every bit of it.
static pm_value *disguised(pm_builder *b, pm_value *x, uint32_t how)
{
    const pm_type *type = x->type;
    pm_module *m = b->graph->module;
    pm_value *y = x, *c = NULL;
    float one = 1, minus_zero = -0.0f, zero = 0;
    bool is_float = pm_elem_is_float(type->elem);
    pm_status status = PM_OK;
    switch (how) {
    case 0: // there and back
        if (type->rank < 2 || type->layout || has_one(m, type))
            return x; // a transpose that moves ones alone becomes a reshape before it meets the other
        for (int i = 0; i < 2 && status == PM_OK; i++) {
            int64_t perm[PM_MAX_RANK];
            for (int32_t k = 0; k < type->rank; k++)
                perm[k] = type->rank - 1 - k;
            status = pm_build1(b, &y, PM_OP_transpose, PM_OPERANDS(y),
                               PM_ATTRS(pm_attr_ints("perm", perm, (size_t)type->rank)));
        }
        break;
    case 1: { // flat and back
        pm_dim count = pm_type_count(m, type);
        status = pm_build_reshape_dims(b, x, 1, &count, &y);
        if (status == PM_OK)
            status = pm_build_reshape_dims(b, y, type->rank, type->dims, &y);
        break;
    }
    case 2: // x * 1, x / 1
    case 3: // x - 0, x + -0
    case 4:
        if (!is_float)
            return x;
        status = pm_build_const_f32(b, 0, NULL, how == 2 ? &one : how == 3 ? &zero : &minus_zero, &c);
        if (status == PM_OK && type->elem != PM_F32)
            status = pm_build1(b, &c, PM_OP_cast, PM_OPERANDS(c), PM_ATTRS(pm_attr_elem("to", type->elem)));
        if (status == PM_OK)
            status = pm_build1(b, &y, how == 2 ? PM_OP_mul : how == 3 ? PM_OP_sub : PM_OP_add,
                               PM_OPERANDS(x, c), PM_NO_ATTRS);
        break;
    case 5: // twice the other way round
        if (type->elem != PM_BOOL && !is_float)
            return x;
        for (int i = 0; i < 2 && status == PM_OK; i++)
            status = pm_build1(b, &y, type->elem == PM_BOOL ? PM_OP_not : PM_OP_neg, PM_OPERANDS(y), PM_NO_ATTRS);
        break;
    case 6: // wider and back
        if (type->elem != PM_F32 && type->elem != PM_F16 && type->elem != PM_BF16)
            return x;
        status = pm_build1(b, &y, PM_OP_cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", PM_F64)));
        if (status == PM_OK)
            status = pm_build1(b, &y, PM_OP_cast, PM_OPERANDS(y), PM_ATTRS(pm_attr_elem("to", type->elem)));
        break;
    default: { // x where true
        int64_t yes = 1;
        status = pm_build_const_ints(b, PM_BOOL, 0, NULL, &yes, &c);
        if (status == PM_OK)
            status = pm_build1(b, &y, PM_OP_where, PM_OPERANDS(c, x, x), PM_NO_ATTRS);
        break;
    }
    }
    ck_assert_msg(status == PM_OK, "%s", text_of(write_diag, diag));
    return y->type == type ? y : x;
}

/// The uses of some results get the value in disguise.
static void disguise(pm_graph *g, random_state *r)
{
    for (pm_op *op = g->first, *next; op; op = next) {
        next = op->next;
        for (uint32_t i = 0; i < op->n_regions; i++)
            disguise(op->regions[i], r);
        if (op->code == PM_OP_const || op->code == PM_OP_dims)
            continue; // weights and shapes are to be seen
        for (uint32_t i = 0; i < op->n_results; i++) {
            pm_value *x = op->results[i];
            PM_VEC(pm_use *) uses = {0};
            if (x->content || random_below(r, 100) >= 40)
                continue;
            for (pm_use *use = x->uses; use; use = use->next)
                PM_PUSH(arena, &uses, use);
            pm_builder b = {g, next, op->loc};
            pm_value *y = disguised(&b, x, random_below(r, 8));
            for (size_t k = 0; k < uses.n && y != x; k++)
                pm_op_set_operand(uses.data[k]->op, uses.data[k]->index, y);
        }
    }
}

/// False: refused with a message. `hidden`: with what changes nothing put in everywhere.
static bool compare(const char *passes, uint64_t seed, bool hidden)
{
    pm_module *m = random_module_of(arena, diag, seed, kind_of((int)seed));
    ck_assert_ptr_nonnull(m);
    random_state r = {seed + 77};
    if (hidden)
        disguise(m->entries.data[0], &r);
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
        compare(pm_pass_table[i].name, (uint64_t)_i, false);
}
END_TEST

START_TEST(test_pipelines_keep_results)
{
    static const char *const lists[] = {"O0", "O1", "O2", "O3",
                                        "shapes,canonicalise,fold,canonicalise,cse,dce"};
    for (size_t i = 0; i < PM_COUNT(lists); i++)
        compare(lists[i], (uint64_t)_i, false);
}
END_TEST

START_TEST(test_any_order_keeps_results)
{
    static const char *const names[] = {"shapes", "canonicalise", "fold", "cse", "dce", "place-experts",
                                        "lower-experts", "layout", "fuse"};
    random_state r = {(uint64_t)_i};
    char list[256] = "dce";
    for (uint32_t n = 4 + random_below(&r, 6); n > 0; n--) {
        strcat(list, ",");
        strcat(list, names[random_below(&r, PM_COUNT(names))]);
    }
    compare(list, (uint64_t)_i, true);
}
END_TEST

START_TEST(test_disguises_are_seen_through)
{
    static const char *const passes = "shapes,canonicalise,fold,canonicalise,shapes,cse,dce";
    uint64_t seed = (uint64_t)_i;
    compare(passes, seed, true);
    pm_module *m[2];
    size_t n[2] = {0};
    for (int i = 0; i < 2; i++) {
        m[i] = random_module_of(arena, diag, seed, kind_of(_i));
        random_state r = {seed + 77};
        if (i == 1)
            disguise(m[i]->entries.data[0], &r);
        pm_pass_run run = {.options = &plain, .passes = passes, .pass_limit = -1, .verify_each = true};
        ck_assert_int_eq(pm_passes_run(m[i], &run), PM_OK);
        for (const pm_op *op = m[i]->entries.data[0]->first; op; op = op->next)
            n[i] += op->code != PM_OP_const && op->code != PM_OP_dims;
    }
    ck_assert_msg(n[1] <= n[0], "%zu ops, %zu without disguise\n%s%s", n[1], n[0], n[1] <= n[0] ? "" : shown(m[0]),
                  n[1] <= n[0] ? "" : shown(m[1]));
}
END_TEST

START_TEST(test_disguises_are_many)
{
    // else the tests above would say little
    size_t n[2] = {0};
    for (uint64_t seed = 0; seed < 60; seed++)
        for (int i = 0; i < 2; i++) {
            pm_module *m = random_module_of(arena, diag, seed, RANDOM_MOST);
            random_state r = {seed + 77};
            if (i == 1)
                disguise(m->entries.data[0], &r);
            for (const pm_op *op = m->entries.data[0]->first; op; op = op->next)
                n[i]++;
        }
    ck_assert_msg(n[1] > n[0] + n[0] / 4, "%zu ops of %zu", n[1], n[0]);
}
END_TEST

START_TEST(test_few_are_refused)
{
    // else the tests above would say little
    int n_refused = 0;
    for (uint64_t seed = 0; seed < 60; seed++)
        n_refused += !compare("O3", seed, false);
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
    tcase_add_test(tests, test_lists);
    tcase_add_test(tests, test_unknown_names);
    tcase_add_test(tests, test_all_passes_are_in_pipelines);
    tcase_add_test(tests, test_placement);
    tcase_add_test(tests, test_large_graphs);
    tcase_add_loop_test(tests, test_each_pass_keeps_results, 0, n_seeds);
    tcase_add_loop_test(tests, test_pipelines_keep_results, 0, n_seeds);
    tcase_add_loop_test(tests, test_any_order_keeps_results, 0, n_seeds);
    tcase_add_loop_test(tests, test_disguises_are_seen_through, 0, n_seeds);
    tcase_add_test(tests, test_disguises_are_many);
    tcase_add_test(tests, test_few_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
