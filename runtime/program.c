/// The program that pimoec emits: its command line.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/npy.h"
#include "runtime/program_args.h"
#include "runtime/rt_internal.h"

extern const pm_rt_model pm_model_main;

enum { MAX_PORTS = 64 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/// This program's own peak. getrusage would count what the process had mapped before it became this program.
static double peak_megabytes(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    long kilobytes = 0;
    while (status && !kilobytes && fgets(line, sizeof line, status))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kilobytes = strtol(line + 6, NULL, 10);
    if (status)
        fclose(status);
    return (double)kilobytes / 1024;
}

static int failed(pm_status status)
{
    fprintf(stderr, "error: %s\n", pm_last_error());
    return pm_exit_code(status);
}

static void json_string(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    }
    putchar('"');
}

/// ---- describe ---------------------------------------------------------------------------------------------

static void describe_port(const pm_port_info *p, bool json)
{
    if (json) {
        printf("{\"name\": ");
        json_string(p->name);
        printf(", \"type\": \"%s\", \"shape\": [", pm_port_elem_name(p->elem));
    } else {
        printf("    %s: %s[", p->name, pm_port_elem_name(p->elem));
    }
    for (int32_t i = 0; i < p->rank; i++) {
        printf("%s", i ? ", " : "");
        if (p->dims[i] >= 0)
            printf("%" PRId64, p->dims[i]);
        else if (json)
            json_string(p->symbols[i] ? p->symbols[i] : "?");
        else
            printf("%s", p->symbols[i] ? p->symbols[i] : "?");
    }
    printf(json ? "]}" : "]\n");
}

static void describe_ports(const pm_model *m, int entry, bool output, bool json)
{
    pm_port_info p;
    int n = output ? pm_model_n_outputs(m, entry) : pm_model_n_inputs(m, entry);
    for (int i = 0; i < n; i++) {
        pm_status status = output ? pm_model_output(m, entry, i, &p) : pm_model_input(m, entry, i, &p);
        if (status != PM_OK)
            return;
        if (json && i)
            printf(", ");
        describe_port(&p, json);
    }
}

static int describe(const pm_model *m, bool json)
{
    const pm_artifact_manifest *mf = m->manifest;
    uint32_t experts = 0;
    uint64_t expert_bytes = 0, bytes = 0;
    for (uint32_t i = 0; i < mf->sections.n; i++) {
        bytes += m->sections[i].size;
        if (m->sections[i].kind == PM_SECTION_EXPERT) {
            experts++;
            expert_bytes += m->sections[i].size;
        }
    }
    if (json) {
        printf("{\"schema_version\": 1, \"model\": ");
        json_string(pm_model_string(m, mf->name));
        printf(", \"target\": \"%s\", \"bytes\": %" PRIu64 ", \"experts\": %u, \"expert_bytes\": %" PRIu64 ", \"entries\": [",
               pm_model_string(m, mf->target), bytes, experts, expert_bytes);
    } else {
        printf("model %s, compiled for %s\n%" PRIu64 " bytes of weights in %u sections, %u of them experts (%" PRIu64 " bytes)\n",
               pm_model_string(m, mf->name), pm_model_string(m, mf->target), bytes, mf->sections.n, experts, expert_bytes);
    }
    for (int e = 0; pm_model_entry_name(m, e); e++) {
        if (json) {
            printf("%s{\"name\": ", e ? ", " : "");
            json_string(pm_model_entry_name(m, e));
            printf(", \"inputs\": [");
            describe_ports(m, e, false, true);
            printf("], \"outputs\": [");
            describe_ports(m, e, true, true);
            printf("]}");
        } else {
            printf("entry %s\n  in\n", pm_model_entry_name(m, e));
            describe_ports(m, e, false, false);
            printf("  out\n");
            describe_ports(m, e, true, false);
        }
    }
    printf(json ? "], \"symbols\": [" : "symbols\n");
    bool first = true;
    for (uint32_t i = 0; i < mf->symbols.n; i++) {
        const pm_artifact_symbol *s = &m->symbols[i];
        if (s->data_dependent)
            continue;
        if (json)
            printf("%s{\"name\": \"%s\", \"min\": %" PRId64 ", \"max\": %" PRId64 "}", first ? "" : ", ",
                   pm_model_string(m, s->name), s->lo, s->hi);
        else
            printf("  %s: %" PRId64 " to %" PRId64 "\n", pm_model_string(m, s->name), s->lo, s->hi);
        first = false;
    }
    printf(json ? "]}\n" : "");
    return 0;
}

/// ---- tensors ----------------------------------------------------------------------------------------------

static const char *assignment(char *const *list, size_t n, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (strncmp(list[i], name, length) == 0 && list[i][length] == '=')
            return list[i] + length + 1;
    return NULL;
}

static pm_status check_names(const pm_model *m, int entry, bool output, char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pm_port_info p;
        bool known = false;
        int count = output ? pm_model_n_outputs(m, entry) : pm_model_n_inputs(m, entry);
        for (int k = 0; k < count && !known; k++) {
            PM_TRY(output ? pm_model_output(m, entry, k, &p) : pm_model_input(m, entry, k, &p));
            known = strncmp(list[i], p.name, strlen(p.name)) == 0 && list[i][strlen(p.name)] == '=';
        }
        if (!known)
            return pm_rt_error_set(PM_ERR_USAGE, "%s: entry %s has no such %s; --describe lists them", list[i],
                                   pm_model_entry_name(m, entry), output ? "output" : "input");
    }
    return PM_OK;
}

static bool select_entry(const pm_model *m, const char *name, int *out)
{
    *out = name ? pm_model_entry(m, name) : 0;
    if (!name && pm_model_entry(m, "forward") >= 0)
        *out = pm_model_entry(m, "forward");
    return *out >= 0;
}

static void print_element(int32_t elem, const void *data, int64_t i)
{
    double f = pm_program_element(elem, data, i);
    if (elem == PM_I64)
        printf("%" PRId64, ((const int64_t *)data)[i]);
    else if (elem == PM_F64)
        printf("%.17g", f);
    else if (f == f && (f - f) == 0)
        printf("%.9g", f);
    else
        printf(f != f ? "nan" : f > 0 ? "inf" : "-inf");
}

static void print_tensor(const pm_port_info *p, const pm_tensor_arg *t)
{
    int64_t n = 1;
    printf("%s: %s[", p->name, pm_port_elem_name(p->elem));
    for (int32_t i = 0; i < t->rank; i++) {
        printf("%s%" PRId64, i ? ", " : "", t->dims[i]);
        n *= t->dims[i];
    }
    printf("] =");
    for (int64_t i = 0; i < n && i < 1000; i++) {
        putchar(' ');
        print_element(p->elem, t->data, i);
    }
    puts(n > 1000 ? " …" : "");
}

static pm_status write_output(const char *where, const pm_port_info *p, const pm_tensor_arg *t)
{
    if (!where) {
        print_tensor(p, t);
        return PM_OK;
    }
    if (where[0] != '@')
        return pm_rt_error_set(PM_ERR_USAGE, "--out %s=%s: write @FILE.npy", p->name, where);
    size_t size = p->elem_size;
    for (int32_t i = 0; i < t->rank; i++)
        size *= (size_t)t->dims[i];
    char temp[4096];
    snprintf(temp, sizeof temp, "%s.tmp%d", where + 1, (int)getpid());
    FILE *out = fopen(temp, "wbe");
    if (!out)
        return pm_rt_error_set(PM_ERR_IO, "%s: %s", where + 1, strerror(errno));
    pm_status status = pm_npy_write(out, p->elem, t->rank, t->dims, t->data, size);
    if (fclose(out) != 0 || (status == PM_OK && rename(temp, where + 1) != 0))
        status = pm_rt_error_set(PM_ERR_IO, "%s: %s", where + 1, strerror(errno));
    if (status != PM_OK)
        unlink(temp);
    return status;
}

static int run_tensors(const pm_model *m, pm_session *s, const pm_program_args *a)
{
    int entry;
    if (!select_entry(m, a->entry, &entry)) {
        fprintf(stderr, "error: there is no entry %s\n", a->entry);
        return 2;
    }
    pm_tensor_arg inputs[MAX_PORTS], outputs[MAX_PORTS] = {0};
    pm_port_info p;
    int n_in = pm_model_n_inputs(m, entry), n_out = pm_model_n_outputs(m, entry);
    if (n_in > MAX_PORTS || n_out > MAX_PORTS)
        return failed(pm_rt_error_set(PM_ERR_UNSUPPORTED, "the entry has more than %d tensors", MAX_PORTS));
    pm_status status = check_names(m, entry, false, a->in, a->n_in);
    if (status == PM_OK)
        status = check_names(m, entry, true, a->out, a->n_out);
    for (int i = 0; i < n_in && status == PM_OK; i++) {
        status = pm_model_input(m, entry, i, &p);
        const char *text = assignment(a->in, a->n_in, p.name);
        if (status == PM_OK && !text)
            status = pm_rt_error_set(PM_ERR_USAGE, "input %s is missing: --in %s=@FILE.npy", p.name, p.name);
        if (status == PM_OK)
            status = pm_program_tensor(&p, text, a->seed, &inputs[i]);
    }
    if (status == PM_OK)
        status = pm_session_run(s, entry, inputs, n_in, outputs, n_out);
    for (int i = 0; i < n_out && status == PM_OK; i++) {
        status = pm_model_output(m, entry, i, &p);
        if (status == PM_OK)
            status = write_output(assignment(a->out, a->n_out, p.name), &p, &outputs[i]);
    }
    return status == PM_OK ? 0 : failed(status);
}

/// ---- language models --------------------------------------------------------------------------------------

typedef struct shown {
    bool json;
    char *text;
    size_t n, cap;
    int32_t *tokens;
    size_t n_tokens, cap_tokens;
} shown;

static int on_text(void *user, const char *text, size_t size, int32_t token)
{
    shown *s = user;
    if (!s->json) {
        fwrite(text, 1, size, stdout);
        return fflush(stdout) != 0;
    }
    if (s->n + size + 1 > s->cap) {
        s->cap = (s->n + size + 1) * 2;
        char *grown = realloc(s->text, s->cap);
        if (!grown)
            return 1;
        s->text = grown;
    }
    memcpy(s->text + s->n, text, size);
    s->n += size;
    s->text[s->n] = '\0';
    if (token < 0)
        return 0;
    if (s->n_tokens == s->cap_tokens) {
        s->cap_tokens = s->cap_tokens * 2 + 64;
        int32_t *grown = realloc(s->tokens, s->cap_tokens * sizeof *grown);
        if (!grown)
            return 1;
        s->tokens = grown;
    }
    s->tokens[s->n_tokens++] = token;
    return 0;
}

static double rate(int64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static int write_story(pm_session *s, const pm_program_args *a, double process_start)
{
    uint8_t *file = NULL;
    const char *prompt = a->prompt;
    size_t size = strlen(prompt);
    if (strcmp(prompt, "-") == 0) {
        pm_status status = pm_read_file("-", &file, &size);
        if (status != PM_OK)
            return failed(status);
        prompt = (const char *)file;
    }
    shown show = {.json = a->json};
    pm_generate_options o = {.struct_size = sizeof o, .max_tokens = a->n, .temperature = a->temperature,
                             .top_k = a->top_k, .top_p = a->top_p, .seed = a->seed, .on_text = on_text, .user = &show};
    pm_generate_stats stats = {0};
    double before = now();
    pm_status status = pm_generate(s, prompt, size, &o, &stats);
    double first = stats.first_token_seconds + (before - process_start);
    if (status == PM_OK && a->json) {
        printf("{\"schema_version\": 1, \"text\": ");
        json_string(show.text ? show.text : "");
        printf(", \"tokens\": [");
        for (size_t i = 0; i < show.n_tokens; i++)
            printf("%s%d", i ? ", " : "", show.tokens[i]);
        printf("], \"prompt_tokens\": %" PRId64 ", \"prefill_tokens_per_second\": %.1f, \"decode_tokens_per_second\": %.1f, "
               "\"first_token_ms\": %.3f, \"peak_megabytes\": %.1f}\n",
               stats.prompt_tokens, rate(stats.prompt_tokens, stats.prefill_seconds),
               rate(stats.tokens - 1, stats.decode_seconds), first * 1e3, peak_megabytes());
    } else if (status == PM_OK) {
        putchar('\n');
        fflush(stdout); // before the figures, when both go to a terminal
    }
    if (status == PM_OK && a->stats)
        fprintf(stderr, "prefill %" PRId64 " tokens, %.1f tokens/s; decode %" PRId64 " tokens, %.1f tokens/s; first token after %.2f ms; peak %.1f MB\n",
                stats.prompt_tokens, rate(stats.prompt_tokens, stats.prefill_seconds), stats.tokens,
                rate(stats.tokens - 1, stats.decode_seconds), first * 1e3, peak_megabytes());
    free(show.text);
    free(show.tokens);
    free(file);
    return status == PM_OK ? 0 : failed(status);
}

/// Text files of any system: CR LF and CR become LF, as text is read everywhere. Returns the new size.
static size_t plain_newlines(uint8_t *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        bool pair = text[i] == '\r' && i + 1 < size && text[i + 1] == '\n';
        if (!pair)
            text[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    return n;
}

static int perplexity(pm_session *s, const pm_program_args *a)
{
    uint8_t *text;
    size_t size;
    pm_perplexity p;
    pm_status status = pm_read_file(a->perplexity, &text, &size);
    if (status != PM_OK)
        return failed(status);
    size = plain_newlines(text, size);
    status = pm_measure_perplexity(s, (const char *)text, size, a->context ? a->context : 256, &p);
    free(text);
    if (status != PM_OK)
        return failed(status);
    if (a->json)
        printf("{\"schema_version\": 1, \"perplexity\": %.12g, \"mean_nll\": %.12g, \"windows\": %" PRId64 ", \"scored_tokens\": %" PRId64 ", \"context\": %" PRId64 "}\n",
               p.perplexity, p.mean_nll, p.windows, p.scored, a->context ? a->context : (int64_t)256);
    else
        printf("perplexity %.6f (%" PRId64 " tokens scored in %" PRId64 " windows)\n", p.perplexity, p.scored, p.windows);
    return 0;
}

/// ---- bench and selftest -----------------------------------------------------------------------------------

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/// Inputs as --in gives them; the others of random content, their symbols given by --shape (default: their least).
static pm_status random_inputs(const pm_model *m, int entry, const pm_program_args *a, pm_tensor_arg *inputs)
{
    pm_port_info p;
    for (int i = 0; i < pm_model_n_inputs(m, entry); i++) {
        char text[256];
        int n = snprintf(text, sizeof text, "random:");
        PM_TRY(pm_model_input(m, entry, i, &p));
        const char *own = assignment(a->in, a->n_in, p.name);
        if (own) {
            PM_TRY(pm_program_tensor(&p, own, a->seed, &inputs[i]));
            continue;
        }
        for (int32_t k = 0; k < p.rank && n < 200; k++) {
            int64_t dim = p.dims[k];
            const char *given = p.symbols[k] ? assignment(a->shape, a->n_shape, p.symbols[k]) : NULL;
            for (uint32_t s = 0; dim < 0 && s < m->manifest->symbols.n; s++)
                if (p.symbols[k] && strcmp(pm_model_string(m, m->symbols[s].name), p.symbols[k]) == 0)
                    dim = m->symbols[s].lo > 0 ? m->symbols[s].lo : 1;
            if (given)
                dim = strtoll(given, NULL, 10);
            n += snprintf(text + n, sizeof text - (size_t)n, "%s%" PRId64, k ? "x" : "", dim < 0 ? 1 : dim);
        }
        bool zero = strcmp(p.name, "past") == 0; // a key-value cache that is empty
        PM_TRY(pm_program_tensor(&p, text, a->seed, &inputs[i]));
        if (zero)
            memset(inputs[i].data, 0, inputs[i].size);
    }
    return PM_OK;
}

static int bench(const pm_model *m, pm_session *s, const pm_program_args *a)
{
    int entry;
    if (!select_entry(m, a->entry, &entry)) {
        fprintf(stderr, "error: there is no entry %s\n", a->entry);
        return 2;
    }
    pm_tensor_arg inputs[MAX_PORTS], outputs[MAX_PORTS];
    int n_in = pm_model_n_inputs(m, entry), n_out = pm_model_n_outputs(m, entry);
    if (n_in > MAX_PORTS || n_out > MAX_PORTS)
        return failed(pm_rt_error_set(PM_ERR_UNSUPPORTED, "the entry has more than %d tensors", MAX_PORTS));
    int repeat = a->repeat > 0 ? a->repeat : 20;
    double *times = malloc((size_t)repeat * sizeof *times);
    pm_status status = times ? check_names(m, entry, false, a->in, a->n_in) : PM_ERR_NO_MEMORY;
    if (status == PM_OK)
        status = random_inputs(m, entry, a, inputs);
    for (int i = -1; i < repeat && status == PM_OK; i++) {
        memset(outputs, 0, sizeof outputs);
        double start = now();
        status = pm_session_run(s, entry, inputs, n_in, outputs, n_out);
        if (i >= 0)
            times[i] = now() - start;
    }
    if (status != PM_OK) {
        free(times);
        return failed(status);
    }
    qsort(times, (size_t)repeat, sizeof *times, by_value);
    double min = times[0] * 1e3, median = times[repeat / 2] * 1e3, max = times[repeat - 1] * 1e3;
    bool tokens = n_in > 0 && inputs[0].rank == 2 && pm_model_entry(m, "decode") >= 0;
    double per_second = tokens ? (double)(inputs[0].dims[0] * inputs[0].dims[1]) / (median * 1e-3) : 0;
    if (a->json)
        printf("{\"schema_version\": 1, \"entry\": \"%s\", \"repeat\": %d, \"min_ms\": %.4f, \"median_ms\": %.4f, \"max_ms\": %.4f, \"tokens_per_second\": %.1f, \"peak_megabytes\": %.1f}\n",
               pm_model_entry_name(m, entry), repeat, min, median, max, per_second, peak_megabytes());
    else {
        printf("%s: min %.3f ms, median %.3f, max %.3f", pm_model_entry_name(m, entry), min, median, max);
        if (tokens)
            printf("; %.0f tokens/s", per_second);
        printf("; peak %.1f MB\n", peak_megabytes());
    }
    free(times);
    return 0;
}

/// Every section's hash, then every entry on random inputs with one worker and with all: equal bits.
static int selftest(const pm_model *m, pm_session *s, const pm_program_args *a)
{
    pm_session *one;
    pm_session_options o = {.struct_size = sizeof o, .threads = 1};
    pm_model *checked;
    pm_status status = pm_model_open(&pm_model_main, &(pm_model_options){.struct_size = sizeof(pm_model_options), .verify = 1}, &checked);
    if (status != PM_OK)
        return failed(status);
    pm_model_close(checked);
    printf("%u sections are as they were written\n", m->manifest->sections.n);
    status = pm_session_create((pm_model *)m, &o, &one);
    for (int e = 0; status == PM_OK && pm_model_entry_name(m, e); e++) {
        pm_tensor_arg inputs[MAX_PORTS], x[MAX_PORTS] = {0}, y[MAX_PORTS] = {0};
        int n_in = pm_model_n_inputs(m, e), n_out = pm_model_n_outputs(m, e);
        if (n_in > MAX_PORTS || n_out > MAX_PORTS)
            continue;
        status = random_inputs(m, e, a, inputs);
        if (status == PM_OK)
            status = pm_session_run(one, e, inputs, n_in, x, n_out);
        if (status == PM_OK)
            status = pm_session_run(s, e, inputs, n_in, y, n_out);
        for (int i = 0; i < n_out && status == PM_OK; i++)
            if (x[i].size != y[i].size || memcmp(x[i].data, y[i].data, x[i].size) != 0)
                status = pm_rt_error_set(PM_ERR_INTERNAL, "entry %s: one worker and several differ", pm_model_entry_name(m, e));
        if (status == PM_OK)
            printf("entry %s: the same bits with 1 worker and with %d\n", pm_model_entry_name(m, e), pm_pool_size(s->pool));
    }
    pm_session_destroy(one);
    return status == PM_OK ? 0 : failed(status);
}

int main(int argc, char **argv)
{
    double start = now();
    pm_program_args args;
    int code = pm_program_parse(argc, argv, &args);
    if (code >= 0)
        return code;
    pm_model *model;
    pm_session *session;
    pm_status status = pm_model_open(&pm_model_main, NULL, &model);
    if (status != PM_OK)
        return failed(status);
    if (args.describe)
        return describe(model, args.json);
    pm_session_options o = {.struct_size = sizeof o, .threads = args.threads, .max_batch = args.batch};
    status = pm_session_create(model, &o, &session);
    if (status != PM_OK)
        return failed(status);
    if (args.bench)
        code = bench(model, session, &args);
    else if (args.selftest)
        code = selftest(model, session, &args);
    else if (args.perplexity)
        code = perplexity(session, &args);
    else if (args.prompt)
        code = write_story(session, &args, start);
    else
        code = run_tensors(model, session, &args);
    pm_session_destroy(session);
    pm_model_close(model);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "error: standard output: %s\n", strerror(errno));
        return 3;
    }
    return code;
}
