/// Expressions over an index space: how loops and epilogues compute fused groups.
#ifndef PM_CODEGEN_MLIR_EMIT_GROUP_H
#define PM_CODEGEN_MLIR_EMIT_GROUP_H

#include "codegen/mlir/emit_scalar.h"
#include "ir/loop_space.h"

/// How a value of the group is addressed.
typedef enum index_mode {
    INDEX_FULL, ///< by the indices of its own dims
    INDEX_FLAT, ///< all values have the space's dims or one element: one running number
    INDEX_ROWS, ///< (row, column) of a pm_rows: the leading dims as one running number
} index_mode;

typedef struct memo {
    const pm_value *value;
    MlirValue idx[PM_MAX_RANK];
    MlirValue result;
} memo;

/// What rows keep beside values: statistics of a norm, addresses of gathered rows.
typedef struct row_note {
    const pm_value *value;
    MlirValue a, b;
    MlirValue many[2 * PM_LOOP_MAX_CHOICES];
} row_note;

typedef struct group {
    dispatch *d;
    mb *b;
    index_mode mode;
    pm_graph *region; ///< NULL: a single op
    pm_op *single;
    const pm_type *space;
    /// Region arguments stand for operands of the dispatch's op.
    PM_VEC(memo) memos;
    PM_VEC(row_note) notes;
    /// Strides of leaves, by value id of the dispatch's operands: computed at the head.
    pm_map strides; ///< MlirValue[PM_MAX_RANK]
    pm_map pointers; ///< MlirValue *: of outer values; set for epilogues, whose pointers come from the context
    MlirValue status; ///< pointer to i32 on the stack, or NULL: indices are checked nowhere in this group
    /// A value that the kernel delivers in a tile (epilogues): result of linear or grouped_linear.
    const pm_value *tiles[2];
    MlirValue tile_pointer, tile_ld, tile_row, tile_col[2];
    MlirValue expert; ///< grouped_linear: which expert the rows belong to
    pm_rows rows;     ///< INDEX_ROWS: the space
    MlirValue rows_n; ///< INDEX_ROWS: its columns
    MlirValue lane;   ///< on devices, where the lanes of a warp share a row: which one; else a NULL pointer
    MlirValue zero;   ///< the one zero for indices of broadcast dims: memos compare values by identity
} group;

enum { PM_WARP_LANES = 32, PM_MAX_LANE_COLUMNS = 4 };

/// Columns of a row for one lane of a warp: `from`, every n * PM_WARP_LANES further below `to`, and from each of them n
/// that are PM_WARP_LANES apart. What is loaded for these is under way together.
typedef struct pm_lane_columns {
    MlirValue from, to;
    int32_t n;
} pm_lane_columns;

void pm_group_init(group *g, dispatch *d, index_mode mode);
/// The outer value that a region argument stands for; itself otherwise.
pm_value *pm_group_outer(const group *g, pm_value *value);
/// Computes strides of all operands at the insertion point (the function's head).
void pm_group_prepare_leaves(group *g);
/// An element of a value: `idx` has one index per dim (INDEX_FULL), or {row, column} or {number}.
PM_NODISCARD pm_status pm_group_eval(group *g, pm_value *value, const MlirValue *idx,
                                     MlirValue *out);
/// Stores an element of an output.
void pm_group_store(group *g, pm_value *output, MlirValue element, const MlirValue *idx);
/// Ops of a group that only name the shape another one has.
static inline bool pm_op_is_shape(const pm_op *op)
{
    return op->code == PM_OP_dims || op->code == PM_OP_const;
}
/// True when the group can be addressed by one running number.
bool pm_group_is_flat(const dispatch *d);
/// True when everything in the group lies in the rows and columns of `space`.
bool pm_group_is_rows(const dispatch *d, const pm_type *space);
/// Enters the space of rows and columns: after pm_group_init with INDEX_ROWS.
void pm_group_use_rows(group *g, const pm_type *space);
/// All columns of a row for g->lane: first several at a time, then those that are left.
void pm_group_lane_columns(const group *g, pm_lane_columns out[2]);
/// Notes what is constant along the last dim, at row level: `idx` of the space, last index 0.
PM_NODISCARD pm_status pm_group_prepare_row(group *g, const MlirValue *idx);

#endif
