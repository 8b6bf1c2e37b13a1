/// Constants, groups and control flow: verify, infer.
#include "ir/ops/hooks.h"

/* ---- const ----------------------------------------------------------------------------------- */

pm_status pm_verify_const(const pm_op *op, pm_diag *diag)
{
    const pm_data *data = op->attrs[0].data;
    const pm_type *type = op->results[0]->type;
    int64_t count;
    uint64_t size, end;
    if (data == NULL || type == NULL)
        return pm_hook_error(op, diag, "a constant needs its type and its bytes");
    if (type->layout)
        return pm_hook_error(op, diag, "a constant must be row-major, found %s",
                             pm_type_text(pm_hook_module(op), type));
    if (!pm_type_const_count(pm_hook_module(op), type, &count) ||
        __builtin_mul_overflow((uint64_t)count, (uint64_t)pm_elem_size(type->elem), &size))
        return pm_hook_error(op, diag, "the size of %s is not a constant that fits 64 bits",
                             pm_type_text(pm_hook_module(op), type));
    if (size != data->size)
        return pm_hook_error(op, diag, "%s needs %" PRIu64 " bytes, found %" PRIu64,
                             pm_type_text(pm_hook_module(op), type), size, data->size);
    if (data->bytes == NULL && size > 0 &&
        (data->file == NULL || __builtin_add_overflow(data->offset, size, &end) ||
         end > data->file->size))
        return pm_hook_error(
            op, diag, "its bytes %" PRIu64 " to %" PRIu64 " lie outside of %s, which has %" PRIu64,
            data->offset, data->offset + size, data->file ? data->file->path : "any file",
            data->file ? data->file->size : 0);
    return PM_OK;
}

pm_status pm_infer_const(pm_infer *inf)
{
    int64_t values[PM_MAX_CONTENT];
    pm_dim content[PM_MAX_CONTENT];
    size_t n;
    pm_value *v = inf->op->results[0];
    inf->types[0] = v->type;
    if (v->type->rank > 1 || !pm_value_const_ints(v, values, PM_MAX_CONTENT, &n))
        return PM_OK;
    for (size_t i = 0; i < n; i++)
        content[i] = pm_dim_const(inf->module, values[i]);
    pm_infer_content(inf, 0, content, n);
    return PM_OK;
}

/* ---- regions --------------------------------------------------------------------------------- */

/// True unless the types certainly differ.
static bool compatible(const pm_module *m, const pm_type *a, const pm_type *b)
{
    if (a == NULL || b == NULL || a->elem != b->elem || a->rank != b->rank ||
        a->layout != b->layout)
        return false;
    for (int32_t i = 0; i < a->rank; i++)
        if (pm_dim_differs(m, a->dims[i], b->dims[i]))
            return false;
    return true;
}

/// The region's arguments from `first_arg` on take operands from `first_operand` on.
static pm_status check_args(const pm_op *op, pm_diag *diag, uint32_t region, uint32_t first_arg,
                            uint32_t first_operand)
{
    pm_module *m = pm_hook_module(op);
    const pm_graph *g = op->regions[region];
    if (g == NULL)
        return pm_hook_error(op, diag, "region %u is missing", region);
    uint32_t n = op->n_operands - first_operand;
    if (g->args.n != (size_t)first_arg + n)
        return pm_hook_error(op, diag, "region %u takes %zu arguments, must take %u", region,
                             g->args.n, first_arg + n);
    for (uint32_t i = 0; i < n; i++) {
        if (!pm_hook_has(op, first_operand + i))
            return pm_hook_error(op, diag, "operand %u is missing", first_operand + i);
        const pm_type *arg = g->args.data[first_arg + i]->type;
        if (!compatible(m, arg, pm_hook_type(op, first_operand + i)))
            return pm_hook_error(op, diag, "argument %u of region %u is %s, the operand is %s",
                                 first_arg + i, region, pm_type_text(m, arg),
                                 pm_hook_type_text(op, first_operand + i));
    }
    return PM_OK;
}

static pm_status check_results(const pm_op *op, pm_diag *diag, uint32_t region, size_t expected)
{
    const pm_graph *g = op->regions[region];
    if (g->results.n != expected)
        return pm_hook_error(op, diag, "region %u has %zu results, must have %zu", region,
                             g->results.n, expected);
    for (size_t i = 0; i < expected; i++)
        if (g->results.data[i]->type == NULL)
            return pm_hook_error(op, diag, "result %zu of region %u has no type", i, region);
    return PM_OK;
}

static pm_status check_one(const pm_op *op, pm_diag *diag, uint32_t operand, pm_elem elem,
                           const char *what)
{
    int64_t count;
    const pm_type *type = pm_hook_type(op, operand);
    if (type->elem == elem && pm_type_const_count(pm_hook_module(op), type, &count) && count == 1)
        return PM_OK;
    return pm_hook_error(op, diag, "%s must be one %s, found %s", what, pm_elem_name(elem),
                         pm_hook_type_text(op, operand));
}

pm_status pm_verify_fused(const pm_op *op, pm_diag *diag)
{
    static const char *const kinds[] = {"loops", "linear", "grouped_linear"};
    PM_TRY(pm_hook_one_of(op, diag, "kind", kinds, PM_COUNT(kinds)));
    PM_TRY(check_args(op, diag, 0, 0, 0));
    return check_results(op, diag, 0, op->n_results);
}

pm_status pm_infer_fused(pm_infer *inf)
{
    const pm_graph *g = inf->op->regions[0];
    for (uint32_t i = 0; i < inf->op->n_results; i++) {
        const pm_value *result = g->results.data[i];
        int64_t n;
        inf->types[i] = result->type;
        if (result->content && pm_type_const_count(inf->module, result->type, &n))
            pm_infer_content(inf, i, result->content, (size_t)n);
    }
    return PM_OK;
}

pm_status pm_verify_if(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    PM_TRY(check_one(op, diag, 0, PM_BOOL, "the condition"));
    for (uint32_t r = 0; r < 2; r++) {
        PM_TRY(check_args(op, diag, r, 0, 1));
        PM_TRY(check_results(op, diag, r, op->n_results));
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *a = op->regions[0]->results.data[i]->type;
        const pm_type *b = op->regions[1]->results.data[i]->type;
        if (a->elem != b->elem || a->rank != b->rank || a->layout != b->layout)
            return pm_hook_error(op, diag, "result %u is %s in one region and %s in the other", i,
                                 pm_type_text(m, a), pm_type_text(m, b));
    }
    return PM_OK;
}

pm_status pm_infer_if(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *a = op->regions[0]->results.data[i]->type;
        const pm_type *b = op->regions[1]->results.data[i]->type;
        pm_dim dims[PM_MAX_RANK];
        for (int32_t d = 0; d < a->rank; d++) {
            pm_dim bound = pm_dim_max(m, pm_dim_upper(m, a->dims[d]), pm_dim_upper(m, b->dims[d]));
            dims[d] = a->dims[d] == b->dims[d] ? a->dims[d] : pm_infer_fresh(inf, i, d, bound);
        }
        PM_TRY(pm_hook_result(inf, i, a->elem, a->rank, dims));
    }
    return PM_OK;
}

pm_status pm_verify_loop(const pm_op *op, pm_diag *diag)
{
    pm_module *m = pm_hook_module(op);
    int64_t carried = pm_op_i64(op, "carried"), scanned = pm_op_i64(op, "scanned");
    PM_TRY(check_one(op, diag, 0, PM_I64, "the trip count"));
    PM_TRY(check_one(op, diag, 1, PM_BOOL, "the condition"));
    if (carried < 0 || carried > (int64_t)op->n_operands - 2)
        return pm_hook_error(op, diag,
                             "carried is %" PRId64 ", there are %u operands after the "
                             "condition",
                             carried, op->n_operands - 2);
    if (scanned < 0 || carried + scanned != (int64_t)op->n_results)
        return pm_hook_error(
            op, diag, "%" PRId64 " carried and %" PRId64 " scanned values don't make %u results",
            carried, scanned, op->n_results);
    PM_TRY(check_args(op, diag, 0, 2, 2));
    PM_TRY(check_results(op, diag, 0, (size_t)(1 + carried + scanned)));
    const pm_graph *g = op->regions[0];
    for (uint32_t i = 0; i < 2; i++) {
        const pm_type *type = g->args.data[i]->type;
        if (type->rank != 0 || type->elem != (i == 0 ? PM_I64 : PM_BOOL))
            return pm_hook_error(op, diag, "argument %u of the region must be %s, found %s", i,
                                 i == 0 ? "i64[]" : "bool[]", pm_type_text(m, type));
    }
    if (g->results.data[0]->type->elem != PM_BOOL)
        return pm_hook_error(op, diag, "result 0 of the region must be the condition, found %s",
                             pm_type_text(m, g->results.data[0]->type));
    for (int64_t i = 0; i < carried; i++) {
        const pm_type *in = g->args.data[2 + i]->type, *out = g->results.data[1 + i]->type;
        if (in->elem != out->elem || in->rank != out->rank || in->layout != out->layout)
            return pm_hook_error(op, diag,
                                 "carried value %" PRId64 " enters as %s and leaves as %s", i,
                                 pm_type_text(m, in), pm_type_text(m, out));
    }
    return PM_OK;
}

/// Nothing but the trip count ends the loop.
static bool runs_through(const pm_op *op)
{
    const pm_graph *g = op->regions[0];
    double condition;
    return pm_hook_splat(op->operands[1], &condition) && condition != 0 &&
           (g->results.data[0] == g->args.data[1] ||
            (pm_hook_splat(g->results.data[0], &condition) && condition != 0));
}

/// How many rounds there are at most; exactly so many when `*out_exact`.
static pm_dim rounds(pm_infer *inf, bool *out_exact)
{
    pm_dim trips = pm_hook_scalar(inf->op->operands[0]);
    *out_exact = trips != PM_DIM_NONE && runs_through(inf->op);
    return *out_exact ? pm_dim_max(inf->module, trips, pm_dim_const(inf->module, 0)) : trips;
}

pm_status pm_infer_loop(pm_infer *inf)
{
    const pm_op *op = inf->op;
    bool exact;
    pm_dim trips = rounds(inf, &exact);
    const pm_graph *g = op->regions[0];
    uint32_t carried = (uint32_t)pm_op_i64(op, "carried");
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *out = g->results.data[1 + i]->type;
        pm_dim dims[PM_MAX_RANK + 1];
        int32_t rank = 0;
        if (i >= carried) // one for each iteration
            dims[rank++] = exact ? trips : pm_infer_fresh(inf, i, 0, trips);
        for (int32_t d = 0; d < out->rank; d++, rank++) {
            // an extent stays when the region neither changes it nor makes it
            bool stays = i < carried ? out->dims[d] == pm_hook_type(op, 2 + i)->dims[d] &&
                                           out->dims[d] == g->args.data[2 + i]->type->dims[d]
                                     : !pm_dim_is_dynamic(inf->module, out->dims[d]);
            dims[rank] = stays ? out->dims[d] : pm_infer_fresh(inf, i, rank, PM_DIM_NONE);
        }
        PM_TRY(pm_hook_result(inf, i, out->elem, rank, dims));
    }
    return PM_OK;
}
