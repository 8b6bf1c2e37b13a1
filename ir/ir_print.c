#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "ir/op_table.h"
#include "ir/text.h"
#include "ir/text_number.h"

enum {
    MAX_LIST = 64,  ///< elements of a constant that are written out one by one
    HEX_LINE = 64,  ///< bytes in each string of a hex(…)
    MAX_NAME = 200, ///< longer names are quoted
};

static const uint32_t UNNAMED = UINT32_MAX, BY_NAME = UINT32_MAX - 1;

typedef struct printer {
    FILE *out;
    const pm_module *module;
    pm_arena *scratch;
    uint32_t *numbers; ///< by value id: its number in the text, BY_NAME, or UNNAMED (not seen)
    uint32_t n_values, next_number;
    bool *is_used; ///< by symbol
    pm_map seen_dims, dim_texts;
    int indent;
    uint64_t splat_bytes; ///< written as splat(…) so far
} printer;

static void put(printer *p, const char *text)
{
    fputs(text, p->out);
}

static void put_line_start(printer *p)
{
    for (int i = 0; i < p->indent; i++)
        put(p, "  ");
}

// ---- names and strings ----

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/// Whether the text can stand as a bare word: [A-Za-z_][A-Za-z0-9_.]*, not too long.
static bool is_bare(const char *text)
{
    if (text == NULL || !is_name_start(*text))
        return false;
    size_t n = 1;
    for (; text[n] != '\0'; n++)
        if (n >= MAX_NAME ||
            !(is_name_start(text[n]) || (text[n] >= '0' && text[n] <= '9') || text[n] == '.'))
            return false;
    return true;
}

static void put_string(printer *p, const char *text)
{
    size_t size = strlen(text);
    fputc('"', p->out);
    for (size_t i = 0; i < size;) {
        uint32_t code = 0;
        size_t n = pm_utf8_decode(text + i, size - i, &code);
        if (code == '"' || code == '\\')
            fprintf(p->out, "\\%c", (char)code);
        else if (code == '\n')
            put(p, "\\n");
        else if (code == '\t')
            put(p, "\\t");
        else if (n == 0 || pm_utf8_is_hazardous(code))
            for (size_t k = 0; k < (n == 0 ? 1 : n); k++)
                fprintf(p->out, "\\x%02x", (uint8_t)text[i + k]);
        else
            fwrite(text + i, 1, n, p->out);
        i += n == 0 ? 1 : n;
    }
    fputc('"', p->out);
}

static void put_name(printer *p, const char *name)
{
    if (is_bare(name))
        put(p, name);
    else
        put_string(p, name == NULL ? "" : name);
}

// ---- dims and types ----

static void put_dim(printer *p, pm_dim dim)
{
    if (dim == PM_DIM_NONE) {
        put(p, "?");
        return;
    }
    // few dims recur often: their texts, which live in the module's arena, are kept
    void **text = pm_map_at(&p->dim_texts, &dim, sizeof dim);
    if (*text == NULL)
        *text = pm_dim_text((pm_module *)p->module, dim);
    put(p, *text);
}

static void put_type(printer *p, const pm_type *type)
{
    if (type == NULL) {
        put(p, "?");
        return;
    }
    put(p, pm_elem_name(type->elem));
    put(p, "[");
    for (int32_t i = 0; i < type->rank; i++) {
        if (i > 0)
            put(p, ", ");
        put_dim(p, type->dims[i]);
    }
    put(p, "]");
    char layout[PM_LAYOUT_TEXT_SIZE];
    if (type->layout != NULL) {
        pm_layout_text(type->layout, layout);
        put(p, layout);
    }
}

// ---- which symbols the text needs ----

static void mark_dim(printer *p, pm_dim dim)
{
    PM_VEC(pm_dim) stack = {0};
    PM_PUSH(p->scratch, &stack, dim);
    while (stack.n > 0) {
        pm_dim d = stack.data[--stack.n];
        if (d == PM_DIM_NONE)
            continue;
        void **seen = pm_map_at(&p->seen_dims, &d, sizeof d);
        if (*seen != NULL)
            continue;
        *seen = p;
        pm_dim_info info = pm_dim_get(p->module, d);
        if (info.kind == PM_DIM_SYMBOL) {
            p->is_used[info.value] = true;
            PM_PUSH(p->scratch, &stack, p->module->symbols.data[info.value].bound);
        } else if (info.kind != PM_DIM_CONST) {
            PM_PUSH(p->scratch, &stack, info.a);
            PM_PUSH(p->scratch, &stack, info.b);
        }
    }
}

static void mark_type(printer *p, const pm_type *type)
{
    for (int32_t i = 0; type != NULL && i < type->rank; i++)
        mark_dim(p, type->dims[i]);
}

static bool has_content_in_text(const pm_op *op)
{
    return op->code == PM_OP_dims && op->n_results == 1;
}

/// Number of elements of a value of rank 0 or 1 whose content is known.
static int64_t content_size(const pm_module *m, const pm_value *value)
{
    int64_t n = 1;
    if (value->content == NULL || value->type == NULL || value->type->rank > 1)
        return 0;
    if (value->type->rank == 1 && !pm_dim_is_const(m, value->type->dims[0], &n))
        return 0;
    return n;
}

static void mark_value(printer *p, const pm_value *value)
{
    mark_type(p, value->type);
    if (value->place.kind != PM_PLACE_NONE)
        mark_dim(p, value->place.offset);
}

static void mark_graph(printer *p, const pm_graph *g)
{
    mark_dim(p, g->arena_bytes);
    for (size_t i = 0; i < g->device_arenas.n; i++)
        mark_dim(p, g->device_arenas.data[i].bytes);
    for (size_t i = 0; i < g->args.n; i++)
        mark_value(p, g->args.data[i]);
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        for (uint32_t i = 0; i < op->n_results; i++)
            mark_value(p, op->results[i]);
        if (has_content_in_text(op))
            for (int64_t i = 0; i < content_size(p->module, op->results[0]); i++)
                mark_dim(p, op->results[0]->content[i]);
        for (uint32_t i = 0; i < op->n_regions; i++)
            if (op->regions[i] != NULL)
                mark_graph(p, op->regions[i]);
    }
}

// ---- values ----

/// Gives the value its name in the text: its own, when that is a bare word and the first of its
/// kind in the graph, else the next number.
static void number_value(printer *p, pm_map *names, const pm_value *value)
{
    if (value->id >= p->n_values)
        return;
    if (is_bare(value->name)) {
        void **at = pm_map_at(names, value->name, strlen(value->name));
        if (*at == NULL) {
            *at = p;
            p->numbers[value->id] = BY_NAME;
            return;
        }
    }
    p->numbers[value->id] = p->next_number++;
}

static void number_graph(printer *p, const pm_graph *g)
{
    pm_map names;
    pm_map_init(&names, p->scratch);
    for (size_t i = 0; i < g->args.n; i++)
        number_value(p, &names, g->args.data[i]);
    for (const pm_op *op = g->first; op != NULL; op = op->next) {
        for (uint32_t i = 0; i < op->n_results; i++)
            number_value(p, &names, op->results[i]);
        for (uint32_t i = 0; i < op->n_regions; i++)
            if (op->regions[i] != NULL)
                number_graph(p, op->regions[i]);
    }
}

static void put_value(printer *p, const pm_value *value)
{
    if (value == NULL) {
        put(p, "_");
        return;
    }
    uint32_t number = value->id < p->n_values ? p->numbers[value->id] : UNNAMED;
    if (number == BY_NAME)
        fprintf(p->out, "%%%s", value->name);
    else if (number == UNNAMED)
        fprintf(p->out, "%%?%" PRIu32, value->id); // broken: defined nowhere that was printed
    else
        fprintf(p->out, "%%%" PRIu32, number);
}

/// The value where it is defined: with its own name when the text goes by another.
static void put_definition(printer *p, const pm_value *value)
{
    put_value(p, value);
    bool is_named = value->id < p->n_values && p->numbers[value->id] == BY_NAME;
    if (!is_named && value->name != NULL) {
        put(p, " ");
        put_string(p, value->name);
    }
}

static void put_place(printer *p, pm_place place)
{
    static const char *const names[] = {
        [PM_PLACE_ARENA] = "arena",   [PM_PLACE_DYNAMIC] = "dynamic", [PM_PLACE_INPUT] = "input",
        [PM_PLACE_OUTPUT] = "output", [PM_PLACE_STATE] = "state",     [PM_PLACE_WEIGHT] = "weight",
        [PM_PLACE_ALIAS] = "alias",   [PM_PLACE_LOCAL] = "local",     [PM_PLACE_RESULT] = "result",
    };
    if (place.kind == PM_PLACE_NONE)
        return;
    fprintf(p->out, " @ %s(", names[place.kind]);
    // an arena place is known by its offset, every other by its index
    if (place.kind != PM_PLACE_ARENA || place.index != 0)
        fprintf(p->out, "%" PRIu32, place.index);
    if (place.kind == PM_PLACE_ARENA || place.offset != PM_DIM_NONE) {
        if (place.kind != PM_PLACE_ARENA || place.index != 0)
            put(p, ", ");
        put_dim(p, place.offset);
    }
    put(p, ")");
}

// ---- attributes ----

static void put_hex(printer *p, const uint8_t *bytes, uint64_t size)
{
    static const char digits[] = "0123456789abcdef";
    put(p, "hex(");
    for (uint64_t i = 0; i < size; i++) {
        if (i % HEX_LINE == 0) {
            if (i > 0) {
                put(p, "\"\n");
                put_line_start(p);
                put(p, "    ");
            }
            put(p, "\"");
        }
        fputc(digits[bytes[i] >> 4], p->out);
        fputc(digits[bytes[i] & 15], p->out);
    }
    put(p, size > 0 ? "\")" : ")");
}

/// Bytes of a constant; `type` NULL: of a blob.
static void put_data(printer *p, const pm_data *data, const pm_type *type)
{
    if (data == NULL) {
        put(p, "?");
        return;
    }
    if (data->bytes == NULL && data->file != NULL) {
        put(p, "file(");
        put_string(p, data->file->path);
        fprintf(p->out, ", %" PRIu64 ", %" PRIu64 ")", data->offset, data->size);
        return;
    }
    uint32_t width = type != NULL && type->layout == NULL ? pm_elem_size(type->elem) : 0;
    if (width == 0 || data->size % width != 0) {
        put_hex(p, data->bytes, data->size);
        return;
    }
    char text[PM_NUMBER_TEXT];
    uint64_t n = data->size / width;
    bool is_splat = n > MAX_LIST && data->size <= PM_MAX_SPLAT - p->splat_bytes &&
                    memcmp(data->bytes, data->bytes + width, data->size - width) == 0;
    if (n > MAX_LIST && !is_splat) {
        put_hex(p, data->bytes, data->size);
        return;
    }
    p->splat_bytes += is_splat ? data->size : 0;
    put(p, is_splat ? "splat(" : "[");
    for (uint64_t i = 0; i < (is_splat ? 1 : n); i++) {
        pm_elem_to_text(type->elem, data->bytes + i * width, text);
        put(p, i > 0 ? ", " : "");
        put(p, text);
    }
    put(p, is_splat ? ")" : "]");
}

static void put_attr_value(printer *p, const pm_op *op, const pm_attr *attr)
{
    char text[PM_NUMBER_TEXT];
    switch (attr->kind) {
    case PM_ATTR_I64: fprintf(p->out, "%" PRId64, attr->i); return;
    case PM_ATTR_F64:
        pm_f64_to_text(attr->f, text);
        put(p, text);
        return;
    case PM_ATTR_STR: put_string(p, attr->s); return;
    case PM_ATTR_BOOL: put(p, attr->i ? "true" : "false"); return;
    case PM_ATTR_ELEM: put(p, pm_elem_name((pm_elem)attr->i)); return;
    case PM_ATTR_INTS:
        put(p, "[");
        for (size_t i = 0; i < attr->n; i++)
            fprintf(p->out, "%s%" PRId64, i > 0 ? ", " : "", attr->ints[i]);
        put(p, "]");
        return;
    case PM_ATTR_FLOATS:
        put(p, "[");
        for (size_t i = 0; i < attr->n; i++) {
            pm_f64_to_text(attr->floats[i], text);
            fprintf(p->out, "%s%s", i > 0 ? ", " : "", text);
        }
        put(p, "]");
        return;
    case PM_ATTR_DATA: put_data(p, attr->data, op->results[0]->type); return;
    }
}

static bool same_double(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/// Whether the attribute has its default value, so that the text can do without it.
static bool is_default(const pm_attr *attr, const pm_attr_decl *decls, size_t n_decls)
{
    for (size_t i = 0; i < n_decls; i++) {
        if (strcmp(decls[i].key, attr->key) != 0)
            continue;
        const pm_attr *def = &decls[i].def;
        if (!decls[i].has_default)
            return false;
        switch (attr->kind) {
        case PM_ATTR_I64:
        case PM_ATTR_BOOL:
        case PM_ATTR_ELEM: return attr->i == def->i;
        case PM_ATTR_F64: return same_double(attr->f, def->f);
        case PM_ATTR_STR: return strcmp(attr->s, def->s) == 0;
        default: return false;
        }
    }
    return false;
}

static void put_attrs(printer *p, const pm_op *op)
{
    pm_attr_decl decls[PM_MAX_ATTRS];
    size_t n_decls = pm_op_attr_decls(op->code, decls);
    bool is_first = true;
    for (uint32_t i = 0; i < op->n_attrs; i++) {
        if (!op->attrs[i].present || is_default(&op->attrs[i], decls, n_decls))
            continue;
        fprintf(p->out, "%s%s = ", is_first ? " {" : ", ", op->attrs[i].key);
        put_attr_value(p, op, &op->attrs[i]);
        is_first = false;
    }
    put(p, is_first ? "" : "}");
}

// ---- locations ----

static void put_loc(printer *p, const pm_loc *loc)
{
    put(p, " loc(");
    for (int step = 0; loc != NULL && step < PM_MAX_LOC_CHAIN; step++, loc = loc->from) {
        if (step > 0)
            put(p, " <- ");
        if (loc->file != NULL)
            put_string(p, loc->file);
        else
            put(p, "_");
        if (loc->line != 0 || loc->col != 0)
            fprintf(p->out, ":%" PRIu32 ":%" PRIu32, loc->line, loc->col);
        if (loc->has_offset)
            fprintf(p->out, " @ %" PRIu64, loc->offset);
        if (loc->name != NULL) {
            put(p, " ");
            if (loc->what == NULL)
                put(p, "_");
            else if (strcmp(loc->what, "by") == 0)
                put_string(p, loc->what);
            else
                put_name(p, loc->what);
            put(p, " ");
            put_string(p, loc->name);
        }
        if (loc->detail != NULL) {
            put(p, " (");
            put_string(p, loc->detail);
            put(p, ")");
        }
        if (loc->by != NULL) {
            put(p, " by ");
            put_string(p, loc->by);
        }
    }
    put(p, ")");
}

// ---- graphs ----

static void put_graph(printer *p, const pm_graph *g);

static void put_device(printer *p, const char *device)
{
    if (device == NULL)
        return;
    put(p, " on ");
    put_name(p, device);
}

static void put_op_head(printer *p, const pm_op *op)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        put(p, i > 0 ? ", " : "");
        put_definition(p, op->results[i]);
    }
    if (op->n_results > 0)
        put(p, " = ");
    put(p, pm_op_info_of(op)->name);
    if (has_content_in_text(op)) {
        put(p, " [");
        for (int64_t i = 0; i < content_size(p->module, op->results[0]); i++) {
            put(p, i > 0 ? ", " : "");
            put_dim(p, op->results[0]->content[i]);
        }
        put(p, "]");
    }
    if (op->n_operands > 0) {
        put(p, "(");
        for (uint32_t i = 0; i < op->n_operands; i++) {
            put(p, i > 0 ? ", " : "");
            put_value(p, op->operands[i]);
        }
        put(p, ")");
    }
    put_attrs(p, op);
    put_device(p, op->device);
}

static void put_op(printer *p, const pm_op *op)
{
    put_line_start(p);
    put_op_head(p, op);
    for (uint32_t i = 0; i < op->n_results; i++) {
        put(p, i > 0 ? ", " : " : ");
        put_type(p, op->results[i]->type);
        put_place(p, op->results[i]->place);
    }
    if (op->loc != NULL)
        put_loc(p, op->loc);
    if (op->n_regions > 0) {
        put(p, " regions {\n");
        p->indent++;
        for (uint32_t i = 0; i < op->n_regions; i++) {
            put_line_start(p);
            if (op->regions[i] != NULL)
                put_graph(p, op->regions[i]);
            else
                put(p, "?\n");
        }
        p->indent--;
        put_line_start(p);
        put(p, "}");
    }
    put(p, "\n");
}

static void put_state_ref(printer *p, int32_t state)
{
    if (state < 0)
        return;
    put(p, " state ");
    if ((size_t)state < p->module->states.n)
        put_string(p, p->module->states.data[state].name);
    else
        put(p, "?");
}

static void put_signature(printer *p, const pm_graph *g)
{
    put(p, "(");
    for (size_t i = 0; i < g->args.n; i++) {
        put(p, i > 0 ? ", " : "");
        put_definition(p, g->args.data[i]);
        put(p, ": ");
        put_type(p, g->args.data[i]->type);
        if (i < g->arg_states.n)
            put_state_ref(p, g->arg_states.data[i]);
        put_place(p, g->args.data[i]->place);
    }
    put(p, ") -> (");
    for (size_t i = 0; i < g->results.n; i++) {
        put(p, i > 0 ? ", " : "");
        const char *name = i < g->result_names.n ? g->result_names.data[i] : NULL;
        if (name != NULL) {
            put_name(p, name);
            put(p, ": ");
        }
        put_value(p, g->results.data[i]);
        if (i < g->result_states.n)
            put_state_ref(p, g->result_states.data[i]);
    }
    put(p, ")");
    if (g->arena_bytes != PM_DIM_NONE || g->n_dynamic != 0) {
        put(p, " plan(");
        if (g->arena_bytes != PM_DIM_NONE) {
            put(p, "arena = ");
            put_dim(p, g->arena_bytes);
            for (size_t i = 0; i < g->device_arenas.n; i++) {
                put(p, ", arena ");
                put_name(p, g->device_arenas.data[i].device);
                put(p, " = ");
                put_dim(p, g->device_arenas.data[i].bytes);
            }
            put(p, g->n_dynamic != 0 ? ", " : "");
        }
        if (g->n_dynamic != 0)
            fprintf(p->out, "dynamic = %" PRIu32, g->n_dynamic);
        put(p, ")");
    }
}

static void put_graph(printer *p, const pm_graph *g)
{
    if (g->parent == NULL) {
        put(p, "entry ");
        put_name(p, g->name);
    } else if (g->name != NULL) {
        put(p, "region ");
        put_name(p, g->name);
    }
    put_signature(p, g);
    put(p, " {\n");
    p->indent++;
    for (const pm_op *op = g->first; op != NULL; op = op->next)
        put_op(p, op);
    p->indent--;
    put_line_start(p);
    put(p, "}\n");
}

// ---- the module ----

static void put_symbol(printer *p, const pm_symbol *symbol)
{
    put_line_start(p);
    put(p, "symbol ");
    put_name(p, symbol->name);
    put(p, symbol->data_dependent ? " dynamic in [" : " in [");
    if (symbol->lo == INT64_MIN)
        put(p, "-inf");
    else
        fprintf(p->out, "%" PRId64, symbol->lo);
    if (symbol->hi == INT64_MAX)
        put(p, ", inf]");
    else
        fprintf(p->out, ", %" PRId64 "]", symbol->hi);
    if (symbol->bound != PM_DIM_NONE) {
        put(p, " <= ");
        put_dim(p, symbol->bound);
    }
    put(p, "\n");
}

static void put_header(printer *p)
{
    const pm_module *m = p->module;
    for (size_t i = 0; i < m->symbols.n; i++)
        if (p->is_used[i])
            put_symbol(p, &m->symbols.data[i]);
    for (size_t i = 0; i < m->meta.n; i++) {
        put_line_start(p);
        put(p, "meta ");
        put_string(p, m->meta.entries[i].key);
        put(p, " = ");
        put_string(p, m->meta.entries[i].value);
        put(p, "\n");
    }
    for (size_t i = 0; i < m->blobs.n; i++) {
        put_line_start(p);
        put(p, "blob ");
        put_string(p, m->blobs.entries[i].key);
        put(p, " = ");
        put_data(p, m->blobs.entries[i].value, NULL);
        put(p, "\n");
    }
    for (size_t i = 0; i < m->states.n; i++) {
        put_line_start(p);
        put(p, "state ");
        put_string(p, m->states.data[i].name);
        put(p, " : ");
        put_type(p, m->states.data[i].type);
        put_device(p, m->states.data[i].device);
        put(p, "\n");
    }
}

static printer printer_start(const pm_module *m, FILE *out)
{
    printer p = {.out = out, .module = m, .scratch = pm_arena_create(), .n_values = m->next_value};
    if (p.scratch == NULL) {
        fputs("pimoe: out of memory\n", stderr);
        exit(pm_exit_code(PM_ERR_NO_MEMORY));
    }
    p.numbers = PM_NEW_ARRAY(p.scratch, uint32_t, m->next_value);
    memset(p.numbers, 0xff, m->next_value * sizeof *p.numbers);
    p.is_used = PM_NEW_ARRAY(p.scratch, bool, m->symbols.n);
    pm_map_init(&p.seen_dims, p.scratch);
    pm_map_init(&p.dim_texts, p.scratch);
    return p;
}

void pm_module_print(const pm_module *m, FILE *out)
{
    printer p = printer_start(m, out);
    for (size_t i = 0; i < m->states.n; i++)
        mark_type(&p, m->states.data[i].type);
    for (size_t i = 0; i < m->entries.n; i++)
        mark_graph(&p, m->entries.data[i]);
    put(&p, "module ");
    put_string(&p, m->name == NULL ? "" : m->name);
    put(&p, " {\n");
    p.indent = 1;
    put_header(&p);
    for (size_t i = 0; i < m->entries.n; i++) {
        p.next_number = 0;
        number_graph(&p, m->entries.data[i]);
        put_line_start(&p);
        put_graph(&p, m->entries.data[i]);
    }
    put(&p, "}\n");
    pm_arena_destroy(p.scratch);
}

void pm_graph_print(const pm_graph *g, FILE *out)
{
    printer p = printer_start(g->module, out);
    number_graph(&p, g);
    put_graph(&p, g);
    pm_arena_destroy(p.scratch);
}
