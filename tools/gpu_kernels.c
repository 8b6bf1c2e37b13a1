/// Writes the table of docs/gpu-kernels.md: what each CUDA template needs on each chip. With --write FOLDER [CHIPS]: all
/// templates without constants instead, as FOLDER/NAME.sm_90a.cubin (and .ptx that runs on other chips), and those that gpu-bench times
/// (scripts/gpu-check).
/// Exit code 77: NVRTC isn't there; 1: a template spills, or could not be compiled.
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/file.h"
#include "codegen/cuda/chips.h"
#include "codegen/cuda/templates.h"
#include "codegen/cuda/toolkit.h"
#include "runtime/runtime_abi.h"

enum { EXIT_SKIP = 77, WARP = 32 };

static const char *const chips[] = {"sm_80", "sm_89", "sm_90a", "sm_100a"};

typedef struct typical {
    const char *template_name, *label, *constants;
} typical;

static const typical rows[] = {
#define PM_CU_TYPICAL(template, label, constants) {#template, label, constants},
#include "codegen/cuda/typical.def"
    {0},
};

typedef struct resources {
    uint32_t registers, shared, stack, spilled;
} resources;

typedef struct writer {
    pm_arena *arena;
    pm_diag *diag;
    pm_cuda_compiler *compiler;
    size_t n_spilling;
} writer;

/// The number before `what` in the assembler's log; 0 when there is none.
static uint32_t number_before(const char *log, const char *what)
{
    const char *at = strstr(log, what);
    if (!at)
        return 0;
    while (at > log && at[-1] == ' ')
        at--;
    while (at > log && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return (uint32_t)strtoul(at, NULL, 10);
}

static resources read_log(const char *log)
{
    return (resources){.registers = number_before(log, "registers"), .shared = number_before(log, "bytes smem"),
                       .stack = number_before(log, "bytes stack frame"),
                       .spilled = number_before(log, "bytes spill stores") + number_before(log, "bytes spill loads")};
}

static uint32_t round_up(uint32_t x, uint32_t to)
{
    return (x + to - 1) / to * to;
}

/// Per cent of the warps that a multiprocessor can hold.
static uint32_t occupancy(const pm_cuda_chip *chip, const pm_cuda_template *t, const resources *r)
{
    enum { REGISTER_UNIT = 256, PARTITIONS = 4, SHARED_UNIT = 128, SHARED_RESERVED = 1024 };
    uint32_t warps = round_up(t->threads, WARP) / WARP;
    uint32_t of_warp = round_up((r->registers ? r->registers : 1) * WARP, REGISTER_UNIT);
    uint32_t by_registers = chip->registers / PARTITIONS / of_warp * PARTITIONS / warps;
    uint32_t shared = round_up(r->shared + t->shared_bytes + SHARED_RESERVED, SHARED_UNIT);
    uint32_t by_shared = chip->shared_bytes / shared, blocks = chip->warps / warps;
    blocks = blocks < chip->blocks ? blocks : chip->blocks;
    blocks = blocks < by_registers ? blocks : by_registers;
    blocks = blocks < by_shared ? blocks : by_shared;
    return blocks * warps * 100 / chip->warps;
}

/// "N=4096 K=1024" as constants.
static size_t parse_constants(writer *w, const char *text, pm_launch_fixed *out)
{
    size_t n = 0;
    while (*text && n < PM_LAUNCH_MAX_FIXED) {
        size_t name = strcspn(text, "=");
        char *end;
        out[n++] = (pm_launch_fixed){pm_arena_strndup(w->arena, text, name), strtoll(text + name + 1, &end, 0)};
        text = end + strspn(end, " ");
    }
    return n;
}

static bool runs_on(const pm_cuda_template *t, const char *chip)
{
    return !(t->flags & PM_RT_KERNEL_WGMMA) || strcmp(chip, PM_RT_WGMMA_ARCH) == 0;
}

static pm_status write_row(writer *w, const pm_cuda_template *t, const typical *row)
{
    pm_launch_fixed fixed[PM_LAUNCH_MAX_FIXED];
    size_t n_fixed = parse_constants(w, row->constants, fixed);
    printf("| %s | %s | %u |", t->name, *row->label ? row->label : row->constants, (unsigned)t->threads);
    for (size_t i = 0; i < PM_COUNT(chips); i++) {
        pm_cuda_program program;
        pm_cuda_code code;
        if (!runs_on(t, chips[i])) {
            fputs(" none |", stdout);
            continue;
        }
        PM_TRY(pm_cuda_template_program(w->arena, w->diag, t, "kernel", fixed, n_fixed, chips[i], &program));
        program.tells_resources = true;
        PM_TRY(pm_cuda_compile(w->compiler, &program, &code));
        resources r = read_log(code.log);
        printf(" %u, %u B, %u %%", (unsigned)r.registers, (unsigned)(r.shared + t->shared_bytes),
               (unsigned)occupancy(pm_cuda_chip_named(chips[i]), t, &r));
        if (r.stack)
            printf(", stack %u", (unsigned)r.stack);
        if (r.spilled)
            printf(", **spills %u**", (unsigned)r.spilled);
        w->n_spilling += r.spilled > 0;
        fputs(" |", stdout);
    }
    putchar('\n');
    return PM_OK;
}

static pm_status write_template(writer *w, const pm_cuda_template *t)
{
    bool any = false;
    for (const typical *row = rows; row->template_name; row++) {
        if (strcmp(row->template_name, t->name) != 0)
            continue;
        PM_TRY(write_row(w, t, row));
        any = true;
    }
    return any ? PM_OK : write_row(w, t, &(typical){t->name, "", ""});
}

static pm_status write_table(writer *w)
{
    size_t n;
    const pm_cuda_template *templates = pm_cuda_templates(&n);
    for (const typical *row = rows; row->template_name; row++)
        if (!pm_cuda_template_named(row->template_name))
            return pm_error(w->diag, NULL, PM_ERR_INTERNAL, "typical.def names the template %s, which isn't there",
                            row->template_name);
    puts("# CUDA templates on chips\n\nMade by `scripts/gpu-kernels` from `codegen/cuda/templates.def` and "
         "`codegen/cuda/typical.def`, compared by a test.\nEach cell: registers of a thread, shared memory of a block, "
         "predicted occupancy (warps that run at once, of those that fit).\n`stack`: bytes of arrays in local memory; `none`: no code for this chip. "
         "Nothing may spill.\n");
    fputs("| template | constants | threads |", stdout);
    for (size_t i = 0; i < PM_COUNT(chips); i++)
        printf(" %s |", chips[i]);
    fputs("\n|---|---|---|", stdout);
    for (size_t i = 0; i < PM_COUNT(chips); i++)
        fputs("---|", stdout);
    putchar('\n');
    for (size_t i = 0; i < n; i++)
        PM_TRY(write_template(w, &templates[i]));
    return PM_OK;
}

static pm_status write_bytes(writer *w, const char *path, const void *bytes, size_t size)
{
    pm_out_file *out;
    PM_TRY(pm_out_open(w->arena, w->diag, path, 0644, &out));
    fwrite(bytes, 1, size, out->stream);
    return pm_out_commit(w->diag, out);
}

typedef struct variant {
    const char *name, *template_name, *constants;
} variant;

static const variant variants[] = {
#define PM_GPU_VARIANT(name, template, constants) {#name, #template, constants},
#include "tools/gpu_bench/gpu_variants.def"
};

/// FOLDER/NAME.CHIP.cubin and .ptx, NAME: the template's, and that of a variant.
static pm_status write_kernel(writer *w, const char *folder, const pm_cuda_template *t, const variant *v, const char *chip)
{
    pm_launch_fixed fixed[PM_LAUNCH_MAX_FIXED];
    pm_cuda_program program;
    pm_cuda_code code;
    size_t n_fixed = v ? parse_constants(w, v->constants, fixed) : 0;
    const char *name = pm_arena_printf(w->arena, "%s/%s%s%s.%s", folder, t->name, v ? "." : "", v ? v->name : "", chip);
    PM_TRY(pm_cuda_template_program(w->arena, w->diag, t, pm_arena_printf(w->arena, "pm_cu_%s", t->name), fixed, n_fixed, chip,
                                    &program));
    PM_TRY(pm_cuda_compile(w->compiler, &program, &code));
    if (code.cubin)
        PM_TRY(write_bytes(w, pm_arena_printf(w->arena, "%s.cubin", name), code.cubin, code.cubin_size));
    bool runs_elsewhere = chip[strlen(chip) - 1] != 'a'; // PTX with a letter doesn't; other chips time the general kernel
    if (code.cubin && (v || !runs_elsewhere))
        return PM_OK;
    return write_bytes(w, pm_arena_printf(w->arena, "%s.ptx", name), code.ptx, code.ptx_size);
}

static bool wanted(const char *list, const char *chip)
{
    size_t n = strlen(chip);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, chip, n) == 0 && (at[n] == ',' || !at[n]))
            return true;
    return !list;
}

/// list: chips, separated by commas; NULL: all.
static pm_status write_kernels(writer *w, const char *folder, const char *list)
{
    size_t n;
    const pm_cuda_template *templates = pm_cuda_templates(&n);
    for (size_t c = 0; c < PM_COUNT(chips); c++) {
        if (!wanted(list, chips[c]))
            continue;
        for (size_t i = 0; i < n; i++)
            if (runs_on(&templates[i], chips[c]))
                PM_TRY(write_kernel(w, folder, &templates[i], NULL, chips[c]));
        for (size_t i = 0; i < PM_COUNT(variants); i++) {
            const pm_cuda_template *t = pm_cuda_template_named(variants[i].template_name);
            if (t && runs_on(t, chips[c]))
                PM_TRY(write_kernel(w, folder, t, &variants[i], chips[c]));
        }
    }
    return PM_OK;
}

int main(int argc, char **argv)
{
    pm_arena *arena = pm_arena_create();
    writer w = {.arena = arena, .diag = pm_diag_create(arena)};
    const char *path;
    int code = 0;
    if (pm_toolkit_find(arena, w.diag, PM_TOOLKIT_NVRTC, &path) != PM_OK) {
        code = EXIT_SKIP;
    } else {
        w.compiler = pm_cuda_compiler_new(arena, w.diag);
        bool kernels = argc >= 3 && strcmp(argv[1], "--write") == 0;
        code = pm_exit_code(kernels ? write_kernels(&w, argv[2], argc > 3 ? argv[3] : NULL) : write_table(&w));
        if (w.n_spilling)
            fprintf(stderr, "%zu kernels spill registers\n", w.n_spilling);
        code = code ? code : w.n_spilling > 0;
    }
    pm_diag_print(w.diag, stderr, false);
    pm_arena_destroy(arena);
    return code;
}
