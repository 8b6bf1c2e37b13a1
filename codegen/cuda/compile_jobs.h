/// NVIDIA's compilers on threads of their own: a model's templates are compiled side by side, and beside the rest.
#ifndef PM_CODEGEN_CUDA_COMPILE_JOBS_H
#define PM_CODEGEN_CUDA_COMPILE_JOBS_H

#include "codegen/cuda/nvrtc.h"

typedef struct pm_cuda_jobs pm_cuda_jobs;

/// Has as many threads as this process may use processors, once there is so much to do. They end with the arena at the
/// latest.
pm_cuda_jobs *pm_cuda_jobs_new(pm_arena *arena, pm_diag *diag);

/// As pm_cuda_compile and pm_cuda_assemble, some time before pm_cuda_jobs_wait returns; until then what is given stays
/// as it is. What comes back lives as long as the arena.
void pm_cuda_jobs_compile(pm_cuda_jobs *jobs, const pm_cuda_program *program, pm_cuda_code *out_code);
void pm_cuda_jobs_assemble(pm_cuda_jobs *jobs, const char *name, const pm_cuda_ptx *ptx, const char *arch,
                           const uint8_t **out_cubin, size_t *out_size);

/// Until all is done; this thread helps. The first error in the order of what was given, with what was told of all.
PM_NODISCARD pm_status pm_cuda_jobs_wait(pm_cuda_jobs *jobs);

#endif
