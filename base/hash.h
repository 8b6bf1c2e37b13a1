/// Content hashes: XXH3 with 128 bits, for caches and integrity against accidents (not against
/// forgery: it is no cryptographic hash).
#ifndef PM_BASE_HASH_H
#define PM_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

typedef struct pm_hash128 {
    uint64_t hi, lo;
} pm_hash128;

/// Hash of `size` bytes. The same on every machine and in every release: artifacts store it.
pm_hash128 pm_hash_bytes(const void *data, size_t size);

static inline bool pm_hash_equal(pm_hash128 a, pm_hash128 b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

enum { PM_HASH_TEXT_SIZE = 33 };

/// Writes 32 lower-case hexadecimal digits, `hi` first, and a NUL.
void pm_hash_text(pm_hash128 hash, char out_text[PM_HASH_TEXT_SIZE]);

/// Hash of data that comes in pieces; equal to pm_hash_bytes of them joined.
typedef struct pm_hasher pm_hasher;

pm_hasher *pm_hasher_new(pm_arena *arena);
void pm_hasher_add(pm_hasher *hasher, const void *data, size_t size);
/// The hash of what was added so far; more may follow.
pm_hash128 pm_hasher_value(const pm_hasher *hasher);

#endif
