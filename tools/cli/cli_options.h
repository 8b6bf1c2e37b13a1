/// The options of each command by number: index into its table (cli_options.c) and into pm_cli_args.
#ifndef PM_TOOLS_CLI_OPTIONS_H
#define PM_TOOLS_CLI_OPTIONS_H

#include "tools/cli/cli.h"

enum pimoec_option {
    C_OUTPUT, C_EMIT, C_ENTRY, C_SYMBOL,
    C_TARGET, C_LEVEL, C_QUANTIZE, C_CALIBRATE, C_PLACE,
    C_REPORT, C_JSON, C_TIME_PASSES, C_QUIET, C_VERBOSE,
    C_PASSES, C_PRINT_BEFORE, C_PRINT_AFTER, C_PRINT_ALL, C_PRINT_CHANGED, C_STOP_AFTER, C_PASS_LIMIT, C_VERIFY, C_STATS,
    C_DUMP_DIR,
    C_N
};

enum pimoe_opt_option {
    OPT_OUTPUT, OPT_FILES, OPT_PASSES, OPT_LEVEL, OPT_QUANTIZE, OPT_PLACE, OPT_DEVICES, OPT_VECTOR,
    OPT_PRINT_BEFORE, OPT_PRINT_AFTER, OPT_PRINT_ALL, OPT_PRINT_CHANGED, OPT_DUMP_DIR,
    OPT_STOP_AFTER, OPT_PASS_LIMIT, OPT_VERIFY, OPT_TIME_PASSES, OPT_STATS, OPT_BREAK_ON_OP, OPT_JSON,
    OPT_LIST, OPT_MARKDOWN,
    OPT_N
};

/// Options of how to compile come first and are alike for check, run and bench.
enum pimoe_compile_option { COMPILE_TARGET, COMPILE_QUANTIZE, COMPILE_LEVEL, COMPILE_PLACE, COMPILE_N };

enum pimoe_inspect_option { INSPECT_OPS, INSPECT_PLACE, INSPECT_TARGET, INSPECT_SHARDING, INSPECT_JSON, INSPECT_N };
enum pimoe_check_option {
    CHECK_IN = COMPILE_N, CHECK_WANT, CHECK_RTOL, CHECK_ATOL, CHECK_ENTRY, CHECK_THREADS, CHECK_TIMEOUT, CHECK_KEEP,
    CHECK_JSON, CHECK_N
};
enum pimoe_run_option { RUN_NO_CACHE = COMPILE_N, RUN_VERBOSE, RUN_N };
enum pimoe_bench_option {
    BENCH_ENTRY = COMPILE_N, BENCH_SHAPE, BENCH_REPEAT, BENCH_THREADS, BENCH_COMPARE, BENCH_FORMAT, BENCH_JSON, BENCH_N
};
enum pimoe_doctor_option { DOCTOR_JSON, DOCTOR_N };

/// Commands of pimoe, in the order of pm_cli_pimoe_commands.
enum pimoe_command { PIMOE_INSPECT, PIMOE_CHECK, PIMOE_RUN, PIMOE_BENCH, PIMOE_DOCTOR };

#endif
