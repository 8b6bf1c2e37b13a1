/// Inside of the checkpoint importer: the state of one import, and what steps share.
#ifndef PM_FRONTEND_CHECKPOINT_BUILD_H
#define PM_FRONTEND_CHECKPOINT_BUILD_H

#include "frontend/checkpoint/recipe.h"
#include "frontend/checkpoint/safetensors.h"
#include "ir/builder.h"

typedef enum pm_ckpt_mode {
    PM_CKPT_FORWARD, ///< no states: logits of all tokens
    PM_CKPT_PREFILL, ///< logits of the last token, caches filled
    PM_CKPT_DECODE,  ///< one token
    PM_CKPT_ENCODE,  ///< of an encoder-decoder: what the encoder makes, and the decoder's keys for it
} pm_ckpt_mode;

enum {
    PM_CKPT_MAX_BATCH = 64,
    PM_CKPT_CACHE_BLOCK = 16, ///< positions per block of a key cache (ops.def, cache_key)
    PM_CKPT_MAX_LAYERS = 4096,
    PM_CKPT_MAX_EXPERTS = 65536,
    PM_CKPT_MAX_FARTHEST = 65536,
};

/// How a weight is stored.
typedef enum pm_ckpt_format {
    PM_CKPT_ELEMENTS, ///< as what it is
    PM_CKPT_MXFP4,    ///< codes, as a recipe says
    PM_CKPT_FP8,      ///< codes, as the tensor's type says
} pm_ckpt_format;

/// A weight that experts capture: stacked outside of the region, an argument inside.
typedef struct pm_ckpt_capture {
    const pm_json *spec;
    const pm_safetensor *first; ///< of expert 0, for messages
    pm_value *stacked, *arg;
    pm_ckpt_format format; ///< of codes the next capture is their scales (its spec is NULL)
    int64_t block;         ///< of those: codes of a row that share one, 0: all
} pm_ckpt_capture;

typedef struct pm_ckpt {
    pm_arena *scratch; ///< dies when the import ends
    pm_diag *diag;
    pm_module *module;
    const char *folder;
    pm_safetensors *tensors;
    bool is_nested; ///< the language part of a model that has others: see pm_ckpt_find
    const pm_recipe *recipe;
    pm_expr_scope scope;
    pm_dim batch, tokens, cache; ///< symbols B, T, C
    pm_dim source;               ///< symbol S: the encoder's tokens
    bool is_fp8;                 ///< quantization_config says so
    int64_t block[2];            ///< rows and columns that share a scale, of weights in FP8; 0: all, or none
    pm_map datas;                ///< by place in the file: pm_data *, shared between entries
    int64_t layer;               ///< -1 outside of layers

    // of the entry that is being built
    pm_ckpt_mode mode;
    pm_graph *entry;
    pm_builder b;
    pm_map values;   ///< pm_value * by the name that steps give them
    pm_value *past;  ///< i64[B]
    pm_value *ids;   ///< i64[B, T]
    bool in_encoder;   ///< whose steps are built: nothing of it stays
    pm_value *seen;    ///< i64[B]: of an encoder-decoder, the encoder's tokens
    pm_map n_states;   ///< by what their names begin with: states that steps asked for so far
    PM_VEC(pm_value *) caches; ///< results that are new content of states
    PM_VEC(int32_t) cache_states; ///< which ones

    // inside of an expert's region
    PM_VEC(pm_ckpt_capture) captures;
    bool in_region;
    int part_depth; ///< parts within parts
    int64_t n_stacked; ///< experts while their weights are captured, 0 else
} pm_ckpt;

/// A step being built.
typedef struct pm_ckpt_step {
    pm_ckpt *c;
    const pm_json *json;
    const char *kind;
    pm_loc loc; ///< in the recipe
} pm_ckpt_step;

// ---- checkpoint_weights.c ----

/// The weight that `spec` asks for, with the extents `dims` (-1: any). NULL in `*out` when the spec is
/// NULL, or optional and absent. `f32`: cast where it is stored as something else.
PM_NODISCARD pm_status pm_ckpt_weight(pm_ckpt_step *step, const pm_json *spec, int32_t rank,
                                      const int64_t *dims, bool f32, pm_value **out);
/// Stacks the weights that `spec` names for e = 0 … n-1 and records them as a capture.
PM_NODISCARD pm_status pm_ckpt_capture_weight(pm_ckpt_step *step, const pm_json *spec, int64_t n);
/// The tensor of that name. In a model with other parts it may be below `language_model`: "model.x" is there
/// "language_model.model.x", "model.language_model.x" or "language_model.x".
pm_safetensor *pm_ckpt_find(const pm_ckpt *c, const char *name);
/// "layer 3: linear": for messages.
const char *pm_ckpt_step_text(const pm_ckpt_step *step);
/// Each `*` of `pattern` stands for anything.
bool pm_ckpt_name_matches(const char *pattern, const char *name);
/// Errors for tensors that no step used, unless the recipe ignores them.
PM_NODISCARD pm_status pm_ckpt_check_unused(pm_ckpt *c);
/// Sets the location of ops that follow: the tensor that `spec` last found, or the step.
void pm_ckpt_set_loc(pm_ckpt_step *step, const pm_safetensor *tensor);

// ---- checkpoint_quant.c ----

/// What `quantization_config` says of the weights; refuses what neither the recipe reads nor every recipe does.
PM_NODISCARD pm_status pm_ckpt_read_quantisation(pm_ckpt *c, const char *path, const pm_json *config);
bool pm_ckpt_is_fp8(const pm_safetensor *t);
/// Of which weight a tensor of that name has the scales; NULL: it isn't called so.
const char *pm_ckpt_scaled_name(pm_arena *scratch, const char *name);

/// Whether a tensor of that name says how activations or caches are rounded in FP8.
bool pm_ckpt_is_of_activations(const char *name);

/// Scales row by row, as `dequantize` takes them; those that several rows share are repeated.
typedef struct pm_ckpt_scales {
    pm_safetensor *tensor;
    const uint8_t *bytes; ///< NULL: as the tensor has them
    uint64_t size;
    pm_elem elem;
    int32_t rank;
    int64_t dims[PM_MAX_RANK];
    int64_t block; ///< columns that share one, 0: all
} pm_ckpt_scales;

/// The scales of `codes`, a tensor in FP8; `transposed`: whose columns are rows of the weight.
PM_NODISCARD pm_status pm_ckpt_scales_of(pm_ckpt_step *step, const pm_safetensor *codes, bool transposed,
                                         pm_ckpt_scales *out);

// ---- checkpoint_steps.c ----

/// Steps that recipes share, entered: names have the values that the step gives them, or the part's
/// defaults, until it is left.
typedef struct pm_ckpt_part {
    const pm_json *steps;
    const pm_recipe *outer;
    pm_recipe inner; ///< the recipe, but with the part's file
    size_t n;
    const char **names;
    pm_expr_value *before;
} pm_ckpt_part;

PM_NODISCARD pm_status pm_ckpt_enter_part(pm_ckpt_step *step, pm_ckpt_part *part);
void pm_ckpt_leave_part(pm_ckpt *c, const pm_ckpt_part *part);

/// Builds the steps of a list in order.
PM_NODISCARD pm_status pm_ckpt_steps(pm_ckpt *c, const pm_json *steps);
pm_value *pm_ckpt_value(pm_ckpt *c, const char *name);

// ---- checkpoint_rope.c ----

PM_NODISCARD pm_status pm_ckpt_rope_table(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_rope(pm_ckpt_step *step);

// ---- checkpoint_moe.c ----

PM_NODISCARD pm_status pm_ckpt_moe(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_route(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_each_choice(pm_ckpt_step *step);

// ---- checkpoint_recurrent.c ----

/// Memory that a step reads and writes, f32: that of this call in `forward`, a state named `base`.n else.
/// Its content counts only as far as `past` says.
PM_NODISCARD pm_status pm_ckpt_state(pm_ckpt_step *step, const char *base, int32_t rank,
                                     const pm_dim *dims, pm_value **out);
/// The new content of a state that was asked for: the result of an op that updates it in place.
void pm_ckpt_keep(pm_ckpt *c, pm_value *state);
/// Memory for keys (as the op cache_key has them) or values of the tokens at hand, or of all of them.
PM_NODISCARD pm_status pm_ckpt_cache(pm_ckpt_step *step, const char *base, int64_t kv_heads,
                                     int64_t head_dim, bool is_key, pm_value **out);
PM_NODISCARD pm_status pm_ckpt_causal_conv(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_linear_attention(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_selective_scan(pm_ckpt_step *step);

// ---- checkpoint_seq2seq.c ----

PM_NODISCARD pm_status pm_ckpt_cross_cache(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_cross_attention(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_relative_bias(pm_ckpt_step *step);
PM_NODISCARD pm_status pm_ckpt_sinusoids(pm_ckpt_step *step);

// ---- recipe_near.c ----

/// Notes at `loc`: the recipe that has a place for most of the folder's tensors, and what it lacks.
void pm_ckpt_explain_unknown(pm_ckpt *c, const pm_loc *loc, const pm_json *config);

// ---- members of steps ----

PM_NODISCARD pm_status pm_step_int(pm_ckpt_step *step, const pm_json *object, const char *key,
                                   int64_t lo, int64_t *inout);
PM_NODISCARD pm_status pm_step_number(pm_ckpt_step *step, const pm_json *object, const char *key,
                                      double *inout);
PM_NODISCARD pm_status pm_step_str(pm_ckpt_step *step, const pm_json *object, const char *key,
                                   const char **inout);
/// The value that the member names; an error when there is none of that name.
PM_NODISCARD pm_status pm_step_value(pm_ckpt_step *step, const char *key, pm_value **out);
PM_NODISCARD pm_status pm_step_out(pm_ckpt_step *step, pm_value *value);
pm_status pm_step_fault(pm_ckpt_step *step, const char *fmt, ...) PM_PRINTF(2, 3);

#endif
