/* What the player of GPUs (runtime/device/emu_play.c) is watched for in tests. The
 * templates are compiled with calls at each access of memory (clang's -fsanitize=thread; here is what it calls): two
 * accesses of which one writes, by threads that nothing orders, end the test, as do threads that don't meet. Shared
 * memory holds no numbers at first, and ends before a page that can't be touched. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/emu_play.h"
#include "tests/cuda/cu_run.h"

static bool is_shared(uint64_t address)
{
    const pm_emu_now *now = pm_emu_where();
    for (int i = 0; i < now->n_shared; i++)
        if (address - (uint64_t)(uintptr_t)now->shared[i].pages < now->shared[i].bytes)
            return true;
    return false;
}

/* ---- who touched what ------------------------------------------------------------------------------------- */

/// Someone's last access.
typedef struct stamp {
    int64_t block; ///< -1: nobody's
    uint64_t block_time, warp_time;
    int32_t thread, warp; ///< -1: of several
} stamp;

typedef struct cell {
    uint64_t address, life;
    stamp write, read;
    bool is_shared;
} cell;

enum { CELLS = 1 << 21 };
static cell *cells;
static uint64_t life_of_launch, life_of_block, lives;

static cell *cell_of(uint64_t address)
{
    uint64_t at = (address >> 1) * 0x9e3779b97f4a7c15u >> 43;
    cell *c = &cells[at];
    while (c->life == (c->is_shared ? life_of_block : life_of_launch) && c->address != address)
        c = &cells[++at % CELLS];
    bool shared = is_shared(address);
    if (c->life != (shared ? life_of_block : life_of_launch) || c->address != address)
        *c = (cell){.address = address, .life = shared ? life_of_block : life_of_launch, .is_shared = shared,
                    .write = {.block = -1}, .read = {.block = -1}};
    return c;
}

/// Whether what the stamp says came before what this thread does now.
static bool is_before(const stamp *s)
{
    const pm_emu_now *gpu = pm_emu_where();
    if (s->block < 0 || (s->block == gpu->block && s->thread == gpu->thread))
        return true;
    if (s->block != gpu->block)
        return false;
    return s->block_time != gpu->block_time ||
           (s->warp == gpu->thread / PM_EMU_WARP && s->warp_time != gpu->warp_time[gpu->thread / PM_EMU_WARP]);
}

static void touch(uint64_t address, bool writes)
{
    const pm_emu_now *gpu = pm_emu_where();
    cell *c = cell_of(address);
    int warp = gpu->thread / PM_EMU_WARP;
    stamp now = {gpu->block, gpu->block_time, gpu->warp_time[warp], gpu->thread, warp};
    if (!is_before(&c->write))
        pm_emu_stop(writes ? "writes what another one writes" : "reads what another one writes");
    if (writes) {
        if (!is_before(&c->read))
            pm_emu_stop("writes what another one reads");
        c->write = now;
        return;
    }
    if (!is_before(&c->read)) { /* several readers: a write must come after all of them */
        if (c->read.block != now.block || c->read.warp != now.warp)
            now.warp = -1;
        now.thread = -1;
        now.block = c->read.block == gpu->block ? gpu->block : INT64_MAX;
    }
    c->read = now;
}

static void access(const void *at, int64_t bytes, bool writes)
{
    const char *p = at;
    const pm_emu_now *gpu = pm_emu_where();
    uint64_t first = (uint64_t)(uintptr_t)at;
    if (p >= gpu->stacks && p < gpu->stacks_end)
        return; /* its own */
    for (uint64_t a = first; a < first + (uint64_t)bytes; a += 4)
        touch(a, writes);
}

/* What clang calls. */
#define TOUCHES(n)                                                                                             \
    void __tsan_read##n(void *p) { access(p, n, false); }                                                      \
    void __tsan_write##n(void *p) { access(p, n, true); }                                                      \
    void __tsan_unaligned_read##n(void *p) { access(p, n, false); }                                            \
    void __tsan_unaligned_write##n(void *p) { access(p, n, true); }
TOUCHES(1)
TOUCHES(2)
TOUCHES(4)
TOUCHES(8)
TOUCHES(16)

void __tsan_init(void) {}
void __tsan_func_entry(void *from) { (void)from; }
void __tsan_func_exit(void) {}

void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    access(from, (int64_t)n, false);
    access(to, (int64_t)n, true);
    return memcpy(to, from, n);
}

void *__tsan_memset(void *to, int value, size_t n)
{
    access(to, (int64_t)n, true);
    return memset(to, value, n);
}

/* ---- launches ------------------------------------------------------------------------------------------------ */

static void begin_block(bool first)
{
    life_of_launch = first ? ++lives : life_of_launch;
    life_of_block = ++lives;
}

void cu_run(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    static const pm_emu_watch watch = {access, begin_block};
    pm_emu_launch launch = {.kernel = kernel, .function = (void (*)(const uint64_t *))(uintptr_t)dlsym(RTLD_DEFAULT, kernel), .parameters = true, .meets = true,
                            .threads = threads, .blocks = blocks, .shared_bytes = (uint64_t)shared_bytes, .words = words,
                            .n_words = (uint32_t)n};
    if (!cells)
        cells = calloc(CELLS, sizeof *cells);
    if (!launch.function || !cells || !pm_emu_play(&launch, &watch))
        pm_emu_stop("can't be played");
}
