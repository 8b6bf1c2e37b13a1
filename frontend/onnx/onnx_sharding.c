/// Sharding annotations: the file is copied field by field, so that what we don't read stays as it is.
#include "frontend/onnx/onnx_sharding.h"

#include <stdlib.h>
#include <string.h>

#include "base/containers.h"

enum {
    MODEL_IR_VERSION = 1,
    MODEL_GRAPH = 7,
    MODEL_CONFIGURATION = 26,
    GRAPH_NODE = 1,
    GRAPH_INITIALIZER = 5,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_NAME = 3,
    NODE_DEVICES = 10,
    TENSOR_DIMS = 1,
    TENSOR_TYPE = 2,
    TENSOR_NAME = 8,
    IR_VERSION = 11, ///< the first with annotations
};

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

/// One field of a message: its bytes with the tag, and what it holds.
typedef struct field {
    uint32_t number, kind;
    uint64_t value; ///< of a number
    bytes all, body;
} field;

typedef PM_VEC(uint8_t) text;

/// Where the model goes: once to be counted, since a message begins with its size, then to be written.
typedef struct sink {
    FILE *stream; ///< NULL: counted alone
    uint64_t size;
    size_t annotated; ///< nodes
} sink;

typedef struct writer {
    pm_arena *arena;
    pm_diag *diag;
    const char *path;
    const pm_sharding *sharding;
    pm_map nodes;        ///< what, a NUL and the name -> pm_node_sharding
    pm_map initializers; ///< name -> first extent + 1
} writer;

// ---- reading ----

static bool take_varint(bytes *b, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && b->at < b->end; shift += 7) {
        uint8_t byte = *b->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/// False at the end, or where the bytes are no field (then b->at isn't b->end).
static bool take_field(bytes *b, field *out)
{
    bytes at = *b;
    uint64_t tag, n;
    if (at.at == at.end || !take_varint(&at, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
        return false;
    *out = (field){.number = (uint32_t)(tag >> 3), .kind = (uint32_t)(tag & 7)};
    switch (out->kind) {
    case 0:
        if (!take_varint(&at, &out->value))
            return false;
        break;
    case 1:
    case 2:
    case 5:
        n = out->kind == 1 ? 8 : 4;
        if ((out->kind == 2 && !take_varint(&at, &n)) || n > (uint64_t)(at.end - at.at))
            return false;
        out->body = (bytes){at.at, at.at + n};
        at.at += n;
        break;
    default: return false;
    }
    out->all = (bytes){b->at, at.at};
    *b = at;
    return true;
}

static pm_status damaged(const writer *w)
{
    return pm_error(w->diag, NULL, PM_ERR_INVALID, "%s: the file changed, or is no ONNX model", w->path);
}

static char *string_of(const writer *w, bytes b)
{
    return pm_arena_strndup(w->arena, (const char *)b.at, (size_t)(b.end - b.at));
}

// ---- writing into memory ----

static void put_bytes(const writer *w, text *out, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        PM_PUSH(w->arena, out, ((const uint8_t *)from)[i]);
}

static void put_varint(const writer *w, text *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        PM_PUSH(w->arena, out, (uint8_t)(value | 0x80));
    PM_PUSH(w->arena, out, (uint8_t)value);
}

static void put_number(const writer *w, text *out, uint32_t number, uint64_t value)
{
    put_varint(w, out, (uint64_t)number << 3);
    put_varint(w, out, value);
}

static void put_message(const writer *w, text *out, uint32_t number, const void *from, size_t n)
{
    put_varint(w, out, (uint64_t)number << 3 | 2);
    put_varint(w, out, n);
    put_bytes(w, out, from, n);
}

static void put_string(const writer *w, text *out, uint32_t number, const char *value)
{
    put_message(w, out, number, value, strlen(value));
}

/// ShardingSpecProto: the tensor's devices; with `n_parts`, cut along axis 0 into so many.
static void put_spec(const writer *w, text *out, const char *tensor, const int64_t *devices, size_t n_devices,
                     size_t n_parts)
{
    enum { TENSOR = 1, DEVICE = 2, DIM = 4, AXIS = 1, SIMPLE = 2, VALUE = 1, SHARDS = 3, SPEC = 2 };
    text spec = {0}, dim = {0}, simple = {0};
    put_string(w, &spec, TENSOR, tensor);
    for (size_t i = 0; i < n_devices; i++)
        put_number(w, &spec, DEVICE, (uint64_t)devices[i]);
    if (n_parts > 0) {
        put_number(w, &simple, VALUE, n_parts);
        put_number(w, &simple, SHARDS, n_parts);
        put_number(w, &dim, AXIS, 0);
        put_message(w, &dim, SIMPLE, simple.data, simple.n);
        put_message(w, &spec, DIM, dim.data, dim.n);
    }
    put_message(w, out, SPEC, spec.data, spec.n);
}

// ---- nodes ----

static const pm_node_sharding *find_node(const writer *w, const char *what, const char *name)
{
    const char *key = pm_arena_printf(w->arena, "%s/%s", what, name);
    return pm_map_get_str(&w->nodes, key);
}

/// The annotation of a node, with its tag; empty: it has none.
static bool annotate(const writer *w, bytes node, text *out)
{
    enum { CONFIGURATION = 1 };
    const char *name = NULL, *first = NULL;
    bytes at = node;
    field f;
    *out = (text){0};
    while (take_field(&at, &f)) {
        if (f.number == NODE_NAME && f.kind == 2)
            name = string_of(w, f.body);
        if (f.number == NODE_OUTPUT && f.kind == 2 && !first)
            first = string_of(w, f.body);
    }
    if (at.at != at.end)
        return false;
    const pm_node_sharding *devices = name && *name ? find_node(w, "node", name) : find_node(w, "node of", first ? first : "");
    if (!devices)
        return true;
    text configuration = {0};
    put_string(w, &configuration, CONFIGURATION, w->sharding->name);
    for (at = node; take_field(&at, &f);) {
        if (f.kind != 2 || f.body.at == f.body.end)
            continue;
        if (f.number == NODE_OUTPUT)
            put_spec(w, &configuration, string_of(w, f.body), devices->devices, devices->n_devices, 0);
        if (f.number != NODE_INPUT || !devices->experts)
            continue;
        const char *input = string_of(w, f.body);
        if ((uintptr_t)pm_map_get_str(&w->initializers, input) == devices->n_experts + 1)
            put_spec(w, &configuration, input, devices->experts, devices->n_experts, devices->n_experts);
    }
    put_message(w, out, NODE_DEVICES, configuration.data, configuration.n);
    return true;
}

/// Numbers and conditions aren't weights, whatever their extents.
static bool note_initializer(writer *w, bytes tensor)
{
    enum { TYPE_I32 = 6, TYPE_I64 = 7, TYPE_BOOL = 9 };
    const char *name = NULL;
    uint64_t first = 0;
    bool has_first = false, is_weight = true;
    field f;
    while (take_field(&tensor, &f)) {
        if (f.number == TENSOR_NAME && f.kind == 2)
            name = string_of(w, f.body);
        if (f.number == TENSOR_TYPE && f.kind == 0)
            is_weight = f.value != TYPE_I32 && f.value != TYPE_I64 && f.value != TYPE_BOOL;
        if (f.number == TENSOR_DIMS && !has_first) { // one number, or several packed
            has_first = f.kind == 0 || (f.kind == 2 && take_varint(&f.body, &f.value));
            first = f.value;
        }
    }
    if (name && has_first && is_weight && first < SIZE_MAX)
        pm_map_put_str(&w->initializers, name, (void *)(uintptr_t)(first + 1));
    return tensor.at == tensor.end;
}

// ---- the copy ----

static void emit(sink *out, const uint8_t *from, size_t n)
{
    if (out->stream && n > 0)
        fwrite(from, 1, n, out->stream); // the stream remembers a failure
    out->size += n;
}

static void emit_text(sink *out, text t)
{
    emit(out, t.data, t.n);
}

static void emit_head(const writer *w, sink *out, uint32_t number, uint64_t size)
{
    text head = {0};
    put_varint(w, &head, (uint64_t)number << 3 | 2);
    put_varint(w, &head, size);
    emit_text(out, head);
}

static void emit_same(sink *out, bytes b)
{
    emit(out, b.at, (size_t)(b.end - b.at));
}

/// The graph with annotated nodes.
static pm_status rewrite_graph(writer *w, bytes graph, sink *out)
{
    field f;
    text extra;
    bytes at = graph;
    while (take_field(&at, &f))
        if (f.number == GRAPH_INITIALIZER && f.kind == 2 && !note_initializer(w, f.body))
            return damaged(w);
    for (at = graph; take_field(&at, &f);) {
        extra = (text){0};
        if (f.number == GRAPH_NODE && f.kind == 2 && !annotate(w, f.body, &extra))
            return damaged(w);
        if (extra.n == 0) {
            emit_same(out, f.all);
            continue;
        }
        emit_head(w, out, GRAPH_NODE, (uint64_t)(f.body.end - f.body.at) + extra.n);
        emit_same(out, f.body);
        emit_text(out, extra);
        out->annotated++;
    }
    return at.at == at.end ? PM_OK : damaged(w);
}

static void put_configuration(const writer *w, text *out)
{
    enum { NAME = 1, COUNT = 2, DEVICE = 3 };
    text configuration = {0};
    put_string(w, &configuration, NAME, w->sharding->name);
    put_number(w, &configuration, COUNT, w->sharding->n_devices);
    for (size_t i = 0; i < w->sharding->n_devices; i++)
        put_string(w, &configuration, DEVICE, w->sharding->devices[i]);
    put_message(w, out, MODEL_CONFIGURATION, configuration.data, configuration.n);
}

static pm_status rewrite_model(writer *w, bytes model, sink *out)
{
    field f;
    while (take_field(&model, &f)) {
        text changed = {0};
        if (f.number == MODEL_GRAPH && f.kind == 2) {
            sink counted = {0};
            PM_TRY(rewrite_graph(w, f.body, &counted));
            emit_head(w, out, MODEL_GRAPH, counted.size);
            PM_TRY(rewrite_graph(w, f.body, out));
        } else if (f.number == MODEL_IR_VERSION && f.kind == 0 && f.value < IR_VERSION) {
            put_number(w, &changed, MODEL_IR_VERSION, IR_VERSION);
            emit_text(out, changed);
        } else {
            emit_same(out, f.all);
        }
    }
    if (model.at != model.end)
        return damaged(w);
    text configuration = {0};
    put_configuration(w, &configuration);
    emit_text(out, configuration);
    return PM_OK;
}

pm_status pm_onnx_write_sharding(pm_arena *arena, pm_diag *diag, const char *path, const pm_sharding *sharding,
                                 pm_out_file *out, size_t *out_annotated)
{
    writer w = {.arena = arena, .diag = diag, .path = path, .sharding = sharding};
    pm_file *file;
    sink to = {.stream = out->stream};
    pm_map_init(&w.nodes, arena);
    pm_map_init(&w.initializers, arena);
    for (size_t i = 0; i < sharding->n_nodes; i++) {
        const pm_node_sharding *node = &sharding->nodes[i];
        pm_map_put_str(&w.nodes, pm_arena_printf(arena, "%s/%s", node->what, node->name), (void *)node);
    }
    PM_TRY(pm_file_open(arena, diag, path, &file));
    PM_TRY(pm_file_map(arena, diag, file));
    PM_TRY(rewrite_model(&w, (bytes){file->data, file->data + file->size}, &to));
    *out_annotated = to.annotated;
    return PM_OK;
}
