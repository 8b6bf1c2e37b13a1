/// A model in, a verified module out.
#ifndef PM_FRONTEND_FRONTEND_H
#define PM_FRONTEND_FRONTEND_H

#include "ir/graph.h"

typedef enum pm_model_kind {
    PM_MODEL_UNKNOWN,
    PM_MODEL_ONNX,
    PM_MODEL_JSON,       ///< a JSON graph
    PM_MODEL_TEXT,       ///< the IR's text form
    PM_MODEL_CHECKPOINT, ///< a folder with config.json
    PM_MODEL_ARTIFACT,   ///< something that pimoec made
} pm_model_kind;

/// Tells the kind from the content (first bytes; for a folder its config.json), never from the name.
PM_NODISCARD pm_status pm_model_detect(pm_diag *diag, const char *path, pm_model_kind *out_kind);

/// Reads the model at `path` into a module whose arena is `arena` (mapped files live in it, too).
/// Errors: with the place in the model; PM_ERR_UNSUPPORTED for what we can't express.
PM_NODISCARD pm_status pm_frontend_load(pm_arena *arena, pm_diag *diag, const char *path,
                                        pm_module **out_module);

/// The importers behind it.
PM_NODISCARD pm_status pm_onnx_load(pm_arena *arena, pm_diag *diag, const char *path,
                                    pm_module **out_module);
PM_NODISCARD pm_status pm_json_graph_load(pm_arena *arena, pm_diag *diag, const char *path,
                                          pm_module **out_module);
PM_NODISCARD pm_status pm_checkpoint_load(pm_arena *arena, pm_diag *diag, const char *path,
                                          pm_module **out_module);

#endif
