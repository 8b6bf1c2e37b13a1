/// What the stand-in for the driver does with a launch of the templates' tests: the CPU plays it. PM_FAKE_SKIP names a
/// kernel that does nothing instead, for tests of those who look at results.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>

#include "pm/runtime.h"
#include "runtime/device/emu_play.h"
#include "tests/cuda/fake_libcuda.h"

__attribute__((visibility("default"))) void pm_fake_play(const char *name, uint32_t blocks, uint32_t threads,
                                                         uint32_t shared, const uint64_t *words, uint32_t n)
{
    const char *skip = getenv("PM_FAKE_SKIP");
    if (skip && strcmp(skip, name) == 0)
        return;
    pm_emu_launch launch = {.name = name, .kernel = (pm_rt_emu_kernel *)dlsym(RTLD_DEFAULT, name), .parameters = true,
                            .words = words, .n_words = n, .blocks = blocks, .threads = threads, .shared_bytes = shared,
                            .meets = true};
    if (pm_emu_play(&launch) == PM_OK)
        return;
    fprintf(stderr, "%s\n", pm_last_error());
    abort();
}
