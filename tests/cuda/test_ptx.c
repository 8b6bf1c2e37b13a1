// The general road to GPUs: what kernels look like in PTX, and what is refused.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "llvm-c/Core.h"
#include "llvm-c/IRReader.h"

#include "codegen/cuda/device_code.h"
#include "codegen/cuda/ptx.h"
#include "codegen/cuda/toolkit.h"

static pm_arena *arena;
static pm_diag *diag;
static LLVMContextRef context;

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    context = LLVMContextCreate();
}

static void teardown(void)
{
    LLVMContextDispose(context);
    pm_arena_destroy(arena);
}

/// A dispatch of one pointer and two symbols with the given body.
static LLVMModuleRef module_of(const char *declarations, const char *body)
{
    const char *text = pm_arena_printf(
        arena, "%s\ndefine i32 @pm_d0(ptr noalias %%x, ptr noalias %%symbols, ptr noalias %%scratch, i64 %%worker, i64 %%n) {\n%s}\n"
        "define void @pm_run_0(ptr %%call) {\n  call void @pm_rt_barrier(ptr %%call, i64 0)\n  ret void\n}\n"
        "declare void @pm_rt_barrier(ptr, i64)\n", declarations, body);
    LLVMModuleRef module;
    char *message = NULL;
    LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(text, strlen(text), "text");
    ck_assert_msg(!LLVMParseIRInContext2(context, buffer, &module, &message), "%s", message);
    LLVMDisposeMemoryBuffer(buffer);
    return module;
}

static pm_status emit(LLVMModuleRef module, const char *chip, const char **out_ptx)
{
    static const pm_kernel kernels[] = {{.name = "negate", .function = "pm_d0", .n_pointers = 1, .n_symbols = 2},
                                        {.name = "gone", .template_name = "another"}};
    pm_ptx_options options = {.arch = chip, .opt_level = 3};
    size_t size;
    pm_status status = pm_ptx_emit(arena, diag, module, kernels, 2, &options, out_ptx, &size);
    ck_assert(status != PM_OK || strlen(*out_ptx) == size);
    LLVMDisposeModule(module);
    return status;
}

static const char second_symbol[] =
    "  %at = getelementptr i64, ptr %symbols, i64 1\n"
    "  %s = load i64, ptr %at\n"
    "  %mine = getelementptr float, ptr %x, i64 %worker\n"
    "  %v = load float, ptr %mine\n";

START_TEST(kernels_have_words_and_leave_a_mark)
{
    const char *body = pm_arena_printf(arena, "%s  %%w = fneg float %%v\n  store float %%w, ptr %%mine\n"
                                              "  %%low = icmp slt i64 %%s, %%n\n  %%bad = zext i1 %%low to i32\n"
                                              "  ret i32 %%bad\n", second_symbol);
    static const struct {
        const char *chip, *version;
    } rows[] = {{"sm_80", ".version 7.0"}, {"sm_89", ".version 7.8"}, {"sm_90a", ".version 8.0"}, {"sm_100a", ".version 8.6"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *ptx;
        ck_assert_int_eq(emit(module_of("", body), rows[i].chip, &ptx), PM_OK);
        ck_assert_ptr_nonnull(strstr(ptx, rows[i].version));
        ck_assert_ptr_nonnull(strstr(ptx, pm_arena_printf(arena, ".target %s", rows[i].chip)));
        ck_assert_ptr_nonnull(strstr(ptx, ".visible .entry negate("));
        ck_assert_ptr_nonnull(strstr(ptx, "negate_param_7")); // 1 pointer, 2 symbols, 5 of every kernel
        ck_assert_ptr_null(strstr(ptx, "negate_param_8"));
        ck_assert_ptr_nonnull(strstr(ptx, ".maxntid 128"));
        ck_assert_ptr_nonnull(strstr(ptx, "atom."));
        ck_assert_ptr_null(strstr(ptx, ".local")); // the symbols' list is gone
        ck_assert_ptr_null(strstr(ptx, "pm_rt_barrier"));
        ck_assert_ptr_null(strstr(ptx, "gone"));
    }
}
END_TEST

START_TEST(math_comes_from_libdevice)
{
    const char *path, *ptx;
    if (pm_toolkit_find(arena, diag, PM_TOOLKIT_LIBDEVICE, &path) != PM_OK)
        return;
    const char *body = pm_arena_printf(
        arena, "%s  %%a = call float @llvm.exp.f32(float %%v)\n  %%b = call float @erff(float %%a)\n"
               "  %%c = fpext float %%b to double\n  %%d = call double @llvm.pow.f64(double %%c, double %%c)\n"
               "  %%e = fptrunc double %%d to float\n  %%f = frem float %%e, %%v\n  %%g = call float @llvm.floor.f32(float %%f)\n"
               "  store float %%g, ptr %%mine\n  ret i32 0\n", second_symbol);
    ck_assert_int_eq(emit(module_of("declare float @llvm.exp.f32(float)\ndeclare float @erff(float)\n"
                                    "declare double @llvm.pow.f64(double, double)\ndeclare float @llvm.floor.f32(float)",
                                    body), "sm_80", &ptx), PM_OK);
    ck_assert_ptr_null(strstr(ptx, ".extern"));
    ck_assert_ptr_nonnull(strstr(ptx, "cvt.rmi.f32"));
}
END_TEST

START_TEST(what_no_gpu_has_is_named)
{
    const char *ptx;
    ck_assert_int_eq(emit(module_of("declare ptr @malloc(i64)\ndeclare void @pm_rt_fail(ptr, i64)",
                                    "  %p = call ptr @malloc(i64 8)\n  store i64 1, ptr %x\n"
                                    "  call void @pm_rt_fail(ptr %p, i64 3)\n  ret i32 0\n"),
                          "sm_80", &ptx), PM_ERR_UNSUPPORTED);
    const char *text = pm_diag_at(diag, 0)->text;
    ck_assert_msg(strstr(text, "malloc, pm_rt_fail"), "%s", text);
}
END_TEST

START_TEST(unknown_chips_are_refused)
{
    const char *ptx;
    ck_assert_int_eq(emit(module_of("", "  ret i32 0\n"), "sm_1", &ptx), PM_ERR_USAGE);
}
END_TEST

START_TEST(a_missing_toolkit_is_named)
{
    const char *old = getenv("CUDA_HOME"), *kept = old ? pm_arena_strdup(arena, old) : NULL, *ptx;
    setenv("CUDA_HOME", "/nonexistent/cuda", 1);
    const char *body = pm_arena_printf(arena, "%s  %%a = call float @llvm.exp.f32(float %%v)\n"
                                              "  store float %%a, ptr %%mine\n  ret i32 0\n", second_symbol);
    ck_assert_int_eq(emit(module_of("declare float @llvm.exp.f32(float)", body), "sm_80", &ptx), PM_ERR_UNSUPPORTED);
    const char *text = pm_diag_at(diag, 0)->text;
    ck_assert_msg(strstr(text, "libdevice.10.bc") && strstr(text, "/nonexistent/cuda"), "%s", text);
    if (kept)
        setenv("CUDA_HOME", kept, 1);
    else
        unsetenv("CUDA_HOME");
}
END_TEST

START_TEST(devices_get_code_for_each_chip)
{
    const char *path;
    if (pm_toolkit_find(arena, diag, PM_TOOLKIT_NVJITLINK, &path) != PM_OK)
        return;
    setenv("PIMOE_CACHE_DIR", "/proc/nowhere", 1); // nothing kept
    static const pm_kernel kernels[] = {{.name = "one", .function = "pm_d0", .n_pointers = 1, .n_symbols = 2, .meets = true}};
    static const char *const archs[] = {"sm_80", "sm_90a"};
    const char *body = pm_arena_printf(arena, "%s  store float %%v, ptr %%x\n  ret i32 0\n", second_symbol);
    pm_device_code_request request = {.module = module_of("", body), .kernels = kernels, .n_kernels = 1, .archs = archs,
                                      .n_archs = 2, .opt_level = 3};
    pm_kernel_facts facts[1];
    const pm_device_code *codes;
    size_t n;
    pm_device_making *making;
    ck_assert_int_eq(pm_device_code_start(arena, diag, &request, facts, &making), PM_OK);
    ck_assert_uint_eq(pm_device_code_count(making), 2);
    ck_assert_int_eq(pm_device_code_finish(making, &codes, &n), PM_OK);
    ck_assert_uint_eq(n, 2);
    for (size_t i = 0; i < n; i++) {
        ck_assert_str_eq(codes[i].arch, archs[i]);
        ck_assert_uint_eq(codes[i].number, facts[0].code);
        ck_assert_ptr_nonnull(strstr(codes[i].ptx, ".entry one("));
        ck_assert_mem_eq(codes[i].cubin, "\177ELF", 4);
    }
    ck_assert_uint_eq(facts[0].threads, PM_GENERAL_THREADS);
    ck_assert_uint_eq(facts[0].flags, 1);
    LLVMDisposeModule(request.module);
}
END_TEST

START_TEST(templates_must_exist)
{
    static const pm_kernel kernels[] = {{.name = "one", .template_name = "no_such"}};
    static const char *const archs[] = {"sm_80"};
    pm_device_code_request request = {.kernels = kernels, .n_kernels = 1, .archs = archs, .n_archs = 1, .opt_level = 3};
    pm_kernel_facts facts[1];
    pm_device_making *making;
    ck_assert_int_eq(pm_device_code_start(arena, diag, &request, facts, &making), PM_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(pm_diag_at(diag, 0)->text, "no_such"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ptx");
    TCase *all = tcase_create("ptx");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, kernels_have_words_and_leave_a_mark);
    tcase_add_test(all, math_comes_from_libdevice);
    tcase_add_test(all, what_no_gpu_has_is_named);
    tcase_add_test(all, unknown_chips_are_refused);
    tcase_add_test(all, a_missing_toolkit_is_named);
    tcase_add_test(all, devices_get_code_for_each_chip);
    tcase_add_test(all, templates_must_exist);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
