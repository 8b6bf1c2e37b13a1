/// Functions of dispatches, made once per distinct structure.
#ifndef PM_CODEGEN_MLIR_EMIT_DISPATCH_H
#define PM_CODEGEN_MLIR_EMIT_DISPATCH_H

#include "codegen/mlir/emit.h"

/// Distinct operands of an op, then its results: the pointer arguments of its function, which
/// takes (pointers…, symbols, scratch, worker, n_workers) and returns 0 or 1 (data at fault).
size_t pm_dispatch_values(emitter *e, pm_op *op, pm_value ***out_values);
PM_NODISCARD pm_status pm_dispatch_function(emitter *e, pm_op *op, const char **out_name);
/// As pm_dispatch_function for the op's extents: pointers are the operands alone, and `scratch`
/// receives int64_t[n_results * PM_MAX_RANK].
PM_NODISCARD pm_status pm_extent_function(emitter *e, pm_op *op, const char **out_name);

#endif
