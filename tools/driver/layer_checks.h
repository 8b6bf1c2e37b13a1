/// What is odd about a layer of experts and legal all the same: experts that nobody can choose, scores that are always
/// equal, experts that are equal.
#ifndef PM_TOOLS_LAYER_CHECKS_H
#define PM_TOOLS_LAYER_CHECKS_H

#include "tools/driver/summary.h"

/// Routers: warnings into `diag`. Reads their weights only.
PM_NODISCARD pm_status pm_check_routers(pm_summary *s, pm_diag *diag);

/// Numbers of experts that are equal to an earlier one of their layer; needs pm_summary_experts. Returns their number,
/// and the first pair.
int64_t pm_equal_experts(const pm_layer_summary *layer, int64_t *out_first, int64_t *out_second);

#endif
