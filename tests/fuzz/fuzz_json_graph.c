// A model as a JSON graph, with an ONNX file and a safetensors file beside it that it may name:
// refused with a message, or a module that verifies and whose text form reads back to itself.

#include "tests/fuzz/fuzz_util.h"

#include "frontend/frontend.h"
#include "ir/text.h"

static char model_path[96];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    char path[128];
    const char *folder = fuzz_folder();
    snprintf(path, sizeof path, "%s/length.onnx", folder);
    fuzz_copy(PM_SOURCE_DIR "/samples/unlike-experts/length.onnx", path);
    snprintf(path, sizeof path, "%s/w.safetensors", folder);
    fuzz_copy(PM_SOURCE_DIR "/tests/data/checkpoints/mixtral/model.safetensors", path);
    snprintf(model_path, sizeof model_path, "%s/model.json", folder);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_put_file(model_path, data, size);
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_module *module;
    pm_status status = pm_json_graph_load(arena, diag, model_path, &module);
    fuzz_check_outcome(diag, status);
    check((status == PM_OK) == (module != NULL));
    if (module != NULL) {
        check(pm_module_verify(module) == PM_OK);
        char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        pm_module_print(module, out);
        fclose(out);
        pm_module *again;
        check(pm_module_parse(arena, diag, "again.pm", text, n, fuzz_folder_path, &again) == PM_OK);
        free(text);
    }
    pm_arena_destroy(arena);
    return 0;
}
