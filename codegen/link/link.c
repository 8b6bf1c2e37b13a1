/// Executables and shared libraries, by lld in this process: a user needs no compiler.
#include "codegen/link/link_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/embedded.h"
#include "codegen/link/lld_shim.h"
#include "runtime/artifact_format.h"

static void close_fd(void *arg)
{
    close((int)(intptr_t)arg);
}

pm_status pm_memory_file(pm_module *m, const char *name, const uint8_t *bytes, size_t size,
                         const char **out_path)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return pm_error(m->diag, NULL, PM_ERR_IO, "memfd_create: %s", strerror(errno));
    pm_arena_defer(m->arena, close_fd, (void *)(intptr_t)fd);
    for (size_t at = 0; at < size;) {
        ssize_t n = write(fd, bytes + at, size - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", name, strerror(errno));
        at += (size_t)n;
    }
    *out_path = pm_arena_printf(m->arena, "/proc/self/fd/%d", fd);
    return PM_OK;
}

/// The system's shared libraries, where Linux distributions have them.
static const char *system_library(pm_arena *arena, const char *name)
{
    static const char *const folders[] = {"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
                                          "/lib64", "/usr/lib64", "/usr/lib", "/lib"};
    for (size_t i = 0; i < PM_COUNT(folders); i++) {
        char *path = pm_path_join(arena, folders[i], name);
        if (access(path, R_OK) == 0)
            return path;
    }
    return NULL;
}

static pm_status run_lld(pm_module *m, const char *const *argv, size_t argc)
{
    char message[2048];
    if (pm_lld_link(argv, argc, message, sizeof message))
        return PM_OK;
    return pm_error(m->diag, NULL, PM_ERR_INTERNAL, "the linker failed: %s", message);
}

/// The output goes on behind what lld or the archiver wrote under its name.
static pm_status reopen(pm_module *m, pm_out_file *out)
{
    int fd = open(out->temp, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, out->fd) < 0)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", out->temp, strerror(errno));
    close(fd);
    if (fseeko(out->stream, 0, SEEK_END) != 0)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", out->temp, strerror(errno));
    return PM_OK;
}

pm_status pm_link(pm_module *m, pm_link_kind kind, const uint8_t *object, size_t object_size,
                  const char *symbol, pm_out_file *out)
{
    const char *code, *runtime, *start;
    const char *libc = system_library(m->arena, "libc.so.6");
    const char *libm = system_library(m->arena, "libm.so.6");
    if (!libc || !libm)
        return pm_error(m->diag, NULL, PM_ERR_IO, "the system's %s was not found",
                        libc ? "libm.so.6" : "libc.so.6");
    pm_embedded rt = pm_embedded_runtime(), crt = pm_embedded_start();
    PM_TRY(pm_memory_file(m, "model.o", object, object_size, &code));
    PM_TRY(pm_memory_file(m, "runtime.a", rt.bytes, rt.size, &runtime));
    PM_TRY(pm_memory_file(m, "start.o", crt.bytes, crt.size, &start));
    const char *argv[40];
    size_t n = 0;
    argv[n++] = "ld.lld";
    argv[n++] = "--gc-sections";
    argv[n++] = "--strip-all";
    argv[n++] = "--build-id=none";
    argv[n++] = "--hash-style=gnu";
    argv[n++] = "-z";
    argv[n++] = "relro";
    argv[n++] = "-z";
    argv[n++] = "now";
    argv[n++] = "-z";
    argv[n++] = "noexecstack";
    argv[n++] = "--threads=1";
    if (kind == PM_LINK_EXE) {
        argv[n++] = "-pie";
        argv[n++] = "-dynamic-linker";
        argv[n++] = "/lib64/ld-linux-x86-64.so.2";
        argv[n++] = start;
        argv[n++] = code;
        argv[n++] = runtime;
    } else {
        argv[n++] = "-shared";
        argv[n++] = pm_arena_printf(m->arena, "--undefined=pm_model_%s", symbol);
        argv[n++] = code;
        argv[n++] = "--whole-archive";
        argv[n++] = runtime;
        argv[n++] = "--no-whole-archive";
        argv[n++] = "--exclude-libs=NONE";
    }
    argv[n++] = "--as-needed";
    argv[n++] = libm;
    argv[n++] = libc;
    argv[n++] = "-o";
    argv[n++] = out->temp;
    PM_TRY(run_lld(m, argv, n));
    PM_TRY(reopen(m, out));
    struct stat st;
    if (fstat(out->fd, &st) != 0)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", out->temp, strerror(errno));
    uint64_t end = ((uint64_t)st.st_size + PM_PAYLOAD_ALIGN - 1) / PM_PAYLOAD_ALIGN * PM_PAYLOAD_ALIGN;
    if (ftruncate(out->fd, (off_t)end) != 0 || fseeko(out->stream, (off_t)end, SEEK_SET) != 0 ||
        fchmod(out->fd, 0755) != 0)
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", out->temp, strerror(errno));
    return PM_OK;
}

/// ---- objects and static libraries ------------------------------------------------------------------------

static void remove_file(void *path)
{
    unlink(path);
}

/// The payload as an object beside the output, removed with the arena.
static pm_status payload_beside(pm_module *m, const char *payload_path, const char *symbol,
                                const pm_out_file *out, char **out_path)
{
    *out_path = pm_arena_printf(m->arena, "%s.payload.o", out->temp);
    pm_arena_defer(m->arena, remove_file, *out_path);
    return pm_payload_object(m, payload_path, symbol, *out_path);
}

pm_status pm_link_library(pm_module *m, const uint8_t *object, size_t object_size,
                          const char *symbol, const char *payload_path, pm_out_file *out)
{
    const char *code, *runtime;
    char *payload, message[512];
    pm_embedded rt = pm_embedded_runtime();
    PM_TRY(pm_memory_file(m, "model.o", object, object_size, &code));
    PM_TRY(pm_memory_file(m, "runtime.a", rt.bytes, rt.size, &runtime));
    PM_TRY(payload_beside(m, payload_path, symbol, out, &payload));
    // The runtime's objects stay members of their own: a program may hold several such libraries.
    // All but those of the program that pimoec's executables are: the user has one.
    const pm_archive_member members[] = {{code, "model.o"}, {payload, "payload.o"}};
    unlink(out->temp);
    if (!pm_archive_write(out->temp, members, PM_COUNT(members), runtime, "rt_program", message,
                          sizeof message))
        return pm_error(m->diag, NULL, PM_ERR_IO, "%s: %s", out->path, message);
    return reopen(m, out);
}

pm_status pm_link_object(pm_module *m, const uint8_t *object, size_t object_size,
                         const char *symbol, const char *payload_path, pm_out_file *out)
{
    const char *code, *runtime;
    char *payload;
    pm_embedded rt = pm_embedded_runtime();
    PM_TRY(pm_memory_file(m, "model.o", object, object_size, &code));
    PM_TRY(pm_memory_file(m, "runtime.a", rt.bytes, rt.size, &runtime));
    PM_TRY(payload_beside(m, payload_path, symbol, out, &payload));
    // What the API needs of the runtime, which is all but the emitted program's own main.
    const char *argv[] = {"ld.lld", "-r", "-m", "elf_x86_64", "--threads=1",
                          "-u", "pm_model_open", "-u", "pm_session_run", "-u", "pm_generate",
                          "-u", "pm_tokenize", "-o", out->temp, code, payload, runtime};
    PM_TRY(run_lld(m, argv, PM_COUNT(argv)));
    return reopen(m, out);
}
