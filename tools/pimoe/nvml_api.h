/// What is used of NVIDIA's management library, declared here: it comes with the driver and is opened at run time.
/// tests/cuda compares these declarations with nvml.h where there is one.
#ifndef PM_TOOLS_NVML_API_H
#define PM_TOOLS_NVML_API_H

typedef unsigned int nvml_result; ///< an enumeration of the library's
typedef struct nvmlDevice_st *nvml_device;

struct pm_nvml_memory {
    unsigned long long total, free, used;
};

struct pm_nvml_temperature {
    unsigned int version, sensorType;
    int temperature;
};

#ifdef PM_NVML_H_IS_THERE
typedef nvmlMemory_t nvml_memory;
typedef nvmlTemperature_t nvml_temperature;
#else
typedef struct pm_nvml_memory nvml_memory;
typedef struct pm_nvml_temperature nvml_temperature;
#endif

enum {
    PM_NVML_CLOCK_SM = 1,
    PM_NVML_CLOCK_MEMORY = 2,
    PM_NVML_TEMPERATURE_GPU = 0,
    PM_NVML_TEMPERATURE_VERSION = (int)sizeof(struct pm_nvml_temperature) | 1 << 24,
};

/// X(name, parameters): without these nothing can be asked.
#define PM_NVML_NEEDED(X)                                                       \
    X(nvmlInit_v2, (void))                                                      \
    X(nvmlDeviceGetHandleByPciBusId_v2, (const char *, nvml_device *))

/// What one library or GPU lacks another one tells. CUDA 13 asks for the second temperature in place of the first.
#define PM_NVML_OPTIONAL(X)                                                     \
    X(nvmlSystemGetDriverVersion, (char *, unsigned int))                       \
    X(nvmlDeviceGetMemoryInfo, (nvml_device, nvml_memory *))                    \
    X(nvmlDeviceGetClockInfo, (nvml_device, unsigned int, unsigned int *))      \
    X(nvmlDeviceGetMaxClockInfo, (nvml_device, unsigned int, unsigned int *))   \
    X(nvmlDeviceGetPowerUsage, (nvml_device, unsigned int *))                   \
    X(nvmlDeviceGetEnforcedPowerLimit, (nvml_device, unsigned int *))           \
    X(nvmlDeviceGetTemperature, (nvml_device, unsigned int, unsigned int *))    \
    X(nvmlDeviceGetTemperatureV, (nvml_device, nvml_temperature *))             \
    X(nvmlDeviceGetCurrPcieLinkGeneration, (nvml_device, unsigned int *))       \
    X(nvmlDeviceGetCurrPcieLinkWidth, (nvml_device, unsigned int *))            \
    X(nvmlDeviceGetMaxPcieLinkGeneration, (nvml_device, unsigned int *))        \
    X(nvmlDeviceGetMaxPcieLinkWidth, (nvml_device, unsigned int *))

typedef struct pm_nvml {
#define X(name, parameters) nvml_result(*name) parameters;
    PM_NVML_NEEDED(X)
    PM_NVML_OPTIONAL(X)
#undef X
} pm_nvml;

#endif
