/* A GPU that the CPU plays for tests: threads of a block take turns on stacks of their own and meet at barriers. The
 * templates are compiled with calls at each access of memory (clang's -fsanitize=thread; here is what it calls): two
 * accesses of which one writes, by threads that nothing orders, end the test, as do threads that don't meet. Shared
 * memory holds no numbers at first, and ends before a page that can't be touched. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PM_EMU
#include "codegen/cuda/kernels/cuda_kernel.h"
#include "tests/cuda/cu_run.h"

enum { WARP = 32, MAX_THREADS = 1024, STACK = 65536, PAGE = 4096, MAX_WORDS = 40, MAX_SHARED = 16 };

/// Why a thread doesn't run.
typedef enum wait_kind { RUNS, AT_BLOCK, AT_WARP, AT_EXCHANGE, ENDED } wait_kind;

typedef struct copy {
    void *to;
    const void *from;
    int32_t valid, group;
} copy;

typedef struct played_thread {
    void *stack_pointer;
    wait_kind waits;
    uint32_t slot, a[4], b[2]; ///< what it shows to its warp
    const void *row;
    copy *copies;
    int32_t n_copies, copy_room, group;
} played_thread;

static struct {
    const char *kernel;
    void *function, *main_stack;
    uint64_t words[MAX_WORDS];
    played_thread threads[MAX_THREADS];
    char *stacks;
    int n_threads, now;
    int64_t block, n_blocks;
    struct {
        const void *key;
        uint8_t *start, *pages;
        uint64_t bytes;
    } shared[MAX_SHARED]; ///< the first: dynamic
    int n_shared;
    /* barriers that were passed: of the block (in all), of each warp */
    uint64_t block_time, warp_time[MAX_THREADS / WARP];
} gpu;

static _Noreturn void stop(const char *what)
{
    fprintf(stderr, "%s, block %ld, thread %d: %s\n", gpu.kernel, (long)gpu.block, gpu.now, what);
    abort();
}

/* ---- turns ------------------------------------------------------------------------------------------------ */

/// Goes on with another stack, on which this function was called before.
void cu_switch(void **save, void *load);
__asm__(".text\n"
        "cu_switch:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n");

static played_thread *this_thread(void)
{
    return &gpu.threads[gpu.now];
}

static void wait_as(wait_kind kind)
{
    played_thread *t = this_thread();
    t->waits = kind;
    cu_switch(&t->stack_pointer, gpu.main_stack);
}

/// Words are what a call passes in registers and on the stack, so a kernel of fewer parameters can be given all.
static void run_thread(void)
{
#define W(i) gpu.words[i], gpu.words[i + 1], gpu.words[i + 2], gpu.words[i + 3]
#define T uint64_t, uint64_t, uint64_t, uint64_t
    ((void (*)(T, T, T, T, T, T, T, T, T, T))gpu.function)(W(0), W(4), W(8), W(12), W(16), W(20), W(24), W(28), W(32),
                                                           W(36));
#undef W
#undef T
    wait_as(ENDED);
}

/// Lets threads of a warp, or of the block, go on when all that haven't ended wait for the same.
static bool release(int first, int n, wait_kind kind)
{
    bool any = false;
    for (int i = first; i < first + n && i < gpu.n_threads; i++) {
        if (gpu.threads[i].waits == ENDED)
            continue;
        if (gpu.threads[i].waits != kind)
            return false;
        any = true;
    }
    for (int i = first; any && i < first + n && i < gpu.n_threads; i++)
        if (gpu.threads[i].waits == kind)
            gpu.threads[i].waits = RUNS;
    return any;
}

static void run_block(void)
{
    for (int i = 0; i < gpu.n_threads; i++) {
        void **top = (void **)(gpu.stacks + (size_t)(i + 1) * STACK - 64);
        *--top = NULL;
        *--top = (void *)run_thread;
        gpu.threads[i].stack_pointer = top - 6;
        gpu.threads[i].waits = RUNS;
        gpu.threads[i].n_copies = gpu.threads[i].group = 0;
    }
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        for (gpu.now = 0; gpu.now < gpu.n_threads; gpu.now++)
            if (this_thread()->waits == RUNS)
                cu_switch(&gpu.main_stack, this_thread()->stack_pointer);
        for (int i = 0; i < gpu.n_threads; i += WARP) {
            bool met = release(i, WARP, AT_WARP);
            gpu.warp_time[i / WARP] += met;
            goes_on |= met || release(i, WARP, AT_EXCHANGE);
        }
        bool met = !goes_on && release(0, gpu.n_threads, AT_BLOCK);
        gpu.block_time += met;
        goes_on |= met;
    }
    for (gpu.now = 0; gpu.now < gpu.n_threads; gpu.now++)
        if (this_thread()->waits != ENDED)
            stop("waits for others that never come");
}

/* ---- shared memory ---------------------------------------------------------------------------------------- */

static uint8_t *add_shared(const void *key, uint64_t bytes)
{
    uint64_t room = (bytes + 15) / 16 * 16, pages = (room + PAGE - 1) / PAGE * PAGE;
    int i = gpu.n_shared++;
    if (i == MAX_SHARED)
        stop("too much shared memory");
    gpu.shared[i].pages = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(gpu.shared[i].pages + pages, PAGE, PROT_NONE);
    gpu.shared[i].key = key;
    gpu.shared[i].bytes = pages;
    gpu.shared[i].start = gpu.shared[i].pages + pages - room;
    memset(gpu.shared[i].pages, 0xff, pages);
    return gpu.shared[i].start;
}

static bool is_shared(uint64_t address)
{
    for (int i = 0; i < gpu.n_shared; i++)
        if (address - (uint64_t)(uintptr_t)gpu.shared[i].pages < gpu.shared[i].bytes)
            return true;
    return false;
}

void *pm_emu_shared(const void *key, uint64_t bytes)
{
    for (int i = 1; i < gpu.n_shared; i++)
        if (gpu.shared[i].key == key)
            return gpu.shared[i].start;
    return add_shared(key, bytes);
}

void *pm_emu_dynamic_shared(void)
{
    return gpu.shared[0].start;
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
    if (s->block < 0 || (s->block == gpu.block && s->thread == gpu.now))
        return true;
    if (s->block != gpu.block)
        return false;
    return s->block_time != gpu.block_time ||
           (s->warp == gpu.now / WARP && s->warp_time != gpu.warp_time[gpu.now / WARP]);
}

static void touch(uint64_t address, bool writes)
{
    cell *c = cell_of(address);
    int warp = gpu.now / WARP;
    stamp now = {gpu.block, gpu.block_time, gpu.warp_time[warp], gpu.now, warp};
    if (!is_before(&c->write))
        stop(writes ? "writes what another one writes" : "reads what another one writes");
    if (writes) {
        if (!is_before(&c->read))
            stop("writes what another one reads");
        c->write = now;
        return;
    }
    if (!is_before(&c->read)) { /* several readers: a write must come after all of them */
        if (c->read.block != now.block || c->read.warp != now.warp)
            now.warp = -1;
        now.thread = -1;
        now.block = c->read.block == gpu.block ? gpu.block : INT64_MAX;
    }
    c->read = now;
}

static void access(const void *at, int64_t bytes, bool writes)
{
    const char *p = at;
    uint64_t first = (uint64_t)(uintptr_t)at;
    if (p >= gpu.stacks && p < gpu.stacks + (size_t)MAX_THREADS * STACK)
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

/* ---- what kernels ask for ---------------------------------------------------------------------------------- */

int64_t pm_emu_thread(void) { return gpu.now; }
int64_t pm_emu_threads(void) { return gpu.n_threads; }
int64_t pm_emu_block(void) { return gpu.block; }
int64_t pm_emu_blocks(void) { return gpu.n_blocks; }
void pm_emu_sync(void) { wait_as(AT_BLOCK); }
void pm_emu_sync_warp(void) { wait_as(AT_WARP); }

/// Lane `lane` of this thread's warp.
static played_thread *lane_of_warp(int32_t lane)
{
    int i = gpu.now / WARP * WARP + lane % WARP;
    if (lane < 0 || i >= gpu.n_threads || gpu.threads[i].waits == ENDED)
        stop("asks a lane that isn't there");
    return &gpu.threads[i];
}

uint32_t pm_emu_shfl(uint32_t x, int32_t lane)
{
    this_thread()->slot = x;
    wait_as(AT_EXCHANGE);
    x = lane_of_warp(lane)->slot;
    wait_as(AT_EXCHANGE);
    return x;
}

uint32_t pm_emu_ballot(int32_t condition)
{
    uint32_t all = 0;
    this_thread()->slot = condition != 0;
    wait_as(AT_EXCHANGE);
    for (int32_t i = 0; i < WARP; i++)
        all |= lane_of_warp(i)->slot << i;
    wait_as(AT_EXCHANGE);
    return all;
}

int32_t pm_emu_atomic_add(int32_t *at, int32_t x)
{
    int32_t before = *at;
    *at += x;
    return before;
}

void pm_emu_fail(int32_t *status, int64_t mark)
{
    *status = *status ? *status : (int32_t)mark;
}

/* ---- copies that go on beside: nothing arrives before it is waited for -------------------------------------- */

void pm_emu_cp_async16(void *shared, const void *global, int32_t valid_bytes)
{
    played_thread *t = this_thread();
    if ((uintptr_t)shared % 16 || (valid_bytes && (uintptr_t)global % 16) || valid_bytes < 0 || valid_bytes > 16)
        stop("an async copy isn't aligned");
    if (t->n_copies == t->copy_room) {
        t->copy_room = 2 * t->copy_room + 8;
        t->copies = realloc(t->copies, (size_t)t->copy_room * sizeof *t->copies);
    }
    t->copies[t->n_copies++] = (copy){shared, global, valid_bytes, t->group};
}

void pm_emu_cp_async_commit(void)
{
    this_thread()->group++;
}

void pm_emu_cp_async_wait(int32_t groups)
{
    played_thread *t = this_thread();
    int32_t n = 0;
    for (int32_t i = 0; i < t->n_copies; i++) {
        copy c = t->copies[i];
        if (c.group >= t->group - groups) {
            t->copies[n++] = c;
            continue;
        }
        access(c.from, c.valid, false);
        access(c.to, 16, true);
        memset(c.to, 0, 16);
        memcpy(c.to, c.from, (size_t)c.valid);
    }
    t->n_copies = n;
}

/* ---- matrices ------------------------------------------------------------------------------------------------ */

void pm_emu_ldmatrix(uint32_t *r, const void *row, int32_t is_turned)
{
    int lane = gpu.now % WARP;
    if ((uintptr_t)row % 16)
        stop("a matrix's row isn't aligned");
    this_thread()->row = row;
    access(row, 16, false);
    wait_as(AT_EXCHANGE);
    for (int32_t m = 0; m < 4; m++) {
        uint32_t pair[2];
        for (int32_t i = 0; i < 2; i++) {
            int32_t from = is_turned ? lane % 4 * 2 + i : lane / 4, at = is_turned ? lane / 4 : lane % 4 * 2 + i;
            pair[i] = ((const uint16_t *)lane_of_warp(m * 8 + from)->row)[at];
        }
        r[m] = pair[0] | pair[1] << 16;
    }
    wait_as(AT_EXCHANGE);
}

/// Element k of a fragment's register that holds 32 / bits of them.
static double element(uint32_t bits, int32_t kind, int32_t at)
{
    switch (kind) {
    case PM_EMU_MMA_BF16: return (double)pm_f32_of_bf16((uint16_t)(bits >> 16 * at));
    case PM_EMU_MMA_F16: return (double)pm_f32_of_f16((uint16_t)(bits >> 16 * at));
    case PM_EMU_MMA_S8: return (double)(int8_t)(bits >> 8 * at);
    default: return (double)pm_f32_of_e4m3((uint8_t)(bits >> 8 * at));
    }
}

/* m16n8k16 of 16 bits and m16n8k32 of 8: a register holds `each` neighbours along k, four lanes a half of k. Sums in
 * f32, one product at a time. */
void pm_emu_mma(int32_t kind, void *d, const uint32_t *a, const uint32_t *b)
{
    int32_t lane = gpu.now % WARP, each = kind < PM_EMU_MMA_S8 ? 2 : 4;
    memcpy(this_thread()->a, a, sizeof this_thread()->a);
    memcpy(this_thread()->b, b, sizeof this_thread()->b);
    wait_as(AT_EXCHANGE);
    for (int32_t i = 0; i < 4; i++) {
        int32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = kind == PM_EMU_MMA_S8 ? 0.0f : ((float *)d)[i];
        int32_t integers = 0;
        for (int32_t k = 0; k < 8 * each; k++) {
            int32_t half = k / (4 * each), quarter = k % (4 * each) / each;
            double x = element(lane_of_warp(row % 8 * 4 + quarter)->a[row / 8 + 2 * half], kind, k % each);
            double y = element(lane_of_warp(column * 4 + quarter)->b[half], kind, k % each);
            if (kind == PM_EMU_MMA_S8)
                integers += (int32_t)(x * y);
            else
                sum += (float)(x * y);
        }
        if (kind == PM_EMU_MMA_S8)
            ((int32_t *)d)[i] += integers;
        else
            ((float *)d)[i] = sum;
    }
    wait_as(AT_EXCHANGE);
}

/* ---- launches ------------------------------------------------------------------------------------------------ */

void cu_run(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    gpu.kernel = kernel;
    gpu.function = dlsym(RTLD_DEFAULT, kernel);
    if (!gpu.function || threads > MAX_THREADS || n > MAX_WORDS)
        stop("can't be played");
    if (!gpu.stacks) {
        gpu.stacks = mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cells = calloc(CELLS, sizeof *cells);
    }
    memset(gpu.words, 0xab, sizeof gpu.words);
    memcpy(gpu.words, words, (size_t)n * 8);
    gpu.n_threads = threads;
    gpu.n_blocks = blocks;
    for (int i = 0; i < gpu.n_shared; i++)
        munmap(gpu.shared[i].pages, gpu.shared[i].bytes + PAGE);
    gpu.n_shared = 0;
    add_shared(NULL, (uint64_t)shared_bytes);
    life_of_launch = ++lives;
    for (gpu.block = 0; gpu.block < blocks; gpu.block++) {
        life_of_block = ++lives;
        gpu.block_time++;
        for (int i = 0; i < gpu.n_shared; i++)
            memset(gpu.shared[i].pages, 0xff, gpu.shared[i].bytes);
        run_block();
    }
}
