/// Every option of every tool: the one place from which parsing, --help, man pages and completion are made.
#include "tools/cli/cli_options.h"

#include "base/containers.h"

#define TARGETS                                                                                                        \
    "native x86-64-v3 x86-64-v4 haswell skylake alderlake znver1 znver2 znver3 znver4 znver5 skylake-avx512 "          \
    "cascadelake cooperlake icelake-server sapphirerapids emeraldrapids graniterapids "                              \
    "sm_80 sm_89 sm_90a sm_100a emu"
#define MODEL_TEXT                                                                                                     \
    "MODEL is a .onnx file, a .json graph, a .pm IR file, or a checkpoint folder (config.json and safetensors). "      \
    "The kind is told\nfrom the content, not from the name."

static const pm_cli_option pimoec_options[C_N] = {
    [C_OUTPUT] = {"output", 'o', "OUT", "@file", .group = "Output",
                  .help = "where it goes (default: the model's name with the kind's ending); - is standard output, for text"},
    [C_EMIT] = {"emit", 0, "KIND", "exe obj lib shared header ir mlir llvm asm ptx cubin", .group = "Output",
                .help = "exe (default), obj, lib and shared (with a C header beside), header, ir, mlir, llvm, asm; "
                        "ptx and cubin need a GPU target"},
    [C_ENTRY] = {"entry", 0, "NAME", NULL, .group = "Output", .help = "only this entry (default: all)"},
    [C_SYMBOL] = {"symbol", 0, "NAME", NULL, .group = "Output",
                  .help = "name in code: pm_model_NAME, NAME_forward (default: from OUT)"},
    [C_TARGET] = {"target", 0, "CHIP", TARGETS, true, true, "Code",
                  "native (default), x86-64-v3, x86-64-v4, znver4, …; and GPUs: sm_80, sm_89, sm_90a, sm_100a, or emu, one "
                  "that the CPU plays; a wrong one lists all"},
    [C_LEVEL] = {NULL, 'O', "LEVEL", "0 1 2 3", .group = "Code", .help = "optimisation, 0 to 3 (default: 3)"},
    [C_QUANTIZE] = {"quantize", 0, "HOW", "none bf16 int8 int4", true, false, "Code",
                    "none (default: the model's own numbers) or bf16 products; int8 and int4 are not there yet"},
    [C_CALIBRATE] = {"calibrate", 0, "FILE", "@file", .group = "Code",
                     .help = "sample inputs for int8 and int4, which are not there yet"},
    [C_PLACE] = {"place", 0, "SPEC", NULL, .group = "Code", .help = "what goes to which device (default: by cost): experts@cpu0, layers.0.3@cuda0, "
                         "router@…, attention@…, rest@…; what a device may hold: cuda0=8GiB; how often experts are chosen: trace:FILE"},
    [C_REPORT] = {"report", 0, "FILE", "@file", .group = "Messages",
                  .help = "what became of the model: FILE.html for people, FILE.json for programs"},
    [C_JSON] = {"json", 0, .group = "Messages", .help = "the result, or the errors, as JSON on standard output"},
    [C_TIME_PASSES] = {"time-passes", 0, .group = "Messages", .help = "where the time goes, on standard error"},
    [C_QUIET] = {"quiet", 'q', .group = "Messages", .help = "errors only, no progress"},
    [C_VERBOSE] = {"verbose", 'v', .group = "Messages", .help = "a summary at the end"},
    [C_PASSES] = {"passes", 0, "LIST", NULL, true, false, "Looking inside",
                  "these passes, separated by commas, instead of those of -O"},
    [C_PRINT_BEFORE] = {"print-ir-before", 0, "PASSES", "all", true, false, "Looking inside",
                        "the IR before these passes, or all, on standard error"},
    [C_PRINT_AFTER] = {"print-ir-after", 0, "PASSES", "all", true, false, "Looking inside",
                       "the IR after these passes, or all, on standard error"},
    [C_PRINT_ALL] = {"print-ir-all", 0, .group = "Looking inside", .help = "the IR before and after every pass"},
    [C_PRINT_CHANGED] = {"print-ir-changed", 0, .group = "Looking inside",
                         .help = "the IR after each pass that changed something"},
    [C_STOP_AFTER] = {"stop-after", 0, "PASS", NULL, true, false, "Looking inside", "no pass after this one (--emit=ir)"},
    [C_PASS_LIMIT] = {"pass-limit", 0, "N", NULL, .group = "Looking inside", .help = "only the first N passes (--emit=ir)"},
    [C_VERIFY] = {"verify", 0, "WHEN", "each", .group = "Looking inside", .help = "each: check the IR after every pass"},
    [C_STATS] = {"stats", 0, .group = "Looking inside", .help = "what each pass did, on standard error"},
    [C_DUMP_DIR] = {"dump-dir", 0, "DIR", "@dir", .group = "Looking inside",
                    .help = "the IR after each pass as numbered files, which pimoe-opt takes"},
};

const pm_cli_command pm_cli_pimoec = {
    .program = "pimoec",
    .summary = "compile a mixture-of-experts model into one native program",
    .synopsis = "MODEL [-o OUT] [options]",
    .examples = "pimoec samples/classics -o classics              one executable\n"
                "pimoec digits.onnx --emit=lib -o libdigits.a     a static library with digits.h\n"
                "pimoec model.onnx --target=x86-64-v3             runs on any x86 CPU since 2013\n"
                "pimoec samples/classics --quantize=bf16          half the weights to read\n"
                "pimoec model.onnx --emit=asm -o - | less         what the code looks like\n"
                "pimoec model.onnx --target=sm_90a --emit=ptx     what runs on a GPU",
    .text = MODEL_TEXT,
    .options = pimoec_options, .n_options = C_N,
    .operand = "MODEL", .min_operands = 1, .max_operands = 1,
};

static const pm_cli_option opt_options[OPT_N] = {
    [OPT_OUTPUT] = {"output", 'o', "OUT", "@file", .group = "Output", .help = "where the IR goes (default: standard output)"},
    [OPT_FILES] = {"files", 0, "DIR", "@dir", .group = "Output",
                   .help = "folder beneath which the weights' files lie (default: FILE's folder)"},
    [OPT_PASSES] = {"passes", 0, "LIST", NULL, true, false, "Passes",
                    "passes and pipelines to run, separated by commas (default: none)"},
    [OPT_LEVEL] = {NULL, 'O', "LEVEL", "0 1 2 3", .group = "Passes", .help = "the pipeline of that level"},
    [OPT_QUANTIZE] = {"quantize", 0, "HOW", "none bf16", .group = "Passes", .help = "what quantize does (default: none)"},
    [OPT_PLACE] = {"place", 0, "SPEC", NULL, .group = "Passes",
                   .help = "what place-experts does: experts@cpu0, cpu0=8GiB (what a device may hold), …"},
    [OPT_DEVICES] = {"devices", 0, "LIST", NULL, .group = "Passes",
                     .help = "devices that there are, the CPU first (default: cpu0): cpu0,emu0"},
    [OPT_VECTOR] = {"vector-floats", 0, "N", "8 16", .group = "Passes",
                    .help = "f32 that a register of the target holds, 8 or 16 (default: 16)"},
    [OPT_PRINT_BEFORE] = {"print-ir-before", 0, "PASSES", "all", true, false, "Looking inside",
                          "the IR before these passes, or all, on standard error"},
    [OPT_PRINT_AFTER] = {"print-ir-after", 0, "PASSES", "all", true, false, "Looking inside",
                         "the IR after these passes, or all, on standard error"},
    [OPT_PRINT_ALL] = {"print-ir-all", 0, .group = "Looking inside", .help = "the IR before and after every pass"},
    [OPT_PRINT_CHANGED] = {"print-ir-changed", 0, .group = "Looking inside",
                           .help = "the IR after each pass that changed something"},
    [OPT_DUMP_DIR] = {"dump-dir", 0, "DIR", "@dir", .group = "Looking inside",
                      .help = "the IR after each pass as numbered files, which pimoe-opt takes"},
    [OPT_STOP_AFTER] = {"stop-after", 0, "PASS", NULL, true, false, "Looking inside", "no pass after this one"},
    [OPT_PASS_LIMIT] = {"pass-limit", 0, "N", NULL, .group = "Looking inside", .help = "only the first N passes"},
    [OPT_VERIFY] = {"verify", 0, "WHEN", "each", .group = "Looking inside", .help = "each: check the IR after every pass"},
    [OPT_TIME_PASSES] = {"time-passes", 0, .group = "Looking inside", .help = "where the time goes, on standard error"},
    [OPT_STATS] = {"stats", 0, .group = "Looking inside", .help = "what each pass did, on standard error"},
    [OPT_BREAK_ON_OP] = {"break-on-op", 0, "SERIAL", NULL, .group = "Looking inside",
                         .help = "stop in the debugger where the op of that serial number is created"},
    [OPT_JSON] = {"json", 0, .group = "Looking inside", .help = "errors as JSON on standard error"},
    [OPT_LIST] = {"list-passes", 0, .group = "Help", .help = "every pass and pipeline"},
    [OPT_MARKDOWN] = {"markdown", 0, .group = "Help", .help = "with --list-passes: as docs/passes.md"},
};

const pm_cli_command pm_cli_pimoe_opt = {
    .program = "pimoe-opt",
    .summary = "IR in, passes, IR out",
    .synopsis = "[FILE.pm] [--passes=LIST] [options]",
    .examples = "pimoe-opt model.pm                              checked, and printed in one form\n"
                "pimoe-opt model.pm --passes=canonicalise,cse    what these two make of it\n"
                "pimoe-opt dump/05-cse.pm --files=. --passes=dce --stats     going on from a file of --dump-dir\n"
                "pimoec model.onnx --emit=ir -o - | pimoe-opt    from standard input",
    .text = "FILE is a module in the IR's text form (docs/ir.md); standard input without one, or when it is -. Files\n"
            "with weights that it names are opened beneath FILE's folder, or that of --files.",
    .options = opt_options, .n_options = OPT_N,
    .operand = "FILE", .min_operands = 0, .max_operands = 1,
};

#define COMPILE_OPTIONS                                                                                                \
    [COMPILE_TARGET] = {"target", 0, "CHIP", TARGETS, true, true, "Compiling",                                         \
                        "CPU that the code is made for (default: native), and GPUs; emu is one that the CPU plays"},   \
    [COMPILE_QUANTIZE] = {"quantize", 0, "HOW", "none bf16 int8 int4", true, false, "Compiling",                       \
                          "none (default) or bf16"},                                                                   \
    [COMPILE_LEVEL] = {NULL, 'O', "LEVEL", "0 1 2 3", .group = "Compiling",                                            \
                       .help = "optimisation, 0 to 3 (default: 3)"},                                                   \
    [COMPILE_PLACE] = {"place", 0, "SPEC", NULL, .group = "Compiling",                                                 \
                       .help = "what goes to which device, as pimoec takes it"}

static const pm_cli_option inspect_options[INSPECT_N] = {
    [INSPECT_OPS] = {"ops", 0, .group = "Options", .help = "the number of ops of each kind, too (JSON always has them)"},
    [INSPECT_PLACE] = {"place", 0, "SPEC", NULL, .group = "Options",
                       .help = "where experts, routers, attention and the rest would go, and what would cross between "
                               "devices: cost, or as pimoec takes it (experts@cpu0, trace:FILE, …)"},
    [INSPECT_TARGET] = {"target", 0, "CHIP", TARGETS, true, true, "Options",
                        "the devices that --place has (default: native, the CPU alone), as pimoec takes it"},
    [INSPECT_SHARDING] = {"sharding", 0, "FILE", "@file", .group = "Options",
                          .help = "write the ONNX model with that placement as its multi-device annotations (weights "
                                  "that lie beside the model must lie beside FILE, too)"},
    [INSPECT_JSON] = {"json", 0, .group = "Options", .help = "as JSON"},
};

static const pm_cli_option check_options[CHECK_N] = {
    COMPILE_OPTIONS,
    [CHECK_IN] = {"in", 0, "FILE", "@file", false, true, "What to compare",
                  "inputs by name, .npz (default: inputs.npz or reference.npz beside the model); may be repeated"},
    [CHECK_WANT] = {"want", 0, "FILE", "@file", false, true, "What to compare",
                    "expected outputs by name, .npz, one for each --in (default: expected.npz or reference.npz beside)"},
    [CHECK_RTOL] = {"rtol", 0, "R", NULL, .group = "What to compare",
                    .help = "difference allowed, as a part of the largest expected magnitude in the row (default: "
                            "f32 1e-4, f64 1e-9, f16 1e-2, bf16 2e-2; 2e-2 with --quantize=bf16; integers 0)"},
    [CHECK_ATOL] = {"atol", 0, "A", NULL, .group = "What to compare",
                    .help = "difference allowed besides (default: 1e-6 for floats, 0 for integers)"},
    [CHECK_ENTRY] = {"entry", 0, "NAME", NULL, .group = "What to compare",
                     .help = "entry to run (default: forward, or the first)"},
    [CHECK_THREADS] = {"threads", 0, "N", NULL, .group = "Running", .help = "workers (default: one per core)"},
    [CHECK_TIMEOUT] = {"timeout", 0, "SECONDS", NULL, .group = "Running",
                       .help = "for compiling and for running, each (default: 600)"},
    [CHECK_KEEP] = {"keep", 0, "FILE", "@file", .group = "Running", .help = "keep the shared library that was tried"},
    [CHECK_JSON] = {"json", 0, .group = "Running", .help = "the result as JSON on standard output"},
};

static const pm_cli_option run_options[RUN_N] = {
    COMPILE_OPTIONS,
    [RUN_NO_CACHE] = {"no-cache", 0, .group = "Cache",
                      .help = "compile anew, keep nothing (else: PIMOE_CACHE_DIR, XDG_CACHE_HOME/pimoe or ~/.cache/pimoe)"},
    [RUN_VERBOSE] = {"verbose", 'v', .group = "Cache", .help = "say whether it was compiled, and where it lies"},
};

static const pm_cli_option bench_options[BENCH_N] = {
    COMPILE_OPTIONS,
    [BENCH_ENTRY] = {"entry", 0, "NAME", NULL, false, true, "What to time", "only this entry (default: all); may be repeated"},
    [BENCH_SHAPE] = {"shape", 0, "SYMBOL=N", NULL, false, true, "What to time",
                     "extent of a symbol, or several: T=1,16,256 (default: its least); may be repeated"},
    [BENCH_REPEAT] = {"repeat", 0, "N", NULL, .group = "What to time", .help = "runs of each (default: 20)"},
    [BENCH_THREADS] = {"threads", 0, "N", NULL, .group = "What to time", .help = "workers (default: one per core)"},
    [BENCH_COMPARE] = {"compare", 0, .group = "Table", .help = "how many times as fast as the first model, in a column"},
    [BENCH_FORMAT] = {"format", 0, "FORMAT", "text md csv json", .group = "Table", .help = "of the table (default: text)"},
    [BENCH_JSON] = {"json", 0, .group = "Table", .help = "the same as --format=json"},
};

static const pm_cli_option doctor_options[DOCTOR_N] = {
    [DOCTOR_JSON] = {"json", 0, .group = "Options", .help = "as JSON"},
};

const pm_cli_command pm_cli_pimoe_commands[] = {
    [PIMOE_INSPECT] = {
        .program = "pimoe", .name = "inspect",
        .summary = "what is in a model, or in what pimoec made of it",
        .synopsis = "MODEL|ARTIFACT [--json]",
        .examples = "pimoe inspect model.onnx            entries, experts of each layer, what isn't supported and where\n"
                    "pimoe inspect ./classics --json     the same of an executable, with the hash of each expert",
        .text = MODEL_TEXT "\nARTIFACT is an executable, a shared or static library, or an object that pimoec made.",
        .options = inspect_options, .n_options = INSPECT_N,
        .operand = "MODEL", .min_operands = 1, .max_operands = 1},
    [PIMOE_CHECK] = {
        .program = "pimoe", .name = "check",
        .summary = "compile a model, run it, compare with expected outputs",
        .synopsis = "MODEL [--in INPUTS.npz --want EXPECTED.npz] [options]",
        .examples = "pimoe check model.onnx --in inputs.npz --want expected.npz\n"
                    "pimoe check samples/classics --json            with the reference.npz that lies in the folder\n"
                    "pimoe check model.onnx --quantize=bf16 --rtol 0.01",
        .text = MODEL_TEXT
            "\nA checkpoint is checked on its entry forward: input_ids [B, T] to logits [B, T, V]. Arrays x_b, y_b in the files are a\n"
            "second case. A relative difference is one over the largest expected magnitude of its row (the last axis).\n"
            "Compiling and running happen in processes of their own: a crash there is a result here.",
        .options = check_options, .n_options = CHECK_N,
        .operand = "MODEL", .min_operands = 1, .max_operands = 1},
    [PIMOE_RUN] = {
        .program = "pimoe", .name = "run",
        .summary = "compile a model (or take it from the cache) and run it",
        .synopsis = "[options] MODEL [options of the executable]",
        .examples = "pimoe run samples/classics \"Once upon a time\" -n 100\n"
                    "pimoe run model.onnx --in x=@x.npy --out y=@y.npy\n"
                    "pimoe run --quantize=bf16 samples/classics --help     what the executable takes",
        .text = MODEL_TEXT "\nWhat stands behind MODEL goes to the executable.",
        .options = run_options, .n_options = RUN_N,
        .operand = "MODEL", .min_operands = 1, .max_operands = 1, .stop_at_operand = true},
    [PIMOE_BENCH] = {
        .program = "pimoe", .name = "bench",
        .summary = "time the entries of models, side by side",
        .synopsis = "MODEL|EXECUTABLE... [--compare] [options]",
        .examples = "pimoe bench samples/classics --entry=forward --shape T=1,16,256\n"
                    "pimoe bench ./classics-fp32 ./classics-bf16 --compare --format=md",
        .text = "Models are compiled (or taken from the cache); executables that pimoec made are run as they are.",
        .options = bench_options, .n_options = BENCH_N,
        .operand = "MODEL", .min_operands = 1, .max_operands = 64},
    [PIMOE_DOCTOR] = {
        .program = "pimoe", .name = "doctor",
        .summary = "what this machine offers, what is missing, how to get it",
        .synopsis = "[--json]",
        .examples = "pimoe doctor            CPU, memory, toolchain, and a small model compiled and run as a test",
        .options = doctor_options, .n_options = DOCTOR_N},
};
const size_t pm_cli_n_pimoe_commands = PM_COUNT(pm_cli_pimoe_commands);

const pm_cli_command pm_cli_pimoe = {
    .program = "pimoe",
    .summary = "look at, check, run and time mixture-of-experts models",
    .synopsis = "COMMAND [options]",
    .examples = "pimoe inspect model.onnx                      what is in it\n"
                "pimoe check model.onnx --in in.npz --want out.npz\n"
                "pimoe run samples/classics \"It was\" -n 60\n"
                "pimoe bench samples/classics --shape T=1,64\n"
                "pimoe doctor                                  is everything there?",
    .text = "Each command has its own --help.",
    .operand = "COMMAND", .min_operands = 1, .max_operands = 1, .stop_at_operand = true,
};
