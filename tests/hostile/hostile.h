/// What the tests here share: a folder of their own, files in it, the first line of what was said.
#ifndef PM_TESTS_HOSTILE_H
#define PM_TESTS_HOSTILE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/containers.h"
#include "base/diag.h"
#include "base/file.h"

static pm_arena *arena;
static pm_diag *diag;
static char folder[64];

static inline void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    strcpy(folder, "/tmp/pm_hostile_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static inline void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    pm_arena_destroy(arena);
}

static inline const char *path_of(const char *name)
{
    return pm_path_join(arena, folder, name);
}

static inline void write_file(const char *name, const void *bytes, size_t size)
{
    FILE *out = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(out);
    ck_assert_uint_eq(fwrite(bytes, 1, size, out), size);
    ck_assert_int_eq(fclose(out), 0);
}

/// The first line that the sink prints, the folder's name left out.
static inline const char *first_line(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    pm_diag_print(diag, out, false);
    fclose(out);
    char *line = pm_arena_strndup(arena, text, strcspn(text, "\n"));
    free(text);
    for (char *at; (at = strstr(line, folder)) != NULL;) {
        size_t prefix = strlen(folder) + (at[strlen(folder)] == '/');
        memmove(at, at + prefix, strlen(at + prefix) + 1);
    }
    return line;
}

/// An error was told, with that text, and the status says the same.
#define expect_refused(status, wanted, text)                                                       \
    do {                                                                                           \
        pm_status status_ = (status);                                                              \
        const char *line_ = first_line();                                                          \
        ck_assert_msg(status_ == (pm_status)(wanted), "%s\n  status %d: %s", (text), (int)status_, \
                      line_);                                                                      \
        ck_assert_msg(strcmp(line_, (text)) == 0, "\n  expected %s\n  got      %s", (text),        \
                      line_);                                                                      \
    } while (0)

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
