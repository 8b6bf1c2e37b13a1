/// Devices beside the CPU, as sessions use them. One table of functions for each kind.
#ifndef PM_RUNTIME_DEVICE_H
#define PM_RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "pm/status.h"
#include "runtime/runtime_abi.h"

/// A line of work on an opened device: what it is given is done in order. One thread uses it at a time.
typedef struct pm_rt_device_state pm_rt_device_state;
struct pm_session;
struct pm_model;

/// What sessions do with their model's devices (device_call.c). The session's code reaches it through the table of
/// the model's first device, so that programs without devices hold none of it.
typedef struct pm_rt_device_sessions {
    /// Opens the devices (and uploads the model's weights, for its first session), makes states.
    pm_status (*open)(struct pm_session *session);
    void (*close)(struct pm_session *session);
    void (*close_model)(struct pm_model *model);
    void (*reset)(struct pm_session *session); ///< clears states; a failure is the next call's
    /// Before a call: room for `sizes`, two numbers for each device (bytes of the arena, of a piece of scratch).
    pm_status (*begin)(struct pm_session *session, const int64_t *sizes);
    void (*end)(struct pm_session *session); ///< behind a call: waits; sets call.error when something was found
    /// Behind a call that ended with PM_RT_ERR_DEVICE: its status; sets the text.
    pm_status (*error)(struct pm_session *session, const char *where);
} pm_rt_device_sessions;

/// Functions return PM_OK or an error that pm_rt_error_set was told.
typedef struct pm_rt_device_ops {
    const char *kind; ///< "cuda", "emu"
    const pm_rt_device_sessions *sessions; ///< &pm_rt_device_sessions_table
    /// Opens device number `ordinal` of this kind and makes the kernels of `desc` ready; with `share` (opened for the same
    /// `desc` and `ordinal`), as one more line of work on that: its memory and kernels are common to both.
    /// PM_ERR_UNSUPPORTED where the machine has none: the caller may do without.
    pm_status (*open)(const pm_rt_device *desc, int ordinal, pm_rt_device_state *share,
                      pm_rt_device_state **out_device);
    void (*close)(pm_rt_device_state *device);
    /// Memory of the device, 256-byte aligned, zeroed. An address that the host must not read or write.
    pm_status (*alloc)(pm_rt_device_state *device, size_t bytes, void **out_memory);
    void (*release)(pm_rt_device_state *device, void *memory);
    pm_status (*clear)(pm_rt_device_state *device, void *memory, size_t bytes); ///< to zeros, in order
    /// `from` may be reused at once. upload: in the order of launches. bring: launches given later see it; those given
    /// before, since the last `arrive` or `wait`, are known not to touch `to`.
    pm_status (*upload)(pm_rt_device_state *device, void *to, const void *from, size_t bytes);
    pm_status (*bring)(pm_rt_device_state *device, void *to, const void *from, size_t bytes);
    /// fetch: behind the launches given so far; those given later are known not to touch `from` until the host has called
    /// arrive, behind which `to` is there. What nobody waits for ends with `wait`, and may never be there.
    pm_status (*fetch)(pm_rt_device_state *device, void *to, const void *from, size_t bytes);
    pm_status (*arrive)(pm_rt_device_state *device, void *to);
    /// Between two devices of this kind, behind what either was given before. NULL, or PM_ERR_UNSUPPORTED: not possible.
    pm_status (*peer)(pm_rt_device_state *to_device, void *to, pm_rt_device_state *from_device, const void *from,
                      size_t bytes);
    pm_status (*launch)(pm_rt_device_state *device, uint32_t kernel, uint64_t blocks, const uint64_t *words,
                        size_t n_words);
    /// Writes PM_RT_TENSOR_MAP_BYTES that kernels here take as the map of a weight. NULL, or PM_ERR_UNSUPPORTED (nothing is
    /// told): kernels of PM_RT_KERNEL_WGMMA don't run here.
    pm_status (*tensor_map)(pm_rt_device_state *device, const pm_rt_tensor_map *map, const uint8_t *weights,
                            void *out_map);
    pm_status (*wait)(pm_rt_device_state *device); ///< until all that was given is done
    /// The word where kernels leave the number of a dispatch that found the data at fault, as they see it.
    int32_t *(*status)(pm_rt_device_state *device);
    /// Its value, and sets it to 0: behind an arrival or a wait.
    int32_t (*take_status)(pm_rt_device_state *device);
    /// This thread does without devices for now: what was changed of its own is as before. NULL: nothing was.
    void (*leave)(void);
} pm_rt_device_ops;

extern const pm_rt_device_sessions pm_rt_device_sessions_table;
extern const pm_rt_device_ops pm_rt_cuda_ops, pm_rt_emu_ops;

#endif
