/// A line on the terminal that says what is being done and for how long. Nothing anywhere else.
#ifndef PM_TOOLS_PROGRESS_H
#define PM_TOOLS_PROGRESS_H

#include <stdbool.h>

typedef struct pm_progress pm_progress;

/// Shown only when `wanted` and standard error is a terminal; NULL otherwise (all calls take NULL).
pm_progress *pm_progress_start(const char *title, bool wanted);
/// As pm_compile_options.on_step.
void pm_progress_step(void *progress, const char *step, int number, int n_steps);
/// Clears the line and ends.
void pm_progress_end(pm_progress *progress);

#endif
