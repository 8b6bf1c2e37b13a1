/// Code for the chips of a device: the general road's kernels through LLVM, templates through NVRTC.
#ifndef PM_CODEGEN_CUDA_DEVICE_CODE_H
#define PM_CODEGEN_CUDA_DEVICE_CODE_H

#include "codegen/cpu/device_tables.h"

typedef struct pm_device_code_request {
    LLVMModuleRef module; ///< with the functions of the general road, as pm_mlir_generate made it; stays as it is
    const pm_kernel *kernels;
    size_t n_kernels;
    const char *const *archs; ///< "sm_90a"
    size_t n_archs;
    int opt_level;
} pm_device_code_request;

typedef struct pm_device_making pm_device_making;

/// Begins to make PTX and cubins of all kernels, on threads of its own (compile_jobs.h), and fills `facts` (parallel to
/// the kernels) but for `emu`. Behind it the module is needed no more; the request, the kernels and the facts are, until
/// pm_device_code_finish. Without nvJitLink the general road's code has no cubin (the driver makes it) and a warning says
/// so. What was made before is taken from the cache of kernels (nvrtc.h).
PM_NODISCARD pm_status pm_device_code_start(pm_arena *arena, pm_diag *diag, const pm_device_code_request *request,
                                            pm_kernel_facts *facts, pm_device_making **out_making);
/// How many codes there will be.
size_t pm_device_code_count(const pm_device_making *making);
/// Waits until it is done.
PM_NODISCARD pm_status pm_device_code_finish(pm_device_making *making, const pm_device_code **out_codes,
                                             size_t *out_n_codes);

/// All PTX as one text for people: each code begins with a comment that says its number and its chip.
PM_NODISCARD pm_status pm_device_code_text(pm_arena *arena, const pm_device_code *codes, size_t n_codes,
                                           const uint8_t **out_text, size_t *out_size);
/// One cubin of all codes, which are for one chip. Needs nvJitLink.
PM_NODISCARD pm_status pm_device_code_link(pm_arena *arena, pm_diag *diag, const pm_device_code *codes, size_t n_codes,
                                           const uint8_t **out_cubin, size_t *out_size);

#endif
