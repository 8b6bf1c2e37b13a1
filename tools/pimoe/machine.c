#include "tools/pimoe/machine.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/containers.h"
#include "base/str.h"
#include "runtime/rt_internal.h"

static const struct {
    uint64_t bit;
    const char *name;
} feature_names[] = {
    {PM_CPU_AVX2, "avx2"},     {PM_CPU_FMA, "fma"},
    {PM_CPU_F16C, "f16c"},     {PM_CPU_BMI2, "bmi2"},
    {PM_CPU_AVX512, "avx512"}, {PM_CPU_AVX512_VNNI, "avx512-vnni"},
    {PM_CPU_AVX512_BF16, "avx512-bf16"},
};

const char *pm_machine_features(pm_arena *arena, uint64_t features)
{
    pm_str text = pm_str_new(arena);
    for (size_t i = 0; i < PM_COUNT(feature_names); i++)
        if (features & feature_names[i].bit)
            pm_str_printf(&text, "%s%s", text.n ? " " : "", feature_names[i].name);
    return text.data;
}

/// First line of a small file of the system, without its end; false when it can't be read.
static bool line_of(const char *path, char *out, size_t size)
{
    FILE *in = fopen(path, "re");
    if (!in)
        return false;
    bool good = fgets(out, (int)size, in) != NULL;
    fclose(in);
    if (good)
        out[strcspn(out, "\n")] = '\0';
    return good;
}

/// Value behind "key…:" in a file of such lines.
static bool value_in(const char *path, const char *key, char *out, size_t size)
{
    FILE *in = fopen(path, "re");
    char line[512];
    bool found = false;
    while (in && !found && fgets(line, sizeof line, in)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(colon, "\n"), colon);
        found = true;
    }
    if (in)
        fclose(in);
    return found;
}

/// "32K" -> 32768.
static uint64_t sized(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : n;
}

static void look_at_caches(pm_machine *m)
{
    for (int i = 0; i < 8; i++) {
        char path[128], text[64];
        pm_cache_level *c = &m->caches[m->n_caches];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (!line_of(path, text, sizeof text))
            break;
        c->level = atoi(text);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        if (!line_of(path, c->type, sizeof c->type))
            break;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if (!line_of(path, text, sizeof text))
            break;
        c->bytes = sized(text);
        m->n_caches++;
    }
}

static void look_at_memory(pm_machine *m)
{
    char text[128];
    if (value_in("/proc/meminfo", "MemTotal", text, sizeof text))
        m->memory = strtoull(text, NULL, 10) << 10;
    if (value_in("/proc/meminfo", "MemAvailable", text, sizeof text))
        m->available = strtoull(text, NULL, 10) << 10;
    if (line_of("/sys/fs/cgroup/memory.max", text, sizeof text) && strcmp(text, "max") != 0)
        m->limit = strtoull(text, NULL, 10);
    if (line_of("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text)) {
        const char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;
        if (close)
            snprintf(m->huge_pages, sizeof m->huge_pages, "%.*s", (int)(close - open - 1), open + 1);
    }
}

void pm_machine_look(pm_machine *m)
{
    char text[128];
    cpu_set_t set;
    *m = (pm_machine){0};
    if (!value_in("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu))
        snprintf(m->cpu, sizeof m->cpu, "unknown");
    m->features = pm_cpu_features();
    uint64_t v3 = PM_CPU_AVX2 | PM_CPU_FMA | PM_CPU_F16C | PM_CPU_BMI2;
    m->level = (m->features & v3) != v3 ? NULL : m->features & PM_CPU_AVX512 ? "x86-64-v4" : "x86-64-v3";
    m->cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    m->usable = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : m->cores;
    if (line_of("/sys/fs/cgroup/cpu.max", text, sizeof text) && strncmp(text, "max", 3) != 0) {
        char *end;
        double quota = strtod(text, &end), period = strtod(end, NULL);
        m->quota = period > 0 ? quota / period : 0;
    }
    look_at_caches(m);
    look_at_memory(m);
}

const char *pm_machine_program(pm_arena *arena, const char *name)
{
    const char *path = getenv("PATH");
    for (path = path ? path : "/usr/bin:/bin"; *path;) {
        size_t n = strcspn(path, ":");
        const char *file = pm_arena_printf(arena, "%.*s/%s", (int)n, path, name);
        if (n && access(file, X_OK) == 0)
            return file;
        path += n + (path[n] == ':');
    }
    return NULL;
}
