/// Cutting text into words before merging.
#ifndef PM_RUNTIME_PRETOKENIZE_H
#define PM_RUNTIME_PRETOKENIZE_H

#include <stddef.h>

#include "base/tokenizer_format.h"

/// Bytes of the first word of a text of n > 0 bytes: at least 1.
size_t pm_pretokenize(pm_pretokenizer how, const char *text, size_t n);

#endif
