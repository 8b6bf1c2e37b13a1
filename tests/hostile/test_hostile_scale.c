// ONNX models that are only large: each must be read, or refused, in time linear in its size.

#include "tests/hostile/hostile.h"

#include <time.h>

#include "frontend/frontend.h"

/// A protobuf message being written.
typedef struct message {
    uint8_t *data;
    size_t n, cap;
} message;

static void add(message *m, const void *bytes, size_t size)
{
    if (m->n + size > m->cap) {
        m->cap = (m->n + size) * 2;
        m->data = realloc(m->data, m->cap);
        ck_assert_ptr_nonnull(m->data);
    }
    memcpy(m->data + m->n, bytes, size);
    m->n += size;
}

static void add_varint(message *m, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 128; value >>= 7)
        bytes[n++] = (uint8_t)(value | 128);
    bytes[n++] = (uint8_t)value;
    add(m, bytes, n);
}

static void add_int(message *m, int field, uint64_t value)
{
    add_varint(m, (uint64_t)field << 3);
    add_varint(m, value);
}

static void add_bytes(message *m, int field, const void *bytes, size_t size)
{
    add_varint(m, (uint64_t)field << 3 | 2);
    add_varint(m, size);
    add(m, bytes, size);
}

static void add_text(message *m, int field, const char *text)
{
    add_bytes(m, field, text, strlen(text));
}

/// Adds `part` as a field, and empties it.
static void add_message(message *m, int field, message *part)
{
    add_bytes(m, field, part->data, part->n);
    part->n = 0;
}

static const char *numbered(const char *prefix, size_t i)
{
    static char names[4][32];
    static int next;
    char *name = names[next++ % 4];
    snprintf(name, 32, "%s%zu", prefix, i);
    return name;
}

enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_TENSOR = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };

/// An input or output of f32[4].
static void add_port(message *graph, int field, const char *name)
{
    static const uint8_t type[] = {0x0a, 0x08, 0x08, 0x01, 0x12, 0x04, 0x0a, 0x02, 0x08, 0x04};
    static message port;
    add_text(&port, 1, name);
    add_bytes(&port, 2, type, sizeof type);
    add_message(graph, field, &port);
}

/// A node of inputs "<in><first>" … and one output.
static void add_node(message *graph, const char *op, const char *in, size_t first, size_t n,
                     const char *out)
{
    static message node;
    for (size_t i = 0; i < n; i++)
        add_text(&node, 1, numbered(in, first + i));
    add_text(&node, 2, out);
    add_text(&node, 4, op);
    add_message(graph, GRAPH_NODE, &node);
}

static void add_weight(message *graph, const char *name)
{
    static message tensor;
    static const uint8_t data[16];
    add_int(&tensor, 1, 4);
    add_int(&tensor, 2, 1);
    add_text(&tensor, 8, name);
    add_bytes(&tensor, 9, data, sizeof data);
    add_message(graph, GRAPH_TENSOR, &tensor);
}

static pm_status load(message *graph)
{
    message model = {0}, opset = {0};
    pm_module *module;
    add_text(graph, GRAPH_NAME, "g");
    add_int(&opset, 2, 17);
    add_int(&model, 1, 8);
    add_message(&model, 8, &opset);
    add_message(&model, 7, graph);
    write_file("m.onnx", model.data, model.n);
    free(model.data);
    free(opset.data);
    return pm_onnx_load(arena, diag, path_of("m.onnx"), &module);
}

// Each fills a graph of size n.

static void chain(message *graph, size_t n)
{
    add_port(graph, GRAPH_INPUT, "v0");
    for (size_t i = 0; i < n; i++)
        add_node(graph, "Relu", "v", i, 1, numbered("v", i + 1));
    add_port(graph, GRAPH_OUTPUT, numbered("v", n));
}

/// The same, written from its end: nodes need not be in order.
static void chain_backwards(message *graph, size_t n)
{
    add_port(graph, GRAPH_INPUT, "v0");
    for (size_t i = n; i-- > 0;)
        add_node(graph, "Relu", "v", i, 1, numbered("v", i + 1));
    add_port(graph, GRAPH_OUTPUT, numbered("v", n));
}

static void wide(message *graph, size_t n)
{
    add_port(graph, GRAPH_INPUT, "v0");
    for (size_t i = 0; i < n; i++)
        add_node(graph, "Relu", "v", 0, 1, numbered("w", i));
    add_port(graph, GRAPH_OUTPUT, numbered("w", n - 1));
}

static void sum_of_many(message *graph, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add_port(graph, GRAPH_INPUT, numbered("v", i));
    add_node(graph, "Sum", "v", 0, n, "y");
    add_port(graph, GRAPH_OUTPUT, "y");
}

static void weights(message *graph, size_t n)
{
    add_port(graph, GRAPH_INPUT, "v0");
    for (size_t i = 0; i < n; i++)
        add_weight(graph, numbered("w", i));
    add_node(graph, "Relu", "v", 0, 1, "y");
    add_port(graph, GRAPH_OUTPUT, "y");
}

static void outputs(message *graph, size_t n)
{
    add_port(graph, GRAPH_INPUT, "v0");
    for (size_t i = 0; i < n; i++)
        add_node(graph, "Relu", "v", 0, 1, numbered("w", i));
    for (size_t i = 0; i < n; i++)
        add_port(graph, GRAPH_OUTPUT, numbered("w", i));
}

static void ring(message *graph, size_t n)
{
    add_port(graph, GRAPH_INPUT, "x");
    for (size_t i = 0; i < n; i++)
        add_node(graph, "Relu", "v", i, 1, numbered("v", (i + 1) % n));
    add_port(graph, GRAPH_OUTPUT, "v0");
}

static const struct {
    const char *name;
    void (*fill)(message *graph, size_t n);
    int status;
} shapes[] = {
    {"chain", chain, PM_OK},        {"chain backwards", chain_backwards, PM_OK},
    {"wide", wide, PM_OK},          {"sum of many", sum_of_many, PM_OK},
    {"weights", weights, PM_OK},    {"outputs", outputs, PM_OK},
    {"ring", ring, PM_ERR_INVALID},
};

static double seconds_for(int shape, size_t n)
{
    struct timespec start, end;
    message graph = {0};
    pm_arena *outer = arena;
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    shapes[shape].fill(&graph, n);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    pm_status status = load(&graph);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    ck_assert_msg(status == (pm_status)shapes[shape].status, "%s, %zu: %d: %s", shapes[shape].name,
                  n, (int)status, status == PM_OK ? "" : first_line());
    ck_assert((status == PM_OK) == (pm_diag_count(diag, PM_ERROR) == 0));
    pm_arena_destroy(arena);
    arena = outer;
    free(graph.data);
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

START_TEST(test_linear)
{
    enum { SMALL = 4000, LARGE = 16 * SMALL };
    double small = seconds_for(_i, SMALL), large = seconds_for(_i, LARGE);
    printf("%s: %d in %.3f s, %d in %.3f s\n", shapes[_i].name, SMALL, small, LARGE, large);
    // quadratic would be 256 times as much; clocks and caches are given much room
    ck_assert_msg(large < 0.5 || large < 64 * small, "%s: %.3f s, then %.3f s for 16 times as much",
                  shapes[_i].name, small, large);
}
END_TEST

START_TEST(test_too_many_inputs)
{
    message graph = {0};
    sum_of_many(&graph, 100000);
    pm_status status = load(&graph);
    free(graph.data);
    expect_refused(status, PM_ERR_UNSUPPORTED,
                   "m.onnx: node of 'y' (Sum): error: has 100000 inputs; the limit is 65535");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("large models");
    TCase *tests = tcase_create("scale");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 200);
    tcase_add_loop_test(tests, test_linear, 0, (int)PM_COUNT(shapes));
    tcase_add_test(tests, test_too_many_inputs);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
