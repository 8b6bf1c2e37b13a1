/// NVIDIA's GPUs of this machine: what the driver tells, and NVML where it is there.
#ifndef PM_TOOLS_GPU_LIST_H
#define PM_TOOLS_GPU_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "pm/status.h"

enum { PM_GPUS_MOST = 64 };

typedef struct pm_gpu {
    char name[96], bus[32]; ///< "NVIDIA H100 80GB HBM3", "0000:0b:00.0"
    int major, minor;       ///< the chip is an sm_<major><minor>
    int multiprocessors;
    uint64_t memory, l2;         ///< bytes
    double peak_bytes_per_second; ///< of memory, by clock and bus width; 0: not told
    bool watched;                ///< NVML told the rest; what it doesn't know of a GPU is 0
    uint64_t memory_free;
    uint32_t link_generation, link_width, link_generation_most, link_width_most; ///< PCI Express
    uint32_t clock_mhz, clock_mhz_most, memory_clock_mhz;
    double watts, watts_most;
    uint32_t celsius;
} pm_gpu;

typedef struct pm_gpu_list {
    pm_gpu gpus[PM_GPUS_MOST];
    int n;
    int cuda;               ///< version of CUDA that the driver speaks: 13000 is 13.0
    char driver[64];        ///< its own version ("580.65.06"), or ""
    const char *no_nvml;    ///< NULL, or why NVML told nothing
} pm_gpu_list;

/// PM_ERR_UNSUPPORTED where there is no driver or no GPU: pm_last_error() says which, and what helps.
PM_NODISCARD pm_status pm_gpu_list_look(pm_gpu_list *out);
/// Asks NVML anew for what changes: clocks, power, temperature, free memory.
void pm_gpu_list_refresh(pm_gpu_list *list);

#endif
