/// The text form, read: tokens, sizes, types, locations, constants. Nothing here recurses: size
/// expressions are read with a stack of their own.
#include <string.h>

#include "ir/ir_parse.h"
#include "ir/text_number.h"

enum { MAX_DIM_STACK = 1 << 16 }; ///< operators that wait for their right side

// ---- tokens ----

const pm_token *pm_parse_token(const pm_parser *p)
{
    return &p->lexer.token;
}

pm_loc pm_parse_here(const pm_parser *p)
{
    return pm_token_loc(&p->lexer, &p->lexer.token);
}

pm_status pm_parse_next(pm_parser *p)
{
    return pm_lexer_next(&p->lexer);
}

bool pm_parse_at(const pm_parser *p, pm_token_kind kind)
{
    return pm_parse_token(p)->kind == kind;
}

bool pm_parse_at_mark(const pm_parser *p, const char *mark)
{
    return pm_parse_at(p, PM_TOKEN_MARK) && strcmp(pm_parse_token(p)->text, mark) == 0;
}

bool pm_parse_at_word(const pm_parser *p, const char *word)
{
    return pm_parse_at(p, PM_TOKEN_WORD) && strcmp(pm_parse_token(p)->text, word) == 0;
}

pm_status pm_parse_expected(pm_parser *p, const char *what)
{
    pm_loc loc = pm_parse_here(p);
    return pm_error(p->diag, &loc, PM_ERR_INVALID, "expected %s, found %s", what,
                    pm_token_show(&p->lexer, pm_parse_token(p)));
}

pm_status pm_parse_expect_mark(pm_parser *p, const char *mark)
{
    if (!pm_parse_at_mark(p, mark))
        return pm_parse_expected(p, pm_arena_printf(p->arena, "'%s'", mark));
    return pm_parse_next(p);
}

pm_status pm_parse_expect_word(pm_parser *p, const char *word)
{
    if (!pm_parse_at_word(p, word))
        return pm_parse_expected(p, pm_arena_printf(p->arena, "'%s'", word));
    return pm_parse_next(p);
}

/// Reads the mark when it is there.
pm_status pm_parse_take_mark(pm_parser *p, const char *mark, bool *out_taken)
{
    *out_taken = pm_parse_at_mark(p, mark);
    return *out_taken ? pm_parse_next(p) : PM_OK;
}

/// After an item of a list: a comma (another follows), or the closing mark (read, too).
pm_status pm_parse_take_separator(pm_parser *p, const char *close, bool *out_more)
{
    *out_more = pm_parse_at_mark(p, ",");
    if (!*out_more && !pm_parse_at_mark(p, close))
        return pm_parse_expected(p, pm_arena_printf(p->arena, "',' or '%s'", close));
    return pm_parse_next(p);
}

pm_status pm_parse_take_string(pm_parser *p, const char *what, const char **out_text)
{
    if (!pm_parse_at(p, PM_TOKEN_STRING))
        return pm_parse_expected(p, what);
    *out_text = pm_intern(p->module, pm_parse_token(p)->text);
    return pm_parse_next(p);
}

/// A bare word or a string.
pm_status pm_parse_take_name(pm_parser *p, const char *what, const char **out_text)
{
    if (!pm_parse_at(p, PM_TOKEN_STRING) && !pm_parse_at(p, PM_TOKEN_WORD))
        return pm_parse_expected(p, what);
    *out_text = pm_intern(p->module, pm_parse_token(p)->text);
    return pm_parse_next(p);
}

/// The words and numbers that can stand for an element, with their sign, as one text.
pm_status pm_parse_take_literal(pm_parser *p, const char *what, char out[PM_LITERAL_TEXT])
{
    bool is_negative = false;
    PM_TRY(pm_parse_take_mark(p, "-", &is_negative));
    bool is_word = pm_parse_at_word(p, "nan") || pm_parse_at_word(p, "inf") ||
                   pm_parse_at_word(p, "true") || pm_parse_at_word(p, "false");
    if (!pm_parse_at(p, PM_TOKEN_NUMBER) && !is_word)
        return pm_parse_expected(p, what);
    snprintf(out, PM_LITERAL_TEXT, "%s%s", is_negative ? "-" : "", pm_parse_token(p)->text);
    return pm_parse_next(p);
}

pm_status pm_parse_take_number(pm_parser *p, pm_elem elem, const char *what, void *out_number)
{
    char text[PM_LITERAL_TEXT];
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_literal(p, what, text));
    const char *wrong = pm_elem_from_text(elem, text, out_number);
    if (wrong != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "'%s': %s", text, wrong);
    return PM_OK;
}

pm_status pm_parse_take_i64(pm_parser *p, int64_t *out)
{
    return pm_parse_take_number(p, PM_I64, "an integer", out);
}

pm_status pm_parse_take_u64(pm_parser *p, uint64_t *out)
{
    return pm_parse_take_number(p, PM_U64, "a number of at least 0", out);
}

pm_status pm_parse_take_u32(pm_parser *p, uint32_t *out)
{
    return pm_parse_take_number(p, PM_U32, "a number of at least 0", out);
}

/// ", did you mean 'x'?" or nothing.
const char *pm_parse_suggestion(pm_parser *p, const char *word, const char *const *names, size_t n)
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
static void reduce_dims(pm_parser *p, pm_dim_op op)
{
    pm_module *m = p->module;
    while (p->dim_frames.n > 0 && p->dim_frames.data[p->dim_frames.n - 1].op >= op &&
           p->dim_frames.data[p->dim_frames.n - 1].op >= PM_DIM_OP_PLUS) {
        pm_dim_op top = p->dim_frames.data[--p->dim_frames.n].op;
        pm_dim b = p->dims.data[p->dims.n - 1];
        if (top == PM_DIM_OP_NEGATE) {
            p->dims.data[p->dims.n - 1] = pm_dim_sub(m, pm_dim_const(m, 0), b);
            continue;
        }
        pm_dim *a = &p->dims.data[--p->dims.n - 1];
        if (top == PM_DIM_OP_TIMES)
            *a = pm_dim_mul(m, *a, b);
        else
            *a = top == PM_DIM_OP_PLUS ? pm_dim_add(m, *a, b) : pm_dim_sub(m, *a, b);
    }
}

static pm_status push_frame(pm_parser *p, pm_dim_frame frame)
{
    if (p->dim_frames.n >= MAX_DIM_STACK) {
        pm_loc loc = pm_parse_here(p);
        return pm_error(p->diag, &loc, PM_ERR_UNSUPPORTED, "the expression is nested too deeply");
    }
    PM_PUSH(p->arena, &p->dim_frames, frame);
    return PM_OK;
}

static pm_status fail_symbol(pm_parser *p, const pm_loc *loc, const char *name)
{
    pm_module *m = p->module;
    const char **names = PM_NEW_ARRAY(p->arena, const char *, m->symbols.n);
    for (size_t i = 0; i < m->symbols.n; i++)
        names[i] = m->symbols.data[i].name;
    return pm_error(p->diag, loc, PM_ERR_INVALID,
                    "symbol '%.200s' is not declared (symbols are declared before the entries)%s",
                    name, pm_parse_suggestion(p, name, names, m->symbols.n));
}

/// A symbol, a number, an opening parenthesis, a function with its parenthesis, or a minus.
static pm_status take_dim_start(pm_parser *p, bool *out_is_operand)
{
    pm_module *m = p->module;
    *out_is_operand = false;
    if (pm_parse_at_mark(p, "(") || pm_parse_at_mark(p, "-")) {
        pm_dim_frame frame = {.op = pm_parse_at_mark(p, "(") ? PM_DIM_OP_OPEN : PM_DIM_OP_NEGATE};
        PM_TRY(push_frame(p, frame));
        return pm_parse_next(p);
    }
    if (pm_parse_at(p, PM_TOKEN_NUMBER)) {
        int64_t value = 0;
        PM_TRY(pm_parse_take_i64(p, &value));
        PM_PUSH(p->arena, &p->dims, pm_dim_const(m, value));
        *out_is_operand = true;
        return PM_OK;
    }
    pm_loc loc = pm_parse_here(p);
    const char *name = NULL;
    pm_dim_kind function = PM_DIM_CONST;
    bool is_function =
        pm_parse_at(p, PM_TOKEN_WORD) && function_of(pm_parse_token(p)->text, &function);
    PM_TRY(pm_parse_take_name(p, "a size", &name));
    if (is_function && pm_parse_at_mark(p, "(")) {
        PM_TRY(push_frame(p, (pm_dim_frame){.op = PM_DIM_OP_CALL, .function = function}));
        return pm_parse_next(p);
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
static pm_status take_dim_rest(pm_parser *p, bool *out_is_operand, bool *out_done)
{
    static const struct {
        const char *mark;
        pm_dim_op op;
    } binary[] = {{"+", PM_DIM_OP_PLUS}, {"-", PM_DIM_OP_MINUS}, {"*", PM_DIM_OP_TIMES}};
    for (size_t i = 0; i < PM_COUNT(binary); i++) {
        if (pm_parse_at_mark(p, binary[i].mark)) {
            // plus and minus have the same strength
            reduce_dims(p, binary[i].op == PM_DIM_OP_TIMES ? PM_DIM_OP_TIMES : PM_DIM_OP_PLUS);
            PM_TRY(push_frame(p, (pm_dim_frame){.op = binary[i].op}));
            *out_is_operand = false;
            return pm_parse_next(p);
        }
    }
    reduce_dims(p, PM_DIM_OP_PLUS);
    pm_dim_frame *frame = p->dim_frames.n > 0 ? &p->dim_frames.data[p->dim_frames.n - 1] : NULL;
    *out_done = frame == NULL;
    if (frame == NULL)
        return PM_OK;
    if (frame->op == PM_DIM_OP_CALL && !frame->has_first) {
        frame->has_first = true;
        *out_is_operand = false;
        return pm_parse_expect_mark(p, ",");
    }
    p->dim_frames.n--;
    if (frame->op == PM_DIM_OP_CALL) {
        pm_dim b = p->dims.data[--p->dims.n];
        pm_dim *a = &p->dims.data[p->dims.n - 1];
        *a = apply(p->module, frame->function, *a, b);
    }
    return pm_parse_expect_mark(p, ")");
}

/// dim = ["-"] product { ("+" | "-") product }, as pm_dim_text writes it, and with parentheses.
pm_status pm_parse_dim(pm_parser *p, pm_dim *out_dim)
{
    pm_loc loc = pm_parse_here(p);
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

pm_status pm_parse_elem(pm_parser *p, pm_elem *out_elem)
{
    static const char *const names[] = {
#define X(id, name, ...) name,
        PM_ELEMS(X)
#undef X
    };
    if (!pm_parse_at(p, PM_TOKEN_WORD))
        return pm_parse_expected(p, "an element type");
    if (!pm_elem_parse(pm_parse_token(p)->text, out_elem)) {
        pm_loc loc = pm_parse_here(p);
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "unknown element type '%.40s'%s",
                        pm_parse_token(p)->text,
                        pm_parse_suggestion(p, pm_parse_token(p)->text, names, PM_COUNT(names)));
    }
    return pm_parse_next(p);
}

/// "{panel=64, pair=2, ways=1}", or of low-bit weights "{panel=64, …, bits=4, block=32, scale=0, zero=0, floats=0}"
static pm_status parse_layout(pm_parser *p, pm_layout *out_layout)
{
    const struct {
        const char *key;
        int32_t *value;
        int64_t lowest, highest;
    } parts[] = {{"panel", &out_layout->panel, 1, 1 << 16},
                 {"pair", &out_layout->pair, 1, 2},
                 {"ways", &out_layout->ways, 1, 2},
                 {"bits", &out_layout->bits, 2, 8},
                 {"block", &out_layout->block, 1, 1 << 30},
                 {"scale", &out_layout->scale, 0, PM_SCALE_E8M0},
                 {"zero", &out_layout->zero, 0, PM_ZERO_F32},
                 {"floats", &out_layout->floats, 0, 1}};
    enum { N_PLAIN = 3 };
    PM_TRY(pm_parse_expect_mark(p, "{"));
    for (size_t i = 0; i < PM_COUNT(parts); i++) {
        int64_t value = 0;
        if (i == N_PLAIN && pm_parse_at_mark(p, "}"))
            break;
        if (i > 0)
            PM_TRY(pm_parse_expect_mark(p, ","));
        PM_TRY(pm_parse_expect_word(p, parts[i].key));
        PM_TRY(pm_parse_expect_mark(p, "="));
        pm_loc loc = pm_parse_here(p);
        PM_TRY(pm_parse_take_i64(p, &value));
        if (value < parts[i].lowest || value > parts[i].highest)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "%s must be in [%d, %d]", parts[i].key,
                            (int)parts[i].lowest, (int)parts[i].highest);
        *parts[i].value = (int32_t)value;
    }
    return pm_parse_expect_mark(p, "}");
}

/// type = elem "[" [dim { "," dim }] "]" [layout]
pm_status pm_parse_type(pm_parser *p, const pm_type **out_type)
{
    pm_loc loc = pm_parse_here(p);
    pm_elem elem = PM_F32;
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = 0;
    PM_TRY(pm_parse_elem(p, &elem));
    PM_TRY(pm_parse_expect_mark(p, "["));
    bool has_more = !pm_parse_at_mark(p, "]");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        if (rank == PM_MAX_RANK)
            return pm_error(p->diag, &loc, PM_ERR_UNSUPPORTED, "the tensor has more than %d dims",
                            (int)PM_MAX_RANK);
        PM_TRY(pm_parse_dim(p, &dims[rank++]));
        PM_TRY(pm_parse_take_separator(p, "]", &has_more));
    }
    if (!pm_parse_at_mark(p, "{")) {
        *out_type = pm_type_get(p->module, elem, rank, dims);
        return PM_OK;
    }
    pm_layout layout = {0};
    PM_TRY(parse_layout(p, &layout));
    if (rank < 2 || layout.panel % layout.ways != 0)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        rank < 2 ? "only matrices can be packed"
                                 : "the panel can't be shared by the sources");
    if (layout.bits && (layout.bits == 3 || (layout.bits > 4 && layout.bits < 8) || elem != PM_F32 ||
                        layout.block % (32 / layout.bits) != 0))
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "low-bit weights are f32 to the program, of 2, 4 or 8 bits, in blocks of whole words");
    *out_type = pm_type_packed(p->module, elem, rank, dims, layout);
    return PM_OK;
}

/// place = "@" kind "(" … ")", as the printer writes it.
pm_status pm_parse_place(pm_parser *p, pm_place *out_place)
{
    static const char *const names[] = {"arena",  "dynamic", "input", "output", "state",
                                        "weight", "alias",   "local", "result"};
    PM_TRY(pm_parse_next(p));
    if (!pm_parse_at(p, PM_TOKEN_WORD))
        return pm_parse_expected(p, "a kind of place");
    size_t kind = 0;
    while (kind < PM_COUNT(names) && strcmp(pm_parse_token(p)->text, names[kind]) != 0)
        kind++;
    if (kind == PM_COUNT(names)) {
        pm_loc loc = pm_parse_here(p);
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "unknown kind of place '%.40s'%s",
                        pm_parse_token(p)->text,
                        pm_parse_suggestion(p, pm_parse_token(p)->text, names, PM_COUNT(names)));
    }
    PM_TRY(pm_parse_next(p));
    PM_TRY(pm_parse_expect_mark(p, "("));
    pm_place place = {.kind = (pm_place_kind)(PM_PLACE_ARENA + kind), .offset = PM_DIM_NONE};
    if (place.kind == PM_PLACE_ARENA) {
        PM_TRY(pm_parse_dim(p, &place.offset));
    } else {
        PM_TRY(pm_parse_take_u32(p, &place.index));
        bool has_offset = false;
        PM_TRY(pm_parse_take_mark(p, ",", &has_offset));
        if (has_offset)
            PM_TRY(pm_parse_dim(p, &place.offset));
    }
    *out_place = place;
    return pm_parse_expect_mark(p, ")");
}

// ---- locations ----

/// One step: file [":" line ":" col] ["@" offset] [what name] ["(" detail ")"] ["by" pass]
static pm_status parse_loc_step(pm_parser *p, pm_loc *out_loc)
{
    bool is_taken = false;
    if (pm_parse_at_word(p, "_"))
        PM_TRY(pm_parse_next(p));
    else
        PM_TRY(pm_parse_take_string(p, "a file's name or '_'", &out_loc->file));
    PM_TRY(pm_parse_take_mark(p, ":", &is_taken));
    if (is_taken) {
        PM_TRY(pm_parse_take_u32(p, &out_loc->line));
        PM_TRY(pm_parse_expect_mark(p, ":"));
        PM_TRY(pm_parse_take_u32(p, &out_loc->col));
    }
    PM_TRY(pm_parse_take_mark(p, "@", &out_loc->has_offset));
    if (out_loc->has_offset)
        PM_TRY(pm_parse_take_u64(p, &out_loc->offset));
    if ((pm_parse_at(p, PM_TOKEN_WORD) && !pm_parse_at_word(p, "by")) ||
        pm_parse_at(p, PM_TOKEN_STRING)) {
        bool has_what = !pm_parse_at_word(p, "_");
        PM_TRY(pm_parse_take_name(p, "what it is", &out_loc->what));
        if (!has_what)
            out_loc->what = NULL;
        PM_TRY(pm_parse_take_string(p, "a name in quotes", &out_loc->name));
    }
    PM_TRY(pm_parse_take_mark(p, "(", &is_taken));
    if (is_taken) {
        PM_TRY(pm_parse_take_string(p, "a detail in quotes", &out_loc->detail));
        PM_TRY(pm_parse_expect_mark(p, ")"));
    }
    if (pm_parse_at_word(p, "by")) {
        PM_TRY(pm_parse_next(p));
        PM_TRY(pm_parse_take_string(p, "a pass's name in quotes", &out_loc->by));
    }
    return PM_OK;
}

/// loc = "loc" "(" step { "<-" step } ")"
pm_status pm_parse_loc(pm_parser *p, const pm_loc **out_loc)
{
    pm_loc steps[PM_MAX_LOC_CHAIN];
    size_t n = 0;
    PM_TRY(pm_parse_next(p));
    PM_TRY(pm_parse_expect_mark(p, "("));
    bool has_more = true;
    while (has_more) {
        if (n == PM_MAX_LOC_CHAIN)
            return pm_parse_expected(p, "at most 16 steps in a location");
        steps[n] = (pm_loc){0};
        PM_TRY(parse_loc_step(p, &steps[n++]));
        PM_TRY(pm_parse_take_mark(p, "<-", &has_more));
    }
    PM_TRY(pm_parse_expect_mark(p, ")"));
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
static pm_status parse_hex(pm_parser *p, pm_data *data)
{
    PM_VEC(uint8_t) bytes = {0};
    PM_TRY(pm_parse_next(p));
    PM_TRY(pm_parse_expect_mark(p, "("));
    for (; pm_parse_at(p, PM_TOKEN_STRING);) {
        const char *digits = pm_parse_token(p)->text;
        if (pm_parse_token(p)->size % 2 != 0)
            return pm_parse_expected(p, "an even number of digits");
        for (size_t i = 0; i < pm_parse_token(p)->size; i += 2) {
            int high = hex_value(digits[i]), low = hex_value(digits[i + 1]);
            if (high < 0 || low < 0)
                return pm_parse_expected(p, "digits 0-9 and a-f");
            PM_PUSH(p->arena, &bytes, (uint8_t)(high * 16 + low));
        }
        PM_TRY(pm_parse_next(p));
    }
    // the storage of a vector is aligned for any element type; an empty one still needs an address
    data->bytes = bytes.n > 0 ? bytes.data : PM_NEW_ARRAY(p->arena, uint8_t, 1);
    data->size = bytes.n;
    return pm_parse_expect_mark(p, ")");
}

/// Opens a file named in the text: beneath `dir`, once for each name.
static pm_status open_file(pm_parser *p, const pm_loc *loc, const char *path, pm_file **out_file)
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
static pm_status parse_file_range(pm_parser *p, pm_data *data)
{
    const char *path = NULL;
    pm_file *file = NULL;
    PM_TRY(pm_parse_next(p));
    PM_TRY(pm_parse_expect_mark(p, "("));
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_string(p, "a file's name in quotes", &path));
    PM_TRY(pm_parse_expect_mark(p, ","));
    PM_TRY(pm_parse_take_u64(p, &data->offset));
    PM_TRY(pm_parse_expect_mark(p, ","));
    PM_TRY(pm_parse_take_u64(p, &data->size));
    PM_TRY(pm_parse_expect_mark(p, ")"));
    PM_TRY(open_file(p, &loc, path, &file));
    if (data->offset > file->size || data->size > file->size - data->offset)
        return pm_error(
            p->diag, &loc, PM_ERR_INVALID, "bytes %llu to %llu end beyond the file's %llu bytes",
            (unsigned long long)data->offset, (unsigned long long)(data->offset + data->size),
            (unsigned long long)file->size);
    data->file = file;
    return PM_OK;
}

static pm_status parse_literal(pm_parser *p, pm_raw_data *raw)
{
    char text[PM_LITERAL_TEXT];
    pm_literal item = {.loc = pm_parse_here(p)};
    PM_TRY(pm_parse_take_literal(p, "an element", text));
    item.text = pm_arena_strdup(p->arena, text);
    PM_PUSH(p->arena, &raw->literals, item);
    return PM_OK;
}

/// data = "[" elements "]" | "splat" "(" element ")" | "hex" "(" … ")" | "file" "(" … ")"
pm_status pm_parse_data(pm_parser *p, pm_raw_data *raw)
{
    raw->loc = pm_parse_here(p);
    raw->form = PM_DATA_BYTES;
    bool has_more = false;
    if (pm_parse_at_mark(p, "[")) {
        raw->form = PM_DATA_LIST;
        PM_TRY(pm_parse_next(p));
        has_more = !pm_parse_at_mark(p, "]");
        if (!has_more)
            return pm_parse_next(p);
        while (has_more) {
            PM_TRY(parse_literal(p, raw));
            PM_TRY(pm_parse_take_separator(p, "]", &has_more));
        }
        return PM_OK;
    }
    if (pm_parse_at_word(p, "splat")) {
        raw->form = PM_DATA_SPLAT;
        PM_TRY(pm_parse_next(p));
        PM_TRY(pm_parse_expect_mark(p, "("));
        PM_TRY(parse_literal(p, raw));
        return pm_parse_expect_mark(p, ")");
    }
    raw->data = PM_NEW(p->arena, pm_data);
    if (pm_parse_at_word(p, "hex"))
        return parse_hex(p, raw->data);
    if (pm_parse_at_word(p, "file"))
        return parse_file_range(p, raw->data);
    return pm_parse_expected(p, "[…], splat(…), hex(…) or file(…)");
}

/// The constant's bytes, now that its type is known.
pm_status pm_parse_finish_data(pm_parser *p, pm_raw_data *raw, const pm_type *type,
                               const pm_data **out)
{
    pm_module *m = p->module;
    int64_t size = 0;
    if (!pm_dim_is_const(m, pm_type_bytes(m, type), &size) || size < 0)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID,
                        "a constant can't have the type %s, whose size is not fixed",
                        pm_type_text(m, type));
    if (raw->form == PM_DATA_BYTES) {
        *out = raw->data;
        if (raw->data->size != (uint64_t)size)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%llu bytes given, but %s has %llu",
                            (unsigned long long)raw->data->size, pm_type_text(m, type),
                            (unsigned long long)size);
        return PM_OK;
    }
    uint32_t width = pm_elem_size(type->elem);
    uint64_t n = (uint64_t)size / width;
    if (raw->form == PM_DATA_LIST && raw->literals.n != n)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%zu elements given, but %s has %llu",
                        raw->literals.n, pm_type_text(m, type), (unsigned long long)n);
    if (raw->form == PM_DATA_SPLAT && (uint64_t)size > PM_MAX_SPLAT - p->splat_bytes)
        return pm_error(p->diag, &raw->loc, PM_ERR_UNSUPPORTED,
                        "the splat constants of the module have more than %d bytes",
                        (int)PM_MAX_SPLAT);
    p->splat_bytes += raw->form == PM_DATA_SPLAT ? (uint64_t)size : 0;
    uint8_t *bytes = pm_arena_alloc(p->arena, (size_t)size, 64);
    for (uint64_t i = 0; i < n; i++) {
        if (raw->form == PM_DATA_SPLAT && i > 0) {
            memcpy(bytes + i * width, bytes, width);
            continue;
        }
        const pm_literal *item = &raw->literals.data[i];
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
