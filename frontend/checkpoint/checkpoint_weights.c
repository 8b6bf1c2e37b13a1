/// Tensors by template, as constants of the graph: ranges of the files, never their bytes.
#include <inttypes.h>

#include "base/str.h"
#include "frontend/checkpoint/checkpoint_build.h"

/// One weight as a spec describes it: a range of a stored tensor.
typedef struct slab {
    pm_safetensor *tensor;
    const uint8_t *bytes;  ///< not NULL: in memory rather than in the file
    uint64_t offset, size; ///< there
    pm_elem elem;
    int32_t rank;
    int64_t dims[PM_MAX_RANK];
    bool transposed;              ///< stored with its last two axes exchanged
    int64_t from, to, stride;     ///< rows to be cut by ops (stride 0: none)
    int64_t groups;               ///< of rows, each of which is cut
    pm_ckpt_format format;        ///< of codes the scales are another tensor
    int64_t block;                ///< of scales: codes of a row that share one, 0: all
} slab;

enum { MXFP4_BYTES = 16, MXFP4_BLOCK = 2 * MXFP4_BYTES };

/// What of a weight is meant: itself (or its codes), or the scales of its codes.
typedef enum part { WEIGHT, SCALES } part;

const char *pm_ckpt_step_text(const pm_ckpt_step *step)
{
    const pm_ckpt *c = step->c;
    if (c->layer < 0)
        return pm_arena_printf(c->scratch, "%s", step->kind);
    return pm_arena_printf(c->scratch, "layer %" PRId64 ": %s", c->layer, step->kind);
}

void pm_ckpt_set_loc(pm_ckpt_step *step, const pm_safetensor *tensor)
{
    pm_ckpt *c = step->c;
    pm_loc loc = {.file = c->folder, .what = "step", .name = pm_ckpt_step_text(step),
                  .detail = c->recipe->name};
    if (tensor != NULL)
        loc = pm_safetensor_loc(tensor, pm_ckpt_step_text(step));
    c->b.loc = pm_loc_intern(c->module, &loc);
}

// ---- finding ----

/// A spec is a name, or {"name", "when", "index", "count", "stack", "rows", "of", "groups", "transposed",
/// "format", "scales", "optional"}.
static const pm_json *spec_name(const pm_json *spec)
{
    return spec->kind == PM_JSON_STRING ? spec : pm_json_get(spec, "name");
}

pm_safetensor *pm_ckpt_find(const pm_ckpt *c, const char *name)
{
    static const char model[] = "model.";
    static const char *const above[] = {"language_model.model.", "model.language_model.",
                                        "language_model."};
    pm_safetensor *t = pm_safetensors_find(c->tensors, name);
    if (t != NULL || !c->is_nested)
        return t;
    if (strncmp(name, model, strlen(model)) != 0)
        return pm_safetensors_find(c->tensors,
                                   pm_arena_printf(c->scratch, "language_model.%s", name));
    for (size_t i = 0; t == NULL && i < PM_COUNT(above); i++)
        t = pm_safetensors_find(c->tensors, pm_arena_printf(c->scratch, "%s%s", above[i],
                                                            name + strlen(model)));
    return t;
}

static pm_status spec_holds(pm_ckpt_step *step, const pm_json *spec, bool *out)
{
    const pm_json *when = pm_json_get(spec, "when");
    *out = true;
    if (when == NULL)
        return PM_OK;
    return pm_expr_bool(&step->c->scope, &step->loc, when->string, out);
}

static pm_status missing(pm_ckpt_step *step, const char *name)
{
    pm_ckpt *c = step->c;
    pm_loc loc = {.file = c->folder, .what = "tensor", .name = name, .detail = pm_ckpt_step_text(step)};
    const char **names = PM_NEW_ARRAY(c->scratch, const char *, c->tensors->tensors.n);
    for (size_t i = 0; i < c->tensors->tensors.n; i++)
        names[i] = c->tensors->tensors.entries[i].key;
    const char *near = pm_nearest(name, names, c->tensors->tensors.n);
    pm_status status = pm_error(c->diag, &loc, PM_ERR_INVALID,
                                "the checkpoint doesn't have this tensor, which the recipe '%s' needs",
                                c->recipe->name);
    if (near != NULL)
        pm_note(c->diag, &loc, "the nearest name in it is '%s'", near);
    return status;
}

/// Whether the first expert has the tensor that this one lacks: then that alternative was meant.
static pm_status is_of_expert_0(pm_ckpt_step *step, const char *template, bool *out)
{
    pm_ckpt *c = step->c;
    const pm_expr_value *e = pm_map_get_str(&c->scope.names, "e");
    const char *name;
    if (c->n_stacked == 0 || e == NULL)
        return PM_OK;
    double number = e->number;
    pm_expr_set_number(&c->scope, "e", 0);
    PM_TRY(pm_expr_template(&c->scope, &step->loc, template, &name));
    pm_expr_set_number(&c->scope, "e", number);
    *out = number > 0 && pm_ckpt_find(c, name) != NULL;
    return PM_OK;
}

/// The first alternative that holds and whose tensor exists; NULL when the weight is optional, or no
/// alternative holds.
static pm_status choose(pm_ckpt_step *step, const pm_json *spec, const pm_json **out_spec,
                        pm_safetensor **out_tensor)
{
    pm_ckpt *c = step->c;
    size_t n = spec->kind == PM_JSON_ARRAY ? spec->n : 1;
    const char *first = NULL;
    bool optional = false;
    *out_spec = NULL;
    *out_tensor = NULL;
    for (size_t i = 0; i < n; i++) {
        const pm_json *one = spec->kind == PM_JSON_ARRAY ? &spec->items[i] : spec;
        const pm_json *name_json = spec_name(one);
        const char *name;
        bool holds;
        if (name_json == NULL || name_json->kind != PM_JSON_STRING)
            return pm_step_fault(step, "a weight needs a name");
        PM_TRY(spec_holds(step, one, &holds));
        if (!holds)
            continue;
        PM_TRY(pm_expr_template(&c->scope, &step->loc, name_json->string, &name));
        PM_TRY(pm_json_get_bool(c->diag, c->recipe->file,
                                one->kind == PM_JSON_OBJECT ? one : NULL, "optional", false,
                                &optional));
        pm_safetensor *tensor = pm_ckpt_find(c, name);
        if (tensor != NULL) {
            *out_spec = one;
            *out_tensor = tensor;
            return PM_OK;
        }
        bool is_likely = false;
        PM_TRY(is_of_expert_0(step, name_json->string, &is_likely));
        if (first == NULL || is_likely)
            first = name;
    }
    if (optional || first == NULL)
        return PM_OK;
    return missing(step, first);
}

static pm_status shape_error(pm_ckpt_step *step, const pm_safetensor *t, const char *expected)
{
    pm_str found = pm_str_new(step->c->scratch);
    for (int32_t i = 0; i < t->rank; i++)
        pm_str_printf(&found, "%s%" PRId64, i > 0 ? ", " : "", t->dims[i]);
    pm_loc loc = pm_safetensor_loc(t, pm_ckpt_step_text(step));
    return pm_error(step->c->diag, &loc, PM_ERR_INVALID,
                    "has the shape [%s], the configuration makes it %s", found.data, expected);
}

/// One entry of the first axis; with "count", one of so many equal parts of it.
static pm_status take_index(pm_ckpt_step *step, const pm_json *spec, const pm_json *index, slab *s)
{
    pm_ckpt *c = step->c;
    const pm_json *count = pm_json_get(spec, "count");
    int64_t i, parts = s->rank > 0 ? s->dims[0] : 0, stacked = c->n_stacked;
    if (s->rank < 1 || s->dims[0] < 1)
        return shape_error(step, s->tensor, "a stack of tensors");
    PM_TRY(pm_expr_int(&c->scope, &step->loc, index->string, 0, INT32_MAX, &i));
    if (count != NULL)
        PM_TRY(pm_step_int(step, spec, "count", 1, &parts));
    PM_TRY(pm_step_int(step, spec, "stack", 0, &stacked));
    if (i >= parts || (stacked > 0 && parts != stacked) || s->dims[0] % parts != 0)
        return shape_error(step, s->tensor,
                           pm_arena_printf(c->scratch, "a stack of %" PRId64,
                                           count != NULL ? parts : stacked > i ? stacked : i + 1));
    s->size /= (uint64_t)parts;
    s->offset += (uint64_t)i * s->size;
    s->dims[0] /= parts;
    if (count != NULL)
        return PM_OK;
    s->rank--;
    memmove(s->dims, s->dims + 1, (size_t)s->rank * sizeof *s->dims);
    return PM_OK;
}

/// Narrows the slab to one entry of its first axis ("index"), then to some rows ("rows").
static pm_status narrow(pm_ckpt_step *step, const pm_json *spec, slab *s)
{
    pm_ckpt *c = step->c;
    const pm_json *index = pm_json_get(spec, "index"), *rows = pm_json_get(spec, "rows");
    if (index != NULL)
        PM_TRY(take_index(step, spec, index, s));
    if (rows == NULL)
        return PM_OK;
    if (rows->kind != PM_JSON_ARRAY || rows->n < 2 || rows->n > 3)
        return pm_step_fault(step, "'rows' takes [from, to] or [from, to, stride]");
    int32_t axis = s->transposed ? s->rank - 1 : 0;
    s->stride = s->groups = 1;
    PM_TRY(pm_expr_int(&c->scope, &step->loc, rows->items[0].string, 0, INT32_MAX, &s->from));
    PM_TRY(pm_expr_int(&c->scope, &step->loc, rows->items[1].string, 0, INT32_MAX, &s->to));
    if (rows->n == 3)
        PM_TRY(pm_expr_int(&c->scope, &step->loc, rows->items[2].string, 1, INT32_MAX, &s->stride));
    PM_TRY(pm_step_int(step, spec, "groups", 1, &s->groups));
    const pm_json *total = pm_json_get(spec, "of");
    int64_t n_rows = s->rank > 0 ? s->dims[axis] / s->groups : 0;
    if (total != NULL)
        PM_TRY(pm_expr_int(&c->scope, &step->loc, total->string, 0, INT32_MAX, &n_rows));
    if (s->rank < 1 || s->from > s->to || s->to > n_rows || s->dims[axis] != n_rows * s->groups)
        return shape_error(step, s->tensor,
                           pm_arena_printf(c->scratch, "one with %" PRId64 " rows",
                                           (s->to > n_rows ? s->to : n_rows) * s->groups));
    if (s->stride > 1 || s->transposed || s->groups > 1)
        return PM_OK;
    uint64_t row = s->dims[0] > 0 ? s->size / (uint64_t)s->dims[0] : 0;
    s->offset += (uint64_t)s->from * row;
    s->size = (uint64_t)(s->to - s->from) * row;
    s->dims[0] = s->to - s->from;
    s->stride = 0;
    return PM_OK;
}

/// The range of the file that a tensor is.
static void take_tensor(slab *s, pm_safetensor *t, pm_elem elem)
{
    s->tensor = t;
    s->elem = elem;
    s->offset = t->offset;
    s->size = t->size;
    s->rank = t->rank;
    if (t->rank > 0)
        memcpy(s->dims, t->dims, (size_t)t->rank * sizeof *s->dims);
}

static pm_status find_fp8(pm_ckpt_step *step, part which, slab *out)
{
    out->format = PM_CKPT_FP8;
    if (which == WEIGHT) {
        take_tensor(out, out->tensor, PM_U8);
        return PM_OK;
    }
    pm_ckpt_scales scales;
    PM_TRY(pm_ckpt_scales_of(step, out->tensor, out->transposed, &scales));
    take_tensor(out, scales.tensor, scales.elem);
    out->block = scales.block;
    out->bytes = scales.bytes;
    out->offset = scales.bytes != NULL ? 0 : out->offset;
    out->size = scales.size;
    out->rank = scales.rank;
    memcpy(out->dims, scales.dims, (size_t)scales.rank * sizeof *scales.dims);
    return PM_OK;
}

/// Codes in blocks, [.., K / 32, 16], with an exponent for each, [.., K / 32] in the tensor "scales".
static pm_status find_mxfp4(pm_ckpt_step *step, const pm_json *spec, part which, slab *out)
{
    pm_ckpt *c = step->c;
    const char *format = NULL, *scales = NULL, *name;
    if (spec->kind == PM_JSON_OBJECT) {
        PM_TRY(pm_json_get_str(c->diag, c->recipe->file, spec, "format", false, &format));
        PM_TRY(pm_json_get_str(c->diag, c->recipe->file, spec, "scales", false, &scales));
    }
    if (format == NULL && scales == NULL)
        return PM_OK;
    if (format == NULL || scales == NULL || strcmp(format, "mxfp4") != 0)
        return pm_step_fault(step, "a weight with scales needs 'scales' and the format 'mxfp4'");
    out->format = PM_CKPT_MXFP4;
    out->block = MXFP4_BLOCK;
    if (which == SCALES) {
        PM_TRY(pm_expr_template(&c->scope, &step->loc, scales, &name));
        out->tensor = pm_ckpt_find(c, name);
        if (out->tensor == NULL)
            return missing(step, name);
    }
    pm_loc loc = pm_safetensor_loc(out->tensor, pm_ckpt_step_text(step));
    if (out->tensor->elem != PM_U8)
        return pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED,
                        "is stored as %s; codes and scales of mxfp4 must be U8", out->tensor->dtype);
    take_tensor(out, out->tensor, PM_U8);
    return PM_OK;
}

static pm_status find_slab(pm_ckpt_step *step, const pm_json *spec, part which, slab *out)
{
    const pm_json *chosen;
    *out = (slab){0};
    PM_TRY(choose(step, spec, &chosen, &out->tensor));
    if (out->tensor == NULL)
        return PM_OK;
    PM_TRY(pm_json_get_bool(step->c->diag, step->c->recipe->file, chosen->kind == PM_JSON_OBJECT ? chosen : NULL,
                            "transposed", false, &out->transposed));
    PM_TRY(find_mxfp4(step, chosen, which, out));
    if (out->format == PM_CKPT_ELEMENTS && pm_ckpt_is_fp8(out->tensor))
        PM_TRY(find_fp8(step, which, out));
    pm_safetensor *t = out->tensor;
    t->used = true;
    if (out->format == PM_CKPT_ELEMENTS && (t->elem < 0 || !pm_elem_is_float((pm_elem)t->elem))) {
        pm_loc loc = pm_safetensor_loc(t, pm_ckpt_step_text(step));
        return pm_error(step->c->diag, &loc, PM_ERR_UNSUPPORTED,
                        "is stored as %s; weights must be F32, BF16, F16, F64, or F8_E4M3 with scales", t->dtype);
    }
    if (out->format == PM_CKPT_ELEMENTS)
        take_tensor(out, t, (pm_elem)t->elem);
    return narrow(step, chosen, out);
}

// ---- building ----

/// One description of each range for all entries, so that they share the weights.
static const pm_data *slab_data(pm_ckpt *c, const slab *s)
{
    struct {
        const void *where;
        uint64_t offset, size;
    } key = {s->bytes != NULL ? (const void *)s->bytes : (const void *)s->tensor->file, s->offset, s->size};
    void **slot = pm_map_at(&c->datas, &key, sizeof key);
    if (*slot == NULL) {
        pm_data *data = PM_NEW(c->module->arena, pm_data);
        *data = s->bytes != NULL ? (pm_data){.size = s->size, .bytes = s->bytes + s->offset}
                                 : (pm_data){.size = s->size, .file = s->tensor->file, .offset = s->offset};
        *slot = data;
    }
    return *slot;
}

static pm_status build_slab(pm_ckpt_step *step, const slab *s, pm_value **out)
{
    pm_ckpt *c = step->c;
    pm_dim dims[PM_MAX_RANK];
    for (int32_t i = 0; i < s->rank; i++)
        dims[i] = pm_dim_const(c->module, s->dims[i]);
    pm_ckpt_set_loc(step, s->tensor);
    return pm_build_const(&c->b, pm_type_get(c->module, s->elem, s->rank, dims),
                          slab_data(c, s), s->tensor->name, out);
}

static pm_status build_axis_ints(pm_ckpt *c, int64_t value, pm_value **out)
{
    int64_t one = 1;
    return pm_build_const_ints(&c->b, PM_I64, 1, &one, &value, out);
}

/// Cuts rows along `axis`.
static pm_status cut_rows(pm_ckpt *c, const slab *s, int32_t axis, pm_value **inout)
{
    pm_value *from, *to, *at, *stride;
    PM_TRY(build_axis_ints(c, s->from, &from));
    PM_TRY(build_axis_ints(c, s->to, &to));
    PM_TRY(build_axis_ints(c, axis, &at));
    PM_TRY(build_axis_ints(c, s->stride, &stride));
    return pm_build1(&c->b, inout, PM_OP_slice, PM_OPERANDS(*inout, from, to, at, stride),
                     PM_NO_ATTRS);
}

/// The same rows of each group: ranges of the file, stacked.
static pm_status build_groups(pm_ckpt_step *step, const slab *s, pm_value **out)
{
    pm_ckpt *c = step->c;
    pm_value **parts = PM_NEW_ARRAY(c->scratch, pm_value *, (size_t)s->groups);
    int64_t rows = s->dims[0] / s->groups;
    uint64_t row = s->dims[0] > 0 ? s->size / (uint64_t)s->dims[0] : 0;
    if (s->transposed || s->stride > 1 || s->format == PM_CKPT_MXFP4)
        return pm_step_fault(step, "rows of groups must lie as they are, side by side");
    slab part = *s;
    part.dims[0] = s->to - s->from;
    part.size = (uint64_t)part.dims[0] * row;
    for (int64_t g = 0; g < s->groups; g++) {
        part.offset = s->offset + (uint64_t)(g * rows + s->from) * row;
        PM_TRY(build_slab(step, &part, &parts[g]));
    }
    PM_TRY(pm_build1(&c->b, out, PM_OP_stack, parts, (size_t)s->groups, PM_NO_ATTRS));
    pm_dim dims[PM_MAX_RANK] = {pm_dim_const(c->module, part.dims[0] * s->groups)};
    for (int32_t i = 1; i < s->rank; i++)
        dims[i] = pm_dim_const(c->module, s->dims[i]);
    return pm_build_reshape_dims(&c->b, *out, s->rank, dims, out);
}

/// What can't be said by a range of the file: exchange the last two axes, cut rows with a stride.
/// `value` may be a stack of slabs: one more axis in front.
static pm_status arrange(pm_ckpt_step *step, const slab *s, pm_value **inout)
{
    pm_ckpt *c = step->c;
    int32_t rank = (*inout)->type->rank, first = rank - s->rank;
    if (s->transposed) {
        int64_t perm[PM_MAX_RANK];
        for (int32_t i = 0; i < rank; i++)
            perm[i] = i;
        if (s->rank < 2)
            return shape_error(step, s->tensor, "a matrix");
        perm[rank - 1] = rank - 2;
        perm[rank - 2] = rank - 1;
        PM_TRY(pm_build1(&c->b, inout, PM_OP_transpose, PM_OPERANDS(*inout),
                         PM_ATTRS(pm_attr_ints("perm", perm, (size_t)rank))));
    }
    return s->stride > 0 ? cut_rows(c, s, first, inout) : PM_OK;
}

/// Codes [.., blocks, 16] as rows of bytes; the blocks must fill the last axis.
static pm_status join_blocks(pm_ckpt_step *step, const slab *s, pm_value **inout)
{
    pm_ckpt *c = step->c;
    const pm_type *t = (*inout)->type;
    pm_dim dims[PM_MAX_RANK];
    if (s->format != PM_CKPT_MXFP4)
        return PM_OK;
    if (s->rank < 3 || s->dims[s->rank - 1] != MXFP4_BYTES)
        return shape_error(step, s->tensor, "blocks of 16 bytes");
    memcpy(dims, t->dims, (size_t)t->rank * sizeof *dims);
    dims[t->rank - 2] = pm_dim_mul(c->module, dims[t->rank - 2], dims[t->rank - 1]);
    return pm_build_reshape_dims(&c->b, *inout, t->rank - 1, dims, inout);
}

/// What codes and scales stand for; `block` codes of a row share a scale.
static pm_status decode(pm_ckpt_step *step, pm_ckpt_format format, pm_value *codes, pm_value *scales, int64_t block,
                        pm_value **out)
{
    int64_t bits = format == PM_CKPT_FP8 ? 8 : 4;
    pm_ckpt *c = step->c;
    int64_t bytes = 0;
    (void)pm_dim_is_const(c->module, codes->type->dims[codes->type->rank - 1], &bytes);
    return pm_build1(&c->b, out, PM_OP_dequantize, PM_OPERANDS(codes, scales),
                     PM_ATTRS(pm_attr_i64("k", bytes * 8 / bits), pm_attr_i64("bits", bits),
                              pm_attr_i64("block", block),
                              pm_attr_str("format", format == PM_CKPT_FP8 ? "e4m3" : "e2m1")));
}

static pm_status check_dims(pm_ckpt_step *step, const pm_safetensor *t, const pm_value *value,
                            int32_t rank, const int64_t *dims)
{
    bool fits = value->type->rank == rank;
    for (int32_t i = 0; fits && i < rank; i++) {
        int64_t dim;
        fits = dims[i] < 0 || (pm_dim_is_const(step->c->module, value->type->dims[i], &dim) &&
                               dim == dims[i]);
    }
    if (fits)
        return PM_OK;
    pm_str expected = pm_str_new(step->c->scratch);
    for (int32_t i = 0; i < rank; i++)
        pm_str_printf(&expected, "%s%" PRId64, i > 0 ? ", " : "[", dims[i]);
    return shape_error(step, t, pm_arena_printf(step->c->scratch, "%s]", expected.data));
}

static pm_status as_f32(pm_ckpt *c, bool f32, pm_value **inout)
{
    if (!f32 || (*inout)->type->elem == PM_F32)
        return PM_OK;
    return pm_build1(&c->b, inout, PM_OP_cast, PM_OPERANDS(*inout),
                     PM_ATTRS(pm_attr_elem("to", PM_F32)));
}

/// A weight outside of experts, or one part of it.
static pm_status build_part(pm_ckpt_step *step, const pm_json *spec, part which, slab *s,
                            pm_value **out)
{
    PM_TRY(find_slab(step, spec, which, s));
    if (s->tensor == NULL)
        return PM_OK;
    if (s->groups > 1)
        return build_groups(step, s, out);
    PM_TRY(build_slab(step, s, out));
    PM_TRY(arrange(step, s, out));
    return which == WEIGHT ? join_blocks(step, s, out) : PM_OK;
}

pm_status pm_ckpt_weight(pm_ckpt_step *step, const pm_json *spec, int32_t rank,
                         const int64_t *dims, bool f32, pm_value **out)
{
    pm_ckpt *c = step->c;
    *out = NULL;
    if (spec == NULL)
        return PM_OK;
    for (size_t i = 0; c->in_region && i < c->captures.n; i++) {
        const pm_ckpt_capture *capture = &c->captures.data[i];
        if (capture->spec != spec)
            continue;
        pm_ckpt_set_loc(step, capture->first);
        *out = capture->arg;
        if (capture->format != PM_CKPT_ELEMENTS) {
            pm_ckpt_set_loc(step, capture[1].first);
            PM_TRY(decode(step, capture->format, capture->arg, capture[1].arg, capture[1].block, out));
        }
        PM_TRY(check_dims(step, capture->first, *out, rank, dims));
        return as_f32(c, f32, out);
    }
    if (c->in_region) // optional and absent
        return PM_OK;
    slab s, scales;
    pm_value *factors;
    PM_TRY(build_part(step, spec, WEIGHT, &s, out));
    if (s.tensor == NULL)
        return PM_OK;
    if (s.format != PM_CKPT_ELEMENTS) {
        PM_TRY(build_part(step, spec, SCALES, &scales, &factors));
        PM_TRY(decode(step, s.format, *out, factors, scales.block, out));
    }
    PM_TRY(check_dims(step, s.tensor, *out, rank, dims));
    return as_f32(c, f32, out);
}

/// One part of all experts' weights, stacked, as a capture; `*out` is expert 0's.
static pm_status capture_part(pm_ckpt_step *step, const pm_json *spec, part which, int64_t n, slab *out)
{
    pm_ckpt *c = step->c;
    pm_value **slabs = PM_NEW_ARRAY(c->scratch, pm_value *, (size_t)n);
    slab first = {0};
    c->n_stacked = n;
    for (int64_t e = 0; e < n; e++) {
        slab s;
        pm_expr_set_number(&c->scope, "e", (double)e);
        PM_TRY(find_slab(step, spec, which, &s));
        if (e == 0)
            first = s;
        if (s.tensor == NULL && first.tensor == NULL)
            continue;
        if (s.tensor == NULL)
            return pm_step_fault(step, "a weight is there for some experts only");
        if (s.groups > 1)
            return pm_step_fault(step, "rows of groups of an expert's weight can't be cut");
        if (s.elem != first.elem) {
            pm_loc loc = pm_safetensor_loc(s.tensor, pm_ckpt_step_text(step));
            return pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED, "is stored as %s, but '%s' as %s", s.tensor->dtype,
                            first.tensor->name, first.tensor->dtype);
        }
        PM_TRY(build_slab(step, &s, &slabs[e]));
        if (s.rank == 1) // small: rather made one by one than cut out of a stack when the program runs
            PM_TRY(arrange(step, &s, &slabs[e]));
        if (slabs[e]->type != slabs[0]->type)
            return shape_error(step, s.tensor,
                               pm_arena_printf(c->scratch, "that of '%s'", first.tensor->name));
    }
    c->n_stacked = 0;
    *out = first;
    if (first.tensor == NULL)
        return PM_OK;
    pm_ckpt_capture capture = {.spec = which == WEIGHT ? spec : NULL, .first = first.tensor,
                               .format = which == WEIGHT ? first.format : PM_CKPT_ELEMENTS, .block = first.block};
    pm_ckpt_set_loc(step, first.tensor);
    PM_TRY(pm_build1(&c->b, &capture.stacked, PM_OP_stack, slabs, (size_t)n, PM_NO_ATTRS));
    if (first.rank > 1)
        PM_TRY(arrange(step, &first, &capture.stacked));
    if (which == WEIGHT)
        PM_TRY(join_blocks(step, &first, &capture.stacked));
    PM_PUSH(c->scratch, &c->captures, capture);
    return PM_OK;
}

pm_status pm_ckpt_capture_weight(pm_ckpt_step *step, const pm_json *spec, int64_t n)
{
    slab weight, scales;
    if (spec == NULL)
        return PM_OK;
    PM_TRY(capture_part(step, spec, WEIGHT, n, &weight));
    return weight.format != PM_CKPT_ELEMENTS ? capture_part(step, spec, SCALES, n, &scales) : PM_OK;
}

// ---- what is left over ----

bool pm_ckpt_name_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *taken = NULL; // the last star, and where what it takes ends
    while (*name != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            taken = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star + 1;
            name = ++taken;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

static pm_status is_ignored(pm_ckpt *c, const char *name, bool *out)
{
    *out = false;
    for (size_t k = 0; k < c->recipe->n_sources; k++) {
        const pm_json *ignore = pm_json_get(c->recipe->sources[k], "ignore");
        const char *file = c->recipe->source_files[k];
        for (size_t i = 0; ignore != NULL && i < ignore->n && !*out; i++) {
            const pm_json *item = &ignore->items[i];
            pm_loc loc = pm_json_loc(file, item);
            const char *pattern, *when = NULL;
            PM_TRY(pm_json_get_str(c->diag, file, item, "name", true, &pattern));
            PM_TRY(pm_json_get_str(c->diag, file, item, "when", false, &when));
            PM_TRY(pm_expr_template(&c->scope, &loc, pattern, &pattern));
            if (!pm_ckpt_name_matches(pattern, name))
                continue;
            *out = true;
            if (when != NULL)
                PM_TRY(pm_expr_bool(&c->scope, &loc, when, out));
        }
    }
    return PM_OK;
}

/// A tensor of what sees or hears.
static bool is_other_part(const pm_ckpt *c, const char *name)
{
    static const char model[] = "language_model.";
    const char *at = c->is_nested ? strstr(name, model) : name;
    return c->is_nested && strncmp(name, "lm_head.", 8) != 0 &&
           (at == NULL || (at != name && at[-1] != '.'));
}

pm_status pm_ckpt_check_unused(pm_ckpt *c)
{
    enum { SHOWN = 5 };
    size_t n_unused = 0;
    const pm_safetensor *shown[SHOWN];
    for (size_t i = 0; i < c->tensors->tensors.n; i++) {
        const pm_safetensor *t = c->tensors->tensors.entries[i].value;
        bool ignored = t->used || is_other_part(c, t->name);
        if (!ignored)
            PM_TRY(is_ignored(c, t->name, &ignored));
        const char *scaled = pm_ckpt_scaled_name(c->scratch, t->name);
        if (!ignored && c->is_fp8 && scaled != NULL)
            PM_TRY(is_ignored(c, scaled, &ignored));
        ignored = ignored || (c->is_fp8 && pm_ckpt_is_of_activations(t->name));
        if (ignored)
            continue;
        if (n_unused < SHOWN)
            shown[n_unused] = t;
        n_unused++;
    }
    if (n_unused == 0)
        return PM_OK;
    // what a model has and a recipe leaves out changes the numbers: better no model than a wrong one
    pm_loc loc = pm_safetensor_loc(shown[0], NULL);
    pm_status status = pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED,
                                "%zu tensors of the checkpoint have no place in the recipe '%s'",
                                n_unused, c->recipe->name);
    for (size_t i = 1; i < n_unused && i < SHOWN; i++) {
        loc = pm_safetensor_loc(shown[i], NULL);
        pm_note(c->diag, &loc, "another one");
    }
    return status;
}
