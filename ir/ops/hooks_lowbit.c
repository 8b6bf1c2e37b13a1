/// Codes of a few bits: verify, infer.
#include "ir/ops/hooks.h"

static pm_status check_operand(pm_infer *inf, uint32_t i, const char *what, pm_dim last)
{
    const pm_op *op = inf->op;
    const pm_type *codes = pm_hook_type(op, 0), *type = pm_hook_type(op, i);
    PM_TRY(pm_hook_rank(op, inf->diag, i, codes->rank));
    for (int32_t d = 0; d < codes->rank - 1; d++)
        PM_TRY(pm_hook_extent(op, inf->diag,
                              pm_arena_printf(inf->module->arena, "extent %d of the %s", d, what),
                              type->dims[d], codes->dims[d]));
    return pm_hook_extent(op, inf->diag,
                          pm_arena_printf(inf->module->arena, "the last extent of the %s", what),
                          type->dims[codes->rank - 1], last);
}

pm_status pm_infer_dequantize(pm_infer *inf)
{
    static const char *const formats[] = {"int", "e2m1", "e4m3"};
    enum { MAX_K = 1 << 30 };
    pm_module *m = inf->module;
    const pm_op *op = inf->op;
    int64_t k = pm_op_i64(op, "k"), bits = pm_op_i64(op, "bits"), block = pm_op_i64(op, "block"), bytes;
    const char *format = pm_op_str(op, "format");
    bool is_int = strcmp(format, "int") == 0;
    int64_t wide = strcmp(format, "e2m1") == 0 ? 4 : 8; // of floats
    const pm_type *codes = pm_hook_type(op, 0);
    PM_TRY(pm_hook_one_of(op, inf->diag, "format", formats, PM_COUNT(formats)));
    PM_TRY(pm_hook_elem(op, inf->diag, 0, PM_U8));
    if (codes->rank == 0)
        return pm_infer_error(inf, "the codes need an axis, found %s", pm_hook_type_text(op, 0));
    if (is_int && bits != 2 && bits != 4 && bits != 8)
        return pm_infer_error(inf, "bits is %" PRId64 ", must be 2, 4 or 8", bits);
    if (!is_int && bits != wide)
        return pm_infer_error(inf, "bits is %" PRId64 ", must be %" PRId64 " for %s", bits, wide, format);
    if (k < 0 || k > MAX_K || block < 0)
        return pm_infer_error(inf, "k is %" PRId64 " and block %" PRId64 "; they can't be negative", k,
                              block);
    if (pm_dim_is_const(m, codes->dims[codes->rank - 1], &bytes) && bytes < (k * bits + 7) / 8)
        return pm_infer_error(inf,
                              "%" PRId64 " codes of %" PRId64 " bits don't fit the %" PRId64
                              " bytes of a row",
                              k, bits, bytes);
    int64_t n_blocks = k == 0 ? 0 : block == 0 ? 1 : (k - 1) / block + 1;
    if (pm_hook_type(op, 1)->elem != PM_U8)
        PM_TRY(pm_hook_float(op, inf->diag, 1));
    PM_TRY(check_operand(inf, 1, "scales", pm_dim_const(m, n_blocks)));
    if (pm_hook_has(op, 2)) {
        bool is_packed = pm_hook_type(op, 2)->elem == PM_U8;
        if (!is_int)
            return pm_infer_error(inf, "%s has no zero points", format);
        if (!is_packed)
            PM_TRY(pm_hook_float(op, inf->diag, 2));
        PM_TRY(check_operand(inf, 2, "zero points",
                             pm_dim_const(m, is_packed ? (n_blocks * bits + 7) / 8 : n_blocks)));
    }
    pm_dim dims[PM_MAX_RANK];
    memcpy(dims, codes->dims, (size_t)codes->rank * sizeof *dims);
    dims[codes->rank - 1] = pm_dim_const(m, k);
    return pm_hook_result(inf, 0, PM_F32, codes->rank, dims);
}
