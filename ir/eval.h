/// The calling convention of an op's meaning in plain C (`eval`) and of its run-time extents.
///
/// These functions are the oracle: constant folding, the interpreter and every numeric test use
/// them. The same sources are compiled to bitcode, and an op without a faster lowering runs them,
/// specialised, inside the emitted program. So they depend on this header and libm alone: no
/// allocation, no globals, no I/O. Tensors are contiguous, row-major.
#ifndef PM_IR_EVAL_H
#define PM_IR_EVAL_H

#include "base/elem.h"

typedef struct pm_tensor {
    void *data; ///< NULL: an optional input that is absent
    const int64_t *dims;
    int32_t rank;
    int32_t elem; ///< pm_elem
} pm_tensor;

/// Value of an attribute, in the order of the op's attribute list in ops.def. Which member is
/// valid follows from the declared kind (bool, i64 and elem: i; f64: f; str: s; ints; floats).
typedef struct pm_attr_value {
    int64_t i;
    double f;
    const char *s;
    const int64_t *ints;
    const double *floats;
    int64_t n;       ///< length of ints / floats / s
    int32_t present; ///< 0: neither given nor a default
} pm_attr_value;

typedef struct pm_eval_args {
    const pm_tensor *in;
    int32_t n_in;
    const pm_tensor *out; ///< data and dims are set; eval fills data
    int32_t n_out;
    const pm_attr_value *attrs;
} pm_eval_args;

/// Computes the op. Returns 0, or 1 when a value in the data is at fault (an index out of range, a
/// size that does not fit): then the outputs are unspecified but nothing outside was touched.
typedef int32_t pm_eval_fn(const pm_eval_args *args);

/// Finds the dims of the outputs from concrete inputs (for data-dependent extents): writes the
/// rank[i] dims of output i to dims[i * PM_MAX_RANK…]. `out` in args is not valid yet.
/// Returns 0, or 1 when the data is at fault.
typedef int32_t pm_extent_fn(const pm_eval_args *args, int64_t *dims);

#endif
