#include "tools/pimoe/npz_archive.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"

enum {
    END_SIZE = 22, END64_SIZE = 56, LOCATOR_SIZE = 20, CENTRAL_SIZE = 46, LOCAL_SIZE = 30, COMMENT_MAX = 65535,
    DEFLATE_MOST = 1032, ///< bytes that deflate can make of one
    ENTRIES_MAX = 100000,
};

typedef struct archive {
    pm_arena *arena;
    pm_diag *diag;
    pm_loc loc;
    const uint8_t *bytes;
    uint64_t size;
} archive;

typedef struct zip_entry {
    const char *name;
    uint64_t method, flags, crc, packed, plain, local;
} zip_entry;

static uint64_t le(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static pm_status damaged(archive *a, const char *why)
{
    return pm_error(a->diag, &a->loc, PM_ERR_INVALID, "the archive is damaged: %s", why);
}

/// Where the directory begins and how many entries it has.
static pm_status find_directory(archive *a, uint64_t *out_at, uint64_t *out_n)
{
    uint64_t lowest = a->size > END_SIZE + COMMENT_MAX ? a->size - END_SIZE - COMMENT_MAX : 0;
    uint64_t end = a->size < END_SIZE ? UINT64_MAX : a->size - END_SIZE;
    while (end != UINT64_MAX && end >= lowest && memcmp(a->bytes + end, "PK\5\6", 4) != 0)
        end--; // wraps to UINT64_MAX below 0
    if (end == UINT64_MAX || end < lowest)
        return pm_error(a->diag, &a->loc, PM_ERR_INVALID, "this is no .npz archive");
    *out_n = le(a->bytes + end + 10, 2);
    *out_at = le(a->bytes + end + 16, 4);
    if (*out_n == 0xffff || *out_at == UINT32_MAX) {
        if (end < LOCATOR_SIZE || memcmp(a->bytes + end - LOCATOR_SIZE, "PK\6\7", 4) != 0)
            return damaged(a, "its zip64 locator is missing");
        uint64_t end64 = le(a->bytes + end - LOCATOR_SIZE + 8, 8);
        if (end64 > a->size || a->size - end64 < END64_SIZE || memcmp(a->bytes + end64, "PK\6\6", 4) != 0)
            return damaged(a, "its zip64 end record is missing");
        *out_n = le(a->bytes + end64 + 32, 8);
        *out_at = le(a->bytes + end64 + 48, 8);
    }
    if (*out_n > ENTRIES_MAX)
        return damaged(a, "it has more than 100,000 entries");
    return PM_OK;
}

/// Replaces fields that are all ones by those of the zip64 extra field, in its fixed order.
static bool take_zip64(const uint8_t *extra, uint64_t n, zip_entry *e)
{
    uint64_t *fields[] = {&e->plain, &e->packed, &e->local};
    for (; n >= 4; ) {
        uint64_t id = le(extra, 2), length = le(extra + 2, 2);
        if (length > n - 4)
            return false;
        const uint8_t *p = extra + 4;
        for (size_t i = 0; id == 1 && i < 3; i++) {
            if (*fields[i] != UINT32_MAX)
                continue;
            if ((uint64_t)(extra + 4 + length - p) < 8)
                return false;
            *fields[i] = le(p, 8);
            p += 8;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return true;
}

/// The entry at `*inout_at` of the directory; moves on behind it.
static pm_status read_entry(archive *a, uint64_t *inout_at, zip_entry *e)
{
    uint64_t at = *inout_at;
    if (at > a->size || a->size - at < CENTRAL_SIZE || memcmp(a->bytes + at, "PK\1\2", 4) != 0)
        return damaged(a, "its directory is cut");
    const uint8_t *c = a->bytes + at;
    uint64_t name = le(c + 28, 2), extra = le(c + 30, 2), comment = le(c + 32, 2);
    if (CENTRAL_SIZE + name + extra + comment > a->size - at)
        return damaged(a, "its directory is cut");
    *e = (zip_entry){.flags = le(c + 8, 2), .method = le(c + 10, 2), .crc = le(c + 16, 4), .packed = le(c + 20, 4),
                     .plain = le(c + 24, 4), .local = le(c + 42, 4)};
    const char *text = (const char *)c + CENTRAL_SIZE;
    if (memchr(text, '\0', name))
        return damaged(a, "a name in it holds NUL");
    e->name = pm_arena_strndup(a->arena, text, name);
    if (!take_zip64(c + CENTRAL_SIZE + name, extra, e))
        return damaged(a, "a zip64 field is cut");
    *inout_at = at + CENTRAL_SIZE + name + extra + comment;
    return PM_OK;
}

static void free_bytes(void *bytes)
{
    free(bytes);
}

/// Memory that may fail (an archive can claim much), owned by the arena.
static uint8_t *room(archive *a, uint64_t size)
{
    if (size > SIZE_MAX - 128)
        return NULL;
    uint8_t *bytes = aligned_alloc(64, ((size_t)size + 127) / 64 * 64);
    if (bytes)
        pm_arena_defer(a->arena, free_bytes, bytes);
    return bytes;
}

static bool inflate_all(const uint8_t *from, uint64_t packed, uint8_t *to, uint64_t plain)
{
    z_stream z = {0};
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return false;
    int code = Z_OK;
    uint64_t in = 0, out = 0;
    while (code == Z_OK) {
        uint64_t can_read = packed - in < 1u << 30 ? packed - in : 1u << 30;
        uint64_t can_write = plain - out < 1u << 30 ? plain - out : 1u << 30;
        z.next_in = (Bytef *)(uintptr_t)(from + in);
        z.avail_in = (uInt)can_read;
        z.next_out = to + out;
        z.avail_out = (uInt)can_write;
        code = inflate(&z, Z_NO_FLUSH);
        in += can_read - z.avail_in;
        out += can_write - z.avail_out;
        if (code == Z_OK && z.avail_in == can_read && z.avail_out == can_write)
            code = Z_BUF_ERROR; // nothing moved
    }
    inflateEnd(&z);
    return code == Z_STREAM_END && out == plain && in == packed;
}

/// The plain bytes of an entry, aligned.
static pm_status entry_bytes(archive *a, const zip_entry *e, const uint8_t **out)
{
    if (e->flags & 1)
        return pm_error(a->diag, &a->loc, PM_ERR_UNSUPPORTED, "%s is encrypted", e->name);
    if (e->method != 0 && e->method != 8)
        return pm_error(a->diag, &a->loc, PM_ERR_UNSUPPORTED,
                        "%s is packed by method %" PRIu64 "; stored and deflated ones are read", e->name, e->method);
    if (e->local > a->size || a->size - e->local < LOCAL_SIZE || memcmp(a->bytes + e->local, "PK\3\4", 4) != 0)
        return damaged(a, "an entry lies outside of the file");
    uint64_t data = e->local + LOCAL_SIZE + le(a->bytes + e->local + 26, 2) + le(a->bytes + e->local + 28, 2);
    if (data > a->size || e->packed > a->size - data)
        return damaged(a, "an entry is cut");
    if (e->method == 0 ? e->plain != e->packed : e->plain / DEFLATE_MOST > e->packed)
        return damaged(a, "an entry claims a size that it can't have");
    uint8_t *bytes = room(a, e->plain);
    if (!bytes)
        return pm_error(a->diag, &a->loc, PM_ERR_NO_MEMORY, "%s: no memory for %" PRIu64 " bytes", e->name, e->plain);
    if (e->method == 0)
        memcpy(bytes, a->bytes + data, (size_t)e->plain);
    else if (!inflate_all(a->bytes + data, e->packed, bytes, e->plain))
        return damaged(a, "an entry does not inflate to its size");
    if (crc32_z(crc32_z(0, NULL, 0), bytes, (z_size_t)e->plain) != e->crc)
        return damaged(a, "an entry's checksum is wrong");
    *out = bytes;
    return PM_OK;
}

/// An array that begins at `bytes`; its data moves to where it is aligned.
static pm_status add_array(archive *a, const uint8_t *bytes, uint64_t size, const char *name, pm_npz *out)
{
    pm_npy array = {0};
    const char *what = pm_arena_printf(a->arena, "%s%s%s", a->loc.file, *name ? ": " : "", name);
    pm_status status = pm_npy_read(bytes, (size_t)size, what, &array);
    if (status != PM_OK)
        return pm_error(a->diag, NULL, status, "%s", pm_last_error());
    size_t n = strlen(name);
    if (n >= sizeof array.name)
        return damaged(a, "a name in it is longer than 255 bytes");
    memcpy(array.name, name, n + 1);
    uint8_t *data = room(a, array.size);
    if (!data)
        return pm_error(a->diag, &a->loc, PM_ERR_NO_MEMORY, "%s: no memory", what);
    memcpy(data, array.data, array.size);
    array.data = data;
    PM_PUSH(a->arena, &out->arrays, array);
    return PM_OK;
}

pm_status pm_npz_open(pm_arena *arena, pm_diag *diag, const char *path, pm_npz *out)
{
    archive a = {.arena = arena, .diag = diag, .loc = {.file = path}};
    pm_file *file;
    uint64_t at = 0, n = 0;
    *out = (pm_npz){.path = path};
    PM_TRY(pm_file_open(arena, diag, path, &file));
    PM_TRY(pm_file_map(arena, diag, file));
    a.bytes = file->data;
    a.size = file->size;
    if (a.size >= 6 && memcmp(a.bytes, "\x93NUMPY", 6) == 0)
        return add_array(&a, a.bytes, a.size, "", out);
    PM_TRY(find_directory(&a, &at, &n));
    for (uint64_t i = 0; i < n; i++) {
        zip_entry e;
        const uint8_t *bytes = NULL;
        PM_TRY(read_entry(&a, &at, &e));
        size_t length = strlen(e.name);
        bool is_path = e.name[0] == '/' || strchr(e.name, '\\') || strstr(e.name, "..");
        if (length < 5 || is_path || strcmp(e.name + length - 4, ".npy") != 0)
            return pm_error(diag, &a.loc, PM_ERR_INVALID, "'%s' in it is no array", e.name);
        PM_TRY(entry_bytes(&a, &e, &bytes));
        PM_TRY(add_array(&a, bytes, e.plain, pm_arena_strndup(arena, e.name, length - 4), out));
    }
    return PM_OK;
}

const pm_npy *pm_npz_find(const pm_npz *npz, const char *name)
{
    for (size_t i = 0; i < npz->arrays.n; i++)
        if (strcmp(npz->arrays.data[i].name, name) == 0)
            return &npz->arrays.data[i];
    return NULL;
}
