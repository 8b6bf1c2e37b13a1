/// The tokeniser as a blob: written by the checkpoint frontend from tokenizer.json, carried by the
/// artifact, read in place by the runtime (so that no program parses JSON when it starts).
/// Little-endian; all offsets are from the start of the blob; readers check every one.
#ifndef PM_BASE_TOKENIZER_FORMAT_H
#define PM_BASE_TOKENIZER_FORMAT_H

#include <stdint.h>

#define PM_TOKENIZER_MAGIC 0x4b4f5450u /* "PTOK" */
enum { PM_TOKENIZER_VERSION = 1 };

/// How text is cut into words before merging.
typedef enum pm_pretokenizer {
    PM_PRETOKENIZE_NONE = 0,
    PM_PRETOKENIZE_GPT2 = 1, ///< 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
} pm_pretokenizer;

typedef struct pm_tokenizer_header {
    uint32_t magic, version;
    uint32_t size;            ///< of the whole blob
    uint32_t n_tokens;        ///< ids 0..n_tokens-1; holes have length 0
    uint32_t tokens_offset;   ///< pm_tokenizer_token[n_tokens]
    uint32_t n_merges;
    uint32_t merges_offset;   ///< pm_tokenizer_merge[n_merges], sorted by (left, right)
    uint32_t n_special;
    uint32_t special_offset;  ///< uint32_t[n_special] ids of added tokens, matched before anything else
    uint32_t bytes_offset, bytes_size; ///< token texts, as raw bytes
    uint32_t pretokenizer;    ///< pm_pretokenizer
    uint32_t flags;           ///< bit 0: add a space before the text; bit 1: whole words that are tokens skip merging
    uint32_t byte_token[256]; ///< id of each single byte, UINT32_MAX when there is none
    int32_t bos, eos;         ///< -1: none
} pm_tokenizer_header;

typedef struct pm_tokenizer_token {
    uint32_t offset, size; ///< raw bytes (byte-level alphabet already undone)
    uint32_t flags;        ///< bit 0: special (not written when decoding)
} pm_tokenizer_token;

typedef struct pm_tokenizer_merge {
    uint32_t left, right, result, rank;
} pm_tokenizer_merge;

#endif
