/// What is used of NVIDIA's driver, declared here: programs are made without its headers, and run without it.
/// tests/cuda compares these declarations with cuda.h where a toolkit is.
#ifndef PM_RUNTIME_CUDA_API_H
#define PM_RUNTIME_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

#include "pm/status.h"

typedef unsigned int cu_result; ///< an enumeration of the driver's
typedef int cu_device;
typedef unsigned long long cu_address;
typedef struct CUctx_st *cu_context;
typedef struct CUmod_st *cu_module;
typedef struct CUfunc_st *cu_function;
typedef struct CUstream_st *cu_stream;
typedef struct CUevent_st *cu_event;
typedef struct CUmemPoolHandle_st *cu_pool;
typedef struct CUgraph_st *cu_graph;
typedef struct CUgraphNode_st *cu_node;
typedef struct CUgraphExec_st *cu_graph_exec;

/// A launch within a graph (the driver's first version of it).
struct pm_cu_launch {
    cu_function func;
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    void **kernelParams;
    void **extra;
};
#ifdef PM_CUDA_H_IS_THERE
typedef struct CUDA_KERNEL_NODE_PARAMS_st cu_launch;
typedef struct CUtensorMap_st cu_tensor_map;
#else
typedef struct pm_cu_launch cu_launch;
typedef struct pm_cu_tensor_map cu_tensor_map; ///< 128 bytes, 64-byte aligned
#endif

enum {
    PM_CU_OUT_OF_MEMORY = 2,
    PM_CU_NOT_INITIALIZED = 3,
    PM_CU_NO_DEVICE = 100,
    PM_CU_INVALID_DEVICE = 101,
    PM_CU_NO_BINARY_FOR_GPU = 209,
    PM_CU_INVALID_PTX = 218,
    PM_CU_UNSUPPORTED_PTX_VERSION = 222,
    PM_CU_SYSTEM_DRIVER_MISMATCH = 803,
    PM_CU_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,

    PM_CU_CLOCK_RATE = 13, ///< attributes of devices
    PM_CU_MULTIPROCESSOR_COUNT = 16,
    PM_CU_MEMORY_CLOCK_RATE = 36,
    PM_CU_GLOBAL_MEMORY_BUS_WIDTH = 37,
    PM_CU_L2_CACHE_SIZE = 38,
    PM_CU_COMPUTE_CAPABILITY_MAJOR = 75,
    PM_CU_COMPUTE_CAPABILITY_MINOR = 76,
    PM_CU_MEMORY_POOLS_SUPPORTED = 115,

    PM_CU_MAX_DYNAMIC_SHARED = 8,     ///< attribute of functions
    PM_CU_POOL_RELEASE_THRESHOLD = 4, ///< attribute of pools
    PM_CU_JIT_ERROR_LOG = 5,
    PM_CU_JIT_ERROR_LOG_SIZE = 6,
    PM_CU_STREAM_NON_BLOCKING = 1,
    PM_CU_EVENT_DISABLE_TIMING = 2,
    PM_CU_HOST_DEVICEMAP = 2,
    PM_CU_CAPTURE_RELAXED = 2,
    PM_CU_MAP_U16 = 1,          ///< elements of tensor maps, and how they are copied
    PM_CU_MAP_SWIZZLE_128B = 3,
    PM_CU_MAP_L2_256B = 3,
};

/// X(name, parameters): every driver since 2020 has these.
#define PM_CUDA_NEEDED(X)                                                                                         \
    X(cuInit, (unsigned int))                                                                                     \
    X(cuDriverGetVersion, (int *))                                                                                \
    X(cuGetErrorString, (cu_result, const char **))                                                               \
    X(cuGetErrorName, (cu_result, const char **))                                                                 \
    X(cuDeviceGet, (cu_device *, int))                                                                            \
    X(cuDeviceGetCount, (int *))                                                                                  \
    X(cuDeviceGetName, (char *, int, cu_device))                                                                  \
    X(cuDeviceGetAttribute, (int *, unsigned int, cu_device))                                                     \
    X(cuDeviceTotalMem_v2, (size_t *, cu_device))                                                                 \
    X(cuDeviceGetPCIBusId, (char *, int, cu_device))                                                              \
    X(cuDevicePrimaryCtxRetain, (cu_context *, cu_device))                                                        \
    X(cuDevicePrimaryCtxRelease_v2, (cu_device))                                                                  \
    X(cuCtxGetCurrent, (cu_context *))                                                                            \
    X(cuCtxSetCurrent, (cu_context))                                                                              \
    X(cuModuleLoadDataEx, (cu_module *, const void *, unsigned int, unsigned int *, void **))                     \
    X(cuModuleUnload, (cu_module))                                                                                \
    X(cuModuleGetFunction, (cu_function *, cu_module, const char *))                                              \
    X(cuFuncSetAttribute, (cu_function, unsigned int, int))                                                       \
    X(cuMemAlloc_v2, (cu_address *, size_t))                                                                      \
    X(cuMemFree_v2, (cu_address))                                                                                 \
    X(cuMemHostAlloc, (void **, size_t, unsigned int))                                                            \
    X(cuMemFreeHost, (void *))                                                                                    \
    X(cuMemHostGetDevicePointer_v2, (cu_address *, void *, unsigned int))                                         \
    X(cuMemcpyHtoDAsync_v2, (cu_address, const void *, size_t, cu_stream))                                        \
    X(cuMemcpyDtoHAsync_v2, (void *, cu_address, size_t, cu_stream))                                              \
    X(cuMemcpyDtoDAsync_v2, (cu_address, cu_address, size_t, cu_stream))                                          \
    X(cuMemcpyPeerAsync, (cu_address, cu_context, cu_address, cu_context, size_t, cu_stream))                     \
    X(cuMemsetD8Async, (cu_address, unsigned char, size_t, cu_stream))                                            \
    X(cuStreamCreate, (cu_stream *, unsigned int))                                                                \
    X(cuStreamDestroy_v2, (cu_stream))                                                                            \
    X(cuStreamSynchronize, (cu_stream))                                                                           \
    X(cuStreamWaitEvent, (cu_stream, cu_event, unsigned int))                                                     \
    X(cuEventCreate, (cu_event *, unsigned int))                                                                  \
    X(cuEventDestroy_v2, (cu_event))                                                                              \
    X(cuEventRecord, (cu_event, cu_stream))                                                                       \
    X(cuEventSynchronize, (cu_event))                                                                             \
    X(cuEventElapsedTime, (float *, cu_event, cu_event))                                                          \
    X(cuLaunchKernel, (cu_function, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,         \
                       unsigned int, unsigned int, cu_stream, void **, void **))

/// Where a driver lacks these, calls do without: pools (11.2), graphs (11.4), tensor maps (12.0).
#define PM_CUDA_OPTIONAL(X)                                                                                       \
    X(cuDeviceGetDefaultMemPool, (cu_pool *, cu_device))                                                          \
    X(cuMemPoolSetAttribute, (cu_pool, unsigned int, void *))                                                     \
    X(cuMemPoolTrimTo, (cu_pool, size_t))                                                                         \
    X(cuMemAllocAsync, (cu_address *, size_t, cu_stream))                                                         \
    X(cuMemFreeAsync, (cu_address, cu_stream))                                                                    \
    X(cuGraphCreate, (cu_graph *, unsigned int))                                                                  \
    X(cuGraphDestroy, (cu_graph))                                                                                 \
    X(cuGraphAddKernelNode, (cu_node *, cu_graph, const cu_node *, size_t, const cu_launch *))                    \
    X(cuGraphInstantiateWithFlags, (cu_graph_exec *, cu_graph, unsigned long long))                               \
    X(cuGraphExecKernelNodeSetParams, (cu_graph_exec, cu_node, const cu_launch *))                                \
    X(cuGraphExecDestroy, (cu_graph_exec))                                                                        \
    X(cuGraphLaunch, (cu_graph_exec, cu_stream))                                                                  \
    X(cuGraphAddChildGraphNode, (cu_node *, cu_graph, const cu_node *, size_t, cu_graph))                         \
    X(cuStreamBeginCapture_v2, (cu_stream, unsigned int))                                                         \
    X(cuStreamEndCapture, (cu_stream, cu_graph *))                                                                \
    X(cuTensorMapEncodeTiled, (cu_tensor_map *, unsigned int, uint32_t, void *, const uint64_t *, const uint64_t *, \
                               const uint32_t *, const uint32_t *, unsigned int, unsigned int, unsigned int,      \
                               unsigned int))

typedef struct pm_cuda {
#define X(name, parameters) cu_result (*name) parameters;
    PM_CUDA_NEEDED(X)
    PM_CUDA_OPTIONAL(X)
#undef X
} pm_cuda;

/// The driver, initialised. PM_ERR_UNSUPPORTED where there is none, or no device: the text says which, and what helps.
PM_NODISCARD pm_status pm_cuda_load(const pm_cuda **out_cuda);
/// PM_OK, or the status that a result means, with the text "`who`: `doing`: the driver's words".
PM_NODISCARD pm_status pm_cuda_check(const pm_cuda *cuda, const char *who, const char *doing, cu_result result);

#endif
