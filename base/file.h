/// Files: mapped for reading, written under a temporary name and renamed when whole.
#ifndef PM_BASE_FILE_H
#define PM_BASE_FILE_H

#include <stdint.h>
#include <stdio.h>

#include "base/diag.h"

/// A file that is open for reading. `data` is mapped lazily by pm_file_map.
typedef struct pm_file {
    const char *path; ///< as opened, for messages
    int fd;
    uint64_t size;
    const uint8_t *data; ///< NULL until mapped
} pm_file;

/// Opens a regular file; the arena owns it (closed and unmapped with the arena).
/// Errors: PM_ERR_IO with the path and the system's reason; PM_ERR_INVALID when not a regular file.
PM_NODISCARD pm_status pm_file_open(pm_arena *arena, pm_diag *diag, const char *path,
                                    pm_file **out_file);

/// Opens `relative` beneath the folder `dir`, for names that come from inside a model: openat2 with
/// RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, refuses absolute paths, hard links (nlink > 1), and
/// anything but regular files. `loc` is the place that named it.
PM_NODISCARD pm_status pm_file_open_beneath(pm_arena *arena, pm_diag *diag, const pm_loc *loc,
                                            const char *dir, const char *relative,
                                            pm_file **out_file);

/// Maps the whole file read-only; afterwards `data` is valid (also for size 0, then not NULL).
PM_NODISCARD pm_status pm_file_map(pm_arena *arena, pm_diag *diag, pm_file *file);

/// Reads exactly `size` bytes at `offset` without mapping (EINTR and short reads handled).
PM_NODISCARD pm_status pm_file_read(pm_diag *diag, const pm_file *file, uint64_t offset,
                                    void *buffer, size_t size);

/// An output file under a temporary name beside its target.
typedef struct pm_out_file {
    FILE *stream; ///< for buffered writing
    int fd;
    char *path, *temp; ///< temp is NULL for a device or pipe, which is written directly
    int error;         ///< errno of the first failed write, 0 when none
    int pending;       ///< slot + 1 in the list that pm_out_clean_on_signals works through
} pm_out_file;

/// Creates the temporary file; the arena's destruction removes it unless committed.
PM_NODISCARD pm_status pm_out_open(pm_arena *arena, pm_diag *diag, const char *path,
                                   unsigned mode, pm_out_file **out_file);
/// Flushes, fsyncs, renames over the target. On failure the target is as it was.
PM_NODISCARD pm_status pm_out_commit(pm_diag *diag, pm_out_file *file);

/// Makes SIGINT, SIGTERM, SIGHUP and SIGABRT (a failed assertion, LLVM without memory) remove
/// uncommitted output files before they end the process (with the signal, as ever). For `main` of
/// a tool; a library must not take its caller's signals.
void pm_out_clean_on_signals(void);
/// Removes uncommitted output files now; for a tool's own signal handler (async-signal-safe).
void pm_out_clean(void);

/// Folder part of a path ("." when there is none), in the arena.
char *pm_path_dir(pm_arena *arena, const char *path);
char *pm_path_join(pm_arena *arena, const char *dir, const char *name);

#endif
