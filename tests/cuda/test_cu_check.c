/* The checks of the player find what they are for, say where, and let right kernels pass. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "runtime/device/emu_play.h"
#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "tests/cuda/product_case.h"

#define TRY(kernel, blocks, threads, shared, ...)                                                              \
    cu_try(kernel, blocks, threads, shared, (const uint64_t[]){__VA_ARGS__},                                   \
           (int)(sizeof((const uint64_t[]){__VA_ARGS__}) / 8))

static void finds(const char *error, const char *words)
{
    ck_assert_ptr_nonnull(error);
    ck_assert_msg(strstr(error, words), "found \"%s\" instead of \"%s\"", error, words);
}

START_TEST(barriers)
{
    float *x = random_floats(128, 1.0f), *y = guarded_floats(128);
    ck_assert_ptr_null(TRY("pm_cu_turn", 1, 128, 0, at(y), at(x), 1));
    for (int i = 0; i < 128; i++)
        ck_assert_float_eq(y[i], x[127 - i]);
    finds(TRY("pm_cu_turn", 1, 128, 0, at(y), at(x), 0), "kernel pm_cu_turn, block 0, thread 0: reads byte 508 of 512 of static");
    ck_assert_ptr_null(TRY("pm_cu_pass_warp", 1, 64, 0, at(y), at(x), 1));
    const char *error = TRY("pm_cu_pass_warp", 1, 64, 0, at(y), at(x), 0);
    ck_assert_msg(error && (strstr(error, "no barrier between") || strstr(error, "nobody wrote")), "%s", error);
}
END_TEST

START_TEST(bounds)
{
    float *x = random_floats(100, 1.0f), *y = guarded_floats(100);
    ck_assert_ptr_null(TRY("pm_cu_reach", 4, 32, 0, at(y), at(x), 100, 0));
    finds(TRY("pm_cu_reach", 4, 32, 0, at(y), at(x), 100, 1), "block 3, thread 3: reads 4 bytes at");
    finds(TRY("pm_cu_reach", 4, 32, 0, at(y), at(x), 100, (uint64_t)-1), "which is in no buffer");
    ck_assert_ptr_null(TRY("pm_cu_reach_shared", 1, 64, 256, at(y), 64));
    finds(TRY("pm_cu_reach_shared", 1, 64, 256, at(y), 65), "thread 0: writes 4 bytes of shared memory outside");
    finds(TRY("pm_cu_unwritten", 1, 32, 0, at(y)), "thread 31: reads byte 124 of 256 of static shared memory 1, which nobody wrote");
    finds(TRY("pm_cu_much", 1, 32, 0, at(y)), "more shared memory");
    finds(TRY("pm_cu_reach", 1, 32, 0, at(y), at(x) + 2, 8, 0), "not aligned");
}
END_TEST

START_TEST(async_copies)
{
    float *x = guarded(4096), *y = guarded_floats(128);
    fill_random(x, 1024);
    ck_assert_ptr_null(TRY("pm_cu_fetch", 1, 32, 0, at(y), at(x), 1, 0, 1));
    ck_assert(same_bits(x, y, 128));
    finds(TRY("pm_cu_fetch", 1, 32, 0, at(y), at(x), 0, 0, 1), "where an async copy of thread 0 has not arrived");
    finds(TRY("pm_cu_fetch", 1, 32, 0, at(y), at(x), 1, 1, 1), "where an async copy of thread 0 has not arrived");
    ck_assert_ptr_nonnull(TRY("pm_cu_fetch", 1, 32, 0, at(y), at(x), 1, 0, 0));
    finds(TRY("pm_cu_fetch", 1, 32, 0, at(y), at(x) + 4, 1, 0, 1), "not aligned to 16");
    ck_assert_ptr_null(TRY("pm_cu_stages", 1, 64, 0, at(y), at(x), 4, 1));
    finds(TRY("pm_cu_stages", 1, 64, 0, at(y), at(x), 4, 0), "where an async copy of thread 0 has not arrived");
}
END_TEST

START_TEST(divergence)
{
    float *y = guarded_floats(64);
    static const char *const words[] = {NULL, "thread 40: has ended, while thread 39 waits at a barrier of the block",
                                        "thread 5: waits at a barrier of its warp",
                                        "waits at another barrier of the block", "they don't meet", "shows its warp something else"};
    for (int kind = 0; kind < 6; kind++) {
        const char *error = TRY("pm_cu_part", 1, 64, 0, at(y), (uint64_t)kind);
        if (words[kind])
            finds(error, words[kind]);
        else
            ck_assert_msg(!error, "%s", error);
    }
}
END_TEST

START_TEST(blocks)
{
    float *y = guarded_floats(32);
    int32_t *n = guarded(4);
    ck_assert_ptr_null(TRY("pm_cu_both", 1, 32, 0, at(y)));
    finds(TRY("pm_cu_both", 2, 32, 0, at(y)), "block 1, thread 0: writes byte 0 of a buffer of 128, which thread 0 of another block writes");
    *n = 0;
    ck_assert_ptr_null(TRY("pm_cu_count", 3, 64, 0, at(n), 1));
    ck_assert_int_eq(*n, 192);
    finds(TRY("pm_cu_count", 1, 64, 0, at(n), 0), "no barrier between");
}
END_TEST

/// Every way a matrix may lie, against sums in double; and what is forgotten.
START_TEST(warpgroups)
{
    enum { DEPTH = 128, N = 64 };
    uint16_t *a = guarded(N * DEPTH * 2), *b = guarded(N * DEPTH * 2);
    float *d = guarded_floats(N * N);
    for (int i = 0; i < N * DEPTH; i++) {
        a[i] = to_bf16(next_float());
        b[i] = to_bf16(next_float());
    }
    for (int swizzle = 0; swizzle < 4; swizzle++) {
        memset(d, 0xff, N * N * 4);
        const char *error = TRY("pm_cu_warpgroup", 1, 128, 16384 + 1008, at(d), at(a), at(b), DEPTH, (uint64_t)swizzle, 0);
        ck_assert_msg(!error, "%s", error);
        for (int i = 0; i < N * N; i++) {
            double want = 0;
            for (int k = 0; k < DEPTH; k++)
                want += (double)from_bf16(a[i / N * DEPTH + k]) * (double)from_bf16(b[i % N * DEPTH + k]);
            ck_assert_msg(fabs((double)d[i] - want) < 1e-5 * DEPTH, "swizzle %d, element %d: %g, must be %g", swizzle, i,
                          (double)d[i], want);
        }
    }
    static const char *const words[] = {"has not arrived", "", "pm_wgmma_fence", "are on their way",
                                        "without pm_fence_async"};
    for (int fault = 1; fault <= 5; fault++)
        finds(TRY("pm_cu_warpgroup", 1, 128, 16384 + 1008, at(d), at(a), at(b), DEPTH, 1, (uint64_t)fault), words[fault - 1]);
}
END_TEST

/// Tiles that copies bring, rows and columns outside as zeros, and what is forgotten.
START_TEST(pipelines)
{
    enum { DEPTH = 5 * 64, ROWS = 61, K = 300, N = 64 };
    uint16_t *a = guarded(ROWS * DEPTH * 2), *b = guarded(N * DEPTH * 2);
    float *d = guarded_floats(N * N);
    pm_emu_tensor_map *maps = guarded(2 * sizeof *maps);
    for (int i = 0; i < N * DEPTH; i++) {
        if (i < ROWS * DEPTH)
            a[i] = to_bf16(next_float());
        b[i] = to_bf16(next_float());
    }
    ck_assert(pm_emu_tensor_map_make(&maps[0], a, 2, (uint64_t[]){K, ROWS, 1}, (uint64_t[]){DEPTH * 2, 16}, (uint32_t[]){64, 64}, 1));
    ck_assert(pm_emu_tensor_map_make(&maps[1], b, 2, (uint64_t[]){DEPTH, N, 1}, (uint64_t[]){DEPTH * 2, 16}, (uint32_t[]){64, 64}, 1));
    ck_assert(!pm_emu_tensor_map_make(&maps[1], b, 2, (uint64_t[]){DEPTH, N, 1}, (uint64_t[]){DEPTH * 2, 16}, (uint32_t[]){128, 64}, 1));
    ck_assert(pm_emu_tensor_map_make(&maps[1], b, 2, (uint64_t[]){DEPTH, N, 1}, (uint64_t[]){DEPTH * 2, 16}, (uint32_t[]){64, 64}, 1));
    const char *error = TRY("pm_cu_pipeline", 1, 256, 32768 + 1008, at(d), at(&maps[0]), at(&maps[1]), DEPTH, 0);
    ck_assert_msg(!error, "%s", error);
    for (int i = 0; i < N * N; i++) {
        double want = 0;
        for (int k = 0; k < K && i / N < ROWS; k++)
            want += (double)from_bf16(a[i / N * DEPTH + k]) * (double)from_bf16(b[i % N * DEPTH + k]);
        ck_assert_msg(fabs((double)d[i] - want) < 1e-5 * DEPTH, "element %d: %g, must be %g", i, (double)d[i], want);
    }
    static const char *const words[] = {"an async copy", "has not arrived", "nobody wrote",
                                        "waits for a phase of a barrier", "without pm_tma_acquire"};
    for (int fault = 1; fault <= 5; fault++)
        finds(TRY("pm_cu_pipeline", 1, 256, 32768 + 1008, at(d), at(&maps[0]), at(&maps[1]), DEPTH, (uint64_t)fault),
              words[fault - 1]);
    float *x = guarded_floats(64), *y = guarded_floats(64);
    fill_random(x, 64);
    ck_assert_ptr_null(TRY("pm_cu_bulk", 1, 64, 0, at(y), at(x), 256, 1));
    ck_assert(same_bits(x, y, 64));
    finds(TRY("pm_cu_bulk", 1, 64, 0, at(y), at(x), 256, 0), "has not arrived");
    finds(TRY("pm_cu_bulk", 1, 64, 0, at(y), at(x), 512, 1), "that never ends");
}
END_TEST

extern int32_t cu_left_out;

/// A whole template: each part of its pipeline is missed.
START_TEST(a_pipeline_of_two_tiles)
{
    static const char *const words[] = {
        NULL, "async copy", "nobody wrote", "has not arrived", "without pm_fence_async", "async copy", "has not arrived",
        "with no barrier between", "pm_wgmma_fence", "without pm_tma_acquire"};
    static const weight_kind bf16 = {"bf16", ELEM_BF16, 0, 0, FORMAT_INT, ELEM_F32, NO_ELEM};
    product_case c = {&bf16, 130, 20, 6 * 64, 0, ELEM_BF16, ELEM_F32, NO_ELEM, EVEN, true, false};
    product p = product_of(&c);
    product_map(&p, CU_WGMMA_COLUMNS);
    p.most_blocks = 1;
    cu_left_out = _i;
    static const product_road road = {"pm_cu_product_at_fault", 384, 216048, CU_WGMMA_ROWS, CU_WGMMA_COLUMNS};
    const char *error = product_try(&p, &road);
    if (_i)
        finds(error, words[_i]);
    else
        ck_assert_msg(!error, "%s", error);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cu_check");
    TCase *c = tcase_create("cu_check");
    tcase_add_test(c, barriers);
    tcase_add_test(c, bounds);
    tcase_add_test(c, async_copies);
    tcase_add_test(c, divergence);
    tcase_add_test(c, blocks);
    tcase_add_test(c, warpgroups);
    tcase_add_test(c, pipelines);
    tcase_add_loop_test(c, a_pipeline_of_two_tiles, 0, 10);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
