/// What the hooks of all families share.
#include "ir/ops/hooks.h"

pm_status pm_hook_error(const pm_op *op, pm_diag *diag, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(pm_hook_module(op)->arena, fmt, ap);
    va_end(ap);
    return pm_error(diag, op->loc, PM_ERR_INVALID, "%s: %s", pm_op_info_of(op)->name, text);
}

const char *pm_hook_type_text(const pm_op *op, uint32_t operand)
{
    return pm_type_text(pm_hook_module(op), pm_hook_type(op, operand));
}

pm_status pm_hook_axis(const pm_op *op, pm_diag *diag, const char *what, int64_t axis, int32_t rank,
                       int32_t *out_axis)
{
    *out_axis = 0;
    if (rank == 0)
        return pm_hook_error(op, diag, "%s is %" PRId64 ", but the tensor has no axes", what, axis);
    if (axis < -rank || axis >= rank)
        return pm_hook_error(op, diag, "%s is %" PRId64 ", must be in [%d, %d]", what, axis,
                             -(int)rank, (int)rank - 1);
    *out_axis = (int32_t)(axis < 0 ? axis + rank : axis);
    return PM_OK;
}

int32_t pm_hook_axis_of(const pm_op *op, const char *key, int32_t rank)
{
    int64_t axis = pm_op_i64(op, key);
    if (axis < 0)
        axis += rank;
    PM_ASSERT(axis >= 0 && axis <= rank);
    return (int32_t)axis;
}

pm_status pm_hook_rank(const pm_op *op, pm_diag *diag, uint32_t operand, int32_t rank)
{
    if (pm_hook_type(op, operand)->rank == rank)
        return PM_OK;
    return pm_hook_error(op, diag, "operand %u must have rank %d, found %s", operand, (int)rank,
                         pm_hook_type_text(op, operand));
}

pm_status pm_hook_elem(const pm_op *op, pm_diag *diag, uint32_t operand, pm_elem elem)
{
    if (pm_hook_type(op, operand)->elem == elem)
        return PM_OK;
    return pm_hook_error(op, diag, "operand %u must be of %s, found %s", operand,
                         pm_elem_name(elem), pm_hook_type_text(op, operand));
}

pm_status pm_hook_float(const pm_op *op, pm_diag *diag, uint32_t operand)
{
    if (pm_elem_is_float(pm_hook_type(op, operand)->elem))
        return PM_OK;
    return pm_hook_error(op, diag, "operand %u must be of a floating type, found %s", operand,
                         pm_hook_type_text(op, operand));
}

pm_status pm_hook_int(const pm_op *op, pm_diag *diag, uint32_t operand)
{
    if (pm_elem_is_int(pm_hook_type(op, operand)->elem))
        return PM_OK;
    return pm_hook_error(op, diag, "operand %u must be of integers, found %s", operand,
                         pm_hook_type_text(op, operand));
}

pm_status pm_hook_extent(const pm_op *op, pm_diag *diag, const char *what, pm_dim found,
                         pm_dim expected)
{
    pm_module *m = pm_hook_module(op);
    if (m->on_extents)
        m->on_extents(m->on_extents_user, found, expected);
    if (!pm_dim_differs(m, found, expected))
        return PM_OK;
    return pm_hook_error(op, diag, "%s must be %s, found %s", what, pm_dim_text(m, expected),
                         pm_dim_text(m, found));
}

pm_status pm_hook_one_of(const pm_op *op, pm_diag *diag, const char *key, const char *const *names,
                         size_t n)
{
    const char *found = pm_op_str(op, key);
    for (size_t i = 0; i < n; i++)
        if (strcmp(found, names[i]) == 0)
            return PM_OK;
    const char *nearest = pm_nearest(found, names, n);
    const char *list = names[0];
    for (size_t i = 1; i < n; i++)
        list = pm_arena_printf(pm_hook_module(op)->arena, "%s, %s", list, names[i]);
    return pm_hook_error(op, diag, "%s is '%s', must be one of: %s%s%s%s", key, found, list,
                         nearest ? "; did you mean '" : "", nearest ? nearest : "",
                         nearest ? "'?" : "");
}

const pm_dim *pm_hook_content(const pm_value *v, size_t *out_n)
{
    *out_n = 0;
    int64_t n;
    if (v == NULL || v->content == NULL || !pm_type_const_count(v->graph->module, v->type, &n))
        return NULL;
    *out_n = (size_t)n;
    return v->content;
}

pm_dim pm_hook_scalar(const pm_value *v)
{
    size_t n;
    const pm_dim *content = pm_hook_content(v, &n);
    return content && n == 1 ? content[0] : PM_DIM_NONE;
}

bool pm_hook_length(const pm_op *op, uint32_t operand, int64_t *out_n)
{
    const pm_type *type = pm_hook_type(op, operand);
    return type->rank == 1 && pm_dim_is_const(pm_hook_module(op), type->dims[0], out_n) &&
           *out_n >= 0;
}

static double half_to_double(uint16_t bits)
{
    int exponent = (bits >> 10) & 31;
    double fraction = bits & 1023;
    double size;
    if (exponent == 31)
        size = fraction != 0 ? __builtin_nan("") : __builtin_inf();
    else if (exponent == 0)
        size = fraction * 0x1p-24;
    else
        size = (1024 + fraction) * __builtin_ldexp(1, exponent - 25);
    return bits >> 15 ? -size : size;
}

static bool number_at(const uint8_t *bytes, pm_elem elem, double *out)
{
    const int64_t exact = INT64_C(1) << 53;
    switch (elem) {
    case PM_F32: {
        float f;
        memcpy(&f, bytes, sizeof f);
        *out = (double)f;
        return true;
    }
    case PM_F64: memcpy(out, bytes, sizeof *out); return true;
    case PM_F16: {
        uint16_t bits;
        memcpy(&bits, bytes, sizeof bits);
        *out = half_to_double(bits);
        return true;
    }
    case PM_BF16: {
        uint16_t bits;
        memcpy(&bits, bytes, sizeof bits);
        uint32_t wide = (uint32_t)bits << 16;
        float f;
        memcpy(&f, &wide, sizeof f);
        *out = (double)f;
        return true;
    }
    default: {
        int64_t integer = pm_data_int(bytes, elem, 0);
        *out = (double)integer;
        return integer >= (elem == PM_U64 ? 0 : -exact) && integer <= exact;
    }
    }
}

bool pm_hook_number(pm_value *v, double *out_number)
{
    int64_t count, integer;
    size_t n;
    pm_module *m = v->graph->module;
    if (!pm_type_const_count(m, v->type, &count) || count != 1)
        return false;
    if (!pm_elem_is_float(v->type->elem)) {
        if (!pm_value_const_ints(v, &integer, 1, &n) || integer > INT64_C(1) << 53 ||
            integer < -(INT64_C(1) << 53))
            return false;
        *out_number = (double)integer;
        return true;
    }
    const pm_data *data = pm_value_const(v);
    const uint8_t *bytes;
    return data && pm_data_bytes(m, data, &bytes) == PM_OK &&
           number_at(bytes, v->type->elem, out_number);
}

/// True when all elements of a constant have the same bytes.
static bool is_uniform(const pm_data *data, const uint8_t *bytes, size_t size)
{
    return data->size >= size && memcmp(bytes, bytes + size, data->size - size) == 0;
}

bool pm_hook_splat(pm_value *v, double *out_number)
{
    enum { MAX_STEPS = 4, MAX_BYTES = 1 << 16 };
    for (int step = 0; step < MAX_STEPS; step++) { // look through broadcasts
        if (pm_value_is(v, PM_OP_fill))
            v = v->def->operands[1];
        else if (pm_value_is(v, PM_OP_expand) || pm_value_is(v, PM_OP_reshape))
            v = v->def->operands[0];
        else
            break;
    }
    if (pm_hook_number(v, out_number))
        return true;
    const pm_data *data = pm_value_const(v);
    const uint8_t *bytes;
    pm_elem elem = v->type->elem;
    if (data == NULL || data->size > MAX_BYTES ||
        pm_data_bytes(v->graph->module, data, &bytes) != PM_OK ||
        !is_uniform(data, bytes, pm_elem_size(elem)))
        return false;
    return number_at(bytes, elem, out_number);
}

/* ---- results --------------------------------------------------------------------------------- */

pm_status pm_hook_broadcast(pm_infer *inf, pm_dim a, pm_dim b, pm_dim *out_dim)
{
    pm_module *m = inf->module;
    int64_t x = -1, y = -1;
    bool a_const = pm_dim_is_const(m, a, &x), b_const = pm_dim_is_const(m, b, &y);
    *out_dim = a;
    if (a == b || (b_const && y == 1))
        return PM_OK;
    *out_dim = b;
    if (a_const && x == 1)
        return PM_OK;
    int64_t lo_a, lo_b, hi_a, hi_b;
    pm_dim_range(m, a, &lo_a, &hi_a);
    pm_dim_range(m, b, &lo_b, &hi_b);
    bool none_is_one = (lo_a > 1 || (a_const && x != 1)) && (lo_b > 1 || (b_const && y != 1));
    if (none_is_one && pm_dim_differs(m, a, b))
        return pm_infer_error(inf, "extents %s and %s can't be broadcast", pm_dim_text(m, a),
                              pm_dim_text(m, b));
    // a constant other than 1 decides: the other one is equal to it, or 1, when the program runs
    if (a_const)
        *out_dim = a;
    if (a_const || b_const)
        return PM_OK;
    // the greater one, but nothing when one is empty (0 and 1 make 0)
    pm_dim one = pm_dim_const(m, 1);
    if (hi_a <= 1 || hi_b <= 1)
        *out_dim = pm_dim_mul(m, a, b);
    else if (lo_a >= 1 && lo_b >= 1)
        *out_dim = pm_dim_max(m, a, b);
    else
        *out_dim = pm_dim_mul(m, pm_dim_max(m, a, b), pm_dim_min(m, one, pm_dim_min(m, a, b)));
    return PM_OK;
}

pm_status pm_hook_broadcast_dims(pm_infer *inf, pm_dim *dims, int32_t *rank, const pm_dim *other,
                                 int32_t other_rank)
{
    PM_ASSERT(*rank <= PM_MAX_RANK && other_rank <= PM_MAX_RANK);
    if (other_rank > *rank) {
        int32_t shift = other_rank - *rank;
        memmove(dims + shift, dims, (size_t)*rank * sizeof *dims);
        for (int32_t i = 0; i < shift; i++)
            dims[i] = pm_dim_const(inf->module, 1);
        *rank = other_rank;
    }
    for (int32_t i = 0; i < other_rank; i++) {
        pm_dim *dim = &dims[*rank - other_rank + i];
        PM_TRY(pm_hook_broadcast(inf, *dim, other[i], dim));
    }
    return PM_OK;
}

pm_status pm_hook_result(pm_infer *inf, uint32_t result, pm_elem elem, int32_t rank,
                         const pm_dim *dims)
{
    if (rank > PM_MAX_RANK)
        return pm_infer_error(inf, "the result would have rank %d, at most %d is supported",
                              (int)rank, (int)PM_MAX_RANK);
    pm_dim simple[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        simple[i] = pm_dim_simplify(inf->module, dims[i]);
    inf->types[result] = pm_type_get(inf->module, elem, rank, simple);
    return PM_OK;
}
