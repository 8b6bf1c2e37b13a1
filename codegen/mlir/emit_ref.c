/// Ops without a lowering of their own: their `eval`, compiled from bitcode and specialised for
/// constant shapes and attributes.
///
/// Where what lies behind the first axes of the result needs only what lies behind the same axes of the
/// operands, every worker calls eval for its share of them, as if the tensors were no more than that. Else
/// one worker does it all.
#include <string.h>

#include "codegen/mlir/lowerings.h"
#include "ir/loop_space.h"

/// The layout of pm_tensor and pm_attr_value, by which descriptors are stored.
enum {
    TENSOR_SIZE = sizeof(pm_tensor),
    ATTR_SIZE = sizeof(pm_attr_value),
};

static MlirValue field(mb *b, MlirValue base, size_t offset)
{
    return mb_at_const(b, b->i8, base, (int64_t)offset);
}

/// ---- shares -------------------------------------------------------------------------------------------

/// What of an operand a share takes.
typedef enum part { PART_WHOLE, PART_SHARE, PART_ELEMENT } part;

typedef struct share {
    int32_t prefix;     ///< axes of the results that are seen as one and split; 0: no shares
    MlirValue lo, n;    ///< what the worker takes of it
    const char *axis;   ///< attribute that counts axes, and what it becomes; NULL: none
    int64_t axis_value;
    int64_t axes[PM_MAX_RANK], n_axes; ///< of slice: what operand 3 becomes
} share;

/// Which operands have the axes that are split: all those with elements, or the first few.
static part part_of(const pm_op *op, const share *s, uint32_t i)
{
    const pm_type *type = op->operands[i]->type, *out = op->results[0]->type;
    if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE)
        return type->rank == out->rank ? PART_SHARE : PART_ELEMENT;
    switch (op->code) {
    case PM_OP_gather: return (i == 0) == (pm_op_i64(op, "axis") != 0 && s->axis) ? PART_SHARE : PART_WHOLE;
    case PM_OP_gather_nd: return i == 1 ? PART_SHARE : PART_WHOLE;
    case PM_OP_concat:
    case PM_OP_dequantize:
    case PM_OP_gather_elements:
    case PM_OP_scatter_elements: return PART_SHARE;
    default: return i == 0 ? PART_SHARE : PART_WHOLE;
    }
}

static bool same_prefix(const pm_type *a, const pm_type *b, int32_t n)
{
    if (a->rank < n || b->rank < n)
        return false;
    for (int32_t i = 0; i < n; i++)
        if (!pm_dim_same(a->dims[i], b->dims[i]))
            return false;
    return true;
}

/// The first axis that a slice changes; false when its axes aren't known.
static bool slice_axes(const pm_op *op, share *s)
{
    int32_t rank = op->operands[0]->type->rank;
    size_t n;
    int64_t first = rank;
    if (op->n_operands < 4 || !op->operands[3] ||
        !pm_value_const_ints(op->operands[3], s->axes, PM_MAX_RANK, &n))
        return false;
    for (size_t i = 0; i < n; i++) {
        s->axes[i] += s->axes[i] < 0 ? rank : 0;
        first = s->axes[i] < first ? s->axes[i] : first;
    }
    s->n_axes = (int64_t)n;
    s->prefix = (int32_t)first;
    for (size_t i = 0; i < n && first > 0; i++)
        s->axes[i] -= first - 1;
    return first > 0;
}

static int32_t axis_of(const pm_op *op)
{
    int64_t axis = pm_op_i64(op, "axis");
    return (int32_t)(axis < 0 ? axis + op->operands[0]->type->rank : axis);
}

/// How many leading axes of the results can be split.
static void plan_prefix(const pm_op *op, share *s)
{
    const pm_type *x = op->n_operands && op->operands[0] ? op->operands[0]->type : NULL;
    switch (op->code) {
    case PM_OP_argmax:
    case PM_OP_argmin:
    case PM_OP_cumsum:
    case PM_OP_cumprod:
    case PM_OP_topk:
    case PM_OP_concat:
    case PM_OP_split:
    case PM_OP_gather_elements:
    case PM_OP_scatter_elements:
        s->prefix = axis_of(op);
        s->axis = "axis";
        break;
    case PM_OP_gather:
        s->prefix = axis_of(op) ? axis_of(op) : op->operands[1]->type->rank;
        s->axis = axis_of(op) ? "axis" : NULL;
        break;
    case PM_OP_gather_nd:
        s->prefix = pm_op_i64(op, "batch_dims") == 0 ? op->operands[1]->type->rank - 1 : 0;
        break;
    case PM_OP_onehot: // the new axis last
        s->prefix = pm_op_i64(op, "axis") == -1 || pm_op_i64(op, "axis") == x->rank ? x->rank : 0;
        s->axis = "axis";
        break;
    case PM_OP_trilu: s->prefix = x->rank - 2; break;
    case PM_OP_dequantize: s->prefix = x->rank - 1; break;
    case PM_OP_slice:
        if (!slice_axes(op, s))
            s->prefix = 0;
        break;
    default:
        if (pm_op_info_of(op)->traits & PM_T_ELEMENTWISE)
            s->prefix = op->results[0]->type->rank;
        break;
    }
    s->axis_value = 1;
}

/// Plans shares; prefix 0 where there can't be any.
static share plan_share(dispatch *d)
{
    const pm_op *op = d->op;
    share s = {.prefix = 0};
    plan_prefix(op, &s);
    if (s.prefix <= 0)
        return (share){.prefix = 0};
    const pm_type *out = op->results[0]->type;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (!same_prefix(op->results[i]->type, out, s.prefix))
            return (share){.prefix = 0};
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!op->operands[i])
            continue;
        const pm_type *type = op->operands[i]->type;
        part p = part_of(op, &s, i);
        if ((p == PART_SHARE && !same_prefix(type, out, s.prefix)) ||
            (p == PART_ELEMENT && !pm_type_is_one_element(d->e->module, type)))
            return (share){.prefix = 0};
    }
    MlirValue hi;
    pm_emit_split(d, pm_emit_count(d, out, 0, s.prefix), 1, &s.lo, &hi);
    s.n = mb_sub(d->b, hi, s.lo);
    return s;
}

/// ---- descriptors ----------------------------------------------------------------------------------------

/// The share of a value: its first axes as one, of which the worker takes some.
static MlirValue share_pointer(dispatch *d, const pm_value *v, const share *s, MlirValue dims)
{
    mb *b = d->b;
    const pm_type *type = v->type;
    mb_store(b, s->n, dims);
    for (int32_t k = s->prefix; k < type->rank; k++)
        mb_store(b, pm_emit_dim(d, type->dims[k]), mb_at_const(b, b->i64, dims, k - s->prefix + 1));
    MlirValue row = mb_mul(b, pm_emit_count(d, type, s->prefix, type->rank), mb_i64(b, pm_elem_size(type->elem)));
    return mb_at(b, b->i8, pm_emit_pointer(d, v), mb_mul(b, s->lo, row));
}

/// The axes of a slice, counted in its share.
static MlirValue axes_pointer(dispatch *d, const pm_value *v, const share *s)
{
    mb *b = d->b;
    bool wide = v->type->elem == PM_I64;
    MlirValue list = mb_alloca(b, b->i64, PM_MAX_RANK);
    for (int64_t i = 0; i < s->n_axes; i++)
        mb_store(b, mb_int(b, wide ? b->i64 : b->i32, s->axes[i]),
                 mb_at_const(b, wide ? b->i64 : b->i32, list, i));
    return list;
}

/// A descriptor of a value; absent ones have data NULL.
static void tensor(dispatch *d, const pm_value *v, part p, const share *s, bool is_axes, bool known,
                   MlirValue at)
{
    mb *b = d->b;
    const pm_type *type = v ? v->type : NULL;
    MlirValue dims = mb_alloca(b, b->i64, PM_MAX_RANK + 1), data = mb_null(b);
    int32_t rank = type ? type->rank : 0;
    if (type && known && p == PART_SHARE) {
        rank = rank - s->prefix + 1;
        data = share_pointer(d, v, s, dims);
    } else if (type && known) {
        rank = p == PART_ELEMENT ? 0 : rank;
        for (int32_t k = 0; k < rank; k++)
            mb_store(b, pm_emit_dim(d, type->dims[k]), mb_at_const(b, b->i64, dims, k));
        data = is_axes ? axes_pointer(d, v, s) : pm_emit_pointer(d, v);
    }
    mb_store(b, data, field(b, at, offsetof(pm_tensor, data)));
    mb_store(b, dims, field(b, at, offsetof(pm_tensor, dims)));
    mb_store(b, mb_int(b, b->i32, rank), field(b, at, offsetof(pm_tensor, rank)));
    mb_store(b, mb_int(b, b->i32, type ? (int64_t)type->elem : 0), field(b, at, offsetof(pm_tensor, elem)));
}

static MlirValue operands(dispatch *d, const share *s)
{
    mb *b = d->b;
    const pm_op *op = d->op;
    MlirValue array = mb_alloca(b, b->i8, (int64_t)(op->n_operands ? op->n_operands : 1) * TENSOR_SIZE);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        part p = s->prefix && op->operands[i] ? part_of(op, s, i) : PART_WHOLE;
        bool is_axes = s->prefix && op->code == PM_OP_slice && i == 3;
        tensor(d, op->operands[i], p, s, is_axes, true, field(b, array, i * TENSOR_SIZE));
    }
    return array;
}

static MlirValue results(dispatch *d, const share *s, bool known)
{
    mb *b = d->b;
    const pm_op *op = d->op;
    MlirValue array = mb_alloca(b, b->i8, (int64_t)(op->n_results ? op->n_results : 1) * TENSOR_SIZE);
    for (uint32_t i = 0; i < op->n_results; i++)
        tensor(d, op->results[i], s->prefix ? PART_SHARE : PART_WHOLE, s, false, known,
               field(b, array, i * TENSOR_SIZE));
    return array;
}

static MlirValue attributes(dispatch *d, const share *s)
{
    mb *b = d->b;
    pm_attr_value values[PM_MAX_ATTRS];
    size_t n = d->op->n_attrs;
    pm_op_attr_values(d->op, values);
    MlirValue array = mb_alloca(b, b->i8, (int64_t)(n ? n : 1) * ATTR_SIZE);
    for (size_t i = 0; i < n; i++) {
        const pm_attr_value *v = &values[i];
        MlirValue at = field(b, array, i * ATTR_SIZE);
        bool moves = s->prefix && s->axis && strcmp(d->op->attrs[i].key, s->axis) == 0;
        mb_store(b, mb_i64(b, moves ? s->axis_value : v->i), field(b, at, offsetof(pm_attr_value, i)));
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

static MlirValue call(dispatch *d, const char *function, const share *s, const MlirValue *extents)
{
    mb *b = d->b;
    pm_op *op = d->op;
    MlirValue args = mb_alloca(b, b->i8, sizeof(pm_eval_args));
    mb_store(b, operands(d, s), field(b, args, offsetof(pm_eval_args, in)));
    mb_store(b, mb_int(b, b->i32, op->n_operands), field(b, args, offsetof(pm_eval_args, n_in)));
    mb_store(b, results(d, s, !extents), field(b, args, offsetof(pm_eval_args, out)));
    mb_store(b, mb_int(b, b->i32, op->n_results), field(b, args, offsetof(pm_eval_args, n_out)));
    mb_store(b, attributes(d, s), field(b, args, offsetof(pm_eval_args, attrs)));
    MlirValue values[2] = {args};
    if (extents)
        values[1] = *extents;
    return mb_call(b, function, b->i32, values, extents ? 2 : 1);
}

MlirValue pm_emit_reference_call(dispatch *d, const char *function, const MlirValue *extents)
{
    return call(d, function, &(share){.prefix = 0}, extents);
}

pm_status pm_lower_ref(dispatch *d)
{
    mb *b = d->b;
    const char *name = pm_op_info_of(d->op)->eval_name;
    if (!name || !pm_op_info_of(d->op)->eval)
        return PM_ERR_UNSUPPORTED;
    MlirValue status = mb_alloca(b, b->i32, 1), zero = mb_i64(b, 0);
    mb_store(b, mb_int(b, b->i32, 0), status);
    share s = plan_share(d);
    mb_if takes_part;
    mb_if_begin(b, &takes_part, s.prefix ? mb_cmpi(b, "sgt", s.n, zero) : mb_cmpi(b, "eq", d->worker, zero));
    mb_store(b, call(d, name, &s, NULL), status);
    mb_if_end(b, &takes_part);
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
