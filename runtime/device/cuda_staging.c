/// Bytes between the host and a GPU: through pinned memory, so that copies run while the host goes on.
#include <string.h>

#include "runtime/device/cuda_device.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

pm_status pm_cuda_staging_make(pm_rt_device_state *device)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    void *memory = NULL;
    PM_TRY(pm_cuda_told(device, "pinned memory",
                        cu->cuMemHostAlloc(&memory, (size_t)PM_CUDA_SLOT * (PM_CUDA_UP + PM_CUDA_DOWN), 0)));
    s->memory = memory;
    for (int i = 0; i < PM_CUDA_UP + PM_CUDA_DOWN; i++)
        PM_TRY(pm_cuda_told(device, "an event", cu->cuEventCreate(&s->events[i], PM_CU_EVENT_DISABLE_TIMING)));
    return PM_OK;
}

void pm_cuda_staging_drop(pm_rt_device_state *device)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    for (int i = 0; i < PM_CUDA_UP + PM_CUDA_DOWN; i++)
        if (s->events[i])
            cu->cuEventDestroy_v2(s->events[i]);
    if (s->memory)
        cu->cuMemFreeHost(s->memory);
}

/// The next piece, once the device is done with what was in it.
static pm_status next_slot(pm_rt_device_state *device)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    PM_TRY(pm_cuda_told(device, "an upload", cu->cuEventRecord(s->events[s->slot], device->stream)));
    s->pending[s->slot] = true;
    s->slot = (s->slot + 1) % PM_CUDA_UP;
    s->used = 0;
    if (!s->pending[s->slot])
        return PM_OK;
    s->pending[s->slot] = false;
    return pm_cuda_told(device, "an upload", cu->cuEventSynchronize(s->events[s->slot]));
}

pm_status pm_cuda_staged_upload(pm_rt_device_state *device, cu_address to, const uint8_t *from, size_t bytes)
{
    pm_cuda_staging *s = &device->staging;
    for (size_t done = 0, n; done < bytes; done += n) {
        if (s->used >= PM_CUDA_SLOT)
            PM_TRY(next_slot(device));
        n = smaller(bytes - done, PM_CUDA_SLOT - s->used);
        uint8_t *piece = s->memory + (size_t)s->slot * PM_CUDA_SLOT + s->used;
        memcpy(piece, from + done, n);
        PM_TRY(pm_cuda_told(device, "an upload",
                            device->chip->cuda->cuMemcpyHtoDAsync_v2(to + done, piece, n, device->stream)));
        s->used += (n + 63) / 64 * 64;
    }
    return PM_OK;
}

/// Two pieces on their way at a time: one is copied out while the other comes.
pm_status pm_cuda_staged_download(pm_rt_device_state *device, uint8_t *to, cu_address from, size_t bytes)
{
    const pm_cuda *cu = device->chip->cuda;
    const cu_event *events = device->staging.events + PM_CUDA_UP;
    uint8_t *pieces = device->staging.memory + (size_t)PM_CUDA_UP * PM_CUDA_SLOT;
    size_t n = (bytes + PM_CUDA_SLOT - 1) / PM_CUDA_SLOT, asked = 0;
    for (size_t got = 0; got < n; got++) {
        for (; asked < n && asked < got + PM_CUDA_DOWN; asked++) {
            size_t at = asked * PM_CUDA_SLOT;
            PM_TRY(pm_cuda_told(device, "a download",
                                cu->cuMemcpyDtoHAsync_v2(pieces + asked % PM_CUDA_DOWN * PM_CUDA_SLOT, from + at,
                                                         smaller(bytes - at, PM_CUDA_SLOT), device->stream)));
            PM_TRY(pm_cuda_told(device, "a download",
                                cu->cuEventRecord(events[asked % PM_CUDA_DOWN], device->stream)));
        }
        PM_TRY(pm_cuda_told(device, "a download", cu->cuEventSynchronize(events[got % PM_CUDA_DOWN])));
        memcpy(to + got * PM_CUDA_SLOT, pieces + got % PM_CUDA_DOWN * PM_CUDA_SLOT,
               smaller(bytes - got * PM_CUDA_SLOT, PM_CUDA_SLOT));
    }
    return PM_OK;
}
