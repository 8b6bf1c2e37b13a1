/// cuBLASLt in place of our own products, on stand-ins for it and for the driver (fake_libcublaslt.c, fake_libcuda.c): which
/// products it gets, that it makes of our words what our kernels make of them, also as part of graphs, and what happens
/// when it is not there, refuses, or any call fails.
#include <check.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "pm/runtime.h"
#include "runtime/device/device.h"
#include "runtime/device/emu_play.h"
#include "tests/cuda/fake_libcublaslt.h"
#include "tests/cuda/fake_libcuda.h"

static fake_cuda *fake;
static fake_cublaslt *lt;
static char library[512], no_library[512];

enum { KERNEL_F32, KERNEL_MMA, KERNEL_FEW, KERNELS };
enum { F32 = PM_RT_PRODUCT_F32, BF16 = PM_RT_PRODUCT_BF16, F16 = PM_RT_PRODUCT_F16, NO_ELEM = 4 };
enum { MOST_WORDS = PM_RT_PRODUCT_WORDS };

/// ---- our own kernels, played ----------------------------------------------------------------------------------

static const struct {
    const char *name;
    uint32_t threads, shared, tile_rows, tile_columns;
} templates[KERNELS] = {
    {"pm_cu_product_f32", 128, 0, CU_F32_ROWS, CU_F32_COLUMNS},
    {"pm_cu_product_mma", 256, 49152, CU_MMA_ROWS, CU_MMA_COLUMNS},
    {"pm_cu_product_few", 256, 0, CU_FEW_ROWS, CU_FEW_COLUMNS},
};

static uint32_t blocks_of(int kernel, uint64_t rows, uint64_t n)
{
    uint64_t height = templates[kernel].tile_rows, width = templates[kernel].tile_columns;
    return (uint32_t)((rows + height - 1) / height * ((n + width - 1) / width));
}

/// All blocks at once: to the stand-in for the driver it is one.
static void play(int kernel, const uint64_t *words)
{
    pm_emu_launch launch = {.name = templates[kernel].name, .parameters = true, .words = words, .n_words = MOST_WORDS,
                            .kernel = (pm_rt_emu_kernel *)dlsym(RTLD_DEFAULT, templates[kernel].name),
                            .blocks = blocks_of(kernel, words[PM_RT_PRODUCT_ROWS], words[PM_RT_PRODUCT_N]),
                            .threads = templates[kernel].threads, .shared_bytes = templates[kernel].shared, .meets = true};
    if (pm_emu_play(&launch) == PM_OK)
        return;
    fprintf(stderr, "%s\n", pm_last_error());
    abort();
}

static void product_f32(const uint64_t *words)
{
    play(KERNEL_F32, words);
}

static void product_mma(const uint64_t *words)
{
    play(KERNEL_MMA, words);
}

static void product_few(const uint64_t *words)
{
    play(KERNEL_FEW, words);
}

__attribute__((visibility("default"))) const fake_kernel pm_fake_kernels[] = {
    {"f32", product_f32, MOST_WORDS}, {"mma", product_mma, MOST_WORDS}, {"few", product_few, MOST_WORDS}, {NULL, NULL, 0}};

static const pm_rt_kernel kernels[KERNELS] = {
    [KERNEL_F32] = {.name = "f32", .threads = 128, .flags = PM_RT_KERNEL_TEMPLATE | PM_RT_KERNEL_PRODUCT},
    [KERNEL_MMA] = {.name = "mma", .threads = 256, .flags = PM_RT_KERNEL_TEMPLATE | PM_RT_KERNEL_PRODUCT},
    [KERNEL_FEW] = {.name = "few", .threads = 256, .flags = PM_RT_KERNEL_TEMPLATE},
};
static const pm_rt_code code = {.arch = "sm_80", .ptx = (const uint8_t *)"ptx", .ptx_size = 3};
static const pm_rt_device device = {.ops = &pm_rt_cuda_ops, .name = "cuda0", .kernels = kernels, .n_kernels = KERNELS,
                                    .codes = &code, .n_codes = 1};

/// ---- products ---------------------------------------------------------------------------------------------------

typedef struct kind {
    const char *what;
    int kernel;
    uint64_t x, w, y, bias; ///< elements; bias NO_ELEM: none
    bool rounds, for_library;
} kind;

static const kind kinds[] = {
    {"f32", KERNEL_F32, F32, F32, F32, NO_ELEM, false, true},
    {"f32 with a bias", KERNEL_F32, F32, F32, F32, F32, false, true},
    {"bf16 to f32", KERNEL_MMA, BF16, BF16, F32, F32, true, true},
    {"bf16 to bf16", KERNEL_MMA, BF16, BF16, BF16, BF16, false, true},
    {"f16 to f16", KERNEL_MMA, F16, F16, F16, NO_ELEM, false, true},
    {"f16 to f32", KERNEL_MMA, F16, F16, F32, F32, false, true},
    {"a bias of another type", KERNEL_MMA, BF16, BF16, BF16, F32, false, false},
    {"factors of two types", KERNEL_F32, F32, BF16, F32, NO_ELEM, false, false},
    {"f32 that is rounded", KERNEL_MMA, F32, F32, F32, NO_ELEM, true, false},
    {"few rows", KERNEL_FEW, F32, F32, F32, F32, false, false},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/// A product with its memory; all numbers are small integers, so every way to add has the same sum.
typedef struct product {
    const kind *kind;
    uint64_t rows, n, k, words[MOST_WORDS];
    float *want;
    void *memory;
} product;

static size_t size_of(uint64_t elem)
{
    return elem == F32 ? 4 : 2;
}

/// Of numbers that every type holds.
static void store(uint64_t elem, uint8_t *to, float value)
{
    const _Float16 half = (_Float16)value;
    const uint8_t *from = elem == F16 ? (const void *)&half : (const void *)&value;
    memcpy(to, from + (elem == BF16 ? 2 : 0), size_of(elem)); // bf16: the upper half
}

static float load(uint64_t elem, const uint8_t *from)
{
    _Float16 half;
    float value = 0;
    memcpy(&half, from, sizeof half);
    memcpy((uint8_t *)&value + (elem == BF16 ? 2 : 0), from, size_of(elem));
    return elem == F16 ? (float)half : value;
}

static size_t up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int value_of(uint64_t i, uint64_t salt)
{
    return (int)((i * 2654435761u + salt * 97) >> 7 & 7) - 3;
}

static pm_status fill(pm_rt_device_state *d, uint8_t *to, uint64_t elem, size_t n, uint64_t salt)
{
    size_t size = size_of(elem);
    uint8_t *host = malloc(n * size);
    for (size_t i = 0; i < n; i++)
        store(elem, host + i * size, (float)value_of(i, salt));
    pm_status status = pm_rt_cuda_ops.upload(d, to, host, n * size);
    free(host);
    return status;
}

static float expected(const product *p, uint64_t row, uint64_t column)
{
    float sum = p->kind->bias == NO_ELEM ? 0 : (float)value_of(column, 3);
    for (uint64_t k = 0; k < p->k; k++)
        sum += (float)(value_of(row * p->k + k, 1) * value_of(column * p->k + k, 2));
    return sum;
}

static pm_status make(pm_rt_device_state *d, const kind *kind, uint64_t rows, uint64_t n, uint64_t k, product *out)
{
    *out = (product){.kind = kind, .rows = rows, .n = n, .k = k};
    uint64_t bias = kind->bias == NO_ELEM ? F32 : kind->bias;
    size_t x = up(rows * k * size_of(kind->x)), w = up(n * k * size_of(kind->w));
    size_t b = up(n * size_of(bias)), y = up(rows * n * size_of(kind->y));
    PM_TRY(pm_rt_cuda_ops.alloc(d, x + w + b + y, &out->memory));
    uint8_t *at = out->memory;
    uint64_t *words = out->words;
    words[PM_RT_PRODUCT_X] = (uint64_t)(uintptr_t)at;
    words[PM_RT_PRODUCT_W] = words[PM_RT_PRODUCT_X] + x;
    words[PM_RT_PRODUCT_BIAS] = kind->bias == NO_ELEM ? 0 : words[PM_RT_PRODUCT_W] + w;
    words[PM_RT_PRODUCT_Y] = words[PM_RT_PRODUCT_W] + w + b;
    words[PM_RT_PRODUCT_ROWS] = rows;
    words[PM_RT_PRODUCT_N] = n;
    words[PM_RT_PRODUCT_K] = k;
    words[PM_RT_PRODUCT_EXPERT_BYTES] = n * k * size_of(kind->w);
    words[PM_RT_PRODUCT_X_ELEM] = kind->x;
    words[PM_RT_PRODUCT_W_ELEM] = kind->w;
    words[PM_RT_PRODUCT_Y_ELEM] = kind->y;
    words[PM_RT_PRODUCT_BIAS_ELEM] = bias;
    words[PM_RT_PRODUCT_ZERO_ELEM] = NO_ELEM;
    words[PM_RT_PRODUCT_ROUNDS] = kind->rounds;
    PM_TRY(fill(d, at, kind->x, rows * k, 1));
    PM_TRY(fill(d, at + x, kind->w, n * k, 2));
    return fill(d, at + x + w, bias, n, 3);
}

static pm_status run(pm_rt_device_state *d, const product *p)
{
    return pm_rt_cuda_ops.launch(d, (uint32_t)p->kind->kernel, 1, p->words, MOST_WORDS);
}

/// Fetches the result and forgets it on the device.
static pm_status count_wrong(pm_rt_device_state *d, const product *p, size_t *out_wrong)
{
    uint64_t elem = p->kind->y;
    size_t size = size_of(elem), n = p->rows * p->n;
    void *y = (void *)(uintptr_t)p->words[PM_RT_PRODUCT_Y];
    uint8_t *got = calloc(n, size);
    pm_status status = pm_rt_cuda_ops.fetch(d, got, y, n * size);
    if (status == PM_OK)
        status = pm_rt_cuda_ops.arrive(d, got);
    *out_wrong = 0;
    for (size_t i = 0; i < n && status == PM_OK; i++)
        *out_wrong += load(elem, got + i * size) != expected(p, i / p->n, i % p->n);
    free(got);
    return status == PM_OK ? pm_rt_cuda_ops.clear(d, y, n * size) : status;
}

static void must_be_right(pm_rt_device_state *d, const product *p)
{
    size_t wrong;
    ck_assert_int_eq(count_wrong(d, p, &wrong), PM_OK);
    ck_assert_msg(wrong == 0, "%s: %zu of %zu are wrong", p->kind->what, wrong, (size_t)(p->rows * p->n));
}

static pm_rt_device_state *open_device(void)
{
    pm_rt_device_state *d;
    ck_assert_int_eq(pm_rt_cuda_ops.open(&device, 0, NULL, &d), PM_OK);
    return d;
}

static void drop(pm_rt_device_state *d, product *p)
{
    if (p->memory)
        pm_rt_cuda_ops.release(d, p->memory);
    p->memory = NULL;
}

static void close_device(pm_rt_device_state *d)
{
    pm_rt_cuda_ops.close(d);
    pm_rt_cuda_ops.leave();
    ck_assert_int_eq(fake->live, 0);
    ck_assert_int_eq(lt->live, 0);
}

static void setup(void)
{
    *fake = (fake_cuda){.devices = 1, .major = 9, .pools = 1, .fail_with = 999};
    *lt = (fake_cublaslt){0};
    setenv("PIMOE_CUBLASLT", library, 1);
    setenv("PIMOE_GRAPHS", "0", 1);
}

/// ---- tests ------------------------------------------------------------------------------------------------------

static void one_of_each(bool asked)
{
    pm_rt_device_state *d = open_device();
    for (int i = 0; i < N_KINDS; i++) {
        product p;
        long products = lt->products, launches = fake->launches;
        ck_assert_int_eq(make(d, &kinds[i], (uint64_t)(33 + i), (uint64_t)(17 * i % 40 + 8), (uint64_t)(16 + 8 * (i % 3)), &p), PM_OK);
        for (int round = 0; round < 2; round++) {
            ck_assert_int_eq(run(d, &p), PM_OK);
            must_be_right(d, &p);
        }
        ck_assert_msg(lt->products - products == (asked && kinds[i].for_library ? 2 : 0), "%s", kinds[i].what);
        ck_assert_int_eq(fake->launches - launches, 2 - (lt->products - products));
        drop(d, &p);
    }
    close_device(d);
}

START_TEST(products_of_every_kind)
{
    one_of_each(true);
}
END_TEST

START_TEST(nobody_asked)
{
    static const char *const values[] = {NULL, "", "0"};
    unsetenv("PIMOE_CUBLASLT");
    if (values[_i])
        setenv("PIMOE_CUBLASLT", values[_i], 1);
    one_of_each(false);
    ck_assert_int_eq(lt->calls, 0);
}
END_TEST

/// No library, one that lacks functions, one that knows no way: our own kernels, and nobody is told off.
START_TEST(library_of_no_use)
{
    static const char *const paths[] = {"/nonexistent/libcublasLt.so.13", no_library, library};
    setenv("PIMOE_CUBLASLT", paths[_i], 1);
    lt->no_choice = 1;
    one_of_each(false);
}
END_TEST

/// By name, where the linker finds it.
START_TEST(by_its_usual_name)
{
    setenv("PIMOE_CUBLASLT", "1", 1);
    one_of_each(true);
}
END_TEST

/// Not at multiples of 16 bytes, or of experts: never the library's.
START_TEST(words_that_do_not_suit)
{
    pm_rt_device_state *d = open_device();
    product p;
    ck_assert_int_eq(make(d, &kinds[0], 40, 12, 16, &p), PM_OK);
    p.words[PM_RT_PRODUCT_Y] += 4; // the rows end before the memory does
    p.rows = p.words[PM_RT_PRODUCT_ROWS] = 39;
    ck_assert_int_eq(run(d, &p), PM_OK);
    must_be_right(d, &p);
    ck_assert_int_eq(lt->calls, 0);
    drop(d, &p);
    close_device(d);
}
END_TEST

/// Rows of launches, again and again: as a graph that holds the library's part; other rows, another graph.
START_TEST(parts_of_graphs)
{
    enum { N = 6 };
    unsetenv("PIMOE_GRAPHS");
    pm_rt_device_state *d = open_device();
    product p[2][N];
    for (int i = 0; i < 2 * N; i++)
        ck_assert_int_eq(make(d, &kinds[(2 * (i % N) + 1) % N_KINDS], (uint64_t)(40 + i / N * 3), 24, 16, &p[i / N][i % N]), PM_OK);
    for (int round = 0; round < 8; round++) {
        const product *row = p[round % 2];
        for (int i = 0; i < N; i++)
            ck_assert_int_eq(run(d, &row[i]), PM_OK);
        for (int i = 0; i < N; i++)
            must_be_right(d, &row[i]);
        long products = 0;
        for (int i = 0; i < N; i++)
            products += row[i].kind->for_library;
        ck_assert_int_gt(products, 1);
        ck_assert_int_eq(lt->products, products * (round < 4 ? round + 1 : 4)); // one by one, then into the graph
        ck_assert_int_eq(fake->graph_launches, round < 2 ? 0 : round - 1);
    }
    ck_assert_int_eq(fake->graph_updates, 0);
    for (int i = 0; i < 2 * N; i++)
        drop(d, &p[i / N][i % N]);
    close_device(d);
}
END_TEST

/// More shapes than are kept, gathered for graphs and not.
START_TEST(many_shapes)
{
    enum { MANY = 300 };
    if (_i)
        unsetenv("PIMOE_GRAPHS");
    pm_rt_device_state *d = open_device();
    product p;
    ck_assert_int_eq(make(d, &kinds[1], MANY, 4, 8, &p), PM_OK);
    for (uint64_t rows = 1; rows <= MANY; rows++) {
        p.rows = p.words[PM_RT_PRODUCT_ROWS] = rows;
        ck_assert_int_eq(run(d, &p), PM_OK);
    }
    must_be_right(d, &p);
    ck_assert_int_eq(lt->products, MANY);
    drop(d, &p);
    close_device(d);
}
END_TEST

static char last_words[300];

/// Four products, three times: one by one or as graphs.
static pm_status some_products(size_t *out_wrong)
{
    pm_rt_device_state *d;
    product p[4] = {{0}};
    size_t wrong = 0;
    *out_wrong = 0;
    pm_status status = pm_rt_cuda_ops.open(&device, 0, NULL, &d);
    snprintf(last_words, sizeof last_words, "%s", pm_last_error());
    PM_TRY(status);
    for (int i = 0; i < 4 && status == PM_OK; i++)
        status = make(d, &kinds[i], 35, 8, 16, &p[i]);
    for (int round = 0; round < 3 && status == PM_OK; round++) {
        for (int i = 0; i < 4 && status == PM_OK; i++)
            status = run(d, &p[i]);
        for (int i = 0; i < 4 && status == PM_OK; i++) {
            status = count_wrong(d, &p[i], &wrong);
            *out_wrong += wrong;
        }
    }
    char words[300];
    snprintf(words, sizeof words, "%s", pm_last_error());
    for (int i = 0; i < 2; i++) // the first one may be what fails
        if (pm_rt_cuda_ops.wait(d) != PM_OK && status == PM_OK)
            snprintf(words, sizeof words, "%s", pm_last_error());
    for (int i = 0; i < 4; i++)
        drop(d, &p[i]);
    pm_rt_cuda_ops.close(d);
    pm_rt_cuda_ops.leave();
    snprintf(last_words, sizeof last_words, "%s", words);
    return status;
}

/// When any call of the library fails, the result is that of our own kernels.
START_TEST(any_call_of_the_library_fails)
{
    if (_i)
        unsetenv("PIMOE_GRAPHS");
    for (long n = 1; n == 1 || lt->calls >= n - 1; n++) {
        *lt = (fake_cublaslt){.fail_at = n};
        *fake = (fake_cuda){.devices = 1, .major = 9, .pools = 1, .fail_with = 999, .open = 1};
        size_t wrong;
        ck_assert_msg(some_products(&wrong) == PM_OK, "call %ld: %s", n, pm_last_error());
        ck_assert_msg(wrong == 0, "%zu are wrong when call %ld fails", wrong, n);
        ck_assert_int_eq(fake->live, 0);
        ck_assert_int_eq(lt->live, 0);
        ck_assert_int_lt(n, 1000);
    }
    ck_assert_int_gt(lt->calls, 30);
}
END_TEST

/// When any call of the driver fails, there is a status, or the right result; nothing is left behind.
START_TEST(any_call_of_the_driver_fails)
{
    if (_i)
        unsetenv("PIMOE_GRAPHS");
    for (long n = 1; n == 1 || fake->calls >= n - 1; n++) {
        *lt = (fake_cublaslt){0};
        *fake = (fake_cuda){.devices = 1, .major = 9, .pools = 1, .open = 1, .fail_at = n, .fail_with = 999};
        size_t wrong;
        if (some_products(&wrong) == PM_OK)
            ck_assert_msg(wrong == 0, "%zu are wrong when call %ld fails", wrong, n);
        else
            ck_assert_msg(strstr(last_words, "CUDA error 999"), "%s", last_words);
        ck_assert_int_eq(fake->live, 0);
        ck_assert_int_eq(lt->live, 0);
        ck_assert_int_lt(n, 1000);
    }
    ck_assert_int_gt(fake->calls, 60);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    snprintf(library, sizeof library, "%s/libcublasLt.so.13", argv[1]);
    snprintf(no_library, sizeof no_library, "%s/libcuda.so.1", argv[1]);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *blas = dlopen(library, RTLD_NOW);
    fake = driver ? dlsym(driver, "pm_fake_cuda") : NULL;
    lt = blas ? dlsym(blas, "pm_fake_cublaslt") : NULL;
    if (!fake || !lt) {
        fprintf(stderr, "the stand-ins are not in the path of libraries\n");
        return 77;
    }
    Suite *s = suite_create("cublaslt");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 100);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, products_of_every_kind);
    tcase_add_loop_test(t, nobody_asked, 0, 3);
    tcase_add_loop_test(t, library_of_no_use, 0, 3);
    tcase_add_test(t, by_its_usual_name);
    tcase_add_test(t, words_that_do_not_suit);
    tcase_add_test(t, parts_of_graphs);
    tcase_add_loop_test(t, many_shapes, 0, 2);
    tcase_add_loop_test(t, any_call_of_the_library_fails, 0, 2);
    tcase_add_loop_test(t, any_call_of_the_driver_fails, 0, 2);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
