/// Workers meet at barriers, and part only together.
#include <check.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/rt_internal.h"

enum { WORKERS = 2, EPOCHS = 6 };

/// What the entry does, as generated code would: in `fails_at`, worker `who` finds a fault.
static int fails_at, who;
static bool slow_reader;
static int passed[WORKERS];

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void entry(pm_rt_call *call, int64_t worker, int64_t n_workers)
{
    (void)n_workers;
    passed[worker] = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        if (epoch == fails_at && worker == who)
            pm_rt_fail(call, 40 + epoch);
        pm_rt_barrier(call, worker);
        if (slow_reader && worker != who)
            nap(); // the other one is far into the next epoch by now
        if (call->error)
            return;
        passed[worker]++;
    }
}

START_TEST(faults_end_all_workers_alike)
{
    for (int workers = 1; workers <= WORKERS; workers++) {
        pm_rt_pool *pool = pm_pool_create(workers);
        ck_assert_ptr_nonnull(pool);
        for (int slow = 0; slow < 2; slow++)
            for (int at = 0; at <= EPOCHS; at++) // EPOCHS: none
                for (int worker = 0; worker < workers; worker++) {
                    pm_rt_call call = {0};
                    fails_at = at;
                    who = worker;
                    slow_reader = slow;
                    pm_pool_run(pool, entry, &call);
                    ck_assert_int_eq(call.error, at < EPOCHS ? 41 + at : 0);
                    ck_assert_int_eq(call.error_kind, at < EPOCHS ? PM_RT_ERR_DATA : PM_RT_ERR_NONE);
                    for (int i = 0; i < workers; i++)
                        ck_assert_int_eq(passed[i], at);
                }
        pm_pool_destroy(pool);
    }
}
END_TEST

static _Atomic int sum;

static void count(pm_rt_call *call, int64_t worker, int64_t n_workers)
{
    for (int i = 0; i < 1000; i++) {
        sum++;
        pm_rt_barrier(call, worker);
        if (sum < (int)n_workers * (i + 1) || sum > (int)n_workers * (i + 2))
            abort();
    }
}

START_TEST(barriers_hold)
{
    for (int workers = 1; workers <= 4; workers++) {
        pm_rt_pool *pool = pm_pool_create(workers);
        pm_rt_call call = {0};
        ck_assert_ptr_nonnull(pool);
        ck_assert_int_eq(pm_pool_size(pool), workers);
        sum = 0;
        pm_pool_run(pool, count, &call);
        ck_assert_int_eq(sum, 1000 * workers);
        pm_pool_destroy(pool);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tests = tcase_create("pool");
    tcase_add_test(tests, faults_end_all_workers_alike);
    tcase_add_test(tests, barriers_hold);
    tcase_set_timeout(tests, 20);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
