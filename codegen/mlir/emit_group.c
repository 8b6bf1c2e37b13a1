#include "codegen/mlir/emit_group.h"

#include <math.h>
#include <string.h>

void pm_group_init(group *g, dispatch *d, index_mode mode)
{
    memset(g, 0, sizeof *g);
    g->d = d;
    g->b = d->b;
    g->mode = mode;
    g->region = d->op->code == PM_OP_fused ? d->op->regions[0] : NULL;
    g->single = d->op;
    g->zero = mb_i64(d->b, 0);
    pm_map_init(&g->strides, d->e->arena);
    pm_map_init(&g->pointers, d->e->arena);
}

pm_value *pm_group_outer(const group *g, pm_value *value)
{
    if (g->region && !value->def && value->graph == g->region)
        return g->single->operands[value->index];
    return value;
}

/// Whether `value` comes from outside the group.
static bool is_leaf(const group *g, const pm_value *value)
{
    if (g->region)
        return !value->def || value->graph != g->region;
    return value->def != g->single;
}

static bool is_one(const group *g, pm_dim dim)
{
    int64_t n;
    return pm_dim_is_const(g->d->e->module, dim, &n) && n == 1;
}

static bool same_dims(const pm_type *a, const pm_type *b)
{
    return a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0);
}

void pm_group_prepare_leaves(group *g)
{
    dispatch *d = g->d;
    for (size_t i = 0; i < d->n_values; i++) {
        const pm_type *type = d->values[i]->type;
        MlirValue *strides = PM_NEW_ARRAY(d->e->arena, MlirValue, PM_MAX_RANK);
        MlirValue stride = mb_i64(g->b, 1);
        for (int32_t k = type->rank - 1; k >= 0; k--) {
            strides[k] = stride;
            stride = mb_mul(g->b, stride, pm_emit_dim(d, type->dims[k]));
        }
        pm_map_put(&g->strides, &d->values[i]->id, sizeof d->values[i]->id, strides);
    }
}

static MlirValue leaf_pointer(group *g, const pm_value *value)
{
    MlirValue *known = pm_map_get(&g->pointers, &value->id, sizeof value->id);
    return known ? *known : pm_emit_pointer(g->d, value);
}

/// Offset in elements of an element of an outer value.
static MlirValue leaf_offset(group *g, const pm_value *value, const MlirValue *idx)
{
    const pm_type *type = value->type;
    mb *b = g->b;
    if (pm_type_is_one_element(g->d->e->module, type))
        return mb_i64(b, 0);
    if (g->mode == INDEX_FLAT)
        return idx[0];
    if (g->mode == INDEX_ROWS)
        switch (pm_rows_fit(g->d->e->module, g->rows, type)) {
        case PM_FIT_ROW: return idx[0];
        case PM_FIT_COLUMN: return idx[1];
        default: return mb_add(b, mb_mul(b, idx[0], g->rows_n), idx[1]); // also what rows are gathered of
        }
    MlirValue *strides = pm_map_get(&g->strides, &value->id, sizeof value->id);
    MlirValue offset = {0};
    for (int32_t i = 0; i < type->rank; i++) {
        if (is_one(g, type->dims[i]))
            continue;
        MlirValue term = i == type->rank - 1 ? idx[i] : mb_mul(b, idx[i], strides[i]);
        offset = offset.ptr ? mb_add(b, offset, term) : term;
    }
    return offset.ptr ? offset : mb_i64(b, 0);
}

/// The element at a running number of an outer value.
static MlirValue load_at(group *g, pm_value *outer, MlirValue offset)
{
    MlirType elem = pm_emit_elem_type(g->b, outer->type->elem);
    return pm_scalar_load(g->b, outer->type->elem,
                          mb_at(g->b, elem, leaf_pointer(g, outer), offset));
}

static MlirValue leaf_load(group *g, pm_value *value, const MlirValue *idx)
{
    pm_value *outer = pm_group_outer(g, value);
    return load_at(g, outer, leaf_offset(g, outer, idx));
}

void pm_group_store(group *g, pm_value *output, MlirValue element, const MlirValue *idx)
{
    MlirValue offset = leaf_offset(g, output, idx);
    MlirType elem = pm_emit_elem_type(g->b, output->type->elem);
    pm_scalar_store(g->b, output->type->elem, element,
                    mb_at(g->b, elem, leaf_pointer(g, output), offset));
}

/// Indices of an operand of an op with broadcasting, from those of the op's result.
static void operand_index(group *g, const pm_type *result, const pm_type *operand,
                          const MlirValue *idx, MlirValue *out)
{
    if (g->mode != INDEX_FULL) { // broadcast indices are 0, so that memos find what is known of the row
        pm_row_fit fit = g->mode == INDEX_ROWS ? pm_rows_fit(g->d->e->module, g->rows, operand)
                                               : PM_FIT_FULL;
        out[0] = fit == PM_FIT_COLUMN || fit == PM_FIT_ONE ? g->zero : idx[0];
        out[1] = fit == PM_FIT_ROW || fit == PM_FIT_ONE ? g->zero : idx[1];
        return;
    }
    int32_t shift = result->rank - operand->rank;
    for (int32_t i = 0; i < operand->rank; i++) {
        pm_dim from = operand->dims[i], to = result->dims[i + shift];
        out[i] = idx[i + shift];
        if (from == to)
            continue;
        int64_t n;
        if (pm_dim_is_const(g->d->e->module, from, &n)) {
            if (n == 1)
                out[i] = g->zero;
            continue; // a constant above 1 must equal the other
        }
        MlirValue one = mb_cmpi(g->b, "eq", pm_emit_dim(g->d, from), mb_i64(g->b, 1));
        out[i] = mb_select(g->b, one, g->zero, idx[i + shift]);
    }
}

static int32_t index_count(const group *g, const pm_value *value)
{
    return g->mode == INDEX_FULL ? value->type->rank : g->mode == INDEX_ROWS ? 2 : 1;
}

static bool find_memo(group *g, const pm_value *value, const MlirValue *idx, MlirValue *out)
{
    int32_t n = index_count(g, value);
    for (size_t i = g->memos.n; i-- > 0;) {
        const memo *m = &g->memos.data[i];
        if (m->value != value)
            continue;
        int32_t k = 0;
        while (k < n && mlirValueEqual(m->idx[k], idx[k]))
            k++;
        if (k == n) {
            *out = m->result;
            return true;
        }
    }
    return false;
}

static void add_memo(group *g, const pm_value *value, const MlirValue *idx, MlirValue result)
{
    memo m = {.value = value, .result = result};
    int32_t n = index_count(g, value);
    for (int32_t k = 0; k < n; k++)
        m.idx[k] = idx[k];
    PM_PUSH(g->d->e->arena, &g->memos, m);
}

static row_note *find_note(group *g, const pm_value *value)
{
    for (size_t i = g->notes.n; i-- > 0;)
        if (g->notes.data[i].value == value)
            return &g->notes.data[i];
    return NULL;
}

/// ---- reductions -----------------------------------------------------------------------------------

typedef struct reducer {
    double start;
    const char *op; ///< of arith
    bool reassoc;
} reducer;

static reducer reducer_of(pm_opcode code, pm_elem elem)
{
    bool f = pm_elem_is_float(elem), s = elem == PM_I64 || elem == PM_I32 || elem == PM_I16 || elem == PM_I8;
    switch (code) {
    case PM_OP_reduce_max: return (reducer){0, f || s ? "maxsi" : "maxui", false}; // floats: by keys
    case PM_OP_reduce_min: return (reducer){0, f || s ? "minsi" : "minui", false};
    case PM_OP_reduce_prod: return (reducer){1, f ? "mulf" : "muli", f};
    default: return (reducer){0, f ? "addf" : "addi", f};
    }
}

/// Floats are compared by integer keys, whose maximum is a vector instruction where that of floats, in
/// which a NaN wins, is a chain of them.
static bool has_keys(pm_opcode code, pm_elem elem)
{
    return pm_elem_is_float(elem) && (code == PM_OP_reduce_max || code == PM_OP_reduce_min);
}

static MlirType key_type(mb *b, pm_elem elem)
{
    return elem == PM_F64 ? b->i64 : b->i32;
}

static MlirValue key_int(mb *b, pm_elem elem, int64_t wide)
{
    return mb_int(b, key_type(b, elem), elem == PM_F64 ? wide : wide >> 32);
}

/// Bits whose order as integers is that of the floats; its own inverse.
static MlirValue flip(mb *b, pm_elem elem, MlirValue bits)
{
    MlirValue shift = mb_int(b, key_type(b, elem), elem == PM_F64 ? 63 : 31);
    MlirValue mask = mb_bin(b, "andi", mb_bin(b, "shrsi", bits, shift), key_int(b, elem, INT64_MAX));
    return mb_bin(b, "xori", bits, mask);
}

/// The key of x; that of a NaN is beyond all others. Computed elements of narrow floats are f32.
static MlirValue to_key(mb *b, pm_opcode code, pm_elem elem, MlirValue x)
{
    MlirValue key = flip(b, elem, mb_convert(b, "bitcast", x, key_type(b, elem)));
    MlirValue winner = key_int(b, elem, code == PM_OP_reduce_max ? INT64_MAX : INT64_MIN);
    return mb_select(b, mb_cmpf(b, "uno", x, x), winner, key);
}

static MlirValue from_key(mb *b, pm_elem elem, MlirValue key)
{
    return mb_convert(b, "bitcast", flip(b, elem, key), pm_scalar_type(b, elem));
}

static MlirValue reducer_start(mb *b, pm_opcode code, pm_elem elem, reducer r)
{
    MlirType type = pm_scalar_type(b, elem);
    if (has_keys(code, elem)) // of the infinity
        return to_key(b, code, elem, mb_float(b, type, code == PM_OP_reduce_max ? -INFINITY : INFINITY));
    if (pm_elem_is_float(elem))
        return mb_float(b, type, r.start);
    uint32_t bits = pm_elem_size(elem) * 8;
    bool s = elem == PM_I64 || elem == PM_I32 || elem == PM_I16 || elem == PM_I8;
    if (code == PM_OP_reduce_max)
        return mb_int(b, type, s ? INT64_MIN >> (64 - bits) : 0);
    if (code == PM_OP_reduce_min)
        return mb_int(b, type, s ? INT64_MAX >> (64 - bits) : -1);
    return mb_int(b, type, (int64_t)r.start);
}

/// What is summed up along the loop: the element itself, or something made of it.
typedef MlirValue map_fn(group *g, MlirValue element, void *user);

/// What each lane has found, put together in all of them: always in the same order.
static MlirValue reduce_lanes(mb *b, reducer r, MlirValue x)
{
    bool f32 = mlirTypeEqual(mlirValueGetType(x), b->f32);
    for (int32_t distance = PM_WARP_LANES / 2; distance > 0; distance /= 2) {
        MlirValue args[] = {x, mb_int(b, b->i32, distance)};
        MlirValue other = mb_call(b, f32 ? "pm_dev_shfl_xor_f32" : "pm_dev_shfl_xor_i32", f32 ? b->f32 : b->i32, args, 2);
        x = mb_bin(b, r.op, x, other);
    }
    return x;
}

/// What a reduction makes of its elements.
typedef struct reduction {
    pm_opcode code;
    map_fn *map; ///< NULL: the element itself
    void *user;
} reduction;

/// One more element.
static pm_status reduce_element(group *g, pm_value *operand, const MlirValue *idx, const reduction *how, MlirValue *acc)
{
    mb *b = g->b;
    pm_elem elem = operand->type->elem;
    reducer r = reducer_of(how->code, elem);
    size_t mark = g->memos.n;
    MlirValue element;
    PM_TRY(pm_group_eval(g, operand, idx, &element));
    if (how->map)
        element = how->map(g, element, how->user);
    if (has_keys(how->code, elem))
        element = to_key(b, how->code, elem, element);
    *acc = r.reassoc ? mb_bin_fast(b, r.op, *acc, element, "reassoc") : mb_bin(b, r.op, *acc, element);
    g->memos.n = mark;
    return PM_OK;
}

/// A row's columns, which the lanes of a warp share, `n` at a time of each lane.
static pm_status reduce_columns(group *g, pm_value *operand, const MlirValue *row, const reduction *how, pm_lane_columns c,
                                MlirValue *acc)
{
    mb *b = g->b;
    MlirValue idx[PM_MAX_RANK] = {row[0]};
    mb_loop loop;
    mb_for_begin(b, &loop, c.from, c.to, mb_i64(b, c.n * PM_WARP_LANES), acc, 1);
    MlirValue next = loop.carried[0];
    for (int32_t i = 0; i < c.n; i++) {
        idx[1] = mb_add(b, loop.index, mb_i64(b, i * PM_WARP_LANES));
        PM_TRY(reduce_element(g, operand, idx, how, &next));
    }
    mb_for_end(b, &loop, &next, acc);
    return PM_OK;
}

static pm_status reduce_shared(group *g, pm_value *operand, const MlirValue *row, const reduction *how, MlirValue *acc)
{
    pm_lane_columns parts[2];
    pm_group_lane_columns(g, parts);
    for (int i = 0; i < 2; i++)
        PM_TRY(reduce_columns(g, operand, row, how, parts[i], acc));
    *acc = reduce_lanes(g->b, reducer_of(how->code, operand->type->elem), *acc);
    return PM_OK;
}

/// Each worker alone, over the dims set in `axes`.
static pm_status reduce_alone(group *g, pm_value *operand, uint32_t axes, MlirValue *idx, const reduction *how,
                              MlirValue *acc)
{
    mb *b = g->b;
    const pm_type *type = operand->type;
    mb_loop loops[PM_MAX_RANK];
    int32_t n_loops = 0;
    for (int32_t i = 0; i < type->rank; i++) {
        if (!(axes >> i & 1))
            continue;
        mb_for_begin(b, &loops[n_loops], mb_i64(b, 0), pm_emit_dim(g->d, type->dims[i]), mb_i64(b, 1),
                     n_loops ? loops[n_loops - 1].carried : acc, 1);
        idx[g->mode == INDEX_ROWS ? 1 : i] = loops[n_loops].index;
        n_loops++;
    }
    if (n_loops)
        *acc = loops[n_loops - 1].carried[0];
    PM_TRY(reduce_element(g, operand, idx, how, acc));
    while (n_loops-- > 0) {
        MlirValue result;
        mb_for_end(b, &loops[n_loops], acc, &result);
        *acc = result;
    }
    return PM_OK;
}

/// Reduces `operand` over the dims set in `axes`; `idx` has valid entries for the others.
static pm_status reduce_over(group *g, pm_value *operand, uint32_t axes, MlirValue *idx,
                             pm_opcode code, map_fn *map, void *user, MlirValue *out)
{
    pm_elem elem = operand->type->elem;
    reduction how = {code, map, user};
    MlirValue acc = reducer_start(g->b, code, elem, reducer_of(code, elem));
    if (g->lane.ptr) // rows, whose columns the lanes share
        PM_TRY(reduce_shared(g, operand, idx, &how, &acc));
    else
        PM_TRY(reduce_alone(g, operand, axes, idx, &how, &acc));
    *out = has_keys(code, elem) ? from_key(g->b, elem, acc) : acc;
    return PM_OK;
}

static pm_status eval_reduce(group *g, pm_op *op, const MlirValue *idx, MlirValue *out)
{
    mb *b = g->b;
    pm_value *x = op->operands[0];
    const pm_attr *axes_attr = pm_op_attr(op, "axes");
    bool keep = pm_op_i64(op, "keepdims") != 0;
    uint32_t axes = 0;
    for (size_t i = 0; i < axes_attr->n; i++) {
        int64_t axis = axes_attr->ints[i];
        axes |= 1u << (axis < 0 ? axis + x->type->rank : axis);
    }
    MlirValue inner[PM_MAX_RANK] = {0};
    int32_t from = 0;
    if (g->mode == INDEX_ROWS) // of the columns, dims kept
        inner[0] = idx[0];
    for (int32_t i = 0; i < x->type->rank && g->mode == INDEX_FULL; i++) {
        if (!(axes >> i & 1))
            inner[i] = idx[keep ? i : from];
        if (keep || !(axes >> i & 1))
            from++;
    }
    MlirValue sum;
    PM_TRY(reduce_over(g, x, axes, inner, op->code, NULL, NULL, &sum));
    if (op->code == PM_OP_reduce_mean) {
        MlirValue n = mb_i64(b, 1);
        for (int32_t i = 0; i < x->type->rank; i++)
            if (axes >> i & 1)
                n = mb_mul(b, n, pm_emit_dim(g->d, x->type->dims[i]));
        if (pm_elem_is_float(x->type->elem))
            sum = mb_bin(b, "divf", sum, pm_scalar_cast(b, n, PM_I64, x->type->elem == PM_F64 ? PM_F64 : PM_F32));
        else
            return PM_ERR_UNSUPPORTED;
    }
    *out = sum;
    return PM_OK;
}

/// ---- norms and softmax over the last axis: statistics are noted once per row ------------------------

static MlirValue map_square(group *g, MlirValue x, void *user)
{
    (void)user;
    return mb_bin(g->b, "mulf", x, x);
}

static MlirValue map_exp_minus(group *g, MlirValue x, void *user)
{
    MlirValue d = mb_bin(g->b, "subf", x, *(MlirValue *)user);
    return mb_call(g->b, "pm_m_exp", g->b->f32, &d, 1);
}

static MlirValue map_square_minus(group *g, MlirValue x, void *user)
{
    MlirValue d = mb_bin(g->b, "subf", x, *(MlirValue *)user);
    return mb_bin(g->b, "mulf", d, d);
}

static pm_status note_statistics(group *g, pm_op *op, const MlirValue *row_idx)
{
    mb *b = g->b;
    pm_value *x = op->operands[0];
    int32_t last = x->type->rank - 1;
    uint32_t axes = 1u << last;
    MlirValue idx[PM_MAX_RANK];
    memcpy(idx, row_idx, sizeof idx);
    row_note note = {.value = op->results[0]};
    if (op->code == PM_OP_softmax) {
        PM_TRY(reduce_over(g, x, axes, idx, PM_OP_reduce_max, NULL, NULL, &note.a));
        PM_TRY(reduce_over(g, x, axes, idx, PM_OP_reduce_sum, map_exp_minus, &note.a, &note.b));
        if (pm_op_i64(op, "log"))
            note.b = mb_call(b, "pm_m_log", b->f32, &note.b, 1);
    } else {
        MlirValue n = pm_scalar_cast(b, pm_emit_dim(g->d, x->type->dims[last]), PM_I64, PM_F32);
        MlirValue eps = mb_float(b, b->f32, pm_op_f64(op, "eps")), variance;
        if (op->code == PM_OP_layer_norm) {
            PM_TRY(reduce_over(g, x, axes, idx, PM_OP_reduce_sum, NULL, NULL, &note.a));
            note.a = mb_bin(b, "divf", note.a, n);
            PM_TRY(reduce_over(g, x, axes, idx, PM_OP_reduce_sum, map_square_minus, &note.a,
                               &variance));
        } else {
            PM_TRY(reduce_over(g, x, axes, idx, PM_OP_reduce_sum, map_square, NULL, &variance));
        }
        variance = mb_bin(b, "addf", mb_bin(b, "divf", variance, n), eps);
        MlirValue root = mb_op(b, "llvm.intr.sqrt", b->f32, &variance, 1, NULL, 0);
        note.b = mb_bin(b, "divf", mb_float(b, b->f32, 1), root);
    }
    PM_PUSH(g->d->e->arena, &g->notes, note);
    return PM_OK;
}

static pm_status eval_statistics(group *g, pm_op *op, const MlirValue *idx, MlirValue *out)
{
    mb *b = g->b;
    row_note *note = find_note(g, op->results[0]);
    if (!note) { // not at row level: computed where it is needed
        PM_TRY(note_statistics(g, op, idx));
        note = find_note(g, op->results[0]);
    }
    MlirValue a = note->a, s = note->b, x;
    PM_TRY(pm_group_eval(g, op->operands[0], idx, &x));
    MlirValue of_column[PM_MAX_RANK] = {idx[op->operands[0]->type->rank - 1]}; // [N]
    if (g->mode == INDEX_ROWS) {
        of_column[0] = g->zero;
        of_column[1] = idx[1];
    }
    if (op->code == PM_OP_softmax) {
        MlirValue shifted = mb_bin(b, "subf", x, a);
        *out = pm_op_i64(op, "log")
                   ? mb_bin(b, "subf", shifted, s)
                   : mb_bin(b, "divf", mb_call(b, "pm_m_exp", b->f32, &shifted, 1), s);
        return PM_OK;
    }
    if (op->code == PM_OP_layer_norm)
        x = mb_bin(b, "subf", x, a);
    MlirValue scale, y = mb_bin(b, "mulf", x, s);
    PM_TRY(pm_group_eval(g, op->operands[1], of_column, &scale));
    y = mb_bin(b, "mulf", y, scale);
    if (op->code == PM_OP_layer_norm && op->n_operands > 2 && op->operands[2]) {
        MlirValue bias;
        PM_TRY(pm_group_eval(g, op->operands[2], of_column, &bias));
        y = mb_bin(b, "addf", y, bias);
    }
    *out = y;
    return PM_OK;
}

/// ---- gathers of rows ------------------------------------------------------------------------------

/// Checks 0 <= i < n (negative i count from the end) and notes a fault; gives a safe index.
static MlirValue checked_index(group *g, MlirValue i, MlirValue n)
{
    mb *b = g->b;
    MlirValue zero = mb_i64(b, 0);
    MlirValue wrapped = mb_select(b, mb_cmpi(b, "slt", i, zero), mb_add(b, i, n), i);
    MlirValue bad = mb_cmpi(b, "uge", wrapped, n);
    MlirValue former = mb_load(b, b->i32, g->status);
    mb_store(b, mb_bin(b, "ori", former, mb_convert(b, "extui", bad, b->i32)), g->status);
    return mb_select(b, bad, zero, wrapped);
}

/// An index that lies at a running number of `indices`, checked to be below n.
static MlirValue load_index(group *g, pm_value *indices, MlirValue at, MlirValue n)
{
    pm_value *outer = pm_group_outer(g, indices);
    MlirValue i = pm_scalar_cast(g->b, load_at(g, outer, at), outer->type->elem, PM_I64);
    return checked_index(g, i, n);
}

/// The number of a row among all rows.
static MlirValue row_number(group *g, const pm_type *type, const MlirValue *idx)
{
    MlirValue row = idx[0];
    for (int32_t i = 1; i < type->rank - 1 && g->mode == INDEX_FULL; i++)
        row = mb_add(g->b, mb_mul(g->b, row, pm_emit_dim(g->d, type->dims[i])), idx[i]);
    return row;
}

/// Indices and weights come from outside the group.
static pm_status note_gather(group *g, pm_op *op, const MlirValue *idx)
{
    mb *b = g->b;
    row_note note = {.value = op->results[0]};
    MlirValue n = pm_emit_dim(g->d, op->operands[0]->type->dims[0]);
    MlirValue row = row_number(g, op->results[0]->type, idx);
    if (op->code == PM_OP_combine) {
        int64_t k = 0;
        pm_dim_is_const(g->d->e->module, op->operands[1]->type->dims[1], &k);
        PM_ASSERT(k <= PM_LOOP_MAX_CHOICES);
        for (int64_t c = 0; c < k; c++) {
            MlirValue at = mb_add(b, mb_mul(b, row, mb_i64(b, k)), mb_i64(b, c));
            note.many[2 * c] = load_index(g, op->operands[1], at, n);
            note.many[2 * c + 1] = load_at(g, pm_group_outer(g, op->operands[2]), at);
        }
    } else {
        note.a = load_index(g, op->operands[1], row, n);
    }
    PM_PUSH(g->d->e->arena, &g->notes, note);
    return PM_OK;
}

static pm_status eval_gather(group *g, pm_op *op, const MlirValue *idx, MlirValue *out)
{
    row_note *found = find_note(g, op->results[0]);
    if (!found) {
        PM_TRY(note_gather(g, op, idx));
        found = find_note(g, op->results[0]);
    }
    row_note note = *found;
    pm_value *x = op->operands[0];
    int32_t rank = op->results[0]->type->rank;
    if (op->code != PM_OP_combine) {
        MlirValue at[PM_MAX_RANK] = {note.a};
        for (int32_t i = 1; i < x->type->rank; i++)
            at[i] = idx[g->mode == INDEX_ROWS ? 1 : rank - x->type->rank + i];
        return pm_group_eval(g, x, at, out);
    }
    int64_t k = 0;
    pm_dim_is_const(g->d->e->module, op->operands[1]->type->dims[1], &k);
    MlirValue sum = mb_float(g->b, g->b->f32, 0);
    for (int64_t c = 0; c < k; c++) {
        MlirValue at[2] = {note.many[2 * c], idx[1]}, y;
        PM_TRY(pm_group_eval(g, x, at, &y));
        MlirValue term = mb_bin(g->b, "mulf", y, note.many[2 * c + 1]);
        sum = c == 0 ? term : mb_bin(g->b, "addf", sum, term);
    }
    *out = sum;
    return PM_OK;
}

/// ---- evaluation -----------------------------------------------------------------------------------

static pm_status eval_elementwise(group *g, pm_op *op, const MlirValue *idx, MlirValue *out)
{
    MlirValue args[3];
    for (uint32_t i = 0; i < op->n_operands; i++) {
        MlirValue at[PM_MAX_RANK];
        operand_index(g, op->results[0]->type, op->operands[i]->type, idx, at);
        PM_TRY(pm_group_eval(g, op->operands[i], at, &args[i]));
    }
    return pm_scalar_apply(g->b, op, args, out) ? PM_OK : PM_ERR_UNSUPPORTED;
}

/// Small floats are computed in f32; what other ops of the group see is what memory would hold.
static MlirValue as_stored(group *g, const pm_value *value, MlirValue x)
{
    pm_elem elem = value->type->elem;
    return elem == PM_BF16 || elem == PM_F16 ? pm_scalar_cast(g->b, x, PM_F32, elem) : x;
}

static pm_status eval_op(group *g, pm_op *op, const MlirValue *idx, MlirValue *out)
{
    const pm_op_info *info = pm_op_info_of(op);
    bool computes = true;
    if (info->traits & PM_T_ELEMENTWISE)
        PM_TRY(eval_elementwise(g, op, idx, out));
    else if (info->traits & PM_T_REDUCE)
        PM_TRY(eval_reduce(g, op, idx, out));
    else if (pm_op_has_row_statistics(op))
        PM_TRY(eval_statistics(g, op, idx, out));
    else if (pm_op_gathers_rows(op))
        PM_TRY(eval_gather(g, op, idx, out));
    else
        computes = false;
    if (computes) { // casts have rounded already, gathers have nothing to round
        if (op->code != PM_OP_cast && (op->code == PM_OP_combine || !pm_op_gathers_rows(op)))
            *out = as_stored(g, op->results[0], *out);
        return PM_OK;
    }
    MlirValue at[PM_MAX_RANK];
    switch (op->code) {
    case PM_OP_reshape: // the same rows and columns
        return g->mode == INDEX_ROWS ? pm_group_eval(g, op->operands[0], idx, out) : PM_ERR_UNSUPPORTED;
    case PM_OP_transpose: {
        const pm_attr *perm = pm_op_attr(op, "perm");
        for (size_t i = 0; i < perm->n; i++)
            at[perm->ints[i]] = idx[i];
        return pm_group_eval(g, op->operands[0], at, out);
    }
    case PM_OP_expand:
        operand_index(g, op->results[0]->type, op->operands[0]->type, idx, at);
        return pm_group_eval(g, op->operands[0], at, out);
    case PM_OP_fill:
        for (int32_t i = 0; i < PM_MAX_RANK; i++)
            at[i] = g->zero;
        return pm_group_eval(g, op->operands[1], at, out);
    default: return PM_ERR_UNSUPPORTED;
    }
}

/// An element of the kernel's tile, with the bias of the product.
static pm_status eval_tile(group *g, pm_value *value, int which, const MlirValue *idx,
                           MlirValue *out)
{
    mb *b = g->b;
    pm_op *op = value->def;
    MlirValue at = mb_add(b, mb_mul(b, g->tile_row, g->tile_ld), g->tile_col[which]);
    MlirValue x = mb_load(b, b->f32, mb_at(b, b->f32, g->tile_pointer, at));
    uint32_t bias = op->code == PM_OP_linear ? 2 : 3;
    if (op->n_operands > bias && op->operands[bias]) {
        pm_value *outer = pm_group_outer(g, op->operands[bias]);
        MlirValue offset = idx[1];
        if (op->code == PM_OP_grouped_linear)
            offset = mb_add(b, mb_mul(b, g->expert, g->rows_n), offset);
        MlirType elem = pm_emit_elem_type(b, outer->type->elem);
        x = mb_bin(b, "addf", x,
                   pm_scalar_load(b, outer->type->elem,
                                  mb_at(b, elem, leaf_pointer(g, outer), offset)));
    }
    *out = x;
    return PM_OK;
}

pm_status pm_group_eval(group *g, pm_value *value, const MlirValue *idx, MlirValue *out)
{
    if (find_memo(g, value, idx, out))
        return PM_OK;
    for (int t = 0; t < 2; t++)
        if (g->tiles[t] == value) {
            PM_TRY(eval_tile(g, value, t, idx, out));
            add_memo(g, value, idx, *out);
            return PM_OK;
        }
    if (is_leaf(g, value))
        *out = leaf_load(g, value, idx);
    else
        PM_TRY(eval_op(g, value->def, idx, out));
    add_memo(g, value, idx, *out);
    return PM_OK;
}

/// Calls `visit` for each op of the group in order, until one fails.
static pm_op *first_op(const group *g)
{
    return g->region ? g->region->first : g->single;
}

static pm_op *next_op(const group *g, pm_op *op)
{
    return g->region ? op->next : NULL;
}

/// Whether a value has one element for each row of the space.
static bool is_of_row(const group *g, const pm_type *type)
{
    if (g->mode == INDEX_ROWS)
        return pm_rows_fit(g->d->e->module, g->rows, type) == PM_FIT_ROW;
    return type->rank == g->space->rank && is_one(g, type->dims[type->rank - 1]) &&
           !is_one(g, g->space->dims[type->rank - 1]);
}

static bool is_of_space(const group *g, const pm_type *type)
{
    if (g->mode == INDEX_ROWS)
        return pm_rows_fit(g->d->e->module, g->rows, type) == PM_FIT_FULL;
    return type->rank == g->space->rank;
}

pm_status pm_group_prepare_row(group *g, const MlirValue *idx)
{
    for (pm_op *op = first_op(g); op; op = next_op(g, op)) {
        if (pm_op_is_shape(op))
            continue;
        const pm_type *type = op->results[0]->type;
        if (is_of_space(g, type) && pm_op_has_row_statistics(op)) {
            PM_TRY(note_statistics(g, op, idx));
        } else if (is_of_space(g, type) && pm_op_gathers_rows(op)) {
            PM_TRY(note_gather(g, op, idx));
        } else if (is_of_row(g, type)) {
            MlirValue ignored, at[PM_MAX_RANK];
            memcpy(at, idx, sizeof at);
            at[g->mode == INDEX_ROWS ? 1 : type->rank - 1] = g->zero;
            PM_TRY(pm_group_eval(g, op->results[0], at, &ignored));
        }
    }
    return PM_OK;
}

void pm_group_lane_columns(const group *g, pm_lane_columns out[2])
{
    mb *b = g->b;
    MlirValue part = mb_i64(b, PM_MAX_LANE_COLUMNS * PM_WARP_LANES);
    MlirValue whole = mb_mul(b, mb_bin(b, "divui", g->rows_n, part), part);
    out[0] = (pm_lane_columns){g->lane, whole, PM_MAX_LANE_COLUMNS};
    out[1] = (pm_lane_columns){mb_add(b, whole, g->lane), g->rows_n, 1};
}

void pm_group_use_rows(group *g, const pm_type *space)
{
    g->space = space;
    g->rows = pm_rows_of(g->d->e->module, space);
    g->rows_n = pm_emit_dim(g->d, g->rows.columns);
}

/// An operand that is looked up by rows: it need not lie in the space.
static bool is_looked_up(const pm_value *v)
{
    for (const pm_use *use = v->uses; use; use = use->next)
        if (!pm_op_gathers_rows(use->op))
            return false;
    return v->uses != NULL;
}

static bool reduces_columns(pm_module *m, pm_rows rows, const pm_op *op)
{
    const pm_attr *axes = pm_op_attr(op, "axes");
    int32_t last = op->operands[0]->type->rank - 1;
    return axes->n == 1 && (axes->ints[0] == last || axes->ints[0] == -1) && pm_op_i64(op, "keepdims") &&
           pm_rows_fit(m, rows, op->operands[0]->type) == PM_FIT_FULL;
}

bool pm_group_is_rows(const dispatch *d, const pm_type *space)
{
    pm_module *m = d->e->module;
    if (space->rank == 0)
        return false;
    group g = {.single = d->op, .region = d->op->code == PM_OP_fused ? d->op->regions[0] : NULL};
    pm_rows rows = pm_rows_of(m, space);
    for (pm_op *op = first_op(&g); op; op = next_op(&g, op)) {
        if (pm_op_is_shape(op))
            continue;
        const pm_type *type = op->results[0]->type;
        pm_row_fit fit = pm_rows_fit(m, rows, type);
        bool by_row = pm_op_has_row_statistics(op) || pm_op_gathers_rows(op);
        if (fit == PM_FIT_NONE || (by_row && fit != PM_FIT_FULL) || op->code == PM_OP_transpose)
            return false;
        if (pm_op_info_of(op)->traits & PM_T_REDUCE && !reduces_columns(m, rows, op))
            return false;
    }
    if (!g.region) {
        if (pm_op_gathers_rows(d->op))
            return true;
        for (size_t i = 0; i < d->n_inputs; i++)
            if (pm_rows_fit(m, rows, d->values[i]->type) == PM_FIT_NONE)
                return false;
        return true;
    }
    for (size_t i = 0; i < g.region->args.n; i++)
        if (!is_looked_up(g.region->args.data[i]) &&
            pm_rows_fit(m, rows, g.region->args.data[i]->type) == PM_FIT_NONE)
            return false;
    return true;
}

bool pm_group_is_flat(const dispatch *d)
{
    group g = {.d = (dispatch *)d, .single = d->op,
               .region = d->op->code == PM_OP_fused ? d->op->regions[0] : NULL};
    const pm_type *space = d->op->results[0]->type;
    for (size_t i = 0; i < d->n_values; i++)
        if (!same_dims(d->values[i]->type, space) &&
            (i >= d->n_inputs || !pm_type_is_one_element(d->e->module, d->values[i]->type)))
            return false;
    for (pm_op *op = first_op(&g); op; op = next_op(&g, op)) {
        if (!(pm_op_info_of(op)->traits & PM_T_ELEMENTWISE))
            return false;
        const pm_type *type = op->results[0]->type;
        if (!same_dims(type, space) && !pm_type_is_one_element(d->e->module, type))
            return false;
    }
    return true;
}
