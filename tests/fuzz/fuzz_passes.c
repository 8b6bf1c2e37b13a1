// Modules in text form through the whole pipeline: no pass crashes, breaks a module, or changes
// what a small one means.

#include "tests/fuzz/fuzz_module.h"

#include <math.h>

#include "ir/text.h"
#include "passes/passes.h"

/// The value at the place: of floats as a number, of integers as bits.
static double float_at(const pm_array *a, int64_t i)
{
    double wide;
    float narrow;
    if (a->elem == PM_F64) {
        memcpy(&wide, (const uint8_t *)a->data + 8 * i, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const uint8_t *)a->data + 4 * i, sizeof narrow);
    return narrow;
}

static bool same(const pm_array *a, const pm_array *b)
{
    int64_t n = 1;
    if (a->elem != b->elem || a->rank != b->rank)
        return false;
    for (int32_t d = 0; d < a->rank; d++) {
        if (a->dims[d] != b->dims[d])
            return false;
        n *= a->dims[d];
    }
    bool is_float = a->elem == PM_F32 || a->elem == PM_F64;
    if (a->elem == PM_F16 || a->elem == PM_BF16)
        return true; // rounded at other places, perhaps
    if (!is_float)
        return memcmp(a->data, b->data, (size_t)n * pm_elem_size(a->elem)) == 0;
    for (int64_t i = 0; i < n; i++) {
        double x = float_at(a, i), y = float_at(b, i);
        // beyond some size, sums in another order may overflow or cancel
        if (isfinite(x) && fabs(x) < 1e6 && !(fabs(x - y) <= 1e-3 * (1 + fabs(x))))
            return false;
    }
    return true;
}

static pm_status optimise(pm_module *m)
{
    static const pm_device cpu = {.name = "cpu0",
                                  .bytes_per_second = 40e9,
                                  .flops_per_second = 200e9,
                                  .link_bytes_per_second = 40e9,
                                  .memory = UINT64_MAX};
    const pm_pass_options options = {.opt_level = 3,
                                     .vector_floats = 16,
                                     .has_bf16_dot = true,
                                     .quantize = "none",
                                     .devices = &cpu,
                                     .n_devices = 1};
    const pm_pass_run run = {
        .options = &options, .verify_each = true, .pass_limit = -1, .out = stderr};
    return pm_passes_run(m, &run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_module *m;
    if (pm_module_parse(arena, diag, "in.pm", (const char *)data, size, NULL, &m) != PM_OK) {
        pm_arena_destroy(arena);
        return 0;
    }
    size_t n = m->entries.n < 4 ? m->entries.n : 4;
    pm_array *inputs[4], *before[4];
    for (size_t i = 0; i < n; i++) {
        const pm_graph *entry = m->entries.data[i];
        inputs[i] = small_inputs(arena, entry);
        before[i] = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
        if (inputs[i] != NULL &&
            pm_interpret(arena, entry, inputs[i], entry->args.n, before[i]) != PM_OK)
            inputs[i] = NULL;
    }
    pm_status status = optimise(m);
    if (status == PM_ERR_INTERNAL)
        pm_diag_print(diag, stderr, false);
    check(status != PM_ERR_INTERNAL && status != PM_ERR_USAGE);
    check(status == PM_OK || pm_diag_count(diag, PM_ERROR) > 0);
    for (size_t i = 0; status == PM_OK && i < n; i++) {
        const pm_graph *entry = m->entries.data[i];
        if (inputs[i] == NULL)
            continue;
        pm_array *after = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
        status = pm_interpret(arena, entry, inputs[i], entry->args.n, after);
        if (status != PM_OK)
            pm_diag_print(diag, stderr, false);
        check(status == PM_OK);
        for (size_t k = 0; k < entry->results.n; k++)
            check(same(&before[i][k], &after[k]));
    }
    pm_arena_destroy(arena);
    return 0;
}
