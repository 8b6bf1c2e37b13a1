// Placements as annotations of ONNX models: what is added, and that all else stays as it was.

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/onnx/onnx_sharding.h"

typedef struct message {
    uint8_t bytes[512];
    size_t n;
} message;

static pm_arena *arena;
static pm_diag *diag;
static char in[64], out[64];

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    snprintf(in, sizeof in, "/tmp/sharding%d.onnx", (int)getpid());
    snprintf(out, sizeof out, "/tmp/sharding%d.out.onnx", (int)getpid());
}

static void teardown(void)
{
    remove(in);
    remove(out);
    pm_arena_destroy(arena);
}

static void number(message *m, int field, uint8_t value)
{
    ck_assert_uint_lt(value, 0x80);
    if (field >= 16)
        m->bytes[m->n++] = (uint8_t)((field << 3 & 0x7f) | 0x80);
    m->bytes[m->n++] = field >= 16 ? (uint8_t)(field >> 4) : (uint8_t)(field << 3);
    m->bytes[m->n++] = value;
}

static void bytes_of(message *m, int field, const void *from, size_t n)
{
    if (field >= 16)
        m->bytes[m->n++] = (uint8_t)((field << 3 & 0x7f) | 0x80 | 2);
    m->bytes[m->n++] = field >= 16 ? (uint8_t)(field >> 4) : (uint8_t)(field << 3 | 2);
    if (n >= 0x80)
        m->bytes[m->n++] = (uint8_t)(n | 0x80);
    m->bytes[m->n++] = n >= 0x80 ? (uint8_t)(n >> 7) : (uint8_t)n;
    memcpy(m->bytes + m->n, from, n);
    m->n += n;
}

static void string(message *m, int field, const char *text)
{
    bytes_of(m, field, text, strlen(text));
}

static void sub(message *m, int field, const message *part)
{
    bytes_of(m, field, part->bytes, part->n);
}

static message spec(const char *tensor, const int64_t *devices, size_t n, uint8_t parts)
{
    message m = {0}, dim = {0}, simple = {0};
    string(&m, 1, tensor);
    for (size_t i = 0; i < n; i++)
        number(&m, 2, (uint8_t)devices[i]);
    if (parts) {
        number(&simple, 1, parts);
        number(&simple, 3, parts);
        number(&dim, 1, 0);
        sub(&dim, 2, &simple);
        sub(&m, 4, &dim);
    }
    return m;
}

/// Two nodes, the second without a name; w [3, 2] of floats and i [3] of numbers. `annotated`: as it must become.
static message model(bool annotated)
{
    static const int64_t both[] = {0, 1}, experts[] = {1, 0, 1}, second[] = {1};
    message m = {0}, graph = {0}, first = {0}, other = {0}, w = {0}, i = {0}, c = {0}, s;
    string(&first, 1, "x");
    string(&first, 1, "w");
    string(&first, 1, "i");
    string(&first, 2, "y");
    string(&first, 3, "moe");
    string(&first, 77, "unknown");
    if (annotated) {
        string(&c, 1, "pimoe");
        s = spec("w", experts, 3, 3);
        sub(&c, 2, &s);
        s = spec("y", both, 2, 0);
        sub(&c, 2, &s);
        sub(&first, 10, &c);
    }
    string(&other, 1, "y");
    string(&other, 2, "z");
    if (annotated) {
        c = (message){0};
        string(&c, 1, "pimoe");
        s = spec("z", second, 1, 0);
        sub(&c, 2, &s);
        sub(&other, 10, &c);
    }
    number(&w, 1, 3);
    number(&w, 1, 2);
    number(&w, 2, 1);
    string(&w, 8, "w");
    number(&i, 1, 3);
    number(&i, 2, 7);
    string(&i, 8, "i");
    sub(&graph, 1, &first);
    sub(&graph, 1, &other);
    string(&graph, 2, "graph");
    sub(&graph, 5, &w);
    sub(&graph, 5, &i);
    number(&m, 1, annotated ? 11 : 8);
    sub(&m, 7, &graph);
    string(&m, 2, "somebody");
    if (annotated) {
        c = (message){0};
        string(&c, 1, "pimoe");
        number(&c, 2, 2);
        string(&c, 3, "cpu0");
        string(&c, 3, "cuda0");
        sub(&m, 26, &c);
    }
    return m;
}

static const int64_t both_devices[] = {0, 1}, expert_devices[] = {1, 0, 1}, cuda[] = {1};
static const char *const names[] = {"cpu0", "cuda0"};
static const pm_node_sharding nodes[] = {
    {.what = "node", .name = "moe", .devices = both_devices, .n_devices = 2, .experts = expert_devices, .n_experts = 3},
    {.what = "node of", .name = "z", .devices = cuda, .n_devices = 1},
    {.what = "node", .name = "gone", .devices = cuda, .n_devices = 1},
};
static const pm_sharding sharding = {.name = "pimoe", .devices = names, .n_devices = 2, .nodes = nodes, .n_nodes = 3};

static pm_status write_sharding(const message *m, size_t *out_annotated)
{
    pm_out_file *file;
    FILE *to = fopen(in, "wb");
    ck_assert_ptr_nonnull(to);
    ck_assert_uint_eq(fwrite(m->bytes, 1, m->n, to), m->n);
    ck_assert_int_eq(fclose(to), 0);
    ck_assert_int_eq(pm_out_open(arena, diag, out, 0644, &file), PM_OK);
    PM_TRY(pm_onnx_write_sharding(arena, diag, in, &sharding, file, out_annotated));
    return pm_out_commit(diag, file);
}

START_TEST(test_annotated)
{
    message m = model(false), want = model(true);
    uint8_t got[1024];
    size_t n;
    ck_assert_int_eq(write_sharding(&m, &n), PM_OK);
    ck_assert_uint_eq(n, 2);
    FILE *from = fopen(out, "rb");
    ck_assert_ptr_nonnull(from);
    size_t size = fread(got, 1, sizeof got, from);
    fclose(from);
    ck_assert_uint_eq(size, want.n);
    ck_assert_mem_eq(got, want.bytes, size);
}
END_TEST

START_TEST(test_damaged)
{
    size_t n, refused = 0;
    message whole = model(false);
    for (size_t cut = 1; cut < whole.n; cut++) { // within a field; between two it is a shorter model
        message m = whole;
        m.n = cut;
        refused += write_sharding(&m, &n) == PM_ERR_INVALID;
    }
    ck_assert_uint_gt(refused, whole.n - 10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("onnx_sharding");
    TCase *tests = tcase_create("onnx_sharding");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_annotated);
    tcase_add_test(tests, test_damaged);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
