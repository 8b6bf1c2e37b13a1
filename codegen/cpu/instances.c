#include "codegen/cpu/instances.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "llvm-c/Core.h"

#include "base/diag.h"

static const char template_prefix[] = "pm_k_", instance_prefix[] = "pm_i_";

enum { MAX_ARGS = 40, NAME_SIZE = 512 };

/// Arguments that stay arguments though a dispatch knows them: what they say costs a kernel nothing to
/// look up, and dispatches that differ in them alone (a prefill and a decode, two widths of one
/// depth) share an instance. What the others say folds into addresses and unrolls loops.
typedef struct sharing_rule {
    const char *prefix; ///< of the template's name, behind pm_k_
    uint64_t stays;     ///< bit i: argument i
} sharing_rule;

#define ARG(i) (UINT64_C(1) << (i))
static const sharing_rule rules[] = {
    {"linear_", ARG(2) | ARG(3)},                    // m, n
    {"grouped_", ARG(2) | ARG(4) | ARG(5)},          // expert_stride, experts, n
    {"matmul_", ARG(3) | ARG(4) | ARG(7) | ARG(8)},  // batch, m, strides between matrices
    {"cache_", ARG(3) | ARG(4)},                     // batch, t
    {"sdpa", ARG(8) | ARG(9) | ARG(10) | ARG(16)},   // batch, t, keys of k and the mask
    {"kv_append", ARG(5) | ARG(6) | ARG(9) | ARG(10)}, // batch, t, before, length
    {"attention", ARG(6) | ARG(7)},                  // batch, t
    {"rope_table", ARG(3) | ARG(4)},                 // batch, t
    {"rope", ARG(3)},                                // rows
    {"route", ARG(5)},                               // m
    {"expert_order", ARG(4)},                        // m
};
#undef ARG

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool pm_is_kernel_instance(const char *name)
{
    return starts_with(name, instance_prefix);
}

static uint64_t arguments_that_stay(const char *kernel)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (starts_with(kernel, rules[i].prefix))
            return rules[i].stays;
    return 0;
}

/// Writes what the instance's name says of an argument; false when it is not a constant to pass on.
static bool name_constant(LLVMValueRef value, char *out, size_t size)
{
    if (LLVMIsAConstantInt(value)) {
        snprintf(out, size, "_%lld", LLVMConstIntGetSExtValue(value));
    } else if (LLVMIsAConstantFP(value)) {
        LLVMBool loses;
        snprintf(out, size, "_%a", LLVMConstRealGetDouble(value, &loses));
    } else if (LLVMIsAConstantPointerNull(value)) {
        snprintf(out, size, "_null");
    } else {
        snprintf(out, size, "_x");
        return false;
    }
    return true;
}

static void add_attribute(LLVMContextRef context, LLVMValueRef function, const char *name)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMAddAttributeAtIndex(function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(context, kind, 0));
}

/// The function `name`: calls the template with the constants of `args`, and its own parameters for the others.
static LLVMValueRef make_instance(LLVMModuleRef module, const char *name, LLVMValueRef kernel,
                                  const LLVMValueRef *args, const bool *folded, unsigned n)
{
    LLVMContextRef context = LLVMGetModuleContext(module);
    LLVMTypeRef type = LLVMGlobalGetValueType(kernel), parameters[MAX_ARGS];
    unsigned n_parameters = 0;
    for (unsigned i = 0; i < n; i++)
        if (!folded[i])
            parameters[n_parameters++] = LLVMTypeOf(args[i]);
    LLVMTypeRef result = LLVMGetReturnType(type);
    LLVMValueRef instance = LLVMAddFunction(
        module, name, LLVMFunctionType(result, parameters, n_parameters, false));
    add_attribute(context, instance, "noinline");
    // nor cloned for the constants that stay
    add_attribute(context, instance, "noduplicate");
    LLVMBuilderRef builder = LLVMCreateBuilderInContext(context);
    LLVMPositionBuilderAtEnd(builder, LLVMAppendBasicBlockInContext(context, instance, ""));
    LLVMValueRef passed[MAX_ARGS];
    n_parameters = 0;
    for (unsigned i = 0; i < n; i++)
        passed[i] = folded[i] ? args[i] : LLVMGetParam(instance, n_parameters++);
    LLVMValueRef value = LLVMBuildCall2(builder, type, kernel, passed, n, "");
    if (LLVMGetTypeKind(result) == LLVMVoidTypeKind)
        LLVMBuildRetVoid(builder);
    else
        LLVMBuildRet(builder, value);
    LLVMDisposeBuilder(builder);
    return instance;
}

static void share_call(LLVMModuleRef module, LLVMValueRef call, LLVMValueRef kernel,
                       const char *kernel_name)
{
    unsigned n = LLVMGetNumArgOperands(call);
    PM_ASSERT(n <= MAX_ARGS);
    char name[NAME_SIZE];
    size_t at = (size_t)snprintf(name, sizeof name, "%s%s", instance_prefix, kernel_name);
    uint64_t stays = arguments_that_stay(kernel_name);
    LLVMValueRef args[MAX_ARGS], passed[MAX_ARGS];
    bool folded[MAX_ARGS];
    unsigned n_passed = 0;
    for (unsigned i = 0; i < n; i++) {
        char text[40] = "_x";
        args[i] = LLVMGetOperand(call, i);
        folded[i] = !(stays >> i & 1) && name_constant(args[i], text, sizeof text);
        if (!folded[i])
            passed[n_passed++] = args[i];
        at += (size_t)snprintf(name + at, sizeof name - at, "%s", text);
        PM_ASSERT(at < sizeof name);
    }
    LLVMValueRef instance = LLVMGetNamedFunction(module, name);
    if (!instance)
        instance = make_instance(module, name, kernel, args, folded, n);
    LLVMBuilderRef builder = LLVMCreateBuilderInContext(LLVMGetModuleContext(module));
    LLVMPositionBuilderBefore(builder, call);
    LLVMValueRef result = LLVMBuildCall2(builder, LLVMGlobalGetValueType(instance), instance, passed,
                                         n_passed, "");
    LLVMReplaceAllUsesWith(call, result);
    LLVMInstructionEraseFromParent(call);
    LLVMDisposeBuilder(builder);
}

void pm_share_kernels(LLVMModuleRef module)
{
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f)) {
        size_t length;
        const char *name = LLVMGetValueName2(f, &length);
        if (!starts_with(name, template_prefix))
            continue;
        for (LLVMUseRef use = LLVMGetFirstUse(f), next; use; use = next) {
            next = LLVMGetNextUse(use);
            LLVMValueRef user = LLVMGetUser(use);
            if (!LLVMIsACallInst(user) || LLVMGetCalledValue(user) != f)
                continue;
            LLVMValueRef caller = LLVMGetBasicBlockParent(LLVMGetInstructionParent(user));
            if (!pm_is_kernel_instance(LLVMGetValueName2(caller, &length)))
                share_call(module, user, f, name + sizeof template_prefix - 1);
        }
    }
}
