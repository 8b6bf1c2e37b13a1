#include <stdarg.h>
#include <stdio.h>

#include "runtime/rt_internal.h"

static _Thread_local char message[512];

pm_status pm_rt_error_set(pm_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    return status;
}

const char *pm_last_error(void)
{
    return message;
}
