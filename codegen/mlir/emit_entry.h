/// An entry while it is written: the line of dispatches that every worker runs, and its branches.
#ifndef PM_CODEGEN_MLIR_EMIT_ENTRY_H
#define PM_CODEGEN_MLIR_EMIT_ENTRY_H

#include "codegen/mlir/emit_dispatch.h"

/// Where bytes lie, for telling which dispatches depend on each other.
typedef struct location {
    pm_place_kind kind;
    uint32_t index;
    pm_dim offset;
} location;

typedef struct access {
    location at;
    bool written;
} access;

/// What a transfer brings to the host, and nobody waited for yet.
typedef struct coming {
    const pm_value *value, *source; ///< the memory's owners, here and on the device
    const char *device;
    int64_t dispatch;
} coming;

typedef struct entry {
    emitter *e;
    mb *b;
    pm_graph *graph;
    uint32_t number;
    MlirValue call, worker, n_workers;
    MlirValue arena, inputs, outputs, states, weights, symbols, scratch;
    PM_VEC(access) epoch; ///< what was touched since the last barrier
    PM_VEC(coming) coming;
    bool may_fail;        ///< some dispatch since the last barrier may have noted a fault
    uint32_t *bound;      ///< by symbol: its number in the list + 1; 0: no value yet
    PM_VEC(uint32_t) bound_list; ///< those, in order: a region's own are forgotten at its end
    MlirValue *offsets;   ///< by pm_dim: places in the arena, computed at the head
    /// Symbol numbers -> MlirValue *: their values, one behind the other. One map for each region that
    /// is being written: what a branch copied isn't there behind it.
    PM_VEC(pm_map) symbol_lists;
    PM_VEC(MlirValue) locals; ///< by index of their places
    MlirValue words;          ///< room for the words of a launch, where there are devices
} entry;

MlirValue pm_entry_pointer(entry *n, const pm_value *value);
void pm_entry_barrier(entry *n);
location pm_entry_location(const pm_value *v); ///< on the host; nowhere for what lies on a device
/// The device beside the host that holds a value; NULL: the host.
const char *pm_entry_value_device(const pm_value *v);
/// A barrier where what comes must wait for what was touched since the last one; NULL: neither.
void pm_entry_access(entry *n, const pm_value *read, const pm_value *written);
/// Notes without waiting that the value is read.
void pm_entry_touch(entry *n, location at, bool written);
/// Waits for what comes from a device into the memory of `value`, or out of it (NULL: for all).
void pm_entry_await(entry *n, const pm_value *value);
/// A status that isn't 0: the data is at fault.
void pm_entry_fault(entry *n, MlirValue status, int64_t dispatch);
void pm_entry_bind(entry *n, uint32_t symbol); ///< its value is there from now on
/// The dispatches of a graph's ops.
PM_NODISCARD pm_status pm_entry_ops(entry *n, pm_graph *graph);

/// Bytes of a tensor, -1 when they don't fit.
MlirValue pm_entry_bytes(entry *n, const pm_type *type);

/// if and loop; `dispatch`: their number.
PM_NODISCARD pm_status pm_emit_if(entry *n, pm_op *op, int64_t dispatch);
PM_NODISCARD pm_status pm_emit_loop(entry *n, pm_op *op, int64_t dispatch);

#endif
