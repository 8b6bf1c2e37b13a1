/// The wire format of an ONNX file, checked before protobuf-c sees it.
///
/// protobuf-c recurses without a limit and copies every tensor. So the file is scanned iteratively
/// first, and what is unpacked is a pruned copy: without the fields that the importer doesn't read,
/// and with each TensorProto.raw_data replaced by the place of its payload in the file.
#ifndef PM_FRONTEND_ONNX_WIRE_H
#define PM_FRONTEND_ONNX_WIRE_H

#include "base/diag.h"

enum {
    PM_ONNX_MAX_DEPTH = 100,         ///< messages within messages
    PM_ONNX_MAX_NODES = 2000000,     ///< in all graphs and functions
    PM_ONNX_MAX_MESSAGES = 16000000, ///< of any kind
    PM_ONNX_MAX_NAME = 65536,        ///< bytes of a name
    PM_ONNX_MAX_STRING = 16 << 20,   ///< bytes of any other string that is kept
    PM_ONNX_MAX_PRUNED = 1 << 30,    ///< bytes of the pruned copy
    PM_ONNX_RANGE_SIZE = 16,         ///< what stands for raw_data: offset, size (u64 each)
};

/// The pruned copy of a model.
typedef struct pm_onnx_wire {
    uint8_t *bytes;
    size_t size;
    uint64_t n_messages, n_nodes;
} pm_onnx_wire;

/// Scans the ModelProto in `data` and writes its pruned copy into `arena`. A field that must occur
/// once and occurs twice is refused (readers of protobuf differ in what they make of it).
/// Errors: PM_ERR_INVALID with `file` and the byte offset; PM_ERR_UNSUPPORTED beyond a limit.
PM_NODISCARD pm_status pm_onnx_wire_scan(pm_arena *arena, pm_diag *diag, const char *file,
                                         const uint8_t *data, uint64_t size,
                                         pm_onnx_wire *out_wire);

#endif
