/// A corpus in one file: for each input its size in decimal digits, a newline, its bytes, a
/// newline. Inputs that a fuzzer found have no names worth keeping; those with names lie in
/// folders.
#ifndef PM_TESTS_CORPUS_PACK_H
#define PM_TESTS_CORPUS_PACK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/// The next input of a pack, malloc'ed to its exact size, so that ASan sees each read beyond. False
/// at the end, and when the pack is damaged (then `*out_bytes` is NULL and the stream isn't at its
/// end).
static inline bool pm_pack_next(FILE *in, uint8_t **out_bytes, size_t *out_size)
{
    unsigned long size;
    *out_bytes = NULL;
    if (fscanf(in, "%lu", &size) != 1 || getc(in) != '\n' || size > 1u << 24)
        return false;
    uint8_t *bytes = malloc(size > 0 ? size : 1);
    if (bytes == NULL || fread(bytes, 1, size, in) != size || getc(in) != '\n') {
        free(bytes);
        return false;
    }
    *out_bytes = bytes;
    *out_size = size;
    return true;
}

static inline void pm_pack_add(FILE *out, const uint8_t *bytes, size_t size)
{
    fprintf(out, "%zu\n", size);
    fwrite(bytes, 1, size, out);
    putc('\n', out);
}

#endif
