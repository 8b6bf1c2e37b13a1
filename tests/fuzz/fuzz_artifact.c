// What programs read of their own file: trailer, manifest, sections, tokeniser; then a session
// whose code is a stand-in. Inputs: a byte that says how, then
//   0  a whole payload, as it is (the reader of the tools gets it as a file, too)
//   1  a manifest: put behind three pages of sections (a tokeniser in the first), with a trailer
//   and hashes that fit
// The stand-in for the code belongs to any manifest: it writes as many extents as the entry has.

#include "tests/fuzz/fuzz_util.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/tokenizer_format.h"
#include "runtime/rt_internal.h"
#include "tools/pimoe/artifact_file.h"

enum { SECTIONS = 3 * PM_SECTION_ALIGN, MAX_BYTES = 1 << 16, MAX_ENTRIES = 4 };

static const pm_model *current; ///< for the stand-ins

static int64_t extent(int64_t dim, const int64_t *symbols)
{
    return dim >= 0 ? dim : dim == INT64_MIN ? 3 : symbols[-1 - dim];
}

static void plan_entry(int entry, const int64_t *symbols, int64_t *out)
{
    const pm_artifact_entry *e = &current->entries[entry];
    *out++ = 256;
    *out++ = 100;
    for (int side = 0; side < 2; side++)
        for (uint32_t i = 0; i < (side ? e->n_outputs : e->n_inputs); i++) {
            const pm_artifact_port *p =
                &current->ports[(side ? e->first_output : e->first_input) + i];
            for (uint32_t d = 0; d < p->rank; d++)
                *out++ = extent(p->dims[d], symbols);
        }
}

/// Writes every byte of its outputs, as code would, if they aren't large.
static void run_entry(int entry, pm_rt_call *call, int64_t worker)
{
    const pm_artifact_entry *e = &current->entries[entry];
    for (uint32_t slot = 0; worker == 0 && slot < e->n_dynamic && slot < 64; slot++)
        pm_rt_place(call, slot, 64, 0);
    for (uint32_t s = 0; s < current->manifest->symbols.n; s++)
        if (current->symbols[s].data_dependent && call->symbols[s] < 0)
            call->symbols[s] = 1;
    for (uint32_t i = 0; i < e->n_outputs; i++) {
        const pm_artifact_port *p = &current->ports[e->first_output + i];
        size_t size = pm_port_elem_size(p->elem);
        for (uint32_t d = 0; d < p->rank; d++)
            size *= (size_t)extent(p->dims[d], call->symbols);
        if (call->outputs[i] != NULL && size <= MAX_BYTES)
            memset(call->outputs[i], 1, size);
    }
    if (e->n_outputs == 3)
        pm_rt_fail(call, 1000000);
    pm_rt_barrier(call, worker);
}

#define STAND_IN(i)                                                                                \
    static void plan_##i(const int64_t *symbols, int64_t *out)                                     \
    {                                                                                              \
        plan_entry(i, symbols, out);                                                               \
    }                                                                                              \
    static void run_##i(pm_rt_call *call, int64_t worker, int64_t n_workers)                       \
    {                                                                                              \
        (void)n_workers;                                                                           \
        run_entry(i, call, worker);                                                                \
    }
STAND_IN(0)
STAND_IN(1)
STAND_IN(2)
STAND_IN(3)

static const pm_rt_entry stand_ins[] = {
    {run_0, plan_0}, {run_1, plan_1}, {run_2, plan_2}, {run_3, plan_3}};

static void state_bytes(const int64_t *symbols, int64_t *out)
{
    (void)symbols;
    for (uint32_t i = 0; i < current->manifest->states.n; i++)
        out[i] = 64;
}

/// Fills arguments from what the model says of them; false when they would be large.
static bool describe(const pm_model *m, int entry, int n, bool output, pm_tensor_arg *args)
{
    for (int i = 0; i < n; i++) {
        pm_port_info info;
        check((output ? pm_model_output : pm_model_input)(m, entry, i, &info) == PM_OK);
        check(info.rank <= PM_TENSOR_MAX_RANK && info.elem_size > 0 &&
              strlen(info.name) < MAX_BYTES);
        args[i] = (pm_tensor_arg){.rank = info.rank, .size = info.elem_size};
        for (int32_t d = 0; d < info.rank; d++) {
            args[i].dims[d] = info.dims[d] >= 0 ? info.dims[d] : 3;
            if (args[i].dims[d] > MAX_BYTES ||
                __builtin_mul_overflow(args[i].size, (size_t)args[i].dims[d], &args[i].size) ||
                args[i].size > MAX_BYTES)
                return false;
        }
    }
    return true;
}

static void use_entry(pm_session *session, const pm_model *m, int entry)
{
    static uint8_t buffer[MAX_BYTES];
    pm_tensor_arg inputs[16], outputs[16];
    int n_in = pm_model_n_inputs(m, entry), n_out = pm_model_n_outputs(m, entry);
    check(pm_model_entry_name(m, entry) != NULL);
    if (n_in > 16 || n_out > 16 || !describe(m, entry, n_in, false, inputs) ||
        !describe(m, entry, n_out, true, outputs))
        return;
    for (int i = 0; i < n_in; i++)
        inputs[i].data = buffer;
    if (pm_session_output_dims(session, entry, inputs, n_in, outputs, n_out) != PM_OK) {
        check(strlen(pm_last_error()) > 0);
        return;
    }
    for (int i = 0; i < n_out; i++) {
        outputs[i].data = NULL;
        outputs[i].size = 0;
    }
    if (pm_session_run(session, entry, inputs, n_in, outputs, n_out) != PM_OK)
        check(strlen(pm_last_error()) > 0);
}

static int ignore_text(void *user, const char *text, size_t size, int32_t token)
{
    (void)user;
    (void)text;
    (void)size;
    (void)token;
    return 0;
}

static void use_model(const pm_model *m)
{
    pm_session *session;
    const pm_session_options options = {.struct_size = sizeof options, .threads = 1};
    const char *eos = pm_model_meta(m, "eos_token_id");
    check(eos == NULL || strlen(eos) < MAX_BYTES * 16);
    if (pm_session_create((pm_model *)m, &options, &session) != PM_OK) {
        check(strlen(pm_last_error()) > 0);
        return;
    }
    for (uint32_t i = 0; i < m->manifest->entries.n; i++)
        use_entry(session, m, (int)i);
    const pm_generate_options how = {
        .struct_size = sizeof how, .max_tokens = 3, .on_text = ignore_text};
    pm_generate_stats stats;
    pm_port_info logits;
    int prefill = pm_model_entry(m, "prefill");
    // the stand-in fills outputs as they are described: not those of a vocabulary of millions
    if (prefill >= 0 && pm_model_output(m, prefill, 0, &logits) == PM_OK && logits.rank == 2 &&
        (logits.dims[1] < MAX_BYTES || logits.dims[1] > INT32_MAX) &&
        pm_generate(session, " aa aaa", 7, &how, &stats) != PM_OK)
        check(strlen(pm_last_error()) > 0);
    pm_session_reset(session);
    pm_session_destroy(session);
}

/// Opens the payload twice: embedded, and from a file.
static void use_payload(const uint8_t *payload, uint64_t size)
{
    pm_model probe = {0};
    if (pm_payload_check(payload, size, &probe, true) != PM_OK) {
        check(strlen(pm_last_error()) > 0);
        return;
    }
    if (probe.manifest->entries.n > MAX_ENTRIES || probe.manifest->states.n > 4096)
        return;
    pm_rt_model code = {.abi_version = PM_RUNTIME_ABI_VERSION,
                        .n_entries = probe.manifest->entries.n,
                        .code_hash = probe.manifest->code_hash,
                        .entries = stand_ins,
                        .state_bytes = state_bytes,
                        .payload = payload,
                        .payload_size = &size};
    const pm_model_options options = {.struct_size = sizeof options, .verify = 1};
    pm_model *m;
    if (pm_model_open(&code, &options, &m) == PM_OK) {
        current = m;
        use_model(m);
        pm_model_close(m);
    }
}

static void use_file(const uint8_t *bytes, size_t size)
{
    char path[64];
    int fd = fuzz_memory_file(bytes, size, path);
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_artifact *artifact;
    pm_status status = pm_artifact_open(arena, diag, path, true, &artifact);
    fuzz_check_outcome(diag, status);
    pm_arena_destroy(arena);
    const pm_model_options options = {.struct_size = sizeof options, .path = path};
    pm_rt_model code = {.abi_version = PM_RUNTIME_ABI_VERSION};
    pm_model *m;
    if (pm_model_open(&code, &options, &m) == PM_OK)
        pm_model_close(m);
    close(fd);
}

/// A tokeniser of three tokens: "a", " " and "aa".
static void put_tokenizer(uint8_t *at)
{
    pm_tokenizer_header h = {.magic = PM_TOKENIZER_MAGIC,
                             .version = PM_TOKENIZER_VERSION,
                             .n_tokens = 3,
                             .n_merges = 1,
                             .bos = -1,
                             .eos = -1};
    const pm_tokenizer_token tokens[] = {{0, 1, 0}, {2, 1, 0}, {0, 2, 0}};
    const pm_tokenizer_merge merge = {0, 0, 2, 0};
    memset(h.byte_token, 0xff, sizeof h.byte_token);
    h.byte_token['a'] = 0;
    h.byte_token[' '] = 1;
    h.tokens_offset = sizeof h;
    h.merges_offset = h.tokens_offset + sizeof tokens;
    h.special_offset = h.bytes_offset = h.merges_offset + sizeof merge;
    h.bytes_size = 3;
    h.size = h.bytes_offset + h.bytes_size;
    memcpy(at, &h, sizeof h);
    memcpy(at + h.tokens_offset, tokens, sizeof tokens);
    memcpy(at + h.merges_offset, &merge, sizeof merge);
    memcpy(at + h.bytes_offset, "aa ", 3);
}

/// As pimoec lays it out, the manifest from outside.
static uint8_t *assemble(const uint8_t *manifest, size_t size, uint64_t *out_size)
{
    pm_artifact_trailer t = {.manifest_offset = SECTIONS,
                             .manifest_size = size,
                             .version = PM_ARTIFACT_VERSION,
                             .magic = PM_ARTIFACT_MAGIC};
    XXH128_hash_t hash = XXH3_128bits(manifest, size);
    uint8_t *payload = NULL;
    t.payload_size = SECTIONS + size + sizeof t;
    t.manifest_hash = (pm_artifact_hash){hash.low64, hash.high64};
    check(posix_memalign((void **)&payload, PM_PAYLOAD_ALIGN, t.payload_size) == 0);
    memset(payload, 0, SECTIONS);
    put_tokenizer(payload);
    memcpy(payload + SECTIONS, manifest, size);
    memcpy(payload + SECTIONS + size, &t, sizeof t);
    *out_size = t.payload_size;
    // hashes of sections, where the table is one, so that they are no wall
    pm_artifact_manifest *m = (void *)(payload + SECTIONS);
    if (size < sizeof *m || m->sections.offset % 8 != 0 || m->sections.offset > size ||
        (uint64_t)m->sections.n * sizeof(pm_artifact_section) > size - m->sections.offset)
        return payload;
    pm_artifact_section *s = (void *)(payload + SECTIONS + m->sections.offset);
    for (uint32_t i = 0, n = m->sections.n; i < n; i++) { // the table may lie over its own number
        if (s[i].offset > SECTIONS || s[i].size > SECTIONS - s[i].offset)
            continue;
        hash = XXH3_128bits(payload + s[i].offset, s[i].size);
        s[i].hash = (pm_artifact_hash){hash.low64, hash.high64};
    }
    hash = XXH3_128bits(payload + SECTIONS, size);
    t.manifest_hash = (pm_artifact_hash){hash.low64, hash.high64};
    memcpy(payload + SECTIONS + size, &t, sizeof t);
    return payload;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *payload = NULL;
    uint64_t payload_size = size - 1;
    if (data[0] & 1) {
        payload = assemble(data + 1, size - 1, &payload_size);
    } else {
        check(posix_memalign((void **)&payload, PM_PAYLOAD_ALIGN, size) == 0);
        memcpy(payload, data + 1, size - 1);
        use_file(payload, payload_size);
    }
    use_payload(payload, payload_size);
    free(payload);
    return 0;
}
