/// Creating ops with their result types inferred.
#include "ir/builder.h"

#include "ir/interner.h"
#include "ir/op_table.h"

/* ---- inference ------------------------------------------------------------------------------- */

pm_status pm_infer_error(pm_infer *inf, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(inf->module->arena, fmt, ap);
    va_end(ap);
    return pm_error(inf->diag, inf->op->loc, PM_ERR_INVALID, "%s: %s", pm_op_info_of(inf->op)->name,
                    text);
}

bool pm_op_takes_symbol(const pm_op *op, uint32_t symbol)
{
    const pm_module *m = op->graph->module;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *v = op->operands[i];
        if (v == NULL || v->type == NULL)
            continue;
        for (int32_t axis = 0; axis < v->type->rank; axis++)
            if (pm_dim_mentions(m, v->type->dims[axis], symbol))
                return true;
        int64_t n;
        if (v->content == NULL || !pm_type_const_count(m, v->type, &n))
            continue;
        for (int64_t e = 0; e < n; e++)
            if (pm_dim_mentions(m, v->content[e], symbol))
                return true;
    }
    return false;
}

pm_dim pm_infer_fresh(pm_infer *inf, uint32_t result, int32_t dim, pm_dim bound)
{
    pm_module *m = inf->module;
    const pm_type *old = inf->op->results[result]->type;
    uint32_t symbol;
    inf->finds = true;
    if (inf->check_only) // whatever it is said to be
        return old && dim < old->rank ? old->dims[dim] : pm_dim_const(m, 0);
    if (old == NULL || inf->op->is_clone || dim >= old->rank)
        return pm_dim_fresh(m, "n", bound);
    bool is_found = pm_dim_is_symbol(m, old->dims[dim], &symbol) && m->symbols.data[symbol].data_dependent;
    if (is_found && pm_op_takes_symbol(inf->op, symbol))
        return pm_dim_fresh(m, "n", bound);
    return old->dims[dim]; // said by pass extents, and compared with what the op finds
}

void pm_infer_content(pm_infer *inf, uint32_t result, const pm_dim *content, size_t n)
{
    pm_module *m = inf->module;
    for (size_t i = 0; i < n; i++)
        if (content[i] == PM_DIM_NONE || pm_dim_is_error(m, content[i]))
            return; // not known after all
    if (inf->check_only)
        return;
    pm_dim *copy = PM_NEW_ARRAY(m->arena, pm_dim, n);
    for (size_t i = 0; i < n; i++)
        copy[i] = pm_dim_simplify(m, content[i]);
    inf->op->results[result]->content = copy;
}

/// True when the constant extents alone, but those of 0, make more bytes than 63 bits count.
static bool is_too_large(const pm_module *m, const pm_type *type)
{
    int64_t size = pm_elem_size(type->elem), extent;
    bool fits = true;
    for (int32_t i = 0; i < type->rank; i++) {
        if (pm_dim_is_const(m, type->dims[i], &extent) && extent > 0)
            fits = fits && pm_mul_i64(size, extent, &size);
    }
    return !fits;
}

static pm_status check_inferred(const pm_op *op, const pm_type *const *types)
{
    pm_module *m = op->graph->module;
    for (uint32_t i = 0; i < op->n_results; i++) {
        PM_ASSERT(types[i] != NULL);
        if (is_too_large(m, types[i]))
            return pm_error(m->diag, op->loc, PM_ERR_UNSUPPORTED, "%s: result %u, %s, is too large",
                            pm_op_info_of(op)->name, i, pm_type_text(m, types[i]));
        for (int32_t axis = 0; axis < types[i]->rank; axis++) {
            int64_t lo, hi;
            pm_dim_range(m, types[i]->dims[axis], &lo, &hi);
            if (pm_dim_is_error(m, types[i]->dims[axis]))
                return pm_error(m->diag, op->loc, PM_ERR_UNSUPPORTED,
                                "%s: the extent of axis %d of result %u overflows or is too large "
                                "an expression",
                                pm_op_info_of(op)->name, (int)axis, i);
            if (hi < 0)
                return pm_error(m->diag, op->loc, PM_ERR_INVALID,
                                "%s: the extent of axis %d of result %u would be negative (%s)",
                                pm_op_info_of(op)->name, (int)axis, i,
                                pm_dim_text(m, types[i]->dims[axis]));
        }
    }
    return PM_OK;
}

/// Packed tensors go only where their layout is understood.
static pm_status check_layouts(const pm_op *op)
{
    pm_module *m = op->graph->module;
    const pm_op_info *info = pm_op_info_of(op);
    bool product = op->code == PM_OP_linear || op->code == PM_OP_grouped_linear;
    if (info->n_regions != 0)
        return PM_OK;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *v = op->operands[i];
        if (v && v->type->layout && !(product && i == 1))
            return pm_error(m->diag, op->loc, PM_ERR_INVALID,
                            "%s: operand %u must be row-major, found %s", info->name, i,
                            pm_type_text(m, v->type));
    }
    return PM_OK;
}

static pm_status infer_types(pm_op *op, const pm_type **types, bool check_only, bool *out_finds)
{
    pm_module *m = op->graph->module;
    const pm_op_info *info = pm_op_info_of(op);
    for (uint32_t i = 0; i < op->n_operands; i++)
        if (op->operands[i] && op->operands[i]->type == NULL)
            return pm_error(m->diag, op->loc, PM_ERR_INTERNAL, "%s: operand %u has no type",
                            info->name, i);
    PM_TRY(check_layouts(op));
    if (info->verify)
        PM_TRY(info->verify(op, m->diag));
    pm_infer inf = {m, op, types, m->diag, check_only, false};
    if (info->infer)
        PM_TRY(info->infer(&inf));
    *out_finds = inf.finds;
    return check_inferred(op, types);
}

enum { FEW = 8 };

/// What an inference writes, with room for the usual few results.
typedef struct attempt {
    const pm_type *few_types[FEW];
    const pm_dim *few_content[FEW];
    const pm_type **types;
    const pm_dim **content; ///< as it was
    bool finds;             ///< an extent that depends on data
} attempt;

/// Infers; the content of the results is that inferred, the former one is in the attempt.
static pm_status attempt_infer(pm_op *op, attempt *a, bool check_only)
{
    pm_module *m = op->graph->module;
    memset(a, 0, sizeof *a);
    a->types = a->few_types;
    a->content = a->few_content;
    if (op->n_results > FEW) {
        a->types = PM_NEW_ARRAY(m->arena, const pm_type *, op->n_results);
        a->content = PM_NEW_ARRAY(m->arena, const pm_dim *, op->n_results);
    }
    bool keeps_content = op->code == PM_OP_dims; // which has it from elsewhere
    for (uint32_t i = 0; i < op->n_results; i++) {
        a->content[i] = op->results[i]->content;
        if (!keeps_content)
            op->results[i]->content = NULL;
    }
    return infer_types(op, a->types, check_only, &a->finds);
}

pm_status pm_op_infer(pm_op *op)
{
    attempt a;
    pm_status status = attempt_infer(op, &a, false);
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (status == PM_OK)
            op->results[i]->type = a.types[i];
        else
            op->results[i]->content = a.content[i];
    }
    if (status == PM_OK)
        op->is_clone = false;
    return status;
}

/// An error when the result's type can't be the inferred one.
static pm_status check_type(const pm_op *op, uint32_t result, const pm_type *inferred)
{
    pm_module *m = op->graph->module;
    const pm_type *type = op->results[result]->type;
    if (type == inferred)
        return PM_OK;
    bool agrees = type && type->elem == inferred->elem && type->rank == inferred->rank &&
                  type->layout == inferred->layout;
    for (int32_t i = 0; agrees && i < type->rank; i++)
        agrees = !pm_dim_differs(m, type->dims[i], inferred->dims[i]);
    if (agrees)
        return PM_OK;
    return pm_error(m->diag, op->loc, PM_ERR_INVALID, "%s: result %u is %s, must be %s",
                    pm_op_info_of(op)->name, result,
                    type ? pm_type_text(m, type) : "without a type", pm_type_text(m, inferred));
}

pm_status pm_op_check(pm_op *op)
{
    attempt a;
    pm_status status = attempt_infer(op, &a, true);
    for (uint32_t i = 0; i < op->n_results; i++) {
        op->results[i]->content = a.content[i];
        if (status == PM_OK)
            status = check_type(op, i, a.types[i]);
    }
    return status;
}

bool pm_op_finds_extents(pm_op *op)
{
    attempt a;
    if (pm_op_info_of(op)->extent == NULL)
        return false;
    pm_status status = attempt_infer(op, &a, true);
    for (uint32_t i = 0; i < op->n_results; i++)
        op->results[i]->content = a.content[i];
    return status == PM_OK && a.finds;
}

/* ---- building -------------------------------------------------------------------------------- */

pm_status pm_build(pm_builder *b, pm_opcode code, pm_value *const *operands, size_t n_operands,
                   const pm_attr *attrs, size_t n_attrs, size_t n_results, pm_op **out_op)
{
    const pm_op_info *info = &pm_op_table[code];
    pm_op *op;
    *out_op = NULL;
    PM_ASSERT(info->n_regions == 0); // those need their regions before they are inferred
    if (n_results == 0 && info->n_out != PM_ANY)
        n_results = info->n_out;
    PM_TRY(pm_op_create(b->graph, b->before, code, b->loc, operands, n_operands, attrs, n_attrs,
                        n_results, 0, &op));
    pm_status status = pm_op_infer(op);
    if (status != PM_OK) {
        pm_op_erase(op);
        return status;
    }
    *out_op = op;
    return PM_OK;
}

pm_status pm_build1(pm_builder *b, pm_value **out_value, pm_opcode code, pm_value *const *operands,
                    size_t n_operands, const pm_attr *attrs, size_t n_attrs)
{
    pm_op *op;
    *out_value = NULL;
    PM_TRY(pm_build(b, code, operands, n_operands, attrs, n_attrs, 1, &op));
    *out_value = op->results[0];
    return PM_OK;
}

pm_status pm_build_const(pm_builder *b, const pm_type *type, const pm_data *data, const char *name,
                         pm_value **out_value)
{
    pm_op *op;
    pm_attr value = pm_attr_data("value", data);
    *out_value = NULL;
    PM_TRY(pm_op_create(b->graph, b->before, PM_OP_const, b->loc, NULL, 0, &value, 1, 1, 0, &op));
    op->results[0]->type = type;
    op->results[0]->name = pm_intern(b->graph->module, name);
    pm_status status = pm_op_infer(op);
    if (status != PM_OK) {
        pm_op_erase(op);
        return status;
    }
    *out_value = op->results[0];
    return PM_OK;
}

/// A constant of inline bytes; `bytes` are in the module's arena.
static pm_status build_inline(pm_builder *b, pm_elem elem, int32_t rank, const int64_t *dims,
                              const uint8_t *bytes, int64_t count, pm_value **out_value)
{
    pm_module *m = b->graph->module;
    pm_dim extents[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++)
        extents[i] = pm_dim_const(m, dims[i]);
    pm_data data = {.size = (uint64_t)count * pm_elem_size(elem), .bytes = bytes};
    return pm_build_const(b, pm_type_get(m, elem, rank, extents), &data, NULL, out_value);
}

static int64_t count_of(int32_t rank, const int64_t *dims)
{
    int64_t count = 1;
    PM_ASSERT(rank >= 0 && rank <= PM_MAX_RANK);
    for (int32_t i = 0; i < rank; i++) {
        bool fits = dims[i] >= 0 && pm_mul_i64(count, dims[i], &count);
        PM_ASSERT(fits); // the values exist in memory
    }
    return count;
}

pm_status pm_build_const_ints(pm_builder *b, pm_elem elem, int32_t rank, const int64_t *dims,
                              const int64_t *values, pm_value **out_value)
{
    PM_ASSERT(!pm_elem_is_float(elem));
    int64_t count = count_of(rank, dims);
    size_t size = pm_elem_size(elem);
    uint8_t *bytes = pm_arena_array(b->graph->module->arena, (size_t)count, size, 64);
    for (int64_t i = 0; i < count; i++)
        memcpy(bytes + (size_t)i * size, &values[i], size); // little-endian: the low bytes
    return build_inline(b, elem, rank, dims, bytes, count, out_value);
}

pm_status pm_build_const_f32(pm_builder *b, int32_t rank, const int64_t *dims, const float *values,
                             pm_value **out_value)
{
    int64_t count = count_of(rank, dims);
    uint8_t *bytes = pm_arena_array(b->graph->module->arena, (size_t)count, sizeof(float), 64);
    if (count)
        memcpy(bytes, values, (size_t)count * sizeof(float));
    return build_inline(b, PM_F32, rank, dims, bytes, count, out_value);
}

pm_status pm_build_dims(pm_builder *b, int32_t n, const pm_dim *dims, pm_value **out_value)
{
    pm_module *m = b->graph->module;
    int64_t *values = PM_NEW_ARRAY(m->arena, int64_t, (size_t)n);
    int32_t known = 0;
    *out_value = NULL;
    while (known < n && pm_dim_is_const(m, dims[known], &values[known]))
        known++;
    if (known == n)
        return pm_build_const_ints(b, PM_I64, 1, (const int64_t[]){n}, values, out_value);
    pm_op *op;
    PM_TRY(pm_op_create(b->graph, b->before, PM_OP_dims, b->loc, NULL, 0, NULL, 0, 1, 0, &op));
    pm_dim *content = PM_NEW_ARRAY(m->arena, pm_dim, (size_t)n);
    memcpy(content, dims, (size_t)n * sizeof *content);
    pm_dim extent = pm_dim_const(m, n);
    op->results[0]->type = pm_type_get(m, PM_I64, 1, &extent);
    op->results[0]->content = content;
    pm_status status = pm_op_infer(op);
    if (status != PM_OK) {
        pm_op_erase(op);
        return status;
    }
    *out_value = op->results[0];
    return PM_OK;
}

pm_status pm_build_reshape_dims(pm_builder *b, pm_value *x, int32_t rank, const pm_dim *dims,
                                pm_value **out_value)
{
    pm_module *m = b->graph->module;
    *out_value = x;
    if (rank < 0 || rank > PM_MAX_RANK)
        return pm_error(m->diag, b->loc, PM_ERR_UNSUPPORTED, "rank %d, at most %d is supported",
                        (int)rank, (int)PM_MAX_RANK);
    if (pm_type_get(m, x->type->elem, rank, dims) == x->type)
        return PM_OK;
    int64_t values[PM_MAX_RANK];
    int32_t unknown = 0;
    bool zero = false;
    for (int32_t i = 0; i < rank; i++) {
        if (!pm_dim_is_const(m, dims[i], &values[i])) {
            values[i] = -1;
            unknown++;
        }
        zero = zero || values[i] == 0;
    }
    pm_value *shape;
    // with an extent of 0 the rest would be 0 / 0
    if (unknown == 0 || (unknown == 1 && !zero))
        PM_TRY(pm_build_const_ints(b, PM_I64, 1, (const int64_t[]){rank}, values, &shape));
    else
        PM_TRY(pm_build_dims(b, rank, dims, &shape));
    return pm_build1(b, out_value, PM_OP_reshape, PM_OPERANDS(x, shape),
                     PM_ATTRS(pm_attr_bool("allowzero", true)));
}
