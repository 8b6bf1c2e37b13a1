/// Artifacts from outside: finds the payload in an executable, a shared library, an object or a static library, and
/// checks it as the runtime does. Nothing of it is run.
#ifndef PM_TOOLS_ARTIFACT_FILE_H
#define PM_TOOLS_ARTIFACT_FILE_H

#include "base/file.h"
#include "runtime/rt_internal.h"

typedef struct pm_artifact {
    const char *kind; ///< "executable", "shared library", "object", "static library"
    uint64_t file_size;
    pm_model model;   ///< tables over the mapped file
} pm_artifact;

/// Errors: PM_ERR_INVALID where it carries no payload (stripped, cut, or nothing of ours) or a damaged one.
/// `verify`: the hash of every section, too.
PM_NODISCARD pm_status pm_artifact_open(pm_arena *arena, pm_diag *diag, const char *path, bool verify,
                                        pm_artifact **out);

#endif
