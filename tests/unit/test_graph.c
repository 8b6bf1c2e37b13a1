/// Graph edits, attributes, clones, and what the verifier finds.
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "ir/text.h"

static pm_arena *arena;
static pm_module *m;
static pm_graph *g;
static pm_builder b;
static const pm_type *f32_4, *i64_2;
static pm_value *x, *y;

static void setup(void)
{
    arena = pm_arena_create();
    m = pm_module_create(arena, pm_diag_create(arena), "test");
    g = pm_entry_create(m, "main");
    pm_loc loc = {.file = "test.onnx", .what = "node", .name = "n"};
    b = (pm_builder){g, NULL, pm_loc_intern(m, &loc)};
    pm_dim four = pm_dim_const(m, 4), two = pm_dim_const(m, 2);
    f32_4 = pm_type_get(m, PM_F32, 1, &four);
    i64_2 = pm_type_get(m, PM_I64, 1, &two);
    x = pm_graph_add_arg(g, "x", f32_4, -1);
    y = pm_graph_add_arg(g, "y", f32_4, -1);
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

static pm_value *add(pm_value *a, pm_value *c)
{
    pm_value *result;
    ck_assert_int_eq(pm_build1(&b, &result, PM_OP_add, PM_OPERANDS(a, c), PM_NO_ATTRS), PM_OK);
    return result;
}

/// The text of the only (or last) error; the test fails when there is none.
static const char *last_error(void)
{
    size_t n = pm_diag_size(m->diag);
    ck_assert_uint_gt(n, 0);
    return pm_diag_at(m->diag, n - 1)->text;
}

#define CONTAINS(text, part) ck_assert_msg(strstr(text, part), "'%s' lacks '%s'", text, part)

START_TEST(uses_follow_edits)
{
    pm_value *s = add(x, x), *t = add(s, y);
    ck_assert_uint_eq(pm_value_use_count(x), 2);
    ck_assert_uint_eq(pm_value_use_count(s), 1);
    pm_graph_add_result(g, "out", t, -1);
    pm_graph_add_result(g, "same", s, -1);
    ck_assert_uint_eq(pm_value_use_count(s), 2);
    pm_op_set_operand(s->def, 0, y);
    ck_assert_uint_eq(pm_value_use_count(x), 1);
    ck_assert_uint_eq(pm_value_use_count(y), 2);
    pm_value *u = add(y, y);
    pm_op_move_before(u->def, t->def);
    pm_value_replace(s, u);
    ck_assert_uint_eq(pm_value_use_count(s), 0);
    ck_assert_ptr_eq(g->results.data[1], u);
    ck_assert_ptr_eq(t->def->operands[0], u);
    pm_op_erase(s->def);
    ck_assert_uint_eq(pm_value_use_count(x), 0);
    ck_assert_ptr_eq(g->first, u->def);
    ck_assert_ptr_eq(g->last, t->def);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
}
END_TEST

START_TEST(many_uses_are_replaced_quickly)
{
    enum { N = 200000 };
    pm_value *old = add(x, y), *chain = x;
    for (int i = 0; i < N; i++)
        chain = add(chain, old);
    pm_value *fresh = add(y, y);
    pm_op_move_before(fresh->def, g->first);
    clock_t begin = clock();
    pm_value_replace(old, fresh);
    ck_assert_uint_eq(pm_value_use_count(fresh), N);
    pm_op_erase(old->def);
    pm_graph_add_result(g, "out", chain, -1);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
    ck_assert_msg(clock() - begin < 20 * CLOCKS_PER_SEC, "not linear");
}
END_TEST

START_TEST(attributes_are_matched)
{
    pm_op *op;
    pm_value *v;
    ck_assert_int_eq(pm_build(&b, PM_OP_softmax, &x, 1, PM_NO_ATTRS, 0, &op), PM_OK);
    ck_assert_uint_eq(op->n_attrs, 2);
    ck_assert_int_eq(pm_op_i64(op, "axis"), -1);
    ck_assert_int_eq(pm_op_i64(op, "log"), 0);
    ck_assert_ptr_eq(pm_op_attr(op, "axis")->key, pm_intern(m, "axis"));
    pm_op_set_i64(op, "axis", 0);
    ck_assert_int_eq(pm_op_i64(op, "axis"), 0);

    ck_assert_int_eq(
        pm_build1(&b, &v, PM_OP_softmax, PM_OPERANDS(x), PM_ATTRS(pm_attr_i64("axes", 0))),
        PM_ERR_INVALID);
    CONTAINS(last_error(), "did you mean 'axis'");
    ck_assert_int_eq(
        pm_build1(&b, &v, PM_OP_softmax, PM_OPERANDS(x), PM_ATTRS(pm_attr_str("axis", "0"))),
        PM_ERR_INVALID);
    CONTAINS(last_error(), "must be of kind i64, found str");
    ck_assert_int_eq(pm_build1(&b, &v, PM_OP_softmax, PM_OPERANDS(x),
                               PM_ATTRS(pm_attr_i64("axis", 0), pm_attr_i64("axis", 0))),
                     PM_ERR_INVALID);
    CONTAINS(last_error(), "given twice");
    ck_assert_int_eq(pm_build1(&b, &v, PM_OP_concat, PM_OPERANDS(x, y), PM_NO_ATTRS),
                     PM_ERR_INVALID);
    CONTAINS(last_error(), "needs the attribute 'axis'");
    ck_assert_int_eq(pm_build1(&b, &v, PM_OP_add, PM_OPERANDS(x), PM_NO_ATTRS), PM_ERR_INVALID);
    CONTAINS(last_error(), "add takes 2 operands, found 1");
    ck_assert_ptr_eq(g->last, op); // failures leave nothing behind
}
END_TEST

START_TEST(attributes_of_an_op_serve_another)
{
    // an optional attribute that the first one was not given is not given to the second one either
    pm_dim dims[] = {pm_dim_const(m, 16), pm_dim_const(m, 4)};
    pm_value *w = pm_graph_add_arg(g, "w", pm_type_get(m, PM_F32, 2, dims), -1), *first, *second;
    pm_attr panel = pm_attr_i64("panel", 16);
    ck_assert_int_eq(pm_build1(&b, &first, PM_OP_pack, PM_OPERANDS(w), &panel, 1), PM_OK);
    ck_assert(!pm_op_attr(first->def, "group")->present);
    ck_assert_int_eq(pm_build1(&b, &second, PM_OP_pack, PM_OPERANDS(w, w), first->def->attrs, first->def->n_attrs),
                     PM_OK);
    ck_assert(!pm_op_attr(second->def, "group")->present);
    ck_assert_int_eq(pm_op_i64(second->def, "panel"), 16);
}
END_TEST

START_TEST(attribute_values_follow_the_declared_order)
{
    pm_op *op;
    pm_dim dims[] = {pm_dim_symbol(m, "M", 0, 100), pm_dim_const(m, 8)};
    pm_value *scores = pm_graph_add_arg(g, "s", pm_type_get(m, PM_F32, 2, dims), -1);
    ck_assert_int_eq(pm_build(&b, PM_OP_route, &scores, 1,
                              PM_ATTRS(pm_attr_i64("scale", 2), pm_attr_i64("top_k", 2)), 0, &op),
                     PM_OK);
    pm_attr_value values[PM_MAX_ATTRS];
    pm_op_attr_values(op, values);
    ck_assert_int_eq(values[0].i, 2);
    ck_assert_str_eq(values[1].s, "softmax");
    ck_assert_int_eq(values[1].n, 7);
    ck_assert(values[4].f == 2 && values[4].present); // an integer was taken for a float
    dims[0] = pm_dim_const(m, 1);
    dims[1] = pm_dim_const(m, 1);
    pm_dim four[] = {dims[0], dims[0], dims[0], dims[0]};
    pm_value *conv[] = {pm_graph_add_arg(g, "i", pm_type_get(m, PM_F32, 4, four), -1),
                        pm_graph_add_arg(g, "w", pm_type_get(m, PM_F32, 4, four), -1)};
    ck_assert_int_eq(pm_build(&b, PM_OP_conv, conv, 2, PM_NO_ATTRS, 0, &op), PM_OK);
    pm_op_attr_values(op, values);
    ck_assert(values[0].present && !values[1].present); // strides have no default
}
END_TEST

START_TEST(the_table_is_whole)
{
    for (int code = 0; code < PM_OP_COUNT; code++) {
        const pm_op_info *info = &pm_op_table[code];
        pm_attr_decl decls[PM_MAX_ATTRS];
        pm_opcode parsed;
        ck_assert(pm_opcode_parse(info->name, &parsed) && (int)parsed == code);
        ck_assert_ptr_nonnull(info->infer);
        ck_assert_ptr_nonnull(info->help);
        ck_assert(info->help[0] && info->lower[0]);
        ck_assert_uint_le(pm_op_attr_decls((pm_opcode)code, decls), PM_MAX_ATTRS);
        ck_assert((info->eval == NULL) == (info->eval_name == NULL));
        ck_assert((info->extent == NULL) == (info->extent_name == NULL));
    }
    ck_assert_str_eq(pm_op_table[PM_OP_softmax].eval_name, "pm_eval_softmax");
    ck_assert_ptr_null(pm_op_table[PM_OP_const].eval_name);
    pm_opcode unused;
    ck_assert(!pm_opcode_parse("soft", &unused));
}
END_TEST

START_TEST(constants)
{
    pm_value *v;
    int64_t out[4];
    size_t n;
    ck_assert_int_eq(pm_build_const_ints(&b, PM_I32, 1, (int64_t[]){3}, (int64_t[]){-1, 0, 7}, &v),
                     PM_OK);
    ck_assert(pm_value_const_ints(v, out, 4, &n));
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(out[0], -1);
    ck_assert_int_eq(out[2], 7);
    ck_assert(!pm_value_const_ints(v, out, 2, &n));
    ck_assert_ptr_nonnull(v->content);
    ck_assert_ptr_nonnull(pm_value_const(v));
    ck_assert_ptr_null(pm_value_const(x));

    pm_data data = {.size = 12, .bytes = (const uint8_t *)"abcdabcdabcd"};
    ck_assert_int_eq(pm_build_const(&b, f32_4, &data, "w", &v), PM_ERR_INVALID);
    CONTAINS(last_error(), "needs 16 bytes, found 12");
    const pm_file file = {.path = "weights.bin", .fd = -1, .size = 20};
    data = (pm_data){.size = 16, .file = &file, .offset = 8};
    ck_assert_int_eq(pm_build_const(&b, f32_4, &data, "w", &v), PM_ERR_INVALID);
    CONTAINS(last_error(), "lie outside of weights.bin, which has 20");
    data.offset = UINT64_MAX - 3;
    ck_assert_int_eq(pm_build_const(&b, f32_4, &data, "w", &v), PM_ERR_INVALID);
}
END_TEST

/// An `if` that adds or passes on its captured value.
static pm_op *build_if(pm_value *condition)
{
    pm_op *op;
    ck_assert_int_eq(
        pm_op_create(g, NULL, PM_OP_if, b.loc, PM_OPERANDS(condition, x), PM_NO_ATTRS, 1, 2, &op),
        PM_OK);
    for (int r = 0; r < 2; r++) {
        pm_graph *region = pm_region_create(op);
        pm_value *v = pm_graph_add_arg(region, "v", f32_4, -1);
        pm_builder inner = {region, NULL, b.loc};
        pm_value *sum = v;
        if (r == 0)
            ck_assert_int_eq(pm_build1(&inner, &sum, PM_OP_add, PM_OPERANDS(v, v), PM_NO_ATTRS),
                             PM_OK);
        pm_graph_add_result(region, NULL, sum, -1);
    }
    ck_assert_int_eq(pm_op_infer(op), PM_OK);
    return op;
}

START_TEST(regions_are_cloned)
{
    pm_value *condition = pm_graph_add_arg(g, "c", pm_type_get(m, PM_BOOL, 0, NULL), -1);
    pm_op *op = build_if(condition), *copy;
    pm_map map;
    pm_map_init(&map, arena);
    pm_value_map_put(&map, x, y);
    ck_assert_int_eq(pm_op_clone(op, g, NULL, &map, &copy), PM_OK);
    ck_assert_ptr_eq(copy->operands[0], condition);
    ck_assert_ptr_eq(copy->operands[1], y);
    ck_assert_uint_eq(copy->n_regions, 2);
    ck_assert_ptr_ne(copy->regions[0], op->regions[0]);
    ck_assert_ptr_eq(copy->regions[0]->parent, copy);
    ck_assert_ptr_eq(copy->regions[0]->first->operands[0], copy->regions[0]->args.data[0]);
    ck_assert_ptr_eq(pm_value_map_get(&map, op->results[0]), copy->results[0]);
    pm_graph_add_result(g, "a", copy->results[0], -1);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
}
END_TEST

pm_fold_fn pm_fold_if;

START_TEST(a_known_if_folds)
{
    pm_value *yes;
    ck_assert_int_eq(pm_build_const_ints(&b, PM_BOOL, 0, NULL, (int64_t[]){1}, &yes), PM_OK);
    pm_op *op = build_if(yes);
    pm_value *value;
    pm_graph_add_result(g, "out", op->results[0], -1);
    pm_builder before = {g, op, b.loc};
    ck_assert_int_eq(pm_fold_if(&before, op, &value), PM_OK);
    ck_assert(pm_value_is(value, PM_OP_add));
    ck_assert_ptr_eq(value->def->operands[0], x);
    pm_value_replace(op->results[0], value);
    pm_op_erase(op);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
}
END_TEST

START_TEST(clones_get_extents_of_their_own)
{
    pm_op *op, *copy;
    ck_assert_int_eq(pm_build(&b, PM_OP_nonzero, &x, 1, PM_NO_ATTRS, 0, &op), PM_OK);
    const pm_type *type = op->results[0]->type;
    ck_assert_int_eq(pm_op_infer(op), PM_OK);
    ck_assert_ptr_eq(op->results[0]->type, type); // inferred again: the same symbol
    pm_map map;
    pm_map_init(&map, arena);
    ck_assert_int_eq(pm_op_clone(op, g, NULL, &map, &copy), PM_OK);
    ck_assert_ptr_eq(copy->results[0]->type, type);
    ck_assert_int_eq(pm_op_infer(copy), PM_OK);
    ck_assert_ptr_ne(copy->results[0]->type, type);
    type = copy->results[0]->type;
    ck_assert_int_eq(pm_op_infer(copy), PM_OK);
    ck_assert_ptr_eq(copy->results[0]->type, type);
}
END_TEST

START_TEST(operands_of_other_graphs_are_refused)
{
    pm_graph *other = pm_entry_create(m, "other");
    pm_value *z = pm_graph_add_arg(other, "z", f32_4, -1), *v;
    ck_assert_int_eq(pm_build1(&b, &v, PM_OP_add, PM_OPERANDS(x, z), PM_NO_ATTRS), PM_ERR_INVALID);
    CONTAINS(last_error(), "regions are isolated");
    ck_assert_int_eq(pm_build1(&b, &v, PM_OP_add, PM_OPERANDS(x, NULL), PM_NO_ATTRS),
                     PM_ERR_INVALID);
    CONTAINS(last_error(), "operand 1 of add is missing");
}
END_TEST

START_TEST(deep_regions_are_refused)
{
    pm_graph *inner = g;
    pm_status status = PM_OK;
    int depth = 0;
    for (; depth < 1000 && status == PM_OK; depth++) {
        pm_op *op;
        status = pm_op_create(inner, NULL, PM_OP_fused, b.loc, NULL, 0, NULL, 0, 0, 1, &op);
        if (status == PM_OK)
            inner = pm_region_create(op);
    }
    ck_assert_int_eq(status, PM_ERR_UNSUPPORTED);
    ck_assert_int_le(depth, PM_MAX_REGION_DEPTH + 1);
    CONTAINS(last_error(), "nested deeper than 64");
}
END_TEST

START_TEST(many_regions)
{
    enum { N = 500 };
    pm_op *op;
    pm_value *operands[] = {x, x, x};
    ck_assert_int_eq(pm_op_create(g, NULL, PM_OP_experts, b.loc, operands, 3,
                                  PM_ATTRS(pm_attr_i64("experts", N), pm_attr_i64("top_k", 2)), 1,
                                  0, &op),
                     PM_OK);
    pm_graph *regions[N];
    for (int i = 0; i < N; i++)
        regions[i] = pm_region_create(op);
    ck_assert_uint_eq(op->n_regions, N);
    for (int i = 0; i < N; i++)
        ck_assert_ptr_eq(op->regions[i], regions[i]);
}
END_TEST

START_TEST(locations)
{
    pm_loc loc = {.file = "a.onnx", .what = "node", .name = "n1"};
    const pm_loc *first = pm_loc_intern(m, &loc);
    ck_assert_ptr_eq(first, pm_loc_intern(m, &loc));
    const pm_loc *derived = pm_loc_derive(m, first, "fuse");
    ck_assert_ptr_eq(derived->from, first);
    ck_assert_str_eq(derived->by, "fuse");
    ck_assert_ptr_eq(derived, pm_loc_derive(m, first, "fuse"));
    ck_assert_ptr_eq(derived, pm_loc_derive(m, derived, "fuse"));
    ck_assert_ptr_eq(pm_intern(m, "abc"), pm_intern(m, "abc"));
}
END_TEST

START_TEST(the_verifier_finds_broken_graphs)
{
    pm_value *s = add(x, y), *t = add(s, y);
    pm_graph_add_result(g, "out", t, -1);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);

    pm_op_move_before(t->def, s->def);
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "operand 0 is used before it is defined");
    pm_op_move_before(s->def, t->def);

    const pm_type *type = t->type;
    t->type = i64_2;
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "result 0 is i64[2], must be f32[4]");
    t->type = type;

    pm_use *uses = x->uses;
    x->uses = NULL;
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "use list of operand 0 is broken");
    x->uses = uses;

    g->arg_states.data[0] = 3;
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "names state 3, there are 0");
    g->arg_states.data[0] = pm_state_add(m, "cache", i64_2);
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "state 'cache' is i64[2]");
    g->arg_states.data[0] = -1;

    pm_entry_create(m, "main");
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "two entries named 'main'");
}
END_TEST

START_TEST(the_verifier_reports_all_faults_and_makes_no_symbols)
{
    pm_value *n;
    ck_assert_int_eq(pm_build1(&b, &n, PM_OP_nonzero, PM_OPERANDS(x), PM_NO_ATTRS), PM_OK);
    pm_dim dims[] = {pm_dim_const(m, 1), pm_dim_const(m, 3)};
    n->type = pm_type_get(m, PM_I64, 2, dims); // says more than inference can know
    size_t n_symbols = m->symbols.n;
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
    ck_assert_uint_eq(m->symbols.n, n_symbols);
    for (int i = 0; i < 3; i++)
        add(x, y)->type = i64_2;
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    ck_assert_uint_eq(pm_diag_count(m->diag, PM_ERROR), 3);
}
END_TEST

START_TEST(symbols_are_found_in_time_and_copies_find_their_own)
{
    pm_op *first, *copy;
    ck_assert_int_eq(pm_build(&b, PM_OP_nonzero, &x, 1, PM_NO_ATTRS, 0, &first), PM_OK);
    pm_dim n = first->results[0]->type->dims[1];
    pm_value *dims;
    ck_assert_int_eq(pm_build_dims(&b, 1, &n, &dims), PM_OK);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
    pm_op_move_before(dims->def, first);
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "dims mentions n before its value is found");
    pm_op_move_before(dims->def, NULL);
    pm_map map;
    pm_map_init(&map, arena);
    ck_assert_int_eq(pm_op_clone(first, g, NULL, &map, &copy), PM_OK);
    ck_assert_int_eq(pm_module_verify(m), PM_ERR_INVALID);
    CONTAINS(last_error(), "of a copy has the extent n, which another op finds");
    ck_assert_int_eq(pm_op_infer(copy), PM_OK);
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
    // said to be equal: compared when the program runs
    copy->results[0]->type = first->results[0]->type;
    ck_assert_int_eq(pm_module_verify(m), PM_OK);
}
END_TEST

static volatile sig_atomic_t trapped;

static void on_trap(int signal_number)
{
    (void)signal_number;
    trapped++;
}

START_TEST(break_on_op)
{
    signal(SIGTRAP, on_trap);
    m->break_on_op = m->next_serial + 1;
    add(x, y);
    ck_assert_int_eq(trapped, 0);
    add(x, y);
    ck_assert_int_eq(trapped, 1);
    add(x, y);
    ck_assert_int_eq(trapped, 1);
    signal(SIGTRAP, SIG_DFL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("graph");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, uses_follow_edits);
    tcase_add_test(tc, many_uses_are_replaced_quickly);
    tcase_add_test(tc, attributes_are_matched);
    tcase_add_test(tc, attributes_of_an_op_serve_another);
    tcase_add_test(tc, attribute_values_follow_the_declared_order);
    tcase_add_test(tc, the_table_is_whole);
    tcase_add_test(tc, constants);
    tcase_add_test(tc, regions_are_cloned);
    tcase_add_test(tc, a_known_if_folds);
    tcase_add_test(tc, clones_get_extents_of_their_own);
    tcase_add_test(tc, operands_of_other_graphs_are_refused);
    tcase_add_test(tc, deep_regions_are_refused);
    tcase_add_test(tc, many_regions);
    tcase_add_test(tc, locations);
    tcase_add_test(tc, the_verifier_finds_broken_graphs);
    tcase_add_test(tc, the_verifier_reports_all_faults_and_makes_no_symbols);
    tcase_add_test(tc, symbols_are_found_in_time_and_copies_find_their_own);
    tcase_add_test(tc, break_on_op);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
