// The ONNX importer on small models: results against those of the reference implementation, through
// the interpreter; and the shape of what is imported. The models: tests/tools/make_onnx_cases.py.

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/containers.h"
#include "frontend/frontend.h"
#include "frontend/onnx/onnx_import.h"
#include "ir/interp.h"
#include "ir/op_table.h"
#include "ir/text.h"
#include "tests/onnx/npz_file.h"

#define DATA PM_SOURCE_DIR "/tests/data/onnx/"

static pm_arena *arena;
static pm_diag *diag;

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
}

static void teardown(void)
{
    pm_arena_destroy(arena);
}

static pm_module *load(const char *name)
{
    pm_module *module;
    char path[256];
    snprintf(path, sizeof path, DATA "ok_%s.onnx", name);
    pm_status status = pm_onnx_load(arena, diag, path, &module);
    if (status != PM_OK)
        pm_diag_print(diag, stderr, false);
    ck_assert_msg(status == PM_OK, "%s is refused", name);
    status = pm_module_verify(module);
    if (status != PM_OK)
        pm_diag_print(diag, stderr, false);
    ck_assert_msg(status == PM_OK, "%s doesn't verify", name);
    return module;
}

static void compare(const char *name, const char *output, const pm_array *got, const pm_array *want)
{
    ck_assert_msg(got->elem == want->elem && got->rank == want->rank, "%s: type of '%s'", name,
                  output);
    for (int32_t i = 0; i < got->rank; i++)
        ck_assert_msg(got->dims[i] == want->dims[i], "%s: dim %d of '%s' is %lld, expected %lld",
                      name, i, output, (long long)got->dims[i], (long long)want->dims[i]);
    for (size_t i = 0; i < npz_count(want); i++) {
        double a = npz_number(got, i), b = npz_number(want, i);
        double tolerance = got->elem == PM_F16 ? 1e-3 : 1e-5;
        ck_assert_msg(fabs(a - b) <= (1e-1 + fabs(b)) * tolerance, "%s: '%s'[%zu] is %g, expected %g",
                      name, output, i, a, b);
    }
}

static const char *const models[] = {
    "relu",
    "unsorted",
    "gemm",
    "initializer_input",
    "shared_symbol",
    "flatten_dynamic",
    "squeeze_dynamic",
    "constants",
    "typed_data",
    "external",
    "functions",
    "if_true",
    "if_false",
    "if_known",
    "loop",
    "loop_condition",
    "loop_grows",
    "scan",
    "scan_backwards",
    "unused_output",
    "log_sum_exp",
    "dim_expression",
    "large_weight",
    "softmax_11",
    "softmax_13",
    "clip_6",
    "slice_1",
    "reduce_attr",
    "reduce_input",
    "split_18",
    "einsum",
    "layer_norm",
    "layer_norm_axis",
    "dropout",
    "moe_relu",
    "moe_gelu_k2",
    "moe_identity_bias",
    "moe_silu_third",
    "moe_separate",
    "moe_interleaved",
    "moe_concatenated",
    "moe_limit_after",
    "moe_geglu",
    "moe_sparse",
    "moe_half",
    "qmoe_4_relu",
    "qmoe_4_interleaved",
    "qmoe_8_concatenated",
    "qmoe_2_third",
    "qmoe_4_channel",
    "qmoe_8_channel",
    "qmoe_mixed",
    "qmoe_weighed",
    "qmoe_half",
    "nbits_2",
    "nbits_4_packed",
    "nbits_4_float",
    "nbits_8_half",
    "gather_block_4",
    "gather_block_8_packed",
    "gather_block_2_packed",
    "fused_matmul",
    "grouped_matmul",
    "dequantize_i8",
    "dequantize_u8_blocks",
    "float8_blocks",
    "float8_blocks_of_columns",
    "float8_cast",
    "float8_columns",
    "float8_half",
    "float8_line",
    "float8_one",
    "float8_one_line",
    "float8_rows",
    "float8_scale_input",
    "float8_stack",
    "float8_turned",
    "float8_turned_blocks",
};

START_TEST(test_results)
{
    const char *name = models[_i];
    pm_module *module = load(name);
    const pm_graph *entry = module->entries.data[0];
    npz_file npz;
    char text[256];
    snprintf(text, sizeof text, DATA "ok_%s.npz", name);
    ck_assert(npz_open(&npz, text));
    pm_array inputs[8], outputs[8], want;
    ck_assert(entry->args.n <= PM_COUNT(inputs) && entry->results.n <= PM_COUNT(outputs));
    for (size_t i = 0; i < entry->args.n; i++) {
        snprintf(text, sizeof text, "in_%s", entry->args.data[i]->name);
        ck_assert_msg(npz_get(&npz, text, &inputs[i]), "no %s", text);
    }
    pm_status status = pm_interpret(arena, entry, inputs, entry->args.n, outputs);
    if (status != PM_OK)
        pm_diag_print(diag, stderr, false);
    ck_assert_msg(status == PM_OK, "%s fails", name);
    ck_assert_uint_gt(entry->results.n, 0);
    for (size_t i = 0; i < entry->results.n; i++) {
        snprintf(text, sizeof text, "out_%s", entry->result_names.data[i]);
        ck_assert_msg(npz_get(&npz, text, &want), "no %s", text);
        compare(name, entry->result_names.data[i], &outputs[i], &want);
        free(want.data);
    }
    for (size_t i = 0; i < entry->args.n; i++)
        free(inputs[i].data);
    free(npz.bytes);
}
END_TEST

static pm_op *find(const pm_module *module, pm_opcode code)
{
    for (pm_op *op = module->entries.data[0]->first; op; op = op->next) {
        if (op->code == code)
            return op;
    }
    return NULL;
}

START_TEST(test_weights_stay_in_files)
{
    pm_module *module = load("large_weight");
    const pm_op *op = find(module, PM_OP_const);
    const pm_data *data = pm_value_const(op->results[0]);
    const uint8_t *bytes;
    ck_assert_uint_eq(data->size, 4 * 300 * 4);
    ck_assert_ptr_null(data->bytes);
    ck_assert_ptr_nonnull(data->file);
    ck_assert_uint_le(data->offset + data->size, data->file->size);
    ck_assert_int_eq(pm_data_bytes(module, data, &bytes), PM_OK);
    ck_assert_mem_eq(bytes, data->file->data + data->offset, data->size);
}
END_TEST

START_TEST(test_places)
{
    pm_module *module = load("functions");
    /* a node of a function: its own place, then the call's */
    const pm_op *softmax = find(module, PM_OP_softmax);
    const char *text = pm_loc_text(arena, softmax->loc);
    ck_assert_msg(strstr(text, "ok_functions.onnx: node 'soft' (Softmax), from ") != NULL, "%s",
                  text);
    ck_assert_msg(strstr(text, "ok_functions.onnx: node 'q' (Outer)") != NULL, "%s", text);
    for (const pm_op *op = module->entries.data[0]->first; op; op = op->next)
        ck_assert(op->loc->file && op->loc->name);
}
END_TEST

START_TEST(test_symbols)
{
    const pm_graph *entry = load("shared_symbol")->entries.data[0];
    const pm_type *x = entry->args.data[0]->type, *z = entry->args.data[1]->type;
    ck_assert_ptr_eq(x, z);
    uint32_t symbol;
    ck_assert(pm_dim_is_symbol(entry->module, x->dims[0], &symbol));
    ck_assert_str_eq(entry->module->symbols.data[symbol].name, "n");
    pm_module *module = load("dim_expression");
    entry = module->entries.data[0];
    pm_dim a = pm_dim_find(module, "a"), b = pm_dim_find(module, "b");
    ck_assert(pm_dim_same(entry->args.data[0]->type->dims[0], pm_dim_add(module, a, b)));
    ck_assert(pm_dim_same(entry->args.data[0]->type->dims[1], pm_dim_const(module, 2)));
    /* the shapes agree: the sum is known to be what Concat makes */
    const pm_value *y = entry->results.data[0];
    ck_assert(pm_dim_same(y->type->dims[0], entry->args.data[0]->type->dims[0]));
}
END_TEST

START_TEST(test_branches)
{
    /* a condition that follows from shapes leaves no `if` behind, another one does */
    ck_assert_ptr_null(find(load("if_known"), PM_OP_if));
    const pm_op *op = find(load("if_true"), PM_OP_if);
    ck_assert_ptr_nonnull(op);
    ck_assert_uint_eq(op->n_regions, 2);
    /* captured: x and z; the weight is made again inside */
    ck_assert_uint_eq(op->n_operands, 3);
    const pm_op *loop = find(load("loop"), PM_OP_loop);
    ck_assert_int_eq(pm_op_i64(loop, "carried"), 1);
    ck_assert_int_eq(pm_op_i64(loop, "scanned"), 1);
}
END_TEST

/// The text form takes what the importer makes.
START_TEST(test_prints)
{
    pm_module *module = load(models[_i]), *again;
    char *text = NULL, *second = NULL;
    size_t n = 0, n_second = 0;
    FILE *out = open_memstream(&text, &n);
    pm_module_print(module, out);
    fclose(out);
    pm_status status = pm_module_parse(arena, diag, "printed", text, n, "/", &again);
    if (status != PM_OK)
        pm_diag_print(diag, stderr, false);
    ck_assert_msg(status == PM_OK, "%s doesn't parse", models[_i]);
    out = open_memstream(&second, &n_second);
    pm_module_print(again, out);
    fclose(out);
    ck_assert_str_eq(text, second);
    free(text);
    free(second);
}
END_TEST

/// The table is sound: lists parse, rows are unique, and what `map` passes on exists in the IR.
START_TEST(test_table)
{
    for (size_t i = 0; i < pm_onnx_n_rows(); i++) {
        const pm_onnx_row *row = pm_onnx_row_at(i);
        pm_onnx_decl decls[PM_ONNX_MAX_ATTRS];
        size_t n = pm_onnx_parse_decls(row->attrs, decls);
        ck_assert(row->min_in <= row->max_in && row->min_out <= row->max_out);
        ck_assert(row->since >= 1 && row->since <= PM_ONNX_MAX_OPSET);
        for (size_t k = 0; k < i; k++) {
            const pm_onnx_row *other = pm_onnx_row_at(k);
            ck_assert_msg(strcmp(row->name, other->name) || strcmp(row->domain, other->domain) ||
                              row->since != other->since,
                          "two rows of %s %d", row->name, row->since);
        }
        pm_attr_decl known[PM_MAX_ATTRS];
        size_t n_known = row->op < 0 ? 0 : pm_op_attr_decls((pm_opcode)row->op, known);
        for (size_t d = 0; d < n; d++) {
            bool found = !*decls[d].ir;
            for (size_t k = 0; k < n_known && !found; k++)
                found = strcmp(known[k].key, decls[d].ir) == 0;
            ck_assert_msg(found, "%s passes '%s', which the IR's op doesn't have", row->name,
                          decls[d].ir);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("onnx_import");
    TCase *tests = tcase_create("models");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, test_results, 0, (int)PM_COUNT(models));
    tcase_add_loop_test(tests, test_prints, 0, (int)PM_COUNT(models));
    tcase_add_test(tests, test_weights_stay_in_files);
    tcase_add_test(tests, test_places);
    tcase_add_test(tests, test_symbols);
    tcase_add_test(tests, test_branches);
    tcase_add_test(tests, test_table);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
