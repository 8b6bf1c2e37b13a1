/* Which calls of kernel templates share an instance, and what of a call it fixes. */
#include "codegen/cpu/instances.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "llvm-c/Analysis.h"
#include "llvm-c/Core.h"
#include "llvm-c/IRReader.h"

static const char source[] =
    "declare void @pm_k_linear_f32_p64(ptr, ptr, i64, i64, i64, ptr, ptr, i64, i64)\n"
    "declare i32 @pm_k_cache_key(ptr, ptr, ptr, i64, i64, i64, i64, i64, i64, i64)\n"
    "declare void @pm_k_other(float, ptr, i64)\n"
    "declare float @pm_m_exp(float)\n"
    "declare void @epilogue()\n"
    "declare void @other_epilogue()\n"
    "define void @prefill(ptr %a, i64 %m, i64 %w) {\n"
    "  call void @pm_k_linear_f32_p64(ptr %a, ptr %a, i64 %m, i64 256, i64 512, ptr @epilogue,\n"
    "                                 ptr %a, i64 %w, i64 2)\n"
    "  call void @pm_k_linear_f32_p64(ptr %a, ptr %a, i64 1, i64 128, i64 512,\n"
    "                                 ptr @other_epilogue, ptr %a, i64 %w, i64 2)\n"
    "  ret void\n"
    "}\n"
    "define i32 @decode(ptr %a, i64 %m, i64 %w) {\n"
    "  call void @pm_k_linear_f32_p64(ptr %a, ptr %a, i64 %m, i64 256, i64 514, ptr @epilogue,\n"
    "                                 ptr %a, i64 %w, i64 2)\n"
    "  %s = call i32 @pm_k_cache_key(ptr %a, ptr %a, ptr %a, i64 %m, i64 1, i64 4, i64 32,\n"
    "                                i64 1024, i64 %w, i64 2)\n"
    "  call void @pm_k_other(float 0.125, ptr null, i64 -1)\n"
    "  call void @pm_k_other(float 0.25, ptr null, i64 -1)\n"
    "  call void @pm_k_other(float 0.125, ptr %a, i64 -1)\n"
    "  %e = call float @pm_m_exp(float 1.0)\n"
    "  ret i32 %s\n"
    "}\n";

static LLVMContextRef context;
static LLVMModuleRef module;

static void setup(void)
{
    context = LLVMContextCreate();
    LLVMMemoryBufferRef buffer =
        LLVMCreateMemoryBufferWithMemoryRange(source, strlen(source), "test", true);
    char *message = NULL;
    ck_assert_msg(!LLVMParseIRInContext(context, buffer, &module, &message), "%s",
                  message ? message : "");
    pm_share_kernels(module);
    ck_assert_msg(!LLVMVerifyModule(module, LLVMReturnStatusAction, &message), "%s", message);
    LLVMDisposeMessage(message);
}

static void teardown(void)
{
    LLVMDisposeModule(module);
    LLVMContextDispose(context);
}

/// Calls of `callee` in `caller`; all functions' when that is NULL.
static int calls(const char *caller, const char *callee)
{
    LLVMValueRef f = LLVMGetNamedFunction(module, callee);
    if (!f)
        return 0;
    int n = 0;
    for (LLVMUseRef use = LLVMGetFirstUse(f); use; use = LLVMGetNextUse(use)) {
        LLVMValueRef user = LLVMGetUser(use);
        size_t length;
        LLVMValueRef parent = LLVMGetBasicBlockParent(LLVMGetInstructionParent(user));
        n += !caller || strcmp(LLVMGetValueName2(parent, &length), caller) == 0;
    }
    return n;
}

static int n_instances(void)
{
    int n = 0;
    size_t length;
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f))
        n += pm_is_kernel_instance(LLVMGetValueName2(f, &length));
    return n;
}

START_TEST(test_shared)
{
    // The two depths differ in their constant k, not in widths, rows or epilogues.
    const char *shared = "pm_i_linear_f32_p64_x_x_x_x_512_x_x_x_2";
    const char *deeper = "pm_i_linear_f32_p64_x_x_x_x_514_x_x_x_2";
    ck_assert_int_eq(calls("prefill", shared), 2);
    ck_assert_int_eq(calls("decode", shared), 0);
    ck_assert_int_eq(calls("decode", deeper), 1);
    ck_assert_int_eq(calls(shared, "pm_k_linear_f32_p64"), 1);
    ck_assert_int_eq(calls("prefill", "pm_k_linear_f32_p64"), 0);
    ck_assert_int_eq(calls(NULL, "pm_k_linear_f32_p64"), 2);
}
END_TEST

START_TEST(test_constants)
{
    // Numbers, floats and absent pointers are told apart; functions that are no templates stay as they are.
    ck_assert_int_eq(calls("decode", "pm_i_other_0x1p-3_null_-1"), 1);
    ck_assert_int_eq(calls("decode", "pm_i_other_0x1p-2_null_-1"), 1);
    ck_assert_int_eq(calls("decode", "pm_i_other_0x1p-3_x_-1"), 1);
    ck_assert_int_eq(calls("decode", "pm_i_cache_key_x_x_x_x_x_4_32_1024_x_2"), 1);
    ck_assert_int_eq(calls("decode", "pm_m_exp"), 1);
    ck_assert_int_eq(n_instances(), 6);
}
END_TEST

START_TEST(test_arguments)
{
    // What is passed and what is fixed reaches the template in its order.
    LLVMValueRef instance = LLVMGetNamedFunction(module, "pm_i_cache_key_x_x_x_x_x_4_32_1024_x_2");
    ck_assert_ptr_nonnull(instance);
    ck_assert_uint_eq(LLVMCountParams(instance), 6);
    LLVMValueRef call = LLVMGetFirstInstruction(LLVMGetEntryBasicBlock(instance));
    ck_assert_ptr_nonnull(LLVMIsACallInst(call));
    static const int constants[] = {-1, -1, -1, -1, -1, 4, 32, 1024, -1, 2};
    unsigned parameter = 0;
    for (unsigned i = 0; i < 10; i++) {
        LLVMValueRef arg = LLVMGetOperand(call, i);
        if (constants[i] < 0)
            ck_assert_ptr_eq(arg, LLVMGetParam(instance, parameter++));
        else
            ck_assert_int_eq(LLVMConstIntGetSExtValue(arg), constants[i]);
    }
    LLVMValueRef result = LLVMGetBasicBlockTerminator(LLVMGetEntryBasicBlock(instance));
    ck_assert_int_eq(LLVMGetInstructionOpcode(result), LLVMRet);
    ck_assert_ptr_eq(LLVMGetOperand(result, 0), call);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("instances");
    TCase *t = tcase_create("instances");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_shared);
    tcase_add_test(t, test_constants);
    tcase_add_test(t, test_arguments);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
