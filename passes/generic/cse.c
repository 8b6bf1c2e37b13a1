/// Common subexpressions: an op that computes what an earlier one of its graph has computed gives way
/// to it. Regions are isolated, so a graph sees nothing but its own ops, which come in order: the
/// earlier one always dominates.
///
/// Equal means: the same op, attributes, operands and result types (and content of `dims`, bytes of
/// constants). An op that finds a data-dependent extent has a symbol of its own in its type, so it
/// equals no other. Ops with regions, impure and in-place ones are left alone.
///
/// Operands of ops that commute are compared in either order. That keeps every bit but the payload of
/// a NaN when both operands are one, which `eval` doesn't define; float min and max, where order
/// decides between 0 and -0, are compared as they stand.
#include "base/hash.h"
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

enum { SMALL = 64 }; ///< bytes of inline constants that are part of the key, else their hash is

/// The bytes that equal ops have in common.
typedef struct key {
    pm_arena *arena;
    PM_VEC(uint8_t) bytes;
} key;

static void put(key *k, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        PM_PUSH(k->arena, &k->bytes, ((const uint8_t *)bytes)[i]);
}

#define PUT(k, value) put((k), &(value), sizeof(value))

static void put_data(key *k, const pm_data *data)
{
    PUT(k, data->size);
    PUT(k, data->file);
    if (data->bytes && data->size <= SMALL) {
        put(k, data->bytes, data->size);
    } else if (data->bytes) {
        pm_hash128 hash = pm_hash_bytes(data->bytes, data->size);
        PUT(k, hash);
    } else {
        PUT(k, data->offset);
    }
}

static void put_attr(key *k, const pm_attr *attr)
{
    PUT(k, attr->present);
    if (!attr->present)
        return;
    size_t length = attr->s ? strlen(attr->s) : 0;
    PUT(k, attr->i);
    PUT(k, attr->f);
    PUT(k, length);
    put(k, attr->s, length);
    PUT(k, attr->n);
    if (attr->ints)
        put(k, attr->ints, attr->n * sizeof *attr->ints);
    if (attr->floats)
        put(k, attr->floats, attr->n * sizeof *attr->floats);
    if (attr->data)
        put_data(k, attr->data);
}

static bool commutes(const pm_op *op)
{
    if (!(pm_op_info_of(op)->traits & PM_T_COMMUTES))
        return false;
    bool extreme = op->code == PM_OP_min || op->code == PM_OP_max;
    return !extreme || !pm_elem_is_float(op->operands[0]->type->elem);
}

static void put_operands(key *k, const pm_op *op)
{
    bool swap = commutes(op) && op->operands[0]->id > op->operands[1]->id;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *v = op->operands[swap && i < 2 ? 1 - i : i];
        uint32_t id = v ? v->id : UINT32_MAX;
        PUT(k, id);
    }
}

static void make_key(key *k, const pm_op *op)
{
    k->bytes.n = 0;
    PUT(k, op->code);
    PUT(k, op->device);
    PUT(k, op->n_operands);
    PUT(k, op->n_results);
    put_operands(k, op);
    for (uint32_t i = 0; i < op->n_results; i++)
        PUT(k, op->results[i]->type);
    for (uint32_t i = 0; i < op->n_attrs; i++)
        put_attr(k, &op->attrs[i]);
    int64_t n;
    if (op->code == PM_OP_dims && pm_type_const_count(op->graph->module, op->results[0]->type, &n))
        put(k, op->results[0]->content, (size_t)n * sizeof(pm_dim));
}

static bool is_candidate(const pm_op *op)
{
    uint32_t traits = pm_op_info_of(op)->traits;
    return op->n_results > 0 && op->n_regions == 0 && !(traits & (PM_T_IMPURE | PM_T_INPLACE));
}

static bool may_merge(const pm_id_set *overwritten, const pm_op *op, const pm_op *first)
{
    for (uint32_t i = 0; i < op->n_results; i++)
        if (!pm_may_stand_for(overwritten, op->results[i], first->results[i]))
            return false;
    return true;
}

static void merge(pm_pass_ctx *ctx, pm_op *op, pm_op *first)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        pm_value *kept = first->results[i], *gone = op->results[i];
        if (!kept->name)
            kept->name = gone->name;
        if (!kept->content)
            kept->content = gone->content;
        pm_value_replace(gone, kept);
    }
    pm_op_erase(op);
    pm_pass_changed(ctx);
    pm_pass_count(ctx, "merged");
}

static void visit(pm_pass_ctx *ctx, pm_graph *g, const pm_id_set *overwritten, pm_arena *scratch)
{
    pm_map seen;
    key k = {.arena = scratch};
    pm_map_init(&seen, scratch);
    for (pm_op *op = g->first, *next; op; op = next) {
        next = op->next;
        if (!is_candidate(op))
            continue;
        make_key(&k, op);
        void **slot = pm_map_at(&seen, k.bytes.data, k.bytes.n);
        pm_op *first = *slot;
        if (first && may_merge(overwritten, op, first))
            merge(ctx, op, first);
        else if (!first)
            *slot = op;
    }
}

pm_status pm_pass_cse(pm_pass_ctx *ctx)
{
    pm_arena *scratch = pm_arena_child(ctx->module->arena);
    pm_graph_vec graphs;
    pm_graphs_of(ctx->module, scratch, &graphs);
    pm_id_set overwritten = pm_overwritten_values(ctx->module, &graphs, scratch);
    for (size_t i = 0; i < graphs.n; i++)
        visit(ctx, graphs.data[i], &overwritten, scratch);
    pm_arena_destroy(scratch);
    return PM_OK;
}
