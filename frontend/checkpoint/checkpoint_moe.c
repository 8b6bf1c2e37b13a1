/// The mixture-of-experts step: a router and one region that serves as the template of all experts.
#include <inttypes.h>
#include <math.h>

#include "frontend/checkpoint/checkpoint_build.h"
#include "ir/op_table.h"

typedef struct moe {
    pm_value *x;    ///< as the step got it
    pm_value *rows; ///< [M, D]
    pm_value *chosen, *weights;
    int64_t experts, top_k, width;
    int64_t identity; ///< more experts that the router knows, and that return what they get
} moe;

/// "x": what the router looks at, when that isn't what the experts get.
static pm_status read_router_rows(pm_ckpt_step *step, const pm_json *router, const moe *m,
                                  pm_value **inout_rows, int64_t *inout_width)
{
    pm_ckpt *c = step->c;
    const char *name = "";
    PM_TRY(pm_step_str(step, router, "x", &name));
    if (name[0] == '\0')
        return PM_OK;
    pm_value *x = pm_ckpt_value(c, name);
    if (x == NULL || x->type->rank != 3 ||
        !pm_dim_is_const(c->module, x->type->dims[2], inout_width))
        return pm_step_fault(step, "there is no value '%s' [batch, tokens, width]", name);
    pm_dim flat[2] = {m->rows->type->dims[0], x->type->dims[2]};
    return pm_build_reshape_dims(&c->b, x, 2, flat, inout_rows);
}

/// "weigh_by": an op on the scores, which weighs experts that were chosen by another.
static pm_status weigh_by(pm_ckpt_step *step, const pm_json *router, pm_value *scores,
                          pm_value **out)
{
    const char *name = "";
    pm_opcode code;
    PM_TRY(pm_step_str(step, router, "weigh_by", &name));
    if (name[0] == '\0')
        return PM_OK;
    if (!pm_opcode_parse(name, &code) || pm_op_table[code].min_in != 1)
        return pm_step_fault(step, "'%s' isn't an op of one operand", name);
    return pm_build1(&step->c->b, out, code, PM_OPERANDS(scores), PM_NO_ATTRS);
}

/// "expert_scale": a factor for each expert's weights.
static pm_status scale_experts(pm_ckpt_step *step, const pm_json *router, moe *m)
{
    pm_ckpt *c = step->c;
    pm_value *scales, *chosen;
    PM_TRY(pm_ckpt_weight(step, pm_json_get(router, "expert_scale"), 1, &m->experts, true,
                          &scales));
    if (scales == NULL)
        return PM_OK;
    PM_TRY(pm_build1(&c->b, &chosen, PM_OP_gather, PM_OPERANDS(scales, m->chosen), PM_NO_ATTRS));
    return pm_build1(&c->b, &m->weights, PM_OP_mul, PM_OPERANDS(m->weights, chosen), PM_NO_ATTRS);
}

static pm_status build_route(pm_ckpt_step *step, moe *m)
{
    pm_ckpt *c = step->c;
    const pm_json *router = pm_json_get(step->json, "router");
    const char *act = "softmax", *weigh = "renorm", *group_score = "max", *choose = "topk";
    double eps = 0, scale = 1, least = 0, jitter = 0.01;
    int64_t groups = 1, keep_groups = 1;
    PM_TRY(pm_step_str(step, router, "act", &act));
    PM_TRY(pm_step_str(step, router, "weigh", &weigh));
    PM_TRY(pm_step_str(step, router, "group_score", &group_score));
    PM_TRY(pm_step_number(step, router, "eps", &eps));
    PM_TRY(pm_step_number(step, router, "scale", &scale));
    PM_TRY(pm_step_str(step, router, "select", &choose));
    PM_TRY(pm_step_number(step, router, "jitter", &jitter));
    PM_TRY(pm_step_number(step, router, "least", &least));
    PM_TRY(pm_step_int(step, router, "groups", 1, &groups));
    PM_TRY(pm_step_int(step, router, "keep_groups", 1, &keep_groups));
    pm_value *weight, *bias, *select, *scores, *rows = m->rows, *by = NULL;
    int64_t dims[2] = {m->experts + m->identity, m->width};
    PM_TRY(read_router_rows(step, router, m, &rows, &dims[1]));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(router, "select_bias"), 1, dims, true, &select));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(router, "bias"), 1, dims, true, &bias));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(router, "weight"), 2, dims, false, &weight));
    if (weight == NULL)
        return pm_step_fault(step, "a router needs a weight");
    PM_TRY(pm_build1(&c->b, &scores, PM_OP_linear, (pm_value *[]){rows, weight, bias},
                     bias != NULL ? 3 : 2, PM_NO_ATTRS));
    PM_TRY(weigh_by(step, router, scores, &by));
    const pm_attr attrs[] = {
        pm_attr_i64("top_k", m->top_k),       pm_attr_str("act", act),
        pm_attr_str("weigh", weigh),          pm_attr_f64("eps", eps),
        pm_attr_f64("scale", scale),          pm_attr_i64("groups", groups),
        pm_attr_i64("keep_groups", keep_groups), pm_attr_str("group_score", group_score),
        pm_attr_str("select", choose),        pm_attr_f64("jitter", jitter),
        pm_attr_f64("least", least),
    };
    pm_op *route;
    PM_TRY(pm_build(&c->b, PM_OP_route, (pm_value *[]){scores, select, by},
                    by != NULL ? 3 : select != NULL ? 2 : 1, attrs, PM_COUNT(attrs), 0, &route));
    m->chosen = route->results[0];
    m->weights = route->results[1];
    return scale_experts(step, router, m);
}

/// Weights of experts that have had as many rows as they take become zero ("capacity", or a fraction of the
/// rows), counted in each sequence or in the batch. Then, perhaps, the rest is weighed anew.
static pm_status build_capacity(pm_ckpt_step *step, moe *m)
{
    pm_ckpt *c = step->c;
    pm_module *module = c->module;
    const pm_json *router = pm_json_get(step->json, "router");
    const char *per = "sequence", *weigh = "as_is";
    double fraction = 0, least = 0;
    int64_t capacity = 0;
    if (pm_json_get(router, "capacity") == NULL && pm_json_get(router, "fraction") == NULL)
        return PM_OK;
    PM_TRY(pm_step_int(step, router, "capacity", 0, &capacity));
    PM_TRY(pm_step_number(step, router, "fraction", &fraction));
    PM_TRY(pm_step_str(step, router, "capacity_per", &per));
    PM_TRY(pm_step_str(step, router, "weigh_kept", &weigh));
    PM_TRY(pm_step_number(step, router, "least", &least));
    const pm_dim *of = m->x->type->dims, *flat = m->weights->type->dims;
    bool is_batch = strcmp(per, "batch") == 0;
    pm_dim dims[3] = {is_batch ? pm_dim_const(module, 1) : of[0],
                      is_batch ? pm_dim_mul(module, of[0], of[1]) : of[1], flat[1]};
    pm_value *chosen, *weights, *sum, *floor;
    PM_TRY(pm_build_reshape_dims(&c->b, m->chosen, 3, dims, &chosen));
    PM_TRY(pm_build_reshape_dims(&c->b, m->weights, 3, dims, &weights));
    PM_TRY(pm_build1(&c->b, &weights, PM_OP_capacity, PM_OPERANDS(chosen, weights),
                     PM_ATTRS(pm_attr_i64("experts", m->experts),
                              pm_attr_i64("capacity", capacity), pm_attr_f64("fraction", fraction))));
    PM_TRY(pm_build_reshape_dims(&c->b, weights, 2, flat, &m->weights));
    if (strcmp(weigh, "renorm") != 0)
        return PM_OK;
    const int64_t axis = 1;
    float value = (float)least;
    PM_TRY(pm_build1(&c->b, &sum, PM_OP_reduce_sum, PM_OPERANDS(m->weights),
                     PM_ATTRS(pm_attr_ints("axes", &axis, 1))));
    PM_TRY(pm_build_const_f32(&c->b, 0, NULL, &value, &floor));
    PM_TRY(pm_build1(&c->b, &sum, PM_OP_max, PM_OPERANDS(sum, floor), PM_NO_ATTRS));
    return pm_build1(&c->b, &m->weights, PM_OP_div, PM_OPERANDS(m->weights, sum), PM_NO_ATTRS);
}

/// What becomes of the choice at last: all weights times "scale_kept"; "instead": the numbers of the
/// "experts" that compute the first choice, the second, … whatever was chosen, "when" that holds.
static pm_status finish_route(pm_ckpt_step *step, moe *m)
{
    pm_ckpt *c = step->c;
    const pm_json *router = pm_json_get(step->json, "router");
    const pm_json *instead = pm_json_get(router, "instead");
    const pm_json *list = pm_json_get(instead, "experts");
    const char *when = "true";
    bool holds = false;
    double scale = 1;
    pm_value *factor, *shape;
    PM_TRY(pm_step_number(step, router, "scale_kept", &scale));
    if (scale != 1) {
        float value = (float)scale;
        PM_TRY(pm_build_const_f32(&c->b, 0, NULL, &value, &factor));
        PM_TRY(pm_build1(&c->b, &m->weights, PM_OP_mul, PM_OPERANDS(m->weights, factor),
                         PM_NO_ATTRS));
    }
    if (instead == NULL)
        return PM_OK;
    PM_TRY(pm_json_get_str(c->diag, c->recipe->file, instead, "when", false, &when));
    PM_TRY(pm_expr_bool(&c->scope, &step->loc, when, &holds));
    if (!holds)
        return PM_OK;
    int64_t *numbers = PM_NEW_ARRAY(c->scratch, int64_t, (size_t)m->top_k);
    if (list == NULL || list->kind != PM_JSON_ARRAY || (int64_t)list->n != m->top_k)
        return pm_step_fault(step, "'instead' must name as many experts as are chosen");
    for (int64_t i = 0; i < m->top_k; i++) {
        numbers[i] = list->items[i].integer;
        if (!list->items[i].is_int || numbers[i] < 0 || numbers[i] >= m->experts)
            return pm_step_fault(step, "'instead' must be numbers of experts");
    }
    PM_TRY(pm_build_const_ints(&c->b, PM_I32, 1, &m->top_k, numbers, &m->chosen));
    PM_TRY(pm_build_dims(&c->b, 2, m->weights->type->dims, &shape));
    return pm_build1(&c->b, &m->chosen, PM_OP_expand, PM_OPERANDS(m->chosen, shape), PM_NO_ATTRS);
}

/// Identity experts: their weights together, [M, 1] in `*out_own`, are what the rows themselves are worth.
/// Their choices become choices of expert 0 with the weight 0.
static pm_status split_identity(pm_ckpt *c, moe *m, pm_value **out_own)
{
    if (m->identity == 0)
        return PM_OK;
    pm_value *n, *zero, *none, *is_real, *own;
    float nothing = 0;
    int64_t number = 0;
    const int64_t axis = 1;
    pm_builder *b = &c->b;
    PM_TRY(pm_build_const_ints(b, PM_I32, 0, NULL, &m->experts, &n));
    PM_TRY(pm_build_const_ints(b, PM_I32, 0, NULL, &number, &none));
    PM_TRY(pm_build_const_f32(b, 0, NULL, &nothing, &zero));
    PM_TRY(pm_build1(b, &is_real, PM_OP_less, PM_OPERANDS(m->chosen, n), PM_NO_ATTRS));
    PM_TRY(pm_build1(b, &own, PM_OP_where, PM_OPERANDS(is_real, zero, m->weights), PM_NO_ATTRS));
    PM_TRY(pm_build1(b, out_own, PM_OP_reduce_sum, PM_OPERANDS(own),
                     PM_ATTRS(pm_attr_ints("axes", &axis, 1))));
    PM_TRY(pm_build1(b, &m->weights, PM_OP_where, PM_OPERANDS(is_real, m->weights, zero),
                     PM_NO_ATTRS));
    return pm_build1(b, &m->chosen, PM_OP_where, PM_OPERANDS(is_real, m->chosen, none),
                     PM_NO_ATTRS);
}

static pm_status add_identity(pm_ckpt *c, pm_value *own, pm_value *x, pm_value **inout)
{
    pm_dim dims[3] = {x->type->dims[0], x->type->dims[1], pm_dim_const(c->module, 1)};
    PM_TRY(pm_build_reshape_dims(&c->b, own, 3, dims, &own));
    PM_TRY(pm_build1(&c->b, &own, PM_OP_mul, PM_OPERANDS(own, x), PM_NO_ATTRS));
    return pm_build1(&c->b, inout, PM_OP_add, PM_OPERANDS(*inout, own), PM_NO_ATTRS);
}

/// The weights that the expert's steps name, stacked over the experts, in the order of the steps.
static pm_status capture_weights(pm_ckpt *c, const pm_json *body, int64_t n_experts)
{
    static const char *const keys[] = {"weight",    "bias", "gate", "gate_bias", "up",
                                       "up_bias", "down", "down_bias"};
    for (size_t i = 0; i < body->n; i++) {
        pm_ckpt_step inner = {.c = c,
                              .json = &body->items[i],
                              .loc = pm_json_loc(c->recipe->file, &body->items[i])};
        const char *when = NULL;
        bool holds = true;
        PM_TRY(pm_json_get_str(c->diag, c->recipe->file, inner.json, "do", true, &inner.kind));
        PM_TRY(pm_json_get_str(c->diag, c->recipe->file, inner.json, "when", false, &when));
        if (when != NULL)
            PM_TRY(pm_expr_bool(&c->scope, &inner.loc, when, &holds));
        if (!holds)
            continue;
        if (strcmp(inner.kind, "part") == 0) {
            pm_ckpt_part part;
            PM_TRY(pm_ckpt_enter_part(&inner, &part));
            PM_TRY(capture_weights(c, part.steps, n_experts)); // as deep as parts may be nested
            pm_ckpt_leave_part(c, &part);
            continue;
        }
        for (size_t k = 0; k < PM_COUNT(keys); k++)
            PM_TRY(pm_ckpt_capture_weight(&inner, pm_json_get(inner.json, keys[k]), n_experts));
    }
    return PM_OK;
}

/// Fills the region: its arguments are the rows of one expert and that expert's slice of each weight.
static pm_status build_region(pm_ckpt_step *step, pm_op *op, const pm_json *body, const moe *m)
{
    pm_ckpt *c = step->c;
    pm_module *module = c->module;
    pm_builder outer_builder = c->b;
    pm_map outer_values = c->values;
    pm_graph *region = pm_region_create(op);
    pm_dim bound = pm_dim_mul(module, m->rows->type->dims[0], pm_dim_const(module, m->top_k));
    pm_dim dims[2] = {pm_dim_fresh(module, "n", bound), m->rows->type->dims[1]};
    pm_value *rows = pm_graph_add_arg(region, "rows", pm_type_get(module, PM_F32, 2, dims), -1);
    for (size_t i = 0; i < c->captures.n; i++) {
        const pm_type *t = c->captures.data[i].stacked->type;
        c->captures.data[i].arg = pm_graph_add_arg(
            region, NULL, pm_type_get(module, t->elem, t->rank - 1, t->dims + 1), -1);
    }
    c->b.graph = region;
    c->b.before = NULL;
    pm_map_init(&c->values, c->scratch);
    pm_map_put_str(&c->values, "rows", rows);
    c->in_region = true;
    const char *result = NULL;
    PM_TRY(pm_ckpt_steps(c, body));
    PM_TRY(pm_step_str(step, step->json, "result", &result));
    pm_value *y = pm_ckpt_value(c, result);
    if (y == NULL)
        return pm_step_fault(step, "no step makes the result '%s'", result);
    pm_graph_add_result(region, NULL, y, -1);
    c->in_region = false;
    c->values = outer_values;
    c->b = outer_builder;
    return PM_OK;
}

/// What a router and its experts have in common.
static pm_status read_moe(pm_ckpt_step *step, moe *m)
{
    pm_ckpt *c = step->c;
    PM_TRY(pm_step_value(step, "x", &m->x));
    PM_TRY(pm_step_int(step, step->json, "experts", 1, &m->experts));
    if (m->experts > PM_CKPT_MAX_EXPERTS) {
        pm_loc loc = {.file = c->folder};
        return pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED, "more than %d experts in a layer",
                        (int)PM_CKPT_MAX_EXPERTS);
    }
    const pm_type *t = m->x->type;
    if (t->rank < 3 || !pm_dim_is_const(c->module, t->dims[t->rank - 1], &m->width))
        return pm_step_fault(step, "expects [batch, tokens, width]");
    return PM_OK;
}

static pm_status read_rows(pm_ckpt *c, moe *m)
{
    const pm_type *t = m->x->type;
    pm_dim rows[2] = {t->dims[0], t->dims[t->rank - 1]};
    for (int32_t i = 1; i < t->rank - 1; i++)
        rows[0] = pm_dim_mul(c->module, rows[0], t->dims[i]);
    return pm_build_reshape_dims(&c->b, m->x, 2, rows, &m->rows);
}

/// The experts on rows that were routed: [M, width], perhaps of another width.
static pm_status build_experts(pm_ckpt_step *step, const moe *m, const char *apply,
                               const char *called, pm_value **out)
{
    pm_ckpt *c = step->c;
    const pm_json *body = pm_json_get(step->json, "expert");
    if (c->in_region || body == NULL || body->kind != PM_JSON_ARRAY)
        return pm_step_fault(step, "needs the steps of an expert, and can't be within one");
    c->captures.n = 0;
    PM_TRY(capture_weights(c, body, m->experts));
    pm_ckpt_set_loc(step, NULL);
    size_t n = 3 + c->captures.n;
    pm_value **operands = PM_NEW_ARRAY(c->scratch, pm_value *, n);
    operands[0] = m->rows;
    operands[1] = m->chosen;
    operands[2] = m->weights;
    for (size_t i = 0; i < c->captures.n; i++)
        operands[3 + i] = c->captures.data[i].stacked;
    const pm_attr attrs[] = {
        pm_attr_i64("experts", m->experts), pm_attr_i64("top_k", m->top_k),
        pm_attr_str("apply", apply),
        pm_attr_str("name", pm_arena_printf(c->scratch, "%slayers.%" PRId64 "%s%s",
                                            c->in_encoder ? "encoder." : "", c->layer,
                                            called[0] != '\0' ? "." : "", called)),
    };
    pm_op *op;
    PM_TRY(pm_op_create(c->b.graph, NULL, PM_OP_experts, c->b.loc, operands, n, attrs,
                        PM_COUNT(attrs), 1, 0, &op));
    PM_TRY(build_region(step, op, body, m));
    PM_TRY(pm_op_infer(op));
    pm_ckpt_set_loc(step, NULL);
    *out = op->results[0];
    return PM_OK;
}

pm_status pm_ckpt_moe(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    moe m = {0};
    pm_value *own = NULL, *y;
    const char *apply = "output";
    PM_TRY(read_moe(step, &m));
    PM_TRY(read_rows(c, &m));
    PM_TRY(pm_step_int(step, step->json, "identity", 0, &m.identity));
    PM_TRY(pm_step_int(step, step->json, "top_k", 1, &m.top_k));
    PM_TRY(pm_step_str(step, step->json, "apply", &apply));
    PM_TRY(build_route(step, &m));
    PM_TRY(build_capacity(step, &m));
    PM_TRY(split_identity(c, &m, &own));
    PM_TRY(finish_route(step, &m));
    PM_TRY(build_experts(step, &m, apply, "", &y));
    PM_TRY(pm_build_reshape_dims(&c->b, y, 3, m.x->type->dims, &y));
    if (own != NULL)
        PM_TRY(add_identity(c, own, m.x, &y));
    return pm_step_out(step, y);
}

/// A router without its experts: "out" names what is chosen, and the weights.
pm_status pm_ckpt_route(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    moe m = {0};
    const pm_json *out = pm_json_get(step->json, "out");
    if (out == NULL || out->kind != PM_JSON_ARRAY || out->n != 2 ||
        out->items[0].kind != PM_JSON_STRING || out->items[1].kind != PM_JSON_STRING)
        return pm_step_fault(step, "'out' must be two names");
    PM_TRY(read_moe(step, &m));
    PM_TRY(read_rows(c, &m));
    PM_TRY(pm_step_int(step, step->json, "top_k", 1, &m.top_k));
    PM_TRY(build_route(step, &m));
    pm_map_put_str(&c->values, out->items[0].string, m.chosen);
    pm_map_put_str(&c->values, out->items[1].string, m.weights);
    return PM_OK;
}

/// Experts for each choice by itself: x [batch, tokens, width], or of each choice [batch, tokens, k, width],
/// gives [batch, tokens, k, width]; times the weights, if there are any. Nothing is added up.
pm_status pm_ckpt_each_choice(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_module *module = c->module;
    moe m = {.top_k = 1};
    pm_value *chosen, *shape, *y;
    const char *called = "", *weights = "";
    int64_t k;
    PM_TRY(read_moe(step, &m));
    PM_TRY(pm_step_value(step, "chosen", &chosen));
    PM_TRY(pm_step_str(step, step->json, "called", &called));
    PM_TRY(pm_step_str(step, step->json, "weights", &weights));
    const pm_type *t = m.x->type;
    if (chosen->type->rank != 2 || !pm_dim_is_const(module, chosen->type->dims[1], &k))
        return pm_step_fault(step, "'chosen' must be what a router chose");
    pm_dim dims[4] = {t->dims[0], t->dims[1], pm_dim_const(module, k), t->dims[t->rank - 1]};
    if (t->rank == 3) {
        pm_dim one[4] = {dims[0], dims[1], pm_dim_const(module, 1), dims[3]};
        PM_TRY(pm_build_dims(&c->b, 4, dims, &shape));
        PM_TRY(pm_build_reshape_dims(&c->b, m.x, 4, one, &m.x));
        PM_TRY(pm_build1(&c->b, &m.x, PM_OP_expand, PM_OPERANDS(m.x, shape), PM_NO_ATTRS));
    }
    PM_TRY(read_rows(c, &m));
    pm_dim single[2] = {m.rows->type->dims[0], pm_dim_const(module, 1)};
    PM_TRY(pm_build_reshape_dims(&c->b, chosen, 2, single, &m.chosen));
    m.weights = pm_ckpt_value(c, weights);
    if (m.weights != NULL) {
        PM_TRY(pm_build_reshape_dims(&c->b, m.weights, 2, single, &m.weights));
    } else if (weights[0] != '\0') {
        return pm_step_fault(step, "there is no value '%s' yet", weights);
    } else {
        float one = 1;
        pm_value *value;
        PM_TRY(pm_build_const_f32(&c->b, 0, NULL, &one, &value));
        PM_TRY(pm_build_dims(&c->b, 2, single, &shape));
        PM_TRY(pm_build1(&c->b, &m.weights, PM_OP_fill, PM_OPERANDS(shape, value), PM_NO_ATTRS));
    }
    PM_TRY(build_experts(step, &m, "output", called, &y));
    dims[3] = y->type->dims[1];
    PM_TRY(pm_build_reshape_dims(&c->b, y, 4, dims, &y));
    return pm_step_out(step, y);
}
