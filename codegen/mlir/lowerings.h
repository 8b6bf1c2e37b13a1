/// The lowerings that the LOWER column of ops.def names.
#ifndef PM_CODEGEN_MLIR_LOWERINGS_H
#define PM_CODEGEN_MLIR_LOWERINGS_H

#include "codegen/mlir/emit.h"

pm_lower_fn pm_lower_loops, pm_lower_ref, pm_lower_linear, pm_lower_matmul, pm_lower_rope_table,
    pm_lower_rope, pm_lower_softmax, pm_lower_cache, pm_lower_attention, pm_lower_kv_append, pm_lower_sdpa, pm_lower_route, pm_lower_expert_order,
    pm_lower_fused, pm_lower_dims,
    pm_lower_causal_conv, pm_lower_linear_attention, pm_lower_selective_scan;

/// What kernels of the CPU and of devices are told of an op.

/// Whether the first n operands, as far as they are there, are f32.
bool pm_kernel_all_f32(const pm_op *op, uint32_t n);
/// The head size of rows [B, heads, T, size] or [B, T, heads * size]; false when it isn't known.
bool pm_kernel_head_size(const pm_value *v, int64_t heads, int64_t *out);
/// How the decay operand is laid out, as pm_k_linear_attention counts it.
int64_t pm_kernel_decay_kind(const pm_op *op);
/// The number of the word that an attribute of route has, as pm_k_route counts it.
int64_t pm_kernel_choice(const pm_op *op, const char *attribute);
/// linear and grouped_linear on a device, on the general road.
pm_lower_fn pm_lower_device_product;
/// The weight of a product that is never computed: its codes, scales and zeros are what the dispatch reads; or NULL.
pm_value *pm_device_codes(const pm_op *op);

/// Writes the epilogue of a product's dispatch: a function `name` that computes the group's outputs
/// from a finished tile of `panel` columns, those of `ways` products side by side. Stores its context at d's insertion point.
pm_status pm_emit_epilogue(dispatch *d, const char *name, const pm_op *product, int32_t panel, int32_t ways,
                           bool grouped, MlirValue *out_context);

/// Calls the reference `eval` (or extent) function of an op by its bitcode name. `out`: for extents,
/// where the dims go (int64_t[n_results * PM_MAX_RANK]); else a NULL pointer.
MlirValue pm_emit_reference_call(dispatch *d, const char *function, const MlirValue *extents);

#endif
