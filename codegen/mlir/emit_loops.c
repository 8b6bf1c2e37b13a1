/// Fused groups of elementwise ops, reductions and data movement as loops.
#include "codegen/mlir/emit_group.h"
#include "codegen/mlir/lowerings.h"

/// Row of the space as indices of its leading dims.
static void split_row(group *g, MlirValue row, MlirValue *idx)
{
    const pm_type *type = g->space;
    for (int32_t i = type->rank - 2; i > 0; i--) {
        MlirValue n = pm_emit_dim(g->d, type->dims[i]);
        idx[i] = mb_bin(g->b, "remui", row, n);
        row = mb_bin(g->b, "divui", row, n);
    }
    idx[0] = row;
}

static bool is_row_output(const group *g, const pm_value *output)
{
    int64_t n, space_n;
    int32_t last = g->space->rank - 1;
    pm_module *m = g->d->e->module;
    if (g->mode == INDEX_ROWS)
        return pm_rows_fit(m, g->rows, output->type) == PM_FIT_ROW;
    return pm_dim_is_const(m, output->type->dims[last], &n) && n == 1 &&
           !(pm_dim_is_const(m, g->space->dims[last], &space_n) && space_n == 1);
}

/// The group's value that is stored to an output.
static pm_value *source_of(const group *g, uint32_t output)
{
    return g->region ? g->region->results.data[output] : g->single->results[output];
}

static bool is_stored(const group *g, uint32_t output, bool rows)
{
    return g->mode == INDEX_FLAT || g->space->rank == 0 || is_row_output(g, g->single->results[output]) == rows;
}

static pm_status store_outputs(group *g, const MlirValue *idx, bool rows)
{
    for (uint32_t i = 0; i < g->single->n_results; i++) {
        if (!is_stored(g, i, rows))
            continue;
        MlirValue element, at[PM_MAX_RANK];
        for (int32_t k = 0; k < PM_MAX_RANK; k++)
            at[k] = idx[k];
        if (rows)
            at[g->mode == INDEX_ROWS ? 1 : g->space->rank - 1] = g->zero;
        PM_TRY(pm_group_eval(g, source_of(g, i), at, &element));
        pm_group_store(g, g->single->results[i], element, at);
    }
    return PM_OK;
}

/// A lane's columns of a row: all that are loaded for c.n of them come before the first is stored.
static pm_status store_columns(group *g, const MlirValue *row, pm_lane_columns c)
{
    mb *b = g->b;
    uint32_t n_outputs = g->single->n_results;
    MlirValue *elements = PM_NEW_ARRAY(g->d->e->arena, MlirValue, (size_t)c.n * n_outputs);
    size_t memos = g->memos.n, notes = g->notes.n;
    mb_loop loop;
    mb_for_begin(b, &loop, c.from, c.to, mb_i64(b, c.n * PM_WARP_LANES), NULL, 0);
    MlirValue idx[PM_MAX_RANK] = {row[0]}, columns[PM_MAX_LANE_COLUMNS];
    for (int32_t i = 0; i < c.n; i++) {
        idx[1] = columns[i] = mb_add(b, loop.index, mb_i64(b, i * PM_WARP_LANES));
        for (uint32_t k = 0; k < n_outputs; k++)
            if (is_stored(g, k, false))
                PM_TRY(pm_group_eval(g, source_of(g, k), idx, &elements[(uint32_t)i * n_outputs + k]));
    }
    for (int32_t i = 0; i < c.n; i++) {
        idx[1] = columns[i];
        for (uint32_t k = 0; k < n_outputs; k++)
            if (is_stored(g, k, false))
                pm_group_store(g, g->single->results[k], elements[(uint32_t)i * n_outputs + k], idx);
    }
    mb_for_end(b, &loop, NULL, NULL);
    g->memos.n = memos;
    g->notes.n = notes;
    return PM_OK;
}

static pm_status lower_flat(dispatch *d)
{
    group g;
    pm_group_init(&g, d, INDEX_FLAT);
    g.space = d->op->results[0]->type;
    MlirValue lo, hi;
    pm_emit_split(d, pm_emit_count(d, g.space, 0, g.space->rank), d->e->for_device ? 1 : 64, &lo, &hi);
    mb_loop loop;
    mb_for_begin(d->b, &loop, lo, hi, mb_i64(d->b, 1), NULL, 0);
    MlirValue idx[PM_MAX_RANK] = {loop.index};
    PM_TRY(store_outputs(&g, idx, false));
    mb_for_end(d->b, &loop, NULL, NULL);
    return PM_OK;
}

/// Rows and columns that all of the dispatch lies in: those of a value that has more than one column,
/// if there is one. NULL: there are none.
static const pm_type *rows_of_group(const dispatch *d)
{
    if (d->op->code != PM_OP_fused)
        return pm_group_is_rows(d, d->op->results[0]->type) ? d->op->results[0]->type : NULL;
    for (pm_op *op = d->op->regions[0]->first; op; op = op->next)
        if (!pm_op_is_shape(op) && pm_group_is_rows(d, op->results[0]->type))
            return op->results[0]->type;
    return NULL;
}

/// The space: the dims of the output with the most dims that are not 1.
static const pm_type *space_of(const dispatch *d)
{
    const pm_type *space = d->op->results[0]->type;
    for (uint32_t i = 1; i < d->op->n_results; i++) {
        const pm_type *type = d->op->results[i]->type;
        int64_t n;
        if (type->rank > space->rank ||
            (type->rank == space->rank && type->rank > 0 &&
             pm_dim_is_const(d->e->module, space->dims[space->rank - 1], &n) && n == 1))
            space = type;
    }
    return space;
}

/// Whether a row's elements share work: then a worker takes whole rows.
static bool shares_rows(const dispatch *d)
{
    pm_op *op = d->op->code == PM_OP_fused ? d->op->regions[0]->first : d->op;
    for (; op; op = d->op->code == PM_OP_fused ? op->next : NULL)
        if (pm_op_has_row_statistics(op) || pm_op_info_of(op)->traits & PM_T_REDUCE)
            return true;
    return false;
}

/// Whether the lanes of a warp can share rows: what they exchange has 32 bits.
static bool lanes_share(const dispatch *d, bool by_rows)
{
    pm_op *op = d->op->code == PM_OP_fused ? d->op->regions[0]->first : d->op;
    if (!d->e->for_device || !by_rows)
        return false;
    for (; op; op = d->op->code == PM_OP_fused ? op->next : NULL)
        if ((pm_op_has_row_statistics(op) || pm_op_info_of(op)->traits & PM_T_REDUCE) &&
            op->operands[0]->type->elem != PM_F32 && op->operands[0]->type->elem != PM_BF16 &&
            op->operands[0]->type->elem != PM_F16 && op->operands[0]->type->elem != PM_I32)
            return false;
    return true;
}

/// A warp's lanes become one worker for rows.
static void share_rows(group *g)
{
    dispatch *d = g->d;
    MlirValue lanes = mb_i64(g->b, PM_WARP_LANES);
    g->lane = mb_bin(g->b, "remui", d->worker, lanes);
    d->worker = mb_bin(g->b, "divui", d->worker, lanes);
    d->n_workers = mb_bin(g->b, "divui", d->n_workers, lanes);
    d->e->meets = true;
}

/// Where workers are many (GPUs): neighbouring workers take neighbouring elements, whatever the row.
static pm_status loop_elements(group *g, MlirValue rows, MlirValue columns, MlirValue *idx, int32_t column)
{
    dispatch *d = g->d;
    mb *b = g->b;
    mb_loop loop;
    mb_if first;
    MlirValue lo, hi;
    pm_emit_split(d, mb_mul(b, rows, columns), 1, &lo, &hi);
    mb_for_begin(b, &loop, lo, hi, mb_i64(b, 1), NULL, 0);
    MlirValue row = mb_bin(b, "divui", loop.index, columns);
    if (g->mode == INDEX_ROWS)
        idx[0] = row;
    else if (g->space->rank > 1)
        split_row(g, row, idx);
    idx[column] = g->zero;
    PM_TRY(pm_group_prepare_row(g, idx));
    size_t memos = g->memos.n, notes = g->notes.n;
    MlirValue at = mb_bin(b, "remui", loop.index, columns);
    mb_if_begin(b, &first, mb_cmpi(b, "eq", at, g->zero));
    PM_TRY(store_outputs(g, idx, true));
    mb_if_end(b, &first);
    g->memos.n = memos; // what was computed in the branch is not there behind it
    g->notes.n = notes;
    idx[column] = at;
    PM_TRY(store_outputs(g, idx, false));
    mb_for_end(b, &loop, NULL, NULL);
    return PM_OK;
}

/// Rows are split over the workers; or columns, when there is one row and no reduction.
static pm_status lower_rows(dispatch *d)
{
    group g;
    const pm_type *space = rows_of_group(d);
    bool by_rows = space != NULL;
    space = by_rows ? space : space_of(d);
    pm_group_init(&g, d, by_rows ? INDEX_ROWS : INDEX_FULL);
    g.space = space;
    if (by_rows)
        pm_group_use_rows(&g, space);
    mb *b = d->b;
    g.status = mb_alloca(b, b->i32, 1);
    mb_store(b, mb_int(b, b->i32, 0), g.status);
    pm_group_prepare_leaves(&g);
    int32_t rank = g.space->rank;
    MlirValue idx[PM_MAX_RANK];
    for (int32_t i = 0; i < PM_MAX_RANK; i++)
        idx[i] = g.zero;
    if (rank == 0) {
        mb_if first;
        mb_if_begin(b, &first, mb_cmpi(b, "eq", d->worker, g.zero));
        PM_TRY(store_outputs(&g, idx, false));
        mb_if_end(b, &first);
        d->status = mb_load(b, b->i32, g.status);
        return PM_OK;
    }
    MlirValue rows = pm_emit_count(d, g.space, 0, rank - 1), columns = pm_emit_dim(d, g.space->dims[rank - 1]);
    MlirValue lo, hi, one = mb_i64(b, 1);
    int32_t column = by_rows ? 1 : rank - 1;
    if (d->e->for_device && !shares_rows(d)) {
        PM_TRY(loop_elements(&g, rows, columns, idx, column));
        d->status = mb_load(b, b->i32, g.status);
        return PM_OK;
    }
    if (lanes_share(d, by_rows))
        share_rows(&g);
    pm_emit_split(d, rows, 1, &lo, &hi);
    mb_loop row_loop, column_loop;
    mb_for_begin(b, &row_loop, lo, hi, one, NULL, 0);
    if (by_rows)
        idx[0] = row_loop.index;
    else if (rank > 1)
        split_row(&g, row_loop.index, idx);
    idx[column] = g.zero;
    PM_TRY(pm_group_prepare_row(&g, idx));
    mb_if first;
    MlirValue lane = g.lane;
    g.lane = (MlirValue){0}; // what is reduced from here on, each lane reduces alone
    if (lane.ptr)
        mb_if_begin(b, &first, mb_cmpi(b, "eq", lane, g.zero));
    size_t memos = g.memos.n, notes = g.notes.n;
    PM_TRY(store_outputs(&g, idx, true));
    if (lane.ptr) {
        mb_if_end(b, &first);
        g.memos.n = memos; // what was computed in the branch is not there behind it
        g.notes.n = notes;
    }
    if (lane.ptr) {
        pm_lane_columns parts[2];
        g.lane = lane;
        pm_group_lane_columns(&g, parts);
        g.lane = (MlirValue){0};
        for (int i = 0; i < 2; i++)
            PM_TRY(store_columns(&g, idx, parts[i]));
        g.lane = lane;
    } else {
        memos = g.memos.n, notes = g.notes.n;
        mb_for_begin(b, &column_loop, g.zero, columns, one, NULL, 0);
        idx[column] = column_loop.index;
        PM_TRY(store_outputs(&g, idx, false));
        mb_for_end(b, &column_loop, NULL, NULL);
        g.memos.n = memos;
        g.notes.n = notes;
    }
    mb_for_end(b, &row_loop, NULL, NULL);
    d->status = mb_load(b, b->i32, g.status);
    return PM_OK;
}

/// Whether everything in the dispatch can be written as loops.
static bool can_loop(const dispatch *d)
{
    if (d->op->code != PM_OP_fused)
        return pm_op_can_loop(d->op);
    for (pm_op *op = d->op->regions[0]->first; op; op = op->next)
        if (!pm_op_can_loop(op) && op->code != PM_OP_reshape && !pm_op_is_shape(op))
            return false;
    return true;
}

pm_status pm_lower_loops(dispatch *d)
{
    if (d->op->n_results == 0)
        return PM_ERR_UNSUPPORTED;
    if (!can_loop(d))
        return d->op->code == PM_OP_fused ? PM_ERR_UNSUPPORTED : pm_lower_ref(d);
    return pm_group_is_flat(d) ? lower_flat(d) : lower_rows(d);
}

/// ---- epilogues --------------------------------------------------------------------------------------

pm_status pm_emit_epilogue(dispatch *d, const char *name, const pm_op *product, int32_t panel,
                           int32_t ways, bool grouped, MlirValue *out_context)
{
    mb *b = d->b;
    // The context: pointers to all operands and results, then to the symbols.
    MlirValue context = mb_alloca(b, b->ptr, (int64_t)d->n_values + 1);
    for (size_t i = 0; i <= d->n_values; i++)
        mb_store(b, i < d->n_values ? d->pointers[i] : d->symbols,
                 mb_at_const(b, b->ptr, context, (int64_t)i));
    *out_context = context;

    MlirType args[7] = {b->ptr, b->i64, b->i64, b->i64, b->i64, grouped ? b->i64 : b->ptr, b->ptr};
    mb_function f;
    // Not inlined: what it keeps in registers would be kept there throughout the product's loops, instead of sums.
    mb_function_begin(b, &f, name, (MlirType){0}, args, grouped ? 7 : 6, NULL, true, "noinline");
    dispatch inner = *d; // dims are computed anew from the context's symbols
    inner.dims = PM_NEW_ARRAY(d->e->arena, MlirValue, d->n_dims);
    MlirValue ctx = mb_function_arg(&f, grouped ? 6 : 5);
    inner.symbols = mb_load(b, b->ptr, mb_at_const(b, b->ptr, ctx, (int64_t)d->n_values));
    group g;
    pm_group_init(&g, &inner, INDEX_ROWS);
    for (size_t i = 0; i < d->n_values; i++) {
        MlirValue *pointer = PM_NEW(d->e->arena, MlirValue);
        *pointer = mb_load(b, b->ptr, mb_at_const(b, b->ptr, ctx, (int64_t)i));
        pm_map_put(&g.pointers, &d->values[i]->id, sizeof d->values[i]->id, pointer);
    }
    pm_group_use_rows(&g, d->op->results[0]->type);
    g.tile_pointer = mb_function_arg(&f, 0);
    g.tile_ld = mb_function_arg(&f, 1);
    if (grouped)
        g.expert = mb_function_arg(&f, 5);
    g.tiles[pm_op_i64(product, "source")] = product->results[0];
    if (g.region) // of two products, each is one source of the panel
        for (pm_op *op = g.region->first; op; op = op->next)
            if (op->code == product->code)
                g.tiles[pm_op_i64(op, "source")] = op->results[0];
    int32_t width = panel / ways;
    MlirValue zero = g.zero, one = mb_i64(b, 1);
    MlirValue column0 = mb_mul(b, mb_function_arg(&f, 4), mb_i64(b, width));
    MlirValue left = mb_sub(b, g.rows_n, column0), full = mb_i64(b, width);
    MlirValue columns = mb_bin(b, "minsi", left, full);
    mb_loop rows, cols;
    mb_for_begin(b, &rows, zero, mb_function_arg(&f, 3), one, NULL, 0);
    g.tile_row = rows.index;
    MlirValue row = mb_add(b, mb_function_arg(&f, 2), rows.index);
    mb_for_begin(b, &cols, zero, columns, one, NULL, 0);
    g.tile_col[0] = cols.index;
    g.tile_col[1] = mb_add(b, cols.index, mb_i64(b, width));
    MlirValue idx[PM_MAX_RANK] = {row, mb_add(b, column0, cols.index)};
    PM_TRY(store_outputs(&g, idx, false));
    mb_for_end(b, &cols, NULL, NULL);
    mb_for_end(b, &rows, NULL, NULL);
    mb_return(b, (MlirValue){0});
    mb_function_end(b, &f);
    return PM_OK;
}
