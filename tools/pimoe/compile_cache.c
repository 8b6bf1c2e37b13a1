#include "tools/pimoe/compile_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cache.h"
#include "base/str.h"
#include "codegen/codegen.h"
#include "frontend/frontend.h"
#include "ir/text.h"
#include "tools/cli/bug_report.h"
#include "tools/cli/cli.h"
#include "tools/cli/progress.h"

/// ---- the key ----------------------------------------------------------------------------------------------

static ssize_t hash_write(void *cookie, const char *bytes, size_t size)
{
    pm_hasher_add(cookie, bytes, size);
    return (ssize_t)size;
}

/// A file by identity and times, so that weights need not be read.
static void add_file(pm_hasher *hasher, const pm_data *data, const pm_file **last)
{
    struct stat st;
    if (!data || !data->file || data->file == *last || fstat(data->file->fd, &st) != 0)
        return;
    *last = data->file;
    int64_t facts[] = {(int64_t)st.st_dev, (int64_t)st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                       st.st_ctim.tv_sec, st.st_ctim.tv_nsec};
    pm_hasher_add(hasher, facts, sizeof facts);
}

static void add_graph_files(pm_hasher *hasher, const pm_graph *top, const pm_file **last)
{
    pm_op *op = top->first;
    const pm_graph *g = top;
    while (op) { // depth first, without recursion
        if (op->code == PM_OP_const)
            add_file(hasher, pm_value_const(op->results[0]), last);
        const pm_graph *inner = NULL;
        for (uint32_t i = 0; i < op->n_regions && !inner; i++)
            inner = op->regions[i]->first ? op->regions[i] : NULL;
        if (inner) {
            g = inner;
            op = inner->first;
            continue;
        }
        while (op && !op->next && g != top) { // up, on to the parent's next region
            pm_op *parent = g->parent;
            uint32_t k = 0;
            while (parent->regions[k] != g)
                k++;
            for (k++; k < parent->n_regions && !parent->regions[k]->first;)
                k++;
            if (k < parent->n_regions) {
                g = parent->regions[k];
                break;
            }
            op = parent;
            g = parent->graph;
        }
        if (op && op->graph != g)
            op = g->first;
        else
            op = op ? op->next : NULL;
    }
}

/// What the placement says; of a trace what the file is, too.
static void put_place(FILE *out, pm_arena *scratch, const char *place)
{
    fprintf(out, "place %s\n", place);
    for (const char *at = place; (at = strstr(at, "trace:")) != NULL;) {
        struct stat trace = {0};
        at += strlen("trace:");
        if (stat(pm_arena_strndup(scratch, at, strcspn(at, ",")), &trace) == 0)
            fprintf(out, "%lld %lld.%ld\n", (long long)trace.st_size, (long long)trace.st_mtim.tv_sec,
                    trace.st_mtim.tv_nsec);
    }
}

static pm_status make_key(pm_arena *arena, pm_diag *diag, const char *model, const pm_compile_options *o,
                          char out_key[PM_HASH_TEXT_SIZE])
{
    pm_arena *scratch = pm_arena_child(arena);
    pm_module *m;
    pm_target target;
    pm_hasher *hasher = pm_hasher_new(arena);
    struct stat self = {0};
    pm_status status = pm_target_parse(scratch, diag, o->target ? o->target : "native", &target);
    if (status == PM_OK)
        status = pm_frontend_load(scratch, diag, model, &m);
    FILE *out = status == PM_OK ? fopencookie(hasher, "w", (cookie_io_functions_t){.write = hash_write}) : NULL;
    if (status == PM_OK && !out)
        status = PM_ERR_NO_MEMORY;
    if (status == PM_OK) {
        const pm_file *last = NULL;
        if (stat("/proc/self/exe", &self) != 0)
            self.st_size = 0;
        fprintf(out, "%s %lld %lld.%ld %s %s %" PRIx64 " %s %d\n", PM_VERSION, (long long)self.st_size,
                (long long)self.st_mtim.tv_sec, self.st_mtim.tv_nsec, o->target ? o->target : target.name, target.cpu, target.features,
                o->quantize ? o->quantize : "none", o->opt_level);
        if (o->place)
            put_place(out, scratch, o->place);
        pm_module_print(m, out);
        fclose(out);
        for (size_t i = 0; i < m->entries.n; i++)
            add_graph_files(hasher, m->entries.data[i], &last);
        for (size_t i = 0; i < m->blobs.n; i++)
            add_file(hasher, m->blobs.entries[i].value, &last);
        pm_hash_text(pm_hasher_value(hasher), out_key);
    }
    pm_arena_destroy(scratch);
    return status;
}

/// ---- compiling --------------------------------------------------------------------------------------------

static pm_status compile(const char *model, const char *output, pm_compile_options options, const char *title)
{
    char *text = NULL;
    size_t size = 0;
    pm_progress *progress = pm_progress_start(title, true);
    FILE *held = open_memstream(&text, &size);
    if (!held) {
        pm_progress_end(progress);
        return PM_ERR_NO_MEMORY;
    }
    options.emit = PM_EMIT_EXE;
    options.on_step = pm_progress_step;
    options.user = progress;
    options.colour = pm_cli_colour() ? 1 : -1;
    pm_bug_report_model(model);
    pm_status status = pm_compile(model, output, &options, held, 0, NULL);
    pm_progress_end(progress);
    fclose(held);
    fwrite(text, 1, size, stderr);
    free(text);
    if (status == PM_ERR_INTERNAL)
        pm_bug_report_write("an internal error");
    return status;
}

static pm_status temporary(pm_arena *arena, pm_diag *diag, pm_cached *out)
{
    const char *folder = getenv("TMPDIR");
    char *path = pm_arena_printf(arena, "%s/pimoe-XXXXXX", folder && *folder ? folder : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0)
        return pm_error(diag, NULL, PM_ERR_IO, "no temporary file can be made (%s): %s", path, strerror(errno));
    close(fd);
    *out = (pm_cached){.path = path, .compiled = true, .temporary = true};
    return PM_OK;
}

pm_status pm_cached_executable(pm_arena *arena, pm_diag *diag, const char *model, const pm_compile_options *options,
                               bool use_cache, const char *title, pm_cached *out)
{
    pm_model_kind kind;
    char key[PM_HASH_TEXT_SIZE];
    *out = (pm_cached){0};
    PM_TRY(pm_model_detect(diag, model, &kind));
    if (kind == PM_MODEL_ARTIFACT) {
        out->path = strchr(model, '/') ? model : pm_path_join(arena, ".", model);
        return access(model, X_OK) == 0 ? PM_OK
               : pm_error(diag, NULL, PM_ERR_USAGE, "%s is compiled, but is no executable", model);
    }
    const char *folder = use_cache ? pm_cache_folder(arena, NULL) : NULL;
    if (folder && access(folder, W_OK | X_OK) != 0)
        folder = NULL;
    if (folder) {
        PM_TRY(make_key(arena, diag, model, options, key));
        out->path = pm_path_join(arena, folder, key);
        if (access(out->path, X_OK) == 0) {
            utimensat(AT_FDCWD, out->path, NULL, 0); // used now
            return PM_OK;
        }
        out->compiled = true;
    } else {
        PM_TRY(temporary(arena, diag, out));
    }
    pm_status status = compile(model, out->path, *options, title);
    if (status != PM_OK && out->temporary)
        unlink(out->path);
    if (status == PM_OK && folder)
        pm_cache_shrink(arena, folder, out->path, 10000000000u);
    return status;
}
