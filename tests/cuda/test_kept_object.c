/// Objects that are kept: by all that decides them, with the codes of GPUs that are in them.
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cpu/kept_object.h"

static pm_arena *arena;
static char folder[] = "/tmp/kept_object_XXXXXX";

static pm_kept_object found(const char *bitcode, const char *cpu, int opt_level)
{
    pm_kept_object kept;
    pm_kept_object_find(arena, bitcode, strlen(bitcode), cpu, opt_level, &kept);
    return kept;
}

START_TEST(by_all_that_decides)
{
    static const uint8_t cubin[] = {1, 2, 3}, other[] = {1, 2, 4}, object[] = "object";
    const pm_device_code codes[] = {{.number = 1, .arch = "sm_80", .ptx = "ptx", .ptx_size = 3, .cubin = cubin, .cubin_size = 3},
                                    {.number = 2, .arch = "sm_80", .ptx = "more", .ptx_size = 4}};
    pm_kept_object kept = found("f", "x86-64-v3", 3);
    ck_assert_ptr_nonnull(kept.folder);
    ck_assert_ptr_null(kept.bytes);
    ck_assert(!pm_kept_object_has(&kept, codes, 2));
    pm_kept_object_put(&kept, codes, 2, object, sizeof object);

    kept = found("f", "x86-64-v3", 3);
    ck_assert_uint_eq(kept.size, sizeof object);
    ck_assert_mem_eq(kept.bytes, object, sizeof object);
    ck_assert(pm_kept_object_has(&kept, codes, 2));
    ck_assert(!pm_kept_object_has(&kept, codes, 1));
    pm_device_code changed[] = {codes[0], codes[1]};
    changed[0].cubin = other;
    ck_assert(!pm_kept_object_has(&kept, changed, 2));
    changed[0] = codes[0];
    changed[1].arch = "sm_90";
    ck_assert(!pm_kept_object_has(&kept, changed, 2));

    ck_assert_ptr_null(found("g", "x86-64-v3", 3).bytes);
    ck_assert_ptr_null(found("f", "x86-64-v4", 3).bytes);
    ck_assert_ptr_null(found("f", "x86-64-v3", 2).bytes);
}
END_TEST

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    setenv("PIMOE_CACHE_DIR", folder, 1);
    arena = pm_arena_create();
    Suite *s = suite_create("kept objects");
    TCase *t = tcase_create("all");
    tcase_add_test(t, by_all_that_decides);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    pm_arena_destroy(arena);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || failed ? 1 : 0;
}
