// Calls of a session allocate nothing: after the first calls of a size neither malloc nor mmap nor
// their kin are called. This program replaces them by ones that count.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/e2e/e2e_model.h"

enum { VOCAB = 2048, TOKENS = 64 };

static long counted;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t align, size_t size);
extern void __libc_free(void *p);

static void count(void)
{
    __atomic_fetch_add(&counted, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    count();
    return __libc_realloc(p, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    count();
    return __libc_memalign(align, size);
}

void free(void *p)
{
    if (p != NULL)
        count();
    __libc_free(p);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    count();
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

int munmap(void *at, size_t size)
{
    count();
    return (int)syscall(SYS_munmap, at, size);
}

static e2e_lib lib;
static int failures;

static void expect(int holds, const char *what, long number)
{
    if (!holds) {
        fprintf(stderr, "FAIL: %s (%ld)\n", what, number);
        failures++;
    }
}

static const char *artifact(const char *name)
{
    static char path[4096];
    const char *dir = getenv("E2E_DIR");
    snprintf(path, sizeof path, "%s/%s", dir != NULL ? dir : ".", name);
    return path;
}

static void open_or_exit(const char *name, const char *symbol)
{
    char why[256];
    pm_status status;
    if (e2e_open(&lib, artifact(name), symbol, why, &status))
        return;
    fprintf(stderr, "%s\n", why);
    exit(1);
}

static pm_session *new_session(int threads)
{
    pm_session_options options = {.struct_size = sizeof options, .threads = threads};
    pm_session *session = NULL;
    if (lib.pm_session_create(lib.model, &options, &session) != PM_OK)
        exit(1);
    return session;
}

/// A prompt, then tokens one by one, twice; the second time must not allocate.
static void write_tokens(int threads, long *out_counted)
{
    static float logits[VOCAB];
    int64_t ids[TOKENS];
    pm_session *session = new_session(threads);
    int prefill = lib.pm_model_entry(lib.model, "prefill");
    int decode = lib.pm_model_entry(lib.model, "decode");
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i * 31 % VOCAB;
    for (int round = 0; round < 2; round++) {
        long before = counted;
        int64_t past = 0;
        while (past < TOKENS + 32) {
            int64_t n = past == 0 ? TOKENS : 1;
            pm_tensor_arg in[2] = {
                {.data = ids, .size = (size_t)n * 8, .rank = 2, .dims = {1, n}},
                {.data = &past, .size = 8, .rank = 1, .dims = {1}},
            };
            pm_tensor_arg out = {.data = logits, .size = sizeof logits};
            int entry = past == 0 ? prefill : decode;
            if (lib.pm_session_run(session, entry, in, 2, &out, 1) != PM_OK)
                expect(0, lib.pm_last_error(), past);
            past += n;
        }
        *out_counted = counted - before;
    }
    lib.pm_session_destroy(session);
}

/// A large elementwise entry on the caller's buffers: the memory of the process may not grow by
/// anything of their size, so nothing is copied.
static void check_no_copy(void)
{
    enum { N = 16 << 20 }; // 64 MiB each
    float *x = malloc(sizeof *x * N), *y = malloc(sizeof *y * N);
    pm_session *session = new_session(2);
    struct rusage before, after;
    for (long i = 0; i < N; i++) {
        x[i] = (float)(i & 1023);
        y[i] = -1;
    }
    getrusage(RUSAGE_SELF, &before);
    pm_tensor_arg in = {.data = x, .size = sizeof *x * N, .rank = 1, .dims = {N}};
    pm_tensor_arg out = {.data = y, .size = sizeof *y * N};
    if (lib.pm_session_run(session, 0, &in, 1, &out, 1) != PM_OK)
        expect(0, lib.pm_last_error(), 0);
    getrusage(RUSAGE_SELF, &after);
    expect(out.data == y, "another buffer came back", 0);
    expect(after.ru_maxrss - before.ru_maxrss < 8 << 10, "KiB of memory were added",
           after.ru_maxrss - before.ru_maxrss);
    for (long i = 0; i < N; i++)
        if (y[i] != (float)(i & 1023) * 2 + 1) {
            expect(0, "wrong result at", i);
            break;
        }
    lib.pm_session_destroy(session);
    free(x);
    free(y);
}

int main(void)
{
    long counts = 0;
    open_or_exit("classics.so", "classics");
    expect(counted > 0, "opening a library allocates: the counters don't work", counted);
    for (int threads = 1; threads <= 2; threads++) {
        write_tokens(threads, &counts);
        expect(counts == 0, "allocations in calls", counts);
    }
    e2e_close(&lib);
    open_or_exit("twice.so", "twice");
    check_no_copy();
    e2e_close(&lib);
    return failures != 0;
}
