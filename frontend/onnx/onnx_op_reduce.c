/* Handlers: reductions, softmax, normalisation. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_reduce, pm_onnx_do_softmax_flat, pm_onnx_do_log_softmax,
    pm_onnx_do_cumsum, pm_onnx_do_topk, pm_onnx_do_norm, pm_onnx_do_skip_norm,
    pm_onnx_do_batch_norm, pm_onnx_do_instance_norm, pm_onnx_do_lp_norm, pm_onnx_do_log_sum_exp,
    pm_onnx_do_global_pool, pm_onnx_do_hardmax, pm_onnx_do_group_norm,
    pm_onnx_do_mean_variance_norm;

static pm_status build_reduce(pm_onnx_call *call, pm_opcode op, pm_value *x, const int64_t *axes,
                              size_t n, bool keep, pm_value **out)
{
    return pm_onnx_build(call, out, op, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_ints("axes", axes, n), pm_attr_bool("keepdims", keep)));
}

/* Axes of a reduction: attribute or input; none means all, or with noop_with_empty_axes nothing. */
static pm_status reduce_axes(pm_onnx_call *call, int64_t *out, size_t *out_n, bool *out_noop)
{
    int32_t rank = call->in[0]->type->rank;
    const int64_t *axes = NULL;
    size_t n = 0;
    *out_noop = false;
    if (call->row->max_in == 1) {
        const pm_onnx_attr *attr = pm_onnx_attr_of(call, "axes");
        axes = attr->ints;
        n = attr->n;
    } else if (call->n_in > 1) {
        PM_TRY(pm_onnx_ints(call, call->in[1], "axes", &axes, &n));
    }
    if (n == 0) {
        *out_noop = call->row->max_in > 1 && pm_onnx_attr_of(call, "noop_with_empty_axes")->i;
        for (int32_t i = 0; i < rank; i++)
            out[i] = i;
        *out_n = (size_t)rank;
        return PM_OK;
    }
    *out_n = n;
    return pm_onnx_axes(call, axes, n, rank, out);
}

pm_status pm_onnx_do_reduce(pm_onnx_call *call)
{
    int64_t axes[PM_MAX_RANK];
    size_t n;
    bool noop;
    PM_TRY(reduce_axes(call, axes, &n, &noop));
    pm_value *x = call->in[0];
    bool of_bools = x->type->elem == PM_BOOL; /* opset 20: of truth values as of 0 and 1 */
    if (of_bools)
        PM_TRY(pm_onnx_cast(call, x, PM_U8, &x));
    const char *bar = strchr(call->row->text, '|');
    if (bar && bar != call->row->text)
        PM_TRY(pm_onnx_expr(call, call->row->text, &x, &x));
    if (!noop)
        PM_TRY(build_reduce(call, (pm_opcode)call->row->op, x, axes, n,
                            pm_onnx_attr_of(call, "keepdims")->i != 0, &x));
    if (bar && bar[1])
        PM_TRY(pm_onnx_expr(call, bar + 1, &x, &x));
    return pm_onnx_cast(call, x, of_bools ? PM_BOOL : x->type->elem, &call->out[0]);
}

/* log(sum(exp(x))), with the greatest element taken off first so that nothing overflows. */
pm_status pm_onnx_do_log_sum_exp(pm_onnx_call *call)
{
    int64_t axes[PM_MAX_RANK];
    size_t n;
    bool noop;
    PM_TRY(reduce_axes(call, axes, &n, &noop));
    pm_value *x = call->in[0], *top, *parts[2];
    call->out[0] = x;
    if (noop)
        return PM_OK;
    bool keep = pm_onnx_attr_of(call, "keepdims")->i != 0;
    PM_TRY(build_reduce(call, PM_OP_reduce_max, x, axes, n, true, &top));
    PM_TRY(pm_onnx_expr(call, "where(isinf(x), 0, x)", &top, &parts[1]));
    parts[0] = x;
    PM_TRY(pm_onnx_expr(call, "exp(sub(x, y))", parts, &x));
    PM_TRY(build_reduce(call, PM_OP_reduce_sum, x, axes, n, keep, &parts[0]));
    PM_TRY(pm_onnx_reshape(call, parts[1], parts[0]->type->dims, parts[0]->type->rank, &parts[1]));
    return pm_onnx_expr(call, "add(log(x), y)", parts, &call->out[0]);
}

/* Over everything behind batch and channel. */
pm_status pm_onnx_do_global_pool(pm_onnx_call *call)
{
    int64_t axes[PM_MAX_RANK];
    size_t n = 0;
    for (int32_t i = 2; i < call->in[0]->type->rank; i++)
        axes[n++] = i;
    if (n == 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 3 or more");
    return build_reduce(call, (pm_opcode)call->row->op, call->in[0], axes, n, true, &call->out[0]);
}

/* One where the first of the greatest elements stands, zero elsewhere. */
pm_status pm_onnx_do_hardmax(pm_onnx_call *call)
{
    pm_value *x = call->in[0], *where, *depth, *off, *on, *values;
    int64_t axis;
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, x->type->rank, &axis));
    PM_TRY(pm_onnx_build(call, &where, PM_OP_argmax, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_i64("axis", axis), pm_attr_bool("keepdims", false))));
    PM_TRY(pm_build_dims(&call->b, 1, &x->type->dims[axis], &depth));
    const pm_dim one = pm_dim_const(call->onnx->module, 1);
    PM_TRY(pm_onnx_scalar(call, x->type->elem, 0, &off));
    PM_TRY(pm_onnx_scalar(call, x->type->elem, 1, &on));
    PM_TRY(pm_onnx_reshape(call, off, &one, 1, &off));
    PM_TRY(pm_onnx_reshape(call, on, &one, 1, &on));
    PM_TRY(pm_onnx_build(call, &values, PM_OP_concat, PM_OPERANDS(off, on),
                         PM_ATTRS(pm_attr_i64("axis", 0))));
    PM_TRY(pm_onnx_reshape(call, depth, NULL, 0, &depth));
    return pm_onnx_build(call, &call->out[0], PM_OP_onehot, PM_OPERANDS(where, depth, values),
                         PM_ATTRS(pm_attr_i64("axis", axis)));
}

/* Until opset 12 softmax saw its input as a matrix, cut at `axis`. */
pm_status pm_onnx_do_softmax_flat(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    pm_value *x = call->in[0];
    const pm_type *type = x->type;
    int64_t axis;
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, type->rank, &axis));
    pm_dim dims[] = {pm_dim_const(m, 1), pm_dim_const(m, 1)};
    for (int32_t i = 0; i < type->rank; i++)
        dims[i >= axis] = pm_dim_mul(m, dims[i >= axis], type->dims[i]);
    bool flat = axis != type->rank - 1;
    if (flat)
        PM_TRY(pm_onnx_reshape(call, x, dims, 2, &x));
    PM_TRY(pm_onnx_build(call, &x, PM_OP_softmax, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_i64("axis", -1),
                                  pm_attr_bool("log", strcmp(call->row->text, "log") == 0))));
    if (flat)
        PM_TRY(pm_onnx_reshape(call, x, type->dims, type->rank, &x));
    call->out[0] = x;
    return PM_OK;
}

pm_status pm_onnx_do_log_softmax(pm_onnx_call *call)
{
    return pm_onnx_build(
        call, &call->out[0], PM_OP_softmax, PM_OPERANDS(call->in[0]),
        PM_ATTRS(pm_attr_i64("axis", pm_onnx_attr_of(call, "axis")->i), pm_attr_bool("log", true)));
}

pm_status pm_onnx_do_cumsum(pm_onnx_call *call)
{
    const int64_t *axis;
    size_t n;
    PM_TRY(pm_onnx_ints(call, call->in[1], "axis", &axis, &n));
    if (n != 1)
        return pm_onnx_error(call, PM_ERR_INVALID, "axis must be one number, but has %zu", n);
    return pm_onnx_build(
        call, &call->out[0], (pm_opcode)call->row->op, PM_OPERANDS(call->in[0]),
        PM_ATTRS(pm_attr_i64("axis", axis[0]),
                 pm_attr_bool("exclusive", pm_onnx_attr_of(call, "exclusive")->i != 0),
                 pm_attr_bool("reverse", pm_onnx_attr_of(call, "reverse")->i != 0)));
}

pm_status pm_onnx_do_topk(pm_onnx_call *call)
{
    bool has_order = call->row->since >= 11;
    pm_value *k = call->n_in > 1 ? call->in[1] : NULL;
    if (!k)
        PM_TRY(pm_onnx_vector(call, &pm_onnx_attr_of(call, "k")->i, 1, &k));
    pm_op *op;
    PM_TRY(pm_build(
        &call->b, PM_OP_topk, PM_OPERANDS(call->in[0], k),
        PM_ATTRS(pm_attr_i64("axis", pm_onnx_attr_of(call, "axis")->i),
                 pm_attr_bool("largest", !has_order || pm_onnx_attr_of(call, "largest")->i),
                 pm_attr_bool("sorted", !has_order || pm_onnx_attr_of(call, "sorted")->i)),
        0, &op));
    for (size_t i = 0; i < call->n_out; i++)
        call->out[i] = op->results[i];
    return PM_OK;
}

/* ---- normalisation ---- */

static pm_status build2(pm_onnx_call *call, pm_opcode op, pm_value *x, pm_value *y, pm_value **out)
{
    return pm_onnx_build(call, out, op, PM_OPERANDS(x, y), PM_NO_ATTRS);
}

/* x scaled to unit variance over `axes`; `centre`: with its mean taken off first. */
static pm_status normalise(pm_onnx_call *call, pm_value *x, const int64_t *axes, size_t n,
                           bool centre, double eps, pm_value **out, pm_value **out_mean,
                           pm_value **out_inverse)
{
    pm_value *mean = NULL, *squares, *epsilon;
    if (centre) {
        PM_TRY(build_reduce(call, PM_OP_reduce_mean, x, axes, n, true, &mean));
        PM_TRY(build2(call, PM_OP_sub, x, mean, &x));
    }
    PM_TRY(build2(call, PM_OP_mul, x, x, &squares));
    PM_TRY(build_reduce(call, PM_OP_reduce_mean, squares, axes, n, true, &squares));
    PM_TRY(pm_onnx_scalar(call, x->type->elem, eps, &epsilon));
    PM_TRY(build2(call, PM_OP_add, squares, epsilon, &squares));
    PM_TRY(pm_onnx_build(call, out_inverse, PM_OP_rsqrt, PM_OPERANDS(squares), PM_NO_ATTRS));
    *out_mean = mean;
    return build2(call, PM_OP_mul, x, *out_inverse, out);
}

/* The op of the IR where it says the same: last axis, a vector of scales. */
static bool is_plain_norm(pm_onnx_call *call, const pm_value *x, const pm_value *scale,
                          const pm_value *bias, int64_t axis)
{
    int32_t rank = x->type->rank;
    return axis == rank - 1 && scale->type->rank == 1 && (!bias || bias->type->rank == 1) &&
           scale->type->dims[0] == x->type->dims[rank - 1] &&
           (!bias || bias->type->dims[0] == scale->type->dims[0]) && call->n_out <= 1;
}

static pm_status build_norm(pm_onnx_call *call, pm_value *x, pm_value *scale, pm_value *bias,
                            int64_t axis, double eps, bool layer, pm_value **out,
                            pm_value **out_mean, pm_value **out_inverse)
{
    if (is_plain_norm(call, x, scale, bias, axis)) {
        pm_value *operands[] = {x, scale, bias};
        return pm_onnx_build(call, out, layer ? PM_OP_layer_norm : PM_OP_rms_norm, operands,
                             layer && bias ? 3 : 2, PM_ATTRS(pm_attr_f64("eps", eps)));
    }
    int64_t axes[PM_MAX_RANK];
    size_t n = 0;
    for (int64_t i = axis; i < x->type->rank; i++)
        axes[n++] = i;
    PM_TRY(normalise(call, x, axes, n, layer, eps, out, out_mean, out_inverse));
    PM_TRY(build2(call, PM_OP_mul, *out, scale, out));
    return bias ? build2(call, PM_OP_add, *out, bias, out) : PM_OK;
}

pm_status pm_onnx_do_norm(pm_onnx_call *call)
{
    pm_value *x = call->in[0], *scale = call->in[1], *out[3] = {NULL, NULL, NULL};
    pm_value *bias = call->n_in > 2 ? call->in[2] : NULL;
    bool layer = strcmp(call->row->text, "layer") == 0;
    double eps = pm_onnx_attr_of(call, "epsilon")->f;
    int64_t axis;
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, x->type->rank, &axis));
    PM_TRY(build_norm(call, x, scale, bias, axis, eps, layer, &out[0], &out[1], &out[2]));
    call->out[0] = out[0];
    /* RMS has no mean: its second output is the inverse deviation. */
    for (size_t i = 1; i < call->n_out; i++)
        call->out[i] = out[layer ? i : 2];
    return PM_OK;
}

/* input, skip, scale, [beta,] bias: a residual sum and its norm. Outputs: norm, mean and inverse
 * deviation (training only), sum. */
pm_status pm_onnx_do_skip_norm(pm_onnx_call *call)
{
    bool layer = strcmp(call->row->text, "layer") == 0;
    size_t bias_at = layer ? 4 : 3;
    pm_value *sum, *mean, *inverse;
    pm_value *beta = layer && call->n_in > 3 ? call->in[3] : NULL;
    PM_TRY(build2(call, PM_OP_add, call->in[0], call->in[1], &sum));
    if (call->n_in > bias_at)
        PM_TRY(build2(call, PM_OP_add, sum, call->in[bias_at], &sum));
    size_t n_out = call->n_out;
    call->n_out = 1; /* the plain form gives what is asked for */
    pm_status status =
        build_norm(call, sum, call->in[2], beta, sum->type->rank - 1,
                   pm_onnx_attr_of(call, "epsilon")->f, layer, &call->out[0], &mean, &inverse);
    call->n_out = n_out;
    if (n_out > 3)
        call->out[3] = sum;
    return status;
}

/* [C] as [1, C, 1 ...], so that it broadcasts over x [B, C, ...]. */
static pm_status per_channel(pm_onnx_call *call, pm_value *v, pm_value **out)
{
    pm_module *m = call->onnx->module;
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = call->in[0]->type->rank;
    if (v->type->rank != 1 || rank < 2)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 2 or more, and vectors per channel");
    for (int32_t i = 0; i < rank; i++)
        dims[i] = i == 1 ? v->type->dims[0] : pm_dim_const(m, 1);
    return pm_onnx_reshape(call, v, dims, rank, out);
}

pm_status pm_onnx_do_batch_norm(pm_onnx_call *call)
{
    if (call->row->since >= 14 && pm_onnx_attr_of(call, "training_mode")->i)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "training is not supported");
    pm_value *x = call->in[0], *v[5], *eps;
    for (size_t i = 1; i < 5; i++)
        PM_TRY(per_channel(call, call->in[i], &v[i]));
    PM_TRY(pm_onnx_scalar(call, v[4]->type->elem, pm_onnx_attr_of(call, "epsilon")->f, &eps));
    PM_TRY(build2(call, PM_OP_add, v[4], eps, &v[4]));
    PM_TRY(pm_onnx_build(call, &v[4], PM_OP_rsqrt, PM_OPERANDS(v[4]), PM_NO_ATTRS));
    PM_TRY(build2(call, PM_OP_sub, x, v[3], &x));
    PM_TRY(build2(call, PM_OP_mul, v[4], v[1], &v[4]));
    PM_TRY(build2(call, PM_OP_mul, x, v[4], &x));
    return build2(call, PM_OP_add, x, v[2], &call->out[0]);
}

pm_status pm_onnx_do_instance_norm(pm_onnx_call *call)
{
    pm_value *x = call->in[0], *scale, *bias, *mean, *inverse;
    PM_TRY(per_channel(call, call->in[1], &scale));
    PM_TRY(per_channel(call, call->in[2], &bias));
    int64_t axes[PM_MAX_RANK];
    size_t n = 0;
    for (int32_t i = 2; i < x->type->rank; i++)
        axes[n++] = i;
    if (n == 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 3 or more");
    PM_TRY(normalise(call, x, axes, n, true, pm_onnx_attr_of(call, "epsilon")->f, &x, &mean,
                     &inverse));
    PM_TRY(build2(call, PM_OP_mul, x, scale, &x));
    return build2(call, PM_OP_add, x, bias, &call->out[0]);
}

/* x [B, C, ...] as [B, groups, C / groups, ...]; scale and bias per group (opset 18) or channel. */
pm_status pm_onnx_do_group_norm(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    pm_value *x = call->in[0], *mean, *inverse, *scale = call->in[1], *bias = call->in[2];
    const pm_type *type = x->type;
    int64_t channels, groups = pm_onnx_attr_of(call, "num_groups")->i;
    if (type->rank < 3 || scale->type->rank != 1 || bias->type->rank != 1)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 3 or more, and vectors");
    if (!pm_dim_is_const(m, type->dims[1], &channels) || type->rank == PM_MAX_RANK)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "the number of channels must be known");
    if (groups < 1 || channels % groups)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "%" PRId64 " channels don't make %" PRId64 " groups", channels,
                             groups);
    pm_dim dims[PM_MAX_RANK];
    int64_t axes[PM_MAX_RANK];
    size_t n = 0;
    dims[0] = type->dims[0];
    dims[1] = pm_dim_const(m, groups);
    dims[2] = pm_dim_const(m, channels / groups);
    for (int32_t i = 2; i < type->rank; i++)
        dims[i + 1] = type->dims[i];
    for (int32_t i = 2; i <= type->rank; i++)
        axes[n++] = i;
    PM_TRY(pm_onnx_reshape(call, x, dims, type->rank + 1, &x));
    PM_TRY(normalise(call, x, axes, n, true, pm_onnx_attr_of(call, "epsilon")->f, &x, &mean,
                     &inverse));
    bool per_group = scale->type->dims[0] == dims[1] && groups != channels;
    if (!per_group)
        PM_TRY(pm_onnx_reshape(call, x, type->dims, type->rank, &x));
    for (int32_t i = 0; i < x->type->rank; i++)
        dims[i] = i == 1 ? scale->type->dims[0] : pm_dim_const(m, 1);
    PM_TRY(pm_onnx_reshape(call, scale, dims, x->type->rank, &scale));
    PM_TRY(pm_onnx_reshape(call, bias, dims, x->type->rank, &bias));
    PM_TRY(build2(call, PM_OP_mul, x, scale, &x));
    PM_TRY(build2(call, PM_OP_add, x, bias, &x));
    return pm_onnx_reshape(call, x, type->dims, type->rank, &call->out[0]);
}

pm_status pm_onnx_do_mean_variance_norm(pm_onnx_call *call)
{
    static const int64_t usual[] = {0, 2, 3};
    pm_value *x = call->in[0], *mean, *inverse;
    const pm_onnx_attr *given = pm_onnx_attr_of(call, "axes");
    size_t n = given->given ? given->n : PM_COUNT(usual);
    int64_t axes[PM_MAX_RANK];
    PM_TRY(pm_onnx_axes(call, given->given ? given->ints : usual, n, x->type->rank, axes));
    return normalise(call, x, axes, n, true, 1e-9, &call->out[0], &mean, &inverse);
}

pm_status pm_onnx_do_lp_norm(pm_onnx_call *call)
{
    pm_value *x = call->in[0], *norm;
    int64_t axis, p = pm_onnx_attr_of(call, "p")->i;
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, x->type->rank, &axis));
    if (p != 1 && p != 2)
        return pm_onnx_error(call, PM_ERR_INVALID, "p is %" PRId64 ", must be 1 or 2", p);
    PM_TRY(pm_onnx_expr(call, p == 1 ? "abs(x)" : "mul(x, x)", &x, &norm));
    PM_TRY(build_reduce(call, PM_OP_reduce_sum, norm, &axis, 1, true, &norm));
    if (p == 2)
        PM_TRY(pm_onnx_build(call, &norm, PM_OP_sqrt, PM_OPERANDS(norm), PM_NO_ATTRS));
    /* where the norm is zero, so is x: divide by one there */
    PM_TRY(pm_onnx_expr(call, "where(less(0, x), x, 1)", &norm, &norm));
    return build2(call, PM_OP_div, x, norm, &call->out[0]);
}
