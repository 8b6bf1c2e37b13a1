/// What one loop nest can compute, and how tensors lie in it. Fusion builds groups by these facts,
/// code generation writes their loops by them.
#ifndef PM_IR_LOOP_SPACE_H
#define PM_IR_LOOP_SPACE_H

#include "ir/graph.h"

/// A space of rows and columns: the last dim of a tensor is the columns, the product of the others
/// the rows. Reshapes that keep the last dim change nothing in it.
typedef struct pm_rows {
    pm_dim rows, columns;
} pm_rows;

/// How a tensor is addressed in a space of rows and columns.
typedef enum pm_row_fit {
    PM_FIT_NONE,
    PM_FIT_FULL,   ///< an element for each row and column
    PM_FIT_ROW,    ///< one element for each row: the last dim is 1
    PM_FIT_COLUMN, ///< one element for each column: the leading dims are 1, or there are none
    PM_FIT_ONE,    ///< one element in all
} pm_row_fit;

/// The space of a tensor of rank 1 or more.
pm_rows pm_rows_of(pm_module *m, const pm_type *type);
pm_row_fit pm_rows_fit(pm_module *m, pm_rows space, const pm_type *type);
/// Whether every dim is the constant 1.
bool pm_type_is_one_element(const pm_module *m, const pm_type *type);
/// Whether `type` broadcasts into `space` as numpy does, seen from the dims alone.
bool pm_type_broadcasts_into(const pm_module *m, const pm_type *type, const pm_type *space);

/// Most choices of an expert that combine can unroll in a loop nest.
enum { PM_LOOP_MAX_CHOICES = 16 };

/// A norm or softmax over the last axis: what it needs of a row is computed once per row.
bool pm_op_has_row_statistics(const pm_op *op);
/// A gather of whole rows: gather_rows, combine, gather of rank 2 along axis 0.
bool pm_op_gathers_rows(const pm_op *op);
/// Whether a loop nest can compute the op (others run as kernels or as their reference).
bool pm_op_can_loop(const pm_op *op);

#endif
