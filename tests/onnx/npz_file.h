/// A small reader of .npz files (stored, not compressed) for tests.
#ifndef PM_TESTS_NPZ_FILE_H
#define PM_TESTS_NPZ_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/interp.h"

typedef struct npz_file {
    uint8_t *bytes;
    size_t size;
} npz_file;

static inline uint32_t npz_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline bool npz_open(npz_file *z, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    fseek(f, 0, SEEK_END);
    z->size = (size_t)ftell(f);
    rewind(f);
    z->bytes = malloc(z->size);
    bool good = fread(z->bytes, 1, z->size, f) == z->size;
    fclose(f);
    return good;
}

static inline bool npz_parse_header(const char *header, pm_array *out)
{
    static const struct {
        const char *descr;
        pm_elem elem;
    } types[] = {
#define X(id, name, bytes, f, s, onnx, descr) {descr, PM_##id},
        PM_ELEMS(X)
#undef X
    };
    const char *descr = strstr(header, "'descr': '"), *shape = strstr(header, "'shape': (");
    if (!descr || !shape || !strstr(header, "'fortran_order': False"))
        return false;
    descr += 10;
    size_t i = 0;
    while (i < sizeof types / sizeof types[0] &&
           strncmp(descr, types[i].descr, strlen(types[i].descr)) != 0)
        i++;
    if (i == sizeof types / sizeof types[0])
        return false;
    out->elem = types[i].elem;
    out->rank = 0;
    for (shape += 10; *shape != ')';) {
        char *end;
        out->dims[out->rank++] = strtoll(shape, &end, 10);
        shape = end + strspn(end, ", ");
    }
    return true;
}

/// The array of a name; its data is a fresh allocation.
static inline bool npz_get(const npz_file *z, const char *name, pm_array *out)
{
    char wanted[256];
    snprintf(wanted, sizeof wanted, "%s.npy", name);
    for (size_t at = 0; at + 46 < z->size; at++) {
        const uint8_t *entry = z->bytes + at;
        if (npz_u32(entry) != 0x02014b50u)
            continue;
        size_t length = entry[28] | (size_t)entry[29] << 8;
        if (length != strlen(wanted) || memcmp(entry + 46, wanted, length) != 0)
            continue;
        const uint8_t *local = z->bytes + npz_u32(entry + 42);
        const uint8_t *npy =
            local + 30 + (local[26] | local[27] << 8) + (local[28] | local[29] << 8);
        size_t prefix = npy[6] == 1 ? 10 : 12;
        size_t header = prefix == 10 ? (size_t)(npy[8] | npy[9] << 8) : npz_u32(npy + 8);
        char text[1024] = "";
        if (header >= sizeof text)
            return false;
        memcpy(text, npy + prefix, header);
        if (!npz_parse_header(text, out))
            return false;
        size_t bytes = npz_u32(entry + 24) - prefix - header;
        out->data = malloc(bytes + 1);
        memcpy(out->data, npy + prefix + header, bytes);
        return true;
    }
    return false;
}

static inline size_t npz_count(const pm_array *a)
{
    size_t n = 1;
    for (int32_t i = 0; i < a->rank; i++)
        n *= (size_t)a->dims[i];
    return n;
}

/// Element i as a number.
static inline double npz_number(const pm_array *a, size_t i)
{
    switch (a->elem) {
    case PM_F32: return (double)((const float *)a->data)[i];
    case PM_F64: return ((const double *)a->data)[i];
    case PM_I64: return (double)((const int64_t *)a->data)[i];
    case PM_I32: return (double)((const int32_t *)a->data)[i];
    case PM_U8:
    case PM_BOOL: return (double)((const uint8_t *)a->data)[i];
    case PM_BF16: {
        uint32_t bits = (uint32_t)((const uint16_t *)a->data)[i] << 16;
        float f32;
        memcpy(&f32, &bits, sizeof f32);
        return (double)f32;
    }
    case PM_F16: {
        uint16_t h = ((const uint16_t *)a->data)[i];
        int e = h >> 10 & 31;
        double v = e ? (double)(1024 + (h & 1023)) : (double)(h & 1023);
        for (int k = e ? e : 1; k < 25; k++)
            v /= 2;
        for (int k = e; k > 25; k--)
            v *= 2;
        return h & 0x8000 ? -v : v;
    }
    default: return 0;
    }
}

#endif
