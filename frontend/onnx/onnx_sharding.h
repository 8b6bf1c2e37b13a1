/// Where the nodes of an ONNX model run, written into a copy of it: the multi-device annotations of ONNX IR 11.
#ifndef PM_FRONTEND_ONNX_SHARDING_H
#define PM_FRONTEND_ONNX_SHARDING_H

#include "base/file.h"

/// The devices of one node of the main graph.
typedef struct pm_node_sharding {
    const char *what, *name; ///< as its place says: "node" and its name, or "node of" and its first output
    const int64_t *devices;  ///< numbers of those that run it
    size_t n_devices;
    const int64_t *experts;  ///< of each expert the device; NULL: its weights aren't apart
    size_t n_experts;
} pm_node_sharding;

typedef struct pm_sharding {
    const char *name;           ///< of the configuration
    const char *const *devices; ///< names, by number
    size_t n_devices;
    const pm_node_sharding *nodes;
    size_t n_nodes;
} pm_sharding;

/// Copies the model `path` to `out` with annotations: each output of a node that is named is on the node's devices;
/// an initializer [E, …] that a node with E experts reads is cut along that axis, each expert's part on its device.
/// Other bytes stay as they are, but for an IR version below 11, which becomes that.
PM_NODISCARD pm_status pm_onnx_write_sharding(pm_arena *arena, pm_diag *diag, const char *path,
                                              const pm_sharding *sharding, pm_out_file *out, size_t *out_annotated);

#endif
