// The tokeniser's blob as an artifact carries it, damaged: refused with a message, or used without
// a read beyond it.

#include "tests/fuzz/fuzz_util.h"

#include "base/tokenizer_format.h"
#include "runtime/rt_internal.h"

static const char text[] =
    " It was the best of times, it's 1859;\n\n\tna\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 "
    "\xf0\x9f\x98\x80<|end|></s> aaaaaaaa\x80\xff";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    // aligned as a section of an artifact is, with its end where memory ends
    size_t room = (size + 3) / 4 * 4;
    uint8_t *memory = NULL;
    check(posix_memalign((void **)&memory, 64, room + 1) == 0);
    memcpy(memory, data, size);
    pm_tokenizer *t = pm_tokenizer_open(memory, size);
    if (t == NULL) {
        check(strlen(pm_last_error()) > 0);
    } else {
        const pm_tokenizer_header *h = (const void *)memory;
        int32_t *ids;
        size_t n, sum = 0;
        check(pm_tokenizer_encode(t, text, sizeof text - 1, &ids, &n) == PM_OK);
        for (size_t i = 0; i < n; i++)
            check(ids[i] >= 0 && (uint32_t)ids[i] < h->n_tokens);
        for (int64_t id = -1; id <= h->n_tokens; id++) {
            size_t length;
            const char *part = pm_tokenizer_text(t, (int32_t)id, &length);
            for (size_t i = 0; part != NULL && i < length; i += 1 + length / 16)
                sum += (unsigned char)part[i];
        }
        volatile size_t result = sum;
        (void)result;
        free(ids);
        pm_tokenizer_close(t);
    }
    free(memory);
    return 0;
}
