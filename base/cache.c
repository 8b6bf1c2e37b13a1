#include "base/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/containers.h"
#include "base/file.h"

/// ---- the folder -------------------------------------------------------------------------------------------

static void make_folder(char *path)
{
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = '\0';
            mkdir(path, 0700);
            *at = '/';
        }
    mkdir(path, 0700);
}

/// Ours alone to write.
static bool is_own(const struct stat *st)
{
    return st->st_uid == geteuid() && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

const char *pm_cache_folder(pm_arena *arena, const char *sub)
{
    const char *own = getenv("PIMOE_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *path = own && *own             ? pm_arena_strdup(arena, own)
                 : xdg && xdg[0] == '/'  ? pm_path_join(arena, xdg, "pimoe")
                 : home && home[0] == '/' ? pm_path_join(arena, home, ".cache/pimoe")
                                         : NULL;
    struct stat st;
    if (!path)
        return NULL;
    path = sub ? pm_path_join(arena, path, sub) : path;
    make_folder(path);
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && is_own(&st) ? path : NULL;
}

typedef struct kept {
    char *path;
    uint64_t size;
    struct timespec used;
} kept;

static int older(const void *x, const void *y)
{
    const kept *a = x, *b = y;
    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    return (a->used.tv_nsec > b->used.tv_nsec) - (a->used.tv_nsec < b->used.tv_nsec);
}

void pm_cache_shrink(pm_arena *arena, const char *folder, const char *keep, uint64_t most)
{
    const char *limit = getenv("PIMOE_CACHE_BYTES");
    uint64_t total = 0;
    most = limit && *limit ? strtoull(limit, NULL, 10) : most;
    PM_VEC(kept) list = {0};
    DIR *dir = folder ? opendir(folder) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        struct stat st;
        size_t n = strlen(e->d_name); // only what is certainly ours
        if (n != PM_HASH_TEXT_SIZE - 1 || strspn(e->d_name, "0123456789abcdef") != n)
            continue;
        kept one = {.path = pm_path_join(arena, folder, e->d_name)};
        if (lstat(one.path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        one.size = (uint64_t)st.st_size;
        one.used = st.st_mtim; // set anew at each use
        total += one.size;
        PM_PUSH(arena, &list, one);
    }
    if (dir)
        closedir(dir);
    if (list.n)
        qsort(list.data, list.n, sizeof *list.data, older);
    for (size_t i = 0; i < list.n && total > most; i++) {
        if ((keep && strcmp(list.data[i].path, keep) == 0) || unlink(list.data[i].path) != 0)
            continue;
        total -= list.data[i].size;
    }
}

void pm_cache_add_program(pm_hasher *hasher)
{
    struct stat self;
    memset(&self, 0, sizeof self);
    if (stat("/proc/self/exe", &self) != 0)
        self.st_size = 0;
    int64_t program[] = {self.st_size, self.st_mtim.tv_sec, self.st_mtim.tv_nsec};
    pm_hasher_add(hasher, program, sizeof program);
}

/// ---- small things, read whole -------------------------------------------------------------------------------

/// What a file begins with; the hash is of the key and the bytes behind.
typedef struct cache_header {
    char magic[8];
    uint64_t size;
    pm_hash128 hash;
} cache_header;

static const char magic[8] = "pimoeC1";

static const char *path_of(pm_arena *arena, const char *folder, pm_hash128 key)
{
    char name[PM_HASH_TEXT_SIZE];
    pm_hash_text(key, name);
    return pm_path_join(arena, folder, name);
}

static cache_header header_of(pm_arena *arena, pm_hash128 key, const void *bytes, size_t size)
{
    cache_header h = {.size = size};
    memcpy(h.magic, magic, sizeof h.magic);
    pm_hasher *hasher = pm_hasher_new(arena);
    pm_hasher_add(hasher, &key, sizeof key);
    pm_hasher_add(hasher, bytes, size);
    h.hash = pm_hasher_value(hasher);
    return h;
}

static bool read_all(int fd, void *to, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = read(fd, (char *)to + at, size - at);
        if (n <= 0 && (n == 0 || errno != EINTR))
            return false;
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool read_entry(pm_arena *arena, int fd, pm_hash128 key, const uint8_t **out_bytes, size_t *out_size)
{
    struct stat st;
    cache_header found, want;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || !is_own(&st) || !read_all(fd, &found, sizeof found) ||
        memcmp(found.magic, magic, sizeof magic) != 0 || found.size > (uint64_t)st.st_size ||
        found.size + sizeof found != (uint64_t)st.st_size)
        return false;
    uint8_t *bytes = pm_arena_alloc(arena, (size_t)found.size + 1, 16); // text ends with a NUL
    if (!read_all(fd, bytes, (size_t)found.size))
        return false;
    want = header_of(arena, key, bytes, (size_t)found.size);
    *out_bytes = bytes;
    *out_size = (size_t)found.size;
    return pm_hash_equal(found.hash, want.hash);
}

bool pm_cache_get(pm_arena *arena, const char *folder, pm_hash128 key, const uint8_t **out_bytes, size_t *out_size)
{
    if (!folder)
        return false;
    int fd = open(path_of(arena, folder, key), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool good = read_entry(arena, fd, key, out_bytes, out_size);
    if (good)
        futimens(fd, NULL); // used now
    close(fd);
    return good;
}

void pm_cache_put(pm_arena *arena, const char *folder, pm_hash128 key, const void *bytes, size_t size)
{
    if (!folder)
        return;
    cache_header header = header_of(arena, key, bytes, size);
    const char *path = path_of(arena, folder, key);
    char *temp = pm_arena_printf(arena, "%s.XXXXXX", path);
    int fd = mkstemp(temp);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!out) {
        if (fd >= 0) {
            close(fd);
            unlink(temp);
        }
        return;
    }
    bool good = fwrite(&header, sizeof header, 1, out) == 1 && (size == 0 || fwrite(bytes, size, 1, out) == 1);
    good = fclose(out) == 0 && good;
    if (!good || rename(temp, path) != 0) // whole or not at all
        unlink(temp);
}
