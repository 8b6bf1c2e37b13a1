/// Which nodes of the input became which layer of experts.
#ifndef PM_TOOLS_ORIGINS_H
#define PM_TOOLS_ORIGINS_H

#include "passes/findings.h"
#include "tools/driver/summary.h"

/// The module's ops as they were loaded: their places, and who uses whom.
typedef struct pm_origins pm_origins;
pm_origins *pm_origins_take(pm_module *m);

/// Once experts and routers are raised: gives each layer the nodes that only served it. `s` is of the module as it is now.
void pm_origins_assign(const pm_origins *origins, const pm_findings *findings, pm_summary *s);

#endif
