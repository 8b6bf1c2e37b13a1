/// Whether a payload is what it says: nothing in it is trusted before it was checked here.
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/elem.h"
#include "runtime/rt_internal.h"

static pm_status damaged(const char *what)
{
    return pm_rt_error_set(PM_ERR_INVALID, "the artifact is damaged: %s", what);
}

static bool same_hash(const void *bytes, size_t size, pm_artifact_hash want)
{
    XXH128_hash_t h = XXH3_128bits(bytes, size);
    return h.low64 == want.lo && h.high64 == want.hi;
}

typedef struct checker {
    const uint8_t *bytes;
    uint64_t size;
} checker;

static bool table_fits(const checker *c, pm_artifact_table t, size_t record)
{
    return t.offset % 8 == 0 && t.offset <= c->size && (uint64_t)t.n * record <= c->size - t.offset;
}

/// A NUL before its end only makes a string shorter; looking for one would take as long as all strings together,
/// and a thousand may share one of a megabyte.
static bool string_fits(const checker *c, pm_artifact_string s)
{
    return s.offset < c->size && s.size < c->size - s.offset && c->bytes[s.offset + s.size] == 0;
}

uint32_t pm_port_elem_size(uint32_t elem)
{
    static const uint8_t sizes[] = {
#define X(id, name, bytes, ...) bytes,
        PM_ELEMS(X)
#undef X
    };
    return elem < PM_ELEM_COUNT ? sizes[elem] : 0;
}

const char *pm_port_elem_name(int32_t elem)
{
    static const char *const names[] = {
#define X(id, name, ...) name,
        PM_ELEMS(X)
#undef X
    };
    return elem >= 0 && elem < PM_ELEM_COUNT ? names[elem] : "?";
}

static bool dims_fit(const int64_t *dims, uint32_t rank, uint32_t n_symbols)
{
    for (uint32_t i = 0; i < rank; i++)
        if (dims[i] < 0 && dims[i] != INT64_MIN && (uint64_t)(-1 - dims[i]) >= n_symbols)
            return false;
    return true;
}

static pm_status check_entries(const checker *c, const pm_model *m)
{
    const pm_artifact_manifest *mf = m->manifest;
    for (uint32_t i = 0; i < mf->ports.n; i++) {
        const pm_artifact_port *p = &m->ports[i];
        if (!string_fits(c, p->name) || p->elem >= PM_ELEM_COUNT || p->rank > PM_PORT_MAX_RANK ||
            p->state < -1 || (p->state >= 0 && (uint32_t)p->state >= mf->states.n) ||
            !dims_fit(p->dims, p->rank, mf->symbols.n))
            return damaged("a port");
    }
    uint32_t next = 0; // each entry's ports lie behind those of the one before, so that checking takes linear time
    for (uint32_t i = 0; i < mf->entries.n; i++) {
        const pm_artifact_entry *e = &m->entries[i];
        uint64_t dims = 0;
        if (!string_fits(c, e->name) || e->first_input != next || e->n_inputs > mf->ports.n - next ||
            e->first_output != next + e->n_inputs || e->n_outputs > mf->ports.n - e->first_output ||
            e->n_dynamic > 1u << 20)
            return damaged("an entry");
        next = e->first_output + e->n_outputs;
        for (uint32_t k = e->first_input; k < next; k++)
            dims += m->ports[k].rank;
        for (uint32_t k = e->first_output; k < next; k++)
            if (m->ports[k].flags & 1 && m->ports[k].flags >> 8 >= e->n_dynamic)
                return damaged("an output's slot");
        if (dims != e->n_port_dims || dims + 2 > PM_MAX_PLAN)
            return damaged("an entry's dims");
    }
    return PM_OK;
}

static pm_status check_names(const checker *c, const pm_model *m)
{
    const pm_artifact_manifest *mf = m->manifest;
    for (uint32_t i = 0; i < mf->symbols.n; i++)
        if (!string_fits(c, m->symbols[i].name))
            return damaged("a symbol");
    for (uint32_t i = 0; i < mf->states.n; i++)
        if (!string_fits(c, m->states[i].name) || m->states[i].elem >= PM_ELEM_COUNT ||
            m->states[i].rank > PM_PORT_MAX_RANK ||
            !dims_fit(m->states[i].dims, m->states[i].rank, mf->symbols.n))
            return damaged("a state");
    for (uint32_t i = 0; i < mf->metas.n; i++)
        if (!string_fits(c, m->metas[i].key) || !string_fits(c, m->metas[i].value))
            return damaged("a property");
    for (uint32_t i = 0; i < mf->blobs.n; i++)
        if (!string_fits(c, m->blobs[i].key) || m->blobs[i].section >= mf->sections.n)
            return damaged("a blob");
    for (uint32_t i = 0; i < mf->dispatches.n; i++)
        if (!string_fits(c, m->dispatches[i].name) || !string_fits(c, m->dispatches[i].loc))
            return damaged("a dispatch");
    return string_fits(c, mf->name) && string_fits(c, mf->target) ? PM_OK : damaged("its name");
}

static pm_status check_sections(const checker *c, const pm_model *m, uint64_t end, bool verify)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < m->manifest->sections.n; i++) {
        const pm_artifact_section *s = &m->sections[i];
        if (!string_fits(c, s->name))
            return damaged("a section's name");
        if (s->offset % PM_SECTION_ALIGN != 0 || s->offset < at || s->offset > end ||
            s->size > end - s->offset)
            return pm_rt_error_set(PM_ERR_INVALID, "the artifact is damaged: section %s overlaps or leaves it",
                                   pm_model_string(m, s->name));
        at = s->offset + s->size;
        if (verify && !same_hash(m->payload + s->offset, s->size, s->hash))
            return pm_rt_error_set(PM_ERR_INVALID, "the artifact is damaged: section %s is not what was written",
                                   pm_model_string(m, s->name));
    }
    return PM_OK;
}

/// "name@host" is what runs of "name" where devices are missing; all of them stand behind those that callers see.
static pm_status find_twins(pm_model *m)
{
    static const char suffix[] = "@host";
    m->n_entries = m->manifest->entries.n;
    for (uint32_t i = 0; i < m->n_entries; i++) {
        const char *name = pm_model_string(m, m->entries[i].name);
        size_t n = strlen(name), k = sizeof suffix - 1;
        m->has_twins = n > k && strcmp(name + n - k, suffix) == 0;
        m->n_entries = m->has_twins ? i : m->n_entries;
    }
    if (!m->has_twins)
        return PM_OK;
    bool fits = m->manifest->entries.n == 2 * m->n_entries;
    for (uint32_t i = 0; fits && i < m->n_entries; i++) {
        const pm_artifact_entry *e = &m->entries[i], *twin = &m->entries[m->n_entries + i];
        const char *name = pm_model_string(m, e->name);
        fits = strncmp(pm_model_string(m, twin->name), name, strlen(name)) == 0 && e->n_inputs == twin->n_inputs &&
               e->n_outputs == twin->n_outputs;
    }
    return fits ? PM_OK : damaged("its entries for the host alone");
}

pm_status pm_payload_check(const uint8_t *payload, uint64_t size, pm_model *model, bool verify)
{
    pm_artifact_trailer t;
    if (size < sizeof t)
        return damaged("it is too short");
    memcpy(&t, payload + size - sizeof t, sizeof t);
    if (t.magic != PM_ARTIFACT_MAGIC)
        return damaged("its end is not that of an artifact");
    if (t.version != PM_ARTIFACT_VERSION)
        return pm_rt_error_set(PM_ERR_INVALID, "the artifact has version %u, this runtime reads %d", t.version,
                               PM_ARTIFACT_VERSION);
    uint64_t end = size - sizeof t;
    if (t.payload_size != size || t.manifest_offset > end || t.manifest_offset % 8 != 0 ||
        t.manifest_size > end - t.manifest_offset || t.manifest_size < sizeof(pm_artifact_manifest) ||
        t.manifest_size > UINT32_MAX || t.reserved != 0)
        return damaged("its trailer");
    const uint8_t *bytes = payload + t.manifest_offset;
    if (!same_hash(bytes, t.manifest_size, t.manifest_hash))
        return damaged("its manifest is not what was written");
    const pm_artifact_manifest *mf = (const void *)bytes;
    if (mf->magic != PM_ARTIFACT_MAGIC || mf->version != PM_ARTIFACT_VERSION)
        return damaged("its manifest");
    if (mf->byte_order != 0x01020304)
        return pm_rt_error_set(PM_ERR_INVALID, "the artifact was written for another byte order");
    checker c = {bytes, t.manifest_size};
    const struct {
        pm_artifact_table table;
        size_t record;
    } tables[] = {
        {mf->entries, sizeof(pm_artifact_entry)},     {mf->ports, sizeof(pm_artifact_port)},
        {mf->symbols, sizeof(pm_artifact_symbol)},    {mf->states, sizeof(pm_artifact_state)},
        {mf->sections, sizeof(pm_artifact_section)},  {mf->metas, sizeof(pm_artifact_meta)},
        {mf->blobs, sizeof(pm_artifact_blob)},        {mf->dispatches, sizeof(pm_artifact_dispatch)},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!table_fits(&c, tables[i].table, tables[i].record))
            return damaged("a table of its manifest");
    model->payload = payload;
    model->payload_size = size;
    model->manifest_bytes = bytes;
    model->manifest = mf;
    model->entries = (const void *)(bytes + mf->entries.offset);
    model->ports = (const void *)(bytes + mf->ports.offset);
    model->symbols = (const void *)(bytes + mf->symbols.offset);
    model->states = (const void *)(bytes + mf->states.offset);
    model->sections = (const void *)(bytes + mf->sections.offset);
    model->metas = (const void *)(bytes + mf->metas.offset);
    model->blobs = (const void *)(bytes + mf->blobs.offset);
    model->dispatches = (const void *)(bytes + mf->dispatches.offset);
    PM_TRY(check_entries(&c, model));
    PM_TRY(check_names(&c, model));
    PM_TRY(find_twins(model));
    return check_sections(&c, model, t.manifest_offset, verify);
}
