/// Checkpoint folders: config.json, safetensors and tokenizer.json become a module with the entries
/// forward, prefill and decode, which share weights.
#include <inttypes.h>
#include <unistd.h>

#include "base/str.h"
#include "frontend/checkpoint/checkpoint_build.h"
#include "frontend/checkpoint/tokenizer_import.h"
#include "frontend/frontend.h"
#include "ir/text.h"

enum { MAX_CONFIG = 16 << 20, MAX_TOKENIZER = 100000000 };

// ---- files of the folder ----

/// The bytes of a file of the folder, in scratch memory; NULL when absent and not required.
static pm_status read_text(pm_ckpt *c, const char *name, bool required, uint64_t limit,
                           const char **out_path, const char **out_text, size_t *out_size)
{
    const char *path = pm_path_join(c->module->arena, c->folder, name);
    pm_file *file;
    *out_path = path;
    *out_text = NULL;
    *out_size = 0;
    if (!required && access(path, F_OK) != 0)
        return PM_OK;
    PM_TRY(pm_file_open(c->scratch, c->diag, path, &file));
    pm_loc loc = {.file = path};
    if (file->size > limit)
        return pm_error(c->diag, &loc, PM_ERR_UNSUPPORTED,
                        "has %" PRIu64 " bytes, at most %" PRIu64 " are read", file->size, limit);
    char *text = pm_arena_alloc(c->scratch, file->size + 1, 1);
    PM_TRY(pm_file_read(c->diag, file, 0, text, file->size));
    *out_text = text;
    *out_size = file->size;
    return PM_OK;
}

static pm_status read_json(pm_ckpt *c, const char *name, bool required, const char **out_path,
                           const pm_json **out_json)
{
    const char *text;
    size_t size;
    *out_json = NULL;
    PM_TRY(read_text(c, name, required, MAX_CONFIG, out_path, &text, &size));
    if (text == NULL)
        return PM_OK;
    PM_TRY(pm_json_parse(c->scratch, c->diag, *out_path, text, size, out_json));
    if ((*out_json)->kind == PM_JSON_OBJECT)
        return PM_OK;
    pm_loc loc = pm_json_loc(*out_path, *out_json);
    return pm_error(c->diag, &loc, PM_ERR_INVALID, "expected an object");
}

// ---- what the program carries beside the graph ----

static void put_meta(pm_ckpt *c, const char *key, const char *value)
{
    pm_map_put_str(&c->module->meta, key, (void *)(uintptr_t)pm_intern(c->module, value));
}

static void put_meta_param(pm_ckpt *c, const char *key, const char *param)
{
    const pm_expr_value *value = pm_map_get_str(&c->scope.names, param);
    if (value != NULL && value->kind == PM_EXPR_NUMBER)
        put_meta(c, key, pm_arena_printf(c->scratch, "%.0f", value->number));
}

/// The ids under `key`: a number, or a list of numbers ("1,2"). `out_first` is -1 when there is none.
static pm_status put_ids(pm_ckpt *c, const char *path, const pm_json *config, const char *key,
                         int32_t *out_first)
{
    const pm_json *value = pm_json_get(config, key);
    if (value == NULL || value->kind == PM_JSON_NULL)
        return PM_OK;
    size_t n = value->kind == PM_JSON_ARRAY ? value->n : 1;
    pm_str list = pm_str_new(c->scratch);
    for (size_t i = 0; i < n; i++) {
        const pm_json *id = value->kind == PM_JSON_ARRAY ? &value->items[i] : value;
        if (id->kind != PM_JSON_NUMBER || !id->is_int || id->integer < 0 || id->integer > INT32_MAX) {
            pm_loc loc = pm_json_loc(path, id);
            return pm_error(c->diag, &loc, PM_ERR_INVALID, "'%s' must be a token's id, or a list",
                            key);
        }
        if (i == 0)
            *out_first = (int32_t)id->integer;
        pm_str_printf(&list, "%s%" PRId64, i > 0 ? "," : "", id->integer);
    }
    if (n > 0)
        put_meta(c, key, list.data);
    return PM_OK;
}

static pm_status add_tokenizer(pm_ckpt *c, int32_t bos, int32_t eos)
{
    const char *path, *text;
    size_t size;
    const uint8_t *blob;
    uint32_t blob_size;
    PM_TRY(read_text(c, "tokenizer.json", false, MAX_TOKENIZER, &path, &text, &size));
    if (text == NULL)
        return PM_OK;
    PM_TRY(pm_tokenizer_import(c->module->arena, c->diag, path, text, size, bos, eos, &blob,
                               &blob_size));
    pm_data *data = PM_NEW(c->module->arena, pm_data);
    *data = (pm_data){.size = blob_size, .bytes = blob};
    pm_map_put_str(&c->module->blobs, "tokenizer", data);
    return PM_OK;
}

static pm_status add_meta(pm_ckpt *c, const char *path, const pm_json *config)
{
    const char *generation_path;
    const pm_json *generation;
    int32_t bos = -1, eos = -1, start = -1;
    put_meta(c, "recipe", c->recipe->name);
    put_meta_param(c, "vocab_size", "vocab");
    put_meta_param(c, "max_position_embeddings", "positions");
    put_meta_param(c, "n_layers", "layers");
    PM_TRY(read_json(c, "generation_config.json", false, &generation_path, &generation));
    PM_TRY(put_ids(c, path, config, "bos_token_id", &bos));
    PM_TRY(put_ids(c, path, config, "decoder_start_token_id", &start));
    PM_TRY(put_ids(c, path, config, "eos_token_id", &eos));
    // what `generate` goes by, where it says something else
    PM_TRY(put_ids(c, generation_path, generation, "eos_token_id", &eos));
    return add_tokenizer(c, bos, eos);
}

// ---- entries ----

static pm_status param(pm_ckpt *c, const char *name, int64_t lo, int64_t hi, int64_t *out)
{
    pm_loc loc = pm_json_loc(c->recipe->file, c->recipe->root);
    return pm_expr_int(&c->scope, &loc, name, lo, hi, out);
}

static pm_status build_zeros(pm_ckpt *c, pm_value **out)
{
    pm_value *shape, *zero;
    int64_t nothing = 0;
    PM_TRY(pm_build_dims(&c->b, 1, &c->batch, &shape));
    PM_TRY(pm_build_const_ints(&c->b, PM_I64, 0, NULL, &nothing, &zero));
    return pm_build1(&c->b, out, PM_OP_fill, PM_OPERANDS(shape, zero), PM_NO_ATTRS);
}

static pm_value *add_argument(pm_ckpt *c, const char *name, int32_t rank, pm_dim tokens)
{
    pm_dim dims[2] = {c->batch, tokens};
    return pm_graph_add_arg(c->entry, name, pm_type_get(c->module, PM_I64, rank, dims), -1);
}

/// The decoder's arguments, or those of a model that is nothing else.
static pm_status build_arguments(pm_ckpt *c)
{
    bool is_pair = c->recipe->encoder != NULL;
    pm_dim tokens = c->mode == PM_CKPT_DECODE ? pm_dim_const(c->module, 1) : c->tokens;
    c->ids = add_argument(c, is_pair ? "decoder_input_ids" : "input_ids", 2, tokens);
    if (c->mode == PM_CKPT_FORWARD)
        return build_zeros(c, &c->past);
    c->past = add_argument(c, "past", 1, PM_DIM_NONE);
    if (is_pair)
        c->seen = add_argument(c, "source", 1, PM_DIM_NONE);
    return PM_OK;
}

static pm_status build_results(pm_ckpt *c)
{
    pm_loc loc = pm_json_loc(c->recipe->file, c->recipe->end);
    pm_value *logits = pm_ckpt_value(c, "logits"), *memory = pm_ckpt_value(c, "memory");
    bool decodes = c->mode != PM_CKPT_ENCODE;
    if (decodes && (logits == NULL || logits->type->rank != 3))
        return pm_error(c->diag, &loc, PM_ERR_INTERNAL, "the recipe's end must make 'logits'");
    if (c->mode == PM_CKPT_PREFILL || c->mode == PM_CKPT_DECODE) {
        pm_dim dims[2] = {logits->type->dims[0], logits->type->dims[2]};
        PM_TRY(pm_build_reshape_dims(&c->b, logits, 2, dims, &logits));
    }
    if (decodes)
        pm_graph_add_result(c->entry, "logits", logits, -1);
    if (c->recipe->encoder != NULL && memory != NULL)
        pm_graph_add_result(c->entry, "encoder_last_hidden_state", memory, -1);
    for (size_t i = 0; i < c->caches.n; i++)
        pm_graph_add_result(c->entry, c->module->states.data[c->cache_states.data[i]].name,
                            c->caches.data[i], c->cache_states.data[i]);
    return PM_OK;
}

static pm_status build_layers(pm_ckpt *c, const pm_json *steps, int64_t layers)
{
    for (c->layer = 0; c->layer < layers; c->layer++) {
        pm_expr_set_number(&c->scope, "l", (double)c->layer);
        PM_TRY(pm_ckpt_steps(c, steps));
    }
    c->layer = -1;
    return PM_OK;
}

/// The encoder, and what the decoder's layers make of its tokens once and for all.
static pm_status build_encoder(pm_ckpt *c, int64_t decoder_layers)
{
    const pm_json *encoder = c->recipe->encoder, *count = pm_json_get(encoder, "layers");
    pm_loc loc = pm_json_loc(c->recipe->file, encoder);
    pm_value *size, *shape;
    int64_t layers;
    PM_TRY(pm_expr_int(&c->scope, &loc, count != NULL ? count->string : "", 1, PM_CKPT_MAX_LAYERS,
                       &layers));
    c->in_encoder = true;
    c->ids = add_argument(c, "input_ids", 2, c->source);
    PM_TRY(build_zeros(c, &c->past));
    PM_TRY(pm_ckpt_steps(c, pm_json_get(encoder, "begin")));
    PM_TRY(build_layers(c, pm_json_get(encoder, "layer"), layers));
    PM_TRY(pm_ckpt_steps(c, pm_json_get(encoder, "end")));
    c->in_encoder = false;
    if (pm_ckpt_value(c, "memory") == NULL)
        return pm_error(c->diag, &loc, PM_ERR_INTERNAL, "the encoder's end must make 'memory'");
    PM_TRY(pm_build_dims(&c->b, 1, &c->source, &size));
    PM_TRY(pm_build_dims(&c->b, 1, &c->batch, &shape));
    PM_TRY(pm_build1(&c->b, &c->seen, PM_OP_expand, PM_OPERANDS(size, shape), PM_NO_ATTRS));
    return build_layers(c, pm_json_get(encoder, "memory"), decoder_layers);
}

static pm_status build_entry(pm_ckpt *c, pm_ckpt_mode mode, const char *name, int64_t layers)
{
    c->mode = mode;
    c->entry = pm_entry_create(c->module, name);
    pm_loc loc = {.file = c->folder, .what = "entry", .name = c->entry->name};
    c->b = (pm_builder){.graph = c->entry, .loc = pm_loc_intern(c->module, &loc)};
    c->caches.n = c->cache_states.n = 0;
    c->layer = -1;
    pm_map_init(&c->n_states, c->scratch);
    pm_map_init(&c->values, c->scratch);
    if (c->recipe->encoder != NULL && (mode == PM_CKPT_FORWARD || mode == PM_CKPT_ENCODE))
        PM_TRY(build_encoder(c, layers));
    if (mode != PM_CKPT_ENCODE) {
        PM_TRY(build_arguments(c));
        PM_TRY(pm_ckpt_steps(c, c->recipe->begin));
        PM_TRY(build_layers(c, c->recipe->layer, layers));
        PM_TRY(pm_ckpt_steps(c, c->recipe->end));
    }
    return build_results(c);
}

static pm_status build_entries(pm_ckpt *c)
{
    int64_t layers, positions;
    PM_TRY(param(c, "layers", 1, PM_CKPT_MAX_LAYERS, &layers));
    PM_TRY(param(c, "positions", 1, INT32_MAX, &positions));
    int64_t most = positions > PM_CKPT_CACHE_BLOCK ? positions : PM_CKPT_CACHE_BLOCK;
    c->batch = pm_dim_symbol(c->module, "B", 1, PM_CKPT_MAX_BATCH);
    c->tokens = pm_dim_symbol(c->module, "T", 1, positions);
    c->cache = pm_dim_symbol(c->module, "C", PM_CKPT_CACHE_BLOCK, most);
    if (c->recipe->encoder != NULL)
        c->source = pm_dim_symbol(c->module, "S", 1, positions);
    PM_TRY(build_entry(c, PM_CKPT_FORWARD, "forward", layers));
    if (c->recipe->encoder != NULL)
        PM_TRY(build_entry(c, PM_CKPT_ENCODE, "encode", layers));
    PM_TRY(build_entry(c, PM_CKPT_PREFILL, "prefill", layers));
    return build_entry(c, PM_CKPT_DECODE, "decode", layers);
}

static bool has_tensor(void *user, const char *name)
{
    return pm_ckpt_find(user, name) != NULL;
}

/// A model of text and pictures: its language part, when a recipe reads that and none the whole.
static pm_status take_language_part(pm_ckpt *c, const char *path, const pm_json **inout_config,
                                    const char **inout_type)
{
    const pm_json *text = pm_json_get(*inout_config, "text_config");
    const char *type = NULL;
    if (text == NULL || text->kind != PM_JSON_OBJECT || pm_recipe_reads(c->scratch, *inout_type))
        return PM_OK;
    PM_TRY(pm_json_get_str(c->diag, path, text, "model_type", false, &type));
    if (type == NULL || !pm_recipe_reads(c->scratch, type))
        return PM_OK;
    put_meta(c, "part_of", *inout_type);
    c->is_nested = true;
    *inout_config = text;
    *inout_type = type;
    return PM_OK;
}

static pm_status load(pm_ckpt *c)
{
    const char *path, *model_type = NULL;
    const pm_json *config, *whole;
    PM_TRY(read_json(c, "config.json", true, &path, &whole));
    config = whole;
    PM_TRY(pm_json_get_str(c->diag, path, config, "model_type", true, &model_type));
    PM_TRY(take_language_part(c, path, &config, &model_type));
    pm_loc loc = pm_json_loc(path, pm_json_get(config, "model_type"));
    put_meta(c, "model_type", model_type);
    pm_status status = pm_recipe_find(c->scratch, c->diag, &loc, model_type, &c->recipe);
    if (status == PM_ERR_UNSUPPORTED)
        pm_ckpt_explain_unknown(c, &loc, config);
    PM_TRY(status);
    PM_TRY(pm_ckpt_read_quantisation(c, path, pm_json_get(config, "quantization_config") != NULL ? config : whole));
    c->scope = (pm_expr_scope){.arena = c->scratch, .diag = c->diag, .has = has_tensor, .user = c};
    pm_map_init(&c->scope.names, c->scratch);
    pm_map_init(&c->datas, c->scratch);
    PM_TRY(pm_safetensors_open(c->module->arena, c->diag, c->folder, &c->tensors));
    PM_TRY(pm_recipe_params(c->recipe, &c->scope, path, config));
    PM_TRY(add_meta(c, path, config));
    PM_TRY(build_entries(c));
    PM_TRY(pm_ckpt_check_unused(c));
    return pm_module_verify(c->module);
}

pm_status pm_checkpoint_load(pm_arena *arena, pm_diag *diag, const char *path,
                             pm_module **out_module)
{
    *out_module = NULL;
    pm_ckpt c = {
        .scratch = pm_arena_child(arena),
        .diag = diag,
        .folder = pm_arena_strdup(arena, path),
    };
    const char *name = strrchr(path, '/');
    c.module = pm_module_create(arena, diag, name != NULL && name[1] != '\0' ? name + 1 : path);
    pm_status status = load(&c);
    pm_arena_destroy(c.scratch);
    if (status == PM_OK)
        *out_module = c.module;
    return status;
}
