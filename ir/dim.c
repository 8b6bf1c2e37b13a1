/// Symbolic dims: interned integer expressions in canonical form.
///
/// A canonical expression is a sum ((t1 + t2) + t3) + c of terms in falling structural order; a
/// term is a product ((a1 * a2) * a3) * c of atoms in order with the constant last; an atom is a
/// symbol or a div, mod, min, max of canonical expressions. The order depends on names and
/// structure alone, never on ids, so that a module that is printed and parsed again has the same
/// text.
///
/// Arithmetic that overflows, or an expression that grows beyond MAX_SIZE nodes, becomes the one
/// expression floordiv(1, 0), which absorbs everything; inference refuses it. So trees are bounded,
/// and so is the recursion on them.
#include <inttypes.h>

#include "ir/interner.h"

enum {
    MAX_SIZE = 2048,  ///< nodes of one expression
    MAX_TERMS = 1024, ///< terms of one sum
    MAX_ATOMS = 64,   ///< atoms of one product
    MAX_CHOICES = 16, ///< operands of nested min or max that are looked at together
};

/* ---- nodes ----------------------------------------------------------------------------------- */

static pm_dim intern(pm_module *m, pm_dim_kind kind, int64_t value, pm_dim a, pm_dim b)
{
    struct pm_interner *in = m->interner;
    uint32_t size = 1;
    if (a >= 0)
        size += pm_dim_node_of(m, a)->size;
    if (b >= 0)
        size += pm_dim_node_of(m, b)->size;
    if (size > MAX_SIZE)
        return in->too_large;
    const struct {
        int64_t kind, value;
        pm_dim a, b;
    } key = {(int64_t)kind, value, a, b};
    void **slot = pm_map_at(&in->dim_ids, &key, sizeof key);
    if (*slot == NULL) {
        PM_ASSERT(in->dims.n < INT32_MAX);
        PM_PUSH(m->arena, &in->dims, ((pm_dim_node){kind, size, value, a, b}));
        *slot = (void *)(uintptr_t)in->dims.n;
    }
    return (pm_dim)((uintptr_t)*slot - 1);
}

void pm_dims_init(pm_module *m)
{
    struct pm_interner *in = m->interner;
    pm_map_init(&in->dim_ids, m->arena);
    pm_map_init(&in->symbol_ids, m->arena);
    pm_map_init(&in->symbol_counter, m->arena);
    in->zero = intern(m, PM_DIM_CONST, 0, PM_DIM_NONE, PM_DIM_NONE);
    in->one = intern(m, PM_DIM_CONST, 1, PM_DIM_NONE, PM_DIM_NONE);
    in->too_large = intern(m, PM_DIM_FLOORDIV, 0, in->one, in->zero);
}

pm_dim pm_dim_const(pm_module *m, int64_t value)
{
    return intern(m, PM_DIM_CONST, value, PM_DIM_NONE, PM_DIM_NONE);
}

bool pm_dim_is_const(const pm_module *m, pm_dim d, int64_t *out_value)
{
    if (d < 0 || pm_dim_node_of(m, d)->kind != PM_DIM_CONST)
        return false;
    if (out_value)
        *out_value = pm_dim_node_of(m, d)->value;
    return true;
}

bool pm_dim_is_symbol(const pm_module *m, pm_dim d, uint32_t *out_symbol)
{
    if (d < 0 || pm_dim_node_of(m, d)->kind != PM_DIM_SYMBOL)
        return false;
    if (out_symbol)
        *out_symbol = (uint32_t)pm_dim_node_of(m, d)->value;
    return true;
}

bool pm_dim_is_error(const pm_module *m, pm_dim d)
{
    return d == m->interner->too_large;
}

pm_dim_info pm_dim_get(const pm_module *m, pm_dim d)
{
    const pm_dim_node *n = pm_dim_node_of(m, d);
    return (pm_dim_info){n->kind, n->value, n->a, n->b};
}

/* ---- symbols --------------------------------------------------------------------------------- */

pm_dim pm_dim_find(const pm_module *m, const char *name)
{
    uintptr_t index = (uintptr_t)pm_map_get_str(&m->interner->symbol_ids, name);
    if (index == 0)
        return PM_DIM_NONE;
    return intern((pm_module *)m, PM_DIM_SYMBOL, (int64_t)index - 1, PM_DIM_NONE, PM_DIM_NONE);
}

pm_dim pm_dim_symbol(pm_module *m, const char *name, int64_t lo, int64_t hi)
{
    struct pm_interner *in = m->interner;
    const char *unique = name;
    if (pm_map_get_str(&in->symbol_ids, name)) {
        uintptr_t *counter = (uintptr_t *)pm_map_at(&in->symbol_counter, name, strlen(name));
        do {
            *counter += 1;
            unique = pm_arena_printf(m->arena, "%s_%" PRIuPTR, name, *counter);
        } while (pm_map_get_str(&in->symbol_ids, unique));
    }
    pm_symbol symbol = {.name = pm_intern(m, unique), .lo = lo, .hi = hi, .bound = PM_DIM_NONE};
    PM_PUSH(m->arena, &m->symbols, symbol);
    pm_map_put_str(&in->symbol_ids, unique, (void *)(uintptr_t)m->symbols.n);
    return intern(m, PM_DIM_SYMBOL, (int64_t)m->symbols.n - 1, PM_DIM_NONE, PM_DIM_NONE);
}

pm_dim pm_dim_fresh(pm_module *m, const char *name, pm_dim bound)
{
    // the bound is kept free of data-dependent symbols, so that bounds never chain
    bound = pm_dim_upper(m, bound);
    int64_t lo, hi = INT64_MAX;
    if (bound != PM_DIM_NONE)
        pm_dim_range(m, bound, &lo, &hi);
    pm_dim d = pm_dim_symbol(m, name, 0, hi < 0 ? 0 : hi);
    pm_symbol *symbol = &m->symbols.data[m->symbols.n - 1];
    symbol->data_dependent = true;
    symbol->bound = bound;
    return d;
}

/* ---- structural order ------------------------------------------------------------------------ */

static int rank_of(pm_dim_kind kind)
{
    switch (kind) {
    case PM_DIM_MUL: return 0;
    case PM_DIM_FLOORDIV: return 1;
    case PM_DIM_CEILDIV: return 2;
    case PM_DIM_MOD: return 3;
    case PM_DIM_MIN: return 4;
    case PM_DIM_MAX: return 5;
    case PM_DIM_SYMBOL: return 6;
    case PM_DIM_ADD: return 7;
    case PM_DIM_CONST: return 8;
    }
    return 9;
}

/// Total order of canonical expressions: products, functions, symbols by name, sums, constants.
static int compare(const pm_module *m, pm_dim x, pm_dim y)
{
    for (;;) {
        if (x == y)
            return 0;
        const pm_dim_node *a = pm_dim_node_of(m, x), *b = pm_dim_node_of(m, y);
        if (a->kind != b->kind)
            return rank_of(a->kind) - rank_of(b->kind);
        if (a->kind == PM_DIM_CONST)
            return a->value < b->value ? -1 : 1;
        if (a->kind == PM_DIM_SYMBOL)
            return strcmp(m->symbols.data[a->value].name, m->symbols.data[b->value].name);
        int order = compare(m, a->a, b->a);
        if (order != 0)
            return order;
        x = a->b;
        y = b->b;
    }
}

/* ---- polynomials ----------------------------------------------------------------------------- */

/// coef * mono; mono is a product of atoms, or the constant 1.
typedef struct term {
    pm_dim mono;
    int64_t coef;
} term;

/// Terms in order, no coefficient 0.
typedef struct poly {
    size_t n;
    term terms[MAX_TERMS];
} poly;

static term term_of(const pm_module *m, pm_dim d)
{
    const pm_dim_node *n = pm_dim_node_of(m, d);
    if (n->kind == PM_DIM_CONST)
        return (term){m->interner->one, n->value};
    if (n->kind == PM_DIM_MUL && pm_dim_node_of(m, n->b)->kind == PM_DIM_CONST)
        return (term){n->a, pm_dim_node_of(m, n->b)->value};
    return (term){d, 1};
}

static void poly_of(const pm_module *m, pm_dim d, poly *out)
{
    size_t n = 0;
    for (pm_dim rest = d;;) {
        const pm_dim_node *x = pm_dim_node_of(m, rest);
        bool sum = x->kind == PM_DIM_ADD;
        PM_ASSERT(n < MAX_TERMS);
        out->terms[n++] = term_of(m, sum ? x->b : rest);
        if (!sum)
            break;
        rest = x->a;
    }
    for (size_t i = 0; i < n / 2; i++) {
        term swap = out->terms[i];
        out->terms[i] = out->terms[n - 1 - i];
        out->terms[n - 1 - i] = swap;
    }
    out->n = n == 1 && out->terms[0].coef == 0 ? 0 : n;
}

static pm_dim poly_build(pm_module *m, const poly *p)
{
    pm_dim sum = m->interner->zero;
    for (size_t i = 0; i < p->n; i++) {
        term t = p->terms[i];
        pm_dim d = t.mono;
        if (t.mono == m->interner->one)
            d = pm_dim_const(m, t.coef);
        else if (t.coef != 1)
            d = intern(m, PM_DIM_MUL, 0, t.mono, pm_dim_const(m, t.coef));
        sum = i == 0 ? d : intern(m, PM_DIM_ADD, 0, sum, d);
        if (sum == m->interner->too_large || d == m->interner->too_large)
            return m->interner->too_large;
    }
    return sum;
}

/// out = a + factor * b; false on overflow or too many terms. `out` is neither of the others.
static bool poly_add(const pm_module *m, const poly *a, const poly *b, int64_t factor, poly *out)
{
    size_t i = 0, j = 0;
    out->n = 0;
    while (i < a->n || j < b->n) {
        int order = i == a->n ? 1 : j == b->n ? -1 : compare(m, a->terms[i].mono, b->terms[j].mono);
        term t = {0};
        if (order <= 0)
            t = a->terms[i++];
        if (order >= 0) {
            int64_t scaled;
            if (!pm_mul_i64(b->terms[j].coef, factor, &scaled) ||
                !pm_add_i64(t.coef, scaled, &t.coef))
                return false;
            t.mono = b->terms[j++].mono;
        }
        if (t.coef == 0)
            continue;
        if (out->n == MAX_TERMS)
            return false;
        out->terms[out->n++] = t;
    }
    return true;
}

/// Adds one term in place; false on overflow or too many terms.
static bool poly_add_term(const pm_module *m, poly *p, term t)
{
    size_t lo = 0, hi = p->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int order = compare(m, p->terms[mid].mono, t.mono);
        if (order == 0) {
            if (!pm_add_i64(p->terms[mid].coef, t.coef, &p->terms[mid].coef))
                return false;
            if (p->terms[mid].coef == 0) {
                memmove(&p->terms[mid], &p->terms[mid + 1], (p->n - mid - 1) * sizeof(term));
                p->n--;
            }
            return true;
        }
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (t.coef == 0)
        return true;
    if (p->n == MAX_TERMS)
        return false;
    memmove(&p->terms[lo + 1], &p->terms[lo], (p->n - lo) * sizeof(term));
    p->terms[lo] = t;
    p->n++;
    return true;
}

/// The atoms of a product, in order; false when there are too many.
static bool atoms_of(const pm_module *m, pm_dim mono, pm_dim *atoms, size_t *out_n)
{
    size_t n = 0;
    *out_n = 0;
    if (mono == m->interner->one)
        return true;
    for (pm_dim rest = mono;;) {
        const pm_dim_node *x = pm_dim_node_of(m, rest);
        if (n == MAX_ATOMS)
            return false;
        atoms[n++] = x->kind == PM_DIM_MUL ? x->b : rest;
        if (x->kind != PM_DIM_MUL)
            break;
        rest = x->a;
    }
    for (size_t i = 0; i < n / 2; i++) {
        pm_dim swap = atoms[i];
        atoms[i] = atoms[n - 1 - i];
        atoms[n - 1 - i] = swap;
    }
    *out_n = n;
    return true;
}

static pm_dim mono_build(pm_module *m, const pm_dim *atoms, size_t n)
{
    pm_dim mono = n == 0 ? m->interner->one : atoms[0];
    for (size_t i = 1; i < n; i++) {
        mono = intern(m, PM_DIM_MUL, 0, mono, atoms[i]);
        if (mono == m->interner->too_large)
            break;
    }
    return mono;
}

/// The product of two products of atoms; PM_DIM_NONE when too large.
static pm_dim mono_mul(pm_module *m, pm_dim x, pm_dim y)
{
    pm_dim a[MAX_ATOMS], b[MAX_ATOMS], all[2 * MAX_ATOMS];
    size_t n_a, n_b, n = 0, i = 0, j = 0;
    if (x == m->interner->one || y == m->interner->one)
        return x == m->interner->one ? y : x;
    if (!atoms_of(m, x, a, &n_a) || !atoms_of(m, y, b, &n_b) || n_a + n_b > MAX_ATOMS)
        return PM_DIM_NONE;
    while (i < n_a || j < n_b) {
        bool first = j == n_b || (i < n_a && compare(m, a[i], b[j]) <= 0);
        all[n++] = first ? a[i++] : b[j++];
    }
    pm_dim mono = mono_build(m, all, n);
    return mono == m->interner->too_large ? PM_DIM_NONE : mono;
}

/// x without the atoms of y; PM_DIM_NONE when y doesn't divide x.
static pm_dim mono_div(pm_module *m, pm_dim x, pm_dim y)
{
    pm_dim a[MAX_ATOMS], b[MAX_ATOMS];
    size_t n_a, n_b, n = 0, j = 0;
    if (!atoms_of(m, x, a, &n_a) || !atoms_of(m, y, b, &n_b))
        return PM_DIM_NONE;
    for (size_t i = 0; i < n_a; i++) {
        if (j < n_b && a[i] == b[j])
            j++;
        else
            a[n++] = a[i];
    }
    return j == n_b ? mono_build(m, a, n) : PM_DIM_NONE;
}

/// p += factor * t * q; false when too large.
static bool poly_add_product(pm_module *m, poly *p, const poly *q, term t, int64_t factor)
{
    for (size_t i = 0; i < q->n; i++) {
        term product = {mono_mul(m, t.mono, q->terms[i].mono), 0};
        if (product.mono == PM_DIM_NONE || !pm_mul_i64(t.coef, q->terms[i].coef, &product.coef) ||
            !pm_mul_i64(product.coef, factor, &product.coef) || !poly_add_term(m, p, product))
            return false;
    }
    return true;
}

/// The quotient when b divides a as a polynomial, else PM_DIM_NONE. `a` is used up.
static pm_dim divide_exactly(pm_module *m, poly *a, const poly *b)
{
    enum { MAX_STEPS = 64 };
    poly quotient = {.n = 0};
    for (int step = 0; a->n > 0; step++) {
        if (step == MAX_STEPS || b->n == 0 || b->terms[0].coef == 0 ||
            a->terms[0].coef % b->terms[0].coef != 0 ||
            (a->terms[0].coef == INT64_MIN && b->terms[0].coef == -1))
            return PM_DIM_NONE;
        term t = {mono_div(m, a->terms[0].mono, b->terms[0].mono),
                  a->terms[0].coef / b->terms[0].coef};
        if (t.mono == PM_DIM_NONE || !poly_add_term(m, &quotient, t) ||
            !poly_add_product(m, a, b, t, -1))
            return PM_DIM_NONE;
    }
    return poly_build(m, &quotient);
}

/* ---- ranges ---------------------------------------------------------------------------------- */

typedef struct range {
    int64_t lo, hi; ///< INT64_MIN and INT64_MAX stand for unlimited
} range;

static const range anything = {INT64_MIN, INT64_MAX};

static int64_t add_limit(int64_t a, int64_t b, int64_t unlimited)
{
    int64_t sum;
    if (a == unlimited || b == unlimited)
        return unlimited;
    if (!pm_add_i64(a, b, &sum))
        return a < 0 ? INT64_MIN : INT64_MAX;
    return sum;
}

static range range_add(range a, range b)
{
    return (range){add_limit(a.lo, b.lo, INT64_MIN), add_limit(a.hi, b.hi, INT64_MAX)};
}

static int64_t mul_limit(int64_t a, int64_t b)
{
    int64_t product;
    if (!pm_mul_i64(a, b, &product))
        return (a < 0) == (b < 0) ? INT64_MAX : INT64_MIN;
    // an unlimited factor stays unlimited, also times 1 and -1
    if (product != 0 && (a == INT64_MIN || a == INT64_MAX || b == INT64_MIN || b == INT64_MAX))
        return product < 0 ? INT64_MIN : INT64_MAX;
    return product;
}

static range range_mul(range a, range b)
{
    int64_t products[4] = {mul_limit(a.lo, b.lo), mul_limit(a.lo, b.hi), mul_limit(a.hi, b.lo),
                           mul_limit(a.hi, b.hi)};
    range r = {products[0], products[0]};
    for (int i = 1; i < 4; i++) {
        r.lo = products[i] < r.lo ? products[i] : r.lo;
        r.hi = products[i] > r.hi ? products[i] : r.hi;
    }
    return r;
}

static range range_div(range a, range b, int64_t divide(int64_t, int64_t))
{
    if (b.lo < 0)
        return anything;
    if (b.lo == 0) // zero has no quotient, so the others decide
        b.lo = 1;
    if (b.hi < b.lo)
        return anything;
    range r;
    r.lo = a.lo == INT64_MIN ? INT64_MIN : divide(a.lo, a.lo < 0 ? b.lo : b.hi);
    r.hi = a.hi == INT64_MAX ? INT64_MAX : divide(a.hi, a.hi < 0 ? b.hi : b.lo);
    return r;
}

static range range_of(const pm_module *m, pm_dim d)
{
    const pm_dim_node *n = pm_dim_node_of(m, d);
    if (n->kind == PM_DIM_CONST)
        return (range){n->value, n->value};
    if (n->kind == PM_DIM_SYMBOL) {
        const pm_symbol *s = &m->symbols.data[n->value];
        return (range){s->lo, s->hi};
    }
    if (d == m->interner->too_large)
        return anything;
    range a = range_of(m, n->a), b = range_of(m, n->b);
    switch (n->kind) {
    case PM_DIM_ADD: return range_add(a, b);
    case PM_DIM_MUL: return range_mul(a, b);
    case PM_DIM_FLOORDIV: return range_div(a, b, pm_floor_div);
    case PM_DIM_CEILDIV: return range_div(a, b, pm_ceil_div);
    case PM_DIM_MOD:
        if (b.lo < 0)
            return anything;
        b.hi = b.hi == INT64_MAX || b.hi == 0 ? b.hi : b.hi - 1;
        return (range){0, a.lo >= 0 && a.hi < b.hi ? a.hi : b.hi};
    case PM_DIM_MIN: return (range){a.lo < b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi};
    case PM_DIM_MAX: return (range){a.lo > b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
    case PM_DIM_CONST:
    case PM_DIM_SYMBOL: break;
    }
    return anything;
}

void pm_dim_range(const pm_module *m, pm_dim d, int64_t *out_lo, int64_t *out_hi)
{
    range r = d == PM_DIM_NONE ? anything : range_of(m, d);
    *out_lo = r.lo;
    *out_hi = r.hi;
}

static range poly_range(const pm_module *m, const poly *p)
{
    range sum = {0, 0};
    for (size_t i = 0; i < p->n; i++)
        sum = range_add(sum, range_mul(range_of(m, p->terms[i].mono),
                                       (range){p->terms[i].coef, p->terms[i].coef}));
    return sum;
}

/// Range of a - b, where equal terms cancel.
static range difference(const pm_module *m, pm_dim a, pm_dim b)
{
    poly x, y, z;
    poly_of(m, a, &x);
    poly_of(m, b, &y);
    if (!poly_add(m, &x, &y, -1, &z))
        return anything;
    return poly_range(m, &z);
}

bool pm_dim_differs(const pm_module *m, pm_dim a, pm_dim b)
{
    if (a < 0 || b < 0 || a == b)
        return false;
    range r = difference(m, a, b);
    return r.lo > 0 || r.hi < 0;
}

bool pm_dim_at_most(const pm_module *m, pm_dim a, pm_dim b)
{
    if (a < 0 || b < 0)
        return false;
    return a == b || difference(m, a, b).hi <= 0;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/// True when the result of any arithmetic on a and b is already known; it is in *out.
static bool absorbs(const pm_module *m, pm_dim a, pm_dim b, pm_dim *out)
{
    *out = PM_DIM_NONE;
    if (a == PM_DIM_NONE || b == PM_DIM_NONE)
        return true;
    *out = m->interner->too_large;
    return a == *out || b == *out;
}

static pm_dim add_scaled(pm_module *m, pm_dim a, pm_dim b, int64_t factor)
{
    pm_dim known;
    if (absorbs(m, a, b, &known))
        return known;
    int64_t x, y;
    if (pm_dim_is_const(m, b, &y)) {
        if (y == 0)
            return a;
        if (pm_dim_is_const(m, a, &x) && pm_mul_i64(y, factor, &y) && pm_add_i64(x, y, &x))
            return pm_dim_const(m, x);
    }
    poly p, q, sum;
    poly_of(m, a, &p);
    poly_of(m, b, &q);
    return poly_add(m, &p, &q, factor, &sum) ? poly_build(m, &sum) : m->interner->too_large;
}

pm_dim pm_dim_add(pm_module *m, pm_dim a, pm_dim b)
{
    return add_scaled(m, a, b, 1);
}

pm_dim pm_dim_sub(pm_module *m, pm_dim a, pm_dim b)
{
    return add_scaled(m, a, b, -1);
}

pm_dim pm_dim_mul(pm_module *m, pm_dim a, pm_dim b)
{
    pm_dim known;
    if (absorbs(m, a, b, &known))
        return known;
    struct pm_interner *in = m->interner;
    if (a == in->zero || b == in->zero)
        return in->zero;
    if (a == in->one || b == in->one)
        return a == in->one ? b : a;
    int64_t x, y;
    if (pm_dim_is_const(m, a, &x) && pm_dim_is_const(m, b, &y))
        return pm_mul_i64(x, y, &x) ? pm_dim_const(m, x) : in->too_large;
    poly p, q, product = {.n = 0};
    poly_of(m, a, &p);
    poly_of(m, b, &q);
    if (p.n * q.n > MAX_TERMS)
        return in->too_large;
    for (size_t i = 0; i < p.n; i++)
        if (!poly_add_product(m, &product, &q, p.terms[i], 1))
            return in->too_large;
    return poly_build(m, &product);
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/// The greatest common divisor of all coefficients (positive; 0 for the zero polynomial, 1 when
/// one of them has no absolute value).
static int64_t content_gcd(const poly *p)
{
    int64_t divisor = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->terms[i].coef == INT64_MIN)
            return 1;
        divisor = gcd(divisor, p->terms[i].coef < 0 ? -p->terms[i].coef : p->terms[i].coef);
    }
    return divisor;
}

static void scale_down(poly *p, int64_t divisor)
{
    for (size_t i = 0; i < p->n; i++)
        p->terms[i].coef /= divisor;
}

/// Moves the terms of p that are multiples of the constant c, divided by it, to out.
static void take_multiples(poly *p, int64_t c, poly *out)
{
    size_t kept = 0;
    out->n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->terms[i].coef % c == 0)
            out->terms[out->n++] = (term){p->terms[i].mono, p->terms[i].coef / c};
        else
            p->terms[kept++] = p->terms[i];
    }
    p->n = kept;
}

/// floordiv and ceildiv.
static pm_dim divide(pm_module *m, pm_dim_kind kind, pm_dim a, pm_dim b)
{
    pm_dim known;
    if (absorbs(m, a, b, &known))
        return known;
    struct pm_interner *in = m->interner;
    bool up = kind == PM_DIM_CEILDIV;
    int64_t x, y = 0;
    if (b == in->zero)
        return in->too_large;
    if (b == in->one || a == in->zero)
        return a;
    bool by_const = pm_dim_is_const(m, b, &y);
    if (by_const && pm_dim_is_const(m, a, &x)) {
        if (x == INT64_MIN && y == -1)
            return in->too_large;
        return pm_dim_const(m, up ? pm_ceil_div(x, y) : pm_floor_div(x, y));
    }
    poly p, q, rest;
    poly_of(m, a, &p);
    poly_of(m, b, &q);
    rest = p;
    pm_dim exact = divide_exactly(m, &rest, &q);
    if (exact != PM_DIM_NONE)
        return exact;

    range r_a = range_of(m, a);
    range less = difference(m, b, a);
    if (!up && r_a.lo >= 0 && less.lo >= 1)
        return in->zero;
    if (up && r_a.lo >= 1 && less.lo >= 0)
        return in->one;
    if (by_const && y > 1) {
        // (c*x + r) div c = x + r div c
        take_multiples(&p, y, &rest);
        if (rest.n > 0)
            return pm_dim_add(m, poly_build(m, &rest), divide(m, kind, poly_build(m, &p), b));
    }
    int64_t common = gcd(content_gcd(&p), content_gcd(&q));
    if (common > 1) {
        scale_down(&p, common);
        scale_down(&q, common);
        return divide(m, kind, poly_build(m, &p), poly_build(m, &q));
    }
    // (x div i) div j = x div (i*j)
    const pm_dim_node *inner = pm_dim_node_of(m, a);
    int64_t divisor, product;
    if (inner->kind == kind && by_const && y > 0 && pm_dim_is_const(m, inner->b, &divisor) &&
        divisor > 0 && pm_mul_i64(divisor, y, &product))
        return divide(m, kind, inner->a, pm_dim_const(m, product));
    return intern(m, kind, 0, a, b);
}

pm_dim pm_dim_floordiv(pm_module *m, pm_dim a, pm_dim b)
{
    return divide(m, PM_DIM_FLOORDIV, a, b);
}

pm_dim pm_dim_ceildiv(pm_module *m, pm_dim a, pm_dim b)
{
    return divide(m, PM_DIM_CEILDIV, a, b);
}

pm_dim pm_dim_mod(pm_module *m, pm_dim a, pm_dim b)
{
    pm_dim known;
    if (absorbs(m, a, b, &known))
        return known;
    struct pm_interner *in = m->interner;
    int64_t x, y = 0;
    if (b == in->zero)
        return in->too_large;
    if (b == in->one || a == in->zero)
        return in->zero;
    bool by_const = pm_dim_is_const(m, b, &y);
    if (by_const && pm_dim_is_const(m, a, &x))
        return y == -1 ? in->zero : pm_dim_const(m, pm_floor_mod(x, y));
    poly p, q, rest;
    poly_of(m, a, &p);
    poly_of(m, b, &q);
    rest = p;
    if (divide_exactly(m, &rest, &q) != PM_DIM_NONE)
        return in->zero;
    if (range_of(m, a).lo >= 0 && difference(m, b, a).lo >= 1)
        return a;
    if (by_const && y > 1) {
        bool changed = false;
        size_t kept = 0;
        for (size_t i = 0; i < p.n; i++) {
            int64_t coef = pm_floor_mod(p.terms[i].coef, y);
            changed |= coef != p.terms[i].coef;
            if (coef != 0)
                p.terms[kept++] = (term){p.terms[i].mono, coef};
        }
        p.n = kept;
        if (changed)
            return pm_dim_mod(m, poly_build(m, &p), b);
    }
    return intern(m, PM_DIM_MOD, 0, a, b);
}

/// The operands of nested min (max), smaller sign: -1 for min, 1 for max.
static pm_dim choose(pm_module *m, pm_dim_kind kind, pm_dim a, pm_dim b)
{
    pm_dim known;
    if (absorbs(m, a, b, &known))
        return known;
    if (a == b)
        return a;
    pm_dim choices[MAX_CHOICES];
    size_t n = 0;
    pm_dim sides[2] = {a, b};
    for (int side = 0; side < 2; side++) {
        pm_dim rest = sides[side];
        while (pm_dim_node_of(m, rest)->kind == kind && n < MAX_CHOICES - 2) {
            choices[n++] = pm_dim_node_of(m, rest)->b;
            rest = pm_dim_node_of(m, rest)->a;
        }
        choices[n++] = rest;
    }
    // drop what another operand makes superfluous
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            if (i == j)
                continue;
            range less = difference(m, choices[j], choices[i]); // j - i
            bool drop_i =
                choices[i] == choices[j] || (kind == PM_DIM_MIN ? less.hi <= 0 : less.lo >= 0);
            if (drop_i) {
                choices[i--] = choices[--n];
                break;
            }
        }
    }
    for (size_t i = 1; i < n; i++) { // insertion sort: n is small
        pm_dim x = choices[i];
        size_t j = i;
        for (; j > 0 && compare(m, choices[j - 1], x) > 0; j--)
            choices[j] = choices[j - 1];
        choices[j] = x;
    }
    pm_dim d = choices[0];
    for (size_t i = 1; i < n && d != m->interner->too_large; i++)
        d = intern(m, kind, 0, d, choices[i]);
    return d;
}

pm_dim pm_dim_min(pm_module *m, pm_dim a, pm_dim b)
{
    return choose(m, PM_DIM_MIN, a, b);
}

pm_dim pm_dim_max(pm_module *m, pm_dim a, pm_dim b)
{
    return choose(m, PM_DIM_MAX, a, b);
}
