/// A placement as annotations of the ONNX model that it is of.
#ifndef PM_TOOLS_SHARDING_H
#define PM_TOOLS_SHARDING_H

#include "tools/driver/driver.h"

/// Copies the model to `output` with the plan of `d`, whose passes have run up to `transfers`, as multi-device
/// annotations. Nodes that no op is left of have none.
PM_NODISCARD pm_status pm_sharding_write(pm_driver *d, const char *model, const char *output, size_t *out_annotated);

#endif
