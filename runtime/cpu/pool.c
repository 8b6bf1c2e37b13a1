/// Workers: every one runs the whole entry; they meet at barriers.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/rt_internal.h"

enum { SPINS_AT_BARRIER = 4000, SPINS_BETWEEN_CALLS = 2000 };

struct pm_rt_pool {
    int n;
    bool crowded; ///< more workers than cores: spinning would only take the others' time
    _Alignas(64) _Atomic uint32_t phase;  ///< of the barrier: counts rounds
    _Alignas(64) _Atomic uint32_t arrived;
    _Alignas(64) _Atomic uint32_t waiting; ///< sleepers at the barrier
    _Alignas(64) _Atomic uint32_t round;   ///< of calls
    _Atomic uint32_t sleeping;
    _Atomic bool stop;
    pm_rt_entry_fn *entry;
    pm_rt_call *call;
    pthread_t *threads;
};

typedef struct start {
    pm_rt_pool *pool;
    int worker;
} start;

static void futex_wait(_Atomic uint32_t *at, uint32_t value)
{
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *at)
{
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/// Waits until *at is no longer `value`: spins, then sleeps. `sleepers` counts who must be woken.
static void wait_change(_Atomic uint32_t *at, uint32_t value, _Atomic uint32_t *sleepers, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(at, memory_order_acquire) != value)
            return;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(at) == value)
        futex_wait(at, value);
    atomic_fetch_sub(sleepers, 1);
}

static void meet(pm_rt_pool *pool)
{
    if (pool->n == 1)
        return;
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == (uint32_t)pool->n) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_fetch_add(&pool->phase, 1);
        if (atomic_load(&pool->waiting))
            futex_wake_all(&pool->phase);
    } else {
        wait_change(&pool->phase, phase, &pool->waiting, pool->crowded ? 0 : SPINS_AT_BARRIER);
    }
}

void pm_rt_barrier(pm_rt_call *call, int64_t worker)
{
    (void)worker;
    meet(call->pool);
}

static void *work(void *arg)
{
    start s = *(start *)arg;
    free(arg);
    uint32_t round = 0;
    for (;;) {
        wait_change(&s.pool->round, round, &s.pool->sleeping, s.pool->crowded ? 0 : SPINS_BETWEEN_CALLS);
        round = atomic_load(&s.pool->round);
        if (atomic_load(&s.pool->stop))
            return NULL;
        s.pool->entry(s.pool->call, s.worker, s.pool->n);
        meet(s.pool);
    }
}

pm_rt_pool *pm_pool_create(int n)
{
    pm_rt_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool)
        return NULL;
    *pool = (pm_rt_pool){.n = 1};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pool->crowded = n > cores;
    pool->threads = calloc((size_t)n, sizeof *pool->threads);
    for (int i = 1; pool->threads && i < n; i++) {
        start *s = malloc(sizeof *s);
        if (!s)
            break;
        *s = (start){pool, i};
        if (pthread_create(&pool->threads[i], NULL, work, s) != 0) {
            free(s);
            break;
        }
        pool->n = i + 1;
    }
    if (!pool->threads || pool->n < n) {
        pm_pool_destroy(pool);
        return NULL;
    }
    return pool;
}

void pm_pool_destroy(pm_rt_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->round, 1);
    futex_wake_all(&pool->round);
    for (int i = 1; i < pool->n; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    free(pool);
}

int pm_pool_size(const pm_rt_pool *pool)
{
    return pool->n;
}

void pm_pool_run(pm_rt_pool *pool, pm_rt_entry_fn *entry, pm_rt_call *call)
{
    pool->entry = entry;
    pool->call = call;
    call->pool = pool;
    if (pool->n > 1) {
        atomic_fetch_add(&pool->round, 1);
        if (atomic_load(&pool->sleeping))
            futex_wake_all(&pool->round);
    }
    entry(call, 0, pool->n);
    meet(pool);
}
