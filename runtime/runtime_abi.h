/// What generated code and the runtime know of each other.
///
/// An entry runs SPMD: every worker calls the same function, takes its tiles by index and meets the
/// others at barriers between dispatches that depend on each other. Nothing is allocated per call.
#ifndef PM_RUNTIME_RUNTIME_ABI_H
#define PM_RUNTIME_RUNTIME_ABI_H

#include <stdint.h>

enum { PM_RUNTIME_ABI_VERSION = 2 };

/// A device's side of a call: addresses on that device. Generated code reads it by offset.
typedef struct pm_rt_device_call {
    uint8_t *arena;         ///< activations
    uint8_t *weights;       ///< what was uploaded, as pm_rt_device.uploads says
    uint8_t *scratch;       ///< for kernels that work as the CPU's do: PM_RT_DEVICE_WORKERS pieces of scratch_bytes
    int64_t scratch_bytes;
    int32_t *status;        ///< 0, or 1 + number of the dispatch that found the data at fault
    uint8_t *const *states; ///< by state number; those that live there
    struct pm_rt_device_state *state; ///< the device's own
    uint8_t *maps;          ///< PM_RT_TENSOR_MAP_BYTES for each of pm_rt_device.maps; NULL where kernels can't use them
    int64_t has_wgmma;      ///< whether kernels of PM_RT_KERNEL_WGMMA run here
} pm_rt_device_call;

enum { PM_RT_DEVICE_WORKERS = 256, PM_RT_TENSOR_MAP_BYTES = 128 };
/// The chip that has wgmma; code for it runs on no other.
#define PM_RT_WGMMA_ARCH "sm_90a"

/// One running call, shared by all workers. Generated code reads the first block by offset: the
/// order is part of the ABI (checked by static assertions in codegen and runtime).
typedef struct pm_rt_call {
    uint8_t *arena;          ///< activations, at least plan()[0] bytes, 64-byte aligned
    uint8_t *const *inputs;  ///< by argument number; states hold the state's memory
    uint8_t *const *outputs; ///< by result number; NULL for states and data-dependent outputs
    uint8_t *const *states;  ///< by state number
    const uint8_t *weights;  ///< start of the payload
    int64_t *symbols;        ///< by symbol number; data-dependent ones are bound during the run
    uint8_t **dynamic;       ///< by slot; set through pm_rt_place
    uint8_t *scratch;        ///< worker w owns [w * scratch_bytes, (w + 1) * scratch_bytes)
    int64_t scratch_bytes;   ///< plan()[1], rounded up to 64
    int32_t error;           ///< 0, or 1 + number of the dispatch that found the data at fault; set at barriers alone,
                             ///< so that all workers see the same behind each and return alike
    int32_t error_kind;      ///< pm_rt_error
    struct pm_rt_pool *pool; ///< the runtime's own
    int32_t found;           ///< as error: found since the last barrier, not yet to be acted upon
    int32_t found_kind;
    pm_rt_device_call *devices; ///< by number of the device in the model's list
} pm_rt_call;

typedef enum pm_rt_error {
    PM_RT_ERR_NONE,
    PM_RT_ERR_DATA,      ///< index out of range, sizes that do not fit, division by zero
    PM_RT_ERR_NO_MEMORY, ///< a data-dependent buffer could not be placed
    PM_RT_ERR_DEVICE,    ///< a device refused or broke; the session keeps its words
} pm_rt_error;

/// Runs an entry as worker `worker` of `n_workers`. Returns early (all workers alike) after an error.
typedef void pm_rt_entry_fn(pm_rt_call *call, int64_t worker, int64_t n_workers);

/// Sizes for given symbols: out[0] bytes of the arena, out[1] bytes of scratch per worker, then the
/// dims of every input port and every output port, in order (data-dependent ones: -1 while the
/// symbol is -1), then for each device the bytes of its arena and of one piece of its scratch. Symbols that are not bound are -1. An extent that overflows is -2.
typedef void pm_rt_plan_fn(const int64_t *symbols, int64_t *out);

typedef struct pm_rt_entry {
    pm_rt_entry_fn *run;
    pm_rt_plan_fn *plan;
} pm_rt_entry;

/// ---- devices beside the CPU (docs/decisions/0013-gpu.md) ---------------------------------------------------

/// A kernel as the CPU plays it: called once by each thread, with the launch's words.
typedef void pm_rt_emu_kernel(const uint64_t *words);

typedef enum pm_rt_kernel_flags {
    PM_RT_KERNEL_MEETS = 1, ///< threads of a block meet at barriers or exchange values: each plays on a stack of its own
    PM_RT_KERNEL_TEMPLATE = 2, ///< `emu` takes the words as parameters (a CUDA template), not as a list
    PM_RT_KERNEL_WGMMA = 4,    ///< has code for PM_RT_WGMMA_ARCH alone: elsewhere it is never launched
    PM_RT_KERNEL_PRODUCT = 8,  ///< a product by tiles, with the words of pm_rt_product_word: a library may make it instead
    PM_RT_KERNEL_WALKS = 16,   ///< any number of blocks does all there is to do: one for each multiprocessor is enough
} pm_rt_kernel_flags;

/// The words of products, as codegen/cuda/kernels/cu_product.h has them, elements too.
typedef enum pm_rt_product_word {
    PM_RT_PRODUCT_X, PM_RT_PRODUCT_W, PM_RT_PRODUCT_SCALES, PM_RT_PRODUCT_ZEROS, PM_RT_PRODUCT_OFFSETS, PM_RT_PRODUCT_BIAS,
    PM_RT_PRODUCT_Y, PM_RT_PRODUCT_ROWS, PM_RT_PRODUCT_N, PM_RT_PRODUCT_K, PM_RT_PRODUCT_EXPERTS,
    PM_RT_PRODUCT_EXPERT_BYTES, PM_RT_PRODUCT_X_ELEM, PM_RT_PRODUCT_W_ELEM, PM_RT_PRODUCT_Y_ELEM, PM_RT_PRODUCT_BIAS_ELEM,
    PM_RT_PRODUCT_SCALE_ELEM, PM_RT_PRODUCT_ZERO_ELEM, PM_RT_PRODUCT_BITS, PM_RT_PRODUCT_BLOCK, PM_RT_PRODUCT_FORMAT,
    PM_RT_PRODUCT_ROUNDS, PM_RT_PRODUCT_MAP, PM_RT_PRODUCT_WORDS
} pm_rt_product_word;

enum { PM_RT_PRODUCT_F32, PM_RT_PRODUCT_BF16, PM_RT_PRODUCT_F16 };

typedef struct pm_rt_kernel {
    const char *name;
    uint32_t code;         ///< number of the code that holds it
    uint32_t threads;      ///< of a block
    uint32_t shared_bytes; ///< dynamic shared memory of a block
    uint32_t flags;
    pm_rt_emu_kernel *emu; ///< NULL: no code for the CPU to play
} pm_rt_kernel;

/// Kernels compiled for an architecture; several of the same number serve different ones.
typedef struct pm_rt_code {
    uint32_t number, reserved;
    const char *arch; ///< "sm_90a": PTX runs on it and later ones (an `a`: on it alone), a cubin on it alone
    const uint8_t *ptx; ///< NUL-terminated
    const uint8_t *cubin; ///< NULL: none
    uint64_t ptx_size, cubin_size;
} pm_rt_code;

/// Bytes of the payload that a device holds.
typedef struct pm_rt_upload {
    uint64_t payload_offset, device_offset, size;
} pm_rt_upload;

/// A weight of 16-bit elements, as the tensor memory accelerator copies boxes of it: PM_RT_MAP_COLUMNS elements of
/// PM_RT_MAP_ROWS rows of one matrix, swizzled by 128 bytes, zeros beyond the edges.
typedef struct pm_rt_tensor_map {
    uint64_t device_offset;
    uint64_t extents[3]; ///< elements of a row, rows, matrices
    uint64_t strides[2]; ///< bytes from row to row, from matrix to matrix; multiples of 16
} pm_rt_tensor_map;

enum { PM_RT_MAP_COLUMNS = 64, PM_RT_MAP_ROWS = 256 };

typedef struct pm_rt_device {
    const struct pm_rt_device_ops *ops; ///< pm_rt_cuda_ops or pm_rt_emu_ops
    const char *name;                   ///< "cuda0"
    const pm_rt_kernel *kernels;
    const pm_rt_code *codes;
    const pm_rt_upload *uploads;
    uint64_t n_kernels, n_codes, n_uploads;
    uint64_t weight_bytes; ///< room for all uploads
    const pm_rt_tensor_map *maps;
    uint64_t n_maps;
} pm_rt_device;

/// What the generated object exports as `pm_model_<name>` (an executable: `pm_model_main`).
typedef struct pm_rt_model {
    uint32_t abi_version;
    uint32_t n_entries;
    uint64_t code_hash;          ///< equals the manifest's
    const pm_rt_entry *entries;  ///< in the manifest's order
    pm_rt_plan_fn *state_bytes;  ///< out[i]: bytes of state i
    const uint8_t *payload;      ///< NULL: appended to the file that the code was loaded from
    const uint64_t *payload_size;
    const pm_rt_device *devices; ///< NULL: the CPU alone
    uint64_t n_devices;
} pm_rt_model;

/// Called by generated code; defined by the runtime.

/// All workers of the call meet here: what was written before is seen after.
void pm_rt_barrier(pm_rt_call *call, int64_t worker);
/// Places dynamic slot `slot` with room for `bytes` (sets call->dynamic[slot]); only worker 0 calls. A slot
/// that was placed before in this call keeps its memory when that is large enough, and gets twice as much
/// otherwise: rounds of a loop don't add up. On failure sets call->found and leaves a valid pointer to no bytes.
void pm_rt_place(pm_rt_call *call, int64_t slot, int64_t bytes, int64_t dispatch);
/// Makes room for one more in a slot that holds `n` pieces of `bytes` each, and keeps those; only worker 0 calls.
void pm_rt_grow(pm_rt_call *call, int64_t slot, int64_t n, int64_t bytes, int64_t dispatch);
/// Gives a device a kernel to run, behind what it was given before; only worker 0 calls.
/// words: the kernel's parameters, pointers as the device sees them. A failure sets call->found.
void pm_rt_launch(pm_rt_call *call, int64_t device, int64_t kernel, int64_t blocks, const uint64_t *words,
                  int64_t n_words, int64_t dispatch);
/// Copies between memory of the host (device -1) and of a device, or of two devices; only worker 0 calls.
/// To a device: `from` may be reused at once; kernels given later see it; nothing given since the last pm_rt_arrive of that
/// device (or the call's begin) touches `to`. To the host: behind what the device was given so far; `to` is there behind
/// pm_rt_arrive, and until then kernels leave `from` alone.
void pm_rt_transfer(pm_rt_call *call, int64_t to_device, void *to, int64_t from_device, const void *from,
                    int64_t bytes, int64_t dispatch);
/// Waits until what device `device` was asked for is in `to`, on the host; only worker 0 calls.
void pm_rt_arrive(pm_rt_call *call, int64_t device, void *to, int64_t dispatch);
/// Notes that dispatch `dispatch` found the data at fault; the first one wins.
void pm_rt_fail(pm_rt_call *call, int64_t dispatch);

#endif
