/// What the parts of the text parser share: tokens, sizes, types, locations, constants. For
/// ir_parse.c and ir_parse_parts.c. Each function reads what its name says, at the current token,
/// and moves behind it; errors name the place.
#ifndef PM_IR_IR_PARSE_H
#define PM_IR_IR_PARSE_H

#include "ir/op_table.h"
#include "ir/text_lexer.h"

enum { PM_LITERAL_TEXT = 72 }; ///< a number token with its sign

/// A number as it stands in the text, its element type not known yet.
typedef struct pm_literal {
    const char *text;
    pm_loc loc;
} pm_literal;

typedef PM_VEC(pm_literal) pm_literal_vec;

typedef enum pm_data_form { PM_DATA_LIST, PM_DATA_SPLAT, PM_DATA_BYTES } pm_data_form;

/// A constant's value before its type is known.
typedef struct pm_raw_data {
    pm_data_form form;
    pm_literal_vec literals;
    pm_data *data; ///< PM_DATA_BYTES: of hex or file
    pm_loc loc;
} pm_raw_data;

/// Operators of an expression, from loosest to tightest; the functions take two arguments.
typedef enum pm_dim_op {
    PM_DIM_OP_OPEN,
    PM_DIM_OP_CALL,
    PM_DIM_OP_PLUS,
    PM_DIM_OP_MINUS,
    PM_DIM_OP_TIMES,
    PM_DIM_OP_NEGATE
} pm_dim_op;

typedef struct pm_dim_frame {
    pm_dim_op op;
    pm_dim_kind function; ///< PM_DIM_OP_CALL
    bool has_first;       ///< PM_DIM_OP_CALL: the comma was read
} pm_dim_frame;

typedef struct pm_parser {
    pm_lexer lexer;
    pm_arena *arena;
    pm_diag *diag;
    pm_module *module;
    const char *dir;
    pm_map files;  ///< pm_file by path
    pm_map *scope; ///< pm_value by name, of the innermost graph
    PM_VEC(pm_dim_frame) dim_frames;
    PM_VEC(pm_dim) dims;
    uint64_t splat_bytes;
    int depth;
} pm_parser;

const pm_token *pm_parse_token(const pm_parser *p);
/// The place of the current token.
pm_loc pm_parse_here(const pm_parser *p);
PM_NODISCARD pm_status pm_parse_next(pm_parser *p);
bool pm_parse_at(const pm_parser *p, pm_token_kind kind);
bool pm_parse_at_mark(const pm_parser *p, const char *mark);
bool pm_parse_at_word(const pm_parser *p, const char *word);
/// The error "expected `what`, found …".
pm_status pm_parse_expected(pm_parser *p, const char *what);
PM_NODISCARD pm_status pm_parse_expect_mark(pm_parser *p, const char *mark);
PM_NODISCARD pm_status pm_parse_expect_word(pm_parser *p, const char *word);
/// Reads the mark when it is there.
PM_NODISCARD pm_status pm_parse_take_mark(pm_parser *p, const char *mark, bool *out_taken);
/// After an item of a list: a comma (another follows), or the closing mark (read, too).
PM_NODISCARD pm_status pm_parse_take_separator(pm_parser *p, const char *close, bool *out_more);
/// A string, interned.
PM_NODISCARD pm_status pm_parse_take_string(pm_parser *p, const char *what, const char **out_text);
/// A bare word or a string, interned.
PM_NODISCARD pm_status pm_parse_take_name(pm_parser *p, const char *what, const char **out_text);
/// The words and numbers that can stand for an element, with their sign, as one text.
PM_NODISCARD pm_status pm_parse_take_literal(pm_parser *p, const char *what,
                                             char out[PM_LITERAL_TEXT]);
PM_NODISCARD pm_status pm_parse_take_number(pm_parser *p, pm_elem elem, const char *what,
                                            void *out_number);
PM_NODISCARD pm_status pm_parse_take_i64(pm_parser *p, int64_t *out);
PM_NODISCARD pm_status pm_parse_take_u64(pm_parser *p, uint64_t *out);
PM_NODISCARD pm_status pm_parse_take_u32(pm_parser *p, uint32_t *out);
/// "; did you mean 'x'?" or nothing.
const char *pm_parse_suggestion(pm_parser *p, const char *word, const char *const *names, size_t n);

PM_NODISCARD pm_status pm_parse_dim(pm_parser *p, pm_dim *out_dim);
PM_NODISCARD pm_status pm_parse_elem(pm_parser *p, pm_elem *out_elem);
PM_NODISCARD pm_status pm_parse_type(pm_parser *p, const pm_type **out_type);
/// At "@".
PM_NODISCARD pm_status pm_parse_place(pm_parser *p, pm_place *out_place);
/// At "loc".
PM_NODISCARD pm_status pm_parse_loc(pm_parser *p, const pm_loc **out_loc);
PM_NODISCARD pm_status pm_parse_data(pm_parser *p, pm_raw_data *raw);
/// The constant's bytes, now that its type is known.
PM_NODISCARD pm_status pm_parse_finish_data(pm_parser *p, pm_raw_data *raw, const pm_type *type,
                                            const pm_data **out);

#endif
