/// What is done with symbolic dims once they are built: replacing symbols, bounds, values, text.
/// Recursion is bounded by the size of an expression (see dim.c).
#include <inttypes.h>

#include "base/str.h"
#include "ir/interner.h"

enum { MAX_BOUND_DEPTH = 16 }; ///< symbols bounded by symbols bounded by …

typedef struct range {
    int64_t lo, hi;
} range;

static range range_of(const pm_module *m, pm_dim d)
{
    range r;
    pm_dim_range(m, d, &r.lo, &r.hi);
    return r;
}

/* ---- replacing ------------------------------------------------------------------------------- */

bool pm_dim_find_symbol(const pm_module *m, pm_dim d,
                        bool test(const pm_module *m, uint32_t symbol, const void *arg),
                        const void *arg, uint32_t *out_symbol)
{
    if (d < 0)
        return false;
    const pm_dim_node *n = pm_dim_node_of(m, d);
    if (n->kind == PM_DIM_CONST)
        return false;
    if (n->kind == PM_DIM_SYMBOL) {
        *out_symbol = (uint32_t)n->value;
        return test(m, *out_symbol, arg);
    }
    return pm_dim_find_symbol(m, n->a, test, arg, out_symbol) ||
           pm_dim_find_symbol(m, n->b, test, arg, out_symbol);
}

static bool is_dynamic(const pm_module *m, uint32_t symbol, const void *unused)
{
    (void)unused;
    return m->symbols.data[symbol].data_dependent;
}

bool pm_dim_is_dynamic(const pm_module *m, pm_dim d)
{
    uint32_t symbol;
    return pm_dim_find_symbol(m, d, is_dynamic, NULL, &symbol);
}

static bool is_same(const pm_module *m, uint32_t symbol, const void *wanted)
{
    (void)m;
    return symbol == *(const uint32_t *)wanted;
}

bool pm_dim_mentions(const pm_module *m, pm_dim d, uint32_t symbol)
{
    uint32_t found;
    return pm_dim_find_symbol(m, d, is_same, &symbol, &found);
}

pm_dim pm_dim_combine(pm_module *m, pm_dim_kind kind, pm_dim a, pm_dim b)
{
    switch (kind) {
    case PM_DIM_ADD: return pm_dim_add(m, a, b);
    case PM_DIM_MUL: return pm_dim_mul(m, a, b);
    case PM_DIM_FLOORDIV: return pm_dim_floordiv(m, a, b);
    case PM_DIM_CEILDIV: return pm_dim_ceildiv(m, a, b);
    case PM_DIM_MOD: return pm_dim_mod(m, a, b);
    case PM_DIM_MIN: return pm_dim_min(m, a, b);
    case PM_DIM_MAX: return pm_dim_max(m, a, b);
    case PM_DIM_CONST:
    case PM_DIM_SYMBOL: break;
    }
    return PM_DIM_NONE;
}

pm_dim pm_dim_replace(pm_module *m, pm_dim d, uint32_t symbol, pm_dim value)
{
    if (d < 0 || !pm_dim_mentions(m, d, symbol))
        return d;
    if (pm_dim_node_of(m, d)->kind == PM_DIM_SYMBOL)
        return value;
    pm_dim_node n = *pm_dim_node_of(m, d); // copied: interning may move the nodes
    pm_dim a = pm_dim_replace(m, n.a, symbol, value);
    return pm_dim_combine(m, n.kind, a, pm_dim_replace(m, n.b, symbol, value));
}

static pm_dim upper(pm_module *m, pm_dim d, int bound_depth);

/// Upper bound of a product: factors that are never negative grow it.
static pm_dim upper_product(pm_module *m, pm_dim d, const pm_dim_node *n, int bound_depth)
{
    int64_t c;
    if (pm_dim_is_const(m, n->b, &c) && c < 0) {
        // the smaller, the larger: only a constant lower bound is known
        range r = range_of(m, n->a);
        int64_t product;
        if (r.lo == INT64_MIN || !pm_mul_i64(r.lo, c, &product))
            return PM_DIM_NONE;
        return pm_dim_const(m, product);
    }
    if (range_of(m, n->a).lo < 0 || range_of(m, n->b).lo < 0) {
        range r = range_of(m, d);
        return r.hi == INT64_MAX ? PM_DIM_NONE : pm_dim_const(m, r.hi);
    }
    pm_dim a = upper(m, n->a, bound_depth);
    return pm_dim_mul(m, a, upper(m, n->b, bound_depth));
}

static pm_dim upper(pm_module *m, pm_dim d, int bound_depth)
{
    if (d == PM_DIM_NONE || !pm_dim_is_dynamic(m, d))
        return d;
    pm_dim_node n = *pm_dim_node_of(m, d);
    if (n.kind == PM_DIM_SYMBOL) {
        pm_dim bound = m->symbols.data[n.value].bound;
        return bound_depth == MAX_BOUND_DEPTH ? PM_DIM_NONE : upper(m, bound, bound_depth + 1);
    }
    if (n.kind == PM_DIM_MUL)
        return upper_product(m, d, &n, bound_depth);
    pm_dim a = upper(m, n.a, bound_depth);
    pm_dim b = upper(m, n.b, bound_depth);
    switch (n.kind) {
    case PM_DIM_FLOORDIV:
    case PM_DIM_CEILDIV:
        if (range_of(m, n.a).lo < 0 || range_of(m, n.b).lo < 0)
            return PM_DIM_NONE;
        return pm_dim_is_dynamic(m, n.b) ? a : pm_dim_combine(m, n.kind, a, n.b);
    case PM_DIM_MOD:
        if (range_of(m, n.b).lo < 0)
            return PM_DIM_NONE;
        return pm_dim_sub(m, b, m->interner->one);
    case PM_DIM_MIN:
        if (a == PM_DIM_NONE || b == PM_DIM_NONE)
            return a == PM_DIM_NONE ? b : a; // either one bounds the smaller
        return pm_dim_min(m, a, b);
    default: return pm_dim_combine(m, n.kind, a, b);
    }
}

pm_dim pm_dim_upper(pm_module *m, pm_dim d)
{
    pm_dim bound = upper(m, d, 0);
    return bound == m->interner->too_large ? PM_DIM_NONE : bound;
}

/* ---- evaluation and text --------------------------------------------------------------------- */

static bool eval_binary(pm_dim_kind kind, int64_t a, int64_t b, int64_t *out)
{
    switch (kind) {
    case PM_DIM_ADD: return pm_add_i64(a, b, out);
    case PM_DIM_MUL: return pm_mul_i64(a, b, out);
    case PM_DIM_MIN: *out = a < b ? a : b; return true;
    case PM_DIM_MAX: *out = a > b ? a : b; return true;
    case PM_DIM_FLOORDIV:
    case PM_DIM_CEILDIV:
    case PM_DIM_MOD:
        if (b == 0 || (a == INT64_MIN && b == -1))
            return false;
        *out = kind == PM_DIM_MOD        ? pm_floor_mod(a, b)
               : kind == PM_DIM_FLOORDIV ? pm_floor_div(a, b)
                                         : pm_ceil_div(a, b);
        return true;
    case PM_DIM_CONST:
    case PM_DIM_SYMBOL: break;
    }
    return false;
}

bool pm_dim_eval(const pm_module *m, pm_dim d, const int64_t *bindings, int64_t *out_value)
{
    if (d < 0)
        return false;
    const pm_dim_node *n = pm_dim_node_of(m, d);
    if (n->kind == PM_DIM_CONST) {
        *out_value = n->value;
        return true;
    }
    if (n->kind == PM_DIM_SYMBOL) {
        *out_value = bindings[n->value];
        return *out_value != -1;
    }
    int64_t a, b;
    return pm_dim_eval(m, n->a, bindings, &a) && pm_dim_eval(m, n->b, bindings, &b) &&
           eval_binary(n->kind, a, b, out_value);
}

static bool is_identifier(const char *name)
{
    static const char *const reserved[] = {"floordiv", "ceildiv", "mod", "min", "max"};
    for (size_t i = 0; i < PM_COUNT(reserved); i++)
        if (strcmp(name, reserved[i]) == 0)
            return false;
    for (size_t i = 0; name[i]; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i > 0 && ((c >= '0' && c <= '9') || c == '.')))
            return false;
    }
    return name[0] != 0;
}

static void add_symbol_name(pm_str *text, const char *name)
{
    if (is_identifier(name)) {
        pm_str_add(text, name);
        return;
    }
    pm_str_add_char(text, '"');
    for (const char *c = name; *c; c++) {
        if (*c == '"' || *c == '\\')
            pm_str_printf(text, "\\%c", *c);
        else if ((unsigned char)*c < 0x20 || *c == 0x7f)
            pm_str_printf(text, "\\x%02x", (unsigned char)*c);
        else
            pm_str_add_char(text, *c);
    }
    pm_str_add_char(text, '"');
}

static void add_text(const pm_module *m, pm_str *text, pm_dim d);

static void add_product(const pm_module *m, pm_str *text, pm_dim mono)
{
    const pm_dim_node *n = pm_dim_node_of(m, mono);
    if (n->kind != PM_DIM_MUL) {
        add_text(m, text, mono);
        return;
    }
    add_product(m, text, n->a);
    pm_str_add_char(text, '*');
    add_text(m, text, n->b);
}

/// One term, its sign apart (the sign of a first term is printed with it).
static void add_term(const pm_module *m, pm_str *text, pm_dim d, bool first)
{
    const pm_dim_node *n = pm_dim_node_of(m, d);
    pm_dim mono = d; // times coef
    int64_t coef = 1;
    if (n->kind == PM_DIM_CONST) {
        mono = m->interner->one;
        coef = n->value;
    } else if (n->kind == PM_DIM_MUL && pm_dim_is_const(m, n->b, &coef)) {
        mono = n->a;
    }
    if (!first)
        pm_str_add(text, coef < 0 ? " - " : " + ");
    else if (coef < 0)
        pm_str_add_char(text, '-');
    uint64_t size = coef < 0 ? -(uint64_t)coef : (uint64_t)coef;
    if (mono == m->interner->one) {
        pm_str_printf(text, "%" PRIu64, size);
        return;
    }
    if (size != 1)
        pm_str_printf(text, "%" PRIu64 "*", size);
    add_product(m, text, mono);
}

static void add_sum(const pm_module *m, pm_str *text, pm_dim d)
{
    const pm_dim_node *n = pm_dim_node_of(m, d);
    if (n->kind != PM_DIM_ADD) {
        add_term(m, text, d, true);
        return;
    }
    add_sum(m, text, n->a);
    add_term(m, text, n->b, false);
}

static void add_text(const pm_module *m, pm_str *text, pm_dim d)
{
    static const char *const names[] = {
        [PM_DIM_FLOORDIV] = "floordiv", [PM_DIM_CEILDIV] = "ceildiv", [PM_DIM_MOD] = "mod",
        [PM_DIM_MIN] = "min",           [PM_DIM_MAX] = "max",
    };
    const pm_dim_node *n = pm_dim_node_of(m, d);
    switch (n->kind) {
    case PM_DIM_SYMBOL: add_symbol_name(text, m->symbols.data[n->value].name); return;
    case PM_DIM_CONST:
    case PM_DIM_ADD:
    case PM_DIM_MUL: add_sum(m, text, d); return;
    default: break;
    }
    pm_str_printf(text, "%s(", names[n->kind]);
    add_text(m, text, n->a);
    pm_str_add(text, ", ");
    add_text(m, text, n->b);
    pm_str_add_char(text, ')');
}

char *pm_dim_text(pm_module *m, pm_dim d)
{
    pm_str text = pm_str_new(m->arena);
    if (d == PM_DIM_NONE)
        pm_str_add_char(&text, '?');
    else
        add_text(m, &text, d);
    return text.data;
}
