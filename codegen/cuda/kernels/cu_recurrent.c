/* Recurrences over the tokens of a sequence. The state stays in registers while a block goes through all tokens, so
 * no element's bits depend on how tokens are cut into calls, or on what runs beside. */
#include "codegen/cuda/kernels/cu_common.h"

/* ---- short convolutions --------------------------------------------------------------------------------- */

/// Token `at` of a channel: those before 0 are in the state, of which there are `before`.
PM_DEVICE float conv_value(const float *state, const float *x, int64_t before, int64_t channels,
                                 int32_t is_new, int64_t at)
{
    if (at >= 0)
        return x[at * channels];
    return is_new ? 0.0f : state[before + at];
}

/* See causal_conv in ir/ops.def; bias and past may be NULL. A block for each 32 channels of a sequence, whose
 * warps share the tokens. */
PM_GLOBAL void pm_cu_causal_conv(float *state, const float *x, const float *w, const float *bias,
                                 const int64_t *past, float *y, int64_t batch, int64_t t, int64_t channels,
                                 int64_t before)
{
    int64_t n = PM_FIXED(BEFORE, before), all = PM_FIXED(CHANNELS, channels);
    int64_t pieces = pm_cu_ceil_div(all, CU_WARP), b = pm_block() / pieces;
    int64_t c = pm_block() % pieces * CU_WARP + pm_lane();
    if (b >= batch)
        return;
    int32_t is_new = past && past[b] == 0, is_there = c < all;
    float *kept = state + (b * all + c) * n;
    const float *from = x + b * t * all + c, *weight = w + c * (n + 1);
    for (int64_t at = pm_warp(); is_there && at < t; at += pm_threads() / CU_WARP) {
        float sum = bias ? bias[c] : 0.0f;
        for (int64_t i = 0; i <= n; i++)
            sum = pm_fmaf(conv_value(kept, from, n, all, is_new, at - n + i), weight[i], sum);
        y[(b * t + at) * all + c] = sum;
    }
    pm_sync(); /* all have read the state */
    for (int64_t i = 0; is_there && pm_warp() == 0 && i < n; i++) /* ascending: reads lie at or behind i */
        kept[i] = conv_value(kept, from, n, all, is_new, t - n + i);
}

/* ---- linear attention ----------------------------------------------------------------------------------- */

enum { CU_DECAY_NONE, CU_DECAY_HEAD, CU_DECAY_KEY, CU_DECAY_CONSTANT }; /* as pm_k_linear_attention counts them */

/* A column of a state is held by CU_PARTS lanes: lane p has rows p, p + CU_PARTS, … */
enum {
    CU_PARTS = 8,
    CU_LINEAR_THREADS = 128,
    CU_LINEAR_COLUMNS = CU_LINEAR_THREADS / CU_PARTS,
    CU_MAX_KEY = 256
};

#ifdef PM_CONST_KEY_SIZE
enum { CU_KEY_ROWS = (PM_CONST_KEY_SIZE + CU_PARTS - 1) / CU_PARTS };
#else
enum { CU_KEY_ROWS = CU_MAX_KEY / CU_PARTS };
#endif

/// What the lanes of a column have together.
PM_DEVICE float column_sum(float x)
{
    PM_UNROLL for (int32_t step = 1; step < CU_PARTS; step *= 2)
        x += pm_shfl_xor_f32(x, step);
    return x;
}

/// One head's state and operands; everything of a token is at its row.
typedef struct cu_linear {
    const float *decay, *beta;
    int64_t heads, head, decay_kind, beta_heads;
    int32_t key_size;
} cu_linear;

/// Loads a token's key and decay into shared memory: key[CU_MAX_KEY], factor[CU_MAX_KEY].
PM_DEVICE void linear_load(const cu_linear *l, const float *k, int64_t row, float *key, float *factor)
{
    for (int32_t d = pm_thread(); d < l->key_size; d += CU_LINEAR_THREADS) {
        float exponent = 0.0f;
        key[d] = k[d];
        if (l->decay_kind == CU_DECAY_KEY)
            exponent = l->decay[(row * l->heads + l->head) * l->key_size + d];
        else if (l->decay_kind != CU_DECAY_NONE)
            exponent = l->decay[(l->decay_kind == CU_DECAY_HEAD ? row * l->heads : 0) + l->head];
        factor[d] = l->decay_kind == CU_DECAY_NONE ? 1.0f : pm_expf(exponent);
    }
}

/* See linear_attention in ir/ops.def, and pm_k_linear_attention for the arguments. A block for each CU_LINEAR_COLUMNS
 * columns of a head's state; keys of up to CU_MAX_KEY elements. */
PM_GLOBAL void pm_cu_linear_attention(float *state, const float *q, const float *k, const float *v,
                                      const float *decay, const float *beta, const int64_t *past, float *y,
                                      int64_t batch, int64_t t, int64_t heads, int64_t q_heads, int64_t k_heads,
                                      int64_t key_size, int64_t value_size, int64_t decay_kind,
                                      int64_t beta_heads, int64_t delta, int64_t scale)
{
    PM_SHARED(float, key, CU_MAX_KEY);
    PM_SHARED(float, factor, CU_MAX_KEY);
    PM_SHARED(float, query, CU_MAX_KEY);
    float s[CU_KEY_ROWS];
    cu_linear l;
    l.decay = decay;
    l.beta = beta;
    l.heads = PM_FIXED(HEADS, heads);
    l.decay_kind = PM_FIXED(DECAY_KIND, decay_kind);
    l.beta_heads = PM_FIXED(BETA_HEADS, beta_heads);
    l.key_size = (int32_t)PM_FIXED(KEY_SIZE, key_size);
    int64_t values = PM_FIXED(VALUE_SIZE, value_size), of_q = PM_FIXED(Q_HEADS, q_heads);
    int64_t of_k = PM_FIXED(K_HEADS, k_heads), y_heads = pm_cu_max(of_q, l.heads), sharing = y_heads / l.heads;
    int64_t pieces = pm_cu_ceil_div(values, CU_LINEAR_COLUMNS), unit = pm_block() / pieces, b = unit / l.heads;
    int64_t column = pm_block() % pieces * CU_LINEAR_COLUMNS + pm_thread() / CU_PARTS;
    int32_t part = pm_thread() % CU_PARTS, is_there = column < values;
    if (b >= batch)
        return;
    l.head = unit % l.heads;
    int32_t is_new = past && past[b] == 0;
    float *home = state + unit * l.key_size * values + column;
    PM_UNROLL for (int32_t i = 0; i < CU_KEY_ROWS; i++)
    {
        int32_t d = i * CU_PARTS + part;
        s[i] = is_there && !is_new && d < l.key_size ? home[d * values] : 0.0f;
    }
    for (int64_t token = 0; token < t; token++) {
        int64_t row = b * t + token;
        linear_load(&l, k + (row * of_k + l.head / (l.heads / of_k)) * l.key_size, row, key, factor);
        pm_sync();
        float known = 0.0f, update = is_there ? v[(row * l.heads + l.head) * values + column] : 0.0f;
        PM_UNROLL for (int32_t i = 0; i < CU_KEY_ROWS; i++)
        {
            int32_t d = i * CU_PARTS + part;
            if (d < l.key_size) {
                s[i] *= factor[d];
                known = pm_fmaf(s[i], key[d], known);
            }
        }
        if (PM_FIXED(DELTA, delta))
            update -= column_sum(known);
        if (beta)
            update *= beta[l.beta_heads == 1 ? row : row * l.heads + l.head];
        PM_UNROLL for (int32_t i = 0; i < CU_KEY_ROWS; i++)
        {
            int32_t d = i * CU_PARTS + part;
            if (d < l.key_size)
                s[i] = pm_fmaf(update, key[d], s[i]);
        }
        for (int64_t j = 0; j < sharing; j++) {
            int64_t out = l.head * sharing + j;
            const float *from = q + (row * of_q + out / (y_heads / of_q)) * l.key_size;
            pm_sync();
            for (int32_t d = pm_thread(); d < l.key_size; d += CU_LINEAR_THREADS)
                query[d] = from[d];
            pm_sync();
            float sum = 0.0f;
            PM_UNROLL for (int32_t i = 0; i < CU_KEY_ROWS; i++)
            {
                int32_t d = i * CU_PARTS + part;
                if (d < l.key_size)
                    sum = pm_fmaf(s[i], query[d], sum);
            }
            sum = column_sum(sum);
            if (is_there && part == 0)
                y[(row * y_heads + out) * values + column] = sum * (float)PM_WORD_F64(scale);
        }
    }
    PM_UNROLL for (int32_t i = 0; i < CU_KEY_ROWS; i++)
    {
        int32_t d = i * CU_PARTS + part;
        if (is_there && d < l.key_size)
            home[d * values] = s[i];
    }
}

/* ---- selective state spaces ----------------------------------------------------------------------------- */

enum { CU_SCAN_THREADS = 64, CU_MAX_SCAN = 64 };

#ifdef PM_CONST_SIZE
enum { CU_SCAN_SIZE = PM_CONST_SIZE };
#else
enum { CU_SCAN_SIZE = CU_MAX_SCAN };
#endif

/* See selective_scan in ir/ops.def; past may be NULL. A thread for each channel, whose state of up to CU_MAX_SCAN
 * elements it holds. */
PM_GLOBAL void pm_cu_selective_scan(float *state, const float *x, const float *dt, const float *a, const float *b,
                                    const float *c, const int64_t *past, float *y, int64_t batch, int64_t t,
                                    int64_t channels, int64_t size)
{
    PM_SHARED(float, shared_b, CU_MAX_SCAN);
    PM_SHARED(float, shared_c, CU_MAX_SCAN);
    float s[CU_SCAN_SIZE], rate[CU_SCAN_SIZE];
    int32_t n = (int32_t)PM_FIXED(SIZE, size);
    int64_t all = PM_FIXED(CHANNELS, channels), pieces = pm_cu_ceil_div(all, CU_SCAN_THREADS);
    int64_t sequence = pm_block() / pieces, channel = pm_block() % pieces * CU_SCAN_THREADS + pm_thread();
    if (sequence >= batch)
        return;
    int32_t is_there = channel < all, is_new = past && past[sequence] == 0;
    float *home = state + (sequence * all + channel) * n;
    PM_UNROLL for (int32_t i = 0; i < CU_SCAN_SIZE; i++)
    {
        s[i] = is_there && !is_new && i < n ? home[i] : 0.0f;
        rate[i] = is_there && i < n ? a[channel * n + i] : 0.0f;
    }
    for (int64_t token = 0; token < t; token++) {
        int64_t row = sequence * t + token;
        pm_sync();
        if (pm_thread() < n) {
            shared_b[pm_thread()] = b[row * n + pm_thread()];
            shared_c[pm_thread()] = c[row * n + pm_thread()];
        }
        pm_sync();
        float step = is_there ? dt[row * all + channel] : 0.0f, sum = 0.0f;
        float input = is_there ? step * x[row * all + channel] : 0.0f;
        PM_UNROLL for (int32_t i = 0; i < CU_SCAN_SIZE; i++)
        {
            if (i < n) {
                s[i] = pm_fmaf(pm_expf(step * rate[i]), s[i], input * shared_b[i]);
                sum = pm_fmaf(s[i], shared_c[i], sum);
            }
        }
        if (is_there)
            y[row * all + channel] = sum;
    }
    PM_UNROLL for (int32_t i = 0; i < CU_SCAN_SIZE; i++)
    {
        if (is_there && i < n)
            home[i] = s[i];
    }
}
