/// Inside of the cuda device: what its files share.
#ifndef PM_RUNTIME_CUDA_DEVICE_H
#define PM_RUNTIME_CUDA_DEVICE_H

#include <pthread.h>

#include "runtime/device/cublaslt.h"
#include "runtime/device/cuda_api.h"
#include "runtime/device/device.h"

enum {
    PM_CUDA_SLOT = 1 << 20, ///< bytes of a piece of pinned memory
    PM_CUDA_UP = 4,
    PM_CUDA_DOWN = 2,
    PM_CUDA_COMING = 4, ///< downloads that are under way at a time
    PM_CUDA_GRAPH_MOST = 128, ///< launches of a graph
    PM_CUDA_WORDS_MOST = PM_CUDA_GRAPH_MOST * 32,
    PM_CUDA_GRAPHS = 64,
    PM_CUDA_PRODUCTS = 128, ///< shapes of products that cuBLASLt made
};

/// The GPU, as a model's sessions share it.
typedef struct pm_cuda_chip {
    pthread_mutex_t lock;
    int32_t users;
    const pm_cuda *cuda;
    const pm_rt_device *desc;
    cu_device number;
    cu_context context; ///< the device's primary one
    cu_pool pool;       ///< NULL: memory comes from the driver each time
    int major, minor;   ///< its architecture
    int multiprocessors;
    cu_module *modules;
    uint32_t n_modules;
    cu_function *functions; ///< by number of the kernel; NULL: of PM_RT_KERNEL_WGMMA, on another chip
    bool has_wgmma;         ///< kernels of PM_RT_KERNEL_WGMMA run here
} pm_cuda_chip;

/// A download that was asked for.
typedef struct pm_cuda_coming {
    uint8_t *to; ///< NULL: none
    cu_address from;
    size_t bytes;
    cu_event ready; ///< on the stream of launches: what it brings is made
    cu_event there; ///< on the stream of downloads: it lies in the piece
} pm_cuda_coming;

/// Pinned memory that bytes pass through; an event for each piece tells when the device is done with it.
typedef struct pm_cuda_staging {
    uint8_t *memory; ///< PM_CUDA_UP, PM_CUDA_DOWN and then PM_CUDA_COMING pieces
    cu_event events[PM_CUDA_UP + PM_CUDA_DOWN];
    bool pending[PM_CUDA_UP];
    uint32_t slot;
    size_t used;         ///< of that slot
    cu_stream slot_user; ///< the stream whose copies it holds
    pm_cuda_coming coming[PM_CUDA_COMING];
} pm_cuda_staging;

/// A shape of products that cuBLASLt was asked for.
typedef struct pm_cuda_product {
    pm_lt_shape shape;
    pm_lt_product how;
    bool refused; ///< our own kernel does it
    uint64_t used; ///< when it was used last
} pm_cuda_product;

typedef struct pm_cuda_blas {
    bool asked_for; ///< by PIMOE_CUBLASLT
    bool tried;     ///< to open the library
    pm_lt lt;
    void *workspace;
    uint64_t clock;
    uint32_t n, refused;
    pm_cuda_product list[PM_CUDA_PRODUCTS];
} pm_cuda_blas;

/// A launch that was given; its words lie in a list of their own.
typedef struct pm_cuda_given {
    uint32_t kernel, blocks, first_word, n_words;
    pm_cuda_product *product; ///< cuBLASLt makes it; NULL: the kernel
} pm_cuda_given;

/// Launches that were given one behind the other before, as the driver repeats them.
typedef struct pm_cuda_graph {
    uint64_t used; ///< when it was used last
    uint32_t n, n_words;
    pm_cuda_given *given; ///< [n]
    uint64_t *words;      ///< [n_words], as the graph has them
    cu_node *nodes;
    cu_graph graph;
    cu_graph_exec exec; ///< NULL: seen once
} pm_cuda_graph;

typedef struct pm_cuda_launches {
    bool graphs; ///< launches are gathered
    uint32_t n, n_words;
    pm_cuda_given given[PM_CUDA_GRAPH_MOST];
    uint64_t words[PM_CUDA_WORDS_MOST];
    uint64_t clock;
    uint32_t n_graphs;
    pm_cuda_graph list[PM_CUDA_GRAPHS];
} pm_cuda_launches;

struct pm_rt_device_state {
    pm_cuda_chip *chip;
    cu_stream stream;   ///< launches, and copies in their order
    cu_stream up, down; ///< copies beside them
    cu_event brought;   ///< on `up`: behind the last upload
    bool waits;         ///< what is given next must wait for `brought`
    cu_event meeting; ///< with another device's stream
    int32_t *status;  ///< pinned, seen by the device
    cu_address status_there;
    pm_cuda_staging staging;
    pm_cuda_launches launches;
    pm_cuda_blas blas;
};

/// The result's status, in this device's name.
PM_NODISCARD pm_status pm_cuda_told(const pm_rt_device_state *device, const char *doing, cu_result result);

/// Memory with anything in it, for the stream of launches. (pm_rt_cuda_ops.release gives it back.)
PM_NODISCARD pm_status pm_cuda_alloc(pm_rt_device_state *device, size_t bytes, void **out_memory);

/// ---- cuda_staging.c -----------------------------------------------------------------------------------------

PM_NODISCARD pm_status pm_cuda_staging_make(pm_rt_device_state *device);
void pm_cuda_staging_drop(pm_rt_device_state *device);
/// On a stream of the device.
PM_NODISCARD pm_status pm_cuda_staged_upload(pm_rt_device_state *device, cu_stream stream, cu_address to,
                                             const uint8_t *from, size_t bytes);
/// Asks for a download behind what the stream of launches was given.
PM_NODISCARD pm_status pm_cuda_staged_fetch(pm_rt_device_state *device, uint8_t *to, cu_address from, size_t bytes);
/// Until it is there.
PM_NODISCARD pm_status pm_cuda_staged_arrive(pm_rt_device_state *device, uint8_t *to);
/// Nobody will wait for what was asked for.
void pm_cuda_staged_forget(pm_rt_device_state *device);

/// ---- cuda_launch.c ------------------------------------------------------------------------------------------

/// Gathers a launch, or gives it to the device at once.
PM_NODISCARD pm_status pm_cuda_launch(pm_rt_device_state *device, uint32_t kernel, uint32_t blocks, const uint64_t *words,
                                      uint32_t n_words);
/// Gives the device what was gathered, behind what was brought before.
PM_NODISCARD pm_status pm_cuda_flush(pm_rt_device_state *device);
/// What the stream of launches is given from now on comes behind all that was brought.
PM_NODISCARD pm_status pm_cuda_await_brought(pm_rt_device_state *device);
void pm_cuda_launches_drop(pm_rt_device_state *device);

/// ---- cuda_blas.c: cuBLASLt in place of our kernels of products, where PIMOE_CUBLASLT asks for it -----------------

void pm_cuda_blas_make(pm_rt_device_state *device);
void pm_cuda_blas_drop(pm_rt_device_state *device);
/// How cuBLASLt makes what the kernel would, or NULL: it won't. May flush what was gathered.
PM_NODISCARD pm_status pm_cuda_blas_find(pm_rt_device_state *device, uint32_t kernel, const uint64_t *words,
                                         uint32_t n_words, pm_cuda_product **out_product);
/// Gives it to the stream of launches; false: the kernel must do it.
bool pm_cuda_blas_run(pm_rt_device_state *device, pm_cuda_product *product, const uint64_t *words);

#endif
