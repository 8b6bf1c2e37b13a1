/// Inside of the runtime: models, sessions, workers. libc and libm only.
#ifndef PM_RUNTIME_RT_INTERNAL_H
#define PM_RUNTIME_RT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pm/runtime.h"
#include "runtime/artifact_format.h"
#include "runtime/runtime_abi.h"

/// Sets pm_last_error() of this thread and returns `status`.
pm_status pm_rt_error_set(pm_status status, const char *fmt, ...) PM_PRINTF(2, 3);

/// An opened artifact. Tables point into the mapped, checked manifest.
struct pm_model {
    const pm_rt_model *code;
    uint32_t n_entries; ///< those that callers see; as many twins may follow, for the host alone
    bool has_twins;
    const uint8_t *payload; ///< sections, manifest, trailer
    uint64_t payload_size;
    void *mapping; ///< NULL: embedded
    size_t mapping_size;
    const uint8_t *manifest_bytes;
    const pm_artifact_manifest *manifest;
    const pm_artifact_entry *entries;
    const pm_artifact_port *ports;
    const pm_artifact_symbol *symbols;
    const pm_artifact_state *states;
    const pm_artifact_section *sections;
    const pm_artifact_meta *metas;
    const pm_artifact_blob *blobs;
    const pm_artifact_dispatch *dispatches;
    struct pm_rt_model_device *devices; ///< opened for its first session; shared by all of them
};

/// Checks a payload's trailer and manifest, every offset and string in it. `payload` is `size` bytes.
/// Fills the tables of `model`. With `verify`, every section's hash too.
PM_NODISCARD pm_status pm_payload_check(const uint8_t *payload, uint64_t size, pm_model *model,
                                        bool verify);
const char *pm_model_string(const pm_model *model, pm_artifact_string string);
/// A blob that the model carries, or NULL.
const uint8_t *pm_model_blob(const pm_model *model, const char *key, uint64_t *out_size);
uint32_t pm_port_elem_size(uint32_t elem);
/// Features of this machine's CPU, PM_CPU_… bits.
uint64_t pm_cpu_features(void);

/// ---- workers --------------------------------------------------------------------------------------------

typedef struct pm_rt_pool pm_rt_pool;

/// Starts n - 1 threads (the caller is worker 0). NULL when the system refuses.
pm_rt_pool *pm_pool_create(int n);
void pm_pool_destroy(pm_rt_pool *pool);
int pm_pool_size(const pm_rt_pool *pool);
/// Runs `entry` on all workers and returns when all are done.
void pm_pool_run(pm_rt_pool *pool, pm_rt_entry_fn *entry, pm_rt_call *call);

/// ---- sessions -------------------------------------------------------------------------------------------

enum { PM_MAX_PLAN = 4096 };

/// The dynamic region of a session: chunks kept between calls.
typedef struct pm_rt_chunk {
    struct pm_rt_chunk *next;
    size_t size, used;
} pm_rt_chunk;

struct pm_session {
    pm_model *model;
    pm_rt_pool *pool;
    pm_rt_call call;
    int64_t *symbols;
    uint8_t **inputs, **outputs, **states, **dynamic;
    uint64_t *state_bytes;
    size_t arena_bytes;   ///< mapped
    size_t scratch_bytes; ///< mapped, of all workers
    uint8_t **own_outputs; ///< by result number, when the caller gives no buffer
    size_t *own_sizes;
    uint32_t n_own;
    pm_rt_chunk *chunks, *current;
    int64_t *plan;
    int64_t context, max_batch;
    bool on_host; ///< the twins of entries run, devices being absent
    struct pm_rt_session_devices *devices; ///< NULL: the model has none
};

static inline pm_session *pm_session_of(pm_rt_call *call)
{
    return (pm_session *)((char *)call - offsetof(pm_session, call));
}

/// ---- tokeniser, sampler ---------------------------------------------------------------------------------

typedef struct pm_tokenizer pm_tokenizer;
/// Checks the blob and makes it ready; NULL (with the error set) when it is damaged.
pm_tokenizer *pm_tokenizer_open(const uint8_t *blob, uint64_t size);
void pm_tokenizer_close(pm_tokenizer *tokenizer);
/// Tokens of a text; `*out_ids` is malloc'ed.
PM_NODISCARD pm_status pm_tokenizer_encode(const pm_tokenizer *tokenizer, const char *text,
                                           size_t size, int32_t **out_ids, size_t *out_n);
/// Bytes of a token (not NUL-terminated); NULL for special tokens and ids out of range.
const char *pm_tokenizer_text(const pm_tokenizer *tokenizer, int32_t id, size_t *out_size);

/// A sampler's state; documented generator: PCG32 (XSH-RR), seeded by splitmix64.
typedef struct pm_sampler {
    double temperature, top_p;
    int64_t top_k;
    uint64_t state, increment;
    struct pm_candidate *candidates; ///< [vocab]
} pm_sampler;
PM_NODISCARD pm_status pm_sampler_init(pm_sampler *s, const pm_generate_options *options,
                                       int64_t vocab);
void pm_sampler_deinit(pm_sampler *s);
int32_t pm_sampler_next(pm_sampler *s, const float *logits, int64_t vocab);

/// Perplexity by the protocol: the text is tokenised as a whole, cut into windows of `context`
/// tokens (a last partial one is dropped); in each, all tokens but the first are scored.
typedef struct pm_perplexity {
    int64_t windows, scored;
    double mean_nll, perplexity;
} pm_perplexity;
PM_NODISCARD pm_status pm_measure_perplexity(pm_session *session, const char *text, size_t size,
                                             int64_t context, pm_perplexity *out);

#endif
