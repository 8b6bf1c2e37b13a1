/// Which extents an op needs to be equal. The types don't say: of an extent known only when the program runs nobody
/// can tell before whether it fits.
#ifndef PM_IR_EXTENT_RULES_H
#define PM_IR_EXTENT_RULES_H

#include "ir/graph.h"

/// `a` and `b` must be equal; with `broadcast`, or one of them 1.
typedef void pm_extent_rule_fn(void *user, pm_dim a, pm_dim b, bool broadcast);

/// Calls `rule` for each pair of extents of the op's operands and results that must fit.
void pm_op_extent_rules(const pm_op *op, pm_extent_rule_fn *rule, void *user);
/// Every pair fits, whatever the run finds: nothing is left to be compared. A pass that takes an op away may not take
/// a comparison with it.
bool pm_op_extents_fit(const pm_op *op);

#endif
