/// Reads arrays of .npz files whose members are stored (as numpy.savez writes them), for tests.
#ifndef PM_TESTS_UNIT_NPZ_H
#define PM_TESTS_UNIT_NPZ_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/containers.h"
#include "base/file.h"
#include "ir/interp.h"

static uint32_t npz_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static pm_array npy_array(const uint8_t *npy)
{
    pm_array array = {.elem = PM_F32};
    ck_assert(memcmp(npy, "\x93NUMPY\x01", 7) == 0);
    size_t header_size = npy[8] | (size_t)npy[9] << 8;
    char header[512];
    ck_assert(header_size < sizeof header);
    memcpy(header, npy + 10, header_size);
    header[header_size] = '\0';
    ck_assert_ptr_nonnull(strstr(header, "'fortran_order': False"));
    if (strstr(header, "'<i8'") != NULL)
        array.elem = PM_I64;
    else if (strstr(header, "'<i4'") != NULL)
        array.elem = PM_I32;
    else
        ck_assert_ptr_nonnull(strstr(header, "'<f4'"));
    char *at = strchr(strstr(header, "'shape'"), '(') + 1;
    while (*at != ')') {
        array.dims[array.rank++] = strtoll(at, &at, 10);
        while (*at == ',' || *at == ' ')
            at++;
    }
    array.data = (void *)(uintptr_t)(npy + 10 + header_size);
    return array;
}

/// The array `name`; its data is a copy in the arena.
static pm_array npz_get(pm_arena *arena, pm_diag *diag, const char *path, const char *name)
{
    pm_file *file;
    ck_assert_int_eq(pm_file_open(arena, diag, path, &file), PM_OK);
    ck_assert_int_eq(pm_file_map(arena, diag, file), PM_OK);
    char member[256];
    snprintf(member, sizeof member, "%s.npy", name);
    for (const uint8_t *p = file->data; npz_u32(p) == 0x04034b50;) {
        size_t n_name = p[26] | (size_t)p[27] << 8, n_extra = p[28] | (size_t)p[29] << 8;
        size_t size = npz_u32(p + 18);
        ck_assert_int_eq(p[8], 0); // stored
        const uint8_t *data = p + 30 + n_name + n_extra;
        if (size == UINT32_MAX) { // zip64: the size is in the extra field
            const uint8_t *extra = p + 30 + n_name;
            ck_assert_int_eq(extra[0] | extra[1] << 8, 1);
            size = npz_u32(extra + 4);
        }
        if (n_name == strlen(member) && memcmp(p + 30, member, n_name) == 0) {
            uint8_t *copy = pm_arena_alloc(arena, size, 64);
            memcpy(copy, data, size);
            return npy_array(copy);
        }
        p = data + size;
    }
    ck_abort_msg("%s has no array %s", path, name);
}

static int64_t npz_count(const pm_array *a)
{
    int64_t n = 1;
    for (int32_t i = 0; i < a->rank; i++)
        n *= a->dims[i];
    return n;
}

#endif
