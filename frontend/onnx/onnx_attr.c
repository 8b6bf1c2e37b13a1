#include <inttypes.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"

/* AttributeProto.AttributeType */
enum {
    TYPE_FLOAT = 1,
    TYPE_INT = 2,
    TYPE_STRING = 3,
    TYPE_TENSOR = 4,
    TYPE_GRAPH = 5,
    TYPE_FLOATS = 6,
    TYPE_INTS = 7,
    TYPE_STRINGS = 8,
    TYPE_COUNT = 15,
};

static const char *const type_names[TYPE_COUNT] = {
    "UNDEFINED",      "FLOAT",      "INT",         "STRING",  "TENSOR", "GRAPH",
    "FLOATS",         "INTS",       "STRINGS",     "TENSORS", "GRAPHS", "SPARSE_TENSOR",
    "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS",
};

static const char *type_name(int32_t type)
{
    return type >= 0 && type < TYPE_COUNT ? type_names[type] : "unknown";
}

static const char *attr_name(const Onnx__Attribute *attr)
{
    return attr->name ? attr->name : "";
}

/* The attribute of the caller that a reference means: given there, or the function's default. */
static Onnx__Attribute *referred(const pm_onnx_frame *frame, const char *name)
{
    for (size_t i = 0; i < frame->n_attrs; i++) {
        if (strcmp(attr_name(frame->attrs[i]), name) == 0)
            return frame->attrs[i];
    }
    for (size_t i = 0; i < frame->function->n_attribute_proto; i++) {
        if (strcmp(attr_name(frame->function->attribute_proto[i]), name) == 0)
            return frame->function->attribute_proto[i];
    }
    return NULL;
}

static bool declares(const Onnx__Function *function, const char *name)
{
    for (size_t i = 0; i < function->n_attribute; i++) {
        if (strcmp(function->attribute[i], name) == 0)
            return true;
    }
    return false;
}

pm_status pm_onnx_resolve_attrs(pm_onnx *onnx, const pm_onnx_frame *frame, const pm_loc *loc,
                                const Onnx__Node *node, Onnx__Attribute ***out_attrs, size_t *out_n)
{
    Onnx__Attribute **attrs = PM_NEW_ARRAY(onnx->temp, Onnx__Attribute *, node->n_attribute);
    size_t n = 0;
    for (size_t i = 0; i < node->n_attribute; i++) {
        Onnx__Attribute *attr = node->attribute[i];
        if (!*attr_name(attr))
            return pm_error(onnx->diag, loc, PM_ERR_INVALID, "an attribute has no name");
        const char *ref = attr->ref_attr_name;
        if (!ref || !*ref) {
            attrs[n++] = attr;
            continue;
        }
        if (!frame->function)
            return pm_error(onnx->diag, loc, PM_ERR_INVALID,
                            "attribute '%s' refers to attribute '%s' of a function, but is in none",
                            attr->name, ref);
        Onnx__Attribute *target = referred(frame, ref);
        if (!target && !declares(frame->function, ref))
            return pm_error(onnx->diag, loc, PM_ERR_INVALID,
                            "attribute '%s' refers to '%s', which function '%s' doesn't have",
                            attr->name, ref, frame->function->name);
        if (!target)
            continue; /* declared, not given, no default: as if it weren't written here */
        Onnx__Attribute *copy = PM_NEW(onnx->temp, Onnx__Attribute);
        *copy = *target;
        copy->name = attr->name;
        attrs[n++] = copy;
    }
    *out_attrs = attrs;
    *out_n = n;
    return PM_OK;
}

/* Files of old IR versions leave the type out: then it follows from the member that is set. */
static int32_t type_of(const Onnx__Attribute *a)
{
    if (a->has_type && a->type)
        return a->type;
    return a->has_f       ? TYPE_FLOAT
           : a->has_i     ? TYPE_INT
           : a->has_s     ? TYPE_STRING
           : a->t         ? TYPE_TENSOR
           : a->g         ? TYPE_GRAPH
           : a->n_floats  ? TYPE_FLOATS
           : a->n_ints    ? TYPE_INTS
           : a->n_strings ? TYPE_STRINGS
                          : 0;
}

static pm_status read_elem(pm_onnx_call *call, const pm_onnx_decl *decl, pm_onnx_attr *out)
{
    pm_elem elem;
    if (out->i < INT32_MIN || out->i > INT32_MAX || !pm_elem_from_onnx((int32_t)out->i, &elem))
        return pm_onnx_error(
            call, PM_ERR_UNSUPPORTED,
            "attribute '%s': element type %" PRId64 " (%s) is not supported", decl->name, out->i,
            out->i > 0 && out->i < 100 ? pm_onnx_type_name((int32_t)out->i) : "unknown");
    out->i = elem;
    return PM_OK;
}

static pm_status read_value(pm_onnx_call *call, const pm_onnx_decl *decl,
                            const Onnx__Attribute *attr, pm_onnx_attr *out)
{
    static const int32_t expected[] = {
        [PM_ONNX_INT] = TYPE_INT,       [PM_ONNX_FLOAT] = TYPE_FLOAT,
        [PM_ONNX_STR] = TYPE_STRING,    [PM_ONNX_BOOL] = TYPE_INT,
        [PM_ONNX_ELEM] = TYPE_INT,      [PM_ONNX_INTS] = TYPE_INTS,
        [PM_ONNX_FLOATS] = TYPE_FLOATS, [PM_ONNX_TENSOR] = TYPE_TENSOR,
        [PM_ONNX_GRAPH] = TYPE_GRAPH,
    };
    *out = (pm_onnx_attr){.present = true, .given = true};
    if (decl->kind == PM_ONNX_STRS)
        return PM_OK;
    int32_t type = type_of(attr), want = expected[decl->kind];
    /* An empty list without a type can't be told from no value at all. */
    if (type == 0 && (want == TYPE_INTS || want == TYPE_FLOATS))
        type = want;
    if (type != want)
        return pm_onnx_error(call, PM_ERR_INVALID, "attribute '%s' is %s, must be %s", decl->name,
                             type_name(type), type_name(want));
    out->i = attr->i;
    out->f = (double)attr->f;
    out->tensor = attr->t;
    out->graph = attr->g;
    if ((want == TYPE_TENSOR && !attr->t) || (want == TYPE_GRAPH && !attr->g))
        return pm_onnx_error(call, PM_ERR_INVALID, "attribute '%s' has no value", decl->name);
    if (want == TYPE_STRING) {
        out->s = pm_arena_strndup(call->onnx->temp, (const char *)attr->s.data, attr->s.len);
        if (strlen(out->s) != attr->s.len)
            return pm_onnx_error(call, PM_ERR_INVALID, "attribute '%s' holds a NUL", decl->name);
    } else if (want == TYPE_INTS) {
        out->ints = attr->ints;
        out->n = attr->n_ints;
    } else if (want == TYPE_FLOATS) {
        double *floats = PM_NEW_ARRAY(call->onnx->temp, double, attr->n_floats);
        for (size_t i = 0; i < attr->n_floats; i++)
            floats[i] = (double)attr->floats[i];
        out->floats = floats;
        out->n = attr->n_floats;
    }
    if (decl->kind == PM_ONNX_ELEM)
        return read_elem(call, decl, out);
    if (decl->kind == PM_ONNX_BOOL && out->i != 0 && out->i != 1)
        return pm_onnx_error(call, PM_ERR_INVALID, "attribute '%s' is %" PRId64 ", must be 0 or 1",
                             decl->name, out->i);
    return PM_OK;
}

static pm_status unknown_attr(pm_onnx_call *call, const char *name)
{
    const char *names[PM_ONNX_MAX_ATTRS];
    for (size_t i = 0; i < call->n_decls; i++)
        names[i] = call->decls[i].name;
    const char *nearest = pm_nearest(name, names, call->n_decls);
    return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "unknown attribute '%s'%s%s%s", name,
                         nearest ? "; did you mean '" : "", nearest ? nearest : "",
                         nearest ? "'?" : "");
}

pm_status pm_onnx_read_attrs(pm_onnx_call *call)
{
    Onnx__Attribute **attrs;
    size_t n;
    PM_TRY(
        pm_onnx_resolve_attrs(call->onnx, call->scope->frame, call->b.loc, call->node, &attrs, &n));
    call->n_decls = pm_onnx_parse_decls(call->row->attrs, call->decls);
    for (size_t i = 0; i < call->n_decls; i++)
        call->attrs[i] = call->decls[i].def;
    for (size_t i = 0; i < n; i++) {
        size_t d = 0;
        while (d < call->n_decls && strcmp(call->decls[d].name, attrs[i]->name) != 0)
            d++;
        if (d == call->n_decls)
            return unknown_attr(call, attrs[i]->name);
        if (call->attrs[d].given)
            return pm_onnx_error(call, PM_ERR_INVALID, "attribute '%s' is given twice",
                                 attrs[i]->name);
        PM_TRY(read_value(call, &call->decls[d], attrs[i], &call->attrs[d]));
    }
    for (size_t i = 0; i < call->n_decls; i++) {
        if (call->decls[i].required && !call->attrs[i].given)
            return pm_onnx_error(call, PM_ERR_INVALID, "attribute '%s' is missing",
                                 call->decls[i].name);
    }
    return PM_OK;
}

const pm_onnx_attr *pm_onnx_attr_of(const pm_onnx_call *call, const char *name)
{
    for (size_t i = 0; i < call->n_decls; i++) {
        if (strcmp(call->decls[i].name, name) == 0)
            return &call->attrs[i];
    }
    PM_ASSERT(!"attribute that the table doesn't declare");
    return NULL;
}
