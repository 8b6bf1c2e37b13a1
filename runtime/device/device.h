/// Devices beside the CPU, as sessions use them. One table of functions for each kind.
#ifndef PM_RUNTIME_DEVICE_H
#define PM_RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "pm/status.h"
#include "runtime/runtime_abi.h"

typedef struct pm_rt_device_state pm_rt_device_state;

/// Functions return PM_OK or an error that pm_rt_error_set was told. One thread uses a device at a time.
typedef struct pm_rt_device_ops {
    const char *kind; ///< "cuda", "emu"
    /// Opens device number `ordinal` of this kind and makes the kernels of `desc` ready.
    /// PM_ERR_UNSUPPORTED where the machine has none: the caller may do without.
    pm_status (*open)(const pm_rt_device *desc, int ordinal, pm_rt_device_state **out_device);
    void (*close)(pm_rt_device_state *device);
    /// Memory of the device, 256-byte aligned, zeroed. An address that the host must not read or write.
    pm_status (*alloc)(pm_rt_device_state *device, size_t bytes, void **out_memory);
    void (*release)(pm_rt_device_state *device, void *memory);
    pm_status (*clear)(pm_rt_device_state *device, void *memory, size_t bytes); ///< to zeros, in order
    /// In the order of launches. upload: `from` may be reused at once. download: waits until `to` is there.
    pm_status (*upload)(pm_rt_device_state *device, void *to, const void *from, size_t bytes);
    pm_status (*download)(pm_rt_device_state *device, void *to, const void *from, size_t bytes);
    pm_status (*launch)(pm_rt_device_state *device, uint32_t kernel, uint64_t blocks, const uint64_t *words,
                        size_t n_words);
    pm_status (*wait)(pm_rt_device_state *device); ///< until all that was given is done
} pm_rt_device_ops;

extern const pm_rt_device_ops pm_rt_cuda_ops, pm_rt_emu_ops;

#endif
