/// Rotary positions: tables of cosines and sines in all the ways in which contexts are stretched, and
/// the rotation itself. Frequencies are computed as transformers does, every operation in float32.
#include <inttypes.h>
#include <math.h>

#include "frontend/checkpoint/checkpoint_build.h"

#define PI 3.14159265358979323846

/// What a rope_table step says.
typedef struct rotation {
    pm_ckpt_step *step;
    int64_t half;    ///< pairs of elements
    int64_t rotated; ///< elements that are turned, the others have the frequency 0
    double theta, scale, factor;
    double original, positions; ///< context that the model was first trained for; and the longest
    double low, high;           ///< llama3
    double fast, slow, truncate, mscale, mscale_all; ///< yarn
} rotation;

static float plain(const rotation *r, int64_t i)
{
    if (2 * i >= r->rotated)
        return 0.0f;
    float exponent = (float)(2 * i) / (float)(2 * r->half);
    return 1.0f / powf((float)r->theta, exponent);
}

static pm_status table(const rotation *r, const float *frequency, double scale, pm_value **out)
{
    pm_ckpt *c = r->step->c;
    pm_value *frequencies;
    PM_TRY(pm_build_const_f32(&c->b, 1, &r->half, frequency, &frequencies));
    return pm_build1(&c->b, out, PM_OP_rope_table, PM_OPERANDS(c->past, frequencies, c->ids),
                     PM_ATTRS(pm_attr_f64("scale", scale)));
}

static void fill_linear(rotation *r, float *frequency)
{
    for (int64_t i = 0; i < r->half; i++)
        frequency[i] = plain(r, i) / (float)r->factor;
}

/// Long waves are stretched, short ones left, those between blended.
static void fill_llama3(rotation *r, float *frequency)
{
    float longest = (float)(r->original / r->low), shortest = (float)(r->original / r->high);
    for (int64_t i = 0; i < r->half; i++) {
        float f = plain(r, i), wave = (float)(2 * PI) / f, factor = (float)r->factor;
        float smooth = ((float)r->original / wave - (float)r->low) / (float)(r->high - r->low);
        frequency[i] = wave > longest    ? f / factor
                       : wave < shortest ? f
                                         : (1.0f - smooth) * f / factor + smooth * f;
    }
}

/// The pair whose wave turns `turns` times within the original context.
static double yarn_pair(const rotation *r, double turns)
{
    return (double)(2 * r->half) * log(r->original / (turns * 2 * PI)) / (2 * log(r->theta));
}

static double yarn_mscale(double factor, double mscale)
{
    return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1;
}

/// A ramp over the pairs between stretched and plain; and a scale, unless one is given.
static void fill_yarn(rotation *r, float *frequency)
{
    double low = yarn_pair(r, r->fast), high = yarn_pair(r, r->slow);
    if (r->truncate != 0) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(2 * r->half - 1));
    if (low == high)
        high += 0.001;
    for (int64_t i = 0; i < r->half; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.0f - (ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp);
        float f = plain(r, i), stretched = f / (float)r->factor;
        frequency[i] = stretched * (1.0f - keep) + f * keep;
    }
    if (isnan(r->scale))
        r->scale = r->mscale != 0 && r->mscale_all != 0
                       ? yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all)
                       : yarn_mscale(r->factor, 1);
}

/// The frequencies are divided by the numbers of a list of the configuration.
static pm_status read_factors(const rotation *r, const char *key, float *frequency)
{
    pm_ckpt_step *step = r->step;
    const char *text = NULL;
    pm_expr_value list;
    PM_TRY(pm_json_get_str(step->c->diag, step->c->recipe->file, step->json, key, true, &text));
    PM_TRY(pm_expr_eval(&step->c->scope, &step->loc, text, &list));
    if (list.kind != PM_EXPR_LIST || (int64_t)list.list->n != r->half) {
        pm_loc loc = {.file = pm_path_join(step->c->scratch, step->c->folder, "config.json")};
        return pm_error(step->c->diag, &loc, PM_ERR_INVALID,
                        "the rotation needs a list of %" PRId64 " %s factors", r->half, key);
    }
    for (int64_t i = 0; i < r->half; i++) {
        const pm_json *item = &list.list->items[i];
        if (item->kind != PM_JSON_NUMBER || !(item->number > 0)) {
            pm_loc loc = {.file = pm_path_join(step->c->scratch, step->c->folder, "config.json")};
            return pm_error(step->c->diag, &loc, PM_ERR_INVALID, "a %s factor isn't a number above 0",
                            key);
        }
        frequency[i] = plain(r, i) / (float)item->number;
    }
    return PM_OK;
}

/// Of two tables, by whether the sequence goes beyond the original context.
static pm_status choose_table(const rotation *r, pm_value *near, pm_value *far, pm_value **out)
{
    pm_ckpt *c = r->step->c;
    pm_value *tokens, *end, *limit, *is_far;
    int64_t original = (int64_t)r->original;
    pm_dim dims[3] = {c->batch, pm_dim_const(c->module, 1), pm_dim_const(c->module, 1)};
    PM_TRY(pm_build_dims(&c->b, 1, &c->ids->type->dims[1], &tokens));
    PM_TRY(pm_build1(&c->b, &end, PM_OP_add, PM_OPERANDS(c->past, tokens), PM_NO_ATTRS));
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 0, NULL, &original, &limit));
    PM_TRY(pm_build1(&c->b, &is_far, PM_OP_less, PM_OPERANDS(limit, end), PM_NO_ATTRS));
    PM_TRY(pm_build_reshape_dims(&c->b, is_far, 3, dims, &is_far));
    return pm_build1(&c->b, out, PM_OP_where, PM_OPERANDS(is_far, far, near), PM_NO_ATTRS);
}

static pm_status build_longrope(rotation *r, float *frequency, pm_value **out)
{
    pm_ckpt_step *step = r->step;
    double near_scale = NAN, far_scale = NAN;
    pm_value *near, *far;
    double scale = r->factor > 1 ? sqrt(1 + log(r->factor) / log(r->original)) : 1;
    if (!isnan(r->scale))
        scale = r->scale;
    near_scale = far_scale = scale;
    PM_TRY(pm_step_number(step, step->json, "short_mscale", &near_scale));
    PM_TRY(pm_step_number(step, step->json, "long_mscale", &far_scale));
    PM_TRY(read_factors(r, "short", frequency));
    PM_TRY(table(r, frequency, near_scale != 0 ? near_scale : scale, &near));
    *out = near;
    if (r->original >= r->positions)
        return PM_OK;
    PM_TRY(read_factors(r, "long", frequency));
    PM_TRY(table(r, frequency, far_scale != 0 ? far_scale : scale, &far));
    return choose_table(r, near, far, out);
}

/// A scale that the configuration doesn't give is null.
static pm_status read_scale(pm_ckpt_step *step, double *out)
{
    const char *text = NULL;
    pm_expr_value value;
    *out = NAN;
    PM_TRY(pm_json_get_str(step->c->diag, step->c->recipe->file, step->json, "scale", false, &text));
    if (text == NULL)
        return PM_OK;
    PM_TRY(pm_expr_eval(&step->c->scope, &step->loc, text, &value));
    return value.kind != PM_EXPR_NULL ? pm_expr_number(&step->c->scope, &step->loc, text, out) : PM_OK;
}

pm_status pm_ckpt_rope_table(pm_ckpt_step *step)
{
    static const struct {
        const char *kind;
        void (*fill)(rotation *r, float *frequency);
    } kinds[] = {
        // dynamic differs from default beyond max_position_embeddings alone, where no model goes
        {"default", fill_linear}, {"dynamic", fill_linear}, {"linear", fill_linear},
        {"llama3", fill_llama3},  {"yarn", fill_yarn},      {"longrope", NULL},
        {"proportional", fill_linear},
    };
    pm_ckpt *c = step->c;
    rotation r = {.step = step, .theta = NAN, .factor = 1, .original = 1, .positions = 1, .low = 1,
                  .high = 4, .fast = 32, .slow = 1, .truncate = 1};
    const char *kind = "default";
    const struct {
        const char *key;
        double *to;
    } numbers[] = {
        {"theta", &r.theta},         {"factor", &r.factor},     {"original", &r.original},
        {"positions", &r.positions}, {"low", &r.low},           {"high", &r.high},
        {"fast", &r.fast},           {"slow", &r.slow},         {"truncate", &r.truncate},
        {"mscale", &r.mscale},       {"mscale_all", &r.mscale_all},
    };
    int64_t dims = 0;
    size_t which = 0;
    pm_value *y;
    PM_TRY(pm_step_str(step, step->json, "kind", &kind));
    PM_TRY(pm_step_int(step, step->json, "dims", 2, &dims));
    for (size_t i = 0; i < PM_COUNT(numbers); i++)
        PM_TRY(pm_step_number(step, step->json, numbers[i].key, numbers[i].to));
    PM_TRY(read_scale(step, &r.scale));
    while (which < PM_COUNT(kinds) && strcmp(kinds[which].kind, kind) != 0)
        which++;
    pm_loc loc = {.file = pm_path_join(c->scratch, c->folder, "config.json")};
    if (which == PM_COUNT(kinds))
        return pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED,
                        "rotary positions of the kind '%.40s' aren't known", kind);
    if (dims % 2 != 0 || !(r.theta > 0) || !(r.factor > 0) || !(r.original >= 1) ||
        !(r.high > r.low) || !(r.low > 0) || !(r.fast > 0) || !(r.slow > 0))
        return pm_error(c->diag, &loc, PM_ERR_INVALID,
                        "rotary positions: a number is out of range (%" PRId64
                        " rotated elements, theta %g, factor %g)", dims, r.theta, r.factor);
    if (strcmp(kind, "default") == 0 || strcmp(kind, "dynamic") == 0)
        r.factor = 1;
    r.half = dims / 2;
    r.rotated = dims;
    PM_TRY(pm_step_int(step, step->json, "rotated", 0, &r.rotated));
    float *frequency = PM_NEW_ARRAY(c->scratch, float, (size_t)r.half);
    if (kinds[which].fill == NULL) {
        PM_TRY(build_longrope(&r, frequency, &y));
    } else {
        kinds[which].fill(&r, frequency);
        PM_TRY(table(&r, frequency, isnan(r.scale) ? 1 : r.scale, &y));
    }
    return pm_step_out(step, y);
}

/// Rotates part of each head: as many elements, from `offset` on, as the table is wide.
pm_status pm_ckpt_rope(pm_ckpt_step *step)
{
    pm_value *x, *rotated, *y;
    int64_t head_dim = 0, offset = 0, interleaved = 0;
    PM_TRY(pm_step_value(step, "x", &x));
    PM_TRY(pm_step_value(step, "table", &rotated));
    PM_TRY(pm_step_int(step, step->json, "head_dim", 1, &head_dim));
    PM_TRY(pm_step_int(step, step->json, "offset", 0, &offset));
    PM_TRY(pm_step_int(step, step->json, "interleaved", 0, &interleaved));
    PM_TRY(pm_build1(&step->c->b, &y, PM_OP_rope, PM_OPERANDS(x, rotated),
                     PM_ATTRS(pm_attr_i64("head_dim", head_dim),
                              pm_attr_bool("interleaved", interleaved != 0),
                              pm_attr_i64("offset", offset))));
    return pm_step_out(step, y);
}
