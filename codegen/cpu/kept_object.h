/// Machine code of modules, kept by content in the user's cache (base/cache.h): a model for GPUs that was compiled before costs
/// no LLVM at all, as its kernels cost no NVRTC.
#ifndef PM_CODEGEN_KEPT_OBJECT_H
#define PM_CODEGEN_KEPT_OBJECT_H

#include "base/hash.h"
#include "codegen/cpu/device_tables.h"

typedef struct pm_kept_object {
    pm_arena *arena;
    const char *folder; ///< NULL: nothing is kept
    pm_hash128 key;
    pm_hash128 codes;   ///< of the GPUs' codes that are in the object
    const uint8_t *bytes; ///< NULL: there is none
    size_t size;
} pm_kept_object;

/// Looks for the object of a module, whose bitcode is as it is before LLVM optimises it; codes of GPUs are put into it later.
void pm_kept_object_find(pm_arena *arena, const void *bitcode, size_t size, const char *cpu, int opt_level,
                         pm_kept_object *out);
/// Now that the codes are known: whether what was found holds the same.
bool pm_kept_object_has(const pm_kept_object *kept, const pm_device_code *codes, size_t n_codes);
/// Keeps an object and the codes in it.
void pm_kept_object_put(const pm_kept_object *kept, const pm_device_code *codes, size_t n_codes, const uint8_t *object,
                        size_t size);

#endif
