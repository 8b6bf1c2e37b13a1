/* Handlers: a mixture of experts as one operator. It becomes `route` and `experts` whose one region
 * is the template of all experts; the stacked weights are what it captures. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_moe, pm_onnx_do_qmoe;

/* A matrix of the experts, [E, n, k]: of all of them stacked, inside the region of one. */
typedef struct matrix {
    pm_value *weight; ///< or codes
    pm_value *scales, *zeros; ///< of codes
    pm_value *bias; ///< [E, n], or NULL
    int64_t n, k;
    int64_t bits, block; ///< 0: no codes
} matrix;

enum { GATE, UP, DOWN, N_MATRICES };

/* Where the inputs of one matrix are; -1: the operator has none such. */
typedef struct matrix_inputs {
    const char *name;
    int weight, scales, bias, zeros;
} matrix_inputs;

static const matrix_inputs moe_inputs[] = {{"fc1", 2, -1, 3, -1}, {"fc2", 4, -1, 5, -1},
                                           {"fc3", 6, -1, 7, -1}};
static const matrix_inputs qmoe_inputs[] = {{"fc1", 2, 3, 4, 11}, {"fc2", 5, 6, 7, 12},
                                            {"fc3", 8, 9, 10, 13}};

typedef struct moe {
    pm_onnx_call *call;
    pm_value *x;      ///< rows [M, D] in f32
    pm_value *scores; ///< [M, E]
    int64_t experts, top_k, width;
    matrix matrices[N_MATRICES];
    bool gated;
} moe;

/* ---- weights ---- */

/* Bits of a code of one matrix: its own, or those of all. */
static pm_status find_bits(moe *m, const matrix_inputs *in, matrix *out)
{
    pm_onnx_call *call = m->call;
    char key[40];
    snprintf(key, sizeof key, "%s_expert_weight_bits", in->name);
    if (!pm_onnx_attr_of(call, key)->present)
        snprintf(key, sizeof key, "expert_weight_bits");
    out->bits = pm_onnx_attr_of(call, key)->i;
    if (out->bits != 2 && out->bits != 4 && out->bits != 8)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "%s is %" PRId64 ", must be 2, 4 or 8", key,
                             out->bits);
    out->block = pm_onnx_attr_of(call, "block_size")->present ? pm_onnx_attr_of(call, "block_size")->i : 0;
    if (out->block < 0 || out->block % (32 / out->bits) != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "block_size is %" PRId64 ", must be a power of two from 16 on",
                             out->block);
    return out->weight->type->elem == PM_U8
               ? PM_OK
               : pm_onnx_wrong_shape(call, in->weight,
                                     pm_arena_printf(call->onnx->temp, "%s_experts_weights", in->name),
                                     "u8");
}

/* Zero points of whole rows are packed along the rows: one byte for each, as `dequantize` has them. */
static pm_status unpack_zeros(pm_onnx_call *call, int i, matrix *out)
{
    pm_module *module = call->onnx->module;
    pm_value *v = call->in[i];
    const pm_data *data = pm_value_const(v);
    const uint8_t *bytes;
    if (!data)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "zero points '%s' must be a constant",
                             call->node->input[i]);
    PM_TRY(pm_data_bytes(module, data, &bytes));
    int64_t experts = pm_onnx_extent(call, v, 0), each = pm_onnx_extent(call, v, 1);
    pm_data copy = {.size = (uint64_t)(experts * out->n)};
    uint8_t *kept = pm_arena_alloc(module->arena, (size_t)copy.size, 64);
    for (int64_t e = 0; e < experts; e++)
        for (int64_t r = 0; r < out->n; r++)
            kept[e * out->n + r] = (uint8_t)(bytes[e * each + r * out->bits / 8] >> (r * out->bits % 8) &
                                             ((1 << out->bits) - 1));
    copy.bytes = kept;
    pm_dim dims[] = {v->type->dims[0], pm_dim_const(module, out->n), pm_dim_const(module, 1)};
    return pm_build_const(&call->b, pm_type_get(module, PM_U8, 3, dims), &copy, v->name, &out->zeros);
}

/* Scales and zero points as `dequantize` takes them: [E, n, blocks]. */
static pm_status read_codes(moe *m, const matrix_inputs *in, matrix *out)
{
    pm_onnx_call *call = m->call;
    pm_module *module = call->onnx->module;
    char what[40];
    int64_t blocks = out->block ? (out->k + out->block - 1) / out->block : 1;
    int64_t packed = ((out->block ? blocks : out->n) * out->bits + 7) / 8;
    snprintf(what, sizeof what, "%s_scales", in->name);
    if (!pm_onnx_input(call, in->scales))
        return pm_onnx_error(call, PM_ERR_INVALID, "%s are missing", what);
    PM_TRY(pm_onnx_check_shape(call, in->scales, what, out->block ? 3 : 2,
                               (int64_t[]){m->experts, out->n, blocks}));
    out->scales = call->in[in->scales];
    if (!pm_elem_is_float(out->scales->type->elem) || out->scales->type->elem == PM_F64)
        return pm_onnx_wrong_shape(call, in->scales, what, "f32, f16 or bf16");
    pm_dim dims[] = {pm_dim_const(module, m->experts), pm_dim_const(module, out->n),
                     pm_dim_const(module, blocks)};
    PM_TRY(pm_onnx_reshape(call, out->scales, dims, 3, &out->scales));
    if (!pm_onnx_input(call, in->zeros))
        return PM_OK;
    snprintf(what, sizeof what, "%s_zero_points", in->name);
    if (call->in[in->zeros]->type->elem != PM_U8)
        return pm_onnx_wrong_shape(call, in->zeros, what, "u8");
    if (!out->block) {
        PM_TRY(pm_onnx_check_shape(call, in->zeros, what, 2, (int64_t[]){m->experts, packed}));
        return unpack_zeros(call, in->zeros, out);
    }
    PM_TRY(pm_onnx_check_shape(call, in->zeros, what, 3, (int64_t[]){m->experts, out->n, packed}));
    out->zeros = call->in[in->zeros];
    return PM_OK;
}

static pm_status read_matrix(moe *m, const matrix_inputs *in, int64_t n, int64_t k, matrix *out)
{
    pm_onnx_call *call = m->call;
    char what[40];
    snprintf(what, sizeof what, "%s_experts_weights", in->name);
    if (!pm_onnx_input(call, in->weight))
        return pm_onnx_error(call, PM_ERR_INVALID, "%s are missing", what);
    *out = (matrix){.weight = call->in[in->weight], .bias = pm_onnx_input(call, in->bias), .k = k};
    PM_TRY(in->scales >= 0 ? find_bits(m, in, out) : pm_onnx_check_elem(call, in->weight, what, 0));
    k = out->bits ? (k * out->bits + 7) / 8 : k;
    PM_TRY(pm_onnx_check_shape(call, in->weight, what, 3, (int64_t[]){m->experts, n, k}));
    out->n = pm_onnx_extent(call, out->weight, 1);
    if (out->bits)
        PM_TRY(read_codes(m, in, out));
    if (!out->bias)
        return PM_OK;
    snprintf(what, sizeof what, "%s_experts_bias", in->name);
    PM_TRY(pm_onnx_check_elem(call, in->bias, what, 0));
    return pm_onnx_check_shape(call, in->bias, what, 2, (int64_t[]){m->experts, out->n});
}

/* Rows first, first + step, … of each expert. Of a small constant the elements are copied, so that
 * nothing is left to do when the model runs. */
static pm_status take_rows(pm_onnx_call *call, pm_value *v, int64_t first, int64_t step, int64_t count,
                           pm_value **out)
{
    const pm_data *data = v ? pm_value_const(v) : NULL;
    *out = NULL;
    if (!v)
        return PM_OK;
    if (!data || v->type->rank != 2) {
        int64_t end = first + (count - 1) * step + 1;
        const int64_t axis = 1;
        pm_value *operands[5] = {v};
        PM_TRY(pm_onnx_vector(call, &first, 1, &operands[1]));
        PM_TRY(pm_onnx_vector(call, &end, 1, &operands[2]));
        PM_TRY(pm_onnx_vector(call, &axis, 1, &operands[3]));
        PM_TRY(pm_onnx_vector(call, &step, 1, &operands[4]));
        return pm_onnx_build(call, out, PM_OP_slice, operands, 5, PM_NO_ATTRS);
    }
    pm_module *module = call->onnx->module;
    const uint8_t *bytes;
    int64_t experts = pm_onnx_extent(call, v, 0), n = pm_onnx_extent(call, v, 1);
    size_t size = pm_elem_size(v->type->elem);
    PM_TRY(pm_data_bytes(module, data, &bytes));
    uint8_t *kept = pm_arena_alloc(module->arena, (size_t)(experts * count) * size, 64);
    for (int64_t e = 0; e < experts; e++)
        for (int64_t i = 0; i < count; i++)
            memcpy(kept + (size_t)(e * count + i) * size,
                   bytes + (size_t)(e * n + first + i * step) * size, size);
    pm_dim dims[] = {v->type->dims[0], pm_dim_const(module, count)};
    pm_data copy = {.size = (uint64_t)(experts * count) * size, .bytes = kept};
    return pm_build_const(&call->b, pm_type_get(module, v->type->elem, 2, dims), &copy, v->name, out);
}

/* Gate and up lie in one matrix: alternating (fusion 1), or one below the other (2). */
static pm_status split_gate(moe *m, int64_t fusion)
{
    const matrix both = m->matrices[GATE];
    int64_t count = both.n / 2;
    for (int64_t i = 0; i < 2; i++) {
        matrix *half = &m->matrices[i == 0 ? GATE : UP];
        int64_t first = fusion == 1 ? i : i * count, step = fusion == 1 ? 2 : 1;
        *half = both;
        half->n = count;
        PM_TRY(take_rows(m->call, both.weight, first, step, count, &half->weight));
        PM_TRY(take_rows(m->call, both.scales, first, step, count, &half->scales));
        PM_TRY(take_rows(m->call, both.zeros, first, step, count, &half->zeros));
        PM_TRY(take_rows(m->call, both.bias, first, step, count, &half->bias));
    }
    m->gated = true;
    return PM_OK;
}

static bool activation_is(const pm_onnx_call *call, const char *name)
{
    return strcmp(pm_onnx_attr_of(call, "activation_type")->s, name) == 0;
}

static pm_status read_matrices(moe *m, const matrix_inputs *in)
{
    pm_onnx_call *call = m->call;
    int64_t fusion = pm_onnx_attr_of(call, "swiglu_fusion")->i;
    bool is_unit = activation_is(call, "swiglu") || activation_is(call, "geglu");
    bool has_third = pm_onnx_input(call, in[2].weight) != NULL;
    if (fusion < 0 || fusion > 2)
        return pm_onnx_error(call, PM_ERR_INVALID, "swiglu_fusion is %" PRId64 ", must be 0, 1 or 2",
                             fusion);
    fusion = is_unit ? fusion : 0;
    if (activation_is(call, "geglu") && fusion == 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "geglu needs swiglu_fusion 1 or 2");
    if (fusion && has_third)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "swiglu_fusion is %" PRId64 ", but there are fc3_experts_weights", fusion);
    if (is_unit && !fusion && !has_third)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "%s with swiglu_fusion 0 needs fc3_experts_weights",
                             pm_onnx_attr_of(call, "activation_type")->s);
    PM_TRY(read_matrix(m, &in[0], -1, m->width, &m->matrices[GATE]));
    int64_t inner = m->matrices[GATE].n;
    if (fusion && inner % 2 != 0)
        return pm_onnx_wrong_shape(call, in[0].weight, "fc1_experts_weights",
                           "of an even number of rows, as gate and up are fused");
    inner = fusion ? inner / 2 : inner;
    PM_TRY(read_matrix(m, &in[1], m->width, inner, &m->matrices[DOWN]));
    if (fusion)
        return split_gate(m, fusion);
    m->gated = has_third;
    return has_third ? read_matrix(m, &in[2], inner, m->width, &m->matrices[UP]) : PM_OK;
}

/* ---- the region ---- */

/* What a matrix consists of, each part an argument of the region. */
static size_t parts_of(matrix *x, pm_value ***parts)
{
    size_t n = 0;
    pm_value **all[] = {&x->weight, &x->scales, &x->zeros, &x->bias};
    for (size_t i = 0; i < PM_COUNT(all); i++)
        if (*all[i])
            parts[n++] = all[i];
    return n;
}

enum { MAX_PARTS = 4 };

static pm_status project(pm_onnx_call *call, pm_value *x, const matrix *w, pm_value **out)
{
    pm_value *weight = w->weight;
    if (w->bits)
        PM_TRY(pm_onnx_dequantize(call, w->weight, w->scales, w->zeros, w->k, w->bits, w->block, &weight));
    return pm_onnx_build(call, out, PM_OP_linear, (pm_value *[]){x, weight, w->bias},
                         w->bias ? 3 : 2, PM_NO_ATTRS);
}

static pm_status swiglu(pm_onnx_call *call, pm_value *gate, pm_value *up, pm_value **out)
{
    pm_value *args[] = {gate, up};
    bool limited = pm_onnx_attr_of(call, "swiglu_limit")->present &&
                   isfinite(pm_onnx_attr_of(call, "swiglu_limit")->f);
    bool after = pm_onnx_attr_of(call, "swiglu_limit_after_activation")->i != 0;
    if (limited && !after)
        PM_TRY(pm_onnx_expr(call, "min(x, $swiglu_limit)", args, &args[0]));
    if (pm_onnx_attr_of(call, "activation_alpha")->f == 1)
        PM_TRY(pm_onnx_expr(call, "silu(x)", args, &args[0]));
    else
        PM_TRY(pm_onnx_expr(call, "mul(x, sigmoid(mul(x, $activation_alpha)))", args, &args[0]));
    if (limited && after)
        PM_TRY(pm_onnx_expr(call, "min(x, $swiglu_limit)", args, &args[0]));
    if (limited)
        PM_TRY(pm_onnx_expr(call, "max(min(y, $swiglu_limit), neg($swiglu_limit))", args, &args[1]));
    if (pm_onnx_attr_of(call, "activation_beta")->f != 0)
        PM_TRY(pm_onnx_expr(call, "add(y, $activation_beta)", args, &args[1]));
    return pm_onnx_expr(call, "mul(x, y)", args, out);
}

static pm_status activate(moe *m, pm_value *gate, pm_value *up, pm_value **out)
{
    static const struct {
        const char *name, *text;
    } plain[] = {{"relu", "relu(x)"},   {"gelu", "gelu(x)"}, {"silu", "silu(x)"},
                 {"identity", "x"},     {"relu2", "mul(relu(x), relu(x))"}};
    pm_onnx_call *call = m->call;
    pm_value *args[] = {gate, up};
    if (activation_is(call, "swiglu"))
        return swiglu(call, gate, up, out);
    if (activation_is(call, "geglu")) {
        PM_TRY(pm_onnx_build(call, &args[0], PM_OP_gelu, PM_OPERANDS(gate),
                             PM_ATTRS(pm_attr_bool("tanh", true))));
        return pm_onnx_expr(call, "mul(x, y)", args, out);
    }
    for (size_t i = 0; i < PM_COUNT(plain); i++)
        if (activation_is(call, plain[i].name)) {
            PM_TRY(pm_onnx_expr(call, plain[i].text, args, &args[0]));
            *out = args[0];
            return m->gated ? pm_onnx_expr(call, "mul(x, y)", args, out) : PM_OK;
        }
    return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "activation_type '%s'",
                         pm_onnx_attr_of(call, "activation_type")->s);
}

/* Fills the region: its arguments are the rows of one expert and that expert's slice of each part. */
static pm_status build_region(moe *m, pm_op *op)
{
    pm_onnx_call *call = m->call;
    pm_module *module = call->onnx->module;
    pm_builder outside = call->b;
    pm_graph *region = pm_region_create(op);
    pm_dim bound = pm_dim_mul(module, m->x->type->dims[0], pm_dim_const(module, m->top_k));
    pm_dim dims[] = {pm_dim_fresh(module, "n", bound), m->x->type->dims[1]};
    pm_value *rows =
        pm_graph_add_arg(region, "rows", pm_type_get(module, m->x->type->elem, 2, dims), -1);
    matrix inside[N_MATRICES];
    memcpy(inside, m->matrices, sizeof inside);
    for (int i = 0; i < N_MATRICES; i++) {
        pm_value **parts[MAX_PARTS];
        size_t n = parts_of(&inside[i], parts);
        for (size_t k = 0; k < n; k++) {
            const pm_type *t = (*parts[k])->type;
            *parts[k] = pm_graph_add_arg(
                region, NULL, pm_type_get(module, t->elem, t->rank - 1, t->dims + 1), -1);
        }
    }
    call->b.graph = region;
    call->b.before = NULL;
    pm_value *gate, *up = NULL, *y;
    PM_TRY(project(call, rows, &inside[GATE], &gate));
    if (m->gated)
        PM_TRY(project(call, rows, &inside[UP], &up));
    PM_TRY(activate(m, gate, up, &y));
    PM_TRY(project(call, y, &inside[DOWN], &y));
    pm_graph_add_result(region, NULL, y, -1);
    call->b = outside;
    return PM_OK;
}

static pm_status build_route(moe *m, pm_value *weighing, pm_op **out)
{
    pm_onnx_call *call = m->call;
    bool sparse = pm_onnx_attr_of(call, "use_sparse_mixer")->i != 0;
    const pm_attr attrs[] = {
        pm_attr_i64("top_k", m->top_k),
        pm_attr_str("weigh", pm_onnx_attr_of(call, "normalize_routing_weights")->i ? "renorm" : "as_is"),
        pm_attr_str("select", sparse ? "sparsemixer" : "topk"),
    };
    return pm_build(&call->b, PM_OP_route, (pm_value *[]){m->scores, NULL, weighing},
                    weighing ? 3 : 1, attrs, PM_COUNT(attrs), 0, out);
}

/* ---- the operators ---- */

/* Rows of [.., n] as [M, n] in f32; M is that of `like` when given. */
static pm_status as_rows(pm_onnx_call *call, int i, const char *what, const pm_value *like,
                         pm_value **out)
{
    pm_module *module = call->onnx->module;
    pm_value *v = call->in[i];
    int32_t rank = v->type->rank;
    if (!pm_elem_is_float(v->type->elem) || (rank != 2 && rank != 3))
        return pm_onnx_wrong_shape(call, i, what, "floats of 2 or 3 axes");
    pm_dim dims[] = {rank == 2 ? v->type->dims[0]
                               : pm_dim_mul(module, v->type->dims[0], v->type->dims[1]),
                     v->type->dims[rank - 1]};
    if (like && pm_dim_differs(module, dims[0], like->type->dims[0]))
        return pm_onnx_wrong_shape(call, i, what, "of as many rows as the input");
    if (like)
        dims[0] = like->type->dims[0];
    PM_TRY(pm_onnx_reshape(call, v, dims, 2, &v));
    return pm_onnx_cast(call, v, PM_F32, out);
}

static pm_status build_moe(moe *m, pm_value *weighing)
{
    pm_onnx_call *call = m->call;
    pm_value *operands[3 + N_MATRICES * MAX_PARTS];
    size_t n = 3;
    pm_op *route, *op;
    PM_TRY(build_route(m, weighing, &route));
    operands[0] = m->x;
    operands[1] = route->results[0];
    operands[2] = route->results[1];
    for (int i = 0; i < N_MATRICES; i++) {
        pm_value **parts[MAX_PARTS];
        size_t n_parts = parts_of(&m->matrices[i], parts);
        for (size_t k = 0; k < n_parts; k++)
            operands[n++] = *parts[k];
    }
    const char *name = call->node->name && *call->node->name ? call->node->name : call->node->output[0];
    const pm_attr attrs[] = {pm_attr_i64("experts", m->experts), pm_attr_i64("top_k", m->top_k),
                             pm_attr_str("name", name)};
    PM_TRY(pm_op_create(call->b.graph, call->b.before, PM_OP_experts, call->b.loc, operands, n, attrs,
                        PM_COUNT(attrs), 1, 0, &op));
    PM_TRY(build_region(m, op));
    PM_TRY(pm_op_infer(op));
    const pm_type *x = call->in[0]->type;
    pm_value *y;
    PM_TRY(pm_onnx_cast(call, op->results[0], x->elem, &y));
    return pm_onnx_reshape(call, y, x->dims, x->rank, &call->out[0]);
}

static pm_status begin(pm_onnx_call *call, moe *m)
{
    *m = (moe){.call = call};
    PM_TRY(as_rows(call, 0, "input", NULL, &m->x));
    PM_TRY(as_rows(call, 1, "router_probs", m->x, &m->scores));
    PM_TRY(pm_onnx_check_elem(call, 1, "router_probs", 0));
    if (!pm_dim_is_const(call->onnx->module, m->scores->type->dims[1], &m->experts) ||
        !pm_dim_is_const(call->onnx->module, m->x->type->dims[1], &m->width))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "the number of experts and the width of the input must be known");
    int64_t k = m->top_k = pm_onnx_attr_of(call, "k")->i;
    if (k < 1 || k > m->experts)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "k is %" PRId64 ", must be in [1, %" PRId64 "], the number of experts", k,
                             m->experts);
    return PM_OK;
}

pm_status pm_onnx_do_moe(pm_onnx_call *call)
{
    moe m;
    PM_TRY(begin(call, &m));
    PM_TRY(read_matrices(&m, moe_inputs));
    return build_moe(&m, NULL);
}

/* Weighs by scores of their own when there are such. */
pm_status pm_onnx_do_qmoe(pm_onnx_call *call)
{
    enum { WEIGHING = 14, FIRST_UNKNOWN };
    moe m;
    pm_value *weighing = NULL;
    const char *type = pm_onnx_attr_of(call, "quant_type")->s;
    const pm_onnx_attr *prepacked = pm_onnx_attr_of(call, "weights_prepacked");
    if (strcmp(type, "int") != 0)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "quant_type '%s'; there is int", type);
    if (prepacked->present && prepacked->i != 0)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "weights_prepacked is %" PRId64 ": weights in the layout of one device; "
                             "export them with weights_prepacked 0",
                             prepacked->i);
    for (size_t i = FIRST_UNKNOWN; i < call->n_in; i++)
        if (call->in[i])
            return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "input %zu '%s': scales of activations and of "
                                 "whole experts", i, call->node->input[i]);
    PM_TRY(begin(call, &m));
    PM_TRY(read_matrices(&m, qmoe_inputs));
    if (pm_onnx_input(call, WEIGHING)) {
        PM_TRY(as_rows(call, WEIGHING, "router_weights", m.x, &weighing));
        PM_TRY(pm_onnx_check_elem(call, WEIGHING, "router_weights", 0));
        if (pm_dim_differs(call->onnx->module, weighing->type->dims[1], m.scores->type->dims[1]))
            return pm_onnx_wrong_shape(call, WEIGHING, "router_weights", "of as many columns as router_probs");
    }
    return build_moe(&m, weighing);
}
