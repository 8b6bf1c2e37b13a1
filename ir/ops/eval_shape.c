/// Shapes and movement of whole elements.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_shape, pm_eval_reshape, pm_eval_transpose, pm_eval_concat, pm_eval_split;
pm_eval_fn pm_eval_slice, pm_eval_expand, pm_eval_tile, pm_eval_pad, pm_eval_stack;
pm_extent_fn pm_extent_reshape, pm_extent_split, pm_extent_slice, pm_extent_expand, pm_extent_tile;
pm_extent_fn pm_extent_pad;

/* ---- shape, reshape, transpose ------------------------------------------------------------------ */

/// A bound of a range of axes, clipped to [0, rank].
PM_INLINE int64_t clip_axis(int64_t at, int32_t rank)
{
    if (at < 0)
        return at < -rank ? 0 : at + rank;
    return at > rank ? rank : at;
}

int32_t pm_eval_shape(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t start = clip_axis(args->attrs[0].i, x->rank), end = clip_axis(args->attrs[1].i, x->rank);
    if (pm_elements(out) != (end > start ? end - start : 0))
        return 1;
    for (int64_t i = start; i < end; i++)
        pm_set_i64(out->data, out->elem, i - start, x->dims[i], 0);
    return 0;
}

int32_t pm_extent_reshape(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *x = &args->in[0];
    int64_t n = pm_list(&args->in[1], dims, PM_MAX_RANK), rest = -1, known = 1, total = pm_elements(x);
    int32_t is_empty = 0;
    for (int64_t i = 0; i < n; i++) {
        if (dims[i] == 0 && !args->attrs[0].i) {
            if (i >= x->rank)
                return 1;
            dims[i] = x->dims[i];
        }
        if (dims[i] < -1 || (dims[i] == -1 && rest >= 0))
            return 1;
        if (dims[i] == -1)
            rest = i;
        else if (dims[i] == 0)
            is_empty = 1;
        else if (__builtin_mul_overflow(known, dims[i], &known))
            return 1;
    }
    if (n < 0 || (is_empty && rest >= 0))
        return 1;
    if (rest >= 0) {
        if (total % known != 0)
            return 1;
        dims[rest] = total / known;
        return 0;
    }
    return (is_empty ? 0 : known) != total;
}

int32_t pm_eval_reshape(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    if (pm_elements(x) != pm_elements(out))
        return 1;
    if (x->data != out->data)
        pm_copy(out->data, 0, x->data, 0, pm_elements(x), x->elem);
    return 0;
}

int32_t pm_eval_transpose(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    const pm_attr_value *perm = &args->attrs[0];
    int64_t strides[PM_MAX_RANK], at = 0;
    pm_walk w;
    if (perm->n != x->rank || x->rank != out->rank)
        return 1;
    pm_strides(x->dims, x->rank, strides);
    pm_walk_begin(&w, out->dims, out->rank, 1);
    for (int32_t d = 0; d < out->rank; d++) {
        int32_t from = pm_axis(perm->ints[d], x->rank);
        if (from < 0 || x->dims[from] != out->dims[d])
            return 1;
        w.stride[0][d] = strides[from];
    }
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w), step = w.stride[0][w.rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w))
        for (int64_t i = 0; i < n; i++)
            pm_copy_one(out->data, at++, x->data, w.offset[0] + i * step, x->elem);
    return 0;
}

/* ---- concat, stack, split ----------------------------------------------------------------------- */

/// True when a and b have the same extents but for one axis.
PM_INLINE int32_t same_but(const pm_tensor *a, const pm_tensor *b, int32_t axis)
{
    int32_t same = a->rank == b->rank;
    for (int32_t d = 0; same && d < a->rank; d++)
        same = d == axis || a->dims[d] == b->dims[d];
    return same;
}

/// Elements of two tensors in turn: strides that are constants are vectors' business.
PM_INLINE void interleave(const pm_tensor *a, const pm_tensor *b, void *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        pm_copy_one(out, 2 * i, a->data, i, PM_F32);
        pm_copy_one(out, 2 * i + 1, b->data, i, PM_F32);
    }
}

int32_t pm_eval_concat(const pm_eval_args *args)
{
    const pm_tensor *out = &args->out[0];
    int32_t axis = pm_axis(args->attrs[0].i, out->rank);
    if (axis < 0)
        return 1;
    int64_t outer = pm_product(out->dims, 0, axis), total = 0;
    int64_t inner = pm_product(out->dims, axis + 1, out->rank);
    if (args->n_in == 2 && inner == 1 && out->dims[axis] == 2 && pm_bytes_of(out->elem) == 4 &&
        pm_same_dims(&args->in[0], &args->in[1]) && same_but(&args->in[0], out, axis) &&
        args->in[0].dims[axis] == 1) {
        interleave(&args->in[0], &args->in[1], out->data, outer);
        return 0;
    }
    for (int32_t i = 0; i < args->n_in; i++) {
        const pm_tensor *x = &args->in[i];
        if (!same_but(x, out, axis) || x->dims[axis] > out->dims[axis] - total)
            return 1;
        int64_t row = x->dims[axis] * inner;
        pm_copy_runs(out->data, total * inner, out->dims[axis] * inner, x->data, 0, row, row, outer, out->elem);
        total += x->dims[axis];
    }
    return total != out->dims[axis];
}

int32_t pm_eval_stack(const pm_eval_args *args)
{
    const pm_tensor *out = &args->out[0];
    if (out->rank < 1 || out->dims[0] != args->n_in)
        return 1;
    int64_t n = pm_product(out->dims, 1, out->rank);
    for (int32_t i = 0; i < args->n_in; i++) {
        if (pm_elements(&args->in[i]) != n)
            return 1;
        pm_copy(out->data, i * n, args->in[i].data, 0, n, out->elem);
    }
    return 0;
}

int32_t pm_extent_split(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *x = &args->in[0], *sizes = &args->in[1];
    int32_t axis = pm_axis(args->attrs[0].i, x->rank);
    if (axis < 0 || args->n_out < 1)
        return 1;
    int32_t has_sizes = pm_has(args, 1);
    if (has_sizes && pm_elements(sizes) != args->n_out)
        return 1;
    int64_t left = x->dims[axis], part = left / args->n_out + (left % args->n_out != 0);
    for (int32_t i = 0; i < args->n_out; i++) {
        int64_t size = part < left ? part : left;
        if (has_sizes)
            size = pm_get_i64(sizes->data, sizes->elem, i);
        if (size < 0 || size > left)
            return 1;
        left -= size;
        for (int32_t d = 0; d < x->rank; d++)
            dims[i * PM_MAX_RANK + d] = d == axis ? size : x->dims[d];
    }
    return left != 0;
}

int32_t pm_eval_split(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0];
    int32_t axis = pm_axis(args->attrs[0].i, x->rank);
    if (axis < 0)
        return 1;
    int64_t outer = pm_product(x->dims, 0, axis), inner = pm_product(x->dims, axis + 1, x->rank);
    int64_t start = 0;
    for (int32_t i = 0; i < args->n_out; i++) {
        const pm_tensor *out = &args->out[i];
        if (!same_but(x, out, axis) || out->dims[axis] > x->dims[axis] - start)
            return 1;
        int64_t row = out->dims[axis] * inner;
        pm_copy_runs(out->data, 0, row, x->data, start * inner, x->dims[axis] * inner, row, outer, x->elem);
        start += out->dims[axis];
    }
    return start != x->dims[axis];
}

/* ---- slice -------------------------------------------------------------------------------------- */

/// Per axis of x: the first element, how many, and the step from one to the next.
typedef struct slice_ranges {
    int64_t start[PM_MAX_RANK], n[PM_MAX_RANK], step[PM_MAX_RANK];
} slice_ranges;

/// A bound of a slice as a position in [low, high].
PM_INLINE int64_t clip_bound(int64_t at, int64_t extent, int64_t low, int64_t high)
{
    if (at < 0)
        at = at < -extent ? low : at + extent;
    return at < low ? low : at > high ? high : at;
}

/// Number of steps from start to end; |span| < 2^63 for both are positions of an axis.
PM_INLINE int64_t count_steps(int64_t span, int64_t step)
{
    if (step < 0)
        span = -span;
    uint64_t size = step < 0 ? -(uint64_t)step : (uint64_t)step;
    return span <= 0 ? 0 : (int64_t)(((uint64_t)span - 1) / size + 1);
}

PM_INLINE int32_t slice_resolve(const pm_eval_args *args, slice_ranges *s)
{
    const pm_tensor *x = &args->in[0], *starts = &args->in[1], *ends = &args->in[2];
    const pm_tensor *axes = pm_has(args, 3) ? &args->in[3] : NULL;
    const pm_tensor *steps = pm_has(args, 4) ? &args->in[4] : NULL;
    int64_t n = pm_elements(starts);
    if (n > x->rank || pm_elements(ends) != n || (axes != NULL && pm_elements(axes) != n) ||
        (steps != NULL && pm_elements(steps) != n))
        return 1;
    for (int32_t d = 0; d < x->rank; d++) {
        s->start[d] = 0;
        s->n[d] = x->dims[d];
        s->step[d] = 1;
    }
    uint32_t seen = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t axis = axes != NULL ? pm_get_i64(axes->data, axes->elem, i) : i;
        int64_t step = steps != NULL ? pm_get_i64(steps->data, steps->elem, i) : 1;
        int32_t d = pm_axis(axis, x->rank);
        if (d < 0 || step == 0 || (seen & 1u << d))
            return 1;
        seen |= 1u << d;
        int64_t extent = x->dims[d], first = step < 0 ? -1 : 0, top = step < 0 ? extent - 1 : extent;
        int64_t start = clip_bound(pm_get_i64(starts->data, starts->elem, i), extent, 0, top);
        int64_t end = clip_bound(pm_get_i64(ends->data, ends->elem, i), extent, first, top);
        s->start[d] = start;
        s->step[d] = step;
        s->n[d] = extent == 0 ? 0 : count_steps(end - start, step);
    }
    return 0;
}

int32_t pm_extent_slice(const pm_eval_args *args, int64_t *dims)
{
    slice_ranges s;
    if (slice_resolve(args, &s))
        return 1;
    for (int32_t d = 0; d < args->in[0].rank; d++)
        dims[d] = s.n[d];
    return 0;
}

int32_t pm_eval_slice(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t strides[PM_MAX_RANK], at = 0;
    slice_ranges s;
    pm_walk w;
    if (slice_resolve(args, &s) || x->rank != out->rank)
        return 1;
    pm_strides(x->dims, x->rank, strides);
    pm_walk_begin(&w, out->dims, out->rank, 1);
    for (int32_t d = 0; d < x->rank; d++) {
        if (s.n[d] != out->dims[d])
            return 1;
        // of at most one element the step is never taken (and may be huge)
        w.stride[0][d] = s.n[d] > 1 ? s.step[d] * strides[d] : 0;
        w.offset[0] += s.n[d] > 0 ? s.start[d] * strides[d] : 0;
    }
    int64_t n = pm_walk_row(&w), step = w.stride[0][w.rank - 1], runs = 1, apart = 0;
    if (w.rank > 1) { // the last two axes at once
        w.rank--;
        runs = n > 0 ? pm_walk_row(&w) : 0;
        apart = w.stride[0][w.rank - 1];
    }
    int64_t rows = pm_walk_rows(&w);
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w), at += runs * n) {
        if (step == 1 || n == 1)
            pm_copy_runs(out->data, at, n, x->data, w.offset[0], apart, n, runs, x->elem);
        for (int64_t run = 0; run < runs && step != 1 && n != 1; run++)
            pm_copy_runs(out->data, at + run * n, 1, x->data, w.offset[0] + run * apart, step, 1, n, x->elem);
    }
    return 0;
}

/* ---- expand, tile ------------------------------------------------------------------------------- */

int32_t pm_extent_expand(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *x = &args->in[0];
    int64_t shape[PM_MAX_RANK], n = pm_list(&args->in[1], shape, PM_MAX_RANK);
    if (n < 0)
        return 1;
    int64_t rank = n > x->rank ? n : x->rank;
    for (int64_t d = 0; d < rank; d++) {
        int64_t ours = d - (rank - x->rank), theirs = d - (rank - n);
        int64_t a = ours >= 0 ? x->dims[ours] : 1, b = theirs >= 0 ? shape[theirs] : 1;
        if (b < 0 || (a != b && a != 1 && b != 1))
            return 1;
        dims[d] = a == 1 ? b : a;
    }
    return 0;
}

int32_t pm_eval_expand(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t at = 0;
    pm_walk w;
    pm_walk_begin(&w, out->dims, out->rank, 1);
    if (pm_walk_broadcast(&w, 0, x))
        return 1;
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w), step = w.stride[0][w.rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w))
        for (int64_t i = 0; i < n; i++)
            pm_copy_one(out->data, at++, x->data, w.offset[0] + i * step, x->elem);
    return 0;
}

int32_t pm_extent_tile(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *x = &args->in[0];
    int64_t repeats[PM_MAX_RANK], n = pm_list(&args->in[1], repeats, PM_MAX_RANK);
    if (n != x->rank)
        return 1;
    for (int64_t d = 0; d < n; d++)
        if (repeats[d] < 0 || __builtin_mul_overflow(x->dims[d], repeats[d], &dims[d]))
            return 1;
    return 0;
}

int32_t pm_eval_tile(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t strides[PM_MAX_RANK], at = 0;
    pm_walk w;
    if (x->rank != out->rank)
        return 1;
    for (int32_t d = 0; d < x->rank; d++)
        if (x->dims[d] == 0 ? out->dims[d] != 0 : out->dims[d] % x->dims[d] != 0)
            return 1;
    pm_strides(x->dims, x->rank, strides);
    pm_walk_begin(&w, out->dims, out->rank, 0);
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w), row_of_x = x->rank ? x->dims[x->rank - 1] : 1;
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w)) {
        int64_t from = 0;
        for (int32_t d = 0; d + 1 < x->rank; d++)
            from += w.index[d] % x->dims[d] * strides[d];
        for (int64_t i = 0; i < n; i += row_of_x, at += row_of_x)
            pm_copy(out->data, at, x->data, from, row_of_x, x->elem);
    }
    return 0;
}

/* ---- pad ---------------------------------------------------------------------------------------- */

/// What is added before and after each axis; negative: taken away.
typedef struct padding {
    int64_t before[PM_MAX_RANK], after[PM_MAX_RANK];
} padding;

enum { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };

PM_INLINE int32_t pad_mode(const pm_attr_value *mode)
{
    return pm_attr_is(mode, "reflect") ? PAD_REFLECT
           : pm_attr_is(mode, "edge")  ? PAD_EDGE
           : pm_attr_is(mode, "wrap")  ? PAD_WRAP
                                       : PAD_CONSTANT;
}

/// Elements of an axis that are left to pad around.
PM_INLINE int64_t pad_core(int64_t extent, int64_t before, int64_t after)
{
    return extent + (before < 0 ? before : 0) + (after < 0 ? after : 0);
}

PM_INLINE int32_t pad_resolve(const pm_eval_args *args, padding *p, int64_t *dims)
{
    const pm_tensor *x = &args->in[0], *pads = &args->in[1];
    const pm_tensor *axes = pm_has(args, 3) ? &args->in[3] : NULL;
    int64_t n = axes != NULL ? pm_elements(axes) : x->rank;
    if (n > x->rank || pm_elements(pads) != 2 * n)
        return 1;
    for (int32_t d = 0; d < x->rank; d++)
        p->before[d] = p->after[d] = 0;
    uint32_t seen = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t d = pm_axis(axes != NULL ? pm_get_i64(axes->data, axes->elem, i) : i, x->rank);
        if (d < 0 || (seen & 1u << d))
            return 1;
        seen |= 1u << d;
        p->before[d] = pm_get_i64(pads->data, pads->elem, i);
        p->after[d] = pm_get_i64(pads->data, pads->elem, n + i);
    }
    for (int32_t d = 0; d < x->rank; d++) {
        int64_t extent = x->dims[d], before = p->before[d], after = p->after[d];
        if (before < -extent || after < -extent || pad_core(extent, before, after) < 0 ||
            __builtin_add_overflow(extent, before, &dims[d]) ||
            __builtin_add_overflow(dims[d], after, &dims[d]))
            return 1;
        // nothing can be repeated
        if (pad_mode(&args->attrs[0]) != PAD_CONSTANT && dims[d] > 0 &&
            pad_core(extent, before, after) == 0)
            return 1;
    }
    return 0;
}

int32_t pm_extent_pad(const pm_eval_args *args, int64_t *dims)
{
    padding p;
    return pad_resolve(args, &p, dims);
}

/// Position in x's axis of position `at` of the padded axis; -1: the padding's value.
PM_INLINE int64_t pad_source(int64_t at, int64_t extent, int64_t before, int64_t after, int32_t mode)
{
    int64_t first = before < 0 ? -before : 0, n = pad_core(extent, before, after);
    at -= before > 0 ? before : 0;
    if (at >= 0 && at < n)
        return first + at;
    int64_t period = mode == PAD_WRAP ? n : 2 * (n - 1);
    switch (mode) {
    case PAD_EDGE: return first + (at < 0 ? 0 : n - 1);
    case PAD_WRAP:
    case PAD_REFLECT:
        if (period == 0) // one element is its own mirror image
            return first;
        at = (at % period + period) % period;
        return first + (at < n ? at : period - at);
    default: return -1;
    }
}

int32_t pm_eval_pad(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *value = &args->in[2], *out = &args->out[0];
    int64_t strides[PM_MAX_RANK], dims[PM_MAX_RANK], at = 0;
    int32_t mode = pad_mode(&args->attrs[0]), last = x->rank - 1;
    padding p;
    pm_walk w;
    if (x->rank != out->rank || pad_resolve(args, &p, dims))
        return 1;
    for (int32_t d = 0; d < x->rank; d++)
        if (dims[d] != out->dims[d])
            return 1;
    if (x->rank == 0) {
        pm_copy_one(out->data, 0, x->data, 0, x->elem);
        return 0;
    }
    pm_strides(x->dims, x->rank, strides);
    pm_walk_begin(&w, out->dims, out->rank, 0);
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w);
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w)) {
        int64_t base = 0;
        for (int32_t d = 0; d < last; d++) {
            int64_t from = pad_source(w.index[d], x->dims[d], p.before[d], p.after[d], mode);
            base = from < 0 || base < 0 ? -1 : base + from * strides[d];
        }
        for (int64_t i = 0; i < n; i++, at++) {
            int64_t from = pad_source(i, x->dims[last], p.before[last], p.after[last], mode);
            if (from >= 0 && base >= 0)
                pm_copy_one(out->data, at, x->data, base + from, x->elem);
            else if (pm_has(args, 2))
                pm_copy_one(out->data, at, value->data, 0, x->elem);
            else
                pm_set_i64(out->data, out->elem, at, 0, 0);
        }
    }
    return 0;
}
