/// From our MLIR module to an LLVM module.
#ifndef PM_CODEGEN_MLIR_MLIR_LOWER_H
#define PM_CODEGEN_MLIR_MLIR_LOWER_H

#include "llvm-c/Types.h"

#include "codegen/codegen.h"
#include "codegen/kernel_list.h"

/// Code of a module as an LLVM module in `context`; the caller owns it.
/// `out_text`: the MLIR before lowering, when not NULL.
typedef struct pm_mlir_result {
    LLVMModuleRef module;
    const char *text;
    const pm_dispatch *dispatches;
    size_t n_dispatches;
    LLVMModuleRef device_module; ///< functions of kernels on the general road; NULL: there are none. The caller's
    const pm_kernel *kernels;
    size_t n_kernels;
    const pm_tensor_map *tensor_maps;
    size_t n_tensor_maps;
} pm_mlir_result;

PM_NODISCARD pm_status pm_mlir_generate(pm_module *m, const pm_target *target,
                                        const pm_weights *weights,
                                        const pm_codegen_options *options, LLVMContextRef context,
                                        pm_mlir_result *out);

#endif
