/// The road from a model file to an artifact, in steps that the tools share.
#ifndef PM_TOOLS_DRIVER_H
#define PM_TOOLS_DRIVER_H

#include "codegen/codegen.h"
#include "frontend/frontend.h"
#include "passes/passes.h"
#include "pm/compiler.h"
#include "tools/driver/summary.h"

/// A compilation: one arena, one sink, what each step left.
typedef struct pm_driver {
    pm_arena *arena;
    pm_diag *diag;
    const pm_compile_options *options;
    pm_target target;
    pm_module *module;
    pm_weights *weights;
    pm_native *native;
    pm_summary *summary; ///< of the module as it was loaded, or once experts are raised
    struct pm_origins *origins; ///< with a report
    pm_findings *findings;      ///< with a report
    pm_plan *plan;              ///< what is placed where
    pm_compile_result result;
    const struct pm_compile_watch *watch; ///< NULL: nobody
} pm_driver;

/// Who wants to see the module: as it was loaded (and may add to it), and after the passes. Each may be NULL; none is
/// called after an error.
typedef struct pm_compile_watch {
    void (*on_load)(void *user, pm_module *m);
    void (*on_front)(void *user, const pm_driver *d);
    void *user;
} pm_compile_watch;

/// pm_compile, watched; `watch` may be NULL.
PM_NODISCARD pm_status pm_compile_seen(const char *path, const char *output, const pm_compile_options *options,
                                       FILE *messages, int messages_json, pm_compile_result *out_result,
                                       const pm_compile_watch *watch);

/// Runs the passes that find experts and routers, and tells what they found. The module is changed.
PM_NODISCARD pm_status pm_driver_raise(pm_module *m, pm_summary **out_summary);
/// Loads the model and runs the passes.
PM_NODISCARD pm_status pm_driver_front(pm_driver *d, const char *path);
/// Makes the output.
PM_NODISCARD pm_status pm_driver_back(pm_driver *d, const char *output);

/// The emit kind of a word ("exe", "obj", …); false when unknown.
int pm_emit_parse(const char *word, pm_emit *out_emit);
extern const char *const pm_emit_words[];
extern const size_t pm_emit_word_count;

#endif
