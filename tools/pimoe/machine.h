/// What this machine is, as the system tells it.
#ifndef PM_TOOLS_MACHINE_H
#define PM_TOOLS_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

typedef struct pm_cache_level {
    int level;
    char type[16]; ///< "Data", "Instruction", "Unified"
    uint64_t bytes;
} pm_cache_level;

typedef struct pm_machine {
    char cpu[128];
    uint64_t features;   ///< PM_CPU_… bits
    const char *level;   ///< "x86-64-v4", "x86-64-v3", or NULL: too old
    int cores, usable;   ///< of the system, and those this process may run on
    double quota;        ///< cores' worth of time that the control group allows; 0: no limit
    pm_cache_level caches[8];
    int n_caches;
    uint64_t memory, available, limit; ///< bytes; limit 0: none
    char huge_pages[32]; ///< mode of transparent huge pages: "always", "madvise", "never"
} pm_machine;

void pm_machine_look(pm_machine *out);
/// The features as words ("avx2 fma …"), in the arena.
const char *pm_machine_features(pm_arena *arena, uint64_t features);
/// Path of a program in PATH, in the arena; NULL when there is none.
const char *pm_machine_program(pm_arena *arena, const char *name);

#endif
