#include "base/containers.h"

#include <sys/auxv.h>
#include <xxhash.h>

#include "base/diag.h"

void *pm_vec_grow(pm_arena *arena, void *data, size_t n, size_t *cap, size_t item_size)
{
    size_t fresh_cap;
    if (__builtin_mul_overflow(*cap, (size_t)2, &fresh_cap))
        fresh_cap = SIZE_MAX; // the arena refuses it as out of memory
    if (fresh_cap < 8)
        fresh_cap = 8;
    void *fresh = pm_arena_array(arena, fresh_cap, item_size, _Alignof(max_align_t));
    if (n > 0)
        memcpy(fresh, data, n * item_size);
    *cap = fresh_cap;
    return fresh;
}

void pm_map_init(pm_map *map, pm_arena *arena)
{
    *map = (pm_map){.arena = arena};
}

/// Hashes differ from process to process (the seed is the kernel's gift to each), so that no input
/// can be made to collide. Nothing shows it: maps are iterated in insertion order.
static uint64_t hash_key(const void *key, size_t key_size)
{
    static const uint64_t fixed_seed = 0x9e3779b97f4a7c15u;
    uint64_t seed = fixed_seed;
    const void *random = (const void *)getauxval(AT_RANDOM); // NOLINT: an address by contract
    if (random != NULL)
        memcpy(&seed, random, sizeof seed);
    return XXH3_64bits_withSeed(key, key_size, seed);
}

/// The slot that holds the key, or the empty one where it belongs. Needs a slot table.
static uint32_t *find_slot(const pm_map *map, const void *key, size_t key_size, uint64_t hash)
{
    size_t i = hash & (map->n_slots - 1);
    for (;; i = (i + 1) & (map->n_slots - 1)) {
        uint32_t *slot = &map->slots[i];
        if (*slot == 0)
            return slot;
        const pm_map_entry *entry = &map->entries[*slot - 1];
        if (entry->hash == hash && entry->key_size == key_size &&
            (key_size == 0 || memcmp(entry->key, key, key_size) == 0))
            return slot;
    }
}

/// Doubles the slot table; the load stays at most one half.
static void grow_slots(pm_map *map)
{
    map->n_slots = map->n_slots == 0 ? 16 : map->n_slots * 2;
    map->slots = PM_NEW_ARRAY(map->arena, uint32_t, map->n_slots);
    for (size_t e = 0; e < map->n; e++) {
        size_t i = map->entries[e].hash & (map->n_slots - 1);
        while (map->slots[i] != 0)
            i = (i + 1) & (map->n_slots - 1);
        map->slots[i] = (uint32_t)(e + 1);
    }
}

void *pm_map_get(const pm_map *map, const void *key, size_t key_size)
{
    if (map->n == 0)
        return NULL;
    uint32_t slot = *find_slot(map, key, key_size, hash_key(key, key_size));
    return slot == 0 ? NULL : map->entries[slot - 1].value;
}

void **pm_map_at(pm_map *map, const void *key, size_t key_size)
{
    PM_ASSERT(map->arena != NULL && map->n < UINT32_MAX - 1);
    uint64_t hash = hash_key(key, key_size);
    if ((map->n + 1) * 2 > map->n_slots)
        grow_slots(map);
    uint32_t *slot = find_slot(map, key, key_size, hash);
    if (*slot == 0) {
        if (map->n == map->cap)
            map->entries =
                pm_vec_grow(map->arena, map->entries, map->n, &map->cap, sizeof *map->entries);
        map->entries[map->n] = (pm_map_entry){
            .key = pm_arena_strndup(map->arena, key, key_size),
            .key_size = key_size,
            .hash = hash,
        };
        map->n++;
        *slot = (uint32_t)map->n;
    }
    return &map->entries[*slot - 1].value;
}

void pm_map_put(pm_map *map, const void *key, size_t key_size, void *value)
{
    *pm_map_at(map, key, key_size) = value;
}

enum { NEAREST_LENGTH = 64 };

/// Edit distance (insert, delete, replace, swap of neighbours), or `limit` + 1 when it is more.
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b, size_t limit)
{
    if ((n_a > n_b ? n_a - n_b : n_b - n_a) > limit)
        return limit + 1;
    size_t rows[3][NEAREST_LENGTH + 1];
    for (size_t j = 0; j <= n_b; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                two_above[j - 2] + 1 < best)
                best = two_above[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n_a % 3][n_b];
}

const char *pm_nearest(const char *word, const char *const *names, size_t n)
{
    size_t length = strlen(word);
    if (length > NEAREST_LENGTH)
        return NULL;
    size_t limit = length / 3 > 1 ? length / 3 : 1;
    const char *nearest = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t name_length = strnlen(names[i], NEAREST_LENGTH + 1);
        if (name_length > NEAREST_LENGTH)
            continue;
        size_t distance = edit_distance(word, length, names[i], name_length, limit);
        if (distance <= limit) {
            nearest = names[i];
            if (distance == 0)
                break;
            limit = distance - 1; // only a better one replaces it
        }
    }
    return nearest;
}
