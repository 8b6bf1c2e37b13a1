/// Creating ops with their result types inferred.
#ifndef PM_IR_BUILDER_H
#define PM_IR_BUILDER_H

#include "ir/graph.h"

/// Where new ops go and which location they get.
typedef struct pm_builder {
    pm_graph *graph;
    pm_op *before; ///< NULL: at the end
    const pm_loc *loc;
} pm_builder;

/// Creates an op and infers its result types. `n_results` 0: the op's fixed number (ops.def).
/// Errors: those of pm_op_create and of the op's infer and verify hooks, with the location; then no
/// op is left behind. Ops with regions: pm_op_create, fill the regions, then pm_op_infer.
PM_NODISCARD pm_status pm_build(pm_builder *b, pm_opcode code, pm_value *const *operands,
                                size_t n_operands, const pm_attr *attrs, size_t n_attrs,
                                size_t n_results, pm_op **out_op);

/// The common case: one result. Example:
///   PM_TRY(pm_build1(b, &y, PM_OP_softmax, PM_OPERANDS(x), PM_ATTRS(pm_attr_i64("axis", -1))));
PM_NODISCARD pm_status pm_build1(pm_builder *b, pm_value **out_value, pm_opcode code,
                                 pm_value *const *operands, size_t n_operands, const pm_attr *attrs,
                                 size_t n_attrs);
#define PM_OPERANDS(...)                                                                           \
    (pm_value *const[]){__VA_ARGS__}, sizeof((pm_value *const[]){__VA_ARGS__}) / sizeof(pm_value *)
#define PM_ATTRS(...)                                                                              \
    (const pm_attr[]){__VA_ARGS__}, sizeof((const pm_attr[]){__VA_ARGS__}) / sizeof(pm_attr)
#define PM_NO_ATTRS NULL, 0

/// A constant. `data` may point to a file range; its size must be that of the type.
PM_NODISCARD pm_status pm_build_const(pm_builder *b, const pm_type *type, const pm_data *data,
                                      const char *name, pm_value **out_value);
PM_NODISCARD pm_status pm_build_const_ints(pm_builder *b, pm_elem elem, int32_t rank,
                                           const int64_t *dims, const int64_t *values,
                                           pm_value **out_value);
PM_NODISCARD pm_status pm_build_const_f32(pm_builder *b, int32_t rank, const int64_t *dims,
                                          const float *values, pm_value **out_value);

/// Extents as an i64[n] tensor (op `dims`), for the shape operand of reshape, expand, fill, empty.
/// A constant when all are constant.
PM_NODISCARD pm_status pm_build_dims(pm_builder *b, int32_t n, const pm_dim *dims,
                                     pm_value **out_value);
/// Reshapes x to the extents, in the plainest form: a constant shape, with -1 for one extent that
/// isn't constant, else `dims`. x itself when it has that type.
PM_NODISCARD pm_status pm_build_reshape_dims(pm_builder *b, pm_value *x, int32_t rank,
                                             const pm_dim *dims, pm_value **out_value);

/// Copies the ops of a region to the builder's place; its arguments stand for `args`, and
/// `out_results` gets what its results are there. Types are inferred from the arguments' own; extents
/// that the region finds get symbols of their own.
PM_NODISCARD pm_status pm_region_inline(pm_builder *b, const pm_graph *region,
                                        pm_value *const *args, pm_value **out_results);

/// What an infer hook sees: the op with its operands; it sets a type for each result.
typedef struct pm_infer {
    pm_module *module;
    pm_op *op;
    const pm_type **types; ///< [n_results], to be filled
    pm_diag *diag;
    bool check_only; ///< pm_op_check: pm_infer_fresh makes no symbols
    bool finds;      ///< set by pm_infer_fresh
} pm_infer;

/// A data-dependent extent for dim `dim` of result `result`: what the op already has there when
/// inferred before (its symbol, or what pass extents has found that it must be), else a fresh one.
pm_dim pm_infer_fresh(pm_infer *inf, uint32_t result, int32_t dim, pm_dim bound);
/// The error of an infer hook, prefixed by the op's name.
pm_status pm_infer_error(pm_infer *inf, const char *fmt, ...) PM_PRINTF(2, 3);
/// Known integer content of result `result` (copied into the arena).
void pm_infer_content(pm_infer *inf, uint32_t result, const pm_dim *content, size_t n);

/// Checks an op by its verify hook, then infers its result types (again, after its operands changed).
/// Results keep the types they had when it fails.
PM_NODISCARD pm_status pm_op_infer(pm_op *op);
/// True when the types or the content of the op's operands mention the symbol, so that it's another
/// op that finds its value.
bool pm_op_takes_symbol(const pm_op *op, uint32_t symbol);
/// True when the op's extents are found while the program runs, whatever its result types say; then
/// they are compared with those.
bool pm_op_finds_extents(pm_op *op);
/// Checks an op by its verify hook and that its results have the types that inference gives (or types
/// that say more). Changes nothing.
PM_NODISCARD pm_status pm_op_check(pm_op *op);

#endif
