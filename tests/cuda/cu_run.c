#include "tests/cuda/cu_run.h"

#include <check.h>
#include <dlfcn.h>

#include "pm/runtime.h"
#include "tests/cuda/cu_check.h"

const char *cu_try(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    pm_emu_launch launch = {.name = kernel, .kernel = (pm_rt_emu_kernel *)dlsym(RTLD_DEFAULT, kernel), .parameters = true,
                            .words = words, .n_words = (size_t)n, .blocks = (uint64_t)blocks,
                            .threads = (uint32_t)threads, .shared_bytes = (uint32_t)shared_bytes, .meets = true,
                            .watch = &cu_watch};
    ck_assert_msg(launch.kernel != NULL, "%s can't be played", kernel);
    cu_check_begin(launch.threads);
    return pm_emu_play(&launch) == PM_OK ? NULL : pm_last_error();
}

void cu_run(const char *kernel, int64_t blocks, int threads, int64_t shared_bytes, const uint64_t *words, int n)
{
    const char *error = cu_try(kernel, blocks, threads, shared_bytes, words, n);
    ck_assert_msg(!error, "%s", error);
}

bool cu_has(const char *kernel)
{
    (void)kernel;
    return true;
}
