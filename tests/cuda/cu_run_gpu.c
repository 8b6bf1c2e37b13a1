/// The tests of templates on silicon: what they launch runs on a GPU, on copies of their buffers. Linked in place of
/// cu_run.c's player. Environment: PIMOE_GPU_KERNELS, the folder of kernels (NAME.sm_90a.cubin, NAME.sm_80.ptx);
/// PIMOE_GPU, the number of the GPU.
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pm/runtime.h"
#include "runtime/device/cuda_api.h"
#include "tests/cuda/cu_run.h"
#include "tools/gpu_bench/gpu_images.h"

enum { MOST_MIRRORS = 64, MOST_KERNELS = 128, EDGE = 256, EDGE_BYTE = 0xa5, OWN_BYTES = 64, WORDS_MOST = 64 };

/// A buffer of the test, and its copy on the GPU between two edges that nobody may write.
typedef struct mirror {
    uint8_t *here, *before; ///< before: what was there when the kernel began
    size_t bytes;
    cu_address there;
} mirror;

static struct {
    const pm_cuda *cu;
    cu_context context;
    cu_stream stream;
    int sm;
    struct {
        char name[64];
        cu_function function;
    } kernels[MOST_KERNELS];
    int n_kernels;
} gpu;

static void need(const char *doing, cu_result result)
{
    if (pm_cuda_check(gpu.cu, "the GPU", doing, result) != PM_OK)
        ck_abort_msg("%s", pm_last_error());
}

static void open_gpu(void)
{
    const char *asked = getenv("PIMOE_GPU");
    cu_device device;
    int major, minor;
    if (gpu.context)
        return;
    if (pm_cuda_load(&gpu.cu) != PM_OK)
        ck_abort_msg("%s", pm_last_error());
    need("opening it", gpu.cu->cuDeviceGet(&device, asked ? atoi(asked) : 0));
    need("its architecture", gpu.cu->cuDeviceGetAttribute(&major, PM_CU_COMPUTE_CAPABILITY_MAJOR, device));
    need("its architecture", gpu.cu->cuDeviceGetAttribute(&minor, PM_CU_COMPUTE_CAPABILITY_MINOR, device));
    gpu.sm = major * 10 + minor;
    need("its context", gpu.cu->cuDevicePrimaryCtxRetain(&gpu.context, device));
    need("its context", gpu.cu->cuCtxSetCurrent(gpu.context));
    need("a stream", gpu.cu->cuStreamCreate(&gpu.stream, PM_CU_STREAM_NON_BLOCKING));
}

static cu_function function_of(const char *kernel, int64_t shared_bytes)
{
    for (int i = 0; i < gpu.n_kernels; i++)
        if (strcmp(gpu.kernels[i].name, kernel) == 0)
            return gpu.kernels[i].function;
    const char *folder = getenv("PIMOE_GPU_KERNELS");
    char *image = pm_gpu_image(folder ? folder : "kernels", kernel + strlen("pm_cu_"), gpu.sm);
    if (!image)
        ck_abort_msg("%s: no code for sm_%d", kernel, gpu.sm);
    cu_module module;
    cu_function function;
    need(kernel, gpu.cu->cuModuleLoadDataEx(&module, image, 0, NULL, NULL));
    need(kernel, gpu.cu->cuModuleGetFunction(&function, module, kernel));
    if (shared_bytes > 48 << 10)
        need(kernel, gpu.cu->cuFuncSetAttribute(function, PM_CU_MAX_DYNAMIC_SHARED, (int)shared_bytes));
    free(image);
    ck_assert_int_lt(gpu.n_kernels, MOST_KERNELS);
    snprintf(gpu.kernels[gpu.n_kernels].name, sizeof gpu.kernels[0].name, "%s", kernel);
    gpu.kernels[gpu.n_kernels++].function = function;
    return function;
}

/// ---- copies of buffers ------------------------------------------------------------------------------------------

/// A buffer of no bytes is an address that nobody may read.
static bool readable(uint8_t *at)
{
    uint8_t bytes[OWN_BYTES];
    struct iovec to = {bytes, OWN_BYTES}, from = {at, OWN_BYTES};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == OWN_BYTES;
}

/// What the word points to: a guarded buffer, or a variable of the test; false: it is a number.
static bool pointed_to(uint64_t word, uint8_t **out_start, size_t *out_bytes)
{
    const void *start;
    int64_t bytes;
    if (guarded_piece((const void *)(uintptr_t)word, &start, &bytes)) {
        *out_start = (uint8_t *)(uintptr_t)start;
        *out_bytes = (size_t)bytes;
        return true;
    }
    // The addresses of programs, their stacks and libraries; as numbers these are none that tests use.
    *out_start = (uint8_t *)(uintptr_t)word;
    *out_bytes = OWN_BYTES;
    return word >= (uint64_t)1 << 40 && word < (uint64_t)1 << 47 && readable(*out_start);
}

/// To or from the GPU, through the runtime's own kind of memory: pinned.
static void copy(void *here, cu_address there, size_t bytes, bool up)
{
    void *pinned;
    need("pinned memory", gpu.cu->cuMemHostAlloc(&pinned, bytes, 0));
    if (up)
        memcpy(pinned, here, bytes);
    need("a copy", up ? gpu.cu->cuMemcpyHtoDAsync_v2(there, pinned, bytes, gpu.stream)
                      : gpu.cu->cuMemcpyDtoHAsync_v2(pinned, there, bytes, gpu.stream));
    need("a copy", gpu.cu->cuStreamSynchronize(gpu.stream));
    if (!up)
        memcpy(here, pinned, bytes);
    gpu.cu->cuMemFreeHost(pinned);
}

static void make_mirror(mirror *m, uint8_t *here, size_t bytes)
{
    size_t room = EDGE + (bytes + EDGE - 1) / EDGE * EDGE + EDGE;
    uint8_t *image = malloc(room);
    *m = (mirror){.here = here, .bytes = bytes, .before = malloc(bytes + 1)};
    if (!image || !m->before)
        ck_abort_msg("out of memory");
    memset(image, EDGE_BYTE, room);
    memcpy(image + EDGE, here, bytes);
    memcpy(m->before, here, bytes);
    need("memory", gpu.cu->cuMemAlloc_v2(&m->there, room));
    m->there += EDGE;
    copy(image, m->there - EDGE, room, true);
    free(image);
}

/// What the kernel changed becomes the test's; what is beside the buffer must be as it was.
static void take_back(const char *kernel, mirror *m)
{
    size_t inside = (m->bytes + EDGE - 1) / EDGE * EDGE, room = EDGE + inside + EDGE;
    uint8_t *image = malloc(room);
    if (!image)
        ck_abort_msg("out of memory");
    copy(image, m->there - EDGE, room, false);
    for (size_t i = 0; i < room; i++)
        if ((i < EDGE || i >= EDGE + m->bytes) && image[i] != EDGE_BYTE)
            ck_abort_msg("%s wrote out of bounds: byte %ld of a buffer of %zu", kernel, (long)i - EDGE, m->bytes);
    for (size_t i = 0; i < m->bytes; i++)
        if (image[EDGE + i] != m->before[i])
            m->here[i] = image[EDGE + i];
    free(image);
    free(m->before);
    gpu.cu->cuMemFree_v2(m->there - EDGE);
}

void cu_run(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    mirror mirrors[MOST_MIRRORS];
    uint64_t there[WORDS_MOST];
    void *parameters[WORDS_MOST + 1] = {NULL};
    int n_mirrors = 0;
    open_gpu();
    ck_assert_int_le(n, WORDS_MOST);
    cu_function function = function_of(kernel, shared_bytes);
    for (int i = 0; i < n; i++) {
        uint8_t *start;
        size_t bytes;
        there[i] = words[i];
        parameters[i] = &there[i];
        if (!pointed_to(words[i], &start, &bytes))
            continue;
        int k = 0;
        while (k < n_mirrors && mirrors[k].here != start)
            k++;
        ck_assert_int_lt(k, MOST_MIRRORS);
        if (k == n_mirrors)
            make_mirror(&mirrors[n_mirrors++], start, bytes);
        there[i] = mirrors[k].there + (words[i] - (uint64_t)(uintptr_t)start);
    }
    if (blocks > 0)
        need(kernel, gpu.cu->cuLaunchKernel(function, (unsigned int)blocks, 1, 1, (unsigned int)threads, 1, 1,
                                            (unsigned int)shared_bytes, gpu.stream, parameters, NULL));
    need(kernel, gpu.cu->cuStreamSynchronize(gpu.stream));
    for (int k = 0; k < n_mirrors; k++)
        take_back(kernel, &mirrors[k]);
}

const char *cu_try(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    cu_run(kernel, blocks, threads, shared_bytes, words, n);
    return NULL;
}
