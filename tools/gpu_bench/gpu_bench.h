/// What gpu-bench's parts share: the GPU, its memory, and a piece of work that is timed.
#ifndef PM_TOOLS_GPU_BENCH_H
#define PM_TOOLS_GPU_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "pm/runtime.h"
#include "runtime/device/cuda_api.h"

enum { BENCH_WORDS = 32, BENCH_STEPS = 2 };
enum { BENCH_F32, BENCH_BF16, BENCH_F16, BENCH_U8 }; ///< elements, as codegen/cuda/kernels/cu_product.h numbers them

typedef struct bench_gpu {
    const pm_cuda *cu;
    const char *folder; ///< of compiled templates
    int sm, multiprocessors;
    bool is_tiny;       ///< sizes that an emulated GPU can do
    cu_stream stream;
    cu_event begin, end;
    cu_address pool;    ///< random numbers from -1 to 1
    uint64_t pool_bytes, l2_bytes;
    void *staging;      ///< pinned
    cu_address status;
    struct bench_blas *blas; ///< NULL: no cuBLASLt
} bench_gpu;

enum { BENCH_STAGING = 16 << 20 };

/// One launch.
typedef struct bench_step {
    const char *kernel;
    cu_function function;
    bool is_variant; ///< compiled for these sizes
    uint32_t blocks, threads, shared;
    int n;
    uint64_t words[BENCH_WORDS];
} bench_step;

/// A product, for those who check it and for cuBLASLt.
typedef struct bench_product {
    int64_t rows, n, k, experts;
    int x_elem, w_elem, y_elem;
    int64_t bits, block;
    cu_address x, w, y, scales;
    uint64_t weight_bytes; ///< of all experts
} bench_product;

/// The words `walking` take turns on `copies` pieces of memory, so that caches don't hold what a program would read anew.
typedef struct bench_case {
    char name[96];
    bench_step steps[BENCH_STEPS];
    int n_steps;
    struct {
        int word; ///< 0: none (nothing walks there)
        uint64_t bytes;
    } walking[2];
    int64_t copies;
    double flops, bytes; ///< that it must do and move at least; 0: not told
    cu_address out;
    uint64_t out_bytes;  ///< as f32, all finite, unless it is a product
    bool is_product;
    bench_product product;
} bench_case;

/// The next of the cases into *out; PM_ERR_UNSUPPORTED: this GPU, or this folder, has no code for it.
/// False: there are no more.
bool bench_case_next(bench_gpu *g, int number, bench_case *out, pm_status *out_status);
void bench_case_free(bench_gpu *g, bench_case *c);
/// How far sampled results of a product are from their sums in f64, beyond their own rounding, as a part of the sum of the
/// terms' magnitudes.
PM_NODISCARD pm_status bench_product_error(bench_gpu *g, const bench_product *p, double *out_error);

PM_NODISCARD pm_status bench_check(const bench_gpu *g, const char *doing, cu_result result);
PM_NODISCARD pm_status bench_alloc(bench_gpu *g, uint64_t bytes, cu_address *out);
PM_NODISCARD pm_status bench_upload(bench_gpu *g, cu_address to, const void *from, uint64_t bytes);
PM_NODISCARD pm_status bench_download(bench_gpu *g, void *to, cu_address from, uint64_t bytes);
PM_NODISCARD pm_status bench_fill(bench_gpu *g, cu_address to, uint64_t bytes, int elem);

/// cuBLASLt, where it is found: a product as it would do it, all of the weight's elements, into another result.
void bench_blas_open(bench_gpu *g);
bool bench_blas_can(const bench_gpu *g, const bench_product *p);
PM_NODISCARD pm_status bench_blas_prepare(bench_gpu *g, const bench_product *p);
PM_NODISCARD pm_status bench_blas_run(bench_gpu *g, const bench_product *p, int64_t run, int64_t copies);
const char *bench_blas_version(const bench_gpu *g);

#endif
