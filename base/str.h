/// A string that grows in an arena.
#ifndef PM_BASE_STR_H
#define PM_BASE_STR_H

#include "base/arena.h"

/// `data` is NUL-terminated at all times (the NUL isn't counted in `n`).
typedef struct pm_str {
    pm_arena *arena;
    char *data;
    size_t n, cap;
} pm_str;

/// An empty string in `arena`.
pm_str pm_str_new(pm_arena *arena);

void pm_str_add(pm_str *str, const char *text);
void pm_str_add_n(pm_str *str, const char *bytes, size_t n);
void pm_str_add_char(pm_str *str, char c);
void pm_str_printf(pm_str *str, const char *fmt, ...) PM_PRINTF(2, 3);
void pm_str_vprintf(pm_str *str, const char *fmt, va_list ap);

#endif
