#include "codegen/cuda/emu_wrap.h"

#include <stddef.h>

#include "llvm-c/Core.h"


/// What the wrapper is built with.
typedef struct wrap {
    LLVMModuleRef module;
    LLVMContextRef c;
    LLVMBuilderRef b;
    LLVMTypeRef i32, i64, ptr;
    LLVMValueRef function, words;
} wrap;

static LLVMValueRef number(const wrap *w, int64_t x)
{
    return LLVMConstInt(w->i64, (uint64_t)x, true);
}

static LLVMValueRef word(const wrap *w, uint32_t i)
{
    LLVMValueRef at = number(w, i);
    return LLVMBuildLoad2(w->b, w->i64, LLVMBuildGEP2(w->b, w->i64, w->words, &at, 1, ""), "");
}

static LLVMValueRef pointer(const wrap *w, uint32_t i)
{
    return LLVMBuildIntToPtr(w->b, word(w, i), w->ptr, "");
}

/// A number that the player knows.
static LLVMValueRef asked(const wrap *w, const char *name)
{
    LLVMTypeRef type = LLVMFunctionType(w->i64, NULL, 0, false);
    LLVMValueRef f = LLVMGetNamedFunction(w->module, name);
    f = f ? f : LLVMAddFunction(w->module, name, type);
    return LLVMBuildCall2(w->b, type, f, NULL, 0, "");
}

/// Goes on in a block where `condition` holds; the kernel ends where it doesn't.
static void only_if(const wrap *w, LLVMValueRef condition)
{
    LLVMBasicBlockRef yes = LLVMAppendBasicBlockInContext(w->c, w->function, "");
    LLVMBasicBlockRef no = LLVMAppendBasicBlockInContext(w->c, w->function, "");
    LLVMBuildCondBr(w->b, condition, yes, no);
    LLVMPositionBuilderAtEnd(w->b, no);
    LLVMBuildRetVoid(w->b);
    LLVMPositionBuilderAtEnd(w->b, yes);
}

/// A fault: the first dispatch's mark stays.
static void tell_fault(const wrap *w, LLVMValueRef status, uint32_t first)
{
    only_if(w, LLVMBuildICmp(w->b, LLVMIntNE, status, LLVMConstInt(w->i32, 0, false), ""));
    LLVMValueRef mark = LLVMBuildTrunc(w->b, word(w, first + 1), w->i32, "");
    LLVMBuildAtomicCmpXchg(w->b, pointer(w, first), LLVMConstInt(w->i32, 0, false), mark,
                           LLVMAtomicOrderingMonotonic, LLVMAtomicOrderingMonotonic, false);
    LLVMBuildRetVoid(w->b);
}

static LLVMValueRef call_dispatch(const wrap *w, const pm_kernel *k, LLVMValueRef worker, LLVMValueRef n_workers)
{
    LLVMValueRef f = LLVMGetNamedFunction(w->module, k->function), args[PM_LAUNCH_MAX_WORDS];
    LLVMValueRef list = LLVMBuildArrayAlloca(w->b, w->i64, LLVMConstInt(w->i32, k->n_symbols + 1, false), "");
    for (uint32_t i = 0; i < k->n_pointers; i++)
        args[i] = pointer(w, i);
    for (uint32_t i = 0; i < k->n_symbols; i++) {
        LLVMValueRef at = number(w, i);
        LLVMBuildStore(w->b, word(w, k->n_pointers + i), LLVMBuildGEP2(w->b, w->i64, list, &at, 1, ""));
    }
    uint32_t next = k->n_pointers + k->n_symbols, n = k->n_pointers;
    LLVMValueRef offset = LLVMBuildMul(w->b, worker, word(w, next + 1), "");
    args[n++] = list;
    args[n++] = LLVMBuildGEP2(w->b, LLVMInt8TypeInContext(w->c), pointer(w, next), &offset, 1, "");
    args[n++] = worker;
    args[n++] = n_workers;
    return LLVMBuildCall2(w->b, LLVMGlobalGetValueType(f), f, args, n, "");
}

LLVMValueRef pm_emu_wrap(LLVMModuleRef module, const pm_kernel *k)
{
    LLVMContextRef c = LLVMGetModuleContext(module);
    wrap w = {.module = module, .c = c, .b = LLVMCreateBuilderInContext(c), .i32 = LLVMInt32TypeInContext(c),
              .i64 = LLVMInt64TypeInContext(c), .ptr = LLVMPointerTypeInContext(c, 0)};
    w.function = LLVMAddFunction(module, k->name, LLVMFunctionType(LLVMVoidTypeInContext(c), &w.ptr, 1, false));
    w.words = LLVMGetParam(w.function, 0);
    LLVMPositionBuilderAtEnd(w.b, LLVMAppendBasicBlockInContext(c, w.function, ""));
    uint32_t scratch = k->n_pointers + k->n_symbols;
    LLVMValueRef threads = number(&w, PM_GENERAL_THREADS), limit = word(&w, scratch + 2);
    LLVMValueRef worker = LLVMBuildAdd(w.b, LLVMBuildMul(w.b, asked(&w, "pm_emu_block"), threads, ""),
                                       asked(&w, "pm_emu_thread"), "");
    LLVMValueRef n = LLVMBuildMul(w.b, asked(&w, "pm_emu_blocks"), threads, "");
    LLVMValueRef limited = LLVMBuildAnd(w.b, LLVMBuildICmp(w.b, LLVMIntSGT, limit, number(&w, 0), ""),
                                        LLVMBuildICmp(w.b, LLVMIntSLT, limit, n, ""), "");
    n = LLVMBuildSelect(w.b, limited, limit, n, "");
    only_if(&w, LLVMBuildICmp(w.b, LLVMIntSLT, worker, n, ""));
    tell_fault(&w, call_dispatch(&w, k, worker, n), scratch + 3);
    LLVMDisposeBuilder(w.b);
    return w.function;
}
