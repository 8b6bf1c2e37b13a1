/// What the rules of the forward walk share; for moe_facts.c, moe_fact_math.c and moe_axes.c alone.
#ifndef PM_PASSES_MOE_FACT_RULES_H
#define PM_PASSES_MOE_FACT_RULES_H

#include "passes/moe/moe_facts.h"

typedef struct finder {
    pm_moe_facts *facts;
    pm_module *m;
    pm_arena *arena;
    pm_op *op; ///< whose results get their facts
    uint8_t *found; ///< by symbol: an op before this one finds it
} finder;

typedef pm_status rule_fn(finder *f);

bool pm_moe_is_one(const pm_module *m, pm_dim dim);
bool pm_moe_atom_same(const pm_atom *a, const pm_atom *b);
int32_t pm_moe_find_atom(const pm_axes *axes, pm_atom_kind kind);
const pm_moe_fact *pm_moe_operand_fact(const finder *f, uint32_t operand);
void pm_moe_set_fact(finder *f, uint32_t result, const pm_moe_fact *value);
pm_axes pm_moe_operand_axes(const finder *f, uint32_t operand);
double *pm_moe_new_table(finder *f, const pm_seed *seed, int64_t rows);
bool pm_moe_const_scalar(finder *f, pm_value *v, double *out);
bool pm_moe_const_vector(finder *f, pm_value *v, double *out, int64_t max, int64_t *out_n, int32_t *out_axis);
pm_dim pm_moe_zero(finder *f);
pm_index_form pm_moe_no_form(finder *f);
bool pm_moe_axis_form(finder *f, const pm_axes *axes, int32_t axis, pm_index_form *out);
bool pm_moe_form_same(const pm_index_form *a, const pm_index_form *b);
int64_t pm_moe_const_dim(const finder *f, const pm_type *type, int32_t axis);
int32_t pm_moe_axis_of(const pm_op *op, const char *key, int32_t rank);
bool pm_moe_is_choice_weight(const pm_moe_fact *x);
pm_status pm_moe_rule_elementwise(finder *f);
pm_status pm_moe_rule_same_axes(finder *f);
pm_status pm_moe_rule_onehot(finder *f);
pm_status pm_moe_rule_reduce(finder *f);
pm_status pm_moe_rule_cumsum(finder *f);
pm_status pm_moe_rule_scatter_elements(finder *f);
pm_status pm_moe_rule_scatter_nd(finder *f);
pm_status pm_moe_rule_nonzero(finder *f);
pm_status pm_moe_rule_range(finder *f);
bool pm_moe_adds_segment(finder *f, pm_row_list *sorted, pm_dim extent);
bool pm_moe_finds_extent(const finder *f, pm_dim extent);
bool pm_moe_is_filled_with(finder *f, const pm_value *v, double *out);

#endif
