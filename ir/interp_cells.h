/// What the interpreter's parts share. For interp.c, interp_cells.c and interp_regions.c.
///
/// Tensors are row-major always. A value of a packed type is kept as the row-major matrix that it
/// packs: with two sources (ways = 2) the rows of source 0, then those of source 1.
#ifndef PM_IR_INTERP_CELLS_H
#define PM_IR_INTERP_CELLS_H

#include "ir/op_table.h"

enum { PM_UNBOUND = -1 };

/// A heap block: bytes that several values may share, or scratch memory. All are in one list, so
/// that whatever an error (or running out of memory) leaves behind is freed at the end.
typedef struct pm_block {
    struct pm_block *prev, *next;
    size_t n_users;
    void *data; ///< what follows this header, or bytes of a constant or a caller
} pm_block;

/// A value while it lives.
typedef struct pm_cell {
    pm_block *buffer; ///< NULL: not computed, or freed after the last use
    uint32_t uses_left;
    pm_elem elem;
    int32_t rank;
    int64_t dims[PM_MAX_RANK];
} pm_cell;

typedef struct pm_interp {
    pm_module *module;
    pm_diag *diag;
    pm_cell *cells;    ///< by value id; regions are isolated, so one table serves all
    int64_t *bindings; ///< by symbol; PM_UNBOUND
    pm_block blocks;   ///< head of the list of all blocks
    int depth;
} pm_interp;

pm_block *pm_block_create(pm_interp *in, size_t size);
/// Bytes that someone else owns. Never NULL inside: an eval takes that for an absent operand.
pm_block *pm_block_borrow(pm_interp *in, const void *data);
void pm_block_free(pm_block *b);
/// Zeroed scratch memory for `n` items; never NULL on success.
PM_NODISCARD pm_status pm_interp_scratch(pm_interp *in, const pm_loc *loc, size_t n, size_t size,
                                         pm_block **out);
pm_status pm_interp_no_memory(pm_interp *in, const pm_loc *loc);

/// Number of elements and of bytes; false when negative or too large.
bool pm_cell_count(const pm_cell *c, int64_t *out_count);
bool pm_cell_bytes(const pm_cell *c, int64_t *out_bytes);
/// Memory for the cell's dims, not initialised.
PM_NODISCARD pm_status pm_cell_allocate(pm_interp *in, const pm_loc *loc, pm_cell *c);
void pm_cell_clear(pm_cell *c);
/// A second user of the same bytes.
pm_cell pm_cell_share(const pm_cell *c);
pm_tensor pm_cell_tensor(const pm_cell *c);
const char *pm_cell_dims_text(pm_interp *in, const pm_cell *c);

pm_cell *pm_interp_cell(pm_interp *in, const pm_value *value);
/// The cell of an operand, NULL when it is absent.
pm_cell *pm_interp_operand(pm_interp *in, const pm_op *op, uint32_t i);

/// Compares a type's dims with actual ones: a symbol that has no value yet gets it. `what` is for
/// the message ("argument 'x'", "result 0 of topk").
PM_NODISCARD pm_status pm_interp_bind(pm_interp *in, const pm_loc *loc, const char *what,
                                      const pm_type *type, const pm_cell *c);
PM_NODISCARD pm_status pm_interp_bind_result(pm_interp *in, const pm_op *op, uint32_t i);

/// A call of another op's eval (the parts of which `experts` is made).
int32_t pm_interp_eval(pm_opcode code, const pm_tensor *inputs, int32_t n_inputs,
                       const pm_tensor *outputs, int32_t n_outputs, const pm_attr_value *attrs);
/// The error of an eval that refuses its data.
pm_status pm_interp_bad_data(pm_interp *in, const pm_op *op);

/// Runs one graph. The args' cells are taken; `results` gets one cell for each result, which the
/// caller clears. No value of the graph is left.
PM_NODISCARD pm_status pm_interp_graph(pm_interp *in, const pm_graph *g, pm_cell *args,
                                       size_t n_args, pm_cell *results, const pm_loc *loc);

/// interp_regions.c. The first: fused, a region that takes the operands from `first` on.
PM_NODISCARD pm_status pm_interp_region(pm_interp *in, const pm_op *op, uint32_t which,
                                        uint32_t first);
PM_NODISCARD pm_status pm_interp_if(pm_interp *in, const pm_op *op);
PM_NODISCARD pm_status pm_interp_loop(pm_interp *in, const pm_op *op);
PM_NODISCARD pm_status pm_interp_experts(pm_interp *in, const pm_op *op);

#endif
