/// Helpers of linking: inputs that exist in memory only.
#ifndef PM_CODEGEN_LINK_LINK_FILES_H
#define PM_CODEGEN_LINK_LINK_FILES_H

#include "codegen/codegen.h"

/// A file in memory with these bytes; `*out_path` names it while the module's arena lives.
PM_NODISCARD pm_status pm_memory_file(pm_module *m, const char *name, const uint8_t *bytes,
                                      size_t size, const char **out_path);

/// Writes an ELF object that holds the payload as pm_payload_<symbol>, pm_payload_size_<symbol>.
PM_NODISCARD pm_status pm_payload_object(pm_module *m, const char *payload_path, const char *symbol,
                                         const char *object_path);

#endif
