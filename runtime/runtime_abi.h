/// What generated code and the runtime know of each other.
///
/// An entry runs SPMD: every worker calls the same function, takes its tiles by index and meets the
/// others at barriers between dispatches that depend on each other. Nothing is allocated per call.
#ifndef PM_RUNTIME_RUNTIME_ABI_H
#define PM_RUNTIME_RUNTIME_ABI_H

#include <stdint.h>

enum { PM_RUNTIME_ABI_VERSION = 1 };

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
} pm_rt_call;

typedef enum pm_rt_error {
    PM_RT_ERR_NONE,
    PM_RT_ERR_DATA,      ///< index out of range, sizes that do not fit, division by zero
    PM_RT_ERR_NO_MEMORY, ///< a data-dependent buffer could not be placed
} pm_rt_error;

/// Runs an entry as worker `worker` of `n_workers`. Returns early (all workers alike) after an error.
typedef void pm_rt_entry_fn(pm_rt_call *call, int64_t worker, int64_t n_workers);

/// Sizes for given symbols: out[0] bytes of the arena, out[1] bytes of scratch per worker, then the
/// dims of every input port and every output port, in order (data-dependent ones: -1 while the
/// symbol is -1). Symbols that are not bound are -1. An extent that overflows is -2.
typedef void pm_rt_plan_fn(const int64_t *symbols, int64_t *out);

typedef struct pm_rt_entry {
    pm_rt_entry_fn *run;
    pm_rt_plan_fn *plan;
} pm_rt_entry;

/// What the generated object exports as `pm_model_<name>` (an executable: `pm_model_main`).
typedef struct pm_rt_model {
    uint32_t abi_version;
    uint32_t n_entries;
    uint64_t code_hash;          ///< equals the manifest's
    const pm_rt_entry *entries;  ///< in the manifest's order
    pm_rt_plan_fn *state_bytes;  ///< out[i]: bytes of state i
    const uint8_t *payload;      ///< NULL: appended to the file that the code was loaded from
    const uint64_t *payload_size;
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
/// Notes that dispatch `dispatch` found the data at fault; the first one wins.
void pm_rt_fail(pm_rt_call *call, int64_t dispatch);

#endif
