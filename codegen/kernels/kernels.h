/// C kernel templates: the hot path, written once for every ISA.
///
/// They are compiled to bitcode by clang when pimoec is built (-DPM_VW=8 and -DPM_VW=16: floats per
/// vector), linked into a model's LLVM module and specialised there: everything is always_inline in one
/// function for each set of constants (codegen/cpu/instances.h), so that strides fold into addressing.
/// They depend on this header alone, allocate nothing and call no libm.
///
/// SPMD: every worker calls the same kernel with its number and takes its tiles by index. Who
/// computes a tile never changes its bits, nor does the number of rows beside it: each element of a
/// product is one chain of fused multiply-adds over k = 0, 1, 2, … (bf16 products: over pairs of k),
/// whatever the kernel for the row count. No barriers inside.
#ifndef PM_KERNELS_H
#define PM_KERNELS_H

#include <stdint.h>

#ifndef PM_VW
#define PM_VW 16
#endif

/// How a product's result leaves the kernel: called once for each finished tile of up to 12 rows
/// and one panel of columns, while the tile is in L1. Written by MLIR for each dispatch (bias,
/// activation, gate times up, residual, scaling, conversion, store): dispatches that share a kernel
/// each bring their own.
///   tile: [rows][ld] f32; element (r, c) is row row0 + r, packed column panel_index * panel + c.
///   rows: 1..12; panel_index: which panel; ctx: the dispatch's own argument block.
typedef void pm_k_epilogue(const float *tile, int64_t ld, int64_t row0, int64_t rows,
                           int64_t panel_index, void *ctx);

/// Products with packed weights: C = A * W^T. Weights: ceil(n / panel) panels of [ceil(k / pair)][panel][pair]
/// (pm_layout in ir/type.h). Names: pm_k_linear_<weights>_p<panel>, for panels of 16, 32, 64 columns
/// (PM_VW 16) or 8, 16, 32 (PM_VW 8):
///   f32:  f32 weights (pair 1), f32 activations
///   b16:  bf16 weights (pair 2) widened exactly, f32 activations and products: same bits as f32 on those weights
///   dot:  bf16 weights (pair 2), bf16 activations, products of pairs accumulated in f32 (vdpbf16ps
///         where the target has it, else two f32 fused multiply-adds per pair)
///   a: [m][k] (f32, or bf16 for dot); m rows at run time, n and k constant.
#define PM_K_LINEAR_ARGS(a_type, w_type)                                                           \
    const a_type *a, const w_type *w, int64_t m, int64_t n, int64_t k, pm_k_epilogue *epilogue,    \
        void *ctx, int64_t worker, int64_t n_workers

/// Of few bits: pm_k_linear_<codes>_p<panel>, codes q2, q4, q8 (integers), e2m1 or e4m3 (floats), with f32 activations and
/// products; block, scale and zero as in pm_layout.
#define PM_K_CODES_ARGS int64_t block, int64_t scale, int64_t zero

/// As linear, for rows sorted by expert: rows offsets[e]..offsets[e+1] of `a` with the weights at
/// w + e * expert_stride (in weight elements). ctx sees absolute row numbers; the expert of a tile is passed
/// through pm_k_expert_epilogue. Work is spread over (expert, panel) pairs of the experts that have rows.
typedef void pm_k_expert_epilogue(const float *tile, int64_t ld, int64_t row0, int64_t rows,
                                  int64_t panel_index, int64_t expert, void *ctx);
#define PM_K_GROUPED_ARGS(a_type, w_type)                                                          \
    const a_type *a, const w_type *w, int64_t expert_stride, const int32_t *offsets,               \
        int64_t experts, int64_t n, int64_t k, pm_k_expert_epilogue *epilogue, void *ctx,          \
        int64_t worker, int64_t n_workers

#define PM_K_DECLARE(panel)                                                                        \
    void pm_k_linear_f32_p##panel(PM_K_LINEAR_ARGS(float, float));                                 \
    void pm_k_linear_b16_p##panel(PM_K_LINEAR_ARGS(float, uint16_t));                              \
    void pm_k_linear_dot_p##panel(PM_K_LINEAR_ARGS(uint16_t, uint16_t));                           \
    void pm_k_grouped_f32_p##panel(PM_K_GROUPED_ARGS(float, float));                               \
    void pm_k_grouped_b16_p##panel(PM_K_GROUPED_ARGS(float, uint16_t));                            \
    void pm_k_grouped_dot_p##panel(PM_K_GROUPED_ARGS(uint16_t, uint16_t));                         \
    PM_K_DECLARE_CODES(q2, panel)                                                                  \
    PM_K_DECLARE_CODES(q4, panel)                                                                  \
    PM_K_DECLARE_CODES(q8, panel)                                                                  \
    PM_K_DECLARE_CODES(e2m1, panel)                                                                \
    PM_K_DECLARE_CODES(e4m3, panel)
#define PM_K_DECLARE_CODES(codes, panel)                                                           \
    void pm_k_linear_##codes##_p##panel(PM_K_LINEAR_ARGS(float, uint8_t), PM_K_CODES_ARGS);        \
    void pm_k_grouped_##codes##_p##panel(PM_K_GROUPED_ARGS(float, uint8_t), PM_K_CODES_ARGS);
#if PM_VW == 16
PM_K_DECLARE(16)
PM_K_DECLARE(32)
PM_K_DECLARE(64)
#else
PM_K_DECLARE(8)
PM_K_DECLARE(16)
PM_K_DECLARE(32)
#endif

/// Batched product of two activations, row-major: c[b] = op(a[b]) * op(b[b]), f32. Strides between
/// matrices in elements (0: the same for all); a [m][k] (or [k][m] with trans_a), b [k][n] (or [n][k]).
/// scratch: this worker's, at least PM_K_MATMUL_SCRATCH bytes.
void pm_k_matmul_f32(const float *a, const float *b, float *c, int64_t batch, int64_t m, int64_t n,
                     int64_t k, int64_t stride_a, int64_t stride_b, int64_t trans_a,
                     int64_t trans_b, uint8_t *scratch, int64_t worker, int64_t n_workers);
/// PM_K_MATMUL_SCRATCH(k): bytes of scratch per worker, as codegen computes them; k need not be known, as no
/// more than 512 of it are packed at a time.
#define PM_K_MATMUL_SCRATCH(k) ((int64_t)512 * 64 * 4 + 4096 + 0 * (int64_t)(k))

/// Key-value caches (see cache_key, cache_value, attention in ir/ops.def). `capacity`: positions (a
/// multiple of 16). past: positions already in the cache, per sequence. All f32.
/// Returns 0, or 1 when past[b] < 0 or past[b] + t > capacity for some b (nothing is written then).
int32_t pm_k_cache_key(float *cache, const float *k, const int64_t *past, int64_t batch, int64_t t,
                       int64_t kv_heads, int64_t head_dim, int64_t capacity, int64_t worker,
                       int64_t n_workers);
int32_t pm_k_cache_value(float *cache, const float *v, const int64_t *past, int64_t batch,
                         int64_t t, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                         int64_t worker, int64_t n_workers);
/// Attention over the caches, causal or over past[b] keys, online softmax over blocks of keys that begin at multiples of a
/// fixed block, so that bits don't depend on batch, t, or threads: prefill and decode agree.
/// sinks: [heads], or NULL; window, chunk, softcap: 0 means none. bias: [heads][reach], or NULL: what is added
/// to a score, by how far the key is from the token; the middle one is at the token itself.
/// out: [batch][t][heads * value_dim] f32. scratch: this worker's, PM_K_ATTENTION_SCRATCH bytes, of the
/// larger of head_dim and value_dim.
void pm_k_attention(const float *q, const float *key_cache, const float *value_cache,
                    const int64_t *past, const float *sinks, float *out, int64_t batch, int64_t t,
                    int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t value_dim,
                    int64_t capacity, float scale, int64_t window, int64_t chunk, float softcap,
                    const float *bias, int64_t reach, int64_t causal, uint8_t *scratch,
                    int64_t worker, int64_t n_workers);
#define PM_K_ATTENTION_SCRATCH(head_dim) ((int64_t)(head_dim) * 1024 + 131072)

/// See sdpa in ir/ops.def; everything f32 but a mask of bytes (is_bool). apart: bits 0 (q and out), 1 (k), 2 (v) say
/// that heads come before tokens ([batch][heads][t][size], else [batch][t][heads][size]). The mask has rows of `masked`
/// keys, its strides (0: the same for all) for sequences, heads and tokens. past_step, total_step: 1, or 0 where one
/// number is that of all sequences. nothing: what a query gives that sees no key. mask, past, total, sinks may be NULL.
/// As with the caches bits don't depend on batch, t or threads. Returns 1 when a number doesn't fit the keys.
/// scratch: this worker's, PM_K_SDPA_SCRATCH bytes, of the larger of both sizes.
int32_t pm_k_sdpa(const float *q, const float *k, const float *v, const void *mask, const int64_t *past,
                  const int64_t *total, const float *sinks, float *out, int64_t batch, int64_t t,
                  int64_t keys, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t value_dim,
                  int64_t apart, int64_t masked, int64_t is_bool, int64_t mask_batch, int64_t mask_head,
                  int64_t mask_row, int64_t past_step, int64_t total_step, float scale, int64_t left,
                  int64_t right, float softcap, float nothing, uint8_t *scratch, int64_t worker,
                  int64_t n_workers);
#define PM_K_SDPA_SCRATCH(size) ((int64_t)(size) * 640 + 32768)

/// See kv_append in ir/ops.def, f32; rows are shared out. apart: rows are [batch][kv_heads][t][size], else
/// [batch][t][kv_heads][size]. past may be NULL; it has `before` rows of each head, out has `length`.
/// Returns 1 when the new rows don't fit (nothing is written then).
int32_t pm_k_kv_append(const float *rows, const int64_t *at, int64_t at_step, const float *past, float *out,
                       int64_t batch, int64_t t, int64_t kv_heads, int64_t size, int64_t before,
                       int64_t length, int64_t apart, int64_t worker, int64_t n_workers);

/// Softmax of each row; split over rows.
void pm_k_softmax(const float *x, float *out, int64_t rows, int64_t columns, int64_t worker,
                  int64_t n_workers);

/// See rope_table in ir/ops.def; split over rows.
void pm_k_rope_table(const int64_t *past, const float *inv_freq, float *table, int64_t batch,
                     int64_t t, int64_t half, float scale, int64_t worker, int64_t n_workers);

/// See rope in ir/ops.def; split over (row, head). rows: batch * t; table as pm_k_rope_table makes it.
void pm_k_rope(const float *x, const float *table, float *out, int64_t rows, int64_t heads,
               int64_t head_dim, int64_t half, int64_t offset, int64_t interleaved, int64_t worker,
               int64_t n_workers);

/// See route in ir/ops.def. act: 0 softmax, 1 sigmoid, 2 sqrtsoftplus, 3 none; weigh: 0 as_is,
/// 1 softmax, 2 renorm; group_score: 0 max, 1 sum of top 2; select: 0 topk, 1 sparsemixer; bias and
/// weighing may be NULL. Rows are split over workers.
/// scratch: this worker's, PM_K_ROUTE_SCRATCH(experts) bytes.
void pm_k_route(const float *scores, const float *bias, const float *weighing, int32_t *expert,
                float *weight, int64_t m, int64_t experts, int64_t top_k, int64_t act, int64_t weigh,
                float eps, float least, float scale, int64_t groups, int64_t keep_groups,
                int64_t group_score, int64_t select, float jitter, uint8_t *scratch, int64_t worker,
                int64_t n_workers);
#define PM_K_ROUTE_SCRATCH(experts) ((int64_t)(experts) * 16 + 28672)

/// See expert_order in ir/ops.def. One worker does all (the others return at once).
/// Returns 1 when an expert is out of range.
int32_t pm_k_expert_order(const int32_t *expert, int32_t *token, int32_t *offsets, int32_t *slot,
                          int64_t m, int64_t top_k, int64_t experts, int64_t worker,
                          int64_t n_workers);

/// See causal_conv in ir/ops.def; past and bias may be NULL. Split over blocks of channels. before: K - 1.
/// scratch: this worker's, PM_K_CAUSAL_CONV_SCRATCH bytes.
void pm_k_causal_conv(float *state, const float *x, const float *w, const float *bias,
                      const int64_t *past, float *y, int64_t batch, int64_t t, int64_t channels,
                      int64_t before, uint8_t *scratch, int64_t worker, int64_t n_workers);
#define PM_K_CAUSAL_CONV_SCRATCH(before) ((2 * (int64_t)(before) + 66) * 64 + 64)

/// See linear_attention in ir/ops.def; decay, beta and past may be NULL. Split over (head, block of the
/// values' columns). decay_kind: 0 none, 1 per head, 2 per head and key element, 3 constant per head;
/// beta_heads: 1, or as many as heads. scratch: this worker's, PM_K_LINEAR_ATTENTION_SCRATCH bytes.
void pm_k_linear_attention(float *state, const float *q, const float *k, const float *v,
                           const float *decay, const float *beta, const int64_t *past, float *y,
                           int64_t batch, int64_t t, int64_t heads, int64_t q_heads,
                           int64_t k_heads, int64_t key_size, int64_t value_size,
                           int64_t decay_kind, int64_t beta_heads, int64_t delta, float scale,
                           uint8_t *scratch, int64_t worker, int64_t n_workers);
#define PM_K_LINEAR_ATTENTION_SCRATCH(key_size) ((int64_t)(key_size) * 68 + 256)

/// See selective_scan in ir/ops.def; past may be NULL. Split over blocks of channels.
/// scratch: this worker's, PM_K_SELECTIVE_SCAN_SCRATCH bytes.
void pm_k_selective_scan(float *state, const float *x, const float *dt, const float *a,
                         const float *b, const float *c, const int64_t *past, float *y,
                         int64_t batch, int64_t t, int64_t channels, int64_t size, uint8_t *scratch,
                         int64_t worker, int64_t n_workers);
#define PM_K_SELECTIVE_SCAN_SCRATCH(size) ((int64_t)(size) * 128 + 128)

/// The math of generated loops: branch-free, so that loops around them vectorise. Errors: at most
/// 2 ulp in f32 (4 for erf, 5 for gelu) over the whole range, exact at special values.
float pm_m_exp(float x);
float pm_m_log(float x);
float pm_m_sin(float x); ///< beyond 2^50 the answer is sin(0), and cos(0) below
float pm_m_cos(float x);
float pm_m_tanh(float x);
float pm_m_erf(float x);
float pm_m_sigmoid(float x);
float pm_m_silu(float x);
float pm_m_gelu(float x);
float pm_m_gelu_tanh(float x);
float pm_m_softplus(float x);
float pm_m_pow(float x, float y);
/// Rounds to bf16 (to nearest even, NaN stays NaN), and back.
uint16_t pm_m_f32_to_bf16(float x);
float pm_m_bf16_to_f32(uint16_t x);

#endif
