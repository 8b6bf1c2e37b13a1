/// Packing of weights into panels, a panel at a time: memory does not grow with the model.
#include <stdlib.h>
#include <string.h>

#include "codegen/link/weights.h"
#include "ir/op_table.h"

enum { CHUNK = 1 << 20 };

pm_status pm_weight_put(weight_sink *sink, const void *bytes, size_t size)
{
    if (size && fwrite(bytes, 1, size, sink->out) != size)
        return pm_error(sink->diag, NULL, PM_ERR_IO, "weights could not be written");
    pm_hasher_add(sink->hasher, bytes, size);
    sink->written += size;
    return PM_OK;
}

/// Reads a range of a constant.
static pm_status read_range(weight_sink *sink, const pm_data *data, uint64_t offset, void *buffer,
                            size_t size)
{
    if (offset > data->size || size > data->size - offset)
        return pm_error(sink->diag, NULL, PM_ERR_INTERNAL, "a weight is read past its end");
    if (data->bytes) {
        memcpy(buffer, data->bytes + offset, size);
        return PM_OK;
    }
    return pm_file_read(sink->diag, data->file, data->offset + offset, buffer, size);
}

static pm_status write_plain(weight_sink *sink, const pm_data *data)
{
    uint8_t *chunk = malloc(CHUNK);
    if (!chunk)
        return PM_ERR_NO_MEMORY;
    pm_status status = PM_OK;
    for (uint64_t at = 0; at < data->size && status == PM_OK; at += CHUNK) {
        size_t n = data->size - at < CHUNK ? (size_t)(data->size - at) : CHUNK;
        status = read_range(sink, data, at, chunk, n);
        if (status == PM_OK)
            status = pm_weight_put(sink, chunk, n);
    }
    free(chunk);
    return status;
}

/// ---- elements -------------------------------------------------------------------------------------------

static float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        float value = (float)fraction * 0x1p-24f;
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static float to_f32(const uint8_t *bytes, pm_elem elem, size_t i)
{
    uint16_t h;
    uint32_t bits;
    float f;
    double d;
    switch (elem) {
    case PM_F32: memcpy(&f, bytes + i * 4, 4); return f;
    case PM_F64: memcpy(&d, bytes + i * 8, 8); return (float)d;
    case PM_BF16:
        memcpy(&h, bytes + i * 2, 2);
        bits = (uint32_t)h << 16;
        memcpy(&f, &bits, 4);
        return f;
    case PM_F16: memcpy(&h, bytes + i * 2, 2); return f16_to_f32(h);
    default: PM_ASSERT(!"an element type that products take"); return 0;
    }
}

static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 64); // NaN stays NaN
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// ---- sources: matrices [N, K] somewhere inside constants --------------------------------------------------

typedef struct source {
    const pm_data *data;
    pm_elem elem;
    uint64_t offset;    ///< bytes to element (0, 0)
    int64_t n, k;
    bool trans;         ///< stored [K, N]
} source;

static int64_t extent(pm_module *m, const pm_type *type, int32_t i)
{
    int64_t n = 0;
    pm_dim_is_const(m, type->dims[i], &n);
    return n;
}

/// The matrix of `expert` (or of the whole, -1) inside a pack's operand.
static pm_status find_source(pm_weights *w, const pm_value *v, int64_t expert, bool trans,
                             source *out)
{
    pm_module *m = w->module;
    if (pm_value_is(v, PM_OP_stack)) {
        if (expert < 0 || expert >= v->def->n_operands)
            return PM_ERR_INTERNAL;
        v = v->def->operands[expert];
        expert = -1;
    }
    const pm_data *data = pm_value_const(v);
    if (!data)
        return pm_error(m->diag, v->def ? v->def->loc : NULL, PM_ERR_UNSUPPORTED,
                        "weights must be constants here");
    int32_t rank = v->type->rank;
    int64_t rows = extent(m, v->type, rank - 2), columns = extent(m, v->type, rank - 1);
    *out = (source){.data = data, .elem = v->type->elem, .trans = trans,
                    .n = trans ? columns : rows, .k = trans ? rows : columns};
    if (expert >= 0)
        out->offset = (uint64_t)expert * (uint64_t)rows * (uint64_t)columns * pm_elem_size(out->elem);
    return PM_OK;
}

/// Rows [n0, n0 + count) of a source as f32 [count][k], zero beyond its end.
static pm_status read_rows(weight_sink *sink, const source *s, int64_t n0, int64_t count,
                           uint8_t *raw, float *rows)
{
    uint32_t size = pm_elem_size(s->elem);
    int64_t have = s->n - n0 < count ? s->n - n0 : count;
    memset(rows, 0, (size_t)(count * s->k) * sizeof *rows);
    if (have <= 0)
        return PM_OK;
    if (!s->trans) {
        PM_TRY(read_range(sink, s->data, s->offset + (uint64_t)(n0 * s->k) * size, raw,
                          (size_t)(have * s->k) * size));
        for (int64_t i = 0; i < have * s->k; i++)
            rows[i] = to_f32(raw, s->elem, (size_t)i);
        return PM_OK;
    }
    for (int64_t k = 0; k < s->k; k++) {
        PM_TRY(read_range(sink, s->data, s->offset + (uint64_t)(k * s->n + n0) * size, raw,
                          (size_t)have * size));
        for (int64_t r = 0; r < have; r++)
            rows[r * s->k + k] = to_f32(raw, s->elem, (size_t)r);
    }
    return PM_OK;
}

/// One panel [ceil(k / pair)][panel][pair] from rows [panel][k].
static void pack_panel(const float *rows, int64_t panel, int64_t k, int64_t pair, pm_elem elem,
                       uint8_t *out)
{
    int64_t groups = (k + pair - 1) / pair;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t r = 0; r < panel; r++)
            for (int64_t p = 0; p < pair; p++) {
                float f = g * pair + p < k ? rows[r * k + g * pair + p] : 0;
                size_t at = (size_t)((g * panel + r) * pair + p);
                if (elem == PM_F32) {
                    memcpy(out + at * 4, &f, 4);
                } else {
                    uint16_t h = to_bf16(f);
                    memcpy(out + at * 2, &h, 2);
                }
            }
}

static pm_status write_matrix(weight_sink *sink, const source *sources, const pm_layout *layout,
                              pm_elem elem)
{
    int64_t width = layout->panel / layout->ways, k = sources[0].k;
    int64_t panels = (sources[0].n + width - 1) / width;
    size_t panel_bytes = (size_t)((k + layout->pair - 1) / layout->pair) * (size_t)layout->panel *
                         (size_t)layout->pair * pm_elem_size(elem);
    float *rows = malloc((size_t)layout->panel * (size_t)k * sizeof *rows + 1);
    uint8_t *raw = malloc((size_t)layout->panel * (size_t)k * 8 + 1), *packed = malloc(panel_bytes + 1);
    pm_status status = rows && raw && packed ? PM_OK : PM_ERR_NO_MEMORY;
    for (int64_t p = 0; p < panels && status == PM_OK; p++) {
        for (int32_t s = 0; s < layout->ways && status == PM_OK; s++)
            status = read_rows(sink, &sources[s], p * width, width, raw, rows + s * width * k);
        if (status != PM_OK)
            break;
        pack_panel(rows, layout->panel, k, layout->pair, elem, packed);
        status = pm_weight_put(sink, packed, panel_bytes);
    }
    free(rows);
    free(raw);
    free(packed);
    return status;
}

pm_status pm_weight_write(pm_weights *w, const weight_part *part, int64_t expert, weight_sink *sink)
{
    const pm_op *op = part->value->def;
    pm_module *m = w->module;
    if (op->code == PM_OP_const)
        return write_plain(sink, pm_value_const(part->value));
    if (op->code == PM_OP_stack) {
        for (uint32_t i = 0; i < op->n_operands; i++) {
            const pm_data *data = pm_value_const(op->operands[i]);
            if (!data)
                return pm_error(m->diag, op->loc, PM_ERR_UNSUPPORTED, "weights must be constants here");
            PM_TRY(write_plain(sink, data));
        }
        return PM_OK;
    }
    if (op->code != PM_OP_pack)
        return pm_error(m->diag, op->loc, PM_ERR_INTERNAL, "%s is no weight expression",
                        pm_op_info_of(op)->name);
    bool trans = pm_op_i64(op, "trans");
    int64_t count = part->value->type->rank == 3 && expert < 0 ? extent(m, part->value->type, 0) : 1;
    for (int64_t e = 0; e < count; e++) {
        source sources[2];
        int64_t which = part->value->type->rank == 3 ? (expert < 0 ? e : expert) : -1;
        for (uint32_t s = 0; s < op->n_operands; s++)
            PM_TRY(find_source(w, op->operands[s], which, trans, &sources[s]));
        PM_TRY(write_matrix(sink, sources, part->value->type->layout, part->value->type->elem));
    }
    return PM_OK;
}
