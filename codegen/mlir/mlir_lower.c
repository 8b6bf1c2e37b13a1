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

pm_status pm_mlir_generate(pm_module *m, const pm_target *target, const pm_weights *weights,
                           const pm_codegen_options *options, LLVMContextRef context,
                           pm_mlir_result *out)
{
    emitter e = {.arena = m->arena, .module = m, .diag = m->diag, .target = target,
                 .weights = weights, .symbol = options->symbol,
                 .embedded_payload = options->embedded_payload};
    mb_init(&e.b, m->arena);
    pm_map_init(&e.dispatch_names, m->arena);
    MlirDiagnosticHandlerID handler =
        mlirContextAttachDiagnosticHandler(e.b.context, on_diagnostic, m->diag, NULL);
    pm_status status = pm_emit_entries(&e);
    if (status == PM_OK && options->keep_mlir)
        out->text = mb_text(&e.b);
    if (status == PM_OK && !mlirOperationVerify(mlirModuleGetOperation(e.b.module)))
        status = pm_error(m->diag, NULL, PM_ERR_INTERNAL, "the generated MLIR is not valid");
    if (status == PM_OK)
        status = run_pipeline(&e.b, m->diag);
    if (status == PM_OK) {
        out->module = mlirTranslateModuleToLLVMIR(mlirModuleGetOperation(e.b.module), context);
        if (!out->module)
            status = pm_error(m->diag, NULL, PM_ERR_INTERNAL, "MLIR could not be translated");
    }
    mlirContextDetachDiagnosticHandler(e.b.context, handler);
    out->dispatches = e.dispatches.data;
    out->n_dispatches = e.dispatches.n;
    mb_deinit(&e.b);
    return status;
}
