#include "codegen/cuda/ptx.h"

#include <stdio.h>
#include <string.h>

#include "llvm-c/Analysis.h"
#include "llvm-c/BitReader.h"
#include "llvm-c/BitWriter.h"
#include "llvm-c/Core.h"
#include "llvm-c/Error.h"
#include "llvm-c/IRReader.h"
#include "llvm-c/Linker.h"
#include "llvm-c/Target.h"
#include "llvm-c/TargetMachine.h"
#include "llvm-c/Transforms/PassBuilder.h"

#include "base/containers.h"
#include "codegen/cuda/chips.h"
#include "codegen/cuda/device_ir.h"
#include "codegen/cuda/libdevice.h"
#include "codegen/cuda/play.h"
#include "codegen/cuda/ptx_wrap.h"
#include "codegen/cuda/toolkit.h"
#include "codegen/embedded.h"

static const char triple[] = "nvptx64-nvidia-cuda", host_triple[] = "x86_64-unknown-linux-gnu";

typedef struct ptx_job {
    pm_arena *arena;
    pm_diag *diag;
    const pm_kernel *kernels;
    size_t n_kernels;
    const pm_cuda_chip *chip;
    int opt_level;
    bool host_math; ///< math stays the host's: no libdevice to play
    LLVMModuleRef code;
    LLVMContextRef context;
    LLVMTargetMachineRef machine;
} ptx_job;

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static pm_status llvm_error(ptx_job *j, char *message)
{
    pm_status status = pm_error(j->diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
    LLVMDisposeMessage(message);
    return status;
}

static pm_status make_machine(ptx_job *j)
{
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    LLVMTargetRef target;
    char *message = NULL, features[16];
    if (LLVMGetTargetFromTriple(triple, &target, &message))
        return llvm_error(j, message);
    snprintf(features, sizeof features, "+ptx%u", (unsigned)j->chip->ptx);
    j->machine = LLVMCreateTargetMachine(target, triple, j->chip->name, features,
                                         j->opt_level > 0 ? LLVMCodeGenLevelAggressive : LLVMCodeGenLevelNone,
                                         LLVMRelocDefault, LLVMCodeModelDefault);
    return PM_OK;
}

/// ---- one module of all that the kernels need ------------------------------------------------------------

static pm_status link_module(ptx_job *j, LLVMModuleRef module, const char *what)
{
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f))
        if (!LLVMIsDeclaration(f) && LLVMGetLinkage(f) == LLVMExternalLinkage)
            LLVMSetLinkage(f, LLVMLinkOnceODRLinkage);
    LLVMSetTarget(module, LLVMGetTarget(j->code));
    LLVMSetDataLayout(module, LLVMGetDataLayoutStr(j->code));
    if (LLVMLinkModules2(j->code, module))
        return pm_error(j->diag, NULL, PM_ERR_INTERNAL, "%s could not be linked", what);
    return PM_OK;
}

static pm_status link_bitcode(ptx_job *j, pm_embedded blob, const char *what)
{
    LLVMMemoryBufferRef buffer =
        LLVMCreateMemoryBufferWithMemoryRange((const char *)blob.bytes, blob.size, what, false);
    LLVMModuleRef module;
    // Bodies are read when the linker asks for them.
    if (LLVMGetBitcodeModuleInContext2(j->context, buffer, &module)) {
        LLVMDisposeMemoryBuffer(buffer);
        return pm_error(j->diag, NULL, PM_ERR_INTERNAL, "bitcode of %s is damaged", what);
    }
    return link_module(j, module, what);
}

static pm_status link_device_ir(ptx_job *j)
{
    LLVMMemoryBufferRef text = LLVMCreateMemoryBufferWithMemoryRange(
        pm_device_ir, sizeof pm_device_ir - 1, "device_ir", true);
    LLVMModuleRef module;
    char *message = NULL;
    LLVMValueRef look_up = LLVMGetNamedFunction(j->code, "llvm.x86.avx2.permps");
    if (look_up) { // the linker brings what is asked for
        LLVMValueRef ours = LLVMAddFunction(j->code, "pm_gpu_look_up", LLVMGlobalGetValueType(look_up));
        LLVMReplaceAllUsesWith(look_up, ours);
        LLVMDeleteFunction(look_up);
    }
    bool failed = LLVMParseIRInContext2(j->context, text, &module, &message);
    LLVMDisposeMemoryBuffer(text);
    return failed ? llvm_error(j, message) : link_module(j, module, "code for GPUs");
}

static void set_attribute(LLVMContextRef c, LLVMValueRef f, const char *name, bool on)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    if (on)
        LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex, LLVMCreateEnumAttribute(c, kind, 0));
    else
        LLVMRemoveEnumAttributeAtIndex(f, LLVMAttributeFunctionIndex, kind);
}

/// Only the kernels stay visible; what was made for x86 forgets it.
static void prepare_functions(ptx_job *j)
{
    static const char *const of_x86[] = {"target-cpu", "target-features", "tune-cpu", "prefer-vector-width",
                                         "min-legal-vector-width", "stack-protector-buffer-size", "frame-pointer"};
    for (LLVMValueRef f = LLVMGetFirstFunction(j->code); f; f = LLVMGetNextFunction(f)) {
        if (LLVMIsDeclaration(f))
            continue;
        size_t length;
        const char *name = LLVMGetValueName2(f, &length);
        for (size_t i = 0; i < PM_COUNT(of_x86); i++)
            LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, of_x86[i], (unsigned)strlen(of_x86[i]));
        set_attribute(j->context, f, "nounwind", true);
        set_attribute(j->context, f, "uwtable", false);
        set_attribute(j->context, f, "noinline", false);
        set_attribute(j->context, f, "optnone", false);
        LLVMSetLinkage(f, LLVMInternalLinkage);
        // References are large and mostly have one caller: left to the inliner's judgement.
        if (!starts_with(name, "pm_eval_") && !starts_with(name, "pm_extent_"))
            set_attribute(j->context, f, "alwaysinline", true);
    }
}

static void add_kernels(ptx_job *j)
{
    for (size_t i = 0; i < j->n_kernels; i++)
        if (j->kernels[i].function && LLVMGetNamedFunction(j->code, j->kernels[i].function))
            pm_ptx_wrap(j->code, &j->kernels[i]);
}

static pm_status run_passes(ptx_job *j, const char *pipeline, LLVMTargetMachineRef machine)
{
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMErrorRef error = LLVMRunPasses(j->code, pipeline, machine, options);
    LLVMDisposePassBuilderOptions(options);
    if (!error)
        return PM_OK;
    char *message = LLVMGetErrorMessage(error);
    pm_status status = pm_error(j->diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
    LLVMDisposeErrorMessage(message);
    return status;
}

/// What is left undefined would be an error of the driver, long after.
static pm_status refuse_unresolved(ptx_job *j)
{
    PM_VEC(const char *) missing = {0};
    for (LLVMValueRef f = LLVMGetFirstFunction(j->code); f; f = LLVMGetNextFunction(f)) {
        size_t length;
        const char *name = LLVMGetValueName2(f, &length);
        if (LLVMIsDeclaration(f) && LLVMGetFirstUse(f) && !starts_with(name, "llvm."))
            PM_PUSH(j->arena, &missing, pm_arena_strndup(j->arena, name, length));
    }
    if (!missing.n)
        return PM_OK;
    const char *names = missing.data[0];
    for (size_t i = 1; i < missing.n; i++)
        names = pm_arena_printf(j->arena, "%s, %s", names, missing.data[i]);
    return pm_error(j->diag, NULL, PM_ERR_UNSUPPORTED, "code for GPUs calls what no GPU has: %s", names);
}

/// Prefetches of the C kernels mean the caches of a CPU.
static void drop_prefetches(ptx_job *j)
{
    LLVMValueRef f = LLVMGetNamedFunction(j->code, "llvm.prefetch.p0");
    for (LLVMUseRef use; f && (use = LLVMGetFirstUse(f));)
        LLVMInstructionEraseFromParent(LLVMGetUser(use));
}

static pm_status build(ptx_job *j)
{
    // With the host's names of library functions LLVM folds comparisons of known texts (kinds of ops) away.
    LLVMSetTarget(j->code, host_triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(j->machine);
    LLVMSetModuleDataLayout(j->code, layout);
    LLVMDisposeTargetData(layout);
    add_kernels(j);
    for (LLVMValueRef f = LLVMGetFirstFunction(j->code); f; f = LLVMGetNextFunction(f))
        if (!LLVMIsDeclaration(f) && LLVMGetFunctionCallConv(f) == LLVMCCallConv)
            LLVMSetLinkage(f, LLVMInternalLinkage);
    PM_TRY(run_passes(j, "globaldce", NULL));
    PM_TRY(link_bitcode(j, pm_embedded_kernels_vw8(), "the kernel templates"));
    PM_TRY(link_bitcode(j, pm_embedded_references(), "the references"));
    prepare_functions(j);
    for (size_t i = 0; i < j->n_kernels; i++) {
        LLVMValueRef f = LLVMGetNamedFunction(j->code, j->kernels[i].name);
        if (!f || !j->kernels[i].function)
            continue;
        LLVMSetLinkage(f, LLVMExternalLinkage);
        set_attribute(j->context, f, "alwaysinline", false);
    }
    drop_prefetches(j);
    PM_TRY(run_passes(j, "globaldce,always-inline,cgscc(inline,function(sroa,early-cse,instcombine<no-verify-fixpoint>,simplifycfg)),globaldce",
                      NULL));
    PM_TRY(link_device_ir(j));
    LLVMSetTarget(j->code, triple);
    if (!j->host_math)
        PM_TRY(pm_libdevice_link(j->arena, j->diag, j->code));
    for (LLVMValueRef f = LLVMGetFirstFunction(j->code); f; f = LLVMGetNextFunction(f))
        if (!LLVMIsDeclaration(f) && LLVMGetLinkage(f) == LLVMLinkOnceODRLinkage)
            LLVMSetLinkage(f, LLVMInternalLinkage);
    char *message = NULL;
    if (LLVMVerifyModule(j->code, LLVMReturnStatusAction, &message))
        return llvm_error(j, message);
    LLVMDisposeMessage(message);
    char pipeline[64];
    snprintf(pipeline, sizeof pipeline, "globaldce,default<O%d>,globaldce", j->opt_level);
    PM_TRY(run_passes(j, pipeline, j->machine));
    return j->host_math ? PM_OK : refuse_unresolved(j);
}

static pm_status emit(ptx_job *j, const char **out_ptx, size_t *out_size)
{
    LLVMMemoryBufferRef buffer;
    char *message = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(j->machine, j->code, LLVMAssemblyFile, &message, &buffer))
        return llvm_error(j, message);
    *out_size = LLVMGetBufferSize(buffer);
    *out_ptx = pm_arena_strndup(j->arena, LLVMGetBufferStart(buffer), *out_size);
    LLVMDisposeMemoryBuffer(buffer);
    return PM_OK;
}

static bool has_libdevice(pm_arena *arena)
{
    pm_arena *scratch = pm_arena_child(arena);
    const char *path;
    bool there = pm_toolkit_find(scratch, pm_diag_create(scratch), PM_TOOLKIT_LIBDEVICE, &path) == PM_OK;
    pm_arena_destroy(scratch);
    return there;
}

/// Whether any of the kernels is the general road's.
static bool any_kernel(const ptx_job *j, LLVMModuleRef module)
{
    for (size_t i = 0; i < j->n_kernels; i++)
        if (j->kernels[i].function && LLVMGetNamedFunction(module, j->kernels[i].function))
            return true;
    return false;
}

/// The module in the job's own context: what is done here leaves no trace (names of types) in the host's.
static pm_status move_in(ptx_job *j, LLVMModuleRef module)
{
    LLVMMemoryBufferRef bitcode = LLVMWriteBitcodeToMemoryBuffer(module);
    bool damaged = LLVMParseBitcodeInContext2(j->context, bitcode, &j->code);
    LLVMDisposeMemoryBuffer(bitcode);
    return damaged ? pm_error(j->diag, NULL, PM_ERR_INTERNAL, "the devices' bitcode is damaged") : PM_OK;
}

static pm_status start(ptx_job *j, LLVMModuleRef module, const pm_ptx_options *options)
{
    j->opt_level = options->opt_level;
    j->chip = pm_cuda_chip_named(options->arch);
    if (!j->chip)
        return pm_error(j->diag, NULL, PM_ERR_USAGE, "no GPU is called '%s'", options->arch);
    if (!any_kernel(j, module))
        return PM_OK;
    PM_TRY(make_machine(j));
    if (j->context != LLVMGetModuleContext(module))
        PM_TRY(move_in(j, module));
    else
        j->code = LLVMCloneModule(module);
    return build(j);
}

static void finish(ptx_job *j)
{
    if (j->code)
        LLVMDisposeModule(j->code);
    if (j->machine)
        LLVMDisposeTargetMachine(j->machine);
}

pm_status pm_ptx_emit(pm_arena *arena, pm_diag *diag, LLVMModuleRef module, const pm_kernel *kernels,
                      size_t n_kernels, const pm_ptx_options *options, const char **out_ptx, size_t *out_size)
{
    ptx_job j = {.arena = arena, .diag = diag, .kernels = kernels, .n_kernels = n_kernels, .context = LLVMContextCreate()};
    *out_ptx = NULL;
    *out_size = 0;
    pm_status status = start(&j, module, options);
    if (status == PM_OK && j.code)
        status = emit(&j, out_ptx, out_size);
    finish(&j);
    LLVMContextDispose(j.context);
    return status;
}

pm_status pm_ptx_play(pm_arena *arena, pm_diag *diag, LLVMModuleRef module, const pm_kernel *kernels,
                      size_t n_kernels, const pm_ptx_options *options, LLVMModuleRef host)
{
    ptx_job j = {.arena = arena, .diag = diag, .kernels = kernels, .n_kernels = n_kernels,
                 .context = LLVMGetModuleContext(module), .host_math = !has_libdevice(arena)};
    pm_status status = start(&j, module, options);
    if (status == PM_OK && j.code)
        status = pm_play_kernels(arena, diag, j.code, kernels, n_kernels);
    if (status == PM_OK && j.code) {
        LLVMModuleRef played = j.code;
        j.code = NULL; // the linker's
        LLVMSetTarget(played, LLVMGetTarget(host));
        LLVMSetDataLayout(played, LLVMGetDataLayoutStr(host));
        if (LLVMLinkModules2(host, played))
            status = pm_error(diag, NULL, PM_ERR_INTERNAL, "kernels could not be linked to the host's code");
    }
    finish(&j);
    return status;
}
