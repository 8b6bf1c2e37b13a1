/// Ops with random operands and attributes: inference and folding answer or refuse, never crash.
/// What they answer verifies, and is inferred again the same.
#include <check.h>
#include <stdlib.h>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "ir/text.h"

static uint64_t state;

static uint32_t random_below(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

static int64_t random_int(void)
{
    static const int64_t odd[] = {INT64_MIN, INT64_MAX,        INT32_MIN, INT32_MAX,
                                  -1,        INT64_C(1) << 62, 64,        INT64_MIN + 1};
    return random_below(8) == 0 ? odd[random_below(PM_COUNT(odd))] : (int64_t)random_below(9) - 3;
}

static pm_dim random_dim(pm_module *m)
{
    static const char *const names[] = {"B", "T", "past length"};
    if (random_below(3) == 0) {
        pm_dim d = pm_dim_find(m, names[random_below(PM_COUNT(names))]);
        return random_below(2) ? d : pm_dim_add(m, d, pm_dim_const(m, random_below(4)));
    }
    return pm_dim_const(m, random_below(30) == 0 ? INT64_C(1) << 40 : random_below(6));
}

static pm_value *random_value(pm_builder *b)
{
    pm_module *m = b->graph->module;
    pm_elem elem = (pm_elem)random_below(PM_ELEM_COUNT);
    pm_value *v;
    int64_t values[6], n = random_below(7);
    for (int i = 0; i < 6; i++)
        values[i] = random_int();
    switch (random_below(6)) {
    case 0: // shape-like
        ck_assert_int_eq(pm_build_const_ints(b, PM_I64, 1, &n, values, &v), PM_OK);
        return v;
    case 1:
        if (pm_elem_is_float(elem))
            elem = PM_I32;
        ck_assert_int_eq(pm_build_const_ints(b, elem, 0, NULL, values, &v), PM_OK);
        return v;
    case 2: { // an earlier one
        pm_op *op = b->graph->last;
        for (uint32_t back = random_below(12); op && back > 0; back--)
            op = op->prev;
        if (op && op->n_results > 0)
            return op->results[random_below(op->n_results)];
        break;
    }
    case 3: elem = PM_F32; break;
    default: break;
    }
    pm_dim dims[PM_MAX_RANK];
    int32_t rank = (int32_t)random_below(random_below(8) ? 5 : PM_MAX_RANK + 1);
    for (int32_t i = 0; i < rank; i++)
        dims[i] = random_dim(m);
    return pm_graph_add_arg(b->graph, NULL, pm_type_get(m, elem, rank, dims), -1);
}

static size_t random_attrs(pm_module *m, pm_opcode code, pm_attr *attrs)
{
    static const char *const words[] = {"none", "max", "constant", "softmax", "output", "top2", ""};
    pm_attr_decl decls[PM_MAX_ATTRS];
    size_t n_decls = pm_op_attr_decls(code, decls), n = 0;
    for (size_t i = 0; i < n_decls; i++) {
        size_t length = random_below(5);
        int64_t *ints = PM_NEW_ARRAY(m->arena, int64_t, length);
        double *floats = PM_NEW_ARRAY(m->arena, double, length);
        for (size_t k = 0; k < length; k++) {
            ints[k] = random_int();
            floats[k] = (double)random_int();
        }
        if (!decls[i].required && random_below(2))
            continue;
        const char *key = decls[i].key;
        switch (decls[i].kind) {
        case PM_ATTR_I64: attrs[n++] = pm_attr_i64(key, random_int()); break;
        case PM_ATTR_F64: attrs[n++] = pm_attr_f64(key, (double)random_int()); break;
        case PM_ATTR_BOOL: attrs[n++] = pm_attr_bool(key, random_below(2)); break;
        case PM_ATTR_ELEM: attrs[n++] = pm_attr_elem(key, random_below(PM_ELEM_COUNT)); break;
        case PM_ATTR_STR:
            attrs[n++] = pm_attr_str(key, words[random_below(PM_COUNT(words))]);
            break;
        case PM_ATTR_INTS: attrs[n++] = pm_attr_ints(key, ints, length); break;
        case PM_ATTR_FLOATS: attrs[n++] = pm_attr_floats(key, floats, length); break;
        case PM_ATTR_DATA: break;
        }
    }
    return n;
}

/// One random op at the end of the graph; true when it was accepted.
static bool grow(pm_builder *b)
{
    enum { MANY = 6, MOST = 12 };
    pm_module *m = b->graph->module;
    pm_opcode code = (pm_opcode)random_below(PM_OP_COUNT);
    const pm_op_info *info = &pm_op_table[code];
    pm_value *operands[MOST];
    pm_attr attrs[PM_MAX_ATTRS];
    if (info->n_regions != 0 || code == PM_OP_const || code == PM_OP_dims)
        return false;
    uint32_t most = info->max_in == PM_ANY ? MANY : info->max_in;
    uint32_t n = info->min_in + random_below(most - info->min_in + 1);
    ck_assert_uint_le(n, MOST);
    for (uint32_t i = 0; i < n; i++) {
        bool may_lack = i >= info->min_in || (code == PM_OP_slice && i >= 3);
        operands[i] = may_lack && random_below(3) == 0 ? NULL : random_value(b);
        if (i > 0 && operands[i] && random_below(2) == 0 && operands[0])
            operands[i] = operands[0]; // types that agree
    }
    size_t n_attrs = random_attrs(m, code, attrs);
    size_t n_results = info->n_out == PM_ANY ? random_below(4) : 0;
    pm_op *op;
    if (pm_build(b, code, operands, n, attrs, n_attrs, n_results, &op) != PM_OK)
        return false;
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        ck_assert_ptr_nonnull(type);
        for (int32_t d = 0; d < type->rank; d++)
            ck_assert(!pm_dim_is_error(m, type->dims[d]));
        const pm_dim *content = op->results[i]->content;
        ck_assert_int_eq(pm_op_infer(op), PM_OK);
        ck_assert_ptr_eq(op->results[i]->type, type);
        ck_assert_int_eq(content != NULL, op->results[i]->content != NULL);
    }
    if (info->fold && op->n_results == 1) {
        pm_value *folded;
        pm_builder at = {b->graph, op, op->loc};
        ck_assert_int_eq(info->fold(&at, op, &folded), PM_OK);
        if (folded)
            ck_assert_ptr_eq(folded->type, op->results[0]->type);
    }
    return true;
}

START_TEST(random_ops)
{
    enum { GRAPHS = 100, TRIES = 400 };
    size_t accepted = 0;
    for (int round = 0; round < GRAPHS; round++) {
        state = (uint64_t)round + 1;
        pm_arena *arena = pm_arena_create();
        pm_module *m = pm_module_create(arena, pm_diag_create(arena), "random");
        pm_graph *g = pm_entry_create(m, "main");
        pm_builder b = {g, NULL, pm_loc_intern(m, NULL)};
        pm_dim_symbol(m, "B", 1, 64);
        pm_dim_symbol(m, "T", 0, INT64_MAX);
        pm_dim_symbol(m, "past length", 0, 4096);
        for (int i = 0; i < TRIES; i++)
            accepted += grow(&b);
        pm_status status = pm_module_verify(m);
        if (status != PM_OK) {
            fprintf(stderr, "seed %d\n", round + 1);
            const pm_diag *diag = m->diag;
            for (size_t i = pm_diag_size(diag) < 3 ? 0 : pm_diag_size(diag) - 3;
                 i < pm_diag_size(diag); i++)
                fprintf(stderr, "%s\n", pm_diag_at(diag, i)->text);
        }
        ck_assert_int_eq(status, PM_OK);
        pm_arena_destroy(arena);
    }
    ck_assert_uint_gt(accepted, GRAPHS * TRIES / 20); // it isn't all noise
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("infer_random");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, random_ops);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
