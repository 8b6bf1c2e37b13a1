/// Random modules. Each value carries what is known of its elements: an interval, and for floats
/// whether they are exact, that is sums of few powers of two that every order of computing in f32
/// gives alike. Ops are chosen so that intervals stay moderate, and ops that decide something take
/// exact operands only: so two correct implementations differ by rounding alone.
#include "tests/unit/random_graph.h"

#include <inttypes.h>
#include <math.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "ir/text.h"

enum {
    MAX_ITEMS = 256,
    MAX_ELEMENTS = 20000, ///< of a value, for the largest symbols
    EXACT_BITS = 20,      ///< of an exact f32 value; the rest is room for a reduction
    MAX_MAGNITUDE = 512,
};

/// A value of the graph.
typedef struct item {
    pm_value *value;
    double lo, hi; ///< every element is in between
    bool exact;
    int bits_below; ///< exact floats: multiples of 2^-bits_below
} item;

typedef struct gen {
    random_state random;
    unsigned what;
    pm_module *module;
    pm_builder b;
    pm_dim batch, tokens;
    item items[MAX_ITEMS];
    size_t n_items;
    bool failed; ///< a builder refused: a bug
} gen;

// ---- numbers ----

uint64_t random_next(random_state *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t random_below(random_state *r, uint32_t n)
{
    return (uint32_t)((random_next(r) >> 32) * n >> 32);
}

static uint32_t below(gen *g, uint32_t n)
{
    return random_below(&g->random, n);
}

static bool chance(gen *g, uint32_t percent)
{
    return below(g, 100) < percent;
}

static double magnitude(const item *x)
{
    return fmax(fabs(x->lo), fabs(x->hi));
}

// ---- values ----

/// Largest number of elements of a type; a large number when unlimited.
static double most_elements(const gen *g, const pm_type *type)
{
    double count = 1;
    for (int32_t i = 0; i < type->rank; i++) {
        int64_t lo = 0, hi = 0;
        pm_dim_range(g->module, type->dims[i], &lo, &hi);
        count *= (double)hi;
    }
    return count;
}

static int64_t highest(const gen *g, pm_dim dim)
{
    int64_t lo = 0, hi = 0;
    pm_dim_range(g->module, dim, &lo, &hi);
    return hi;
}

static const pm_type *type_of(const item *x)
{
    return x->value->type;
}

static bool is_exact_range(double limit, int bits_below)
{
    return limit < MAX_MAGNITUDE * 8 && bits_below + (int)ceil(log2(limit + 1)) <= EXACT_BITS;
}

/// Adds a value unless the pool is full; keeps `exact` honest.
static bool add_item(gen *g, pm_value *value, double lo, double hi, bool exact, int bits_below)
{
    if (g->n_items == MAX_ITEMS)
        return false;
    bool is_wide = pm_elem_size(value->type->elem) >= 4;
    if (pm_elem_is_float(value->type->elem)) {
        exact = exact && is_exact_range(fmax(fabs(lo), fabs(hi)), bits_below);
        // narrow floats hold few bits
        exact = exact && (is_wide || bits_below + log2(fmax(fabs(lo), fabs(hi)) + 1) <= 7);
    }
    g->items[g->n_items++] = (item){value, lo, hi, exact, bits_below};
    return true;
}

static bool build(gen *g, pm_value **out, pm_opcode code, pm_value *const *operands,
                  size_t n_operands, const pm_attr *attrs, size_t n_attrs)
{
    if (pm_build1(&g->b, out, code, operands, n_operands, attrs, n_attrs) == PM_OK)
        return true;
    g->failed = true;
    return false;
}

typedef bool item_test(const gen *g, const item *x);

static bool is_float(const gen *g, const item *x)
{
    (void)g;
    return pm_elem_is_float(type_of(x)->elem);
}

static bool is_f32(const gen *g, const item *x)
{
    (void)g;
    return type_of(x)->elem == PM_F32;
}

static bool is_wide_float(const gen *g, const item *x)
{
    return is_float(g, x) && pm_elem_size(type_of(x)->elem) >= 4;
}

static bool is_matrix(const gen *g, const item *x)
{
    return is_f32(g, x) && type_of(x)->rank >= 2;
}

static bool is_bool(const gen *g, const item *x)
{
    (void)g;
    return type_of(x)->elem == PM_BOOL;
}

static bool is_any(const gen *g, const item *x)
{
    (void)g;
    (void)x;
    return true;
}

static bool has_axes(const gen *g, const item *x)
{
    (void)g;
    return type_of(x)->rank > 0;
}

/// A value that passes, later ones rather than earlier; NULL when there is none.
static item *pick(gen *g, item_test *test)
{
    uint32_t start = below(g, (uint32_t)g->n_items);
    if (chance(g, 50))
        start = (uint32_t)g->n_items - 1 - below(g, (uint32_t)(g->n_items < 6 ? g->n_items : 6));
    for (size_t i = 0; i < g->n_items; i++) {
        item *x = &g->items[(start + i) % g->n_items];
        if (test(g, x))
            return x;
    }
    return NULL;
}

// ---- constants ----

static const pm_type *const_type(gen *g, pm_elem elem, int32_t rank, const int64_t *dims)
{
    pm_dim extents[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        extents[i] = pm_dim_const(g->module, dims[i]);
    return pm_type_get(g->module, elem, rank, extents);
}

/// Writes a float that every type here holds.
static void put_float(pm_elem elem, double value, uint8_t *out)
{
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    if (elem == PM_F64) {
        memcpy(out, &value, sizeof value);
    } else if (elem == PM_F32) {
        memcpy(out, &narrow, sizeof narrow);
    } else if (elem == PM_BF16) {
        uint16_t half = (uint16_t)(bits >> 16);
        memcpy(out, &half, sizeof half);
    } else { // f16: multiples of 1/8 below 4 need no rounding
        uint16_t sign = (uint16_t)(bits >> 16 & 0x8000), half = sign;
        if (value != 0)
            half = (uint16_t)(sign | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
        memcpy(out, &half, sizeof half);
    }
}

/// Multiples of 1/8 in [-limit, limit], or positive ones from 1/8 on.
static pm_value *float_const(gen *g, pm_elem elem, int32_t rank, const int64_t *dims, double limit,
                             bool positive)
{
    const pm_type *type = const_type(g, elem, rank, dims);
    int64_t n = 1;
    (void)pm_type_const_count(g->module, type, &n);
    uint32_t size = pm_elem_size(elem), steps = (uint32_t)(limit * 8);
    uint8_t *bytes = pm_arena_alloc(g->module->arena, (size_t)n * size, 64);
    for (int64_t i = 0; i < n; i++) {
        double step = positive ? 1 + below(g, steps) : (double)below(g, 2 * steps + 1) - steps;
        put_float(elem, step / 8, bytes + i * size);
    }
    pm_data data = {.size = (uint64_t)n * size, .bytes = bytes};
    pm_value *value = NULL;
    if (pm_build_const(&g->b, type, &data, chance(g, 50) ? "w" : NULL, &value) != PM_OK)
        g->failed = true;
    return value;
}

static pm_value *byte_const(gen *g, int64_t rows, int64_t columns, const uint8_t *bytes)
{
    pm_data data = {.size = (uint64_t)(rows * columns), .bytes = bytes};
    pm_value *value = NULL;
    if (pm_build_const(&g->b, const_type(g, PM_U8, 2, (const int64_t[]){rows, columns}), &data, NULL,
                       &value) != PM_OK)
        g->failed = true;
    return value;
}

/// Scales [n, blocks], all `value`, a power of two.
static pm_value *scales_const(gen *g, int64_t n, int64_t blocks, double value)
{
    static const pm_elem elems[] = {PM_F32, PM_F16, PM_BF16, PM_U8};
    pm_elem elem = elems[below(g, 4)];
    uint8_t *bytes = pm_arena_alloc(g->module->arena, (size_t)(n * blocks) * 4, 64);
    for (int64_t i = 0; i < n * blocks; i++)
        if (elem == PM_U8)
            bytes[i] = (uint8_t)(127 + ilogb(value));
        else
            put_float(elem, value, bytes + i * pm_elem_size(elem));
    if (elem == PM_U8)
        return byte_const(g, n, blocks, bytes);
    pm_data data = {.size = (uint64_t)(n * blocks) * pm_elem_size(elem), .bytes = bytes};
    pm_value *scales = NULL;
    if (pm_build_const(&g->b, const_type(g, elem, 2, (const int64_t[]){n, blocks}), &data, NULL,
                       &scales) != PM_OK)
        g->failed = true;
    return scales;
}

/// Weights [n, k] of few bits: multiples of 1/8 within [-1, 1].
static pm_value *lowbit_const(gen *g, int64_t n, int64_t k)
{
    int64_t bits = 2 << below(g, 3), block = chance(g, 60) ? 16 : 0, per = 8 / bits;
    int64_t blocks = block ? (k + 15) / 16 : 1, bytes = (k + per - 1) / per + below(g, 2);
    int64_t each = (blocks + per - 1) / per, middle = 1 << (bits - 1), reach = bits == 2 ? 1 : 8;
    uint8_t *codes = PM_NEW_ARRAY(g->module->arena, uint8_t, (size_t)(n * bytes));
    uint8_t *zeros = PM_NEW_ARRAY(g->module->arena, uint8_t, (size_t)(n * each));
    bool has_zeros = chance(g, 50);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < k; i++) {
            int64_t b = block ? i / block : 0, shift = b % per * bits;
            uint8_t *zero = &zeros[r * each + b / per];
            if (i == b * block)
                *zero |= (uint8_t)((middle - (has_zeros ? below(g, 2) : 0)) << shift);
            int64_t code = (*zero >> shift & ((1 << bits) - 1)) + below(g, (uint32_t)(2 * reach)) - reach;
            code = code < 0 ? 0 : code > 2 * middle - 1 ? 2 * middle - 1 : code;
            codes[r * bytes + i / per] |= (uint8_t)(code << (i % per * bits));
        }
    pm_value *operands[] = {byte_const(g, n, bytes, codes),
                            scales_const(g, n, blocks, bits == 2 ? 0.25 : 0.125),
                            has_zeros ? byte_const(g, n, each, zeros) : NULL};
    const pm_attr attrs[] = {pm_attr_i64("k", k), pm_attr_i64("bits", bits), pm_attr_i64("block", block)};
    pm_value *w = NULL;
    if (g->failed || pm_build1(&g->b, &w, PM_OP_dequantize, operands, has_zeros ? 3 : 2, attrs, 3) != PM_OK)
        g->failed = true;
    return w;
}

static pm_value *int_const(gen *g, pm_elem elem, size_t n, const int64_t *values)
{
    pm_value *value = NULL;
    if (pm_build_const_ints(&g->b, elem, 1, (const int64_t[]){(int64_t)n}, values, &value) != PM_OK)
        g->failed = true;
    return value;
}

static pm_value *int_scalar(gen *g, pm_elem elem, int64_t number)
{
    pm_value *value = NULL;
    if (pm_build_const_ints(&g->b, elem, 0, NULL, &number, &value) != PM_OK)
        g->failed = true;
    return value;
}

// ---- elementwise ----

/// An op of one operand, where it may be used, and how it changes what is known.
typedef struct unary {
    pm_opcode code;
    double lo, hi;    ///< of operands that it takes
    bool needs_exact; ///< jumps somewhere
    bool keeps_exact;
    double (*map)(double x); ///< monotonic: gives the interval; NULL: [out_lo, out_hi]
    double out_lo, out_hi;
} unary;

static double map_neg(double x)
{
    return -x;
}

static double map_rsqrt(double x)
{
    return 1 / sqrt(x);
}

static double map_reciprocal(double x)
{
    return 1 / x;
}

static double map_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double map_relu(double x)
{
    return fmax(x, 0);
}

static double map_softplus(double x)
{
    return log1p(exp(x));
}

static double map_wider(double x) // silu and gelu: not monotonic near -1
{
    return fmax(x, -0.3);
}

static const unary unaries[] = {
    {PM_OP_neg, -1e9, 1e9, false, true, map_neg, 0, 0},
    {PM_OP_abs, -1e9, 1e9, false, true, NULL, 0, 1e9},
    {PM_OP_sign, -1e9, 1e9, true, true, NULL, -1, 1},
    {PM_OP_exp, -20, 3, false, false, exp, 0, 0},
    {PM_OP_log, 0.05, 1e9, false, false, log, 0, 0},
    {PM_OP_sqrt, 0.01, 1e9, false, false, sqrt, 0, 0},
    {PM_OP_rsqrt, 0.05, 1e9, false, false, map_rsqrt, 0, 0},
    {PM_OP_reciprocal, 0.05, 1e9, false, false, map_reciprocal, 0, 0},
    {PM_OP_sin, -20, 20, false, false, NULL, -1, 1},
    {PM_OP_cos, -20, 20, false, false, NULL, -1, 1},
    {PM_OP_asin, -0.9, 0.9, false, false, asin, 0, 0},
    {PM_OP_acos, -0.9, 0.9, false, false, NULL, 0, 3.2},
    {PM_OP_atan, -1e9, 1e9, false, false, atan, 0, 0},
    {PM_OP_tanh, -1e9, 1e9, false, false, tanh, 0, 0},
    {PM_OP_erf, -1e9, 1e9, false, false, erf, 0, 0},
    {PM_OP_sigmoid, -1e9, 1e9, false, false, map_sigmoid, 0, 0},
    {PM_OP_silu, -50, 1e9, false, false, map_wider, 0, 0},
    {PM_OP_relu, -1e9, 1e9, false, true, map_relu, 0, 0},
    {PM_OP_gelu, -50, 1e9, false, false, map_wider, 0, 0},
    {PM_OP_softplus, -50, 50, false, false, map_softplus, 0, 0},
    {PM_OP_floor, -1e9, 1e9, true, true, floor, 0, 0},
    {PM_OP_ceil, -1e9, 1e9, true, true, ceil, 0, 0},
    {PM_OP_round, -1e9, 1e9, true, true, nearbyint, 0, 0},
};

static bool step_unary(gen *g)
{
    item *x = pick(g, is_float);
    const unary *u = &unaries[below(g, PM_COUNT(unaries))];
    bool is_narrow = x != NULL && !is_wide_float(g, x);
    if (x == NULL || x->lo < u->lo || x->hi > u->hi || (u->needs_exact && !x->exact) ||
        (is_narrow && !u->keeps_exact)) // its rounding would show in full
        return false;
    pm_attr tanh_form = pm_attr_bool("tanh", chance(g, 50));
    pm_value *y = NULL;
    if (!build(g, &y, u->code, PM_OPERANDS(x->value), &tanh_form, u->code == PM_OP_gelu))
        return false;
    double a = u->map != NULL ? u->map(x->lo) : u->out_lo;
    double b = u->map != NULL ? u->map(x->hi) : fmin(u->out_hi, fmax(magnitude(x), 1));
    return add_item(g, y, fmin(a, b), fmax(a, b), x->exact && u->keeps_exact, x->bits_below);
}

static bool broadcasts(const gen *g, const pm_type *a, const pm_type *b)
{
    const pm_type *types[2] = {a, b};
    int32_t rank = a->rank < b->rank ? a->rank : b->rank;
    for (int32_t i = 1; i <= rank; i++) {
        pm_dim extents[2];
        bool is_one = false;
        for (int side = 0; side < 2; side++) {
            int64_t extent = 0;
            extents[side] = types[side]->dims[types[side]->rank - i];
            is_one |= pm_dim_is_const(g->module, extents[side], &extent) && extent == 1;
        }
        if (!is_one && extents[0] != extents[1])
            return false;
    }
    return true;
}

/// A second operand for x: a value that broadcasts with it, or a constant made to.
static item other_operand(gen *g, const item *x)
{
    uint32_t start = below(g, (uint32_t)g->n_items);
    for (size_t i = 0; i < g->n_items && !chance(g, 10); i++) {
        item *y = &g->items[(start + i) % g->n_items];
        if (type_of(y)->elem == type_of(x)->elem && broadcasts(g, type_of(x), type_of(y)))
            return *y;
    }
    int64_t last = 1;
    int32_t rank = type_of(x)->rank > 0 && chance(g, 70);
    if (rank == 1 && !pm_dim_is_const(g->module, type_of(x)->dims[type_of(x)->rank - 1], &last))
        last = 1;
    if (pm_elem_is_float(type_of(x)->elem))
        return (item){float_const(g, type_of(x)->elem, rank, &last, 2, false), -2, 2, true, 3};
    if (type_of(x)->elem == PM_BOOL)
        return (item){int_scalar(g, PM_BOOL, below(g, 2)), 0, 1, true, 0};
    int64_t number = below(g, 4) + 1;
    return (item){int_scalar(g, type_of(x)->elem, number), (double)number, (double)number, true, 0};
}

static void product_interval(const item *x, const item *y, double *lo, double *hi)
{
    double corners[4] = {x->lo * y->lo, x->lo * y->hi, x->hi * y->lo, x->hi * y->hi};
    *lo = *hi = corners[0];
    for (int i = 1; i < 4; i++) {
        *lo = fmin(*lo, corners[i]);
        *hi = fmax(*hi, corners[i]);
    }
}

/// The interval of x op y; false when the op does not suit them.
static bool binary_interval(pm_opcode code, const item *x, const item *y, bool floats, double *lo,
                            double *hi)
{
    switch (code) {
    case PM_OP_add: *lo = x->lo + y->lo, *hi = x->hi + y->hi; return true;
    case PM_OP_sub: *lo = x->lo - y->hi, *hi = x->hi - y->lo; return true;
    case PM_OP_min: *lo = fmin(x->lo, y->lo), *hi = fmin(x->hi, y->hi); return true;
    case PM_OP_max: *lo = fmax(x->lo, y->lo), *hi = fmax(x->hi, y->hi); return true;
    case PM_OP_mul: product_interval(x, y, lo, hi); return true;
    case PM_OP_div: {
        item inverse = {.lo = 1 / y->hi, .hi = 1 / y->lo};
        if (y->lo < 0.1)
            return false;
        product_interval(x, &inverse, lo, hi);
        return true;
    }
    case PM_OP_mod: *lo = fmin(x->lo, 0), *hi = fmax(y->hi, 0); return !floats && y->lo >= 1;
    default: return false;
    }
}

static bool step_binary(gen *g)
{
    static const pm_opcode codes[] = {PM_OP_add, PM_OP_sub, PM_OP_mul, PM_OP_div,
                                      PM_OP_min, PM_OP_max, PM_OP_mod};
    item *x = pick(g, is_any);
    if (x == NULL || is_bool(g, x))
        return false;
    item y = other_operand(g, x);
    pm_opcode code = codes[below(g, PM_COUNT(codes))];
    double lo = 0, hi = 0;
    bool floats = is_float(g, x), is_narrow = floats && !is_wide_float(g, x);
    if (y.value == NULL || !binary_interval(code, x, &y, floats, &lo, &hi) ||
        fmax(fabs(lo), fabs(hi)) > MAX_MAGNITUDE)
        return false;
    int bits = code == PM_OP_mul ? x->bits_below + y.bits_below
                                 : (x->bits_below > y.bits_below ? x->bits_below : y.bits_below);
    bool exact = x->exact && y.exact && !(floats && code == PM_OP_div);
    // unsigned elements can't go below zero, narrow floats must stay exact
    bool is_unsigned = !floats && (type_of(x)->elem == PM_U8 || type_of(x)->elem == PM_U32);
    if ((is_unsigned && (lo < 0 || hi > 255)) ||
        (hi > 127 && pm_elem_size(type_of(x)->elem) == 1) ||
        (is_narrow && (!exact || bits + log2(fmax(fabs(lo), fabs(hi)) + 1) > 7)))
        return false;
    pm_value *out = NULL;
    bool swap = chance(g, 30) && (code == PM_OP_add || code == PM_OP_mul || code == PM_OP_max);
    pm_value *operands[2] = {swap ? y.value : x->value, swap ? x->value : y.value};
    if (most_elements(g, type_of(x)) * most_elements(g, y.value->type) > 40.0 * MAX_ELEMENTS)
        return false;
    return build(g, &out, code, operands, 2, NULL, 0) && add_item(g, out, lo, hi, exact, bits);
}

static bool step_compare(gen *g)
{
    static const pm_opcode codes[] = {PM_OP_equal, PM_OP_less, PM_OP_less_equal};
    item *x = pick(g, is_any);
    if (x == NULL || !x->exact || is_bool(g, x))
        return false;
    item y = other_operand(g, x);
    pm_value *out = NULL;
    if (y.value == NULL || !y.exact ||
        most_elements(g, type_of(x)) * most_elements(g, y.value->type) > 40.0 * MAX_ELEMENTS)
        return false;
    return build(g, &out, codes[below(g, PM_COUNT(codes))], PM_OPERANDS(x->value, y.value),
                 PM_NO_ATTRS) &&
           add_item(g, out, 0, 1, true, 0);
}

static bool step_logic(gen *g)
{
    static const pm_opcode codes[] = {PM_OP_and, PM_OP_or, PM_OP_xor};
    item *x = pick(g, is_bool);
    pm_value *out = NULL;
    if (x == NULL)
        return false;
    if (chance(g, 30))
        return build(g, &out, PM_OP_not, PM_OPERANDS(x->value), PM_NO_ATTRS) &&
               add_item(g, out, 0, 1, true, 0);
    item y = other_operand(g, x);
    if (y.value == NULL ||
        most_elements(g, type_of(x)) * most_elements(g, y.value->type) > 40.0 * MAX_ELEMENTS)
        return false;
    return build(g, &out, codes[below(g, PM_COUNT(codes))], PM_OPERANDS(x->value, y.value),
                 PM_NO_ATTRS) &&
           add_item(g, out, 0, 1, true, 0);
}

static bool step_where(gen *g)
{
    item *cond = pick(g, is_bool), *x = pick(g, is_any);
    if (cond == NULL || x == NULL || !broadcasts(g, type_of(cond), type_of(x)))
        return false;
    item y = other_operand(g, x);
    pm_value *out = NULL;
    if (y.value == NULL || !broadcasts(g, type_of(cond), y.value->type) ||
        most_elements(g, type_of(x)) * most_elements(g, y.value->type) *
                most_elements(g, type_of(cond)) >
            40.0 * MAX_ELEMENTS)
        return false;
    return build(g, &out, PM_OP_where, PM_OPERANDS(cond->value, x->value, y.value), PM_NO_ATTRS) &&
           add_item(g, out, fmin(x->lo, y.lo), fmax(x->hi, y.hi), x->exact && y.exact,
                    x->bits_below > y.bits_below ? x->bits_below : y.bits_below);
}

static bool step_pow(gen *g)
{
    static const double exponents[] = {2, 0.5, -1, 3, 1, 0};
    item *x = pick(g, is_wide_float);
    double exponent = exponents[below(g, PM_COUNT(exponents))];
    if (x == NULL || x->lo < 0.1 || pow(x->hi, exponent) > MAX_MAGNITUDE)
        return false;
    float number = (float)exponent;
    pm_value *power = NULL, *out = NULL;
    if (pm_build_const_f32(&g->b, 0, NULL, &number, &power) != PM_OK) {
        g->failed = true;
        return false;
    }
    double a = pow(x->lo, exponent), b = pow(x->hi, exponent);
    return build(g, &out, PM_OP_pow, PM_OPERANDS(x->value, power), PM_NO_ATTRS) &&
           add_item(g, out, fmin(a, b), fmax(a, b), false, 0);
}

static bool step_cast(gen *g)
{
    static const pm_elem elems[] = {PM_F32, PM_I64,  PM_I32, PM_BOOL, PM_F64,
                                    PM_F16, PM_BF16, PM_U8,  PM_I8};
    item *x = pick(g, is_any);
    bool others = g->what & RANDOM_OTHER_ELEMS;
    pm_elem to = elems[below(g, others ? (uint32_t)PM_COUNT(elems) : 4)];
    if (x == NULL || to == type_of(x)->elem)
        return false;
    bool to_float = pm_elem_is_float(to), widens = to == PM_F32 || to == PM_F64;
    double lo = x->lo, hi = x->hi;
    // whatever loses bits decides something
    if (!(widens && is_float(g, x)) && !x->exact)
        return false;
    if ((to == PM_U8 && (lo < 0 || hi > 255)) || (to == PM_I8 && (lo < -128 || hi > 127)))
        return false;
    if (to_float && !widens && x->bits_below + log2(magnitude(x) + 1) > 7)
        return false;
    if (!to_float && to != PM_BOOL)
        lo = trunc(lo), hi = trunc(hi);
    if (to == PM_BOOL)
        lo = 0, hi = 1;
    pm_attr attr = pm_attr_elem("to", to);
    pm_value *out = NULL;
    return build(g, &out, PM_OP_cast, PM_OPERANDS(x->value), &attr, 1) &&
           add_item(g, out, lo, hi, x->exact, to_float ? x->bits_below : 0);
}

// ---- reductions and norms ----

static bool step_reduce(gen *g)
{
    static const pm_opcode codes[] = {PM_OP_reduce_sum, PM_OP_reduce_mean, PM_OP_reduce_max,
                                      PM_OP_reduce_min};
    item *x = pick(g, has_axes);
    pm_opcode code = codes[below(g, PM_COUNT(codes))];
    if (x == NULL || is_bool(g, x) || (is_float(g, x) && !is_wide_float(g, x)) ||
        pm_elem_size(type_of(x)->elem) < 4)
        return false;
    int64_t axes[PM_MAX_RANK];
    size_t n_axes = 0;
    double count = 1;
    for (int32_t i = 0; i < type_of(x)->rank; i++) {
        int64_t low = 0, high = 0;
        pm_dim_range(g->module, type_of(x)->dims[i], &low, &high);
        if (low < 1 || !chance(g, 60))
            continue; // of nothing: no moderate interval
        count *= (double)high;
        axes[n_axes++] = chance(g, 30) ? i - type_of(x)->rank : i;
    }
    bool floats = is_float(g, x), sums = code == PM_OP_reduce_sum;
    if (n_axes == 0 || (code == PM_OP_reduce_mean && !floats) ||
        (sums && magnitude(x) * count > MAX_MAGNITUDE))
        return false;
    pm_attr attrs[2] = {pm_attr_ints("axes", axes, n_axes),
                        pm_attr_bool("keepdims", chance(g, 50))};
    double lo = sums ? fmin(x->lo * count, x->lo) : x->lo;
    double hi = sums ? fmax(x->hi * count, x->hi) : x->hi;
    pm_value *out = NULL;
    return build(g, &out, code, PM_OPERANDS(x->value), attrs, 2) &&
           add_item(g, out, lo, hi, x->exact && code != PM_OP_reduce_mean, x->bits_below);
}

static bool step_softmax(gen *g)
{
    item *x = pick(g, is_wide_float);
    if (x == NULL || type_of(x)->rank == 0 || magnitude(x) > 60)
        return false;
    int64_t axis = below(g, (uint32_t)type_of(x)->rank), lo = 0, hi = 0;
    bool is_log = chance(g, 20);
    pm_attr attrs[2] = {pm_attr_i64("axis", chance(g, 50) ? axis - type_of(x)->rank : axis),
                        pm_attr_bool("log", is_log)};
    pm_dim_range(g->module, type_of(x)->dims[axis], &lo, &hi);
    pm_value *out = NULL;
    return build(g, &out, PM_OP_softmax, PM_OPERANDS(x->value), attrs, 2) &&
           add_item(g, out, is_log ? x->lo - x->hi - log((double)hi + 1) : 0, is_log ? 0 : 1, false,
                    0);
}

static bool step_norm(gen *g)
{
    item *x = pick(g, is_wide_float);
    int64_t n = 0;
    if (x == NULL || type_of(x)->rank == 0 || magnitude(x) > 64 ||
        !pm_dim_is_const(g->module, type_of(x)->dims[type_of(x)->rank - 1], &n) || n < 1)
        return false;
    bool is_rms = chance(g, 60);
    pm_attr eps = pm_attr_f64("eps", 0.0625);
    pm_value *scale = float_const(g, type_of(x)->elem, 1, &n, 2, false);
    pm_value *bias =
        !is_rms && chance(g, 60) ? float_const(g, type_of(x)->elem, 1, &n, 2, false) : NULL;
    pm_value *out = NULL;
    double limit = 2 * sqrt((double)n) + 2;
    if (scale == NULL || limit > MAX_MAGNITUDE)
        return false;
    return build(g, &out, is_rms ? PM_OP_rms_norm : PM_OP_layer_norm,
                 (pm_value *const[]){x->value, scale, bias}, bias != NULL ? 3 : 2, &eps, 1) &&
           add_item(g, out, -limit, limit, false, 0);
}

static bool step_cumsum(gen *g)
{
    item *x = pick(g, is_f32);
    if (x == NULL || type_of(x)->rank == 0)
        return false;
    uint32_t axis = below(g, (uint32_t)type_of(x)->rank);
    double limit = magnitude(x) * (double)highest(g, type_of(x)->dims[axis]);
    if (limit > MAX_MAGNITUDE)
        return false;
    pm_attr attrs[3] = {pm_attr_i64("axis", axis), pm_attr_bool("exclusive", chance(g, 50)),
                        pm_attr_bool("reverse", chance(g, 50))};
    pm_value *out = NULL;
    if (magnitude(x) <= 1 && chance(g, 40))
        return build(g, &out, PM_OP_cumprod, PM_OPERANDS(x->value), attrs, 3) &&
               add_item(g, out, -1, 1, false, 0);
    return build(g, &out, PM_OP_cumsum, PM_OPERANDS(x->value), attrs, 3) &&
           add_item(g, out, -limit, limit, x->exact, x->bits_below);
}

/// Integers moved right by a place, and any elements as bits of the same size.
static bool step_bits(gen *g)
{
    item *x = pick(g, is_any);
    pm_value *out = NULL;
    if (x == NULL || is_bool(g, x))
        return false;
    pm_attr to = pm_attr_elem("to", type_of(x)->elem), right = pm_attr_bool("left", false);
    if (is_float(g, x) || chance(g, 30))
        return build(g, &out, PM_OP_bitcast, PM_OPERANDS(x->value), &to, 1) &&
               add_item(g, out, x->lo, x->hi, x->exact, x->bits_below);
    return build(g, &out, PM_OP_shift, PM_OPERANDS(x->value, int_scalar(g, type_of(x)->elem, 1)), &right,
                 1) &&
           add_item(g, out, floor(x->lo / 2), floor(x->hi / 2), x->exact, 0);
}

// ---- products ----

static bool step_linear(gen *g)
{
    static const int64_t widths[] = {1, 3, 4, 8, 16, 17, 32};
    item *x = pick(g, is_matrix);
    int64_t k = 0, n = widths[below(g, PM_COUNT(widths))];
    if (x == NULL || !pm_dim_is_const(g->module, type_of(x)->dims[type_of(x)->rank - 1], &k) ||
        k < 1)
        return false;
    double limit = magnitude(x) * 1 * (double)k + 2;
    if (limit > MAX_MAGNITUDE)
        return false;
    pm_value *w = chance(g, 25) ? lowbit_const(g, n, k)
                                : float_const(g, PM_F32, 2, (const int64_t[]){n, k}, 1, false);
    pm_value *bias = chance(g, 50) ? float_const(g, PM_F32, 1, &n, 2, false) : NULL;
    pm_value *out = NULL;
    return w != NULL &&
           build(g, &out, PM_OP_linear, (pm_value *const[]){x->value, w, bias},
                 bias != NULL ? 3 : 2, NULL, 0) &&
           add_item(g, out, -limit, limit, x->exact, x->bits_below + 3);
}

static bool step_matmul(gen *g)
{
    item *x = pick(g, is_matrix);
    if (x == NULL)
        return false;
    int32_t rank = type_of(x)->rank;
    bool trans_a = chance(g, 20);
    pm_dim k = type_of(x)->dims[rank - (trans_a ? 2 : 1)];
    uint32_t start = below(g, (uint32_t)g->n_items);
    for (size_t i = 0; i < g->n_items; i++) {
        item *y = &g->items[(start + i) % g->n_items];
        if (type_of(y)->elem != PM_F32 || type_of(y)->rank < 2)
            continue;
        int32_t other = type_of(y)->rank;
        bool trans_b = type_of(y)->dims[other - 2] != k;
        if (type_of(y)->dims[other - (trans_b ? 1 : 2)] != k)
            continue;
        bool same_batch = rank == 2 || other == 2;
        if (rank == other)
            same_batch = memcmp(type_of(x)->dims, type_of(y)->dims,
                                (size_t)(rank - 2) * sizeof(pm_dim)) == 0;
        double limit = magnitude(x) * magnitude(y) * (double)highest(g, k);
        if (!same_batch || limit > MAX_MAGNITUDE ||
            most_elements(g, type_of(x)) * most_elements(g, type_of(y)) > 2000.0 * MAX_ELEMENTS)
            continue;
        pm_attr attrs[2] = {pm_attr_bool("trans_a", trans_a), pm_attr_bool("trans_b", trans_b)};
        pm_value *out = NULL;
        return build(g, &out, PM_OP_matmul, PM_OPERANDS(x->value, y->value), attrs, 2) &&
               add_item(g, out, -limit, limit, x->exact && y->exact, x->bits_below + y->bits_below);
    }
    return false;
}

// ---- shapes and data movement ----

/// A new value with the elements of x (and zeros, when `zeros`).
static bool add_moved(gen *g, const item *x, pm_value *out, bool zeros)
{
    return add_item(g, out, zeros ? fmin(x->lo, 0) : x->lo, zeros ? fmax(x->hi, 0) : x->hi,
                    x->exact, x->bits_below);
}

static bool step_transpose(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    int32_t rank = type_of(x)->rank;
    int64_t perm[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        perm[i] = i;
    for (int32_t i = rank - 1; i > 0; i--) {
        uint32_t j = below(g, (uint32_t)i + 1);
        int64_t swap = perm[i];
        perm[i] = perm[j];
        perm[j] = swap;
    }
    pm_attr attr = pm_attr_ints("perm", perm, (size_t)rank);
    pm_value *out = NULL;
    return build(g, &out, PM_OP_transpose, PM_OPERANDS(x->value), &attr, 1) &&
           add_moved(g, x, out, false);
}

/// Merges two neighbouring axes, splits off an axis of 1, or flattens.
static bool step_reshape(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    const pm_type *type = type_of(x);
    pm_dim dims[PM_MAX_RANK + 1];
    int32_t rank = 0, at = (int32_t)below(g, (uint32_t)type->rank);
    uint32_t how = below(g, 3);
    if (how == 0 && at + 1 < type->rank) {
        for (int32_t i = 0; i < type->rank; i++)
            if (i != at + 1)
                dims[rank++] = i == at ? pm_dim_mul(g->module, type->dims[i], type->dims[i + 1])
                                       : type->dims[i];
    } else if (how == 1 && type->rank < 5) {
        for (int32_t i = 0; i <= type->rank; i++)
            dims[rank++] = i == at ? pm_dim_const(g->module, 1) : type->dims[i - (i > at)];
    } else {
        dims[rank++] = pm_type_count(g->module, type);
    }
    pm_value *shape = NULL, *out = NULL;
    bool as_dims = chance(g, 40);
    if (as_dims) {
        if (pm_build_dims(&g->b, rank, dims, &shape) != PM_OK) {
            g->failed = true;
            return false;
        }
        return build(g, &out, PM_OP_reshape, PM_OPERANDS(x->value, shape),
                     PM_ATTRS(pm_attr_bool("allowzero", true))) && // an extent may turn out to be 0
               add_moved(g, x, out, false);
    }
    if (pm_build_reshape_dims(&g->b, x->value, rank, dims, &out) != PM_OK) {
        g->failed = true;
        return false;
    }
    return out != x->value && add_moved(g, x, out, false);
}

static bool step_concat(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    uint32_t axis = below(g, (uint32_t)type_of(x)->rank);
    pm_value *operands[3] = {x->value};
    size_t n = 1, wanted = 2 + below(g, 2);
    item all = *x;
    for (size_t i = 0; i < g->n_items && n < wanted; i++) {
        const item *y = &g->items[(i * 7 + axis) % g->n_items];
        bool fits = type_of(y)->elem == type_of(x)->elem && type_of(y)->rank == type_of(x)->rank;
        for (int32_t d = 0; fits && d < type_of(x)->rank; d++)
            fits = d == (int32_t)axis || type_of(y)->dims[d] == type_of(x)->dims[d];
        if (!fits)
            continue;
        operands[n++] = y->value;
        all.lo = fmin(all.lo, y->lo);
        all.hi = fmax(all.hi, y->hi);
        all.exact = all.exact && y->exact;
        all.bits_below = y->bits_below > all.bits_below ? y->bits_below : all.bits_below;
    }
    pm_attr attr = pm_attr_i64("axis", axis);
    pm_value *out = NULL;
    if (most_elements(g, type_of(x)) * 3 > MAX_ELEMENTS)
        return false;
    return build(g, &out, PM_OP_concat, operands, n, &attr, 1) && add_moved(g, &all, out, false);
}

static bool step_slice(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    int64_t axis = below(g, (uint32_t)type_of(x)->rank), lo = 0, hi = 0;
    pm_dim_range(g->module, type_of(x)->dims[axis], &lo, &hi);
    int64_t start = below(g, 2), end = chance(g, 50) ? INT64_MAX : 1 + below(g, 4);
    int64_t step = chance(g, 25) ? 2 : 1;
    if (chance(g, 20))
        start = -1, end = -INT64_MAX, step = -1;
    if (lo < 2 || (end != INT64_MAX && end > 0 && end <= start))
        return false;
    pm_value *starts = int_const(g, PM_I64, 1, &start), *ends = int_const(g, PM_I64, 1, &end);
    pm_value *axes = int_const(g, PM_I64, 1, &axis), *steps = int_const(g, PM_I64, 1, &step);
    pm_value *out = NULL;
    if (g->failed)
        return false;
    return build(g, &out, PM_OP_slice, PM_OPERANDS(x->value, starts, ends, axes, steps),
                 PM_NO_ATTRS) &&
           add_moved(g, x, out, false);
}

static bool step_split(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    int64_t axis = below(g, (uint32_t)type_of(x)->rank), extent = 0;
    if (!pm_dim_is_const(g->module, type_of(x)->dims[axis], &extent) || extent < 2)
        return false;
    int64_t sizes[2] = {1 + below(g, (uint32_t)extent - 1), 0};
    sizes[1] = extent - sizes[0];
    bool is_even = chance(g, 50);
    pm_value *list = is_even ? NULL : int_const(g, PM_I64, 2, sizes);
    pm_attr attr = pm_attr_i64("axis", axis);
    pm_op *op = NULL;
    item from = *x;
    if (g->failed || pm_build(&g->b, PM_OP_split, (pm_value *const[]){x->value, list},
                              is_even ? 1 : 2, &attr, 1, 2, &op) != PM_OK) {
        g->failed = true;
        return false;
    }
    return add_moved(g, &from, op->results[0], false) && add_moved(g, &from, op->results[1], false);
}

static bool step_expand(gen *g)
{
    item *x = pick(g, is_any);
    if (x == NULL || type_of(x)->rank > 3 || most_elements(g, type_of(x)) * 4 > MAX_ELEMENTS)
        return false;
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = type_of(x)->rank + 1;
    dims[0] = pm_dim_const(g->module, 1 + below(g, 3));
    for (int32_t i = 1; i < rank; i++)
        dims[i] = type_of(x)->dims[i - 1];
    pm_value *shape = NULL, *out = NULL;
    if (pm_build_dims(&g->b, rank, dims, &shape) != PM_OK) {
        g->failed = true;
        return false;
    }
    return build(g, &out, PM_OP_expand, PM_OPERANDS(x->value, shape), PM_NO_ATTRS) &&
           add_moved(g, x, out, false);
}

static bool step_pad(gen *g)
{
    static const char *const modes[] = {"constant", "edge"};
    item *x = pick(g, has_axes);
    if (x == NULL || most_elements(g, type_of(x)) * 8 > MAX_ELEMENTS || type_of(x)->rank > 3 ||
        is_bool(g, x))
        return false;
    int64_t pads[2 * PM_MAX_RANK];
    int32_t rank = type_of(x)->rank;
    for (int32_t i = 0; i < 2 * rank; i++)
        pads[i] = below(g, 2);
    for (int32_t i = 0; i < rank; i++) {
        int64_t lo = 0, hi = 0;
        pm_dim_range(g->module, type_of(x)->dims[i], &lo, &hi);
        if (lo < 1)
            return false; // an edge of nothing
    }
    pm_value *list = int_const(g, PM_I64, (size_t)rank * 2, pads), *out = NULL;
    pm_attr mode = pm_attr_str("mode", modes[below(g, 2)]);
    return !g->failed && build(g, &out, PM_OP_pad, PM_OPERANDS(x->value, list), &mode, 1) &&
           add_moved(g, x, out, true);
}

static bool step_tile(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL || most_elements(g, type_of(x)) * 8 > MAX_ELEMENTS || type_of(x)->rank > 3)
        return false;
    int64_t repeats[PM_MAX_RANK];
    for (int32_t i = 0; i < type_of(x)->rank; i++)
        repeats[i] = 1 + below(g, 2);
    pm_value *list = int_const(g, PM_I64, (size_t)type_of(x)->rank, repeats), *out = NULL;
    return !g->failed && build(g, &out, PM_OP_tile, PM_OPERANDS(x->value, list), PM_NO_ATTRS) &&
           add_moved(g, x, out, false);
}

/// Shape arithmetic: an extent of x, computed on as a tensor and used as a shape again.
static bool step_shape(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    pm_value *shape = NULL, *out = NULL, *reduced = NULL;
    int64_t one = 1, axis = below(g, (uint32_t)type_of(x)->rank);
    if (!build(g, &shape, PM_OP_shape, PM_OPERANDS(x->value), PM_NO_ATTRS))
        return false;
    if (chance(g, 50)) // x as a list: its shape's product
        return (pm_type_count(g->module, type_of(x)) != PM_DIM_NONE) &&
               build(g, &reduced, PM_OP_reshape,
                     PM_OPERANDS(x->value, int_const(g, PM_I64, 1, (const int64_t[]){-1})),
                     PM_NO_ATTRS) &&
               build(g, &out, PM_OP_reshape, PM_OPERANDS(reduced, shape),
                     PM_ATTRS(pm_attr_bool("allowzero", true))) &&
               add_moved(g, x, out, false);
    pm_value *extent = NULL, *sum = NULL, *filled = NULL;
    pm_value *which = int_const(g, PM_I64, 1, &axis), *plus = int_const(g, PM_I64, 1, &one);
    float half = 0.5f;
    pm_value *value = NULL;
    if (g->failed || pm_build_const_f32(&g->b, 0, NULL, &half, &value) != PM_OK)
        return false;
    return build(g, &extent, PM_OP_gather, PM_OPERANDS(shape, which), PM_NO_ATTRS) &&
           build(g, &sum, PM_OP_add, PM_OPERANDS(extent, plus), PM_NO_ATTRS) &&
           build(g, &filled, PM_OP_fill, PM_OPERANDS(sum, value), PM_NO_ATTRS) &&
           add_item(g, filled, 0.5, 0.5, true, 1);
}

// ---- by index ----

static bool step_gather(gen *g)
{
    item *x = pick(g, has_axes);
    if (x == NULL)
        return false;
    int64_t axis = below(g, (uint32_t)type_of(x)->rank), lo = 0, hi = 0;
    pm_dim_range(g->module, type_of(x)->dims[axis], &lo, &hi);
    if (lo < 1)
        return false;
    pm_value *indices = NULL, *out = NULL;
    uint32_t start = below(g, (uint32_t)g->n_items);
    for (size_t i = 0; i < g->n_items && indices == NULL; i++) {
        const item *y = &g->items[(start + i) % g->n_items];
        bool is_index = type_of(y)->elem == PM_I64 || type_of(y)->elem == PM_I32;
        if (is_index && y->exact && y->lo >= (double)-lo && y->hi < (double)lo &&
            most_elements(g, type_of(x)) * most_elements(g, type_of(y)) < MAX_ELEMENTS &&
            type_of(x)->rank - 1 + type_of(y)->rank <= 5)
            indices = y->value;
    }
    if (indices == NULL) {
        int64_t list[3];
        for (int i = 0; i < 3; i++)
            list[i] = (int64_t)below(g, (uint32_t)(2 * lo)) - lo;
        indices = int_const(g, PM_I64, 3, list);
    }
    pm_attr attr = pm_attr_i64("axis", axis);
    return !g->failed && most_elements(g, type_of(x)) * 3 < MAX_ELEMENTS &&
           build(g, &out, PM_OP_gather, PM_OPERANDS(x->value, indices), &attr, 1) &&
           add_moved(g, x, out, false);
}

static bool step_topk(gen *g)
{
    item *x = pick(g, is_f32);
    if (x == NULL || type_of(x)->rank == 0 || !x->exact)
        return false;
    int64_t axis = below(g, (uint32_t)type_of(x)->rank), lo = 0, hi = 0;
    pm_dim_range(g->module, type_of(x)->dims[axis], &lo, &hi);
    if (lo < 1)
        return false;
    int64_t k = 1 + below(g, (uint32_t)(lo < 3 ? lo : 3));
    pm_value *count = int_const(g, PM_I64, 1, &k);
    pm_attr attrs[2] = {pm_attr_i64("axis", axis), pm_attr_bool("largest", chance(g, 70))};
    pm_op *op = NULL;
    item from = *x;
    if (g->failed ||
        pm_build(&g->b, PM_OP_topk, PM_OPERANDS(x->value, count), attrs, 2, 2, &op) != PM_OK) {
        g->failed = true;
        return false;
    }
    return add_moved(g, &from, op->results[0], false) &&
           add_item(g, op->results[1], 0, (double)hi - 1, true, 0);
}

static bool step_argmax(gen *g)
{
    item *x = pick(g, is_f32);
    if (x == NULL || type_of(x)->rank == 0 || !x->exact)
        return false;
    int64_t axis = below(g, (uint32_t)type_of(x)->rank), lo = 0, hi = 0;
    pm_dim_range(g->module, type_of(x)->dims[axis], &lo, &hi);
    pm_attr attrs[3] = {pm_attr_i64("axis", axis), pm_attr_bool("keepdims", chance(g, 50)),
                        pm_attr_bool("last", chance(g, 30))};
    pm_value *out = NULL;
    return lo >= 1 &&
           build(g, &out, chance(g, 50) ? PM_OP_argmax : PM_OP_argmin, PM_OPERANDS(x->value), attrs,
                 3) &&
           add_item(g, out, 0, (double)hi - 1, true, 0);
}

static bool is_small_index(const gen *g, const item *x)
{
    (void)g;
    return type_of(x)->elem == PM_I64 && x->exact && x->lo >= 0 && x->hi < 8 &&
           type_of(x)->rank > 0 && type_of(x)->rank < 4;
}

static bool step_onehot(gen *g)
{
    item *x = pick(g, is_small_index);
    if (x == NULL || most_elements(g, type_of(x)) * 8 > MAX_ELEMENTS)
        return false;
    pm_value *depth = int_scalar(g, PM_I64, 8), *out = NULL;
    pm_value *values = NULL;
    const float pair[2] = {0, 1};
    pm_attr axis = pm_attr_i64("axis", -1);
    if (g->failed || pm_build_const_f32(&g->b, 1, (const int64_t[]){2}, pair, &values) != PM_OK)
        return false;
    return build(g, &out, PM_OP_onehot, PM_OPERANDS(x->value, depth, values), &axis, 1) &&
           add_item(g, out, 0, 1, true, 0);
}

static bool step_trilu(gen *g)
{
    item *x = pick(g, is_matrix);
    pm_attr upper = pm_attr_bool("upper", chance(g, 50));
    pm_value *out = NULL;
    return x != NULL && build(g, &out, PM_OP_trilu, PM_OPERANDS(x->value), &upper, 1) &&
           add_moved(g, x, out, true);
}

/// Rows of a matrix where a mask holds: a data-dependent number of them.
static bool step_nonzero(gen *g)
{
    item *mask = pick(g, is_bool);
    if (mask == NULL || type_of(mask)->rank != 1)
        return false;
    for (size_t i = 0; i < g->n_items; i++) {
        item *x = &g->items[i];
        if (type_of(x)->rank == 0 || type_of(x)->dims[0] != type_of(mask)->dims[0])
            continue;
        pm_value *where = NULL, *list = NULL, *rows = NULL;
        pm_attr axis = pm_attr_i64("axis", 0);
        pm_value *flat = int_const(g, PM_I64, 1, (const int64_t[]){-1});
        return !g->failed &&
               build(g, &where, PM_OP_nonzero, PM_OPERANDS(mask->value), PM_NO_ATTRS) &&
               build(g, &list, PM_OP_reshape, PM_OPERANDS(where, flat), PM_NO_ATTRS) &&
               build(g, &rows, PM_OP_gather, PM_OPERANDS(x->value, list), &axis, 1) &&
               add_moved(g, x, rows, false);
    }
    return false;
}

// ---- mixture of experts ----

static bool is_token_matrix(const gen *g, const item *x)
{
    int64_t width = 0;
    return is_f32(g, x) && type_of(x)->rank == 2 && magnitude(x) <= 4 &&
           pm_dim_is_const(g->module, type_of(x)->dims[1], &width) && width >= 1 && width <= 32;
}

/// Scores for `experts` experts out of an exact x, and what is chosen by them.
static bool build_route(gen *g, const item *x, int64_t experts, int64_t top_k, pm_op **out_op)
{
    static const char *const acts[] = {"softmax", "sigmoid", "sqrtsoftplus", "none"};
    static const char *const weighs[] = {"as_is", "softmax", "renorm"};
    int64_t width = 0;
    (void)pm_dim_is_const(g->module, type_of(x)->dims[1], &width);
    pm_value *w = float_const(g, PM_F32, 2, (const int64_t[]){experts, width}, 1, false);
    pm_value *scores = NULL;
    if (w == NULL || !build(g, &scores, PM_OP_linear, PM_OPERANDS(x->value, w), PM_NO_ATTRS))
        return false;
    uint32_t act = below(g, 4), weigh = below(g, 3);
    if (act == 3 && weigh != 1)
        weigh = 1; // plain scores may cancel in their sum, and are not small
    bool has_groups = experts % 2 == 0 && top_k <= experts / 2 && chance(g, 30);
    pm_attr attrs[] = {pm_attr_i64("top_k", top_k),
                       pm_attr_str("act", acts[act]),
                       pm_attr_str("weigh", weighs[weigh]),
                       pm_attr_f64("scale", chance(g, 30) ? 2.5 : 1),
                       pm_attr_i64("groups", has_groups ? 2 : 1),
                       pm_attr_str("group_score", chance(g, 50) ? "max" : "top2")};
    pm_value *operands[] = {scores, NULL, NULL};
    size_t n_operands = 1;
    if (chance(g, 20)) { // weighed by scores of their own, of one sign
        n_operands = 3;
        if (!build(g, &operands[2], PM_OP_sigmoid, PM_OPERANDS(scores), PM_NO_ATTRS))
            return false;
    }
    if (pm_build(&g->b, PM_OP_route, operands, n_operands, attrs, PM_COUNT(attrs), 2, out_op) == PM_OK)
        return true;
    g->failed = true;
    return false;
}

/// A region's body: a gated or plain network of `hidden` on rows, whose weights are arguments from
/// `first` on.
static bool build_network(gen *g, pm_graph *region, size_t first, bool gated, pm_value **out)
{
    pm_value *rows = region->args.data[0], *gate = NULL, *up = NULL, *act = NULL;
    pm_value **w = &region->args.data[first];
    if (!build(g, &gate, PM_OP_linear, PM_OPERANDS(rows, w[0]), PM_NO_ATTRS) ||
        !build(g, &act, chance(g, 50) ? PM_OP_silu : PM_OP_gelu, PM_OPERANDS(gate), PM_NO_ATTRS))
        return false;
    if (gated && (!build(g, &up, PM_OP_linear, PM_OPERANDS(rows, w[2]), PM_NO_ATTRS) ||
                  !build(g, &act, PM_OP_mul, PM_OPERANDS(act, up), PM_NO_ATTRS)))
        return false;
    return build(g, out, PM_OP_linear, PM_OPERANDS(act, w[1]), PM_NO_ATTRS);
}

/// Adds a region with the rows and the captured values (or their slices) as arguments.
static pm_graph *add_region(gen *g, pm_op *op, bool is_template)
{
    pm_graph *region = pm_region_create(op);
    const pm_type *x = op->operands[0]->type;
    pm_dim rows = pm_dim_fresh(g->module, "rows",
                               pm_dim_mul(g->module, x->dims[0], op->operands[1]->type->dims[1]));
    pm_graph_add_arg(region, "rows",
                     pm_type_get(g->module, x->elem, 2, (const pm_dim[]){rows, x->dims[1]}), -1);
    for (uint32_t i = 3; i < op->n_operands; i++) {
        const pm_type *type = op->operands[i]->type;
        if (is_template)
            type = pm_type_get(g->module, type->elem, type->rank - 1, type->dims + 1);
        pm_graph_add_arg(region, NULL, type, -1);
    }
    return region;
}

static bool end_experts(gen *g, pm_op *op, pm_builder *outer, double limit)
{
    g->b = *outer;
    if (g->failed || pm_op_infer(op) != PM_OK) {
        g->failed = true;
        return false;
    }
    return add_item(g, op->results[0], -limit, limit, false, 0);
}

static bool build_template(gen *g, const item *x, pm_op *route, int64_t experts, int64_t top_k)
{
    int64_t width = 0, hidden = 4 + below(g, 3) * 6;
    (void)pm_dim_is_const(g->module, type_of(x)->dims[1], &width);
    bool gated = chance(g, 60);
    pm_value *operands[6] = {x->value, route->results[0], route->results[1]};
    operands[3] = float_const(g, PM_F32, 3, (const int64_t[]){experts, hidden, width}, 0.25, false);
    operands[4] = float_const(g, PM_F32, 3, (const int64_t[]){experts, width, hidden}, 0.25, false);
    if (gated)
        operands[5] =
            float_const(g, PM_F32, 3, (const int64_t[]){experts, hidden, width}, 0.25, false);
    pm_attr attrs[] = {pm_attr_i64("experts", experts), pm_attr_i64("top_k", top_k),
                       pm_attr_str("apply", chance(g, 80) ? "output" : "input")};
    pm_op *op = NULL;
    if (g->failed || pm_op_create(g->b.graph, NULL, PM_OP_experts, g->b.loc, operands,
                                  gated ? 6 : 5, attrs, PM_COUNT(attrs), 1, 0, &op) != PM_OK) {
        g->failed = true;
        return false;
    }
    pm_builder outer = g->b;
    pm_graph *region = add_region(g, op, true);
    pm_value *out = NULL;
    g->b.graph = region;
    if (build_network(g, region, 1, gated, &out))
        pm_graph_add_result(region, NULL, out, -1);
    return end_experts(g, op, &outer, MAX_MAGNITUDE);
}

/// Unlike experts: a network, the identity, and exact computations.
static bool build_unlike(gen *g, const item *x, pm_op *route, int64_t experts, int64_t top_k)
{
    int64_t width = 0, hidden = 8;
    (void)pm_dim_is_const(g->module, type_of(x)->dims[1], &width);
    pm_value *operands[5] = {x->value, route->results[0], route->results[1]};
    operands[3] = float_const(g, PM_F32, 2, (const int64_t[]){hidden, width}, 0.25, false);
    operands[4] = float_const(g, PM_F32, 2, (const int64_t[]){width, hidden}, 0.25, false);
    pm_attr attrs[] = {pm_attr_i64("experts", experts), pm_attr_i64("top_k", top_k)};
    pm_op *op = NULL;
    if (g->failed || pm_op_create(g->b.graph, NULL, PM_OP_experts, g->b.loc, operands, 5, attrs,
                                  PM_COUNT(attrs), 1, 0, &op) != PM_OK) {
        g->failed = true;
        return false;
    }
    pm_builder outer = g->b;
    for (int64_t e = 0; e < experts && !g->failed; e++) {
        pm_graph *region = add_region(g, op, false);
        pm_value *rows = region->args.data[0], *out = rows;
        g->b.graph = region;
        uint32_t kind = below(g, 4);
        if (kind == 0)
            (void)build_network(g, region, 1, false, &out);
        else if (kind == 1)
            (void)build(g, &out, PM_OP_neg, PM_OPERANDS(rows), PM_NO_ATTRS);
        else if (kind == 2)
            (void)build(g, &out, PM_OP_add, PM_OPERANDS(rows, rows), PM_NO_ATTRS);
        if (!g->failed)
            pm_graph_add_result(region, NULL, out, -1);
    }
    return end_experts(g, op, &outer, MAX_MAGNITUDE);
}

/// What lowering makes of experts: rows sorted, one grouped product, results added up.
static bool build_lowered(gen *g, const item *x, pm_op *route, int64_t experts)
{
    int64_t width = 0, n = 4;
    (void)pm_dim_is_const(g->module, type_of(x)->dims[1], &width);
    pm_attr attr = pm_attr_i64("experts", experts);
    pm_op *order = NULL;
    pm_value *w = float_const(g, PM_F32, 3, (const int64_t[]){experts, n, width}, 0.25, false);
    pm_value *bias = float_const(g, PM_F32, 2, (const int64_t[]){experts, n}, 2, false);
    pm_value *rows = NULL, *y = NULL, *out = NULL;
    if (g->failed || pm_build(&g->b, PM_OP_expert_order, PM_OPERANDS(route->results[0]), &attr, 1,
                              3, &order) != PM_OK) {
        g->failed = true;
        return false;
    }
    return build(g, &rows, PM_OP_gather_rows, PM_OPERANDS(x->value, order->results[0]),
                 PM_NO_ATTRS) &&
           build(g, &y, PM_OP_grouped_linear, PM_OPERANDS(rows, w, order->results[1], bias),
                 PM_NO_ATTRS) &&
           build(g, &out, PM_OP_combine, PM_OPERANDS(y, order->results[2], route->results[1]),
                 PM_NO_ATTRS) &&
           add_item(g, out, -MAX_MAGNITUDE, MAX_MAGNITUDE, false, 0);
}

static bool step_moe(gen *g)
{
    item *found = pick(g, is_token_matrix);
    if (found == NULL || !found->exact || found->bits_below > 5)
        return false;
    item x = *found;
    int64_t experts = 2 + below(g, 5), top_k = 1 + below(g, (uint32_t)(experts < 3 ? experts : 3));
    pm_op *route = NULL;
    if (!build_route(g, &x, experts, top_k, &route))
        return false;
    switch (below(g, 4)) {
    case 0: return build_lowered(g, &x, route, experts);
    case 1: return build_unlike(g, &x, route, experts, top_k);
    default: return build_template(g, &x, route, experts, top_k);
    }
}

// ---- control flow ----

static bool step_if(gen *g)
{
    item *x = pick(g, is_f32), *mask = pick(g, is_bool);
    if (x == NULL || mask == NULL || magnitude(x) > 64)
        return false;
    pm_value *cond = NULL, *number = NULL, *truth = NULL;
    pm_attr to_int = pm_attr_elem("to", PM_I64), to_bool = pm_attr_elem("to", PM_BOOL);
    int64_t axes[PM_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    pm_attr reduce[2] = {pm_attr_ints("axes", axes, (size_t)type_of(mask)->rank),
                         pm_attr_bool("keepdims", false)};
    item from = *x;
    if (!build(g, &number, PM_OP_cast, PM_OPERANDS(mask->value), &to_int, 1))
        return false;
    if (type_of(mask)->rank > 0 &&
        !build(g, &number, PM_OP_reduce_sum, PM_OPERANDS(number), reduce, 2))
        return false;
    if (!build(g, &truth, PM_OP_mod, PM_OPERANDS(number, int_scalar(g, PM_I64, 2)), PM_NO_ATTRS) ||
        !build(g, &cond, PM_OP_cast, PM_OPERANDS(truth), &to_bool, 1))
        return false;
    pm_op *op = NULL;
    if (pm_op_create(g->b.graph, NULL, PM_OP_if, g->b.loc, (pm_value *const[]){cond, from.value}, 2,
                     NULL, 0, 1, 2, &op) != PM_OK) {
        g->failed = true;
        return false;
    }
    pm_builder outer = g->b;
    for (int r = 0; r < 2 && !g->failed; r++) {
        pm_graph *region = pm_region_create(op);
        pm_value *arg = pm_graph_add_arg(region, "x", from.value->type, -1), *out = NULL;
        g->b.graph = region;
        if (build(g, &out, r == 0 ? PM_OP_neg : PM_OP_tanh, PM_OPERANDS(arg), PM_NO_ATTRS))
            pm_graph_add_result(region, NULL, out, -1);
    }
    return end_experts(g, op, &outer, fmax(magnitude(&from), 1));
}

static bool step_loop(gen *g)
{
    item *x = pick(g, is_f32);
    if (x == NULL || magnitude(x) > 16)
        return false;
    item from = *x;
    pm_value *trips = int_scalar(g, PM_I64, below(g, 4)), *cond = int_scalar(g, PM_BOOL, 1);
    pm_attr attrs[2] = {pm_attr_i64("carried", 1), pm_attr_i64("scanned", 1)};
    pm_op *op = NULL;
    if (g->failed || pm_op_create(g->b.graph, NULL, PM_OP_loop, g->b.loc,
                                  (pm_value *const[]){trips, cond, from.value, from.value}, 4,
                                  attrs, 2, 2, 1, &op) != PM_OK) {
        g->failed = true;
        return false;
    }
    pm_builder outer = g->b;
    pm_graph *region = pm_region_create(op);
    pm_graph_add_arg(region, "i", pm_type_get(g->module, PM_I64, 0, NULL), -1);
    pm_value *go_on =
        pm_graph_add_arg(region, "go_on", pm_type_get(g->module, PM_BOOL, 0, NULL), -1);
    pm_value *carried = pm_graph_add_arg(region, "c", from.value->type, -1), *sum = NULL;
    pm_value *captured = pm_graph_add_arg(region, "x", from.value->type, -1), *scan = NULL;
    g->b.graph = region;
    if (build(g, &sum, PM_OP_add, PM_OPERANDS(carried, captured), PM_NO_ATTRS) &&
        build(g, &scan, PM_OP_neg, PM_OPERANDS(sum), PM_NO_ATTRS)) {
        pm_graph_add_result(region, NULL, go_on, -1);
        pm_graph_add_result(region, NULL, sum, -1);
        pm_graph_add_result(region, NULL, scan, -1);
    }
    double limit = 4 * magnitude(&from);
    return end_experts(g, op, &outer, limit) &&
           add_item(g, op->results[1], -limit, limit, false, 0);
}

// ---- the module ----

typedef struct step {
    bool (*run)(gen *g);
    uint32_t weight;
    unsigned what; ///< needed
} step;

static const step steps[] = {
    {step_unary, 20, 0},
    {step_binary, 24, 0},
    {step_compare, 6, 0},
    {step_logic, 3, 0},
    {step_where, 6, 0},
    {step_pow, 2, 0},
    {step_cast, 5, 0},
    {step_reduce, 8, 0},
    {step_softmax, 5, 0},
    {step_norm, 6, 0},
    {step_linear, 8, 0},
    {step_matmul, 6, 0},
    {step_transpose, 5, 0},
    {step_reshape, 6, 0},
    {step_concat, 4, 0},
    {step_slice, 4, 0},
    {step_split, 3, 0},
    {step_expand, 3, 0},
    {step_pad, 2, 0},
    {step_tile, 2, 0},
    {step_shape, 4, RANDOM_SYMBOLS},
    {step_cumsum, 2, RANDOM_INDEXED},
    {step_bits, 1, RANDOM_INDEXED},
    {step_gather, 5, RANDOM_INDEXED},
    {step_topk, 3, RANDOM_INDEXED},
    {step_argmax, 2, RANDOM_INDEXED},
    {step_onehot, 2, RANDOM_INDEXED},
    {step_trilu, 2, RANDOM_INDEXED},
    {step_nonzero, 4, RANDOM_DYNAMIC},
    {step_moe, 8, RANDOM_MOE},
    {step_if, 6, RANDOM_CONTROL},
    {step_loop, 6, RANDOM_CONTROL},
};

static pm_elem random_elem(gen *g)
{
    static const pm_elem others[] = {PM_F64, PM_BF16, PM_F16, PM_U8, PM_I8};
    uint32_t roll = below(g, 20);
    if (roll < 2)
        return PM_I64;
    if (roll == 2)
        return PM_I32;
    if (roll == 3)
        return PM_BOOL;
    if (roll < 6 && (g->what & RANDOM_OTHER_ELEMS))
        return others[below(g, PM_COUNT(others))];
    return PM_F32;
}

static void add_args(gen *g, pm_graph *entry)
{
    static const int64_t extents[] = {1, 2, 3, 4, 5, 8, 16, 17};
    uint32_t n_args = 2 + below(g, 4);
    for (uint32_t i = 0; i < n_args; i++) {
        pm_dim dims[4];
        int32_t rank = i < 2 ? 2 : (int32_t)below(g, 4);
        for (int32_t d = 0; d < rank; d++) {
            uint32_t roll = below(g, 8);
            dims[d] = pm_dim_const(g->module, extents[below(g, PM_COUNT(extents))]);
            if (d + 1 < rank && roll < 3)
                dims[d] = g->batch;
            else if (d + 1 < rank && roll < 5)
                dims[d] = g->tokens;
            else if (d == 0 && roll == 5)
                dims[d] = pm_dim_mul(g->module, g->batch, g->tokens);
        }
        if (i < 2) // these bind the symbols
            dims[0] = i == 0 ? g->batch : g->tokens;
        pm_elem elem = i < 2 ? PM_F32 : random_elem(g);
        const pm_type *type = pm_type_get(g->module, elem, rank, dims);
        pm_value *arg =
            pm_graph_add_arg(entry, pm_arena_printf(g->module->arena, "x%u", i), type, -1);
        bool floats = pm_elem_is_float(elem);
        add_item(g, arg, floats ? -2 : 0,
                 floats            ? 2
                 : elem == PM_BOOL ? 1
                                   : 3,
                 true, floats ? 3 : 0);
    }
}

static void add_steps(gen *g)
{
    uint32_t total = 0, wanted = 4 + below(g, 28);
    for (size_t i = 0; i < PM_COUNT(steps); i++)
        total += steps[i].weight;
    for (uint32_t done = 0, tries = 0; done < wanted && tries < 400 && !g->failed; tries++) {
        uint32_t roll = below(g, total);
        size_t i = 0;
        for (; roll >= steps[i].weight; i++)
            roll -= steps[i].weight;
        if ((steps[i].what & ~g->what) != 0)
            continue;
        pm_loc loc = {.file = "random",
                      .what = "step",
                      .name = pm_arena_printf(g->module->arena, "%u", done)};
        g->b.loc = pm_loc_intern(g->module, &loc);
        done += steps[i].run(g);
    }
}

static bool is_used(const item *x)
{
    return x->value->uses != NULL;
}

static void add_results(gen *g, pm_graph *entry)
{
    size_t n = 0;
    for (size_t i = g->n_items; i-- > 0 && n < 6;) {
        const item *x = &g->items[i];
        bool is_result = !is_used(x) ? x->value->def != NULL : chance(g, 5);
        if (!is_result || most_elements(g, type_of(x)) > 1e6)
            continue;
        pm_graph_add_result(entry, pm_arena_printf(g->module->arena, "y%zu", n++), x->value, -1);
    }
    if (n == 0)
        pm_graph_add_result(entry, "y0", g->items[g->n_items - 1].value, -1);
}

pm_module *random_module_of(pm_arena *arena, pm_diag *diag, uint64_t seed, unsigned what)
{
    gen *g = PM_NEW(arena, gen);
    g->random.state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    g->what = what;
    g->module = pm_module_create(arena, diag, pm_arena_printf(arena, "random %" PRIu64, seed));
    bool symbolic = what & RANDOM_SYMBOLS;
    g->batch = symbolic ? pm_dim_symbol(g->module, "B", 1, 4) : pm_dim_const(g->module, 3);
    g->tokens = symbolic ? pm_dim_symbol(g->module, "T", 1, 9) : pm_dim_const(g->module, 5);
    pm_graph *entry = pm_entry_create(g->module, "main");
    g->b.graph = entry;
    add_args(g, entry);
    add_steps(g);
    if (g->failed)
        return NULL;
    add_results(g, entry);
    return pm_module_verify(g->module) == PM_OK ? g->module : NULL;
}

pm_module *random_module(pm_arena *arena, pm_diag *diag, uint64_t seed)
{
    return random_module_of(arena, diag, seed, RANDOM_MOST);
}

// ---- inputs ----

int64_t array_count(const pm_array *array)
{
    int64_t n = 1;
    for (int32_t i = 0; i < array->rank; i++)
        n *= array->dims[i];
    return n;
}

pm_array *random_inputs(pm_arena *arena, const pm_graph *entry, uint64_t seed)
{
    const pm_module *m = entry->module;
    random_state r = {seed ^ UINT64_C(0x9e3779b97f4a7c15)};
    int64_t *bindings = PM_NEW_ARRAY(arena, int64_t, m->symbols.n);
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        uint64_t span = (uint64_t)s->hi - (uint64_t)s->lo;
        int64_t low = s->lo == 0 ? 1 : s->lo;
        bindings[i] = low + (int64_t)random_below(&r, span < 9 ? (uint32_t)span + 1 : 9);
        if (bindings[i] > s->hi)
            bindings[i] = s->hi;
    }
    return random_inputs_bound(arena, entry, seed, bindings);
}

pm_array *random_inputs_bound(pm_arena *arena, const pm_graph *entry, uint64_t seed,
                              const int64_t *bindings)
{
    const pm_module *m = entry->module;
    random_state r = {seed ^ UINT64_C(0x5851f42d4c957f2d)};
    pm_array *inputs = PM_NEW_ARRAY(arena, pm_array, entry->args.n);
    for (size_t i = 0; i < entry->args.n; i++) {
        const pm_type *type = entry->args.data[i]->type;
        pm_array *array = &inputs[i];
        *array = (pm_array){.elem = type->elem, .rank = type->rank};
        for (int32_t d = 0; d < type->rank; d++)
            if (!pm_dim_eval(m, type->dims[d], bindings, &array->dims[d]))
                array->dims[d] = 0;
        int64_t n = array_count(array);
        uint32_t size = pm_elem_size(type->elem);
        array->data = pm_arena_alloc(arena, (size_t)n * size, 64);
        for (int64_t k = 0; k < n; k++) {
            uint8_t *at = (uint8_t *)array->data + k * size;
            if (pm_elem_is_float(type->elem))
                put_float(type->elem, (double)random_below(&r, 33) / 8 - 2, at);
            else
                *at = (uint8_t)random_below(&r, type->elem == PM_BOOL ? 2 : 4); // little-endian
        }
    }
    return inputs;
}

// ---- comparing ----

double array_element(const pm_array *array, int64_t i)
{
    const uint8_t *at = (const uint8_t *)array->data + i * pm_elem_size(array->elem);
    uint64_t bits = 0;
    float narrow;
    double wide;
    memcpy(&bits, at, pm_elem_size(array->elem));
    switch (array->elem) {
    case PM_F64: memcpy(&wide, at, sizeof wide); return wide;
    case PM_F32: memcpy(&narrow, at, sizeof narrow); return narrow;
    case PM_BF16: {
        uint32_t word = (uint32_t)bits << 16;
        memcpy(&narrow, &word, sizeof narrow);
        return narrow;
    }
    case PM_F16: {
        int exponent = (int)(bits >> 10 & 31);
        double fraction = (double)(bits & 1023);
        wide = exponent == 0    ? ldexp(fraction, -24)
               : exponent == 31 ? (fraction != 0 ? (double)NAN : (double)INFINITY)
                                : ldexp(fraction + 1024, exponent - 25);
        return bits & 0x8000 ? -wide : wide;
    }
    case PM_I64: return (double)(int64_t)bits;
    case PM_I32: return (double)(int32_t)bits;
    case PM_I16: return (double)(int16_t)bits;
    case PM_I8: return (double)(int8_t)bits;
    default: return (double)bits;
    }
}

const char *arrays_differ(pm_arena *arena, const pm_array *want, const pm_array *got,
                          double tolerance)
{
    if (want->elem != got->elem || want->rank != got->rank)
        return pm_arena_printf(arena, "%s of rank %d, expected %s of rank %d",
                               pm_elem_name(got->elem), (int)got->rank, pm_elem_name(want->elem),
                               (int)want->rank);
    for (int32_t i = 0; i < want->rank; i++)
        if (want->dims[i] != got->dims[i])
            return pm_arena_printf(arena, "extent %d is %" PRId64 ", expected %" PRId64, (int)i,
                                   got->dims[i], want->dims[i]);
    int64_t n = array_count(want);
    bool floats = pm_elem_is_float(want->elem);
    double largest = 0;
    for (int64_t i = 0; i < n && floats; i++)
        if (isfinite(array_element(want, i)))
            largest = fmax(largest, fabs(array_element(want, i)));
    if (want->elem == PM_BF16)
        tolerance = fmax(tolerance, 0x1p-7);
    if (want->elem == PM_F16)
        tolerance = fmax(tolerance, 0x1p-9);
    for (int64_t i = 0; i < n; i++) {
        double a = array_element(want, i), b = array_element(got, i);
        bool same = floats
                        ? (isnan(a) ? isnan(b) : a == b || fabs(a - b) <= tolerance * (1 + largest))
                        : memcmp((const uint8_t *)want->data + i * pm_elem_size(want->elem),
                                 (const uint8_t *)got->data + i * pm_elem_size(want->elem),
                                 pm_elem_size(want->elem)) == 0;
        if (!same)
            return pm_arena_printf(
                arena, "element %" PRId64 " of %" PRId64 " is %.9g, expected %.9g", i, n, b, a);
    }
    return NULL;
}
