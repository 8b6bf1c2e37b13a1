/// Products of matrices. Sums accumulate in double (integers wrap) and are rounded once.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_matmul, pm_eval_linear, pm_eval_grouped_linear, pm_eval_conv;

/// A row or a column of a matrix.
typedef struct vector {
    const void *data;
    int32_t elem;
    int64_t at, step;
} vector;

/// Element i as a product of dots takes it: rounded to bf16 when asked for.
PM_INLINE double factor(const vector *v, int32_t elem, int64_t i, int32_t to_bf16)
{
    double value = pm_get_f64(v->data, elem, v->at + i * v->step);
    if (!to_bf16 || elem == PM_BF16)
        return value;
    if (elem == PM_F32 || elem == PM_F16)
        return pm_to_bf16((float)value);
    return pm_bf16_value(pm_round_bits(value, 8, 7));
}

/// Sum over i of a[i] * b[i], in eight interleaved partial sums.
PM_INLINE double dot_of(const vector *a, int32_t a_elem, const vector *b, int32_t b_elem, int64_t n,
                        int32_t to_bf16)
{
    double sum[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int32_t u = 0; u < 8; u++)
            sum[u] += factor(a, a_elem, i + u, to_bf16) * factor(b, b_elem, i + u, to_bf16);
    for (int32_t u = 0; i < n; i++, u++)
        sum[u] += factor(a, a_elem, i, to_bf16) * factor(b, b_elem, i, to_bf16);
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/// As dot_of, with loops of their own for the usual types.
PM_INLINE double dot(const vector *a, const vector *b, int64_t n, int32_t to_bf16)
{
    if (a->elem == PM_F32 && b->elem == PM_F32)
        return dot_of(a, PM_F32, b, PM_F32, n, to_bf16);
    if (a->elem == PM_F32 && b->elem == PM_BF16)
        return dot_of(a, PM_F32, b, PM_BF16, n, to_bf16);
    return dot_of(a, a->elem, b, b->elem, n, to_bf16);
}

PM_INLINE int64_t dot_int(const vector *a, const vector *b, int64_t n)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (uint64_t)pm_get_i64(a->data, a->elem, a->at + i * a->step) *
               (uint64_t)pm_get_i64(b->data, b->elem, b->at + i * b->step);
    return (int64_t)sum;
}

/* ---- matmul ------------------------------------------------------------------------------------- */

/// One matrix of a product, [rows, columns] as it is multiplied.
typedef struct matrix {
    int64_t rows, columns, row_step, column_step;
    int32_t n_batch; ///< extents before those of the matrix
} matrix;

/// A vector is one row on the left, one column on the right.
PM_INLINE int32_t matrix_of(const pm_tensor *t, int32_t is_left, int32_t is_turned, matrix *out)
{
    if (t->rank < 1)
        return 1;
    int64_t last = t->dims[t->rank - 1];
    if (t->rank == 1) {
        *out = is_left ? (matrix){1, last, last, 1, 0} : (matrix){last, 1, 1, last, 0};
        return 0;
    }
    *out = (matrix){t->dims[t->rank - 2], last, last, 1, t->rank - 2};
    if (is_turned)
        *out = (matrix){out->columns, out->rows, 1, last, t->rank - 2};
    return 0;
}

/// The walk over the batch: operand k's offsets are in units of its matrices.
PM_INLINE int32_t batch_operand(pm_walk *w, int32_t k, const pm_tensor *t, int32_t n_batch)
{
    pm_tensor batch = {NULL, t->dims, n_batch, t->elem};
    return pm_walk_broadcast(w, k, &batch);
}

PM_INLINE void multiply(const pm_tensor *a, int64_t a_at, const matrix *l, const pm_tensor *b,
                        int64_t b_at, const matrix *r, const pm_tensor *out, int64_t at)
{
    for (int64_t i = 0; i < l->rows; i++) {
        for (int64_t j = 0; j < r->columns; j++, at++) {
            vector x = {a->data, a->elem, a_at + i * l->row_step, l->column_step};
            vector y = {b->data, b->elem, b_at + j * r->column_step, r->row_step};
            if (pm_is_float(a->elem))
                pm_set_f64(out->data, out->elem, at, dot(&x, &y, l->columns, 0));
            else
                pm_set_i64(out->data, out->elem, at, dot_int(&x, &y, l->columns), 0);
        }
    }
}

int32_t pm_eval_matmul(const pm_eval_args *args)
{
    const pm_tensor *a = &args->in[0], *b = &args->in[1], *out = &args->out[0];
    int32_t n_vectors = (a->rank == 1) + (b->rank == 1);
    int32_t n_batch = out->rank - 2 + n_vectors;
    matrix l, r;
    pm_walk w;
    if (matrix_of(a, 1, args->attrs[0].i != 0, &l) || matrix_of(b, 0, args->attrs[1].i != 0, &r) ||
        l.columns != r.rows || n_batch < 0)
        return 1;
    pm_walk_begin(&w, out->dims, n_batch, 2);
    if (batch_operand(&w, 0, a, l.n_batch) || batch_operand(&w, 1, b, r.n_batch))
        return 1;
    int64_t tail = pm_product(out->dims, n_batch, out->rank);
    if (tail != (l.rows == 0 || r.columns == 0 ? 0 : l.rows * r.columns))
        return 1;
    if (tail == 0)
        return 0;
    int64_t rows = pm_walk_rows(&w), n = pm_walk_row(&w), at = 0;
    int64_t a_step = w.stride[0][w.rank - 1], b_step = w.stride[1][w.rank - 1];
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&w))
        for (int64_t i = 0; i < n; i++, at += tail)
            multiply(a, (w.offset[0] + i * a_step) * (l.rows * l.columns), &l, b,
                     (w.offset[1] + i * b_step) * (r.rows * r.columns), &r, out, at);
    return 0;
}

/* ---- linear, grouped_linear --------------------------------------------------------------------- */

/// Rows first … last - 1 of x times the matrix at w_at, transposed; bias NULL: none.
PM_INLINE void linear_rows(const pm_tensor *x, int64_t first, int64_t last, const pm_tensor *w,
                           int64_t w_at, int64_t n, int64_t k, const pm_tensor *bias,
                           int64_t bias_at, const pm_tensor *out, int32_t to_bf16)
{
    for (int64_t row = first; row < last; row++) {
        for (int64_t j = 0; j < n; j++) {
            vector a = {x->data, x->elem, row * k, 1}, b = {w->data, w->elem, w_at + j * k, 1};
            double sum = dot(&a, &b, k, to_bf16);
            if (bias != NULL)
                sum += pm_get_f64(bias->data, bias->elem, bias_at + j);
            pm_set_f64(out->data, out->elem, row * n + j, sum);
        }
    }
}

/// Whether `all` rows of weights are those of one source or of two, and `source` is one of them.
PM_INLINE int32_t has_source(int64_t all, int64_t n, int64_t source)
{
    return source >= 0 && (all == n ? source == 0 : all == 2 * n && source < 2);
}

int32_t pm_eval_linear(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *w = &args->in[1], *out = &args->out[0];
    const pm_tensor *bias = pm_has(args, 2) ? &args->in[2] : NULL;
    if (x->rank < 1 || w->rank != 2 || out->rank != x->rank)
        return 1;
    int64_t n = out->dims[out->rank - 1], k = w->dims[1], rows = pm_product(x->dims, 0, x->rank - 1);
    int64_t source = args->attrs[1].i; // the sources lie one below the other
    if (x->dims[x->rank - 1] != k || !has_source(w->dims[0], n, source) ||
        pm_product(out->dims, 0, out->rank - 1) != rows ||
        (bias != NULL && pm_elements(bias) != n))
        return 1;
    linear_rows(x, 0, rows, w, source * n * k, n, k, bias, 0, out, args->attrs[0].i == PM_BF16);
    return 0;
}

int32_t pm_eval_grouped_linear(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *w = &args->in[1], *offsets = &args->in[2];
    const pm_tensor *out = &args->out[0], *bias = pm_has(args, 3) ? &args->in[3] : NULL;
    if (x->rank != 2 || w->rank != 3 || out->rank != 2 || pm_elements(offsets) != w->dims[0] + 1)
        return 1;
    int64_t rows = x->dims[0], experts = w->dims[0], n = out->dims[1], k = w->dims[2], first = 0;
    int64_t source = args->attrs[1].i, all = w->dims[1]; // of one expert: its sources, one below the other
    if (x->dims[1] != k || out->dims[0] != rows || !has_source(all, n, source) ||
        (bias != NULL && pm_elements(bias) != (n == 0 ? 0 : experts * n)) ||
        pm_get_i64(offsets->data, offsets->elem, 0) != 0)
        return 1;
    for (int64_t e = 0; e < experts; e++) {
        int64_t last = pm_get_i64(offsets->data, offsets->elem, e + 1);
        if (last < first || last > rows)
            return 1;
        linear_rows(x, first, last, w, (e * all + source * n) * k, n, k, bias, e * n, out,
                    args->attrs[0].i == PM_BF16);
        first = last;
    }
    for (int64_t i = first * n; i < rows * n; i++) // nobody's: anything would do
        pm_set_f64(out->data, out->elem, i, 0);
    return 0;
}

/* ---- conv --------------------------------------------------------------------------------------- */

/// The window of one spatial axis.
typedef struct conv_axis {
    int64_t stride, dilation, pad;
} conv_axis;

PM_INLINE int32_t conv_axes(const pm_eval_args *args, int32_t n, conv_axis *axes)
{
    enum { STRIDES = 1, DILATIONS, PADS };
    const pm_tensor *x = &args->in[0], *w = &args->in[1], *out = &args->out[0];
    const pm_attr_value *a = args->attrs;
    for (int32_t d = 0; d < n; d++) {
        int64_t before = a[PADS].present ? a[PADS].ints[d] : 0;
        int64_t after = a[PADS].present ? a[PADS].ints[n + d] : 0;
        axes[d] = (conv_axis){a[STRIDES].present ? a[STRIDES].ints[d] : 1,
                              a[DILATIONS].present ? a[DILATIONS].ints[d] : 1, before};
        int64_t extent = x->dims[2 + d], kernel = w->dims[2 + d], span, room;
        if (axes[d].stride < 1 || axes[d].dilation < 1 || kernel < 1 || before < 0 || after < 0 ||
            __builtin_mul_overflow(axes[d].dilation, kernel - 1, &span) ||
            __builtin_add_overflow(extent, before, &room) ||
            __builtin_add_overflow(room, after, &room) ||
            room - 1 < span || (room - 1 - span) / axes[d].stride + 1 != out->dims[2 + d])
            return 1;
    }
    return 0;
}

/// Sum of channel `w_at` of the filter over the window at `origin` of channel `x_at`.
PM_INLINE double conv_window(const pm_tensor *x, int64_t x_at, const pm_tensor *w, int64_t w_at,
                             int32_t n, const conv_axis *axes, const int64_t *origin)
{
    pm_walk k;
    double sum = 0;
    pm_walk_begin(&k, w->dims + 2, n, 0);
    int64_t rows = pm_walk_rows(&k), columns = pm_walk_row(&k);
    for (int64_t row = 0; row < rows; row++, pm_walk_next(&k)) {
        for (int64_t i = 0; i < columns; i++, w_at++) {
            int64_t from = 0;
            int32_t is_inside = 1;
            for (int32_t d = 0; d < n; d++) {
                int64_t at = origin[d] + (d == n - 1 ? i : k.index[d]) * axes[d].dilation;
                is_inside &= at >= 0 && at < x->dims[2 + d];
                from = is_inside ? from * x->dims[2 + d] + at : 0;
            }
            if (is_inside)
                sum += pm_get_f64(x->data, x->elem, x_at + from) *
                       pm_get_f64(w->data, w->elem, w_at);
        }
    }
    return sum;
}

int32_t pm_eval_conv(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *w = &args->in[1], *out = &args->out[0];
    const pm_tensor *bias = pm_has(args, 2) ? &args->in[2] : NULL;
    int64_t group = args->attrs[0].i, origin[PM_MAX_RANK], at = 0;
    int32_t n = x->rank - 2;
    conv_axis axes[PM_MAX_RANK];
    pm_walk p;
    if (n < 1 || w->rank != x->rank || out->rank != x->rank || group < 1)
        return 1;
    int64_t filters = w->dims[0], channels = w->dims[1];
    if (x->dims[1] / group != channels || x->dims[1] % group != 0 || filters % group != 0 ||
        out->dims[0] != x->dims[0] || out->dims[1] != filters || conv_axes(args, n, axes) ||
        (bias != NULL && pm_elements(bias) != filters))
        return 1;
    int64_t x_size = pm_product(x->dims, 2, x->rank), w_size = pm_product(w->dims, 2, w->rank);
    for (int64_t b = 0; b < x->dims[0]; b++) {
        for (int64_t o = 0; o < filters; o++) {
            int64_t first = o / (filters / group) * channels;
            pm_walk_begin(&p, out->dims + 2, n, 0);
            int64_t rows = pm_walk_rows(&p), columns = pm_walk_row(&p);
            for (int64_t row = 0; row < rows; row++, pm_walk_next(&p)) {
                for (int64_t i = 0; i < columns; i++, at++) {
                    double sum = bias != NULL ? pm_get_f64(bias->data, bias->elem, o) : 0;
                    for (int32_t d = 0; d < n; d++)
                        origin[d] = (d == n - 1 ? i : p.index[d]) * axes[d].stride - axes[d].pad;
                    for (int64_t c = 0; c < channels; c++)
                        sum += conv_window(x, (b * x->dims[1] + first + c) * x_size, w,
                                           (o * channels + c) * w_size, n, axes, origin);
                    pm_set_f64(out->data, out->elem, at, sum);
                }
            }
        }
    }
    return 0;
}
