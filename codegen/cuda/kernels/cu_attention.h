/// What templates of attention share: which keys a row sees, and what its scores become.
///
/// A row is one head of one token. Rows whose heads share a key-value head are numbered together (token by token),
/// and worked on together, so that a key is read once for many. Keys are taken in blocks that begin at multiples of
/// a constant; a block of which a row sees nothing changes no bit of it: bits are the same in any tile or batch.
#ifndef PM_CU_ATTENTION_H
#define PM_CU_ATTENTION_H

#include "codegen/cuda/kernels/cu_common.h"

/* what is added to scores */
enum { CU_ADD_NONE, CU_ADD_DISTANCE, CU_ADD_FLOATS, CU_ADD_BOOLS };

enum { CU_KEY_LANES = 16 }; /* a key cache lies as [position / 16][head_dim][16] */

/// A call: everything about op attention or sdpa that all blocks share. Strides are in elements.
typedef struct cu_attention {
    const float *q, *k, *v;
    const void *added;   ///< biases by distance [heads][reach], or a mask
    const float *sinks;  ///< [heads]; NULL: none
    float *out;
    int64_t batch, t, heads, kv_heads, group, rows; ///< rows: t * group, of one key-value head
    int64_t head_dim, value_dim;
    int64_t q_token, q_head, q_batch;     ///< in heads: times head_dim for q, value_dim for out
    int64_t k_row, k_head, k_batch;       ///< k_row 0: as a key cache lies
    int64_t v_row, v_head, v_batch;
    int64_t add_kind, reach;              ///< CU_ADD_…
    int64_t mask_batch, mask_head, mask_row;
    int64_t left, right, chunk;           ///< -1, -1, 0: no bound
    float scale, softcap, nothing;
} cu_attention;

/// One key-value head of one sequence.
typedef struct cu_sight {
    int64_t b, head;
    int64_t place;          ///< number of this head among those of the launch
    int64_t position, step; ///< token t is at position + t * step
    int64_t limit;          ///< keys that there are
    int64_t origin;         ///< token t's biases by distance are around origin + t
} cu_sight;

/// Keys begin..end that a token sees.
PM_DEVICE void pm_cu_sees(const cu_attention *a, const cu_sight *s, int64_t token, int64_t *out_begin,
                          int64_t *out_end)
{
    int64_t at = s->position + token * s->step, end = s->limit, begin = 0;
    if (a->right >= 0 && end - 1 - a->right > at)
        end = at + a->right + 1;
    end = pm_cu_max(end, 0);
    if (a->left >= 0 && at > a->left)
        begin = at - a->left;
    if (a->chunk > 0 && at > 0)
        begin = pm_cu_max(begin, at / a->chunk * a->chunk);
    *out_begin = pm_cu_min(begin, end);
    *out_end = end;
}

/// x, or the nearest of 0..n.
PM_DEVICE int32_t pm_cu_within(int64_t x, int32_t n)
{
    return (int32_t)pm_cu_min(pm_cu_max(x, 0), n);
}

/// The first element of a row of q, or of out: with the size of their heads.
PM_DEVICE int64_t pm_cu_row_at(const cu_attention *a, const cu_sight *s, int64_t row, int64_t size)
{
    int64_t head = s->head * a->group + row % a->group;
    return (s->b * a->q_batch + row / a->group * a->q_token + head * a->q_head) * size;
}

/// The score of a key that a row sees, of its product with the query; -infinity: it doesn't see it after all.
PM_DEVICE float pm_cu_score(const cu_attention *a, const cu_sight *s, int64_t row, int64_t key, float product)
{
    float score = product * a->scale;
    int64_t token = row / a->group, head = s->head * a->group + row % a->group;
    if (a->softcap != 0.0f)
        score = a->softcap * pm_tanhf(score / a->softcap);
    if (a->add_kind == CU_ADD_NONE)
        return score;
    if (a->add_kind == CU_ADD_DISTANCE) {
        int64_t at = pm_cu_max(key - s->origin - token + a->reach / 2, 0);
        return score + ((const float *)a->added)[head * a->reach + pm_cu_min(at, a->reach - 1)];
    }
    int64_t at = s->b * a->mask_batch + head * a->mask_head + token * a->mask_row + key;
    if (a->add_kind == CU_ADD_FLOATS)
        return score + ((const float *)a->added)[at];
    return ((const uint8_t *)a->added)[at] ? score : -PM_INFINITY;
}

#endif
