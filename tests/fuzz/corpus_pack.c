// Packs and unpacks corpora (corpus_pack.h), for run.sh.
//   corpus_pack pack OUT.pack LIMIT FOLDER    the smallest inputs first, LIMIT bytes at most
//   corpus_pack unpack IN.pack FOLDER

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/corpus_pack.h"

typedef struct input {
    uint8_t *bytes;
    size_t size;
} input;

static input read_input(const char *path)
{
    struct stat info;
    FILE *in = fopen(path, "rb");
    input found = {0};
    if (in != NULL && fstat(fileno(in), &info) == 0 && S_ISREG(info.st_mode)) {
        found.size = (size_t)info.st_size;
        found.bytes = malloc(found.size + 1);
        if (found.bytes != NULL && fread(found.bytes, 1, found.size, in) != found.size) {
            free(found.bytes);
            found.bytes = NULL;
        }
    }
    if (in != NULL)
        fclose(in);
    return found;
}

/// By size, then by content: the same folder always makes the same pack.
static int compare(const void *left, const void *right)
{
    const input *a = left, *b = right;
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    return memcmp(a->bytes, b->bytes, a->size);
}

static int pack(const char *path, size_t limit, const char *folder)
{
    struct dirent **names;
    int n = scandir(folder, &names, NULL, NULL);
    input *inputs = calloc(n > 0 ? (size_t)n : 1, sizeof *inputs);
    FILE *out = fopen(path, "wb");
    if (n < 0 || inputs == NULL || out == NULL) {
        fprintf(stderr, "can't pack '%s' into '%s'\n", folder, path);
        return 1;
    }
    size_t n_inputs = 0, total = 0;
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", folder, names[i]->d_name);
        inputs[n_inputs] = read_input(inner);
        n_inputs += inputs[n_inputs].bytes != NULL;
        free(names[i]);
    }
    free(names);
    qsort(inputs, n_inputs, sizeof *inputs, compare);
    size_t kept = 0;
    while (kept < n_inputs && total + inputs[kept].size + 8 <= limit) {
        pm_pack_add(out, inputs[kept].bytes, inputs[kept].size);
        total += inputs[kept].size + 8;
        kept++;
    }
    for (size_t i = 0; i < n_inputs; i++)
        free(inputs[i].bytes);
    free(inputs);
    printf("%s: %zu of %zu inputs\n", path, kept, n_inputs);
    return fclose(out) == 0 ? 0 : 1;
}

static int unpack(const char *path, const char *folder)
{
    FILE *in = fopen(path, "rb");
    uint8_t *bytes;
    size_t size, n = 0;
    bool ok = in != NULL;
    while (ok && pm_pack_next(in, &bytes, &size)) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/packed-%zu", folder, n++);
        FILE *out = fopen(inner, "wb");
        ok = out != NULL && fwrite(bytes, 1, size, out) == size;
        ok = out != NULL && fclose(out) == 0 && ok;
        free(bytes);
    }
    ok = ok && feof(in);
    if (in != NULL)
        fclose(in);
    if (!ok)
        fprintf(stderr, "can't unpack '%s' into '%s'\n", path, folder);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "pack") == 0)
        return pack(argv[2], strtoul(argv[3], NULL, 10), argv[4]);
    if (argc == 4 && strcmp(argv[1], "unpack") == 0)
        return unpack(argv[2], argv[3]);
    fputs("usage: corpus_pack pack OUT.pack LIMIT FOLDER | unpack IN.pack FOLDER\n", stderr);
    return 2;
}
