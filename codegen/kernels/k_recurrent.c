/* Recurrences over the tokens of a sequence: a worker takes channels or columns of a state, and goes through
 * all their tokens. So no element's bits depend on how tokens are cut into calls, or on the workers. */
#include "codegen/kernels/math_inline.h"

/// Vectors of `scratch`, aligned.
PM_INLINE float *recurrent_scratch(uint8_t *scratch)
{
    return (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
}

/* ---- short convolutions ----------------------------------------------------------------------------- */

enum { CONV_RING = 64 }; /* vectors of a chunk of tokens, beside those before them */

/// The channel's value at position i - before of what the state and x hold together.
PM_INLINE float conv_value(const float *state, const float *x, int64_t before, int64_t channels,
                           int64_t i)
{
    return i < before ? state[i] : x[(i - before) * channels];
}

/// One block of PM_VW channels: y[t] = bias + sum of w[j] * value[t + j], in the order of j.
PM_INLINE void conv_block(const float *state, const float *x, const float *w, const float *bias,
                          float *y, int64_t tokens, int64_t channels, int64_t before, int64_t lanes,
                          int64_t is_new, float *scratch)
{
    int64_t kernel = before + 1;
    float *weight = scratch, *rows = scratch + kernel * PM_VW, first[PM_VW] = {0};
    for (int64_t c = 0; c < lanes; c++) {
        first[c] = bias ? bias[c] : 0.0f;
        PM_NO_UNROLL for (int64_t j = 0; j < kernel; j++)
            weight[j * PM_VW + c] = w[c * kernel + j];
        PM_NO_UNROLL for (int64_t j = 0; j < before; j++)
            rows[j * PM_VW + c] = is_new ? 0.0f : state[c * before + j];
    }
    PM_NO_UNROLL for (int64_t t = 0; t < tokens; t++)
    {
        /* `rows` is a window that moves on: when it is full, its last `before` rows become the first */
        int64_t slot = before + t % CONV_RING;
        if (slot == before && t > 0) {
            PM_NO_UNROLL for (int64_t j = 0; j < before; j++)
                pm_v_store(rows + j * PM_VW, pm_v_load(rows + (j + CONV_RING) * PM_VW));
        }
        float *row = rows + slot * PM_VW;
        if (lanes == PM_VW) {
            pm_v_store(row, pm_v_load(x + t * channels));
        } else {
            for (int64_t c = 0; c < PM_VW; c++)
                row[c] = c < lanes ? x[t * channels + c] : 0.0f;
        }
        pm_vf sum = pm_v_load(first);
        for (int64_t j = 0; j < kernel; j++)
            sum = pm_v_fma(pm_v_load(row + (j - before) * PM_VW), pm_v_load(weight + j * PM_VW), sum);
        if (lanes == PM_VW) {
            pm_v_store(y + t * channels, sum);
        } else {
            float out[PM_VW];
            pm_v_store(out, sum);
            PM_NO_UNROLL for (int64_t c = 0; c < lanes; c++)
                y[t * channels + c] = out[c];
        }
    }
}

PM_KERNEL void pm_k_causal_conv(float *state, const float *x, const float *w, const float *bias,
                                const int64_t *past, float *y, int64_t batch, int64_t t,
                                int64_t channels, int64_t before, uint8_t *scratch, int64_t worker,
                                int64_t n_workers)
{
    int64_t blocks = (channels + PM_VW - 1) / PM_VW, begin, end;
    pm_share(batch * blocks, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end; unit++)
    {
        int64_t b = unit / blocks, c = unit % blocks * PM_VW;
        int64_t lanes = pm_min_i64(PM_VW, channels - c), is_new = past != 0 && past[b] == 0;
        const float *from = x + b * t * channels + c;
        float *kept = state + (b * channels + c) * before;
        conv_block(kept, from, w + c * (before + 1), bias ? bias + c : 0,
                   y + b * t * channels + c, t, channels, before, lanes, is_new,
                   recurrent_scratch(scratch));
        PM_NO_UNROLL for (int64_t i = 0; i < lanes; i++)
        {
            PM_NO_UNROLL for (int64_t j = 0; j < before; j++) /* ascending: reads at or behind j */
                kept[i * before + j] = is_new && t + j < before
                                           ? 0.0f
                                           : conv_value(kept + i * before, from + i, before,
                                                        channels, t + j);
        }
    }
}

/* ---- linear attention ------------------------------------------------------------------------------- */

enum { DECAY_NONE, DECAY_HEAD, DECAY_KEY, DECAY_CONSTANT };

/// A block of up to PM_VW columns of one head's state.
typedef struct recurrence {
    float *state;  ///< rows of a block, `ld` apart
    int64_t ld, key_size;
    const float *factor; ///< e^decay: one for all rows, or one for each (stride 1)
    int64_t factor_stride;
} recurrence;

/// Sums over rows are four chains, for rows d, d + 4, …, added in the end.
PM_INLINE pm_vf recurrence_add(const pm_vf *sums)
{
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// What the decayed state knows of the key.
PM_INLINE pm_vf recurrence_known(const recurrence *r, const float *k)
{
    pm_vf sums[4] = {{0}};
    PM_NO_UNROLL for (int64_t d = 0; d + 4 <= r->key_size; d += 4)
    {
        PM_UNROLL for (int i = 0; i < 4; i++)
        {
            pm_vf s = pm_v_load(r->state + (d + i) * r->ld) *
                      pm_v_splat(r->factor[(d + i) * r->factor_stride]);
            sums[i] = pm_v_fma(s, pm_v_splat(k[d + i]), sums[i]);
        }
    }
    PM_NO_UNROLL for (int64_t d = r->key_size / 4 * 4; d < r->key_size; d++)
    {
        pm_vf s = pm_v_load(r->state + d * r->ld) * pm_v_splat(r->factor[d * r->factor_stride]);
        sums[0] = pm_v_fma(s, pm_v_splat(k[d]), sums[0]);
    }
    return recurrence_add(sums);
}

PM_INLINE pm_vf recurrence_row(const recurrence *r, int64_t d, float k, pm_vf update, float q,
                               pm_vf sum)
{
    float *row = r->state + d * r->ld;
    pm_vf s = pm_v_load(row) * pm_v_splat(r->factor[d * r->factor_stride]);
    s = pm_v_fma(update, pm_v_splat(k), s);
    pm_v_store(row, s);
    return pm_v_fma(s, pm_v_splat(q), sum);
}

/// Adds k * update to the decayed state, and reads it by q.
PM_INLINE pm_vf recurrence_step(const recurrence *r, const float *k, pm_vf update, const float *q)
{
    pm_vf sums[4] = {{0}};
    PM_NO_UNROLL for (int64_t d = 0; d + 4 <= r->key_size; d += 4)
    {
        PM_UNROLL for (int i = 0; i < 4; i++)
            sums[i] = recurrence_row(r, d + i, k[d + i], update, q[d + i], sums[i]);
    }
    PM_NO_UNROLL for (int64_t d = r->key_size / 4 * 4; d < r->key_size; d++)
        sums[0] = recurrence_row(r, d, k[d], update, q[d], sums[0]);
    return recurrence_add(sums);
}

/// Reads the state by another q.
PM_INLINE pm_vf recurrence_read(const recurrence *r, const float *q)
{
    pm_vf sums[4] = {{0}};
    PM_NO_UNROLL for (int64_t d = 0; d + 4 <= r->key_size; d += 4)
    {
        PM_UNROLL for (int i = 0; i < 4; i++)
            sums[i] = pm_v_fma(pm_v_load(r->state + (d + i) * r->ld), pm_v_splat(q[d + i]), sums[i]);
    }
    PM_NO_UNROLL for (int64_t d = r->key_size / 4 * 4; d < r->key_size; d++)
        sums[0] = pm_v_fma(pm_v_load(r->state + d * r->ld), pm_v_splat(q[d]), sums[0]);
    return recurrence_add(sums);
}

PM_INLINE pm_vf load_lanes(const float *from, int64_t lanes)
{
    float values[PM_VW] = {0};
    if (lanes == PM_VW)
        return pm_v_load(from);
    for (int64_t i = 0; i < lanes; i++)
        values[i] = from[i];
    return pm_v_load(values);
}

PM_INLINE void store_lanes(float *to, pm_vf x, int64_t lanes)
{
    float values[PM_VW];
    if (lanes == PM_VW) {
        pm_v_store(to, x);
        return;
    }
    pm_v_store(values, x);
    for (int64_t i = 0; i < lanes; i++)
        to[i] = values[i];
}

/// e^decay of one token, in `factor`; how far its elements are apart.
PM_INLINE int64_t decay_factors(const float *decay, int64_t kind, int64_t heads, int64_t key_size,
                                int64_t row, int64_t head, float *factor)
{
    if (kind == DECAY_KEY) {
        const float *from = decay + (row * heads + head) * key_size;
        int64_t d = 0;
        PM_NO_UNROLL for (; d + PM_VW <= key_size; d += PM_VW)
            pm_v_store(factor + d, pm_v_exp(pm_v_load(from + d)));
        if (d < key_size)
            store_lanes(factor + d, pm_v_exp(load_lanes(from + d, key_size - d)), key_size - d);
        return 1;
    }
    if (kind == DECAY_NONE)
        factor[0] = 1.0f;
    else
        factor[0] = pm_v_exp(pm_v_splat(decay[(kind == DECAY_HEAD ? row * heads : 0) + head]))[0];
    return 0;
}

PM_KERNEL void pm_k_linear_attention(float *state, const float *q, const float *k, const float *v,
                                     const float *decay, const float *beta, const int64_t *past,
                                     float *y, int64_t batch, int64_t t, int64_t heads,
                                     int64_t q_heads, int64_t k_heads, int64_t key_size,
                                     int64_t value_size, int64_t decay_kind, int64_t beta_heads,
                                     int64_t delta, float scale, uint8_t *scratch, int64_t worker,
                                     int64_t n_workers)
{
    int64_t blocks = (value_size + PM_VW - 1) / PM_VW, begin, end;
    int64_t y_heads = pm_max_i64(q_heads, heads), sharing = y_heads / heads;
    float *factor = recurrent_scratch(scratch), *copy = factor + (key_size + PM_VW) / PM_VW * PM_VW;
    pm_share(batch * heads * blocks, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end; unit++)
    {
        int64_t at = unit % blocks * PM_VW, head = unit / blocks % heads, b = unit / blocks / heads;
        int64_t lanes = pm_min_i64(PM_VW, value_size - at), is_new = past != 0 && past[b] == 0;
        float *home = state + (b * heads + head) * key_size * value_size + at;
        /* a single token works where the state lies; many, on a copy that is dense */
        bool copies = t > 1 || lanes < PM_VW;
        recurrence r = {.state = copies ? copy : home, .ld = copies ? PM_VW : value_size,
                        .key_size = key_size, .factor = factor};
        PM_NO_UNROLL for (int64_t d = 0; (copies || is_new) && d < key_size; d++)
            pm_v_store(r.state + d * r.ld,
                       is_new ? pm_v_splat(0.0f) : load_lanes(home + d * value_size, lanes));
        PM_NO_UNROLL for (int64_t token = 0; token < t; token++)
        {
            int64_t row = b * t + token;
            const float *key = k + (row * k_heads + head / (heads / k_heads)) * key_size;
            r.factor_stride =
                decay_factors(decay, decay_kind, heads, key_size, row, head, factor);
            pm_vf update = load_lanes(v + (row * heads + head) * value_size + at, lanes);
            if (delta)
                update = update - recurrence_known(&r, key);
            if (beta)
                update = update * pm_v_splat(beta[beta_heads == 1 ? row : row * heads + head]);
            PM_NO_UNROLL for (int64_t i = 0; i < sharing; i++)
            {
                int64_t out = head * sharing + i;
                const float *query = q + (row * q_heads + out / (y_heads / q_heads)) * key_size;
                pm_vf sum = i == 0 ? recurrence_step(&r, key, update, query)
                                   : recurrence_read(&r, query);
                store_lanes(y + (row * y_heads + out) * value_size + at, sum * pm_v_splat(scale),
                            lanes);
            }
        }
        PM_NO_UNROLL for (int64_t d = 0; copies && d < key_size; d++)
            store_lanes(home + d * value_size, pm_v_load(copy + d * PM_VW), lanes);
    }
}

/* ---- selective state spaces ------------------------------------------------------------------------- */

/// to[n][c] = from[c][n], of `lanes` rows of `size`; lanes that aren't there become 0.
PM_INLINE void gather_columns(float *to, const float *from, int64_t size, int64_t lanes)
{
    int64_t n = 0;
    if (lanes == PM_VW) {
        PM_NO_UNROLL for (; n + PM_VW <= size; n += PM_VW)
            pm_v_transpose(from + n, size, to + n * PM_VW, PM_VW);
    }
    PM_NO_UNROLL for (; n < size; n++)
    {
        PM_NO_UNROLL for (int64_t c = 0; c < PM_VW; c++)
            to[n * PM_VW + c] = c < lanes ? from[c * size + n] : 0.0f;
    }
}

PM_INLINE void scatter_columns(float *to, const float *from, int64_t size, int64_t lanes)
{
    int64_t n = 0;
    if (lanes == PM_VW) {
        PM_NO_UNROLL for (; n + PM_VW <= size; n += PM_VW)
            pm_v_transpose(from + n * PM_VW, PM_VW, to + n, size);
    }
    PM_NO_UNROLL for (; n < size; n++)
    {
        PM_NO_UNROLL for (int64_t c = 0; c < lanes; c++)
            to[c * size + n] = from[n * PM_VW + c];
    }
}

/* A vector is one element of the states of PM_VW channels, which share the tokens' b and c. */
PM_KERNEL void pm_k_selective_scan(float *state, const float *x, const float *dt, const float *a,
                                   const float *b, const float *c, const int64_t *past, float *y,
                                   int64_t batch, int64_t t, int64_t channels, int64_t size,
                                   uint8_t *scratch, int64_t worker, int64_t n_workers)
{
    int64_t blocks = (channels + PM_VW - 1) / PM_VW, begin, end;
    float *s = recurrent_scratch(scratch), *rate = s + size * PM_VW;
    pm_share(batch * blocks, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t unit = begin; unit < end; unit++)
    {
        int64_t sequence = unit / blocks, first = unit % blocks * PM_VW;
        int64_t lanes = pm_min_i64(PM_VW, channels - first);
        float *home = state + (sequence * channels + first) * size;
        gather_columns(rate, a + first * size, size, lanes);
        gather_columns(s, home, size, lanes);
        PM_NO_UNROLL for (int64_t n = 0; past != 0 && past[sequence] == 0 && n < size; n++)
            pm_v_store(s + n * PM_VW, pm_v_splat(0.0f));
        PM_NO_UNROLL for (int64_t token = 0; token < t; token++)
        {
            int64_t row = sequence * t + token;
            pm_vf step = load_lanes(dt + row * channels + first, lanes), sum = {0};
            pm_vf input = step * load_lanes(x + row * channels + first, lanes);
            PM_NO_UNROLL for (int64_t n = 0; n < size; n++)
            {
                pm_vf value = pm_v_exp(step * pm_v_load(rate + n * PM_VW)) * pm_v_load(s + n * PM_VW);
                value = pm_v_fma(input, pm_v_splat(b[row * size + n]), value);
                pm_v_store(s + n * PM_VW, value);
                sum = pm_v_fma(value, pm_v_splat(c[row * size + n]), sum);
            }
            store_lanes(y + row * channels + first, sum, lanes);
        }
        scatter_columns(home, s, size, lanes);
    }
}
