#include "tools/pimoe/child_process.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

/// ---- children ---------------------------------------------------------------------------------------------

_Noreturn static void be_child(int (*work)(void *arg), void *arg, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); // it died before the line above
    static const int ours[] = {SIGINT, SIGTERM, SIGHUP}; // the parent cleans up
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        signal(ours[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    dup2(2, 1);
    int code = work(arg);
    fflush(NULL);
    _exit(code);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/// True when the child ended in time.
static bool wait_until(pid_t child, double deadline)
{
    int fd = pidfd_open(child, 0);
    for (;;) {
        double left = deadline - now();
        if (left <= 0)
            break;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, fd < 0 ? 10 : left > 3600 ? 3600000 : (int)(left * 1000) + 1);
        if (fd < 0 && waitid(P_PID, (id_t)child, &(siginfo_t){0}, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            kill(child, 0) != 0)
            break; // an old kernel: ask now and then
        if (n > 0) {
            close(fd);
            return true;
        }
        if (n < 0 && errno != EINTR)
            break;
    }
    if (fd >= 0)
        close(fd);
    return false;
}

pm_status pm_child_run(pm_diag *diag, int (*work)(void *arg), void *arg, double seconds, pm_child_end *out_end)
{
    *out_end = (pm_child_end){0};
    double deadline = now() + seconds;
    fflush(NULL);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return pm_error(diag, NULL, PM_ERR_IO, "fork: %s", strerror(errno));
    if (child == 0)
        be_child(work, arg, parent);
    int status = 0;
    if (!wait_until(child, deadline)) {
        out_end->timed_out = true;
        kill(child, SIGKILL);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return pm_error(diag, NULL, PM_ERR_IO, "waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status))
        out_end->signal = WTERMSIG(status);
    else
        out_end->exit_code = WEXITSTATUS(status);
    return PM_OK;
}

typedef struct mapping {
    void *bytes;
    size_t size;
} mapping;

static void unmap(void *arg)
{
    mapping *m = arg;
    munmap(m->bytes, m->size);
}

pm_status pm_shared_memory(pm_arena *arena, pm_diag *diag, size_t size, void **out)
{
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *out = NULL;
    if (bytes == MAP_FAILED)
        return pm_error(diag, NULL, PM_ERR_NO_MEMORY, "%zu bytes of shared memory: %s", size, strerror(errno));
    mapping *m = PM_NEW(arena, mapping);
    *m = (mapping){bytes, size};
    pm_arena_defer(arena, unmap, m);
    *out = bytes;
    return PM_OK;
}

/// ---- temporary folder -------------------------------------------------------------------------------------

/// The folder in use, for the handler of signals.
static char *volatile current_folder;

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(path);
}

static void forget_folder(void *path)
{
    remove_folder(path);
    current_folder = NULL;
}

/// Removes the folder in a process of its own (opendir is nothing for a handler), then ends by the signal.
static void on_signal(int number)
{
    pm_out_clean();
    if (current_folder) {
        char *argv[] = {(char *)"rm", (char *)"-rf", (char *)"--", current_folder, NULL};
        char *environment[] = {(char *)"PATH=/usr/bin:/bin", NULL};
        pid_t child = _Fork();
        if (child == 0) {
            execve("/bin/rm", argv, environment);
            _exit(127);
        }
        while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    raise(number); // SA_RESETHAND has restored the default
}

pm_status pm_temp_folder(pm_arena *arena, pm_diag *diag, char **out_path)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    const char *parent = getenv("TMPDIR");
    char *path = pm_arena_printf(arena, "%s/pimoe-XXXXXX", parent && *parent ? parent : "/tmp");
    *out_path = NULL;
    if (!mkdtemp(path))
        return pm_error(diag, NULL, PM_ERR_IO, "no temporary folder can be made (%s): %s", path, strerror(errno));
    current_folder = path;
    pm_arena_defer(arena, forget_folder, path);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction former;
        if (sigaction(signals[i], NULL, &former) == 0 && former.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
    *out_path = path;
    return PM_OK;
}
