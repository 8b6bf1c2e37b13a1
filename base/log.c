#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// Level by the name that has `n` bytes; -1 when it is none.
static int level_by_name(const char *name, size_t n)
{
    static const char *const names[] = {"error", "info", "debug", "trace"};
    for (int i = 0; i < 4; i++)
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0)
            return i;
    return -1;
}

/// Whether a rule's channel is `channel` or a prefix of it that ends at a dot.
static bool covers(const char *rule, size_t n, const char *channel)
{
    if (n == 3 && memcmp(rule, "all", 3) == 0)
        return true;
    return strncmp(rule, channel, n) == 0 && (channel[n] == '\0' || channel[n] == '.');
}

bool pm_log_wants(const char *channel, pm_log_level level)
{
    const char *rule = getenv("PIMOE_LOG");
    if (rule == NULL)
        return false;
    while (*rule != '\0') {
        size_t n = strcspn(rule, ","), n_channel = strcspn(rule, "=,");
        bool has_level = n_channel < n;
        int most =
            has_level ? level_by_name(rule + n_channel + 1, n - n_channel - 1) : PM_LOG_DEBUG;
        if ((int)level <= most && covers(rule, n_channel, channel))
            return true;
        rule += n;
        rule += *rule == ',';
    }
    return false;
}

void pm_log_write(const char *channel, const char *fmt, ...)
{
    char text[2048]; // one write per line, so that threads don't mix
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "[%s] %s\n", channel, text);
}
