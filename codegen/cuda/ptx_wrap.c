#include "codegen/cuda/ptx_wrap.h"

#include <stdio.h>
#include <string.h>

#include "llvm-c/Core.h"

enum { PTX_KERNEL_CONVENTION = 71 };

typedef struct wrap {
    LLVMModuleRef module;
    LLVMContextRef c;
    LLVMBuilderRef b;
    LLVMTypeRef i32, i64, ptr;
    LLVMValueRef kernel;
} wrap;

/// A special register that holds a number, as i64.
static LLVMValueRef special(const wrap *w, const char *name)
{
    LLVMTypeRef type = LLVMFunctionType(w->i32, NULL, 0, false);
    LLVMValueRef f = LLVMGetNamedFunction(w->module, name);
    f = f ? f : LLVMAddFunction(w->module, name, type);
    return LLVMBuildZExt(w->b, LLVMBuildCall2(w->b, type, f, NULL, 0, ""), w->i64, "");
}

/// Goes on in a block where `condition` holds; the kernel ends where it doesn't.
static void only_if(const wrap *w, LLVMValueRef condition)
{
    LLVMBasicBlockRef yes = LLVMAppendBasicBlockInContext(w->c, w->kernel, "");
    LLVMBasicBlockRef no = LLVMAppendBasicBlockInContext(w->c, w->kernel, "");
    LLVMBuildCondBr(w->b, condition, yes, no);
    LLVMPositionBuilderAtEnd(w->b, no);
    LLVMBuildRetVoid(w->b);
    LLVMPositionBuilderAtEnd(w->b, yes);
}

static LLVMValueRef add_kernel(const wrap *w, const pm_kernel *k)
{
    LLVMTypeRef types[PM_LAUNCH_MAX_WORDS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n_pointers + k->n_symbols; i++)
        types[n++] = i < k->n_pointers ? w->ptr : w->i64;
    LLVMTypeRef rest[] = {w->ptr, w->i64, w->i64, w->ptr, w->i64};
    for (uint32_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        types[n++] = rest[i];
    LLVMValueRef f = LLVMAddFunction(w->module, k->name,
                                     LLVMFunctionType(LLVMVoidTypeInContext(w->c), types, n, false));
    LLVMSetFunctionCallConv(f, PTX_KERNEL_CONVENTION);
    char threads[16];
    snprintf(threads, sizeof threads, "%d", PM_GENERAL_THREADS);
    LLVMAddTargetDependentFunctionAttr(f, "nvvm.maxntid", threads);
    return f;
}

LLVMValueRef pm_ptx_wrap(LLVMModuleRef module, const pm_kernel *k)
{
    LLVMContextRef c = LLVMGetModuleContext(module);
    wrap w = {.module = module, .c = c, .b = LLVMCreateBuilderInContext(c), .i32 = LLVMInt32TypeInContext(c),
              .i64 = LLVMInt64TypeInContext(c), .ptr = LLVMPointerTypeInContext(c, 0)};
    w.kernel = add_kernel(&w, k);
    LLVMValueRef function = LLVMGetNamedFunction(module, k->function), args[PM_LAUNCH_MAX_WORDS];
    LLVMPositionBuilderAtEnd(w.b, LLVMAppendBasicBlockInContext(c, w.kernel, ""));
    // Symbols go where the function looks for them; nothing is left of it once that is inlined.
    LLVMValueRef list = LLVMBuildAlloca(w.b, LLVMArrayType2(w.i64, k->n_symbols + 1), "");
    for (uint32_t i = 0; i < k->n_symbols; i++) {
        LLVMValueRef at = LLVMConstInt(w.i64, i, false);
        LLVMBuildStore(w.b, LLVMGetParam(w.kernel, k->n_pointers + i),
                       LLVMBuildGEP2(w.b, w.i64, list, &at, 1, ""));
    }
    uint32_t rest = k->n_pointers + k->n_symbols, n = 0;
    LLVMValueRef scratch = LLVMGetParam(w.kernel, rest), bytes = LLVMGetParam(w.kernel, rest + 1);
    LLVMValueRef limit = LLVMGetParam(w.kernel, rest + 2), zero = LLVMConstInt(w.i64, 0, false);
    LLVMValueRef threads = LLVMConstInt(w.i64, PM_GENERAL_THREADS, false);
    LLVMValueRef worker = LLVMBuildAdd(w.b,
        LLVMBuildMul(w.b, special(&w, "llvm.nvvm.read.ptx.sreg.ctaid.x"), threads, ""),
        special(&w, "llvm.nvvm.read.ptx.sreg.tid.x"), "");
    LLVMValueRef all = LLVMBuildMul(w.b, special(&w, "llvm.nvvm.read.ptx.sreg.nctaid.x"), threads, "");
    LLVMValueRef limited = LLVMBuildAnd(w.b, LLVMBuildICmp(w.b, LLVMIntSGT, limit, zero, ""),
                                        LLVMBuildICmp(w.b, LLVMIntSLT, limit, all, ""), "");
    LLVMValueRef workers = LLVMBuildSelect(w.b, limited, limit, all, "");
    only_if(&w, LLVMBuildICmp(w.b, LLVMIntSLT, worker, workers, ""));
    LLVMValueRef offset = LLVMBuildMul(w.b, worker, bytes, "");
    for (; n < k->n_pointers; n++)
        args[n] = LLVMGetParam(w.kernel, n);
    args[n++] = list;
    args[n++] = LLVMBuildGEP2(w.b, LLVMInt8TypeInContext(c), scratch, &offset, 1, "");
    args[n++] = worker;
    args[n++] = workers;
    LLVMValueRef fault = LLVMBuildCall2(w.b, LLVMGlobalGetValueType(function), function, args, n, "");
    only_if(&w, LLVMBuildICmp(w.b, LLVMIntNE, fault, LLVMConstInt(w.i32, 0, false), ""));
    // The first dispatch that finds the data at fault keeps its mark.
    LLVMValueRef mark = LLVMBuildTrunc(w.b, LLVMGetParam(w.kernel, rest + 4), w.i32, "");
    LLVMBuildAtomicCmpXchg(w.b, LLVMGetParam(w.kernel, rest + 3), LLVMConstInt(w.i32, 0, false), mark,
                           LLVMAtomicOrderingMonotonic, LLVMAtomicOrderingMonotonic, false);
    LLVMBuildRetVoid(w.b);
    LLVMDisposeBuilder(w.b);
    return w.kernel;
}
