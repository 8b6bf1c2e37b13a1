#include "codegen/cpu/kept_object.h"

#include <stdatomic.h>
#include <string.h>

#include "base/cache.h"

/// Most bytes of objects that are kept.
#define OBJECT_CACHE_BYTES (512u << 20)

static pm_hash128 hash_of_codes(pm_arena *arena, const pm_device_code *codes, size_t n_codes)
{
    pm_hasher *hasher = pm_hasher_new(arena);
    for (size_t i = 0; i < n_codes; i++) {
        const uint64_t numbers[] = {codes[i].number, codes[i].ptx_size, codes[i].cubin_size};
        pm_hasher_add(hasher, codes[i].arch, strlen(codes[i].arch) + 1);
        pm_hasher_add(hasher, numbers, sizeof numbers);
        pm_hasher_add(hasher, codes[i].ptx, codes[i].ptx_size);
        pm_hasher_add(hasher, codes[i].cubin, codes[i].cubin_size);
    }
    return pm_hasher_value(hasher);
}

/// Everything else that decides the object: the module with all that was linked to it, the chip, this program.
static pm_hash128 key_of(pm_arena *arena, const void *bitcode, size_t size, const char *cpu, int opt_level)
{
    pm_hasher *hasher = pm_hasher_new(arena);
    pm_hasher_add(hasher, bitcode, size);
    pm_hasher_add(hasher, cpu, strlen(cpu) + 1);
    pm_hasher_add(hasher, &opt_level, sizeof opt_level);
    pm_cache_add_program(hasher);
    return pm_hasher_value(hasher);
}

void pm_kept_object_find(pm_arena *arena, const void *bitcode, size_t size, const char *cpu, int opt_level,
                         pm_kept_object *out)
{
    const uint8_t *bytes;
    size_t n_bytes;
    *out = (pm_kept_object){.arena = arena, .folder = pm_cache_folder(arena, "objects")};
    if (!out->folder)
        return;
    out->key = key_of(arena, bitcode, size, cpu, opt_level);
    if (!pm_cache_get(arena, out->folder, out->key, &bytes, &n_bytes) || n_bytes <= sizeof out->codes)
        return;
    memcpy(&out->codes, bytes, sizeof out->codes);
    out->bytes = bytes + sizeof out->codes;
    out->size = n_bytes - sizeof out->codes;
}

bool pm_kept_object_has(const pm_kept_object *kept, const pm_device_code *codes, size_t n_codes)
{
    return kept->bytes && pm_hash_equal(kept->codes, hash_of_codes(kept->arena, codes, n_codes));
}

void pm_kept_object_put(const pm_kept_object *kept, const pm_device_code *codes, size_t n_codes, const uint8_t *object,
                        size_t size)
{
    static atomic_flag shrunk = ATOMIC_FLAG_INIT;
    if (!kept->folder)
        return;
    pm_hash128 hash = hash_of_codes(kept->arena, codes, n_codes);
    uint8_t *bytes = pm_arena_alloc(kept->arena, sizeof hash + size, 16);
    memcpy(bytes, &hash, sizeof hash);
    memcpy(bytes + sizeof hash, object, size);
    pm_cache_put(kept->arena, kept->folder, kept->key, bytes, sizeof hash + size);
    if (!atomic_flag_test_and_set(&shrunk))
        pm_cache_shrink(kept->arena, kept->folder, NULL, OBJECT_CACHE_BYTES);
}
