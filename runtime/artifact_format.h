/// What an artifact carries beside its code: the payload, appended to an executable or shared
/// library (page-aligned), or held in one section of an object.
///
///   payload := sections (each at a multiple of PM_SECTION_ALIGN) manifest trailer
///
/// One section per expert and per shared tensor, each with its XXH3-128. All numbers are
/// little-endian; offsets in the trailer and of sections count from the start of the payload,
/// offsets inside the manifest from the start of the manifest. Readers check every one.
#ifndef PM_RUNTIME_ARTIFACT_FORMAT_H
#define PM_RUNTIME_ARTIFACT_FORMAT_H

#include <stdint.h>

#define PM_ARTIFACT_MAGIC 0x31454f4d4950ull /* "PIMOE1" */
enum {
    PM_ARTIFACT_VERSION = 2,
    PM_SECTION_ALIGN = 4096,
    PM_PAYLOAD_ALIGN = 4096, ///< of the payload's start in the file
    PM_PORT_MAX_RANK = 8,
};

typedef struct pm_artifact_hash {
    uint64_t lo, hi;
} pm_artifact_hash;

/// The last bytes of the payload (for an executable: of the file).
typedef struct pm_artifact_trailer {
    uint64_t payload_size;    ///< trailer included; the payload starts at file size - payload_size
    uint64_t manifest_offset; ///< from the start of the payload
    uint64_t manifest_size;
    pm_artifact_hash manifest_hash;
    uint32_t version, reserved;
    uint64_t magic;
} pm_artifact_trailer;

/// A table inside the manifest: `n` records at `offset`.
typedef struct pm_artifact_table {
    uint32_t offset, n;
} pm_artifact_table;

/// A string inside the manifest, NUL-terminated behind `size` bytes.
typedef struct pm_artifact_string {
    uint32_t offset, size;
} pm_artifact_string;

typedef struct pm_artifact_manifest {
    uint64_t magic;
    uint32_t version;
    uint32_t byte_order;      ///< 0x01020304 as written by the machine's own order
    pm_artifact_string name;  ///< of the model
    pm_artifact_string target;///< CPU that the code was made for ("x86-64-v4", "znver4")
    uint64_t cpu_features;    ///< PM_CPU_… bits that the code needs
    uint64_t code_hash;       ///< of the code's model descriptor: manifest and code belong together
    pm_artifact_table entries, ports, symbols, states, sections, metas, blobs, dispatches;
} pm_artifact_manifest;

enum pm_cpu_feature {
    PM_CPU_AVX2 = 1 << 0,
    PM_CPU_FMA = 1 << 1,
    PM_CPU_F16C = 1 << 2,
    PM_CPU_BMI2 = 1 << 3,
    PM_CPU_AVX512 = 1 << 4, ///< F, BW, CD, DQ, VL
    PM_CPU_AVX512_VNNI = 1 << 5,
    PM_CPU_AVX512_BF16 = 1 << 6,
};

typedef struct pm_artifact_entry {
    pm_artifact_string name;
    uint32_t first_input, n_inputs;   ///< ports
    uint32_t first_output, n_outputs; ///< ports
    uint32_t n_dynamic;               ///< slots of the dynamic region
    uint32_t n_port_dims;             ///< numbers that the entry's plan function writes behind the first two
} pm_artifact_entry;

typedef struct pm_artifact_port {
    pm_artifact_string name;
    uint32_t elem; ///< pm_elem
    uint32_t rank;
    int32_t state; ///< index of the state whose content this is, or -1 (states are not passed by the caller)
    uint32_t flags; ///< outputs: bit 0: dims are known only after the run, the bytes are in dynamic slot flags >> 8
    int64_t dims[PM_PORT_MAX_RANK];   ///< constant, or -1 - symbol index, or INT64_MIN: an expression
} pm_artifact_port;

typedef struct pm_artifact_symbol {
    pm_artifact_string name;
    int64_t lo, hi;
    uint32_t data_dependent, reserved;
} pm_artifact_symbol;

typedef struct pm_artifact_state {
    pm_artifact_string name;
    uint32_t elem, rank;
    int64_t dims[PM_PORT_MAX_RANK]; ///< as a port's; expressions: asked of the model's state_bytes function
    uint32_t device;                ///< where it lives: 0: the host, else 1 + number in the code's list of devices
    uint32_t reserved;
} pm_artifact_state;

typedef enum pm_section_kind {
    PM_SECTION_SHARED = 0, ///< a tensor that all tokens use
    PM_SECTION_EXPERT = 1, ///< one expert of one layer
} pm_section_kind;

typedef struct pm_artifact_section {
    pm_artifact_string name;
    uint32_t kind;
    int32_t layer, expert; ///< -1 when shared
    uint32_t reserved;
    uint64_t offset, size; ///< in the payload
    pm_artifact_hash hash;
} pm_artifact_section;

/// A string by key ("model_type", "max_position_embeddings", "eos_token_id": "2", or "1,2").
typedef struct pm_artifact_meta {
    pm_artifact_string key, value;
} pm_artifact_meta;

/// Bytes by key, in a section of the payload ("tokenizer").
typedef struct pm_artifact_blob {
    pm_artifact_string key;
    uint32_t section, reserved;
} pm_artifact_blob;

/// One dispatch of an entry, for messages, --selftest and profiles.
typedef struct pm_artifact_dispatch {
    pm_artifact_string name; ///< "grouped_linear 12"
    pm_artifact_string loc;  ///< place in the model
    uint32_t entry, kind;    ///< kind: 0 reference, 1 loops, 2 kernel
} pm_artifact_dispatch;

#endif
