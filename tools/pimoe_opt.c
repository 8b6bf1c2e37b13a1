/// pimoe-opt: IR text in, passes by name, IR text out.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "ir/text.h"
#include "passes/passes.h"
#include "tools/cli/cli_options.h"

typedef struct opt {
    pm_arena *arena;
    pm_diag *diag;
    const pm_cli_args *args;
    pm_pass_options passes;
    pm_pass_run run;
} opt;

static pm_status read_stdin(opt *o, const char **out_text, size_t *out_size)
{
    PM_VEC(char) text = {0};
    char chunk[1 << 16];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        while (text.cap - text.n < n)
            text.data = pm_vec_grow(o->arena, text.data, text.n, &text.cap, 1);
        memcpy(text.data + text.n, chunk, n);
        text.n += n;
    }
    if (ferror(stdin))
        return pm_error(o->diag, NULL, PM_ERR_IO, "standard input: %s", strerror(errno));
    *out_text = text.data ? text.data : "";
    *out_size = text.n;
    return PM_OK;
}

static pm_status load(opt *o, pm_module **out_module)
{
    const char *path = o->args->n_operands ? o->args->operands[0] : "-", *text, *dir = ".";
    size_t size;
    if (strcmp(path, "-") == 0) {
        path = "<stdin>";
        PM_TRY(read_stdin(o, &text, &size));
    } else {
        pm_file *file;
        PM_TRY(pm_file_open(o->arena, o->diag, path, &file));
        PM_TRY(pm_file_map(o->arena, o->diag, file));
        text = (const char *)file->data;
        size = file->size;
        dir = pm_path_dir(o->arena, path);
    }
    if (o->args->value[OPT_FILES])
        dir = o->args->value[OPT_FILES];
    pm_diag_source(o->diag, path, text, size);
    return pm_module_parse(o->arena, o->diag, path, text, size, dir, out_module);
}

static pm_status optimise(opt *o)
{
    pm_module *m;
    pm_out_file *out;
    const char *output = o->args->value[OPT_OUTPUT];
    long long serial = 0;
    PM_TRY(load(o, &m));
    (void)pm_cli_int(o->args, OPT_BREAK_ON_OP, 0, UINT32_MAX, &serial); // checked before
    m->break_on_op = (uint32_t)serial;
    PM_TRY(pm_passes_run(m, &o->run));
    if (!output || strcmp(output, "-") == 0) {
        pm_module_print(m, stdout);
        return PM_OK;
    }
    PM_TRY(pm_out_open(o->arena, o->diag, output, 0644, &out));
    pm_module_print(m, out->stream);
    return pm_out_commit(o->diag, out);
}

/// "cpu0,emu0": what pimoec takes a CPU for, and then devices ten times as fast.
static void take_devices(opt *o, const char *names)
{
    char *rest = NULL;
    pm_device *devices = PM_NEW_ARRAY(o->arena, pm_device, strlen(names) + 1);
    for (char *name = strtok_r(pm_arena_strdup(o->arena, names), ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        double speed = o->passes.n_devices > 0 ? 10 : 1;
        devices[o->passes.n_devices++] = (pm_device){.name = name, .bytes_per_second = speed * 40e9,
                                                     .flops_per_second = speed * 200e9, .link_bytes_per_second = 40e9,
                                                     .memory = UINT64_MAX};
    }
    o->passes.devices = devices;
}

/// Options from the command line; -1 or an exit code.
static int take(opt *o)
{
    const pm_cli_args *a = o->args;
    long long limit = -1, floats = 16, serial = 0;
    if (a->count[OPT_PASSES] && a->count[OPT_LEVEL])
        return pm_cli_usage(a->command, "--passes and -O%s both say which passes run", a->value[OPT_LEVEL]);
    if (a->count[OPT_MARKDOWN] && !a->count[OPT_LIST])
        return pm_cli_usage(a->command, "--markdown is for --list-passes");
    if (!pm_cli_int(a, OPT_PASS_LIMIT, 0, 1000000, &limit) || !pm_cli_int(a, OPT_VECTOR, 8, 16, &floats) ||
        !pm_cli_int(a, OPT_BREAK_ON_OP, 0, UINT32_MAX, &serial))
        return 2;
    o->passes = (pm_pass_options){
        .device_reads_codes = true,
        .opt_level = a->value[OPT_LEVEL] ? a->value[OPT_LEVEL][0] - '0' : 0, .vector_floats = (int32_t)floats,
        .quantize = a->value[OPT_QUANTIZE] ? a->value[OPT_QUANTIZE] : "none", .place = a->value[OPT_PLACE],
        .host_twins = a->value[OPT_PASSES] && strstr(a->value[OPT_PASSES], "host-twins")};
    take_devices(o, a->value[OPT_DEVICES] ? a->value[OPT_DEVICES] : "cpu0");
    bool all = a->count[OPT_PRINT_ALL];
    o->run = (pm_pass_run){
        .options = &o->passes, .passes = a->value[OPT_PASSES] ? a->value[OPT_PASSES] : a->count[OPT_LEVEL] ? NULL : "",
        .print_before = all ? "all" : a->value[OPT_PRINT_BEFORE],
        .print_after = all ? "all" : a->value[OPT_PRINT_AFTER], .print_changed = a->count[OPT_PRINT_CHANGED],
        .dump_dir = a->value[OPT_DUMP_DIR], .verify_each = a->count[OPT_VERIFY],
        .time_passes = a->count[OPT_TIME_PASSES], .stats = a->count[OPT_STATS], .stop_after = a->value[OPT_STOP_AFTER],
        .pass_limit = limit, .out = stderr};
    return -1;
}

int main(int argc, char **argv)
{
    pm_out_clean_on_signals();
    pm_arena *arena = pm_arena_create();
    if (!arena)
        return 3;
    pm_cli_args args;
    opt o = {.arena = arena, .args = &args};
    int code = pm_cli_parse(arena, &pm_cli_pimoe_opt, argc, argv, &args);
    if (code < 0)
        code = take(&o);
    if (code < 0 && args.count[OPT_LIST]) {
        pm_passes_describe(stdout, args.count[OPT_MARKDOWN]);
        code = 0;
    }
    if (code < 0) {
        o.diag = pm_diag_create(arena);
        code = pm_exit_code(optimise(&o));
        if (args.count[OPT_JSON])
            pm_diag_json(o.diag, stderr);
        else
            pm_diag_print(o.diag, stderr, isatty(STDERR_FILENO) && !getenv("NO_COLOR"));
    }
    pm_arena_destroy(arena);
    if (fflush(stdout) != 0 && code == 0) {
        perror("pimoe-opt: standard output");
        return 3;
    }
    return code;
}
