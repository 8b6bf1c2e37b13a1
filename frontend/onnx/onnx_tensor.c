#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"
#include "frontend/onnx/onnx_wire.h"

enum {
    LOCATION_EXTERNAL = 1,
    FLOAT8E4M3FN = 17,
    INLINE_BYTES = 4096, ///< smaller tensors are copied: they are read while compiling
};

/* What the storage of a tensor has to agree with. */
typedef struct tensor_shape {
    pm_elem elem;
    uint64_t count, bytes;
    const pm_type *type;
} tensor_shape;

typedef struct reader {
    pm_onnx *onnx;
    const Onnx__Tensor *tensor;
    const pm_loc *loc;
    tensor_shape shape;
} reader;

const char *pm_onnx_type_name(int32_t data_type)
{
    static const char *const names[] = {
        "UNDEFINED",      "FLOAT",      "UINT8",          "INT8",       "UINT16",   "INT16",
        "INT32",          "INT64",      "STRING",         "BOOL",       "FLOAT16",  "DOUBLE",
        "UINT32",         "UINT64",     "COMPLEX64",      "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "UINT4",      "INT4",     "FLOAT4E2M1",
        "FLOAT8E8M0",     "UINT2",      "INT2",
    };
    return data_type >= 0 && data_type < (int32_t)PM_COUNT(names) ? names[data_type] : "unknown";
}

static pm_status read_shape(reader *r)
{
    const Onnx__Tensor *t = r->tensor;
    pm_diag *diag = r->onnx->diag;
    if (t->data_type == FLOAT8E4M3FN)
        r->shape.elem = PM_U8; // codes: see pm_onnx_is_float8
    else if (!pm_elem_from_onnx(t->data_type, &r->shape.elem))
        return pm_error(diag, r->loc,
                        t->data_type > 0 && t->data_type <= 26 ? PM_ERR_UNSUPPORTED
                                                               : PM_ERR_INVALID,
                        "element type %" PRId32 " (%s) is not supported", t->data_type,
                        pm_onnx_type_name(t->data_type));
    if (t->n_dims > PM_MAX_RANK)
        return pm_error(diag, r->loc, PM_ERR_UNSUPPORTED, "rank %zu is above %d", t->n_dims,
                        PM_MAX_RANK);
    int64_t count = 1, bytes;
    bool zero = false, fits = true;
    pm_dim dims[PM_MAX_RANK];
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return pm_error(diag, r->loc, PM_ERR_INVALID, "dim %zu is %" PRId64, i, t->dims[i]);
        zero |= t->dims[i] == 0;
        fits &= pm_mul_i64(count, t->dims[i], &count);
        dims[i] = pm_dim_const(r->onnx->module, t->dims[i]);
    }
    if (zero)
        count = 0;
    else if (!fits)
        return pm_error(diag, r->loc, PM_ERR_INVALID, "the product of its dims overflows");
    if (!pm_mul_i64(count, pm_elem_size(r->shape.elem), &bytes))
        return pm_error(diag, r->loc, PM_ERR_INVALID, "its size in bytes overflows");
    r->shape.count = (uint64_t)count;
    r->shape.bytes = (uint64_t)bytes;
    r->shape.type = pm_type_get(r->onnx->module, r->shape.elem, (int32_t)t->n_dims, dims);
    return PM_OK;
}

static pm_status check_bools(reader *r, const uint8_t *bytes)
{
    for (uint64_t i = 0; r->shape.elem == PM_BOOL && i < r->shape.count; i++) {
        if (bytes[i] > 1)
            return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                            "element %" PRIu64 " of type BOOL is %u", i, bytes[i]);
    }
    return PM_OK;
}

/* A range of a file, already checked to lie within it. */
static pm_status from_file(reader *r, const pm_file *file, uint64_t offset, pm_data *out)
{
    *out = (pm_data){.size = r->shape.bytes, .file = file, .offset = offset};
    if (r->shape.bytes > INLINE_BYTES && r->shape.elem != PM_BOOL)
        return PM_OK;
    uint8_t *bytes = pm_arena_alloc(r->onnx->module->arena, r->shape.bytes, 16);
    PM_TRY(pm_file_read(r->onnx->diag, file, offset, bytes, r->shape.bytes));
    *out = (pm_data){.size = r->shape.bytes, .bytes = bytes};
    return check_bools(r, bytes);
}

static pm_status parse_number(reader *r, const char *key, const char *text, uint64_t *out)
{
    uint64_t value = 0;
    bool good = *text != 0;
    for (const char *c = text; *c && good; c++) {
        good = *c >= '0' && *c <= '9' && !__builtin_mul_overflow(value, (uint64_t)10, &value) &&
               !__builtin_add_overflow(value, (uint64_t)(*c - '0'), &value);
    }
    if (!good)
        return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                        "external data: %s is '%s', must be a whole number", key, text);
    *out = value;
    return PM_OK;
}

static pm_status open_external(reader *r, const char *location, const pm_file **out_file)
{
    void **slot = pm_map_at(&r->onnx->externals, location, strlen(location));
    if (!*slot) {
        pm_file *file;
        PM_TRY(pm_file_open_beneath(r->onnx->module->arena, r->onnx->diag, r->loc, r->onnx->dir,
                                    location, &file));
        *slot = file;
    }
    *out_file = *slot;
    return PM_OK;
}

static pm_status read_external(reader *r, pm_data *out)
{
    const Onnx__Tensor *t = r->tensor;
    pm_diag *diag = r->onnx->diag;
    const char *values[3] = {NULL, NULL, NULL};
    static const char *const keys[] = {"location", "offset", "length"};
    for (size_t i = 0; i < t->n_external_data; i++) {
        const char *key = t->external_data[i]->key ? t->external_data[i]->key : "";
        for (size_t k = 0; k < PM_COUNT(keys); k++) {
            if (strcmp(key, keys[k]) != 0)
                continue;
            if (values[k])
                return pm_error(diag, r->loc, PM_ERR_INVALID, "external data: two times '%s'", key);
            values[k] = t->external_data[i]->value ? t->external_data[i]->value : "";
        }
    }
    if (!values[0] || !*values[0])
        return pm_error(diag, r->loc, PM_ERR_INVALID, "external data: no location");
    uint64_t offset = 0, length = r->shape.bytes;
    if (values[1])
        PM_TRY(parse_number(r, "offset", values[1], &offset));
    if (values[2])
        PM_TRY(parse_number(r, "length", values[2], &length));
    if (length != r->shape.bytes)
        return pm_error(diag, r->loc, PM_ERR_INVALID,
                        "external data: length is %" PRIu64 ", but the shape needs %" PRIu64
                        " bytes",
                        length, r->shape.bytes);
    const pm_file *file;
    PM_TRY(open_external(r, values[0], &file));
    if (offset > file->size || length > file->size - offset)
        return pm_error(diag, r->loc, PM_ERR_INVALID,
                        "external data: %" PRIu64 " bytes at offset %" PRIu64
                        " reach past the end of '%s' (%" PRIu64 " bytes)",
                        length, offset, values[0], file->size);
    return from_file(r, file, offset, out);
}

static pm_status read_raw(reader *r, pm_data *out)
{
    uint64_t range[2];
    PM_ASSERT(r->tensor->raw_data.len == PM_ONNX_RANGE_SIZE);
    memcpy(range, r->tensor->raw_data.data, sizeof range);
    if (range[1] != r->shape.bytes)
        return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                        "has %" PRIu64 " bytes of data, but its type and shape need %" PRIu64,
                        range[1], r->shape.bytes);
    return from_file(r, r->onnx->file, range[0], out);
}

/* The range of the integers that a typed field may hold for an element type; false: another field.
 */
static bool int32_range(pm_elem elem, int64_t *lo, int64_t *hi)
{
    switch (elem) {
    case PM_I32: *lo = INT32_MIN, *hi = INT32_MAX; return true;
    case PM_I16: *lo = INT16_MIN, *hi = INT16_MAX; return true;
    case PM_I8: *lo = INT8_MIN, *hi = INT8_MAX; return true;
    case PM_U16:
    case PM_F16:
    case PM_BF16: *lo = 0, *hi = UINT16_MAX; return true;
    case PM_U8: *lo = 0, *hi = UINT8_MAX; return true;
    case PM_BOOL: *lo = 0, *hi = 1; return true;
    default: return false;
    }
}

static pm_status narrow(reader *r, uint8_t *bytes)
{
    int64_t lo, hi;
    uint32_t size = pm_elem_size(r->shape.elem);
    PM_ASSERT(int32_range(r->shape.elem, &lo, &hi));
    for (uint64_t i = 0; i < r->shape.count; i++) {
        int32_t value = r->tensor->int32_data[i];
        if (value < lo || value > hi)
            return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                            "element %" PRIu64 " is %" PRId32 ", which %s can't hold", i, value,
                            pm_onnx_type_name(r->tensor->data_type));
        memcpy(bytes + i * size, &value, size); /* little-endian */
    }
    return PM_OK;
}

static pm_status narrow_u32(reader *r, uint8_t *bytes)
{
    for (uint64_t i = 0; i < r->shape.count; i++) {
        uint64_t value = r->tensor->uint64_data[i];
        if (value > UINT32_MAX)
            return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                            "element %" PRIu64 " is %" PRIu64 ", which UINT32 can't hold", i,
                            value);
        memcpy(bytes + i * 4, &value, 4);
    }
    return PM_OK;
}

static pm_status read_typed(reader *r, pm_data *out)
{
    const Onnx__Tensor *t = r->tensor;
    int64_t lo, hi;
    struct {
        const char *name;
        size_t n;
        const void *data; ///< NULL: the elements must be narrowed
        bool mine;
    } fields[] = {
        {"float_data", t->n_float_data, t->float_data, r->shape.elem == PM_F32},
        {"double_data", t->n_double_data, t->double_data, r->shape.elem == PM_F64},
        {"int64_data", t->n_int64_data, t->int64_data, r->shape.elem == PM_I64},
        {"uint64_data", t->n_uint64_data, r->shape.elem == PM_U64 ? t->uint64_data : NULL,
         r->shape.elem == PM_U64 || r->shape.elem == PM_U32},
        {"int32_data", t->n_int32_data, r->shape.elem == PM_I32 ? t->int32_data : NULL,
         int32_range(r->shape.elem, &lo, &hi)},
    };
    uint8_t *bytes = NULL;
    for (size_t i = 0; i < PM_COUNT(fields); i++) {
        if (!fields[i].mine && fields[i].n)
            return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                            "its data is in %s, which isn't the field for %s", fields[i].name,
                            pm_onnx_type_name(t->data_type));
    }
    for (size_t i = 0; i < PM_COUNT(fields); i++) {
        if (!fields[i].mine)
            continue;
        if (fields[i].n != r->shape.count)
            return pm_error(r->onnx->diag, r->loc, PM_ERR_INVALID,
                            "has %zu elements in %s, but its shape needs %" PRIu64, fields[i].n,
                            fields[i].name, r->shape.count);
        bytes = pm_arena_alloc(r->onnx->module->arena, r->shape.bytes, 16);
        if (fields[i].data && r->shape.bytes)
            memcpy(bytes, fields[i].data, r->shape.bytes);
        else if (r->shape.bytes)
            PM_TRY(r->shape.elem == PM_U32 ? narrow_u32(r, bytes) : narrow(r, bytes));
    }
    *out = (pm_data){.size = r->shape.bytes, .bytes = bytes};
    return PM_OK;
}

/* The data of a tensor, read once however often a function that holds it is inlined. */
static pm_status read_data(reader *r, const pm_data **out)
{
    const Onnx__Tensor *t = r->tensor;
    pm_diag *diag = r->onnx->diag;
    void **known = pm_map_at(&r->onnx->tensors, &t, sizeof t);
    if (*known) {
        *out = *known;
        return PM_OK;
    }
    bool typed = t->n_float_data || t->n_int32_data || t->n_int64_data || t->n_double_data ||
                 t->n_uint64_data;
    bool external = t->data_location == LOCATION_EXTERNAL;
    pm_data *data = PM_NEW(r->onnx->temp, pm_data);
    if (t->has_segment)
        return pm_error(diag, r->loc, PM_ERR_UNSUPPORTED, "is stored in segments");
    if (t->data_location != 0 && !external)
        return pm_error(diag, r->loc, PM_ERR_INVALID, "data location %" PRId32,
                        (int32_t)t->data_location);
    if ((external && (typed || t->has_raw_data)) || (typed && t->has_raw_data))
        return pm_error(diag, r->loc, PM_ERR_INVALID, "has its data in more than one place");
    if (external)
        PM_TRY(read_external(r, data));
    else if (t->has_raw_data)
        PM_TRY(read_raw(r, data));
    else
        PM_TRY(read_typed(r, data));
    *known = data;
    *out = data;
    return PM_OK;
}

pm_status pm_onnx_const(pm_onnx *onnx, pm_builder *b, const Onnx__Tensor *tensor, const char *name,
                        pm_value **out_value)
{
    pm_loc loc = {.file = onnx->path, .what = "tensor", .name = name};
    reader r = {.onnx = onnx, .tensor = tensor, .loc = pm_loc_intern(onnx->module, &loc)};
    PM_TRY(read_shape(&r));
    const pm_data *data = NULL;
    PM_TRY(read_data(&r, &data));
    pm_builder at = *b;
    at.loc = r.loc;
    PM_TRY(pm_build_const(&at, r.shape.type, data, name, out_value));
    if (tensor->data_type == FLOAT8E4M3FN)
        *pm_map_at(&onnx->float8, out_value, sizeof *out_value) = *out_value;
    return PM_OK;
}

bool pm_onnx_is_float8(const pm_onnx *onnx, const pm_value *value)
{
    return value != NULL && pm_map_get(&onnx->float8, &value, sizeof value) != NULL;
}
