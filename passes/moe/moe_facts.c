/// The forward walk: one rule per op, in a table at the end. Here: seeds, indexing and shape.
#include "passes/moe/moe_fact_rules.h"

#include <math.h>
#include <string.h>

#include "ir/extent_rules.h"
#include "ir/op_table.h"

/* ---- facts ----------------------------------------------------------------------------------- */

const pm_moe_fact *pm_moe_operand_fact(const finder *f, uint32_t operand)
{
    return operand < f->op->n_operands ? pm_moe_fact_of(f->facts, f->op->operands[operand]) : NULL;
}

void pm_moe_set_fact(finder *f, uint32_t result, const pm_moe_fact *value)
{
    pm_value *v = f->op->results[result];
    if (v->id >= f->facts->n)
        return;
    pm_moe_fact *copy = PM_NEW(f->arena, pm_moe_fact);
    *copy = *value;
    f->facts->of[v->id] = copy;
}

/// Axes of an operand, known or plain.
pm_axes pm_moe_operand_axes(const finder *f, uint32_t operand)
{
    const pm_moe_fact *known = pm_moe_operand_fact(f, operand);
    return known ? known->axes : pm_axes_plain(f->m, f->op->operands[operand]->type);
}

bool pm_fact_is_id(const pm_moe_fact *fact)
{
    if (!fact || fact->kind != PM_FACT_OF_ID || fact->n_rows != 1 ||
        pm_moe_find_atom(&fact->axes, PM_ATOM_ID) >= 0)
        return false;
    for (int64_t e = 0; e < fact->seed->experts; e++)
        if (fact->table[e] != (double)e)
            return false;
    return true;
}

int64_t pm_fact_only_expert(const pm_moe_fact *fact)
{
    int64_t only = -1;
    if (fact->kind != PM_FACT_OF_ID || fact->n_rows != 1)
        return -1;
    for (int64_t e = 0; e < fact->seed->experts; e++)
        if (fact->table[e] != 0) {
            if (only >= 0)
                return -1;
            only = e;
        }
    return only;
}

bool pm_fact_is_diagonal(const pm_moe_fact *fact)
{
    int64_t n = fact->seed->experts;
    if (fact->n_rows != n || (fact->kind != PM_FACT_OF_ID && fact->kind != PM_FACT_COUNTS))
        return false;
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = 0; e < n; e++)
            if (fact->table[j * n + e] != (j == e))
                return false;
    return true;
}

double *pm_moe_new_table(finder *f, const pm_seed *seed, int64_t rows)
{
    return PM_NEW_ARRAY(f->arena, double, (size_t)(rows * seed->experts));
}

/// A single constant element, of any shape.
bool pm_moe_const_scalar(finder *f, pm_value *v, double *out)
{
    const pm_data *data = pm_value_const(v);
    const uint8_t *bytes;
    int64_t count;
    if (!data || !pm_type_const_count(f->m, v->type, &count) || count != 1 ||
        pm_data_bytes(f->m, data, &bytes) != PM_OK)
        return false;
    if (v->type->elem == PM_F32) {
        float value;
        memcpy(&value, bytes, sizeof value);
        *out = value;
    } else if (v->type->elem == PM_F64) {
        memcpy(out, bytes, sizeof *out);
    } else if (pm_elem_is_float(v->type->elem)) {
        return false;
    } else {
        *out = (double)pm_data_int(bytes, v->type->elem, 0);
    }
    return true;
}

/// The elements of a small constant vector with one axis that isn't 1; that axis.
bool pm_moe_const_vector(finder *f, pm_value *v, double *out, int64_t max, int64_t *out_n,
                         int32_t *out_axis)
{
    const pm_data *data = pm_value_const(v);
    const uint8_t *bytes;
    int64_t count, extent;
    *out_axis = -1;
    if (!data || !pm_type_const_count(f->m, v->type, &count) || count < 1 || count > max ||
        pm_data_bytes(f->m, data, &bytes) != PM_OK)
        return false;
    for (int32_t i = 0; i < v->type->rank; i++)
        if (pm_dim_is_const(f->m, v->type->dims[i], &extent) && extent == count)
            *out_axis = i;
    for (int64_t i = 0; i < count; i++) {
        float value;
        if (v->type->elem == PM_F32) {
            memcpy(&value, bytes + 4 * i, sizeof value);
            out[i] = value;
        } else if (v->type->elem == PM_F64) {
            memcpy(&out[i], bytes + 8 * i, sizeof(double));
        } else if (pm_elem_is_float(v->type->elem)) {
            return false;
        } else {
            out[i] = (double)pm_data_int(bytes, v->type->elem, (size_t)i);
        }
    }
    *out_n = count;
    return *out_axis >= 0;
}

/// Factors of an extent, so that tokens counted as batch * sequence can be told apart again. Which factor
/// comes first is a guess (the order of the expression); a wrong one makes later reshapes unknown, not false.
static void put_factors(finder *f, pm_dim dim, int32_t axis, pm_axes *out)
{
    pm_dim work[PM_MAX_ATOMS];
    int32_t n = 0;
    work[n++] = dim;
    while (n) {
        pm_dim next = work[--n];
        pm_dim_info info = pm_dim_get(f->m, next);
        if (info.kind == PM_DIM_MUL && n + 2 <= PM_MAX_ATOMS) {
            work[n++] = info.b;
            work[n++] = info.a;
        } else {
            pm_axes_put(out, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = next}, axis);
        }
    }
}

static pm_axes seed_axes(finder *f, const pm_type *type)
{
    pm_axes axes = {.rank = type->rank};
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_moe_is_one(f->m, type->dims[i]))
            put_factors(f, type->dims[i], i, &axes);
    return axes;
}

/// A new seed: the value's own fact is the ids over its axes.
static void make_seed(finder *f, uint32_t result, int64_t experts, bool distinct, bool has_choice)
{
    pm_value *ids = f->op->results[result];
    pm_axes axes = seed_axes(f, ids->type);
    if (experts < 1 || experts > PM_MAX_MOE_EXPERTS || axes.n > PM_MAX_SEED_DIMS || !pm_axes_fit(&axes))
        return;
    pm_seed *seed = PM_NEW(f->arena, pm_seed);
    *seed = (pm_seed){.ids = ids, .experts = experts, .distinct = distinct, .n_dims = axes.n, .choice = -1};
    for (int32_t i = 0; i < axes.n; i++) {
        axes.atoms[i].kind = PM_ATOM_SEED;
        axes.atoms[i].at = i;
        seed->dims[i] = axes.atoms[i].dim;
        if (has_choice && axes.atoms[i].axis == axes.rank - 1)
            seed->choice = i;
    }
    double *table = pm_moe_new_table(f, seed, 1);
    for (int64_t e = 0; e < experts; e++)
        table[e] = (double)e;
    pm_moe_set_fact(f, result, &(pm_moe_fact){.kind = PM_FACT_OF_ID, .seed = seed, .axes = axes,
                                       .table = table, .n_rows = 1, .expert = -1, .choice = -1});
}

pm_dim pm_moe_zero(finder *f)
{
    return pm_dim_const(f->m, 0);
}

pm_index_form pm_moe_no_form(finder *f)
{
    pm_index_form form = {.base = pm_moe_zero(f)};
    for (int32_t i = 0; i < PM_MAX_SEED_DIMS; i++)
        form.coef[i] = pm_moe_zero(f);
    return form;
}

/// The index along an axis, whose atoms are all of the seed, or one list.
bool pm_moe_axis_form(finder *f, const pm_axes *axes, int32_t axis, pm_index_form *out)
{
    pm_dim stride = pm_dim_const(f->m, 1);
    *out = pm_moe_no_form(f);
    for (int32_t i = axes->n - 1; i >= 0; i--) {
        if (axes->atoms[i].axis != axis)
            continue;
        if (axes->atoms[i].kind != PM_ATOM_SEED)
            return false;
        out->coef[axes->atoms[i].at] = stride;
        stride = pm_dim_mul(f->m, stride, axes->atoms[i].dim);
    }
    return true;
}

bool pm_moe_form_same(const pm_index_form *a, const pm_index_form *b)
{
    bool same = a->base == b->base && a->position_in == b->position_in;
    for (int32_t i = 0; i < PM_MAX_SEED_DIMS; i++)
        same = same && a->coef[i] == b->coef[i];
    return same;
}

/// Strides of the seed's dims, row-major, with or without the choices.
static bool counts_row_major(pm_module *m, const pm_seed *seed, const pm_index_form *form, bool choices)
{
    pm_dim stride = pm_dim_const(m, 1);
    if (form->position_in || form->base != pm_dim_const(m, 0))
        return false;
    for (int32_t i = seed->n_dims - 1; i >= 0; i--) {
        bool counted = choices || i != seed->choice;
        if (form->coef[i] != (counted ? stride : pm_dim_const(m, 0)))
            return false;
        if (counted)
            stride = pm_dim_mul(m, stride, seed->dims[i]);
    }
    return true;
}

bool pm_form_is_token(pm_module *m, const pm_seed *seed, const pm_index_form *form)
{
    return counts_row_major(m, seed, form, false);
}

bool pm_form_is_choice(pm_module *m, const pm_seed *seed, const pm_index_form *form)
{
    return counts_row_major(m, seed, form, true);
}

/* ---- seeds ----------------------------------------------------------------------------------- */

int64_t pm_moe_const_dim(const finder *f, const pm_type *type, int32_t axis)
{
    int64_t value;
    return pm_dim_is_const(f->m, type->dims[axis], &value) ? value : -1;
}

int32_t pm_moe_axis_of(const pm_op *op, const char *key, int32_t rank)
{
    int64_t axis = pm_op_i64(op, key);
    return (int32_t)(axis < 0 ? axis + rank : axis);
}

/// The rows in order of their expert: argsort of the flat ids.
static bool sorts_ids(finder *f, const pm_moe_fact *ids)
{
    const pm_type *x = f->op->operands[0]->type, *sorted = f->op->results[0]->type;
    if (!ids || pm_op_i64(f->op, "largest") || x->rank < 1 || x != sorted)
        return false;
    int32_t axis = pm_moe_axis_of(f->op, "axis", x->rank);
    for (int32_t i = 0; i < ids->axes.n; i++) // all choices along one axis
        if (ids->axes.atoms[i].axis != axis)
            return false;
    return pm_dim_same(x->dims[axis], pm_type_count(f->m, x));
}

static void list_facts(finder *f, const pm_moe_fact *ids, const pm_row_list *list, bool with_values)
{
    const pm_type *type = f->op->results[0]->type;
    pm_moe_fact rows = {  .seed = ids->seed, .expert = -1, .choice = -1, .axes = {.rank = type->rank}};
    int32_t axis = pm_moe_axis_of(f->op, "axis", type->rank);
    pm_axes_put(&rows.axes, (pm_atom){.kind = PM_ATOM_LIST, .list = list, .dim = type->dims[axis]}, axis);
    if (with_values) {
        rows.kind = PM_FACT_OF_ID;
        rows.table = ids->table;
        rows.n_rows = 1;
        pm_moe_set_fact(f, 0, &rows);
    }
    rows.kind = PM_FACT_FORMS;
    rows.n_forms = 1;
    rows.along = -1;
    if (pm_moe_axis_form(f, &ids->axes, axis, &rows.forms[0]))
        pm_moe_set_fact(f, 1, &rows);
}

static pm_status rule_topk(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    const pm_type *type = f->op->operands[0]->type;
    if (type->rank < 1)
        return PM_OK;
    int32_t axis = pm_moe_axis_of(f->op, "axis", type->rank);
    if (x && pm_fact_is_id(x) && sorts_ids(f, x)) {
        pm_row_list *list = PM_NEW(f->arena, pm_row_list);
        *list = (pm_row_list){.kind = PM_LIST_SORTED, .seed = x->seed, .expert = -1, .in_segments = pm_moe_zero(f)};
        if (!x->seed->sorted)
            ((pm_seed *)x->seed)->sorted = list;
        list_facts(f, x, list, true);
        return PM_OK;
    }
    if (x && x->kind == PM_FACT_FORMS && x->n_forms == 1 && x->axes.n == 1 && // argsort of the order: its inverse
        x->axes.atoms[0].kind == PM_ATOM_LIST && !pm_op_i64(f->op, "largest") &&
        type == f->op->results[0]->type) {
        const pm_row_list *list = x->axes.atoms[0].list;
        pm_moe_fact inverse = {.kind = PM_FACT_INVERSE, .seed = x->seed, .list = list, .expert = -1, .choice = -1};
        inverse.axes.rank = type->rank;
        for (int32_t i = 0; i < x->seed->n_dims; i++)
            pm_axes_put(&inverse.axes, (pm_atom){.kind = PM_ATOM_SEED, .at = i, .dim = x->seed->dims[i]}, axis);
        pm_index_form flat;
        if (list->kind == PM_LIST_SORTED && pm_moe_axis_form(f, &inverse.axes, axis, &flat) &&
            pm_moe_form_same(&flat, &x->forms[0]))
            pm_moe_set_fact(f, 1, &inverse);
        return PM_OK;
    }
    if (axis == type->rank - 1)
        make_seed(f, 1, pm_moe_const_dim(f, type, axis), true, true);
    return PM_OK;
}

static pm_status rule_argmax(finder *f)
{
    const pm_type *type = f->op->operands[0]->type;
    int32_t axis = pm_moe_axis_of(f->op, "axis", type->rank);
    if (type->rank > 1 && axis == type->rank - 1)
        make_seed(f, 0, pm_moe_const_dim(f, type, axis), true, false);
    return PM_OK;
}

static pm_status rule_route(finder *f)
{
    make_seed(f, 0, pm_moe_const_dim(f, f->op->operands[0]->type, 1), true, true);
    return PM_OK;
}

/// Ids looked up in a constant table (hash routing): their range is that of the table.
static void seed_from_table(finder *f)
{
    pm_value *table = f->op->operands[0];
    const pm_data *data = pm_value_const(table);
    const uint8_t *bytes;
    int64_t count, most = -1, least = 0;
    if (!data || !pm_elem_is_int(table->type->elem) || !pm_type_const_count(f->m, table->type, &count) ||
        pm_data_bytes(f->m, data, &bytes) != PM_OK)
        return;
    for (int64_t i = 0; i < count; i++) {
        int64_t id = pm_data_int(bytes, table->type->elem, (size_t)i);
        most = id > most ? id : most;
        least = id < least ? id : least;
    }
    if (least == 0 && count > 1)
        make_seed(f, 0, most + 1, false, table->type->rank > 1);
}

/* ---- indexing -------------------------------------------------------------------------------- */

/// The data's axis becomes the index's axes, where the index counts just what the axis counts.
static bool pick_axis(finder *f, const pm_axes *data, int32_t axis, const pm_moe_fact *index,
                      const pm_index_form *form, const pm_axes *index_axes, pm_axes *out)
{
    const pm_atom *first;
    int32_t n = pm_axes_at(data, axis, &first);
    pm_index_form own;
    bool matches = false;
    if (index->kind == PM_FACT_INVERSE)
        matches = n == 1 && first->kind == PM_ATOM_LIST && first->list == index->list;
    else if (form->position_in)
        matches = n == 1 && first->kind == PM_ATOM_LIST && first->list == form->position_in;
    else
        matches = pm_moe_axis_form(f, data, axis, &own) && pm_moe_form_same(&own, form);
    if (!matches)
        return false;
    *out = (pm_axes){.rank = data->rank - 1 + index_axes->rank};
    for (int32_t i = 0; i < data->n && data->atoms[i].axis < axis; i++)
        pm_axes_put(out, data->atoms[i], data->atoms[i].axis);
    for (int32_t i = 0; i < index_axes->n; i++)
        pm_axes_put(out, index_axes->atoms[i], axis + index_axes->atoms[i].axis);
    for (int32_t i = 0; i < data->n; i++)
        if (data->atoms[i].axis > axis)
            pm_axes_put(out, data->atoms[i], data->atoms[i].axis - 1 + index_axes->rank);
    return pm_axes_fit(out);
}

/// Axis `axis` cut to the constant positions [from, from + n): experts of an ID axis, forms.
static bool cut_axis(finder *f, pm_moe_fact *x, int32_t axis, int64_t from, int64_t n, bool keep)
{
    pm_value *whole_value = f->op->operands[0];
    const pm_atom *first;
    int32_t count = pm_axes_at(&x->axes, axis, &first);
    pm_dim extent = pm_dim_const(f->m, n);
    int64_t whole;
    if (count != 1 || !pm_dim_is_const(f->m, first->dim, &whole) || from < 0 || from + n > whole)
        return false;
    int32_t at = (int32_t)(first - x->axes.atoms);
    if (x->kind == PM_FACT_FORMS && x->n_forms > 1 && x->along == axis) {
        memmove(x->forms, x->forms + from, (size_t)n * sizeof *x->forms);
        x->n_forms = (int32_t)n;
    } else if ((x->kind == PM_FACT_OF_ID || x->kind == PM_FACT_COUNTS) && first->kind == PM_ATOM_ID) {
        x->table += from * x->seed->experts;
        x->n_rows = n;
    } else if (x->kind == PM_FACT_MASKED && first->kind == PM_ATOM_ID) {
        if (n != 1)
            return false;
        x->expert = from;
        x->dense = whole_value;
    } else if (n == 1 && first->kind == PM_ATOM_SEED && first->at == x->seed->choice &&
               (x->kind == PM_FACT_OF_ID || x->kind == PM_FACT_AXES)) {
        if (x->kind == PM_FACT_AXES && !x->source && pm_moe_is_choice_weight(x))
            x->source = whole_value;
        x->choice = (int32_t)from;
    } else if (first->kind != PM_ATOM_PLAIN) {
        return false;
    }
    if (n == 1)
        pm_axes_drop_atoms(&x->axes, axis);
    else
        x->axes.atoms[at].dim = extent;
    if (!keep)
        pm_axes_remove(&x->axes, axis);
    if (x->kind == PM_FACT_FORMS) {
        if (x->n_forms == 1)
            x->along = -1;
        else if (!keep && x->along > axis)
            x->along--;
    }
    return true;
}

static void gather_const(finder *f, int32_t axis)
{
    int64_t index, whole = pm_moe_const_dim(f, f->op->operands[0]->type, axis);
    size_t n;
    pm_value *at = f->op->operands[1];
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    if (!x || !pm_value_const_ints(at, &index, 1, &n) || n != 1 || whole < 0)
        return;
    pm_moe_fact y = *x;
    if (cut_axis(f, &y, axis, index < 0 ? index + whole : index, 1, at->type->rank == 1) &&
        at->type->rank <= 1)
        pm_moe_set_fact(f, 0, &y);
}

/// True when the value counts tokens and choices only (a weight of each choice).
bool pm_moe_is_choice_weight(const pm_moe_fact *x)
{
    for (int32_t i = 0; i < x->axes.n; i++)
        if (x->axes.atoms[i].kind != PM_ATOM_SEED)
            return false;
    return x->axes.n > 0;
}

/// Rows picked from the weights of the choices remember where from.
static void note_source(finder *f, const pm_moe_fact *x, pm_moe_fact *y)
{
    if (y->kind == PM_FACT_AXES && !y->source && pm_moe_is_choice_weight(x))
        y->source = f->op->operands[0];
}

/// Data that nothing is known of, picked by an index over the choices: the axis that is picked from counts
/// what the index counts. Its fact is noted, since it's the choices' weights.
static const pm_moe_fact *label_by_index(finder *f, uint32_t data, int32_t axis, const pm_seed *seed,
                                         const pm_index_form *form, pm_moe_fact *y)
{
    pm_value *v = f->op->operands[data];
    if (seed->choice < 0 || form->coef[seed->choice] == pm_moe_zero(f) || v->id >= f->facts->n)
        return NULL;
    for (int32_t first = 0; first < seed->n_dims; first++)
        for (int32_t end = first + 1; end <= seed->n_dims; end++) {
            pm_index_form own = pm_moe_no_form(f);
            pm_dim stride = pm_dim_const(f->m, 1);
            for (int32_t i = end - 1; i >= first; i--) {
                own.coef[i] = stride;
                stride = pm_dim_mul(f->m, stride, seed->dims[i]);
            }
            if (stride != v->type->dims[axis] || !pm_moe_form_same(&own, form))
                continue;
            pm_axes plain = pm_axes_plain(f->m, v->type);
            *y = (pm_moe_fact){.kind = PM_FACT_AXES, .seed = seed, .expert = -1, .choice = -1,
                               .axes = {.rank = v->type->rank}};
            for (int32_t k = 0; k < v->type->rank; k++) {
                for (int32_t i = first; k == axis && i < end; i++)
                    pm_axes_put(&y->axes, (pm_atom){.kind = PM_ATOM_SEED, .at = i, .dim = seed->dims[i]}, k);
                for (int32_t i = 0; k != axis && i < plain.n; i++)
                    if (plain.atoms[i].axis == k)
                        pm_axes_put(&y->axes, plain.atoms[i], k);
            }
            pm_moe_fact *copy = PM_NEW(f->arena, pm_moe_fact);
            *copy = *y;
            if (!pm_axes_fit(&copy->axes))
                return NULL;
            f->facts->of[v->id] = copy;
            return copy;
        }
    return NULL;
}

static pm_status rule_gather(finder *f)
{
    const pm_moe_fact *index = pm_moe_operand_fact(f, 1), *x = pm_moe_operand_fact(f, 0);
    int32_t axis = pm_moe_axis_of(f->op, "axis", f->op->operands[0]->type->rank);
    if (!index) {
        if (pm_value_const(f->op->operands[1]))
            gather_const(f, axis);
        else if (axis == 0)
            seed_from_table(f);
        return PM_OK;
    }
    pm_moe_fact labelled;
    if (!x && index->kind == PM_FACT_FORMS && index->n_forms == 1 && !index->forms[0].position_in)
        x = label_by_index(f, 0, axis, index->seed, &index->forms[0], &labelled);
    pm_moe_fact y = x ? *x : (pm_moe_fact){.kind = PM_FACT_AXES, .expert = -1, .choice = -1};
    pm_axes axes = pm_moe_operand_axes(f, 0);
    if (index->kind == PM_FACT_OF_ID || (index->kind == PM_FACT_FORMS && index->n_forms != 1) ||
        (index->kind != PM_FACT_FORMS && index->kind != PM_FACT_INVERSE))
        return PM_OK;
    y.seed = index->seed;
    if (x && x->seed != index->seed)
        y.kind = PM_FACT_AXES;
    // data without a fact: an axis of the tokens' extent counts tokens
    if (!x) {
        const pm_index_form *form = &index->forms[0];
        if (index->kind != PM_FACT_FORMS || !pm_form_is_token(f->m, index->seed, form))
            return PM_OK;
        pm_axes out = {.rank = axes.rank - 1 + index->axes.rank};
        for (int32_t i = 0; i < axes.n && axes.atoms[i].axis < axis; i++)
            pm_axes_put(&out, axes.atoms[i], axes.atoms[i].axis);
        for (int32_t i = 0; i < index->axes.n; i++)
            pm_axes_put(&out, index->axes.atoms[i], axis + index->axes.atoms[i].axis);
        for (int32_t i = 0; i < axes.n; i++)
            if (axes.atoms[i].axis > axis)
                pm_axes_put(&out, axes.atoms[i], axes.atoms[i].axis - 1 + index->axes.rank);
        y.axes = out;
        if (pm_axes_fit(&out))
            pm_moe_set_fact(f, 0, &y);
        return PM_OK;
    }
    note_source(f, x, &y);
    if (pick_axis(f, &axes, axis, index, &index->forms[0], &index->axes, &y.axes))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// Weights [tokens, k, ..] picked by (token, choice), of which nothing is known.
static const pm_moe_fact *label_two(finder *f, const pm_moe_fact *index)
{
    pm_value *v = f->op->operands[0];
    const pm_seed *seed = index->seed;
    pm_dim tokens = pm_dim_const(f->m, 1);
    pm_axes axes = {.rank = v->type->rank};
    for (int32_t i = 0; i < seed->n_dims; i++)
        if (i != seed->choice) {
            tokens = pm_dim_mul(f->m, tokens, seed->dims[i]);
            pm_axes_put(&axes, (pm_atom){.kind = PM_ATOM_SEED, .at = i, .dim = seed->dims[i]}, 0);
        }
    if (seed->choice != seed->n_dims - 1 || v->type->rank < 2 || v->id >= f->facts->n ||
        v->type->dims[0] != tokens || v->type->dims[1] != seed->dims[seed->choice])
        return NULL;
    pm_axes_put(&axes, (pm_atom){.kind = PM_ATOM_SEED, .at = seed->choice, .dim = seed->dims[seed->choice]}, 1);
    for (int32_t k = 2; k < v->type->rank; k++)
        if (!pm_moe_is_one(f->m, v->type->dims[k]))
            pm_axes_put(&axes, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = v->type->dims[k]}, k);
    pm_moe_fact *copy = PM_NEW(f->arena, pm_moe_fact);
    *copy = (pm_moe_fact){.kind = PM_FACT_AXES, .seed = seed, .expert = -1, .choice = -1, .axes = axes};
    if (!pm_axes_fit(&axes))
        return NULL;
    f->facts->of[v->id] = copy;
    return copy;
}

/// gather_nd without batch dims: the forms along the index's last axis, one per leading axis of the data.
static pm_status rule_gather_nd(finder *f)
{
    const pm_moe_fact *index = pm_moe_operand_fact(f, 1), *x = pm_moe_operand_fact(f, 0);
    const pm_type *type = f->op->operands[1]->type;
    int64_t depth = type->rank ? pm_moe_const_dim(f, type, type->rank - 1) : -1;
    if (pm_op_i64(f->op, "batch_dims") != 0)
        return PM_OK;
    if (!index) {
        if (depth == 1)
            seed_from_table(f);
        return PM_OK;
    }
    bool inverse = index->kind == PM_FACT_INVERSE && depth == 1;
    if (!inverse && (index->kind != PM_FACT_FORMS || index->n_forms != depth))
        return PM_OK;
    pm_moe_fact labelled;
    if (!x && !inverse && depth == 1 && !index->forms[0].position_in)
        x = label_by_index(f, 0, 0, index->seed, &index->forms[0], &labelled);
    if (!x && !inverse && depth == 2)
        x = label_two(f, index);
    pm_moe_fact y = x && x->seed == index->seed ? *x : (pm_moe_fact){.kind = PM_FACT_AXES, .expert = -1, .choice = -1};
    pm_axes axes = pm_moe_operand_axes(f, 0), rows = index->axes;
    y.seed = index->seed;
    pm_axes_remove(&rows, type->rank - 1);
    if (!x) {
        if (inverse || depth != 1 || !pm_form_is_token(f->m, index->seed, &index->forms[0]))
            return PM_OK;
        y.axes = (pm_axes){.rank = axes.rank - 1 + rows.rank};
        for (int32_t i = 0; i < rows.n; i++)
            pm_axes_put(&y.axes, rows.atoms[i], rows.atoms[i].axis);
        for (int32_t i = 0; i < axes.n; i++)
            if (axes.atoms[i].axis > 0)
                pm_axes_put(&y.axes, axes.atoms[i], axes.atoms[i].axis - 1 + rows.rank);
        if (pm_axes_fit(&y.axes))
            pm_moe_set_fact(f, 0, &y);
        return PM_OK;
    }
    note_source(f, x, &y);
    for (int64_t i = 0; i + 1 < depth; i++) { // all but the last axis just have to fit
        pm_index_form own;
        if (!pm_moe_axis_form(f, &axes, (int32_t)i, &own) || !pm_moe_form_same(&own, &index->forms[i]))
            return PM_OK;
    }
    for (int64_t i = 0; i + 1 < depth; i++)
        pm_axes_remove(&axes, 0);
    if (pick_axis(f, &axes, 0, index, &index->forms[depth - 1], &rows, &y.axes))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

static pm_status rule_gather_elements(finder *f)
{
    const pm_moe_fact *index = pm_moe_operand_fact(f, 1);
    const pm_type *type = f->op->operands[0]->type;
    int32_t axis = pm_moe_axis_of(f->op, "axis", type->rank);
    if (!index || !pm_fact_is_id(index) || pm_moe_const_dim(f, type, axis) != index->seed->experts)
        return PM_OK;
    pm_moe_fact y = {.kind = PM_FACT_AXES, .seed = index->seed, .axes = index->axes, .expert = -1, .choice = index->choice};
    for (int32_t i = 0; i < y.axes.n; i++) // ids that are the same all along an axis pick other numbers there
        if (y.axes.atoms[i].kind == PM_ATOM_SPREAD)
            y.axes.atoms[i].kind = PM_ATOM_PLAIN;
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/* ---- shape ----------------------------------------------------------------------------------- */

static pm_status rule_reshape(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    pm_moe_fact y;
    if (!x)
        return PM_OK;
    y = *x;
    if (!pm_axes_reshape(f->m, &x->axes, f->op->results[0]->type, &y.axes))
        return PM_OK;
    if (x->kind == PM_FACT_FORMS && x->n_forms > 1) { // where the forms' axis went
        const pm_atom *first;
        if (pm_axes_at(&x->axes, x->along, &first) != 1)
            return PM_OK;
        int32_t at = (int32_t)(first - x->axes.atoms);
        const pm_atom *moved;
        if (at >= y.axes.n || pm_axes_at(&y.axes, y.axes.atoms[at].axis, &moved) != 1 ||
            !pm_moe_atom_same(first, moved) || y.axes.n != x->axes.n)
            return PM_OK;
        y.along = moved->axis;
    }
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

static pm_status rule_transpose(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    if (!x)
        return PM_OK;
    const int64_t *perm = pm_op_attr(f->op, "perm")->ints;
    pm_moe_fact y = *x;
    y.axes = pm_axes_permuted(&x->axes, perm);
    for (int32_t i = 0; x->kind == PM_FACT_FORMS && x->n_forms > 1 && i < x->axes.rank; i++)
        if (perm[i] == x->along)
            y.along = i;
    pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

static pm_status rule_expand(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    const pm_type *type = f->op->results[0]->type;
    if (!x)
        return PM_OK;
    pm_moe_fact y = *x;
    y.along += x->along >= 0 ? type->rank - x->axes.rank : 0;
    if (pm_axes_expand(f->m, &x->axes, type, &y.axes))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// Extents of a constant slice along one axis with step 1; others whole.
static bool const_slice(finder *f, int32_t *out_axis, int64_t *out_from, int64_t *out_n)
{
    int64_t start, axis = 0, step = 1, extent;
    size_t n;
    const pm_op *op = f->op;
    const pm_type *x = op->operands[0]->type, *y = op->results[0]->type;
    if (!pm_value_const_ints(op->operands[1], &start, 1, &n) || n != 1)
        return false;
    if (op->n_operands > 3 && op->operands[3] &&
        (!pm_value_const_ints(op->operands[3], &axis, 1, &n) || n != 1))
        return false;
    if (op->n_operands > 4 && op->operands[4] &&
        (!pm_value_const_ints(op->operands[4], &step, 1, &n) || n != 1))
        return false;
    axis += axis < 0 ? x->rank : 0;
    if (step != 1 || axis < 0 || axis >= x->rank || !pm_dim_is_const(f->m, x->dims[axis], &extent))
        return false;
    *out_axis = (int32_t)axis;
    *out_from = start < 0 ? start + extent : start;
    return pm_dim_is_const(f->m, y->dims[axis], out_n) && *out_n > 0;
}

static pm_status rule_slice(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    int32_t axis;
    int64_t from, n;
    if (!x || !const_slice(f, &axis, &from, &n))
        return PM_OK;
    pm_moe_fact y = *x;
    if (cut_axis(f, &y, axis, from, n, true))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/// Rows in the order of their experts, cut into as many for each as there are.
static bool split_by_counts(finder *f, int32_t axis)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0), *sizes = f->op->n_operands > 1 ? pm_moe_operand_fact(f, 1) : NULL;
    const pm_atom *atom;
    if (!x || !sizes || x->kind != PM_FACT_AXES || sizes->kind != PM_FACT_COUNTS || x->seed != sizes->seed ||
        f->op->n_results != x->seed->experts || !pm_fact_is_diagonal(sizes) || pm_axes_at(&x->axes, axis, &atom) != 1 ||
        atom->kind != PM_ATOM_LIST || atom->list != x->seed->sorted)
        return false;
    for (uint32_t i = 0; i < f->op->n_results; i++) {
        pm_dim extent = f->op->results[i]->type->dims[axis];
        if (!pm_moe_adds_segment(f, (pm_row_list *)atom->list, extent))
            return true;
        pm_row_list *list = PM_NEW(f->arena, pm_row_list);
        *list = (pm_row_list){.kind = PM_LIST_SEGMENT, .seed = x->seed, .expert = i, .exact = true, .of = atom->list};
        pm_moe_fact y = *x;
        for (int32_t k = 0; k < y.axes.n; k++)
            if (y.axes.atoms[k].axis == axis) {
                y.axes.atoms[k].list = list;
                y.axes.atoms[k].dim = extent;
            }
        pm_moe_set_fact(f, i, &y);
    }
    return true;
}

static pm_status rule_split(finder *f)
{
    const pm_moe_fact *x = pm_moe_operand_fact(f, 0);
    int32_t axis = pm_moe_axis_of(f->op, "axis", f->op->operands[0]->type->rank);
    int64_t from = 0;
    if (x && x->kind == PM_FACT_HITS) {
        PM_PUSH(f->arena, &f->facts->hits, ((pm_hits_split){f->op, x->seed}));
        return PM_OK;
    }
    if (!pm_op_extents_fit(f->op))
        return PM_OK;
    if (split_by_counts(f, axis))
        return PM_OK;
    for (uint32_t i = 0; x && i < f->op->n_results; i++) {
        int64_t n = pm_moe_const_dim(f, f->op->results[i]->type, axis);
        pm_moe_fact y = *x;
        if (n < 1)
            return PM_OK;
        if (cut_axis(f, &y, axis, from, n, true))
            pm_moe_set_fact(f, i, &y);
        from += n;
    }
    return PM_OK;
}

/// argmax of what has -inf at the ids chosen before: another expert.
static bool chooses_another(finder *f, const pm_value *ids, const pm_value *before)
{
    double fill;
    while (pm_value_is(ids, PM_OP_reshape))
        ids = ids->def->operands[0];
    if (!pm_value_is(ids, PM_OP_argmax) || !pm_value_is(ids->def->operands[0], PM_OP_scatter_elements))
        return false;
    const pm_op *scatter = ids->def->operands[0]->def;
    return strcmp(pm_op_str(scatter, "reduction"), "none") == 0 && scatter->operands[1] == before && pm_moe_is_filled_with(f, scatter->operands[2], &fill) &&
           fill == -INFINITY;
}

/// The weights of the choices that were joined, joined in the same way: mostly before the ids are.
static void label_joined_weights(finder *f)
{
    const pm_op *ids = f->op;
    const pm_moe_fact *joined = pm_moe_fact_of(f->facts, ids->results[0]);
    for (pm_op *op = joined ? ids->operands[0]->def : NULL; op; op = op->next) {
        const pm_value *v = op->code == PM_OP_concat ? op->results[0] : NULL;
        if (!v || op == ids || op->n_operands != ids->n_operands || !pm_elem_is_float(v->type->elem) ||
            v->type->rank != ids->results[0]->type->rank || v->id >= f->facts->n)
            continue;
        bool same = true;
        for (int32_t k = 0; k < v->type->rank; k++)
            same = same && pm_dim_same(v->type->dims[k], ids->results[0]->type->dims[k]);
        for (uint32_t i = 0; same && i < op->n_operands; i++) {
            const pm_moe_fact *own = pm_moe_fact_of(f->facts, op->operands[i]);
            const pm_moe_fact *id = pm_moe_operand_fact(f, i);
            same = own && own->kind == PM_FACT_AXES && own->seed == id->seed && pm_moe_is_choice_weight(own);
        }
        if (!same)
            continue;
        pm_moe_fact *fact = PM_NEW(f->arena, pm_moe_fact);
        *fact = (pm_moe_fact){.kind = PM_FACT_AXES, .seed = joined->seed, .axes = joined->axes, .expert = -1, .choice = -1};
        f->facts->of[v->id] = fact;
    }
}

/// One choice after the other, side by side along the last axis: a seed of its own.
static pm_status join_choices(finder *f)
{
    const pm_op *op = f->op;
    int64_t experts = 0;
    bool distinct = op->n_operands == 2;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_moe_fact *x = pm_moe_operand_fact(f, i);
        if (!x || !pm_fact_is_id(x) || x->seed->choice >= 0 || (experts && x->seed->experts != experts) ||
            pm_moe_const_dim(f, op->operands[i]->type, op->operands[i]->type->rank - 1) != 1)
            return PM_OK;
        experts = x->seed->experts;
    }
    distinct = distinct && chooses_another(f, op->operands[1], op->operands[0]);
    make_seed(f, 0, experts, distinct, true);
    label_joined_weights(f);
    return PM_OK;
}

/// Forms side by side: [rows, 1] and [rows, 1] along their last axis.
static pm_status rule_concat(finder *f)
{
    const pm_type *type = f->op->results[0]->type;
    int32_t axis = pm_moe_axis_of(f->op, "axis", type->rank);
    pm_moe_fact y = {0};
    if (axis == type->rank - 1 && pm_elem_is_int(type->elem) && pm_moe_operand_fact(f, 0) &&
        pm_fact_is_id(pm_moe_operand_fact(f, 0)))
        return join_choices(f);
    for (uint32_t i = 0; i < f->op->n_operands; i++) {
        const pm_moe_fact *x = pm_moe_operand_fact(f, i);
        const pm_atom *first;
        if (!x || x->kind != PM_FACT_FORMS || x->n_forms != 1 || i >= PM_MAX_FORMS ||
            pm_axes_at(&x->axes, axis, &first) != 0)
            return PM_OK;
        if (i == 0)
            y = *x;
        else if (x->seed != y.seed || x->axes.n != y.axes.n ||
                 (x->axes.n && !pm_moe_atom_same(&x->axes.atoms[0], &y.axes.atoms[0])))
            return PM_OK;
        y.forms[i] = x->forms[0];
    }
    y.n_forms = (int32_t)f->op->n_operands;
    y.along = y.n_forms > 1 ? axis : -1;
    if (y.n_forms > 1) {
        pm_axes axes = {.rank = type->rank};
        for (int32_t k = 0; k < type->rank; k++) {
            for (int32_t i = 0; i < y.axes.n; i++)
                if (y.axes.atoms[i].axis == k)
                    pm_axes_put(&axes, y.axes.atoms[i], k);
            if (k == axis)
                pm_axes_put(&axes, (pm_atom){.kind = PM_ATOM_PLAIN, .dim = type->dims[axis]}, k);
        }
        y.axes = axes;
    }
    if (pm_axes_fit(&y.axes))
        pm_moe_set_fact(f, 0, &y);
    return PM_OK;
}

/* ---- extents that ops find ------------------------------------------------------------------------- */

/// The op's own count, and nothing else: where it was taken to be equal to another extent, the run has to compare
/// them, and would not if the op went.
bool pm_moe_finds_extent(const finder *f, pm_dim extent)
{
    uint32_t symbol;
    return pm_dim_is_symbol(f->m, extent, &symbol) && f->m->symbols.data[symbol].data_dependent && !f->found[symbol];
}

static void note_found(finder *f)
{
    uint32_t symbol;
    for (uint32_t i = 0; i < f->op->n_results; i++) {
        const pm_type *type = f->op->results[i]->type;
        for (int32_t k = 0; k < type->rank; k++)
            if (pm_dim_is_symbol(f->m, type->dims[k], &symbol))
                f->found[symbol] = 1;
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

static rule_fn *rule_of(const pm_op *op)
{
    static rule_fn *const rules[PM_OP_COUNT] = {
        [PM_OP_topk] = rule_topk, [PM_OP_argmax] = rule_argmax, [PM_OP_route] = rule_route,
        [PM_OP_gather] = rule_gather, [PM_OP_gather_nd] = rule_gather_nd,
        [PM_OP_gather_elements] = rule_gather_elements, [PM_OP_reshape] = rule_reshape,
        [PM_OP_transpose] = rule_transpose, [PM_OP_expand] = rule_expand, [PM_OP_slice] = rule_slice,
        [PM_OP_split] = rule_split, [PM_OP_concat] = rule_concat, [PM_OP_onehot] = pm_moe_rule_onehot,
        [PM_OP_reduce_sum] = pm_moe_rule_reduce, [PM_OP_reduce_max] = pm_moe_rule_reduce,
        [PM_OP_reduce_mean] = pm_moe_rule_reduce, [PM_OP_reduce_min] = pm_moe_rule_reduce,
        [PM_OP_reduce_prod] = pm_moe_rule_reduce, [PM_OP_cumsum] = pm_moe_rule_cumsum,
        [PM_OP_scatter_elements] = pm_moe_rule_scatter_elements, [PM_OP_scatter_nd] = pm_moe_rule_scatter_nd,
        [PM_OP_nonzero] = pm_moe_rule_nonzero, [PM_OP_softmax] = pm_moe_rule_same_axes, [PM_OP_range] = pm_moe_rule_range,
    };
    if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE)
        return pm_moe_rule_elementwise;
    return rules[op->code];
}

/// The values that topk gives beside the ids: weights of the choices.
static void companion_facts(finder *f)
{
    const pm_op *op = f->op;
    const pm_moe_fact *ids = NULL;
    uint32_t other = 0;
    if (op->code == PM_OP_topk) {
        ids = pm_moe_fact_of(f->facts, op->results[1]);
    } else if (op->code == PM_OP_route) {
        ids = pm_moe_fact_of(f->facts, op->results[0]);
        other = 1;
    }
    if (ids && ids->kind == PM_FACT_OF_ID && !pm_moe_fact_of(f->facts, op->results[other]))
        pm_moe_set_fact(f, other, &(pm_moe_fact){.kind = PM_FACT_AXES, .seed = ids->seed, .axes = ids->axes,
                                          .expert = -1, .choice = -1});
}

pm_status pm_moe_facts_find(pm_module *m, pm_graph *g, pm_arena *arena, pm_moe_facts *out)
{
    *out = (pm_moe_facts){.module = m, .arena = arena, .n = m->next_value};
    out->of = PM_NEW_ARRAY(arena, pm_moe_fact *, out->n);
    finder f = {.facts = out, .m = m, .arena = arena, .found = PM_NEW_ARRAY(arena, uint8_t, m->symbols.n + 1)};
    for (pm_op *op = g->first; op; op = op->next) {
        f.op = op;
        rule_fn *rule = rule_of(op);
        // what is cut in wrong pieces is looked at, too: it may be a trace
        if (rule && (op->code == PM_OP_split || pm_op_extents_fit(op))) {
            PM_TRY(rule(&f));
            companion_facts(&f);
        }
        note_found(&f);
    }
    return PM_OK;
}
