/// What passes that rewrite graphs share.
#ifndef PM_PASSES_GENERIC_REWRITE_H
#define PM_PASSES_GENERIC_REWRITE_H

#include "ir/builder.h"

typedef PM_VEC(pm_graph *) pm_graph_vec;

/// All graphs of the module, outer ones first: entries and regions. Groups that `fuse` formed are
/// left out: what they hold was chosen for one loop nest.
void pm_graphs_of(const pm_module *m, pm_arena *scratch, pm_graph_vec *out_graphs);

/// Of one entry the graphs that run: itself and the regions of if and loop in it, outer ones first.
void pm_bodies_of(pm_graph *entry, pm_arena *scratch, pm_graph_vec *out_graphs);

/// As pm_value_use_count(v) > 0, without counting.
bool pm_value_is_used(const pm_value *v);

/// Whether `v` shows the bytes of its op's operand 0: views and in-place ops.
bool pm_value_shows_operand(const pm_value *v);
/// The value whose bytes `v` shows, following views and in-place ops.
pm_value *pm_value_origin(pm_value *v);
/// Codes of few bits that lie in the payload: what a product on a device beside the CPU reads instead of `v`.
bool pm_value_is_codes(const pm_value *v);
/// Whether operand `i` of `op` is read as bytes (a shape that is known is not, nor what stands for codes).
bool pm_op_reads_bytes(const pm_op *op, uint32_t i);

/// A set of values or types by their ids; ids that came later are not in it.
typedef struct pm_id_set {
    uint8_t *has;
    size_t n;
} pm_id_set;

pm_id_set pm_id_set_create(pm_arena *scratch, size_t n);
static inline bool pm_id_set_has(const pm_id_set *set, uint32_t id)
{
    return id < set->n && set->has[id];
}
static inline void pm_id_set_add(pm_id_set *set, uint32_t id)
{
    if (id < set->n)
        set->has[id] = 1;
}

/// Values whose bytes an in-place op overwrites: using another value in their stead, or them in the
/// stead of another, could move a read behind the write.
pm_id_set pm_overwritten_values(const pm_module *m, const pm_graph_vec *graphs, pm_arena *scratch);
/// True when `old` may be replaced by `value` as far as in-place ops are concerned.
bool pm_may_stand_for(const pm_id_set *overwritten, const pm_value *old, const pm_value *value);

/// What `old` may be replaced by: `value`, or, where in-place ops forbid that, a copy of it before `op`.
PM_NODISCARD pm_status pm_stand_in(pm_op *op, const pm_id_set *overwritten, const pm_value *old,
                                   pm_value *value, pm_value **out_value);

/// Symbols and the extents that they turned out to be.
typedef struct pm_symbol_extent {
    uint32_t symbol;
    pm_dim extent;
} pm_symbol_extent;
typedef PM_VEC(pm_symbol_extent) pm_symbol_extents;

/// Replaces the symbols in all types and contents of the module.
void pm_symbols_replace(pm_module *m, const pm_symbol_extents *known, pm_arena *scratch);

#endif
