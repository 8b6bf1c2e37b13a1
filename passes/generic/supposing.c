#include "passes/generic/supposing.h"

#include <string.h>

#include "ir/op_table.h"

enum { MAX_DEPTH = 12, MAX_OUTER = 256 };

/* ---- constants and signs ------------------------------------------------------------------------- */

bool pm_is_zero_const(const pm_value *v)
{
    const uint8_t *bytes;
    const pm_data *data = pm_value_const(v);
    if (pm_value_is(v, PM_OP_fill))
        return pm_is_zero_const(v->def->operands[1]);
    if (pm_value_is(v, PM_OP_expand))
        return pm_is_zero_const(v->def->operands[0]);
    enum { MOST = 4096 };
    if (!data || data->size > MOST || pm_data_bytes(v->graph->module, data, &bytes) != PM_OK)
        return false;
    for (uint64_t i = 0; i < data->size; i++)
        if (bytes[i])
            return false;
    return true;
}

static bool is_one_const(pm_value *v)
{
    int64_t value;
    size_t n;
    return pm_value_const_ints(v, &value, 1, &n) && n == 1 && value == 1;
}

/// A small constant without an element below 0.
static bool is_positive_const(const pm_value *v)
{
    enum { MOST = 64 };
    int64_t values[MOST], count;
    size_t n;
    const uint8_t *bytes;
    const pm_data *data = pm_value_const(v);
    if (!data || !pm_type_const_count(v->graph->module, v->type, &count) || count > MOST)
        return false;
    if (!pm_elem_is_float(v->type->elem)) {
        bool all = pm_value_const_ints((pm_value *)v, values, MOST, &n);
        for (size_t i = 0; i < n; i++)
            all = all && values[i] >= 0;
        return all;
    }
    if (pm_data_bytes(v->graph->module, data, &bytes) != PM_OK)
        return false;
    uint32_t size = pm_elem_size(v->type->elem);
    for (int64_t i = 0; i < count; i++) // the sign is the highest bit of the last byte
        if (bytes[(i + 1) * size - 1] & 0x80)
            return false;
    return true;
}

/// Whether no element is below 0. Recursion is bounded by MAX_DEPTH.
bool pm_is_not_negative(const pm_value *v, int depth)
{
    const pm_op *op = v->def;
    int64_t lo, hi;
    if (v->type->elem == PM_BOOL || pm_is_zero_const(v) || is_positive_const(v))
        return true;
    if (v->content && v->type->rank == 0) {
        pm_dim_range(v->graph->module, v->content[0], &lo, &hi);
        return lo >= 0;
    }
    if (!op || depth == MAX_DEPTH)
        return false;
    switch (op->code) {
    case PM_OP_softmax: return !pm_op_i64(op, "log");
    case PM_OP_exp:
    case PM_OP_sigmoid:
    case PM_OP_relu:
    case PM_OP_abs:
    case PM_OP_sqrt: return true;
    case PM_OP_mul:
        if (pm_is_zero_const(op->operands[0]) || pm_is_zero_const(op->operands[1]))
            return true;
        return pm_is_not_negative(op->operands[0], depth + 1) && pm_is_not_negative(op->operands[1], depth + 1);
    case PM_OP_add:
    case PM_OP_div:
        return pm_is_not_negative(op->operands[0], depth + 1) && pm_is_not_negative(op->operands[1], depth + 1);
    case PM_OP_where:
        return pm_is_not_negative(op->operands[1], depth + 1) && pm_is_not_negative(op->operands[2], depth + 1);
    case PM_OP_scatter_elements:
    case PM_OP_scatter_nd:
        return pm_is_not_negative(op->operands[0], depth + 1) && pm_is_not_negative(op->operands[2], depth + 1);
    case PM_OP_onehot: return is_positive_const(op->operands[2]);
    case PM_OP_topk: return v->index == 1 || pm_is_not_negative(op->operands[0], depth + 1);
    case PM_OP_cast:
    case PM_OP_reshape:
    case PM_OP_transpose:
    case PM_OP_slice:
    case PM_OP_gather:
    case PM_OP_gather_elements:
    case PM_OP_expand:
    case PM_OP_split:
    case PM_OP_reduce_sum:
    case PM_OP_reduce_mean:
    case PM_OP_reduce_prod: return pm_is_not_negative(op->operands[0], depth + 1);
    default: return false;
    }
}

/* ---- what is known ------------------------------------------------------------------------------- */

pm_supposed pm_suppose_know(const pm_supposing *c, const pm_value *v)
{
    const pm_supposed *k = pm_map_get(&c->known, &v->id, sizeof v->id);
    if (k)
        return *k;
    return (pm_supposed){pm_is_zero_const(v) ? PM_SUPPOSED_ZERO : PM_SUPPOSED_NOTHING, NULL};
}

static bool is_zero(const pm_supposing *c, const pm_value *v)
{
    return v && pm_suppose_know(c, v).fact == PM_SUPPOSED_ZERO;
}

void pm_suppose_note(pm_supposing *c, const pm_value *v, pm_supposed what)
{
    void **slot = pm_map_at(&c->known, &v->id, sizeof v->id);
    if (*slot)
        return;
    pm_supposed *k = PM_NEW(c->scratch, pm_supposed);
    *k = what;
    *slot = k;
}

static void note_empty(pm_supposing *c, uint32_t symbol)
{
    PM_PUSH(c->scratch, &c->empty, ((pm_symbol_extent){symbol, pm_dim_const(c->m, 0)}));
}

/// Whether an extent of the type is 0.
static bool is_empty_type(const pm_supposing *c, const pm_type *type)
{
    int64_t extent;
    for (int32_t i = 0; i < type->rank; i++) {
        pm_dim dim = type->dims[i];
        for (size_t k = 0; k < c->empty.n; k++)
            dim = pm_dim_replace(c->m, dim, c->empty.data[k].symbol, c->empty.data[k].extent);
        if (pm_dim_is_const(c->m, dim, &extent) && extent == 0)
            return true;
    }
    return false;
}

/// All elements are 0: so are those that they were made of.
static void all_zero(pm_supposing *c, pm_value *v)
{
    for (int depth = 0; depth < MAX_DEPTH; depth++) {
        uint32_t symbol;
        if (!pm_map_get(&c->known, &v->id, sizeof v->id)) {
            pm_suppose_note(c, v, (pm_supposed){PM_SUPPOSED_ZERO, NULL});
            PM_PUSH(c->scratch, &c->outer, v);
        }
        if (v->content && v->type->rank == 0 && pm_dim_is_symbol(c->m, v->content[0], &symbol))
            note_empty(c, symbol);
        const pm_op *op = v->def;
        bool same_elements = op && (op->code == PM_OP_reshape || op->code == PM_OP_transpose ||
                                    (op->code == PM_OP_cast && (op->operands[0]->type->elem == PM_BOOL ||
                                                                v->type->elem == PM_BOOL)));
        bool sum = op && (op->code == PM_OP_reduce_sum || op->code == PM_OP_reduce_max) &&
                   pm_is_not_negative(op->operands[0], 0);
        if (!same_elements && !sum)
            return;
        v = op->operands[0];
    }
}

/// The number is 0 or less.
static void at_most_zero(pm_supposing *c, pm_value *v)
{
    const pm_op *op = v->def;
    bool greatest = op && op->code == PM_OP_reduce_max && pm_is_not_negative(op->operands[0], 0);
    if (greatest || pm_is_not_negative(v, 0))
        all_zero(c, v);
}

/// The condition has this value. Recursion is bounded by MAX_DEPTH.
static void suppose(pm_supposing *c, pm_value *v, bool truth, int depth)
{
    const pm_op *op = v->def;
    if (!truth)
        all_zero(c, v);
    if (!op || depth == MAX_DEPTH)
        return;
    pm_value *x = op->n_operands > 0 ? op->operands[0] : NULL, *y = op->n_operands > 1 ? op->operands[1] : NULL;
    switch (op->code) {
    case PM_OP_not: suppose(c, x, !truth, depth + 1); break;
    case PM_OP_reshape: suppose(c, x, truth, depth + 1); break;
    case PM_OP_cast:
        if (x->type->elem == PM_BOOL)
            suppose(c, x, truth, depth + 1);
        break;
    case PM_OP_and:
    case PM_OP_or:
        if (truth == (op->code == PM_OP_and)) {
            suppose(c, x, truth, depth + 1);
            suppose(c, y, truth, depth + 1);
        }
        break;
    case PM_OP_less: // x < y
        if (!truth && pm_is_zero_const(x))
            at_most_zero(c, y);
        if (truth && is_one_const(y))
            at_most_zero(c, x);
        break;
    case PM_OP_less_equal:
        if (truth && pm_is_zero_const(y))
            at_most_zero(c, x);
        if (!truth && is_one_const(x))
            at_most_zero(c, y);
        break;
    case PM_OP_equal:
        if (truth && pm_is_zero_const(y))
            all_zero(c, x);
        if (truth && pm_is_zero_const(x))
            all_zero(c, y);
        break;
    default: break;
    }
}

/* ---- looking through ops --------------------------------------------------------------------------- */

/// f(0) is 0.
static bool keeps_zero(pm_opcode code)
{
    switch (code) {
    case PM_OP_neg:
    case PM_OP_abs:
    case PM_OP_sign:
    case PM_OP_sqrt:
    case PM_OP_sin:
    case PM_OP_tanh:
    case PM_OP_erf:
    case PM_OP_silu:
    case PM_OP_relu:
    case PM_OP_gelu:
    case PM_OP_floor:
    case PM_OP_ceil:
    case PM_OP_round:
    case PM_OP_cast:
    case PM_OP_reshape:
    case PM_OP_transpose:
    case PM_OP_expand:
    case PM_OP_slice:
    case PM_OP_split:
    case PM_OP_tile:
    case PM_OP_trilu:
    case PM_OP_gather:
    case PM_OP_gather_elements:
    case PM_OP_gather_nd:
    case PM_OP_cumsum:
    case PM_OP_reduce_sum:
    case PM_OP_reduce_mean:
    case PM_OP_reduce_max:
    case PM_OP_reduce_min: return true;
    default: return false;
    }
}

static bool all_operands_zero(const pm_supposing *c, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (!is_zero(c, op->operands[i]))
            return false;
    return true;
}

static bool adds_nothing(const pm_supposing *c, const pm_value *v)
{
    return is_zero(c, v) || is_empty_type(c, v->type);
}

static bool gives_zero(const pm_supposing *c, const pm_op *op)
{
    pm_value *const *in = op->operands;
    switch (op->code) {
    case PM_OP_mul:
    case PM_OP_and:
    case PM_OP_matmul: return is_zero(c, in[0]) || is_zero(c, in[1]);
    case PM_OP_linear: return is_zero(c, in[0]) && (op->n_operands < 3 || !in[2]);
    case PM_OP_add:
    case PM_OP_sub:
    case PM_OP_or:
    case PM_OP_xor:
    case PM_OP_min:
    case PM_OP_max:
    case PM_OP_concat: return all_operands_zero(c, op);
    case PM_OP_where:
        return is_zero(c, in[2]) && (is_zero(c, in[0]) || is_zero(c, in[1]));
    case PM_OP_scatter_elements:
    case PM_OP_scatter_nd: return is_zero(c, in[0]) && adds_nothing(c, in[2]);
    case PM_OP_reduce_sum:
        if (is_empty_type(c, in[0]->type))
            return true;
        break;
    default: break;
    }
    return keeps_zero(op->code) && is_zero(c, in[0]);
}

/// The operand that the op gives unchanged, or NULL.
static const pm_value *unchanged(const pm_supposing *c, const pm_op *op)
{
    pm_value *const *in = op->operands;
    switch (op->code) {
    case PM_OP_add:
    case PM_OP_or:
        return is_zero(c, in[1]) ? in[0] : is_zero(c, in[0]) ? in[1] : NULL;
    case PM_OP_sub: return is_zero(c, in[1]) ? in[0] : NULL;
    case PM_OP_where: return is_zero(c, in[0]) ? in[2] : NULL;
    case PM_OP_cast:
    case PM_OP_reshape:
    case PM_OP_expand: return in[0];
    case PM_OP_scatter_elements:
    case PM_OP_scatter_nd: {
        bool nothing = is_empty_type(c, in[2]->type) || is_empty_type(c, in[1]->type);
        bool zeros = is_zero(c, in[2]) && strcmp(pm_op_str(op, "reduction"), "add") == 0;
        return nothing || zeros ? in[0] : NULL;
    }
    default: return NULL;
    }
}

void pm_suppose_look_at(pm_supposing *c, const pm_op *op)
{
    uint32_t symbol;
    if (op->n_regions || op->n_results == 0 || op->code == PM_OP_const)
        return;
    if (op->code == PM_OP_nonzero && is_zero(c, op->operands[0]) &&
        pm_dim_is_symbol(c->m, op->results[0]->type->dims[1], &symbol))
        note_empty(c, symbol);
    const pm_value *same = unchanged(c, op);
    pm_supposed what = same && same->type == op->results[0]->type ? pm_suppose_know(c, same) : (pm_supposed){0};
    if (gives_zero(c, op))
        what = (pm_supposed){PM_SUPPOSED_ZERO, NULL};
    for (uint32_t i = 0; i < op->n_results && what.fact != PM_SUPPOSED_NOTHING; i++)
        pm_suppose_note(c, op->results[i], what);
}

/// What follows outside from what is known there.
void pm_suppose_look_outside(pm_supposing *c, const pm_op *op)
{
    for (size_t i = 0; i < c->outer.n && i < MAX_OUTER; i++)
        for (const pm_use *use = c->outer.data[i]->uses; use && c->outer.n < MAX_OUTER; use = use->next) {
            if (use->op == op || use->op->n_results == 0 ||
                pm_map_get(&c->known, &use->op->results[0]->id, sizeof(uint32_t)))
                continue;
            pm_suppose_look_at(c, use->op);
            if (is_zero(c, use->op->results[0]))
                PM_PUSH(c->scratch, &c->outer, use->op->results[0]);
        }
}

/// Whether the op may be at fault, or work in vain, where the other branch would have run.
bool pm_suppose_is_harmless(const pm_supposing *c, pm_op *op)
{
    const pm_type *type = op->n_results ? op->results[0]->type : NULL;
    int64_t extent, axis;
    if (op->n_regions || !type || pm_op_info_of(op)->traits & (PM_T_IMPURE | PM_T_INPLACE))
        return false;
    switch (op->code) {
    case PM_OP_div:
    case PM_OP_mod: return pm_elem_is_float(type->elem);
    case PM_OP_argmax:
    case PM_OP_argmin:
        axis = pm_op_i64(op, "axis");
        axis = axis < 0 ? axis + op->operands[0]->type->rank : axis;
        return pm_dim_is_const(c->m, op->operands[0]->type->dims[axis], &extent) && extent > 0;
    case PM_OP_gather:
    case PM_OP_gather_elements:
    case PM_OP_gather_nd:
    case PM_OP_scatter_elements:
    case PM_OP_scatter_nd: // indices that may be out of range
        return is_empty_type(c, op->operands[1]->type) || pm_value_const(op->operands[1]);
    case PM_OP_nonzero: return true;
    default: return !pm_op_finds_extents(op);
    }
}

void pm_suppose_begin(pm_supposing *c)
{
    pm_map_init(&c->known, c->scratch);
    c->outer.n = c->empty.n = 0;
}

void pm_suppose(pm_supposing *c, pm_value *condition, bool truth)
{
    suppose(c, condition, truth, 0);
}
