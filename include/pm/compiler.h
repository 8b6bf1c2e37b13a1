/// The compiler as a library: a model in, an artifact out.
#ifndef PM_COMPILER_H
#define PM_COMPILER_H

#include <stddef.h>
#include <stdio.h>

#include "pm/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pm_emit {
    PM_EMIT_EXE,
    PM_EMIT_OBJ,
    PM_EMIT_LIB,
    PM_EMIT_SHARED,
    PM_EMIT_HEADER,
    PM_EMIT_IR,
    PM_EMIT_MLIR,
    PM_EMIT_LLVM,
    PM_EMIT_ASM,
    PM_EMIT_PTX,   ///< these two: what GPUs run, for a target with one
    PM_EMIT_CUBIN,
} pm_emit;

/// What to make and how. Zero (with struct_size, and opt_level -1) means the defaults of pimoec.
typedef struct pm_compile_options {
    size_t struct_size;
    pm_emit emit;
    const char *target;       ///< NULL: "native"; several separated by commas: a CPU and GPUs
    const char *quantize;     ///< NULL: "none"
    const char *entry;        ///< only this entry; NULL: all
    const char *place;        ///< placement of experts; NULL: by cost
    const char *symbol;       ///< name in pm_model_<symbol>; NULL: "main" for an executable, else from the output's name
    int opt_level;            ///< 0..3; -1: 3
    const char *passes;       ///< instead of the pipeline of opt_level
    const char *print_before, *print_after, *dump_dir, *stop_after;
    const char *report;       ///< a file to write about the compilation: .html or .json; NULL: none
    int print_changed, verify_each, time_passes, stats;
    long pass_limit;          ///< -1: all (0 means 0 passes only when set together with has_pass_limit)
    int has_pass_limit;
    /// Called when a step begins ("passes", …), from the calling thread; NULL: not.
    void (*on_step)(void *user, const char *step, int number, int n_steps);
    void *user;
    int colour; ///< of messages: 1 with, -1 without, 0 as `messages` is a terminal
} pm_compile_options;

/// What came of it.
typedef struct pm_compile_result {
    double frontend_ms, passes_ms, codegen_ms, link_ms, total_ms;
    unsigned long long payload_bytes, code_bytes;
    int n_entries;
    int n_moe_layers;    ///< of the entry that has most
    int n_experts;       ///< of the layer that has most
    int n_experts_total; ///< of all layers together
    int n_dispatches;
    int n_reference;     ///< dispatches that run as the compiled reference of their op
} pm_compile_result;

/// Compiles the model at `path` into the file `output` ("-": stdout, for text forms); `options` NULL:
/// pimoec's defaults.
/// Diagnostics go to `messages` (a person's form, or JSON). The output appears only when whole.
/// Errors: PM_ERR_INVALID, PM_ERR_UNSUPPORTED (the model), PM_ERR_USAGE (the options), PM_ERR_IO.
/// Threads: calls are independent, but for lld, which runs in one call at a time.
PM_API PM_NODISCARD pm_status pm_compile(const char *path, const char *output,
                                         const pm_compile_options *options, FILE *messages,
                                         int messages_json, pm_compile_result *out_result);

#ifdef __cplusplus
}
#endif
#endif
