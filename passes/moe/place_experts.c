/// Placement: every expert, router and attention gets a device of the list, by cost or by hand. The
/// devices are recorded in the ops' attributes (`devices`, `device`). Results do not change.
///
/// Cost of a unit on a device: reading its weights if a row needs them, or computing its expected rows, whichever
/// takes longer (both overlap), and moving its rows over the link when its layer's router is
/// elsewhere. The units of a layer go, the most expensive first, to the device that would be done with
/// them soonest and still has room; layers follow one another, so each begins with idle devices. A layer
/// stays where its router is unless leaving wins more than the transfers' own time.
/// All entries share the weights: a unit is placed once, where its weights are.
///
/// How often an expert is chosen says a trace; without one all are chosen alike. So what is chosen often gets the
/// fast device while there is room.
///
/// A device's room is weights as they will be stored: products in f32, or bf16 where they are bf16 or
/// are to be rounded to it. What belongs to no unit goes to the first device beside the host that has room for
/// it; the host's experts compute there, their weights never move.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "ir/op_table.h"
#include "ir/strided.h"
#include "passes/generic/rewrite.h"
#include "passes/moe/placement.h"

enum { MAX_STEPS = 16, MAX_EXPERTS = 1 << 20 };

static const double crossing_seconds = 10e-6; ///< of a transfer, however small

typedef struct layer {
    pm_op *op;         ///< experts, route or attention
    uint32_t first, n; ///< its units
    bool again;        ///< the units are those of a layer of an earlier entry
} layer;

typedef struct placer {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_arena *scratch;
    PM_VEC(pm_unit) units;
    PM_VEC(layer) layers;
    pm_map by_weights; ///< identity of the first weight -> first unit + 1
    pm_place_spec spec;
    uint64_t *used;    ///< by device
    double *busy;      ///< by device, within a layer: seconds
    uint64_t total, placed_bytes;
    pm_unit rest; ///< what belongs to no unit
} placer;

/* ---- weights --------------------------------------------------------------------------------- */

static bool feeds_product(const pm_value *v)
{
    for (const pm_use *use = v->uses; use; use = use->next)
        switch (use->op->code) {
        case PM_OP_stack:
        case PM_OP_slice:
        case PM_OP_transpose: return true;
        case PM_OP_linear:
        case PM_OP_grouped_linear:
        case PM_OP_matmul:
            if (use->index == 1)
                return true;
            break;
        case PM_OP_experts:
            if (use->index > 2)
                return true;
            break;
        default: break;
        }
    return false;
}

/// Bytes of a constant as it will be stored.
static uint64_t stored_bytes(const placer *p, const pm_value *v)
{
    const pm_data *data = pm_value_const(v);
    int64_t count;
    if (!data || v->type->rank < 2 || !pm_elem_is_float(v->type->elem) || !feeds_product(v) ||
        !pm_type_const_count(p->m, v->type, &count))
        return data ? data->size : 0;
    const char *quantize = p->ctx->options->quantize;
    bool bf16 = v->type->elem == PM_BF16 || (quantize && strcmp(quantize, "bf16") == 0);
    return (uint64_t)count * (bf16 ? 2 : 4);
}

/// What tells constants apart: their bytes, or the place of them.
typedef struct identity {
    pm_hash128 hash;
    const void *file;
    uint64_t offset, size;
} identity;

static identity identity_of(const pm_data *data)
{
    identity id;
    memset(&id, 0, sizeof id); // padding, too: it is a key
    id.size = data->size;
    if (data->bytes) {
        id.hash = pm_hash_bytes(data->bytes, data->size);
    } else {
        id.file = data->file;
        id.offset = data->offset;
    }
    return id;
}

/// The first constant that makes up a weight: the operands of stack, below transposes.
static const pm_data *first_data(const pm_value *v)
{
    for (int step = 0; step < MAX_STEPS && v && v->def && v->def->n_operands > 0; step++)
        v = v->def->operands[0];
    return v ? pm_value_const(v) : NULL;
}

/// Bytes of a weight, an expression of constants.
static uint64_t weight_bytes(const placer *p, const pm_value *v)
{
    uint64_t bytes = 0;
    if (pm_value_is(v, PM_OP_stack)) {
        for (uint32_t i = 0; i < v->def->n_operands; i++)
            bytes += stored_bytes(p, v->def->operands[i]);
        return bytes;
    }
    pm_strided view; // of a view what it shows
    int64_t count, all;
    if (!v->def || !pm_strided_of(p->m, v, &view) || view.root == v || !view.root->def)
        return stored_bytes(p, v);
    bytes = weight_bytes(p, view.root);
    return pm_type_const_count(p->m, v->type, &count) &&
                   pm_type_const_count(p->m, view.root->type, &all) && all > 0
               ? (uint64_t)((double)bytes * (double)count / (double)all)
               : bytes;
}

/// All constants of the module, each counted once.
static uint64_t all_bytes(const placer *p, const pm_graph_vec *graphs)
{
    uint64_t total = 0;
    pm_map seen;
    pm_map_init(&seen, p->scratch);
    for (size_t i = 0; i < graphs->n; i++)
        for (const pm_op *op = graphs->data[i]->first; op; op = op->next) {
            if (op->code != PM_OP_const)
                continue;
            identity id = identity_of(pm_value_const(op->results[0]));
            void **slot = pm_map_at(&seen, &id, sizeof id);
            if (!*slot)
                total += stored_bytes(p, op->results[0]);
            *slot = (void *)op;
        }
    return total;
}

/* ---- units ----------------------------------------------------------------------------------- */

static double extent(const placer *p, const pm_type *type, int32_t from_end)
{
    int64_t value = 1;
    if (type->rank < from_end || !pm_dim_is_const(p->m, type->dims[type->rank - from_end], &value))
        return 1;
    return (double)value;
}

/// Of one row: two for each element of the matrices.
static double flops_of(const placer *p, const pm_graph *g)
{
    double flops = 0;
    for (const pm_op *op = g->first; op; op = op->next)
        if (op->code == PM_OP_linear || op->code == PM_OP_matmul || op->code == PM_OP_grouped_linear)
            flops += 2 * extent(p, op->operands[0]->type, 1) * extent(p, op->results[0]->type, 1);
    return flops;
}

static uint64_t bytes_within(const placer *p, const pm_graph *g, const pm_data **inout_first)
{
    uint64_t bytes = 0;
    for (const pm_op *op = g->first; op; op = op->next) {
        if (op->code != PM_OP_const)
            continue;
        bytes += stored_bytes(p, op->results[0]);
        if (!*inout_first)
            *inout_first = pm_value_const(op->results[0]);
    }
    return bytes;
}

/// True when the weights were met in an earlier entry; else the units that follow are theirs.
static bool is_known(placer *p, const pm_data *first, layer *l)
{
    l->first = (uint32_t)p->units.n;
    if (!first)
        return false;
    identity id = identity_of(first);
    uint32_t kind = l->op->code;
    char key[sizeof id + sizeof kind];
    memcpy(key, &id, sizeof id);
    memcpy(key + sizeof id, &kind, sizeof kind);
    void **slot = pm_map_at(&p->by_weights, key, sizeof key);
    if (*slot) {
        l->first = (uint32_t)((uintptr_t)*slot - 1);
        l->again = true;
        return true;
    }
    *slot = (void *)((uintptr_t)p->units.n + 1);
    return false;
}

static pm_status add_experts(placer *p, pm_op *op)
{
    int64_t n = pm_op_i64(op, "experts"), top_k = pm_op_i64(op, "top_k");
    if (n > MAX_EXPERTS)
        return pm_error(p->ctx->diag, op->loc, PM_ERR_UNSUPPORTED, "a layer of %lld experts, at most %d are supported",
                        (long long)n, MAX_EXPERTS);
    layer l = {.op = op, .n = (uint32_t)n};
    const pm_data *first = NULL;
    bool template = op->n_regions == 1;
    uint64_t shared = 0;
    for (uint32_t i = 3; i < op->n_operands; i++) {
        first = first ? first : first_data(op->operands[i]);
        shared += template ? weight_bytes(p, op->operands[i]) / (uint64_t)n : 0;
    }
    uint64_t *bytes = PM_NEW_ARRAY(p->scratch, uint64_t, (size_t)n);
    for (uint32_t e = 0; e < n; e++)
        bytes[e] = shared + (template ? 0 : bytes_within(p, op->regions[e], &first));
    if (template) // constants of the body are every expert's
        (void)bytes_within(p, op->regions[0], &first);
    if (!is_known(p, first, &l)) {
        const char *name = pm_op_str(op, "name");
        const pm_traced_layer *traced;
        PM_TRY(pm_place_traced(p->ctx, &p->spec, name, (size_t)n, &traced));
        double row = (extent(p, op->operands[0]->type, 1) + extent(p, op->results[0]->type, 1)) * 4;
        for (uint32_t e = 0; e < n; e++) {
            double share = traced ? traced->counts[e] / traced->sum : 1 / (double)n;
            double chosen = fmin(1, share * (double)top_k); // by one token
            pm_unit unit = {.kind = PM_UNIT_EXPERT, .layer = name, .number = e, .bytes = bytes[e],
                            .flops = flops_of(p, op->regions[template ? 0 : e]), .share = share,
                            .rows = PM_PLAN_TOKENS * chosen, .is_read = 1 - pow(1 - chosen, PM_PLAN_TOKENS),
                            .moved = row, .device = -1};
            PM_PUSH(p->scratch, &p->units, unit);
        }
    }
    PM_PUSH(p->scratch, &p->layers, l);
    return PM_OK;
}

/// The product that a value comes from, through ops of one row each; NULL when it is too far away.
static const pm_op *product_behind(const pm_value *v)
{
    for (int step = 0; step < MAX_STEPS && v && v->def && v->def->n_operands > 0; step++) {
        const pm_op *op = v->def;
        if (op->code == PM_OP_linear || op->code == PM_OP_matmul)
            return op;
        bool has_past_first = op->code == PM_OP_cache_key || op->code == PM_OP_cache_value || op->code == PM_OP_concat;
        v = op->operands[has_past_first && op->n_operands > 1 ? 1 : 0];
    }
    return NULL;
}

/// A router, with its scores' product; an attention, with its projections.
static void add_single(placer *p, pm_op *op, pm_unit_kind kind, uint32_t n_sources)
{
    layer l = {.op = op, .n = 1};
    pm_unit unit = {.kind = kind, .rows = PM_PLAN_TOKENS, .share = 1, .is_read = 1, .device = -1, .layer = op->results[0]->name,
                    .moved = extent(p, op->results[0]->type, 1) * 4};
    const pm_data *first = NULL;
    for (uint32_t i = 0; i < n_sources && i < op->n_operands; i++) {
        const pm_op *product = op->operands[i] ? product_behind(op->operands[i]) : NULL;
        if (!product)
            continue;
        first = first ? first : first_data(product->operands[1]);
        unit.bytes += weight_bytes(p, product->operands[1]);
        unit.flops += 2 * extent(p, product->operands[0]->type, 1) * extent(p, product->results[0]->type, 1);
    }
    if (!is_known(p, first, &l))
        PM_PUSH(p->scratch, &p->units, unit);
    PM_PUSH(p->scratch, &p->layers, l);
}

static pm_status collect(placer *p, const pm_graph_vec *graphs)
{
    for (size_t i = 0; i < graphs->n; i++)
        for (pm_op *op = graphs->data[i]->first; op; op = op->next)
            switch (op->code) {
            case PM_OP_experts: PM_TRY(add_experts(p, op)); break;
            case PM_OP_route: add_single(p, op, PM_UNIT_ROUTER, 1); break;
            case PM_OP_attention:
            case PM_OP_sdpa:
                if (!op->graph->parent) // what is in regions runs where their op does
                    add_single(p, op, PM_UNIT_ATTENTION, 3);
                break;
            default: break;
            }
    p->total = all_bytes(p, graphs);
    for (size_t i = 0; i < p->units.n; i++)
        p->placed_bytes += p->units.data[i].bytes;
    return PM_OK;
}

/* ---- cost ------------------------------------------------------------------------------------ */

static double seconds_on(const placer *p, const pm_unit *unit, int32_t device, int32_t home)
{
    const pm_device *d = &p->ctx->options->devices[device];
    const pm_device *h = &p->ctx->options->devices[home];
    double link = fmin(d->link_bytes_per_second, h->link_bytes_per_second);
    double reading = unit->is_read * (double)unit->bytes / d->bytes_per_second;
    double computing = unit->rows * unit->flops / d->flops_per_second;
    double moving = device == home ? 0 : unit->rows * unit->moved / link;
    return (reading > computing ? reading : computing) + moving;
}

static pm_status no_room(placer *p, const pm_unit *unit)
{
    static const char *const names[PM_UNIT_KINDS] = {"an expert", "a router", "an attention", "the rest"};
    const pm_pass_options *o = p->ctx->options;
    uint64_t room = 0;
    for (size_t i = 0; i < o->n_devices; i++)
        room = p->spec.capacity[i] > UINT64_MAX - room ? UINT64_MAX : room + p->spec.capacity[i];
    pm_arena *a = p->m->arena;
    return pm_error(p->ctx->diag, NULL, PM_ERR_UNSUPPORTED,
                    "the weights take %s (%s of them experts, routers and attention), %s may hold %s%s: no room for %s "
                    "of %s (--place=%s=SIZE says what a device may hold)",
                    pm_plan_bytes_text(a, p->total), pm_plan_bytes_text(a, p->placed_bytes), o->devices[0].name,
                    pm_plan_bytes_text(a, p->spec.capacity[0]),
                    o->n_devices > 1 ? pm_arena_printf(a, ", all devices %s", pm_plan_bytes_text(a, room)) : "",
                    unit ? names[unit->kind] : "what belongs to no expert,",
                    pm_plan_bytes_text(a, unit ? unit->bytes : p->total - p->placed_bytes), o->devices[0].name);
}

static bool has_room(const placer *p, int32_t device, uint64_t bytes)
{
    return p->used[device] <= p->spec.capacity[device] && bytes <= p->spec.capacity[device] - p->used[device];
}

static pm_status put(placer *p, pm_unit *unit, int32_t home)
{
    int32_t best = pm_place_by_hand(&p->spec, unit);
    unit->by_hand = best >= 0;
    double soonest = 0;
    for (int32_t d = 0; d < (int32_t)p->ctx->options->n_devices && !unit->by_hand; d++) {
        double done = p->busy[d] + seconds_on(p, unit, d, home);
        if (!has_room(p, d, unit->bytes) || (best >= 0 && done >= soonest))
            continue;
        best = d;
        soonest = done;
    }
    if (best < 0 || !has_room(p, best, unit->bytes))
        return no_room(p, unit);
    unit->device = best;
    p->used[best] += unit->bytes;
    p->busy[best] += seconds_on(p, unit, best, home);
    return PM_OK;
}

typedef struct ranked {
    double seconds; ///< on the host
    uint64_t bytes;
    uint32_t unit;
} ranked;

/// The most expensive first; equal ones in order.
static int by_cost(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->seconds != y->seconds)
        return x->seconds < y->seconds ? 1 : -1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->unit < y->unit ? -1 : 1;
}

/// Whether the layer had better stay where its router is: when what it wins elsewhere is less than crossing takes.
static bool stays_home(const placer *p, const layer *l, int32_t home)
{
    double split = 0, at_home = 0;
    uint64_t missing = 0;
    bool leaves = false;
    for (size_t d = 0; d < p->ctx->options->n_devices; d++)
        split = fmax(split, p->busy[d]);
    for (uint32_t i = 0; i < l->n; i++) {
        const pm_unit *unit = &p->units.data[l->first + i];
        leaves = leaves || unit->device != home;
        if (unit->by_hand)
            return false;
        at_home += seconds_on(p, unit, home, home);
        missing += unit->device != home ? unit->bytes : 0;
    }
    return leaves && has_room(p, home, missing) && at_home <= split + 2 * crossing_seconds;
}

static pm_status put_layer(placer *p, const layer *l, int32_t home)
{
    ranked *order = PM_NEW_ARRAY(p->scratch, ranked, l->n);
    memset(p->busy, 0, p->ctx->options->n_devices * sizeof *p->busy);
    for (uint32_t i = 0; i < l->n; i++) {
        const pm_unit *unit = &p->units.data[l->first + i];
        order[i] = (ranked){seconds_on(p, unit, 0, 0), unit->bytes, l->first + i};
    }
    qsort(order, l->n, sizeof *order, by_cost);
    for (uint32_t i = 0; i < l->n; i++)
        PM_TRY(put(p, &p->units.data[order[i].unit], home));
    for (uint32_t i = 0; i < l->n && stays_home(p, l, home); i++) {
        pm_unit *unit = &p->units.data[l->first + i];
        p->used[unit->device] -= unit->bytes;
        p->used[home] += unit->bytes;
        unit->device = home;
    }
    return PM_OK;
}

/* ---- what comes of it ------------------------------------------------------------------------ */

/// The products of a router and of an attention go with it.
static void place_products(placer *p, const layer *l, const char *device)
{
    for (uint32_t i = 0; i < l->op->n_operands && i < (l->op->code == PM_OP_route ? 1 : 3); i++) {
        pm_op *product = l->op->operands[i] ? (pm_op *)product_behind(l->op->operands[i]) : NULL;
        if (product && !product->graph->parent)
            product->device = pm_intern(p->m, device);
    }
}

static void record(placer *p, const layer *l)
{
    const pm_device *devices = p->ctx->options->devices;
    const pm_unit *units = &p->units.data[l->first];
    if (l->op->code != PM_OP_experts) {
        pm_op_set_str(l->op, "device", devices[units[0].device].name);
        if (p->ctx->options->n_devices > 1)
            place_products(p, l, devices[units[0].device].name);
        return;
    }
    bool equal = true;
    for (uint32_t i = 1; i < l->n; i++)
        equal = equal && units[i].device == units[0].device;
    PM_VEC(char) text = {0};
    for (uint32_t i = 0; i < (equal ? 1 : l->n); i++) {
        for (const char *c = devices[units[i].device].name; *c; c++)
            PM_PUSH(p->scratch, &text, *c);
        PM_PUSH(p->scratch, &text, i + 1 < (equal ? 1 : l->n) ? ',' : 0);
    }
    pm_op_set_str(l->op, "devices", text.data);
}

/// assign-devices takes the first device beside the host for what nobody placed: elsewhere must be said.
static void record_rest(placer *p)
{
    int32_t usual = p->ctx->options->n_devices > 1 ? 1 : 0;
    if (p->rest.device == usual)
        return;
    const char *name = pm_intern(p->m, p->ctx->options->devices[p->rest.device].name);
    for (size_t i = 0; i < p->m->entries.n; i++)
        for (pm_op *op = pm_graph_is_host_twin(p->m->entries.data[i]) ? NULL : p->m->entries.data[i]->first; op;
             op = op->next)
            if (!op->device && op->code != PM_OP_const && !(pm_op_info_of(op)->traits & PM_T_WEIGHT))
                op->device = name;
}

static void note_unit(const placer *p, pm_plan *plan, const pm_unit *unit, const pm_loc *loc)
{
    static const char *const names[PM_UNIT_KINDS] = {"expert", "router", "attention", "rest"};
    pm_placed placed = {.kind = names[unit->kind], .number = unit->number, .device = unit->device,
                        .layer = unit->layer ? pm_arena_strdup(plan->arena, unit->layer) : NULL,
                        .by_hand = unit->by_hand, .bytes = unit->bytes, .share = unit->share, .loc = loc,
                        .seconds = seconds_on(p, unit, unit->device, unit->device)};
    PM_PUSH(plan->arena, &plan->placed, placed);
}

static void fill_plan(const placer *p, pm_plan *plan)
{
    size_t n = p->ctx->options->n_devices;
    plan->devices = p->ctx->options->devices;
    plan->n_devices = n;
    plan->trace = p->spec.trace;
    plan->used = PM_NEW_ARRAY(plan->arena, uint64_t, n);
    plan->capacity = PM_NEW_ARRAY(plan->arena, uint64_t, n);
    memcpy(plan->used, p->used, n * sizeof *plan->used);
    memcpy(plan->capacity, p->spec.capacity, n * sizeof *plan->capacity);
    note_unit(p, plan, &p->rest, NULL);
    for (size_t i = 0; i < p->layers.n; i++) {
        const layer *l = &p->layers.data[i];
        for (uint32_t k = 0; k < l->n && !l->again; k++)
            note_unit(p, plan, &p->units.data[l->first + k], l->op->loc);
    }
}

static pm_status place(placer *p)
{
    p->rest = (pm_unit){.kind = PM_UNIT_REST, .share = 1, .is_read = 1, .rows = PM_PLAN_TOKENS, .device = -1,
                        .bytes = p->total > p->placed_bytes ? p->total - p->placed_bytes : 0};
    int32_t home = pm_place_by_hand(&p->spec, &p->rest); // where the latest router or attention is
    p->rest.by_hand = home >= 0;
    for (int32_t d = 1; d < (int32_t)p->ctx->options->n_devices && home < 0; d++)
        home = has_room(p, d, p->rest.bytes) ? d : -1;
    home = home < 0 ? 0 : home;
    if (!has_room(p, home, p->rest.bytes))
        return no_room(p, NULL);
    p->rest.device = home;
    p->used[home] = p->rest.bytes;
    for (size_t i = 0; i < p->layers.n; i++) {
        const layer *l = &p->layers.data[i];
        if (!l->again)
            PM_TRY(put_layer(p, l, home));
        if (l->op->code != PM_OP_experts)
            home = p->units.data[l->first].device;
        record(p, l);
        pm_pass_changed(p->ctx);
        pm_pass_count(p->ctx, l->op->code == PM_OP_experts ? "layers of experts placed"
                              : l->op->code == PM_OP_route ? "routers placed" : "attentions placed");
    }
    record_rest(p);
    return pm_place_check_used(p->ctx, &p->spec);
}

/// Twins run where the devices are missing: nothing of them is placed.
static void leave_out_twins(pm_graph_vec *graphs)
{
    size_t n = 0;
    for (size_t i = 0; i < graphs->n; i++) {
        const pm_graph *top = graphs->data[i];
        while (top->parent)
            top = top->parent->graph;
        if (!pm_graph_is_host_twin(top))
            graphs->data[n++] = graphs->data[i];
    }
    graphs->n = n;
}

pm_status pm_pass_place_experts(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_arena *scratch = pm_arena_child(m->arena);
    pm_graph_vec graphs;
    placer p = {.ctx = ctx, .m = m, .scratch = scratch};
    if (ctx->options->n_devices == 0)
        return pm_error(ctx->diag, NULL, PM_ERR_INTERNAL, "place-experts: there is no device");
    pm_map_init(&p.by_weights, scratch);
    p.used = PM_NEW_ARRAY(scratch, uint64_t, ctx->options->n_devices);
    p.busy = PM_NEW_ARRAY(scratch, double, ctx->options->n_devices);
    PM_TRY(pm_place_parse(ctx, ctx->options->place, &p.spec));
    pm_graphs_of(m, scratch, &graphs);
    leave_out_twins(&graphs);
    PM_TRY(collect(&p, &graphs));
    PM_TRY(place(&p));
    pm_plan own = {.arena = scratch};
    if (ctx->plan)
        fill_plan(&p, ctx->plan);
    if (ctx->notes && p.units.n > 0) {
        fill_plan(&p, &own);
        pm_plan_print(&own, ctx->notes);
    }
    pm_arena_destroy(scratch);
    return PM_OK;
}
