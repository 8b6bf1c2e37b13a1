/// Decoding and checking of UTF-8.
#ifndef PM_BASE_UTF8_H
#define PM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Decodes one code point from `text` (at most `size` bytes). Returns its length in bytes, or 0
/// when it is not valid UTF-8 there: truncated, overlong, a surrogate, beyond U+10FFFF.
size_t pm_utf8_decode(const char *text, size_t size, uint32_t *out_code);

/// Writes the code point (a valid one) to `out` (4 bytes); returns its length.
size_t pm_utf8_encode(uint32_t code, char *out);

/// Offset of the first byte that is not valid UTF-8, or `size`.
size_t pm_utf8_check(const char *text, size_t size);

/// Whether the code point must not reach a terminal as it is: controls, and the marks that reorder
/// text so that it reads other than it is.
bool pm_utf8_is_hazardous(uint32_t code);

#endif
