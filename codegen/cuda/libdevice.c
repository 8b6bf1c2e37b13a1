#include "codegen/cuda/libdevice.h"

#include <stdbool.h>
#include <string.h>

#include "llvm-c/BitReader.h"
#include "llvm-c/Core.h"
#include "llvm-c/Linker.h"

#include "base/containers.h"
#include "codegen/cuda/toolkit.h"

/// Functions of <math.h> whose libdevice counterpart is __nv_<name>, for double, and __nv_<name>f; of the rest LLVM
/// makes instructions.
static const char *const functions[] = {
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf", "erfc", "erfcinv", "exp",
    "exp10", "exp2", "expm1", "fmod", "hypot", "ldexp", "lgamma", "log", "log10", "log1p", "log2", "pow", "powi",
    "remainder", "sin", "sinh", "tan", "tanh", "tgamma",
};

/// "exp", "expf", "llvm.exp.f32", "llvm.ldexp.f64.i32" -> "__nv_exp", "__nv_expf", …; NULL: not one of these.
static const char *device_name(pm_arena *arena, const char *name)
{
    static const char intrinsic[] = "llvm.";
    bool is_intrinsic = strncmp(name, intrinsic, sizeof intrinsic - 1) == 0;
    const char *base = is_intrinsic ? name + sizeof intrinsic - 1 : name;
    size_t length = is_intrinsic ? strcspn(base, ".") : strlen(base);
    bool is_float = is_intrinsic && strncmp(base + length, ".f32", 4) == 0;
    if (is_intrinsic && !is_float && strncmp(base + length, ".f64", 4) != 0)
        return NULL;
    for (size_t i = 0; i < PM_COUNT(functions); i++) {
        size_t n = strlen(functions[i]);
        if (strncmp(base, functions[i], n) != 0)
            continue;
        if (length == n)
            return pm_arena_printf(arena, "__nv_%s%s", functions[i], is_float ? "f" : "");
        if (!is_intrinsic && length == n + 1 && base[n] == 'f')
            return pm_arena_printf(arena, "__nv_%sf", functions[i]);
    }
    return NULL;
}

static LLVMValueRef declare(LLVMModuleRef module, const char *name, LLVMTypeRef type)
{
    LLVMValueRef f = LLVMGetNamedFunction(module, name);
    return f ? f : LLVMAddFunction(module, name, type);
}

/// Remainders, which a GPU would compute inexactly.
static bool replace_remainders(LLVMModuleRef module)
{
    LLVMContextRef c = LLVMGetModuleContext(module);
    LLVMBuilderRef b = LLVMCreateBuilderInContext(c);
    bool any = false;
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f))
        for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(f); block; block = LLVMGetNextBasicBlock(block))
            for (LLVMValueRef op = LLVMGetFirstInstruction(block), next; op; op = next) {
                next = LLVMGetNextInstruction(op);
                if (LLVMGetInstructionOpcode(op) != LLVMFRem)
                    continue;
                LLVMTypeRef type = LLVMTypeOf(op), both[] = {type, type};
                LLVMTypeKind kind = LLVMGetTypeKind(type);
                if (kind != LLVMFloatTypeKind && kind != LLVMDoubleTypeKind)
                    continue;
                LLVMTypeRef function_type = LLVMFunctionType(type, both, 2, false);
                LLVMValueRef function =
                    declare(module, kind == LLVMFloatTypeKind ? "__nv_fmodf" : "__nv_fmod", function_type);
                LLVMValueRef args[] = {LLVMGetOperand(op, 0), LLVMGetOperand(op, 1)};
                LLVMPositionBuilderBefore(b, op);
                LLVMReplaceAllUsesWith(op, LLVMBuildCall2(b, function_type, function, args, 2, ""));
                LLVMInstructionEraseFromParent(op);
                any = true;
            }
    LLVMDisposeBuilder(b);
    return any;
}

static bool replace_calls(pm_arena *arena, LLVMModuleRef module)
{
    bool any = false;
    for (LLVMValueRef f = LLVMGetFirstFunction(module), next; f; f = next) {
        next = LLVMGetNextFunction(f);
        size_t length;
        if (!LLVMIsDeclaration(f) || !LLVMGetFirstUse(f))
            continue;
        const char *name = device_name(arena, LLVMGetValueName2(f, &length));
        if (!name)
            continue;
        LLVMReplaceAllUsesWith(f, declare(module, name, LLVMGlobalGetValueType(f)));
        LLVMDeleteFunction(f);
        any = true;
    }
    return any;
}

pm_status pm_libdevice_link(pm_arena *arena, pm_diag *diag, LLVMModuleRef module)
{
    bool any = replace_calls(arena, module);
    any |= replace_remainders(module);
    if (!any)
        return PM_OK;
    const char *path;
    PM_TRY(pm_toolkit_find(arena, diag, PM_TOOLKIT_LIBDEVICE, &path));
    LLVMMemoryBufferRef buffer;
    char *message = NULL;
    if (LLVMCreateMemoryBufferWithContentsOfFile(path, &buffer, &message)) {
        pm_status status = pm_error(diag, NULL, PM_ERR_IO, "%s: %s", path, message);
        LLVMDisposeMessage(message);
        return status;
    }
    LLVMModuleRef library;
    if (LLVMGetBitcodeModuleInContext2(LLVMGetModuleContext(module), buffer, &library)) {
        LLVMDisposeMemoryBuffer(buffer);
        return pm_error(diag, NULL, PM_ERR_INVALID, "%s is no bitcode that LLVM reads", path);
    }
    for (LLVMValueRef f = LLVMGetFirstFunction(library); f; f = LLVMGetNextFunction(f))
        if (!LLVMIsDeclaration(f) && LLVMGetLinkage(f) == LLVMExternalLinkage)
            LLVMSetLinkage(f, LLVMLinkOnceODRLinkage);
    LLVMSetTarget(library, LLVMGetTarget(module));
    LLVMSetDataLayout(library, LLVMGetDataLayoutStr(module));
    if (LLVMLinkModules2(module, library))
        return pm_error(diag, NULL, PM_ERR_INVALID, "%s could not be linked", path);
    return PM_OK;
}
