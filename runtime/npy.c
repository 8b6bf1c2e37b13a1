#include "runtime/npy.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/elem.h"
#include "runtime/rt_internal.h"

enum { MAX_ARRAYS = 4096 };

static pm_status bad(const char *what, const char *why)
{
    return pm_rt_error_set(PM_ERR_INVALID, "%s: %s", what, why);
}

static const char *const descrs[] = {
#define X(id, name, bytes, is_float, is_signed, onnx, descr) descr,
    PM_ELEMS(X)
#undef X
};

/// The value behind 'key': in the header's dictionary; NULL when absent.
static const char *value_of(const char *header, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s':", key);
    const char *at = strstr(header, quoted);
    if (!at)
        return NULL;
    at += strlen(quoted);
    while (*at == ' ')
        at++;
    return at;
}

static bool parse_elem(const char *descr, int32_t *out)
{
    for (int32_t i = 0; i < PM_ELEM_COUNT; i++) {
        size_t n = strlen(descrs[i]);
        if (descr[0] == '\'' && strncmp(descr + 1, descrs[i], n) == 0 && descr[1 + n] == '\'') {
            *out = i;
            return true;
        }
    }
    return false;
}

static pm_status parse_shape(const char *at, const char *what, pm_npy *out)
{
    if (*at++ != '(')
        return bad(what, "its header has no shape");
    out->rank = 0;
    while (*at == ' ' || *at == ',')
        at++;
    while (*at != ')') {
        if (out->rank == PM_TENSOR_MAX_RANK)
            return bad(what, "it has more than 8 dimensions");
        if (*at < '0' || *at > '9')
            return bad(what, "its header's shape is no list of numbers");
        int64_t n = 0;
        for (; *at >= '0' && *at <= '9'; at++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *at - '0', &n))
                return bad(what, "its shape overflows");
        out->dims[out->rank++] = n;
        while (*at == ' ' || *at == ',')
            at++;
    }
    return PM_OK;
}

pm_status pm_npy_read(const uint8_t *bytes, size_t size, const char *what, pm_npy *out)
{
    if (size < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return bad(what, "it is no .npy array");
    size_t length = bytes[8] | (size_t)bytes[9] << 8, start = 10;
    if (bytes[6] >= 2) {
        length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
        start = 12;
    }
    if (bytes[6] < 1 || bytes[6] > 3 || length > size - start || length > 1 << 16)
        return bad(what, "its header is damaged");
    char *header = malloc(length + 1);
    if (!header)
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    memcpy(header, bytes + start, length);
    header[length] = '\0';
    const char *descr = value_of(header, "descr"), *order = value_of(header, "fortran_order"),
               *shape = value_of(header, "shape");
    pm_status status = PM_OK;
    if (!descr || !order || !shape)
        status = bad(what, "its header lacks descr, fortran_order or shape");
    else if (strstr(descr, "'|O'") == descr)
        status = bad(what, "it holds Python objects");
    else if (!parse_elem(descr, &out->elem))
        status = bad(what, "its element type is not supported");
    if (status == PM_OK)
        status = parse_shape(shape, what, out);
    if (status == PM_OK && strncmp(order, "True", 4) == 0 && out->rank > 1)
        status = bad(what, "it is in Fortran order; numpy.ascontiguousarray turns it");
    free(header);
    PM_TRY(status);
    size_t need = pm_port_elem_size((uint32_t)out->elem);
    for (int32_t i = 0; i < out->rank; i++)
        if (__builtin_mul_overflow(need, (size_t)out->dims[i], &need))
            return bad(what, "its shape overflows");
    out->data = bytes + start + length;
    if (need != size - start - length)
        return bad(what, "its size is not that of its shape");
    out->size = need;
    return PM_OK;
}

/// ---- archives ---------------------------------------------------------------------------------------------

static uint64_t le(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/// The end record's offset; SIZE_MAX when there is none.
static size_t find_end(const uint8_t *bytes, size_t size)
{
    size_t lowest = size > 65557 ? size - 65557 : 0;
    for (size_t at = size >= 22 ? size - 22 : SIZE_MAX; at != SIZE_MAX && at >= lowest; at--)
        if (memcmp(bytes + at, "PK\5\6", 4) == 0)
            return at;
    return SIZE_MAX;
}

/// 64-bit fields of a zip64 extra field, in their fixed order, where the 32-bit ones are all ones.
static bool zip64_fields(const uint8_t *extra, size_t n, uint64_t **fields, int n_fields)
{
    while (n >= 4) {
        size_t id = le(extra, 2), length = le(extra + 2, 2);
        if (length > n - 4)
            return false;
        if (id == 1) {
            const uint8_t *p = extra + 4;
            for (int i = 0; i < n_fields; i++) {
                if (*fields[i] != UINT32_MAX)
                    continue;
                if (length < 8)
                    return false;
                *fields[i] = le(p, 8);
                p += 8;
                length -= 8;
            }
            return true;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return true;
}

pm_status pm_npz_read(const uint8_t *bytes, size_t size, const char *what, int i, pm_npy *out, int *out_found)
{
    *out_found = 0;
    size_t end = find_end(bytes, size);
    if (end == SIZE_MAX)
        return bad(what, "it is no .npz archive");
    uint64_t n = le(bytes + end + 10, 2), at = le(bytes + end + 16, 4);
    if (n == 0xffff || at == UINT32_MAX) { // zip64: its end record comes before
        if (end < 20 || memcmp(bytes + end - 20, "PK\6\7", 4) != 0)
            return bad(what, "its directory is damaged");
        uint64_t end64 = le(bytes + end - 20 + 8, 8);
        if (end64 > size || size - end64 < 56 || memcmp(bytes + end64, "PK\6\6", 4) != 0)
            return bad(what, "its directory is damaged");
        n = le(bytes + end64 + 32, 8);
        at = le(bytes + end64 + 48, 8);
    }
    if (n > MAX_ARRAYS) // each array is found by a walk from the first
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s: it has more than %d arrays", what, MAX_ARRAYS);
    for (uint64_t k = 0; k < n; k++) {
        if (at > end || end - at < 46 || memcmp(bytes + at, "PK\1\2", 4) != 0)
            return bad(what, "its directory is damaged");
        uint64_t method = le(bytes + at + 10, 2), packed = le(bytes + at + 20, 4), plain = le(bytes + at + 24, 4),
                 name_size = le(bytes + at + 28, 2), extra_size = le(bytes + at + 30, 2),
                 comment = le(bytes + at + 32, 2), local = le(bytes + at + 42, 4);
        if (46 + name_size + extra_size + comment > end - at)
            return bad(what, "its directory is damaged");
        const char *name = (const char *)bytes + at + 46;
        if ((int64_t)k == i) {
            uint64_t *fields[] = {&plain, &packed, &local};
            if (!zip64_fields(bytes + at + 46 + name_size, extra_size, fields, 3))
                return bad(what, "its directory is damaged");
            if (le(bytes + at + 8, 2) & 1)
                return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s is encrypted", what);
            if (method != 0)
                return pm_rt_error_set(PM_ERR_UNSUPPORTED, "%s is compressed: write it with numpy.savez", what);
            if (name_size < 5 || name_size - 4 >= sizeof out->name || memcmp(name + name_size - 4, ".npy", 4) != 0 ||
                memchr(name, 0, name_size) || memchr(name, '\\', name_size) || name[0] == '/' ||
                memmem(name, name_size, "..", 2))
                return bad(what, "a name in it is not that of an array");
            if (local > size || size - local < 30 || memcmp(bytes + local, "PK\3\4", 4) != 0 || packed != plain)
                return bad(what, "an entry of it is damaged");
            uint64_t data = local + 30 + le(bytes + local + 26, 2) + le(bytes + local + 28, 2);
            if (data > size || plain > size - data)
                return bad(what, "an entry of it is cut");
            memcpy(out->name, name, name_size - 4);
            out->name[name_size - 4] = '\0';
            *out_found = 1;
            char whole[512];
            snprintf(whole, sizeof whole, "%s: %s", what, out->name);
            return pm_npy_read(bytes + data, (size_t)plain, whole, out);
        }
        at += 46 + name_size + extra_size + comment;
    }
    return PM_OK;
}

pm_status pm_npy_write(FILE *out, int32_t elem, int32_t rank, const int64_t *dims, const void *data, size_t size)
{
    char header[512];
    int n = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (", descrs[elem]);
    for (int32_t i = 0; i < rank; i++)
        n += snprintf(header + n, sizeof header - (size_t)n, "%lld,%s", (long long)dims[i], i + 1 < rank ? " " : "");
    n += snprintf(header + n, sizeof header - (size_t)n, "), }");
    while ((10 + n + 1) % 64 != 0)
        header[n++] = ' ';
    header[n++] = '\n';
    uint8_t head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)n, (uint8_t)(n >> 8)};
    if (fwrite(head, 1, 10, out) != 10 || fwrite(header, 1, (size_t)n, out) != (size_t)n ||
        fwrite(data, 1, size, out) != size)
        return pm_rt_error_set(PM_ERR_IO, "writing failed: %s", strerror(errno));
    return PM_OK;
}

pm_status pm_read_file(const char *path, uint8_t **out_bytes, size_t *out_size)
{
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    *out_bytes = NULL;
    *out_size = 0;
    if (!in)
        return pm_rt_error_set(PM_ERR_IO, "%s: %s", path, strerror(errno));
    size_t cap = 1 << 16, n = 0;
    uint8_t *bytes = malloc(cap);
    while (bytes && !feof(in) && !ferror(in)) {
        if (n == cap) {
            uint8_t *grown = realloc(bytes, cap * 2);
            if (!grown) {
                free(bytes);
                bytes = NULL;
                break;
            }
            bytes = grown;
            cap *= 2;
        }
        n += fread(bytes + n, 1, cap - n, in);
    }
    pm_status status = !bytes ? pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory")
                       : ferror(in) ? pm_rt_error_set(PM_ERR_IO, "%s: %s", path, strerror(errno)) : PM_OK;
    if (in != stdin)
        fclose(in);
    if (status != PM_OK) {
        free(bytes);
        return status;
    }
    *out_bytes = bytes;
    *out_size = n;
    return PM_OK;
}
