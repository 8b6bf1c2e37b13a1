/// Views: values whose elements are those of another value, some of them and in another order.
#ifndef PM_IR_STRIDED_H
#define PM_IR_STRIDED_H

#include "ir/graph.h"

/// Element (i, j, …) of the view is element offset + i * strides[0] + j * strides[1] + … of `root`.
typedef struct pm_strided {
    const pm_value *root; ///< no view itself
    int64_t offset;
    int32_t rank;
    int64_t dims[PM_MAX_RANK], strides[PM_MAX_RANK];
} pm_strided;

/// True when `v` is a chain of transpose, slice and reshape over a value, its extents and the ops'
/// operands are constant, and strides can say it (a reshape may join only what lies side by side).
/// Also true of a value that is no view: it is its own root.
bool pm_strided_of(const pm_module *m, const pm_value *v, pm_strided *out);

#endif
