/// A stand-in for a compiled model with a device, that tests run on any kind of device: what its launches and
/// transfers are like is told by the device's kernels.
#ifndef PM_TESTS_DEVICE_MODEL_H
#define PM_TESTS_DEVICE_MODEL_H

#include "runtime/device/device.h"
#include "runtime/rt_internal.h"

enum { DEVICE_MODEL_N = 1000 };

/// Kernels by number: words are (out, in, n), (state, in, n), (status, mark).
enum { KERNEL_DOUBLE, KERNEL_ADD, KERNEL_FAULT, KERNELS };

/// One entry: in [n], how [1] -> out [n] = 2 * in + weights + sum of all earlier inputs since the last reset.
/// how: 0 in order; 1: a kernel finds the data at fault; 2: host code touches the device's memory;
/// 3: as 0, by way of the second device; 4: a transfer from memory that isn't there.
pm_model device_model(const pm_rt_model *code);
/// Its code for given devices.
pm_rt_model device_model_code(const pm_rt_device *devices, uint64_t n_devices);
/// Bytes of weights: what pm_rt_device.uploads names.
extern const float device_model_weights[DEVICE_MODEL_N];
extern const pm_rt_upload device_model_uploads[2];
/// A call on n numbers in[i] = i + base.
pm_status device_model_call(pm_session *session, int64_t n, float base, int32_t how, float *out);

#endif
