#include "passes/passes.h"

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

static bool is_named(const char *list, const pm_pass *pass)
{
    return list && (strcmp(list, "all") == 0 || strcmp(list, pass->name) == 0);
}

static void print_module(const pm_pass_run *run, const pm_pass *pass, const char *when,
                         const pm_module *m)
{
    FILE *out = run->out ? run->out : stderr;
    fprintf(out, "// ---- %s %s ----\n", when, pass->name);
    pm_module_print(m, out);
}

static pm_status dump(const pm_pass_run *run, size_t number, const char *name, pm_module *m)
{
    char *path = pm_arena_printf(m->arena, "%s/%02zu-%s.pm", run->dump_dir, number, name);
    if (number == 0)
        mkdir(run->dump_dir, 0777);
    FILE *out = fopen(path, "w");
    if (!out)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s can't be written", path);
    pm_module_print(m, out);
    if (fclose(out) != 0)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s can't be written", path);
    return PM_OK;
}

static pm_status verify_after(pm_module *m, const pm_pass *pass)
{
    pm_status status = pm_module_verify(m);
    if (status == PM_OK)
        return PM_OK;
    pm_note(m->diag, NULL, "the module is not valid after pass %s: our bug", pass->name);
    return PM_ERR_INTERNAL;
}

static pm_status run_pass(pm_module *m, const pm_pass_run *run, const pm_pass *pass, size_t number)
{
    pm_pass_ctx ctx = {.module = m, .diag = m->diag, .options = run->options, .pass = pass};
    pm_map_init(&ctx.counts, m->arena);
    if (is_named(run->print_before, pass))
        print_module(run, pass, "before", m);
    double start = now();
    PM_TRY(pass->run(&ctx));
    if (run->time_passes)
        fprintf(stderr, "%10.3f ms  %s%s\n", (now() - start) * 1e3, pass->name,
                ctx.changes ? "" : " (no change)");
    for (size_t i = 0; run->stats && i < ctx.counts.n; i++)
        fprintf(stderr, "%10" PRIuPTR "  %s: %s\n", (uintptr_t)ctx.counts.entries[i].value,
                pass->name, ctx.counts.entries[i].key);
    if (run->verify_each)
        PM_TRY(verify_after(m, pass));
    if (is_named(run->print_after, pass) || (run->print_changed && ctx.changes))
        print_module(run, pass, "after", m);
    return run->dump_dir ? dump(run, number, pass->name, m) : PM_OK;
}

static pm_status unknown_pass(pm_module *m, const char *name)
{
    const char **names = PM_NEW_ARRAY(m->arena, const char *, pm_pass_count_all + PM_COUNT(pipelines));
    size_t n = 0;
    for (size_t i = 0; i < pm_pass_count_all; i++)
        names[n++] = pm_pass_table[i].name;
    for (size_t i = 0; i < PM_COUNT(pipelines); i++)
        names[n++] = pipelines[i].name;
    const char *near = pm_nearest(name, names, n);
    return pm_error(m->diag, NULL, PM_ERR_USAGE, "unknown pass '%s'%s%s%s", name,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

pm_status pm_passes_run(pm_module *m, const pm_pass_run *run)
{
    const char *list = run->passes;
    char level[8];
    snprintf(level, sizeof level, "O%d", run->options->opt_level);
    for (size_t i = 0; i < PM_COUNT(pipelines); i++)
        if (strcmp(pipelines[i].name, list ? list : level) == 0)
            list = pipelines[i].passes;
    if (run->dump_dir)
        PM_TRY(dump(run, 0, "input", m));
    char *names = pm_arena_strdup(m->arena, list ? list : ""), *rest = NULL;
    int64_t number = 0;
    for (char *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        const pm_pass *pass = find_pass(name);
        if (!pass)
            return unknown_pass(m, name);
        if (run->pass_limit >= 0 && number >= run->pass_limit)
            break;
        PM_TRY(run_pass(m, run, pass, (size_t)++number));
        if (is_named(run->stop_after, pass))
            break;
    }
    return PM_OK;
}
