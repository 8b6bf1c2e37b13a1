#include "runtime/device/emu_play.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STACK = 65536, PAGE = 4096 };

typedef void parameters_fn(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

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

static pm_emu_now now;
static pm_emu_watch watched;
static const pm_emu_launch *playing;
static void *main_stack;
static char *stacks;
static uint64_t words[PM_EMU_MAX_WORDS];
static played_thread threads[PM_EMU_MAX_THREADS];

const pm_emu_now *pm_emu_where(void)
{
    return &now;
}

_Noreturn void pm_emu_stop(const char *what)
{
    fprintf(stderr, "%s, block %ld, thread %d: %s\n", now.kernel, (long)now.block, now.thread, what);
    abort();
}

static void access(const void *at, int64_t bytes, bool writes)
{
    if (watched.access)
        watched.access(at, bytes, writes);
}

/* ---- turns ------------------------------------------------------------------------------------------------ */

/// Goes on with another stack, on which this function was called before.
void pm_emu_switch(void **save, void *load);
__asm__(".text\n"
        "pm_emu_switch:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n");

static played_thread *this_thread(void)
{
    return &threads[now.thread];
}

static void wait_as(wait_kind kind)
{
    played_thread *t = this_thread();
    t->waits = kind;
    pm_emu_switch(&t->stack_pointer, main_stack);
}

/// Words are what a call passes in registers and on the stack, so a kernel of fewer parameters can be given all.
static void run_kernel(void)
{
    if (!playing->parameters) {
        playing->function(words);
        return;
    }
#define W(i) words[i], words[i + 1], words[i + 2], words[i + 3], words[i + 4]
    ((parameters_fn *)(void (*)(void))playing->function)(W(0), W(5), W(10), W(15), W(20), W(25), W(30), W(35));
#undef W
}

static void run_thread(void)
{
    run_kernel();
    wait_as(ENDED);
}

/// Lets threads of a warp, or of the block, go on when all that haven't ended wait for the same.
static bool release(int first, int n, wait_kind kind)
{
    bool any = false;
    for (int i = first; i < first + n && i < now.n_threads; i++) {
        if (threads[i].waits == ENDED)
            continue;
        if (threads[i].waits != kind)
            return false;
        any = true;
    }
    for (int i = first; any && i < first + n && i < now.n_threads; i++)
        if (threads[i].waits == kind)
            threads[i].waits = RUNS;
    return any;
}

static void run_block(void)
{
    for (int i = 0; i < now.n_threads; i++) {
        void **top = (void **)(stacks + (size_t)(i + 1) * STACK - 64);
        *--top = NULL;
        *--top = (void *)(uintptr_t)run_thread;
        threads[i].stack_pointer = top - 6;
        threads[i].waits = RUNS;
        threads[i].n_copies = threads[i].group = 0;
    }
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        for (now.thread = 0; now.thread < now.n_threads; now.thread++)
            if (this_thread()->waits == RUNS)
                pm_emu_switch(&main_stack, this_thread()->stack_pointer);
        for (int i = 0; i < now.n_threads; i += PM_EMU_WARP) {
            bool met = release(i, PM_EMU_WARP, AT_WARP);
            now.warp_time[i / PM_EMU_WARP] += met;
            goes_on |= met || release(i, PM_EMU_WARP, AT_EXCHANGE);
        }
        bool met = !goes_on && release(0, now.n_threads, AT_BLOCK);
        now.block_time += met;
        goes_on |= met;
    }
    for (now.thread = 0; now.thread < now.n_threads; now.thread++)
        if (this_thread()->waits != ENDED)
            pm_emu_stop("waits for others that never come");
}

/* ---- shared memory ---------------------------------------------------------------------------------------- */

static uint8_t *add_shared(const void *key, uint64_t bytes)
{
    uint64_t room = (bytes + 15) / 16 * 16, pages = (room + PAGE - 1) / PAGE * PAGE;
    int i = now.n_shared++;
    if (i == PM_EMU_MAX_SHARED)
        pm_emu_stop("too much shared memory");
    now.shared[i].pages = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(now.shared[i].pages + pages, PAGE, PROT_NONE);
    now.shared[i].key = key;
    now.shared[i].bytes = pages;
    now.shared[i].start = now.shared[i].pages + pages - room;
    memset(now.shared[i].pages, 0xff, pages);
    return now.shared[i].start;
}

void *pm_emu_shared(const void *key, uint64_t bytes)
{
    for (int i = 1; i < now.n_shared; i++)
        if (now.shared[i].key == key)
            return now.shared[i].start;
    return add_shared(key, bytes);
}

void *pm_emu_dynamic_shared(void)
{
    return now.shared[0].start;
}

/* ---- what kernels ask for ---------------------------------------------------------------------------------- */

int64_t pm_emu_thread(void) { return now.thread; }
int64_t pm_emu_threads(void) { return now.n_threads; }
int64_t pm_emu_block(void) { return now.block; }
int64_t pm_emu_blocks(void) { return now.n_blocks; }
void pm_emu_sync(void) { wait_as(AT_BLOCK); }
void pm_emu_sync_warp(void) { wait_as(AT_WARP); }

/// Lane `lane` of this thread's warp.
static played_thread *lane_of_warp(int32_t lane)
{
    int i = now.thread / PM_EMU_WARP * PM_EMU_WARP + lane % PM_EMU_WARP;
    if (lane < 0 || i >= now.n_threads || threads[i].waits == ENDED)
        pm_emu_stop("asks a lane that isn't there");
    return &threads[i];
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
    for (int32_t i = 0; i < PM_EMU_WARP; i++)
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
        pm_emu_stop("an async copy isn't aligned");
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
    int lane = now.thread % PM_EMU_WARP;
    if ((uintptr_t)row % 16)
        pm_emu_stop("a matrix's row isn't aligned");
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

static float float_of(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } u = {bits};
    return u.value;
}

static uint32_t bits_of(float x)
{
    union {
        float value;
        uint32_t bits;
    } u = {x};
    return u.bits;
}

/// A small float of `mantissa` bits and an exponent of `bias`: without infinities when `finite` (e4m3).
static double small_float(uint32_t bits, int mantissa, int exponent, int bias, bool finite)
{
    uint32_t m = bits & ((1u << mantissa) - 1), e = bits >> mantissa & ((1u << exponent) - 1), top = (1u << exponent) - 1;
    double sign = bits >> (mantissa + exponent) & 1 ? -1 : 1, one = (double)(1u << mantissa);
    if (e == top && (!finite || m == (1u << mantissa) - 1))
        return m ? (double)float_of(0x7fc00000) : sign * (double)float_of(0x7f800000);
    double value = e ? 1 + m / one : m / one;
    for (int k = (int)(e ? e : 1) - bias; k > 0; k--)
        value *= 2;
    for (int k = (int)(e ? e : 1) - bias; k < 0; k++)
        value /= 2;
    return sign * value;
}

/// Element k of a fragment's register that holds 32 / bits of them.
static double element(uint32_t bits, int32_t kind, int32_t at)
{
    switch (kind) {
    case PM_EMU_MMA_BF16: return (double)float_of(bits >> 16 * at << 16);
    case PM_EMU_MMA_F16: return small_float(bits >> 16 * at & 0xffff, 10, 5, 15, false);
    case PM_EMU_MMA_S8: return (double)(int8_t)(bits >> 8 * at);
    default: return small_float(bits >> 8 * at & 0xff, 3, 4, 7, true);
    }
}

/* m16n8k16 of 16 bits and m16n8k32 of 8: a register holds `each` neighbours along k, four lanes a half of k. Sums in
 * f32, one product at a time. */
void pm_emu_mma(int32_t kind, void *d, const uint32_t *a, const uint32_t *b)
{
    int32_t lane = now.thread % PM_EMU_WARP, each = kind < PM_EMU_MMA_S8 ? 2 : 4;
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


int32_t pm_dev_shfl_xor_i32(int32_t x, int32_t lanes)
{
    return (int32_t)pm_emu_shfl((uint32_t)x, now.thread % PM_EMU_WARP ^ lanes);
}

float pm_dev_shfl_xor_f32(float x, int32_t lanes)
{
    return float_of(pm_emu_shfl(bits_of(x), now.thread % PM_EMU_WARP ^ lanes));
}

/* ---- launches ------------------------------------------------------------------------------------------------ */

/// Threads that never meet need no stacks: one after the other.
static void run_block_plainly(void)
{
    for (now.thread = 0; now.thread < now.n_threads; now.thread++)
        run_kernel();
}

static void forget_shared(void)
{
    for (int i = 0; i < now.n_shared; i++)
        munmap(now.shared[i].pages, now.shared[i].bytes + PAGE);
    now.n_shared = 0;
}

static bool take_stacks(void)
{
    if (stacks)
        return true;
    size_t bytes = (size_t)PM_EMU_MAX_THREADS * STACK;
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return false;
    now.stacks = stacks = pages;
    now.stacks_end = stacks + bytes;
    return true;
}

bool pm_emu_play(const pm_emu_launch *launch, const pm_emu_watch *watch)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one);
    playing = launch;
    watched = watch ? *watch : (pm_emu_watch){0};
    now.kernel = launch->kernel;
    now.n_threads = launch->threads;
    now.n_blocks = launch->blocks;
    if (launch->threads > PM_EMU_MAX_THREADS || launch->n_words > PM_EMU_MAX_WORDS ||
        (launch->parameters && launch->n_words > 40))
        pm_emu_stop("can't be played");
    memset(words, 0xab, sizeof words);
    memcpy(words, launch->words, (size_t)launch->n_words * 8);
    bool room = take_stacks();
    forget_shared();
    if (room)
        add_shared(NULL, launch->shared_bytes);
    for (now.block = 0; room && now.block < launch->blocks; now.block++) {
        now.block_time++;
        for (int i = 0; i < now.n_shared; i++)
            memset(now.shared[i].pages, 0xff, now.shared[i].bytes);
        if (watched.block)
            watched.block(now.block == 0);
        if (launch->meets)
            run_block();
        else
            run_block_plainly();
    }
    pthread_mutex_unlock(&one);
    return room;
}
