/// What follows from a condition: what values are where it has another value than it usually has.
///
/// From `some row chose this expert` being false follow a mask without a true element, weights that are all 0, lists
/// without rows; and from those, op by op, sums that are 0 and accumulators that stay what they are.
/// Numbers are taken to be finite (0 times x is 0, and no weight is NaN), and x + 0 to be x: the sign of a
/// zero may change.
#ifndef PM_PASSES_GENERIC_SUPPOSING_H
#define PM_PASSES_GENERIC_SUPPOSING_H

#include "passes/generic/rewrite.h"

typedef enum pm_supposed_kind {
    PM_SUPPOSED_NOTHING,
    PM_SUPPOSED_ZERO, ///< all elements are 0 or false
    PM_SUPPOSED_SAME, ///< equals the value that `same_as` names
} pm_supposed_kind;

typedef struct pm_supposed {
    pm_supposed_kind fact;
    pm_value *same_as;
} pm_supposed;

typedef struct pm_supposing {
    pm_module *m;
    pm_arena *scratch;        ///< given
    pm_map known;             ///< value id -> pm_supposed *
    PM_VEC(pm_value *) outer; ///< what follows at once, whose users are still to be looked at
    pm_symbol_extents empty;  ///< extents that are 0
} pm_supposing;

/// Nothing is known.
void pm_suppose_begin(pm_supposing *c);
/// The condition has this value.
void pm_suppose(pm_supposing *c, pm_value *condition, bool truth);
/// What follows from that in the graph of `op`, but for `op` itself.
void pm_suppose_look_outside(pm_supposing *c, const pm_op *op);
/// What follows for the op's results.
void pm_suppose_look_at(pm_supposing *c, const pm_op *op);
pm_supposed pm_suppose_know(const pm_supposing *c, const pm_value *v);
void pm_suppose_note(pm_supposing *c, const pm_value *v, pm_supposed what);
/// False when the op may be at fault where it usually doesn't run, or has regions.
bool pm_suppose_is_harmless(const pm_supposing *c, pm_op *op);

bool pm_is_zero_const(const pm_value *v);
/// Whether no element is below 0; `depth`: 0.
bool pm_is_not_negative(const pm_value *v, int depth);

#endif
