#include "ir/strided.h"

#include "ir/op_table.h"

enum { MAX_CHAIN = 16 };

static bool is_view(const pm_op *op)
{
    return op && (op->code == PM_OP_transpose || op->code == PM_OP_slice || op->code == PM_OP_reshape);
}

static bool const_dims(const pm_module *m, const pm_type *type, int64_t *dims)
{
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_dim_is_const(m, type->dims[i], &dims[i]) || dims[i] < 0)
            return false;
    return !type->layout;
}

static bool row_major(const pm_module *m, const pm_value *v, pm_strided *s)
{
    int64_t stride = 1;
    *s = (pm_strided){.root = v, .rank = v->type->rank};
    if (!const_dims(m, v->type, s->dims))
        return false;
    for (int32_t i = s->rank; i-- > 0;) {
        s->strides[i] = stride;
        if (!pm_mul_i64(stride, s->dims[i] ? s->dims[i] : 1, &stride))
            return false;
    }
    return true;
}

static void transpose(const pm_op *op, pm_strided *s)
{
    const pm_strided from = *s;
    const pm_attr *perm = pm_op_attr(op, "perm");
    for (int32_t i = 0; i < s->rank; i++) {
        s->dims[i] = from.dims[perm->ints[i]];
        s->strides[i] = from.strides[perm->ints[i]];
    }
}

/// The constant integers of an optional operand; `n` of them.
static bool operand_ints(const pm_op *op, uint32_t i, int64_t *out, size_t n)
{
    size_t found = 0;
    if (i >= op->n_operands || !op->operands[i])
        return true; // the caller's defaults stay
    return pm_value_const_ints(op->operands[i], out, PM_MAX_RANK, &found) && found == n;
}

static bool slice(const pm_module *m, const pm_op *op, pm_strided *s)
{
    enum { STARTS = 1, AXES = 3, STEPS };
    int64_t starts[PM_MAX_RANK], axes[PM_MAX_RANK], steps[PM_MAX_RANK], dims[PM_MAX_RANK];
    size_t n = 0;
    if (!const_dims(m, op->results[0]->type, dims) ||
        !pm_value_const_ints(op->operands[STARTS], starts, PM_MAX_RANK, &n))
        return false;
    for (size_t i = 0; i < n; i++) {
        axes[i] = (int64_t)i;
        steps[i] = 1;
    }
    if (!operand_ints(op, AXES, axes, n) || !operand_ints(op, STEPS, steps, n))
        return false;
    for (size_t i = 0; i < n; i++) {
        int64_t axis = axes[i] < 0 ? axes[i] + s->rank : axes[i], extent = s->dims[axis];
        int64_t start = starts[i] < 0 ? starts[i] + extent : starts[i];
        int64_t last = steps[i] < 0 ? extent - 1 : extent; // as ONNX Slice clamps
        start = start < 0 ? 0 : start > last ? last : start;
        if (dims[axis] > 0)
            s->offset += start * s->strides[axis];
        s->strides[axis] *= dims[axis] > 1 ? steps[i] : 1;
        s->dims[axis] = dims[axis];
    }
    return true;
}

/// Axes of one extent say nothing; runs of the others must multiply to the same extents on both sides,
/// and lie side by side where a run of several is joined.
static bool reshape(const pm_module *m, const pm_op *op, pm_strided *s)
{
    pm_strided from = {.rank = 0}, to = *s;
    to.rank = op->results[0]->type->rank;
    if (!const_dims(m, op->results[0]->type, to.dims))
        return false;
    for (int32_t i = 0; i < s->rank; i++)
        if (s->dims[i] != 1) {
            from.dims[from.rank] = s->dims[i];
            from.strides[from.rank++] = s->strides[i];
        }
    int32_t a = from.rank;
    int64_t have = 1, stride = 0; // elements of the run that are not yet spoken for, and their distance
    for (int32_t i = to.rank; i-- > 0;) {
        if (to.dims[i] == 0 || (from.rank && from.dims[0] == 0))
            return false;
        while (have < to.dims[i]) { // join with the next axis outwards
            if (a == 0)
                return false;
            a--;
            if (have == 1)
                stride = from.strides[a];
            else if (from.strides[a] != stride * have)
                return false;
            if (!pm_mul_i64(have, from.dims[a], &have))
                return false;
        }
        if (have % to.dims[i] != 0)
            return false;
        to.strides[i] = to.dims[i] == 1 ? 0 : stride;
        stride *= to.dims[i];
        have /= to.dims[i];
    }
    *s = to;
    return a == 0 && have == 1;
}

bool pm_strided_of(const pm_module *m, const pm_value *v, pm_strided *out)
{
    const pm_op *chain[MAX_CHAIN];
    size_t n = 0;
    for (; is_view(v->def); v = v->def->operands[0]) {
        if (n == MAX_CHAIN)
            return false;
        chain[n++] = v->def;
    }
    if (!row_major(m, v, out))
        return false;
    while (n-- > 0) {
        bool can = true;
        if (chain[n]->code == PM_OP_transpose)
            transpose(chain[n], out);
        else
            can = chain[n]->code == PM_OP_slice ? slice(m, chain[n], out) : reshape(m, chain[n], out);
        if (!can)
            return false;
    }
    return true;
}
