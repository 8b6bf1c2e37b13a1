/// Extents that must be equal become one expression, so that types say what a model's author knows.
///
/// Broadcasts, concatenations, products and reshapes are equations between extents. Each is solved for
/// the symbol that is found last: a data-dependent one, or else an input's. The symbol's value takes its
/// place everywhere, and nothing is taken on trust: inputs are compared with their types when an entry is
/// called, and an op that finds its extents while the program runs compares them with its result's type.
/// So a program whose extents differ after all is refused with a message, where it stood in a broadcast of
/// unequal symbols, also if one of them would have been 1.
///
/// An op whose extents couldn't be known when it was made is inferred again: its shape may be a constant
/// by now. Linear in the number of ops, for a few rounds.
#include <string.h>

#include "ir/builder.h"
#include "ir/extent_rules.h"
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

enum { MAX_ROUNDS = 6 };

typedef struct solver {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_arena *scratch;
    pm_graph_vec graphs;
    size_t n_symbols;
    pm_dim *value;         ///< by symbol; PM_DIM_NONE: stays
    uint32_t *found_at;    ///< by symbol: the number of the op that finds it; 0: known from the start
    bool takes_inputs;     ///< symbols of inputs may be replaced
    bool progress;
    PM_VEC(pm_dim) mapped; ///< by pm_dim: what it became + 1; 0: not looked at yet
    pm_map types;          ///< pm_type id -> const pm_type *
} solver;

/* ---- replacing ------------------------------------------------------------------------------- */

static bool is_replaced(const pm_module *m, uint32_t symbol, const void *arg)
{
    const solver *s = arg;
    (void)m;
    return symbol < s->n_symbols && s->value[symbol] != PM_DIM_NONE;
}

/// `d` with all that is known by now. Values mention only symbols that are found earlier: it ends.
static pm_dim resolve(solver *s, pm_dim d)
{
    uint32_t symbol;
    if (d < 0)
        return d;
    pm_dim out = d;
    while (pm_dim_find_symbol(s->m, out, is_replaced, s, &symbol))
        out = pm_dim_replace(s->m, out, symbol, s->value[symbol]);
    return out == d ? d : pm_dim_simplify(s->m, out);
}

static pm_dim map_dim(solver *s, pm_dim d)
{
    while (s->mapped.n <= (size_t)d)
        PM_PUSH(s->scratch, &s->mapped, 0);
    if (s->mapped.data[d] == 0) {
        pm_dim out = resolve(s, d);
        s->mapped.data[d] = out + 1;
    }
    return s->mapped.data[d] - 1;
}

static const pm_type *map_type(solver *s, const pm_type *type)
{
    void **slot = pm_map_at(&s->types, &type->id, sizeof type->id);
    if (*slot == NULL) {
        pm_dim dims[PM_MAX_RANK];
        for (int32_t i = 0; i < type->rank; i++)
            dims[i] = map_dim(s, type->dims[i]);
        *slot = (void *)(type->layout ? pm_type_packed(s->m, type->elem, type->rank, dims, *type->layout)
                                      : pm_type_get(s->m, type->elem, type->rank, dims));
    }
    return *slot;
}

static void map_value(solver *s, pm_value *v)
{
    int64_t n;
    if (v->content && pm_type_const_count(s->m, v->type, &n)) {
        pm_dim *content = NULL;
        for (int64_t i = 0; i < n; i++) {
            pm_dim d = map_dim(s, v->content[i]);
            if (d != v->content[i] && content == NULL) {
                content = PM_NEW_ARRAY(s->m->arena, pm_dim, (size_t)n);
                memcpy(content, v->content, (size_t)n * sizeof *content);
            }
            if (content)
                content[i] = d;
        }
        if (content)
            v->content = content;
    }
    v->type = map_type(s, v->type);
}

/// What was solved takes its place in the whole module.
static void replace_all(solver *s)
{
    s->mapped.n = 0;
    pm_map_init(&s->types, s->scratch);
    for (size_t i = 0; i < s->graphs.n; i++) {
        pm_graph *g = s->graphs.data[i];
        for (size_t k = 0; k < g->args.n; k++)
            map_value(s, g->args.data[k]);
        for (pm_op *op = g->first; op; op = op->next)
            for (uint32_t k = 0; k < op->n_results; k++)
                map_value(s, op->results[k]);
    }
    for (size_t i = 0; i < s->n_symbols; i++) {
        pm_symbol *symbol = &s->m->symbols.data[i];
        if (symbol->bound != PM_DIM_NONE)
            symbol->bound = map_dim(s, symbol->bound);
    }
}

/* ---- equations ------------------------------------------------------------------------------- */

/// The symbol of `d` that is found last.
typedef struct latest {
    const solver *s;
    uint32_t symbol;
    bool any;
} latest;

static bool is_later(const solver *s, uint32_t a, uint32_t b)
{
    if (s->found_at[a] != s->found_at[b])
        return s->found_at[a] > s->found_at[b];
    return a > b;
}

static bool note_latest(const pm_module *m, uint32_t symbol, const void *arg)
{
    latest *l = (latest *)arg;
    (void)m;
    if (symbol < l->s->n_symbols && (!l->any || is_later(l->s, symbol, l->symbol))) {
        l->symbol = symbol;
        l->any = true;
    }
    return false; // look at all of them
}

/// Solves a == b for the symbol that is found last, where it stands in a linear term.
static void equate(solver *s, pm_dim a, pm_dim b, bool may_be_const)
{
    pm_module *m = s->m;
    uint32_t unused;
    int64_t factor;
    a = resolve(s, a);
    b = resolve(s, b);
    if (a == b)
        return;
    pm_dim difference = pm_dim_sub(m, a, b);
    if (difference == PM_DIM_NONE || pm_dim_is_error(m, difference))
        return;
    latest l = {.s = s};
    pm_dim_find_symbol(m, difference, note_latest, &l, &unused);
    if (!l.any)
        return;
    const pm_symbol *symbol = &m->symbols.data[l.symbol];
    if (!symbol->data_dependent && !s->takes_inputs)
        return;
    // difference = factor * symbol + rest
    pm_dim rest = pm_dim_replace(m, difference, l.symbol, pm_dim_const(m, 0));
    pm_dim self = pm_dim_find(m, symbol->name);
    pm_dim linear = pm_dim_sub(m, pm_dim_replace(m, difference, l.symbol, pm_dim_const(m, 1)), rest);
    if (!pm_dim_is_const(m, linear, &factor) || factor == 0 || factor == INT64_MIN ||
        pm_dim_add(m, pm_dim_mul(m, linear, self), rest) != difference)
        return;
    if (factor > 0)
        rest = pm_dim_sub(m, pm_dim_const(m, 0), rest);
    pm_dim divisor = pm_dim_const(m, factor < 0 ? -factor : factor);
    if (pm_dim_mod(m, rest, divisor) != pm_dim_const(m, 0))
        return;
    pm_dim value = pm_dim_floordiv(m, rest, divisor);
    int64_t lo, hi;
    pm_dim_range(m, value, &lo, &hi);
    if (hi < symbol->lo || lo > symbol->hi || pm_dim_is_error(m, value) ||
        (pm_dim_is_const(m, value, NULL) && !(may_be_const && symbol->data_dependent)))
        return; // it can't be: the op says so, or refuses
    s->value[l.symbol] = value;
    s->progress = true;
    pm_pass_count(s->ctx, symbol->data_dependent ? "extents found are known" : "symbols unified");
}

/// Two extents of which one may be broadcast: only where both may be greater than 1 are they taken to be equal.
static void equate_broadcast(solver *s, pm_dim a, pm_dim b)
{
    int64_t lo, hi_a, hi_b;
    pm_dim_range(s->m, a, &lo, &hi_a);
    pm_dim_range(s->m, b, &lo, &hi_b);
    if (hi_a > 1 && hi_b > 1 && !pm_dim_is_const(s->m, a, NULL) && !pm_dim_is_const(s->m, b, NULL))
        equate(s, a, b, false);
}

static void equate_rule(void *user, pm_dim a, pm_dim b, bool broadcast)
{
    if (broadcast)
        equate_broadcast(user, a, b);
    else
        equate(user, a, b, true);
}

/* ---- inference, again ------------------------------------------------------------------------ */

static bool finds_symbol(const solver *s, const pm_op *op, uint32_t result, int32_t axis,
                         uint32_t *out_symbol)
{
    const pm_type *type = op->results[result]->type;
    return pm_dim_is_symbol(s->m, type->dims[axis], out_symbol) && *out_symbol < s->n_symbols &&
           s->m->symbols.data[*out_symbol].data_dependent && !pm_op_takes_symbol(op, *out_symbol);
}

static bool has_open_extents(const solver *s, const pm_op *op)
{
    uint32_t symbol;
    for (uint32_t i = 0; i < op->n_results; i++)
        for (int32_t k = 0; k < op->results[i]->type->rank; k++)
            if (finds_symbol(s, op, i, k, &symbol))
                return true;
    return false;
}

/// A list of integers whose content isn't known.
static bool has_open_content(const solver *s, const pm_op *op)
{
    int64_t n;
    if (op->n_results != 1 || op->results[0]->content)
        return false;
    const pm_type *type = op->results[0]->type;
    return type->rank <= 1 && !pm_elem_is_float(type->elem) && pm_type_const_count(s->m, type, &n) &&
           (pm_op_info_of(op)->traits & (PM_T_ELEMENTWISE | PM_T_REDUCE) ||
            op->code == PM_OP_slice || op->code == PM_OP_gather ||
            op->code == PM_OP_concat || op->code == PM_OP_reshape);
}

/// Infers the op again. Its types stay: what it knows of the extents that it found becomes values.
static pm_status infer_again(solver *s, pm_op *op)
{
    enum { FEW = 8 };
    const pm_type *few[FEW], **old = few;
    uint32_t symbol;
    if (op->is_clone || op->n_regions)
        return PM_OK;
    if (op->n_results > FEW)
        old = PM_NEW_ARRAY(s->scratch, const pm_type *, op->n_results);
    for (uint32_t i = 0; i < op->n_results; i++)
        old[i] = op->results[i]->type;
    PM_TRY(pm_op_infer(op));
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *is = op->results[i]->type;
        op->results[i]->type = old[i];
        for (int32_t k = 0; k < is->rank; k++) {
            pm_dim value = resolve(s, is->dims[k]);
            if (!finds_symbol(s, op, i, k, &symbol) || s->value[symbol] != PM_DIM_NONE ||
                pm_dim_mentions(s->m, value, symbol))
                continue;
            s->value[symbol] = value;
            s->progress = true;
            pm_pass_count(s->ctx, "extents found are known");
        }
    }
    return PM_OK;
}

/* ---- the pass -------------------------------------------------------------------------------- */

static void number_symbols(solver *s)
{
    uint32_t number = 1, symbol;
    for (size_t i = 0; i < s->graphs.n; i++)
        for (pm_op *op = s->graphs.data[i]->first; op; op = op->next, number++)
            for (uint32_t k = 0; k < op->n_results; k++)
                for (int32_t d = 0; d < op->results[k]->type->rank; d++)
                    if (pm_dim_is_symbol(s->m, op->results[k]->type->dims[d], &symbol) &&
                        s->m->symbols.data[symbol].data_dependent && s->found_at[symbol] == 0)
                        s->found_at[symbol] = number;
}

static bool is_used(const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++)
        if (pm_value_is_used(op->results[i]))
            return true;
    return false;
}

static pm_status run_round(solver *s)
{
    s->progress = false;
    // what stands in a region may never run: it says nothing of the extents outside
    for (size_t i = 0; i < s->m->entries.n; i++)
        for (pm_op *op = s->m->entries.data[i]->first; op; op = op->next)
            if (is_used(op)) {
                if (has_open_extents(s, op) || has_open_content(s, op))
                    PM_TRY(infer_again(s, op));
                pm_op_extent_rules(op, equate_rule, s);
            }
    if (s->progress) {
        replace_all(s);
        pm_pass_changed(s->ctx);
    }
    return PM_OK;
}

/// Equations that no extents fulfil show when they are put in: an op whose operands can't go together. That is the
/// model's fault.
static pm_status check_ops(const solver *s)
{
    for (size_t i = 0; i < s->graphs.n; i++)
        for (pm_op *op = s->graphs.data[i]->first; op; op = op->next)
            if (pm_op_check(op) != PM_OK) {
                pm_note(s->m->diag, op->loc, "the extents of the model contradict one another");
                return PM_ERR_INVALID;
            }
    return PM_OK;
}

pm_status pm_pass_extents(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_arena *scratch = pm_arena_child(m->arena);
    solver s = {.ctx = ctx,
                .m = m,
                .scratch = scratch,
                .n_symbols = m->symbols.n,
                .value = PM_NEW_ARRAY(scratch, pm_dim, m->symbols.n + 1),
                .found_at = PM_NEW_ARRAY(scratch, uint32_t, m->symbols.n + 1),
                .takes_inputs = m->entries.n == 1 && m->states.n == 0,
                .progress = true};
    for (size_t i = 0; i < m->symbols.n; i++)
        s.value[i] = PM_DIM_NONE;
    pm_graphs_of(m, scratch, &s.graphs);
    number_symbols(&s);
    pm_status status = PM_OK;
    for (int round = 0; round < MAX_ROUNDS && s.progress && status == PM_OK; round++)
        status = run_round(&s);
    if (status == PM_OK && ctx->changes)
        status = check_ops(&s);
    pm_arena_destroy(scratch);
    return status;
}
