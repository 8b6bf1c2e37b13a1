#include "tools/pimoe/compile_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
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
                (long long)self.st_mtim.tv_sec, self.st_mtim.tv_nsec, target.name, target.cpu, target.features,
                o->quantize ? o->quantize : "none", o->opt_level);
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

/// ---- the folder -------------------------------------------------------------------------------------------

/// Makes a folder with those above it; true when it is there and can be written.
static bool make_folder(char *path)
{
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = '\0';
            mkdir(path, 0700);
            *at = '/';
        }
    mkdir(path, 0700);
    return access(path, W_OK | X_OK) == 0;
}

const char *pm_cache_folder(pm_arena *arena)
{
    const char *own = getenv("PIMOE_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *path = own && *own                   ? pm_arena_strdup(arena, own)
                 : xdg && xdg[0] == '/'        ? pm_path_join(arena, xdg, "pimoe")
                 : home && home[0] == '/'      ? pm_path_join(arena, home, ".cache/pimoe")
                                               : NULL;
    return path && make_folder(path) ? path : NULL;
}

typedef struct kept {
    char *path;
    uint64_t size;
    struct timespec used;
} kept;

static int older(const void *x, const void *y)
{
    const kept *a = x, *b = y;
    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    return (a->used.tv_nsec > b->used.tv_nsec) - (a->used.tv_nsec < b->used.tv_nsec);
}

/// Removes what was not used for longest until the rest fits; `keep` stays.
static void shrink(pm_arena *arena, const char *folder, const char *keep)
{
    const char *limit = getenv("PIMOE_CACHE_BYTES");
    uint64_t most = limit && *limit ? strtoull(limit, NULL, 10) : 10000000000u, total = 0;
    PM_VEC(kept) list = {0};
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        struct stat st;
        size_t n = strlen(e->d_name); // only what is certainly ours
        if (n != PM_HASH_TEXT_SIZE - 1 || strspn(e->d_name, "0123456789abcdef") != n)
            continue;
        kept one = {.path = pm_path_join(arena, folder, e->d_name)};
        if (lstat(one.path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        one.size = (uint64_t)st.st_size;
        one.used = st.st_mtim; // set anew at each use
        total += one.size;
        PM_PUSH(arena, &list, one);
    }
    if (dir)
        closedir(dir);
    if (list.n)
        qsort(list.data, list.n, sizeof *list.data, older);
    for (size_t i = 0; i < list.n && total > most; i++) {
        if (strcmp(list.data[i].path, keep) == 0 || unlink(list.data[i].path) != 0)
            continue;
        total -= list.data[i].size;
    }
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
    const char *folder = use_cache ? pm_cache_folder(arena) : NULL;
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
        shrink(arena, folder, out->path);
    return status;
}
