/// Messages for developers of PiMoE, on stderr, chosen by the environment:
/// PIMOE_LOG=passes.moe=debug,codegen=info  (a channel includes those below it; `all` is every
/// one). Errors of the user go to pm_diag instead, never here.
#ifndef PM_BASE_LOG_H
#define PM_BASE_LOG_H

#include <stdbool.h>

#include "pm/status.h"

typedef enum pm_log_level { PM_LOG_ERROR, PM_LOG_INFO, PM_LOG_DEBUG, PM_LOG_TRACE } pm_log_level;

/// Whether messages of this channel and level are wanted. Threads: any.
bool pm_log_wants(const char *channel, pm_log_level level);

/// Writes one line: `[channel] text`. Use PM_LOG, which checks first.
void pm_log_write(const char *channel, const char *fmt, ...) PM_PRINTF(2, 3);

/// PM_LOG("passes.moe", PM_LOG_DEBUG, "%zu routers", n); arguments are evaluated only when wanted.
#define PM_LOG(channel, level, ...)                                                                \
    do {                                                                                           \
        if (pm_log_wants((channel), (level)))                                                      \
            pm_log_write((channel), __VA_ARGS__);                                                  \
    } while (0)

#endif
