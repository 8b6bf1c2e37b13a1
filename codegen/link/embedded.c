#include "codegen/embedded.h"

#define BLOB(name)                                                                                 \
    extern const uint8_t pm_blob_##name[], pm_blob_##name##_end[];                                 \
    pm_embedded pm_embedded_##name(void)                                                           \
    {                                                                                              \
        return (pm_embedded){pm_blob_##name, (size_t)(pm_blob_##name##_end - pm_blob_##name)};     \
    }

BLOB(kernels_vw8)
BLOB(kernels_vw16)
BLOB(kernels_vw16bf16)
BLOB(references)
BLOB(played)
BLOB(runtime)
BLOB(start)
BLOB(runtime_header)
BLOB(status_header)
