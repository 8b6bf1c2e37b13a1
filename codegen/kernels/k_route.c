/* Chooses experts, and sorts tokens by expert. */
#include "codegen/kernels/math_inline.h"

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

/* ---- many rows at once, one in each lane: the same operations in the same order, so the same bits --------- */

/// Transposes PM_VW rows of scores to vectors of what experts have.
PM_INLINE void lanes_load(const float *rows, float *to, int64_t experts)
{
    int64_t e = 0;
    PM_NO_UNROLL for (; e + PM_VW <= experts; e += PM_VW)
        pm_v_transpose(rows + e, experts, to + e * PM_VW, PM_VW);
    if (e < experts)
        pm_v_transpose_part(rows + e, experts, experts - e, to + e * PM_VW, PM_VW);
}

/// As route_activate.
PM_INLINE void lanes_activate(float *active, int64_t experts, int64_t act)
{
    if (act == ROUTE_NONE)
        return;
    if (act == ROUTE_SIGMOID) {
        for (int64_t i = 0; i < experts * PM_VW; i++)
            active[i] = pm_m_sigmoid(active[i]);
        return;
    }
    if (act == ROUTE_SQRTSOFTPLUS) {
        for (int64_t i = 0; i < experts * PM_VW; i++)
            active[i] = __builtin_elementwise_sqrt(pm_m_softplus(active[i]));
        return;
    }
    pm_vf largest = pm_v_load(active), sum = pm_v_splat(0.0f);
    PM_NO_UNROLL for (int64_t e = 1; e < experts; e++)
        largest = pm_v_max(pm_v_load(active + e * PM_VW), largest);
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
        pm_v_store(active + e * PM_VW, pm_v_exp(pm_v_load(active + e * PM_VW) - largest));
    int64_t chains = pm_min_i64(experts, 16);
    PM_NO_UNROLL for (int64_t i = 0; i < chains; i++)
    {
        pm_vf part = pm_v_splat(0.0f);
        PM_NO_UNROLL for (int64_t e = i; e < experts; e += 16)
            part = part + pm_v_load(active + e * PM_VW);
        sum = sum + part;
    }
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
        pm_v_store(active + e * PM_VW, pm_v_load(active + e * PM_VW) / sum);
}

PM_INLINE pm_vi lanes_key(pm_vf x)
{
    pm_vi bits = (pm_vi)(x + pm_v_splat(0.0f));
    pm_vi key = bits ^ (pm_vi)((pm_vu)(bits >> 31) >> 1);
    pm_vi is_nan = x != x;
    return (is_nan & INT32_MAX) | (~is_nan & key);
}

/// As route_take; *worth becomes what the one that is taken has there.
PM_INLINE pm_vi lanes_take(int32_t *key, int64_t n, const float *from, pm_vf *worth)
{
    pm_vi best = *(const pm_vi *)key, at = pm_v_splat_i(0);
    *worth = pm_v_load(from);
    PM_NO_UNROLL for (int64_t i = 1; i < n; i++)
    {
        pm_vi here = *(const pm_vi *)(key + i * PM_VW), better = here > best;
        best = (here & better) | (best & ~better);
        at = (pm_v_splat_i((int32_t)i) & better) | (at & ~better);
        *worth = pm_v_select(better, pm_v_load(from + i * PM_VW), *worth);
    }
    PM_NO_UNROLL for (int64_t i = 0; i < n; i++)
    {
        pm_vi *here = (pm_vi *)(key + i * PM_VW), taken = at == (int32_t)i;
        *here = (pm_v_splat_i(TAKEN) & taken) | (*here & ~taken);
    }
    return at;
}

/// As route_limit_groups.
PM_INLINE void lanes_limit_groups(const float *choice, int32_t *key, int32_t *group_key,
                                  int64_t experts, int64_t groups, int64_t keep_groups,
                                  int64_t group_score)
{
    int64_t size = experts / groups;
    PM_NO_UNROLL for (int64_t g = 0; g < groups; g++)
    {
        pm_vf first = pm_v_splat(-__builtin_inff()), second = first;
        PM_NO_UNROLL for (int64_t i = g * size; i < (g + 1) * size; i++)
        {
            pm_vf x = pm_v_load(choice + i * PM_VW);
            second = pm_v_select(x > first, first, pm_v_max(x, second));
            first = pm_v_select((x > first) | (x != x), x, first);
        }
        *(pm_vi *)(group_key + g * PM_VW) =
            lanes_key(group_score == GROUP_TOP2 && size > 1 ? first + second : first);
    }
    pm_vf none;
    PM_NO_UNROLL for (int64_t i = 0; i < keep_groups; i++)
        lanes_take(group_key, groups, choice, &none);
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
    {
        pm_vi *here = (pm_vi *)(key + e * PM_VW);
        pm_vi kept = *(const pm_vi *)(group_key + e / size * PM_VW) == TAKEN;
        *here = (*here & kept) | (pm_v_splat_i(TAKEN) & ~kept);
    }
}

/// As route_weigh.
PM_INLINE void lanes_weigh(float *weight, int64_t top_k, int64_t weigh, float eps, float least,
                           float scale)
{
    pm_vf sum = pm_v_splat(0.0f), largest = pm_v_load(weight);
    if (weigh == WEIGH_SOFTMAX) {
        PM_NO_UNROLL for (int64_t i = 1; i < top_k; i++)
            largest = pm_v_max(pm_v_load(weight + i * PM_VW), largest);
        PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
            pm_v_store(weight + i * PM_VW, pm_v_exp(pm_v_load(weight + i * PM_VW) - largest));
    }
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
        sum = sum + pm_v_load(weight + i * PM_VW);
    if (weigh == WEIGH_RENORM) {
        sum = sum + eps;
        sum = pm_v_select(sum < least, pm_v_splat(least), sum);
    }
    if (weigh == WEIGH_AS_IS)
        sum = pm_v_splat(1.0f);
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
        pm_v_store(weight + i * PM_VW, pm_v_load(weight + i * PM_VW) / sum * scale);
}

/// Experts for which rows are taken many at once: their vectors fit scratch and the first cache.
enum { LANES_EXPERTS = 64 };
_Static_assert(PM_K_ROUTE_SCRATCH(0) >= 6 * LANES_EXPERTS * 16 * 4 + 64, "lanes fit scratch");

/// PM_VW rows. scratch: 6 vectors for each expert.
PM_INLINE void route_lanes(const float *scores, const float *bias, const float *weighing,
                           int32_t *expert, float *weight, int64_t experts, int64_t top_k,
                           int64_t act, int64_t weigh, float eps, float least, float scale,
                           int64_t groups, int64_t keep_groups, int64_t group_score, float *scratch)
{
    float *active = scratch, *choice = active + experts * PM_VW, *given = choice + experts * PM_VW;
    int32_t *key = (int32_t *)(given + experts * PM_VW), *group_key = key + experts * PM_VW;
    float *weights = (float *)(group_key + experts * PM_VW);
    lanes_load(scores, active, experts);
    lanes_activate(active, experts, act);
    PM_NO_UNROLL for (int64_t e = 0; e < experts; e++)
    {
        pm_vf x = pm_v_load(active + e * PM_VW);
        if (bias)
            x = x + bias[e];
        pm_v_store(choice + e * PM_VW, x);
        *(pm_vi *)(key + e * PM_VW) = lanes_key(x);
    }
    if (weighing)
        lanes_load(weighing, given, experts);
    if (keep_groups < groups)
        lanes_limit_groups(choice, key, group_key, experts, groups, keep_groups, group_score);
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
    {
        pm_vf worth;
        pm_vi best = lanes_take(key, experts, weighing ? given : active, &worth);
        pm_v_store(weights + i * PM_VW, worth);
        PM_UNROLL for (int lane = 0; lane < PM_VW; lane++)
            expert[lane * top_k + i] = best[lane];
    }
    lanes_weigh(weights, top_k, weigh, eps, least, scale);
    PM_NO_UNROLL for (int64_t i = 0; i < top_k; i++)
    {
        pm_vf worth = pm_v_load(weights + i * PM_VW);
        PM_UNROLL for (int lane = 0; lane < PM_VW; lane++)
            weight[lane * top_k + i] = worth[lane];
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
    int64_t row = begin;
    if (select == SELECT_TOPK && experts <= LANES_EXPERTS) {
        float *lanes = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
        PM_NO_UNROLL for (; row + PM_VW <= end; row += PM_VW)
            route_lanes(scores + row * experts, bias,
                        weighing ? weighing + row * experts : NULL, expert + row * top_k,
                        weight + row * top_k, experts, top_k, act, weigh, eps, least, scale, groups,
                        keep_groups, group_score, lanes);
    }
    PM_NO_UNROLL for (; row < end; row++)
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
