// Artifacts: each byte changed, cut at each length, and manifests that lie (with hashes that fit).

#include "tests/hostile/hostile.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/rt_internal.h"
#include "tools/pimoe/artifact_file.h"

static uint8_t *payload; ///< of a small artifact, aligned as in memory
static uint64_t payload_size;
static const char *program; ///< the artifact

/// Compiles a model of the source tree, once for all tests of a process.
static const char *compiled(const char *model, const char *name)
{
    const char *bin = getenv("PM_BIN"), *output = path_of(name);
    ck_assert_msg(bin != NULL, "PM_BIN must name the folder of pimoec");
    char *command = pm_arena_printf(arena, "'%s/pimoec' -q -O1 --target=x86-64-v3 '%s/%s' -o '%s'",
                                    bin, PM_SOURCE_DIR, model, output);
    ck_assert_msg(system(command) == 0, "%s", command);
    return output;
}

static uint8_t *read_all(const char *path, size_t *out_size)
{
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, path, &file), PM_OK);
    uint8_t *bytes = pm_arena_alloc(arena, file->size + 1, 64);
    ck_assert_int_eq(pm_file_read(diag, file, 0, bytes, file->size), PM_OK);
    *out_size = file->size;
    return bytes;
}

static void compile_first(void)
{
    setup();
    size_t size;
    pm_artifact_trailer t;
    program = compiled("samples/unlike-experts/model.json", "model");
    uint8_t *bytes = read_all(program, &size);
    memcpy(&t, bytes + size - sizeof t, sizeof t);
    payload_size = t.payload_size;
    ck_assert_int_eq(posix_memalign((void **)&payload, PM_PAYLOAD_ALIGN, payload_size), 0);
    memcpy(payload, bytes + size - payload_size, payload_size);
}

static void remove_last(void)
{
    free(payload);
    teardown();
}

static pm_status checked(bool verify)
{
    pm_model m = {0};
    return pm_payload_check(payload, payload_size, &m, verify);
}

static pm_artifact_trailer *trailer(void)
{
    return (pm_artifact_trailer *)(payload + payload_size - sizeof(pm_artifact_trailer));
}

static pm_artifact_manifest *manifest(void)
{
    return (pm_artifact_manifest *)(payload + trailer()->manifest_offset);
}

static void *table_of(pm_artifact_table table)
{
    return (uint8_t *)manifest() + table.offset;
}

static void rehash(void)
{
    XXH128_hash_t hash = XXH3_128bits(manifest(), trailer()->manifest_size);
    trailer()->manifest_hash = (pm_artifact_hash){hash.low64, hash.high64};
}

/// Whether the byte is one that something says something about: not padding between sections.
static bool is_used(uint64_t at)
{
    const pm_artifact_section *s = table_of(manifest()->sections);
    if (at >= trailer()->manifest_offset)
        return at < trailer()->manifest_offset + trailer()->manifest_size ||
               at >= payload_size - sizeof(pm_artifact_trailer);
    for (uint32_t i = 0; i < manifest()->sections.n; i++)
        if (at >= s[i].offset && at < s[i].offset + s[i].size)
            return true;
    return false;
}

START_TEST(test_each_byte)
{
    ck_assert_int_eq(checked(true), PM_OK);
    bool *used = calloc(payload_size, 1);
    for (uint64_t at = 0; at < payload_size; at++)
        used[at] = is_used(at);
    size_t n_used = 0;
    for (uint64_t at = 0; at < payload_size; at++) {
        uint8_t bit = (uint8_t)(1 << at % 8);
        payload[at] ^= bit;
        pm_status status = checked(true);
        payload[at] ^= bit;
        ck_assert_msg((status == PM_OK) == !used[at], "byte %llu: %d", (unsigned long long)at,
                      (int)status);
        ck_assert(status == PM_OK || strncmp(pm_last_error(), "the artifact ", 13) == 0);
        n_used += used[at];
    }
    ck_assert_uint_gt(n_used, payload_size / 8);
    free(used);
}
END_TEST

START_TEST(test_each_length)
{
    for (uint64_t n = 0; n < payload_size; n++) {
        pm_model m = {0};
        uint8_t *tight; // its end is where ASan looks
        if (n > 4096 && n % 16 != 0 && n + 512 < payload_size)
            continue;
        ck_assert_int_eq(posix_memalign((void **)&tight, 64, n + 1), 0);
        memcpy(tight, payload, n);
        ck_assert_int_eq(pm_payload_check(tight, n, &m, false), PM_ERR_INVALID);
        free(tight);
    }
    // the file itself
    size_t size;
    uint8_t *bytes = read_all(program, &size);
    write_file("cut", bytes, size);
    for (size_t n = size - 1; n > size - payload_size - 100; n -= n % 64 ? 1 : 64) {
        pm_arena *own = pm_arena_create();
        pm_diag *said = pm_diag_create(own);
        pm_artifact *artifact;
        ck_assert_int_eq(truncate(path_of("cut"), (off_t)n), 0);
        ck_assert_int_eq(pm_artifact_open(own, said, path_of("cut"), false, &artifact),
                         PM_ERR_INVALID);
        ck_assert_uint_eq(pm_diag_count(said, PM_ERROR), 1);
        pm_arena_destroy(own);
    }
}
END_TEST

// ---- manifests that lie ----

static pm_artifact_section *section(uint32_t i)
{
    ck_assert_uint_lt(i, manifest()->sections.n);
    return (pm_artifact_section *)table_of(manifest()->sections) + i;
}
static pm_artifact_port *port(uint32_t i)
{
    return (pm_artifact_port *)table_of(manifest()->ports) + i;
}
static pm_artifact_entry *entry(void)
{
    return table_of(manifest()->entries);
}
static pm_artifact_symbol *symbol(void)
{
    return table_of(manifest()->symbols);
}

#define LIES(X)                                                                                    \
    X(trailer_version, trailer()->version = 1, "the artifact has version 1, this runtime reads 2") \
    X(trailer_magic, trailer()->magic ^= 1,                                                        \
      "the artifact is damaged: its end is not that of an artifact")                               \
    X(trailer_size, trailer()->payload_size++, "the artifact is damaged: its trailer")             \
    X(trailer_offset, trailer()->manifest_offset = payload_size,                                   \
      "the artifact is damaged: its trailer")                                                      \
    X(trailer_offset_huge, trailer()->manifest_offset = UINT64_MAX - 7,                            \
      "the artifact is damaged: its trailer")                                                      \
    X(trailer_manifest_small, trailer()->manifest_size = 8,                                        \
      "the artifact is damaged: its trailer")                                                      \
    X(trailer_manifest_huge, trailer()->manifest_size = UINT64_MAX,                                \
      "the artifact is damaged: its trailer")                                                      \
    X(trailer_reserved, trailer()->reserved = 1, "the artifact is damaged: its trailer")           \
    X(byte_order, manifest()->byte_order = 0x04030201,                                             \
      "the artifact was written for another byte order")                                           \
    X(version, manifest()->version = 0, "the artifact is damaged: its manifest")                   \
    X(magic, manifest()->magic = 0, "the artifact is damaged: its manifest")                       \
    X(name, manifest()->name.offset = UINT32_MAX, "the artifact is damaged: its name")             \
    X(name_open, manifest()->name.size++, "the artifact is damaged: its name")                     \
    X(target, manifest()->target.size = UINT32_MAX, "the artifact is damaged: its name")           \
    X(table_beyond, manifest()->ports.offset = 0xfffffff8,                                         \
      "the artifact is damaged: a table of its manifest")                                          \
    X(table_unaligned, manifest()->ports.offset += 4,                                              \
      "the artifact is damaged: a table of its manifest")                                          \
    X(table_long, manifest()->dispatches.n = 0x20000000,                                           \
      "the artifact is damaged: a table of its manifest")                                          \
    X(section_unaligned, section(1)->offset += 8,                                                  \
      "the artifact is damaged: section %s overlaps or leaves it")                                 \
    X(section_overlaps, section(1)->offset = section(0)->offset,                                   \
      "the artifact is damaged: section %s overlaps or leaves it")                                 \
    X(section_beyond, section(1)->offset = UINT64_MAX - 4095,                                      \
      "the artifact is damaged: section %s overlaps or leaves it")                                 \
    X(section_long, section(1)->size = UINT64_MAX,                                                 \
      "the artifact is damaged: section %s overlaps or leaves it")                                 \
    X(section_short, section(1)->size--,                                                           \
      "the artifact is damaged: section %s is not what was written")                               \
    X(section_hash, section(1)->hash = section(0)->hash,                                           \
      "the artifact is damaged: section %s is not what was written")                               \
    X(section_name, section(1)->name.offset = UINT32_MAX,                                          \
      "the artifact is damaged: a section's name")                                                 \
    X(port_elem, port(0)->elem = 99, "the artifact is damaged: a port")                            \
    X(port_rank, port(0)->rank = 9, "the artifact is damaged: a port")                             \
    X(port_rank_less, port(0)->rank--, "the artifact is damaged: an entry's dims")                 \
    X(port_symbol, port(0)->dims[0] = -1000, "the artifact is damaged: a port")                    \
    X(port_state, port(0)->state = 1000, "the artifact is damaged: a port")                        \
    X(port_state_negative, port(0)->state = -2, "the artifact is damaged: a port")                 \
    X(output_slot, port(entry()->first_output)->flags = 1 | 1000 << 8,                             \
      "the artifact is damaged: an output's slot")                                                 \
    X(entry_name, entry()->name.size = 0x7fffffff, "the artifact is damaged: an entry")            \
    X(entry_ports, entry()->n_inputs = UINT32_MAX, "the artifact is damaged: an entry")            \
    X(entry_overlap, entry()->first_output = 0, "the artifact is damaged: an entry")               \
    X(entry_dynamic, entry()->n_dynamic = UINT32_MAX, "the artifact is damaged: an entry")         \
    X(entry_dims, entry()->n_port_dims++, "the artifact is damaged: an entry's dims")              \
    X(symbol_name, symbol()->name.offset = UINT32_MAX, "the artifact is damaged: a symbol")

#define X(name, change, said)                                                                      \
    static void lie_##name(void)                                                                   \
    {                                                                                              \
        change;                                                                                    \
    }
LIES(X)
#undef X

static const struct {
    const char *name;
    void (*change)(void);
    const char *said;
} lies[] = {
#define X(name, change, said) {#name, lie_##name, said},
    LIES(X)
#undef X
};

START_TEST(test_lies)
{
    uint8_t *good = pm_arena_alloc(arena, payload_size, 64);
    memcpy(good, payload, payload_size);
    for (size_t i = 0; i < PM_COUNT(lies); i++) {
        char want[256];
        const char *which = (const char *)manifest() + section(1)->name.offset;
        snprintf(want, sizeof want, "%s", lies[i].said);
        char *at = strstr(want, "%s");
        if (at != NULL)
            snprintf(at, sizeof want - (size_t)(at - want), "%s%s", which,
                     lies[i].said + (at - want) + 2);
        lies[i].change();
        if (strncmp(lies[i].name, "trailer", 7) != 0)
            rehash();
        ck_assert_msg(checked(true) == PM_ERR_INVALID, "%s is accepted", lies[i].name);
        ck_assert_msg(strcmp(pm_last_error(), want) == 0, "%s: %s", lies[i].name, pm_last_error());
        memcpy(payload, good, payload_size);
    }
}
END_TEST

/// The bytes of two sections change places: their hashes tell, where they are asked for.
START_TEST(test_exchanged)
{
    size_t size = section(0)->size < section(1)->size ? section(0)->size : section(1)->size;
    uint8_t *first = payload + section(0)->offset, *second = payload + section(1)->offset;
    ck_assert_mem_ne(first, second, size);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = first[i];
        first[i] = second[i];
        second[i] = byte;
    }
    ck_assert_int_eq(checked(true), PM_ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(pm_last_error(), "is not what was written"));
}
END_TEST

/// The program itself: with a changed byte, and with the weights of another one.
START_TEST(test_program)
{
    size_t size, other_size;
    uint8_t *bytes = read_all(program, &size);
    uint8_t *other = read_all(compiled("tests/e2e/twice.pm", "twice"), &other_size);
    pm_artifact_trailer t;
    memcpy(&t, other + other_size - sizeof t, sizeof t);
    const struct {
        const char *name, *error;
        size_t size;
    } cases[] = {
        {"cut", "carries no weights at its end: was it stripped or cut?", size - 1},
        {"without", "carries no weights at its end: was it stripped or cut?", size - payload_size},
        {"changed", "the artifact is damaged: its manifest is not what was written", size},
        {"of_another", "weights and code are not of one compilation",
         size - payload_size + t.payload_size},
    };
    for (size_t i = 0; i < PM_COUNT(cases); i++) {
        uint8_t *copy = pm_arena_alloc(arena, size + other_size, 64);
        memcpy(copy, bytes, size);
        if (strcmp(cases[i].name, "changed") == 0)
            copy[size - sizeof t - 5] ^= 4;
        if (strcmp(cases[i].name, "of_another") == 0)
            memcpy(copy + size - payload_size, other + other_size - t.payload_size, t.payload_size);
        write_file(cases[i].name, copy, cases[i].size);
        char *command =
            pm_arena_printf(arena, "chmod +x '%s' && '%s' --describe >'%s' 2>&1",
                            path_of(cases[i].name), path_of(cases[i].name), path_of("said"));
        int ended = system(command);
        size_t n;
        const char *said = (const char *)read_all(path_of("said"), &n);
        ck_assert_msg(WIFEXITED(ended) && WEXITSTATUS(ended) == 1, "%s: %d: %s", cases[i].name,
                      ended, said);
        ck_assert_msg(strstr(said, cases[i].error) != NULL, "%s: %s", cases[i].name, said);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile artifacts");
    TCase *tests = tcase_create("artifact");
    tcase_add_checked_fixture(tests, compile_first, remove_last);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_each_byte);
    tcase_add_test(tests, test_each_length);
    tcase_add_test(tests, test_lies);
    tcase_add_test(tests, test_exchanged);
    tcase_add_test(tests, test_program);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
