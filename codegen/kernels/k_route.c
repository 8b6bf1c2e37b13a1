/* Chooses experts, and sorts tokens by expert. */
#include "codegen/kernels/vec.h"

enum { ROUTE_SOFTMAX, ROUTE_SIGMOID, ROUTE_SQRTSOFTPLUS, ROUTE_NONE };
enum { WEIGH_AS_IS, WEIGH_SOFTMAX, WEIGH_RENORM };
enum { GROUP_MAX, GROUP_TOP2 };
enum { SELECT_TOPK, SELECT_SPARSEMIXER };

/// The activated scores of one row. Sums run over 16 lanes, lane by lane, so that they vectorise and
/// have one order on every target.
PM_INLINE void route_activate(const float *score, float *active, int64_t experts, int64_t act)
{
    if (act == ROUTE_NONE) {
        for (int64_t e = 0; e < experts; e++)
            active[e] = score[e];
        return;
    }
    if (act == ROUTE_SIGMOID) {
        for (int64_t e = 0; e < experts; e++)
            active[e] = pm_m_sigmoid(score[e]);
        return;
    }
    if (act == ROUTE_SQRTSOFTPLUS) {
        for (int64_t e = 0; e < experts; e++)
            active[e] = __builtin_elementwise_sqrt(pm_m_softplus(score[e]));
        return;
    }
    float largest = score[0], lanes[16] = {0};
    for (int64_t e = 1; e < experts; e++)
        largest = score[e] > largest ? score[e] : largest;
    for (int64_t e = 0; e < experts; e++)
        active[e] = pm_m_exp(score[e] - largest);
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e += 16)
    {
        for (int64_t i = 0; i < 16; i++)
            lanes[i] += e + i < experts ? active[e + i] : 0.0f;
    }
    float sum = 0.0f;
    for (int64_t i = 0; i < 16; i++)
        sum += lanes[i];
    for (int64_t e = 0; e < experts; e++)
        active[e] = active[e] / sum;
}

/* What experts are chosen by, as integers in the order of the floats: NaN is the largest, the two zeros
 * are equal. TAKEN is less than any. Integers, since searching them vectorises. */
enum { TAKEN = INT32_MIN };

PM_INLINE int32_t route_key(float x)
{
    int32_t bits = (int32_t)pm_bits_of(x + 0.0f);
    return x != x ? INT32_MAX : bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1);
}

/// Index of the first largest key, which is then taken.
PM_INLINE int64_t route_take(int32_t *key, int64_t n)
{
    int32_t best = TAKEN, at = INT32_MAX;
    for (int64_t i = 0; i < n; i++)
        best = key[i] > best ? key[i] : best;
    for (int64_t i = 0; i < n; i++) {
        int32_t here = key[i] == best ? (int32_t)i : INT32_MAX;
        at = here < at ? here : at;
    }
    key[at] = TAKEN;
    return at;
}

/// Takes all experts out of the choice that are not in the best keep_groups groups.
PM_INLINE void route_limit_groups(const float *choice, int32_t *key, int32_t *group_key,
                                  int64_t experts, int64_t groups, int64_t keep_groups,
                                  int64_t group_score)
{
    int64_t size = experts / groups;
    PM_NO_UNROLL for (int64_t g = 0; g < groups; g++)
    {
        float first = -__builtin_inff(), second = -__builtin_inff();
        PM_NO_UNROLL for (int64_t i = g * size; i < (g + 1) * size; i++)
        {
            float x = choice[i];
            second = x > first ? first : x > second ? x : second;
            first = x > first || x != x ? x : first;
        }
        group_key[g] = route_key(group_score == GROUP_TOP2 && size > 1 ? first + second : first);
    }
    PM_NO_UNROLL for (int64_t i = 0; i < keep_groups; i++)
        route_take(group_key, groups);
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
        key[e] = group_key[e / size] == TAKEN ? key[e] : TAKEN;
}

PM_INLINE void route_weigh(float *weight, int64_t top_k, int64_t weigh, float eps, float least,
                             float scale)
{
    float sum = 0.0f, largest = weight[0];
    if (weigh == WEIGH_SOFTMAX) {
        PM_NO_UNROLL for (int64_t i = 1; i < top_k; i++)
            largest = weight[i] > largest ? weight[i] : largest;
        PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
            weight[i] = pm_m_exp(weight[i] - largest);
    }
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
        sum += weight[i];
    if (weigh == WEIGH_RENORM)
        sum = sum + eps < least ? least : sum + eps;
    if (weigh == WEIGH_AS_IS)
        sum = 1.0f;
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
        weight[i] = weight[i] / sum * scale;
}

/// One row of sparsemixer: see route in ir/ops.def.
PM_INLINE void route_sparse(const float *score, int32_t *key, int32_t *expert, float *weight,
                            int64_t experts, int64_t top_k, float jitter)
{
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
    {
        float close = 0.0f;
        int64_t best = route_take(key, experts);
        PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
        {
            float magnitude = __builtin_fabsf(score[e]);
            float factor = magnitude > score[best] ? magnitude : score[best];
            bool is_close = !((score[best] - score[e]) / factor > 2.0f * jitter);
            if ((key[e] != TAKEN || e == best) && is_close)
                close += pm_m_exp(score[e] - score[best]);
        }
        expert[i] = (int32_t)best;
        weight[i] = 1.0f / close;
    }
}

PM_KERNEL void pm_k_route(const float *scores, const float *bias, const float *weighing,
                          int32_t *expert, float *weight, int64_t m, int64_t experts, int64_t top_k,
                          int64_t act, int64_t weigh, float eps, float least, float scale,
                          int64_t groups, int64_t keep_groups, int64_t group_score, int64_t select,
                          float jitter, uint8_t *scratch, int64_t worker, int64_t n_workers)
{
    float *active = (float *)scratch, *choice = active + experts;
    int32_t *key = (int32_t *)(choice + experts), *group_key = key + experts;
    int64_t begin, end;
    pm_share(m, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t row = begin; row < end; row++)
    {
        route_activate(scores + row * experts, active, experts,
                       select == SELECT_SPARSEMIXER ? ROUTE_NONE : act);
        for (int64_t e = 0; e < experts; e++) {
            choice[e] = bias ? active[e] + bias[e] : active[e];
            key[e] = route_key(choice[e]);
        }
        if (keep_groups < groups)
            route_limit_groups(choice, key, group_key, experts, groups, keep_groups, group_score);
        if (select == SELECT_SPARSEMIXER) {
            route_sparse(active, key, expert + row * top_k, weight + row * top_k, experts, top_k,
                         jitter);
        } else {
            PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
            {
                int64_t best = route_take(key, experts);
                expert[row * top_k + i] = (int32_t)best;
                weight[row * top_k + i] = weighing ? weighing[row * experts + best] : active[best];
            }
        }
        route_weigh(weight + row * top_k, top_k, weigh, eps, least, scale);
    }
}

PM_KERNEL int32_t pm_k_expert_order(const int32_t *expert, int32_t *token, int32_t *offsets,
                                    int32_t *slot, int64_t m, int64_t top_k, int64_t experts,
                                    int64_t worker, int64_t n_workers)
{
    (void)n_workers;
    if (worker != 0)
        return 0;
    int64_t choices = m * top_k;
    PM_NO_UNROLL for (int64_t e = 0; e <= experts; e++)
        offsets[e] = 0;
    PM_NO_UNROLL for (int64_t i = 0; i < choices; i++)
    {
        if (expert[i] < 0 || expert[i] >= experts)
            return 1;
        offsets[expert[i] + 1]++;
    }
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
        offsets[e + 1] += offsets[e];
    /* offsets[e] runs ahead to offsets[e + 1] while rows are placed, and is moved back after */
    PM_NO_UNROLL for (int64_t i = 0; i < choices; i++)
    {
        int32_t row = offsets[expert[i]]++;
        token[row] = (int32_t)(i / top_k);
        slot[i] = row;
    }
    PM_NO_UNROLL for (int64_t e = experts; e > 0; e--)
        offsets[e] = offsets[e - 1];
    offsets[0] = 0;
    return 0;
}
