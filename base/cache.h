/// What was computed before and is kept in a folder of the user's: by content, never trusted blindly.
#ifndef PM_BASE_CACHE_H
#define PM_BASE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"

/// PIMOE_CACHE_DIR, else XDG_CACHE_HOME/pimoe, else HOME/.cache/pimoe, and `sub` beneath it (NULL: itself); created
/// where that is possible, perhaps not writable. NULL when there is none, and when it is another user's or others may
/// write to it.
const char *pm_cache_folder(pm_arena *arena, const char *sub);

/// Removes what was not used for longest until the rest has at most `most` bytes; `keep` (a path, or NULL) stays.
/// PIMOE_CACHE_BYTES overrides `most`. Files count whose names are keys.
void pm_cache_shrink(pm_arena *arena, const char *folder, const char *keep, uint64_t most);

/// Adds what tells this program from others: what it makes depends on it.
void pm_cache_add_program(pm_hasher *hasher);

/// The bytes kept under `key` in `folder` (NULL: nothing is), in the arena. False when there are none, and when they are
/// damaged, of another user, or no plain file.
bool pm_cache_get(pm_arena *arena, const char *folder, pm_hash128 key, const uint8_t **out_bytes, size_t *out_size);
/// Keeps bytes. A cache that can't be written is no error.
void pm_cache_put(pm_arena *arena, const char *folder, pm_hash128 key, const void *bytes, size_t size);

#endif
