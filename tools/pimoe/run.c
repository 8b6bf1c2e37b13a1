/// pimoe run: compile (or take from the cache) and become the executable.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/diag.h"
#include "tools/pimoe/commands.h"
#include "tools/pimoe/compile_cache.h"

extern char **environ;

int pm_command_run(pm_arena *arena, const pm_cli_args *args)
{
    pm_diag *diag = pm_diag_create(arena);
    pm_compile_options options;
    pm_cached cached;
    const char *model = args->operands[0];
    if (!pm_take_compile_options(arena, args, &options))
        return 2;
    pm_status status =
        pm_cached_executable(arena, diag, model, &options, !args->count[RUN_NO_CACHE], "compiling", &cached);
    if (status != PM_OK)
        return pm_command_failed(diag, status);
    if (args->count[RUN_VERBOSE])
        fprintf(stderr, "%s: %s\n", cached.path, cached.compiled ? "compiled now" : "was compiled before");
    char **argv = PM_NEW_ARRAY(arena, char *, (size_t)args->n_rest + 2);
    argv[0] = (char *)(uintptr_t)model;
    for (int i = 0; i < args->n_rest; i++)
        argv[i + 1] = args->rest[i];
    // a temporary file loses its name before it runs: nobody has to remove it
    int fd = open(cached.path, O_RDONLY | O_CLOEXEC);
    if (cached.temporary)
        unlink(cached.path);
    if (fd >= 0)
        fexecve(fd, argv, environ);
    fprintf(stderr, "error: %s can't be run: %s%s\n", cached.path, strerror(errno),
            errno == EACCES ? "; may programs run from there? (PIMOE_CACHE_DIR, TMPDIR)" : "");
    return 3;
}
