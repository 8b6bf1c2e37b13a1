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

/// Writes the members as a static archive at `path`. Returns 1 on success.
int pm_archive_write(const char *path, const char *const *member_paths, size_t n, char *message,
                     size_t size);

#ifdef __cplusplus
}
#endif
#endif
