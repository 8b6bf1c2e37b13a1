/// Language models: the loop that writes text, and perplexity.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/rt_internal.h"

enum { PREFILL_CHUNK = 512, MAX_END_TOKENS = 16 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct writer {
    pm_session *session;
    pm_tokenizer *tokenizer;
    pm_sampler sampler;
    const pm_generate_options *options;
    int prefill, decode;
    int64_t vocab, past;
    float *logits;
    int32_t ends[MAX_END_TOKENS];
    int n_ends;
    char held[8]; ///< bytes of a UTF-8 sequence that is not whole yet
    size_t n_held;
} writer;

/// "2" or "1,2": the tokens that end a text.
static void read_ends(writer *w)
{
    const char *text = pm_model_meta(w->session->model, "eos_token_id");
    while (text && *text && w->n_ends < MAX_END_TOKENS) {
        char *end;
        long id = strtol(text, &end, 10);
        if (end == text)
            return;
        w->ends[w->n_ends++] = (int32_t)id;
        text = *end == ',' ? end + 1 : end;
    }
}

static bool is_end(const writer *w, int32_t token)
{
    for (int i = 0; i < w->n_ends; i++)
        if (w->ends[i] == token)
            return true;
    return false;
}

static pm_status run_tokens(writer *w, int entry, const int64_t *ids, int64_t n)
{
    pm_tensor_arg inputs[] = {
        {.data = (void *)ids, .size = (size_t)n * 8, .rank = 2, .dims = {1, n}},
        {.data = &w->past, .size = 8, .rank = 1, .dims = {1}},
    };
    pm_tensor_arg out = {.data = w->logits, .size = (size_t)w->vocab * sizeof *w->logits};
    PM_TRY(pm_session_run(w->session, entry, inputs, 2, &out, 1));
    w->past += n;
    return PM_OK;
}

/// Bytes at the end of `text` that begin a UTF-8 sequence which is not whole.
static size_t open_end(const char *text, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t c = (uint8_t)text[n - back];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return need > back ? back : 0;
    }
    return 0;
}

static int give_text(writer *w, int32_t token, bool last)
{
    char text[4096 + sizeof w->held];
    size_t size = 0, n = w->n_held;
    const char *bytes = token >= 0 ? pm_tokenizer_text(w->tokenizer, token, &size) : NULL;
    memcpy(text, w->held, n);
    size = size < 4096 ? size : 4096;
    if (bytes)
        memcpy(text + n, bytes, size);
    n += size;
    size_t keep = last ? 0 : open_end(text, n);
    memcpy(w->held, text + n - keep, keep);
    w->n_held = keep;
    return w->options->on_text ? w->options->on_text(w->options->user, text, n - keep, token) : 0;
}

static pm_status write_text(writer *w, const int64_t *prompt, int64_t n, pm_generate_stats *stats)
{
    double start = now();
    for (int64_t at = 0; at < n; at += PREFILL_CHUNK)
        PM_TRY(run_tokens(w, w->prefill, prompt + at, n - at < PREFILL_CHUNK ? n - at : PREFILL_CHUNK));
    double prefilled = now();
    stats->prefill_seconds = prefilled - start;
    stats->prompt_tokens = n;
    for (int64_t i = 0; i < w->options->max_tokens; i++) {
        int32_t token = pm_sampler_next(&w->sampler, w->logits, w->vocab);
        if (is_end(w, token))
            break;
        stats->tokens++;
        int stop = give_text(w, token, false);
        if (stats->tokens == 1)
            stats->first_token_seconds = now() - start;
        if (stop || i + 1 == w->options->max_tokens)
            break;
        if (w->past >= w->session->context) {
            stats->decode_seconds = now() - prefilled;
            (void)give_text(w, -1, true);
            return pm_rt_error_set(PM_ERR_USAGE, "the context of %lld tokens is full", (long long)w->session->context);
        }
        int64_t id = token;
        PM_TRY(run_tokens(w, w->decode, &id, 1));
    }
    stats->decode_seconds = now() - prefilled;
    if (w->n_held)
        (void)give_text(w, -1, true);
    return PM_OK;
}

/// Entries, tokeniser and vocabulary of a language model.
static pm_status open_writer(writer *w, pm_session *session, const pm_generate_options *options)
{
    const pm_model *m = session->model;
    uint64_t size;
    const uint8_t *blob = pm_model_blob(m, "tokenizer", &size);
    *w = (writer){.session = session, .options = options, .prefill = pm_model_entry(m, "prefill"),
                  .decode = pm_model_entry(m, "decode")};
    pm_port_info logits;
    if (!blob || w->prefill < 0 || w->decode < 0 || pm_model_n_inputs(m, w->prefill) != 2 ||
        pm_model_output(m, w->prefill, 0, &logits) != PM_OK || logits.rank != 2 || logits.dims[1] <= 0 ||
        logits.dims[1] > INT32_MAX)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "the model is no language model with a tokeniser");
    w->vocab = logits.dims[1];
    w->logits = malloc((size_t)w->vocab * sizeof *w->logits);
    w->tokenizer = pm_tokenizer_open(blob, size);
    if (!w->logits)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    if (!w->tokenizer)
        return PM_ERR_INVALID;
    read_ends(w);
    return pm_sampler_init(&w->sampler, options, w->vocab);
}

static void close_writer(writer *w)
{
    pm_sampler_deinit(&w->sampler);
    pm_tokenizer_close(w->tokenizer);
    free(w->logits);
}

static int64_t *widen(const int32_t *ids, size_t n)
{
    int64_t *wide = malloc((n + 1) * sizeof *wide);
    for (size_t i = 0; wide && i < n; i++)
        wide[i] = ids[i];
    return wide;
}

pm_status pm_generate(pm_session *session, const char *prompt, size_t size,
                      const pm_generate_options *options, pm_generate_stats *out_stats)
{
    pm_generate_stats stats = {0};
    writer w;
    int32_t *ids = NULL;
    int64_t *wide = NULL;
    size_t n = 0;
    pm_status status = open_writer(&w, session, options);
    if (status == PM_OK)
        status = pm_tokenizer_encode(w.tokenizer, prompt, size, &ids, &n);
    if (status == PM_OK && n == 0)
        status = pm_rt_error_set(PM_ERR_USAGE, "the prompt is empty");
    if (status == PM_OK && (int64_t)n > session->context)
        status = pm_rt_error_set(PM_ERR_USAGE, "the prompt has %zu tokens, the context has room for %lld", n,
                                 (long long)session->context);
    if (status == PM_OK && !(wide = widen(ids, n)))
        status = pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    if (status == PM_OK)
        status = write_text(&w, wide, (int64_t)n, &stats);
    free(ids);
    free(wide);
    close_writer(&w);
    if (out_stats)
        *out_stats = stats;
    return status;
}

/// ---- perplexity -----------------------------------------------------------------------------------------

/// -log p(target) of softmax(logits), in double.
static double negative_log(const float *logits, int64_t vocab, int64_t target)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int64_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - max);
    return log(sum) + max - (double)logits[target];
}

static pm_status score_windows(pm_session *s, int entry, const int64_t *ids, int64_t n, int64_t context,
                               int64_t vocab, pm_perplexity *out)
{
    double sum = 0;
    for (int64_t at = 0; at + context <= n; at += context) {
        pm_tensor_arg in = {.data = (void *)(ids + at), .size = (size_t)context * 8, .rank = 2, .dims = {1, context}};
        pm_tensor_arg logits = {0};
        PM_TRY(pm_session_run(s, entry, &in, 1, &logits, 1));
        for (int64_t i = 0; i + 1 < context; i++)
            sum += negative_log((const float *)logits.data + i * vocab, vocab, ids[at + i + 1]);
        out->windows++;
        out->scored += context - 1;
    }
    if (!out->scored)
        return pm_rt_error_set(PM_ERR_USAGE, "the text has %lld tokens, less than one window of %lld", (long long)n,
                               (long long)context);
    out->mean_nll = sum / (double)out->scored;
    out->perplexity = exp(out->mean_nll);
    return PM_OK;
}

pm_status pm_measure_perplexity(pm_session *session, const char *text, size_t size, int64_t context,
                                pm_perplexity *out)
{
    const pm_model *m = session->model;
    *out = (pm_perplexity){0};
    int entry = pm_model_entry(m, "forward");
    uint64_t blob_size;
    const uint8_t *blob = pm_model_blob(m, "tokenizer", &blob_size);
    pm_port_info logits;
    if (entry < 0 || !blob || pm_model_output(m, entry, 0, &logits) != PM_OK || logits.rank != 3 || logits.dims[2] <= 0)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "the model is no language model with entry forward and a tokeniser");
    if (context < 2)
        return pm_rt_error_set(PM_ERR_USAGE, "a window has at least 2 tokens");
    pm_tokenizer *t = pm_tokenizer_open(blob, blob_size);
    if (!t)
        return PM_ERR_INVALID;
    int32_t *ids = NULL;
    size_t n = 0;
    pm_status status = pm_tokenizer_encode(t, text, size, &ids, &n);
    pm_tokenizer_close(t);
    int64_t *wide = status == PM_OK ? widen(ids, n) : NULL;
    if (status == PM_OK && !wide)
        status = pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    if (status == PM_OK)
        status = score_windows(session, entry, wide, (int64_t)n, context, logits.dims[2], out);
    free(ids);
    free(wide);
    return status;
}
