/// Groups of ops while they are found (fuse.c) and made (fuse_outline.c).
#ifndef PM_PASSES_GENERIC_FUSE_H
#define PM_PASSES_GENERIC_FUSE_H

#include "ir/loop_space.h"
#include "passes/passes.h"

typedef struct pm_cluster {
    struct pm_cluster *into; ///< merged into that one
    PM_VEC(pm_op *) members; ///< in order
    pm_op *product;          ///< linear or grouped_linear that the others are the epilogue of
    pm_op *second;           ///< another product of the same rows
    const pm_type *space;
    bool closed;
} pm_cluster;

typedef struct pm_fusion {
    pm_pass_ctx *ctx;
    pm_graph *graph;
    pm_cluster **cluster_of; ///< by the op's number (its mark)
    PM_VEC(pm_cluster *) clusters;
} pm_fusion;

/// The group that an op is in, or NULL.
pm_cluster *pm_cluster_of(const pm_fusion *f, const pm_op *op);
bool pm_op_is_product(const pm_op *op);
/// Whether operand i is read element by element (a shape is not, it is known as expressions).
bool pm_op_reads_elements(const pm_op *op, uint32_t i);
/// Makes a group's members one `fused` op, where the last of them stands.
PM_NODISCARD pm_status pm_cluster_outline(pm_fusion *f, pm_cluster *c);

#endif
