/// Files that pimoec carries inside itself: kernel templates and references as bitcode, the runtime.
#ifndef PM_CODEGEN_EMBEDDED_H
#define PM_CODEGEN_EMBEDDED_H

#include <stddef.h>
#include <stdint.h>

typedef struct pm_embedded {
    const uint8_t *bytes;
    size_t size;
} pm_embedded;

pm_embedded pm_embedded_kernels_vw8(void);
pm_embedded pm_embedded_kernels_vw16(void);
pm_embedded pm_embedded_kernels_vw16bf16(void);
pm_embedded pm_embedded_references(void); ///< eval and extent functions of all ops
pm_embedded pm_embedded_played(void);     ///< CUDA templates for a CPU that plays them
pm_embedded pm_embedded_runtime(void);    ///< libpimoe_rt.a
pm_embedded pm_embedded_start(void);      ///< object with _start, so that no system object is needed
pm_embedded pm_embedded_status_header(void);  ///< include/pm/status.h
pm_embedded pm_embedded_runtime_header(void); ///< include/pm/runtime.h, for compiled libraries

#endif
