/// Work in processes of its own: a crash there is a result here. Temporary folders that go away.
#ifndef PM_TOOLS_CHILD_PROCESS_H
#define PM_TOOLS_CHILD_PROCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/diag.h"

typedef struct pm_child_end {
    int exit_code; ///< when it ended by itself
    int signal;    ///< 0, or what killed it
    bool timed_out;
} pm_child_end;

/// Runs work(arg) in a forked child, which ends with its return value as exit code; what it prints goes to standard
/// error. It dies with this process, and by SIGKILL after `seconds`.
PM_NODISCARD pm_status pm_child_run(pm_diag *diag, int (*work)(void *arg), void *arg, double seconds,
                                    pm_child_end *out_end);

/// Zeroed memory that forked children share; freed with the arena.
PM_NODISCARD pm_status pm_shared_memory(pm_arena *arena, pm_diag *diag, size_t size, void **out);

/// A new folder in TMPDIR (else /tmp), removed with its files with the arena, and by SIGINT, SIGTERM and SIGHUP.
/// One at a time.
PM_NODISCARD pm_status pm_temp_folder(pm_arena *arena, pm_diag *diag, char **out_path);

#endif
