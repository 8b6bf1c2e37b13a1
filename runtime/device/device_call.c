/// Devices in sessions and calls: opening, uploads, arenas that grow, launches and transfers in their order, faults.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device.h"
#include "runtime/rt_internal.h"

/// A device as all sessions of a model share it.
typedef struct pm_rt_model_device {
    pm_rt_device_state *state;
    uint8_t *weights;
    uint8_t *maps; ///< NULL: none, or kernels here can't use them
} pm_rt_model_device;

typedef struct room {
    size_t arena, scratch; ///< bytes that are there
    bool busy;             ///< was given something that nobody waited for yet
} room;

typedef struct pm_rt_session_devices {
    room *rooms;
    uint8_t **states; ///< by number of the device, then of the state
    uint8_t *bounce;  ///< between devices that can't reach each other
    size_t bounce_bytes;
    pm_status status; ///< of what went wrong in the call, or outside of any
    char text[400];
} pm_rt_session_devices;

/// Opening and closing a model's devices; everything else belongs to a session.
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static const pm_rt_device *described(const pm_model *m, int64_t number)
{
    return &m->code->devices[number];
}

/// Several devices are numbered by the digits that their names end with: "cuda1".
static int ordinal_of(const char *name)
{
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] >= '0' && name[n - 1] <= '9')
        n--;
    long number = strtol(name + n, NULL, 10);
    return number > 1023 ? 1023 : (int)number;
}

static void leave(const pm_model *m)
{
    for (uint64_t i = 0; i < m->code->n_devices; i++)
        if (described(m, i)->ops->leave)
            described(m, i)->ops->leave();
}

/// ---- a model's devices ------------------------------------------------------------------------------------

static pm_status upload_weights(const pm_model *m, const pm_rt_device *desc, pm_rt_model_device *d)
{
    void *weights = NULL;
    PM_TRY(desc->ops->alloc(d->state, desc->weight_bytes ? desc->weight_bytes : 1, &weights));
    d->weights = weights;
    for (uint64_t i = 0; i < desc->n_uploads; i++) {
        const pm_rt_upload *u = &desc->uploads[i];
        if (u->payload_offset > m->payload_size || u->size > m->payload_size - u->payload_offset ||
            u->device_offset > desc->weight_bytes || u->size > desc->weight_bytes - u->device_offset)
            return pm_rt_error_set(PM_ERR_INVALID, "the artifact is damaged: weights of %s leave it", desc->name);
        PM_TRY(desc->ops->upload(d->state, d->weights + u->device_offset, m->payload + u->payload_offset, u->size));
    }
    return desc->ops->wait(d->state);
}

/// Maps of weights, where kernels can use them.
static pm_status make_maps(const pm_rt_device *desc, pm_rt_model_device *d)
{
    const pm_rt_device_ops *ops = desc->ops;
    _Alignas(64) uint8_t map[PM_RT_TENSOR_MAP_BYTES];
    for (uint64_t i = 0; ops->tensor_map && i < desc->n_maps; i++) {
        pm_status status = ops->tensor_map(d->state, &desc->maps[i], d->weights, map);
        if (status == PM_ERR_UNSUPPORTED)
            return PM_OK; // at the first, if at all
        PM_TRY(status);
        void *maps = d->maps;
        if (!maps)
            PM_TRY(ops->alloc(d->state, desc->n_maps * PM_RT_TENSOR_MAP_BYTES, &maps));
        d->maps = maps;
        PM_TRY(ops->upload(d->state, d->maps + i * PM_RT_TENSOR_MAP_BYTES, map, sizeof map));
    }
    return ops->wait(d->state);
}

static void close_list(const pm_model *m, pm_rt_model_device *list)
{
    for (uint64_t i = 0; i < m->code->n_devices; i++) {
        const pm_rt_device_ops *ops = described(m, i)->ops;
        if (list[i].maps)
            ops->release(list[i].state, list[i].maps);
        if (list[i].weights)
            ops->release(list[i].state, list[i].weights);
        if (list[i].state)
            ops->close(list[i].state);
    }
    leave(m);
    free(list);
}

static void close_model(pm_model *m)
{
    close_list(m, m->devices);
    m->devices = NULL;
}

static pm_status open_model(pm_model *m)
{
    pm_rt_model_device *list = calloc(m->code->n_devices, sizeof *list);
    if (!list)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    pm_status status = PM_OK;
    for (uint64_t i = 0; i < m->code->n_devices && status == PM_OK; i++) {
        const pm_rt_device *desc = described(m, i);
        status = desc->ops->open(desc, ordinal_of(desc->name), NULL, &list[i].state);
        if (status == PM_OK)
            status = upload_weights(m, desc, &list[i]);
        if (status == PM_OK)
            status = make_maps(desc, &list[i]);
    }
    if (status == PM_OK)
        m->devices = list;
    else
        close_list(m, list);
    return status;
}

/// ---- a session's side of them -----------------------------------------------------------------------------

static void close_session(pm_session *s)
{
    const pm_model *m = s->model;
    pm_rt_session_devices *own = s->devices;
    uint32_t n_states = m->manifest->states.n;
    for (uint64_t i = 0; s->call.devices && i < m->code->n_devices; i++) {
        const pm_rt_device_ops *ops = described(m, i)->ops;
        pm_rt_device_call *c = &s->call.devices[i];
        for (uint32_t k = 0; own->states && k < n_states; k++)
            if (own->states[i * n_states + k])
                ops->release(c->state, own->states[i * n_states + k]);
        if (c->arena)
            ops->release(c->state, c->arena);
        if (c->scratch)
            ops->release(c->state, c->scratch);
        if (c->state)
            ops->close(c->state);
    }
    leave(m);
    free(s->call.devices);
    free(own->rooms);
    free(own->states);
    free(own->bounce);
    free(own);
    s->call.devices = NULL;
    s->devices = NULL;
}

static pm_status open_line(pm_session *s, uint64_t number)
{
    const pm_model *m = s->model;
    const pm_rt_device *desc = described(m, number);
    pm_rt_device_call *c = &s->call.devices[number];
    uint32_t n_states = m->manifest->states.n;
    PM_TRY(desc->ops->open(desc, ordinal_of(desc->name), m->devices[number].state, &c->state));
    c->weights = m->devices[number].weights;
    c->maps = m->devices[number].maps;
    c->has_wgmma = c->maps != NULL;
    c->status = desc->ops->status(c->state);
    c->states = s->devices->states + number * n_states;
    for (uint32_t i = 0; i < n_states; i++) {
        if (m->states[i].device != number + 1)
            continue;
        void *memory = NULL;
        PM_TRY(desc->ops->alloc(c->state, s->state_bytes[i], &memory));
        s->devices->states[number * n_states + i] = memory;
    }
    return desc->ops->wait(c->state);
}

static pm_status open_session(pm_session *s)
{
    pm_model *m = s->model;
    pthread_mutex_lock(&opening);
    pm_status status = m->devices ? PM_OK : open_model(m);
    pthread_mutex_unlock(&opening);
    PM_TRY(status);
    uint64_t n = m->code->n_devices;
    s->devices = calloc(1, sizeof *s->devices);
    if (!s->devices)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    s->call.devices = calloc(n, sizeof *s->call.devices);
    s->devices->rooms = calloc(n, sizeof *s->devices->rooms);
    s->devices->states = calloc(n * m->manifest->states.n + 1, sizeof *s->devices->states);
    if (!s->call.devices || !s->devices->rooms || !s->devices->states)
        status = pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    for (uint64_t i = 0; i < n && status == PM_OK; i++)
        status = open_line(s, i);
    leave(m);
    return status;
}

/// Keeps what the device said, for the end of the call: other calls may say something in between.
static void keep_error(pm_rt_session_devices *own, pm_status status)
{
    if (own->status != PM_OK)
        return;
    own->status = status;
    snprintf(own->text, sizeof own->text, "%s", pm_last_error());
}

static void reset(pm_session *s)
{
    uint32_t n_states = s->model->manifest->states.n;
    for (uint64_t i = 0; i < s->model->code->n_devices; i++) {
        pm_rt_device_call *c = &s->call.devices[i];
        for (uint32_t k = 0; k < n_states; k++)
            if (c->states[k]) {
                pm_status status = described(s->model, i)->ops->clear(c->state, c->states[k], s->state_bytes[k]);
                if (status != PM_OK)
                    keep_error(s->devices, status);
            }
    }
    leave(s->model);
}

/// Makes `*memory` at least `bytes` large; the content is lost when it grows.
static pm_status grow(const pm_rt_device_ops *ops, pm_rt_device_state *device, uint8_t **memory, size_t *have,
                      size_t bytes)
{
    if (*memory && bytes <= *have)
        return PM_OK;
    if (*memory)
        ops->release(device, *memory);
    *memory = NULL;
    *have = 0;
    void *fresh = NULL;
    PM_TRY(ops->alloc(device, bytes ? bytes : 1, &fresh));
    *memory = fresh;
    *have = bytes;
    return PM_OK;
}

static pm_status begin(pm_session *s, const int64_t *sizes)
{
    pm_rt_session_devices *own = s->devices;
    pm_status status = own->status;
    own->status = PM_OK;
    if (status != PM_OK)
        return pm_rt_error_set(status, "%s", own->text);
    for (uint64_t i = 0; i < s->model->code->n_devices && status == PM_OK; i++) {
        const pm_rt_device_ops *ops = described(s->model, i)->ops;
        pm_rt_device_call *c = &s->call.devices[i];
        int64_t arena = sizes[2 * i], piece = sizes[2 * i + 1];
        if (arena < 0 || piece < 0 || arena > INT64_MAX / 4 || piece > INT64_MAX / 4 / PM_RT_DEVICE_WORKERS)
            return pm_rt_error_set(PM_ERR_USAGE, "the shapes are too large");
        c->scratch_bytes = (piece + 63) / 64 * 64;
        status = grow(ops, c->state, &c->arena, &own->rooms[i].arena, (size_t)arena);
        if (status == PM_OK)
            status = grow(ops, c->state, &c->scratch, &own->rooms[i].scratch,
                          (size_t)c->scratch_bytes * PM_RT_DEVICE_WORKERS);
        own->rooms[i].busy = false;
    }
    if (status != PM_OK)
        leave(s->model);
    return status;
}

/// ---- within a call ----------------------------------------------------------------------------------------

/// As pm_rt_fail, of a kind.
static void found(pm_rt_call *call, int64_t dispatch, pm_rt_error kind)
{
    int32_t none = 0;
    if (__atomic_compare_exchange_n(&call->found, &none, (int32_t)dispatch + 1, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
        call->found_kind = (int32_t)kind;
}

static void refused(pm_rt_call *call, int64_t dispatch, pm_status status)
{
    if (status == PM_OK)
        return;
    keep_error(pm_session_of(call)->devices, status);
    found(call, dispatch, PM_RT_ERR_DEVICE);
}

/// What kernels left in the status word, now that what they did is done.
static void look(pm_rt_call *call, int64_t device)
{
    pm_session *s = pm_session_of(call);
    int32_t number = described(s->model, device)->ops->take_status(call->devices[device].state);
    if (number > 0)
        found(call, (int64_t)number - 1, PM_RT_ERR_DATA);
}

/// Behind a fault nothing more is given: the first is what is told.
static bool faulty(const pm_rt_call *call)
{
    return __atomic_load_n(&call->found, __ATOMIC_RELAXED) != 0;
}

void pm_rt_launch(pm_rt_call *call, int64_t device, int64_t kernel, int64_t blocks, const uint64_t *words,
                  int64_t n_words, int64_t dispatch)
{
    pm_session *s = pm_session_of(call);
    if (faulty(call) || blocks == 0)
        return;
    if (blocks < 0 || blocks > INT32_MAX) {
        refused(call, dispatch, pm_rt_error_set(PM_ERR_USAGE, "the shapes are too large for a device"));
        return;
    }
    s->devices->rooms[device].busy = true;
    refused(call, dispatch, described(s->model, device)->ops->launch(call->devices[device].state, (uint32_t)kernel,
                                                                    (uint64_t)blocks, words, (size_t)n_words));
}

/// By way of the host.
static pm_status relay(pm_session *s, int64_t to_device, void *to, int64_t from_device, const void *from, size_t bytes)
{
    pm_rt_session_devices *own = s->devices;
    if (bytes > own->bounce_bytes) {
        free(own->bounce);
        own->bounce = malloc(bytes);
        own->bounce_bytes = own->bounce ? bytes : 0;
        if (!own->bounce)
            return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    }
    const pm_rt_device_ops *ops = described(s->model, from_device)->ops;
    PM_TRY(ops->fetch(s->call.devices[from_device].state, own->bounce, from, bytes));
    PM_TRY(ops->arrive(s->call.devices[from_device].state, own->bounce));
    look(&s->call, from_device);
    return described(s->model, to_device)->ops->upload(s->call.devices[to_device].state, to, own->bounce, bytes);
}

static pm_status between(pm_session *s, int64_t to_device, void *to, int64_t from_device, const void *from, size_t bytes)
{
    const pm_rt_device_ops *ops = described(s->model, to_device)->ops;
    if (ops == described(s->model, from_device)->ops && ops->peer) {
        pm_status status = ops->peer(s->call.devices[to_device].state, to, s->call.devices[from_device].state, from, bytes);
        if (status != PM_ERR_UNSUPPORTED)
            return status;
    }
    return relay(s, to_device, to, from_device, from, bytes);
}

void pm_rt_transfer(pm_rt_call *call, int64_t to_device, void *to, int64_t from_device, const void *from,
                    int64_t bytes, int64_t dispatch)
{
    pm_session *s = pm_session_of(call);
    if (faulty(call) || bytes == 0)
        return;
    pm_status status = PM_OK;
    if (bytes < 0) {
        status = pm_rt_error_set(PM_ERR_USAGE, "the shapes are too large for a device");
    } else if (to_device < 0 && from_device < 0) {
        memcpy(to, from, (size_t)bytes);
    } else if (from_device < 0) {
        s->devices->rooms[to_device].busy = true;
        status = described(s->model, to_device)->ops->bring(call->devices[to_device].state, to, from, (size_t)bytes);
    } else if (to_device < 0) {
        s->devices->rooms[from_device].busy = true;
        status = described(s->model, from_device)->ops->fetch(call->devices[from_device].state, to, from, (size_t)bytes);
    } else {
        s->devices->rooms[to_device].busy = true;
        status = between(s, to_device, to, from_device, from, (size_t)bytes);
    }
    refused(call, dispatch, status);
}

void pm_rt_arrive(pm_rt_call *call, int64_t device, void *to, int64_t dispatch)
{
    pm_session *s = pm_session_of(call);
    if (faulty(call))
        return;
    pm_status status = described(s->model, device)->ops->arrive(call->devices[device].state, to);
    if (status == PM_OK)
        look(call, device);
    refused(call, dispatch, status);
}

/// Also behind a fault: what is under way uses the memory that the next call may give back.
static void end(pm_session *s)
{
    pm_rt_call *call = &s->call;
    for (uint64_t i = 0; i < s->model->code->n_devices; i++) {
        if (!s->devices->rooms[i].busy)
            continue;
        s->devices->rooms[i].busy = false;
        pm_status status = described(s->model, i)->ops->wait(call->devices[i].state);
        if (status == PM_OK)
            look(call, (int64_t)i);
        else
            refused(call, -1, status);
    }
    if (!call->error && s->devices->status != PM_OK) {
        call->found = -1; // at no dispatch that is known
        call->found_kind = PM_RT_ERR_DEVICE;
    }
    if (!call->error && call->found) {
        call->error = call->found;
        call->error_kind = call->found_kind;
    }
    leave(s->model);
}

static pm_status error(pm_session *s, const char *where)
{
    pm_status status = s->devices->status;
    s->devices->status = PM_OK;
    return pm_rt_error_set(status, "%s, at %s", s->devices->text, where);
}

const pm_rt_device_sessions pm_rt_device_sessions_table = {
    .open = open_session,
    .close = close_session,
    .close_model = close_model,
    .reset = reset,
    .begin = begin,
    .end = end,
    .error = error,
};
