/// Regions become ops of the graph around them.
#include "ir/builder.h"
#include "ir/op_table.h"

/// A symbol of the region, and what its extent is outside.
typedef struct renamed {
    uint32_t symbol;
    pm_dim outside;
} renamed;

typedef struct inliner {
    pm_builder *b;
    pm_module *m;
    pm_arena *scratch;
    pm_map values;
    PM_VEC(renamed) renames;
} inliner;

static pm_dim outside(const inliner *in, pm_dim dim)
{
    for (size_t i = 0; i < in->renames.n; i++)
        dim = pm_dim_replace(in->m, dim, in->renames.data[i].symbol, in->renames.data[i].outside);
    return dim;
}

/// Notes which extents of `to` stand for data-dependent ones of `from`.
static void note_extents(inliner *in, const pm_type *from, const pm_type *to)
{
    uint32_t symbol;
    for (int32_t i = 0; i < from->rank && i < to->rank; i++)
        if (pm_dim_is_symbol(in->m, from->dims[i], &symbol) &&
            in->m->symbols.data[symbol].data_dependent &&
            outside(in, from->dims[i]) != to->dims[i])
            PM_PUSH(in->scratch, &in->renames, ((renamed){symbol, to->dims[i]}));
}

static const pm_dim *content_outside(const inliner *in, const pm_value *v)
{
    int64_t n;
    if (in->renames.n == 0 || !v->content || !pm_type_const_count(in->m, v->type, &n))
        return v->content;
    pm_dim *content = PM_NEW_ARRAY(in->m->arena, pm_dim, (size_t)n + 1);
    for (int64_t i = 0; i < n; i++)
        content[i] = outside(in, v->content[i]);
    return content;
}

static void rename_value(const inliner *in, pm_value *v)
{
    pm_dim dims[PM_MAX_RANK];
    v->content = content_outside(in, v);
    if (v->type->layout || v->type->rank == 0)
        return;
    for (int32_t i = 0; i < v->type->rank; i++)
        dims[i] = outside(in, v->type->dims[i]);
    v->type = pm_type_get(in->m, v->type->elem, v->type->rank, dims);
}

/// Regions within mention the same symbols; what they find themselves is found anew each time they run.
static void rename_regions(const inliner *in, pm_op *op)
{
    for (uint32_t r = 0; r < op->n_regions && in->renames.n; r++) { // depth: PM_MAX_REGION_DEPTH
        const pm_graph *g = op->regions[r];
        for (size_t i = 0; i < g->args.n; i++)
            rename_value(in, g->args.data[i]);
        for (pm_op *inner = g->first; inner; inner = inner->next) {
            for (uint32_t i = 0; i < inner->n_results; i++)
                rename_value(in, inner->results[i]);
            rename_regions(in, inner);
        }
    }
}

/// A region may overwrite what it was given: outside that would be seen. So the copy overwrites a copy.
static pm_status keep_overwritten(inliner *in, const pm_op *op, pm_op *copy)
{
    const pm_value *from = op->operands[0];
    pm_value *given = copy->operands[0], *fresh;
    while (from->def && from->def->n_operands && from->def->operands[0] &&
           pm_op_info_of(from->def)->traits & (PM_T_VIEW | PM_T_INPLACE))
        from = from->def->operands[0];
    if (from->def)
        return PM_OK;
    pm_builder b = {in->b->graph, copy, copy->loc};
    PM_TRY(pm_build1(&b, &fresh, PM_OP_cast, PM_OPERANDS(given),
                     PM_ATTRS(pm_attr_elem("to", given->type->elem))));
    pm_op_set_operand(copy, 0, fresh);
    return PM_OK;
}

static pm_status inline_op(inliner *in, pm_op *op)
{
    pm_op *copy;
    PM_TRY(pm_op_clone(op, in->b->graph, in->b->before, &in->values, &copy));
    if (pm_op_info_of(op)->traits & PM_T_INPLACE)
        PM_TRY(keep_overwritten(in, op, copy));
    if (op->code == PM_OP_dims)
        copy->results[0]->content = content_outside(in, op->results[0]);
    rename_regions(in, copy);
    PM_TRY(pm_op_infer(copy));
    for (uint32_t i = 0; i < op->n_results; i++)
        note_extents(in, op->results[i]->type, copy->results[i]->type);
    return PM_OK;
}

pm_status pm_region_inline(pm_builder *b, const pm_graph *region, pm_value *const *args,
                           pm_value **out_results)
{
    inliner in = {.b = b, .m = region->module, .scratch = pm_arena_child(region->module->arena)};
    pm_map_init(&in.values, in.scratch);
    pm_status status = PM_OK;
    for (size_t i = 0; i < region->args.n; i++) {
        pm_value_map_put(&in.values, region->args.data[i], args[i]);
        note_extents(&in, region->args.data[i]->type, args[i]->type);
    }
    for (pm_op *op = region->first; op && status == PM_OK; op = op->next)
        status = inline_op(&in, op);
    for (size_t i = 0; i < region->results.n && status == PM_OK; i++)
        out_results[i] = pm_value_map_get(&in.values, region->results.data[i]);
    pm_arena_destroy(in.scratch);
    return status;
}
