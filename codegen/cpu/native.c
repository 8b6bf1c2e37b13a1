/// From MLIR's LLVM module to machine code: templates and references linked in, specialised, emitted.
#include <stdlib.h>
#include <string.h>

#include "llvm-c/Analysis.h"
#include "llvm-c/BitReader.h"
#include "llvm-c/BitWriter.h"
#include "llvm-c/Core.h"
#include "llvm-c/Error.h"
#include "llvm-c/Linker.h"
#include "llvm-c/Target.h"
#include "llvm-c/TargetMachine.h"
#include "llvm-c/Transforms/PassBuilder.h"

#include "base/hash.h"
#include "codegen/codegen.h"
#include "codegen/cpu/device_tables.h"
#include "codegen/cpu/instances.h"
#include "codegen/cpu/kept_object.h"
#include "codegen/cuda/device_code.h"
#include "codegen/cuda/ptx.h"
#include "codegen/cuda/templates.h"
#include "codegen/embedded.h"
#include "codegen/mlir/mlir_lower.h"
#include "runtime/artifact_format.h"
#include "runtime/runtime_abi.h"

struct pm_native {
    pm_module *module;
    pm_diag *diag;
    const pm_target *target;
    const pm_weights *weights;
    LLVMContextRef context;
    LLVMModuleRef code;
    LLVMTargetMachineRef machine;
    const char *mlir_text;
    const pm_dispatch *dispatches;
    size_t n_dispatches;
    uint64_t code_hash;
    const pm_device_code *codes; ///< of GPUs
    size_t n_codes;
    pm_kept_object kept; ///< made before from the same; without a folder it is not looked for
};

static void dispose(void *arg)
{
    pm_native *n = arg;
    if (n->code)
        LLVMDisposeModule(n->code);
    if (n->machine)
        LLVMDisposeTargetMachine(n->machine);
    if (n->context)
        LLVMContextDispose(n->context);
}

static const char triple[] = "x86_64-unknown-linux-gnu";

static pm_status make_machine(pm_native *n, int opt_level)
{
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
    LLVMTargetRef target;
    char *message = NULL;
    if (LLVMGetTargetFromTriple(triple, &target, &message)) {
        pm_status status = pm_error(n->diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
        LLVMDisposeMessage(message);
        return status;
    }
    n->machine = LLVMCreateTargetMachine(
        target, triple, n->target->cpu, "",
        opt_level > 0 ? LLVMCodeGenLevelAggressive : LLVMCodeGenLevelNone, LLVMRelocPIC,
        LLVMCodeModelDefault);
    return PM_OK;
}

/// ---- bitcode ------------------------------------------------------------------------------------------

static pm_status link_bitcode(pm_native *n, pm_embedded blob)
{
    LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRange(
        (const char *)blob.bytes, blob.size, "templates", false);
    LLVMModuleRef module;
    // Bodies are read when the linker asks for them; it does for functions that are needed, if they may be
    // left out at all.
    if (LLVMGetBitcodeModuleInContext2(n->context, buffer, &module)) {
        LLVMDisposeMemoryBuffer(buffer);
        return pm_error(n->diag, NULL, PM_ERR_INTERNAL, "the kernel templates' bitcode is damaged");
    }
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f))
        if (!LLVMIsDeclaration(f) && LLVMGetLinkage(f) == LLVMExternalLinkage)
            LLVMSetLinkage(f, LLVMLinkOnceODRLinkage);
    LLVMSetTarget(module, triple);
    if (LLVMLinkModules2(n->code, module))
        return pm_error(n->diag, NULL, PM_ERR_INTERNAL, "kernel templates could not be linked");
    return PM_OK;
}

static void remove_attr(LLVMValueRef f, const char *name)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMRemoveEnumAttributeAtIndex(f, LLVMAttributeFunctionIndex, kind);
}

static void add_attr(pm_native *n, LLVMValueRef f, const char *name)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(n->context, kind, 0));
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/// Functions from bitcode become internal and are specialised into the dispatches that call them.
static void prepare_functions(pm_native *n)
{
    for (LLVMValueRef f = LLVMGetFirstFunction(n->code); f; f = LLVMGetNextFunction(f)) {
        if (LLVMIsDeclaration(f))
            continue;
        size_t length;
        const char *name = LLVMGetValueName2(f, &length);
        bool ours = starts_with(name, "pm_run_") || starts_with(name, "pm_plan_") ||
                    starts_with(name, "pm_d") || starts_with(name, "pm_x") || starts_with(name, "pm_g") ||
                    starts_with(name, "pm_kernel_") ||
                    pm_is_kernel_instance(name) ||
                    strcmp(name, "pm_state_bytes") == 0 || starts_with(name, "pm_epilogue_");
        LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, "target-cpu", 10);
        LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, "target-features", 15);
        LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, "tune-cpu", 8);
        LLVMAddTargetDependentFunctionAttr(f, "target-cpu", n->target->cpu);
        LLVMAddTargetDependentFunctionAttr(f, "prefer-vector-width",
                                           n->target->vector_floats == 16 ? "512" : "256");
        add_attr(n, f, "nounwind");
        LLVMSetLinkage(f, LLVMInternalLinkage);
        if (!ours) {
            remove_attr(f, "noinline");
            remove_attr(f, "optnone");
            // References are large and mostly have one caller: left to the inliner's judgement.
            if (!starts_with(name, "pm_eval_") && !starts_with(name, "pm_extent_"))
                add_attr(n, f, "alwaysinline");
        }
    }
}

/// ---- the model's descriptor -----------------------------------------------------------------------------

static LLVMValueRef function_named(pm_native *n, const char *fmt, uint32_t i)
{
    char name[32];
    snprintf(name, sizeof name, fmt, i);
    return LLVMGetNamedFunction(n->code, name);
}

static void add_descriptor(pm_native *n, const pm_codegen_options *options, LLVMValueRef devices)
{
    LLVMContextRef c = n->context;
    LLVMTypeRef ptr = LLVMPointerTypeInContext(c, 0), i32 = LLVMInt32TypeInContext(c),
                i64 = LLVMInt64TypeInContext(c);
    uint32_t n_entries = (uint32_t)n->module->entries.n;
    LLVMTypeRef pair[] = {ptr, ptr};
    LLVMTypeRef entry_type = LLVMStructTypeInContext(c, pair, 2, false);
    LLVMValueRef *entries = PM_NEW_ARRAY(n->module->arena, LLVMValueRef, n_entries + 1);
    for (uint32_t i = 0; i < n_entries; i++) {
        LLVMValueRef fields[] = {function_named(n, "pm_run_%u", i),
                                 function_named(n, "pm_plan_%u", i)};
        entries[i] = LLVMConstStructInContext(c, fields, 2, false);
    }
    LLVMValueRef table = LLVMAddGlobal(n->code, LLVMArrayType2(entry_type, n_entries), "pm_entries");
    LLVMSetInitializer(table, LLVMConstArray2(entry_type, entries, n_entries));
    LLVMSetLinkage(table, LLVMInternalLinkage);
    LLVMSetGlobalConstant(table, true);
    LLVMValueRef payload = LLVMConstNull(ptr), payload_size = LLVMConstNull(ptr);
    if (options->embedded_payload) {
        payload = LLVMAddGlobal(n->code, LLVMInt8TypeInContext(c),
                                pm_arena_printf(n->module->arena, "pm_payload_%s", options->symbol));
        payload_size = LLVMAddGlobal(
            n->code, i64, pm_arena_printf(n->module->arena, "pm_payload_size_%s", options->symbol));
    }
    _Static_assert(sizeof(pm_rt_model) == 64, "the descriptor is laid out below");
    LLVMValueRef fields[] = {
        LLVMConstInt(i32, PM_RUNTIME_ABI_VERSION, false), LLVMConstInt(i32, n_entries, false),
        LLVMConstInt(i64, n->code_hash, false), table,
        LLVMGetNamedFunction(n->code, "pm_state_bytes"), payload, payload_size,
        devices ? devices : LLVMConstNull(ptr), LLVMConstInt(i64, devices ? n->target->n_devices : 0, false)};
    LLVMValueRef value = LLVMConstStructInContext(c, fields, PM_COUNT(fields), false);
    LLVMValueRef model = LLVMAddGlobal(n->code, LLVMTypeOf(value),
                                       pm_arena_printf(n->module->arena, "pm_model_%s", options->symbol));
    LLVMSetInitializer(model, value);
    LLVMSetGlobalConstant(model, true);
    LLVMSetAlignment(model, 8);
}

/// Hash of the code before templates are linked in: it changes whenever the dispatches do.
static uint64_t hash_code(pm_native *n)
{
    char *text = LLVMPrintModuleToString(n->code);
    pm_hash128 hash = pm_hash_bytes(text, strlen(text));
    LLVMDisposeMessage(text);
    return hash.lo ^ (uint64_t)n->target->vector_floats;
}

static pm_status optimise(pm_native *n, int opt_level)
{
    char pipeline[64];
    snprintf(pipeline, sizeof pipeline, "globaldce,default<O%d>", opt_level);
    LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
    LLVMErrorRef error = LLVMRunPasses(n->code, pipeline, n->machine, options);
    LLVMDisposePassBuilderOptions(options);
    if (!error)
        return PM_OK;
    char *message = LLVMGetErrorMessage(error);
    pm_status status = pm_error(n->diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
    LLVMDisposeErrorMessage(message);
    return status;
}

/// ---- devices ----------------------------------------------------------------------------------------------

/// The CPU plays them: what GPUs would run joins the host's module.
static pm_status add_emulated(pm_native *n, const pm_mlir_result *mlir, int opt_level)
{
    pm_ptx_options options = {.arch = "sm_80", .opt_level = opt_level};
    pm_status status = pm_ptx_play(n->module->arena, n->diag, mlir->device_module, mlir->kernels, mlir->n_kernels,
                                   &options, n->code);
    LLVMDisposeModule(mlir->device_module);
    return status;
}

static const char *played_name(const pm_native *n, const pm_kernel *k)
{
    return pm_arena_printf(n->module->arena, "pm_cu_%s", k->template_name);
}

/// The templates that kernels name, as the CPU plays them: the linker takes what the module declares.
static pm_status link_played(pm_native *n, const pm_mlir_result *mlir)
{
    LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(n->context), NULL, 0, false);
    bool any = false;
    for (size_t i = 0; i < mlir->n_kernels; i++) {
        if (!mlir->kernels[i].template_name)
            continue;
        const char *name = played_name(n, &mlir->kernels[i]);
        if (!LLVMGetNamedFunction(n->code, name))
            LLVMAddFunction(n->code, name, type);
        any = true;
    }
    return any ? link_bitcode(n, pm_embedded_played()) : PM_OK;
}

static pm_kernel_facts played_facts(pm_native *n, const pm_kernel *k)
{
    const pm_cuda_template *t = pm_cuda_template_named(k->template_name);
    PM_ASSERT(t);
    return (pm_kernel_facts){.threads = t->threads, .shared_bytes = t->shared_bytes,
                             .flags = t->flags | PM_RT_KERNEL_TEMPLATE | (k->is_product ? PM_RT_KERNEL_PRODUCT : 0),
                             .emu = LLVMGetNamedFunction(n->code, played_name(n, k))};
}

static void name_emulated(pm_native *n, const pm_mlir_result *mlir, pm_kernel_facts *facts)
{
    for (size_t i = 0; i < mlir->n_kernels; i++) {
        const pm_kernel *k = &mlir->kernels[i];
        if (k->template_name)
            facts[i] = played_facts(n, k);
        else
            facts[i] = (pm_kernel_facts){.threads = PM_GENERAL_THREADS, .flags = k->meets ? PM_RT_KERNEL_MEETS : 0,
                                         .emu = LLVMGetNamedFunction(n->code, k->name)};
    }
}

/// Code of devices while it is made. All devices of a target are of one kind.
typedef struct device_work {
    pm_kernel_facts *facts;
    pm_device_code_request request;
    pm_device_making *making; ///< NULL: emulated ones
} device_work;

static pm_status start_devices(pm_native *n, const pm_mlir_result *mlir, int opt_level, device_work *work)
{
    const pm_device_target *device = n->target->devices;
    pm_arena *arena = n->module->arena;
    work->facts = PM_NEW_ARRAY(arena, pm_kernel_facts, mlir->n_kernels + 1);
    if (device->emulated)
        return add_emulated(n, mlir, opt_level);
    work->request = (pm_device_code_request){mlir->device_module, mlir->kernels, mlir->n_kernels,
                                             device->archs, device->n_archs, opt_level};
    PM_TRY(pm_device_code_start(arena, n->diag, &work->request, work->facts, &work->making));
    LLVMDisposeModule(mlir->device_module);
    return PM_OK;
}

/// The tables that tell the host of devices.
static LLVMValueRef tell_devices(pm_native *n, const pm_mlir_result *mlir, const device_work *work)
{
    if (!work->making)
        name_emulated(n, mlir, work->facts);
    return pm_device_tables(n->module->arena, n->code, n->weights, n->target, mlir->kernels, work->facts, mlir->n_kernels,
                            work->making ? pm_device_code_count(work->making) : 0, mlir->tensor_maps, mlir->n_tensor_maps);
}

static void look_for_kept(pm_native *n, int opt_level)
{
    LLVMMemoryBufferRef bitcode = LLVMWriteBitcodeToMemoryBuffer(n->code);
    pm_kept_object_find(n->module->arena, LLVMGetBufferStart(bitcode), LLVMGetBufferSize(bitcode), n->target->cpu, opt_level,
                        &n->kept);
    LLVMDisposeMemoryBuffer(bitcode);
}

/// Optimises the host's code while others make the devices', unless both were made before.
static pm_status finish(pm_native *n, const device_work *work, int opt_level)
{
    bool was_made = n->kept.bytes != NULL;
    if (!was_made)
        PM_TRY(optimise(n, opt_level));
    if (!work->making)
        return PM_OK;
    PM_TRY(pm_device_code_finish(work->making, &n->codes, &n->n_codes));
    if (was_made && pm_kept_object_has(&n->kept, n->codes, n->n_codes))
        return PM_OK;
    n->kept.bytes = NULL; // of another toolkit
    if (was_made)
        PM_TRY(optimise(n, opt_level));
    pm_device_tables_fill(n->module->arena, n->code, n->codes, n->n_codes);
    return PM_OK;
}

static pm_status link_kernels(pm_native *n, const pm_mlir_result *mlir)
{
    bool bf16 = n->target->features & PM_CPU_AVX512_BF16;
    PM_TRY(link_bitcode(n, n->target->vector_floats == 8 ? pm_embedded_kernels_vw8()
                           : bf16                        ? pm_embedded_kernels_vw16bf16()
                                                         : pm_embedded_kernels_vw16()));
    PM_TRY(link_bitcode(n, pm_embedded_references()));
    if (n->target->n_devices && n->target->devices[0].emulated)
        PM_TRY(link_played(n, mlir));
    pm_share_kernels(n->code);
    prepare_functions(n);
    return PM_OK;
}

pm_status pm_codegen(pm_module *m, const pm_target *target, const pm_weights *weights,
                     const pm_codegen_options *options, pm_native **out_native)
{
    pm_native *n = PM_NEW(m->arena, pm_native);
    *n = (pm_native){.module = m, .diag = m->diag, .target = target, .weights = weights};
    pm_arena_defer(m->arena, dispose, n);
    n->context = LLVMContextCreate();
    pm_mlir_result mlir = {0};
    PM_TRY(pm_mlir_generate(m, target, weights, options, n->context, &mlir));
    n->code = mlir.module;
    n->mlir_text = mlir.text;
    n->dispatches = mlir.dispatches;
    n->n_dispatches = mlir.n_dispatches;
    n->code_hash = hash_code(n);
    device_work work = {0};
    if (target->n_devices)
        PM_TRY(start_devices(n, &mlir, options->opt_level, &work));
    PM_TRY(make_machine(n, options->opt_level));
    LLVMSetTarget(n->code, triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(n->machine);
    LLVMSetModuleDataLayout(n->code, layout);
    LLVMDisposeTargetData(layout);
    PM_TRY(link_kernels(n, &mlir));
    add_descriptor(n, options, target->n_devices ? tell_devices(n, &mlir, &work) : NULL);
    char *message = NULL;
    if (LLVMVerifyModule(n->code, LLVMReturnStatusAction, &message)) {
        pm_status status = pm_error(n->diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
        LLVMDisposeMessage(message);
        return status;
    }
    LLVMDisposeMessage(message);
    if (work.making && options->keep_object)
        look_for_kept(n, options->opt_level);
    PM_TRY(finish(n, &work, options->opt_level));
    *out_native = n;
    return PM_OK;
}

static pm_status emit_machine_code(pm_native *n, LLVMCodeGenFileType type,
                                   const uint8_t **out_bytes, size_t *out_size)
{
    LLVMMemoryBufferRef buffer;
    char *message = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(n->machine, n->code, type, &message, &buffer)) {
        pm_status status = pm_error(n->diag, NULL, PM_ERR_INTERNAL, "LLVM: %s", message);
        LLVMDisposeMessage(message);
        return status;
    }
    *out_size = LLVMGetBufferSize(buffer);
    *out_bytes =
        (const uint8_t *)pm_arena_strndup(n->module->arena, LLVMGetBufferStart(buffer), *out_size);
    LLVMDisposeMemoryBuffer(buffer);
    return PM_OK;
}

static pm_status emit_object(pm_native *n, const uint8_t **out_bytes, size_t *out_size)
{
    if (n->kept.bytes) {
        *out_bytes = n->kept.bytes;
        *out_size = n->kept.size;
        return PM_OK;
    }
    PM_TRY(emit_machine_code(n, LLVMObjectFile, out_bytes, out_size));
    pm_kept_object_put(&n->kept, n->codes, n->n_codes, *out_bytes, *out_size);
    return PM_OK;
}

static pm_status emit_device_code(pm_native *n, pm_code_form form, const uint8_t **out_bytes, size_t *out_size)
{
    if (!n->n_codes)
        return pm_error(n->diag, NULL, PM_ERR_USAGE, "nothing of this model runs on a GPU");
    if (form == PM_CODE_PTX)
        return pm_device_code_text(n->module->arena, n->codes, n->n_codes, out_bytes, out_size);
    return pm_device_code_link(n->module->arena, n->diag, n->codes, n->n_codes, out_bytes, out_size);
}

pm_status pm_native_emit(pm_native *native, pm_code_form form, const uint8_t **out_bytes,
                         size_t *out_size)
{
    switch (form) {
    case PM_CODE_MLIR:
        PM_ASSERT(native->mlir_text);
        *out_bytes = (const uint8_t *)native->mlir_text;
        *out_size = strlen(native->mlir_text);
        return PM_OK;
    case PM_CODE_LLVM: {
        char *text = LLVMPrintModuleToString(native->code);
        *out_bytes = (const uint8_t *)pm_arena_strdup(native->module->arena, text);
        *out_size = strlen(text);
        LLVMDisposeMessage(text);
        return PM_OK;
    }
    case PM_CODE_ASM: return emit_machine_code(native, LLVMAssemblyFile, out_bytes, out_size);
    case PM_CODE_PTX:
    case PM_CODE_CUBIN: return emit_device_code(native, form, out_bytes, out_size);
    case PM_CODE_OBJECT: break;
    }
    return emit_object(native, out_bytes, out_size);
}

const pm_dispatch *pm_native_dispatches(const pm_native *native, size_t *out_n)
{
    *out_n = native->n_dispatches;
    return native->dispatches;
}

uint64_t pm_native_code_hash(const pm_native *native)
{
    return native->code_hash;
}
