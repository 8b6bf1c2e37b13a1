/// Reductions and ops along an axis. Float sums accumulate in double; integers wrap.
#include "ir/ops/eval_util.h"

/* ---- reductions --------------------------------------------------------------------------------- */

enum reduction { SUM, MEAN, MAXIMUM, MINIMUM, PRODUCT };

/// The axes of x that stay (with x's strides) and those that are reduced.
typedef struct reduce_walks {
    pm_walk kept, reduced;
} reduce_walks;

PM_INLINE int32_t reduce_split(const pm_eval_args *args, reduce_walks *r)
{
    const pm_tensor *x = &args->in[0];
    const pm_attr_value *axes = &args->attrs[0];
    int64_t strides[PM_MAX_RANK], kept[PM_MAX_RANK], reduced[PM_MAX_RANK];
    int64_t kept_strides[PM_MAX_RANK], reduced_strides[PM_MAX_RANK];
    int32_t n_kept = 0, n_reduced = 0;
    pm_strides(x->dims, x->rank, strides);
    for (int32_t d = 0; d < x->rank; d++) {
        int32_t is_reduced = 0;
        for (int64_t i = 0; i < axes->n; i++)
            is_reduced |= pm_axis(axes->ints[i], x->rank) == d;
        if (is_reduced) {
            reduced[n_reduced] = x->dims[d];
            reduced_strides[n_reduced++] = strides[d];
        } else {
            kept[n_kept] = x->dims[d];
            kept_strides[n_kept++] = strides[d];
        }
    }
    pm_walk_begin(&r->kept, kept, n_kept, 1);
    pm_walk_begin(&r->reduced, reduced, n_reduced, 1);
    for (int32_t d = 0; d < n_kept; d++)
        r->kept.stride[0][d] = kept_strides[d];
    for (int32_t d = 0; d < n_reduced; d++)
        r->reduced.stride[0][d] = reduced_strides[d];
    return pm_product(kept, 0, n_kept) != pm_elements(&args->out[0]);
}

PM_INLINE double reduce_start(enum reduction op)
{
    return op == PRODUCT ? 1 : op == MAXIMUM ? -INFINITY : op == MINIMUM ? INFINITY : 0;
}

PM_INLINE double reduce_float(enum reduction op, double a, double b)
{
    switch (op) {
    case SUM:
    case MEAN: return a + b;
    case MAXIMUM: return pm_larger(a, b);
    case MINIMUM: return pm_smaller(a, b);
    case PRODUCT: return a * b;
    }
    return 0;
}

/// The lowest or highest number of an integer type (of u64 its bits).
PM_INLINE int64_t int_limit(int32_t elem, int32_t highest)
{
    int32_t bits = (int32_t)pm_bytes_of(elem) * 8;
    int32_t is_signed = elem == PM_I64 || elem == PM_I32 || elem == PM_I16 || elem == PM_I8;
    if (!is_signed)
        return highest ? (int64_t)(UINT64_MAX >> (64 - bits)) : 0;
    int64_t top = INT64_MAX >> (64 - bits);
    return highest ? top : -top - 1;
}

PM_INLINE int64_t reduce_int(enum reduction op, int64_t a, int64_t b, int32_t elem)
{
    switch (op) {
    case SUM:
    case MEAN: return pm_wrap_add(a, b);
    case MAXIMUM: return pm_larger_int(a, b, elem);
    case MINIMUM: return pm_smaller_int(a, b, elem);
    case PRODUCT: return pm_wrap_mul(a, b);
    }
    return 0;
}

PM_INLINE double reduce_all_float(enum reduction op, const pm_tensor *x, pm_walk *w, int64_t base)
{
    double result = reduce_start(op);
    int64_t rows = pm_walk_rows(w), n = pm_walk_row(w), step = w->stride[0][w->rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(w))
        for (int64_t i = 0; i < n; i++)
            result = reduce_float(op, result,
                                  pm_get_f64(x->data, x->elem, base + w->offset[0] + i * step));
    return op == MEAN ? result / (double)(rows * n) : result;
}

PM_INLINE int64_t reduce_all_int(enum reduction op, const pm_tensor *x, pm_walk *w, int64_t base)
{
    int64_t result = op == PRODUCT ? 1 : 0;
    if (op == MAXIMUM || op == MINIMUM)
        result = int_limit(x->elem, op == MINIMUM);
    int64_t rows = pm_walk_rows(w), n = pm_walk_row(w), step = w->stride[0][w->rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(w))
        for (int64_t i = 0; i < n; i++)
            result = reduce_int(op, result,
                                pm_get_i64(x->data, x->elem, base + w->offset[0] + i * step),
                                x->elem);
    if (op != MEAN)
        return result;
    if (x->elem == PM_U64)
        return (int64_t)((uint64_t)result / (uint64_t)(rows * n));
    return result / (rows * n);
}

PM_INLINE int32_t reduce(const pm_eval_args *args, enum reduction op)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    reduce_walks r;
    int64_t at = 0;
    if (reduce_split(args, &r))
        return 1;
    int64_t rows = pm_walk_rows(&r.kept), n = pm_walk_row(&r.kept);
    int64_t step = r.kept.stride[0][r.kept.rank - 1];
    if (!pm_is_float(x->elem) && op == MEAN && rows > 0 && pm_walk_rows(&r.reduced) == 0)
        return 1; // 0 / 0
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&r.kept)) {
        for (int64_t i = 0; i < n; i++, at++) {
            int64_t base = r.kept.offset[0] + i * step;
            if (pm_is_float(x->elem))
                pm_set_f64(out->data, out->elem, at, reduce_all_float(op, x, &r.reduced, base));
            else
                pm_set_i64(out->data, out->elem, at, reduce_all_int(op, x, &r.reduced, base), 0);
        }
    }
    return 0;
}

#define REDUCE(name, op)                                                                           \
    int32_t pm_eval_reduce_##name(const pm_eval_args *args);                                       \
    int32_t pm_eval_reduce_##name(const pm_eval_args *args)                                        \
    {                                                                                              \
        return reduce(args, op);                                                                   \
    }

REDUCE(sum, SUM)
REDUCE(mean, MEAN)
REDUCE(max, MAXIMUM)
REDUCE(min, MINIMUM)
REDUCE(prod, PRODUCT)

/* ---- along an axis ------------------------------------------------------------------------------ */

/// x as [outer, n, inner] around an axis. Returns 1 when there is no such axis.
typedef struct lanes {
    int64_t outer, n, inner;
} lanes;

PM_INLINE int32_t lanes_of(const pm_tensor *x, int64_t axis, lanes *out)
{
    int32_t at = pm_axis(axis, x->rank);
    if (at < 0)
        return 1;
    *out = (lanes){pm_product(x->dims, 0, at), x->dims[at],
                   pm_product(x->dims, at + 1, x->rank)};
    return 0;
}

/// Offset of the first element of lane `inner` of block `outer`.
PM_INLINE int64_t lane_base(const lanes *l, int64_t outer, int64_t inner)
{
    return outer * l->n * l->inner + inner;
}

pm_eval_fn pm_eval_softmax, pm_eval_rms_norm, pm_eval_layer_norm, pm_eval_argmax, pm_eval_argmin;
pm_eval_fn pm_eval_cumsum, pm_eval_cumprod, pm_eval_topk;
pm_extent_fn pm_extent_topk;

PM_INLINE void softmax_lane(const pm_tensor *x, const pm_tensor *out, int64_t base, int64_t n,
                            int64_t step, int32_t is_log)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        largest = pm_larger(largest, pm_get_f64(x->data, x->elem, base + i * step));
    for (int64_t i = 0; i < n; i++)
        sum += exp(pm_get_f64(x->data, x->elem, base + i * step) - largest);
    double log_sum = is_log ? log(sum) : 0;
    for (int64_t i = 0; i < n; i++) {
        double shifted = pm_get_f64(x->data, x->elem, base + i * step) - largest;
        pm_set_f64(out->data, out->elem, base + i * step,
                   is_log ? shifted - log_sum : exp(shifted) / sum);
    }
}

int32_t pm_eval_softmax(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    lanes l;
    if (!pm_same_dims(x, out))
        return 1;
    if (x->rank == 0)
        l = (lanes){1, 1, 1};
    else if (lanes_of(x, args->attrs[0].i, &l))
        return 1;
    for (int64_t o = 0; o < l.outer; o++)
        for (int64_t i = 0; i < l.inner; i++)
            softmax_lane(x, out, lane_base(&l, o, i), l.n, l.inner, args->attrs[1].i != 0);
    return 0;
}

PM_INLINE int32_t normalise(const pm_eval_args *args, int32_t is_centred)
{
    const pm_tensor *x = &args->in[0], *scale = &args->in[1], *out = &args->out[0];
    double eps = args->attrs[0].f;
    lanes l;
    if (!pm_same_dims(x, out) || lanes_of(x, -1, &l) || pm_elements(scale) != l.n)
        return 1;
    const pm_tensor *bias = pm_has(args, 2) ? &args->in[2] : NULL;
    if (bias != NULL && pm_elements(bias) != l.n)
        return 1;
    for (int64_t o = 0; o < l.outer; o++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < l.n && is_centred; i++)
            mean += pm_get_f64(x->data, x->elem, o * l.n + i);
        mean /= (double)l.n;
        for (int64_t i = 0; i < l.n; i++) {
            double d = pm_get_f64(x->data, x->elem, o * l.n + i) - (is_centred ? mean : 0);
            square += d * d;
        }
        double root = sqrt(square / (double)l.n + eps);
        for (int64_t i = 0; i < l.n; i++) {
            double d = pm_get_f64(x->data, x->elem, o * l.n + i) - (is_centred ? mean : 0);
            double value = d / root * pm_get_f64(scale->data, scale->elem, i);
            if (bias != NULL)
                value += pm_get_f64(bias->data, bias->elem, i);
            pm_set_f64(out->data, out->elem, o * l.n + i, value);
        }
    }
    return 0;
}

int32_t pm_eval_rms_norm(const pm_eval_args *args)
{
    return normalise(args, 0);
}

int32_t pm_eval_layer_norm(const pm_eval_args *args)
{
    return normalise(args, 1);
}

/// True when element a is to be preferred to b for argmax, or argmin: NaN wins both.
PM_INLINE int32_t is_preferred(const pm_tensor *x, int64_t a, int64_t b, int32_t smallest)
{
    int32_t order = pm_compare(x->data, x->elem, a, b);
    if (smallest && pm_is_float(x->elem)) {
        double at_a = pm_get_f64(x->data, x->elem, a), at_b = pm_get_f64(x->data, x->elem, b);
        if (at_a != at_a || at_b != at_b)
            return order > 0;
    }
    return smallest ? order < 0 : order > 0;
}

PM_INLINE int32_t arg_extreme(const pm_eval_args *args, int32_t smallest)
{
    enum { AXIS, KEEPDIMS, LAST };
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    lanes l;
    if (lanes_of(x, args->attrs[AXIS].i, &l) || pm_elements(out) != l.outer * l.inner ||
        (l.n == 0 && l.outer * l.inner > 0))
        return 1;
    for (int64_t o = 0; o < l.outer; o++) {
        for (int64_t i = 0; i < l.inner; i++) {
            int64_t base = lane_base(&l, o, i), best = 0;
            for (int64_t k = 1; k < l.n; k++) {
                int64_t here = base + k * l.inner, there = base + best * l.inner;
                int32_t is_equal = args->attrs[LAST].i && !is_preferred(x, there, here, smallest);
                if (is_equal || is_preferred(x, here, there, smallest))
                    best = k;
            }
            pm_set_i64(out->data, out->elem, o * l.inner + i, best, 0);
        }
    }
    return 0;
}

int32_t pm_eval_argmax(const pm_eval_args *args)
{
    return arg_extreme(args, 0);
}

int32_t pm_eval_argmin(const pm_eval_args *args)
{
    return arg_extreme(args, 1);
}

/// Running sums or products.
PM_INLINE int32_t accumulate(const pm_eval_args *args, int32_t is_product)
{
    enum { AXIS, EXCLUSIVE, REVERSE };
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int32_t is_exclusive = args->attrs[EXCLUSIVE].i != 0, is_reverse = args->attrs[REVERSE].i != 0;
    lanes l;
    if (!pm_same_dims(x, out) || lanes_of(x, args->attrs[AXIS].i, &l))
        return 1;
    for (int64_t o = 0; o < l.outer; o++) {
        for (int64_t i = 0; i < l.inner; i++) {
            double total = is_product;
            int64_t int_total = is_product;
            for (int64_t k = 0; k < l.n; k++) {
                int64_t at = lane_base(&l, o, i) + (is_reverse ? l.n - 1 - k : k) * l.inner;
                double before = total;
                int64_t int_before = int_total;
                if (pm_is_float(x->elem)) {
                    double value = pm_get_f64(x->data, x->elem, at);
                    total = is_product ? total * value : total + value;
                    pm_set_f64(out->data, out->elem, at, is_exclusive ? before : total);
                } else {
                    int64_t value = pm_get_i64(x->data, x->elem, at);
                    int_total =
                        is_product ? pm_wrap_mul(int_total, value) : pm_wrap_add(int_total, value);
                    pm_set_i64(out->data, out->elem, at, is_exclusive ? int_before : int_total, 0);
                }
            }
        }
    }
    return 0;
}

int32_t pm_eval_cumsum(const pm_eval_args *args)
{
    return accumulate(args, 0);
}

int32_t pm_eval_cumprod(const pm_eval_args *args)
{
    return accumulate(args, 1);
}

/* ---- topk --------------------------------------------------------------------------------------- */

/// The best k of one lane, by their positions in a heap whose root is the worst of them. The heap
/// lives in the output of indices.
typedef struct top {
    const pm_tensor *x;
    int64_t base, step;     ///< of the lane in x
    void *indices;          ///< i64
    int64_t out_base, size; ///< of the lane in the outputs; the step is the same
    int32_t largest;
} top;

PM_INLINE int64_t top_get(const top *t, int64_t slot)
{
    return pm_get_i64(t->indices, PM_I64, t->out_base + slot * t->step);
}

PM_INLINE void top_set(const top *t, int64_t slot, int64_t position)
{
    pm_set_i64(t->indices, PM_I64, t->out_base + slot * t->step, position, 0);
}

/// True when position a comes before b in the result; among equals the lower position does.
PM_INLINE int32_t top_before(const top *t, int64_t a, int64_t b)
{
    int32_t order = pm_compare(t->x->data, t->x->elem, t->base + a * t->step,
                               t->base + b * t->step);
    if (order == 0)
        return a < b;
    return t->largest ? order > 0 : order < 0;
}

/// Puts `position` where it belongs below the (free) root.
PM_INLINE void top_sink(const top *t, int64_t position)
{
    int64_t slot = 0;
    for (int64_t child = 1; child < t->size; child = 2 * slot + 1) {
        if (child + 1 < t->size && top_before(t, top_get(t, child), top_get(t, child + 1)))
            child++;
        if (!top_before(t, position, top_get(t, child)))
            break;
        top_set(t, slot, top_get(t, child));
        slot = child;
    }
    top_set(t, slot, position);
}

/// Adds `position` as the heap's last, and lets it rise.
PM_INLINE void top_rise(top *t, int64_t position)
{
    int64_t slot = t->size++;
    while (slot > 0 && top_before(t, top_get(t, (slot - 1) / 2), position)) {
        top_set(t, slot, top_get(t, (slot - 1) / 2));
        slot = (slot - 1) / 2;
    }
    top_set(t, slot, position);
}

PM_INLINE void top_lane(top *t, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < n && k > 0; i++) {
        if (t->size < k)
            top_rise(t, i);
        else if (top_before(t, i, top_get(t, 0)))
            top_sink(t, i);
    }
    // the worst goes last, again and again
    while (t->size > 1) {
        int64_t worst = top_get(t, 0), last = top_get(t, --t->size);
        top_sink(t, last);
        top_set(t, t->size, worst);
    }
}

int32_t pm_eval_topk(const pm_eval_args *args)
{
    enum { AXIS, LARGEST };
    const pm_tensor *x = &args->in[0], *values = &args->out[0], *indices = &args->out[1];
    lanes l, o;
    if (lanes_of(x, args->attrs[AXIS].i, &l) || lanes_of(values, args->attrs[AXIS].i, &o) ||
        !pm_same_dims(values, indices) || indices->elem != PM_I64 || o.n > l.n ||
        o.outer != l.outer || o.inner != l.inner)
        return 1;
    for (int64_t i = 0; i < l.outer; i++) {
        for (int64_t j = 0; j < l.inner; j++) {
            top t = {x, lane_base(&l, i, j), l.inner, indices->data, lane_base(&o, i, j), 0,
                     args->attrs[LARGEST].i != 0};
            top_lane(&t, l.n, o.n);
            for (int64_t k = 0; k < o.n; k++)
                pm_copy_one(values->data, t.out_base + k * t.step, x->data,
                            t.base + top_get(&t, k) * t.step, x->elem);
        }
    }
    return 0;
}

int32_t pm_extent_topk(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *x = &args->in[0], *k = &args->in[1];
    int32_t axis = pm_axis(args->attrs[0].i, x->rank);
    if (axis < 0 || pm_elements(k) != 1)
        return 1;
    int64_t n = pm_get_i64(k->data, k->elem, 0);
    if (n < 0 || n > x->dims[axis])
        return 1;
    for (int32_t d = 0; d < x->rank; d++)
        dims[d] = dims[PM_MAX_RANK + d] = d == axis ? n : x->dims[d];
    return 0;
}
