/// Elements of tensors as text, exactly: what the printer writes, the parser reads back bit by bit.
#ifndef PM_IR_TEXT_NUMBER_H
#define PM_IR_TEXT_NUMBER_H

#include <stdbool.h>

#include "base/elem.h"

/// Room that any element or number needs as text.
enum { PM_NUMBER_TEXT = 40 };

/// Bytes of all splat(…) constants of a module together: the printer writes no more of them, the
/// parser refuses more, so that a short text can't ask for much memory.
enum { PM_MAX_SPLAT = 64 << 20 };

/// Derivation steps of a location in the text.
enum { PM_MAX_LOC_CHAIN = 16 };

/// Writes the element at `bytes` (native byte order, any alignment). Floats get as few digits as
/// bring the same bits back; NaNs other than the usual one are written as their bits (0x7fc00001).
void pm_elem_to_text(pm_elem elem, const void *bytes, char out[PM_NUMBER_TEXT]);

/// Reads an element as pm_elem_to_text writes it, or any other decimal or hexadecimal number; a
/// hexadecimal number stands for the bits of a float. Returns NULL, or what is wrong with it.
const char *pm_elem_from_text(pm_elem elem, const char *text, void *out_bytes);

/// Writes a double with as few digits as bring the same number back ("nan", "inf", "-inf").
void pm_f64_to_text(double value, char out[PM_NUMBER_TEXT]);

#endif
