/// Symbolic dims and types: canonical forms, ranges, bounds, evaluation, text.
#include <check.h>
#include <stdlib.h>

#include "ir/graph.h"

static pm_arena *arena;
static pm_module *m;
static pm_dim b, t, p, zero, one;

static void setup(void)
{
    arena = pm_arena_create();
    m = pm_module_create(arena, pm_diag_create(arena), "test");
    b = pm_dim_symbol(m, "B", 1, 64);
    t = pm_dim_symbol(m, "T", 0, INT64_MAX);
    p = pm_dim_symbol(m, "P", 0, INT64_MAX);
    zero = pm_dim_const(m, 0);
    one = pm_dim_const(m, 1);
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

static pm_dim c(int64_t value)
{
    return pm_dim_const(m, value);
}

#define ADD(x, y) pm_dim_add(m, x, y)
#define SUB(x, y) pm_dim_sub(m, x, y)
#define MUL(x, y) pm_dim_mul(m, x, y)
#define DIV(x, y) pm_dim_floordiv(m, x, y)
#define CDIV(x, y) pm_dim_ceildiv(m, x, y)
#define MOD(x, y) pm_dim_mod(m, x, y)
#define MIN(x, y) pm_dim_min(m, x, y)
#define MAX(x, y) pm_dim_max(m, x, y)
#define TEXT(x, expected) ck_assert_str_eq(pm_dim_text(m, x), expected)

START_TEST(sums_are_canonical)
{
    ck_assert_int_eq(ADD(b, t), ADD(t, b));
    ck_assert_int_eq(ADD(ADD(b, t), p), ADD(b, ADD(p, t)));
    ck_assert_int_eq(SUB(ADD(b, t), t), b);
    ck_assert_int_eq(SUB(t, t), zero);
    ck_assert_int_eq(ADD(t, zero), t);
    ck_assert_int_eq(ADD(t, t), MUL(c(2), t));
    ck_assert_int_eq(ADD(ADD(t, c(3)), c(-3)), t);
    ck_assert_int_ne(t, p);
    TEXT(ADD(c(3), ADD(t, MUL(b, t))), "B*T + T + 3");
    TEXT(SUB(zero, t), "-T");
    TEXT(SUB(SUB(p, MUL(c(2), t)), one), "P - 2*T - 1");
    TEXT(c(INT64_MIN), "-9223372036854775808");
}
END_TEST

START_TEST(products_are_canonical)
{
    ck_assert_int_eq(MUL(b, t), MUL(t, b));
    ck_assert_int_eq(MUL(MUL(b, t), p), MUL(b, MUL(p, t)));
    ck_assert_int_eq(MUL(t, zero), zero);
    ck_assert_int_eq(MUL(t, one), t);
    ck_assert_int_eq(MUL(ADD(b, one), t), ADD(MUL(b, t), t));
    ck_assert_int_eq(MUL(ADD(t, p), SUB(t, p)), SUB(MUL(t, t), MUL(p, p)));
    TEXT(MUL(MUL(c(4), t), b), "4*B*T");
}
END_TEST

START_TEST(exact_divisions_vanish)
{
    ck_assert_int_eq(DIV(MUL(b, c(8)), c(8)), b);
    ck_assert_int_eq(DIV(MUL(MUL(b, t), c(64)), MUL(t, c(8))), MUL(b, c(8)));
    ck_assert_int_eq(DIV(MUL(b, ADD(t, p)), ADD(t, p)), b);
    ck_assert_int_eq(DIV(MUL(ADD(b, one), ADD(t, p)), ADD(b, one)), ADD(t, p));
    ck_assert_int_eq(CDIV(t, one), t);
    ck_assert_int_eq(CDIV(MUL(t, c(16)), c(16)), t);
    ck_assert_int_eq(MOD(MUL(MUL(b, t), c(4)), MUL(t, c(2))), zero);
    ck_assert_int_eq(DIV(c(-7), c(2)), c(-4));
    ck_assert_int_eq(CDIV(c(-7), c(2)), c(-3));
    ck_assert_int_eq(CDIV(c(7), c(2)), c(4));
    ck_assert_int_eq(MOD(c(-7), c(4)), one);
}
END_TEST

START_TEST(inexact_divisions_simplify)
{
    TEXT(DIV(t, c(2)), "floordiv(T, 2)");
    ck_assert_int_eq(DIV(ADD(MUL(t, c(2)), one), c(2)), t);
    ck_assert_int_eq(DIV(MUL(t, c(4)), c(8)), DIV(t, c(2)));
    ck_assert_int_eq(DIV(DIV(t, c(2)), c(3)), DIV(t, c(6)));
    ck_assert_int_eq(CDIV(ADD(t, c(16)), c(16)), ADD(CDIV(t, c(16)), one));
    ck_assert_int_eq(DIV(SUB(b, one), c(64)), zero); // B is at most 64
    ck_assert_int_eq(CDIV(b, c(64)), one);           // and at least 1
    ck_assert_int_eq(MOD(ADD(MUL(t, c(6)), p), c(3)), MOD(p, c(3)));
    ck_assert_int_eq(MOD(SUB(b, one), c(64)), SUB(b, one));
    // x mod 0 and x div 0 have no value, and spread
    ck_assert(pm_dim_is_error(m, DIV(t, zero)));
    ck_assert(pm_dim_is_error(m, MOD(t, zero)));
    ck_assert(pm_dim_is_error(m, ADD(b, MUL(t, DIV(one, zero)))));
}
END_TEST

START_TEST(min_and_max)
{
    ck_assert_int_eq(MIN(t, t), t);
    ck_assert_int_eq(MIN(t, ADD(t, p)), t); // P is never negative
    ck_assert_int_eq(MAX(t, ADD(t, p)), ADD(t, p));
    ck_assert_int_eq(MAX(t, zero), t);
    ck_assert_int_eq(MIN(b, c(100)), b);
    ck_assert_int_eq(MIN(c(5), c(3)), c(3));
    ck_assert_int_eq(MIN(MIN(t, p), c(9)), MIN(c(9), MIN(p, t)));
    ck_assert_int_eq(MIN(MIN(t, c(4)), c(9)), MIN(t, c(4)));
    ck_assert_int_eq(MAX(MAX(t, p), t), MAX(p, t));
    TEXT(MIN(t, c(4)), "min(T, 4)");
    TEXT(MAX(MIN(t, p), ADD(b, one)), "max(min(P, T), B + 1)");
}
END_TEST

START_TEST(overflow_is_an_error_not_a_wrap)
{
    pm_dim huge = c(INT64_MAX);
    ck_assert(pm_dim_is_error(m, ADD(huge, one)));
    ck_assert(pm_dim_is_error(m, MUL(huge, c(2))));
    ck_assert(pm_dim_is_error(m, MUL(MUL(t, huge), c(2))));
    ck_assert(pm_dim_is_error(m, DIV(c(INT64_MIN), c(-1))));
    int64_t value, bindings[3] = {1, INT64_MAX, 2};
    ck_assert(!pm_dim_eval(m, MUL(t, p), bindings, &value));
    ck_assert(!pm_dim_eval(m, DIV(one, zero), bindings, &value));
    TEXT(DIV(one, zero), "floordiv(1, 0)");
}
END_TEST

START_TEST(huge_expressions_are_refused)
{
    // each step would double the tree
    pm_dim x = t, y = p;
    for (int i = 0; i < 64; i++) {
        pm_dim next = MIN(ADD(x, y), MUL(x, c(2)));
        y = MAX(x, SUB(y, one));
        x = next;
    }
    ck_assert(pm_dim_is_error(m, x) || strlen(pm_dim_text(m, x)) < 1 << 20);
    // a sum of many symbols is fine
    pm_dim sum = zero;
    for (int i = 0; i < 600; i++)
        sum = ADD(sum, pm_dim_fresh(m, "n", c(10)));
    ck_assert(!pm_dim_is_error(m, sum));
    ck_assert_int_eq(pm_dim_upper(m, sum), c(6000));
    // a product of very many isn't
    pm_dim product = one;
    for (int i = 0; i < 100; i++)
        product = MUL(product, pm_dim_symbol(m, "s", 0, 4));
    ck_assert(pm_dim_is_error(m, product));
}
END_TEST

START_TEST(ranges)
{
    int64_t lo, hi;
    pm_dim_range(m, ADD(b, c(3)), &lo, &hi);
    ck_assert_int_eq(lo, 4);
    ck_assert_int_eq(hi, 67);
    pm_dim_range(m, SUB(b, t), &lo, &hi);
    ck_assert_int_eq(lo, INT64_MIN);
    ck_assert_int_eq(hi, 64);
    pm_dim_range(m, MUL(b, c(-2)), &lo, &hi);
    ck_assert_int_eq(lo, -128);
    ck_assert_int_eq(hi, -2);
    pm_dim_range(m, DIV(b, c(3)), &lo, &hi);
    ck_assert_int_eq(lo, 0);
    ck_assert_int_eq(hi, 21);
    pm_dim_range(m, MOD(t, c(16)), &lo, &hi);
    ck_assert_int_eq(lo, 0);
    ck_assert_int_eq(hi, 15);
    pm_dim_range(m, MUL(b, t), &lo, &hi);
    ck_assert_int_eq(lo, 0);
    ck_assert_int_eq(hi, INT64_MAX);
    ck_assert(pm_dim_differs(m, t, ADD(t, one)));
    ck_assert(!pm_dim_differs(m, t, MUL(t, c(2)))); // equal when T is 0
    ck_assert(pm_dim_at_most(m, t, ADD(t, p)));
    ck_assert(!pm_dim_at_most(m, ADD(t, p), t));
}
END_TEST

START_TEST(symbols)
{
    uint32_t symbol;
    ck_assert_int_eq(pm_dim_find(m, "T"), t);
    ck_assert_int_eq(pm_dim_find(m, "none"), PM_DIM_NONE);
    pm_dim again = pm_dim_symbol(m, "T", 2, 5);
    ck_assert_int_ne(again, t);
    TEXT(again, "T_1");
    TEXT(pm_dim_symbol(m, "T", 2, 5), "T_2");
    ck_assert(pm_dim_is_symbol(m, t, &symbol));
    ck_assert_uint_eq(symbol, 1);
    ck_assert(!pm_dim_is_symbol(m, ADD(t, one), NULL));
    TEXT(pm_dim_symbol(m, "past + 1", 0, 9), "\"past + 1\"");
    TEXT(pm_dim_symbol(m, "a\"b\\c\n", 0, 9), "\"a\\\"b\\\\c\\x0a\"");
    TEXT(pm_dim_symbol(m, "min", 0, 9), "\"min\"");
}
END_TEST

START_TEST(upper_bounds)
{
    pm_dim n = pm_dim_fresh(m, "n", MUL(t, c(2)));
    pm_dim free_n = pm_dim_fresh(m, "n", PM_DIM_NONE);
    ck_assert(pm_dim_is_dynamic(m, ADD(n, one)));
    ck_assert(!pm_dim_is_dynamic(m, ADD(t, one)));
    ck_assert_int_eq(pm_dim_upper(m, t), t);
    ck_assert_int_eq(pm_dim_upper(m, ADD(MUL(n, b), one)), ADD(MUL(MUL(t, c(2)), b), one));
    ck_assert_int_eq(pm_dim_upper(m, SUB(c(10), n)), c(10)); // n is at least 0
    ck_assert_int_eq(pm_dim_upper(m, free_n), PM_DIM_NONE);
    ck_assert_int_eq(pm_dim_upper(m, MIN(free_n, c(7))), c(7));
    ck_assert_int_eq(pm_dim_upper(m, MAX(free_n, c(7))), PM_DIM_NONE);
    ck_assert_int_eq(pm_dim_upper(m, CDIV(n, c(16))), CDIV(MUL(t, c(2)), c(16)));
    ck_assert_int_eq(pm_dim_upper(m, MOD(n, c(16))), c(15));
    // a bound over data-dependent symbols is resolved at once
    pm_dim inner = pm_dim_fresh(m, "n", n);
    ck_assert_int_eq(m->symbols.data[m->symbols.n - 1].bound, MUL(t, c(2)));
    ck_assert_int_eq(pm_dim_upper(m, inner), MUL(t, c(2)));
}
END_TEST

START_TEST(replacing)
{
    uint32_t symbol;
    ck_assert(pm_dim_is_symbol(m, t, &symbol));
    ck_assert_int_eq(pm_dim_replace(m, ADD(MUL(t, b), p), symbol, c(4)), ADD(MUL(b, c(4)), p));
    ck_assert_int_eq(pm_dim_replace(m, DIV(t, c(2)), symbol, MUL(p, c(2))), p);
    ck_assert_int_eq(pm_dim_replace(m, b, symbol, p), b);
}
END_TEST

START_TEST(cases_of_zero)
{
    pm_dim n = pm_dim_fresh(m, "n", MUL(t, c(2)));
    pm_dim free_n = pm_dim_fresh(m, "n", PM_DIM_NONE);
#define SIMPLE(x, expected) ck_assert_int_eq(pm_dim_simplify(m, x), expected)
    SIMPLE(MUL(MIN(t, one), t), t);
    SIMPLE(MAX(SUB(ADD(MIN(t, one), t), one), zero), t);
    SIMPLE(MUL(MIN(MUL(t, p), one), MUL(t, p)), MUL(t, p));
    SIMPLE(MUL(MIN(t, one), n), n); // where T is 0, so is n
    pm_dim kept = MUL(MIN(t, one), free_n);
    SIMPLE(kept, kept);
    SIMPLE(MIN(t, one), MIN(t, one));
    SIMPLE(MAX(t, p), MAX(t, p));
    SIMPLE(MUL(MIN(MIN(t, p), one), MAX(t, p)), MUL(MIN(MIN(t, p), one), MAX(t, p)));
    SIMPLE(PM_DIM_NONE, PM_DIM_NONE);
#undef SIMPLE
    int64_t lo, hi; // symbols are left as they were
    pm_dim_range(m, t, &lo, &hi);
    ck_assert(lo == 0 && hi == INT64_MAX);
}
END_TEST

/// Random expressions, simplified as they are built, against plain arithmetic on the same numbers.
START_TEST(simplification_keeps_values)
{
    enum { POOL = 24, ROUNDS = 4000 };
    pm_dim pool[POOL];
    int64_t value[POOL], bindings[3];
    unsigned seed = 1;
#define RANDOM(n) ((int)((seed = seed * 1103515245u + 12345u) >> 16) % (n))
    for (int round = 0; round < ROUNDS; round++) {
        bindings[0] = 1 + RANDOM(64);
        bindings[1] = RANDOM(3) ? RANDOM(50) : 0;
        bindings[2] = RANDOM(50);
        const pm_dim symbols[3] = {b, t, p};
        int n = 0;
        for (; n < 3; n++) {
            pool[n] = symbols[n];
            value[n] = bindings[n];
        }
        for (; n < 8; n++) {
            value[n] = RANDOM(9) - 2;
            pool[n] = c(value[n]);
        }
        for (; n < POOL; n++) {
            int i = RANDOM(n), j = RANDOM(n);
            int64_t x = value[i], y = value[j], q = y ? x / y : 0, r = y ? x % y : 0;
            pm_dim d = PM_DIM_NONE;
            switch (RANDOM(8)) {
            case 0:
                d = ADD(pool[i], pool[j]);
                value[n] = x + y;
                break;
            case 1:
                d = SUB(pool[i], pool[j]);
                value[n] = x - y;
                break;
            case 2:
                if (llabs(x) < 1 << 20 && llabs(y) < 1 << 20) {
                    d = MUL(pool[i], pool[j]);
                    value[n] = x * y;
                }
                break;
            case 3:
                d = MIN(pool[i], pool[j]);
                value[n] = x < y ? x : y;
                break;
            case 4:
                d = MAX(pool[i], pool[j]);
                value[n] = x > y ? x : y;
                break;
            case 5:
                if (y > 0) {
                    d = DIV(pool[i], pool[j]);
                    value[n] = q - (r < 0);
                }
                break;
            case 6:
                if (y > 0) {
                    d = CDIV(pool[i], pool[j]);
                    value[n] = q + (r > 0);
                }
                break;
            case 7:
                if (y > 0) {
                    d = MOD(pool[i], pool[j]);
                    value[n] = r < 0 ? r + y : r;
                }
                break;
            }
            if (d == PM_DIM_NONE || pm_dim_is_error(m, d)) {
                n--;
                continue;
            }
            pool[n] = d;
            int64_t found, lo, hi;
            // an exact quotient of a multiple may stand where an inner division by 0 would not
            if (pm_dim_eval(m, d, bindings, &found))
                ck_assert_msg(found == value[n], "%s is %lld, must be %lld", pm_dim_text(m, d),
                              (long long)found, (long long)value[n]);
            pm_dim simple = pm_dim_simplify(m, d);
            if (pm_dim_eval(m, d, bindings, &found) && pm_dim_eval(m, simple, bindings, &found))
                ck_assert_msg(found == value[n], "%s, of %s, is %lld, must be %lld",
                              pm_dim_text(m, simple), pm_dim_text(m, d), (long long)found,
                              (long long)value[n]);
            pm_dim_range(m, d, &lo, &hi);
            ck_assert_msg(lo <= value[n] && value[n] <= hi, "%s = %lld is out of [%lld, %lld]",
                          pm_dim_text(m, d), (long long)value[n], (long long)lo, (long long)hi);
        }
    }
#undef RANDOM
}
END_TEST

START_TEST(types_are_interned)
{
    const pm_dim dims[] = {b, t, c(64)};
    const pm_type *type = pm_type_get(m, PM_F32, 3, dims);
    ck_assert_ptr_eq(type, pm_type_get(m, PM_F32, 3, dims));
    ck_assert_ptr_ne(type, pm_type_get(m, PM_F64, 3, dims));
    ck_assert_ptr_ne(type, pm_type_get(m, PM_F32, 2, dims));
    ck_assert_str_eq(pm_type_text(m, type), "f32[B, T, 64]");
    ck_assert_str_eq(pm_type_text(m, pm_type_get(m, PM_BOOL, 0, NULL)), "bool[]");
    TEXT(pm_type_count(m, type), "64*B*T");
    TEXT(pm_type_bytes(m, type), "256*B*T");
    int64_t count;
    ck_assert(!pm_type_const_count(m, type, &count));
    ck_assert(pm_type_const_count(m, pm_type_get(m, PM_F32, 0, NULL), &count));
    ck_assert_int_eq(count, 1);
    const pm_dim huge[] = {c(INT64_C(1) << 40), c(INT64_C(1) << 40)};
    ck_assert(!pm_type_const_count(m, pm_type_get(m, PM_F32, 2, huge), &count));
    ck_assert(pm_dim_is_error(m, pm_type_count(m, pm_type_get(m, PM_F32, 2, huge))));
}
END_TEST

START_TEST(packed_types_count_their_padding)
{
    const pm_dim dims[] = {c(3), c(50), c(7)};
    const pm_layout layout = {.panel = 16, .pair = 2, .ways = 1};
    const pm_type *type = pm_type_packed(m, PM_BF16, 3, dims, layout);
    ck_assert_ptr_eq(type, pm_type_packed(m, PM_BF16, 3, dims, layout));
    ck_assert_ptr_ne(type, pm_type_get(m, PM_BF16, 3, dims));
    ck_assert_int_eq(pm_type_bytes(m, type), c(3 * 64 * 8 * 2));
    ck_assert_int_eq(pm_type_count(m, type), c(3 * 50 * 7));
    ck_assert_str_eq(pm_type_text(m, type), "bf16[3, 50, 7]{panel=16, pair=2, ways=1}");
}
END_TEST

START_TEST(element_types)
{
    pm_elem elem;
    ck_assert(pm_elem_parse("bf16", &elem) && elem == PM_BF16);
    ck_assert(!pm_elem_parse("f31", &elem));
    ck_assert(pm_elem_from_onnx(7, &elem) && elem == PM_I64);
    ck_assert(!pm_elem_from_onnx(8, &elem)); // strings
    ck_assert(pm_elem_is_int(PM_U8) && !pm_elem_is_int(PM_BOOL) && !pm_elem_is_int(PM_F16));
    ck_assert_uint_eq(pm_elem_size(PM_BF16), 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("type");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, sums_are_canonical);
    tcase_add_test(tc, products_are_canonical);
    tcase_add_test(tc, exact_divisions_vanish);
    tcase_add_test(tc, inexact_divisions_simplify);
    tcase_add_test(tc, min_and_max);
    tcase_add_test(tc, overflow_is_an_error_not_a_wrap);
    tcase_add_test(tc, huge_expressions_are_refused);
    tcase_add_test(tc, ranges);
    tcase_add_test(tc, symbols);
    tcase_add_test(tc, upper_bounds);
    tcase_add_test(tc, replacing);
    tcase_add_test(tc, cases_of_zero);
    tcase_add_test(tc, simplification_keeps_values);
    tcase_add_test(tc, types_are_interned);
    tcase_add_test(tc, packed_types_count_their_padding);
    tcase_add_test(tc, element_types);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
