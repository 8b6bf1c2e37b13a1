/// tokenizer.json (byte-level BPE) as the blob of base/tokenizer_format.h.
#ifndef PM_FRONTEND_CHECKPOINT_TOKENIZER_IMPORT_H
#define PM_FRONTEND_CHECKPOINT_TOKENIZER_IMPORT_H

#include <stdint.h>

#include "base/diag.h"

/// Converts the `size` bytes at `text`; the blob is in `arena`. `bos` and `eos`: ids, or -1.
/// Errors: PM_ERR_INVALID for a malformed or inconsistent file (duplicate ids, merges of tokens that
/// don't exist, …), PM_ERR_UNSUPPORTED for what would tokenise otherwise than byte-level BPE with
/// GPT-2's words: normalizers, other pre-tokenizers, templates, tokens that strip. Places are
/// `file:line:col`.
PM_NODISCARD pm_status pm_tokenizer_import(pm_arena *arena, pm_diag *diag, const char *file,
                                           const char *text, size_t size, int32_t bos, int32_t eos,
                                           const uint8_t **out_blob, uint32_t *out_size);

#endif
