/// Writes what is made from the option tables: man pages and the shells' completion.
///   pimoe-cli-docs man|zsh pimoec|pimoe|pimoe-opt      pimoe-cli-docs bash
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/containers.h"
#include "tools/cli/cli.h"

/// ---- man pages --------------------------------------------------------------------------------------------

/// Text for troff: hyphens of options, backslashes, dots and quotes at the start of a line.
static void troff(const char *text)
{
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
        start = *text == '\n';
    }
}

static void man_options(const pm_cli_command *c, const char *heading)
{
    for (size_t i = 0; i < c->n_options; i++) {
        const pm_cli_option *o = &c->options[i];
        if (heading && (i == 0 || strcmp(o->group, c->options[i - 1].group) != 0)) {
            printf("%s ", heading);
            troff(o->group);
            putchar('\n');
        }
        printf(".TP\n");
        if (o->letter)
            printf("\\fB\\-%c\\fR%s", o->letter, o->name ? ", " : "");
        if (o->letter && !o->name && o->value)
            printf(" \\fI%s\\fR", o->value);
        if (o->name) {
            printf("\\fB\\-\\-");
            troff(o->name);
            printf("\\fR");
            if (o->value)
                printf("=\\fI%s\\fR", o->value);
        }
        putchar('\n');
        troff(o->help);
        putchar('\n');
    }
}

static void man_examples(const pm_cli_command *c)
{
    printf(".nf\n");
    troff(c->examples);
    printf("\n.fi\n");
}

static void man_tail(const char *also)
{
    printf(".SH EXIT STATUS\n.TP\n0\ndone\n.TP\n1\nthe input is at fault, or differs\n.TP\n2\nusage\n.TP\n3\nI/O\n"
           ".TP\n70\na bug of ours; a file that reproduces it is left\n.TP\n128+n\nended by signal n\n"
           ".SH ENVIRONMENT\n.TP\nNO_COLOR\nno colour in messages\n.TP\nPIMOE_CACHE_DIR\n"
           "where compiled models and kernels are kept\n"
           ".TP\nPIMOE_CACHE_BYTES\nhow many bytes of them at most (10 GB of models, 512 MB of kernels)\n"
           ".TP\nCUDA_HOME\nthe CUDA toolkit that code for GPUs is made with (else: /usr/local/cuda)\n"
           ".TP\nTMPDIR\nwhere temporary files go\n"
           ".SH SEE ALSO\n%s\n", also);
}

static const pm_cli_command *program_of(const char *name)
{
    const pm_cli_command *const programs[] = {&pm_cli_pimoec, &pm_cli_pimoe, &pm_cli_pimoe_opt};
    for (size_t i = 0; i < PM_COUNT(programs); i++)
        if (strcmp(programs[i]->program, name) == 0)
            return programs[i];
    return NULL;
}

static int man(const char *program)
{
    const pm_cli_command *c = program_of(program);
    printf(".\\\" Made by pimoe-cli-docs from tools/cli/cli_options.c\n.TH ");
    for (const char *at = program; *at; at++)
        putchar(toupper((unsigned char)*at));
    printf(" 1 \"\" \"PiMoE %s\"\n.SH NAME\n%s \\- ", PM_VERSION, program);
    troff(c->summary);
    printf("\n.SH SYNOPSIS\n.B %s\n", program);
    troff(c->synopsis);
    printf("\n.SH DESCRIPTION\n");
    troff(c->text);
    putchar('\n');
    if (c != &pm_cli_pimoe) {
        printf(".SH OPTIONS\n");
        man_options(c, ".SS");
        printf(".SH EXAMPLES\n");
        man_examples(c);
        man_tail(c == &pm_cli_pimoec ? ".BR pimoe (1), pimoe-opt (1)" : ".BR pimoec (1), pimoe (1)");
        return 0;
    }
    printf(".SH COMMANDS\n");
    for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++) {
        const pm_cli_command *k = &pm_cli_pimoe_commands[i];
        printf(".SS pimoe %s ", k->name);
        troff(k->synopsis);
        printf("\n");
        troff(k->summary);
        printf(".\n");
        if (k->text) {
            printf(".PP\n");
            troff(k->text);
            printf("\n");
        }
        man_options(k, NULL);
        printf(".PP\n");
        man_examples(k);
    }
    printf(".SH EXAMPLES\n");
    man_examples(c);
    man_tail(".BR pimoec (1), pimoe-opt (1)");
    return 0;
}

/// ---- bash -------------------------------------------------------------------------------------------------

static void bash_values(const pm_cli_command *c)
{
    printf("        case $option in\n");
    for (size_t i = 0; i < c->n_options; i++) {
        const pm_cli_option *o = &c->options[i];
        if (!o->value)
            continue;
        printf("        ");
        if (o->letter)
            printf("-%c%s", o->letter, o->name ? "|" : "");
        if (o->name)
            printf("--%s", o->name);
        if (!o->choices)
            printf(") return ;;\n");
        else if (o->choices[0] == '@')
            printf(") COMPREPLY=($(compgen %s -- \"$cur\")); return ;;\n", o->choices[1] == 'd' ? "-d" : "-f");
        else
            printf(") COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", o->choices);
    }
    printf("        esac\n        if [[ $cur == -* ]]; then\n            COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].name)
            printf("--%s ", c->options[i].name);
        else
            printf("-%c ", c->options[i].letter);
    printf("--help --version' -- \"$cur\"))\n        else\n            COMPREPLY=($(compgen -f -- \"$cur\"))\n"
           "        fi\n");
}

static int bash(void)
{
    printf("# bash completion of pimoec, pimoe-opt and pimoe; made by pimoe-cli-docs from tools/cli/cli_options.c\n"
           "_pimoe_word() {\n"
           "    # the word under the cursor and the option whose value it is: bash cuts words at =\n"
           "    cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    if [[ $cur == = ]]; then\n        cur=\n"
           "    elif [[ $option == = ]]; then\n        option=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n}\n\n"
           "_pimoec() {\n    local cur option\n    _pimoe_word\n    {\n");
    bash_values(&pm_cli_pimoec);
    printf("    }\n}\n\n_pimoe_opt() {\n    local cur option\n    _pimoe_word\n    {\n");
    bash_values(&pm_cli_pimoe_opt);
    printf("    }\n}\n\n_pimoe() {\n    local cur option\n    _pimoe_word\n    if ((COMP_CWORD == 1)); then\n"
           "        COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++)
        printf("%s ", pm_cli_pimoe_commands[i].name);
    printf("--help --version' -- \"$cur\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++) {
        printf("    %s)\n", pm_cli_pimoe_commands[i].name);
        bash_values(&pm_cli_pimoe_commands[i]);
        printf("        ;;\n");
    }
    printf("    esac\n}\n\ncomplete -o filenames -F _pimoec pimoec\n"
           "complete -o filenames -F _pimoe_opt pimoe-opt\ncomplete -o filenames -F _pimoe pimoe\n");
    return 0;
}

/// ---- zsh --------------------------------------------------------------------------------------------------

/// Help within '…[…]': quotes, brackets and colons mean something there.
static void zsh_help(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (*text == '[' || *text == ']' || *text == ':')
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void zsh_one(const pm_cli_option *o, bool letter)
{
    printf("        '%s", o->repeat ? "*" : "");
    if (letter)
        printf("-%c%s[", o->letter, o->value ? "+" : "");
    else
        printf("--%s%s[", o->name, o->value ? "=" : "");
    zsh_help(o->help);
    printf("]");
    if (o->value) {
        printf(":");
        zsh_help(o->value);
        printf(":");
        if (o->choices && o->choices[0] == '@')
            printf(o->choices[1] == 'd' ? "_files -/" : "_files");
        else if (o->choices)
            printf("(%s)", o->choices);
    }
    printf("' \\\n");
}

static void zsh_arguments(const pm_cli_command *c)
{
    printf("    _arguments -s \\\n");
    for (size_t i = 0; i < c->n_options; i++) {
        if (c->options[i].letter)
            zsh_one(&c->options[i], true);
        if (c->options[i].name)
            zsh_one(&c->options[i], false);
    }
    printf("        '--help[examples and all options]' \\\n        '--version[the version]' \\\n");
    printf(c->max_operands ? "        '*:%s:_files'\n" : "        ':%s:'\n", c->operand ? c->operand : "");
}

static int zsh(const char *program)
{
    printf("#compdef %s\n# made by pimoe-cli-docs from tools/cli/cli_options.c\n", program);
    if (strcmp(program, "pimoec") == 0) {
        printf("_pimoec() {\n");
        zsh_arguments(&pm_cli_pimoec);
        printf("}\n\n_pimoec \"$@\"\n");
        return 0;
    }
    if (strcmp(program, "pimoe-opt") == 0) {
        printf("_pimoe_opt() {\n");
        zsh_arguments(&pm_cli_pimoe_opt);
        printf("}\n\n_pimoe_opt \"$@\"\n");
        return 0;
    }
    for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++) {
        printf("_pimoe_%s() {\n", pm_cli_pimoe_commands[i].name);
        zsh_arguments(&pm_cli_pimoe_commands[i]);
        printf("}\n\n");
    }
    printf("_pimoe() {\n    local -a commands=(\n");
    for (size_t i = 0; i < pm_cli_n_pimoe_commands; i++) {
        printf("        '%s:", pm_cli_pimoe_commands[i].name);
        zsh_help(pm_cli_pimoe_commands[i].summary);
        printf("'\n");
    }
    printf("    )\n    if ((CURRENT == 2)); then\n        _describe command commands\n        return\n    fi\n"
           "    local command=$words[2]\n    shift words\n    ((CURRENT--))\n"
           "    (($+functions[_pimoe_$command])) && _pimoe_$command\n}\n\n_pimoe \"$@\"\n");
    return 0;
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "", *program = argc > 2 ? argv[2] : "";
    bool known = program_of(program) != NULL;
    if (strcmp(kind, "bash") == 0)
        return bash();
    if (strcmp(kind, "man") == 0 && known)
        return man(program);
    if (strcmp(kind, "zsh") == 0 && known)
        return zsh(program);
    fprintf(stderr, "usage: pimoe-cli-docs man|zsh pimoec|pimoe|pimoe-opt, bash\n");
    return 2;
}
