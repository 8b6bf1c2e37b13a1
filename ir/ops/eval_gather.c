/// Reads and writes by index, and tensors made from numbers. Every index is checked.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_gather, pm_eval_gather_elements, pm_eval_gather_nd, pm_eval_scatter_elements;
pm_eval_fn pm_eval_scatter_nd, pm_eval_range, pm_eval_fill, pm_eval_empty, pm_eval_onehot;
pm_eval_fn pm_eval_nonzero, pm_eval_trilu;
pm_extent_fn pm_extent_range, pm_extent_fill, pm_extent_onehot, pm_extent_nonzero;

/* ---- gather ------------------------------------------------------------------------------------- */

int32_t pm_eval_gather(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *indices = &args->in[1], *out = &args->out[0];
    int32_t axis = pm_axis(args->attrs[0].i, x->rank);
    if (axis < 0 || out->rank != x->rank - 1 + indices->rank)
        return 1;
    int64_t outer = pm_product(x->dims, 0, axis), inner = pm_product(x->dims, axis + 1, x->rank);
    int64_t n = pm_elements(indices);
    if (pm_elements(out) != (outer == 0 || inner == 0 ? 0 : outer * n * inner))
        return 1;
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t from = pm_index(indices, i, x->dims[axis]);
            if (from < 0)
                return 1;
            pm_copy_runs(out->data, (o * n + i) * inner, 0, x->data,
                         (o * x->dims[axis] + from) * inner, 0, inner, 1, x->elem);
        }
    }
    return 0;
}

/// Starts a walk over the indices of gather_elements and scatter_elements, with x's strides but
/// none along `axis`. Returns 1 when the indices reach over x.
PM_INLINE int32_t elements_walk(pm_walk *w, const pm_tensor *x, const pm_tensor *indices,
                                int32_t axis, int64_t *out_step)
{
    int64_t strides[PM_MAX_RANK];
    if (axis < 0 || x->rank != indices->rank)
        return 1;
    pm_strides(x->dims, x->rank, strides);
    pm_walk_begin(w, indices->dims, indices->rank, 1);
    *out_step = 0;
    for (int32_t d = 0; d < x->rank; d++) {
        if (d == axis)
            *out_step = strides[d];
        else if (indices->dims[d] > x->dims[d])
            return 1;
        else
            w->stride[0][d] = strides[d];
    }
    return 0;
}

int32_t pm_eval_gather_elements(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *indices = &args->in[1], *out = &args->out[0];
    int32_t axis = pm_axis(args->attrs[0].i, x->rank);
    int64_t axis_step, at = 0;
    pm_walk w;
    if (!pm_same_dims(indices, out) || elements_walk(&w, x, indices, axis, &axis_step))
        return 1;
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w), step = w.stride[0][w.rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w)) {
        for (int64_t i = 0; i < n; i++, at++) {
            int64_t from = pm_index(indices, at, x->dims[axis]);
            if (from < 0)
                return 1;
            pm_copy_one(out->data, at, x->data, w.offset[0] + i * step + from * axis_step, x->elem);
        }
    }
    return 0;
}

/// Offset in x that tuple `tuple` of indices [..., n] points to, by the axes from `batch` on; -1
/// when an index is out of range.
PM_INLINE int64_t tuple_offset(const pm_tensor *x, const pm_tensor *indices, int64_t tuple,
                               int32_t batch, int32_t n)
{
    int64_t offset = 0;
    for (int32_t i = 0; i < n; i++) {
        int64_t extent = x->dims[batch + i], at = pm_index(indices, tuple * n + i, extent);
        if (at < 0)
            return -1;
        offset = offset * extent + at;
    }
    return offset * pm_product(x->dims, batch + n, x->rank);
}

int32_t pm_eval_gather_nd(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *indices = &args->in[1], *out = &args->out[0];
    int64_t batch_dims = args->attrs[0].i;
    if (indices->rank < 1 || batch_dims < 0 || batch_dims >= indices->rank ||
        batch_dims > x->rank || indices->dims[indices->rank - 1] > x->rank - batch_dims)
        return 1;
    int32_t batch = (int32_t)batch_dims, n = (int32_t)indices->dims[indices->rank - 1];
    int64_t batches = pm_product(indices->dims, 0, batch);
    int64_t tuples = pm_product(indices->dims, batch, indices->rank - 1);
    int64_t inner = pm_product(x->dims, batch + n, x->rank);
    int64_t batch_step = pm_product(x->dims, batch, x->rank);
    for (int32_t d = 0; d < batch; d++)
        if (x->dims[d] != indices->dims[d])
            return 1;
    if (pm_elements(out) == 0)
        return 0;
    if (pm_elements(out) != batches * tuples * inner)
        return 1;
    for (int64_t b = 0; b < batches; b++) {
        for (int64_t t = 0; t < tuples; t++) {
            int64_t from = tuple_offset(x, indices, b * tuples + t, batch, n);
            if (from < 0)
                return 1;
            pm_copy(out->data, (b * tuples + t) * inner, x->data, b * batch_step + from, inner,
                    x->elem);
        }
    }
    return 0;
}

/* ---- scatter ------------------------------------------------------------------------------------ */

enum { SCATTER_NONE, SCATTER_ADD, SCATTER_MUL, SCATTER_MAX, SCATTER_MIN };

PM_INLINE int32_t scatter_reduction(const pm_attr_value *reduction)
{
    return pm_attr_is(reduction, "add")   ? SCATTER_ADD
           : pm_attr_is(reduction, "mul") ? SCATTER_MUL
           : pm_attr_is(reduction, "max") ? SCATTER_MAX
           : pm_attr_is(reduction, "min") ? SCATTER_MIN
                                          : SCATTER_NONE;
}

/// out[to] = out[to] (reduction) updates[from].
PM_INLINE void scatter_one(const pm_tensor *out, int64_t to, const pm_tensor *updates, int64_t from,
                           int32_t reduction)
{
    if (reduction == SCATTER_NONE) {
        pm_copy_one(out->data, to, updates->data, from, out->elem);
    } else if (pm_is_float(out->elem)) {
        double a = pm_get_f64(out->data, out->elem, to);
        double b = pm_get_f64(updates->data, updates->elem, from);
        pm_set_f64(out->data, out->elem, to,
                   reduction == SCATTER_ADD   ? a + b
                   : reduction == SCATTER_MUL ? a * b
                   : reduction == SCATTER_MAX ? pm_larger(a, b)
                                              : pm_smaller(a, b));
    } else {
        int64_t a = pm_get_i64(out->data, out->elem, to);
        int64_t b = pm_get_i64(updates->data, updates->elem, from);
        pm_set_i64(out->data, out->elem, to,
                   reduction == SCATTER_ADD   ? pm_wrap_add(a, b)
                   : reduction == SCATTER_MUL ? pm_wrap_mul(a, b)
                   : reduction == SCATTER_MAX ? pm_larger_int(a, b, out->elem)
                                              : pm_smaller_int(a, b, out->elem),
                   0);
    }
}

/// The result starts as x, which it may be already.
PM_INLINE void scatter_begin(const pm_tensor *x, const pm_tensor *out)
{
    if (x->data != out->data)
        pm_copy(out->data, 0, x->data, 0, pm_elements(x), x->elem);
}

int32_t pm_eval_scatter_elements(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *indices = &args->in[1], *updates = &args->in[2];
    const pm_tensor *out = &args->out[0];
    int32_t axis = pm_axis(args->attrs[0].i, x->rank);
    int32_t reduction = scatter_reduction(&args->attrs[1]);
    int64_t axis_step, at = 0;
    pm_walk w;
    if (!pm_same_dims(x, out) || !pm_same_dims(indices, updates) ||
        elements_walk(&w, x, indices, axis, &axis_step))
        return 1;
    scatter_begin(x, out);
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w), step = w.stride[0][w.rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w)) {
        for (int64_t i = 0; i < n; i++, at++) {
            int64_t to = pm_index(indices, at, x->dims[axis]);
            if (to < 0)
                return 1;
            scatter_one(out, w.offset[0] + i * step + to * axis_step, updates, at, reduction);
        }
    }
    return 0;
}

int32_t pm_eval_scatter_nd(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *indices = &args->in[1], *updates = &args->in[2];
    const pm_tensor *out = &args->out[0];
    int32_t reduction = scatter_reduction(&args->attrs[0]);
    if (!pm_same_dims(x, out) || indices->rank < 1 || indices->dims[indices->rank - 1] > x->rank)
        return 1;
    int32_t n = (int32_t)indices->dims[indices->rank - 1];
    int64_t tuples = pm_product(indices->dims, 0, indices->rank - 1);
    int64_t inner = pm_product(x->dims, n, x->rank);
    scatter_begin(x, out);
    if (pm_elements(updates) == 0)
        return tuples != 0 && inner != 0;
    if (pm_elements(updates) != tuples * inner)
        return 1;
    for (int64_t t = 0; t < tuples; t++) {
        int64_t to = tuple_offset(x, indices, t, 0, n);
        if (to < 0)
            return 1;
        for (int64_t i = 0; i < inner; i++)
            scatter_one(out, to + i, updates, t * inner + i, reduction);
    }
    return 0;
}

/* ---- range, fill, empty ------------------------------------------------------------------------- */

int32_t pm_extent_range(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *start = &args->in[0], *limit = &args->in[1], *delta = &args->in[2];
    if (pm_elements(start) != 1 || pm_elements(limit) != 1 || pm_elements(delta) != 1)
        return 1;
    if (pm_is_float(start->elem)) {
        double step = pm_get_f64(delta->data, delta->elem, 0);
        double span = pm_get_f64(limit->data, limit->elem, 0) -
                      pm_get_f64(start->data, start->elem, 0);
        double n = ceil(span / step);
        if (step == 0 || !(n < 0x1p53)) // NaN too
            return 1;
        dims[0] = n > 0 ? (int64_t)n : 0;
        return 0;
    }
    int64_t from = pm_get_i64(start->data, start->elem, 0), to = pm_get_i64(limit->data, limit->elem, 0);
    int64_t step = pm_get_i64(delta->data, delta->elem, 0);
    int32_t is_falling = start->elem != PM_U64 && step < 0;
    int64_t low = is_falling ? to : from, high = is_falling ? from : to;
    if (step == 0)
        return 1;
    dims[0] = 0;
    if (low == high || pm_smaller_int(low, high, start->elem) == high)
        return 0;
    // the distance of two signed numbers fits an unsigned one
    uint64_t span = (uint64_t)high - (uint64_t)low;
    uint64_t n = (span - 1) / (is_falling ? -(uint64_t)step : (uint64_t)step) + 1;
    dims[0] = (int64_t)n;
    return n > (uint64_t)INT64_MAX;
}

int32_t pm_eval_range(const pm_eval_args *args)
{
    const pm_tensor *start = &args->in[0], *delta = &args->in[2], *out = &args->out[0];
    int64_t n;
    if (pm_extent_range(args, &n) || pm_elements(out) != n)
        return 1;
    for (int64_t i = 0; i < n; i++) {
        if (pm_is_float(out->elem)) {
            double step = pm_get_f64(delta->data, delta->elem, 0) * (double)i;
            pm_set_f64(out->data, out->elem, i, pm_get_f64(start->data, start->elem, 0) + step);
        } else {
            int64_t step = pm_wrap_mul(pm_get_i64(delta->data, delta->elem, 0), i);
            pm_set_i64(out->data, out->elem, i,
                       pm_wrap_add(pm_get_i64(start->data, start->elem, 0), step), 0);
        }
    }
    return 0;
}

int32_t pm_extent_fill(const pm_eval_args *args, int64_t *dims)
{
    int64_t n = pm_list(&args->in[0], dims, PM_MAX_RANK);
    int32_t fault = n < 0;
    for (int64_t i = 0; i < n; i++)
        fault |= dims[i] < 0;
    return fault;
}

int32_t pm_eval_fill(const pm_eval_args *args)
{
    const pm_tensor *value = &args->in[1], *out = &args->out[0];
    int64_t n = pm_elements(out);
    if (pm_elements(value) != 1)
        return 1;
    for (int64_t i = 0; i < n; i++)
        pm_copy_one(out->data, i, value->data, 0, out->elem);
    return 0;
}

int32_t pm_eval_empty(const pm_eval_args *args)
{
    const pm_tensor *out = &args->out[0];
    int64_t n = pm_elements(out);
    for (int64_t i = 0; i < n; i++)
        pm_set_i64(out->data, out->elem, i, 0, 0);
    return 0;
}

/* ---- onehot, nonzero, trilu --------------------------------------------------------------------- */

int32_t pm_extent_onehot(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *indices = &args->in[0], *depth = &args->in[1];
    int32_t axis = pm_axis(args->attrs[0].i, indices->rank + 1);
    if (axis < 0 || pm_elements(depth) != 1 || indices->rank >= PM_MAX_RANK)
        return 1;
    for (int32_t d = 0; d < indices->rank; d++)
        dims[d < axis ? d : d + 1] = indices->dims[d];
    dims[axis] = pm_get_i64(depth->data, depth->elem, 0);
    return dims[axis] < 0;
}

int32_t pm_eval_onehot(const pm_eval_args *args)
{
    const pm_tensor *indices = &args->in[0], *values = &args->in[2], *out = &args->out[0];
    int32_t axis = pm_axis(args->attrs[0].i, indices->rank + 1);
    if (axis < 0 || out->rank != indices->rank + 1 || pm_elements(values) != 2)
        return 1;
    int64_t outer = pm_product(indices->dims, 0, axis), n = out->dims[axis];
    int64_t inner = pm_product(indices->dims, axis, indices->rank), at = 0;
    for (int32_t d = 0; d < indices->rank; d++)
        if (indices->dims[d] != out->dims[d < axis ? d : d + 1])
            return 1;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < n; k++)
            for (int64_t i = 0; i < inner; i++, at++) {
                // an index out of range is hot nowhere
                int64_t hot = pm_index(indices, o * inner + i, n);
                pm_copy_one(out->data, at, values->data, hot == k, out->elem);
            }
    return 0;
}

PM_INLINE int32_t is_nonzero(const pm_tensor *x, int64_t i)
{
    return pm_is_float(x->elem) ? pm_get_f64(x->data, x->elem, i) != 0
                                : pm_get_i64(x->data, x->elem, i) != 0;
}

int32_t pm_extent_nonzero(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *x = &args->in[0];
    int64_t n = pm_elements(x), found = 0;
    for (int64_t i = 0; i < n; i++)
        found += is_nonzero(x, i);
    dims[0] = x->rank;
    dims[1] = found;
    return 0;
}

int32_t pm_eval_nonzero(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t columns, at = 0, column = 0;
    pm_walk w;
    if (out->rank != 2 || out->dims[0] != x->rank)
        return 1;
    columns = out->dims[1];
    pm_walk_begin(&w, x->dims, x->rank, 0);
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w);
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w)) {
        for (int64_t i = 0; i < n; i++, at++) {
            if (!is_nonzero(x, at))
                continue;
            if (column == columns)
                return 1;
            for (int32_t d = 0; d < x->rank; d++)
                pm_set_i64(out->data, out->elem, d * columns + column,
                           d == x->rank - 1 ? i : w.index[d], 0);
            column++;
        }
    }
    return column != columns;
}

int32_t pm_eval_trilu(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *k = &args->in[1], *out = &args->out[0];
    if (!pm_same_dims(x, out) || x->rank < 2)
        return 1;
    int64_t rows = x->dims[x->rank - 2], columns = x->dims[x->rank - 1];
    int64_t matrices = pm_product(x->dims, 0, x->rank - 2), at = 0, diagonal = 0;
    if (pm_has(args, 1)) {
        if (pm_elements(k) != 1)
            return 1;
        diagonal = pm_get_i64(k->data, k->elem, 0);
    }
    if (pm_elements(x) == 0)
        return 0;
    for (int64_t m = 0; m < matrices; m++) {
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < columns; j++, at++) {
                if (args->attrs[0].i ? j - i >= diagonal : j - i <= diagonal)
                    pm_copy_one(out->data, at, x->data, at, x->elem);
                else
                    pm_set_i64(out->data, out->elem, at, 0, 0);
            }
        }
    }
    return 0;
}
