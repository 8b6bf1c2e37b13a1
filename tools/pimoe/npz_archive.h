/// .npz archives, stored or deflated (numpy.savez and savez_compressed), as arrays in memory.
#ifndef PM_TOOLS_NPZ_ARCHIVE_H
#define PM_TOOLS_NPZ_ARCHIVE_H

#include "base/containers.h"
#include "base/diag.h"
#include "runtime/npy.h"

typedef PM_VEC(pm_npy) pm_npy_vec;

typedef struct pm_npz {
    const char *path;
    pm_npy_vec arrays; ///< data aligned to 64 bytes, owned by the arena
} pm_npz;

/// Reads a whole archive; a lone .npy file is an archive of one array without a name.
/// Errors: PM_ERR_IO; PM_ERR_INVALID for damage (checksums are verified), for sizes that don't fit, and for an entry
/// that claims to inflate to more than deflate can make of its bytes.
PM_NODISCARD pm_status pm_npz_open(pm_arena *arena, pm_diag *diag, const char *path, pm_npz *out);
/// The array of that name, or NULL.
const pm_npy *pm_npz_find(const pm_npz *npz, const char *name);

#endif
