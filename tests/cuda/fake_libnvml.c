/// A stand-in for NVML, built as libnvidia-ml.so.1: one sort of GPU, known by its place alone. The second has no power sensor
/// and tells its temperature as CUDA 13 asks for it. PM_FAKE_NVML=broken: it can't be started.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

static const int handles[2];

EXPORT unsigned int nvmlInit_v2(void)
{
    const char *how = getenv("PM_FAKE_NVML");
    return how && strcmp(how, "broken") == 0 ? 9 : 0;
}

EXPORT unsigned int nvmlSystemGetDriverVersion(char *text, unsigned int size)
{
    snprintf(text, size, "580.1");
    return 0;
}

EXPORT unsigned int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, const int **device)
{
    *device = strcmp(bus, "0000:01:00.0") == 0 ? &handles[0] : &handles[1];
    return strcmp(bus, "0000:01:00.0") == 0 || strcmp(bus, "0000:02:00.0") == 0 ? 0 : 6;
}

EXPORT unsigned int nvmlDeviceGetMemoryInfo(const int *device, unsigned long long memory[3])
{
    (void)device;
    memory[0] = 80ull << 30;
    memory[1] = 79ull << 30;
    memory[2] = 1ull << 30;
    return 0;
}

EXPORT unsigned int nvmlDeviceGetPowerUsage(const int *device, unsigned int *milliwatts)
{
    if (device != &handles[0])
        return 3;
    *milliwatts = 123500;
    return 0;
}

#define TELLS(name, number)                                            \
    EXPORT unsigned int name(const int *device, unsigned int *out)     \
    {                                                                  \
        (void)device;                                                  \
        *out = (number);                                               \
        return 0;                                                      \
    }
#define TELLS_OF(name, number)                                                          \
    EXPORT unsigned int name(const int *device, unsigned int which, unsigned int *out)  \
    {                                                                                   \
        (void)device;                                                                   \
        (void)which;                                                                    \
        *out = (number);                                                                \
        return 0;                                                                       \
    }
TELLS_OF(nvmlDeviceGetClockInfo, 1400)
TELLS_OF(nvmlDeviceGetMaxClockInfo, 1980)
TELLS(nvmlDeviceGetEnforcedPowerLimit, 700000)
TELLS(nvmlDeviceGetCurrPcieLinkGeneration, 5)
TELLS(nvmlDeviceGetCurrPcieLinkWidth, 8)
TELLS(nvmlDeviceGetMaxPcieLinkGeneration, 5)
TELLS(nvmlDeviceGetMaxPcieLinkWidth, 16)

EXPORT unsigned int nvmlDeviceGetTemperature(const int *device, unsigned int sensor, unsigned int *out)
{
    if (device != &handles[0] || sensor != 0)
        return 3;
    *out = 41;
    return 0;
}

EXPORT unsigned int nvmlDeviceGetTemperatureV(const int *device, unsigned int *temperature)
{
    if (device != &handles[1] || temperature[0] != (12 | 1 << 24) || temperature[1] != 0)
        return 25;
    temperature[2] = 43;
    return 0;
}
