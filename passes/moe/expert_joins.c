/// Where the rows of all experts come together again, one for each choice: written expert by expert to where they were
/// picked from, put back from the order of the experts, or added up, each times the mask of its own choices.
#include "passes/moe/expert_parts.h"

#include <string.h>

#include "ir/extent_rules.h"
#include "ir/op_table.h"
#include "passes/moe/moe_fact_rules.h"

bool pm_body_is_zeros(pm_module *m, const pm_value *v)
{
    while (pm_value_is(v, PM_OP_expand) || pm_value_is(v, PM_OP_reshape))
        v = v->def->operands[0];
    if (pm_value_is(v, PM_OP_fill) || pm_value_is(v, PM_OP_mul)) // nothing times anything finite
        v = v->def->operands[1];
    const pm_data *data = pm_value_const(v);
    const uint8_t *bytes;
    if (!data || data->size > 4096 || pm_data_bytes(m, data, &bytes) != PM_OK)
        return false;
    for (uint64_t i = 0; i < data->size; i++)
        if (bytes[i])
            return false;
    return true;
}

static pm_value **new_parts(const pm_expert_body *body, uint32_t n)
{
    return PM_NEW_ARRAY(body->arena, pm_value *, n);
}

/* ---- rows written to their places ---------------------------------------------------------------- */

/// One row after the other, of extents that are the result's: spread over a row's width, or with axes of 1 behind it.
static bool spreads_rows(const pm_module *m, const pm_value *v)
{
    if (!pm_value_is(v, PM_OP_expand) && !pm_value_is(v, PM_OP_reshape))
        return false;
    const pm_type *from = v->def->operands[0]->type, *to = v->type;
    bool expands = v->def->code == PM_OP_expand, same = from->rank > 0 && to->rank > 0 && from->dims[0] == to->dims[0];
    if (expands)
        return same && from->rank == to->rank;
    for (int32_t k = 1; k < from->rank; k++)
        same = same && pm_moe_is_one(m, from->dims[k]);
    for (int32_t k = 1; k < to->rank; k++)
        same = same && pm_moe_is_one(m, to->dims[k]);
    return same;
}

pm_value *pm_body_row_numbers(const pm_module *m, pm_value *index)
{
    while (spreads_rows(m, index))
        index = index->def->operands[0];
    return index;
}

bool pm_body_writes_rows(const pm_module *m, const pm_op *op)
{
    const pm_type *index = op->operands[1]->type, *rows = op->operands[2]->type, *to = op->results[0]->type;
    bool elements = op->code == PM_OP_scatter_elements;
    bool whole = rows->rank == to->rank && rows->rank > 0 && index->rank > 0 && index->dims[0] == rows->dims[0] &&
                 (elements ? pm_op_i64(op, "axis") == 0 && index->rank == rows->rank
                           : index->rank == 2 && pm_moe_is_one(m, index->dims[1]));
    for (int32_t k = 1; k < to->rank && whole; k++)
        whole = rows->dims[k] == to->dims[k] && (!elements || index->dims[k] == to->dims[k]);
    return whole;
}

/// The list whose rows are written in order of their choices, along axis 0; NULL: none.
static const pm_row_list *places_of(const pm_expert_body *body, const pm_op *op)
{
    pm_dim all = pm_dim_const(body->module, 1);
    for (int32_t i = 0; i < body->seed->n_dims; i++)
        all = pm_dim_mul(body->module, all, body->seed->dims[i]);
    if (op->results[0]->type->dims[0] != all || !pm_body_writes_rows(body->module, op))
        return NULL;
    const pm_moe_fact *fact = pm_moe_fact_of(body->facts, pm_body_row_numbers(body->module, op->operands[1]));
    if (!fact || fact->seed != body->seed || fact->kind != PM_FACT_FORMS || fact->n_forms != 1 || fact->axes.n != 1 ||
        fact->axes.atoms[0].kind != PM_ATOM_LIST || fact->axes.atoms[0].axis != 0 ||
        !pm_form_is_choice(body->module, body->seed, &fact->forms[0]))
        return NULL;
    return fact->axes.atoms[0].list;
}

static bool is_scatter(const pm_value *v)
{
    return pm_value_is(v, PM_OP_scatter_nd) || pm_value_is(v, PM_OP_scatter_elements);
}

/// Every choice's row is written once: what was there before doesn't matter, unless it is added to.
static bool written_rows(const pm_expert_body *body, pm_body_node *node)
{
    int64_t n = body->seed->experts, found = 0;
    pm_value **parts = new_parts(body, (uint32_t)n), *v = node->values[0];
    const pm_row_list **lists = PM_NEW_ARRAY(body->arena, const pm_row_list *, (size_t)n);
    bool adds = false;
    for (; is_scatter(v) && found < n; v = v->def->operands[0]) {
        const pm_op *op = v->def;
        const pm_row_list *list = places_of(body, op);
        const char *reduction = pm_op_str(op, "reduction");
        if (!list || !pm_op_extents_fit(op) || (strcmp(reduction, "none") != 0 && strcmp(reduction, "add") != 0))
            return false;
        adds = adds || strcmp(reduction, "add") == 0;
        if (list->kind == PM_LIST_SORTED) {
            node->parts = new_parts(body, 1);
            node->parts[0] = op->operands[2];
            node->n_parts = 1;
            node->lists = lists;
            lists[0] = list;
            return found == 0 && (!adds || pm_body_is_zeros(body->module, op->operands[0]));
        }
        if (list->kind != PM_LIST_PICKED || !list->exact || lists[list->expert])
            return false;
        lists[list->expert] = list;
        parts[list->expert] = op->operands[2];
        found++;
    }
    if (found != n || (adds && !pm_body_is_zeros(body->module, v)))
        return false;
    node->parts = parts;
    node->n_parts = (uint32_t)n;
    node->lists = lists;
    return true;
}

/* ---- sums of masked rows ------------------------------------------------------------------------- */

/// 1 where the choice is of one expert, 0 elsewhere: its fact.
static const pm_moe_fact *mask_of(const pm_expert_body *body, const pm_value *v)
{
    const pm_moe_fact *fact = pm_moe_fact_of(body->facts, v);
    if (!fact || fact->seed != body->seed || fact->choice >= 0)
        return NULL;
    int64_t expert = pm_fact_only_expert(fact);
    if (expert < 0 || fact->table[expert] != 1)
        return NULL;
    uint32_t seen = 0; // each of the seed's dims once, or all of them in the order of the experts
    const pm_atom *atoms = fact->axes.atoms;
    if (fact->axes.n == 1 && atoms[0].kind == PM_ATOM_LIST && atoms[0].list->kind == PM_LIST_SORTED)
        return fact;
    for (int32_t i = 0; i < fact->axes.n; i++)
        if (atoms[i].kind == PM_ATOM_SEED)
            seen |= 1u << atoms[i].at;
    return fact->axes.n == body->seed->n_dims && seen == (1u << body->seed->n_dims) - 1 ? fact : NULL;
}

/// rows * mask, or where(mask, rows, 0): the rows.
static pm_value *masked_rows(const pm_expert_body *body, const pm_value *v, const pm_moe_fact **out_mask)
{
    if (!v->def || !pm_op_extents_fit(v->def))
        return NULL;
    pm_value *const *operands = v->def->operands;
    if (v->def->code == PM_OP_where) {
        *out_mask = mask_of(body, operands[0]);
        return *out_mask && pm_body_is_zeros(body->module, operands[2]) ? operands[1] : NULL;
    }
    for (uint32_t i = 0; v->def->code == PM_OP_mul && i < 2; i++)
        if ((*out_mask = mask_of(body, operands[i])) != NULL)
            return operands[1 - i];
    return NULL;
}

static bool masked_sum(const pm_expert_body *body, pm_body_node *node)
{
    int64_t n = body->seed->experts, found = 0;
    const pm_type *type = node->values[0]->type;
    pm_value **parts = new_parts(body, (uint32_t)n);
    PM_VEC(pm_value *) work = {0};
    PM_PUSH(body->arena, &work, node->values[0]);
    while (work.n) {
        pm_value *v = work.data[--work.n];
        const pm_moe_fact *mask = NULL;
        pm_value *rows = masked_rows(body, v, &mask);
        if (rows && rows->type != type)
            return false;
        if (rows) {
            int64_t e = pm_fact_only_expert(mask);
            if (parts[e] || (node->mask && !pm_axes_same(&mask->axes, &node->mask->axes)))
                return false;
            parts[e] = rows;
            node->mask = mask;
            found++;
        } else if (pm_value_is(v, PM_OP_add) && v->type == type && pm_op_extents_fit(v->def)) {
            PM_PUSH(body->arena, &work, v->def->operands[0]);
            PM_PUSH(body->arena, &work, v->def->operands[1]);
        } else if (!pm_body_is_zeros(body->module, v)) {
            return false;
        }
    }
    node->parts = parts;
    node->n_parts = (uint32_t)n;
    return found == n;
}

/* ---- both ------------------------------------------------------------------------------------------ */

bool pm_body_find_join(const pm_expert_body *body, pm_body_node *node)
{
    const pm_value *v = node->values[0];
    if (node->width != 1 || node->by_choice || !pm_elem_is_float(v->type->elem))
        return false;
    bool found = is_scatter(v)                  ? written_rows(body, node)
                 : pm_value_is(v, PM_OP_add) ? masked_sum(body, node)
                                             : false;
    if (!found) {
        node->parts = NULL;
        node->mask = NULL;
    }
    return found;
}

bool pm_body_join(pm_expert_body *body, pm_body_node *node)
{
    pm_body_node *x = node->operands[0];
    const pm_atom *atom;
    node->kind = PM_BODY_ROWS;
    node->weight = x->weight;
    node->is_dense_weight = x->is_dense_weight;
    node->zero_stays = x->zero_stays;
    if (x->kind != PM_BODY_ROWS)
        return pm_body_stop(body, node, "what comes together isn't rows");
    if (node->mask)
        return (!x->weight && pm_axes_broadcast(&x->axes, &node->mask->axes, x->axes.rank, &node->axes) &&
                pm_body_keeps_row(x, &node->axes)) ||
               pm_body_stop(body, node, "rows and masks count different things");
    if (pm_axes_at(&x->axes, 0, &atom) != 1 || atom->kind != PM_ATOM_LIST || atom->list != node->lists[0])
        return pm_body_stop(body, node, "rows are written to other places than those they were picked from");
    for (uint32_t e = 0; node->n_parts > 1 && e < node->n_parts; e++)
        if (body->lists_differ || !body->lists || body->lists[e] != node->lists[e])
            return pm_body_stop(body, node, "rows are written to other places than those they were picked from");
    node->axes = (pm_axes){.rank = x->axes.rank};
    for (int32_t i = 0; i < body->seed->n_dims; i++)
        pm_axes_put(&node->axes, (pm_atom){.kind = PM_ATOM_SEED, .at = i, .dim = body->seed->dims[i]}, 0);
    for (int32_t i = 0; i < x->axes.n; i++)
        if (x->axes.atoms[i].axis > 0)
            pm_axes_put(&node->axes, x->axes.atoms[i], x->axes.atoms[i].axis);
    return pm_axes_fit(&node->axes);
}
