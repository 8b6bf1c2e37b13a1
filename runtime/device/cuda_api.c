#include "runtime/device/cuda_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/rt_internal.h"

static struct {
    pthread_mutex_t lock;
    bool ready;
    void *library;
    pm_cuda functions;
} driver = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct symbol {
    const char *name;
    size_t offset; ///< in pm_cuda
    bool needed;
} symbol;

#define X(name, parameters) {#name, offsetof(pm_cuda, name), true},
#define Y(name, parameters) {#name, offsetof(pm_cuda, name), false},
static const symbol symbols[] = {PM_CUDA_NEEDED(X) PM_CUDA_OPTIONAL(Y)};
#undef X
#undef Y

static pm_status status_of(cu_result result)
{
    switch (result) {
    case PM_CU_OUT_OF_MEMORY: return PM_ERR_NO_MEMORY;
    case PM_CU_NOT_INITIALIZED:
    case PM_CU_NO_DEVICE:
    case PM_CU_INVALID_DEVICE:
    case PM_CU_NO_BINARY_FOR_GPU:
    case PM_CU_UNSUPPORTED_PTX_VERSION:
    case PM_CU_SYSTEM_DRIVER_MISMATCH:
    case PM_CU_COMPAT_NOT_SUPPORTED_ON_DEVICE: return PM_ERR_UNSUPPORTED;
    default: return PM_ERR_INTERNAL;
    }
}

pm_status pm_cuda_check(const pm_cuda *cuda, const char *who, const char *doing, cu_result result)
{
    if (result == 0)
        return PM_OK;
    const char *words = NULL;
    if (cuda->cuGetErrorString(result, &words) != 0 || !words)
        words = "an error that the driver has no words for";
    return pm_rt_error_set(status_of(result), "%s: %s: %s (CUDA error %u)", who, doing, words, result);
}

static pm_status load(void)
{
    if (!driver.library)
        driver.library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver.library)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED,
                               "there is no NVIDIA driver (%s); a machine with a GPU needs one, version 525 or later",
                               dlerror());
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *function = dlsym(driver.library, symbols[i].name);
        if (!function && symbols[i].needed)
            return pm_rt_error_set(PM_ERR_UNSUPPORTED, "the NVIDIA driver is too old: it has no %s; 525 or later will do",
                                   symbols[i].name);
        memcpy((char *)&driver.functions + symbols[i].offset, &function, sizeof function);
    }
    PM_TRY(pm_cuda_check(&driver.functions, "the NVIDIA driver", "starting", driver.functions.cuInit(0)));
    driver.ready = true;
    return PM_OK;
}

pm_status pm_cuda_load(const pm_cuda **out_cuda)
{
    pthread_mutex_lock(&driver.lock);
    pm_status status = driver.ready ? PM_OK : load();
    pthread_mutex_unlock(&driver.lock);
    *out_cuda = &driver.functions;
    return status;
}
