/// What a reference says beside the outputs of one run: the experts that were chosen, and what greedy decoding
/// goes on with.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/elem.h"
#include "tools/pimoe/check_runner.h"

/// ---- chosen experts ---------------------------------------------------------------------------------------

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

pm_status pm_runner_compare_chosen(runner *r, size_t number, const char *name, const pm_npy *want,
                                   const pm_tensor_arg *got)
{
    int64_t rows = got->dims[0], k = got->dims[1], *chosen = calloc((size_t)(rows * k) + 1, sizeof *chosen);
    if (!chosen)
        return pm_runner_fail(r, PM_ERR_NO_MEMORY, "out of memory");
    for (int64_t i = 0; i < rows * k; i++)
        chosen[i] = ((const int32_t *)got->data)[i];
    for (int64_t row = 0; row < rows; row++)
        qsort(chosen + row * k, (size_t)k, sizeof *chosen, by_number);
    pm_tensor_arg sorted = {.data = chosen, .size = (size_t)(rows * k) * sizeof *chosen, .rank = 2, .dims = {rows, k}};
    pm_runner_compare(r, number, name, want, PM_I64, &sorted);
    free(chosen);
    return PM_OK;
}

/// ---- greedy decoding --------------------------------------------------------------------------------------

typedef struct generation {
    runner *r;
    const check_case *c;
    pm_session *session;
    char port[CHECK_NAME]; ///< that takes tokens
    int64_t batch, prompt, n, vocab;
    int64_t *ids;          ///< [batch][prompt + n]
    int64_t *piece, *past; ///< what an entry gets
    int64_t *source;       ///< tokens of the encoder, per sequence
    float *logits;         ///< [batch][n][vocab]
} generation;

/// The name of the entry's input of this rank; false when it hasn't just one.
static bool find_port(const runner *r, int entry, int32_t rank, char *out_name)
{
    pm_port_info port;
    int n = 0;
    for (int i = 0; i < r->api.n_inputs(r->model, entry); i++)
        if (r->api.input(r->model, entry, i, &port) == PM_OK && port.elem == PM_I64 && port.rank == rank) {
            snprintf(out_name, CHECK_NAME, "%s", port.name);
            n++;
        }
    return n == 1;
}

/// Runs an entry on tokens from..from + n of each sequence; other inputs are the case's.
static pm_status run_entry(generation *g, int entry, int64_t from, int64_t n, pm_tensor_arg *outputs)
{
    runner *r = g->r;
    pm_port_info port;
    pm_tensor_arg inputs[4] = {0};
    int n_inputs = r->api.n_inputs(r->model, entry);
    if (n_inputs > 4 || r->api.n_outputs(r->model, entry) > CHECK_MAX_PORTS)
        return pm_runner_fail(r, PM_ERR_UNSUPPORTED, "entry %s has too many tensors", r->api.entry_name(r->model, entry));
    memset(outputs, 0, CHECK_MAX_PORTS * sizeof *outputs);
    for (int64_t b = 0; b < g->batch; b++) {
        g->past[b] = from;
        memcpy(g->piece + b * n, g->ids + b * (g->prompt + g->n) + from, (size_t)n * sizeof *g->piece);
    }
    for (int i = 0; i < n_inputs; i++) {
        PM_TRY(r->api.input(r->model, entry, i, &port));
        const pm_npy *array = pm_runner_find(g->c->in, port.name, g->c->suffix);
        if (strcmp(port.name, g->port) == 0)
            inputs[i] = (pm_tensor_arg){.data = g->piece, .size = (size_t)(g->batch * n) * 8, .rank = 2,
                                        .dims = {g->batch, n}};
        else if (strcmp(port.name, "past") == 0)
            inputs[i] = (pm_tensor_arg){.data = g->past, .size = (size_t)g->batch * 8, .rank = 1, .dims = {g->batch}};
        else if (strcmp(port.name, "source") == 0)
            inputs[i] = (pm_tensor_arg){.data = g->source, .size = (size_t)g->batch * 8, .rank = 1, .dims = {g->batch}};
        else if (array)
            PM_TRY(pm_runner_take_input(r, &port, array, &inputs[i]));
        else
            return pm_runner_fail(r, PM_ERR_USAGE, "%s has no array '%s' for the entry %s", g->c->in->path, port.name,
                                  r->api.entry_name(r->model, entry));
    }
    pm_runner_doing(r, "running entry %s on tokens %" PRId64 " to %" PRId64, r->api.entry_name(r->model, entry), from,
                    from + n - 1);
    pm_status status = r->api.session_run(g->session, entry, inputs, n_inputs, outputs,
                                          r->api.n_outputs(r->model, entry));
    return status == PM_OK ? PM_OK : pm_runner_fail(r, status, "%s", r->api.last_error());
}

/// Takes the logits [batch, vocab] of step `at`, and the best token of each.
static pm_status take_step(generation *g, int64_t at, const pm_tensor_arg *logits)
{
    if (logits->rank != 2 || logits->dims[0] != g->batch)
        return pm_runner_fail(g->r, PM_ERR_UNSUPPORTED, "prefill and decode must give logits [batch, vocabulary]");
    if (at == 0) {
        g->vocab = logits->dims[1];
        g->logits = calloc((size_t)(g->batch * g->n * g->vocab) + 1, sizeof *g->logits);
    }
    if (!g->logits || logits->dims[1] != g->vocab)
        return pm_runner_fail(g->r, PM_ERR_NO_MEMORY, "out of memory");
    for (int64_t b = 0; b < g->batch; b++) {
        const float *row = (const float *)logits->data + b * g->vocab;
        int64_t best = 0;
        for (int64_t i = 1; i < g->vocab; i++)
            best = row[i] > row[best] ? i : best;
        g->ids[b * (g->prompt + g->n) + g->prompt + at] = best;
        memcpy(g->logits + (b * g->n + at) * g->vocab, row, (size_t)g->vocab * sizeof *row);
    }
    return PM_OK;
}

/// The entries' logits against those of `forward` on the sequence that came out.
static pm_status compare_with_forward(generation *g, size_t number, pm_tensor_arg *outputs)
{
    runner *r = g->r;
    pm_port_info port;
    int which = -1;
    for (int i = 0; i < r->api.n_outputs(r->model, r->entry); i++)
        if (r->api.output(r->model, r->entry, i, &port) == PM_OK && strcmp(port.name, "logits") == 0)
            which = i;
    if (which < 0)
        return PM_OK;
    PM_TRY(run_entry(g, r->entry, 0, g->prompt + g->n - 1, outputs));
    const pm_tensor_arg *all = &outputs[which];
    int64_t length = g->prompt + g->n - 1;
    if (all->rank != 3 || all->dims[1] != length || all->dims[2] != g->vocab)
        return pm_runner_fail(r, PM_ERR_UNSUPPORTED, "forward gives logits of another shape");
    size_t size = (size_t)(g->batch * g->n * g->vocab) * sizeof(float);
    float *want = malloc(size + 1);
    if (!want)
        return pm_runner_fail(r, PM_ERR_NO_MEMORY, "out of memory");
    for (int64_t b = 0; b < g->batch; b++)
        memcpy(want + b * g->n * g->vocab,
               (const float *)all->data + (b * length + g->prompt - 1) * g->vocab,
               (size_t)(g->n * g->vocab) * sizeof *want);
    pm_tensor_arg got = {.data = g->logits, .size = size, .rank = 3, .dims = {g->batch, g->n, g->vocab}};
    pm_npy expected = {.elem = PM_F32, .rank = 3, .data = (const uint8_t *)want, .size = size};
    memcpy(expected.dims, got.dims, sizeof got.dims);
    pm_runner_compare(r, number, "prefill_and_decode", &expected, PM_F32, &got);
    free(want);
    return PM_OK;
}

static pm_status decode_all(generation *g, size_t number, const pm_npy *greedy, pm_tensor_arg *outputs)
{
    runner *r = g->r;
    int encode = r->api.entry(r->model, "encode");
    pm_session_options o = {.struct_size = sizeof o, .threads = r->run->threads, .max_batch = g->batch};
    pm_status status = r->api.session_create(r->model, &o, &g->session);
    if (status != PM_OK)
        return pm_runner_fail(r, status, "%s", r->api.last_error());
    if (encode >= 0) {
        char port[CHECK_NAME];
        memcpy(port, g->port, sizeof port);
        g->port[0] = '\0'; // the encoder's tokens are the case's
        PM_TRY(run_entry(g, encode, 0, 1, outputs));
        memcpy(g->port, port, sizeof port);
    }
    PM_TRY(run_entry(g, r->api.entry(r->model, "prefill"), 0, g->prompt, outputs));
    PM_TRY(take_step(g, 0, &outputs[0]));
    for (int64_t i = 1; i < g->n; i++) {
        PM_TRY(run_entry(g, r->api.entry(r->model, "decode"), g->prompt + i - 1, 1, outputs));
        PM_TRY(take_step(g, i, &outputs[0]));
    }
    for (int64_t b = 0; b < g->batch; b++)
        memcpy(g->piece + b * g->n, g->ids + b * (g->prompt + g->n) + g->prompt, (size_t)g->n * sizeof *g->ids);
    pm_tensor_arg got = {.data = g->piece, .size = (size_t)(g->batch * g->n) * 8, .rank = 2, .dims = {g->batch, g->n}};
    pm_runner_compare(r, number, "greedy", greedy, PM_I64, &got);
    // beside an encoder there may be experts that take so many rows of those that come at once
    return encode >= 0 ? PM_OK : compare_with_forward(g, number, outputs);
}

pm_status pm_runner_generate(runner *r, size_t number)
{
    const check_case *c = &r->run->cases[number];
    const pm_npy *greedy = pm_runner_find(c->want, "greedy", c->suffix), *ids;
    const pm_npy *cached = pm_runner_find(c->want, "greedy_cached", c->suffix); // where it isn't the same
    generation g = {.r = r, .c = c};
    int decode = r->api.entry(r->model, "decode");
    greedy = cached ? cached : greedy;
    if (!greedy || greedy->rank != 2 || greedy->elem != PM_I64 || decode < 0 ||
        r->api.entry(r->model, "prefill") < 0 || !find_port(r, decode, 2, g.port))
        return PM_OK;
    ids = pm_runner_find(c->in, g.port, c->suffix);
    if (!ids || ids->rank != 2 || ids->elem != PM_I64 || ids->dims[0] != greedy->dims[0] || greedy->dims[1] < 1)
        return PM_OK;
    g.batch = ids->dims[0];
    g.n = greedy->dims[1];
    bool is_pair = r->api.entry(r->model, "encode") >= 0;
    if (is_pair && r->run->start_token < 0)
        return PM_OK;
    g.prompt = is_pair ? 1 : ids->dims[1];
    size_t length = (size_t)(g.batch * (g.prompt + g.n)) + 1;
    g.ids = calloc(length, sizeof *g.ids);
    g.piece = calloc(length, sizeof *g.piece);
    g.past = calloc((size_t)g.batch + 1, sizeof *g.past);
    g.source = calloc((size_t)g.batch + 1, sizeof *g.source);
    const pm_npy *source = pm_runner_find(c->in, "input_ids", c->suffix);
    pm_tensor_arg *outputs = calloc(CHECK_MAX_PORTS, sizeof *outputs);
    pm_status status = PM_ERR_NO_MEMORY;
    if (g.ids && g.piece && g.past && g.source && outputs) {
        for (int64_t b = 0; b < g.batch; b++) {
            g.source[b] = source && source->rank == 2 ? source->dims[1] : 0;
            if (is_pair)
                g.ids[b * (g.prompt + g.n)] = r->run->start_token;
            else
                memcpy(g.ids + b * (g.prompt + g.n), (const int64_t *)ids->data + b * ids->dims[1],
                       (size_t)g.prompt * sizeof *g.ids);
        }
        status = decode_all(&g, number, greedy, outputs);
    }
    free(g.ids);
    free(g.piece);
    free(g.past);
    free(g.source);
    free(g.logits);
    free(outputs);
    return status;
}
