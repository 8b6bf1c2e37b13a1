// The sample language model, compiled for real, against what its reference implementation computed.
// compile_samples.sh made the artifacts; their folder is in E2E_DIR.

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "runtime/rt_internal.h"
#include "tests/e2e/e2e_model.h"

enum { VOCAB = 2048, REF_BATCH = 2, REF_TOKENS = 48, MAX_TOKENS = 96, N_PROMPTS = 12, BATCH = 8 };

static const double tolerance = 1e-4;

static e2e_lib lib;
static const char *reference = PM_SOURCE_DIR "/samples/classics/reference.npz";

static char *artifact(const char *name)
{
    static char path[4096];
    const char *dir = getenv("E2E_DIR");
    ck_assert_msg(dir != NULL, "E2E_DIR is not set");
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/// False when this CPU can't run what was compiled for another.
static bool open_library(const char *name, const char *symbol)
{
    char why[256];
    pm_status status;
    if (e2e_open(&lib, artifact(name), symbol, why, &status))
        return true;
    bool is_foreign = strstr(name, "-v4") != NULL && !(pm_cpu_features() & PM_CPU_AVX512);
    ck_assert_msg(is_foreign && status == PM_ERR_UNSUPPORTED, "%s", why);
    return false;
}

static void setup(void)
{
    ck_assert(open_library("classics.so", "classics"));
}

static void teardown(void)
{
    e2e_close(&lib);
}

static pm_session *new_session(int threads, int64_t batch)
{
    pm_session_options options = {
        .struct_size = sizeof options, .threads = threads, .max_batch = batch};
    pm_session *session = NULL;
    ck_assert_msg(lib.pm_session_create(lib.model, &options, &session) == PM_OK, "%s",
                  lib.pm_last_error());
    return session;
}

static pm_tensor_arg ids_arg(const int64_t *ids, int64_t batch, int64_t tokens)
{
    return (pm_tensor_arg){.data = (void *)ids,
                           .size = (size_t)(batch * tokens) * sizeof *ids,
                           .rank = 2,
                           .dims = {batch, tokens}};
}

/// Runs `forward`: logits [batch, tokens, VOCAB].
static void forward(pm_session *session, const int64_t *ids, int64_t batch, int64_t tokens,
                    float *logits)
{
    pm_tensor_arg in = ids_arg(ids, batch, tokens);
    pm_tensor_arg out = {.data = logits, .size = (size_t)(batch * tokens * VOCAB) * sizeof *logits};
    int entry = lib.pm_model_entry(lib.model, "forward");
    ck_assert_msg(lib.pm_session_run(session, entry, &in, 1, &out, 1) == PM_OK, "%s",
                  lib.pm_last_error());
    ck_assert(out.data == logits && out.rank == 3 && out.dims[0] == batch && out.dims[1] == tokens);
}

/// Runs `prefill` or `decode`: logits [batch, VOCAB] of the last tokens.
static void cached(pm_session *session, const char *entry, const int64_t *ids, int64_t batch,
                   int64_t tokens, const int64_t *past, float *logits)
{
    pm_tensor_arg in[2] = {
        ids_arg(ids, batch, tokens),
        {.data = (void *)past, .size = (size_t)batch * sizeof *past, .rank = 1, .dims = {batch}}};
    pm_tensor_arg out = {.data = logits, .size = (size_t)(batch * VOCAB) * sizeof *logits};
    int number = lib.pm_model_entry(lib.model, entry);
    ck_assert_msg(lib.pm_session_run(session, number, in, 2, &out, 1) == PM_OK, "%s: %s", entry,
                  lib.pm_last_error());
}

static float *floats(size_t n)
{
    return e2e_keep(calloc(n, sizeof(float)));
}

static void assert_close(const float *got, const float *want, size_t n, const char *what)
{
    double distance = e2e_row_distance(got, want, n, VOCAB);
    ck_assert_msg(distance <= tolerance, "%s: logits differ by %g relative", what, distance);
}

static void assert_same_bits(const float *got, const float *want, size_t n, const char *what,
                             int64_t number)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(memcmp(&got[i], &want[i], sizeof *got) == 0,
                      "%s %lld: logit %zu: %.9g, not %.9g", what, (long long)number, i,
                      (double)got[i], (double)want[i]);
}

// ---- logits against the reference ----

static const char *const compiled[] = {"classics.so", "classics-v3.so", "classics-v4.so"};

START_TEST(test_forward)
{
    if (!open_library(compiled[_i], "classics"))
        return;
    pm_npy ids = e2e_array(reference, "input_ids"), want = e2e_array(reference, "logits");
    size_t n = (size_t)REF_BATCH * REF_TOKENS * VOCAB;
    ck_assert_uint_eq(want.size, n * sizeof(float));
    float *got = floats(n);
    for (int threads = 1; threads <= 2; threads++) {
        pm_session *session = new_session(threads, REF_BATCH);
        forward(session, (const int64_t *)ids.data, REF_BATCH, REF_TOKENS, got);
        assert_close(got, (const float *)want.data, n, compiled[_i]);
        lib.pm_session_destroy(session);
    }
}
END_TEST

START_TEST(test_onnx)
{
    ck_assert(open_library("classics-onnx.so", "classics"));
    const char *inputs = PM_SOURCE_DIR "/samples/classics/onnx/inputs.npz";
    pm_npy ids = e2e_array(inputs, "input_ids"), mask = e2e_array(inputs, "attention_mask");
    pm_npy want = e2e_array(reference, "logits");
    size_t n = (size_t)REF_BATCH * REF_TOKENS * VOCAB;
    float *got = floats(n);
    pm_port_info port;
    pm_tensor_arg in[2], out = {.data = got, .size = n * sizeof *got};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(lib.pm_model_input(lib.model, 0, i, &port), PM_OK);
        bool is_mask = strcmp(port.name, "attention_mask") == 0;
        in[i] = ids_arg((const int64_t *)(is_mask ? mask : ids).data, REF_BATCH, REF_TOKENS);
    }
    for (int threads = 1; threads <= 2; threads++) {
        pm_session *session = new_session(threads, 1);
        ck_assert_msg(lib.pm_session_run(session, 0, in, 2, &out, 1) == PM_OK, "%s",
                      lib.pm_last_error());
        assert_close(got, (const float *)want.data, n, "classics-onnx.so");
        lib.pm_session_destroy(session);
    }
}
END_TEST

/// Prefill of the first tokens in chunks, then one by one, against the reference and against the
/// bits of `forward`.
static void check_cached(const int64_t *ids, const float *want, const float *whole,
                         const int64_t *chunks, int64_t n_chunks, int threads)
{
    pm_session *session = new_session(threads, REF_BATCH);
    float *got = floats((size_t)REF_BATCH * VOCAB);
    int64_t past[REF_BATCH] = {0}, part[REF_BATCH * REF_TOKENS];
    for (int64_t step = 0; past[0] < REF_TOKENS; step++) {
        int64_t n = step < n_chunks ? chunks[step] : 1;
        for (int64_t b = 0; b < REF_BATCH; b++)
            memcpy(part + b * n, ids + b * REF_TOKENS + past[b], (size_t)n * sizeof *part);
        cached(session, step < n_chunks ? "prefill" : "decode", part, REF_BATCH, n, past, got);
        for (int64_t b = 0; b < REF_BATCH; b++) {
            past[b] += n;
            size_t row = (size_t)(b * REF_TOKENS + past[b] - 1) * VOCAB;
            assert_close(got + b * VOCAB, want + row, VOCAB, "cached decoding");
            assert_same_bits(got + b * VOCAB, whole + row, VOCAB, "cached decoding, token",
                             past[b]);
        }
    }
    lib.pm_session_destroy(session);
}

START_TEST(test_cached)
{
    // prefills that split the prompt differently; the rest token by token
    static const struct {
        int64_t n, sizes[6];
    } chunks[] = {{0, {0}},     {1, {1}},     {1, {7}},       {1, {16}},
                  {1, {17}},    {1, {48}},    {2, {16, 16}},  {3, {3, 30, 5}},
                  {2, {31, 2}}, {2, {1, 40}}, {3, {8, 8, 8}}, {6, {2, 4, 6, 8, 10, 12}}};
    ck_assert(open_library(_i % 2 ? "classics-v3.so" : "classics.so", "classics"));
    pm_npy ids = e2e_array(reference, "input_ids"), want = e2e_array(reference, "logits");
    float *whole = floats((size_t)REF_BATCH * REF_TOKENS * VOCAB);
    pm_session *session = new_session(1, REF_BATCH);
    forward(session, (const int64_t *)ids.data, REF_BATCH, REF_TOKENS, whole);
    lib.pm_session_destroy(session);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        check_cached((const int64_t *)ids.data, (const float *)want.data, whole, chunks[i].sizes,
                     chunks[i].n, _i < 2 ? 1 : 2);
}
END_TEST

// ---- the same bits alone, in a batch, and with any number of threads ----

typedef struct prompt {
    const char *text, *continuation;
    int64_t ids[MAX_TOKENS];
    int64_t n, n_prompt; ///< all tokens, those of the prompt
} prompt;

static prompt prompts[N_PROMPTS];

static int64_t read_ids(const pm_json *array, int64_t *out)
{
    for (size_t i = 0; i < array->n; i++)
        out[i] = array->items[i].integer;
    return (int64_t)array->n;
}

static void read_prompts(void)
{
    pm_arena *arena =
        e2e_keep(pm_arena_create()); // lives as long as the prompts: to the end of the test
    const char *path = PM_SOURCE_DIR "/samples/classics/reference.json";
    uint8_t *text = NULL;
    size_t size = 0;
    const pm_json *root = NULL;
    ck_assert_int_eq(pm_read_file(path, &text, &size), PM_OK);
    ck_assert_int_eq(
        pm_json_parse(arena, pm_diag_create(arena), path, (const char *)text, size, &root), PM_OK);
    free(text);
    const pm_json *greedy = pm_json_get(root, "greedy");
    ck_assert_uint_eq(greedy->n, N_PROMPTS);
    for (size_t i = 0; i < N_PROMPTS; i++) {
        prompt *p = &prompts[i];
        const pm_json *ids = pm_json_get(&greedy->items[i], "ids");
        p->text = pm_json_get(&greedy->items[i], "prompt")->string;
        p->continuation = pm_json_get(&greedy->items[i], "text")->string;
        p->n_prompt = read_ids(pm_json_get(&greedy->items[i], "prompt_ids"), p->ids);
        ck_assert_uint_le((size_t)p->n_prompt + ids->n, MAX_TOKENS);
        p->n = p->n_prompt + read_ids(ids, p->ids + p->n_prompt);
    }
}

/// Feeds `n` texts token by token, each at its own pace, for `steps` steps: text i's logits of
/// step s go to out[i][s].
static void decode_together(int threads, int n, const int *which, const int64_t *delay,
                            int64_t steps, float *const *out)
{
    pm_session *session = new_session(threads, n);
    float *logits = floats((size_t)n * VOCAB);
    int64_t ids[BATCH], past[BATCH];
    for (int64_t step = 0; step < steps; step++) {
        for (int i = 0; i < n; i++) {
            // until its turn comes a text repeats its first token at place 0
            past[i] = step < delay[i] ? 0 : step - delay[i];
            ids[i] = prompts[which[i]].ids[past[i]];
        }
        cached(session, "decode", ids, n, 1, past, logits);
        for (int i = 0; i < n; i++)
            memcpy(out[i] + past[i] * VOCAB, logits + i * VOCAB, VOCAB * sizeof *logits);
    }
    lib.pm_session_destroy(session);
}

START_TEST(test_batch_does_not_show)
{
    enum { STEPS = 40 };
    static const int which[BATCH] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int64_t delay[BATCH] = {0, 3, 0, 7, 11, 1, 0, 5};
    float *together[BATCH], *alone = floats(STEPS * VOCAB);
    read_prompts();
    for (int i = 0; i < BATCH; i++)
        together[i] = floats(STEPS * VOCAB);
    decode_together(1, BATCH, which, delay, STEPS, together);
    for (int i = 0; i < BATCH; i++) {
        decode_together(1 + i % 2, 1, &which[i], (const int64_t[]){0}, STEPS, &alone);
        assert_same_bits(together[i], alone, (size_t)(STEPS - delay[i]) * VOCAB,
                         "a batch of 8, request", i);
    }
    decode_together(2, BATCH, which, delay, STEPS,
                    (float *[]){alone, together[1], together[2], together[3], together[4],
                                together[5], together[6], together[7]});
    assert_same_bits(alone, together[0], STEPS * VOCAB, "two threads, request", 0);
}
END_TEST

START_TEST(test_threads_and_batches_of_forward)
{
    enum { LONG = 90, N = BATCH };
    static const int64_t lengths[] = {1, 2, 5, 15, 16, 17, 33, 64};
    if (!open_library(compiled[_i], "classics"))
        return;
    int64_t ids[N * LONG];
    uint32_t random = 1;
    for (int i = 0; i < N * LONG; i++)
        ids[i] = (random = random * 1664525u + 1013904223u) >> 21;
    float *whole = floats((size_t)N * LONG * VOCAB), *part = floats((size_t)N * LONG * VOCAB);
    pm_session *one = new_session(1, N), *two = new_session(2, N);
    forward(one, ids, N, LONG, whole);
    forward(two, ids, N, LONG, part);
    assert_same_bits(part, whole, (size_t)N * LONG * VOCAB, "two threads, batch of", N);
    for (int64_t b = 0; b < N; b++) {
        // a request alone, shorter each time: what comes later must not show
        int64_t tokens = lengths[b];
        forward(b % 2 ? two : one, ids + b * LONG, 1, tokens, part);
        assert_same_bits(part, whole + b * LONG * VOCAB, (size_t)tokens * VOCAB, "alone, request",
                         b);
    }
    lib.pm_session_destroy(one);
    lib.pm_session_destroy(two);
}
END_TEST

// ---- text ----

typedef struct listener {
    char text[4096];
    size_t n;
    int32_t tokens[MAX_TOKENS];
    int64_t n_tokens;
} listener;

static int on_text(void *user, const char *text, size_t size, int32_t token)
{
    listener *l = user;
    ck_assert_uint_lt(l->n + size, sizeof l->text);
    memcpy(l->text + l->n, text, size);
    l->n += size;
    l->text[l->n] = '\0';
    if (token >= 0)
        l->tokens[l->n_tokens++] = token;
    return 0;
}

START_TEST(test_generate)
{
    read_prompts();
    pm_session *session = new_session(1 + _i, 1);
    for (int i = 0; i < N_PROMPTS; i++) {
        const prompt *p = &prompts[i];
        listener heard = {.n = 0};
        pm_generate_options options = {.struct_size = sizeof options,
                                       .max_tokens = p->n - p->n_prompt,
                                       .on_text = on_text,
                                       .user = &heard};
        pm_generate_stats stats;
        lib.pm_session_reset(session);
        ck_assert_msg(lib.pm_generate(session, p->text, strlen(p->text), &options, &stats) == PM_OK,
                      "%s", lib.pm_last_error());
        ck_assert_str_eq(heard.text, p->continuation);
        ck_assert_int_eq(heard.n_tokens, p->n - p->n_prompt);
        ck_assert_int_eq(stats.prompt_tokens, p->n_prompt);
        for (int64_t t = 0; t < heard.n_tokens; t++)
            ck_assert_int_eq(heard.tokens[t], p->ids[p->n_prompt + t]);
    }
    lib.pm_session_destroy(session);
}
END_TEST

START_TEST(test_program_writes)
{
    read_prompts();
    for (int i = 0; i < N_PROMPTS; i++) {
        const prompt *p = &prompts[i];
        char n[16], *text = NULL;
        snprintf(n, sizeof n, "%d", (int)(p->n - p->n_prompt));
        const char *argv[] = {
            artifact("classics"), p->text,           "-n", n, "--temperature", "0",
            "--threads",          i % 2 ? "1" : "2", NULL};
        ck_assert_int_eq(e2e_run(argv, &text), 0);
        size_t length = strlen(text); // the program ends its text with a line end
        if (length > 0 && text[length - 1] == '\n' && length == strlen(p->continuation) + 1)
            text[length - 1] = '\0';
        ck_assert_str_eq(text, p->continuation);
        free(text);
    }
}
END_TEST

static double number_after(const char *text, const char *key)
{
    const char *found = strstr(text, key);
    ck_assert_msg(found != NULL, "no %s in %s", key, text);
    return strtod(found + strlen(key), NULL);
}

START_TEST(test_perplexity)
{
    static const struct {
        const char *program;
        double tolerance;
    } programs[] = {{"classics", 1e-4}, {"classics-bf16", 2e-3}};
    const double want = 26.99677960948168; // reference.json: perplexity_heldout
    const char *argv[] = {artifact(programs[_i].program),
                          "--perplexity",
                          PM_SOURCE_DIR "/samples/classics/data/classics-heldout.txt",
                          "--context",
                          "256",
                          "--json",
                          NULL};
    char *text = NULL;
    ck_assert_int_eq(e2e_run(argv, &text), 0);
    double got = number_after(text, "\"perplexity\":");
    ck_assert_msg(fabs(got / want - 1) <= programs[_i].tolerance, "perplexity %.9g, not %.9g", got,
                  want);
    ck_assert(number_after(text, "\"scored_tokens\":") == 28815);
    if (_i == 1) // it must not be fp32 under another name
        ck_assert(fabs(got / want - 1) > 1e-7);
    free(text);
}
END_TEST

// ---- the caller's own buffers ----

START_TEST(test_own_buffers)
{
    enum { GUARD = 64, N = 3 * VOCAB };
    static const int64_t ids[3] = {774, 310, 260};
    int64_t own_ids[3];
    memcpy(own_ids, ids, sizeof ids);
    float *buffer = floats(N + 2 * GUARD);
    for (int i = 0; i < N + 2 * GUARD; i++)
        buffer[i] = 12345;
    pm_session *session = new_session(2, 1);
    forward(session, own_ids, 1, 3, buffer + GUARD);
    for (int i = 0; i < GUARD; i++)
        ck_assert(buffer[i] == 12345 && buffer[GUARD + N + i] == 12345);
    ck_assert(memcmp(own_ids, ids, sizeof ids) == 0);
    // the session's memory instead: the same bits
    pm_tensor_arg in = ids_arg(ids, 1, 3), out = {0};
    int entry = lib.pm_model_entry(lib.model, "forward");
    ck_assert_int_eq(lib.pm_session_run(session, entry, &in, 1, &out, 1), PM_OK);
    assert_same_bits(out.data, buffer + GUARD, N, "session's memory", 0);
    // too small: refused, and nothing written
    pm_tensor_arg small = {.data = buffer, .size = N * sizeof(float) - 1};
    buffer[0] = 12345;
    ck_assert_int_eq(lib.pm_session_run(session, entry, &in, 1, &small, 1), PM_ERR_USAGE);
    ck_assert(buffer[0] == 12345);
    lib.pm_session_destroy(session);
}
END_TEST

// ---- unlike experts ----

START_TEST(test_unlike_experts)
{
    const char *dir = PM_SOURCE_DIR "/samples/unlike-experts/";
    char inputs[512], expected[512];
    snprintf(inputs, sizeof inputs, "%sinputs.npz", dir);
    snprintf(expected, sizeof expected, "%sexpected.npz", dir);
    ck_assert(open_library("unlike.so", "unlike"));
    pm_npy x = e2e_array(inputs, "x"), want = e2e_array(expected, "answer");
    int64_t n = x.dims[0];
    float *got = floats((size_t)n);
    for (int threads = 1; threads <= 2; threads++) {
        pm_session *session = new_session(threads, 1);
        for (int64_t rows = n; rows > 0; rows = rows / 2) {
            pm_tensor_arg in = {
                .data = (void *)x.data, .size = (size_t)rows * 16, .rank = 2, .dims = {rows, 4}};
            pm_tensor_arg out = {.data = got, .size = (size_t)rows * sizeof *got};
            ck_assert_msg(lib.pm_session_run(session, 0, &in, 1, &out, 1) == PM_OK, "%s",
                          lib.pm_last_error());
            for (int64_t i = 0; i < rows; i++) {
                const float *row = (const float *)x.data + i * 4;
                float answer = ((const float *)want.data)[i];
                if (row[1] > row[0]) // the product is exact
                    ck_assert_msg(got[i] == answer, "row %lld: %g", (long long)i, (double)got[i]);
                else
                    ck_assert(fabsf(got[i] - answer) <= 1e-4f * fmaxf(1, fabsf(answer)));
            }
        }
        lib.pm_session_destroy(session);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("classics");
    TCase *opened = tcase_create("library"), *others = tcase_create("each its own artifact");
    tcase_set_timeout(opened, 120);
    tcase_set_timeout(others, 120);
    tcase_add_checked_fixture(opened, setup, teardown);
    tcase_add_test(opened, test_batch_does_not_show);
    tcase_add_loop_test(opened, test_generate, 0, 2);
    tcase_add_test(opened, test_own_buffers);
    tcase_add_checked_fixture(others, NULL, teardown);
    tcase_add_loop_test(others, test_forward, 0, 3);
    tcase_add_loop_test(others, test_cached, 0, 3);
    tcase_add_loop_test(others, test_threads_and_batches_of_forward, 0, 3);
    tcase_add_test(others, test_onnx);
    tcase_add_test(others, test_program_writes);
    tcase_add_loop_test(others, test_perplexity, 0, 2);
    tcase_add_test(others, test_unlike_experts);
    suite_add_tcase(suite, opened);
    suite_add_tcase(suite, others);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
