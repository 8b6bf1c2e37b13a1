/// Reads JSON from standard input and checks it: json_check [PATH=VALUE | PATH | !PATH]...
/// A path is keys and numbers joined by dots ("outputs.logits.pass"); "#PATH=N" is the number of members.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const pm_json *walk(const pm_json *at, const char *path)
{
    while (at && *path) {
        char key[256];
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        if (at->kind == PM_JSON_ARRAY)
            at = strspn(key, "0123456789") == n && strtoul(key, NULL, 10) < at->n ? &at->items[strtoul(key, NULL, 10)]
                                                                                  : NULL;
        else
            at = pm_json_get(at, key);
        path += n + (path[n] == '.');
    }
    return at;
}

static void text_of(const pm_json *v, char *out, size_t size)
{
    switch (v->kind) {
    case PM_JSON_NULL: snprintf(out, size, "null"); break;
    case PM_JSON_BOOL: snprintf(out, size, v->boolean ? "true" : "false"); break;
    case PM_JSON_NUMBER:
        if (v->is_int)
            snprintf(out, size, "%" PRId64, v->integer);
        else
            snprintf(out, size, "%.17g", v->number);
        break;
    case PM_JSON_STRING: snprintf(out, size, "%s", v->string); break;
    default: snprintf(out, size, v->kind == PM_JSON_ARRAY ? "[%zu]" : "{%zu}", v->n);
    }
}

static bool holds(const pm_json *root, char *claim)
{
    char have[4096], *equals = strchr(claim, '=');
    if (claim[0] == '!')
        return walk(root, claim + 1) == NULL;
    if (!equals)
        return walk(root, claim) != NULL;
    *equals = '\0';
    const pm_json *v = walk(root, claim + (claim[0] == '#'));
    if (!v)
        snprintf(have, sizeof have, "nothing");
    else if (claim[0] == '#')
        snprintf(have, sizeof have, "%zu", v->n);
    else
        text_of(v, have, sizeof have);
    *equals = '=';
    if (strcmp(have, equals + 1) == 0)
        return true;
    fprintf(stderr, "have %s\n", have);
    return false;
}

int main(int argc, char **argv)
{
    static char text[1 << 22];
    size_t size = fread(text, 1, sizeof text, stdin);
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    const pm_json *root = NULL;
    int bad = 0;
    if (pm_json_parse(arena, diag, "stdin", text, size, &root) != PM_OK) {
        pm_diag_print(diag, stderr, false);
        fprintf(stderr, "%.*s\n", (int)(size < 500 ? size : 500), text);
        bad = 1;
    }
    for (int i = 1; i < argc && !bad; i++)
        if (!holds(root, argv[i])) {
            fprintf(stderr, "JSON: %s does not hold in\n%.*s\n", argv[i], (int)(size < 3000 ? size : 3000), text);
            bad = 1;
        }
    pm_arena_destroy(arena);
    return bad;
}
