/* The choice of experts, and the order of rows: against the plainest way to say what they are. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/kernel_test.h"

enum { ROWS = 37, MAX_EXPERTS = 256, MAX_TOP_K = 9 };

typedef struct router {
    int64_t experts, top_k, act, weigh, groups, keep_groups, group_score;
    float eps, scale;
    bool biased, weighed; ///< by scores of their own
    bool sparse;
    float least;
} router;

static const float jitter = 0.05f;

static const router routers[] = {
    {8, 2, 0, 2, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f},
    {16, 2, 0, 1, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f},
    {16, 2, 0, 2, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f},
    {60, 4, 0, 0, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f},
    {64, 8, 1, 2, 8, 4, 1, 1e-20f, 2.5f, true, false, false, 0.0f},
    {64, 6, 0, 0, 8, 3, 0, 0.0f, 16.0f, false, false, false, 0.0f},
    {256, 9, 2, 2, 1, 1, 0, 1e-6f, 1.5f, true, false, false, 0.0f},
    {32, 4, 3, 1, 1, 1, 0, 0.0f, 1.0f, true, false, false, 0.0f},
    {1, 1, 3, 0, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f},
    {5, 5, 1, 2, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f},
    {32, 4, 3, 2, 1, 1, 0, 0.0f, 1.0f, false, true, false, 0.0f},
    {16, 2, 1, 0, 4, 2, 1, 0.0f, 2.0f, true, true, false, 0.0f},
    {16, 2, 0, 0, 1, 1, 0, 0.0f, 1.0f, false, false, true, 0.0f},
    {33, 3, 0, 2, 1, 1, 0, 1e-6f, 1.5f, false, false, true, 0.0f},
    {64, 6, 0, 2, 1, 1, 0, 0.0f, 1.0f, true, false, false, 0.2f},
};
enum { N_ROUTERS = sizeof routers / sizeof routers[0] };

static double activate(const router *r, const float *score, int64_t e)
{
    double x = (double)score[e], largest = -INFINITY, sum = 0;
    switch (r->act) {
    case 1: return 1 / (1 + exp(-x));
    case 2: return sqrt(log1p(exp(x)));
    case 3: return x;
    default: break;
    }
    for (int64_t i = 0; i < r->experts; i++)
        largest = fmax(largest, (double)score[i]);
    for (int64_t i = 0; i < r->experts; i++)
        sum += exp((double)score[i] - largest);
    return exp(x - largest) / sum;
}

/// Whether a group is among those that are kept: fewer than keep_groups are better, or equal and before it.
static bool is_kept(const router *r, const double *choice, int64_t group)
{
    int64_t size = r->experts / r->groups, better = 0;
    double of[MAX_EXPERTS];
    for (int64_t g = 0; g < r->groups; g++) {
        double first = -INFINITY, second = -INFINITY;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            second = fmax(second, fmin(first, choice[i]));
            first = fmax(first, choice[i]);
        }
        of[g] = r->group_score ? first + second : first;
    }
    for (int64_t g = 0; g < r->groups; g++)
        better += of[g] > of[group] || (of[g] == of[group] && g < group);
    return better < r->keep_groups;
}

/// The softmax of `best` over those left that are close to it.
static double sparse_weight(const router *r, const float *score, const bool *taken, int64_t best)
{
    double sum = 0, top = (double)score[best];
    for (int64_t e = 0; e < r->experts; e++) {
        double s = (double)score[e];
        if (!taken[e] && (top - s) / fmax(fabs(s), top) <= 2 * (double)jitter)
            sum += exp(s - top);
    }
    return 1 / sum;
}

static void check_row(const router *r, const float *score, const float *bias, const float *weighing,
                      const int32_t *expert, const float *weight)
{
    double active[MAX_EXPERTS], choice[MAX_EXPERTS], want[MAX_TOP_K], sum = 0, largest = -INFINITY;
    bool taken[MAX_EXPERTS] = {false};
    for (int64_t e = 0; e < r->experts; e++) {
        active[e] = activate(r, score, e);
        choice[e] = active[e] + (bias ? (double)bias[e] : 0);
    }
    for (int64_t i = 0; i < r->top_k; i++) {
        int64_t best = -1;
        for (int64_t e = 0; e < r->experts; e++)
            if (!taken[e] && is_kept(r, choice, e / (r->experts / r->groups)) &&
                (best < 0 || choice[e] > choice[best]))
                best = e;
        ck_assert_int_eq(expert[i], best);
        want[i] = r->sparse  ? sparse_weight(r, score, taken, best)
                  : weighing ? (double)weighing[best]
                             : active[best];
        taken[best] = true;
        largest = fmax(largest, want[i]);
    }
    for (int64_t i = 0; i < r->top_k; i++) {
        if (r->weigh == 1)
            want[i] = exp(want[i] - largest);
        sum += want[i];
    }
    if (r->weigh == 2)
        sum = fmax(sum + (double)r->eps, (double)r->least);
    for (int64_t i = 0; i < r->top_k; i++) {
        double w = (r->weigh == 0 ? want[i] : want[i] / sum) * (double)r->scale;
        ck_assert_msg(fabs((double)weight[i] - w) <= 2e-6 * fabs(w), "weight %ld is %g, must be %g",
                      (long)i, (double)weight[i], w);
    }
}

static void route(const router *r, const float *score, const float *bias, const float *weighing,
                  int32_t *expert, float *weight, int64_t rows, int64_t workers)
{
    for (int64_t i = 0; i < workers; i++)
        pm_k_route(score, bias, weighing, expert, weight, rows, r->experts, r->top_k, r->act, r->weigh,
                   r->eps, r->least, r->scale, r->groups, r->keep_groups, r->group_score, r->sparse, jitter,
                   guarded(PM_K_ROUTE_SCRATCH(r->experts)), i, workers);
}

START_TEST(routes)
{
    const router *r = &routers[_i];
    float *score = guarded_floats(ROWS * r->experts), *bias = guarded_floats(r->experts);
    float *by = guarded_floats(ROWS * r->experts);
    float *weight = guarded_floats(ROWS * r->top_k), *other = guarded_floats(ROWS * r->top_k);
    int32_t *expert = guarded(ROWS * r->top_k * 4), *others = guarded(ROWS * r->top_k * 4);
    fill_random(score, ROWS * r->experts);
    fill_random(bias, r->experts);
    for (int64_t i = 0; i < ROWS * r->experts; i++)
        score[i] *= 3.0f;
    fill_random(by, ROWS * r->experts);
    for (int64_t i = 0; i < ROWS * r->experts; i++)
        by[i] = fabsf(by[i]) + 0.125f;
    const float *given = r->biased ? bias : NULL, *weighing = r->weighed ? by : NULL;
    route(r, score, given, weighing, expert, weight, ROWS, 1);
    for (int64_t row = 0; row < ROWS; row++)
        check_row(r, score + row * r->experts, given, weighing ? by + row * r->experts : NULL, expert + row * r->top_k,
                  weight + row * r->top_k);
    // The same bits by three workers, and of a row alone.
    route(r, score, given, weighing, others, other, ROWS, 3);
    ck_assert(same_bits(weight, other, ROWS * r->top_k));
    ck_assert_int_eq(memcmp(expert, others, (size_t)(ROWS * r->top_k) * 4), 0);
    route(r, score + 20 * r->experts, given, weighing ? by + 20 * r->experts : NULL, others, other, 1,
          1);
    ck_assert(same_bits(weight + 20 * r->top_k, other, r->top_k));
}
END_TEST

START_TEST(ties)
{
    // Of equal scores the first; zeros of both signs are equal; a NaN goes before all.
    const router r = {6, 3, 3, 0, 1, 1, 0, 0.0f, 1.0f, false, false, false, 0.0f};
    const float score[] = {-0.0f, 0.0f, 1.0f, 1.0f, -1.0f, 1.0f,
                           -0.0f, -2.0f, 0.0f, -1.0f, -3.0f, -4.0f,
                           1.0f, NAN, INFINITY, 2.0f, -INFINITY, NAN};
    const int32_t want[] = {2, 3, 5, 0, 2, 3, 1, 5, 2};
    int32_t expert[9];
    float weight[9];
    route(&r, score, NULL, NULL, expert, weight, 3, 1);
    for (int i = 0; i < 9; i++)
        ck_assert_int_eq(expert[i], want[i]);
}
END_TEST

START_TEST(order)
{
    enum { EXPERTS = 7, TOP_K = 3 };
    for (int64_t rows = 0; rows < 40; rows += 13) {
        int64_t n = rows * TOP_K;
        int32_t *expert = guarded(n * 4), *token = guarded(n * 4), *slot = guarded(n * 4);
        int32_t *offsets = guarded((EXPERTS + 1) * 4);
        for (int64_t i = 0; i < n; i++)
            expert[i] = (int32_t)next_below(EXPERTS - 1); // the last has no rows
        for (int64_t worker = 0; worker < 2; worker++)
            ck_assert_int_eq(
                pm_k_expert_order(expert, token, offsets, slot, rows, TOP_K, EXPERTS, worker, 2), 0);
        int64_t at = 0;
        for (int32_t e = 0; e < EXPERTS; e++) {
            ck_assert_int_eq(offsets[e], at);
            for (int64_t i = 0; i < n; i++)
                if (expert[i] == e) {
                    ck_assert_int_eq(token[at], i / TOP_K);
                    ck_assert_int_eq(slot[i], at);
                    at++;
                }
        }
        ck_assert_int_eq(offsets[EXPERTS], at);
        if (rows == 0)
            continue;
        for (int bad = 0; bad < 2; bad++) {
            expert[n - 1] = bad ? EXPERTS : -1;
            ck_assert_int_eq(
                pm_k_expert_order(expert, token, offsets, slot, rows, TOP_K, EXPERTS, 0, 2), 1);
        }
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("route");
    TCase *t = tcase_create("route");
    tcase_add_loop_test(t, routes, 0, N_ROUTERS);
    tcase_add_test(t, ties);
    tcase_add_test(t, order);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    return run_suite(suite);
}
