/// What the parts of expert_body.h's implementation share: expert_body.c, expert_rules.c, expert_picks.c,
/// expert_joins.c, expert_emit.c.
#ifndef PM_PASSES_MOE_EXPERT_PARTS_H
#define PM_PASSES_MOE_EXPERT_PARTS_H

#include "passes/moe/expert_body.h"

enum { PM_BODY_MAX_NODES = 1 << 14, PM_BODY_MAX_CHAIN = 6 };

/// Axes of a node from those of its operands; false: the op doesn't work row by row.
typedef bool pm_body_rule(pm_expert_body *body, pm_body_node *node);

/// The two operands of a product of matrices, and their axes.
typedef struct pm_body_sides {
    pm_body_node *rows, *stack;
    bool rows_left;
    int32_t rows_sum, rows_free, stack_sum, stack_free; ///< axes: summed over, and the other one
} pm_body_sides;

bool pm_body_stop(pm_expert_body *body, const pm_body_node *node, const char *why);
pm_dim pm_body_inner_of(const pm_expert_body *body, const pm_axes *axes, int32_t axis, int32_t *out_n);
bool pm_body_is_inner_axis(const pm_expert_body *body, const pm_axes *axes, int32_t axis);
int32_t pm_body_inner_dims(const pm_expert_body *body, const pm_axes *axes, pm_dim *out);
int32_t pm_body_inner_index(const pm_expert_body *body, const pm_axes *axes, int32_t axis);
void pm_body_set_axis_plain(pm_axes *axes, int32_t axis, pm_module *m, pm_dim dim);
int32_t pm_body_positive(int64_t axis, int32_t rank);
pm_op *pm_body_op_of(const pm_body_node *node);
bool pm_body_attr_same(const pm_attr *a, const pm_attr *b);
bool pm_body_is_segment_concat(const pm_expert_body *body, const pm_body_node *node);
pm_body_node *pm_body_data_of(const pm_body_node *node);
void pm_body_find_sides(const pm_body_node *node, pm_body_sides *s);
bool pm_body_picks_experts(const pm_expert_body *body, const pm_body_node *node);
bool pm_body_numbers_tokens(const pm_expert_body *body, pm_value *v, pm_axes *out);
bool pm_body_pick_experts(pm_expert_body *body, pm_body_node *node);
bool pm_body_stacks_experts(const pm_expert_body *body, const pm_body_node *node);
bool pm_body_stack_experts(pm_expert_body *body, pm_body_node *node);
bool pm_body_is_zeros(pm_module *m, const pm_value *v); ///< nothing but zeros: where an accumulator begins
/// Whole rows are written, or added, at the numbers of rows that the index gives.
bool pm_body_writes_rows(const pm_module *m, const pm_op *scatter);
pm_value *pm_body_row_numbers(const pm_module *m, pm_value *index); ///< an index that was spread over rows: before that
/// Whether what is the row's own stays so: an axis of it doesn't count the choices all of a sudden.
bool pm_body_keeps_row(const pm_body_node *x, const pm_axes *result);
bool pm_body_find_join(const pm_expert_body *body, pm_body_node *node);
bool pm_body_join(pm_expert_body *body, pm_body_node *node);
bool pm_body_segments(pm_expert_body *body, pm_body_node *node);
pm_body_rule *pm_body_rule_of(const pm_op *op);

#endif
