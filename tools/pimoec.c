/// pimoec: the compiler.
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/file.h"
#include "tools/driver/driver.h"

enum {
    OPT_EMIT = 256, OPT_TARGET, OPT_QUANTIZE, OPT_CALIBRATE, OPT_ENTRY, OPT_PLACE, OPT_REPORT, OPT_DUMP_DIR,
    OPT_TIME_PASSES, OPT_JSON, OPT_PASSES, OPT_BEFORE, OPT_AFTER, OPT_CHANGED, OPT_VERIFY, OPT_STATS,
    OPT_STOP_AFTER, OPT_PASS_LIMIT, OPT_SYMBOL, OPT_VERSION,
};

static const struct option long_options[] = {
    {"emit", required_argument, NULL, OPT_EMIT},
    {"target", required_argument, NULL, OPT_TARGET},
    {"quantize", required_argument, NULL, OPT_QUANTIZE},
    {"calibrate", required_argument, NULL, OPT_CALIBRATE},
    {"entry", required_argument, NULL, OPT_ENTRY},
    {"place", required_argument, NULL, OPT_PLACE},
    {"report", required_argument, NULL, OPT_REPORT},
    {"dump-dir", required_argument, NULL, OPT_DUMP_DIR},
    {"time-passes", no_argument, NULL, OPT_TIME_PASSES},
    {"json", no_argument, NULL, OPT_JSON},
    {"passes", required_argument, NULL, OPT_PASSES},
    {"print-ir-before", required_argument, NULL, OPT_BEFORE},
    {"print-ir-after", required_argument, NULL, OPT_AFTER},
    {"print-ir-changed", no_argument, NULL, OPT_CHANGED},
    {"verify", required_argument, NULL, OPT_VERIFY},
    {"stats", no_argument, NULL, OPT_STATS},
    {"stop-after", required_argument, NULL, OPT_STOP_AFTER},
    {"pass-limit", required_argument, NULL, OPT_PASS_LIMIT},
    {"symbol", required_argument, NULL, OPT_SYMBOL},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static void help(void)
{
    puts("pimoec compiles a Mixture-of-Experts model into one native program.\n"
         "\n"
         "Examples:\n"
         "  pimoec samples/classics -o classics            one executable\n"
         "  pimoec model.onnx --emit=lib -o libmodel.a     a static library with model.h\n"
         "  pimoec model.onnx --emit=asm -o -              what the code looks like\n"
         "\n"
         "Usage: pimoec MODEL [-o OUT] [options]\n"
         "  MODEL: a .onnx file, a .json graph, a .pm IR file, or a checkpoint folder\n"
         "\n"
         "  -o OUT                  output (default: the model's name)\n"
         "  --emit=KIND             exe, obj, lib, shared, header, ir, mlir, llvm, asm (default: exe)\n"
         "  --target=CPU            native, x86-64-v3, x86-64-v4, znver4, … (default: native)\n"
         "  --quantize=HOW          none, bf16 (default: none, the model's own numbers)\n"
         "  --entry=NAME            only this entry\n"
         "  --place=SPEC            placement of experts on devices\n"
         "  --symbol=NAME           name of the model in code: pm_model_NAME\n"
         "  -O0 … -O3               optimisation (default: -O3)\n"
         "  --passes=LIST           these passes instead of a pipeline\n"
         "  --print-ir-before=PASS, --print-ir-after=PASS (or all), --print-ir-changed\n"
         "  --stop-after=PASS, --pass-limit=N, --verify=each, --stats\n"
         "  --dump-dir=DIR          the IR after each pass, numbered; pimoe-opt runs them\n"
         "  --time-passes           where the time goes\n"
         "  --json                  the result, or the errors, as JSON on stdout\n"
         "  -q, -v                  quieter, more words\n"
         "\n"
         "Exit codes: 0 done, 1 the model is at fault, 2 usage, 3 I/O, 70 our bug.");
}

static int usage_error(const char *what, const char *word)
{
    fprintf(stderr, "pimoec: %s%s%s\nTry 'pimoec --help'.\n", what, word ? " " : "", word ? word : "");
    return 2;
}

/// "models/digits.onnx" -> "digits" with the kind's usual ending.
static void default_output(const char *path, pm_emit emit, char *out, size_t size)
{
    static const char *const endings[] = {"", ".o", ".a", ".so", ".h", ".pm", ".mlir", ".ll", ".s"};
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
    snprintf(out, size, "%s%.*s%s", emit == PM_EMIT_LIB || emit == PM_EMIT_SHARED ? "lib" : "",
             (int)dot, path + from, endings[emit]);
    if (strcmp(out, path) == 0)
        snprintf(out, size, "%.*s.out", (int)dot, path + from);
}

static void print_result(const pm_compile_result *r, const char *output)
{
    printf("{\"schema_version\": 1, \"ok\": true, \"output\": \"%s\", \"entries\": %d, \"moe_layers\": %d, "
           "\"experts\": %d, \"dispatches\": %d, \"reference_dispatches\": %d, \"payload_bytes\": %llu, "
           "\"code_bytes\": %llu, \"ms\": {\"frontend\": %.2f, \"passes\": %.2f, \"codegen\": %.2f, "
           "\"link\": %.2f, \"total\": %.2f}}\n",
           output, r->n_entries, r->n_moe_layers, r->n_experts, r->n_dispatches, r->n_reference,
           r->payload_bytes, r->code_bytes, r->frontend_ms, r->passes_ms, r->codegen_ms, r->link_ms,
           r->total_ms);
}

int main(int argc, char **argv)
{
    pm_out_clean_on_signals();
    pm_compile_options o = {.struct_size = sizeof o, .opt_level = -1};
    const char *output = NULL;
    int json = 0, quiet = 0, verbose = 0, c;
    while ((c = getopt_long(argc, argv, "o:O:hqv", long_options, NULL)) != -1) {
        switch (c) {
        case 'o': output = optarg; break;
        case 'O':
            if (!(optarg[0] >= '0' && optarg[0] <= '3' && !optarg[1]))
                return usage_error("-O takes 0 to 3, not", optarg);
            o.opt_level = optarg[0] - '0';
            break;
        case OPT_EMIT:
            if (!pm_emit_parse(optarg, &o.emit)) {
                const char *near = pm_nearest(optarg, pm_emit_words, pm_emit_word_count);
                fprintf(stderr, "pimoec: unknown kind --emit=%s%s%s%s\n", optarg,
                        near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
                return 2;
            }
            break;
        case OPT_TARGET: o.target = optarg; break;
        case OPT_QUANTIZE: o.quantize = optarg; break;
        case OPT_CALIBRATE: return usage_error("--calibrate is not there yet", NULL);
        case OPT_ENTRY: o.entry = optarg; break;
        case OPT_PLACE: o.place = optarg; break;
        case OPT_REPORT: o.report = optarg; break;
        case OPT_DUMP_DIR: o.dump_dir = optarg; break;
        case OPT_TIME_PASSES: o.time_passes = 1; break;
        case OPT_JSON: json = 1; break;
        case OPT_PASSES: o.passes = optarg; break;
        case OPT_BEFORE: o.print_before = optarg; break;
        case OPT_AFTER: o.print_after = optarg; break;
        case OPT_CHANGED: o.print_changed = 1; break;
        case OPT_VERIFY: o.verify_each = strcmp(optarg, "each") == 0; break;
        case OPT_STATS: o.stats = 1; break;
        case OPT_STOP_AFTER: o.stop_after = optarg; break;
        case OPT_PASS_LIMIT: o.pass_limit = atol(optarg); o.has_pass_limit = 1; break;
        case OPT_SYMBOL: o.symbol = optarg; break;
        case 'q': quiet = 1; break;
        case 'v': verbose = 1; break;
        case 'h': help(); return 0;
        case OPT_VERSION: puts("pimoec " PM_VERSION); return 0;
        default: return usage_error("", NULL);
        }
    }
    if (optind >= argc)
        return usage_error("which model?", NULL);
    if (optind + 1 < argc)
        return usage_error("one model at a time; what is", argv[optind + 1]);
    char name[4096];
    if (!output) {
        default_output(argv[optind], o.emit, name, sizeof name);
        output = name;
    }
    pm_compile_result result = {0};
    if (json)
        o.stats = 0;
    char *messages = NULL;
    size_t size = 0;
    FILE *sink = json ? open_memstream(&messages, &size) : stderr;
    pm_status status = pm_compile(argv[optind], output, &o, sink, json, &result);
    if (json) {
        fclose(sink);
        if (status == PM_OK)
            print_result(&result, output);
        else
            printf("{\"schema_version\": 1, \"ok\": false, \"diagnostics\": %s}\n", messages);
        free(messages);
    } else if (status == PM_OK && verbose && !quiet) {
        fprintf(stderr, "%s: frontend %.1f ms, passes %.1f, codegen %.1f, link %.1f; %d dispatches (%d as reference), "
                "%llu bytes of weights\n", output, result.frontend_ms, result.passes_ms, result.codegen_ms,
                result.link_ms, result.n_dispatches, result.n_reference, result.payload_bytes);
    }
    return pm_exit_code(status);
}
