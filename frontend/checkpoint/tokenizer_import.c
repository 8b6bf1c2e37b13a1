#include "frontend/checkpoint/tokenizer_import.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/containers.h"
#include "base/json.h"
#include "base/str.h"
#include "base/tokenizer_format.h"
#include "base/utf8.h"

enum {
    MAX_TOKENS = 1 << 21,
    MAX_BYTES = 1 << 30, ///< of all tokens' texts
    MAX_FILE = 100000000,
    MAX_MARKS = 8000000, ///< commas, colons and brackets: bounds what the parsed file weighs
    N_ALPHABET = 512,    ///< code points below this may stand for a byte
};

typedef struct importer {
    pm_arena *scratch;
    pm_diag *diag;
    const char *file;
    const pm_json *root, *model;
    int16_t byte_of[N_ALPHABET]; ///< byte that a code point of the byte-level alphabet stands for, or -1
    pm_map ids;                  ///< token text as written: id + 1
    PM_VEC(pm_tokenizer_token) tokens;
    PM_VEC(const pm_json *) origins; ///< parallel to tokens: NULL where there is none
    PM_VEC(uint32_t) special;
    PM_VEC(pm_tokenizer_merge) merges;
    pm_str bytes;
    uint32_t pretokenizer, flags;
    uint32_t byte_token[256];
} importer;

PM_PRINTF(4, 5)
static pm_status fail(importer *im, const pm_json *at, pm_status code, const char *fmt, ...)
{
    pm_loc loc = at != NULL ? pm_json_loc(im->file, at) : (pm_loc){.file = im->file};
    va_list ap;
    va_start(ap, fmt);
    char *text = pm_arena_vprintf(im->scratch, fmt, ap);
    va_end(ap);
    return pm_error(im->diag, &loc, code, "%s", text);
}

/// GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes for the code
/// points from 256 on.
static void fill_alphabet(importer *im)
{
    int next = 256;
    memset(im->byte_of, 0xff, sizeof im->byte_of);
    for (int byte = 0; byte < 256; byte++) {
        bool is_printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        im->byte_of[is_printable ? byte : next++] = (int16_t)byte;
    }
}

// ---- what must not be there ----

static bool is_absent(const pm_json *value)
{
    return value == NULL || value->kind == PM_JSON_NULL;
}

static const char *type_of(const pm_json *object)
{
    const pm_json *type = pm_json_get(object, "type");
    return type != NULL && type->kind == PM_JSON_STRING ? type->string : "";
}

static pm_status get_bool(importer *im, const pm_json *object, const char *key, bool *inout)
{
    return pm_json_get_bool(im->diag, im->file, object, key, false, inout);
}

/// True for NULL, and for a Sequence of nothing.
static bool is_nothing(const pm_json *value, const char *list)
{
    if (is_absent(value))
        return true;
    const pm_json *items = pm_json_get(value, list);
    return strcmp(type_of(value), "Sequence") == 0 && items != NULL &&
           items->kind == PM_JSON_ARRAY && items->n == 0;
}

static pm_status read_pretokenizer(importer *im)
{
    const pm_json *pre = pm_json_get(im->root, "pre_tokenizer");
    const pm_json *items = pm_json_get(pre, "pretokenizers");
    if (pre != NULL && strcmp(type_of(pre), "Sequence") == 0 && items != NULL &&
        items->kind == PM_JSON_ARRAY && items->n == 1)
        pre = &items->items[0];
    if (is_absent(pre) || strcmp(type_of(pre), "ByteLevel") != 0)
        return fail(im, pre != NULL ? pre : im->root, PM_ERR_UNSUPPORTED,
                    "the pre-tokenizer is '%.40s'; only ByteLevel with its own word pattern is "
                    "supported",
                    type_of(pre));
    bool use_regex = true, prefix = true;
    PM_TRY(get_bool(im, pre, "use_regex", &use_regex));
    PM_TRY(get_bool(im, pre, "add_prefix_space", &prefix));
    im->pretokenizer = use_regex ? PM_PRETOKENIZE_GPT2 : PM_PRETOKENIZE_NONE;
    im->flags |= prefix ? 1u : 0u;
    return PM_OK;
}

static pm_status check_rest(importer *im)
{
    const pm_json *normalizer = pm_json_get(im->root, "normalizer");
    const pm_json *post = pm_json_get(im->root, "post_processor");
    const pm_json *decoder = pm_json_get(im->root, "decoder");
    if (!is_nothing(normalizer, "normalizers"))
        return fail(im, normalizer, PM_ERR_UNSUPPORTED,
                    "the normalizer is '%.40s'; text is taken as it is", type_of(normalizer));
    if (!is_nothing(post, "processors") && strcmp(type_of(post), "ByteLevel") != 0)
        return fail(im, post, PM_ERR_UNSUPPORTED,
                    "the post-processor is '%.40s'; adding tokens around the text isn't supported",
                    type_of(post));
    if (!is_nothing(decoder, "decoders") && strcmp(type_of(decoder), "ByteLevel") != 0)
        return fail(im, decoder, PM_ERR_UNSUPPORTED, "the decoder is '%.40s', expected ByteLevel",
                    type_of(decoder));
    return PM_OK;
}

static pm_status check_model(importer *im)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    im->model = pm_json_get(im->root, "model");
    if (im->model == NULL || im->model->kind != PM_JSON_OBJECT)
        return fail(im, im->root, PM_ERR_INVALID, "expected an object with 'model'");
    const char *type = type_of(im->model);
    if (type[0] != '\0' && strcmp(type, "BPE") != 0)
        return fail(im, im->model, PM_ERR_UNSUPPORTED,
                    "the tokenizer's model is '%.40s'; only byte-level BPE is supported", type);
    for (size_t i = 0; i < PM_COUNT(affixes); i++) {
        const char *affix = "";
        PM_TRY(pm_json_get_str(im->diag, im->file, im->model, affixes[i], false, &affix));
        if (affix[0] != '\0')
            return fail(im, pm_json_get(im->model, affixes[i]), PM_ERR_UNSUPPORTED,
                        "'%s' isn't supported", affixes[i]);
    }
    bool byte_fallback = false, ignore_merges = false;
    double dropout = 0;
    PM_TRY(get_bool(im, im->model, "byte_fallback", &byte_fallback));
    PM_TRY(get_bool(im, im->model, "ignore_merges", &ignore_merges));
    PM_TRY(pm_json_get_f64(im->diag, im->file, im->model, "dropout", false, &dropout));
    if (byte_fallback)
        return fail(im, pm_json_get(im->model, "byte_fallback"), PM_ERR_UNSUPPORTED,
                    "byte_fallback isn't supported");
    if (dropout != 0)
        return fail(im, pm_json_get(im->model, "dropout"), PM_ERR_UNSUPPORTED,
                    "merges that drop out at random aren't supported");
    im->flags |= ignore_merges ? 2u : 0u;
    return PM_OK;
}

// ---- tokens ----

static pm_status read_id(importer *im, const pm_json *value, uint32_t *out)
{
    if (value->kind != PM_JSON_NUMBER || !value->is_int || value->integer < 0)
        return fail(im, value, PM_ERR_INVALID, "a token's id must be an integer that isn't negative");
    if (value->integer >= MAX_TOKENS)
        return fail(im, value, PM_ERR_UNSUPPORTED, "the id %" PRId64 " is beyond the limit of %d",
                    value->integer, (int)MAX_TOKENS);
    *out = (uint32_t)value->integer;
    return PM_OK;
}

/// Makes room for the id; ids between that have no token are holes.
static void reserve(importer *im, uint32_t id)
{
    while (im->tokens.n <= id) {
        PM_PUSH(im->scratch, &im->tokens, ((pm_tokenizer_token){0}));
        PM_PUSH(im->scratch, &im->origins, NULL);
    }
}

/// Sets the token's text: raw bytes of an added token, or byte-level text to be undone.
static pm_status set_text(importer *im, const pm_json *at, uint32_t id, const char *text,
                          size_t size, bool is_raw)
{
    pm_tokenizer_token *token = &im->tokens.data[id];
    size_t start = im->bytes.n;
    if (im->bytes.n + size > MAX_BYTES)
        return fail(im, at, PM_ERR_UNSUPPORTED, "the tokens' texts are larger than %d bytes",
                    (int)MAX_BYTES);
    if (is_raw)
        pm_str_add_n(&im->bytes, text, size);
    for (size_t i = 0; !is_raw && i < size;) {
        uint32_t code = 0;
        size_t n = pm_utf8_decode(text + i, size - i, &code);
        int byte = n > 0 && code < N_ALPHABET ? im->byte_of[code] : -1;
        if (byte < 0)
            return fail(im, at, PM_ERR_UNSUPPORTED,
                        "token %" PRIu32 " holds U+%04" PRIX32
                        ", which isn't of the byte-level alphabet",
                        id, code);
        pm_str_add_char(&im->bytes, (char)byte);
        i += n;
    }
    token->offset = (uint32_t)start;
    token->size = (uint32_t)(im->bytes.n - start);
    if (!is_raw && token->size == 1)
        im->byte_token[(uint8_t)im->bytes.data[start]] = id;
    return PM_OK;
}

static pm_status put_name(importer *im, const pm_json *at, const char *text, size_t size, uint32_t id)
{
    void **slot = pm_map_at(&im->ids, text, size);
    if (*slot != NULL && (uintptr_t)*slot != (uintptr_t)id + 1)
        return fail(im, at, PM_ERR_INVALID, "the token '%.60s' has two ids", text);
    *slot = (void *)((uintptr_t)id + 1);
    return PM_OK;
}

/// Added tokens first: their texts are raw, also where the vocabulary has them, too.
static pm_status read_added(importer *im)
{
    const pm_json *added = pm_json_get(im->root, "added_tokens");
    if (is_absent(added))
        return PM_OK;
    if (added->kind != PM_JSON_ARRAY)
        return fail(im, added, PM_ERR_INVALID, "'added_tokens' must be a list");
    for (size_t i = 0; i < added->n; i++) {
        const pm_json *item = &added->items[i];
        const pm_json *id_json = pm_json_get(item, "id"), *content = pm_json_get(item, "content");
        if (id_json == NULL || content == NULL || content->kind != PM_JSON_STRING ||
            content->string_size == 0)
            return fail(im, item, PM_ERR_INVALID, "an added token needs 'id' and 'content'");
        bool strips = false, lstrip = false, rstrip = false, special = false;
        PM_TRY(get_bool(im, item, "single_word", &strips));
        PM_TRY(get_bool(im, item, "lstrip", &lstrip));
        PM_TRY(get_bool(im, item, "rstrip", &rstrip));
        PM_TRY(get_bool(im, item, "special", &special));
        if (strips || lstrip || rstrip)
            return fail(im, item, PM_ERR_UNSUPPORTED,
                        "single_word, lstrip and rstrip of added tokens aren't supported");
        uint32_t id;
        PM_TRY(read_id(im, id_json, &id));
        reserve(im, id);
        if (im->origins.data[id] != NULL)
            return fail(im, item, PM_ERR_INVALID, "id %" PRIu32 " is used twice", id);
        im->origins.data[id] = item;
        PM_TRY(put_name(im, item, content->string, content->string_size, id));
        PM_TRY(set_text(im, item, id, content->string, content->string_size, true));
        im->tokens.data[id].flags = special ? 1 : 0;
        PM_PUSH(im->scratch, &im->special, id);
    }
    return PM_OK;
}

static pm_status read_vocab(importer *im)
{
    const pm_json *vocab = pm_json_get(im->model, "vocab");
    if (vocab == NULL || vocab->kind != PM_JSON_OBJECT)
        return fail(im, im->model, PM_ERR_INVALID, "'vocab' must be an object");
    for (size_t i = 0; i < vocab->n; i++) {
        const pm_json *item = &vocab->items[i];
        const char *text = vocab->keys[i];
        size_t size = strlen(text);
        uint32_t id;
        PM_TRY(read_id(im, item, &id));
        reserve(im, id);
        const uintptr_t known = (uintptr_t)pm_map_get(&im->ids, text, size);
        if (known == (uintptr_t)id + 1)
            continue; // an added token, with its text set
        if (im->origins.data[id] != NULL)
            return fail(im, item, PM_ERR_INVALID, "id %" PRIu32 " is used twice", id);
        im->origins.data[id] = item;
        if (size == 0)
            return fail(im, item, PM_ERR_INVALID, "a token's text is empty");
        PM_TRY(put_name(im, item, text, size, id));
        PM_TRY(set_text(im, item, id, text, size, false));
    }
    if (im->tokens.n == 0)
        return fail(im, vocab, PM_ERR_INVALID, "the vocabulary is empty");
    return PM_OK;
}

// ---- merges ----

static pm_status find_token(importer *im, const pm_json *at, const char *text, size_t size,
                            uint32_t *out)
{
    uintptr_t id = (uintptr_t)pm_map_get(&im->ids, text, size);
    if (id == 0)
        return fail(im, at, PM_ERR_INVALID, "'%.*s' isn't in the vocabulary",
                    size < 60 ? (int)size : 60, text);
    *out = (uint32_t)(id - 1);
    return PM_OK;
}

/// A merge is "left right" or ["left", "right"].
static pm_status read_merge(importer *im, const pm_json *item, uint32_t rank)
{
    const char *left, *right;
    size_t n_left, n_right;
    if (item->kind == PM_JSON_STRING) {
        const char *space = strchr(item->string, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL)
            return fail(im, item, PM_ERR_INVALID, "a merge must be two tokens with a space between");
        left = item->string;
        n_left = (size_t)(space - left);
        right = space + 1;
        n_right = strlen(right);
    } else if (item->kind == PM_JSON_ARRAY && item->n == 2 &&
               item->items[0].kind == PM_JSON_STRING && item->items[1].kind == PM_JSON_STRING) {
        left = item->items[0].string;
        n_left = item->items[0].string_size;
        right = item->items[1].string;
        n_right = item->items[1].string_size;
    } else {
        return fail(im, item, PM_ERR_INVALID, "a merge must be a string or two strings");
    }
    pm_tokenizer_merge merge = {.rank = rank};
    PM_TRY(find_token(im, item, left, n_left, &merge.left));
    PM_TRY(find_token(im, item, right, n_right, &merge.right));
    pm_str joined = pm_str_new(im->scratch);
    pm_str_add_n(&joined, left, n_left);
    pm_str_add_n(&joined, right, n_right);
    PM_TRY(find_token(im, item, joined.data, joined.n, &merge.result));
    PM_PUSH(im->scratch, &im->merges, merge);
    return PM_OK;
}

static int compare_merges(const void *a, const void *b)
{
    const pm_tokenizer_merge *x = a, *y = b;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    if (x->right != y->right)
        return x->right < y->right ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static pm_status read_merges(importer *im)
{
    const pm_json *merges = pm_json_get(im->model, "merges");
    if (merges == NULL || merges->kind != PM_JSON_ARRAY)
        return fail(im, im->model, PM_ERR_INVALID, "'merges' must be a list");
    for (size_t i = 0; i < merges->n; i++)
        PM_TRY(read_merge(im, &merges->items[i], (uint32_t)i));
    if (im->merges.n > 0)
        qsort(im->merges.data, im->merges.n, sizeof *im->merges.data, compare_merges);
    for (size_t i = 1; i < im->merges.n; i++) {
        const pm_tokenizer_merge *m = &im->merges.data[i];
        if (m[-1].left == m->left && m[-1].right == m->right)
            return fail(im, &merges->items[m->rank], PM_ERR_INVALID, "this merge is there twice");
    }
    return PM_OK;
}

// ---- the blob ----

static pm_status write_blob(importer *im, pm_arena *arena, int32_t bos, int32_t eos,
                            const uint8_t **out_blob, uint32_t *out_size)
{
    if (bos >= (int64_t)im->tokens.n || eos >= (int64_t)im->tokens.n)
        return fail(im, NULL, PM_ERR_INVALID,
                    "the configuration's first or last token is beyond the vocabulary of %zu",
                    im->tokens.n);
    pm_tokenizer_header header = {
        .magic = PM_TOKENIZER_MAGIC,
        .version = PM_TOKENIZER_VERSION,
        .n_tokens = (uint32_t)im->tokens.n,
        .n_merges = (uint32_t)im->merges.n,
        .n_special = (uint32_t)im->special.n,
        .bytes_size = (uint32_t)im->bytes.n,
        .pretokenizer = im->pretokenizer,
        .flags = im->flags,
        .bos = bos,
        .eos = eos,
    };
    memcpy(header.byte_token, im->byte_token, sizeof header.byte_token);
    size_t tokens = im->tokens.n * sizeof *im->tokens.data;
    size_t merges = im->merges.n * sizeof *im->merges.data;
    size_t special = im->special.n * sizeof *im->special.data;
    size_t size = sizeof header + tokens + merges + special + im->bytes.n;
    if (size > INT32_MAX)
        return fail(im, NULL, PM_ERR_UNSUPPORTED, "the tokenizer is too large");
    header.size = (uint32_t)size;
    header.tokens_offset = (uint32_t)sizeof header;
    header.merges_offset = header.tokens_offset + (uint32_t)tokens;
    header.special_offset = header.merges_offset + (uint32_t)merges;
    header.bytes_offset = header.special_offset + (uint32_t)special;
    uint8_t *blob = pm_arena_alloc(arena, size, 8);
    memcpy(blob, &header, sizeof header);
    memcpy(blob + header.tokens_offset, im->tokens.data, tokens);
    if (merges > 0)
        memcpy(blob + header.merges_offset, im->merges.data, merges);
    if (special > 0)
        memcpy(blob + header.special_offset, im->special.data, special);
    memcpy(blob + header.bytes_offset, im->bytes.data, im->bytes.n);
    *out_blob = blob;
    *out_size = header.size;
    return PM_OK;
}

static size_t count_marks(const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += text[i] == ',' || text[i] == ':' || text[i] == '[' || text[i] == '{';
    return n;
}

static pm_status import(importer *im, pm_arena *arena, const char *text, size_t size, int32_t bos,
                        int32_t eos, const uint8_t **out_blob, uint32_t *out_size)
{
    if (size > MAX_FILE || count_marks(text, size) > MAX_MARKS)
        return fail(im, NULL, PM_ERR_UNSUPPORTED, "larger than the tokenizers that we read");
    PM_TRY(pm_json_parse(im->scratch, im->diag, im->file, text, size, &im->root));
    PM_TRY(check_model(im));
    PM_TRY(check_rest(im));
    PM_TRY(read_pretokenizer(im));
    PM_TRY(read_added(im));
    PM_TRY(read_vocab(im));
    PM_TRY(read_merges(im));
    return write_blob(im, arena, bos, eos, out_blob, out_size);
}

pm_status pm_tokenizer_import(pm_arena *arena, pm_diag *diag, const char *file, const char *text,
                              size_t size, int32_t bos, int32_t eos, const uint8_t **out_blob,
                              uint32_t *out_size)
{
    pm_arena *scratch = pm_arena_child(arena);
    importer im = {.scratch = scratch, .diag = diag, .file = file, .bytes = pm_str_new(scratch)};
    *out_blob = NULL;
    *out_size = 0;
    pm_map_init(&im.ids, scratch);
    fill_alphabet(&im);
    memset(im.byte_token, 0xff, sizeof im.byte_token);
    pm_status status = import(&im, arena, text, size, bos, eos, out_blob, out_size);
    pm_arena_destroy(scratch);
    return status;
}
