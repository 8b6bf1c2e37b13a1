/// What the end-to-end tests share: compiled libraries opened with dlopen, arrays of reference
/// files, programs that are run and listened to.
#ifndef PM_TESTS_E2E_MODEL_H
#define PM_TESTS_E2E_MODEL_H

#include <stdbool.h>

#include "pm/runtime.h"
#include "runtime/npy.h"

/// The runtime's API, as the library itself exports it.
#define E2E_FUNCTIONS(X)                                                                           \
    X(pm_last_error)                                                                               \
    X(pm_model_open)                                                                               \
    X(pm_model_close)                                                                              \
    X(pm_model_entry)                                                                              \
    X(pm_model_n_inputs)                                                                           \
    X(pm_model_n_outputs)                                                                          \
    X(pm_model_input)                                                                              \
    X(pm_model_output)                                                                             \
    X(pm_session_create)                                                                           \
    X(pm_session_destroy)                                                                          \
    X(pm_session_run)                                                                              \
    X(pm_session_reset)                                                                            \
    X(pm_generate)

/// A compiled shared library and its model.
typedef struct e2e_lib {
    void *handle;
    pm_model *model;
#define E2E_MEMBER(name) __typeof__(&name) name;
    E2E_FUNCTIONS(E2E_MEMBER)
#undef E2E_MEMBER
} e2e_lib;

/// Loads the library and opens its model `pm_model_<symbol>`. Returns false with words in
/// `why` (of 256 bytes) when either fails; `*out_status` is then what pm_model_open said.
bool e2e_open(e2e_lib *lib, const char *path, const char *symbol, char *why, pm_status *out_status);
void e2e_close(e2e_lib *lib);

/// Keeps memory that lives to the end of the process reachable, so that it is no leak. Returns it.
void *e2e_keep(void *memory);

/// An array by name from an .npz file, aligned, allocated to the end of the process. Ends the
/// program with a message when there is none.
pm_npy e2e_array(const char *path, const char *name);

/// Largest distance of got from want, in parts of the largest |want| of the same row of `width`.
/// NaN where only one side is NaN counts as infinite.
double e2e_row_distance(const float *got, const float *want, size_t n, size_t width);

/// Runs a program and gives what it wrote to stdout (malloc'ed, NUL-terminated) and its exit
/// status, -1 when it ended by a signal or could not start.
int e2e_run(const char *const *argv, char **out_text);

#endif
