/// Elementwise ops on single elements, as MLIR arithmetic.
#ifndef PM_CODEGEN_MLIR_EMIT_SCALAR_H
#define PM_CODEGEN_MLIR_EMIT_SCALAR_H

#include "codegen/mlir/emit.h"

/// Type in which an element is computed: f32 for the small floats, i1 for bool, else its own.
MlirType pm_scalar_type(mb *b, pm_elem elem);
MlirValue pm_scalar_load(mb *b, pm_elem elem, MlirValue pointer);
void pm_scalar_store(mb *b, pm_elem elem, MlirValue value, MlirValue pointer);
MlirValue pm_scalar_const(mb *b, pm_elem elem, double value);
/// Converts between the computing types of two element types (cast).
MlirValue pm_scalar_cast(mb *b, MlirValue value, pm_elem from, pm_elem to);
/// Applies an elementwise op that pm_op_can_loop to operands in their computing types. False: no such
/// op here.
bool pm_scalar_apply(mb *b, const pm_op *op, const MlirValue *args, MlirValue *out);

#endif
