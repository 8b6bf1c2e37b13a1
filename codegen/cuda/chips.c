#include "codegen/cuda/chips.h"

#include <stddef.h>
#include <string.h>

#define KIB 1024
static const pm_cuda_chip chips[] = {
    {"sm_80", 70, 65536, 64, 32, 164 * KIB, 163 * KIB},
    {"sm_86", 71, 65536, 48, 16, 100 * KIB, 99 * KIB},
    {"sm_87", 74, 65536, 48, 16, 164 * KIB, 163 * KIB},
    {"sm_89", 78, 65536, 48, 24, 100 * KIB, 99 * KIB},
    {"sm_90", 78, 65536, 64, 32, 228 * KIB, 227 * KIB},
    {"sm_90a", 80, 65536, 64, 32, 228 * KIB, 227 * KIB},
    {"sm_100", 86, 65536, 64, 32, 228 * KIB, 227 * KIB},
    {"sm_100a", 86, 65536, 64, 32, 228 * KIB, 227 * KIB},
    {"sm_120", 87, 65536, 48, 24, 100 * KIB, 99 * KIB},
    {"sm_120a", 87, 65536, 48, 24, 100 * KIB, 99 * KIB},
    {NULL, 0, 0, 0, 0, 0, 0},
};

const pm_cuda_chip *pm_cuda_chips(void)
{
    return chips;
}

const pm_cuda_chip *pm_cuda_chip_named(const char *name)
{
    for (const pm_cuda_chip *c = chips; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}
