/// Compares an output with what was expected. The tolerances of pimoe check are here and nowhere else.
#ifndef PM_TOOLS_COMPARE_H
#define PM_TOOLS_COMPARE_H

#include <stdbool.h>

#include "runtime/npy.h"

/// Relative and absolute difference allowed for outputs of an element type; integers and bools are exact.
typedef struct pm_tolerance {
    double rtol, atol;
} pm_tolerance;

pm_tolerance pm_tolerance_of(int32_t elem, bool bf16_products);

typedef struct pm_comparison {
    bool pass;
    bool other_shape, other_type;
    int32_t elem, rank, want_elem, want_rank;
    int64_t dims[PM_TENSOR_MAX_RANK], want_dims[PM_TENSOR_MAX_RANK];
    double max_abs;  ///< largest difference; infinity where one is not finite and the other is
    double max_rel;  ///< largest difference over the largest expected magnitude of its row (the last axis)
    int64_t n, n_bad;///< elements, and those beyond the tolerance
    int64_t worst;   ///< index of the largest relative difference
    double got, want;///< values there
} pm_comparison;

/// An element differs when |got - want| > atol + rtol * max|want| over its row (the last axis): a sum that cancels is
/// as exact as its terms, but a row of small numbers is not judged by large ones elsewhere. NaN equals NaN alone.
void pm_compare(const pm_npy *want, int32_t elem, const pm_tensor_arg *got, pm_tolerance tolerance,
                pm_comparison *out);

#endif
