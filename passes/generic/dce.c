/// Dead code: ops whose results nobody uses. One walk from the end, so that whole chains go.
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

typedef struct sweeper {
    pm_pass_ctx *ctx;
    pm_id_set results; ///< values that a graph gives
    pm_map types;      ///< those whose symbols are noted
    uint8_t *needed;   ///< by symbol: mentioned by what stays
    bool dynamic;      ///< there are data-dependent symbols at all
} sweeper;

static bool is_unnoted(const pm_module *m, uint32_t symbol, const void *needed)
{
    return m->symbols.data[symbol].data_dependent && !((const uint8_t *)needed)[symbol];
}

static void need_extent(sweeper *s, pm_dim dim)
{
    uint32_t symbol;
    while (pm_dim_find_symbol(s->ctx->module, dim, is_unnoted, s->needed, &symbol))
        s->needed[symbol] = 1;
}

/// What is kept may mention extents that another op finds, without using that op's results.
static void need_extents(sweeper *s, const pm_value *v)
{
    int64_t n;
    void **noted = pm_map_at(&s->types, &v->type->id, sizeof v->type->id);
    if (!*noted) {
        *noted = s;
        for (int32_t i = 0; i < v->type->rank; i++)
            need_extent(s, v->type->dims[i]);
    }
    if (pm_value_is(v, PM_OP_dims) && pm_type_const_count(s->ctx->module, v->type, &n))
        for (int64_t i = 0; i < n; i++)
            need_extent(s, v->content[i]);
}

/// True when the op finds an extent that something behind it mentions.
static bool finds_needed(const sweeper *s, const pm_op *op)
{
    uint32_t symbol;
    for (uint32_t i = 0; i < op->n_results; i++)
        for (int32_t k = 0; k < op->results[i]->type->rank; k++)
            if (pm_dim_is_symbol(s->ctx->module, op->results[i]->type->dims[k], &symbol) &&
                s->needed[symbol] && !pm_op_takes_symbol(op, symbol))
                return true;
    return false;
}

static bool is_kept(const sweeper *s, const pm_op *op)
{
    if (op->n_results == 0)
        return pm_op_info_of(op)->traits & PM_T_IMPURE;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (op->results[i]->uses || pm_id_set_has(&s->results, op->results[i]->id))
            return true;
    return s->dynamic && finds_needed(s, op);
}

static void sweep(sweeper *s, pm_graph *g)
{
    for (size_t i = 0; i < g->results.n; i++)
        pm_id_set_add(&s->results, g->results.data[i]->id);
    for (pm_op *op = g->last, *prev; op; op = prev) {
        prev = op->prev;
        if (!is_kept(s, op)) {
            pm_op_erase(op);
            pm_pass_changed(s->ctx);
            pm_pass_count(s->ctx, "removed");
            continue;
        }
        for (uint32_t i = 0; i < op->n_results && s->dynamic; i++)
            need_extents(s, op->results[i]);
    }
}

pm_status pm_pass_dce(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_arena *scratch = pm_arena_child(m->arena);
    pm_graph_vec graphs;
    sweeper s = {.ctx = ctx, .results = pm_id_set_create(scratch, m->next_value),
                 .needed = PM_NEW_ARRAY(scratch, uint8_t, m->symbols.n + 1)};
    for (size_t i = 0; i < m->symbols.n; i++)
        s.dynamic = s.dynamic || m->symbols.data[i].data_dependent;
    pm_map_init(&s.types, scratch);
    pm_graphs_of(m, scratch, &graphs);
    for (size_t i = 0; i < graphs.n; i++) {
        // a region whose op is gone went with it
        if (graphs.data[i]->parent && !graphs.data[i]->parent->graph)
            continue;
        sweep(&s, graphs.data[i]);
    }
    pm_arena_destroy(scratch);
    return PM_OK;
}
