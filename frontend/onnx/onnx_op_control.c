/* Handlers: If, Loop and Scan. Regions are isolated, so what a subgraph uses from outside becomes
 * an operand and an argument; constants are made again inside. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"
#include "ir/op_table.h"

pm_onnx_handler pm_onnx_do_if, pm_onnx_do_loop, pm_onnx_do_scan;

/* The values that subgraphs use from outside. */
typedef struct captures {
    pm_map names;                        ///< of all subgraphs of the node
    PM_VEC(pm_value *) values;           ///< those that become operands
    PM_VEC(const char *) value_names;    ///< parallel
    PM_VEC(const char *) constant_names; ///< those that are made again
} captures;

static pm_status find_captures(pm_onnx_call *call, const Onnx__Graph *const *graphs, size_t n,
                               captures *c)
{
    pm_arena *temp = call->onnx->temp;
    *c = (captures){0};
    pm_map_init(&c->names, temp);
    for (size_t i = 0; i < n; i++)
        pm_onnx_free_names(call->onnx, graphs[i], &c->names);
    for (size_t i = 0; i < c->names.n; i++) {
        const char *name = c->names.entries[i].value;
        const pm_onnx_binding *binding = pm_onnx_lookup(call->scope, name);
        bool lazy = binding && !binding->value && (binding->tensor || binding->absent);
        pm_value *value = NULL;
        if (!lazy)
            PM_TRY(pm_onnx_value(call->scope, call->b.loc, name, &value));
        if (lazy || pm_value_const(value)) {
            PM_PUSH(temp, &c->constant_names, name);
        } else {
            PM_PUSH(temp, &c->values, value);
            PM_PUSH(temp, &c->value_names, name);
        }
    }
    return PM_OK;
}

static pm_status check_subgraph(pm_onnx_call *call, const Onnx__Graph *graph, const char *what,
                                size_t n_in, size_t n_out)
{
    if (call->scope->depth >= PM_ONNX_MAX_INLINE)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "functions and subgraphs are nested more than %d deep",
                             PM_ONNX_MAX_INLINE);
    if (graph->n_sparse_initializer)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "sparse initializers");
    if (graph->n_input != n_in)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s has %zu inputs, must have %zu", what,
                             graph->n_input, n_in);
    if (graph->n_output != n_out)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s has %zu outputs, must have %zu", what,
                             graph->n_output, n_out);
    return PM_OK;
}

static pm_status bind(pm_onnx_scope *scope, const pm_loc *loc, const char *name, pm_value *value)
{
    pm_onnx_binding *binding;
    if (!name || !*name)
        return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID,
                        "an input of a subgraph has no name");
    PM_TRY(pm_onnx_declare(scope, loc, name, &binding));
    binding->value = value;
    return PM_OK;
}

/* A captured name is visible in the region under its own name: no shadowing, so no check. */
static pm_onnx_binding *bind_captured(pm_onnx_scope *scope, const char *name)
{
    void **slot = pm_map_at(&scope->names, name, strlen(name));
    *slot = PM_NEW(scope->onnx->temp, pm_onnx_binding);
    return *slot;
}

/* A region's scope with its captured values bound: arguments after those that it has by now. */
static pm_status enter_region(pm_onnx_call *call, const captures *c, pm_graph *region,
                              pm_onnx_scope *out)
{
    pm_onnx_scope_init(out, call->onnx, call->scope->frame, call->scope, region);
    out->isolated = true;
    for (size_t i = 0; i < c->constant_names.n; i++) {
        const char *name = c->constant_names.data[i];
        pm_onnx_binding *binding = bind_captured(out, name);
        const pm_onnx_binding *outer = pm_onnx_lookup(call->scope, name);
        binding->tensor = outer->value ? NULL : outer->tensor;
        binding->absent = outer->absent;
        if (!outer->value)
            continue;
        pm_builder b = {.graph = region, .loc = outer->value->def->loc};
        PM_TRY(pm_build_const(&b, outer->value->type, pm_value_const(outer->value),
                              outer->value->name, &binding->value));
    }
    for (size_t i = 0; i < c->values.n; i++) {
        const pm_value *value = c->values.data[i];
        pm_value *arg = pm_graph_add_arg(region, value->name, value->type, -1);
        arg->content = value->content;
        bind_captured(out, c->value_names.data[i])->value = arg;
    }
    return PM_OK;
}

static pm_status import_subgraph(pm_onnx_scope *scope, const pm_loc *loc, const Onnx__Graph *graph,
                                 pm_value **out)
{
    PM_TRY(pm_onnx_import_body(scope, loc, graph->node, graph->n_node, graph->initializer,
                               graph->n_initializer));
    for (size_t i = 0; i < graph->n_output; i++) {
        const char *name = graph->output[i]->name;
        if (!name || !*name)
            return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID,
                            "output %zu of a subgraph has no name", i);
        PM_TRY(pm_onnx_value(scope, loc, name, &out[i]));
        if (!out[i])
            return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID,
                            "output '%s' of a subgraph is absent", name);
    }
    return PM_OK;
}

/* ---- If ---- */

/* The single integer that a value is known to be, as an expression. */
static pm_dim known_int(const pm_module *m, const pm_value *value)
{
    int64_t count;
    return value->content && pm_type_const_count(m, value->type, &count) && count == 1 ? value->content[0] : PM_DIM_NONE;
}

static bool known_comparison(pm_module *m, const pm_op *op, bool *out)
{
    pm_dim a = known_int(m, op->operands[0]), b = known_int(m, op->operands[1]);
    int64_t lo[2], hi[2];
    if (a == PM_DIM_NONE || b == PM_DIM_NONE)
        return false;
    pm_dim_range(m, a, &lo[0], &hi[0]);
    pm_dim_range(m, b, &lo[1], &hi[1]);
    bool same = pm_dim_same(a, b), below = hi[0]<lo[1], above = lo[0]> hi[1];
    bool single = lo[0] == hi[0] && lo[1] == hi[1] && lo[0] == lo[1];
    *out = op->code == PM_OP_less    ? below
           : op->code == PM_OP_equal ? same || single
                                     : same || single || below;
    return same || single || below || above;
}

static bool known_bool(pm_onnx_call *call, const pm_value *value, int depth, bool *out)
{
    enum { MAX_DEPTH = 8 };
    const pm_data *data = pm_value_const(value);
    const uint8_t *bytes;
    if (depth == MAX_DEPTH || !value->def)
        return false;
    if (data) {
        if (value->type->elem != PM_BOOL || data->size != 1 ||
            pm_data_bytes(call->onnx->module, data, &bytes) != PM_OK)
            return false;
        *out = *bytes != 0;
        return true;
    }
    const pm_op *op = value->def;
    switch (op->code) {
    case PM_OP_reshape: return known_bool(call, op->operands[0], depth + 1, out);
    case PM_OP_not:
        if (!known_bool(call, op->operands[0], depth + 1, out))
            return false;
        *out = !*out;
        return true;
    case PM_OP_and:
    case PM_OP_or: {
        bool absorbing = op->code == PM_OP_or, values[2] = {false, false}, known[2];
        for (int i = 0; i < 2; i++)
            known[i] = known_bool(call, op->operands[i], depth + 1, &values[i]);
        for (int i = 0; i < 2; i++) {
            if (known[i] && values[i] == absorbing) {
                *out = absorbing;
                return true;
            }
        }
        *out = !absorbing;
        return known[0] && known[1];
    }
    case PM_OP_equal:
    case PM_OP_less:
    case PM_OP_less_equal: return known_comparison(call->onnx->module, op, out);
    case PM_OP_cast: {
        pm_dim x = known_int(call->onnx->module, op->operands[0]);
        int64_t lo, hi;
        if (value->type->elem != PM_BOOL || x == PM_DIM_NONE)
            return false;
        pm_dim_range(call->onnx->module, x, &lo, &hi);
        *out = lo > 0 || hi < 0;
        return *out || (lo == 0 && hi == 0);
    }
    default: return false;
    }
}

bool pm_onnx_known_bool(pm_onnx_call *call, const pm_value *value, bool *out_value)
{
    int64_t count;
    return pm_type_const_count(call->onnx->module, value->type, &count) && count == 1 &&
           known_bool(call, value, 0, out_value);
}

/* The branch of a condition that is known: its nodes become nodes of this graph. */
static pm_status inline_branch(pm_onnx_call *call, const Onnx__Graph *graph)
{
    pm_onnx_scope scope;
    pm_onnx_scope_init(&scope, call->onnx, call->scope->frame, call->scope, call->scope->graph);
    pm_value **values = PM_NEW_ARRAY(call->onnx->temp, pm_value *, graph->n_output);
    PM_TRY(import_subgraph(&scope, call->b.loc, graph, values));
    memcpy(call->out, values, call->n_out * sizeof *values);
    return PM_OK;
}

static pm_status import_branches(pm_onnx_call *call, const captures *c, pm_op *op,
                                 const Onnx__Graph *const *graphs)
{
    pm_value **values = PM_NEW_ARRAY(call->onnx->temp, pm_value *, op->n_results);
    for (size_t i = 0; i < 2; i++) {
        pm_onnx_scope scope;
        pm_graph *region = pm_region_create(op);
        PM_TRY(enter_region(call, c, region, &scope));
        PM_TRY(import_subgraph(&scope, call->b.loc, graphs[i], values));
        for (size_t k = 0; k < op->n_results; k++)
            pm_graph_add_result(region, NULL, values[k], -1);
    }
    return pm_op_infer(op);
}

pm_status pm_onnx_do_if(pm_onnx_call *call)
{
    const Onnx__Graph *graphs[] = {pm_onnx_attr_of(call, "then_branch")->graph,
                                   pm_onnx_attr_of(call, "else_branch")->graph};
    pm_arena *temp = call->onnx->temp;
    pm_value *condition = call->in[0];
    size_t n_out = call->node->n_output;
    PM_TRY(check_subgraph(call, graphs[0], "then_branch", 0, n_out));
    PM_TRY(check_subgraph(call, graphs[1], "else_branch", 0, n_out));
    if (condition->type->elem != PM_BOOL)
        return pm_onnx_error(call, PM_ERR_INVALID, "the condition is %s, must be bool",
                             pm_elem_name(condition->type->elem));
    bool known;
    if (pm_onnx_known_bool(call, condition, &known))
        return inline_branch(call, graphs[known ? 0 : 1]);
    captures c;
    PM_TRY(find_captures(call, graphs, 2, &c));
    PM_TRY(pm_onnx_reshape(call, condition, NULL, 0, &condition));
    pm_value **operands = PM_NEW_ARRAY(temp, pm_value *, c.values.n + 1);
    operands[0] = condition;
    if (c.values.n)
        memcpy(operands + 1, c.values.data, c.values.n * sizeof *operands);
    pm_op *op;
    PM_TRY(pm_op_create(call->b.graph, NULL, PM_OP_if, call->b.loc, operands, c.values.n + 1, NULL,
                        0, n_out, 2, &op));
    PM_TRY(import_branches(call, &c, op, graphs));
    memcpy(call->out, op->results, call->n_out * sizeof *op->results);
    return PM_OK;
}

/* ---- Loop and Scan ---- */

/* Both become `loop`: the region gets the iteration, the condition, the carried and the captured
 * values, and gives the condition, the carried values and a slice of each scanned result. */
typedef struct loop {
    pm_onnx_call *call;
    const Onnx__Graph *body;
    captures captured;
    pm_value *trips, *condition;
    size_t n_carried, n_scanned;
    pm_value **initial;
    const pm_type **types; ///< of the carried values, in the region
    size_t n_inputs;       ///< Scan: sequences, the last operands
    pm_value **inputs;
    const int64_t *axes;       ///< Scan: of the inputs
    const int64_t *directions; ///< Scan: 1 runs backwards
    pm_op *op;
} loop;

/* Scan: slice `trip` of each sequence, as the body's last inputs. */
static pm_status bind_slices(loop *l, pm_onnx_scope *scope, pm_value *iteration,
                             pm_value *const *sequences)
{
    pm_onnx_call inner = *l->call;
    inner.b.graph = scope->graph;
    for (size_t i = 0; i < l->n_inputs; i++) {
        pm_value *index = iteration, *slice;
        if (l->directions[i]) {
            /* counted from the end: -1 - iteration */
            pm_value *last;
            PM_TRY(pm_onnx_scalar(&inner, PM_I64, -1, &last));
            PM_TRY(pm_onnx_build(&inner, &index, PM_OP_sub, PM_OPERANDS(last, index), PM_NO_ATTRS));
        }
        PM_TRY(pm_onnx_build(&inner, &slice, PM_OP_gather, PM_OPERANDS(sequences[i], index),
                             PM_ATTRS(pm_attr_i64("axis", l->axes[i]))));
        PM_TRY(bind(scope, l->call->b.loc, l->body->input[l->n_carried + i]->name, slice));
    }
    return PM_OK;
}

static pm_status import_region(loop *l, pm_value **out_values)
{
    pm_onnx_call *call = l->call;
    pm_module *m = call->onnx->module;
    const pm_loc *loc = call->b.loc;
    bool is_scan = l->inputs != NULL;
    pm_graph *region = pm_region_create(l->op);
    const pm_type *i64 = pm_type_get(m, PM_I64, 0, NULL),
                  *boolean = pm_type_get(m, PM_BOOL, 0, NULL);
    pm_value *iteration = pm_graph_add_arg(region, NULL, i64, -1);
    pm_value *condition = pm_graph_add_arg(region, NULL, boolean, -1);
    pm_value **carried = PM_NEW_ARRAY(call->onnx->temp, pm_value *, l->n_carried);
    pm_value **sequences = PM_NEW_ARRAY(call->onnx->temp, pm_value *, l->n_inputs);
    for (size_t i = 0; i < l->n_carried; i++)
        carried[i] = pm_graph_add_arg(region, NULL, l->types[i], -1);
    for (size_t i = 0; i < l->n_inputs; i++)
        sequences[i] = pm_graph_add_arg(region, NULL, l->inputs[i]->type, -1);
    pm_onnx_scope scope;
    PM_TRY(enter_region(call, &l->captured, region, &scope));
    size_t first = is_scan ? 0 : 2;
    if (!is_scan) {
        PM_TRY(bind(&scope, loc, l->body->input[0]->name, iteration));
        PM_TRY(bind(&scope, loc, l->body->input[1]->name, condition));
    }
    for (size_t i = 0; i < l->n_carried; i++)
        PM_TRY(bind(&scope, loc, l->body->input[first + i]->name, carried[i]));
    PM_TRY(bind_slices(l, &scope, iteration, sequences));
    if (is_scan)
        out_values[0] = condition;
    PM_TRY(import_subgraph(&scope, loc, l->body, out_values + is_scan));
    return PM_OK;
}

/* Makes the extents that a pass through the body changes unknown. True when there were such. */
static pm_status generalise(loop *l, pm_value *const *values, bool *out_changed)
{
    pm_onnx_call *call = l->call;
    pm_module *m = call->onnx->module;
    *out_changed = false;
    for (size_t i = 0; i < l->n_carried; i++) {
        const pm_type *before = l->types[i], *after = values[1 + i]->type;
        if (before == after)
            continue;
        if (before->elem != after->elem || before->rank != after->rank)
            return pm_onnx_error(call,
                                 before->elem != after->elem ? PM_ERR_INVALID : PM_ERR_UNSUPPORTED,
                                 "value %zu that the loop carries begins as %s and becomes %s", i,
                                 pm_type_text(m, before), pm_type_text(m, after));
        pm_dim dims[PM_MAX_RANK];
        bool changed = false;
        for (int32_t k = 0; k < before->rank; k++) {
            uint32_t symbol;
            dims[k] = before->dims[k];
            bool is_fresh =
                pm_dim_is_symbol(m, dims[k], &symbol) && dims[k] != l->initial[i]->type->dims[k];
            if (before->dims[k] == after->dims[k] || is_fresh)
                continue;
            dims[k] = pm_dim_fresh(m, "loop", PM_DIM_NONE);
            changed = true;
        }
        if (changed)
            l->types[i] = pm_type_get(m, before->elem, before->rank, dims);
        *out_changed |= changed;
    }
    return PM_OK;
}

static pm_status create_loop(loop *l)
{
    pm_onnx_call *call = l->call;
    size_t n_in = l->n_carried + l->n_inputs, n = 2 + n_in + l->captured.values.n;
    pm_value **operands = PM_NEW_ARRAY(call->onnx->temp, pm_value *, n);
    operands[0] = l->trips;
    operands[1] = l->condition;
    for (size_t i = 0; i < l->n_carried; i++)
        operands[2 + i] = l->initial[i];
    for (size_t i = 0; i < l->n_inputs; i++)
        operands[2 + l->n_carried + i] = l->inputs[i];
    for (size_t i = 0; i < l->captured.values.n; i++)
        operands[2 + n_in + i] = l->captured.values.data[i];
    return pm_op_create(call->b.graph, NULL, PM_OP_loop, call->b.loc, operands, n,
                        PM_ATTRS(pm_attr_i64("carried", (int64_t)l->n_carried),
                                 pm_attr_i64("scanned", (int64_t)l->n_scanned)),
                        l->n_carried + l->n_scanned, 1, &l->op);
}

static pm_status build_loop(loop *l)
{
    pm_onnx_call *call = l->call;
    const Onnx__Graph *body = l->body;
    enum { ROUNDS = 3 };
    PM_TRY(find_captures(call, &body, 1, &l->captured));
    l->types = PM_NEW_ARRAY(call->onnx->temp, const pm_type *, l->n_carried);
    for (size_t i = 0; i < l->n_carried; i++)
        l->types[i] = l->initial[i]->type;
    pm_value **values = PM_NEW_ARRAY(call->onnx->temp, pm_value *, 1 + l->n_carried + l->n_scanned);
    bool changed = true;
    for (int round = 0; changed; round++) {
        if (round == ROUNDS)
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                                 "the shapes that the loop carries don't settle");
        PM_TRY(create_loop(l));
        PM_TRY(import_region(l, values));
        PM_TRY(generalise(l, values, &changed));
        if (changed)
            pm_op_erase(l->op);
    }
    for (size_t i = 0; i < 1 + l->n_carried + l->n_scanned; i++)
        pm_graph_add_result(l->op->regions[0], NULL, values[i], -1);
    return pm_op_infer(l->op);
}

static pm_status as_scalar(pm_onnx_call *call, pm_value *value, pm_elem elem, const char *what,
                           pm_value **out)
{
    if (value->type->elem != elem)
        return pm_onnx_error(call, PM_ERR_INVALID, "the %s is %s, must be %s", what,
                             pm_elem_name(value->type->elem), pm_elem_name(elem));
    return pm_onnx_reshape(call, value, NULL, 0, out);
}

pm_status pm_onnx_do_loop(pm_onnx_call *call)
{
    loop l = {.call = call, .body = pm_onnx_attr_of(call, "body")->graph};
    size_t n_in = call->node->n_input;
    l.n_carried = n_in > 2 ? n_in - 2 : 0;
    if (l.body->n_output < 1 + l.n_carried)
        return pm_onnx_error(call, PM_ERR_INVALID, "body has %zu outputs, needs at least %zu",
                             l.body->n_output, 1 + l.n_carried);
    l.n_scanned = l.body->n_output - 1 - l.n_carried;
    PM_TRY(check_subgraph(call, l.body, "body", 2 + l.n_carried, 1 + l.n_carried + l.n_scanned));
    if (call->node->n_output != l.n_carried + l.n_scanned)
        return pm_onnx_error(call, PM_ERR_INVALID, "has %zu outputs, but its body gives %zu",
                             call->node->n_output, l.n_carried + l.n_scanned);
    l.initial = n_in > 2 ? call->in + 2 : NULL;
    for (size_t i = 0; i < l.n_carried; i++) {
        if (!l.initial[i])
            return pm_onnx_error(call, PM_ERR_INVALID, "input %zu is missing", i + 2);
    }
    const int64_t forever = INT64_MAX, yes = 1;
    if (n_in > 0 && call->in[0])
        PM_TRY(as_scalar(call, call->in[0], PM_I64, "trip count", &l.trips));
    else
        PM_TRY(pm_build_const_ints(&call->b, PM_I64, 0, NULL, &forever, &l.trips));
    if (n_in > 1 && call->in[1])
        PM_TRY(as_scalar(call, call->in[1], PM_BOOL, "condition", &l.condition));
    else
        PM_TRY(pm_build_const_ints(&call->b, PM_BOOL, 0, NULL, &yes, &l.condition));
    PM_TRY(build_loop(&l));
    memcpy(call->out, l.op->results, call->n_out * sizeof *call->out);
    return PM_OK;
}

/* A list of axes or directions of Scan, one per sequence; zeros when it isn't given. */
static pm_status scan_list(pm_onnx_call *call, const char *name, size_t n, const int64_t **out)
{
    const pm_onnx_attr *attr = pm_onnx_attr_of(call, name);
    if (attr->given && attr->n != n)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s has %zu numbers, must have %zu", name,
                             attr->n, n);
    *out = attr->given ? attr->ints : PM_NEW_ARRAY(call->onnx->temp, int64_t, n);
    return PM_OK;
}

static pm_status scan_inputs(pm_onnx_call *call, loop *l)
{
    PM_TRY(scan_list(call, "scan_input_directions", l->n_inputs, &l->directions));
    const int64_t *given;
    PM_TRY(scan_list(call, "scan_input_axes", l->n_inputs, &given));
    int64_t *axes = PM_NEW_ARRAY(call->onnx->temp, int64_t, l->n_inputs);
    l->axes = axes;
    for (size_t i = 0; i < l->n_inputs; i++)
        PM_TRY(pm_onnx_axis(call, given[i], l->inputs[i]->type->rank, &axes[i]));
    pm_value *length;
    PM_TRY(pm_build_dims(&call->b, 1, &l->inputs[0]->type->dims[axes[0]], &length));
    return pm_onnx_reshape(call, length, NULL, 0, &l->trips);
}

/* The slices in the opposite order. */
static pm_status turn_round(pm_onnx_call *call, pm_value **value)
{
    const int64_t one = 1, start = -1, end = -INT64_MAX, axis = 0, step = -1;
    const int64_t *const numbers[] = {&start, &end, &axis, &step};
    pm_value *operands[5] = {*value};
    for (size_t i = 0; i < 4; i++)
        PM_TRY(pm_build_const_ints(&call->b, PM_I64, 1, &one, numbers[i], &operands[1 + i]));
    return pm_onnx_build(call, value, PM_OP_slice, operands, 5, PM_NO_ATTRS);
}

static pm_status scan_outputs(pm_onnx_call *call, const loop *l)
{
    const int64_t *axes, *directions;
    PM_TRY(scan_list(call, "scan_output_axes", l->n_scanned, &axes));
    PM_TRY(scan_list(call, "scan_output_directions", l->n_scanned, &directions));
    for (size_t i = 0; i < call->n_out; i++) {
        call->out[i] = l->op->results[i];
        if (i < l->n_carried)
            continue;
        int64_t axis, perm[PM_MAX_RANK];
        int32_t rank = call->out[i]->type->rank;
        if (directions[i - l->n_carried])
            PM_TRY(turn_round(call, &call->out[i]));
        PM_TRY(pm_onnx_axis(call, axes[i - l->n_carried], rank, &axis));
        for (int32_t k = 0; k < rank; k++)
            perm[k] = k == axis ? 0 : k < axis ? k + 1 : k;
        PM_TRY(pm_onnx_transpose(call, call->out[i], perm, &call->out[i]));
    }
    return PM_OK;
}

pm_status pm_onnx_do_scan(pm_onnx_call *call)
{
    loop l = {.call = call, .body = pm_onnx_attr_of(call, "body")->graph};
    int64_t n_inputs = pm_onnx_attr_of(call, "num_scan_inputs")->i;
    if (n_inputs < 1 || (uint64_t)n_inputs > call->n_in)
        return pm_onnx_error(call, PM_ERR_INVALID, "num_scan_inputs is %" PRId64, n_inputs);
    l.n_inputs = (size_t)n_inputs;
    l.n_carried = call->n_in - l.n_inputs;
    for (size_t i = 0; i < call->n_in; i++) {
        if (!call->in[i])
            return pm_onnx_error(call, PM_ERR_INVALID, "input %zu is missing", i);
    }
    if (call->node->n_output < l.n_carried)
        return pm_onnx_error(call, PM_ERR_INVALID, "has %zu outputs, needs at least %zu",
                             call->node->n_output, l.n_carried);
    l.n_scanned = call->node->n_output - l.n_carried;
    PM_TRY(check_subgraph(call, l.body, "body", call->n_in, call->node->n_output));
    l.initial = call->in;
    l.inputs = call->in + l.n_carried;
    PM_TRY(scan_inputs(call, &l));
    const int64_t yes = 1;
    PM_TRY(pm_build_const_ints(&call->b, PM_BOOL, 0, NULL, &yes, &l.condition));
    PM_TRY(build_loop(&l));
    return scan_outputs(call, &l);
}
