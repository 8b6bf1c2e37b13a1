/// Arguments of emitted programs.
#ifndef PM_RUNTIME_PROGRAM_ARGS_H
#define PM_RUNTIME_PROGRAM_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/elem.h"
#include "pm/runtime.h"

enum { MAX_ASSIGNMENTS = 64 };

typedef struct pm_program_args {
    const char *entry, *prompt, *perplexity;
    char *in[MAX_ASSIGNMENTS], *out[MAX_ASSIGNMENTS], *shape[MAX_ASSIGNMENTS];
    size_t n_in, n_out, n_shape;
    bool describe, bench, selftest, json, stats;
    int threads, repeat;
    int64_t n, top_k, context, batch;
    double temperature, top_p;
    uint64_t seed;
} pm_program_args;

/// Returns -1 to go on, else the exit code (help printed, or a usage error).
int pm_program_parse(int argc, char **argv, pm_program_args *args);
/// A tensor from `@file.npy`, `@file.npz`, `1,2,3` or `random:4x64`. Memory lives as long as the process.
PM_NODISCARD pm_status pm_program_tensor(const pm_port_info *port, const char *text, uint64_t seed,
                                         pm_tensor_arg *out);
/// Element i as a number, for printing.
double pm_program_element(int32_t elem, const void *data, int64_t i);

#endif
