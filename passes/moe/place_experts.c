/// Placement: every expert, router and attention gets a device of the list, by cost or by hand. The
/// devices are recorded in the ops' attributes (`devices`, `device`). Results do not change.
///
/// Cost of a unit on a device: reading its weights once, or computing its expected rows, whichever
/// takes longer (both overlap), and moving its rows over the link when its layer's router is
/// elsewhere. The units of a layer go, the most expensive first, to the device that would be done with
/// them soonest and still has room; layers follow one another, so each begins with idle devices.
/// All entries share the weights: a unit is placed once, where its weights are.
///
/// A device's room is weights as they will be stored: products in f32, or bf16 where they are bf16 or
/// are to be rounded to it. What belongs to no unit stays on the first device.
#include <string.h>

#include "base/hash.h"
#include "ir/op_table.h"
#include "ir/strided.h"
#include "passes/generic/rewrite.h"
#include "passes/moe/placement.h"

enum { NOMINAL_TOKENS = 64, MAX_STEPS = 16, MAX_EXPERTS = 1 << 20 };

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
        double row = (extent(p, op->operands[0]->type, 1) + extent(p, op->results[0]->type, 1)) * 4;
        for (uint32_t e = 0; e < n; e++) {
            pm_unit unit = {.kind = PM_UNIT_EXPERT, .layer = name, .number = e, .bytes = bytes[e],
                            .flops = flops_of(p, op->regions[template ? 0 : e]),
                            .rows = (double)NOMINAL_TOKENS * (double)top_k / (double)n,
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
        v = op->operands[op->code == PM_OP_cache_key || op->code == PM_OP_cache_value ? 1 : 0];
    }
    return NULL;
}

/// A router, with its scores' product; an attention, with its projections.
static void add_single(placer *p, pm_op *op, pm_unit_kind kind, uint32_t n_sources)
{
    layer l = {.op = op, .n = 1};
    pm_unit unit = {.kind = kind, .rows = NOMINAL_TOKENS, .device = -1, .layer = op->results[0]->name,
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
            case PM_OP_attention: add_single(p, op, PM_UNIT_ATTENTION, 3); break;
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
    double reading = (double)unit->bytes / d->bytes_per_second;
    double computing = unit->rows * unit->flops / d->flops_per_second;
    double moving = device == home ? 0 : unit->rows * unit->moved / d->link_bytes_per_second;
    return (reading > computing ? reading : computing) + moving;
}

static pm_status no_room(placer *p, const pm_unit *unit)
{
    static const char *const names[PM_UNIT_KINDS] = {"an expert", "a router", "an attention"};
    const pm_pass_options *o = p->ctx->options;
    uint64_t room = 0;
    for (size_t i = 0; i < o->n_devices; i++)
        room = p->spec.capacity[i] > UINT64_MAX - room ? UINT64_MAX : room + p->spec.capacity[i];
    pm_arena *a = p->m->arena;
    return pm_error(p->ctx->diag, NULL, PM_ERR_UNSUPPORTED,
                    "the weights take %s (%s of them experts, routers and attention), %s may hold %s%s: no room for %s "
                    "of %s (--place=%s=SIZE says what a device may hold)",
                    pm_place_bytes_text(a, p->total), pm_place_bytes_text(a, p->placed_bytes), o->devices[0].name,
                    pm_place_bytes_text(a, p->spec.capacity[0]),
                    o->n_devices > 1 ? pm_arena_printf(a, ", all devices %s", pm_place_bytes_text(a, room)) : "",
                    unit ? names[unit->kind] : "what belongs to no expert,",
                    pm_place_bytes_text(a, unit ? unit->bytes : p->total - p->placed_bytes), o->devices[0].name);
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

/// The units of a layer, the largest first: those of equal size in order.
static void order_units(const placer *p, const layer *l, uint32_t *order)
{
    // counts of equal sizes are large, different ones few: insertion moves little
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t at = i;
        for (; at > 0 && p->units.data[order[at - 1]].bytes < p->units.data[l->first + i].bytes; at--)
            order[at] = order[at - 1];
        order[at] = l->first + i;
    }
}

static pm_status put_layer(placer *p, const layer *l, int32_t home)
{
    uint32_t *order = PM_NEW_ARRAY(p->scratch, uint32_t, l->n);
    memset(p->busy, 0, p->ctx->options->n_devices * sizeof *p->busy);
    order_units(p, l, order);
    for (uint32_t i = 0; i < l->n; i++)
        PM_TRY(put(p, &p->units.data[order[i]], home));
    return PM_OK;
}

/* ---- what comes of it ------------------------------------------------------------------------ */

static void record(placer *p, const layer *l)
{
    const pm_device *devices = p->ctx->options->devices;
    const pm_unit *units = &p->units.data[l->first];
    if (l->op->code != PM_OP_experts) {
        pm_op_set_str(l->op, "device", devices[units[0].device].name);
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

static void print_plan(const placer *p)
{
    const pm_pass_options *o = p->ctx->options;
    FILE *out = p->ctx->notes;
    for (size_t d = 0; d < o->n_devices; d++) {
        uint32_t n[PM_UNIT_KINDS] = {0};
        for (size_t i = 0; i < p->units.n; i++)
            n[p->units.data[i].kind] += p->units.data[i].device == (int32_t)d;
        bool limited = p->spec.capacity[d] != UINT64_MAX;
        fprintf(out, "%10s  place-experts: %s of weights%s%s; %u experts, %u routers, %u attentions%s%s\n",
                o->devices[d].name, pm_place_bytes_text(p->scratch, p->used[d]), limited ? " of at most " : "",
                limited ? pm_place_bytes_text(p->scratch, p->spec.capacity[d]) : "", n[PM_UNIT_EXPERT],
                n[PM_UNIT_ROUTER], n[PM_UNIT_ATTENTION],
                d == 0 && p->total > p->placed_bytes ? ", and all else: " : "",
                d == 0 && p->total > p->placed_bytes ? pm_place_bytes_text(p->scratch, p->total - p->placed_bytes) : "");
    }
    for (size_t i = 0; i < p->layers.n; i++) {
        const layer *l = &p->layers.data[i];
        if (l->op->code != PM_OP_experts || l->again)
            continue;
        uint64_t bytes = 0;
        double slowest = 0;
        for (size_t d = 0; d < o->n_devices; d++)
            p->busy[d] = 0;
        for (uint32_t k = 0; k < l->n; k++) {
            const pm_unit *unit = &p->units.data[l->first + k];
            bytes += unit->bytes;
            p->busy[unit->device] += seconds_on(p, unit, unit->device, unit->device);
        }
        for (size_t d = 0; d < o->n_devices; d++)
            slowest = p->busy[d] > slowest ? p->busy[d] : slowest;
        fprintf(out, "            %s: %u experts, %s, %.3f ms for %d tokens, on %s\n", pm_op_str(l->op, "name"), l->n,
                pm_place_bytes_text(p->scratch, bytes), slowest * 1e3, NOMINAL_TOKENS, pm_op_str(l->op, "devices"));
    }
}

static pm_status place(placer *p)
{
    uint64_t rest = p->total > p->placed_bytes ? p->total - p->placed_bytes : 0;
    if (!has_room(p, 0, rest))
        return no_room(p, NULL);
    p->used[0] = rest;
    int32_t home = 0; // where the latest router or attention is
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
    return pm_place_check_used(p->ctx, &p->spec);
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
    PM_TRY(collect(&p, &graphs));
    PM_TRY(place(&p));
    if (ctx->notes && p.units.n > 0)
        print_plan(&p);
    pm_arena_destroy(scratch);
    return PM_OK;
}
