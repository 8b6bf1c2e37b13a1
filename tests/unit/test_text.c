// The text form of modules: what is printed parses back to the same, bit by bit; what is malformed
// is refused with its place.

#include <check.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "ir/text_number.h"

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

static char *printed(const pm_module *m)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_module_print(m, out);
    fclose(out);
    char *copy = pm_arena_strndup(arena, text, n);
    free(text);
    return copy;
}

static char *diag_text(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_diag_print(diag, out, false);
    fclose(out);
    char *copy = pm_arena_strndup(arena, text, n);
    free(text);
    return copy;
}

static pm_module *parsed_in(const char *text, const char *dir)
{
    pm_module *m = NULL;
    pm_status status = pm_module_parse(arena, diag, "t.pm", text, strlen(text), dir, &m);
    ck_assert_msg(status == PM_OK, "refused:\n%s\n%s", text, diag_text());
    ck_assert_ptr_nonnull(m);
    return m;
}

static pm_module *parsed(const char *text)
{
    return parsed_in(text, NULL);
}

/// A module with one entry of that text.
static const char *with_entry(const char *entry)
{
    return pm_arena_printf(arena,
                           "module \"t\" {\n  symbol B in [1, 64]\n  symbol T in [1, 128]\n"
                           "%s\n}\n",
                           entry);
}

/// Parses and prints until it must stay the same; returns the printed text.
static const char *round_trip(const char *text)
{
    char *first = printed(parsed(text));
    char *second = printed(parsed(first));
    ck_assert_str_eq(first, second);
    return first;
}

static const char everything[] =
    "module \"every thing\" {\n"
    "  symbol B in [1, 64]\n"
    "  symbol T in [1, 1024]\n"
    "  symbol \"odd \\\"name\\\"\" in [0, inf]\n"
    "  symbol n0 dynamic in [0, 65536] <= B*T\n"
    "  symbol free dynamic in [0, inf]\n"
    "  meta \"model_type\" = \"mix\\ttral\\n\\x01\\\"q\\\" \xc3\xa4\"\n"
    "  meta \"empty\" = \"\"\n"
    "  blob \"tokenizer\" = hex(\"00ff10\")\n"
    "  blob \"nothing\" = hex()\n"
    "  state \"k0\" : f32[B, 4, ceildiv(T, 16), 32, 16]\n"
    "  entry forward(%x: f32[B, T, 8], %k0: f32[B, 4, ceildiv(T, 16), 32, 16] state \"k0\" @ "
    "state(0), %0 \"a name\": f32[B*T, 8] @ input(1), %u: i64[\"odd \\\"name\\\"\", free]) -> "
    "(logits: %sm, k0: %k0 state \"k0\", \"odd name\": %e) plan(arena = 64*B*T + 128, dynamic = 3) "
    "{\n"
    "    %w = const {value = [1, -2.5, nan, inf, 0x7fc00001, 1e-40, -0, 3]} : f32[8] @ weight(0) "
    "loc(\"w.safetensors\" @ 77 tensor \"w\")\n"
    "    %y = mul(%x, %w) : f32[B, T, 8] @ dynamic(2) loc(\"model.onnx\" node \"layers.3/router\" "
    "(\"TopK\") by \"fuse\" <- \"m.json\":3:4 _ \"x\" by \"fold\" <- _ (\"only\"))\n"
    "    %sm = softmax(%y) {axis = 1, log = true} : f32[B, T, 8] @ arena(4*B*T) loc(_)\n"
    "    %gate = const {value = splat(1)} : f32[16, 8] loc(\"t.pm\":9:3)\n"
    "    %scores = linear(%0, %gate, _) : f32[B*T, 16] @ output(0) loc(_)\n"
    "    %i, %wt = route(%scores) {top_k = 2, eps = 0.1} : i32[B*T, 2], f32[B*T, 2] @ alias(0, "
    "16*T) loc(_)\n"
    "    %ew = const {value = splat(0.5)} : bf16[16, 8, 8] loc(_)\n"
    "    %e = experts(%0, %i, %wt, %ew) {experts = 16, top_k = 2} : f32[B*T, 8] loc(_) regions {\n"
    "      region shared(%r: f32[n0, 8], %w: bf16[8, 8]) -> (%o) plan(dynamic = 1) {\n"
    "        %o = linear(%r, %w) {compute = bf16} : f32[n0, 8] loc(_)\n"
    "      }\n"
    "    }\n"
    "    %d = dims [B, 3, floordiv(B + 2*T + \"odd \\\"name\\\"\" - 3, 4)] : i64[3] loc(_)\n"
    "    %y.1, %1 \"y\" = split(%y) {axis = 2} : f32[B, T, 4], f32[B, T, 4] loc(_)\n"
    "    %free = concat(%y.1, %1) {axis = -1} : f32[B, T, 8] loc(_)\n"
    "    %2 = transpose(%free) {perm = [2, 0, 1]} : f32[8, B, T] loc(_)\n"
    "    %packed = pack(%gate) {panel = 16, group = \"g\"} : f32[16, 8]{panel=16, pair=1, ways=1} "
    "loc(_)\n"
    "  }\n"
    "  entry \"\xc3\xa4\"() -> () {\n"
    "  }\n"
    "}\n";

START_TEST(test_everything_stays)
{
    ck_assert_str_eq(round_trip(everything), everything); // it is in the printer's own form
}
END_TEST

START_TEST(test_parsed_meaning)
{
    pm_module *m = parsed(everything);
    ck_assert_str_eq(m->name, "every thing");
    ck_assert_uint_eq(m->symbols.n, 5);
    ck_assert(m->symbols.data[3].data_dependent && m->symbols.data[3].hi == 65536);
    ck_assert_int_eq(m->symbols.data[2].hi, INT64_MAX);
    ck_assert_str_eq(pm_map_get_str(&m->meta, "model_type"), "mix\ttral\n\x01\"q\" \xc3\xa4");
    const pm_data *blob = pm_map_get_str(&m->blobs, "tokenizer");
    ck_assert_uint_eq(blob->size, 3);
    ck_assert_mem_eq(blob->bytes, "\x00\xff\x10", 3);
    const pm_graph *g = m->entries.data[0];
    ck_assert_uint_eq(g->args.n, 4);
    ck_assert_int_eq(g->arg_states.data[0], -1);
    ck_assert_int_eq(g->arg_states.data[1], 0);
    ck_assert_int_eq(g->result_states.data[1], 0);
    ck_assert_str_eq(g->args.data[2]->name, "a name");
    ck_assert_ptr_null(g->first->next->next->results[0]->uses); // sm is a result alone
    ck_assert_uint_eq(g->n_dynamic, 3);
    ck_assert_int_eq(g->args.data[2]->place.kind, PM_PLACE_INPUT);
    ck_assert_uint_eq(g->args.data[2]->place.index, 1);
    const pm_op *mul = g->first->next;
    ck_assert_int_eq(mul->code, PM_OP_mul);
    ck_assert_str_eq(mul->loc->file, "model.onnx");
    ck_assert_str_eq(mul->loc->what, "node");
    ck_assert_str_eq(mul->loc->detail, "TopK");
    ck_assert_str_eq(mul->loc->by, "fuse");
    ck_assert_uint_eq(mul->loc->from->line, 3);
    ck_assert_ptr_null(mul->loc->from->what);
    ck_assert_str_eq(mul->loc->from->name, "x");
    ck_assert_str_eq(mul->loc->from->from->detail, "only");
    ck_assert_ptr_null(mul->loc->from->from->from);
    const pm_data *data = pm_value_const(mul->operands[1]);
    float values[8];
    ck_assert_uint_eq(data->size, sizeof values);
    memcpy(values, data->bytes, sizeof values);
    ck_assert(values[0] == 1 && values[1] == -2.5f && isnan(values[2]) && isinf(values[3]));
    ck_assert(values[5] == 1e-40f && values[6] == 0 && signbit(values[6]));
    uint32_t bits;
    memcpy(&bits, &values[4], sizeof bits);
    ck_assert_uint_eq(bits, 0x7fc00001);
}
END_TEST

START_TEST(test_short_forms)
{
    // types, locations and semicolons are optional; a location is then the place in the text
    pm_module *m = parsed("module short { symbol B; // unbounded\n"
                          "  entry main(%x: f32[B, 3]) -> (y: %y) { %y = neg(%x); }\n}");
    const pm_op *op = m->entries.data[0]->first;
    ck_assert_str_eq(op->loc->file, "t.pm");
    ck_assert_uint_eq(op->loc->line, 2);
    ck_assert_uint_eq(op->loc->col, 47);
    ck_assert_ptr_eq(op->results[0]->type, m->entries.data[0]->args.data[0]->type);
    const char *text = round_trip("module short { symbol B entry main(%x: f32[B, B*2+3*(1+B)]) -> "
                                  "(%y) { %y = neg(%x) } }");
    ck_assert_ptr_nonnull(strstr(text, "f32[B, 5*B + 3]"));
}
END_TEST

START_TEST(test_symbols_that_nothing_uses_are_left_out)
{
    const char *text = round_trip(with_entry("entry e(%x: f32[B]) -> () {}"));
    ck_assert_ptr_nonnull(strstr(text, "symbol B"));
    ck_assert_ptr_null(strstr(text, "symbol T"));
}
END_TEST

// ---- elements ----

static void check_element(pm_elem elem, uint64_t bits)
{
    char text[PM_NUMBER_TEXT];
    uint64_t back = 0, stored = bits;
    pm_elem_to_text(elem, &stored, text);
    const char *wrong = pm_elem_from_text(elem, text, &back);
    ck_assert_msg(wrong == NULL, "%s %s: %s", pm_elem_name(elem), text, wrong);
    uint64_t mask = UINT64_MAX >> (64 - 8 * pm_elem_size(elem));
    ck_assert_msg((back & mask) == (bits & mask), "%s %s: %llx came back as %llx",
                  pm_elem_name(elem), text, (unsigned long long)bits, (unsigned long long)back);
}

START_TEST(test_elements_come_back)
{
    // every 16-bit pattern; for wider types, all exponents with telling mantissas, and a walk
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        check_element(PM_F16, bits);
        check_element(PM_BF16, bits);
    }
    static const uint64_t mantissas[] = {0, 1, 2, 0x555555, 0x7ffffe, 0x7fffff, 0x400000};
    for (uint32_t exponent = 0; exponent < 512; exponent++)
        for (size_t i = 0; i < PM_COUNT(mantissas); i++)
            check_element(PM_F32, (uint64_t)exponent << 23 | mantissas[i]);
    for (uint32_t exponent = 0; exponent < 4096; exponent += 7)
        for (size_t i = 0; i < PM_COUNT(mantissas); i++)
            check_element(PM_F64, (uint64_t)exponent << 52 | mantissas[i] << 29 | mantissas[i]);
    uint64_t state = 1;
    for (int i = 0; i < 4000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        for (int elem = 0; elem < PM_ELEM_COUNT; elem++)
            check_element((pm_elem)elem, state ^ state >> 29);
    }
}
END_TEST

START_TEST(test_shortest_digits)
{
    const struct {
        pm_elem elem;
        double value;
        const char *text;
    } cases[] = {{PM_F32, 0.1f, "0.1"},
                 {PM_F32, 16777216, "16777216"},
                 {PM_F32, 1e-45f, "1e-45"},
                 {PM_F32, -0.0f, "-0"},
                 {PM_F64, 0.1, "0.1"},
                 {PM_F64, 1.0 / 3, "0.3333333333333333"},
                 {PM_F64, INFINITY, "inf"},
                 {PM_F64, -INFINITY, "-inf"},
                 {PM_F32, 3.4028234663852886e38, "3.4028235e+38"}};
    for (size_t i = 0; i < PM_COUNT(cases); i++) {
        char text[PM_NUMBER_TEXT];
        float narrow = (float)cases[i].value;
        const void *bytes = cases[i].elem == PM_F32 ? (void *)&narrow : (void *)&cases[i].value;
        pm_elem_to_text(cases[i].elem, bytes, text);
        ck_assert_str_eq(text, cases[i].text);
    }
}
END_TEST

START_TEST(test_rounding_of_decimals)
{
    // halfway cases go to the even neighbour; what is beyond the largest becomes infinite
    const struct {
        pm_elem elem;
        const char *text;
        uint64_t bits;
    } cases[] = {{PM_BF16, "1.00390625", 0x3f80},
                 {PM_BF16, "1.01171875", 0x3f82},
                 {PM_BF16, "3.4e38", 0x7f80},
                 {PM_BF16, "3.38e38", 0x7f7e},
                 {PM_F16, "65504", 0x7bff},
                 {PM_F16, "65519.99", 0x7bff},
                 {PM_F16, "65520", 0x7c00},
                 {PM_F16, "2.98e-8", 0},
                 {PM_F16, "2.99e-8", 1},
                 {PM_F32, "1e400", 0x7f800000},
                 {PM_I8, "-128", 0x80},
                 {PM_U64, "18446744073709551615", UINT64_MAX},
                 {PM_I64, "-9223372036854775808", UINT64_C(1) << 63}};
    for (size_t i = 0; i < PM_COUNT(cases); i++) {
        uint64_t bits = 0;
        const char *wrong = pm_elem_from_text(cases[i].elem, cases[i].text, &bits);
        ck_assert_msg(wrong == NULL, "%s", cases[i].text);
        ck_assert_msg(bits == cases[i].bits, "%s: %llx, expected %llx", cases[i].text,
                      (unsigned long long)bits, (unsigned long long)cases[i].bits);
    }
    static const struct {
        pm_elem elem;
        const char *text;
    } refused[] = {{PM_I8, "128"},
                   {PM_I8, "-129"},
                   {PM_U8, "-1"},
                   {PM_U8, "256"},
                   {PM_I64, "9223372036854775808"},
                   {PM_U64, "18446744073709551616"},
                   {PM_I32, "1.5"},
                   {PM_F32, "1x"},
                   {PM_F32, ""},
                   {PM_BOOL, "1"},
                   {PM_F16, "0x10000"},
                   {PM_F32, "0x"},
                   {PM_I64, ""},
                   {PM_F32, "-nan"}};
    for (size_t i = 0; i < PM_COUNT(refused); i++) {
        uint64_t bits = 0;
        ck_assert_msg(pm_elem_from_text(refused[i].elem, refused[i].text, &bits) != NULL,
                      "accepted: %s", refused[i].text);
    }
}
END_TEST

START_TEST(test_numbers_ignore_the_locale)
{
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL)
        return; // not installed; the code names the "C" locale either way
    const char *text =
        round_trip(with_entry("entry e() -> (%w) { %w = const {value = [0.5]} : f32[1] }"));
    setlocale(LC_NUMERIC, "C");
    ck_assert_ptr_nonnull(strstr(text, "[0.5]"));
}
END_TEST

// ---- constants ----

START_TEST(test_constant_forms)
{
    static const char *const forms[] = {
        "%w = const {value = []} : f32[0] loc(_)",
        "%w = const {value = [7]} : i64[] loc(_)",
        "%w = const {value = [true, false, 0x2]} : bool[3] loc(_)",
        "%w = const {value = [-128, 127]} : i8[2] loc(_)",
        "%w = const {value = splat(-0.5)} : f16[65] loc(_)",
        "%w = const {value = splat(true)} : bool[100, 100] loc(_)",
        "%w = const {value = [18446744073709551615]} : u64[1] loc(_)",
    };
    for (size_t i = 0; i < PM_COUNT(forms); i++) {
        const char *text =
            round_trip(with_entry(pm_arena_printf(arena, "entry e() -> (%%w) { %s }", forms[i])));
        ck_assert_msg(strstr(text, forms[i]) != NULL, "%s became\n%s", forms[i], text);
    }
    // elements that differ and are many: as bytes, in lines
    char *list = pm_arena_strdup(arena, "0");
    for (int i = 1; i < 100; i++)
        list = pm_arena_printf(arena, "%s, %d", list, i);
    const char *text = round_trip(with_entry(pm_arena_printf(
        arena, "entry e() -> (%%w) { %%w = const {value = [%s]} : u8[100] }", list)));
    ck_assert_ptr_nonnull(strstr(text, "hex(\"000102030405"));
    ck_assert_ptr_nonnull(strstr(text, "3f\"\n        \"4041"));
    pm_module *m = parsed(text);
    const pm_data *data = pm_value_const(m->entries.data[0]->results.data[0]);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(data->bytes[i], i);
}
END_TEST

START_TEST(test_constants_in_files)
{
    char dir[] = "/tmp/pm_text_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    char *path = pm_arena_printf(arena, "%s/weights.bin", dir);
    FILE *out = fopen(path, "wb");
    fwrite("0123456789abcdef", 1, 16, out);
    fclose(out);
    const char *text = with_entry("entry e() -> (%w, %v) {\n"
                                  "%w = const {value = file(\"weights.bin\", 4, 8)} : i32[2]\n"
                                  "%v = const {value = file(\"weights.bin\", 0, 16)} : f64[2]\n}");
    pm_module *m = parsed_in(text, dir);
    const pm_data *w = pm_value_const(m->entries.data[0]->results.data[0]);
    const pm_data *v = pm_value_const(m->entries.data[0]->results.data[1]);
    ck_assert_ptr_eq(w->file, v->file); // opened once
    const uint8_t *bytes = NULL;
    ck_assert_int_eq(pm_data_bytes(m, w, &bytes), PM_OK);
    ck_assert_mem_eq(bytes, "456789ab", 8);
    const char *first = printed(m);
    ck_assert_ptr_nonnull(strstr(first, "file(\"weights.bin\", 4, 8)"));
    ck_assert_str_eq(printed(parsed_in(first, dir)), first);
    // an absolute path into the folder is as good
    const char *absolute = with_entry(pm_arena_printf(
        arena, "entry e() -> (%%w) { %%w = const {value = file(\"%s\", 4, 8)} : i32[2] }", path));
    first = printed(parsed_in(absolute, dir));
    ck_assert_str_eq(printed(parsed_in(first, pm_arena_printf(arena, "%s/", dir))), first);
    ck_assert_str_eq(printed(parsed_in(first, "/")), first);

    const struct {
        const char *file, *dir, *message;
    } refused[] = {
        {"\"weights.bin\", 12, 8", dir, "end beyond the file's 16 bytes"},
        {"\"weights.bin\", 18446744073709551615, 8", dir, "end beyond the file's 16 bytes"},
        {"\"../weights.bin\", 0, 8", dir, "leaves the folder"},
        {"\"/etc/passwd\", 0, 8", dir, "absolute path"},
        {"\"weights.bin\", 0, 8", NULL, "no folder was given"},
        {"\"weights.bin\", -1, 8", dir, "does not fit"},
        {"\"other.bin\", 0, 8", dir, "other.bin"},
        {"\"weights.bin\", 0, 4", dir, "4 bytes given, but i32[2] has 8"},
    };
    for (size_t i = 0; i < PM_COUNT(refused); i++) {
        diag = pm_diag_create(arena);
        const char *bad = with_entry(
            pm_arena_printf(arena, "entry e() -> (%%w) { %%w = const {value = file(%s)} : i32[2] }",
                            refused[i].file));
        ck_assert_int_ne(pm_module_parse(arena, diag, "t.pm", bad, strlen(bad), refused[i].dir, &m),
                         PM_OK);
        ck_assert_msg(strstr(diag_text(), refused[i].message) != NULL, "%s: %s", refused[i].file,
                      diag_text());
    }
    unlink(path);
    rmdir(dir);
}
END_TEST

// ---- names ----

START_TEST(test_names)
{
    // the first of a kind goes by its name, others by number and say it; regions begin anew
    const char *text = round_trip(with_entry(
        "entry e(%1 \"x\": f32[B], %2 \"x\": f32[B], %7 \"/a/b\": f32[B], %8 \"9\": f32[B]) -> "
        "(%3) {\n %3 = add(%1, %2)\n %4 = add(%7, %8)\n"
        " %5 = fused(%1) regions { (%9 \"x\": f32[B]) -> (%10) { %10 = neg(%9) } }\n %6 = "
        "neg(%5)}"));
    ck_assert_ptr_nonnull(
        strstr(text, "e(%x: f32[B], %0 \"x\": f32[B], %1 \"/a/b\": f32[B], %2 \"9\": f32[B])"));
    ck_assert_ptr_nonnull(strstr(text, "-> (%3) {\n    %3 = add(%x, %0)"));
    ck_assert_ptr_nonnull(strstr(text, "%5 = fused(%x)"));
    ck_assert_ptr_nonnull(strstr(text, "(%x: f32[B]) -> (%6) {\n        %6 = neg(%x)"));
    ck_assert_ptr_nonnull(strstr(text, "%7 = neg(%5)"));
}
END_TEST

START_TEST(test_hostile_names)
{
    // control characters, quotes, broken UTF-8, text that turns around: all as escapes, all back
    pm_module *m = pm_module_create(arena, diag, "m\n\"\\");
    pm_graph *g = pm_entry_create(m, "e \x01\xff\xe2\x80\xae");
    pm_dim three = pm_dim_const(m, 3);
    pm_value *x = pm_graph_add_arg(g, "a\tb\x7f\x80", pm_type_get(m, PM_F32, 1, &three), -1);
    pm_graph_add_result(g, "", x, -1);
    pm_map_put_str(&m->meta, "k\"", "v\\\n");
    char *first = printed(m);
    for (const char *c = first; *c != '\0'; c++)
        ck_assert(*c == '\n' || (*c >= 0x20 && *c < 0x7f));
    pm_module *again = parsed(first);
    ck_assert_str_eq(again->name, m->name);
    ck_assert_str_eq(again->entries.data[0]->name, g->name);
    ck_assert_str_eq(again->entries.data[0]->args.data[0]->name, x->name);
    ck_assert_str_eq(again->entries.data[0]->result_names.data[0], "");
    ck_assert_str_eq(printed(again), first);
}
END_TEST

START_TEST(test_one_graph)
{
    pm_module *m = parsed(with_entry("entry e(%x: f32[B]) -> (%y) { %y = neg(%x) loc(_) }"));
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_graph_print(m->entries.data[0], out);
    fclose(out);
    ck_assert_str_eq(text, "entry e(%x: f32[B]) -> (%y) {\n  %y = neg(%x) : f32[B] loc(_)\n}\n");
    free(text);
}
END_TEST

// ---- what is refused ----

typedef struct refusal {
    const char *text;    ///< an entry, or a whole module when it begins with "module"
    const char *place;   ///< line:col within it, NULL: not checked
    const char *message; ///< part of the error
} refusal;

// of entries, line 1 is the first line of the text
static const refusal refusals[] = {
    {"module", "1:7", "expected the module's name"},
    {"modul \"x\" {}", "1:1", "expected 'module', found 'modul'"},
    {"module \"x\" {", "1:13", "found the end of the file"},
    {"module \"x\" {} x", "1:15", "expected the end of the file"},
    {"module \"x\" { symbl B }", "1:14", "expected symbol, meta, blob, state, entry or '}'"},
    {"module \"x\" { symbol B in [3, 2] }", "1:21", "must not be empty"},
    {"module \"x\" { symbol B in [-1, 2] }", "1:21", "nor start below 0"},
    {"module \"x\" { symbol B symbol B }", "1:30", "declared twice"},
    {"module \"x\" { symbol B <= 3 }", "1:21", "only a dynamic symbol has a bound"},
    {"module \"x\" { symbol B in [1, 99999999999999999999] }", "1:30", "does not fit"},
    {"module \"x\" { meta \"a\" = \"b\" meta \"a\" = \"c\" }", "1:34", "given twice"},
    {"module \"x\" { blob \"a\" = [1] }", "1:25", "a blob is hex"},
    {"module \"x\" { blob \"a\" = hex(\"0\") }", "1:29", "an even number of digits"},
    {"module \"x\" { blob \"a\" = hex(\"0G\") }", "1:29", "digits 0-9 and a-f"},
    {"module \"x\" { state \"a\" : f32[1] state \"a\" : f32[1] }", "1:39", "declared twice"},
    {"module \"x\" { entry e() -> () {} entry e() -> () {} }", "1:39", "defined twice"},
    {"module \"x\" { meta \"a\" = \"b\n\" }", "1:27", "does not end on its line"},
    {"module \"x\" { meta \"a\" = \"b", "1:25", "does not end on its line"},
    {"module \"x\" { meta \"a\" = \"\\q\" }", "1:26", "unknown escape"},
    {"module \"x\" { meta \"a\" = \"\\x00\" }", "1:26", "unknown escape"},
    {"module \"x\" { meta \"a\" = \"\\x1\" }", "1:26", "unknown escape"},
    {"module \"x\" { meta \"a\" = \"\\\" }", "1:25", "does not end on its line"},
    {"module \"x\" { $ }", "1:14", "starts nothing"},
    {"module \"x\" { \xff }", "1:14", "starts nothing"},
    {"module \"x\" { % }", "1:15", "expected a name or a number after '%'"},
    {"entry e() -> (%y) {}", "1:15", "%y is not defined"},
    {"entry e(%value: f32[B]) -> (%valeu) {}", "1:29", "did you mean 'value'?"},
    {"entry e(%x: f32[B], %x: f32[B]) -> () {}", "1:21", "%x is defined twice"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%z) %z = neg(%x) }", "1:38", "%z is not defined"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%y) }", "1:38", "%y is not defined"},
    {"entry e(%x: f32[B]) -> () { %y = softmx(%x) }", "1:34", "did you mean 'softmax'?"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {axes = 1} }", "1:47", "did you mean 'axis'?"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {axis = 0, axis = 0} }", "1:57", "given twice"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {axis = 0.5} }", "1:54", "an integer"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {axis = true} }", "1:54", "an integer"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {log = 1} }", "1:53", "true or false"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {axis = 99999999999999999999} }", "1:54",
     "does not fit"},
    {"entry e(%x: f32[B]) -> () { %y = softmax(%x) {axis = 5} }", "1:34", "axis"},
    {"entry e(%x: f32[B]) -> () { %y = cast(%x) {to = f23} }", "1:49", "did you mean 'f32'?"},
    {"entry e(%x: f32[B]) -> () { %y = cast(%x) }", "1:34", "to"},
    {"entry e(%x: f32[B]) -> () { %y = neg() }", "1:34", "takes 1 operands, found 0"},
    {"entry e(%x: f32[B]) -> () { %y = neg(_) }", "1:34", "is missing"},
    {"entry e(%x: f32[B]) -> () { neg(%x) }", "1:29", "takes 1 results, found 0"},
    {"entry e(%x: f32[B]) -> () { %y, %z = neg(%x) }", "1:38", "takes 1 results, found 2"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%x) : f32[T, B] }", "1:44",
     "the text says f32[T, B], but neg gives f32[B]"},
    {"entry e(%x: f32[3]) -> () { %y = neg(%x) : f32[4] }", "1:44",
     "the text says f32[4], but neg gives f32[3]"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%x) : f32[B], f32[B] }", "1:34", "2 types for 1"},
    {"entry e(%x: f32[B]) -> () { %y = add(%x, %w) }", "1:42", "%w is not defined"},
    {"entry e(%x: f32[C]) -> () {}", "1:17", "symbol 'C' is not declared"},
    {"entry e(%x: f32[B) -> () {}", "1:18", "expected ',' or ']'"},
    {"entry e(%x: f32[]{panel=16, pair=1, ways=1}) -> () {}", "1:13", "only matrices"},
    {"entry e(%x: f32[4, 4]{panel=0, pair=1, ways=1}) -> () {}", "1:29", "panel must be in"},
    {"entry e(%x: f32[4, 4]{panel=5, pair=1, ways=2}) -> () {}", "1:13", "shared by the sources"},
    {"entry e(%x: f32[1, 1, 1, 1, 1, 1, 1, 1, 1]) -> () {}", "1:13", "more than 8 dims"},
    {"entry e(%x: f32[B + ]) -> () {}", "1:21", "expected a size, found ']'"},
    {"entry e(%x: f32[(B]) -> () {}", "1:19", "expected ')'"},
    {"entry e(%x: f32[min(B)]) -> () {}", "1:22", "expected ','"},
    {"entry e(%x: f32[min(B, T, 3)]) -> () {}", "1:25", "expected ')'"},
    {"entry e(%x: f32[floordiv(B, 0)]) -> () {}", "1:17", "divides by zero"},
    {"entry e(%x: f32[9223372036854775807 + 1]) -> () {}", "1:17", "overflows"},
    {"entry e(%x: f32[9999999999999999999999]) -> () {}", "1:17", "does not fit"},
    {"entry e(%x: f32[B] state \"k\") -> () {}", "1:26", "state 'k' is not declared"},
    {"entry e(%x: f32[B] @ arena) -> () {}", "1:27", "expected '('"},
    {"entry e(%x: f32[B] @ area(0)) -> () {}", "1:22", "did you mean 'arena'?"},
    {"entry e(%x: f32[B] @ input(-1)) -> () {}", "1:28", "does not fit"},
    {"entry e() -> () { %w = const {value = [1, 2]} : f32[3] }", "1:39", "2 elements given"},
    {"entry e() -> () { %w = const {value = [1, x]} : f32[2] }", "1:43", "expected an element"},
    {"entry e() -> () { %w = const {value = [300]} : u8[1] }", "1:40", "does not fit"},
    {"entry e() -> () { %w = const {value = [1.5]} : i32[1] }", "1:40", "expected an integer"},
    {"entry e() -> () { %w = const {value = [1]} }", "1:24", "a constant needs a type"},
    {"entry e() -> () { %w = const : f32[1] }", "1:24", "value"},
    {"entry e() -> () { %w = const {value = [1]} : f32[B] }", "1:39", "whose size is not fixed"},
    {"entry e() -> () { %w = const {value = splat(0)} : f64[999999, 999999] }", "1:39",
     "more than 67108864 bytes"},
    {"entry e() -> () { %w = const {value = hex(\"00\")} : f32[1] }", "1:39", "1 bytes given"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%x) loc(\"f\":1) }", "1:51", "expected ':'"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%x) loc(node \"x\") }", "1:46", "a file's name"},
    {"entry e(%x: f32[B]) -> () { %y = fused(%x) }", "1:34", "needs 1 regions, found 0"},
    {"entry e(%x: f32[B]) -> () { %y = fused(%x) regions { (%a: f32[B]) -> (%a) {} (%a: f32[B]) -> "
     "(%a) {} } }",
     "1:78", "expected '}' after 1 regions"},
    {"entry e(%x: f32[B]) -> () { %y = fused(%x) regions { (%a: f32[B]) -> (%x) {} } }", "1:71",
     "regions see their arguments alone"},
    {"entry e(%x: f32[B]) -> () { %y = neg(%x) regions { (%a: f32[B]) -> (%a) {} } }", "1:52",
     "expected '}' after 0 regions"},
    {"entry e() -> () { %d = dims }", "1:29", "expected '['"},
    {"entry e() -> () { %d = dims [B, T] : i64[3] }", "1:38", "the text says i64[3]"},
    {"entry e() -> () { %d = dims [] }", "1:24", "i64[n]"},
};

START_TEST(test_refused)
{
    const refusal *r = &refusals[_i];
    bool is_entry = strncmp(r->text, "entry", 5) == 0;
    const char *text = is_entry ? with_entry(r->text) : r->text;
    pm_module *m = (pm_module *)r;
    pm_status status = pm_module_parse(arena, diag, "t.pm", text, strlen(text), NULL, &m);
    ck_assert_msg(status == PM_ERR_INVALID || status == PM_ERR_UNSUPPORTED, "%d for %s", status,
                  r->text);
    ck_assert_ptr_null(m);
    ck_assert_uint_ge(pm_diag_size(diag), 1);
    const pm_diag_entry *error = pm_diag_at(diag, 0);
    ck_assert_msg(strstr(error->text, r->message) != NULL, "%s:\n%s", r->text, error->text);
    if (r->place != NULL) {
        char place[32];
        snprintf(place, sizeof place, "%u:%u", error->loc->line - (is_entry ? 3 : 0),
                 error->loc->col);
        ck_assert_msg(strcmp(place, r->place) == 0, "%s: the error is at %s, expected %s\n%s",
                      r->text, place, r->place, error->text);
    }
}
END_TEST

START_TEST(test_caret)
{
    static const char text[] =
        "module \"x\" {\n  entry e(%x: f32[2]) -> () { %y = sotfmax(%x) }\n}\n";
    pm_module *m;
    ck_assert_int_ne(pm_module_parse(arena, diag, "x.pm", text, strlen(text), NULL, &m), PM_OK);
    const char *shown = diag_text();
    ck_assert_ptr_nonnull(strstr(shown, "x.pm:2:36: error: unknown op 'sotfmax'"));
    ck_assert_ptr_nonnull(strstr(shown, "%y = sotfmax(%x)"));
    ck_assert_ptr_nonnull(strstr(shown, "^"));
}
END_TEST

/// `depth` groups, one within the other.
static const char *nested(int depth)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    fputs("module \"deep\" { entry e(%x: f32[2]) -> (%y) { ", out);
    for (int i = 0; i < depth; i++)
        fputs("%y = fused(%x) regions { (%x: f32[2]) -> (%y) { ", out);
    fputs("%y = neg(%x) ", out);
    for (int i = 0; i < depth; i++)
        fputs("} } ", out);
    fputs("} }", out);
    fclose(out);
    const char *copy = pm_arena_strndup(arena, text, n);
    free(text);
    return copy;
}

START_TEST(test_depth_of_regions)
{
    round_trip(nested(PM_MAX_REGION_DEPTH));
    pm_module *m;
    const int depths[] = {PM_MAX_REGION_DEPTH + 1, 100000};
    for (size_t i = 0; i < PM_COUNT(depths); i++) {
        const char *text = nested(depths[i]);
        ck_assert_int_eq(pm_module_parse(arena, diag, "t.pm", text, strlen(text), NULL, &m),
                         PM_ERR_UNSUPPORTED);
    }
}
END_TEST

/// The text with one part of it repeated.
static const char *repeated(const char *before, const char *part, int n, const char *after)
{
    size_t size = strlen(part);
    char *middle = pm_arena_alloc(arena, size * (size_t)n + 1, 1);
    for (int i = 0; i < n; i++)
        memcpy(middle + size * (size_t)i, part, size);
    return pm_arena_printf(arena, "%s%s%s", before, middle, after);
}

START_TEST(test_large_inputs)
{
    const struct {
        const char *before, *part, *after;
        int n;
        bool is_accepted;
    } cases[] = {
        {"module \"m\" { entry e(%x: f32[", "(", "", 1000000, false},
        {"module \"m\" { symbol B entry e(%x: f32[", "min(", "B", 1000000, false},
        {"module \"m\" { symbol B entry e(%x: f32[", "-", "B]) -> () {} }", 1000000, false},
        {"module \"m\" { symbol B entry e(%x: f32[B", " + B", "]) -> () {} }", 100000, true},
        {"module \"m\" { symbol B entry e(%x: f32[B", "*B", "]) -> () {} }", 1000, false},
        {"module \"m\" { entry e", "e", "() -> () {} }", 60000, true},
        {"module \"m\" { entry e", "e", "() -> () {} }", 70000, false},
        {"module \"m\" { meta \"a\" = \"", "e", "\" }", 10000000, true},
        {"module \"m\" { blob \"a\" = hex(", "\"00\" ", ") }", 100000, true},
        {"module \"m\" { entry e(%x: f32[9", "9", "]) -> () {} }", 1000, false},
        {"module \"m\" { entry e(%x: f32[1]) -> (%x", ", %x", ") {} }", 100000, true},
        {"", "{", "", 1000000, false},
        {"", "module ", "", 100000, false},
        {"module \"m\" {", " ; ", "}", 2, false},
        {"module \"m\" {", "// \n", "}", 1000000, true},
    };
    for (size_t i = 0; i < PM_COUNT(cases); i++) {
        const char *text = repeated(cases[i].before, cases[i].part, cases[i].n, cases[i].after);
        pm_module *m;
        pm_status status = pm_module_parse(arena, diag, "t.pm", text, strlen(text), NULL, &m);
        ck_assert_msg((status == PM_OK) == cases[i].is_accepted, "case %zu: %d", i, status);
        if (status == PM_OK)
            ck_assert_str_eq(printed(parsed(printed(m))), printed(m));
    }
}
END_TEST

START_TEST(test_every_prefix)
{
    // no prefix crashes, and none is taken for the whole
    for (size_t n = 0; n + 2 < strlen(everything); n++) {
        char *tight = malloc(n + 1); // exactly as long, so that ASan sees each read beyond
        memcpy(tight, everything, n);
        pm_arena *own = pm_arena_create();
        pm_module *m;
        ck_assert_int_ne(pm_module_parse(own, pm_diag_create(own), "t.pm", tight, n, NULL, &m),
                         PM_OK);
        pm_arena_destroy(own);
        free(tight);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");
    TCase *tests = tcase_create("text");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_everything_stays);
    tcase_add_test(tests, test_parsed_meaning);
    tcase_add_test(tests, test_short_forms);
    tcase_add_test(tests, test_symbols_that_nothing_uses_are_left_out);
    tcase_add_test(tests, test_elements_come_back);
    tcase_add_test(tests, test_shortest_digits);
    tcase_add_test(tests, test_rounding_of_decimals);
    tcase_add_test(tests, test_numbers_ignore_the_locale);
    tcase_add_test(tests, test_constant_forms);
    tcase_add_test(tests, test_constants_in_files);
    tcase_add_test(tests, test_names);
    tcase_add_test(tests, test_hostile_names);
    tcase_add_test(tests, test_one_graph);
    tcase_add_loop_test(tests, test_refused, 0, (int)PM_COUNT(refusals));
    tcase_add_test(tests, test_caret);
    tcase_add_test(tests, test_depth_of_regions);
    tcase_add_test(tests, test_large_inputs);
    tcase_add_test(tests, test_every_prefix);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
