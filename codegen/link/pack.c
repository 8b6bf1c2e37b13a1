/// Packing of weights into panels, a panel at a time: memory does not grow with the model.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/link/weights.h"
#include "ir/op_table.h"
#include "ir/strided.h"

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

/// To nearest, ties to even.
static uint16_t to_f16(float f)
{
    uint32_t bits, sign;
    memcpy(&bits, &f, 4);
    sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (bits >= 0x477ff000) // 65520: half way to what would come next
        return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000) // below 2^-14: multiples of 2^-24
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(f) * 0x1p24f));
    return (uint16_t)(sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10)));
}

/// ---- sources: matrices [n, k] somewhere inside constants --------------------------------------------------

typedef struct source {
    const pm_data *data;
    const pm_op *stack; ///< whose parts hold the elements, one after the other, when they are of several
    int64_t each;       ///< elements of a part
    pm_elem elem;
    int64_t offset; ///< of element (0, 0), in elements
    int64_t n, k;
    int64_t row_step, column_step;
} source;

static int64_t extent(pm_module *m, const pm_type *type, int32_t i)
{
    int64_t n = 0;
    pm_dim_is_const(m, type->dims[i], &n);
    return n;
}

/// The constant in which the view lies; a stack of them stays one when the view is of several.
static bool in_stack(pm_strided *view, int32_t first_axis, source *out)
{
    const pm_op *op = view->root->def;
    int64_t last = view->offset;
    if (op->code != PM_OP_stack)
        return (out->data = pm_value_const(view->root)) != NULL;
    if (!pm_type_const_count(op->graph->module, op->operands[0]->type, &out->each) ||
        out->each < 1 || view->offset / out->each >= op->n_operands)
        return false;
    for (int32_t i = first_axis; i < view->rank; i++)
        last += view->dims[i] > 0 ? (view->dims[i] - 1) * view->strides[i] : 0;
    if (last / out->each != view->offset / out->each)
        out->stack = op;
    else
        out->data = pm_value_const(op->operands[view->offset / out->each]);
    view->offset = out->stack ? view->offset : view->offset % out->each;
    return out->stack || out->data;
}

/// The matrix of `expert` (or of the whole, -1) of a pack's operand.
static pm_status find_source(pm_weights *w, const pm_value *v, int64_t expert, bool trans,
                             source *out)
{
    pm_module *m = w->module;
    pm_strided view;
    *out = (source){0};
    if (pm_value_is(v, PM_OP_stack) && expert >= 0 && expert < v->def->n_operands) {
        v = v->def->operands[expert];
        expert = -1;
    }
    bool known = pm_strided_of(m, v, &view) && view.root->def && view.rank == (expert < 0 ? 2 : 3);
    if (known && expert >= 0)
        view.offset += expert * view.strides[0];
    if (!known || !in_stack(&view, expert < 0 ? 0 : 1, out))
        return pm_error(m->diag, v->def ? v->def->loc : NULL, PM_ERR_UNSUPPORTED,
                        "weights must be constants here");
    int32_t row = view.rank - (trans ? 1 : 2), column = view.rank - (trans ? 2 : 1);
    out->elem = v->type->elem;
    out->offset = view.offset;
    out->n = view.dims[row];
    out->k = view.dims[column];
    out->row_step = view.strides[row];
    out->column_step = view.strides[column];
    return PM_OK;
}

/// Elements from..from + count, which may be of several parts of a stack.
static pm_status read_span(weight_sink *sink, const source *s, int64_t from, int64_t count, uint8_t *out)
{
    uint32_t size = pm_elem_size(s->elem);
    if (!s->stack)
        return read_range(sink, s->data, (uint64_t)from * size, out, (size_t)count * size);
    while (count > 0) {
        int64_t part = from / s->each, at = from % s->each;
        int64_t n = s->each - at < count ? s->each - at : count;
        const pm_data *data =
            part < s->stack->n_operands ? pm_value_const(s->stack->operands[part]) : NULL;
        if (!data)
            return pm_error(sink->diag, s->stack->loc, PM_ERR_UNSUPPORTED, "weights must be constants here");
        PM_TRY(read_range(sink, data, (uint64_t)at * size, out, (size_t)n * size));
        from += n;
        count -= n;
        out += (size_t)n * size;
    }
    return PM_OK;
}

/// `count` elements from `from` on, `step` apart, to `out` side by side.
static pm_status read_line(weight_sink *sink, const source *s, int64_t from, int64_t step,
                           int64_t count, uint8_t *span, uint8_t *out)
{
    uint32_t size = pm_elem_size(s->elem);
    if (step == 1)
        return read_span(sink, s, from, count, out);
    PM_TRY(read_span(sink, s, from, (count - 1) * step + 1, span));
    for (int64_t i = 0; i < count; i++)
        memcpy(out + i * size, span + (size_t)(i * step) * size, size);
    return PM_OK;
}

/// Rows [n0, n0 + have) as [have][k], with few reads: of lines along what lies closer together.
static pm_status read_elements(weight_sink *sink, const source *s, int64_t n0, int64_t have,
                               uint8_t *out)
{
    uint32_t size = pm_elem_size(s->elem);
    int64_t first = s->offset + n0 * s->row_step;
    if (have <= 0 || s->k == 0)
        return PM_OK;
    if (s->row_step < 0 || s->column_step < 0)
        return pm_error(sink->diag, NULL, PM_ERR_UNSUPPORTED, "weights stored backwards");
    if (s->column_step == 1 && s->row_step == s->k)
        return read_line(sink, s, first, 1, have * s->k, NULL, out);
    bool by_rows = s->column_step <= s->row_step;
    int64_t lines = by_rows ? have : s->k, length = by_rows ? s->k : have;
    int64_t between = by_rows ? s->row_step : s->column_step, step = by_rows ? s->column_step : s->row_step;
    uint8_t *line = malloc((size_t)length * size), *span = malloc((size_t)((length - 1) * step + 1) * size);
    pm_status status = line && span ? PM_OK : PM_ERR_NO_MEMORY;
    for (int64_t i = 0; i < lines && status == PM_OK; i++) {
        status = read_line(sink, s, first + i * between, step, length, span, by_rows ? out + (size_t)(i * s->k) * size : line);
        for (int64_t r = 0; !by_rows && status == PM_OK && r < have; r++)
            memcpy(out + (size_t)(r * s->k + i) * size, line + r * size, size);
    }
    free(line);
    free(span);
    return status;
}

/// Rows [n0, n0 + count) of a source as f32 [count][k], zero beyond its end.
static pm_status read_rows(weight_sink *sink, const source *s, int64_t n0, int64_t count,
                           uint8_t *raw, float *rows)
{
    int64_t have = s->n - n0 < count ? s->n - n0 : count;
    memset(rows, 0, (size_t)(count * s->k) * sizeof *rows);
    PM_TRY(read_elements(sink, s, n0, have, raw));
    for (int64_t i = 0; i < have * s->k; i++)
        rows[i] = to_f32(raw, s->elem, (size_t)i);
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
                    uint16_t h = elem == PM_F16 ? to_f16(f) : to_bf16(f);
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

/// ---- codes of few bits ----------------------------------------------------------------------------------

/// The operands of one `dequantize`; data NULL: no zeros.
typedef struct lowbit_source {
    source codes, scales, zeros;
    int64_t k;
} lowbit_source;

/// One panel's rows of one source.
typedef struct lowbit_rows {
    uint8_t *codes, *scales, *zeros;
} lowbit_rows;

static int32_t code_at(const uint8_t *row, int64_t i, int32_t bits)
{
    return row[i * bits / 8] >> (i * bits % 8) & ((1 << bits) - 1);
}

/// What a block has in front of its codes, of row r of a panel.
static void pack_header(const pm_layout *l, const lowbit_source *s, const lowbit_rows *in, int64_t row,
                        int64_t r, int64_t block, uint8_t *out)
{
    static const int64_t scale_sizes[] = {4, 2, 2, 1}, zero_sizes[] = {0, 1, 4};
    int64_t scale_size = scale_sizes[l->scale];
    int32_t middle = 1 << (l->bits - 1);
    uint8_t *scale = out + r * scale_size;
    uint8_t *zero = out + l->panel * scale_size + r * zero_sizes[l->zero];
    size_t at = (size_t)(row * s->scales.k + block);
    float f = l->scale == PM_SCALE_F32 ? to_f32(in->scales, s->scales.elem, at) : 0;
    memcpy(scale, l->scale == PM_SCALE_F32 ? (void *)&f : in->scales + at * (size_t)scale_size,
           (size_t)scale_size);
    if (l->zero == PM_ZERO_I8)
        *zero = (uint8_t)(code_at(in->zeros + row * s->zeros.k, block, l->bits) - middle);
    if (l->zero == PM_ZERO_F32) {
        f = to_f32(in->zeros, s->zeros.elem, (size_t)(row * s->zeros.k + block)) - (float)middle;
        memcpy(zero, &f, sizeof f);
    }
}

/// `rows` rows of one source, rows r0 … of a panel. Codes keep their order: words are words of the source, but that
/// integers become two's complement.
static void pack_rows(const pm_layout *l, const lowbit_source *s, const lowbit_rows *in, int64_t rows,
                      int64_t r0, uint8_t *out)
{
    static const uint32_t middles[] = {[2] = 0xaaaaaaaa, [4] = 0x88888888, [8] = 0x80808080};
    uint32_t flip = l->floats ? 0 : middles[l->bits];
    int64_t codes_size = (int64_t)l->panel * l->block * l->bits / 8;
    int64_t used = (s->k * l->bits + 7) / 8; // bytes of a row
    for (int64_t b = 0; b * l->block < s->k; b++) {
        uint8_t *block = out + b * pm_layout_block_bytes(l), *words = block + pm_layout_block_bytes(l) - codes_size;
        for (int64_t row = 0; row < rows; row++)
            pack_header(l, s, in, row, r0 + row, b, block);
        int64_t first = b * l->block * l->bits / 8, last = first + (int64_t)l->block * l->bits / 8;
        for (int64_t at = first; at < last && at < used; at += 4, words += (size_t)l->panel * 4)
            for (int64_t row = 0; row < rows; row++) {
                uint32_t word = 0;
                const uint8_t *from = in->codes + row * s->codes.k + at;
                if (at + 4 <= used)
                    memcpy(&word, from, 4);
                else
                    memcpy(&word, from, (size_t)(used - at));
                word ^= flip;
                memcpy(words + (r0 + row) * 4, &word, 4);
            }
    }
}

static size_t source_bytes(const source *s, int64_t rows)
{
    return (size_t)(rows * s->k) * pm_elem_size(s->elem) + 1;
}

static pm_status write_lowbit(weight_sink *sink, const lowbit_source *sources, const pm_layout *l)
{
    int64_t width = l->panel / l->ways, n = sources[0].codes.n, panels = (n + width - 1) / width;
    size_t panel_bytes = (size_t)pm_layout_panel_bytes(l, sources[0].k);
    lowbit_rows rows = {malloc(source_bytes(&sources[0].codes, width)),
                        malloc(source_bytes(&sources[0].scales, width)),
                        malloc(source_bytes(&sources[0].zeros, width))};
    uint8_t *packed = malloc(panel_bytes + 1);
    pm_status status = rows.codes && rows.scales && rows.zeros && packed ? PM_OK : PM_ERR_NO_MEMORY;
    for (int64_t p = 0; p < panels && status == PM_OK; p++) {
        memset(packed, 0, panel_bytes);
        for (int32_t i = 0; i < l->ways && status == PM_OK; i++) {
            const lowbit_source *s = &sources[i];
            int64_t have = n - p * width < width ? n - p * width : width;
            status = read_elements(sink, &s->codes, p * width, have, rows.codes);
            if (status == PM_OK)
                status = read_elements(sink, &s->scales, p * width, have, rows.scales);
            if (status == PM_OK && (s->zeros.data || s->zeros.stack))
                status = read_elements(sink, &s->zeros, p * width, have, rows.zeros);
            if (status == PM_OK)
                pack_rows(l, s, &rows, have, i * width, packed);
        }
        if (status == PM_OK)
            status = pm_weight_put(sink, packed, panel_bytes);
    }
    free(rows.codes);
    free(rows.scales);
    free(rows.zeros);
    free(packed);
    return status;
}

/// Expert `which` (-1: the whole) of a pack of `dequantize`.
static pm_status write_codes(pm_weights *w, const weight_part *part, int64_t which, weight_sink *sink)
{
    const pm_op *op = part->value->def;
    lowbit_source sources[2] = {{.k = 0}};
    for (uint32_t s = 0; s < op->n_operands; s++) {
        const pm_op *deq = op->operands[s]->def;
        if (!deq || deq->code != PM_OP_dequantize)
            return pm_error(w->module->diag, op->loc, PM_ERR_INTERNAL, "a pack of codes without codes");
        sources[s].k = pm_op_i64(deq, "k");
        source *parts[] = {&sources[s].codes, &sources[s].scales, &sources[s].zeros};
        for (uint32_t i = 0; i < deq->n_operands; i++)
            if (deq->operands[i])
                PM_TRY(find_source(w, deq->operands[i], which, false, parts[i]));
    }
    return write_lowbit(sink, sources, part->value->type->layout);
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
        if (part->value->type->layout && part->value->type->layout->bits) {
            PM_TRY(write_codes(w, part, which, sink));
            continue;
        }
        for (uint32_t s = 0; s < op->n_operands; s++)
            PM_TRY(find_source(w, op->operands[s], which, trans, &sources[s]));
        static const pm_layout plain = {.panel = 1, .pair = 1, .ways = 1};
        const pm_layout *layout = part->value->type->layout;
        PM_TRY(write_matrix(sink, sources, layout ? layout : &plain, part->value->type->elem));
    }
    return PM_OK;
}
