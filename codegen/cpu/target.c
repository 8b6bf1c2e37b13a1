/// x86 targets by name.
#include <stdlib.h>
#include <string.h>

#include "llvm-c/Core.h"
#include "llvm-c/TargetMachine.h"

#include "codegen/codegen.h"
#include "runtime/artifact_format.h"

enum {
    V3 = PM_CPU_AVX2 | PM_CPU_FMA | PM_CPU_F16C | PM_CPU_BMI2,
    V4 = V3 | PM_CPU_AVX512,
    VNNI = V4 | PM_CPU_AVX512_VNNI,
    BF16 = VNNI | PM_CPU_AVX512_BF16,
};

static const struct {
    const char *name;
    uint64_t features;
} cpus[] = {
    {"x86-64-v3", V3},      {"x86-64-v4", V4},        {"haswell", V3},
    {"skylake", V3},        {"alderlake", V3},        {"znver1", V3},
    {"znver2", V3},         {"znver3", V3},           {"znver4", BF16},
    {"znver5", BF16},       {"skylake-avx512", V4},   {"cascadelake", VNNI},
    {"cooperlake", BF16},   {"icelake-server", VNNI}, {"sapphirerapids", BF16},
    {"emeraldrapids", BF16}, {"graniterapids", BF16},
};

static uint64_t host_features(void)
{
    uint64_t f = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        f |= V3;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        f |= PM_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni"))
        f |= PM_CPU_AVX512_VNNI;
    if (__builtin_cpu_supports("avx512bf16"))
        f |= PM_CPU_AVX512_BF16;
    return f;
}

enum { MAX_DEVICES = 8 }; ///< beside the CPU

/// Chips of GPUs; their limits are the makers' (memory in bytes/s, f32 FMA, PCIe or what takes its place).
static const pm_device_target chips[] = {
    {.name = "sm_80", .bytes_per_second = 1.6e12, .flops_per_second = 19e12, .link_bytes_per_second = 25e9,
     .memory = 40ull << 30},
    {.name = "sm_89", .bytes_per_second = 0.9e12, .flops_per_second = 80e12, .link_bytes_per_second = 25e9,
     .memory = 24ull << 30},
    {.name = "sm_90a", .bytes_per_second = 3.3e12, .flops_per_second = 60e12, .link_bytes_per_second = 50e9,
     .memory = 80ull << 30},
    {.name = "sm_100a", .bytes_per_second = 8e12, .flops_per_second = 75e12, .link_bytes_per_second = 60e9,
     .memory = 180ull << 30},
    {.name = "emu", .emulated = true, .bytes_per_second = 1.6e12, .flops_per_second = 19e12,
     .link_bytes_per_second = 25e9, .memory = 40ull << 30},
};

static pm_status parse_cpu(pm_arena *arena, pm_diag *diag, const char *name, pm_target *out_target)
{
    out_target->name = out_target->cpu = name;
    if (strcmp(name, "native") == 0) {
        char *host = LLVMGetHostCPUName();
        if (!host)
            pm_arena_out_of_memory(arena);
        out_target->cpu = pm_arena_strdup(arena, host);
        LLVMDisposeMessage(host);
        out_target->features = host_features();
        if ((out_target->features & V3) != V3)
            return pm_error(diag, NULL, PM_ERR_UNSUPPORTED,
                            "this machine's CPU (%s) lacks AVX2 and FMA, the least that we generate "
                            "code for", out_target->cpu);
        // What LLVM calls the CPU may have features that this machine hides: name the level instead.
        bool v4 = out_target->features & PM_CPU_AVX512;
        for (size_t i = 0; i < PM_COUNT(cpus); i++)
            if (strcmp(cpus[i].name, out_target->cpu) == 0 &&
                (cpus[i].features & ~out_target->features) != 0)
                out_target->cpu = v4 ? "x86-64-v4" : "x86-64-v3";
    }
    for (size_t i = 0; i < PM_COUNT(cpus) && !out_target->features; i++)
        if (strcmp(cpus[i].name, name) == 0)
            out_target->features = cpus[i].features;
    if (!out_target->features) {
        const char *names[PM_COUNT(cpus) + PM_COUNT(chips) + 1] = {"native"};
        for (size_t i = 0; i < PM_COUNT(cpus); i++)
            names[i + 1] = cpus[i].name;
        for (size_t i = 0; i < PM_COUNT(chips); i++)
            names[PM_COUNT(cpus) + 1 + i] = chips[i].name;
        const char *near = pm_nearest(name, names, PM_COUNT(names));
        pm_status status = pm_error(diag, NULL, PM_ERR_USAGE, "unknown target '%s'%s%s%s", name,
                                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        char *list = pm_arena_strdup(arena, names[0]);
        for (size_t i = 1; i < PM_COUNT(names); i++)
            list = pm_arena_printf(arena, "%s, %s", list, names[i]);
        pm_note(diag, NULL, "targets: %s", list);
        return status;
    }
    out_target->vector_floats = out_target->features & PM_CPU_AVX512 ? 16 : 8;
    return PM_OK;
}

static const pm_device_target *chip_named(const char *name)
{
    for (size_t i = 0; i < PM_COUNT(chips); i++)
        if (strcmp(chips[i].name, name) == 0)
            return &chips[i];
    return NULL;
}

/// As many devices of a chip's kind; all of them can run the same code.
static void make_devices(pm_arena *arena, const pm_device_target *chip, size_t n, pm_target *target)
{
    pm_device_target *devices = PM_NEW_ARRAY(arena, pm_device_target, n);
    const char **archs = PM_NEW_ARRAY(arena, const char *, PM_COUNT(chips));
    for (size_t i = 0; i < n; i++) {
        devices[i] = *chip;
        devices[i].name = pm_arena_printf(arena, "%s%zu", chip->emulated ? "emu" : "cuda", i);
        devices[i].archs = archs;
    }
    target->devices = devices;
    target->n_devices = n;
}

/// One more chip: the first one makes devices (`count` of them, 0: one), another one of the same kind more code for them.
static pm_status add_chip(pm_arena *arena, pm_diag *diag, const pm_device_target *chip, size_t count, pm_target *target)
{
    pm_device_target *devices = (pm_device_target *)target->devices;
    if (devices && devices->emulated != chip->emulated)
        return pm_error(diag, NULL, PM_ERR_USAGE, "--target: emu and a GPU can't stand side by side");
    if (devices && count > 0 && count != target->n_devices)
        return pm_error(diag, NULL, PM_ERR_USAGE, "--target: %zu devices and %zu devices", target->n_devices, count);
    if (!devices)
        make_devices(arena, chip, count > 0 ? count : 1, target);
    devices = (pm_device_target *)target->devices;
    const char **archs = (const char **)devices->archs;
    for (size_t i = 0; i < devices->n_archs; i++)
        if (strcmp(archs[i], chip->name) == 0)
            return PM_OK;
    archs[devices->n_archs] = chip->name;
    for (size_t i = 0; i < target->n_devices; i++)
        devices[i].n_archs++;
    return PM_OK;
}

/// "sm_90a:2": the chip, and how many of it there are (0: nothing is said).
static pm_status split_count(pm_arena *arena, pm_diag *diag, const char *name, const char **out_chip, size_t *out_count)
{
    const char *colon = strchr(name, ':');
    *out_chip = name;
    *out_count = 0;
    if (!colon)
        return PM_OK;
    char *end;
    unsigned long count = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || count < 1 || count > MAX_DEVICES)
        return pm_error(diag, NULL, PM_ERR_USAGE, "--target=%s: behind the colon stands how many there are, 1 to %d", name,
                        MAX_DEVICES);
    *out_chip = pm_arena_strndup(arena, name, (size_t)(colon - name));
    *out_count = count;
    if (!chip_named(*out_chip))
        return pm_error(diag, NULL, PM_ERR_USAGE, "--target=%s: there can be several GPUs, or emu, alone", name);
    return PM_OK;
}

pm_status pm_target_parse(pm_arena *arena, pm_diag *diag, const char *names, pm_target *out_target)
{
    const char *cpu = NULL;
    *out_target = (pm_target){0};
    for (const char *at = names; *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        const char *name = pm_arena_strndup(arena, at, n);
        size_t count;
        PM_TRY(split_count(arena, diag, name, &name, &count));
        const pm_device_target *chip = chip_named(name);
        at += n;
        if (chip) {
            PM_TRY(add_chip(arena, diag, chip, count, out_target));
        } else if (cpu && strcmp(cpu, name) != 0) {
            return pm_error(diag, NULL, PM_ERR_USAGE, "--target=%s and --target=%s: one CPU at a time", cpu, name);
        } else {
            cpu = name;
        }
    }
    out_target->cpu_named = cpu != NULL;
    return parse_cpu(arena, diag, cpu ? cpu : "native", out_target);
}
