#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/// Opening never waits (a FIFO would) and never makes a terminal ours.
enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

static pm_loc file_loc(const char *path)
{
    return (pm_loc){.file = path};
}

static void close_file(void *arg)
{
    pm_file *file = arg;
    if (file->data != NULL && file->size > 0)
        munmap((void *)(uintptr_t)file->data, (size_t)file->size);
    if (file->fd >= 0)
        close(file->fd);
}

/// A file object that the arena already owns, so that no failure later can leak its descriptor.
static pm_file *new_file(pm_arena *arena, const char *path)
{
    pm_file *file = PM_NEW(arena, pm_file);
    file->path = pm_arena_strdup(arena, path);
    file->fd = -1;
    pm_arena_defer(arena, close_file, file);
    return file;
}

static int open_retrying(int folder, const char *path, int flags)
{
    int fd;
    do
        fd = openat(folder, path, flags);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/// Takes size from the system; refuses what isn't a regular file.
static pm_status check_regular(pm_diag *diag, const pm_loc *loc, pm_file *file,
                               struct stat *out_info)
{
    if (fstat(file->fd, out_info) != 0)
        return pm_error(diag, loc, PM_ERR_IO, "can't examine '%s': %s", file->path,
                        strerror(errno));
    if (!S_ISREG(out_info->st_mode))
        return pm_error(diag, loc, PM_ERR_INVALID, "'%s' is %s, expected a regular file",
                        file->path, S_ISDIR(out_info->st_mode) ? "a folder" : "a special file");
    file->size = (uint64_t)out_info->st_size;
    return PM_OK;
}

pm_status pm_file_open(pm_arena *arena, pm_diag *diag, const char *path, pm_file **out_file)
{
    *out_file = NULL;
    pm_file *file = new_file(arena, path);
    pm_loc loc = file_loc(path);
    file->fd = open_retrying(AT_FDCWD, path, OPEN_FLAGS);
    if (file->fd < 0)
        return pm_error(diag, &loc, PM_ERR_IO, "can't open '%s': %s", path, strerror(errno));
    struct stat info;
    PM_TRY(check_regular(diag, &loc, file, &info));
    *out_file = file;
    return PM_OK;
}

/// What openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS does, for kernels and sandboxes without
/// it: one component at a time, never following a link, and no `..` at all.
static int open_by_components(int folder, const char *relative)
{
    int at = folder;
    const char *rest = relative;
    for (;;) {
        const char *slash = strchr(rest, '/');
        size_t n = slash == NULL ? strlen(rest) : (size_t)(slash - rest);
        char component[NAME_MAX + 1] = "";
        int fd = -1;
        if (n > NAME_MAX) {
            errno = ENAMETOOLONG;
        } else if (n == 2 && rest[0] == '.' && rest[1] == '.') {
            errno = EXDEV;
        } else {
            memcpy(component, rest, n);
            component[n] = '\0';
            const char *name = n == 0 ? "." : component; // "a//b" is "a/b"
            fd = open_retrying(at, name,
                               slash == NULL ? OPEN_FLAGS | O_NOFOLLOW
                                             : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        int reason = errno;
        struct stat info;
        if (fd < 0 && reason == ENOTDIR && n <= NAME_MAX &&
            fstatat(at, component, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode))
            reason = ELOOP; // as openat2 says it
        if (at != folder)
            close(at);
        errno = reason;
        if (fd < 0 || slash == NULL)
            return fd;
        at = fd;
        rest = slash + 1;
    }
}

static int open_beneath(int folder, const char *relative)
{
    struct open_how how = {
        .flags = (uint64_t)OPEN_FLAGS,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd;
    do
        fd = syscall(SYS_openat2, folder, relative, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    // sandboxes that don't know the call answer ENOSYS or EPERM
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_by_components(folder, relative);
    return (int)fd;
}

pm_status pm_file_open_beneath(pm_arena *arena, pm_diag *diag, const pm_loc *loc, const char *dir,
                               const char *relative, pm_file **out_file)
{
    *out_file = NULL;
    if (relative[0] == '\0')
        return pm_error(diag, loc, PM_ERR_INVALID, "the name of the file is empty");
    if (relative[0] == '/')
        return pm_error(diag, loc, PM_ERR_INVALID,
                        "'%s' is an absolute path, expected one beneath '%s'", relative, dir);
    pm_file *file = new_file(arena, pm_path_join(arena, dir, relative));
    int folder = open_retrying(AT_FDCWD, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return pm_error(diag, loc, PM_ERR_IO, "can't open folder '%s': %s", dir, strerror(errno));
    file->fd = open_beneath(folder, relative);
    int reason = errno;
    close(folder);
    if (file->fd < 0 && reason == EXDEV)
        return pm_error(diag, loc, PM_ERR_INVALID, "'%s' leaves the folder '%s'", relative, dir);
    if (file->fd < 0 && reason == ELOOP)
        return pm_error(diag, loc, PM_ERR_INVALID,
                        "'%s' goes through a symbolic link, which a model may not name", relative);
    if (file->fd < 0)
        return pm_error(diag, loc, PM_ERR_IO, "can't open '%s': %s", file->path, strerror(reason));
    struct stat info;
    PM_TRY(check_regular(diag, loc, file, &info));
    if (info.st_nlink > 1)
        return pm_error(diag, loc, PM_ERR_INVALID,
                        "'%s' has %ju hard links, expected a file with one name", file->path,
                        (uintmax_t)info.st_nlink);
    *out_file = file;
    return PM_OK;
}

pm_status pm_file_map(pm_arena *arena, pm_diag *diag, pm_file *file)
{
    (void)arena; // owned since it was opened
    static const uint8_t empty[1];
    if (file->data != NULL)
        return PM_OK;
    pm_loc loc = file_loc(file->path);
    if (file->size == 0) {
        file->data = empty;
        return PM_OK;
    }
    if (file->size > SIZE_MAX)
        return pm_error(diag, &loc, PM_ERR_IO, "can't map '%s': too large", file->path);
    void *data = mmap(NULL, (size_t)file->size, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (data == MAP_FAILED)
        return pm_error(diag, &loc, PM_ERR_IO, "can't map '%s': %s", file->path, strerror(errno));
    file->data = data;
    return PM_OK;
}

pm_status pm_file_read(pm_diag *diag, const pm_file *file, uint64_t offset, void *buffer,
                       size_t size)
{
    pm_loc loc = file_loc(file->path);
    if (offset > file->size || size > file->size - offset)
        return pm_error(diag, &loc, PM_ERR_INVALID,
                        "%zu bytes at %" PRIu64 " end beyond the file's %" PRIu64 " bytes", size,
                        offset, file->size);
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(file->fd, (char *)buffer + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pm_error(diag, &loc, PM_ERR_IO, "can't read '%s': %s", file->path,
                            strerror(errno));
        if (n == 0)
            return pm_error(diag, &loc, PM_ERR_IO, "'%s' became shorter while it was read",
                            file->path);
        done += (size_t)n;
    }
    return PM_OK;
}

// ---- output ----

static ssize_t write_all(void *cookie, const char *bytes, size_t size)
{
    pm_out_file *file = cookie;
    for (size_t done = 0; done < size;) {
        ssize_t n = write(file->fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = EIO;
            file->error = errno;
            return 0; // what stdio takes as a failure here
        }
        done += (size_t)n;
    }
    return (ssize_t)size;
}

static int seek_in(void *cookie, off64_t *offset, int whence)
{
    pm_out_file *file = cookie;
    off_t at = lseek(file->fd, (off_t)*offset, whence);
    if (at < 0)
        return -1;
    *offset = at;
    return 0;
}

/// Temporary files that exist now, for the signal handler: it may do nothing but read these slots
/// and unlink. What doesn't fit is merely not removed by a signal.
static _Atomic(const char *) pending_temps[64];

static void note_pending(pm_out_file *file)
{
    for (int i = 0; i < 64; i++) {
        const char *none = NULL;
        if (atomic_compare_exchange_strong(&pending_temps[i], &none, file->temp)) {
            file->pending = i + 1;
            return;
        }
    }
}

static void forget_pending(pm_out_file *file)
{
    if (file->pending != 0)
        atomic_store(&pending_temps[file->pending - 1], NULL);
    file->pending = 0;
}

void pm_out_clean(void)
{
    for (int i = 0; i < 64; i++) {
        const char *temp = atomic_load(&pending_temps[i]);
        if (temp != NULL)
            unlink(temp);
    }
}

static void clean_and_die(int signal_number)
{
    pm_out_clean();
    raise(signal_number); // SA_RESETHAND has restored the default, which ends the process
}

void pm_out_clean_on_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGABRT};
    struct sigaction action = {.sa_handler = clean_and_die, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction former;
        // who ignores a signal (nohup) goes on ignoring it
        if (sigaction(signals[i], NULL, &former) == 0 && former.sa_handler == SIG_DFL)
            sigaction(signals[i], &action, NULL);
    }
}

static void discard_out(void *arg)
{
    pm_out_file *file = arg;
    if (file->stream != NULL)
        fclose(file->stream);
    if (file->fd >= 0)
        close(file->fd);
    if (file->temp != NULL)
        unlink(file->temp);
    forget_pending(file);
    *file = (pm_out_file){.fd = -1};
}

/// Creates a file beside `path` under a name that nobody has. Sets errno on failure.
static int create_temp(pm_arena *arena, pm_out_file *file, unsigned mode)
{
    static atomic_uint counter;
    enum { TRIES = 100 };
    char *dir = pm_path_dir(arena, file->path);
    // room for the name first: once the file exists nothing may fail before it is recorded
    char *temp = pm_path_join(arena, dir, ".pimoe-pppppppppp-nnnnnnnnnn.tmp");
    size_t room = strlen(temp) + 1;
    size_t name_at = room - sizeof ".pimoe-pppppppppp-nnnnnnnnnn.tmp";
    for (int i = 0; i < TRIES; i++) {
        snprintf(temp + name_at, room - name_at, ".pimoe-%u-%u.tmp", (unsigned)getpid(),
                 atomic_fetch_add(&counter, 1));
        int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
        if (fd >= 0) {
            file->temp = temp;
            note_pending(file);
            return fd;
        }
        if (errno != EEXIST && errno != EINTR)
            break;
    }
    return -1;
}

pm_status pm_out_open(pm_arena *arena, pm_diag *diag, const char *path, unsigned mode,
                      pm_out_file **out_file)
{
    *out_file = NULL;
    pm_loc loc = file_loc(path);
    pm_out_file *file = PM_NEW(arena, pm_out_file);
    file->fd = -1;
    file->path = pm_arena_strdup(arena, path);
    pm_arena_defer(arena, discard_out, file);

    struct stat info;
    bool exists = stat(path, &info) == 0;
    if (path[0] == '\0')
        return pm_error(diag, NULL, PM_ERR_USAGE, "the name of the output file is empty");
    if (exists && S_ISDIR(info.st_mode))
        return pm_error(diag, &loc, PM_ERR_IO, "can't write '%s': it is a folder", path);
    // A device or a pipe (`-o /dev/null`) is written as it is: renaming would replace it. So are the links of /dev and
    // /proc that stand for open files: /dev/stdout may lead to a regular file, but must not become one.
    bool is_link = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    if (strcmp(path, "/dev/stdout") == 0)
        file->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3); // with its offset, and appending if it does
    else if (exists && (is_link || !S_ISREG(info.st_mode)))
        file->fd = open_retrying(AT_FDCWD, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    else
        file->fd = create_temp(arena, file, mode);
    if (file->fd < 0)
        return pm_error(diag, &loc, PM_ERR_IO, "can't create '%s': %s", path, strerror(errno));
    // stdio alone gives up on EINTR
    file->stream =
        fopencookie(file, "w", (cookie_io_functions_t){.write = write_all, .seek = seek_in});
    if (file->stream == NULL)
        return pm_error(diag, &loc, PM_ERR_NO_MEMORY, "can't create '%s': out of memory", path);
    *out_file = file;
    return PM_OK;
}

/// Makes the rename itself survive a power failure. Best effort: some file systems refuse it.
static void sync_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (n >= sizeof folder)
        return;
    memcpy(folder, path, n);
    folder[n] = '\0';
    int fd = open(n == 0 ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

static int fsync_retrying(int fd)
{
    int result;
    do
        result = fsync(fd);
    while (result != 0 && errno == EINTR);
    return result;
}

pm_status pm_out_commit(pm_diag *diag, pm_out_file *file)
{
    PM_ASSERT(file->stream != NULL);
    pm_loc loc = file_loc(file->path);
    FILE *stream = file->stream;
    errno = 0;
    bool ok = fflush(stream) == 0 && !ferror(stream);
    int reason = file->error != 0 ? file->error : errno;
    file->stream = NULL;
    if (fclose(stream) != 0 && ok) {
        ok = false;
        reason = file->error != 0 ? file->error : errno;
    }
    if (ok && file->temp != NULL && fsync_retrying(file->fd) != 0) {
        ok = false;
        reason = errno;
    }
    int fd = file->fd;
    file->fd = -1;
    if (close(fd) != 0 && errno != EINTR && ok) { // some file systems report a full disk here
        ok = false;
        reason = errno;
    }
    if (ok && file->temp != NULL && rename(file->temp, file->path) != 0) {
        ok = false;
        reason = errno;
    }
    if (!ok) {
        pm_status status = pm_error(diag, &loc, PM_ERR_IO, "can't write '%s': %s", file->path,
                                    reason != 0 ? strerror(reason) : "write failed");
        discard_out(file);
        return status;
    }
    forget_pending(file);
    if (file->temp != NULL)
        sync_folder(file->path);
    file->temp = NULL;
    return PM_OK;
}

char *pm_path_dir(pm_arena *arena, const char *path)
{
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] != '/')
        n--;
    if (n == 0)
        return pm_arena_strdup(arena, ".");
    while (n > 1 && path[n - 1] == '/')
        n--;
    return pm_arena_strndup(arena, path, n);
}

char *pm_path_join(pm_arena *arena, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    if (name[0] == '/' || n == 0)
        return pm_arena_strdup(arena, name);
    return pm_arena_printf(arena, "%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}
