/// The interpreter over `eval`: runs any entry of any module, slowly and plainly. The oracle.
#ifndef PM_IR_INTERP_H
#define PM_IR_INTERP_H

#include "ir/graph.h"

/// A concrete tensor that the interpreter takes and gives; `dims` and `data` in an arena.
typedef struct pm_array {
    pm_elem elem;
    int32_t rank;
    int64_t dims[PM_MAX_RANK];
    void *data;
} pm_array;

/// Runs `entry` on `inputs` (one per argument; state arguments included, they are copied, not
/// changed). `outputs` gets one array per result, allocated in `arena`. Works before and after
/// passes (packed weights, fused regions, lowered experts). Symbols are bound from the inputs;
/// a mismatch is an error that names the argument.
PM_NODISCARD pm_status pm_interpret(pm_arena *arena, const pm_graph *entry,
                                    const pm_array *inputs, size_t n_inputs, pm_array *outputs);

#endif
