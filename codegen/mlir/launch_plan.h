/// Launches: how an op runs on a device beside the CPU (docs/decisions/0013-gpu.md).
///
/// The host's entry gives the device a kernel and its words. A hot op has a row in launches.def: a function that
/// names a CUDA template (codegen/cuda/templates.def), pushes its words and says how many blocks. Any other
/// op takes the general road: its dispatch function, as the CPU would run it, with a thread for each worker.
#ifndef PM_CODEGEN_MLIR_LAUNCH_PLAN_H
#define PM_CODEGEN_MLIR_LAUNCH_PLAN_H

#include "codegen/kernel_list.h"
#include "codegen/mlir/emit_entry.h"

/// A launch while it is planned.
typedef struct launch {
    entry *n;
    mb *b;
    pm_op *op;
    pm_kernel kernel;
    MlirValue words[PM_LAUNCH_MAX_WORDS]; ///< i64
    uint32_t n_words;
    MlirValue blocks;                     ///< i64
    int64_t dispatch;                     ///< number of the dispatch
} launch;

/// Plans a launch of l->op. May plan and finish several (pm_launch_finish) where an op needs more than one kernel; the
/// last one is finished by the caller. None (pm_launch_use was not called): another op's launch does it. PM_ERR_UNSUPPORTED without a diagnostic: the general road, before any word was pushed.
typedef pm_status pm_launch_fn(launch *l);

/// The template of the launch; clears words and constants.
void pm_launch_use(launch *l, const char *template_name);
/// Pushes the address of a value on the op's device; 0 for an absent operand.
void pm_launch_value(launch *l, const pm_value *value);
void pm_launch_operand(launch *l, uint32_t i);
void pm_launch_i64(launch *l, MlirValue value);
void pm_launch_const(launch *l, int64_t value);
void pm_launch_f64(launch *l, double value); ///< the bits of a double
/// Pushes an extent (of a value's dim i, from the end when negative), under a name as a constant when it is one.
void pm_launch_dim(launch *l, const pm_value *value, int32_t i, const char *name);
/// Pushes a number that is constant for this model.
void pm_launch_fix(launch *l, const char *name, int64_t value);
/// The two words by which a kernel tells that the data is at fault: int32_t *status, int64 mark (see pm_kernel_fail).
void pm_launch_status(launch *l);
/// Extents as i64, to compute with.
MlirValue pm_launch_dim_of(launch *l, const pm_value *value, int32_t i);
MlirValue pm_launch_count_of(launch *l, const pm_value *value, int32_t from, int32_t to); ///< product of dims [from, to); `to` negative: from the end
MlirValue pm_launch_ceil_div(launch *l, MlirValue x, int64_t by);
/// Sets the number of blocks.
void pm_launch_blocks(launch *l, MlirValue blocks);
/// Memory of the device that the launches of this op share (partial results): its address; at most PM_RT_DEVICE_WORKERS
/// pieces of `bytes` bytes in all.
MlirValue pm_launch_scratch(launch *l);
/// The address of a map of a weight that lies on the op's device (cu_product.h); extents and strides as pm_tensor_map.
MlirValue pm_launch_tensor_map(launch *l, const pm_value *weight, const uint64_t extents[3], const uint64_t strides[2]);
/// Whether code is made for a chip that has wgmma; whether the op's device is one (i1).
bool pm_launch_may_have_wgmma(const launch *l);
MlirValue pm_launch_has_wgmma(launch *l);
/// Emits the launch.
void pm_launch_finish(launch *l);

#define PM_LAUNCH(op, function) pm_launch_fn function;
#include "codegen/mlir/launches.def"

/// The plan of an op's launch, or NULL (the general road).
pm_launch_fn *pm_launch_fn_of(const pm_op *op);
/// Emits all launches of an op that lives on a device; transfers too.
PM_NODISCARD pm_status pm_emit_device_op(entry *n, pm_op *op, int64_t dispatch);

/// Number of a device in the model's list.
int64_t pm_entry_device(const entry *n, const char *device);

#endif
