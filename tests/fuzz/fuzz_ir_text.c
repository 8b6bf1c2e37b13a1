// The text form of modules: whatever is accepted verifies, prints, and parses back to the same
// text; what is small is interpreted, which ends in results or in an error, too.

#include "tests/fuzz/fuzz_util.h"

#include "ir/interp.h"
#include "ir/text.h"

enum { MAX_COUNT = 1024, MAX_OPS = 64 };

static char *printed(const pm_module *m, size_t *out_size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, out_size);
    pm_module_print(m, out);
    fclose(out);
    return text;
}

/// Elements of a type, or -1 when they are many or unknown.
static int64_t count_of(const pm_module *m, const pm_type *type, const int64_t *bindings)
{
    int64_t n = 1;
    for (int32_t d = 0; d < type->rank; d++) {
        int64_t extent;
        if (!pm_dim_eval(m, type->dims[d], bindings, &extent) || extent < 0 || extent > MAX_COUNT)
            return -1;
        n *= extent > 0 ? extent : 1;
        if (n > MAX_COUNT)
            return -1;
    }
    return n;
}

static bool values_are_small(const pm_module *m, pm_value *const *values, size_t n,
                             const int64_t *bindings)
{
    for (size_t i = 0; i < n; i++)
        if (count_of(m, values[i]->type, bindings) < 0)
            return false;
    return true;
}

/// True when interpreting takes no time: few ops, no loops, small values.
static bool is_small(const pm_graph *g, const int64_t *bindings, size_t *n_ops)
{
    if (!values_are_small(g->module, g->args.data, g->args.n, bindings))
        return false;
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        if (op->code == PM_OP_loop || ++*n_ops > MAX_OPS ||
            !values_are_small(g->module, op->results, op->n_results, bindings))
            return false;
        for (uint32_t i = 0; i < op->n_regions; i++)
            if (!is_small(op->regions[i], bindings, n_ops))
                return false;
    }
    return true;
}

static void interpret(pm_arena *arena, pm_module *m, const pm_graph *entry)
{
    size_t n_ops = 0;
    int64_t *bindings = PM_NEW_ARRAY(arena, int64_t, m->symbols.n);
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        int64_t upper;
        if (!s->data_dependent)
            bindings[i] = s->lo > 2 ? s->lo : s->hi < 2 ? s->hi : 2;
        else if (s->bound != PM_DIM_NONE && pm_dim_eval(m, s->bound, bindings, &upper))
            bindings[i] = upper;
        else
            return;
    }
    if (!is_small(entry, bindings, &n_ops))
        return;
    pm_array *inputs = PM_NEW_ARRAY(arena, pm_array, entry->args.n);
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    for (size_t i = 0; i < entry->args.n; i++) {
        const pm_type *type = entry->args.data[i]->type;
        inputs[i] = (pm_array){.elem = type->elem, .rank = type->rank};
        for (int32_t d = 0; d < type->rank; d++)
            check(pm_dim_eval(m, type->dims[d], bindings, &inputs[i].dims[d]));
        size_t size = (size_t)count_of(m, type, bindings) * pm_elem_size(type->elem);
        inputs[i].data = pm_arena_alloc(arena, size, 64);
        memset(inputs[i].data, type->elem == PM_BOOL ? 1 : 0, size);
    }
    size_t n_errors = pm_diag_count(m->diag, PM_ERROR);
    pm_status status = pm_interpret(arena, entry, inputs, entry->args.n, outputs);
    check((status == PM_OK) == (pm_diag_count(m->diag, PM_ERROR) == n_errors));
    for (size_t i = 0; status == PM_OK && i < entry->results.n; i++) {
        check(outputs[i].elem == entry->results.data[i]->type->elem);
        check(outputs[i].rank == entry->results.data[i]->type->rank);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_module *m, *again;
    pm_status status = pm_module_parse(arena, diag, "in.pm", (const char *)data, size, NULL, &m);
    fuzz_check_outcome(diag, status);
    check((status == PM_OK) == (m != NULL));
    if (m != NULL) {
        size_t n, n_again;
        check(pm_module_verify(m) == PM_OK);
        char *text = printed(m, &n);
        status = pm_module_parse(arena, diag, "again.pm", text, n, NULL, &again);
        if (status != PM_OK) {
            fprintf(stderr, "%s\n", text);
            pm_diag_print(diag, stderr, false);
        }
        check(status == PM_OK);
        char *text_again = printed(again, &n_again);
        if (n != n_again || memcmp(text, text_again, n) != 0)
            fprintf(stderr, "%s\n%s\n", text, text_again);
        check(n == n_again && memcmp(text, text_again, n) == 0);
        free(text);
        free(text_again);
        for (size_t i = 0; i < m->entries.n && i < 4; i++)
            interpret(arena, m, m->entries.data[i]);
    }
    pm_arena_destroy(arena);
    return 0;
}
