/// What is in a module, for inspect, check and reports: entries with their tensors, layers of experts, ops.
#ifndef PM_TOOLS_SUMMARY_H
#define PM_TOOLS_SUMMARY_H

#include "base/hash.h"
#include "ir/graph.h"
#include "passes/findings.h"
#include "tools/cli/json_out.h"

/// One expert: its weights as the model stores them.
typedef struct pm_expert_summary {
    const char *name; ///< NULL: it has a number only
    uint64_t bytes;
    uint64_t n_tensors;
    const char *shapes; ///< of its tensors: "f32[64, 32], f32[32, 64]"
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
    const char *form; ///< how the input writes the experts; NULL: as one op
    pm_loc_vec nodes, route_nodes; ///< of the input: what became the experts, and their router
} pm_layer_summary;

typedef struct pm_summary {
    pm_module *module;
    const char *entry; ///< the entry that has most layers
    PM_VEC(pm_layer_summary) layers; ///< of that entry
    int64_t max_experts, total_experts;
    uint64_t weight_bytes; ///< of all constants, those that entries share counted once
    uint32_t ops[PM_OP_COUNT]; ///< regions included, all entries
    const pm_findings *findings; ///< NULL: nobody asked
} pm_summary;

/// Everything but the experts. Before the passes, which take experts apart. The arena is the module's.
pm_summary *pm_summary_make(pm_module *m);
/// Bytes and hashes of each expert: reads all their weights.
PM_NODISCARD pm_status pm_summary_experts(pm_summary *s);

/// The parts as JSON members: "entries", "symbols", "moe_layers", "layers", "ops", …
void pm_summary_entries_json(pm_json_out *w, const pm_module *m);
void pm_summary_layers_json(pm_json_out *w, const pm_summary *s);
/// What was said of the model, and what is nearly experts or a router: "remarks".
void pm_summary_remarks_json(pm_json_out *w, const pm_summary *s, const pm_diag *diag);
/// Equal experts of all layers, a text each; NULL after the last.
const char *pm_summary_equal(const pm_summary *s, size_t layer);
/// "2 Gather, 5 MatMul": how many nodes of each kind.
const char *pm_summary_kinds(pm_arena *arena, const pm_loc_vec *nodes);
void pm_summary_ops_json(pm_json_out *w, const pm_summary *s);

/// "softmax, weights renormalised, scaled by 2.5", in the arena.
const char *pm_summary_route(pm_arena *arena, const pm_op *route);
/// "28.9 MB", in the arena.
const char *pm_bytes_text(pm_arena *arena, uint64_t bytes);

#endif
