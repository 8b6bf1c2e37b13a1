/// Workers: every one runs the whole entry; they meet at barriers.
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
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
    cpu_set_t cores;         ///< those that the process may use
    _Atomic int caller_core; ///< where the caller of the current call runs
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
/// Returns whether it slept.
static bool wait_change(_Atomic uint32_t *at, uint32_t value, _Atomic uint32_t *sleepers, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(at, memory_order_acquire) != value)
            return false;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(at) == value)
        futex_wait(at, value);
    atomic_fetch_sub(sleepers, 1);
    return true;
}

/// The `n`-th core after `core` among those of the set.
static int core_after(const cpu_set_t *cores, int core, int n)
{
    for (int steps = 0; n > 0 && steps < CPU_SETSIZE * 2; steps++) {
        core = (core + 1) % CPU_SETSIZE;
        n -= CPU_ISSET(core, cores) != 0;
    }
    return core;
}

/// Moves a worker off the caller's core. Schedulers wake threads where their waker runs, and some pack
/// them there: two workers that spin on one core then wait a whole time slice at every barrier. It is
/// a move, not a binding: afterwards the scheduler is free again.
static void spread(const pm_rt_pool *pool, int worker)
{
    int core = atomic_load_explicit(&pool->caller_core, memory_order_relaxed);
    if (pool->crowded || core < 0 || sched_getcpu() != core)
        return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core_after(&pool->cores, core, worker), &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0)
        sched_setaffinity(0, sizeof pool->cores, &pool->cores);
}

/// What was found becomes what all see. Done by the last to arrive, while nobody runs: a worker that is quick and finds a
/// fault behind the barrier must not change what a slow one still has to read there, or the two would part.
static void publish_error(pm_rt_call *call)
{
    int32_t found = __atomic_load_n(&call->found, __ATOMIC_RELAXED);
    if (found && !call->error) {
        call->error = found;
        call->error_kind = call->found_kind;
    }
}

static void meet(pm_rt_pool *pool, int worker)
{
    if (pool->n == 1) {
        publish_error(pool->call);
        return;
    }
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == (uint32_t)pool->n) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        publish_error(pool->call);
        atomic_fetch_add(&pool->phase, 1);
        if (atomic_load(&pool->waiting))
            futex_wake_all(&pool->phase);
    } else if (wait_change(&pool->phase, phase, &pool->waiting,
                           pool->crowded ? 0 : SPINS_AT_BARRIER) && worker != 0) {
        spread(pool, worker);
    }
}

void pm_rt_barrier(pm_rt_call *call, int64_t worker)
{
    meet(call->pool, (int)worker);
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
        spread(s.pool, s.worker);
        s.pool->entry(s.pool->call, s.worker, s.pool->n);
        meet(s.pool, s.worker);
    }
}

pm_rt_pool *pm_pool_create(int n)
{
    pm_rt_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool)
        return NULL;
    *pool = (pm_rt_pool){.n = 1};
    if (sched_getaffinity(0, sizeof pool->cores, &pool->cores) == 0)
        pool->crowded = n > CPU_COUNT(&pool->cores);
    atomic_store(&pool->caller_core, sched_getcpu());
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
        atomic_store_explicit(&pool->caller_core, sched_getcpu(), memory_order_relaxed);
        atomic_fetch_add(&pool->round, 1);
        if (atomic_load(&pool->sleeping))
            futex_wake_all(&pool->round);
    }
    entry(call, 0, pool->n);
    meet(pool, 0);
}
