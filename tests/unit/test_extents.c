/// Two places know an op's result extents: inference, from known content, and the extent hook, from
/// the data at run time. On the same data they must agree, or both refuse.
#include <check.h>
#include <stdlib.h>

#include "ir/builder.h"
#include "ir/op_table.h"

static uint64_t state;

static int64_t between(int64_t lo, int64_t hi)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return lo + (int64_t)((state >> 33) % (uint64_t)(hi - lo + 1));
}

/// A constant beside the tensor that a run would see.
typedef struct operand {
    pm_value *value;
    pm_tensor tensor;
    int64_t dims[PM_MAX_RANK];
    int64_t data[16];
} operand;

static pm_value *ints(pm_builder *b, operand *o, int32_t rank, int64_t n, const int64_t *values)
{
    memcpy(o->data, values, (size_t)n * sizeof *values);
    o->dims[0] = n;
    o->tensor = (pm_tensor){o->data, o->dims, rank, PM_I64};
    ck_assert_int_eq(pm_build_const_ints(b, PM_I64, rank, o->dims, o->data, &o->value), PM_OK);
    return o->value;
}

/// A list of n numbers of [lo, hi].
static void list(pm_builder *b, operand *o, int64_t n, int64_t lo, int64_t hi)
{
    int64_t values[16];
    for (int64_t i = 0; i < n; i++)
        values[i] = between(0, 19) == 0 ? (between(0, 1) ? INT64_MAX : INT64_MIN) : between(lo, hi);
    ints(b, o, 1, n, values);
}

static void tensor(pm_builder *b, operand *o, int32_t rank, int64_t lo, int64_t hi)
{
    pm_module *m = b->graph->module;
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < rank; i++) {
        o->dims[i] = between(lo, hi);
        dims[i] = pm_dim_const(m, o->dims[i]);
    }
    // hooks read only the shape of what isn't a list
    o->tensor = (pm_tensor){o->data, o->dims, rank, PM_F32};
    o->value = pm_graph_add_arg(b->graph, NULL, pm_type_get(m, PM_F32, rank, dims), -1);
}

/// Random operands for one op; returns their number, 0 for ops that aren't tried.
static uint32_t make_operands(pm_builder *b, pm_opcode code, operand *o, uint32_t *n_results)
{
    int32_t rank = (int32_t)between(1, 3);
    *n_results = 1;
    switch (code) {
    case PM_OP_reshape:
        tensor(b, &o[0], rank, 0, 4);
        list(b, &o[1], between(0, 3), -1, 8);
        return 2;
    case PM_OP_split:
        *n_results = (uint32_t)between(1, 4);
        tensor(b, &o[0], rank, 0, 9);
        list(b, &o[1], *n_results, 0, 4);
        return (uint32_t)between(1, 2);
    case PM_OP_slice: {
        int64_t axes[3] = {0, 1, 2}, n = between(1, rank);
        for (int i = 0; i < 3; i++)
            axes[i] = between(0, 1) ? axes[i] : axes[i] - rank;
        tensor(b, &o[0], rank, 0, 6);
        list(b, &o[1], n, -8, 8);
        list(b, &o[2], n, -8, 8);
        ints(b, &o[3], 1, n, axes);
        list(b, &o[4], n, -3, 3);
        return 5;
    }
    case PM_OP_expand:
        tensor(b, &o[0], rank, 0, 3);
        list(b, &o[1], between(0, 4), 0, 3);
        return 2;
    case PM_OP_tile:
        tensor(b, &o[0], rank, 0, 4);
        list(b, &o[1], rank, -1, 3);
        return 2;
    case PM_OP_pad:
        tensor(b, &o[0], rank, 0, 4);
        list(b, &o[1], 2 * rank, -2, 3);
        return 2;
    case PM_OP_range:
        for (int i = 0; i < 3; i++)
            ints(b, &o[i], 0, 1, (int64_t[]){between(-9, 9)});
        return 3;
    case PM_OP_kv_append:
        tensor(b, &o[0], 4, 1, 3);
        ints(b, &o[1], 1, 1, (int64_t[]){0});
        ints(b, &o[2], 0, 1, (int64_t[]){between(0, 6)});
        return 3;
    case PM_OP_fill:
        list(b, &o[0], between(0, 4), -1, 4);
        tensor(b, &o[1], 0, 0, 0);
        return 2;
    case PM_OP_onehot:
        tensor(b, &o[0], rank, 0, 4);
        ints(b, &o[1], 0, 1, (int64_t[]){between(-1, 6)});
        tensor(b, &o[2], 1, 2, 2);
        return 3;
    case PM_OP_topk:
        *n_results = 2;
        tensor(b, &o[0], rank, 0, 5);
        ints(b, &o[1], 1, 1, (int64_t[]){between(-1, 6)});
        return 2;
    default: return 0;
    }
}

/// The lists that the op was given, for messages.
static const char *lists(pm_module *m, const pm_op *op, const operand *o)
{
    const char *text = pm_type_text(m, op->operands[0]->type);
    for (uint32_t i = 0; i < op->n_operands; i++) {
        int64_t n = o[i].tensor.rank == 0 ? 1 : o[i].dims[0];
        for (int64_t k = 0; o[i].tensor.elem == PM_I64 && k < n; k++)
            text = pm_arena_printf(m->arena, "%s%s%lld", text, k ? ", " : "; ",
                                   (long long)o[i].data[k]);
    }
    return text;
}

/// The extents that an accepted op got from inference, against those of the hook.
static void compare(pm_module *m, const pm_op *op, operand *o)
{
    pm_tensor in[5], out[4] = {{0}};
    pm_attr_value attrs[PM_MAX_ATTRS];
    int64_t dims[4 * PM_MAX_RANK], extent;
    for (uint32_t i = 0; i < op->n_operands; i++)
        in[i] = o[i].tensor;
    for (uint32_t i = 0; i < op->n_results; i++)
        out[i] = (pm_tensor){NULL, NULL, op->results[i]->type->rank, op->results[i]->type->elem};
    pm_op_attr_values(op, attrs);
    const pm_eval_args args = {in, (int32_t)op->n_operands, out, (int32_t)op->n_results, attrs};
    const char *name = pm_op_info_of(op)->name;
    ck_assert_msg(pm_op_info_of(op)->extent(&args, dims) == 0, "%s(%s): the hook refuses %s", name,
                  lists(m, op, o), pm_type_text(m, op->results[0]->type));
    for (uint32_t i = 0; i < op->n_results; i++) {
        const pm_type *type = op->results[i]->type;
        for (int32_t d = 0; d < type->rank; d++) {
            ck_assert_msg(pm_dim_is_const(m, type->dims[d], &extent),
                          "%s(%s): %s is known when run", name, lists(m, op, o),
                          pm_type_text(m, type));
            ck_assert_msg(extent == dims[i * PM_MAX_RANK + (uint32_t)d],
                          "%s: result %u is %s, the hook finds %lld for axis %d", name, i,
                          pm_type_text(m, type), (long long)dims[i * PM_MAX_RANK + (uint32_t)d],
                          (int)d);
        }
    }
}

START_TEST(inference_agrees_with_the_hooks)
{
    pm_opcode code = (pm_opcode)_i;
    enum { TRIES = 3000 };
    operand o[5];
    uint32_t n_results;
    if (pm_op_table[code].extent == NULL)
        return;
    int accepted = 0, tried = 0;
    for (int i = 0; i < TRIES; i++) {
        state = (uint64_t)i * 977 + (uint64_t)code;
        pm_arena *arena = pm_arena_create();
        pm_module *m = pm_module_create(arena, pm_diag_create(arena), "extents");
        pm_builder b = {pm_entry_create(m, "main"), NULL, pm_loc_intern(m, NULL)};
        memset(o, 0, sizeof o);
        uint32_t n = make_operands(&b, code, o, &n_results);
        pm_value *operands[5] = {o[0].value, o[1].value, o[2].value, o[3].value, o[4].value};
        pm_op *op;
        tried += n > 0;
        if (n > 0 && pm_build(&b, code, operands, n, NULL, 0, n_results, &op) == PM_OK) {
            compare(m, op, o);
            accepted++;
        }
        pm_arena_destroy(arena);
    }
    // nonzero, expert_rows: extents that no type can know
    bool by_data = code == PM_OP_nonzero || code == PM_OP_expert_rows;
    ck_assert_msg(by_data == (tried == 0), "%s isn't tried", pm_op_table[code].name);
    ck_assert_int_ge(accepted, tried / 20);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("extents");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, inference_agrees_with_the_hooks, 0, PM_OP_COUNT);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
