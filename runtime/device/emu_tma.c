/// Barriers in shared memory, and copies that report to them (sm_90a). A copy lands when nobody can go on without it.
#include <stdlib.h>
#include <string.h>

#include "runtime/device/emu_state.h"

static pm_emu_barrier *barrier_at(const void *at)
{
    pm_emu_player *p = pm_emu_now;
    for (uint32_t i = 0; i < p->n_barriers; i++)
        if (p->barriers[i].at == at)
            return &p->barriers[i];
    return NULL;
}

/// That of a call; its words are read, so its making must have come before.
static pm_emu_barrier *barrier_of(const void *at)
{
    pm_emu_barrier *b = barrier_at(at);
    if (!b)
        pm_emu_fault("%p is no barrier that was made", at);
    pm_emu_tell(at, 8, PM_EMU_READS);
    return b;
}

static void look(pm_emu_barrier *b)
{
    if (b->pending > 0 || b->bytes != 0)
        return;
    b->phase ^= 1;
    b->pending = b->count;
}

void pm_emu_fence_async(void)
{
    if (pm_emu_now->launch.watch)
        pm_emu_now->launch.watch->fenced();
}

void pm_emu_barrier_init(uint64_t *barrier, int32_t count)
{
    pm_emu_player *p = pm_emu_now;
    if ((uintptr_t)barrier % 8 || pm_emu_shared_offset(barrier) < 0 || count <= 0)
        pm_emu_fault("a barrier of %d at %p: not 8 aligned bytes of shared memory", count, (void *)barrier);
    if (barrier_at(barrier))
        pm_emu_fault("a barrier is made twice");
    if (p->n_barriers == PM_EMU_MOST_BARRIERS)
        pm_emu_fault("more than %d barriers in shared memory", PM_EMU_MOST_BARRIERS);
    pm_emu_tell(barrier, 8, PM_EMU_WRITES);
    p->barriers[p->n_barriers++] = (pm_emu_barrier){.at = barrier, .count = count, .pending = count};
}

void pm_emu_barrier_arrive(uint64_t *barrier, int32_t bytes)
{
    pm_emu_barrier *b = barrier_of(barrier);
    if (pm_emu_now->launch.watch)
        pm_emu_now->launch.watch->gave(barrier);
    b->bytes += bytes;
    b->pending--;
    look(b);
}

void pm_emu_barrier_wait(uint64_t *barrier, int32_t parity)
{
    pm_emu_barrier *b = barrier_of(barrier);
    pm_emu_fiber *self = pm_emu_self();
    self->in = b;
    self->number = parity & 1;
    while (b->phase == self->number)
        pm_emu_pause(PM_EMU_AT_PHASE);
    if (pm_emu_now->launch.watch)
        pm_emu_now->launch.watch->took(barrier);
}

/// The pieces of 16 bytes that a copy moves: number `i`'s place, and what of it comes from global memory.
static uint8_t *piece_of(const pm_emu_bulk *c, uint32_t i, const uint8_t **out_from, uint32_t *out_valid)
{
    const pm_emu_tensor_map *m = c->map;
    if (!m) {
        *out_from = (const uint8_t *)c->from + i * 16;
        *out_valid = 16;
        return (uint8_t *)c->to + i * 16;
    }
    uint32_t row_bytes = m->box[0] * m->element_bytes, at = i * 16;
    int64_t x = c->x * (int64_t)m->element_bytes + at % row_bytes, y = c->y + (int64_t)(at / row_bytes);
    int64_t end = (int64_t)(m->extent[0] * m->element_bytes);
    bool is_in = y >= 0 && y < (int64_t)m->extent[1] && c->z >= 0 && c->z < (int64_t)m->extent[2];
    is_in = is_in && x >= 0 && x < end; // x is a multiple of 16 where rows begin
    *out_valid = !is_in ? 0 : end - x < 16 ? (uint32_t)(end - x) : 16;
    *out_from = is_in ? (const uint8_t *)m->base + c->z * (int64_t)m->stride[1] + y * (int64_t)m->stride[0] + x : NULL;
    uint8_t *shared = pm_emu_now->shared;
    uint64_t offset = (uint64_t)((uint8_t *)c->to + at - shared);
    if (m->swizzle)
        offset ^= (offset >> 7 & ((16u >> m->swizzle) - 1)) << 4;
    return shared + offset;
}

static void send(pm_emu_bulk c)
{
    pm_emu_player *p = pm_emu_now;
    barrier_of(c.barrier->at);
    if (p->n_bulks == PM_EMU_MOST_BULKS)
        pm_emu_fault("more than %d bulk copies are on their way", PM_EMU_MOST_BULKS);
    c.thread = p->now;
    for (uint32_t i = 0; i < c.bytes / 16; i++) {
        const uint8_t *from;
        uint32_t valid;
        uint8_t *to = piece_of(&c, i, &from, &valid);
        if (valid)
            pm_emu_tell(from, valid, PM_EMU_READS);
        pm_emu_tell(to, 16, PM_EMU_SENDS);
    }
    p->bulks[p->n_bulks++] = c;
}

void pm_emu_bulk_load(void *shared, const void *global, int32_t bytes, uint64_t *barrier)
{
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || bytes <= 0 || bytes % 16)
        pm_emu_fault("a bulk copy of %d bytes from %p to %p: not multiples of 16", bytes, global, shared);
    if (pm_emu_shared_offset(shared) < 0 || pm_emu_shared_offset(global) >= 0)
        pm_emu_fault("a bulk copy goes from global to shared memory, not from %p to %p", global, shared);
    send((pm_emu_bulk){.to = shared, .from = global, .bytes = (uint32_t)bytes, .barrier = barrier_of(barrier)});
}

static bool has_acquired(const pm_emu_fiber *thread, const void *map)
{
    for (uint32_t i = 0; i < thread->n_maps; i++)
        if (thread->maps[i] == map)
            return true;
    return false;
}

void pm_emu_tensor_map_acquire(const void *map)
{
    pm_emu_fiber *self = pm_emu_self();
    if (!map || (uintptr_t)map % 64 || ((const pm_emu_tensor_map *)map)->magic != PM_EMU_TENSOR_MAGIC)
        pm_emu_fault("%p is no tensor map", map);
    if (has_acquired(self, map))
        return;
    if (self->n_maps == PM_EMU_MOST_MAPS)
        pm_emu_fault("a thread takes more than %d tensor maps", PM_EMU_MOST_MAPS);
    self->maps[self->n_maps++] = map;
}

void pm_emu_tensor_load(void *shared, const void *map, int32_t x, int32_t y, int32_t z, uint64_t *barrier)
{
    const pm_emu_tensor_map *m = map;
    if (!has_acquired(pm_emu_self(), map))
        pm_emu_fault("a tile of the tensor map %p without pm_tma_acquire before it", map);
    if (pm_emu_shared_offset(shared) < 0 || (uintptr_t)shared % 128)
        pm_emu_fault("a tile to %p: not 128 aligned bytes of shared memory", shared);
    if ((int64_t)x * m->element_bytes % 16) // silicon takes any x: the player moves 16 bytes at a time
        pm_emu_fault("a tile from column %d: not a multiple of 16 bytes", x);
    send((pm_emu_bulk){.to = shared, .map = m, .x = x, .y = y, .z = z, .barrier = barrier_of(barrier),
                       .bytes = m->box[0] * m->box[1] * m->element_bytes});
}

bool pm_emu_tensor_map_make(pm_emu_tensor_map *out, const void *base, uint32_t element_bytes, const uint64_t extent[3],
                            const uint64_t stride[2], const uint32_t box[2], int32_t swizzle)
{
    uint64_t row = (uint64_t)box[0] * element_bytes;
    bool fits = (uintptr_t)base % 16 == 0 && stride[0] % 16 == 0 && stride[1] % 16 == 0 && extent[2] > 0 &&
                row % 16 == 0 && box[0] > 0 && box[0] <= 256 &&
                box[1] > 0 && box[1] <= 256 && extent[0] > 0 && extent[1] > 0 && swizzle >= 0 && swizzle <= 3 &&
                (swizzle == 0 || row <= 256u >> swizzle);
    *out = (pm_emu_tensor_map){PM_EMU_TENSOR_MAGIC, base, {extent[0], extent[1], extent[2]}, {stride[0], stride[1]},
                               {box[0], box[1]}, element_bytes, (uint32_t)swizzle, {0}};
    return fits;
}

bool pm_emu_land(pm_emu_player *p)
{
    if (p->n_bulks == 0)
        return false;
    pm_emu_bulk c = p->bulks[0];
    p->n_bulks--;
    memmove(p->bulks, p->bulks + 1, p->n_bulks * sizeof *p->bulks);
    p->now = c.thread;
    for (uint32_t i = 0; i < c.bytes / 16; i++) {
        const uint8_t *from;
        uint32_t valid;
        uint8_t *to = piece_of(&c, i, &from, &valid);
        memset(to, 0, 16);
        if (valid)
            memcpy(to, from, valid);
        pm_emu_tell(to, 16, PM_EMU_LANDS_BULK);
    }
    if (p->launch.watch)
        p->launch.watch->gave(c.barrier->at);
    c.barrier->bytes -= (int64_t)c.bytes;
    look(c.barrier);
    return true;
}

bool pm_emu_wake(pm_emu_player *p)
{
    bool any = false;
    for (uint32_t i = 0; i < p->launch.threads; i++) {
        pm_emu_fiber *f = &p->fibers[i];
        if (f->waits == PM_EMU_AT_PHASE && ((const pm_emu_barrier *)f->in)->phase != f->number) {
            f->waits = PM_EMU_RUNS;
            any = true;
        }
    }
    return any;
}
