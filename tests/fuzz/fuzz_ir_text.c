// The text form of modules: whatever is accepted verifies, prints, and parses back to the same
// text; what is small is interpreted, which ends in results or in an error, too.

#include "tests/fuzz/fuzz_module.h"

#include "ir/text.h"

static char *printed(const pm_module *m, size_t *out_size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, out_size);
    pm_module_print(m, out);
    fclose(out);
    return text;
}

static void interpret(pm_arena *arena, const pm_graph *entry)
{
    pm_diag *diag = entry->module->diag;
    pm_array *inputs = small_inputs(arena, entry);
    if (inputs == NULL)
        return;
    pm_array *outputs = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    size_t n_errors = pm_diag_count(diag, PM_ERROR);
    pm_status status = pm_interpret(arena, entry, inputs, entry->args.n, outputs);
    check((status == PM_OK) == (pm_diag_count(diag, PM_ERROR) == n_errors));
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
            interpret(arena, m->entries.data[i]);
    }
    pm_arena_destroy(arena);
    return 0;
}
