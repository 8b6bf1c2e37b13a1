#include "passes/generic/rewrite.h"

#include "ir/op_table.h"

void pm_graphs_of(const pm_module *m, pm_arena *scratch, pm_graph_vec *out_graphs)
{
    *out_graphs = (pm_graph_vec){0};
    for (size_t i = 0; i < m->entries.n; i++)
        PM_PUSH(scratch, out_graphs, m->entries.data[i]);
    // the list grows while it is walked
    for (size_t i = 0; i < out_graphs->n; i++)
        for (const pm_op *op = out_graphs->data[i]->first; op; op = op->next)
            for (uint32_t k = 0; k < op->n_regions && op->code != PM_OP_fused; k++)
                PM_PUSH(scratch, out_graphs, op->regions[k]);
}

void pm_bodies_of(pm_graph *entry, pm_arena *scratch, pm_graph_vec *out_graphs)
{
    *out_graphs = (pm_graph_vec){0};
    PM_PUSH(scratch, out_graphs, entry);
    for (size_t i = 0; i < out_graphs->n; i++)
        for (const pm_op *op = out_graphs->data[i]->first; op; op = op->next)
            for (uint32_t k = 0; k < op->n_regions && (op->code == PM_OP_if || op->code == PM_OP_loop); k++)
                PM_PUSH(scratch, out_graphs, op->regions[k]);
}

bool pm_value_is_used(const pm_value *v)
{
    if (v->uses)
        return true;
    for (size_t i = 0; i < v->graph->results.n; i++)
        if (v->graph->results.data[i] == v)
            return true;
    return false;
}

bool pm_value_shows_operand(const pm_value *v)
{
    return v->def && v->index == 0 && v->def->n_operands && v->def->operands[0] &&
           (pm_op_info_of(v->def)->traits & (PM_T_VIEW | PM_T_INPLACE));
}

pm_value *pm_value_origin(pm_value *v)
{
    while (pm_value_shows_operand(v))
        v = v->def->operands[0];
    return v;
}

bool pm_value_is_codes(const pm_value *v)
{
    if (!pm_value_is(v, PM_OP_dequantize))
        return false;
    for (uint32_t i = 0; i < v->def->n_operands; i++) {
        pm_value *part = v->def->operands[i];
        const pm_op *from = part ? pm_value_origin(part)->def : NULL;
        if (part && (!from || (from->code != PM_OP_const && from->code != PM_OP_stack)))
            return false;
    }
    return true;
}

bool pm_op_reads_bytes(const pm_op *op, uint32_t i)
{
    const pm_value *v = op->operands[i];
    switch (op->code) {
    case PM_OP_reshape:
    case PM_OP_expand: return i == 0 || !v->content;
    case PM_OP_fill:
    case PM_OP_empty: return i != 0 || !v->content;
    case PM_OP_shape: return false;
    case PM_OP_linear:
    case PM_OP_grouped_linear: return i != 1 || !op->device || v->def == NULL || v->def->device || !pm_value_is_codes(v);
    default: return true;
    }
}

pm_id_set pm_id_set_create(pm_arena *scratch, size_t n)
{
    return (pm_id_set){PM_NEW_ARRAY(scratch, uint8_t, n), n};
}

enum { MAX_VIEWS = 16 };

/// The value whose bytes `v` shows; NULL when that is too far away to look.
static const pm_value *origin(const pm_value *v)
{
    for (int step = 0; step < MAX_VIEWS; step++) {
        if (!v->def || !v->def->n_operands || !v->def->operands[0] ||
            !(pm_op_info_of(v->def)->traits & (PM_T_VIEW | PM_T_INPLACE)))
            return v;
        v = v->def->operands[0];
    }
    return NULL;
}

pm_id_set pm_overwritten_values(const pm_module *m, const pm_graph_vec *graphs, pm_arena *scratch)
{
    pm_id_set set = {NULL, 0};
    for (size_t i = 0; i < graphs->n; i++)
        for (const pm_op *op = graphs->data[i]->first; op; op = op->next) {
            if (!(pm_op_info_of(op)->traits & PM_T_INPLACE))
                continue;
            if (!set.has)
                set = pm_id_set_create(scratch, m->next_value);
            const pm_value *from = origin(op->operands[0]);
            pm_id_set_add(&set, op->operands[0]->id);
            if (from)
                pm_id_set_add(&set, from->id);
        }
    return set;
}

bool pm_may_stand_for(const pm_id_set *overwritten, const pm_value *old, const pm_value *value)
{
    if (!overwritten->has)
        return true;
    const pm_value *a = origin(old), *b = origin(value);
    return a && b && !pm_id_set_has(overwritten, a->id) && !pm_id_set_has(overwritten, b->id) &&
           !pm_id_set_has(overwritten, old->id) && !pm_id_set_has(overwritten, value->id);
}

pm_status pm_stand_in(pm_op *op, const pm_id_set *overwritten, const pm_value *old, pm_value *value,
                      pm_value **out_value)
{
    *out_value = value;
    if (pm_may_stand_for(overwritten, old, value))
        return PM_OK;
    pm_builder b = {op->graph, op, op->loc};
    return pm_build1(&b, out_value, PM_OP_cast, PM_OPERANDS(value),
                     PM_ATTRS(pm_attr_elem("to", value->type->elem)));
}

static pm_dim known_extent(pm_module *m, const pm_symbol_extents *known, pm_dim dim)
{
    for (size_t i = 0; i < known->n; i++)
        dim = pm_dim_replace(m, dim, known->data[i].symbol, known->data[i].extent);
    return dim;
}

static void replace_in_value(pm_module *m, const pm_symbol_extents *known, pm_value *v)
{
    pm_dim dims[PM_MAX_RANK];
    int64_t n;
    bool changed = false;
    if (v->content && pm_type_const_count(m, v->type, &n)) {
        pm_dim *content = PM_NEW_ARRAY(m->arena, pm_dim, (size_t)n + 1);
        for (int64_t i = 0; i < n; i++) {
            content[i] = known_extent(m, known, v->content[i]);
            changed |= content[i] != v->content[i];
        }
        if (changed)
            v->content = content;
    }
    changed = false;
    for (int32_t i = 0; i < v->type->rank; i++) {
        dims[i] = known_extent(m, known, v->type->dims[i]);
        changed |= dims[i] != v->type->dims[i];
    }
    if (changed && !v->type->layout) // packed weights have constant extents
        v->type = pm_type_get(m, v->type->elem, v->type->rank, dims);
}

void pm_symbols_replace(pm_module *m, const pm_symbol_extents *known, pm_arena *scratch)
{
    pm_graph_vec graphs = {0};
    for (size_t i = 0; i < m->entries.n; i++)
        PM_PUSH(scratch, &graphs, m->entries.data[i]);
    for (size_t i = 0; i < graphs.n; i++) { // grows while it is walked
        for (size_t k = 0; k < graphs.data[i]->args.n; k++)
            replace_in_value(m, known, graphs.data[i]->args.data[k]);
        for (pm_op *op = graphs.data[i]->first; op; op = op->next) {
            for (uint32_t k = 0; k < op->n_results; k++)
                replace_in_value(m, known, op->results[k]);
            for (uint32_t r = 0; r < op->n_regions; r++)
                PM_PUSH(scratch, &graphs, op->regions[r]);
        }
    }
}
