/// Groups as `fused` ops.
#include <string.h>

#include "ir/op_table.h"
#include "passes/generic/fuse.h"

typedef struct outline {
    pm_fusion *f;
    pm_cluster *c;
    PM_VEC(pm_value *) operands;
    PM_VEC(pm_value *) outputs;
    pm_map inside; ///< values of the members -> values of the region
} outline;

static bool is_used_outside(const outline *o, const pm_value *v)
{
    for (const pm_use *use = v->uses; use; use = use->next)
        if (pm_cluster_of(o->f, use->op) != o->c)
            return true;
    for (size_t i = 0; i < v->graph->results.n; i++)
        if (v->graph->results.data[i] == v)
            return true;
    return false;
}

static size_t index_in(pm_value *const *values, size_t n, const pm_value *v)
{
    size_t i = 0;
    while (i < n && values[i] != v)
        i++;
    return i;
}

/// What a chain of members that only reshape shows.
static pm_value *shown(const outline *o, pm_value *v)
{
    while (v->def && v->def->code == PM_OP_reshape && pm_cluster_of(o->f, v->def) == o->c)
        v = v->def->operands[0];
    return v;
}

static void collect(outline *o)
{
    pm_arena *arena = o->f->ctx->module->arena;
    for (size_t i = 0; i < o->c->members.n; i++) {
        pm_op *op = o->c->members.data[i];
        for (uint32_t k = 0; k < op->n_operands; k++) {
            pm_value *v = op->operands[k];
            if (v && pm_op_reads_elements(op, k) && pm_cluster_of(o->f, v->def) != o->c &&
                index_in(o->operands.data, o->operands.n, v) == o->operands.n)
                PM_PUSH(arena, &o->operands, v);
        }
        if (!is_used_outside(o, op->results[0]))
            continue;
        pm_value *v = shown(o, op->results[0]);
        if (index_in(o->outputs.data, o->outputs.n, v) == o->outputs.n)
            PM_PUSH(arena, &o->outputs, v);
    }
}

/// Members that compute: reshapes alone are no work.
static size_t count_work(const outline *o)
{
    size_t n = 0;
    for (size_t i = 0; i < o->c->members.n; i++)
        n += o->c->members.data[i]->code != PM_OP_reshape;
    return n;
}

/// Both products read one pack of two sources.
static pm_status pair_weights(outline *o)
{
    pm_module *m = o->f->ctx->module;
    pm_op *first = o->c->product, *second = o->c->second, *v = first->operands[1]->def;
    // as gate and up: the one that stands first in the text
    pm_builder b = {first->graph, second->mark > first->mark ? second : first,
                    pm_loc_derive(m, first->loc, "fuse")};
    if (second->mark < first->mark) {
        pm_op *swap = first;
        first = second;
        second = swap;
    }
    pm_value *both;
    PM_TRY(pm_build1(&b, &both, PM_OP_pack,
                     PM_OPERANDS(first->operands[1]->def->operands[0],
                                 second->operands[1]->def->operands[0]),
                     v->attrs, v->n_attrs));
    pm_op_move_before(both->def, o->c->members.data[o->c->members.n - 1]);
    pm_op_set_operand(first, 1, both);
    pm_op_set_operand(second, 1, both);
    pm_op_set_i64(second, "source", 1);
    return PM_OK;
}

/// Members move into the region; the shapes they name come along.
static pm_status fill_region(outline *o, pm_graph *region)
{
    for (size_t i = 0; i < o->operands.n; i++) {
        pm_value *arg = pm_graph_add_arg(region, o->operands.data[i]->name,
                                         o->operands.data[i]->type, -1);
        pm_value_map_put(&o->inside, o->operands.data[i], arg);
    }
    for (size_t i = 0; i < o->c->members.n; i++) {
        pm_op *op = o->c->members.data[i], *copy;
        for (uint32_t k = 0; k < op->n_operands; k++) {
            pm_value *v = op->operands[k];
            if (v && !pm_op_reads_elements(op, k) && !pm_value_map_get(&o->inside, v))
                PM_TRY(pm_op_clone(v->def, region, NULL, &o->inside, &copy));
        }
        PM_TRY(pm_op_clone(op, region, NULL, &o->inside, &copy));
    }
    for (size_t i = 0; i < o->outputs.n; i++)
        pm_graph_add_result(region, NULL, pm_value_map_get(&o->inside, o->outputs.data[i]), -1);
    for (pm_op *op = region->last, *prev; op; op = prev) { // reshapes that are left outside
        prev = op->prev;
        bool used = false;
        for (uint32_t i = 0; i < op->n_results && !used; i++)
            used = pm_value_use_count(op->results[i]) > 0;
        if (!used)
            pm_op_erase(op);
    }
    return PM_OK;
}

/// Users outside take the fused op's results; what members reshaped is reshaped behind it.
static pm_status replace_outside(outline *o, pm_op *fused, pm_op *before)
{
    pm_module *m = o->f->ctx->module;
    pm_value **sources = PM_NEW_ARRAY(m->arena, pm_value *, o->c->members.n);
    for (size_t i = 0; i < o->c->members.n; i++) // chains of reshapes break below
        sources[i] = shown(o, o->c->members.data[i]->results[0]);
    for (size_t i = 0; i < o->c->members.n; i++) {
        pm_op *op = o->c->members.data[i];
        pm_value *old = op->results[0], *source = sources[i];
        if (!is_used_outside(o, old))
            continue;
        pm_value *fresh = fused->results[index_in(o->outputs.data, o->outputs.n, source)];
        if (source != old) {
            pm_builder b = {op->graph, before, pm_loc_intern(m, op->loc)};
            PM_TRY(pm_build1(&b, &fresh, PM_OP_reshape, PM_OPERANDS(fresh, op->operands[1]),
                             op->attrs, op->n_attrs));
        }
        fresh->name = fresh->name ? fresh->name : old->name;
        pm_value_replace(old, fresh); // members' own uses vanish with them
    }
    return PM_OK;
}

pm_status pm_cluster_outline(pm_fusion *f, pm_cluster *c)
{
    pm_module *m = f->ctx->module;
    outline o = {.f = f, .c = c};
    if (count_work(&o) < 2)
        return PM_OK;
    pm_map_init(&o.inside, m->arena);
    if (c->second)
        PM_TRY(pair_weights(&o));
    collect(&o);
    if (o.outputs.n == 0) // nobody uses it: dce's business
        return PM_OK;
    pm_op *last = c->members.data[c->members.n - 1], *fused;
    const char *kind = c->product ? pm_op_info_of(c->product)->name : "loops";
    const pm_loc *loc = pm_loc_derive(m, (c->product ? c->product : last)->loc, "fuse");
    pm_attr attrs[] = {pm_attr_str("kind", kind)};
    PM_TRY(pm_op_create(last->graph, last, PM_OP_fused, loc, o.operands.data, o.operands.n, attrs, 1,
                        o.outputs.n, 1, &fused));
    pm_graph *region = fused->regions[0] ? fused->regions[0] : pm_region_create(fused);
    PM_TRY(fill_region(&o, region));
    PM_TRY(pm_op_infer(fused));
    PM_TRY(replace_outside(&o, fused, last));
    for (size_t i = c->members.n; i-- > 0;)
        pm_op_erase(c->members.data[i]);
    pm_pass_changed(f->ctx);
    pm_pass_count(f->ctx, kind);
    return PM_OK;
}
