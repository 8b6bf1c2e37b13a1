#include "tools/cli/bug_report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

/// All that the handler of a crash needs is made beforehand: it may not allocate.
static char *script;
static size_t script_size;
static const char *model_path;
static char compiler_path[4096];
static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
enum { N_SIGNALS = sizeof crash_signals / sizeof crash_signals[0], STACK = 1 << 16 };
static bool taken[N_SIGNALS];

static void quoted(FILE *out, const char *word)
{
    fputc('\'', out);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    fputc('\'', out);
}

static void say(const char *text)
{
    ssize_t ignored = write(2, text, strlen(text));
    (void)ignored;
}

/// Appends text to a buffer, cut where it is full. (snprintf may not be called from a handler.)
static void append(char *buffer, size_t size, const char *text)
{
    size_t n = strlen(buffer);
    while (*text && n + 1 < size)
        buffer[n++] = *text++;
    buffer[n] = '\0';
}

static void append_number(char *buffer, size_t size, unsigned long value)
{
    char digits[24];
    int n = 23;
    digits[n] = '\0';
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    append(buffer, size, digits + n);
}

/// The model as IR, by another process: this one may be damaged. Removes what is not whole.
static bool write_ir(const char *path)
{
    char emit[] = "--emit=ir", limit[] = "--pass-limit=0", output[] = "-o", quiet[] = "-q";
    if (!model_path || !compiler_path[0])
        return false;
    char *argv[] = {compiler_path, (char *)model_path, emit, limit, quiet, output, (char *)path, NULL};
    char *environment[] = {(char *)"PIMOE_NO_BUG_REPORT=1", NULL};
    pid_t child = _Fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, 1);
        dup2(null, 2);
        alarm(60);
        execve(compiler_path, argv, environment);
        _exit(127);
    }
    int status = 1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return child > 0 && status == 0;
}

const char *pm_bug_report_write(const char *what)
{
    static char name[512], ir[512];
    if (!script || getenv("PIMOE_NO_BUG_REPORT"))
        return NULL;
    int fd = -1;
    static const char *const folders[] = {"", "/tmp/"};
    for (int i = 0; i < 2 && fd < 0; i++) {
        name[0] = ir[0] = '\0';
        append(name, sizeof name, folders[i]);
        append(name, sizeof name, "pimoe-bug-");
        append_number(name, sizeof name, (unsigned long)getpid());
        append(ir, sizeof ir, name);
        append(name, sizeof name, ".sh");
        append(ir, sizeof ir, ".pm");
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0700);
    }
    if (fd < 0)
        return NULL;
    bool have_ir = write_ir(ir);
    ssize_t ignored = write(fd, script, script_size);
    ignored = write(fd, "# what happened: ", 17);
    ignored = write(fd, what, strlen(what));
    ignored = write(fd, "\n", 1);
    if (have_ir) {
        ignored = write(fd, "# the model before any pass: ", 29);
        ignored = write(fd, ir, strlen(ir));
        ignored = write(fd, "\n", 1);
    }
    (void)ignored;
    close(fd);
    say("This is a bug of ours. Please send ");
    say(name);
    if (have_ir) {
        say(" and ");
        say(ir);
    }
    say(", which reproduce it.\n");
    return name;
}

static void on_crash(int number)
{
    static volatile sig_atomic_t busy;
    char what[64] = "signal ";
    if (busy)
        _exit(70);
    busy = 1;
    append_number(what, sizeof what, (unsigned long)number);
    say("\nerror: crashed by ");
    say(what);
    say("\n");
    pm_out_clean();
    pm_bug_report_write(what);
    _exit(70);
}

static void take_signals(void)
{
    static char stack[STACK];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)(SA_RESETHAND | SA_ONSTACK)};
    for (int i = 0; i < N_SIGNALS; i++) {
        struct sigaction former;
        // a sanitizer has its own handlers; that for SIGABRT is the one which removes temporary files, as ours does
        bool mine = sigaction(crash_signals[i], NULL, &former) == 0 &&
                    (former.sa_handler == SIG_DFL || crash_signals[i] == SIGABRT);
        taken[i] = mine && sigaction(crash_signals[i], &action, NULL) == 0;
    }
}

void pm_bug_report_init(int argc, char **argv)
{
    FILE *out = open_memstream(&script, &script_size);
    char folder[4096];
    if (!out)
        return;
    fprintf(out, "#!/bin/sh\n# %s " PM_VERSION " met a bug of its own with this command.\n",
            argc ? argv[0] : "pimoec");
    if (getcwd(folder, sizeof folder)) {
        fputs("cd ", out);
        quoted(out, folder);
        fputs(" || exit\n", out);
    }
    for (int i = 0; i < argc; i++) {
        fputs(i ? " " : "", out);
        quoted(out, argv[i]);
    }
    fputc('\n', out);
    if (fclose(out) != 0) {
        free(script);
        script = NULL;
        return;
    }
    // pimoec lies beside pimoe
    ssize_t n = readlink("/proc/self/exe", compiler_path, sizeof compiler_path - 8);
    compiler_path[n > 0 ? n : 0] = '\0';
    char *base = strrchr(compiler_path, '/');
    if (base)
        memcpy(base, "/pimoec", sizeof "/pimoec");
    take_signals();
}

void pm_bug_report_off(void)
{
    for (int i = 0; i < N_SIGNALS; i++)
        if (taken[i])
            signal(crash_signals[i], SIG_DFL);
}

void pm_bug_report_model(const char *path)
{
    model_path = path;
}
