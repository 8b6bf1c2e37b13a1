/// What the verify, infer and fold hooks of ir/ops/hooks_*.c share.
#ifndef PM_IR_OPS_HOOKS_H
#define PM_IR_OPS_HOOKS_H

#include <inttypes.h>

#include "ir/op_table.h"

/// Integer tensors with more elements have no known content.
enum { PM_MAX_CONTENT = 64 };

/// The error of a verify hook, prefixed by the op's name.
pm_status pm_hook_error(const pm_op *op, pm_diag *diag, const char *fmt, ...) PM_PRINTF(3, 4);

static inline const pm_type *pm_hook_type(const pm_op *op, uint32_t operand)
{
    return op->operands[operand]->type;
}

static inline pm_module *pm_hook_module(const pm_op *op)
{
    return op->graph->module;
}

/// Text of an operand's type, for messages.
const char *pm_hook_type_text(const pm_op *op, uint32_t operand);

/// True when the op has that optional operand.
static inline bool pm_hook_has(const pm_op *op, uint32_t operand)
{
    return operand < op->n_operands && op->operands[operand] != NULL;
}

/// An axis counted from the end when negative; an error when it isn't one of `rank`.
PM_NODISCARD pm_status pm_hook_axis(const pm_op *op, pm_diag *diag, const char *what, int64_t axis,
                                    int32_t rank, int32_t *out_axis);
/// The attribute `axis` (or the like) of an op that passed its verify hook.
int32_t pm_hook_axis_of(const pm_op *op, const char *key, int32_t rank);

PM_NODISCARD pm_status pm_hook_rank(const pm_op *op, pm_diag *diag, uint32_t operand, int32_t rank);
PM_NODISCARD pm_status pm_hook_elem(const pm_op *op, pm_diag *diag, uint32_t operand, pm_elem elem);
PM_NODISCARD pm_status pm_hook_float(const pm_op *op, pm_diag *diag, uint32_t operand);
PM_NODISCARD pm_status pm_hook_int(const pm_op *op, pm_diag *diag, uint32_t operand);
/// An error when the two extents can't be equal; `what` names them.
PM_NODISCARD pm_status pm_hook_extent(const pm_op *op, pm_diag *diag, const char *what,
                                      pm_dim found, pm_dim expected);
PM_NODISCARD pm_status pm_hook_one_of(const pm_op *op, pm_diag *diag, const char *key,
                                      const char *const *names, size_t n);

/// Known elements of an integer or bool tensor of rank 0 or 1; NULL when unknown.
const pm_dim *pm_hook_content(const pm_value *v, size_t *out_n);
/// The only element of such a tensor; PM_DIM_NONE when unknown.
pm_dim pm_hook_scalar(const pm_value *v);
/// Number of elements of a rank 1 tensor when it is constant; false otherwise.
bool pm_hook_length(const pm_op *op, uint32_t operand, int64_t *out_n);
/// A constant of one element, of any element type but 64-bit integers beyond 2^53; false otherwise.
bool pm_hook_number(pm_value *v, double *out_number);
/// True when v is a constant (or a broadcast of one by `fill` or `expand`) with all elements equal
/// to one number.
bool pm_hook_splat(pm_value *v, double *out_number);

/// The broadcast of two extents; `axis` for the message, counted from the end of the result.
PM_NODISCARD pm_status pm_hook_broadcast(pm_infer *inf, pm_dim a, pm_dim b, pm_dim *out_dim);
/// dims and rank: of one tensor on entry, of its broadcast with `other` on return.
PM_NODISCARD pm_status pm_hook_broadcast_dims(pm_infer *inf, pm_dim *dims, int32_t *rank,
                                              const pm_dim *other, int32_t other_rank);
/// The inferred type of result `result`, from dims.
PM_NODISCARD pm_status pm_hook_result(pm_infer *inf, uint32_t result, pm_elem elem, int32_t rank,
                                      const pm_dim *dims);

#endif
