#include "tests/kernels/kernel_test.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_PIECES = 65536 };
static struct {
    const uint8_t *start;
    int64_t bytes;
} pieces[MOST_PIECES];
static int64_t n_pieces;

bool guarded_piece(const void *at, const void **out_start, int64_t *out_bytes)
{
    for (int64_t i = n_pieces - 1; i >= 0; i--)
        if ((uintptr_t)at - (uintptr_t)pieces[i].start < (uintptr_t)pieces[i].bytes) {
            *out_start = pieces[i].start;
            *out_bytes = pieces[i].bytes;
            return true;
        }
    return false;
}

void *guarded(int64_t bytes)
{
    int64_t page = 4096, pages = (bytes + page - 1) / page;
    uint8_t *base = mmap(NULL, (size_t)((pages + 1) * page), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(base, MAP_FAILED);
    memset(base, 0xff, (size_t)(pages * page));
    ck_assert_int_eq(mprotect(base + pages * page, (size_t)page, PROT_NONE), 0);
    if (n_pieces < MOST_PIECES) {
        pieces[n_pieces].start = base + pages * page - bytes;
        pieces[n_pieces++].bytes = bytes;
    }
    return base + pages * page - bytes;
}

float *guarded_floats(int64_t count)
{
    return guarded(count * 4);
}

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

float next_float(void)
{
    return (float)((double)(next() >> 40) / 8388608.0 - 1.0);
}

int64_t next_below(int64_t n)
{
    return (int64_t)(next() >> 1) % n;
}

void fill_random(float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = next_float();
}

uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

float *pack_f32(const float *w, int64_t n, int64_t k, int64_t panel)
{
    int64_t panels = (n + panel - 1) / panel;
    float *packed = guarded_floats(panels * panel * k);
    for (int64_t p = 0; p < panels; p++)
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < panel; j++) {
                int64_t row = p * panel + j;
                packed[(p * k + i) * panel + j] = row < n ? w[row * k + i] : 0.0f;
            }
    return packed;
}

uint16_t *pack_bf16(const float *w, int64_t n, int64_t k, int64_t panel)
{
    int64_t panels = (n + panel - 1) / panel, steps = (k + 1) / 2;
    uint16_t *packed = guarded(panels * panel * steps * 4);
    for (int64_t p = 0; p < panels; p++)
        for (int64_t i = 0; i < 2 * steps; i++)
            for (int64_t j = 0; j < panel; j++) {
                int64_t row = p * panel + j;
                float x = row < n && i < k ? w[row * k + i] : 0.0f;
                packed[((p * steps + i / 2) * panel + j) * 2 + i % 2] = to_bf16(x);
            }
    return packed;
}

double ulps(double want, float got)
{
    if (isnan(want))
        return isnan(got) ? 0.0 : INFINITY;
    if (isinf((float)want) || isinf(got))
        return (float)want == got ? 0.0 : INFINITY;
    int exponent;
    frexp(want, &exponent);
    return fabs(want - (double)got) / ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

bool same_bits(const float *a, const float *b, int64_t count)
{
    return memcmp(a, b, (size_t)count * 4) == 0;
}

int run_suite(Suite *(*suite)(void))
{
    __builtin_cpu_init();
#if PM_VW == 16
    bool able = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
#else
    bool able = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if PM_DOT_BF16
    able = able && __builtin_cpu_supports("avx512bf16");
#endif
    if (!able) {
        fprintf(stderr, "skipped: this CPU lacks the instructions\n");
        return 77;
    }
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
