// Runs every file of the folders, packs (corpus_pack.h) and files given through a fuzz target's
// entry: the corpus as a regression test, in builds without libFuzzer. An input that takes many
// seconds is a defect like a crash (bombs that the readers' limits stop may take a few).

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/fuzz/corpus_pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/// A target may define it; called once, as libFuzzer does.
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/// Most seconds that one input may take: more under sanitizers.
static double time_limit(void)
{
    const char *text = getenv("PM_REPLAY_SECONDS");
    return text != NULL ? strtod(text, NULL) : 5;
}

static int run_input(const char *path, const uint8_t *data, size_t size)
{
    double start = seconds();
    LLVMFuzzerTestOneInput(data, size);
    double took = seconds() - start;
    if (took <= time_limit())
        return 0;
    fprintf(stderr, "%s: took %.1f s\n", path, took);
    return 1;
}

static int replay_pack(const char *path)
{
    FILE *in = fopen(path, "rb");
    uint8_t *data;
    size_t size;
    int n = 0, bad = in == NULL;
    while (!bad && pm_pack_next(in, &data, &size)) {
        char name[4096];
        snprintf(name, sizeof name, "%s, input %d", path, n++);
        fprintf(stderr, "%s\n", name);
        bad = run_input(name, data, size);
        free(data);
    }
    if (!bad && !feof(in)) {
        fprintf(stderr, "'%s' is damaged behind input %d\n", path, n);
        bad = 1;
    }
    if (in != NULL)
        fclose(in);
    return bad ? -1 : n;
}

static int replay_file(const char *path, size_t size)
{
    FILE *in = fopen(path, "rb");
    // exactly as many bytes as the input has, so that ASan sees each read beyond
    uint8_t *data = malloc(size > 0 ? size : 1);
    if (in == NULL || data == NULL || fread(data, 1, size, in) != size) {
        fprintf(stderr, "can't read '%s'\n", path);
        return 1;
    }
    fclose(in);
    fprintf(stderr, "%s\n", path); // the last line names the input of a crash
    int bad = run_input(path, data, size);
    free(data);
    return bad;
}

/// Returns the number of inputs that were run, or -1.
static int replay(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        fprintf(stderr, "can't open '%s'\n", path);
        return -1;
    }
    size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, ".pack") == 0)
        return replay_pack(path);
    if (!S_ISDIR(info.st_mode))
        return replay_file(path, (size_t)info.st_size) == 0 ? 1 : -1;
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    int n_run = 0;
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        bool is_input =
            names[i]->d_name[0] != '.' && stat(inner, &info) == 0 && S_ISREG(info.st_mode);
        if (is_input && n_run >= 0)
            n_run = replay_file(inner, (size_t)info.st_size) == 0 ? n_run + 1 : -1;
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return n_run;
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int n = replay(argv[i]);
        if (n < 0)
            return 1;
        total += n;
    }
    fprintf(stderr, "%d inputs\n", total);
    return total > 0 ? 0 : 1; // an empty corpus tests nothing
}
