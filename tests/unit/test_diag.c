// base/diag: what a person and a program see of an error.

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"
#include "base/utf8.h"

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

/// What pm_diag_print, or pm_diag_json, writes.
static const char *rendered(bool colour)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_diag_print(diag, out, colour);
    fclose(out);
    char *copy = pm_arena_strdup(arena, text);
    free(text);
    return copy;
}

static const char *rendered_json(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_diag_json(diag, out);
    fclose(out);
    char *copy = pm_arena_strdup(arena, text);
    free(text);
    return copy;
}

START_TEST(test_places)
{
    static const pm_loc node = {
        .file = "model.onnx", .what = "node", .name = "layers.3/router", .detail = "TopK"};
    ck_assert_str_eq(pm_loc_text(arena, &node), "model.onnx: node 'layers.3/router' (TopK)");
    ck_assert_str_eq(pm_loc_text(arena, &(pm_loc){.file = "a.json", .line = 3, .col = 14}),
                     "a.json:3:14");
    ck_assert_str_eq(pm_loc_text(arena, &(pm_loc){.file = "a.json", .line = 3}), "a.json:3");
    ck_assert_str_eq(pm_loc_text(arena, &(pm_loc){.line = 3}), "line 3");
    ck_assert_str_eq(
        pm_loc_text(arena, &(pm_loc){.file = "m.bin", .has_offset = true, .offset = 4660}),
        "m.bin: byte 4660");
    ck_assert_str_eq(pm_loc_text(arena, &(pm_loc){.from = &node, .by = "fuse"}),
                     "model.onnx: node 'layers.3/router' (TopK) [made by fuse]");
    pm_loc inner = {.from = &node, .by = "raise-moe"};
    ck_assert_str_eq(
        pm_loc_text(arena, &(pm_loc){.name = "n2", .what = "op", .from = &inner, .by = "fuse"}),
        "op 'n2', from model.onnx: node 'layers.3/router' (TopK) [made by fuse, raise-moe]");
    ck_assert_str_eq(pm_loc_text(arena, &(pm_loc){0}), "");
    ck_assert_str_eq(pm_loc_text(arena, NULL), "");
}
END_TEST

START_TEST(test_copies_what_may_die)
{
    char file[] = "dies.json", name[] = "router";
    {
        pm_loc from = {.file = file, .line = 2};
        pm_loc loc = {.what = "node", .name = name, .from = &from, .by = "fuse"};
        ck_assert_int_eq(pm_error(diag, &loc, PM_ERR_INVALID, "about %s", name), PM_ERR_INVALID);
        memset(&from, 0xff, sizeof from);
        memset(&loc, 0xff, sizeof loc);
    }
    memset(file, 'x', sizeof file - 1);
    memset(name, 'x', sizeof name - 1);
    ck_assert_str_eq(rendered(false),
                     "node 'router', from dies.json:2 [made by fuse]: error: about router\n");
}
END_TEST

START_TEST(test_caret)
{
    const char *text = "{\n  \"op\": \"matmull\",\r\n\t\"caf\xc3\xa9\": 1\n}";
    pm_diag_source(diag, "g.json", text, strlen(text));
    pm_error(diag, &(pm_loc){.file = "g.json", .line = 2, .col = 9}, PM_ERR_INVALID,
             "unknown op 'matmull'");
    pm_note(diag, NULL, "the nearest is 'matmul'");
    pm_warning(diag, &(pm_loc){.file = "g.json", .line = 3, .col = 11}, "strange", "odd");
    ck_assert_str_eq(rendered(false), "g.json:2:9: error: unknown op 'matmull'\n"
                                      "     2 |   \"op\": \"matmull\",\n"
                                      "       |         ^\n"
                                      "note: the nearest is 'matmul'\n"
                                      "g.json:3:11: warning: odd\n"
                                      "     3 | \\t\"caf\xc3\xa9\": 1\n"
                                      "       |           ^\n");
}
END_TEST

START_TEST(test_caret_at_the_edges)
{
    pm_diag_source(diag, "e", "ab\ncd", 5);
    // at the end of the last line, far beyond it, a line without column, and lines that don't exist
    static const pm_loc places[] = {{.file = "e", .line = 2, .col = 3},
                                    {.file = "e", .line = 1, .col = 4000000000},
                                    {.file = "e", .line = 1},
                                    {.file = "e", .line = 3, .col = 1},
                                    {.file = "e", .line = 4000000000, .col = 1},
                                    {.file = "other", .line = 1, .col = 1}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        pm_error(diag, &places[i], PM_ERR_INVALID, "x");
    ck_assert_str_eq(rendered(false), "e:2:3: error: x\n     2 | cd\n       |   ^\n"
                                      "e:1:4000000000: error: x\n     1 | ab\n       |   ^\n"
                                      "e:1: error: x\n     1 | ab\n"
                                      "e:3:1: error: x\n"
                                      "e:4000000000:1: error: x\n"
                                      "other:1:1: error: x\n");
}
END_TEST

START_TEST(test_long_line_is_cut)
{
    char line[5000];
    for (size_t i = 0; i + 1 < sizeof line; i += 2)
        memcpy(line + i, "\xc3\xa9", 2); // cuts must not fall into a character
    for (uint32_t col = 1; col < sizeof line; col += 333) {
        pm_diag *one = pm_diag_create(arena);
        pm_diag_source(one, "l", line, sizeof line);
        pm_error(one, &(pm_loc){.file = "l", .line = 1, .col = col | 1}, PM_ERR_INVALID, "x");
        char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        pm_diag_print(one, out, false);
        fclose(out);
        ck_assert_uint_lt(n, 500);
        ck_assert_ptr_null(strstr(text, "\\x"));
        ck_assert_uint_eq(pm_utf8_check(text, n), n);
        free(text);
    }
}
END_TEST

START_TEST(test_input_cannot_play_with_the_terminal)
{
    const char *evil = "\033[2Jx\r\ny\x07\x7f\xc2\x9b\xe2\x80\xae\xff\xe2\x82";
    pm_loc loc = {.file = evil, .line = 1, .col = 6, .what = evil, .name = evil, .detail = evil};
    pm_diag_source(diag, evil, evil, strlen(evil));
    pm_error(diag, &loc, PM_ERR_INVALID, "%s", evil);
    const char *text = rendered(false);
    ck_assert_uint_eq(pm_utf8_check(text, strlen(text)), strlen(text));
    for (size_t i = 0; text[i] != '\0';) {
        uint32_t code = 0;
        size_t length = pm_utf8_decode(text + i, 4, &code);
        ck_assert(code == '\n' || !pm_utf8_is_hazardous(code));
        i += length;
    }
    ck_assert_ptr_nonnull(
        strstr(text, "error: \\x1b[2Jx\\r\\ny\\x07\\x7f\\u009b\\u202e\\xff\\xe2\\x82\n"));
}
END_TEST

START_TEST(test_colour_only_when_asked)
{
    pm_error(diag, &(pm_loc){.file = "f"}, PM_ERR_INVALID, "x");
    ck_assert_ptr_null(strchr(rendered(false), '\033'));
    ck_assert_str_eq(rendered(true), "\033[1mf:\033[0m \033[1;31merror:\033[0m x\n");
}
END_TEST

START_TEST(test_at_most_100_errors)
{
    for (int i = 0; i < 150; i++) {
        pm_error(diag, NULL, PM_ERR_INVALID, "error %d", i);
        pm_note(diag, NULL, "note %d", i);
    }
    ck_assert_uint_eq(pm_diag_count(diag, PM_ERROR), 150);
    ck_assert_uint_eq(pm_diag_count(diag, PM_NOTE), 150);
    ck_assert_uint_eq(pm_diag_size(diag), 200); // the notes of dropped errors go with them
    ck_assert_str_eq(pm_diag_at(diag, 199)->text, "note 99");
    pm_warning(diag, NULL, "room", "still room for a warning");
    pm_note(diag, NULL, "and its note");
    ck_assert_uint_eq(pm_diag_size(diag), 202);
    ck_assert_ptr_nonnull(
        strstr(rendered(false), "100 more messages not shown (150 errors in all)"));
}
END_TEST

START_TEST(test_at_most_1000_entries)
{
    size_t used = 0;
    for (int i = 0; i < 100000; i++) {
        if (i == 2000)
            used = pm_arena_used(arena);
        pm_warning(diag, &(pm_loc){.file = "f"}, "many", "warning %d", i);
    }
    ck_assert_uint_eq(pm_arena_used(arena), used); // an endless stream of them costs nothing
    ck_assert_uint_eq(pm_diag_size(diag), 1000);
    ck_assert_uint_eq(pm_diag_count(diag, PM_WARNING), 100000);
    pm_error(diag, NULL, PM_ERR_INVALID, "late");
    ck_assert_uint_eq(pm_diag_count(diag, PM_ERROR), 1);
}
END_TEST

START_TEST(test_huge_texts_are_cut)
{
    size_t n = 1 << 20;
    char *huge = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        huge[i] = "\xe2\x82\xac"[i % 3];
    huge[n] = '\0';
    pm_error(diag, &(pm_loc){.file = huge, .what = "node", .name = huge}, PM_ERR_INVALID, "a%s",
             huge);
    free(huge);
    const char *text = pm_diag_at(diag, 0)->text;
    ck_assert_uint_le(strlen(text), 4096 + 3);
    ck_assert_uint_eq(pm_utf8_check(text, strlen(text)), strlen(text));
    ck_assert_str_eq(text + strlen(text) - 3, "…");
    ck_assert_uint_lt(strlen(rendered(false)), 16000);
}
END_TEST

START_TEST(test_json_output)
{
    pm_error(diag, &(pm_loc){.file = "a\"b.json", .line = 1, .col = 2}, PM_ERR_UNSUPPORTED,
             "tab\t, quote \", byte \xff");
    pm_note(diag, NULL, "no place");
    ck_assert_str_eq(rendered_json(),
                     "[{\"severity\":\"error\",\"code\":\"unsupported\","
                     "\"message\":\"tab\\t, quote \\\", byte \\ufffd\","
                     "\"location\":\"a\\\"b.json:1:2\"},"
                     "{\"severity\":\"note\",\"code\":null,\"message\":\"no place\","
                     "\"location\":null}]");
    for (int i = 0; i < 200; i++)
        pm_error(diag, NULL, PM_ERR_IO, "x");
    const pm_json *again;
    const char *text = rendered_json();
    ck_assert_int_eq(pm_json_parse(arena, NULL, "d", text, strlen(text), &again), PM_OK);
    ck_assert_uint_eq(again->n, 102); // 100 errors, a note, and what was left out
}
END_TEST

START_TEST(test_no_sink)
{
    ck_assert_int_eq(pm_error(NULL, NULL, PM_ERR_IO, "nobody reads it"), PM_ERR_IO);
    pm_warning(NULL, NULL, "none", "nor this");
    pm_note(NULL, NULL, "nor this");
}
END_TEST

START_TEST(test_status_names)
{
    for (int status = PM_OK; status <= PM_ERR_INTERNAL; status++)
        for (int other = PM_OK; other < status; other++)
            ck_assert_str_ne(pm_status_name((pm_status)status), pm_status_name((pm_status)other));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("diag");
    TCase *tests = tcase_create("diag");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_places);
    tcase_add_test(tests, test_copies_what_may_die);
    tcase_add_test(tests, test_caret);
    tcase_add_test(tests, test_caret_at_the_edges);
    tcase_add_test(tests, test_long_line_is_cut);
    tcase_add_test(tests, test_input_cannot_play_with_the_terminal);
    tcase_add_test(tests, test_colour_only_when_asked);
    tcase_add_test(tests, test_at_most_100_errors);
    tcase_add_test(tests, test_at_most_1000_entries);
    tcase_add_test(tests, test_huge_texts_are_cut);
    tcase_add_test(tests, test_json_output);
    tcase_add_test(tests, test_no_sink);
    tcase_add_test(tests, test_status_names);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
