/// x86 targets by name.
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

pm_status pm_target_parse(pm_arena *arena, pm_diag *diag, const char *name, pm_target *out_target)
{
    *out_target = (pm_target){.name = name, .cpu = name};
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
        const char *names[PM_COUNT(cpus) + 1] = {"native"};
        for (size_t i = 0; i < PM_COUNT(cpus); i++)
            names[i + 1] = cpus[i].name;
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
