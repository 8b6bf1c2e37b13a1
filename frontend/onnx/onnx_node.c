/* One node: its operator, inputs and outputs; calls of functions. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"
#include "ir/op_table.h"

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

pm_loc pm_onnx_node_loc(const pm_onnx_scope *scope, const Onnx__Node *node)
{
    pm_loc loc = {.file = scope->onnx->path,
                  .what = "node",
                  .name = node->name,
                  .detail = text_or_empty(node->op_type)};
    if (!loc.name || !*loc.name) {
        loc.what = "node of";
        loc.name = node->n_output ? node->output[0] : "";
    }
    if (scope->frame->caller)
        loc.from = scope->frame->loc;
    return loc;
}

static const pm_onnx_row *find_row(pm_onnx *onnx, const char *domain, const char *name,
                                   int64_t version, bool *out_other, const char **out_nearest)
{
    char key[256];
    int size = snprintf(key, sizeof key, "%s%c%s%c%" PRId64, domain, 1, name, 1, version);
    if (size < 0 || (size_t)size >= sizeof key)
        return pm_onnx_find_row(domain, name, version, out_other, out_nearest);
    const pm_onnx_row *row = pm_map_get(&onnx->rows, key, (size_t)size);
    if (!row) {
        row = pm_onnx_find_row(domain, name, version, out_other, out_nearest);
        if (row)
            pm_map_put(&onnx->rows, key, (size_t)size, (void *)row);
    }
    return row;
}

static pm_status unknown_op(pm_onnx_scope *scope, const Onnx__Node *node, size_t count)
{
    pm_onnx *onnx = scope->onnx;
    const char *domain = pm_onnx_domain(node->domain), *name = text_or_empty(node->op_type);
    int64_t version = pm_onnx_version(scope->frame, domain);
    bool other;
    const char *nearest;
    const pm_onnx_row *row = find_row(onnx, domain, name, version, &other, &nearest);
    pm_loc loc = pm_onnx_node_loc(scope, node);
    char nodes[32] = "";
    if (count > 1)
        snprintf(nodes, sizeof nodes, " (%zu nodes)", count);
    if (!*name)
        return pm_error(onnx->diag, &loc, PM_ERR_INVALID, "a node has no operator type");
    if (row)
        return pm_error(onnx->diag, &loc, PM_ERR_UNSUPPORTED,
                        "operator '%s' is not supported: %s%s", name, row->text, nodes);
    if (version < 0)
        return pm_error(onnx->diag, &loc, PM_ERR_INVALID,
                        "operator '%s': domain '%s' is not imported by the %s", name,
                        *domain ? domain : "ai.onnx",
                        scope->frame->function ? "function" : "model");
    if (other)
        return pm_error(onnx->diag, &loc, PM_ERR_INVALID,
                        "operator '%s' doesn't exist in version %" PRId64 " of its domain%s", name,
                        version, nodes);
    return pm_error(onnx->diag, &loc, PM_ERR_UNSUPPORTED,
                    "operator '%s'%s%s%s is not known%s%s%s%s", name, *domain ? " of domain '" : "",
                    domain, *domain ? "'" : "", nodes, nearest ? "; did you mean '" : "",
                    nearest ? nearest : "", nearest ? "'?" : "");
}

pm_onnx_handler pm_onnx_do_refuse, pm_onnx_do_dequantize_linear, pm_onnx_do_cast;

pm_status pm_onnx_check_ops(pm_onnx_scope *scope, Onnx__Node *const *nodes, size_t n)
{
    typedef struct missing {
        const Onnx__Node *first;
        size_t count;
    } missing;
    pm_onnx *onnx = scope->onnx;
    pm_map unknown;
    pm_map_init(&unknown, onnx->temp);
    for (size_t i = 0; i < n; i++) {
        const char *domain = pm_onnx_domain(nodes[i]->domain);
        const char *name = text_or_empty(nodes[i]->op_type);
        if (pm_onnx_function(onnx, domain, name, text_or_empty(nodes[i]->overload)))
            continue;
        bool other;
        const char *nearest;
        const pm_onnx_row *row = NULL;
        int64_t version = pm_onnx_version(scope->frame, domain);
        char key[256];
        int size = snprintf(key, sizeof key, "%s%c%s", domain, 1, name);
        bool cached = size > 0 && (size_t)size < sizeof key;
        missing *entry = cached ? pm_map_get(&unknown, key, (size_t)size) : NULL;
        if (entry) {
            entry->count++;
            continue;
        }
        if (version >= 0)
            row = find_row(onnx, domain, name, version, &other, &nearest);
        if (row && row->handler != pm_onnx_do_refuse)
            continue;
        entry = PM_NEW(onnx->temp, missing);
        *entry = (missing){nodes[i], 1};
        if (!cached)
            return unknown_op(scope, nodes[i], 1);
        pm_map_put(&unknown, key, (size_t)size, entry);
    }
    pm_status status = PM_OK;
    for (size_t i = 0; i < unknown.n; i++) {
        const missing *entry = unknown.entries[i].value;
        pm_status one = unknown_op(scope, entry->first, entry->count);
        if (status == PM_OK || one == PM_ERR_INVALID)
            status = one;
    }
    return status;
}

static pm_status read_inputs(pm_onnx_scope *scope, const pm_loc *loc, const Onnx__Node *node,
                             pm_value ***out_values, size_t *out_n)
{
    pm_value **values = PM_NEW_ARRAY(scope->onnx->temp, pm_value *, node->n_input);
    size_t n = 0;
    for (size_t i = 0; i < node->n_input; i++) {
        if (*node->input[i])
            PM_TRY(pm_onnx_coded_value(scope, loc, node->input[i], &values[i]));
        if (values[i])
            n = i + 1;
    }
    *out_values = values;
    *out_n = n; /* absent ones at the end don't count */
    return PM_OK;
}

/* Codes go to operators that decode them. */
static pm_status check_float8(pm_onnx_call *call)
{
    pm_onnx_handler *handler = call->row->handler;
    for (size_t i = 0; i < call->n_in; i++)
        if (pm_onnx_is_float8(call->onnx, call->in[i]) && handler != pm_onnx_do_dequantize_linear &&
            handler != pm_onnx_do_cast)
            return pm_onnx_unread_float8(call->scope, call->b.loc, call->node->input[i]);
    return PM_OK;
}

static void bind_outputs(pm_onnx_scope *scope, const pm_loc *loc, const Onnx__Node *node,
                         pm_value *const *values)
{
    for (size_t i = 0; i < node->n_output; i++) {
        const char *name = node->output[i];
        if (!*name)
            continue;
        pm_onnx_binding *binding = pm_map_get_str(&scope->names, name);
        binding->value = values[i];
        /* exporters name every output; only a use of one that we don't compute is an error */
        binding->refused_by = values[i] ? NULL : loc;
        if (values[i] && !values[i]->name)
            values[i]->name = pm_intern(scope->onnx->module, name);
    }
}

static size_t count_outputs(const Onnx__Node *node)
{
    size_t n = node->n_output;
    while (n && !*node->output[n - 1])
        n--;
    return n;
}

/* ---- functions ---- */

static pm_status check_call(pm_onnx_scope *scope, const pm_loc *loc, const Onnx__Node *node,
                            const Onnx__Function *function, size_t n_in)
{
    pm_diag *diag = scope->onnx->diag;
    for (const pm_onnx_frame *f = scope->frame; f->caller; f = f->caller) {
        if (f->function == function)
            return pm_error(diag, loc, PM_ERR_INVALID, "function '%s' calls itself",
                            function->name);
    }
    if (scope->depth >= PM_ONNX_MAX_INLINE)
        return pm_error(diag, loc, PM_ERR_UNSUPPORTED,
                        "functions and subgraphs are nested more than %d deep", PM_ONNX_MAX_INLINE);
    if (n_in > function->n_input)
        return pm_error(diag, loc, PM_ERR_INVALID, "function '%s' takes %zu inputs, but gets %zu",
                        function->name, function->n_input, n_in);
    if (count_outputs(node) > function->n_output)
        return pm_error(diag, loc, PM_ERR_INVALID,
                        "function '%s' gives %zu outputs, but %zu are taken", function->name,
                        function->n_output, count_outputs(node));
    return PM_OK;
}

static pm_status check_call_attrs(pm_onnx_scope *scope, const pm_loc *loc,
                                  const pm_onnx_frame *frame)
{
    const Onnx__Function *function = frame->function;
    for (size_t i = 0; i < frame->n_attrs; i++) {
        bool known = false;
        for (size_t k = 0; k < function->n_attribute && !known; k++)
            known = strcmp(function->attribute[k], frame->attrs[i]->name) == 0;
        for (size_t k = 0; k < function->n_attribute_proto && !known; k++)
            known = strcmp(text_or_empty(function->attribute_proto[k]->name),
                           frame->attrs[i]->name) == 0;
        if (!known)
            return pm_error(scope->onnx->diag, loc, PM_ERR_INVALID,
                            "function '%s' has no attribute '%s'", function->name,
                            frame->attrs[i]->name);
    }
    return PM_OK;
}

static pm_status inline_function(pm_onnx_scope *scope, const pm_loc *loc, const Onnx__Node *node,
                                 const Onnx__Function *function)
{
    pm_onnx *onnx = scope->onnx;
    pm_value **in;
    size_t n_in, n_attrs;
    PM_TRY(read_inputs(scope, loc, node, &in, &n_in));
    PM_TRY(check_call(scope, loc, node, function, n_in));
    Onnx__Attribute **attrs;
    PM_TRY(pm_onnx_resolve_attrs(onnx, scope->frame, loc, node, &attrs, &n_attrs));
    pm_onnx_frame frame = {
        .caller = scope->frame,
        .function = function,
        .opsets = function->opset_import,
        .n_opsets = function->n_opset_import,
        .attrs = attrs,
        .n_attrs = n_attrs,
        .loc = loc,
        .depth = scope->depth + 1,
    };
    PM_TRY(check_call_attrs(scope, loc, &frame));
    pm_onnx_scope body;
    pm_onnx_scope_init(&body, onnx, &frame, NULL, scope->graph);
    for (size_t i = 0; i < function->n_input; i++) {
        pm_onnx_binding *binding;
        PM_TRY(pm_onnx_declare(&body, loc, function->input[i], &binding));
        binding->value = i < n_in ? in[i] : NULL;
        binding->absent = !binding->value;
    }
    PM_TRY(pm_onnx_import_body(&body, loc, function->node, function->n_node, NULL, 0));
    pm_value **out = PM_NEW_ARRAY(onnx->temp, pm_value *, node->n_output);
    for (size_t i = 0; i < count_outputs(node); i++) {
        if (*node->output[i])
            PM_TRY(pm_onnx_value(&body, loc, function->output[i], &out[i]));
    }
    bind_outputs(scope, loc, node, out);
    return PM_OK;
}

/* ---- operators ---- */

static pm_status check_arity(pm_onnx_call *call)
{
    const pm_onnx_row *row = call->row;
    static const struct {
        const char *what;
    } kinds[] = {{"inputs"}, {"outputs"}};
    const size_t have[] = {call->n_in, call->n_out};
    const uint32_t lo[] = {row->min_in, row->min_out}, hi[] = {row->max_in, row->max_out};
    for (size_t i = 0; i < PM_COUNT(kinds); i++) {
        if (have[i] >= lo[i] && have[i] <= hi[i])
            continue;
        if (hi[i] == PM_ANY && have[i] > hi[i])
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "has %zu %s; the limit is %d", have[i], kinds[i].what,
                                 PM_ANY);
        if (hi[i] == PM_ANY)
            return pm_onnx_error(call, PM_ERR_INVALID, "has %zu %s, needs at least %" PRIu32,
                                 have[i], kinds[i].what, lo[i]);
        if (lo[i] == hi[i])
            return pm_onnx_error(call, PM_ERR_INVALID, "has %zu %s, needs %" PRIu32, have[i],
                                 kinds[i].what, lo[i]);
        return pm_onnx_error(call, PM_ERR_INVALID, "has %zu %s, needs %" PRIu32 " to %" PRIu32,
                             have[i], kinds[i].what, lo[i], hi[i]);
    }
    for (size_t i = 0; i < row->min_in; i++) {
        if (!call->in[i])
            return pm_onnx_error(call, PM_ERR_INVALID, "input %zu is missing", i);
    }
    return PM_OK;
}

/* What a node counts for where it may be imported many times: long attributes are copied, too. */
static uint64_t cost_of(const Onnx__Node *node)
{
    enum { ELEMENTS = 64 };
    uint64_t elements = 0;
    for (size_t i = 0; i < node->n_attribute; i++) {
        const Onnx__Attribute *attr = node->attribute[i];
        elements += attr->n_ints + attr->n_floats + attr->s.len / 8;
    }
    return 1 + elements / ELEMENTS;
}

pm_status pm_onnx_import_node(pm_onnx_scope *scope, const Onnx__Node *node)
{
    pm_onnx *onnx = scope->onnx;
    pm_loc place = pm_onnx_node_loc(scope, node);
    const pm_loc *loc = pm_loc_intern(onnx->module, &place);
    if (scope->frame->caller || scope->depth > 0)
        onnx->n_expanded += cost_of(node);
    if (onnx->n_expanded > PM_ONNX_MAX_EXPANDED)
        return pm_error(onnx->diag, loc, PM_ERR_UNSUPPORTED,
                        "functions and subgraphs expand to more than %d nodes",
                        PM_ONNX_MAX_EXPANDED);
    const char *domain = pm_onnx_domain(node->domain), *name = text_or_empty(node->op_type);
    const Onnx__Function *function =
        pm_onnx_function(onnx, domain, name, text_or_empty(node->overload));
    if (function)
        return inline_function(scope, loc, node, function);
    bool other;
    const char *nearest;
    pm_onnx_call call = {.onnx = onnx,
                         .scope = scope,
                         .node = node,
                         .b = {.graph = scope->graph, .loc = loc},
                         .n_out = count_outputs(node)};
    call.row =
        find_row(onnx, domain, name, pm_onnx_version(scope->frame, domain), &other, &nearest);
    PM_ASSERT(call.row); /* pm_onnx_check_ops has looked */
    PM_TRY(read_inputs(scope, loc, node, &call.in, &call.n_in));
    PM_TRY(check_arity(&call));
    PM_TRY(check_float8(&call));
    PM_TRY(pm_onnx_read_attrs(&call));
    call.out = PM_NEW_ARRAY(onnx->temp, pm_value *, node->n_output);
    PM_TRY(call.row->handler(&call));
    bind_outputs(scope, loc, node, call.out);
    return PM_OK;
}
