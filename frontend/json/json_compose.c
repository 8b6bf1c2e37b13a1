/// The node "compose": a PiMoE layer from a router and experts that may be unlike: a graph in place,
/// an ONNX file, another JSON graph, or the tensors of a checkpoint.
#include <inttypes.h>

#include "base/str.h"
#include "frontend/frontend.h"
#include "frontend/json/graph_import.h"
#include "frontend/json/json_graph.h"
#include "ir/op_table.h"

enum { MAX_EXPERTS = 65536 };

typedef struct compose {
    pm_jgraph *g;
    const pm_json *node, *experts;
    pm_value *x;    ///< as given: [..., D]
    pm_value *rows; ///< [M, D]
    pm_value *chosen, *weights;
    int64_t n_experts, top_k;
} compose;

// ---- the router ----

static pm_status router_scores(compose *c, const pm_json *router, pm_value **out)
{
    pm_jgraph *g = c->g;
    const pm_json *weight = pm_json_get(router, "weight"), *scores = pm_json_get(router, "scores");
    const pm_json *bias = pm_json_get(router, "bias");
    if ((weight == NULL) == (scores == NULL))
        return pm_jdoc_error(g->doc, router, PM_ERR_INVALID,
                             "a router has either 'weight' [experts, D] or 'scores' [M, experts]");
    if (scores != NULL)
        return pm_jgraph_value(g, scores, out);
    pm_value *operands[3] = {c->rows};
    PM_TRY(pm_jgraph_value(g, weight, &operands[1]));
    if (bias != NULL)
        PM_TRY(pm_jgraph_value(g, bias, &operands[2]));
    return pm_build1(&g->b, out, PM_OP_linear, operands, bias != NULL ? 3 : 2, PM_NO_ATTRS);
}

static pm_status build_route(compose *c)
{
    pm_jgraph *g = c->g;
    pm_jdoc *doc = g->doc;
    const pm_json *router;
    const char *act = "softmax", *weigh = "renorm", *group_score = "max";
    double eps = 0, scale = 1;
    int64_t groups = 1, keep = 1, n;
    PM_TRY(pm_jdoc_get(doc, c->node, "router", PM_JSON_OBJECT, &router));
    PM_TRY(pm_jdoc_keys(doc, router,
                        " weight bias scores select_bias act weigh eps scale groups keep_groups "
                        "group_score "));
    PM_TRY(pm_json_get_str(doc->diag, doc->path, router, "act", false, &act));
    PM_TRY(pm_json_get_str(doc->diag, doc->path, router, "weigh", false, &weigh));
    PM_TRY(pm_json_get_str(doc->diag, doc->path, router, "group_score", false, &group_score));
    PM_TRY(pm_json_get_f64(doc->diag, doc->path, router, "eps", false, &eps));
    PM_TRY(pm_json_get_f64(doc->diag, doc->path, router, "scale", false, &scale));
    PM_TRY(pm_json_get_i64(doc->diag, doc->path, router, "groups", false, &groups));
    PM_TRY(pm_json_get_i64(doc->diag, doc->path, router, "keep_groups", false, &keep));
    pm_value *scores, *select = NULL;
    const pm_json *select_json = pm_json_get(router, "select_bias");
    pm_jgraph_set_loc(g, router, "router", "compose");
    PM_TRY(router_scores(c, router, &scores));
    if (select_json != NULL)
        PM_TRY(pm_jgraph_value(g, select_json, &select));
    // an expert that the router can't choose, or one that doesn't exist, is a mistake of the model
    if (scores->type->rank == 2 &&
        (!pm_dim_is_const(doc->module, scores->type->dims[1], &n) || n != c->n_experts))
        return pm_jdoc_error(doc, router, PM_ERR_INVALID,
                             "the router scores %s experts, but there are %" PRId64,
                             pm_dim_text(doc->module, scores->type->dims[1]), c->n_experts);
    const pm_attr attrs[] = {
        pm_attr_i64("top_k", c->top_k),     pm_attr_str("act", act),
        pm_attr_str("weigh", weigh),        pm_attr_f64("eps", eps),
        pm_attr_f64("scale", scale),        pm_attr_i64("groups", groups),
        pm_attr_i64("keep_groups", keep),   pm_attr_str("group_score", group_score),
    };
    pm_op *route;
    PM_TRY(pm_build(&g->b, PM_OP_route, (pm_value *[]){scores, select}, select != NULL ? 2 : 1,
                    attrs, PM_COUNT(attrs), 0, &route));
    c->chosen = route->results[0];
    c->weights = route->results[1];
    return PM_OK;
}

// ---- experts ----

/// An inline graph: one input, the rows, whose type is known; nodes; one output.
static pm_status expert_graph(compose *c, const pm_json *json, pm_graph *region, pm_value *rows)
{
    pm_jdoc *doc = c->g->doc;
    pm_jgraph inner;
    const pm_json *input;
    PM_TRY(pm_jdoc_keys(doc, json, " input constants nodes outputs "));
    PM_TRY(pm_jdoc_get(doc, json, "input", PM_JSON_STRING, &input));
    PM_TRY(pm_jgraph_start(&inner, doc, region, pm_json_get(json, "constants")));
    PM_TRY(pm_jgraph_define(&inner, input, rows));
    return pm_jgraph_body(&inner, json);
}

/// The gated or plain block of a checkpoint: three or two of its tensors.
static pm_status expert_mlp(compose *c, const pm_json *json, pm_graph *region, pm_value *rows)
{
    pm_jdoc *doc = c->g->doc;
    pm_jgraph inner;
    const pm_json *up, *down, *gate = pm_json_get(json, "gate");
    const char *act = "silu";
    pm_opcode code;
    pm_value *weight, *y, *gated;
    PM_TRY(pm_jdoc_keys(doc, json, " gate up down act "));
    PM_TRY(pm_jdoc_get(doc, json, "up", PM_JSON_OBJECT, &up));
    PM_TRY(pm_jdoc_get(doc, json, "down", PM_JSON_OBJECT, &down));
    PM_TRY(pm_json_get_str(doc->diag, doc->path, json, "act", false, &act));
    if (!pm_opcode_parse(act, &code) ||
        (code != PM_OP_silu && code != PM_OP_gelu && code != PM_OP_relu && code != PM_OP_tanh &&
         code != PM_OP_sigmoid))
        return pm_jdoc_error(doc, pm_json_get(json, "act"), PM_ERR_INVALID,
                             "'act' must be silu, gelu, relu, tanh or sigmoid");
    PM_TRY(pm_jgraph_start(&inner, doc, region, NULL));
    pm_jgraph_set_loc(&inner, json, NULL, "mlp");
    PM_TRY(pm_jgraph_value(&inner, up, &weight));
    PM_TRY(pm_build1(&inner.b, &y, PM_OP_linear, PM_OPERANDS(rows, weight), PM_NO_ATTRS));
    if (gate != NULL) {
        PM_TRY(pm_jgraph_value(&inner, gate, &weight));
        PM_TRY(pm_build1(&inner.b, &gated, PM_OP_linear, PM_OPERANDS(rows, weight), PM_NO_ATTRS));
        PM_TRY(pm_build1(&inner.b, &gated, code, PM_OPERANDS(gated), PM_NO_ATTRS));
        PM_TRY(pm_build1(&inner.b, &y, PM_OP_mul, PM_OPERANDS(gated, y), PM_NO_ATTRS));
    } else {
        PM_TRY(pm_build1(&inner.b, &y, code, PM_OPERANDS(y), PM_NO_ATTRS));
    }
    PM_TRY(pm_jgraph_value(&inner, down, &weight));
    PM_TRY(pm_build1(&inner.b, &y, PM_OP_linear, PM_OPERANDS(y, weight), PM_NO_ATTRS));
    pm_graph_add_result(region, NULL, y, -1);
    return PM_OK;
}

static pm_status pick_result(compose *c, const pm_json *json, const pm_graph *entry,
                             const char *name, size_t *out)
{
    pm_jdoc *doc = c->g->doc;
    *out = 0;
    if (name == NULL && entry->results.n == 1)
        return PM_OK;
    for (size_t i = 0; name != NULL && i < entry->results.n; i++) {
        *out = i;
        if (entry->result_names.data[i] != NULL && strcmp(entry->result_names.data[i], name) == 0)
            return PM_OK;
    }
    return pm_jdoc_error(doc, json, PM_ERR_INVALID,
                         name == NULL ? "the model has %zu outputs: choose one by 'output'"
                                      : "the model's %zu outputs have none of that name",
                         entry->results.n);
}

/// A model in a file of its own: read as such, then copied into the region.
static pm_status expert_file(compose *c, const pm_json *json, const pm_json *path, bool is_onnx,
                             pm_graph *region, pm_value *rows)
{
    // a graph that is an expert names no further graphs: they could name one another
    static _Thread_local bool is_inner;
    pm_jdoc *doc = c->g->doc;
    pm_arena *arena = doc->module->arena;
    pm_loc loc = pm_json_loc(doc->path, path);
    const char *output = NULL;
    pm_module *model;
    pm_file *file;
    size_t index;
    if (path->kind != PM_JSON_STRING)
        return pm_jdoc_error(doc, path, PM_ERR_INVALID, "expected the name of a file");
    PM_TRY(pm_json_get_str(doc->diag, doc->path, json, "output", false, &output));
    // it must lie beneath, like everything that a model names; then it is read by its path
    PM_TRY(pm_file_open_beneath(arena, doc->diag, &loc, doc->dir, path->string, &file));
    if (!is_onnx && is_inner)
        return pm_jdoc_error(doc, path, PM_ERR_UNSUPPORTED,
                             "a JSON graph that is itself an expert can't name another one");
    const char *full = pm_path_join(arena, doc->dir, path->string);
    pm_status status;
    if (is_onnx) {
        status = pm_onnx_load(arena, doc->diag, full, &model);
    } else {
        is_inner = true;
        status = pm_json_graph_load(arena, doc->diag, full, &model);
        is_inner = false;
    }
    if (status != PM_OK) {
        pm_note(doc->diag, &loc, "this expert names it");
        return status;
    }
    const pm_graph *entry = model->entries.data[0];
    if (model->entries.n != 1 || entry->args.n != 1 || model->states.n != 0)
        return pm_jdoc_error(doc, path, PM_ERR_UNSUPPORTED,
                             "an expert must have one entry with one input, the rows; "
                             "this model has %zu entries, the first with %zu inputs",
                             model->entries.n, entry->args.n);
    PM_TRY(pick_result(c, path, entry, output, &index));
    pm_value **results = PM_NEW_ARRAY(doc->scratch, pm_value *, entry->results.n);
    pm_builder b = {.graph = region, .loc = pm_loc_intern(doc->module, &loc)};
    PM_TRY(pm_graph_import(&b, entry, &rows, results));
    pm_graph_add_result(region, NULL, results[index], -1);
    return PM_OK;
}

static pm_status build_expert(compose *c, const pm_json *json, pm_op *op)
{
    pm_jdoc *doc = c->g->doc;
    pm_module *m = doc->module;
    const pm_json *graph = pm_json_get(json, "graph"), *onnx = pm_json_get(json, "onnx");
    const pm_json *other = pm_json_get(json, "json"), *mlp = pm_json_get(json, "mlp");
    if (json->kind != PM_JSON_OBJECT ||
        (graph != NULL) + (onnx != NULL) + (other != NULL) + (mlp != NULL) != 1)
        return pm_jdoc_error(doc, json, PM_ERR_INVALID,
                             "an expert has one of 'graph', 'onnx', 'json', 'mlp'");
    PM_TRY(pm_jdoc_keys(doc, json, " name graph onnx json mlp output "));
    pm_graph *region = pm_region_create(op);
    pm_dim bound = pm_dim_mul(m, c->rows->type->dims[0], pm_dim_const(m, c->top_k));
    pm_dim dims[2] = {pm_dim_fresh(m, "n", bound), c->rows->type->dims[1]};
    pm_value *rows = pm_graph_add_arg(region, "rows",
                                      pm_type_get(m, c->rows->type->elem, 2, dims), -1);
    if (graph != NULL)
        PM_TRY(expert_graph(c, graph, region, rows));
    else if (mlp != NULL)
        PM_TRY(expert_mlp(c, mlp, region, rows));
    else
        PM_TRY(expert_file(c, json, onnx != NULL ? onnx : other, onnx != NULL, region, rows));
    if (region->results.n == 1)
        return PM_OK;
    return pm_jdoc_error(doc, json, PM_ERR_INVALID, "an expert has one output, found %zu",
                         region->results.n);
}

/// The experts' names, for the artifact's sections and reports.
static pm_status expert_names(compose *c, const char **out)
{
    pm_jdoc *doc = c->g->doc;
    pm_str list = pm_str_new(doc->scratch);
    for (size_t i = 0; i < c->experts->n; i++) {
        const char *name = pm_arena_printf(doc->scratch, "%zu", i);
        if (c->experts->items[i].kind == PM_JSON_OBJECT)
            PM_TRY(pm_json_get_str(doc->diag, doc->path, &c->experts->items[i], "name", false,
                                   &name));
        if (name[0] == '\0' || strchr(name, ',') != NULL)
            return pm_jdoc_error(doc, &c->experts->items[i], PM_ERR_INVALID,
                                 "an expert's name can't be empty or hold a comma");
        pm_str_printf(&list, "%s%s", i > 0 ? "," : "", name);
    }
    *out = list.data;
    return PM_OK;
}

static pm_status build_experts(compose *c, pm_op **out)
{
    pm_jgraph *g = c->g;
    pm_jdoc *doc = g->doc;
    const char *apply = "output", *name = "experts", *names = NULL;
    PM_TRY(pm_json_get_str(doc->diag, doc->path, c->node, "apply", false, &apply));
    PM_TRY(pm_json_get_str(doc->diag, doc->path, c->node, "name", false, &name));
    PM_TRY(expert_names(c, &names));
    const pm_attr attrs[] = {
        pm_attr_i64("experts", c->n_experts), pm_attr_i64("top_k", c->top_k),
        pm_attr_str("apply", apply),          pm_attr_str("name", name),
        pm_attr_str("names", names),
    };
    pm_jgraph_set_loc(g, c->node, name, "compose");
    PM_TRY(pm_op_create(g->b.graph, NULL, PM_OP_experts, g->b.loc,
                        (pm_value *[]){c->rows, c->chosen, c->weights}, 3, attrs, PM_COUNT(attrs),
                        1, 0, out));
    for (size_t i = 0; i < c->experts->n; i++)
        PM_TRY(build_expert(c, &c->experts->items[i], *out));
    return pm_op_infer(*out);
}

/// [..., D] as [M, D].
static pm_status flatten(compose *c)
{
    pm_module *m = c->g->doc->module;
    const pm_type *t = c->x->type;
    if (t->rank < 2)
        return pm_jdoc_error(c->g->doc, c->node, PM_ERR_INVALID,
                             "the rows must be [..., D], found %s", pm_type_text(m, t));
    pm_dim dims[2] = {t->dims[0], t->dims[t->rank - 1]};
    for (int32_t i = 1; i < t->rank - 1; i++)
        dims[0] = pm_dim_mul(m, dims[0], t->dims[i]);
    return pm_build_reshape_dims(&c->g->b, c->x, 2, dims, &c->rows);
}

pm_status pm_jgraph_compose(pm_jgraph *g, const pm_json *node)
{
    pm_jdoc *doc = g->doc;
    compose c = {.g = g, .node = node, .top_k = 1};
    const pm_json *in, *out;
    PM_TRY(pm_jdoc_keys(doc, node, " op in out name top_k apply router experts "));
    PM_TRY(pm_jdoc_get(doc, node, "in", PM_JSON_ARRAY, &in));
    PM_TRY(pm_jdoc_get(doc, node, "out", PM_JSON_ARRAY, &out));
    PM_TRY(pm_jdoc_get(doc, node, "experts", PM_JSON_ARRAY, &c.experts));
    PM_TRY(pm_json_get_i64(doc->diag, doc->path, node, "top_k", false, &c.top_k));
    if (in->n != 1 || out->n != 1)
        return pm_jdoc_error(doc, node, PM_ERR_INVALID, "compose has one operand and one result");
    if (c.experts->n < 2 || c.experts->n > MAX_EXPERTS)
        // one region would be the template of all experts
        return pm_jdoc_error(doc, c.experts, PM_ERR_INVALID,
                             "compose takes 2 to %d experts, found %zu", (int)MAX_EXPERTS,
                             c.experts->n);
    c.n_experts = (int64_t)c.experts->n;
    if (c.top_k < 1 || c.top_k > c.n_experts)
        return pm_jdoc_error(doc, node, PM_ERR_INVALID,
                             "top_k is %" PRId64 ", must be in [1, %" PRId64 "]", c.top_k,
                             c.n_experts);
    PM_TRY(pm_jgraph_value(g, &in->items[0], &c.x));
    PM_TRY(flatten(&c));
    PM_TRY(build_route(&c));
    pm_op *op;
    PM_TRY(build_experts(&c, &op));
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = c.x->type->rank;
    memcpy(dims, c.x->type->dims, (size_t)rank * sizeof *dims);
    dims[rank - 1] = op->results[0]->type->dims[1];
    pm_value *y;
    PM_TRY(pm_build_reshape_dims(&g->b, op->results[0], rank, dims, &y));
    return pm_jgraph_define(g, &out->items[0], y);
}
