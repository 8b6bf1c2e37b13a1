/// ops.def, expanded.
#include "ir/op_table.h"

/* Declare every hook; those called `none` are never defined, nor referenced below. */
#define IO(...)
#define ATTRS(text)
#define LOWER(token)
#define HELP(text)
#define IR(v, i, f, x, e)                                                                          \
    pm_verify_fn pm_verify_##v;                                                                    \
    pm_infer_fn pm_infer_##i;                                                                      \
    pm_fold_fn pm_fold_##f;                                                                        \
    pm_extent_fn pm_extent_##x;                                                                    \
    pm_eval_fn pm_eval_##e;
#define PM_OP(id, io, traits, ir, ...) ir
#include "ir/ops.def"
#undef IO
#undef ATTRS
#undef LOWER
#undef HELP
#undef IR

#define pm_verify_none NULL
#define pm_infer_none NULL
#define pm_fold_none NULL
#define pm_extent_none NULL
#define pm_eval_none NULL

/* SYMBOL(none, text) is NULL, SYMBOL(other, text) is text. */
#define IS_none ~, NULL
#define SECOND(a, b, ...) b
#define SECOND_OF(...) SECOND(__VA_ARGS__)
#define SYMBOL(token, text) SECOND_OF(IS_##token, text, ~)

#define IO(lo, hi, out, regions) .min_in = lo, .max_in = hi, .n_out = out, .n_regions = regions
#define IR(v, i, f, x, e)                                                                          \
    .verify = pm_verify_##v, .infer = pm_infer_##i, .fold = pm_fold_##f, .extent = pm_extent_##x,  \
    .eval = pm_eval_##e, .eval_name = SYMBOL(e, "pm_eval_" #e),                                    \
    .extent_name = SYMBOL(x, "pm_extent_" #x)
#define ATTRS(text) .attr_text = text
#define LOWER(token) .lower = #token
#define HELP(text) .help = text
#define PM_OP(id, io, trait_bits, ir, attr, lowering, help_text)                                   \
    [PM_OP_##id] = {.name = #id, .traits = trait_bits, io, ir, attr, lowering, help_text},

const pm_op_info pm_op_table[PM_OP_COUNT] = {
#include "ir/ops.def"
};

bool pm_opcode_parse(const char *name, pm_opcode *out_code)
{
    for (int i = 0; i < PM_OP_COUNT; i++) {
        if (strcmp(pm_op_table[i].name, name) == 0) {
            *out_code = (pm_opcode)i;
            return true;
        }
    }
    return false;
}
