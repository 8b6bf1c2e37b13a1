// .npy and .npz: emitted programs and tools each have a reader (the first knows no compression);
// every case says what each makes of it.

#include "tests/hostile/hostile.h"

#include <zlib.h>

#include "runtime/npy.h"
#include "tools/pimoe/npz_archive.h"

typedef struct bytes {
    uint8_t data[1 << 16];
    size_t n;
} bytes;

static void add(bytes *b, const void *part, size_t size)
{
    ck_assert_uint_le(b->n + size, sizeof b->data);
    memcpy(b->data + b->n, part, size);
    b->n += size;
}

static void add_number(bytes *b, uint64_t value, size_t size)
{
    add(b, &value, size); // little-endian
}

/// An array with that header, and n bytes of data.
static bytes array(const char *header, size_t n_data)
{
    bytes b = {.n = 0};
    static const uint8_t zeros[1 << 12];
    size_t n = strlen(header);
    add(&b, "\x93NUMPY\1\0", 8);
    add_number(&b, n, 2);
    add(&b, header, n);
    add(&b, zeros, n_data);
    return b;
}

#define HEAD(descr, order, shape)                                                                  \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

static const struct {
    const char *header;
    size_t n_data;
    const char *error;
} headers[] = {
    {HEAD("'<f4'", "False", "(2, 3)"), 24, NULL},
    {HEAD("'<f4'", "False", "()"), 4, NULL},
    {HEAD("'<f4'", "True", "(3,)"), 12, NULL},
    {HEAD("'<f4'", "False", "(0, 1000000000000)"), 0, NULL},
    {HEAD("'<f4'", "True", "(2, 3)"), 24,
     "it is in Fortran order; numpy.ascontiguousarray turns it"},
    {HEAD("'|O'", "False", "(2,)"), 16, "it holds Python objects"},
    {HEAD("[('a', '<f4')]", "False", "(2,)"), 8, "its element type is not supported"},
    {HEAD("'>f4'", "False", "(2,)"), 8, "its element type is not supported"},
    {HEAD("'<c8'", "False", "(2,)"), 16, "its element type is not supported"},
    {HEAD("'<U3'", "False", "(2,)"), 24, "its element type is not supported"},
    {HEAD("'<f4'", "False", "(2, 3)"), 23, "its size is not that of its shape"},
    {HEAD("'<f4'", "False", "(2, 3)"), 25, "its size is not that of its shape"},
    {HEAD("'<f4'", "False", "(2, 3)"), 0, "its size is not that of its shape"},
    {HEAD("'<f4'", "False", "(4294967296, 4294967296)"), 0, "its shape overflows"},
    {HEAD("'<f4'", "False", "(4611686018427387905,)"), 4, "its shape overflows"},
    {HEAD("'<f4'", "False", "(99999999999999999999,)"), 4, "its shape overflows"},
    {HEAD("'<f4'", "False", "(-1,)"), 4, "its header's shape is no list of numbers"},
    {HEAD("'<f4'", "False", "(2.0,)"), 8, "its header's shape is no list of numbers"},
    {HEAD("'<f4'", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 4, "it has more than 8 dimensions"},
    {HEAD("'<f4'", "False", "2"), 8, "its header has no shape"},
    {"{'descr': '<f4', 'shape': (2,)}\n", 8, "its header lacks descr, fortran_order or shape"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2", 8,
     "its header's shape is no list of numbers"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (", 8,
     "its header's shape is no list of numbers"},
    {"{'descr': ", 8, "its header lacks descr, fortran_order or shape"},
    {"", 8, "its header lacks descr, fortran_order or shape"},
};

START_TEST(test_header)
{
    bytes b = array(headers[_i].header, headers[_i].n_data);
    const char *want = headers[_i].error;
    pm_npy found;
    pm_status status = pm_npy_read(b.data, b.n, "x.npy", &found);
    ck_assert_int_eq(status, want ? PM_ERR_INVALID : PM_OK);
    if (want)
        ck_assert_str_eq(pm_last_error(), pm_arena_printf(arena, "x.npy: %s", want));
    // the same as a file, for the tools
    pm_npz archive;
    write_file("x.npy", b.data, b.n);
    status = pm_npz_open(arena, diag, path_of("x.npy"), &archive);
    if (want)
        expect_refused(status, PM_ERR_INVALID, pm_arena_printf(arena, "error: x.npy: %s", want));
    else
        ck_assert_int_eq(status, PM_OK);
}
END_TEST

START_TEST(test_every_prefix)
{
    bytes b = array(HEAD("'<f4'", "False", "(2, 3)"), 24);
    for (size_t n = 0; n < b.n; n++) {
        uint8_t *tight = malloc(n + 1); // its end is where ASan looks
        pm_npy found;
        memcpy(tight, b.data, n);
        ck_assert_int_eq(pm_npy_read(tight, n, "x.npy", &found), PM_ERR_INVALID);
        free(tight);
    }
}
END_TEST

// ---- archives ----

/// An entry as it is written; fields that are 0 are filled in.
typedef struct entry {
    const char *name;
    size_t name_size;
    uint32_t method, packed, plain, crc, local, flags;
    const void *data;
    size_t n_data;
    const void *extra;
    size_t n_extra;
} entry;

static bytes archive_of(const entry *entries, size_t n)
{
    bytes b = {.n = 0};
    uint32_t at[8];
    for (size_t i = 0; i < n; i++) {
        const entry *e = &entries[i];
        size_t name_size = e->name_size ? e->name_size : strlen(e->name);
        at[i] = (uint32_t)b.n;
        add(&b, "PK\3\4", 4);
        add_number(&b, 20, 2);
        add_number(&b, e->flags, 2);
        add_number(&b, e->method, 2);
        add_number(&b, 0, 4);
        add_number(&b, e->crc ? e->crc : crc32(0, e->data, (uInt)e->n_data), 4);
        add_number(&b, e->packed ? e->packed : e->n_data, 4);
        add_number(&b, e->plain ? e->plain : e->n_data, 4);
        add_number(&b, name_size, 2);
        add_number(&b, 0, 2);
        add(&b, e->name, name_size);
        add(&b, e->data, e->n_data);
    }
    size_t directory = b.n;
    for (size_t i = 0; i < n; i++) {
        const entry *e = &entries[i];
        size_t name_size = e->name_size ? e->name_size : strlen(e->name);
        add(&b, "PK\1\2", 4);
        add_number(&b, 20, 2);
        add_number(&b, 20, 2);
        add_number(&b, e->flags, 2);
        add_number(&b, e->method, 2);
        add_number(&b, 0, 4);
        add_number(&b, e->crc ? e->crc : crc32(0, e->data, (uInt)e->n_data), 4);
        add_number(&b, e->packed ? e->packed : e->n_data, 4);
        add_number(&b, e->plain ? e->plain : e->n_data, 4);
        add_number(&b, name_size, 2);
        add_number(&b, e->n_extra, 2);
        add_number(&b, 0, 2);
        add_number(&b, 0, 8);
        add_number(&b, e->local ? e->local : at[i], 4);
        add(&b, e->name, name_size);
        add(&b, e->extra ? e->extra : "", e->n_extra);
    }
    size_t size = b.n - directory;
    add(&b, "PK\5\6\0\0\0\0", 8);
    add_number(&b, n, 2);
    add_number(&b, n, 2);
    add_number(&b, size, 4);
    add_number(&b, directory, 4);
    add_number(&b, 0, 2);
    return b;
}

static bytes good; ///< an array

/// An entry that is right but for what the case says.
static entry plain_entry(const char *name)
{
    return (entry){.name = name, .data = good.data, .n_data = good.n};
}

static const uint8_t wide_extra[] = {1,    0,    24,   0,    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0,    0,    0,    0,    0,    0,    0,    0};
static const uint8_t cut_extra[] = {1, 0, 40, 0, 1, 2};

/// What is wrong with the only entry; what both readers say.
static const struct {
    const char *what;
    entry bad;
    const char *runtime, *tools;
} archives[] = {
    {"nothing", {.name = "x.npy"}, NULL, NULL},
    {"parent",
     {.name = "../x.npy"},
     "in.npz: a name in it is not that of an array",
     "in.npz: error: '../x.npy' in it is no array"},
    {"absolute",
     {.name = "/etc/x.npy"},
     "in.npz: a name in it is not that of an array",
     "in.npz: error: '/etc/x.npy' in it is no array"},
    {"backslash",
     {.name = "..\\x.npy"},
     "in.npz: a name in it is not that of an array",
     "in.npz: error: '..\\x.npy' in it is no array"},
    {"NUL",
     {.name = "x\0y.npy", .name_size = 7},
     "in.npz: a name in it is not that of an array",
     "in.npz: error: the archive is damaged: a name in it holds NUL"},
    {"no array",
     {.name = "x.txt"},
     "in.npz: a name in it is not that of an array",
     "in.npz: error: 'x.txt' in it is no array"},
    {"no name",
     {.name = ".npy"},
     "in.npz: a name in it is not that of an array",
     "in.npz: error: '.npy' in it is no array"},
    {"bzip2",
     {.name = "x.npy", .method = 12},
     "in.npz is compressed: write it with numpy.savez",
     "in.npz: error: x.npy is packed by method 12; stored and deflated ones are read"},
    {"encrypted",
     {.name = "x.npy", .flags = 1},
     "in.npz is encrypted",
     "in.npz: error: x.npy is encrypted"},
    {"deflated",
     {.name = "x.npy", .method = 8},
     "in.npz is compressed: write it with numpy.savez",
     "in.npz: error: the archive is damaged: an entry does not inflate to its size"},
    {"bomb",
     {.name = "x.npy", .method = 8, .plain = 0xfffffff0},
     "in.npz is compressed: write it with numpy.savez",
     "in.npz: error: the archive is damaged: an entry claims a size that it can't have"},
    {"long",
     {.name = "x.npy", .plain = 100000, .packed = 100000},
     "in.npz: an entry of it is cut",
     "in.npz: error: the archive is damaged: an entry is cut"},
    {"sizes differ",
     {.name = "x.npy", .plain = 100},
     "in.npz: an entry of it is damaged",
     "in.npz: error: the archive is damaged: an entry claims a size that it can't have"},
    {"outside",
     {.name = "x.npy", .local = 0x7fffffff},
     "in.npz: an entry of it is damaged",
     "in.npz: error: the archive is damaged: an entry lies outside of the file"},
    {"not an entry",
     {.name = "x.npy", .local = 3},
     "in.npz: an entry of it is damaged",
     "in.npz: error: the archive is damaged: an entry lies outside of the file"},
    {"checksum",
     {.name = "x.npy", .crc = 77},
     NULL,
     "in.npz: error: the archive is damaged: an entry's checksum is wrong"},
    {"zip64 sizes",
     {.name = "x.npy",
      .plain = 0xffffffff,
      .packed = 0xffffffff,
      .extra = wide_extra,
      .n_extra = sizeof wide_extra},
     "in.npz: an entry of it is cut",
     "in.npz: error: the archive is damaged: an entry is cut"},
    {"zip64 cut",
     {.name = "x.npy", .plain = 0xffffffff, .extra = cut_extra, .n_extra = sizeof cut_extra},
     "in.npz: its directory is damaged",
     "in.npz: error: the archive is damaged: a zip64 field is cut"},
    {"zip64 missing",
     {.name = "x.npy", .plain = 0xffffffff, .packed = 0xffffffff},
     "in.npz: an entry of it is cut",
     "in.npz: error: the archive is damaged: an entry is cut"},
};

START_TEST(test_archive)
{
    good = array(HEAD("'<f4'", "False", "(2, 3)"), 24);
    entry e = archives[_i].bad;
    e.data = good.data;
    e.n_data = good.n;
    bytes b = archive_of(&e, 1);
    pm_npy found;
    int is_there;
    pm_status status = pm_npz_read(b.data, b.n, "in.npz", 0, &found, &is_there);
    const char *said = status == PM_OK ? NULL : pm_last_error();
    ck_assert_msg((said == NULL) == (archives[_i].runtime == NULL) &&
                      (said == NULL || strcmp(said, archives[_i].runtime) == 0),
                  "%s: runtime says: %s", archives[_i].what, said ? said : "nothing");
    pm_npz archive;
    write_file("in.npz", b.data, b.n);
    status = pm_npz_open(arena, diag, path_of("in.npz"), &archive);
    said = status == PM_OK ? NULL : first_line();
    ck_assert_msg((said == NULL) == (archives[_i].tools == NULL) &&
                      (said == NULL || strcmp(said, archives[_i].tools) == 0),
                  "%s: tools say: %s", archives[_i].what, said ? said : "nothing");
}
END_TEST

/// Walking a directory of very many entries for each of them would take quadratic time.
START_TEST(test_many)
{
    good = array(HEAD("'<f4'", "False", "(2, 3)"), 24);
    entry e = plain_entry("x.npy");
    bytes b = archive_of(&e, 1);
    pm_npy found;
    int is_there;
    memset(b.data + b.n - 14, 0xfe, 4); // both counts of the end record
    ck_assert_int_eq(pm_npz_read(b.data, b.n, "in.npz", 0, &found, &is_there), PM_ERR_UNSUPPORTED);
    ck_assert_str_eq(pm_last_error(), "in.npz: it has more than 4096 arrays");
    pm_npz archive;
    write_file("in.npz", b.data, b.n);
    expect_refused(pm_npz_open(arena, diag, path_of("in.npz"), &archive), PM_ERR_INVALID,
                   "in.npz: error: the archive is damaged: its directory is cut");
}
END_TEST

/// Every prefix of an archive is refused by both; two arrays of one name by the tools.
START_TEST(test_archive_prefixes)
{
    good = array(HEAD("'<f4'", "False", "(2, 3)"), 24);
    entry entries[] = {plain_entry("x.npy"), plain_entry("y.npy")};
    bytes b = archive_of(entries, 2);
    for (size_t n = 0; n < b.n; n++) {
        uint8_t *tight = malloc(n + 1);
        pm_npy found;
        int is_there;
        memcpy(tight, b.data, n);
        ck_assert_int_ne(pm_npz_read(tight, n, "in.npz", 0, &found, &is_there), PM_OK);
        free(tight);
        pm_arena *own = pm_arena_create();
        pm_npz archive;
        write_file("in.npz", b.data, n);
        ck_assert_int_ne(pm_npz_open(own, pm_diag_create(own), path_of("in.npz"), &archive), PM_OK);
        pm_arena_destroy(own);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile arrays");
    TCase *tests = tcase_create("arrays");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_header, 0, (int)PM_COUNT(headers));
    tcase_add_test(tests, test_every_prefix);
    tcase_add_loop_test(tests, test_archive, 0, (int)PM_COUNT(archives));
    tcase_add_test(tests, test_many);
    tcase_add_test(tests, test_archive_prefixes);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
