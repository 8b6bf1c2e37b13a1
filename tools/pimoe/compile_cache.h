/// Compiled models that are kept: by what they are made of, not by name.
#ifndef PM_TOOLS_COMPILE_CACHE_H
#define PM_TOOLS_COMPILE_CACHE_H

#include "base/diag.h"
#include "pm/compiler.h"

typedef struct pm_cached {
    const char *path;
    bool compiled;  ///< anew
    bool temporary; ///< not in the cache: the caller removes it
} pm_cached;

/// The executable for a model: taken from the cache, or compiled into it. An executable that pimoec made is itself.
/// The key is everything that decides the bytes: the module as the frontend reads it, the files of its weights by
/// identity and time, target, options, this compiler. `use_cache` false, or no folder for it: a temporary file.
/// Messages of the compiler go to stderr; other errors to `diag`.
PM_NODISCARD pm_status pm_cached_executable(pm_arena *arena, pm_diag *diag, const char *model,
                                            const pm_compile_options *options, bool use_cache, const char *title,
                                            pm_cached *out);

#endif
