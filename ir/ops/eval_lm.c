/// Ops of language models: rotary positions, key and value caches, attention.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_rope_table, pm_eval_rope, pm_eval_cache_key, pm_eval_cache_value;
pm_eval_fn pm_eval_attention, pm_eval_last_rows;

/* ---- rotary positions --------------------------------------------------------------------------- */

int32_t pm_eval_rope_table(const pm_eval_args *args)
{
    const pm_tensor *past = &args->in[0], *inv_freq = &args->in[1], *out = &args->out[0];
    double scale = args->attrs[0].f;
    if (out->rank != 3 || past->rank != 1 || inv_freq->rank != 1 ||
        out->dims[0] != past->dims[0] || out->dims[2] != 2 * inv_freq->dims[0])
        return 1;
    int64_t batch = out->dims[0], tokens = out->dims[1], half = inv_freq->dims[0];
    for (int64_t b = 0; b < batch; b++) {
        int64_t first = pm_get_i64(past->data, past->elem, b);
        if (first < 0 || first > INT64_MAX - tokens)
            return 1;
        for (int64_t t = 0; t < tokens; t++) {
            int64_t row = (b * tokens + t) * 2 * half;
            for (int64_t i = 0; i < half; i++) {
                float frequency = (float)pm_get_f64(inv_freq->data, inv_freq->elem, i);
                float angle = (float)(first + t) * frequency;
                pm_set_f64(out->data, out->elem, row + i, cos(angle) * scale);
                pm_set_f64(out->data, out->elem, row + half + i, sin(angle) * scale);
            }
        }
    }
    return 0;
}

int32_t pm_eval_rope(const pm_eval_args *args)
{
    enum { HEAD_DIM, INTERLEAVED, OFFSET };
    const pm_tensor *x = &args->in[0], *table = &args->in[1], *out = &args->out[0];
    int64_t head_dim = args->attrs[HEAD_DIM].i, offset = args->attrs[OFFSET].i;
    int32_t is_interleaved = args->attrs[INTERLEAVED].i != 0;
    if (x->rank != 3 || table->rank != 3 || !pm_same_dims(x, out) || head_dim < 1 ||
        x->dims[2] % head_dim != 0 || offset < 0 || offset > head_dim ||
        table->dims[2] > head_dim - offset || table->dims[2] % 2 != 0 ||
        table->dims[0] != x->dims[0] || table->dims[1] != x->dims[1])
        return 1;
    int64_t half = table->dims[2] / 2, heads = x->dims[2] / head_dim;
    int64_t rows = pm_product(x->dims, 0, 2);
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t h = 0; h < heads; h++) {
            int64_t head = (row * heads + h) * head_dim, base = head + offset;
            for (int64_t i = 0; i < half; i++) {
                int64_t first = base + (is_interleaved ? 2 * i : i);
                int64_t second = is_interleaved ? first + 1 : first + half;
                double c = pm_get_f64(table->data, table->elem, (row * 2) * half + i);
                double s = pm_get_f64(table->data, table->elem, (row * 2 + 1) * half + i);
                double x1 = pm_get_f64(x->data, x->elem, first);
                double x2 = pm_get_f64(x->data, x->elem, second);
                pm_set_f64(out->data, out->elem, first, x1 * c - x2 * s);
                pm_set_f64(out->data, out->elem, second, x2 * c + x1 * s);
            }
            if (x->data == out->data)
                continue;
            pm_copy(out->data, head, x->data, head, offset, x->elem);
            pm_copy(out->data, base + 2 * half, x->data, base + 2 * half,
                    head_dim - offset - 2 * half, x->elem);
        }
    }
    return 0;
}

/* ---- caches ------------------------------------------------------------------------------------- */

/// Extents of a cache [B, KV, C, hd]; a key cache is stored as [B, KV, C/16, hd, 16].
typedef struct cache {
    int64_t batch, heads, capacity, size;
    int32_t is_key;
} cache;

enum { CACHE_BLOCK = 16 };

PM_INLINE int32_t cache_of(const pm_tensor *t, int32_t is_key, cache *out)
{
    if (t->rank != (is_key ? 5 : 4) || (is_key && t->dims[4] != CACHE_BLOCK))
        return 1;
    *out = (cache){t->dims[0], t->dims[1], t->dims[2] * (is_key ? CACHE_BLOCK : 1), t->dims[3],
                   is_key};
    return 0;
}

/// Offset of element d of the row at `position` of a head.
PM_INLINE int64_t cache_at(const cache *c, int64_t b, int64_t head, int64_t position, int64_t d)
{
    int64_t base = (b * c->heads + head) * c->capacity * c->size;
    if (!c->is_key)
        return base + position * c->size + d;
    return base + (position / CACHE_BLOCK * c->size + d) * CACHE_BLOCK + position % CACHE_BLOCK;
}

/// past[b]; -1 when `tokens` more rows don't fit.
PM_INLINE int64_t past_of(const pm_tensor *past, int64_t b, int64_t tokens, int64_t capacity)
{
    int64_t at = pm_get_i64(past->data, past->elem, b);
    return at >= 0 && tokens <= capacity && at <= capacity - tokens ? at : -1;
}

PM_INLINE int32_t write_cache(const pm_eval_args *args, int32_t is_key)
{
    const pm_tensor *old = &args->in[0], *rows = &args->in[1], *past = &args->in[2];
    const pm_tensor *out = &args->out[0];
    cache c;
    if (!pm_same_dims(old, out) || cache_of(old, is_key, &c) || rows->rank != 3 ||
        rows->dims[0] != c.batch || rows->dims[2] != c.heads * c.size ||
        pm_elements(past) != c.batch)
        return 1;
    int64_t tokens = rows->dims[1], at = 0;
    if (old->data != out->data)
        pm_copy(out->data, 0, old->data, 0, pm_elements(old), old->elem);
    for (int64_t b = 0; b < c.batch; b++) {
        int64_t first = past_of(past, b, tokens, c.capacity);
        if (first < 0)
            return 1;
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t h = 0; h < c.heads; h++)
                for (int64_t d = 0; d < c.size; d++, at++)
                    pm_set_f64(out->data, out->elem, cache_at(&c, b, h, first + t, d),
                               pm_get_f64(rows->data, rows->elem, at));
    }
    return 0;
}

int32_t pm_eval_cache_key(const pm_eval_args *args)
{
    return write_cache(args, 1);
}

int32_t pm_eval_cache_value(const pm_eval_args *args)
{
    return write_cache(args, 0);
}

/* ---- attention ---------------------------------------------------------------------------------- */

/// What one query head of one token sees: keys first … last of one head.
typedef struct query {
    const pm_tensor *q, *keys, *values;
    cache key, value;
    int64_t q_at, out_at, batch, head, first, last;
    double scale, softcap;
    double sink; ///< a score without a value; -INFINITY: none
    const pm_tensor *bias; ///< NULL: none
    int64_t q_head, position;
} query;

PM_INLINE double bias_of(const query *a, int64_t position)
{
    if (a->bias == NULL)
        return 0;
    int64_t reach = a->bias->dims[1], at = position - a->position + reach / 2;
    at = at < 0 ? 0 : at >= reach ? reach - 1 : at;
    return pm_get_f64(a->bias->data, a->bias->elem, a->q_head * reach + at);
}

PM_INLINE double score_of(const query *a, int64_t position)
{
    double sum = 0;
    for (int64_t d = 0; d < a->key.size; d++)
        sum += pm_get_f64(a->q->data, a->q->elem, a->q_at + d) *
               pm_get_f64(a->keys->data, a->keys->elem,
                          cache_at(&a->key, a->batch, a->head, position, d));
    sum *= a->scale;
    sum = a->softcap != 0 ? a->softcap * tanh(sum / a->softcap) : sum;
    return sum + bias_of(a, position);
}

/// Sum of the values, weighed by the softmax of the scores. Some elements at a time, for which the
/// scores are computed anew: there is no memory for all of them.
PM_INLINE void attend(const query *a, const pm_tensor *out)
{
    enum { CHUNK = 128 };
    double sums[CHUNK], largest = a->sink;
    for (int64_t j = a->first; j <= a->last; j++)
        largest = pm_larger(largest, score_of(a, j));
    for (int64_t from = 0; from < a->value.size; from += CHUNK) {
        int64_t n = a->value.size - from < CHUNK ? a->value.size - from : CHUNK;
        double total = a->sink > -INFINITY ? exp(a->sink - largest) : 0;
        for (int64_t d = 0; d < n; d++)
            sums[d] = 0;
        for (int64_t j = a->first; j <= a->last; j++) {
            double weight = exp(score_of(a, j) - largest);
            total += weight;
            for (int64_t d = 0; d < n; d++)
                sums[d] += weight * pm_get_f64(a->values->data, a->values->elem,
                                               cache_at(&a->value, a->batch, a->head, j, from + d));
        }
        for (int64_t d = 0; d < n; d++)
            pm_set_f64(out->data, out->elem, a->out_at + from + d, sums[d] / total);
    }
}

int32_t pm_eval_attention(const pm_eval_args *args)
{
    enum { HEADS, KV_HEADS, SCALE, WINDOW, SOFTCAP, CHUNK = 6, CAUSAL };
    const pm_tensor *q = &args->in[0], *past = &args->in[3], *out = &args->out[0];
    int64_t heads = args->attrs[HEADS].i, kv_heads = args->attrs[KV_HEADS].i;
    int64_t window = args->attrs[WINDOW].i, chunk = args->attrs[CHUNK].i;
    int32_t is_causal = args->attrs[CAUSAL].i != 0;
    const pm_tensor *sinks = pm_has(args, 4) ? &args->in[4] : NULL;
    query a = {.q = q, .keys = &args->in[1], .values = &args->in[2],
               .scale = args->attrs[SCALE].f, .softcap = args->attrs[SOFTCAP].f,
               .bias = pm_has(args, 5) ? &args->in[5] : NULL};
    if (q->rank != 3 || out->rank != 3 || cache_of(a.keys, 1, &a.key) ||
        cache_of(a.values, 0, &a.value) || heads < 1 || kv_heads < 1 || heads % kv_heads != 0 ||
        a.key.heads != kv_heads || a.value.heads != kv_heads || a.key.batch != q->dims[0] ||
        a.value.batch != q->dims[0] || a.key.capacity != a.value.capacity ||
        q->dims[2] != heads * a.key.size || out->dims[0] != q->dims[0] ||
        out->dims[1] != q->dims[1] || out->dims[2] != heads * a.value.size ||
        pm_elements(past) != q->dims[0] || window < 0 || chunk < 0 ||
        (sinks != NULL && pm_elements(sinks) != heads) ||
        (a.bias != NULL && (a.bias->rank != 2 || a.bias->dims[0] != heads ||
                            a.bias->dims[1] % 2 != 1)))
        return 1;
    int64_t tokens = q->dims[1];
    for (a.batch = 0; a.batch < q->dims[0]; a.batch++) {
        int64_t before = past_of(past, a.batch, is_causal ? tokens : 0, a.key.capacity);
        if (before < 0)
            return 1;
        for (int64_t t = 0; t < tokens; t++) {
            a.last = is_causal ? before + t : before - 1;
            a.position = is_causal ? before + t : t;
            a.first = window > 0 && a.last >= window ? a.last - window + 1 : 0;
            if (chunk > 0 && a.last / chunk * chunk > a.first)
                a.first = a.last / chunk * chunk;
            for (int64_t h = 0; h < heads; h++) {
                a.head = h / (heads / kv_heads);
                a.q_head = h;
                a.q_at = ((a.batch * tokens + t) * heads + h) * a.key.size;
                a.out_at = ((a.batch * tokens + t) * heads + h) * a.value.size;
                a.sink = sinks != NULL ? pm_get_f64(sinks->data, sinks->elem, h) : -INFINITY;
                attend(&a, out);
            }
        }
    }
    return 0;
}

int32_t pm_eval_last_rows(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    if (x->rank != 3 || out->rank != 3 || out->dims[0] != x->dims[0] || out->dims[1] != 1 ||
        out->dims[2] != x->dims[2])
        return 1;
    int64_t tokens = x->dims[1], width = x->dims[2];
    if (tokens == 0)
        return x->dims[0] > 0;
    for (int64_t b = 0; b < x->dims[0]; b++)
        pm_copy(out->data, b * width, x->data, (b * tokens + tokens - 1) * width, width, x->elem);
    return 0;
}
