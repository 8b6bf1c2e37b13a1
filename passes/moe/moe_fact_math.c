/// Rules of the forward walk for elementwise ops, reductions, counting and lists of rows.
#include "passes/moe/moe_fact_rules.h"

#include <math.h>
#include <string.h>

#include "ir/op_table.h"

/* ---- elementwise ----------------------------------------------------------------------------- */

/// The meaning of an op on numbers, for tables and for what stands outside a mask; false: none here.
static bool apply(const pm_op *op, double x, double y, double *out)
{
    switch (op->code) {
    case PM_OP_neg: *out = -x; break;
    case PM_OP_abs: *out = fabs(x); break;
    case PM_OP_exp: *out = exp(x); break;
    case PM_OP_sigmoid: *out = 1 / (1 + exp(-x)); break;
    case PM_OP_relu: *out = x > 0 ? x : 0; break;
    case PM_OP_floor: *out = floor(x); break;
    case PM_OP_ceil: *out = ceil(x); break;
    case PM_OP_isnan: *out = isnan(x); break;
    case PM_OP_not: *out = !x; break;
    case PM_OP_add: *out = x + y; break;
    case PM_OP_sub: *out = x - y; break;
    case PM_OP_mul: *out = x * y; break;
    case PM_OP_min: *out = fmin(x, y); break;
    case PM_OP_max: *out = fmax(x, y); break;
    case PM_OP_and: *out = x != 0 && y != 0; break;
    case PM_OP_or: *out = x != 0 || y != 0; break;
    case PM_OP_equal: *out = x == y; break;
    case PM_OP_less: *out = x < y; break;
    case PM_OP_less_equal: *out = x <= y; break;
    case PM_OP_div:
        if (y == 0)
            return false;
        *out = pm_elem_is_float(op->results[0]->type->elem) ? x / y : trunc(x / y);
        break;
    case PM_OP_cast: *out = op->results[0]->type->elem == PM_BOOL ? x != 0 : x; break;
    default: return false;
    }
    if (op->results[0]->type->elem == PM_F32)
        *out = (float)*out;
    else if (op->code == PM_OP_cast && !pm_elem_is_float(op->results[0]->type->elem))
        *out = trunc(*out);
    return true;
}

static bool table_is(const pm_moe_fact *x, double value)
{
    for (int64_t i = 0; i < x->n_rows * x->seed->experts; i++)
        if (x->table[i] != value)
            return false;
    return true;
}

/// A function of the id, by a function of one number.
static bool map_table(finder *f, const pm_moe_fact *x, double other, bool other_left, pm_moe_fact *y)
{
    double *table = pm_moe_new_table(f, x->seed, x->n_rows);
    *y = *x;
    for (int64_t i = 0; i < x->n_rows * x->seed->experts; i++)
        if (!apply(f->op, other_left ? other : x->table[i], other_left ? x->table[i] : other, &table[i]))
            return false;
    y->table = table;
    return true;
}

/// x against a constant vector along an axis where x has no extent: a row of the table for each element.
static bool spread_table(finder *f, const pm_moe_fact *x, pm_value *vector, bool vector_left,
                         pm_moe_fact *y)
{
    enum { MAX = PM_MAX_MOE_EXPERTS + 1 };
    double *values = PM_NEW_ARRAY(f->arena, double, MAX);
    int64_t n;
    int32_t axis, rank = f->op->results[0]->type->rank;
    if (x->n_rows != 1 || pm_moe_find_atom(&x->axes, PM_ATOM_ID) >= 0 ||
        !pm_moe_const_vector(f, vector, values, MAX, &n, &axis))
        return false;
    axis += rank - vector->type->rank;
    int32_t shift = rank - x->axes.rank;
    const pm_atom *first;
    if (n * x->seed->experts > (1 << 22) || pm_axes_at(&x->axes, axis - shift, &first) != 0)
        return false;
    double *table = pm_moe_new_table(f, x->seed, n);
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = 0; e < x->seed->experts; e++)
            if (!apply(f->op, vector_left ? values[j] : x->table[e],
                       vector_left ? x->table[e] : values[j], &table[j * x->seed->experts + e]))
                return false;
    *y = *x;
    y->table = table;
    y->n_rows = n;
    y->axes = (pm_axes){.rank = rank};
    for (int32_t k = 0; k < rank; k++) {
        int32_t count = pm_axes_at(&x->axes, k - shift, &first);
        for (int32_t i = 0; i < count; i++)
            pm_axes_put(&y->axes, first[i], k);
        if (k == axis)
            pm_axes_put(&y->axes, (pm_atom){.kind = PM_ATOM_ID, .dim = pm_dim_const(f->m, n)}, k);
    }
    return pm_axes_fit(&y->axes);
}

/// Two functions of the id over the same axes.
static bool zip_tables(finder *f, const pm_moe_fact *a, const pm_moe_fact *b, pm_moe_fact *y)
{
    if (a->n_rows != b->n_rows || a->seed != b->seed ||
        !pm_axes_broadcast(&a->axes, &b->axes, f->op->results[0]->type->rank, &y->axes))
        return false;
    double *table = pm_moe_new_table(f, a->seed, a->n_rows);
    for (int64_t i = 0; i < a->n_rows * a->seed->experts; i++)
        if (!apply(f->op, a->table[i], b->table[i], &table[i]))
            return false;
    pm_axes axes = y->axes;
    *y = *a;
    y->axes = axes;
    y->table = table;
    return true;
}

/// A 0/1 function of the id as a mask.
static bool as_mask(const pm_moe_fact *x, pm_moe_fact *out)
{
    if (x->kind == PM_FACT_MASKED) {
        *out = *x;
        out->on = false; // what it is used in may be anything where it isn't off
        return true;
    }
    if (x->kind != PM_FACT_OF_ID)
        return false;
    *out = *x;
    out->kind = PM_FACT_MASKED;
    out->off = 0;
    out->source = NULL;
    out->expert = pm_fact_only_expert(x);
    bool diagonal = x->n_rows > 1 && pm_fact_is_diagonal(x);
    if (diagonal)
        out->expert = -1;
    return diagonal || (out->expert >= 0 && x->n_rows == 1 && x->table[out->expert] == 1);
}

/// What nothing is known of, beside a mask over tokens and choices, with their extents: weights of the choices.
static const pm_moe_fact *label_weights(finder *f, uint32_t operand, const pm_moe_fact *mask)
{
    pm_value *v = f->op->operands[operand];
    pm_axes plain = pm_axes_plain(f->m, v->type), axes = {.rank = v->type->rank};
    int32_t shift = mask->axes.rank - v->type->rank;
    for (int32_t i = 0; i < plain.n; i++) {
        const pm_atom *theirs;
        if (pm_axes_at(&mask->axes, plain.atoms[i].axis + shift, &theirs) != 1 ||
            theirs->kind != PM_ATOM_SEED || theirs->dim != plain.atoms[i].dim)
            return NULL;
        pm_axes_put(&axes, *theirs, plain.atoms[i].axis);
    }
    if (axes.n == 0 || !pm_axes_fit(&axes) || v->id >= f->facts->n)
        return NULL;
    pm_moe_fact *copy = PM_NEW(f->arena, pm_moe_fact);
    *copy = (pm_moe_fact){.kind = PM_FACT_AXES, .seed = mask->seed, .expert = -1, .choice = -1, .axes = axes};
    f->facts->of[v->id] = copy;
    return copy;
}

/// Something times a mask: where the mask is 0, so is the product.
static bool masked_product(finder *f, uint32_t mask_operand, pm_moe_fact *y)
{
    const pm_moe_fact *mask = pm_moe_operand_fact(f, mask_operand), *other = pm_moe_operand_fact(f, 1 - mask_operand);
    pm_axes axes = pm_moe_operand_axes(f, 1 - mask_operand);
    bool ones = mask && mask->kind == PM_FACT_OF_ID;
    if (!mask || !as_mask(mask, y) || y->off != 0 || (other && other->seed != mask->seed) ||
        !pm_axes_broadcast(&y->axes, &axes, f->op->results[0]->type->rank, &y->axes))
        return false;
    if (ones && !other)
        other = label_weights(f, 1 - mask_operand, mask);
    y->source = ones && other && other->kind == PM_FACT_AXES && pm_moe_is_choice_weight(other)
                    ? f->op->operands[1 - mask_operand]
                    : NULL;
    return true;
}

static bool scaled_form(finder *f, const pm_moe_fact *x, int64_t by, pm_moe_fact *y)
{
    *y = *x;
    for (int32_t k = 0; k < x->n_forms; k++) {
        if (x->forms[k].position_in)
            return false;
        y->forms[k].base = pm_dim_mul(f->m, x->forms[k].base, pm_dim_const(f->m, by));
        for (int32_t i = 0; i < PM_MAX_SEED_DIMS; i++)
            y->forms[k].coef[i] = pm_dim_mul(f->m, x->forms[k].coef[i], pm_dim_const(f->m, by));
    }
    return true;
}

static bool sum_forms(finder *f, const pm_moe_fact *a, const pm_moe_fact *b, pm_moe_fact *y)
{
    pm_axes axes;
    if (a->seed != b->seed || a->n_forms != 1 || b->n_forms != 1 || a->forms[0].position_in ||
        b->forms[0].position_in ||
        !pm_axes_broadcast(&a->axes, &b->axes, f->op->results[0]->type->rank, &axes))
        return false;
    *y = *a;
    y->axes = axes;
    y->forms[0].base = pm_dim_add(f->m, a->forms[0].base, b->forms[0].base);
    for (int32_t i = 0; i < PM_MAX_SEED_DIMS; i++)
        y->forms[0].coef[i] = pm_dim_add(f->m, a->forms[0].coef[i], b->forms[0].coef[i]);
    return true;
}

/// Quotient or remainder of a row-major index by an extent: the indices in front, or behind. `by` must be
/// the stride of some dim: those with a larger stride give the quotient.
static bool divided_form(finder *f, const pm_moe_fact *x, int64_t by, bool remainder, pm_moe_fact *y)
{
    if (x->n_forms != 1 || x->forms[0].position_in || x->forms[0].base != pm_moe_zero(f))
        return false;
    *y = *x;
    pm_dim divisor = pm_dim_const(f->m, by), stride = pm_dim_const(f->m, 1);
    bool behind = true; // dims whose strides are below the divisor
    for (int32_t i = x->seed->n_dims - 1; i >= 0; i--) { // strides grow from the last dim on
        pm_dim coef = x->forms[0].coef[i];
        int64_t value;
        if (coef == pm_moe_zero(f))
            continue;
        if (coef != stride)
            return false;
        behind = behind && stride != divisor;
        stride = pm_dim_mul(f->m, stride, x->seed->dims[i]);
        if (behind != remainder)
            y->forms[0].coef[i] = pm_moe_zero(f);
        else if (!remainder)
            y->forms[0].coef[i] = pm_dim_is_const(f->m, coef, &value)
                                      ? pm_dim_const(f->m, value / by)
                                      : pm_dim_floordiv(f->m, coef, divisor);
    }
    if (behind && stride != divisor)
        return false; // it divides within a dim
    return true;
}

static bool forms_arithmetic(finder *f, pm_moe_fact *y)
{
    const pm_moe_fact *a = pm_moe_operand_fact(f, 0), *b = pm_moe_operand_fact(f, 1);
    bool a_forms = a && a->kind == PM_FACT_FORMS, b_forms = b && b->kind == PM_FACT_FORMS;
    double value;
    if (a_forms && b_forms)
        return f->op->code == PM_OP_add && sum_forms(f, a, b, y);
    if (!a_forms)
        return f->op->code == PM_OP_mul && b_forms && pm_moe_const_scalar(f, f->op->operands[0], &value) &&
               scaled_form(f, b, (int64_t)value, y);
    if (b && b->kind == PM_FACT_OF_ID && table_is(b, 0) &&
        (f->op->code == PM_OP_add || f->op->code == PM_OP_sub)) {
        *y = *a;
        return true;
    }
    // an index is never negative
    if ((f->op->code == PM_OP_less) && pm_moe_const_scalar(f, f->op->operands[1], &value) && value <= 0) {
        double *table = pm_moe_new_table(f, a->seed, 1);
        *y = (pm_moe_fact){.kind = PM_FACT_OF_ID, .seed = a->seed, .axes = a->axes, .table = table,
                           .n_rows = 1, .expert = -1, .choice = -1};
        return true;
    }
    if (!pm_moe_const_scalar(f, f->op->operands[1], &value) || value < 1)
        return false;
    switch (f->op->code) {
    case PM_OP_mul: return scaled_form(f, a, (int64_t)value, y);
    case PM_OP_div: return divided_form(f, a, (int64_t)value, false, y);
    case PM_OP_mod: return divided_form(f, a, (int64_t)value, true, y);
    default: return false;
    }
}

/// Axes alone: whatever the op, its result has those of its operands.
static bool plain_axes(finder *f, pm_moe_fact *y)
{
    const pm_seed *seed = NULL;
    pm_axes axes = {.rank = 0};
    int32_t rank = f->op->results[0]->type->rank;
    for (uint32_t i = 0; i < f->op->n_operands; i++) {
        const pm_moe_fact *x = pm_moe_operand_fact(f, i);
        if (x && seed && x->seed != seed)
            return false;
        seed = x ? x->seed : seed;
        pm_axes own = pm_moe_operand_axes(f, i), both;
        if (!pm_axes_broadcast(&axes, &own, rank, &both))
            return false;
        axes = both;
    }
    *y = (pm_moe_fact){.kind = PM_FACT_AXES, .seed = seed, .axes = axes, .expert = -1, .choice = -1};
    return seed != NULL;
}

static bool unary(finder *f, pm_moe_fact *y)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    if (!x)
        return false;
    *y = *x;
    bool is_cast = f->op->code == PM_OP_cast;
    double value;
    switch (x->kind) {
    case PM_FACT_OF_ID: return map_table(f, x, 0, false, y);
    case PM_FACT_COUNTS:
    case PM_FACT_FORMS:
    case PM_FACT_HITS:
    case PM_FACT_INVERSE: return is_cast && pm_elem_is_int(f->op->results[0]->type->elem);
    case PM_FACT_MASKED:
        if (!is_cast)
            y->source = NULL;
        y->on = x->on && apply(f->op, 1, 0, &value) && value == 1;
        return apply(f->op, x->off, 0, &y->off);
    default: return false;
    }
}

/// A mask against a number: a mask again, where that is 1 and else 0.
static bool compare_mask(finder *f, uint32_t operand, pm_moe_fact *y)
{
    const pm_moe_fact *mask = pm_moe_operand_fact(f, operand);
    double number, on, off;
    bool left = operand == 1; // where the number stands
    if (!mask || mask->kind != PM_FACT_MASKED || !mask->on || pm_moe_operand_fact(f, 1 - operand) ||
        !pm_moe_const_scalar(f, f->op->operands[1 - operand], &number) ||
        f->op->results[0]->type->rank != mask->axes.rank ||
        !apply(f->op, left ? number : 1, left ? 1 : number, &on) ||
        !apply(f->op, left ? number : mask->off, left ? mask->off : number, &off) || on != 1 || off != 0)
        return false;
    *y = *mask;
    y->off = 0;
    y->source = NULL;
    return true;
}

/// Row j counts expert j; rows after the last expert (a class of "nobody") count nothing.
static bool counts_each(const pm_moe_fact *x)
{
    int64_t n = x->seed->experts;
    for (int64_t i = 0; i < x->n_rows * n; i++)
        if (x->table[i] != (i / n == i % n))
            return false;
    return x->n_rows >= n;
}

/// 0 < counts: which experts were chosen by anybody.
static bool hit_experts(finder *f, pm_moe_fact *y)
{
    const pm_moe_fact *b = pm_moe_operand_fact(f, 1), *a = pm_moe_operand_fact(f, 0);
    double value;
    if (f->op->code != PM_OP_less || a || !b || b->kind != PM_FACT_COUNTS || !counts_each(b) ||
        !pm_moe_const_scalar(f, f->op->operands[0], &value) || value != 0)
        return false;
    *y = *b;
    y->kind = PM_FACT_HITS;
    return true;
}

/// Sums and differences of counts.
static bool counts_arithmetic(finder *f, pm_moe_fact *y)
{
    const pm_moe_fact *a = pm_moe_operand_fact(f, 0), *b = pm_moe_operand_fact(f, 1);
    if (!a || !b || a->kind != PM_FACT_COUNTS || b->kind != PM_FACT_COUNTS ||
        (f->op->code != PM_OP_add && f->op->code != PM_OP_sub))
        return false;
    return zip_tables(f, a, b, y);
}

static bool binary(finder *f, pm_moe_fact *y)
{
    const pm_moe_fact *a = pm_moe_operand_fact(f, 0), *b = pm_moe_operand_fact(f, 1);
    bool a_of_id = a && a->kind == PM_FACT_OF_ID, b_of_id = b && b->kind == PM_FACT_OF_ID;
    double value;
    if (a_of_id && b_of_id && zip_tables(f, a, b, y))
        return true;
    if (a_of_id && !b && pm_moe_const_scalar(f, f->op->operands[1], &value))
        return map_table(f, a, value, false, y) && f->op->results[0]->type->rank == a->axes.rank;
    if (b_of_id && !a && pm_moe_const_scalar(f, f->op->operands[0], &value))
        return map_table(f, b, value, true, y) && f->op->results[0]->type->rank == b->axes.rank;
    if (a_of_id && !b && spread_table(f, a, f->op->operands[1], false, y))
        return true;
    if (b_of_id && !a && spread_table(f, b, f->op->operands[0], true, y))
        return true;
    // nothing and anything is nothing
    if (f->op->code == PM_OP_and || f->op->code == PM_OP_mul) {
        for (uint32_t i = 0; i < 2; i++)
            if (pm_moe_operand_fact(f, i) && pm_moe_operand_fact(f, i)->kind == PM_FACT_OF_ID && table_is(pm_moe_operand_fact(f, i), 0) &&
                plain_axes(f, y)) {
                pm_axes axes = y->axes;
                *y = *pm_moe_operand_fact(f, i);
                y->axes = axes;
                return y->n_rows == 1;
            }
        if (masked_product(f, 0, y) || masked_product(f, 1, y))
            return true;
    }
    return compare_mask(f, 0, y) || compare_mask(f, 1, y) || forms_arithmetic(f, y) || hit_experts(f, y) || counts_arithmetic(f, y);
}

/// where(mask, x, c): c where the expert isn't the chosen one; where(always, x, y) is x.
static bool select_masked(finder *f, pm_moe_fact *y)
{
    const pm_moe_fact *c = pm_moe_operand_fact(f, 0), *x = pm_moe_operand_fact(f, 1);
    double otherwise;
    if (c && c->kind == PM_FACT_OF_ID && x && table_is(c, 1)) {
        *y = *x;
        return true;
    }
    if (!c || !as_mask(c, y) || y->off != 0 || !pm_moe_is_filled_with(f, f->op->operands[2], &otherwise) ||
        (x && x->seed != c->seed))
        return false;
    pm_axes axes = pm_moe_operand_axes(f, 1);
    if (!pm_axes_broadcast(&y->axes, &axes, f->op->results[0]->type->rank, &y->axes))
        return false;
    y->off = otherwise;
    y->source = c->kind == PM_FACT_OF_ID && x && x->kind == PM_FACT_AXES && pm_moe_is_choice_weight(x)
                    ? f->op->operands[1]
                    : NULL;
    return true;
}

/// What is of one choice makes the result so; what is of another beside it leaves nothing known.
static bool one_choice(const finder *f, pm_moe_fact *y)
{
    y->choice = -1;
    for (uint32_t i = 0; i < f->op->n_operands; i++) {
        const pm_moe_fact *x = pm_moe_operand_fact(f, i);
        if (!x || x->choice < 0)
            continue;
        if (y->choice >= 0 && y->choice != x->choice)
            return false;
        y->choice = x->choice;
    }
    for (int32_t i = 0; y->choice >= 0 && i < y->axes.n; i++)
        if (y->axes.atoms[i].kind == PM_ATOM_SEED && y->axes.atoms[i].at == y->seed->choice)
            return false;
    return true;
}

pm_status pm_moe_rule_elementwise(finder *f)
{
    pm_moe_fact y;
    bool known = false;
    bool any = false;
    for (uint32_t i = 0; i < f->op->n_operands; i++)
        any = any || pm_moe_operand_fact(f, i);
    if (!any)
        return PM_OK;
    if (f->op->n_operands == 1)
        known = unary(f, &y);
    else if (f->op->n_operands == 2)
        known = binary(f, &y);
    else if (f->op->code == PM_OP_where)
        known = select_masked(f, &y);
    if ((known || plain_axes(f, &y)) && one_choice(f, &y))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// As its operand's axes, whatever it computes (softmax over the choices).
pm_status pm_moe_rule_same_axes(finder *f)
{
    pm_moe_fact y;
    if (pm_moe_operand_fact(f, 0) && plain_axes(f, &y))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

pm_status pm_moe_rule_onehot(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    double depth, values[2];
    int64_t n;
    int32_t vector_axis, rank = f->op->results[0]->type->rank, axis = pm_moe_axis_of(f->op, "axis", rank);
    if (!x || x->kind != PM_FACT_OF_ID || x->n_rows != 1 || !pm_moe_const_scalar(f, f->op->operands[1], &depth) ||
        !pm_moe_const_vector(f, f->op->operands[2], values, 2, &n, &vector_axis) || n != 2 || depth < 1 ||
        depth > PM_MAX_MOE_EXPERTS)
        return PM_OK;
    int64_t rows = (int64_t)depth;
    double *table = pm_moe_new_table(f, x->seed, rows);
    for (int64_t j = 0; j < rows; j++)
        for (int64_t e = 0; e < x->seed->experts; e++)
            table[j * x->seed->experts + e] = values[x->table[e] == (double)j];
    pm_moe_fact y = *x;
    y.table = table;
    y.n_rows = rows;
    y.axes = (pm_axes){.rank = rank};
    for (int32_t k = 0; k < rank; k++) {
        if (k == axis) {
            pm_axes_put(&y.axes, (pm_atom){.kind = PM_ATOM_ID, .dim = pm_dim_const(f->m, rows)}, k);
            continue;
        }
        const pm_atom *first;
        int32_t count = pm_axes_at(&x->axes, k - (k > axis), &first);
        for (int32_t i = 0; i < count; i++)
            pm_axes_put(&y.axes, first[i], k);
    }
    if (rows > 1 && pm_axes_fit(&y.axes))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/* ---- reductions, counting, lists ------------------------------------------------------------- */

/// True when the axes hold every choice of the seed once: all its dims, or a sorted list.
static bool covers_all(const pm_seed *seed, const pm_axes *axes, bool without_id)
{
    int32_t seen = 0;
    bool sorted = false;
    for (int32_t i = 0; i < axes->n; i++) {
        const pm_atom *atom = &axes->atoms[i];
        if (atom->kind == PM_ATOM_ID && without_id)
            continue;
        if (atom->kind == PM_ATOM_LIST && atom->list->kind == PM_LIST_SORTED)
            sorted = true;
        else if (atom->kind == PM_ATOM_SEED)
            seen++;
        else
            return false;
    }
    return sorted ? seen == 0 : seen == seed->n_dims;
}

pm_status pm_moe_rule_reduce(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    const pm_attr *reduced = pm_op_attr(f->op, "axes");
    bool keep = pm_op_i64(f->op, "keepdims");
    if (!x)
        return PM_OK;
    pm_moe_fact y = *x;
    pm_axes gone = {.rank = x->axes.rank};
    for (size_t k = 0; k < reduced->n; k++)
        for (int32_t i = 0; i < x->axes.n; i++)
            if (x->axes.atoms[i].axis == (reduced->ints[k] + x->axes.rank) % x->axes.rank)
                pm_axes_put(&gone, x->axes.atoms[i], x->axes.atoms[i].axis);
    bool has_id = pm_moe_find_atom(&gone, PM_ATOM_ID) >= 0;
    bool only_choice = gone.n == 1 && gone.atoms[0].kind == PM_ATOM_SEED &&
                       gone.atoms[0].at == x->seed->choice;
    for (int32_t i = 0; i < gone.n; i++) // keep the axis, without its atoms
        pm_axes_drop_atoms(&y.axes, gone.atoms[i].axis);
    for (int32_t axis = x->axes.rank - 1; !keep && axis >= 0; axis--)
        for (size_t k = 0; k < reduced->n; k++)
            if ((reduced->ints[k] + x->axes.rank) % x->axes.rank == axis)
                pm_axes_remove(&y.axes, axis);
    if (x->kind == PM_FACT_OF_ID && f->op->code == PM_OP_reduce_sum && !has_id &&
        covers_all(x->seed, &gone, false)) {
        y.kind = PM_FACT_COUNTS;
    } else if ((x->kind == PM_FACT_OF_ID || x->kind == PM_FACT_MASKED) && only_choice) {
        pm_value *source = x->kind == PM_FACT_MASKED ? x->source : NULL;
        bool sums = f->op->code == PM_OP_reduce_sum;
        if (!as_mask(x, &y) || y.off != 0 || (!sums && f->op->code != PM_OP_reduce_max))
            return PM_OK;
        pm_axes axes = x->axes;
        pm_axes_drop_atoms(&axes, gone.atoms[0].axis);
        if (!keep)
            pm_axes_remove(&axes, gone.atoms[0].axis);
        y.axes = axes;
        y.source = sums ? source : NULL;
        y.on = x->kind == PM_FACT_OF_ID && (!sums || x->seed->distinct);
    } else if (has_id || x->kind != PM_FACT_AXES) {
        return PM_OK;
    }
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// Running sums of counts along the experts; of anything else only the axes are known.
pm_status pm_moe_rule_cumsum(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    if (!x)
        return PM_OK;
    pm_moe_fact y = *x;
    if (x->kind == PM_FACT_COUNTS && x->axes.n == 1 && !pm_op_i64(f->op, "reverse")) {
        int64_t n = x->seed->experts;
        bool exclusive = pm_op_i64(f->op, "exclusive");
        double *table = pm_moe_new_table(f, x->seed, x->n_rows);
        for (int64_t e = 0; e < n; e++) {
            double sum = 0;
            for (int64_t j = 0; j < x->n_rows; j++) {
                double own = x->table[j * n + e];
                table[j * n + e] = exclusive ? sum : sum + own;
                sum += own;
            }
        }
        y.table = table;
    } else {
        y = (pm_moe_fact){.kind = PM_FACT_AXES, .seed = x->seed, .axes = x->axes, .expert = -1, .choice = -1};
    }
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

bool pm_moe_is_filled_with(finder *f, const pm_value *v, double *out)
{
    double value;
    for (int step = 0; step < 8 && v->def; step++) {
        if (v->def->code == PM_OP_mul && pm_moe_const_scalar(f, v->def->operands[1], out) && *out == 0)
            return true; // nothing times anything finite
        switch (v->def->code) {
        case PM_OP_fill: return pm_moe_const_scalar(f, v->def->operands[1], out);
        case PM_OP_mul: // x * 0: zeros of x's shape, as numbers go
            return pm_moe_const_scalar(f, v->def->operands[1], out) && *out == 0;
        case PM_OP_expand:
        case PM_OP_reshape:
        case PM_OP_transpose: v = v->def->operands[0]; continue;
        case PM_OP_const: break;
        default: return false;
        }
        break;
    }
    if (!pm_value_is(v, PM_OP_const))
        return false;
    if (pm_moe_const_scalar(f, (pm_value *)v, out))
        return true;
    double *values = PM_NEW_ARRAY(f->arena, double, PM_MAX_MOE_EXPERTS);
    int64_t n;
    int32_t axis;
    if (!pm_moe_const_vector(f, (pm_value *)v, values, PM_MAX_MOE_EXPERTS, &n, &axis))
        return false;
    value = values[0];
    for (int64_t i = 1; i < n; i++)
        if (values[i] != value)
            return false;
    *out = value;
    return true;
}

/// 0, 1, 2, … along one axis.
static bool is_arange(finder *f, const pm_value *v)
{
    double start, step;
    while (pm_value_is(v, PM_OP_reshape) || pm_value_is(v, PM_OP_cast))
        v = v->def->operands[0];
    return pm_value_is(v, PM_OP_range) && pm_moe_const_scalar(f, v->def->operands[0], &start) && start == 0 &&
           pm_moe_const_scalar(f, v->def->operands[2], &step) && step == 1;
}

/// inverse[order[i]] = i.
static bool scattered_inverse(finder *f, const pm_moe_fact *index, int32_t axis, pm_moe_fact *y)
{
    const pm_type *type = f->op->results[0]->type;
    if (index->kind != PM_FACT_FORMS || index->n_forms != 1 || index->axes.n != 1 || type->rank != 1 ||
        index->axes.atoms[0].kind != PM_ATOM_LIST ||
        index->axes.atoms[0].list->kind != PM_LIST_SORTED || !is_arange(f, f->op->operands[2]))
        return false;
    *y = (pm_moe_fact){.kind = PM_FACT_INVERSE, .seed = index->seed, .expert = -1, .choice = -1,
                       .list = index->axes.atoms[0].list, .axes = {.rank = 1}};
    for (int32_t i = 0; i < index->seed->n_dims; i++)
        pm_axes_put(&y->axes, (pm_atom){.kind = PM_ATOM_SEED, .at = i, .dim = index->seed->dims[i]}, axis);
    pm_index_form flat;
    return pm_moe_axis_form(f, &y->axes, axis, &flat) && pm_moe_form_same(&flat, &index->forms[0]) &&
           pm_dim_same(type->dims[0], pm_type_count(f->m, index->seed->ids->type));
}

/// Weights of the choices put at their experts, along an axis of all experts.
static bool scattered_weights(finder *f, const pm_moe_fact *ids, int32_t axis, pm_moe_fact *y)
{
    const pm_type *type = f->op->results[0]->type;
    double off;
    const pm_atom *first;
    if (!pm_fact_is_id(ids) || !ids->seed->distinct || pm_moe_const_dim(f, type, axis) != ids->seed->experts ||
        !pm_moe_is_filled_with(f, f->op->operands[0], &off))
        return false;
    int32_t n = pm_axes_at(&ids->axes, axis, &first);
    if (n > 1 || (n == 1 && first->at != ids->seed->choice))
        return false;
    *y = (pm_moe_fact){.kind = PM_FACT_MASKED, .seed = ids->seed, .axes = {.rank = type->rank},
                       .off = off, .expert = -1, .choice = -1};
    for (int32_t k = 0; k < type->rank; k++) {
        if (k == axis) {
            pm_axes_put(&y->axes, (pm_atom){.kind = PM_ATOM_ID, .dim = type->dims[axis]}, k);
            continue;
        }
        int32_t count = pm_axes_at(&ids->axes, k, &first);
        if (count == 0 && !pm_moe_is_one(f->m, type->dims[k]))
            return false;
        for (int32_t i = 0; i < count; i++)
            pm_axes_put(&y->axes, first[i], k);
    }
    const pm_moe_fact *updates = pm_moe_operand_fact(f, 2);
    if (updates && updates->kind == PM_FACT_AXES && updates->seed == ids->seed && pm_moe_is_choice_weight(updates))
        y->source = f->op->operands[2];
    return true;
}

/// Ones added up at (a function of) the ids: counts.
static bool scattered_counts(finder *f, const pm_moe_fact *ids, pm_moe_fact *y)
{
    double zero_value, one;
    int64_t n = pm_moe_const_dim(f, f->op->results[0]->type, 0), experts = ids->seed->experts;
    if (f->op->results[0]->type->rank != 1 || n < 1 || n > PM_MAX_MOE_EXPERTS || ids->n_rows != 1 ||
        ids->kind != PM_FACT_OF_ID || !covers_all(ids->seed, &ids->axes, false) ||
        !pm_moe_is_filled_with(f, f->op->operands[0], &zero_value) || zero_value != 0 ||
        !pm_moe_is_filled_with(f, f->op->operands[2], &one) || one != 1)
        return false;
    double *table = pm_moe_new_table(f, ids->seed, n);
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = 0; e < experts; e++)
            table[j * experts + e] = ids->table[e] == (double)j;
    *y = (pm_moe_fact){.kind = PM_FACT_COUNTS, .seed = ids->seed, .axes = {.rank = 1}, .table = table,
                       .n_rows = n, .expert = -1, .choice = -1};
    pm_axes_put(&y->axes, (pm_atom){.kind = PM_ATOM_ID, .dim = pm_dim_const(f->m, n)}, 0);
    return true;
}

pm_status pm_moe_rule_scatter_elements(finder *f)
{
    const pm_moe_fact *index = pm_moe_operand_fact(f, 1);
    const char *reduction = pm_op_str(f->op, "reduction");
    pm_moe_fact y;
    int32_t axis = pm_moe_axis_of(f->op, "axis", f->op->results[0]->type->rank);
    if (!index)
        return PM_OK;
    bool none = strcmp(reduction, "none") == 0, add = strcmp(reduction, "add") == 0;
    if ((none && scattered_inverse(f, index, 0, &y)) ||
        ((none || add) && index->kind == PM_FACT_OF_ID && scattered_weights(f, index, axis, &y)) ||
        (add && index->kind == PM_FACT_OF_ID && scattered_counts(f, index, &y)))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

pm_status pm_moe_rule_scatter_nd(finder *f)
{
    const pm_moe_fact *index = pm_moe_operand_fact(f, 1);
    pm_moe_fact y;
    if (!index)
        return PM_OK;
    pm_moe_fact flat = *index;
    const pm_type *type = f->op->operands[1]->type;
    if (type->rank == 2 && pm_moe_const_dim(f, type, 1) == 1)
        pm_axes_remove(&flat.axes, 1);
    bool add = strcmp(pm_op_str(f->op, "reduction"), "add") == 0;
    if ((!add && scattered_inverse(f, &flat, 0, &y)) || (add && scattered_counts(f, &flat, &y)))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// The rows of one expert, from its mask: each axis of the mask gives an index.
pm_status pm_moe_rule_nonzero(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    pm_moe_fact mask;
    const pm_type *type = f->op->results[0]->type;
    if (x && x->kind == PM_FACT_HITS && x->axes.n == 1) {
        pm_moe_fact hits = {.kind = PM_FACT_HITS, .seed = x->seed, .axes = {.rank = 2}, .expert = -1, .choice = -1};
        pm_axes_put(&hits.axes, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = type->dims[1]}, 1);
        pm_moe_set_fact(f, 0, &hits);
        return PM_OK;
    }
    if (!x || x->choice >= 0 || !as_mask(x, &mask) || mask.expert < 0 || mask.off != 0 || x->axes.rank > PM_MAX_FORMS ||
        !pm_moe_finds_extent(f, type->dims[1]))
        return PM_OK;
    pm_row_list *list = PM_NEW(f->arena, pm_row_list);
    *list = (pm_row_list){.kind = PM_LIST_PICKED, .seed = x->seed, .expert = mask.expert,
                          .exact = x->kind == PM_FACT_OF_ID || x->on, .mask = f->op->operands[0]};
    pm_moe_fact y = {.kind = PM_FACT_FORMS, .seed = x->seed, .axes = {.rank = 2}, .expert = -1, .choice = -1,
                     .n_forms = x->axes.rank, .along = x->axes.rank > 1 ? 0 : -1};
    for (int32_t axis = 0; axis < x->axes.rank; axis++)
        if (!pm_moe_axis_form(f, &x->axes, axis, &y.forms[axis]))
            return PM_OK;
    if (x->axes.rank > 1)
        pm_axes_put(&y.axes, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = type->dims[0]}, 0);
    pm_axes_put(&y.axes, (pm_atom){.kind = PM_ATOM_LIST, .list = list, .dim = type->dims[1]}, 1);
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// The positions of expert e in the sorted list: from the number of choices before it to that up to it.
static bool is_segment(const pm_seed *seed, const pm_moe_fact *from, const pm_moe_fact *to,
                       int64_t *out_expert)
{
    if (!to || to->kind != PM_FACT_COUNTS || to->n_rows != 1 ||
        (from && (from->kind != PM_FACT_COUNTS || from->n_rows != 1 || from->seed != seed)))
        return false;
    int64_t expert = 0;
    while (expert < seed->experts && to->table[expert] == 1)
        expert++;
    expert--;
    for (int64_t e = 0; e < seed->experts; e++) {
        double start = from ? from->table[e] : 0;
        if (to->table[e] != (e <= expert) || start != (e < expert))
            return false;
    }
    *out_expert = expert;
    return expert >= 0;
}

/// The segment's extent is its own, or what the segments before leave of the list: that isn't news to the run.
bool pm_moe_adds_segment(finder *f, pm_row_list *sorted, pm_dim extent)
{
    pm_dim whole = pm_dim_const(f->m, 1);
    for (int32_t i = 0; i < sorted->seed->n_dims; i++)
        whole = pm_dim_mul(f->m, whole, sorted->seed->dims[i]);
    sorted->in_segments = pm_dim_add(f->m, sorted->in_segments, extent);
    return pm_moe_finds_extent(f, extent) || pm_dim_same(sorted->in_segments, whole);
}

pm_status pm_moe_rule_range(finder *f)
{
    const pm_moe_fact *from = pm_moe_operand_fact(f, 0), *to = pm_moe_operand_fact(f, 1);
    double start = -1, step;
    int64_t expert;
    if (!to || !pm_moe_const_scalar(f, f->op->operands[2], &step) || step != 1 ||
        (!from && (!pm_moe_const_scalar(f, f->op->operands[0], &start) || start != 0)) ||
        !is_segment(to->seed, from, to, &expert))
        return PM_OK;
    const pm_row_list *sorted = to->seed->sorted;
    if (!sorted || !pm_moe_adds_segment(f, (pm_row_list *)sorted, f->op->results[0]->type->dims[0]))
        return PM_OK;
    pm_row_list *list = PM_NEW(f->arena, pm_row_list);
    *list = (pm_row_list){.kind = PM_LIST_SEGMENT, .seed = to->seed, .expert = expert, .exact = true,
                          .of = sorted};
    pm_moe_fact y = {.kind = PM_FACT_FORMS, .seed = to->seed, .axes = {.rank = 1}, .expert = -1, .choice = -1,
                     .n_forms = 1, .along = -1};
    y.forms[0] = pm_moe_no_form(f);
    y.forms[0].position_in = sorted;
    pm_axes_put(&y.axes, (pm_atom){.kind = PM_ATOM_LIST, .list = list,
                                .dim = f->op->results[0]->type->dims[0]}, 0);
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}
