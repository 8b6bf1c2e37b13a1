/// Growable arrays, hash maps and bit sets over arenas. Old storage of a grown container stays in
/// the arena until that is freed: fine for a compiler, which builds and then frees everything.
#ifndef PM_BASE_CONTAINERS_H
#define PM_BASE_CONTAINERS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"

#define PM_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/// Declares a growable array type: `typedef PM_VEC(int) int_vec;`, used as `v.data[i]`, `v.n`.
#define PM_VEC(type)                                                                               \
    struct {                                                                                       \
        type *data;                                                                                \
        size_t n, cap;                                                                             \
    }

/// Appends `item`; evaluates `vec` more than once.
#define PM_PUSH(arena, vec, item)                                                                  \
    do {                                                                                           \
        if ((vec)->n == (vec)->cap)                                                                \
            (vec)->data = pm_vec_grow((arena), (vec)->data, (vec)->n, &(vec)->cap,                 \
                                      sizeof *(vec)->data);                                        \
        (vec)->data[(vec)->n++] = (item);                                                          \
    } while (0)

/// Storage for at least one more item than `n`, with the old content; internal to PM_PUSH.
void *pm_vec_grow(pm_arena *arena, void *data, size_t n, size_t *cap, size_t item_size);

/// Map from byte strings to pointers, iterated in insertion order (so that nothing that is printed
/// or emitted ever depends on hash values). Keys are copied into the arena.
typedef struct pm_map_entry {
    const char *key;
    size_t key_size;
    uint64_t hash; ///< differs from run to run: for the map alone
    void *value;
} pm_map_entry;

typedef struct pm_map {
    pm_arena *arena;
    pm_map_entry *entries; ///< in insertion order
    size_t n, cap;
    uint32_t *slots; ///< open addressing, index + 1 into entries
    size_t n_slots;
} pm_map;

void pm_map_init(pm_map *map, pm_arena *arena);
/// The value stored under the key, or NULL.
void *pm_map_get(const pm_map *map, const void *key, size_t key_size);
/// Stores `value` (replacing a former one) under the key.
void pm_map_put(pm_map *map, const void *key, size_t key_size, void *value);
/// The slot for the key, created with a NULL value when absent. Valid until the next insertion.
void **pm_map_at(pm_map *map, const void *key, size_t key_size);

static inline void *pm_map_get_str(const pm_map *map, const char *key)
{
    return pm_map_get(map, key, strlen(key));
}
static inline void pm_map_put_str(pm_map *map, const char *key, void *value)
{
    pm_map_put(map, key, strlen(key), value);
}

/// The nearest of `n` names to `word` by edit distance, or NULL when none is close enough to be a
/// likely misspelling (distance at most a third of the length, at least 1).
const char *pm_nearest(const char *word, const char *const *names, size_t n);

/// Checked arithmetic for sizes that come from outside; false on overflow.
static inline bool pm_mul_i64(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool pm_add_i64(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
