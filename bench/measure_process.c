/// Runs a command and measures it from outside: milliseconds until its first byte on standard
/// output and until its end, those that it computed (itself and the system for it), and its peak
/// memory. One line of JSON per run.
///
///   measure_process [-n RUNS] [-i STDIN] [-o STDOUT] [-e STDERR] COMMAND [ARGUMENTS]
///
/// It is a small C program because a child's ru_maxrss begins with what its parent had mapped, and
/// because starting a process from a large interpreter takes longer than some of what is measured.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double milliseconds(struct timeval t)
{
    return (double)t.tv_sec * 1e3 + (double)t.tv_usec * 1e-3;
}

static int failed(const char *what)
{
    fprintf(stderr, "measure_process: %s: %s\n", what, strerror(errno));
    return 3;
}

static int run(char **command, const char *in, const char *out, const char *err)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return failed("pipe");
    int copy = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (copy < 0)
        return failed(out);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, in, O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    pid_t pid;
    double start = now(), first = 0;
    errno = posix_spawnp(&pid, command[0], &actions, NULL, command, environ);
    if (errno != 0)
        return failed(command[0]);
    close(pipes[1]);
    char buffer[65536];
    for (ssize_t n; (n = read(pipes[0], buffer, sizeof buffer)) != 0;) {
        if (n < 0 && errno != EINTR)
            return failed("read");
        if (first == 0)
            first = now() - start;
        if (n > 0 && write(copy, buffer, (size_t)n) != n)
            return failed(out);
    }
    int status;
    struct rusage usage;
    if (wait4(pid, &status, 0, &usage) != pid)
        return failed("wait");
    double end = now() - start;
    printf("{\"first_ms\": %.4f, \"end_ms\": %.4f, \"peak_mb\": %.3f, \"cpu_ms\": %.3f, \"exit\": %d}\n", first, end,
           (double)usage.ru_maxrss / 1024, milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime),
           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    fflush(stdout);
    close(pipes[0]);
    close(copy);
    posix_spawn_file_actions_destroy(&actions);
    return 0;
}

int main(int argc, char **argv)
{
    const char *in = "/dev/null", *out = "/dev/null", *err = "/dev/null";
    int runs = 1, code = 0;
    for (int option; (option = getopt(argc, argv, "+n:i:o:e:")) != -1;) {
        switch (option) {
        case 'n': runs = atoi(optarg); break;
        case 'i': in = optarg; break;
        case 'o': out = optarg; break;
        case 'e': err = optarg; break;
        default: return 2;
        }
    }
    if (optind == argc) {
        fprintf(stderr, "usage: measure_process [-n RUNS] [-i STDIN] [-o STDOUT] [-e STDERR] COMMAND [ARGUMENTS]\n");
        return 2;
    }
    for (int i = 0; i < runs && code == 0; i++)
        code = run(argv + optind, in, out, err);
    return code;
}
