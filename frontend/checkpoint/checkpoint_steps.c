/// The steps that recipes are made of. A step that isn't in the table below is an op of ops.def with
/// its operands ("in") and attributes ("attrs"): a recipe needs C only where the mathematics is new.
#include <inttypes.h>
#include <math.h>

#include "frontend/checkpoint/checkpoint_build.h"
#include "ir/op_table.h"

enum { MAX_OPERANDS = 16, MAX_EXTENT = INT32_MAX };

// ---- members of steps ----

pm_status pm_step_fault(pm_ckpt_step *step, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(step->c->scratch, fmt, ap);
    va_end(ap);
    return pm_error(step->c->diag, &step->loc, PM_ERR_INTERNAL, "step '%s': %s",
                    step->kind != NULL ? step->kind : "?", text);
}

pm_status pm_step_str(pm_ckpt_step *step, const pm_json *object, const char *key,
                      const char **inout)
{
    pm_expr_value value;
    PM_TRY(pm_json_get_str(step->c->diag, step->c->recipe->file, object, key, *inout == NULL,
                           inout));
    if ((*inout)[0] != '=')
        return PM_OK;
    PM_TRY(pm_expr_eval(&step->c->scope, &step->loc, *inout + 1, &value));
    if (value.kind != PM_EXPR_STRING)
        return pm_step_fault(step, "'%s' must be a string", key);
    *inout = value.string;
    return PM_OK;
}

/// The expression of a member, written as a string or as a number; NULL when absent.
static const char *expression(pm_ckpt_step *step, const pm_json *value)
{
    if (value == NULL)
        return NULL;
    if (value->kind == PM_JSON_STRING)
        return value->string;
    if (value->kind == PM_JSON_NUMBER)
        return pm_arena_printf(step->c->scratch, "%.17g", value->number);
    return value->kind == PM_JSON_BOOL && value->boolean ? "true" : "false";
}

pm_status pm_step_int(pm_ckpt_step *step, const pm_json *object, const char *key, int64_t lo,
                      int64_t *inout)
{
    const char *text = expression(step, pm_json_get(object, key));
    if (text == NULL && *inout < lo)
        return pm_step_fault(step, "needs '%s'", key);
    if (text == NULL)
        return PM_OK;
    return pm_expr_int(&step->c->scope, &step->loc, text, lo, MAX_EXTENT, inout);
}

pm_status pm_step_number(pm_ckpt_step *step, const pm_json *object, const char *key, double *inout)
{
    const char *text = expression(step, pm_json_get(object, key));
    if (text == NULL && isnan(*inout))
        return pm_step_fault(step, "needs '%s'", key);
    if (text == NULL)
        return PM_OK;
    return pm_expr_number(&step->c->scope, &step->loc, text, inout);
}

pm_value *pm_ckpt_value(pm_ckpt *c, const char *name)
{
    return pm_map_get_str(&c->values, name);
}

pm_status pm_step_value(pm_ckpt_step *step, const char *key, pm_value **out)
{
    const char *name = NULL;
    PM_TRY(pm_step_str(step, step->json, key, &name));
    *out = pm_ckpt_value(step->c, name);
    return *out != NULL ? PM_OK : pm_step_fault(step, "there is no value '%s' yet", name);
}

pm_status pm_step_out(pm_ckpt_step *step, pm_value *value)
{
    const char *name = NULL;
    PM_TRY(pm_step_str(step, step->json, "out", &name));
    pm_map_put_str(&step->c->values, name, value);
    return PM_OK;
}

/// The last extent of a value, which is constant for all activations.
static pm_status width_of(pm_ckpt_step *step, const pm_value *x, int64_t *out)
{
    const pm_type *t = x->type;
    if (t->rank > 0 && pm_dim_is_const(step->c->module, t->dims[t->rank - 1], out))
        return PM_OK;
    return pm_step_fault(step, "the last extent of its operand isn't constant");
}

/// `x` with its last axis replaced by `dims`.
static pm_status split_last(pm_ckpt_step *step, pm_value *x, int32_t n, const int64_t *dims,
                            pm_value **out)
{
    pm_dim all[PM_MAX_RANK];
    int32_t rank = 0;
    if (x->type->rank - 1 + n > PM_MAX_RANK)
        return pm_step_fault(step, "too many axes");
    for (; rank < x->type->rank - 1; rank++)
        all[rank] = x->type->dims[rank];
    for (int32_t i = 0; i < n; i++)
        all[rank++] = pm_dim_const(step->c->module, dims[i]);
    return pm_build_reshape_dims(&step->c->b, x, rank, all, out);
}

// ---- steps ----

static pm_status do_embed(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    int64_t dims[2] = {0, 0};
    pm_value *table, *y;
    PM_TRY(pm_step_int(step, step->json, "rows", 1, &dims[0]));
    PM_TRY(pm_step_int(step, step->json, "columns", 1, &dims[1]));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "weight"), 2, dims, false, &table));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_gather, PM_OPERANDS(table, c->ids), PM_NO_ATTRS));
    if (y->type->elem != PM_F32)
        PM_TRY(pm_build1(&c->b, &y, PM_OP_cast, PM_OPERANDS(y),
                         PM_ATTRS(pm_attr_elem("to", PM_F32))));
    return pm_step_out(step, y);
}

/// `per`: heads of that size are normalised each for itself. `plus_one`: the scale is 1 + weight.
/// `scale`: what stands for the weight when there is none.
static pm_status do_rms_norm(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_value *x, *weight, *y;
    int64_t width, per = 0;
    double eps = NAN, scale = 1;
    bool plus_one = false;
    PM_TRY(pm_step_value(step, "x", &x));
    PM_TRY(width_of(step, x, &width));
    PM_TRY(pm_step_number(step, step->json, "eps", &eps));
    PM_TRY(pm_step_int(step, step->json, "per", 0, &per));
    PM_TRY(pm_step_number(step, step->json, "scale", &scale));
    PM_TRY(pm_json_get_bool(c->diag, c->recipe->file, step->json, "plus_one", false, &plus_one));
    int64_t n = per > 0 ? per : width;
    if (width % n != 0)
        return pm_step_fault(step, "'per' doesn't divide the width");
    const pm_json *spec = pm_json_get(step->json, "weight");
    PM_TRY(pm_ckpt_weight(step, spec, 1, &n, true, &weight));
    if (weight == NULL || plus_one) {
        float *ones = PM_NEW_ARRAY(c->scratch, float, (size_t)n);
        for (int64_t i = 0; i < n; i++)
            ones[i] = weight == NULL ? (float)scale : 1;
        pm_value *one;
        PM_TRY(pm_build_const_f32(&c->b, 1, &n, ones, &one));
        if (weight == NULL)
            weight = one;
        else
            PM_TRY(pm_build1(&c->b, &weight, PM_OP_add, PM_OPERANDS(one, weight), PM_NO_ATTRS));
    }
    y = x;
    if (per > 0)
        PM_TRY(split_last(step, x, 2, (int64_t[]){width / n, n}, &y));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_rms_norm, PM_OPERANDS(y, weight),
                     PM_ATTRS(pm_attr_f64("eps", eps))));
    if (per > 0)
        PM_TRY(pm_build_reshape_dims(&c->b, y, x->type->rank, x->type->dims, &y));
    return pm_step_out(step, y);
}

static pm_status do_layer_norm(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_value *x, *weight, *bias, *y;
    int64_t width;
    double eps = NAN;
    PM_TRY(pm_step_value(step, "x", &x));
    PM_TRY(width_of(step, x, &width));
    PM_TRY(pm_step_number(step, step->json, "eps", &eps));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "weight"), 1, &width, true, &weight));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "bias"), 1, &width, true, &bias));
    if (weight == NULL)
        return pm_step_fault(step, "needs a weight");
    PM_TRY(pm_build1(&c->b, &y, PM_OP_layer_norm, (pm_value *[]){x, weight, bias},
                     bias != NULL ? 3 : 2, PM_ATTRS(pm_attr_f64("eps", eps))));
    return pm_step_out(step, y);
}

static pm_status do_linear(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_value *x, *weight, *bias, *y;
    int64_t dims[2] = {0, 0};
    PM_TRY(pm_step_value(step, "x", &x));
    PM_TRY(width_of(step, x, &dims[1]));
    PM_TRY(pm_step_int(step, step->json, "to", 1, &dims[0]));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "bias"), 1, dims, true, &bias));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "weight"), 2, dims, false, &weight));
    if (weight == NULL)
        return pm_step_fault(step, "needs a weight");
    PM_TRY(pm_build1(&c->b, &y, PM_OP_linear, (pm_value *[]){x, weight, bias},
                     bias != NULL ? 3 : 2, PM_NO_ATTRS));
    return pm_step_out(step, y);
}

/// The activation that configurations call so. An op's own name does as well.
static pm_status activate(pm_ckpt_step *step, const char *name, pm_value **inout)
{
    static const struct {
        const char *name, *op;
        bool tanh;
    } others[] = {
        {"swish", "silu", false},          {"gelu_pytorch_tanh", "gelu", true},
        {"gelu_new", "gelu", true},        {"gelu_tanh", "gelu", true},
        {"gelu_fast", "gelu", true},       {"relu2", "relu", false},
        {"relu_squared", "relu", false},
    };
    pm_builder *b = &step->c->b;
    pm_opcode code;
    bool tanh = false, squared = strncmp(name, "relu", 4) == 0 && name[4] != '\0';
    for (size_t i = 0; i < PM_COUNT(others); i++) {
        if (strcmp(others[i].name, name) != 0)
            continue;
        name = others[i].op;
        tanh = others[i].tanh;
        break;
    }
    if (!pm_opcode_parse(name, &code) || pm_op_table[code].min_in != 1 ||
        !(pm_op_table[code].traits & PM_T_ELEMENTWISE)) {
        pm_loc loc = {.file = pm_path_join(step->c->scratch, step->c->folder, "config.json")};
        return pm_error(step->c->diag, &loc, PM_ERR_UNSUPPORTED, "'%.60s' isn't a known activation",
                        name);
    }
    pm_attr attr = pm_attr_bool("tanh", true);
    PM_TRY(pm_build1(b, inout, code, PM_OPERANDS(*inout), &attr, tanh ? 1 : 0));
    if (squared)
        PM_TRY(pm_build1(b, inout, PM_OP_mul, PM_OPERANDS(*inout, *inout), PM_NO_ATTRS));
    return PM_OK;
}

/// x times the weight `key`, plus the bias `bias_key`; NULL when there is no such weight.
static pm_status mlp_product(pm_ckpt_step *step, pm_value *x, const char *key,
                             const char *bias_key, const int64_t *dims, pm_value **out)
{
    pm_value *weight, *bias;
    *out = NULL;
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, key), 2, dims, false, &weight));
    if (weight == NULL)
        return PM_OK;
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, bias_key), 1, dims, true, &bias));
    return pm_build1(&step->c->b, out, PM_OP_linear, (pm_value *[]){x, weight, bias},
                     bias != NULL ? 3 : 2, PM_NO_ATTRS);
}

/// down(act(gate x) * up x), or down(act(up x)) without a gate. Also the body of most experts.
static pm_status do_mlp(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_value *x, *gate, *y;
    int64_t inner[2] = {0, 0}, outer[2];
    const char *act = NULL;
    PM_TRY(pm_step_value(step, "x", &x));
    PM_TRY(width_of(step, x, &inner[1]));
    PM_TRY(pm_step_int(step, step->json, "inner", 1, &inner[0]));
    PM_TRY(pm_step_str(step, step->json, "act", &act));
    outer[0] = inner[1];
    outer[1] = inner[0];
    PM_TRY(mlp_product(step, x, "gate", "gate_bias", inner, &gate));
    PM_TRY(mlp_product(step, x, "up", "up_bias", inner, &y));
    if (y == NULL)
        return pm_step_fault(step, "needs 'up' and 'down'");
    if (gate != NULL) {
        PM_TRY(activate(step, act, &gate));
        PM_TRY(pm_build1(&c->b, &y, PM_OP_mul, PM_OPERANDS(gate, y), PM_NO_ATTRS));
    } else {
        PM_TRY(activate(step, act, &y));
    }
    PM_TRY(mlp_product(step, y, "down", "down_bias", outer, &y));
    if (y == NULL)
        return pm_step_fault(step, "needs 'up' and 'down'");
    return pm_step_out(step, y);
}

/// Tokens that every token of the encoder sees: all of them.
static pm_status build_all_seen(pm_ckpt *c, pm_value **out)
{
    pm_value *count, *shape;
    PM_TRY(pm_build_dims(&c->b, 1, &c->ids->type->dims[1], &count));
    PM_TRY(pm_build_dims(&c->b, 1, &c->batch, &shape));
    return pm_build1(&c->b, out, PM_OP_expand, PM_OPERANDS(count, shape), PM_NO_ATTRS);
}

static pm_status do_attention(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_value *q, *k, *v, *keys, *values, *y;
    int64_t heads = 0, kv_heads = 0, window = 0, chunk = 0, k_width, v_width;
    pm_value *sinks, *bias = NULL, *seen = c->past;
    double scale = NAN, softcap = 0;
    bool causal = true;
    PM_TRY(pm_step_value(step, "q", &q));
    PM_TRY(pm_step_value(step, "k", &k));
    PM_TRY(pm_step_value(step, "v", &v));
    PM_TRY(pm_step_int(step, step->json, "heads", 1, &heads));
    PM_TRY(pm_step_int(step, step->json, "kv_heads", 1, &kv_heads));
    PM_TRY(pm_step_int(step, step->json, "window", 0, &window));
    PM_TRY(pm_step_int(step, step->json, "chunk", 0, &chunk));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "sinks"), 1, &heads, true, &sinks));
    PM_TRY(pm_step_number(step, step->json, "scale", &scale));
    PM_TRY(pm_step_number(step, step->json, "softcap", &softcap));
    PM_TRY(width_of(step, k, &k_width));
    PM_TRY(width_of(step, v, &v_width));
    if (k_width % kv_heads != 0 || v_width % kv_heads != 0)
        return pm_step_fault(step, "the widths of keys and values must be multiples of kv_heads");
    PM_TRY(pm_json_get_bool(c->diag, c->recipe->file, step->json, "causal", false, &causal));
    if (pm_json_get(step->json, "bias") != NULL)
        PM_TRY(pm_step_value(step, "bias", &bias));
    if (!causal && !c->in_encoder)
        return pm_step_fault(step, "only an encoder's attention may see what comes later");
    PM_TRY(pm_ckpt_cache(step, "key_cache", kv_heads, k_width / kv_heads, true, &keys));
    PM_TRY(pm_ckpt_cache(step, "value_cache", kv_heads, v_width / kv_heads, false, &values));
    PM_TRY(pm_build1(&c->b, &keys, PM_OP_cache_key, PM_OPERANDS(keys, k, c->past), PM_NO_ATTRS));
    PM_TRY(pm_build1(&c->b, &values, PM_OP_cache_value, PM_OPERANDS(values, v, c->past),
                     PM_NO_ATTRS));
    pm_ckpt_keep(c, keys);
    pm_ckpt_keep(c, values);
    if (!causal)
        PM_TRY(build_all_seen(c, &seen));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_attention,
                     (pm_value *[]){q, keys, values, seen, sinks, bias},
                     bias != NULL ? 6 : sinks != NULL ? 5 : 4,
                     PM_ATTRS(pm_attr_i64("heads", heads), pm_attr_i64("kv_heads", kv_heads),
                              pm_attr_f64("scale", scale), pm_attr_i64("window", window),
                              pm_attr_f64("softcap", softcap), pm_attr_i64("chunk", chunk),
                              pm_attr_bool("causal", causal))));
    return pm_step_out(step, y);
}

/// A tensor as a value.
static pm_status do_weight(pm_ckpt_step *step)
{
    pm_value *weight;
    int64_t dims[PM_MAX_RANK] = {0};
    const pm_json *list = pm_json_get(step->json, "dims");
    if (list == NULL || list->kind != PM_JSON_ARRAY || list->n > PM_MAX_RANK)
        return pm_step_fault(step, "needs 'dims', a list");
    for (size_t i = 0; i < list->n; i++)
        PM_TRY(pm_expr_int(&step->c->scope, &step->loc, expression(step, &list->items[i]), 0,
                           MAX_EXTENT, &dims[i]));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "weight"), (int32_t)list->n, dims, true,
                          &weight));
    if (weight == NULL)
        return pm_step_fault(step, "needs a weight");
    return pm_step_out(step, weight);
}

/// The same elements with other axes in place of those from `from` on (the last one, when not given).
static pm_status do_view(pm_ckpt_step *step)
{
    pm_value *x, *y;
    pm_dim dims[PM_MAX_RANK];
    const pm_json *list = pm_json_get(step->json, "dims");
    PM_TRY(pm_step_value(step, "x", &x));
    int64_t rank = x->type->rank, from = rank - 1;
    PM_TRY(pm_step_int(step, step->json, "from", 0, &from));
    if (list == NULL || list->kind != PM_JSON_ARRAY || from < 0 || from > rank ||
        from + (int64_t)list->n > PM_MAX_RANK)
        return pm_step_fault(step, "needs 'dims', a list, and fewer axes");
    if (from > 0)
        memcpy(dims, x->type->dims, (size_t)from * sizeof *dims);
    for (size_t i = 0; i < list->n; i++) {
        int64_t dim;
        PM_TRY(pm_expr_int(&step->c->scope, &step->loc, expression(step, &list->items[i]), 1,
                           MAX_EXTENT, &dim));
        dims[from++] = pm_dim_const(step->c->module, dim);
    }
    PM_TRY(pm_build_reshape_dims(&step->c->b, x, (int32_t)from, dims, &y));
    return pm_step_out(step, y);
}

/// Parts of the columns, as named in `out`. `per`: so many columns are a group, each of which is split,
/// and parts are made of the pieces of all groups.
static pm_status do_split(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    const pm_json *list = pm_json_get(step->json, "sizes"), *out = pm_json_get(step->json, "out");
    int64_t sizes[MAX_OPERANDS] = {0}, width, per = 0;
    pm_value *x, *parts, *y;
    pm_op *op;
    PM_TRY(pm_step_value(step, "x", &x));
    PM_TRY(width_of(step, x, &width));
    PM_TRY(pm_step_int(step, step->json, "per", 0, &per));
    if (list == NULL || list->kind != PM_JSON_ARRAY || list->n > MAX_OPERANDS || out == NULL ||
        out->kind != PM_JSON_ARRAY || out->n != list->n)
        return pm_step_fault(step, "needs 'sizes' and 'out', lists of the same length");
    int64_t n = (int64_t)list->n, total = 0, rank = x->type->rank;
    for (size_t i = 0; i < list->n; i++) {
        PM_TRY(pm_expr_int(&c->scope, &step->loc, expression(step, &list->items[i]), 1, MAX_EXTENT,
                           &sizes[i]));
        total += sizes[i];
    }
    if (total != (per > 0 ? per : width) || width % total != 0)
        return pm_step_fault(step, "parts of %" PRId64 " columns don't make up %" PRId64, total,
                             width);
    if (per > 0)
        PM_TRY(split_last(step, x, 2, (int64_t[]){width / per, per}, &x));
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 1, &n, sizes, &parts));
    PM_TRY(pm_build(&c->b, PM_OP_split, PM_OPERANDS(x, parts),
                    PM_ATTRS(pm_attr_i64("axis", x->type->rank - 1)), list->n, &op));
    for (size_t i = 0; i < list->n; i++) {
        y = op->results[i];
        pm_dim dims[PM_MAX_RANK];
        memcpy(dims, y->type->dims, (size_t)rank * sizeof *dims);
        dims[rank - 1] = pm_dim_const(c->module, width / total * sizes[i]);
        if (per > 0)
            PM_TRY(pm_build_reshape_dims(&c->b, y, (int32_t)rank, dims, &y));
        if (out->items[i].kind != PM_JSON_STRING)
            return pm_step_fault(step, "'out' must be names");
        pm_map_put_str(&c->values, out->items[i].string, y);
    }
    return PM_OK;
}

/// The inverse of `split`: columns of each group together. A part that is as wide as one group's belongs
/// to all of them.
static pm_status do_join(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    const pm_json *list = pm_json_get(step->json, "in"), *sizes = pm_json_get(step->json, "sizes");
    pm_value *parts[MAX_OPERANDS], *y;
    int64_t groups = 1, total = 0;
    if (list == NULL || list->kind != PM_JSON_ARRAY || sizes == NULL || sizes->n != list->n ||
        list->n == 0 || list->n > MAX_OPERANDS)
        return pm_step_fault(step, "needs 'in' and 'sizes', lists of the same length");
    PM_TRY(pm_step_int(step, step->json, "groups", 1, &groups));
    for (size_t i = 0; i < list->n; i++) {
        int64_t size, width;
        PM_TRY(pm_expr_int(&c->scope, &step->loc, expression(step, &sizes->items[i]), 1, MAX_EXTENT,
                           &size));
        pm_value *x = list->items[i].kind == PM_JSON_STRING
                          ? pm_ckpt_value(c, list->items[i].string) : NULL;
        if (x == NULL || x->type->rank != 3)
            return pm_step_fault(step, "'in' must be names of values [batch, tokens, width]");
        PM_TRY(width_of(step, x, &width));
        if (width != size && width != groups * size)
            return pm_step_fault(step, "%" PRId64 " columns are neither one group's nor all of them",
                                 width);
        PM_TRY(split_last(step, x, 2, (int64_t[]){width / size, size}, &parts[i]));
        if (width != groups * size) {
            pm_value *shape;
            pm_dim dims[4] = {x->type->dims[0], x->type->dims[1], pm_dim_const(c->module, groups),
                              pm_dim_const(c->module, size)};
            PM_TRY(pm_build_dims(&c->b, 4, dims, &shape));
            PM_TRY(pm_build1(&c->b, &parts[i], PM_OP_expand, PM_OPERANDS(parts[i], shape),
                             PM_NO_ATTRS));
        }
        total += size;
    }
    PM_TRY(pm_build1(&c->b, &y, PM_OP_concat, parts, list->n, PM_ATTRS(pm_attr_i64("axis", 3))));
    pm_dim dims[3] = {y->type->dims[0], y->type->dims[1], pm_dim_const(c->module, groups * total)};
    PM_TRY(pm_build_reshape_dims(&c->b, y, 3, dims, &y));
    return pm_step_out(step, y);
}

/// The positions of the tokens, f32 [batch, tokens, 1].
static pm_status do_positions(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_module *m = c->module;
    pm_value *zero, *one, *tokens, *from, *y;
    const int64_t numbers[] = {0, 1};
    pm_dim column[2] = {c->batch, pm_dim_const(m, 1)};
    pm_dim dims[3] = {c->batch, c->ids->type->dims[1], pm_dim_const(m, 1)};
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 0, NULL, &numbers[0], &zero));
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 0, NULL, &numbers[1], &one));
    PM_TRY(pm_build_dims(&c->b, 1, &dims[1], &tokens));
    PM_TRY(pm_build_reshape_dims(&c->b, tokens, 0, NULL, &tokens));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_range, PM_OPERANDS(zero, tokens, one), PM_NO_ATTRS));
    PM_TRY(pm_build_reshape_dims(&c->b, y, 1, &dims[1], &y));
    PM_TRY(pm_build_reshape_dims(&c->b, c->past, 2, column, &from));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_add, PM_OPERANDS(from, y), PM_NO_ATTRS));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_cast, PM_OPERANDS(y), PM_ATTRS(pm_attr_elem("to", PM_F32))));
    PM_TRY(pm_build_reshape_dims(&c->b, y, 3, dims, &y));
    return pm_step_out(step, y);
}

/// Prefill needs the logits of the last token alone; in decode there is but one.
static pm_status do_last_rows(pm_ckpt_step *step)
{
    pm_value *x;
    PM_TRY(pm_step_value(step, "x", &x));
    if (step->c->mode == PM_CKPT_PREFILL)
        PM_TRY(pm_build1(&step->c->b, &x, PM_OP_last_rows, PM_OPERANDS(x), PM_NO_ATTRS));
    return pm_step_out(step, x);
}

/// Gives an expression a name for the steps that follow.
static pm_status do_let(pm_ckpt_step *step)
{
    const char *name = NULL, *text = NULL;
    pm_expr_value value;
    PM_TRY(pm_step_str(step, step->json, "name", &name));
    PM_TRY(pm_step_str(step, step->json, "is", &text));
    PM_TRY(pm_expr_eval(&step->c->scope, &step->loc, text, &value));
    pm_expr_set(&step->c->scope, name, value);
    return PM_OK;
}

/// Steps under a common condition.
static pm_status do_group(pm_ckpt_step *step)
{
    const pm_json *test = pm_json_get(step->json, "if");
    bool holds = true;
    if (test == NULL || test->kind != PM_JSON_STRING)
        return pm_step_fault(step, "needs 'if'");
    PM_TRY(pm_expr_bool(&step->c->scope, &step->loc, test->string, &holds));
    const pm_json *steps = pm_json_get(step->json, holds ? "then" : "else");
    return steps != NULL ? pm_ckpt_steps(step->c, steps) : PM_OK; // as deep as the recipe's JSON
}

/// A value of a part's name; strings are templates that are expanded now, so that they may use the
/// name that they are for.
static pm_status part_value(pm_ckpt_step *step, const pm_loc *loc, const pm_json *json,
                            pm_expr_value *out)
{
    pm_expr_scope *scope = &step->c->scope;
    PM_TRY(pm_expr_eval(scope, loc, expression(step, json), out));
    return out->kind == PM_EXPR_STRING ? pm_expr_template(scope, loc, out->string, &out->string)
                                       : PM_OK;
}

pm_status pm_ckpt_enter_part(pm_ckpt_step *step, pm_ckpt_part *part)
{
    enum { MAX_DEPTH = 8 };
    pm_ckpt *c = step->c;
    const char *name = NULL;
    PM_TRY(pm_step_str(step, step->json, "use", &name));
    const pm_json *body = pm_recipe_part(c->recipe, name), *with = pm_json_get(step->json, "with");
    const pm_json *defaults = pm_json_get(body, "with");
    *part = (pm_ckpt_part){.steps = pm_json_get(body, "steps"), .outer = c->recipe,
                           .inner = *c->recipe, .n = defaults != NULL ? defaults->n : 0};
    if (part->steps == NULL || c->part_depth == MAX_DEPTH)
        return pm_step_fault(step, "no part '%s', or parts are nested too deep", name);
    for (size_t i = 0; with != NULL && i < with->n; i++)
        if (pm_json_get(defaults, with->keys[i]) == NULL)
            return pm_step_fault(step, "the part '%s' has no '%s'", name, with->keys[i]);
    part->inner.file = c->recipe->parts_file;
    part->names = PM_NEW_ARRAY(c->scratch, const char *, part->n + 1);
    part->before = PM_NEW_ARRAY(c->scratch, pm_expr_value, part->n + 1);
    pm_expr_value *values = PM_NEW_ARRAY(c->scratch, pm_expr_value, part->n + 1);
    // all values are the caller's, but for defaults, which see the part's own names before them
    for (size_t i = 0; i < part->n; i++) {
        const pm_json *given = pm_json_get(with, defaults->keys[i]);
        const pm_expr_value *before = pm_map_get_str(&c->scope.names, defaults->keys[i]);
        part->names[i] = defaults->keys[i];
        if (before != NULL)
            part->before[i] = *before;
        if (given != NULL)
            PM_TRY(part_value(step, &step->loc, given, &values[i]));
    }
    for (size_t i = 0; i < part->n; i++) {
        const pm_json *given = pm_json_get(with, defaults->keys[i]);
        pm_loc loc = pm_json_loc(part->inner.file, &defaults->items[i]);
        if (given == NULL)
            PM_TRY(part_value(step, &loc, &defaults->items[i], &values[i]));
        pm_expr_set(&c->scope, part->names[i], values[i]);
    }
    c->recipe = &part->inner;
    c->part_depth++;
    return PM_OK;
}

void pm_ckpt_leave_part(pm_ckpt *c, const pm_ckpt_part *part)
{
    for (size_t i = 0; i < part->n; i++)
        pm_expr_set(&c->scope, part->names[i], part->before[i]);
    c->recipe = part->outer;
    c->part_depth--;
}

/// Steps that recipes share.
static pm_status do_part(pm_ckpt_step *step)
{
    pm_ckpt_part part;
    PM_TRY(pm_ckpt_enter_part(step, &part));
    PM_TRY(pm_ckpt_steps(step->c, part.steps));
    pm_ckpt_leave_part(step->c, &part);
    return PM_OK;
}

// ---- any op of the table ----

/// An operand: the name of a value, or "=expression", an f32 scalar.
static pm_status read_operand(pm_ckpt_step *step, const pm_json *item, pm_value **out)
{
    if (item->kind != PM_JSON_STRING)
        return pm_step_fault(step, "an operand must be a name or '=expression'");
    if (item->string[0] != '=') {
        const char *name;
        PM_TRY(pm_expr_template(&step->c->scope, &step->loc, item->string, &name));
        *out = pm_ckpt_value(step->c, name);
        return *out != NULL ? PM_OK : pm_step_fault(step, "there is no value '%s' yet", name);
    }
    double x;
    PM_TRY(pm_expr_number(&step->c->scope, &step->loc, item->string + 1, &x));
    float value = (float)x;
    return pm_build_const_f32(&step->c->b, 0, NULL, &value, out);
}

static pm_status read_ints(pm_ckpt_step *step, const char *key, const pm_json *list, pm_attr *out)
{
    int64_t *ints = PM_NEW_ARRAY(step->c->scratch, int64_t, list->n + 1);
    for (size_t i = 0; i < list->n; i++)
        PM_TRY(pm_expr_int(&step->c->scope, &step->loc, expression(step, &list->items[i]),
                           -MAX_EXTENT, MAX_EXTENT, &ints[i]));
    *out = pm_attr_ints(key, ints, list->n);
    return PM_OK;
}

static pm_status read_attr(pm_ckpt_step *step, const char *key, const pm_json *value,
                           const pm_attr_decl *decls, size_t n_decls, pm_attr *out)
{
    for (size_t i = 0; i < n_decls; i++) {
        if (strcmp(decls[i].key, key) != 0)
            continue;
        double x = NAN;
        bool is_number = decls[i].kind == PM_ATTR_I64 || decls[i].kind == PM_ATTR_F64 ||
                         decls[i].kind == PM_ATTR_BOOL;
        if (is_number)
            PM_TRY(pm_expr_number(&step->c->scope, &step->loc, expression(step, value), &x));
        if (decls[i].kind == PM_ATTR_I64)
            *out = pm_attr_i64(decls[i].key, (int64_t)x);
        else if (decls[i].kind == PM_ATTR_F64)
            *out = pm_attr_f64(decls[i].key, x);
        else if (decls[i].kind == PM_ATTR_BOOL)
            *out = pm_attr_bool(decls[i].key, x != 0);
        else if (decls[i].kind == PM_ATTR_STR && value->kind == PM_JSON_STRING)
            *out = pm_attr_str(decls[i].key, value->string);
        else if (decls[i].kind == PM_ATTR_INTS && value->kind == PM_JSON_ARRAY)
            return read_ints(step, decls[i].key, value, out);
        else
            return pm_step_fault(step, "the attribute '%s' can't be given here", key);
        return PM_OK;
    }
    return pm_step_fault(step, "there is no attribute '%s'", key);
}

static pm_status do_op(pm_ckpt_step *step, pm_opcode code)
{
    const pm_op_info *info = &pm_op_table[code];
    const pm_json *in = pm_json_get(step->json, "in"), *attrs = pm_json_get(step->json, "attrs");
    pm_value *operands[MAX_OPERANDS], *y;
    pm_attr values[PM_MAX_ATTRS];
    pm_attr_decl decls[PM_MAX_ATTRS];
    size_t n_decls = pm_op_attr_decls(code, decls), n_attrs = attrs != NULL ? attrs->n : 0;
    if (in == NULL || in->kind != PM_JSON_ARRAY || in->n > MAX_OPERANDS || info->n_out != 1 ||
        info->n_regions != 0 || n_attrs > PM_MAX_ATTRS)
        return pm_step_fault(step, "needs 'in', a list of values, for an op with one result");
    for (size_t i = 0; i < in->n; i++)
        PM_TRY(read_operand(step, &in->items[i], &operands[i]));
    for (size_t i = 0; i < n_attrs; i++)
        PM_TRY(read_attr(step, attrs->keys[i], &attrs->items[i], decls, n_decls, &values[i]));
    PM_TRY(pm_build1(&step->c->b, &y, code, operands, in->n, values, n_attrs));
    return pm_step_out(step, y);
}

// ---- the table ----

static const struct {
    const char *kind;
    pm_status (*build)(pm_ckpt_step *step);
    const char *keys; ///< that a step of this kind may have, beside do, out and when
} kinds[] = {
    {"embed", do_embed, " rows columns weight "},
    {"rope_table", pm_ckpt_rope_table,
     " dims rotated theta scale factor kind original positions low high fast slow truncate mscale "
     "mscale_all short long short_mscale long_mscale "},
    {"rms_norm", do_rms_norm, " x eps per plus_one scale weight "},
    {"layer_norm", do_layer_norm, " x eps weight bias "},
    {"linear", do_linear, " x to weight bias "},
    {"rope", pm_ckpt_rope, " x table head_dim offset interleaved "},
    {"attention", do_attention, " q k v heads kv_heads scale window softcap chunk sinks bias causal "},
    {"cross_cache", pm_ckpt_cross_cache, " k v kv_heads "},
    {"cross_attention", pm_ckpt_cross_attention, " q heads kv_heads head_dim scale "},
    {"relative_bias", pm_ckpt_relative_bias, " buckets heads farthest both_ways weight "},
    {"sinusoids", pm_ckpt_sinusoids, " dims offset "},
    {"causal_conv", pm_ckpt_causal_conv, " x kernel weight bias "},
    {"linear_attention", pm_ckpt_linear_attention, " q k v decay beta heads key_size scale delta "},
    {"selective_scan", pm_ckpt_selective_scan, " x dt a b c "},
    {"weight", do_weight, " dims weight "},
    {"view", do_view, " x from dims "},
    {"split", do_split, " x per sizes "},
    {"join", do_join, " in sizes groups "},
    {"positions", do_positions, " "},
    {"moe", pm_ckpt_moe, " x experts identity top_k router expert result apply "},
    {"choose", pm_ckpt_route, " x experts top_k router "},
    {"each_choice", pm_ckpt_each_choice, " x chosen weights experts expert result called "},
    {"last_rows", do_last_rows, " x "},
    {"mlp", do_mlp, " x inner act gate up down gate_bias up_bias down_bias "},
    {"let", do_let, " name is "},
    {"group", do_group, " if then else "},
    {"part", do_part, " use with "},
};

/// A misspelt key would otherwise be a silent default.
static pm_status check_keys(pm_ckpt_step *step, const char *allowed)
{
    for (size_t i = 0; i < step->json->n; i++) {
        const char *key = step->json->keys[i];
        const char *word = pm_arena_printf(step->c->scratch, " %s ", key);
        if (strstr(" do out when ", word) == NULL && strstr(allowed, word) == NULL)
            return pm_step_fault(step, "unknown key '%s'", key);
    }
    return PM_OK;
}

static pm_status build_step(pm_ckpt *c, const pm_json *json)
{
    pm_ckpt_step step = {.c = c, .json = json, .loc = pm_json_loc(c->recipe->file, json)};
    const char *when = NULL;
    bool holds = true;
    PM_TRY(pm_json_get_str(c->diag, c->recipe->file, json, "do", true, &step.kind));
    PM_TRY(pm_json_get_str(c->diag, c->recipe->file, json, "when", false, &when));
    if (when != NULL)
        PM_TRY(pm_expr_bool(&c->scope, &step.loc, when, &holds));
    if (!holds)
        return PM_OK;
    pm_ckpt_set_loc(&step, NULL);
    for (size_t i = 0; i < PM_COUNT(kinds); i++) {
        if (strcmp(kinds[i].kind, step.kind) != 0)
            continue;
        PM_TRY(check_keys(&step, kinds[i].keys));
        return kinds[i].build(&step);
    }
    pm_opcode code;
    if (!pm_opcode_parse(step.kind, &code))
        return pm_step_fault(&step, "neither a step nor an op");
    PM_TRY(check_keys(&step, " in attrs "));
    return do_op(&step, code);
}

pm_status pm_ckpt_steps(pm_ckpt *c, const pm_json *steps)
{
    for (size_t i = 0; i < steps->n; i++)
        PM_TRY(build_step(c, &steps->items[i]));
    return PM_OK;
}
