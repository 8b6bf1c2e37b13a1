// base/json: what is accepted, what is refused, and where the error points.

#include <check.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/json.h"

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

static const pm_json *parsed(const char *text)
{
    const pm_json *root;
    pm_status status = pm_json_parse(arena, diag, "t.json", text, strlen(text), &root);
    ck_assert_msg(status == PM_OK, "refused: %s", text);
    return root;
}

START_TEST(test_document)
{
    const pm_json *root = parsed("{ \"name\": \"tiny\",\n  \"dims\": [1, 2.5, -3],\n"
                                 "  \"nested\": {\"empty\": {}, \"none\": []},\n"
                                 "  \"yes\": true, \"no\": false, \"nil\": null }\n");
    ck_assert_int_eq(root->kind, PM_JSON_OBJECT);
    ck_assert_uint_eq(root->n, 6);
    ck_assert_str_eq(root->keys[0], "name");
    ck_assert_str_eq(pm_json_get(root, "name")->string, "tiny");
    const pm_json *dims = pm_json_get(root, "dims");
    ck_assert_int_eq(dims->kind, PM_JSON_ARRAY);
    ck_assert_uint_eq(dims->n, 3);
    ck_assert(dims->items[0].is_int && dims->items[0].integer == 1);
    ck_assert(!dims->items[1].is_int && dims->items[1].number == 2.5);
    ck_assert(dims->items[2].is_int && dims->items[2].integer == -3);
    ck_assert(dims->line == 2 && dims->col == 11);
    ck_assert(dims->items[1].line == 2 && dims->items[1].col == 15);
    const pm_json *nested = pm_json_get(root, "nested");
    ck_assert(nested->line == 3 && nested->col == 13);
    ck_assert_int_eq(pm_json_get(nested, "empty")->kind, PM_JSON_OBJECT);
    ck_assert_uint_eq(pm_json_get(nested, "none")->n, 0);
    ck_assert(pm_json_get(root, "yes")->boolean && !pm_json_get(root, "no")->boolean);
    ck_assert_int_eq(pm_json_get(root, "nil")->kind, PM_JSON_NULL);
    ck_assert_ptr_null(pm_json_get(root, "absent"));
    ck_assert_ptr_null(pm_json_get(NULL, "absent"));
    ck_assert_ptr_null(pm_json_get(dims, "absent"));
}
END_TEST

START_TEST(test_scalar_roots)
{
    ck_assert_int_eq(parsed(" 1 ")->kind, PM_JSON_NUMBER);
    ck_assert_int_eq(parsed("\"\"")->kind, PM_JSON_STRING);
    ck_assert_int_eq(parsed("null")->kind, PM_JSON_NULL);
    ck_assert_int_eq(parsed("[]")->kind, PM_JSON_ARRAY);
}
END_TEST

START_TEST(test_numbers)
{
    static const struct {
        const char *text;
        bool is_int;
        int64_t integer;
        double number;
    } cases[] = {
        {"0", true, 0, 0},
        {"-0", true, 0, -0.0},
        {"9007199254740993", true, 9007199254740993, 9007199254740992.0},
        {"9223372036854775807", true, INT64_MAX, 0x1p63},
        {"-9223372036854775808", true, INT64_MIN, -0x1p63},
        {"9223372036854775808", false, 0, 0x1p63},
        {"-9223372036854775809", false, 0, -0x1p63},
        {"100000000000000000000000", false, 0, 1e23},
        {"1.0", false, 0, 1},
        {"1e2", false, 0, 100},
        {"1E+2", false, 0, 100},
        {"5e-324", false, 0, 5e-324},
        {"1e-999", false, 0, 0},
        {"1.7976931348623157e308", false, 0, 1.7976931348623157e308},
        {"0.1", false, 0, 0.1},
    };
    for (size_t i = 0; i < PM_COUNT(cases); i++) {
        const pm_json *value = parsed(cases[i].text);
        ck_assert_int_eq(value->kind, PM_JSON_NUMBER);
        ck_assert_msg(value->is_int == cases[i].is_int, "%s", cases[i].text);
        ck_assert_msg(value->integer == cases[i].integer, "%s", cases[i].text);
        ck_assert_msg(value->number == cases[i].number, "%s", cases[i].text);
        ck_assert_int_eq(signbit(value->number) != 0, signbit(cases[i].number) != 0);
    }
}
END_TEST

START_TEST(test_numbers_ignore_the_locale)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"};
    for (size_t i = 0; i < PM_COUNT(names); i++)
        if (setlocale(LC_ALL, names[i]) != NULL)
            break;
    ck_assert(parsed("0.5")->number == 0.5);
    setlocale(LC_ALL, "C");
}
END_TEST

START_TEST(test_strings)
{
    const pm_json *value = parsed("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\ud83d\\ude00é\"");
    ck_assert_str_eq(value->string, "a\"\\/\b\f\n\r\té€😀é");
    ck_assert_uint_eq(value->string_size, strlen(value->string));
    // a closing quote behind an escaped backslash
    ck_assert_str_eq(parsed("\"x\\\\\"")->string, "x\\");
    ck_assert_uint_eq(parsed("[\"\\\\\", \"\\\"\"]")->n, 2);
}
END_TEST

/// A document that must be refused, at a place, with a text.
typedef struct refused {
    const char *text;
    size_t size; ///< 0: strlen
    uint32_t line, col;
    const char *message;
} refused;

static void check_refused(const refused *expected)
{
    diag = pm_diag_create(arena);
    const pm_json *root = (const pm_json *)arena;
    size_t size = expected->size != 0 ? expected->size : strlen(expected->text);
    // in memory of exactly this size, so that ASan sees each read beyond
    char *text = malloc(size > 0 ? size : 1);
    memcpy(text, expected->text, size);
    pm_status status = pm_json_parse(arena, diag, "t.json", text, size, &root);
    free(text);
    ck_assert_msg(status == PM_ERR_INVALID, "accepted: %s", expected->text);
    ck_assert_ptr_null(root);
    ck_assert_uint_eq(pm_diag_count(diag, PM_ERROR), 1);
    const pm_diag_entry *entry = pm_diag_at(diag, 0);
    ck_assert_str_eq(entry->text, expected->message);
    ck_assert_msg(entry->loc->line == expected->line && entry->loc->col == expected->col,
                  "%s: at %u:%u", expected->message, entry->loc->line, entry->loc->col);
    ck_assert_str_eq(entry->loc->file, "t.json");
}

START_TEST(test_refused)
{
    static const refused cases[] = {
        {"", 0, 1, 1, "expected a value, found the end of the document"},
        {" \n ", 0, 2, 2, "expected a value, found the end of the document"},
        {"{} x", 0, 1, 4, "expected the end of the document, found 'x'"},
        {"{}{}", 0, 1, 3, "expected the end of the document, found '{'"},
        {"{}\0", 3, 1, 3, "expected the end of the document, found the byte 0x00"},
        {"\xef\xbb\xbf{}", 0, 1, 1, "the document begins with a byte-order mark"},
        {"\xff\xfe{}", 0, 1, 1, "expected a value, found the byte 0xff"},
        {"[1,\n 2,\n]", 0, 3, 1, "expected a value, found ']'"},
        {"[1 2]", 0, 1, 4, "expected ',' or ']', found '2'"},
        {"[1}", 0, 1, 3, "expected ',' or ']', found '}'"},
        {"{\"a\":1]", 0, 1, 7, "expected ',' or '}', found ']'"},
        {"{\"a\":1,}", 0, 1, 8, "expected a key in quotes, found '}'"},
        {"{a:1}", 0, 1, 2, "expected a key in quotes, found 'a'"},
        {"{\"a\" 1}", 0, 1, 6, "expected ':' after the key, found '1'"},
        {"{\"a\":}", 0, 1, 6, "expected a value, found '}'"},
        {"{\"a\":1", 0, 1, 7, "expected ',' or '}', found the end of the document"},
        {"{", 0, 1, 2, "expected a key in quotes, found the end of the document"},
        {"[", 0, 1, 2, "expected a value, found the end of the document"},
        {"]", 0, 1, 1, "expected a value, found ']'"},
        {"nul", 0, 1, 1, "expected a value, found 'n'"},
        {"truex", 0, 1, 5, "expected the end of the document, found 'x'"},
        {"NaN", 0, 1, 1, "expected a value, found 'N'"},
        {"+1", 0, 1, 1, "expected a value, found '+'"},
        {"01", 0, 1, 1, "a number may not begin with 0"},
        {"-", 0, 1, 2, "expected a digit, found the end of the document"},
        {"-x", 0, 1, 2, "expected a digit, found 'x'"},
        {"1.", 0, 1, 3, "expected a digit after the decimal point, found the end of the document"},
        {"1e+", 0, 1, 4, "expected a digit in the exponent, found the end of the document"},
        {"[ 1e309]", 0, 1, 3, "the number is too large for a double"},
        {"-1e309", 0, 1, 1, "the number is too large for a double"},
        {"0x10", 0, 1, 2, "expected the end of the document, found 'x'"},
        {"\"abc", 0, 1, 1, "the string has no closing quote"},
        {"\"abc\\\"", 0, 1, 1, "the string has no closing quote"},
        {"\"abc\\", 0, 1, 1, "the string has no closing quote"},
        {"\"a\nb\"", 0, 1, 3, "the control character 0x0a in a string must be escaped"},
        {"\"a\0b\"", 5, 1, 3, "the control character 0x00 in a string must be escaped"},
        {"\"a\\u0000\"", 0, 1, 3, "a string may not hold U+0000"},
        {"\"\\x41\"", 0, 1, 2,
         "unknown escape in a string, expected one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u"},
        {"\"\\u12g4\"", 0, 1, 2, "\\u needs four hexadecimal digits"},
        {"\"\\u12\"", 0, 1, 2, "\\u needs four hexadecimal digits"},
        {"\"\\ud800\"", 0, 1, 2, "\\ud800 is half of a surrogate pair without the other half"},
        {"\"\\udc00\\ud800\"", 0, 1, 2,
         "\\udc00 is half of a surrogate pair without the other half"},
        {"\"\\ud800\\u0041\"", 0, 1, 2,
         "\\ud800 is half of a surrogate pair without the other half"},
        {"\"\\ud83d\\", 0, 1, 1, "the string has no closing quote"},
        {"\"\xed\xa0\x80\"", 0, 1, 2, "invalid UTF-8 in a string (byte 0xed)"},
        {"\"ab\xc0\xaf\"", 0, 1, 4, "invalid UTF-8 in a string (byte 0xc0)"},
        {"\"\xe2\x82\"", 0, 1, 2, "invalid UTF-8 in a string (byte 0xe2)"},
        {"{\"\xff\":1}", 0, 1, 3, "invalid UTF-8 in a string (byte 0xff)"},
        {"{\"a\":1,\n \"a\":2}", 0, 2, 2, "the key 'a' occurs twice"},
        {"{\"a\":1,\"\\u0061\":2}", 0, 1, 8, "the key 'a' occurs twice"},
        {"{\"\":1,\"\":2}", 0, 1, 7, "the key '' occurs twice"},
    };
    for (size_t i = 0; i < PM_COUNT(cases); i++)
        check_refused(&cases[i]);
}
END_TEST

START_TEST(test_error_has_a_caret)
{
    const char *text = "{\n  \"top_k\": 2,\n  \"top_k\": 3\n}";
    const pm_json *root;
    ck_assert_int_eq(pm_json_parse(arena, diag, "c.json", text, strlen(text), &root),
                     PM_ERR_INVALID);
    char *shown = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&shown, &n);
    pm_diag_print(diag, out, false);
    fclose(out);
    ck_assert_str_eq(shown, "c.json:3:3: error: the key 'top_k' occurs twice\n"
                            "     3 |   \"top_k\": 3\n"
                            "       |   ^\n"
                            "c.json:2:3: note: it is here first\n"
                            "     2 |   \"top_k\": 2,\n"
                            "       |   ^\n");
    free(shown);
}
END_TEST

START_TEST(test_depth)
{
    char text[200] = {0};
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    const pm_json *value = parsed(text);
    for (int depth = 1; depth < 64; depth++)
        value = &value->items[0];
    ck_assert_uint_eq(value->n, 0);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    check_refused(&(refused){text, 130, 1, 65, "nested deeper than 64 levels"});
    size_t n = 10 << 20; // a bomb costs neither stack nor time
    char *bomb = malloc(n);
    memset(bomb, '[', n);
    check_refused(&(refused){bomb, n, 1, 65, "nested deeper than 64 levels"});
    free(bomb);
}
END_TEST

START_TEST(test_many_keys)
{
    enum { N = 100000 };
    char *text = malloc(N * 20 + 3), *at = text;
    for (int twice = 0; twice < 2; twice++) {
        at = text;
        for (int i = 0; i < N; i++)
            at += sprintf(at, "%c\"k%d\":%d", i == 0 ? '{' : ',', i, i);
        at += sprintf(at, "%s}", twice ? ",\"k500\":0" : "");
        if (!twice) {
            const pm_json *root = parsed(text);
            ck_assert_uint_eq(root->n, N);
            ck_assert_int_eq(pm_json_get(root, "k99999")->integer, 99999);
        } else {
            check_refused(
                &(refused){text, 0, 1, (uint32_t)(at - text) - 8, "the key 'k500' occurs twice"});
        }
    }
    free(text);
}
END_TEST

START_TEST(test_long_number)
{
    char text[700];
    memset(text, '1', sizeof text);
    check_refused(&(refused){text, 501, 1, 1, "the number has 501 characters, at most 500 fit"});
    memcpy(text, "0.", 2);
    text[500] = '\0';
    ck_assert(fabs(parsed(text)->number - 1.0 / 9) < 1e-15);
}
END_TEST

START_TEST(test_typed_members)
{
    const pm_json *root = parsed("{\"i\": 3, \"f\": 1.5, \"s\": \"x\", \"b\": true, \"n\": null,\n"
                                 " \"hidden_size\": 1}");
    int64_t i = 7;
    double f = 7;
    bool b = false;
    const char *s = "keep";
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "i", true, &i), PM_OK);
    ck_assert_int_eq(pm_json_get_f64(diag, "t", root, "f", true, &f), PM_OK);
    ck_assert_int_eq(pm_json_get_bool(diag, "t", root, "b", true, &b), PM_OK);
    ck_assert_int_eq(pm_json_get_str(diag, "t", root, "s", true, &s), PM_OK);
    ck_assert(i == 3 && f == 1.5 && b && strcmp(s, "x") == 0);
    ck_assert_int_eq(pm_json_get_f64(diag, "t", root, "i", true, &f), PM_OK);
    ck_assert(f == 3);
    // absent and null leave the value alone
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "absent", false, &i), PM_OK);
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "n", false, &i), PM_OK);
    ck_assert_int_eq(pm_json_get_str(diag, "t", NULL, "n", false, &s), PM_OK);
    ck_assert(i == 3 && strcmp(s, "x") == 0);
    ck_assert_uint_eq(pm_diag_size(diag), 0);
}
END_TEST

START_TEST(test_typed_member_errors)
{
    const pm_json *root = parsed("{\"i\": 3, \"f\": 1.5, \"s\": \"x\",\n \"hiden_size\": 1, "
                                 "\"n\": null}");
    int64_t i = 7;
    double f = 7;
    bool b = true;
    const char *s = "keep";
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "f", false, &i), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "s", false, &i), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_f64(diag, "t", root, "s", false, &f), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_bool(diag, "t", root, "i", false, &b), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_str(diag, "t", root, "i", false, &s), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "n", true, &i), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_i64(diag, "t", root, "hidden_size", true, &i), PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_i64(diag, "t", pm_json_get(root, "s"), "x", true, &i),
                     PM_ERR_INVALID);
    ck_assert_int_eq(pm_json_get_i64(diag, "t", NULL, "x", true, &i), PM_ERR_INVALID);
    ck_assert(i == 7 && f == 7 && b && strcmp(s, "keep") == 0);
    static const char *const texts[] = {
        "t:1:15: 'f' must be a 64-bit integer, found 1.5",
        "t:1:25: 's' must be an integer, found a string",
        "t:1:25: 's' must be a number, found a string",
        "t:1:7: 'i' must be true or false, found a number",
        "t:1:7: 'i' must be a string, found a number",
        "t:2:24: 'n' must not be null",
        "t:1:1: the key 'hidden_size' is missing",
        "t:2:16: the nearest key is 'hiden_size'",
        "t:1:25: expected an object with the key 'x', found a string",
        "t: the key 'x' is missing",
    };
    ck_assert_uint_eq(pm_diag_size(diag), PM_COUNT(texts));
    for (size_t e = 0; e < PM_COUNT(texts); e++) {
        const pm_diag_entry *entry = pm_diag_at(diag, e);
        ck_assert_str_eq(
            pm_arena_printf(arena, "%s: %s", pm_loc_text(arena, entry->loc), entry->text),
            texts[e]);
    }
}
END_TEST

START_TEST(test_write_string)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_json_write_string(out, "a\"\\/\b\n\x01\x7f é😀 \xe2\x80\xae \xff");
    fclose(out);
    ck_assert_str_eq(text, "\"a\\\"\\\\/\\u0008\\n\\u0001\\u007f é😀 \\u202e \\ufffd\"");
    ck_assert_int_eq(parsed(text)->kind, PM_JSON_STRING);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_document);
    tcase_add_test(tests, test_scalar_roots);
    tcase_add_test(tests, test_numbers);
    tcase_add_test(tests, test_numbers_ignore_the_locale);
    tcase_add_test(tests, test_strings);
    tcase_add_test(tests, test_refused);
    tcase_add_test(tests, test_error_has_a_caret);
    tcase_add_test(tests, test_depth);
    tcase_add_test(tests, test_many_keys);
    tcase_add_test(tests, test_long_number);
    tcase_add_test(tests, test_typed_members);
    tcase_add_test(tests, test_typed_member_errors);
    tcase_add_test(tests, test_write_string);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
