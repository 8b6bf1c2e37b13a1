/// Math of C and of LLVM as NVIDIA's libdevice has it.
#ifndef PM_CODEGEN_CUDA_LIBDEVICE_H
#define PM_CODEGEN_CUDA_LIBDEVICE_H

#include "llvm-c/Types.h"

#include "base/diag.h"

/// Turns calls of math functions that GPUs don't have into calls of libdevice's and links those in; without such
/// calls no libdevice is needed.
PM_NODISCARD pm_status pm_libdevice_link(pm_arena *arena, pm_diag *diag, LLVMModuleRef module);

#endif
