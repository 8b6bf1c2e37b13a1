// An LD_PRELOAD library that makes chosen calls of a program fail, to see that each failure ends in
// a clean error. Chosen by the environment (counting starts at 1, per kind of call):
//
//   PM_FAIL_MALLOC=n   malloc, calloc, realloc, aligned_alloc, posix_memalign, strdup
//   PM_FAIL_OPEN=n     open, openat, openat2, fopen        PM_FAIL_READ=n    read, pread
//   PM_FAIL_WRITE=n    write, pwrite, copy_file_range      PM_FAIL_MMAP=n    mmap
//   PM_FAIL_SYNC=n     fsync, fdatasync                    PM_FAIL_RENAME=n  rename
//   PM_FAIL_MODE       once (default): the nth call; every: each nth; from: the nth and all later
//   PM_FAIL_ERRNO      a number in place of the kind's usual one (EINTR is 4, ENOSPC 28)
//   PM_FAIL_CALLER     program: count only calls from the program itself, not from its libraries
//   PM_FAIL_MARK       file that is created when a call was made to fail
//   PM_SHORT_IO=n      read and write handle at most n bytes a call
//
// Not for programs built with ASan, which brings its own malloc.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// the allocator under the names that can't be interposed, since dlsym itself allocates
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

typedef enum kind { MALLOC, OPEN, READ, WRITE, MMAP, SYNC, RENAME, N_KINDS } kind;

static struct {
    const char *variable;
    int usual_errno;
    unsigned long nth; ///< 0: never
    atomic_ulong n_calls;
} kinds[N_KINDS] = {
    [MALLOC] = {"PM_FAIL_MALLOC", ENOMEM, 0, 0}, [OPEN] = {"PM_FAIL_OPEN", EMFILE, 0, 0},
    [READ] = {"PM_FAIL_READ", EIO, 0, 0},        [WRITE] = {"PM_FAIL_WRITE", ENOSPC, 0, 0},
    [MMAP] = {"PM_FAIL_MMAP", ENOMEM, 0, 0},     [SYNC] = {"PM_FAIL_SYNC", EIO, 0, 0},
    [RENAME] = {"PM_FAIL_RENAME", EACCES, 0, 0},
};

static enum { ONCE, EVERY, FROM } mode;
static int chosen_errno;
static size_t short_io;
static const char *mark;
static bool program_only;
static uintptr_t program_start, program_end;
static bool is_ready; ///< nothing fails before the constructor has run

typedef long syscall_fn(long number, ...);
static syscall_fn *real_syscall;

/// The next definition of a function; written through memory because ISO C has no such cast.
static void find_real(const char *name, void *out_function)
{
    void *address = dlsym(RTLD_NEXT, name);
    memcpy(out_function, &address, sizeof address);
}

/// The first object that the loader lists is the program.
static int find_program(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    program_start = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t end = start + info->dlpi_phdr[i].p_memsz;
        program_start = start < program_start ? start : program_start;
        program_end = end > program_end ? end : program_end;
    }
    return 1;
}

static unsigned long number_from(const char *variable)
{
    const char *text = getenv(variable);
    return text == NULL ? 0 : strtoul(text, NULL, 10);
}

__attribute__((constructor)) static void start(void)
{
    find_real("syscall", &real_syscall);
    dl_iterate_phdr(find_program, NULL);
    for (int k = 0; k < N_KINDS; k++)
        kinds[k].nth = number_from(kinds[k].variable);
    const char *word = getenv("PM_FAIL_MODE");
    mode = word == NULL                 ? ONCE
           : strcmp(word, "every") == 0 ? EVERY
           : strcmp(word, "from") == 0  ? FROM
                                        : ONCE;
    word = getenv("PM_FAIL_CALLER");
    program_only = word != NULL && strcmp(word, "program") == 0;
    mark = getenv("PM_FAIL_MARK");
    chosen_errno = (int)number_from("PM_FAIL_ERRNO");
    short_io = number_from("PM_SHORT_IO");
    is_ready = true;
}

/// Counts a call; when it shall fail, sets errno and returns true.
static bool fails(kind k, const void *caller)
{
    if (!is_ready || kinds[k].nth == 0)
        return false;
    uintptr_t at = (uintptr_t)caller;
    if (program_only && (at < program_start || at >= program_end))
        return false;
    unsigned long call = atomic_fetch_add(&kinds[k].n_calls, 1) + 1;
    bool is_hit = mode == ONCE    ? call == kinds[k].nth
                  : mode == EVERY ? call % kinds[k].nth == 0
                                  : call >= kinds[k].nth;
    if (!is_hit)
        return false;
    if (mark != NULL) {
        int fd =
            (int)real_syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (fd >= 0)
            real_syscall(SYS_close, fd);
    }
    errno = chosen_errno != 0 ? chosen_errno : kinds[k].usual_errno;
    return true;
}

#define FAILS(k) fails((k), __builtin_return_address(0))

static size_t shortened(size_t size)
{
    return short_io != 0 && size > short_io ? short_io : size;
}

// ---- memory ----

void *malloc(size_t size)
{
    return FAILS(MALLOC) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return FAILS(MALLOC) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return FAILS(MALLOC) ? NULL : __libc_realloc(old, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    return FAILS(MALLOC) ? NULL : __libc_memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
    if (FAILS(MALLOC))
        return ENOMEM;
    *out = __libc_memalign(align, size);
    return *out == NULL ? ENOMEM : 0;
}

char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = FAILS(MALLOC) ? NULL : __libc_malloc(size);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (FAILS(MMAP))
        return MAP_FAILED;
    if (real_syscall == NULL) // the loader may map before our constructor
        find_real("syscall", &real_syscall);
    return (void *)real_syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

// ---- files ----

/// A variadic open's mode argument, where there is one.
#define MODE_ARGUMENT(flags, mode)                                                                 \
    mode_t mode = 0;                                                                               \
    if (((flags) & (O_CREAT | __O_TMPFILE)) != 0) {                                                \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = va_arg(ap, mode_t);                                                                 \
        va_end(ap);                                                                                \
    }

int open(const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags, permissions)
    return FAILS(OPEN) ? -1 : (int)real_syscall(SYS_openat, AT_FDCWD, path, flags, permissions);
}

int openat(int folder, const char *path, int flags, ...)
{
    MODE_ARGUMENT(flags, permissions)
    return FAILS(OPEN) ? -1 : (int)real_syscall(SYS_openat, folder, path, flags, permissions);
}

int open64(const char *, int, ...) __attribute__((alias("open")));
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));

FILE *fopen(const char *path, const char *how)
{
    static FILE *(*real)(const char *, const char *);
    if (real == NULL)
        find_real("fopen", &real);
    return FAILS(OPEN) ? NULL : real(path, how);
}

FILE *fopen64(const char *, const char *) __attribute__((alias("fopen")));

/// openat2 has no wrapper in the C library.
long syscall(long number, ...)
{
    long arguments[6];
    va_list ap;
    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_openat2 && FAILS(OPEN))
        return -1;
    if (real_syscall == NULL)
        find_real("syscall", &real_syscall);
    return real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3],
                        arguments[4], arguments[5]);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    return FAILS(READ) ? -1 : real_syscall(SYS_read, fd, buffer, shortened(size));
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    return FAILS(READ) ? -1 : real_syscall(SYS_pread64, fd, buffer, shortened(size), offset);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    return FAILS(WRITE) ? -1 : real_syscall(SYS_write, fd, buffer, shortened(size));
}

ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    return FAILS(WRITE) ? -1 : real_syscall(SYS_pwrite64, fd, buffer, shortened(size), offset);
}

ssize_t pread64(int, void *, size_t, off_t) __attribute__((alias("pread")));
ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));

ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t size, unsigned flags)
{
    return FAILS(WRITE)
               ? -1
               : real_syscall(SYS_copy_file_range, in, in_at, out, out_at, shortened(size), flags);
}

int fsync(int fd)
{
    return FAILS(SYNC) ? -1 : (int)real_syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return FAILS(SYNC) ? -1 : (int)real_syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    return FAILS(RENAME) ? -1 : (int)real_syscall(SYS_rename, from, to);
}
