/* Handlers: operators that move or regroup data. */
#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

pm_onnx_handler pm_onnx_do_size, pm_onnx_do_flatten, pm_onnx_do_squeeze, pm_onnx_do_unsqueeze,
    pm_onnx_do_transpose, pm_onnx_do_split, pm_onnx_do_slice, pm_onnx_do_pad, pm_onnx_do_compress,
    pm_onnx_do_depth_to_space, pm_onnx_do_space_to_depth, pm_onnx_do_onehot, pm_onnx_do_eye_like,
    pm_onnx_do_tensor_scatter;

pm_status pm_onnx_reshape(pm_onnx_call *call, pm_value *x, const pm_dim *dims, int32_t rank,
                          pm_value **out)
{
    return pm_build_reshape_dims(&call->b, x, rank, dims, out);
}

pm_status pm_onnx_do_size(pm_onnx_call *call)
{
    pm_value *shape;
    const int64_t axis = 0;
    PM_TRY(pm_onnx_build(call, &shape, PM_OP_shape, PM_OPERANDS(call->in[0]), PM_NO_ATTRS));
    return pm_onnx_build(call, &call->out[0], PM_OP_reduce_prod, PM_OPERANDS(shape),
                         PM_ATTRS(pm_attr_ints("axes", &axis, 1), pm_attr_bool("keepdims", false)));
}

static pm_dim product(pm_module *m, const pm_dim *dims, int64_t from, int64_t to)
{
    pm_dim out = pm_dim_const(m, 1);
    for (int64_t i = from; i < to; i++)
        out = pm_dim_mul(m, out, dims[i]);
    return out;
}

pm_status pm_onnx_do_flatten(pm_onnx_call *call)
{
    const pm_type *type = call->in[0]->type;
    int64_t axis = pm_onnx_attr_of(call, "axis")->i;
    if (axis < -type->rank || axis > type->rank)
        return pm_onnx_error(call, PM_ERR_INVALID, "axis %" PRId64 " is not within rank %" PRId32,
                             axis, type->rank);
    if (axis < 0)
        axis += type->rank;
    pm_module *m = call->onnx->module;
    const pm_dim dims[] = {product(m, type->dims, 0, axis),
                           product(m, type->dims, axis, type->rank)};
    return pm_onnx_reshape(call, call->in[0], dims, 2, &call->out[0]);
}

/* Axes as an attribute (before opset 13) or as an input. *out_given is false when there are none.
 */
static pm_status read_axes(pm_onnx_call *call, const int64_t **out, size_t *out_n, bool *out_given)
{
    *out_given = true;
    if (call->n_decls) {
        const pm_onnx_attr *attr = pm_onnx_attr_of(call, "axes");
        *out = attr->ints;
        *out_n = attr->n;
        *out_given = attr->given;
        return PM_OK;
    }
    if (call->n_in < 2) {
        *out_given = false;
        return PM_OK;
    }
    return pm_onnx_ints(call, call->in[1], "axes", out, out_n);
}

pm_status pm_onnx_do_squeeze(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    const pm_type *type = call->in[0]->type;
    const int64_t *given = NULL;
    int64_t axes[PM_MAX_RANK], dim;
    size_t n = 0;
    bool has_axes;
    PM_TRY(read_axes(call, &given, &n, &has_axes));
    if (has_axes) {
        PM_TRY(pm_onnx_axes(call, given, n, type->rank, axes));
    } else {
        for (int32_t i = 0; i < type->rank; i++) {
            if (!pm_dim_is_const(m, type->dims[i], &dim))
                return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                                     "has no axes, and whether dim %" PRId32
                                     " (%s) is 1 is known only when the model runs",
                                     i, pm_dim_text(m, type->dims[i]));
            if (dim == 1)
                axes[n++] = i;
        }
    }
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = 0;
    size_t next = 0;
    for (int32_t i = 0; i < type->rank; i++) {
        if (next == n || axes[next] != i) {
            dims[rank++] = type->dims[i];
            continue;
        }
        next++;
        if (pm_dim_is_const(m, type->dims[i], &dim) && dim != 1)
            return pm_onnx_error(call, PM_ERR_INVALID,
                                 "dim %" PRId32 " is %" PRId64 ", must be 1 to be squeezed", i,
                                 dim);
    }
    return pm_onnx_reshape(call, call->in[0], dims, rank, &call->out[0]);
}

pm_status pm_onnx_do_unsqueeze(pm_onnx_call *call)
{
    const pm_type *type = call->in[0]->type;
    const int64_t *given = NULL;
    int64_t axes[PM_MAX_RANK];
    size_t n = 0;
    bool has_axes;
    PM_TRY(read_axes(call, &given, &n, &has_axes));
    int64_t rank = type->rank + (int64_t)n;
    if (rank > PM_MAX_RANK)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "rank %" PRId64 " is above %d", rank,
                             PM_MAX_RANK);
    PM_TRY(pm_onnx_axes(call, given, n, rank, axes));
    pm_dim dims[PM_MAX_RANK];
    size_t next = 0;
    int32_t from = 0;
    for (int64_t i = 0; i < rank; i++) {
        bool fresh = next < n && axes[next] == i;
        dims[i] = fresh ? pm_dim_const(call->onnx->module, 1) : type->dims[from++];
        next += fresh;
    }
    return pm_onnx_reshape(call, call->in[0], dims, (int32_t)rank, &call->out[0]);
}

pm_status pm_onnx_do_transpose(pm_onnx_call *call)
{
    const pm_onnx_attr *perm = pm_onnx_attr_of(call, "perm");
    int32_t rank = call->in[0]->type->rank;
    int64_t axes[PM_MAX_RANK], check[PM_MAX_RANK];
    if (perm->given && perm->n != (size_t)rank)
        return pm_onnx_error(call, PM_ERR_INVALID, "perm has %zu axes for rank %" PRId32, perm->n,
                             rank);
    for (int32_t i = 0; i < rank; i++) {
        axes[i] = rank - 1 - i;
        if (perm->given)
            PM_TRY(pm_onnx_axis(call, perm->ints[i], rank, &axes[i]));
    }
    PM_TRY(pm_onnx_axes(call, axes, (size_t)rank, rank, check));
    return pm_onnx_transpose(call, call->in[0], axes, &call->out[0]);
}

pm_status pm_onnx_do_split(pm_onnx_call *call)
{
    const pm_type *type = call->in[0]->type;
    size_t n = call->node->n_output;
    int64_t axis, dim;
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, type->rank, &axis));
    pm_value *operands[2] = {call->in[0], call->n_in > 1 ? call->in[1] : NULL};
    if (call->row->since < 13) {
        const pm_onnx_attr *sizes = pm_onnx_attr_of(call, "split");
        if (sizes->given)
            PM_TRY(pm_onnx_vector(call, sizes->ints, sizes->n, &operands[1]));
    }
    if (call->row->since >= 18) {
        const pm_onnx_attr *number = pm_onnx_attr_of(call, "num_outputs");
        if (number->given && operands[1])
            return pm_onnx_error(call, PM_ERR_INVALID, "has both sizes and num_outputs");
        if (number->given && number->i != (int64_t)n)
            return pm_onnx_error(call, PM_ERR_INVALID,
                                 "num_outputs is %" PRId64 ", but it has %zu outputs", number->i,
                                 n);
    } else if (!operands[1] && pm_dim_is_const(call->onnx->module, type->dims[axis], &dim) &&
               dim % (int64_t)n) {
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "dim %" PRId64 " of %" PRId64 " can't be split in %zu equal parts",
                             axis, dim, n);
    }
    pm_op *op;
    PM_TRY(pm_build(&call->b, PM_OP_split, operands, operands[1] ? 2 : 1,
                    PM_ATTRS(pm_attr_i64("axis", axis)), n, &op));
    for (size_t i = 0; i < call->n_out; i++)
        call->out[i] = op->results[i];
    return PM_OK;
}

pm_status pm_onnx_do_slice(pm_onnx_call *call)
{
    const pm_onnx_attr *starts = pm_onnx_attr_of(call, "starts");
    const pm_onnx_attr *ends = pm_onnx_attr_of(call, "ends");
    const pm_onnx_attr *axes = pm_onnx_attr_of(call, "axes");
    pm_value *operands[4] = {call->in[0]};
    if (starts->n != ends->n || (axes->given && axes->n != starts->n))
        return pm_onnx_error(call, PM_ERR_INVALID, "starts, ends and axes differ in length");
    PM_TRY(pm_onnx_vector(call, starts->ints, starts->n, &operands[1]));
    PM_TRY(pm_onnx_vector(call, ends->ints, ends->n, &operands[2]));
    if (axes->given)
        PM_TRY(pm_onnx_vector(call, axes->ints, axes->n, &operands[3]));
    return pm_onnx_build(call, &call->out[0], PM_OP_slice, operands, axes->given ? 4 : 3,
                         PM_NO_ATTRS);
}

pm_status pm_onnx_do_pad(pm_onnx_call *call)
{
    const pm_onnx_attr *pads = pm_onnx_attr_of(call, "pads");
    pm_value *operands[3] = {call->in[0]};
    PM_TRY(pm_onnx_vector(call, pads->ints, pads->n, &operands[1]));
    PM_TRY(pm_onnx_scalar(call, call->in[0]->type->elem, pm_onnx_attr_of(call, "value")->f,
                          &operands[2]));
    return pm_onnx_build(call, &call->out[0], PM_OP_pad, operands, 3,
                         PM_ATTRS(pm_attr_str("mode", pm_onnx_attr_of(call, "mode")->s)));
}

/* Rows of x where the condition holds: their numbers by nonzero, then gather. */
pm_status pm_onnx_do_compress(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    pm_value *x = call->in[0], *found;
    const pm_onnx_attr *given = pm_onnx_attr_of(call, "axis");
    int64_t axis = 0;
    if (given->given) {
        PM_TRY(pm_onnx_axis(call, given->i, x->type->rank, &axis));
    } else {
        pm_dim flat = pm_type_count(m, x->type);
        PM_TRY(pm_onnx_reshape(call, x, &flat, 1, &x));
    }
    if (call->in[1]->type->rank != 1)
        return pm_onnx_error(call, PM_ERR_INVALID, "the condition must be a vector");
    PM_TRY(pm_onnx_build(call, &found, PM_OP_nonzero, PM_OPERANDS(call->in[1]), PM_NO_ATTRS));
    PM_TRY(pm_onnx_reshape(call, found, &found->type->dims[1], 1, &found));
    return pm_onnx_build(call, &call->out[0], PM_OP_gather, PM_OPERANDS(x, found),
                         PM_ATTRS(pm_attr_i64("axis", axis)));
}

/* x [B, C, H, W] as six dims, transposed, and as four again. */
static pm_status regroup(pm_onnx_call *call, const pm_dim *split, const int64_t *perm,
                         const pm_dim *joined)
{
    pm_value *x;
    PM_TRY(pm_onnx_reshape(call, call->in[0], split, 6, &x));
    PM_TRY(pm_onnx_transpose(call, x, perm, &x));
    return pm_onnx_reshape(call, x, joined, 4, &call->out[0]);
}

static pm_status check_blocks(pm_onnx_call *call, int64_t *out_block, bool *out_dcr)
{
    *out_block = pm_onnx_attr_of(call, "blocksize")->i;
    const char *mode = call->n_decls > 1 ? pm_onnx_attr_of(call, "mode")->s : "DCR";
    *out_dcr = strcmp(mode, "DCR") == 0;
    if (!*out_dcr && strcmp(mode, "CRD") != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "mode is '%s', must be DCR or CRD", mode);
    if (*out_block < 1 || *out_block > 65536)
        return pm_onnx_error(call, PM_ERR_INVALID, "blocksize is %" PRId64, *out_block);
    if (call->in[0]->type->rank != 4)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 4, has %" PRId32,
                             call->in[0]->type->rank);
    return PM_OK;
}

static pm_status divide(pm_onnx_call *call, int32_t index, int64_t by, pm_dim *out)
{
    pm_module *m = call->onnx->module;
    pm_dim dim = call->in[0]->type->dims[index];
    int64_t value;
    if (!pm_dim_is_const(m, dim, &value))
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "dim %" PRId32 " must be known", index);
    if (value % by)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "dim %" PRId32 " is %" PRId64 ", no multiple of %" PRId64, index,
                             value, by);
    *out = pm_dim_const(m, value / by);
    return PM_OK;
}

pm_status pm_onnx_do_depth_to_space(pm_onnx_call *call)
{
    static const int64_t dcr[] = {0, 3, 4, 1, 5, 2}, crd[] = {0, 1, 4, 2, 5, 3};
    pm_module *m = call->onnx->module;
    int64_t block;
    bool is_dcr;
    PM_TRY(check_blocks(call, &block, &is_dcr));
    const pm_dim *d = call->in[0]->type->dims;
    pm_dim depth, b = pm_dim_const(m, block);
    PM_TRY(divide(call, 1, block * block, &depth));
    const pm_dim split_dcr[] = {d[0], b, b, depth, d[2], d[3]};
    const pm_dim split_crd[] = {d[0], depth, b, b, d[2], d[3]};
    const pm_dim joined[] = {d[0], depth, pm_dim_mul(m, d[2], b), pm_dim_mul(m, d[3], b)};
    return regroup(call, is_dcr ? split_dcr : split_crd, is_dcr ? dcr : crd, joined);
}

pm_status pm_onnx_do_space_to_depth(pm_onnx_call *call)
{
    static const int64_t dcr[] = {0, 3, 5, 1, 2, 4}, crd[] = {0, 1, 3, 5, 2, 4};
    pm_module *m = call->onnx->module;
    int64_t block;
    bool is_dcr;
    PM_TRY(check_blocks(call, &block, &is_dcr));
    const pm_dim *d = call->in[0]->type->dims;
    pm_dim h, w, b = pm_dim_const(m, block);
    PM_TRY(divide(call, 2, block, &h));
    PM_TRY(divide(call, 3, block, &w));
    const pm_dim split[] = {d[0], d[1], h, b, w, b};
    const pm_dim joined[] = {d[0], pm_dim_mul(m, d[1], pm_dim_const(m, block * block)), h, w};
    return regroup(call, split, is_dcr ? dcr : crd, joined);
}

/* The depth may be of any type, and a vector of one. */
pm_status pm_onnx_do_onehot(pm_onnx_call *call)
{
    pm_value *operands[3] = {call->in[0], call->in[1], call->in[2]};
    PM_TRY(pm_onnx_cast(call, operands[0], PM_I64, &operands[0]));
    PM_TRY(pm_onnx_cast(call, operands[1], PM_I64, &operands[1]));
    return pm_onnx_build(call, &call->out[0], PM_OP_onehot, operands, 3,
                         PM_ATTRS(pm_attr_i64("axis", pm_onnx_attr_of(call, "axis")->i)));
}

/* Ones where column - row == k. */
pm_status pm_onnx_do_eye_like(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    const pm_type *type = call->in[0]->type;
    const pm_onnx_attr *elem = pm_onnx_attr_of(call, "dtype");
    pm_value *zero, *one, *index[2], *k, *x;
    if (type->rank != 2)
        return pm_onnx_error(call, PM_ERR_INVALID, "needs rank 2, has %" PRId32, type->rank);
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, PM_I64, 1, &one));
    for (int i = 0; i < 2; i++) {
        const pm_dim column[] = {i ? pm_dim_const(m, 1) : type->dims[0],
                                 i ? type->dims[1] : pm_dim_const(m, 1)};
        pm_value *count;
        PM_TRY(pm_build_dims(&call->b, 1, &type->dims[i], &count));
        PM_TRY(pm_onnx_reshape(call, count, NULL, 0, &count));
        PM_TRY(pm_onnx_build(call, &index[i], PM_OP_range, PM_OPERANDS(zero, count, one),
                             PM_NO_ATTRS));
        PM_TRY(pm_onnx_reshape(call, index[i], column, 2, &index[i]));
    }
    PM_TRY(pm_onnx_scalar(call, PM_I64, (double)pm_onnx_attr_of(call, "k")->i, &k));
    PM_TRY(pm_onnx_build(call, &x, PM_OP_add, PM_OPERANDS(index[0], k), PM_NO_ATTRS));
    PM_TRY(pm_onnx_build(call, &x, PM_OP_equal, PM_OPERANDS(x, index[1]), PM_NO_ATTRS));
    return pm_onnx_cast(call, x, elem->given ? (pm_elem)elem->i : type->elem, &call->out[0]);
}

/* 0 … count - 1, seen with one dim of that extent among `rank` dims of 1. */
static pm_status counted(pm_onnx_call *call, pm_dim count, int32_t rank, int64_t axis, pm_value **out)
{
    pm_module *m = call->onnx->module;
    pm_value *zero, *one, *limit;
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        dims[i] = i == axis ? count : pm_dim_const(m, 1);
    PM_TRY(pm_onnx_scalar(call, PM_I64, 0, &zero));
    PM_TRY(pm_onnx_scalar(call, PM_I64, 1, &one));
    PM_TRY(pm_build_dims(&call->b, 1, &count, &limit));
    PM_TRY(pm_onnx_reshape(call, limit, NULL, 0, &limit));
    PM_TRY(pm_onnx_build(call, out, PM_OP_range, PM_OPERANDS(zero, limit, one), PM_NO_ATTRS));
    return pm_onnx_reshape(call, *out, dims, rank, out);
}

/* Rows of `update` go to places write_indices[b] + t of the axis: their numbers as scatter_elements
 * takes them. */
pm_status pm_onnx_do_tensor_scatter(pm_onnx_call *call)
{
    pm_module *m = call->onnx->module;
    pm_value *cache = call->in[0], *update = call->in[1], *at, *shape;
    int32_t rank = cache->type->rank;
    const char *mode = pm_onnx_attr_of(call, "mode")->s;
    bool is_circular = strcmp(mode, "circular") == 0;
    int64_t axis;
    if (!is_circular && strcmp(mode, "linear") != 0)
        return pm_onnx_error(call, PM_ERR_INVALID, "mode is '%s', must be linear or circular", mode);
    PM_TRY(pm_onnx_axis(call, pm_onnx_attr_of(call, "axis")->i, rank, &axis));
    if (axis == 0 || update->type->rank != rank)
        return pm_onnx_error(call, PM_ERR_INVALID,
                             "the axis must not be 0, and the update must have the cache's rank");
    PM_TRY(counted(call, update->type->dims[axis], rank, axis, &at));
    if (call->n_in > 2) {
        pm_dim dims[PM_MAX_RANK];
        pm_value *start;
        for (int32_t i = 0; i < rank; i++)
            dims[i] = i == 0 ? cache->type->dims[0] : pm_dim_const(m, 1);
        PM_TRY(pm_onnx_cast(call, call->in[2], PM_I64, &start));
        PM_TRY(pm_onnx_reshape(call, start, dims, rank, &start));
        PM_TRY(pm_onnx_build(call, &at, PM_OP_add, PM_OPERANDS(at, start), PM_NO_ATTRS));
    }
    if (is_circular) {
        pm_value *size;
        PM_TRY(pm_build_dims(&call->b, 1, &cache->type->dims[axis], &size));
        PM_TRY(pm_onnx_build(call, &at, PM_OP_mod, PM_OPERANDS(at, size), PM_NO_ATTRS));
    }
    PM_TRY(pm_build_dims(&call->b, rank, update->type->dims, &shape));
    PM_TRY(pm_onnx_build(call, &at, PM_OP_expand, PM_OPERANDS(at, shape), PM_NO_ATTRS));
    return pm_onnx_build(call, &call->out[0], PM_OP_scatter_elements,
                         PM_OPERANDS(cache, at, update), PM_ATTRS(pm_attr_i64("axis", axis)));
}
