// frontend/checkpoint/safetensors: what is read, and that every inconsistency is refused with its place.

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/checkpoint/safetensors.h"

static pm_arena *arena;
static pm_diag *diag;
static char folder[64];

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    strcpy(folder, "/tmp/pm_safetensors_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static const char *path_of(const char *name)
{
    return pm_path_join(arena, folder, name);
}

static void teardown(void)
{
    static const char *const names[] = {"model.safetensors", "a.safetensors", "b.safetensors",
                                        "model.safetensors.index.json", "link", "t.safetensors"};
    for (size_t i = 0; i < PM_COUNT(names); i++)
        unlink(path_of(names[i]));
    ck_assert_int_eq(rmdir(folder), 0);
    pm_arena_destroy(arena);
}

static void write_bytes(const char *name, const void *bytes, size_t size)
{
    FILE *out = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(out);
    ck_assert_uint_eq(fwrite(bytes, 1, size, out), size);
    ck_assert_int_eq(fclose(out), 0);
}

/// A file with that header and `n_data` bytes of data.
static void write_file(const char *name, const char *header, size_t n_data)
{
    size_t n = strlen(header);
    uint8_t *bytes = calloc(1, 8 + n + n_data);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < n_data; i++)
        bytes[8 + n + i] = (uint8_t)i;
    write_bytes(name, bytes, 8 + n + n_data);
    free(bytes);
}

static pm_safetensors new_set(void)
{
    pm_safetensors set = {.arena = arena, .diag = diag, .path = folder};
    pm_map_init(&set.tensors, arena);
    return set;
}

static pm_status read_file(pm_safetensors *set, const char *name)
{
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, path_of(name), &file), PM_OK);
    return pm_safetensors_add_file(set, file);
}

static void expect_error(pm_status status, const char *text)
{
    ck_assert_msg(status != PM_OK, "accepted; expected: %s", text);
    char *all = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&all, &n);
    pm_diag_print(diag, out, false);
    fclose(out);
    ck_assert_msg(strstr(all, text) != NULL, "expected '%s' in:\n%s", text, all);
    free(all);
}

START_TEST(test_reads)
{
    write_file("t.safetensors",
               "{\"__metadata__\":{\"format\":\"pt\"},"
               "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
               "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
               "\"none\":{\"dtype\":\"I64\",\"shape\":[3,0],\"data_offsets\":[16,16]},"
               "\"odd\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[16,19]}}   ",
               19);
    pm_safetensors set = new_set();
    ck_assert_int_eq(read_file(&set, "t.safetensors"), PM_OK);
    ck_assert_uint_eq(set.tensors.n, 4);
    const pm_safetensor *b = pm_safetensors_find(&set, "b");
    ck_assert_int_eq(b->elem, PM_BF16);
    ck_assert_int_eq(b->rank, 2);
    ck_assert(b->dims[0] == 2 && b->dims[1] == 3 && b->size == 12);
    uint8_t bytes[2];
    ck_assert_int_eq(pm_file_read(diag, b->file, b->offset, bytes, 2), PM_OK);
    ck_assert(bytes[0] == 4 && bytes[1] == 5);
    ck_assert_int_eq(pm_safetensors_find(&set, "a")->rank, 0);
    ck_assert_uint_eq(pm_safetensors_find(&set, "none")->size, 0);
    ck_assert_int_eq(pm_safetensors_find(&set, "odd")->elem, -1);
    ck_assert_ptr_null(pm_safetensors_find(&set, "c"));
    ck_assert_ptr_null(b->file->data); // nothing was mapped or read but the header
}
END_TEST

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

static const struct {
    const char *header;
    size_t n_data;
    const char *error;
} bad[] = {
    {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", 12,
     "tensor 'b': error: its bytes overlap those of 'a'"},
    {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[1]", 12, 16) "}", 16,
     "tensor 'b': error: 4 bytes before it belong to no tensor"},
    {"{" T("a", "F32", "[2]", 4, 12) "}", 12, "4 bytes before it belong to no tensor"},
    {"{" T("a", "F32", "[2]", 0, 8) "}", 9, "1 bytes at the end belong to no tensor"},
    {"{" T("a", "F32", "[2]", 0, 8) "}", 7, "lie outside of the 7 bytes of data"},
    {"{" T("a", "F32", "[3]", 0, 8) "}", 8, "span 8 bytes, but shape x type makes 12"},
    {"{" T("a", "F32", "[2]", 8, 0) "}", 8, "lie outside"},
    {"{" T("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, "product of 'shape' overflows"},
    {"{" T("a", "F32", "[0,4294967296,4294967296]", 0, 0) "}", 0, "product of 'shape' overflows"},
    {"{" T("a", "F32", "[2305843009213693952,2]", 0, 0) "}", 0, "isn't a number of bytes"},
    {"{" T("a", "F4", "[3]", 0, 1) "}", 1, "isn't a number of bytes"},
    {"{" T("a", "F32", "[-1]", 0, 4) "}", 4, "that aren't negative"},
    {"{" T("a", "F32", "[1.0]", 0, 4) "}", 4, "that aren't negative"},
    {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "more than 8 dims"},
    {"{" T("a", "F32", "2", 0, 8) "}", 8, "'shape' must be a list"},
    {"{" T("a", "F33", "[2]", 0, 8) "}", 8, "did you mean 'F32'?"},
    {"{" T("a", "F32", "[2]", 0, 8) "," T("a", "F32", "[2]", 8, 16) "}", 16, "twice"},
    {"{" T("", "F32", "[2]", 0, 8) "}", 8, "name must have"},
    {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'dtype' must be a string"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "'shape' must be a list"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "'data_offsets' must be two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "must be two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9007199254740993000000]}}", 8,
     "must be two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
     "a key other than"},
    {"{\"a\":[1]}", 0, "expected {\"dtype\""},
    {"{\"__metadata__\":{\"a\":1}}", 0, "must map strings to strings"},
    {"{\"__metadata__\":[]}", 0, "must map strings to strings"},
    {"[]", 0, "doesn't begin with '{'"},
    {" {}", 0, "doesn't begin with '{'"},
    {"", 0, "doesn't begin with '{'"},
    {"{} {}", 0, "error"},
    {"{\"a\":", 0, "error"},
};

START_TEST(test_refuses)
{
    write_file("t.safetensors", bad[_i].header, bad[_i].n_data);
    pm_safetensors set = new_set();
    expect_error(read_file(&set, "t.safetensors"), bad[_i].error);
}
END_TEST

START_TEST(test_header_sizes)
{
    static const struct {
        uint64_t header;
        const char *error;
    } cases[] = {
        {UINT64_MAX, "the limit is 100000000"},
        {100000001, "the limit is 100000000"},
        {100000000, "the file has 10"},
        {3, "the file has 10"},
    };
    for (size_t k = 0; k < PM_COUNT(cases); k++) {
        uint8_t bytes[10] = {0};
        for (int i = 0; i < 8; i++)
            bytes[i] = (uint8_t)(cases[k].header >> (8 * i));
        bytes[8] = '{';
        bytes[9] = '}';
        write_bytes("t.safetensors", bytes, sizeof bytes);
        pm_safetensors set = new_set();
        expect_error(read_file(&set, "t.safetensors"), cases[k].error);
    }
    write_bytes("t.safetensors", "1234567", 7);
    pm_safetensors set = new_set();
    expect_error(read_file(&set, "t.safetensors"), "shorter than its 8-byte prefix");
}
END_TEST

/// A header of very many values ends in a message, not in gigabytes.
START_TEST(test_header_bomb)
{
    size_t n = 20000000;
    char *header = malloc(n + 16);
    pm_safetensors set = new_set();
    memset(header, ',', n);
    memcpy(header, "{\"a\":[", 6);
    strcpy(header + n, "]}");
    write_file("t.safetensors", header, 0);
    expect_error(read_file(&set, "t.safetensors"), "more values than we read");
    memcpy(header, "{\"a\":\"", 6); // the same as one string is but one value
    strcpy(header + n, "\"}");
    write_file("t.safetensors", header, 0);
    set = new_set();
    expect_error(read_file(&set, "t.safetensors"), "expected {\"dtype\"");
    free(header);
}
END_TEST

static void write_shards(void)
{
    write_file("a.safetensors", "{" T("x", "F32", "[1]", 0, 4) "}", 4);
    write_file("b.safetensors", "{" T("y", "F32", "[2]", 0, 8) "}", 8);
}

static void write_index(const char *text)
{
    write_bytes("model.safetensors.index.json", text, strlen(text));
}

START_TEST(test_shards)
{
    pm_safetensors *set;
    write_shards();
    write_index("{\"metadata\":{\"total_size\":12},"
                "\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}");
    ck_assert_int_eq(pm_safetensors_open(arena, diag, folder, &set), PM_OK);
    ck_assert_uint_eq(set->tensors.n, 2);
    const pm_safetensor *x = pm_safetensors_find(set, "x"), *y = pm_safetensors_find(set, "y");
    ck_assert(x->file != y->file && !x->used && !y->used);
    ck_assert_ptr_nonnull(strstr(y->file->path, "b.safetensors"));
}
END_TEST

START_TEST(test_single_wins)
{
    pm_safetensors *set;
    write_file("model.safetensors", "{" T("only", "F32", "[1]", 0, 4) "}", 4);
    write_index("{}");
    ck_assert_int_eq(pm_safetensors_open(arena, diag, folder, &set), PM_OK);
    ck_assert_ptr_nonnull(pm_safetensors_find(set, "only"));
}
END_TEST

static const struct {
    const char *index, *error;
} bad_index[] = {
    {"{}", "expected an object with 'weight_map'"},
    {"[]", "expected an object with 'weight_map'"},
    {"{\"weight_map\":{\"x\":1}}", "1:20: error: expected the name of a file"},
    {"{\"weight_map\":{\"x\":\"../a.safetensors\"}}", "index.json:1:20: error"},
    {"{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "index.json:1:20: error"},
    {"{\"weight_map\":{\"x\":\"link\"}}", "index.json:1:20: error"},
    {"{\"weight_map\":{\"x\":\"\"}}", "the name of the file is empty"},
    {"{\"weight_map\":{\"x\":\"c.safetensors\"}}", "c.safetensors"},
    {"{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"a.safetensors\"}}",
     "error: 'y' isn't in that file"},
    {"{\"weight_map\":{\"z\":\"a.safetensors\"}}", "error: 'z' isn't in that file"},
    {"{\"weight_map\":{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}}", "isn't in that file"},
};

START_TEST(test_bad_index)
{
    pm_safetensors *set;
    write_shards();
    ck_assert_int_eq(symlink("a.safetensors", path_of("link")), 0);
    write_index(bad_index[_i].index);
    expect_error(pm_safetensors_open(arena, diag, folder, &set), bad_index[_i].error);
    ck_assert_ptr_null(set);
}
END_TEST

START_TEST(test_not_named)
{
    pm_safetensors *set;
    write_file("a.safetensors", "{" T("x", "F32", "[1]", 0, 4) "," T("w", "F32", "[1]", 4, 8) "}",
               8);
    write_index("{\"weight_map\":{\"x\":\"a.safetensors\"}}");
    expect_error(pm_safetensors_open(arena, diag, folder, &set),
                 "tensor 'w': error: the index doesn't name it");
}
END_TEST

START_TEST(test_twice_in_shards)
{
    pm_safetensors *set;
    write_shards();
    write_file("b.safetensors", "{" T("x", "F32", "[1]", 0, 4) "}", 4);
    write_index("{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}");
    expect_error(pm_safetensors_open(arena, diag, folder, &set), "the tensor exists twice");
}
END_TEST

START_TEST(test_empty_folder)
{
    pm_safetensors *set;
    expect_error(pm_safetensors_open(arena, diag, folder, &set), "has neither model.safetensors");
}
END_TEST

START_TEST(test_link_to_special_file)
{
    pm_safetensors *set;
    ck_assert_int_eq(mkfifo(path_of("model.safetensors"), 0600), 0);
    expect_error(pm_safetensors_open(arena, diag, folder, &set), "expected a regular file");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_reads);
    tcase_add_loop_test(tc, test_refuses, 0, (int)PM_COUNT(bad));
    tcase_add_test(tc, test_header_sizes);
    tcase_add_test(tc, test_header_bomb);
    tcase_add_test(tc, test_shards);
    tcase_add_test(tc, test_single_wins);
    tcase_add_loop_test(tc, test_bad_index, 0, (int)PM_COUNT(bad_index));
    tcase_add_test(tc, test_not_named);
    tcase_add_test(tc, test_twice_in_shards);
    tcase_add_test(tc, test_empty_folder);
    tcase_add_test(tc, test_link_to_special_file);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
