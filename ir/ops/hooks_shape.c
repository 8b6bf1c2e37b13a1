/// Shape and data movement: verify and infer. (Fold hooks: hooks_fold.c.)
#include "ir/ops/hooks.h"

static int32_t rank_of(const pm_op *op, uint32_t operand)
{
    return pm_hook_type(op, operand)->rank;
}

/// Of two extents that must be equal, the one that says more.
static pm_dim unify(const pm_module *m, pm_dim a, pm_dim b)
{
    return !pm_dim_is_const(m, a, NULL) && pm_dim_is_const(m, b, NULL) ? b : a;
}

/// Content of a value when all elements are constants; false otherwise.
static bool const_content(const pm_value *v, int64_t *out, size_t max, size_t *out_n)
{
    const pm_dim *content = pm_hook_content(v, out_n);
    if (content == NULL || *out_n > max)
        return false;
    for (size_t i = 0; i < *out_n; i++)
        if (!pm_dim_is_const(v->graph->module, content[i], &out[i]))
            return false;
    return true;
}

/// Checks an operand that lists extents or the like: rank 1, integers, at most `max` of them.
static pm_status check_list(const pm_op *op, pm_diag *diag, uint32_t operand, const char *what,
                            int64_t max, int64_t *out_n)
{
    const pm_type *type = pm_hook_type(op, operand);
    *out_n = 0;
    if (!pm_elem_is_int(type->elem) || type->rank != 1)
        return pm_hook_error(op, diag, "%s must be a list of integers, found %s", what,
                             pm_hook_type_text(op, operand));
    if (!pm_hook_length(op, operand, out_n))
        return pm_error(diag, op->loc, PM_ERR_UNSUPPORTED,
                        "%s: the length of %s must be known, found %s", pm_op_info_of(op)->name,
                        what, pm_hook_type_text(op, operand));
    if (*out_n > max)
        return pm_hook_error(op, diag, "%s has %" PRId64 " elements, at most %" PRId64, what,
                             *out_n, max);
    return PM_OK;
}

/// An error when an extent, number of repeats or the like is certainly negative.
static pm_status check_not_negative(const pm_op *op, pm_diag *diag, const char *what, pm_dim value)
{
    int64_t lo, hi;
    pm_dim_range(pm_hook_module(op), value, &lo, &hi);
    if (hi >= 0)
        return PM_OK;
    return pm_hook_error(op, diag, "%s is negative (%s)", what,
                         pm_dim_text(pm_hook_module(op), value));
}

/// The result has the extents that operand `operand` lists; unknown ones are found at run time.
static pm_status infer_listed(pm_infer *inf, uint32_t operand, pm_elem elem)
{
    size_t n_known;
    int64_t n;
    pm_dim dims[PM_MAX_RANK];
    PM_TRY(check_list(inf->op, inf->diag, operand, "shape", PM_MAX_RANK, &n));
    const pm_dim *content = pm_hook_content(inf->op->operands[operand], &n_known);
    for (int32_t i = 0; i < n; i++) {
        dims[i] = content ? content[i] : pm_infer_fresh(inf, 0, i, PM_DIM_NONE);
        PM_TRY(check_not_negative(inf->op, inf->diag, "an extent of shape", dims[i]));
    }
    return pm_hook_result(inf, 0, elem, (int32_t)n, dims);
}

/* ---- shape, dims ----------------------------------------------------------------------------- */

pm_status pm_infer_shape(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    int64_t start = pm_op_i64(inf->op, "start"), end = pm_op_i64(inf->op, "end");
    start = start < -x->rank ? 0 : start < 0 ? start + x->rank : start;
    end = end < -x->rank ? 0 : end < 0 ? end + x->rank : end;
    end = end > x->rank ? x->rank : end;
    int64_t n = end > start ? end - start : 0;
    pm_dim extent = pm_dim_const(inf->module, n);
    PM_TRY(pm_hook_result(inf, 0, PM_I64, 1, &extent));
    pm_infer_content(inf, 0, n ? x->dims + start : NULL, (size_t)n);
    return PM_OK;
}

pm_status pm_verify_dims(const pm_op *op, pm_diag *diag)
{
    const pm_value *v = op->results[0];
    int64_t n;
    if (v->type == NULL || v->type->elem != PM_I64 || v->type->rank != 1 ||
        !pm_dim_is_const(pm_hook_module(op), v->type->dims[0], &n) || n < 1 || v->content == NULL)
        return pm_hook_error(op, diag, "the result must be i64[n] with n expressions");
    for (int64_t i = 0; i < n; i++)
        if (v->content[i] == PM_DIM_NONE || pm_dim_is_error(pm_hook_module(op), v->content[i]))
            return pm_hook_error(op, diag, "expression %" PRId64 " overflows or is missing", i);
    return PM_OK;
}

pm_status pm_infer_dims(pm_infer *inf)
{
    inf->types[0] = inf->op->results[0]->type;
    return PM_OK;
}

/* ---- reshape --------------------------------------------------------------------------------- */

pm_status pm_verify_reshape(const pm_op *op, pm_diag *diag)
{
    const pm_module *m = pm_hook_module(op);
    bool allowzero = pm_op_i64(op, "allowzero");
    int64_t n, value;
    size_t n_known;
    bool rest = false;
    PM_TRY(check_list(op, diag, 1, "shape", PM_MAX_RANK, &n));
    const pm_dim *shape = pm_hook_content(op->operands[1], &n_known);
    for (int64_t i = 0; shape && i < n; i++) {
        if (!pm_dim_is_const(m, shape[i], &value))
            continue;
        if (value < -1)
            return pm_hook_error(op, diag, "shape has the extent %" PRId64, value);
        if (value == -1 && rest)
            return pm_hook_error(op, diag, "shape has -1 more than once");
        rest |= value == -1;
        if (value == 0 && !allowzero && i >= rank_of(op, 0))
            return pm_hook_error(op, diag,
                                 "shape copies axis %" PRId64 " (by 0), but operand 0 is %s", i,
                                 pm_hook_type_text(op, 0));
    }
    return PM_OK;
}

pm_status pm_infer_reshape(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    size_t n;
    const pm_dim *shape = pm_hook_content(op->operands[1], &n);
    if (shape == NULL)
        return infer_listed(inf, 1, x->elem);
    pm_dim dims[PM_MAX_RANK], count = pm_type_count(m, x), known = pm_dim_const(m, 1);
    int32_t rest = -1;
    int64_t value, total;
    for (int32_t i = 0; i < (int32_t)n; i++) {
        dims[i] = shape[i];
        bool is_const = pm_dim_is_const(m, shape[i], &value);
        if (is_const && value == 0 && !pm_op_i64(op, "allowzero"))
            dims[i] = x->dims[i];
        if (is_const && value == -1)
            rest = i;
        else
            known = pm_dim_mul(m, known, dims[i]);
    }
    if (rest >= 0) {
        if (pm_dim_is_const(m, known, &value) &&
            (value == 0 || (pm_dim_is_const(m, count, &total) && total % value != 0)))
            return pm_infer_error(inf,
                                  "%s has no extent for -1 in the shape: %s elements, %s known",
                                  pm_type_text(m, x), pm_dim_text(m, count), pm_dim_text(m, known));
        dims[rest] = pm_dim_floordiv(m, count, known);
    } else if (pm_dim_differs(m, count, known) || pm_dim_is_error(m, known)) {
        return pm_infer_error(inf, "%s has %s elements, the shape has %s", pm_type_text(m, x),
                              pm_dim_text(m, count),
                              pm_dim_is_error(m, known) ? "too many" : pm_dim_text(m, known));
    }
    PM_TRY(pm_hook_result(inf, 0, x->elem, (int32_t)n, dims));
    size_t n_x;
    const pm_dim *content = pm_hook_content(op->operands[0], &n_x);
    if (content && n <= 1)
        pm_infer_content(inf, 0, content, n_x);
    return PM_OK;
}

/* ---- transpose, concat, split ---------------------------------------------------------------- */

pm_status pm_verify_transpose(const pm_op *op, pm_diag *diag)
{
    const pm_attr *perm = pm_op_attr(op, "perm");
    uint32_t seen = 0;
    if (perm->n != (size_t)rank_of(op, 0))
        return pm_hook_error(op, diag, "perm has %zu axes, operand 0 is %s", perm->n,
                             pm_hook_type_text(op, 0));
    for (size_t i = 0; i < perm->n; i++) {
        if (perm->ints[i] < 0 || perm->ints[i] >= (int64_t)perm->n)
            return pm_hook_error(op, diag, "perm names axis %" PRId64 ", must be in [0, %zu]",
                                 perm->ints[i], perm->n - 1);
        if (seen & 1u << perm->ints[i])
            return pm_hook_error(op, diag, "perm names axis %" PRId64 " twice", perm->ints[i]);
        seen |= 1u << perm->ints[i];
    }
    return PM_OK;
}

pm_status pm_infer_transpose(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    const pm_attr *perm = pm_op_attr(inf->op, "perm");
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < x->rank; i++)
        dims[i] = x->dims[perm->ints[i]];
    PM_TRY(pm_hook_result(inf, 0, x->elem, x->rank, dims));
    size_t n;
    const pm_dim *content = pm_hook_content(inf->op->operands[0], &n);
    if (content)
        pm_infer_content(inf, 0, content, n);
    return PM_OK;
}

pm_status pm_verify_concat(const pm_op *op, pm_diag *diag)
{
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis;
    PM_TRY(pm_hook_axis(op, diag, "axis", pm_op_i64(op, "axis"), x->rank, &axis));
    for (uint32_t i = 1; i < op->n_operands; i++) {
        if (!pm_hook_has(op, i))
            return pm_hook_error(op, diag, "operand %u is missing", i);
        const pm_type *other = pm_hook_type(op, i);
        if (other->elem != x->elem || other->rank != x->rank)
            return pm_hook_error(op, diag, "operand %u is %s, operand 0 is %s", i,
                                 pm_hook_type_text(op, i), pm_hook_type_text(op, 0));
        for (int32_t d = 0; d < x->rank; d++)
            if (d != axis && pm_dim_differs(pm_hook_module(op), other->dims[d], x->dims[d]))
                return pm_hook_error(op, diag,
                                     "operand %u is %s, must agree with operand 0, %s, but on axis "
                                     "%d",
                                     i, pm_hook_type_text(op, i), pm_hook_type_text(op, 0),
                                     (int)axis);
    }
    return PM_OK;
}

pm_status pm_infer_concat(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis = pm_hook_axis_of(op, "axis", x->rank);
    pm_dim dims[PM_MAX_RANK], content[PM_MAX_CONTENT];
    size_t n_content = 0, n;
    bool known = x->rank == 1;
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_type *other = pm_hook_type(op, i);
        for (int32_t d = 0; d < x->rank && i > 0; d++)
            dims[d] = d == axis ? pm_dim_add(m, dims[d], other->dims[d])
                                : unify(m, dims[d], other->dims[d]);
        const pm_dim *part = pm_hook_content(op->operands[i], &n);
        known = known && part && n_content + n <= PM_MAX_CONTENT;
        if (known && n) {
            memcpy(content + n_content, part, n * sizeof *content);
            n_content += n;
        }
    }
    PM_TRY(pm_hook_result(inf, 0, x->elem, x->rank, dims));
    if (known)
        pm_infer_content(inf, 0, content, n_content);
    return PM_OK;
}

pm_status pm_verify_split(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis;
    int64_t n;
    size_t n_known;
    PM_TRY(pm_hook_axis(op, diag, "axis", pm_op_i64(op, "axis"), x->rank, &axis));
    if (op->n_results == 0)
        return pm_hook_error(op, diag, "there must be a result");
    if (!pm_hook_has(op, 1))
        return PM_OK;
    PM_TRY(check_list(op, diag, 1, "sizes", INT64_MAX, &n));
    if (n != (int64_t)op->n_results)
        return pm_hook_error(op, diag, "sizes has %" PRId64 " elements, there are %u results", n,
                             op->n_results);
    const pm_dim *sizes = pm_hook_content(op->operands[1], &n_known);
    if (sizes == NULL)
        return PM_OK;
    pm_dim sum = pm_dim_const(m, 0);
    for (int64_t i = 0; i < n; i++) {
        PM_TRY(check_not_negative(op, diag, "a size", sizes[i]));
        sum = pm_dim_add(m, sum, sizes[i]);
    }
    if (pm_dim_is_error(m, sum))
        return pm_hook_error(op, diag, "the sum of the sizes overflows");
    return pm_hook_extent(op, diag, "the sum of the sizes", sum, x->dims[axis]);
}

pm_status pm_infer_split(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    int32_t axis = pm_hook_axis_of(op, "axis", x->rank);
    pm_dim dims[PM_MAX_RANK], extent = x->dims[axis], zero = pm_dim_const(m, 0);
    size_t n_sizes, n_x;
    const pm_dim *sizes = pm_hook_has(op, 1) ? pm_hook_content(op->operands[1], &n_sizes) : NULL;
    const pm_dim *content = pm_hook_content(op->operands[0], &n_x);
    pm_dim chunk = pm_dim_ceildiv(m, extent, pm_dim_const(m, op->n_results));
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    int64_t begin = 0, size;
    for (uint32_t i = 0; i < op->n_results; i++) {
        pm_dim before = pm_dim_mul(m, chunk, pm_dim_const(m, i));
        pm_dim left = pm_dim_max(m, zero, pm_dim_sub(m, extent, before));
        if (sizes)
            dims[axis] = sizes[i];
        else if (pm_hook_has(op, 1))
            dims[axis] = pm_infer_fresh(inf, i, axis, extent);
        else
            dims[axis] = pm_dim_min(m, chunk, left);
        PM_TRY(pm_hook_result(inf, i, x->elem, x->rank, dims));
        if (content && x->rank == 1 && begin >= 0 && pm_dim_is_const(m, dims[axis], &size) &&
            size >= 0 && size <= (int64_t)n_x - begin) {
            pm_infer_content(inf, i, content + begin, (size_t)size);
            begin += size;
        } else {
            begin = -1;
        }
    }
    return PM_OK;
}

/* ---- slice ----------------------------------------------------------------------------------- */

/// The bounds of a slice as far as they are known, per entry of `axes`.
typedef struct slice {
    int64_t n;
    int64_t axes[PM_MAX_RANK], steps[PM_MAX_RANK];
    bool steps_known;
    const pm_dim *starts, *ends; ///< NULL: unknown
} slice;

static pm_status slice_of(const pm_op *op, pm_diag *diag, slice *out)
{
    int64_t n, rank = rank_of(op, 0);
    size_t n_known;
    PM_TRY(check_list(op, diag, 1, "starts", rank, &out->n));
    PM_TRY(check_list(op, diag, 2, "ends", rank, &n));
    if (n != out->n)
        return pm_hook_error(op, diag, "starts has %" PRId64 " elements, ends has %" PRId64, out->n,
                             n);
    for (int64_t i = 0; i < out->n; i++) {
        out->axes[i] = i;
        out->steps[i] = 1;
    }
    if (pm_hook_has(op, 3)) {
        PM_TRY(check_list(op, diag, 3, "axes", rank, &n));
        if (n != out->n)
            return pm_hook_error(op, diag, "starts has %" PRId64 " elements, axes has %" PRId64,
                                 out->n, n);
        if (!const_content(op->operands[3], out->axes, PM_MAX_RANK, &n_known))
            return pm_error(diag, op->loc, PM_ERR_UNSUPPORTED,
                            "slice: axes must be constant (they decide which extents change)");
    }
    uint32_t seen = 0;
    for (int64_t i = 0; i < out->n; i++) {
        int32_t axis;
        PM_TRY(pm_hook_axis(op, diag, "an axis of axes", out->axes[i], (int32_t)rank, &axis));
        if (seen & 1u << axis)
            return pm_hook_error(op, diag, "axes names axis %d twice", (int)axis);
        seen |= 1u << axis;
        out->axes[i] = axis;
    }
    out->steps_known = true;
    if (pm_hook_has(op, 4)) {
        PM_TRY(check_list(op, diag, 4, "steps", rank, &n));
        if (n != out->n)
            return pm_hook_error(op, diag, "starts has %" PRId64 " elements, steps has %" PRId64,
                                 out->n, n);
        out->steps_known = const_content(op->operands[4], out->steps, PM_MAX_RANK, &n_known);
        for (int64_t i = 0; i < n && out->steps_known; i++)
            if (out->steps[i] == 0)
                return pm_hook_error(op, diag, "step %" PRId64 " is 0", i);
    }
    out->starts = pm_hook_content(op->operands[1], &n_known);
    out->ends = pm_hook_content(op->operands[2], &n_known);
    return PM_OK;
}

pm_status pm_verify_slice(const pm_op *op, pm_diag *diag)
{
    slice unused;
    return slice_of(op, diag, &unused);
}

static const int64_t FAR = INT64_C(1) << 62; ///< no extent is larger: "to the end"

/// A bound as a position from the start of the axis, at least lo and, for bounds far beyond, hi;
/// PM_DIM_NONE when its sign is unknown.
static pm_dim resolve(pm_module *m, pm_dim bound, pm_dim extent, pm_dim lo, pm_dim hi)
{
    int64_t value, least, most;
    if (pm_dim_is_const(m, bound, &value) && (value >= FAR || value <= -FAR))
        return value > 0 ? hi : lo;
    pm_dim_range(m, bound, &least, &most);
    if (least < 0 && most >= 0)
        return PM_DIM_NONE;
    return pm_dim_max(m, lo, least >= 0 ? bound : pm_dim_add(m, bound, extent));
}

/// Elements that start:end:step takes of an axis; PM_DIM_NONE when unknown.
static pm_dim slice_extent(pm_module *m, pm_dim extent, pm_dim start, pm_dim end, int64_t step)
{
    pm_dim zero = pm_dim_const(m, 0), one = pm_dim_const(m, 1);
    int64_t first, last;
    step = step < -FAR ? -FAR : step; // beyond any extent all steps are alike
    if (step > 0 && pm_dim_is_const(m, start, &first) && first < 0 && first > -FAR &&
        pm_dim_is_const(m, end, &last) && last >= FAR)
        // the last few: simpler than the general form
        return pm_dim_ceildiv(m, pm_dim_min(m, pm_dim_const(m, -first), extent),
                              pm_dim_const(m, step));
    if (step < 0 && pm_dim_is_const(m, start, &first) && (first == -1 || first >= FAR) &&
        pm_dim_is_const(m, end, &last) && last <= -FAR)
        return pm_dim_ceildiv(m, extent, pm_dim_const(m, -step)); // all, in reverse
    pm_dim span;
    if (step > 0) {
        // a start beyond the end needs no limit: nothing is left then
        pm_dim from = resolve(m, start, extent, zero, extent);
        pm_dim to = pm_dim_min(m, resolve(m, end, extent, zero, extent), extent);
        span = pm_dim_sub(m, to, from);
    } else {
        pm_dim top = pm_dim_sub(m, extent, one), below = pm_dim_const(m, -1);
        pm_dim from = pm_dim_max(m, zero, pm_dim_min(m, resolve(m, start, extent, zero, top), top));
        pm_dim to = resolve(m, end, extent, below, top);
        span = pm_dim_sub(m, from, to);
        step = -step;
        // of an empty axis `from` would be 0
        span = pm_dim_min(m, span, extent);
    }
    if (span == PM_DIM_NONE)
        return PM_DIM_NONE;
    return pm_dim_ceildiv(m, pm_dim_max(m, zero, span), pm_dim_const(m, step));
}

static void infer_slice_content(pm_infer *inf, const slice *s)
{
    pm_dim content[PM_MAX_CONTENT];
    size_t n_x;
    int64_t n, start;
    const pm_dim *x = pm_hook_content(inf->op->operands[0], &n_x);
    if (x == NULL || s->n != 1 || !s->steps_known || s->starts == NULL ||
        !pm_dim_is_const(inf->module, s->starts[0], &start) ||
        !pm_dim_is_const(inf->module, inf->types[0]->dims[0], &n) || n > PM_MAX_CONTENT)
        return;
    int64_t size = (int64_t)n_x, step = s->steps[0];
    start = start < -size ? 0 : start < 0 ? start + size : start;
    if (start > size - (step < 0))
        start = size - (step < 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = start + i * step;
        if (at < 0 || at >= size)
            return;
        content[i] = x[at];
    }
    pm_infer_content(inf, 0, content, (size_t)n);
}

pm_status pm_infer_slice(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_type *x = pm_hook_type(inf->op, 0);
    slice s;
    pm_dim dims[PM_MAX_RANK];
    PM_TRY(slice_of(inf->op, inf->diag, &s));
    if (x->rank)
        memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    for (int64_t i = 0; i < s.n; i++) {
        int32_t axis = (int32_t)s.axes[i];
        pm_dim extent = x->dims[axis], found = PM_DIM_NONE;
        if (s.steps_known && s.starts && s.ends)
            found = slice_extent(m, extent, s.starts[i], s.ends[i], s.steps[i]);
        dims[axis] = found != PM_DIM_NONE ? found : pm_infer_fresh(inf, 0, axis, extent);
    }
    PM_TRY(pm_hook_result(inf, 0, x->elem, x->rank, dims));
    infer_slice_content(inf, &s);
    return PM_OK;
}

/* ---- expand, tile, pad ----------------------------------------------------------------------- */

/// Content of a result that repeats the only element of `from`.
static void infer_repeated_content(pm_infer *inf, const pm_value *from)
{
    pm_dim content[PM_MAX_CONTENT], one = pm_hook_scalar(from);
    int64_t n;
    const pm_type *type = inf->types[0];
    if (one == PM_DIM_NONE || type->rank > 1 || !pm_type_const_count(inf->module, type, &n) ||
        n > PM_MAX_CONTENT)
        return;
    for (int64_t i = 0; i < n; i++)
        content[i] = one;
    pm_infer_content(inf, 0, content, (size_t)n);
}

pm_status pm_infer_expand(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = x->rank;
    int64_t n;
    size_t n_known;
    PM_TRY(check_list(op, inf->diag, 1, "shape", PM_MAX_RANK, &n));
    const pm_dim *shape = pm_hook_content(op->operands[1], &n_known);
    if (shape) {
        for (int64_t i = 0; i < n; i++)
            PM_TRY(check_not_negative(op, inf->diag, "an extent of shape", shape[i]));
        if (rank)
            memcpy(dims, x->dims, (size_t)rank * sizeof *dims);
        PM_TRY(pm_hook_broadcast_dims(inf, dims, &rank, shape, (int32_t)n));
    } else {
        rank = n > rank ? (int32_t)n : rank;
        for (int32_t i = 0; i < rank; i++) // axes before the shape's own stay as they are
            dims[i] = i < rank - n ? x->dims[i] : pm_infer_fresh(inf, 0, i, PM_DIM_NONE);
    }
    PM_TRY(pm_hook_result(inf, 0, x->elem, rank, dims));
    infer_repeated_content(inf, op->operands[0]);
    return PM_OK;
}

pm_status pm_infer_tile(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    pm_dim dims[PM_MAX_RANK];
    int64_t n;
    size_t n_known;
    PM_TRY(check_list(op, inf->diag, 1, "repeats", PM_MAX_RANK, &n));
    if (n != x->rank)
        return pm_infer_error(inf, "repeats has %" PRId64 " elements, operand 0 is %s", n,
                              pm_hook_type_text(op, 0));
    const pm_dim *repeats = pm_hook_content(op->operands[1], &n_known);
    for (int32_t i = 0; i < x->rank; i++) {
        if (repeats)
            PM_TRY(check_not_negative(op, inf->diag, "a number of repeats", repeats[i]));
        dims[i] = repeats ? pm_dim_mul(inf->module, x->dims[i], repeats[i])
                          : pm_infer_fresh(inf, 0, i, PM_DIM_NONE);
    }
    PM_TRY(pm_hook_result(inf, 0, x->elem, x->rank, dims));
    infer_repeated_content(inf, op->operands[0]);
    return PM_OK;
}

/// An extent with its padding; negative padding takes away.
static pm_status pad_extent(pm_infer *inf, pm_dim extent, pm_dim before, pm_dim after,
                            pm_dim *out_extent)
{
    pm_module *m = inf->module;
    pm_dim zero = pm_dim_const(m, 0);
    pm_dim core = pm_dim_add(m, extent, pm_dim_min(m, before, zero));
    core = pm_dim_add(m, core, pm_dim_min(m, after, zero));
    int64_t lo, hi;
    pm_dim_range(m, core, &lo, &hi);
    if (hi < 0)
        return pm_infer_error(inf, "pads %s and %s take away more than the %s elements there are",
                              pm_dim_text(m, before), pm_dim_text(m, after),
                              pm_dim_text(m, extent));
    *out_extent = pm_dim_add(m, pm_dim_add(m, extent, before), after);
    pm_dim_range(m, *out_extent, &lo, &hi);
    if (core == zero && lo > 0 && strcmp(pm_op_str(inf->op, "mode"), "constant") != 0)
        return pm_infer_error(inf, "mode %s has nothing to repeat", pm_op_str(inf->op, "mode"));
    return PM_OK;
}

pm_status pm_infer_pad(pm_infer *inf)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0);
    int64_t axes[PM_MAX_RANK], n_pads, n_axes = x->rank;
    size_t n_known;
    PM_TRY(pm_hook_one_of(op, inf->diag, "mode", modes, PM_COUNT(modes)));
    PM_TRY(check_list(op, inf->diag, 1, "pads", 2 * PM_MAX_RANK, &n_pads));
    for (int64_t i = 0; i < n_axes; i++)
        axes[i] = i;
    if (pm_hook_has(op, 2) && pm_hook_type(op, 2)->elem != x->elem)
        return pm_infer_error(inf, "value must be of %s, found %s", pm_elem_name(x->elem),
                              pm_hook_type_text(op, 2));
    if (pm_hook_has(op, 3)) {
        PM_TRY(check_list(op, inf->diag, 3, "axes", x->rank, &n_axes));
        if (!const_content(op->operands[3], axes, PM_MAX_RANK, &n_known))
            return pm_error(inf->diag, op->loc, PM_ERR_UNSUPPORTED, "pad: axes must be constant");
    }
    if (n_pads != 2 * n_axes)
        return pm_infer_error(
            inf, "pads has %" PRId64 " elements, must have two for each of %" PRId64 " axes",
            n_pads, n_axes);
    const pm_dim *pads = pm_hook_content(op->operands[1], &n_known);
    pm_dim dims[PM_MAX_RANK];
    if (x->rank)
        memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    uint32_t seen = 0;
    for (int64_t i = 0; i < n_axes; i++) {
        int32_t axis;
        PM_TRY(pm_hook_axis(op, inf->diag, "an axis of axes", axes[i], x->rank, &axis));
        if (seen & 1u << axis)
            return pm_infer_error(inf, "axes names axis %d twice", (int)axis);
        seen |= 1u << axis;
        if (pads)
            PM_TRY(pad_extent(inf, x->dims[axis], pads[i], pads[n_axes + i], &dims[axis]));
        else
            dims[axis] = pm_infer_fresh(inf, 0, axis, PM_DIM_NONE);
    }
    return pm_hook_result(inf, 0, x->elem, x->rank, dims);
}

/* ---- gather, scatter ------------------------------------------------------------------------- */

pm_status pm_verify_gather(const pm_op *op, pm_diag *diag)
{
    int32_t axis;
    PM_TRY(pm_hook_int(op, diag, 1));
    PM_TRY(pm_hook_axis(op, diag, "axis", pm_op_i64(op, "axis"), rank_of(op, 0), &axis));
    if (op->code != PM_OP_gather && rank_of(op, 1) != rank_of(op, 0))
        return pm_hook_error(op, diag, "indices are %s, must have the rank of operand 0, %s",
                             pm_hook_type_text(op, 1), pm_hook_type_text(op, 0));
    return PM_OK;
}

pm_status pm_infer_gather(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0), *indices = pm_hook_type(op, 1);
    int32_t axis = pm_hook_axis_of(op, "axis", x->rank), rank = 0;
    pm_dim dims[2 * PM_MAX_RANK];
    for (int32_t i = 0; i < axis; i++)
        dims[rank++] = x->dims[i];
    for (int32_t i = 0; i < indices->rank; i++)
        dims[rank++] = indices->dims[i];
    for (int32_t i = axis + 1; i < x->rank; i++)
        dims[rank++] = x->dims[i];
    PM_TRY(pm_hook_result(inf, 0, x->elem, rank, dims));
    pm_dim content[PM_MAX_CONTENT];
    int64_t at[PM_MAX_CONTENT];
    size_t n_x, n;
    const pm_dim *from = pm_hook_content(op->operands[0], &n_x);
    if (from == NULL || x->rank != 1 || !const_content(op->operands[1], at, PM_MAX_CONTENT, &n))
        return PM_OK;
    for (size_t i = 0; i < n; i++) {
        if (at[i] < 0)
            at[i] += (int64_t)n_x;
        if (at[i] < 0 || at[i] >= (int64_t)n_x)
            return pm_infer_error(inf, "an index is out of range: there are %zu elements", n_x);
        content[i] = from[at[i]];
    }
    pm_infer_content(inf, 0, content, n);
    return PM_OK;
}

pm_status pm_infer_gather_elements(pm_infer *inf)
{
    const pm_type *indices = pm_hook_type(inf->op, 1);
    return pm_hook_result(inf, 0, pm_hook_type(inf->op, 0)->elem, indices->rank, indices->dims);
}

/// The length n of the index tuples in operand 1 of gather_nd and scatter_nd.
static pm_status tuple_length(const pm_op *op, pm_diag *diag, int64_t batch, int64_t *out_n)
{
    const pm_type *x = pm_hook_type(op, 0), *indices = pm_hook_type(op, 1);
    PM_TRY(pm_hook_int(op, diag, 1));
    if (indices->rank == 0)
        return pm_hook_error(op, diag, "indices must have an axis of index tuples, found %s",
                             pm_hook_type_text(op, 1));
    if (!pm_dim_is_const(pm_hook_module(op), indices->dims[indices->rank - 1], out_n))
        return pm_error(diag, op->loc, PM_ERR_UNSUPPORTED,
                        "%s: the last extent of indices must be constant, found %s",
                        pm_op_info_of(op)->name, pm_hook_type_text(op, 1));
    if (batch < 0 || batch >= indices->rank || batch + *out_n > x->rank || *out_n < 0)
        return pm_hook_error(op, diag,
                             "indices %s with %" PRId64 " batch axes don't index operand 0, %s",
                             pm_hook_type_text(op, 1), batch, pm_hook_type_text(op, 0));
    return PM_OK;
}

pm_status pm_infer_gather_nd(pm_infer *inf)
{
    const pm_op *op = inf->op;
    const pm_type *x = pm_hook_type(op, 0), *indices = pm_hook_type(op, 1);
    int64_t n, batch = pm_op_i64(op, "batch_dims");
    PM_TRY(tuple_length(op, inf->diag, batch, &n));
    pm_dim dims[2 * PM_MAX_RANK];
    int32_t rank = 0;
    for (int32_t i = 0; i < indices->rank - 1; i++)
        dims[rank++] = indices->dims[i];
    for (int32_t i = (int32_t)(batch + n); i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return pm_hook_result(inf, 0, x->elem, rank, dims);
}

static pm_status check_updates(const pm_op *op, pm_diag *diag)
{
    static const char *const reductions[] = {"none", "add", "mul", "max", "min"};
    if (pm_hook_type(op, 2)->elem != pm_hook_type(op, 0)->elem)
        return pm_hook_error(op, diag, "updates are %s, must be of operand 0's type, %s",
                             pm_hook_type_text(op, 2), pm_hook_type_text(op, 0));
    return pm_hook_one_of(op, diag, "reduction", reductions, PM_COUNT(reductions));
}

pm_status pm_verify_scatter_elements(const pm_op *op, pm_diag *diag)
{
    PM_TRY(pm_verify_gather(op, diag));
    PM_TRY(check_updates(op, diag));
    PM_TRY(pm_hook_rank(op, diag, 2, rank_of(op, 1)));
    for (int32_t i = 0; i < rank_of(op, 1); i++)
        PM_TRY(pm_hook_extent(op, diag, "an extent of updates", pm_hook_type(op, 2)->dims[i],
                              pm_hook_type(op, 1)->dims[i]));
    return PM_OK;
}

pm_status pm_verify_scatter_nd(const pm_op *op, pm_diag *diag)
{
    const pm_type *x = pm_hook_type(op, 0), *indices = pm_hook_type(op, 1);
    int64_t n;
    PM_TRY(tuple_length(op, diag, 0, &n));
    PM_TRY(check_updates(op, diag));
    int32_t rank = indices->rank - 1 + x->rank - (int32_t)n;
    PM_TRY(pm_hook_rank(op, diag, 2, rank));
    for (int32_t i = 0; i < rank; i++) {
        pm_dim expected =
            i < indices->rank - 1 ? indices->dims[i] : x->dims[n + i - (indices->rank - 1)];
        PM_TRY(pm_hook_extent(op, diag, "an extent of updates", pm_hook_type(op, 2)->dims[i],
                              expected));
    }
    return PM_OK;
}

/* ---- range, fill, empty, onehot, nonzero, trilu ---------------------------------------------- */

/// Number of elements of a range whose bounds are floating constants; false when unknown.
static bool float_range_count(const pm_op *op, int64_t *out_n)
{
    double start, limit, delta;
    if (!pm_hook_number(op->operands[0], &start) || !pm_hook_number(op->operands[1], &limit) ||
        !pm_hook_number(op->operands[2], &delta) || delta == 0)
        return false;
    double n = __builtin_ceil((limit - start) / delta);
    if (!(n < 0x1p53))
        return false;
    *out_n = n > 0 ? (int64_t)n : 0;
    return true;
}

pm_status pm_infer_range(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    pm_elem elem = pm_hook_type(op, 0)->elem;
    pm_dim bounds[3], extent = PM_DIM_NONE, content[PM_MAX_CONTENT];
    int64_t delta = 0, n = 0;
    for (uint32_t i = 0; i < 3; i++) {
        int64_t count;
        const pm_type *type = pm_hook_type(op, i);
        if (type->elem != elem || elem == PM_BOOL || !pm_type_const_count(m, type, &count) ||
            count != 1)
            return pm_infer_error(inf,
                                  "operand %u must be one number of operand 0's type, found %s", i,
                                  pm_hook_type_text(op, i));
        bounds[i] = pm_hook_scalar(op->operands[i]);
    }
    if (pm_dim_is_const(m, bounds[2], &delta) && delta == 0)
        return pm_infer_error(inf, "delta is 0");
    pm_dim span = pm_dim_sub(m, bounds[1], bounds[0]);
    if (delta < 0 && delta != INT64_MIN)
        span = pm_dim_sub(m, bounds[0], bounds[1]);
    if (pm_elem_is_float(elem) && float_range_count(op, &n))
        extent = pm_dim_const(m, n);
    else if (delta != 0 && delta != INT64_MIN && span != PM_DIM_NONE)
        extent = pm_dim_ceildiv(m, pm_dim_max(m, pm_dim_const(m, 0), span),
                                pm_dim_const(m, delta < 0 ? -delta : delta));
    if (extent == PM_DIM_NONE)
        extent = pm_infer_fresh(inf, 0, 0, PM_DIM_NONE);
    PM_TRY(pm_hook_result(inf, 0, elem, 1, &extent));
    if (pm_elem_is_float(elem) || bounds[0] == PM_DIM_NONE || bounds[2] == PM_DIM_NONE ||
        !pm_dim_is_const(m, extent, &n) || n > PM_MAX_CONTENT)
        return PM_OK;
    for (int64_t i = 0; i < n; i++)
        content[i] = pm_dim_add(m, bounds[0], pm_dim_mul(m, bounds[2], pm_dim_const(m, i)));
    pm_infer_content(inf, 0, content, (size_t)n);
    return PM_OK;
}

pm_status pm_infer_fill(pm_infer *inf)
{
    const pm_op *op = inf->op;
    int64_t count;
    if (!pm_type_const_count(inf->module, pm_hook_type(op, 1), &count) || count != 1)
        return pm_infer_error(inf, "value must be one element, found %s", pm_hook_type_text(op, 1));
    PM_TRY(infer_listed(inf, 0, pm_hook_type(op, 1)->elem));
    infer_repeated_content(inf, op->operands[1]);
    return PM_OK;
}

pm_status pm_infer_empty(pm_infer *inf)
{
    const pm_op *op = inf->op;
    if (op->operands[0]->content == NULL)
        return pm_error(inf->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "empty: the shape must be known when compiling");
    return infer_listed(inf, 0, (pm_elem)pm_op_i64(op, "elem"));
}

pm_status pm_infer_onehot(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    const pm_type *indices = pm_hook_type(op, 0);
    int64_t count, two;
    int32_t axis;
    if (indices->elem == PM_BOOL)
        return pm_infer_error(inf, "indices must be of numbers, found %s",
                              pm_hook_type_text(op, 0));
    if (!pm_type_const_count(m, pm_hook_type(op, 1), &count) || count != 1)
        return pm_infer_error(inf, "depth must be one number, found %s", pm_hook_type_text(op, 1));
    if (!pm_type_const_count(m, pm_hook_type(op, 2), &two) || two != 2)
        return pm_infer_error(inf, "values must be two elements, found %s",
                              pm_hook_type_text(op, 2));
    PM_TRY(pm_hook_axis(op, inf->diag, "axis", pm_op_i64(op, "axis"), indices->rank + 1, &axis));
    pm_dim depth = pm_hook_scalar(op->operands[1]);
    double number;
    if (depth == PM_DIM_NONE && pm_hook_number(op->operands[1], &number) && number >= 0 &&
        number < 0x1p53)
        depth = pm_dim_const(m, (int64_t)number);
    if (depth == PM_DIM_NONE)
        depth = pm_infer_fresh(inf, 0, axis, PM_DIM_NONE);
    pm_dim dims[PM_MAX_RANK + 1];
    for (int32_t i = 0; i <= indices->rank; i++)
        dims[i] = i < axis ? indices->dims[i] : i == axis ? depth : indices->dims[i - 1];
    return pm_hook_result(inf, 0, pm_hook_type(op, 2)->elem, indices->rank + 1, dims);
}

pm_status pm_infer_nonzero(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    pm_dim dims[2] = {pm_dim_const(inf->module, x->rank),
                      pm_infer_fresh(inf, 0, 1, pm_type_count(inf->module, x))};
    return pm_hook_result(inf, 0, PM_I64, 2, dims);
}

pm_status pm_verify_trilu(const pm_op *op, pm_diag *diag)
{
    int64_t count;
    if (rank_of(op, 0) < 2)
        return pm_hook_error(op, diag, "operand 0 must be matrices, found %s",
                             pm_hook_type_text(op, 0));
    if (!pm_hook_has(op, 1))
        return PM_OK;
    PM_TRY(pm_hook_int(op, diag, 1));
    if (!pm_type_const_count(pm_hook_module(op), pm_hook_type(op, 1), &count) || count != 1)
        return pm_hook_error(op, diag, "k must be one integer, found %s", pm_hook_type_text(op, 1));
    return PM_OK;
}
