/// Command lines of the tools: one table of options per command, from which come parsing, --help, the man pages and
/// the shells' completion.
#ifndef PM_TOOLS_CLI_H
#define PM_TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"

/// An option. `value` NULL: a flag. `choices`: words that are offered (separated by spaces), "@file" or "@dir" for
/// paths; with `open` other words may be right, too, otherwise they are refused.
typedef struct pm_cli_option {
    const char *name; ///< long name; NULL: only the letter
    char letter;      ///< 0: only the long name
    const char *value, *choices;
    bool open;
    bool repeat;      ///< may be given several times
    const char *group;
    const char *help;
} pm_cli_option;

/// A program (`name` NULL), or a command of one.
typedef struct pm_cli_command {
    const char *program, *name;
    const char *summary;  ///< half a sentence, as in a man page's NAME
    const char *synopsis; ///< what stands behind the name
    const char *examples; ///< lines: command, two or more spaces, what it does
    const char *text;     ///< paragraphs
    const pm_cli_option *options;
    size_t n_options;
    const char *operand;  ///< name of an operand, for errors; NULL: takes none
    int min_operands, max_operands;
    bool stop_at_operand; ///< all behind the first operand goes to another program
} pm_cli_command;

extern const pm_cli_command pm_cli_pimoec;
extern const pm_cli_command pm_cli_pimoe_opt;
extern const pm_cli_command pm_cli_pimoe; ///< the program itself; its commands:
extern const pm_cli_command pm_cli_pimoe_commands[];
extern const size_t pm_cli_n_pimoe_commands;

enum { PM_CLI_MAX_OPTIONS = 48 };

/// A parsed command line. Arrays in the arena given to pm_cli_parse; texts are argv's.
typedef struct pm_cli_args {
    const pm_cli_command *command;
    const char *value[PM_CLI_MAX_OPTIONS]; ///< last value, by the option's number; NULL: not given or a flag
    int count[PM_CLI_MAX_OPTIONS];         ///< how often given
    struct pm_cli_given {
        int option;
        const char *value;
    } *given; ///< all, in order
    size_t n_given;
    char **operands;
    int n_operands;
    char **rest; ///< with stop_at_operand: what follows the operand
    int n_rest;
} pm_cli_args;

/// Parses argv[1…]. Returns -1 to go on; else the exit code (help or version printed, or a usage error reported on
/// stderr with the nearest right name).
int pm_cli_parse(pm_arena *arena, const pm_cli_command *command, int argc, char **argv, pm_cli_args *args);

/// All values of an option that may be given several times, separated by commas; NULL: not given. In the arena.
const char *pm_cli_joined(pm_arena *arena, const pm_cli_args *args, int option);

/// Reports a usage error on stderr ("pimoec: …", "Try 'pimoec --help'.") and returns 2.
int pm_cli_usage(const pm_cli_command *command, const char *fmt, ...) PM_PRINTF(2, 3);
/// Prints the help on stdout.
void pm_cli_help(const pm_cli_command *command);
/// Whole number of an option's value within [lo, hi]; false: reported as a usage error.
bool pm_cli_int(const pm_cli_args *args, int option, long long lo, long long hi, long long *inout);
/// The same for a number that is not negative.
bool pm_cli_number(const pm_cli_args *args, int option, double *inout);
/// Whether messages on standard error get colour: on a terminal, unless NO_COLOR is set.
bool pm_cli_colour(void);
/// "pimoec" or "pimoe check".
const char *pm_cli_name(const pm_cli_command *command, char *buffer, size_t size);
/// The word that is nearest among choices ("exe obj"), or NULL; in the arena.
const char *pm_cli_near(pm_arena *arena, const char *word, const char *choices);

#endif
