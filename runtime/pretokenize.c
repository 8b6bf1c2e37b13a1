/// Cutting text into words before merging: the patterns of known families, by hand.
#include "runtime/pretokenize.h"

#include <stdbool.h>
#include <string.h>

typedef struct unicode_range {
    uint32_t first, last;
} unicode_range;

#include "runtime/unicode_tables.inc"

static bool in_table(uint32_t c, const unicode_range *table, size_t n)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > table[mid].last)
            lo = mid + 1;
        else if (c < table[mid].first)
            hi = mid;
        else
            return true;
    }
    return false;
}

#define IN(c, table) in_table((c), (table), sizeof(table) / sizeof *(table))

typedef enum char_class { LETTER, NUMBER, SPACE, OTHER } char_class;

static char_class class_of(uint32_t c)
{
    if (c < 128) {
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return LETTER;
        if (c >= '0' && c <= '9')
            return NUMBER;
        return c == ' ' || (c >= 9 && c <= 13) ? SPACE : OTHER;
    }
    return IN(c, letters) ? LETTER : IN(c, numbers) ? NUMBER : IN(c, spaces) ? SPACE : OTHER;
}

/// The code point at s (n > 0 bytes); invalid bytes count as one character each.
static uint32_t decode(const uint8_t *s, size_t n, size_t *out_length)
{
    uint32_t c = s[0];
    size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 1;
    *out_length = 1;
    if (length == 1 || length > n)
        return c < 0x80 ? c : 0xfffd;
    c &= 0xff >> (length + 1);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0xfffd;
        c = c << 6 | (s[i] & 0x3f);
    }
    *out_length = length;
    return c;
}

/// Bytes of the run of class `wanted` at s.
static size_t run(const uint8_t *s, size_t n, char_class wanted)
{
    size_t at = 0, length;
    while (at < n && class_of(decode(s + at, n - at, &length)) == wanted)
        at += length;
    return at;
}

/// 's 't 're 've 'm 'll 'd
static size_t contraction(const uint8_t *s, size_t n)
{
    static const char *const words[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if (n >= length && memcmp(s, words[i], length) == 0)
            return length;
    }
    return 0;
}

/// Spaces up to the one before a word, which belongs to the word when it is a plain space.
static size_t space_word(const uint8_t *s, size_t n)
{
    size_t length = run(s, n, SPACE);
    if (length == n)
        return length;
    size_t last = 0, at = 0, step; // \s+(?!\S): all but the last space, when there are several
    while (at < length) {
        last = at;
        decode(s + at, n - at, &step);
        at += step;
    }
    return last > 0 ? last : length;
}

static size_t gpt2_word(const uint8_t *s, size_t n)
{
    size_t length = contraction(s, n);
    if (length)
        return length;
    size_t skip = s[0] == ' ' && n > 1, step;
    char_class c = class_of(decode(s + skip, n - skip, &step));
    if (c != SPACE)
        return skip + run(s + skip, n - skip, c);
    return space_word(s, n);
}

size_t pm_pretokenize(pm_pretokenizer how, const char *text, size_t n)
{
    if (n == 0 || how == PM_PRETOKENIZE_NONE)
        return n;
    return gpt2_word((const uint8_t *)text, n);
}
