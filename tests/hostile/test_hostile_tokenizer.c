// tokenizer.json: what is refused, where, and with which words. What would tokenise otherwise than
// it says is refused, too: a model that reads other tokens answers nonsense.

#include "tests/hostile/hostile.h"

#include "base/json.h"
#include "frontend/checkpoint/tokenizer_import.h"
#include "runtime/rt_internal.h"

#define BAD PM_ERR_INVALID
#define NO PM_ERR_UNSUPPORTED

#define PRE                                                                                        \
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": "    \
    "true},\n"
#define REST                                                                                       \
    "\"normalizer\": null, \"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\"},\n"
#define BPE(vocab, merges)                                                                         \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {" vocab "}, \"merges\": [" merges "]}}"
#define VOCAB "\"a\": 0, \"b\": 1, \"ab\": 2"
#define MODEL BPE(VOCAB, "[\"a\", \"b\"]")
#define ADDED(items) "{\"added_tokens\": [" items "],\n" PRE REST MODEL

static const struct {
    const char *text;
    int status;
    const char *error;
} cases[] = {
    {"", BAD, "tokenizer.json:1:1: error: expected a value, found the end of the document"},
    {"[]", BAD, "tokenizer.json:1:1: error: expected an object with 'model'"},
    {"{}", BAD, "tokenizer.json:1:1: error: expected an object with 'model'"},
    {"{" PRE REST MODEL "x", BAD,
     "tokenizer.json:3:86: error: expected the end of the document, found 'x'"},
    {"\xef\xbb\xbf{" PRE REST MODEL, BAD,
     "tokenizer.json:1:1: error: the document begins with a byte-order mark"},
    {"{" PRE PRE REST MODEL, BAD,
     "tokenizer.json:2:1: error: the key 'pre_tokenizer' occurs twice"},
    {"{" PRE REST BPE("\"a\": 0, \"a\": 1", ""), BAD,
     "tokenizer.json:3:44: error: the key 'a' occurs twice"},
    {"{" PRE REST BPE("\"a\": 0, \"b\": 0", ""), BAD,
     "tokenizer.json:3:49: error: id 0 is used twice"},
    {"{" PRE REST BPE("\"a\": -1", ""), BAD,
     "tokenizer.json:3:41: error: a token's id must be an integer that isn't negative"},
    {"{" PRE REST BPE("\"a\": 1.5", ""), BAD,
     "tokenizer.json:3:41: error: a token's id must be an integer that isn't negative"},
    {"{" PRE REST BPE("\"a\": \"1\"", ""), BAD,
     "tokenizer.json:3:41: error: a token's id must be an integer that isn't negative"},
    {"{" PRE REST BPE("\"a\": 9007199254740993", ""), NO,
     "tokenizer.json:3:41: error: the id 9007199254740993 is beyond the limit of 2097152"},
    {"{" PRE REST BPE("\"a\": 4294967296", ""), NO,
     "tokenizer.json:3:41: error: the id 4294967296 is beyond the limit of 2097152"},
    {"{" PRE REST BPE("\"\": 0", ""), BAD, "tokenizer.json:3:40: error: a token's text is empty"},
    {"{" PRE REST BPE("", ""), BAD, "tokenizer.json:3:35: error: the vocabulary is empty"},
    {"{" PRE REST BPE("\"\\u4e2d\": 0", ""), NO,
     "tokenizer.json:3:46: error: token 0 holds U+4E2D, which isn't of the byte-level alphabet"},
    {"{" PRE REST BPE("\"a\\u0000\": 0", ""), BAD,
     "tokenizer.json:3:38: error: a string may not hold U+0000"},
    {"{" PRE REST BPE("\"\\ud83d\": 0", ""), BAD,
     "tokenizer.json:3:37: error: \\ud83d is half of a surrogate pair without the other half"},
    {"{" PRE REST BPE(VOCAB, "[\"a\", \"c\"]"), BAD,
     "tokenizer.json:3:73: error: 'c' isn't in the vocabulary"},
    {"{" PRE REST BPE(VOCAB, "[\"b\", \"a\"]"), BAD,
     "tokenizer.json:3:73: error: 'ba' isn't in the vocabulary"},
    {"{" PRE REST BPE(VOCAB, "\"a b\", [\"a\", \"b\"]"), BAD,
     "tokenizer.json:3:80: error: this merge is there twice"},
    {"{" PRE REST BPE(VOCAB, "\"ab\""), BAD,
     "tokenizer.json:3:73: error: a merge must be two tokens with a space between"},
    {"{" PRE REST BPE(VOCAB, "\"a b c\""), BAD,
     "tokenizer.json:3:73: error: a merge must be two tokens with a space between"},
    {"{" PRE REST BPE(VOCAB, "[\"a\"]"), BAD,
     "tokenizer.json:3:73: error: a merge must be a string or two strings"},
    {"{" PRE REST BPE(VOCAB, "3"), BAD,
     "tokenizer.json:3:73: error: a merge must be a string or two strings"},
    {"{" PRE REST "\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": []}}", BAD,
     "tokenizer.json:3:10: error: 'vocab' must be an object"},
    {"{" PRE REST "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": {}}}", BAD,
     "tokenizer.json:3:10: error: 'merges' must be a list"},
    {"{" PRE REST "\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", NO,
     "tokenizer.json:3:10: error: the tokenizer's model is 'Unigram'; only byte-level BPE is "
     "supported"},
    {"{" PRE REST
     "\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {\"a\": 0}, \"merges\": []}}",
     NO, "tokenizer.json:3:37: error: merges that drop out at random aren't supported"},
    {"{" PRE REST "\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"a\": 0}, "
                  "\"merges\": []}}",
     NO, "tokenizer.json:3:43: error: byte_fallback isn't supported"},
    {"{" PRE REST "\"model\": {\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\", \"vocab\": "
                  "{\"a\": 0}, \"merges\": []}}",
     NO, "tokenizer.json:3:48: error: 'end_of_word_suffix' isn't supported"},
    {"{" REST MODEL, NO,
     "tokenizer.json:1:1: error: the pre-tokenizer is ''; only ByteLevel with its own word pattern "
     "is supported"},
    {"{\"pre_tokenizer\": {\"type\": \"Whitespace\"}, " REST MODEL, NO,
     "tokenizer.json:1:19: error: the pre-tokenizer is 'Whitespace'; only ByteLevel with its own "
     "word pattern is supported"},
    {"{" PRE "\"normalizer\": {\"type\": \"NFC\"},\n" MODEL, NO,
     "tokenizer.json:2:15: error: the normalizer is 'NFC'; text is taken as it is"},
    {"{" PRE "\"post_processor\": {\"type\": \"TemplateProcessing\"}, \"decoder\": {\"type\": "
             "\"ByteLevel\"},\n" MODEL,
     NO,
     "tokenizer.json:2:19: error: the post-processor is 'TemplateProcessing'; adding tokens around "
     "the text isn't supported"},
    {"{" PRE "\"decoder\": {\"type\": \"WordPiece\"},\n" MODEL, NO,
     "tokenizer.json:2:12: error: the decoder is 'WordPiece', expected ByteLevel"},
    {ADDED("3"), BAD, "tokenizer.json:1:19: error: an added token needs 'id' and 'content'"},
    {ADDED("{\"id\": 3}"), BAD,
     "tokenizer.json:1:19: error: an added token needs 'id' and 'content'"},
    {ADDED("{\"id\": 3, \"content\": \"\"}"), BAD,
     "tokenizer.json:1:19: error: an added token needs 'id' and 'content'"},
    {ADDED("{\"id\": 1, \"content\": \"<s>\"}"), BAD,
     "tokenizer.json:4:49: error: id 1 is used twice"},
    {ADDED("{\"id\": 3, \"content\": \"<s>\"}, {\"id\": 3, \"content\": \"</s>\"}"), BAD,
     "tokenizer.json:1:48: error: id 3 is used twice"},
    {ADDED("{\"id\": 3, \"content\": \"<s>\"}, {\"id\": 4, \"content\": \"<s>\"}"), BAD,
     "tokenizer.json:1:48: error: the token '<s>' has two ids"},
    {ADDED("{\"id\": 3, \"content\": \"<s>\", \"lstrip\": true}"), NO,
     "tokenizer.json:1:19: error: single_word, lstrip and rstrip of added tokens aren't supported"},
    {ADDED("{\"id\": 3, \"content\": \"<s>\", \"single_word\": true}"), NO,
     "tokenizer.json:1:19: error: single_word, lstrip and rstrip of added tokens aren't supported"},
    {ADDED("{\"id\": 3, \"content\": \"<s>\", \"special\": 1}"), BAD,
     "tokenizer.json:1:58: error: 'special' must be true or false, found a number"},
    {ADDED("{\"id\": 2000000000, \"content\": \"<s>\"}"), NO,
     "tokenizer.json:1:26: error: the id 2000000000 is beyond the limit of 2097152"},
    {"{\"added_tokens\": {},\n" PRE REST MODEL, BAD,
     "tokenizer.json:1:18: error: 'added_tokens' must be a list"},
};

static pm_status import(const char *text, size_t size, const uint8_t **out_blob, uint32_t *out_size)
{
    return pm_tokenizer_import(arena, diag, "tokenizer.json", text, size, -1, -1, out_blob,
                               out_size);
}

START_TEST(test_case)
{
    const uint8_t *blob = NULL;
    uint32_t size = 0;
    pm_status status = import(cases[_i].text, strlen(cases[_i].text), &blob, &size);
    expect_refused(status, cases[_i].status, cases[_i].error);
}
END_TEST

START_TEST(test_good)
{
    static const char text[] = ADDED("{\"id\": 3, \"content\": \"<s>\", \"special\": true}");
    const uint8_t *blob;
    uint32_t size;
    int32_t *ids;
    size_t n;
    ck_assert_int_eq(import(text, sizeof text - 1, &blob, &size), PM_OK);
    pm_tokenizer *t = pm_tokenizer_open(blob, size);
    ck_assert_int_eq(pm_tokenizer_encode(t, "aab<s>b", 7, &ids, &n), PM_OK);
    static const int32_t want[] = {0, 2, 3, 1};
    ck_assert_uint_eq(n, PM_COUNT(want));
    ck_assert_mem_eq(ids, want, sizeof want);
    free(ids);
    pm_tokenizer_close(t);
}
END_TEST

/// A space is put before a text that has none, and only then.
START_TEST(test_space_before)
{
    static const char text[] =
        "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": "
        "true},\n" REST BPE("\"a\": 0, \"\\u0120\": 1", "");
    const uint8_t *blob;
    uint32_t size;
    ck_assert_int_eq(import(text, sizeof text - 1, &blob, &size), PM_OK);
    pm_tokenizer *t = pm_tokenizer_open(blob, size);
    static const char *const texts[] = {"a", " a"};
    for (size_t i = 0; i < PM_COUNT(texts); i++) {
        int32_t *ids;
        size_t n;
        ck_assert_int_eq(pm_tokenizer_encode(t, texts[i], strlen(texts[i]), &ids, &n), PM_OK);
        ck_assert(n == 2 && ids[0] == 1 && ids[1] == 0);
        free(ids);
    }
    pm_tokenizer_close(t);
}
END_TEST

/// A long word of one letter, with merges that make it a worst case for a quadratic merger.
START_TEST(test_long_word)
{
    static const char text[] =
        "{" PRE REST BPE("\"a\": 0, \"aa\": 1, \"aaaa\": 2", "[\"a\", \"a\"], [\"aa\", \"aa\"]");
    enum { N = 1 << 20 };
    const uint8_t *blob;
    uint32_t size;
    int32_t *ids;
    size_t n;
    ck_assert_int_eq(import(text, sizeof text - 1, &blob, &size), PM_OK);
    pm_tokenizer *t = pm_tokenizer_open(blob, size);
    char *word = malloc(N);
    memset(word, 'a', N);
    ck_assert_int_eq(pm_tokenizer_encode(t, word, N, &ids, &n), PM_OK);
    ck_assert_uint_eq(n, N / 4);
    free(word);
    free(ids);
    pm_tokenizer_close(t);
}
END_TEST

/// A file of 100 MB is not parsed into gigabytes.
START_TEST(test_bombs)
{
    static const struct {
        size_t n;
        const char *part, *error;
        int status;
    } bombs[] = {
        {50000000, "[", "tokenizer.json: error: larger than the tokenizers that we read", NO},
        {40000000, "0,", "tokenizer.json: error: larger than the tokenizers that we read", NO},
        {110000000, " ", "tokenizer.json: error: larger than the tokenizers that we read", NO},
    };
    for (size_t i = 0; i < PM_COUNT(bombs); i++) {
        char *text = malloc(bombs[i].n);
        const uint8_t *blob;
        uint32_t size;
        for (size_t k = 0; k < bombs[i].n; k++)
            text[k] = bombs[i].part[k % strlen(bombs[i].part)];
        memcpy(text, "{\"a\":[", 6);
        diag = pm_diag_create(arena);
        pm_status status = import(text, bombs[i].n, &blob, &size);
        free(text);
        expect_refused(status, bombs[i].status, bombs[i].error);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile tokenizers");
    TCase *tests = tcase_create("tokenizer");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_good);
    tcase_add_test(tests, test_space_before);
    tcase_add_loop_test(tests, test_case, 0, (int)PM_COUNT(cases));
    tcase_add_test(tests, test_long_word);
    tcase_add_test(tests, test_bombs);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
