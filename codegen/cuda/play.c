#include "codegen/cuda/play.h"

#include <stdlib.h>
#include <string.h>

#include "llvm-c/Core.h"
#include "llvm-c/IRReader.h"
#include "llvm-c/Linker.h"

#include "base/containers.h"

/// An instruction of GPUs as LLVM names it, and what the CPU does for it: from %a, %b, %c to %r.
typedef struct instruction {
    const char *name; ///< behind llvm.nvvm.
    const char *result, *arguments, *body;
} instruction;

#define F1 "float %a"
#define F2 "float %a, float %b"
#define F3 "float %a, float %b, float %c"
#define D1 "double %a"
#define D2 "double %a, double %b"
#define D3 "double %a, double %b, double %c"
#define I2 "i32 %a, i32 %b"
#define NUMBER(function) "  %n = call i64 @" function "()\n  %r = trunc i64 %n to i32\n"
#define PAIR "{ i64, i64 }"
#define WIDE(to, low, high)                                                                                            \
    "  %" to "l = zext i64 %" low " to i128\n  %" to "h = zext i64 %" high " to i128\n"                                 \
    "  %" to "s = shl i128 %" to "h, 64\n  %" to " = or i128 %" to "l, %" to "s\n"
#define HALVES                                                                                                         \
    "  %low = trunc i128 %z to i64\n  %s = lshr i128 %z, 64\n  %high = trunc i128 %s to i64\n"                         \
    "  %t = insertvalue { i64, i64 } poison, i64 %low, 0\n  %r = insertvalue { i64, i64 } %t, i64 %high, 1\n"
#define RSQRT(type, root) "  %s = call " type " @" root "(" type " %a)\n  %r = fdiv " type " 1.0, %s\n"
#define CALL1(type, function) "  %r = call " type " @" function "(" type " %a)\n"
#define CALL2(type, function) "  %r = call " type " @" function "(" type " %a, " type " %b)\n"
#define CALL3(type, function) "  %r = call " type " @" function "(" type " %a, " type " %b, " type " %c)\n"

static const instruction instructions[] = {
    {"read.ptx.sreg.tid.x", "i32", "", NUMBER("pm_emu_thread")},
    {"read.ptx.sreg.ctaid.x", "i32", "", NUMBER("pm_emu_block")},
    {"read.ptx.sreg.nctaid.x", "i32", "", NUMBER("pm_emu_blocks")},
    {"shfl.sync.bfly.f32", "float", "i32 %all, float %a, i32 %b, i32 %clamp",
     "  %r = call float @pm_dev_shfl_xor_f32(float %a, i32 %b)\n"},
    {"shfl.sync.bfly.i32", "i32", "i32 %all, i32 %a, i32 %b, i32 %clamp",
     "  %r = call i32 @pm_dev_shfl_xor_i32(i32 %a, i32 %b)\n"},
    {"fma.rn.f", "float", F3, CALL3("float", "llvm.fma.f32")},
    {"fma.rn.d", "double", D3, CALL3("double", "llvm.fma.f64")},
    {"add.rn.f", "float", F2, "  %r = fadd float %a, %b\n"},
    {"add.rn.d", "double", D2, "  %r = fadd double %a, %b\n"},
    {"mul.rn.f", "float", F2, "  %r = fmul float %a, %b\n"},
    {"mul.rn.d", "double", D2, "  %r = fmul double %a, %b\n"},
    {"div.rn.f", "float", F2, "  %r = fdiv float %a, %b\n"},
    {"div.rn.d", "double", D2, "  %r = fdiv double %a, %b\n"},
    {"rcp.rn.f", "float", F1, "  %r = fdiv float 1.0, %a\n"},
    {"rcp.rn.d", "double", D1, "  %r = fdiv double 1.0, %a\n"},
    {"rcp.approx.ftz.d", "double", D1, "  %r = fdiv double 1.0, %a\n"},
    {"sqrt.rn.f", "float", F1, CALL1("float", "llvm.sqrt.f32")},
    {"sqrt.rn.d", "double", D1, CALL1("double", "llvm.sqrt.f64")},
    {"fmin.f", "float", F2, CALL2("float", "llvm.minnum.f32")},
    {"fmax.f", "float", F2, CALL2("float", "llvm.maxnum.f32")},
    {"fmin.d", "double", D2, CALL2("double", "llvm.minnum.f64")},
    {"fmax.d", "double", D2, CALL2("double", "llvm.maxnum.f64")},
    {"ex2.approx.f32", "float", F1, CALL1("float", "llvm.exp2.f32")},
    {"ex2.approx.ftz.f32", "float", F1, CALL1("float", "llvm.exp2.f32")},
    {"lg2.approx.f", "float", F1, CALL1("float", "llvm.log2.f32")},
    {"lg2.approx.ftz.f", "float", F1, CALL1("float", "llvm.log2.f32")},
    {"d2i.hi", "i32", D1, "  %x = bitcast double %a to i64\n  %y = lshr i64 %x, 32\n  %r = trunc i64 %y to i32\n"},
    {"d2i.lo", "i32", D1, "  %x = bitcast double %a to i64\n  %r = trunc i64 %x to i32\n"},
    {"lohi.i2d", "double", I2, "  %x = zext i32 %a to i64\n  %y = zext i32 %b to i64\n  %z = shl i64 %y, 32\n"
                               "  %w = or i64 %x, %z\n  %r = bitcast i64 %w to double\n"},
    {"mulhi.ui", "i32", I2, "  %x = zext i32 %a to i64\n  %y = zext i32 %b to i64\n  %z = mul i64 %x, %y\n"
                            "  %w = lshr i64 %z, 32\n  %r = trunc i64 %w to i32\n"},
    {"mulhi.i", "i32", I2, "  %x = sext i32 %a to i64\n  %y = sext i32 %b to i64\n  %z = mul i64 %x, %y\n"
                           "  %w = ashr i64 %z, 32\n  %r = trunc i64 %w to i32\n"},
    {"mulhi.ull", "i64", "i64 %a, i64 %b", "  %x = zext i64 %a to i128\n  %y = zext i64 %b to i128\n"
                                           "  %z = mul i128 %x, %y\n  %w = lshr i128 %z, 64\n  %r = trunc i128 %w to i64\n"},
    {"d2i.rn", "i32", D1, "  %x = call double @llvm.rint.f64(double %a)\n  %r = call i32 @llvm.fptosi.sat.i32.f64(double %x)\n"},
    {"d2i.rz", "i32", D1, "  %r = call i32 @llvm.fptosi.sat.i32.f64(double %a)\n"},
    {"f2i.rn", "i32", F1, "  %x = call float @llvm.rint.f32(float %a)\n  %r = call i32 @llvm.fptosi.sat.i32.f32(float %x)\n"},
    {"i2d.rn", "double", "i32 %a", "  %r = sitofp i32 %a to double\n"},
    {"f2i.rz", "i32", F1, "  %r = call i32 @llvm.fptosi.sat.i32.f32(float %a)\n"},
    {"fabs.f32", "float", F1, CALL1("float", "llvm.fabs.f32")},
    {"fabs.f64", "double", D1, CALL1("double", "llvm.fabs.f64")},
    {"round.f", "float", F1, CALL1("float", "llvm.rint.f32")}, // to even
    {"round.d", "double", D1, CALL1("double", "llvm.rint.f64")},
    {"saturate.f", "float", F1, "  %x = call float @llvm.maxnum.f32(float %a, float 0.0)\n"
                                "  %r = call float @llvm.minnum.f32(float %x, float 1.0)\n"},
    {"div.approx.f", "float", F2, "  %r = fdiv float %a, %b\n"},
    {"div.approx.ftz.f", "float", F2, "  %r = fdiv float %a, %b\n"},
    {"rsqrt.approx.f", "float", F1, RSQRT("float", "llvm.sqrt.f32")},
    {"rsqrt.approx.ftz.f", "float", F1, RSQRT("float", "llvm.sqrt.f32")},
    // Rounded down, and towards zero: from the nearest, one step back where that went too far.
    {"fma.rm.f", "float", F3,
     "  %x = fpext float %a to double\n  %y = fpext float %b to double\n  %z = fpext float %c to double\n"
     "  %d = call double @llvm.fma.f64(double %x, double %y, double %z)\n  %n = fptrunc double %d to float\n"
     "  %w = fpext float %n to double\n  %far = fcmp ogt double %w, %d\n  %i = bitcast float %n to i32\n"
     "  %positive = fcmp ogt float %n, 0.0\n  %step = select i1 %positive, i32 -1, i32 1\n  %j = add i32 %i, %step\n"
     "  %zero = fcmp oeq float %n, 0.0\n  %k = select i1 %zero, i32 -2147483647, i32 %j\n"
     "  %l = select i1 %far, i32 %k, i32 %i\n  %r = bitcast i32 %l to float\n"},
    {"add.rz.f", "float", F2,
     "  %x = fpext float %a to double\n  %y = fpext float %b to double\n  %d = fadd double %x, %y\n"
     "  %n = fptrunc double %d to float\n  %w = fpext float %n to double\n"
     "  %aw = call double @llvm.fabs.f64(double %w)\n  %ad = call double @llvm.fabs.f64(double %d)\n"
     "  %far = fcmp ogt double %aw, %ad\n  %i = bitcast float %n to i32\n  %j = sub i32 %i, 1\n"
     "  %k = select i1 %far, i32 %j, i32 %i\n  %r = bitcast i32 %k to float\n"},
};

/// What libdevice writes in the assembler's own words, by what no other piece of it says; the arguments in order.
static const instruction assembly[] = {
    {"rcp.approx.ftz.f32", "float", F1, "  %r = fdiv float 1.0, %a\n"},
    {"rcp.approx.ftz.f64", "double", D1, "  %r = fdiv double 1.0, %a\n"},
    {"rsqrt.approx.ftz.f64", "double", D1, RSQRT("double", "llvm.sqrt.f64")},
    {"sub.rn.ftz.f32", "float", F2, "  %r = fsub float %a, %b\n"},
    {"sub.rn.f32", "float", F2, "  %r = fsub float %a, %b\n"},
    {"sub.rn.f64", "double", D2, "  %r = fsub double %a, %b\n"},
    {"setp.equ.f64", "double", "double %a, double %b, double %c, double %d",
     "  %same = fcmp ueq double %a, %b\n  %r = select i1 %same, double %c, double %d\n"},
    {"bfind.shiftamt.u32", "i32", "i32 %a", "  %x = call i32 @llvm.ctlz.i32(i32 %a, i1 false)\n  %none = icmp eq i32 %a, 0\n"
                                            "  %r = select i1 %none, i32 -1, i32 %x\n"},
    {"add.cc.u32      r0, a0", PAIR, "i64 %a, i64 %b, i64 %c, i64 %d",
     WIDE("x", "a", "b") WIDE("y", "c", "d") "  %z = add i128 %x, %y\n" HALVES},
    {"sub.cc.u32      r0, a0", PAIR, "i64 %a, i64 %b, i64 %c, i64 %d",
     WIDE("x", "a", "b") WIDE("y", "c", "d") "  %z = sub i128 %x, %y\n" HALVES},
    {"r0, alo, blo, clo", PAIR, "i64 %a, i64 %b, i64 %c",
     "  %x = zext i64 %a to i128\n  %y = zext i64 %b to i128\n  %w = zext i64 %c to i128\n  %p = mul i128 %x, %y\n"
     "  %z = add i128 %p, %w\n" HALVES},
    {"mul.lo.u32      r0, alo, blo", PAIR, "i64 %a, i64 %b",
     "  %x = zext i64 %a to i128\n  %y = zext i64 %b to i128\n  %z = mul i128 %x, %y\n" HALVES},
    {"mad.lo.cc.u32   $0, $2, $3, $4", "{ i32, i32 }", "i32 %a, i32 %b, i32 %c",
     "  %x = zext i32 %a to i64\n  %y = zext i32 %b to i64\n  %z = zext i32 %c to i64\n  %p = mul i64 %x, %y\n"
     "  %q = add i64 %p, %z\n  %low = trunc i64 %q to i32\n  %s = lshr i64 %q, 32\n  %high = trunc i64 %s to i32\n"
     "  %t = insertvalue { i32, i32 } poison, i32 %low, 0\n  %r = insertvalue { i32, i32 } %t, i32 %high, 1\n"},
};

#undef F1
#undef F2
#undef F3
#undef D1
#undef D2
#undef D3
#undef I2
#undef NUMBER
#undef CALL1
#undef RSQRT
#undef PAIR
#undef WIDE
#undef HALVES
#undef CALL2
#undef CALL3

static const char prefix[] = "llvm.nvvm.";

/// What the bodies above call.
static const char called[] =
    "declare i64 @pm_emu_thread()\ndeclare i64 @pm_emu_block()\ndeclare i64 @pm_emu_blocks()\n"
    "declare float @pm_dev_shfl_xor_f32(float, i32)\ndeclare i32 @pm_dev_shfl_xor_i32(i32, i32)\n"
    "declare float @llvm.fma.f32(float, float, float)\ndeclare double @llvm.fma.f64(double, double, double)\n"
    "declare float @llvm.sqrt.f32(float)\ndeclare double @llvm.sqrt.f64(double)\n"
    "declare float @llvm.minnum.f32(float, float)\ndeclare float @llvm.maxnum.f32(float, float)\n"
    "declare double @llvm.minnum.f64(double, double)\ndeclare double @llvm.maxnum.f64(double, double)\n"
    "declare float @llvm.exp2.f32(float)\ndeclare float @llvm.log2.f32(float)\n"
    "declare float @llvm.fabs.f32(float)\ndeclare double @llvm.fabs.f64(double)\n"
    "declare i32 @llvm.ctlz.i32(i32, i1)\n"
    "declare float @llvm.rint.f32(float)\ndeclare double @llvm.rint.f64(double)\n"
    "declare i32 @llvm.fptosi.sat.i32.f64(double)\ndeclare i32 @llvm.fptosi.sat.i32.f32(float)\n";

/// The text of a function that does what the instruction does.
static const char *definition(pm_arena *arena, const char *function, const instruction *i)
{
    return pm_arena_printf(arena, "define linkonce_odr %s @%s(%s) alwaysinline {\n%s  ret %s %%r\n}\n", i->result, function,
                           i->arguments, i->body, i->result);
}

/// Calls of the assembler's words become calls of functions; what those are is added to the text. What isn't known is
/// added to the list.
static const char *replace_assembly(pm_arena *arena, LLVMModuleRef code, const char *text, const char **missing)
{
    bool defined[PM_COUNT(assembly)] = {false};
    for (LLVMValueRef f = LLVMGetFirstFunction(code); f; f = LLVMGetNextFunction(f))
        for (LLVMBasicBlockRef block = LLVMGetFirstBasicBlock(f); block; block = LLVMGetNextBasicBlock(block))
            for (LLVMValueRef op = LLVMGetFirstInstruction(block); op; op = LLVMGetNextInstruction(op)) {
                LLVMValueRef callee = LLVMIsACallInst(op) ? LLVMGetCalledValue(op) : NULL;
                size_t length, k = 0;
                if (!callee || !LLVMIsAInlineAsm(callee))
                    continue;
                const char *words = LLVMGetInlineAsmAsmString(callee, &length);
                while (k < PM_COUNT(assembly) && !strstr(words, assembly[k].name))
                    k++;
                if (k == PM_COUNT(assembly)) {
                    *missing = pm_arena_printf(arena, "%s%s%.*s", *missing ? *missing : "", *missing ? ", " : "",
                                               (int)length, words);
                    continue;
                }
                const char *function = pm_arena_printf(arena, "pm_play.asm%zu", k);
                LLVMValueRef ours = LLVMGetNamedFunction(code, function);
                if (!ours)
                    ours = LLVMAddFunction(code, function, LLVMGetCalledFunctionType(op));
                if (!defined[k])
                    text = pm_arena_printf(arena, "%s%s", text, definition(arena, function, &assembly[k]));
                defined[k] = true;
                LLVMSetOperand(op, (unsigned)LLVMGetNumOperands(op) - 1, ours);
            }
    return text;
}

static const instruction *instruction_of(LLVMValueRef f)
{
    size_t length;
    const char *name = LLVMGetValueName2(f, &length);
    if (length < sizeof prefix || strncmp(name, prefix, sizeof prefix - 1) != 0)
        return NULL;
    for (size_t i = 0; i < PM_COUNT(instructions); i++)
        if (strcmp(instructions[i].name, name + sizeof prefix - 1) == 0)
            return &instructions[i];
    return NULL;
}

/// Defines the instructions that the module uses, as functions of the CPU.
static pm_status define_instructions(pm_arena *arena, pm_diag *diag, LLVMModuleRef code)
{
    const char *missing = NULL, *text = replace_assembly(arena, code, called, &missing);
    for (LLVMValueRef f = LLVMGetFirstFunction(code), next; f; f = next) {
        next = LLVMGetNextFunction(f);
        size_t length;
        const char *name = LLVMGetValueName2(f, &length);
        if (!LLVMGetFirstUse(f) || strncmp(name, prefix, sizeof prefix - 1) != 0)
            continue;
        const instruction *i = instruction_of(f);
        if (!i) {
            missing = missing ? pm_arena_printf(arena, "%s, %s", missing, name) : pm_arena_strdup(arena, name);
            continue;
        }
        const char *function = pm_arena_printf(arena, "pm_play.%s", i->name);
        text = pm_arena_printf(arena, "%s%s", text, definition(arena, function, i));
        LLVMReplaceAllUsesWith(f, LLVMAddFunction(code, function, LLVMGlobalGetValueType(f)));
        LLVMDeleteFunction(f);
    }
    if (missing)
        return pm_error(diag, NULL, PM_ERR_UNSUPPORTED, "the CPU can't play these instructions of GPUs: %s", missing);
    LLVMModuleRef ours;
    char *message = NULL;
    LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(text, strlen(text), "instructions");
    bool failed = LLVMParseIRInContext2(LLVMGetModuleContext(code), buffer, &ours, &message);
    LLVMDisposeMemoryBuffer(buffer);
    if (failed) {
        pm_status status = pm_error(diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
        LLVMDisposeMessage(message);
        return status;
    }
    LLVMSetTarget(ours, LLVMGetTarget(code));
    LLVMSetDataLayout(ours, LLVMGetDataLayoutStr(code));
    return LLVMLinkModules2(code, ours) ? pm_error(diag, NULL, PM_ERR_INTERNAL, "instructions could not be linked")
                                        : PM_OK;
}

/// A function that takes the kernel's parameters from a list of words.
static void take_words(LLVMModuleRef code, const pm_kernel *k)
{
    LLVMValueRef body = LLVMGetNamedFunction(code, k->name), args[PM_LAUNCH_MAX_WORDS];
    LLVMContextRef c = LLVMGetModuleContext(code);
    LLVMTypeRef ptr = LLVMPointerTypeInContext(c, 0), i64 = LLVMInt64TypeInContext(c);
    LLVMSetValueName2(body, "pm_played", strlen("pm_played"));
    LLVMSetFunctionCallConv(body, LLVMCCallConv);
    LLVMSetLinkage(body, LLVMInternalLinkage);
    LLVMRemoveStringAttributeAtIndex(body, LLVMAttributeFunctionIndex, "nvvm.maxntid", strlen("nvvm.maxntid"));
    LLVMValueRef f = LLVMAddFunction(code, k->name, LLVMFunctionType(LLVMVoidTypeInContext(c), &ptr, 1, false));
    LLVMBuilderRef b = LLVMCreateBuilderInContext(c);
    LLVMPositionBuilderAtEnd(b, LLVMAppendBasicBlockInContext(c, f, ""));
    unsigned n = LLVMCountParams(body);
    for (unsigned i = 0; i < n; i++) {
        LLVMTypeRef type = LLVMTypeOf(LLVMGetParam(body, i));
        LLVMValueRef at = LLVMConstInt(i64, i, false);
        args[i] = LLVMBuildLoad2(b, type, LLVMBuildGEP2(b, i64, LLVMGetParam(f, 0), &at, 1, ""), "");
    }
    LLVMBuildCall2(b, LLVMGlobalGetValueType(body), body, args, n, "");
    LLVMBuildRetVoid(b);
    LLVMDisposeBuilder(b);
}

pm_status pm_play_kernels(pm_arena *arena, pm_diag *diag, LLVMModuleRef code, const pm_kernel *kernels,
                          size_t n_kernels)
{
    PM_TRY(define_instructions(arena, diag, code));
    for (size_t i = 0; i < n_kernels; i++)
        if (kernels[i].function && LLVMGetNamedFunction(code, kernels[i].name))
            take_words(code, &kernels[i]);
    return PM_OK;
}
