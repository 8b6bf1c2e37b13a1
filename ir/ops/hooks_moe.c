/// Mixture of experts, and weights computed when the artifact is written: verify, infer.
#include "ir/ops/hooks.h"

/// It has its own weights, and chooses by the scores alone.
static pm_status check_sparsemixer(const pm_op *op, pm_diag *diag)
{
    if (strcmp(pm_op_str(op, "act"), "softmax") != 0 || pm_op_i64(op, "groups") != 1 ||
        pm_hook_has(op, 1) || pm_hook_has(op, 2))
        return pm_hook_error(op, diag, "sparsemixer goes with act softmax, without groups, selection bias "
                                       "and weighing scores");
    if (!(pm_op_f64(op, "jitter") >= 0))
        return pm_hook_error(op, diag, "jitter is %g, must be 0 or more", pm_op_f64(op, "jitter"));
    return PM_OK;
}

pm_status pm_verify_route(const pm_op *op, pm_diag *diag)
{
    static const char *const acts[] = {"softmax", "sigmoid", "sqrtsoftplus", "none"};
    static const char *const weighs[] = {"as_is", "softmax", "renorm"};
    static const char *const group_scores[] = {"max", "top2"};
    static const char *const selects[] = {"topk", "sparsemixer"};
    int64_t experts, top_k = pm_op_i64(op, "top_k"), groups = pm_op_i64(op, "groups");
    int64_t keep = pm_op_i64(op, "keep_groups");
    PM_TRY(pm_hook_one_of(op, diag, "act", acts, PM_COUNT(acts)));
    PM_TRY(pm_hook_one_of(op, diag, "weigh", weighs, PM_COUNT(weighs)));
    PM_TRY(pm_hook_one_of(op, diag, "group_score", group_scores, PM_COUNT(group_scores)));
    PM_TRY(pm_hook_one_of(op, diag, "select", selects, PM_COUNT(selects)));
    PM_TRY(pm_hook_float(op, diag, 0));
    PM_TRY(pm_hook_rank(op, diag, 0, 2));
    if (!pm_dim_is_const(pm_hook_module(op), pm_hook_type(op, 0)->dims[1], &experts))
        return pm_error(diag, op->loc, PM_ERR_UNSUPPORTED,
                        "route: the number of experts must be known, found scores %s",
                        pm_hook_type_text(op, 0));
    if (experts < 1)
        return pm_hook_error(op, diag, "there are no experts: scores are %s",
                             pm_hook_type_text(op, 0));
    if (top_k < 1 || top_k > experts)
        return pm_hook_error(op, diag, "top_k is %" PRId64 ", must be in [1, %" PRId64 "]", top_k,
                             experts);
    if (groups < 1 || experts % groups != 0)
        return pm_hook_error(op, diag, "groups is %" PRId64 ", must divide the %" PRId64 " experts",
                             groups, experts);
    if (keep < 1 || keep > groups)
        return pm_hook_error(op, diag, "keep_groups is %" PRId64 ", must be in [1, %" PRId64 "]",
                             keep, groups);
    if (keep * (experts / groups) < top_k)
        return pm_hook_error(op, diag,
                             "top_k is %" PRId64 ", but the %" PRId64
                             " groups that are kept have only %" PRId64 " experts",
                             top_k, keep, keep * (experts / groups));
    if (strcmp(pm_op_str(op, "select"), "sparsemixer") == 0)
        PM_TRY(check_sparsemixer(op, diag));
    if (pm_hook_has(op, 1)) {
        PM_TRY(pm_hook_float(op, diag, 1));
        PM_TRY(pm_hook_rank(op, diag, 1, 1));
        PM_TRY(pm_hook_extent(op, diag, "the length of the selection bias",
                              pm_hook_type(op, 1)->dims[0], pm_hook_type(op, 0)->dims[1]));
    }
    if (!pm_hook_has(op, 2))
        return PM_OK;
    PM_TRY(pm_hook_float(op, diag, 2));
    PM_TRY(pm_hook_rank(op, diag, 2, 2));
    for (int32_t i = 0; i < 2; i++)
        PM_TRY(pm_hook_extent(op, diag, "an extent of the weighing scores",
                              pm_hook_type(op, 2)->dims[i], pm_hook_type(op, 0)->dims[i]));
    return PM_OK;
}

pm_status pm_infer_route(pm_infer *inf)
{
    pm_dim dims[2] = {pm_hook_type(inf->op, 0)->dims[0],
                      pm_dim_const(inf->module, pm_op_i64(inf->op, "top_k"))};
    PM_TRY(pm_hook_result(inf, 0, PM_I32, 2, dims));
    return pm_hook_result(inf, 1, PM_F32, 2, dims);
}

/// The arguments and result of one region of experts.
static pm_status check_region(const pm_op *op, pm_diag *diag, uint32_t r, bool is_template)
{
    pm_module *m = pm_hook_module(op);
    const pm_graph *g = op->regions[r];
    uint32_t n_captured = op->n_operands - 3;
    if (g == NULL)
        return pm_hook_error(op, diag, "region %u is missing", r);
    if (g->args.n != 1 + (size_t)n_captured)
        return pm_hook_error(
            op, diag, "region %u takes %zu arguments, must be the rows and %u captured tensors", r,
            g->args.n, n_captured);
    const pm_type *rows = g->args.data[0]->type, *x = pm_hook_type(op, 0);
    if (rows->rank != 2 || rows->elem != x->elem || pm_dim_differs(m, rows->dims[1], x->dims[1]))
        return pm_hook_error(op, diag, "argument 0 of region %u must be rows of %s, found %s", r,
                             pm_hook_type_text(op, 0), pm_type_text(m, rows));
    for (uint32_t i = 0; i < n_captured; i++) {
        const pm_type *arg = g->args.data[i + 1]->type, *captured = pm_hook_type(op, i + 3);
        int32_t skip = is_template; // an expert's slice lacks the first axis
        bool fits = arg->elem == captured->elem && arg->rank == captured->rank - skip &&
                    arg->layout == captured->layout;
        for (int32_t d = 0; fits && d < arg->rank; d++)
            fits = !pm_dim_differs(m, arg->dims[d], captured->dims[d + skip]);
        if (!fits)
            return pm_hook_error(op, diag, "argument %u of region %u must be %s %s, found %s",
                                 i + 1, r, is_template ? "an expert's slice of" : "the captured",
                                 pm_hook_type_text(op, i + 3), pm_type_text(m, arg));
    }
    if (g->results.n != 1 || g->results.data[0]->type == NULL ||
        g->results.data[0]->type->rank != 2)
        return pm_hook_error(op, diag, "region %u must have one result [n, D]", r);
    return pm_hook_extent(op, diag, "the rows of a region's result",
                          g->results.data[0]->type->dims[0], rows->dims[0]);
}

/// One name for all, or one for each expert.
static pm_status check_devices(const pm_op *op, pm_diag *diag, int64_t experts)
{
    const pm_attr *devices = pm_op_attr(op, "devices");
    int64_t n = 1;
    for (const char *c = devices->present ? devices->s : ""; *c; c++)
        n += *c == ',';
    if (n == 1 || n == experts)
        return PM_OK;
    return pm_hook_error(op, diag, "devices has %" PRId64 " names, must have 1 or %" PRId64, n, experts);
}

pm_status pm_verify_experts(const pm_op *op, pm_diag *diag)
{
    static const char *const applies[] = {"output", "input"};
    pm_module *m = pm_hook_module(op);
    int64_t experts = pm_op_i64(op, "experts"), top_k = pm_op_i64(op, "top_k");
    PM_TRY(pm_hook_one_of(op, diag, "apply", applies, PM_COUNT(applies)));
    if (experts < 1)
        return pm_hook_error(op, diag, "experts is %" PRId64 ", must be 1 or more", experts);
    if (top_k < 1 || top_k > experts)
        return pm_hook_error(op, diag, "top_k is %" PRId64 ", must be in [1, %" PRId64 "]", top_k,
                             experts);
    PM_TRY(check_devices(op, diag, experts));
    PM_TRY(pm_hook_rank(op, diag, 0, 2));
    PM_TRY(pm_hook_elem(op, diag, 1, PM_I32));
    PM_TRY(pm_hook_float(op, diag, 2));
    for (uint32_t i = 1; i < 3; i++) {
        const char *what = i == 1 ? "the columns of expert" : "the columns of weight";
        PM_TRY(pm_hook_rank(op, diag, i, 2));
        PM_TRY(pm_hook_extent(op, diag, i == 1 ? "the rows of expert" : "the rows of weight",
                              pm_hook_type(op, i)->dims[0], pm_hook_type(op, 0)->dims[0]));
        PM_TRY(
            pm_hook_extent(op, diag, what, pm_hook_type(op, i)->dims[1], pm_dim_const(m, top_k)));
    }
    if (op->n_regions != 1 && op->n_regions != experts)
        return pm_hook_error(op, diag,
                             "there are %u regions, must be 1 (a template) or one for each of "
                             "%" PRId64 " experts",
                             op->n_regions, experts);
    bool is_template = op->n_regions == 1;
    for (uint32_t i = 3; i < op->n_operands; i++) {
        if (!pm_hook_has(op, i))
            return pm_hook_error(op, diag, "operand %u is missing", i);
        const pm_type *captured = pm_hook_type(op, i);
        if (!is_template)
            continue;
        if (captured->rank == 0)
            return pm_hook_error(op, diag,
                                 "captured operand %u must have an axis of experts, "
                                 "found %s",
                                 i, pm_hook_type_text(op, i));
        PM_TRY(pm_hook_extent(op, diag, "the first extent of a captured tensor", captured->dims[0],
                              pm_dim_const(m, experts)));
    }
    for (uint32_t r = 0; r < op->n_regions; r++)
        PM_TRY(check_region(op, diag, r, is_template));
    return PM_OK;
}

pm_status pm_infer_experts(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    const pm_type *first = op->regions[0]->results.data[0]->type;
    pm_dim dims[2] = {pm_hook_type(op, 0)->dims[0], first->dims[1]};
    for (uint32_t r = 1; r < op->n_regions; r++) {
        const pm_type *other = op->regions[r]->results.data[0]->type;
        if (other->elem != first->elem || pm_dim_differs(m, other->dims[1], first->dims[1]))
            return pm_infer_error(inf, "region %u gives %s, region 0 gives %s", r,
                                  pm_type_text(m, other), pm_type_text(m, first));
    }
    return pm_hook_result(inf, 0, first->elem, 2, dims);
}

pm_status pm_infer_expert_order(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    int64_t experts = pm_op_i64(op, "experts");
    PM_TRY(pm_hook_elem(op, inf->diag, 0, PM_I32));
    PM_TRY(pm_hook_rank(op, inf->diag, 0, 2));
    if (experts < 1 || experts > INT32_MAX - 1)
        return pm_infer_error(inf, "experts is %" PRId64 ", must be 1 or more", experts);
    const pm_type *expert = pm_hook_type(op, 0);
    pm_dim rows = pm_type_count(m, expert), offsets = pm_dim_const(m, experts + 1);
    PM_TRY(pm_hook_result(inf, 0, PM_I32, 1, &rows));
    PM_TRY(pm_hook_result(inf, 1, PM_I32, 1, &offsets));
    return pm_hook_result(inf, 2, PM_I32, 2, expert->dims);
}

/// x [M, D] and token i32[R].
static pm_status check_rows(const pm_op *op, pm_diag *diag)
{
    PM_TRY(pm_hook_rank(op, diag, 0, 2));
    PM_TRY(pm_hook_elem(op, diag, 1, PM_I32));
    return pm_hook_rank(op, diag, 1, 1);
}

pm_status pm_infer_expert_rows(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    int64_t offsets, expert = pm_op_i64(op, "expert");
    PM_TRY(check_rows(op, inf->diag));
    PM_TRY(pm_hook_elem(op, inf->diag, 2, PM_I32));
    PM_TRY(pm_hook_rank(op, inf->diag, 2, 1));
    if (expert < 0 ||
        (pm_dim_is_const(m, pm_hook_type(op, 2)->dims[0], &offsets) && expert >= offsets - 1))
        return pm_infer_error(inf, "expert is %" PRId64 ", but offsets are %s", expert,
                              pm_hook_type_text(op, 2));
    pm_dim dims[2] = {pm_infer_fresh(inf, 0, 0, pm_hook_type(op, 1)->dims[0]),
                      pm_hook_type(op, 0)->dims[1]};
    return pm_hook_result(inf, 0, pm_hook_type(op, 0)->elem, 2, dims);
}

pm_status pm_infer_gather_rows(pm_infer *inf)
{
    const pm_op *op = inf->op;
    PM_TRY(check_rows(op, inf->diag));
    pm_dim dims[2] = {pm_hook_type(op, 1)->dims[0], pm_hook_type(op, 0)->dims[1]};
    return pm_hook_result(inf, 0, pm_hook_type(op, 0)->elem, 2, dims);
}

pm_status pm_infer_combine(pm_infer *inf)
{
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    PM_TRY(pm_hook_float(op, inf->diag, 0));
    PM_TRY(pm_hook_rank(op, inf->diag, 0, 2));
    PM_TRY(pm_hook_elem(op, inf->diag, 1, PM_I32));
    PM_TRY(pm_hook_rank(op, inf->diag, 1, 2));
    PM_TRY(pm_hook_float(op, inf->diag, 2));
    PM_TRY(pm_hook_rank(op, inf->diag, 2, 2));
    const pm_type *y = pm_hook_type(op, 0), *slot = pm_hook_type(op, 1);
    for (int32_t i = 0; i < 2; i++)
        PM_TRY(pm_hook_extent(op, inf->diag, "an extent of weight", pm_hook_type(op, 2)->dims[i],
                              slot->dims[i]));
    PM_TRY(pm_hook_extent(op, inf->diag, "the rows of y", y->dims[0], pm_type_count(m, slot)));
    pm_dim dims[2] = {slot->dims[0], y->dims[1]};
    return pm_hook_result(inf, 0, y->elem, 2, dims);
}

pm_status pm_infer_capacity(pm_infer *inf)
{
    const pm_op *op = inf->op;
    double fraction = pm_op_f64(op, "fraction");
    PM_TRY(pm_hook_elem(op, inf->diag, 0, PM_I32));
    PM_TRY(pm_hook_rank(op, inf->diag, 0, 3));
    PM_TRY(pm_hook_elem(op, inf->diag, 1, PM_F32));
    PM_TRY(pm_hook_rank(op, inf->diag, 1, 3));
    for (int32_t i = 0; i < 3; i++)
        PM_TRY(pm_hook_extent(op, inf->diag, "an extent of weight", pm_hook_type(op, 1)->dims[i],
                              pm_hook_type(op, 0)->dims[i]));
    if (pm_op_i64(op, "experts") < 1)
        return pm_infer_error(inf, "there are no experts");
    if (pm_op_i64(op, "capacity") < 0 || !(fraction >= 0 && fraction <= 1e9))
        return pm_infer_error(inf, "capacity and fraction must not be negative");
    return pm_hook_result(inf, 0, PM_F32, 3, pm_hook_type(op, 1)->dims);
}

/* ---- weights --------------------------------------------------------------------------------- */

pm_status pm_verify_stack(const pm_op *op, pm_diag *diag)
{
    for (uint32_t i = 0; i < op->n_operands; i++) {
        if (!pm_hook_has(op, i))
            return pm_hook_error(op, diag, "operand %u is missing", i);
        if (pm_hook_type(op, i) != pm_hook_type(op, 0))
            return pm_hook_error(op, diag, "operand %u is %s, must be like operand 0, %s", i,
                                 pm_hook_type_text(op, i), pm_hook_type_text(op, 0));
    }
    return PM_OK;
}

pm_status pm_infer_stack(pm_infer *inf)
{
    const pm_type *x = pm_hook_type(inf->op, 0);
    pm_dim dims[PM_MAX_RANK + 1] = {pm_dim_const(inf->module, inf->op->n_operands)};
    if (x->rank)
        memcpy(dims + 1, x->dims, (size_t)x->rank * sizeof *dims);
    return pm_hook_result(inf, 0, x->elem, x->rank + 1, dims);
}

static pm_status read_lowbit(pm_infer *inf, pm_elem elem, pm_layout *layout)
{
    const pm_op *op = inf->op;
    int64_t bits = pm_op_i64(op, "bits"), block = pm_op_i64(op, "block"), zero = pm_op_i64(op, "zero");
    int64_t scale = pm_op_i64(op, "scale"), floats = pm_op_i64(op, "floats");
    if (bits == 0)
        return PM_OK;
    if ((bits != 2 && bits != 4 && bits != 8) || elem != PM_F32 || layout->pair != 1 ||
        pm_op_i64(op, "trans"))
        return pm_infer_error(inf, "bits is %" PRId64 ", must be 2, 4 or 8, with elem f32 and pair 1", bits);
    if (block < 1 || block > INT32_MAX / 8 || block % (32 / bits) != 0)
        return pm_infer_error(inf, "block is %" PRId64 ", must be a multiple of %" PRId64, block, 32 / bits);
    if (scale < 0 || scale > PM_SCALE_E8M0 || zero < 0 || zero > PM_ZERO_F32 || floats < 0 ||
        floats > (bits >= 4 && zero == 0))
        return pm_infer_error(inf, "scale, zero or floats is out of range");
    layout->bits = (int32_t)bits;
    layout->block = (int32_t)block;
    layout->scale = (int32_t)scale;
    layout->zero = (int32_t)zero;
    layout->floats = (int32_t)floats;
    return PM_OK;
}

pm_status pm_infer_pack(pm_infer *inf)
{
    enum { MAX_PANEL = 1024 };
    const pm_op *op = inf->op;
    int64_t panel = pm_op_i64(op, "panel"), pair = pm_op_i64(op, "pair");
    pm_elem elem = (pm_elem)pm_op_i64(op, "elem");
    int32_t ways = pm_hook_has(op, 1) ? 2 : 1;
    const pm_type *w = pm_hook_type(op, 0);
    if (panel < ways || panel > MAX_PANEL || panel % ways != 0)
        return pm_infer_error(inf, "panel is %" PRId64 ", must be a multiple of %d up to %d", panel,
                              (int)ways, (int)MAX_PANEL);
    if (pair != 1 && pair != 2)
        return pm_infer_error(inf, "pair is %" PRId64 ", must be 1 or 2", pair);
    if (!pm_elem_is_float(elem))
        return pm_infer_error(inf, "elem is %s, must be a floating type", pm_elem_name(elem));
    if (w->rank < 2 || !pm_elem_is_float(w->elem))
        return pm_infer_error(inf, "operand 0 must be matrices of floats, found %s",
                              pm_hook_type_text(op, 0));
    if (ways == 2 && pm_hook_type(op, 1) != w)
        return pm_infer_error(inf, "the two sources must have the same type, found %s and %s",
                              pm_hook_type_text(op, 0), pm_hook_type_text(op, 1));
    pm_dim dims[PM_MAX_RANK];
    memcpy(dims, w->dims, (size_t)w->rank * sizeof *dims);
    if (pm_op_i64(op, "trans")) { // the sources are [.., K, N]
        dims[w->rank - 2] = w->dims[w->rank - 1];
        dims[w->rank - 1] = w->dims[w->rank - 2];
    }
    dims[w->rank - 2] = pm_dim_mul(inf->module, dims[w->rank - 2], pm_dim_const(inf->module, ways));
    pm_layout layout = {.panel = (int32_t)panel, .pair = (int32_t)pair, .ways = ways};
    PM_TRY(read_lowbit(inf, elem, &layout));
    bool is_plain = panel == 1 && pair == 1 && ways == 1 && layout.bits == 0; // one row after the other
    inf->types[0] = is_plain ? pm_type_get(inf->module, elem, w->rank, dims)
                             : pm_type_packed(inf->module, elem, w->rank, dims, layout);
    return PM_OK;
}
