#include "ir/text_lexer.h"

#include <string.h>

#include "base/containers.h"

enum {
    MAX_WORD = 1 << 16,   ///< bytes of a word or the name of a value
    MAX_NUMBER = 64,      ///< bytes of a number
    MAX_STRING = 1 << 26, ///< bytes of a string
    MAX_SHOWN = 40,       ///< bytes of a token in a message
};

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

pm_loc pm_token_loc(const pm_lexer *lexer, const pm_token *token)
{
    return (pm_loc){.file = lexer->file, .line = token->line, .col = token->col};
}

const char *pm_token_show(const pm_lexer *lexer, const pm_token *token)
{
    static const char *const before[] = {
        [PM_TOKEN_WORD] = "'",   [PM_TOKEN_VALUE] = "'%", [PM_TOKEN_STRING] = "the string \"",
        [PM_TOKEN_NUMBER] = "'", [PM_TOKEN_MARK] = "'",
    };
    if (token->kind == PM_TOKEN_END)
        return "the end of the file";
    size_t n = token->size;
    bool is_cut = n > MAX_SHOWN;
    if (is_cut)
        for (n = MAX_SHOWN; n > 0 && ((unsigned char)token->text[n] & 0xc0) == 0x80;)
            n--;
    return pm_arena_printf(lexer->arena, "%s%.*s%s%s", before[token->kind], (int)n, token->text,
                           is_cut ? "…" : "", token->kind == PM_TOKEN_STRING ? "\"" : "'");
}

static pm_status fail_at(pm_lexer *lexer, const char *where, const char *message)
{
    size_t col = (size_t)(where - lexer->line_start) + 1;
    pm_loc loc = {.file = lexer->file,
                  .line = lexer->line,
                  .col = col < UINT32_MAX ? (uint32_t)col : UINT32_MAX};
    lexer->token = (pm_token){.kind = PM_TOKEN_END, .line = loc.line, .col = loc.col};
    return pm_error(lexer->diag, &loc, PM_ERR_INVALID, "%s", message);
}

static void skip_blanks(pm_lexer *lexer)
{
    for (; lexer->at < lexer->end; lexer->at++) {
        char c = *lexer->at;
        if (c == '\n') {
            lexer->line++;
            lexer->line_start = lexer->at + 1;
        } else if (c == '/' && lexer->end - lexer->at > 1 && lexer->at[1] == '/') {
            const char *end = memchr(lexer->at, '\n', (size_t)(lexer->end - lexer->at));
            lexer->at = (end != NULL ? end : lexer->end) - 1;
        } else if (c != ' ' && c != '\t' && c != '\r') {
            return;
        }
    }
}

/// The token's text in the lexer's buffer, which the next token reuses.
static char *copy_token(pm_lexer *lexer, const char *text, size_t n)
{
    if (n >= lexer->buffer_size) {
        lexer->buffer_size = 2 * n + 256;
        lexer->buffer = pm_arena_alloc(lexer->arena, lexer->buffer_size, 1);
    }
    memcpy(lexer->buffer, text, n);
    lexer->buffer[n] = '\0';
    return lexer->buffer;
}

static pm_status take_word(pm_lexer *lexer, pm_token_kind kind)
{
    const char *start = lexer->at;
    if (kind == PM_TOKEN_VALUE && lexer->at < lexer->end && is_digit(*lexer->at))
        while (lexer->at < lexer->end && is_digit(*lexer->at))
            lexer->at++;
    else if (lexer->at < lexer->end && is_letter(*lexer->at))
        while (lexer->at < lexer->end &&
               (is_letter(*lexer->at) || is_digit(*lexer->at) || *lexer->at == '.'))
            lexer->at++;
    size_t n = (size_t)(lexer->at - start);
    if (n == 0)
        return fail_at(lexer, start, "expected a name or a number after '%'");
    if (n > MAX_WORD)
        return fail_at(lexer, start, "the name is longer than 65536 bytes");
    lexer->token.kind = kind;
    lexer->token.text = copy_token(lexer, start, n);
    lexer->token.size = n;
    return PM_OK;
}

static pm_status take_number(pm_lexer *lexer)
{
    const char *start = lexer->at;
    bool is_hex = lexer->end - start > 1 && start[0] == '0' && start[1] == 'x';
    if (is_hex)
        lexer->at += 2;
    // loosely: what reads the number checks its form
    for (; lexer->at < lexer->end; lexer->at++) {
        char c = *lexer->at;
        bool is_sign =
            (c == '-' || c == '+') && !is_hex && (lexer->at[-1] == 'e' || lexer->at[-1] == 'E');
        if (!is_digit(c) && !is_letter(c) && c != '.' && !is_sign)
            break;
    }
    size_t n = (size_t)(lexer->at - start);
    if (n > MAX_NUMBER)
        return fail_at(lexer, start, "the number is longer than 64 characters");
    lexer->token.kind = PM_TOKEN_NUMBER;
    lexer->token.text = copy_token(lexer, start, n);
    lexer->token.size = n;
    return PM_OK;
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// Decodes the escape after a backslash; moves `*at` behind it. Returns the byte, or -1.
static int take_escape(const char **at, const char *end)
{
    char c = *(*at)++;
    switch (c) {
    case '"':
    case '\\': return c;
    case 'n': return '\n';
    case 't': return '\t';
    case 'x': break;
    default: return -1;
    }
    if (end - *at < 2)
        return -1;
    int high = hex_digit((*at)[0]), low = hex_digit((*at)[1]);
    *at += 2;
    return high < 0 || low < 0 || high + low == 0 ? -1 : high * 16 + low; // \x00 would end the text
}

static pm_status take_string(pm_lexer *lexer)
{
    const char *start = ++lexer->at;
    const char *close = start;
    bool has_escapes = false;
    while (close < lexer->end && *close != '"' && (unsigned char)*close >= 0x20) {
        bool is_escape = *close == '\\';
        has_escapes |= is_escape;
        close += is_escape && lexer->end - close > 1 && close[1] != '\n' ? 2 : 1;
    }
    if (close >= lexer->end || *close != '"')
        return fail_at(lexer, close < lexer->end ? close : start - 1,
                       close >= lexer->end || *close == '\n'
                           ? "the string does not end on its line"
                           : "a control character in a string must be written as \\x..");
    size_t n = (size_t)(close - start);
    if (n > MAX_STRING)
        return fail_at(lexer, start - 1, "the string is longer than 67108864 bytes");
    char *text = copy_token(lexer, start, n);
    if (has_escapes) {
        size_t size = 0;
        for (const char *at = start; at < close;) {
            int byte = (unsigned char)*at;
            const char *escape = at++;
            if (byte == '\\' && (byte = take_escape(&at, close)) < 0)
                return fail_at(lexer, escape,
                               "unknown escape; there are \\\" \\\\ \\n \\t \\x01 … \\xff");
            text[size++] = (char)byte;
        }
        text[size] = '\0';
        n = size;
    }
    lexer->at = close + 1;
    lexer->token.kind = PM_TOKEN_STRING;
    lexer->token.text = text;
    lexer->token.size = n;
    return PM_OK;
}

static pm_status take_mark(pm_lexer *lexer)
{
    static const char *const marks[] = {"->", "<-", "<=", "(", ")", "[", "]", "{", "}", "<",
                                        ">",  "=",  ",",  ":", ";", "@", "+", "-", "*", "?"};
    size_t left = (size_t)(lexer->end - lexer->at);
    for (size_t i = 0; i < PM_COUNT(marks); i++) {
        size_t n = strlen(marks[i]);
        if (left >= n && memcmp(lexer->at, marks[i], n) == 0) {
            lexer->token.kind = PM_TOKEN_MARK;
            lexer->token.text = marks[i];
            lexer->token.size = n;
            lexer->at += n;
            return PM_OK;
        }
    }
    return fail_at(lexer, lexer->at, "this character starts nothing");
}

pm_status pm_lexer_next(pm_lexer *lexer)
{
    skip_blanks(lexer);
    size_t col = (size_t)(lexer->at - lexer->line_start) + 1;
    lexer->token = (pm_token){.kind = PM_TOKEN_END,
                              .line = lexer->line,
                              .col = col < UINT32_MAX ? (uint32_t)col : UINT32_MAX};
    if (lexer->at >= lexer->end)
        return PM_OK;
    char c = *lexer->at;
    if (is_letter(c))
        return take_word(lexer, PM_TOKEN_WORD);
    if (is_digit(c))
        return take_number(lexer);
    if (c == '"')
        return take_string(lexer);
    if (c == '%') {
        lexer->at++;
        return take_word(lexer, PM_TOKEN_VALUE);
    }
    return take_mark(lexer);
}

pm_status pm_lexer_init(pm_lexer *lexer, pm_arena *arena, pm_diag *diag, const char *file,
                        const char *text, size_t size)
{
    *lexer = (pm_lexer){.arena = arena,
                        .diag = diag,
                        .file = file,
                        .text = text,
                        .at = text,
                        .end = text + size,
                        .line_start = text,
                        .line = 1};
    return pm_lexer_next(lexer);
}
