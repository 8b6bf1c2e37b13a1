/// GPUs that code can be made for.
#ifndef PM_CODEGEN_CUDA_CHIPS_H
#define PM_CODEGEN_CUDA_CHIPS_H

#include <stdint.h>

/// Per multiprocessor, for predictions of how many warps run at once.
typedef struct pm_cuda_chip {
    const char *name;          ///< "sm_90a"
    uint32_t ptx;              ///< PTX version that knows it, times ten: the oldest, which most drivers take
    uint32_t registers, warps, blocks;
    uint32_t shared_bytes;     ///< of a multiprocessor
    uint32_t block_shared_bytes; ///< most for one block
} pm_cuda_chip;

/// NULL: no such chip.
const pm_cuda_chip *pm_cuda_chip_named(const char *name);
/// All of them; ends with a NULL name.
const pm_cuda_chip *pm_cuda_chips(void);

#endif
