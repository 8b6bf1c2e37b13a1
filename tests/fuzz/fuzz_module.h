/// What targets that run modules share: which ones are small enough, and inputs for them.
#ifndef PM_TESTS_FUZZ_MODULE_H
#define PM_TESTS_FUZZ_MODULE_H

#include "tests/fuzz/fuzz_util.h"

#include "ir/interp.h"

enum { MAX_COUNT = 1024, MAX_OPS = 64 };

/// Elements of a type, or -1 when they are many or unknown.
static inline int64_t count_of(const pm_module *m, const pm_type *type, const int64_t *bindings)
{
    int64_t n = 1;
    for (int32_t d = 0; d < type->rank; d++) {
        int64_t extent;
        if (!pm_dim_eval(m, type->dims[d], bindings, &extent) || extent < 0 || extent > MAX_COUNT)
            return -1;
        n *= extent > 0 ? extent : 1;
        if (n > MAX_COUNT)
            return -1;
    }
    return n;
}

static inline bool values_are_small(const pm_module *m, pm_value *const *values, size_t n,
                                    const int64_t *bindings)
{
    for (size_t i = 0; i < n; i++)
        if (count_of(m, values[i]->type, bindings) < 0)
            return false;
    return true;
}

/// True when interpreting takes no time: few ops, no loops, small values.
static inline bool is_small(const pm_graph *g, const int64_t *bindings, size_t *n_ops)
{
    if (!values_are_small(g->module, g->args.data, g->args.n, bindings))
        return false;
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        if (op->code == PM_OP_loop || ++*n_ops > MAX_OPS ||
            !values_are_small(g->module, op->results, op->n_results, bindings))
            return false;
        for (uint32_t i = 0; i < op->n_regions; i++)
            if (!is_small(op->regions[i], bindings, n_ops))
                return false;
    }
    return true;
}

/// Inputs (zeros, and true) for an entry that is small, or NULL.
static inline pm_array *small_inputs(pm_arena *arena, const pm_graph *entry)
{
    const pm_module *m = entry->module;
    size_t n_ops = 0;
    int64_t *bindings = PM_NEW_ARRAY(arena, int64_t, m->symbols.n);
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        int64_t upper;
        if (!s->data_dependent)
            bindings[i] = s->lo > 2 ? s->lo : s->hi < 2 ? s->hi : 2;
        else if (s->bound != PM_DIM_NONE && pm_dim_eval(m, s->bound, bindings, &upper))
            bindings[i] = upper;
        else
            return NULL;
    }
    if (!is_small(entry, bindings, &n_ops))
        return NULL;
    pm_array *inputs = PM_NEW_ARRAY(arena, pm_array, entry->args.n);
    for (size_t i = 0; i < entry->args.n; i++) {
        const pm_type *type = entry->args.data[i]->type;
        inputs[i] = (pm_array){.elem = type->elem, .rank = type->rank};
        for (int32_t d = 0; d < type->rank; d++)
            check(pm_dim_eval(m, type->dims[d], bindings, &inputs[i].dims[d]));
        size_t size = (size_t)count_of(m, type, bindings) * pm_elem_size(type->elem);
        inputs[i].data = pm_arena_alloc(arena, size, 64);
        memset(inputs[i].data, type->elem == PM_BOOL ? 1 : 0, size);
    }
    return inputs;
}

#endif
