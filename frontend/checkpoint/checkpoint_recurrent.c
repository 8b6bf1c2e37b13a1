/// Steps whose ops carry a state along the tokens: short convolutions, linear attention, selective
/// scans. And the states themselves.
#include <inttypes.h>
#include <math.h>

#include "frontend/checkpoint/checkpoint_build.h"

// ---- states ----

/// Whether nothing of what steps write stays when the entry returns.
static bool is_local(const pm_ckpt *c)
{
    return c->mode == PM_CKPT_FORWARD || c->in_encoder;
}

static int32_t find_state(const pm_module *m, const char *name)
{
    for (size_t i = 0; i < m->states.n; i++)
        if (strcmp(m->states.data[i].name, name) == 0)
            return (int32_t)i;
    return -1;
}

pm_status pm_ckpt_state(pm_ckpt_step *step, const char *base, int32_t rank, const pm_dim *dims,
                        pm_value **out)
{
    pm_ckpt *c = step->c;
    pm_module *m = c->module;
    const pm_type *type = pm_type_get(m, PM_F32, rank, dims);
    if (is_local(c)) {
        pm_value *shape;
        PM_TRY(pm_build_dims(&c->b, rank, dims, &shape));
        return pm_build1(&c->b, out, PM_OP_empty, PM_OPERANDS(shape),
                         PM_ATTRS(pm_attr_elem("elem", PM_F32)));
    }
    uintptr_t number = (uintptr_t)pm_map_get_str(&c->n_states, base);
    pm_map_put_str(&c->n_states, base, (void *)(number + 1));
    const char *name = pm_arena_printf(c->scratch, "%s.%zu", base, (size_t)number);
    int32_t state = find_state(m, name);
    if (state < 0)
        state = pm_state_add(m, name, type);
    else if (m->states.data[state].type != type)
        return pm_step_fault(step, "the entries disagree about a state");
    *out = pm_graph_add_arg(c->entry, m->states.data[state].name, type, state);
    return PM_OK;
}

pm_status pm_ckpt_cache(pm_ckpt_step *step, const char *base, int64_t kv_heads, int64_t head_dim,
                        bool is_key, pm_value **out)
{
    pm_ckpt *c = step->c;
    pm_module *m = c->module;
    pm_dim block = pm_dim_const(m, PM_CKPT_CACHE_BLOCK);
    pm_dim n_blocks = pm_dim_ceildiv(m, is_local(c) ? c->ids->type->dims[1] : c->cache, block);
    pm_dim dims[5] = {c->batch, pm_dim_const(m, kv_heads)};
    dims[2] = is_key ? n_blocks : pm_dim_mul(m, n_blocks, block);
    dims[3] = pm_dim_const(m, head_dim);
    dims[4] = block;
    return pm_ckpt_state(step, base, is_key ? 5 : 4, dims, out);
}

void pm_ckpt_keep(pm_ckpt *c, pm_value *state)
{
    if (is_local(c))
        return;
    const pm_value *from = state->def->operands[0];
    for (size_t i = 0; i < c->entry->args.n; i++)
        if (c->entry->args.data[i] == from) {
            PM_PUSH(c->scratch, &c->caches, state);
            PM_PUSH(c->scratch, &c->cache_states, c->entry->arg_states.data[i]);
        }
}

// ---- steps ----

/// [batch, tokens, width] with a width that is known.
static pm_status read_rows(pm_ckpt_step *step, const char *key, pm_value **out, int64_t *out_width)
{
    PM_TRY(pm_step_value(step, key, out));
    const pm_type *t = (*out)->type;
    if (t->rank == 3 && pm_dim_is_const(step->c->module, t->dims[2], out_width))
        return PM_OK;
    return pm_step_fault(step, "'%s' must be [batch, tokens, width]", key);
}

static pm_status read_optional(pm_ckpt_step *step, const char *key, pm_value **out)
{
    *out = NULL;
    return pm_json_get(step->json, key) != NULL ? pm_step_value(step, key, out) : PM_OK;
}

/// The op with two results: the state, which is kept, and the step's value.
static pm_status build_recurrence(pm_ckpt_step *step, pm_opcode code, pm_value *const *operands,
                                  size_t n_operands, const pm_attr *attrs, size_t n_attrs)
{
    pm_op *op;
    PM_TRY(pm_build(&step->c->b, code, operands, n_operands, attrs, n_attrs, 0, &op));
    pm_ckpt_keep(step->c, op->results[0]);
    return pm_step_out(step, op->results[1]);
}

pm_status pm_ckpt_causal_conv(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_module *m = c->module;
    pm_value *x, *w, *bias, *state;
    int64_t dims[3] = {0, 1, 0};
    PM_TRY(read_rows(step, "x", &x, &dims[0]));
    PM_TRY(pm_step_int(step, step->json, "kernel", 1, &dims[2]));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "weight"), 3, dims, true, &w));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "bias"), 1, dims, true, &bias));
    if (w == NULL)
        return pm_step_fault(step, "needs a weight");
    pm_dim kept[3] = {c->batch, pm_dim_const(m, dims[0]), pm_dim_const(m, dims[2] - 1)};
    PM_TRY(pm_ckpt_state(step, "conv_state", 3, kept, &state));
    return build_recurrence(step, PM_OP_causal_conv, PM_OPERANDS(state, x, w, bias, c->past),
                            PM_NO_ATTRS);
}

pm_status pm_ckpt_linear_attention(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_module *m = c->module;
    pm_value *q, *k, *v, *decay, *beta, *state;
    int64_t heads = 0, key_size = 0, q_width, k_width, v_width;
    double scale = 1;
    bool delta = false;
    PM_TRY(read_rows(step, "q", &q, &q_width));
    PM_TRY(read_rows(step, "k", &k, &k_width));
    PM_TRY(read_rows(step, "v", &v, &v_width));
    PM_TRY(read_optional(step, "decay", &decay));
    PM_TRY(read_optional(step, "beta", &beta));
    PM_TRY(pm_step_int(step, step->json, "heads", 1, &heads));
    PM_TRY(pm_step_int(step, step->json, "key_size", 1, &key_size));
    PM_TRY(pm_step_number(step, step->json, "scale", &scale));
    PM_TRY(pm_json_get_bool(c->diag, c->recipe->file, step->json, "delta", false, &delta));
    if (v_width % heads != 0)
        return pm_step_fault(step, "the width of 'v' isn't a multiple of 'heads'");
    pm_dim kept[4] = {c->batch, pm_dim_const(m, heads), pm_dim_const(m, key_size),
                      pm_dim_const(m, v_width / heads)};
    PM_TRY(pm_ckpt_state(step, "recurrent_state", 4, kept, &state));
    return build_recurrence(
        step, PM_OP_linear_attention, PM_OPERANDS(state, q, k, v, decay, beta, c->past),
        PM_ATTRS(pm_attr_bool("delta", delta), pm_attr_f64("scale", scale)));
}

pm_status pm_ckpt_selective_scan(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_module *m = c->module;
    pm_value *x, *dt, *a, *b, *out, *state;
    int64_t channels, dt_width, size, c_width;
    PM_TRY(read_rows(step, "x", &x, &channels));
    PM_TRY(read_rows(step, "dt", &dt, &dt_width));
    PM_TRY(pm_step_value(step, "a", &a));
    PM_TRY(read_rows(step, "b", &b, &size));
    PM_TRY(read_rows(step, "c", &out, &c_width));
    pm_dim kept[3] = {c->batch, pm_dim_const(m, channels), pm_dim_const(m, size)};
    PM_TRY(pm_ckpt_state(step, "recurrent_state", 3, kept, &state));
    return build_recurrence(step, PM_OP_selective_scan,
                            PM_OPERANDS(state, x, dt, a, b, out, c->past), PM_NO_ATTRS);
}
