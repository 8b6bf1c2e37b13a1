// base/arena, base/str and base/hash.

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/str.h"

START_TEST(test_alloc_is_zeroed_and_aligned)
{
    pm_arena *arena = pm_arena_create();
    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t size = 0; size < 3000; size = size * 3 + 1) {
            unsigned char *p = pm_arena_alloc(arena, size, align);
            ck_assert_uint_eq((uintptr_t)p % align, 0);
            for (size_t i = 0; i < size; i++)
                ck_assert_uint_eq(p[i], 0);
            memset(p, 0xee, size); // a later object must not overlap it
        }
    }
    pm_arena_destroy(arena);
}
END_TEST

START_TEST(test_objects_are_disjoint)
{
    pm_arena *arena = pm_arena_create();
    enum { N = 3000 };
    unsigned char *objects[N];
    for (size_t i = 0; i < N; i++) {
        objects[i] = pm_arena_alloc(arena, i % 97 + (i % 500 == 0 ? 300000 : 0) + 1, 1);
        memset(objects[i], (int)(i % 251), i % 97 + 1);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < i % 97 + 1; j++)
            ck_assert_uint_eq(objects[i][j], i % 251);
    pm_arena_destroy(arena);
}
END_TEST

START_TEST(test_large_object_keeps_the_current_block)
{
    pm_arena *arena = pm_arena_create();
    char *before = pm_arena_alloc(arena, 8, 8);
    pm_arena_alloc(arena, 10 << 20, 64);
    char *after = pm_arena_alloc(arena, 8, 8);
    ck_assert_msg(after - before < 256, "small objects around a large one lie apart");
    ck_assert_uint_ge(pm_arena_used(arena), (10 << 20) + 16);
    pm_arena_destroy(arena);
}
END_TEST

static char called[8];

static void note_call(void *arg)
{
    strncat(called, arg, 1);
}

START_TEST(test_deferred_calls_run_last_first)
{
    pm_arena *arena = pm_arena_create();
    pm_arena_defer(arena, note_call, "a");
    pm_arena_defer(arena, note_call, "b");
    pm_arena_defer(arena, note_call, "c");
    ck_assert_str_eq(called, "");
    pm_arena_destroy(arena);
    ck_assert_str_eq(called, "cba");
    pm_arena_destroy(NULL);
}
END_TEST

START_TEST(test_children)
{
    called[0] = '\0';
    pm_arena *arena = pm_arena_create();
    pm_arena *kept = pm_arena_child(arena), *dropped = pm_arena_child(arena);
    pm_arena_defer(kept, note_call, "k");
    pm_arena_defer(pm_arena_child(kept), note_call, "g");
    pm_arena_defer(dropped, note_call, "d");
    pm_arena_alloc(dropped, 1 << 20, 1);
    pm_arena_destroy(dropped);
    ck_assert_str_eq(called, "d");
    ck_assert_uint_lt(pm_arena_used(arena), 1000);
    pm_arena_destroy(arena);
    ck_assert_str_eq(called, "dgk");
}
END_TEST

static pm_arena *volatile arena_of_jump;

START_TEST(test_oom_jumps)
{
    jmp_buf outer, inner;
    arena_of_jump = pm_arena_create();
    ck_assert_ptr_null(pm_arena_on_oom(arena_of_jump, &outer));
    ck_assert_ptr_eq(pm_arena_on_oom(arena_of_jump, &inner), &outer);
    volatile int n_jumps = 0;
    if (setjmp(inner) != 0)
        n_jumps++;
    // sizes that no system has, and a product that overflows
    switch (n_jumps) {
    case 0: pm_arena_alloc(arena_of_jump, SIZE_MAX, 1); break;
    case 1: pm_arena_alloc(arena_of_jump, SIZE_MAX / 2, 64); break;
    case 2: pm_arena_array(arena_of_jump, SIZE_MAX / 8, 16, 8); break;
    case 3: pm_arena_alloc(pm_arena_child(arena_of_jump), SIZE_MAX / 5, 8); break;
    default: break;
    }
    ck_assert_int_eq(n_jumps, 4);
    ck_assert_str_eq(pm_arena_strdup(arena_of_jump, "still usable"), "still usable");
    pm_arena_destroy(arena_of_jump);
}
END_TEST

START_TEST(test_oom_without_target_exits_3)
{
    pid_t child = fork();
    if (child == 0) {
        fclose(stderr);
        pm_arena_alloc(pm_arena_create(), SIZE_MAX / 2, 1);
        _exit(0);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 3);
}
END_TEST

START_TEST(test_text)
{
    pm_arena *arena = pm_arena_create();
    ck_assert_str_eq(pm_arena_strndup(arena, "abcdef", 3), "abc");
    ck_assert_str_eq(pm_arena_strndup(arena, NULL, 0), "");
    ck_assert_str_eq(pm_arena_printf(arena, "%s-%d-%s", "x", 42, "y"), "x-42-y");
    char *wide = pm_arena_printf(arena, "%100000d", 7);
    ck_assert_uint_eq(strlen(wide), 100000);
    pm_arena_destroy(arena);
}
END_TEST

START_TEST(test_str)
{
    pm_arena *arena = pm_arena_create();
    pm_str str = pm_str_new(arena);
    ck_assert_str_eq(str.data, "");
    for (int i = 0; i < 1000; i++) {
        pm_str_add_char(&str, 'a');
        pm_str_add(&str, "bc");
        pm_str_printf(&str, "%03d", i);
        ck_assert_uint_eq(str.n, strlen(str.data));
    }
    ck_assert_uint_eq(str.n, 6000);
    ck_assert_int_eq(strncmp(str.data + 5994, "abc999", 7), 0);
    // a formatted text that fills the room exactly, and one that exceeds it by one
    for (int more = -1; more <= 1; more++) {
        pm_str exact = pm_str_new(arena);
        int room = (int)exact.cap;
        pm_str_printf(&exact, "%*d", room + more, 1);
        ck_assert_uint_eq(exact.n, (size_t)(room + more));
        ck_assert_uint_eq(strlen(exact.data), exact.n);
        ck_assert_int_eq(exact.data[exact.n - 1], '1');
    }
    pm_arena_destroy(arena);
}
END_TEST

START_TEST(test_hash)
{
    pm_arena *arena = pm_arena_create();
    char text[PM_HASH_TEXT_SIZE];
    pm_hash_text(pm_hash_bytes("", 0), text);
    // the published value of XXH3-128 for the empty input: artifacts rely on it never changing
    ck_assert_str_eq(text, "99aa06d3014798d86001c324468d497f");
    char data[5000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 31);
    pm_hasher *hasher = pm_hasher_new(arena);
    size_t at = 0;
    for (size_t piece = 0; at < sizeof data; piece = piece * 2 + 1) {
        size_t n = piece < sizeof data - at ? piece : sizeof data - at;
        pm_hasher_add(hasher, data + at, n);
        at += n;
        ck_assert(pm_hash_equal(pm_hasher_value(hasher), pm_hash_bytes(data, at)));
    }
    data[4000] ^= 1;
    ck_assert(!pm_hash_equal(pm_hasher_value(hasher), pm_hash_bytes(data, sizeof data)));
    pm_arena_destroy(arena);
}
END_TEST

START_TEST(test_log_channels)
{
    unsetenv("PIMOE_LOG");
    ck_assert(!pm_log_wants("passes", PM_LOG_ERROR));
    setenv("PIMOE_LOG", "passes.moe=debug,codegen=info,io", 1);
    ck_assert(pm_log_wants("passes.moe", PM_LOG_DEBUG));
    ck_assert(pm_log_wants("passes.moe.route", PM_LOG_INFO));
    ck_assert(!pm_log_wants("passes.moe", PM_LOG_TRACE));
    ck_assert(!pm_log_wants("passes.moes", PM_LOG_DEBUG));
    ck_assert(!pm_log_wants("passes", PM_LOG_DEBUG));
    ck_assert(pm_log_wants("codegen", PM_LOG_INFO));
    ck_assert(!pm_log_wants("codegen", PM_LOG_DEBUG));
    ck_assert(pm_log_wants("io", PM_LOG_DEBUG));
    setenv("PIMOE_LOG", "all=nonsense,,=", 1);
    ck_assert(!pm_log_wants("passes", PM_LOG_ERROR));
    setenv("PIMOE_LOG", "all=trace", 1);
    ck_assert(pm_log_wants("anything", PM_LOG_TRACE));
    unsetenv("PIMOE_LOG");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arena");
    TCase *tests = tcase_create("arena");
    tcase_add_test(tests, test_alloc_is_zeroed_and_aligned);
    tcase_add_test(tests, test_objects_are_disjoint);
    tcase_add_test(tests, test_large_object_keeps_the_current_block);
    tcase_add_test(tests, test_deferred_calls_run_last_first);
    tcase_add_test(tests, test_children);
    tcase_add_test(tests, test_oom_jumps);
    tcase_add_test(tests, test_oom_without_target_exits_3);
    tcase_add_test(tests, test_text);
    tcase_add_test(tests, test_str);
    tcase_add_test(tests, test_hash);
    tcase_add_test(tests, test_log_channels);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
