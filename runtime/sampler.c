/// Choosing the next token. Greedy takes the lowest index among equals. Otherwise: temperature, then
/// top-k, then top-p, then one draw of PCG32 (XSH-RR 64/32 by M. O'Neill), seeded by splitmix64.
#include <math.h>
#include <stdlib.h>

#include "runtime/rt_internal.h"

typedef struct pm_candidate {
    double weight; ///< probability, not normalised
    int32_t id;
} pm_candidate;

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t draw32(pm_sampler *s)
{
    uint64_t old = s->state;
    s->state = old * 6364136223846793005u + s->increment;
    uint32_t x = (uint32_t)((old >> 18 ^ old) >> 27), r = (uint32_t)(old >> 59);
    return x >> r | x << (-r & 31);
}

pm_status pm_sampler_init(pm_sampler *s, const pm_generate_options *o, int64_t vocab)
{
    *s = (pm_sampler){.temperature = o->temperature, .top_p = o->top_p, .top_k = o->top_k};
    if (!(o->temperature >= 0) || o->temperature > 1e6)
        return pm_rt_error_set(PM_ERR_USAGE, "the temperature must be 0 or more");
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return pm_rt_error_set(PM_ERR_USAGE, "top-p must be between 0 and 1");
    if (o->top_k < 0)
        return pm_rt_error_set(PM_ERR_USAGE, "top-k must not be negative");
    uint64_t seed = o->seed;
    s->state = splitmix64(&seed);
    s->increment = splitmix64(&seed) | 1;
    if (s->temperature == 0)
        return PM_OK;
    s->candidates = malloc((size_t)vocab * sizeof *s->candidates);
    return s->candidates ? PM_OK : pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
}

void pm_sampler_deinit(pm_sampler *s)
{
    free(s->candidates);
    s->candidates = NULL;
}

static int by_weight(const void *x, const void *y)
{
    const pm_candidate *a = x, *b = y;
    return a->weight != b->weight ? (a->weight < b->weight) - (a->weight > b->weight)
                                  : (a->id > b->id) - (a->id < b->id);
}

static int32_t greedy(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best] || logits[best] != logits[best])
            best = i;
    return (int32_t)best;
}

int32_t pm_sampler_next(pm_sampler *s, const float *logits, int64_t vocab)
{
    int32_t best = greedy(logits, vocab);
    if (s->temperature == 0)
        return best;
    double max = (double)logits[best], sum = 0;
    for (int64_t i = 0; i < vocab; i++) {
        double w = exp(((double)logits[i] - max) / s->temperature);
        s->candidates[i] = (pm_candidate){w == w ? w : 0, (int32_t)i};
    }
    bool cut = s->top_k > 0 || (s->top_p > 0 && s->top_p < 1);
    int64_t n = vocab;
    if (cut)
        qsort(s->candidates, (size_t)vocab, sizeof *s->candidates, by_weight);
    if (s->top_k > 0 && s->top_k < n)
        n = s->top_k;
    for (int64_t i = 0; i < n; i++)
        sum += s->candidates[i].weight;
    if (s->top_p > 0 && s->top_p < 1) {
        double reached = 0;
        int64_t keep = 0;
        while (keep < n && reached < s->top_p * sum)
            reached += s->candidates[keep++].weight;
        n = keep;
        sum = reached;
    }
    double at = (double)draw32(s) * 0x1p-32 * sum;
    for (int64_t i = 0; i < n; i++) {
        at -= s->candidates[i].weight;
        if (at < 0)
            return s->candidates[i].id;
    }
    return n > 0 ? s->candidates[n - 1].id : best;
}
