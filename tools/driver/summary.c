#include "tools/driver/summary.h"

#include <inttypes.h>
#include <string.h>

#include "base/str.h"
#include "ir/op_table.h"
#include "tools/driver/layer_checks.h"

const char *pm_bytes_text(pm_arena *arena, uint64_t bytes)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < PM_COUNT(units)) {
        value /= 1000;
        unit++;
    }
    return unit == 0 ? pm_arena_printf(arena, "%" PRIu64 " B", bytes)
                     : pm_arena_printf(arena, value < 10 ? "%.2f %s" : value < 100 ? "%.1f %s" : "%.0f %s", value,
                                       units[unit]);
}

const char *pm_summary_route(pm_arena *arena, const pm_op *route)
{
    pm_str text = pm_str_new(arena);
    const char *act = pm_op_str(route, "act");
    pm_str_add(&text, strcmp(act, "none") == 0 ? "scores as they are" : act);
    if (strcmp(pm_op_str(route, "weigh"), "as_is") != 0)
        pm_str_printf(&text, ", %s over the chosen", pm_op_str(route, "weigh"));
    if (pm_op_f64(route, "scale") != 1)
        pm_str_printf(&text, ", times %g", pm_op_f64(route, "scale"));
    if (pm_op_i64(route, "groups") > 1)
        pm_str_printf(&text, ", %" PRId64 " of %" PRId64 " groups", pm_op_i64(route, "keep_groups"),
                      pm_op_i64(route, "groups"));
    if (route->n_operands > 1 && route->operands[1])
        pm_str_add(&text, ", selection bias");
    return text.data;
}

/// ---- walking ----------------------------------------------------------------------------------------------

/// The op after `op` in a walk through a graph with all its regions; NULL at the end.
static pm_op *next_op(const pm_graph *top, pm_op *op)
{
    for (uint32_t i = 0; i < op->n_regions; i++)
        if (op->regions[i]->first)
            return op->regions[i]->first;
    while (op) {
        if (op->next)
            return op->next;
        pm_graph *g = op->graph;
        if (g == top)
            return NULL;
        pm_op *parent = g->parent;
        uint32_t k = 0;
        while (parent->regions[k] != g)
            k++;
        for (k++; k < parent->n_regions; k++)
            if (parent->regions[k]->first)
                return parent->regions[k]->first;
        op = parent;
    }
    return NULL;
}

/// Counts a constant's bytes unless its place in a file was counted before.
static void count_weight(pm_summary *s, pm_map *seen, const pm_data *data)
{
    struct {
        const void *where;
        uint64_t offset, size;
    } key = {data->bytes ? (const void *)data->bytes : (const void *)data->file, data->bytes ? 0 : data->offset,
             data->size};
    void **slot = pm_map_at(seen, &key, sizeof key);
    if (!*slot)
        s->weight_bytes += data->size;
    *slot = s;
}

static const pm_op *route_of(const pm_op *experts)
{
    const pm_value *v = experts->n_operands > 1 ? experts->operands[1] : NULL;
    while (pm_value_is(v, PM_OP_reshape) || pm_value_is(v, PM_OP_cast))
        v = v->def->operands[0];
    return pm_value_is(v, PM_OP_route) ? v->def : NULL;
}

static void add_layer(pm_summary *s, const pm_graph *g, pm_op *op)
{
    pm_layer_summary layer = {.entry = g->name, .name = pm_op_str(op, "name"), .loc = op->loc,
                              .n_experts = pm_op_i64(op, "experts"), .top_k = pm_op_i64(op, "top_k"),
                              .alike = op->n_regions == 1, .route = route_of(op), .op = op};
    s->total_experts += layer.n_experts;
    if (layer.n_experts > s->max_experts)
        s->max_experts = layer.n_experts;
    PM_PUSH(s->module->arena, &s->layers, layer);
}

pm_summary *pm_summary_make(pm_module *m)
{
    pm_summary *s = PM_NEW(m->arena, pm_summary);
    pm_map seen;
    pm_map_init(&seen, m->arena);
    s->module = m;
    size_t most = 0;
    const pm_graph *richest = NULL;
    for (size_t i = 0; i < m->entries.n; i++) {
        pm_graph *g = m->entries.data[i];
        size_t layers = 0;
        for (pm_op *op = g->first; op; op = next_op(g, op)) {
            s->ops[op->code]++;
            layers += op->code == PM_OP_experts;
            if (op->code == PM_OP_const)
                count_weight(s, &seen, pm_value_const(op->results[0]));
        }
        if (layers > most) {
            most = layers;
            richest = g;
        }
    }
    if (richest) {
        s->entry = richest->name;
        for (pm_op *op = richest->first; op; op = next_op(richest, op))
            if (op->code == PM_OP_experts)
                add_layer(s, richest, op);
    }
    return s;
}

/// ---- experts ----------------------------------------------------------------------------------------------

/// Of `size` bytes those that the value shows: a view may show some of them. `n` experts share it (0: one).
static uint64_t own_bytes(const pm_module *m, const pm_value *value, int64_t n, uint64_t size)
{
    int64_t count;
    if (!pm_type_const_count(m, value->type, &count))
        return size;
    uint64_t shown = (uint64_t)count * pm_elem_size(value->type->elem) / (uint64_t)(n ? n : 1);
    return shown < size ? shown : size;
}

static void add_shape(pm_summary *s, pm_expert_summary *x, const pm_value *value, int64_t n)
{
    pm_module *m = s->module;
    const pm_type *type = value->type;
    if (n && type->rank > 0)
        type = pm_type_get(m, type->elem, type->rank - 1, type->dims + 1);
    x->shapes = pm_arena_printf(m->arena, "%s%s%s", x->shapes ? x->shapes : "", x->shapes ? ", " : "",
                                pm_type_text(m, type));
}

/// The bytes of one expert's part of `value` (part `e` of `n`; n 0: all of it), added to the expert. What is computed
/// from a constant by ops that keep its first extent counts as that constant.
static pm_status add_part(pm_summary *s, pm_expert_summary *x, pm_hasher *hasher, const pm_value *value, int64_t e,
                          int64_t n)
{
    const pm_value *at = value;
    const int64_t all = n;
    for (int i = 0; i < 16 && at && at->def && at->def->code != PM_OP_const; i++) {
        if (at->def->code == PM_OP_stack && n && e < (int64_t)at->def->n_operands) {
            at = at->def->operands[e];
            n = 0;
        } else {
            at = at->def->n_operands > 0 ? at->def->operands[0] : NULL;
        }
    }
    const pm_data *data = at ? pm_value_const(at) : NULL;
    if (!data || (n && data->size % (uint64_t)n != 0)) {
        x->hashed = false;
        return PM_OK;
    }
    uint64_t size = n ? data->size / (uint64_t)n : data->size;
    pm_data *part = PM_NEW(s->module->arena, pm_data); // the module keeps what it has read by the description's address
    *part = *data;
    if (n) {
        part->size = size;
        part->bytes = data->bytes ? data->bytes + (uint64_t)e * size : NULL;
        part->offset += (uint64_t)e * size;
    }
    const uint8_t *bytes;
    PM_TRY(pm_data_bytes(s->module, part, &bytes));
    pm_hasher_add(hasher, bytes, size);
    x->bytes += own_bytes(s->module, value, all, size);
    add_shape(s, x, value, all);
    x->n_tensors++;
    return PM_OK;
}

/// The constants in an expert's own region, and what it captures from outside.
static pm_status add_region(pm_summary *s, pm_expert_summary *x, pm_hasher *hasher, const pm_op *op, pm_graph *region)
{
    for (pm_op *o = region->first; o; o = next_op(region, o))
        if (o->code == PM_OP_const)
            PM_TRY(add_part(s, x, hasher, o->results[0], 0, 0));
    for (size_t i = 1; i < region->args.n && i + 2 < op->n_operands; i++)
        if (region->args.data[i]->uses)
            PM_TRY(add_part(s, x, hasher, op->operands[i + 2], 0, 0));
    return PM_OK;
}

/// Name `e` of "length,product"; NULL when there are none.
static const char *name_of(pm_arena *arena, const char *names, int64_t e)
{
    for (int64_t i = 0; names; i++) {
        size_t n = strcspn(names, ",");
        if (i == e)
            return pm_arena_strndup(arena, names, n);
        if (!names[n])
            break;
        names += n + 1;
    }
    return NULL;
}

pm_status pm_summary_experts(pm_summary *s)
{
    pm_arena *arena = s->module->arena;
    for (size_t i = 0; i < s->layers.n; i++) {
        pm_layer_summary *layer = &s->layers.data[i];
        const pm_op *op = layer->op;
        const char *names = pm_op_attr(op, "names")->present ? pm_op_str(op, "names") : NULL;
        layer->experts = PM_NEW_ARRAY(arena, pm_expert_summary, (size_t)layer->n_experts);
        for (int64_t e = 0; e < layer->n_experts; e++) {
            pm_expert_summary *x = &layer->experts[e];
            pm_hasher *hasher = pm_hasher_new(arena);
            x->name = name_of(arena, names, e);
            x->hashed = true;
            if (!layer->alike && e < (int64_t)op->n_regions)
                PM_TRY(add_region(s, x, hasher, op, op->regions[e]));
            for (uint32_t k = 3; layer->alike && k < op->n_operands; k++)
                PM_TRY(add_part(s, x, hasher, op->operands[k], e, layer->n_experts));
            x->hash = pm_hasher_value(hasher);
        }
    }
    return PM_OK;
}

/// ---- JSON -------------------------------------------------------------------------------------------------

static void value_json(pm_json_out *w, const pm_module *m, const char *name, const pm_type *type)
{
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", name);
    pm_jo_text(w, "type", pm_elem_name(type->elem));
    pm_jo_array(w, "shape");
    for (int32_t i = 0; i < type->rank; i++) {
        int64_t extent;
        if (pm_dim_is_const(m, type->dims[i], &extent))
            pm_jo_int(w, NULL, extent);
        else
            pm_jo_text(w, NULL, pm_dim_text((pm_module *)m, type->dims[i]));
    }
    pm_jo_end(w);
    pm_jo_end(w);
}

void pm_summary_entries_json(pm_json_out *w, const pm_module *m)
{
    pm_jo_array(w, "entries");
    for (size_t e = 0; e < m->entries.n; e++) {
        const pm_graph *g = m->entries.data[e];
        pm_jo_object(w, NULL);
        pm_jo_text(w, "name", g->name);
        pm_jo_array(w, "inputs");
        for (size_t i = 0; i < g->args.n; i++)
            if (g->arg_states.data[i] < 0)
                value_json(w, m, g->args.data[i]->name, g->args.data[i]->type);
        pm_jo_end(w);
        pm_jo_array(w, "outputs");
        for (size_t i = 0; i < g->results.n; i++)
            if (g->result_states.data[i] < 0)
                value_json(w, m, g->result_names.data[i], g->results.data[i]->type);
        pm_jo_end(w);
        pm_jo_end(w);
    }
    pm_jo_end(w);
    pm_jo_array(w, "states");
    for (size_t i = 0; i < m->states.n; i++)
        value_json(w, m, m->states.data[i].name, m->states.data[i].type);
    pm_jo_end(w);
    pm_jo_array(w, "symbols");
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        if (s->data_dependent)
            continue;
        pm_jo_object(w, NULL);
        pm_jo_text(w, "name", s->name);
        pm_jo_int(w, "min", s->lo);
        if (s->hi == INT64_MAX)
            pm_jo_null(w, "max");
        else
            pm_jo_int(w, "max", s->hi);
        pm_jo_end(w);
    }
    pm_jo_end(w);
}

static void route_json(pm_json_out *w, const pm_op *route)
{
    pm_jo_object(w, "route");
    pm_jo_text(w, "activation", pm_op_str(route, "act"));
    pm_jo_text(w, "weights", pm_op_str(route, "weigh"));
    pm_jo_number(w, "scale", pm_op_f64(route, "scale"));
    pm_jo_int(w, "groups", pm_op_i64(route, "groups"));
    pm_jo_int(w, "keep_groups", pm_op_i64(route, "keep_groups"));
    pm_jo_bool(w, "selection_bias", route->n_operands > 1 && route->operands[1]);
    pm_jo_end(w);
}

/// The nodes of the input that became something: how many of each kind, and their names.
static void nodes_json(pm_json_out *w, const char *key, pm_arena *arena, const pm_loc_vec *nodes)
{
    pm_map counts;
    pm_map_init(&counts, arena);
    pm_jo_object(w, key);
    pm_jo_object(w, "ops");
    for (size_t i = 0; i < nodes->n; i++) {
        void **slot = pm_map_at(&counts, nodes->data[i]->detail, strlen(nodes->data[i]->detail));
        *slot = (void *)((uintptr_t)*slot + 1);
    }
    for (size_t i = 0; i < counts.n; i++)
        pm_jo_uint(w, counts.entries[i].key, (uintptr_t)counts.entries[i].value);
    pm_jo_end(w);
    pm_jo_array(w, "nodes");
    for (size_t i = 0; i < nodes->n; i++)
        pm_jo_text(w, NULL, nodes->data[i]->name);
    pm_jo_end(w);
    pm_jo_end(w);
}

const char *pm_summary_kinds(pm_arena *arena, const pm_loc_vec *nodes)
{
    pm_map counts;
    pm_map_init(&counts, arena);
    pm_str text = pm_str_new(arena);
    for (size_t i = 0; i < nodes->n; i++) {
        void **slot = pm_map_at(&counts, nodes->data[i]->detail, strlen(nodes->data[i]->detail));
        *slot = (void *)((uintptr_t)*slot + 1);
    }
    for (size_t i = 0; i < counts.n; i++)
        pm_str_printf(&text, "%s%" PRIuPTR " %s", i ? ", " : "", (uintptr_t)counts.entries[i].value,
                      counts.entries[i].key);
    return text.data ? text.data : "";
}

const char *pm_summary_equal(const pm_summary *s, size_t layer)
{
    const pm_layer_summary *l = &s->layers.data[layer];
    int64_t a = 0, b = 0, n = pm_equal_experts(l, &a, &b);
    if (n == 0)
        return NULL;
    return pm_arena_printf(s->module->arena, "%s: experts %" PRId64 " and %" PRId64 " are equal%s", l->name, a, b,
                           n > 1 ? pm_arena_printf(s->module->arena, "; copies in all: %" PRId64, n) : "");
}

static void remark(pm_json_out *w, const char *kind, const char *message, const pm_loc *loc, pm_arena *arena)
{
    pm_jo_object(w, NULL);
    pm_jo_text(w, "kind", kind);
    pm_jo_text(w, "message", message);
    pm_jo_text(w, "location", loc ? pm_loc_text(arena, loc) : NULL);
}

void pm_summary_remarks_json(pm_json_out *w, const pm_summary *s, const pm_diag *diag)
{
    pm_arena *arena = s->module->arena;
    const char *text;
    pm_jo_array(w, "remarks");
    for (size_t i = 0; i < pm_diag_size(diag); i++) {
        const pm_diag_entry *entry = pm_diag_at(diag, i);
        remark(w, entry->severity == PM_NOTE ? "note" : "warning", entry->text, entry->loc, arena);
        pm_jo_end(w);
    }
    for (size_t i = 0; i < s->layers.n; i++)
        if ((text = pm_summary_equal(s, i)) != NULL) {
            remark(w, "note", text, s->layers.data[i].loc, arena);
            pm_jo_end(w);
        }
    for (size_t i = 0; s->findings && i < s->findings->missed.n; i++) {
        const pm_near_miss *miss = &s->findings->missed.data[i];
        remark(w, "near_miss", miss->why, miss->loc, arena);
        pm_jo_text(w, "what", miss->what);
        pm_jo_text(w, "stopped_op", miss->stopped_op);
        pm_jo_text(w, "stopped_at", miss->stopped ? pm_loc_text(arena, pm_loc_origin(miss->stopped)) : NULL);
        pm_jo_text(w, "instead", miss->cost);
        pm_jo_end(w);
    }
    pm_jo_end(w);
}

static void experts_json(pm_json_out *w, const pm_layer_summary *layer)
{
    pm_jo_array(w, "experts");
    for (int64_t e = 0; e < layer->n_experts; e++) {
        const pm_expert_summary *x = &layer->experts[e];
        char hash[PM_HASH_TEXT_SIZE];
        pm_hash_text(x->hash, hash);
        pm_jo_object(w, NULL);
        pm_jo_int(w, "number", e);
        if (x->name)
            pm_jo_text(w, "name", x->name);
        pm_jo_uint(w, "tensors", x->n_tensors);
        pm_jo_uint(w, "bytes", x->bytes);
        pm_jo_text(w, "shapes", x->shapes);
        pm_jo_text(w, "hash", x->hashed ? hash : NULL);
        pm_jo_end(w);
    }
    pm_jo_end(w);
}

void pm_summary_layers_json(pm_json_out *w, const pm_summary *s)
{
    pm_jo_uint(w, "moe_layers", s->layers.n);
    pm_jo_int(w, "experts", s->max_experts);
    pm_jo_int(w, "experts_total", s->total_experts);
    pm_jo_array(w, "layers");
    for (size_t i = 0; i < s->layers.n; i++) {
        const pm_layer_summary *layer = &s->layers.data[i];
        pm_jo_object(w, NULL);
        pm_jo_text(w, "name", layer->name);
        pm_jo_text(w, "location", pm_loc_text(s->module->arena, layer->loc));
        pm_jo_int(w, "n_experts", layer->n_experts);
        pm_jo_int(w, "top_k", layer->top_k);
        pm_jo_bool(w, "alike", layer->alike);
        if (layer->route)
            route_json(w, layer->route);
        else
            pm_jo_null(w, "route");
        pm_jo_text(w, "form", layer->form);
        nodes_json(w, "absorbed", s->module->arena, &layer->nodes);
        nodes_json(w, "absorbed_by_route", s->module->arena, &layer->route_nodes);
        if (layer->experts)
            experts_json(w, layer);
        pm_jo_end(w);
    }
    pm_jo_end(w);
}

void pm_summary_ops_json(pm_json_out *w, const pm_summary *s)
{
    pm_jo_object(w, "ops");
    for (int i = 0; i < PM_OP_COUNT; i++)
        if (s->ops[i])
            pm_jo_uint(w, pm_op_table[i].name, s->ops[i]);
    pm_jo_end(w);
}
