/// Inside of the MLIR side of code generation: one function per distinct dispatch, one per entry.
#ifndef PM_CODEGEN_MLIR_EMIT_H
#define PM_CODEGEN_MLIR_EMIT_H

#include "codegen/codegen.h"
#include "codegen/kernel_list.h"
#include "codegen/mlir/mb.h"
#include "ir/op_table.h"

typedef struct emitter {
    mb b;
    pm_arena *arena;
    pm_module *module;
    pm_diag *diag;
    const pm_target *target;
    const pm_weights *weights;
    pm_map dispatch_names; ///< structure of a dispatch -> name of its function
    PM_VEC(pm_dispatch) dispatches;
    const char *symbol; ///< pm_model_<symbol>
    bool embedded_payload;
    const pm_device_target *devices; ///< beside the CPU
    size_t n_devices;
    struct emitter *device_code;     ///< where their dispatch functions are written; NULL: there are none
    bool for_device;                 ///< this is the one
    bool meets;                      ///< set by a lowering whose threads exchange values
    pm_map meeting;                  ///< names of such functions
    PM_VEC(pm_kernel) kernels;       ///< that launches use, by number
    pm_map kernel_names;             ///< what tells them apart -> number + 1
    PM_VEC(pm_tensor_map) tensor_maps; ///< of all devices
} emitter;

/// A dispatch function while it is written.
typedef struct dispatch {
    emitter *e;
    mb *b;
    pm_op *op;
    pm_value **values; ///< distinct operands, then results
    size_t n_inputs, n_values;
    MlirValue *pointers;   ///< parallel to values
    MlirValue symbols;     ///< int64_t *: values of `mentioned`
    const uint32_t *mentioned; ///< symbols that the dispatch's types mention
    size_t n_mentioned;
    MlirValue scratch;     ///< this worker's
    MlirValue worker, n_workers;
    MlirValue *dims;       ///< by pm_dim id, computed at the function's head; NULL pointer: not yet
    size_t n_dims;
    MlirValue status;      ///< what the function returns; set by the lowering (default 0)
} dispatch;

/// A lowering writes the function's body at d->b. Returns PM_ERR_UNSUPPORTED for what it can't do.
typedef pm_status pm_lower_fn(dispatch *d);

/// How ops are lowered: LOWER column of ops.def.
typedef struct pm_lowering {
    const char *name;
    pm_lower_fn *lower; ///< NULL: no code (view, weight, gone)
    bool view, weight, control, gone;
    int32_t kind;       ///< see pm_dispatch.kind
} pm_lowering;
const pm_lowering *pm_lowering_of(const pm_op *op);

/// Value of a dim expression; at the function's head or where already computed.
MlirValue pm_emit_dim(dispatch *d, pm_dim dim);
/// Product of dims [from, to) of a type.
MlirValue pm_emit_count(dispatch *d, const pm_type *type, int32_t from, int32_t to);
/// The pointer to a value's bytes, NULL for an absent operand.
MlirValue pm_emit_pointer(dispatch *d, const pm_value *value);
/// Memory type of an element.
MlirType pm_emit_elem_type(mb *b, pm_elem elem);
/// Bytes of scratch per worker that the op's kernel needs (0: none).
int64_t pm_emit_scratch_bytes(const pm_op *op);

/// As pm_emit_dim_at; *overflow (an i32 in memory) becomes 1 when the value doesn't fit an i64.
MlirValue pm_emit_dim_checked(emitter *e, MlirValue symbols, pm_dim dim, MlirValue overflow);
/// Bytes of a row-major tensor, in the same way.
MlirValue pm_emit_bytes_checked(emitter *e, MlirValue symbols, const pm_type *type, MlirValue overflow);
/// As pm_emit_dim_at; what `cache` (by pm_dim, room for dim + 1) holds is used, and added to.
MlirValue pm_emit_dim_cached(emitter *e, MlirValue symbols, pm_dim dim, MlirValue *cache);
/// An expression in terms of a pointer to all symbols, emitted at the insertion point (no cache).
MlirValue pm_emit_dim_at(emitter *e, MlirValue symbols, pm_dim dim);

/// Range [*lo, *hi) of `total` for this worker, in multiples of `grain`.
void pm_emit_split(dispatch *d, MlirValue total, int64_t grain, MlirValue *lo, MlirValue *hi);

pm_status pm_emit_entries(emitter *e);

#endif
