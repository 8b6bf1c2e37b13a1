/// Running compiled models from C. Link the library that pimoec made (or load it), then:
///
///     extern const pm_rt_model pm_model_digits;             // declared by the generated digits.h
///     pm_model *model; pm_session *session;
///     pm_model_open(&pm_model_digits, NULL, &model);
///     pm_session_create(model, NULL, &session);
///     pm_tensor_arg in = {.data = pixels, .rank = 2, .dims = {1, 64}}, out = {.data = scores, …};
///     pm_session_run(session, 0, &in, 1, &out, 1);
///
/// Buffers are the caller's own: nothing is copied, nothing is allocated per call.
#ifndef PM_RUNTIME_H
#define PM_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "pm/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pm_rt_model pm_rt_model; ///< the code's descriptor, from the generated object
typedef struct pm_model pm_model;       ///< an opened artifact: manifest and mapped weights
typedef struct pm_session pm_session;   ///< workers, arena, states; one call at a time

/// Last error of the calling thread's latest failed call of this API, as one line of text.
PM_API const char *pm_last_error(void);

typedef struct pm_model_options {
    size_t struct_size;
    const char *path; ///< file that holds the payload; NULL: the one that the code was loaded from
    int verify;       ///< check the hash of every section (reads all weights)
} pm_model_options;

/// Opens the payload of `code`: maps weights, checks the manifest and that this CPU has what the
/// code needs. Threads: a model may be shared by any number of sessions and threads.
PM_API PM_NODISCARD pm_status pm_model_open(const pm_rt_model *code,
                                            const pm_model_options *options, pm_model **out_model);
/// All sessions of the model must be gone.
PM_API void pm_model_close(pm_model *model);

typedef struct pm_session_options {
    size_t struct_size;
    int threads;       ///< workers, the caller's thread included; 0: one per usable core
    int64_t max_batch; ///< sequences that states have room for; 0: 1
    int64_t context;   ///< tokens that a key-value cache has room for; 0: the model's maximum
} pm_session_options;

PM_API PM_NODISCARD pm_status pm_session_create(pm_model *model, const pm_session_options *options,
                                                pm_session **out_session);
PM_API void pm_session_destroy(pm_session *session);

enum { PM_TENSOR_MAX_RANK = 8 };

/// A tensor of the caller: contiguous, row-major.
typedef struct pm_tensor_arg {
    void *data;
    size_t size; ///< bytes at `data`
    int32_t rank;
    int64_t dims[PM_TENSOR_MAX_RANK];
} pm_tensor_arg;

/// What an entry takes and gives (states left out: they live in the session).
typedef struct pm_port_info {
    const char *name;
    int32_t elem; ///< see pm_port_elem_name
    int32_t rank;
    int64_t dims[PM_TENSOR_MAX_RANK];        ///< -1: follows from a symbol
    const char *symbols[PM_TENSOR_MAX_RANK]; ///< name of the symbol, or NULL
    size_t elem_size;
    int data_dependent; ///< output whose dims are known only after the run
} pm_port_info;

PM_API int pm_model_entry(const pm_model *model, const char *name); ///< number, or -1
PM_API const char *pm_model_entry_name(const pm_model *model, int entry); ///< NULL past the end
PM_API int pm_model_n_inputs(const pm_model *model, int entry);
PM_API int pm_model_n_outputs(const pm_model *model, int entry);
PM_API PM_NODISCARD pm_status pm_model_input(const pm_model *model, int entry, int i,
                                             pm_port_info *out_info);
PM_API PM_NODISCARD pm_status pm_model_output(const pm_model *model, int entry, int i,
                                              pm_port_info *out_info);
PM_API const char *pm_port_elem_name(int32_t elem);
/// A string that the model carries ("model_type", …), or NULL.
PM_API const char *pm_model_meta(const pm_model *model, const char *key);

/// Dims of all outputs for given input dims, before a run (-1: known only after it).
PM_API PM_NODISCARD pm_status pm_session_output_dims(pm_session *session, int entry,
                                                     const pm_tensor_arg *inputs, int n_inputs,
                                                     pm_tensor_arg *outputs, int n_outputs);

/// Runs an entry. Inputs: dims and data are set. Outputs: `data` is the caller's buffer of `size`
/// bytes, and rank and dims are set by the run; data NULL: the session's own memory is returned,
/// valid until its next run (the only way for data-dependent outputs).
/// Errors: PM_ERR_USAGE for shapes or sizes that don't fit, PM_ERR_INVALID for data at fault (an
/// index out of range); pm_last_error() says where.
PM_API PM_NODISCARD pm_status pm_session_run(pm_session *session, int entry,
                                             const pm_tensor_arg *inputs, int n_inputs,
                                             pm_tensor_arg *outputs, int n_outputs);

/// Clears all states (an empty key-value cache).
PM_API void pm_session_reset(pm_session *session);

/// ---- Language models (artifacts with entries `prefill` and `decode` and a tokeniser) ----

typedef struct pm_generate_options {
    size_t struct_size;
    int64_t max_tokens;
    double temperature; ///< 0: greedy
    int64_t top_k;      ///< 0: all
    double top_p;       ///< 0 or 1: all
    uint64_t seed;
    /// Called with each piece of text (raw bytes; always whole UTF-8 sequences but for the last
    /// call) and its token; returns 0 to go on, anything else to stop.
    int (*on_text)(void *user, const char *text, size_t size, int32_t token);
    void *user;
} pm_generate_options;

typedef struct pm_generate_stats {
    int64_t prompt_tokens, tokens;
    double prefill_seconds, decode_seconds, first_token_seconds;
} pm_generate_stats;

PM_API PM_NODISCARD pm_status pm_generate(pm_session *session, const char *prompt, size_t size,
                                          const pm_generate_options *options,
                                          pm_generate_stats *out_stats);
/// Tokens of a text; `*inout_n` is the room in `ids` before and the number of tokens after (also
/// when there was too little room: then PM_ERR_USAGE).
PM_API PM_NODISCARD pm_status pm_tokenize(const pm_model *model, const char *text, size_t size,
                                          int32_t *ids, size_t *inout_n);
/// Text of tokens, likewise.
PM_API PM_NODISCARD pm_status pm_detokenize(const pm_model *model, const int32_t *ids, size_t n,
                                            char *text, size_t *inout_size);

#ifdef __cplusplus
}
#endif
#endif
