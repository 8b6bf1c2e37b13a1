/// Encoder-decoders: attention over what the encoder has made, positions that are learned by distance or
/// are sinusoids.
#include <inttypes.h>
#include <math.h>

#include "frontend/checkpoint/checkpoint_build.h"

// ---- attention over the encoder's tokens ----

static const char *cross_name(pm_ckpt *c, bool is_key)
{
    return pm_arena_printf(c->scratch, "cross_%s.%" PRId64, is_key ? "key" : "value", c->layer);
}

/// Keys and values of the decoder's layer for all of the encoder's tokens.
static pm_status write_cross(pm_ckpt_step *step, pm_value *rows, int64_t kv_heads, bool is_key)
{
    pm_ckpt *c = step->c;
    pm_value *cache;
    int64_t width;
    if (rows->type->rank != 3 || !pm_dim_is_const(c->module, rows->type->dims[2], &width) ||
        width % kv_heads != 0)
        return pm_step_fault(step, "its operands must be [batch, tokens, heads times size]");
    PM_TRY(pm_ckpt_cache(step, is_key ? "cross_key" : "cross_value", kv_heads, width / kv_heads,
                         is_key, &cache));
    PM_TRY(pm_build1(&c->b, &cache, is_key ? PM_OP_cache_key : PM_OP_cache_value,
                     PM_OPERANDS(cache, rows, c->past), PM_NO_ATTRS));
    pm_ckpt_keep(c, cache);
    pm_map_put_str(&c->values, cross_name(c, is_key), cache);
    return PM_OK;
}

pm_status pm_ckpt_cross_cache(pm_ckpt_step *step)
{
    pm_value *k, *v;
    int64_t kv_heads = 0;
    PM_TRY(pm_step_value(step, "k", &k));
    PM_TRY(pm_step_value(step, "v", &v));
    PM_TRY(pm_step_int(step, step->json, "kv_heads", 1, &kv_heads));
    PM_TRY(write_cross(step, k, kv_heads, true));
    return write_cross(step, v, kv_heads, false);
}

pm_status pm_ckpt_cross_attention(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    pm_value *q, *caches[2], *y;
    int64_t heads = 0, kv_heads = 0, head_dim = 0;
    double scale = NAN;
    PM_TRY(pm_step_value(step, "q", &q));
    PM_TRY(pm_step_int(step, step->json, "heads", 1, &heads));
    PM_TRY(pm_step_int(step, step->json, "kv_heads", 1, &kv_heads));
    PM_TRY(pm_step_int(step, step->json, "head_dim", 1, &head_dim));
    PM_TRY(pm_step_number(step, step->json, "scale", &scale));
    for (int i = 0; i < 2; i++) { // made in this entry, or left in a state by `encode`
        caches[i] = pm_ckpt_value(c, cross_name(c, i == 0));
        if (caches[i] == NULL)
            PM_TRY(pm_ckpt_cache(step, i == 0 ? "cross_key" : "cross_value", kv_heads, head_dim,
                                 i == 0, &caches[i]));
    }
    PM_TRY(pm_build1(&c->b, &y, PM_OP_attention, PM_OPERANDS(q, caches[0], caches[1], c->seen),
                     PM_ATTRS(pm_attr_i64("heads", heads), pm_attr_i64("kv_heads", kv_heads),
                              pm_attr_f64("scale", scale), pm_attr_bool("causal", false))));
    return pm_step_out(step, y);
}

// ---- positions ----

/// T5's bucket for a key `distance` tokens behind the query (before it when negative). In float32, as the
/// reference computes it.
static int64_t bucket_of(int64_t distance, int64_t buckets, int64_t farthest, bool both_ways)
{
    int64_t first = 0, away = distance < 0 ? -distance : 0;
    if (both_ways) {
        buckets /= 2;
        first = distance > 0 ? buckets : 0;
        away = distance < 0 ? -distance : distance;
    }
    int64_t exact = buckets / 2;
    if (away < exact)
        return first + away;
    float steps = logf((float)away / (float)exact) /
                  (float)log((double)farthest / (double)exact) * (float)(buckets - exact);
    int64_t bucket = exact + (int64_t)steps;
    return first + (bucket < buckets ? bucket : buckets - 1);
}

/// The biases of attention scores by distance, [heads, 2 * farthest + 1], from one row for each bucket.
pm_status pm_ckpt_relative_bias(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    const int64_t perm[2] = {1, 0};
    int64_t dims[2] = {0, 0}, farthest = 0;
    bool both_ways = false;
    pm_value *weight, *index, *y;
    PM_TRY(pm_step_int(step, step->json, "buckets", 4, &dims[0]));
    PM_TRY(pm_step_int(step, step->json, "heads", 1, &dims[1]));
    PM_TRY(pm_step_int(step, step->json, "farthest", 1, &farthest));
    PM_TRY(pm_json_get_bool(c->diag, c->recipe->file, step->json, "both_ways", false, &both_ways));
    PM_TRY(pm_ckpt_weight(step, pm_json_get(step->json, "weight"), 2, dims, true, &weight));
    if (weight == NULL || farthest > PM_CKPT_MAX_FARTHEST || farthest <= dims[0] / 2)
        return pm_step_fault(step, "needs a weight, and 'farthest' beyond half the buckets, up to %d",
                             (int)PM_CKPT_MAX_FARTHEST);
    int64_t n = 2 * farthest + 1;
    int64_t *buckets = PM_NEW_ARRAY(c->scratch, int64_t, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        buckets[i] = bucket_of(i - farthest, dims[0], farthest, both_ways);
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 1, &n, buckets, &index));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_gather, PM_OPERANDS(weight, index), PM_NO_ATTRS));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_transpose, PM_OPERANDS(y),
                     PM_ATTRS(pm_attr_ints("perm", perm, 2))));
    return pm_step_out(step, y);
}

/// Sines, then cosines, of the positions (plus `offset`): [batch, tokens, dims].
pm_status pm_ckpt_sinusoids(pm_ckpt_step *step)
{
    pm_ckpt *c = step->c;
    int64_t dims = 0, offset = 0;
    PM_TRY(pm_step_int(step, step->json, "dims", 4, &dims));
    PM_TRY(pm_step_int(step, step->json, "offset", 0, &offset));
    if (dims % 2 != 0)
        return pm_step_fault(step, "'dims' must be even");
    int64_t half = dims / 2, parts = 2, sizes[2] = {half, half};
    float *frequency = PM_NEW_ARRAY(c->scratch, float, (size_t)half), step_size;
    step_size = (float)-(log(10000.0) / (double)(half - 1));
    for (int64_t i = 0; i < half; i++)
        frequency[i] = expf((float)i * step_size);
    pm_value *shift, *position, *frequencies, *table, *size, *y;
    pm_op *op;
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 0, NULL, &offset, &shift));
    PM_TRY(pm_build1(&c->b, &position, PM_OP_add, PM_OPERANDS(c->past, shift), PM_NO_ATTRS));
    PM_TRY(pm_build_const_f32(&c->b, 1, &half, frequency, &frequencies));
    PM_TRY(pm_build1(&c->b, &table, PM_OP_rope_table, PM_OPERANDS(position, frequencies, c->ids),
                     PM_NO_ATTRS));
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 1, &parts, sizes, &size));
    PM_TRY(pm_build(&c->b, PM_OP_split, PM_OPERANDS(table, size), PM_ATTRS(pm_attr_i64("axis", 2)),
                    2, &op));
    PM_TRY(pm_build1(&c->b, &y, PM_OP_concat, PM_OPERANDS(op->results[1], op->results[0]),
                     PM_ATTRS(pm_attr_i64("axis", 2))));
    return pm_step_out(step, y);
}
