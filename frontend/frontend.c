#include "frontend/frontend.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "ir/text.h"

enum { PROBE = 4096 };

/// Space and comments that may precede the first word of a text file.
static size_t skip_blank(const char *text, size_t size, const char *comment)
{
    size_t i = 0, n = comment != NULL ? strlen(comment) : 0;
    for (;;) {
        while (i < size && strchr(" \t\r\n", text[i]) != NULL && text[i] != '\0')
            i++;
        if (n == 0 || size - i < n || memcmp(text + i, comment, n) != 0)
            return i;
        while (i < size && text[i] != '\n')
            i++;
    }
}

/// An ONNX file is a protobuf message: it begins with the tag of a field of ModelProto, of the wire
/// type that the field has.
static bool looks_like_onnx(const uint8_t *bytes, size_t size)
{
    // ir_version, producer_name, producer_version, domain, model_version, doc_string, graph,
    // opset_import, metadata_props, training_info, functions, configuration
    static const uint8_t tags[] = {0x08, 0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72};
    static const uint8_t long_tags[] = {0xa2, 0xca, 0xd2}; // fields 20, 25, 26; then 0x01
    if (size >= 2 && memchr(tags, bytes[0], sizeof tags) != NULL)
        return true;
    return size >= 3 && memchr(long_tags, bytes[0], sizeof long_tags) != NULL && bytes[1] == 0x01;
}

/// An artifact ends with the magic of its trailer, or is an ELF file or an archive.
static pm_status looks_like_artifact(pm_diag *diag, const pm_file *file, const uint8_t *head,
                                     size_t size, bool *out)
{
    static const uint8_t magic[8] = "PIMOE1"; // runtime/artifact_format.h, little-endian
    uint8_t tail[8];
    *out = size >= 8 && (memcmp(head, "\177ELF", 4) == 0 || memcmp(head, "!<arch>\n", 8) == 0);
    if (*out || file->size < sizeof tail)
        return PM_OK;
    PM_TRY(pm_file_read(diag, file, file->size - sizeof tail, tail, sizeof tail));
    *out = memcmp(tail, magic, sizeof tail) == 0;
    return PM_OK;
}

static pm_status detect_file(pm_diag *diag, const pm_file *file, pm_model_kind *out_kind)
{
    uint8_t head[PROBE];
    size_t size = file->size < sizeof head ? (size_t)file->size : sizeof head;
    bool is_artifact;
    PM_TRY(pm_file_read(diag, file, 0, head, size));
    PM_TRY(looks_like_artifact(diag, file, head, size, &is_artifact));
    const char *text = (const char *)head;
    size_t json = skip_blank(text, size, NULL), pm = skip_blank(text, size, "//");
    if (is_artifact)
        *out_kind = PM_MODEL_ARTIFACT;
    else if (json < size && text[json] == '{')
        *out_kind = PM_MODEL_JSON;
    else if (size - pm >= 7 && memcmp(text + pm, "module ", 7) == 0)
        *out_kind = PM_MODEL_TEXT;
    else if (looks_like_onnx(head, size))
        *out_kind = PM_MODEL_ONNX;
    return PM_OK;
}

pm_status pm_model_detect(pm_diag *diag, const char *path, pm_model_kind *out_kind)
{
    pm_arena *scratch = pm_arena_create();
    struct stat info;
    pm_file *file;
    pm_loc loc = {.file = path};
    *out_kind = PM_MODEL_UNKNOWN;
    if (scratch == NULL)
        return PM_ERR_NO_MEMORY;
    pm_status status = PM_OK;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        if (access(pm_path_join(scratch, path, "config.json"), F_OK) == 0)
            *out_kind = PM_MODEL_CHECKPOINT;
        else
            status = pm_error(diag, &loc, PM_ERR_INVALID,
                              "the folder has no config.json, so it isn't a checkpoint");
    } else {
        status = pm_file_open(scratch, diag, path, &file);
        if (status == PM_OK)
            status = detect_file(diag, file, out_kind);
    }
    pm_arena_destroy(scratch);
    return status;
}

static pm_status load_text(pm_arena *arena, pm_diag *diag, const char *path, pm_module **out_module)
{
    pm_file *file;
    PM_TRY(pm_file_open(arena, diag, path, &file));
    PM_TRY(pm_file_map(arena, diag, file));
    return pm_module_parse(arena, diag, path, (const char *)file->data, file->size,
                           pm_path_dir(arena, path), out_module);
}

pm_status pm_frontend_load(pm_arena *arena, pm_diag *diag, const char *path, pm_module **out_module)
{
    pm_model_kind kind;
    pm_loc loc = {.file = path};
    *out_module = NULL;
    PM_TRY(pm_model_detect(diag, path, &kind));
    switch (kind) {
    case PM_MODEL_ONNX: return pm_onnx_load(arena, diag, path, out_module);
    case PM_MODEL_JSON: return pm_json_graph_load(arena, diag, path, out_module);
    case PM_MODEL_TEXT: return load_text(arena, diag, path, out_module);
    case PM_MODEL_CHECKPOINT: return pm_checkpoint_load(arena, diag, path, out_module);
    case PM_MODEL_ARTIFACT:
        return pm_error(diag, &loc, PM_ERR_USAGE,
                        "this is already compiled; a model is expected here");
    case PM_MODEL_UNKNOWN: break;
    }
    return pm_error(diag, &loc, PM_ERR_INVALID,
                    "not a model: neither ONNX, nor a JSON graph, nor IR text, nor a checkpoint "
                    "folder");
}
