/// Attributes: the declarations of ops.def parsed, given ones matched to them, and access.
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "ir/interner.h"
#include "ir/op_table.h"

static const char *const kind_names[] = {
    [PM_ATTR_I64] = "i64",       [PM_ATTR_F64] = "f64",   [PM_ATTR_STR] = "str",
    [PM_ATTR_BOOL] = "bool",     [PM_ATTR_ELEM] = "elem", [PM_ATTR_INTS] = "ints",
    [PM_ATTR_FLOATS] = "floats", [PM_ATTR_DATA] = "data",
};

const char *pm_attr_kind_name(pm_attr_kind kind)
{
    return kind_names[kind];
}

/* ---- declarations ---------------------------------------------------------------------------- */

/// All declarations, parsed once per process from the table's own text.
static struct {
    pm_attr_decl decls[PM_OP_COUNT][PM_MAX_ATTRS];
    size_t n[PM_OP_COUNT];
    char text[16384]; ///< keys and defaults, NUL-terminated
    size_t used;
} declared;
static pthread_once_t declared_once = PTHREAD_ONCE_INIT;

static const char *keep(const char *text, size_t n)
{
    PM_ASSERT(declared.used + n + 1 <= sizeof declared.text);
    char *copy = declared.text + declared.used;
    memcpy(copy, text, n);
    copy[n] = 0;
    declared.used += n + 1;
    return copy;
}

static pm_attr_kind parse_kind(const char *text, size_t n)
{
    for (size_t i = 0; i < PM_COUNT(kind_names); i++)
        if (strlen(kind_names[i]) == n && memcmp(kind_names[i], text, n) == 0)
            return (pm_attr_kind)i;
    pm_assert_failed("unknown attribute kind in ops.def", text, 0);
}

static void parse_default(pm_attr_decl *decl, const char *text)
{
    pm_attr *def = &decl->def;
    def->present = true;
    switch (decl->kind) {
    case PM_ATTR_I64: def->i = strtoll(text, NULL, 10); break;
    case PM_ATTR_F64: def->f = strtod(text, NULL); break;
    case PM_ATTR_STR: def->s = text; break;
    case PM_ATTR_BOOL: def->i = strcmp(text, "true") == 0; break;
    case PM_ATTR_ELEM: {
        pm_elem elem = PM_F32;
        bool known = pm_elem_parse(text, &elem);
        PM_ASSERT(known);
        def->i = elem;
        break;
    }
    case PM_ATTR_INTS:
    case PM_ATTR_FLOATS:
    case PM_ATTR_DATA: PM_ASSERT(!"lists and data have no default but ?");
    }
}

/// One `key:kind[=default]`, from text to end.
static void parse_decl(const char *text, const char *end, pm_attr_decl *out)
{
    const char *colon = memchr(text, ':', (size_t)(end - text));
    PM_ASSERT(colon != NULL);
    const char *equals = memchr(colon, '=', (size_t)(end - colon));
    const char *kind_end = equals ? equals : end;
    out->key = keep(text, (size_t)(colon - text));
    out->kind = parse_kind(colon + 1, (size_t)(kind_end - colon - 1));
    out->def = (pm_attr){.key = out->key, .kind = out->kind};
    out->required = equals == NULL;
    if (equals && !(end - equals == 2 && equals[1] == '?')) {
        out->has_default = true;
        parse_default(out, keep(equals + 1, (size_t)(end - equals - 1)));
    }
}

static void parse_all(void)
{
    for (int code = 0; code < PM_OP_COUNT; code++) {
        const char *text = pm_op_table[code].attr_text;
        while (*text) {
            const char *end = text + strcspn(text, ",");
            PM_ASSERT(declared.n[code] < PM_MAX_ATTRS);
            parse_decl(text, end, &declared.decls[code][declared.n[code]++]);
            text = end + strspn(end, ", ");
        }
    }
}

/// The parsed list of an op, not copied.
static const pm_attr_decl *decls_of(pm_opcode code, size_t *out_n)
{
    PM_ASSERT((unsigned)code < PM_OP_COUNT);
    pthread_once(&declared_once, parse_all);
    *out_n = declared.n[code];
    return declared.decls[code];
}

size_t pm_op_attr_decls(pm_opcode code, pm_attr_decl *out)
{
    size_t n;
    const pm_attr_decl *decls = decls_of(code, &n);
    memcpy(out, decls, n * sizeof *out);
    return n;
}

/* ---- matching -------------------------------------------------------------------------------- */

static pm_status unknown_attr(pm_module *m, const pm_loc *loc, pm_opcode code, const char *key)
{
    size_t n;
    const pm_attr_decl *decls = decls_of(code, &n);
    const char *names[PM_MAX_ATTRS];
    for (size_t i = 0; i < n; i++)
        names[i] = decls[i].key;
    const char *nearest = pm_nearest(key, names, n);
    if (nearest)
        return pm_error(m->diag, loc, PM_ERR_INVALID,
                        "%s has no attribute '%s'; did you mean '%s'?", pm_op_table[code].name, key,
                        nearest);
    return pm_error(m->diag, loc, PM_ERR_INVALID, "%s has no attribute '%s'%s%s",
                    pm_op_table[code].name, key, n ? "; its attributes: " : "; it has none",
                    pm_op_table[code].attr_text);
}

/// Converts where no information is lost; false when the kind is wrong.
static bool coerce(pm_module *m, pm_attr *attr, pm_attr_kind kind)
{
    if (attr->kind == kind)
        return true;
    bool list = attr->kind == PM_ATTR_INTS || attr->kind == PM_ATTR_FLOATS;
    bool exact = attr->i >= -(INT64_C(1) << 53) && attr->i <= INT64_C(1) << 53;
    if (attr->kind == PM_ATTR_I64 && kind == PM_ATTR_F64 && exact) {
        attr->f = (double)attr->i;
    } else if (attr->kind == PM_ATTR_I64 && kind == PM_ATTR_BOOL &&
               (attr->i == 0 || attr->i == 1)) {
        // as it is
    } else if (list && attr->n == 0 && (kind == PM_ATTR_INTS || kind == PM_ATTR_FLOATS)) {
        // an empty list is of either kind
    } else if (attr->kind == PM_ATTR_INTS && kind == PM_ATTR_FLOATS) {
        double *floats = PM_NEW_ARRAY(m->arena, double, attr->n);
        for (size_t i = 0; i < attr->n; i++)
            floats[i] = (double)attr->ints[i];
        attr->floats = floats;
        attr->ints = NULL;
    } else {
        return false;
    }
    attr->kind = kind;
    return true;
}

/// Copies what the caller owns into the module.
static void adopt(pm_module *m, pm_attr *attr, const char *key)
{
    attr->key = pm_intern(m, key);
    attr->present = true;
    if (attr->kind == PM_ATTR_STR)
        attr->s = pm_intern(m, attr->s);
    if (attr->kind == PM_ATTR_DATA) {
        pm_data *data = PM_NEW(m->arena, pm_data);
        *data = *attr->data;
        attr->data = data;
    }
    if (attr->kind == PM_ATTR_INTS) {
        int64_t *ints = PM_NEW_ARRAY(m->arena, int64_t, attr->n);
        if (attr->n)
            memcpy(ints, attr->ints, attr->n * sizeof *ints);
        attr->ints = ints;
    }
    if (attr->kind == PM_ATTR_FLOATS) {
        double *floats = PM_NEW_ARRAY(m->arena, double, attr->n);
        if (attr->n)
            memcpy(floats, attr->floats, attr->n * sizeof *floats);
        attr->floats = floats;
    }
}

pm_status pm_attrs_fill(pm_module *m, const pm_loc *loc, pm_opcode code, const pm_attr *attrs,
                        size_t n_attrs, pm_attr **out_attrs, size_t *out_n)
{
    const char *op_name = pm_op_table[code].name;
    size_t n;
    const pm_attr_decl *decls = decls_of(code, &n);
    pm_attr *filled = PM_NEW_ARRAY(m->arena, pm_attr, n);
    for (size_t i = 0; i < n; i++) {
        filled[i] = decls[i].def;
        filled[i].key = pm_intern(m, decls[i].key);
        filled[i].s = pm_intern(m, decls[i].def.s);
    }
    bool given[PM_MAX_ATTRS] = {false};
    for (size_t j = 0; j < n_attrs; j++) {
        size_t i = 0;
        while (i < n && strcmp(decls[i].key, attrs[j].key) != 0)
            i++;
        if (i == n)
            return unknown_attr(m, loc, code, attrs[j].key);
        if (!attrs[j].present) // taken over from an op that was not given it
            continue;
        if (given[i])
            return pm_error(m->diag, loc, PM_ERR_INVALID, "attribute '%s' of %s is given twice",
                            decls[i].key, op_name);
        given[i] = true;
        pm_attr attr = attrs[j];
        bool empty = (attr.kind == PM_ATTR_STR && attr.s == NULL) ||
                     (attr.kind == PM_ATTR_DATA && attr.data == NULL);
        if (empty || !coerce(m, &attr, decls[i].kind))
            return pm_error(m->diag, loc, PM_ERR_INVALID,
                            "attribute '%s' of %s must be of kind %s, found %s", decls[i].key,
                            op_name, kind_names[decls[i].kind],
                            empty ? "nothing" : kind_names[attr.kind]);
        adopt(m, &attr, decls[i].key);
        filled[i] = attr;
    }
    for (size_t i = 0; i < n; i++)
        if (decls[i].required && !given[i])
            return pm_error(m->diag, loc, PM_ERR_INVALID, "%s needs the attribute '%s' (%s)",
                            op_name, decls[i].key, kind_names[decls[i].kind]);
    *out_attrs = filled;
    *out_n = n;
    return PM_OK;
}

/* ---- access ---------------------------------------------------------------------------------- */

static pm_attr *find(const pm_op *op, const char *key)
{
    for (uint32_t i = 0; i < op->n_attrs; i++)
        if (strcmp(op->attrs[i].key, key) == 0)
            return &op->attrs[i];
    pm_assert_failed("the op declares the attribute", key, (int)op->code);
}

const pm_attr *pm_op_attr(const pm_op *op, const char *key)
{
    return find(op, key);
}

int64_t pm_op_i64(const pm_op *op, const char *key)
{
    const pm_attr *attr = find(op, key);
    PM_ASSERT(attr->kind == PM_ATTR_I64 || attr->kind == PM_ATTR_BOOL ||
              attr->kind == PM_ATTR_ELEM);
    return attr->i;
}

double pm_op_f64(const pm_op *op, const char *key)
{
    const pm_attr *attr = find(op, key);
    PM_ASSERT(attr->kind == PM_ATTR_F64);
    return attr->f;
}

const char *pm_op_str(const pm_op *op, const char *key)
{
    const pm_attr *attr = find(op, key);
    PM_ASSERT(attr->kind == PM_ATTR_STR);
    return attr->s;
}

void pm_op_set_i64(pm_op *op, const char *key, int64_t value)
{
    pm_attr *attr = find(op, key);
    PM_ASSERT(attr->kind == PM_ATTR_I64 || attr->kind == PM_ATTR_BOOL ||
              attr->kind == PM_ATTR_ELEM);
    attr->i = value;
    attr->present = true;
}

void pm_op_set_str(pm_op *op, const char *key, const char *value)
{
    pm_attr *attr = find(op, key);
    PM_ASSERT(attr->kind == PM_ATTR_STR);
    attr->s = pm_intern(op->graph->module, value);
    attr->present = true;
}

void pm_op_attr_values(const pm_op *op, pm_attr_value *out)
{
    for (uint32_t i = 0; i < op->n_attrs; i++) {
        const pm_attr *attr = &op->attrs[i];
        size_t n = attr->kind == PM_ATTR_STR && attr->s ? strlen(attr->s) : attr->n;
        out[i] = (pm_attr_value){attr->i,      attr->f,    attr->s,      attr->ints,
                                 attr->floats, (int64_t)n, attr->present};
    }
}

pm_attr pm_attr_i64(const char *key, int64_t value)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_I64, .i = value, .present = true};
}

pm_attr pm_attr_f64(const char *key, double value)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_F64, .f = value, .present = true};
}

pm_attr pm_attr_bool(const char *key, bool value)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_BOOL, .i = value, .present = true};
}

pm_attr pm_attr_str(const char *key, const char *value)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_STR, .s = value, .present = true};
}

pm_attr pm_attr_elem(const char *key, pm_elem value)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_ELEM, .i = value, .present = true};
}

pm_attr pm_attr_data(const char *key, const pm_data *value)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_DATA, .data = value, .present = true};
}

pm_attr pm_attr_ints(const char *key, const int64_t *values, size_t n)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_INTS, .ints = values, .n = n, .present = true};
}

pm_attr pm_attr_floats(const char *key, const double *values, size_t n)
{
    return (pm_attr){.key = key, .kind = PM_ATTR_FLOATS, .floats = values, .n = n, .present = true};
}
