/// pimoe doctor: what this machine offers, what is missing, how to get it.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cache.h"
#include "base/containers.h"
#include "base/elem.h"
#include "base/file.h"
#include "codegen/cuda/toolkit.h"
#include "pm/runtime.h"
#include "runtime/device/cublaslt.h"
#include "tools/cli/json_out.h"
#include "tools/driver/summary.h"
#include "tools/pimoe/check_run.h"
#include "tools/pimoe/child_process.h"
#include "tools/pimoe/commands.h"
#include "tools/pimoe/compile_cache.h"
#include "tools/pimoe/gpu_list.h"
#include "tools/pimoe/machine.h"

typedef enum finding_status { FINDING_OK, FINDING_NOTE, FINDING_MISSING } finding_status;
static const char *const status_names[] = {"ok", "note", "missing"};

typedef struct finding {
    finding_status status;
    const char *name, *text, *advice; ///< advice: how to get it; NULL when there is nothing to do
} finding;

typedef struct doctor {
    pm_arena *arena;
    pm_diag *diag;
    pm_machine machine;
    pm_gpu_list gpus;
    PM_VEC(finding) findings;
} doctor;

static void find(doctor *d, finding_status status, const char *name, const char *text, const char *advice)
{
    finding f = {status, name, text, advice};
    PM_PUSH(d->arena, &d->findings, f);
}

/// ---- looking ----------------------------------------------------------------------------------------------

static void look_at_cpu(doctor *d)
{
    const pm_machine *m = &d->machine;
    if (!m->level)
        find(d, FINDING_MISSING, "cpu", "it lacks AVX2, FMA, F16C or BMI2, the least that code is made for",
             "models can be compiled here with --target=x86-64-v3, and run on an x86 CPU since 2013");
    else
        find(d, FINDING_OK, "cpu", pm_arena_printf(d->arena, "runs code for %s", m->level), NULL);
    if (m->quota > 0 && m->quota < m->usable)
        find(d, FINDING_NOTE, "cpu time", pm_arena_printf(d->arena, "the control group allows %.1f of %d cores", m->quota,
                                                          m->usable),
             "give programs --threads that many: waiting workers cost time");
    if (strcmp(m->huge_pages, "never") == 0)
        find(d, FINDING_NOTE, "huge pages", "they are off; large weights are read up to a fifth slower",
             "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)");
}

static void look_at_libraries(doctor *d)
{
    static const char *const libraries[] = {"libc.so.6", "libm.so.6"};
    for (size_t i = 0; i < PM_COUNT(libraries); i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY);
        find(d, library ? FINDING_OK : FINDING_MISSING, libraries[i],
             library ? "found: executables are linked with it" : "not found", library ? NULL : "install glibc (libc6)");
        if (library)
            dlclose(library);
    }
}

static void look_at_programs(doctor *d)
{
    static const struct {
        const char *names[3], *what, *advice;
    } programs[] = {
        {{"cc", "gcc", "clang"}, "to link objects and libraries of models into C programs (pimoec itself needs none)",
         "apt install gcc"},
        {{"cmake", NULL, NULL}, "for pimoe_add_model in a CMake project", "apt install cmake"},
    };
    for (size_t i = 0; i < PM_COUNT(programs); i++) {
        const char *found = NULL;
        for (int k = 0; k < 3 && programs[i].names[k] && !found; k++)
            found = pm_machine_program(d->arena, programs[i].names[k]);
        find(d, found ? FINDING_OK : FINDING_NOTE, programs[i].names[0],
             pm_arena_printf(d->arena, "%s, %s", found ? found : "not found", programs[i].what),
             found ? NULL : programs[i].advice);
    }
}

/// A GPU is no must: what is missing is a note.
static void look_at_gpus(doctor *d)
{
    pm_gpu_list *l = &d->gpus;
    if (pm_gpu_list_look(l) != PM_OK) {
        find(d, FINDING_NOTE, "gpu", pm_arena_printf(d->arena, "none: %s", pm_last_error()),
             "models compiled with --target=sm_90a and the like need a GPU and NVIDIA's driver; --target=emu plays one");
        return;
    }
    find(d, FINDING_OK, "gpu", pm_arena_printf(d->arena, "%d, the driver speaks CUDA %d.%d", l->n, l->cuda / 1000,
                                               l->cuda % 1000 / 10), NULL);
    for (int i = 0; i < l->n; i++)
        if (l->gpus[i].major < 8)
            find(d, FINDING_NOTE, pm_arena_printf(d->arena, "cuda%d", i), "it is too old: code is made for sm_80 and later", NULL);
        else if (l->gpus[i].watched && l->gpus[i].link_width < l->gpus[i].link_width_most)
            find(d, FINDING_NOTE, pm_arena_printf(d->arena, "cuda%d", i),
                 pm_arena_printf(d->arena, "its link has %u of %u lanes", l->gpus[i].link_width, l->gpus[i].link_width_most),
                 "is it in the right slot? experts that wait on the host move slowly");
    if (l->no_nvml)
        find(d, FINDING_NOTE, "nvml", pm_arena_printf(d->arena, "%s: clocks, power and temperature are not known", l->no_nvml),
             "it comes with the driver (apt install libnvidia-ml1, or the driver's container toolkit with `utility`)");
}

/// What compiling for GPUs needs.
static void look_at_toolkit(doctor *d)
{
    static const struct {
        pm_toolkit_part part;
        const char *name, *what;
    } parts[] = {
        {PM_TOOLKIT_NVRTC, "nvrtc", "compiles hot kernels for GPUs"},
        {PM_TOOLKIT_LIBDEVICE, "libdevice", "math of GPUs, for all other ops"},
        {PM_TOOLKIT_NVJITLINK, "nvjitlink", "makes code for a named chip ahead of time"},
    };
    for (size_t i = 0; i < PM_COUNT(parts); i++) {
        const char *path = NULL;
        bool there = pm_toolkit_find(d->arena, pm_diag_create(d->arena), parts[i].part, &path) == PM_OK;
        find(d, there ? FINDING_OK : FINDING_NOTE, parts[i].name,
             pm_arena_printf(d->arena, "%s, %s", there ? path : "not found", parts[i].what),
             there ? NULL : "only compiling for GPUs needs it: install CUDA's toolkit (12.8 or later), or set CUDA_HOME");
    }
}

/// Programs look for it as this does.
static void look_at_cublaslt(doctor *d)
{
    const char *asked = getenv("PIMOE_CUBLASLT");
    const pm_cublaslt *lt;
    if (pm_lt_load(asked && strchr(asked, '/') ? asked : NULL, &lt) != PM_OK) {
        find(d, FINDING_NOTE, "cublaslt", pm_last_error(),
             "programs do without; PIMOE_CUBLASLT=1, or its path, lets it make dense products of many rows");
        return;
    }
    size_t version = lt->cublasLtGetVersion();
    find(d, FINDING_OK, "cublaslt",
         pm_arena_printf(d->arena, "%zu.%zu.%zu, makes dense products of many rows where PIMOE_CUBLASLT=1 asks for it",
                         version / 10000, version / 100 % 100, version % 100), NULL);
}

static void look_at_folders(doctor *d)
{
    const char *cache = pm_cache_folder(d->arena, NULL), *temp = getenv("TMPDIR");
    struct statvfs v;
    temp = temp && *temp ? temp : "/tmp";
    if (!cache || access(cache, W_OK | X_OK) != 0)
        find(d, FINDING_NOTE, "cache", "no folder for compiled models: pimoe run compiles each time",
             "set PIMOE_CACHE_DIR to a folder that can be written");
    else if (statvfs(cache, &v) == 0 && v.f_flag & ST_NOEXEC)
        find(d, FINDING_MISSING, "cache", pm_arena_printf(d->arena, "programs may not run from %s", cache),
             "set PIMOE_CACHE_DIR to a folder on a file system that is not mounted noexec");
    else
        find(d, FINDING_OK, "cache", pm_arena_printf(d->arena, "%s, %s free", cache,
                                                     pm_bytes_text(d->arena, (uint64_t)v.f_bavail * v.f_frsize)), NULL);
    if (access(temp, W_OK | X_OK) != 0)
        find(d, FINDING_MISSING, "temporary files", pm_arena_printf(d->arena, "%s can't be written", temp), "set TMPDIR");
    else if (statvfs(temp, &v) == 0 && v.f_flag & ST_NOEXEC)
        find(d, FINDING_MISSING, "temporary files", pm_arena_printf(d->arena, "programs may not run from %s", temp),
             "set TMPDIR to a folder on a file system that is not mounted noexec");
    else
        find(d, FINDING_OK, "temporary files", temp, NULL);
}

/// ---- a trial ----------------------------------------------------------------------------------------------

/// y = max(2x, 0), through a product: the whole road from IR to a loaded library.
static const char trial_text[] = "module \"trial\" {\n"
                                 "  symbol N in [1, 64]\n"
                                 "  entry forward(%x: f32[N, 4]) -> (y: %y) {\n"
                                 "    %w = const {value = [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2]} : f32[4, 4]\n"
                                 "    %h = linear(%x, %w)\n"
                                 "    %y = relu(%h)\n"
                                 "  }\n"
                                 "}\n";

typedef struct trial {
    char *model, *library;
    pm_status *status; ///< shared
    double *ms;        ///< shared
} trial;

static int compile_trial(void *arg)
{
    trial *t = arg;
    pm_compile_options o = {.struct_size = sizeof o, .emit = PM_EMIT_SHARED, .symbol = "trial", .opt_level = -1};
    pm_compile_result result = {0};
    *t->status = PM_ERR_INTERNAL;
    *t->status = pm_compile(t->model, t->library, &o, stderr, 0, &result);
    *t->ms = result.total_ms;
    return 0;
}

static pm_npz one_array(pm_arena *arena, const char *name, const float *values)
{
    pm_npz npz = {.path = "trial"};
    pm_npy array = {.elem = PM_F32, .rank = 2, .dims = {2, 4}, .size = 8 * sizeof(float)};
    float *data = pm_arena_alloc(arena, array.size, 64);
    memcpy(data, values, array.size);
    array.data = (const uint8_t *)data;
    snprintf(array.name, sizeof array.name, "%s", name);
    PM_PUSH(arena, &npz.arrays, array);
    return npz;
}

static pm_status try_it(doctor *d, const char **out_text)
{
    static const float x[8] = {1, -2, 3, -4, 0.5f, 0, -0.25f, 8}, y[8] = {2, 0, 6, 0, 1, 0, 0, 16};
    char *folder;
    void *shared;
    pm_out_file *model;
    pm_child_end end;
    PM_TRY(pm_temp_folder(d->arena, d->diag, &folder));
    trial t = {.model = pm_path_join(d->arena, folder, "trial.pm"), .library = pm_path_join(d->arena, folder, "trial.so")};
    PM_TRY(pm_out_open(d->arena, d->diag, t.model, 0600, &model));
    fputs(trial_text, model->stream);
    PM_TRY(pm_out_commit(d->diag, model));
    PM_TRY(pm_shared_memory(d->arena, d->diag, sizeof(pm_status) + 64, &shared));
    t.ms = shared;
    t.status = (pm_status *)((char *)shared + 64 - sizeof(pm_status));
    PM_TRY(pm_child_run(d->diag, compile_trial, &t, 60, &end));
    if (end.signal || end.timed_out || end.exit_code || *t.status != PM_OK)
        return pm_error(d->diag, NULL, PM_ERR_INTERNAL, "compiling failed");
    check_run *run = PM_NEW(d->arena, check_run);
    pm_npz in = one_array(d->arena, "x", x), want = one_array(d->arena, "y", y);
    PM_TRY(pm_shared_memory(d->arena, d->diag, sizeof *run->report + sizeof(check_result), (void **)&run->report));
    run->report->room = 1;
    run->library = t.library;
    run->symbol = "trial";
    run->cases[run->n_cases++] = (check_case){&in, &want, ""};
    run->rtol = run->atol = -1;
    PM_TRY(pm_child_run(d->diag, pm_check_run, run, 60, &end));
    if (end.signal || end.timed_out || run->report->status != PM_OK)
        return pm_error(d->diag, NULL, PM_ERR_INTERNAL, "running failed: %s", run->report->message);
    if (run->report->n_results != 1 || !run->report->results[0].c.pass)
        return pm_error(d->diag, NULL, PM_ERR_INTERNAL, "the result is wrong");
    *out_text = pm_arena_printf(d->arena, "a small model was compiled (%.0f ms), linked, loaded and run: right", *t.ms);
    return PM_OK;
}

static void look_at_trial(doctor *d)
{
    const char *text = NULL;
    if (try_it(d, &text) == PM_OK) {
        find(d, FINDING_OK, "trial", text, NULL);
        return;
    }
    const pm_diag_entry *last = pm_diag_size(d->diag) ? pm_diag_at(d->diag, pm_diag_size(d->diag) - 1) : NULL;
    find(d, FINDING_MISSING, "trial",
         pm_arena_printf(d->arena, "a small model could not be compiled and run: %s", last ? last->text : "no reason"),
         "please report it, with the output of pimoe doctor --json");
}

/// ---- telling ----------------------------------------------------------------------------------------------

static bool all_there(const doctor *d)
{
    for (size_t i = 0; i < d->findings.n; i++)
        if (d->findings.data[i].status == FINDING_MISSING)
            return false;
    return true;
}

static void tell_gpu_json(const doctor *d, pm_json_out *w, int number)
{
    const pm_gpu *g = &d->gpus.gpus[number];
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", pm_arena_printf(d->arena, "cuda%d", number));
    pm_jo_text(w, "kind", "cuda");
    pm_jo_text(w, "model", g->name);
    pm_jo_text(w, "arch", pm_arena_printf(d->arena, "sm_%d%d", g->major, g->minor));
    pm_jo_text(w, "bus", g->bus);
    pm_jo_uint(w, "multiprocessors", (uint64_t)g->multiprocessors);
    pm_jo_uint(w, "bytes", g->memory);
    pm_jo_number(w, "peak_bytes_per_second", g->peak_bytes_per_second);
    if (g->watched) {
        pm_jo_uint(w, "available", g->memory_free);
        pm_jo_object(w, "link");
        pm_jo_uint(w, "generation", g->link_generation);
        pm_jo_uint(w, "width", g->link_width);
        pm_jo_uint(w, "generation_most", g->link_generation_most);
        pm_jo_uint(w, "width_most", g->link_width_most);
        pm_jo_end(w);
        pm_jo_uint(w, "clock_mhz", g->clock_mhz);
        pm_jo_uint(w, "clock_mhz_most", g->clock_mhz_most);
        pm_jo_uint(w, "memory_clock_mhz", g->memory_clock_mhz);
        pm_jo_number(w, "watts", g->watts);
        pm_jo_number(w, "watts_most", g->watts_most);
        pm_jo_uint(w, "celsius", g->celsius);
    }
    pm_jo_end(w);
}

static void tell_gpu_text(const doctor *d, int number)
{
    const pm_gpu *g = &d->gpus.gpus[number];
    printf("  cuda%d: %s, sm_%d%d, %d multiprocessors, %s of memory", number, g->name, g->major, g->minor,
           g->multiprocessors, pm_bytes_text(d->arena, g->memory));
    if (g->watched)
        printf(" (%s free), link gen %u x%u, %u of %u MHz, %.0f of %.0f W, %u C", pm_bytes_text(d->arena, g->memory_free),
               g->link_generation, g->link_width, g->clock_mhz, g->clock_mhz_most, g->watts, g->watts_most, g->celsius);
    putchar('\n');
}

static void tell_json(const doctor *d)
{
    const pm_machine *m = &d->machine;
    pm_json_out w = {.out = stdout};
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_bool(&w, "ok", all_there(d));
    pm_jo_text(&w, "version", PM_VERSION);
    pm_jo_object(&w, "cpu");
    pm_jo_text(&w, "name", m->cpu);
    pm_jo_text(&w, "level", m->level);
    pm_jo_text(&w, "features", pm_machine_features(d->arena, m->features));
    pm_jo_int(&w, "cores", m->cores);
    pm_jo_int(&w, "usable_cores", m->usable);
    pm_jo_number(&w, "quota", m->quota);
    pm_jo_array(&w, "caches");
    for (int i = 0; i < m->n_caches; i++) {
        pm_jo_object(&w, NULL);
        pm_jo_int(&w, "level", m->caches[i].level);
        pm_jo_text(&w, "type", m->caches[i].type);
        pm_jo_uint(&w, "bytes", m->caches[i].bytes);
        pm_jo_end(&w);
    }
    pm_jo_end(&w);
    pm_jo_end(&w);
    pm_jo_object(&w, "memory");
    pm_jo_uint(&w, "bytes", m->memory);
    pm_jo_uint(&w, "available", m->available);
    pm_jo_uint(&w, "limit", m->limit);
    pm_jo_text(&w, "huge_pages", m->huge_pages);
    pm_jo_end(&w);
    pm_jo_array(&w, "devices");
    pm_jo_object(&w, NULL);
    pm_jo_text(&w, "name", "cpu0");
    pm_jo_text(&w, "kind", "cpu");
    pm_jo_end(&w);
    for (int i = 0; i < d->gpus.n; i++)
        tell_gpu_json(d, &w, i);
    pm_jo_end(&w);
    pm_jo_array(&w, "findings");
    for (size_t i = 0; i < d->findings.n; i++) {
        const finding *f = &d->findings.data[i];
        pm_jo_object(&w, NULL);
        pm_jo_text(&w, "name", f->name);
        pm_jo_text(&w, "status", status_names[f->status]);
        pm_jo_text(&w, "text", f->text);
        pm_jo_text(&w, "advice", f->advice);
        pm_jo_end(&w);
    }
    pm_jo_end(&w);
    pm_jo_end(&w);
}

static void tell_text(const doctor *d)
{
    const pm_machine *m = &d->machine;
    printf("PiMoE %s on %s\n", PM_VERSION, m->cpu);
    printf("  %s: %s\n", m->level ? m->level : "x86-64", pm_machine_features(d->arena, m->features));
    printf("  %d of %d cores usable; caches", m->usable, m->cores);
    for (int i = 0; i < m->n_caches; i++)
        if (strcmp(m->caches[i].type, "Instruction") != 0)
            printf(" L%d %lluK", m->caches[i].level, (unsigned long long)m->caches[i].bytes >> 10);
    printf("\n  %s of memory, %s available", pm_bytes_text(d->arena, m->memory), pm_bytes_text(d->arena, m->available));
    if (m->limit)
        printf(", at most %s for this control group", pm_bytes_text(d->arena, m->limit));
    printf("; huge pages: %s\n", m->huge_pages[0] ? m->huge_pages : "unknown");
    for (int i = 0; i < d->gpus.n; i++)
        tell_gpu_text(d, i);
    for (size_t i = 0; i < d->findings.n; i++) {
        const finding *f = &d->findings.data[i];
        printf("%-8s %s: %s\n", status_names[f->status], f->name, f->text);
        if (f->advice)
            printf("         %s\n", f->advice);
    }
    printf(all_there(d) ? "all that is needed is there\n" : "something that is needed is missing\n");
}

int pm_command_doctor(pm_arena *arena, const pm_cli_args *args)
{
    doctor d = {.arena = arena, .diag = pm_diag_create(arena)};
    pm_machine_look(&d.machine);
    look_at_cpu(&d);
    look_at_libraries(&d);
    look_at_programs(&d);
    look_at_gpus(&d);
    look_at_toolkit(&d);
    look_at_cublaslt(&d);
    look_at_folders(&d);
    look_at_trial(&d);
    if (args->count[DOCTOR_JSON])
        tell_json(&d);
    else
        tell_text(&d);
    return all_there(&d) ? 0 : 1;
}
