/// The text form, read: recursive descent over tokens. Only regions recurse (PM_MAX_REGION_DEPTH).
#include <string.h>

#include "ir/ir_parse.h"
#include "ir/text.h"
#include "ir/text_number.h"

/// A result of a graph: its value may be defined further down.
typedef struct result_ref {
    const char *name, *value;
    pm_loc loc;
    int32_t state;
} result_ref;

typedef PM_VEC(result_ref) result_ref_vec;

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
    pm_raw_data data;
    bool has_data;
    PM_VEC(pm_dim) content; ///< of `dims`
    PM_VEC(const pm_type *) types;
    PM_VEC(pm_place) places;
    PM_VEC(pm_loc) type_locs;
    const char *device;
} raw_op;

/// ["on" device]
static pm_status parse_device(pm_parser *p, const char **out_device)
{
    if (!pm_parse_at_word(p, "on"))
        return PM_OK;
    PM_TRY(pm_parse_next(p));
    return pm_parse_take_name(p, "a device's name", out_device);
}

static pm_status parse_ints(pm_parser *p, pm_attr *attr)
{
    PM_VEC(int64_t) ints = {0};
    PM_TRY(pm_parse_expect_mark(p, "["));
    bool has_more = !pm_parse_at_mark(p, "]");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        int64_t value = 0;
        PM_TRY(pm_parse_take_i64(p, &value));
        PM_PUSH(p->arena, &ints, value);
        PM_TRY(pm_parse_take_separator(p, "]", &has_more));
    }
    *attr = pm_attr_ints(attr->key, ints.data, ints.n);
    return PM_OK;
}

static pm_status parse_floats(pm_parser *p, pm_attr *attr)
{
    PM_VEC(double) floats = {0};
    PM_TRY(pm_parse_expect_mark(p, "["));
    bool has_more = !pm_parse_at_mark(p, "]");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        double value = 0;
        PM_TRY(pm_parse_take_number(p, PM_F64, "a number", &value));
        PM_PUSH(p->arena, &floats, value);
        PM_TRY(pm_parse_take_separator(p, "]", &has_more));
    }
    *attr = pm_attr_floats(attr->key, floats.data, floats.n);
    return PM_OK;
}

static pm_status parse_attr_value(pm_parser *p, raw_op *raw, const pm_attr_decl *decl,
                                  pm_attr *attr)
{
    int64_t i = 0;
    double f = 0;
    pm_elem elem = PM_F32;
    bool is_true = pm_parse_at_word(p, "true");
    switch (decl->kind) {
    case PM_ATTR_I64:
        PM_TRY(pm_parse_take_i64(p, &i));
        *attr = pm_attr_i64(decl->key, i);
        return PM_OK;
    case PM_ATTR_F64:
        PM_TRY(pm_parse_take_number(p, PM_F64, "a number", &f));
        *attr = pm_attr_f64(decl->key, f);
        return PM_OK;
    case PM_ATTR_STR:
        if (!pm_parse_at(p, PM_TOKEN_STRING))
            return pm_parse_expected(p, "a string");
        *attr = pm_attr_str(decl->key, pm_intern(p->module, pm_parse_token(p)->text));
        return pm_parse_next(p);
    case PM_ATTR_BOOL:
        if (!is_true && !pm_parse_at_word(p, "false"))
            return pm_parse_expected(p, "true or false");
        *attr = pm_attr_bool(decl->key, is_true);
        return pm_parse_next(p);
    case PM_ATTR_ELEM:
        PM_TRY(pm_parse_elem(p, &elem));
        *attr = pm_attr_elem(decl->key, elem);
        return PM_OK;
    case PM_ATTR_INTS: attr->key = decl->key; return parse_ints(p, attr);
    case PM_ATTR_FLOATS: attr->key = decl->key; return parse_floats(p, attr);
    case PM_ATTR_DATA:
        *attr = (pm_attr){.key = decl->key, .kind = PM_ATTR_DATA, .present = true};
        raw->has_data = true;
        return pm_parse_data(p, &raw->data);
    }
    return PM_ERR_INTERNAL;
}

/// attrs = "{" [key "=" value { "," key "=" value }] "}"
static pm_status parse_attrs(pm_parser *p, raw_op *raw)
{
    pm_attr_decl decls[PM_MAX_ATTRS];
    const char *keys[PM_MAX_ATTRS];
    size_t n_decls = pm_op_attr_decls(raw->code, decls);
    for (size_t i = 0; i < n_decls; i++)
        keys[i] = decls[i].key;
    PM_TRY(pm_parse_next(p));
    bool has_more = !pm_parse_at_mark(p, "}");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        pm_loc loc = pm_parse_here(p);
        const char *key = NULL;
        if (!pm_parse_at(p, PM_TOKEN_WORD))
            return pm_parse_expected(p, "an attribute's name");
        PM_TRY(pm_parse_take_name(p, "an attribute's name", &key));
        size_t which = 0;
        while (which < n_decls && strcmp(decls[which].key, key) != 0)
            which++;
        if (which == n_decls)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "%s has no attribute '%.100s'%s",
                            pm_op_table[raw->code].name, key,
                            pm_parse_suggestion(p, key, keys, n_decls));
        for (size_t i = 0; i < raw->n_attrs; i++)
            if (strcmp(raw->attrs[i].key, key) == 0)
                return pm_error(p->diag, &loc, PM_ERR_INVALID, "attribute '%s' is given twice",
                                key);
        PM_TRY(pm_parse_expect_mark(p, "="));
        PM_TRY(parse_attr_value(p, raw, &decls[which], &raw->attrs[raw->n_attrs]));
        raw->n_attrs++;
        PM_TRY(pm_parse_take_separator(p, "}", &has_more));
    }
    return PM_OK;
}

// ---- values ----

static pm_status define(pm_parser *p, const char *name, const pm_loc *loc, pm_value *value)
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

static pm_status find_value(pm_parser *p, const char *name, const pm_loc *loc, pm_value **out_value)
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
                    pm_parse_suggestion(p, name, names, n));
}

/// "%name" or "%12", and the value's own name in quotes when that is another.
static pm_status parse_definition(pm_parser *p, const char **out_name, const char **out_hint,
                                  pm_loc *out_loc)
{
    if (!pm_parse_at(p, PM_TOKEN_VALUE))
        return pm_parse_expected(p, "a value (%name)");
    *out_loc = pm_parse_here(p);
    *out_name = pm_intern(p->module, pm_parse_token(p)->text);
    *out_hint = is_number(*out_name) ? NULL : *out_name;
    PM_TRY(pm_parse_next(p));
    if (pm_parse_at(p, PM_TOKEN_STRING))
        PM_TRY(pm_parse_take_string(p, "a name", out_hint));
    return PM_OK;
}

// ---- ops ----

static pm_status parse_graph(pm_parser *p, pm_graph *g);

static pm_status parse_opcode(pm_parser *p, pm_opcode *out_code)
{
    const char *names[PM_OP_COUNT];
    if (!pm_parse_at(p, PM_TOKEN_WORD))
        return pm_parse_expected(p, "an op's name");
    if (!pm_opcode_parse(pm_parse_token(p)->text, out_code)) {
        for (size_t i = 0; i < PM_OP_COUNT; i++)
            names[i] = pm_op_table[i].name;
        pm_loc loc = pm_parse_here(p);
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "unknown op '%.100s'%s",
                        pm_parse_token(p)->text,
                        pm_parse_suggestion(p, pm_parse_token(p)->text, names, PM_OP_COUNT));
    }
    return pm_parse_next(p);
}

static pm_status parse_operands(pm_parser *p, raw_op *raw)
{
    PM_TRY(pm_parse_next(p));
    bool has_more = !pm_parse_at_mark(p, ")");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        pm_value *value = NULL;
        if (pm_parse_at_word(p, "_")) { // absent
            PM_TRY(pm_parse_next(p));
        } else {
            if (!pm_parse_at(p, PM_TOKEN_VALUE))
                return pm_parse_expected(p, "a value (%name) or '_'");
            pm_loc loc = pm_parse_here(p);
            PM_TRY(find_value(p, pm_parse_token(p)->text, &loc, &value));
            PM_TRY(pm_parse_next(p));
        }
        PM_PUSH(p->arena, &raw->operands, value);
        PM_TRY(pm_parse_take_separator(p, ")", &has_more));
    }
    return PM_OK;
}

/// ":" type [place] { "," type [place] }
static pm_status parse_result_types(pm_parser *p, raw_op *raw)
{
    bool has_more = false;
    PM_TRY(pm_parse_take_mark(p, ":", &has_more));
    while (has_more) {
        const pm_type *type = NULL;
        pm_place place = {.kind = PM_PLACE_NONE, .offset = PM_DIM_NONE};
        PM_PUSH(p->arena, &raw->type_locs, pm_parse_here(p));
        PM_TRY(pm_parse_type(p, &type));
        if (pm_parse_at_mark(p, "@"))
            PM_TRY(pm_parse_place(p, &place));
        PM_PUSH(p->arena, &raw->types, type);
        PM_PUSH(p->arena, &raw->places, place);
        PM_TRY(pm_parse_take_mark(p, ",", &has_more));
    }
    if (raw->types.n != 0 && raw->types.n != raw->names.n)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%zu types for %zu results",
                        raw->types.n, raw->names.n);
    return PM_OK;
}

/// The extents of `dims`: "[" dim { "," dim } "]"
static pm_status parse_content(pm_parser *p, raw_op *raw)
{
    PM_TRY(pm_parse_expect_mark(p, "["));
    bool has_more = !pm_parse_at_mark(p, "]");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        pm_dim dim = PM_DIM_NONE;
        PM_TRY(pm_parse_dim(p, &dim));
        PM_PUSH(p->arena, &raw->content, dim);
        PM_TRY(pm_parse_take_separator(p, "]", &has_more));
    }
    return PM_OK;
}

static pm_status parse_op_head(pm_parser *p, raw_op *raw)
{
    bool has_more = pm_parse_at(p, PM_TOKEN_VALUE);
    bool has_results = has_more;
    while (has_more) {
        const char *name = NULL, *hint = NULL;
        pm_loc loc;
        PM_TRY(parse_definition(p, &name, &hint, &loc));
        PM_PUSH(p->arena, &raw->names, name);
        PM_PUSH(p->arena, &raw->hints, hint);
        PM_PUSH(p->arena, &raw->name_locs, loc);
        PM_TRY(pm_parse_take_mark(p, ",", &has_more));
    }
    if (has_results)
        PM_TRY(pm_parse_expect_mark(p, "="));
    raw->loc = pm_parse_here(p);
    PM_TRY(parse_opcode(p, &raw->code));
    if (raw->code == PM_OP_dims)
        PM_TRY(parse_content(p, raw));
    if (pm_parse_at_mark(p, "("))
        PM_TRY(parse_operands(p, raw));
    if (pm_parse_at_mark(p, "{"))
        PM_TRY(parse_attrs(p, raw));
    PM_TRY(parse_device(p, &raw->device));
    return parse_result_types(p, raw);
}

static pm_status parse_regions(pm_parser *p, pm_op *op)
{
    const char *name = pm_op_table[op->code].name;
    uint32_t fixed = pm_op_table[op->code].n_regions;
    uint32_t n = 0;
    PM_TRY(pm_parse_next(p));
    PM_TRY(pm_parse_expect_mark(p, "{"));
    for (; !pm_parse_at_mark(p, "}"); n++) {
        if (fixed != PM_ANY && n == fixed)
            return pm_parse_expected(
                p, pm_arena_printf(p->arena, "'}' after %u regions of %s", (unsigned)fixed, name));
        pm_graph *region = pm_region_create(op);
        if (pm_parse_at_word(p, "region")) {
            PM_TRY(pm_parse_next(p));
            PM_TRY(pm_parse_take_name(p, "the region's name", &region->name));
        }
        PM_TRY(parse_graph(p, region));
    }
    return pm_parse_next(p);
}

/// Whether a value of the inferred type may be said to have the given one: they don't differ for
/// certain. A text may say more than inference finds (passes know more), as pm_op_check has it.
static bool may_be(const pm_module *m, const pm_type *given, const pm_type *inferred)
{
    if (given->elem != inferred->elem || given->rank != inferred->rank ||
        given->layout != inferred->layout)
        return false;
    for (int32_t i = 0; i < given->rank; i++)
        if (pm_dim_differs(m, given->dims[i], inferred->dims[i]))
            return false;
    return true;
}

/// The extents of `dims` are its content; its type follows from their number.
static void set_content(pm_parser *p, raw_op *raw, pm_op *op)
{
    pm_dim n = pm_dim_const(p->module, (int64_t)raw->content.n);
    pm_dim *content = PM_NEW_ARRAY(p->arena, pm_dim, raw->content.n);
    if (raw->content.n > 0)
        memcpy(content, raw->content.data, raw->content.n * sizeof *content);
    op->results[0]->content = content;
    op->results[0]->type = pm_type_get(p->module, PM_I64, 1, &n);
}

/// The types that the text gives are what inference starts from (a data-dependent extent keeps its
/// symbol), and must agree with what it finds; its claims stand where running checks them.
static pm_status infer(pm_parser *p, raw_op *raw, pm_op *op)
{
    const char *name = pm_op_table[op->code].name;
    for (size_t i = 0; i < raw->types.n; i++)
        op->results[i]->type = raw->types.data[i];
    if (op->code == PM_OP_dims)
        set_content(p, raw, op);
    if (op->code == PM_OP_const && raw->types.n == 0)
        return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "a constant needs a type");
    PM_TRY(pm_op_infer(op));
    for (uint32_t i = 0; i < raw->types.n; i++) {
        const pm_type *inferred = op->results[i]->type;
        if (!may_be(p->module, raw->types.data[i], inferred))
            return pm_error(p->diag, &raw->type_locs.data[i], PM_ERR_INVALID,
                            "the text says %s, but %s gives %s",
                            pm_type_text(p->module, raw->types.data[i]), name,
                            pm_type_text(p->module, inferred));
        // extents that the op finds while it runs are compared with the text's then; others nobody would
        // compare, so inference has the last word
        if (pm_op_table[op->code].extent != NULL)
            op->results[i]->type = raw->types.data[i];
    }
    return PM_OK;
}

/// op = [results "="] name [content] ["(" operands ")"] [attrs] ["on" device] [":" types] [loc] ["regions" "{" …
/// "}"]
static pm_status parse_op(pm_parser *p, pm_graph *g)
{
    raw_op *raw = PM_NEW(p->arena, raw_op);
    PM_TRY(parse_op_head(p, raw));
    const pm_loc *loc = pm_loc_intern(p->module, &raw->loc), *given = loc;
    if (raw->has_data) {
        if (raw->types.n != 1)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "a constant needs a type");
        for (size_t i = 0; i < raw->n_attrs; i++)
            if (raw->attrs[i].kind == PM_ATTR_DATA)
                PM_TRY(
                    pm_parse_finish_data(p, &raw->data, raw->types.data[0], &raw->attrs[i].data));
    }
    if (pm_parse_at_word(p, "loc"))
        PM_TRY(pm_parse_loc(p, &given));
    uint32_t n_regions = pm_op_table[raw->code].n_regions;
    pm_op *op = NULL;
    PM_TRY(pm_op_create(g, NULL, raw->code, loc, raw->operands.data, raw->operands.n, raw->attrs,
                        raw->n_attrs, raw->names.n, n_regions == PM_ANY ? 0 : n_regions, &op));
    if (pm_parse_at_word(p, "regions"))
        PM_TRY(parse_regions(p, op));
    for (uint32_t i = 0; i < op->n_regions; i++)
        if (op->regions[i] == NULL)
            return pm_error(p->diag, &raw->loc, PM_ERR_INVALID, "%s needs %u regions, found %u",
                            pm_op_table[op->code].name, (unsigned)op->n_regions, (unsigned)i);
    PM_TRY(infer(p, raw, op));
    op->device = raw->device;
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

static pm_status parse_state_ref(pm_parser *p, int32_t *out_state)
{
    pm_module *m = p->module;
    const char *name = NULL;
    *out_state = -1;
    if (!pm_parse_at_word(p, "state"))
        return PM_OK;
    PM_TRY(pm_parse_next(p));
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_string(p, "a state's name in quotes", &name));
    for (size_t i = 0; i < m->states.n; i++)
        if (strcmp(m->states.data[i].name, name) == 0)
            *out_state = (int32_t)i;
    if (*out_state < 0)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "state '%.200s' is not declared", name);
    return PM_OK;
}

static pm_status parse_args(pm_parser *p, pm_graph *g)
{
    PM_TRY(pm_parse_expect_mark(p, "("));
    bool has_more = !pm_parse_at_mark(p, ")");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        const char *name = NULL, *hint = NULL;
        const pm_type *type = NULL;
        pm_loc loc;
        int32_t state = -1;
        PM_TRY(parse_definition(p, &name, &hint, &loc));
        PM_TRY(pm_parse_expect_mark(p, ":"));
        PM_TRY(pm_parse_type(p, &type));
        PM_TRY(parse_state_ref(p, &state));
        pm_value *arg = pm_graph_add_arg(g, hint, type, state);
        if (pm_parse_at_mark(p, "@"))
            PM_TRY(pm_parse_place(p, &arg->place));
        PM_TRY(define(p, name, &loc, arg));
        PM_TRY(pm_parse_take_separator(p, ")", &has_more));
    }
    return PM_OK;
}

static pm_status parse_result_refs(pm_parser *p, result_ref_vec *refs)
{
    PM_TRY(pm_parse_expect_mark(p, "("));
    bool has_more = !pm_parse_at_mark(p, ")");
    if (!has_more)
        PM_TRY(pm_parse_next(p));
    while (has_more) {
        result_ref ref = {.state = -1};
        if (!pm_parse_at(p, PM_TOKEN_VALUE)) {
            PM_TRY(pm_parse_take_name(p, "a result", &ref.name));
            PM_TRY(pm_parse_expect_mark(p, ":"));
        }
        ref.loc = pm_parse_here(p);
        if (!pm_parse_at(p, PM_TOKEN_VALUE))
            return pm_parse_expected(p, "a value (%name)");
        ref.value = pm_intern(p->module, pm_parse_token(p)->text);
        PM_TRY(pm_parse_next(p));
        PM_TRY(parse_state_ref(p, &ref.state));
        PM_PUSH(p->arena, refs, ref);
        PM_TRY(pm_parse_take_separator(p, ")", &has_more));
    }
    return PM_OK;
}

/// "arena" [device] "=" dim: on the host without a device, which comes first
static pm_status parse_arena(pm_parser *p, pm_graph *g)
{
    pm_device_arena arena = {NULL, PM_DIM_NONE};
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_next(p));
    if (!pm_parse_at_mark(p, "="))
        PM_TRY(pm_parse_take_name(p, "a device's name", &arena.device));
    PM_TRY(pm_parse_expect_mark(p, "="));
    PM_TRY(pm_parse_dim(p, &arena.bytes));
    bool is_again = arena.device == NULL && g->arena_bytes != PM_DIM_NONE;
    for (size_t i = 0; i < g->device_arenas.n; i++)
        is_again = is_again || g->device_arenas.data[i].device == arena.device;
    if (is_again || (arena.device != NULL && g->arena_bytes == PM_DIM_NONE))
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "%s", is_again ? "the arena's size is given twice"
                                                                   : "the host's arena comes first");
    if (arena.device == NULL)
        g->arena_bytes = arena.bytes;
    else
        PM_PUSH(p->module->arena, &g->device_arenas, arena);
    return PM_OK;
}

/// "plan" "(" {"arena" [device] "=" dim ","} ["dynamic" "=" n] ")"
static pm_status parse_plan(pm_parser *p, pm_graph *g)
{
    bool has_more = false;
    PM_TRY(pm_parse_next(p));
    PM_TRY(pm_parse_expect_mark(p, "("));
    while (pm_parse_at_word(p, "arena")) {
        PM_TRY(parse_arena(p, g));
        PM_TRY(pm_parse_take_mark(p, ",", &has_more));
    }
    if (has_more || pm_parse_at_word(p, "dynamic")) {
        PM_TRY(pm_parse_expect_word(p, "dynamic"));
        PM_TRY(pm_parse_expect_mark(p, "="));
        PM_TRY(pm_parse_take_u32(p, &g->n_dynamic));
    }
    return pm_parse_expect_mark(p, ")");
}

/// graph = "(" args ")" "->" "(" results ")" [plan] "{" { op } "}"
static pm_status parse_graph(pm_parser *p, pm_graph *g)
{
    if (++p->depth > PM_MAX_REGION_DEPTH + 1) {
        pm_loc loc = pm_parse_here(p);
        return pm_error(p->diag, &loc, PM_ERR_UNSUPPORTED,
                        "regions are nested deeper than %d levels", (int)PM_MAX_REGION_DEPTH);
    }
    pm_map *outer = p->scope;
    result_ref_vec refs = {0};
    p->scope = PM_NEW(p->arena, pm_map);
    pm_map_init(p->scope, p->arena);
    PM_TRY(parse_args(p, g));
    PM_TRY(pm_parse_expect_mark(p, "->"));
    PM_TRY(parse_result_refs(p, &refs));
    if (pm_parse_at_word(p, "plan"))
        PM_TRY(parse_plan(p, g));
    PM_TRY(pm_parse_expect_mark(p, "{"));
    while (!pm_parse_at_mark(p, "}")) {
        bool is_taken = false;
        PM_TRY(parse_op(p, g));
        PM_TRY(pm_parse_take_mark(p, ";", &is_taken));
    }
    PM_TRY(pm_parse_next(p));
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
static pm_status parse_limit(pm_parser *p, int64_t *out)
{
    bool is_negative = pm_parse_at_mark(p, "-");
    char text[PM_LITERAL_TEXT];
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_literal(p, "a number or inf", text));
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
static pm_status parse_symbol(pm_parser *p)
{
    pm_module *m = p->module;
    const char *name = NULL;
    int64_t lo = 0, hi = INT64_MAX;
    pm_dim bound = PM_DIM_NONE;
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_name(p, "the symbol's name", &name));
    if (pm_dim_find(m, name) != PM_DIM_NONE)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "symbol '%.200s' is declared twice", name);
    bool is_dynamic = pm_parse_at_word(p, "dynamic"), has_bound = false;
    if (is_dynamic)
        PM_TRY(pm_parse_next(p));
    bool has_range = pm_parse_at_word(p, "in");
    if (has_range) {
        PM_TRY(pm_parse_next(p));
        PM_TRY(pm_parse_expect_mark(p, "["));
        PM_TRY(parse_limit(p, &lo));
        PM_TRY(pm_parse_expect_mark(p, ","));
        PM_TRY(parse_limit(p, &hi));
        PM_TRY(pm_parse_expect_mark(p, "]"));
    }
    if (lo > hi || lo < 0)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "the range of symbol '%.200s' must not be empty nor start below 0", name);
    PM_TRY(pm_parse_take_mark(p, "<=", &has_bound));
    if (has_bound && !is_dynamic)
        return pm_error(p->diag, &loc, PM_ERR_INVALID,
                        "only a dynamic symbol has a bound; give '%.200s' a range", name);
    if (has_bound)
        PM_TRY(pm_parse_dim(p, &bound));
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

static pm_status parse_meta(pm_parser *p)
{
    const char *key = NULL, *value = NULL;
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_string(p, "a key in quotes", &key));
    PM_TRY(pm_parse_expect_mark(p, "="));
    PM_TRY(pm_parse_take_string(p, "a string", &value));
    if (pm_map_get_str(&p->module->meta, key) != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "meta '%.200s' is given twice", key);
    pm_map_put_str(&p->module->meta, key, (void *)value);
    return PM_OK;
}

static pm_status parse_blob(pm_parser *p)
{
    const char *key = NULL;
    pm_raw_data raw = {0};
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_string(p, "a key in quotes", &key));
    PM_TRY(pm_parse_expect_mark(p, "="));
    PM_TRY(pm_parse_data(p, &raw));
    if (raw.form != PM_DATA_BYTES)
        return pm_error(p->diag, &raw.loc, PM_ERR_INVALID, "a blob is hex(…) or file(…)");
    if (pm_map_get_str(&p->module->blobs, key) != NULL)
        return pm_error(p->diag, &loc, PM_ERR_INVALID, "blob '%.200s' is given twice", key);
    pm_map_put_str(&p->module->blobs, key, raw.data);
    return PM_OK;
}

static pm_status parse_state(pm_parser *p)
{
    pm_module *m = p->module;
    const char *name = NULL;
    const pm_type *type = NULL;
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_string(p, "the state's name in quotes", &name));
    PM_TRY(pm_parse_expect_mark(p, ":"));
    PM_TRY(pm_parse_type(p, &type));
    for (size_t i = 0; i < m->states.n; i++)
        if (strcmp(m->states.data[i].name, name) == 0)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "state '%.200s' is declared twice",
                            name);
    int32_t state = pm_state_add(m, name, type);
    return parse_device(p, &m->states.data[state].device);
}

static pm_status parse_entry(pm_parser *p)
{
    pm_module *m = p->module;
    const char *name = NULL;
    pm_loc loc = pm_parse_here(p);
    PM_TRY(pm_parse_take_name(p, "the entry's name", &name));
    for (size_t i = 0; i < m->entries.n; i++)
        if (strcmp(m->entries.data[i]->name, name) == 0)
            return pm_error(p->diag, &loc, PM_ERR_INVALID, "entry '%.200s' is defined twice", name);
    return parse_graph(p, pm_entry_create(m, name));
}

static pm_status parse_statement(pm_parser *p)
{
    static const struct {
        const char *word;
        pm_status (*parse)(pm_parser *p);
    } statements[] = {{"symbol", parse_symbol},
                      {"meta", parse_meta},
                      {"blob", parse_blob},
                      {"state", parse_state},
                      {"entry", parse_entry}};
    for (size_t i = 0; i < PM_COUNT(statements); i++) {
        if (pm_parse_at_word(p, statements[i].word)) {
            PM_TRY(pm_parse_next(p));
            return statements[i].parse(p);
        }
    }
    return pm_parse_expected(p, "symbol, meta, blob, state, entry or '}'");
}

static pm_status parse_module(pm_parser *p)
{
    const char *name = NULL;
    PM_TRY(pm_parse_expect_word(p, "module"));
    PM_TRY(pm_parse_take_name(p, "the module's name in quotes", &name));
    p->module->name = name;
    PM_TRY(pm_parse_expect_mark(p, "{"));
    while (!pm_parse_at_mark(p, "}")) {
        bool is_taken = false;
        PM_TRY(parse_statement(p));
        PM_TRY(pm_parse_take_mark(p, ";", &is_taken));
    }
    PM_TRY(pm_parse_next(p));
    return pm_parse_at(p, PM_TOKEN_END) ? PM_OK : pm_parse_expected(p, "the end of the file");
}

pm_status pm_module_parse(pm_arena *arena, pm_diag *diag, const char *file, const char *text,
                          size_t size, const char *dir, pm_module **out_module)
{
    *out_module = NULL;
    pm_diag_source(diag, file, text, size);
    pm_parser *p = PM_NEW(arena, pm_parser);
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
