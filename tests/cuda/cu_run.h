/// Runs templates as the emulated device plays them, and compares.
#ifndef PM_CU_RUN_H
#define PM_CU_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "ir/eval.h"
#include "tests/kernels/kernel_test.h"

/// Whether there is code of this kernel for what runs it: the CPU plays all of them.
bool cu_has(const char *kernel);
/// One launch with words of 8 bytes; finding races or accesses out of bounds fails the test.
void cu_run(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n);
/// As cu_run: what was found, or NULL. (On silicon as cu_run.)
const char *cu_try(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n);

/// Words.
static inline uint64_t at(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static inline uint64_t real(double x)
{
    uint64_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

#define RUN(kernel, blocks, threads, shared, ...)                                                              \
    do {                                                                                                       \
        const uint64_t words_[] = {__VA_ARGS__};                                                               \
        cu_run(kernel, blocks, threads, shared, words_, (int)(sizeof words_ / 8));                             \
    } while (0)

/// Fails unless every float is within `tolerance` times (1 + |want|) of what is wanted, or both are no numbers.
void check_near(const char *what, const float *got, const float *want, int64_t n, double tolerance);

/// Random floats in [-scale, scale).
float *random_floats(int64_t n, float scale);

static inline pm_tensor tensor(const void *data, const int64_t *dims, int32_t rank, int32_t elem)
{
    return (pm_tensor){(void *)(uintptr_t)data, dims, rank, elem};
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
