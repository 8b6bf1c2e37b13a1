#include "runtime/device/emu_play.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/device/emu_state.h"
#include "runtime/rt_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)0)
#endif

/// Functions that are left for good by a switch of stacks: ThreadSanitizer, which counts who was entered and left, isn't
/// told of them.
#if defined(__SANITIZE_THREAD__)
#define LEFT_FOR_GOOD __attribute__((no_sanitize_thread))
#else
#define LEFT_FOR_GOOD
#endif

#ifndef __x86_64__
#error "the player switches stacks of x86-64"
#endif

enum {
    PAGE = 4096,
    STACK_OF_MANY = 256 << 10, ///< memory that isn't touched costs nothing
    STACK_OF_ONE = 8 << 20,    ///< kernels whose threads don't meet run one after the other on one stack
    SHARED_ROOM = 1 << 19,
};

_Thread_local pm_emu_player *pm_emu_now;

/// Words are what a call passes in registers and on the stack, so a kernel of fewer parameters can be given all.
#define FIVE uint64_t, uint64_t, uint64_t, uint64_t, uint64_t
typedef void parameters_fn(FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, FIVE, FIVE);
#undef FIVE

/// ---- turns ----------------------------------------------------------------------------------------------------

/// Saves this stack's pointer and goes on with another stack, on which this function was called before.
void pm_emu_switch(void **save, void *load);
__asm__(".text\n"
        ".type pm_emu_switch, @function\n"
        ".hidden pm_emu_switch\n"
        "pm_emu_switch:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n"
        ".size pm_emu_switch, .-pm_emu_switch\n");

LEFT_FOR_GOOD void pm_emu_pause(pm_emu_wait wait)
{
    pm_emu_player *p = pm_emu_now;
    if (!p->launch.meets && wait != PM_EMU_ENDED)
        pm_emu_fault("threads meet, but the kernel was not said to be one whose threads do");
    pm_emu_fiber *self = pm_emu_self();
    self->waits = wait;
    pm_emu_switch(&self->stack_pointer, p->main_stack);
}

static void say(pm_emu_player *p, uint32_t thread, const char *format, va_list list)
{
    int n = snprintf(p->error, sizeof p->error, "kernel %s, block %llu, thread %u: ", p->launch.name,
                     (unsigned long long)p->block, thread);
    vsnprintf(p->error + n, sizeof p->error - (size_t)n, format, list);
}

void pm_emu_note(uint32_t thread, const char *format, ...)
{
    pm_emu_player *p = pm_emu_now;
    va_list list;
    va_start(list, format);
    say(p, thread, format, list);
    va_end(list);
}

_Noreturn void pm_emu_fault(const char *format, ...)
{
    pm_emu_player *p = pm_emu_now;
    va_list list;
    va_start(list, format);
    say(p, p->now, format, list);
    va_end(list);
    if (p->in_scheduler)
        longjmp(p->scheduler, 1);
    void *never;
    pm_emu_switch(&never, p->main_stack); // nobody comes back: kernels own nothing that had to be given up
    abort();
}

static void run_thread(const pm_emu_player *p)
{
    if (!p->launch.parameters) {
        p->launch.kernel(p->launch.words);
        return;
    }
#define W(i) p->words[i], p->words[i + 1], p->words[i + 2], p->words[i + 3], p->words[i + 4]
    ((parameters_fn *)(void (*)(void))p->launch.kernel)(W(0), W(5), W(10), W(15), W(20), W(25), W(30), W(35),
                                                             W(40));
#undef W
}

static LEFT_FOR_GOOD void run_fiber(void)
{
    pm_emu_player *p = pm_emu_now;
    if (p->launch.meets)
        run_thread(p);
    else
        for (p->now = 0; p->now < p->launch.threads; p->now++) {
            pm_emu_self()->n_copies = pm_emu_self()->group = 0;
            run_thread(p);
        }
    if (p->launch.meets && pm_emu_self()->n_products)
        pm_emu_fault("ends while products of its warpgroup are on their way");
    p->now = p->launch.meets ? p->now : 0;
    pm_emu_pause(PM_EMU_ENDED);
    abort();
}

/// Those that nobody waited for, and what else a thread has.
static void drop_products(pm_emu_fiber *f)
{
    for (int32_t i = 0; i < f->n_products; i++)
        free(f->products[i].sum);
    f->n_products = f->product_group = 0;
    f->fenced = false;
    f->n_maps = 0;
}

static void start_fiber(pm_emu_player *p, uint32_t i)
{
    void **top = (void **)(void *)(p->stacks + (i + 1) * p->stack_size - 64);
    *--top = NULL;
    *--top = (void *)(uintptr_t)run_fiber;
    pm_emu_fiber *f = &p->fibers[i];
    f->stack_pointer = top - 6;
    memset(f->stack_pointer, 0, 6 * sizeof *top);
    f->waits = PM_EMU_RUNS;
    f->n_copies = f->group = 0;
    drop_products(f);
}

/// ---- barriers ---------------------------------------------------------------------------------------------------

static const char *words_of(pm_emu_wait wait)
{
    static const char *const words[] = {
        [PM_EMU_RUNS] = "runs",
        [PM_EMU_AT_BLOCK] = "waits at a barrier of the block",
        [PM_EMU_AT_WARP] = "waits at a barrier of its warp",
        [PM_EMU_AT_EXCHANGE] = "shows its warp a value",
        [PM_EMU_AT_PHASE] = "waits for a phase of a barrier in shared memory",
        [PM_EMU_ENDED] = "has ended",
    };
    return words[wait];
}

/// Carries out what the lanes of a warp came together for. False: not all are there.
static bool meet_warp(pm_emu_player *p, uint32_t first)
{
    pm_emu_fiber *lanes = &p->fibers[first];
    if ((lanes->waits != PM_EMU_AT_WARP && lanes->waits != PM_EMU_AT_EXCHANGE) || p->launch.threads - first < PM_EMU_WARP)
        return false;
    for (uint32_t i = 1; i < PM_EMU_WARP; i++)
        if (lanes[i].waits != lanes->waits ||
            (lanes->waits == PM_EMU_AT_EXCHANGE && lanes[i].exchange != lanes->exchange))
            return false;
    if (lanes->waits == PM_EMU_AT_EXCHANGE) {
        p->now = first;
        p->in_scheduler = true;
        if (!setjmp(p->scheduler))
            pm_emu_carry_out(lanes);
        p->in_scheduler = false;
    } else if (p->launch.watch) {
        p->launch.watch->met(first, PM_EMU_WARP);
    }
    for (uint32_t i = 0; i < PM_EMU_WARP; i++)
        lanes[i].waits = PM_EMU_RUNS;
    return true;
}

static bool meet_block(pm_emu_player *p)
{
    for (uint32_t i = 0; i < p->launch.threads; i++)
        if (p->fibers[i].waits != PM_EMU_AT_BLOCK)
            return false;
    // Only tests' code is compiled so that each barrier stays one.
    for (uint32_t i = 1; p->launch.watch && i < p->launch.threads; i++)
        if (p->fibers[i].place != p->fibers[0].place) {
            pm_emu_note(i, "waits at another barrier of the block than thread 0");
            return false;
        }
    if (p->launch.watch)
        p->launch.watch->met(0, p->launch.threads);
    for (uint32_t i = 0; i < p->launch.threads; i++)
        p->fibers[i].waits = PM_EMU_RUNS;
    return true;
}

/// Nobody can go on: done, or a fault. Says which two threads disagree, in one warp if possible.
static void judge(pm_emu_player *p)
{
    bool done = true;
    for (uint32_t i = 0; i < p->launch.threads; i++)
        done &= p->fibers[i].waits == PM_EMU_ENDED;
    if (done || p->error[0])
        return;
    for (uint32_t i = 1; i < p->launch.threads; i++) {
        const pm_emu_fiber *a = &p->fibers[i - 1], *b = &p->fibers[i];
        bool in_warp = i % PM_EMU_WARP != 0;
        if (a->waits != b->waits) {
            pm_emu_note(i, "%s, while thread %u %s: they don't meet", words_of(b->waits), i - 1, words_of(a->waits));
            return;
        }
        if (in_warp && a->waits == PM_EMU_AT_EXCHANGE && a->exchange != b->exchange) {
            pm_emu_note(i, "shows its warp something else than thread %u: they don't meet", i - 1);
            return;
        }
    }
    pm_emu_note(0, "%s that never ends", words_of(p->fibers[0].waits));
}

static bool run_warp(pm_emu_player *p, uint32_t first)
{
    bool any = false, again = true;
    uint32_t end = first + PM_EMU_WARP < p->launch.threads ? first + PM_EMU_WARP : p->launch.threads;
    while (again && !p->error[0]) {
        again = false;
        for (p->now = first; p->now < end && !p->error[0]; p->now++)
            if (p->fibers[p->now].waits == PM_EMU_RUNS) {
                pm_emu_switch(&p->main_stack, p->fibers[p->now].stack_pointer);
                again = true;
            }
        again = !p->error[0] && meet_warp(p, first);
        any |= again;
    }
    return any;
}

/// The watch may find a fault in it.
static bool land(pm_emu_player *p)
{
    bool landed = true;
    p->in_scheduler = true;
    if (!setjmp(p->scheduler))
        landed = pm_emu_land(p);
    p->in_scheduler = false;
    return landed && !p->error[0];
}

static void run_block(pm_emu_player *p)
{
    for (uint32_t i = 0; i < p->n_pieces; i++)
        memset(p->shared + p->pieces[i].offset, 0xff, p->pieces[i].size);
    p->n_barriers = p->n_bulks = 0;
    if (p->launch.watch)
        p->launch.watch->block();
    if (!p->launch.meets) {
        p->now = 0;
        start_fiber(p, 0);
        pm_emu_switch(&p->main_stack, p->fibers[0].stack_pointer);
        return;
    }
    for (uint32_t i = 0; i < p->launch.threads; i++)
        start_fiber(p, i);
    do
        for (uint32_t i = 0; i < p->launch.threads && !p->error[0]; i += PM_EMU_WARP)
            run_warp(p, i);
    while (!p->error[0] && (meet_block(p) || pm_emu_wake(p) || (!p->error[0] && land(p))));
    if (!p->error[0])
        judge(p);
}

/// ---- shared memory ------------------------------------------------------------------------------------------------

static void *add_piece(pm_emu_player *p, const void *key, uint64_t size)
{
    uint64_t offset = (p->shared_end + PM_EMU_GAP + 1023) / 1024 * 1024 + 16; // aligned to 16 bytes, and no more
    p->shared_used += (size + 15) / 16 * 16;
    if (p->n_pieces == PM_EMU_MOST_PIECES || size > SHARED_ROOM || p->shared_used > PM_EMU_MOST_SHARED ||
        offset + size > SHARED_ROOM)
        return NULL;
    p->pieces[p->n_pieces++] = (pm_emu_piece){key, offset, size};
    p->shared_end = offset + size;
    memset(p->shared + offset, 0xff, size);
    return p->shared + offset;
}

void *pm_emu_shared(const void *key, uint64_t bytes)
{
    pm_emu_player *p = pm_emu_now;
    for (uint32_t i = 1; i < p->n_pieces; i++)
        if (p->pieces[i].key == key)
            return p->shared + p->pieces[i].offset;
    void *piece = add_piece(p, key, bytes);
    if (!piece)
        pm_emu_fault("asks for more shared memory than a block has");
    return piece;
}

void *pm_emu_dynamic_shared(void)
{
    return pm_emu_now->shared + pm_emu_now->pieces[0].offset;
}

bool pm_emu_shared_piece(const void *at, uint32_t *out_number, const uint8_t **out_start, uint64_t *out_size)
{
    const pm_emu_player *p = pm_emu_now;
    int64_t offset = pm_emu_shared_offset(at);
    for (uint32_t i = 0; i < p->n_pieces && offset >= 0; i++)
        if ((uint64_t)offset - p->pieces[i].offset < p->pieces[i].size) {
            *out_number = i;
            *out_start = p->shared + p->pieces[i].offset;
            *out_size = p->pieces[i].size;
            return true;
        }
    return false;
}

int64_t pm_emu_shared_offset(const void *at)
{
    uintptr_t offset = (uintptr_t)at - (uintptr_t)pm_emu_now->shared;
    return offset < SHARED_ROOM ? (int64_t)offset : -1;
}

/// ---- what kernels ask -----------------------------------------------------------------------------------------------

bool pm_emu_is_playing(void)
{
    return pm_emu_now != NULL;
}

bool pm_emu_is_own(const void *at)
{
    const pm_emu_player *p = pm_emu_now;
    uint32_t i = p->launch.meets ? p->now : 0;
    return (uintptr_t)at - (uintptr_t)(p->stacks + i * p->stack_size) < p->stack_size;
}

int64_t pm_emu_thread(void)
{
    return pm_emu_now->now;
}

int64_t pm_emu_threads(void)
{
    return pm_emu_now->launch.threads;
}

int64_t pm_emu_block(void)
{
    return (int64_t)pm_emu_now->block;
}

int64_t pm_emu_blocks(void)
{
    return (int64_t)pm_emu_now->launch.blocks;
}

void pm_emu_sync(void)
{
    pm_emu_self()->place = __builtin_return_address(0);
    pm_emu_pause(PM_EMU_AT_BLOCK);
}

void pm_emu_sync_warp(void)
{
    pm_emu_pause(PM_EMU_AT_WARP);
}

/// ---- launches -------------------------------------------------------------------------------------------------------

static void *map(uint64_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void end(pm_emu_player *p)
{
    for (uint32_t i = 0; p->fibers && i < p->launch.threads; i++) {
        drop_products(&p->fibers[i]);
        free(p->fibers[i].copies);
    }
    free(p->fibers);
    if (p->stacks && p->error[0]) // functions that were left in their middle have marked their variables' ends
        ASAN_UNPOISON_MEMORY_REGION(p->stacks, p->stacks_size);
    if (p->stacks)
        munmap(p->stacks, p->stacks_size);
    if (p->shared)
        munmap(p->shared, SHARED_ROOM);
}

static bool begin(pm_emu_player *p)
{
    uint32_t n = p->launch.meets ? p->launch.threads : 1;
    p->stack_size = p->launch.meets ? STACK_OF_MANY : STACK_OF_ONE;
    p->stacks_size = n * p->stack_size;
    p->fibers = calloc(p->launch.threads, sizeof *p->fibers);
    p->stacks = map(p->stacks_size);
    p->shared = map(SHARED_ROOM);
    if (!p->fibers || !p->stacks || !p->shared)
        return false;
    for (uint32_t i = 0; i < n; i++) // a stack that overflows ends the program instead of spoiling a neighbour's
        mprotect(p->stacks + i * p->stack_size, PAGE, PROT_NONE);
    return true;
}

pm_status pm_emu_play(const pm_emu_launch *launch)
{
    pm_emu_player player = {.launch = *launch}, *p = &player, *before = pm_emu_now;
    if (launch->parameters && launch->n_words > PM_EMU_MOST_PARAMETERS)
        return pm_rt_error_set(PM_ERR_INTERNAL, "kernel %s: %zu parameters", launch->name, launch->n_words);
    if (launch->parameters)
        memcpy(p->words, launch->words, launch->n_words * sizeof *p->words);
    if (launch->threads == 0 || launch->threads > PM_EMU_MOST_THREADS)
        return pm_rt_error_set(PM_ERR_INTERNAL, "kernel %s: blocks of %u threads", launch->name, launch->threads);
    if (!begin(p)) {
        end(p);
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "kernel %s: no memory for the threads' stacks", launch->name);
    }
    pm_emu_now = p;
    if (!add_piece(p, NULL, launch->shared_bytes))
        pm_emu_note(0, "%u bytes of dynamic shared memory are more than a block has", launch->shared_bytes);
    for (p->block = 0; p->block < launch->blocks && !p->error[0]; p->block++) {
        run_block(p);
        if (p->error[0])
            break;
    }
    pm_emu_now = before;
    pm_status status = p->error[0] ? pm_rt_error_set(PM_ERR_INTERNAL, "%s", p->error) : PM_OK;
    end(p);
    return status;
}
