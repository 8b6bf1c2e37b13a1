/// A stand-in for NVIDIA's driver, built as libcuda.so.1: memory of the host plays that of devices, and nothing is done
/// before somebody waits for it, as late as a real one might. Whoever breaks the rules (a handle that is gone or of another
/// context, copies from memory that isn't pinned, memory that is too small or freed) is told so, and the test ends.
#include "tests/cuda/fake_libcuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/device/cuda_api.h"
#include "runtime/runtime_abi.h"

#define EXPORT __attribute__((visibility("default")))

enum { PAGE = 4096, MOST_DEVICES = 4, WORDS_MOST = 64, UNKNOWN_ERROR = 999, INVALID_VALUE = 1, NOT_FOUND = 500 };

typedef enum kind { CONTEXT = 0x71f00001, MODULE, FUNCTION, STREAM, EVENT, GRAPH, NODE, EXEC } kind;

/// How every handle begins.
typedef struct object {
    kind kind;
    bool gone;
    int device;
    struct object *earlier; ///< the one that was made before it
} object;

struct CUctx_st {
    object o;
    long retained;
};

struct CUmod_st {
    object o;
    struct CUfunc_st *functions;
};

struct CUfunc_st {
    object o;
    struct CUmod_st *module;
    const fake_kernel *kernel;
    int shared;
    struct CUfunc_st *next;
};

typedef enum action { COPY, CLEAR, KERNEL, CALL_BACK, WAIT, FREE } action;

typedef struct work {
    action action;
    char direction; ///< of a COPY: U, D, or 0
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
    struct CUstream_st *stream; ///< WAIT: until this one has done `bytes` pieces of work
    const fake_kernel *kernel;
    fake_work *run; ///< of a CALL_BACK, with `to`
    uint64_t words[WORDS_MOST];
    uint32_t blocks, threads, shared, n_words;
} work;

typedef void play_fn(const char *name, uint32_t blocks, uint32_t threads, uint32_t shared, const uint64_t *words, uint32_t n);

typedef bool emu_map_fn(void *map, const void *base, uint32_t element_bytes, const uint64_t *extent, const uint64_t *stride,
                        const uint32_t *box, int32_t swizzle); // pm_emu_tensor_map_make

struct CUstream_st {
    object o;
    struct CUstream_st *next; ///< of all
    work *queue;
    size_t n, room, done;
    struct CUgraph_st *capture; ///< what is given goes there, and isn't done
};

struct CUevent_st {
    object o;
    struct CUstream_st *stream;
    size_t at;
};

struct CUgraphNode_st {
    object o;
    struct CUgraph_st *graph;
    struct CUfunc_st *function; ///< NULL: no kernel
    work launch;
    work *inner; ///< of a graph within the graph
    size_t n_inner;
    struct CUgraphNode_st *next;
};

struct CUgraph_st {
    object o;
    struct CUgraphNode_st *first, *last;
};

struct CUgraphExec_st {
    object o;
    struct CUgraphNode_st **nodes;
    work *launches;
    size_t n;
};

typedef struct memory {
    struct memory *next;
    uint8_t *start;
    size_t size;
    int device; ///< -1: pinned memory of the host
} memory;

EXPORT fake_cuda pm_fake_cuda = {.devices = 2, .major = 9, .pools = 1, .fail_with = UNKNOWN_ERROR};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUctx_st contexts[MOST_DEVICES];
static memory *memories;
static object *objects; ///< all that were ever made
static struct CUstream_st *streams;
static bool started;
static _Thread_local struct CUctx_st *current;

static _Noreturn void violated(const char *what, const char *function)
{
    fprintf(stderr, "fake libcuda: %s: %s\n", function, what);
    abort();
}

#define RULE(condition, what) ((condition) ? (void)0 : violated(what, __func__))
#define LOCKED __attribute__((cleanup(unlock))) pthread_mutex_t *held = take()
/// At the start of every function that may fail.
#define CALL                                                                                                      \
    LOCKED;                                                                                                       \
    (void)held;                                                                                                   \
    if (++pm_fake_cuda.calls == pm_fake_cuda.fail_at)                                                             \
        return pm_fake_cuda.fail_with;
#define CALL_STARTED                                                                                              \
    CALL                                                                                                          \
    RULE(started, "cuInit was not called");

static pthread_mutex_t *take(void)
{
    pthread_mutex_lock(&lock);
    return &lock;
}

static void unlock(pthread_mutex_t **held)
{
    pthread_mutex_unlock(*held);
}

static void *made(size_t size, kind k, int device)
{
    object *o = calloc(1, size);
    if (!o)
        abort();
    *o = (object){.kind = k, .device = device, .earlier = objects};
    objects = o;
    pm_fake_cuda.live++;
    return o;
}

/// Handles stay as memory, to be known when they come again. (Tests are short.)
static void gone(object *o)
{
    o->gone = true;
    pm_fake_cuda.live--;
}

static void check_handle(const void *handle, kind k, const char *function)
{
    const object *o = handle;
    if (!o || o->kind != k)
        violated("what it was given is no such handle", function);
    if (o->gone)
        violated("the handle is gone", function);
    if (!current || current->o.device != o->device)
        violated("the handle is of another context than the current one", function);
}

#define HANDLE(h, k) check_handle(h, k, __func__)

/// ---- memory ---------------------------------------------------------------------------------------------------

static memory *memory_of(const void *at, size_t bytes)
{
    for (memory *m = memories; m; m = m->next)
        if ((uintptr_t)at >= (uintptr_t)m->start && (uintptr_t)at - (uintptr_t)m->start < m->size &&
            bytes <= m->size - ((uintptr_t)at - (uintptr_t)m->start))
            return m;
    return NULL;
}

static void *new_memory(size_t bytes, int device)
{
    memory *m = calloc(1, sizeof *m);
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    uint8_t *p = mmap(NULL, pages + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!m || p == MAP_FAILED)
        abort();
    if (mprotect(p, pages, PROT_READ | PROT_WRITE) != 0)
        abort();
    memset(p, 0xcc, bytes < PAGE ? bytes : PAGE); // nobody promises zeros
    if (device >= 0 && !pm_fake_cuda.open && mprotect(p, pages, PROT_NONE) != 0)
        abort();
    *m = (memory){memories, p, bytes, device};
    memories = m;
    pm_fake_cuda.live++;
    return p;
}

static bool drop_memory(void *start, int device)
{
    for (memory **at = &memories; *at; at = &(*at)->next)
        if ((*at)->start == start && (*at)->device == device) {
            memory *m = *at;
            *at = m->next;
            munmap(m->start, (m->size + PAGE - 1) / PAGE * PAGE + PAGE);
            free(m);
            pm_fake_cuda.live--;
            return true;
        }
    return false;
}

static void open_memory(bool open)
{
    for (memory *m = memories; m && !pm_fake_cuda.open; m = m->next)
        if (m->device >= 0 && mprotect(m->start, m->size, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            abort();
}

/// ---- streams ----------------------------------------------------------------------------------------------------

static struct CUgraphNode_st *append(struct CUgraph_st *graph)
{
    struct CUgraphNode_st *n = made(sizeof *n, NODE, graph->o.device);
    pm_fake_cuda.live--; // goes with its graph
    n->graph = graph;
    if (graph->last)
        graph->last->next = n;
    else
        graph->first = n;
    graph->last = n;
    return n;
}

static void put(struct CUstream_st *s, work w)
{
    if (s->capture) {
        RULE(w.action == KERNEL || w.action == CALL_BACK, "what graphs don't take while a stream is captured");
        append(s->capture)->launch = w;
        return;
    }
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->queue = realloc(s->queue, s->room * sizeof *s->queue);
        if (!s->queue)
            abort();
    }
    s->queue[s->n++] = w;
}

static void note(char what)
{
    if (pm_fake_cuda.n_order < (int)sizeof pm_fake_cuda.order - 1)
        pm_fake_cuda.order[pm_fake_cuda.n_order++] = what;
}

static void run_to(struct CUstream_st *s, size_t end)
{
    while (s->done < end) {
        work w = s->queue[s->done++];
        switch (w.action) {
        case COPY:
            RULE(memory_of(w.to, w.bytes) && memory_of(w.from, w.bytes), "a copy from or to memory that is gone");
            memcpy(w.to, w.from, w.bytes);
            if (w.direction)
                note(w.direction);
            break;
        case CLEAR:
            RULE(memory_of(w.to, w.bytes), "memory that is gone is cleared");
            memset(w.to, 0, w.bytes);
            break;
        case KERNEL:
            note('K');
            if (!w.kernel->run) {
                play_fn *play;
                *(void **)&play = dlsym(RTLD_DEFAULT, "pm_fake_play");
                play(w.kernel->name, w.blocks, w.threads, w.shared, w.words, w.n_words);
            }
            for (uint32_t i = 0; i < w.blocks && w.kernel->run; i++)
                w.kernel->run(w.words);
            break;
        case CALL_BACK:
            note('L');
            w.run(w.to);
            break;
        case WAIT: run_to(w.stream, w.bytes); break;
        case FREE: RULE(drop_memory(w.to, s->o.device), "memory is freed that isn't there"); break;
        }
    }
}

static void finish(struct CUstream_st *s, size_t end)
{
    open_memory(true);
    run_to(s, end);
    open_memory(false);
}

/// What gives memory back waits for all that may use it.
static void finish_all(int device)
{
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (!s->o.gone && s->o.device == device)
            finish(s, s->n);
}

/// ---- the driver: the machine --------------------------------------------------------------------------------------

EXPORT cu_result cuInit(unsigned int flags)
{
    CALL
    RULE(flags == 0, "flags");
    if (pm_fake_cuda.devices == 0)
        return PM_CU_NO_DEVICE;
    started = true;
    return 0;
}

EXPORT cu_result cuDriverGetVersion(int *version)
{
    CALL
    *version = 13000;
    return 0;
}

EXPORT cu_result cuGetErrorString(cu_result result, const char **words)
{
    *words = result == UNKNOWN_ERROR ? "injected" : result == PM_CU_NO_DEVICE ? "no CUDA-capable device is detected" : NULL;
    return *words ? 0 : INVALID_VALUE;
}

EXPORT cu_result cuGetErrorName(cu_result result, const char **words)
{
    return cuGetErrorString(result, words);
}

EXPORT cu_result cuDeviceGetCount(int *count)
{
    CALL_STARTED
    *count = pm_fake_cuda.devices;
    return 0;
}

EXPORT cu_result cuDeviceGet(cu_device *device, int ordinal)
{
    CALL_STARTED
    if (ordinal < 0 || ordinal >= pm_fake_cuda.devices)
        return PM_CU_INVALID_DEVICE;
    *device = ordinal;
    return 0;
}

EXPORT cu_result cuDeviceGetName(char *name, int size, cu_device device)
{
    CALL_STARTED
    snprintf(name, (size_t)size, "Fake %d", device);
    return 0;
}

EXPORT cu_result cuDeviceGetAttribute(int *value, unsigned int attribute, cu_device device)
{
    CALL_STARTED
    RULE(device >= 0 && device < pm_fake_cuda.devices, "no such device");
    *value = attribute == PM_CU_COMPUTE_CAPABILITY_MAJOR   ? pm_fake_cuda.major
             : attribute == PM_CU_COMPUTE_CAPABILITY_MINOR ? pm_fake_cuda.minor
             : attribute == PM_CU_MEMORY_POOLS_SUPPORTED   ? pm_fake_cuda.pools
                                                           : 1000;
    return 0;
}

EXPORT cu_result cuDeviceTotalMem_v2(size_t *bytes, cu_device device)
{
    CALL_STARTED
    (void)device;
    *bytes = (size_t)80 << 30;
    return 0;
}

EXPORT cu_result cuDeviceGetPCIBusId(char *id, int size, cu_device device)
{
    CALL_STARTED
    snprintf(id, (size_t)size, "0000:%02x:00.0", device + 1);
    return 0;
}

EXPORT cu_result cuDevicePrimaryCtxRetain(cu_context *context, cu_device device)
{
    CALL_STARTED
    RULE(device >= 0 && device < pm_fake_cuda.devices, "no such device");
    struct CUctx_st *c = &contexts[device];
    c->o = (object){.kind = CONTEXT, .device = device};
    c->retained++;
    pm_fake_cuda.live++;
    *context = c;
    return 0;
}

EXPORT cu_result cuDevicePrimaryCtxRelease_v2(cu_device device)
{
    LOCKED;
    (void)held;
    struct CUctx_st *c = &contexts[device];
    RULE(c->retained > 0, "was not retained");
    if (--c->retained == 0) {
        RULE(current != c, "the context is still current");
        c->o.gone = true;
    }
    pm_fake_cuda.live--;
    return 0;
}

EXPORT cu_result cuCtxGetCurrent(cu_context *context)
{
    LOCKED;
    (void)held;
    if (!started)
        return PM_CU_NOT_INITIALIZED;
    *context = current;
    return 0;
}

EXPORT cu_result cuCtxSetCurrent(cu_context context)
{
    LOCKED;
    (void)held;
    RULE(started, "cuInit was not called");
    RULE(!context || (context->o.kind == CONTEXT && !context->o.gone), "no context, or one that is gone");
    current = context;
    return 0;
}

/// ---- code ---------------------------------------------------------------------------------------------------------

EXPORT cu_result cuModuleLoadDataEx(cu_module *module, const void *image, unsigned int n, unsigned int *options,
                                    void **values)
{
    CALL_STARTED
    (void)options;
    RULE(current && image, "no context, or no image");
    if (strncmp(image, "bad", 3) == 0) {
        RULE(n == 2, "room for messages");
        snprintf(values[0], (size_t)(uintptr_t)values[1], "line 1:\nsyntax");
        return PM_CU_INVALID_PTX;
    }
    bool cubin = strncmp(image, "\177ELF", 4) == 0;
    pm_fake_cuda.modules_of_cubin += cubin;
    pm_fake_cuda.modules_of_ptx += !cubin;
    *module = made(sizeof **module, MODULE, current->o.device);
    return 0;
}

EXPORT cu_result cuModuleUnload(cu_module module)
{
    LOCKED;
    (void)held;
    HANDLE(module, MODULE);
    for (struct CUfunc_st *f = module->functions; f; f = f->next)
        f->o.gone = true;
    gone(&module->o);
    return 0;
}

EXPORT cu_result cuModuleGetFunction(cu_function *function, cu_module module, const char *name)
{
    CALL_STARTED
    HANDLE(module, MODULE);
    const fake_kernel *k = dlsym(RTLD_DEFAULT, "pm_fake_kernels");
    RULE(k || dlsym(RTLD_DEFAULT, "pm_fake_play"), "the test has no kernels");
    while (k && k->name && strcmp(k->name, name) != 0)
        k++;
    if (k && !k->name)
        return NOT_FOUND;
    if (!k) {
        fake_kernel *played = calloc(1, sizeof *played);
        *played = (fake_kernel){.name = strdup(name), .n_words = WORDS_MOST};
        k = played;
    }
    struct CUfunc_st *f = made(sizeof *f, FUNCTION, module->o.device);
    pm_fake_cuda.live--; // goes with its module
    f->module = module;
    f->kernel = k;
    f->shared = 48 << 10;
    f->next = module->functions;
    module->functions = f;
    *function = f;
    return 0;
}

EXPORT cu_result cuFuncSetAttribute(cu_function function, unsigned int attribute, int value)
{
    CALL_STARTED
    HANDLE(function, FUNCTION);
    RULE(attribute == PM_CU_MAX_DYNAMIC_SHARED, "attribute");
    if (value > 227 << 10)
        return INVALID_VALUE;
    function->shared = value;
    return 0;
}

/// A launch's words are read now, as the driver does.
static cu_result launch_work(cu_function f, unsigned int blocks, unsigned int threads, unsigned int shared,
                             void **parameters, work *out)
{
    if (blocks == 0 || blocks > INT32_MAX || threads == 0 || threads > 1024 || shared > (unsigned int)f->shared)
        return INVALID_VALUE;
    *out = (work){.action = KERNEL, .kernel = f->kernel, .blocks = blocks, .threads = threads, .shared = shared};
    for (uint32_t i = 0; i < f->kernel->n_words && (f->kernel->run || parameters[i]); i++)
        out->words[out->n_words++] = *(const uint64_t *)parameters[i];
    return 0;
}

EXPORT cu_result cuLaunchKernel(cu_function f, unsigned int x, unsigned int y, unsigned int z, unsigned int tx,
                                unsigned int ty, unsigned int tz, unsigned int shared, cu_stream stream,
                                void **parameters, void **extra)
{
    CALL_STARTED
    HANDLE(f, FUNCTION);
    HANDLE(stream, STREAM);
    RULE(y == 1 && z == 1 && ty == 1 && tz == 1 && !extra, "one dimension");
    work w;
    cu_result result = launch_work(f, x, tx, shared, parameters, &w);
    if (result == 0)
        put(stream, w);
    pm_fake_cuda.launches++;
    return result;
}

/// ---- memory ---------------------------------------------------------------------------------------------------------

EXPORT cu_result cuMemAlloc_v2(cu_address *at, size_t bytes)
{
    CALL_STARTED
    RULE(current && bytes > 0, "no context, or no bytes");
    *at = (cu_address)(uintptr_t)new_memory(bytes, current->o.device);
    return 0;
}

EXPORT cu_result cuMemFree_v2(cu_address at)
{
    LOCKED;
    (void)held;
    RULE(current, "no context");
    finish_all(current->o.device);
    RULE(drop_memory((void *)(uintptr_t)at, current->o.device), "memory that isn't there");
    return 0;
}

EXPORT cu_result cuDeviceGetDefaultMemPool(cu_pool *pool, cu_device device)
{
    CALL_STARTED
    *pool = (cu_pool)&contexts[device];
    return 0;
}

EXPORT cu_result cuMemPoolSetAttribute(cu_pool pool, unsigned int attribute, void *value)
{
    CALL_STARTED
    RULE(pool && attribute == PM_CU_POOL_RELEASE_THRESHOLD && *(uint64_t *)value > 0, "attribute");
    return 0;
}

EXPORT cu_result cuMemPoolTrimTo(cu_pool pool, size_t bytes)
{
    (void)bytes;
    return pool ? 0 : INVALID_VALUE;
}

EXPORT cu_result cuMemAllocAsync(cu_address *at, size_t bytes, cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    RULE(pm_fake_cuda.pools && bytes > 0, "pools, or no bytes");
    *at = (cu_address)(uintptr_t)new_memory(bytes, stream->o.device);
    return 0;
}

EXPORT cu_result cuMemFreeAsync(cu_address at, cu_stream stream)
{
    LOCKED;
    (void)held;
    HANDLE(stream, STREAM);
    put(stream, (work){.action = FREE, .to = (uint8_t *)(uintptr_t)at});
    return 0;
}

EXPORT cu_result cuTensorMapEncodeTiled(cu_tensor_map *map, unsigned int elements, uint32_t rank, void *base,
                                        const uint64_t *extents, const uint64_t *strides, const uint32_t *box,
                                        const uint32_t *steps, unsigned int interleave, unsigned int swizzle,
                                        unsigned int l2, unsigned int fill)
{
    CALL_STARTED
    RULE((uintptr_t)map % 64 == 0 && elements == PM_CU_MAP_U16 && rank == 3 && (uintptr_t)base % 16 == 0, "map or base");
    RULE(interleave == 0 && swizzle == PM_CU_MAP_SWIZZLE_128B && l2 == PM_CU_MAP_L2_256B && fill == 0, "ways to copy");
    for (uint32_t i = 0; i < rank; i++)
        RULE(extents[i] > 0 && extents[i] <= UINT32_MAX && box[i] > 0 && box[i] <= 256 && steps[i] == 1, "extents");
    RULE(box[0] * 2 <= 128, "a box wider than the swizzle");
    for (uint32_t i = 0; i + 1 < rank; i++)
        RULE(strides[i] % 16 == 0 && strides[i] < (1ull << 40), "strides");
    memset(map, 0, PM_RT_TENSOR_MAP_BYTES);
    memcpy(map, &base, sizeof base);
    // where launches are played, the player's map
    emu_map_fn *make;
    *(void **)&make = dlsym(RTLD_DEFAULT, "pm_fake_play") ? dlsym(RTLD_DEFAULT, "pm_emu_tensor_map_make") : NULL;
    return !make || make(map, base, 2, extents, strides, box, 1) ? 0 : INVALID_VALUE;
}

EXPORT cu_result cuMemHostAlloc(void **at, size_t bytes, unsigned int flags)
{
    CALL_STARTED
    (void)flags;
    RULE(current && bytes > 0, "no context, or no bytes");
    *at = new_memory(bytes, -1);
    return 0;
}

EXPORT cu_result cuMemFreeHost(void *at)
{
    LOCKED;
    (void)held;
    RULE(current, "no context");
    finish_all(current->o.device);
    RULE(drop_memory(at, -1), "memory that isn't there");
    return 0;
}

EXPORT cu_result cuMemHostGetDevicePointer_v2(cu_address *there, void *at, unsigned int flags)
{
    CALL_STARTED
    RULE(memory_of(at, 1) && flags == 0, "no pinned memory");
    *there = (cu_address)(uintptr_t)at;
    return 0;
}

/// Both ends are there now and of the right sort; the copy comes later.
static void put_copy(cu_stream stream, void *to, int to_device, const void *from, int from_device, size_t bytes,
                     const char *function)
{
    const memory *t = memory_of(to, bytes), *f = memory_of(from, bytes);
    if (!t || t->device != to_device)
        violated("the target isn't memory of that sort, or too small", function);
    if (!f || f->device != from_device)
        violated("the source isn't memory of that sort, or too small", function);
    char direction = to_device == from_device ? 0 : from_device < 0 ? 'U' : to_device < 0 ? 'D' : 0;
    put(stream, (work){.action = COPY, .direction = direction, .to = to, .from = from, .bytes = bytes});
    if (pm_fake_cuda.eager)
        finish(stream, stream->n);
}

EXPORT cu_result cuMemcpyHtoDAsync_v2(cu_address to, const void *from, size_t bytes, cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    put_copy(stream, (void *)(uintptr_t)to, stream->o.device, from, -1, bytes, __func__);
    return 0;
}

EXPORT cu_result cuMemcpyDtoHAsync_v2(void *to, cu_address from, size_t bytes, cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    put_copy(stream, to, -1, (const void *)(uintptr_t)from, stream->o.device, bytes, __func__);
    return 0;
}

EXPORT cu_result cuMemcpyDtoDAsync_v2(cu_address to, cu_address from, size_t bytes, cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    put_copy(stream, (void *)(uintptr_t)to, stream->o.device, (const void *)(uintptr_t)from, stream->o.device, bytes,
             __func__);
    return 0;
}

EXPORT cu_result cuMemcpyPeerAsync(cu_address to, cu_context there, cu_address from, cu_context here, size_t bytes,
                                   cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    put_copy(stream, (void *)(uintptr_t)to, there->o.device, (const void *)(uintptr_t)from, here->o.device, bytes,
             __func__);
    return 0;
}

EXPORT cu_result cuMemsetD8Async(cu_address to, unsigned char value, size_t bytes, cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    const memory *m = memory_of((void *)(uintptr_t)to, bytes);
    RULE(m && m->device == stream->o.device && value == 0, "no memory of this device");
    put(stream, (work){.action = CLEAR, .to = (uint8_t *)(uintptr_t)to, .bytes = bytes});
    return 0;
}

/// ---- streams and events -----------------------------------------------------------------------------------------------

EXPORT cu_result cuStreamCreate(cu_stream *stream, unsigned int flags)
{
    CALL_STARTED
    RULE(current && flags == PM_CU_STREAM_NON_BLOCKING, "no context, or a stream that others wait for");
    *stream = made(sizeof **stream, STREAM, current->o.device);
    (*stream)->next = streams;
    streams = *stream;
    return 0;
}

EXPORT cu_result cuStreamDestroy_v2(cu_stream stream)
{
    LOCKED;
    (void)held;
    HANDLE(stream, STREAM);
    finish(stream, stream->n);
    free(stream->queue);
    stream->queue = NULL;
    gone(&stream->o);
    return 0;
}

EXPORT cu_result cuStreamSynchronize(cu_stream stream)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    RULE(!stream->capture, "the stream is captured");
    finish(stream, stream->n);
    return 0;
}

EXPORT cu_result cuStreamWaitEvent(cu_stream stream, cu_event event, unsigned int flags)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    RULE(event && event->o.kind == EVENT && !event->o.gone && flags == 0, "the event"); // of any context
    RULE(event->stream, "the event was never recorded");
    put(stream, (work){.action = WAIT, .stream = event->stream, .bytes = event->at});
    return 0;
}

EXPORT cu_result cuEventCreate(cu_event *event, unsigned int flags)
{
    CALL_STARTED
    (void)flags;
    RULE(current, "no context");
    *event = made(sizeof **event, EVENT, current->o.device);
    return 0;
}

EXPORT cu_result cuEventDestroy_v2(cu_event event)
{
    LOCKED;
    (void)held;
    HANDLE(event, EVENT);
    gone(&event->o);
    return 0;
}

EXPORT cu_result cuEventRecord(cu_event event, cu_stream stream)
{
    CALL_STARTED
    HANDLE(event, EVENT);
    HANDLE(stream, STREAM);
    event->stream = stream;
    event->at = stream->n;
    return 0;
}

EXPORT cu_result cuEventSynchronize(cu_event event)
{
    CALL_STARTED
    HANDLE(event, EVENT);
    RULE(event->stream, "the event was never recorded");
    finish(event->stream, event->at);
    return 0;
}

/// A microsecond for each piece of work between them.
EXPORT cu_result cuEventElapsedTime(float *milliseconds, cu_event begin, cu_event end)
{
    CALL_STARTED
    HANDLE(begin, EVENT);
    HANDLE(end, EVENT);
    RULE(begin->stream && begin->stream == end->stream && begin->at <= end->at && end->at <= end->stream->done,
         "events that have not happened, or in another order");
    *milliseconds = (float)(end->at - begin->at) * 1e-3f;
    return 0;
}

/// ---- graphs -----------------------------------------------------------------------------------------------------------

EXPORT cu_result cuGraphCreate(cu_graph *graph, unsigned int flags)
{
    CALL_STARTED
    RULE(current && flags == 0, "no context");
    *graph = made(sizeof **graph, GRAPH, current->o.device);
    return 0;
}

EXPORT cu_result cuGraphDestroy(cu_graph graph)
{
    LOCKED;
    (void)held;
    HANDLE(graph, GRAPH);
    for (struct CUgraphNode_st *n = graph->first; n; n = n->next)
        n->o.gone = true;
    gone(&graph->o);
    return 0;
}

EXPORT cu_result cuGraphAddKernelNode(cu_node *node, cu_graph graph, const cu_node *before, size_t n_before,
                                      const cu_launch *l)
{
    CALL_STARTED
    HANDLE(graph, GRAPH);
    HANDLE(l->func, FUNCTION);
    RULE(n_before == (graph->last != NULL) && (!n_before || *before == graph->last), "one launch behind the other");
    work w;
    cu_result result = launch_work(l->func, l->gridDimX, l->blockDimX, l->sharedMemBytes, l->kernelParams, &w);
    if (result != 0)
        return result;
    struct CUgraphNode_st *n = append(graph);
    n->function = l->func;
    n->launch = w;
    *node = n;
    return 0;
}

EXPORT cu_result cuGraphAddChildGraphNode(cu_node *node, cu_graph graph, const cu_node *before, size_t n_before,
                                          cu_graph child)
{
    CALL_STARTED
    HANDLE(graph, GRAPH);
    HANDLE(child, GRAPH);
    RULE(n_before == (graph->last != NULL) && (!n_before || *before == graph->last), "one launch behind the other");
    struct CUgraphNode_st *n = append(graph);
    for (struct CUgraphNode_st *c = child->first; c; c = c->next) {
        n->inner = realloc(n->inner, (n->n_inner + 1) * sizeof *n->inner);
        n->inner[n->n_inner++] = c->launch;
    }
    *node = n;
    return 0;
}

EXPORT cu_result cuStreamBeginCapture_v2(cu_stream stream, unsigned int mode)
{
    CALL_STARTED
    HANDLE(stream, STREAM);
    RULE(mode == PM_CU_CAPTURE_RELAXED && !stream->capture, "the mode, or it is captured already");
    stream->capture = made(sizeof *stream->capture, GRAPH, stream->o.device);
    return 0;
}

EXPORT cu_result cuStreamEndCapture(cu_stream stream, cu_graph *graph)
{
    LOCKED;
    (void)held;
    HANDLE(stream, STREAM);
    RULE(stream->capture, "nothing is captured");
    struct CUgraph_st *captured = stream->capture;
    stream->capture = NULL;
    *graph = NULL;
    if (++pm_fake_cuda.calls == pm_fake_cuda.fail_at) {
        gone(&captured->o);
        return pm_fake_cuda.fail_with;
    }
    *graph = captured;
    return 0;
}

EXPORT void pm_fake_give(cu_stream stream, fake_work *run, void *arg)
{
    LOCKED;
    (void)held;
    HANDLE(stream, STREAM);
    put(stream, (work){.action = CALL_BACK, .run = run, .to = arg});
}

EXPORT int pm_fake_is_device_memory(const void *at, size_t bytes)
{
    LOCKED;
    (void)held;
    const memory *m = memory_of(at, bytes);
    return m && current && m->device == current->o.device;
}

EXPORT cu_result cuGraphInstantiateWithFlags(cu_graph_exec *exec, cu_graph graph, unsigned long long flags)
{
    CALL_STARTED
    HANDLE(graph, GRAPH);
    RULE(flags == 0, "flags");
    struct CUgraphExec_st *e = made(sizeof *e, EXEC, graph->o.device);
    for (struct CUgraphNode_st *n = graph->first; n; n = n->next)
        e->n += n->n_inner ? n->n_inner : 1;
    e->nodes = calloc(e->n + 1, sizeof *e->nodes);
    e->launches = calloc(e->n + 1, sizeof *e->launches);
    size_t i = 0;
    for (struct CUgraphNode_st *n = graph->first; n; n = n->next)
        for (size_t k = 0; k < (n->n_inner ? n->n_inner : 1); k++, i++) {
            e->nodes[i] = n;
            e->launches[i] = n->inner ? n->inner[k] : n->launch;
        }
    *exec = e;
    return 0;
}

EXPORT cu_result cuGraphExecKernelNodeSetParams(cu_graph_exec exec, cu_node node, const cu_launch *l)
{
    CALL_STARTED
    HANDLE(exec, EXEC);
    HANDLE(node, NODE);
    RULE(l->func == node->function, "another function");
    pm_fake_cuda.graph_updates++;
    for (size_t i = 0; i < exec->n; i++)
        if (exec->nodes[i] == node)
            return launch_work(l->func, l->gridDimX, l->blockDimX, l->sharedMemBytes, l->kernelParams,
                               &exec->launches[i]);
    violated("the node is of another graph", __func__);
}

EXPORT cu_result cuGraphExecDestroy(cu_graph_exec exec)
{
    LOCKED;
    (void)held;
    HANDLE(exec, EXEC);
    free(exec->nodes);
    free(exec->launches);
    gone(&exec->o);
    return 0;
}

EXPORT cu_result cuGraphLaunch(cu_graph_exec exec, cu_stream stream)
{
    CALL_STARTED
    HANDLE(exec, EXEC);
    HANDLE(stream, STREAM);
    for (size_t i = 0; i < exec->n; i++)
        put(stream, exec->launches[i]);
    pm_fake_cuda.graph_launches++;
    return 0;
}
