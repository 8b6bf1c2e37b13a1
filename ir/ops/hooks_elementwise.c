/// Elementwise ops: verify, infer.
#include "ir/ops/hooks.h"

/* ---- verify ---------------------------------------------------------------------------------- */

pm_status pm_verify_numeric(const pm_op *op, pm_diag *diag)
{
    if (pm_hook_type(op, 0)->elem == PM_BOOL)
        return pm_hook_error(op, diag, "operand 0 must be of numbers, found %s",
                             pm_hook_type_text(op, 0));
    return PM_OK;
}

pm_status pm_verify_float(const pm_op *op, pm_diag *diag)
{
    return pm_hook_float(op, diag, 0);
}

/// Operand 0 is of bools or integers (of integers alone, where bits are moved).
pm_status pm_verify_bits(const pm_op *op, pm_diag *diag)
{
    pm_elem elem = pm_hook_type(op, 0)->elem;
    bool takes_bools = op->code != PM_OP_shift;
    if (pm_elem_is_int(elem) || (takes_bools && elem == PM_BOOL))
        return PM_OK;
    return pm_hook_error(op, diag, "operand 0 must be of %sintegers, found %s",
                         takes_bools ? "bools or " : "", pm_hook_type_text(op, 0));
}

pm_status pm_verify_same_bits(const pm_op *op, pm_diag *diag)
{
    PM_TRY(pm_verify_bits(op, diag));
    return pm_hook_elem(op, diag, 1, pm_hook_type(op, 0)->elem);
}

pm_status pm_verify_bitcast(const pm_op *op, pm_diag *diag)
{
    pm_elem from = pm_hook_type(op, 0)->elem, to = (pm_elem)pm_op_i64(op, "to");
    if (pm_elem_size(from) == pm_elem_size(to))
        return PM_OK;
    return pm_hook_error(op, diag, "elements of %s and %s differ in size", pm_elem_name(from),
                         pm_elem_name(to));
}

pm_status pm_verify_same(const pm_op *op, pm_diag *diag)
{
    if (pm_hook_type(op, 0)->elem != pm_hook_type(op, 1)->elem)
        return pm_hook_error(op, diag, "operands must have the same element type, found %s and %s",
                             pm_hook_type_text(op, 0), pm_hook_type_text(op, 1));
    return op->code == PM_OP_equal ? PM_OK : pm_verify_numeric(op, diag);
}

pm_status pm_verify_where(const pm_op *op, pm_diag *diag)
{
    PM_TRY(pm_hook_elem(op, diag, 0, PM_BOOL));
    if (pm_hook_type(op, 1)->elem != pm_hook_type(op, 2)->elem)
        return pm_hook_error(op, diag,
                             "the choices must have the same element type, found %s and %s",
                             pm_hook_type_text(op, 1), pm_hook_type_text(op, 2));
    return PM_OK;
}

pm_status pm_verify_pow(const pm_op *op, pm_diag *diag)
{
    PM_TRY(pm_verify_numeric(op, diag));
    if (pm_hook_type(op, 1)->elem == PM_BOOL)
        return pm_hook_error(op, diag, "the exponent must be of numbers, found %s",
                             pm_hook_type_text(op, 1));
    return PM_OK;
}

/* ---- content --------------------------------------------------------------------------------- */

/// True when every value of the expression fits the element type (or might well: extents are taken
/// to fit the 32-bit and 64-bit types that programs compute them in).
static bool fits(const pm_module *m, pm_dim d, pm_elem elem)
{
    int64_t lo, hi, value;
    unsigned bits = 8 * pm_elem_size(elem);
    bool is_signed = elem == PM_I64 || elem == PM_I32 || elem == PM_I16 || elem == PM_I8;
    int64_t max = bits == 64 ? INT64_MAX : (INT64_C(1) << (is_signed ? bits - 1 : bits)) - 1;
    int64_t min = !is_signed ? 0 : -max - 1;
    if (elem == PM_BOOL)
        max = 1;
    if (pm_dim_is_const(m, d, &value))
        return value >= min && value <= max;
    if (elem == PM_I64 || elem == PM_I32)
        return true;
    pm_dim_range(m, d, &lo, &hi);
    return lo >= min && hi <= max;
}

/// Truth of a content element: 1, 0, or -1 when unknown.
static int truth(const pm_module *m, pm_dim d)
{
    int64_t lo, hi;
    pm_dim_range(m, d, &lo, &hi);
    if (lo == 0 && hi == 0)
        return 0;
    return lo > 0 || hi < 0 ? 1 : -1;
}

static pm_dim boolean(pm_module *m, int value)
{
    return value < 0 ? PM_DIM_NONE : pm_dim_const(m, value);
}

static int less_or_equal(const pm_module *m, pm_dim a, pm_dim b)
{
    if (pm_dim_at_most(m, a, b))
        return 1;
    // a <= b is false when b < a for every binding
    return pm_dim_at_most(m, b, a) && pm_dim_differs(m, a, b) ? 0 : -1;
}

static bool never_negative(const pm_module *m, pm_dim d)
{
    int64_t lo, hi;
    pm_dim_range(m, d, &lo, &hi);
    return lo >= 0;
}

/// x / y towards zero.
static pm_dim truncated_div(pm_module *m, pm_dim x, pm_dim y)
{
    int64_t a, b;
    if (pm_dim_is_const(m, x, &a) && pm_dim_is_const(m, y, &b))
        return b == 0 || (a == INT64_MIN && b == -1) ? PM_DIM_NONE : pm_dim_const(m, a / b);
    return never_negative(m, x) && never_negative(m, y) ? pm_dim_floordiv(m, x, y) : PM_DIM_NONE;
}

static pm_dim binary_content(pm_module *m, const pm_op *op, pm_dim x, pm_dim y)
{
    switch (op->code) {
    case PM_OP_add: return pm_dim_add(m, x, y);
    case PM_OP_sub: return pm_dim_sub(m, x, y);
    case PM_OP_mul: return pm_dim_mul(m, x, y);
    case PM_OP_min: return pm_dim_min(m, x, y);
    case PM_OP_max: return pm_dim_max(m, x, y);
    case PM_OP_div: return truncated_div(m, x, y);
    case PM_OP_mod:
        if (pm_op_i64(op, "fmod") && !(never_negative(m, x) && never_negative(m, y)))
            return PM_DIM_NONE;
        return pm_dim_mod(m, x, y);
    case PM_OP_equal:
        if (x == y)
            return pm_dim_const(m, 1);
        return pm_dim_differs(m, x, y) ? pm_dim_const(m, 0) : PM_DIM_NONE;
    case PM_OP_less_equal: return boolean(m, less_or_equal(m, x, y));
    case PM_OP_less: {
        int reverse = less_or_equal(m, y, x);
        return boolean(m, reverse < 0 ? -1 : !reverse);
    }
    case PM_OP_and:
        if (truth(m, x) == 0 || truth(m, y) == 0)
            return pm_dim_const(m, 0);
        return boolean(m, truth(m, x) == 1 && truth(m, y) == 1 ? 1 : -1);
    case PM_OP_or:
        if (truth(m, x) == 1 || truth(m, y) == 1)
            return pm_dim_const(m, 1);
        return boolean(m, truth(m, x) == 0 && truth(m, y) == 0 ? 0 : -1);
    case PM_OP_xor:
        return boolean(m, truth(m, x) < 0 || truth(m, y) < 0 ? -1 : truth(m, x) != truth(m, y));
    default: return PM_DIM_NONE;
    }
}

/// Elements of a result of rank 0 or 1; 0 when its content can't be known.
static size_t content_size(const pm_infer *inf)
{
    int64_t n;
    const pm_type *type = inf->types[0];
    if (pm_elem_is_float(type->elem) || type->rank > 1 ||
        !pm_type_const_count(inf->module, type, &n) || n > PM_MAX_CONTENT)
        return 0;
    return (size_t)n;
}

static void infer_binary_content(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    pm_dim content[PM_MAX_CONTENT];
    size_t n = content_size(inf), n_x, n_y;
    const pm_dim *x = pm_hook_content(op->operands[0], &n_x);
    const pm_dim *y = pm_hook_content(op->operands[1], &n_y);
    bool is_logical = op->code == PM_OP_and || op->code == PM_OP_or || op->code == PM_OP_xor;
    if (is_logical && inf->types[0]->elem != PM_BOOL)
        return; // of bits we know nothing
    if (n == 0 || x == NULL || y == NULL)
        return;
    for (size_t i = 0; i < n; i++) {
        content[i] = binary_content(m, op, x[n_x == 1 ? 0 : i], y[n_y == 1 ? 0 : i]);
        if (content[i] == PM_DIM_NONE || !fits(m, content[i], inf->types[0]->elem))
            return;
    }
    pm_infer_content(inf, 0, content, n);
}

static pm_dim unary_content(pm_module *m, const pm_op *op, pm_dim x)
{
    switch (op->code) {
    case PM_OP_neg: return pm_dim_sub(m, pm_dim_const(m, 0), x);
    case PM_OP_abs:
    case PM_OP_relu:
        if (op->code == PM_OP_relu || never_negative(m, x))
            return pm_dim_max(m, x, pm_dim_const(m, 0));
        return pm_dim_max(m, x, pm_dim_sub(m, pm_dim_const(m, 0), x));
    case PM_OP_not:
        if (pm_hook_type(op, 0)->elem != PM_BOOL)
            return pm_dim_sub(m, pm_dim_const(m, -1), x);
        return boolean(m, truth(m, x) < 0 ? -1 : !truth(m, x));
    case PM_OP_transfer: return x;
    case PM_OP_cast: return pm_op_i64(op, "to") == PM_BOOL ? boolean(m, truth(m, x)) : x;
    default: return PM_DIM_NONE;
    }
}

static void infer_unary_content(pm_infer *inf)
{
    pm_dim content[PM_MAX_CONTENT];
    size_t n;
    const pm_dim *x = pm_hook_content(inf->op->operands[0], &n);
    if (x == NULL || content_size(inf) != n)
        return;
    for (size_t i = 0; i < n; i++) {
        content[i] = unary_content(inf->module, inf->op, x[i]);
        if (content[i] == PM_DIM_NONE || !fits(inf->module, content[i], inf->types[0]->elem))
            return;
    }
    pm_infer_content(inf, 0, content, n);
}

/* ---- infer ----------------------------------------------------------------------------------- */

/// The type of operand 0 (its row-major form: results are never packed).
pm_status pm_infer_like(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    PM_TRY(pm_hook_result(inf, 0, x->elem, x->rank, x->dims));
    infer_unary_content(inf);
    return PM_OK;
}

pm_status pm_infer_bool(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    return pm_hook_result(inf, 0, PM_BOOL, x->rank, x->dims);
}

pm_status pm_infer_cast(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    PM_TRY(pm_hook_result(inf, 0, (pm_elem)pm_op_i64(inf->op, "to"), x->rank, x->dims));
    infer_unary_content(inf);
    return PM_OK;
}

pm_status pm_infer_bitcast(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    return pm_hook_result(inf, 0, (pm_elem)pm_op_i64(inf->op, "to"), x->rank, x->dims);
}

/// The broadcast of operands first … first + n - 1.
static pm_status broadcast(pm_infer *inf, uint32_t first, uint32_t n, pm_elem elem)
{
    const pm_type *x = pm_hook_type(inf->op, first);
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = x->rank;
    if (rank)
        memcpy(dims, x->dims, (size_t)rank * sizeof *dims);
    for (uint32_t i = first + 1; i < first + n; i++) {
        const pm_type *other = pm_hook_type(inf->op, i);
        PM_TRY(pm_hook_broadcast_dims(inf, dims, &rank, other->dims, other->rank));
    }
    return pm_hook_result(inf, 0, elem, rank, dims);
}

pm_status pm_infer_broadcast(pm_infer *inf)
{
    PM_TRY(broadcast(inf, 0, 2, pm_hook_type(inf->op, 0)->elem));
    infer_binary_content(inf);
    return PM_OK;
}

pm_status pm_infer_broadcast_first(pm_infer *inf)
{
    return broadcast(inf, 0, 2, pm_hook_type(inf->op, 0)->elem);
}

pm_status pm_infer_compare(pm_infer *inf)
{
    PM_TRY(broadcast(inf, 0, 2, PM_BOOL));
    infer_binary_content(inf);
    return PM_OK;
}

pm_status pm_infer_where(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    PM_TRY(broadcast(inf, 0, 3, pm_hook_type(op, 1)->elem));
    pm_dim content[PM_MAX_CONTENT];
    size_t n = content_size(inf), n_c, n_x, n_y;
    const pm_dim *c = pm_hook_content(op->operands[0], &n_c);
    const pm_dim *x = pm_hook_content(op->operands[1], &n_x);
    const pm_dim *y = pm_hook_content(op->operands[2], &n_y);
    if (n == 0 || c == NULL)
        return PM_OK;
    for (size_t i = 0; i < n; i++) {
        pm_dim if_true = x ? x[n_x == 1 ? 0 : i] : PM_DIM_NONE;
        pm_dim if_false = y ? y[n_y == 1 ? 0 : i] : PM_DIM_NONE;
        int chosen = truth(m, c[n_c == 1 ? 0 : i]);
        content[i] = chosen == 1 || if_true == if_false ? if_true
                     : chosen == 0                      ? if_false
                                                        : PM_DIM_NONE;
    }
    pm_infer_content(inf, 0, content, n);
    return PM_OK;
}
