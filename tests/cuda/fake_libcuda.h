/// What tests ask of the stand-in for NVIDIA's driver (fake_libcuda.c), beside the driver's own functions.
#ifndef PM_TESTS_FAKE_LIBCUDA_H
#define PM_TESTS_FAKE_LIBCUDA_H

#include <stddef.h>
#include <stdint.h>

/// Kernels that modules of the stand-in hold, whatever their image is: the test program exports this list, ended by
/// one without a name.
typedef struct fake_kernel {
    const char *name;
    void (*run)(const uint64_t *words);
    uint32_t n_words;
} fake_kernel;
extern const fake_kernel pm_fake_kernels[];
/// A test program that exports this plays all kernels itself; launches must end their parameters with NULL.
void pm_fake_play(const char *name, uint32_t blocks, uint32_t threads, uint32_t shared, const uint64_t *words, uint32_t n);

struct CUstream_st;
typedef void fake_work(void *arg);

typedef struct fake_cuda {
    int devices, major, minor; ///< the machine
    int pools;                 ///< the driver has memory pools
    int open;                  ///< the host may touch device memory: quicker, for tests that aren't about that
    int eager;                 ///< a copy is made when it is given, once what its stream waits for is done
    char order[64];            ///< what was done: K a kernel, L a library's work, U a copy to the device, D one to the host
    int n_order;
    long fail_at;              ///< the call of this number (from 1) fails; 0: none
    unsigned int fail_with;    ///< its result
    long calls;                ///< made so far; those that give something back aren't counted and don't fail
    long live;                 ///< objects that were made and not given back: contexts, modules, streams, memory, …
    long launches, graph_launches, graph_updates, modules_of_ptx, modules_of_cubin;
} fake_cuda;

/// dlsym(libcuda.so.1, "pm_fake_cuda").
extern fake_cuda pm_fake_cuda;

/// For libraries that give streams work (fake_libcublaslt.c), found by dlsym: done in its turn, while device memory can be
/// touched.
typedef void fake_give(struct CUstream_st *stream, fake_work *run, void *arg);
/// Of the current context.
typedef int fake_is_device_memory(const void *at, size_t bytes);

#endif
