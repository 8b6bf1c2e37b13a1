/// pimoe: everything around compiled models.
#include <errno.h>
#include <string.h>

#include "base/containers.h"
#include "base/file.h"
#include "tools/cli/bug_report.h"
#include "tools/pimoe/commands.h"

int pm_command_failed(const pm_diag *diag, pm_status status)
{
    pm_diag_print(diag, stderr, pm_cli_colour());
    return pm_exit_code(status);
}

bool pm_take_compile_options(pm_arena *arena, const pm_cli_args *args, pm_compile_options *out)
{
    const char *quantize = args->value[COMPILE_QUANTIZE];
    *out = (pm_compile_options){.struct_size = sizeof *out, .target = pm_cli_joined(arena, args, COMPILE_TARGET),
                                .quantize = quantize, .place = args->value[COMPILE_PLACE],
                                .opt_level = args->value[COMPILE_LEVEL] ? args->value[COMPILE_LEVEL][0] - '0' : -1};
    if (quantize && strcmp(quantize, "none") != 0 && strcmp(quantize, "bf16") != 0) {
        pm_cli_usage(args->command, "--quantize=%s is not there yet; there are: none, bf16", quantize);
        return false;
    }
    return true;
}

static int run_command(pm_arena *arena, int argc, char **argv)
{
    typedef int command_fn(pm_arena *arena, const pm_cli_args *args);
    static command_fn *const commands[] = {
        [PIMOE_INSPECT] = pm_command_inspect, [PIMOE_CHECK] = pm_command_check, [PIMOE_RUN] = pm_command_run,
        [PIMOE_BENCH] = pm_command_bench, [PIMOE_DOCTOR] = pm_command_doctor};
    pm_cli_args top, args;
    int code = pm_cli_parse(arena, &pm_cli_pimoe, argc, argv, &top);
    if (code >= 0)
        return code;
    const char *names[8], *name = top.operands[0];
    for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++) {
        names[i] = pm_cli_pimoe_commands[i].name;
        if (strcmp(names[i], name) != 0)
            continue;
        code = pm_cli_parse(arena, &pm_cli_pimoe_commands[i], top.n_rest + 1, top.rest - 1, &args);
        return code >= 0 ? code : commands[i](arena, &args);
    }
    const char *near = pm_nearest(name, names, pm_cli_n_pimoe_commands);
    return pm_cli_usage(&pm_cli_pimoe, "there is no command '%s'%s%s%s", name, near ? "; did you mean '" : "",
                        near ? near : "", near ? "'?" : " (there are: inspect, check, run, bench, doctor)");
}

int main(int argc, char **argv)
{
    pm_out_clean_on_signals();
    pm_bug_report_init(argc, argv);
    pm_arena *arena = pm_arena_create();
    if (!arena)
        return 3;
    int code = run_command(arena, argc, argv);
    pm_arena_destroy(arena);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "pimoe: standard output: %s\n", strerror(errno));
        return code ? code : 3;
    }
    return code;
}
