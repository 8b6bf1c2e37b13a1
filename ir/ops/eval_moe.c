/// Mixture of experts: the router's algebra, rows in order of experts, weights in panels.
#include "ir/ops/eval_util.h"

pm_eval_fn pm_eval_route, pm_eval_expert_order, pm_eval_expert_rows, pm_eval_gather_rows;
pm_eval_fn pm_eval_capacity;
pm_eval_fn pm_eval_combine, pm_eval_pack;
pm_extent_fn pm_extent_expert_rows;

/* ---- route -------------------------------------------------------------------------------------- */

enum { ACT_SOFTMAX, ACT_SIGMOID, ACT_SQRTSOFTPLUS, ACT_NONE };

/// One row of scores. Activations are computed again whenever they are needed: there is no memory
/// for them.
typedef struct router {
    const pm_tensor *scores, *bias; ///< bias NULL: none
    const pm_tensor *weighing; ///< NULL: weights are of activations
    int64_t at, experts;            ///< first score of the row; how many
    int64_t groups, keep_groups;
    int32_t act, is_top2;
    double largest, sum; ///< of softmax
} router;

PM_INLINE double score_at(const router *r, int64_t e)
{
    return pm_get_f64(r->scores->data, r->scores->elem, r->at + e);
}

PM_INLINE double activation(const router *r, int64_t e)
{
    double x = score_at(r, e);
    switch (r->act) {
    case ACT_SOFTMAX: return exp(x - r->largest) / r->sum;
    case ACT_SIGMOID: return 1 / (1 + exp(-x));
    case ACT_SQRTSOFTPLUS: return sqrt(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)));
    default: return x;
    }
}

/// What experts are chosen by.
PM_INLINE double selection(const router *r, int64_t e)
{
    double bias = r->bias != NULL ? pm_get_f64(r->bias->data, r->bias->elem, e) : 0;
    return activation(r, e) + bias;
}

/// True when value a at i comes before value b at j: the larger, NaN being the largest; among
/// equals the lower position.
PM_INLINE int32_t comes_before(double a, int64_t i, double b, int64_t j)
{
    if (a != a || b != b)
        return a != a && b != b ? i < j : a != a;
    return a == b ? i < j : a > b;
}

PM_INLINE double group_score(const router *r, int64_t group)
{
    int64_t size = r->experts / r->groups, first = group * size;
    double best = selection(r, first), second = -INFINITY;
    for (int64_t e = first + 1; e < first + size; e++) {
        double value = selection(r, e);
        if (comes_before(value, e, best, first)) {
            second = best;
            best = value;
        } else if (comes_before(value, e, second, first)) {
            second = value;
        }
    }
    return r->is_top2 && size > 1 ? best + second : best;
}

/// True when fewer than keep_groups groups come before this one.
PM_INLINE int32_t group_is_kept(const router *r, int64_t group)
{
    if (r->keep_groups >= r->groups)
        return 1;
    double ours = group_score(r, group);
    int64_t better = 0;
    for (int64_t g = 0; g < r->groups; g++)
        better += g != group && comes_before(group_score(r, g), g, ours, group);
    return better < r->keep_groups;
}

/// The best expert that comes after expert `previous` (-1: of all), which has `value`; -1: none.
PM_INLINE int64_t next_expert(const router *r, int64_t previous, double value)
{
    int64_t size = r->experts / r->groups, best = -1;
    double best_value = 0;
    for (int64_t g = 0; g < r->groups; g++) {
        if (!group_is_kept(r, g))
            continue;
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            double here = selection(r, e);
            if (previous >= 0 && !comes_before(value, previous, here, e))
                continue;
            if (best < 0 || comes_before(here, e, best_value, best)) {
                best = e;
                best_value = here;
            }
        }
    }
    return best;
}

PM_INLINE void route_begin_row(router *r)
{
    r->largest = -INFINITY;
    r->sum = 0;
    for (int64_t e = 0; e < r->experts && r->act == ACT_SOFTMAX; e++)
        r->largest = pm_larger(r->largest, score_at(r, e));
    for (int64_t e = 0; e < r->experts && r->act == ACT_SOFTMAX; e++)
        r->sum += exp(score_at(r, e) - r->largest);
}

/// What weights are divided by, whose sum this is.
PM_INLINE double divisor(const pm_eval_args *args, double sum)
{
    enum { EPS = 3, LEAST = 11 };
    sum += args->attrs[EPS].f;
    return sum < args->attrs[LEAST].f ? args->attrs[LEAST].f : sum;
}

/// What choice `at` is weighed by.
PM_INLINE double weighing(const router *r, const pm_tensor *expert, int64_t at)
{
    int64_t e = pm_get_i64(expert->data, expert->elem, at);
    return r->weighing != NULL ? pm_get_f64(r->weighing->data, r->weighing->elem, r->at + e)
                               : activation(r, e);
}

/// Writes the weights of the row's choices at `at`.
PM_INLINE void route_weigh(const router *r, const pm_eval_args *args, int64_t at, int64_t top_k)
{
    enum { WEIGH = 2, SCALE = 4 };
    const pm_tensor *expert = &args->out[0], *weight = &args->out[1];
    int32_t is_softmax = pm_attr_is(&args->attrs[WEIGH], "softmax");
    int32_t is_renorm = pm_attr_is(&args->attrs[WEIGH], "renorm");
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < top_k; j++)
        largest = pm_larger(largest, weighing(r, expert, at + j));
    for (int64_t j = 0; j < top_k; j++) {
        double value = weighing(r, expert, at + j);
        sum += is_softmax ? exp(value - largest) : value;
    }
    for (int64_t j = 0; j < top_k; j++) {
        double value = weighing(r, expert, at + j);
        if (is_softmax)
            value = exp(value - largest) / sum;
        else if (is_renorm)
            value /= divisor(args, sum);
        pm_set_f64(weight->data, weight->elem, at + j, value * args->attrs[SCALE].f);
    }
}

/// One row of sparsemixer: each round takes the best expert left, whose weight is the softmax over
/// those left that are close to it.
PM_INLINE void sparse_mixer(const router *r, const pm_eval_args *args, int64_t at, int64_t top_k)
{
    enum { WEIGH = 2, SCALE = 4, JITTER = 10 };
    const pm_tensor *expert = &args->out[0], *weight = &args->out[1];
    double sum = 0;
    for (int64_t j = 0; j < top_k; j++) {
        int64_t best = -1;
        double best_score = 0, close = 0;
        for (int64_t pass = 0; pass < 2; pass++)
            for (int64_t e = 0; e < r->experts; e++) {
                double score = score_at(r, e), factor;
                int32_t is_taken = 0;
                for (int64_t i = 0; i < j; i++)
                    is_taken |= pm_get_i64(expert->data, expert->elem, at + i) == e;
                if (is_taken)
                    continue;
                if (pass == 0 && (best < 0 || comes_before(score, e, best_score, best))) {
                    best = e;
                    best_score = score;
                }
                factor = fabs(score) > best_score ? fabs(score) : best_score;
                if (pass == 1 && !((best_score - score) / factor > 2 * args->attrs[JITTER].f))
                    close += exp(score - best_score);
            }
        pm_set_i64(expert->data, expert->elem, at + j, best, 0);
        pm_set_f64(weight->data, weight->elem, at + j, 1 / close);
        sum += 1 / close;
    }
    if (!pm_attr_is(&args->attrs[WEIGH], "renorm"))
        sum = 1;
    else
        sum = divisor(args, sum);
    for (int64_t j = 0; j < top_k; j++)
        pm_set_f64(weight->data, weight->elem, at + j,
                   pm_get_f64(weight->data, weight->elem, at + j) / sum * args->attrs[SCALE].f);
}

int32_t pm_eval_route(const pm_eval_args *args)
{
    enum { TOP_K, ACT, GROUPS = 5, KEEP_GROUPS, GROUP_SCORE, SELECT = 9 };
    const pm_tensor *scores = &args->in[0], *expert = &args->out[0];
    const pm_attr_value *a = args->attrs;
    router r = {.scores = scores, .bias = pm_has(args, 1) ? &args->in[1] : NULL,
                .weighing = pm_has(args, 2) ? &args->in[2] : NULL,
                .groups = a[GROUPS].i, .keep_groups = a[KEEP_GROUPS].i,
                .act = pm_attr_is(&a[ACT], "softmax")        ? ACT_SOFTMAX
                       : pm_attr_is(&a[ACT], "sigmoid")      ? ACT_SIGMOID
                       : pm_attr_is(&a[ACT], "sqrtsoftplus") ? ACT_SQRTSOFTPLUS
                                                             : ACT_NONE,
                .is_top2 = pm_attr_is(&a[GROUP_SCORE], "top2")};
    int64_t top_k = a[TOP_K].i;
    if (scores->rank != 2 || expert->rank != 2 || !pm_same_dims(expert, &args->out[1]) ||
        expert->dims[0] != scores->dims[0] || expert->dims[1] != top_k)
        return 1;
    r.experts = scores->dims[1];
    if (r.groups < 1 || r.experts % r.groups != 0 || r.keep_groups < 1 || top_k < 1 ||
        top_k > r.experts || (r.bias != NULL && pm_elements(r.bias) != r.experts) ||
        (r.weighing != NULL && !pm_same_dims(r.weighing, scores)))
        return 1;
    for (int64_t row = 0; row < scores->dims[0]; row++) {
        int64_t chosen = -1;
        double value = 0;
        r.at = row * r.experts;
        if (pm_attr_is(&a[SELECT], "sparsemixer")) {
            sparse_mixer(&r, args, row * top_k, top_k);
            continue;
        }
        route_begin_row(&r);
        for (int64_t j = 0; j < top_k; j++) {
            chosen = next_expert(&r, chosen, value);
            if (chosen < 0)
                return 1;
            value = selection(&r, chosen);
            pm_set_i64(expert->data, expert->elem, row * top_k + j, chosen, 0);
        }
        route_weigh(&r, args, row * top_k, top_k);
    }
    return 0;
}

/* ---- rows --------------------------------------------------------------------------------------- */

/// Element i of a list of numbers in [0, n); -1 when it is out of range.
PM_INLINE int64_t number_below(const pm_tensor *t, int64_t i, int64_t n)
{
    int64_t value = pm_get_i64(t->data, t->elem, i);
    return value >= 0 && value < n ? value : -1;
}

/// A stable counting sort; the offsets count, then say where each expert's next row goes.
int32_t pm_eval_expert_order(const pm_eval_args *args)
{
    const pm_tensor *expert = &args->in[0], *token = &args->out[0], *offsets = &args->out[1];
    const pm_tensor *slot = &args->out[2];
    int64_t experts = args->attrs[0].i, n = pm_elements(expert);
    if (expert->rank != 2 || experts < 1 || n > INT32_MAX || pm_elements(token) != n ||
        pm_elements(slot) != n || pm_elements(offsets) != experts + 1)
        return 1;
    for (int64_t e = 0; e <= experts; e++)
        pm_set_i64(offsets->data, offsets->elem, e, 0, 0);
    for (int64_t i = 0; i < n; i++) {
        int64_t e = number_below(expert, i, experts);
        if (e < 0)
            return 1;
        pm_set_i64(offsets->data, offsets->elem, e + 1,
                   pm_get_i64(offsets->data, offsets->elem, e + 1) + 1, 0);
    }
    for (int64_t e = 0; e < experts; e++)
        pm_set_i64(offsets->data, offsets->elem, e + 1,
                   pm_get_i64(offsets->data, offsets->elem, e + 1) +
                       pm_get_i64(offsets->data, offsets->elem, e),
                   0);
    for (int64_t i = 0; i < n; i++) {
        int64_t e = number_below(expert, i, experts);
        int64_t row = e < 0 ? -1 : number_below(offsets, e, n);
        if (row < 0) // someone else changed the experts meanwhile
            return 1;
        pm_set_i64(token->data, token->elem, row, i / expert->dims[1], 0);
        pm_set_i64(slot->data, slot->elem, i, row, 0);
        pm_set_i64(offsets->data, offsets->elem, e, row + 1, 0);
    }
    // each offset has moved on to where the next expert starts
    for (int64_t e = experts; e > 0; e--)
        pm_set_i64(offsets->data, offsets->elem, e,
                   pm_get_i64(offsets->data, offsets->elem, e - 1), 0);
    pm_set_i64(offsets->data, offsets->elem, 0, 0, 0);
    return 0;
}

/// The rows of the expert; 1 when the offsets are at fault.
PM_INLINE int32_t rows_of_expert(const pm_eval_args *args, int64_t *out_first, int64_t *out_last)
{
    const pm_tensor *token = &args->in[1], *offsets = &args->in[2];
    int64_t expert = args->attrs[0].i;
    if (expert < 0 || expert >= pm_elements(offsets) - 1)
        return 1;
    *out_first = pm_get_i64(offsets->data, offsets->elem, expert);
    *out_last = pm_get_i64(offsets->data, offsets->elem, expert + 1);
    return *out_first < 0 || *out_last < *out_first || *out_last > pm_elements(token);
}

/// Copies the rows of x that tokens first … name.
PM_INLINE int32_t copy_rows(const pm_tensor *x, const pm_tensor *token, int64_t first, int64_t n,
                            const pm_tensor *out)
{
    int64_t width = x->dims[1];
    for (int64_t i = 0; i < n; i++) {
        int64_t from = number_below(token, first + i, x->dims[0]);
        if (from < 0)
            return 1;
        pm_copy(out->data, i * width, x->data, from * width, width, x->elem);
    }
    return 0;
}

int32_t pm_extent_expert_rows(const pm_eval_args *args, int64_t *dims)
{
    int64_t first, last;
    if (args->in[0].rank != 2 || rows_of_expert(args, &first, &last))
        return 1;
    dims[0] = last - first;
    dims[1] = args->in[0].dims[1];
    return 0;
}

int32_t pm_eval_expert_rows(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *out = &args->out[0];
    int64_t first, last;
    if (x->rank != 2 || out->rank != 2 || rows_of_expert(args, &first, &last) ||
        out->dims[0] != last - first || out->dims[1] != x->dims[1])
        return 1;
    return copy_rows(x, &args->in[1], first, last - first, out);
}

int32_t pm_eval_gather_rows(const pm_eval_args *args)
{
    const pm_tensor *x = &args->in[0], *token = &args->in[1], *out = &args->out[0];
    if (x->rank != 2 || out->rank != 2 || out->dims[0] != pm_elements(token) ||
        out->dims[1] != x->dims[1])
        return 1;
    return copy_rows(x, token, 0, out->dims[0], out);
}

int32_t pm_eval_combine(const pm_eval_args *args)
{
    const pm_tensor *y = &args->in[0], *slot = &args->in[1], *weight = &args->in[2];
    const pm_tensor *out = &args->out[0];
    if (y->rank != 2 || slot->rank != 2 || !pm_same_dims(slot, weight) || out->rank != 2 ||
        out->dims[0] != slot->dims[0] || out->dims[1] != y->dims[1])
        return 1;
    int64_t k = slot->dims[1], width = y->dims[1];
    for (int64_t m = 0; m < out->dims[0]; m++) {
        for (int64_t j = 0; j < k; j++)
            if (number_below(slot, m * k + j, y->dims[0]) < 0)
                return 1;
        for (int64_t d = 0; d < width; d++) {
            double sum = 0;
            for (int64_t j = 0; j < k; j++)
                sum += pm_get_f64(weight->data, weight->elem, m * k + j) *
                       pm_get_f64(y->data, y->elem,
                                  number_below(slot, m * k + j, y->dims[0]) * width + d);
            pm_set_f64(out->data, out->elem, m * width + d, sum);
        }
    }
    return 0;
}

/* ---- pack --------------------------------------------------------------------------------------- */

/// The extents of the sources, and of what they are packed into.
typedef struct packing {
    int64_t matrices, n, k; ///< of each source
    int64_t panel, pair, ways;
    int32_t is_turned; ///< sources are [K, N]
} packing;

/// Element at position `at` of the packed matrix m: which row and column it comes from.
PM_INLINE void pack_one(const pm_eval_args *args, const packing *p, int64_t m, int64_t panel,
                        int64_t row, int64_t column, int64_t to)
{
    const pm_tensor *out = &args->out[0];
    int64_t share = p->panel / p->ways; // rows of a panel that are of one source
    const pm_tensor *from = &args->in[row / share];
    int64_t n = panel * share + row % share;
    double value = 0;
    if (n < p->n && column < p->k)
        value = pm_get_f64(from->data, from->elem,
                           m * p->n * p->k + (p->is_turned ? column * p->n + n : n * p->k + column));
    pm_set_f64(out->data, out->elem, to, value);
}

int32_t pm_eval_pack(const pm_eval_args *args)
{
    enum { PANEL, PAIR, TRANS = 3 };
    const pm_tensor *w = &args->in[0], *out = &args->out[0];
    packing p = {.panel = args->attrs[PANEL].i, .pair = args->attrs[PAIR].i,
                 .ways = pm_has(args, 1) ? 2 : 1, .is_turned = args->attrs[TRANS].i != 0};
    if (w->rank < 2 || out->rank != w->rank || p.pair < 1 || p.panel < 1 || p.panel % p.ways != 0 ||
        (p.ways == 2 && !pm_same_dims(w, &args->in[1])))
        return 1;
    p.matrices = pm_product(w->dims, 0, w->rank - 2);
    p.n = w->dims[w->rank - (p.is_turned ? 1 : 2)];
    p.k = w->dims[w->rank - (p.is_turned ? 2 : 1)];
    if (pm_product(out->dims, 0, out->rank - 2) != p.matrices ||
        out->dims[out->rank - 2] != p.n * p.ways || out->dims[out->rank - 1] != p.k)
        return 1;
    int64_t share = p.panel / p.ways, panels = p.n / share + (p.n % share != 0);
    int64_t pairs = p.k / p.pair + (p.k % p.pair != 0), at = 0;
    for (int64_t m = 0; m < p.matrices; m++)
        for (int64_t panel = 0; panel < panels; panel++)
            for (int64_t k = 0; k < pairs; k++)
                for (int64_t row = 0; row < p.panel; row++)
                    for (int64_t i = 0; i < p.pair; i++)
                        pack_one(args, &p, m, panel, row, k * p.pair + i, at++);
    return 0;
}

/// There is no memory for counts: for each expert its rows are counted anew.
int32_t pm_eval_capacity(const pm_eval_args *args)
{
    enum { EXPERTS, CAPACITY, FRACTION };
    const pm_tensor *expert = &args->in[0], *weight = &args->in[1], *out = &args->out[0];
    int64_t experts = args->attrs[EXPERTS].i, limit = args->attrs[CAPACITY].i;
    double fraction = args->attrs[FRACTION].f;
    if (expert->rank != 3 || !pm_same_dims(expert, weight) || !pm_same_dims(expert, out))
        return 1;
    int64_t rows = expert->dims[1], k = expert->dims[2];
    if (fraction > 0)
        limit = (int64_t)ceil(fraction * (double)rows);
    for (int64_t i = 0; i < pm_elements(expert); i++) {
        int64_t e = pm_get_i64(expert->data, expert->elem, i);
        if (e < 0 || e >= experts)
            return 1;
    }
    for (int64_t g = 0; g < expert->dims[0]; g++)
        for (int64_t e = 0; e < experts; e++) {
            int64_t taken = 0;
            for (int64_t choice = 0; choice < k; choice++)
                for (int64_t row = 0; row < rows; row++) {
                    int64_t at = (g * rows + row) * k + choice;
                    if (pm_get_i64(expert->data, expert->elem, at) != e)
                        continue;
                    double kept = pm_get_f64(weight->data, weight->elem, at);
                    pm_set_f64(out->data, out->elem, at, taken++ < limit ? kept : 0);
                }
        }
    return 0;
}
