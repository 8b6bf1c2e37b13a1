#include "tools/cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/containers.h"

typedef PM_VEC(const char *) words;

const char *pm_cli_name(const pm_cli_command *command, char *buffer, size_t size)
{
    snprintf(buffer, size, "%s%s%s", command->program, command->name ? " " : "",
             command->name ? command->name : "");
    return buffer;
}

bool pm_cli_colour(void)
{
    const char *no = getenv("NO_COLOR");
    return isatty(2) && !(no && *no);
}

int pm_cli_usage(const pm_cli_command *command, const char *fmt, ...)
{
    char name[64];
    va_list ap;
    pm_cli_name(command, name, sizeof name);
    fprintf(stderr, "%s: ", name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nTry '%s --help'.\n", name);
    return 2;
}

static words split(pm_arena *arena, const char *text)
{
    words list = {0};
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t n = strcspn(text, " ");
        PM_PUSH(arena, &list, pm_arena_strndup(arena, text, n));
        text += n;
    }
    return list;
}

const char *pm_cli_near(pm_arena *arena, const char *word, const char *choices)
{
    words list = split(arena, choices);
    return strlen(word) > 1 ? pm_nearest(word, list.data, list.n) : NULL; // one letter is near to any other
}

/// ---- help -------------------------------------------------------------------------------------------------

/// "  -o, --output=FILE" in at most 26 columns, else the help goes on the next line.
static void help_option(const pm_cli_option *o)
{
    char left[96];
    int n = 0;
    if (o->letter && o->name)
        n = snprintf(left, sizeof left, "  -%c, --%s%s%s", o->letter, o->name, o->value ? "=" : "",
                     o->value ? o->value : "");
    else if (o->letter)
        n = snprintf(left, sizeof left, "  -%c%s%s", o->letter, o->value ? " " : "", o->value ? o->value : "");
    else
        n = snprintf(left, sizeof left, "  --%s%s%s", o->name, o->value ? "=" : "", o->value ? o->value : "");
    printf(n > 25 ? "%s\n%26s" : "%-26s%s", left, n > 25 ? "" : "");
    size_t column = 26;
    for (const char *at = o->help; *at;) {
        size_t word = strcspn(at, " ");
        if (column > 26 && column + 1 + word > 110) {
            printf("\n%26s", "");
            column = 26;
        }
        column += (size_t)printf("%s%.*s", column > 26 ? " " : "", (int)word, at);
        at += word + strspn(at + word, " ");
    }
    putchar('\n');
}

void pm_cli_help(const pm_cli_command *c)
{
    char name[64];
    pm_cli_name(c, name, sizeof name);
    printf("Examples:\n");
    for (const char *at = c->examples; *at;) {
        size_t n = strcspn(at, "\n");
        printf("  %.*s\n", (int)n, at);
        at += n + (at[n] == '\n');
    }
    printf("\n%s: %s\n\nUsage: %s %s\n", name, c->summary, name, c->synopsis);
    if (c->text)
        printf("\n%s\n", c->text);
    for (size_t i = 0; i < c->n_options; i++) {
        if (i == 0 || strcmp(c->options[i].group, c->options[i - 1].group) != 0)
            printf("\n%s\n", c->options[i].group);
        help_option(&c->options[i]);
    }
    if (c == &pm_cli_pimoe) {
        printf("\nCommands\n");
        for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++)
            printf("  %-24s%s\n", pm_cli_pimoe_commands[i].name, pm_cli_pimoe_commands[i].summary);
    }
    printf("\nExit codes: 0 done, 1 the input is at fault, 2 usage, 3 I/O, 70 a bug of ours (with a file that "
           "reproduces it), 128+n by signal.\n");
}

/// ---- parsing ----------------------------------------------------------------------------------------------

typedef struct parser {
    pm_arena *arena;
    const pm_cli_command *command;
    pm_cli_args *args;
    PM_VEC(struct pm_cli_given) given;
    PM_VEC(char *) operands;
} parser;

static int find_name(const pm_cli_command *c, const char *name, size_t n)
{
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].name && strlen(c->options[i].name) == n && strncmp(c->options[i].name, name, n) == 0)
            return (int)i;
    return -1;
}

static int find_letter(const pm_cli_command *c, char letter)
{
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].letter == letter)
            return (int)i;
    return -1;
}

static const char *shown(pm_arena *arena, const pm_cli_option *o)
{
    return o->name ? pm_arena_printf(arena, "--%s", o->name) : pm_arena_printf(arena, "-%c", o->letter);
}

static bool chosen(pm_arena *arena, const pm_cli_option *o, const char *value)
{
    if (!o->choices || o->open || o->choices[0] == '@')
        return true;
    words list = split(arena, o->choices);
    for (size_t i = 0; i < list.n; i++)
        if (strcmp(list.data[i], value) == 0)
            return true;
    return false;
}

/// Notes an option with its value; -1 or an exit code.
static int give(parser *p, int option, const char *value)
{
    const pm_cli_option *o = &p->command->options[option];
    if (value && !*value)
        return pm_cli_usage(p->command, "%s needs a %s", shown(p->arena, o), o->value);
    if (value && !chosen(p->arena, o, value)) {
        const char *near = pm_cli_near(p->arena, value, o->choices);
        return pm_cli_usage(p->command, "%s: there is no %s '%s'%s%s%s (there are: %s)", shown(p->arena, o), o->value,
                            value, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", o->choices);
    }
    const char *former = p->args->value[option];
    if (former && !o->repeat && strcmp(former, value) != 0)
        return pm_cli_usage(p->command, "%s was given twice: %s and %s", shown(p->arena, o), former, value);
    p->args->value[option] = value;
    p->args->count[option]++;
    struct pm_cli_given one = {option, value};
    PM_PUSH(p->arena, &p->given, one);
    return -1;
}

static int unknown(parser *p, const char *word)
{
    words names = {0};
    for (size_t i = 0; i < p->command->n_options; i++)
        if (p->command->options[i].name)
            PM_PUSH(p->arena, &names, p->command->options[i].name);
    PM_PUSH(p->arena, &names, "help");
    PM_PUSH(p->arena, &names, "version");
    size_t n = strcspn(word, "=");
    const char *name = pm_arena_strndup(p->arena, word, n);
    const char *near = pm_nearest(name + strspn(name, "-"), names.data, names.n);
    return pm_cli_usage(p->command, "unknown option '%s'%s%s%s", name, near ? "; did you mean '--" : "",
                        near ? near : "", near ? "'?" : "");
}

static int parse_long(parser *p, int argc, char **argv, int *i)
{
    const char *word = argv[*i] + 2;
    size_t n = strcspn(word, "=");
    int option = find_name(p->command, word, n);
    if (option < 0)
        return unknown(p, argv[*i]);
    const pm_cli_option *o = &p->command->options[option];
    if (!o->value) {
        if (word[n] == '=')
            return pm_cli_usage(p->command, "--%s takes no value", o->name);
        return give(p, option, NULL);
    }
    if (word[n] == '=')
        return give(p, option, word + n + 1);
    if (*i + 1 >= argc)
        return pm_cli_usage(p->command, "--%s needs a %s", o->name, o->value);
    return give(p, option, argv[++*i]);
}

/// "-qv", "-O3", "-o FILE".
static int parse_letters(parser *p, int argc, char **argv, int *i)
{
    for (const char *at = argv[*i] + 1; *at; at++) {
        int option = find_letter(p->command, *at);
        if (option < 0 && at == argv[*i] + 1 && at[1] && find_name(p->command, at, strcspn(at, "=")) >= 0)
            return pm_cli_usage(p->command, "unknown option '%s'; did you mean '-%s'?", argv[*i], argv[*i]);
        if (option < 0)
            return unknown(p, pm_arena_printf(p->arena, "-%c", *at));
        if (!p->command->options[option].value) {
            int code = give(p, option, NULL);
            if (code >= 0)
                return code;
            continue;
        }
        if (at[1])
            return give(p, option, at + 1);
        if (*i + 1 >= argc)
            return pm_cli_usage(p->command, "-%c needs a %s", *at, p->command->options[option].value);
        return give(p, option, argv[++*i]);
    }
    return -1;
}

static int parse_all(parser *p, int argc, char **argv)
{
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        int code = -1;
        if (only_operands || word[0] != '-' || !word[1]) {
            PM_PUSH(p->arena, &p->operands, word);
            if (p->command->stop_at_operand) {
                p->args->rest = argv + i + 1;
                p->args->n_rest = argc - i - 1;
                break;
            }
        } else if (strcmp(word, "--") == 0) {
            only_operands = true;
        } else if (strcmp(word, "--help") == 0 || (strcmp(word, "-h") == 0 && find_letter(p->command, 'h') < 0)) {
            pm_cli_help(p->command);
            return 0;
        } else if (strcmp(word, "--version") == 0) {
            printf("%s " PM_VERSION "\n", p->command->program);
            return 0;
        } else if (word[1] == '-') {
            code = parse_long(p, argc, argv, &i);
        } else {
            code = parse_letters(p, argc, argv, &i);
        }
        if (code >= 0)
            return code;
    }
    return -1;
}

int pm_cli_parse(pm_arena *arena, const pm_cli_command *command, int argc, char **argv, pm_cli_args *args)
{
    parser p = {.arena = arena, .command = command, .args = args};
    *args = (pm_cli_args){.command = command};
    int code = parse_all(&p, argc, argv);
    if (code >= 0)
        return code;
    args->given = p.given.data;
    args->n_given = p.given.n;
    args->operands = p.operands.data;
    args->n_operands = (int)p.operands.n;
    if (args->n_operands < command->min_operands)
        return pm_cli_usage(command, "a %s is missing", command->operand);
    if (args->n_operands > command->max_operands && command->max_operands == 0)
        return pm_cli_usage(command, "it takes no arguments; what is '%s'?", args->operands[0]);
    if (args->n_operands > command->max_operands)
        return pm_cli_usage(command, "one %s at a time; what is '%s'?", command->operand,
                            args->operands[command->max_operands]);
    return -1;
}

const char *pm_cli_joined(pm_arena *arena, const pm_cli_args *args, int option)
{
    const char *all = NULL;
    for (size_t i = 0; i < args->n_given; i++)
        if (args->given[i].option == option)
            all = all ? pm_arena_printf(arena, "%s,%s", all, args->given[i].value) : args->given[i].value;
    return all;
}

bool pm_cli_int(const pm_cli_args *args, int option, long long lo, long long hi, long long *inout)
{
    const char *text = args->value[option];
    if (!text)
        return true;
    const pm_cli_option *o = &args->command->options[option];
    char *end, letter[2] = {o->letter, 0};
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || v < lo || v > hi) {
        pm_cli_usage(args->command, "%s%s takes a whole number from %lld to %lld, not '%s'", o->name ? "--" : "-",
                     o->name ? o->name : letter, lo, hi, text);
        return false;
    }
    *inout = v;
    return true;
}

bool pm_cli_number(const pm_cli_args *args, int option, double *inout)
{
    const char *text = args->value[option];
    if (!text)
        return true;
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= 0) || v > 1e300) {
        pm_cli_usage(args->command, "--%s takes a number that is not negative, not '%s'",
                     args->command->options[option].name, text);
        return false;
    }
    *inout = v;
    return true;
}
