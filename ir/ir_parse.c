/// The text form, read: recursive descent over tokens. Only regions recurse (PM_MAX_REGION_DEPTH);
/// expressions are read with a stack of their own.
#include <string.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "ir/text_lexer.h"
#include "ir/text_number.h"

enum {
    MAX_DIM_STACK = 1 << 16, ///< operators that wait for their right side
    LITERAL_TEXT = 72,       ///< a number token with its sign
};

/// A number as it stands in the text, its element type not known yet.
typedef struct literal {
    const char *text;
    pm_loc loc;
} literal;

typedef PM_VEC(literal) literal_vec;

typedef enum data_form { DATA_LIST, DATA_SPLAT, DATA_BYTES } data_form;

/// A constant's value before its type is known.
typedef struct raw_data {
    data_form form;
    literal_vec literals;
    pm_data *data; ///< DATA_BYTES: of hex or file
    pm_loc loc;
} raw_data;

/// A result of a graph: its value may be defined further down.
typedef struct result_ref {
    const char *name, *value;
    pm_loc loc;
    int32_t state;
} result_ref;

typedef PM_VEC(result_ref) result_ref_vec;

/// Operators of an expression, from loosest to tightest; the functions take two arguments.
typedef enum dim_op { DIM_OPEN, DIM_CALL, DIM_PLUS, DIM_MINUS, DIM_TIMES, DIM_NEGATE } dim_op;

typedef struct dim_frame {
    dim_op op;
    pm_dim_kind function; ///< DIM_CALL
    bool has_first;       ///< DIM_CALL: the comma was read
} dim_frame;

typedef struct parser {
    pm_lexer lexer;
    pm_arena *arena;
    pm_diag *diag;
    pm_module *module;
    const char *dir;
    pm_map files;  ///< pm_file by path
    pm_map *scope; ///< pm_value by name, of the innermost graph
    PM_VEC(dim_frame) dim_frames;
    PM_VEC(pm_dim) dims;
    uint64_t splat_bytes;
    int depth;
} parser;

// ---- tokens ----

static const pm_token *token(const parser *p)
{
    return &p->lexer.token;
}

static pm_loc here(const parser *p)
{
    return pm_token_loc(&p->lexer, &p->lexer.token);
}

static pm_status next(parser *p)
{
    return pm_lexer_next(&p->lexer);
}

static bool at(const parser *p, pm_token_kind kind)
{
    return token(p)->kind == kind;
}

static bool at_mark(const parser *p, const char *mark)
{
    return at(p, PM_TOKEN_MARK) && strcmp(token(p)->text, mark) == 0;
}

static bool at_word(const parser *p, const char *word)
{
    return at(p, PM_TOKEN_WORD) && strcmp(token(p)->text, word) == 0;
}

static pm_status fail_expected(parser *p, const char *what)
{
    pm_loc loc = here(p);
    return pm_error(p->diag, &loc, PM_ERR_INVALID, "expected %s, found %s", what,
                    pm_token_show(&p->lexer, token(p)));
}

static pm_status expect_mark(parser *p, const char *mark)
{
    if (!at_mark(p, mark))
        return fail_expected(p, pm_arena_printf(p->arena, "'%s'", mark));
    return next(p);
}

static pm_status expect_word(parser *p, const char *word)
{
    if (!at_word(p, word))
        return fail_expected(p, pm_arena_printf(p->arena, "'%s'", word));
    return next(p);
}

/// Reads the mark when it is there.
static pm_status take_mark(parser *p, const char *mark, bool *out_taken)
{
    *out_taken = at_mark(p, mark);
    return *out_taken ? next(p) : PM_OK;
}

/// After an item of a list: a comma (another follows), or the closing mark (read, too).
static pm_status take_separator(parser *p, const char *close, bool *out_more)
{
    *out_more = at_mark(p, ",");
    if (!*out_more && !at_mark(p, close))
        return fail_expected(p, pm_arena_printf(p->arena, "',' or '%s'", close));
    return next(p);
}

static pm_status take_string(parser *p, const char *what, const char **out_text)
{
    if (!at(p, PM_TOKEN_STRING))
        return fail_expected(p, what);
    *out_text = pm_intern(p->module, token(p)->text);
    return next(p);
}

/// A bare word or a string.
static pm_status take_name(parser *p, const char *what, const char **out_text)
{
    if (!at(p, PM_TOKEN_STRING) && !at(p, PM_TOKEN_WORD))
        return fail_expected(p, what);
    *out_text = pm_intern(p->module, token(p)->text);
    return next(p);
}

/// The words and numbers that can stand for an element, with their sign, as one text.
static pm_status take_literal(parser *p, const char *what, char out[LITERAL_TEXT])
{
    bool is_negative = false;
    PM_TRY(take_mark(p, "-", &is_negative));
    bool is_word = at_word(p, "nan") || at_word(p, "inf") || at_word(p, "true") ||
                   at_word(p, "false");
    if (!at(p, PM_TOKEN_NUMBER) && !is_word)
        return fail_expected(p, what);
    snprintf(out, LITERAL_TEXT, "%s%s", is_negative ? "-" : "", token(p)->text);
    return next(p);
}

static pm_status take_number(parser *p, pm_elem elem, const char *what, void *out_number)
{
    char text[LITERAL_TEXT];
    pm_loc loc = here(p);
    PM_TRY(take_literal(p, what, text));
    const char *wrong = pm_elem_from_text(elem, text, out_number);
    if (wrong != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "'%s': %s", text, wrong);
    return PM_OK;
}

static pm_status take_i64(parser *p, int64_t *out)
{
    return take_number(p, PM_I64, "an integer", out);
}

static pm_status take_u64(parser *p, uint64_t *out)
{
    return take_number(p, PM_U64, "a number of at least 0", out);
}

static pm_status take_u32(parser *p, uint32_t *out)
{
    return take_number(p, PM_U32, "a number of at least 0", out);
}

/// ", did you mean 'x'?" or nothing.
static const char *suggestion(parser *p, const char *word, const char *const *names, size_t n)
{
    const char *nearest = pm_nearest(word, names, n);
    return nearest == NULL ? "" : pm_arena_printf(p->arena, "; did you mean '%s'?", nearest);
}

// ---- dims ----

static bool function_of(const char *name, pm_dim_kind *out_kind)
{
    static const struct {
        const char *name;
        pm_dim_kind kind;
    } functions[] = {{"floordiv", PM_DIM_FLOORDIV},
                     {"ceildiv", PM_DIM_CEILDIV},
                     {"mod", PM_DIM_MOD},
                     {"min", PM_DIM_MIN},
                     {"max", PM_DIM_MAX}};
    for (size_t i = 0; i < PM_COUNT(functions); i++)
        if (strcmp(name, functions[i].name) == 0) {
            *out_kind = functions[i].kind;
            return true;
        }
    return false;
}

static pm_dim apply(pm_module *m, pm_dim_kind kind, pm_dim a, pm_dim b)
{
    switch (kind) {
    case PM_DIM_ADD: return pm_dim_add(m, a, b);
    case PM_DIM_MUL: return pm_dim_mul(m, a, b);
    case PM_DIM_FLOORDIV: return pm_dim_floordiv(m, a, b);
    case PM_DIM_CEILDIV: return pm_dim_ceildiv(m, a, b);
    case PM_DIM_MOD: return pm_dim_mod(m, a, b);
    case PM_DIM_MIN: return pm_dim_min(m, a, b);
    case PM_DIM_MAX: return pm_dim_max(m, a, b);
    case PM_DIM_CONST:
    case PM_DIM_SYMBOL: break;
    }
    return PM_DIM_NONE;
}

/// Applies the operators on top of the stack that bind at least as tightly as `op`.
static void reduce_dims(parser *p, dim_op op)
{
    pm_module *m = p->module;
    while (p->dim_frames.n > 0 && p->dim_frames.data[p->dim_frames.n - 1].op >= op &&
           p->dim_frames.data[p->dim_frames.n - 1].op >= DIM_PLUS) {
        dim_op top = p->dim_frames.data[--p->dim_frames.n].op;
        pm_dim b = p->dims.data[p->dims.n - 1];
        if (top == DIM_NEGATE) {
            p->dims.data[p->dims.n - 1] = pm_dim_sub(m, pm_dim_const(m, 0), b);
            continue;
        }
        pm_dim *a = &p->dims.data[--p->dims.n - 1];
        if (top == DIM_TIMES)
            *a = pm_dim_mul(m, *a, b);
        else
            *a = top == DIM_PLUS ? pm_dim_add(m, *a, b) : pm_dim_sub(m, *a, b);
    }
}

static pm_status push_frame(parser *p, dim_frame frame)
{
    if (p->dim_frames.n >= MAX_DIM_STACK) {
        pm_loc loc = here(p);
        return pm_error(p->diag, &loc, PM_ERR_UNSUPPORTED, "the expression is nested too deeply");
    }
    PM_PUSH(p->arena, &p->dim_frames, frame);
    return PM_OK;
}

static pm_status fail_symbol(parser *p, const pm_loc *loc, const char *name)
{
    pm_module *m = p->module;
    const char **names = PM_NEW_ARRAY(p->arena, const char *, m->symbols.n);
    for (size_t i = 0; i < m->symbols.n; i++)
        names[i] = m->symbols.data[i].name;
    return pm_error(p->diag, loc, PM_ERR_INVALID,
                    "symbol '%.200s' is not declared (symbols are declared before the entries)%s",
                    name, suggestion(p, name, names, m->symbols.n));
}

/// A symbol, a number, an opening parenthesis, a function with its parenthesis, or a minus.
static pm_status take_dim_start(parser *p, bool *out_is_operand)
{
    pm_module *m = p->module;
    *out_is_operand = false;
    if (at_mark(p, "(") || at_mark(p, "-")) {
        dim_frame frame = {.op = at_mark(p, "(") ? DIM_OPEN : DIM_NEGATE};
        PM_TRY(push_frame(p, frame));
        return next(p);
    }
    if (at(p, PM_TOKEN_NUMBER)) {
        int64_t value = 0;
        PM_TRY(take_i64(p, &value));
        PM_PUSH(p->arena, &p->dims, pm_dim_const(m, value));
        *out_is_operand = true;
        return PM_OK;
    }
    pm_loc loc = here(p);
    const char *name = NULL;
    pm_dim_kind function = PM_DIM_CONST;
    bool is_function = at(p, PM_TOKEN_WORD) && function_of(token(p)->text, &function);
    PM_TRY(take_name(p, "a size", &name));
    if (is_function && at_mark(p, "(")) {
        PM_TRY(push_frame(p, (dim_frame){.op = DIM_CALL, .function = function}));
        return next(p);
    }
    pm_dim symbol = pm_dim_find(m, name);
    if (symbol == PM_DIM_NONE)
        return fail_symbol(p, &loc, name);
    PM_PUSH(p->arena, &p->dims, symbol);
    *out_is_operand = true;
    return PM_OK;
}

/// What follows an operand. `*out_is_operand` stays true after a closing parenthesis; `*out_done`
/// when the token belongs to what is around the expression.
static pm_status take_dim_rest(parser *p, bool *out_is_operand, bool *out_done)
{
    static const struct {
        const char *mark;
        dim_op op;
    } binary[] = {{"+", DIM_PLUS}, {"-", DIM_MINUS}, {"*", DIM_TIMES}};
    for (size_t i = 0; i < PM_COUNT(binary); i++) {
        if (at_mark(p, binary[i].mark)) {
            // plus and minus have the same strength
            reduce_dims(p, binary[i].op == DIM_TIMES ? DIM_TIMES : DIM_PLUS);
            PM_TRY(push_frame(p, (dim_frame){.op = binary[i].op}));
            *out_is_operand = false;
            return next(p);
        }
    }
    reduce_dims(p, DIM_PLUS);
    dim_frame *frame = p->dim_frames.n > 0 ? &p->dim_frames.data[p->dim_frames.n - 1] : NULL;
    *out_done = frame == NULL;
    if (frame == NULL)
        return PM_OK;
    if (frame->op == DIM_CALL && !frame->has_first) {
        frame->has_first = true;
        *out_is_operand = false;
        return expect_mark(p, ",");
    }
    p->dim_frames.n--;
    if (frame->op == DIM_CALL) {
        pm_dim b = p->dims.data[--p->dims.n];
        pm_dim *a = &p->dims.data[p->dims.n - 1];
        *a = apply(p->module, frame->function, *a, b);
    }
    return expect_mark(p, ")");
}

/// dim = ["-"] product { ("+" | "-") product }, as pm_dim_text writes it, and with parentheses.
static pm_status parse_dim(parser *p, pm_dim *out_dim)
{
    pm_loc loc = here(p);
    bool is_operand = false, is_done = false;
    p->dims.n = 0;
    p->dim_frames.n = 0;
    while (!is_done) {
        if (!is_operand)
            PM_TRY(take_dim_start(p, &is_operand));
        else
            PM_TRY(take_dim_rest(p, &is_operand, &is_done));
    }
    *out_dim = p->dims.data[0];
    if (pm_dim_is_error(p->module, *out_dim))
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "the size overflows, divides by zero or is too large an expression");
    return PM_OK;
}

// ---- types ----

static pm_status parse_elem(parser *p, pm_elem *out_elem)
{
    static const char *const names[] = {
#define X(id, name, ...) name,
        PM_ELEMS(X)
#undef X
    };
    if (!at(p, PM_TOKEN_WORD))
        return fail_expected(p, "an element type");
    if (!pm_elem_parse(token(p)->text, out_elem)) {
        pm_loc loc = here(p);
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "unknown element type '%.40s'%s",
                        token(p)->text, suggestion(p, token(p)->text, names, PM_COUNT(names)));
    }
    return next(p);
}

/// "{panel=64, pair=2, ways=1}"
static pm_status parse_layout(parser *p, pm_layout *out_layout)
{
    const struct {
        const char *key;
        int32_t *value;
        int64_t highest;
    } parts[] = {{"panel", &out_layout->panel, 1 << 16},
                 {"pair", &out_layout->pair, 2},
                 {"ways", &out_layout->ways, 2}};
    PM_TRY(expect_mark(p, "{"));
    for (size_t i = 0; i < PM_COUNT(parts); i++) {
        int64_t value = 0;
        if (i > 0)
            PM_TRY(expect_mark(p, ","));
        PM_TRY(expect_word(p, parts[i].key));
        PM_TRY(expect_mark(p, "="));
        pm_loc loc = here(p);
        PM_TRY(take_i64(p, &value));
        if (value < 1 || value > parts[i].highest)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "%s must be in [1, %d]", parts[i].key,
                            (int)parts[i].highest);
        *parts[i].value = (int32_t)value;
    }
    return expect_mark(p, "}");
}

/// type = elem "[" [dim { "," dim }] "]" [layout]
static pm_status parse_type(parser *p, const pm_type **out_type)
{
    pm_loc loc = here(p);
    pm_elem elem = PM_F32;
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = 0;
    PM_TRY(parse_elem(p, &elem));
    PM_TRY(expect_mark(p, "["));
    bool has_more = !at_mark(p, "]");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        if (rank == PM_MAX_RANK)
            return pm_error(p->diag, &loc, PM_ERR_UNSUPPORTED,
                            "the tensor has more than %d dims", (int)PM_MAX_RANK);
        PM_TRY(parse_dim(p, &dims[rank++]));
        PM_TRY(take_separator(p, "]", &has_more));
    }
    if (!at_mark(p, "{")) {
        *out_type = pm_type_get(p->module, elem, rank, dims);
        return PM_OK;
    }
    pm_layout layout = {0};
    PM_TRY(parse_layout(p, &layout));
    if (rank < 2 || layout.panel % layout.ways != 0)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        rank < 2 ? "only matrices can be packed"
                                 : "the panel can't be shared by the sources");
    *out_type = pm_type_packed(p->module, elem, rank, dims, layout);
    return PM_OK;
}

/// place = "@" kind "(" … ")", as the printer writes it.
static pm_status parse_place(parser *p, pm_place *out_place)
{
    static const char *const names[] = {"arena", "dynamic", "input", "output",
                                        "state", "weight",  "alias"};
    PM_TRY(next(p));
    if (!at(p, PM_TOKEN_WORD))
        return fail_expected(p, "a kind of place");
    size_t kind = 0;
    while (kind < PM_COUNT(names) && strcmp(token(p)->text, names[kind]) != 0)
        kind++;
    if (kind == PM_COUNT(names)) {
        pm_loc loc = here(p);
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "unknown kind of place '%.40s'%s",
                        token(p)->text, suggestion(p, token(p)->text, names, PM_COUNT(names)));
    }
    PM_TRY(next(p));
    PM_TRY(expect_mark(p, "("));
    pm_place place = {.kind = (pm_place_kind)(PM_PLACE_ARENA + kind), .offset = PM_DIM_NONE};
    if (place.kind == PM_PLACE_ARENA) {
        PM_TRY(parse_dim(p, &place.offset));
    } else {
        PM_TRY(take_u32(p, &place.index));
        bool has_offset = false;
        PM_TRY(take_mark(p, ",", &has_offset));
        if (has_offset)
            PM_TRY(parse_dim(p, &place.offset));
    }
    *out_place = place;
    return expect_mark(p, ")");
}

// ---- locations ----

/// One step: file [":" line ":" col] ["@" offset] [what name] ["(" detail ")"] ["by" pass]
static pm_status parse_loc_step(parser *p, pm_loc *out_loc)
{
    bool is_taken = false;
    if (at_word(p, "_"))
        PM_TRY(next(p));
    else
        PM_TRY(take_string(p, "a file's name or '_'", &out_loc->file));
    PM_TRY(take_mark(p, ":", &is_taken));
    if (is_taken) {
        PM_TRY(take_u32(p, &out_loc->line));
        PM_TRY(expect_mark(p, ":"));
        PM_TRY(take_u32(p, &out_loc->col));
    }
    PM_TRY(take_mark(p, "@", &out_loc->has_offset));
    if (out_loc->has_offset)
        PM_TRY(take_u64(p, &out_loc->offset));
    if ((at(p, PM_TOKEN_WORD) && !at_word(p, "by")) || at(p, PM_TOKEN_STRING)) {
        bool has_what = !at_word(p, "_");
        PM_TRY(take_name(p, "what it is", &out_loc->what));
        if (!has_what)
            out_loc->what = NULL;
        PM_TRY(take_string(p, "a name in quotes", &out_loc->name));
    }
    PM_TRY(take_mark(p, "(", &is_taken));
    if (is_taken) {
        PM_TRY(take_string(p, "a detail in quotes", &out_loc->detail));
        PM_TRY(expect_mark(p, ")"));
    }
    if (at_word(p, "by")) {
        PM_TRY(next(p));
        PM_TRY(take_string(p, "a pass's name in quotes", &out_loc->by));
    }
    return PM_OK;
}

/// loc = "loc" "(" step { "<-" step } ")"
static pm_status parse_loc(parser *p, const pm_loc **out_loc)
{
    pm_loc steps[PM_MAX_LOC_CHAIN];
    size_t n = 0;
    PM_TRY(next(p));
    PM_TRY(expect_mark(p, "("));
    bool has_more = true;
    while (has_more) {
        if (n == PM_MAX_LOC_CHAIN)
            return fail_expected(p, "at most 16 steps in a location");
        steps[n] = (pm_loc){0};
        PM_TRY(parse_loc_step(p, &steps[n++]));
        PM_TRY(take_mark(p, "<-", &has_more));
    }
    PM_TRY(expect_mark(p, ")"));
    const pm_loc *from = NULL;
    while (n-- > 0) {
        steps[n].from = from;
        from = pm_loc_intern(p->module, &steps[n]);
    }
    *out_loc = from;
    return PM_OK;
}

// ---- constants ----

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/// "hex" "(" { string } ")": two lower-case digits for each byte.
static pm_status parse_hex(parser *p, pm_data *data)
{
    PM_VEC(uint8_t) bytes = {0};
    PM_TRY(next(p));
    PM_TRY(expect_mark(p, "("));
    for (; at(p, PM_TOKEN_STRING); ) {
        const char *digits = token(p)->text;
        if (token(p)->size % 2 != 0)
            return fail_expected(p, "an even number of digits");
        for (size_t i = 0; i < token(p)->size; i += 2) {
            int high = hex_value(digits[i]), low = hex_value(digits[i + 1]);
            if (high < 0 || low < 0)
                return fail_expected(p, "digits 0-9 and a-f");
            PM_PUSH(p->arena, &bytes, (uint8_t)(high * 16 + low));
        }
        PM_TRY(next(p));
    }
    // the storage of a vector is aligned for any element type; an empty one still needs an address
    data->bytes = bytes.n > 0 ? bytes.data : PM_NEW_ARRAY(p->arena, uint8_t, 1);
    data->size = bytes.n;
    return expect_mark(p, ")");
}

/// Opens a file named in the text: beneath `dir`, once for each name.
static pm_status open_file(parser *p, const pm_loc *loc, const char *path, pm_file **out_file)
{
    *out_file = pm_map_get_str(&p->files, path);
    if (*out_file != NULL)
        return PM_OK;
    if (p->dir == NULL)
        return pm_error(p->diag, loc, PM_ERR_UNSUPPORTED,
                        "no folder was given, so files named in the text can't be opened");
    const char *relative = path;
    size_t n = strlen(p->dir);
    while (n > 0 && p->dir[n - 1] == '/')
        n--;
    if (path[0] == '/' && strncmp(path, p->dir, n) == 0 && path[n] == '/')
        relative = path + n + 1; // an absolute path into the folder
    PM_TRY(pm_file_open_beneath(p->arena, p->diag, loc, p->dir, relative, out_file));
    (*out_file)->path = path; // as the text names it, so that it prints as it was read
    pm_map_put_str(&p->files, path, *out_file);
    return PM_OK;
}

/// "file" "(" path "," offset "," size ")"
static pm_status parse_file_range(parser *p, pm_data *data)
{
    const char *path = NULL;
    pm_file *file = NULL;
    PM_TRY(next(p));
    PM_TRY(expect_mark(p, "("));
    pm_loc loc = here(p);
    PM_TRY(take_string(p, "a file's name in quotes", &path));
    PM_TRY(expect_mark(p, ","));
    PM_TRY(take_u64(p, &data->offset));
    PM_TRY(expect_mark(p, ","));
    PM_TRY(take_u64(p, &data->size));
    PM_TRY(expect_mark(p, ")"));
    PM_TRY(open_file(p, &loc, path, &file));
    if (data->offset > file->size || data->size > file->size - data->offset)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "bytes %llu to %llu end beyond the file's %llu bytes",
                        (unsigned long long)data->offset,
                        (unsigned long long)(data->offset + data->size),
                        (unsigned long long)file->size);
    data->file = file;
    return PM_OK;
}

static pm_status parse_literal(parser *p, raw_data *raw)
{
    char text[LITERAL_TEXT];
    literal item = {.loc = here(p)};
    PM_TRY(take_literal(p, "an element", text));
    item.text = pm_arena_strdup(p->arena, text);
    PM_PUSH(p->arena, &raw->literals, item);
    return PM_OK;
}

/// data = "[" elements "]" | "splat" "(" element ")" | "hex" "(" … ")" | "file" "(" … ")"
static pm_status parse_data(parser *p, raw_data *raw)
{
    raw->loc = here(p);
    raw->form = DATA_BYTES;
    bool has_more = false;
    if (at_mark(p, "[")) {
        raw->form = DATA_LIST;
        PM_TRY(next(p));
        has_more = !at_mark(p, "]");
        if (!has_more)
            return next(p);
        while (has_more) {
            PM_TRY(parse_literal(p, raw));
            PM_TRY(take_separator(p, "]", &has_more));
        }
        return PM_OK;
    }
    if (at_word(p, "splat")) {
        raw->form = DATA_SPLAT;
        PM_TRY(next(p));
        PM_TRY(expect_mark(p, "("));
        PM_TRY(parse_literal(p, raw));
        return expect_mark(p, ")");
    }
    raw->data = PM_NEW(p->arena, pm_data);
    if (at_word(p, "hex"))
        return parse_hex(p, raw->data);
    if (at_word(p, "file"))
        return parse_file_range(p, raw->data);
    return fail_expected(p, "[…], splat(…), hex(…) or file(…)");
}

/// The constant's bytes, now that its type is known.
static pm_status finish_data(parser *p, raw_data *raw, const pm_type *type, const pm_data **out)
{
    pm_module *m = p->module;
    int64_t size = 0;
    if (!pm_dim_is_const(m, pm_type_bytes(m, type), &size) || size < 0)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID,
                        "a constant can't have the type %s, whose size is not fixed",
                        pm_type_text(m, type));
    if (raw->form == DATA_BYTES) {
        *out = raw->data;
        if (raw->data->size != (uint64_t)size)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%llu bytes given, but %s has %llu",
                            (unsigned long long)raw->data->size, pm_type_text(m, type),
                            (unsigned long long)size);
        return PM_OK;
    }
    uint32_t width = pm_elem_size(type->elem);
    uint64_t n = (uint64_t)size / width;
    if (raw->form == DATA_LIST && raw->literals.n != n)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%zu elements given, but %s has %llu",
                        raw->literals.n, pm_type_text(m, type), (unsigned long long)n);
    if (raw->form == DATA_SPLAT && (uint64_t)size > PM_MAX_SPLAT - p->splat_bytes)
        return pm_error(p->diag, &raw->loc, PM_ERR_UNSUPPORTED,
                        "the splat constants of the module have more than %d bytes",
                        (int)PM_MAX_SPLAT);
    p->splat_bytes += raw->form == DATA_SPLAT ? (uint64_t)size : 0;
    uint8_t *bytes = pm_arena_alloc(p->arena, (size_t)size, 64);
    for (uint64_t i = 0; i < n; i++) {
        if (raw->form == DATA_SPLAT && i > 0) {
            memcpy(bytes + i * width, bytes, width);
            continue;
        }
        const literal *item = &raw->literals.data[i];
        const char *wrong = pm_elem_from_text(type->elem, item->text, bytes + i * width);
        if (wrong != NULL)
            return pm_error(p->diag, &item->loc, PM_ERR_INVALID, "'%s' as %s: %s", item->text,
                            pm_elem_name(type->elem), wrong);
    }
    pm_data *data = PM_NEW(p->arena, pm_data);
    *data = (pm_data){.size = (uint64_t)size, .bytes = bytes};
    *out = data;
    return PM_OK;
}

// ---- attributes ----

/// An op while it is read.
typedef struct raw_op {
    pm_loc loc; ///< of its name
    pm_opcode code;
    PM_VEC(const char *) names; ///< of the results in the text, and their own names (or NULL)
    PM_VEC(const char *) hints;
    PM_VEC(pm_loc) name_locs;
    PM_VEC(pm_value *) operands;
    pm_attr attrs[PM_MAX_ATTRS];
    pm_loc attr_locs[PM_MAX_ATTRS];
    size_t n_attrs;
    raw_data data;
    bool has_data;
    PM_VEC(pm_dim) content; ///< of `dims`
    PM_VEC(const pm_type *) types;
    PM_VEC(pm_place) places;
    PM_VEC(pm_loc) type_locs;
} raw_op;

static pm_status parse_ints(parser *p, pm_attr *attr)
{
    PM_VEC(int64_t) ints = {0};
    PM_TRY(expect_mark(p, "["));
    bool has_more = !at_mark(p, "]");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        int64_t value = 0;
        PM_TRY(take_i64(p, &value));
        PM_PUSH(p->arena, &ints, value);
        PM_TRY(take_separator(p, "]", &has_more));
    }
    *attr = pm_attr_ints(attr->key, ints.data, ints.n);
    return PM_OK;
}

static pm_status parse_floats(parser *p, pm_attr *attr)
{
    PM_VEC(double) floats = {0};
    PM_TRY(expect_mark(p, "["));
    bool has_more = !at_mark(p, "]");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        double value = 0;
        PM_TRY(take_number(p, PM_F64, "a number", &value));
        PM_PUSH(p->arena, &floats, value);
        PM_TRY(take_separator(p, "]", &has_more));
    }
    *attr = pm_attr_floats(attr->key, floats.data, floats.n);
    return PM_OK;
}

static pm_status parse_attr_value(parser *p, raw_op *raw, const pm_attr_decl *decl, pm_attr *attr)
{
    int64_t i = 0;
    double f = 0;
    pm_elem elem = PM_F32;
    bool is_true = at_word(p, "true");
    switch (decl->kind) {
    case PM_ATTR_I64:
        PM_TRY(take_i64(p, &i));
        *attr = pm_attr_i64(decl->key, i);
        return PM_OK;
    case PM_ATTR_F64:
        PM_TRY(take_number(p, PM_F64, "a number", &f));
        *attr = pm_attr_f64(decl->key, f);
        return PM_OK;
    case PM_ATTR_STR:
        if (!at(p, PM_TOKEN_STRING))
            return fail_expected(p, "a string");
        *attr = pm_attr_str(decl->key, pm_intern(p->module, token(p)->text));
        return next(p);
    case PM_ATTR_BOOL:
        if (!is_true && !at_word(p, "false"))
            return fail_expected(p, "true or false");
        *attr = pm_attr_bool(decl->key, is_true);
        return next(p);
    case PM_ATTR_ELEM:
        PM_TRY(parse_elem(p, &elem));
        *attr = pm_attr_elem(decl->key, elem);
        return PM_OK;
    case PM_ATTR_INTS: attr->key = decl->key; return parse_ints(p, attr);
    case PM_ATTR_FLOATS: attr->key = decl->key; return parse_floats(p, attr);
    case PM_ATTR_DATA:
        *attr = (pm_attr){.key = decl->key, .kind = PM_ATTR_DATA, .present = true};
        raw->has_data = true;
        return parse_data(p, &raw->data);
    }
    return PM_ERR_INTERNAL;
}

/// attrs = "{" [key "=" value { "," key "=" value }] "}"
static pm_status parse_attrs(parser *p, raw_op *raw)
{
    pm_attr_decl decls[PM_MAX_ATTRS];
    const char *keys[PM_MAX_ATTRS];
    size_t n_decls = pm_op_attr_decls(raw->code, decls);
    for (size_t i = 0; i < n_decls; i++)
        keys[i] = decls[i].key;
    PM_TRY(next(p));
    bool has_more = !at_mark(p, "}");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        pm_loc loc = here(p);
        const char *key = NULL;
        if (!at(p, PM_TOKEN_WORD))
            return fail_expected(p, "an attribute's name");
        PM_TRY(take_name(p, "an attribute's name", &key));
        size_t which = 0;
        while (which < n_decls && strcmp(decls[which].key, key) != 0)
            which++;
        if (which == n_decls)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "%s has no attribute '%.100s'%s",
                            pm_op_table[raw->code].name, key, suggestion(p, key, keys, n_decls));
        for (size_t i = 0; i < raw->n_attrs; i++)
            if (strcmp(raw->attrs[i].key, key) == 0)
                return pm_error(p->diag, &loc, PM_ERR_INVALID, "attribute '%s' is given twice", key);
        PM_TRY(expect_mark(p, "="));
        PM_TRY(parse_attr_value(p, raw, &decls[which], &raw->attrs[raw->n_attrs]));
        raw->n_attrs++;
        PM_TRY(take_separator(p, "}", &has_more));
    }
    return PM_OK;
}

// ---- values ----

static pm_status define(parser *p, const char *name, const pm_loc *loc, pm_value *value)
{
    void **slot = pm_map_at(p->scope, name, strlen(name));
    if (*slot != NULL)
        return pm_error(p->diag, loc, PM_ERR_INVALID, "%%%.200s is defined twice in this graph",
                        name);
    *slot = value;
    return PM_OK;
}

static bool is_number(const char *name)
{
    return name[0] >= '0' && name[0] <= '9';
}

static pm_status find_value(parser *p, const char *name, const pm_loc *loc, pm_value **out_value)
{
    *out_value = pm_map_get_str(p->scope, name);
    if (*out_value != NULL)
        return PM_OK;
    size_t n = 0;
    const char **names = PM_NEW_ARRAY(p->arena, const char *, p->scope->n);
    for (size_t i = 0; i < p->scope->n && !is_number(name); i++)
        if (!is_number(p->scope->entries[i].key))
            names[n++] = p->scope->entries[i].key;
    return pm_error(p->diag, loc, PM_ERR_INVALID, "%%%.200s is not defined in this graph%s%s", name,
                    p->depth > 1 ? " (regions see their arguments alone)" : "",
                    suggestion(p, name, names, n));
}

/// "%name" or "%12", and the value's own name in quotes when that is another.
static pm_status parse_definition(parser *p, const char **out_name, const char **out_hint,
                                  pm_loc *out_loc)
{
    if (!at(p, PM_TOKEN_VALUE))
        return fail_expected(p, "a value (%name)");
    *out_loc = here(p);
    *out_name = pm_intern(p->module, token(p)->text);
    *out_hint = is_number(*out_name) ? NULL : *out_name;
    PM_TRY(next(p));
    if (at(p, PM_TOKEN_STRING))
        PM_TRY(take_string(p, "a name", out_hint));
    return PM_OK;
}

// ---- ops ----

static pm_status parse_graph(parser *p, pm_graph *g);

static pm_status parse_opcode(parser *p, pm_opcode *out_code)
{
    const char *names[PM_OP_COUNT];
    if (!at(p, PM_TOKEN_WORD))
        return fail_expected(p, "an op's name");
    if (!pm_opcode_parse(token(p)->text, out_code)) {
        for (size_t i = 0; i < PM_OP_COUNT; i++)
            names[i] = pm_op_table[i].name;
        pm_loc loc = here(p);
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "unknown op '%.100s'%s", token(p)->text,
                        suggestion(p, token(p)->text, names, PM_OP_COUNT));
    }
    return next(p);
}

static pm_status parse_operands(parser *p, raw_op *raw)
{
    PM_TRY(next(p));
    bool has_more = !at_mark(p, ")");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        pm_value *value = NULL;
        if (at_word(p, "_")) { // absent
            PM_TRY(next(p));
        } else {
            if (!at(p, PM_TOKEN_VALUE))
                return fail_expected(p, "a value (%name) or '_'");
            pm_loc loc = here(p);
            PM_TRY(find_value(p, token(p)->text, &loc, &value));
            PM_TRY(next(p));
        }
        PM_PUSH(p->arena, &raw->operands, value);
        PM_TRY(take_separator(p, ")", &has_more));
    }
    return PM_OK;
}

/// ":" type [place] { "," type [place] }
static pm_status parse_result_types(parser *p, raw_op *raw)
{
    bool has_more = false;
    PM_TRY(take_mark(p, ":", &has_more));
    while (has_more) {
        const pm_type *type = NULL;
        pm_place place = {.kind = PM_PLACE_NONE, .offset = PM_DIM_NONE};
        PM_PUSH(p->arena, &raw->type_locs, here(p));
        PM_TRY(parse_type(p, &type));
        if (at_mark(p, "@"))
            PM_TRY(parse_place(p, &place));
        PM_PUSH(p->arena, &raw->types, type);
        PM_PUSH(p->arena, &raw->places, place);
        PM_TRY(take_mark(p, ",", &has_more));
    }
    if (raw->types.n != 0 && raw->types.n != raw->names.n)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%zu types for %zu results",
                        raw->types.n, raw->names.n);
    return PM_OK;
}

static pm_status parse_content(parser *p, raw_op *raw)
{
    PM_TRY(next(p));
    bool has_more = !at_mark(p, "]");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        pm_dim dim = PM_DIM_NONE;
        PM_TRY(parse_dim(p, &dim));
        PM_PUSH(p->arena, &raw->content, dim);
        PM_TRY(take_separator(p, "]", &has_more));
    }
    return PM_OK;
}

static pm_status parse_op_head(parser *p, raw_op *raw)
{
    bool has_more = at(p, PM_TOKEN_VALUE);
    bool has_results = has_more;
    while (has_more) {
        const char *name = NULL, *hint = NULL;
        pm_loc loc;
        PM_TRY(parse_definition(p, &name, &hint, &loc));
        PM_PUSH(p->arena, &raw->names, name);
        PM_PUSH(p->arena, &raw->hints, hint);
        PM_PUSH(p->arena, &raw->name_locs, loc);
        PM_TRY(take_mark(p, ",", &has_more));
    }
    if (has_results)
        PM_TRY(expect_mark(p, "="));
    raw->loc = here(p);
    PM_TRY(parse_opcode(p, &raw->code));
    if (at_mark(p, "[") && strcmp(pm_op_table[raw->code].name, "dims") == 0)
        PM_TRY(parse_content(p, raw));
    if (at_mark(p, "("))
        PM_TRY(parse_operands(p, raw));
    if (at_mark(p, "{"))
        PM_TRY(parse_attrs(p, raw));
    return parse_result_types(p, raw);
}

static pm_status parse_regions(parser *p, pm_op *op)
{
    const char *name = pm_op_table[op->code].name;
    uint32_t fixed = pm_op_table[op->code].n_regions;
    uint32_t n = 0;
    PM_TRY(next(p));
    PM_TRY(expect_mark(p, "{"));
    for (; !at_mark(p, "}"); n++) {
        if (fixed != PM_ANY && n == fixed)
            return fail_expected(p, pm_arena_printf(p->arena, "'}' after %u regions of %s",
                                                    (unsigned)fixed, name));
        pm_graph *region = pm_region_create(op);
        if (at_word(p, "region")) {
            PM_TRY(next(p));
            PM_TRY(take_name(p, "the region's name", &region->name));
        }
        PM_TRY(parse_graph(p, region));
    }
    return next(p);
}

/// The types that the text gives are what inference starts from (a data-dependent extent keeps its
/// symbol), and must be what it ends with.
static pm_status infer(parser *p, raw_op *raw, pm_op *op)
{
    for (size_t i = 0; i < raw->types.n; i++)
        op->results[i]->type = raw->types.data[i];
    if (raw->content.n > 0) {
        pm_dim *content = PM_NEW_ARRAY(p->arena, pm_dim, raw->content.n);
        memcpy(content, raw->content.data, raw->content.n * sizeof *content);
        op->results[0]->content = content;
    }
    PM_TRY(pm_op_infer(op));
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        if (type == NULL)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID,
                            "the type of %s must be given, it does not follow from the operands",
                            pm_op_table[op->code].name);
        if (i < raw->types.n && type != raw->types.data[i])
            return pm_error(p->diag, &raw->type_locs.data[i], PM_ERR_INVALID,
                            "the text says %s, but %s gives %s",
                            pm_type_text(p->module, raw->types.data[i]),
                            pm_op_table[op->code].name, pm_type_text(p->module, type));
    }
    return PM_OK;
}

/// op = [results "="] name [content] ["(" operands ")"] [attrs] [":" types] [loc] ["regions" "{" … "}"]
static pm_status parse_op(parser *p, pm_graph *g)
{
    raw_op *raw = PM_NEW(p->arena, raw_op);
    PM_TRY(parse_op_head(p, raw));
    const pm_loc *loc = pm_loc_intern(p->module, &raw->loc), *given = loc;
    if (raw->has_data) {
        if (raw->types.n != 1)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "a constant needs a type");
        for (size_t i = 0; i < raw->n_attrs; i++)
            if (raw->attrs[i].kind == PM_ATTR_DATA)
                PM_TRY(finish_data(p, &raw->data, raw->types.data[0], &raw->attrs[i].data));
    }
    if (at_word(p, "loc"))
        PM_TRY(parse_loc(p, &given));
    uint32_t n_regions = pm_op_table[raw->code].n_regions;
    pm_op *op = NULL;
    PM_TRY(pm_op_create(g, NULL, raw->code, loc, raw->operands.data, raw->operands.n, raw->attrs,
                        raw->n_attrs, raw->names.n, n_regions == PM_ANY ? 0 : n_regions, &op));
    if (at_word(p, "regions"))
        PM_TRY(parse_regions(p, op));
    for (uint32_t i = 0; i < op->n_regions; i++)
        if (op->regions[i] == NULL)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%s needs %u regions, found %u",
                            pm_op_table[op->code].name, (unsigned)op->n_regions, (unsigned)i);
    PM_TRY(infer(p, raw, op));
    op->loc = given; // only now: until here, errors name the place in this text
    for (uint32_t i = 0; i < op->n_results; i++) {
        op->results[i]->name = raw->hints.data[i];
        if (i < raw->places.n)
            op->results[i]->place = raw->places.data[i];
        PM_TRY(define(p, raw->names.data[i], &raw->name_locs.data[i], op->results[i]));
    }
    return PM_OK;
}

// ---- graphs ----

static pm_status parse_state_ref(parser *p, int32_t *out_state)
{
    pm_module *m = p->module;
    const char *name = NULL;
    *out_state = -1;
    if (!at_word(p, "state"))
        return PM_OK;
    PM_TRY(next(p));
    pm_loc loc = here(p);
    PM_TRY(take_string(p, "a state's name in quotes", &name));
    for (size_t i = 0; i < m->states.n; i++)
        if (strcmp(m->states.data[i].name, name) == 0)
            *out_state = (int32_t)i;
    if (*out_state < 0)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "state '%.200s' is not declared", name);
    return PM_OK;
}

static pm_status parse_args(parser *p, pm_graph *g)
{
    PM_TRY(expect_mark(p, "("));
    bool has_more = !at_mark(p, ")");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        const char *name = NULL, *hint = NULL;
        const pm_type *type = NULL;
        pm_loc loc;
        int32_t state = -1;
        PM_TRY(parse_definition(p, &name, &hint, &loc));
        PM_TRY(expect_mark(p, ":"));
        PM_TRY(parse_type(p, &type));
        PM_TRY(parse_state_ref(p, &state));
        pm_value *arg = pm_graph_add_arg(g, hint, type, state);
        if (at_mark(p, "@"))
            PM_TRY(parse_place(p, &arg->place));
        PM_TRY(define(p, name, &loc, arg));
        PM_TRY(take_separator(p, ")", &has_more));
    }
    return PM_OK;
}

static pm_status parse_result_refs(parser *p, result_ref_vec *refs)
{
    PM_TRY(expect_mark(p, "("));
    bool has_more = !at_mark(p, ")");
    if (!has_more)
        PM_TRY(next(p));
    while (has_more) {
        result_ref ref = {.state = -1};
        if (!at(p, PM_TOKEN_VALUE)) {
            PM_TRY(take_name(p, "a result", &ref.name));
            PM_TRY(expect_mark(p, ":"));
        }
        ref.loc = here(p);
        if (!at(p, PM_TOKEN_VALUE))
            return fail_expected(p, "a value (%name)");
        ref.value = pm_intern(p->module, token(p)->text);
        PM_TRY(next(p));
        PM_TRY(parse_state_ref(p, &ref.state));
        PM_PUSH(p->arena, refs, ref);
        PM_TRY(take_separator(p, ")", &has_more));
    }
    return PM_OK;
}

/// "plan" "(" ["arena" "=" dim] [","] ["dynamic" "=" n] ")"
static pm_status parse_plan(parser *p, pm_graph *g)
{
    bool has_more = false;
    PM_TRY(next(p));
    PM_TRY(expect_mark(p, "("));
    if (at_word(p, "arena")) {
        PM_TRY(next(p));
        PM_TRY(expect_mark(p, "="));
        PM_TRY(parse_dim(p, &g->arena_bytes));
        PM_TRY(take_mark(p, ",", &has_more));
    }
    if (has_more || at_word(p, "dynamic")) {
        PM_TRY(expect_word(p, "dynamic"));
        PM_TRY(expect_mark(p, "="));
        PM_TRY(take_u32(p, &g->n_dynamic));
    }
    return expect_mark(p, ")");
}

/// graph = "(" args ")" "->" "(" results ")" [plan] "{" { op } "}"
static pm_status parse_graph(parser *p, pm_graph *g)
{
    if (++p->depth > PM_MAX_REGION_DEPTH + 1) {
        pm_loc loc = here(p);
        return pm_error(p->diag, &loc, PM_ERR_UNSUPPORTED,
                        "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
    }
    pm_map *outer = p->scope;
    result_ref_vec refs = {0};
    p->scope = PM_NEW(p->arena, pm_map);
    pm_map_init(p->scope, p->arena);
    PM_TRY(parse_args(p, g));
    PM_TRY(expect_mark(p, "->"));
    PM_TRY(parse_result_refs(p, &refs));
    if (at_word(p, "plan"))
        PM_TRY(parse_plan(p, g));
    PM_TRY(expect_mark(p, "{"));
    while (!at_mark(p, "}")) {
        bool is_taken = false;
        PM_TRY(parse_op(p, g));
        PM_TRY(take_mark(p, ";", &is_taken));
    }
    PM_TRY(next(p));
    for (size_t i = 0; i < refs.n; i++) {
        const result_ref *ref = &refs.data[i];
        pm_value *value = NULL;
        PM_TRY(find_value(p, ref->value, &ref->loc, &value));
        pm_graph_add_result(g, ref->name, value, ref->state);
    }
    p->scope = outer;
    p->depth--;
    return PM_OK;
}

// ---- the module ----

/// A limit of a range: a number, or "inf" or "-inf".
static pm_status parse_limit(parser *p, int64_t *out)
{
    bool is_negative = at_mark(p, "-");
    char text[LITERAL_TEXT];
    pm_loc loc = here(p);
    PM_TRY(take_literal(p, "a number or inf", text));
    if (strcmp(text + is_negative, "inf") == 0) {
        *out = is_negative ? INT64_MIN : INT64_MAX;
        return PM_OK;
    }
    const char *wrong = pm_elem_from_text(PM_I64, text, out);
    if (wrong != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "'%s': %s", text, wrong);
    return PM_OK;
}

/// "symbol" name ["dynamic"] ["in" "[" lo "," hi "]"] ["<=" bound]
static pm_status parse_symbol(parser *p)
{
    pm_module *m = p->module;
    const char *name = NULL;
    int64_t lo = 0, hi = INT64_MAX;
    pm_dim bound = PM_DIM_NONE;
    pm_loc loc = here(p);
    PM_TRY(take_name(p, "the symbol's name", &name));
    if (pm_dim_find(m, name) != PM_DIM_NONE)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "symbol '%.200s' is declared twice", name);
    bool is_dynamic = at_word(p, "dynamic"), has_bound = false;
    if (is_dynamic)
        PM_TRY(next(p));
    bool has_range = at_word(p, "in");
    if (has_range) {
        PM_TRY(next(p));
        PM_TRY(expect_mark(p, "["));
        PM_TRY(parse_limit(p, &lo));
        PM_TRY(expect_mark(p, ","));
        PM_TRY(parse_limit(p, &hi));
        PM_TRY(expect_mark(p, "]"));
    }
    if (lo > hi || lo < 0)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "the range of symbol '%.200s' must not be empty nor start below 0", name);
    PM_TRY(take_mark(p, "<=", &has_bound));
    if (has_bound && !is_dynamic)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "only a dynamic symbol has a bound; give '%.200s' a range", name);
    if (has_bound)
        PM_TRY(parse_dim(p, &bound));
    if (!is_dynamic) {
        (void)pm_dim_symbol(m, name, lo, hi);
        return PM_OK;
    }
    (void)pm_dim_fresh(m, name, bound);
    if (has_range) {
        m->symbols.data[m->symbols.n - 1].lo = lo;
        m->symbols.data[m->symbols.n - 1].hi = hi;
    }
    return PM_OK;
}

static pm_status parse_meta(parser *p)
{
    const char *key = NULL, *value = NULL;
    pm_loc loc = here(p);
    PM_TRY(take_string(p, "a key in quotes", &key));
    PM_TRY(expect_mark(p, "="));
    PM_TRY(take_string(p, "a string", &value));
    if (pm_map_get_str(&p->module->meta, key) != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "meta '%.200s' is given twice", key);
    pm_map_put_str(&p->module->meta, key, (void *)value);
    return PM_OK;
}

static pm_status parse_blob(parser *p)
{
    const char *key = NULL;
    raw_data raw = {0};
    pm_loc loc = here(p);
    PM_TRY(take_string(p, "a key in quotes", &key));
    PM_TRY(expect_mark(p, "="));
    PM_TRY(parse_data(p, &raw));
    if (raw.form != DATA_BYTES)
        return pm_error(p->diag, &raw.loc, PM_ERR_INVALID, "a blob is hex(…) or file(…)");
    if (pm_map_get_str(&p->module->blobs, key) != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "blob '%.200s' is given twice", key);
    pm_map_put_str(&p->module->blobs, key, raw.data);
    return PM_OK;
}

static pm_status parse_state(parser *p)
{
    pm_module *m = p->module;
    const char *name = NULL;
    const pm_type *type = NULL;
    pm_loc loc = here(p);
    PM_TRY(take_string(p, "the state's name in quotes", &name));
    PM_TRY(expect_mark(p, ":"));
    PM_TRY(parse_type(p, &type));
    for (size_t i = 0; i < m->states.n; i++)
        if (strcmp(m->states.data[i].name, name) == 0)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "state '%.200s' is declared twice",
                            name);
    pm_state_add(m, name, type);
    return PM_OK;
}

static pm_status parse_entry(parser *p)
{
    pm_module *m = p->module;
    const char *name = NULL;
    pm_loc loc = here(p);
    PM_TRY(take_name(p, "the entry's name", &name));
    for (size_t i = 0; i < m->entries.n; i++)
        if (strcmp(m->entries.data[i]->name, name) == 0)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "entry '%.200s' is defined twice", name);
    return parse_graph(p, pm_entry_create(m, name));
}

static pm_status parse_statement(parser *p)
{
    static const struct {
        const char *word;
        pm_status (*parse)(parser *p);
    } statements[] = {{"symbol", parse_symbol},
                      {"meta", parse_meta},
                      {"blob", parse_blob},
                      {"state", parse_state},
                      {"entry", parse_entry}};
    for (size_t i = 0; i < PM_COUNT(statements); i++) {
        if (at_word(p, statements[i].word)) {
            PM_TRY(next(p));
            return statements[i].parse(p);
        }
    }
    return fail_expected(p, "symbol, meta, blob, state, entry or '}'");
}

static pm_status parse_module(parser *p)
{
    const char *name = NULL;
    PM_TRY(expect_word(p, "module"));
    PM_TRY(take_name(p, "the module's name in quotes", &name));
    p->module->name = name;
    PM_TRY(expect_mark(p, "{"));
    while (!at_mark(p, "}")) {
        bool is_taken = false;
        PM_TRY(parse_statement(p));
        PM_TRY(take_mark(p, ";", &is_taken));
    }
    PM_TRY(next(p));
    return at(p, PM_TOKEN_END) ? PM_OK : fail_expected(p, "the end of the file");
}

pm_status pm_module_parse(pm_arena *arena, pm_diag *diag, const char *file, const char *text,
                          size_t size, const char *dir, pm_module **out_module)
{
    *out_module = NULL;
    pm_diag_source(diag, file, text, size);
    parser *p = PM_NEW(arena, parser);
    p->arena = arena;
    p->diag = diag;
    p->dir = dir;
    pm_map_init(&p->files, arena);
    p->module = pm_module_create(arena, diag, "");
    PM_TRY(pm_lexer_init(&p->lexer, arena, diag, file, text, size));
    PM_TRY(parse_module(p));
    PM_TRY(pm_module_verify(p->module));
    *out_module = p->module;
    return PM_OK;
}
