#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif

#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
/// Shadow memory describes 8 bytes at a time, so objects start on that boundary.
enum { MIN_ALIGN = 8, RED_ZONE = 16 };
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))

/// Out of memory is a case that we handle, so ASan shall not end the process at it.
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
#else
enum { MIN_ALIGN = 1, RED_ZONE = 0 };
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { FIRST_BLOCK = 16 * 1024, LARGEST_BLOCK = 1024 * 1024 };

/// No object is larger (512 GB on 64 bits); sums of a few such sizes can't overflow.
static const size_t largest_object = SIZE_MAX >> 25;

typedef struct block {
    struct block *next;
    size_t size; ///< bytes of `data`
    size_t used;
    _Alignas(max_align_t) char data[];
} block;

typedef struct deferred {
    struct deferred *next;
    void (*fn)(void *arg);
    void *arg;
} deferred;

struct pm_arena {
    block *blocks; ///< the first one is the one that small objects come from
    size_t next_block_size;
    size_t used;
    deferred *deferred;
    jmp_buf *on_oom;
    pm_arena *owner;    ///< of a child
    deferred *in_owner; ///< the call that destroys this child with its owner
};

pm_arena *pm_arena_create(void)
{
    pm_arena *arena = calloc(1, sizeof *arena);
    if (arena != NULL)
        arena->next_block_size = FIRST_BLOCK;
    return arena;
}

static void destroy_child(void *arg)
{
    pm_arena_destroy(arg);
}

void pm_arena_out_of_memory(pm_arena *arena);

pm_arena *pm_arena_child(pm_arena *owner)
{
    deferred *call = PM_NEW(owner, deferred);
    pm_arena *child = pm_arena_create();
    if (child == NULL)
        pm_arena_out_of_memory(owner);
    *call = (deferred){.next = owner->deferred, .fn = destroy_child, .arg = child};
    owner->deferred = call;
    child->owner = owner;
    child->in_owner = call;
    return child;
}

void pm_arena_destroy(pm_arena *arena)
{
    if (arena == NULL)
        return;
    if (arena->in_owner != NULL)
        arena->in_owner->fn = NULL;
    // a deferred call may defer another one, so the list is read anew each time
    while (arena->deferred != NULL) {
        deferred *call = arena->deferred;
        arena->deferred = call->next;
        if (call->fn != NULL) // else a child that is gone already
            call->fn(call->arg);
    }
    while (arena->blocks != NULL) {
        block *dead = arena->blocks;
        arena->blocks = dead->next;
        UNPOISON(dead->data, dead->size);
        free(dead);
    }
    free(arena);
}

jmp_buf *pm_arena_on_oom(pm_arena *arena, jmp_buf *where)
{
    jmp_buf *former = arena->on_oom;
    arena->on_oom = where;
    return former;
}

void pm_arena_out_of_memory(pm_arena *arena)
{
    while (arena->on_oom == NULL && arena->owner != NULL)
        arena = arena->owner;
    if (arena->on_oom != NULL)
        longjmp(*arena->on_oom, 1);
    fputs("out of memory\n", stderr);
    exit(pm_exit_code(PM_ERR_NO_MEMORY));
}

/// Bytes to skip at `p` so that it is aligned.
static size_t padding(const char *p, size_t align)
{
    return (size_t)(-(uintptr_t)p & (align - 1));
}

/// A fresh block that holds at least `size` bytes. calloc, because large blocks then come zeroed
/// from the system without being touched.
static block *add_block(pm_arena *arena, size_t size, bool is_current)
{
    block *fresh = calloc(1, sizeof(block) + size);
    if (fresh == NULL)
        pm_arena_out_of_memory(arena);
    fresh->size = size;
    POISON(fresh->data, size);
    if (is_current || arena->blocks == NULL) {
        fresh->next = arena->blocks;
        arena->blocks = fresh;
    } else {
        // a large object must not hide the room that is left in the current block
        fresh->next = arena->blocks->next;
        arena->blocks->next = fresh;
    }
    return fresh;
}

void *pm_arena_alloc(pm_arena *arena, size_t size, size_t align)
{
    if (align < MIN_ALIGN)
        align = MIN_ALIGN;
    if (size > largest_object || align > largest_object)
        pm_arena_out_of_memory(arena);
    size_t need = size + RED_ZONE;
    block *from = arena->blocks;
    if (from == NULL || from->size - from->used < need ||
        from->size - from->used - need < padding(from->data + from->used, align)) {
        size_t worst = need + align; // whatever address the block gets
        bool is_small = worst <= arena->next_block_size / 4;
        from = add_block(arena, is_small ? arena->next_block_size : worst, is_small);
        if (is_small && arena->next_block_size < LARGEST_BLOCK)
            arena->next_block_size *= 2;
    }
    size_t skip = padding(from->data + from->used, align);
    char *object = from->data + from->used + skip;
    from->used += skip + need;
    arena->used += skip + size;
    UNPOISON(object, size);
    return object;
}

void *pm_arena_array(pm_arena *arena, size_t n, size_t size, size_t align)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        pm_arena_out_of_memory(arena);
    return pm_arena_alloc(arena, bytes, align);
}

char *pm_arena_strndup(pm_arena *arena, const char *text, size_t n)
{
    char *copy = pm_arena_alloc(arena, n + 1, 1);
    if (n > 0)
        memcpy(copy, text, n);
    return copy;
}

char *pm_arena_strdup(pm_arena *arena, const char *text)
{
    return pm_arena_strndup(arena, text, strlen(text));
}

char *pm_arena_vprintf(pm_arena *arena, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0) { // more than INT_MAX bytes, or no memory inside the C library
        va_end(again);
        pm_arena_out_of_memory(arena);
    }
    char *text = pm_arena_alloc(arena, (size_t)n + 1, 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

char *pm_arena_printf(pm_arena *arena, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(arena, fmt, ap);
    va_end(ap);
    return text;
}

void pm_arena_defer(pm_arena *arena, void (*fn)(void *arg), void *arg)
{
    deferred *call = PM_NEW(arena, deferred);
    *call = (deferred){.next = arena->deferred, .fn = fn, .arg = arg};
    arena->deferred = call;
}

size_t pm_arena_used(const pm_arena *arena)
{
    return arena->used;
}
