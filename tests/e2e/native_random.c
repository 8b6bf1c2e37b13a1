/// Random modules, compiled for real, against the interpreter: native_random [options]
///   --seeds N     how many modules (default 48); every one goes through all pipelines
///   --from SEED   the first seed (default 1)
///   --batch N     modules that are compiled as one (default 12)
///   --levels 03   optimisation levels (default 0123)
///   --keep DIR    where failing modules are written, as IR text (default: the current folder)
///   --case FILE   checks a module from a file instead (may be repeated)
/// Each batch is compiled and run in a process of its own; when that fails, its modules are tried
/// one by one, so that what crashes is found and the rest still counts.
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ir/text.h"
#include "passes/passes.h"
#include "pm/compiler.h"
#include "tests/e2e/e2e_model.h"
#include "tests/unit/random_graph.h"

enum { MAX_BATCH = 64, N_INPUTS = 3, MAX_CASES = 512, BROKEN = 1, REFUSED = 2 };

/// Of floats; random modules amplify rounding by some hundreds at most.
static const double tolerance = 1e-5;

typedef struct options {
    uint64_t seeds, from;
    int batch;
    const char *levels, *keep;
    const char *cases[MAX_CASES];
    int n_cases;
} options;

/// A module to check: of a seed, or of a file.
typedef struct subject {
    uint64_t seed;
    const char *file;
    char *text;
    pm_module *module;
} subject;

static char work_dir[64];

// ---- text ----

static char *read_text(const char *path)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (pm_read_file(path, &bytes, &size) != PM_OK)
        return NULL;
    bytes = realloc(bytes, size + 1);
    bytes[size] = '\0';
    return (char *)bytes;
}

static char *print_text(const pm_module *m)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_module_print(m, out);
    fclose(out);
    return text;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.';
}

/// True for a symbol that the module declares.
static bool is_symbol(const pm_module *m, const char *word, size_t n)
{
    for (size_t i = 0; i < m->symbols.n; i++)
        if (strlen(m->symbols.data[i].name) == n && memcmp(m->symbols.data[i].name, word, n) == 0)
            return true;
    return false;
}

/// Writes the statements of a module as part of a larger one: its symbols get a suffix, its entry
/// `main` becomes `e<number>`.
static void write_part(FILE *out, const subject *s, int number)
{
    const char *at = strchr(s->text, '{') + 1, *end = strrchr(s->text, '}');
    for (char before = ' '; at < end; before = at[-1]) {
        size_t n = 1;
        if (*at == '"') {
            while (at[n] != '"')
                n += at[n] == '\\' ? 2 : 1;
            fwrite(at, 1, n += 1, out);
        } else if (is_word(*at)) {
            while (is_word(at[n]))
                n++;
            fwrite(at, 1, n, out);
            if (before != '%' && is_symbol(s->module, at, n))
                fprintf(out, "_%d", number);
        } else {
            fputc(*at, out);
        }
        at += n;
        if (n == 5 && memcmp(at - 5, "entry", 5) == 0 && before != '%') {
            while (*at != '(')
                at++;
            fprintf(out, " e%d", number);
        }
    }
}

// ---- subjects ----

static unsigned kind_of(uint64_t seed)
{
    switch (seed % 5) {
    case 4: return RANDOM_MOST | RANDOM_CONTROL;
    case 0: return RANDOM_MOE;
    case 1: return RANDOM_MOST;
    case 2: return RANDOM_SYMBOLS | RANDOM_MOE;
    default: return RANDOM_SYMBOLS | RANDOM_INDEXED | RANDOM_OTHER_ELEMS;
    }
}

static pm_module *parse(pm_arena *arena, pm_diag *diag, const char *file, const char *text)
{
    pm_module *m = NULL;
    return pm_module_parse(arena, diag, file, text, strlen(text), NULL, &m) == PM_OK ? m : NULL;
}

/// The same module with symbols that may be 0, where it is still one that verifies. Reshapes take
/// an extent of 0 as it is then, not as a copy of the operand's. Ops that nobody uses go: compiled
/// code doesn't find what is at fault in them.
static void allow_empty(pm_arena *arena, subject *s)
{
    char *text = strdup(s->text);
    for (char *at = text; (at = strstr(at, "in [1,")) != NULL; at++)
        at[4] = '0';
    pm_module *m = parse(arena, pm_diag_create(arena), "m.pm", text);
    if (m == NULL)
        return;
    for (pm_op *op = m->entries.data[0]->first; op != NULL; op = op->next)
        if (op->code == PM_OP_reshape)
            pm_op_set_i64(op, "allowzero", 1);
    pm_pass_options options = {.quantize = "none"};
    pm_pass_run run = {.options = &options, .passes = "dce", .pass_limit = -1, .out = stderr};
    if (pm_passes_run(m, &run) != PM_OK)
        return;
    text = print_text(m);
    if ((m = parse(arena, pm_diag_create(arena), "m.pm", text)) != NULL) {
        s->module = m;
        s->text = text;
    }
}

/// Loads the subject into the arena; false with a message when that fails.
static bool load(pm_arena *arena, subject *s)
{
    pm_diag *diag = pm_diag_create(arena);
    if (s->file == NULL) {
        s->module = random_module_of(arena, diag, s->seed, kind_of(s->seed));
        if (s->module != NULL)
            s->text = print_text(s->module);
        if (s->module != NULL && s->seed % 5 == 0)
            allow_empty(arena, s);
    } else if ((s->text = read_text(s->file)) != NULL) {
        s->module = parse(arena, diag, s->file, s->text);
    }
    if (s->module == NULL)
        pm_diag_print(diag, stderr, false);
    return s->module != NULL && s->module->entries.n == 1;
}

static const char *name_of(const subject *s)
{
    static char name[64];
    snprintf(name, sizeof name, "seed %llu", (unsigned long long)s->seed);
    return s->file != NULL ? s->file : name;
}

// ---- running ----

/// Extents for the entry's symbols: small ones, the lower limits (0 where it is allowed), odd ones.
static pm_array *make_inputs(pm_arena *arena, const pm_graph *entry, uint64_t seed, int which)
{
    const pm_module *m = entry->module;
    random_state random = {seed * 977 + (uint64_t)which};
    int64_t *bindings = PM_NEW_ARRAY(arena, int64_t, m->symbols.n + 1);
    for (size_t i = 0; i < m->symbols.n; i++) {
        int64_t lo = m->symbols.data[i].lo, hi = m->symbols.data[i].hi;
        int64_t span = hi - lo < 40 ? hi - lo : 40;
        bindings[i] = which == 0 ? lo : lo + random_below(&random, (uint32_t)span + 1);
    }
    return random_inputs_bound(arena, entry, seed + (uint64_t)which, bindings);
}

static pm_tensor_arg to_arg(const pm_array *array)
{
    pm_tensor_arg arg = {.data = array->data,
                         .size = (size_t)array_count(array) * pm_elem_size(array->elem),
                         .rank = array->rank};
    memcpy(arg.dims, array->dims, sizeof array->dims);
    return arg;
}

static int complain(const subject *s, const char *how, const char *what)
{
    fprintf(stderr, "FAIL %s, %s: %s\n", name_of(s), how, what);
    return BROKEN;
}

/// One call. With `own_buffers`, results go to buffers of exactly the right size.
static int run_once(pm_arena *arena, const subject *s, const e2e_lib *lib, pm_session *session,
                    int number, const pm_array *inputs, const pm_array *want, bool own_buffers,
                    const char *how, pm_array *got)
{
    const pm_graph *entry = s->module->entries.data[0];
    size_t n_in = entry->args.n, n_out = entry->results.n;
    pm_tensor_arg *in = PM_NEW_ARRAY(arena, pm_tensor_arg, n_in + 1);
    pm_tensor_arg *out = PM_NEW_ARRAY(arena, pm_tensor_arg, n_out);
    bool *mine = PM_NEW_ARRAY(arena, bool, n_out);
    for (size_t i = 0; i < n_in; i++)
        in[i] = to_arg(&inputs[i]);
    for (size_t i = 0; i < n_out; i++) {
        pm_port_info port;
        if (lib->pm_model_output(lib->model, number, (int)i, &port) != PM_OK)
            return complain(s, how, lib->pm_last_error());
        mine[i] = own_buffers && want != NULL && !port.data_dependent;
        if (mine[i]) {
            out[i] = to_arg(&want[i]);
            out[i].data = pm_arena_alloc(arena, out[i].size + 64, 64);
            memset(out[i].data, 0xa5, out[i].size + 64);
        }
    }
    pm_status status = lib->pm_session_run(session, number, in, (int)n_in, out, (int)n_out);
    if (want == NULL && status != PM_ERR_INVALID) { // the interpreter refused these inputs
        pm_diag_print(s->module->diag, stderr, false);
        return complain(s, how, "inputs that the interpreter refuses ran");
    }
    if (want == NULL)
        return 0;
    if (status != PM_OK)
        return complain(s, how, lib->pm_last_error());
    for (size_t i = 0; i < n_out; i++) {
        got[i] = want[i];
        got[i].rank = out[i].rank;
        memcpy(got[i].dims, out[i].dims, sizeof got[i].dims);
        size_t size = (size_t)array_count(&got[i]) * pm_elem_size(got[i].elem);
        got[i].data = pm_arena_alloc(arena, size + 1, 64);
        if (size > 0)
            memcpy(got[i].data, out[i].data, size);
        const char *why = arrays_differ(arena, &want[i], &got[i], tolerance);
        if (why != NULL)
            return complain(s, how, pm_arena_printf(arena, "result %zu: %s", i, why));
        for (size_t k = 0; mine[i] && k < 64; k++)
            if (((uint8_t *)out[i].data)[size + k] != 0xa5)
                return complain(s, how, "written past the end of a buffer");
    }
    return 0;
}

static int run_subject(const subject *s, const e2e_lib *lib, pm_session *const sessions[2],
                       int number, const char *how)
{
    const pm_graph *entry = s->module->entries.data[0];
    int result = 0;
    for (int which = 0; which < N_INPUTS && result == 0; which++) {
        pm_arena *arena = pm_arena_create();
        pm_array *inputs = make_inputs(arena, entry, s->seed, which);
        pm_array *want = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
        pm_array *got[2];
        if (pm_interpret(arena, entry, inputs, entry->args.n, want) != PM_OK)
            want = NULL;
        for (int t = 0; t < 2 && result == 0; t++) {
            char text[128];
            snprintf(text, sizeof text, "%s, inputs %d, %s", how, which,
                     t == 0 ? "one thread" : "several threads");
            got[t] = PM_NEW_ARRAY(arena, pm_array, entry->results.n);
            result = run_once(arena, s, lib, sessions[t], number, inputs, want, t == which % 2,
                              text, got[t]);
        }
        for (size_t i = 0; want != NULL && result == 0 && i < entry->results.n; i++)
            if (memcmp(got[0][i].data, got[1][i].data, to_arg(&got[0][i]).size) != 0)
                result = complain(s, how, "the number of threads changes bits");
        pm_arena_destroy(arena);
    }
    return result;
}

static int run_library(subject *subjects, int n, const char *path, const char *how)
{
    e2e_lib lib;
    char why[256];
    pm_status status;
    pm_session *sessions[2] = {NULL, NULL};
    int result = 0;
    if (!e2e_open(&lib, path, "batch", why, &status))
        return complain(&subjects[0], how, why);
    for (int t = 0; t < 2; t++) {
        int more = subjects[0].seed % 7 == 0 ? 5 : 2;
        pm_session_options options = {.struct_size = sizeof options, .threads = t == 0 ? 1 : more};
        if (lib.pm_session_create(lib.model, &options, &sessions[t]) != PM_OK)
            return complain(&subjects[0], how, lib.pm_last_error());
    }
    for (int i = 0; i < n; i++)
        result |= run_subject(&subjects[i], &lib, sessions, i, how);
    for (int t = 0; t < 2; t++)
        lib.pm_session_destroy(sessions[t]);
    e2e_close(&lib);
    return result;
}

/// Compiles the subjects as one module at one level, and runs them. REFUSED when the compiler says
/// that it does not support something.
static int check_batch(subject *subjects, int n, char level)
{
    char model[128], library[128], how[64];
    snprintf(model, sizeof model, "%s/m.pm", work_dir);
    snprintf(library, sizeof library, "%s/m.so", work_dir);
    // every third batch for the other kind of vectors
    const char *target = subjects[0].seed / 7 % 3 == 0 ? "x86-64-v3" : "native";
    snprintf(how, sizeof how, "-O%c for %s", level, target);
    FILE *out = fopen(model, "w");
    fputs("module \"batch\" {", out);
    for (int i = 0; i < n; i++)
        write_part(out, &subjects[i], i);
    fputs("}\n", out);
    fclose(out);
    char *words = NULL;
    size_t n_words = 0;
    FILE *messages = open_memstream(&words, &n_words);
    pm_compile_options options = {.struct_size = sizeof options,
                                  .emit = PM_EMIT_SHARED,
                                  .target = target,
                                  .symbol = "batch",
                                  .opt_level = level - '0',
                                  .verify_each = 1};
    pm_status status = pm_compile(model, library, &options, messages, 0, NULL);
    fclose(messages);
    int result = 0;
    if (status == PM_ERR_UNSUPPORTED) {
        if (n == 1)
            fprintf(stderr, "refused: %s: %s", name_of(&subjects[0]), words);
        result = REFUSED;
    } else if (status != PM_OK) {
        result = n == 1 ? complain(&subjects[0], how, words) : BROKEN;
    } else {
        result = run_library(subjects, n, library, how);
    }
    free(words);
    return result;
}

// ---- processes ----

/// Checks in a process of its own. Returns BROKEN when it crashed, too.
static int in_child(subject *subjects, int n, char level, bool quiet)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        pm_arena *arena = pm_arena_create();
        int result = 0;
        if (quiet && freopen("/dev/null", "w", stderr) == NULL)
            _exit(3);
        alarm(120);
        for (int i = 0; i < n; i++)
            if (!load(arena, &subjects[i]))
                result |= complain(&subjects[i], "generator", "no module");
        if (result == 0)
            result = check_batch(subjects, n, level);
        fflush(NULL);
        _exit(result);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return BROKEN;
    if (!WIFEXITED(status) && n == 1)
        fprintf(stderr, "FAIL %s, -O%c: ended by signal %d\n", name_of(&subjects[0]), level,
                WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : BROKEN;
}

static void keep(const options *o, const subject *s)
{
    char path[4200];
    subject again = *s;
    pm_arena *arena = pm_arena_create();
    if (s->file == NULL && load(arena, &again)) {
        snprintf(path, sizeof path, "%s/seed-%llu.pm", o->keep, (unsigned long long)s->seed);
        FILE *out = fopen(path, "w");
        if (out != NULL) {
            fprintf(out, "// native_random --from %llu --seeds 1\n%s", (unsigned long long)s->seed,
                    again.text);
            fclose(out);
            fprintf(stderr, "written: %s\n", path);
        }
    }
    pm_arena_destroy(arena);
}

static int failures, refused, checked;

static void check(const options *o, subject *subjects, int n)
{
    for (const char *level = o->levels; *level != '\0'; level++) {
        if (in_child(subjects, n, *level, true) == 0) {
            checked += n;
            continue;
        }
        for (int i = 0; i < n; i++) { // (again, when there is one only: for its words)
            int result = in_child(&subjects[i], 1, *level, false);
            checked++;
            refused += result == REFUSED;
            if (result != 0 && result != REFUSED) {
                failures++;
                keep(o, &subjects[i]);
            }
        }
    }
}

static void remove_work_dir(void)
{
    DIR *dir = opendir(work_dir);
    char path[400];
    for (struct dirent *file; dir != NULL && (file = readdir(dir)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", work_dir, file->d_name);
        (void)unlink(path); // but for . and ..
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(work_dir);
}

static bool read_options(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value == NULL)
            return false;
        if (strcmp(argv[i], "--seeds") == 0)
            o->seeds = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--from") == 0)
            o->from = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--batch") == 0)
            o->batch = atoi(value);
        else if (strcmp(argv[i], "--levels") == 0)
            o->levels = value;
        else if (strcmp(argv[i], "--keep") == 0)
            o->keep = value;
        else if (strcmp(argv[i], "--case") == 0 && o->n_cases < MAX_CASES)
            o->cases[o->n_cases++] = value;
        else
            return false;
    }
    return o->batch > 0 && o->batch <= MAX_BATCH;
}

int main(int argc, char **argv)
{
    options o = {.seeds = 48, .from = 1, .batch = 12, .levels = "0123", .keep = "."};
    if (!read_options(argc, argv, &o)) {
        fprintf(stderr,
                "usage: native_random [--seeds N] [--from SEED] [--batch N] [--levels 0123] "
                "[--keep DIR] [--case FILE]...\n");
        return 2;
    }
    snprintf(work_dir, sizeof work_dir, "/tmp/native-random-XXXXXX");
    if (mkdtemp(work_dir) == NULL)
        return 3;
    subject subjects[MAX_BATCH];
    uint64_t total = o.n_cases > 0 ? (uint64_t)o.n_cases : o.seeds;
    for (uint64_t done = 0; done < total;) {
        int n = 0;
        for (; n < o.batch && done < total; n++, done++)
            subjects[n] = o.n_cases > 0 ? (subject){.seed = done, .file = o.cases[done]}
                                        : (subject){.seed = o.from + done};
        check(&o, subjects, n);
    }
    remove_work_dir();
    printf("%d modules and pipelines checked, %d refused, %d failed\n", checked, refused, failures);
    return failures != 0;
}
