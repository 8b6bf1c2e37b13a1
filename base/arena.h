/// Bump allocation: objects of one lifetime live in one arena and are freed together.
#ifndef PM_BASE_ARENA_H
#define PM_BASE_ARENA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include "pm/status.h"

typedef struct pm_arena pm_arena;

/// Creates an empty arena; NULL when out of memory. Threads: one thread at a time per arena.
pm_arena *pm_arena_create(void);

/// An arena for scratch memory, owned by `owner` (destroyed with it at the latest) and with its
/// out-of-memory target. Destroy it as soon as it isn't needed. Never NULL.
pm_arena *pm_arena_child(pm_arena *owner);

/// Runs the deferred calls, last first, then frees everything. NULL is allowed.
void pm_arena_destroy(pm_arena *arena);

/// Out of memory inside pm_arena_alloc jumps to `*where` (set by the API boundary with setjmp), so
/// that no code between has to check; without a target the process ends with exit code 3.
/// docs/decisions/0002-out-of-memory.md says why. Returns the former target.
jmp_buf *pm_arena_on_oom(pm_arena *arena, jmp_buf *where);

/// What pm_arena_alloc does when there is no memory; for those who got none from elsewhere.
_Noreturn void pm_arena_out_of_memory(pm_arena *arena);

/// `size` zeroed bytes aligned to `align` (a power of two). Never NULL. Size 0 gives a valid pointer.
/// Under ASan the tail behind each object is poisoned.
void *pm_arena_alloc(pm_arena *arena, size_t size, size_t align);

/// As pm_arena_alloc for `n` objects of `size` bytes; an overflowing product counts as out of memory.
void *pm_arena_array(pm_arena *arena, size_t n, size_t size, size_t align);

char *pm_arena_strdup(pm_arena *arena, const char *text);
char *pm_arena_strndup(pm_arena *arena, const char *text, size_t n);
char *pm_arena_printf(pm_arena *arena, const char *fmt, ...) PM_PRINTF(2, 3);
char *pm_arena_vprintf(pm_arena *arena, const char *fmt, va_list ap);

/// Calls `fn(arg)` when the arena is destroyed: how mapped files and the like are owned.
void pm_arena_defer(pm_arena *arena, void (*fn)(void *arg), void *arg);

/// Bytes handed out so far (for --time-passes and tests).
size_t pm_arena_used(const pm_arena *arena);

#define PM_NEW(arena, type) ((type *)pm_arena_alloc((arena), sizeof(type), _Alignof(type)))
#define PM_NEW_ARRAY(arena, type, n)                                                               \
    ((type *)pm_arena_array((arena), (n), sizeof(type), _Alignof(type)))

#endif
