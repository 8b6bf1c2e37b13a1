#include "tools/gpu_bench/gpu_images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_image(const char *folder, const char *name, const char *arch, const char *ending)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%s.%s", folder, name, arch, ending);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *bytes = size > 0 ? calloc(1, (size_t)size + 1) : NULL;
    if (bytes && fread(bytes, 1, (size_t)size, f) != (size_t)size) {
        free(bytes);
        bytes = NULL;
    }
    fclose(f);
    return bytes;
}

char *pm_gpu_image(const char *folder, const char *name, int sm)
{
    static const int chips[] = {120, 103, 100, 90, 89, 86, 80};
    char arch[16];
    if (strcmp(folder, "fake") == 0)
        return calloc(1, 8);
    for (int with_letter = 1; with_letter >= 0; with_letter--) {
        snprintf(arch, sizeof arch, "sm_%d%s", sm, with_letter ? "a" : "");
        char *image = read_image(folder, name, arch, "cubin");
        if (!image)
            image = read_image(folder, name, arch, "ptx");
        if (image)
            return image;
    }
    for (size_t i = 0; i < sizeof chips / sizeof *chips; i++) {
        snprintf(arch, sizeof arch, "sm_%d", chips[i]);
        char *image = chips[i] <= sm ? read_image(folder, name, arch, "ptx") : NULL;
        if (image)
            return image;
    }
    return NULL;
}
