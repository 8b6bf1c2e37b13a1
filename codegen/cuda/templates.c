#include "codegen/cuda/templates.h"

#include <inttypes.h>
#include <string.h>

#include "base/containers.h"
#include "runtime/runtime_abi.h"

static const pm_cuda_template templates[] = {
#define PM_CU(name, file, threads, shared, flags, help) {#name, file, threads, shared, flags, help},
#include "codegen/cuda/templates.def"
    {0},
};

static const char folder[] = "codegen/cuda/kernels/";

/// Made by the build: the last one has no name.
extern const pm_cuda_source pm_cuda_source_table[];

const pm_cuda_template *pm_cuda_templates(size_t *out_n)
{
    *out_n = PM_COUNT(templates) - 1;
    return templates;
}

const pm_cuda_template *pm_cuda_template_named(const char *name)
{
    for (const pm_cuda_template *t = templates; t->name; t++)
        if (strcmp(t->name, name) == 0)
            return t;
    return NULL;
}

const pm_cuda_source *pm_cuda_template_sources(size_t *out_n)
{
    size_t n = 0;
    while (pm_cuda_source_table[n].name)
        n++;
    *out_n = n;
    return pm_cuda_source_table;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// The text with all its kernels but one made functions that nobody calls: a kernel costs as long to compile as a file.
static char *keep_kernel(pm_arena *arena, const char *text, const char *kept)
{
    static const char mark[] = "PM_GLOBAL void ", other[] = "PM_DEVICE void ";
    char *copy = pm_arena_strdup(arena, text);
    size_t n = strlen(kept);
    for (char *at = copy; (at = strstr(at, mark)) != NULL; at += sizeof mark - 1) {
        const char *name = at + sizeof mark - 1;
        bool starts_line = at == copy || at[-1] == '\n';
        if (starts_line && (strncmp(name, kept, n) != 0 || is_word(name[n])))
            memcpy(at, other, sizeof other - 1);
    }
    return copy;
}

pm_status pm_cuda_template_program(pm_arena *arena, pm_diag *diag, const pm_cuda_template *t, const char *kernel,
                                   const pm_launch_fixed *fixed, size_t n_fixed, const char *arch,
                                   pm_cuda_program *out)
{
    size_t n, at = 0;
    const pm_cuda_source *all = pm_cuda_template_sources(&n);
    const char *path = pm_arena_printf(arena, "%s%s", folder, t->file);
    const char *function = pm_arena_printf(arena, "pm_cu_%s", t->name);
    while (at < n && strcmp(all[at].name, path) != 0)
        at++;
    if (at == n)
        return pm_error(diag, NULL, PM_ERR_INTERNAL, "template %s: %s is not inside pimoec", t->name, path);
    // The program first, behind it what it may include.
    pm_cuda_source *sources = PM_NEW_ARRAY(arena, pm_cuda_source, n);
    sources[0] = (pm_cuda_source){all[at].name, keep_kernel(arena, all[at].text, function)};
    for (size_t i = 0, k = 1; i < n; i++)
        if (i != at)
            sources[k++] = all[i];
    const char **definitions = PM_NEW_ARRAY(arena, const char *, n_fixed + 1);
    definitions[0] = pm_arena_printf(arena, "%s=%s", function, kernel);
    for (size_t i = 0; i < n_fixed; i++)
        definitions[i + 1] = pm_arena_printf(arena, "PM_CONST_%s=%" PRId64 "ll", fixed[i].name, fixed[i].value);
    *out = (pm_cuda_program){.name = t->name, .sources = sources, .n_sources = n, .definitions = definitions,
                             .n_definitions = n_fixed + 1, .arch = arch};
    return PM_OK;
}
