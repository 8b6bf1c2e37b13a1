/// Launches of what only moves elements: slice, split, concat, last_rows, gather.
#include <string.h>

#include "codegen/mlir/launch_plan.h"
#include "codegen/mlir/lowerings.h"

enum { BLOCK = 256, COPY_RANK = 5, MOST_PIECE = 16 }; ///< as codegen/cuda/kernels/cu_move.c has them

static const pm_value *operand(const launch *l, uint32_t i)
{
    return i < l->op->n_operands ? l->op->operands[i] : NULL;
}

static bool known(const launch *l, const pm_value *v, int32_t i, int64_t *out)
{
    return pm_dim_is_const(l->n->e->module, v->type->dims[i < 0 ? v->type->rank + i : i], out);
}

/// A copy while it is planned; numbers count elements. A stride of 1 along the last extent is what `run` is about.
typedef struct copy {
    const pm_value *x, *y;
    MlirValue extents[COPY_RANK], x_strides[COPY_RANK], y_strides[COPY_RANK], x_first, y_first;
    int64_t run; ///< everything but the last extent's strides is a multiple of this many elements; 1: not known
} copy;

static copy new_copy(launch *l, const pm_value *x, const pm_value *y)
{
    mb *b = l->b;
    copy c = {.x = x, .y = y, .x_first = mb_i64(b, 0), .y_first = mb_i64(b, 0), .run = 1};
    for (int32_t i = 0; i < COPY_RANK; i++) {
        c.extents[i] = mb_i64(b, 1);
        c.x_strides[i] = c.y_strides[i] = mb_i64(b, 0);
    }
    c.x_strides[COPY_RANK - 1] = c.y_strides[COPY_RANK - 1] = mb_i64(b, 1);
    return c;
}

/// Elements that threads move at once: as many as lie in a row wherever one begins.
static int64_t together(int64_t run, int64_t size)
{
    int64_t n = 1;
    while (run % (2 * n) == 0 && 2 * n * size <= MOST_PIECE)
        n *= 2;
    return n;
}

static MlirValue divided(mb *b, MlirValue x, int64_t by)
{
    return by == 1 ? x : mb_bin(b, "divsi", x, mb_i64(b, by));
}

/// The launch, but for its end.
static void use_copy(launch *l, const copy *c)
{
    mb *b = l->b;
    int64_t size = (int64_t)pm_elem_size(c->x->type->elem), n = together(c->run, size);
    MlirValue count = mb_i64(b, 1);
    pm_launch_use(l, "copy");
    pm_launch_value(l, c->x);
    pm_launch_value(l, c->y);
    pm_launch_fix(l, "BYTES", size * n);
    pm_launch_i64(l, divided(b, c->x_first, n));
    pm_launch_i64(l, divided(b, c->y_first, n));
    for (int32_t i = 0; i < COPY_RANK; i++) {
        MlirValue extent = i == COPY_RANK - 1 ? divided(b, c->extents[i], n) : c->extents[i];
        pm_launch_i64(l, extent);
        count = mb_mul(b, count, extent);
    }
    for (int32_t i = 0; i < COPY_RANK; i++)
        pm_launch_i64(l, i == COPY_RANK - 1 ? c->x_strides[i] : divided(b, c->x_strides[i], n));
    for (int32_t i = 0; i < COPY_RANK; i++)
        pm_launch_i64(l, i == COPY_RANK - 1 ? c->y_strides[i] : divided(b, c->y_strides[i], n));
    pm_launch_blocks(l, pm_launch_ceil_div(l, count, BLOCK));
}

/// ---- along one axis ---------------------------------------------------------------------------------------

/// Elements behind an axis, as a number where it's known: else 1, as a run of which nothing is known.
static int64_t known_behind(const launch *l, const pm_value *v, int32_t axis)
{
    int64_t n = 1, extent;
    for (int32_t i = axis + 1; i < v->type->rank; i++) {
        if (!known(l, v, i, &extent))
            return 1;
        n *= extent;
    }
    return n;
}

static int64_t common(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/// Rows of [before the axis, the axis and what is behind it]: `part` is a piece along the axis of `whole`, at element
/// `first` of each row.
static copy piece(launch *l, const pm_value *part, const pm_value *whole, int32_t axis, bool takes, MlirValue first)
{
    copy c = takes ? new_copy(l, whole, part) : new_copy(l, part, whole);
    MlirValue row = pm_launch_count_of(l, part, axis, part->type->rank);
    MlirValue whole_row = pm_launch_count_of(l, whole, axis, whole->type->rank);
    c.extents[COPY_RANK - 2] = pm_launch_count_of(l, part, 0, axis);
    c.extents[COPY_RANK - 1] = row;
    c.x_strides[COPY_RANK - 2] = takes ? whole_row : row;
    c.y_strides[COPY_RANK - 2] = takes ? row : whole_row;
    *(takes ? &c.x_first : &c.y_first) = first;
    return c;
}

static pm_status plan_pieces(launch *l, const pm_value *whole, pm_value *const *parts, uint32_t n, bool takes)
{
    int64_t axis = pm_op_i64(l->op, "axis");
    axis += axis < 0 ? whole->type->rank : 0;
    MlirValue first = mb_i64(l->b, 0);
    int64_t run = 0, extent;
    for (uint32_t i = 0; i < n; i++)
        run = common(run, known(l, parts[i], (int32_t)axis, &extent) ? extent : 1);
    run = run > 0 ? run * known_behind(l, whole, (int32_t)axis) : 1;
    for (uint32_t i = 0; i < n; i++) {
        copy c = piece(l, parts[i], whole, (int32_t)axis, takes, first);
        c.run = run;
        if (i > 0)
            pm_launch_finish(l);
        use_copy(l, &c);
        first = mb_add(l->b, first, c.extents[COPY_RANK - 1]);
    }
    return PM_OK;
}

pm_status pm_plan_split(launch *l)
{
    return plan_pieces(l, operand(l, 0), l->op->results, l->op->n_results, true);
}

pm_status pm_plan_concat(launch *l)
{
    for (uint32_t i = 0; i < l->op->n_operands; i++)
        if (l->op->operands[i]->type->rank != l->op->results[0]->type->rank)
            return PM_ERR_UNSUPPORTED;
    return plan_pieces(l, l->op->results[0], l->op->operands, l->op->n_operands, false);
}

pm_status pm_plan_last_rows(launch *l)
{
    mb *b = l->b;
    const pm_value *x = operand(l, 0), *y = l->op->results[0];
    int64_t least, most;
    pm_dim_range(l->n->e->module, x->type->dims[1], &least, &most);
    if (least < 1)
        return PM_ERR_UNSUPPORTED; // without tokens the data is at fault
    MlirValue width = pm_launch_dim_of(l, y, 2);
    MlirValue last = mb_mul(b, mb_sub(b, pm_launch_dim_of(l, x, 1), mb_i64(b, 1)), width);
    copy c = piece(l, y, x, 1, true, last);
    c.run = known_behind(l, x, 1);
    use_copy(l, &c);
    return PM_OK;
}

/// ---- slices -----------------------------------------------------------------------------------------------

/// What a slice takes along an axis.
typedef struct taken {
    bool is_sliced;
    int64_t start, step;
} taken;

static bool ints_of(const launch *l, uint32_t i, int64_t *out, size_t *out_n)
{
    pm_value *v = i < l->op->n_operands ? l->op->operands[i] : NULL;
    return v && pm_value_const_ints(v, out, PM_MAX_RANK, out_n);
}

/// False: not known, or steps back.
static bool read_slice(const launch *l, taken *axes)
{
    int64_t starts[PM_MAX_RANK], numbers[PM_MAX_RANK], steps[PM_MAX_RANK];
    int32_t rank = operand(l, 0)->type->rank;
    size_t n, n_numbers, n_steps;
    if (!ints_of(l, 1, starts, &n))
        return false;
    for (size_t i = 0; i < PM_MAX_RANK; i++) {
        numbers[i] = (int64_t)i;
        steps[i] = 1;
    }
    if ((operand(l, 3) && (!ints_of(l, 3, numbers, &n_numbers) || n_numbers != n)) ||
        (operand(l, 4) && (!ints_of(l, 4, steps, &n_steps) || n_steps != n)))
        return false;
    for (size_t i = 0; i < n; i++) {
        int64_t axis = numbers[i] + (numbers[i] < 0 ? rank : 0);
        if (axis < 0 || axis >= rank || steps[i] <= 0)
            return false;
        axes[axis] = (taken){true, starts[i], steps[i]};
    }
    return true;
}

/// The first element along an axis: from the end when negative, within it always.
static MlirValue start_of(launch *l, const pm_value *x, int32_t axis, int64_t start)
{
    mb *b = l->b;
    MlirValue extent = pm_launch_dim_of(l, x, axis), none = mb_i64(b, 0);
    if (start < 0)
        return mb_bin(b, "maxsi", none, mb_add(b, extent, mb_i64(b, start)));
    return mb_bin(b, "minsi", extent, mb_i64(b, start));
}

/// Elements of the last axis that lie together wherever a row begins.
static int64_t run_of_slice(const launch *l, const pm_value *x, const pm_value *y, const taken *t)
{
    int64_t all, some;
    if (t->step != 1 || !known(l, x, -1, &all) || !known(l, y, -1, &some))
        return 1;
    int64_t start = t->start < 0 ? all + t->start : t->start;
    return common(common(all, some), start < 0 ? 0 : start);
}

pm_status pm_plan_slice(launch *l)
{
    mb *b = l->b;
    const pm_value *x = operand(l, 0), *y = l->op->results[0];
    taken axes[PM_MAX_RANK] = {{0}};
    int32_t rank = x->type->rank, at = COPY_RANK - 1;
    if (rank == 0 || !read_slice(l, axes))
        return PM_ERR_UNSUPPORTED;
    copy c = new_copy(l, x, y);
    MlirValue x_stride = mb_i64(b, 1), y_stride = mb_i64(b, 1);
    int64_t run = 1, extent;
    bool whole = true; // all axes behind are taken as they are
    bool open = false; // extent `at` has axes, and more may join it
    for (int32_t i = rank - 1; i >= 0; i--) {
        MlirValue n = pm_launch_dim_of(l, y, i), step = mb_mul(b, x_stride, mb_i64(b, axes[i].is_sliced ? axes[i].step : 1));
        if (axes[i].is_sliced && open) // the axes behind it are an extent of their own
            at--;
        if (at < 0)
            return PM_ERR_UNSUPPORTED;
        if (axes[i].is_sliced || !open) {
            c.x_strides[at] = step;
            c.y_strides[at] = y_stride;
        }
        c.extents[at] = mb_mul(b, c.extents[at], n);
        if (axes[i].is_sliced) {
            c.x_first = mb_add(b, c.x_first, mb_mul(b, start_of(l, x, i, axes[i].start), x_stride));
            at--;
        }
        open = !axes[i].is_sliced;
        // pieces: what lies behind the last axis that is sliced
        if (whole && !axes[i].is_sliced && known(l, y, i, &extent))
            run *= extent;
        else
            whole = false;
        x_stride = mb_mul(b, x_stride, pm_launch_dim_of(l, x, i));
        y_stride = mb_mul(b, y_stride, n);
    }
    c.run = axes[rank - 1].is_sliced ? run_of_slice(l, x, y, &axes[rank - 1]) : run;
    use_copy(l, &c);
    return PM_OK;
}

/// ---- gather -----------------------------------------------------------------------------------------------

pm_status pm_plan_gather(launch *l)
{
    const pm_value *x = operand(l, 0), *indices = operand(l, 1), *y = l->op->results[0];
    int64_t axis = pm_op_i64(l->op, "axis"), inner, size = (int64_t)pm_elem_size(x->type->elem);
    axis += axis < 0 ? x->type->rank : 0;
    if (indices->type->elem != PM_I64 && indices->type->elem != PM_I32)
        return PM_ERR_UNSUPPORTED;
    int64_t n = together(known_behind(l, x, (int32_t)axis), size);
    MlirValue width = divided(l->b, pm_launch_count_of(l, x, (int32_t)axis + 1, x->type->rank), n);
    pm_launch_use(l, "gather");
    pm_launch_operand(l, 0);
    pm_launch_operand(l, 1);
    pm_launch_value(l, y);
    pm_launch_fix(l, "BYTES", size * n);
    pm_launch_i64(l, pm_launch_count_of(l, x, 0, (int32_t)axis));
    pm_launch_dim(l, x, (int32_t)axis, NULL);
    inner = known_behind(l, x, (int32_t)axis);
    if (inner > 1)
        pm_launch_fix(l, "INNER", inner / n);
    else
        pm_launch_i64(l, width);
    pm_launch_i64(l, pm_launch_count_of(l, indices, 0, indices->type->rank));
    pm_launch_fix(l, "LONG", indices->type->elem == PM_I64);
    pm_launch_status(l);
    MlirValue count = pm_launch_count_of(l, y, 0, y->type->rank);
    pm_launch_blocks(l, pm_launch_ceil_div(l, divided(l->b, count, n), BLOCK));
    return PM_OK;
}
