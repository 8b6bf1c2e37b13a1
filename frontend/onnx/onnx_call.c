/* What handlers share: small builders, checks of axes, expressions. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "frontend/onnx/onnx_import.h"
#include "ir/op_table.h"

pm_status pm_onnx_error(pm_onnx_call *call, pm_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = pm_arena_vprintf(call->onnx->temp, fmt, ap);
    va_end(ap);
    return pm_error(call->onnx->diag, call->b.loc, code, "%s", text);
}

pm_status pm_onnx_build(pm_onnx_call *call, pm_value **out, pm_opcode code,
                        pm_value *const *operands, size_t n_operands, const pm_attr *attrs,
                        size_t n_attrs)
{
    return pm_build1(&call->b, out, code, operands, n_operands, attrs, n_attrs);
}

pm_status pm_onnx_scalar(pm_onnx_call *call, pm_elem elem, double value, pm_value **out)
{
    float f32 = (float)value;
    if (elem == PM_F32)
        return pm_build_const_f32(&call->b, 0, NULL, &f32, out);
    if (!pm_elem_is_float(elem)) {
        if (!(value >= -0x1p63 && value < 0x1p63))
            return pm_onnx_error(call, PM_ERR_INVALID, "%g is not a value of %s", value,
                                 pm_elem_name(elem));
        int64_t integer = (int64_t)value;
        return pm_build_const_ints(&call->b, elem, 0, NULL, &integer, out);
    }
    if (elem == PM_F64) {
        double *bytes = PM_NEW(call->onnx->module->arena, double);
        *bytes = value;
        const pm_type *type = pm_type_get(call->onnx->module, PM_F64, 0, NULL);
        pm_data data = {.size = sizeof *bytes, .bytes = (const uint8_t *)bytes};
        return pm_build_const(&call->b, type, &data, NULL, out);
    }
    pm_value *wide;
    PM_TRY(pm_build_const_f32(&call->b, 0, NULL, &f32, &wide));
    return pm_onnx_cast(call, wide, elem, out);
}

pm_status pm_onnx_vector(pm_onnx_call *call, const int64_t *values, size_t n, pm_value **out)
{
    const int64_t dims[] = {(int64_t)n};
    return pm_build_const_ints(&call->b, PM_I64, 1, dims, values, out);
}

pm_status pm_onnx_ints(pm_onnx_call *call, pm_value *value, const char *what, const int64_t **out,
                       size_t *out_n)
{
    pm_module *m = call->onnx->module;
    if (value->type->elem != PM_I64 && value->type->elem != PM_I32)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s must be integers, but are %s", what,
                             pm_elem_name(value->type->elem));
    if (value->type->rank > 1)
        return pm_onnx_error(call, PM_ERR_INVALID, "%s must be a vector, but have rank %" PRId32,
                             what, value->type->rank);
    int64_t n = 0;
    if (!pm_type_const_count(m, value->type, &n))
        n = -1;
    if (n > PM_ONNX_MAX_ELEMS)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "%s have %" PRId64 " elements", what, n);
    int64_t *ints = PM_NEW_ARRAY(call->onnx->temp, int64_t, n < 0 ? 0 : (size_t)n);
    bool known = n == 0 || (n > 0 && pm_value_const_ints(value, ints, (size_t)n, out_n));
    if (!known && n > 0 && value->content) {
        known = true;
        for (int64_t i = 0; i < n && known; i++)
            known = pm_dim_is_const(m, value->content[i], &ints[i]);
    }
    if (!known)
        return pm_onnx_error(call, PM_ERR_UNSUPPORTED,
                             "%s are computed when the model runs; they must be known before",
                             what);
    *out = ints;
    *out_n = (size_t)n;
    return PM_OK;
}

pm_status pm_onnx_axis(pm_onnx_call *call, int64_t axis, int64_t rank, int64_t *out)
{
    if (axis < -rank || axis >= rank)
        return pm_onnx_error(call, PM_ERR_INVALID, "axis %" PRId64 " is not within rank %" PRId64,
                             axis, rank);
    *out = axis < 0 ? axis + rank : axis;
    return PM_OK;
}

pm_status pm_onnx_axes(pm_onnx_call *call, const int64_t *axes, size_t n, int64_t rank,
                       int64_t *out)
{
    if (n > (size_t)rank)
        return pm_onnx_error(call, PM_ERR_INVALID, "%zu axes for rank %" PRId64, n, rank);
    for (size_t i = 0; i < n; i++) {
        int64_t axis;
        PM_TRY(pm_onnx_axis(call, axes[i], rank, &axis));
        size_t k = i;
        for (; k > 0 && out[k - 1] > axis; k--)
            out[k] = out[k - 1];
        if (k > 0 && out[k - 1] == axis)
            return pm_onnx_error(call, PM_ERR_INVALID, "axis %" PRId64 " is given twice", axis);
        out[k] = axis;
    }
    return PM_OK;
}

pm_status pm_onnx_cast(pm_onnx_call *call, pm_value *x, pm_elem elem, pm_value **out)
{
    *out = x;
    if (x->type->elem == elem)
        return PM_OK;
    return pm_onnx_build(call, out, PM_OP_cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", elem)));
}

pm_status pm_onnx_transpose(pm_onnx_call *call, pm_value *x, const int64_t *perm, pm_value **out)
{
    *out = x;
    bool identity = true;
    for (int32_t i = 0; i < x->type->rank; i++)
        identity &= perm[i] == i;
    if (identity)
        return PM_OK;
    return pm_onnx_build(call, out, PM_OP_transpose, PM_OPERANDS(x),
                         PM_ATTRS(pm_attr_ints("perm", perm, (size_t)x->type->rank)));
}

pm_status pm_onnx_slice(pm_onnx_call *call, pm_value *x, int64_t axis, int64_t start, int64_t end,
                        pm_value **out)
{
    pm_value *starts, *ends, *axes;
    PM_TRY(pm_onnx_vector(call, &start, 1, &starts));
    PM_TRY(pm_onnx_vector(call, &end, 1, &ends));
    PM_TRY(pm_onnx_vector(call, &axis, 1, &axes));
    return pm_onnx_build(call, out, PM_OP_slice, PM_OPERANDS(x, starts, ends, axes), PM_NO_ATTRS);
}

/* ---- the handlers that are data alone ---- */

static pm_attr ir_attr(const pm_onnx_decl *decl, const pm_onnx_attr *value)
{
    switch (decl->kind) {
    case PM_ONNX_INT: return pm_attr_i64(decl->ir, value->i);
    case PM_ONNX_BOOL: return pm_attr_bool(decl->ir, value->i != 0);
    case PM_ONNX_ELEM: return pm_attr_elem(decl->ir, (pm_elem)value->i);
    case PM_ONNX_FLOAT: return pm_attr_f64(decl->ir, value->f);
    case PM_ONNX_STR: return pm_attr_str(decl->ir, value->s);
    case PM_ONNX_INTS: return pm_attr_ints(decl->ir, value->ints, value->n);
    case PM_ONNX_FLOATS: return pm_attr_floats(decl->ir, value->floats, value->n);
    default: break;
    }
    PM_ASSERT(!"attribute of a kind that the IR doesn't have");
    return (pm_attr){0};
}

pm_onnx_handler pm_onnx_do_map, pm_onnx_do_expr, pm_onnx_do_refuse;

pm_status pm_onnx_do_map(pm_onnx_call *call)
{
    pm_attr attrs[PM_ONNX_MAX_ATTRS];
    size_t n_attrs = 0;
    for (size_t i = 0; i < call->n_decls; i++) {
        if (*call->decls[i].ir && call->attrs[i].present)
            attrs[n_attrs++] = ir_attr(&call->decls[i], &call->attrs[i]);
    }
    pm_op *op;
    PM_TRY(
        pm_build(&call->b, (pm_opcode)call->row->op, call->in, call->n_in, attrs, n_attrs, 0, &op));
    for (size_t i = 0; i < call->n_out && i < op->n_results; i++)
        call->out[i] = op->results[i];
    return PM_OK;
}

pm_status pm_onnx_do_refuse(pm_onnx_call *call)
{
    return pm_onnx_error(call, PM_ERR_UNSUPPORTED, "is not supported: %s", call->row->text);
}

/* Expressions are our own text, in onnx_ops.def: recursion and assertions are in order. */
typedef struct expr {
    pm_onnx_call *call;
    const char *at;
    pm_value *const *args;
    pm_elem elem; ///< of numbers
} expr;

static pm_status parse_expr(expr *e, pm_value **out);

static pm_status parse_name(expr *e, char *name, size_t size)
{
    size_t n = strspn(e->at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    PM_ASSERT(n > 0 && n < size);
    memcpy(name, e->at, n);
    name[n] = 0;
    e->at += n;
    return PM_OK;
}

static pm_status parse_call(expr *e, const char *name, pm_value **out)
{
    pm_opcode code;
    PM_ASSERT(pm_opcode_parse(name, &code));
    pm_value *operands[3];
    size_t n = 0;
    do {
        e->at++;
        PM_ASSERT(n < PM_COUNT(operands));
        PM_TRY(parse_expr(e, &operands[n++]));
    } while (*e->at == ',');
    PM_ASSERT(*e->at == ')');
    e->at++;
    return pm_onnx_build(e->call, out, code, operands, n, PM_NO_ATTRS);
}

static pm_status parse_expr(expr *e, pm_value **out)
{
    e->at += strspn(e->at, " ");
    if (*e->at >= '0' && *e->at <= '9') {
        char *end;
        double number = strtod(e->at, &end);
        e->at = end;
        return pm_onnx_scalar(e->call, e->elem, number, out);
    }
    char name[32];
    bool is_attr = *e->at == '$';
    e->at += is_attr;
    PM_TRY(parse_name(e, name, sizeof name));
    if (is_attr)
        return pm_onnx_scalar(e->call, e->elem, pm_onnx_attr_of(e->call, name)->f, out);
    if (*e->at == '(')
        return parse_call(e, name, out);
    PM_ASSERT(name[0] >= 'x' && name[0] <= 'z' && !name[1]);
    *out = e->args[name[0] - 'x'];
    return PM_OK;
}

pm_status pm_onnx_expr(pm_onnx_call *call, const char *text, pm_value *const *args, pm_value **out)
{
    expr e = {.call = call, .at = text, .args = args, .elem = args[0]->type->elem};
    return parse_expr(&e, out);
}

/* Of halves the steps between are in f32, as they are where the operator is one function. */
pm_status pm_onnx_do_expr(pm_onnx_call *call)
{
    pm_elem elem = call->in[0]->type->elem;
    if (elem != PM_F16 && elem != PM_BF16)
        return pm_onnx_expr(call, call->row->text, call->in, &call->out[0]);
    pm_value *wide[3] = {NULL}, *x;
    for (size_t i = 0; i < call->n_in && i < PM_COUNT(wide); i++)
        PM_TRY(pm_onnx_cast(call, call->in[i], PM_F32, &wide[i]));
    PM_TRY(pm_onnx_expr(call, call->row->text, wide, &x));
    return pm_onnx_cast(call, x, x->type->elem == PM_F32 ? elem : x->type->elem, &call->out[0]);
}

/* ---- checks of inputs ---- */

pm_value *pm_onnx_input(const pm_onnx_call *call, int i)
{
    return i >= 0 && (size_t)i < call->n_in ? call->in[i] : NULL;
}

int64_t pm_onnx_extent(const pm_onnx_call *call, const pm_value *v, int32_t i)
{
    int64_t n = 0;
    (void)pm_dim_is_const(call->onnx->module, v->type->dims[i], &n);
    return n;
}

pm_status pm_onnx_wrong_shape(pm_onnx_call *call, int i, const char *what, const char *must)
{
    return pm_onnx_error(call, PM_ERR_INVALID, "%s '%s' is %s, must be %s", what, call->node->input[i],
                         pm_type_text(call->onnx->module, call->in[i]->type), must);
}

pm_status pm_onnx_check_elem(pm_onnx_call *call, int i, const char *what, int like)
{
    pm_elem elem = call->in[like]->type->elem;
    if (!pm_onnx_input(call, i) || call->in[i]->type->elem == elem)
        return PM_OK;
    return pm_onnx_wrong_shape(call, i, what, pm_arena_printf(call->onnx->temp, "%s, as '%s' is", pm_elem_name(elem),
                                                              call->node->input[like]));
}

pm_status pm_onnx_check_shape(pm_onnx_call *call, int i, const char *what, int32_t rank,
                              const int64_t *dims)
{
    const pm_type *type = call->in[i]->type;
    pm_str text = pm_str_new(call->onnx->temp);
    bool fits = type->rank == rank;
    for (int32_t d = 0; d < rank; d++) {
        int64_t n;
        fits = fits && pm_dim_is_const(call->onnx->module, type->dims[d], &n) &&
               (dims[d] < 0 || n == dims[d]);
        if (dims[d] < 0)
            pm_str_printf(&text, "%s?", d ? ", " : "");
        else
            pm_str_printf(&text, "%s%" PRId64, d ? ", " : "", dims[d]);
    }
    return fits ? PM_OK
                : pm_onnx_wrong_shape(call, i, what,
                                      pm_arena_printf(call->onnx->temp, "of extents [%s]", text.data));
}
