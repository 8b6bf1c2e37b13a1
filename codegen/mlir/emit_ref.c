/// Ops without a lowering of their own: their `eval`, compiled from bitcode and specialised for
/// constant shapes and attributes. One worker runs it.
#include <string.h>

#include "codegen/mlir/lowerings.h"

/// The layout of pm_tensor and pm_attr_value, by which descriptors are stored.
enum {
    TENSOR_SIZE = sizeof(pm_tensor),
    ATTR_SIZE = sizeof(pm_attr_value),
};

static MlirValue field(mb *b, MlirValue base, size_t offset)
{
    return mb_at_const(b, b->i8, base, (int64_t)offset);
}

/// A descriptor per value; absent ones have data NULL.
static MlirValue tensors(dispatch *d, pm_value *const *values, size_t n, bool outputs_known)
{
    mb *b = d->b;
    MlirValue array = mb_alloca(b, b->i8, (int64_t)(n ? n : 1) * TENSOR_SIZE);
    for (size_t i = 0; i < n; i++) {
        MlirValue at = field(b, array, i * TENSOR_SIZE);
        const pm_type *type = values[i] ? values[i]->type : NULL;
        MlirValue dims = mb_alloca(b, b->i64, PM_MAX_RANK);
        if (type && outputs_known)
            for (int32_t k = 0; k < type->rank; k++)
                mb_store(b, pm_emit_dim(d, type->dims[k]), mb_at_const(b, b->i64, dims, k));
        mb_store(b, type && outputs_known ? pm_emit_pointer(d, values[i]) : mb_null(b),
                 field(b, at, offsetof(pm_tensor, data)));
        mb_store(b, dims, field(b, at, offsetof(pm_tensor, dims)));
        mb_store(b, mb_int(b, b->i32, type ? type->rank : 0), field(b, at, offsetof(pm_tensor, rank)));
        mb_store(b, mb_int(b, b->i32, type ? (int64_t)type->elem : 0),
                 field(b, at, offsetof(pm_tensor, elem)));
    }
    return array;
}

static MlirValue attributes(dispatch *d)
{
    mb *b = d->b;
    pm_attr_value values[PM_MAX_ATTRS];
    size_t n = d->op->n_attrs;
    pm_op_attr_values(d->op, values);
    MlirValue array = mb_alloca(b, b->i8, (int64_t)(n ? n : 1) * ATTR_SIZE);
    for (size_t i = 0; i < n; i++) {
        const pm_attr_value *v = &values[i];
        MlirValue at = field(b, array, i * ATTR_SIZE);
        mb_store(b, mb_i64(b, v->i), field(b, at, offsetof(pm_attr_value, i)));
        mb_store(b, mb_float(b, b->f64, v->f), field(b, at, offsetof(pm_attr_value, f)));
        mb_store(b, v->s ? mb_bytes(b, v->s, strlen(v->s) + 1) : mb_null(b),
                 field(b, at, offsetof(pm_attr_value, s)));
        mb_store(b, v->ints ? mb_bytes(b, v->ints, (size_t)v->n * 8) : mb_null(b),
                 field(b, at, offsetof(pm_attr_value, ints)));
        mb_store(b, v->floats ? mb_bytes(b, v->floats, (size_t)v->n * 8) : mb_null(b),
                 field(b, at, offsetof(pm_attr_value, floats)));
        mb_store(b, mb_i64(b, v->n), field(b, at, offsetof(pm_attr_value, n)));
        mb_store(b, mb_int(b, b->i32, v->present), field(b, at, offsetof(pm_attr_value, present)));
    }
    return array;
}

MlirValue pm_emit_reference_call(dispatch *d, const char *function, const MlirValue *extents)
{
    mb *b = d->b;
    pm_op *op = d->op;
    MlirValue args = mb_alloca(b, b->i8, sizeof(pm_eval_args));
    mb_store(b, tensors(d, op->operands, op->n_operands, true),
             field(b, args, offsetof(pm_eval_args, in)));
    mb_store(b, mb_int(b, b->i32, op->n_operands), field(b, args, offsetof(pm_eval_args, n_in)));
    mb_store(b, tensors(d, op->results, op->n_results, !extents),
             field(b, args, offsetof(pm_eval_args, out)));
    mb_store(b, mb_int(b, b->i32, op->n_results), field(b, args, offsetof(pm_eval_args, n_out)));
    mb_store(b, attributes(d), field(b, args, offsetof(pm_eval_args, attrs)));
    MlirValue operands[2] = {args};
    if (extents)
        operands[1] = *extents;
    return mb_call(b, function, b->i32, operands, extents ? 2 : 1);
}

pm_status pm_lower_ref(dispatch *d)
{
    mb *b = d->b;
    const char *name = pm_op_info_of(d->op)->eval_name;
    if (!name || !pm_op_info_of(d->op)->eval)
        return PM_ERR_UNSUPPORTED;
    MlirValue status = mb_alloca(b, b->i32, 1);
    mb_store(b, mb_int(b, b->i32, 0), status);
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", d->worker, mb_i64(b, 0)));
    mb_store(b, pm_emit_reference_call(d, name, NULL), status);
    mb_if_end(b, &first);
    d->status = mb_load(b, b->i32, status);
    return PM_OK;
}

/// `dims`: the values of expressions, as a tensor.
pm_status pm_lower_dims(dispatch *d)
{
    mb *b = d->b;
    pm_value *out = d->op->results[0];
    int64_t n = 1;
    if (!out->content || !pm_type_const_count(d->e->module, out->type, &n))
        return PM_ERR_UNSUPPORTED;
    mb_if first;
    mb_if_begin(b, &first, mb_cmpi(b, "eq", d->worker, mb_i64(b, 0)));
    for (int64_t i = 0; i < n; i++)
        mb_store(b, pm_emit_dim(d, out->content[i]),
                 mb_at_const(b, b->i64, pm_emit_pointer(d, out), i));
    mb_if_end(b, &first);
    return PM_OK;
}
