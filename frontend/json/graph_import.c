#include "frontend/json/graph_import.h"

typedef struct importer {
    pm_module *to;
    const pm_module *from;
    pm_arena *scratch;
    pm_map values;   ///< by value of `from`: pm_value *
    pm_dim *symbols; ///< by symbol of `from`; PM_DIM_NONE where not bound
    size_t n_symbols;
} importer;

static pm_value *mapped(const importer *im, const pm_value *value)
{
    return value != NULL ? pm_map_get(&im->values, &value, sizeof value) : NULL;
}

static void map_value(importer *im, const pm_value *value, pm_value *to)
{
    pm_map_put(&im->values, &value, sizeof value, to);
}

// ---- dims and types ----

/// The symbol's extent here; a data-dependent one that no op has found yet becomes a fresh symbol.
static pm_dim translate_symbol(importer *im, uint32_t symbol)
{
    const pm_symbol *s = &im->from->symbols.data[symbol];
    if (im->symbols[symbol] == PM_DIM_NONE)
        im->symbols[symbol] = s->data_dependent
                                  ? pm_dim_fresh(im->to, s->name, PM_DIM_NONE)
                                  : pm_dim_symbol(im->to, s->name, s->lo, s->hi);
    return im->symbols[symbol];
}

/// Expressions have operands with smaller ids: all those below `dim` that it needs, in order.
static pm_dim translate_dim(importer *im, pm_dim dim)
{
    int64_t value;
    if (dim == PM_DIM_NONE)
        return PM_DIM_NONE;
    if (pm_dim_is_const(im->from, dim, &value))
        return pm_dim_const(im->to, value);
    pm_arena *scratch = pm_arena_child(im->scratch);
    size_t n = (size_t)dim + 1;
    bool *needed = PM_NEW_ARRAY(scratch, bool, n);
    pm_dim *done = PM_NEW_ARRAY(scratch, pm_dim, n);
    needed[dim] = true;
    for (size_t i = n; i-- > 0;) {
        pm_dim_info info = pm_dim_get(im->from, (pm_dim)i);
        if (!needed[i] || info.kind == PM_DIM_CONST || info.kind == PM_DIM_SYMBOL)
            continue;
        needed[info.a] = needed[info.b] = true;
    }
    for (size_t i = 0; i < n; i++) {
        if (!needed[i])
            continue;
        pm_dim_info info = pm_dim_get(im->from, (pm_dim)i);
        pm_dim a = PM_DIM_NONE, b = PM_DIM_NONE;
        if (info.kind != PM_DIM_CONST && info.kind != PM_DIM_SYMBOL) {
            a = done[info.a];
            b = done[info.b];
        }
        switch (info.kind) {
        case PM_DIM_CONST: done[i] = pm_dim_const(im->to, info.value); break;
        case PM_DIM_SYMBOL: done[i] = translate_symbol(im, (uint32_t)info.value); break;
        case PM_DIM_ADD: done[i] = pm_dim_add(im->to, a, b); break;
        case PM_DIM_MUL: done[i] = pm_dim_mul(im->to, a, b); break;
        case PM_DIM_FLOORDIV: done[i] = pm_dim_floordiv(im->to, a, b); break;
        case PM_DIM_CEILDIV: done[i] = pm_dim_ceildiv(im->to, a, b); break;
        case PM_DIM_MOD: done[i] = pm_dim_mod(im->to, a, b); break;
        case PM_DIM_MIN: done[i] = pm_dim_min(im->to, a, b); break;
        case PM_DIM_MAX: done[i] = pm_dim_max(im->to, a, b); break;
        }
    }
    pm_dim result = done[dim];
    pm_arena_destroy(scratch);
    return result;
}

static const pm_type *translate_type(importer *im, const pm_type *type)
{
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < type->rank; i++)
        dims[i] = translate_dim(im, type->dims[i]);
    return pm_type_get(im->to, type->elem, type->rank, dims);
}

/// Binds an argument to its value: what are symbols in its type become the value's extents.
static pm_status bind_arg(importer *im, const pm_loc *loc, const pm_value *arg, pm_value *value)
{
    const pm_type *want = arg->type, *have = value->type;
    const char *name = arg->name != NULL ? arg->name : "?";
    if (want->elem != have->elem || want->rank != have->rank)
        return pm_error(im->to->diag, loc, PM_ERR_INVALID,
                        "its input '%s' is %s, but it is given %s", name,
                        pm_type_text((pm_module *)(uintptr_t)im->from, want),
                        pm_type_text(im->to, have));
    for (int32_t i = 0; i < want->rank; i++) {
        uint32_t symbol;
        if (pm_dim_is_symbol(im->from, want->dims[i], &symbol) &&
            im->symbols[symbol] == PM_DIM_NONE)
            im->symbols[symbol] = have->dims[i];
        // a fixed extent can't stand for one that varies
        if (!pm_dim_same(translate_dim(im, want->dims[i]), have->dims[i]))
            return pm_error(im->to->diag, loc, PM_ERR_INVALID,
                            "its input '%s' is %s, but it is given %s: extent %d must be dynamic "
                            "or the same",
                            name, pm_type_text((pm_module *)(uintptr_t)im->from, want),
                            pm_type_text(im->to, have), (int)i);
    }
    map_value(im, arg, value);
    return PM_OK;
}

// ---- ops ----

static pm_status import_ops(importer *im, pm_builder *b, const pm_graph *from, uint32_t depth);

static pm_status import_region(importer *im, pm_op *parent, const pm_graph *from, uint32_t depth)
{
    pm_graph *region = pm_region_create(parent);
    pm_builder b = {.graph = region};
    for (size_t i = 0; i < from->args.n; i++) {
        const pm_value *arg = from->args.data[i];
        map_value(im, arg,
                  pm_graph_add_arg(region, arg->name, translate_type(im, arg->type), -1));
    }
    PM_TRY(import_ops(im, &b, from, depth));
    for (size_t i = 0; i < from->results.n; i++)
        pm_graph_add_result(region, from->result_names.data[i],
                            mapped(im, from->results.data[i]), -1);
    return PM_OK;
}

static pm_status import_const(importer *im, pm_builder *b, const pm_op *op)
{
    pm_value *value;
    PM_TRY(pm_build_const(b, translate_type(im, op->results[0]->type),
                          pm_value_const(op->results[0]), op->results[0]->name, &value));
    map_value(im, op->results[0], value);
    return PM_OK;
}

static pm_status import_dims(importer *im, pm_builder *b, const pm_op *op)
{
    const pm_value *old = op->results[0];
    int64_t n;
    pm_value *value;
    if (!pm_dim_is_const(im->from, old->type->dims[0], &n) || old->content == NULL)
        return pm_error(im->to->diag, op->loc, PM_ERR_INTERNAL, "dims without content");
    pm_dim *dims = PM_NEW_ARRAY(im->scratch, pm_dim, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        dims[i] = translate_dim(im, old->content[i]);
    PM_TRY(pm_build_dims(b, (int32_t)n, dims, &value));
    map_value(im, old, value);
    return PM_OK;
}

static pm_status import_op(importer *im, pm_builder *b, const pm_op *op, uint32_t depth)
{
    b->loc = pm_loc_intern(im->to, op->loc);
    if (op->code == PM_OP_const)
        return import_const(im, b, op);
    if (op->code == PM_OP_dims)
        return import_dims(im, b, op);
    pm_value **operands = PM_NEW_ARRAY(im->scratch, pm_value *, op->n_operands);
    pm_attr *attrs = PM_NEW_ARRAY(im->scratch, pm_attr, op->n_attrs);
    size_t n_attrs = 0;
    for (uint32_t i = 0; i < op->n_operands; i++)
        operands[i] = mapped(im, op->operands[i]);
    for (uint32_t i = 0; i < op->n_attrs; i++)
        if (op->attrs[i].present)
            attrs[n_attrs++] = op->attrs[i];
    pm_op *copy;
    PM_TRY(pm_op_create(b->graph, b->before, op->code, b->loc, operands, op->n_operands, attrs,
                        n_attrs, op->n_results, op->n_regions, &copy));
    for (uint32_t i = 0; i < op->n_regions; i++)
        PM_TRY(import_region(im, copy, op->regions[i], depth + 1));
    PM_TRY(pm_op_infer(copy));
    for (uint32_t i = 0; i < op->n_results; i++) {
        copy->results[i]->name = pm_intern(im->to, op->results[i]->name);
        map_value(im, op->results[i], copy->results[i]);
    }
    return PM_OK;
}

static pm_status import_ops(importer *im, pm_builder *b, const pm_graph *from, uint32_t depth)
{
    if (depth > PM_MAX_REGION_DEPTH)
        return pm_error(im->to->diag, b->loc, PM_ERR_UNSUPPORTED, "regions are nested too deep");
    for (const pm_op *op = from->first; op != NULL; op = op->next)
        PM_TRY(import_op(im, b, op, depth));
    return PM_OK;
}

pm_status pm_graph_import(pm_builder *b, const pm_graph *from, pm_value *const *args,
                          pm_value **results)
{
    importer im = {.to = b->graph->module,
                   .from = from->module,
                   .scratch = pm_arena_child(b->graph->module->arena),
                   .n_symbols = from->module->symbols.n};
    const pm_loc *loc = b->loc;
    pm_status status = PM_OK;
    pm_map_init(&im.values, im.scratch);
    im.symbols = PM_NEW_ARRAY(im.scratch, pm_dim, im.n_symbols);
    for (size_t i = 0; i < im.n_symbols; i++)
        im.symbols[i] = PM_DIM_NONE;
    for (size_t i = 0; i < from->args.n && status == PM_OK; i++)
        status = bind_arg(&im, loc, from->args.data[i], args[i]);
    if (status == PM_OK)
        status = import_ops(&im, b, from, 0);
    for (size_t i = 0; i < from->results.n && status == PM_OK; i++)
        results[i] = mapped(&im, from->results.data[i]);
    pm_arena_destroy(im.scratch);
    b->loc = loc;
    return status;
}
