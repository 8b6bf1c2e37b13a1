/// safetensors files: names, types and places of tensors, read without touching their bytes.
#ifndef PM_FRONTEND_CHECKPOINT_SAFETENSORS_H
#define PM_FRONTEND_CHECKPOINT_SAFETENSORS_H

#include "base/containers.h"
#include "base/elem.h"
#include "base/file.h"

/// One tensor. Immutable except for `used`.
typedef struct pm_safetensor {
    const char *name;
    const char *dtype; ///< as written ("BF16")
    int32_t elem;      ///< pm_elem, or -1: a type that the IR doesn't have
    int32_t rank;
    const int64_t *dims;
    const pm_file *file;
    uint64_t offset, size; ///< in the file
    bool used;
} pm_safetensor;

/// The tensors of one file or of all shards of a checkpoint.
typedef struct pm_safetensors {
    pm_arena *arena;
    pm_diag *diag;
    const char *path; ///< file or folder, for messages
    pm_map tensors;   ///< by name: pm_safetensor *, in the order of the files' headers
} pm_safetensors;

/// Reads the header of `file` and adds its tensors to `set`. Refuses: a header over 100 MB or beyond
/// the file, unknown or duplicate keys, sizes that differ from shape x type (every product is
/// checked), offsets that overlap or leave holes, a tensor that the set already has.
/// Errors: PM_ERR_INVALID with the file and the tensor; PM_ERR_UNSUPPORTED beyond our limits.
PM_NODISCARD pm_status pm_safetensors_add_file(pm_safetensors *set, const pm_file *file);

/// The tensors of a checkpoint folder: model.safetensors, or every shard that
/// model.safetensors.index.json names (opened beneath the folder only; index and shards must agree).
PM_NODISCARD pm_status pm_safetensors_open(pm_arena *arena, pm_diag *diag, const char *folder,
                                           pm_safetensors **out_set);

pm_safetensor *pm_safetensors_find(const pm_safetensors *set, const char *name);
/// The place of a tensor; `detail` says what asked for it, or is NULL.
pm_loc pm_safetensor_loc(const pm_safetensor *tensor, const char *detail);

#endif
