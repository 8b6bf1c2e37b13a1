#include "base/diag.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/json.h"
#include "base/str.h"
#include "base/utf8.h"

enum {
    MAX_ERRORS = 100,
    MAX_ENTRIES = 1000,
    MAX_TEXT = 4096,      ///< bytes kept of a message or a name
    MAX_CHAIN = 16,       ///< derivation steps kept of a location
    MAX_SOURCE = 8 << 20, ///< larger sources get no excerpt: they aren't written by hand
    EXCERPT_LEFT = 60,    ///< bytes of the line shown before the caret …
    EXCERPT_RIGHT = 40,   ///< … and after it
};

typedef struct source {
    const char *file;
    const char *text;
    size_t size;
} source;

struct pm_diag {
    pm_arena *arena;
    PM_VEC(pm_diag_entry) entries;
    PM_VEC(source) sources;
    size_t counts[3];
    bool dropped_last; ///< the last error or warning was over a limit, so its notes are too
};

pm_diag *pm_diag_create(pm_arena *arena)
{
    pm_diag *diag = PM_NEW(arena, pm_diag);
    diag->arena = arena;
    return diag;
}

// ---- adding ----

/// Copies at most MAX_TEXT bytes, cut between characters and marked when cut.
static char *copy_text(pm_arena *arena, const char *text)
{
    if (text == NULL)
        return NULL;
    size_t n = strnlen(text, MAX_TEXT + 1);
    if (n <= MAX_TEXT)
        return pm_arena_strndup(arena, text, n);
    n = MAX_TEXT;
    while (n > MAX_TEXT - 4 && ((uint8_t)text[n] & 0xc0) == 0x80)
        n--;
    return pm_arena_printf(arena, "%.*s…", (int)n, text);
}

static const pm_loc *copy_loc(pm_arena *arena, const pm_loc *loc)
{
    const pm_loc *first = NULL;
    const pm_loc **link = &first;
    for (int step = 0; loc != NULL && step < MAX_CHAIN; step++, loc = loc->from) {
        pm_loc *copy = PM_NEW(arena, pm_loc);
        *copy = *loc;
        copy->file = copy_text(arena, loc->file);
        copy->what = copy_text(arena, loc->what);
        copy->name = copy_text(arena, loc->name);
        copy->detail = copy_text(arena, loc->detail);
        copy->by = copy_text(arena, loc->by);
        copy->from = NULL;
        *link = copy;
        link = &copy->from;
    }
    return first;
}

static void add(pm_diag *diag, pm_severity severity, const pm_loc *loc, pm_status code,
                const char *kind, const char *fmt, va_list ap)
{
    if (diag == NULL)
        return;
    diag->counts[severity]++;
    bool is_over = diag->entries.n >= MAX_ENTRIES;
    if (severity == PM_ERROR)
        is_over = is_over || diag->counts[PM_ERROR] > MAX_ERRORS;
    else if (severity == PM_NOTE)
        is_over = is_over || diag->dropped_last;
    if (severity != PM_NOTE)
        diag->dropped_last = is_over;
    if (is_over)
        return;

    char text[MAX_TEXT + 2]; // one more than is kept, so that copy_text sees that it was cut
    text[0] = '\0';
    vsnprintf(text, sizeof text, fmt, ap);
    pm_diag_entry entry = {
        .severity = severity,
        .code = code,
        .kind = kind,
        .loc = copy_loc(diag->arena, loc),
        .text = copy_text(diag->arena, text),
    };
    PM_PUSH(diag->arena, &diag->entries, entry);
}

pm_status pm_error(pm_diag *diag, const pm_loc *loc, pm_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(diag, PM_ERROR, loc, code, NULL, fmt, ap);
    va_end(ap);
    return code;
}

void pm_warning(pm_diag *diag, const pm_loc *loc, const char *kind, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(diag, PM_WARNING, loc, PM_OK, kind, fmt, ap);
    va_end(ap);
}

void pm_note(pm_diag *diag, const pm_loc *loc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(diag, PM_NOTE, loc, PM_OK, NULL, fmt, ap);
    va_end(ap);
}

size_t pm_diag_count(const pm_diag *diag, pm_severity severity)
{
    return diag->counts[severity];
}

size_t pm_diag_size(const pm_diag *diag)
{
    return diag->entries.n;
}

const pm_diag_entry *pm_diag_at(const pm_diag *diag, size_t i)
{
    PM_ASSERT(i < diag->entries.n);
    return &diag->entries.data[i];
}

void pm_diag_source(pm_diag *diag, const char *file, const char *text, size_t size)
{
    if (diag == NULL || file == NULL || size > MAX_SOURCE)
        return;
    source fresh = {.text = pm_arena_strndup(diag->arena, text, size), .size = size};
    for (size_t i = 0; i < diag->sources.n; i++) {
        if (strcmp(diag->sources.data[i].file, file) == 0) {
            fresh.file = diag->sources.data[i].file;
            diag->sources.data[i] = fresh;
            return;
        }
    }
    fresh.file = pm_arena_strdup(diag->arena, file);
    PM_PUSH(diag->arena, &diag->sources, fresh);
}

// ---- rendering ----

/// Text goes either to a stream or to a string, so that both come from the same code.
typedef struct writer {
    FILE *out;
    pm_str *str;
} writer;

static void put_n(writer *w, const char *bytes, size_t n)
{
    if (w->out != NULL)
        fwrite(bytes, 1, n, w->out);
    else
        pm_str_add_n(w->str, bytes, n);
}

static void put(writer *w, const char *text)
{
    put_n(w, text, strlen(text));
}

static void put_number(writer *w, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    put(w, text);
}

/// Writes bytes of the user's input so that they can't play with the terminal. Returns the columns
/// that it took (wide characters count as one).
static size_t put_escaped(writer *w, const char *text, size_t n)
{
    size_t columns = 0;
    for (size_t i = 0; i < n;) {
        char escape[16];
        uint32_t code;
        size_t length = pm_utf8_decode(text + i, n - i, &code);
        if (length != 0 && !pm_utf8_is_hazardous(code)) {
            put_n(w, text + i, length);
            columns++;
            i += length;
            continue;
        }
        if (length == 0)
            snprintf(escape, sizeof escape, "\\x%02x", (unsigned)(uint8_t)text[i]);
        else if (code == '\n' || code == '\t' || code == '\r')
            snprintf(escape, sizeof escape, "\\%c", code == '\n' ? 'n' : code == '\t' ? 't' : 'r');
        else if (code < 0x80)
            snprintf(escape, sizeof escape, "\\x%02x", (unsigned)code);
        else
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)code);
        put(w, escape);
        columns += strlen(escape);
        i += length == 0 ? 1 : length;
    }
    return columns;
}

static void put_escaped_text(writer *w, const char *text)
{
    put_escaped(w, text, strlen(text));
}

static bool has_own_place(const pm_loc *loc)
{
    return loc->file != NULL || loc->line != 0 || loc->has_offset || loc->name != NULL;
}

/// `file:line:col: node 'name' (detail)`, without what is unknown.
static void put_own_place(writer *w, const pm_loc *loc)
{
    bool has_text = false;
    if (loc->file != NULL) {
        put_escaped_text(w, loc->file);
        has_text = true;
    }
    if (loc->line != 0) {
        put(w, has_text ? ":" : "line ");
        put_number(w, loc->line);
        if (loc->col != 0) {
            put(w, ":");
            put_number(w, loc->col);
        }
        has_text = true;
    }
    if (loc->name != NULL) {
        put(w, has_text ? ": " : "");
        if (loc->what != NULL) {
            put_escaped_text(w, loc->what);
            put(w, " ");
        }
        put(w, "'");
        put_escaped_text(w, loc->name);
        put(w, "'");
        has_text = true;
    }
    if (loc->detail != NULL) {
        put(w, has_text ? " (" : "(");
        put_escaped_text(w, loc->detail);
        put(w, ")");
        has_text = true;
    }
    if (loc->has_offset) {
        put(w, has_text ? ": byte " : "byte ");
        put_number(w, loc->offset);
    }
}

static void put_loc(writer *w, const pm_loc *loc)
{
    bool has_place = false, has_pass = false;
    int step = 0;
    for (const pm_loc *l = loc; l != NULL && step < MAX_CHAIN; l = l->from, step++) {
        if (!has_own_place(l))
            continue;
        put(w, has_place ? ", from " : "");
        put_own_place(w, l);
        has_place = true;
    }
    step = 0;
    for (const pm_loc *l = loc; l != NULL && step < MAX_CHAIN; l = l->from, step++) {
        if (l->by == NULL)
            continue;
        put(w, has_pass ? ", " : has_place ? " [made by " : "[made by ");
        put_escaped_text(w, l->by);
        has_pass = true;
    }
    put(w, has_pass ? "]" : "");
}

void pm_loc_print(const pm_loc *loc, FILE *out)
{
    writer w = {.out = out};
    put_loc(&w, loc);
}

char *pm_loc_text(pm_arena *arena, const pm_loc *loc)
{
    pm_str str = pm_str_new(arena);
    writer w = {.str = &str};
    put_loc(&w, loc);
    return str.data;
}

/// The line `number` (1-based) of a source; false when it has fewer.
static bool find_line(const source *from, uint32_t number, const char **out_line, size_t *out_size)
{
    const char *line = from->text, *end = from->text + from->size;
    for (uint32_t i = 1; i < number; i++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (newline == NULL)
            return false;
        line = newline + 1;
    }
    const char *newline = memchr(line, '\n', (size_t)(end - line));
    size_t size = (size_t)((newline == NULL ? end : newline) - line);
    if (size > 0 && line[size - 1] == '\r')
        size--;
    *out_line = line;
    *out_size = size;
    return true;
}

static bool is_continuation(char c)
{
    return ((uint8_t)c & 0xc0) == 0x80;
}

/// Shows the line of `loc` with a caret under its column:
///     12 |   "op": "matmull",
///        |         ^
static void put_excerpt(writer *w, const pm_diag *diag, const pm_loc *loc)
{
    const char *line = NULL;
    size_t size = 0;
    if (loc == NULL || loc->file == NULL || loc->line == 0)
        return;
    for (size_t i = 0; i < diag->sources.n; i++)
        if (strcmp(diag->sources.data[i].file, loc->file) == 0 &&
            !find_line(&diag->sources.data[i], loc->line, &line, &size))
            return;
    if (line == NULL)
        return;

    size_t at = loc->col == 0 ? 0 : loc->col - 1;
    if (at > size)
        at = size;
    size_t start = at > EXCERPT_LEFT ? at - EXCERPT_LEFT : 0;
    size_t end = size - at > EXCERPT_RIGHT ? at + EXCERPT_RIGHT : size;
    while (start > 0 && start < at && is_continuation(line[start]))
        start++;
    while (end < size && is_continuation(line[end]))
        end++;

    char gutter[32];
    int gutter_width = snprintf(gutter, sizeof gutter, "%6" PRIu32 " | ", loc->line);
    put(w, gutter);
    put(w, start > 0 ? "…" : "");
    size_t columns = put_escaped(w, line + start, at - start) + (start > 0);
    put_escaped(w, line + at, end - at);
    put(w, end < size ? "…\n" : "\n");
    if (loc->col == 0)
        return;
    for (int i = 0; i < gutter_width - 2; i++)
        put(w, " ");
    put(w, "| ");
    for (size_t i = 0; i < columns; i++)
        put(w, " ");
    put(w, "^\n");
}

static const char *const severity_names[] = {
    [PM_ERROR] = "error", [PM_WARNING] = "warning", [PM_NOTE] = "note"};

static size_t n_dropped(const pm_diag *diag)
{
    return diag->counts[PM_ERROR] + diag->counts[PM_WARNING] + diag->counts[PM_NOTE] -
           diag->entries.n;
}

void pm_diag_print(const pm_diag *diag, FILE *out, bool colour)
{
    static const char *const colours[] = {
        [PM_ERROR] = "\033[1;31m", [PM_WARNING] = "\033[1;35m", [PM_NOTE] = "\033[1;36m"};
    writer w = {.out = out};
    for (size_t i = 0; i < diag->entries.n; i++) {
        const pm_diag_entry *entry = &diag->entries.data[i];
        if (entry->loc != NULL) {
            put(&w, colour ? "\033[1m" : "");
            put_loc(&w, entry->loc);
            put(&w, colour ? ":\033[0m " : ": ");
        }
        put(&w, colour ? colours[entry->severity] : "");
        put(&w, severity_names[entry->severity]);
        put(&w, colour ? ":\033[0m " : ": ");
        put_escaped_text(&w, entry->text);
        put(&w, "\n");
        put_excerpt(&w, diag, entry->loc);
    }
    if (n_dropped(diag) > 0)
        fprintf(out, "%zu more messages not shown (%zu errors in all)\n", n_dropped(diag),
                diag->counts[PM_ERROR]);
}

void pm_diag_json(const pm_diag *diag, FILE *out)
{
    fputc('[', out);
    for (size_t i = 0; i < diag->entries.n; i++) {
        const pm_diag_entry *entry = &diag->entries.data[i];
        fprintf(out, "%s{\"severity\":\"%s\",\"code\":", i > 0 ? "," : "",
                severity_names[entry->severity]);
        const char *code = entry->code == PM_OK ? entry->kind : pm_status_name(entry->code);
        if (code == NULL)
            fputs("null", out);
        else
            pm_json_write_string(out, code);
        fputs(",\"message\":", out);
        pm_json_write_string(out, entry->text);
        fputs(",\"location\":", out);
        if (entry->loc == NULL)
            fputs("null", out);
        else
            pm_json_write_string(out, pm_loc_text(diag->arena, entry->loc));
        fputc('}', out);
    }
    if (n_dropped(diag) > 0)
        fprintf(out,
                ",{\"severity\":\"note\",\"code\":null,\"message\":\"%zu more messages not shown "
                "(%zu errors in all)\",\"location\":null}",
                n_dropped(diag), diag->counts[PM_ERROR]);
    fputc(']', out);
}

const char *pm_status_name(pm_status status)
{
    switch (status) {
    case PM_OK: return "ok";
    case PM_ERR_INVALID: return "invalid";
    case PM_ERR_UNSUPPORTED: return "unsupported";
    case PM_ERR_USAGE: return "usage";
    case PM_ERR_IO: return "io";
    case PM_ERR_NO_MEMORY: return "no-memory";
    case PM_ERR_INTERNAL: break;
    }
    return "internal";
}

void pm_assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "internal error: %s does not hold (%s:%d)\n", cond, file, line);
    fflush(stderr);
    abort();
}
