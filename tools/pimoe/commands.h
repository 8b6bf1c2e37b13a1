/// The commands of pimoe: each parses its own command line and returns the exit code.
#ifndef PM_TOOLS_COMMANDS_H
#define PM_TOOLS_COMMANDS_H

#include "base/diag.h"
#include "pm/compiler.h"
#include "tools/cli/cli_options.h"

int pm_command_inspect(pm_arena *arena, const pm_cli_args *args);
int pm_command_check(pm_arena *arena, const pm_cli_args *args);
int pm_command_run(pm_arena *arena, const pm_cli_args *args);
int pm_command_bench(pm_arena *arena, const pm_cli_args *args);
int pm_command_doctor(pm_arena *arena, const pm_cli_args *args);

/// Compile options from COMPILE_…; false: reported as a usage error.
bool pm_take_compile_options(pm_arena *arena, const pm_cli_args *args, pm_compile_options *out);
/// Prints what the sink holds on stderr (colour on a terminal only) and returns the exit code of `status`.
int pm_command_failed(const pm_diag *diag, pm_status status);

#endif
