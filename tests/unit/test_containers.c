// base/containers and base/utf8.

#include <check.h>
#include <stdio.h>

#include "base/containers.h"
#include "base/utf8.h"

static pm_arena *arena;

static void setup(void)
{
    arena = pm_arena_create();
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

START_TEST(test_vec)
{
    PM_VEC(int) v = {0};
    for (int i = 0; i < 10000; i++)
        PM_PUSH(arena, &v, i * 3);
    ck_assert_uint_eq(v.n, 10000);
    for (int i = 0; i < 10000; i++)
        ck_assert_int_eq(v.data[i], i * 3);
    typedef struct {
        double a;
        char b;
    } pair;
    PM_VEC(pair) pairs = {0};
    pair one = {2.5, 'x'};
    for (int i = 0; i < 100; i++)
        PM_PUSH(arena, &pairs, one);
    ck_assert(pairs.data[99].a == 2.5 && pairs.data[99].b == 'x');
}
END_TEST

START_TEST(test_map)
{
    pm_map map;
    pm_map_init(&map, arena);
    static int values[5000];
    char key[32];
    ck_assert_ptr_null(pm_map_get_str(&map, "absent"));
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key%d", i); // the map must copy it
        pm_map_put_str(&map, key, &values[i]);
    }
    ck_assert_uint_eq(map.n, 5000);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key%d", i);
        ck_assert_ptr_eq(pm_map_get_str(&map, key), &values[i]);
        ck_assert_str_eq(map.entries[i].key, key); // insertion order
    }
    ck_assert_ptr_null(pm_map_get_str(&map, "key5000"));
    pm_map_put_str(&map, "key17", &values[0]);
    ck_assert_ptr_eq(pm_map_get_str(&map, "key17"), &values[0]);
    ck_assert_uint_eq(map.n, 5000);
    void **slot = pm_map_at(&map, "fresh", 5);
    ck_assert_ptr_null(*slot);
    *slot = &values[1];
    ck_assert_ptr_eq(pm_map_get_str(&map, "fresh"), &values[1]);
}
END_TEST

START_TEST(test_map_keys_are_bytes)
{
    pm_map map;
    pm_map_init(&map, arena);
    int a, b, c;
    pm_map_put(&map, "x\0y", 3, &a);
    pm_map_put(&map, "x\0z", 3, &b);
    pm_map_put(&map, "", 0, &c);
    ck_assert_ptr_eq(pm_map_get(&map, "x\0y", 3), &a);
    ck_assert_ptr_eq(pm_map_get(&map, "x\0z", 3), &b);
    ck_assert_ptr_eq(pm_map_get(&map, NULL, 0), &c);
    ck_assert_ptr_null(pm_map_get(&map, "x", 1));
}
END_TEST

START_TEST(test_nearest)
{
    static const char *const names[] = {"matmul", "softmax", "relu", "reduce_sum", "add"};
    size_t n = PM_COUNT(names);
    ck_assert_str_eq(pm_nearest("matmull", names, n), "matmul");
    ck_assert_str_eq(pm_nearest("matmlu", names, n), "matmul"); // neighbours swapped
    ck_assert_str_eq(pm_nearest("sofmax", names, n), "softmax");
    ck_assert_str_eq(pm_nearest("softmax", names, n), "softmax");
    ck_assert_str_eq(pm_nearest("ad", names, n), "add");
    ck_assert_ptr_null(pm_nearest("convolution", names, n));
    ck_assert_ptr_null(pm_nearest("x", (const char *const[]){"relu"}, 1));
    ck_assert_ptr_null(pm_nearest("relu", names, 0));
    char huge[10000];
    memset(huge, 'a', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    ck_assert_ptr_null(pm_nearest(huge, names, n));
    ck_assert_ptr_null(pm_nearest("relux", (const char *const[]){huge}, 1));
}
END_TEST

START_TEST(test_checked_arithmetic)
{
    int64_t out = 5;
    ck_assert(pm_mul_i64(3, -4, &out) && out == -12);
    ck_assert(!pm_mul_i64(INT64_MAX, 2, &out));
    ck_assert(!pm_mul_i64(INT64_MIN, -1, &out));
    ck_assert(!pm_add_i64(INT64_MAX, 1, &out));
    ck_assert(pm_add_i64(INT64_MAX, INT64_MIN, &out) && out == -1);
}
END_TEST

START_TEST(test_utf8_round_trip)
{
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        if (code >= 0xd800 && code <= 0xdfff)
            continue;
        char text[4];
        uint32_t again = 0;
        size_t n = pm_utf8_encode(code, text);
        if (pm_utf8_decode(text, n, &again) != n || again != code)
            ck_abort_msg("U+%04X does not survive", code);
        if (pm_utf8_decode(text, n - 1, &again) == n)
            ck_abort_msg("U+%04X decoded from too few bytes", code);
    }
}
END_TEST

START_TEST(test_utf8_invalid)
{
    static const struct {
        const char *text;
        size_t size, valid;
    } cases[] = {
        {"plain ascii text, long enough", 29, 29},
        {"12345678\xff", 9, 8},
        {"\x80", 1, 0},
        {"a\xc0\xaf", 3, 1},
        {"a\xc1\xbf", 3, 1},
        {"\xe0\x80\xaf", 3, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"ab\xe2\x82", 4, 2},
        {"\xe2\x82\xac\xe2", 4, 3},
        {"\xf0\x9f\x98\x80", 4, 4},
        {"\xc3(", 2, 0},
    };
    for (size_t i = 0; i < PM_COUNT(cases); i++)
        ck_assert_msg(pm_utf8_check(cases[i].text, cases[i].size) == cases[i].valid,
                      "case %zu: %zu", i, pm_utf8_check(cases[i].text, cases[i].size));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("containers");
    TCase *tests = tcase_create("containers");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_vec);
    tcase_add_test(tests, test_map);
    tcase_add_test(tests, test_map_keys_are_bytes);
    tcase_add_test(tests, test_nearest);
    tcase_add_test(tests, test_checked_arithmetic);
    tcase_add_test(tests, test_utf8_round_trip);
    tcase_add_test(tests, test_utf8_invalid);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
