/// Sums over experts that hide in other ops, written as sums: tried, and taken back where nothing came of it.
#ifndef PM_PASSES_MOE_SPELL_OUT_H
#define PM_PASSES_MOE_SPELL_OUT_H

#include "ir/builder.h"
#include "passes/moe/moe_facts.h"

/// A value, and the one that stands in its place.
typedef struct pm_spelling {
    pm_value *was, *now;
    uint32_t first; ///< serial of the first op that it is made of
} pm_spelling;
typedef PM_VEC(pm_spelling) pm_spellings;

/// Writes out: a product with dense weights [.., experts, 1] as a sum over experts; a sum of what was put side by side
/// expert by expert as additions; one product with all experts' weights, cut by experts, as a product for each expert.
/// Uses change to the new values, of which `facts` knows nothing.
PM_NODISCARD pm_status pm_spell_out(pm_module *m, pm_graph *g, const pm_moe_facts *facts, pm_arena *scratch,
                                    pm_spellings *out);

#endif
