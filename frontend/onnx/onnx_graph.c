/* Names, scopes and the order of nodes. */
#include <string.h>

#include "frontend/onnx/onnx_import.h"

void pm_onnx_scope_init(pm_onnx_scope *scope, pm_onnx *onnx, const pm_onnx_frame *frame,
                        pm_onnx_scope *outer, pm_graph *graph)
{
    *scope = (pm_onnx_scope){.onnx = onnx,
                             .frame = frame,
                             .outer = outer,
                             .graph = graph,
                             .depth = outer ? outer->depth + 1 : frame->depth};
    pm_map_init(&scope->names, onnx->temp);
}

const char *pm_onnx_domain(const char *domain)
{
    return !domain || strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

int64_t pm_onnx_version(const pm_onnx_frame *frame, const char *domain)
{
    for (size_t i = 0; i < frame->n_opsets; i++) {
        if (strcmp(pm_onnx_domain(frame->opsets[i]->domain), domain) == 0)
            return frame->opsets[i]->version;
    }
    return -1;
}

/* Names can't hold a NUL, so a key of NUL-terminated parts is unambiguous. */
static const char *function_key(pm_onnx *onnx, const char *domain, const char *name,
                                const char *overload, size_t *out_size)
{
    size_t sizes[3] = {strlen(domain) + 1, strlen(name) + 1, strlen(overload) + 1};
    char *key = pm_arena_alloc(onnx->temp, sizes[0] + sizes[1] + sizes[2], 1);
    memcpy(key, domain, sizes[0]);
    memcpy(key + sizes[0], name, sizes[1]);
    memcpy(key + sizes[0] + sizes[1], overload, sizes[2]);
    *out_size = sizes[0] + sizes[1] + sizes[2];
    return key;
}

const Onnx__Function *pm_onnx_function(pm_onnx *onnx, const char *domain, const char *name,
                                       const char *overload)
{
    if (!onnx->functions.n)
        return NULL;
    size_t size;
    const char *key = function_key(onnx, domain, name, overload, &size);
    return pm_map_get(&onnx->functions, key, size);
}

bool pm_onnx_add_function(pm_onnx *onnx, const Onnx__Function *function)
{
    size_t size;
    const char *key =
        function_key(onnx, pm_onnx_domain(function->domain), function->name ? function->name : "",
                     function->overload ? function->overload : "", &size);
    if (pm_map_get(&onnx->functions, key, size))
        return false;
    pm_map_put(&onnx->functions, key, size, (void *)function);
    return true;
}

pm_status pm_onnx_declare(pm_onnx_scope *scope, const pm_loc *loc, const char *name,
                          pm_onnx_binding **out_binding)
{
    size_t size = strlen(name);
    for (const pm_onnx_scope *outer = scope->outer; outer; outer = outer->outer) {
        if (pm_map_get(&outer->names, name, size))
            return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID,
                            "name '%s' in a subgraph hides the one of an outer graph", name);
    }
    void **slot = pm_map_at(&scope->names, name, size);
    if (*slot)
        return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID, "name '%s' is defined twice", name);
    *slot = *out_binding = PM_NEW(scope->onnx->temp, pm_onnx_binding);
    return PM_OK;
}

pm_onnx_binding *pm_onnx_lookup(pm_onnx_scope *scope, const char *name)
{
    size_t size = strlen(name);
    for (; scope; scope = scope->isolated ? NULL : scope->outer) {
        pm_onnx_binding *binding = pm_map_get(&scope->names, name, size);
        if (binding)
            return binding;
    }
    return NULL;
}

static pm_status dangling(pm_onnx_scope *scope, const pm_loc *loc, const char *name)
{
    enum { LIMIT = 20000 };
    PM_VEC(const char *) names = {0};
    pm_onnx *onnx = scope->onnx;
    for (; scope; scope = scope->isolated ? NULL : scope->outer) {
        for (size_t i = 0; i < scope->names.n && names.n < LIMIT; i++) {
            const pm_map_entry *entry = &scope->names.entries[i];
            PM_PUSH(onnx->temp, &names, pm_arena_strndup(onnx->temp, entry->key, entry->key_size));
        }
    }
    const char *nearest = names.n ? pm_nearest(name, names.data, names.n) : NULL;
    return pm_error(onnx->diag, loc, PM_ERR_INVALID, "'%s' is used, but nothing defines it%s%s%s",
                    name, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                    nearest ? "'?" : "");
}

pm_status pm_onnx_unread_float8(pm_onnx_scope *scope, const pm_loc *loc, const char *name)
{
    return pm_error(scope->onnx->diag, loc, PM_ERR_UNSUPPORTED,
                    "'%s' is FLOAT8E4M3FN, which only DequantizeLinear and Cast read", name);
}

pm_status pm_onnx_value(pm_onnx_scope *scope, const pm_loc *loc, const char *name,
                        pm_value **out_value)
{
    PM_TRY(pm_onnx_coded_value(scope, loc, name, out_value));
    return pm_onnx_is_float8(scope->onnx, *out_value) ? pm_onnx_unread_float8(scope, loc, name) : PM_OK;
}

pm_status pm_onnx_coded_value(pm_onnx_scope *scope, const pm_loc *loc, const char *name,
                              pm_value **out_value)
{
    *out_value = NULL;
    pm_onnx_binding *binding = pm_onnx_lookup(scope, name);
    if (!binding)
        return dangling(scope, loc, name);
    if (binding->absent)
        return PM_OK;
    if (binding->refused_by)
        return pm_error(scope->onnx->diag, binding->refused_by, PM_ERR_UNSUPPORTED,
                        "output '%s' is used, but not supported", name);
    if (!binding->value && binding->tensor) {
        pm_builder b = {.graph = scope->graph, .loc = loc};
        PM_TRY(pm_onnx_const(scope->onnx, &b, binding->tensor, name, &binding->value));
    }
    if (!binding->value)
        return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID,
                        "'%s' is used before anything computes it", name);
    *out_value = binding->value;
    return PM_OK;
}

/* ---- names that subgraphs use from outside ---- */

/* The graphs around the one that is looked at; depth is bounded by that of messages. */
typedef struct names {
    const struct names *outer;
    pm_map defined;
} names;

static void note_use(const names *around, const char *name, pm_map *free_names)
{
    if (!*name)
        return;
    size_t size = strlen(name);
    for (; around; around = around->outer) {
        if (pm_map_get(&around->defined, name, size))
            return;
    }
    *pm_map_at(free_names, name, size) = (void *)name;
}

static void define(names *own, const char *name)
{
    if (name && *name)
        pm_map_put_str(&own->defined, name, (void *)name);
}

static void collect(pm_onnx *onnx, const Onnx__Graph *graph, const names *outer, pm_map *free_names)
{
    names own = {.outer = outer};
    pm_map_init(&own.defined, onnx->temp);
    for (size_t i = 0; i < graph->n_input; i++)
        define(&own, graph->input[i]->name);
    for (size_t i = 0; i < graph->n_initializer; i++)
        define(&own, graph->initializer[i]->name);
    for (size_t i = 0; i < graph->n_node; i++) {
        for (size_t k = 0; k < graph->node[i]->n_output; k++)
            define(&own, graph->node[i]->output[k]);
    }
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__Node *node = graph->node[i];
        for (size_t k = 0; k < node->n_input; k++)
            note_use(&own, node->input[k], free_names);
        for (size_t k = 0; k < node->n_attribute; k++) {
            if (node->attribute[k]->g)
                collect(onnx, node->attribute[k]->g, &own, free_names);
        }
    }
    for (size_t i = 0; i < graph->n_output; i++)
        note_use(&own, graph->output[i]->name ? graph->output[i]->name : "", free_names);
}

void pm_onnx_free_names(pm_onnx *onnx, const Onnx__Graph *graph, pm_map *free_names)
{
    collect(onnx, graph, NULL, free_names);
}

/* ---- order of nodes ---- */

/* For node i, the nodes that it needs: edges[first[i]] .. edges[first[i + 1]]. */
typedef struct order {
    pm_onnx_scope *scope;
    Onnx__Node *const *nodes;
    size_t n;
    size_t *first;
    PM_VEC(uint32_t) edges;
    bool sorted;
} order;

static void add_edge(order *o, size_t node, const char *name, size_t size)
{
    const pm_onnx_binding *binding = pm_map_get(&o->scope->names, name, size);
    if (!binding || binding->value || binding->tensor || binding->absent)
        return;
    PM_PUSH(o->scope->onnx->temp, &o->edges, binding->producer);
    o->sorted &= binding->producer < node;
}

static void find_edges(order *o)
{
    pm_onnx *onnx = o->scope->onnx;
    o->first = PM_NEW_ARRAY(onnx->temp, size_t, o->n + 1);
    o->sorted = true;
    for (size_t i = 0; i < o->n; i++) {
        const Onnx__Node *node = o->nodes[i];
        o->first[i] = o->edges.n;
        for (size_t k = 0; k < node->n_input; k++)
            add_edge(o, i, node->input[k], strlen(node->input[k]));
        for (size_t k = 0; k < node->n_attribute; k++) {
            if (!node->attribute[k]->g)
                continue;
            pm_map free_names;
            pm_map_init(&free_names, onnx->temp);
            pm_onnx_free_names(onnx, node->attribute[k]->g, &free_names);
            for (size_t f = 0; f < free_names.n; f++)
                add_edge(o, i, free_names.entries[f].key, free_names.entries[f].key_size);
        }
    }
    o->first[o->n] = o->edges.n;
}

static pm_status cycle(order *o, const uint32_t *stack, size_t depth, uint32_t node)
{
    pm_loc loc = pm_onnx_node_loc(o->scope, o->nodes[node]);
    pm_status status =
        pm_error(o->scope->onnx->diag, &loc, PM_ERR_INVALID, "depends on its own output (a cycle)");
    enum { NOTES = 5 };
    for (size_t i = depth, notes = 0; i-- > 0 && stack[i] != node && notes < NOTES; notes++) {
        loc = pm_onnx_node_loc(o->scope, o->nodes[stack[i]]);
        pm_note(o->scope->onnx->diag, &loc, "through this node");
    }
    return status;
}

/* Depth first along the needs, in file order: what is sorted keeps its place. */
static pm_status sort(order *o, uint32_t *out)
{
    enum { NEW, OPEN, DONE };
    pm_arena *temp = o->scope->onnx->temp;
    uint8_t *state = PM_NEW_ARRAY(temp, uint8_t, o->n);
    uint32_t *stack = PM_NEW_ARRAY(temp, uint32_t, o->n);
    size_t *cursor = PM_NEW_ARRAY(temp, size_t, o->n), n_out = 0;
    for (size_t root = 0; root < o->n; root++) {
        size_t depth = 0;
        if (state[root] == NEW) {
            state[root] = OPEN;
            cursor[root] = o->first[root];
            stack[depth++] = (uint32_t)root;
        }
        while (depth) {
            uint32_t node = stack[depth - 1];
            if (cursor[node] == o->first[node + 1]) {
                state[node] = DONE;
                out[n_out++] = node;
                depth--;
                continue;
            }
            uint32_t need = o->edges.data[cursor[node]++];
            if (state[need] == OPEN)
                return cycle(o, stack, depth, need);
            if (state[need] == NEW) {
                state[need] = OPEN;
                cursor[need] = o->first[need];
                stack[depth++] = need;
            }
        }
    }
    return PM_OK;
}

static pm_status declare_all(pm_onnx_scope *scope, const pm_loc *body_loc, Onnx__Node *const *nodes,
                             size_t n_nodes, Onnx__Tensor *const *tensors, size_t n_tensors)
{
    pm_onnx_binding *binding;
    for (size_t i = 0; i < n_tensors; i++) {
        if (!tensors[i]->name || !*tensors[i]->name)
            return pm_error(scope->onnx->diag, body_loc, PM_ERR_INVALID,
                            "initializer %zu has no name", i);
        pm_loc loc = {.file = scope->onnx->path, .what = "tensor", .name = tensors[i]->name};
        PM_TRY(pm_onnx_declare(scope, &loc, tensors[i]->name, &binding));
        binding->tensor = tensors[i];
    }
    for (size_t i = 0; i < n_nodes; i++) {
        for (size_t k = 0; k < nodes[i]->n_output; k++) {
            if (!*nodes[i]->output[k])
                continue;
            pm_loc loc = pm_onnx_node_loc(scope, nodes[i]);
            PM_TRY(pm_onnx_declare(scope, &loc, nodes[i]->output[k], &binding));
            binding->producer = (uint32_t)i;
        }
    }
    return PM_OK;
}

pm_status pm_onnx_import_body(pm_onnx_scope *scope, const pm_loc *loc, Onnx__Node *const *nodes,
                              size_t n_nodes, Onnx__Tensor *const *tensors, size_t n_tensors)
{
    PM_TRY(declare_all(scope, loc, nodes, n_nodes, tensors, n_tensors));
    PM_TRY(pm_onnx_check_ops(scope, nodes, n_nodes));
    order o = {.scope = scope, .nodes = nodes, .n = n_nodes};
    find_edges(&o);
    uint32_t *sequence = NULL;
    if (!o.sorted) {
        sequence = PM_NEW_ARRAY(scope->onnx->temp, uint32_t, n_nodes);
        PM_TRY(sort(&o, sequence));
    }
    for (size_t i = 0; i < n_nodes; i++)
        PM_TRY(pm_onnx_import_node(scope, nodes[sequence ? sequence[i] : i]));
    return PM_OK;
}
