#include "passes/plan.h"
#include "tools/driver/driver.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ir/op_table.h"
#include "ir/text.h"
#include "runtime/artifact_format.h"
#include "tools/driver/layer_checks.h"
#include "tools/driver/origins.h"
#include "tools/driver/report.h"

const char *const pm_emit_words[] = {"exe", "obj", "lib", "shared", "header", "ir", "mlir", "llvm", "asm", "ptx", "cubin"};
const size_t pm_emit_word_count = PM_COUNT(pm_emit_words);

int pm_emit_parse(const char *word, pm_emit *out_emit)
{
    for (size_t i = 0; i < pm_emit_word_count; i++)
        if (strcmp(word, pm_emit_words[i]) == 0) {
            *out_emit = (pm_emit)i;
            return 1;
        }
    return 0;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

enum { N_STEPS = 4 };

static void step(const pm_driver *d, const char *name, int number)
{
    if (d->options->on_step)
        d->options->on_step(d->options->user, name, number, N_STEPS);
}

/// What is told of the module: as it was loaded, or once experts are raised; later passes take them apart.
static pm_status summarise(pm_driver *d)
{
    pm_summary *summary = pm_summary_make(d->module);
    if (d->summary && d->summary->layers.n >= summary->layers.n)
        return PM_OK;
    d->summary = summary;
    d->result.n_entries = (int)d->module->entries.n;
    d->result.n_moe_layers = (int)d->summary->layers.n;
    d->result.n_experts = (int)d->summary->max_experts;
    d->result.n_experts_total = (int)d->summary->total_experts;
    return d->options->report ? pm_summary_experts(d->summary) : PM_OK;
}

static pm_status summarise_raised(void *user, pm_module *m)
{
    pm_driver *d = user;
    pm_summary *as_loaded = d->summary;
    PM_TRY(summarise(d));
    if (d->summary == as_loaded) { // the layers are those that were there; what is told of them is from now
        pm_summary *now = pm_summary_make(m);
        if (d->origins) {
            PM_TRY(pm_summary_experts(now));
            d->summary = now;
        }
        PM_TRY(pm_check_routers(now, d->diag));
    } else {
        PM_TRY(pm_check_routers(d->summary, d->diag));
    }
    if (d->origins) {
        d->summary->findings = d->findings;
        pm_origins_assign(d->origins, d->findings, d->summary);
    }
    return PM_OK;
}

pm_status pm_driver_raise(pm_module *m, pm_summary **out_summary)
{
    static const pm_pass_options options = {.opt_level = 3, .vector_floats = 8, .quantize = "none"};
    pm_findings *findings = PM_NEW(m->arena, pm_findings);
    findings->arena = m->arena;
    pm_origins *origins = pm_origins_take(m);
    pm_pass_run run = {.options = &options, .pass_limit = -1, .stop_before = "place-experts", .findings = findings};
    PM_TRY(pm_passes_run(m, &run));
    pm_summary *s = pm_summary_make(m);
    PM_TRY(pm_summary_experts(s));
    PM_TRY(pm_check_routers(s, m->diag));
    s->findings = findings;
    pm_origins_assign(origins, findings, s);
    *out_summary = s;
    return PM_OK;
}

static pm_status keep_entry(pm_driver *d, const char *name)
{
    pm_module *m = d->module;
    const char **names = PM_NEW_ARRAY(d->arena, const char *, m->entries.n + 1);
    for (size_t i = 0; i < m->entries.n; i++) {
        names[i] = m->entries.data[i]->name;
        if (strcmp(names[i], name) == 0) {
            m->entries.data[0] = m->entries.data[i];
            m->entries.n = 1;
            return PM_OK;
        }
    }
    const char *near = pm_nearest(name, names, m->entries.n);
    return pm_error(d->diag, NULL, PM_ERR_USAGE, "the model has no entry '%s'%s%s%s", name,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static pm_status check_gpu_form(const pm_driver *d)
{
    const pm_device_target *device = d->target.devices;
    pm_emit emit = d->options->emit;
    if (emit != PM_EMIT_PTX && emit != PM_EMIT_CUBIN)
        return PM_OK;
    if (!device || device->emulated)
        return pm_error(d->diag, NULL, PM_ERR_USAGE, "--emit=%s is code of GPUs: name one, as in --target=sm_90a",
                        pm_emit_words[emit]);
    if (emit == PM_EMIT_CUBIN && device->n_archs > 1)
        return pm_error(d->diag, NULL, PM_ERR_USAGE, "--emit=cubin is for one chip, and --target names %zu",
                        device->n_archs);
    return PM_OK;
}

pm_status pm_driver_front(pm_driver *d, const char *path)
{
    const pm_compile_options *o = d->options;
    double start = now_ms();
    step(d, "reading the model", 1);
    // said before the model is read, which may take a while
    PM_TRY(pm_passes_check_names(d->arena, d->diag, "--print-ir-before", o->print_before));
    PM_TRY(pm_passes_check_names(d->arena, d->diag, "--print-ir-after", o->print_after));
    PM_TRY(pm_passes_check_names(d->arena, d->diag, "--stop-after", o->stop_after));
    PM_TRY(pm_target_parse(d->arena, d->diag, o->target ? o->target : "native", &d->target));
    PM_TRY(check_gpu_form(d));
    PM_TRY(pm_frontend_load(d->arena, d->diag, path, &d->module));
    if (o->entry)
        PM_TRY(keep_entry(d, o->entry));
    if (d->watch && d->watch->on_load)
        d->watch->on_load(d->watch->user, d->module);
    PM_TRY(summarise(d));
    if (o->report) {
        d->findings = PM_NEW(d->arena, pm_findings);
        d->findings->arena = d->module->arena;
        d->origins = pm_origins_take(d->module);
    }
    d->plan = PM_NEW(d->arena, pm_plan);
    d->plan->arena = d->arena;
    step(d, "passes", 2);
    double loaded = now_ms();
    d->result.frontend_ms = loaded - start;
    size_t n_devices = d->target.n_devices + 1;
    pm_device *devices = PM_NEW_ARRAY(d->arena, pm_device, n_devices);
    devices[0] = (pm_device){.name = "cpu0", .bytes_per_second = 40e9, .flops_per_second = 200e9,
                             .link_bytes_per_second = 40e9, .memory = UINT64_MAX};
    for (size_t i = 1; i < n_devices; i++) {
        const pm_device_target *t = &d->target.devices[i - 1];
        devices[i] = (pm_device){t->name, t->bytes_per_second, t->flops_per_second, t->link_bytes_per_second, t->memory};
    }
    pm_pass_options *passes = PM_NEW(d->arena, pm_pass_options);
    *passes = (pm_pass_options){
        .opt_level = o->opt_level < 0 ? 3 : o->opt_level,
        .vector_floats = d->target.vector_floats,
        .has_bf16_dot = d->target.features & PM_CPU_AVX512_BF16,
        .quantize = o->quantize ? o->quantize : "none",
        .place = o->place, .devices = devices, .n_devices = n_devices, .device_reads_codes = true,
        .host_twins = d->target.n_devices && d->target.cpu_named};
    pm_pass_run run = {.options = passes, .passes = o->passes, .print_before = o->print_before,
                       .print_after = o->print_after, .print_changed = o->print_changed,
                       .dump_dir = o->dump_dir, .verify_each = o->verify_each,
                       .time_passes = o->time_passes, .stats = o->stats, .stop_after = o->stop_after,
                       .pass_limit = o->has_pass_limit ? o->pass_limit : -1, .out = stderr,
                       .findings = d->findings, .plan = d->plan, .watch = "host-twins", .on_watched = summarise_raised, .user = d};
    PM_TRY(pm_passes_run(d->module, &run));
    d->result.passes_ms = now_ms() - loaded;
    return PM_OK;
}

/// "out/my-model.a" -> "my_model"; a library's "lib" prefix is dropped.
static const char *symbol_for(pm_driver *d, const char *output)
{
    if (d->options->symbol)
        return d->options->symbol;
    if (d->options->emit == PM_EMIT_EXE)
        return "main";
    const char *base = strrchr(output, '/');
    base = strcmp(output, "-") == 0 && d->module->name ? d->module->name : base ? base + 1 : output;
    if (strncmp(base, "lib", 3) == 0 && base[3])
        base += 3;
    size_t n = strcspn(base, ".");
    char *symbol = pm_arena_strndup(d->arena, base, n);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)symbol[i]))
            symbol[i] = '_';
    return n && !isdigit((unsigned char)symbol[0]) ? symbol : pm_arena_printf(d->arena, "m_%s", symbol);
}

static pm_status generate(pm_driver *d, const char *symbol)
{
    double start = now_ms();
    pm_emit emit = d->options->emit;
    step(d, "generating code", 3);
    pm_codegen_options options = {
        .opt_level = d->options->opt_level < 0 ? 3 : d->options->opt_level, .symbol = symbol,
        .keep_mlir = emit == PM_EMIT_MLIR || d->options->dump_dir,
        .keep_object = emit == PM_EMIT_EXE || emit == PM_EMIT_SHARED || emit == PM_EMIT_OBJ || emit == PM_EMIT_LIB,
        .embedded_payload = emit == PM_EMIT_OBJ || emit == PM_EMIT_LIB};
    PM_TRY(pm_weights_layout(d->module, &d->weights));
    PM_TRY(pm_codegen(d->module, &d->target, d->weights, &options, &d->native));
    size_t n;
    const pm_dispatch *list = pm_native_dispatches(d->native, &n);
    d->result.n_dispatches = (int)n;
    for (size_t i = 0; i < n; i++)
        d->result.n_reference += list[i].kind == 0;
    d->result.codegen_ms = now_ms() - start;
    return PM_OK;
}

static pm_status write_text(pm_driver *d, pm_out_file *out, const uint8_t *bytes, size_t size)
{
    if (size && fwrite(bytes, 1, size, out->stream) != size)
        return pm_error(d->diag, NULL, PM_ERR_IO, "%s: %s", out->path, strerror(errno));
    return PM_OK;
}

static pm_status write_payload(pm_driver *d, pm_out_file *out)
{
    size_t n;
    uint64_t size;
    const pm_dispatch *list = pm_native_dispatches(d->native, &n);
    PM_TRY(pm_payload_write(d->weights, &d->target, pm_native_code_hash(d->native), list, n, out, &size));
    d->result.payload_bytes = size;
    return PM_OK;
}

static pm_status link_program(pm_driver *d, pm_out_file *out, const char *symbol)
{
    const uint8_t *object;
    size_t size;
    PM_TRY(pm_native_emit(d->native, PM_CODE_OBJECT, &object, &size));
    d->result.code_bytes = size;
    double start = now_ms();
    PM_TRY(pm_link(d->module, d->options->emit == PM_EMIT_EXE ? PM_LINK_EXE : PM_LINK_SHARED, object,
                   size, symbol, out));
    PM_TRY(write_payload(d, out));
    d->result.link_ms = now_ms() - start;
    return PM_OK;
}

static pm_status write_object(pm_driver *d, pm_out_file *out, const char *symbol)
{
    const uint8_t *object;
    size_t size;
    PM_TRY(pm_native_emit(d->native, PM_CODE_OBJECT, &object, &size));
    d->result.code_bytes = size;
    char *payload_path = pm_arena_printf(d->arena, "%s.payload", out->path);
    pm_out_file *payload;
    PM_TRY(pm_out_open(d->arena, d->diag, payload_path, 0600, &payload));
    PM_TRY(write_payload(d, payload));
    if (fflush(payload->stream) != 0)
        return pm_error(d->diag, NULL, PM_ERR_IO, "%s: %s", payload_path, strerror(errno));
    if (d->options->emit == PM_EMIT_LIB)
        return pm_link_library(d->module, object, size, symbol, payload->temp, out);
    return pm_link_object(d->module, object, size, symbol, payload->temp, out);
}

static pm_status write_header(pm_driver *d, const char *output, const char *symbol)
{
    pm_out_file *out;
    PM_TRY(pm_out_open(d->arena, d->diag, output, 0644, &out));
    PM_TRY(pm_header_write(d->module, symbol, out->stream));
    return pm_out_commit(d->diag, out);
}

/// The header beside a library: "out/libdigits.a" -> "out/digits.h".
static pm_status header_beside(pm_driver *d, const char *output, const char *symbol)
{
    char *name = pm_arena_printf(d->arena, "%s.h", symbol);
    return write_header(d, pm_path_join(d->arena, pm_path_dir(d->arena, output), name), symbol);
}

static pm_status make_output(pm_driver *d, pm_out_file *out, const char *symbol)
{
    const uint8_t *bytes;
    size_t size;
    switch (d->options->emit) {
    case PM_EMIT_IR: pm_module_print(d->module, out->stream); return PM_OK;
    case PM_EMIT_MLIR:
    case PM_EMIT_LLVM:
    case PM_EMIT_ASM:
    case PM_EMIT_PTX:
    case PM_EMIT_CUBIN: {
        static const pm_code_form forms[] = {
            [PM_EMIT_MLIR] = PM_CODE_MLIR, [PM_EMIT_LLVM] = PM_CODE_LLVM, [PM_EMIT_ASM] = PM_CODE_ASM,
            [PM_EMIT_PTX] = PM_CODE_PTX, [PM_EMIT_CUBIN] = PM_CODE_CUBIN};
        PM_TRY(pm_native_emit(d->native, forms[d->options->emit], &bytes, &size));
        return write_text(d, out, bytes, size);
    }
    case PM_EMIT_EXE:
    case PM_EMIT_SHARED: return link_program(d, out, symbol);
    default: return write_object(d, out, symbol);
    }
}

pm_status pm_driver_back(pm_driver *d, const char *output)
{
    pm_emit emit = d->options->emit;
    const char *symbol = symbol_for(d, output);
    if (strcmp(output, "-") == 0)
        output = "/dev/stdout";
    if (emit == PM_EMIT_HEADER)
        return write_header(d, output, symbol);
    if (emit != PM_EMIT_IR)
        PM_TRY(generate(d, symbol));
    if (emit != PM_EMIT_IR)
        step(d, "machine code and linking", 4);
    pm_out_file *out;
    bool program = emit == PM_EMIT_EXE || emit == PM_EMIT_SHARED;
    PM_TRY(pm_out_open(d->arena, d->diag, output, program ? 0755 : 0644, &out));
    PM_TRY(make_output(d, out, symbol));
    PM_TRY(pm_out_commit(d->diag, out));
    return emit == PM_EMIT_LIB || emit == PM_EMIT_OBJ || emit == PM_EMIT_SHARED
               ? header_beside(d, output, symbol)
               : PM_OK;
}

/// The caller may be older than this library: fields that it doesn't know are zero.
static bool take_options(const pm_compile_options *from, pm_compile_options *out)
{
    if (from->struct_size < offsetof(pm_compile_options, target) || from->struct_size > sizeof *out)
        return false;
    *out = (pm_compile_options){0};
    memcpy(out, from, from->struct_size);
    return true;
}

static bool wants_colour(const pm_compile_options *o, FILE *messages)
{
    return o->colour > 0 || (o->colour == 0 && isatty(fileno(messages)) && !getenv("NO_COLOR"));
}

static pm_status compile(pm_driver *d, const char *path, const char *output)
{
    static const pm_compile_options defaults = {
        .struct_size = sizeof defaults, .opt_level = -1, .pass_limit = -1};
    const pm_compile_options *given = d->options ? d->options : &defaults;
    pm_compile_options *options = PM_NEW(d->arena, pm_compile_options);
    d->options = &defaults; // what is unknown is not looked at again
    if (!take_options(given, options))
        return pm_error(d->diag, NULL, PM_ERR_USAGE, "pm_compile_options has no struct_size that is known here");
    d->options = options;
    PM_TRY(pm_driver_front(d, path));
    if (d->watch && d->watch->on_front)
        d->watch->on_front(d->watch->user, d);
    PM_TRY(pm_driver_back(d, output));
    return d->options->report ? pm_report_write(d, path, output) : PM_OK;
}

static void say_no_memory(FILE *messages, int json)
{
    if (messages)
        fputs(json ? "[{\"severity\": \"error\", \"code\": \"no_memory\", \"message\": \"out of memory\", "
                     "\"location\": null}]"
                   : "error: out of memory\n", messages);
}

pm_status pm_compile_seen(const char *path, const char *output, const pm_compile_options *options, FILE *messages,
                          int messages_json, pm_compile_result *out_result, const pm_compile_watch *watch)
{
    double start = now_ms();
    pm_arena *arena = pm_arena_create();
    jmp_buf oom;
    pm_driver *volatile d = NULL;
    volatile pm_status status = PM_ERR_NO_MEMORY;
    if (!arena) {
        say_no_memory(messages, messages_json);
    } else if (setjmp(oom) == 0) {
        pm_arena_on_oom(arena, &oom);
        d = PM_NEW(arena, pm_driver);
        d->arena = arena;
        d->diag = pm_diag_create(arena);
        d->options = options;
        d->watch = watch;
        status = compile(d, path, output);
        if (status == PM_ERR_NO_MEMORY && pm_diag_count(d->diag, PM_ERROR) == 0)
            status = pm_error(d->diag, NULL, PM_ERR_NO_MEMORY, "out of memory");
        d->result.total_ms = now_ms() - start;
        if (out_result)
            *out_result = d->result;
        if (messages && messages_json)
            pm_diag_json(d->diag, messages);
        else if (messages)
            pm_diag_print(d->diag, messages, wants_colour(d->options, messages));
    } else {
        say_no_memory(messages, messages_json);
    }
    pm_arena_destroy(arena);
    return status;
}

pm_status pm_compile(const char *path, const char *output, const pm_compile_options *options, FILE *messages,
                     int messages_json, pm_compile_result *out_result)
{
    return pm_compile_seen(path, output, options, messages, messages_json, out_result, NULL);
}
