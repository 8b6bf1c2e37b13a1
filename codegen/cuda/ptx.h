/// The general road to GPUs: dispatch functions, as LLVM has them, to PTX.
#ifndef PM_CODEGEN_CUDA_PTX_H
#define PM_CODEGEN_CUDA_PTX_H

#include "llvm-c/Types.h"

#include "base/diag.h"
#include "codegen/kernel_list.h"

/// What PTX is wanted.
typedef struct pm_ptx_options {
    const char *arch; ///< "sm_90a"
    int opt_level;    ///< 0..3
} pm_ptx_options;

/// PTX of those of `kernels` that have a function in `module`, NUL-terminated in the arena; NULL when there are none.
/// The module is as pm_mlir_generate made it (C kernels and references not linked in) and stays as it is.
/// Fails where a function calls what no GPU has, and where libdevice is needed and missing.
PM_NODISCARD pm_status pm_ptx_emit(pm_arena *arena, pm_diag *diag, LLVMModuleRef module, const pm_kernel *kernels,
                                   size_t n_kernels, const pm_ptx_options *options, const char **out_ptx,
                                   size_t *out_size);

/// As pm_ptx_emit up to the PTX itself, which the CPU plays instead (play.h): the kernels join the module `host`. Without
/// libdevice their math is the host's.
PM_NODISCARD pm_status pm_ptx_play(pm_arena *arena, pm_diag *diag, LLVMModuleRef module, const pm_kernel *kernels,
                                   size_t n_kernels, const pm_ptx_options *options, LLVMModuleRef host);

#endif
