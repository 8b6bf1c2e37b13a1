// The JSON reader: no input may crash it; whatever it accepts is sound, and reads the same after
// being written again.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void write_value(FILE *out, const pm_json *value);

static void write_container(FILE *out, const pm_json *value)
{
    bool is_object = value->kind == PM_JSON_OBJECT;
    fputc(is_object ? '{' : '[', out);
    for (size_t i = 0; i < value->n; i++) {
        if (i > 0)
            fputc(',', out);
        if (is_object) {
            check(pm_utf8_check(value->keys[i], strlen(value->keys[i])) == strlen(value->keys[i]));
            check(i > 50 || pm_json_get(value, value->keys[i]) == &value->items[i]);
            pm_json_write_string(out, value->keys[i]);
            fputc(':', out);
        }
        write_value(out, &value->items[i]); // bounded by the reader's depth limit
    }
    fputc(is_object ? '}' : ']', out);
}

static void write_value(FILE *out, const pm_json *value)
{
    check(value->line >= 1 && value->col >= 1);
    switch (value->kind) {
    case PM_JSON_NULL: fputs("null", out); return;
    case PM_JSON_BOOL: fputs(value->boolean ? "true" : "false", out); return;
    case PM_JSON_NUMBER:
        check(isfinite(value->number));
        check(!value->is_int || value->number == (double)value->integer);
        if (value->is_int)
            fprintf(out, "%lld", (long long)value->integer);
        else
            fprintf(out, "%.17e", value->number);
        return;
    case PM_JSON_STRING:
        check(strlen(value->string) == value->string_size);
        check(pm_utf8_check(value->string, value->string_size) == value->string_size);
        pm_json_write_string(out, value->string);
        return;
    case PM_JSON_ARRAY:
    case PM_JSON_OBJECT: write_container(out, value); return;
    }
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    const pm_json *root;
    char *text = NULL, *again = NULL;
    size_t n = 0, n_again = 0;
    pm_status status = pm_json_parse(arena, diag, "in.json", (const char *)data, size, &root);
    check((status == PM_OK) == (pm_diag_count(diag, PM_ERROR) == 0));
    check((status == PM_OK) == (root != NULL));
    FILE *out = open_memstream(&text, &n);
    if (status == PM_OK) {
        write_value(out, root);
        fclose(out);
        check(pm_json_parse(arena, diag, "again.json", text, n, &root) == PM_OK);
        out = open_memstream(&again, &n_again);
        write_value(out, root);
        fclose(out);
        check(n == n_again && memcmp(text, again, n) == 0);
    } else {
        check(status == PM_ERR_INVALID);
        pm_diag_print(diag, out, true);
        pm_diag_json(diag, out);
        fclose(out);
        check(pm_utf8_check(text, n) == n); // nothing of the input gets through unescaped
    }
    free(text);
    free(again);
    pm_arena_destroy(arena);
    return 0;
}
