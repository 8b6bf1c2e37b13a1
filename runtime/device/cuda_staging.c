/// Bytes between the host and a GPU: through pinned memory, so that copies run while the host goes on.
#include <string.h>

#include "runtime/device/cuda_device.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

enum { PIECES = PM_CUDA_UP + PM_CUDA_DOWN + PM_CUDA_COMING };

static pm_status make_event(pm_rt_device_state *device, cu_event *out)
{
    return pm_cuda_told(device, "an event", device->chip->cuda->cuEventCreate(out, PM_CU_EVENT_DISABLE_TIMING));
}

pm_status pm_cuda_staging_make(pm_rt_device_state *device)
{
    pm_cuda_staging *s = &device->staging;
    void *memory = NULL;
    PM_TRY(pm_cuda_told(device, "pinned memory",
                        device->chip->cuda->cuMemHostAlloc(&memory, (size_t)PM_CUDA_SLOT * PIECES, 0)));
    s->memory = memory;
    for (int i = 0; i < PM_CUDA_UP + PM_CUDA_DOWN; i++)
        PM_TRY(make_event(device, &s->events[i]));
    for (int i = 0; i < PM_CUDA_COMING; i++) {
        PM_TRY(make_event(device, &s->coming[i].ready));
        PM_TRY(make_event(device, &s->coming[i].there));
    }
    return PM_OK;
}

static void drop_event(const pm_cuda *cu, cu_event event)
{
    if (event)
        cu->cuEventDestroy_v2(event);
}

void pm_cuda_staging_drop(pm_rt_device_state *device)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    for (int i = 0; i < PM_CUDA_UP + PM_CUDA_DOWN; i++)
        drop_event(cu, s->events[i]);
    for (int i = 0; i < PM_CUDA_COMING; i++) {
        drop_event(cu, s->coming[i].ready);
        drop_event(cu, s->coming[i].there);
    }
    if (s->memory)
        cu->cuMemFreeHost(s->memory);
}

/// ---- up -----------------------------------------------------------------------------------------------------

/// The next piece, once the device is done with what was in it.
static pm_status next_slot(pm_rt_device_state *device)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    PM_TRY(pm_cuda_told(device, "an upload", cu->cuEventRecord(s->events[s->slot], s->slot_user)));
    s->pending[s->slot] = true;
    s->slot = (s->slot + 1) % PM_CUDA_UP;
    s->used = 0;
    if (!s->pending[s->slot])
        return PM_OK;
    s->pending[s->slot] = false;
    return pm_cuda_told(device, "an upload", cu->cuEventSynchronize(s->events[s->slot]));
}

pm_status pm_cuda_staged_upload(pm_rt_device_state *device, cu_stream stream, cu_address to, const uint8_t *from,
                                size_t bytes)
{
    pm_cuda_staging *s = &device->staging;
    for (size_t done = 0, n; done < bytes; done += n) {
        if (s->used >= PM_CUDA_SLOT || (s->used > 0 && s->slot_user != stream))
            PM_TRY(next_slot(device));
        s->slot_user = stream;
        n = smaller(bytes - done, PM_CUDA_SLOT - s->used);
        uint8_t *piece = s->memory + (size_t)s->slot * PM_CUDA_SLOT + s->used;
        memcpy(piece, from + done, n);
        PM_TRY(pm_cuda_told(device, "an upload",
                            device->chip->cuda->cuMemcpyHtoDAsync_v2(to + done, piece, n, stream)));
        s->used += (n + 63) / 64 * 64;
    }
    return PM_OK;
}

/// ---- down ---------------------------------------------------------------------------------------------------

/// Two pieces on their way at a time: one is copied out while the other comes.
static pm_status stream_down(pm_rt_device_state *device, uint8_t *to, cu_address from, size_t bytes)
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
                                                         smaller(bytes - at, PM_CUDA_SLOT), device->down)));
            PM_TRY(pm_cuda_told(device, "a download",
                                cu->cuEventRecord(events[asked % PM_CUDA_DOWN], device->down)));
        }
        PM_TRY(pm_cuda_told(device, "a download", cu->cuEventSynchronize(events[got % PM_CUDA_DOWN])));
        memcpy(to + got * PM_CUDA_SLOT, pieces + got % PM_CUDA_DOWN * PM_CUDA_SLOT,
               smaller(bytes - got * PM_CUDA_SLOT, PM_CUDA_SLOT));
    }
    return PM_OK;
}

static pm_cuda_coming *find(pm_cuda_staging *s, const uint8_t *to)
{
    for (int i = 0; i < PM_CUDA_COMING; i++)
        if (s->coming[i].to == to)
            return &s->coming[i];
    return NULL;
}

static uint8_t *piece_of(pm_cuda_staging *s, const pm_cuda_coming *c)
{
    return s->memory + (size_t)PM_CUDA_SLOT * (size_t)(PM_CUDA_UP + PM_CUDA_DOWN + (c - s->coming));
}

/// What fits into a piece is copied as soon as it is made; what doesn't, when the host waits for it.
pm_status pm_cuda_staged_fetch(pm_rt_device_state *device, uint8_t *to, cu_address from, size_t bytes)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    pm_cuda_coming *c = find(s, NULL);
    if (!c) { // all are taken: one of them comes now
        c = &s->coming[0];
        PM_TRY(pm_cuda_staged_arrive(device, c->to));
    }
    PM_TRY(pm_cuda_told(device, "a download", cu->cuEventRecord(c->ready, device->stream)));
    if (bytes <= PM_CUDA_SLOT) {
        PM_TRY(pm_cuda_told(device, "a download", cu->cuStreamWaitEvent(device->down, c->ready, 0)));
        PM_TRY(pm_cuda_told(device, "a download", cu->cuMemcpyDtoHAsync_v2(piece_of(s, c), from, bytes, device->down)));
        PM_TRY(pm_cuda_told(device, "a download", cu->cuEventRecord(c->there, device->down)));
    }
    c->to = to;
    c->from = from;
    c->bytes = bytes;
    return PM_OK;
}

pm_status pm_cuda_staged_arrive(pm_rt_device_state *device, uint8_t *to)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staging *s = &device->staging;
    pm_cuda_coming *c = to ? find(s, to) : NULL;
    if (!c)
        return PM_OK; // it is there
    c->to = NULL;
    if (c->bytes > PM_CUDA_SLOT) {
        PM_TRY(pm_cuda_told(device, "a download", cu->cuStreamWaitEvent(device->down, c->ready, 0)));
        return stream_down(device, to, c->from, c->bytes);
    }
    PM_TRY(pm_cuda_told(device, "a download", cu->cuEventSynchronize(c->there)));
    memcpy(to, piece_of(s, c), c->bytes);
    return PM_OK;
}

void pm_cuda_staged_forget(pm_rt_device_state *device)
{
    for (int i = 0; i < PM_CUDA_COMING; i++)
        device->staging.coming[i].to = NULL;
}
