/// Fold hooks: identities. Constants are folded generically through eval, by a pass.
///
/// A replacement has the very type of the result. Nothing here changes a NaN, an infinity or the
/// sign of a zero: x * 0 stays, x + 0.0 stays (it turns -0 into 0), x - 0.0 and x * 1 go.
#include "ir/ops/hooks.h"

/// Takes `value` as the replacement when it has the result's type.
static void take(pm_op *op, pm_value *value, pm_value **out_value)
{
    *out_value = value->type == op->results[0]->type ? value : NULL;
}

/// As take, for a value that was just built: when it doesn't fit, what was built for it is dead.
static pm_status take_built(pm_op *op, pm_value *value, pm_value **out_value)
{
    take(op, value, out_value);
    if (*out_value || value->def == NULL || value->uses)
        return PM_OK;
    pm_op *built = value->def;
    pm_value *shape = built->n_operands > 1 ? built->operands[1] : NULL;
    pm_op_erase(built);
    if (shape && shape->def && shape->uses == NULL && shape->def->n_operands == 0)
        pm_op_erase(shape->def);
    return PM_OK;
}

/* ---- elementwise ----------------------------------------------------------------------------- */

/// Integers that a type wider than their own holds: a cast there and back is nothing.
static bool widens(pm_elem from, pm_elem to)
{
    if (from == PM_BOOL)
        return true; // 0 and 1 are in every type
    if (pm_elem_is_float(from) != pm_elem_is_float(to) || to == PM_BOOL)
        return false;
    if (pm_elem_is_float(from))
        return pm_elem_size(from) < pm_elem_size(to);
    bool from_signed = from == PM_I64 || from == PM_I32 || from == PM_I16 || from == PM_I8;
    bool to_signed = to == PM_I64 || to == PM_I32 || to == PM_I16 || to == PM_I8;
    return pm_elem_size(from) < pm_elem_size(to) && (!from_signed || to_signed);
}

pm_status pm_fold_cast(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    pm_value *x = op->operands[0];
    *out_value = NULL;
    take(op, x, out_value);
    if (*out_value == NULL && pm_value_is(x, PM_OP_cast) &&
        widens(x->def->operands[0]->type->elem, x->type->elem))
        take(op, x->def->operands[0], out_value);
    return PM_OK;
}

/// True when `x op y` is x.
static bool is_neutral(const pm_op *op, pm_value *y)
{
    double number;
    bool is_float = pm_elem_is_float(y->type->elem);
    if (!pm_hook_splat(y, &number))
        return false;
    switch (op->code) {
    case PM_OP_add: return number == 0 && (!is_float || __builtin_signbit(number));
    case PM_OP_sub: return number == 0 && (!is_float || !__builtin_signbit(number));
    case PM_OP_mul:
    case PM_OP_div: return number == 1;
    default: return false;
    }
}

pm_status pm_fold_arith(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    *out_value = NULL;
    if (is_neutral(op, op->operands[1]))
        take(op, op->operands[0], out_value);
    bool commutes = pm_op_info_of(op)->traits & PM_T_COMMUTES;
    if (*out_value == NULL && commutes && is_neutral(op, op->operands[0]))
        take(op, op->operands[1], out_value);
    return PM_OK;
}

pm_status pm_fold_pow(pm_builder *b, pm_op *op, pm_value **out_value)
{
    double exponent;
    pm_value *x = op->operands[0];
    *out_value = NULL;
    if (x->type != op->results[0]->type || !pm_hook_splat(op->operands[1], &exponent))
        return PM_OK;
    if (exponent == 1)
        *out_value = x;
    else if (exponent == 2)
        return pm_build1(b, out_value, PM_OP_mul, PM_OPERANDS(x, x), PM_NO_ATTRS);
    return PM_OK;
}

pm_status pm_fold_where(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    double condition;
    *out_value = NULL;
    if (op->operands[1] == op->operands[2])
        take(op, op->operands[1], out_value);
    else if (pm_hook_splat(op->operands[0], &condition))
        take(op, op->operands[condition != 0 ? 1 : 2], out_value);
    return PM_OK;
}

/* ---- reductions ------------------------------------------------------------------------------ */

pm_status pm_fold_reduce(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_module *m = pm_hook_module(op);
    pm_value *x = op->operands[0];
    const pm_attr *axes = pm_op_attr(op, "axes");
    int64_t extent;
    *out_value = NULL;
    // a sum starts at 0, which turns -0 into 0
    bool exact = op->code != PM_OP_reduce_sum || !pm_elem_is_float(x->type->elem);
    for (size_t i = 0; i < axes->n; i++) {
        int64_t axis = axes->ints[i] < 0 ? axes->ints[i] + x->type->rank : axes->ints[i];
        if (!exact || !pm_dim_is_const(m, x->type->dims[axis], &extent) || extent != 1)
            return PM_OK;
    }
    const pm_type *type = op->results[0]->type;
    if (x->type == type) {
        *out_value = x;
        return PM_OK;
    }
    PM_TRY(pm_build_reshape_dims(b, x, type->rank, type->dims, out_value));
    return take_built(op, *out_value, out_value);
}

/* ---- shape and data movement ----------------------------------------------------------------- */

/// A data-dependent symbol that the type doesn't mention.
static bool is_foreign(const pm_module *m, uint32_t symbol, const void *arg)
{
    const pm_type *type = arg;
    for (int32_t i = 0; i < type->rank; i++)
        if (pm_dim_mentions(m, type->dims[i], symbol))
            return false;
    return m->symbols.data[symbol].data_dependent;
}

pm_status pm_fold_reshape(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_value *x = op->operands[0];
    const pm_type *type = op->results[0]->type;
    uint32_t symbol;
    *out_value = NULL;
    take(op, x, out_value);
    if (*out_value || !pm_value_is(x, PM_OP_reshape))
        return PM_OK;
    // an extent that only one of the two reshapes finds must stay with it
    x = x->def->operands[0];
    for (int32_t i = 0; i < type->rank; i++)
        if (pm_dim_find_symbol(pm_hook_module(op), type->dims[i], is_foreign, x->type, &symbol))
            return PM_OK;
    PM_TRY(pm_build_reshape_dims(b, x, type->rank, type->dims, out_value));
    return take_built(op, *out_value, out_value);
}

/// True when the axes with more than one element keep their order.
static bool only_moves_ones(const pm_module *m, const pm_type *x, const int64_t *perm)
{
    int64_t extent, last = -1;
    for (int32_t i = 0; i < x->rank; i++) {
        if (pm_dim_is_const(m, x->dims[perm[i]], &extent) && extent == 1)
            continue;
        if (perm[i] < last)
            return false;
        last = perm[i];
    }
    return true;
}

pm_status pm_fold_transpose(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_value *x = op->operands[0];
    const pm_attr *perm = pm_op_attr(op, "perm");
    const pm_type *type = op->results[0]->type;
    bool identity = true;
    *out_value = NULL;
    for (size_t i = 0; i < perm->n; i++)
        identity = identity && perm->ints[i] == (int64_t)i;
    if (identity) {
        take(op, x, out_value);
        return PM_OK;
    }
    if (only_moves_ones(pm_hook_module(op), x->type, perm->ints)) {
        PM_TRY(pm_build_reshape_dims(b, x, type->rank, type->dims, out_value));
        return take_built(op, *out_value, out_value);
    }
    if (!pm_value_is(x, PM_OP_transpose))
        return PM_OK;
    const pm_attr *inner = pm_op_attr(x->def, "perm");
    int64_t both[PM_MAX_RANK];
    identity = true;
    for (size_t i = 0; i < perm->n; i++) {
        both[i] = inner->ints[perm->ints[i]];
        identity = identity && both[i] == (int64_t)i;
    }
    x = x->def->operands[0];
    if (identity) {
        take(op, x, out_value);
        return PM_OK;
    }
    PM_TRY(pm_build1(b, out_value, PM_OP_transpose, PM_OPERANDS(x),
                     PM_ATTRS(pm_attr_ints("perm", both, perm->n))));
    return take_built(op, *out_value, out_value);
}

pm_status pm_fold_concat(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_module *m = pm_hook_module(op);
    int32_t axis = pm_hook_axis_of(op, "axis", pm_hook_type(op, 0)->rank);
    pm_value **kept = PM_NEW_ARRAY(m->arena, pm_value *, op->n_operands);
    uint32_t n = 0;
    int64_t extent;
    *out_value = NULL;
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (!pm_dim_is_const(m, pm_hook_type(op, i)->dims[axis], &extent) || extent != 0)
            kept[n++] = op->operands[i];
    if (n == 1)
        take(op, kept[0], out_value);
    if (n <= 1 || n == op->n_operands)
        return PM_OK;
    PM_TRY(pm_build1(b, out_value, PM_OP_concat, kept, n, PM_ATTRS(pm_attr_i64("axis", axis))));
    return take_built(op, *out_value, out_value);
}

pm_status pm_fold_split(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    *out_value = NULL;
    if (op->n_results == 1)
        take(op, op->operands[0], out_value);
    return PM_OK;
}

pm_status pm_fold_slice(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    size_t n = 0;
    int64_t steps[PM_MAX_RANK];
    *out_value = NULL;
    if (pm_hook_has(op, 4) && !pm_value_const_ints(op->operands[4], steps, PM_MAX_RANK, &n))
        return PM_OK;
    for (size_t i = 0; i < n; i++)
        if (steps[i] != 1)
            return PM_OK;
    // as many elements as there are, in order
    take(op, op->operands[0], out_value);
    return PM_OK;
}

pm_status pm_fold_expand(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    *out_value = NULL;
    take(op, op->operands[0], out_value);
    return PM_OK;
}

pm_status pm_fold_gather(pm_builder *b, pm_op *op, pm_value **out_value)
{
    (void)b;
    int64_t at[PM_MAX_CONTENT], extent;
    size_t n;
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis = pm_hook_axis_of(op, "axis", x->rank);
    *out_value = NULL;
    if (pm_hook_type(op, 1)->rank != 1 ||
        !pm_value_const_ints(op->operands[1], at, PM_MAX_CONTENT, &n) ||
        !pm_dim_is_const(pm_hook_module(op), x->dims[axis], &extent) || extent != (int64_t)n)
        return PM_OK;
    for (size_t i = 0; i < n; i++)
        if (at[i] != (int64_t)i)
            return PM_OK;
    take(op, op->operands[0], out_value);
    return PM_OK;
}

/* ---- products -------------------------------------------------------------------------------- */

/// The operand of a transpose that swaps the last two axes only; NULL when v is none.
static pm_value *matrix_transposed(pm_value *v)
{
    if (!pm_value_is(v, PM_OP_transpose) || v->type->rank < 2)
        return NULL;
    const pm_attr *perm = pm_op_attr(v->def, "perm");
    int64_t rank = v->type->rank;
    for (int64_t i = 0; i < rank; i++) {
        int64_t expected = i == rank - 1 ? rank - 2 : i == rank - 2 ? rank - 1 : i;
        if (perm->ints[i] != expected)
            return NULL;
    }
    return v->def->operands[0];
}

pm_status pm_fold_matmul(pm_builder *b, pm_op *op, pm_value **out_value)
{
    pm_value *first = matrix_transposed(op->operands[0]);
    pm_value *second = matrix_transposed(op->operands[1]);
    bool trans_a = pm_op_i64(op, "trans_a"), trans_b = pm_op_i64(op, "trans_b");
    *out_value = NULL;
    if (first == NULL && second == NULL)
        return PM_OK;
    PM_TRY(
        pm_build1(b, out_value, PM_OP_matmul,
                  PM_OPERANDS(first ? first : op->operands[0], second ? second : op->operands[1]),
                  PM_ATTRS(pm_attr_bool("trans_a", trans_a != (first != NULL)),
                           pm_attr_bool("trans_b", trans_b != (second != NULL)))));
    return take_built(op, *out_value, out_value);
}

/* ---- control flow ---------------------------------------------------------------------------- */

/// An `if` whose condition is known becomes the ops of that region. All results are replaced here;
/// *out_value is set as well when there is one.
pm_status pm_fold_if(pm_builder *b, pm_op *op, pm_value **out_value)
{
    double condition;
    *out_value = NULL;
    bool used = false;
    for (uint32_t i = 0; i < op->n_results; i++)
        used = used || pm_value_use_count(op->results[i]) > 0;
    if (!used || !pm_hook_splat(op->operands[0], &condition))
        return PM_OK;
    pm_graph *region = op->regions[condition != 0 ? 0 : 1];
    for (uint32_t i = 0; i < op->n_results; i++)
        if (region->results.data[i]->type != op->results[i]->type)
            return PM_OK;
    pm_value **results = PM_NEW_ARRAY(pm_hook_module(op)->arena, pm_value *, op->n_results);
    PM_TRY(pm_region_inline(b, region, op->operands + 1, results));
    for (uint32_t i = 0; i < op->n_results; i++)
        if (results[i]->type != op->results[i]->type)
            return PM_OK; // narrower than it was: pass unroll's business
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (op->n_results == 1)
            *out_value = results[i];
        else
            pm_value_replace(op->results[i], results[i]);
    }
    return PM_OK;
}
