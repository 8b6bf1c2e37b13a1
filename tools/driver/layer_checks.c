#include "tools/driver/layer_checks.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ir/op_table.h"

/// What an expert's score is made of, as far as constants say it.
typedef struct router {
    pm_summary *s;
    const pm_layer_summary *layer;
    const pm_value *weights;
    bool by_column;          ///< weights [in, experts] instead of [experts, in]
    const pm_value *added[4]; ///< numbers by expert
    int n_added;
} router;

enum { MAX_STEPS = 24 };

static bool by_expert(const router *r, const pm_value *v)
{
    int64_t count, last;
    return v && pm_value_const(v) && v->type->rank > 0 && pm_type_const_count(r->s->module, v->type, &count) &&
           pm_dim_is_const(r->s->module, v->type->dims[v->type->rank - 1], &last) && last == r->layer->n_experts &&
           count == last;
}

static void add_number(router *r, const pm_value *v)
{
    if (by_expert(r, v) && r->n_added < (int)PM_COUNT(r->added))
        r->added[r->n_added++] = v;
}

/// From the scores back to the product that makes them: only through ops that keep one score for each expert.
static void follow(router *r, const pm_value *v)
{
    for (int step = 0; v && v->def && step < MAX_STEPS; step++) {
        const pm_op *op = v->def;
        switch (op->code) {
        case PM_OP_reshape:
        case PM_OP_cast:
        case PM_OP_softmax:
        case PM_OP_sigmoid: v = op->operands[0]; continue;
        case PM_OP_add:
            if (by_expert(r, op->operands[0]) == by_expert(r, op->operands[1]))
                return;
            add_number(r, op->operands[0]);
            add_number(r, op->operands[1]);
            v = op->operands[by_expert(r, op->operands[0]) ? 1 : 0];
            continue;
        case PM_OP_linear:
            if (op->n_operands > 2)
                add_number(r, op->operands[2]);
            if (pm_value_const(op->operands[1]) && op->operands[1]->type->rank == 2)
                r->weights = op->operands[1];
            return;
        case PM_OP_matmul:
            if (pm_value_const(op->operands[1]) && op->operands[1]->type->rank == 2 && !pm_op_i64(op, "trans_a")) {
                r->weights = op->operands[1];
                r->by_column = !pm_op_i64(op, "trans_b");
            }
            return;
        default: return;
        }
    }
}

static double number_at(pm_elem elem, const uint8_t *bytes, int64_t i)
{
    float f;
    uint16_t h;
    double d = 0;
    switch (elem) {
    case PM_F32: memcpy(&f, bytes + 4 * i, 4); return f;
    case PM_F64: memcpy(&d, bytes + 8 * i, 8); return d;
    case PM_F16: memcpy(&h, bytes + 2 * i, 2); return h == 0xfc00 ? -INFINITY : 0;
    case PM_BF16: memcpy(&h, bytes + 2 * i, 2); return h == 0xff80 ? -INFINITY : 0;
    default: return 0;
    }
}

/// Experts with a score of minus infinity, as long as the others suffice.
static pm_status check_barred(const router *r, pm_diag *diag)
{
    int64_t experts = r->layer->n_experts, n = 0, first = 0;
    bool *barred = PM_NEW_ARRAY(r->s->module->arena, bool, (size_t)experts);
    for (int k = 0; k < r->n_added; k++) {
        const pm_data *data = pm_value_const(r->added[k]);
        const uint8_t *bytes;
        PM_TRY(pm_data_bytes(r->s->module, data, &bytes));
        for (int64_t e = 0; e < experts; e++)
            if (number_at(r->added[k]->type->elem, bytes, e) <= -1e30 && !barred[e]) {
                barred[e] = true;
                first = n++ == 0 ? e : first;
            }
    }
    if (n > 0 && experts - n >= r->layer->top_k)
        pm_warning(diag, r->layer->loc, "expert_barred",
                   "%s: expert %" PRId64 "%s can never be chosen: the router adds minus infinity to its score",
                   r->layer->name, first,
                   n > 1 ? pm_arena_printf(r->s->module->arena, " and %" PRId64 " more", n - 1) : "");
    return PM_OK;
}

/// Experts whose scores are equal for every token.
static pm_status check_ties(const router *r, pm_diag *diag)
{
    pm_module *m = r->s->module;
    int64_t experts = r->layer->n_experts, rows, columns, n = 0, first = 0, second = 0;
    const pm_type *type = r->weights->type;
    const uint8_t *bytes, *added;
    if (type->layout || !pm_dim_is_const(m, type->dims[0], &rows) || !pm_dim_is_const(m, type->dims[1], &columns) ||
        (r->by_column ? columns : rows) != experts || pm_elem_size(type->elem) == 0)
        return PM_OK;
    PM_TRY(pm_data_bytes(m, pm_value_const(r->weights), &bytes));
    size_t cell = pm_elem_size(type->elem), width = (size_t)(r->by_column ? rows : columns);
    if (pm_value_const(r->weights)->size != cell * width * (size_t)experts)
        return PM_OK; // codes of few bits
    size_t size = cell * width + sizeof(double) * PM_COUNT(r->added);
    uint8_t *key = PM_NEW_ARRAY(m->arena, uint8_t, size);
    pm_map seen;
    pm_map_init(&seen, m->arena);
    for (int64_t e = 0; e < experts; e++) {
        for (size_t i = 0; i < width; i++)
            memcpy(key + i * cell, bytes + (r->by_column ? i * (size_t)experts + (size_t)e : (size_t)e * width + i) * cell, cell);
        for (int k = 0; k < r->n_added; k++) {
            size_t one = pm_elem_size(r->added[k]->type->elem);
            PM_TRY(pm_data_bytes(m, pm_value_const(r->added[k]), &added));
            memcpy(key + cell * width + sizeof(double) * (size_t)k, added + one * (size_t)e, one < 8 ? one : 8);
        }
        void **slot = pm_map_at(&seen, key, size);
        if (*slot && n++ == 0) {
            first = (int64_t)(uintptr_t)*slot - 1;
            second = e;
        }
        if (!*slot)
            *slot = (void *)(uintptr_t)(e + 1);
    }
    if (n > 0)
        pm_warning(diag, r->layer->loc, "router_ties",
                   "%s: experts %" PRId64 " and %" PRId64 "%s always have equal scores (their rows of the router are equal): "
                   "the lower number is chosen first", r->layer->name, first, second,
                   n > 1 ? pm_arena_printf(m->arena, ", and %" PRId64 " more,", n - 1) : "");
    return PM_OK;
}

static const pm_value *under_views(const pm_value *v)
{
    while (v && v->def && (v->def->code == PM_OP_reshape || v->def->code == PM_OP_cast))
        v = v->def->operands[0];
    return v;
}

pm_status pm_check_routers(pm_summary *s, pm_diag *diag)
{
    for (size_t i = 0; i < s->layers.n; i++) {
        const pm_layer_summary *layer = &s->layers.data[i];
        router r = {.s = s, .layer = layer};
        const pm_value *ids = under_views(layer->op->operands[1]);
        if (layer->route) {
            if (layer->route->n_operands > 1)
                add_number(&r, layer->route->operands[1]);
            follow(&r, layer->route->operands[0]);
        } else if (pm_value_is(ids, PM_OP_topk)) {
            follow(&r, ids->def->operands[0]);
        }
        PM_TRY(check_barred(&r, diag));
        if (r.weights)
            PM_TRY(check_ties(&r, diag));
    }
    return PM_OK;
}

int64_t pm_equal_experts(const pm_layer_summary *layer, int64_t *out_first, int64_t *out_second)
{
    int64_t n = 0;
    for (int64_t e = 1; layer->experts && e < layer->n_experts; e++)
        for (int64_t k = 0; k < e; k++) {
            const pm_expert_summary *a = &layer->experts[k], *b = &layer->experts[e];
            if (!a->hashed || !b->hashed || a->bytes == 0 || memcmp(&a->hash, &b->hash, sizeof a->hash) != 0)
                continue;
            if (n++ == 0) {
                *out_first = k;
                *out_second = e;
            }
            break;
        }
    return n;
}
