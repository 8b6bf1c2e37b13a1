/// What is known of values around a mixture of experts: which axis counts tokens, choices or experts, and
/// what an index or a mask says about the experts that were chosen.
///
/// Everything hangs on *seeds*: integer tensors of chosen experts, ids [token axes.., k]. A forward walk gives
/// each value that comes from one a fact; ops without a rule give none. Extents are compared as interned
/// expressions, so a fact holds for every binding.
///
/// An axis is a row-major product of *atoms*: reshapes regroup atoms, transposes move them, extents of 1 have
/// none. So [T, k], [T*k], [1, T, k, 1] are one thing to whoever asks.
#ifndef PM_PASSES_MOE_FACTS_H
#define PM_PASSES_MOE_FACTS_H

#include "ir/graph.h"

enum { PM_MAX_ATOMS = 12, PM_MAX_SEED_DIMS = 6, PM_MAX_FORMS = 4, PM_MAX_MOE_EXPERTS = 4096 };

typedef enum pm_atom_kind {
    PM_ATOM_PLAIN, ///< anything else
    PM_ATOM_SEED,  ///< dim `at` of the seed: a token axis, or the choices
    PM_ATOM_ID,    ///< counts experts
    PM_ATOM_LIST,  ///< counts the rows of list `list`
    PM_ATOM_SPREAD, ///< made by a broadcast: the value is the same all along it
} pm_atom_kind;

typedef struct pm_atom {
    pm_atom_kind kind;
    int32_t axis; ///< of the value
    int32_t at;
    const struct pm_row_list *list;
    pm_dim dim;
} pm_atom;

typedef struct pm_axes {
    int32_t rank, n;
    pm_atom atoms[PM_MAX_ATOMS]; ///< in order of their axes
} pm_axes;

/// Chosen experts: ids of `n_dims` extents (those of 1 left out), each in [0, experts).
typedef struct pm_seed {
    pm_value *ids;
    int64_t experts;
    bool distinct;  ///< no token chooses an expert twice
    int32_t n_dims;
    const uint8_t *before;  ///< by op serial: what the ids depend on; found when first asked for
    size_t n_before;
    const struct pm_row_list *sorted; ///< all choices by expert, where the graph sorts them
    int32_t choice; ///< which dim counts the choices; -1: there is one choice
    pm_dim dims[PM_MAX_SEED_DIMS];
} pm_seed;

/// Rows: choices in some order.
typedef struct pm_row_list {
    enum { PM_LIST_PICKED, PM_LIST_SORTED, PM_LIST_SEGMENT } kind;
    const pm_seed *seed;
    int64_t expert;     ///< picked, segment: whose rows
    bool exact;         ///< picked: all choices of the expert, not some of them
    pm_value *mask;     ///< picked: the mask whose nonzero elements they are
    const struct pm_row_list *of; ///< segment: of this sorted list
    pm_dim in_segments; ///< sorted: how many rows its segments have that were seen so far
} pm_row_list;

/// An index as a sum: constant + sum of coef[i] * (index along the seed's dim i), or the position in a
/// sorted list.
typedef struct pm_index_form {
    pm_dim base, coef[PM_MAX_SEED_DIMS];
    const pm_row_list *position_in; ///< not NULL: the position, and nothing else
} pm_index_form;

typedef enum pm_fact_kind {
    PM_FACT_AXES,    ///< only what the axes count
    PM_FACT_FORMS,   ///< indices: n_forms of them along axis `along` (one: no such axis)
    PM_FACT_OF_ID,   ///< table[j][id]: a function of the chosen expert; j counts the ID atom's axis, if there is one
    PM_FACT_COUNTS,  ///< table[j]: sum over experts of table[j][e] * (number of choices of e)
    PM_FACT_MASKED,  ///< `off` wherever the expert of the ID axis (or `expert`) is not the chosen one
    PM_FACT_HITS,    ///< by expert: whether anybody chose it; or, as indices, those that somebody chose, in order
    PM_FACT_INVERSE, ///< position in `list` of each choice
} pm_fact_kind;

typedef struct pm_moe_fact {
    pm_fact_kind kind;
    const pm_seed *seed;
    pm_axes axes;
    pm_index_form forms[PM_MAX_FORMS];
    int32_t n_forms, along;
    const double *table;
    int64_t n_rows;      ///< of the table
    double off;
    bool on;             ///< masked: 1 wherever the expert is the chosen one
    int32_t choice;      ///< all of it is of this choice alone; -1: of all choices
    int64_t expert;      ///< masked, without an ID axis: whose; -1 with one
    pm_value *source;    ///< the weights of the choices that stand where an expert is chosen (masked), or that were
                         ///< picked for the rows of a list (axes); NULL: unknown
    pm_value *dense;     ///< masked, of one expert: the value with the ID axis that it was cut from; NULL: none
    const pm_row_list *list;
} pm_moe_fact;

typedef struct pm_hits_split {
    pm_op *op;
    const pm_seed *seed;
} pm_hits_split;

typedef struct pm_moe_facts {
    pm_module *module;
    pm_arena *arena;
    pm_moe_fact **of; ///< by value id; NULL: nothing known
    size_t n;
    /// Where a trace cut the list of the experts that its example hit into single ones: right only for inputs
    /// that hit as many. Where that is all of them, piece i is expert i.
    PM_VEC(struct pm_hits_split) hits;
} pm_moe_facts;

/// Facts of all values of a graph. Linear in its ops.
PM_NODISCARD pm_status pm_moe_facts_find(pm_module *m, pm_graph *g, pm_arena *arena, pm_moe_facts *out);

static inline const pm_moe_fact *pm_moe_fact_of(const pm_moe_facts *facts, const pm_value *v)
{
    return v && v->id < facts->n ? facts->of[v->id] : NULL;
}
/// Axes of a value of which nothing is known: an atom for each extent that isn't 1.
pm_axes pm_axes_plain(pm_module *m, const pm_type *type);
/// Axes after a reshape to `type`; false where an atom would have to be cut that can't be.
bool pm_axes_reshape(pm_module *m, const pm_axes *in, const pm_type *type, pm_axes *out);
/// Axes after broadcasting two operands to `rank`: an axis that only one has is taken from it, and plain or
/// spread atoms give way to what says more. False where they contradict.
bool pm_axes_broadcast(const pm_axes *a, const pm_axes *b, int32_t rank, pm_axes *out);
/// Axes after spreading to `type`; false where there are too many.
bool pm_axes_expand(pm_module *m, const pm_axes *in, const pm_type *type, pm_axes *out);
pm_axes pm_axes_permuted(const pm_axes *in, const int64_t *perm);
void pm_axes_remove(pm_axes *axes, int32_t axis);      ///< the axis goes, with its atoms
void pm_axes_drop_atoms(pm_axes *axes, int32_t axis); ///< the axis gets extent 1
void pm_axes_put(pm_axes *axes, pm_atom atom, int32_t axis); ///< appended; axes in order
bool pm_axes_same(const pm_axes *a, const pm_axes *b);
/// The atoms of an axis: their number, and the first of them (NULL: none).
int32_t pm_axes_at(const pm_axes *axes, int32_t axis, const pm_atom **out_first);
static inline bool pm_axes_fit(const pm_axes *axes)
{
    return axes->n <= PM_MAX_ATOMS;
}
/// The expert that alone has something in a table row; -1: none or several.
int64_t pm_fact_only_expert(const pm_moe_fact *fact);
/// True when the table is the ids themselves.
bool pm_fact_is_id(const pm_moe_fact *fact);
/// True when the form counts the seed's tokens, row-major.
bool pm_form_is_token(pm_module *m, const pm_seed *seed, const pm_index_form *form);
/// True when the form counts all choices, row-major.
bool pm_form_is_choice(pm_module *m, const pm_seed *seed, const pm_index_form *form);
/// True when the table's row j is 1 for expert j and 0 for others.
bool pm_fact_is_diagonal(const pm_moe_fact *fact);

#endif
