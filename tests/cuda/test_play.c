// Kernels of the general road as the CPU plays them: threads and marks, and the math of GPUs against the host's.
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llvm-c/Core.h"
#include "llvm-c/ExecutionEngine.h"
#include "llvm-c/IRReader.h"
#include "llvm-c/Target.h"

#include "base/containers.h"
#include "codegen/cuda/ptx.h"
#include "codegen/cuda/toolkit.h"
#include "runtime/runtime_abi.h"

enum { BLOCKS = 3, N = BLOCKS * PM_GENERAL_THREADS };

static pm_arena *arena;
static pm_diag *diag;
static LLVMContextRef context;
static LLVMExecutionEngineRef engine;
static int64_t block, thread;

static int64_t current_block(void) { return block; }
static int64_t current_thread(void) { return thread; }
static int64_t all_blocks(void) { return BLOCKS; }
// Lanes that hold the same, as if each played alone.
static float same_float(float x, int32_t lanes) { return x + (float)lanes; }
static int32_t same_int(int32_t x, int32_t lanes) { return x + lanes; }

static void setup(void)
{
    arena = pm_arena_create();
    diag = pm_diag_create(arena);
    context = LLVMContextCreate();
    engine = NULL;
}

static void teardown(void)
{
    if (engine)
        LLVMDisposeExecutionEngine(engine);
    LLVMContextDispose(context);
    pm_arena_destroy(arena);
}

static void map(LLVMModuleRef module, const char *name, uint64_t address)
{
    LLVMValueRef f = LLVMGetNamedFunction(module, name);
    if (f)
        LLVMAddGlobalMapping(engine, f, (void *)(uintptr_t)address);
}

/// The kernel `played` around a dispatch of two pointers and one symbol.
static pm_rt_emu_kernel *play(const char *declarations, const char *body)
{
    const char *text = pm_arena_printf(
        arena, "%s\ndefine i32 @pm_gd0(ptr noalias %%x, ptr noalias %%y, ptr noalias %%symbols, ptr noalias %%scratch, "
               "i64 %%worker, i64 %%n) {\n%s}\n", declarations, body);
    static const pm_kernel kernel = {.name = "played", .function = "pm_gd0", .n_pointers = 2, .n_symbols = 1};
    LLVMModuleRef module, host = LLVMModuleCreateWithNameInContext("host", context);
    char *message = NULL;
    LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(text, strlen(text), "text");
    ck_assert_msg(!LLVMParseIRInContext2(context, buffer, &module, &message), "%s", message);
    LLVMDisposeMemoryBuffer(buffer);
    pm_ptx_options options = {.arch = "sm_80", .opt_level = 3};
    pm_status status = pm_ptx_play(arena, diag, module, &kernel, 1, &options, host);
    ck_assert_msg(status == PM_OK, "%s", pm_diag_size(diag) ? pm_diag_at(diag, 0)->text : "");
    LLVMDisposeModule(module);
    LLVMLinkInMCJIT();
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    ck_assert_msg(!LLVMCreateMCJITCompilerForModule(&engine, host, NULL, 0, &message), "%s", message);
    map(host, "pm_emu_block", (uintptr_t)current_block);
    map(host, "pm_emu_thread", (uintptr_t)current_thread);
    map(host, "pm_emu_blocks", (uintptr_t)all_blocks);
    map(host, "pm_dev_shfl_xor_f32", (uintptr_t)same_float);
    map(host, "pm_dev_shfl_xor_i32", (uintptr_t)same_int);
    uint64_t address = LLVMGetFunctionAddress(engine, "played");
    ck_assert(address != 0);
    return (pm_rt_emu_kernel *)(uintptr_t)address;
}

/// All threads, one after the other; what they leave in the status word.
static int32_t run(pm_rt_emu_kernel *kernel, void *x, void *y, int64_t symbol, void *scratch, int64_t scratch_bytes,
                   int64_t most, int32_t status)
{
    uint64_t words[] = {(uintptr_t)x, (uintptr_t)y, (uint64_t)symbol, (uintptr_t)scratch, (uint64_t)scratch_bytes,
                        (uint64_t)most, (uintptr_t)&status, 42};
    for (block = 0; block < BLOCKS; block++)
        for (thread = 0; thread < PM_GENERAL_THREADS; thread++)
            kernel(words);
    return status;
}

START_TEST(threads_are_workers)
{
    // y[worker] = symbol * n + worker; its scratch gets worker; worker 5 finds a fault when the symbol is 9
    pm_rt_emu_kernel *kernel = play("", "  %s = load i64, ptr %symbols\n  %a = mul i64 %s, %n\n  %b = add i64 %a, %worker\n"
                                        "  %p = getelementptr i64, ptr %y, i64 %worker\n  store i64 %b, ptr %p\n"
                                        "  store i64 %worker, ptr %scratch\n  %five = icmp eq i64 %worker, 5\n"
                                        "  %nine = icmp eq i64 %s, 9\n  %both = and i1 %five, %nine\n"
                                        "  %bad = zext i1 %both to i32\n  ret i32 %bad\n");
    static int64_t y[N], scratch[N][2];
    ck_assert_int_eq(run(kernel, NULL, y, 7, scratch, 16, 0, 0), 0);
    for (int64_t i = 0; i < N; i++) {
        ck_assert_int_eq(y[i], 7 * N + i);
        ck_assert_int_eq(scratch[i][0], i);
    }
    memset(y, 0, sizeof y);
    ck_assert_int_eq(run(kernel, NULL, y, 9, scratch, 16, 10, 0), 42);
    ck_assert_int_eq(y[9], 99);
    ck_assert_int_eq(y[10], 0); // no more workers than were asked for
    ck_assert_int_eq(run(kernel, NULL, y, 9, scratch, 16, 10, 17), 17); // the first mark stays
}
END_TEST

START_TEST(lanes_exchange)
{
    pm_rt_emu_kernel *kernel = play("declare float @pm_dev_shfl_xor_f32(float, i32)\ndeclare i32 @pm_dev_shfl_xor_i32(i32, i32)",
                                    "  %f = call float @pm_dev_shfl_xor_f32(float 1.5, i32 4)\n"
                                    "  %i = call i32 @pm_dev_shfl_xor_i32(i32 10, i32 16)\n"
                                    "  store float %f, ptr %x\n  store i32 %i, ptr %y\n  ret i32 0\n");
    float x;
    int32_t y;
    run(kernel, &x, &y, 0, NULL, 0, 0, 0);
    ck_assert_float_eq(x, 5.5f);
    ck_assert_int_eq(y, 26);
}
END_TEST

/// A function of the host and what LLVM calls it.
typedef struct function {
    const char *name; ///< of double; of float with an f behind it
    double (*of_double)(double);
    float (*of_float)(float);
    double low, high;
} function;

static const function functions[] = {
#define ROW(name, low, high) {#name, name, name##f, low, high}
    ROW(exp, -20, 20), ROW(exp2, -20, 20), ROW(expm1, -3, 3), ROW(log, 0.01, 100), ROW(log2, 0.01, 100),
    ROW(log10, 0.01, 100), ROW(log1p, -0.9, 10), ROW(tanh, -5, 5), ROW(sinh, -5, 5), ROW(cosh, -5, 5),
    ROW(sin, -10, 10), ROW(cos, -10, 10), ROW(tan, -1.5, 1.5), ROW(asin, -1, 1), ROW(acos, -1, 1), ROW(atan, -9, 9),
    ROW(asinh, -9, 9), ROW(acosh, 1, 9), ROW(atanh, -0.99, 0.99), ROW(erf, -4, 4), ROW(erfc, -4, 4), ROW(cbrt, -9, 9),
    ROW(lgamma, 0.1, 20), ROW(tgamma, 0.1, 20), ROW(floor, -9, 9), ROW(ceil, -9, 9), ROW(rint, -9, 9), ROW(sqrt, 0, 9),
    ROW(fabs, -9, 9), ROW(trunc, -9, 9), ROW(sin, 1e5, 1e12), ROW(cos, -1e12, -1e5), ROW(exp, -80, 80),
#undef ROW
};

static void skip_without_libdevice(void)
{
    pm_arena *probe = pm_arena_create();
    const char *path;
    bool there = pm_toolkit_find(probe, pm_diag_create(probe), PM_TOOLKIT_LIBDEVICE, &path) == PM_OK;
    pm_arena_destroy(probe);
    if (!there)
        exit(0);
}

/// As C calls it, and as LLVM does where it has a name for it.
static const char *called_name(const function *f, bool is_float)
{
    static const char *const intrinsics[] = {"exp", "exp2", "log", "log2", "log10", "tanh", "sin", "cos", "tan", "asin", "acos",
                                             "atan", "sinh", "cosh", "floor", "ceil", "rint", "sqrt", "fabs", "trunc"};
    for (size_t i = 0; i < PM_COUNT(intrinsics); i++)
        if (strcmp(f->name, intrinsics[i]) == 0)
            return pm_arena_printf(arena, "llvm.%s.%s", f->name, is_float ? "f32" : "f64");
    return pm_arena_printf(arena, "%s%s", f->name, is_float ? "f" : "");
}

START_TEST(math_of_doubles)
{
    skip_without_libdevice();
    const function *f = &functions[_i];
    static double x[N], y[N];
    const char *name = called_name(f, false);
    pm_rt_emu_kernel *kernel = play(
        pm_arena_printf(arena, "declare double @%s(double)", name),
        pm_arena_printf(arena, "  %%p = getelementptr double, ptr %%x, i64 %%worker\n  %%v = load double, ptr %%p\n"
                               "  %%w = call double @%s(double %%v)\n  %%q = getelementptr double, ptr %%y, i64 %%worker\n"
                               "  store double %%w, ptr %%q\n  ret i32 0\n", name));
    for (int64_t i = 0; i < N; i++)
        x[i] = f->low + (f->high - f->low) * (double)i / (N - 1);
    run(kernel, x, y, 0, NULL, 0, 0, 0);
    for (int64_t i = 0; i < N; i++) {
        double want = f->of_double(x[i]);
        ck_assert_msg(fabs(y[i] - want) <= 1e-13 * (fabs(want) + 1e-3), "%s(%.17g) = %.17g, not %.17g", f->name, x[i], y[i],
                      want);
    }
}
END_TEST

START_TEST(math_of_floats)
{
    skip_without_libdevice();
    const function *f = &functions[_i];
    static float x[N], y[N];
    const char *name = called_name(f, true);
    pm_rt_emu_kernel *kernel = play(
        pm_arena_printf(arena, "declare float @%s(float)", name),
        pm_arena_printf(arena, "  %%p = getelementptr float, ptr %%x, i64 %%worker\n  %%v = load float, ptr %%p\n"
                               "  %%w = call float @%s(float %%v)\n  %%q = getelementptr float, ptr %%y, i64 %%worker\n"
                               "  store float %%w, ptr %%q\n  ret i32 0\n", name));
    for (int64_t i = 0; i < N; i++)
        x[i] = (float)(f->low + (f->high - f->low) * (double)i / (N - 1));
    run(kernel, x, y, 0, NULL, 0, 0, 0);
    for (int64_t i = 0; i < N; i++) {
        double want = f->of_double((double)x[i]);
        ck_assert_msg(fabs((double)y[i] - want) <= 1e-6 * (fabs(want) + 1e-1), "%s(%.9g) = %.9g, not %.9g", f->name,
                      (double)x[i], (double)y[i], want);
    }
}
END_TEST

START_TEST(math_of_two)
{
    skip_without_libdevice();
    static double x[2 * N], y[3 * N];
    pm_rt_emu_kernel *kernel = play(
        "declare double @llvm.pow.f64(double, double)\ndeclare double @atan2(double, double)\ndeclare double @ldexp(double, i32)",
        "  %i = mul i64 %worker, 2\n  %j = mul i64 %worker, 3\n  %p = getelementptr double, ptr %x, i64 %i\n"
        "  %p1 = getelementptr double, ptr %p, i64 1\n  %a = load double, ptr %p\n  %b = load double, ptr %p1\n"
        "  %c = call double @llvm.pow.f64(double %a, double %b)\n  %d = call double @atan2(double %b, double %a)\n"
        "  %e = call double @ldexp(double %a, i32 3)\n  %r = frem double %d, %a\n  %s = fadd double %e, %r\n"
        "  %q = getelementptr double, ptr %y, i64 %j\n  %q1 = getelementptr double, ptr %q, i64 1\n"
        "  %q2 = getelementptr double, ptr %q, i64 2\n  store double %c, ptr %q\n  store double %d, ptr %q1\n"
        "  store double %s, ptr %q2\n  ret i32 0\n");
    for (int64_t i = 0; i < N; i++) {
        x[2 * i] = 0.05 + (double)i / 100;
        x[2 * i + 1] = 3 - (double)i / 60;
    }
    run(kernel, x, y, 0, NULL, 0, 0, 0);
    for (int64_t i = 0; i < N; i++) {
        double a = x[2 * i], b = x[2 * i + 1], angle = y[3 * i + 1];
        ck_assert_double_eq_tol(y[3 * i], pow(a, b), 1e-12 * (1 + pow(a, b)));
        ck_assert_double_eq_tol(angle, atan2(b, a), 1e-13);
        ck_assert_double_eq_tol(y[3 * i + 2], ldexp(a, 3) + fmod(angle, a), 1e-12);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("play");
    TCase *all = tcase_create("play");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, threads_are_workers);
    tcase_add_test(all, lanes_exchange);
    tcase_add_loop_test(all, math_of_doubles, 0, PM_COUNT(functions));
    tcase_add_loop_test(all, math_of_floats, 0, PM_COUNT(functions));
    tcase_add_test(all, math_of_two);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
