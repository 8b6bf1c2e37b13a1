/// The half of `pimoe check` that runs what was compiled, in a process of its own.
#ifndef PM_TOOLS_CHECK_RUN_H
#define PM_TOOLS_CHECK_RUN_H

#include "tools/pimoe/compare.h"
#include "tools/pimoe/npz_archive.h"

/// Outputs of this name and a number: the experts that a layer chose.
#define CHECK_ROUTER "router_indices_"

enum { CHECK_NAME = 128, CHECK_TEXT = 1024, CHECK_MAX_CASES = 64, CHECK_MAX_PORTS = 1024 };

/// One set of inputs with its expected outputs. Arrays are looked up as "<port><suffix>".
typedef struct check_case {
    const pm_npz *in, *want;
    const char *suffix;
} check_case;

typedef struct check_result {
    int number; ///< of the case
    char name[CHECK_NAME];
    pm_comparison c;
    pm_tolerance tolerance;
} check_result;

/// What the child leaves in shared memory.
typedef struct check_run_report {
    pm_status status;
    char message[CHECK_TEXT];
    char doing[CHECK_TEXT]; ///< where it was, should it crash
    char entry[CHECK_NAME];
    double run_ms;
    int n_uncompared; ///< outputs that nothing was expected of
    size_t n_results, room;
    check_result results[];
} check_run_report;

typedef struct check_run {
    const char *library, *symbol;
    const char *entry;  ///< NULL: forward, or the first
    int threads;        ///< 0: all
    check_case cases[CHECK_MAX_CASES];
    size_t n_cases;
    bool bf16, strict;  ///< strict: every expected array must be that of an output
    int64_t start_token; ///< what a decoder beside an encoder begins with; -1: unknown
    double rtol, atol;  ///< below 0: the element type's
    check_run_report *report;
} check_run;

/// For pm_child_run; `arg` is a check_run. What can be said is in its report.
int pm_check_run(void *arg);

#endif
