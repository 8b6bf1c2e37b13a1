#include "tools/pimoe/gpu_list.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "runtime/device/cuda_api.h"

/// ---- NVML: the few functions of it ------------------------------------------------------------------------------

typedef struct nvmlDevice_st *nvml_device;

typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEMORY = 2, NVML_TEMPERATURE_GPU = 0 };

#define NVML_FUNCTIONS(X)                                                   \
    X(nvmlInit_v2, (void))                                                  \
    X(nvmlSystemGetDriverVersion, (char *, unsigned int))                   \
    X(nvmlDeviceGetHandleByPciBusId_v2, (const char *, nvml_device *))      \
    X(nvmlDeviceGetMemoryInfo, (nvml_device, nvml_memory *))                \
    X(nvmlDeviceGetClockInfo, (nvml_device, unsigned int, unsigned int *))  \
    X(nvmlDeviceGetMaxClockInfo, (nvml_device, unsigned int, unsigned int *)) \
    X(nvmlDeviceGetPowerUsage, (nvml_device, unsigned int *))               \
    X(nvmlDeviceGetEnforcedPowerLimit, (nvml_device, unsigned int *))       \
    X(nvmlDeviceGetTemperature, (nvml_device, unsigned int, unsigned int *)) \
    X(nvmlDeviceGetCurrPcieLinkGeneration, (nvml_device, unsigned int *))   \
    X(nvmlDeviceGetCurrPcieLinkWidth, (nvml_device, unsigned int *))        \
    X(nvmlDeviceGetMaxPcieLinkGeneration, (nvml_device, unsigned int *))    \
    X(nvmlDeviceGetMaxPcieLinkWidth, (nvml_device, unsigned int *))

typedef struct nvml {
#define X(name, parameters) unsigned int (*name) parameters;
    NVML_FUNCTIONS(X)
#undef X
} nvml;

/// NULL: *out_why says why.
static const nvml *load_nvml(const char **out_why)
{
    static nvml functions;
    static bool ready;
    static const struct {
        const char *name;
        size_t offset;
    } symbols[] = {
#define X(name, parameters) {#name, offsetof(nvml, name)},
        NVML_FUNCTIONS(X)
#undef X
    };
    if (ready)
        return &functions;
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    *out_why = "libnvidia-ml.so.1 is not there";
    if (!library)
        return NULL;
    *out_why = "libnvidia-ml.so.1 is too old";
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *function = dlsym(library, symbols[i].name);
        if (!function)
            return NULL;
        memcpy((char *)&functions + symbols[i].offset, &function, sizeof function);
    }
    *out_why = "libnvidia-ml.so.1 could not be started";
    ready = functions.nvmlInit_v2() == 0;
    if (ready)
        *out_why = NULL;
    return ready ? &functions : NULL;
}

void pm_gpu_list_refresh(pm_gpu_list *list)
{
    const nvml *m = load_nvml(&list->no_nvml);
    if (!m)
        return;
    if (m->nvmlSystemGetDriverVersion(list->driver, sizeof list->driver) != 0)
        list->driver[0] = 0;
    for (int i = 0; i < list->n; i++) {
        pm_gpu *g = &list->gpus[i];
        nvml_device device;
        nvml_memory memory = {0};
        unsigned int milliwatts = 0, most = 0;
        g->watched = m->nvmlDeviceGetHandleByPciBusId_v2(g->bus, &device) == 0;
        if (!g->watched)
            continue;
        // What a GPU doesn't tell stays 0.
        g->memory_free = m->nvmlDeviceGetMemoryInfo(device, &memory) == 0 ? memory.free : 0;
        m->nvmlDeviceGetClockInfo(device, NVML_CLOCK_SM, &g->clock_mhz);
        m->nvmlDeviceGetMaxClockInfo(device, NVML_CLOCK_SM, &g->clock_mhz_most);
        m->nvmlDeviceGetClockInfo(device, NVML_CLOCK_MEMORY, &g->memory_clock_mhz);
        m->nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, &g->celsius);
        m->nvmlDeviceGetCurrPcieLinkGeneration(device, &g->link_generation);
        m->nvmlDeviceGetCurrPcieLinkWidth(device, &g->link_width);
        m->nvmlDeviceGetMaxPcieLinkGeneration(device, &g->link_generation_most);
        m->nvmlDeviceGetMaxPcieLinkWidth(device, &g->link_width_most);
        g->watts = m->nvmlDeviceGetPowerUsage(device, &milliwatts) == 0 ? milliwatts / 1e3 : 0;
        g->watts_most = m->nvmlDeviceGetEnforcedPowerLimit(device, &most) == 0 ? most / 1e3 : 0;
    }
}

/// ---- the driver -------------------------------------------------------------------------------------------------

static pm_status look_at(const pm_cuda *cu, int number, pm_gpu *g)
{
    cu_device device;
    const char *name = "a GPU";
    size_t memory = 0;
    int kilohertz = 0, bits = 0, l2 = 0;
    PM_TRY(pm_cuda_check(cu, name, "opening", cu->cuDeviceGet(&device, number)));
    PM_TRY(pm_cuda_check(cu, name, "its name", cu->cuDeviceGetName(g->name, sizeof g->name, device)));
    PM_TRY(pm_cuda_check(cu, name, "its memory", cu->cuDeviceTotalMem_v2(&memory, device)));
    PM_TRY(pm_cuda_check(cu, name, "its place", cu->cuDeviceGetPCIBusId(g->bus, sizeof g->bus, device)));
    const struct {
        int *to;
        unsigned int attribute;
    } attributes[] = {{&g->major, PM_CU_COMPUTE_CAPABILITY_MAJOR}, {&g->minor, PM_CU_COMPUTE_CAPABILITY_MINOR},
                      {&g->multiprocessors, PM_CU_MULTIPROCESSOR_COUNT}, {&kilohertz, PM_CU_MEMORY_CLOCK_RATE},
                      {&bits, PM_CU_GLOBAL_MEMORY_BUS_WIDTH}, {&l2, PM_CU_L2_CACHE_SIZE}};
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        PM_TRY(pm_cuda_check(cu, name, "an attribute",
                             cu->cuDeviceGetAttribute(attributes[i].to, attributes[i].attribute, device)));
    g->memory = memory;
    g->l2 = (uint64_t)l2;
    g->peak_bytes_per_second = 2.0 * kilohertz * 1e3 * bits / 8; // two transfers a clock
    return PM_OK;
}

pm_status pm_gpu_list_look(pm_gpu_list *out)
{
    const pm_cuda *cu;
    *out = (pm_gpu_list){.no_nvml = "there is no driver"};
    PM_TRY(pm_cuda_load(&cu));
    PM_TRY(pm_cuda_check(cu, "the NVIDIA driver", "its version", cu->cuDriverGetVersion(&out->cuda)));
    int n = 0;
    PM_TRY(pm_cuda_check(cu, "the NVIDIA driver", "counting GPUs", cu->cuDeviceGetCount(&n)));
    for (int i = 0; i < n && i < PM_GPUS_MOST; i++) {
        PM_TRY(look_at(cu, i, &out->gpus[i]));
        out->n = i + 1;
    }
    pm_gpu_list_refresh(out);
    return PM_OK;
}
