/// CUDA C templates to PTX and cubins: NVIDIA's compilers, opened when they are needed, behind a cache by content.
#ifndef PM_CODEGEN_CUDA_NVRTC_H
#define PM_CODEGEN_CUDA_NVRTC_H

#include "base/diag.h"

typedef struct pm_cuda_compiler pm_cuda_compiler;

/// A text that a program includes by name.
typedef struct pm_cuda_source {
    const char *name, *text;
} pm_cuda_source;

/// One compilation. Nothing else is included: no file of the toolkit's.
typedef struct pm_cuda_program {
    const char *name;               ///< for messages
    const pm_cuda_source *sources;  ///< the program, then what it may include
    size_t n_sources;
    const char *const *definitions; ///< "PM_CONST_N=64"
    size_t n_definitions;
    const char *arch; ///< "sm_90a"
    bool tells_resources; ///< the log is wanted, with what the assembler says of registers and memory
} pm_cuda_program;

/// PTX ends with a NUL behind its size. All lie in the compiler's arena.
typedef struct pm_cuda_code {
    const char *ptx;
    const char *log; ///< "" unless the program asked for it
    const uint8_t *cubin;
    size_t ptx_size, cubin_size;
} pm_cuda_code;

/// What was made anew and what was kept.
typedef struct pm_cuda_stats {
    size_t compiled, from_cache;
} pm_cuda_stats;

/// Looks for NVRTC and nvJitLink and for a folder of kernels (PIMOE_CACHE_DIR, else XDG_CACHE_HOME/pimoe or
/// HOME/.cache/pimoe, in kernels/); opens neither. What is missing is an error once it is needed.
pm_cuda_compiler *pm_cuda_compiler_new(pm_arena *arena, pm_diag *diag);
pm_cuda_stats pm_cuda_compiler_stats(const pm_cuda_compiler *c);

/// PTX and cubin of a program. Errors: PM_ERR_UNSUPPORTED without NVRTC, PM_ERR_INTERNAL with its log as notes: templates
/// are ours.
PM_NODISCARD pm_status pm_cuda_compile(pm_cuda_compiler *c, const pm_cuda_program *program, pm_cuda_code *out_code);

/// Text of a module, with a NUL behind its size.
typedef struct pm_cuda_ptx {
    const char *text;
    size_t size;
} pm_cuda_ptx;

/// One cubin of modules in PTX.
PM_NODISCARD pm_status pm_cuda_assemble(pm_cuda_compiler *c, const char *name, const pm_cuda_ptx *modules,
                                        size_t n_modules, const char *arch, const uint8_t **out_cubin, size_t *out_size);

#endif
