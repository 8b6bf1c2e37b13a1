/// Whether two .npy files of f32 agree: npy-near GOT WANT TOLERANCE. Says how far apart they are at most, as a part of
/// 1 + |want|. Exit code 1: further than that, or not of the same shape.
#include <math.h>
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

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t size[2];
    unsigned char *bytes[2] = {read_file(argv[1], &size[0]), read_file(argv[2], &size[1])};
    size_t start = HEADER_AT + (size_t)bytes[1][LENGTH_AT] + ((size_t)bytes[1][LENGTH_AT + 1] << 8);
    if (size[0] != size[1] || start > size[1] || memcmp(bytes[0], bytes[1], start) != 0 ||
        !strstr((const char *)bytes[1] + HEADER_AT, "<f4")) {
        fprintf(stderr, "error: another shape or type\n");
        return 1;
    }
    double most = 0;
    for (size_t at = start; at + 4 <= size[0]; at += 4) {
        float got, want;
        memcpy(&got, bytes[0] + at, 4);
        memcpy(&want, bytes[1] + at, 4);
        double apart = got == want || (isnan(got) && isnan(want)) ? 0 : fabs((double)got - (double)want) / (1 + fabs((double)want));
        most = apart <= most ? most : apart; // no number is further than all
    }
    printf("%zu numbers, at most %.3g apart\n", (size[0] - start) / 4, most);
    return most <= strtod(argv[3], NULL) ? 0 : 1;
}
