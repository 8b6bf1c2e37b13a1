#include "tools/cli/json_out.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"

static void begin(pm_json_out *w, const char *key)
{
    if (w->depth > 0) {
        if (w->filled[w->depth - 1])
            fputs(", ", w->out);
        w->filled[w->depth - 1] = true;
        PM_ASSERT(w->array[w->depth - 1] == (key == NULL));
    }
    if (key) {
        pm_json_write_string(w->out, key);
        fputs(": ", w->out);
    }
}

static void nest(pm_json_out *w, const char *key, bool array)
{
    begin(w, key);
    PM_ASSERT(w->depth < PM_JSON_OUT_DEPTH);
    w->array[w->depth] = array;
    w->filled[w->depth++] = false;
    fputc(array ? '[' : '{', w->out);
}

void pm_jo_object(pm_json_out *w, const char *key)
{
    nest(w, key, false);
}

void pm_jo_array(pm_json_out *w, const char *key)
{
    nest(w, key, true);
}

void pm_jo_end(pm_json_out *w)
{
    PM_ASSERT(w->depth > 0);
    fputc(w->array[--w->depth] ? ']' : '}', w->out);
    if (w->depth == 0)
        fputc('\n', w->out);
}

void pm_jo_text(pm_json_out *w, const char *key, const char *value)
{
    begin(w, key);
    if (value)
        pm_json_write_string(w->out, value);
    else
        fputs("null", w->out);
}

void pm_jo_int(pm_json_out *w, const char *key, int64_t value)
{
    begin(w, key);
    fprintf(w->out, "%" PRId64, value);
}

void pm_jo_uint(pm_json_out *w, const char *key, uint64_t value)
{
    begin(w, key);
    fprintf(w->out, "%" PRIu64, value);
}

void pm_jo_number(pm_json_out *w, const char *key, double value)
{
    char text[40];
    if (!isfinite(value)) {
        pm_jo_null(w, key);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    begin(w, key);
    fputs(text, w->out);
}

void pm_jo_ms(pm_json_out *w, const char *key, double milliseconds)
{
    begin(w, key);
    fprintf(w->out, "%.3f", isfinite(milliseconds) ? milliseconds : 0);
}

void pm_jo_bool(pm_json_out *w, const char *key, bool value)
{
    begin(w, key);
    fputs(value ? "true" : "false", w->out);
}

void pm_jo_null(pm_json_out *w, const char *key)
{
    begin(w, key);
    fputs("null", w->out);
}

void pm_jo_raw(pm_json_out *w, const char *key, const char *json)
{
    begin(w, key);
    fputs(json, w->out);
}

static const char *text_of(const pm_json *object, const char *key)
{
    const pm_json *value = pm_json_get(object, key);
    return value && value->kind == PM_JSON_STRING ? value->string : NULL;
}

void pm_jo_warnings(pm_json_out *w, pm_arena *arena, const char *messages, size_t size)
{
    const pm_json *list = NULL;
    pm_diag *ignored = pm_diag_create(arena);
    pm_jo_array(w, "warnings");
    if (size > 0 && pm_json_parse(arena, ignored, "messages", messages, size, &list) == PM_OK &&
        list->kind == PM_JSON_ARRAY)
        for (size_t i = 0; i < list->n; i++) {
            const pm_json *item = &list->items[i];
            const char *severity = text_of(item, "severity");
            if (!severity || strcmp(severity, "warning") != 0)
                continue;
            pm_jo_object(w, NULL);
            pm_jo_text(w, "code", text_of(item, "code"));
            pm_jo_text(w, "message", text_of(item, "message"));
            pm_jo_text(w, "location", text_of(item, "location"));
            pm_jo_end(w);
        }
    pm_jo_end(w);
}
