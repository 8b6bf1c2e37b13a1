/// What lanes of a warp do together, and what a thread asks of the memory system.
#include <stdlib.h>
#include <string.h>

#include "runtime/device/emu_state.h"

void pm_emu_meet(uint32_t what, const void *in, const void *more, int32_t number, void *out)
{
    pm_emu_fiber *self = pm_emu_self();
    self->exchange = what;
    self->in = in;
    self->more = more;
    self->number = number;
    self->out = out;
    pm_emu_pause(PM_EMU_AT_EXCHANGE);
}

uint32_t pm_emu_shfl(uint32_t x, int32_t lane)
{
    uint32_t y = 0;
    if (lane < 0 || lane >= PM_EMU_WARP)
        pm_emu_fault("asks lane %d of its warp", lane);
    pm_emu_meet(PM_EMU_SHFL, &x, NULL, lane, &y);
    return y;
}

uint32_t pm_emu_ballot(int32_t condition)
{
    uint32_t x = condition != 0, all = 0;
    pm_emu_meet(PM_EMU_BALLOT, &x, NULL, 0, &all);
    return all;
}

float pm_dev_shfl_xor_f32(float x, int32_t lanes)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = pm_emu_shfl(bits, (int32_t)(pm_emu_thread() % PM_EMU_WARP) ^ lanes);
    memcpy(&x, &bits, sizeof bits);
    return x;
}

int32_t pm_dev_shfl_xor_i32(int32_t x, int32_t lanes)
{
    return (int32_t)pm_emu_shfl((uint32_t)x, (int32_t)(pm_emu_thread() % PM_EMU_WARP) ^ lanes);
}

int32_t pm_emu_atomic_add(int32_t *at, int32_t x)
{
    pm_emu_tell(at, sizeof *at, PM_EMU_ADDS);
    return __atomic_fetch_add(at, x, __ATOMIC_RELAXED);
}

void pm_emu_fail(int32_t *status, int64_t mark)
{
    int32_t none = 0;
    pm_emu_tell(status, sizeof *status, PM_EMU_ADDS);
    __atomic_compare_exchange_n(status, &none, (int32_t)mark, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/// ---- copies that go on beside ---------------------------------------------------------------------------------

void pm_emu_cp_async16(void *shared, const void *global, int32_t valid_bytes)
{
    pm_emu_fiber *self = pm_emu_self();
    if (valid_bytes < 0 || valid_bytes > 16)
        pm_emu_fault("an async copy of %d bytes", valid_bytes);
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16)
        pm_emu_fault("an async copy between %p and %p: not aligned to 16 bytes", global, shared);
    if (pm_emu_shared_offset(shared) < 0 || pm_emu_shared_offset(global) >= 0)
        pm_emu_fault("an async copy goes from global to shared memory, not from %p to %p", global, shared);
    if (valid_bytes > 0)
        pm_emu_tell(global, (uint64_t)valid_bytes, PM_EMU_READS);
    pm_emu_tell(shared, 16, PM_EMU_SENDS);
    if (self->n_copies == self->copy_room) {
        int32_t room = 2 * self->copy_room + 16;
        pm_emu_copy *copies = realloc(self->copies, (size_t)room * sizeof *copies);
        if (!copies)
            pm_emu_fault("out of memory");
        self->copies = copies;
        self->copy_room = room;
    }
    self->copies[self->n_copies++] = (pm_emu_copy){shared, global, valid_bytes, self->group};
}

void pm_emu_cp_async_commit(void)
{
    pm_emu_self()->group++;
}

void pm_emu_cp_async_wait(int32_t groups)
{
    pm_emu_fiber *self = pm_emu_self();
    int32_t left = 0;
    for (int32_t i = 0; i < self->n_copies; i++) {
        pm_emu_copy c = self->copies[i];
        if (c.group >= self->group - groups) {
            self->copies[left++] = c;
            continue;
        }
        memset(c.to, 0, 16);
        if (c.valid > 0)
            memcpy(c.to, c.from, (size_t)c.valid);
        pm_emu_tell(c.to, 16, PM_EMU_LANDS);
    }
    self->n_copies = left;
}

/// ---- matrices ---------------------------------------------------------------------------------------------------

void pm_emu_ldmatrix(uint32_t *r, const void *row, int32_t is_turned)
{
    if ((uintptr_t)row % 16 || pm_emu_shared_offset(row) < 0)
        pm_emu_fault("ldmatrix from %p: not 16 aligned bytes of shared memory", row);
    pm_emu_tell(row, 16, PM_EMU_READS);
    pm_emu_meet(is_turned ? PM_EMU_LDMATRIX_TRANS : PM_EMU_LDMATRIX, row, NULL, 0, r);
}

void pm_emu_mma(int32_t kind, void *d, const uint32_t *a, const uint32_t *b)
{
    pm_emu_meet(PM_EMU_MMA + (uint32_t)kind, a, b, kind, d);
}

/// Lane l has the row of matrix l / 8 that is number l % 8, and gets two neighbours of row l / 4 (turned: column l / 4).
static void load_matrices(pm_emu_fiber *lanes, bool is_turned)
{
    uint16_t rows[PM_EMU_WARP][8];
    for (int l = 0; l < PM_EMU_WARP; l++)
        memcpy(rows[l], lanes[l].in, sizeof rows[l]);
    for (int l = 0; l < PM_EMU_WARP; l++)
        for (int m = 0; m < 4; m++) {
            int i = l / 4, j = l % 4 * 2;
            uint16_t low = is_turned ? rows[m * 8 + j][i] : rows[m * 8 + i][j];
            uint16_t high = is_turned ? rows[m * 8 + j + 1][i] : rows[m * 8 + i][j + 1];
            ((uint32_t *)lanes[l].out)[m] = low | (uint32_t)high << 16;
        }
}

static float f32_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/// Exact: neither f16 nor e4m3 has a number that f32 has not.
static float small_float(uint32_t bits, int exponent_bits, int mantissa_bits, bool has_infinity)
{
    uint32_t mantissa = bits & ((1u << mantissa_bits) - 1), most = (1u << exponent_bits) - 1;
    uint32_t exponent = bits >> mantissa_bits & most, sign = bits >> (exponent_bits + mantissa_bits) & 1u;
    int bias = (1 << (exponent_bits - 1)) - 1;
    float unit = f32_of_bits((uint32_t)(127 + (exponent ? (int)exponent : 1) - bias - mantissa_bits) << 23);
    float value = (float)(mantissa + (exponent ? 1u << mantissa_bits : 0)) * unit;
    if (has_infinity && exponent == most)
        value = f32_of_bits(0x7f800000u | mantissa << 13);
    if (!has_infinity && exponent == most && mantissa == (1u << mantissa_bits) - 1)
        value = f32_of_bits(0x7fc00000u);
    return sign ? -value : value;
}

float pm_emu_element(uint32_t bits, int32_t kind, int at)
{
    switch (kind) {
    case PM_EMU_MMA_BF16: return f32_of_bits(bits >> 16 * at << 16);
    case PM_EMU_MMA_F16: return small_float(bits >> 16 * at & 0xffffu, 5, 10, true);
    case PM_EMU_MMA_S8: return (float)(int8_t)(bits >> 8 * at);
    default: return small_float(bits >> 8 * at & 0xffu, 4, 3, false);
    }
}

/// m16n8k16 of 16 bits, m16n8k32 of 8: a register holds `each` neighbours along k, four lanes half of k. Lane l has rows
/// l / 4 and 8 more of a and d, column l / 4 of b, columns l % 4 * 2 and one more of d. Sums in f32 (s8: in s32), one
/// product at a time, k upward.
static void multiply(pm_emu_fiber *lanes)
{
    int32_t kind = lanes->number;
    int each = kind < PM_EMU_MMA_S8 ? 2 : 4, depth = 8 * each;
    float a[16][32], b[8][32];
    for (int l = 0; l < PM_EMU_WARP; l++)
        for (int i = 0; i < each; i++) {
            const uint32_t *ra = lanes[l].in, *rb = lanes[l].more;
            int k = l % 4 * each + i, half = depth / 2;
            for (int part = 0; part < 2; part++) {
                a[l / 4][k + part * half] = pm_emu_element(ra[2 * part], kind, i);
                a[l / 4 + 8][k + part * half] = pm_emu_element(ra[2 * part + 1], kind, i);
                b[l / 4][k + part * half] = pm_emu_element(rb[part], kind, i);
            }
        }
    for (int l = 0; l < PM_EMU_WARP; l++)
        for (int i = 0; i < 4; i++) {
            const float *row = a[l / 4 + i / 2 * 8], *column = b[l % 4 * 2 + i % 2];
            if (kind == PM_EMU_MMA_S8) {
                int32_t *d = (int32_t *)lanes[l].out + i;
                for (int k = 0; k < depth; k++)
                    *d = (int32_t)((uint32_t)*d + (uint32_t)((int32_t)row[k] * (int32_t)column[k]));
            } else {
                float *d = (float *)lanes[l].out + i;
                for (int k = 0; k < depth; k++)
                    *d += row[k] * column[k];
            }
        }
}

void pm_emu_carry_out(pm_emu_fiber *lanes)
{
    uint32_t all = 0;
    switch (lanes->exchange) {
    case PM_EMU_SHFL:
        for (int l = 0; l < PM_EMU_WARP; l++)
            *(uint32_t *)lanes[l].out = *(const uint32_t *)lanes[lanes[l].number].in;
        break;
    case PM_EMU_BALLOT:
        for (int l = 0; l < PM_EMU_WARP; l++)
            all |= *(const uint32_t *)lanes[l].in << l;
        for (int l = 0; l < PM_EMU_WARP; l++)
            *(uint32_t *)lanes[l].out = all;
        break;
    case PM_EMU_LDMATRIX:
    case PM_EMU_LDMATRIX_TRANS:
        load_matrices(lanes, lanes->exchange == PM_EMU_LDMATRIX_TRANS);
        break;
    case PM_EMU_WGMMA:
    case PM_EMU_WGMMA_WAIT: pm_emu_carry_out_products(lanes); break;
    default: multiply(lanes); break;
    }
}
