/// Constant folding: ops of constants are computed by their `eval`, and views of constants (reshapes,
/// slices along the first axis) become constants of the same bytes.
///
/// Computed results are at most 64 KiB, from operands of at most 64 KiB each: weights are never
/// computed with, nor copied. All results of a run together are at most 64 MiB, but for small ones. A
/// view has no limit, since it names a range of the same bytes. Matrices that a product reads
/// transposed stay so: packing them turns them. What merely repeats one number (fill, expand) stays an
/// op, but counts as a constant for the ops that use it.
///
/// The results are `eval`'s, bit by bit. Where eval refuses (an index out of range), the op stays and
/// refuses when the program runs.
#include "ir/op_table.h"
#include "passes/generic/rewrite.h"
#include "passes/passes.h"

enum {
    MAX_BYTES = 1 << 16,
    FEW = 64,
    MAX_TOTAL = 1 << 26, ///< of computed results in one run: then only small ones go on
    SMALL = 1 << 10,
};

/// A constant operand, as eval takes it.
typedef struct known {
    pm_tensor tensor;
    int64_t dims[PM_MAX_RANK];
} known;

typedef struct folder {
    pm_pass_ctx *ctx;
    pm_module *m;
    pm_arena *scratch; ///< of one op
    uint64_t total;    ///< bytes of computed results
} folder;

/* ---- constants ------------------------------------------------------------------------------- */

/// The constant dims and the bytes of a row-major type; false when they aren't constant.
static bool const_dims(const pm_module *m, const pm_type *type, int64_t *dims, int64_t *out_bytes)
{
    if (type->layout)
        return false;
    for (int32_t i = 0; i < type->rank; i++)
        if (!pm_dim_is_const(m, type->dims[i], &dims[i]) || dims[i] < 0)
            return false;
    int64_t count;
    return pm_type_const_count(m, type, &count) &&
           pm_mul_i64(count, pm_elem_size(type->elem), out_bytes);
}

/// Cheap: whether known_of has a chance.
static bool may_be_known(const pm_value *v)
{
    return v->content || pm_value_is(v, PM_OP_const) ||
           ((pm_value_is(v, PM_OP_fill) && pm_value_is(v->def->operands[1], PM_OP_const)) ||
            (pm_value_is(v, PM_OP_expand) && pm_value_is(v->def->operands[0], PM_OP_const)));
}

static bool known_content(folder *f, const pm_value *v, int64_t bytes, uint8_t *data)
{
    int64_t element, size = pm_elem_size(v->type->elem);
    for (int64_t at = 0; at < bytes; at += size) {
        if (!pm_dim_is_const(f->m, v->content[at / size], &element))
            return false;
        memcpy(data + at, &element, (size_t)size); // little-endian: the low bytes
    }
    return true;
}

static bool eval_op(folder *f, const pm_op *op, const pm_tensor *in, uint32_t n_in, pm_tensor *out);

/// A broadcast of constants, for the op that uses it.
static bool known_broadcast(folder *f, const pm_op *op, known *out)
{
    pm_tensor in[2] = {{0}};
    int64_t dims[2][PM_MAX_RANK], bytes;
    for (uint32_t i = 0; i < 2; i++) {
        const pm_value *v = op->operands[i];
        const pm_data *data = pm_value_const(v);
        const uint8_t *from;
        if (!const_dims(f->m, v->type, dims[i], &bytes) || bytes > MAX_BYTES)
            return false;
        uint8_t *copy = pm_arena_alloc(f->scratch, (size_t)bytes, 64);
        if (v->content) {
            if (!known_content(f, v, bytes, copy))
                return false;
        } else {
            if (!data || pm_data_bytes(f->m, data, &from) != PM_OK)
                return false;
            memcpy(copy, from, (size_t)bytes);
        }
        in[i] = (pm_tensor){copy, dims[i], v->type->rank, (int32_t)v->type->elem};
    }
    return eval_op(f, op, in, 2, &out->tensor);
}

/// The operand's bytes when it is a constant of moderate size.
static bool known_of(folder *f, const pm_value *v, known *out)
{
    int64_t bytes;
    const uint8_t *from;
    if (!may_be_known(v) || !const_dims(f->m, v->type, out->dims, &bytes) || bytes > MAX_BYTES)
        return false;
    uint8_t *copy = pm_arena_alloc(f->scratch, (size_t)bytes, 64); // aligned, as eval wants it
    out->tensor = (pm_tensor){copy, out->dims, v->type->rank, (int32_t)v->type->elem};
    const pm_data *data = pm_value_const(v);
    if (data) {
        if (pm_data_bytes(f->m, data, &from) != PM_OK)
            return false;
        memcpy(copy, from, (size_t)bytes);
        return true;
    }
    return v->content ? known_content(f, v, bytes, copy) : known_broadcast(f, v->def, out);
}

/* ---- eval ------------------------------------------------------------------------------------ */

/// The extents that eval finds must be those of the types.
static bool extents_agree(folder *f, const pm_op *op, const pm_eval_args *args)
{
    pm_extent_fn *extent = pm_op_info_of(op)->extent;
    if (!extent)
        return true;
    int64_t *found = PM_NEW_ARRAY(f->scratch, int64_t, (size_t)op->n_results * PM_MAX_RANK);
    if (extent(args, found) != 0)
        return false;
    for (uint32_t i = 0; i < op->n_results; i++)
        for (int32_t k = 0; k < args->out[i].rank; k++)
            if (found[i * PM_MAX_RANK + (uint32_t)k] != args->out[i].dims[k])
                return false;
    return true;
}

/// Computes the op into memory of the module; false when it can't be.
static bool eval_op(folder *f, const pm_op *op, const pm_tensor *in, uint32_t n_in, pm_tensor *out)
{
    pm_attr_value attrs[PM_MAX_ATTRS] = {{0}};
    int64_t bytes;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        int64_t *dims = PM_NEW_ARRAY(f->scratch, int64_t, PM_MAX_RANK);
        if (!const_dims(f->m, type, dims, &bytes) || bytes > MAX_BYTES)
            return false;
        out[i] = (pm_tensor){NULL, dims, type->rank, (int32_t)type->elem};
    }
    pm_op_attr_values(op, attrs);
    pm_eval_args args = {in, (int32_t)n_in, out, (int32_t)op->n_results, attrs};
    if (!extents_agree(f, op, &args))
        return false;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const_dims(f->m, op->results[i]->type, (int64_t *)out[i].dims, &bytes);
        out[i].data = pm_arena_alloc(f->scratch, (size_t)bytes, 64);
    }
    return pm_op_info_of(op)->eval(&args) == 0;
}

/// What is made of an expert's constants is the expert's.
static void keep_owner(const pm_op *op, pm_value *constant)
{
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *v = op->operands[i];
        const char *owner = pm_value_is(v, PM_OP_const) ? pm_op_attr(v->def, "owner")->s : NULL;
        if (owner) {
            pm_op_set_str(constant->def, "owner", owner);
            return;
        }
    }
}

static pm_status replace_by_const(folder *f, pm_op *op, uint32_t result, const pm_data *data,
                                  const char *name)
{
    pm_value *old = op->results[result], *value;
    pm_builder b = {op->graph, op, pm_loc_derive(f->m, op->loc, "fold")};
    PM_TRY(pm_build_const(&b, old->type, data, name ? name : old->name, &value));
    if (!value->content)
        value->content = old->content;
    keep_owner(op, value);
    pm_value_replace(old, value);
    return PM_OK;
}

static pm_status replace_by_bytes(folder *f, pm_op *op, uint32_t result, const void *bytes)
{
    int64_t dims[PM_MAX_RANK], size = 0;
    const_dims(f->m, op->results[result]->type, dims, &size);
    uint8_t *kept = pm_arena_alloc(f->m->arena, (size_t)size, 64);
    memcpy(kept, bytes, (size_t)size);
    f->total += (uint64_t)size;
    return replace_by_const(f, op, result, &(pm_data){.size = (uint64_t)size, .bytes = kept}, NULL);
}

static void done(folder *f, pm_op *op, const char *what)
{
    pm_op_erase(op);
    pm_pass_changed(f->ctx);
    pm_pass_count(f->ctx, what);
}

/* ---- views of constants ---------------------------------------------------------------------- */

/// Elements of one step along the axis; 0 when something before the axis makes slices lie apart.
static int64_t slice_elements(const pm_module *m, const pm_type *type, int64_t axis)
{
    int64_t count = 1, extent;
    for (int32_t i = 0; i < type->rank; i++) {
        if (!pm_dim_is_const(m, type->dims[i], &extent) || (i < axis && extent != 1) || extent < 1)
            return 0;
        if (i > axis && !pm_mul_i64(count, extent, &count))
            return 0;
    }
    return count;
}

/// Where the next result, a view of operand 0, begins in it, in elements; -1 when it is no view.
/// `so_far`: the end of the one before.
static int64_t view_start(folder *f, const pm_op *op, int64_t so_far)
{
    const pm_type *x = op->operands[0]->type;
    int64_t at, axis = 0, one[PM_MAX_RANK];
    size_t n;
    switch (op->code) {
    case PM_OP_reshape: return 0;
    case PM_OP_split: {
        axis = pm_op_i64(op, "axis");
        return slice_elements(f->m, x, axis < 0 ? axis + x->rank : axis) ? so_far : -1;
    }
    case PM_OP_gather: {
        axis = pm_op_i64(op, "axis");
        axis = axis < 0 ? axis + x->rank : axis;
        int64_t step = slice_elements(f->m, x, axis), extent = 0;
        if (step == 0 || !pm_value_const_ints(op->operands[1], one, 1, &n) || n != 1)
            return -1;
        (void)pm_dim_is_const(f->m, x->dims[axis], &extent);
        at = one[0] < 0 ? one[0] + extent : one[0];
        return at >= 0 && at < extent ? at * step : -1;
    }
    case PM_OP_slice: {
        int64_t start[1], extent = 0, step[1] = {1};
        bool axes = op->n_operands > 3 && op->operands[3], steps = op->n_operands > 4 && op->operands[4];
        if (!pm_value_const_ints(op->operands[1], start, 1, &n) || n != 1 ||
            (axes && (!pm_value_const_ints(op->operands[3], one, 1, &n) || n != 1)) ||
            (steps && (!pm_value_const_ints(op->operands[4], step, 1, &n) || n != 1)) || step[0] != 1)
            return -1;
        axis = axes ? one[0] : 0;
        axis = axis < 0 ? axis + x->rank : axis;
        int64_t each = slice_elements(f->m, x, axis);
        (void)pm_dim_is_const(f->m, x->dims[axis], &extent);
        at = start[0] < 0 ? start[0] + extent : start[0];
        at = at < 0 ? 0 : at > extent ? extent : at;
        return each ? at * each : -1;
    }
    default: return -1;
    }
}

static bool makes_views(const pm_op *op)
{
    return (op->code == PM_OP_reshape || op->code == PM_OP_split || op->code == PM_OP_gather ||
            op->code == PM_OP_slice) &&
           pm_value_is(op->operands[0], PM_OP_const) && !op->operands[0]->type->layout;
}

/// The results as ranges of the constant's bytes.
static pm_status fold_views(folder *f, pm_op *op, bool *out_done)
{
    const pm_data *data = pm_value_const(op->operands[0]);
    const char *name = op->operands[0]->name;
    pm_data *views = PM_NEW_ARRAY(f->scratch, pm_data, op->n_results);
    int64_t size = pm_elem_size(op->operands[0]->type->elem), so_far = 0, dims[PM_MAX_RANK], bytes;
    for (uint32_t i = 0; i < op->n_results; i++) {
        int64_t at = view_start(f, op, so_far);
        if (at < 0 || !const_dims(f->m, op->results[i]->type, dims, &bytes) ||
            (uint64_t)(at * size) > data->size || (uint64_t)bytes > data->size - (uint64_t)(at * size))
            return PM_OK;
        views[i] = *data;
        views[i].size = (uint64_t)bytes;
        views[i].offset += (uint64_t)(at * size);
        if (views[i].bytes)
            views[i].bytes += at * size;
        so_far = at + bytes / size;
    }
    for (uint32_t i = 0; i < op->n_results; i++)
        PM_TRY(replace_by_const(f, op, i, &views[i], op->code == PM_OP_reshape ? name : NULL));
    done(f, op, "views of constants");
    *out_done = true;
    return PM_OK;
}

/* ---- the walk -------------------------------------------------------------------------------- */

static bool is_product_weight(const pm_use *use)
{
    switch (use->op->code) {
    case PM_OP_linear:
    case PM_OP_grouped_linear:
    case PM_OP_matmul: return use->index <= 1;
    case PM_OP_pack:
    case PM_OP_stack: return true;
    case PM_OP_experts: return use->index > 2;
    default: return false;
    }
}

/// Ops that are better left as they are: what repeats one number, and weights that packing turns.
static bool is_left(const pm_op *op)
{
    int64_t count;
    switch (op->code) {
    case PM_OP_dequantize: return true; // kernels take codes
    case PM_OP_fill:
    case PM_OP_expand:
        return !pm_type_const_count(op->graph->module, op->results[0]->type, &count) || count > FEW;
    case PM_OP_transpose:
        for (const pm_use *use = op->results[0]->uses; use; use = use->next)
            if (is_product_weight(use))
                return true;
        return false;
    default: return false;
    }
}

static bool all_may_be_known(const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && !may_be_known(op->operands[i]))
            return false;
    return op->n_operands > 0;
}

/// True when the results are too much on top of what was computed before.
static bool is_too_much(const folder *f, const pm_op *op)
{
    int64_t dims[PM_MAX_RANK], bytes;
    if (f->total < MAX_TOTAL)
        return false;
    for (uint32_t i = 0; i < op->n_results; i++)
        if (!const_dims(f->m, op->results[i]->type, dims, &bytes) || bytes > SMALL)
            return true;
    return false;
}

static pm_status fold_eval(folder *f, pm_op *op)
{
    known *operands = PM_NEW_ARRAY(f->scratch, known, op->n_operands);
    pm_tensor *in = PM_NEW_ARRAY(f->scratch, pm_tensor, op->n_operands);
    pm_tensor *out = PM_NEW_ARRAY(f->scratch, pm_tensor, op->n_results);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!op->operands[i])
            continue;
        if (!known_of(f, op->operands[i], &operands[i]))
            return PM_OK;
        in[i] = operands[i].tensor;
    }
    if (!eval_op(f, op, in, op->n_operands, out))
        return PM_OK;
    for (uint32_t i = 0; i < op->n_results; i++)
        PM_TRY(replace_by_bytes(f, op, i, out[i].data));
    done(f, op, "folded");
    return PM_OK;
}

/// Shape arithmetic whose content inference has found, although not of constants alone.
static pm_status fold_content(folder *f, pm_op *op, bool *out_done)
{
    pm_value *v = op->n_results == 1 ? op->results[0] : NULL;
    int64_t dims[PM_MAX_RANK], bytes;
    if (!v || !v->content || !const_dims(f->m, v->type, dims, &bytes) || bytes > MAX_BYTES)
        return PM_OK;
    uint8_t *data = pm_arena_alloc(f->scratch, (size_t)bytes, 64);
    if (!known_content(f, v, bytes, data))
        return PM_OK;
    PM_TRY(replace_by_bytes(f, op, 0, data));
    done(f, op, "shape arithmetic folded");
    *out_done = true;
    return PM_OK;
}

static bool is_used(const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++)
        if (pm_value_is_used(op->results[i]))
            return true;
    return false;
}

static pm_status visit(folder *f, pm_op *op)
{
    const pm_op_info *info = pm_op_info_of(op);
    bool folded = false;
    if (op->code == PM_OP_const || op->n_regions || (info->traits & (PM_T_IMPURE | PM_T_WEIGHT)) ||
        !is_used(op))
        return PM_OK;
    PM_TRY(fold_content(f, op, &folded));
    if (!folded && makes_views(op))
        PM_TRY(fold_views(f, op, &folded));
    if (!folded && info->eval && all_may_be_known(op) && !is_left(op) && !is_too_much(f, op))
        PM_TRY(fold_eval(f, op));
    return PM_OK;
}

pm_status pm_pass_fold(pm_pass_ctx *ctx)
{
    pm_module *m = ctx->module;
    pm_arena *lists = pm_arena_child(m->arena);
    pm_graph_vec graphs;
    folder f = {.ctx = ctx, .m = m, .scratch = pm_arena_child(m->arena)};
    pm_graphs_of(m, lists, &graphs);
    for (size_t i = 0; i < graphs.n; i++)
        for (pm_op *op = graphs.data[i]->first, *next; op; op = next) {
            next = op->next;
            m->device = op->device;
            PM_TRY(visit(&f, op));
            if (pm_arena_used(f.scratch) > 16 * MAX_BYTES) { // what one op needed is not kept
                pm_arena_destroy(f.scratch);
                f.scratch = pm_arena_child(m->arena);
            }
        }
    m->device = NULL;
    pm_arena_destroy(f.scratch);
    pm_arena_destroy(lists);
    return PM_OK;
}
