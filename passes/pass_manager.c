#include "passes/passes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "ir/text.h"

#define PM_PASS(fn, name, help) pm_pass_fn pm_pass_##fn;
#include "passes/passes.def"

const pm_pass pm_pass_table[] = {
#define PM_PASS(fn, name, help) {name, pm_pass_##fn, help},
#include "passes/passes.def"
};
const size_t pm_pass_count_all = PM_COUNT(pm_pass_table);

static const struct {
    const char *name, *passes;
} pipelines[] = {
#define PM_PIPELINE(name, passes) {name, passes},
#include "passes/pipelines.def"
};

void pm_pass_changed(pm_pass_ctx *ctx)
{
    ctx->changes++;
}

void pm_pass_count(pm_pass_ctx *ctx, const char *what)
{
    void **slot = pm_map_at(&ctx->counts, what, strlen(what));
    *slot = (void *)((uintptr_t)*slot + 1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const pm_pass *find_pass(const char *name)
{
    for (size_t i = 0; i < pm_pass_count_all; i++)
        if (strcmp(pm_pass_table[i].name, name) == 0)
            return &pm_pass_table[i];
    return NULL;
}

/// ---- lists of names --------------------------------------------------------------------------------------

static const char *pipeline_of(const char *name, size_t length)
{
    for (size_t i = 0; i < PM_COUNT(pipelines); i++)
        if (strlen(pipelines[i].name) == length && memcmp(pipelines[i].name, name, length) == 0)
            return pipelines[i].passes;
    return NULL;
}

/// True when the pass is in the list ("fold,cse"), or the list is "all".
static bool is_named(const char *list, const pm_pass *pass)
{
    size_t n = strlen(pass->name);
    while (list && *list) {
        size_t length = strcspn(list, ",");
        if ((length == 3 && memcmp(list, "all", 3) == 0) ||
            (length == n && memcmp(list, pass->name, n) == 0))
            return true;
        list += length + (list[length] == ',');
    }
    return false;
}

/// `option`: which one named it.
static pm_status unknown_pass(pm_arena *arena, pm_diag *diag, const char *option, const char *name)
{
    const char **names = PM_NEW_ARRAY(arena, const char *, pm_pass_count_all + PM_COUNT(pipelines));
    size_t n = 0;
    for (size_t i = 0; i < pm_pass_count_all; i++)
        names[n++] = pm_pass_table[i].name;
    for (size_t i = 0; i < PM_COUNT(pipelines); i++)
        names[n++] = pipelines[i].name;
    const char *near = pm_nearest(name, names, n);
    return pm_error(diag, NULL, PM_ERR_USAGE, "%s=%s: there is no such pass%s%s%s", option, name,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

pm_status pm_passes_check_names(pm_arena *arena, pm_diag *diag, const char *option, const char *list)
{
    while (list && *list) {
        size_t length = strcspn(list, ",");
        char *name = pm_arena_strndup(arena, list, length);
        if (strcmp(name, "all") != 0 && !find_pass(name))
            return unknown_pass(arena, diag, option, name);
        list += length + (list[length] == ',');
    }
    return PM_OK;
}

typedef PM_VEC(const pm_pass *) pass_vec;

/// Appends the passes of a list of names; those of pipelines stand for what they run.
static pm_status resolve(pm_module *m, const char *list, pass_vec *out)
{
    while (*list) {
        size_t length = strcspn(list, ",");
        const char *inner = pipeline_of(list, length);
        if (inner) {
            PM_TRY(resolve(m, inner, out)); // pipelines name passes only
        } else if (length > 0) {
            char *name = pm_arena_strndup(m->arena, list, length);
            const pm_pass *pass = find_pass(name);
            if (!pass)
                return unknown_pass(m->arena, m->diag, "--passes", name);
            PM_PUSH(m->arena, out, pass);
        }
        list += length + (list[length] == ',');
    }
    return PM_OK;
}

/// ---- one pass --------------------------------------------------------------------------------------------

static void print_module(const pm_pass_run *run, const pm_pass *pass, const char *when,
                         const pm_module *m)
{
    FILE *out = run->out ? run->out : stderr;
    fprintf(out, "// ---- %s %s ----\n", when, pass->name);
    pm_module_print(m, out);
}

static pm_status cannot_write(pm_module *m, const char *path)
{
    return pm_error(m->diag, NULL, PM_ERR_IO, "%s can't be written: %s", path, strerror(errno));
}

static pm_status dump(const pm_pass_run *run, size_t number, const char *name, pm_module *m)
{
    char *path = pm_arena_printf(m->arena, "%s/%02zu-%s.pm", run->dump_dir, number, name);
    if (number == 0 && mkdir(run->dump_dir, 0777) != 0 && errno != EEXIST)
        return cannot_write(m, run->dump_dir);
    FILE *out = fopen(path, "w");
    if (!out)
        return cannot_write(m, path);
    pm_module_print(m, out);
    return fclose(out) == 0 ? PM_OK : cannot_write(m, path);
}

static pm_status verify_after(pm_module *m, const pm_pass *pass)
{
    pm_status status = pm_module_verify(m);
    if (status == PM_OK)
        return PM_OK;
    pm_note(m->diag, NULL, "the module is not valid after pass %s: our bug", pass->name);
    return PM_ERR_INTERNAL;
}

static pm_status run_pass(pm_module *m, const pm_pass_run *run, const pm_pass *pass, size_t number,
                          double *out_seconds)
{
    pm_pass_ctx ctx = {.module = m, .diag = m->diag, .options = run->options, .pass = pass,
                       .notes = run->stats ? stderr : NULL, .findings = run->findings, .plan = run->plan};
    pm_map_init(&ctx.counts, m->arena);
    if (is_named(run->print_before, pass))
        print_module(run, pass, "before", m);
    double start = now();
    PM_TRY(pass->run(&ctx));
    *out_seconds = now() - start;
    if (run->time_passes)
        fprintf(stderr, "%10.3f ms  %s%s\n", *out_seconds * 1e3, pass->name,
                ctx.changes ? "" : " (no change)");
    for (size_t i = 0; run->stats && i < ctx.counts.n; i++)
        fprintf(stderr, "%10" PRIuPTR "  %s: %s\n", (uintptr_t)ctx.counts.entries[i].value,
                pass->name, ctx.counts.entries[i].key);
    if (is_named(run->print_after, pass) || (run->print_changed && ctx.changes))
        print_module(run, pass, "after", m);
    if (run->dump_dir) // before verifying: what is wrong is there to be looked at
        PM_TRY(dump(run, number, pass->name, m));
    return run->verify_each ? verify_after(m, pass) : PM_OK;
}

/// ---- all of them -----------------------------------------------------------------------------------------

pm_status pm_passes_run(pm_module *m, const pm_pass_run *run)
{
    char level[8];
    pass_vec passes = {0};
    double seconds, total = 0;
    snprintf(level, sizeof level, "O%d", run->options->opt_level);
    PM_TRY(resolve(m, run->passes ? run->passes : level, &passes));
    PM_TRY(pm_passes_check_names(m->arena, m->diag, "--print-ir-before", run->print_before));
    PM_TRY(pm_passes_check_names(m->arena, m->diag, "--print-ir-after", run->print_after));
    PM_TRY(pm_passes_check_names(m->arena, m->diag, "--stop-after", run->stop_after));
    if (run->dump_dir)
        PM_TRY(dump(run, 0, "input", m));
    bool watched = run->watch == NULL;
    for (size_t i = 0; i < passes.n; i++) {
        if (!watched && strcmp(passes.data[i]->name, run->watch) == 0) {
            PM_TRY(run->on_watched(run->user, m));
            watched = true;
        }
        if (run->stop_before && strcmp(passes.data[i]->name, run->stop_before) == 0)
            break;
        if (run->pass_limit >= 0 && i >= (uint64_t)run->pass_limit)
            break;
        PM_TRY(run_pass(m, run, passes.data[i], i + 1, &seconds));
        total += seconds;
        if (is_named(run->stop_after, passes.data[i]))
            break;
    }
    if (run->time_passes)
        fprintf(stderr, "%10.3f ms  all passes\n", total * 1e3);
    return PM_OK;
}

/// ---- documentation ---------------------------------------------------------------------------------------

static void list_pipelines(const char *pass, FILE *out)
{
    const char *before = "";
    for (size_t i = 0; i < PM_COUNT(pipelines); i++) {
        int times = 0;
        const pm_pass *found = find_pass(pass);
        for (const char *list = pipelines[i].passes; *list; list += strcspn(list, ","), list += *list == ',') {
            size_t length = strcspn(list, ",");
            times += strlen(found->name) == length && memcmp(list, found->name, length) == 0;
        }
        if (times == 0)
            continue;
        fprintf(out, "%s%s", before, pipelines[i].name);
        if (times > 1)
            fprintf(out, " (%d times)", times);
        before = ", ";
    }
}

void pm_passes_describe(FILE *out, bool markdown)
{
    if (!markdown) {
        for (size_t i = 0; i < pm_pass_count_all; i++)
            fprintf(out, "%-16s%s\n", pm_pass_table[i].name, pm_pass_table[i].help);
        for (size_t i = 0; i < PM_COUNT(pipelines); i++)
            fprintf(out, "%-16s%s\n", pipelines[i].name, pipelines[i].passes);
        return;
    }
    fputs("# Passes\n\n"
          "Made by `pimoe-opt --list-passes --markdown` from `passes/passes.def` and `passes/pipelines.def`; a test\n"
          "compares. `pimoe-opt FILE.pm --passes=LIST` runs passes by name, `-O0` to `-O3` those of a pipeline; names\n"
          "of pipelines may stand in a list, too. What each pass promises is told at the head of its source.\n\n"
          "| pass | what it does | runs in |\n|---|---|---|\n", out);
    for (size_t i = 0; i < pm_pass_count_all; i++) {
        fprintf(out, "| `%s` | %s | ", pm_pass_table[i].name, pm_pass_table[i].help);
        list_pipelines(pm_pass_table[i].name, out);
        fputs(" |\n", out);
    }
    fputs("\n## Pipelines\n\n", out);
    for (size_t i = 0; i < PM_COUNT(pipelines); i++) {
        fprintf(out, "- `-%s`: ", pipelines[i].name);
        for (const char *at = pipelines[i].passes; *at; at++)
            fputs(*at == ',' ? ", " : (char[]){*at, 0}, out);
        fputs("\n", out);
    }
}
