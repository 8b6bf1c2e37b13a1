/// What fuzz targets share: assertions that hold in every build, files in memory, a folder of their
/// own.
#ifndef PM_TESTS_FUZZ_UTIL_H
#define PM_TESTS_FUZZ_UTIL_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/diag.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define check(holds) ((holds) ? (void)0 : fuzz_failed(__FILE__, __LINE__, #holds))

static inline void fuzz_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s does not hold\n", file, line, what);
    abort();
}

static inline void fuzz_write(int fd, const void *bytes, size_t size)
{
    check(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
}

/// A file in memory that holds the bytes; its path is in `path`. Close the descriptor.
static inline int fuzz_memory_file(const void *bytes, size_t size, char path[64])
{
    int fd = memfd_create("input", MFD_CLOEXEC);
    fuzz_write(fd, bytes, size);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/// (Re)writes a file.
static inline void fuzz_put_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fuzz_write(fd, bytes, size);
    close(fd);
}

/// Copies a file.
static inline void fuzz_copy(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb");
    check(in != NULL);
    static uint8_t bytes[1 << 20];
    size_t n = fread(bytes, 1, sizeof bytes, in);
    check(n < sizeof bytes);
    fclose(in);
    fuzz_put_file(to, bytes, n);
}

static char fuzz_folder_path[64];

static inline void fuzz_folder_remove(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fuzz_folder_path);
    if (system(command) != 0)
        fprintf(stderr, "%s is left\n", fuzz_folder_path);
}

/// A folder in memory, removed at exit.
static inline const char *fuzz_folder(void)
{
    bool has_shm = access("/dev/shm", W_OK) == 0;
    snprintf(fuzz_folder_path, sizeof fuzz_folder_path, "%s/pm_fuzz_XXXXXX",
             has_shm ? "/dev/shm" : "/tmp");
    check(mkdtemp(fuzz_folder_path) != NULL);
    atexit(fuzz_folder_remove);
    return fuzz_folder_path;
}

/// A status and its messages agree: an error has at least one message, success has none, no status
/// that means a mistake of ours, and what is printed of the input is valid text.
static inline void fuzz_check_outcome(const pm_diag *diag, pm_status status)
{
    char *text = NULL;
    size_t n = 0;
    check((status == PM_OK) == (pm_diag_count(diag, PM_ERROR) == 0));
    check(status != PM_ERR_INTERNAL && status != PM_ERR_USAGE);
    FILE *out = open_memstream(&text, &n);
    pm_diag_print(diag, out, false);
    fclose(out);
    check((status == PM_OK) || n > 0);
    check(pm_utf8_check(text, n) == n);
    free(text);
}

#endif
