/// Simplifying min and max by cases: an extent is 0 or it isn't.
///
/// Slices and broadcasts of symbolic extents make expressions such as min(T, 1)*T, which is T whether
/// T is 0 or not. Arithmetic alone can't see that: its operands are looked at one by one.
#include "ir/interner.h"

enum {
    MAX_SYMBOLS = 12, ///< of an expression that is looked at
    MAX_DEPTH = 3,    ///< cases within cases
};

typedef struct symbol_list {
    uint32_t symbols[MAX_SYMBOLS];
    size_t n;
    bool has_choice; ///< a min or a max is there
    bool too_many;
} symbol_list;

/// The symbols that may be 0 and needn't be.
static void collect(const pm_module *m, pm_dim d, symbol_list *out)
{
    const pm_dim_node *n = pm_dim_node_of(m, d);
    if (n->kind == PM_DIM_CONST || out->too_many)
        return;
    if (n->kind != PM_DIM_SYMBOL) {
        out->has_choice |= n->kind == PM_DIM_MIN || n->kind == PM_DIM_MAX;
        collect(m, n->a, out);
        collect(m, n->b, out);
        return;
    }
    const pm_symbol *s = &m->symbols.data[n->value];
    for (size_t i = 0; i < out->n; i++)
        if (out->symbols[i] == (uint32_t)n->value)
            return;
    if (s->lo != 0 || s->hi <= 0)
        return;
    out->too_many = out->n == MAX_SYMBOLS;
    if (!out->too_many)
        out->symbols[out->n++] = (uint32_t)n->value;
}

/// `d` built again: simplified by what is known of its symbols now.
static pm_dim rebuild(pm_module *m, pm_dim d)
{
    pm_dim_node n = *pm_dim_node_of(m, d); // copied: interning may move the nodes
    if (n.kind == PM_DIM_CONST || n.kind == PM_DIM_SYMBOL)
        return d;
    pm_dim a = rebuild(m, n.a);
    return pm_dim_combine(m, n.kind, a, rebuild(m, n.b));
}

static pm_dim rebuild_above_zero(pm_module *m, pm_dim d, const symbol_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        m->symbols.data[list->symbols[i]].lo = 1;
    pm_dim out = rebuild(m, d);
    for (size_t i = 0; i < list->n; i++)
        m->symbols.data[list->symbols[i]].lo = 0;
    return out;
}

/// `d` where the symbol is 0; so are then those that it bounds.
static pm_dim at_zero(pm_module *m, pm_dim d, uint32_t symbol, const symbol_list *list)
{
    pm_dim zero = pm_dim_const(m, 0);
    d = pm_dim_replace(m, d, symbol, zero);
    for (size_t i = 0; i < list->n; i++) {
        pm_dim bound = m->symbols.data[list->symbols[i]].bound;
        if (list->symbols[i] != symbol && bound != PM_DIM_NONE &&
            pm_dim_replace(m, bound, symbol, zero) == zero)
            d = pm_dim_replace(m, d, list->symbols[i], zero);
    }
    return d;
}

static pm_dim simplify(pm_module *m, pm_dim d, int depth)
{
    symbol_list list = {.n = 0};
    if (d == PM_DIM_NONE || pm_dim_is_error(m, d))
        return d;
    collect(m, d, &list);
    if (!list.has_choice || list.too_many || list.n == 0 || depth == MAX_DEPTH)
        return d;
    // right where no symbol is 0; elsewhere only if it agrees with d
    pm_dim above = rebuild_above_zero(m, d, &list);
    if (above == d || pm_dim_is_error(m, above))
        return d;
    for (size_t i = 0; i < list.n; i++) {
        pm_dim was = at_zero(m, d, list.symbols[i], &list);
        pm_dim is = at_zero(m, above, list.symbols[i], &list);
        if (was != is && simplify(m, was, depth + 1) != simplify(m, is, depth + 1))
            return d;
    }
    return above;
}

pm_dim pm_dim_simplify(pm_module *m, pm_dim d)
{
    return simplify(m, d, 0);
}
