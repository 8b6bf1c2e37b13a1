#include "codegen/cuda/device_code.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llvm-c/BitWriter.h"
#include "llvm-c/Core.h"

#include "base/cache.h"
#include "base/containers.h"
#include "codegen/cuda/compile_jobs.h"
#include "codegen/cuda/ptx.h"
#include "codegen/cuda/templates.h"
#include "codegen/cuda/toolkit.h"
#include "codegen/embedded.h"
#include "runtime/runtime_abi.h"

enum { GENERAL_CODE = 0 }; ///< number of the code of the general road

/// A template's code while it is made.
typedef struct template_job {
    pm_cuda_program program;
    pm_cuda_code made;
    size_t code; ///< which of the codes
} template_job;

struct pm_device_making {
    pm_arena *arena;
    pm_diag *diag;
    const pm_device_code_request *r;
    pm_kernel_facts *facts;
    pm_cuda_jobs *jobs;
    bool links;    ///< nvJitLink is there
    uint32_t next; ///< number of the next code
    pm_device_code *codes;
    size_t n_codes;
    PM_VEC(template_job *) templates;
};

typedef struct pm_device_making making;

static bool any_general(const pm_device_code_request *r)
{
    for (size_t i = 0; i < r->n_kernels; i++)
        if (!r->kernels[i].template_name)
            return true;
    return false;
}

/// ---- the general road -------------------------------------------------------------------------------------

static void add_text(pm_hasher *hasher, const char *text)
{
    pm_hasher_add(hasher, text ? text : "", text ? strlen(text) + 1 : 1);
}

/// Everything that decides the PTX: the functions, what is linked to them, the compiler that does it.
static pm_hash128 general_key(const making *m, const char *arch)
{
    pm_hasher *hasher = pm_hasher_new(m->arena);
    LLVMMemoryBufferRef code = LLVMWriteBitcodeToMemoryBuffer(m->r->module);
    pm_hasher_add(hasher, LLVMGetBufferStart(code), LLVMGetBufferSize(code));
    LLVMDisposeMemoryBuffer(code);
    for (size_t i = 0; i < m->r->n_kernels; i++) {
        const pm_kernel *k = &m->r->kernels[i];
        uint32_t counts[] = {k->n_pointers, k->n_symbols};
        if (k->template_name)
            continue;
        add_text(hasher, k->name);
        add_text(hasher, k->function);
        pm_hasher_add(hasher, counts, sizeof counts);
    }
    add_text(hasher, arch);
    pm_hasher_add(hasher, &m->r->opt_level, sizeof m->r->opt_level);
    pm_cache_add_program(hasher);
    pm_embedded blobs[] = {pm_embedded_kernels_vw8(), pm_embedded_references()};
    for (size_t i = 0; i < PM_COUNT(blobs); i++)
        pm_hasher_add(hasher, blobs[i].bytes, blobs[i].size);
    return pm_hasher_value(hasher);
}

static pm_status general_code(making *m, const char *arch)
{
    const char *folder = pm_cache_folder(m->arena, "kernels");
    pm_hash128 key = general_key(m, arch);
    pm_device_code *code = &m->codes[m->n_codes++];
    *code = (pm_device_code){.arch = arch, .number = GENERAL_CODE};
    const uint8_t *kept;
    if (pm_cache_get(m->arena, folder, key, &kept, &code->ptx_size)) {
        code->ptx = (const char *)kept;
    } else {
        pm_ptx_options options = {.arch = arch, .opt_level = m->r->opt_level};
        PM_TRY(pm_ptx_emit(m->arena, m->diag, m->r->module, m->r->kernels, m->r->n_kernels, &options, &code->ptx,
                           &code->ptx_size));
        PM_ASSERT(code->ptx);
        pm_cache_put(m->arena, folder, key, code->ptx, code->ptx_size);
    }
    if (m->links)
        pm_cuda_jobs_assemble(m->jobs, "the general road", &(pm_cuda_ptx){code->ptx, code->ptx_size}, arch,
                              &code->cubin, &code->cubin_size);
    return PM_OK;
}

/// ---- templates --------------------------------------------------------------------------------------------

static pm_status template_code(making *m, const pm_kernel *k, pm_kernel_facts *facts)
{
    const pm_cuda_template *t = pm_cuda_template_named(k->template_name);
    if (!t)
        return pm_error(m->diag, NULL, PM_ERR_INTERNAL, "no CUDA template is called %s", k->template_name);
    *facts = (pm_kernel_facts){.code = m->next++, .threads = t->threads, .shared_bytes = t->shared_bytes,
                               .flags = t->flags | (k->is_product ? PM_RT_KERNEL_PRODUCT : 0)};
    for (size_t i = 0; i < m->r->n_archs; i++) {
        const char *arch = m->r->archs[i];
        if ((t->flags & PM_RT_KERNEL_WGMMA) && strcmp(arch, PM_RT_WGMMA_ARCH) != 0)
            continue;
        template_job *job = PM_NEW(m->arena, template_job);
        PM_TRY(pm_cuda_template_program(m->arena, m->diag, t, k->name, k->fixed, k->n_fixed, arch, &job->program));
        job->code = m->n_codes++;
        m->codes[job->code] = (pm_device_code){.arch = arch, .number = facts->code};
        pm_cuda_jobs_compile(m->jobs, &job->program, &job->made);
        PM_PUSH(m->arena, &m->templates, job);
    }
    return PM_OK;
}

static void look_for_link(making *m)
{
    pm_arena *scratch = pm_arena_child(m->arena);
    const char *path;
    m->links = pm_toolkit_find(scratch, pm_diag_create(scratch), PM_TOOLKIT_NVJITLINK, &path) == PM_OK;
    pm_arena_destroy(scratch);
    if (!m->links)
        pm_warning(m->diag, NULL, "no_cubin",
                   "libnvJitLink of NVIDIA's CUDA toolkit isn't there: the program carries PTX alone for what no "
                   "template does, which the driver compiles when the program starts");
}

pm_status pm_device_code_start(pm_arena *arena, pm_diag *diag, const pm_device_code_request *request,
                               pm_kernel_facts *facts, pm_device_making **out_making)
{
    making *m = PM_NEW(arena, making);
    *out_making = m;
    *m = (making){.arena = arena, .diag = diag, .r = request, .facts = facts, .jobs = pm_cuda_jobs_new(arena, diag),
                  .next = GENERAL_CODE + 1,
                  .codes = PM_NEW_ARRAY(arena, pm_device_code, (request->n_kernels + 1) * request->n_archs)};
    // Templates first: others compile them while this thread takes the general road.
    for (size_t i = 0; i < request->n_kernels; i++) {
        if (request->kernels[i].template_name)
            PM_TRY(template_code(m, &request->kernels[i], &facts[i]));
        else
            facts[i] = (pm_kernel_facts){.code = GENERAL_CODE, .threads = PM_GENERAL_THREADS,
                                         .flags = request->kernels[i].meets ? PM_RT_KERNEL_MEETS : 0};
    }
    if (!any_general(request))
        return PM_OK;
    look_for_link(m);
    for (size_t i = 0; i < request->n_archs; i++)
        PM_TRY(general_code(m, request->archs[i]));
    return PM_OK;
}

size_t pm_device_code_count(const pm_device_making *m)
{
    return m->n_codes;
}

pm_status pm_device_code_finish(pm_device_making *m, const pm_device_code **out_codes, size_t *out_n_codes)
{
    PM_TRY(pm_cuda_jobs_wait(m->jobs));
    for (size_t i = 0; i < m->templates.n; i++) {
        const template_job *job = m->templates.data[i];
        pm_device_code *code = &m->codes[job->code];
        code->ptx = job->made.ptx;
        code->ptx_size = job->made.ptx_size;
        code->cubin = job->made.cubin;
        code->cubin_size = job->made.cubin_size;
    }
    *out_codes = m->codes;
    *out_n_codes = m->n_codes;
    return PM_OK;
}

pm_status pm_device_code_text(pm_arena *arena, const pm_device_code *codes, size_t n_codes, const uint8_t **out_text,
                              size_t *out_size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, out_size);
    if (!out)
        return PM_ERR_NO_MEMORY;
    for (size_t i = 0; i < n_codes; i++)
        fprintf(out, "// ---- code %u for %s%s\n%s\n", (unsigned)codes[i].number, codes[i].arch,
                codes[i].number == GENERAL_CODE ? ": the general road" : "", codes[i].ptx);
    fclose(out);
    *out_text = (const uint8_t *)pm_arena_strndup(arena, text, *out_size);
    free(text);
    return PM_OK;
}

pm_status pm_device_code_link(pm_arena *arena, pm_diag *diag, const pm_device_code *codes, size_t n_codes,
                              const uint8_t **out_cubin, size_t *out_size)
{
    pm_cuda_ptx *pieces = PM_NEW_ARRAY(arena, pm_cuda_ptx, n_codes);
    for (size_t i = 0; i < n_codes; i++)
        pieces[i] = (pm_cuda_ptx){codes[i].ptx, codes[i].ptx_size};
    return pm_cuda_assemble(pm_cuda_compiler_new(arena, diag), "the model's kernels", pieces, n_codes, codes[0].arch,
                            out_cubin, out_size);
}
