/// Result types, known content, error messages and identities of the ops.
#include <check.h>
#include <stdlib.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "ir/text.h"

static pm_arena *arena;
static pm_module *m;
static pm_graph *g;
static pm_builder b;
static pm_dim B, T, P;

static void setup(void)
{
    arena = pm_arena_create();
    m = pm_module_create(arena, pm_diag_create(arena), "test");
    g = pm_entry_create(m, "main");
    pm_loc loc = {.file = "test.onnx", .what = "node", .name = "n"};
    b = (pm_builder){g, NULL, pm_loc_intern(m, &loc)};
    B = pm_dim_symbol(m, "B", 1, 64);
    T = pm_dim_symbol(m, "T", 0, INT64_MAX);
    P = pm_dim_symbol(m, "P", 0, INT64_MAX);
}

static void teardown(void)
{
    // whatever a test built must verify
    pm_status status = pm_module_verify(m);
    if (status != PM_OK)
        pm_diag_print(m->diag, stderr, false);
    ck_assert_int_eq(status, PM_OK);
    pm_arena_destroy(arena);
}

/* ---- helpers --------------------------------------------------------------------------------- */

static pm_dim c(int64_t value)
{
    return pm_dim_const(m, value);
}

static pm_value *arg_of(pm_elem elem, int32_t rank, const pm_dim *dims)
{
    return pm_graph_add_arg(g, NULL, pm_type_get(m, elem, rank, dims), -1);
}
#define ARG(elem, ...)                                                                             \
    arg_of(elem, (int32_t)(sizeof((pm_dim[]){__VA_ARGS__}) / sizeof(pm_dim)),                      \
           (pm_dim[]){__VA_ARGS__})
#define SCALAR(elem) arg_of(elem, 0, NULL)

static pm_value *ints_of(int64_t n, const int64_t *values)
{
    pm_value *v;
    ck_assert_int_eq(pm_build_const_ints(&b, PM_I64, 1, &n, values, &v), PM_OK);
    return v;
}
#define INTS(...)                                                                                  \
    ints_of((int64_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static pm_value *integer(int64_t value)
{
    pm_value *v;
    ck_assert_int_eq(pm_build_const_ints(&b, PM_I64, 0, NULL, &value, &v), PM_OK);
    return v;
}

static pm_value *number(float value)
{
    pm_value *v;
    ck_assert_int_eq(pm_build_const_f32(&b, 0, NULL, &value, &v), PM_OK);
    return v;
}

static pm_op *build_op(pm_opcode code, pm_value *const *operands, size_t n_operands,
                       const pm_attr *attrs, size_t n_attrs, size_t n_results)
{
    pm_op *op;
    pm_status status = pm_build(&b, code, operands, n_operands, attrs, n_attrs, n_results, &op);
    if (status != PM_OK)
        pm_diag_print(m->diag, stderr, false);
    ck_assert_int_eq(status, PM_OK);
    return op;
}
#define OP(code, ...) build_op(PM_OP_##code, __VA_ARGS__, 0)->results[0]

static void check_type(const pm_value *v, const char *expected)
{
    ck_assert_str_eq(pm_type_text(m, v->type), expected);
}

/// The content as text, "?" when unknown.
static void check_content(const pm_value *v, const char *expected)
{
    char text[512] = "";
    int64_t n = 0;
    if (v->content == NULL || !pm_type_const_count(m, v->type, &n))
        strcpy(text, "?");
    for (int64_t i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "",
                 pm_dim_text(m, v->content[i]));
    ck_assert_str_eq(text, expected);
}

static void check_refused(pm_opcode code, pm_value *const *operands, size_t n_operands,
                          const pm_attr *attrs, size_t n_attrs, size_t n_results,
                          const char *expected)
{
    pm_op *op;
    pm_op *last = g->last;
    ck_assert_int_ne(pm_build(&b, code, operands, n_operands, attrs, n_attrs, n_results, &op),
                     PM_OK);
    ck_assert_ptr_null(op);
    ck_assert_ptr_eq(g->last, last);
    size_t n = pm_diag_size(m->diag);
    ck_assert_uint_gt(n, 0);
    const pm_diag_entry *entry = pm_diag_at(m->diag, n - 1);
    ck_assert_msg(strstr(entry->text, expected), "'%s' lacks '%s'", entry->text, expected);
    ck_assert_ptr_nonnull(entry->loc);
}
#define REFUSED(expected, code, ...) check_refused(PM_OP_##code, __VA_ARGS__, 0, expected)

static pm_value *shape_of(pm_value *x)
{
    return OP(shape, PM_OPERANDS(x), PM_NO_ATTRS);
}

static pm_value *extent_of(pm_value *x, int64_t axis)
{
    return OP(gather, PM_OPERANDS(shape_of(x), integer(axis)), PM_NO_ATTRS);
}

static pm_value *unsqueeze(pm_value *x)
{
    return OP(reshape, PM_OPERANDS(x, INTS(1)), PM_NO_ATTRS);
}

/* ---- elementwise ----------------------------------------------------------------------------- */

START_TEST(broadcasting)
{
    pm_value *x = ARG(PM_F32, B, T, c(8)), *y = ARG(PM_F32, c(8)), *z = ARG(PM_F32, B, c(1), c(1));
    check_type(OP(add, PM_OPERANDS(x, y), PM_NO_ATTRS), "f32[B, T, 8]");
    check_type(OP(mul, PM_OPERANDS(y, x), PM_NO_ATTRS), "f32[B, T, 8]");
    check_type(OP(add, PM_OPERANDS(x, z), PM_NO_ATTRS), "f32[B, T, 8]");
    check_type(OP(less, PM_OPERANDS(y, z), PM_NO_ATTRS), "bool[B, 1, 8]");
    check_type(OP(add, PM_OPERANDS(x, SCALAR(PM_F32)), PM_NO_ATTRS), "f32[B, T, 8]");
    // an unknown extent beside a constant is equal to it, or 1
    check_type(OP(add, PM_OPERANDS(ARG(PM_F32, T), y), PM_NO_ATTRS), "f32[8]");
    // two unknown ones: the greater, but 0 and 1 make 0
    check_type(OP(add, PM_OPERANDS(ARG(PM_F32, T), ARG(PM_F32, P)), PM_NO_ATTRS),
               "f32[min(min(P, T), 1)*max(P, T)]");
    pm_dim one = pm_dim_min(m, T, c(1)), C = pm_dim_symbol(m, "C", 1, 64);
    check_type(OP(add, PM_OPERANDS(ARG(PM_F32, one), ARG(PM_F32, P)), PM_NO_ATTRS),
               "f32[min(T, 1)*P]");
    check_type(OP(add, PM_OPERANDS(ARG(PM_F32, B), ARG(PM_F32, C)), PM_NO_ATTRS), "f32[max(B, C)]");
    check_type(OP(where, PM_OPERANDS(ARG(PM_BOOL, T, c(1)), y, SCALAR(PM_F32)), PM_NO_ATTRS),
               "f32[T, 8]");
    check_type(OP(pow, PM_OPERANDS(x, integer(2)), PM_NO_ATTRS), "f32[B, T, 8]");
    check_type(OP(cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", PM_I32))), "i32[B, T, 8]");
    check_type(OP(isnan, PM_OPERANDS(x), PM_NO_ATTRS), "bool[B, T, 8]");
    REFUSED("extents 8 and 3 can't be broadcast", add, PM_OPERANDS(x, ARG(PM_F32, c(3))),
            PM_NO_ATTRS);
    REFUSED("must have the same element type", add, PM_OPERANDS(x, SCALAR(PM_F64)), PM_NO_ATTRS);
    REFUSED("must be of a floating type, found i64[]", exp, PM_OPERANDS(integer(1)), PM_NO_ATTRS);
    REFUSED("must be of bools or integers", and, PM_OPERANDS(x, x), PM_NO_ATTRS);
    REFUSED("must be of numbers", neg, PM_OPERANDS(SCALAR(PM_BOOL)), PM_NO_ATTRS);
}
END_TEST

START_TEST(integer_content)
{
    pm_value *x = ARG(PM_F32, B, T, c(8));
    pm_value *t = extent_of(x, 1), *b_ = extent_of(x, 0);
    check_content(shape_of(x), "B, T, 8");
    check_content(OP(shape, PM_OPERANDS(x), PM_ATTRS(pm_attr_i64("start", -2))), "T, 8");
    check_content(OP(shape, PM_OPERANDS(x), PM_ATTRS(pm_attr_i64("end", 1))), "B");
    check_content(t, "T");
    check_content(OP(add, PM_OPERANDS(t, integer(1)), PM_NO_ATTRS), "T + 1");
    check_content(OP(sub, PM_OPERANDS(t, t), PM_NO_ATTRS), "0");
    check_content(OP(mul, PM_OPERANDS(shape_of(x), integer(2)), PM_NO_ATTRS), "2*B, 2*T, 16");
    check_content(OP(div, PM_OPERANDS(shape_of(x), integer(4)), PM_NO_ATTRS),
                  "floordiv(B, 4), floordiv(T, 4), 2");
    check_content(OP(div, PM_OPERANDS(integer(-7), integer(2)), PM_NO_ATTRS), "-3");
    // towards zero isn't down when the sign is unknown
    pm_value *signless = OP(sub, PM_OPERANDS(t, b_), PM_NO_ATTRS);
    check_content(OP(div, PM_OPERANDS(signless, integer(2)), PM_NO_ATTRS), "?");
    check_content(OP(div, PM_OPERANDS(t, integer(0)), PM_NO_ATTRS), "?");
    check_content(OP(mod, PM_OPERANDS(integer(-7), integer(4)), PM_NO_ATTRS), "1");
    check_content(OP(min, PM_OPERANDS(t, integer(16)), PM_NO_ATTRS), "min(T, 16)");
    check_content(OP(neg, PM_OPERANDS(t), PM_NO_ATTRS), "-T");
    check_content(OP(cast, PM_OPERANDS(t), PM_ATTRS(pm_attr_elem("to", PM_I32))), "T");
    check_content(OP(cast, PM_OPERANDS(integer(300)), PM_ATTRS(pm_attr_elem("to", PM_U8))), "?");
    check_content(OP(cast, PM_OPERANDS(b_), PM_ATTRS(pm_attr_elem("to", PM_BOOL))), "1");
    check_content(OP(equal, PM_OPERANDS(shape_of(x), INTS(-1, -1, 8)), PM_NO_ATTRS), "0, 0, 1");
    check_content(OP(less, PM_OPERANDS(b_, integer(1)), PM_NO_ATTRS), "0");
    check_content(OP(less, PM_OPERANDS(t, integer(1)), PM_NO_ATTRS), "?");
    check_content(OP(reduce_prod, PM_OPERANDS(shape_of(x)),
                     PM_ATTRS(pm_attr_ints("axes", (int64_t[]){0}, 1))),
                  "8*B*T");
    check_content(OP(concat, PM_OPERANDS(unsqueeze(t), INTS(-1), unsqueeze(b_)),
                     PM_ATTRS(pm_attr_i64("axis", 0))),
                  "T, -1, B");
    check_content(
        OP(slice, PM_OPERANDS(shape_of(x), INTS(-2), INTS(INT64_MAX), NULL, NULL), PM_NO_ATTRS),
        "T, 8");
    check_content(OP(slice, PM_OPERANDS(shape_of(x), INTS(-1), INTS(INT64_MIN), INTS(0), INTS(-1)),
                     PM_NO_ATTRS),
                  "8, T, B");
    check_content(OP(expand, PM_OPERANDS(t, INTS(2)), PM_NO_ATTRS), "T, T");
    check_content(OP(range, PM_OPERANDS(integer(5), integer(0), integer(-2)), PM_NO_ATTRS),
                  "5, 3, 1");
    pm_value *whole = OP(fill, PM_OPERANDS(INTS(3), integer(1)), PM_NO_ATTRS);
    check_content(whole, "1, 1, 1");
    // the idiom around Expand: where(shape == -1, 1, shape)
    pm_value *wanted = INTS(-1, 4, -1);
    pm_value *is_any = OP(equal, PM_OPERANDS(wanted, integer(-1)), PM_NO_ATTRS);
    check_content(OP(where, PM_OPERANDS(is_any, whole, wanted), PM_NO_ATTRS), "1, 4, 1");
    // unknown data stays unknown
    check_content(OP(add, PM_OPERANDS(SCALAR(PM_I64), t), PM_NO_ATTRS), "?");
    REFUSED("an index is out of range: there are 3 elements", gather,
            PM_OPERANDS(shape_of(x), integer(3)), PM_NO_ATTRS);
}
END_TEST

/* ---- shape ----------------------------------------------------------------------------------- */

START_TEST(reshaping)
{
    pm_value *x = ARG(PM_F32, B, T, c(64));
    pm_value *rows = OP(reshape, PM_OPERANDS(x, INTS(-1, 64)), PM_NO_ATTRS);
    check_type(rows, "f32[B*T, 64]");
    check_type(OP(reshape, PM_OPERANDS(x, INTS(0, 0, 4, -1)), PM_NO_ATTRS), "f32[B, T, 4, 16]");
    check_type(OP(reshape, PM_OPERANDS(x, INTS(0, -1, 32)), PM_NO_ATTRS), "f32[B, 2*T, 32]");
    // back, by the extents of another tensor
    pm_value *shape =
        OP(concat, PM_OPERANDS(unsqueeze(extent_of(x, 0)), unsqueeze(extent_of(x, 1)), INTS(-1)),
           PM_ATTRS(pm_attr_i64("axis", 0)));
    check_type(OP(reshape, PM_OPERANDS(rows, shape), PM_NO_ATTRS), "f32[B, T, 64]");
    check_type(OP(reshape, PM_OPERANDS(x, ints_of(0, NULL)), PM_NO_ATTRS), "f32[]");
    // an extent that isn't a multiple
    check_type(OP(reshape, PM_OPERANDS(ARG(PM_F32, T), INTS(-1, 4)), PM_NO_ATTRS),
               "f32[floordiv(T, 4), 4]");
    pm_value *unknown = OP(reshape, PM_OPERANDS(x, ARG(PM_I64, c(2))), PM_NO_ATTRS);
    check_type(unknown, "f32[n, n_1]");
    ck_assert_int_eq(pm_dim_upper(m, unknown->type->dims[0]), PM_DIM_NONE);
    pm_value *flat = ARG(PM_F32, c(6), c(4));
    REFUSED("shape has -1 more than once", reshape, PM_OPERANDS(x, INTS(-1, -1)), PM_NO_ATTRS);
    REFUSED("shape has the extent -2", reshape, PM_OPERANDS(x, INTS(-2)), PM_NO_ATTRS);
    REFUSED("has 24 elements, the shape has 25", reshape, PM_OPERANDS(flat, INTS(5, 5)),
            PM_NO_ATTRS);
    REFUSED("no extent for -1", reshape, PM_OPERANDS(flat, INTS(5, -1)), PM_NO_ATTRS);
    REFUSED("copies axis 2 (by 0)", reshape, PM_OPERANDS(flat, INTS(2, 3, 0)), PM_NO_ATTRS);
    REFUSED("must be a list of integers", reshape, PM_OPERANDS(flat, integer(24)), PM_NO_ATTRS);
    REFUSED("at most 8", reshape, PM_OPERANDS(flat, INTS(1, 1, 1, 1, 1, 1, 1, 1, 24)), PM_NO_ATTRS);
    REFUSED("length of shape must be known", reshape, PM_OPERANDS(flat, ARG(PM_I64, T)),
            PM_NO_ATTRS);
}
END_TEST

START_TEST(reshaping_to_extents)
{
    pm_value *x = ARG(PM_F32, B, T, c(64)), *v;
    ck_assert_int_eq(pm_build_reshape_dims(&b, x, 3, x->type->dims, &v), PM_OK);
    ck_assert_ptr_eq(v, x);
    const pm_dim one_unknown[] = {pm_dim_mul(m, B, T), c(4), c(16)};
    ck_assert_int_eq(pm_build_reshape_dims(&b, x, 3, one_unknown, &v), PM_OK);
    check_type(v, "f32[B*T, 4, 16]");
    ck_assert(pm_value_is(v->def->operands[1], PM_OP_const));
    const pm_dim two_unknown[] = {T, B, c(4), c(16)};
    ck_assert_int_eq(pm_build_reshape_dims(&b, x, 4, two_unknown, &v), PM_OK);
    check_type(v, "f32[T, B, 4, 16]");
    ck_assert(pm_value_is(v->def->operands[1], PM_OP_dims));
    check_content(v->def->operands[1], "T, B, 4, 16");
    ck_assert_int_eq(pm_op_infer(v->def->operands[1]->def), PM_OK);
    check_content(v->def->operands[1], "T, B, 4, 16");
    pm_value *filled = OP(fill, PM_OPERANDS(v->def->operands[1], number(1)), PM_NO_ATTRS);
    check_type(filled, "f32[T, B, 4, 16]");
    check_type(OP(empty, PM_OPERANDS(v->def->operands[1]), PM_ATTRS(pm_attr_elem("elem", PM_I8))),
               "i8[T, B, 4, 16]");
}
END_TEST

START_TEST(transposing_joining_splitting)
{
    pm_value *x = ARG(PM_F32, B, T, c(4), c(16));
    const int64_t perm[] = {0, 2, 1, 3}, twice[] = {0, 2, 2, 3}, far[] = {0, 2, 1, 4};
    check_type(OP(transpose, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("perm", perm, 4))),
               "f32[B, 4, T, 16]");
    REFUSED("names axis 2 twice", transpose, PM_OPERANDS(x),
            PM_ATTRS(pm_attr_ints("perm", twice, 4)));
    REFUSED("names axis 4, must be in [0, 3]", transpose, PM_OPERANDS(x),
            PM_ATTRS(pm_attr_ints("perm", far, 4)));
    REFUSED("perm has 3 axes", transpose, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("perm", perm, 3)));

    pm_value *y = ARG(PM_F32, B, P, c(4), c(16));
    check_type(OP(concat, PM_OPERANDS(x, y), PM_ATTRS(pm_attr_i64("axis", 1))),
               "f32[B, P + T, 4, 16]");
    check_type(OP(concat, PM_OPERANDS(x, x), PM_ATTRS(pm_attr_i64("axis", -1))),
               "f32[B, T, 4, 32]");
    REFUSED("must agree with operand 0", concat, PM_OPERANDS(x, ARG(PM_F32, B, T, c(5), c(16))),
            PM_ATTRS(pm_attr_i64("axis", 1)));
    REFUSED("axis is 4, must be in [-4, 3]", concat, PM_OPERANDS(x, x),
            PM_ATTRS(pm_attr_i64("axis", 4)));

    pm_op *op = build_op(PM_OP_split, &x, 1, PM_ATTRS(pm_attr_i64("axis", 3)), 2);
    check_type(op->results[1], "f32[B, T, 4, 8]");
    op = build_op(PM_OP_split, (pm_value *[]){x, INTS(3, 13)}, 2, PM_ATTRS(pm_attr_i64("axis", 3)),
                  2);
    check_type(op->results[0], "f32[B, T, 4, 3]");
    check_type(op->results[1], "f32[B, T, 4, 13]");
    op = build_op(PM_OP_split, &x, 1, PM_ATTRS(pm_attr_i64("axis", 3)), 3);
    check_type(op->results[0], "f32[B, T, 4, 6]");
    check_type(op->results[2], "f32[B, T, 4, 4]");
    pm_value *rest = ARG(PM_I64, c(2));
    op = build_op(PM_OP_split, (pm_value *[]){x, rest}, 2, PM_ATTRS(pm_attr_i64("axis", 1)), 2);
    ck_assert(pm_dim_is_dynamic(m, op->results[0]->type->dims[1]));
    ck_assert_int_eq(pm_dim_upper(m, op->results[1]->type->dims[1]), T);
    check_refused(PM_OP_split, (pm_value *[]){x, INTS(3, 14)}, 2, PM_ATTRS(pm_attr_i64("axis", 3)),
                  2, "the sum of the sizes must be 16, found 17");
    check_refused(PM_OP_split, (pm_value *[]){x, INTS(16)}, 2, PM_ATTRS(pm_attr_i64("axis", 3)), 2,
                  "sizes has 1 elements, there are 2 results");
}
END_TEST

static pm_value *slice(pm_value *x, pm_value *start, pm_value *end, int64_t axis, int64_t step)
{
    return OP(slice, PM_OPERANDS(x, start, end, INTS(axis), INTS(step)), PM_NO_ATTRS);
}

START_TEST(slicing)
{
    pm_value *x = ARG(PM_F32, B, T, c(10));
    check_type(slice(x, INTS(2), INTS(7), 2, 1), "f32[B, T, 5]");
    check_type(slice(x, INTS(2), INTS(7), 2, 2), "f32[B, T, 3]");
    check_type(slice(x, INTS(-3), INTS(INT64_MAX), 2, 1), "f32[B, T, 3]");
    check_type(slice(x, INTS(-30), INTS(100), 2, 1), "f32[B, T, 10]");
    check_type(slice(x, INTS(7), INTS(2), 2, 1), "f32[B, T, 0]");
    check_type(slice(x, INTS(-1), INTS(INT64_MIN), 2, -1), "f32[B, T, 10]");
    check_type(slice(x, INTS(8), INTS(1), 2, -3), "f32[B, T, 3]");
    check_type(slice(x, INTS(0), INTS(INT64_MAX), 1, 1), "f32[B, T, 10]");
    check_type(slice(x, INTS(1), INTS(INT64_MAX), 1, 1), "f32[B, max(T - 1, 0), 10]");
    check_type(slice(x, INTS(0), INTS(-1), 0, 1), "f32[B - 1, T, 10]");
    check_type(slice(x, INTS(-1), INTS(INT64_MAX), 0, 1), "f32[1, T, 10]");
    check_type(slice(x, INTS(-1), INTS(INT64_MAX), 1, 1), "f32[B, min(T, 1), 10]");
    check_type(slice(x, INTS(-1), INTS(INT64_MIN), 1, -1), "f32[B, T, 10]");
    // by the extent of a part of the axis
    pm_value *all = ARG(PM_F32, pm_dim_add(m, P, T));
    check_type(slice(all, INTS(0), unsqueeze(extent_of(x, 1)), 0, 1), "f32[T]");
    check_type(slice(all, unsqueeze(extent_of(x, 1)), INTS(INT64_MAX), 0, 1), "f32[P]");
    pm_value *unknown = slice(x, ARG(PM_I64, c(1)), INTS(5), 2, 1);
    ck_assert(pm_dim_is_dynamic(m, unknown->type->dims[2]));
    ck_assert_int_eq(pm_dim_upper(m, unknown->type->dims[2]), c(10));
    REFUSED("step 0 is 0", slice, PM_OPERANDS(x, INTS(0), INTS(1), INTS(0), INTS(0)), PM_NO_ATTRS);
    REFUSED("names axis 1 twice", slice, PM_OPERANDS(x, INTS(0, 0), INTS(1, 1), INTS(1, -2), NULL),
            PM_NO_ATTRS);
    REFUSED("axes must be constant", slice,
            PM_OPERANDS(x, INTS(0), INTS(1), ARG(PM_I64, c(1)), NULL), PM_NO_ATTRS);
    REFUSED("starts has 1 elements, ends has 2", slice,
            PM_OPERANDS(x, INTS(0), INTS(1, 2), NULL, NULL), PM_NO_ATTRS);
}
END_TEST

static int64_t clamp(int64_t x, int64_t lo, int64_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/// The extent of a slice by ONNX's definition.
static int64_t slice_extent(int64_t extent, int64_t start, int64_t end, int64_t step)
{
    start = start < 0 ? start + extent : start;
    end = end < 0 && end > -1000 ? end + extent : end;
    if (step > 0) {
        start = clamp(start, 0, extent);
        end = clamp(end, 0, extent);
        return end > start ? (end - start + step - 1) / step : 0;
    }
    if (extent == 0)
        return 0;
    start = clamp(start, 0, extent - 1);
    end = clamp(end, -1, extent - 1);
    return start > end ? (start - end - step - 1) / -step : 0;
}

START_TEST(slice_extents_follow_the_definition)
{
    static const int64_t bounds[] = {INT64_MIN, -12, -8, -7, -2, -1, 0,
                                     1,         2,   6,  7,  8,  12, INT64_MAX};
    static const int64_t steps[] = {1, 2, 3, 7, -1, -2, -3};
    enum { N = 14, MAX_EXTENT = 9 };
    pm_value *x = ARG(PM_F32, T);
    uint32_t symbol;
    ck_assert(pm_dim_is_symbol(m, T, &symbol));
    for (int s = 0; s < N; s++) {
        for (int e = 0; e < N; e++) {
            for (size_t k = 0; k < PM_COUNT(steps); k++) {
                if (bounds[s] == INT64_MIN)
                    continue; // start + extent would be tested against itself
                pm_value *v = slice(x, INTS(bounds[s]), INTS(bounds[e]), 0, steps[k]);
                for (int64_t extent = 0; extent <= MAX_EXTENT; extent++) {
                    int64_t bindings[] = {1, extent, 1}, found;
                    int64_t expected = slice_extent(extent, bounds[s], bounds[e], steps[k]);
                    ck_assert(pm_dim_eval(m, v->type->dims[0], bindings, &found));
                    ck_assert_msg(found == expected,
                                  "%d[%lld:%lld:%lld] is %s = %lld, must be %lld", (int)extent,
                                  (long long)bounds[s], (long long)bounds[e], (long long)steps[k],
                                  pm_dim_text(m, v->type->dims[0]), (long long)found,
                                  (long long)expected);
                    // and with constants all the way
                    pm_value *fixed = slice(ARG(PM_F32, c(extent)), INTS(bounds[s]),
                                            INTS(bounds[e]), 0, steps[k]);
                    ck_assert_int_eq(fixed->type->dims[0], c(expected));
                }
            }
        }
    }
}
END_TEST

START_TEST(data_movement)
{
    pm_value *x = ARG(PM_F32, B, T, c(8)), *ids = ARG(PM_I64, B, T);
    pm_value *table = ARG(PM_F32, c(1000), c(64));
    check_type(OP(gather, PM_OPERANDS(table, ids), PM_NO_ATTRS), "f32[B, T, 64]");
    check_type(OP(gather, PM_OPERANDS(x, integer(-1)), PM_ATTRS(pm_attr_i64("axis", 1))),
               "f32[B, 8]");
    check_type(OP(gather_elements, PM_OPERANDS(ARG(PM_F32, B, c(9)), ids),
                  PM_ATTRS(pm_attr_i64("axis", 1))),
               "f32[B, T]");
    check_type(OP(gather_nd, PM_OPERANDS(x, ARG(PM_I64, P, c(2))), PM_NO_ATTRS), "f32[P, 8]");
    check_type(
        OP(scatter_nd, PM_OPERANDS(x, ARG(PM_I64, P, c(2)), ARG(PM_F32, P, c(8))), PM_NO_ATTRS),
        "f32[B, T, 8]");
    REFUSED("an extent of updates must be 8, found 9", scatter_nd,
            PM_OPERANDS(x, ARG(PM_I64, P, c(2)), ARG(PM_F32, P, c(9))), PM_NO_ATTRS);
    REFUSED("did you mean 'add'", scatter_nd,
            PM_OPERANDS(x, ARG(PM_I64, P, c(2)), ARG(PM_F32, P, c(8))),
            PM_ATTRS(pm_attr_str("reduction", "adds")));
    REFUSED("don't index operand 0", gather_nd, PM_OPERANDS(x, ARG(PM_I64, P, c(4))), PM_NO_ATTRS);
    REFUSED("must be of integers", gather, PM_OPERANDS(table, x), PM_NO_ATTRS);

    check_type(OP(expand, PM_OPERANDS(ARG(PM_F32, B, c(1), c(8)), shape_of(x)), PM_NO_ATTRS),
               "f32[B, T, 8]");
    check_type(OP(expand, PM_OPERANDS(x, INTS(3, 1, 1, 8)), PM_NO_ATTRS), "f32[3, B, T, 8]");
    check_type(OP(tile, PM_OPERANDS(x, INTS(2, 1, 3)), PM_NO_ATTRS), "f32[2*B, T, 24]");
    check_type(OP(pad, PM_OPERANDS(x, INTS(0, 1, 2, 0, 3, 4)), PM_NO_ATTRS), "f32[B, T + 4, 14]");
    check_type(OP(pad, PM_OPERANDS(x, INTS(1, 2), NULL, INTS(-1)), PM_NO_ATTRS), "f32[B, T, 11]");
    REFUSED("pads has 2 elements", pad, PM_OPERANDS(x, INTS(1, 2)), PM_NO_ATTRS);
    check_type(OP(range, PM_OPERANDS(integer(0), extent_of(x, 1), integer(1)), PM_NO_ATTRS),
               "i64[T]");
    check_type(OP(range, PM_OPERANDS(number(0), number(1), number(0.25F)), PM_NO_ATTRS), "f32[4]");
    REFUSED("delta is 0", range, PM_OPERANDS(integer(0), integer(5), integer(0)), PM_NO_ATTRS);
    pm_value *loose = OP(range, PM_OPERANDS(integer(0), SCALAR(PM_I64), integer(1)), PM_NO_ATTRS);
    ck_assert_int_eq(pm_dim_upper(m, loose->type->dims[0]), PM_DIM_NONE);
    check_type(OP(onehot, PM_OPERANDS(ids, integer(16), ARG(PM_F32, c(2))), PM_NO_ATTRS),
               "f32[B, T, 16]");
    check_type(OP(onehot, PM_OPERANDS(ids, integer(16), ARG(PM_F32, c(2))),
                  PM_ATTRS(pm_attr_i64("axis", 0))),
               "f32[16, B, T]");
    pm_value *found = OP(nonzero, PM_OPERANDS(ids), PM_NO_ATTRS);
    ck_assert(pm_dim_is_dynamic(m, found->type->dims[1]));
    ck_assert_int_eq(pm_dim_upper(m, found->type->dims[1]), pm_dim_mul(m, B, T));
    // what flows from an unknown extent keeps it
    pm_value *row = OP(gather, PM_OPERANDS(found, integer(0)), PM_NO_ATTRS);
    ck_assert_int_eq(row->type->dims[0], found->type->dims[1]);
    REFUSED("operand 0 must be matrices", trilu, PM_OPERANDS(row), PM_NO_ATTRS);
}
END_TEST

/* ---- reductions, products -------------------------------------------------------------------- */

START_TEST(reductions)
{
    pm_value *x = ARG(PM_F32, B, T, c(8));
    const int64_t last[] = {-1}, two[] = {0, 2}, same[] = {2, -1};
    check_type(OP(reduce_mean, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("axes", last, 1))),
               "f32[B, T, 1]");
    check_type(OP(reduce_sum, PM_OPERANDS(x),
                  PM_ATTRS(pm_attr_ints("axes", two, 2), pm_attr_bool("keepdims", false))),
               "f32[T]");
    check_type(OP(argmax, PM_OPERANDS(x), PM_ATTRS(pm_attr_i64("axis", -1))), "i64[B, T, 1]");
    check_type(OP(cumsum, PM_OPERANDS(x), PM_ATTRS(pm_attr_i64("axis", 1))), "f32[B, T, 8]");
    REFUSED("names axis 2 twice", reduce_sum, PM_OPERANDS(x),
            PM_ATTRS(pm_attr_ints("axes", same, 2)));
    REFUSED("axis is 3, must be in [-3, 2]", softmax, PM_OPERANDS(x),
            PM_ATTRS(pm_attr_i64("axis", 3)));
    REFUSED("has no axes", argmin, PM_OPERANDS(SCALAR(PM_F32)), PM_NO_ATTRS);

    pm_op *op = build_op(PM_OP_topk, (pm_value *[]){x, INTS(2)}, 2, PM_NO_ATTRS, 0);
    check_type(op->results[0], "f32[B, T, 2]");
    check_type(op->results[1], "i64[B, T, 2]");
    op = build_op(PM_OP_topk, (pm_value *[]){x, ARG(PM_I64, c(1))}, 2, PM_NO_ATTRS, 0);
    ck_assert_int_eq(pm_dim_upper(m, op->results[0]->type->dims[2]), c(8));
    ck_assert_int_eq(op->results[0]->type->dims[2], op->results[1]->type->dims[2]);
    REFUSED("k is 9, but axis 2 has only 8 elements", topk, PM_OPERANDS(x, INTS(9)), PM_NO_ATTRS);

    pm_value *scale = ARG(PM_F32, c(8)), *wrong = ARG(PM_F32, c(9));
    check_type(OP(rms_norm, PM_OPERANDS(x, scale), PM_ATTRS(pm_attr_f64("eps", 1e-5))),
               "f32[B, T, 8]");
    check_type(OP(layer_norm, PM_OPERANDS(x, scale, scale), PM_ATTRS(pm_attr_f64("eps", 1e-5))),
               "f32[B, T, 8]");
    REFUSED("the length of scale must be 8, found 9", rms_norm, PM_OPERANDS(x, wrong),
            PM_ATTRS(pm_attr_f64("eps", 1e-5)));
    REFUSED("eps is", rms_norm, PM_OPERANDS(x, scale), PM_ATTRS(pm_attr_f64("eps", -1)));
}
END_TEST

START_TEST(products)
{
    pm_value *x = ARG(PM_F32, B, T, c(8)), *w = ARG(PM_F32, c(8), c(3)), *v = ARG(PM_F32, c(8));
    pm_attr trans_b = pm_attr_bool("trans_b", true);
    check_type(OP(matmul, PM_OPERANDS(x, w), PM_NO_ATTRS), "f32[B, T, 3]");
    check_type(OP(matmul, PM_OPERANDS(x, v), PM_NO_ATTRS), "f32[B, T]");
    check_type(OP(matmul, PM_OPERANDS(v, w), PM_NO_ATTRS), "f32[3]");
    check_type(OP(matmul, PM_OPERANDS(v, v), PM_NO_ATTRS), "f32[]");
    check_type(OP(matmul, PM_OPERANDS(x, ARG(PM_F32, c(3), c(8))), &trans_b, 1), "f32[B, T, 3]");
    check_type(OP(matmul, PM_OPERANDS(x, x), &trans_b, 1), "f32[B, T, T]");
    check_type(OP(matmul, PM_OPERANDS(ARG(PM_F32, c(4), c(1), T, P), ARG(PM_F32, B, P, c(2))),
                  PM_NO_ATTRS),
               "f32[4, B, T, 2]");
    REFUSED("disagree on the extent that is summed over: 8 and 3", matmul,
            PM_OPERANDS(x, ARG(PM_F32, c(3), c(8))), PM_NO_ATTRS);

    pm_value *rows = ARG(PM_F32, c(24), c(8));
    check_type(OP(linear, PM_OPERANDS(x, rows, ARG(PM_F32, c(24))), PM_NO_ATTRS), "f32[B, T, 24]");
    check_type(OP(linear, PM_OPERANDS(x, ARG(PM_BF16, c(24), c(8))), PM_NO_ATTRS), "f32[B, T, 24]");
    pm_value *packed = OP(
        pack, PM_OPERANDS(rows, rows),
        PM_ATTRS(pm_attr_i64("panel", 16), pm_attr_i64("pair", 2), pm_attr_elem("elem", PM_BF16)));
    check_type(packed, "bf16[48, 8]{panel=16, pair=2, ways=2}");
    check_type(OP(linear, PM_OPERANDS(x, packed), PM_NO_ATTRS), "f32[B, T, 24]");
    REFUSED("operand 0 must be row-major", neg, PM_OPERANDS(packed), PM_NO_ATTRS);
    REFUSED("(K of the weights) must be 3, found 8", linear,
            PM_OPERANDS(x, ARG(PM_F32, c(24), c(3))), PM_NO_ATTRS);
    REFUSED("compute is i8", linear, PM_OPERANDS(x, rows),
            PM_ATTRS(pm_attr_elem("compute", PM_I8)));
    REFUSED("panel is 15", pack, PM_OPERANDS(rows, rows), PM_ATTRS(pm_attr_i64("panel", 15)));
    check_type(OP(stack, PM_OPERANDS(rows, rows, rows), PM_NO_ATTRS), "f32[3, 24, 8]");
    REFUSED("must be like operand 0", stack, PM_OPERANDS(rows, w), PM_NO_ATTRS);

    pm_value *codes = ARG(PM_U8, c(24), c(48)), *scales = ARG(PM_F16, c(24), c(3)),
             *zeros = ARG(PM_U8, c(24), c(2));
    const pm_attr lowbit[] = {pm_attr_i64("k", 80), pm_attr_i64("block", 32), pm_attr_i64("bits", 4)};
    pm_value *few = OP(dequantize, PM_OPERANDS(codes, scales, zeros), lowbit, 3);
    check_type(few, "f32[24, 80]");
    REFUSED("96 codes of 8 bits don't fit the 48 bytes", dequantize, PM_OPERANDS(codes, scales),
            PM_ATTRS(pm_attr_i64("k", 96), pm_attr_i64("block", 32), pm_attr_i64("bits", 8)));
    REFUSED("the last extent of the scales must be 5, found 3", dequantize, PM_OPERANDS(codes, scales),
            PM_ATTRS(pm_attr_i64("k", 80), pm_attr_i64("block", 16)));
    REFUSED("the last extent of the zero points must be 3, found 2", dequantize,
            PM_OPERANDS(codes, scales, ARG(PM_F32, c(24), c(2))), lowbit, 3);
    REFUSED("extent 0 of the scales must be 24, found 8", dequantize,
            PM_OPERANDS(codes, ARG(PM_F32, c(8), c(3))), lowbit, 3);
    REFUSED("bits is 3", dequantize, PM_OPERANDS(codes, scales),
            PM_ATTRS(pm_attr_i64("k", 80), pm_attr_i64("block", 32), pm_attr_i64("bits", 3)));
    const pm_attr fp8[] = {pm_attr_i64("k", 48), pm_attr_i64("block", 16), pm_attr_i64("bits", 8),
                           pm_attr_str("format", "e4m3")};
    check_type(OP(dequantize, PM_OPERANDS(codes, scales), fp8, 4), "f32[24, 48]");
    REFUSED("e4m3 has no zero points", dequantize, PM_OPERANDS(codes, scales, zeros), fp8, 4);
    REFUSED("bits is 4, must be 8 for e4m3", dequantize, PM_OPERANDS(codes, scales),
            PM_ATTRS(pm_attr_i64("k", 48), pm_attr_i64("block", 16), pm_attr_str("format", "e4m3")));
    const pm_attr stored[] = {pm_attr_i64("panel", 16), pm_attr_i64("bits", 4), pm_attr_i64("block", 32),
                              pm_attr_i64("scale", 1), pm_attr_i64("zero", 1)};
    packed = OP(pack, PM_OPERANDS(few), stored, 5);
    check_type(packed,
               "f32[24, 80]{panel=16, pair=1, ways=1, bits=4, block=32, scale=1, zero=1, floats=0}");
    int64_t bytes = 0;
    ck_assert(pm_dim_is_const(m, pm_type_bytes(m, packed->type), &bytes));
    ck_assert_int_eq(bytes, 2 * 3 * 16 * (2 + 1 + 16));
    REFUSED("block is 12", pack, PM_OPERANDS(few),
            PM_ATTRS(pm_attr_i64("panel", 16), pm_attr_i64("bits", 4), pm_attr_i64("block", 12)));

    pm_value *image = ARG(PM_F32, B, c(3), c(32), c(32)),
             *kernel = ARG(PM_F32, c(16), c(3), c(3), c(3));
    const int64_t strides[] = {2, 2}, pads[] = {1, 1, 1, 1}, none[] = {0, 1};
    check_type(OP(conv, PM_OPERANDS(image, kernel), PM_NO_ATTRS), "f32[B, 16, 30, 30]");
    check_type(OP(conv, PM_OPERANDS(image, kernel),
                  PM_ATTRS(pm_attr_ints("strides", strides, 2), pm_attr_ints("pads", pads, 4))),
               "f32[B, 16, 16, 16]");
    REFUSED("strides has the element 0", conv, PM_OPERANDS(image, kernel),
            PM_ATTRS(pm_attr_ints("strides", none, 2)));
}
END_TEST

/* ---- language models ------------------------------------------------------------------------- */

START_TEST(language_models)
{
    pm_dim C = pm_dim_symbol(m, "C", 1, 1 << 20);
    pm_value *past = ARG(PM_I64, B), *q = ARG(PM_F32, B, T, c(8 * 32)),
             *k = ARG(PM_F32, B, T, c(2 * 32));
    pm_value *keys = ARG(PM_F32, B, c(2), C, c(32), c(16));
    pm_value *values = ARG(PM_F32, B, c(2), pm_dim_mul(m, C, c(16)), c(32));
    pm_value *table = OP(rope_table, PM_OPERANDS(past, ARG(PM_F32, c(16)), q), PM_NO_ATTRS);
    check_type(table, "f32[B, T, 32]");
    check_type(OP(rope, PM_OPERANDS(k, table), PM_ATTRS(pm_attr_i64("head_dim", 32))),
               "f32[B, T, 64]");
    REFUSED("not a multiple of head_dim", rope, PM_OPERANDS(k, table),
            PM_ATTRS(pm_attr_i64("head_dim", 48)));
    REFUSED("at most head_dim 16", rope, PM_OPERANDS(k, table),
            PM_ATTRS(pm_attr_i64("head_dim", 16)));
    pm_value *new_keys = OP(cache_key, PM_OPERANDS(keys, k, past), PM_NO_ATTRS);
    pm_value *new_values = OP(cache_value, PM_OPERANDS(values, k, past), PM_NO_ATTRS);
    check_type(new_keys, "f32[B, 2, C, 32, 16]");
    const pm_attr attrs[] = {pm_attr_i64("heads", 8), pm_attr_i64("kv_heads", 2),
                             pm_attr_f64("scale", 0.125)};
    check_type(OP(attention, PM_OPERANDS(q, new_keys, new_values, past), attrs, 3),
               "f32[B, T, 256]");
    const pm_attr odd[] = {pm_attr_i64("heads", 8), pm_attr_i64("kv_heads", 3),
                           pm_attr_f64("scale", 0.125)};
    REFUSED("8 heads can't share 3 kv_heads", attention, PM_OPERANDS(q, new_keys, new_values, past),
            odd, 3);
    pm_value *wide = ARG(PM_F32, B, c(2), pm_dim_mul(m, C, c(16)), c(48)), *sinks = ARG(PM_F32, c(8));
    check_type(OP(attention, PM_OPERANDS(q, new_keys, wide, past, sinks), attrs, 3),
               "f32[B, T, 384]");
    REFUSED("the number of sinks must be 8, found 16", attention,
            PM_OPERANDS(q, new_keys, new_values, past, ARG(PM_F32, c(16))), attrs, 3);
    REFUSED("at most head_dim 64 less offset", rope, PM_OPERANDS(k, table),
            PM_ATTRS(pm_attr_i64("head_dim", 64), pm_attr_i64("offset", 40)));
    REFUSED("the columns of q (heads times head size) must be 256, found 64", attention,
            PM_OPERANDS(k, new_keys, new_values, past), attrs, 3);
    REFUSED("operand 0 must have rank 5", cache_key, PM_OPERANDS(values, k, past), PM_NO_ATTRS);
    check_type(OP(last_rows, PM_OPERANDS(q), PM_NO_ATTRS), "f32[B, 1, 256]");
}
END_TEST

START_TEST(whole_attention)
{
    pm_dim S = pm_dim_symbol(m, "S", 0, 1 << 20), P = pm_dim_symbol(m, "Before", 0, 1 << 20);
    pm_value *q = ARG(PM_F32, B, T, c(8 * 4)), *k = ARG(PM_F32, B, c(2), S, c(4));
    pm_value *v = ARG(PM_F32, B, S, c(2 * 6)), *at = ARG(PM_I64, B), *mask = ARG(PM_BOOL, c(1), T, S);
    const pm_attr heads[] = {pm_attr_i64("heads", 8), pm_attr_i64("kv_heads", 2), pm_attr_f64("scale", 1)};
    check_type(OP(sdpa, PM_OPERANDS(q, k, v, mask, at, INTS(3), ARG(PM_F32, c(8))), heads, 3),
               "f32[B, T, 48]");
    check_type(OP(sdpa, PM_OPERANDS(ARG(PM_F32, B, c(8), T, c(4)), k, v), heads, 3), "f32[B, 8, T, 6]");
    REFUSED("the heads of an operand must be 8, found 2", sdpa, PM_OPERANDS(k, k, v), heads, 3);
    REFUSED("not a multiple of 8 heads", sdpa, PM_OPERANDS(v, k, v), heads, 3);
    REFUSED("the head size of keys must be 4, found 6", sdpa, PM_OPERANDS(q, v, v), heads, 3);
    REFUSED("an extent of the mask must be 8, found 3", sdpa,
            PM_OPERANDS(q, k, v, ARG(PM_F32, c(3), T, S)), heads, 3);
    REFUSED("the number of sinks must be 8, found 2", sdpa,
            PM_OPERANDS(q, k, v, NULL, NULL, NULL, ARG(PM_F32, c(2))), heads, 3);
    REFUSED("unseen is 'none'", sdpa, PM_OPERANDS(q, k, v),
            PM_ATTRS(heads[0], heads[1], heads[2], pm_attr_str("unseen", "none")));

    pm_value *past = ARG(PM_F32, B, c(2), P, c(6));
    check_type(OP(kv_append, PM_OPERANDS(v, at, INTS(7), past), PM_NO_ATTRS), "f32[B, 2, max(Before, 7), 6]");
    check_type(OP(kv_append, PM_OPERANDS(k, INTS(0), SCALAR(PM_I64)), PM_NO_ATTRS), "f32[B, 2, n, 4]");
    REFUSED("the size of the new rows must be 6, found 4", kv_append, PM_OPERANDS(k, at, INTS(7), past),
            PM_NO_ATTRS);
    REFUSED("need a past that tells their heads", kv_append, PM_OPERANDS(v, at, INTS(7)), PM_NO_ATTRS);
    REFUSED("the number of elements of total", kv_append, PM_OPERANDS(v, at, INTS(7, 8), past), PM_NO_ATTRS);
}
END_TEST

START_TEST(recurrences)
{
    pm_value *past = ARG(PM_I64, B), *x = ARG(PM_F32, B, T, c(12)), *state = ARG(PM_F32, B,
        c(12), c(3));
    pm_value *w = ARG(PM_F32, c(12), c(1), c(4)), *gate = ARG(PM_F32, B, T, c(2));
    pm_op *op;
    op = build_op(PM_OP_causal_conv, PM_OPERANDS(state, x, w, NULL, past), PM_NO_ATTRS, 0);
    check_type(op->results[0], "f32[B, 12, 3]");
    check_type(op->results[1], "f32[B, T, 12]");
    REFUSED("one more than the state holds", causal_conv, PM_OPERANDS(state, x, ARG(PM_F32,
            c(12), c(1), c(3))), PM_NO_ATTRS);
    REFUSED("the columns of x must be 12, found 2", causal_conv, PM_OPERANDS(state, gate, w),
            PM_NO_ATTRS);
    pm_value *s = ARG(PM_F32, B, c(2), c(3), c(5)), *v = ARG(PM_F32, B, T, c(10)),
        *k = ARG(PM_F32, B, T, c(3));
    op = build_op(PM_OP_linear_attention, PM_OPERANDS(s, x, k, v, gate, gate, past), PM_NO_ATTRS,
                  0);
    check_type(op->results[0], "f32[B, 2, 3, 5]");
    check_type(op->results[1], "f32[B, T, 20]");
    REFUSED("can't share 2 states evenly", linear_attention, PM_OPERANDS(s, k, ARG(PM_F32, B, T,
            c(9)), v), PM_NO_ATTRS);
    REFUSED("decay must have 2 columns, one for each head, or 6", linear_attention,
            PM_OPERANDS(s, k, k, v, k), PM_NO_ATTRS);
    REFUSED("beta must have 1 or 2 columns", linear_attention, PM_OPERANDS(s, k, k, v, NULL, k),
            PM_NO_ATTRS);
    op = build_op(PM_OP_selective_scan, PM_OPERANDS(state, x, x, ARG(PM_F32, c(12), c(3)), k, k),
                  PM_NO_ATTRS, 0);
    check_type(op->results[1], "f32[B, T, 12]");
    REFUSED("the columns of c must be 3, found 2", selective_scan, PM_OPERANDS(state, x, x,
            ARG(PM_F32, c(12), c(3)), k, gate), PM_NO_ATTRS);
}
END_TEST

/// experts over x [M, 8] with a template region: rows [n, 8] times an expert's w [8, 8].
static pm_op *build_experts(pm_value *x, pm_value *expert, pm_value *weight, pm_value *w,
                            uint32_t n_regions)
{
    pm_op *op;
    pm_value *operands[] = {x, expert, weight, w};
    ck_assert_int_eq(pm_op_create(g, NULL, PM_OP_experts, b.loc, operands, 4,
                                  PM_ATTRS(pm_attr_i64("experts", 4), pm_attr_i64("top_k", 2)), 1,
                                  n_regions, &op),
                     PM_OK);
    const pm_type *slice = pm_type_get(m, PM_F32, 2, w->type->dims + 1);
    for (uint32_t i = 0; i < n_regions; i++) {
        pm_graph *region = pm_region_create(op);
        pm_builder inner = {region, NULL, b.loc};
        pm_dim bound = pm_dim_mul(m, x->type->dims[0], c(2));
        const pm_dim rows[] = {pm_dim_fresh(m, "n", bound), c(8)};
        pm_value *r = pm_graph_add_arg(region, "rows", pm_type_get(m, PM_F32, 2, rows), -1);
        pm_value *s = pm_graph_add_arg(region, "w", n_regions == 1 ? slice : w->type, -1), *y;
        if (n_regions == 1)
            ck_assert_int_eq(pm_build1(&inner, &y, PM_OP_linear, PM_OPERANDS(r, s), PM_NO_ATTRS),
                             PM_OK);
        else
            ck_assert_int_eq(pm_build1(&inner, &y, PM_OP_neg, PM_OPERANDS(r), PM_NO_ATTRS), PM_OK);
        pm_graph_add_result(region, NULL, y, -1);
    }
    return op;
}

START_TEST(mixture_of_experts)
{
    pm_dim rows = pm_dim_mul(m, B, T);
    pm_value *x = ARG(PM_F32, rows, c(8)), *scores = ARG(PM_F32, rows, c(4));
    pm_value *w = ARG(PM_F32, c(4), c(12), c(8));
    pm_op *route = build_op(PM_OP_route, &scores, 1, PM_ATTRS(pm_attr_i64("top_k", 2)), 0);
    pm_value *expert = route->results[0], *weight = route->results[1];
    check_type(expert, "i32[B*T, 2]");
    check_type(weight, "f32[B*T, 2]");
    REFUSED("top_k is 5, must be in [1, 4]", route, PM_OPERANDS(scores),
            PM_ATTRS(pm_attr_i64("top_k", 5)));
    REFUSED("act is 'softmx', must be one of: softmax, sigmoid, sqrtsoftplus, none; did you mean "
            "'softmax'?",
            route, PM_OPERANDS(scores),
            PM_ATTRS(pm_attr_i64("top_k", 2), pm_attr_str("act", "softmx")));
    REFUSED("groups is 3", route, PM_OPERANDS(scores),
            PM_ATTRS(pm_attr_i64("top_k", 2), pm_attr_i64("groups", 3)));
    REFUSED("have only 1 experts", route, PM_OPERANDS(scores),
            PM_ATTRS(pm_attr_i64("top_k", 2), pm_attr_i64("groups", 4)));
    REFUSED("there are no experts", route, PM_OPERANDS(ARG(PM_F32, T, c(0))),
            PM_ATTRS(pm_attr_i64("top_k", 1)));

    pm_op *experts = build_experts(x, expert, weight, w, 1);
    ck_assert_int_eq(pm_op_infer(experts), PM_OK);
    check_type(experts->results[0], "f32[B*T, 12]");
    experts = build_experts(x, expert, weight, w, 4);
    ck_assert_int_eq(pm_op_infer(experts), PM_OK);
    check_type(experts->results[0], "f32[B*T, 8]");
    experts = build_experts(x, expert, weight, w, 3);
    ck_assert_int_eq(pm_op_infer(experts), PM_ERR_INVALID);
    pm_op_erase(experts);

    pm_op *order = build_op(PM_OP_expert_order, &expert, 1, PM_ATTRS(pm_attr_i64("experts", 4)), 0);
    check_type(order->results[0], "i32[2*B*T]");
    check_type(order->results[1], "i32[5]");
    check_type(order->results[2], "i32[B*T, 2]");
    pm_value *token = order->results[0], *offsets = order->results[1];
    pm_value *sorted = OP(gather_rows, PM_OPERANDS(x, token), PM_NO_ATTRS);
    check_type(sorted, "f32[2*B*T, 8]");
    pm_value *packed = OP(pack, PM_OPERANDS(w), PM_ATTRS(pm_attr_i64("panel", 32)));
    check_type(packed, "f32[4, 12, 8]{panel=32, pair=1, ways=1}");
    pm_value *y = OP(grouped_linear, PM_OPERANDS(sorted, packed, offsets), PM_NO_ATTRS);
    check_type(y, "f32[2*B*T, 12]");
    check_type(OP(combine, PM_OPERANDS(y, order->results[2], weight), PM_NO_ATTRS), "f32[B*T, 12]");
    REFUSED("the rows of y must be 2*B*T", combine,
            PM_OPERANDS(ARG(PM_F32, pm_dim_add(m, pm_dim_mul(m, rows, c(2)), c(1)), c(8)),
                        order->results[2], weight),
            PM_NO_ATTRS);
    pm_value *part =
        OP(expert_rows, PM_OPERANDS(x, token, offsets), PM_ATTRS(pm_attr_i64("expert", 3)));
    ck_assert(pm_dim_is_dynamic(m, part->type->dims[0]));
    ck_assert_int_eq(pm_dim_upper(m, part->type->dims[0]), pm_dim_mul(m, rows, c(2)));
    REFUSED("expert is 4", expert_rows, PM_OPERANDS(x, token, offsets),
            PM_ATTRS(pm_attr_i64("expert", 4)));
    REFUSED("the length of offsets must be 5, found 4", grouped_linear,
            PM_OPERANDS(sorted, w, ARG(PM_I32, c(4))), PM_NO_ATTRS);
}
END_TEST

/* ---- control flow ---------------------------------------------------------------------------- */

START_TEST(loops)
{
    pm_value *trip = integer(5), *yes, *x = ARG(PM_F32, B);
    ck_assert_int_eq(pm_build_const_ints(&b, PM_BOOL, 0, NULL, (int64_t[]){1}, &yes), PM_OK);
    pm_op *op;
    ck_assert_int_eq(pm_op_create(g, NULL, PM_OP_loop, b.loc, PM_OPERANDS(trip, yes, x),
                                  PM_ATTRS(pm_attr_i64("carried", 1), pm_attr_i64("scanned", 1)), 2,
                                  1, &op),
                     PM_OK);
    pm_graph *region = pm_region_create(op);
    pm_builder inner = {region, NULL, b.loc};
    pm_graph_add_arg(region, "i", trip->type, -1);
    pm_value *go = pm_graph_add_arg(region, "go", yes->type, -1);
    pm_value *in = pm_graph_add_arg(region, "x", x->type, -1), *out;
    ck_assert_int_eq(pm_build1(&inner, &out, PM_OP_exp, PM_OPERANDS(in), PM_NO_ATTRS), PM_OK);
    pm_graph_add_result(region, NULL, go, -1);
    pm_graph_add_result(region, NULL, out, -1);
    pm_graph_add_result(region, NULL, out, -1);
    ck_assert_int_eq(pm_op_infer(op), PM_OK);
    check_type(op->results[0], "f32[B]");
    ck_assert_int_eq(pm_dim_upper(m, op->results[1]->type->dims[0]), c(5));
    ck_assert_int_eq(op->results[1]->type->dims[1], B);
}
END_TEST

START_TEST(choices_between_extents)
{
    pm_value *condition = SCALAR(PM_BOOL), *x = ARG(PM_F32, B, c(4));
    pm_op *op;
    ck_assert_int_eq(
        pm_op_create(g, NULL, PM_OP_if, b.loc, PM_OPERANDS(condition, x), PM_NO_ATTRS, 1, 2, &op),
        PM_OK);
    for (int r = 0; r < 2; r++) {
        pm_graph *region = pm_region_create(op);
        pm_builder inner = {region, NULL, b.loc};
        pm_value *in = pm_graph_add_arg(region, "x", x->type, -1), *out = in;
        if (r == 1)
            ck_assert_int_eq(pm_build1(&inner, &out, PM_OP_concat, PM_OPERANDS(in, in),
                                       PM_ATTRS(pm_attr_i64("axis", 0))),
                             PM_OK);
        pm_graph_add_result(region, NULL, out, -1);
    }
    ck_assert_int_eq(pm_op_infer(op), PM_OK);
    ck_assert_int_eq(op->results[0]->type->dims[1], c(4));
    ck_assert_int_eq(pm_dim_upper(m, op->results[0]->type->dims[0]), pm_dim_mul(m, B, c(2)));
}
END_TEST

START_TEST(overflowing_extents_are_refused)
{
    pm_value *x = ARG(PM_F32, c(INT64_C(1) << 40), c(2));
    REFUSED("overflows or is too large", tile, PM_OPERANDS(x, INTS(INT64_C(1) << 40, 1)),
            PM_NO_ATTRS);
    REFUSED("is too large", expand, PM_OPERANDS(x, INTS(INT64_C(1) << 30, 1, 1)), PM_NO_ATTRS);
    REFUSED("take away more than the 4 elements", pad, PM_OPERANDS(ARG(PM_F32, c(4)), INTS(-3, -3)),
            PM_NO_ATTRS);
    pm_value *small = ARG(PM_F32, B, c(1), c(2)), *kernel = ARG(PM_F32, c(1), c(1), c(5));
    REFUSED("would be negative", conv, PM_OPERANDS(small, kernel), PM_NO_ATTRS);
}
END_TEST

/* ---- folding --------------------------------------------------------------------------------- */

static pm_value *fold(pm_value *v)
{
    pm_value *folded;
    pm_builder at = {g, v->def, v->def->loc};
    ck_assert_int_eq(pm_op_info_of(v->def)->fold(&at, v->def, &folded), PM_OK);
    if (folded)
        ck_assert_ptr_eq(folded->type, v->type);
    return folded;
}

START_TEST(identities)
{
    pm_value *x = ARG(PM_F32, B, c(1), c(8)), *i = ARG(PM_I64, B);
    ck_assert_ptr_eq(fold(OP(mul, PM_OPERANDS(x, number(1)), PM_NO_ATTRS)), x);
    ck_assert_ptr_eq(fold(OP(mul, PM_OPERANDS(number(1), x), PM_NO_ATTRS)), x);
    ck_assert_ptr_eq(fold(OP(div, PM_OPERANDS(x, number(1)), PM_NO_ATTRS)), x);
    ck_assert_ptr_eq(fold(OP(sub, PM_OPERANDS(x, number(0)), PM_NO_ATTRS)), x);
    ck_assert_ptr_eq(fold(OP(add, PM_OPERANDS(x, number(-0.0F)), PM_NO_ATTRS)), x);
    ck_assert_ptr_eq(fold(OP(add, PM_OPERANDS(i, integer(0)), PM_NO_ATTRS)), i);
    // these would change -0, NaN, a type
    ck_assert_ptr_null(fold(OP(add, PM_OPERANDS(x, number(0)), PM_NO_ATTRS)));
    ck_assert_ptr_null(fold(OP(mul, PM_OPERANDS(x, number(0)), PM_NO_ATTRS)));
    ck_assert_ptr_null(fold(OP(div, PM_OPERANDS(number(1), x), PM_NO_ATTRS)));
    pm_value *ones = OP(fill, PM_OPERANDS(INTS(4, 1, 8), number(1)), PM_NO_ATTRS);
    ck_assert_ptr_null(fold(OP(mul, PM_OPERANDS(ARG(PM_F32, c(8)), ones), PM_NO_ATTRS)));

    ck_assert_ptr_eq(fold(OP(pow, PM_OPERANDS(x, number(1)), PM_NO_ATTRS)), x);
    pm_value *square = fold(OP(pow, PM_OPERANDS(x, integer(2)), PM_NO_ATTRS));
    ck_assert(pm_value_is(square, PM_OP_mul) && square->def->operands[1] == x);
    ck_assert_ptr_null(fold(OP(pow, PM_OPERANDS(x, number(0.5F)), PM_NO_ATTRS)));

    ck_assert_ptr_eq(fold(OP(cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", PM_F32)))), x);
    pm_value *half = ARG(PM_BF16, B);
    pm_value *wide = OP(cast, PM_OPERANDS(half), PM_ATTRS(pm_attr_elem("to", PM_F32)));
    ck_assert_ptr_eq(fold(OP(cast, PM_OPERANDS(wide), PM_ATTRS(pm_attr_elem("to", PM_BF16)))),
                     half);
    pm_value *narrow = OP(cast, PM_OPERANDS(x), PM_ATTRS(pm_attr_elem("to", PM_BF16)));
    ck_assert_ptr_null(fold(OP(cast, PM_OPERANDS(narrow), PM_ATTRS(pm_attr_elem("to", PM_F32)))));

    pm_value *yes;
    ck_assert_int_eq(pm_build_const_ints(&b, PM_BOOL, 1, (int64_t[]){2}, (int64_t[]){1, 1}, &yes),
                     PM_OK);
    pm_value *two = ARG(PM_F32, c(2)), *other = ARG(PM_F32, c(2));
    ck_assert_ptr_eq(fold(OP(where, PM_OPERANDS(yes, two, other), PM_NO_ATTRS)), two);
    ck_assert_ptr_eq(fold(OP(where, PM_OPERANDS(ARG(PM_BOOL, c(2)), two, two), PM_NO_ATTRS)), two);
}
END_TEST

START_TEST(identities_of_movement)
{
    pm_value *x = ARG(PM_F32, B, c(1), c(8));
    const int64_t same[] = {0, 1, 2}, swap[] = {0, 2, 1}, turn[] = {1, 2, 0}, back[] = {2, 0, 1};
    ck_assert_ptr_eq(fold(OP(transpose, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("perm", same, 3)))),
                     x);
    // moving an axis of 1 is a reshape
    pm_value *moved = fold(OP(transpose, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("perm", swap, 3))));
    ck_assert(pm_value_is(moved, PM_OP_reshape));
    pm_value *y = ARG(PM_F32, B, T, c(8));
    pm_value *once = OP(transpose, PM_OPERANDS(y), PM_ATTRS(pm_attr_ints("perm", turn, 3)));
    ck_assert_ptr_null(fold(once));
    ck_assert_ptr_eq(
        fold(OP(transpose, PM_OPERANDS(once), PM_ATTRS(pm_attr_ints("perm", back, 3)))), y);
    pm_value *both =
        fold(OP(transpose, PM_OPERANDS(once), PM_ATTRS(pm_attr_ints("perm", turn, 3))));
    ck_assert(pm_value_is(both, PM_OP_transpose) && both->def->operands[0] == y);

    pm_value *flat = OP(reshape, PM_OPERANDS(y, INTS(-1)), PM_NO_ATTRS);
    ck_assert_ptr_null(fold(flat));
    pm_value *rows = fold(OP(reshape, PM_OPERANDS(flat, INTS(-1, 8)), PM_NO_ATTRS));
    ck_assert(pm_value_is(rows, PM_OP_reshape) && rows->def->operands[0] == y);
    ck_assert_ptr_eq(fold(OP(reshape, PM_OPERANDS(flat, shape_of(y)), PM_NO_ATTRS)), y);
    ck_assert_ptr_eq(fold(OP(reshape, PM_OPERANDS(y, INTS(0, 0, 8)), PM_NO_ATTRS)), y);

    // an extent that the inner one finds needs it
    pm_value *found = OP(reshape, PM_OPERANDS(y, ARG(PM_I64, c(3))), PM_NO_ATTRS), *turned;
    const pm_dim *unknown = found->type->dims;
    const pm_dim order[] = {unknown[1], unknown[0], unknown[2]};
    ck_assert_int_eq(pm_build_reshape_dims(&b, found, 3, order, &turned), PM_OK);
    ck_assert_ptr_null(fold(turned));

    ck_assert_ptr_eq(fold(slice(y, INTS(0), INTS(INT64_MAX), 1, 1)), y);
    ck_assert_ptr_null(fold(slice(y, INTS(-1), INTS(INT64_MIN), 1, -1)));
    ck_assert_ptr_null(fold(slice(y, INTS(0), INTS(3), 2, 1)));
    ck_assert_ptr_eq(fold(OP(expand, PM_OPERANDS(y, INTS(1)), PM_NO_ATTRS)), y);
    pm_value *nothing = ARG(PM_F32, B, c(0), c(8)), *some = ARG(PM_F32, B, T, c(8));
    ck_assert_ptr_eq(fold(OP(concat, PM_OPERANDS(nothing, y), PM_ATTRS(pm_attr_i64("axis", 1)))),
                     y);
    pm_value *joined =
        fold(OP(concat, PM_OPERANDS(some, nothing, y), PM_ATTRS(pm_attr_i64("axis", 1))));
    ck_assert(pm_value_is(joined, PM_OP_concat) && joined->def->n_operands == 2);
    ck_assert_ptr_eq(fold(OP(gather, PM_OPERANDS(ARG(PM_F32, c(2)), INTS(0, 1)), PM_NO_ATTRS)),
                     g->args.data[g->args.n - 1]);
    ck_assert_ptr_null(fold(OP(gather, PM_OPERANDS(ARG(PM_F32, c(2)), INTS(1, 0)), PM_NO_ATTRS)));

    const int64_t one[] = {1};
    ck_assert_ptr_eq(fold(OP(reduce_max, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("axes", one, 1)))),
                     x);
    ck_assert_ptr_null(
        fold(OP(reduce_sum, PM_OPERANDS(x), PM_ATTRS(pm_attr_ints("axes", one, 1)))));

    const int64_t matrix[] = {0, 2, 1};
    pm_value *k = ARG(PM_F32, B, P, c(8));
    pm_value *k_t = OP(transpose, PM_OPERANDS(k), PM_ATTRS(pm_attr_ints("perm", matrix, 3)));
    pm_value *product = fold(OP(matmul, PM_OPERANDS(y, k_t), PM_NO_ATTRS));
    ck_assert(pm_value_is(product, PM_OP_matmul) && product->def->operands[1] == k &&
              pm_op_i64(product->def, "trans_b") == 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("infer");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, broadcasting);
    tcase_add_test(tc, integer_content);
    tcase_add_test(tc, reshaping);
    tcase_add_test(tc, reshaping_to_extents);
    tcase_add_test(tc, transposing_joining_splitting);
    tcase_add_test(tc, slicing);
    tcase_add_test(tc, slice_extents_follow_the_definition);
    tcase_add_test(tc, data_movement);
    tcase_add_test(tc, reductions);
    tcase_add_test(tc, products);
    tcase_add_test(tc, language_models);
    tcase_add_test(tc, whole_attention);
    tcase_add_test(tc, recurrences);
    tcase_add_test(tc, mixture_of_experts);
    tcase_add_test(tc, loops);
    tcase_add_test(tc, choices_between_extents);
    tcase_add_test(tc, overflowing_extents_are_refused);
    tcase_add_test(tc, identities);
    tcase_add_test(tc, identities_of_movement);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
