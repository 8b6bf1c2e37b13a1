/// Kernels of the general road as the CPU plays them: the very code that becomes PTX, after all that is done to it for GPUs.
#ifndef PM_CODEGEN_CUDA_PLAY_H
#define PM_CODEGEN_CUDA_PLAY_H

#include "llvm-c/Types.h"

#include "base/diag.h"
#include "codegen/kernel_list.h"

/// Turns a module of GPU kernels (pm_ptx_wrap) into one of the host: each kernel becomes `void <name>(const uint64_t *words)`
/// (pm_rt_emu_kernel); numbers of threads and exchanges between lanes come from the player (runtime/device/emu_play.h).
/// PM_ERR_UNSUPPORTED names instructions of GPUs that have no meaning on the CPU yet.
PM_NODISCARD pm_status pm_play_kernels(pm_arena *arena, pm_diag *diag, LLVMModuleRef code, const pm_kernel *kernels,
                                       size_t n_kernels);

#endif
