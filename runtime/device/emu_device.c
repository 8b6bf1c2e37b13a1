/// A GPU that the CPU plays. What is a device's is apart: its memory opens only while a kernel or a transfer runs, so
/// code that forgets a transfer ends at once instead of being right by accident. Nor is it kinder than a GPU whose copies
/// run beside its launches: launches run as late as they may while uploads overtake them, and with every other download
/// all that was given runs before the bytes are copied out.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/device/device.h"
#include "runtime/device/emu_play.h"
#include "runtime/rt_internal.h"

enum { PAGE = 4096, MOST_DEVICES = 64 };

/// Memory between two pages that are never open.
typedef struct block {
    struct block *next;
    uint8_t *start;
    size_t size; ///< whole pages
} block;

/// The device; several lines of work share it.
typedef struct chip {
    pthread_mutex_t lock; ///< one kernel or transfer at a time
    const pm_rt_device *desc;
    block *blocks;
    int32_t users;
} chip;

/// A launch that was given; its words lie in a list of their own.
typedef struct given {
    uint32_t kernel;
    uint64_t blocks;
    size_t first_word, n_words;
} given;

/// A download that was asked for.
typedef struct coming {
    uint8_t *to; ///< NULL: none
    const void *from;
    size_t bytes, behind; ///< how many of the launches come before it
} coming;

enum { COMING_MOST = 8 };

struct pm_rt_device_state {
    chip *chip;
    int32_t *status;
    given *given;
    uint64_t *words;
    size_t n_given, n_words, room_given, room_words;
    size_t done; ///< of those given
    coming coming[COMING_MOST];
    bool ahead; ///< at the next arrival all launches run first
};

/// ---- who touches what ---------------------------------------------------------------------------------------

/// The addresses of all emulated memory: a signal's handler reads them without a lock.
static _Atomic uintptr_t lowest = UINTPTR_MAX, highest;
static struct sigaction before;
static pthread_once_t watching = PTHREAD_ONCE_INIT;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    static const char words[] = "error: memory of an emulated device was touched outside of kernels and transfers\n";
    if (at >= atomic_load(&lowest) && at < atomic_load(&highest)) {
        ssize_t ignored = write(STDERR_FILENO, words, sizeof words - 1);
        (void)ignored;
    }
    sigaction(number, &before, NULL); // and the access again, for whoever was asked before
}

static void watch(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, &before);
}

static void note_range(uintptr_t start, uintptr_t end)
{
    uintptr_t seen = atomic_load(&lowest);
    while (start < seen && !atomic_compare_exchange_weak(&lowest, &seen, start))
        ;
    seen = atomic_load(&highest);
    while (end > seen && !atomic_compare_exchange_weak(&highest, &seen, end))
        ;
}

static void set_open(const chip *c, bool open)
{
    for (const block *b = c->blocks; b; b = b->next)
        mprotect(b->start, b->size, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static void enter(chip *c)
{
    pthread_mutex_lock(&c->lock);
    set_open(c, true);
}

static void leave(chip *c)
{
    set_open(c, false);
    pthread_mutex_unlock(&c->lock);
}

static const block *block_of(const chip *c, const void *at)
{
    for (const block *b = c->blocks; b; b = b->next)
        if ((uintptr_t)at >= (uintptr_t)b->start && (uintptr_t)at - (uintptr_t)b->start < b->size)
            return b;
    return NULL;
}

/// Bytes from `at` on lie in one piece of memory of the device.
static bool inside(const chip *c, const void *at, size_t bytes)
{
    const block *b = block_of(c, at);
    return b && bytes <= b->size - ((uintptr_t)at - (uintptr_t)b->start);
}

/// ---- memory ---------------------------------------------------------------------------------------------------

static pm_status alloc(pm_rt_device_state *device, size_t bytes, void **out_memory)
{
    chip *c = device->chip;
    size_t size = (bytes / PAGE + 1) * PAGE;
    block *b = bytes < SIZE_MAX / 4 ? malloc(sizeof *b) : NULL;
    uint8_t *pages = !b ? MAP_FAILED
                        : mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        free(b);
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "%s: there is no room for %zu bytes", c->desc->name, bytes);
    }
    note_range((uintptr_t)pages, (uintptr_t)pages + size + 2 * PAGE);
    pthread_mutex_lock(&c->lock);
    *b = (block){c->blocks, pages + PAGE, size};
    c->blocks = b;
    pthread_mutex_unlock(&c->lock);
    *out_memory = b->start;
    return PM_OK;
}

static void release(pm_rt_device_state *device, void *memory)
{
    chip *c = device->chip;
    pthread_mutex_lock(&c->lock);
    for (block **at = &c->blocks; *at; at = &(*at)->next)
        if ((*at)->start == memory) {
            block *gone = *at;
            *at = gone->next;
            munmap(gone->start - PAGE, gone->size + 2 * PAGE);
            free(gone);
            break;
        }
    pthread_mutex_unlock(&c->lock);
}

static pm_status wrong(const chip *c, const char *what)
{
    return pm_rt_error_set(PM_ERR_INTERNAL, "%s: %s", c->desc->name, what);
}

/// ---- work -----------------------------------------------------------------------------------------------------

static pm_status play(chip *c, const given *g, const uint64_t *words)
{
    const pm_rt_kernel *k = &c->desc->kernels[g->kernel];
    pm_emu_launch play = {.name = k->name, .kernel = k->emu, .parameters = k->flags & PM_RT_KERNEL_TEMPLATE,
                          .words = words, .n_words = g->n_words, .blocks = g->blocks, .threads = k->threads,
                          .shared_bytes = k->shared_bytes, .meets = k->flags & PM_RT_KERNEL_MEETS};
    enter(c);
    pm_status status = pm_emu_play(&play);
    leave(c);
    return status;
}

/// The launches up to number `end`. Behind one that failed nothing runs.
static pm_status run_to(pm_rt_device_state *device, size_t end)
{
    pm_status status = PM_OK;
    while (device->done < end && status == PM_OK) {
        const given *g = &device->given[device->done++];
        status = play(device->chip, g, device->words + g->first_word);
    }
    if (status != PM_OK)
        device->done = device->n_given;
    if (device->done < device->n_given)
        return status;
    device->done = device->n_given = device->n_words = 0;
    for (size_t i = 0; i < COMING_MOST; i++)
        device->coming[i].behind = 0;
    return status;
}

static pm_status run_all(pm_rt_device_state *device)
{
    return run_to(device, device->n_given);
}

/// Room for one more.
static void *grown(void *list, size_t *room, size_t needed, size_t size)
{
    if (needed <= *room)
        return list;
    size_t more = *room ? 2 * *room : 64;
    more = more < needed ? needed : more;
    void *fresh = realloc(list, more * size);
    if (fresh)
        *room = more;
    return fresh;
}

static pm_status launch(pm_rt_device_state *device, uint32_t kernel, uint64_t blocks, const uint64_t *words,
                        size_t n_words)
{
    enum { MULTIPROCESSORS = 3 };
    const chip *c = device->chip;
    if (kernel >= c->desc->n_kernels)
        return wrong(c, "there is no such kernel");
    if (!c->desc->kernels[kernel].emu)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s: kernel %s has no code that the CPU could play", c->desc->name,
                               c->desc->kernels[kernel].name);
    if ((c->desc->kernels[kernel].flags & PM_RT_KERNEL_WALKS) && blocks > MULTIPROCESSORS)
        blocks = MULTIPROCESSORS;
    void *list = grown(device->given, &device->room_given, device->n_given + 1, sizeof *device->given);
    device->given = list ? list : device->given;
    uint64_t *all = grown(device->words, &device->room_words, device->n_words + n_words, sizeof *device->words);
    device->words = all ? all : device->words;
    if (!list || !device->words || (!all && n_words))
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    device->given[device->n_given++] = (given){kernel, blocks, device->n_words, n_words};
    memcpy(device->words + device->n_words, words, n_words * sizeof *words);
    device->n_words += n_words;
    return PM_OK;
}

/// ---- copies ---------------------------------------------------------------------------------------------------

static pm_status clear(pm_rt_device_state *device, void *memory, size_t bytes)
{
    chip *c = device->chip;
    PM_TRY(run_all(device));
    enter(c);
    bool fits = inside(c, memory, bytes);
    if (fits)
        memset(memory, 0, bytes);
    leave(c);
    return fits ? PM_OK : wrong(c, "memory that isn't its own is cleared");
}

static pm_status bring(pm_rt_device_state *device, void *to, const void *from, size_t bytes)
{
    chip *c = device->chip;
    enter(c);
    bool fits = inside(c, to, bytes) && !block_of(c, from);
    if (fits)
        memcpy(to, from, bytes);
    leave(c);
    return fits ? PM_OK : wrong(c, "an upload from or to memory that isn't there");
}

static pm_status upload(pm_rt_device_state *device, void *to, const void *from, size_t bytes)
{
    PM_TRY(run_all(device));
    return bring(device, to, from, bytes);
}

static coming *find(pm_rt_device_state *device, const uint8_t *to)
{
    for (size_t i = 0; i < COMING_MOST; i++)
        if (device->coming[i].to == to)
            return &device->coming[i];
    return NULL;
}

static pm_status arrive(pm_rt_device_state *device, void *to)
{
    chip *c = device->chip;
    coming *found = to ? find(device, to) : NULL;
    if (!found)
        return PM_OK;
    coming it = *found;
    found->to = NULL;
    device->ahead = !device->ahead;
    PM_TRY(run_to(device, device->ahead ? device->n_given : it.behind));
    enter(c);
    memcpy(it.to, it.from, it.bytes);
    leave(c);
    return PM_OK;
}

static pm_status fetch(pm_rt_device_state *device, void *to, const void *from, size_t bytes)
{
    chip *c = device->chip;
    pthread_mutex_lock(&c->lock);
    bool fits = inside(c, from, bytes) && !block_of(c, to);
    pthread_mutex_unlock(&c->lock);
    if (!fits)
        return wrong(c, "a download from or to memory that isn't there");
    coming *room = find(device, NULL);
    if (!room) {
        room = &device->coming[0];
        PM_TRY(arrive(device, room->to));
    }
    *room = (coming){to, from, bytes, device->n_given};
    return PM_OK;
}

/// As on the chip that has wgmma; PIMOE_WGMMA=0: as on others.
static pm_status tensor_map(pm_rt_device_state *device, const pm_rt_tensor_map *map, const uint8_t *weights, void *out)
{
    enum { SWIZZLE_128B = 1 };
    const char *asked = getenv("PIMOE_WGMMA");
    const uint32_t box[] = {PM_RT_MAP_COLUMNS, PM_RT_MAP_ROWS};
    if (asked && strcmp(asked, "0") == 0)
        return PM_ERR_UNSUPPORTED;
    if (!pm_emu_tensor_map_make(out, weights + map->device_offset, 2, map->extents, map->strides, box, SWIZZLE_128B))
        return wrong(device->chip, "a tensor map that silicon wouldn't take");
    return PM_OK;
}

static pm_status wait(pm_rt_device_state *device)
{
    for (size_t i = 0; i < COMING_MOST; i++)
        device->coming[i].to = NULL;
    return run_all(device);
}

static int32_t *status_word(pm_rt_device_state *device)
{
    return device->status;
}

static int32_t take_status(pm_rt_device_state *device)
{
    enter(device->chip);
    int32_t value = *device->status;
    *device->status = 0;
    leave(device->chip);
    return value;
}

/// ---- opening --------------------------------------------------------------------------------------------------

static void close_line(pm_rt_device_state *device)
{
    chip *c = device->chip;
    if (device->status)
        release(device, device->status);
    free(device->given);
    free(device->words);
    free(device);
    pthread_mutex_lock(&c->lock);
    int32_t left = --c->users;
    pthread_mutex_unlock(&c->lock);
    if (left > 0)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static chip *new_chip(const pm_rt_device *desc)
{
    chip *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    pthread_mutex_init(&c->lock, NULL);
    c->desc = desc;
    return c;
}

static pm_status open_line(const pm_rt_device *desc, int ordinal, pm_rt_device_state *share,
                           pm_rt_device_state **out_device)
{
    if (ordinal >= MOST_DEVICES)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s: there are %d emulated devices", desc->name, MOST_DEVICES);
    pthread_once(&watching, watch);
    pm_rt_device_state *d = calloc(1, sizeof *d);
    chip *c = !d ? NULL : share ? share->chip : new_chip(desc);
    if (!c) {
        free(d);
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    }
    d->chip = c;
    pthread_mutex_lock(&c->lock);
    c->users++;
    pthread_mutex_unlock(&c->lock);
    void *memory = NULL;
    pm_status status = alloc(d, sizeof *d->status, &memory);
    d->status = memory;
    if (status != PM_OK) {
        close_line(d);
        return status;
    }
    *out_device = d;
    return PM_OK;
}

const pm_rt_device_ops pm_rt_emu_ops = {
    .kind = "emu",
    .sessions = &pm_rt_device_sessions_table,
    .open = open_line,
    .close = close_line,
    .alloc = alloc,
    .release = release,
    .clear = clear,
    .upload = upload,
    .bring = bring,
    .fetch = fetch,
    .arrive = arrive,
    .launch = launch,
    .tensor_map = tensor_map,
    .wait = wait,
    .status = status_word,
    .take_status = take_status,
};
