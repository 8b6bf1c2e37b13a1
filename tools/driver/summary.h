/// What is in a module, for inspect, check and reports: entries with their tensors, layers of experts, ops.
#ifndef PM_TOOLS_SUMMARY_H
#define PM_TOOLS_SUMMARY_H

#include "base/hash.h"
#include "ir/graph.h"
#include "tools/cli/json_out.h"

/// One expert: its weights as the model stores them.
typedef struct pm_expert_summary {
    const char *name; ///< NULL: it has a number only
    uint64_t bytes;
    uint64_t n_tensors;
    pm_hash128 hash;  ///< with `hashed`
    bool hashed;      ///< false: it has weights that are computed rather than stored
} pm_expert_summary;

/// One layer of experts with its router.
typedef struct pm_layer_summary {
    const char *entry, *name;
    const pm_loc *loc;
    int64_t n_experts, top_k;
    bool alike;          ///< equal code, other weights
    const pm_op *route;  ///< NULL: the choice comes from something else
    pm_expert_summary *experts; ///< NULL until pm_summary_experts
    const pm_op *op;
} pm_layer_summary;

typedef struct pm_summary {
    pm_module *module;
    const char *entry; ///< the entry that has most layers
    PM_VEC(pm_layer_summary) layers; ///< of that entry
    int64_t max_experts, total_experts;
    uint64_t weight_bytes; ///< of all constants, those that entries share counted once
    uint32_t ops[PM_OP_COUNT]; ///< regions included, all entries
} pm_summary;

/// Everything but the experts. Before the passes, which take experts apart. The arena is the module's.
pm_summary *pm_summary_make(pm_module *m);
/// Bytes and hashes of each expert: reads all their weights.
PM_NODISCARD pm_status pm_summary_experts(pm_summary *s);

/// The parts as JSON members: "entries", "symbols", "moe_layers", "layers", "ops", …
void pm_summary_entries_json(pm_json_out *w, const pm_module *m);
void pm_summary_layers_json(pm_json_out *w, const pm_summary *s);
void pm_summary_ops_json(pm_json_out *w, const pm_summary *s);

/// "softmax, weights renormalised, scaled by 2.5", in the arena.
const char *pm_summary_route(pm_arena *arena, const pm_op *route);
/// "28.9 MB", in the arena.
const char *pm_bytes_text(pm_arena *arena, uint64_t bytes);

#endif
