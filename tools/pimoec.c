/// pimoec: the compiler.
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/containers.h"
#include "base/file.h"
#include "tools/cli/bug_report.h"
#include "tools/cli/cli_options.h"
#include "tools/cli/progress.h"
#include "tools/driver/driver.h"

/// "models/digits.onnx" -> "digits" with the kind's usual ending.
static const char *default_output(pm_arena *arena, const char *path, pm_emit emit)
{
    static const char *const endings[] = {"", ".o", ".a", ".so", ".h", ".pm", ".mlir", ".ll", ".s", ".ptx", ".cubin"};
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/')
        from--;
    size_t length = n - from, dot = length;
    for (size_t i = 1; i < length; i++)
        if (path[from + i] == '.')
            dot = i;
    if (length == 0 || strncmp(path + from, ".", length) == 0 || strncmp(path + from, "..", length) == 0) {
        from = 0;
        length = dot = strlen("model");
        path = "model";
    }
    char *name = pm_arena_printf(arena, "%s%.*s%s", emit == PM_EMIT_LIB || emit == PM_EMIT_SHARED ? "lib" : "",
                                 (int)dot, path + from, endings[emit]);
    // never over the model itself, nor where a folder stands
    struct stat there;
    if (strcmp(name, path) == 0 || (stat(name, &there) == 0 && S_ISDIR(there.st_mode)))
        name = pm_arena_printf(arena, "%s.out", name);
    return name;
}

static void print_result(pm_arena *arena, const pm_compile_result *r, const char *output, const char *emit,
                         const char *messages, size_t size)
{
    pm_json_out w = {.out = stdout};
    pm_jo_object(&w, NULL);
    pm_jo_int(&w, "schema_version", 1);
    pm_jo_bool(&w, "ok", true);
    pm_jo_text(&w, "output", output);
    pm_jo_text(&w, "emit", emit);
    pm_jo_int(&w, "entries", r->n_entries);
    pm_jo_int(&w, "moe_layers", r->n_moe_layers);
    pm_jo_int(&w, "experts", r->n_experts);
    pm_jo_int(&w, "experts_total", r->n_experts_total);
    pm_jo_int(&w, "dispatches", r->n_dispatches);
    pm_jo_int(&w, "reference_dispatches", r->n_reference);
    pm_jo_uint(&w, "payload_bytes", r->payload_bytes);
    pm_jo_uint(&w, "code_bytes", r->code_bytes);
    pm_jo_object(&w, "ms");
    pm_jo_ms(&w, "frontend", r->frontend_ms);
    pm_jo_ms(&w, "passes", r->passes_ms);
    pm_jo_ms(&w, "codegen", r->codegen_ms);
    pm_jo_ms(&w, "link", r->link_ms);
    pm_jo_ms(&w, "total", r->total_ms);
    pm_jo_end(&w);
    pm_jo_warnings(&w, arena, messages, size);
    pm_jo_end(&w);
}

static int check_code(const pm_cli_args *a)
{
    const pm_cli_command *c = a->command;
    const char *quantize = a->value[C_QUANTIZE];
    if (quantize && (strcmp(quantize, "int8") == 0 || strcmp(quantize, "int4") == 0))
        return pm_cli_usage(c, "--quantize=%s is not there yet; there are: none, bf16", quantize);
    if (quantize && strcmp(quantize, "none") != 0 && strcmp(quantize, "bf16") != 0)
        return pm_cli_usage(c, "--quantize=%s: there is no such kind; there are: none, bf16", quantize);
    if (a->count[C_CALIBRATE])
        return pm_cli_usage(c, "--calibrate is for --quantize=int8 and int4, which are not there yet");
    return -1;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

/// Options that contradict each other; -1 or an exit code.
static int check_together(const pm_cli_args *a, const pm_compile_options *o)
{
    const pm_cli_command *c = a->command;
    const char *emit = pm_emit_words[o->emit], *output = a->value[C_OUTPUT];
    bool binary = o->emit <= PM_EMIT_SHARED || o->emit == PM_EMIT_CUBIN, unplanned = o->emit == PM_EMIT_IR || o->emit == PM_EMIT_HEADER;
    if (a->count[C_QUIET] && a->count[C_VERBOSE])
        return pm_cli_usage(c, "-q and -v contradict each other");
    if (a->count[C_PASSES] && a->count[C_LEVEL])
        return pm_cli_usage(c, "--passes and -O%s both say which passes run", a->value[C_LEVEL]);
    if (output && strcmp(output, "-") == 0 && binary)
        return pm_cli_usage(c, "--emit=%s can't go to standard output: name a file with -o", emit);
    if (output && strcmp(output, "-") == 0 && a->count[C_JSON])
        return pm_cli_usage(c, "-o - and --json both want standard output");
    if (a->count[C_SYMBOL] && (o->emit == PM_EMIT_EXE || o->emit == PM_EMIT_IR))
        return pm_cli_usage(c, "--symbol names the model in a library; --emit=%s has no such name", emit);
    if ((a->count[C_STOP_AFTER] || a->count[C_PASS_LIMIT]) && !unplanned)
        return pm_cli_usage(c, "--%s leaves an unfinished module, of which no code can be made: use --emit=ir",
                            a->count[C_STOP_AFTER] ? "stop-after" : "pass-limit");
    if (o->report && !ends_with(o->report, ".html") && !ends_with(o->report, ".json"))
        return pm_cli_usage(c, "--report=%s: the name ends in .html or .json", o->report);
    for (const char *s = o->symbol; s && *s; s++)
        if (!(isalpha((unsigned char)*s) || *s == '_' || (s > o->symbol && isdigit((unsigned char)*s))))
            return pm_cli_usage(c, "--symbol=%s is no name in C", o->symbol);
    return -1;
}

/// Options from the command line; -1 or an exit code.
static int take(pm_arena *arena, const pm_cli_args *a, pm_compile_options *o)
{
    int code = check_code(a);
    long long limit = 0;
    if (code >= 0)
        return code;
    if (a->value[C_EMIT] && !pm_emit_parse(a->value[C_EMIT], &o->emit))
        return pm_cli_usage(a->command, "--emit=%s is not there yet", a->value[C_EMIT]);
    if (!pm_cli_int(a, C_PASS_LIMIT, 0, 1000000, &limit))
        return 2;
    o->target = pm_cli_joined(arena, a, C_TARGET);
    o->quantize = a->value[C_QUANTIZE];
    o->entry = a->value[C_ENTRY];
    o->place = a->value[C_PLACE];
    o->symbol = a->value[C_SYMBOL];
    o->opt_level = a->value[C_LEVEL] ? a->value[C_LEVEL][0] - '0' : -1;
    o->passes = a->value[C_PASSES];
    o->print_before = a->count[C_PRINT_ALL] ? "all" : a->value[C_PRINT_BEFORE];
    o->print_after = a->count[C_PRINT_ALL] ? "all" : a->value[C_PRINT_AFTER];
    o->dump_dir = a->value[C_DUMP_DIR];
    o->stop_after = a->value[C_STOP_AFTER];
    o->report = a->value[C_REPORT];
    o->print_changed = a->count[C_PRINT_CHANGED];
    o->verify_each = a->count[C_VERIFY];
    o->time_passes = a->count[C_TIME_PASSES];
    o->stats = a->count[C_STATS];
    o->pass_limit = (long)limit;
    o->has_pass_limit = a->count[C_PASS_LIMIT];
    return check_together(a, o);
}

static pm_status compile(pm_arena *arena, const pm_cli_args *a, pm_compile_options *o)
{
    const char *model = a->operands[0], *output = a->value[C_OUTPUT];
    bool json = a->count[C_JSON];
    if (!output)
        output = default_output(arena, model, o->emit);
    char *messages = NULL;
    size_t size = 0;
    FILE *sink = json ? open_memstream(&messages, &size) : stderr;
    if (!sink)
        pm_arena_out_of_memory(arena);
    pm_compile_result result = {0};
    bool talks = o->print_before || o->print_after || o->print_changed || o->time_passes || o->stats;
    pm_progress *progress = pm_progress_start("compiling", !a->count[C_QUIET] && !talks && strcmp(output, "-") != 0);
    o->on_step = pm_progress_step;
    o->user = progress;
    o->colour = pm_cli_colour() ? 1 : -1;
    pm_bug_report_model(model);
    // messages wait until the line of progress is gone
    char *text = NULL;
    size_t text_size = 0;
    FILE *held = progress && !json ? open_memstream(&text, &text_size) : NULL;
    pm_status status = pm_compile(model, output, o, held ? held : sink, json, &result);
    pm_progress_end(progress);
    if (held) {
        fclose(held);
        fwrite(text, 1, text_size, stderr);
        free(text);
    }
    if (json) {
        fclose(sink);
        if (status == PM_OK)
            print_result(arena, &result, output, pm_emit_words[o->emit], messages, size);
        else
            printf("{\"schema_version\": 1, \"ok\": false, \"diagnostics\": %s}\n", size ? messages : "[]");
        free(messages);
    }
    if (status == PM_OK && a->count[C_VERBOSE])
        fprintf(stderr, "%s: frontend %.1f ms, passes %.1f, codegen %.1f, link %.1f; %d dispatches (%d as reference), "
                "%llu bytes of weights\n", output, result.frontend_ms, result.passes_ms, result.codegen_ms,
                result.link_ms, result.n_dispatches, result.n_reference, result.payload_bytes);
    return status;
}

int main(int argc, char **argv)
{
    pm_out_clean_on_signals();
    pm_bug_report_init(argc, argv);
    pm_arena *arena = pm_arena_create();
    if (!arena) {
        fputs("error: out of memory\n", stderr);
        return pm_exit_code(PM_ERR_NO_MEMORY);
    }
    pm_cli_args args;
    pm_compile_options options = {.struct_size = sizeof options};
    int code = pm_cli_parse(arena, &pm_cli_pimoec, argc, argv, &args);
    if (code < 0)
        code = take(arena, &args, &options);
    if (code < 0) {
        pm_status status = compile(arena, &args, &options);
        if (status == PM_ERR_INTERNAL)
            pm_bug_report_write("an internal error");
        code = pm_exit_code(status);
    }
    pm_arena_destroy(arena);
    if (fflush(stdout) != 0 && code == 0) {
        perror("pimoec: standard output");
        return 3;
    }
    return code;
}
