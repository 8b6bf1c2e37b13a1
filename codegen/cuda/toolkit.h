/// Parts of NVIDIA's toolkit that are found when they are needed: nothing of it is linked in.
#ifndef PM_CODEGEN_CUDA_TOOLKIT_H
#define PM_CODEGEN_CUDA_TOOLKIT_H

#include "base/diag.h"

typedef enum pm_toolkit_part {
    PM_TOOLKIT_LIBDEVICE, ///< math for LLVM's PTX, as bitcode
    PM_TOOLKIT_NVRTC,     ///< compiles templates
    PM_TOOLKIT_NVJITLINK, ///< PTX to cubins
} pm_toolkit_part;

/// Path of a part: beneath $CUDA_HOME or $CUDA_PATH, else /usr/local/cuda, /usr/local/cuda-*, (the newest) or where
/// distributions put it. PM_ERR_UNSUPPORTED says what is missing and where it was looked for.
PM_NODISCARD pm_status pm_toolkit_find(pm_arena *arena, pm_diag *diag, pm_toolkit_part part, const char **out_path);

#endif
