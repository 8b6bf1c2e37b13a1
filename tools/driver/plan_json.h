/// The plan of a placement (passes/plan.h) as JSON.
#ifndef PM_TOOLS_PLAN_JSON_H
#define PM_TOOLS_PLAN_JSON_H

#include "passes/plan.h"
#include "tools/cli/json_out.h"

/// Under "placement": devices, experts of each layer with their devices, routers and attentions, what crosses.
void pm_plan_json(pm_json_out *w, const pm_plan *plan);

#endif
