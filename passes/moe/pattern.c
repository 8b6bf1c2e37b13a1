#include "passes/moe/pattern.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "ir/extent_rules.h"
#include "ir/op_table.h"

pm_value *pm_under_views(pm_value *v)
{
    while (v->def) {
        bool view = v->def->code == PM_OP_reshape;
        bool cast = v->def->code == PM_OP_cast && pm_elem_is_float(v->type->elem) &&
                    pm_elem_is_float(v->def->operands[0]->type->elem);
        if (!view && !cast)
            break;
        v = v->def->operands[0];
    }
    return v;
}

/// The one number that a constant, or a tensor filled with it, holds.
static bool number_of(pm_module *m, pm_value *v, double *out)
{
    const uint8_t *bytes;
    int64_t count;
    v = pm_under_views(v);
    if (pm_value_is(v, PM_OP_expand))
        v = pm_under_views(v->def->operands[0]);
    if (pm_value_is(v, PM_OP_fill))
        v = v->def->operands[1];
    const pm_data *data = pm_value_const(v);
    if (!data || !pm_type_const_count(m, v->type, &count) || count < 1 || count > 4096 ||
        pm_data_bytes(m, data, &bytes) != PM_OK)
        return false;
    uint32_t size = pm_elem_size(v->type->elem);
    for (int64_t i = 1; i < count; i++)
        if (memcmp(bytes, bytes + (uint64_t)i * size, size) != 0)
            return false;
    if (v->type->elem == PM_F32) {
        float value;
        memcpy(&value, bytes, sizeof value);
        *out = value;
    } else if (v->type->elem == PM_F64) {
        memcpy(out, bytes, sizeof *out);
    } else if (pm_elem_is_float(v->type->elem)) {
        return false;
    } else {
        *out = (double)pm_data_int(bytes, v->type->elem, 0);
    }
    return true;
}

/// Whether it works along the axis `from_end` (1: the last) alone.
static bool works_along(const pm_op *op, int64_t from_end)
{
    int32_t rank = op->operands[0]->type->rank;
    int64_t axis;
    if (pm_op_info_of(op)->traits & PM_T_REDUCE) {
        const pm_attr *axes = pm_op_attr(op, "axes");
        axis = axes->n == 1 ? axes->ints[0] : -rank - 1;
    } else if (op->code == PM_OP_softmax || op->code == PM_OP_topk || op->code == PM_OP_argmax) {
        axis = pm_op_i64(op, "axis");
    } else {
        return true;
    }
    return axis == rank - from_end || axis == -from_end;
}

/// Numbers 0 and 1: what a mask is made of.
static bool are_off_and_on(pm_value *v)
{
    int64_t values[2];
    size_t n;
    if (pm_elem_is_int(v->type->elem))
        return pm_value_const_ints(v, values, 2, &n) && n == 2 && values[0] == 0 && values[1] == 1;
    const pm_data *data = pm_value_const(v);
    static const float want[2] = {0, 1};
    const uint8_t *bytes;
    return data && v->type->elem == PM_F32 && data->size == sizeof want &&
           pm_data_bytes(v->graph->module, data, &bytes) == PM_OK && memcmp(bytes, want, sizeof want) == 0;
}

/// The op as patterns mean it: attributes that they don't speak of are the usual ones.
static bool is_usual(const pm_op *op)
{
    int32_t rank = op->operands[0]->type->rank;
    switch (op->code) {
    case PM_OP_topk: return pm_op_i64(op, "largest");
    case PM_OP_softmax: return !pm_op_i64(op, "log");
    case PM_OP_argmax: return !pm_op_i64(op, "last");
    case PM_OP_scatter_elements:
        if (strcmp(pm_op_str(op, "reduction"), "none") != 0)
            return false;
        return pm_op_i64(op, "axis") == rank - 1 || pm_op_i64(op, "axis") == -1;
    case PM_OP_gather_elements:
    case PM_OP_concat: return pm_op_i64(op, "axis") == rank - 1 || pm_op_i64(op, "axis") == -1;
    case PM_OP_onehot:
        return (pm_op_i64(op, "axis") == rank || pm_op_i64(op, "axis") == -1) && are_off_and_on(op->operands[2]);
    default: return true;
    }
}

/// Operands of an elementwise op lie row by row on the result: equal extents, or 1 along the last axis; constants
/// may be broadcast as they like.
static bool rows_line_up(const pm_op *op)
{
    const pm_type *y = op->results[0]->type;
    int64_t one;
    if (!(pm_op_info_of(op)->traits & PM_T_ELEMENTWISE))
        return true;
    for (uint32_t i = 0; i < op->n_operands; i++) {
        const pm_value *v = op->operands[i];
        const pm_type *x = v->type;
        if (pm_value_const(v) || pm_value_is(v, PM_OP_fill) || pm_value_is(v, PM_OP_expand))
            continue;
        if (x->rank != y->rank)
            return false;
        for (int32_t k = 0; k < y->rank; k++)
            if (x->dims[k] != y->dims[k] &&
                !(k == y->rank - 1 && pm_dim_is_const(op->graph->module, x->dims[k], &one) && one == 1))
                return false;
    }
    return true;
}

static const char *match_at(const char *at, pm_value *v, pm_match *match);

/// Past a pattern, without matching.
static const char *skip(const char *at)
{
    int depth = 0;
    for (; *at; at++) {
        if (*at == '(')
            depth++;
        else if (*at == ')' && depth-- == 0)
            return at;
        else if (*at == ',' && depth == 0)
            return at;
    }
    return at;
}

/// The operands' patterns, in this order or the other; NULL: they don't match.
static const char *match_operands(const char *at, const pm_op *op, bool swapped, pm_match *match)
{
    for (uint32_t i = 0;; i++) {
        uint32_t k = swapped && i < 2 ? 1 - i : i;
        if (k >= op->n_operands || !op->operands[k])
            return NULL;
        at = match_at(at, op->operands[k], match);
        if (!at || (*at != ',' && *at != ')'))
            return NULL;
        if (*at++ == ')')
            return at;
        at += strspn(at, " ");
    }
}

static const char *match_op(const char *at, pm_value *v, pm_match *match)
{
    char name[24];
    uint32_t result = 0;
    pm_opcode code;
    if (*at == '%') {
        result = (uint32_t)(at[1] - '0');
        at += 2;
    }
    int64_t from_end = 1;
    size_t n = strcspn(at, "(@");
    PM_ASSERT(n < sizeof name);
    memcpy(name, at, n);
    name[n] = 0;
    PM_ASSERT(pm_opcode_parse(name, &code));
    at += n;
    if (*at == '@') {
        from_end = at[1] - '0';
        at += 2;
    }
    PM_ASSERT(*at == '(');
    at++;
    if (!v->def || v->def->code != code || v->index != result || !works_along(v->def, from_end) || !is_usual(v->def) ||
        !rows_line_up(v->def) || !pm_op_extents_fit(v->def))
        return NULL;
    pm_match before = *match;
    const char *end = match_operands(at, v->def, false, match);
    if (end || !(pm_op_info_of(v->def)->traits & PM_T_COMMUTES))
        return end;
    *match = before;
    return match_operands(at, v->def, true, match);
}

/// Past the pattern at `at` when the value matches it, else NULL.
static const char *match_at(const char *at, pm_value *v, pm_match *match)
{
    double number;
    int name = at[1] - 'a';
    v = pm_under_views(v);
    if (*at == '?') {
        if (match->values[name] && match->values[name] != v)
            return NULL;
        match->values[name] = v;
        return at + 2;
    }
    if (*at == '$') {
        if (!number_of(match->module, v, &number) || (match->has_number[name] && match->numbers[name] != number))
            return NULL;
        match->numbers[name] = number;
        match->has_number[name] = true;
        return at + 2;
    }
    if (isdigit((unsigned char)*at)) {
        double want = strtod(at, NULL);
        return number_of(match->module, v, &number) && number == want ? skip(at) : NULL;
    }
    if (v->def && v->def->code == PM_OP_expand) // a broadcast of what is looked for
        if (strncmp(at, "expand(", 7) != 0)
            v = pm_under_views(v->def->operands[0]);
    return match_op(at, v, match);
}

bool pm_pattern_matches(const char *pattern, pm_value *v, pm_module *m, pm_match *match)
{
    *match = (pm_match){.module = m};
    const char *end = match_at(pattern, v, match);
    return end && !*end;
}
