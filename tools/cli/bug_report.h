/// A bug of ours leaves a file that reproduces it: a script with the command and, where it can still be read, the
/// model's IR; exit code 70.
#ifndef PM_TOOLS_BUG_REPORT_H
#define PM_TOOLS_BUG_REPORT_H

/// Remembers the command and takes the signals of crashes (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT), unless
/// something else (a sanitizer) has them. For main.
void pm_bug_report_init(int argc, char **argv);
/// Gives the signals back: what crashes now is not ours (a forked child that runs a model's code).
void pm_bug_report_off(void);
/// The model whose IR the report gets beside it; the text must stay.
void pm_bug_report_model(const char *path);
/// Writes the report and says on stderr where it is. Its name is returned (static), NULL when it could not be written.
const char *pm_bug_report_write(const char *what);

#endif
