// Families of checkpoints compiled for real: `forward` against the reference implementation, and with one
// or two threads the same bits from `forward` as in pieces through the states. compile_samples.sh made the
// libraries; their folder is in E2E_DIR.

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/e2e/e2e_model.h"

enum { BATCH = 2, MAX_TOKENS = 16, VOCAB = 128 };

static const char *const families[] = {"lfm2_moe", "granitemoehybrid", "qwen3_next", "jamba",
                                       "deepseek_v3_fp8", "switch_transformers"};
static e2e_lib lib;
static const char *reference; // of the family that is tested
static bool is_pair;          // an encoder-decoder

static void open_family(int i)
{
    static char path[4096], arrays[4096];
    const char *dir = getenv("E2E_DIR");
    char why[256];
    pm_status status;
    ck_assert_msg(dir != NULL, "E2E_DIR is not set");
    snprintf(path, sizeof path, "%s/checkpoint-%s.so", dir, families[i]);
    snprintf(arrays, sizeof arrays, "%s/tests/data/checkpoints/%s/reference.npz", PM_SOURCE_DIR,
             families[i]);
    reference = arrays;
    is_pair = strcmp(families[i], "switch_transformers") == 0;
    ck_assert_msg(e2e_open(&lib, path, "checkpoint", why, &status), "%s", why);
}

static pm_tensor_arg ints(const void *data, int rank, int64_t a, int64_t b)
{
    int64_t n = rank == 1 ? a : a * b;
    return (pm_tensor_arg){.data = (void *)(uintptr_t)data, .size = (size_t)n * sizeof(int64_t),
                           .rank = rank, .dims = {a, b}};
}

static void run(pm_session *session, const char *name, const pm_tensor_arg *in, int n_in,
                float *logits, int64_t rows)
{
    static float memory[BATCH * MAX_TOKENS * VOCAB];
    pm_tensor_arg out[2] = {{.data = logits, .size = (size_t)(rows * VOCAB) * sizeof *logits},
                            {.data = memory, .size = sizeof memory}};
    int entry = lib.pm_model_entry(lib.model, name), n_out = lib.pm_model_n_outputs(lib.model, entry);
    pm_tensor_arg *first = strcmp(name, "encode") == 0 ? out + 1 : out;
    ck_assert_msg(lib.pm_session_run(session, entry, in, n_in, first, n_out) == PM_OK, "%s: %s", name,
                  lib.pm_last_error());
}

/// Tokens at..at+n of both rows through `prefill`, or `decode` when it is one that isn't the first.
static void piece(pm_session *session, const pm_npy *ids, int64_t source, int64_t at, int64_t n,
                  float *logits)
{
    int64_t tokens = ids->dims[1], part[BATCH * MAX_TOKENS], past[BATCH] = {at, at};
    int64_t sources[BATCH] = {source, source};
    for (int64_t b = 0; b < BATCH; b++)
        memcpy(part + b * n, (const int64_t *)ids->data + b * tokens + at, (size_t)n * sizeof *part);
    const pm_tensor_arg in[3] = {ints(part, 2, BATCH, n), ints(past, 1, BATCH, 0),
                                 ints(sources, 1, BATCH, 0)};
    run(session, n == 1 && at > 0 ? "decode" : "prefill", in, is_pair ? 3 : 2, logits, BATCH);
}

START_TEST(agrees)
{
    open_family(_i);
    pm_npy source = e2e_array(reference, "input_ids_b"), want = e2e_array(reference, "logits_b");
    pm_npy ids = is_pair ? e2e_array(reference, "decoder_input_ids_b") : source;
    int64_t tokens = ids.dims[1];
    ck_assert(ids.dims[0] == BATCH && tokens <= MAX_TOKENS && want.dims[2] == VOCAB);
    static float whole[BATCH * MAX_TOKENS * VOCAB], again[BATCH * MAX_TOKENS * VOCAB];
    for (int threads = 1; threads <= 2; threads++) {
        pm_session_options options = {
            .struct_size = sizeof options, .threads = threads, .max_batch = BATCH};
        pm_session *session = NULL;
        ck_assert_int_eq(lib.pm_session_create(lib.model, &options, &session), PM_OK);
        const pm_tensor_arg in[2] = {ints(source.data, 2, BATCH, source.dims[1]),
                                     ints(ids.data, 2, BATCH, tokens)};
        float *logits = threads == 1 ? whole : again;
        run(session, "forward", in, is_pair ? 2 : 1, logits, BATCH * tokens);
        ck_assert(e2e_row_distance(logits, (const float *)want.data,
                                   (size_t)(BATCH * tokens * VOCAB), VOCAB) < 1e-4);
        ck_assert(memcmp(whole, logits, (size_t)(BATCH * tokens * VOCAB) * sizeof *whole) == 0);
        // twice, so that what the first request left in the states must not count
        for (int request = 0; request < 2; request++) {
            float last[BATCH * VOCAB];
            if (is_pair)
                run(session, "encode", in, 1, NULL, 0);
            for (int64_t at = 0, n; at < tokens; at += n) {
                n = at == 0 ? 3 - request : at == 3 ? 2 : 1;
                n = n > tokens - at ? tokens - at : n;
                piece(session, &ids, source.dims[1], at, n, last);
                for (int64_t b = 0; b < BATCH; b++)
                    ck_assert_msg(memcmp(last + b * VOCAB, whole + (b * tokens + at + n - 1) * VOCAB,
                                         VOCAB * sizeof *last) == 0,
                                  "%s: token %d has other bits in pieces", families[_i],
                                  (int)(at + n - 1));
            }
        }
        lib.pm_session_destroy(session);
    }
    e2e_close(&lib);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoints");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, agrees, 0, sizeof families / sizeof *families);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
