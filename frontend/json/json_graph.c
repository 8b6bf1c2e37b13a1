/// The JSON graph format: docs/json-graph.md.
#include "frontend/json/json_graph.h"

#include <inttypes.h>
#include <math.h>

#include "base/str.h"
#include "frontend/frontend.h"
#include "ir/op_table.h"
#include "ir/text.h"

enum {
    FORMAT_VERSION = 1,
    MAX_FILE = 256 << 20,
    MAX_RESULTS = 4096,
    MAX_OPERANDS = 65536,
    MAX_SHOWN = 1 << 20,
};

// ---- documents ----

pm_status pm_jdoc_error(pm_jdoc *doc, const pm_json *at, pm_status code, const char *fmt, ...)
{
    pm_loc loc = pm_json_loc(doc->path, at);
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(doc->scratch, fmt, ap);
    va_end(ap);
    return pm_error(doc->diag, &loc, code, "%s", text);
}

pm_status pm_jdoc_keys(pm_jdoc *doc, const pm_json *object, const char *allowed)
{
    enum { MAX_WORDS = 32 };
    for (size_t i = 0; i < object->n; i++) {
        const char *word = pm_arena_printf(doc->scratch, " %s ", object->keys[i]);
        if (strstr(allowed, word) != NULL && strchr(object->keys[i], ' ') == NULL)
            continue;
        const char *words[MAX_WORDS];
        size_t n = 0;
        char *rest = pm_arena_strdup(doc->scratch, allowed), *save = NULL;
        for (char *w = strtok_r(rest, " ", &save); w != NULL && n < MAX_WORDS;
             w = strtok_r(NULL, " ", &save))
            words[n++] = w;
        const char *near = pm_nearest(object->keys[i], words, n);
        return pm_jdoc_error(doc, &object->items[i], PM_ERR_INVALID, "unknown key '%.60s'%s%s%s",
                             object->keys[i], near != NULL ? "; did you mean '" : "",
                             near != NULL ? near : "", near != NULL ? "'?" : "");
    }
    return PM_OK;
}

pm_status pm_jdoc_get(pm_jdoc *doc, const pm_json *object, const char *key, pm_json_kind kind,
                      const pm_json **out)
{
    static const char *const names[] = {"null", "true or false", "a number",
                                        "a string", "a list", "an object"};
    *out = pm_json_get(object, key);
    if (*out == NULL)
        return pm_jdoc_error(doc, object, PM_ERR_INVALID, "the key '%s' is missing", key);
    if ((*out)->kind != kind)
        return pm_jdoc_error(doc, *out, PM_ERR_INVALID, "'%s' must be %s", key, names[kind]);
    return PM_OK;
}

pm_status pm_jdoc_dims(pm_jdoc *doc, const pm_json *list, int32_t *out_rank, pm_dim *out_dims)
{
    if (list->kind != PM_JSON_ARRAY)
        return pm_jdoc_error(doc, list, PM_ERR_INVALID, "'dims' must be a list");
    if (list->n > PM_MAX_RANK)
        return pm_jdoc_error(doc, list, PM_ERR_UNSUPPORTED, "more than %d dims",
                             (int)PM_MAX_RANK);
    *out_rank = (int32_t)list->n;
    for (size_t i = 0; i < list->n; i++) {
        const pm_json *dim = &list->items[i];
        if (dim->kind == PM_JSON_STRING) {
            out_dims[i] = pm_dim_find(doc->module, dim->string);
            if (out_dims[i] == PM_DIM_NONE)
                return pm_jdoc_error(doc, dim, PM_ERR_INVALID,
                                     "the symbol '%.60s' isn't in 'symbols'", dim->string);
        } else if (dim->kind == PM_JSON_NUMBER && dim->is_int && dim->integer >= 0) {
            out_dims[i] = pm_dim_const(doc->module, dim->integer);
        } else {
            return pm_jdoc_error(doc, dim, PM_ERR_INVALID,
                                 "an extent must be an integer from 0 on, or a symbol");
        }
    }
    return PM_OK;
}

static pm_status read_symbols(pm_jdoc *doc)
{
    const pm_json *symbols = pm_json_get(doc->root, "symbols");
    if (symbols != NULL && symbols->kind != PM_JSON_OBJECT)
        return pm_jdoc_error(doc, symbols, PM_ERR_INVALID, "'symbols' must be an object");
    for (size_t i = 0; symbols != NULL && i < symbols->n; i++) {
        const pm_json *range = &symbols->items[i];
        bool is_range = range->kind == PM_JSON_ARRAY && range->n == 2;
        for (size_t k = 0; is_range && k < 2; k++)
            is_range = range->items[k].kind == PM_JSON_NUMBER && range->items[k].is_int;
        if (!is_range || range->items[0].integer < 0 ||
            range->items[0].integer > range->items[1].integer)
            return pm_jdoc_error(doc, range, PM_ERR_INVALID,
                                 "a symbol's range must be [lowest, highest]");
        if (symbols->keys[i][0] == '\0')
            return pm_jdoc_error(doc, range, PM_ERR_INVALID, "a symbol needs a name");
        (void)pm_dim_symbol(doc->module, symbols->keys[i], range->items[0].integer,
                            range->items[1].integer);
    }
    return PM_OK;
}

// ---- values ----

void pm_jgraph_set_loc(pm_jgraph *g, const pm_json *json, const char *name, const char *op)
{
    pm_loc loc = pm_json_loc(g->doc->path, json);
    loc.what = "node";
    loc.name = name;
    loc.detail = op;
    if (name == NULL)
        loc.what = NULL;
    g->b.loc = pm_loc_intern(g->doc->module, &loc);
}

/// Constants by name, so that finding one doesn't read the list.
static pm_status index_constants(pm_jdoc *doc, pm_map *map, const pm_json *constants)
{
    pm_map_init(map, doc->scratch);
    if (constants == NULL)
        return PM_OK;
    if (constants->kind != PM_JSON_OBJECT)
        return pm_jdoc_error(doc, constants, PM_ERR_INVALID, "'constants' must be an object");
    for (size_t i = 0; i < constants->n; i++)
        pm_map_put_str(map, constants->keys[i], (void *)(uintptr_t)&constants->items[i]);
    return PM_OK;
}

pm_status pm_jgraph_start(pm_jgraph *g, pm_jdoc *doc, pm_graph *graph, const pm_json *constants)
{
    *g = (pm_jgraph){.doc = doc};
    g->b.graph = graph;
    pm_map_init(&g->values, doc->scratch);
    return index_constants(doc, &g->constants, constants);
}

static const pm_json *find_constant(const pm_jgraph *g, const char *name)
{
    const pm_json *constant = pm_map_get_str(&g->constants, name);
    return constant != NULL ? constant : pm_map_get_str(&g->doc->constants, name);
}

pm_status pm_jgraph_define(pm_jgraph *g, const pm_json *name, pm_value *value)
{
    if (name->kind != PM_JSON_STRING || name->string[0] == '\0')
        return pm_jdoc_error(g->doc, name, PM_ERR_INVALID, "a value needs a name");
    if (pm_map_get_str(&g->values, name->string) != NULL || find_constant(g, name->string) != NULL)
        return pm_jdoc_error(g->doc, name, PM_ERR_INVALID, "the name '%.60s' is taken",
                             name->string);
    if (value->name == NULL)
        value->name = pm_intern(g->doc->module, name->string);
    pm_map_put_str(&g->values, name->string, value);
    return PM_OK;
}

static pm_status unknown_value(pm_jgraph *g, const pm_json *json)
{
    const pm_map *maps[] = {&g->values, &g->constants, &g->doc->constants};
    size_t n = 0;
    for (size_t i = 0; i < PM_COUNT(maps); i++)
        n += maps[i]->n;
    const char **names = PM_NEW_ARRAY(g->doc->scratch, const char *, n);
    n = 0;
    for (size_t i = 0; i < PM_COUNT(maps); i++)
        for (size_t k = 0; k < maps[i]->n; k++)
            names[n++] = maps[i]->entries[k].key;
    const char *near = pm_nearest(json->string, names, n);
    return pm_jdoc_error(g->doc, json, PM_ERR_INVALID,
                         "no value '%.60s' before this node%s%s%s", json->string,
                         near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                         near != NULL ? "'?" : "");
}

pm_status pm_jgraph_value(pm_jgraph *g, const pm_json *json, pm_value **out)
{
    const pm_loc *loc = g->b.loc;
    *out = NULL;
    if (json->kind == PM_JSON_OBJECT) {
        PM_TRY(pm_jgraph_const(g, json, NULL, out));
        g->b.loc = loc;
        return PM_OK;
    }
    if (json->kind != PM_JSON_STRING)
        return pm_jdoc_error(g->doc, json, PM_ERR_INVALID,
                             "expected the name of a value, or a constant");
    *out = pm_map_get_str(&g->values, json->string);
    if (*out != NULL)
        return PM_OK;
    const pm_json *constant = find_constant(g, json->string);
    if (constant == NULL)
        return unknown_value(g, json);
    PM_TRY(pm_jgraph_const(g, constant, json->string, out));
    pm_map_put_str(&g->values, json->string, *out);
    g->b.loc = loc;
    return PM_OK;
}

// ---- nodes ----

static pm_status read_numbers(pm_jdoc *doc, const pm_json *json, pm_attr_kind kind, pm_attr *attr)
{
    if (json->kind != PM_JSON_ARRAY)
        return pm_jdoc_error(doc, json, PM_ERR_INVALID, "'%s' must be a list of numbers",
                             attr->key);
    int64_t *ints = PM_NEW_ARRAY(doc->scratch, int64_t, json->n);
    double *floats = PM_NEW_ARRAY(doc->scratch, double, json->n);
    for (size_t i = 0; i < json->n; i++) {
        const pm_json *item = &json->items[i];
        if (item->kind != PM_JSON_NUMBER || (kind == PM_ATTR_INTS && !item->is_int))
            return pm_jdoc_error(doc, item, PM_ERR_INVALID, "expected %s",
                                 kind == PM_ATTR_INTS ? "an integer" : "a number");
        ints[i] = item->integer;
        floats[i] = item->number;
    }
    *attr = kind == PM_ATTR_INTS ? pm_attr_ints(attr->key, ints, json->n)
                                 : pm_attr_floats(attr->key, floats, json->n);
    return PM_OK;
}

static pm_status read_attr(pm_jdoc *doc, const pm_json *json, pm_attr_kind kind, pm_attr *attr)
{
    const char *key = attr->key;
    pm_elem elem;
    switch (kind) {
    case PM_ATTR_I64:
        if (json->kind != PM_JSON_NUMBER || !json->is_int)
            break;
        *attr = pm_attr_i64(key, json->integer);
        return PM_OK;
    case PM_ATTR_F64:
        if (json->kind != PM_JSON_NUMBER)
            break;
        *attr = pm_attr_f64(key, json->number);
        return PM_OK;
    case PM_ATTR_BOOL:
        if (json->kind != PM_JSON_BOOL)
            break;
        *attr = pm_attr_bool(key, json->boolean);
        return PM_OK;
    case PM_ATTR_STR:
        if (json->kind != PM_JSON_STRING)
            break;
        *attr = pm_attr_str(key, json->string);
        return PM_OK;
    case PM_ATTR_ELEM:
        if (json->kind != PM_JSON_STRING || !pm_elem_parse(json->string, &elem))
            break;
        *attr = pm_attr_elem(key, elem);
        return PM_OK;
    case PM_ATTR_INTS:
    case PM_ATTR_FLOATS: return read_numbers(doc, json, kind, attr);
    case PM_ATTR_DATA: break;
    }
    return pm_jdoc_error(doc, json, PM_ERR_INVALID, "the attribute '%s' must be of kind %s", key,
                         pm_attr_kind_name(kind));
}

static pm_status read_attrs(pm_jdoc *doc, const pm_json *json, pm_opcode code, pm_attr *attrs,
                            size_t *out_n)
{
    pm_attr_decl decls[PM_MAX_ATTRS];
    size_t n_decls = pm_op_attr_decls(code, decls);
    const char *names[PM_MAX_ATTRS];
    *out_n = 0;
    if (json == NULL)
        return PM_OK;
    if (json->kind != PM_JSON_OBJECT)
        return pm_jdoc_error(doc, json, PM_ERR_INVALID, "'attrs' must be an object");
    for (size_t k = 0; k < n_decls; k++)
        names[k] = decls[k].key;
    for (size_t i = 0; i < json->n; i++) {
        size_t k = 0;
        while (k < n_decls && strcmp(decls[k].key, json->keys[i]) != 0)
            k++;
        if (k == n_decls) {
            const char *near = pm_nearest(json->keys[i], names, n_decls);
            return pm_jdoc_error(doc, &json->items[i], PM_ERR_INVALID,
                                 "%s has no attribute '%.60s'%s%s%s", pm_op_table[code].name,
                                 json->keys[i], near != NULL ? "; did you mean '" : "",
                                 near != NULL ? near : "", near != NULL ? "'?" : "");
        }
        attrs[*out_n].key = decls[k].key; // keys are unique in JSON: at most n_decls
        PM_TRY(read_attr(doc, &json->items[i], decls[k].kind, &attrs[*out_n]));
        (*out_n)++;
    }
    return PM_OK;
}

static pm_status read_operands(pm_jgraph *g, const pm_json *node, pm_value ***out, size_t *out_n)
{
    const pm_json *in = pm_json_get(node, "in");
    *out_n = 0;
    *out = NULL;
    if (in == NULL)
        return PM_OK;
    if (in->kind != PM_JSON_ARRAY || in->n > MAX_OPERANDS)
        return pm_jdoc_error(g->doc, in, PM_ERR_INVALID, "'in' must be a list of values");
    *out = PM_NEW_ARRAY(g->doc->scratch, pm_value *, in->n);
    for (size_t i = 0; i < in->n; i++)
        if (in->items[i].kind != PM_JSON_NULL) // an optional operand that is absent
            PM_TRY(pm_jgraph_value(g, &in->items[i], &(*out)[i]));
    *out_n = in->n;
    return PM_OK;
}

static pm_status read_regions(pm_jgraph *g, pm_op *op, const pm_json *regions)
{
    for (size_t i = 0; i < regions->n; i++) {
        const pm_json *json = &regions->items[i];
        pm_jgraph inner;
        if (json->kind != PM_JSON_OBJECT)
            return pm_jdoc_error(g->doc, json, PM_ERR_INVALID, "a region must be an object");
        PM_TRY(pm_jdoc_keys(g->doc, json, " inputs constants nodes outputs "));
        PM_TRY(pm_jgraph_start(&inner, g->doc, pm_region_create(op),
                               pm_json_get(json, "constants")));
        PM_TRY(pm_jgraph_inputs(&inner, json));
        PM_TRY(pm_jgraph_body(&inner, json)); // depth is bounded by the JSON reader
    }
    return PM_OK;
}

static pm_status find_op(pm_jgraph *g, const pm_json *name, pm_opcode *out)
{
    if (pm_opcode_parse(name->string, out))
        return PM_OK;
    const char *names[PM_OP_COUNT + 1];
    for (size_t i = 0; i < PM_OP_COUNT; i++)
        names[i] = pm_op_table[i].name;
    names[PM_OP_COUNT] = "compose";
    const char *near = pm_nearest(name->string, names, PM_OP_COUNT + 1);
    return pm_jdoc_error(g->doc, name, PM_ERR_INVALID, "unknown op '%.60s'%s%s%s", name->string,
                         near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                         near != NULL ? "'?" : "");
}

/// The node "dims": extents as i64[n].
static pm_status build_dims(pm_jgraph *g, const pm_json *node, const pm_json *out_list)
{
    const pm_json *list;
    pm_dim dims[PM_MAX_RANK];
    int32_t n;
    pm_value *value;
    PM_TRY(pm_jdoc_keys(g->doc, node, " op dims out "));
    PM_TRY(pm_jdoc_get(g->doc, node, "dims", PM_JSON_ARRAY, &list));
    PM_TRY(pm_jdoc_dims(g->doc, list, &n, dims));
    if (out_list->n != 1)
        return pm_jdoc_error(g->doc, out_list, PM_ERR_INVALID, "dims has one result");
    PM_TRY(pm_build_dims(&g->b, n, dims, &value));
    return pm_jgraph_define(g, &out_list->items[0], value);
}

static pm_status build_node(pm_jgraph *g, const pm_json *node)
{
    pm_jdoc *doc = g->doc;
    const pm_json *name, *out;
    if (node->kind != PM_JSON_OBJECT)
        return pm_jdoc_error(doc, node, PM_ERR_INVALID, "a node must be an object");
    PM_TRY(pm_jdoc_get(doc, node, "op", PM_JSON_STRING, &name));
    PM_TRY(pm_jdoc_get(doc, node, "out", PM_JSON_ARRAY, &out));
    const char *first = out->n > 0 && out->items[0].kind == PM_JSON_STRING ? out->items[0].string
                                                                           : NULL;
    pm_jgraph_set_loc(g, node, first, name->string);
    if (strcmp(name->string, "compose") == 0)
        return pm_jgraph_compose(g, node);
    pm_opcode code;
    PM_TRY(find_op(g, name, &code));
    if (code == PM_OP_dims)
        return build_dims(g, node, out);
    PM_TRY(pm_jdoc_keys(doc, node, " op in out attrs regions "));
    if (code == PM_OP_const || code == PM_OP_fused || code == PM_OP_pack)
        return pm_jdoc_error(doc, name, PM_ERR_INVALID,
                             "the op '%s' can't be written as a node%s", name->string,
                             code == PM_OP_const ? "; use 'constants'" : "");
    pm_value **operands;
    pm_attr attrs[PM_MAX_ATTRS];
    size_t n_operands, n_attrs;
    if (out->n > MAX_RESULTS)
        return pm_jdoc_error(doc, out, PM_ERR_UNSUPPORTED, "more than %d results",
                             (int)MAX_RESULTS);
    PM_TRY(read_operands(g, node, &operands, &n_operands));
    PM_TRY(read_attrs(doc, pm_json_get(node, "attrs"), code, attrs, &n_attrs));
    const pm_json *regions = pm_json_get(node, "regions");
    if (regions != NULL && regions->kind != PM_JSON_ARRAY)
        return pm_jdoc_error(doc, regions, PM_ERR_INVALID, "'regions' must be a list");
    pm_op *op;
    PM_TRY(pm_op_create(g->b.graph, NULL, code, g->b.loc, operands, n_operands, attrs, n_attrs,
                        out->n, regions != NULL ? regions->n : 0, &op));
    if (regions != NULL)
        PM_TRY(read_regions(g, op, regions));
    PM_TRY(pm_op_infer(op));
    for (size_t i = 0; i < out->n; i++)
        PM_TRY(pm_jgraph_define(g, &out->items[i], op->results[i]));
    return PM_OK;
}

// ---- graphs ----

pm_status pm_jgraph_inputs(pm_jgraph *g, const pm_json *json)
{
    pm_jdoc *doc = g->doc;
    const pm_json *inputs;
    PM_TRY(pm_jdoc_get(doc, json, "inputs", PM_JSON_ARRAY, &inputs));
    for (size_t i = 0; i < inputs->n; i++) {
        const pm_json *input = &inputs->items[i], *name, *type, *list;
        pm_dim dims[PM_MAX_RANK];
        int32_t rank;
        pm_elem elem;
        PM_TRY(pm_jdoc_get(doc, input, "name", PM_JSON_STRING, &name));
        PM_TRY(pm_jdoc_get(doc, input, "type", PM_JSON_STRING, &type));
        PM_TRY(pm_jdoc_get(doc, input, "dims", PM_JSON_ARRAY, &list));
        PM_TRY(pm_jdoc_keys(doc, input, " name type dims "));
        if (!pm_elem_parse(type->string, &elem))
            return pm_jdoc_error(doc, type, PM_ERR_INVALID, "unknown element type '%.40s'",
                                 type->string);
        PM_TRY(pm_jdoc_dims(doc, list, &rank, dims));
        pm_value *arg = pm_graph_add_arg(g->b.graph, name->string,
                                         pm_type_get(doc->module, elem, rank, dims), -1);
        PM_TRY(pm_jgraph_define(g, name, arg));
    }
    return PM_OK;
}

/// An output is the name of a value, or {"name", "value"}.
static pm_status build_output(pm_jgraph *g, const pm_json *output)
{
    const pm_json *name = output, *value_name = output;
    pm_value *value;
    if (output->kind == PM_JSON_OBJECT) {
        PM_TRY(pm_jdoc_keys(g->doc, output, " name value "));
        PM_TRY(pm_jdoc_get(g->doc, output, "name", PM_JSON_STRING, &name));
        PM_TRY(pm_jdoc_get(g->doc, output, "value", PM_JSON_STRING, &value_name));
    } else if (output->kind != PM_JSON_STRING) {
        return pm_jdoc_error(g->doc, output, PM_ERR_INVALID, "expected the name of a value");
    }
    pm_jgraph_set_loc(g, output, name->string, "output");
    PM_TRY(pm_jgraph_value(g, value_name, &value));
    pm_graph_add_result(g->b.graph, name->string, value, -1);
    return PM_OK;
}

pm_status pm_jgraph_body(pm_jgraph *g, const pm_json *json)
{
    pm_jdoc *doc = g->doc;
    const pm_json *nodes, *outputs;
    PM_TRY(pm_jdoc_get(doc, json, "nodes", PM_JSON_ARRAY, &nodes));
    PM_TRY(pm_jdoc_get(doc, json, "outputs", PM_JSON_ARRAY, &outputs));
    for (size_t i = 0; i < nodes->n; i++)
        PM_TRY(build_node(g, &nodes->items[i]));
    for (size_t i = 0; i < outputs->n; i++)
        PM_TRY(build_output(g, &outputs->items[i]));
    return PM_OK;
}

static pm_status build_entry(pm_jdoc *doc, const pm_json *json, const char *name)
{
    pm_jgraph g;
    const pm_json *constants = json == doc->root ? NULL : pm_json_get(json, "constants");
    PM_TRY(pm_jgraph_start(&g, doc, pm_entry_create(doc->module, name), constants));
    PM_TRY(pm_jgraph_inputs(&g, json));
    return pm_jgraph_body(&g, json);
}

static pm_status build_document(pm_jdoc *doc)
{
    const pm_json *root = doc->root;
    int64_t version = 0;
    const char *name = NULL;
    if (root->kind != PM_JSON_OBJECT || pm_json_get(root, "pimoe") == NULL)
        return pm_jdoc_error(doc, root, PM_ERR_INVALID,
                             "not a JSON graph: expected an object with the key 'pimoe'");
    PM_TRY(pm_json_get_i64(doc->diag, doc->path, root, "pimoe", true, &version));
    if (version != FORMAT_VERSION)
        return pm_jdoc_error(doc, pm_json_get(root, "pimoe"), PM_ERR_UNSUPPORTED,
                             "version %" PRId64 " of the format; this compiler reads %d", version,
                             (int)FORMAT_VERSION);
    PM_TRY(pm_jdoc_keys(doc, root,
                        " pimoe $schema about name symbols constants inputs nodes outputs entries "));
    PM_TRY(pm_json_get_str(doc->diag, doc->path, root, "name", false, &name));
    if (name != NULL)
        doc->module->name = pm_intern(doc->module, name);
    PM_TRY(index_constants(doc, &doc->constants, pm_json_get(root, "constants")));
    PM_TRY(read_symbols(doc));
    const pm_json *entries = pm_json_get(root, "entries");
    if (entries == NULL)
        return build_entry(doc, root, "main");
    if (entries->kind != PM_JSON_OBJECT || entries->n == 0 || pm_json_get(root, "nodes") != NULL)
        return pm_jdoc_error(doc, entries, PM_ERR_INVALID,
                             "'entries' must be an object of graphs, in place of one graph");
    for (size_t i = 0; i < entries->n; i++) {
        if (entries->items[i].kind != PM_JSON_OBJECT)
            return pm_jdoc_error(doc, &entries->items[i], PM_ERR_INVALID,
                                 "an entry must be an object");
        PM_TRY(pm_jdoc_keys(doc, &entries->items[i], " inputs constants nodes outputs "));
        PM_TRY(build_entry(doc, &entries->items[i], entries->keys[i]));
    }
    return PM_OK;
}

static pm_status load(pm_jdoc *doc)
{
    pm_file *file;
    pm_loc loc = {.file = doc->path};
    PM_TRY(pm_file_open(doc->scratch, doc->diag, doc->path, &file));
    if (file->size > MAX_FILE)
        return pm_error(doc->diag, &loc, PM_ERR_UNSUPPORTED, "larger than %d bytes", (int)MAX_FILE);
    char *text = pm_arena_alloc(doc->scratch, file->size + 1, 1);
    PM_TRY(pm_file_read(doc->diag, file, 0, text, file->size));
    if (file->size <= MAX_SHOWN) // errors show the line, also those of passes that run later
        pm_diag_source(doc->diag, doc->path, text, file->size);
    PM_TRY(pm_json_parse(doc->scratch, doc->diag, doc->path, text, file->size, &doc->root));
    PM_TRY(build_document(doc));
    return pm_module_verify(doc->module);
}

pm_status pm_json_graph_load(pm_arena *arena, pm_diag *diag, const char *path,
                             pm_module **out_module)
{
    pm_jdoc doc = {
        .scratch = pm_arena_child(arena),
        .diag = diag,
        .path = pm_arena_strdup(arena, path),
        .dir = pm_path_dir(arena, path),
    };
    const char *slash = strrchr(path, '/');
    *out_module = NULL;
    doc.module = pm_module_create(arena, diag, slash != NULL ? slash + 1 : path);
    pm_map_init(&doc.sets, doc.scratch);
    pm_status status = load(&doc);
    pm_arena_destroy(doc.scratch);
    if (status == PM_OK)
        *out_module = doc.module;
    return status;
}
