/// NVIDIA's cuBLASLt, where a machine has it: declared here and opened at run time, like the driver (cuda_api.h).
/// tests/cuda compares these declarations with cublasLt.h where a toolkit is.
#ifndef PM_RUNTIME_CUBLASLT_H
#define PM_RUNTIME_CUBLASLT_H

#include <stdbool.h>

#include "runtime/device/cuda_api.h"

typedef unsigned int lt_status; ///< an enumeration of the library's, as are attributes and types
typedef struct cublasLtContext *lt_handle;
#ifdef PM_CUBLASLT_H_IS_THERE
typedef cublasLtMatmulDesc_t lt_desc;
typedef cublasLtMatrixLayout_t lt_layout;
typedef cublasLtMatmulPreference_t lt_preference;
typedef cublasLtMatmulAlgo_t lt_algorithm;
typedef cublasLtMatmulHeuristicResult_t lt_choice;
#else
typedef struct pm_lt_desc *lt_desc;
typedef struct pm_lt_layout *lt_layout;
typedef struct pm_lt_preference *lt_preference;
typedef struct pm_lt_algorithm lt_algorithm;
typedef struct pm_lt_choice lt_choice;
#endif

struct pm_lt_algorithm {
    uint64_t data[8];
};

struct pm_lt_choice {
    struct pm_lt_algorithm algo;
    size_t workspaceSize;
    lt_status state;
    float wavesCount;
    int reserved[4];
};

enum {
    PM_LT_REAL_32F = 0, ///< types of elements
    PM_LT_REAL_16F = 2,
    PM_LT_REAL_16BF = 14,
    PM_LT_COMPUTE_32F = 68,

    PM_LT_TRANSA = 3, ///< attributes of a product
    PM_LT_EPILOGUE = 7,
    PM_LT_BIAS_POINTER = 8,
    PM_LT_TRANSPOSED = 1,
    PM_LT_ADDS_BIAS = 4,

    PM_LT_MOST_WORKSPACE = 1, ///< attributes of a preference
    PM_LT_REDUCTIONS = 3,
    PM_LT_ALIGNMENT_A = 5,
    PM_LT_ALIGNMENT_D = 8,
    PM_LT_IN_COMPUTE_TYPE = 2,
};

/// X(result, name, parameters)
#define PM_LT_FUNCTIONS(X)                                                                                        \
    X(size_t, cublasLtGetVersion, (void))                                                                         \
    X(const char *, cublasLtGetStatusName, (lt_status))                                                           \
    X(lt_status, cublasLtCreate, (lt_handle *))                                                                   \
    X(lt_status, cublasLtDestroy, (lt_handle))                                                                    \
    X(lt_status, cublasLtMatmulDescCreate, (lt_desc *, unsigned int, unsigned int))                               \
    X(lt_status, cublasLtMatmulDescDestroy, (lt_desc))                                                            \
    X(lt_status, cublasLtMatmulDescSetAttribute, (lt_desc, unsigned int, const void *, size_t))                   \
    X(lt_status, cublasLtMatrixLayoutCreate, (lt_layout *, unsigned int, uint64_t, uint64_t, int64_t))            \
    X(lt_status, cublasLtMatrixLayoutDestroy, (lt_layout))                                                        \
    X(lt_status, cublasLtMatmulPreferenceCreate, (lt_preference *))                                               \
    X(lt_status, cublasLtMatmulPreferenceDestroy, (lt_preference))                                                \
    X(lt_status, cublasLtMatmulPreferenceSetAttribute, (lt_preference, unsigned int, const void *, size_t))       \
    X(lt_status, cublasLtMatmulAlgoGetHeuristic, (lt_handle, lt_desc, lt_layout, lt_layout, lt_layout, lt_layout, \
                                                  lt_preference, int, lt_choice *, int *))                        \
    X(lt_status, cublasLtMatmul, (lt_handle, lt_desc, const void *, const void *, lt_layout, const void *,        \
                                  lt_layout, const void *, const void *, lt_layout, void *, lt_layout,            \
                                  const lt_algorithm *, void *, size_t, cu_stream))

typedef struct pm_cublaslt {
#define X(result, name, parameters) result(*name) parameters;
    PM_LT_FUNCTIONS(X)
#undef X
} pm_cublaslt;

/// The library's functions: of the file `where`, or (NULL) of the first that has one of the usual names. The first one
/// that could be opened stays. PM_ERR_UNSUPPORTED: there is none, or it lacks something; the text says what.
PM_NODISCARD pm_status pm_lt_load(const char *where, const pm_cublaslt **out);

/// ---- products -----------------------------------------------------------------------------------------------

/// A handle for the current context. All that follows returns PM_ERR_UNSUPPORTED, with words, where the library refuses.
typedef struct pm_lt {
    const pm_cublaslt *functions; ///< NULL: none
    lt_handle handle;
    lt_preference preference;
} pm_lt;

enum { PM_LT_WORKSPACE = 32 << 20, PM_LT_ALIGNED = 16 };

/// y [rows, n] = x [rows, k] w^T [n, k] + bias [n], all row-major and without gaps, sums in f32.
typedef struct pm_lt_shape {
    uint64_t rows, n, k;
    unsigned int factors, result; ///< types of x and w, of y and the bias
    bool bias;
} pm_lt_shape;

typedef struct pm_lt_product {
    lt_desc desc;
    lt_layout w, x, y;
    struct pm_lt_choice choice;
} pm_lt_product;

/// Where operands lie on the device, at multiples of PM_LT_ALIGNED.
typedef struct pm_lt_operands {
    const void *x, *w, *bias;
    void *y;
} pm_lt_operands;

PM_NODISCARD pm_status pm_lt_open(const char *where, pm_lt *out);
void pm_lt_close(pm_lt *lt);
/// What the library would do; `operands`: some of the sort that it will be for.
PM_NODISCARD pm_status pm_lt_prepare(const pm_lt *lt, const pm_lt_shape *shape, const pm_lt_operands *operands,
                                     pm_lt_product *out);
void pm_lt_drop(const pm_lt *lt, pm_lt_product *product);
/// workspace: PM_LT_WORKSPACE bytes that nothing but this stream uses.
PM_NODISCARD pm_status pm_lt_run(const pm_lt *lt, const pm_lt_product *product, const pm_lt_operands *operands,
                                 void *workspace, cu_stream stream);

#endif
