/* Chooses experts, and sorts rows by expert. */
#include "codegen/cuda/kernels/cu_common.h"

/* as pm_k_route counts them */
enum { CU_ACT_SOFTMAX, CU_ACT_SIGMOID, CU_ACT_SQRTSOFTPLUS, CU_ACT_NONE };
enum { CU_WEIGH_AS_IS, CU_WEIGH_SOFTMAX, CU_WEIGH_RENORM };
enum { CU_GROUP_MAX, CU_GROUP_TOP2 };
enum { CU_SELECT_TOPK, CU_SELECT_SPARSEMIXER };

/* What experts are chosen by, as integers in the order of the floats: NaN is the largest, the two zeros are
 * equal. CU_TAKEN is less than any. */
#define CU_TAKEN (-2147483647 - 1)
#define CU_NOWHERE 2147483647

PM_DEVICE int32_t route_key(float x)
{
    int32_t bits = (int32_t)pm_bits_of_f32(x + 0.0f);
    return x != x ? CU_NOWHERE : bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1);
}

/// Index of the first largest key, which is then taken. All lanes of the warp call it and get the index.
PM_DEVICE int32_t route_take(int32_t *key, int32_t n)
{
    int32_t best = CU_TAKEN, at = CU_NOWHERE;
    for (int32_t i = pm_lane(); i < n; i += CU_WARP) {
        if (key[i] > best) {
            best = key[i];
            at = i;
        }
    }
    PM_UNROLL for (int32_t step = CU_WARP / 2; step > 0; step /= 2)
    {
        int32_t other = (int32_t)pm_shfl_xor_u32((uint32_t)best, step);
        int32_t other_at = (int32_t)pm_shfl_xor_u32((uint32_t)at, step);
        if (other > best || (other == best && other_at < at)) {
            best = other;
            at = other_at;
        }
    }
    if (at == CU_NOWHERE) /* nothing is left, which the verifier rules out */
        at = 0;
    pm_sync_warp();
    if (pm_lane() == 0)
        key[at] = CU_TAKEN;
    pm_sync_warp();
    return at;
}

PM_DEVICE float softplus(float x)
{
    return x > 0.0f ? x + pm_log1pf(pm_expf(-x)) : pm_log1pf(pm_expf(x));
}

/// The activated scores of a row, by a warp.
PM_DEVICE void route_activate(const float *score, float *active, int32_t experts, int64_t act)
{
    float largest = -PM_INFINITY, sum = 0.0f;
    if (act == CU_ACT_SOFTMAX) {
        for (int32_t e = pm_lane(); e < experts; e += CU_WARP)
            largest = pm_cu_larger(largest, score[e]);
        largest = pm_cu_warp_max(largest);
    }
    for (int32_t e = pm_lane(); e < experts; e += CU_WARP) {
        float x = score[e];
        if (act == CU_ACT_SOFTMAX)
            x = pm_expf(x - largest);
        else if (act == CU_ACT_SIGMOID)
            x = 1.0f / (1.0f + pm_expf(-x));
        else if (act == CU_ACT_SQRTSOFTPLUS)
            x = pm_sqrtf(softplus(x));
        sum += x;
        active[e] = x;
    }
    if (act != CU_ACT_SOFTMAX)
        return;
    sum = pm_cu_warp_sum(sum);
    for (int32_t e = pm_lane(); e < experts; e += CU_WARP)
        active[e] = active[e] / sum;
}

/// What experts are chosen by.
PM_DEVICE float route_choice(const float *active, const float *bias, int32_t e)
{
    return bias ? active[e] + bias[e] : active[e];
}

/// Takes all experts out of the choice that are not in the best keep_groups groups. A lane for each group.
PM_DEVICE void route_limit(const float *active, const float *bias, int32_t *key, int32_t *group_key,
                                 int32_t experts, int32_t groups, int32_t keep_groups, int64_t group_score)
{
    int32_t size = experts / groups;
    for (int32_t g = pm_lane(); g < groups; g += CU_WARP) {
        float first = -PM_INFINITY, second = -PM_INFINITY;
        for (int32_t i = g * size; i < (g + 1) * size; i++) {
            float x = route_choice(active, bias, i);
            second = x > first ? first : x > second ? x : second;
            first = x > first || x != x ? x : first;
        }
        group_key[g] = route_key(group_score == CU_GROUP_TOP2 && size > 1 ? first + second : first);
    }
    pm_sync_warp();
    for (int32_t i = 0; i < keep_groups; i++)
        route_take(group_key, groups);
    for (int32_t e = pm_lane(); e < experts; e += CU_WARP)
        key[e] = group_key[e / size] == CU_TAKEN ? key[e] : CU_TAKEN;
    pm_sync_warp();
}

/// Sparsemixer's weight of `best`: one over the sum of those left that are close to it.
PM_DEVICE float route_close(const float *score, const int32_t *key, int32_t best, int32_t experts,
                                  float jitter)
{
    float close = 0.0f, top = score[best];
    for (int32_t e = pm_lane(); e < experts; e += CU_WARP) {
        float factor = pm_cu_larger(pm_fabsf(score[e]), top);
        if ((key[e] != CU_TAKEN || e == best) && !((top - score[e]) / factor > 2.0f * jitter))
            close += pm_expf(score[e] - top);
    }
    return 1.0f / pm_cu_warp_sum(close);
}

/// The weights of a row's choices; one lane, in their order.
PM_DEVICE void route_weigh(float *weight, int32_t top_k, int64_t weigh, float eps, float least,
                                 float scale)
{
    float sum = 0.0f, largest = weight[0];
    for (int32_t i = 1; i < top_k; i++)
        largest = pm_cu_larger(largest, weight[i]);
    for (int32_t i = 0; i < top_k; i++) {
        if (weigh == CU_WEIGH_SOFTMAX)
            weight[i] = pm_expf(weight[i] - largest);
        sum += weight[i];
    }
    if (weigh == CU_WEIGH_RENORM)
        sum = sum + eps < least ? least : sum + eps;
    if (weigh == CU_WEIGH_AS_IS)
        sum = 1.0f;
    for (int32_t i = 0; i < top_k; i++)
        weight[i] = weight[i] / sum * scale;
}

#ifdef PM_CONST_EXPERTS
enum { CU_ROUTE_ROOM = PM_CONST_EXPERTS };
#else
enum { CU_ROUTE_ROOM = 1024 };
#endif

/* See route in ir/ops.def, and pm_k_route for the arguments. A block of one warp for each row; at most 1,024
 * experts. */
PM_GLOBAL void pm_cu_route(const float *scores, const float *bias, const float *weighing, int32_t *expert,
                           float *weight, int64_t m, int64_t experts, int64_t top_k, int64_t act, int64_t weigh,
                           int64_t eps, int64_t least, int64_t scale, int64_t groups, int64_t keep_groups,
                           int64_t group_score, int64_t select, int64_t jitter)
{
    int32_t n = (int32_t)PM_FIXED(EXPERTS, experts), k = (int32_t)PM_FIXED(TOP_K, top_k);
    int32_t is_sparse = PM_FIXED(SELECT, select) == CU_SELECT_SPARSEMIXER;
    PM_SHARED(float, active, CU_ROUTE_ROOM);
    PM_SHARED(int32_t, key, CU_ROUTE_ROOM);
    PM_SHARED(int32_t, group_key, CU_ROUTE_ROOM);
    int64_t row = pm_block();
    if (row >= m)
        return;
    const float *score = scores + row * n;
    route_activate(score, active, n, is_sparse ? (int64_t)CU_ACT_NONE : PM_FIXED(ACT, act));
    for (int32_t e = pm_lane(); e < n; e += CU_WARP)
        key[e] = route_key(route_choice(active, bias, e));
    pm_sync_warp();
    if (PM_FIXED(KEEP_GROUPS, keep_groups) < PM_FIXED(GROUPS, groups))
        route_limit(active, bias, key, group_key, n, (int32_t)PM_FIXED(GROUPS, groups),
                          (int32_t)PM_FIXED(KEEP_GROUPS, keep_groups), PM_FIXED(GROUP_SCORE, group_score));
    for (int32_t i = 0; i < k; i++) {
        int32_t best = route_take(key, n);
        float value = weighing ? weighing[row * n + best] : active[best];
        if (is_sparse)
            value = route_close(active, key, best, n, (float)PM_WORD_F64(jitter));
        if (pm_lane() == 0) {
            expert[row * k + i] = best;
            weight[row * k + i] = value;
        }
    }
    if (pm_lane() == 0)
        route_weigh(weight + row * k, k, PM_FIXED(WEIGH, weigh), (float)PM_WORD_F64(eps),
                          (float)PM_WORD_F64(least), (float)PM_WORD_F64(scale));
}

/* ---- the order of rows -------------------------------------------------------------------------------- */

enum { CU_ORDER_ROOM = 8192 };

/// Which lanes of the warp have the same number as this one; those without one have none.
PM_DEVICE uint32_t same_lanes(int32_t number, int32_t is_there, int32_t numbers)
{
    uint32_t same = pm_ballot(is_there);
    for (int32_t bit = 1; bit < numbers; bit *= 2) {
        uint32_t set = pm_ballot((number & bit) != 0);
        same &= number & bit ? set : ~set;
    }
    return is_there ? same : 0u;
}

/// A warp's choices begin..end: counts them by expert, or, with `token`, places them: the counts say where each
/// expert's next row goes.
PM_DEVICE void order_choices(const int32_t *expert, int64_t begin, int64_t end, int32_t *counts,
                                   int32_t experts, int32_t top_k, int32_t *token, int32_t *slot)
{
    for (int64_t at = begin; at < end; at += CU_WARP) {
        int64_t i = at + pm_lane();
        int32_t is_there = i < end, e = is_there ? expert[i] : 0;
        uint32_t same = same_lanes(e, is_there, experts);
        int32_t rank = pm_cu_count_bits(same & ((1u << pm_lane()) - 1u));
        if (is_there && token) {
            int32_t row = counts[e] + rank;
            token[row] = (int32_t)(i / top_k);
            slot[i] = row;
        }
        pm_sync_warp();
        if (is_there && rank == 0)
            counts[e] += pm_cu_count_bits(same);
        pm_sync_warp();
    }
}

/// Turns the counts of [warps][experts] into where each warp's rows of each expert begin, and says where each
/// expert's begin. All threads.
PM_DEVICE void order_scan(int32_t *counts, int32_t warps, int32_t experts, int32_t *offsets)
{
    for (int32_t e = pm_thread(); e < experts; e += pm_threads()) {
        int32_t sum = 0;
        for (int32_t w = 0; w < warps; w++) {
            int32_t n = counts[w * experts + e];
            counts[w * experts + e] = sum;
            sum += n;
        }
        offsets[e + 1] = sum;
    }
    pm_sync();
    if (pm_warp() == 0) { /* one warp goes through the experts, 32 at a time */
        int32_t before = 0;
        for (int32_t first = 0; first < experts; first += CU_WARP) {
            int32_t e = first + pm_lane(), sum = e < experts ? offsets[e + 1] : 0;
            PM_UNROLL for (int32_t step = 1; step < CU_WARP; step *= 2)
            {
                int32_t other = (int32_t)pm_shfl_u32((uint32_t)sum, (pm_lane() - step) & (CU_WARP - 1));
                sum += pm_lane() >= step ? other : 0;
            }
            if (e < experts)
                offsets[e + 1] = before + sum;
            before += (int32_t)pm_shfl_u32((uint32_t)sum, CU_WARP - 1);
        }
        if (pm_lane() == 0)
            offsets[0] = 0;
    }
    pm_sync();
    for (int32_t e = pm_thread(); e < experts; e += pm_threads())
        for (int32_t w = 0; w < warps; w++)
            counts[w * experts + e] += offsets[e];
    pm_sync();
}

/* See expert_order in ir/ops.def: a stable counting sort by one block; each warp has a range of the choices, and
 * counts of its own, as far as there is room. At most CU_ORDER_ROOM experts. When an expert is out of range all is zeros. */
PM_GLOBAL void pm_cu_expert_order(const int32_t *expert, int32_t *token, int32_t *offsets, int32_t *slot,
                                  int64_t m, int64_t top_k, int64_t experts, int32_t *status, int64_t mark)
{
    PM_SHARED(int32_t, is_bad, 1);
    PM_SHARED(int32_t, counts, CU_ORDER_ROOM);
    int32_t n_experts = (int32_t)PM_FIXED(EXPERTS, experts), k = (int32_t)PM_FIXED(TOP_K, top_k);
    int64_t n = m * k;
    int64_t most = pm_cu_min(pm_threads() / CU_WARP, CU_ORDER_ROOM / pm_cu_max(n_experts, 1));
    int32_t working = (int32_t)pm_cu_min(most, pm_cu_ceil_div(n, CU_WARP));
    int64_t share = working ? pm_cu_ceil_div(pm_cu_ceil_div(n, CU_WARP), working) * CU_WARP : 0;
    int64_t begin = pm_cu_min(pm_warp() * share, n), end = pm_cu_min(begin + share, n);
    int32_t bad = 0;
    if (pm_block() != 0)
        return;
    if (pm_warp() >= working)
        begin = end = n;
    if (pm_thread() == 0)
        *is_bad = 0;
    for (int32_t i = pm_thread(); i < working * n_experts; i += pm_threads())
        counts[i] = 0;
    for (int64_t i = pm_thread(); i < n; i += pm_threads())
        bad |= expert[i] < 0 || expert[i] >= n_experts;
    pm_sync();
    if (pm_any(bad) && pm_lane() == 0)
        pm_atomic_add_i32(is_bad, 1);
    pm_sync();
    if (*is_bad) {
        for (int64_t i = pm_thread(); i < n; i += pm_threads())
            token[i] = slot[i] = 0;
        for (int64_t e = pm_thread(); e <= n_experts; e += pm_threads())
            offsets[e] = 0;
        if (pm_thread() == 0)
            pm_fail(status, mark);
        return;
    }
    int32_t *own = counts + pm_cu_min(pm_warp(), pm_cu_max(working - 1, 0)) * n_experts;
    order_choices(expert, begin, end, own, n_experts, k, (int32_t *)0, (int32_t *)0);
    pm_sync();
    order_scan(counts, working, n_experts, offsets);
    order_choices(expert, begin, end, own, n_experts, k, token, slot);
}
