/// Where constants lie in the payload, and their bytes: packed while they are written.
#include "codegen/link/weights.h"

#include <stdlib.h>
#include <string.h>

#include "ir/op_table.h"
#include "runtime/artifact_format.h"

enum { PART_ALIGN = 64 };

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/// ---- what a constant is, as a key: equal keys share bytes -------------------------------------------------

static void key_data(FILE *out, const pm_value *v)
{
    const pm_data *d = pm_value_const(v);
    const char *owner = pm_op_attr(v->def, "owner")->s; // equal constants of two experts are two
    fprintf(out, "c%u:%s:", (unsigned)v->type->elem, owner ? owner : "");
    for (int32_t i = 0; i < v->type->rank; i++)
        fprintf(out, "%d,", v->type->dims[i]);
    if (d->bytes) {
        char text[PM_HASH_TEXT_SIZE];
        pm_hash_text(pm_hash_bytes(d->bytes, d->size), text);
        fprintf(out, "%s/%llu;", text, (unsigned long long)d->size);
    } else {
        fprintf(out, "%s@%llu+%llu;", d->file->path, (unsigned long long)d->offset,
                (unsigned long long)d->size);
    }
}

/// Weight expressions: pack > dequantize > views > stack > const at most.
static void key_value(FILE *out, const pm_value *v, int depth)
{
    if (!v->def || depth > 8) {
        fprintf(out, "v%u;", v->id);
        return;
    }
    if (v->def->code == PM_OP_const) {
        key_data(out, v);
        return;
    }
    fprintf(out, "%s(", pm_op_info_of(v->def)->name);
    for (uint32_t i = 0; i < v->def->n_attrs; i++)
        fprintf(out, "%lld,%s,", (long long)v->def->attrs[i].i,
                v->def->attrs[i].s ? v->def->attrs[i].s : "");
    for (uint32_t i = 0; i < v->def->n_attrs; i++)
        for (size_t k = 0; v->def->attrs[i].ints && k < v->def->attrs[i].n; k++)
            fprintf(out, "%lld;", (long long)v->def->attrs[i].ints[k]);
    for (uint32_t i = 0; i < v->def->n_operands; i++)
        if (v->def->operands[i])
            key_value(out, v->def->operands[i], depth + 1);
    fputs(");", out);
}

static char *key_of(pm_arena *arena, const pm_value *v)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    PM_ASSERT(out);
    key_value(out, v, 0);
    fclose(out);
    char *kept = pm_arena_strndup(arena, text, size);
    free(text);
    return kept;
}

/// ---- layout ---------------------------------------------------------------------------------------------

static bool const_bytes(pm_module *m, const pm_type *type, uint64_t *out)
{
    int64_t bytes;
    if (!pm_dim_is_const(m, pm_type_bytes(m, type), &bytes) || bytes < 0)
        return false;
    *out = (uint64_t)bytes;
    return true;
}

static int64_t const_dim(pm_module *m, const pm_type *type, int32_t i)
{
    int64_t n = 0;
    pm_dim_is_const(m, type->dims[i], &n);
    return n;
}

static bool is_expert_pack(const pm_value *v)
{
    return v->def->code == PM_OP_pack && v->type->rank == 3 && v->type->layout; // row by row: one tensor, as it is read
}

static const char *group_of(const pm_value *v)
{
    const pm_attr *group = pm_op_attr(v->def, "group");
    return group->s ? group->s : NULL;
}

/// The unlike expert that a weight belongs to, or NULL.
static const char *owner_of(const pm_value *v)
{
    for (int depth = 0; depth < 8 && v->def && v->def->code != PM_OP_const && v->def->n_operands; depth++)
        v = v->def->operands[0];
    return pm_value_is(v, PM_OP_const) ? pm_op_attr(v->def, "owner")->s : NULL;
}

/// Name of the tensor that a weight expression begins with, for sections.
static const char *name_of(const pm_value *v)
{
    const pm_value *at = v;
    for (int depth = 0; depth < 8 && at->def && at->def->n_operands; depth++)
        at = at->def->operands[0];
    return at->name ? at->name : at->def && at->def->loc->name ? at->def->loc->name : "constant";
}

static weight_part *add_part(pm_weights *w, const pm_value *v)
{
    char *key = key_of(w->module->arena, v);
    weight_part *part = pm_map_get_str(&w->by_key, key);
    if (part) {
        pm_map_put(&w->by_value, &v->id, sizeof v->id, part);
        return part;
    }
    part = PM_NEW(w->module->arena, weight_part);
    part->value = v;
    pm_map_put_str(&w->by_key, key, part);
    pm_map_put(&w->by_value, &v->id, sizeof v->id, part);
    PM_PUSH(w->module->arena, &w->parts, part);
    return part;
}

static pm_status add_section(pm_weights *w, weight_section s)
{
    PM_PUSH(w->module->arena, &w->sections, s);
    return PM_OK;
}

/// All packs of one group share a section per expert: [part 0 of e][part 1 of e]…
static pm_status lay_out_experts(pm_weights *w, weight_part *first, uint64_t *at)
{
    pm_module *m = w->module;
    const char *group = group_of(first->value);
    int64_t experts = const_dim(m, first->value->type, 0);
    weight_section s = {.kind = PM_SECTION_EXPERT, .layer = w->n_groups++};
    uint64_t size = 0;
    for (size_t i = 0; i < w->parts.n; i++) {
        weight_part *p = w->parts.data[i];
        if (p != first && (p->placed || !is_expert_pack(p->value) || !group || !group_of(p->value) ||
                           strcmp(group, group_of(p->value)) != 0 ||
                           const_dim(m, p->value->type, 0) != experts))
            continue;
        uint64_t bytes;
        if (!const_bytes(m, p->value->type, &bytes))
            return PM_ERR_INTERNAL;
        p->placed = true;
        p->section = *at;
        p->offset = *at + size;
        p->bytes_each = experts ? bytes / (uint64_t)experts : 0;
        PM_PUSH(m->arena, &s.parts, p);
        size = round_up(size + p->bytes_each, PART_ALIGN);
    }
    uint64_t stride = round_up(size, PM_SECTION_ALIGN);
    for (size_t i = 0; i < s.parts.n; i++)
        s.parts.data[i]->stride = stride;
    for (int64_t e = 0; e < experts; e++) {
        s.expert = (int32_t)e;
        s.offset = *at;
        s.size = size;
        s.name = pm_arena_printf(m->arena, "%s/expert.%lld", group ? group : name_of(first->value),
                                 (long long)e);
        PM_TRY(add_section(w, s));
        *at += stride;
    }
    return PM_OK;
}

/// What one unlike expert alone uses: one section. Its name says which expert of which layer.
static pm_status lay_out_owned(pm_weights *w, const char *owner, uint64_t *at)
{
    char *rest;
    weight_section s = {.kind = PM_SECTION_EXPERT, .offset = *at};
    s.layer = (int32_t)strtol(owner, &rest, 10);
    s.expert = (int32_t)strtol(rest + 1, &rest, 10);
    s.name = rest + 1;
    for (size_t i = 0; i < w->parts.n; i++) {
        weight_part *p = w->parts.data[i];
        const char *own = p->placed || is_expert_pack(p->value) ? NULL : owner_of(p->value);
        uint64_t bytes;
        if (!own || strcmp(own, owner) != 0)
            continue;
        if (!const_bytes(w->module, p->value->type, &bytes))
            return PM_ERR_INTERNAL;
        p->placed = true;
        p->offset = *at + s.size;
        p->bytes_each = bytes;
        PM_PUSH(w->module->arena, &s.parts, p);
        s.size = round_up(s.size + bytes, PART_ALIGN);
    }
    *at = round_up(*at + s.size, PM_SECTION_ALIGN);
    return add_section(w, s);
}

static pm_status lay_out_shared(pm_weights *w, weight_part *p, uint64_t *at)
{
    uint64_t bytes;
    if (!const_bytes(w->module, p->value->type, &bytes))
        return PM_ERR_INTERNAL;
    p->placed = true;
    p->offset = *at;
    p->bytes_each = bytes;
    int64_t experts = p->value->type->rank == 3 ? const_dim(w->module, p->value->type, 0) : 0;
    p->stride = experts > 0 ? bytes / (uint64_t)experts : 0;
    p->section = *at;
    weight_section s = {.kind = PM_SECTION_SHARED, .layer = -1, .expert = -1, .offset = *at,
                        .size = bytes, .name = name_of(p->value)};
    PM_PUSH(w->module->arena, &s.parts, p);
    PM_TRY(add_section(w, s));
    *at = round_up(*at + bytes, PM_SECTION_ALIGN);
    return PM_OK;
}

/// ---- what devices hold ------------------------------------------------------------------------------------

enum { DEVICE_ALIGN = 256 };

/// All experts of a part's layer go together: they share sections. Where they begin, and how many bytes they are.
static pm_weights_range range_of(const pm_weights *w, const weight_part *p)
{
    pm_weights_range range = {.payload_offset = p->offset, .size = p->bytes_each};
    if (!p->stride)
        return range;
    range.payload_offset = p->section;
    range.size = p->stride * (uint64_t)const_dim(w->module, p->value->type, 0);
    return range;
}

static void hold(pm_weights *w, device_weights *d, const weight_part *p)
{
    pm_weights_range range = range_of(w, p);
    if (pm_map_get(&d->by_offset, &range.payload_offset, sizeof range.payload_offset))
        return;
    range.device_offset = d->bytes;
    d->bytes = round_up(d->bytes + range.size, DEVICE_ALIGN);
    PM_PUSH(w->module->arena, &d->ranges, range);
    pm_map_put(&d->by_offset, &range.payload_offset, sizeof range.payload_offset, (void *)(uintptr_t)d->ranges.n);
}

static device_weights *device_named(const pm_weights *w, const char *device)
{
    return pm_map_get_str(&w->devices, device);
}

/// A weight, or the codes and scales that products read in place of a `dequantize` that doesn't run.
static void hold_value(pm_weights *w, device_weights *d, const pm_value *v)
{
    const weight_part *p = pm_map_get(&w->by_value, &v->id, sizeof v->id);
    if (p)
        hold(w, d, p);
    for (uint32_t i = 0; pm_value_is(v, PM_OP_dequantize) && v->place.kind == PM_PLACE_NONE && i < v->def->n_operands; i++)
        if (v->def->operands[i])
            hold_value(w, d, pm_value_root(v->def->operands[i]));
}

/// Every constant that an op on a device reads.
static void find_devices(pm_weights *w)
{
    pm_module *m = w->module;
    for (size_t i = 0; i < m->entries.n; i++)
        for (pm_op *op = m->entries.data[i]->first; op; op = pm_op_next_nested(m->entries.data[i], op)) {
            if (!op->device)
                continue;
            device_weights *d = device_named(w, op->device);
            if (!d) {
                d = PM_NEW(m->arena, device_weights);
                pm_map_init(&d->by_offset, m->arena);
                pm_map_put_str(&w->devices, op->device, d);
            }
            for (uint32_t k = 0; k < op->n_operands; k++)
                if (op->operands[k])
                    hold_value(w, d, pm_value_root(op->operands[k]));
        }
}

/// Whether the bytes of this value are read while the program runs.
static bool is_read(const pm_value *v)
{
    return v->place.kind == PM_PLACE_WEIGHT;
}

pm_status pm_weights_layout(pm_module *m, pm_weights **out_weights)
{
    pm_weights *w = PM_NEW(m->arena, pm_weights);
    w->module = m;
    pm_map_init(&w->by_key, m->arena);
    pm_map_init(&w->by_value, m->arena);
    pm_map_init(&w->devices, m->arena);
    for (size_t i = 0; i < m->entries.n; i++)
        for (pm_op *op = m->entries.data[i]->first; op; op = pm_op_next_nested(m->entries.data[i], op))
            for (uint32_t r = 0; r < op->n_results; r++)
                if (is_read(op->results[r]))
                    add_part(w, op->results[r]);
    uint64_t at = 0;
    for (size_t i = 0; i < w->parts.n; i++) {
        weight_part *p = w->parts.data[i];
        if (p->placed)
            continue;
        const char *owner = owner_of(p->value);
        pm_status status = is_expert_pack(p->value) ? lay_out_experts(w, p, &at)
                           : owner                  ? lay_out_owned(w, owner, &at)
                                                    : lay_out_shared(w, p, &at);
        if (status != PM_OK)
            return pm_error(m->diag, p->value->def->loc, status, "a constant has no constant size");
    }
    for (size_t i = 0; i < m->blobs.n; i++) {
        const pm_data *data = m->blobs.entries[i].value;
        weight_section s = {.kind = PM_SECTION_SHARED, .layer = -1, .expert = -1, .offset = at,
                            .size = data->size, .name = m->blobs.entries[i].key, .blob = data};
        PM_TRY(add_section(w, s));
        at = round_up(at + data->size, PM_SECTION_ALIGN);
    }
    w->size = at;
    find_devices(w);
    *out_weights = w;
    return PM_OK;
}

static const weight_part *part_of(const pm_weights *w, const pm_value *v)
{
    const weight_part *p = pm_map_get(&w->by_value, &v->id, sizeof v->id);
    PM_ASSERT(p);
    return p;
}

uint64_t pm_weights_offset(const pm_weights *w, const pm_value *value)
{
    return part_of(w, value)->offset;
}

uint64_t pm_weights_expert_stride(const pm_weights *w, const pm_value *value)
{
    // Inside a fused region the packed operand is an argument: its type is all that is known there.
    return part_of(w, value)->stride;
}

uint64_t pm_weights_device_offset(const pm_weights *w, const pm_value *value, const char *device)
{
    const weight_part *p = part_of(w, value);
    pm_weights_range range = range_of(w, p);
    const device_weights *d = device_named(w, device);
    PM_ASSERT(d);
    uintptr_t number = (uintptr_t)pm_map_get(&d->by_offset, &range.payload_offset, sizeof range.payload_offset);
    PM_ASSERT(number);
    return d->ranges.data[number - 1].device_offset + (p->offset - range.payload_offset);
}

const pm_weights_range *pm_weights_device_ranges(const pm_weights *w, const char *device, size_t *out_n,
                                                 uint64_t *out_bytes)
{
    const device_weights *d = device_named(w, device);
    *out_n = d ? d->ranges.n : 0;
    *out_bytes = d ? d->bytes : 0;
    return d ? d->ranges.data : NULL;
}
