#include "codegen/mlir/mlir_lower.h"

#include <stdlib.h>
#include <string.h>

#include "mlir-c/Conversion.h"
#include "mlir-c/Diagnostics.h"
#include "mlir-c/Pass.h"
#include "mlir-c/RegisterEverything.h"
#include "mlir-c/Target/LLVMIR.h"

#include "codegen/mlir/emit.h"

static void collect(MlirStringRef part, void *user)
{
    fwrite(part.data, 1, part.length, user);
}

/// MLIR's complaints are our bugs: kept for the message.
static MlirLogicalResult on_diagnostic(MlirDiagnostic diagnostic, void *user)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out) {
        mlirDiagnosticPrint(diagnostic, collect, out);
        fclose(out);
        pm_error(user, NULL, PM_ERR_INTERNAL, "MLIR: %s", text);
        free(text);
    }
    return mlirLogicalResultSuccess();
}

static pm_status run_pipeline(mb *b, pm_diag *diag)
{
    static const char pipeline[] =
        "builtin.module(canonicalize,convert-scf-to-cf,arith-expand,convert-to-llvm,"
        "reconcile-unrealized-casts)";
    mlirRegisterAllPasses();
    MlirPassManager manager = mlirPassManagerCreate(b->context);
    pm_status status = PM_OK;
    if (mlirLogicalResultIsFailure(mlirParsePassPipeline(mlirPassManagerGetAsOpPassManager(manager),
                                                         mlirStringRefCreateFromCString(pipeline),
                                                         collect, stderr)) ||
        mlirLogicalResultIsFailure(
            mlirPassManagerRunOnOp(manager, mlirModuleGetOperation(b->module))))
        status = pm_error(diag, NULL, PM_ERR_INTERNAL, "MLIR could not lower the module");
    mlirPassManagerDestroy(manager);
    return status;
}

/// Verifies, lowers and translates what was written.
static pm_status translate(emitter *e, LLVMContextRef context, LLVMModuleRef *out_module)
{
    if (!mlirOperationVerify(mlirModuleGetOperation(e->b.module)))
        return pm_error(e->diag, NULL, PM_ERR_INTERNAL, "the generated MLIR is not valid");
    PM_TRY(run_pipeline(&e->b, e->diag));
    *out_module = mlirTranslateModuleToLLVMIR(mlirModuleGetOperation(e->b.module), context);
    return *out_module ? PM_OK : pm_error(e->diag, NULL, PM_ERR_INTERNAL, "MLIR could not be translated");
}

/// Entries, and the functions of devices beside them.
static pm_status generate(emitter *e, const pm_codegen_options *options, LLVMContextRef context, pm_mlir_result *out)
{
    PM_TRY(pm_emit_entries(e));
    if (options->keep_mlir) {
        out->text = mb_text(&e->b);
        if (e->device_code)
            out->text = pm_arena_printf(e->arena, "%s\n// devices\n%s", out->text, mb_text(&e->device_code->b));
    }
    PM_TRY(translate(e, context, &out->module));
    return e->device_code ? translate(e->device_code, context, &out->device_module) : PM_OK;
}

static void begin(emitter *e, MlirDiagnosticHandlerID *out_handler)
{
    mb_init(&e->b, e->arena);
    pm_map_init(&e->dispatch_names, e->arena);
    pm_map_init(&e->kernel_names, e->arena);
    pm_map_init(&e->meeting, e->arena);
    *out_handler = mlirContextAttachDiagnosticHandler(e->b.context, on_diagnostic, e->diag, NULL);
}

static void end(emitter *e, MlirDiagnosticHandlerID handler)
{
    mlirContextDetachDiagnosticHandler(e->b.context, handler);
    mb_deinit(&e->b);
}

pm_status pm_mlir_generate(pm_module *m, const pm_target *target, const pm_weights *weights,
                           const pm_codegen_options *options, LLVMContextRef context,
                           pm_mlir_result *out)
{
    emitter e = {.arena = m->arena, .module = m, .diag = m->diag, .target = target,
                 .weights = weights, .symbol = options->symbol,
                 .embedded_payload = options->embedded_payload,
                 .devices = target->devices, .n_devices = target->n_devices};
    emitter device = e;
    pm_target device_target = *target;
    MlirDiagnosticHandlerID handler, device_handler;
    begin(&e, &handler);
    if (target->n_devices) {
        if (!target->devices[0].emulated)
            device_target.vector_floats = PM_DEVICE_VECTOR_FLOATS;
        device.target = &device_target;
        device.for_device = true;
        begin(&device, &device_handler);
        e.device_code = &device;
    }
    pm_status status = generate(&e, options, context, out);
    if (e.device_code)
        end(&device, device_handler);
    end(&e, handler);
    out->dispatches = e.dispatches.data;
    out->n_dispatches = e.dispatches.n;
    out->kernels = e.kernels.data;
    out->n_kernels = e.kernels.n;
    out->tensor_maps = e.tensor_maps.data;
    out->n_tensor_maps = e.tensor_maps.n;
    return status;
}
