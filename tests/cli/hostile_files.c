/// Damages files in many ways and reads each: hostile_files npz|artifact FILE... Every reading must end in a result or in
/// an error with a message; sanitizers see the rest. Deterministic.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/pimoe/artifact_file.h"
#include "tools/pimoe/npz_archive.h"

static uint64_t state = 88172645463325252u;

static uint64_t random_bits(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

typedef struct tally {
    size_t read, refused, silent;
} tally;

/// Reads what is in the descriptor.
static void try_file(int fd, bool npz, tally *t)
{
    char path[64];
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_npz archive;
    pm_artifact *artifact;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    pm_status status = npz ? pm_npz_open(arena, diag, path, &archive) : pm_artifact_open(arena, diag, path, true, &artifact);
    volatile uint8_t sum = 0;
    for (size_t i = 0; npz && status == PM_OK && i < archive.arrays.n; i++)
        for (size_t k = 0; k < archive.arrays.data[i].size; k++)
            sum ^= archive.arrays.data[i].data[k];
    if (status == PM_OK)
        t->read++;
    else if (pm_diag_count(diag, PM_ERROR) > 0)
        t->refused++;
    else
        t->silent++;
    pm_arena_destroy(arena);
}

static bool write_all(int fd, const uint8_t *bytes, size_t size)
{
    return ftruncate(fd, (off_t)size) == 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size;
}

/// A few bytes changed at `at`: bits flipped, all ones, zero, or another's place.
static void damage(uint8_t *bytes, size_t size, size_t at)
{
    size_t n = 1 + random_bits() % 8;
    for (size_t i = at; i < at + n && i < size; i++)
        switch (random_bits() % 4) {
        case 0: bytes[i] ^= (uint8_t)(1u << random_bits() % 8); break;
        case 1: bytes[i] = 0xff; break;
        case 2: bytes[i] = 0; break;
        default: bytes[i] = bytes[random_bits() % size];
        }
}

static int torture(const char *path, bool npz)
{
    FILE *in = fopen(path, "rb");
    static uint8_t original[1 << 22], bytes[1 << 22];
    size_t size = in ? fread(original, 1, sizeof original, in) : 0;
    int fd = memfd_create("damaged", 0);
    tally t = {0};
    if (in)
        fclose(in);
    if (size == 0 || size == sizeof original || fd < 0)
        return 1;
    bool good = write_all(fd, original, size);
    try_file(fd, npz, &t);
    if (!good || t.read != 1) {
        fprintf(stderr, "%s can't be read as it is\n", path);
        return 1;
    }
    size_t rounds = 3000;
    for (size_t i = 0; i < rounds; i++) {
        memcpy(bytes, original, size);
        size_t cut = size;
        // most of an artifact is code, which is not read: aim at its two ends
        size_t span = size < 8192 || random_bits() % 2 ? size : 8192;
        damage(bytes, size, random_bits() % 2 ? random_bits() % span : size - 1 - random_bits() % span);
        if (random_bits() % 4 == 0)
            cut = random_bits() % size;
        if (!write_all(fd, bytes, cut))
            return 1;
        try_file(fd, npz, &t);
    }
    close(fd);
    printf("%s: %zu read, %zu refused, %zu without a message\n", path, t.read, t.refused, t.silent);
    return t.silent != 0 || t.refused == 0;
}

int main(int argc, char **argv)
{
    int bad = argc < 3;
    for (int i = 2; i < argc; i++)
        bad |= torture(argv[i], strcmp(argv[1], "npz") == 0);
    return bad;
}
