/// Preloaded into a tool: one of its calls to the system kills it. PIMOE_CRASH names the call.
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int wanted(const char *name)
{
    const char *crash = getenv("PIMOE_CRASH");
    return crash && strcmp(crash, name) == 0;
}

/// Called by what runs a compiled model, and by nothing before.
void *dlopen(const char *path, int flags)
{
    if (wanted("run"))
        raise(SIGSEGV);
    if (wanted("hang"))
        for (;;)
            pause();
    void *(*next)(const char *, int);
    void *symbol = dlsym(RTLD_NEXT, "dlopen");
    memcpy(&next, &symbol, sizeof next);
    return next(path, flags);
}

/// Called by the linker's part of the compiler.
int memfd_create(const char *name, unsigned flags)
{
    if (wanted("compile") && strcmp(name, "model.o") == 0)
        raise(SIGSEGV);
    int (*next)(const char *, unsigned);
    void *symbol = dlsym(RTLD_NEXT, "memfd_create");
    memcpy(&next, &symbol, sizeof next);
    return next(name, flags);
}
