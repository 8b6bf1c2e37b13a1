/// Elementwise ops with numpy broadcasting. Floats are computed in double and rounded once;
/// integers wrap.
#include "ir/ops/eval_util.h"

/* ---- of one operand ----------------------------------------------------------------------------- */

enum unary {
    NEG, ABS, SIGN, EXP, LOG, SQRT, RSQRT, RECIPROCAL, SIN, COS, TANH, ERF, SIGMOID, SILU, RELU,
    GELU, GELU_TANH, SOFTPLUS, FLOOR, CEIL, ROUND, ASIN, ACOS, ATAN,
};

PM_INLINE double gelu_tanh(double x)
{
    const double sqrt_2_over_pi = 0.79788456080286535588;
    return 0.5 * x * (1 + tanh(sqrt_2_over_pi * (x + 0.044715 * x * x * x)));
}

PM_INLINE double unary_float(enum unary op, double x)
{
    switch (op) {
    case NEG: return -x;
    case ABS: return fabs(x);
    case SIGN: return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x;
    case EXP: return exp(x);
    case LOG: return log(x);
    case SQRT: return sqrt(x);
    case RSQRT: return 1 / sqrt(x);
    case RECIPROCAL: return 1 / x;
    case SIN: return sin(x);
    case COS: return cos(x);
    case TANH: return tanh(x);
    case ERF: return erf(x);
    case SIGMOID: return 1 / (1 + exp(-x));
    case SILU: return x / (1 + exp(-x));
    case RELU: return x != x ? x : x > 0 ? x : 0;
    case GELU: return 0.5 * x * erfc(x * -0.70710678118654752440); // 1 + erf without cancellation
    case GELU_TANH: return gelu_tanh(x);
    case SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case FLOOR: return floor(x);
    case CEIL: return ceil(x);
    case ROUND: return rint(x);
    case ASIN: return asin(x);
    case ACOS: return acos(x);
    case ATAN: return atan(x);
    }
    return 0;
}

PM_INLINE int64_t unary_int(enum unary op, int64_t x, int32_t is_u64)
{
    int32_t is_negative = !is_u64 && x < 0;
    switch (op) {
    case NEG: return (int64_t)-(uint64_t)x;
    case ABS: return is_negative ? (int64_t)-(uint64_t)x : x;
    case SIGN: return is_negative ? -1 : x != 0;
    case RELU: return is_negative ? 0 : x;
    default: return x;
    }
}

PM_INLINE int32_t map1(const pm_eval_args *args, enum unary op)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t n = pm_elements(out);
    if (!pm_same_dims(x, out))
        return 1;
    if (pm_is_float(x->elem)) {
        for (int64_t i = 0; i < n; i++)
            pm_set_f64(out->data, out->elem, i, unary_float(op, pm_get_f64(x->data, x->elem, i)));
        return 0;
    }
    int32_t is_u64 = x->elem == PM_U64;
    for (int64_t i = 0; i < n; i++) {
        int64_t value = unary_int(op, pm_get_i64(x->data, x->elem, i), is_u64);
        pm_set_i64(out->data, out->elem, i, value, is_u64);
    }
    return 0;
}

#define UNARY(name, op)                                                                            \
    int32_t pm_eval_##name(const pm_eval_args *args);                                              \
    int32_t pm_eval_##name(const pm_eval_args *args)                                               \
    {                                                                                              \
        return map1(args, op);                                                                     \
    }

UNARY(neg, NEG)
UNARY(abs, ABS)
UNARY(sign, SIGN)
UNARY(exp, EXP)
UNARY(log, LOG)
UNARY(sqrt, SQRT)
UNARY(rsqrt, RSQRT)
UNARY(reciprocal, RECIPROCAL)
UNARY(sin, SIN)
UNARY(cos, COS)
UNARY(tanh, TANH)
UNARY(erf, ERF)
UNARY(sigmoid, SIGMOID)
UNARY(silu, SILU)
UNARY(relu, RELU)
UNARY(softplus, SOFTPLUS)
UNARY(floor, FLOOR)
UNARY(ceil, CEIL)
UNARY(round, ROUND)
UNARY(asin, ASIN)
UNARY(acos, ACOS)
UNARY(atan, ATAN)

pm_eval_fn pm_eval_gelu, pm_eval_isnan, pm_eval_isinf, pm_eval_not, pm_eval_cast;

int32_t pm_eval_gelu(const pm_eval_args *args)
{
    return args->attrs[0].i ? map1(args, GELU_TANH) : map1(args, GELU);
}

int32_t pm_eval_isnan(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t n = pm_elements(out);
    if (!pm_same_dims(x, out))
        return 1;
    for (int64_t i = 0; i < n; i++) {
        double value = pm_get_f64(x->data, x->elem, i);
        pm_set_i64(out->data, out->elem, i, value != value, 0);
    }
    return 0;
}

int32_t pm_eval_isinf(const pm_eval_args *args)
{
    enum { NEGATIVE, POSITIVE };
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t n = pm_elements(out);
    if (!pm_same_dims(x, out))
        return 1;
    for (int64_t i = 0; i < n; i++) {
        double value = pm_get_f64(x->data, x->elem, i);
        int32_t is = (value == INFINITY && args->attrs[POSITIVE].i) ||
                     (value == -INFINITY && args->attrs[NEGATIVE].i);
        pm_set_i64(out->data, out->elem, i, is, 0);
    }
    return 0;
}

int32_t pm_eval_not(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t n = pm_elements(out);
    if (!pm_same_dims(x, out))
        return 1;
    for (int64_t i = 0; i < n; i++)
        pm_set_i64(out->data, out->elem, i,
                   x->elem == PM_BOOL ? !pm_get_i64(x->data, x->elem, i)
                                      : ~pm_get_i64(x->data, x->elem, i),
                   0);
    return 0;
}

int32_t pm_eval_cast(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t n = pm_elements(out);
    if (!pm_same_dims(x, out))
        return 1;
    if (x->elem == out->elem) {
        pm_copy(out->data, 0, x->data, 0, n, x->elem);
        return 0;
    }
    if (pm_is_float(x->elem)) {
        for (int64_t i = 0; i < n; i++)
            pm_set_f64(out->data, out->elem, i, pm_get_f64(x->data, x->elem, i));
        return 0;
    }
    int32_t is_u64 = x->elem == PM_U64;
    for (int64_t i = 0; i < n; i++)
        pm_set_i64(out->data, out->elem, i, pm_get_i64(x->data, x->elem, i), is_u64);
    return 0;
}

/* ---- of two operands ---------------------------------------------------------------------------- */

enum binary {
    ADD, SUB, MUL, DIV, MOD, FMOD, POW, MIN, MAX, AND, OR, XOR, EQUAL, LESS, LESS_EQUAL, SHIFT_LEFT,
    SHIFT_RIGHT,
};

/// Remainder with the sign of y.
PM_INLINE double floor_mod(double x, double y)
{
    double rest = fmod(x, y);
    if (rest == 0)
        return copysign(0, y);
    return (rest < 0) != (y < 0) ? rest + y : rest;
}

PM_INLINE double binary_float(enum binary op, double x, double y)
{
    switch (op) {
    case ADD: return x + y;
    case SUB: return x - y;
    case MUL: return x * y;
    case DIV: return x / y;
    case MOD: return floor_mod(x, y);
    case FMOD: return fmod(x, y);
    case POW: return pow(x, y);
    case MIN: return pm_smaller(x, y);
    case MAX: return pm_larger(x, y);
    case EQUAL: return x == y;
    case LESS: return x < y;
    case LESS_EQUAL: return x <= y;
    default: break; // of integers and bools alone
    }
    return 0;
}

PM_INLINE int64_t divide(int64_t x, int64_t y, int32_t is_u64)
{
    if (is_u64)
        return (int64_t)((uint64_t)x / (uint64_t)y);
    return y == -1 ? (int64_t)-(uint64_t)x : x / y; // the lowest value by -1 wraps
}

PM_INLINE int64_t remainder_of(int64_t x, int64_t y, int32_t is_u64, int32_t sign_of_x)
{
    if (is_u64)
        return (int64_t)((uint64_t)x % (uint64_t)y);
    int64_t rest = y == -1 ? 0 : x % y;
    return !sign_of_x && rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}

/// x to the power y >= 0, wrapping.
PM_INLINE int64_t power(int64_t x, uint64_t y)
{
    uint64_t result = 1, square = (uint64_t)x;
    for (; y != 0; y >>= 1) {
        if (y & 1)
            result *= square;
        square *= square;
    }
    return (int64_t)result;
}

/// `y_is_u64` differs from `is_u64` only for powers.
PM_INLINE int64_t binary_int(enum binary op, int64_t x, int64_t y, int32_t is_u64,
                             int32_t y_is_u64, int32_t *fault)
{
    int32_t elem = is_u64 ? PM_U64 : PM_I64;
    switch (op) {
    case ADD: return pm_wrap_add(x, y);
    case SUB: return (int64_t)((uint64_t)x - (uint64_t)y);
    case MUL: return pm_wrap_mul(x, y);
    case DIV:
    case MOD:
    case FMOD:
        if (y == 0) {
            *fault = 1;
            return 0;
        }
        return op == DIV ? divide(x, y, is_u64) : remainder_of(x, y, is_u64, op == FMOD);
    case POW:
        if (y_is_u64 || y >= 0)
            return power(x, (uint64_t)y);
        if (x == 0) // 1 / 0
            *fault = 1;
        return x == 1 ? 1 : x == -1 && !is_u64 ? (y & 1 ? -1 : 1) : 0;
    case MIN: return pm_smaller_int(x, y, elem);
    case MAX: return pm_larger_int(x, y, elem);
    case AND: return x & y; // bools are 0 and 1
    case OR: return x | y;
    case XOR: return x ^ y;
    case SHIFT_LEFT: return y < 0 || y > 63 ? 0 : (int64_t)((uint64_t)x << y);
    case SHIFT_RIGHT:
        if (is_u64)
            return y < 0 || y > 63 ? 0 : (int64_t)((uint64_t)x >> y);
        return x >> (y < 0 || y > 63 ? 63 : y); // of narrower types: sign bits (or zeros) stand above
    case EQUAL: return x == y;
    case LESS: return x != y && pm_smaller_int(x, y, elem) == x;
    case LESS_EQUAL: return pm_smaller_int(x, y, elem) == x;
    }
    return 0;
}

/// One element; the result's type decides how it is stored.
PM_INLINE int32_t binary_element(enum binary op, const pm_tensor *x, int64_t x_at,
                                 const pm_tensor *y, int64_t y_at, const pm_tensor *out, int64_t at)
{
    int32_t fault = 0, is_u64 = x->elem == PM_U64;
    if (pm_is_float(x->elem) || pm_is_float(y->elem)) {
        double value = binary_float(op, pm_get_f64(x->data, x->elem, x_at),
                                    pm_get_f64(y->data, y->elem, y_at));
        pm_set_f64(out->data, out->elem, at, value);
        return 0;
    }
    int64_t value = binary_int(op, pm_get_i64(x->data, x->elem, x_at),
                               pm_get_i64(y->data, y->elem, y_at), is_u64, y->elem == PM_U64,
                               &fault);
    pm_set_i64(out->data, out->elem, at, value, is_u64);
    return fault;
}

PM_INLINE int32_t map2(const pm_eval_args *args, enum binary op)
{
    const pm_tensor *x = &args->in[0], *y = &args->in[1], *out = &args->out[0];
    int64_t at = 0;
    int32_t fault = 0;
    pm_walk w;
    pm_walk_begin(&w, out->dims, out->rank, 2);
    if (pm_walk_broadcast(&w, 0, x) || pm_walk_broadcast(&w, 1, y))
        return 1;
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w);
    int64_t x_step = w.stride[0][w.rank - 1], y_step = w.stride[1][w.rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w))
        for (int64_t i = 0; i < n; i++)
            fault |= binary_element(op, x, w.offset[0] + i * x_step, y, w.offset[1] + i * y_step,
                                    out, at++);
    return fault;
}

#define BINARY(name, op)                                                                           \
    int32_t pm_eval_##name(const pm_eval_args *args);                                              \
    int32_t pm_eval_##name(const pm_eval_args *args)                                               \
    {                                                                                              \
        return map2(args, op);                                                                     \
    }

BINARY(add, ADD)
BINARY(sub, SUB)
BINARY(mul, MUL)
BINARY(div, DIV)
BINARY(pow, POW)
BINARY(min, MIN)
BINARY(max, MAX)
BINARY(and, AND)
BINARY(or, OR)
BINARY(xor, XOR)
BINARY(equal, EQUAL)
BINARY(less, LESS)
BINARY(less_equal, LESS_EQUAL)

pm_eval_fn pm_eval_mod, pm_eval_where, pm_eval_shift, pm_eval_bitcast;

int32_t pm_eval_mod(const pm_eval_args *args)
{
    return args->attrs[0].i ? map2(args, FMOD) : map2(args, MOD);
}

int32_t pm_eval_shift(const pm_eval_args *args)
{
    return args->attrs[0].i ? map2(args, SHIFT_LEFT) : map2(args, SHIFT_RIGHT);
}

int32_t pm_eval_bitcast(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    if (!pm_same_dims(x, out))
        return 1;
    pm_copy(out->data, 0, x->data, 0, pm_elements(out), x->elem);
    return 0;
}

int32_t pm_eval_where(const pm_eval_args *args)
{
    const pm_tensor *cond = &args->in[0], *x = &args->in[1], *y = &args->in[2];
    const pm_tensor *out = &args->out[0];
    int64_t at = 0;
    pm_walk w;
    pm_walk_begin(&w, out->dims, out->rank, 3);
    if (pm_walk_broadcast(&w, 0, cond) || pm_walk_broadcast(&w, 1, x) ||
        pm_walk_broadcast(&w, 2, y))
        return 1;
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w);
    int32_t last = w.rank - 1;
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w)) {
        for (int64_t i = 0; i < n; i++, at++) {
            if (pm_get_i64(cond->data, cond->elem, w.offset[0] + i * w.stride[0][last]))
                pm_copy_one(out->data, at, x->data, w.offset[1] + i * w.stride[1][last], out->elem);
            else
                pm_copy_one(out->data, at, y->data, w.offset[2] + i * w.stride[2][last], out->elem);
        }
    }
    return 0;
}
