/// pimoe bench: times of entries, side by side.
#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/containers.h"
#include "base/json.h"
#include "tools/cli/json_out.h"
#include "tools/pimoe/commands.h"
#include "tools/pimoe/compile_cache.h"

extern char **environ;

enum { MAX_COMBINATIONS = 1000, MAX_SHAPES = 16 };

typedef PM_VEC(const char *) words;

typedef struct row {
    const char *model, *entry, *shape; ///< shape: "B=1 T=16"
    double min, median, max, tokens, megabytes;
    double ratio; ///< against the first model's row of the same entry and shape; 0: none
} row;

typedef struct bench {
    pm_arena *arena;
    pm_diag *diag;
    const pm_cli_args *args;
    PM_VEC(row) rows;
    words shapes; ///< each "B=1 T=16", "" for none
} bench;

/// ---- asking executables -----------------------------------------------------------------------------------

/// Runs a program and returns what it printed; it must end well.
static pm_status output_of(bench *b, char *const *argv, const char **out_text, size_t *out_size)
{
    int ends[2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0)
        return pm_error(b->diag, NULL, PM_ERR_IO, "pipe: %s", strerror(errno));
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    int code = posix_spawn(&child, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    char *text = NULL;
    FILE *to = open_memstream(&text, out_size);
    char chunk[4096];
    for (ssize_t n; code == 0 && to && ((n = read(ends[0], chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR));)
        if (n > 0)
            fwrite(chunk, 1, (size_t)n, to);
    close(ends[0]);
    if (to)
        fclose(to);
    *out_text = text ? pm_arena_strndup(b->arena, text, *out_size) : "";
    free(text);
    if (code != 0)
        return pm_error(b->diag, NULL, PM_ERR_IO, "%s can't be run: %s", argv[0], strerror(code));
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status))
        return pm_error(b->diag, NULL, PM_ERR_INTERNAL, "%s was ended by signal %d", argv[0], WTERMSIG(status));
    if (WEXITSTATUS(status) != 0) // it said why on standard error
        return pm_error(b->diag, NULL, PM_ERR_INVALID, "%s ended with code %d", argv[0], WEXITSTATUS(status));
    return PM_OK;
}

static pm_status ask(bench *b, char *const *argv, const pm_json **out)
{
    const char *text;
    size_t size;
    PM_TRY(output_of(b, argv, &text, &size));
    return pm_json_parse(b->arena, b->diag, argv[0], text, size, out);
}

static double number(const pm_json *object, const char *key)
{
    const pm_json *v = pm_json_get(object, key);
    return v && v->kind == PM_JSON_NUMBER ? v->is_int ? (double)v->integer : v->number : 0;
}

/// ---- shapes -----------------------------------------------------------------------------------------------

/// --shape B=1,8 --shape T=16 -> "B=1 T=16", "B=8 T=16".
static int make_shapes(bench *b)
{
    PM_PUSH(b->arena, &b->shapes, "");
    for (size_t i = 0; i < b->args->n_given; i++) {
        if (b->args->given[i].option != BENCH_SHAPE)
            continue;
        const char *text = b->args->given[i].value, *equals = strchr(text, '=');
        if (!equals || equals == text || strspn(equals + 1, "0123456789,") != strlen(equals + 1) ||
            !(equals[1] >= '0' && equals[1] <= '9'))
            return pm_cli_usage(b->args->command, "--shape takes SYMBOL=N or SYMBOL=N,N,…, not '%s'", text);
        words all = {0};
        for (size_t k = 0; k < b->shapes.n; k++)
            for (const char *at = equals + 1; *at; at += strspn(at, ",")) {
                size_t n = strcspn(at, ",");
                if (all.n == MAX_COMBINATIONS)
                    return pm_cli_usage(b->args->command, "more than %d combinations of --shape", MAX_COMBINATIONS);
                PM_PUSH(b->arena, &all,
                        pm_arena_printf(b->arena, "%s%s%.*s=%.*s", b->shapes.data[k], *b->shapes.data[k] ? " " : "",
                                        (int)(equals - text), text, (int)n, at));
                at += n;
            }
        b->shapes = all;
    }
    return -1;
}

/// ---- timing -----------------------------------------------------------------------------------------------

static pm_status time_one(bench *b, const char *model, const char *program, const char *entry, const char *shape)
{
    char *argv[2 * MAX_SHAPES + 16];
    size_t n = 0;
    argv[n++] = (char *)(uintptr_t)program;
    argv[n++] = (char *)"--bench";
    argv[n++] = (char *)"--json";
    argv[n++] = (char *)"--entry";
    argv[n++] = (char *)(uintptr_t)entry;
    if (b->args->value[BENCH_REPEAT]) {
        argv[n++] = (char *)"--repeat";
        argv[n++] = (char *)(uintptr_t)b->args->value[BENCH_REPEAT];
    }
    if (b->args->value[BENCH_THREADS]) {
        argv[n++] = (char *)"--threads";
        argv[n++] = (char *)(uintptr_t)b->args->value[BENCH_THREADS];
    }
    const char *at = shape;
    for (int i = 0; *at && i < MAX_SHAPES; i++) {
        size_t length = strcspn(at, " ");
        argv[n++] = (char *)"--shape";
        argv[n++] = pm_arena_strndup(b->arena, at, length);
        at += length + strspn(at + length, " ");
    }
    argv[n] = NULL;
    if (*at)
        return pm_error(b->diag, NULL, PM_ERR_USAGE, "more than %d --shape", MAX_SHAPES);
    const pm_json *result;
    PM_TRY(ask(b, argv, &result));
    row one = {.model = model, .entry = entry, .shape = shape, .min = number(result, "min_ms"),
               .median = number(result, "median_ms"), .max = number(result, "max_ms"),
               .tokens = number(result, "tokens_per_second"), .megabytes = number(result, "peak_megabytes")};
    for (size_t i = 0; i < b->rows.n && one.median > 0; i++)
        if (strcmp(b->rows.data[i].entry, entry) == 0 && strcmp(b->rows.data[i].shape, shape) == 0) {
            one.ratio = b->rows.data[i].median / one.median;
            break; // the first one is the first model's
        }
    if (one.ratio == 0)
        one.ratio = 1;
    PM_PUSH(b->arena, &b->rows, one);
    return PM_OK;
}

/// True when the entry was asked for (or none was).
static bool wanted(const bench *b, const char *entry)
{
    bool any = false;
    for (size_t i = 0; i < b->args->n_given; i++) {
        if (b->args->given[i].option != BENCH_ENTRY)
            continue;
        any = true;
        if (strcmp(b->args->given[i].value, entry) == 0)
            return true;
    }
    return !any;
}

/// Names that were asked for and that the model lacks.
static pm_status check_entries(bench *b, const char *model, const pm_json *entries)
{
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; i < entries->n && n < 64; i++) {
        const pm_json *name = pm_json_get(&entries->items[i], "name");
        if (name && name->kind == PM_JSON_STRING)
            names[n++] = name->string;
    }
    for (size_t i = 0; i < b->args->n_given; i++) {
        bool known = b->args->given[i].option != BENCH_ENTRY;
        for (size_t k = 0; k < n && !known; k++)
            known = strcmp(names[k], b->args->given[i].value) == 0;
        if (known)
            continue;
        const char *near = pm_nearest(b->args->given[i].value, names, n);
        return pm_error(b->diag, NULL, PM_ERR_USAGE, "%s has no entry '%s'%s%s%s", model, b->args->given[i].value,
                        near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return PM_OK;
}

/// Symbols in --shape that the model lacks.
static pm_status check_symbols(bench *b, const char *model, const pm_json *symbols)
{
    for (size_t i = 0; i < b->args->n_given; i++) {
        const char *text = b->args->given[i].value;
        bool known = b->args->given[i].option != BENCH_SHAPE;
        for (size_t k = 0; symbols && k < symbols->n && !known; k++) {
            const pm_json *name = pm_json_get(&symbols->items[k], "name");
            known = name && name->kind == PM_JSON_STRING && strlen(name->string) == strcspn(text, "=") &&
                    strncmp(name->string, text, strlen(name->string)) == 0;
        }
        if (!known)
            return pm_error(b->diag, NULL, PM_ERR_USAGE, "%s has no symbol '%.*s'", model, (int)strcspn(text, "="), text);
    }
    return PM_OK;
}

static pm_status time_program(bench *b, const char *model, const char *program)
{
    char *argv[] = {(char *)(uintptr_t)program, (char *)"--describe", (char *)"--json", NULL};
    const pm_json *about;
    PM_TRY(ask(b, argv, &about));
    const pm_json *entries = pm_json_get(about, "entries");
    if (!entries || entries->kind != PM_JSON_ARRAY)
        return pm_error(b->diag, NULL, PM_ERR_INVALID, "%s does not describe itself as a model", model);
    PM_TRY(check_entries(b, model, entries));
    PM_TRY(check_symbols(b, model, pm_json_get(about, "symbols")));
    for (size_t i = 0; i < entries->n; i++) {
        const pm_json *name = pm_json_get(&entries->items[i], "name");
        if (!name || name->kind != PM_JSON_STRING || !wanted(b, name->string))
            continue;
        for (size_t k = 0; k < b->shapes.n; k++)
            PM_TRY(time_one(b, model, program, name->string, b->shapes.data[k]));
    }
    return PM_OK;
}

static pm_status time_model(bench *b, const char *model, const pm_compile_options *options)
{
    pm_cached cached;
    PM_TRY(pm_cached_executable(b->arena, b->diag, model, options, true, "compiling", &cached));
    pm_status status = cached.temporary && chmod(cached.path, 0700) != 0 ? PM_ERR_IO : time_program(b, model, cached.path);
    if (cached.temporary)
        unlink(cached.path);
    return status;
}

/// ---- tables -----------------------------------------------------------------------------------------------

static void table_json(const bench *b)
{
    pm_json_out w = {.out = stdout};
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_array(&w, "rows");
    for (size_t i = 0; i < b->rows.n; i++) {
        const row *r = &b->rows.data[i];
        pm_jo_object(&w, NULL);
        pm_jo_text(&w, "model", r->model);
        pm_jo_text(&w, "entry", r->entry);
        pm_jo_text(&w, "shape", r->shape);
        pm_jo_number(&w, "min_ms", r->min);
        pm_jo_number(&w, "median_ms", r->median);
        pm_jo_number(&w, "max_ms", r->max);
        pm_jo_number(&w, "tokens_per_second", r->tokens);
        pm_jo_number(&w, "peak_megabytes", r->megabytes);
        if (b->args->count[BENCH_COMPARE])
            pm_jo_number(&w, "times_as_fast", r->ratio);
        pm_jo_end(&w);
    }
    pm_jo_end(&w);
    pm_jo_end(&w);
}

enum { N_COLUMNS = 9 };
static const char *const headings[N_COLUMNS] = {"model", "entry", "shape", "min ms", "median ms", "max ms", "tokens/s",
                                                "peak MB", "times as fast"};

static void cells_of(bench *b, const row *r, const char **out)
{
    out[0] = r->model;
    out[1] = r->entry;
    out[2] = *r->shape ? r->shape : "least";
    out[3] = pm_arena_printf(b->arena, "%.3f", r->min);
    out[4] = pm_arena_printf(b->arena, "%.3f", r->median);
    out[5] = pm_arena_printf(b->arena, "%.3f", r->max);
    out[6] = r->tokens > 0 ? pm_arena_printf(b->arena, "%.0f", r->tokens) : "";
    out[7] = pm_arena_printf(b->arena, "%.1f", r->megabytes);
    out[8] = pm_arena_printf(b->arena, "%.2f", r->ratio);
}

static void csv_cell(const char *text)
{
    if (!strpbrk(text, ",\"\n")) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

/// text: columns aligned; md: a table of Markdown; csv.
static void table(bench *b, const char *format)
{
    int n = b->args->count[BENCH_COMPARE] ? N_COLUMNS : N_COLUMNS - 1;
    size_t width[N_COLUMNS];
    const char *cells[N_COLUMNS];
    for (int i = 0; i < n; i++)
        width[i] = strlen(headings[i]);
    for (size_t r = 0; r < b->rows.n; r++) {
        cells_of(b, &b->rows.data[r], cells);
        for (int i = 0; i < n; i++)
            width[i] = strlen(cells[i]) > width[i] ? strlen(cells[i]) : width[i];
    }
    bool md = strcmp(format, "md") == 0, csv = strcmp(format, "csv") == 0;
    for (size_t r = 0; r <= b->rows.n; r++) {
        if (r == 0)
            memcpy(cells, headings, sizeof headings);
        else
            cells_of(b, &b->rows.data[r - 1], cells);
        for (int i = 0; i < n; i++) {
            if (csv) {
                fputs(i ? "," : "", stdout);
                csv_cell(cells[i]);
            } else {
                printf(md ? "| " : i ? "  " : "");
                printf(i < 3 ? "%-*s" : "%*s", (int)width[i], cells[i]);
                printf(md ? i + 1 < n ? " " : " |" : "");
            }
        }
        putchar('\n');
        for (int i = 0; md && r == 0 && i < n; i++)
            printf("%s", i < 3 ? "|---" : "|---:");
        printf(md && r == 0 ? "|\n" : "");
    }
}

int pm_command_bench(pm_arena *arena, const pm_cli_args *args)
{
    bench b = {.arena = arena, .diag = pm_diag_create(arena), .args = args};
    pm_compile_options options;
    long long ignored;
    const char *format = args->value[BENCH_FORMAT] ? args->value[BENCH_FORMAT] : args->count[BENCH_JSON] ? "json" : "text";
    if (args->count[BENCH_JSON] && strcmp(format, "json") != 0)
        return pm_cli_usage(args->command, "--json and --format=%s contradict each other", format);
    if (!pm_take_compile_options(arena, args, &options) || !pm_cli_int(args, BENCH_REPEAT, 1, 1000000, &ignored) ||
        !pm_cli_int(args, BENCH_THREADS, 1, 256, &ignored))
        return 2;
    int code = make_shapes(&b);
    if (code >= 0)
        return code;
    pm_status status = PM_OK;
    for (int i = 0; i < args->n_operands && status == PM_OK; i++)
        status = time_model(&b, args->operands[i], &options);
    if (status != PM_OK)
        return pm_command_failed(b.diag, status);
    if (strcmp(format, "json") == 0)
        table_json(&b);
    else
        table(&b, format);
    return 0;
}
