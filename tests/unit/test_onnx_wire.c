// The wire scan: what it keeps, what it cuts out, and that every truncation is refused.

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "frontend/onnx/onnx_model.pb-c.h"
#include "frontend/onnx/onnx_wire.h"

/// A message under construction.
typedef struct bytes {
    uint8_t data[4096];
    size_t n;
} bytes;

static void put_varint(bytes *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        b->data[b->n++] = (uint8_t)(value | 0x80);
    b->data[b->n++] = (uint8_t)value;
}

static void put_number(bytes *b, unsigned field, uint64_t value)
{
    put_varint(b, field << 3);
    put_varint(b, value);
}

static void put_bytes(bytes *b, unsigned field, const void *data, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_text(bytes *b, unsigned field, const char *text)
{
    put_bytes(b, field, text, strlen(text));
}

static void put_message(bytes *b, unsigned field, const bytes *message)
{
    put_bytes(b, field, message->data, message->n);
}

static const uint8_t payload[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

/// A model with a node, a tensor whose raw data is `payload`, and things that are dropped.
static void sample(bytes *out)
{
    bytes model = {0}, graph = {0}, node = {0}, tensor = {0};
    put_text(&node, 1, "x");
    put_text(&node, 2, "y");
    put_text(&node, 4, "Relu");
    put_text(&node, 6, "a text that nobody reads");
    put_message(&graph, 1, &node);
    put_number(&tensor, 1, 3);
    put_number(&tensor, 1, 1);
    put_number(&tensor, 2, 1);
    put_text(&tensor, 8, "w");
    put_bytes(&tensor, 9, payload, sizeof payload);
    put_message(&graph, 5, &tensor);
    put_text(&graph, 13, "not even a message");
    put_number(&model, 1, 10);
    put_text(&model, 2, "a producer");
    put_message(&model, 7, &graph);
    put_text(&model, 4000, "from the future");
    *out = model;
}

START_TEST(test_prune)
{
    bytes model;
    sample(&model);
    pm_arena *arena = pm_arena_create();
    pm_onnx_wire wire;
    ck_assert_int_eq(pm_onnx_wire_scan(arena, NULL, "m", model.data, model.n, &wire), PM_OK);
    ck_assert_uint_eq(wire.n_nodes, 1);
    ck_assert_uint_eq(wire.n_messages, 3);
    Onnx__Model *read = onnx__model__unpack(NULL, wire.size, wire.bytes);
    ck_assert_ptr_nonnull(read);
    ck_assert_uint_eq(read->base.n_unknown_fields, 0);
    ck_assert_int_eq(read->ir_version, 10);
    ck_assert_str_eq(read->graph->node[0]->op_type, "Relu");
    ck_assert_uint_eq(read->graph->node[0]->base.n_unknown_fields, 0);
    const Onnx__Tensor *tensor = read->graph->initializer[0];
    ck_assert_uint_eq(tensor->n_dims, 2);
    ck_assert_int_eq(tensor->dims[0], 3);
    uint64_t range[2];
    ck_assert_uint_eq(tensor->raw_data.len, sizeof range);
    memcpy(range, tensor->raw_data.data, sizeof range);
    ck_assert_uint_eq(range[1], sizeof payload);
    ck_assert_mem_eq(model.data + range[0], payload, sizeof payload);
    onnx__model__free_unpacked(read, NULL);
    pm_arena_destroy(arena);
}
END_TEST

/// Each prefix of a model is refused but for those that end between the model's own fields; what is
/// accepted always unpacks.
START_TEST(test_truncations)
{
    bytes model;
    sample(&model);
    size_t accepted = 0;
    for (size_t n = 0; n <= model.n; n++) {
        pm_arena *arena = pm_arena_create();
        pm_diag *diag = pm_diag_create(arena);
        uint8_t *copy = malloc(n + 1); /* exact, so that ASan sees a read beyond */
        copy = realloc(copy, n ? n : 1);
        memcpy(copy, model.data, n);
        pm_onnx_wire wire;
        pm_status status = pm_onnx_wire_scan(arena, diag, "m", copy, n, &wire);
        ck_assert_int_eq(status == PM_OK, pm_diag_count(diag, PM_ERROR) == 0);
        if (status == PM_OK) {
            accepted++;
            Onnx__Model *read = onnx__model__unpack(NULL, wire.size, wire.bytes);
            ck_assert_ptr_nonnull(read);
            onnx__model__free_unpacked(read, NULL);
        }
        free(copy);
        pm_arena_destroy(arena);
    }
    ck_assert_uint_eq(accepted, 5);
}
END_TEST

/// Any single byte changed: refused or accepted, but what is accepted unpacks.
START_TEST(test_flips)
{
    bytes model;
    sample(&model);
    for (size_t i = 0; i < model.n * 8; i++) {
        pm_arena *arena = pm_arena_create();
        pm_diag *diag = pm_diag_create(arena);
        pm_onnx_wire wire;
        model.data[i / 8] ^= (uint8_t)(1u << i % 8);
        if (pm_onnx_wire_scan(arena, diag, "m", model.data, model.n, &wire) == PM_OK) {
            Onnx__Model *read = onnx__model__unpack(NULL, wire.size, wire.bytes);
            ck_assert_ptr_nonnull(read);
            onnx__model__free_unpacked(read, NULL);
        }
        model.data[i / 8] ^= (uint8_t)(1u << i % 8);
        pm_arena_destroy(arena);
    }
}
END_TEST

/// Numbers packed, unpacked and mixed are one list.
START_TEST(test_packed)
{
    bytes model = {0}, graph = {0}, tensor = {0}, dims = {0};
    put_varint(&dims, 2);
    put_varint(&dims, 300);
    put_number(&tensor, 1, 7);
    put_message(&tensor, 1, &dims);
    put_number(&tensor, 1, 8);
    put_message(&graph, 5, &tensor);
    put_message(&model, 7, &graph);
    pm_arena *arena = pm_arena_create();
    pm_onnx_wire wire;
    ck_assert_int_eq(pm_onnx_wire_scan(arena, NULL, "m", model.data, model.n, &wire), PM_OK);
    Onnx__Model *read = onnx__model__unpack(NULL, wire.size, wire.bytes);
    const Onnx__Tensor *t = read->graph->initializer[0];
    static const int64_t expected[] = {7, 2, 300, 8};
    ck_assert_uint_eq(t->n_dims, PM_COUNT(expected));
    for (size_t i = 0; i < PM_COUNT(expected); i++)
        ck_assert_int_eq(t->dims[i], expected[i]);
    onnx__model__free_unpacked(read, NULL);
    pm_arena_destroy(arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("onnx_wire");
    TCase *tests = tcase_create("wire");
    tcase_add_test(tests, test_prune);
    tcase_add_test(tests, test_truncations);
    tcase_add_test(tests, test_flips);
    tcase_add_test(tests, test_packed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
