/// Instances of kernel templates: one function for each set of constants that a template is called with.
#ifndef PM_CODEGEN_CPU_INSTANCES_H
#define PM_CODEGEN_CPU_INSTANCES_H

#include <stdbool.h>

#include "llvm-c/Types.h"

/// Turns every call of a kernel template (pm_k_…) into a call of an instance (pm_i<number>_…) that passes
/// on the constants: dispatches that agree in them share it, and its code is generated once. Before
/// anything is inlined.
void pm_share_kernels(LLVMModuleRef module);
/// Whether a function is an instance.
bool pm_is_kernel_instance(const char *name);

#endif
