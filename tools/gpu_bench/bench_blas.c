/// cuBLASLt beside our kernels, where it is found.
#include <stdio.h>

#include "runtime/device/cublaslt.h"
#include "tools/gpu_bench/gpu_bench.h"

typedef struct bench_blas {
    pm_lt lt;
    pm_lt_product product;
    cu_address workspace, x, y; ///< x: 0 where our own will do
    char version[32];
} bench_blas;

static pm_status told(pm_status status)
{
    if (status != PM_OK)
        fprintf(stderr, "%s\n", pm_last_error());
    return status;
}

void bench_blas_open(bench_gpu *g)
{
    static bench_blas blas;
    const pm_cublaslt *functions;
    if (pm_lt_load(NULL, &functions) != PM_OK || told(pm_lt_open(NULL, &blas.lt)) != PM_OK ||
        bench_alloc(g, PM_LT_WORKSPACE, &blas.workspace) != PM_OK)
        return;
    snprintf(blas.version, sizeof blas.version, "%zu", functions->cublasLtGetVersion());
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
static uint64_t rows_of(const bench_product *p)
{
    return (uint64_t)(p->experts ? p->rows / p->experts : p->rows);
}

static uint64_t size_of(const bench_product *p)
{
    return p->w_elem == BENCH_F32 ? 4 : 2;
}

/// Of expert e, with one of several weights.
static pm_lt_operands operands_of(const bench_gpu *g, const bench_product *p, uint64_t e, uint64_t copy)
{
    uint64_t of_expert = p->experts ? p->weight_bytes / (uint64_t)p->experts : 0, of_rows = e * rows_of(p) * size_of(p);
    cu_address x = g->blas->x ? g->blas->x : p->x;
    return (pm_lt_operands){.w = (const void *)(uintptr_t)(p->w + copy * p->weight_bytes + e * of_expert),
                            .x = (const void *)(uintptr_t)(x + of_rows * (uint64_t)p->k),
                            .y = (void *)(uintptr_t)(g->blas->y + of_rows * (uint64_t)p->n)};
}

pm_status bench_blas_prepare(bench_gpu *g, const bench_product *p)
{
    bench_blas *b = g->blas;
    unsigned int type = p->w_elem == BENCH_F32 ? PM_LT_REAL_32F : PM_LT_REAL_16BF;
    b->x = b->y = 0; // memory is a case's, and went with the last one
    pm_lt_drop(&b->lt, &b->product);
    uint64_t x_bytes = (uint64_t)p->rows * (uint64_t)p->k * size_of(p);
    PM_TRY(bench_alloc(g, (uint64_t)p->rows * (uint64_t)p->n * size_of(p), &b->y));
    if (p->x_elem != p->w_elem) { // factors of its kind
        PM_TRY(bench_alloc(g, x_bytes, &b->x));
        PM_TRY(bench_fill(g, b->x, x_bytes, p->w_elem));
    }
    const pm_lt_shape shape = {.rows = rows_of(p), .n = (uint64_t)p->n, .k = (uint64_t)p->k, .factors = type, .result = type};
    const pm_lt_operands operands = operands_of(g, p, 0, 0);
    return told(pm_lt_prepare(&b->lt, &shape, &operands, &b->product));
}

pm_status bench_blas_run(bench_gpu *g, const bench_product *p, int64_t run, int64_t copies)
{
    const bench_blas *b = g->blas;
    uint64_t e = 0;
    do {
        const pm_lt_operands operands = operands_of(g, p, e, (uint64_t)(run % copies));
        PM_TRY(told(pm_lt_run(&b->lt, &b->product, &operands, (void *)(uintptr_t)b->workspace, g->stream)));
    } while (++e < (uint64_t)p->experts);
    return PM_OK;
}
