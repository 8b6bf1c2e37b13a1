/// Kernels of devices that an emitted program launches: what the host's code and the devices' code agree on.
#ifndef PM_CODEGEN_KERNEL_LIST_H
#define PM_CODEGEN_KERNEL_LIST_H

#include <stdbool.h>
#include <stdint.h>

enum { PM_LAUNCH_MAX_WORDS = 96, PM_LAUNCH_MAX_FIXED = 16, PM_GENERAL_THREADS = 128 };
/// Floats per vector of the C kernels as GPUs run them: their bitcode is of this width.
enum { PM_DEVICE_VECTOR_FLOATS = 8 };

/// A constant that NVRTC gets as -DPM_CONST_<name>=<value>; the emulated kernel reads the word instead.
typedef struct pm_launch_fixed {
    const char *name;
    int64_t value;
} pm_launch_fixed;

/// A weight of 16-bit elements, as the tensor memory accelerator of a device takes it: pm_rt_tensor_map of
/// runtime/runtime_abi.h.
typedef struct pm_tensor_map {
    const char *device;
    uint64_t device_offset;
    uint64_t extents[3]; ///< elements of a row, rows, matrices
    uint64_t strides[2]; ///< bytes from row to row, from matrix to matrix
} pm_tensor_map;

/// A CUDA template with its constants, or a dispatch function on the general road: then its words are those of its
/// pointers, its symbols, scratch, bytes of scratch per worker, most workers (0: any number), status, mark; blocks have
/// PM_GENERAL_THREADS threads.
typedef struct pm_kernel {
    const char *name;          ///< in the device's code
    const char *template_name; ///< row of codegen/cuda/templates.def; NULL: the general road
    pm_launch_fixed fixed[PM_LAUNCH_MAX_FIXED];
    uint32_t n_fixed;
    const char *function;      ///< general road: i32 (ptr pointers…, ptr symbols, ptr scratch, i64 worker, i64 n_workers)
    uint32_t n_pointers, n_symbols;
    bool is_product; ///< PM_RT_KERNEL_PRODUCT
    bool meets; ///< general road: lanes of a warp exchange values (pm_dev_shfl_xor_f32, _i32)
} pm_kernel;

#endif
