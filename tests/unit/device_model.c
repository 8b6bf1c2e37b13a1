#include "tests/unit/device_model.h"

#include <string.h>

static struct {
    pm_artifact_manifest head;
    pm_artifact_entry entry;
    pm_artifact_port ports[4];
    pm_artifact_symbol symbol;
    pm_artifact_state state;
    pm_artifact_dispatch dispatches[4];
    char strings[64];
} image;

_Alignas(64) const float device_model_weights[DEVICE_MODEL_N] = {[0] = 0.5f, [1] = 1.5f, [DEVICE_MODEL_N - 1] = 8};
/// In two pieces, the later first.
const pm_rt_upload device_model_uploads[2] = {
    {.payload_offset = 400, .device_offset = 400, .size = sizeof device_model_weights - 400},
    {.payload_offset = 0, .device_offset = 0, .size = 400},
};

enum { ARENA = 2 * DEVICE_MODEL_N * sizeof(float) };

static uint64_t word(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static void run(pm_rt_call *call, int64_t worker, int64_t n_workers)
{
    (void)n_workers;
    int64_t n = call->symbols[0], bytes = n * (int64_t)sizeof(float);
    int32_t how = *(const int32_t *)call->inputs[1];
    if (worker == 0) {
        const pm_rt_device_call *d = &call->devices[0];
        uint8_t *in = d->arena, *out = d->arena + bytes;
        pm_rt_transfer(call, 0, in, -1, call->inputs[0], bytes, 0);
        pm_rt_launch(call, 0, KERNEL_DOUBLE, 1, (uint64_t[]){word(out), word(in), (uint64_t)n}, 3, 1);
        pm_rt_launch(call, 0, KERNEL_ADD, 1, (uint64_t[]){word(out), word(d->weights), (uint64_t)n}, 3, 1);
        pm_rt_launch(call, 0, KERNEL_ADD, 1, (uint64_t[]){word(out), word(d->states[0]), (uint64_t)n}, 3, 1);
        pm_rt_launch(call, 0, KERNEL_ADD, 1, (uint64_t[]){word(d->states[0]), word(in), (uint64_t)n}, 3, 1);
        if (how == 1)
            pm_rt_launch(call, 0, KERNEL_FAULT, 1, (uint64_t[]){word(d->status), 2 + 1}, 2, 2);
        if (how == 2)
            memset(in, 0, 4);
        if (how == 3) {
            pm_rt_transfer(call, 1, call->devices[1].arena, 0, out, bytes, 3);
            memset(call->outputs[0], 0, (size_t)bytes);
            pm_rt_transfer(call, -1, call->outputs[0], 1, call->devices[1].arena, bytes, 3);
            pm_rt_arrive(call, 1, call->outputs[0], 3);
        } else {
            pm_rt_transfer(call, -1, call->outputs[0], 0, how == 4 ? NULL : out, bytes, 3);
            pm_rt_arrive(call, 0, call->outputs[0], 3);
        }
    }
    pm_rt_barrier(call, worker);
    if (call->error)
        return;
    if (worker == 0 && n > 0)
        ((float *)call->outputs[0])[0] += 1000; // to be seen only where nothing was at fault
}

static void plan(const int64_t *symbols, int64_t *out)
{
    out[0] = out[1] = 64;
    out[2] = symbols[0];
    out[3] = 1;
    out[4] = symbols[0];
    for (int i = 0; i < 2; i++) {
        out[5 + 2 * i] = 2 * symbols[0] * (int64_t)sizeof(float);
        out[6 + 2 * i] = 10;
    }
}

static void state_bytes(const int64_t *symbols, int64_t *out)
{
    (void)symbols;
    out[0] = sizeof device_model_weights;
}

static const pm_rt_entry entries[] = {{run, plan}};

pm_rt_model device_model_code(const pm_rt_device *devices, uint64_t n_devices)
{
    return (pm_rt_model){.abi_version = PM_RUNTIME_ABI_VERSION, .n_entries = 1, .entries = entries,
                         .state_bytes = state_bytes, .devices = devices, .n_devices = n_devices};
}

pm_model device_model(const pm_rt_model *code)
{
    static const char *const places[] = {"copy in", "layers.0", "layers.1", "copy out"};
    memcpy(image.strings, "name", 5);
    uint32_t start = (uint32_t)(image.strings - (char *)&image), at = 8;
    pm_artifact_string name = {start, 4};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        memcpy(image.strings + at, places[i], strlen(places[i]) + 1);
        image.dispatches[i] = (pm_artifact_dispatch){.name = name, .loc = {start + at, (uint32_t)strlen(places[i])}};
        at += (uint32_t)strlen(places[i]) + 1;
    }
    image.head.entries.n = image.head.symbols.n = image.head.states.n = 1;
    image.head.ports.n = 4;
    image.head.dispatches.n = 4;
    image.entry = (pm_artifact_entry){.name = name, .n_inputs = 2, .first_output = 2, .n_outputs = 1, .n_port_dims = 3};
    image.ports[0] = (pm_artifact_port){.name = name, .elem = 0, .rank = 1, .state = -1, .dims = {-1}};
    image.ports[1] = (pm_artifact_port){.name = name, .elem = 0, .rank = 1, .state = -1, .dims = {1}};
    image.ports[2] = (pm_artifact_port){.name = name, .elem = 0, .rank = 1, .state = -1, .dims = {-1}};
    image.symbol = (pm_artifact_symbol){.name = name, .hi = DEVICE_MODEL_N};
    image.state = (pm_artifact_state){.name = name, .rank = 1, .dims = {DEVICE_MODEL_N}, .device = 1};
    return (pm_model){.code = code,
                      .payload = (const uint8_t *)device_model_weights,
                      .payload_size = sizeof device_model_weights,
                      .manifest_bytes = (const uint8_t *)&image,
                      .manifest = &image.head,
                      .n_entries = 1, .entries = &image.entry,
                      .ports = image.ports,
                      .symbols = &image.symbol,
                      .states = &image.state,
                      .dispatches = image.dispatches};
}

pm_status device_model_call(pm_session *session, int64_t n, float base, int32_t how, float *out)
{
    static _Thread_local float in[DEVICE_MODEL_N];
    for (int64_t i = 0; i < n; i++)
        in[i] = (float)i + base;
    pm_tensor_arg inputs[] = {{.data = in, .size = sizeof in, .rank = 1, .dims = {n}},
                              {.data = &how, .size = sizeof how, .rank = 1, .dims = {1}}};
    pm_tensor_arg output = {.data = out, .size = (size_t)n * sizeof *out};
    return pm_session_run(session, 0, inputs, 2, &output, 1);
}
