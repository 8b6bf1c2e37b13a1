/// Inside of the payload's layout; shared by its layout and its writer.
#ifndef PM_CODEGEN_LINK_WEIGHTS_H
#define PM_CODEGEN_LINK_WEIGHTS_H

#include "base/hash.h"
#include "codegen/codegen.h"

/// A constant or pack that is read at run time. Of experts: one piece in each expert's section.
typedef struct weight_part {
    const pm_value *value;
    uint64_t offset;     ///< of the (first expert's) bytes from the start of the payload
    uint64_t bytes_each; ///< of one expert, or of all
    uint64_t stride;     ///< between experts
    uint64_t section;    ///< of experts: where the first one's section begins
    bool placed;
} weight_part;

typedef struct weight_section {
    const char *name;
    uint32_t kind; ///< pm_section_kind
    int32_t layer, expert;
    uint64_t offset, size;
    PM_VEC(weight_part *) parts;
    const pm_data *blob; ///< instead of parts
    pm_hash128 hash;     ///< known once written
} weight_section;

/// What a device beside the CPU holds.
typedef struct device_weights {
    PM_VEC(pm_weights_range) ranges;
    pm_map by_offset; ///< payload offset of a range -> its number + 1
    uint64_t bytes;
} device_weights;

struct pm_weights {
    pm_module *module;
    pm_map by_key, by_value; ///< weight_part *
    pm_map devices;          ///< by name: device_weights *
    PM_VEC(weight_part *) parts;
    PM_VEC(weight_section) sections;
    int32_t n_groups;
    uint64_t size; ///< of all sections
};

/// Where a section's bytes go while they are made.
typedef struct weight_sink {
    pm_diag *diag;
    FILE *out;
    pm_hasher *hasher;
    uint64_t written; ///< of this section
    uint8_t *buffer;  ///< room for one panel
    size_t buffer_size;
    float *row; ///< room for source rows
    size_t row_size;
} weight_sink;

PM_NODISCARD pm_status pm_weight_put(weight_sink *sink, const void *bytes, size_t size);
/// Writes one part (of expert `expert`, or -1).
PM_NODISCARD pm_status pm_weight_write(pm_weights *w, const weight_part *part, int64_t expert,
                                       weight_sink *sink);

#endif
