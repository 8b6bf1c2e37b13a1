/// What raising found, and what it nearly found: for people who want to know what became of their model.
#ifndef PM_PASSES_FINDINGS_H
#define PM_PASSES_FINDINGS_H

#include "ir/graph.h"
#include "passes/passes.h"

typedef PM_VEC(const pm_loc *) pm_loc_vec;

/// An op that says what many said before.
typedef struct pm_raised {
    const pm_op *op;  ///< experts or route
    const char *form; ///< how the graph had written it
    pm_loc_vec places; ///< of the ops that it took the place of, each once: where the input has them
} pm_raised;

/// Something that looked like experts or their router, and isn't said as one op.
typedef struct pm_near_miss {
    const char *what;       ///< "experts", "router"
    const pm_op *op;        ///< the sum over the experts; the experts whose router it is
    const pm_loc *loc;
    const char *stopped_op; ///< the op at which matching stopped; NULL: none in particular
    const pm_loc *stopped;
    const char *why, *cost; ///< what is run instead
} pm_near_miss;

struct pm_findings {
    pm_arena *arena;
    PM_VEC(pm_raised) raised;
    PM_VEC(pm_near_miss) missed;
};

/// Notes that `op` stands for what gave `values`, which nobody uses any more: those ops, and all that only served them.
void pm_found_raised(pm_pass_ctx *ctx, const pm_op *op, const char *form, pm_value *const *values, size_t n);
void pm_found_near_miss(pm_pass_ctx *ctx, const pm_near_miss *miss);
/// "experts not raised: matching stopped at erf (place): why; instead: cost", in the arena.
const char *pm_near_miss_text(pm_arena *arena, const pm_near_miss *miss);
/// Where the input has what a place was derived from.
const pm_loc *pm_loc_origin(const pm_loc *loc);

#endif
