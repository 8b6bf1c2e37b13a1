/// Functions of dispatches, made once per distinct structure.
#ifndef PM_CODEGEN_MLIR_EMIT_DISPATCH_H
#define PM_CODEGEN_MLIR_EMIT_DISPATCH_H

#include "codegen/mlir/emit.h"

/// The function of a dispatch takes (pointers…, symbols, scratch, worker, n_workers) and returns 0 or 1
/// (data at fault).
typedef struct pm_dispatch_fn {
    const char *name;
    const uint32_t *symbols; ///< whose values `symbols` points to: ops that differ in them alone share it
    size_t n_symbols;
} pm_dispatch_fn;

/// Distinct operands of an op, then its results: the pointer arguments of its function.
size_t pm_dispatch_values(emitter *e, pm_op *op, pm_value ***out_values);
PM_NODISCARD pm_status pm_dispatch_function(emitter *e, pm_op *op, pm_dispatch_fn *out_fn);
/// As pm_dispatch_function for the op's extents: pointers are the operands alone, and `scratch`
/// receives int64_t[n_results * PM_MAX_RANK].
PM_NODISCARD pm_status pm_extent_function(emitter *e, pm_op *op, pm_dispatch_fn *out_fn);

#endif
