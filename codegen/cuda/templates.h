/// The CUDA C templates inside pimoec.
#ifndef PM_CODEGEN_CUDA_TEMPLATES_H
#define PM_CODEGEN_CUDA_TEMPLATES_H

#include "codegen/cuda/nvrtc.h"
#include "codegen/kernel_list.h"

typedef struct pm_cuda_template {
    const char *name; ///< its function is pm_cu_<name>
    const char *file; ///< in codegen/cuda/kernels
    uint32_t threads, shared_bytes, flags;
    const char *help;
} pm_cuda_template;

/// NULL: no such template.
const pm_cuda_template *pm_cuda_template_named(const char *name);
const pm_cuda_template *pm_cuda_templates(size_t *out_n);
/// All files of codegen/cuda/kernels, by their path from the root.
const pm_cuda_source *pm_cuda_template_sources(size_t *out_n);

/// The program of a template: its function is called `kernel`, and constants are what it has for PM_FIXED. The file's
/// other kernels are left out.
PM_NODISCARD pm_status pm_cuda_template_program(pm_arena *arena, pm_diag *diag, const pm_cuda_template *t,
                                                const char *kernel, const pm_launch_fixed *fixed, size_t n_fixed,
                                                const char *arch, pm_cuda_program *out_program);

#endif
