/// Inside of the running half of `pimoe check`.
#ifndef PM_TOOLS_CHECK_RUNNER_H
#define PM_TOOLS_CHECK_RUNNER_H

#include "tools/pimoe/check_run.h"

/// The library's own runtime, as a user's program would get it.
typedef struct runtime_api {
    const char *(*last_error)(void);
    pm_status (*model_open)(const pm_rt_model *, const pm_model_options *, pm_model **);
    int (*entry)(const pm_model *, const char *);
    const char *(*entry_name)(const pm_model *, int);
    int (*n_inputs)(const pm_model *, int);
    int (*n_outputs)(const pm_model *, int);
    pm_status (*input)(const pm_model *, int, int, pm_port_info *);
    pm_status (*output)(const pm_model *, int, int, pm_port_info *);
    pm_status (*session_create)(pm_model *, const pm_session_options *, pm_session **);
    pm_status (*session_run)(pm_session *, int, const pm_tensor_arg *, int, pm_tensor_arg *, int);
} runtime_api;

typedef struct runner {
    check_run *run;
    check_run_report *report;
    runtime_api api;
    pm_model *model;
    pm_session *session;
    int entry;
} runner;

/// Say why the run ends; what it does, should it crash.
pm_status pm_runner_fail(runner *r, pm_status status, const char *fmt, ...) PM_PRINTF(3, 4);
void pm_runner_doing(runner *r, const char *fmt, ...) PM_PRINTF(2, 3);

/// The array "<name><suffix>"; NULL when there is none.
const pm_npy *pm_runner_find(const pm_npz *npz, const char *name, const char *suffix);
/// An argument for a port; the memory it may need stays.
PM_NODISCARD pm_status pm_runner_take_input(runner *r, const pm_port_info *port, const pm_npy *a,
                                            pm_tensor_arg *out);
/// Adds a result, when there is room.
void pm_runner_compare(runner *r, size_t number, const char *name, const pm_npy *want, int32_t elem,
                       const pm_tensor_arg *got);

// ---- check_generate.c ----

/// Compares chosen experts in any order.
PM_NODISCARD pm_status pm_runner_compare_chosen(runner *r, size_t number, const char *name, const pm_npy *want,
                                                const pm_tensor_arg *got);
/// Where the case expects the tokens of greedy decoding, as `greedy`: decodes with the entries prefill and
/// decode, and compares the tokens; and the logits with those of the whole sequence at once.
PM_NODISCARD pm_status pm_runner_generate(runner *r, size_t number);

#endif
