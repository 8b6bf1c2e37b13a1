/// The general road's kernels as the CPU plays them.
#ifndef PM_CODEGEN_CUDA_EMU_WRAP_H
#define PM_CODEGEN_CUDA_EMU_WRAP_H

#include "llvm-c/Types.h"

#include "codegen/kernel_list.h"

/// Adds `void <kernel name>(const uint64_t *words)` (pm_rt_emu_kernel) to the module that holds the kernel's function:
/// what one thread does. Thread numbers and exchanges between lanes come from the player (runtime/device/emu_play.h).
LLVMValueRef pm_emu_wrap(LLVMModuleRef module, const pm_kernel *kernel);

#endif
