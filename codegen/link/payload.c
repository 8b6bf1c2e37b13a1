/// The payload: sections, manifest, trailer (runtime/artifact_format.h).
#include <stddef.h>
#include <string.h>

#include "codegen/link/weights.h"
#include "runtime/artifact_format.h"

/// The manifest while it is built: one buffer that records and strings are appended to.
typedef struct manifest {
    pm_arena *arena;
    uint8_t *data;
    size_t n, cap;
    pm_map strings; ///< text -> offset + 1
} manifest;

static uint32_t append(manifest *mf, const void *bytes, size_t size, size_t align)
{
    size_t at = (mf->n + align - 1) / align * align;
    if (at + size > mf->cap) {
        size_t cap = (at + size) * 2 + 4096;
        uint8_t *grown = pm_arena_alloc(mf->arena, cap, 16);
        if (mf->n)
            memcpy(grown, mf->data, mf->n);
        mf->data = grown;
        mf->cap = cap;
    }
    if (bytes)
        memcpy(mf->data + at, bytes, size);
    mf->n = at + size;
    return (uint32_t)at;
}

static pm_artifact_string string(manifest *mf, const char *text)
{
    if (!text)
        text = "";
    size_t size = strlen(text);
    void **slot = pm_map_at(&mf->strings, text, size);
    if (!*slot)
        *slot = (void *)(uintptr_t)(append(mf, text, size + 1, 1) + 1);
    return (pm_artifact_string){(uint32_t)(uintptr_t)*slot - 1, (uint32_t)size};
}

/// A dim as ports say it.
static int64_t port_dim(const pm_module *m, pm_dim dim)
{
    int64_t value;
    uint32_t symbol;
    if (pm_dim_is_const(m, dim, &value))
        return value;
    if (pm_dim_is_symbol(m, dim, &symbol))
        return -1 - (int64_t)symbol;
    return INT64_MIN;
}

static pm_artifact_port port(manifest *mf, pm_module *m, const char *name, const pm_type *type,
                             int32_t state)
{
    pm_artifact_port p = {.name = string(mf, name), .elem = (uint32_t)type->elem,
                          .rank = (uint32_t)type->rank, .state = state};
    for (int32_t i = 0; i < type->rank; i++) {
        p.dims[i] = port_dim(m, type->dims[i]);
        if (pm_dim_is_dynamic(m, type->dims[i]))
            p.flags |= 1;
    }
    return p;
}

static pm_artifact_table table(manifest *mf, const void *records, size_t n, size_t size)
{
    return (pm_artifact_table){append(mf, records, n * size, 8), (uint32_t)n};
}

static void put_entries(manifest *mf, pm_module *m, pm_artifact_manifest *head)
{
    PM_VEC(pm_artifact_entry) entries = {0};
    PM_VEC(pm_artifact_port) ports = {0};
    for (size_t i = 0; i < m->entries.n; i++) {
        const pm_graph *g = m->entries.data[i];
        pm_artifact_entry e = {.name = string(mf, g->name), .n_dynamic = g->n_dynamic,
                               .first_input = (uint32_t)ports.n, .n_inputs = (uint32_t)g->args.n};
        for (size_t k = 0; k < g->args.n; k++)
            PM_PUSH(mf->arena, &ports, port(mf, m, g->args.data[k]->name, g->args.data[k]->type,
                                            g->arg_states.data[k]));
        e.first_output = (uint32_t)ports.n;
        e.n_outputs = (uint32_t)g->results.n;
        for (size_t k = 0; k < g->results.n; k++) {
            pm_artifact_port p = port(mf, m, g->result_names.data[k], g->results.data[k]->type,
                                      g->result_states.data[k]);
            p.flags = 0;
            const pm_value *root = pm_value_root(g->results.data[k]);
            if (root->place.kind == PM_PLACE_DYNAMIC)
                p.flags = 1 | root->place.index << 8;
            PM_PUSH(mf->arena, &ports, p);
        }
        for (size_t k = e.first_input; k < ports.n; k++)
            e.n_port_dims += ports.data[k].rank;
        PM_PUSH(mf->arena, &entries, e);
    }
    head->entries = table(mf, entries.data, entries.n, sizeof *entries.data);
    head->ports = table(mf, ports.data, ports.n, sizeof *ports.data);
}

/// 0: the host, else 1 + number of the device.
static uint32_t device_number(const pm_target *target, const char *device)
{
    for (size_t i = 0; device && i < target->n_devices; i++)
        if (strcmp(target->devices[i].name, device) == 0)
            return (uint32_t)i + 1;
    return 0;
}

static void put_symbols(manifest *mf, pm_module *m, const pm_target *target, pm_artifact_manifest *head)
{
    PM_VEC(pm_artifact_symbol) symbols = {0};
    for (size_t i = 0; i < m->symbols.n; i++) {
        const pm_symbol *s = &m->symbols.data[i];
        pm_artifact_symbol a = {.name = string(mf, s->name), .lo = s->lo, .hi = s->hi,
                                .data_dependent = s->data_dependent};
        PM_PUSH(mf->arena, &symbols, a);
    }
    head->symbols = table(mf, symbols.data, symbols.n, sizeof *symbols.data);
    PM_VEC(pm_artifact_state) states = {0};
    for (size_t i = 0; i < m->states.n; i++) {
        const pm_state *s = &m->states.data[i];
        pm_artifact_state a = {.name = string(mf, s->name), .elem = (uint32_t)s->type->elem,
                               .rank = (uint32_t)s->type->rank, .device = device_number(target, s->device)};
        for (int32_t k = 0; k < s->type->rank; k++)
            a.dims[k] = port_dim(m, s->type->dims[k]);
        PM_PUSH(mf->arena, &states, a);
    }
    head->states = table(mf, states.data, states.n, sizeof *states.data);
}

static pm_artifact_hash hash_of(pm_hash128 h)
{
    return (pm_artifact_hash){h.lo, h.hi};
}

static void put_sections(manifest *mf, const pm_weights *w, pm_artifact_manifest *head)
{
    pm_module *m = w->module;
    PM_VEC(pm_artifact_section) sections = {0};
    PM_VEC(pm_artifact_blob) blobs = {0};
    for (size_t i = 0; i < w->sections.n; i++) {
        const weight_section *s = &w->sections.data[i];
        pm_artifact_section a = {.name = string(mf, s->name), .kind = s->kind, .layer = s->layer,
                                 .expert = s->expert, .offset = s->offset, .size = s->size,
                                 .hash = hash_of(s->hash)};
        PM_PUSH(mf->arena, &sections, a);
        if (s->blob) {
            pm_artifact_blob b = {.key = string(mf, s->name), .section = (uint32_t)i};
            PM_PUSH(mf->arena, &blobs, b);
        }
    }
    PM_VEC(pm_artifact_meta) metas = {0};
    for (size_t i = 0; i < m->meta.n; i++) {
        pm_artifact_meta a = {string(mf, m->meta.entries[i].key), string(mf, m->meta.entries[i].value)};
        PM_PUSH(mf->arena, &metas, a);
    }
    head->sections = table(mf, sections.data, sections.n, sizeof *sections.data);
    head->blobs = table(mf, blobs.data, blobs.n, sizeof *blobs.data);
    head->metas = table(mf, metas.data, metas.n, sizeof *metas.data);
}

static void put_dispatches(manifest *mf, const pm_dispatch *dispatches, size_t n,
                           pm_artifact_manifest *head)
{
    PM_VEC(pm_artifact_dispatch) list = {0};
    for (size_t i = 0; i < n; i++) {
        pm_artifact_dispatch a = {.name = string(mf, dispatches[i].name),
                                  .loc = string(mf, pm_loc_text(mf->arena, dispatches[i].loc)),
                                  .entry = dispatches[i].entry, .kind = (uint32_t)dispatches[i].kind};
        PM_PUSH(mf->arena, &list, a);
    }
    head->dispatches = table(mf, list.data, list.n, sizeof *list.data);
}

static pm_status pad_to(FILE *out, uint64_t *at, uint64_t to)
{
    static const uint8_t zeros[4096];
    while (*at < to) {
        size_t n = to - *at < sizeof zeros ? (size_t)(to - *at) : sizeof zeros;
        if (fwrite(zeros, 1, n, out) != n)
            return PM_ERR_IO;
        *at += n;
    }
    return PM_OK;
}

static pm_status write_section(pm_weights *w, weight_section *s, FILE *out, uint64_t *at)
{
    weight_sink sink = {.diag = w->module->diag, .out = out,
                        .hasher = pm_hasher_new(w->module->arena)};
    if (s->blob) {
        const uint8_t *bytes;
        PM_TRY(pm_data_bytes(w->module, s->blob, &bytes));
        PM_TRY(pm_weight_put(&sink, bytes, s->blob->size));
    }
    for (size_t i = 0; i < s->parts.n; i++) {
        const weight_part *p = s->parts.data[i];
        if (s->kind == PM_SECTION_EXPERT) { // parts begin at aligned offsets within the section
            uint64_t begin = p->offset - s->parts.data[0]->offset;
            static const uint8_t zeros[64];
            if (begin > sink.written)
                PM_TRY(pm_weight_put(&sink, zeros, (size_t)(begin - sink.written)));
        }
        PM_TRY(pm_weight_write(w, p, s->expert, &sink));
    }
    if (s->kind == PM_SECTION_EXPERT && sink.written < s->size) {
        static const uint8_t zeros[64];
        PM_TRY(pm_weight_put(&sink, zeros, (size_t)(s->size - sink.written)));
    }
    if (sink.written != s->size)
        return pm_error(w->module->diag, NULL, PM_ERR_INTERNAL, "section %s has %llu bytes, not %llu",
                        s->name, (unsigned long long)sink.written, (unsigned long long)s->size);
    s->hash = pm_hasher_value(sink.hasher);
    *at += s->size;
    return PM_OK;
}

pm_status pm_payload_write(const pm_weights *weights, const pm_target *target, uint64_t code_hash,
                           const pm_dispatch *dispatches, size_t n_dispatches, pm_out_file *out,
                           uint64_t *out_size)
{
    pm_weights *w = (pm_weights *)weights; // section hashes become known here
    pm_module *m = w->module;
    uint64_t at = 0;
    for (size_t i = 0; i < w->sections.n; i++) {
        weight_section *s = &w->sections.data[i];
        if (pad_to(out->stream, &at, s->offset) != PM_OK)
            return pm_error(m->diag, NULL, PM_ERR_IO, "%s could not be written", out->path);
        PM_TRY(write_section(w, s, out->stream, &at));
    }
    manifest mf = {.arena = m->arena};
    pm_map_init(&mf.strings, m->arena);
    pm_artifact_manifest head = {.magic = PM_ARTIFACT_MAGIC, .version = PM_ARTIFACT_VERSION,
                                 .byte_order = 0x01020304, .cpu_features = target->features,
                                 .code_hash = code_hash};
    append(&mf, NULL, sizeof head, 8);
    head.name = string(&mf, m->name);
    head.target = string(&mf, target->cpu);
    put_entries(&mf, m, &head);
    put_symbols(&mf, m, target, &head);
    put_sections(&mf, w, &head);
    put_dispatches(&mf, dispatches, n_dispatches, &head);
    memcpy(mf.data, &head, sizeof head);
    uint64_t manifest_offset = (at + 63) / 64 * 64;
    pm_artifact_trailer trailer = {.manifest_offset = manifest_offset, .manifest_size = mf.n,
                                   .manifest_hash = hash_of(pm_hash_bytes(mf.data, mf.n)),
                                   .version = PM_ARTIFACT_VERSION, .magic = PM_ARTIFACT_MAGIC};
    uint64_t trailer_offset = (manifest_offset + mf.n + 7) / 8 * 8;
    trailer.payload_size = trailer_offset + sizeof trailer;
    bool ok = pad_to(out->stream, &at, manifest_offset) == PM_OK &&
              fwrite(mf.data, 1, mf.n, out->stream) == mf.n;
    at += mf.n;
    ok = ok && pad_to(out->stream, &at, trailer_offset) == PM_OK &&
         fwrite(&trailer, 1, sizeof trailer, out->stream) == sizeof trailer;
    if (!ok)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s could not be written", out->path);
    *out_size = trailer.payload_size;
    return PM_OK;
}
