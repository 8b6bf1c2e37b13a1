// Templates through NVRTC, PTX through nvJitLink, and what is kept of it. Exit code 77: NVRTC isn't there.
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cache.h"
#include "base/file.h"
#include "codegen/cuda/compile_jobs.h"
#include "codegen/cuda/nvrtc.h"
#include "codegen/cuda/toolkit.h"

static pm_arena *arena;
static pm_diag *diag;
static char folder[64];

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    strcpy(folder, "/tmp/pimoe-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("PIMOE_CACHE_DIR", folder, 1);
}

/// The only file of the kernels' folder.
static const char *kept_file(void)
{
    const char *kernels = pm_path_join(arena, folder, "kernels"), *path = NULL;
    DIR *dir = opendir(kernels);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        if (e->d_name[0] != '.')
            path = pm_path_join(arena, kernels, e->d_name);
    if (dir)
        closedir(dir);
    return path;
}

static void teardown(void)
{
    const char *kernels = pm_path_join(arena, folder, "kernels"), *path;
    chmod(kernels, 0700);
    while ((path = kept_file()) != NULL)
        ck_assert_int_eq(unlink(path), 0);
    rmdir(kernels);
    rmdir(folder);
    pm_arena_destroy(arena);
}

static const pm_cuda_source sources[] = {
    {"scale.cu", "#include \"codegen/factor.h\"\n"
                 "extern \"C\" __global__ void scale(float *x) { x[threadIdx.x] = FACTOR * x[threadIdx.x] + PM_CONST_N; }\n"},
    {"codegen/factor.h", "#define FACTOR 3.0f\n"},
};

static pm_cuda_program program_with(const char *const *definition)
{
    return (pm_cuda_program){.name = "scale", .sources = sources, .n_sources = 2, .definitions = definition,
                             .n_definitions = 1, .arch = "sm_90a"};
}

/// Compiles with a compiler of its own; how many kernels were taken from the cache.
static size_t compile(const char *definition, pm_cuda_code *out)
{
    pm_cuda_compiler *c = pm_cuda_compiler_new(arena, diag);
    pm_cuda_program p = program_with(&definition);
    ck_assert_int_eq(pm_cuda_compile(c, &p, out), PM_OK);
    pm_cuda_stats stats = pm_cuda_compiler_stats(c);
    ck_assert_uint_eq(stats.compiled + stats.from_cache, 1);
    ck_assert_ptr_nonnull(strstr(out->ptx, ".target sm_90a"));
    ck_assert_uint_eq(strlen(out->ptx), out->ptx_size);
    ck_assert_uint_gt(out->cubin_size, 64);
    ck_assert_mem_eq(out->cubin, "\177ELF", 4);
    return stats.from_cache;
}

START_TEST(a_program_is_compiled_once)
{
    pm_cuda_code first, second;
    ck_assert_uint_eq(compile("PM_CONST_N=7", &first), 0);
    ck_assert_ptr_nonnull(strstr(first.ptx, "0f40E00000")); // 7
    ck_assert_ptr_null(strstr(first.ptx, "fma"));
    ck_assert_uint_eq(compile("PM_CONST_N=7", &second), 1);
    ck_assert_str_eq(first.ptx, second.ptx);
    ck_assert_uint_eq(first.cubin_size, second.cubin_size);
    ck_assert_mem_eq(first.cubin, second.cubin, first.cubin_size);
    ck_assert_uint_eq(compile("PM_CONST_N=8", &second), 0);
}
END_TEST

START_TEST(damage_is_noticed)
{
    pm_cuda_code code, again;
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    const char *path = kept_file();
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    for (off_t at = 0; at < st.st_size; at += st.st_size / 7 + 1) { // a bit here, a bit there
        uint8_t byte;
        int fd = open(path, O_RDWR);
        ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 4;
        ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        ck_assert_msg(compile("PM_CONST_N=7", &again) == 0, "byte %ld", (long)at);
        ck_assert_mem_eq(again.cubin, code.cubin, code.cubin_size);
        ck_assert_uint_eq(compile("PM_CONST_N=7", &again), 1); // written anew
    }
    ck_assert_int_eq(truncate(path, st.st_size / 2), 0);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &again), 0);
}
END_TEST

START_TEST(files_that_others_may_write_are_not_trusted)
{
    pm_cuda_code code;
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    const char *path = kept_file();
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    char *real = pm_arena_printf(arena, "%s/real", folder);
    ck_assert_int_eq(rename(path, real), 0);
    ck_assert_int_eq(symlink(real, path), 0);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    ck_assert_int_eq(unlink(real), 0);
    ck_assert_int_eq(chmod(pm_path_join(arena, folder, "kernels"), 0777), 0);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
}
END_TEST

START_TEST(without_a_folder_it_compiles)
{
    pm_cuda_code code;
    setenv("PIMOE_CACHE_DIR", "/proc/nowhere", 1);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    unsetenv("PIMOE_CACHE_DIR");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
}
END_TEST

START_TEST(a_folder_that_is_only_read_serves)
{
    pm_cuda_code code;
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 0);
    ck_assert_int_eq(chmod(pm_path_join(arena, folder, "kernels"), 0500), 0);
    ck_assert_uint_eq(compile("PM_CONST_N=7", &code), 1);
    compile("PM_CONST_N=9", &code);
}
END_TEST

START_TEST(the_cache_is_bounded)
{
    const char *kernels = pm_cache_folder(arena, "kernels");
    static const char bytes[1000];
    for (uint64_t i = 0; i < 20; i++)
        pm_cache_put(arena, kernels, (pm_hash128){1, i}, bytes, sizeof bytes);
    pm_cache_shrink(arena, kernels, NULL, 5000);
    size_t left = 0, size;
    const uint8_t *found;
    for (uint64_t i = 0; i < 20; i++)
        left += pm_cache_get(arena, kernels, (pm_hash128){1, i}, &found, &size);
    ck_assert_uint_eq(left, 4);
}
END_TEST

START_TEST(errors_come_with_the_log)
{
    pm_cuda_source wrong = {"wrong.cu", "__global__ void f() { nothing_of_this_name(); }\n"};
    pm_cuda_program p = {.name = "wrong", .sources = &wrong, .n_sources = 1, .arch = "sm_80"};
    pm_cuda_code code;
    ck_assert_int_eq(pm_cuda_compile(pm_cuda_compiler_new(arena, diag), &p, &code), PM_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 0)->text, "wrong"));
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 1)->text, "nothing_of_this_name"));
    ck_assert_ptr_null(kept_file());
}
END_TEST

START_TEST(jobs_run_side_by_side_and_report_in_order)
{
    enum { N = 6 };
    pm_cuda_source wrong[] = {{"w0.cu", "void f() { first_fault(); }\n"}, {"w1.cu", "void f() { second_fault(); }\n"}};
    pm_cuda_program programs[N];
    pm_cuda_code codes[N], alone;
    const char *definitions[N];
    pm_cuda_jobs *jobs = pm_cuda_jobs_new(arena, diag);
    for (int i = 0; i < N; i++) {
        definitions[i] = pm_arena_printf(arena, "PM_CONST_N=%d", i + 3);
        programs[i] = program_with(&definitions[i]);
        pm_cuda_jobs_compile(jobs, &programs[i], &codes[i]);
    }
    ck_assert_int_eq(pm_cuda_jobs_wait(jobs), PM_OK);
    for (int i = 0; i < N; i++) {
        ck_assert_uint_eq(compile(definitions[i], &alone), 1); // it was kept
        ck_assert_str_eq(codes[i].ptx, alone.ptx);
        ck_assert_mem_eq(codes[i].cubin, alone.cubin, alone.cubin_size);
    }
    jobs = pm_cuda_jobs_new(arena, diag);
    for (int i = 0; i < 2; i++) {
        programs[i] = (pm_cuda_program){.name = wrong[i].name, .sources = &wrong[i], .n_sources = 1, .arch = "sm_80"};
        pm_cuda_jobs_compile(jobs, &programs[i], &codes[i]);
    }
    const pm_cuda_ptx nonsense = {"nonsense", 8};
    const uint8_t *cubin;
    size_t size;
    pm_cuda_jobs_assemble(jobs, "broken", &nonsense, "sm_80", &cubin, &size);
    ck_assert_int_eq(pm_cuda_jobs_wait(jobs), PM_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 1)->text, "first_fault"));
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 3)->text, "second_fault"));
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 4)->text, "broken"));
}
END_TEST

START_TEST(jobs_end_with_their_arena)
{
    pm_arena *own = pm_arena_create();
    pm_cuda_jobs *jobs = pm_cuda_jobs_new(own, diag);
    pm_cuda_program programs[4];
    pm_cuda_code codes[4];
    const char *definitions[4];
    for (int i = 0; i < 4; i++) {
        definitions[i] = pm_arena_printf(own, "PM_CONST_N=%d", i + 20);
        programs[i] = program_with(&definitions[i]);
        pm_cuda_jobs_compile(jobs, &programs[i], &codes[i]);
    }
    pm_arena_destroy(own); // nobody waits for them
}
END_TEST

START_TEST(resources_are_told)
{
    pm_cuda_compiler *c = pm_cuda_compiler_new(arena, diag);
    const char *definition = "PM_CONST_N=3";
    pm_cuda_program p = program_with(&definition);
    p.tells_resources = true;
    for (size_t i = 0; i < 2; i++) {
        pm_cuda_code code;
        ck_assert_int_eq(pm_cuda_compile(c, &p, &code), PM_OK);
        ck_assert_msg(strstr(code.log, "registers") && strstr(code.log, "spill stores"), "%s", code.log);
        ck_assert_uint_eq(pm_cuda_compiler_stats(c).from_cache, i);
        ck_assert_mem_eq(code.cubin, "\177ELF", 4);
    }
}
END_TEST

START_TEST(ptx_becomes_a_cubin)
{
    static const char ptx[] = ".version 8.0\n.target sm_90a\n.address_size 64\n"
                              ".visible .entry nothing(.param .u64 p)\n{\n ret;\n}\n";
    static const pm_cuda_ptx module = {ptx, sizeof ptx - 1}, nonsense = {"nonsense", 8};
    const uint8_t *cubin, *again;
    size_t size, again_size;
    pm_cuda_compiler *c = pm_cuda_compiler_new(arena, diag);
    ck_assert_int_eq(pm_cuda_assemble(c, "nothing", &module, 1, "sm_90a", &cubin, &size), PM_OK);
    ck_assert_mem_eq(cubin, "\177ELF", 4);
    ck_assert_int_eq(pm_cuda_assemble(c, "nothing", &module, 1, "sm_90a", &again, &again_size), PM_OK);
    ck_assert_uint_eq(pm_cuda_compiler_stats(c).from_cache, 1);
    ck_assert_uint_eq(size, again_size);
    ck_assert_mem_eq(cubin, again, size);
    ck_assert_int_eq(pm_cuda_assemble(c, "broken", &nonsense, 1, "sm_90a", &cubin, &size), PM_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 0)->text, "broken"));
}
END_TEST

int main(void)
{
    pm_arena *probe = pm_arena_create();
    const char *path;
    pm_status there = pm_toolkit_find(probe, pm_diag_create(probe), PM_TOOLKIT_NVRTC, &path);
    pm_arena_destroy(probe);
    if (there != PM_OK)
        return 77;
    Suite *suite = suite_create("nvrtc");
    TCase *all = tcase_create("nvrtc");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_program_is_compiled_once);
    tcase_add_test(all, damage_is_noticed);
    tcase_add_test(all, files_that_others_may_write_are_not_trusted);
    tcase_add_test(all, without_a_folder_it_compiles);
    tcase_add_test(all, a_folder_that_is_only_read_serves);
    tcase_add_test(all, the_cache_is_bounded);
    tcase_add_test(all, errors_come_with_the_log);
    tcase_add_test(all, jobs_run_side_by_side_and_report_in_order);
    tcase_add_test(all, jobs_end_with_their_arena);
    tcase_add_test(all, resources_are_told);
    tcase_add_test(all, ptx_becomes_a_cubin);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
