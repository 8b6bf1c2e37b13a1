/// What was placed where, and what crosses between devices: for people, reports and annotations of the model.
#ifndef PM_PASSES_PLAN_H
#define PM_PASSES_PLAN_H

#include "passes/passes.h"

/// An expert, a router, an attention, or all the rest.
typedef struct pm_placed {
    const char *kind;    ///< "expert", "router", "attention", "rest"
    const char *layer;   ///< of an expert; may be NULL for others
    uint32_t number;     ///< of an expert within its layer
    int32_t device;      ///< by number
    bool by_hand;
    uint64_t bytes;      ///< of weights, as they will be stored
    double share;        ///< of an expert: part of its layer's choices that are expected
    double seconds;      ///< expected on its device for PM_PLAN_TOKENS tokens
    const pm_loc *loc;   ///< of the op that it is part of; NULL for the rest
} pm_placed;

enum { PM_PLAN_TOKENS = 64 };

typedef struct pm_moved {
    const char *entry, *name; ///< name: of the value; may be NULL
    const char *from, *to;    ///< devices
    const char *bytes;        ///< an expression of the entry's symbols
    uint64_t token_bytes;     ///< with each symbol at its smallest, at least 1: those of one token
    const pm_loc *loc;
} pm_moved;

struct pm_plan {
    pm_arena *arena;
    const pm_device *devices;
    size_t n_devices;
    uint64_t *used;      ///< bytes of weights by device
    uint64_t *capacity;  ///< UINT64_MAX: as much as you like
    const char *trace;   ///< the file that the shares are of; NULL: every expert is expected alike
    PM_VEC(pm_placed) placed;
    PM_VEC(pm_moved) moved;
};

/// As text, for a person.
void pm_plan_print(const pm_plan *plan, FILE *out);
/// "57.6 MB", in the arena.
const char *pm_plan_bytes_text(pm_arena *arena, uint64_t bytes);
/// Bytes of one token that cross in an entry; `device` NULL: all of them, else those from or to it.
uint64_t pm_plan_token_bytes(const pm_plan *plan, const char *entry, const char *device);

#endif
