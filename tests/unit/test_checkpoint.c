// frontend/checkpoint: families against the reference implementation, entries against each other,
// layouts of the experts, and what is refused.

#include "tests/unit/checkpoint_folders.h"

// ---- numbers ----

static const char *const families[] = {"mixtral",  "qwen2_moe",        "qwen3_moe", "olmoe",
                                       "lfm2_moe", "granitemoehybrid", "qwen3_next", "qwen3_5_moe_text",
                                       "jamba",    "nemotron_h",       "bailing_hybrid",
                                       "gpt_oss_mxfp4", "deepseek_v3_fp8"};

START_TEST(test_family)
{
    const char *path = pm_arena_printf(arena, DATA "%s", families[_i]);
    const char *reference = pm_path_join(arena, path, "reference.npz");
    pm_module *m = load(path);
    expect_logits(m, reference, "input_ids", "logits");
    expect_logits(m, reference, "input_ids_b", "logits_b");
}
END_TEST

START_TEST(test_classics)
{
    pm_module *m = load(CLASSICS);
    expect_logits(m, CLASSICS "/reference.npz", "input_ids", "logits");
    ck_assert_str_eq(pm_map_get_str(&m->meta, "model_type"), "mixtral");
    ck_assert_str_eq(pm_map_get_str(&m->meta, "vocab_size"), "2048");
    ck_assert_str_eq(pm_map_get_str(&m->meta, "max_position_embeddings"), "1024");
    ck_assert_str_eq(pm_map_get_str(&m->meta, "n_layers"), "4");
    ck_assert_ptr_null(pm_map_get_str(&m->meta, "eos_token_id"));
    const pm_data *blob = pm_map_get_str(&m->blobs, "tokenizer");
    ck_assert_ptr_nonnull(blob);
    const pm_tokenizer_header *header = (const void *)blob->bytes;
    ck_assert_uint_eq(header->magic, PM_TOKENIZER_MAGIC);
    ck_assert_uint_eq(header->size, blob->size);
    ck_assert_uint_eq(header->n_tokens, 2048);
}
END_TEST

/// Prefill in two pieces, then single tokens: at each point the logits are those of `forward`.
START_TEST(test_entries_agree)
{
    enum { T = 9, FIRST = 4, SECOND = 2 };
    const char *path = pm_arena_printf(arena, DATA "%s", families[_i]);
    pm_module *m = load(path);
    pm_array ids = npz_get(arena, diag, pm_path_join(arena, path, "reference.npz"), "input_ids_b");
    ck_assert(ids.dims[0] == 2 && ids.dims[1] == T);
    pm_array want = logits_of(m, &ids);
    int64_t vocab = want.dims[2], at = 0;
    session s = start(m, 2, 40); // 40 positions: rounded up to 48
    for (size_t i = 0; i < m->states.n; i++) {
        if (strncmp(m->states.data[i].name, "key_cache.", 10) == 0)
            ck_assert_int_eq(s.states[i].dims[2], 3);
        if (strncmp(m->states.data[i].name, "value_cache.", 12) == 0)
            ck_assert_int_eq(s.states[i].dims[2], 48);
    }
    while (at < T) {
        int64_t n = at == 0 ? FIRST : at == FIRST ? SECOND : 1, piece[2 * FIRST];
        for (int64_t b = 0; b < 2; b++)
            memcpy(piece + b * n, (int64_t *)ids.data + b * T + at, (size_t)n * sizeof *piece);
        pm_array got = step(&s, at < FIRST + SECOND ? "prefill" : "decode", piece, n);
        ck_assert(got.rank == 2 && got.dims[0] == 2 && got.dims[1] == vocab);
        at += n;
        for (int64_t b = 0; b < 2; b++) {
            const float *row = (float *)want.data + (b * T + at - 1) * vocab;
            ck_assert(difference((float *)got.data + b * vocab, row, vocab) < 1e-6);
        }
    }
}
END_TEST

START_TEST(test_greedy)
{
    const char *path = pm_arena_printf(arena, DATA "%s", families[_i]);
    const char *reference = pm_path_join(arena, path, "reference.npz");
    pm_module *m = load(path);
    pm_array ids = npz_get(arena, diag, reference, "input_ids");
    pm_array want = npz_get(arena, diag, reference, "greedy");
    session s = start(m, 1, 64);
    pm_array logits = step(&s, "prefill", ids.data, ids.dims[1]);
    for (int64_t i = 0; i < npz_count(&want); i++) {
        const float *row = logits.data;
        int64_t best = 0;
        for (int64_t v = 1; v < logits.dims[1]; v++)
            best = row[v] > row[best] ? v : best;
        ck_assert_int_eq(best, ((int64_t *)want.data)[i]);
        logits = step(&s, "decode", &best, 1);
    }
}
END_TEST

// ---- encoder-decoders ----

static const char *const pairs[] = {"switch_transformers", "nllb-moe"};

/// Runs an entry whose arguments, states apart, are `given` in their order. States are taken from and put
/// back into the session. Returns the first result.
static pm_array call(session *s, const char *name, const pm_array *given)
{
    const pm_graph *entry = entry_of(s->m, name);
    pm_array *in = PM_NEW_ARRAY(arena, pm_array, entry->args.n);
    pm_array *out = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
    for (size_t i = 0; i < entry->args.n; i++) {
        int32_t state = entry->arg_states.data[i];
        in[i] = state >= 0 ? s->states[state] : *given++;
    }
    run(entry, in, entry->args.n, out);
    for (size_t i = 0; i < entry->results.n; i++)
        if (entry->result_states.data[i] >= 0)
            s->states[entry->result_states.data[i]] = out[i];
    return out[0];
}

static pm_array int_array(int32_t rank, int64_t a, int64_t b, const int64_t *data)
{
    return (pm_array){.elem = PM_I64, .rank = rank, .dims = {a, b}, .data = (void *)(uintptr_t)data};
}

START_TEST(test_pairs)
{
    static const char *const suffixes[] = {"", "_b"};
    const char *path = pm_arena_printf(arena, DATA "%s", pairs[_i]);
    const char *reference = pm_path_join(arena, path, "reference.npz");
    pm_module *m = load(path);
    for (int k = 0; k < 2; k++) {
        const char *ids = pm_arena_printf(arena, "input_ids%s", suffixes[k]);
        const char *encoded = pm_arena_printf(arena, "encoder_last_hidden_state%s", suffixes[k]);
        const char *logits = pm_arena_printf(arena, "logits%s", suffixes[k]);
        pm_array in[2] = {npz_get(arena, diag, reference, ids),
                          npz_get(arena, diag, reference,
                                  pm_arena_printf(arena, "decoder_%s", ids))};
        pm_array want[2] = {npz_get(arena, diag, reference, logits),
                            npz_get(arena, diag, reference, encoded)}, got[2];
        run(entry_of(m, "forward"), in, 2, got);
        for (int i = 0; i < 2; i++) {
            ck_assert_int_eq(npz_count(&got[i]), npz_count(&want[i]));
            ck_assert(difference(got[i].data, want[i].data, npz_count(&want[i])) < 1e-5);
        }
        session s = start(m, in[0].dims[0], 40);
        pm_array memory = call(&s, "encode", in);
        ck_assert(difference(memory.data, want[1].data, npz_count(&want[1])) < 1e-5);
    }
    ck_assert_str_eq(pm_map_get_str(&m->meta, "decoder_start_token_id"), _i == 0 ? "0" : "2");
}
END_TEST

START_TEST(test_pairs_greedy)
{
    const char *path = pm_arena_printf(arena, DATA "%s", pairs[_i]);
    const char *reference = pm_path_join(arena, path, "reference.npz");
    pm_module *m = load(path);
    pm_array ids = npz_get(arena, diag, reference, "input_ids");
    pm_array want = npz_get(arena, diag, reference, "greedy");
    session s = start(m, 1, 40);
    int64_t token = _i == 0 ? 0 : 2, past = 0, source = ids.dims[1];
    call(&s, "encode", &ids);
    for (int64_t i = 0; i < npz_count(&want); i++, past++) {
        const pm_array in[3] = {int_array(2, 1, 1, &token), int_array(1, 1, 0, &past),
                                int_array(1, 1, 0, &source)};
        pm_array logits = call(&s, "decode", in);
        const float *row = logits.data;
        token = 0;
        for (int64_t v = 1; v < logits.dims[1]; v++)
            token = row[v] > row[token] ? v : token;
        ck_assert_int_eq(token, ((int64_t *)want.data)[i]);
    }
}
END_TEST

/// The decoder in pieces: at each point the logits are those of `forward`. (Capacities of NLLB depend on how
/// many tokens come at once.)
START_TEST(test_pair_entries_agree)
{
    enum { T = 5, FIRST = 3 };
    const char *reference = DATA "switch_transformers/reference.npz";
    pm_module *m = load(DATA "switch_transformers");
    pm_array in[2] = {npz_get(arena, diag, reference, "input_ids_b"),
                      npz_get(arena, diag, reference, "decoder_input_ids_b")}, want[2];
    run(entry_of(m, "forward"), in, 2, want);
    session s = start(m, 2, 40);
    call(&s, "encode", in);
    int64_t source[2] = {in[0].dims[1], in[0].dims[1]}, vocab = want[0].dims[2];
    for (int64_t at = 0, n; at < T; at += n) {
        int64_t piece[2 * FIRST], past[2] = {at, at};
        n = at == 0 ? FIRST : 1;
        for (int64_t b = 0; b < 2; b++)
            memcpy(piece + b * n, (int64_t *)in[1].data + b * T + at, (size_t)n * sizeof *piece);
        const pm_array args[3] = {int_array(2, 2, n, piece), int_array(1, 2, 0, past),
                                  int_array(1, 2, 0, source)};
        pm_array got = call(&s, at == 0 ? "prefill" : "decode", args);
        for (int64_t b = 0; b < 2; b++)
            ck_assert(difference((float *)got.data + b * vocab,
                                 (float *)want[0].data + (b * T + at + n - 1) * vocab, vocab) < 1e-6);
    }
}
END_TEST

// ---- structure ----

START_TEST(test_weights_are_shared_ranges)
{
    pm_module *m = load(DATA "mixtral");
    ck_assert_uint_eq(m->entries.n, 3);
    ck_assert_uint_eq(m->states.n, 4);
    size_t n_files[3] = {0};
    for (size_t e = 0; e < 3; e++) {
        for (const pm_op *op = m->entries.data[e]->first; op != NULL; op = op->next) {
            const pm_data *data = pm_value_const(op->n_results ? op->results[0] : NULL);
            ck_assert(op->loc->file != NULL); // every op has its place
            if (data == NULL || data->file == NULL)
                continue;
            ck_assert_ptr_null(data->bytes);
            ck_assert_ptr_null(data->file->data);
            n_files[e]++;
        }
    }
    ck_assert(n_files[0] == n_files[1] && n_files[1] == n_files[2] && n_files[0] == 41);
}
END_TEST

START_TEST(test_text_round_trip)
{
    char *once = NULL, *twice = NULL;
    size_t n_once = 0, n_twice = 0;
    pm_module *m = load(DATA "qwen2_moe"), *again;
    FILE *out = open_memstream(&once, &n_once);
    pm_module_print(m, out);
    fclose(out);
    ck_assert_msg(pm_module_parse(arena, diag, "m.pm", once, n_once, "/", &again) == PM_OK, "%s",
                  messages());
    out = open_memstream(&twice, &n_twice);
    pm_module_print(again, out);
    fclose(out);
    ck_assert(n_once == n_twice && memcmp(once, twice, n_once) == 0);
    free(once);
    free(twice);
}
END_TEST

/// Every embedded recipe parses, has the parts of one, and claims types that no other one does.
START_TEST(test_recipes)
{
    const char *name, *text;
    size_t size, i = 0;
    pm_map types;
    pm_map_init(&types, arena);
    for (; pm_recipe_at(i, &name, &text, &size); i++) {
        const pm_json *root;
        const pm_recipe *recipe;
        ck_assert_msg(pm_json_parse(arena, diag, name, text, size, &root) == PM_OK, "%s",
                      messages());
        const pm_json *list = pm_json_get(root, "model_types");
        ck_assert(list != NULL && list->n > 0);
        ck_assert_ptr_nonnull(pm_json_get(root, "about"));
        for (size_t k = 0; k < list->n; k++) {
            const char *type = list->items[k].string;
            ck_assert_msg(pm_map_get_str(&types, type) == NULL, "%s twice", type);
            pm_map_put_str(&types, type, (void *)(uintptr_t)name);
            ck_assert_int_eq(pm_recipe_find(arena, diag, NULL, type, &recipe), PM_OK);
            ck_assert_str_eq(recipe->name, pm_json_get(root, "recipe")->string);
        }
    }
    ck_assert_uint_ge(i, 4);
}
END_TEST

// ---- made-up checkpoints ----


/// The same logits, to the bit, as the folder that the tensors came from.
static void expect_same_logits(const char *family)
{
    const char *reference = pm_arena_printf(arena, DATA "%s/reference.npz", family);
    pm_array ids = npz_get(arena, diag, reference, "input_ids_b");
    pm_array a = logits_of(load(pm_arena_printf(arena, DATA "%s", family)), &ids);
    pm_array b = logits_of(load(folder), &ids);
    ck_assert(memcmp(a.data, b.data, (size_t)npz_count(&a) * sizeof(float)) == 0);
}

/// Experts as newer files have them: gate_up_proj [E, 2I, H], down_proj [E, H, I].
static void fuse_experts(tensor_vec *v, int64_t layers, int64_t experts)
{
    tensor_vec kept = {0};
    for (int64_t l = 0; l < layers; l++) {
        uint8_t *up = NULL, *down = NULL;
        tensor *w1 = NULL, *w2 = NULL;
        for (int64_t e = 0; e < experts; e++) {
            const char *base = pm_arena_printf(
                arena, "model.layers.%d.block_sparse_moe.experts.%d.", (int)l, (int)e);
            w1 = find(v, pm_arena_printf(arena, "%sw1.weight", base));
            w2 = find(v, pm_arena_printf(arena, "%sw2.weight", base));
            tensor *w3 = find(v, pm_arena_printf(arena, "%sw3.weight", base));
            if (e == 0) {
                up = pm_arena_alloc(arena, 2 * w1->size * (size_t)experts, 8);
                down = pm_arena_alloc(arena, w2->size * (size_t)experts, 8);
            }
            memcpy(up + (size_t)(2 * e) * w1->size, w1->bytes, w1->size);
            memcpy(up + (size_t)(2 * e + 1) * w1->size, w3->bytes, w3->size);
            memcpy(down + (size_t)e * w2->size, w2->bytes, w2->size);
        }
        tensor t = {.name = pm_arena_printf(arena, "model.layers.%d.mlp.experts.gate_up_proj", (int)l),
                    .dtype = "F32", .rank = 3, .dims = {experts, 2 * w1->dims[0], w1->dims[1]},
                    .size = 2 * w1->size * (size_t)experts, .bytes = up};
        PM_PUSH(arena, &kept, t);
        t = (tensor){.name = pm_arena_printf(arena, "model.layers.%d.mlp.experts.down_proj", (int)l),
                     .dtype = "F32", .rank = 3, .dims = {experts, w2->dims[0], w2->dims[1]},
                     .size = w2->size * (size_t)experts, .bytes = down};
        PM_PUSH(arena, &kept, t);
        tensor *gate = find(
            v, pm_arena_printf(arena, "model.layers.%d.block_sparse_moe.gate.weight", (int)l));
        gate->name = pm_arena_printf(arena, "model.layers.%d.mlp.gate.weight", (int)l);
    }
    for (size_t i = 0; i < v->n; i++)
        if (strstr(v->data[i].name, "block_sparse_moe") == NULL)
            PM_PUSH(arena, &kept, v->data[i]);
    *v = kept;
}

START_TEST(test_fused_experts)
{
    tensor_vec v = read_tensors("mixtral");
    fuse_experts(&v, 2, 4);
    write_tensors(&v);
    write_config("mixtral", NULL, NULL);
    expect_same_logits("mixtral");
}
END_TEST

START_TEST(test_fused_experts_too_few)
{
    tensor_vec v = read_tensors("mixtral");
    fuse_experts(&v, 2, 3);
    write_tensors(&v);
    write_config("mixtral", NULL, NULL);
    expect_refused("has the shape [3, 48, 32], the configuration makes it a stack of 4");
}
END_TEST

START_TEST(test_fused_experts_too_many)
{
    tensor_vec v = read_tensors("mixtral");
    fuse_experts(&v, 2, 4);
    write_tensors(&v);
    write_config("mixtral", "\"num_local_experts\": 4", "\"num_local_experts\": 3");
    expect_refused("[3, 32]"); // the router's rows
}
END_TEST

/// Tied embeddings: lm_head is the embedding, whether or not the file repeats it.
START_TEST(test_tied)
{
    tensor_vec v = read_tensors("mixtral");
    tensor *head = find(&v, "lm_head.weight"), *embed = find(&v, "model.embed_tokens.weight");
    pm_array ids = npz_get(arena, diag, DATA "mixtral/reference.npz", "input_ids_b");
    head->bytes = embed->bytes;
    write_tensors(&v);
    write_config("mixtral", NULL, NULL);
    pm_array untied = logits_of(load(folder), &ids);
    write_config("mixtral", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    pm_array repeated = logits_of(load(folder), &ids);
    *head = v.data[--v.n];
    write_tensors(&v);
    pm_array tied = logits_of(load(folder), &ids);
    size_t size = (size_t)npz_count(&untied) * sizeof(float);
    ck_assert(memcmp(untied.data, repeated.data, size) == 0);
    ck_assert(memcmp(untied.data, tied.data, size) == 0);
}
END_TEST

START_TEST(test_window)
{
    tensor_vec v = read_tensors("mixtral");
    pm_array ids = npz_get(arena, diag, DATA "mixtral/reference.npz", "input_ids_b");
    write_tensors(&v);
    write_config("mixtral", "\"sliding_window\": null", "\"sliding_window\": 100");
    expect_same_logits("mixtral"); // wider than the text
    write_config("mixtral", "\"sliding_window\": null", "\"sliding_window\": 3");
    pm_array full = logits_of(load(DATA "mixtral"), &ids), narrow = logits_of(load(folder), &ids);
    int64_t vocab = full.dims[2];
    // the first three tokens see all there is, the others don't
    ck_assert(difference(narrow.data, full.data, 3 * vocab) == 0);
    ck_assert(difference((float *)narrow.data + 3 * vocab, (float *)full.data + 3 * vocab, vocab) >
              1e-4);
}
END_TEST

static const struct {
    const char *family, *old, *with, *error;
} bad_configs[] = {
    {"mixtral", "\"model_type\": \"mixtral\"", "\"model_type\": \"mixtrall\"",
     "config.json:15:16: error: no recipe for models of type 'mixtrall'"},
    {"mixtral", "\"model_type\": \"mixtral\"", "\"model_type\": \"mixtrall\"",
     "did you mean 'mixtral'?"},
    {"mixtral", "\"model_type\": \"mixtral\",", "", "model_type"},
    {"mixtral", "\"model_type\": \"mixtral\"", "\"model_type\": 3", "config.json:15:16"},
    {"mixtral", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"silly\"",
     "'silly' isn't a known activation"},
    {"mixtral", "\"hidden_size\": 32,", "", "the key 'hidden_size' is missing"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": \"32\"", "hidden_size must be a number"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": 32.5", "must be an integer"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": true", "hidden_size must be a number"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": 0", "must be in [1,"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": 99999999999", "must be in [1,"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": 36",
     "the size of a head must be even"},
    {"mixtral", "\"hidden_size\": 32", "\"hidden_size\": 64",
     "tensor 'model.embed_tokens.weight' (embed): error: has the shape [128, 32], the "
     "configuration makes it [128, 64]"},
    {"mixtral", "\"num_attention_heads\": 4", "\"num_attention_heads\": 3", "head_dim"},
    {"mixtral", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
     "must be a multiple of num_key_value_heads"},
    {"mixtral", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 5",
     "larger than num_local_experts"},
    {"mixtral", "\"num_local_experts\": 4", "\"num_local_experts\": 5",
     "gate.weight' (layer 0: moe): error: has the shape [4, 32], the configuration makes it [5, 32]"},
    {"mixtral", "\"num_local_experts\": 4", "\"num_local_experts\": 3", "[4, 32]"},
    {"mixtral", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
     "tensor 'model.layers.2.input_layernorm.weight'"},
    {"mixtral", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
     "19 tensors of the checkpoint have no place in the recipe 'mixtral'"},
    {"mixtral", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000",
     "must be an integer in [1, 4096]"},
    {"mixtral", "\"rope_type\": \"default\"", "\"rope_type\": \"spiral\"",
     "rotary positions of the kind 'spiral' aren't known"},
    {"mixtral", "\"use_cache\": true", "\"quantization_config\": {\"quant_method\": \"awq\"}",
     "the weights are quantised (awq)"},
    {"mixtral", "\"bos_token_id\": 1", "\"bos_token_id\": \"a\"", "must be a token's id"},
    {"mixtral", "\"eos_token_id\": 2", "\"eos_token_id\": [2, -1]", "must be a token's id"},
    {"mixtral", "\"vocab_size\": 128", "\"vocab_size\": 128,", "error"},
    {"qwen2_moe", "\"mlp_only_layers\": [\n  0\n ]", "\"mlp_only_layers\": 0",
     "mlp_only_layers must be a list"},
    {"qwen2_moe", "\"mlp_only_layers\": [\n  0\n ]", "\"mlp_only_layers\": []",
     "tensor 'model.layers.0.mlp.gate.weight'"},
    {"qwen2_moe", "\"use_sliding_window\": false", "\"use_sliding_window\": 0",
     "use_sliding_window must be true or false"},
};

START_TEST(test_bad_config)
{
    tensor_vec v = read_tensors(bad_configs[_i].family);
    write_tensors(&v);
    write_config(bad_configs[_i].family, bad_configs[_i].old, bad_configs[_i].with);
    expect_refused(bad_configs[_i].error);
}
END_TEST

START_TEST(test_layer_types)
{
    tensor_vec v = read_tensors("qwen2_moe");
    const char *config = path_of("config.json");
    write_tensors(&v);
    write_config("qwen2_moe", "\"use_sliding_window\": false", "\"use_sliding_window\": true");
    replace_in_config(config, "\"sliding_window\": 0", "\"sliding_window\": 2");
    expect_same_logits("qwen2_moe"); // all three layers are full
    replace_in_config(config, "\"full_attention\",", "\"sliding_attention\",");
    pm_array ids = npz_get(arena, diag, DATA "qwen2_moe/reference.npz", "input_ids_b");
    pm_array full = logits_of(load(DATA "qwen2_moe"), &ids), narrow = logits_of(load(folder), &ids);
    ck_assert(difference(narrow.data, full.data, npz_count(&full)) > 1e-3);
    replace_in_config(config, "\"full_attention\",", "");
    expect_refused("the configuration's list has 2 items");
}
END_TEST

START_TEST(test_bad_tensors)
{
    tensor_vec v = read_tensors("mixtral");
    write_config("mixtral", NULL, NULL);
    tensor *t = find(&v, "model.layers.1.block_sparse_moe.experts.2.w3.weight"), good = *t;
    t->name = "model.layers.1.block_sparse_moe.experts.2.w4.weight";
    write_tensors(&v);
    expect_refused("tensor 'model.layers.1.block_sparse_moe.experts.2.w3.weight' (layer 1: mlp): "
                   "error: the checkpoint doesn't have this tensor");
    *t = good;
    t->dtype = "I32";
    write_tensors(&v);
    expect_refused("is stored as I32; weights must be");
    *t = good;
    t->dims[0] = 12;
    t->dims[1] = 64;
    write_tensors(&v);
    expect_refused("has the shape [12, 64], the configuration makes it that of");
    *t = good;
    t = find(&v, "model.norm.weight");
    t->rank = 2;
    t->dims[0] = 1;
    t->dims[1] = 32;
    write_tensors(&v);
    expect_refused("has the shape [1, 32], the configuration makes it [32]");
}
END_TEST

START_TEST(test_bad_codes)
{
#define EXPERTS_OF_1 "model.layers.1.mlp.experts."
    tensor_vec v = read_tensors("gpt_oss_mxfp4");
    write_config("gpt_oss_mxfp4", NULL, NULL);
    tensor *scales = find(&v, EXPERTS_OF_1 "gate_up_proj_scales"), good = *scales;
    scales->dims[1] = 96;
    scales->dims[2] = 4;
    write_tensors(&v);
    expect_refused("tensor '" EXPERTS_OF_1 "gate_up_proj_scales' (layer 1: linear): error: has the shape "
                   "[4, 96, 4], the configuration makes it one with 192 rows");
    *scales = good;
    scales->dtype = "I8";
    write_tensors(&v);
    expect_refused("is stored as I8; codes and scales of mxfp4 must be U8");
    *scales = good;
    scales->name = EXPERTS_OF_1 "gate_up_proj_scale";
    write_tensors(&v);
    expect_refused("tensor '" EXPERTS_OF_1 "gate_up_proj_scales' (layer 1: linear): error: the checkpoint "
                   "doesn't have this tensor");
    *scales = good;
    scales = find(&v, EXPERTS_OF_1 "down_proj_scales");
    good = *scales;
    scales->dims[1] = 96;
    scales->dims[2] = 2;
    write_tensors(&v);
    expect_refused("tensor '" EXPERTS_OF_1 "down_proj_scales' (layer 1: linear): error: dequantize: extent 0 "
                   "of the scales must be 64, found 96");
    *scales = good;
    tensor *blocks = find(&v, EXPERTS_OF_1 "down_proj_blocks");
    blocks->dims[2] = 6;
    blocks->dims[3] = 8;
    write_tensors(&v);
    expect_refused("has the shape [4, 64, 6, 8], the configuration makes it blocks of 16 bytes");
}
END_TEST

START_TEST(test_extra_tensor)
{
    tensor_vec v = read_tensors("mixtral");
    tensor extra = {.name = "model.layers.0.self_attn.q_proj.bias", .dtype = "F32", .rank = 1,
                    .dims = {1}, .size = 4, .bytes = (const uint8_t *)"1234"};
    PM_PUSH(arena, &v, extra);
    write_config("mixtral", NULL, NULL);
    write_tensors(&v);
    expect_refused("tensor 'model.layers.0.self_attn.q_proj.bias': error: 1 tensors of the "
                   "checkpoint have no place in the recipe 'mixtral'");
    v.data[v.n - 1].name = "model.layers.0.self_attn.rotary_emb.inv_freq"; // which old files have
    write_tensors(&v);
    expect_same_logits("mixtral");
}
END_TEST

START_TEST(test_meta_of_generation)
{
    tensor_vec v = read_tensors("mixtral");
    write_tensors(&v);
    write_config("mixtral", NULL, NULL);
    write_text("generation_config.json", "{\"eos_token_id\": [5, 7]}");
    pm_module *m = load(folder);
    ck_assert_str_eq(pm_map_get_str(&m->meta, "bos_token_id"), "1");
    ck_assert_str_eq(pm_map_get_str(&m->meta, "eos_token_id"), "5,7");
    ck_assert_ptr_null(pm_map_get_str(&m->blobs, "tokenizer"));
}
END_TEST

START_TEST(test_detect)
{
    static const struct {
        const char *text;
        pm_model_kind kind;
    } cases[] = {
        {" \n{\"pimoe\": 1}", PM_MODEL_JSON},
        {"// a comment\nmodule \"m\" {\n}\n", PM_MODEL_TEXT},
        {"\x08\x08\x12\x04hand", PM_MODEL_ONNX},
        {"\x7f" "ELF\x02\x01\x01\x01", PM_MODEL_ARTIFACT},
        {"hello world", PM_MODEL_UNKNOWN},
        {"", PM_MODEL_UNKNOWN},
    };
    pm_model_kind kind;
    for (size_t i = 0; i < PM_COUNT(cases); i++) {
        write_text("config.json", cases[i].text); // whatever it is called
        ck_assert_int_eq(pm_model_detect(diag, path_of("config.json"), &kind), PM_OK);
        ck_assert_int_eq(kind, cases[i].kind);
    }
    ck_assert_int_eq(pm_model_detect(diag, CLASSICS, &kind), PM_OK);
    ck_assert_int_eq(kind, PM_MODEL_CHECKPOINT);
    ck_assert_int_eq(pm_model_detect(diag, path_of("none"), &kind), PM_ERR_IO);
    ck_assert_int_eq(pm_model_detect(diag, PM_SOURCE_DIR "/base", &kind), PM_ERR_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *tc = tcase_create("all");
    int n_families = (int)PM_COUNT(families);
    tcase_set_timeout(tc, 300);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, test_family, 0, n_families);
    tcase_add_test(tc, test_classics);
    tcase_add_loop_test(tc, test_entries_agree, 0, n_families);
    tcase_add_loop_test(tc, test_greedy, 0, n_families);
    tcase_add_loop_test(tc, test_pairs, 0, (int)PM_COUNT(pairs));
    tcase_add_loop_test(tc, test_pairs_greedy, 0, (int)PM_COUNT(pairs));
    tcase_add_test(tc, test_pair_entries_agree);
    tcase_add_test(tc, test_weights_are_shared_ranges);
    tcase_add_test(tc, test_text_round_trip);
    tcase_add_test(tc, test_recipes);
    tcase_add_test(tc, test_fused_experts);
    tcase_add_test(tc, test_fused_experts_too_few);
    tcase_add_test(tc, test_fused_experts_too_many);
    tcase_add_test(tc, test_tied);
    tcase_add_test(tc, test_window);
    tcase_add_loop_test(tc, test_bad_config, 0, (int)PM_COUNT(bad_configs));
    tcase_add_test(tc, test_layer_types);
    tcase_add_test(tc, test_bad_tensors);
    tcase_add_test(tc, test_bad_codes);
    tcase_add_test(tc, test_extra_tensor);
    tcase_add_test(tc, test_meta_of_generation);
    tcase_add_test(tc, test_detect);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed == 0 ? 0 : 1;
}
