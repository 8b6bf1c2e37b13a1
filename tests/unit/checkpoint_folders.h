/// What tests of checkpoints share: running modules, sessions with states, and folders of their own.
#ifndef PM_TESTS_CHECKPOINT_FOLDERS_H
#define PM_TESTS_CHECKPOINT_FOLDERS_H

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

#ifndef PM_SOURCE_DIR // the header by itself
#define PM_SOURCE_DIR "."
#endif
#define DATA PM_SOURCE_DIR "/tests/data/checkpoints/"
#define CLASSICS PM_SOURCE_DIR "/samples/classics"

static pm_arena *arena;
static pm_diag *diag;
static char folder[64];

static inline void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    strcpy(folder, "/tmp/pm_checkpoint_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static inline const char *path_of(const char *name)
{
    return pm_path_join(arena, folder, name);
}

static inline void teardown(void)
{
    static const char *const names[] = {"model.safetensors", "config.json", "tokenizer.json",
                                        "generation_config.json"};
    for (size_t i = 0; i < PM_COUNT(names); i++)
        unlink(path_of(names[i]));
    ck_assert_int_eq(rmdir(folder), 0);
    pm_arena_destroy(arena);
}

static inline char *messages(void)
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

static inline pm_module *load(const char *path)
{
    pm_module *m;
    ck_assert_msg(pm_checkpoint_load(arena, diag, path, &m) == PM_OK, "%s", messages());
    return m;
}

static inline const pm_graph *entry_of(const pm_module *m, const char *name)
{
    for (size_t i = 0; i < m->entries.n; i++)
        if (strcmp(m->entries.data[i]->name, name) == 0)
            return m->entries.data[i];
    ck_abort_msg("no entry %s", name);
}

static inline void run(const pm_graph *entry, const pm_array *in, size_t n, pm_array *out)
{
    ck_assert_msg(pm_interpret(arena, entry, in, n, out) == PM_OK, "%s", messages());
}

/// Largest difference, relative to the largest wanted value.
static inline double difference(const float *got, const float *want, int64_t n)
{
    double most = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        ck_assert(isfinite(got[i]));
        most = fmax(most, fabs((double)got[i] - want[i]));
        scale = fmax(scale, fabs(want[i]));
    }
    return most / scale;
}

static inline pm_array logits_of(const pm_module *m, const pm_array *ids)
{
    pm_array out;
    run(entry_of(m, "forward"), ids, 1, &out);
    return out;
}

static inline void expect_logits(const pm_module *m, const char *reference, const char *ids,
                          const char *logits)
{
    pm_array in = npz_get(arena, diag, reference, ids);
    pm_array want = npz_get(arena, diag, reference, logits);
    pm_array got = logits_of(m, &in);
    ck_assert(got.rank == 3 && npz_count(&got) == npz_count(&want));
    double d = difference(got.data, want.data, npz_count(&want));
    ck_assert_msg(d < 1e-5, "%s %s: %g", reference, ids, d);
}

/// Inputs of prefill or decode: ids, past, states.
typedef struct session {
    const pm_module *m;
    pm_array *states;
    int64_t batch;
    int64_t past[4];
} session;

static inline session start(const pm_module *m, int64_t batch, int64_t capacity)
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
static inline pm_array step(session *s, const char *name, const int64_t *ids, int64_t n)
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

/// A copy of a checkpoint's tensors that tests change.
typedef struct tensor {
    const char *name, *dtype;
    int32_t rank;
    int64_t dims[4];
    size_t size;
    const uint8_t *bytes;
} tensor;
typedef PM_VEC(tensor) tensor_vec;

static inline tensor_vec read_tensors(const char *family)
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

static inline uint64_t splitmix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/// The tensor that a line of a list describes, as tests/tools/make_checkpoint_cases.py does.
static inline tensor made_tensor(char *line)
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

/// The tensors of a checkpoint of tests/data/checkpoints/made.
static inline tensor_vec made_tensors(const char *name)
{
    tensor_vec v = {0};
    char line[512];
    FILE *list = fopen(pm_arena_printf(arena, DATA "made/%s/%s.txt", name, name), "r");
    ck_assert_ptr_nonnull(list);
    while (fgets(line, sizeof line, list) != NULL)
        PM_PUSH(arena, &v, made_tensor(line));
    fclose(list);
    return v;
}

static inline tensor *find(tensor_vec *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->data[i].name, name) == 0)
            return &v->data[i];
    ck_abort_msg("no tensor %s", name);
}

static inline void write_tensors(const tensor_vec *v)
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

static inline void write_text(const char *name, const char *text)
{
    FILE *out = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(out);
    fputs(text, out);
    ck_assert_int_eq(fclose(out), 0);
}

/// config.json becomes the file at `path` with one piece of text replaced.
static inline void replace_in_config(const char *path, const char *old, const char *with)
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

static inline void write_config(const char *family, const char *old, const char *with)
{
    replace_in_config(pm_arena_printf(arena, DATA "%s/config.json", family), old, with);
}

static inline void expect_refused(const char *error)
{
    pm_module *m;
    ck_assert_msg(pm_checkpoint_load(arena, diag, folder, &m) != PM_OK, "accepted; expected: %s",
                  error);
    ck_assert_ptr_null(m);
    const char *all = messages();
    ck_assert_msg(strstr(all, error) != NULL, "expected '%s' in:\n%s", error, all);
}

#endif
