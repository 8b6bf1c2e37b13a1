/// Products of warpgroups (sm_90a). They go on beside: operands are read and results written when they are waited for;
/// until then `d` holds no numbers.
#include <stdlib.h>
#include <string.h>

#include "runtime/device/emu_state.h"

enum { MATRIX_ROWS = 64, DEPTH = 16, MOST_N = 256, NONE = 0 };

/// A descriptor's matrix: K is contiguous.
typedef struct matrix {
    uint32_t start, leading, stride, swizzle;
} matrix;

static matrix decode(uint64_t bits)
{
    return (matrix){(uint32_t)(bits & 0x3fffu) << 4, (uint32_t)(bits >> 16 & 0x3fffu) << 4,
                    (uint32_t)(bits >> 32 & 0x3fffu) << 4, (uint32_t)(bits >> 62)};
}

/// Where 8 elements of a row lie, the first (half 0) or last of 16: distance from the start of shared memory.
static uint32_t address_of(const matrix *m, uint32_t row, uint32_t half)
{
    uint32_t group = m->start + row / 8 * m->stride;
    if (m->swizzle == NONE)
        return group + row % 8 * 16 + half * m->leading;
    uint32_t at = group + row % 8 * (256u >> m->swizzle) + half * 16;
    return at ^ ((at >> 7 & ((16u >> m->swizzle) - 1)) << 4);
}

uint32_t pm_emu_shared_address(const void *shared)
{
    int64_t offset = pm_emu_shared_offset(shared);
    if (offset < 0 || offset >= 1 << 18 || offset % 16)
        pm_emu_fault("a matrix at %p: not 16 aligned bytes of shared memory", shared);
    return (uint32_t)offset;
}

/// Tells the watch that this warp reads its rows of a, and b.
static void tell_reads(const pm_emu_product *product, uint32_t warp)
{
    pm_emu_player *p = pm_emu_now;
    uint32_t now = p->now;
    matrix a = decode(product->a), b = decode(product->b);
    for (uint32_t l = 0; p->launch.watch && l < PM_EMU_WARP; l++) {
        p->now = now / PM_EMU_WARP * PM_EMU_WARP + l;
        pm_emu_tell(p->shared + address_of(&a, warp % 4 * 16 + l / 2, l % 2), 16, PM_EMU_MULTIPLIES);
        for (uint32_t row = l; row < (uint32_t)product->n; row += PM_EMU_WARP)
            for (uint32_t half = 0; half < 2; half++)
                pm_emu_tell(p->shared + address_of(&b, row, half), 16, PM_EMU_MULTIPLIES);
    }
    p->now = now;
}

static void check_matrix(uint64_t bits)
{
    matrix m = decode(bits);
    if (m.swizzle != NONE && m.stride % (2048u >> m.swizzle))
        pm_emu_fault("a swizzled matrix whose groups of eight rows are %u bytes apart", m.stride);
    if (m.swizzle != NONE && (m.start & ((2048u >> m.swizzle) - 1)) >= 256u >> m.swizzle)
        pm_emu_fault("a swizzled matrix that does not start with a group of eight rows");
}

void pm_emu_wgmma_fence(void)
{
    pm_emu_self()->fenced = true;
}

void pm_emu_wgmma(int32_t kind, int32_t n, float *d, uint64_t a, uint64_t b)
{
    pm_emu_fiber *self = pm_emu_self();
    pm_emu_product product = {.kind = kind, .n = n, .group = self->product_group, .d = d, .a = a, .b = b};
    if (!self->fenced)
        pm_emu_fault("a product of the warpgroup without pm_wgmma_fence before it");
    if (pm_emu_now->launch.threads % 128)
        pm_emu_fault("a product of the warpgroup in a block of %u threads", pm_emu_now->launch.threads);
    check_matrix(a);
    check_matrix(b);
    pm_emu_meet(PM_EMU_WGMMA, &product, NULL, n, NULL);
    if (self->n_products == PM_EMU_MOST_PRODUCTS)
        pm_emu_fault("more than %d products of the warpgroup are on their way", PM_EMU_MOST_PRODUCTS);
    bool follows = false;
    for (int32_t i = 0; i < self->n_products; i++)
        follows |= self->products[i].d == d;
    size_t bytes = (size_t)n / 2 * sizeof *d;
    product.sum = malloc(bytes);
    if (!product.sum)
        pm_emu_fault("out of memory");
    if (!follows)
        memcpy(product.sum, d, bytes);
    memset(d, 0xff, bytes);
    self->products[self->n_products++] = product;
}

void pm_emu_wgmma_commit(void)
{
    pm_emu_self()->product_group++;
}

void pm_emu_wgmma_wait(int32_t groups)
{
    pm_emu_fiber *self = pm_emu_self();
    self->fenced = false;
    pm_emu_meet(PM_EMU_WGMMA_WAIT, NULL, NULL, groups, NULL);
}

/// All lanes name the same matrices.
static void start(pm_emu_fiber *lanes)
{
    const pm_emu_product *first = lanes->in;
    for (int l = 1; l < PM_EMU_WARP; l++) {
        const pm_emu_product *other = lanes[l].in;
        if (other->a != first->a || other->b != first->b || other->n != first->n || other->kind != first->kind)
            pm_emu_note((uint32_t)(lanes - pm_emu_now->fibers) + (uint32_t)l, "multiplies other matrices than its warp");
    }
    tell_reads(first, (uint32_t)(lanes - pm_emu_now->fibers) / PM_EMU_WARP);
}

static void read_rows(const pm_emu_product *product, uint64_t bits, uint32_t first, uint32_t n, float (*out)[DEPTH])
{
    matrix m = decode(bits);
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t half = 0; half < 2; half++) {
            uint16_t raw[8];
            memcpy(raw, pm_emu_now->shared + address_of(&m, first + row, half), sizeof raw);
            for (int i = 0; i < 8; i++)
                out[row][half * 8 + (uint32_t)i] = pm_emu_element(raw[i], product->kind, 0);
        }
}

/// The oldest product of the warp. Sums in f32, k upward.
static void finish(pm_emu_fiber *lanes)
{
    const pm_emu_product *product = lanes->products;
    uint32_t warp = (uint32_t)(lanes - pm_emu_now->fibers) / PM_EMU_WARP;
    static _Thread_local float a[16][DEPTH], b[MOST_N][DEPTH];
    tell_reads(product, warp);
    read_rows(product, product->a, warp % 4 * 16, 16, a);
    read_rows(product, product->b, 0, (uint32_t)product->n, b);
    for (int l = 0; l < PM_EMU_WARP; l++) {
        pm_emu_fiber *lane = &lanes[l];
        pm_emu_product done = lane->products[0];
        for (int i = 0; i < done.n / 2; i++) {
            const float *row = a[l / 4 + i % 4 / 2 * 8], *column = b[i / 4 * 8 + l % 4 * 2 + i % 2];
            for (int k = 0; k < DEPTH; k++)
                done.sum[i] += row[k] * column[k];
        }
        lane->n_products--;
        memmove(lane->products, lane->products + 1, (size_t)lane->n_products * sizeof *lane->products);
        float *to = done.d;
        for (int32_t i = lane->n_products - 1; i >= 0; i--)
            if (lane->products[i].d == done.d)
                to = lane->products[i].sum; // the earliest that goes on with this sum
        memcpy(to, done.sum, (size_t)done.n / 2 * sizeof *to);
        free(done.sum);
    }
}

void pm_emu_carry_out_products(pm_emu_fiber *lanes)
{
    if (lanes->exchange == PM_EMU_WGMMA) {
        start(lanes);
        return;
    }
    while (lanes->n_products && lanes->products[0].group < lanes->product_group - lanes->number)
        finish(lanes);
}
