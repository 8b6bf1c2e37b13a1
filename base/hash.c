#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>

// the state's size has to be known, so that an arena can own it
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

struct pm_hasher {
    XXH3_state_t state;
};

static pm_hash128 from_xxh(XXH128_hash_t hash)
{
    return (pm_hash128){.hi = hash.high64, .lo = hash.low64};
}

pm_hash128 pm_hash_bytes(const void *data, size_t size)
{
    return from_xxh(XXH3_128bits(data, size));
}

void pm_hash_text(pm_hash128 hash, char out_text[PM_HASH_TEXT_SIZE])
{
    snprintf(out_text, PM_HASH_TEXT_SIZE, "%016" PRIx64 "%016" PRIx64, hash.hi, hash.lo);
}

pm_hasher *pm_hasher_new(pm_arena *arena)
{
    pm_hasher *hasher = PM_NEW(arena, pm_hasher);
    XXH3_INITSTATE(&hasher->state);
    XXH3_128bits_reset(&hasher->state);
    return hasher;
}

void pm_hasher_add(pm_hasher *hasher, const void *data, size_t size)
{
    XXH3_128bits_update(&hasher->state, data, size);
}

pm_hash128 pm_hasher_value(const pm_hasher *hasher)
{
    return from_xxh(XXH3_128bits_digest(&hasher->state));
}
