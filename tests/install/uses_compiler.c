/* The compiler as a library: uses_compiler MODEL OUT compiles MODEL, then the same model once more, then
 * what is no model, and with options of no known size. Exits with 0 when the first two succeed and the
 * others are refused with words. */
#include <pm/compiler.h>
#include <stdio.h>
#include <string.h>

static int steps;

static void on_step(void *user, const char *step, int number, int n_steps)
{
    (void)user;
    steps += step && number >= 0 && number <= n_steps;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    pm_compile_options options = {.struct_size = sizeof options,
                                  .emit = PM_EMIT_EXE,
                                  .target = "x86-64-v3",
                                  .opt_level = -1,
                                  .pass_limit = -1,
                                  .on_step = on_step};
    pm_compile_result result;
    for (int i = 0; i < 2; i++) {
        memset(&result, 0, sizeof result);
        if (pm_compile(argv[1], argv[2], &options, stderr, 0, &result) != PM_OK)
            return 1;
        if (result.n_entries != 1 || result.n_dispatches < 1 || result.code_bytes == 0 || steps == 0)
            return 3;
    }
    FILE *messages = tmpfile();
    char said[256] = "";
    if (!messages || pm_compile(argv[0], "nothing", NULL, messages, 0, &result) == PM_OK)
        return 4;
    pm_compile_options unknown = {.struct_size = 1};
    if (pm_compile(argv[1], "nothing", &unknown, messages, 0, &result) != PM_ERR_USAGE)
        return 5;
    rewind(messages);
    if (!fgets(said, sizeof said, messages) || !strstr(said, "error"))
        return 6;
    fclose(messages);
    return 0;
}
