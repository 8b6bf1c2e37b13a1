// tokenizer.json through the import, and what comes of it through the runtime's tokeniser: a blob
// that was made here is never refused there, every id is one of it, and with all 256 bytes in the
// vocabulary texts come back as they were.

#include "tests/fuzz/fuzz_util.h"

#include "base/json.h"
#include "base/tokenizer_format.h"
#include "frontend/checkpoint/tokenizer_import.h"
#include "runtime/rt_internal.h"

static const char text[] =
    " It was the best of times, it's 1859;\n\n\tna\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 "
    "\xf0\x9f\x98\x80<|end|></s> aaaaaaaa\x80\xff";

static void run(const uint8_t *blob, size_t size)
{
    pm_tokenizer *t = pm_tokenizer_open(blob, size);
    check(t != NULL);
    const pm_tokenizer_header *h = (const void *)blob;
    int32_t *ids;
    size_t n, at = 0;
    check(pm_tokenizer_encode(t, text, sizeof text - 1, &ids, &n) == PM_OK);
    bool is_whole = (h->flags & 1) == 0 && h->n_special == 0;
    for (int i = 0; i < 256; i++)
        is_whole = is_whole && h->byte_token[i] != UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        size_t length;
        check(ids[i] >= 0 && (uint32_t)ids[i] < h->n_tokens);
        const char *part = pm_tokenizer_text(t, ids[i], &length);
        if (!is_whole)
            continue;
        check(part != NULL && length <= sizeof text - 1 - at &&
              memcmp(part, text + at, length) == 0);
        at += length;
    }
    check(!is_whole || at == sizeof text - 1);
    free(ids);
    pm_tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    const uint8_t *blob = NULL;
    uint32_t blob_size = 0;
    pm_status status = pm_tokenizer_import(arena, diag, "tokenizer.json", (const char *)data, size,
                                           -1, -1, &blob, &blob_size);
    fuzz_check_outcome(diag, status);
    if (status == PM_OK)
        run(blob, blob_size);
    pm_arena_destroy(arena);
    return 0;
}
