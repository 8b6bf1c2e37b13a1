/// cuBLASLt's functions as we declare them, against the toolkit's header: compiled where there is one, never run.
#include <cublasLt.h>
#define PM_CUBLASLT_H_IS_THERE
#include "runtime/device/cublaslt.h"

/// An enumeration is an unsigned int to C, but another type.
#define X(result, name, parameters) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(((pm_cublaslt *)0)->name), __typeof__(&name)), #name);
PM_LT_FUNCTIONS(X)
#undef X

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)
SAME(PM_LT_REAL_32F, CUDA_R_32F);
SAME(PM_LT_REAL_16F, CUDA_R_16F);
SAME(PM_LT_REAL_16BF, CUDA_R_16BF);
SAME(PM_LT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(PM_LT_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(PM_LT_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(PM_LT_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(PM_LT_TRANSPOSED, CUBLAS_OP_T);
SAME(PM_LT_ADDS_BIAS, CUBLASLT_EPILOGUE_BIAS);
SAME(PM_LT_MOST_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(PM_LT_REDUCTIONS, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(PM_LT_ALIGNMENT_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(PM_LT_ALIGNMENT_A + 1, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(PM_LT_ALIGNMENT_A + 2, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(PM_LT_ALIGNMENT_D, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(PM_LT_IN_COMPUTE_TYPE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);

SAME(sizeof(struct pm_lt_algorithm), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct pm_lt_choice), sizeof(cublasLtMatmulHeuristicResult_t));
#define FIELD(name) SAME(offsetof(struct pm_lt_choice, name), offsetof(cublasLtMatmulHeuristicResult_t, name))
FIELD(algo);
FIELD(workspaceSize);
FIELD(state);
FIELD(wavesCount);
FIELD(reserved);
