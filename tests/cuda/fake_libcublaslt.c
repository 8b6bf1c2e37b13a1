/// A stand-in for cuBLASLt, on the stand-in for the driver: it makes products of f32, bf16 and f16 when their turn on the
/// stream comes, by the matrices' descriptions and not by what the caller meant. Whoever breaks the rules (objects that are
/// gone, matrices that don't fit each other or the memory, types that the library doesn't multiply, a workspace that is too
/// small or none of the device's) is told so, and the test ends.
#include "tests/cuda/fake_libcublaslt.h"

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/device/cublaslt.h"
#include "tests/cuda/fake_libcuda.h"

#define EXPORT __attribute__((visibility("default")))

enum { NOT_SUPPORTED = 15, ALLOC_FAILED = 3, WORKSPACE = 4096 };
typedef enum kind { HANDLE = 0x71f10001, PRODUCT, LAYOUT, PREFERENCE } kind;

struct cublasLtContext {
    kind kind;
};

struct pm_lt_desc {
    kind kind;
    bool transposed;
    uint32_t epilogue;
    const void *bias;
};

struct pm_lt_layout {
    kind kind;
    unsigned int type;
    uint64_t rows, columns;
    int64_t step; ///< from column to column
};

struct pm_lt_preference {
    kind kind;
    uint64_t workspace;
    uint32_t reductions, aligned[4];
};

EXPORT fake_cublaslt pm_fake_cublaslt;

static _Noreturn void violated(const char *what, const char *function)
{
    fprintf(stderr, "fake libcublasLt: %s: %s\n", function, what);
    abort();
}

#define RULE(condition, what) ((condition) ? (void)0 : violated(what, __func__))
#define CHECK(object, k) RULE((object) && (object)->kind == (k), "what it was given is no " #k ", or is gone")
#define CALL                                                      \
    if (++pm_fake_cublaslt.calls == pm_fake_cublaslt.fail_at)     \
        return ALLOC_FAILED;

/// Memory that stays, to be known when it comes again. (Tests are short; pages aren't what leak checkers look for.)
static void *kept(size_t size)
{
    enum { PAGES = 1 << 16 };
    static _Thread_local uint8_t *at;
    static _Thread_local size_t left;
    size = (size + 15) / 16 * 16;
    if (left < size) {
        at = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED || size > PAGES)
            abort();
        left = PAGES;
    }
    left -= size;
    return at + left;
}

static void *made(size_t size, kind k)
{
    kind *object = kept(size);
    *object = k;
    pm_fake_cublaslt.live++;
    return object;
}

static void gone(kind *object)
{
    *object = 0;
    pm_fake_cublaslt.live--;
}

EXPORT size_t cublasLtGetVersion(void)
{
    return 130100;
}

EXPORT const char *cublasLtGetStatusName(lt_status status)
{
    return status == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_ALLOC_FAILED";
}

EXPORT lt_status cublasLtCreate(lt_handle *handle)
{
    CALL
    *handle = made(sizeof **handle, HANDLE);
    return 0;
}

EXPORT lt_status cublasLtDestroy(lt_handle handle)
{
    CHECK(handle, HANDLE);
    gone(&handle->kind);
    return 0;
}

EXPORT lt_status cublasLtMatmulDescCreate(lt_desc *desc, unsigned int compute, unsigned int scale)
{
    CALL
    RULE(compute == PM_LT_COMPUTE_32F && scale == PM_LT_REAL_32F, "sums are of f32");
    *desc = made(sizeof **desc, PRODUCT);
    return 0;
}

EXPORT lt_status cublasLtMatmulDescDestroy(lt_desc desc)
{
    CHECK(desc, PRODUCT);
    gone(&desc->kind);
    return 0;
}

EXPORT lt_status cublasLtMatmulDescSetAttribute(lt_desc desc, unsigned int attribute, const void *value, size_t size)
{
    CALL
    CHECK(desc, PRODUCT);
    switch (attribute) {
    case PM_LT_TRANSA:
        RULE(size == sizeof(int32_t), "size");
        desc->transposed = *(const int32_t *)value == PM_LT_TRANSPOSED;
        return 0;
    case PM_LT_EPILOGUE:
        RULE(size == sizeof desc->epilogue && *(const uint32_t *)value == PM_LT_ADDS_BIAS, "epilogue");
        desc->epilogue = *(const uint32_t *)value;
        return 0;
    case PM_LT_BIAS_POINTER:
        RULE(size == sizeof desc->bias, "size");
        memcpy(&desc->bias, value, size);
        return 0;
    default: violated("an attribute that nobody needs", __func__);
    }
}

EXPORT lt_status cublasLtMatrixLayoutCreate(lt_layout *layout, unsigned int type, uint64_t rows, uint64_t columns, int64_t step)
{
    CALL
    RULE(type == PM_LT_REAL_32F || type == PM_LT_REAL_16F || type == PM_LT_REAL_16BF, "type");
    RULE(rows > 0 && columns > 0 && step >= (int64_t)rows, "extents");
    *layout = made(sizeof **layout, LAYOUT);
    (*layout)->type = type;
    (*layout)->rows = rows;
    (*layout)->columns = columns;
    (*layout)->step = step;
    return 0;
}

EXPORT lt_status cublasLtMatrixLayoutDestroy(lt_layout layout)
{
    CHECK(layout, LAYOUT);
    gone(&layout->kind);
    return 0;
}

EXPORT lt_status cublasLtMatmulPreferenceCreate(lt_preference *preference)
{
    CALL
    *preference = made(sizeof **preference, PREFERENCE);
    (*preference)->reductions = 7;
    for (int i = 0; i < 4; i++)
        (*preference)->aligned[i] = 256;
    return 0;
}

EXPORT lt_status cublasLtMatmulPreferenceDestroy(lt_preference preference)
{
    CHECK(preference, PREFERENCE);
    gone(&preference->kind);
    return 0;
}

EXPORT lt_status cublasLtMatmulPreferenceSetAttribute(lt_preference preference, unsigned int attribute, const void *value,
                                                      size_t size)
{
    CALL
    CHECK(preference, PREFERENCE);
    void *to = attribute == PM_LT_MOST_WORKSPACE ? (void *)&preference->workspace
               : attribute == PM_LT_REDUCTIONS   ? (void *)&preference->reductions
                                                 : (void *)&preference->aligned[attribute - PM_LT_ALIGNMENT_A];
    RULE(attribute == PM_LT_MOST_WORKSPACE || attribute == PM_LT_REDUCTIONS ||
             (attribute >= PM_LT_ALIGNMENT_A && attribute <= PM_LT_ALIGNMENT_D), "an attribute that nobody needs");
    RULE(size == (attribute == PM_LT_MOST_WORKSPACE ? sizeof preference->workspace : sizeof(uint32_t)), "size");
    memcpy(to, value, size);
    return 0;
}

/// What fits and what the library multiplies; y is the result and, times 0, what is added.
static void check_product(lt_desc desc, lt_layout w, lt_layout x, lt_layout c, lt_layout y, const char *function)
{
    bool ok = desc && desc->kind == PRODUCT && w && w->kind == LAYOUT && x && x->kind == LAYOUT && y && y->kind == LAYOUT;
    if (!ok)
        violated("an object that is none, or gone", function);
    if (c != y || !desc->transposed || w->rows != x->rows || w->columns != y->rows || x->columns != y->columns)
        violated("matrices that don't fit each other", function);
    if (w->type != x->type || (y->type != w->type && y->type != PM_LT_REAL_32F))
        violated("types that it doesn't multiply", function);
    if (desc->epilogue && !desc->bias)
        violated("no bias", function);
}

EXPORT lt_status cublasLtMatmulAlgoGetHeuristic(lt_handle handle, lt_desc desc, lt_layout w, lt_layout x, lt_layout c,
                                                lt_layout y, lt_preference preference, int asked, lt_choice *choice, int *n)
{
    CALL
    CHECK(handle, HANDLE);
    CHECK(preference, PREFERENCE);
    check_product(desc, w, x, c, y, __func__);
    RULE(preference->reductions == PM_LT_IN_COMPUTE_TYPE, "partial sums of 16 bits");
    for (int i = 0; i < 4; i++)
        RULE(preference->aligned[i] == PM_LT_ALIGNED, "it counts on memory at multiples of 256 bytes");
    RULE(asked == 1, "one is enough");
    *n = 0;
    if (pm_fake_cublaslt.no_choice)
        return NOT_SUPPORTED;
    *n = 1;
    *choice = (lt_choice){.algo.data = {HANDLE, w->rows, w->columns, x->columns},
                          .workspaceSize = preference->workspace < WORKSPACE ? 0 : WORKSPACE};
    return 0;
}

/// A function of the stand-in for the driver, which is there: whoever calls this library has opened it.
static void *of_driver(const char *name)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *function = driver ? dlsym(driver, name) : NULL;
    RULE(function, "there is no stand-in for the driver");
    return function;
}

static bool is_device_memory(const void *at, size_t bytes)
{
    fake_is_device_memory *is;
    *(void **)&is = of_driver("pm_fake_is_device_memory");
    return is(at, bytes);
}

typedef struct product {
    struct pm_lt_layout w, x, y;
    const void *bias; ///< NULL: none
    const uint8_t *from_w, *from_x;
    uint8_t *to;
    void *workspace;
} product;

static size_t size_of(unsigned int type)
{
    return type == PM_LT_REAL_32F ? 4 : 2;
}

static float element(const void *matrix, unsigned int type, uint64_t at)
{
    float value;
    uint16_t bits;
    uint32_t wide;
    _Float16 half;
    if (type == PM_LT_REAL_32F) {
        memcpy(&value, (const uint8_t *)matrix + 4 * at, 4);
        return value;
    }
    memcpy(&bits, (const uint8_t *)matrix + 2 * at, 2);
    if (type == PM_LT_REAL_16F) {
        memcpy(&half, &bits, 2);
        return (float)half;
    }
    wide = (uint32_t)bits << 16;
    memcpy(&value, &wide, 4);
    return value;
}

static void put_element(void *matrix, unsigned int type, uint64_t at, float value)
{
    uint16_t bits;
    uint32_t wide;
    _Float16 half = (_Float16)value;
    if (type == PM_LT_REAL_32F) {
        memcpy((uint8_t *)matrix + 4 * at, &value, 4);
        return;
    }
    memcpy(&wide, &value, 4);
    wide += 0x7fff + (wide >> 16 & 1);
    bits = (uint16_t)(wide >> 16);
    if (type == PM_LT_REAL_16F)
        memcpy(&bits, &half, 2);
    memcpy((uint8_t *)matrix + 2 * at, &bits, 2);
}

static void multiply(void *arg)
{
    const product *p = arg;
    memset(p->workspace, 0xee, WORKSPACE);
    for (uint64_t row = 0; row < p->y.columns; row++)
        for (uint64_t column = 0; column < p->y.rows; column++) {
            float sum = 0;
            for (uint64_t k = 0; k < p->w.rows; k++)
                sum = fmaf(element(p->from_w, p->w.type, column * (uint64_t)p->w.step + k),
                           element(p->from_x, p->x.type, row * (uint64_t)p->x.step + k), sum);
            sum += p->bias ? element(p->bias, p->y.type, column) : 0;
            put_element(p->to, p->y.type, row * (uint64_t)p->y.step + column, sum);
        }
}

/// Whether the matrix is memory of the device that is current, at a multiple of what was promised.
static bool lies_well(const void *at, const struct pm_lt_layout *l)
{
    size_t last = ((size_t)l->columns - 1) * (size_t)l->step + (size_t)l->rows;
    return (uintptr_t)at % PM_LT_ALIGNED == 0 && is_device_memory(at, last * size_of(l->type));
}

EXPORT lt_status cublasLtMatmul(lt_handle handle, lt_desc desc, const void *alpha, const void *from_w, lt_layout w,
                                const void *from_x, lt_layout x, const void *beta, const void *from_c, lt_layout c,
                                void *to, lt_layout y, const lt_algorithm *algorithm, void *workspace, size_t bytes,
                                cu_stream stream)
{
    CALL
    CHECK(handle, HANDLE);
    check_product(desc, w, x, c, y, __func__);
    RULE(*(const float *)alpha == 1 && *(const float *)beta == 0 && from_c == to, "alpha, beta, or c");
    RULE(algorithm->data[0] == HANDLE && algorithm->data[1] == w->rows && algorithm->data[2] == w->columns &&
             algorithm->data[3] == x->columns, "the algorithm of another product");
    RULE(lies_well(from_w, w) && lies_well(from_x, x) && lies_well(to, y), "a matrix that isn't there, or not aligned");
    RULE(!desc->epilogue || is_device_memory(desc->bias, y->rows * size_of(y->type)), "a bias that isn't there");
    RULE(bytes >= WORKSPACE && (uintptr_t)workspace % 256 == 0 && is_device_memory(workspace, bytes), "workspace");
    fake_give *give;
    *(void **)&give = of_driver("pm_fake_give");
    product *p = kept(sizeof *p); // graphs do it again
    *p = (product){*w, *x, *y, desc->epilogue ? desc->bias : NULL, from_w, from_x, to, workspace};
    give(stream, multiply, p);
    pm_fake_cublaslt.products++;
    return 0;
}
