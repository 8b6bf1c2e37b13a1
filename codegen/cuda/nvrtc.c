#include "codegen/cuda/nvrtc.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cache.h"
#include "base/containers.h"
#include "codegen/cuda/toolkit.h"

/// Most bytes of kernels that are kept.
#define KERNEL_CACHE_BYTES (512u << 20)

// What of nvrtc.h and nvJitLink.h is used; no header of the toolkit is needed to build.
typedef struct nvrtc_functions {
    int (*version)(int *major, int *minor);
    const char *(*error_text)(int error);
    int (*create)(void **program, const char *source, const char *name, int n_headers, const char *const *headers,
                  const char *const *names);
    int (*destroy)(void **program);
    int (*compile)(void *program, int n_options, const char *const *options);
    int (*log_size)(void *program, size_t *size);
    int (*log)(void *program, char *log);
    int (*ptx_size)(void *program, size_t *size);
    int (*ptx)(void *program, char *ptx);
    int (*cubin_size)(void *program, size_t *size);
    int (*cubin)(void *program, char *cubin);
} nvrtc_functions;

typedef struct link_functions {
    int (*create)(void **handle, uint32_t n_options, const char **options);
    int (*destroy)(void **handle);
    int (*add)(void *handle, int type, const void *data, size_t size, const char *name);
    int (*complete)(void *handle);
    int (*cubin_size)(void *handle, size_t *size);
    int (*cubin)(void *handle, void *cubin);
    int (*log_size)(void *handle, size_t *size);
    int (*log)(void *handle, char *log);
} link_functions;

enum { LINK_INPUT_PTX = 2 };

struct pm_cuda_compiler {
    pm_arena *arena;
    pm_diag *diag;
    const char *folder; ///< of the cache, or NULL
    void *nvrtc_library, *link_library;
    nvrtc_functions nvrtc;
    link_functions link;
    pm_cuda_stats stats;
};

typedef struct symbol {
    const char *name;
    size_t offset;
} symbol;

static const symbol nvrtc_symbols[] = {
#define ROW(field, name) {name, offsetof(nvrtc_functions, field)}
    ROW(version, "nvrtcVersion"),
    ROW(error_text, "nvrtcGetErrorString"),
    ROW(create, "nvrtcCreateProgram"),
    ROW(destroy, "nvrtcDestroyProgram"),
    ROW(compile, "nvrtcCompileProgram"),
    ROW(log_size, "nvrtcGetProgramLogSize"),
    ROW(log, "nvrtcGetProgramLog"),
    ROW(ptx_size, "nvrtcGetPTXSize"),
    ROW(ptx, "nvrtcGetPTX"),
    ROW(cubin_size, "nvrtcGetCUBINSize"),
    ROW(cubin, "nvrtcGetCUBIN"),
#undef ROW
};

static const symbol link_symbols[] = {
#define ROW(field, name) {name, offsetof(link_functions, field)}
    ROW(create, "nvJitLinkCreate"),
    ROW(destroy, "nvJitLinkDestroy"),
    ROW(add, "nvJitLinkAddData"),
    ROW(complete, "nvJitLinkComplete"),
    ROW(cubin_size, "nvJitLinkGetLinkedCubinSize"),
    ROW(cubin, "nvJitLinkGetLinkedCubin"),
    ROW(log_size, "nvJitLinkGetErrorLogSize"),
    ROW(log, "nvJitLinkGetErrorLog"),
#undef ROW
};

pm_cuda_compiler *pm_cuda_compiler_new(pm_arena *arena, pm_diag *diag)
{
    pm_cuda_compiler *c = PM_NEW(arena, pm_cuda_compiler);
    *c = (pm_cuda_compiler){.arena = arena, .diag = diag, .folder = pm_cache_folder(arena, "kernels")};
    return c;
}

pm_cuda_stats pm_cuda_compiler_stats(const pm_cuda_compiler *c)
{
    return c->stats;
}

/// ---- libraries ----------------------------------------------------------------------------------------------

/// Opens a part and fills its table of functions. It stays open: it keeps threads and handlers of its own.
static pm_status open_part(pm_cuda_compiler *c, pm_toolkit_part part, const symbol *symbols, size_t n, void **library,
                           void *functions)
{
    const char *path;
    if (*library)
        return PM_OK;
    PM_TRY(pm_toolkit_find(c->arena, c->diag, part, &path));
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return pm_error(c->diag, NULL, PM_ERR_UNSUPPORTED, "%s can't be opened: %s", path, dlerror());
    for (size_t i = 0; i < n; i++) {
        void *f = dlsym(handle, symbols[i].name);
        if (!f) {
            dlclose(handle);
            return pm_error(c->diag, NULL, PM_ERR_UNSUPPORTED, "%s has no %s: it is older than version 12", path,
                            symbols[i].name);
        }
        memcpy((char *)functions + symbols[i].offset, &f, sizeof f);
    }
    *library = handle;
    return PM_OK;
}

static pm_status open_nvrtc(pm_cuda_compiler *c)
{
    return open_part(c, PM_TOOLKIT_NVRTC, nvrtc_symbols, PM_COUNT(nvrtc_symbols), &c->nvrtc_library, &c->nvrtc);
}

static pm_status open_link(pm_cuda_compiler *c)
{
    return open_part(c, PM_TOOLKIT_NVJITLINK, link_symbols, PM_COUNT(link_symbols), &c->link_library, &c->link);
}

/// ---- keys ---------------------------------------------------------------------------------------------------

static void add_text(pm_hasher *hasher, const char *text)
{
    pm_hasher_add(hasher, text, strlen(text) + 1);
}

/// Stands for a library's version without loading it, which takes longer than many kernels.
static pm_status add_library(pm_cuda_compiler *c, pm_hasher *hasher, pm_toolkit_part part)
{
    const char *path;
    struct stat st;
    PM_TRY(pm_toolkit_find(c->arena, c->diag, part, &path));
    if (stat(path, &st) != 0)
        memset(&st, 0, sizeof st);
    int64_t facts[] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (int64_t)st.st_ino, (int64_t)st.st_dev};
    add_text(hasher, path);
    pm_hasher_add(hasher, facts, sizeof facts);
    return PM_OK;
}

/// ---- templates ----------------------------------------------------------------------------------------------

/// Products and sums stay apart unless a template says fmaf: bits must not hang on what a compiler finds to join.
static const char *const fixed_options[] = {"-default-device", "--std=c++17", "--fmad=false", "-w"};

static const char *log_of(pm_cuda_compiler *c, void *program)
{
    size_t size = 0;
    if (!program || c->nvrtc.log_size(program, &size) != 0 || size <= 1)
        return "";
    char *log = pm_arena_alloc(c->arena, size + 1, 1);
    return c->nvrtc.log(program, log) == 0 ? log : "";
}

static pm_status nvrtc_error(pm_cuda_compiler *c, void *program, const char *name, int error)
{
    pm_status status = pm_error(c->diag, NULL, PM_ERR_INTERNAL, "CUDA template %s: %s", name, c->nvrtc.error_text(error));
    const char *log = log_of(c, program);
    if (*log)
        pm_note(c->diag, NULL, "%s", log);
    return status;
}

static pm_status take_code(pm_cuda_compiler *c, void *program, const char *name, pm_cuda_code *out)
{
    int error = c->nvrtc.ptx_size(program, &out->ptx_size);
    error = error ? error : c->nvrtc.cubin_size(program, &out->cubin_size);
    if (error)
        return nvrtc_error(c, program, name, error);
    char *ptx = pm_arena_alloc(c->arena, out->ptx_size + 1, 1);
    uint8_t *cubin = pm_arena_alloc(c->arena, out->cubin_size + 1, 16);
    error = c->nvrtc.ptx(program, ptx);
    error = error ? error : c->nvrtc.cubin(program, (char *)cubin);
    if (error)
        return nvrtc_error(c, program, name, error);
    out->ptx = ptx;
    out->ptx_size = strlen(ptx); // theirs counts the NUL
    out->cubin = cubin;
    out->log = log_of(c, program);
    return PM_OK;
}

static const char **options_of(pm_cuda_compiler *c, const pm_cuda_program *p, size_t *out_n)
{
    const char **options = PM_NEW_ARRAY(c->arena, const char *, p->n_definitions + PM_COUNT(fixed_options) + 2);
    size_t n = 0;
    options[n++] = pm_arena_printf(c->arena, "--gpu-architecture=%s", p->arch);
    for (size_t i = 0; i < PM_COUNT(fixed_options); i++)
        options[n++] = fixed_options[i];
    if (p->tells_resources)
        options[n++] = "--ptxas-options=-v";
    for (size_t i = 0; i < p->n_definitions; i++)
        options[n++] = pm_arena_printf(c->arena, "-D%s", p->definitions[i]);
    *out_n = n;
    return options;
}

static pm_status compile(pm_cuda_compiler *c, const pm_cuda_program *p, const char **options, size_t n_options,
                         pm_cuda_code *out)
{
    PM_TRY(open_nvrtc(c));
    const char **texts = PM_NEW_ARRAY(c->arena, const char *, p->n_sources + 1);
    const char **names = PM_NEW_ARRAY(c->arena, const char *, p->n_sources + 1);
    for (size_t i = 1; i < p->n_sources; i++) {
        texts[i - 1] = p->sources[i].text;
        names[i - 1] = p->sources[i].name;
    }
    void *program = NULL;
    int error = c->nvrtc.create(&program, p->sources[0].text, p->sources[0].name, (int)p->n_sources - 1, texts, names);
    if (error)
        return nvrtc_error(c, NULL, p->name, error);
    error = c->nvrtc.compile(program, (int)n_options, options);
    pm_status status = error ? nvrtc_error(c, program, p->name, error) : take_code(c, program, p->name, out);
    c->nvrtc.destroy(&program);
    return status;
}

/// An entry of the cache: sizes of the PTX and the log, both with their NUL, then the cubin.
typedef struct kept_sizes {
    uint64_t ptx, log;
} kept_sizes;

static void keep_code(pm_cuda_compiler *c, pm_hash128 key, const pm_cuda_code *code)
{
    kept_sizes sizes = {code->ptx_size + 1, strlen(code->log) + 1};
    size_t size = sizeof sizes + sizes.ptx + sizes.log + code->cubin_size;
    uint8_t *bytes = pm_arena_alloc(c->arena, size, 16), *at = bytes + sizeof sizes;
    memcpy(bytes, &sizes, sizeof sizes);
    memcpy(at, code->ptx, sizes.ptx);
    memcpy(at + sizes.ptx, code->log, sizes.log);
    memcpy(at + sizes.ptx + sizes.log, code->cubin, code->cubin_size);
    pm_cache_put(c->arena, c->folder, key, bytes, size);
}

static bool kept_code(pm_cuda_compiler *c, pm_hash128 key, pm_cuda_code *out)
{
    const uint8_t *bytes;
    size_t size;
    kept_sizes sizes;
    if (!pm_cache_get(c->arena, c->folder, key, &bytes, &size) || size < sizeof sizes)
        return false;
    memcpy(&sizes, bytes, sizeof sizes);
    bytes += sizeof sizes;
    size -= sizeof sizes;
    if (sizes.ptx == 0 || sizes.ptx > size || sizes.log == 0 || sizes.log > size - sizes.ptx ||
        bytes[sizes.ptx - 1] != 0 || bytes[sizes.ptx + sizes.log - 1] != 0)
        return false;
    out->ptx = (const char *)bytes;
    out->ptx_size = (size_t)sizes.ptx - 1;
    out->log = out->ptx + sizes.ptx;
    out->cubin_size = size - (size_t)(sizes.ptx + sizes.log);
    uint8_t *cubin = pm_arena_alloc(c->arena, out->cubin_size + 1, 16); // aligned, as loaders want ELF
    memcpy(cubin, bytes + sizes.ptx + sizes.log, out->cubin_size);
    out->cubin = cubin;
    return true;
}

static void note_kept(pm_cuda_compiler *c)
{
    // Once: a model's kernels are few beside what is kept.
    static atomic_flag shrunk = ATOMIC_FLAG_INIT;
    c->stats.compiled++;
    if (!atomic_flag_test_and_set(&shrunk))
        pm_cache_shrink(c->arena, c->folder, NULL, KERNEL_CACHE_BYTES);
}

pm_status pm_cuda_compile(pm_cuda_compiler *c, const pm_cuda_program *p, pm_cuda_code *out)
{
    *out = (pm_cuda_code){0};
    size_t n;
    const char **options = options_of(c, p, &n);
    pm_hasher *hasher = pm_hasher_new(c->arena);
    PM_TRY(add_library(c, hasher, PM_TOOLKIT_NVRTC));
    for (size_t i = 0; i < n; i++)
        add_text(hasher, options[i]);
    for (size_t i = 0; i < p->n_sources; i++) {
        add_text(hasher, p->sources[i].name);
        add_text(hasher, p->sources[i].text);
    }
    pm_hash128 key = pm_hasher_value(hasher);
    if (kept_code(c, key, out)) {
        c->stats.from_cache++;
        return PM_OK;
    }
    PM_TRY(compile(c, p, options, n, out));
    keep_code(c, key, out);
    note_kept(c);
    return PM_OK;
}

/// ---- PTX to cubins ------------------------------------------------------------------------------------------

static pm_status link_error(pm_cuda_compiler *c, void *handle, const char *name, int error)
{
    size_t size = 0;
    pm_status status =
        pm_error(c->diag, NULL, PM_ERR_INTERNAL, "%s: nvJitLink takes its PTX for wrong (%d)", name, error);
    if (handle && c->link.log_size(handle, &size) == 0 && size > 1) {
        char *log = pm_arena_alloc(c->arena, size + 1, 1);
        if (c->link.log(handle, log) == 0)
            pm_note(c->diag, NULL, "%s", log);
    }
    return status;
}

static pm_status assemble(pm_cuda_compiler *c, const char *name, const pm_cuda_ptx *modules, size_t n_modules,
                          const char *arch, const uint8_t **out_cubin, size_t *out_size)
{
    PM_TRY(open_link(c));
    const char *options[] = {pm_arena_printf(c->arena, "-arch=%s", arch)};
    void *handle = NULL;
    int error = c->link.create(&handle, 1, options);
    if (error)
        return link_error(c, NULL, name, error);
    uint8_t *cubin = NULL;
    for (size_t i = 0; i < n_modules && !error; i++)
        error = c->link.add(handle, LINK_INPUT_PTX, modules[i].text, modules[i].size + 1, name);
    error = error ? error : c->link.complete(handle);
    error = error ? error : c->link.cubin_size(handle, out_size);
    if (!error) {
        cubin = pm_arena_alloc(c->arena, *out_size + 1, 16);
        error = c->link.cubin(handle, cubin);
    }
    pm_status status = error ? link_error(c, handle, name, error) : PM_OK;
    c->link.destroy(&handle);
    *out_cubin = cubin;
    return status;
}

pm_status pm_cuda_assemble(pm_cuda_compiler *c, const char *name, const pm_cuda_ptx *modules, size_t n_modules,
                           const char *arch, const uint8_t **out_cubin, size_t *out_size)
{
    pm_hasher *hasher = pm_hasher_new(c->arena);
    PM_TRY(add_library(c, hasher, PM_TOOLKIT_NVJITLINK));
    add_text(hasher, arch);
    for (size_t i = 0; i < n_modules; i++)
        pm_hasher_add(hasher, modules[i].text, modules[i].size + 1);
    pm_hash128 key = pm_hasher_value(hasher);
    if (pm_cache_get(c->arena, c->folder, key, out_cubin, out_size)) {
        c->stats.from_cache++;
        return PM_OK;
    }
    PM_TRY(assemble(c, name, modules, n_modules, arch, out_cubin, out_size));
    pm_cache_put(c->arena, c->folder, key, *out_cubin, *out_size);
    note_kept(c);
    return PM_OK;
}
