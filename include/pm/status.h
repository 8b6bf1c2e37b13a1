/// Status codes, shared by the compiler, the runtime and every program that embeds either.
#ifndef PM_STATUS_H
#define PM_STATUS_H

#if defined(__GNUC__)
#define PM_NODISCARD __attribute__((warn_unused_result))
#define PM_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#define PM_API __attribute__((visibility("default")))
#else
#define PM_NODISCARD
#define PM_PRINTF(fmt_index, first_arg)
#define PM_API
#endif

/// What a function that can fail returns. The words for a person are in the diagnostic sink
/// (compiler) or in the session's last message (runtime); a status alone owns nothing.
typedef enum pm_status {
    PM_OK = 0,
    PM_ERR_INVALID,     ///< the input is at fault (malformed, inconsistent)
    PM_ERR_UNSUPPORTED, ///< the input is well formed, we can't do it
    PM_ERR_USAGE,       ///< the caller's options or arguments are at fault
    PM_ERR_IO,          ///< the operating system refused (open, read, write, map)
    PM_ERR_NO_MEMORY,   ///< out of memory
    PM_ERR_INTERNAL,    ///< our bug
} pm_status;

/// The exit code that a tool ends with for `status`: 0 done, 1 the input is at fault, 2 usage,
/// 3 I/O (out of memory counts as I/O), 70 our bug.
static inline int pm_exit_code(pm_status status)
{
    switch (status) {
    case PM_OK: return 0;
    case PM_ERR_INVALID:
    case PM_ERR_UNSUPPORTED: return 1;
    case PM_ERR_USAGE: return 2;
    case PM_ERR_IO:
    case PM_ERR_NO_MEMORY: return 3;
    case PM_ERR_INTERNAL: break;
    }
    return 70;
}

/// Returns from the calling function when `expr` is not PM_OK.
#define PM_TRY(expr)                                                                               \
    do {                                                                                           \
        pm_status try_status_ = (expr);                                                            \
        if (try_status_ != PM_OK)                                                                  \
            return try_status_;                                                                    \
    } while (0)

#endif
