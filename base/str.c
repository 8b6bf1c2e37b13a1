#include "base/str.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

pm_str pm_str_new(pm_arena *arena)
{
    enum { FIRST = 64 };
    return (pm_str){.arena = arena, .data = pm_arena_alloc(arena, FIRST, 1), .cap = FIRST};
}

/// Makes room for `more` bytes and the NUL.
static void reserve(pm_str *str, size_t more)
{
    if (more < str->cap - str->n)
        return;
    size_t cap = str->cap;
    while (cap - str->n <= more && cap <= SIZE_MAX / 4)
        cap *= 2;
    if (cap - str->n <= more)
        cap = SIZE_MAX; // the arena refuses it as out of memory
    char *data = pm_arena_alloc(str->arena, cap, 1);
    memcpy(data, str->data, str->n);
    str->data = data;
    str->cap = cap;
}

void pm_str_add_n(pm_str *str, const char *bytes, size_t n)
{
    if (n == 0)
        return;
    reserve(str, n);
    memcpy(str->data + str->n, bytes, n);
    str->n += n;
    str->data[str->n] = '\0';
}

void pm_str_add(pm_str *str, const char *text)
{
    pm_str_add_n(str, text, strlen(text));
}

void pm_str_add_char(pm_str *str, char c)
{
    pm_str_add_n(str, &c, 1);
}

void pm_str_vprintf(pm_str *str, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    size_t room = str->cap - str->n;
    int n = vsnprintf(str->data + str->n, room, fmt, ap);
    // a failure (more than INT_MAX bytes) leaves the string as it was, through `reserve`'s refusal
    size_t wanted = n < 0 ? SIZE_MAX / 2 : (size_t)n;
    if (wanted >= room) {
        reserve(str, wanted);
        vsnprintf(str->data + str->n, str->cap - str->n, fmt, again);
    }
    str->n += wanted;
    va_end(again);
}

void pm_str_printf(pm_str *str, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pm_str_vprintf(str, fmt, ap);
    va_end(ap);
}
