/// NVML's functions as we declare them, against its own header: compiled where there is one (of CUDA 13 or later), never
/// run.
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include <stddef.h>
#if NVML_API_VERSION >= 13 // it has all that we know
#define PM_NVML_H_IS_THERE
#include "tools/pimoe/nvml_api.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/// An enumeration is an unsigned int to C, but another type.
#define X(name, parameters) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(((pm_nvml *)0)->name), __typeof__(&name)), #name);
PM_NVML_NEEDED(X)
PM_NVML_OPTIONAL(X)
#undef X

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
SAME(PM_NVML_CLOCK_SM, NVML_CLOCK_SM);
SAME(PM_NVML_CLOCK_MEMORY, NVML_CLOCK_MEM);
SAME(PM_NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_GPU);
SAME(PM_NVML_TEMPERATURE_VERSION, nvmlTemperature_v1);
SAME(sizeof(struct pm_nvml_memory), sizeof(nvmlMemory_t));
SAME(offsetof(struct pm_nvml_memory, free), offsetof(nvmlMemory_t, free));
SAME(offsetof(struct pm_nvml_memory, used), offsetof(nvmlMemory_t, used));
SAME(sizeof(struct pm_nvml_temperature), sizeof(nvmlTemperature_t));
SAME(offsetof(struct pm_nvml_temperature, sensorType), offsetof(nvmlTemperature_t, sensorType));
SAME(offsetof(struct pm_nvml_temperature, temperature), offsetof(nvmlTemperature_t, temperature));
#endif
