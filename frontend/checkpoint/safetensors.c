#include "frontend/checkpoint/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "ir/type.h"

enum {
    MAX_HEADER = 100000000, ///< bytes, the format's own limit
    MAX_MARKS = 8000000,    ///< commas, colons and brackets: bounds what a parsed header weighs
    MAX_NAME = 4096,
    MAX_INDEX = 100000000,
    MAX_SHARDS = 10000,
};

/// Element types of the format; `elem` -1 where the IR has none (such a tensor may exist, but not be
/// used).
static const struct {
    const char *name;
    uint32_t bits;
    int32_t elem;
} dtypes[] = {
    {"F32", 32, PM_F32},    {"BF16", 16, PM_BF16}, {"F16", 16, PM_F16},    {"F64", 64, PM_F64},
    {"I64", 64, PM_I64},    {"I32", 32, PM_I32},   {"I16", 16, PM_I16},    {"I8", 8, PM_I8},
    {"U64", 64, PM_U64},    {"U32", 32, PM_U32},   {"U16", 16, PM_U16},    {"U8", 8, PM_U8},
    {"BOOL", 8, PM_BOOL},   {"F8_E4M3", 8, -1},    {"F8_E5M2", 8, -1},     {"F8_E8M0", 8, -1},
    {"F8_E4M3FNUZ", 8, -1}, {"F8_E5M2FNUZ", 8, -1}, {"F6_E2M3", 6, -1},    {"F6_E3M2", 6, -1},
    {"F4", 4, -1},          {"C64", 64, -1},
};

pm_safetensor *pm_safetensors_find(const pm_safetensors *set, const char *name)
{
    return pm_map_get_str(&set->tensors, name);
}

pm_loc pm_safetensor_loc(const pm_safetensor *tensor, const char *detail)
{
    return (pm_loc){.file = tensor->file->path,
                    .what = "tensor",
                    .name = tensor->name,
                    .detail = detail};
}

// ---- one file ----

/// What is known while a header is read.
typedef struct reader {
    pm_safetensors *set;
    const pm_file *file;
    uint64_t data_start, data_size;
    PM_VEC(pm_safetensor *) found;
    pm_arena *scratch;
} reader;

/// Commas, colons and brackets outside of strings: a bound on the number of values.
static size_t count_marks(const uint8_t *text, size_t size)
{
    size_t n = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        if (in_string) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                in_string = false;
        } else if (text[i] == '"') {
            in_string = true;
        } else {
            n += text[i] == ',' || text[i] == ':' || text[i] == '[' || text[i] == '{';
        }
    }
    return n;
}

static pm_status tensor_error(const reader *r, const char *name, const char *text)
{
    pm_loc loc = {.file = r->file->path, .what = "tensor", .name = name};
    return pm_error(r->set->diag, &loc, PM_ERR_INVALID, "%s", text);
}

/// A non-negative integer of the header.
static bool get_size(const pm_json *value, uint64_t *out)
{
    if (value->kind != PM_JSON_NUMBER || !value->is_int || value->integer < 0)
        return false;
    *out = (uint64_t)value->integer;
    return true;
}

static pm_status read_shape(reader *r, pm_safetensor *t, const pm_json *shape, uint64_t *out_count)
{
    if (shape == NULL || shape->kind != PM_JSON_ARRAY)
        return tensor_error(r, t->name, "'shape' must be a list of integers");
    if (shape->n > PM_MAX_RANK)
        return tensor_error(r, t->name, "'shape' has more than 8 dims");
    int64_t *dims = PM_NEW_ARRAY(r->set->arena, int64_t, shape->n);
    int64_t count = 1;
    bool is_empty = false;
    for (size_t i = 0; i < shape->n; i++) {
        uint64_t dim;
        if (!get_size(&shape->items[i], &dim))
            return tensor_error(r, t->name, "'shape' must be a list of integers that aren't negative");
        dims[i] = (int64_t)dim;
        is_empty = is_empty || dim == 0;
        // zeros are left out, so that a product that overflows is found whatever the order
        if (dim != 0 && !pm_mul_i64(count, dims[i], &count))
            return tensor_error(r, t->name, "the product of 'shape' overflows");
    }
    t->dims = dims;
    t->rank = (int32_t)shape->n;
    *out_count = is_empty ? 0 : (uint64_t)count;
    return PM_OK;
}

static pm_status read_dtype(reader *r, pm_safetensor *t, const pm_json *dtype, uint32_t *out_bits)
{
    if (dtype == NULL || dtype->kind != PM_JSON_STRING)
        return tensor_error(r, t->name, "'dtype' must be a string");
    for (size_t i = 0; i < PM_COUNT(dtypes); i++) {
        if (strcmp(dtypes[i].name, dtype->string) != 0)
            continue;
        t->dtype = dtypes[i].name;
        t->elem = dtypes[i].elem;
        *out_bits = dtypes[i].bits;
        return PM_OK;
    }
    pm_loc loc = {.file = r->file->path, .what = "tensor", .name = t->name};
    const char *names[PM_COUNT(dtypes)];
    for (size_t i = 0; i < PM_COUNT(dtypes); i++)
        names[i] = dtypes[i].name;
    const char *near = pm_nearest(dtype->string, names, PM_COUNT(dtypes));
    pm_status status = pm_error(r->set->diag, &loc, PM_ERR_INVALID, "unknown 'dtype' '%.40s'",
                                dtype->string);
    if (near != NULL)
        pm_note(r->set->diag, &loc, "did you mean '%s'?", near);
    return status;
}

static pm_status read_tensor(reader *r, const char *name, const pm_json *value)
{
    pm_safetensors *set = r->set;
    if (strlen(name) > MAX_NAME || name[0] == '\0')
        return tensor_error(r, "", "a tensor's name must have 1 to 4096 bytes");
    if (value->kind != PM_JSON_OBJECT)
        return tensor_error(r, name, "expected {\"dtype\", \"shape\", \"data_offsets\"}");
    for (size_t i = 0; i < value->n; i++)
        if (strcmp(value->keys[i], "dtype") != 0 && strcmp(value->keys[i], "shape") != 0 &&
            strcmp(value->keys[i], "data_offsets") != 0)
            return tensor_error(r, name, "has a key other than dtype, shape and data_offsets");
    pm_safetensor *t = PM_NEW(set->arena, pm_safetensor);
    t->name = pm_arena_strdup(set->arena, name);
    t->file = r->file;
    uint32_t bits = 0;
    uint64_t count = 0, n_bits = 0, begin = 0, end = 0;
    PM_TRY(read_dtype(r, t, pm_json_get(value, "dtype"), &bits));
    PM_TRY(read_shape(r, t, pm_json_get(value, "shape"), &count));
    if (__builtin_mul_overflow(count, (uint64_t)bits, &n_bits) || n_bits % 8 != 0)
        return tensor_error(r, name, "shape x type isn't a number of bytes");
    const pm_json *offsets = pm_json_get(value, "data_offsets");
    if (offsets == NULL || offsets->kind != PM_JSON_ARRAY || offsets->n != 2 ||
        !get_size(&offsets->items[0], &begin) || !get_size(&offsets->items[1], &end))
        return tensor_error(r, name, "'data_offsets' must be two integers that aren't negative");
    pm_loc loc = {.file = r->file->path, .what = "tensor", .name = name};
    if (begin > end || end > r->data_size)
        return pm_error(set->diag, &loc, PM_ERR_INVALID,
                        "data_offsets [%" PRIu64 ", %" PRIu64 "] lie outside of the %" PRIu64
                        " bytes of data",
                        begin, end, r->data_size);
    if (end - begin != n_bits / 8)
        return pm_error(set->diag, &loc, PM_ERR_INVALID,
                        "data_offsets span %" PRIu64 " bytes, but shape x type makes %" PRIu64,
                        end - begin, n_bits / 8);
    t->offset = r->data_start + begin;
    t->size = end - begin;
    void **slot = pm_map_at(&set->tensors, name, strlen(name));
    if (*slot != NULL) {
        pm_status status = tensor_error(r, name, "the tensor exists twice");
        pm_loc other = pm_safetensor_loc(*slot, NULL);
        pm_note(set->diag, &other, "the other one is here");
        return status;
    }
    *slot = t;
    PM_PUSH(r->scratch, &r->found, t);
    return PM_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const pm_safetensor *x = *(pm_safetensor *const *)a, *y = *(pm_safetensor *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size; // empty ones first
}

/// The tensors must cover the data without gap or overlap.
static pm_status check_tiling(reader *r)
{
    if (r->found.n > 0)
        qsort(r->found.data, r->found.n, sizeof *r->found.data, compare_offsets);
    uint64_t at = r->data_start;
    for (size_t i = 0; i < r->found.n; i++) {
        const pm_safetensor *t = r->found.data[i];
        pm_loc loc = pm_safetensor_loc(t, NULL);
        if (t->offset < at)
            return pm_error(r->set->diag, &loc, PM_ERR_INVALID,
                            "its bytes overlap those of '%s'", r->found.data[i - 1]->name);
        if (t->offset > at)
            return pm_error(r->set->diag, &loc, PM_ERR_INVALID,
                            "%" PRIu64 " bytes before it belong to no tensor", t->offset - at);
        at = t->offset + t->size;
    }
    pm_loc loc = {.file = r->file->path};
    if (at != r->data_start + r->data_size)
        return pm_error(r->set->diag, &loc, PM_ERR_INVALID,
                        "%" PRIu64 " bytes at the end belong to no tensor",
                        r->data_start + r->data_size - at);
    return PM_OK;
}

static pm_status read_metadata(reader *r, const pm_json *value)
{
    pm_loc loc = {.file = r->file->path, .what = "key", .name = "__metadata__"};
    bool is_good = value->kind == PM_JSON_OBJECT;
    for (size_t i = 0; is_good && i < value->n; i++)
        is_good = value->items[i].kind == PM_JSON_STRING;
    if (!is_good)
        return pm_error(r->set->diag, &loc, PM_ERR_INVALID, "must map strings to strings");
    return PM_OK;
}

static pm_status read_header(reader *r)
{
    pm_safetensors *set = r->set;
    const pm_file *file = r->file;
    pm_loc loc = {.file = file->path};
    uint8_t prefix[8];
    if (file->size < sizeof prefix)
        return pm_error(set->diag, &loc, PM_ERR_INVALID,
                        "not a safetensors file: shorter than its 8-byte prefix");
    PM_TRY(pm_file_read(set->diag, file, 0, prefix, sizeof prefix));
    uint64_t size = 0;
    for (int i = 7; i >= 0; i--)
        size = size << 8 | prefix[i];
    if (size > MAX_HEADER)
        return pm_error(set->diag, &loc, PM_ERR_INVALID,
                        "the header says it has %" PRIu64 " bytes, the limit is %d", size,
                        (int)MAX_HEADER);
    if (size > file->size - sizeof prefix)
        return pm_error(set->diag, &loc, PM_ERR_INVALID,
                        "the header says it has %" PRIu64 " bytes, the file has %" PRIu64, size,
                        file->size);
    char *text = pm_arena_alloc(r->scratch, size + 1, 1);
    PM_TRY(pm_file_read(set->diag, file, sizeof prefix, text, size));
    if (size == 0 || text[0] != '{')
        return pm_error(set->diag, &loc, PM_ERR_INVALID, "the header doesn't begin with '{'");
    if (count_marks((const uint8_t *)text, size) > MAX_MARKS)
        return pm_error(set->diag, &loc, PM_ERR_UNSUPPORTED,
                        "the header has more values than we read (%d)", (int)MAX_MARKS);
    r->data_start = sizeof prefix + size;
    r->data_size = file->size - r->data_start;
    const pm_json *root;
    PM_TRY(pm_json_parse(r->scratch, set->diag, file->path, text, size, &root));
    for (size_t i = 0; i < root->n; i++) {
        if (strcmp(root->keys[i], "__metadata__") == 0)
            PM_TRY(read_metadata(r, &root->items[i]));
        else
            PM_TRY(read_tensor(r, root->keys[i], &root->items[i]));
    }
    return check_tiling(r);
}

pm_status pm_safetensors_add_file(pm_safetensors *set, const pm_file *file)
{
    reader r = {.set = set, .file = file, .scratch = pm_arena_child(set->arena)};
    pm_status status = read_header(&r);
    pm_arena_destroy(r.scratch);
    return status;
}

// ---- a folder ----

/// Opens each shard that the index names, in the order of first mention.
static pm_status add_shards(pm_safetensors *set, const char *folder, const char *index,
                            const pm_json *weights, pm_arena *scratch)
{
    pm_map shards;
    pm_map_init(&shards, scratch);
    for (size_t i = 0; i < weights->n; i++) {
        const pm_json *name = &weights->items[i];
        pm_loc loc = pm_json_loc(index, name);
        if (name->kind != PM_JSON_STRING)
            return pm_error(set->diag, &loc, PM_ERR_INVALID, "expected the name of a file");
        void **slot = pm_map_at(&shards, name->string, name->string_size);
        if (*slot != NULL)
            continue;
        if (shards.n > MAX_SHARDS)
            return pm_error(set->diag, &loc, PM_ERR_UNSUPPORTED, "more than %d files",
                            (int)MAX_SHARDS);
        pm_file *file;
        PM_TRY(pm_file_open_beneath(set->arena, set->diag, &loc, folder, name->string, &file));
        *slot = file;
        PM_TRY(pm_safetensors_add_file(set, file));
    }
    for (size_t i = 0; i < weights->n; i++) {
        pm_safetensor *t = pm_safetensors_find(set, weights->keys[i]);
        const pm_json *name = &weights->items[i];
        pm_loc loc = pm_json_loc(index, name);
        if (t == NULL || t->file != pm_map_get(&shards, name->string, name->string_size))
            return pm_error(set->diag, &loc, PM_ERR_INVALID, "'%s' isn't in that file",
                            weights->keys[i]);
        t->used = true; // for the moment: named by the index
    }
    for (size_t i = 0; i < set->tensors.n; i++) {
        pm_safetensor *t = set->tensors.entries[i].value;
        pm_loc loc = pm_safetensor_loc(t, NULL);
        if (!t->used)
            return pm_error(set->diag, &loc, PM_ERR_INVALID, "the index doesn't name it");
        t->used = false;
    }
    return PM_OK;
}

static pm_status open_index(pm_safetensors *set, const char *folder, const char *path,
                            pm_arena *scratch)
{
    pm_file *file;
    PM_TRY(pm_file_open(scratch, set->diag, path, &file));
    pm_loc loc = {.file = path};
    if (file->size > MAX_INDEX)
        return pm_error(set->diag, &loc, PM_ERR_UNSUPPORTED, "larger than %d bytes",
                        (int)MAX_INDEX);
    char *text = pm_arena_alloc(scratch, file->size + 1, 1);
    PM_TRY(pm_file_read(set->diag, file, 0, text, file->size));
    if (count_marks((const uint8_t *)text, file->size) > MAX_MARKS)
        return pm_error(set->diag, &loc, PM_ERR_UNSUPPORTED,
                        "the index has more values than we read (%d)", (int)MAX_MARKS);
    const pm_json *root;
    PM_TRY(pm_json_parse(scratch, set->diag, path, text, file->size, &root));
    const pm_json *weights = pm_json_get(root, "weight_map");
    if (weights == NULL || weights->kind != PM_JSON_OBJECT) {
        loc = pm_json_loc(path, root);
        return pm_error(set->diag, &loc, PM_ERR_INVALID,
                        "expected an object with 'weight_map', which maps tensors to files");
    }
    return add_shards(set, folder, path, weights, scratch);
}

pm_status pm_safetensors_open(pm_arena *arena, pm_diag *diag, const char *folder,
                              pm_safetensors **out_set)
{
    *out_set = NULL;
    pm_safetensors *set = PM_NEW(arena, pm_safetensors);
    *set = (pm_safetensors){.arena = arena, .diag = diag, .path = pm_arena_strdup(arena, folder)};
    pm_map_init(&set->tensors, arena);
    const char *single = pm_path_join(arena, folder, "model.safetensors");
    const char *index = pm_path_join(arena, folder, "model.safetensors.index.json");
    if (access(single, F_OK) == 0) {
        pm_file *file;
        PM_TRY(pm_file_open(arena, diag, single, &file));
        PM_TRY(pm_safetensors_add_file(set, file));
    } else if (access(index, F_OK) == 0) {
        pm_arena *scratch = pm_arena_child(arena);
        pm_status status = open_index(set, folder, index, scratch);
        pm_arena_destroy(scratch);
        PM_TRY(status);
    } else {
        pm_loc loc = {.file = folder};
        return pm_error(diag, &loc, PM_ERR_INVALID,
                        "the folder has neither model.safetensors nor "
                        "model.safetensors.index.json");
    }
    *out_set = set;
    return PM_OK;
}
