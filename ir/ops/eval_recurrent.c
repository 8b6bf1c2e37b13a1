/// Recurrences over the tokens of a sequence: short convolutions, linear attention, state space scans.
/// The state is read from operand 0 and written to result 0, which may be the same memory.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_causal_conv, pm_eval_linear_attention, pm_eval_selective_scan;

PM_INLINE double value_at(const pm_tensor *t, int64_t at)
{
    return pm_get_f64(t->data, t->elem, at);
}

/// Element `at` of the state as it was, which counts as zero when its sequence has seen nothing.
PM_INLINE double state_at(const pm_tensor *state, int32_t is_new, int64_t at)
{
    return is_new ? 0 : value_at(state, at);
}

PM_INLINE int32_t starts_anew(const pm_eval_args *args, int32_t past, int64_t b)
{
    return pm_has(args, past) && pm_get_i64(args->in[past].data, args->in[past].elem, b) == 0;
}

/// [B, T, width] with the batch of operand 0 and the tokens of operand 1.
PM_INLINE int32_t has_rows(const pm_eval_args *args, const pm_tensor *t, int64_t width)
{
    return t->rank == 3 && t->dims[0] == args->in[0].dims[0] && t->dims[1] == args->in[1].dims[1] &&
           t->dims[2] == width;
}

PM_INLINE int32_t fits_past(const pm_eval_args *args, int32_t past)
{
    return !pm_has(args, past) || pm_elements(&args->in[past]) == args->in[0].dims[0];
}

/* ---- short convolutions ------------------------------------------------------------------------- */

int32_t pm_eval_causal_conv(const pm_eval_args *args)
{
    enum { STATE, X, W, BIAS, PAST };
    const pm_tensor *state = &args->in[STATE], *x = &args->in[X], *w = &args->in[W];
    const pm_tensor *out = &args->out[0], *y = &args->out[1];
    if (state->rank != 3 || x->rank != 3 || w->rank != 3 || !pm_same_dims(state, out) ||
        !pm_same_dims(x, y))
        return 1;
    int64_t channels = state->dims[1], before = state->dims[2], tokens = x->dims[1];
    if (!has_rows(args, x, channels) || w->dims[0] != channels || w->dims[1] != 1 ||
        w->dims[2] != before + 1 || !fits_past(args, PAST) ||
        (pm_has(args, BIAS) && pm_elements(&args->in[BIAS]) != channels))
        return 1;
    for (int64_t b = 0; b < state->dims[0]; b++) {
        int32_t is_new = starts_anew(args, PAST, b);
        for (int64_t c = 0; c < channels; c++) {
            int64_t row = b * tokens * channels + c, kept = (b * channels + c) * before;
            for (int64_t t = 0; t < tokens; t++) {
                double sum = pm_has(args, BIAS) ? value_at(&args->in[BIAS], c) : 0;
                for (int64_t i = 0; i <= before; i++) {
                    int64_t from = t - before + i; // negative: among what the state holds
                    double value = from < 0 ? state_at(state, is_new, kept + before + from)
                                            : value_at(x, row + from * channels);
                    sum += value * value_at(w, c * (before + 1) + i);
                }
                pm_set_f64(y->data, y->elem, row + t * channels, sum);
            }
            for (int64_t i = 0; i < before; i++) { // ascending: what is read lies at or behind i
                int64_t from = tokens - before + i;
                double value = from < 0 ? state_at(state, is_new, kept + before + from)
                                        : value_at(x, row + from * channels);
                pm_set_f64(out->data, out->elem, kept + i, value);
            }
        }
    }
    return 0;
}

/* ---- linear attention --------------------------------------------------------------------------- */

/// One column of one head's state, over all tokens of a sequence.
typedef struct column {
    const pm_eval_args *args;
    const pm_tensor *state;
    int64_t heads, key_size, value_size, tokens;
    int64_t q_heads, k_heads, y_heads;
    int64_t batch, head, at;
} column;

enum { LA_STATE, LA_Q, LA_K, LA_V, LA_DECAY, LA_BETA, LA_PAST };

PM_INLINE double decay_of(const column *c, int64_t row, int64_t d)
{
    const pm_tensor *decay = &c->args->in[LA_DECAY];
    if (!pm_has(c->args, LA_DECAY))
        return 1;
    if (decay->rank == 1)
        return exp(value_at(decay, c->head));
    if (decay->dims[2] == c->heads)
        return exp(value_at(decay, row * c->heads + c->head));
    return exp(value_at(decay, (row * c->heads + c->head) * c->key_size + d));
}

PM_INLINE double beta_of(const column *c, int64_t row)
{
    const pm_tensor *beta = &c->args->in[LA_BETA];
    if (!pm_has(c->args, LA_BETA))
        return 1;
    return value_at(beta, beta->dims[2] == 1 ? row : row * c->heads + c->head);
}

/// Where element d of the state's column lies.
PM_INLINE int64_t cell(const column *c, int64_t d)
{
    return ((c->batch * c->heads + c->head) * c->key_size + d) * c->value_size + c->at;
}

PM_INLINE void step_column(const column *c, int64_t t, int32_t delta)
{
    const pm_eval_args *args = c->args;
    int64_t row = c->batch * c->tokens + t;
    int64_t k_at = (row * c->k_heads + c->head / (c->heads / c->k_heads)) * c->key_size;
    double known = 0, update;
    for (int64_t d = 0; d < c->key_size; d++) {
        double s = decay_of(c, row, d) * value_at(c->state, cell(c, d));
        pm_set_f64(c->state->data, c->state->elem, cell(c, d), s);
        known += s * value_at(&args->in[LA_K], k_at + d);
    }
    update = value_at(&args->in[LA_V], (row * c->heads + c->head) * c->value_size + c->at);
    update = beta_of(c, row) * (delta ? update - known : update);
    for (int64_t d = 0; d < c->key_size; d++) {
        double s = value_at(c->state, cell(c, d)) + update * value_at(&args->in[LA_K], k_at + d);
        pm_set_f64(c->state->data, c->state->elem, cell(c, d), s);
    }
}

PM_INLINE void read_column(const column *c, int64_t t)
{
    const pm_eval_args *args = c->args;
    const pm_tensor *q = &args->in[LA_Q], *y = &args->out[1];
    int64_t row = c->batch * c->tokens + t, sharing = c->y_heads / c->heads;
    for (int64_t i = 0; i < sharing; i++) {
        int64_t head = c->head * sharing + i;
        int64_t q_at = (row * c->q_heads + head / (c->y_heads / c->q_heads)) * c->key_size;
        double sum = 0;
        for (int64_t d = 0; d < c->key_size; d++)
            sum += value_at(c->state, cell(c, d)) * value_at(q, q_at + d);
        pm_set_f64(y->data, y->elem, (row * c->y_heads + head) * c->value_size + c->at,
                   args->attrs[1].f * sum);
    }
}

PM_INLINE int32_t fits_attention(const pm_eval_args *args, column *c)
{
    const pm_tensor *state = &args->in[LA_STATE], *q = &args->in[LA_Q], *k = &args->in[LA_K];
    if (state->rank != 4 || q->rank != 3 || k->rank != 3 || !pm_same_dims(state, &args->out[0]))
        return 0;
    *c = (column){.args = args, .state = &args->out[0], .heads = state->dims[1],
                  .key_size = state->dims[2], .value_size = state->dims[3], .tokens = q->dims[1]};
    if (c->heads < 1 || c->key_size < 1)
        return 0;
    c->q_heads = q->dims[2] / c->key_size;
    c->k_heads = k->dims[2] / c->key_size;
    c->y_heads = c->q_heads > c->heads ? c->q_heads : c->heads;
    if (c->q_heads < 1 || c->k_heads < 1 || c->heads % c->k_heads != 0 ||
        c->y_heads % c->q_heads != 0 || c->y_heads % c->heads != 0 ||
        !has_rows(args, q, c->q_heads * c->key_size) ||
        !has_rows(args, k, c->k_heads * c->key_size) ||
        !has_rows(args, &args->in[LA_V], c->heads * c->value_size) ||
        !has_rows(args, &args->out[1], c->y_heads * c->value_size) || !fits_past(args, LA_PAST))
        return 0;
    if (pm_has(args, LA_DECAY)) {
        const pm_tensor *decay = &args->in[LA_DECAY];
        if (decay->rank == 1 ? decay->dims[0] != c->heads
                             : !has_rows(args, decay, c->heads) &&
                                   !has_rows(args, decay, c->heads * c->key_size))
            return 0;
    }
    return !pm_has(args, LA_BETA) || has_rows(args, &args->in[LA_BETA], 1) ||
           has_rows(args, &args->in[LA_BETA], c->heads);
}

int32_t pm_eval_linear_attention(const pm_eval_args *args)
{
    column c;
    if (!fits_attention(args, &c))
        return 1;
    const pm_tensor *old = &args->in[LA_STATE];
    for (c.batch = 0; c.batch < old->dims[0]; c.batch++) {
        int32_t is_new = starts_anew(args, LA_PAST, c.batch);
        for (c.head = 0; c.head < c.heads; c.head++)
            for (c.at = 0; c.at < c.value_size; c.at++) {
                for (int64_t d = 0; d < c.key_size; d++)
                    pm_set_f64(c.state->data, c.state->elem, cell(&c, d),
                               state_at(old, is_new, cell(&c, d)));
                for (int64_t t = 0; t < c.tokens; t++) {
                    step_column(&c, t, args->attrs[0].i != 0);
                    read_column(&c, t);
                }
            }
    }
    return 0;
}

/* ---- selective state spaces --------------------------------------------------------------------- */

int32_t pm_eval_selective_scan(const pm_eval_args *args)
{
    enum { STATE, X, DT, A, B, C, PAST };
    const pm_tensor *old = &args->in[STATE], *x = &args->in[X], *dt = &args->in[DT];
    const pm_tensor *a = &args->in[A], *state = &args->out[0], *y = &args->out[1];
    if (old->rank != 3 || x->rank != 3 || a->rank != 2 || !pm_same_dims(old, state) ||
        !pm_same_dims(x, y))
        return 1;
    int64_t channels = old->dims[1], size = old->dims[2], tokens = x->dims[1];
    if (!has_rows(args, x, channels) || !has_rows(args, dt, channels) || a->dims[0] != channels ||
        a->dims[1] != size || !has_rows(args, &args->in[B], size) ||
        !has_rows(args, &args->in[C], size) || !fits_past(args, PAST))
        return 1;
    for (int64_t b = 0; b < old->dims[0]; b++) {
        int32_t is_new = starts_anew(args, PAST, b);
        for (int64_t c = 0; c < channels; c++) {
            int64_t first = (b * channels + c) * size;
            for (int64_t n = 0; n < size; n++)
                pm_set_f64(state->data, state->elem, first + n, state_at(old, is_new, first + n));
            for (int64_t t = 0; t < tokens; t++) {
                int64_t row = b * tokens + t;
                double step = value_at(dt, row * channels + c), sum = 0;
                double input = step * value_at(x, row * channels + c);
                for (int64_t n = 0; n < size; n++) {
                    double s = exp(step * value_at(a, c * size + n)) *
                                   value_at(state, first + n) +
                               input * value_at(&args->in[B], row * size + n);
                    pm_set_f64(state->data, state->elem, first + n, s);
                    sum += s * value_at(&args->in[C], row * size + n);
                }
                pm_set_f64(y->data, y->elem, row * channels + c, sum);
            }
        }
    }
    return 0;
}
