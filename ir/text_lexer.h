/// Tokens of the text form, with their places. For ir_parse.c.
#ifndef PM_IR_TEXT_LEXER_H
#define PM_IR_TEXT_LEXER_H

#include <stdbool.h>

#include "base/diag.h"

typedef enum pm_token_kind {
    PM_TOKEN_END,
    PM_TOKEN_WORD,   ///< [A-Za-z_][A-Za-z0-9_.]*; `text`
    PM_TOKEN_VALUE,  ///< %word or %digits; `text` without the %
    PM_TOKEN_STRING, ///< "…", unescaped; `text`, `size`
    PM_TOKEN_NUMBER, ///< digits, with a fraction and an exponent, or 0x…; `text`
    PM_TOKEN_MARK,   ///< punctuation: `text` ("(", "->", "<=" …)
} pm_token_kind;

typedef struct pm_token {
    pm_token_kind kind;
    const char *text; ///< valid until the next token is read
    size_t size;
    uint32_t line, col;
} pm_token;

typedef struct pm_lexer {
    pm_arena *arena;
    pm_diag *diag;
    const char *file, *text, *at, *end, *line_start;
    uint32_t line;
    pm_token token; ///< the one to be looked at
    char *buffer;   ///< of the token's text
    size_t buffer_size;
} pm_lexer;

/// Starts before the first token and reads it.
PM_NODISCARD pm_status pm_lexer_init(pm_lexer *lexer, pm_arena *arena, pm_diag *diag,
                                     const char *file, const char *text, size_t size);
/// Reads the next token. Errors: a character that starts none, a string that does not end, a bad
/// escape, a token beyond the limits.
PM_NODISCARD pm_status pm_lexer_next(pm_lexer *lexer);
/// The place of a token.
pm_loc pm_token_loc(const pm_lexer *lexer, const pm_token *token);
/// The token for a message ("'foo'", "the end of the file"), in the lexer's arena.
const char *pm_token_show(const pm_lexer *lexer, const pm_token *token);

#endif
