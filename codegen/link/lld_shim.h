/// lld in this process. The one place with C++ behind it.
#ifndef PM_CODEGEN_LINK_LLD_SHIM_H
#define PM_CODEGEN_LINK_LLD_SHIM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Runs ld.lld with `argv` (argv[0] is ignored by it). Returns 1 on success; else its words are
/// written to `message` (NUL-terminated, cut to `size`).
int pm_lld_link(const char *const *argv, size_t argc, char *message, size_t size);

typedef struct pm_archive_member {
    const char *path, *name; ///< the file, and what it is called in the archive
} pm_archive_member;

/// Writes the members, then those of the archive `more` but for the ones whose name begins with
/// `but_for`, as a static archive at `path`. Returns 1 on success.
int pm_archive_write(const char *path, const pm_archive_member *members, size_t n, const char *more,
                     const char *but_for, char *message, size_t size);

#ifdef __cplusplus
}
#endif
#endif
