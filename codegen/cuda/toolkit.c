#include "codegen/cuda/toolkit.h"

#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/containers.h"

/// Names of a part beneath a toolkit's folder, as patterns; of several files the last one is taken.
typedef struct part_names {
    const char *what;
    const char *beneath[3];
    const char *package; ///< whole path, where distributions put it
} part_names;

static const part_names parts[] = {
    [PM_TOOLKIT_LIBDEVICE] = {"libdevice.10.bc", {"nvvm/libdevice/libdevice.10.bc"},
                              "/usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc"},
    [PM_TOOLKIT_NVRTC] = {"libnvrtc.so", {"lib64/libnvrtc.so.[0-9]*", "targets/x86_64-linux/lib/libnvrtc.so.[0-9]*",
                                          "lib/libnvrtc.so.[0-9]*"},
                          "/usr/lib/x86_64-linux-gnu/libnvrtc.so.[0-9]*"},
    [PM_TOOLKIT_NVJITLINK] = {"libnvJitLink.so",
                              {"lib64/libnvJitLink.so.[0-9]*", "targets/x86_64-linux/lib/libnvJitLink.so.[0-9]*",
                               "lib/libnvJitLink.so.[0-9]*"},
                              "/usr/lib/x86_64-linux-gnu/libnvJitLink.so.[0-9]*"},
};

static const char *last_match(pm_arena *arena, const char *pattern)
{
    glob_t found;
    const char *path = NULL;
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = found.gl_pathc; i-- > 0 && !path;)
            if (access(found.gl_pathv[i], R_OK) == 0)
                path = pm_arena_strdup(arena, found.gl_pathv[i]);
        globfree(&found);
    }
    return path;
}

static const char *find_beneath(pm_arena *arena, const part_names *part, const char *root)
{
    for (size_t i = 0; i < PM_COUNT(part->beneath) && part->beneath[i]; i++) {
        const char *path = last_match(arena, pm_arena_printf(arena, "%s/%s", root, part->beneath[i]));
        if (path)
            return path;
    }
    return NULL;
}

pm_status pm_toolkit_find(pm_arena *arena, pm_diag *diag, pm_toolkit_part which, const char **out_path)
{
    static const char *const variables[] = {"CUDA_HOME", "CUDA_PATH"};
    static const char *const roots[] = {"/usr/local/cuda", "/usr/local/cuda-*", "/opt/cuda"};
    const part_names *part = &parts[which];
    // Who names a toolkit means that one.
    for (size_t i = 0; i < PM_COUNT(variables); i++) {
        const char *root = getenv(variables[i]);
        if (!root || !*root)
            continue;
        *out_path = find_beneath(arena, part, root);
        if (*out_path)
            return PM_OK;
        return pm_error(diag, NULL, PM_ERR_UNSUPPORTED,
                        "%s is not in the CUDA toolkit that %s names (%s)", part->what, variables[i], root);
    }
    for (size_t i = 0; i < PM_COUNT(roots); i++) {
        *out_path = find_beneath(arena, part, roots[i]);
        if (*out_path)
            return PM_OK;
    }
    *out_path = last_match(arena, part->package);
    if (*out_path)
        return PM_OK;
    return pm_error(diag, NULL, PM_ERR_UNSUPPORTED,
                    "code for GPUs needs %s of NVIDIA's CUDA toolkit (12 or later), which is not in /usr/local/cuda: "
                    "install it, or set CUDA_HOME to its folder", part->what);
}
