#include "base/json.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/utf8.h"

enum {
    MAX_DEPTH = 64,
    MAX_NUMBER = 500,    ///< characters of one number
    FEW_KEYS = 16,       ///< up to here duplicates are found by comparing all pairs
    MAX_KEY_SHOWN = 200, ///< bytes of a key in a message
};

/// An open array or object: its values lie on the value stack from `first` on.
typedef struct open_container {
    pm_json value; ///< kind and place
    size_t first_value, first_key;
} open_container;

typedef struct key_text {
    const char *text;
    size_t size;
    uint32_t line, col;
} key_text;

typedef struct parser {
    pm_arena *arena;
    pm_arena *scratch; ///< for the stacks, which are larger than the result while they grow
    pm_diag *diag;
    const char *file;
    const char *start, *at, *end;
    const char *line_start;
    uint32_t line;
    PM_VEC(pm_json) values; ///< finished values whose container is still open
    PM_VEC(key_text) keys;  ///< keys of the open objects
    open_container open[MAX_DEPTH];
    size_t depth;
} parser;

// ---- places and errors ----

static uint32_t column_of(const parser *p, const char *at)
{
    size_t col = (size_t)(at - p->line_start) + 1;
    return col > UINT32_MAX ? UINT32_MAX : (uint32_t)col;
}

PM_PRINTF(4, 5)
static pm_status fail_at(parser *p, uint32_t line, uint32_t col, const char *fmt, ...)
{
    pm_diag_source(p->diag, p->file, p->start, (size_t)(p->end - p->start));
    va_list ap;
    va_start(ap, fmt);
    char text[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pm_loc loc = {.file = p->file, .line = line, .col = col};
    return pm_error(p->diag, &loc, PM_ERR_INVALID, "%s", text);
}

/// Fails at the current byte: "expected X, found 'y'".
static pm_status fail_expected(parser *p, const char *expected)
{
    uint32_t col = column_of(p, p->at);
    if (p->at == p->end)
        return fail_at(p, p->line, col, "expected %s, found the end of the document", expected);
    uint32_t code;
    size_t length = pm_utf8_decode(p->at, (size_t)(p->end - p->at), &code);
    if (length == 0 || pm_utf8_is_hazardous(code))
        return fail_at(p, p->line, col, "expected %s, found the byte 0x%02x", expected,
                       (unsigned)(uint8_t)*p->at);
    return fail_at(p, p->line, col, "expected %s, found '%.*s'", expected, (int)length, p->at);
}

static void skip_space(parser *p)
{
    for (; p->at < p->end; p->at++) {
        if (*p->at == '\n') {
            p->line++;
            p->line_start = p->at + 1;
        } else if (*p->at != ' ' && *p->at != '\t' && *p->at != '\r') {
            return;
        }
    }
}

// ---- scalars ----

static bool is_digit(const parser *p)
{
    return p->at < p->end && *p->at >= '0' && *p->at <= '9';
}

static bool take(parser *p, char c)
{
    if (p->at == p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

static void take_digits(parser *p)
{
    while (is_digit(p))
        p->at++;
}

/// The digits between `text` and `end` (maybe with a minus) as int64; false when they don't fit.
static bool digits_to_i64(const char *text, const char *end, int64_t *out)
{
    bool is_negative = *text == '-';
    int64_t number = 0;
    for (const char *c = text + is_negative; c < end; c++) {
        int64_t digit = *c - '0';
        if (!pm_mul_i64(number, 10, &number) ||
            !pm_add_i64(number, is_negative ? -digit : digit, &number))
            return false;
    }
    *out = number;
    return true;
}

/// strtod reads a decimal point as the program's locale has it, so the "C" locale is named.
static double text_to_double(const char *text)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0)
        return strtod(text, NULL);
    double number = strtod_l(text, NULL, plain);
    freelocale(plain);
    return number;
}

static pm_status parse_number(parser *p, pm_json *value)
{
    const char *first = p->at;
    bool is_integer = true;
    value->kind = PM_JSON_NUMBER;
    take(p, '-');
    if (!is_digit(p))
        return fail_expected(p, "a digit");
    if (take(p, '0')) {
        if (is_digit(p))
            return fail_at(p, value->line, value->col, "a number may not begin with 0");
    } else {
        take_digits(p);
    }
    if (take(p, '.')) {
        is_integer = false;
        if (!is_digit(p))
            return fail_expected(p, "a digit after the decimal point");
        take_digits(p);
    }
    if (take(p, 'e') || take(p, 'E')) {
        is_integer = false;
        if (!take(p, '+'))
            take(p, '-');
        if (!is_digit(p))
            return fail_expected(p, "a digit in the exponent");
        take_digits(p);
    }
    size_t size = (size_t)(p->at - first);
    if (size > MAX_NUMBER)
        return fail_at(p, value->line, value->col, "the number has %zu characters, at most %d fit",
                       size, MAX_NUMBER);
    value->is_int = is_integer && digits_to_i64(first, p->at, &value->integer);
    if (value->is_int) {
        value->number = (double)value->integer;
        if (value->integer == 0 && *first == '-')
            value->number = -0.0;
        return PM_OK;
    }
    char text[MAX_NUMBER + 1];
    memcpy(text, first, size);
    text[size] = '\0';
    value->number = text_to_double(text);
    if (isinf(value->number))
        return fail_at(p, value->line, value->col, "the number is too large for a double");
    return PM_OK;
}

static bool hex4(const parser *p, const char *at, uint32_t *out)
{
    if (p->end - at < 4)
        return false;
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            return false;
        code = code << 4 | digit;
    }
    *out = code;
    return true;
}

/// `\uXXXX`, or two of them for a code point beyond U+FFFF; p->at is behind the `u`.
static pm_status parse_unicode_escape(parser *p, uint32_t *out_code)
{
    const char *escape = p->at - 2;
    uint32_t code, low;
    if (!hex4(p, p->at, &code))
        return fail_at(p, p->line, column_of(p, escape), "\\u needs four hexadecimal digits");
    p->at += 4;
    if (code == 0)
        return fail_at(p, p->line, column_of(p, escape), "a string may not hold U+0000");
    if (code >= 0xd800 && code <= 0xdfff) {
        if (code >= 0xdc00 || p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u' ||
            !hex4(p, p->at + 2, &low) || low < 0xdc00 || low > 0xdfff)
            return fail_at(p, p->line, column_of(p, escape),
                           "\\u%04x is half of a surrogate pair without the other half", code);
        p->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *out_code = code;
    return PM_OK;
}

/// The end of the string that begins at p->at (behind its quote), or NULL. Sets `*out_plain` when
/// it has no escapes.
static const char *find_closing_quote(const parser *p, bool *out_plain)
{
    *out_plain = true;
    for (const char *c = p->at; c < p->end; c++) {
        if (*c == '"')
            return c;
        if (*c == '\\') {
            *out_plain = false;
            c++;
        }
    }
    return NULL;
}

static pm_status parse_escape(parser *p, char *out, size_t *n)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *escape = p->at - 1;
    char letter = *p->at++; // never the end: the closing quote lies behind it
    const char *found = letter == '\0' ? NULL : strchr(letters, letter);
    if (found != NULL) {
        out[(*n)++] = meanings[found - letters];
        return PM_OK;
    }
    if (letter != 'u')
        return fail_at(p, p->line, column_of(p, escape),
                       "unknown escape in a string, expected one of \\\" \\\\ \\/ \\b \\f \\n \\r "
                       "\\t \\u");
    uint32_t code = 0;
    PM_TRY(parse_unicode_escape(p, &code));
    *n += pm_utf8_encode(code, out + *n);
    return PM_OK;
}

/// A string; p->at is at its opening quote.
static pm_status parse_string(parser *p, const char **out_text, size_t *out_size)
{
    const char *quote = p->at++;
    bool is_plain;
    const char *close = find_closing_quote(p, &is_plain);
    if (close == NULL)
        return fail_at(p, p->line, column_of(p, quote), "the string has no closing quote");
    // an escape is never shorter than what it stands for
    char *text = pm_arena_alloc(p->arena, (size_t)(close - p->at) + 1, 1);
    size_t n = 0;
    while (p->at < close) {
        uint8_t c = (uint8_t)*p->at;
        if (c == '\\') {
            p->at++;
            PM_TRY(parse_escape(p, text, &n));
            continue;
        }
        uint32_t code;
        size_t length = pm_utf8_decode(p->at, (size_t)(close - p->at), &code);
        if (c < 0x20)
            return fail_at(p, p->line, column_of(p, p->at),
                           "the control character 0x%02x in a string must be escaped", c);
        if (length == 0)
            return fail_at(p, p->line, column_of(p, p->at),
                           "invalid UTF-8 in a string (byte 0x%02x)", c);
        memcpy(text + n, p->at, length);
        n += length;
        p->at += length;
    }
    p->at = close + 1;
    *out_text = text;
    *out_size = n;
    return PM_OK;
}

static bool take_word(parser *p, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0)
        return false;
    p->at += n;
    return true;
}

static pm_status parse_scalar(parser *p, pm_json *value)
{
    if (*p->at == '"') {
        value->kind = PM_JSON_STRING;
        return parse_string(p, &value->string, &value->string_size);
    }
    if (*p->at == '-' || is_digit(p))
        return parse_number(p, value);
    if (take_word(p, "null"))
        return PM_OK;
    value->kind = PM_JSON_BOOL;
    value->boolean = take_word(p, "true");
    if (value->boolean || take_word(p, "false"))
        return PM_OK;
    return fail_expected(p, "a value");
}

// ---- containers ----

static pm_status fail_duplicate(parser *p, const key_text *first, const key_text *again)
{
    pm_status status =
        fail_at(p, again->line, again->col, "the key '%.*s' occurs twice",
                (int)(again->size < MAX_KEY_SHOWN ? again->size : MAX_KEY_SHOWN), again->text);
    pm_loc loc = {.file = p->file, .line = first->line, .col = first->col};
    pm_note(p->diag, &loc, "it is here first");
    return status;
}

static pm_status check_duplicates(parser *p, const key_text *keys, size_t n)
{
    if (n <= FEW_KEYS) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = 0; j < i; j++)
                if (keys[i].size == keys[j].size && strcmp(keys[i].text, keys[j].text) == 0)
                    return fail_duplicate(p, &keys[j], &keys[i]);
        return PM_OK;
    }
    pm_arena *own = pm_arena_child(p->scratch);
    pm_map seen;
    pm_map_init(&seen, own);
    pm_status status = PM_OK;
    for (size_t i = 0; i < n && status == PM_OK; i++) {
        void **slot = pm_map_at(&seen, keys[i].text, keys[i].size);
        if (*slot != NULL)
            status = fail_duplicate(p, *slot, &keys[i]);
        *slot = (void *)(uintptr_t)&keys[i];
    }
    pm_arena_destroy(own);
    return status;
}

/// Ends the innermost container: its values move from the stacks into arrays of their own.
static pm_status close_container(parser *p, pm_json *out)
{
    open_container *done = &p->open[--p->depth];
    *out = done->value;
    out->n = p->values.n - done->first_value;
    pm_json *items = PM_NEW_ARRAY(p->arena, pm_json, out->n);
    if (out->n > 0)
        memcpy(items, p->values.data + done->first_value, out->n * sizeof *items);
    out->items = items;
    p->values.n = done->first_value;
    if (out->kind == PM_JSON_OBJECT) {
        const key_text *from = out->n > 0 ? p->keys.data + done->first_key : NULL;
        PM_TRY(check_duplicates(p, from, out->n));
        const char **keys = PM_NEW_ARRAY(p->arena, const char *, out->n);
        for (size_t i = 0; i < out->n; i++)
            keys[i] = from[i].text;
        out->keys = keys;
        p->keys.n = done->first_key;
    }
    return PM_OK;
}

/// `"key" :` of the innermost object.
static pm_status parse_key(parser *p)
{
    if (p->at == p->end || *p->at != '"')
        return fail_expected(p, "a key in quotes");
    key_text key = {.line = p->line, .col = column_of(p, p->at)};
    PM_TRY(parse_string(p, &key.text, &key.size));
    PM_PUSH(p->scratch, &p->keys, key);
    skip_space(p);
    if (!take(p, ':'))
        return fail_expected(p, "':' after the key");
    skip_space(p);
    return PM_OK;
}

/// Opens a container, or reads a scalar. `*out_done` tells whether `value` is finished.
static pm_status begin_value(parser *p, pm_json *value, bool *out_done)
{
    *value = (pm_json){.line = p->line, .col = column_of(p, p->at)};
    *out_done = true;
    if (p->at == p->end)
        return fail_expected(p, "a value");
    char bracket = *p->at;
    if (bracket != '{' && bracket != '[')
        return parse_scalar(p, value);
    if (p->depth == MAX_DEPTH)
        return fail_at(p, value->line, value->col, "nested deeper than %d levels", MAX_DEPTH);
    value->kind = bracket == '{' ? PM_JSON_OBJECT : PM_JSON_ARRAY;
    p->open[p->depth++] =
        (open_container){.value = *value, .first_value = p->values.n, .first_key = p->keys.n};
    p->at++;
    skip_space(p);
    if (take(p, bracket == '{' ? '}' : ']'))
        return close_container(p, value);
    *out_done = false;
    return value->kind == PM_JSON_OBJECT ? parse_key(p) : PM_OK;
}

/// Gives a finished value to its container, and closes containers that end behind it.
/// `*out_complete` is set when the document is complete.
static pm_status end_value(parser *p, pm_json *value, bool *out_complete)
{
    while (p->depth > 0) {
        bool is_object = p->open[p->depth - 1].value.kind == PM_JSON_OBJECT;
        PM_PUSH(p->scratch, &p->values, *value);
        skip_space(p);
        if (take(p, ',')) {
            skip_space(p);
            *out_complete = false;
            return is_object ? parse_key(p) : PM_OK;
        }
        if (!take(p, is_object ? '}' : ']'))
            return fail_expected(p, is_object ? "',' or '}'" : "',' or ']'");
        PM_TRY(close_container(p, value));
    }
    *out_complete = true;
    return PM_OK;
}

static pm_status parse_document(parser *p, pm_json *root)
{
    if (p->end - p->at >= 3 && memcmp(p->at, "\xef\xbb\xbf", 3) == 0)
        return fail_at(p, 1, 1, "the document begins with a byte-order mark");
    skip_space(p);
    for (bool is_complete = false; !is_complete;) {
        bool is_done;
        PM_TRY(begin_value(p, root, &is_done));
        if (is_done)
            PM_TRY(end_value(p, root, &is_complete));
    }
    skip_space(p);
    return p->at == p->end ? PM_OK : fail_expected(p, "the end of the document");
}

pm_status pm_json_parse(pm_arena *arena, pm_diag *diag, const char *file, const char *text,
                        size_t size, const pm_json **out_json)
{
    *out_json = NULL;
    pm_arena *scratch = pm_arena_child(arena);
    parser *p = PM_NEW(scratch, parser);
    p->arena = arena;
    p->scratch = scratch;
    p->diag = diag;
    p->file = file;
    p->start = p->at = p->line_start = text;
    p->end = text + size;
    p->line = 1;
    pm_json *root = PM_NEW(arena, pm_json);
    pm_status status = parse_document(p, root);
    pm_arena_destroy(scratch);
    if (status == PM_OK)
        *out_json = root;
    return status;
}

// ---- access ----

const pm_json *pm_json_get(const pm_json *object, const char *key)
{
    if (object == NULL || object->kind != PM_JSON_OBJECT)
        return NULL;
    for (size_t i = 0; i < object->n; i++)
        if (strcmp(object->keys[i], key) == 0)
            return &object->items[i];
    return NULL;
}

pm_loc pm_json_loc(const char *file, const pm_json *value)
{
    if (value == NULL)
        return (pm_loc){.file = file};
    return (pm_loc){.file = file, .line = value->line, .col = value->col};
}

static const char *kind_name(const pm_json *value)
{
    static const char *const names[] = {
        [PM_JSON_NULL] = "null",       [PM_JSON_BOOL] = "a boolean", [PM_JSON_NUMBER] = "a number",
        [PM_JSON_STRING] = "a string", [PM_JSON_ARRAY] = "an array", [PM_JSON_OBJECT] = "an object",
    };
    return names[value->kind];
}

static pm_status fail_absent(pm_diag *diag, const char *file, const pm_json *object,
                             const char *key)
{
    pm_loc loc = pm_json_loc(file, object);
    if (object != NULL && object->kind != PM_JSON_OBJECT)
        return pm_error(diag, &loc, PM_ERR_INVALID,
                        "expected an object with the key '%s', found %s", key, kind_name(object));
    pm_status status = pm_error(diag, &loc, PM_ERR_INVALID, "the key '%s' is missing", key);
    const char *near = object == NULL ? NULL : pm_nearest(key, object->keys, object->n);
    if (near != NULL) {
        loc = pm_json_loc(file, pm_json_get(object, near));
        pm_note(diag, &loc, "the nearest key is '%s'", near);
    }
    return status;
}

/// The member to read, or NULL (with PM_OK) when it is absent and may be.
static pm_status find_member(pm_diag *diag, const char *file, const pm_json *object,
                             const char *key, bool required, const pm_json **out_member)
{
    const pm_json *member = pm_json_get(object, key);
    if (member != NULL && member->kind == PM_JSON_NULL && !required)
        member = NULL;
    *out_member = member;
    if (member == NULL && required)
        return fail_absent(diag, file, object, key);
    if (member != NULL && member->kind == PM_JSON_NULL) {
        pm_loc loc = pm_json_loc(file, member);
        return pm_error(diag, &loc, PM_ERR_INVALID, "'%s' must not be null", key);
    }
    return PM_OK;
}

static pm_status fail_kind(pm_diag *diag, const char *file, const pm_json *value, const char *key,
                           const char *expected)
{
    pm_loc loc = pm_json_loc(file, value);
    return pm_error(diag, &loc, PM_ERR_INVALID, "'%s' must be %s, found %s", key, expected,
                    kind_name(value));
}

pm_status pm_json_get_i64(pm_diag *diag, const char *file, const pm_json *object, const char *key,
                          bool required, int64_t *out)
{
    const pm_json *member;
    PM_TRY(find_member(diag, file, object, key, required, &member));
    if (member == NULL)
        return PM_OK;
    if (member->kind == PM_JSON_NUMBER && !member->is_int) {
        pm_loc loc = pm_json_loc(file, member);
        return pm_error(diag, &loc, PM_ERR_INVALID, "'%s' must be a 64-bit integer, found %.17g",
                        key, member->number);
    }
    if (member->kind != PM_JSON_NUMBER)
        return fail_kind(diag, file, member, key, "an integer");
    *out = member->integer;
    return PM_OK;
}

pm_status pm_json_get_f64(pm_diag *diag, const char *file, const pm_json *object, const char *key,
                          bool required, double *out)
{
    const pm_json *member;
    PM_TRY(find_member(diag, file, object, key, required, &member));
    if (member == NULL)
        return PM_OK;
    if (member->kind != PM_JSON_NUMBER)
        return fail_kind(diag, file, member, key, "a number");
    *out = member->number;
    return PM_OK;
}

pm_status pm_json_get_bool(pm_diag *diag, const char *file, const pm_json *object, const char *key,
                           bool required, bool *out)
{
    const pm_json *member;
    PM_TRY(find_member(diag, file, object, key, required, &member));
    if (member == NULL)
        return PM_OK;
    if (member->kind != PM_JSON_BOOL)
        return fail_kind(diag, file, member, key, "true or false");
    *out = member->boolean;
    return PM_OK;
}

pm_status pm_json_get_str(pm_diag *diag, const char *file, const pm_json *object, const char *key,
                          bool required, const char **out)
{
    const pm_json *member;
    PM_TRY(find_member(diag, file, object, key, required, &member));
    if (member == NULL)
        return PM_OK;
    if (member->kind != PM_JSON_STRING)
        return fail_kind(diag, file, member, key, "a string");
    *out = member->string;
    return PM_OK;
}

void pm_json_write_string(FILE *out, const char *text)
{
    size_t n = strlen(text);
    fputc('"', out);
    for (size_t i = 0; i < n;) {
        uint32_t code;
        size_t length = pm_utf8_decode(text + i, n - i, &code);
        if (length == 0) {
            fputs("\\ufffd", out);
            i++;
            continue;
        }
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (code == '\n')
            fputs("\\n", out);
        else if (code == '\t')
            fputs("\\t", out);
        else if (code <= 0xffff && pm_utf8_is_hazardous(code))
            fprintf(out, "\\u%04x", (unsigned)code);
        else
            fwrite(text + i, 1, length, out);
        i += length;
    }
    fputc('"', out);
}
