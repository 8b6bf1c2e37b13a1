#include "tests/e2e/e2e_model.h"

#include <dlfcn.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool e2e_open(e2e_lib *lib, const char *path, const char *symbol, char *why, pm_status *out_status)
{
    char name[128];
    *lib = (e2e_lib){0};
    *out_status = PM_ERR_IO;
    lib->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (lib->handle == NULL) {
        snprintf(why, 256, "%s", dlerror());
        return false;
    }
    bool whole = true;
#define E2E_RESOLVE(function)                                                                      \
    *(void **)&lib->function = dlsym(lib->handle, #function);                                      \
    whole = whole && lib->function != NULL;
    E2E_FUNCTIONS(E2E_RESOLVE)
#undef E2E_RESOLVE
    snprintf(name, sizeof name, "pm_model_%s", symbol);
    const pm_rt_model *code = dlsym(lib->handle, name);
    if (!whole || code == NULL) {
        snprintf(why, 256, "%s does not export the whole API or %s", path, name);
        e2e_close(lib);
        return false;
    }
    *out_status = lib->pm_model_open(code, NULL, &lib->model);
    if (*out_status != PM_OK) {
        snprintf(why, 256, "%s: %s", path, lib->pm_last_error());
        e2e_close(lib);
        return false;
    }
    return true;
}

void e2e_close(e2e_lib *lib)
{
    if (lib->model != NULL)
        lib->pm_model_close(lib->model);
    if (lib->handle != NULL)
        dlclose(lib->handle);
    *lib = (e2e_lib){0};
}

void *e2e_keep(void *memory)
{
    static void **kept;
    static size_t n;
    if (n % 64 == 0)
        kept = realloc(kept, (n + 64) * sizeof *kept);
    if (kept == NULL || memory == NULL) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    kept[n++] = memory;
    return memory;
}

pm_npy e2e_array(const char *path, const char *name)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    int found = 1;
    pm_npy array;
    pm_status status = pm_read_file(path, &bytes, &size);
    for (int i = 0; status == PM_OK && found; i++) {
        status = pm_npz_read(bytes, size, path, i, &array, &found);
        if (status == PM_OK && found && strcmp(array.name, name) == 0) {
            uint8_t *data = e2e_keep(aligned_alloc(64, (array.size + 64) / 64 * 64));
            memcpy(data, array.data, array.size); // an archive's arrays begin anywhere
            array.data = data;
            free(bytes);
            return array;
        }
    }
    fprintf(stderr, "%s: no array %s: %s\n", path, name, status == PM_OK ? "" : pm_last_error());
    exit(1);
}

double e2e_row_distance(const float *got, const float *want, size_t n, size_t width)
{
    double worst = 0;
    for (size_t row = 0; row < n; row += width) {
        double largest = 0, distance = 0;
        for (size_t i = row; i < row + width; i++) {
            double d = fabs((double)got[i] - (double)want[i]);
            if (isnan(d) && !(isnan(got[i]) && isnan(want[i])))
                return INFINITY;
            largest = fmax(largest, fabs((double)want[i]));
            distance = fmax(distance, d);
        }
        worst = fmax(worst, distance > 0 ? distance / largest : 0);
    }
    return worst;
}

static char *read_all(int fd)
{
    size_t n = 0, room = 1 << 16;
    char *text = malloc(room + 1);
    for (ssize_t got = 1; text != NULL && got > 0;) {
        if (n == room)
            text = realloc(text, (room *= 2) + 1);
        got = text != NULL ? read(fd, text + n, room - n) : 0;
        n += got > 0 ? (size_t)got : 0;
    }
    if (text != NULL)
        text[n] = '\0';
    return text;
}

int e2e_run(const char *const *argv, char **out_text)
{
    extern char **environ;
    int ends[2], status = 0;
    pid_t child;
    posix_spawn_file_actions_t actions;
    *out_text = NULL;
    if (pipe(ends) != 0)
        return -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    int failed = posix_spawn(&child, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed == 0)
        *out_text = read_all(ends[0]);
    close(ends[0]);
    if (failed != 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}
