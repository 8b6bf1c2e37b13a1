/// Byte-level BPE over the blob of base/tokenizer_format.h, read in place.
#include <stdlib.h>
#include <string.h>

#include "runtime/pretokenize.h"
#include "runtime/rt_internal.h"

struct pm_tokenizer {
    const uint8_t *blob;
    const pm_tokenizer_header *head;
    const pm_tokenizer_token *tokens;
    const pm_tokenizer_merge *merges;
    const uint32_t *special;
};

static bool fits(const pm_tokenizer_header *h, uint32_t offset, uint64_t n, size_t record)
{
    return offset % 4 == 0 && offset <= h->size && n * record <= h->size - offset;
}

static bool is_valid(const pm_tokenizer *t)
{
    const pm_tokenizer_header *h = t->head;
    for (uint32_t i = 0; i < h->n_tokens; i++)
        if (t->tokens[i].offset > h->bytes_size || t->tokens[i].size > h->bytes_size - t->tokens[i].offset)
            return false;
    for (uint32_t i = 0; i < h->n_merges; i++) {
        const pm_tokenizer_merge *m = &t->merges[i];
        if (m->left >= h->n_tokens || m->right >= h->n_tokens || m->result >= h->n_tokens)
            return false;
        if (i && (m->left < m[-1].left || (m->left == m[-1].left && m->right <= m[-1].right)))
            return false;
    }
    for (uint32_t i = 0; i < h->n_special; i++)
        if (t->special[i] >= h->n_tokens)
            return false;
    for (int i = 0; i < 256; i++)
        if (h->byte_token[i] != UINT32_MAX && h->byte_token[i] >= h->n_tokens)
            return false;
    return true;
}

pm_tokenizer *pm_tokenizer_open(const uint8_t *blob, uint64_t size)
{
    const pm_tokenizer_header *h = (const void *)blob;
    if (size < sizeof *h || h->magic != PM_TOKENIZER_MAGIC || h->version != PM_TOKENIZER_VERSION ||
        h->size > size || h->size < sizeof *h ||
        !fits(h, h->tokens_offset, h->n_tokens, sizeof(pm_tokenizer_token)) ||
        !fits(h, h->merges_offset, h->n_merges, sizeof(pm_tokenizer_merge)) ||
        !fits(h, h->special_offset, h->n_special, 4) || h->bytes_offset > h->size ||
        h->bytes_size > h->size - h->bytes_offset ||
        (h->pretokenizer != PM_PRETOKENIZE_NONE && h->pretokenizer != PM_PRETOKENIZE_GPT2)) {
        (void)pm_rt_error_set(PM_ERR_INVALID, "the tokeniser is damaged or of another version");
        return NULL;
    }
    pm_tokenizer *t = malloc(sizeof *t);
    if (!t) {
        (void)pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    *t = (pm_tokenizer){blob, h, (const void *)(blob + h->tokens_offset), (const void *)(blob + h->merges_offset),
                        (const void *)(blob + h->special_offset)};
    if (!is_valid(t)) {
        (void)pm_rt_error_set(PM_ERR_INVALID, "the tokeniser is damaged");
        free(t);
        return NULL;
    }
    return t;
}

void pm_tokenizer_close(pm_tokenizer *tokenizer)
{
    free(tokenizer);
}

static const char *token_bytes(const pm_tokenizer *t, uint32_t id, size_t *out_size)
{
    *out_size = t->tokens[id].size;
    return (const char *)t->blob + t->head->bytes_offset + t->tokens[id].offset;
}

const char *pm_tokenizer_text(const pm_tokenizer *t, int32_t id, size_t *out_size)
{
    *out_size = 0;
    if (id < 0 || (uint32_t)id >= t->head->n_tokens || (t->tokens[id].flags & 1))
        return NULL;
    return token_bytes(t, (uint32_t)id, out_size);
}

/// ---- merging --------------------------------------------------------------------------------------------

static const pm_tokenizer_merge *find_merge(const pm_tokenizer *t, uint32_t left, uint32_t right)
{
    size_t lo = 0, hi = t->head->n_merges;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const pm_tokenizer_merge *m = &t->merges[mid];
        if (m->left < left || (m->left == left && m->right < right))
            lo = mid + 1;
        else if (m->left == left && m->right == right)
            return m;
        else
            hi = mid;
    }
    return NULL;
}

typedef struct id_list {
    int32_t *data;
    size_t n, cap;
} id_list;

static bool push(id_list *list, uint32_t id)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 256;
        int32_t *grown = realloc(list->data, cap * sizeof *grown);
        if (!grown)
            return false;
        list->data = grown;
        list->cap = cap;
    }
    list->data[list->n++] = (int32_t)id;
    return true;
}

/// A piece of a word while it is merged: a linked list over an array.
typedef struct piece {
    uint32_t id;
    int32_t previous, next;
} piece;

/// A possible merge of a piece with the next one; the heap has the lowest rank, then the leftmost, on top.
typedef struct candidate {
    uint32_t rank, at, left, right, result;
} candidate;

static bool comes_before(candidate a, candidate b)
{
    return a.rank < b.rank || (a.rank == b.rank && a.at < b.at);
}

static void heap_push(candidate *heap, size_t *n, candidate c)
{
    size_t i = (*n)++;
    while (i > 0 && comes_before(c, heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static candidate heap_pop(candidate *heap, size_t *n)
{
    candidate top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *n)
            break;
        if (child + 1 < *n && comes_before(heap[child + 1], heap[child]))
            child++;
        if (!comes_before(heap[child], last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void offer(const pm_tokenizer *t, const piece *pieces, int32_t at, candidate *heap, size_t *n)
{
    if (at < 0 || pieces[at].next < 0)
        return;
    uint32_t left = pieces[at].id, right = pieces[pieces[at].next].id;
    const pm_tokenizer_merge *m = find_merge(t, left, right);
    if (m)
        heap_push(heap, n, (candidate){m->rank, (uint32_t)at, left, right, m->result});
}

/// Merges one word of n bytes; O(n log n). `pieces` and `heap` have room for n and 3n.
static bool merge_word(const pm_tokenizer *t, const uint8_t *word, size_t n, piece *pieces, candidate *heap,
                       id_list *out)
{
    size_t count = 0, n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = t->head->byte_token[word[i]];
        if (id == UINT32_MAX)
            continue; // a byte that the vocabulary lacks says nothing
        pieces[count] = (piece){id, (int32_t)count - 1, (int32_t)count + 1};
        count++;
    }
    if (count == 0)
        return true;
    pieces[count - 1].next = -1;
    for (size_t i = 0; i + 1 < count; i++)
        offer(t, pieces, (int32_t)i, heap, &n_heap);
    while (n_heap) {
        candidate c = heap_pop(heap, &n_heap);
        piece *p = &pieces[c.at];
        if (p->id != c.left || p->next < 0 || pieces[p->next].id != c.right)
            continue; // out of date
        piece *q = &pieces[p->next];
        p->id = c.result;
        q->id = UINT32_MAX;
        p->next = q->next;
        if (p->next >= 0)
            pieces[p->next].previous = (int32_t)c.at;
        offer(t, pieces, p->previous, heap, &n_heap);
        offer(t, pieces, (int32_t)c.at, heap, &n_heap);
    }
    for (int32_t i = 0; i >= 0; i = pieces[i].next)
        if (!push(out, pieces[i].id))
            return false;
    return true;
}

/// The longest special token that begins at `text`; UINT32_MAX: none.
static uint32_t special_at(const pm_tokenizer *t, const char *text, size_t n, size_t *out_size)
{
    uint32_t best = UINT32_MAX;
    *out_size = 0;
    for (uint32_t i = 0; i < t->head->n_special; i++) {
        size_t size;
        const char *bytes = token_bytes(t, t->special[i], &size);
        if (size > *out_size && size <= n && memcmp(bytes, text, size) == 0) {
            best = t->special[i];
            *out_size = size;
        }
    }
    return best;
}

static bool encode_plain(const pm_tokenizer *t, const char *text, size_t n, piece *pieces, candidate *heap,
                         id_list *out)
{
    while (n > 0) {
        size_t word = pm_pretokenize((pm_pretokenizer)t->head->pretokenizer, text, n);
        if (!merge_word(t, (const uint8_t *)text, word, pieces, heap, out))
            return false;
        text += word;
        n -= word;
    }
    return true;
}

/// Where the next special token begins (or the end).
static size_t next_special(const pm_tokenizer *t, const char *text, size_t n)
{
    size_t size;
    for (size_t i = 0; i < n && t->head->n_special; i++)
        if (special_at(t, text + i, n - i, &size) != UINT32_MAX)
            return i;
    return n;
}

pm_status pm_tokenizer_encode(const pm_tokenizer *t, const char *text, size_t size, int32_t **out_ids,
                              size_t *out_n)
{
    id_list out = {0};
    *out_ids = NULL;
    *out_n = 0;
    if (size > INT32_MAX / 4)
        return pm_rt_error_set(PM_ERR_USAGE, "the text is too long");
    char *with_space = NULL;
    if (t->head->flags & 1 && size && text[0] != ' ') {
        with_space = malloc(size + 1);
        if (!with_space)
            return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
        with_space[0] = ' ';
        memcpy(with_space + 1, text, size);
        text = with_space;
        size++;
    }
    piece *pieces = malloc((size + 1) * sizeof *pieces);
    candidate *heap = malloc((3 * size + 1) * sizeof *heap);
    bool ok = pieces && heap;
    for (size_t at = 0; ok && at < size;) {
        size_t special_size, plain = next_special(t, text + at, size - at);
        ok = encode_plain(t, text + at, plain, pieces, heap, &out);
        at += plain;
        uint32_t special = at < size ? special_at(t, text + at, size - at, &special_size) : UINT32_MAX;
        if (special != UINT32_MAX) {
            ok = ok && push(&out, special);
            at += special_size;
        }
    }
    free(with_space);
    free(pieces);
    free(heap);
    if (!ok) {
        free(out.data);
        return pm_rt_error_set(PM_ERR_NO_MEMORY, "out of memory");
    }
    *out_ids = out.data;
    *out_n = out.n;
    return PM_OK;
}

static pm_status open_for(const pm_model *model, pm_tokenizer **out)
{
    uint64_t size;
    const uint8_t *blob = pm_model_blob(model, "tokenizer", &size);
    if (!blob)
        return pm_rt_error_set(PM_ERR_UNSUPPORTED, "the model carries no tokeniser");
    *out = pm_tokenizer_open(blob, size);
    return *out ? PM_OK : PM_ERR_INVALID;
}

pm_status pm_tokenize(const pm_model *model, const char *text, size_t size, int32_t *ids, size_t *inout_n)
{
    pm_tokenizer *t = NULL;
    int32_t *found;
    size_t n;
    PM_TRY(open_for(model, &t));
    pm_status status = pm_tokenizer_encode(t, text, size, &found, &n);
    pm_tokenizer_close(t);
    PM_TRY(status);
    if (n > *inout_n)
        status = pm_rt_error_set(PM_ERR_USAGE, "%zu tokens, there is room for %zu", n, *inout_n);
    else if (n)
        memcpy(ids, found, n * sizeof *ids);
    *inout_n = n;
    free(found);
    return status;
}

pm_status pm_detokenize(const pm_model *model, const int32_t *ids, size_t n, char *text, size_t *inout_size)
{
    pm_tokenizer *t = NULL;
    PM_TRY(open_for(model, &t));
    size_t need = 0, size;
    for (size_t i = 0; i < n; i++) {
        const char *bytes = pm_tokenizer_text(t, ids[i], &size);
        if (bytes && need + size <= *inout_size)
            memcpy(text + need, bytes, size);
        need += size;
    }
    pm_tokenizer_close(t);
    bool fits_in = need <= *inout_size;
    *inout_size = need;
    return fits_in ? PM_OK : pm_rt_error_set(PM_ERR_USAGE, "the text needs %zu bytes", need);
}
