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
#include "runtime/device/emu_state.h"
#include "tests/cuda/cu_run.h"
#include "tools/gpu_bench/gpu_images.h"

enum { MOST_MIRRORS = 64, MOST_KERNELS = 128, EDGE = 256, EDGE_BYTE = 0xa5, OWN_BYTES = 64, WORDS_MOST = 64,
       LEAST_PINNED = 4 << 20 };

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

bool cu_has(const char *kernel)
{
    const char *folder = getenv("PIMOE_GPU_KERNELS");
    open_gpu();
    char *image = pm_gpu_image(folder ? folder : "kernels", kernel + strlen("pm_cu_"), gpu.sm);
    free(image);
    return image != NULL;
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
    static void *pinned;
    static size_t room;
    if (bytes > room) {
        if (pinned)
            gpu.cu->cuMemFreeHost(pinned);
        room = bytes > LEAST_PINNED ? bytes : LEAST_PINNED;
        need("pinned memory", gpu.cu->cuMemHostAlloc(&pinned, room, 0));
    }
    if (up)
        memcpy(pinned, here, bytes);
    need("a copy", up ? gpu.cu->cuMemcpyHtoDAsync_v2(there, pinned, bytes, gpu.stream)
                      : gpu.cu->cuMemcpyDtoHAsync_v2(pinned, there, bytes, gpu.stream));
    need("a copy", gpu.cu->cuStreamSynchronize(gpu.stream));
    if (!up)
        memcpy(here, pinned, bytes);
}

typedef struct mirrors {
    mirror of[MOST_MIRRORS];
    int n;
} mirrors;

static cu_address mirrored(mirrors *all, uint8_t *here, size_t bytes);

/// The driver's map of what the player's map in `image` shows, on the GPU's copy of it.
static void encode_map(mirrors *all, uint8_t *image)
{
    _Alignas(64) uint8_t encoded[sizeof(pm_emu_tensor_map)];
    pm_emu_tensor_map map;
    const void *start;
    int64_t bytes;
    memcpy(&map, image, sizeof map);
    if (!guarded_piece(map.base, &start, &bytes) || !gpu.cu->cuTensorMapEncodeTiled || map.element_bytes != 2)
        ck_abort_msg("a tensor map of what is no buffer, or of other elements than 16 bits, or a driver without them");
    cu_address base = mirrored(all, (uint8_t *)(uintptr_t)start, (size_t)bytes) +
                      (uint64_t)((const uint8_t *)map.base - (const uint8_t *)start);
    const uint32_t box[] = {map.box[0], map.box[1], 1}, steps[] = {1, 1, 1};
    const unsigned int swizzle = map.swizzle ? PM_CU_MAP_SWIZZLE_128B + 1 - map.swizzle : 0;
    need("a tensor map", gpu.cu->cuTensorMapEncodeTiled((cu_tensor_map *)encoded, PM_CU_MAP_U16, 3, (void *)(uintptr_t)base,
                                                        map.extent, map.stride, box, steps, 0, swizzle,
                                                        PM_CU_MAP_L2_256B, 0));
    memcpy(image, encoded, sizeof encoded);
}

/// Of a test's own variable more is taken than it has, for its size isn't known: AddressSanitizer needn't look.
__attribute__((no_sanitize_address)) static void take(uint8_t *to, const volatile uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = from[i];
}

static void make_mirror(mirrors *all, mirror *m, uint8_t *here, size_t bytes)
{
    size_t room = EDGE + (bytes + EDGE - 1) / EDGE * EDGE + EDGE;
    uint64_t magic = 0;
    uint8_t *image = malloc(room);
    *m = (mirror){.here = here, .bytes = bytes, .before = malloc(bytes + 1)};
    if (!image || !m->before)
        ck_abort_msg("out of memory");
    memset(image, EDGE_BYTE, room);
    take(image + EDGE, here, bytes);
    if (bytes >= sizeof(pm_emu_tensor_map))
        memcpy(&magic, image + EDGE, sizeof magic);
    if (magic == PM_EMU_TENSOR_MAGIC)
        encode_map(all, image + EDGE);
    memcpy(m->before, image + EDGE, bytes);
    need("memory", gpu.cu->cuMemAlloc_v2(&m->there, room));
    m->there += EDGE;
    copy(image, m->there - EDGE, room, true);
    free(image);
}

/// Where the GPU has its copy of a buffer.
static cu_address mirrored(mirrors *all, uint8_t *here, size_t bytes)
{
    for (int k = 0; k < all->n; k++)
        if (all->of[k].here == here)
            return all->of[k].there;
    ck_assert_int_lt(all->n, MOST_MIRRORS);
    mirror *m = &all->of[all->n++];
    make_mirror(all, m, here, bytes);
    return m->there;
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
    mirrors all = {.n = 0};
    uint64_t there[WORDS_MOST];
    void *parameters[WORDS_MOST + 1] = {NULL};
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
        there[i] = mirrored(&all, start, bytes) + (words[i] - (uint64_t)(uintptr_t)start);
    }
    if (blocks > 0)
        need(kernel, gpu.cu->cuLaunchKernel(function, (unsigned int)blocks, 1, 1, (unsigned int)threads, 1, 1,
                                            (unsigned int)shared_bytes, gpu.stream, parameters, NULL));
    need(kernel, gpu.cu->cuStreamSynchronize(gpu.stream));
    for (int k = 0; k < all.n; k++)
        take_back(kernel, &all.of[k]);
}

const char *cu_try(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    cu_run(kernel, blocks, threads, shared_bytes, words, n);
    return NULL;
}
