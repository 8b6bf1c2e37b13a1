/// What an expert computes on a row, taken out of a graph that computes it on many rows at once, or that has
/// the same ops once per expert.
///
/// A *body* is found backwards from the values that hold the experts' results. Each of its nodes stands for
/// one op on one row: axes that count tokens, choices, rows of a list or experts are stripped (the inverse of
/// batching), and what is left is the row's own extents, in order. With `width` experts side by side, the
/// nodes are tuples of ops that are alike, and constants that differ become one stacked tensor.
#ifndef PM_PASSES_MOE_EXPERT_BODY_H
#define PM_PASSES_MOE_EXPERT_BODY_H

#include "ir/builder.h"
#include "passes/moe/moe_facts.h"

typedef enum pm_body_kind {
    PM_BODY_ROWS,   ///< differs by row
    PM_BODY_STACK,  ///< an expert's own tensor: constant, and stacked it is [experts, inner...]
    PM_BODY_SHARED, ///< constant, the same for all experts
    PM_BODY_WEIGHT, ///< a number for each choice
} pm_body_kind;

typedef struct pm_body_node {
    pm_value **values; ///< [width] of them
    uint32_t width;
    bool by_choice;       ///< the values are of the choices of a token, not of experts
    pm_body_kind kind;
    pm_axes axes;         ///< of the first value
    uint32_t n_operands;
    struct pm_body_node **operands; ///< NULL entries: operands that are not part of the body (shapes, indices)
    pm_value *weight;     ///< the factor that the rows still have to be multiplied with, by choice; NULL: none
    bool is_dense_weight; ///< `weight` has an axis of all experts instead of one of the choices
    bool zero_stays;      ///< rows of zeros come out as zeros
    bool is_filled;       ///< shared: one number on every row
    bool is_input;        ///< the rows that the experts are given, or a view of them
    int32_t id_axis;      ///< a constant that differs by expert along this axis; -1: it doesn't
    pm_value **parts;     ///< rows of all experts (or of their list) that come together here; NULL: it isn't such
    uint32_t n_parts;
    const pm_row_list **lists; ///< parts: the rows they are, by expert
    const pm_moe_fact *mask;   ///< parts: what they were multiplied with, of one expert
    bool repeats;         ///< tokens by their numbers
    bool cut;             ///< pieces of the rows in the order of their experts
    bool picks;           ///< of the rows of all experts each choice takes those of its own
    bool captured;        ///< stack: a row op uses it
    pm_value *emitted;
    uint32_t argument;    ///< stack, captured: which argument of the region
    int state;            ///< 0 new, 1 operands are being looked at, 2 known
} pm_body_node;

typedef struct pm_expert_body {
    pm_moe_facts *facts;
    pm_module *module;
    pm_arena *arena;
    const pm_seed *seed;
    bool by_choice;         ///< the tuples are of the choices of a token, not of experts
    pm_value *x;            ///< the tokens' data, as the graph has it
    pm_body_node *result;
    bool apply_input;       ///< the weight applies to the rows that go in
    bool plain_input;       ///< rows go in as they are
    pm_value *input_weight;
    bool input_dense;       ///< as pm_body_node.is_dense_weight
    const pm_row_list **lists; ///< by expert: the rows that were picked for it; NULL: none yet
    bool lists_differ;         ///< and others in another place
    PM_VEC(pm_body_node *) nodes; ///< operands first
    pm_map known;           ///< first value's id and width -> node
    const pm_op *stopped;   ///< where matching stopped
    const char *why;
} pm_expert_body;

/// Finds the body of the experts whose results are `results[0..width)`: one value for all experts, or one for each
/// of them in order; `by_choice`: one for each choice of a token instead. False: it isn't one; then `stopped` and `why` say where and why.
bool pm_expert_body_find(pm_expert_body *body, pm_moe_facts *facts, const pm_seed *seed,
                         pm_value *const *results, uint32_t width, bool by_choice);

/// Builds what the body captures at `b`: stacked tensors [experts, ...]; appended to `operands` for the
/// experts op, each once.
typedef PM_VEC(pm_value *) pm_value_vec;
PM_NODISCARD pm_status pm_expert_body_captures(pm_expert_body *body, pm_builder *b, pm_value_vec *operands);
/// Builds the body into a region whose arguments are the rows [n, D] and, from `first` on, the captures.
PM_NODISCARD pm_status pm_expert_body_emit(pm_expert_body *body, pm_graph *region, uint32_t first);

#endif
