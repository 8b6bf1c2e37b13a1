/// Weights that are stored as codes: what `quantization_config` says of them, and the scales of those in FP8.
#include <inttypes.h>

#include "base/file.h"
#include "base/str.h"
#include "frontend/checkpoint/checkpoint_build.h"

// ---- quantization_config ----

/// Where the configuration is read; `path` for messages.
typedef struct quant_reader {
    pm_ckpt *c;
    const char *path;
    const pm_json *config;
} quant_reader;

static pm_status refuse(const quant_reader *r, const pm_json *at, const char *what)
{
    pm_loc loc = pm_json_loc(r->path, at);
    return pm_error(r->c->diag, &loc, PM_ERR_UNSUPPORTED,
                    "the weights are quantised (%.80s); use a checkpoint in f32, bf16, f16 or FP8 (e4m3)", what);
}

/// [rows, columns] of the weight that share a scale; absent or null: none.
static pm_status take_block(const quant_reader *r, const pm_json *block)
{
    if (block == NULL || block->kind == PM_JSON_NULL)
        return PM_OK;
    bool good = block->kind == PM_JSON_ARRAY && block->n == 2;
    for (size_t i = 0; good && i < 2; i++)
        good = block->items[i].is_int && block->items[i].integer > 0 && block->items[i].integer <= INT32_MAX;
    pm_loc loc = pm_json_loc(r->path, block);
    if (!good)
        return pm_error(r->c->diag, &loc, PM_ERR_INVALID, "the blocks of scales must be two numbers above 0");
    int64_t rows = block->items[0].integer, columns = block->items[1].integer;
    if (r->c->block[0] != 0 && (r->c->block[0] != rows || r->c->block[1] != columns))
        return pm_error(r->c->diag, &loc, PM_ERR_UNSUPPORTED, "groups of weights with blocks of their own");
    r->c->block[0] = rows;
    r->c->block[1] = columns;
    return PM_OK;
}

static pm_status read_fp8(const quant_reader *r)
{
    const char *format = "e4m3";
    PM_TRY(pm_json_get_str(r->c->diag, r->path, r->config, "fmt", false, &format));
    if (strcmp(format, "e4m3") != 0)
        return refuse(r, pm_json_get(r->config, "fmt"), pm_arena_printf(r->c->scratch, "fp8 as %s", format));
    return take_block(r, pm_json_get(r->config, "weight_block_size"));
}

static pm_status read_fbgemm(const quant_reader *r)
{
    (void)r; // a scale for each row, always
    return PM_OK;
}

static pm_status read_modelopt(const quant_reader *r)
{
    const char *algorithm = "?";
    PM_TRY(pm_json_get_str(r->c->diag, r->path, r->config, "quant_algo", false, &algorithm));
    return strcmp(algorithm, "FP8") == 0
               ? PM_OK
               : refuse(r, r->config, pm_arena_printf(r->c->scratch, "modelopt, %s", algorithm));
}

/// One group of compressed-tensors; those of which the weights stay as they are have none.
static pm_status read_group(const quant_reader *r, const pm_json *group)
{
    pm_ckpt *c = r->c;
    const pm_json *weights = pm_json_get(group, "weights");
    int64_t bits = 0, size = 0;
    const char *type = "int", *strategy = "tensor";
    if (weights == NULL || weights->kind == PM_JSON_NULL)
        return PM_OK;
    PM_TRY(pm_json_get_i64(c->diag, r->path, weights, "num_bits", true, &bits));
    PM_TRY(pm_json_get_str(c->diag, r->path, weights, "type", false, &type));
    PM_TRY(pm_json_get_str(c->diag, r->path, weights, "strategy", false, &strategy));
    if (bits != 8 || strcmp(type, "float") != 0)
        return refuse(r, weights, pm_arena_printf(c->scratch, "compressed-tensors, %s of %" PRId64 " bits", type, bits));
    if (strcmp(strategy, "block") == 0)
        return take_block(r, pm_json_get(weights, "block_structure"));
    if (strcmp(strategy, "group") != 0)
        return PM_OK;
    PM_TRY(pm_json_get_i64(c->diag, r->path, weights, "group_size", true, &size));
    const pm_json sizes[] = {{.kind = PM_JSON_NUMBER, .is_int = true, .integer = 1},
                             {.kind = PM_JSON_NUMBER, .is_int = true, .integer = size}};
    pm_json block = *weights; // for its place
    block.kind = PM_JSON_ARRAY;
    block.items = sizes;
    block.n = PM_COUNT(sizes);
    return take_block(r, &block);
}

static pm_status read_compressed(const quant_reader *r)
{
    const pm_json *groups = pm_json_get(r->config, "config_groups");
    if (groups == NULL || groups->kind != PM_JSON_OBJECT)
        return refuse(r, r->config, "compressed-tensors without config_groups");
    for (size_t i = 0; i < groups->n; i++)
        PM_TRY(read_group(r, &groups->items[i]));
    return PM_OK;
}

/// Methods whose weights any recipe reads: those that the stored type tells. Which weights are codes and which
/// stayed as they were (modules_to_not_convert, ignore) is seen there, too.
static const struct {
    const char *method;
    pm_status (*read)(const quant_reader *r);
} methods[] = {
    {"fp8", read_fp8},
    {"fbgemm_fp8", read_fbgemm},
    {"modelopt", read_modelopt},
    {"compressed-tensors", read_compressed},
};

pm_status pm_ckpt_read_quantisation(pm_ckpt *c, const char *path, const pm_json *config)
{
    const pm_json *known = pm_json_get(c->recipe->root, "quantised");
    quant_reader r = {c, path, pm_json_get(config, "quantization_config")};
    if (r.config == NULL || r.config->kind == PM_JSON_NULL)
        return PM_OK;
    const pm_json *json = pm_json_get(r.config, "quant_method");
    const char *method = json != NULL && json->kind == PM_JSON_STRING ? json->string : "?";
    for (size_t i = 0; known != NULL && i < known->n; i++)
        if (strcmp(known->items[i].string, method) == 0)
            return PM_OK;
    for (size_t i = 0; i < PM_COUNT(methods) && !c->is_fp8; i++)
        if (strcmp(methods[i].method, method) == 0) {
            PM_TRY(methods[i].read(&r));
            c->is_fp8 = true;
        }
    return c->is_fp8 ? PM_OK : refuse(&r, r.config, method);
}

/// What such methods keep for activations and caches, which are never rounded here.
bool pm_ckpt_is_of_activations(const char *name)
{
    static const char *const patterns[] = {"*.input_scale", "*.input_scale_ub", "*.activation_scale", "*.output_scale",
                                           "*.q_scale",     "*.k_scale",        "*.v_scale",          "*.kv_scale"};
    for (size_t i = 0; i < PM_COUNT(patterns); i++)
        if (pm_ckpt_name_matches(patterns[i], name))
            return true;
    return false;
}

// ---- scales of FP8 ----

static const char *const suffixes[] = {"_scale_inv", "_scale"};

bool pm_ckpt_is_fp8(const pm_safetensor *t)
{
    return strcmp(t->dtype, "F8_E4M3") == 0;
}

const char *pm_ckpt_scaled_name(pm_arena *scratch, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < PM_COUNT(suffixes); i++) {
        size_t n = strlen(suffixes[i]);
        if (length > n && strcmp(name + length - n, suffixes[i]) == 0)
            return pm_arena_printf(scratch, "%.*s", (int)(length - n), name);
    }
    return NULL;
}

static const char *dims_text(pm_arena *scratch, int32_t rank, const int64_t *dims)
{
    pm_str text = pm_str_new(scratch);
    for (int32_t i = 0; i < rank; i++)
        pm_str_printf(&text, "%s%" PRId64, i > 0 ? ", " : "", dims[i]);
    return text.data != NULL ? text.data : "";
}

/// Which elements of the codes share a scale, axis by axis.
typedef struct sharing {
    int32_t rank, columns; ///< `columns`: the axis along which a row's elements lie
    int64_t from[PM_MAX_RANK]; ///< extents of the scales as they are stored
    int64_t to[PM_MAX_RANK];   ///< and spread: as many as the codes, but for blocks along a row
    int64_t each[PM_MAX_RANK]; ///< how many in `to` share one in `from`
} sharing;

static int64_t ceil_div(int64_t n, int64_t by)
{
    return n / by + (n % by != 0);
}

/// Along each axis there is a scale for each element, one for all, or one for each block.
static bool find_sharing(const pm_ckpt *c, const pm_safetensor *codes, const pm_safetensor *scales, bool transposed,
                         sharing *s, int64_t *out_block)
{
    int32_t rows = codes->rank - (transposed ? 1 : 2);
    *s = (sharing){.rank = codes->rank, .columns = codes->rank - (transposed ? 2 : 1)};
    *out_block = 0;
    if (scales->rank > codes->rank)
        return false;
    for (int32_t i = 0; i < s->rank; i++) {
        int64_t n = codes->dims[i], have = i < scales->rank ? scales->dims[i] : 1;
        int64_t block = i == rows ? c->block[0] : i == s->columns ? c->block[1] : 0;
        bool is_blocks = block > 0 && have == ceil_div(n, block);
        if (!is_blocks && have != 1 && (have != n || i == s->columns))
            return false;
        s->from[i] = have;
        s->to[i] = i == s->columns ? have : n;
        s->each[i] = i == s->columns || have == n ? 1 : is_blocks ? block : n;
        if (i == s->columns && is_blocks)
            *out_block = block;
    }
    return true;
}

/// The scales of all rows, from the few that are stored. `size`: of one.
static pm_status spread(pm_ckpt *c, const pm_safetensor *scales, const sharing *s, int64_t count, size_t size, uint8_t *out)
{
    int32_t last = s->rank - 1;
    int64_t at[PM_MAX_RANK] = {0};
    uint8_t *from = pm_arena_alloc(c->scratch, scales->size, 16);
    PM_TRY(pm_file_read(c->diag, scales->file, scales->offset, from, scales->size));
    for (int64_t done = 0; done < count; done += s->to[last], out += (size_t)s->to[last] * size) {
        int64_t line = 0;
        for (int32_t i = 0; i < last; i++)
            line = line * s->from[i] + at[i] / s->each[i];
        for (int64_t i = 0; s->each[last] > 1 && i < s->to[last]; i++)
            memcpy(out + (size_t)i * size, from + (size_t)(line * s->from[last] + i / s->each[last]) * size, size);
        if (s->each[last] == 1)
            memcpy(out, from + (size_t)(line * s->from[last]) * size, (size_t)s->to[last] * size);
        for (int32_t i = last - 1; i >= 0 && ++at[i] == s->to[i]; i--)
            at[i] = 0;
    }
    return PM_OK;
}

static pm_status find_scales(pm_ckpt_step *step, const pm_safetensor *codes, pm_safetensor **out)
{
    pm_ckpt *c = step->c;
    for (size_t i = 0; i < PM_COUNT(suffixes); i++) {
        const char *name = pm_arena_printf(c->scratch, "%s%s", codes->name, suffixes[i]);
        if ((*out = pm_safetensors_find(c->tensors, name)) != NULL)
            return PM_OK;
    }
    pm_loc loc = pm_safetensor_loc(codes, pm_ckpt_step_text(step));
    return pm_error(c->diag, &loc, PM_ERR_INVALID,
                    "is stored as %s, and the checkpoint has no scales for it: neither '%s%s' nor '%s%s'", codes->dtype,
                    codes->name, suffixes[0], codes->name, suffixes[1]);
}

pm_status pm_ckpt_scales_of(pm_ckpt_step *step, const pm_safetensor *codes, bool transposed, pm_ckpt_scales *out)
{
    pm_ckpt *c = step->c;
    *out = (pm_ckpt_scales){0};
    PM_TRY(find_scales(step, codes, &out->tensor));
    const pm_safetensor *t = out->tensor;
    pm_loc loc = pm_safetensor_loc(t, pm_ckpt_step_text(step));
    bool is_power = strcmp(t->dtype, "F8_E8M0") == 0;
    if (!is_power && t->elem != PM_F32 && t->elem != PM_BF16 && t->elem != PM_F16)
        return pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED, "is stored as %s; scales must be F32, BF16, F16 or F8_E8M0",
                        t->dtype);
    sharing s;
    if (codes->rank < 2 || !find_sharing(c, codes, t, transposed, &s, &out->block))
        return pm_error(c->diag, &loc, PM_ERR_INVALID,
                        "has the shape [%s]; the scales of codes [%s] must be one for all, one for each row%s",
                        dims_text(c->scratch, t->rank, t->dims), dims_text(c->scratch, codes->rank, codes->dims),
                        c->block[0] == 0 ? ""
                                         : pm_arena_printf(c->scratch, ", or one for each block of %" PRId64 " x %" PRId64,
                                                           c->block[0], c->block[1]));
    out->elem = is_power ? PM_U8 : (pm_elem)t->elem;
    out->rank = s.rank;
    memcpy(out->dims, s.to, (size_t)s.rank * sizeof *s.to);
    int64_t count = 1, bytes;
    bool fits = true, is_spread = false;
    for (int32_t i = 0; i < s.rank; i++) {
        fits = fits && pm_mul_i64(count, s.to[i], &count);
        is_spread = is_spread || s.from[i] != s.to[i];
    }
    if (!fits || !pm_mul_i64(count, pm_elem_size(out->elem), &bytes))
        return pm_error(c->diag, &loc, PM_ERR_INVALID, "the size of its scales, row by row, overflows");
    out->size = (uint64_t)bytes;
    if (!is_spread)
        return PM_OK;
    void **slot = pm_map_at(&c->datas, &t, sizeof t);
    if (*slot == NULL) {
        uint8_t *all = pm_arena_alloc(c->module->arena, (size_t)bytes, 64);
        PM_TRY(spread(c, t, &s, count, pm_elem_size(out->elem), all));
        *slot = all;
    }
    out->bytes = *slot;
    return PM_OK;
}
