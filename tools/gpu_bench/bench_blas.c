/// cuBLASLt beside our kernels: found at run time, declared here.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/gpu_bench/gpu_bench.h"

enum { COMPUTE_32F = 68, REAL_32F = 0, REAL_16BF = 14, TRANSPOSED = 1, TRANSA = 3, MOST_WORKSPACE = 1, WORKSPACE = 32 << 20 };

typedef struct heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} heuristic;

#define FUNCTIONS(X)                                                                                             \
    X(cublasLtCreate, (void **))                                                                                 \
    X(cublasLtMatmulDescCreate, (void **, int, int))                                                             \
    X(cublasLtMatmulDescSetAttribute, (void *, int, const void *, size_t))                                       \
    X(cublasLtMatrixLayoutCreate, (void **, int, uint64_t, uint64_t, int64_t))                                   \
    X(cublasLtMatmulPreferenceCreate, (void **))                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute, (void *, int, const void *, size_t))                                 \
    X(cublasLtMatmulAlgoGetHeuristic,                                                                            \
      (void *, void *, void *, void *, void *, void *, void *, int, heuristic *, int *))                         \
    X(cublasLtMatmul, (void *, void *, const void *, const void *, void *, const void *, void *, const void *,   \
                       const void *, void *, void *, void *, const void *, void *, size_t, cu_stream))

typedef struct bench_blas {
#define X(name, parameters) int (*name) parameters;
    FUNCTIONS(X)
#undef X
    size_t (*cublasLtGetVersion)(void);
    void *handle, *desc, *preference, *a, *b, *d;
    heuristic choice;
    cu_address workspace, y;
    char version[32];
} bench_blas;

static pm_status told(const char *doing, int result)
{
    if (result == 0)
        return PM_OK;
    fprintf(stderr, "cuBLASLt: %s: status %d\n", doing, result);
    return PM_ERR_UNSUPPORTED;
}

void bench_blas_open(bench_gpu *g)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11", "libcublasLt.so"};
    static bench_blas blas;
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    bool is_whole = true;
    const struct {
        const char *name;
        size_t offset;
    } symbols[] = {
#define X(name, parameters) {#name, offsetof(bench_blas, name)},
        FUNCTIONS(X)
#undef X
            {"cublasLtGetVersion", offsetof(bench_blas, cublasLtGetVersion)}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *function = dlsym(library, symbols[i].name);
        is_whole &= function != NULL;
        memcpy((char *)&blas + symbols[i].offset, &function, sizeof function);
    }
    uint64_t workspace = WORKSPACE;
    if (!is_whole || told("opening", blas.cublasLtCreate(&blas.handle)) != PM_OK ||
        told("preference", blas.cublasLtMatmulPreferenceCreate(&blas.preference)) != PM_OK ||
        told("preference", blas.cublasLtMatmulPreferenceSetAttribute(blas.preference, MOST_WORKSPACE, &workspace,
                                                                     sizeof workspace)) != PM_OK ||
        bench_alloc(g, WORKSPACE, &blas.workspace) != PM_OK)
        return;
    snprintf(blas.version, sizeof blas.version, "%zu", blas.cublasLtGetVersion());
    g->blas = &blas;
}

const char *bench_blas_version(const bench_gpu *g)
{
    return g->blas ? g->blas->version : NULL;
}

bool bench_blas_can(const bench_gpu *g, const bench_product *p)
{
    return g->blas && p->bits == 0 && (p->w_elem == BENCH_F32 || p->w_elem == BENCH_BF16) &&
           (p->experts == 0 || p->rows % p->experts == 0);
}

/// Rows of one matrix: experts have as many each.
static int64_t rows_of(const bench_product *p)
{
    return p->experts ? p->rows / p->experts : p->rows;
}

/// y^T = w x^T, as cuBLAS sees row-major matrices: w is its transposed first operand.
pm_status bench_blas_prepare(bench_gpu *g, const bench_product *p)
{
    bench_blas *b = g->blas;
    int type = p->w_elem == BENCH_F32 ? REAL_32F : REAL_16BF, transposed = TRANSPOSED, found = 0;
    uint64_t n = (uint64_t)p->n, k = (uint64_t)p->k, rows = (uint64_t)rows_of(p);
    if (b->y)
        g->cu->cuMemFree_v2(b->y);
    b->y = 0;
    PM_TRY(bench_alloc(g, (uint64_t)p->rows * n * 4, &b->y));
    PM_TRY(told("a product", b->cublasLtMatmulDescCreate(&b->desc, COMPUTE_32F, REAL_32F)));
    PM_TRY(told("a product", b->cublasLtMatmulDescSetAttribute(b->desc, TRANSA, &transposed, sizeof transposed)));
    PM_TRY(told("w", b->cublasLtMatrixLayoutCreate(&b->a, type, k, n, p->k)));
    PM_TRY(told("x", b->cublasLtMatrixLayoutCreate(&b->b, type, k, rows, p->k)));
    PM_TRY(told("y", b->cublasLtMatrixLayoutCreate(&b->d, type, n, rows, p->n)));
    PM_TRY(told("its algorithm", b->cublasLtMatmulAlgoGetHeuristic(b->handle, b->desc, b->a, b->b, b->d, b->d,
                                                                   b->preference, 1, &b->choice, &found)));
    return found ? PM_OK : PM_ERR_UNSUPPORTED;
}

pm_status bench_blas_run(bench_gpu *g, const bench_product *p, int64_t run, int64_t copies)
{
    static const float one = 1, zero = 0;
    bench_blas *b = g->blas;
    uint64_t size = p->w_elem == BENCH_F32 ? 4 : 2, of_expert = p->experts ? p->weight_bytes / (uint64_t)p->experts : 0;
    uint64_t of_rows = (uint64_t)rows_of(p) * size, e = 0;
    cu_address w = p->w + (uint64_t)(run % copies) * p->weight_bytes;
    cu_address x = p->x_elem == p->w_elem ? p->x : p->w; // where our factors differ, any of its kind
    do {
        const void *we = (const void *)(uintptr_t)(w + e * of_expert);
        const void *xe = (const void *)(uintptr_t)(x + e * of_rows * (uint64_t)p->k);
        void *ye = (void *)(uintptr_t)(b->y + e * of_rows * (uint64_t)p->n);
        PM_TRY(told("a product", b->cublasLtMatmul(b->handle, b->desc, &one, we, b->a, xe, b->b, &zero, ye, b->d, ye, b->d,
                                                   b->choice.algorithm, (void *)(uintptr_t)b->workspace, WORKSPACE,
                                                   g->stream)));
    } while (++e < (uint64_t)p->experts);
    return PM_OK;
}
