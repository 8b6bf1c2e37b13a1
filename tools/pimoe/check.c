/// pimoe check: compile a model, run it, compare.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "ir/op_table.h"
#include "tools/cli/bug_report.h"
#include "tools/cli/progress.h"
#include "tools/driver/driver.h"
#include "tools/pimoe/check_run.h"
#include "tools/pimoe/child_process.h"
#include "tools/pimoe/commands.h"

enum { MAX_LAYERS = 4096 };

/// What the compiling child leaves in shared memory; its messages go to a file in memory.
typedef struct compile_report {
    pm_status status;
    pm_compile_result result;
    int64_t layer_experts[MAX_LAYERS];
    int64_t start_token; ///< of a decoder beside an encoder; -1: none is known
    char step[64];
} compile_report;

typedef struct checker {
    pm_arena *arena;
    pm_diag *diag;
    const pm_cli_args *args;
    const char *model;
    pm_model_kind kind;
    pm_compile_options options;
    check_run run;
    compile_report *compiled;
    int messages; ///< file in memory
    pm_progress *progress;
    bool json;
    double timeout;
    // the error, where there is one
    const char *code, *message, *location;
} checker;

typedef PM_VEC(const char *) names;

/// ---- which arrays -----------------------------------------------------------------------------------------

static pm_status add_case(checker *k, const pm_npz *in, const pm_npz *want, const char *suffix)
{
    if (k->run.n_cases == CHECK_MAX_CASES)
        return pm_error(k->diag, NULL, PM_ERR_USAGE, "more than %d cases", CHECK_MAX_CASES);
    k->run.cases[k->run.n_cases++] = (check_case){in, want, suffix};
    return PM_OK;
}

static bool has_suffix(const pm_npz *npz, const char *suffix)
{
    for (size_t i = 0; i < npz->arrays.n; i++) {
        size_t n = strlen(npz->arrays.data[i].name), s = strlen(suffix);
        char base[256];
        if (n <= s || strcmp(npz->arrays.data[i].name + n - s, suffix) != 0)
            continue;
        snprintf(base, sizeof base, "%.*s", (int)(n - s), npz->arrays.data[i].name);
        if (pm_npz_find(npz, base))
            return true; // x and x_b: a second case
    }
    return false;
}

/// A pair of files: a case, and one more for each suffix _b to _h that both have.
static pm_status add_pair(checker *k, const char *in_path, const char *want_path)
{
    pm_npz *in = PM_NEW(k->arena, pm_npz), *want = in;
    PM_TRY(pm_npz_open(k->arena, k->diag, in_path, in));
    if (strcmp(in_path, want_path) != 0) {
        want = PM_NEW(k->arena, pm_npz);
        PM_TRY(pm_npz_open(k->arena, k->diag, want_path, want));
    }
    PM_TRY(add_case(k, in, want, ""));
    for (char c = 'b'; c <= 'h'; c++) {
        const char *suffix = pm_arena_printf(k->arena, "_%c", c);
        if (has_suffix(in, suffix) && has_suffix(want, suffix))
            PM_TRY(add_case(k, in, want, suffix));
    }
    return PM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/// Pairs inputs*.npz with reference*.npz or expected*.npz in the folder, else reference.npz with itself.
static pm_status find_pairs(checker *k)
{
    const char *folder = k->kind == PM_MODEL_CHECKPOINT ? k->model : pm_path_dir(k->arena, k->model);
    names inputs = {0};
    DIR *dir = opendir(folder);
    if (!dir)
        return pm_error(k->diag, NULL, PM_ERR_IO, "%s: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n > 10 && strncmp(e->d_name, "inputs", 6) == 0 && strcmp(e->d_name + n - 4, ".npz") == 0)
            PM_PUSH(k->arena, &inputs, pm_arena_strdup(k->arena, e->d_name));
        else if (strcmp(e->d_name, "inputs.npz") == 0)
            PM_PUSH(k->arena, &inputs, "inputs.npz");
    }
    closedir(dir);
    if (inputs.n)
        qsort(inputs.data, inputs.n, sizeof *inputs.data, by_name);
    for (size_t i = 0; i < inputs.n; i++) {
        static const char *const kinds[] = {"reference", "expected"};
        for (size_t j = 0; j < PM_COUNT(kinds); j++) {
            const char *want = pm_arena_printf(k->arena, "%s/%s%s", folder, kinds[j], inputs.data[i] + 6);
            if (access(want, R_OK) != 0)
                continue;
            PM_TRY(add_pair(k, pm_path_join(k->arena, folder, inputs.data[i]), want));
            break;
        }
    }
    const char *reference = pm_path_join(k->arena, folder, "reference.npz");
    if (k->run.n_cases == 0 && inputs.n == 0 && access(reference, R_OK) == 0)
        PM_TRY(add_pair(k, reference, reference));
    if (k->run.n_cases == 0)
        return pm_error(k->diag, NULL, PM_ERR_USAGE,
                        "nothing to compare with: %s has no inputs.npz with expected.npz, and no reference.npz; "
                        "name files with --in and --want", folder);
    return PM_OK;
}

static pm_status find_cases(checker *k)
{
    names in = {0}, want = {0};
    for (size_t i = 0; i < k->args->n_given; i++) {
        if (k->args->given[i].option == CHECK_IN)
            PM_PUSH(k->arena, &in, k->args->given[i].value);
        else if (k->args->given[i].option == CHECK_WANT)
            PM_PUSH(k->arena, &want, k->args->given[i].value);
    }
    if (in.n != want.n)
        return pm_error(k->diag, NULL, PM_ERR_USAGE, "--in and --want go together: %zu and %zu were given", in.n, want.n);
    for (size_t i = 0; i < in.n; i++)
        PM_TRY(add_pair(k, in.data[i], want.data[i]));
    // a checkpoint's reference may hold more than the entry gives
    k->run.strict = k->kind != PM_MODEL_CHECKPOINT;
    return in.n ? PM_OK : find_pairs(k);
}

/// ---- compiling --------------------------------------------------------------------------------------------

static void note_module(void *user, const pm_driver *d)
{
    compile_report *report = user;
    for (size_t i = 0; i < d->summary->layers.n && i < MAX_LAYERS; i++)
        report->layer_experts[i] = d->summary->layers.data[i].n_experts;
}

/// Makes the experts that each layer chooses outputs of `forward`, by the layer's number. Remembers what decoding
/// begins with.
static void show_choices(void *user, pm_module *m)
{
    compile_report *report = user;
    const char *start = pm_map_get_str(&m->meta, "decoder_start_token_id");
    pm_graph *g = NULL;
    report->start_token = start ? strtoll(start, NULL, 10) : -1;
    pm_op *route = NULL;
    for (size_t i = 0; i < m->entries.n; i++)
        g = strcmp(m->entries.data[i]->name, "forward") == 0 ? m->entries.data[i] : g;
    for (pm_op *op = g ? g->first : NULL; op; op = op->next) {
        if (op->code == PM_OP_route)
            route = op;
        if (op->code != PM_OP_experts || !route)
            continue;
        const char *name = pm_op_str(op, "name"), *dot = strrchr(name, '.');
        pm_graph_add_result(g, pm_arena_printf(m->arena, CHECK_ROUTER "%s", dot ? dot + 1 : name), route->results[0], -1);
        route = NULL;
    }
}

static bool expects(const checker *k, const char *name)
{
    for (size_t i = 0; i < k->run.n_cases; i++)
        if (pm_npz_find(k->run.cases[i].want, name))
            return true;
    return false;
}

static void note_step(void *user, const char *step, int number, int n_steps)
{
    (void)number;
    (void)n_steps;
    compile_report *report = user;
    snprintf(report->step, sizeof report->step, "%s", step);
}

static int compile_in_child(void *arg)
{
    checker *k = arg;
    FILE *messages = k->json ? fdopen(dup(k->messages), "w") : stderr;
    k->compiled->status = PM_ERR_INTERNAL;
    if (!messages)
        return 1;
    k->options.on_step = note_step;
    k->options.user = k->compiled;
    const pm_compile_watch watch = {
        .on_load = k->kind == PM_MODEL_CHECKPOINT && !k->options.entry ? show_choices : NULL,
        .on_front = note_module,
        .user = k->compiled};
    k->compiled->status = pm_compile_seen(k->model, k->run.library, &k->options, messages, k->json,
                                          &k->compiled->result, &watch);
    fflush(messages);
    if (k->compiled->status == PM_ERR_INTERNAL)
        pm_bug_report_write("an internal error");
    return 0;
}

/// Sets the error from a sink that failed in this process.
static pm_status take_diag(checker *k, pm_status status)
{
    k->code = pm_status_name(status);
    for (size_t i = 0; i < pm_diag_size(k->diag) && !k->message; i++) {
        const pm_diag_entry *e = pm_diag_at(k->diag, i);
        if (e->severity != PM_ERROR)
            continue;
        k->message = e->text;
        k->location = e->loc ? pm_loc_text(k->arena, e->loc) : NULL;
    }
    if (!k->json)
        pm_command_failed(k->diag, status);
    return status;
}

/// What the child said, as JSON; NULL when it said nothing.
static const char *messages_of(const checker *k, size_t *out_size)
{
    off_t size = k->messages >= 0 ? lseek(k->messages, 0, SEEK_END) : 0;
    char *text = PM_NEW_ARRAY(k->arena, char, size > 0 ? (size_t)size + 1 : 1);
    *out_size = size > 0 && pread(k->messages, text, (size_t)size, 0) == size ? (size_t)size : 0;
    return text;
}

/// Sets the error from the child's first message.
static void take_messages(checker *k)
{
    size_t size;
    const char *text = messages_of(k, &size);
    const pm_json *list = NULL;
    pm_diag *ignored = pm_diag_create(k->arena);
    if (size == 0 || pm_json_parse(k->arena, ignored, "messages", text, size, &list) != PM_OK)
        return;
    for (size_t i = 0; i < list->n; i++) {
        const pm_json *severity = pm_json_get(&list->items[i], "severity");
        if (!severity || severity->kind != PM_JSON_STRING || strcmp(severity->string, "error") != 0)
            continue;
        const pm_json *message = pm_json_get(&list->items[i], "message"), *code = pm_json_get(&list->items[i], "code"),
                      *location = pm_json_get(&list->items[i], "location");
        k->message = message ? message->string : NULL;
        k->code = code && code->kind == PM_JSON_STRING ? code->string : k->code;
        k->location = location && location->kind == PM_JSON_STRING ? location->string : NULL;
        return;
    }
}

/// An end that is no result: by a signal, by time, or without a word. PM_OK when it was none of these.
static pm_status judge_end(checker *k, const pm_child_end *end, const char *who, const char *doing)
{
    if (end->timed_out) {
        k->code = "timeout";
        k->message = pm_arena_printf(k->arena, "%s took longer than %g s, while %s", who, k->timeout, doing);
        return PM_ERR_UNSUPPORTED;
    }
    if (end->signal) {
        k->code = "crash";
        k->message = pm_arena_printf(k->arena, "%s was ended by signal %d (%s), while %s%s", who, end->signal,
                                     strsignal(end->signal), doing,
                                     end->signal == SIGKILL ? "; was there too little memory?" : "");
        return PM_ERR_INTERNAL;
    }
    if (end->exit_code != 0) {
        k->code = "crash";
        k->message = pm_arena_printf(k->arena, "%s ended with code %d, while %s", who, end->exit_code, doing);
        return PM_ERR_INTERNAL;
    }
    return PM_OK;
}

static void complain(const checker *k)
{
    if (!k->json && k->message)
        fprintf(stderr, "error: %s\n", k->message);
}

static pm_status compile(checker *k)
{
    pm_child_end end;
    char *folder;
    PM_TRY(pm_temp_folder(k->arena, k->diag, &folder));
    k->run.library = pm_path_join(k->arena, folder, "checked.so");
    k->run.symbol = "checked";
    k->options.emit = PM_EMIT_SHARED;
    k->options.verify_each = 1; // a check is for what is wrong with us, too
    k->options.symbol = k->run.symbol;
    k->options.entry = k->run.entry;
    if (k->kind == PM_MODEL_CHECKPOINT && !k->options.entry && !expects(k, "greedy"))
        k->options.entry = "forward";
    PM_TRY(pm_shared_memory(k->arena, k->diag, sizeof *k->compiled, (void **)&k->compiled));
    k->messages = memfd_create("messages", MFD_CLOEXEC);
    if (k->messages < 0)
        return pm_error(k->diag, NULL, PM_ERR_IO, "memfd_create: %s", strerror(errno));
    pm_bug_report_model(k->model);
    return pm_child_run(k->diag, compile_in_child, k, k->timeout, &end) != PM_OK ? PM_ERR_IO
         : judge_end(k, &end, "the compiler", k->compiled->step[0] ? k->compiled->step : "starting");
}

/// ---- results ----------------------------------------------------------------------------------------------

/// The worst of a tensor over all cases; `name` NULL: of all tensors.
static void worst(const check_run_report *r, const char *name, double *out_abs, double *out_rel)
{
    *out_abs = *out_rel = 0;
    for (size_t i = 0; i < r->n_results; i++) {
        const check_result *x = &r->results[i];
        if (name && strcmp(x->name, name) != 0)
            continue;
        *out_abs = x->c.max_abs > *out_abs ? x->c.max_abs : *out_abs;
        *out_rel = x->c.max_rel > *out_rel ? x->c.max_rel : *out_rel;
    }
}

static bool passed(const check_run_report *r, const char *name)
{
    for (size_t i = 0; i < r->n_results; i++)
        if ((!name || strcmp(r->results[i].name, name) == 0) && !r->results[i].c.pass)
            return false;
    return r->n_results > 0;
}

static void shape_json(pm_json_out *w, const char *key, int32_t rank, const int64_t *dims)
{
    pm_jo_array(w, key);
    for (int32_t i = 0; i < rank; i++)
        pm_jo_int(w, NULL, dims[i]);
    pm_jo_end(w);
}

static const char *case_name(checker *k, int number)
{
    const check_case *c = &k->run.cases[number];
    return pm_arena_printf(k->arena, "%s%s", c->in->path, *c->suffix ? pm_arena_printf(k->arena, " (*%s)", c->suffix) : "");
}

static void result_json(checker *k, pm_json_out *w, const check_result *x)
{
    pm_jo_object(w, NULL);
    pm_jo_text(w, "case", case_name(k, x->number));
    pm_jo_bool(w, "pass", x->c.pass);
    pm_jo_text(w, "type", pm_elem_name((pm_elem)x->c.elem));
    shape_json(w, "shape", x->c.rank, x->c.dims);
    if (x->c.other_type)
        pm_jo_text(w, "expected_type", pm_elem_name((pm_elem)x->c.want_elem));
    if (x->c.other_shape)
        shape_json(w, "expected_shape", x->c.want_rank, x->c.want_dims);
    pm_jo_number(w, "max_abs_diff", x->c.max_abs);
    pm_jo_number(w, "max_rel_diff", x->c.max_rel);
    pm_jo_number(w, "rtol", x->tolerance.rtol);
    pm_jo_number(w, "atol", x->tolerance.atol);
    pm_jo_int(w, "elements", x->c.n);
    pm_jo_int(w, "differing", x->c.n_bad);
    if (!x->c.other_shape && !x->c.other_type && x->c.n > 0) {
        pm_jo_int(w, "worst_element", x->c.worst);
        pm_jo_number(w, "got", x->c.got);
        pm_jo_number(w, "want", x->c.want);
    }
    pm_jo_end(w);
}

static bool seen_before(const check_run_report *r, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(r->results[j].name, r->results[i].name) == 0)
            return true;
    return false;
}

static void outputs_json(checker *k, pm_json_out *w, const check_run_report *r)
{
    double abs_diff, rel_diff;
    pm_jo_object(w, "outputs");
    for (size_t i = 0; r && i < r->n_results; i++) {
        const char *name = r->results[i].name;
        if (seen_before(r, i))
            continue;
        worst(r, name, &abs_diff, &rel_diff);
        pm_jo_object(w, name);
        pm_jo_bool(w, "pass", passed(r, name));
        pm_jo_number(w, "max_abs_diff", abs_diff);
        pm_jo_number(w, "max_rel_diff", rel_diff);
        pm_jo_array(w, "cases");
        for (size_t j = i; j < r->n_results; j++)
            if (strcmp(r->results[j].name, name) == 0)
                result_json(k, w, &r->results[j]);
        pm_jo_end(w);
        pm_jo_end(w);
    }
    pm_jo_end(w);
}

static void write_json(checker *k, bool pass, bool ran)
{
    const check_run_report *r = k->run.report;
    const pm_compile_result *c = k->compiled ? &k->compiled->result : NULL;
    pm_json_out w = {.out = stdout};
    double abs_diff = NAN, rel_diff = NAN;
    if (ran)
        worst(r, NULL, &abs_diff, &rel_diff);
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_text(&w, "model", k->model);
    pm_jo_bool(&w, "pass", pass);
    pm_jo_number(&w, "max_abs_diff", abs_diff);
    pm_jo_number(&w, "max_rel_diff", rel_diff);
    outputs_json(k, &w, r);
    pm_jo_int(&w, "uncompared_outputs", r ? r->n_uncompared : 0);
    pm_jo_text(&w, "entry", r && r->entry[0] ? r->entry : NULL);
    pm_jo_int(&w, "cases", (int64_t)k->run.n_cases);
    pm_jo_int(&w, "moe_layers", c ? c->n_moe_layers : 0);
    pm_jo_int(&w, "experts", c ? c->n_experts : 0);
    pm_jo_int(&w, "experts_total", c ? c->n_experts_total : 0);
    pm_jo_array(&w, "experts_per_layer");
    for (int i = 0; c && i < c->n_moe_layers && i < MAX_LAYERS; i++)
        pm_jo_int(&w, NULL, k->compiled->layer_experts[i]);
    pm_jo_end(&w);
    pm_jo_bool(&w, "native", ran);
    pm_jo_int(&w, "dispatches", c ? c->n_dispatches : 0);
    pm_jo_int(&w, "reference_dispatches", c ? c->n_reference : 0);
    pm_jo_ms(&w, "compile_ms", c ? c->total_ms : 0);
    pm_jo_ms(&w, "run_ms", r ? r->run_ms : 0);
    if (k->code) {
        pm_jo_object(&w, "error");
        pm_jo_text(&w, "code", k->code);
        pm_jo_text(&w, "message", k->message ? k->message : "no reason was given");
        pm_jo_text(&w, "location", k->location);
        pm_jo_end(&w);
    } else {
        pm_jo_null(&w, "error");
    }
    size_t size;
    const char *messages = messages_of(k, &size);
    pm_jo_warnings(&w, k->arena, messages, size);
    pm_jo_end(&w);
}

static void print_shape(int32_t elem, int32_t rank, const int64_t *dims)
{
    printf("%s[", pm_elem_name((pm_elem)elem));
    for (int32_t i = 0; i < rank; i++)
        printf("%s%" PRId64, i ? ", " : "", dims[i]);
    printf("]");
}

static void write_text(checker *k, bool pass)
{
    const check_run_report *r = k->run.report;
    const pm_compile_result *c = &k->compiled->result;
    for (size_t i = 0; i < r->n_results; i++) {
        const check_result *x = &r->results[i];
        printf("%s  %s: %s ", x->c.pass ? "same   " : "DIFFERS", case_name(k, x->number), x->name);
        print_shape(x->c.elem, x->c.rank, x->c.dims);
        if (x->c.other_shape || x->c.other_type) {
            printf(", expected ");
            print_shape(x->c.want_elem, x->c.want_rank, x->c.want_dims);
            putchar('\n');
            continue;
        }
        printf(", largest difference %.3g, relative %.3g (allowed %.3g)", x->c.max_abs, x->c.max_rel, x->tolerance.rtol);
        if (!x->c.pass)
            printf("; %" PRId64 " of %" PRId64 " beyond, worst at %" PRId64 ": %.9g instead of %.9g", x->c.n_bad, x->c.n,
                   x->c.worst, x->c.got, x->c.want);
        putchar('\n');
    }
    if (r->n_uncompared)
        printf("%d outputs had nothing to be compared with\n", r->n_uncompared);
    printf("%s: entry %s, %zu case%s; %d layers of experts (%d at most, %d in all); compiled in %.0f ms, ran %.1f ms\n",
           pass ? "pass" : "FAIL", r->entry, k->run.n_cases, k->run.n_cases == 1 ? "" : "s", c->n_moe_layers,
           c->n_experts, c->n_experts_total, c->total_ms, r->run_ms);
}

/// ---- all of it --------------------------------------------------------------------------------------------

static pm_status keep_library(checker *k)
{
    pm_file *from;
    pm_out_file *to;
    if (!k->args->value[CHECK_KEEP])
        return PM_OK;
    PM_TRY(pm_file_open(k->arena, k->diag, k->run.library, &from));
    PM_TRY(pm_file_map(k->arena, k->diag, from));
    PM_TRY(pm_out_open(k->arena, k->diag, k->args->value[CHECK_KEEP], 0755, &to));
    if (fwrite(from->data, 1, from->size, to->stream) != from->size)
        return pm_error(k->diag, NULL, PM_ERR_IO, "%s: %s", to->path, strerror(errno));
    return pm_out_commit(k->diag, to);
}

static pm_status prepare(checker *k)
{
    PM_TRY(pm_model_detect(k->diag, k->model, &k->kind));
    if (k->kind == PM_MODEL_ARTIFACT)
        return pm_error(k->diag, NULL, PM_ERR_USAGE, "%s is already compiled; a model is expected here", k->model);
    PM_TRY(find_cases(k));
    size_t room = 0;
    for (size_t i = 0; i < k->run.n_cases; i++)
        room += k->run.cases[i].want->arrays.n + 3; // greedy decoding adds some
    PM_TRY(pm_shared_memory(k->arena, k->diag, sizeof *k->run.report + room * sizeof(check_result),
                            (void **)&k->run.report));
    k->run.report->room = room;
    return PM_OK;
}

static pm_status run_compiled(checker *k)
{
    pm_child_end end;
    k->run.start_token = k->compiled->start_token;
    PM_TRY(pm_child_run(k->diag, pm_check_run, &k->run, k->timeout, &end));
    pm_status status = judge_end(k, &end, "the compiled model", k->run.report->doing);
    if (status == PM_ERR_INTERNAL)
        pm_bug_report_write(k->message);
    if (status != PM_OK) {
        complain(k);
        return status;
    }
    status = k->run.report->status;
    if (status != PM_OK) {
        k->code = pm_status_name(status);
        k->message = k->run.report->message;
        complain(k);
    }
    return status;
}

static pm_status check(checker *k)
{
    pm_status status = prepare(k);
    if (status != PM_OK)
        return take_diag(k, status);
    pm_progress_step(k->progress, "compiling", 1, 2);
    status = compile(k);
    if (status == PM_OK && k->compiled->status != PM_OK) {
        status = k->compiled->status;
        k->code = pm_status_name(status);
        take_messages(k);
        return status;
    }
    if (status != PM_OK && !k->code)
        return take_diag(k, status);
    if (status != PM_OK) {
        complain(k);
        return status;
    }
    pm_progress_step(k->progress, "running", 2, 2);
    PM_TRY(run_compiled(k));
    status = keep_library(k);
    return status == PM_OK ? PM_OK : take_diag(k, status);
}

int pm_command_check(pm_arena *arena, const pm_cli_args *args)
{
    checker *k = PM_NEW(arena, checker);
    long long threads = 0;
    *k = (checker){.arena = arena, .diag = pm_diag_create(arena), .args = args, .model = args->operands[0],
                   .timeout = 600, .json = args->count[CHECK_JSON], .messages = -1};
    k->run.rtol = k->run.atol = -1;
    if (!pm_take_compile_options(arena, args, &k->options) || !pm_cli_int(args, CHECK_THREADS, 1, 256, &threads) ||
        !pm_cli_number(args, CHECK_RTOL, &k->run.rtol) || !pm_cli_number(args, CHECK_ATOL, &k->run.atol) ||
        !pm_cli_number(args, CHECK_TIMEOUT, &k->timeout))
        return 2;
    k->run.threads = (int)threads;
    k->run.entry = args->value[CHECK_ENTRY];
    k->run.bf16 = k->options.quantize && strcmp(k->options.quantize, "bf16") == 0;
    k->progress = pm_progress_start("checking", !k->json);
    pm_status status = check(k);
    pm_progress_end(k->progress);
    bool ran = status == PM_OK, pass = ran && passed(k->run.report, NULL);
    if (k->json)
        write_json(k, pass, ran);
    else if (ran)
        write_text(k, pass);
    if (k->messages >= 0)
        close(k->messages);
    return status != PM_OK ? pm_exit_code(status) : pass ? 0 : 1;
}
