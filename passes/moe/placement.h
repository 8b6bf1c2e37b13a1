/// Where experts, routers and attention go: what place-experts works with. For passes/moe only.
#ifndef PM_PASSES_MOE_PLACEMENT_H
#define PM_PASSES_MOE_PLACEMENT_H

#include "passes/plan.h"

typedef enum pm_unit_kind { PM_UNIT_EXPERT, PM_UNIT_ROUTER, PM_UNIT_ATTENTION, PM_UNIT_REST, PM_UNIT_KINDS } pm_unit_kind;

/// Something that is placed as a whole.
typedef struct pm_unit {
    pm_unit_kind kind;
    const char *layer; ///< name of its experts, or of its op; may be NULL
    uint32_t number;   ///< of an expert within its layer
    uint64_t bytes;    ///< of weights, as they will be stored
    double flops;      ///< for one row
    double rows;       ///< expected for PM_PLAN_TOKENS tokens
    double share;      ///< expected part of its layer's choices; 1 for what isn't an expert
    double is_read;    ///< how likely one of those tokens needs its weights
    double moved;      ///< bytes of one row that goes to another device and comes back
    int32_t device;    ///< -1: not placed yet
    bool by_hand;
} pm_unit;

/// A part of --place: what goes where.
typedef struct pm_place_rule {
    const char *text, *what;
    const char *whole; ///< what stands before the device: a layer's name may end in a number, too
    int64_t number; ///< of an expert; -1: all of `what`
    int32_t device;
    bool used;
} pm_place_rule;

/// How often the experts of a layer were chosen.
typedef struct pm_traced_layer {
    const char *name;
    const double *counts;
    size_t n;
    double sum;
    pm_loc loc;
    bool used;
} pm_traced_layer;

typedef PM_VEC(pm_traced_layer) pm_traced_layers;

typedef struct pm_place_spec {
    const char *trace; ///< file; NULL: none
    pm_traced_layers traced;
    PM_VEC(pm_place_rule) rules;
    uint64_t *capacity; ///< by device: bytes of weights that it may hold
} pm_place_spec;

/// Reads --place: parts separated by commas. `cpu0=8GiB` says what a device may hold; `experts@cpu0`,
/// `router@cpu0`, `attention@cpu0`, `NAME@cpu0` (experts of a layer) and `NAME.3@cpu0` (one of them)
/// say what goes where (`rest`: all else); later parts go before earlier ones. `trace:FILE` says how often experts
/// were chosen. NULL: nothing is said.
/// Errors: PM_ERR_USAGE with the part, and the nearest right name.
PM_NODISCARD pm_status pm_place_parse(pm_pass_ctx *ctx, const char *text, pm_place_spec *out_spec);
/// The device that the spec names for the unit; -1: none.
int32_t pm_place_by_hand(pm_place_spec *spec, const pm_unit *unit);
/// An error for a rule that fits nothing in the model.
PM_NODISCARD pm_status pm_place_check_used(pm_pass_ctx *ctx, const pm_place_spec *spec);
/// Reads {"layers": [{"name": "…", "counts": [12, 0, 7, …]}, …]}: how often each expert was chosen.
PM_NODISCARD pm_status pm_place_trace(pm_pass_ctx *ctx, const char *path, pm_traced_layers *out_layers);
/// The layer's counts; NULL: the trace has none. An error when they are of another number of experts.
PM_NODISCARD pm_status pm_place_traced(pm_pass_ctx *ctx, pm_place_spec *spec, const char *layer, size_t n_experts,
                                       const pm_traced_layer **out);

#endif
