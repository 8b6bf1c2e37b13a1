// A checkpoint folder. The first byte says which file the rest is: config.json of one of the
// families, the index of shards, or generation_config.json; the others are good ones.

#include "tests/fuzz/fuzz_util.h"

#include "frontend/frontend.h"
#include "ir/text.h"

enum { N_FAMILIES = 4 };
static const char *const families[N_FAMILIES] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe"};

static void path_in(char *out, size_t size, const char *family, const char *name)
{
    snprintf(out, size, "%s/%s/%s", fuzz_folder_path, family, name);
}

static void put_good_config(const char *family)
{
    char from[512], to[512];
    snprintf(from, sizeof from, PM_SOURCE_DIR "/tests/data/checkpoints/%s/config.json", family);
    path_in(to, sizeof to, family, "config.json");
    fuzz_copy(from, to);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_folder();
    for (int i = 0; i < N_FAMILIES; i++) {
        char from[512], to[512], shard[512];
        snprintf(to, sizeof to, "%s/%s", fuzz_folder_path, families[i]);
        check(mkdir(to, 0700) == 0);
        snprintf(from, sizeof from, PM_SOURCE_DIR "/tests/data/checkpoints/%s/model.safetensors",
                 families[i]);
        path_in(to, sizeof to, families[i], "model.safetensors");
        fuzz_copy(from, to);
        path_in(shard, sizeof shard, families[i], "model-00001-of-00001.safetensors");
        fuzz_copy(from, shard);
        put_good_config(families[i]);
    }
    return 0;
}

static void load(const char *family)
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s/%s", fuzz_folder_path, family);
    pm_arena *arena = pm_arena_create();
    pm_diag *diag = pm_diag_create(arena);
    pm_module *module;
    pm_status status = pm_checkpoint_load(arena, diag, folder, &module);
    fuzz_check_outcome(diag, status);
    check((status == PM_OK) == (module != NULL));
    if (module != NULL)
        check(pm_module_verify(module) == PM_OK);
    pm_arena_destroy(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *family = families[data[0] & 3];
    char path[512], single[512], hidden[512];
    path_in(single, sizeof single, family, "model.safetensors");
    path_in(hidden, sizeof hidden, family, "hidden");
    switch (data[0] >> 2 & 3) {
    case 0: // an index is read where there is no single file
        path_in(path, sizeof path, family, "model.safetensors.index.json");
        check(rename(single, hidden) == 0);
        break;
    case 1: path_in(path, sizeof path, family, "generation_config.json"); break;
    default: path_in(path, sizeof path, family, "config.json"); break;
    }
    fuzz_put_file(path, data + 1, size - 1);
    load(family);
    if ((data[0] >> 2 & 3) == 0)
        check(rename(hidden, single) == 0);
    check(unlink(path) == 0);
    put_good_config(family);
    return 0;
}
