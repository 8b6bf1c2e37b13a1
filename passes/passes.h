/// Passes over modules: the table, pipelines, and how they run.
#ifndef PM_PASSES_PASSES_H
#define PM_PASSES_PASSES_H

#include "ir/graph.h"

/// What the target and the user ask of the passes. Passes may ask facts of the target, not call it.
typedef struct pm_pass_options {
    int opt_level;         ///< 0..3
    int32_t vector_floats; ///< of the CPU: 8 or 16 (panel widths)
    bool has_bf16_dot;     ///< the CPU multiplies bf16 pairs
    bool device_reads_codes; ///< products on devices beside the CPU read codes of few bits; else `dequantize` runs
    const char *quantize;  ///< "none", "bf16"
    const char *place;     ///< --place= text, NULL: by cost
    /// Devices that experts may be placed on; the first one is the CPU.
    const struct pm_device *devices;
    size_t n_devices;
    bool host_twins;       ///< the program must run without its devices, too
} pm_pass_options;

typedef struct pm_device {
    const char *name; ///< "cpu0"
    double bytes_per_second, flops_per_second, link_bytes_per_second;
    uint64_t memory;
} pm_device;

typedef struct pm_findings pm_findings; ///< passes/findings.h
typedef struct pm_plan pm_plan;         ///< passes/plan.h

typedef struct pm_pass_ctx {
    pm_module *module;
    pm_diag *diag;
    const pm_pass_options *options;
    const struct pm_pass *pass;
    uint64_t changes; ///< set by the pass: 0 means that nothing changed
    pm_map counts;    ///< --stats: text -> uintptr_t
    FILE *notes;      ///< --stats: where a pass may tell more; NULL: nowhere
    pm_findings *findings; ///< what raising found; NULL: nobody asks
    pm_plan *plan;         ///< gets what is placed where, its arena is set; NULL: nobody asks
} pm_pass_ctx;

void pm_pass_changed(pm_pass_ctx *ctx);
void pm_pass_count(pm_pass_ctx *ctx, const char *what);

typedef pm_status pm_pass_fn(pm_pass_ctx *ctx);

/// A row of passes.def.
typedef struct pm_pass {
    const char *name; ///< "fold"
    pm_pass_fn *run;
    const char *help;
} pm_pass;

extern const pm_pass pm_pass_table[];
extern const size_t pm_pass_count_all;

/// How a pipeline runs: what is printed, dumped, verified.
typedef struct pm_pass_run {
    const pm_pass_options *options;
    const char *passes;       ///< names of passes and pipelines, separated by commas; NULL: that of opt_level
    const char *print_before; ///< pass names or "all"; NULL: none
    const char *print_after;
    bool print_changed;       ///< print after passes that changed something
    const char *dump_dir;     ///< numbered .pm files, each runnable with pimoe-opt
    bool verify_each, time_passes, stats;
    const char *stop_after;
    const char *stop_before;  ///< no pass from the first one of this name on; NULL: all
    pm_findings *findings;    ///< gets what raising finds; NULL: nobody asks
    pm_plan *plan;            ///< gets what is placed where, its arena is set; NULL: nobody asks
    int64_t pass_limit;       ///< stop after so many passes (bisect); -1: all
    FILE *out;                ///< where printing goes
    /// Called before the first run of the pass named `watch`; NULL: nobody watches.
    const char *watch;
    pm_status (*on_watched)(void *user, pm_module *m);
    void *user;
} pm_pass_run;

/// Runs the passes on the module. Errors: those of passes; unknown names with the nearest right one,
/// before any pass has run.
PM_NODISCARD pm_status pm_passes_run(pm_module *m, const pm_pass_run *run);

/// An error for a name in the list ("fold,cse") that is neither a pass nor "all"; `option` is what
/// the user wrote it to. NULL: no list.
PM_NODISCARD pm_status pm_passes_check_names(pm_arena *arena, pm_diag *diag, const char *option,
                                             const char *list);

/// Lists passes and pipelines: for a person, or as docs/passes.md.
void pm_passes_describe(FILE *out, bool markdown);

#endif
