/// Attention over whole tensors of keys and values, and their growth.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_kv_append, pm_eval_sdpa;
pm_extent_fn pm_extent_kv_append;

/// Queries, keys or values: [B, heads, rows, size], or [B, rows, heads * size].
typedef struct head_rows {
    const pm_tensor *t;
    int64_t batch, heads, rows, size;
    int64_t batch_stride, head_stride, row_stride;
} head_rows;

PM_INLINE int32_t head_rows_of(const pm_tensor *t, int64_t heads, head_rows *out)
{
    int32_t is_apart = t->rank == 4;
    if ((t->rank != 3 && !is_apart) || heads < 1 ||
        (is_apart ? t->dims[1] != heads : t->dims[2] % heads != 0))
        return 1;
    int64_t rows = t->dims[is_apart ? 2 : 1], size = is_apart ? t->dims[3] : t->dims[2] / heads;
    *out = (head_rows){t, t->dims[0], heads, rows, size, heads * rows * size,
                       is_apart ? rows * size : size, is_apart ? size : heads * size};
    return 0;
}

PM_INLINE int64_t row_at(const head_rows *r, int64_t b, int64_t head, int64_t row)
{
    return b * r->batch_stride + head * r->head_stride + row * r->row_stride;
}

PM_INLINE int32_t are_positions(const pm_tensor *t, int64_t batch)
{
    return t->rank == 1 && (t->dims[0] == 1 || t->dims[0] == batch);
}

/// Element b of positions that may be one for all.
PM_INLINE int64_t position_of(const pm_tensor *t, int64_t b)
{
    return pm_get_i64(t->data, t->elem, t->dims[0] == 1 ? 0 : b);
}

/* ---- growth ------------------------------------------------------------------------------------- */

enum { NEW, AT, TOTAL, PAST };

int32_t pm_extent_kv_append(const pm_eval_args *args, int64_t *dims)
{
    const pm_tensor *past = pm_has(args, PAST) ? &args->in[PAST] : NULL;
    const pm_tensor *new = &args->in[NEW], *total = &args->in[TOTAL];
    head_rows rows;
    if (pm_elements(total) != 1 || (past == NULL && new->rank != 4) ||
        (past != NULL && past->rank != 4) ||
        head_rows_of(new, past != NULL ? past->dims[1] : new->dims[1], &rows))
        return 1;
    int64_t length = past != NULL ? past->dims[2] : 0, wanted = pm_get_i64(total->data, total->elem, 0);
    dims[0] = rows.batch;
    dims[1] = rows.heads;
    dims[2] = wanted > length ? wanted : length;
    dims[3] = rows.size;
    return 0;
}

int32_t pm_eval_kv_append(const pm_eval_args *args)
{
    const pm_tensor *past = pm_has(args, PAST) ? &args->in[PAST] : NULL;
    const pm_tensor *at = &args->in[AT], *out = &args->out[0];
    int64_t dims[PM_MAX_RANK];
    head_rows new;
    if (pm_extent_kv_append(args, dims) || out->rank != 4 ||
        head_rows_of(&args->in[NEW], dims[1], &new) || !are_positions(at, new.batch) ||
        (past != NULL && (past->dims[0] != new.batch || past->dims[3] != new.size)))
        return 1;
    for (int32_t i = 0; i < 4; i++)
        if (out->dims[i] != dims[i])
            return 1;
    int64_t before = past != NULL ? past->dims[2] : 0, size = new.size;
    for (int64_t b = 0; b < new.batch; b++) {
        int64_t first = position_of(at, b);
        if (first < 0 || new.rows > dims[2] || first > dims[2] - new.rows)
            return 1;
        for (int64_t h = 0; h < new.heads; h++) {
            int64_t head = b * new.heads + h, to = head * dims[2] * size;
            if (past != NULL)
                pm_copy(out->data, to, past->data, head * before * size, before * size, out->elem);
            for (int64_t i = before * size; i < dims[2] * size; i++)
                pm_set_i64(out->data, out->elem, to + i, 0, 0);
            for (int64_t r = 0; r < new.rows; r++)
                pm_copy(out->data, to + (first + r) * size, new.t->data, row_at(&new, b, h, r),
                        size, out->elem);
        }
    }
    return 0;
}

/* ---- attention ---------------------------------------------------------------------------------- */

/// What one query sees.
typedef struct sight {
    head_rows q, k, v;
    const pm_tensor *mask;   ///< NULL: none
    int64_t mask_stride[3];  ///< of sequences, heads, queries; 0 where it is broadcast
    int64_t b, head, kv_head, row, mask_at, begin, end;
    double scale, softcap;
    double sink; ///< a score without a value; -INFINITY: none
} sight;

/// The score of a key. Returns 0 when it isn't seen.
PM_INLINE int32_t sight_score(const sight *s, int64_t key, double *out)
{
    double bias = 0, sum = 0;
    if (s->mask != NULL) {
        bias = pm_get_f64(s->mask->data, s->mask->elem, s->mask_at + key);
        if (s->mask->elem == PM_BOOL)
            bias = bias != 0 ? 0 : -INFINITY;
        if (bias == -INFINITY)
            return 0;
    }
    int64_t q = row_at(&s->q, s->b, s->head, s->row), k = row_at(&s->k, s->b, s->kv_head, key);
    for (int64_t d = 0; d < s->q.size; d++)
        sum += pm_get_f64(s->q.t->data, s->q.t->elem, q + d) *
               pm_get_f64(s->k.t->data, s->k.t->elem, k + d);
    sum *= s->scale;
    *out = (s->softcap != 0 ? s->softcap * tanh(sum / s->softcap) : sum) + bias;
    return 1;
}

/// Sum of the values, weighed by the softmax of the scores; `nothing` when no key is seen. Some
/// elements at a time, for which the scores are computed anew: there is no memory for all of them.
PM_INLINE void sight_attend(const sight *s, double nothing, const pm_tensor *out, int64_t out_at)
{
    enum { CHUNK = 128 };
    double sums[CHUNK], largest = s->sink, score;
    int32_t sees = s->sink > -INFINITY;
    for (int64_t j = s->begin; j < s->end; j++) {
        if (sight_score(s, j, &score)) {
            largest = pm_larger(largest, score);
            sees = 1;
        }
    }
    for (int64_t from = 0; from < s->v.size; from += CHUNK) {
        int64_t n = s->v.size - from < CHUNK ? s->v.size - from : CHUNK;
        double total = s->sink > -INFINITY ? exp(s->sink - largest) : 0;
        for (int64_t d = 0; d < n; d++)
            sums[d] = 0;
        for (int64_t j = s->begin; j < s->end; j++) {
            if (!sight_score(s, j, &score))
                continue;
            double weight = exp(score - largest);
            int64_t at = row_at(&s->v, s->b, s->kv_head, j) + from;
            total += weight;
            for (int64_t d = 0; d < n; d++)
                sums[d] += weight * pm_get_f64(s->v.t->data, s->v.t->elem, at + d);
        }
        for (int64_t d = 0; d < n; d++)
            pm_set_f64(out->data, out->elem, out_at + from + d, sees ? sums[d] / total : nothing);
    }
}

/// Strides of a mask [.., M] over [B, heads, T]. Returns 1 when it doesn't broadcast to them.
PM_INLINE int32_t mask_strides(const pm_tensor *mask, const head_rows *q, int64_t *out)
{
    const int64_t extents[] = {q->batch, q->heads, q->rows};
    if (mask->rank < 1 || mask->rank > 4)
        return 1;
    int64_t stride = mask->dims[mask->rank - 1];
    for (int32_t i = 2; i >= 0; i--) {
        int32_t axis = mask->rank - 4 + i;
        int64_t extent = axis >= 0 ? mask->dims[axis] : 1;
        if (extent != 1 && extent != extents[i])
            return 1;
        out[i] = extent == 1 ? 0 : stride;
        stride *= extent;
    }
    return 0;
}

/// a + b for a position and a bound that isn't negative, saturated.
PM_INLINE int64_t add_bound(int64_t a, int64_t b)
{
    return a > 0 && b > INT64_MAX - a ? INT64_MAX : a + b;
}

int32_t pm_eval_sdpa(const pm_eval_args *args)
{
    enum { HEADS, KV_HEADS, SCALE, LEFT, RIGHT, SOFTCAP, UNSEEN };
    const pm_tensor *out = &args->out[0], *past = pm_has(args, 4) ? &args->in[4] : NULL;
    const pm_tensor *total = pm_has(args, 5) ? &args->in[5] : NULL;
    const pm_tensor *sinks = pm_has(args, 6) ? &args->in[6] : NULL;
    int64_t heads = args->attrs[HEADS].i, kv_heads = args->attrs[KV_HEADS].i;
    int64_t left = args->attrs[LEFT].i, right = args->attrs[RIGHT].i;
    double nothing = pm_attr_is(&args->attrs[UNSEEN], "nan") ? NAN : 0;
    head_rows to;
    sight s = {.scale = args->attrs[SCALE].f, .softcap = args->attrs[SOFTCAP].f,
               .mask = pm_has(args, 3) ? &args->in[3] : NULL};
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 || left < -1 || right < -1 ||
        head_rows_of(&args->in[0], heads, &s.q) || head_rows_of(&args->in[1], kv_heads, &s.k) ||
        head_rows_of(&args->in[2], kv_heads, &s.v) || head_rows_of(out, heads, &to) ||
        s.q.t->rank != out->rank || s.k.batch != s.q.batch || s.v.batch != s.q.batch ||
        s.k.size != s.q.size || s.v.rows != s.k.rows || to.batch != s.q.batch ||
        to.rows != s.q.rows || to.size != s.v.size ||
        (s.mask != NULL && mask_strides(s.mask, &s.q, s.mask_stride)) ||
        (past != NULL && !are_positions(past, s.q.batch)) ||
        (total != NULL && !are_positions(total, s.q.batch)) ||
        (sinks != NULL && pm_elements(sinks) != heads))
        return 1;
    int64_t keys = s.mask != NULL ? s.mask->dims[s.mask->rank - 1] : s.k.rows;
    if (keys > s.k.rows)
        return 1;
    for (s.b = 0; s.b < s.q.batch; s.b++) {
        int64_t first = past != NULL ? position_of(past, s.b) : 0;
        int64_t seen = total != NULL ? position_of(total, s.b) : keys;
        if (seen < 0 || seen > s.k.rows || first > INT64_MAX - s.q.rows)
            return 1;
        seen = seen < keys ? seen : keys;
        for (s.row = 0; s.row < s.q.rows; s.row++) {
            int64_t at = first + s.row;
            int64_t end = right < 0 ? seen : add_bound(add_bound(at, right), 1);
            s.begin = left >= 0 && at > left ? at - left : 0;
            s.end = end < seen ? end : seen;
            for (s.head = 0; s.head < heads; s.head++) {
                s.kv_head = s.head / (heads / kv_heads);
                s.sink = sinks != NULL ? pm_get_f64(sinks->data, sinks->elem, s.head) : -INFINITY;
                s.mask_at = s.b * s.mask_stride[0] + s.head * s.mask_stride[1] +
                            s.row * s.mask_stride[2];
                sight_attend(&s, nothing, out, row_at(&to, s.b, s.head, s.row));
            }
        }
    }
    return 0;
}
