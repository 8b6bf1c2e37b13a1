/// The whole way of a call with a device, on the device that the CPU plays.
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/device_model.h"

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

static const pm_rt_kernel kernels[KERNELS] = {
    [KERNEL_DOUBLE] = {.name = "double", .threads = 1, .emu = twice},
    [KERNEL_ADD] = {.name = "add", .threads = 1, .emu = add},
    [KERNEL_FAULT] = {.name = "fault", .threads = 1, .emu = fault},
};

#define DEVICE(n, k) \
    {.ops = &pm_rt_emu_ops, .name = n, .kernels = k, .n_kernels = KERNELS, .uploads = device_model_uploads, \
     .n_uploads = 2, .weight_bytes = sizeof device_model_weights}
static const pm_rt_device devices[] = {DEVICE("emu0", kernels), DEVICE("emu1", kernels)};

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

START_TEST(calls_and_states)
{
    static float out[DEVICE_MODEL_N];
    pm_rt_model code = device_model_code(devices, 2);
    pm_model model = device_model(&code);
    pm_session *session = session_of(&model, 2);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(device_model_call(session, 3, 1, 0, out), PM_OK);
        for (int64_t i = 0; i < 3; i++)
            ck_assert_float_eq(out[i], expected(i, 1, 0));
        ck_assert_int_eq(device_model_call(session, DEVICE_MODEL_N, 5, 3, out), PM_OK);
        for (int64_t i = 0; i < DEVICE_MODEL_N; i++)
            ck_assert_float_eq(out[i], expected(i, 5, i < 3 ? (float)i + 1 : 0));
        pm_session_reset(session);
    }
    ck_assert_int_eq(device_model_call(session, 0, 5, 0, out), PM_OK);
    pm_session_destroy(session);
    model.code->devices->ops->sessions->close_model(&model);
}
END_TEST

START_TEST(faults_are_told)
{
    static float out[DEVICE_MODEL_N];
    pm_rt_model code = device_model_code(devices, 2);
    pm_model model = device_model(&code);
    pm_session *session = session_of(&model, 3);
    for (int round = 0; round < 3; round++) {
        ck_assert_int_eq(device_model_call(session, 4, 1, 1, out), PM_ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(pm_last_error(), "at layers.1"));
        ck_assert_int_eq(device_model_call(session, 4, 1, 4, out), PM_ERR_INTERNAL);
        ck_assert_ptr_nonnull(strstr(pm_last_error(), "emu0: a download"));
        ck_assert_ptr_nonnull(strstr(pm_last_error(), "at copy out"));
        pm_session_reset(session);
        ck_assert_int_eq(device_model_call(session, 4, 1, 0, out), PM_OK);
        ck_assert_float_eq(out[2], expected(2, 1, 0));
        pm_session_reset(session);
    }
    pm_session_destroy(session);
    model.code->devices->ops->sessions->close_model(&model);
}
END_TEST

START_TEST(forgotten_transfers_end)
{
    static float out[DEVICE_MODEL_N];
    pm_rt_model code = device_model_code(devices, 1);
    pm_model model = device_model(&code);
    pm_session *session = session_of(&model, 1);
    pm_status status = device_model_call(session, 4, 1, 2, out); // ends here
    ck_abort_msg("still alive, status %d", status);
}
END_TEST

START_TEST(what_cannot_be_opened)
{
    static const pm_rt_device far[] = {DEVICE("emu9000", kernels)};
    static const pm_rt_kernel silent[KERNELS] = {{.name = "double", .threads = 1}, {.name = "add"}, {.name = "fault"}};
    static const pm_rt_device mute[] = {DEVICE("emu", silent)};
    static float out[4];
    pm_rt_model code = device_model_code(far, 1);
    pm_model model = device_model(&code);
    pm_session *session = NULL;
    ck_assert_int_eq(pm_session_create(&model, NULL, &session), PM_ERR_UNSUPPORTED);
    ck_assert_ptr_null(session);
    code = device_model_code(mute, 1);
    session = session_of(&model, 1);
    ck_assert_int_eq(device_model_call(session, 4, 1, 0, out), PM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(pm_last_error(), "kernel double has no code"));
    pm_session_destroy(session);
    code.devices->ops->sessions->close_model(&model);
    pm_rt_upload outside = {.payload_offset = 8, .size = sizeof device_model_weights};
    pm_rt_device damaged = devices[0];
    damaged.uploads = &outside;
    damaged.n_uploads = 1;
    code = device_model_code(&damaged, 1);
    ck_assert_int_eq(pm_session_create(&model, NULL, &session), PM_ERR_INVALID);
}
END_TEST

static void *work(void *arg)
{
    pm_session *session = session_of(arg, 2);
    float out[16];
    const char *fault = NULL;
    for (int i = 0; i < 50; i++) {
        if (device_model_call(session, 16, (float)i, i % 2 ? 3 : 0, out) != PM_OK || out[5] != expected(5, (float)i, 0))
            fault = "another result";
        pm_session_reset(session);
    }
    pm_session_destroy(session);
    return (void *)fault;
}

START_TEST(sessions_side_by_side)
{
    pm_rt_model code = device_model_code(devices, 2);
    pm_model model = device_model(&code);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &model), 0);
    for (int i = 0; i < 3; i++) {
        void *fault;
        pthread_join(threads[i], &fault);
        ck_assert_ptr_null(fault);
    }
    code.devices->ops->sessions->close_model(&model);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("emu_device");
    TCase *c = tcase_create("emu_device");
    tcase_add_test(c, calls_and_states);
    tcase_add_test(c, faults_are_told);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // they end the process their own way
    tcase_add_test_raise_signal(c, forgotten_transfers_end, SIGSEGV);
#else
    (void)forgotten_transfers_end;
#endif
    tcase_add_test(c, what_cannot_be_opened);
    tcase_add_test(c, sessions_side_by_side);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
