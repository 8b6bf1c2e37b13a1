/// cuBLASLt for dense products of many rows, where the user asks for it and a machine has it. It is asked once for each
/// shape; what it refuses, or can't do any more, our own kernel does. Its workspace belongs to this line of work alone.
#include <stdlib.h>
#include <string.h>

#include "runtime/device/cuda_device.h"

/// PIMOE_CUBLASLT: 1, or the library's path.
static const char *asked_for(void)
{
    const char *asked = getenv("PIMOE_CUBLASLT");
    return asked && asked[0] && strcmp(asked, "0") != 0 ? asked : NULL;
}

void pm_cuda_blas_make(pm_rt_device_state *device)
{
    device->blas.asked_for = asked_for() != NULL;
}

void pm_cuda_blas_drop(pm_rt_device_state *device)
{
    pm_cuda_blas *b = &device->blas;
    for (uint32_t i = 0; i < b->n; i++)
        pm_lt_drop(&b->lt, &b->list[i].how);
    if (b->lt.functions)
        pm_lt_close(&b->lt);
    if (b->workspace)
        pm_rt_cuda_ops.release(device, b->workspace);
    *b = (pm_cuda_blas){0};
}

/// Once, when the first product comes. False: it goes without.
static bool is_open(pm_rt_device_state *device)
{
    pm_cuda_blas *b = &device->blas;
    if (b->tried)
        return b->lt.functions != NULL;
    b->tried = true;
    const char *asked = asked_for();
    if (!asked || pm_lt_open(strchr(asked, '/') ? asked : NULL, &b->lt) != PM_OK)
        return false;
    if (pm_cuda_alloc(device, PM_LT_WORKSPACE, &b->workspace) == PM_OK)
        return true;
    pm_lt_close(&b->lt);
    return false;
}

static const unsigned int types[] = {
    [PM_RT_PRODUCT_F32] = PM_LT_REAL_32F, [PM_RT_PRODUCT_BF16] = PM_LT_REAL_16BF, [PM_RT_PRODUCT_F16] = PM_LT_REAL_16F};

static pm_lt_operands operands_of(const uint64_t *words)
{
    return (pm_lt_operands){.x = (const void *)(uintptr_t)words[PM_RT_PRODUCT_X],
                            .w = (const void *)(uintptr_t)words[PM_RT_PRODUCT_W],
                            .bias = (const void *)(uintptr_t)words[PM_RT_PRODUCT_BIAS],
                            .y = (void *)(uintptr_t)words[PM_RT_PRODUCT_Y]};
}

/// Whether words are of a product of elements that the library multiplies as we do: both factors of one type, the result of
/// that or f32, as is the bias. One that rounds is one of bf16 already.
static bool describe(const uint64_t *words, pm_lt_shape *out)
{
    static const int aligned[] = {PM_RT_PRODUCT_X, PM_RT_PRODUCT_W, PM_RT_PRODUCT_BIAS, PM_RT_PRODUCT_Y};
    uint64_t x = words[PM_RT_PRODUCT_X_ELEM], y = words[PM_RT_PRODUCT_Y_ELEM], places = 0;
    bool bias = words[PM_RT_PRODUCT_BIAS] != 0;
    for (size_t i = 0; i < sizeof aligned / sizeof *aligned; i++)
        places |= words[aligned[i]];
    if (words[PM_RT_PRODUCT_EXPERTS] || words[PM_RT_PRODUCT_BITS] || x > PM_RT_PRODUCT_F16 ||
        words[PM_RT_PRODUCT_W_ELEM] != x || (y != x && y != PM_RT_PRODUCT_F32) ||
        (bias && words[PM_RT_PRODUCT_BIAS_ELEM] != y) || (words[PM_RT_PRODUCT_ROUNDS] && x != PM_RT_PRODUCT_BF16) ||
        places % PM_LT_ALIGNED != 0)
        return false;
    *out = (pm_lt_shape){.rows = words[PM_RT_PRODUCT_ROWS], .n = words[PM_RT_PRODUCT_N], .k = words[PM_RT_PRODUCT_K],
                         .factors = types[x], .result = types[y], .bias = bias};
    return out->rows > 0;
}

static bool same(const pm_lt_shape *a, const pm_lt_shape *b)
{
    return a->rows == b->rows && a->n == b->n && a->k == b->k && a->factors == b->factors && a->result == b->result &&
           a->bias == b->bias;
}

/// Room for a shape: that of the one that wasn't used for longest. What was gathered may still mean that one.
static pm_status make_room(pm_rt_device_state *device, pm_cuda_product **out)
{
    pm_cuda_blas *b = &device->blas;
    if (b->n < PM_CUDA_PRODUCTS) {
        *out = &b->list[b->n++];
        return PM_OK;
    }
    PM_TRY(pm_cuda_flush(device));
    *out = &b->list[0];
    for (uint32_t i = 1; i < b->n; i++)
        if (b->list[i].used < (*out)->used)
            *out = &b->list[i];
    pm_lt_drop(&b->lt, &(*out)->how);
    return PM_OK;
}

pm_status pm_cuda_blas_find(pm_rt_device_state *device, uint32_t kernel, const uint64_t *words, uint32_t n_words,
                            pm_cuda_product **out_product)
{
    pm_cuda_blas *b = &device->blas;
    pm_lt_shape shape;
    *out_product = NULL;
    if (!b->asked_for || !(device->chip->desc->kernels[kernel].flags & PM_RT_KERNEL_PRODUCT) ||
        n_words != PM_RT_PRODUCT_WORDS || !describe(words, &shape) || !is_open(device))
        return PM_OK;
    pm_cuda_product *found = NULL;
    for (uint32_t i = 0; i < b->n && !found; i++)
        found = same(&b->list[i].shape, &shape) ? &b->list[i] : NULL;
    if (!found) {
        const pm_lt_operands operands = operands_of(words);
        PM_TRY(make_room(device, &found));
        *found = (pm_cuda_product){.shape = shape};
        found->refused = pm_lt_prepare(&b->lt, &shape, &operands, &found->how) != PM_OK;
    }
    found->used = ++b->clock;
    *out_product = found->refused ? NULL : found;
    return PM_OK;
}

bool pm_cuda_blas_run(pm_rt_device_state *device, pm_cuda_product *product, const uint64_t *words)
{
    pm_cuda_blas *b = &device->blas;
    const pm_lt_operands operands = operands_of(words);
    if (!product->refused && pm_lt_run(&b->lt, &product->how, &operands, b->workspace, device->stream) == PM_OK)
        return true;
    b->refused += !product->refused;
    product->refused = true;
    return false;
}
