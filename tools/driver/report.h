/// --report: what became of a model, as JSON for programs or HTML for people.
#ifndef PM_TOOLS_REPORT_H
#define PM_TOOLS_REPORT_H

#include "tools/driver/driver.h"

/// Writes the report of a finished compilation to d->options->report; the ending says which kind.
PM_NODISCARD pm_status pm_report_write(pm_driver *d, const char *model, const char *output);

#endif
