/// Whether two .npy files of f32 agree: npy-near GOT WANT TOLERANCE. Says how far apart they are at most, as a part of
/// 1 + |want|. Exit code 1: further than that, or not of the same shape.
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_AT = 8, HEADER_AT = 10, MOST = 1 << 28 };

static unsigned char *read_file(const char *path, size_t *out_size)
{
    FILE *f = fopen(path, "rb");
    unsigned char *bytes = malloc(MOST);
    *out_size = f && bytes ? fread(bytes, 1, MOST, f) : 0;
    if (*out_size < HEADER_AT + 2) {
        fprintf(stderr, "error: %s can't be read\n", path);
        exit(3);
    }
    fclose(f);
    return bytes;
}

/// Length of magic, version and header; 0: not an array of f32.
static size_t header_of(const unsigned char *bytes, size_t size)
{
    size_t length = HEADER_AT + (size_t)bytes[LENGTH_AT] + ((size_t)bytes[LENGTH_AT + 1] << 8);
    for (size_t at = HEADER_AT; at + 3 <= length && length <= size; at++)
        if (memcmp(bytes + at, "<f4", 3) == 0)
            return length;
    return 0;
}

/// The largest distance; NaN when one is.
static double farthest(const unsigned char *got_bytes, const unsigned char *want_bytes, size_t size)
{
    double most = 0;
    for (size_t at = 0; at + 4 <= size; at += 4) {
        float got, want;
        memcpy(&got, got_bytes + at, 4);
        memcpy(&want, want_bytes + at, 4);
        double apart = got == want || (isnan(got) && isnan(want)) ? 0 : fabs((double)got - (double)want) / (1 + fabs((double)want));
        most = apart <= most ? most : apart; // no number is further than all
    }
    return most;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t size[2];
    unsigned char *bytes[2] = {read_file(argv[1], &size[0]), read_file(argv[2], &size[1])};
    size_t start = header_of(bytes[1], size[1]);
    bool fits = start && size[0] == size[1] && memcmp(bytes[0], bytes[1], start) == 0, near = false;
    if (fits) {
        double most = farthest(bytes[0] + start, bytes[1] + start, size[0] - start);
        printf("%zu numbers, at most %.3g apart\n", (size[0] - start) / 4, most);
        near = most <= strtod(argv[3], NULL);
    } else {
        fprintf(stderr, "error: another shape or type\n");
    }
    free(bytes[0]);
    free(bytes[1]);
    return near ? 0 : 1;
}
