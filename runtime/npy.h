/// .npy files and .npz archives, as arrays of bytes. Refused: object arrays, Fortran order of more than
/// one dimension, structured types, sizes that disagree; compressed archives (use numpy.savez).
#ifndef PM_RUNTIME_NPY_H
#define PM_RUNTIME_NPY_H

#include <stdio.h>

#include "pm/runtime.h"

typedef struct pm_npy {
    char name[256]; ///< in an archive, without ".npy"
    int32_t elem;   ///< pm_elem
    int32_t rank;
    int64_t dims[PM_TENSOR_MAX_RANK];
    const uint8_t *data; ///< into the bytes that were read
    size_t size;
} pm_npy;

/// Reads the array that begins at `bytes`. `what` names it in errors.
PM_NODISCARD pm_status pm_npy_read(const uint8_t *bytes, size_t size, const char *what, pm_npy *out);
/// Array number `i` of an archive; `*out_found` 0 past the end.
PM_NODISCARD pm_status pm_npz_read(const uint8_t *bytes, size_t size, const char *what, int i,
                                   pm_npy *out, int *out_found);
PM_NODISCARD pm_status pm_npy_write(FILE *out, int32_t elem, int32_t rank, const int64_t *dims,
                                    const void *data, size_t size);
/// A whole file in memory (malloc'ed). "-" is standard input.
PM_NODISCARD pm_status pm_read_file(const char *path, uint8_t **out_bytes, size_t *out_size);

#endif
