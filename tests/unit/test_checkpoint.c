// frontend/checkpoint: families against the reference implementation, entries against each other,
// layouts of the experts, and what is refused.

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/tokenizer_format.h"
#include "frontend/checkpoint/recipe.h"
#include "frontend/checkpoint/safetensors.h"
#include "frontend/frontend.h"
#include "ir/text.h"
#include "tests/unit/npz.h"

#define DATA PM_SOURCE_DIR "/tests/data/checkpoints/"
#define CLASSICS PM_SOURCE_DIR "/samples/classics"

static pm_arena *arena;
static pm_diag *diag;
static char folder[64];

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    strcpy(folder, "/tmp/pm_checkpoint_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static const char *path_of(const char *name)
{
    return pm_path_join(arena, folder, name);
}

static void teardown(void)
{
    static const char *const names[] = {"model.safetensors", "config.json", "tokenizer.json",
                                        "generation_config.json"};
    for (size_t i = 0; i < PM_COUNT(names); i++)
        unlink(path_of(names[i]));
    ck_assert_int_eq(rmdir(folder), 0);
    pm_arena_destroy(arena);
}

static char *messages(void)
{
    char *all = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&all, &n);
    pm_diag_print(diag, out, false);
    fclose(out);
    char *copy = pm_arena_strdup(arena, all);
    free(all);
    return copy;
}

static pm_module *load(const char *path)
{
    pm_module *m;
    ck_assert_msg(pm_checkpoint_load(arena, diag, path, &m) == PM_OK, "%s", messages());
    return m;
}

static const pm_graph *entry_of(const pm_module *m, const char *name)
{
    for (size_t i = 0; i < m->entries.n; i++)
        if (strcmp(m->entries.data[i]->name, name) == 0)
            return m->entries.data[i];
    ck_abort_msg("no entry %s", name);
}

static void run(const pm_graph *entry, const pm_array *in, size_t n, pm_array *out)
{
    ck_assert_msg(pm_interpret(arena, entry, in, n, out) == PM_OK, "%s", messages());
}

/// Largest difference, relative to the largest wanted value.
static double difference(const float *got, const float *want, int64_t n)
{
    double most = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        ck_assert(isfinite(got[i]));
        most = fmax(most, fabs((double)got[i] - want[i]));
        scale = fmax(scale, fabs(want[i]));
    }
    return most / scale;
}

static pm_array logits_of(const pm_module *m, const pm_array *ids)
{
    pm_array out;
    run(entry_of(m, "forward"), ids, 1, &out);
    return out;
}

static void expect_logits(const pm_module *m, const char *reference, const char *ids,
                          const char *logits)
{
    pm_array in = npz_get(arena, diag, reference, ids);
    pm_array want = npz_get(arena, diag, reference, logits);
    pm_array got = logits_of(m, &in);
    ck_assert(got.rank == 3 && npz_count(&got) == npz_count(&want));
    double d = difference(got.data, want.data, npz_count(&want));
    ck_assert_msg(d < 1e-5, "%s %s: %g", reference, ids, d);
}

// ---- numbers ----

static const char *const families[] = {"mixtral",  "qwen2_moe",        "qwen3_moe", "olmoe",
                                       "lfm2_moe", "granitemoehybrid", "qwen3_next", "qwen3_5_moe_text",
                                       "jamba",    "nemotron_h",       "bailing_hybrid",
                                       "gpt_oss_mxfp4"};

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

/// Inputs of prefill or decode: ids, past, states.
typedef struct session {
    const pm_module *m;
    pm_array *states;
    int64_t batch;
    int64_t past[4];
} session;

static session start(const pm_module *m, int64_t batch, int64_t capacity)
{
    session s = {.m = m, .batch = batch};
    s.states = PM_NEW_ARRAY(arena, pm_array, m->states.n);
    int64_t *bindings = PM_NEW_ARRAY(arena, int64_t, m->symbols.n);
    for (size_t i = 0; i < m->symbols.n; i++) {
        const char *name = m->symbols.data[i].name;
        bindings[i] = strcmp(name, "B") == 0 ? batch : strcmp(name, "C") == 0 ? capacity : -1;
    }
    for (size_t i = 0; i < m->states.n; i++) {
        const pm_type *t = m->states.data[i].type;
        pm_array *a = &s.states[i];
        *a = (pm_array){.elem = t->elem, .rank = t->rank};
        for (int32_t d = 0; d < t->rank; d++)
            ck_assert(pm_dim_eval(m, t->dims[d], bindings, &a->dims[d]));
        a->data = pm_arena_array(arena, (size_t)npz_count(a), sizeof(float), 64);
        // what was never written must not count
        for (int64_t k = 0; k < npz_count(a); k++)
            ((float *)a->data)[k] = NAN;
    }
    return s;
}

/// Runs `n` tokens of each row through the entry; returns the logits of the last ones [batch, V].
static pm_array step(session *s, const char *name, const int64_t *ids, int64_t n)
{
    const pm_graph *entry = entry_of(s->m, name);
    size_t n_in = 2 + s->m->states.n;
    pm_array *in = PM_NEW_ARRAY(arena, pm_array, n_in), *out = PM_NEW_ARRAY(arena, pm_array, n_in);
    ck_assert_uint_eq(entry->args.n, n_in);
    ck_assert_uint_eq(entry->results.n, n_in - 1);
    in[0] = (pm_array){.elem = PM_I64, .rank = 2, .dims = {s->batch, n}, .data = (void *)(uintptr_t)ids};
    in[1] = (pm_array){.elem = PM_I64, .rank = 1, .dims = {s->batch}, .data = s->past};
    memcpy(in + 2, s->states, s->m->states.n * sizeof *in);
    run(entry, in, n_in, out);
    for (size_t i = 0; i < s->m->states.n; i++) {
        ck_assert_int_eq(entry->arg_states.data[2 + i], (int32_t)i);
        ck_assert_int_eq(entry->result_states.data[1 + i], (int32_t)i);
        s->states[i] = out[1 + i];
    }
    for (int64_t b = 0; b < s->batch; b++)
        s->past[b] += n;
    return out[0];
}

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

/// A copy of a checkpoint's tensors that tests change.
typedef struct tensor {
    const char *name, *dtype;
    int32_t rank;
    int64_t dims[4];
    size_t size;
    const uint8_t *bytes;
} tensor;
typedef PM_VEC(tensor) tensor_vec;

static tensor_vec read_tensors(const char *family)
{
    pm_safetensors *set;
    tensor_vec v = {0};
    const char *path = pm_arena_printf(arena, DATA "%s", family);
    ck_assert_int_eq(pm_safetensors_open(arena, diag, path, &set), PM_OK);
    for (size_t i = 0; i < set->tensors.n; i++) {
        const pm_safetensor *t = set->tensors.entries[i].value;
        uint8_t *bytes = pm_arena_alloc(arena, t->size, 8);
        tensor copy = {.name = t->name, .dtype = t->dtype, .rank = t->rank, .size = t->size,
                       .bytes = bytes};
        memcpy(copy.dims, t->dims, (size_t)t->rank * sizeof *copy.dims);
        ck_assert_int_eq(pm_file_read(diag, t->file, t->offset, bytes, t->size), PM_OK);
        PM_PUSH(arena, &v, copy);
    }
    return v;
}

static tensor *find(tensor_vec *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->data[i].name, name) == 0)
            return &v->data[i];
    ck_abort_msg("no tensor %s", name);
}

static void write_tensors(const tensor_vec *v)
{
    char *header = NULL;
    size_t n = 0, at = 0;
    FILE *text = open_memstream(&header, &n);
    fputc('{', text);
    for (size_t i = 0; i < v->n; i++) {
        const tensor *t = &v->data[i];
        fprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i > 0 ? "," : "", t->name, t->dtype);
        for (int32_t d = 0; d < t->rank; d++)
            fprintf(text, "%s%lld", d > 0 ? "," : "", (long long)t->dims[d]);
        fprintf(text, "],\"data_offsets\":[%zu,%zu]}", at, at + t->size);
        at += t->size;
    }
    fputc('}', text);
    fclose(text);
    FILE *out = fopen(path_of("model.safetensors"), "wb");
    ck_assert_ptr_nonnull(out);
    for (int i = 0; i < 8; i++)
        fputc((int)((uint64_t)n >> (8 * i) & 255), out);
    fwrite(header, 1, n, out);
    for (size_t i = 0; i < v->n; i++)
        fwrite(v->data[i].bytes, 1, v->data[i].size, out);
    ck_assert_int_eq(fclose(out), 0);
    free(header);
}

static void write_text(const char *name, const char *text)
{
    FILE *out = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(out);
    fputs(text, out);
    ck_assert_int_eq(fclose(out), 0);
}

/// config.json becomes the file at `path` with one piece of text replaced.
static void replace_in_config(const char *path, const char *old, const char *with)
{
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, path, &file), PM_OK);
    char *text = pm_arena_alloc(arena, file->size + 1, 1);
    ck_assert_int_eq(pm_file_read(diag, file, 0, text, file->size), PM_OK);
    if (old == NULL) {
        write_text("config.json", text);
        return;
    }
    char *at = strstr(text, old);
    ck_assert_msg(at != NULL, "no '%s' in %s", old, path);
    *at = '\0';
    write_text("config.json", pm_arena_printf(arena, "%s%s%s", text, with, at + strlen(old)));
}

static void write_config(const char *family, const char *old, const char *with)
{
    replace_in_config(pm_arena_printf(arena, DATA "%s/config.json", family), old, with);
}

// ---- checkpoints whose weights are made here ----

static uint64_t splitmix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/// The tensor that a line of a list describes, as tests/tools/make_checkpoint_cases.py does.
static tensor made_tensor(char *line)
{
    tensor t = {.name = pm_arena_strdup(arena, strtok(line, " ")), .dtype = "F32"};
    float center = strtof(strtok(NULL, " "), NULL), spread = strtof(strtok(NULL, " "), NULL);
    uint64_t seed = 0xcbf29ce484222325;
    size_t n = 1;
    for (const char *c = t.name; *c != '\0'; c++)
        seed = (seed ^ (uint8_t)*c) * 0x100000001b3;
    for (const char *dim; (dim = strtok(NULL, " \n")) != NULL; n *= (size_t)t.dims[t.rank++])
        t.dims[t.rank] = strtoll(dim, NULL, 10);
    float *values = PM_NEW_ARRAY(arena, float, n);
    for (size_t i = 0; i < n; i++)
        values[i] = center + spread * ((float)(splitmix(seed + i) >> 40) / 0x1p23f - 1.0f);
    t.bytes = (const uint8_t *)values;
    t.size = n * sizeof *values;
    return t;
}

static void make_checkpoint(const char *name)
{
    tensor_vec v = {0};
    char line[512];
    FILE *list = fopen(pm_arena_printf(arena, DATA "made/%s/%s.txt", name, name), "r");
    ck_assert_ptr_nonnull(list);
    while (fgets(line, sizeof line, list) != NULL)
        PM_PUSH(arena, &v, made_tensor(line));
    fclose(list);
    write_tensors(&v);
    replace_in_config(pm_arena_printf(arena, DATA "made/%s/config.json", name), NULL, NULL);
}

static const char *const made[] = {
    "afmoe", "aria_text", "cohere2_moe", "cohere2_moe-softmax", "dbrx", "deepseek_v2", "deepseek_v2-lite",
    "deepseek_v3", "dots1", "ernie4_5_moe", "exaone_moe", "flex_olmo", "gemma4_text", "glm4_moe",
    "glm4_moe_lite", "gpt_oss", "granitemoeshared", "hunyuan_v1_moe", "jetmoe", "kimi_k2", "llama4_text",
    "longcat_flash", "mellum", "mimo_v2_flash", "minimax_m2", "mixtral-linear", "mixtral-longrope",
    "olmoe-clipped", "phimoe", "phimoe-longrope", "qwen2_moe-yarn", "qwen3_moe-llama3", "solar_open"};

START_TEST(test_made)
{
    const char *reference = pm_arena_printf(arena, DATA "made/%s/reference.npz", made[_i]);
    make_checkpoint(made[_i]);
    pm_module *m = load(folder);
    expect_logits(m, reference, "input_ids", "logits");
    expect_logits(m, reference, "input_ids_b", "logits_b");
}
END_TEST

/// Greedy decoding with the caches goes on as the reference implementation does.
START_TEST(test_made_greedy)
{
    const char *reference = pm_arena_printf(arena, DATA "made/%s/reference.npz", made[_i]);
    make_checkpoint(made[_i]);
    pm_module *m = load(folder);
    pm_array ids = npz_get(arena, diag, reference, "input_ids");
    pm_array want = npz_get(arena, diag, reference, "greedy");
    session s = start(m, 1, 48);
    // In two pieces: the second sees the caches. With longrope, keys of a piece within the original context
    // are turned otherwise than those of the whole, which goes beyond it.
    int64_t half = strstr(made[_i], "longrope") != NULL ? 0 : ids.dims[1] / 2;
    if (half > 0)
        step(&s, "prefill", ids.data, half);
    pm_array logits = step(&s, "prefill", (int64_t *)ids.data + half, ids.dims[1] - half);
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

static void expect_refused(const char *error)
{
    pm_module *m;
    ck_assert_msg(pm_checkpoint_load(arena, diag, folder, &m) != PM_OK, "accepted; expected: %s",
                  error);
    ck_assert_ptr_null(m);
    const char *all = messages();
    ck_assert_msg(strstr(all, error) != NULL, "expected '%s' in:\n%s", error, all);
}

/// A family without a recipe: the nearest one, and what it lacks.
START_TEST(test_unknown_family)
{
    tensor_vec v = read_tensors("olmoe");
    tensor extra = *find(&v, "model.norm.weight");
    extra.name = "model.layers.1.self_attn.warp.weight";
    PM_PUSH(arena, &v, extra);
    write_tensors(&v);
    write_config("olmoe", "\"model_type\": \"olmoe\"", "\"model_type\": \"brandnew\", \"warp_factor\": 9");
    expect_refused("no recipe for models of type 'brandnew'");
    const char *all = messages();
    ck_assert_msg(strstr(all, "nearest by its tensors is the recipe 'olmoe'") != NULL, "%s", all);
    ck_assert_msg(strstr(all, "no place in it: model.layers.N.self_attn.warp.weight") != NULL, "%s", all);
    ck_assert_msg(strstr(all, "doesn't read: warp_factor\n") != NULL, "%s", all);
}
END_TEST

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
    {"mixtral", "\"use_cache\": true", "\"quantization_config\": {\"quant_method\": \"fp8\"}",
     "the weights are quantised (fp8)"},
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
    tcase_add_test(tc, test_unknown_family);
    tcase_add_loop_test(tc, test_made, 0, PM_COUNT(made));
    tcase_add_loop_test(tc, test_made_greedy, 0, PM_COUNT(made));
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
