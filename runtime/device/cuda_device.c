/// NVIDIA's GPUs, through the driver alone.
#include "runtime/device/cuda_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rt_internal.h"

pm_status pm_cuda_told(const pm_rt_device_state *device, const char *doing, cu_result result)
{
    return pm_cuda_check(device->chip->cuda, device->chip->desc->name, doing, result);
}

/// ---- the thread's current context -------------------------------------------------------------------------------

/// Between the first use of a device and `leave`: what the thread had, and what it has.
static _Thread_local struct {
    const pm_cuda *cuda; ///< NULL: outside
    cu_context before, now;
} thread;

static pm_status enter(const pm_rt_device_state *device)
{
    const pm_cuda_chip *c = device->chip;
    if (!thread.cuda) {
        cu_context before = NULL;
        PM_TRY(pm_cuda_told(device, "its context", c->cuda->cuCtxGetCurrent(&before)));
        thread.cuda = c->cuda;
        thread.before = thread.now = before;
    }
    if (thread.now == c->context)
        return PM_OK;
    PM_TRY(pm_cuda_told(device, "its context", c->cuda->cuCtxSetCurrent(c->context)));
    thread.now = c->context;
    return PM_OK;
}

static void leave(void)
{
    if (thread.cuda && thread.now != thread.before)
        thread.cuda->cuCtxSetCurrent(thread.before);
    thread.cuda = NULL;
}

/// ---- memory -----------------------------------------------------------------------------------------------------

static void release(pm_rt_device_state *device, void *memory)
{
    const pm_cuda_chip *c = device->chip;
    cu_address at = (cu_address)(uintptr_t)memory;
    // What fails here has been told before: a device that broke stays so.
    if (enter(device) != PM_OK)
        return;
    if (c->pool)
        c->cuda->cuMemFreeAsync(at, device->stream);
    else
        c->cuda->cuMemFree_v2(at);
}

pm_status pm_cuda_alloc(pm_rt_device_state *device, size_t bytes, void **out_memory)
{
    const pm_cuda_chip *c = device->chip;
    PM_TRY(enter(device));
    cu_address at = 0;
    cu_result result =
        c->pool ? c->cuda->cuMemAllocAsync(&at, bytes, device->stream) : c->cuda->cuMemAlloc_v2(&at, bytes);
    char doing[64];
    snprintf(doing, sizeof doing, "%zu bytes of memory", bytes);
    PM_TRY(pm_cuda_told(device, doing, result));
    *out_memory = (void *)(uintptr_t)at;
    return PM_OK;
}

static pm_status alloc(pm_rt_device_state *device, size_t bytes, void **out_memory)
{
    const pm_cuda *cu = device->chip->cuda;
    void *memory = NULL;
    PM_TRY(pm_cuda_alloc(device, bytes, &memory));
    cu_result result = cu->cuMemsetD8Async((cu_address)(uintptr_t)memory, 0, bytes, device->stream);
    // Other lines of work may use it, too.
    if (result == 0)
        result = cu->cuStreamSynchronize(device->stream);
    pm_status status = pm_cuda_told(device, "clearing memory", result);
    if (status == PM_OK)
        *out_memory = memory;
    else
        release(device, memory);
    return status;
}

/// Ready for something behind all launches, and behind what was brought.
static pm_status behind_launches(pm_rt_device_state *device)
{
    PM_TRY(enter(device));
    PM_TRY(pm_cuda_flush(device));
    return pm_cuda_await_brought(device);
}

static pm_status clear(pm_rt_device_state *device, void *memory, size_t bytes)
{
    PM_TRY(behind_launches(device));
    return pm_cuda_told(device, "clearing memory",
                        device->chip->cuda->cuMemsetD8Async((cu_address)(uintptr_t)memory, 0, bytes, device->stream));
}

static pm_status upload(pm_rt_device_state *device, void *to, const void *from, size_t bytes)
{
    PM_TRY(behind_launches(device));
    return pm_cuda_staged_upload(device, device->stream, (cu_address)(uintptr_t)to, from, bytes);
}

/// The launches so far begin meanwhile, those from now on wait for it.
static pm_status bring(pm_rt_device_state *device, void *to, const void *from, size_t bytes)
{
    PM_TRY(enter(device));
    PM_TRY(pm_cuda_flush(device));
    PM_TRY(pm_cuda_staged_upload(device, device->up, (cu_address)(uintptr_t)to, from, bytes));
    PM_TRY(pm_cuda_told(device, "an upload", device->chip->cuda->cuEventRecord(device->brought, device->up)));
    device->waits = true;
    return PM_OK;
}

static pm_status fetch(pm_rt_device_state *device, void *to, const void *from, size_t bytes)
{
    PM_TRY(behind_launches(device));
    return pm_cuda_staged_fetch(device, to, (cu_address)(uintptr_t)from, bytes);
}

static pm_status arrive(pm_rt_device_state *device, void *to)
{
    PM_TRY(enter(device));
    PM_TRY(pm_cuda_flush(device)); // they run while the host waits, and behind it
    return pm_cuda_staged_arrive(device, to);
}

/// The streams wait for each other: the copy is behind what either was given.
static pm_status peer(pm_rt_device_state *to_device, void *to, pm_rt_device_state *from_device, const void *from,
                      size_t bytes)
{
    const pm_cuda *cu = to_device->chip->cuda;
    PM_TRY(behind_launches(from_device));
    PM_TRY(pm_cuda_told(from_device, "a copy", cu->cuEventRecord(from_device->meeting, from_device->stream)));
    PM_TRY(behind_launches(to_device));
    PM_TRY(pm_cuda_told(to_device, "a copy", cu->cuStreamWaitEvent(to_device->stream, from_device->meeting, 0)));
    if (cu->cuMemcpyPeerAsync((cu_address)(uintptr_t)to, to_device->chip->context, (cu_address)(uintptr_t)from,
                              from_device->chip->context, bytes, to_device->stream) != 0)
        return PM_ERR_UNSUPPORTED;
    PM_TRY(pm_cuda_told(to_device, "a copy", cu->cuEventRecord(to_device->meeting, to_device->stream)));
    PM_TRY(enter(from_device));
    return pm_cuda_told(from_device, "a copy", cu->cuStreamWaitEvent(from_device->stream, to_device->meeting, 0));
}

/// ---- work -------------------------------------------------------------------------------------------------------

static pm_status launch(pm_rt_device_state *device, uint32_t kernel, uint64_t blocks, const uint64_t *words,
                        size_t n_words)
{
    const pm_cuda_chip *c = device->chip;
    if (kernel >= c->desc->n_kernels)
        return pm_rt_error_set(PM_ERR_INTERNAL, "%s: there is no kernel %u", c->desc->name, kernel);
    if ((c->desc->kernels[kernel].flags & PM_RT_KERNEL_WALKS) && blocks > (uint64_t)c->multiprocessors)
        blocks = (uint64_t)c->multiprocessors;
    PM_TRY(enter(device));
    return pm_cuda_launch(device, kernel, (uint32_t)blocks, words, (uint32_t)n_words);
}

static pm_status wait(pm_rt_device_state *device)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_staged_forget(device);
    pm_status status = behind_launches(device);
    // All three, whatever happened: memory is given back behind this.
    cu_result work = cu->cuStreamSynchronize(device->stream), up = cu->cuStreamSynchronize(device->up),
              down = cu->cuStreamSynchronize(device->down);
    PM_TRY(status);
    return pm_cuda_told(device, "its work", work ? work : up ? up : down);
}

static int32_t *status_word(pm_rt_device_state *device)
{
    return (int32_t *)(uintptr_t)device->status_there;
}

static int32_t take_status(pm_rt_device_state *device)
{
    return __atomic_exchange_n(device->status, 0, __ATOMIC_ACQUIRE);
}

/// ---- the chip ---------------------------------------------------------------------------------------------------

/// How well code made for `arch` ("sm_90a") suits a chip: 0 not at all, else the higher the better. An exact one is
/// for chips of that number alone: those are cubins, and PTX with a letter behind the number.
static int suits(const pm_cuda_chip *c, const char *arch, bool exact)
{
    if (strncmp(arch, "sm_", 3) != 0)
        return 0;
    char *rest;
    long number = strtol(arch + 3, &rest, 10);
    long own = c->major * 10 + c->minor;
    exact = exact || *rest;
    if (number <= 0 || number > own || (exact && number != own))
        return 0;
    return (int)number * 2 + (*rest == 'a');
}

static pm_status load_image(pm_cuda_chip *c, const char *arch, const void *image, cu_module *out_module)
{
    char log[256] = "";
    unsigned int options[] = {PM_CU_JIT_ERROR_LOG, PM_CU_JIT_ERROR_LOG_SIZE};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    cu_result result = c->cuda->cuModuleLoadDataEx(out_module, image, 2, options, values);
    if (result == 0)
        return PM_OK;
    *out_module = NULL;
    log[sizeof log - 1] = 0;
    for (char *at = log; *at; at++) // one line of text
        *at = *at == '\n' ? ' ' : *at;
    char doing[320];
    snprintf(doing, sizeof doing, "code for %s%s%s", arch, log[0] ? ": " : "", log);
    return pm_cuda_check(c->cuda, c->desc->name, doing, result);
}

/// Loads the code of a number in its best form: a cubin for this very chip, else PTX, which the driver compiles.
static pm_status load_module(pm_cuda_chip *c, uint32_t number, cu_module *out_module)
{
    const pm_rt_device *desc = c->desc;
    const pm_rt_code *cubin = NULL, *ptx = NULL;
    int best_cubin = 0, best_ptx = 0;
    char archs[128] = "";
    for (uint64_t i = 0; i < desc->n_codes; i++) {
        const pm_rt_code *code = &desc->codes[i];
        if (code->number != number)
            continue;
        size_t used = strlen(archs);
        snprintf(archs + used, sizeof archs - used, "%s%s", used ? ", " : "", code->arch);
        int fit = code->cubin ? suits(c, code->arch, true) : 0;
        if (fit > best_cubin) {
            best_cubin = fit;
            cubin = code;
        }
        fit = code->ptx ? suits(c, code->arch, false) : 0;
        if (fit > best_ptx) {
            best_ptx = fit;
            ptx = code;
        }
    }
    if (cubin && (load_image(c, cubin->arch, cubin->cubin, out_module) == PM_OK))
        return PM_OK;
    if (ptx)
        return load_image(c, ptx->arch, ptx->ptx, out_module);
    if (cubin) // its words are the last error's
        return PM_ERR_UNSUPPORTED;
    return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s: this GPU is an sm_%d%d, the model has code for %s", desc->name, c->major,
                           c->minor, archs[0] ? archs : "none");
}

/// PIMOE_WGMMA=0 does without, to compare.
static bool has_wgmma(const pm_cuda_chip *c)
{
    const char *asked = getenv("PIMOE_WGMMA");
    if ((asked && strcmp(asked, "0") == 0) || !c->cuda->cuTensorMapEncodeTiled)
        return false;
    for (uint64_t i = 0; i < c->desc->n_codes; i++)
        if (strcmp(c->desc->codes[i].arch, PM_RT_WGMMA_ARCH) == 0)
            return suits(c, PM_RT_WGMMA_ARCH, true) > 0;
    return false;
}

static pm_status tensor_map(pm_rt_device_state *device, const pm_rt_tensor_map *map, const uint8_t *weights, void *out)
{
    const pm_cuda_chip *c = device->chip;
    if (!c->has_wgmma)
        return PM_ERR_UNSUPPORTED;
    const uint32_t box[] = {PM_RT_MAP_COLUMNS, PM_RT_MAP_ROWS, 1}, steps[] = {1, 1, 1};
    void *base = (void *)(uintptr_t)(weights + map->device_offset);
    PM_TRY(enter(device));
    return pm_cuda_told(device, "a tensor map",
                        c->cuda->cuTensorMapEncodeTiled(out, PM_CU_MAP_U16, 3, base, map->extents, map->strides, box,
                                                        steps, 0, PM_CU_MAP_SWIZZLE_128B, PM_CU_MAP_L2_256B, 0));
}

static pm_status load_kernel(pm_cuda_chip *c, uint64_t i)
{
    enum { WITHOUT_ASKING = 48 << 10 };
    const pm_rt_kernel *k = &c->desc->kernels[i];
    if ((k->flags & PM_RT_KERNEL_WGMMA) && !c->has_wgmma)
        return PM_OK;
    if (k->code >= c->n_modules)
        return pm_rt_error_set(PM_ERR_INVALID, "%s: kernel %s has no code", c->desc->name, k->name);
    if (!c->modules[k->code])
        PM_TRY(load_module(c, k->code, &c->modules[k->code]));
    PM_TRY(pm_cuda_check(c->cuda, c->desc->name, k->name,
                         c->cuda->cuModuleGetFunction(&c->functions[i], c->modules[k->code], k->name)));
    if (k->shared_bytes <= WITHOUT_ASKING)
        return PM_OK;
    return pm_cuda_check(c->cuda, c->desc->name, k->name,
                         c->cuda->cuFuncSetAttribute(c->functions[i], PM_CU_MAX_DYNAMIC_SHARED, (int)k->shared_bytes));
}

static pm_status load_kernels(pm_cuda_chip *c)
{
    const pm_rt_device *desc = c->desc;
    for (uint64_t i = 0; i < desc->n_codes; i++)
        c->n_modules = desc->codes[i].number >= c->n_modules ? desc->codes[i].number + 1 : c->n_modules;
    c->has_wgmma = has_wgmma(c);
    c->modules = calloc((size_t)c->n_modules + 1, sizeof(cu_module));
    c->functions = calloc(desc->n_kernels + 1, sizeof(cu_function));
    if (!c->modules || !c->functions)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    for (uint64_t i = 0; i < desc->n_kernels; i++)
        PM_TRY(load_kernel(c, i));
    return PM_OK;
}

/// Freed memory stays with the process: sizes come again.
static void use_pool(pm_cuda_chip *c)
{
    const pm_cuda *cu = c->cuda;
    int supported = 0;
    uint64_t all = UINT64_MAX;
    cu_pool pool;
    if (cu->cuMemAllocAsync && cu->cuMemFreeAsync && cu->cuDeviceGetDefaultMemPool && cu->cuMemPoolSetAttribute &&
        cu->cuMemPoolTrimTo &&
        cu->cuDeviceGetAttribute(&supported, PM_CU_MEMORY_POOLS_SUPPORTED, c->number) == 0 && supported &&
        cu->cuDeviceGetDefaultMemPool(&pool, c->number) == 0 &&
        cu->cuMemPoolSetAttribute(pool, PM_CU_POOL_RELEASE_THRESHOLD, &all) == 0)
        c->pool = pool;
}

static pm_status open_chip(pm_cuda_chip *c, int ordinal)
{
    const pm_cuda *cu = c->cuda;
    const char *name = c->desc->name;
    int count = 0;
    PM_TRY(pm_cuda_check(cu, name, "counting GPUs", cu->cuDeviceGetCount(&count)));
    if (ordinal >= count)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s: this machine has %d GPU%s (CUDA_VISIBLE_DEVICES hides some)", name,
                               count, count == 1 ? "" : "s");
    PM_TRY(pm_cuda_check(cu, name, "the GPU", cu->cuDeviceGet(&c->number, ordinal)));
    PM_TRY(pm_cuda_check(cu, name, "its architecture",
                         cu->cuDeviceGetAttribute(&c->major, PM_CU_COMPUTE_CAPABILITY_MAJOR, c->number)));
    PM_TRY(pm_cuda_check(cu, name, "its architecture",
                         cu->cuDeviceGetAttribute(&c->minor, PM_CU_COMPUTE_CAPABILITY_MINOR, c->number)));
    PM_TRY(pm_cuda_check(cu, name, "its multiprocessors",
                         cu->cuDeviceGetAttribute(&c->multiprocessors, PM_CU_MULTIPROCESSOR_COUNT, c->number)));
    cu_context context = NULL;
    PM_TRY(pm_cuda_check(cu, name, "its context", cu->cuDevicePrimaryCtxRetain(&context, c->number)));
    c->context = context;
    use_pool(c);
    return PM_OK;
}

static void close_chip(pm_cuda_chip *c)
{
    for (uint32_t i = 0; c->modules && i < c->n_modules; i++)
        if (c->modules[i])
            c->cuda->cuModuleUnload(c->modules[i]);
    if (c->pool)
        c->cuda->cuMemPoolTrimTo(c->pool, 0);
    leave(); // a context that is given up must not stay current
    if (c->context)
        c->cuda->cuDevicePrimaryCtxRelease_v2(c->number);
    pthread_mutex_destroy(&c->lock);
    free(c->modules);
    free(c->functions);
    free(c);
}

/// ---- opening ----------------------------------------------------------------------------------------------------

static void close_line(pm_rt_device_state *device)
{
    pm_cuda_chip *c = device->chip;
    if (c->context && enter(device) == PM_OK) {
        cu_stream *streams[] = {&device->stream, &device->up, &device->down};
        for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
            if (*streams[i])
                c->cuda->cuStreamSynchronize(*streams[i]);
        pm_cuda_launches_drop(device);
        pm_cuda_blas_drop(device);
        pm_cuda_staging_drop(device);
        if (device->meeting)
            c->cuda->cuEventDestroy_v2(device->meeting);
        if (device->brought)
            c->cuda->cuEventDestroy_v2(device->brought);
        if (device->status)
            c->cuda->cuMemFreeHost(device->status);
        for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
            if (*streams[i])
                c->cuda->cuStreamDestroy_v2(*streams[i]);
    }
    free(device);
    pthread_mutex_lock(&c->lock);
    int32_t left = --c->users;
    pthread_mutex_unlock(&c->lock);
    if (left == 0)
        close_chip(c);
}

static pm_status make_line(pm_rt_device_state *d)
{
    const pm_cuda *cu = d->chip->cuda;
    PM_TRY(enter(d));
    PM_TRY(pm_cuda_told(d, "a stream", cu->cuStreamCreate(&d->stream, PM_CU_STREAM_NON_BLOCKING)));
    PM_TRY(pm_cuda_told(d, "a stream", cu->cuStreamCreate(&d->up, PM_CU_STREAM_NON_BLOCKING)));
    PM_TRY(pm_cuda_told(d, "a stream", cu->cuStreamCreate(&d->down, PM_CU_STREAM_NON_BLOCKING)));
    PM_TRY(pm_cuda_told(d, "an event", cu->cuEventCreate(&d->meeting, PM_CU_EVENT_DISABLE_TIMING)));
    PM_TRY(pm_cuda_told(d, "an event", cu->cuEventCreate(&d->brought, PM_CU_EVENT_DISABLE_TIMING)));
    void *memory = NULL;
    PM_TRY(pm_cuda_told(d, "pinned memory", cu->cuMemHostAlloc(&memory, sizeof *d->status, PM_CU_HOST_DEVICEMAP)));
    d->status = memory;
    *d->status = 0;
    PM_TRY(pm_cuda_told(d, "pinned memory", cu->cuMemHostGetDevicePointer_v2(&d->status_there, memory, 0)));
    return pm_cuda_staging_make(d);
}

static bool wants_graphs(const pm_cuda *cu)
{
    const char *asked = getenv("PIMOE_GRAPHS");
    return !(asked && strcmp(asked, "0") == 0) && cu->cuGraphCreate && cu->cuGraphDestroy && cu->cuGraphAddKernelNode &&
           cu->cuGraphInstantiateWithFlags && cu->cuGraphExecKernelNodeSetParams && cu->cuGraphExecDestroy &&
           cu->cuGraphLaunch;
}

static pm_cuda_chip *new_chip(const pm_cuda *cu, const pm_rt_device *desc)
{
    pm_cuda_chip *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (pm_cuda_chip){.cuda = cu, .desc = desc};
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

static pm_status open_line(const pm_rt_device *desc, int ordinal, pm_rt_device_state *share,
                           pm_rt_device_state **out_device)
{
    const pm_cuda *cu;
    PM_TRY(pm_cuda_load(&cu));
    pm_rt_device_state *d = calloc(1, sizeof *d);
    pm_cuda_chip *c = !d ? NULL : share ? share->chip : new_chip(cu, desc);
    if (!c) {
        free(d);
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    }
    d->chip = c;
    d->launches.graphs = wants_graphs(cu);
    pm_cuda_blas_make(d);
    pthread_mutex_lock(&c->lock);
    c->users++;
    pthread_mutex_unlock(&c->lock);
    pm_status status = share ? PM_OK : open_chip(c, ordinal);
    if (status == PM_OK)
        status = make_line(d);
    if (status == PM_OK && !share)
        status = load_kernels(c);
    if (status == PM_OK)
        *out_device = d;
    else
        close_line(d);
    return status;
}

const pm_rt_device_ops pm_rt_cuda_ops = {
    .kind = "cuda",
    .sessions = &pm_rt_device_sessions_table,
    .open = open_line,
    .close = close_line,
    .alloc = alloc,
    .release = release,
    .clear = clear,
    .upload = upload,
    .bring = bring,
    .fetch = fetch,
    .arrive = arrive,
    .peer = peer,
    .launch = launch,
    .tensor_map = tensor_map,
    .wait = wait,
    .status = status_word,
    .take_status = take_status,
    .leave = leave,
};
