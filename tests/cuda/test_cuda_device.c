/// The cuda device on a stand-in for the driver (fake_libcuda.c): results, the protocol, and what happens when any one call
/// of the driver fails. With the argument `none`: on a machine without a driver.
#include <check.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/fake_libcuda.h"
#include "runtime/device/cuda_api.h"
#include "tests/unit/device_model.h"

static fake_cuda *fake;

static void twice(const uint64_t *words)
{
    float *out = (float *)words[0];
    for (uint64_t i = 0; i < words[2]; i++)
        out[i] = 2 * ((const float *)words[1])[i];
}

static void add(const uint64_t *words)
{
    float *out = (float *)words[0];
    for (uint64_t i = 0; i < words[2]; i++)
        out[i] += ((const float *)words[1])[i];
}

static void fault(const uint64_t *words)
{
    *(int32_t *)words[0] = (int32_t)words[1];
}

__attribute__((visibility("default"))) const fake_kernel pm_fake_kernels[] = {
    {"double", twice, 3}, {"add", add, 3}, {"fault", fault, 2}, {NULL, NULL, 0}};

static const pm_rt_kernel kernels[KERNELS] = {
    [KERNEL_DOUBLE] = {.name = "double", .code = 1, .threads = 128, .shared_bytes = 100 << 10},
    [KERNEL_ADD] = {.name = "add", .code = 0, .threads = 256},
    [KERNEL_FAULT] = {.name = "fault", .code = 0, .threads = 32},
};

static const pm_rt_code codes[] = {
    {.number = 0, .arch = "sm_80", .ptx = (const uint8_t *)"ptx", .ptx_size = 3},
    {.number = 1, .arch = "sm_90a", .ptx = (const uint8_t *)"ptx", .cubin = (const uint8_t *)"\177ELF", .cubin_size = 4},
    {.number = 1, .arch = "sm_80", .ptx = (const uint8_t *)"ptx", .ptx_size = 3},
    {.number = 0, .arch = "sm_100a", .ptx = (const uint8_t *)"bad", .ptx_size = 3},
};

#define DEVICE(n) \
    {.ops = &pm_rt_cuda_ops, .name = n, .kernels = kernels, .n_kernels = KERNELS, .codes = codes, .n_codes = 4, \
     .uploads = device_model_uploads, .n_uploads = 2, .weight_bytes = sizeof device_model_weights}
static const pm_rt_device devices[] = {DEVICE("cuda0"), DEVICE("cuda1")};

static void setup(void)
{
    *fake = (fake_cuda){.devices = 2, .major = 9, .pools = 1, .fail_with = 999};
    unsetenv("PIMOE_GRAPHS");
}

static void close_model(pm_model *model)
{
    if (model->devices)
        model->code->devices->ops->sessions->close_model(model);
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    cu_result (*current)(cu_context *);
    *(void **)&current = dlsym(library, "cuCtxGetCurrent");
    cu_context context = NULL;
    if (current(&context) == 0)
        ck_assert_ptr_null(context); // the thread is as it was
    ck_assert_int_eq(fake->live, 0);
}

static pm_session *session_of(pm_model *model, int threads)
{
    pm_session *session;
    const pm_session_options options = {.struct_size = sizeof options, .threads = threads};
    ck_assert_int_eq(pm_session_create(model, &options, &session), PM_OK);
    return session;
}

static float expected(int64_t i, float base, float earlier)
{
    return 2 * ((float)i + base) + device_model_weights[i] + earlier + (i == 0 ? 1000 : 0);
}

/// A few calls of several sizes, also by way of the second device.
static pm_status some_calls(pm_model *model, int threads, int rounds, bool *out_right)
{
    static _Thread_local float out[DEVICE_MODEL_N];
    pm_session *session;
    const pm_session_options options = {.struct_size = sizeof options, .threads = threads};
    *out_right = true;
    PM_TRY(pm_session_create(model, &options, &session));
    pm_status status = PM_OK;
    for (int round = 0; round < rounds && status == PM_OK; round++) {
        status = device_model_call(session, 3, 1, 0, out);
        for (int64_t i = 0; i < 3 && status == PM_OK; i++)
            *out_right = *out_right && out[i] == expected(i, 1, 0);
        if (status == PM_OK)
            status = device_model_call(session, DEVICE_MODEL_N - round, 5, 3, out);
        for (int64_t i = 0; i < DEVICE_MODEL_N - round && status == PM_OK; i++)
            *out_right = *out_right && out[i] == expected(i, 5, i < 3 ? (float)i + 1 : 0);
        pm_session_reset(session);
    }
    pm_session_destroy(session);
    return status;
}

START_TEST(calls_and_graphs)
{
    pm_rt_model code = device_model_code(devices, 2);
    pm_model model = device_model(&code);
    if (_i == 1)
        setenv("PIMOE_GRAPHS", "0", 1);
    fake->pools = _i != 2;
    fake->eager = _i == 3;
    bool right;
    ck_assert_int_eq(some_calls(&model, 2, 4, &right), PM_OK);
    ck_assert(right);
    if (_i == 1) {
        ck_assert_int_eq(fake->graph_launches, 0);
        ck_assert_int_eq(fake->launches, 8 * 4);
    } else {
        ck_assert_int_eq(fake->graph_launches, 7); // all calls but the first
        ck_assert_int_eq(fake->launches, 4);
        ck_assert_int_gt(fake->graph_updates, 0);
    }
    ck_assert_int_eq(fake->modules_of_cubin, 2); // one on each device
    ck_assert_int_eq(fake->modules_of_ptx, 2);
    close_model(&model);
}
END_TEST

START_TEST(any_call_fails)
{
    pm_rt_model code = device_model_code(devices, 2);
    long n = 1, seen = 0;
    for (;; n++) {
        setup();
        fake->fail_at = n;
        fake->open = 1;
        fake->fail_with = n % 3 == 0 ? PM_CU_OUT_OF_MEMORY : 999;
        pm_model model = device_model(&code);
        bool right;
        pm_status status = some_calls(&model, 1, 2, &right);
        if (status == PM_OK) {
            ck_assert_msg(right, "another result when call %ld fails", n);
        } else {
            ck_assert_msg(status == (n % 3 == 0 ? PM_ERR_NO_MEMORY : PM_ERR_INTERNAL), "status %d at call %ld: %s", status, n,
                          pm_last_error());
            ck_assert_msg(strstr(pm_last_error(), "cuda") || strstr(pm_last_error(), "NVIDIA"), "%s", pm_last_error());
            seen++;
        }
        bool over = fake->calls < n;
        close_model(&model);
        if (over)
            break;
        // the same model again, on a driver that works
        fake->fail_at = 0;
        model = device_model(&code);
        if (n % 16 == 0) {
            ck_assert_int_eq(some_calls(&model, 1, 2, &right), PM_OK);
            ck_assert(right);
            close_model(&model);
        }
    }
    ck_assert_int_gt(n, 100);
    ck_assert_int_gt(seen, 80);
}
END_TEST

START_TEST(faults_are_told)
{
    static float out[DEVICE_MODEL_N];
    pm_rt_model code = device_model_code(devices, 1);
    pm_model model = device_model(&code);
    pm_session *session = session_of(&model, 2);
    for (int round = 0; round < 3; round++) {
        ck_assert_int_eq(device_model_call(session, 4, 1, 1, out), PM_ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(pm_last_error(), "at layers.1"));
        pm_session_reset(session);
        ck_assert_int_eq(device_model_call(session, 4, 1, 0, out), PM_OK);
        ck_assert_float_eq(out[2], expected(2, 1, 0));
        pm_session_reset(session);
    }
    fake->fail_at = fake->calls + 1; // the first upload, or what comes before it
    ck_assert_int_eq(device_model_call(session, 4, 1, 0, out), PM_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(pm_last_error(), "cuda0: an upload: injected (CUDA error 999), at copy in"));
    pm_session_destroy(session);
    close_model(&model);
}
END_TEST

/// {number of GPUs, major, minor, what the text says}
static const struct {
    int devices, major, minor;
    pm_status status;
    const char *text;
} machines[] = {
    {1, 9, 0, PM_ERR_UNSUPPORTED, "cuda1: this machine has 1 GPU ("},
    {2, 7, 5, PM_ERR_UNSUPPORTED, "cuda0: this GPU is an sm_75, the model has code for sm_90a, sm_80"},
    {2, 10, 0, PM_ERR_INTERNAL, "cuda0: code for sm_100a: line 1: syntax: "},
    {2, 12, 0, PM_OK, ""},
    {2, 8, 9, PM_OK, ""},
};

START_TEST(machines_that_suit_or_not)
{
    pm_rt_model code = device_model_code(devices, 2);
    pm_model model = device_model(&code);
    fake->devices = machines[_i].devices;
    fake->major = machines[_i].major;
    fake->minor = machines[_i].minor;
    bool right;
    ck_assert_int_eq(some_calls(&model, 1, 2, &right), machines[_i].status);
    if (machines[_i].status != PM_OK)
        ck_assert_ptr_nonnull(strstr(pm_last_error(), machines[_i].text));
    close_model(&model);
}
END_TEST

START_TEST(no_gpu)
{
    pm_rt_model code = device_model_code(devices, 1);
    pm_model model = device_model(&code);
    pm_session *session;
    fake->devices = 0;
    ck_assert_int_eq(pm_session_create(&model, NULL, &session), PM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(pm_last_error(), "no CUDA-capable device"));
    ck_assert_int_eq(fake->live, 0);
}
END_TEST

START_TEST(a_cubin_for_the_very_chip)
{
    static const pm_rt_code exact[] = {
        {.number = 0, .arch = "sm_80", .ptx = (const uint8_t *)"ptx", .ptx_size = 3},
        {.number = 1, .arch = "sm_90", .ptx = (const uint8_t *)"ptx", .cubin = (const uint8_t *)"\177ELF", .cubin_size = 4}};
    pm_rt_device device = devices[0];
    device.codes = exact;
    device.n_codes = 2;
    pm_rt_model code = device_model_code(&device, 1);
    pm_model model = device_model(&code);
    pm_session_destroy(session_of(&model, 1));
    ck_assert_int_eq(fake->modules_of_cubin, 1);
    ck_assert_int_eq(fake->modules_of_ptx, 1);
    close_model(&model);
}
END_TEST

/// On the chip that has wgmma sessions get maps of weights; elsewhere there are none, and what has no code isn't loaded.
START_TEST(maps_of_weights)
{
    static const pm_rt_kernel some[KERNELS] = {
        [KERNEL_DOUBLE] = {.name = "double", .code = 1, .threads = 128},
        [KERNEL_ADD] = {.name = "add", .code = 0, .threads = 256},
        [KERNEL_FAULT] = {.name = "fault", .code = 2, .threads = 384, .shared_bytes = 200 << 10,
                          .flags = PM_RT_KERNEL_WGMMA},
    };
    static const pm_rt_code of[] = {
        {.number = 0, .arch = "sm_80", .ptx = (const uint8_t *)"ptx", .ptx_size = 3},
        {.number = 1, .arch = "sm_80", .ptx = (const uint8_t *)"ptx", .ptx_size = 3},
        {.number = 2, .arch = "sm_90a", .ptx = (const uint8_t *)"ptx", .ptx_size = 3},
    };
    static const pm_rt_tensor_map maps[] = {{0, {8, 4, 1}, {16, 64}}, {64, {16, 2, 2}, {32, 64}}};
    static const struct {
        int major, minor, switched_off, has;
    } cases[] = {{9, 0, 0, 1}, {8, 0, 0, 0}, {10, 0, 0, 0}, {9, 0, 1, 0}};
    pm_rt_device device = devices[0];
    device.kernels = some;
    device.codes = of;
    device.n_codes = 3;
    device.maps = maps;
    device.n_maps = 2;
    pm_rt_model code = device_model_code(&device, 1);
    pm_model model = device_model(&code);
    fake->open = 1; // maps are looked at below
    fake->major = cases[_i].major;
    fake->minor = cases[_i].minor;
    setenv("PIMOE_WGMMA", cases[_i].switched_off ? "0" : "1", 1);
    pm_session *session = session_of(&model, 1);
    const pm_rt_device_call *c = &session->call.devices[0];
    ck_assert_int_eq(c->has_wgmma, cases[_i].has);
    ck_assert_int_eq(c->maps != NULL, cases[_i].has);
    ck_assert_int_eq(fake->modules_of_ptx, 2 + cases[_i].has);
    for (int i = 0; i < 2 && c->maps; i++) {
        const uint8_t *base;
        memcpy(&base, c->maps + i * PM_RT_TENSOR_MAP_BYTES, sizeof base);
        ck_assert_ptr_eq(base, c->weights + maps[i].device_offset);
    }
    pm_session_destroy(session);
    close_model(&model);
    unsetenv("PIMOE_WGMMA");
}
END_TEST

static pm_status download(pm_rt_device_state *d, void *to, const void *from, size_t bytes)
{
    PM_TRY(pm_rt_cuda_ops.fetch(d, to, from, bytes));
    return pm_rt_cuda_ops.arrive(d, to);
}

/// Sizes around those of the pinned pieces, and many small ones in a row: each is copied when its turn comes.
START_TEST(bytes_pass_unharmed)
{
    enum { MOST = (5 << 20) + 77 };
    const pm_rt_device_ops *ops = &pm_rt_cuda_ops;
    pm_rt_device_state *d;
    void *memory;
    ck_assert_int_eq(ops->open(&devices[1], 1, NULL, &d), PM_OK);
    ck_assert_int_eq(ops->alloc(d, MOST, &memory), PM_OK);
    uint8_t *from = malloc(MOST), *to = malloc(MOST);
    static const size_t sizes[] = {1, 63, 64, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, MOST};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        for (size_t i = 0; i < sizes[k]; i++)
            from[i] = (uint8_t)(i * 7 + k + (i >> 9));
        memset(to, 0, MOST);
        ck_assert_int_eq(ops->upload(d, memory, from, sizes[k]), PM_OK);
        memset(from, 99, sizes[k]); // it may be used again at once
        ck_assert_int_eq(download(d, to, memory, sizes[k]), PM_OK);
        size_t wrong = 0; // an assertion tells its place each time: too slow for every byte
        for (size_t i = 0; i < sizes[k]; i++)
            wrong += to[i] != (uint8_t)(i * 7 + k + (i >> 9));
        ck_assert_msg(wrong == 0, "%zu bytes of %zu", wrong, sizes[k]);
    }
    size_t wrong = 0;
    for (uint32_t i = 0; i < 100000; i++)
        wrong += ops->upload(d, (uint8_t *)memory + 4 * (size_t)i, &i, sizeof i) != PM_OK;
    ck_assert_int_eq(download(d, to, memory, 400000), PM_OK);
    for (uint32_t i = 0; i < 100000; i++)
        wrong += memcmp(to + 4 * (size_t)i, &i, sizeof i) != 0;
    ck_assert_uint_eq(wrong, 0);
    free(from);
    free(to);
    ops->release(d, memory);
    ops->close(d);
    ops->leave();
    ck_assert_int_eq(fake->live, 0);
}
END_TEST

static uint64_t word(const void *at)
{
    return (uint64_t)(uintptr_t)at;
}

static void launch_double(pm_rt_device_state *d, float *out, const float *in)
{
    ck_assert_int_eq(pm_rt_cuda_ops.launch(d, KERNEL_DOUBLE, 1, (uint64_t[]){word(out), word(in), 1}, 3), PM_OK);
}

/// What the host waits for comes without what was given behind it; what it brings doesn't wait for what it doesn't touch.
/// The driver does things as late as it may (0), or copies as soon (1).
START_TEST(copies_run_beside_launches)
{
    enum { N = 16 };
    const pm_rt_device_ops *ops = &pm_rt_cuda_ops;
    pm_rt_device_state *d;
    void *memory;
    float two = 2, five = 5, out = 0, other = 0;
    ck_assert_int_eq(ops->open(&devices[0], 0, NULL, &d), PM_OK);
    ck_assert_int_eq(ops->alloc(d, N * sizeof two, &memory), PM_OK);
    fake->eager = _i;
    float *m = memory;
    ck_assert_int_eq(ops->bring(d, m, &two, sizeof two), PM_OK);
    launch_double(d, m + 1, m);                                          // the rows of all tokens
    ck_assert_int_eq(ops->fetch(d, &out, m + 1, sizeof out), PM_OK);     // for experts on the host
    launch_double(d, m + 2, m + 1);                                      // the device's own experts
    launch_double(d, m + 3, m + 2);
    ck_assert_int_eq(ops->arrive(d, &out), PM_OK);
    ck_assert_float_eq(out, 4);
    ck_assert_str_eq(fake->order, "UKD"); // the host goes on while they run
    ck_assert_int_eq(ops->bring(d, m + 4, &five, sizeof five), PM_OK);
    ck_assert_str_eq(fake->order, _i ? "UKDU" : "UKD");
    five = 0;
    launch_double(d, m + 5, m + 4); // what comes later sees it
    ck_assert_int_eq(ops->fetch(d, &other, m + 5, sizeof other), PM_OK);
    ck_assert_int_eq(ops->fetch(d, &out, m + 3, sizeof out), PM_OK);
    ck_assert_int_eq(ops->arrive(d, &out), PM_OK);
    ck_assert_int_eq(ops->arrive(d, &other), PM_OK);
    ck_assert_float_eq(other, 10);
    ck_assert_float_eq(out, 16);
    ck_assert_str_eq(fake->order, _i ? "UKDUKKKDD" : "UKDKKUKDD");
    ck_assert_int_eq(ops->fetch(d, &out, m, sizeof out), PM_OK);
    out = 7;
    ck_assert_int_eq(ops->wait(d), PM_OK); // nobody waited for it
    ck_assert_int_eq(ops->arrive(d, &out), PM_OK);
    ck_assert_float_eq(out, 7);
    ops->release(d, memory);
    ops->close(d);
    ops->leave();
    ck_assert_int_eq(fake->live, 0);
}
END_TEST

/// More at a time than there are pieces for, small ones and such as don't fit into a piece, fetched in another order.
START_TEST(many_downloads_at_a_time)
{
    enum { MANY = 7, LARGE = (2 << 20) / 4 + 5 };
    const pm_rt_device_ops *ops = &pm_rt_cuda_ops;
    pm_rt_device_state *d;
    void *memory[MANY];
    static float from[LARGE], to[MANY][LARGE];
    ck_assert_int_eq(ops->open(&devices[0], 0, NULL, &d), PM_OK);
    for (int i = 0; i < MANY; i++) {
        size_t bytes = sizeof *from * (i % 2 ? LARGE : 9);
        for (size_t k = 0; k < bytes / sizeof *from; k++)
            from[k] = (float)(1000 * i) + (float)(k % 999);
        ck_assert_int_eq(ops->alloc(d, bytes, &memory[i]), PM_OK);
        ck_assert_int_eq(ops->bring(d, memory[i], from, bytes), PM_OK);
        ck_assert_int_eq(ops->fetch(d, to[i], memory[i], bytes), PM_OK);
    }
    for (int i = MANY; i-- > 0;) {
        size_t n = i % 2 ? LARGE : 9, wrong = 0;
        ck_assert_int_eq(ops->arrive(d, to[i]), PM_OK);
        for (size_t k = 0; k < n; k++)
            wrong += to[i][k] != (float)(1000 * i) + (float)(k % 999);
        ck_assert_msg(wrong == 0, "%zu wrong of download %d", wrong, i);
        ops->release(d, memory[i]);
    }
    ops->close(d);
    ops->leave();
    ck_assert_int_eq(fake->live, 0);
}
END_TEST

/// More launches in a row than a graph holds, and more sorts of rows than are kept.
START_TEST(rows_of_launches)
{
    const pm_rt_device_ops *ops = &pm_rt_cuda_ops;
    pm_rt_device_state *d;
    void *memory;
    float one[8] = {1, 1, 1, 1, 1, 1, 1, 1}, out[8];
    ck_assert_int_eq(ops->open(&devices[0], 0, NULL, &d), PM_OK);
    ck_assert_int_eq(ops->alloc(d, sizeof one, &memory), PM_OK);
    for (int round = 0; round < 300; round++) {
        int n = 1 + round % (round < 200 ? 150 : 40);
        ck_assert_int_eq(ops->upload(d, memory, one, sizeof one), PM_OK);
        for (int i = 0; i < n; i++) {
            uint64_t at = (uint64_t)(uintptr_t)memory, words[] = {at + 4 * (uint64_t)(i % 7 + 1), at, 1};
            ck_assert_int_eq(ops->launch(d, KERNEL_ADD, 1, words, 3), PM_OK);
        }
        ck_assert_int_eq(download(d, out, memory, sizeof out), PM_OK);
        for (int i = 0; i < 7; i++)
            ck_assert_float_eq(out[i + 1], (float)(1 + n / 7 + (i < n % 7)));
    }
    ck_assert_int_gt(fake->graph_launches, 100);
    ck_assert_int_eq(ops->launch(d, KERNELS, 1, (uint64_t[]){0}, 1), PM_ERR_INTERNAL);
    ops->release(d, memory);
    ops->close(d);
    ops->leave();
    ck_assert_int_eq(fake->live, 0);
}
END_TEST

/// Blocks that walk are no more than there are multiprocessors, of which the stand-in has 1000.
START_TEST(blocks_that_walk)
{
    static const pm_rt_kernel some[KERNELS] = {
        [KERNEL_DOUBLE] = {.name = "double", .code = 1, .threads = 128},
        [KERNEL_ADD] = {.name = "add", .code = 0, .threads = 256, .flags = PM_RT_KERNEL_WALKS},
        [KERNEL_FAULT] = {.name = "fault", .code = 1, .threads = 32},
    };
    pm_rt_device device = devices[0];
    device.kernels = some;
    pm_rt_device_state *d;
    void *memory;
    float one[2] = {1, 0}, out[2];
    ck_assert_int_eq(pm_rt_cuda_ops.open(&device, 0, NULL, &d), PM_OK);
    ck_assert_int_eq(pm_rt_cuda_ops.alloc(d, sizeof one, &memory), PM_OK);
    ck_assert_int_eq(pm_rt_cuda_ops.upload(d, memory, one, sizeof one), PM_OK);
    uint64_t at = (uint64_t)(uintptr_t)memory;
    ck_assert_int_eq(pm_rt_cuda_ops.launch(d, KERNEL_ADD, 900, (uint64_t[]){at + 4, at, 1}, 3), PM_OK);
    ck_assert_int_eq(pm_rt_cuda_ops.launch(d, KERNEL_ADD, 5000, (uint64_t[]){at + 4, at, 1}, 3), PM_OK);
    ck_assert_int_eq(download(d, out, memory, sizeof out), PM_OK);
    ck_assert_float_eq(out[1], 1900);
    pm_rt_cuda_ops.release(d, memory);
    pm_rt_cuda_ops.close(d);
    pm_rt_cuda_ops.leave();
}
END_TEST

static void *work(void *arg)
{
    bool right;
    pm_status status = some_calls(arg, 2, 4, &right);
    return status == PM_OK && right ? NULL : "another result";
}

START_TEST(sessions_side_by_side)
{
    pm_rt_model code = device_model_code(devices, 2);
    pm_model model = device_model(&code);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &model), 0);
    for (int i = 0; i < 3; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        ck_assert_ptr_null(wrong);
    }
    close_model(&model);
}
END_TEST

START_TEST(no_driver)
{
    pm_rt_model code = device_model_code(devices, 1);
    pm_model model = device_model(&code);
    pm_session *session;
    ck_assert_int_eq(pm_session_create(&model, NULL, &session), PM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(pm_last_error(), "there is no NVIDIA driver (libcuda.so.1:"));
}
END_TEST

int main(int argc, char **argv)
{
    bool none = argc > 1 && strcmp(argv[1], "none") == 0;
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    fake = library ? dlsym(library, "pm_fake_cuda") : NULL;
    if (none ? library != NULL : fake == NULL)
        return 77; // another driver is there
    Suite *s = suite_create("cuda_device");
    TCase *c = tcase_create("cuda_device");
    tcase_set_timeout(c, 60);
    if (none) {
        tcase_add_test(c, no_driver);
    } else {
        tcase_add_checked_fixture(c, setup, NULL);
        tcase_add_loop_test(c, calls_and_graphs, 0, 4);
        tcase_add_test(c, any_call_fails);
        tcase_add_test(c, faults_are_told);
        tcase_add_loop_test(c, machines_that_suit_or_not, 0, (int)(sizeof machines / sizeof machines[0]));
        tcase_add_test(c, no_gpu);
        tcase_add_test(c, a_cubin_for_the_very_chip);
        tcase_add_loop_test(c, maps_of_weights, 0, 4);
        tcase_add_test(c, bytes_pass_unharmed);
        tcase_add_loop_test(c, copies_run_beside_launches, 0, 2);
        tcase_add_test(c, many_downloads_at_a_time);
        tcase_add_test(c, rows_of_launches);
        tcase_add_test(c, blocks_that_walk);
        tcase_add_test(c, sessions_side_by_side);
    }
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
