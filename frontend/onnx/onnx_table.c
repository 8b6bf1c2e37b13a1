#include <stdlib.h>
#include <string.h>

#include "frontend/onnx/onnx_import.h"
#include "ir/op_table.h"

#define ONNX(name, domain, since, io, handler, ...) pm_onnx_handler pm_onnx_do_##handler;
#include "frontend/onnx/onnx_ops.def"

#define IO(...) (__VA_ARGS__)
#define UNPACK(...) __VA_ARGS__
#define ONNX(name, domain, since, io, handler, op, text, attrs)                                    \
    {#name, domain, since, UNPACK io, pm_onnx_do_##handler, op, text, attrs},
static const pm_onnx_row rows[] = {
#include "frontend/onnx/onnx_ops.def"
};
#undef IO
#undef UNPACK

size_t pm_onnx_n_rows(void)
{
    return PM_COUNT(rows);
}

const pm_onnx_row *pm_onnx_row_at(size_t i)
{
    return &rows[i];
}

const pm_onnx_row *pm_onnx_find_row(const char *domain, const char *name, int64_t version,
                                    bool *out_other, const char **out_nearest)
{
    const pm_onnx_row *best = NULL;
    *out_other = false;
    *out_nearest = NULL;
    for (size_t i = 0; i < PM_COUNT(rows); i++) {
        if (strcmp(rows[i].name, name) != 0 || strcmp(rows[i].domain, domain) != 0)
            continue;
        if (rows[i].since > version)
            *out_other = true;
        else if (!best || rows[i].since > best->since)
            best = &rows[i];
    }
    if (best || *out_other)
        return best;
    const char *names[PM_COUNT(rows)];
    size_t n = 0;
    for (size_t i = 0; i < PM_COUNT(rows); i++) {
        if (strcmp(rows[i].domain, domain) == 0)
            names[n++] = rows[i].name;
    }
    *out_nearest = pm_nearest(name, names, n);
    return NULL;
}

static const struct {
    const char *name;
    pm_onnx_kind kind;
} kinds[] = {
    {"int", PM_ONNX_INT},       {"float", PM_ONNX_FLOAT},   {"str", PM_ONNX_STR},
    {"bool", PM_ONNX_BOOL},     {"elem", PM_ONNX_ELEM},     {"ints", PM_ONNX_INTS},
    {"floats", PM_ONNX_FLOATS}, {"tensor", PM_ONNX_TENSOR}, {"graph", PM_ONNX_GRAPH},
    {"strs", PM_ONNX_STRS},
};

/* Copies the text up to one of `stops` into `out` and returns where it stopped. */
static const char *take(const char *at, const char *stops, char *out, size_t size)
{
    size_t n = strcspn(at, stops);
    PM_ASSERT(n < size);
    memcpy(out, at, n);
    out[n] = 0;
    return at + n;
}

/* Words that are defaults of text attributes. */
static const char *const words[] = {"constant", "NOTSET", "none", "DCR", "up", "relu", "int", "linear",
                                    "NONE", "gated_delta"};

static void parse_default(const char *text, const char *end, pm_onnx_decl *decl)
{
    if (*text == '?')
        return;
    decl->def.present = true;
    switch (decl->kind) {
    case PM_ONNX_INT:
    case PM_ONNX_BOOL: decl->def.i = strtoll(text, NULL, 10); break;
    case PM_ONNX_FLOAT: decl->def.f = (double)strtof(text, NULL); break;
    case PM_ONNX_STR:
        /* The table's text ends a default at a space or at its own end; few words are ever used. */
        for (size_t i = 0; i < PM_COUNT(words); i++)
            if (strlen(words[i]) == (size_t)(end - text) && strncmp(text, words[i], strlen(words[i])) == 0)
                decl->def.s = words[i];
        PM_ASSERT(decl->def.s);
        break;
    default: PM_ASSERT(!"default of that kind");
    }
}

size_t pm_onnx_parse_decls(const char *text, pm_onnx_decl *out)
{
    size_t n = 0;
    while (*text) {
        PM_ASSERT(n < PM_ONNX_MAX_ATTRS);
        pm_onnx_decl *decl = &out[n++];
        *decl = (pm_onnx_decl){.required = true};
        bool hidden = *text == '-';
        text = take(text + hidden, ">:", decl->name, sizeof decl->name);
        if (*text == '>')
            text = take(text + 1, ":", decl->ir, sizeof decl->ir);
        else if (!hidden)
            take(decl->name, "", decl->ir, sizeof decl->ir);
        char kind[16];
        text = take(text + 1, "= ", kind, sizeof kind);
        size_t k = 0;
        while (k < PM_COUNT(kinds) && strcmp(kinds[k].name, kind) != 0)
            k++;
        PM_ASSERT(k < PM_COUNT(kinds));
        decl->kind = kinds[k].kind;
        if (*text == '=') {
            decl->required = false;
            const char *end = text + strcspn(text, " ");
            parse_default(text + 1, end, decl);
            text = end;
        }
        text += strspn(text, " ");
    }
    return n;
}
