/// A planned module in, machine code and an artifact out.
///
/// What the passes must have done (pipelines.def): no `experts`, `if`, `loop`; every weight of linear and grouped_linear is
/// a `pack`; every value of an entry has a place (ir/graph.h). Two values in the arena either have the same
/// offset (then they share a slot, one after the other) or don't overlap at all.
/// A `fused` op of kind "loops" holds elementwise and data-movement ops, reductions and norms over the last axis, all
/// within one index space (the dims of the largest result; smaller values broadcast into it).
/// Kinds "linear" and "grouped_linear" hold one such op, or two of equal operands but for the weights (then
/// its weight operand is one `pack` with two sources), and elementwise ops on its result; their other operands
/// have the result's dims, or [N], or the result's dims with a last dim of 1, or one element.
#ifndef PM_CODEGEN_CODEGEN_H
#define PM_CODEGEN_CODEGEN_H

#include "ir/graph.h"

/// A device beside the CPU that code is generated for.
typedef struct pm_device_target {
    const char *name;  ///< as ops name it: "cuda0"
    bool emulated;     ///< a GPU that the CPU plays
    const char *const *archs; ///< chips that get code: "sm_90a"
    size_t n_archs;
    /// For the cost model: memory, arithmetic (f32), the link to the host, room.
    double bytes_per_second, flops_per_second, link_bytes_per_second;
    uint64_t memory;
} pm_device_target;

typedef struct pm_target {
    const char *name;       ///< as the user wrote it
    const char *cpu;        ///< LLVM's name
    int32_t vector_floats;  ///< 8 or 16
    uint64_t features;      ///< PM_CPU_… of runtime/artifact_format.h that the code needs
    const pm_device_target *devices; ///< beside the CPU
    size_t n_devices;
    bool cpu_named;         ///< the program must run without the devices, too
} pm_target;

/// Targets by name, separated by commas: at most one CPU (native, x86-64-v3, x86-64-v4, znver4, …; none: native), and
/// chips of GPUs (sm_80, sm_90a, …), or `emu`, a GPU that the CPU plays. The error lists what there is.
PM_NODISCARD pm_status pm_target_parse(pm_arena *arena, pm_diag *diag, const char *name,
                                       pm_target *out_target);

/// ---- weights: where each constant lies in the payload, and how it is written -------------------

typedef struct pm_weights pm_weights;

/// Gives every constant and pack that a dispatch reads an offset in the payload. Equal constants of
/// several entries share one. Experts of one layer (pack's `group`) get one section each.
PM_NODISCARD pm_status pm_weights_layout(pm_module *m, pm_weights **out_weights);
/// Offset of a constant's or pack's bytes from the start of the payload.
uint64_t pm_weights_offset(const pm_weights *w, const pm_value *value);
/// Bytes from one expert's weights to the next's, for a pack of rank 3.
uint64_t pm_weights_expert_stride(const pm_weights *w, const pm_value *value);

/// Offset of the bytes in what the device holds; a use of the value must be there.
uint64_t pm_weights_device_offset(const pm_weights *w, const pm_value *value, const char *device);

/// Bytes of the payload that a device holds.
typedef struct pm_weights_range {
    uint64_t payload_offset, device_offset, size;
} pm_weights_range;
/// What a device holds, in the order of the payload; *out_bytes: room for all of it.
const pm_weights_range *pm_weights_device_ranges(const pm_weights *w, const char *device, size_t *out_n,
                                                 uint64_t *out_bytes);

/// One dispatch, for the manifest and reports.
typedef struct pm_dispatch {
    const char *name;
    const pm_loc *loc;
    uint32_t entry;
    int32_t kind; ///< 0 reference, 1 loops, 2 kernel
} pm_dispatch;

/// Writes the payload: sections (streamed: memory does not grow with them), manifest, trailer.
/// `code_hash` ties it to the code. `out` is at the payload's start.
PM_NODISCARD pm_status pm_payload_write(const pm_weights *w, const pm_target *target,
                                        uint64_t code_hash, const pm_dispatch *dispatches,
                                        size_t n_dispatches, pm_out_file *out,
                                        uint64_t *out_size);

/// ---- code -----------------------------------------------------------------------------------------

typedef struct pm_native pm_native;

typedef struct pm_codegen_options {
    int opt_level;          ///< 0..3
    const char *symbol;     ///< the model descriptor's name is pm_model_<symbol>
    bool keep_mlir;         ///< keep the text of the MLIR module (for --emit=mlir and --dump-dir)
    bool keep_object;       ///< only PM_CODE_OBJECT will be asked for: that of a model for GPUs is kept, or was
    bool embedded_payload;  ///< the payload is linked in: the descriptor refers to pm_payload_<symbol>
} pm_codegen_options;

/// Generates code for all entries. The arena owns the result.
PM_NODISCARD pm_status pm_codegen(pm_module *m, const pm_target *target, const pm_weights *weights,
                                  const pm_codegen_options *options, pm_native **out_native);

typedef enum pm_code_form { PM_CODE_MLIR, PM_CODE_LLVM, PM_CODE_ASM, PM_CODE_OBJECT, PM_CODE_PTX, PM_CODE_CUBIN } pm_code_form;

/// The code in a form; bytes in the arena. MLIR needs keep_mlir. PTX: that of all chips, one text after the other, each with a
/// comment that says what it is for. A cubin: all kernels, for a target of one chip.
PM_NODISCARD pm_status pm_native_emit(pm_native *native, pm_code_form form, const uint8_t **out_bytes,
                                      size_t *out_size);
const pm_dispatch *pm_native_dispatches(const pm_native *native, size_t *out_n);
uint64_t pm_native_code_hash(const pm_native *native);

/// ---- linking --------------------------------------------------------------------------------------

typedef enum pm_link_kind { PM_LINK_EXE, PM_LINK_SHARED } pm_link_kind;

/// Links object code with the runtime (in this process) and writes the file `path`; the payload can
/// be appended behind it. Errors: lld's words.
PM_NODISCARD pm_status pm_link(pm_module *m, pm_link_kind kind, const uint8_t *object,
                               size_t object_size, const char *symbol, pm_out_file *out);
/// Writes a static library: the object, the runtime's objects and the payload as an object.
/// `payload_path`: a file that holds the payload.
PM_NODISCARD pm_status pm_link_library(pm_module *m, const uint8_t *object, size_t object_size,
                                       const char *symbol, const char *payload_path,
                                       pm_out_file *out);
/// As pm_link_library, as one relocatable object.
PM_NODISCARD pm_status pm_link_object(pm_module *m, const uint8_t *object, size_t object_size,
                                      const char *symbol, const char *payload_path,
                                      pm_out_file *out);
/// Writes the C header of a library: typed entry points.
PM_NODISCARD pm_status pm_header_write(const pm_module *m, const char *symbol, FILE *out);

#endif
