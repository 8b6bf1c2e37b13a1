#include "frontend/onnx/onnx_wire.h"

#include <inttypes.h>
#include <string.h>

#include "base/containers.h"
#include "base/utf8.h"

typedef enum message_id {
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    ENTRY,
    VALUE_INFO,
    TYPE,
    TENSOR_TYPE,
    SHAPE,
    DIMENSION,
    FUNCTION,
    OPSET,
    MESSAGE_COUNT
} message_id;

typedef enum field_kind {
    VARINT,
    FLOAT,  ///< 4 bytes
    DOUBLE, ///< 8 bytes
    NAME,   ///< a string that must be UTF-8 without NUL
    BYTES,
    RAW,      ///< tensor payload: only its place is kept
    PRESENCE, ///< a payload that isn't looked at; kept as zero bytes
    MESSAGE,
    SKIP, ///< checked to lie within its parent, then dropped
} field_kind;

typedef struct field_row {
    uint8_t number;
    uint8_t kind;
    bool repeated;
    uint8_t child;
    const char *name;
} field_row;

enum { ONE = 0, MANY = 1, MAX_FIELDS = 24 };

typedef struct message_row {
    const char *name;
    field_row fields[MAX_FIELDS]; ///< number 0 ends the list
} message_row;

/* Every field that the format publishes for the messages we enter; others are unknown, hence newer
 * than us, and skipped. */
static const message_row messages[MESSAGE_COUNT] = {
    [MODEL] = {"ModelProto",
               {{1, VARINT, ONE, 0, "ir_version"},
                {2, SKIP, ONE, 0, "producer_name"},
                {3, SKIP, ONE, 0, "producer_version"},
                {4, SKIP, ONE, 0, "domain"},
                {6, SKIP, ONE, 0, "doc_string"},
                {7, MESSAGE, ONE, GRAPH, "graph"},
                {8, MESSAGE, MANY, OPSET, "opset_import"},
                {14, SKIP, MANY, 0, "metadata_props"},
                {20, SKIP, MANY, 0, "training_info"},
                {25, MESSAGE, MANY, FUNCTION, "functions"},
                {26, SKIP, MANY, 0, "configuration"}}},
    [GRAPH] = {"GraphProto",
               {{1, MESSAGE, MANY, NODE, "node"},
                {2, NAME, ONE, 0, "name"},
                {5, MESSAGE, MANY, TENSOR, "initializer"},
                {10, SKIP, ONE, 0, "doc_string"},
                {11, MESSAGE, MANY, VALUE_INFO, "input"},
                {12, MESSAGE, MANY, VALUE_INFO, "output"},
                {13, SKIP, MANY, 0, "value_info"},
                {14, SKIP, MANY, 0, "quantization_annotation"},
                {15, PRESENCE, MANY, 0, "sparse_initializer"},
                {16, SKIP, MANY, 0, "metadata_props"}}},
    [NODE] = {"NodeProto",
              {{1, NAME, MANY, 0, "input"},
               {2, NAME, MANY, 0, "output"},
               {3, NAME, ONE, 0, "name"},
               {4, NAME, ONE, 0, "op_type"},
               {5, MESSAGE, MANY, ATTRIBUTE, "attribute"},
               {6, SKIP, ONE, 0, "doc_string"},
               {7, NAME, ONE, 0, "domain"},
               {8, NAME, ONE, 0, "overload"},
               {9, SKIP, MANY, 0, "metadata_props"},
               {10, SKIP, MANY, 0, "device_configurations"}}},
    [ATTRIBUTE] = {"AttributeProto",
                   {{1, NAME, ONE, 0, "name"},
                    {2, FLOAT, ONE, 0, "f"},
                    {3, VARINT, ONE, 0, "i"},
                    {4, BYTES, ONE, 0, "s"},
                    {5, MESSAGE, ONE, TENSOR, "t"},
                    {6, MESSAGE, ONE, GRAPH, "g"},
                    {7, FLOAT, MANY, 0, "floats"},
                    {8, VARINT, MANY, 0, "ints"},
                    {9, BYTES, MANY, 0, "strings"},
                    {10, MESSAGE, MANY, TENSOR, "tensors"},
                    {11, MESSAGE, MANY, GRAPH, "graphs"},
                    {13, SKIP, ONE, 0, "doc_string"},
                    {14, PRESENCE, ONE, 0, "tp"},
                    {15, SKIP, MANY, 0, "type_protos"},
                    {20, VARINT, ONE, 0, "type"},
                    {21, NAME, ONE, 0, "ref_attr_name"},
                    {22, PRESENCE, ONE, 0, "sparse_tensor"},
                    {23, SKIP, MANY, 0, "sparse_tensors"}}},
    [TENSOR] = {"TensorProto",
                {{1, VARINT, MANY, 0, "dims"},
                 {2, VARINT, ONE, 0, "data_type"},
                 {3, PRESENCE, ONE, 0, "segment"},
                 {4, FLOAT, MANY, 0, "float_data"},
                 {5, VARINT, MANY, 0, "int32_data"},
                 {6, SKIP, MANY, 0, "string_data"},
                 {7, VARINT, MANY, 0, "int64_data"},
                 {8, NAME, ONE, 0, "name"},
                 {9, RAW, ONE, 0, "raw_data"},
                 {10, DOUBLE, MANY, 0, "double_data"},
                 {11, VARINT, MANY, 0, "uint64_data"},
                 {12, SKIP, ONE, 0, "doc_string"},
                 {13, MESSAGE, MANY, ENTRY, "external_data"},
                 {14, VARINT, ONE, 0, "data_location"},
                 {16, SKIP, MANY, 0, "metadata_props"}}},
    [ENTRY] = {"StringStringEntryProto", {{1, NAME, ONE, 0, "key"}, {2, NAME, ONE, 0, "value"}}},
    [VALUE_INFO] = {"ValueInfoProto",
                    {{1, NAME, ONE, 0, "name"},
                     {2, MESSAGE, ONE, TYPE, "type"},
                     {3, SKIP, ONE, 0, "doc_string"},
                     {4, SKIP, MANY, 0, "metadata_props"}}},
    [TYPE] = {"TypeProto",
              {{1, MESSAGE, ONE, TENSOR_TYPE, "tensor_type"},
               {4, PRESENCE, ONE, 0, "sequence_type"},
               {5, PRESENCE, ONE, 0, "map_type"},
               {6, SKIP, ONE, 0, "denotation"},
               {7, PRESENCE, ONE, 0, "opaque_type"},
               {8, PRESENCE, ONE, 0, "sparse_tensor_type"},
               {9, PRESENCE, ONE, 0, "optional_type"}}},
    [TENSOR_TYPE] = {"TypeProto.Tensor",
                     {{1, VARINT, ONE, 0, "elem_type"}, {2, MESSAGE, ONE, SHAPE, "shape"}}},
    [SHAPE] = {"TensorShapeProto", {{1, MESSAGE, MANY, DIMENSION, "dim"}}},
    [DIMENSION] = {"TensorShapeProto.Dimension",
                   {{1, VARINT, ONE, 0, "dim_value"},
                    {2, NAME, ONE, 0, "dim_param"},
                    {3, SKIP, ONE, 0, "denotation"}}},
    [FUNCTION] = {"FunctionProto",
                  {{1, NAME, ONE, 0, "name"},
                   {4, NAME, MANY, 0, "input"},
                   {5, NAME, MANY, 0, "output"},
                   {6, NAME, MANY, 0, "attribute"},
                   {7, MESSAGE, MANY, NODE, "node"},
                   {8, SKIP, ONE, 0, "doc_string"},
                   {9, MESSAGE, MANY, OPSET, "opset_import"},
                   {10, NAME, ONE, 0, "domain"},
                   {11, MESSAGE, MANY, ATTRIBUTE, "attribute_proto"},
                   {12, SKIP, MANY, 0, "value_info"},
                   {13, NAME, ONE, 0, "overload"},
                   {14, SKIP, MANY, 0, "metadata_props"}}},
    [OPSET] = {"OperatorSetIdProto", {{1, NAME, ONE, 0, "domain"}, {2, VARINT, ONE, 0, "version"}}},
};

/* In the copy every length of a message takes five bytes (a padded varint), so that it can be
 * filled in when the message ends. */
enum { LENGTH_BYTES = 5, WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct frame {
    message_id id;
    uint64_t end;
    uint32_t seen;       ///< bit per row of the message's table
    size_t length_place; ///< where the copy's length goes
} frame;

typedef struct scanner {
    pm_diag *diag;
    const char *file;
    const uint8_t *data;
    uint64_t at;
    uint8_t *out; ///< NULL: only measured
    size_t out_size;
    uint64_t n_messages, n_nodes;
    uint32_t depth;
    frame stack[PM_ONNX_MAX_DEPTH];
} scanner;

static pm_status PM_PRINTF(4, 5)
    fail(scanner *s, uint64_t offset, pm_status code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pm_loc loc = {.file = s->file, .offset = offset, .has_offset = true};
    return pm_error(s->diag, &loc, code, "%s", text);
}

static void put(scanner *s, const void *bytes, size_t n)
{
    if (s->out && n)
        memcpy(s->out + s->out_size, bytes, n);
    s->out_size += n;
}

static void put_varint(scanner *s, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    while (value >= 0x80) {
        bytes[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (uint8_t)value;
    put(s, bytes, n);
}

/* A varint that ends before `end`, of at most `max_bits` bits. */
static pm_status get_varint(scanner *s, uint64_t end, int max_bits, uint64_t *out)
{
    uint64_t value = 0, start = s->at;
    for (int shift = 0; shift < 70; shift += 7) {
        if (s->at >= end)
            return fail(s, start, PM_ERR_INVALID, "truncated varint");
        uint8_t byte = s->data[s->at++];
        if (shift == 63 && byte > 1)
            return fail(s, start, PM_ERR_INVALID, "varint is longer than 64 bits");
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (max_bits < 64 && value >> max_bits)
                return fail(s, start, PM_ERR_INVALID, "varint is longer than %d bits", max_bits);
            *out = value;
            return PM_OK;
        }
    }
    return fail(s, start, PM_ERR_INVALID, "varint is longer than 64 bits");
}

static pm_status get_length(scanner *s, const frame *f, const char *field, uint64_t *out)
{
    uint64_t start = s->at;
    PM_TRY(get_varint(s, f->end, 64, out));
    if (*out > f->end - s->at)
        return fail(s, start, PM_ERR_INVALID,
                    "length of %s.%s is %" PRIu64 ", but its parent has only %" PRIu64
                    " bytes left",
                    messages[f->id].name, field, *out, f->end - s->at);
    return PM_OK;
}

/* Skips a field that is not in the tables; groups end here, too. */
static pm_status skip_unknown(scanner *s, const frame *f, uint64_t start, uint64_t number,
                              unsigned wire_type)
{
    uint64_t length;
    switch (wire_type) {
    case WIRE_VARINT: return get_varint(s, f->end, 64, &length);
    case WIRE_BYTES:
        PM_TRY(get_length(s, f, "(unknown field)", &length));
        s->at += length;
        return PM_OK;
    case WIRE_64:
    case WIRE_32:
        length = wire_type == WIRE_64 ? 8 : 4;
        if (length > f->end - s->at)
            return fail(s, start, PM_ERR_INVALID, "truncated field %" PRIu64 " of %s", number,
                        messages[f->id].name);
        s->at += length;
        return PM_OK;
    case 3:
    case 4:
        return fail(s, start, PM_ERR_INVALID,
                    "field %" PRIu64 " of %s is a group, which ONNX doesn't have", number,
                    messages[f->id].name);
    default:
        return fail(s, start, PM_ERR_INVALID, "field %" PRIu64 " of %s has wire type %u", number,
                    messages[f->id].name, wire_type);
    }
}

static bool wire_type_fits(const field_row *row, unsigned wire_type)
{
    switch (row->kind) {
    case VARINT: return wire_type == WIRE_VARINT || (row->repeated && wire_type == WIRE_BYTES);
    case FLOAT: return wire_type == WIRE_32 || (row->repeated && wire_type == WIRE_BYTES);
    case DOUBLE: return wire_type == WIRE_64 || (row->repeated && wire_type == WIRE_BYTES);
    default: return wire_type == WIRE_BYTES;
    }
}

static pm_status scan_number(scanner *s, const frame *f, const field_row *row)
{
    if (row->kind == VARINT) {
        uint64_t value;
        PM_TRY(get_varint(s, f->end, 64, &value));
        put_varint(s, value);
        return PM_OK;
    }
    uint64_t bytes = row->kind == DOUBLE ? 8 : 4;
    if (bytes > f->end - s->at)
        return fail(s, s->at, PM_ERR_INVALID, "truncated %s.%s", messages[f->id].name, row->name);
    put(s, s->data + s->at, bytes);
    s->at += bytes;
    return PM_OK;
}

/* Packed numbers are copied as they are once each of them is known to be whole. */
static pm_status scan_packed(scanner *s, const frame *f, const field_row *row)
{
    uint64_t length;
    PM_TRY(get_length(s, f, row->name, &length));
    uint64_t start = s->at, end = s->at + length;
    if (row->kind == VARINT) {
        uint64_t value;
        while (s->at < end)
            PM_TRY(get_varint(s, end, 64, &value));
    } else if (length % (row->kind == DOUBLE ? 8 : 4)) {
        return fail(s, start, PM_ERR_INVALID,
                    "packed %s.%s has %" PRIu64 " bytes, which is no whole number of elements",
                    messages[f->id].name, row->name, length);
    }
    s->at = end;
    put_varint(s, length);
    put(s, s->data + start, length);
    return PM_OK;
}

static pm_status scan_bytes(scanner *s, const frame *f, const field_row *row)
{
    uint64_t length;
    PM_TRY(get_length(s, f, row->name, &length));
    const uint8_t *bytes = s->data + s->at;
    uint64_t limit = row->kind == NAME && f->id != ENTRY ? PM_ONNX_MAX_NAME : PM_ONNX_MAX_STRING;
    if (length > limit)
        return fail(s, s->at, PM_ERR_UNSUPPORTED,
                    "%s.%s has %" PRIu64 " bytes; the limit is %" PRIu64, messages[f->id].name,
                    row->name, length, limit);
    if (row->kind == NAME) {
        uint64_t bad = pm_utf8_check((const char *)bytes, length);
        if (bad < length)
            return fail(s, s->at + bad, PM_ERR_INVALID, "%s.%s is not valid UTF-8",
                        messages[f->id].name, row->name);
        if (length && memchr(bytes, 0, length))
            return fail(s, s->at, PM_ERR_INVALID, "%s.%s holds a NUL", messages[f->id].name,
                        row->name);
    }
    put_varint(s, length);
    put(s, bytes, length);
    s->at += length;
    return PM_OK;
}

static pm_status enter(scanner *s, const frame *f, const field_row *row)
{
    uint64_t start = s->at, length;
    PM_TRY(get_length(s, f, row->name, &length));
    if (s->depth == PM_ONNX_MAX_DEPTH)
        return fail(s, start, PM_ERR_UNSUPPORTED, "messages are nested more than %d deep",
                    PM_ONNX_MAX_DEPTH);
    if (++s->n_messages > PM_ONNX_MAX_MESSAGES)
        return fail(s, start, PM_ERR_UNSUPPORTED, "more than %d messages", PM_ONNX_MAX_MESSAGES);
    if (row->child == NODE && ++s->n_nodes > PM_ONNX_MAX_NODES)
        return fail(s, start, PM_ERR_UNSUPPORTED, "more than %d nodes", PM_ONNX_MAX_NODES);
    s->stack[s->depth++] =
        (frame){.id = row->child, .end = s->at + length, .length_place = s->out_size};
    s->out_size += LENGTH_BYTES;
    return PM_OK;
}

static void leave(scanner *s)
{
    const frame *f = &s->stack[--s->depth];
    if (!s->out || s->depth == 0)
        return;
    size_t length = s->out_size - f->length_place - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES; i++, length >>= 7)
        s->out[f->length_place + i] =
            (uint8_t)((length & 0x7f) | (i < LENGTH_BYTES - 1 ? 0x80 : 0));
}

static pm_status scan_payload(scanner *s, const frame *f, const field_row *row)
{
    uint64_t length;
    PM_TRY(get_length(s, f, row->name, &length));
    if (row->kind == RAW) {
        uint64_t range[2] = {s->at, length};
        put_varint(s, PM_ONNX_RANGE_SIZE);
        put(s, range, sizeof range);
    } else if (row->kind == PRESENCE) {
        put_varint(s, 0);
    }
    s->at += length;
    return PM_OK;
}

static pm_status scan_field(scanner *s)
{
    frame *f = &s->stack[s->depth - 1];
    uint64_t start = s->at, tag;
    PM_TRY(get_varint(s, f->end, 32, &tag));
    uint64_t number = tag >> 3;
    unsigned wire_type = tag & 7;
    if (number == 0)
        return fail(s, start, PM_ERR_INVALID, "field number 0 in %s", messages[f->id].name);
    const field_row *rows = messages[f->id].fields, *row = NULL;
    uint32_t index = 0;
    for (; index < MAX_FIELDS && rows[index].number; index++) {
        if (rows[index].number == number) {
            row = &rows[index];
            break;
        }
    }
    if (!row)
        return skip_unknown(s, f, start, number, wire_type);
    if (!wire_type_fits(row, wire_type))
        return fail(s, start, PM_ERR_INVALID, "%s.%s has wire type %u", messages[f->id].name,
                    row->name, wire_type);
    if (!row->repeated && f->seen & (1u << index))
        return fail(s, start, PM_ERR_INVALID, "%s.%s occurs twice", messages[f->id].name,
                    row->name);
    f->seen |= 1u << index;
    if (row->kind != SKIP)
        put_varint(s, tag);
    switch (row->kind) {
    case VARINT:
    case FLOAT:
    case DOUBLE: return wire_type == WIRE_BYTES ? scan_packed(s, f, row) : scan_number(s, f, row);
    case NAME:
    case BYTES: return scan_bytes(s, f, row);
    case MESSAGE: return enter(s, f, row);
    default: return scan_payload(s, f, row);
    }
}

static pm_status scan(scanner *s, uint64_t size)
{
    s->depth = 1;
    s->stack[0] = (frame){.id = MODEL, .end = size};
    while (s->depth) {
        const frame *f = &s->stack[s->depth - 1];
        if (s->at == f->end)
            leave(s);
        else
            PM_TRY(scan_field(s));
        if (s->out_size > PM_ONNX_MAX_PRUNED)
            return fail(s, s->at, PM_ERR_UNSUPPORTED,
                        "the model without its raw tensor data is over %d bytes",
                        PM_ONNX_MAX_PRUNED);
    }
    return PM_OK;
}

pm_status pm_onnx_wire_scan(pm_arena *arena, pm_diag *diag, const char *file, const uint8_t *data,
                            uint64_t size, pm_onnx_wire *out_wire)
{
    *out_wire = (pm_onnx_wire){0};
    /* Once to check and measure, once to write. */
    scanner s = {.diag = diag, .file = file, .data = data};
    PM_TRY(scan(&s, size));
    size_t pruned = s.out_size;
    s = (scanner){
        .diag = diag, .file = file, .data = data, .out = pm_arena_alloc(arena, pruned, 1)};
    PM_TRY(scan(&s, size));
    *out_wire = (pm_onnx_wire){
        .bytes = s.out, .size = s.out_size, .n_messages = s.n_messages, .n_nodes = s.n_nodes};
    return PM_OK;
}
