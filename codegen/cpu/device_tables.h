/// The tables by which the model's descriptor tells of its devices (pm_rt_device of runtime_abi.h).
#ifndef PM_CODEGEN_CPU_DEVICE_TABLES_H
#define PM_CODEGEN_CPU_DEVICE_TABLES_H

#include "llvm-c/Types.h"

#include "codegen/codegen.h"
#include "codegen/kernel_list.h"

/// Code of a device for one chip.
typedef struct pm_device_code {
    const char *arch;
    uint32_t number;  ///< kernels name it by this
    const char *ptx;  ///< NUL-terminated
    const uint8_t *cubin; ///< NULL: none
    size_t ptx_size, cubin_size;
} pm_device_code;

/// What the tables need beside the list of kernels; parallel to it.
typedef struct pm_kernel_facts {
    uint32_t code, threads, shared_bytes, flags;
    LLVMValueRef emu; ///< NULL: the CPU can't play it
} pm_kernel_facts;

/// Adds the tables to the host's module; the address of the first pm_rt_device. There is room for `n_codes` codes.
LLVMValueRef pm_device_tables(pm_arena *arena, LLVMModuleRef host, const pm_weights *weights, const pm_target *target,
                              const pm_kernel *kernels, const pm_kernel_facts *facts, size_t n_kernels, size_t n_codes,
                              const pm_tensor_map *maps, size_t n_maps);

/// Puts the codes into the room for them: made while the host's code was.
void pm_device_tables_fill(pm_arena *arena, LLVMModuleRef host, const pm_device_code *codes, size_t n_codes);

#endif
