#include "tools/pimoe/gpu_list.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "runtime/device/cuda_api.h"
#include "tools/pimoe/nvml_api.h"

/// ---- NVML -------------------------------------------------------------------------------------------------------

/// NULL: *out_why says why.
static const pm_nvml *load_nvml(const char **out_why)
{
    static pm_nvml functions;
    static bool ready;
    static const struct {
        const char *name;
        size_t offset;
        bool needed;
    } symbols[] = {
#define X(name, parameters) {#name, offsetof(pm_nvml, name), true},
#define Y(name, parameters) {#name, offsetof(pm_nvml, name), false},
        PM_NVML_NEEDED(X) PM_NVML_OPTIONAL(Y)
#undef X
#undef Y
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
        if (!function && symbols[i].needed)
            return NULL;
        memcpy((char *)&functions + symbols[i].offset, &function, sizeof function);
    }
    *out_why = "libnvidia-ml.so.1 could not be started";
    ready = functions.nvmlInit_v2() == 0;
    if (ready)
        *out_why = NULL;
    return ready ? &functions : NULL;
}

typedef nvml_result tell_fn(nvml_device, unsigned int *);
typedef nvml_result tell_of_fn(nvml_device, unsigned int, unsigned int *);

/// What the library, or this GPU, doesn't tell is 0, as it is where it ceased to.
static uint32_t told(tell_fn *ask, nvml_device device)
{
    unsigned int value = 0;
    return ask && ask(device, &value) == 0 ? value : 0;
}

static uint32_t told_of(tell_of_fn *ask, nvml_device device, unsigned int what)
{
    unsigned int value = 0;
    return ask && ask(device, what, &value) == 0 ? value : 0;
}

static uint32_t temperature(const pm_nvml *m, nvml_device device)
{
    nvml_temperature t = {.version = PM_NVML_TEMPERATURE_VERSION, .sensorType = PM_NVML_TEMPERATURE_GPU};
    uint32_t celsius = told_of(m->nvmlDeviceGetTemperature, device, PM_NVML_TEMPERATURE_GPU);
    if (celsius == 0 && m->nvmlDeviceGetTemperatureV && m->nvmlDeviceGetTemperatureV(device, &t) == 0 && t.temperature > 0)
        celsius = (uint32_t)t.temperature;
    return celsius;
}

static uint64_t memory_free(const pm_nvml *m, nvml_device device)
{
    nvml_memory memory = {0};
    return m->nvmlDeviceGetMemoryInfo && m->nvmlDeviceGetMemoryInfo(device, &memory) == 0 ? memory.free : 0;
}

/// NVML numbers GPUs in its own order: it finds one by its place.
void pm_gpu_list_refresh(pm_gpu_list *list)
{
    const pm_nvml *m = load_nvml(&list->no_nvml);
    if (!m)
        return;
    if (!m->nvmlSystemGetDriverVersion || m->nvmlSystemGetDriverVersion(list->driver, sizeof list->driver) != 0)
        list->driver[0] = 0;
    for (int i = 0; i < list->n; i++) {
        pm_gpu *g = &list->gpus[i];
        nvml_device device;
        g->watched = m->nvmlDeviceGetHandleByPciBusId_v2(g->bus, &device) == 0;
        if (!g->watched)
            continue;
        g->memory_free = memory_free(m, device);
        g->clock_mhz = told_of(m->nvmlDeviceGetClockInfo, device, PM_NVML_CLOCK_SM);
        g->clock_mhz_most = told_of(m->nvmlDeviceGetMaxClockInfo, device, PM_NVML_CLOCK_SM);
        g->memory_clock_mhz = told_of(m->nvmlDeviceGetClockInfo, device, PM_NVML_CLOCK_MEMORY);
        g->celsius = temperature(m, device);
        g->link_generation = told(m->nvmlDeviceGetCurrPcieLinkGeneration, device);
        g->link_width = told(m->nvmlDeviceGetCurrPcieLinkWidth, device);
        g->link_generation_most = told(m->nvmlDeviceGetMaxPcieLinkGeneration, device);
        g->link_width_most = told(m->nvmlDeviceGetMaxPcieLinkWidth, device);
        g->watts = told(m->nvmlDeviceGetPowerUsage, device) / 1e3;
        g->watts_most = told(m->nvmlDeviceGetEnforcedPowerLimit, device) / 1e3;
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
