/// Entry points of the general road on GPUs.
#ifndef PM_CODEGEN_CUDA_PTX_WRAP_H
#define PM_CODEGEN_CUDA_PTX_WRAP_H

#include "llvm-c/Types.h"

#include "codegen/kernel_list.h"

/// Adds the kernel to the module that holds its function: a thread is a worker, numbered over all blocks.
LLVMValueRef pm_ptx_wrap(LLVMModuleRef module, const pm_kernel *kernel);

#endif
