/// Interned tensor types and element types.
#include "ir/type.h"

#include "base/str.h"
#include "ir/interner.h"

static const struct {
    const char *name;
    uint32_t size;
    bool is_float, is_signed_int;
    int32_t onnx;
} elems[PM_ELEM_COUNT] = {
#define X(id, name, size, is_float, is_signed, onnx, npy)                                          \
    [PM_##id] = {name, size, is_float, is_signed, onnx},
    PM_ELEMS(X)
#undef X
};

const char *pm_elem_name(pm_elem elem)
{
    return (unsigned)elem < PM_ELEM_COUNT ? elems[elem].name : "?";
}

uint32_t pm_elem_size(pm_elem elem)
{
    PM_ASSERT((unsigned)elem < PM_ELEM_COUNT);
    return elems[elem].size;
}

bool pm_elem_is_float(pm_elem elem)
{
    PM_ASSERT((unsigned)elem < PM_ELEM_COUNT);
    return elems[elem].is_float;
}

bool pm_elem_is_int(pm_elem elem)
{
    return !pm_elem_is_float(elem) && elem != PM_BOOL;
}

bool pm_elem_parse(const char *name, pm_elem *out_elem)
{
    for (int i = 0; i < PM_ELEM_COUNT; i++) {
        if (strcmp(elems[i].name, name) == 0) {
            *out_elem = (pm_elem)i;
            return true;
        }
    }
    return false;
}

bool pm_elem_from_onnx(int32_t data_type, pm_elem *out_elem)
{
    for (int i = 0; i < PM_ELEM_COUNT; i++) {
        if (elems[i].onnx == data_type) {
            *out_elem = (pm_elem)i;
            return true;
        }
    }
    return false;
}

static const pm_layout *layout_get(pm_module *m, pm_layout layout)
{
    void **slot = pm_map_at(&m->interner->layouts, &layout, sizeof layout);
    if (*slot == NULL) {
        pm_layout *copy = PM_NEW(m->arena, pm_layout);
        *copy = layout;
        *slot = copy;
    }
    return *slot;
}

static const pm_type *type_get(pm_module *m, pm_elem elem, int32_t rank, const pm_dim *dims,
                               const pm_layout *layout)
{
    PM_ASSERT((unsigned)elem < PM_ELEM_COUNT && rank >= 0 && rank <= PM_MAX_RANK);
    struct {
        const pm_layout *layout;
        int32_t elem, rank;
        pm_dim dims[PM_MAX_RANK];
    } key = {.layout = layout, .elem = (int32_t)elem, .rank = rank};
    for (int32_t i = 0; i < rank; i++) {
        PM_ASSERT(dims[i] != PM_DIM_NONE);
        key.dims[i] = dims[i];
    }
    void **slot = pm_map_at(&m->interner->types, &key, sizeof key);
    if (*slot == NULL) {
        pm_type *type = PM_NEW(m->arena, pm_type);
        pm_dim *copy = PM_NEW_ARRAY(m->arena, pm_dim, (size_t)rank);
        if (rank > 0)
            memcpy(copy, dims, (size_t)rank * sizeof *copy);
        *type = (pm_type){elem, rank, copy, layout, m->interner->next_type++};
        *slot = type;
    }
    return *slot;
}

const pm_type *pm_type_get(pm_module *m, pm_elem elem, int32_t rank, const pm_dim *dims)
{
    return type_get(m, elem, rank, dims, NULL);
}

const pm_type *pm_type_packed(pm_module *m, pm_elem elem, int32_t rank, const pm_dim *dims,
                              pm_layout layout)
{
    PM_ASSERT(rank >= 2 && layout.panel > 0 && layout.pair > 0 && layout.ways > 0);
    return type_get(m, elem, rank, dims, layout_get(m, layout));
}

pm_dim pm_type_count(pm_module *m, const pm_type *type)
{
    pm_dim count = pm_dim_const(m, 1);
    for (int32_t i = 0; i < type->rank; i++)
        count = pm_dim_mul(m, count, type->dims[i]);
    return count;
}

bool pm_type_const_count(const pm_module *m, const pm_type *type, int64_t *out_count)
{
    int64_t count = 1;
    bool fits = true;
    for (int32_t i = 0; i < type->rank; i++) {
        int64_t extent;
        if (!pm_dim_is_const(m, type->dims[i], &extent) || extent < 0)
            return false;
        if (extent == 0) { // nothing, however large the others are
            *out_count = 0;
            return true;
        }
        fits = fits && pm_mul_i64(count, extent, &count);
    }
    *out_count = count;
    return fits;
}

int64_t pm_layout_block_bytes(const pm_layout *layout)
{
    static const int64_t scales[] = {4, 2, 2, 1}, zeros[] = {0, 1, 4};
    return layout->panel * (scales[layout->scale] + zeros[layout->zero] +
                            (int64_t)layout->block * layout->bits / 8);
}

int64_t pm_layout_panel_bytes(const pm_layout *layout, int64_t k)
{
    return (k / layout->block + (k % layout->block != 0)) * pm_layout_block_bytes(layout);
}

static pm_dim lowbit_bytes(pm_module *m, const pm_type *type)
{
    const pm_layout *l = type->layout;
    pm_dim count = pm_dim_mul(
        m, pm_dim_ceildiv(m, type->dims[type->rank - 2], pm_dim_const(m, l->panel)),
        pm_dim_mul(m, pm_dim_ceildiv(m, type->dims[type->rank - 1], pm_dim_const(m, l->block)),
                   pm_dim_const(m, pm_layout_block_bytes(l))));
    for (int32_t i = 0; i < type->rank - 2; i++)
        count = pm_dim_mul(m, count, type->dims[i]);
    return count;
}

pm_dim pm_type_bytes(pm_module *m, const pm_type *type)
{
    if (type->layout && type->layout->bits)
        return lowbit_bytes(m, type);
    pm_dim count = pm_dim_const(m, pm_elem_size(type->elem));
    for (int32_t i = 0; i < type->rank; i++) {
        pm_dim extent = type->dims[i];
        if (type->layout && i >= type->rank - 2) {
            pm_dim block =
                pm_dim_const(m, i == type->rank - 1 ? type->layout->pair : type->layout->panel);
            extent = pm_dim_mul(m, pm_dim_ceildiv(m, extent, block), block);
        }
        count = pm_dim_mul(m, count, extent);
    }
    return count;
}

void pm_layout_text(const pm_layout *l, char *out)
{
    int n = snprintf(out, PM_LAYOUT_TEXT_SIZE, "{panel=%d, pair=%d, ways=%d", (int)l->panel,
                     (int)l->pair, (int)l->ways);
    if (l->bits)
        n += snprintf(out + n, PM_LAYOUT_TEXT_SIZE - (size_t)n,
                      ", bits=%d, block=%d, scale=%d, zero=%d, floats=%d", (int)l->bits, (int)l->block,
                      (int)l->scale, (int)l->zero, (int)l->floats);
    snprintf(out + n, PM_LAYOUT_TEXT_SIZE - (size_t)n, "}");
}

char *pm_type_text(pm_module *m, const pm_type *type)
{
    pm_str text = pm_str_new(m->arena);
    pm_str_printf(&text, "%s[", pm_elem_name(type->elem));
    for (int32_t i = 0; i < type->rank; i++)
        pm_str_printf(&text, "%s%s", i ? ", " : "", pm_dim_text(m, type->dims[i]));
    pm_str_add_char(&text, ']');
    char layout[PM_LAYOUT_TEXT_SIZE];
    if (type->layout) {
        pm_layout_text(type->layout, layout);
        pm_str_printf(&text, "%s", layout);
    }
    return text.data;
}
