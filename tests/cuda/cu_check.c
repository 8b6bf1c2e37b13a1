#include "tests/cuda/cu_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/kernels/kernel_test.h"

/* ---- who knows of whom ------------------------------------------------------------------------------------------
 * A thread's accesses carry its time, which goes up whenever it lets others know of them. known[t][u]: accesses of u up
 * to this time came before what t does now. */

enum { MOST = PM_EMU_MOST_THREADS, MOST_BARRIERS = 64, WARP = PM_EMU_WARP };

typedef struct barrier_knowledge {
    const void *barrier;
    uint32_t known[MOST];
} barrier_knowledge;

static uint32_t now, launch_start, block_start, threads;
static uint32_t times[MOST], fences[MOST], (*known)[MOST]; ///< fences: what came up to this time is behind one
static barrier_knowledge barriers[MOST_BARRIERS];
static uint32_t n_barriers;

/* ---- who touched what ---------------------------------------------------------------------------------------------- */

/// The last accesses to a byte. Readers of one warp in shared memory (of a block elsewhere) are put together when there
/// are several: then all of them count as having read at the latest time.
typedef struct reader {
    uint32_t time;
    uint16_t thread; ///< SEVERAL
} reader;

enum { SEVERAL = 0xffff };

typedef struct cell {
    uint32_t write_time;
    uint16_t writer;
    uint8_t adds, comes; ///< the write was atomic; an async copy is on its way, or (BULK) came by the async proxy
} cell;

enum { COMES = 1, BULK = 2 };
enum { SHARED_ROOM = 1 << 19, CELLS = 1 << 21 };

/// Four bytes of global memory, found by their address.
typedef struct global_cell {
    uintptr_t word;
    uint32_t launch;
    cell bytes[4];
    reader readers[4];
} global_cell;

static cell *shared_cells;
static reader *shared_readers; ///< [byte][warp]
static global_cell *global_cells;

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

void cu_check_begin(uint32_t n)
{
    if (!known) {
        known = map(sizeof *known * MOST);
        shared_cells = map(sizeof *shared_cells * SHARED_ROOM);
        shared_readers = map(sizeof *shared_readers * SHARED_ROOM * (MOST / WARP));
        global_cells = map(sizeof *global_cells * CELLS);
    }
    threads = n;
    launch_start = ++now;
}

static void begin_block(void)
{
    block_start = ++now;
    n_barriers = 0;
    for (uint32_t t = 0; t < threads; t++) {
        times[t] = block_start;
        fences[t] = block_start - 1;
        for (uint32_t u = 0; u < threads; u++)
            known[t][u] = block_start - 1;
    }
}

static void met(uint32_t first, uint32_t n)
{
    uint32_t *all = known[first];
    for (uint32_t t = first + 1; t < first + n; t++)
        for (uint32_t u = 0; u < threads; u++)
            all[u] = all[u] > known[t][u] ? all[u] : known[t][u];
    for (uint32_t t = first; t < first + n; t++)
        all[t] = times[t];
    now++;
    for (uint32_t t = first; t < first + n; t++) {
        if (t != first)
            memcpy(known[t], all, threads * sizeof *all);
        times[t] = now;
    }
}

static barrier_knowledge *knowledge_of(const void *barrier)
{
    for (uint32_t i = 0; i < n_barriers; i++)
        if (barriers[i].barrier == barrier)
            return &barriers[i];
    if (n_barriers == MOST_BARRIERS)
        pm_emu_fault("more barriers in shared memory than the check knows");
    barriers[n_barriers] = (barrier_knowledge){.barrier = barrier};
    return &barriers[n_barriers++];
}

static void gave(const void *barrier)
{
    uint32_t t = (uint32_t)pm_emu_thread(), *b = knowledge_of(barrier)->known;
    for (uint32_t u = 0; u < threads; u++)
        b[u] = b[u] > known[t][u] ? b[u] : known[t][u];
    b[t] = times[t];
    times[t] = ++now;
}

static void fenced(void)
{
    uint32_t t = (uint32_t)pm_emu_thread();
    fences[t] = times[t];
    times[t] = ++now;
}

static void took(const void *barrier)
{
    uint32_t t = (uint32_t)pm_emu_thread();
    const uint32_t *b = knowledge_of(barrier)->known;
    for (uint32_t u = 0; u < threads; u++)
        known[t][u] = b[u] > known[t][u] ? b[u] : known[t][u];
}

/// Whether an access of `thread` at `time` (SEVERAL: of any from first to end) came before what thread `t` does now.
/// `start`: since when accesses count, the launch's start or (shared memory) the block's.
static inline bool is_before(uint32_t start, uint32_t time, uint32_t thread, uint32_t first, uint32_t end, uint32_t t)
{
    if (time < start)
        return true;
    if (time < block_start)
        return false; // another block's
    if (thread != SEVERAL)
        return thread == t || known[t][thread] >= time;
    for (uint32_t u = first; u < end; u++)
        if (known[t][u] < time)
            return false;
    return true;
}

/* ---- accesses ---------------------------------------------------------------------------------------------------------- */

static const char *words_of(pm_emu_how how)
{
    static const char *const words[] = {"reads", "writes", "adds to", "sends an async copy to", "gets an async copy in",
                                        "gets a bulk copy in", "multiplies"};
    return words[how];
}

/// Where it is, for messages.
typedef struct where {
    char text[96];
} where;

static where place_of(const void *at)
{
    where w;
    uint32_t number;
    const uint8_t *start;
    uint64_t size;
    const void *buffer;
    int64_t bytes;
    if (pm_emu_shared_piece(at, &number, &start, &size))
        snprintf(w.text, sizeof w.text, number ? "byte %lld of %lld of static shared memory %u"
                                               : "byte %lld of %lld of dynamic shared memory",
                 (long long)((const uint8_t *)at - start), (long long)size, number);
    else if (guarded_piece(at, &buffer, &bytes))
        snprintf(w.text, sizeof w.text, "byte %lld of a buffer of %lld",
                 (long long)((const uint8_t *)at - (const uint8_t *)buffer), (long long)bytes);
    else
        snprintf(w.text, sizeof w.text, "%p", at);
    return w;
}

static _Noreturn void clash(const void *at, pm_emu_how how, const char *other, uint32_t time, uint32_t thread)
{
    char who[32] = "threads";
    if (thread != SEVERAL)
        snprintf(who, sizeof who, "thread %u", thread);
    pm_emu_fault("%s %s, which %s%s %s with no barrier between", words_of(how), place_of(at).text, who,
                 time < block_start ? " of another block" : "", other);
}

static inline void check_cell(uint32_t t, const void *at, pm_emu_how how, cell *c, reader *readers, uint32_t slots,
                              bool is_shared)
{
    uint32_t each = slots == 1 ? threads : WARP;
    uint32_t start = is_shared ? block_start : launch_start;
    uint8_t comes = how == PM_EMU_SENDS ? COMES : how == PM_EMU_LANDS_BULK ? BULK : 0;
    if (how == PM_EMU_LANDS || how == PM_EMU_LANDS_BULK) {
        c->comes = 0;
        how = PM_EMU_WRITES;
    } else if (c->comes == COMES && c->write_time >= block_start) {
        pm_emu_fault("%s %s, where an async copy of thread %u has not arrived", words_of(how), place_of(at).text,
                     c->writer);
    }
    bool both_add = how == PM_EMU_ADDS && c->adds;
    if (!both_add && !is_before(start, c->write_time, c->writer, 0, 0, t))
        clash(at, how, "writes", c->write_time, c->writer);
    if (how == PM_EMU_MULTIPLIES && c->write_time >= block_start && c->comes != BULK && fences[c->writer] < c->write_time)
        pm_emu_fault("multiplies %s, which thread %u wrote without pm_fence_async behind it", place_of(at).text, c->writer);
    if (how == PM_EMU_READS || how == PM_EMU_MULTIPLIES) {
        if (is_shared && c->write_time < block_start)
            pm_emu_fault("reads %s, which nobody wrote", place_of(at).text);
        reader *r = &readers[slots == 1 ? 0 : t / WARP];
        if (r->time >= start && r->time < block_start)
            return; // another block's: whoever writes is at fault
        bool alone = r->time < block_start || r->thread == t;
        r->thread = (uint16_t)(alone || is_before(start, r->time, r->thread, t / each * each, (t / each + 1) * each, t)
                                   ? t
                                   : (uint32_t)SEVERAL);
        r->time = r->thread == SEVERAL && r->time > times[t] ? r->time : times[t];
        return;
    }
    for (uint32_t i = 0; i < slots; i++)
        if (!is_before(start, readers[i].time, readers[i].thread, i * each, (i + 1) * each, t))
            clash(at, how, "reads", readers[i].time, readers[i].thread);
    *c = (cell){times[t], (uint16_t)t, how == PM_EMU_ADDS, comes};
}

static global_cell *global_cell_of(uintptr_t word)
{
    uint64_t at = ((uint64_t)word * 0x9e3779b97f4a7c15u) >> 43;
    for (uint32_t tries = 0; tries < 4096; tries++, at = (at + 1) % CELLS) {
        global_cell *g = &global_cells[at];
        if (g->launch == launch_start && g->word == word)
            return g;
        if (g->launch != launch_start) {
            *g = (global_cell){.word = word, .launch = launch_start};
            return g;
        }
    }
    pm_emu_fault("touches more global memory than the check can follow");
}

extern char __executable_start, _end;
extern void *__libc_stack_end;

/// Memory of the test itself: tables, and variables on its stack.
static bool is_of_test(const void *at)
{
    uintptr_t a = (uintptr_t)at, stack = (uintptr_t)__libc_stack_end;
    return (a >= (uintptr_t)&__executable_start && a < (uintptr_t)&_end) || (a < stack + 65536 && a > stack - (8 << 20));
}

/// Looks where it was found last, first.
static bool buffer_of(const void *at, const void **out_start, int64_t *out_bytes)
{
    static const void *last[4];
    static int64_t last_bytes[4];
    static uint32_t next;
    for (uint32_t i = 0; i < 4; i++)
        if ((uintptr_t)at - (uintptr_t)last[i] < (uintptr_t)last_bytes[i]) {
            *out_start = last[i];
            *out_bytes = last_bytes[i];
            return true;
        }
    if (!guarded_piece(at, out_start, out_bytes))
        return false;
    last[next % 4] = *out_start;
    last_bytes[next++ % 4] = *out_bytes;
    return true;
}

static void access(const void *at, uint64_t bytes, pm_emu_how how)
{
    if (!pm_emu_is_playing() || pm_emu_is_own(at))
        return;
    uint32_t number;
    const uint8_t *start;
    uint64_t size;
    const void *buffer;
    int64_t room;
    const uint8_t *p = at;
    uint32_t t = (uint32_t)pm_emu_thread();
    int64_t offset = pm_emu_shared_offset(at);
    uint32_t slots = (threads + WARP - 1) / WARP;
    if (offset >= 0) {
        if (!pm_emu_shared_piece(at, &number, &start, &size))
            pm_emu_fault("%s %llu bytes of shared memory outside of every array", words_of(how), (unsigned long long)bytes);
        if ((uint64_t)(p - start) + bytes > size)
            pm_emu_fault("%s %llu bytes at %s", words_of(how), (unsigned long long)bytes, place_of(at).text);
        for (uint64_t i = 0; i < bytes; i++)
            check_cell(t, p + i, how, &shared_cells[(uint64_t)offset + i],
                       &shared_readers[((uint64_t)offset + i) * (MOST / WARP)], slots, true);
        return;
    }
    if (buffer_of(at, &buffer, &room)) {
        if ((int64_t)(p - (const uint8_t *)buffer) + (int64_t)bytes > room)
            pm_emu_fault("%s %llu bytes at %s", words_of(how), (unsigned long long)bytes, place_of(at).text);
    } else if (!is_of_test(at)) {
        pm_emu_fault("%s %llu bytes at %p, which is in no buffer", words_of(how), (unsigned long long)bytes, at);
    }
    for (uint64_t i = 0; i < bytes;) {
        uintptr_t a = (uintptr_t)p + i;
        global_cell *g = global_cell_of(a / 4);
        for (; i < bytes && ((uintptr_t)p + i) / 4 == a / 4; i++)
            check_cell(t, p + i, how, &g->bytes[((uintptr_t)p + i) % 4], &g->readers[((uintptr_t)p + i) % 4], 1, false);
    }
}

const pm_emu_watch cu_watch = {.block = begin_block, .access = access, .met = met, .gave = gave, .took = took, .fenced = fenced};

/* ---- what clang calls ---------------------------------------------------------------------------------------------------- */

/// The compiler counts on it: a GPU ends the kernel where it isn't so.
static void aligned(const void *at, uint64_t bytes, pm_emu_how how)
{
    if ((uintptr_t)at % bytes && pm_emu_is_playing() && !pm_emu_is_own(at))
        pm_emu_fault("%s %llu bytes at %s: not aligned", words_of(how), (unsigned long long)bytes, place_of(at).text);
    access(at, bytes, how);
}

#define CALLED(n)                                                                                              \
    void __tsan_read##n(void *p);                                                                              \
    void __tsan_read##n(void *p) { aligned(p, n, PM_EMU_READS); }                                              \
    void __tsan_write##n(void *p);                                                                             \
    void __tsan_write##n(void *p) { aligned(p, n, PM_EMU_WRITES); }                                            \
    void __tsan_unaligned_read##n(void *p);                                                                    \
    void __tsan_unaligned_read##n(void *p) { access(p, n, PM_EMU_READS); }                                     \
    void __tsan_unaligned_write##n(void *p);                                                                   \
    void __tsan_unaligned_write##n(void *p) { access(p, n, PM_EMU_WRITES); }
CALLED(1)
CALLED(2)
CALLED(4)
CALLED(8)
CALLED(16)

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *from);
void __tsan_func_entry(void *from) { (void)from; }
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memset(void *to, int value, size_t n);

void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    access(from, n, PM_EMU_READS);
    access(to, n, PM_EMU_WRITES);
    return memcpy(to, from, n);
}

void *__tsan_memset(void *to, int value, size_t n)
{
    access(to, n, PM_EMU_WRITES);
    return memset(to, value, n);
}
