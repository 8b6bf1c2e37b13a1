/// Ops with regions: groups, control flow and experts.
#include <inttypes.h>

#include "ir/interp_cells.h"

// ---- regions ----

/// Runs a region with symbols of its own: what it binds is forgotten afterwards. Takes the args'
/// cells; gives `results`, one cell for each result.
static pm_status run_region(pm_interp *in, const pm_op *op, uint32_t which, pm_cell *args,
                            size_t n_args, pm_cell *results)
{
    size_t n_symbols = in->module->symbols.n;
    pm_block *saved = NULL;
    if (in->depth >= PM_MAX_REGION_DEPTH)
        return pm_error(in->diag, op->loc, PM_ERR_UNSUPPORTED,
                        "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
    PM_TRY(pm_interp_scratch(in, op->loc, n_symbols, sizeof(int64_t), &saved));
    if (n_symbols > 0)
        memcpy(saved->data, in->bindings, n_symbols * sizeof(int64_t));
    in->depth++;
    PM_TRY(pm_interp_graph(in, op->regions[which], args, n_args, results, op->loc));
    in->depth--;
    if (n_symbols > 0)
        memcpy(in->bindings, saved->data, n_symbols * sizeof(int64_t));
    pm_block_free(saved);
    return PM_OK;
}

/// Hands a region's results to the op's, and binds the symbols of their types.
static pm_status take_results(pm_interp *in, const pm_op *op, const pm_cell *results, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pm_cell *c = pm_interp_cell(in, op->results[i]);
        uint32_t uses_left = c->uses_left;
        *c = results[i];
        c->uses_left = uses_left;
        PM_TRY(pm_interp_bind_result(in, op, (uint32_t)i));
    }
    return PM_OK;
}

/// fused, if: a region takes the operands from `first` on and gives the op's results.
pm_status pm_interp_region(pm_interp *in, const pm_op *op, uint32_t which, uint32_t first)
{
    const pm_graph *region = op->regions[which];
    size_t n_args = op->n_operands - first;
    pm_block *block = NULL;
    if (region->results.n != op->n_results)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "%s has %" PRIu32 " results, its region gives %zu", pm_op_info_of(op)->name,
                        op->n_results, region->results.n);
    PM_TRY(pm_interp_scratch(in, op->loc, n_args + op->n_results, sizeof(pm_cell), &block));
    pm_cell *args = block->data, *results = args + n_args;
    for (size_t i = 0; i < n_args; i++) {
        const pm_cell *c = pm_interp_operand(in, op, first + (uint32_t)i);
        if (c == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "operand %zu of %s is absent",
                            first + i, pm_op_info_of(op)->name);
        args[i] = pm_cell_share(c);
    }
    PM_TRY(run_region(in, op, which, args, n_args, results));
    PM_TRY(take_results(in, op, results, op->n_results));
    pm_block_free(block);
    return PM_OK;
}

static pm_status take_scalar(pm_interp *in, const pm_op *op, const pm_cell *c, pm_elem elem,
                             const char *what, int64_t *out_value)
{
    int64_t n = 0;
    if (c->elem != elem || !pm_cell_count(c, &n) || n != 1)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "%s of %s must be one %s, found %s%s",
                        what, pm_op_info_of(op)->name, pm_elem_name(elem), pm_elem_name(c->elem),
                        pm_cell_dims_text(in, c));
    *out_value = elem == PM_BOOL ? *(const uint8_t *)c->buffer->data != 0
                                 : *(const int64_t *)c->buffer->data;
    return PM_OK;
}

pm_status pm_interp_if(pm_interp *in, const pm_op *op)
{
    const pm_cell *cond = pm_interp_operand(in, op, 0);
    int64_t is_true = 0;
    if (cond == NULL)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "the condition of if is absent");
    PM_TRY(take_scalar(in, op, cond, PM_BOOL, "the condition", &is_true));
    return pm_interp_region(in, op, is_true ? 0 : 1, 1);
}

// ---- loop ----

/// What a loop carries from one iteration to the next.
typedef struct loop_run {
    uint32_t n_carried, n_scanned, n_captured;
    pm_cell *args;     ///< iteration, condition, carried, captured
    pm_cell *results;  ///< condition, carried, scanned
    pm_block *scanned; ///< cells of each iteration, n_scanned at a time
    size_t n_kept, capacity;
} loop_run;

static pm_status scalar_cell(pm_interp *in, const pm_loc *loc, pm_elem elem, int64_t value,
                             pm_cell *out)
{
    *out = (pm_cell){.elem = elem};
    PM_TRY(pm_cell_allocate(in, loc, out));
    if (elem == PM_BOOL)
        *(uint8_t *)out->buffer->data = value != 0;
    else
        *(int64_t *)out->buffer->data = value;
    return PM_OK;
}

static pm_status keep_scanned(pm_interp *in, const pm_op *op, loop_run *run)
{
    if (run->n_kept + run->n_scanned > run->capacity) {
        pm_block *grown = NULL;
        run->capacity = 2 * (run->capacity + run->n_scanned);
        PM_TRY(pm_interp_scratch(in, op->loc, run->capacity, sizeof(pm_cell), &grown));
        if (run->scanned != NULL) {
            memcpy(grown->data, run->scanned->data, run->n_kept * sizeof(pm_cell));
            pm_block_free(run->scanned);
        }
        run->scanned = grown;
    }
    for (uint32_t i = 0; i < run->n_scanned; i++)
        ((pm_cell *)run->scanned->data)[run->n_kept++] = run->results[1 + run->n_carried + i];
    return PM_OK;
}

/// Scanned value `i` of every iteration, stacked along a new first axis.
static pm_status join_scanned(pm_interp *in, const pm_op *op, const loop_run *run, uint32_t i)
{
    const pm_value *result = op->results[run->n_carried + i];
    size_t n_rounds = run->n_kept / run->n_scanned;
    pm_cell *scanned = run->scanned != NULL ? run->scanned->data : NULL;
    pm_cell *out = pm_interp_cell(in, result);
    out->elem = result->type->elem;
    out->rank = result->type->rank;
    out->dims[0] = (int64_t)n_rounds;
    for (int32_t d = 1; d < out->rank; d++) {
        if (n_rounds > 0)
            out->dims[d] = d <= scanned[i].rank ? scanned[i].dims[d - 1] : 0;
        else if (!pm_dim_eval(in->module, result->type->dims[d], in->bindings, &out->dims[d]))
            out->dims[d] = 0; // of nothing, and nothing else says
    }
    PM_TRY(pm_cell_allocate(in, op->loc, out));
    uint8_t *to = out->buffer->data;
    for (size_t round = 0; round < n_rounds; round++) {
        pm_cell *c = &scanned[round * run->n_scanned + i];
        int64_t bytes = 0;
        bool is_same = c->elem == out->elem && c->rank + 1 == out->rank && pm_cell_bytes(c, &bytes);
        for (int32_t d = 1; d < out->rank && is_same; d++)
            is_same = c->dims[d - 1] == out->dims[d];
        if (!is_same)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                            "scanned value %" PRIu32 " of a loop changes its type or size", i);
        if (bytes > 0)
            memcpy(to, c->buffer->data, (size_t)bytes);
        to += bytes;
        pm_cell_clear(c);
    }
    return pm_interp_bind_result(in, op, run->n_carried + i);
}

/// One iteration; the carried values are in the args before and after it.
static pm_status loop_round(pm_interp *in, const pm_op *op, loop_run *run, int64_t round,
                            int64_t *inout_goes_on)
{
    size_t n_args = 2 + (size_t)run->n_carried + run->n_captured;
    PM_TRY(scalar_cell(in, op->loc, PM_I64, round, &run->args[0]));
    PM_TRY(scalar_cell(in, op->loc, PM_BOOL, *inout_goes_on, &run->args[1]));
    for (uint32_t i = 2 + run->n_carried; i < n_args; i++)
        run->args[i] = pm_cell_share(pm_interp_operand(in, op, i));
    PM_TRY(run_region(in, op, 0, run->args, n_args, run->results));
    PM_TRY(take_scalar(in, op, &run->results[0], PM_BOOL, "the condition", inout_goes_on));
    pm_cell_clear(&run->results[0]);
    for (uint32_t i = 0; i < run->n_carried; i++)
        run->args[2 + i] = run->results[1 + i];
    return run->n_scanned > 0 ? keep_scanned(in, op, run) : PM_OK;
}

static pm_status run_rounds(pm_interp *in, const pm_op *op, loop_run *run)
{
    const pm_cell *trip = pm_interp_operand(in, op, 0), *cond = pm_interp_operand(in, op, 1);
    int64_t trips = INT64_MAX, goes_on = true;
    if (trip != NULL)
        PM_TRY(take_scalar(in, op, trip, PM_I64, "the trip count", &trips));
    if (cond != NULL)
        PM_TRY(take_scalar(in, op, cond, PM_BOOL, "the condition", &goes_on));
    for (uint32_t i = 2; i < op->n_operands; i++) {
        const pm_cell *c = pm_interp_operand(in, op, i);
        if (c == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                            "operand %" PRIu32 " of loop is absent", i);
        if (i < 2 + run->n_carried)
            run->args[i] = pm_cell_share(c);
    }
    for (int64_t round = 0; round < trips && goes_on; round++)
        PM_TRY(loop_round(in, op, run, round, &goes_on));
    PM_TRY(take_results(in, op, run->args + 2, run->n_carried));
    for (uint32_t i = 0; i < run->n_scanned; i++)
        PM_TRY(join_scanned(in, op, run, i));
    return PM_OK;
}

pm_status pm_interp_loop(pm_interp *in, const pm_op *op)
{
    const pm_graph *region = op->regions[0];
    int64_t n_carried = pm_op_i64(op, "carried"), n_scanned = pm_op_i64(op, "scanned");
    pm_block *block = NULL;
    if (n_carried < 0 || n_scanned < 0 || n_carried > op->n_operands - 2 ||
        n_scanned > op->n_results || n_carried + n_scanned != op->n_results ||
        region->results.n != 1 + (size_t)op->n_results)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "the loop's counts don't match its operands, results and region");
    PM_TRY(pm_interp_scratch(in, op->loc, op->n_operands + region->results.n, sizeof(pm_cell),
                             &block));
    loop_run run = {.n_carried = (uint32_t)n_carried,
                    .n_scanned = (uint32_t)n_scanned,
                    .n_captured = op->n_operands - 2 - (uint32_t)n_carried,
                    .args = block->data,
                    .results = (pm_cell *)block->data + op->n_operands};
    PM_TRY(run_rounds(in, op, &run));
    if (run.scanned != NULL)
        pm_block_free(run.scanned);
    pm_block_free(block);
    return PM_OK;
}

// ---- experts ----

/// An `experts` op while it runs.
typedef struct experts_run {
    int64_t n_experts, n_rows;    ///< rows: tokens times choices
    pm_cell token, offsets, slot; ///< see expert_order
    pm_cell weight;               ///< of the combination; all one when inputs were scaled
    pm_cell scale;                ///< the weights in x's element type, when inputs are scaled
    pm_cell rows;                 ///< results of all experts, [n_rows, D]
} experts_run;

/// Rows of one expert out of x, as a new cell; times their weights when those apply to inputs.
static pm_status gather_expert(pm_interp *in, const pm_op *op, const experts_run *run,
                               int64_t expert, pm_cell *out)
{
    const pm_cell *x = pm_interp_operand(in, op, 0);
    const int32_t *offsets = run->offsets.buffer->data, *token = run->token.buffer->data;
    const int32_t *slot = run->slot.buffer->data;
    int64_t first = offsets[expert], n = offsets[expert + 1] - first;
    *out = (pm_cell){.elem = x->elem, .rank = 2, .dims = {n, x->dims[1]}};
    PM_TRY(pm_cell_allocate(in, op->loc, out));
    pm_tensor inputs[2] = {
        pm_cell_tensor(x),
        {.data = (void *)(token + first), .dims = &n, .rank = 1, .elem = PM_I32}};
    pm_tensor output = pm_cell_tensor(out);
    if (pm_interp_eval(PM_OP_gather_rows, inputs, 2, &output, 1, NULL) != 0)
        return pm_interp_bad_data(in, op);
    if (run->scale.buffer == NULL)
        return PM_OK;
    pm_cell column = {.elem = x->elem, .rank = 2, .dims = {n, 1}}, scaled = *out;
    size_t size = pm_elem_size(x->elem);
    PM_TRY(pm_cell_allocate(in, op->loc, &column));
    PM_TRY(pm_cell_allocate(in, op->loc, &scaled));
    for (int64_t choice = 0; choice < run->n_rows; choice++)
        if (slot[choice] >= first && slot[choice] < first + n)
            memcpy((uint8_t *)column.buffer->data + (size_t)(slot[choice] - first) * size,
                   (const uint8_t *)run->scale.buffer->data + (size_t)choice * size, size);
    pm_tensor factors[2] = {pm_cell_tensor(out), pm_cell_tensor(&column)},
              product = pm_cell_tensor(&scaled);
    if (pm_interp_eval(PM_OP_mul, factors, 2, &product, 1, NULL) != 0)
        return pm_interp_bad_data(in, op);
    pm_cell_clear(&column);
    pm_cell_clear(out);
    *out = scaled;
    return PM_OK;
}

/// Slice `expert` of a captured tensor [E, …], as a view into it.
static pm_status slice_expert(pm_interp *in, const pm_op *op, const pm_cell *c, int64_t expert,
                              pm_cell *out)
{
    int64_t n_experts = c->rank > 0 ? c->dims[0] : 0, bytes = 0;
    if (expert >= n_experts)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "a captured tensor %s of experts has no slice %" PRId64,
                        pm_cell_dims_text(in, c), expert);
    *out = (pm_cell){.elem = c->elem, .rank = c->rank - 1};
    memcpy(out->dims, c->dims + 1, (size_t)(c->rank - 1) * sizeof *c->dims);
    (void)pm_cell_bytes(out, &bytes); // a part of a tensor that exists
    out->buffer = pm_block_borrow(in, (const uint8_t *)c->buffer->data + expert * bytes);
    return out->buffer != NULL ? PM_OK : pm_interp_no_memory(in, op->loc);
}

static pm_status run_expert(pm_interp *in, const pm_op *op, experts_run *run, int64_t expert,
                            pm_cell *args)
{
    const int32_t *offsets = run->offsets.buffer->data;
    int64_t first = offsets[expert], n = offsets[expert + 1] - first;
    bool is_template = op->n_regions == 1;
    size_t n_args = op->n_operands - 2; // rows and what is captured
    pm_cell result = {0};
    PM_TRY(gather_expert(in, op, run, expert, &args[0]));
    for (size_t i = 1; i < n_args; i++) {
        const pm_cell *c = pm_interp_operand(in, op, (uint32_t)i + 2);
        if (c == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "a captured operand is absent");
        if (is_template)
            PM_TRY(slice_expert(in, op, c, expert, &args[i]));
        else
            args[i] = pm_cell_share(c);
    }
    PM_TRY(run_region(in, op, is_template ? 0 : (uint32_t)expert, args, n_args, &result));
    int64_t bytes = 0;
    if (result.elem != run->rows.elem || result.rank != 2 || result.dims[0] != n ||
        result.dims[1] != run->rows.dims[1])
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "expert %" PRId64 " gives %s%s, expected %s[%" PRId64 ", %" PRId64 "]",
                        expert, pm_elem_name(result.elem), pm_cell_dims_text(in, &result),
                        pm_elem_name(run->rows.elem), n, run->rows.dims[1]);
    if (pm_cell_bytes(&result, &bytes) && bytes > 0)
        memcpy((uint8_t *)run->rows.buffer->data + first * (bytes / n), result.buffer->data,
               (size_t)bytes);
    pm_cell_clear(&result);
    return PM_OK;
}

/// The weights apply to the inputs: they are converted to x's element type, and the results are
/// combined with weights of one.
static pm_status scale_inputs(pm_interp *in, const pm_op *op, experts_run *run)
{
    const pm_cell *weight = pm_interp_operand(in, op, 2);
    run->scale = *weight;
    run->scale.elem = pm_interp_operand(in, op, 0)->elem;
    PM_TRY(pm_cell_allocate(in, op->loc, &run->scale));
    run->weight = *weight;
    run->weight.elem = PM_F32;
    PM_TRY(pm_cell_allocate(in, op->loc, &run->weight));
    for (int64_t i = 0; i < run->n_rows; i++)
        ((float *)run->weight.buffer->data)[i] = 1;
    pm_attr_value to = {.i = (int64_t)run->scale.elem, .present = 1};
    pm_tensor input = pm_cell_tensor(weight), output = pm_cell_tensor(&run->scale);
    return pm_interp_eval(PM_OP_cast, &input, 1, &output, 1, &to) == 0 ? PM_OK
                                                                       : pm_interp_bad_data(in, op);
}

/// Checks the operands and sorts the choices by expert.
static pm_status experts_start(pm_interp *in, const pm_op *op, experts_run *run)
{
    const pm_cell *x = pm_interp_operand(in, op, 0), *expert = pm_interp_operand(in, op, 1);
    const pm_cell *weight = pm_interp_operand(in, op, 2);
    const pm_type *type = op->results[0]->type;
    run->n_experts = pm_op_i64(op, "experts");
    bool fits = x->rank == 2 && expert->rank == 2 && weight->rank == 2 && expert->elem == PM_I32 &&
                pm_elem_is_float(weight->elem) && expert->dims[0] == x->dims[0] &&
                weight->dims[0] == x->dims[0] && weight->dims[1] == expert->dims[1] &&
                type->rank == 2 && run->n_experts >= 1 && run->n_experts < INT32_MAX &&
                (op->n_regions == 1 || op->n_regions == (uint64_t)run->n_experts);
    if (!fits || !pm_cell_count(expert, &run->n_rows) || run->n_rows > INT32_MAX)
        return pm_error(in->diag, op->loc, PM_ERR_INVALID,
                        "experts takes x [M, D], expert i32[M, k], weight [M, k], and one region "
                        "or one for each expert; found %s, %s, %s",
                        pm_cell_dims_text(in, x), pm_cell_dims_text(in, expert),
                        pm_cell_dims_text(in, weight));
    run->token = (pm_cell){.elem = PM_I32, .rank = 1, .dims = {run->n_rows}};
    run->offsets = (pm_cell){.elem = PM_I32, .rank = 1, .dims = {run->n_experts + 1}};
    run->slot = (pm_cell){.elem = PM_I32, .rank = 2, .dims = {expert->dims[0], expert->dims[1]}};
    PM_TRY(pm_cell_allocate(in, op->loc, &run->token));
    PM_TRY(pm_cell_allocate(in, op->loc, &run->offsets));
    PM_TRY(pm_cell_allocate(in, op->loc, &run->slot));
    pm_tensor input = pm_cell_tensor(expert);
    pm_tensor outputs[3] = {pm_cell_tensor(&run->token), pm_cell_tensor(&run->offsets),
                            pm_cell_tensor(&run->slot)};
    pm_attr_value attrs = {.i = run->n_experts, .present = 1};
    if (pm_interp_eval(PM_OP_expert_order, &input, 1, outputs, 3, &attrs) != 0)
        return pm_interp_bad_data(in, op);
    run->rows = (pm_cell){.elem = type->elem, .rank = 2, .dims = {run->n_rows, 0}};
    if (!pm_dim_eval(in->module, type->dims[1], in->bindings, &run->rows.dims[1]))
        return pm_error(in->diag, op->loc, PM_ERR_INVALID, "the width of the result is not known");
    PM_TRY(pm_cell_allocate(in, op->loc, &run->rows));
    if (strcmp(pm_op_str(op, "apply"), "input") == 0)
        return scale_inputs(in, op, run);
    run->weight = pm_cell_share(weight);
    return PM_OK;
}

static pm_status run_all_experts(pm_interp *in, const pm_op *op, experts_run *run)
{
    PM_TRY(experts_start(in, op, run));
    const int32_t *offsets = run->offsets.buffer->data;
    pm_block *args = NULL;
    PM_TRY(pm_interp_scratch(in, op->loc, op->n_operands, sizeof(pm_cell), &args));
    for (int64_t e = 0; e < run->n_experts; e++)
        if (offsets[e + 1] > offsets[e]) // an expert without rows does not run
            PM_TRY(run_expert(in, op, run, e, args->data));
    pm_block_free(args);
    pm_cell *out = pm_interp_cell(in, op->results[0]);
    out->elem = run->rows.elem;
    out->rank = 2;
    out->dims[0] = run->slot.dims[0];
    out->dims[1] = run->rows.dims[1];
    PM_TRY(pm_cell_allocate(in, op->loc, out));
    pm_tensor inputs[3] = {pm_cell_tensor(&run->rows), pm_cell_tensor(&run->slot),
                           pm_cell_tensor(&run->weight)};
    pm_tensor output = pm_cell_tensor(out);
    if (pm_interp_eval(PM_OP_combine, inputs, 3, &output, 1, NULL) != 0)
        return pm_interp_bad_data(in, op);
    return pm_interp_bind_result(in, op, 0);
}

pm_status pm_interp_experts(pm_interp *in, const pm_op *op)
{
    experts_run run = {0};
    for (uint32_t i = 0; i < 3; i++)
        if (pm_interp_operand(in, op, i) == NULL)
            return pm_error(in->diag, op->loc, PM_ERR_INVALID, "an operand of experts is absent");
    PM_TRY(run_all_experts(in, op, &run));
    pm_cell_clear(&run.token);
    pm_cell_clear(&run.offsets);
    pm_cell_clear(&run.slot);
    pm_cell_clear(&run.weight);
    pm_cell_clear(&run.scale);
    pm_cell_clear(&run.rows);
    return PM_OK;
}
