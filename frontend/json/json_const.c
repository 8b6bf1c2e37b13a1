/// Constants of JSON graphs: numbers in place, a range of a file, or a tensor of a safetensors file.
#include <inttypes.h>
#include <math.h>

#include "frontend/checkpoint/safetensors.h"
#include "frontend/json/json_graph.h"

enum { MAX_INLINE = 1 << 22 }; ///< elements that may be written in place

/// The leaves of nested lists, in order. Depth is bounded by the JSON reader.
typedef struct leaves {
    PM_VEC(const pm_json *) items;
} leaves;

static void collect(pm_jdoc *doc, const pm_json *json, leaves *out)
{
    // an explicit stack of what is still to come, last first
    PM_VEC(const pm_json *) stack = {0};
    PM_PUSH(doc->scratch, &stack, json);
    while (stack.n > 0) {
        const pm_json *top = stack.data[--stack.n];
        if (top->kind != PM_JSON_ARRAY) {
            PM_PUSH(doc->scratch, &out->items, top);
            continue;
        }
        for (size_t i = top->n; i-- > 0;)
            PM_PUSH(doc->scratch, &stack, &top->items[i]);
    }
}

static uint16_t f32_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x))
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Range of an integer element type, as int64 (u64 is cut at INT64_MAX, all that JSON gives us).
static void int_range(pm_elem elem, int64_t *lo, int64_t *hi)
{
    uint32_t bits = pm_elem_size(elem) * 8;
    bool is_signed = elem == PM_I64 || elem == PM_I32 || elem == PM_I16 || elem == PM_I8;
    *lo = !is_signed ? 0 : bits == 64 ? INT64_MIN : -((int64_t)1 << (bits - 1));
    if (bits == 64)
        *hi = INT64_MAX;
    else
        *hi = is_signed ? ((int64_t)1 << (bits - 1)) - 1 : ((int64_t)1 << bits) - 1;
}

static pm_status write_float(pm_jdoc *doc, const pm_json *item, pm_elem elem, uint8_t *out)
{
    double x = item->number;
    if (item->kind == PM_JSON_STRING) {
        bool negative = item->string[0] == '-';
        const char *word = item->string + negative;
        if (strcmp(word, "inf") == 0)
            x = negative ? -(double)INFINITY : (double)INFINITY;
        else if (strcmp(word, "nan") == 0 && !negative)
            x = (double)NAN;
        else
            return pm_jdoc_error(doc, item, PM_ERR_INVALID,
                                 "expected a number, \"inf\", \"-inf\" or \"nan\"");
    } else if (item->kind != PM_JSON_NUMBER) {
        return pm_jdoc_error(doc, item, PM_ERR_INVALID, "expected a number");
    }
    float narrow = (float)x;
    if (isfinite(x) && !isfinite(narrow) && elem != PM_F64)
        return pm_jdoc_error(doc, item, PM_ERR_INVALID, "too large for %s", pm_elem_name(elem));
    if (elem == PM_F64)
        memcpy(out, &x, sizeof x);
    else if (elem == PM_F32)
        memcpy(out, &narrow, sizeof narrow);
    else if (elem == PM_BF16)
        memcpy(out, &(uint16_t){f32_to_bf16(narrow)}, sizeof(uint16_t));
    else
        return pm_jdoc_error(doc, item, PM_ERR_UNSUPPORTED,
                             "values of %s can't be written in place; use a file",
                             pm_elem_name(elem));
    return PM_OK;
}

static pm_status write_value(pm_jdoc *doc, const pm_json *item, pm_elem elem, uint8_t *out)
{
    if (pm_elem_is_float(elem))
        return write_float(doc, item, elem, out);
    if (elem == PM_BOOL) {
        if (item->kind != PM_JSON_BOOL)
            return pm_jdoc_error(doc, item, PM_ERR_INVALID, "expected true or false");
        *out = item->boolean;
        return PM_OK;
    }
    int64_t lo, hi;
    int_range(elem, &lo, &hi);
    if (item->kind != PM_JSON_NUMBER || !item->is_int || item->integer < lo || item->integer > hi)
        return pm_jdoc_error(doc, item, PM_ERR_INVALID, "expected an integer of type %s",
                             pm_elem_name(elem));
    memcpy(out, &item->integer, pm_elem_size(elem)); // little-endian: the low bytes
    return PM_OK;
}

/// The type from "type" and "dims"; extents must be integers.
static pm_status read_type(pm_jdoc *doc, const pm_json *json, pm_elem *out_elem, int32_t *out_rank,
                           pm_dim *dims, uint64_t *out_count)
{
    const pm_json *type, *list;
    int64_t count = 1, extent;
    PM_TRY(pm_jdoc_get(doc, json, "type", PM_JSON_STRING, &type));
    PM_TRY(pm_jdoc_get(doc, json, "dims", PM_JSON_ARRAY, &list));
    if (!pm_elem_parse(type->string, out_elem))
        return pm_jdoc_error(doc, type, PM_ERR_INVALID, "unknown element type '%.40s'",
                             type->string);
    PM_TRY(pm_jdoc_dims(doc, list, out_rank, dims));
    for (int32_t i = 0; i < *out_rank; i++) {
        if (!pm_dim_is_const(doc->module, dims[i], &extent))
            return pm_jdoc_error(doc, &list->items[i], PM_ERR_INVALID,
                                 "the extents of a constant must be integers");
        if (!pm_mul_i64(count, extent, &count))
            return pm_jdoc_error(doc, list, PM_ERR_INVALID, "the product of the extents overflows");
    }
    if (!pm_mul_i64(count, pm_elem_size(*out_elem), &extent))
        return pm_jdoc_error(doc, list, PM_ERR_INVALID, "the size in bytes overflows");
    *out_count = (uint64_t)count;
    return PM_OK;
}

static pm_status const_inline(pm_jgraph *g, const pm_json *json, const pm_json *values,
                              const char *name, pm_value **out)
{
    pm_jdoc *doc = g->doc;
    pm_elem elem;
    int32_t rank;
    pm_dim dims[PM_MAX_RANK];
    uint64_t count;
    leaves found = {0};
    PM_TRY(pm_jdoc_keys(doc, json, " type dims values "));
    PM_TRY(read_type(doc, json, &elem, &rank, dims, &count));
    collect(doc, values, &found);
    if (found.items.n != count)
        return pm_jdoc_error(doc, values, PM_ERR_INVALID,
                             "found %zu values, the extents make %" PRIu64, found.items.n, count);
    if (count > MAX_INLINE)
        return pm_jdoc_error(doc, values, PM_ERR_UNSUPPORTED,
                             "more than %d values in place; use a file", (int)MAX_INLINE);
    size_t size = pm_elem_size(elem);
    uint8_t *bytes = pm_arena_array(doc->module->arena, count, size, 64);
    for (size_t i = 0; i < count; i++)
        PM_TRY(write_value(doc, found.items.data[i], elem, bytes + i * size));
    pm_data data = {.size = count * size, .bytes = bytes};
    return pm_build_const(&g->b, pm_type_get(doc->module, elem, rank, dims), &data, name, out);
}

static pm_status const_raw(pm_jgraph *g, const pm_json *json, const pm_json *path, const char *name,
                           pm_value **out)
{
    pm_jdoc *doc = g->doc;
    pm_elem elem;
    int32_t rank;
    pm_dim dims[PM_MAX_RANK];
    uint64_t count;
    int64_t offset = 0;
    pm_file *file;
    pm_loc loc = pm_json_loc(doc->path, path);
    PM_TRY(pm_jdoc_keys(doc, json, " type dims file offset "));
    PM_TRY(read_type(doc, json, &elem, &rank, dims, &count));
    PM_TRY(pm_json_get_i64(doc->diag, doc->path, json, "offset", false, &offset));
    PM_TRY(pm_file_open_beneath(doc->module->arena, doc->diag, &loc, doc->dir, path->string,
                                &file));
    uint64_t size = count * pm_elem_size(elem);
    if (offset < 0 || (uint64_t)offset > file->size || size > file->size - (uint64_t)offset)
        return pm_jdoc_error(doc, json, PM_ERR_INVALID,
                             "%" PRIu64 " bytes at %" PRId64 " reach beyond the file's %" PRIu64,
                             size, offset, file->size);
    pm_data data = {.size = size, .file = file, .offset = (uint64_t)offset};
    return pm_build_const(&g->b, pm_type_get(doc->module, elem, rank, dims), &data, name, out);
}

/// The tensors of a file or checkpoint folder beneath the document's folder.
static pm_status open_set(pm_jdoc *doc, const pm_json *path, bool is_folder, pm_safetensors **out)
{
    pm_arena *arena = doc->module->arena;
    pm_loc loc = pm_json_loc(doc->path, path);
    void **slot = pm_map_at(&doc->sets, path->string, path->string_size);
    *out = *slot;
    if (*slot != NULL)
        return PM_OK;
    pm_file *file;
    pm_safetensors *set;
    if (is_folder) {
        // it must lie beneath, like everything that a model names
        const char *config = pm_path_join(doc->scratch, path->string, "config.json");
        PM_TRY(pm_file_open_beneath(arena, doc->diag, &loc, doc->dir, config, &file));
        PM_TRY(pm_safetensors_open(arena, doc->diag,
                                   pm_path_join(arena, doc->dir, path->string), &set));
    } else {
        PM_TRY(pm_file_open_beneath(arena, doc->diag, &loc, doc->dir, path->string, &file));
        set = PM_NEW(arena, pm_safetensors);
        *set = (pm_safetensors){.arena = arena, .diag = doc->diag, .path = file->path};
        pm_map_init(&set->tensors, arena);
        PM_TRY(pm_safetensors_add_file(set, file));
    }
    pm_map_put(&doc->sets, path->string, path->string_size, set);
    *out = set;
    return PM_OK;
}

static pm_status const_tensor(pm_jgraph *g, const pm_json *json, const pm_json *path,
                              bool is_folder, pm_value **out)
{
    pm_jdoc *doc = g->doc;
    const pm_json *name;
    pm_safetensors *set;
    PM_TRY(pm_jdoc_keys(doc, json, " file checkpoint tensor "));
    PM_TRY(pm_jdoc_get(doc, json, "tensor", PM_JSON_STRING, &name));
    PM_TRY(open_set(doc, path, is_folder, &set));
    const pm_safetensor *t = pm_safetensors_find(set, name->string);
    if (t == NULL) {
        const char **names = PM_NEW_ARRAY(doc->scratch, const char *, set->tensors.n);
        for (size_t i = 0; i < set->tensors.n; i++)
            names[i] = set->tensors.entries[i].key;
        const char *near = pm_nearest(name->string, names, set->tensors.n);
        return pm_jdoc_error(doc, name, PM_ERR_INVALID, "'%s' has no tensor '%s'%s%s%s",
                             path->string, name->string, near != NULL ? "; did you mean '" : "",
                             near != NULL ? near : "", near != NULL ? "'?" : "");
    }
    if (t->elem < 0)
        return pm_jdoc_error(doc, name, PM_ERR_UNSUPPORTED, "'%s' is stored as %s", t->name,
                             t->dtype);
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < t->rank; i++)
        dims[i] = pm_dim_const(doc->module, t->dims[i]);
    pm_data data = {.size = t->size, .file = t->file, .offset = t->offset};
    return pm_build_const(&g->b, pm_type_get(doc->module, (pm_elem)t->elem, t->rank, dims), &data,
                          t->name, out);
}

pm_status pm_jgraph_const(pm_jgraph *g, const pm_json *json, const char *name, pm_value **out)
{
    pm_jdoc *doc = g->doc;
    *out = NULL;
    if (json->kind != PM_JSON_OBJECT)
        return pm_jdoc_error(doc, json, PM_ERR_INVALID, "a constant must be an object");
    pm_jgraph_set_loc(g, json, name, "constant");
    const pm_json *values = pm_json_get(json, "values"), *file = pm_json_get(json, "file");
    const pm_json *folder = pm_json_get(json, "checkpoint");
    if ((values != NULL) + (file != NULL) + (folder != NULL) != 1)
        return pm_jdoc_error(doc, json, PM_ERR_INVALID,
                             "a constant has one of 'values', 'file', 'checkpoint'");
    if (values != NULL)
        return const_inline(g, json, values, name, out);
    const pm_json *path = file != NULL ? file : folder;
    if (path->kind != PM_JSON_STRING)
        return pm_jdoc_error(doc, path, PM_ERR_INVALID, "expected a name");
    if (folder != NULL || pm_json_get(json, "tensor") != NULL)
        return const_tensor(g, json, path, folder != NULL, out);
    return const_raw(g, json, path, name, out);
}
