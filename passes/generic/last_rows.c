/// What only the last token's rows are asked of is computed for these rows alone.
///
/// A language model's prefill wants the logits of the last token. All layers but the last one must
/// see every token, for the sake of the next one; of the last layer, only the caches need them. So
/// `last_rows` moves up: through whatever treats rows independently and serves nothing else. Rows keep
/// their bits, because no kernel's result depends on how many rows stand beside.
#include <string.h>

#include "ir/op_table.h"
#include "passes/passes.h"

typedef struct selection {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_dim batch, tokens, rows; ///< B, T, B * T
    bool *whole;                ///< by the op's number: all its rows are needed
    pm_map selected;            ///< value -> the value for the last tokens
} selection;

typedef enum row_form {
    ROWS_NONE,    ///< no extent depends on the tokens
    ROWS_TOKENS,  ///< [B, T, ...]
    ROWS_FLAT,    ///< [B * T, ...]
    ROWS_UNKNOWN, ///< the tokens stand elsewhere
} row_form;

static row_form form_of(const selection *s, const pm_type *type)
{
    uint32_t tokens;
    int32_t from = 0;
    row_form form = ROWS_NONE;
    if (type->rank >= 2 && pm_dim_same(type->dims[0], s->batch) &&
        pm_dim_same(type->dims[1], s->tokens)) {
        form = ROWS_TOKENS;
        from = 2;
    } else if (type->rank >= 1 && pm_dim_same(type->dims[0], s->rows)) {
        form = ROWS_FLAT;
        from = 1;
    }
    bool is_symbol = pm_dim_is_symbol(s->m, s->tokens, &tokens);
    for (int32_t i = from; i < type->rank; i++)
        if (!is_symbol || pm_dim_mentions(s->m, type->dims[i], tokens))
            return ROWS_UNKNOWN;
    return form;
}

/// The extents of the last tokens' rows.
static void selected_dims(const selection *s, const pm_type *type, pm_dim *dims)
{
    memcpy(dims, type->dims, (size_t)type->rank * sizeof *dims);
    if (form_of(s, type) == ROWS_TOKENS)
        dims[1] = pm_dim_const(s->m, 1);
    else
        dims[0] = s->batch;
}

/// Ops that treat rows independently, when only operands with rows (and none that grow with the tokens
/// otherwise) are given.
static bool can_be_row_wise(const pm_op *op, row_form form)
{
    switch (op->code) {
    case PM_OP_linear:
    case PM_OP_route:
    case PM_OP_experts:
    case PM_OP_rope:
    case PM_OP_reshape: return true;
    case PM_OP_attention: return form == ROWS_TOKENS && pm_op_i64(op, "causal");
    case PM_OP_rms_norm:
    case PM_OP_layer_norm: return op->results[0]->type->rank > (form == ROWS_TOKENS ? 2 : 1);
    default: return pm_op_info_of(op)->traits & PM_T_ELEMENTWISE;
    }
}

/// Whether each row of the results depends on the operands' same row alone.
static bool is_row_wise(const selection *s, const pm_op *op)
{
    row_form form = op->n_results ? form_of(s, op->results[0]->type) : ROWS_NONE;
    bool has_rows = false;
    if ((form != ROWS_TOKENS && form != ROWS_FLAT) || !can_be_row_wise(op, form))
        return false;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        bool is_shape = op->code == PM_OP_reshape && i == 1;
        row_form f = op->operands[i] && !is_shape ? form_of(s, op->operands[i]->type) : ROWS_NONE;
        if (f == ROWS_UNKNOWN || (f != ROWS_NONE && f != form && op->code != PM_OP_reshape))
            return false;
        has_rows = has_rows || f != ROWS_NONE;
    }
    return has_rows;
}

/// From the last op to the first: is any user, or the entry's result, in need of all rows?
static void mark_whole(selection *s, pm_graph *g)
{
    for (size_t i = 0; i < g->results.n; i++)
        if (g->results.data[i]->def)
            s->whole[g->results.data[i]->def->mark] = true;
    for (pm_op *op = g->last; op; op = op->prev) {
        bool used = false;
        for (uint32_t r = 0; r < op->n_results; r++)
            for (const pm_use *use = op->results[r]->uses; use; use = use->next) {
                used = true;
                if (use->op->code != PM_OP_last_rows && s->whole[use->op->mark])
                    s->whole[op->mark] = true;
            }
        if (op->code == PM_OP_last_rows)
            s->whole[op->mark] = false;
        else if (!used || !is_row_wise(s, op))
            s->whole[op->mark] = true;
    }
}

/// The value for the last tokens: known, the same for all, or taken from all rows here.
static pm_status select_value(selection *s, pm_builder *b, pm_value *v, pm_value **out)
{
    *out = v;
    row_form form = v ? form_of(s, v->type) : ROWS_NONE;
    if (form == ROWS_NONE)
        return PM_OK;
    *out = pm_value_map_get(&s->selected, v);
    if (*out)
        return PM_OK;
    pm_dim dims[PM_MAX_RANK];
    pm_dim inner = pm_dim_const(s->m, 1);
    for (int32_t i = form == ROWS_TOKENS ? 2 : 1; i < v->type->rank; i++)
        inner = pm_dim_mul(s->m, inner, v->type->dims[i]);
    const pm_dim all[] = {s->batch, s->tokens, inner};
    pm_value *rows;
    PM_TRY(pm_build_reshape_dims(b, v, 3, all, &rows));
    PM_TRY(pm_build1(b, &rows, PM_OP_last_rows, PM_OPERANDS(rows), PM_NO_ATTRS));
    selected_dims(s, v->type, dims);
    PM_TRY(pm_build_reshape_dims(b, rows, v->type->rank, dims, out));
    pm_value_map_put(&s->selected, v, *out);
    return PM_OK;
}

/// Positions before the last token: past + T - 1.
static pm_status last_position(selection *s, pm_builder *b, pm_value *past, pm_value **out)
{
    pm_dim before = pm_dim_sub(s->m, s->tokens, pm_dim_const(s->m, 1));
    pm_value *n;
    PM_TRY(pm_build_dims(b, 1, &before, &n));
    return pm_build1(b, out, PM_OP_add, PM_OPERANDS(past, n), PM_NO_ATTRS);
}

static pm_status select_op(selection *s, pm_op *op)
{
    pm_builder b = {op->graph, op, pm_loc_derive(s->m, op->loc, "last-rows")};
    pm_dim dims[PM_MAX_RANK];
    pm_value *x;
    if (op->code == PM_OP_reshape) {
        PM_TRY(select_value(s, &b, op->operands[0], &x));
        selected_dims(s, op->results[0]->type, dims);
        PM_TRY(pm_build_reshape_dims(&b, x, op->results[0]->type->rank, dims, &x));
        pm_value_map_put(&s->selected, op->results[0], x);
        return PM_OK;
    }
    pm_map none;
    pm_op *copy;
    pm_map_init(&none, s->m->arena);
    PM_TRY(pm_op_clone(op, op->graph, op, &none, &copy));
    b.before = copy;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        PM_TRY(select_value(s, &b, op->operands[i], &x));
        pm_op_set_operand(copy, i, x);
    }
    if (op->code == PM_OP_attention) {
        PM_TRY(last_position(s, &b, op->operands[3], &x));
        pm_op_set_operand(copy, 3, x);
    }
    PM_TRY(pm_op_infer(copy));
    for (uint32_t i = 0; i < op->n_results; i++)
        pm_value_map_put(&s->selected, op->results[i], copy->results[i]);
    pm_pass_count(s->ctx, "ops for the last rows alone");
    return PM_OK;
}

static pm_status select_rows(pm_pass_ctx *ctx, pm_graph *g, const pm_type *type)
{
    pm_module *m = ctx->module;
    selection s = {.ctx = ctx, .m = m, .batch = type->dims[0], .tokens = type->dims[1]};
    s.rows = pm_dim_mul(m, s.batch, s.tokens);
    pm_map_init(&s.selected, m->arena);
    uint32_t n = 0;
    for (pm_op *op = g->first; op; op = op->next)
        op->mark = n++;
    s.whole = PM_NEW_ARRAY(m->arena, bool, n + 1);
    mark_whole(&s, g);
    for (pm_op *op = g->first, *next; op; op = next) {
        next = op->next;
        pm_value *rows;
        if (s.whole[op->mark])
            continue;
        if (op->code != PM_OP_last_rows) {
            PM_TRY(select_op(&s, op));
            continue;
        }
        if (op->operands[0]->type != type ||
            !(rows = pm_value_map_get(&s.selected, op->operands[0])))
            continue; // nothing to gain
        pm_value_replace(op->results[0], rows);
        pm_pass_changed(ctx);
    }
    return PM_OK;
}

pm_status pm_pass_last_rows(pm_pass_ctx *ctx)
{
    for (size_t i = 0; i < ctx->module->entries.n; i++) {
        pm_graph *g = ctx->module->entries.data[i];
        const pm_type *type = NULL;
        for (pm_op *op = g->last, *prev; op; op = prev) {
            prev = op->prev;
            if (op->code != PM_OP_last_rows)
                continue;
            int64_t tokens;
            pm_value *x = op->operands[0];
            if (pm_dim_is_const(ctx->module, x->type->dims[1], &tokens) && tokens == 1) {
                pm_value_replace(op->results[0], x);
                pm_op_erase(op);
                pm_pass_changed(ctx);
            } else {
                type = x->type;
            }
        }
        if (type)
            PM_TRY(select_rows(ctx, g, type));
    }
    return PM_OK;
}
