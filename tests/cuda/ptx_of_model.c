// All dispatches of a model as kernels of a GPU: ptx_of_model MODEL CHIP OUT.ptx
// Prints "<kernels> kernels, <bytes> bytes". Exit code 77: libdevice isn't there.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "llvm-c/Core.h"

#include "codegen/cuda/ptx.h"
#include "codegen/cuda/toolkit.h"
#include "codegen/mlir/mlir_lower.h"
#include "tools/driver/driver.h"

enum { EXIT_SKIP = 77, SYMBOLS = 16 };

/// Every dispatch and extent function of the module, with more symbols than any has.
static size_t list_kernels(pm_arena *arena, LLVMModuleRef module, pm_kernel **out_kernels)
{
    PM_VEC(pm_kernel) kernels = {0};
    for (LLVMValueRef f = LLVMGetFirstFunction(module); f; f = LLVMGetNextFunction(f)) {
        size_t length;
        const char *name = LLVMGetValueName2(f, &length);
        if (LLVMIsDeclaration(f) || strncmp(name, "pm_d", 4) != 0 || LLVMCountParams(f) + SYMBOLS > PM_LAUNCH_MAX_WORDS)
            continue;
        pm_kernel k = {.name = pm_arena_printf(arena, "k_%s", name), .function = pm_arena_strdup(arena, name),
                       .n_pointers = LLVMCountParams(f) - 4, .n_symbols = SYMBOLS};
        PM_PUSH(arena, &kernels, k);
    }
    *out_kernels = kernels.data;
    return kernels.n;
}

static pm_status run(pm_driver *d, const char *model, const char *chip, const char *output)
{
    const char *path;
    PM_TRY(pm_toolkit_find(d->arena, d->diag, PM_TOOLKIT_LIBDEVICE, &path));
    PM_TRY(pm_driver_front(d, model));
    PM_TRY(pm_weights_layout(d->module, &d->weights));
    LLVMContextRef context = LLVMContextCreate();
    pm_codegen_options options = {.opt_level = 3, .symbol = "main"};
    pm_mlir_result mlir = {0};
    PM_TRY(pm_mlir_generate(d->module, &d->target, d->weights, &options, context, &mlir));
    pm_kernel *kernels;
    size_t n = list_kernels(d->arena, mlir.module, &kernels), size;
    const char *ptx;
    pm_ptx_options ptx_options = {.arch = chip, .opt_level = 3};
    clock_t start = clock();
    PM_TRY(pm_ptx_emit(d->arena, d->diag, mlir.module, kernels, n, &ptx_options, &ptx, &size));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    pm_out_file *out;
    PM_TRY(pm_out_open(d->arena, d->diag, output, 0644, &out));
    fwrite(ptx ? ptx : "", 1, size, out->stream);
    PM_TRY(pm_out_commit(d->diag, out));
    printf("%zu kernels, %zu bytes, %.2f s\n", n, size, seconds);
    LLVMDisposeModule(mlir.module);
    LLVMContextDispose(context);
    return PM_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    // the bitcode's width
    pm_compile_options options = {.target = "x86-64-v3", .opt_level = 3};
    pm_driver d = {.arena = arena, .diag = diag, .options = &options};
    pm_status status = run(&d, argv[1], argv[2], argv[3]);
    pm_diag_print(diag, stderr, false);
    bool skip = status == PM_ERR_UNSUPPORTED && !d.module;
    pm_arena_destroy(arena);
    return skip ? EXIT_SKIP : pm_exit_code(status);
}
