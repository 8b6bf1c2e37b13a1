/* Benchmark of the kernel templates against what this machine can do at all: multiply-adds from registers, and
 * reading memory. Everything runs in rounds, the peaks among the rest, and the best of all rounds counts: so that a
 * neighbour's load hits all alike.
 *
 *   bench_kernels [threads [rounds [substring of a name]]]
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "codegen/kernels/k_attention.c"
#include "codegen/kernels/k_sdpa.c"
#include "codegen/kernels/k_cache.c"
#include "codegen/kernels/k_linear.c"
#include "codegen/kernels/k_lowbit.c"
#include "codegen/kernels/k_math.c"
#include "codegen/kernels/k_matmul.c"
#include "codegen/kernels/k_recurrent.c"
#include "codegen/kernels/k_rope.c"
#include "codegen/kernels/k_route.c"

enum { MAX_THREADS = 64, POOL_MB = 768 };

/// Memory for weights: large enough that a case which walks through it never finds them in a cache.
static uint8_t *pool;
static float *activations, *result;
static float *scratch[MAX_THREADS];
static volatile float sink;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- peaks -------------------------------------------------------------------------------------- */

static void peak_fma(int64_t worker, int64_t n_workers, int64_t run)
{
    (void)worker, (void)n_workers, (void)run;
    pm_vf c[12], a = pm_v_splat(1.0000001f), b = pm_v_splat(1e-9f);
    PM_UNROLL for (int i = 0; i < 12; i++)
        c[i] = pm_v_splat((float)i);
    for (int64_t n = 0; n < 100000; n++) {
        PM_UNROLL for (int i = 0; i < 12; i++)
        {
            c[i] = pm_v_fma(a, c[i], b);
            __asm__ volatile("" : "+v"(c[i]));
        }
    }
    PM_UNROLL for (int i = 1; i < 12; i++)
        c[0] = c[0] + c[i];
    sink = c[0][0];
}

/// The best that products of bf16 can do here: without vdpbf16ps two multiply-adds for each pair.
static void peak_dot(int64_t worker, int64_t n_workers, int64_t run)
{
    (void)worker, (void)n_workers, (void)run;
    pm_vf c[12];
    pm_vu a = (pm_vu){0} + 0x3f803f80u;
    pm_tile_in in = {0};
    const uint16_t one[2] = {0x3f80, 0x3f80};
    PM_UNROLL for (int i = 0; i < 12; i++)
        c[i] = pm_v_splat((float)i);
    for (int64_t n = 0; n < 100000; n++) {
        PM_UNROLL for (int i = 0; i < 12; i++)
        {
            pm_dot_step(1, 1, 1, &in, one, (const uint16_t *)&a, false, &c[i]);
            __asm__ volatile("" : "+v"(c[i]));
        }
    }
    PM_UNROLL for (int i = 1; i < 12; i++)
        c[0] = c[0] + c[i];
    sink = c[0][0];
}

enum { READ_MB = 64 };

/// Reads this worker's part, fetching `ahead` bytes ahead when that is not 0.
static inline __attribute__((always_inline)) void read_part(int64_t worker, int64_t n_workers,
                                                            int64_t run, int64_t ahead)
{
    int64_t size = (int64_t)READ_MB << 20, part = size / n_workers;
    const char *p = (const char *)pool + run * size % ((int64_t)POOL_MB << 20) + worker * part;
    pm_vf s[16];
    PM_UNROLL for (int j = 0; j < 16; j++)
        s[j] = pm_v_splat(0.0f);
    for (int64_t i = 0; i < part; i += 64 * PM_VW) {
        PM_UNROLL for (int j = 0; j < PM_VW; j++)
            if (ahead > 0)
                __builtin_prefetch(p + i + j * 64 + ahead);
        PM_UNROLL for (int j = 0; j < 16; j++)
            s[j] = s[j] + pm_v_load((const float *)(p + i) + j * PM_VW);
    }
    PM_UNROLL for (int j = 1; j < 16; j++)
        s[0] = s[0] + s[j];
    sink = s[0][0];
}

static void peak_read(int64_t worker, int64_t n_workers, int64_t run)
{
    if (run % 2)
        read_part(worker, n_workers, run, 0);
    else
        read_part(worker, n_workers, run, 2048);
}

/* ---- products ------------------------------------------------------------------------------------ */

typedef struct store {
    float *c;
    int64_t n, panel;
} store;

/// What an epilogue costs at least: the tile goes to memory.
static inline __attribute__((always_inline)) void store_tile(const float *tile, int64_t ld,
                                                             int64_t row0, int64_t rows,
                                                             int64_t panel_index, void *ctx)
{
    const store *s = ctx;
    float *to = s->c + row0 * s->n + panel_index * s->panel;
    PM_NO_UNROLL for (int64_t r = 0; r < rows; r++)
    {
        PM_UNROLL for (int64_t j = 0; j < s->panel; j += PM_VW)
            pm_v_store(to + r * s->n + j, pm_v_load(tile + r * ld + j));
    }
}

static inline __attribute__((always_inline)) void store_expert(const float *tile, int64_t ld,
                                                               int64_t row0, int64_t rows,
                                                               int64_t panel_index,
                                                               int64_t expert, void *ctx)
{
    (void)expert;
    store_tile(tile, ld, row0, rows, panel_index, ctx);
}

/// Weights of run number `run`: always other ones when `walk`, else the same.
static inline const uint8_t *weights_of(int64_t run, int64_t bytes, int walk)
{
    int64_t places = ((int64_t)POOL_MB << 20) / bytes;
    return pool + (walk ? run % places * bytes : 0);
}

/* Of each kind of product: what activations and weights are. */
typedef float a_f32, w_f32, a_b16;
typedef uint16_t w_b16, a_dot, w_dot;
#if PM_VW == 16
#define PANEL_WIDE 64
#define PANEL_NARROW 16
#define K_WIDE(kind, how) pm_k_##how##_##kind##_p64
#define K_NARROW(kind, how) pm_k_##how##_##kind##_p16
#else
#define PANEL_WIDE 32
#define PANEL_NARROW 8
#define K_WIDE(kind, how) pm_k_##how##_##kind##_p32
#define K_NARROW(kind, how) pm_k_##how##_##kind##_p8
#endif

enum { EXPERTS = 16 };
/// Rows of each expert, as offsets.
static int32_t offsets_each64[EXPERTS + 1], offsets_each16[EXPERTS + 1], offsets_two[EXPERTS + 1],
    offsets_ragged[EXPERTS + 1];
enum { ROWS_each64 = 64 * EXPERTS, ROWS_each16 = 16 * EXPERTS, ROWS_two = 2, ROWS_ragged = 1024 };

/* ---- the cases, as functions ----------------------------------------------------------------------- */

#define LINEAR(kind, panel, m, n, k, walk)                                                         \
    static void linear_##kind##_##panel##_##m##_##n##_##k(int64_t worker, int64_t n_workers,       \
                                                          int64_t run)                             \
    {                                                                                              \
        store s = {result, n, PANEL_##panel};                                                      \
        const void *w = weights_of(run, (int64_t)(n) * (k) * (int64_t)sizeof(w_##kind), walk);     \
        int64_t rows = m;                                                                          \
        __asm__ volatile("" : "+r"(rows)); /* row counts are not constant in a model */            \
        K_##panel(kind, linear)((const a_##kind *)activations, (const w_##kind *)w, rows, n, k,    \
                                store_tile, &s, worker, n_workers);                                \
    }

#define GROUPED(kind, panel, which, n, k, walk)                                                    \
    static void grouped_##kind##_##panel##_##which##_##n##_##k(int64_t worker, int64_t n_workers,  \
                                                               int64_t run)                        \
    {                                                                                              \
        store s = {result, n, PANEL_##panel};                                                      \
        const void *w =                                                                            \
            weights_of(run, EXPERTS * (int64_t)(n) * (k) * (int64_t)sizeof(w_##kind), walk);       \
        K_##panel(kind, grouped)((const a_##kind *)activations, (const w_##kind *)w,               \
                                 (int64_t)(n) * (k), offsets_##which, EXPERTS, n, k, store_expert, \
                                 &s, worker, n_workers);                                           \
    }

#define LOWBIT_BYTES(bits, n, k, block, scale, zero)                                               \
    ((int64_t)(n) * (k) * (bits) / 8 +                                                             \
     (int64_t)(n) * ((k) / (block)) * (((scale) == 0 ? 4 : (scale) == 3 ? 1 : 2) + (zero)))

#define LOWBIT(kind, bits, m, n, k, block, scale, zero)                                            \
    static void lowbit_##kind##_##zero##_##m##_##n##_##k(int64_t worker, int64_t n_workers,        \
                                                         int64_t run)                              \
    {                                                                                              \
        store s = {result, n, PANEL_WIDE};                                                         \
        const uint8_t *w = weights_of(run, LOWBIT_BYTES(bits, n, k, block, scale, zero), 1);       \
        int64_t rows = m;                                                                          \
        __asm__ volatile("" : "+r"(rows));                                                         \
        K_WIDE(kind, linear)(activations, w, rows, n, k, store_tile, &s, worker, n_workers, block, \
                             scale, zero);                                                         \
    }

#define GROUPED_LOWBIT(kind, bits, which, n, k, block, scale, zero)                                \
    static void lowbit_##kind##_##zero##_##which##_##n##_##k(int64_t worker, int64_t n_workers,    \
                                                             int64_t run)                          \
    {                                                                                              \
        store s = {result, n, PANEL_WIDE};                                                         \
        int64_t bytes = LOWBIT_BYTES(bits, n, k, block, scale, zero);                              \
        const uint8_t *w = weights_of(run, EXPERTS * bytes, 1);                                    \
        K_WIDE(kind, grouped)(activations, w, bytes, offsets_##which, EXPERTS, n, k, store_expert, \
                              &s, worker, n_workers, block, scale, zero);                          \
    }

#define ATTENTION(t, past, heads, kv, hd, capacity)                                                \
    static void attention_##t##_##past##_##heads##_##kv##_##hd(int64_t worker, int64_t n_workers,  \
                                                               int64_t run)                        \
    {                                                                                              \
        (void)run;                                                                                 \
        static const int64_t before[1] = {past};                                                   \
        int64_t tokens = t;                                                                        \
        __asm__ volatile("" : "+r"(tokens));                                                       \
        const float *cache = (const float *)pool;                                                  \
        pm_k_attention(activations, cache, cache + (int64_t)(kv) * (capacity) * (hd), before,      \
                       NULL, result, 1, tokens, heads, kv, hd, hd, capacity, 0.125f, 0, 0, 0.0f,   \
                       NULL, 0, 1, (uint8_t *)scratch[worker], worker, n_workers);                 \
    }

/* The same over plain tensors of keys and values [heads][tokens][size]. */
#define SDPA(t, past, heads, kv, hd)                                                               \
    static void sdpa_##t##_##past##_##heads##_##kv##_##hd(int64_t worker, int64_t n_workers,      \
                                                           int64_t run)                            \
    {                                                                                              \
        (void)run;                                                                                 \
        static const int64_t before[1] = {past};                                                   \
        int64_t tokens = t;                                                                        \
        __asm__ volatile("" : "+r"(tokens));                                                       \
        const float *keys = (const float *)pool;                                                   \
        int64_t n = (past) + (t);                                                                  \
        pm_k_sdpa(activations, keys, keys + (int64_t)(kv) * ((past) + (t)) * (hd), NULL, before,   \
                  NULL, NULL, result, 1, tokens, n, heads, kv, hd, hd, 6, 0, 0, 0, 0, 0, 0, 0,     \
                  0.125f, -1, 0, 0.0f, 0.0f, (uint8_t *)scratch[worker], worker, n_workers);       \
    }

#define MATMUL(m, n, k, trans_b)                                                                   \
    static void matmul_##m##_##n##_##k##_##trans_b(int64_t worker, int64_t n_workers, int64_t run) \
    {                                                                                              \
        (void)run;                                                                                 \
        pm_k_matmul_f32(activations, (const float *)pool, result, 4, m, n, k, (m) * (k),           \
                        (n) * (k), 0, trans_b, (uint8_t *)scratch[worker], worker, n_workers);     \
    }

/* States as if of very many layers: other ones in each run when there is but one token. */
#define DELTA(t, heads, k_heads, dk, dv)                                                           \
    static void delta_##t##_##heads##_##dk##_##dv(int64_t worker, int64_t n_workers, int64_t run)  \
    {                                                                                              \
        int64_t tokens = t;                                                                        \
        __asm__ volatile("" : "+r"(tokens));                                                       \
        float *state = (float *)(uintptr_t)weights_of(run, (int64_t)(heads) * (dk) * (dv) * 4, (t) == 1); \
        pm_k_linear_attention(state, activations, activations, activations, activations,           \
                              activations, NULL, result, 1, tokens, heads, k_heads, k_heads, dk,   \
                              dv, 1, heads, 1, 1.0f, (uint8_t *)scratch[worker], worker,           \
                              n_workers);                                                          \
    }

#define SCAN(t, channels, size)                                                                    \
    static void scan_##t##_##channels##_##size(int64_t worker, int64_t n_workers, int64_t run)     \
    {                                                                                              \
        int64_t tokens = t;                                                                        \
        __asm__ volatile("" : "+r"(tokens));                                                       \
        float *state = (float *)(uintptr_t)weights_of(run, (int64_t)(channels) * (size) * 4, (t) == 1); \
        pm_k_selective_scan(state, activations, activations, activations, activations,             \
                            activations, NULL, result, 1, tokens, channels, size,                  \
                            (uint8_t *)scratch[worker], worker, n_workers);                        \
    }

#include "bench/kernels/bench_cases.h"
#undef DELTA
#undef SCAN
#undef LINEAR
#undef GROUPED
#undef LOWBIT
#undef GROUPED_LOWBIT
#undef ATTENTION
#undef SDPA
#undef MATMUL

typedef void case_fn(int64_t worker, int64_t n_workers, int64_t run);

/// What limits a case, and how much of it a run does: floating-point operations or bytes.
typedef enum bound { BY_FMA, BY_DOT, BY_READ } bound;

typedef struct bench_case {
    const char *name;
    case_fn *run;
    bound bound;
    double work;   ///< operations or bytes of a run
    double best;
    int64_t times; ///< runs in a measurement: more of the short ones
} bench_case;

/* ---- the cases, as a table ------------------------------------------------------------------------- */

#define BOUND_f32 BY_FMA
#define BOUND_b16 BY_FMA
#define BOUND_dot BY_DOT
/* Few rows of weights that come from memory are limited by reading them. */
#define LINEAR(kind, panel, m, n, k, walk)                                                         \
    {"linear " #kind " " #panel " " #m " x " #n " x " #k,                                          \
     linear_##kind##_##panel##_##m##_##n##_##k, (walk) && (m) <= 4 ? BY_READ : BOUND_##kind,       \
     (walk) && (m) <= 4 ? (double)(n) * (k) * sizeof(w_##kind) : 2.0 * (m) * (n) * (k), 1e9, 0},
#define GROUPED(kind, panel, which, n, k, walk)                                                    \
    {"grouped " #kind " " #which " x " #n " x " #k, grouped_##kind##_##panel##_##which##_##n##_##k, \
     (walk) && ROWS_##which == 2 ? BY_READ : BOUND_##kind,                                         \
     (walk) && ROWS_##which == 2 ? 2.0 * (n) * (k) * sizeof(w_##kind)                              \
                                 : 2.0 * ROWS_##which * (n) * (k), 1e9, 0},
#define LOWBIT(kind, bits, m, n, k, block, scale, zero)                                            \
    {"linear " #kind " zero " #zero " " #m " x " #n " x " #k, lowbit_##kind##_##zero##_##m##_##n##_##k, \
     (m) <= 4 ? BY_READ : BY_FMA,                                                                  \
     (m) <= 4 ? (double)LOWBIT_BYTES(bits, n, k, block, scale, zero) : 2.0 * (m) * (n) * (k), 1e9, 0},
#define GROUPED_LOWBIT(kind, bits, which, n, k, block, scale, zero)                                \
    {"grouped " #kind " zero " #zero " " #which " x " #n " x " #k,                                 \
     lowbit_##kind##_##zero##_##which##_##n##_##k, ROWS_##which == 2 ? BY_READ : BY_FMA,           \
     ROWS_##which == 2 ? 2.0 * (double)LOWBIT_BYTES(bits, n, k, block, scale, zero)                \
                       : 2.0 * ROWS_##which * (n) * (k), 1e9, 0},
#define ATTENTION(t, past, heads, kv, hd, capacity)                                                \
    {"attention " #t " past " #past ", " #heads "/" #kv " x " #hd,                                 \
     attention_##t##_##past##_##heads##_##kv##_##hd, (t) == 1 ? BY_READ : BY_FMA,                  \
     (t) == 1 ? 8.0 * ((past) + 1) * (kv) * (hd)                                                   \
              : 4.0 * (hd) * (heads) * ((double)(t) * (past) + (t) * ((t) + 1.0) / 2), 1e9, 0},
#define SDPA(t, past, heads, kv, hd)                                                               \
    {"sdpa " #t " past " #past ", " #heads "/" #kv " x " #hd,                                      \
     sdpa_##t##_##past##_##heads##_##kv##_##hd, (t) == 1 ? BY_READ : BY_FMA,                       \
     (t) == 1 ? 8.0 * ((past) + 1) * (kv) * (hd)                                                   \
              : 4.0 * (hd) * (heads) * ((double)(t) * (past) + (t) * ((t) + 1.0) / 2), 1e9, 0},
#define MATMUL(m, n, k, trans_b)                                                                   \
    {"matmul 4 x " #m " x " #n " x " #k " trans " #trans_b, matmul_##m##_##n##_##k##_##trans_b,    \
     BY_FMA, 8.0 * (m) * (n) * (k), 1e9, 0},

#define DELTA(t, heads, k_heads, dk, dv)                                                           \
    {"delta rule " #t " x " #heads " x " #dk " x " #dv, delta_##t##_##heads##_##dk##_##dv,         \
     (t) == 1 ? BY_READ : BY_FMA,                                                                  \
     (t) == 1 ? 8.0 * (heads) * (dk) * (dv) : 7.0 * (t) * (heads) * (dk) * (dv), 1e9, 0},
#define SCAN(t, channels, size)                                                                    \
    {"scan " #t " x " #channels " x " #size, scan_##t##_##channels##_##size, BY_FMA,               \
     6.0 * (t) * (channels) * (size), 1e9, 0},

static bench_case cases[] = {
    {"peak fma", peak_fma, BY_FMA, 2.0 * PM_VW * 12 * 100000, 1e9, 1},
    {"peak dot", peak_dot, BY_DOT, 4.0 * PM_VW * 12 * 100000, 1e9, 1},
    {"peak read", peak_read, BY_READ, READ_MB * 1048576.0, 1e9, 1},
#include "bench/kernels/bench_cases.h"
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/// Operations of one measurement, at least, as far as runs are short.
static const double measured_work = 2e8;

/* ---- threads: every measurement runs in all of them ------------------------------------------------ */

static atomic_long arrived;
static int64_t n_threads = 1, rounds = 10;
static const char *only = "";

static void barrier(int64_t *generation)
{
    ++*generation;
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < *generation * n_threads)
        __builtin_ia32_pause();
}

static void *work(void *arg)
{
    int64_t worker = (int64_t)(intptr_t)arg, generation = 0;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET((size_t)worker, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    for (int64_t round = 0; round < rounds; round++)
        for (int i = 0; i < N_CASES; i++) {
            bench_case *c = &cases[i];
            if (i >= 3 && !strstr(c->name, only))
                continue;
            double part = n_threads > 1 && i < 2 ? (double)n_threads : 1.0;
            for (int64_t repeat = 0; repeat < 3; repeat++) {
                barrier(&generation);
                double start = now();
                for (int64_t j = 0; j < c->times; j++) {
                    c->run(worker, n_threads, (round * 3 + repeat) * c->times + j);
                    if (c->times > 1)
                        barrier(&generation);
                }
                barrier(&generation);
                double taken = (now() - start) / (double)c->times / part;
                if (worker == 0 && taken < c->best)
                    c->best = taken;
            }
        }
    return NULL;
}

int main(int argc, char **argv)
{
    n_threads = argc > 1 ? atol(argv[1]) : 1;
    rounds = argc > 2 ? atol(argv[2]) : 10;
    only = argc > 3 ? argv[3] : "";
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return 2;
    int64_t bytes = (int64_t)POOL_MB << 20;
    pool = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    activations = aligned_alloc(64, 64 << 20);
    result = aligned_alloc(64, 64 << 20);
    if (pool == MAP_FAILED || !activations || !result)
        return 1;
    /* small numbers in every interpretation of the bits: 0.0078 as bf16 pairs and as f32 */
    for (int64_t i = 0; i < bytes / 4; i++)
        ((uint32_t *)pool)[i] = 0x3c003c00u + (uint32_t)(i % 7 << 3);
    for (int64_t i = 0; i < (64 << 20) / 4; i++)
        ((uint32_t *)activations)[i] = 0x3c003c00u + (uint32_t)(i % 5 << 3);
    for (int64_t i = 0; i < n_threads; i++)
        scratch[i] = aligned_alloc(64, 16 << 20);
    for (int i = 3; i < N_CASES; i++)
        cases[i].times = (int64_t)(measured_work / cases[i].work) + 1;
    static const int32_t ragged[EXPERTS] = {64, 31, 90, 7, 120, 64, 33, 55, 1, 80, 64, 99, 47, 66, 100, 103};
    for (int e = 0; e < EXPERTS; e++) {
        offsets_each64[e + 1] = offsets_each64[e] + 64;
        offsets_each16[e + 1] = offsets_each16[e] + 16;
        offsets_two[e + 1] = offsets_two[e] + (e == 3 || e == 11);
        offsets_ragged[e + 1] = offsets_ragged[e] + ragged[e];
    }
    pthread_t threads[MAX_THREADS];
    for (int64_t i = 0; i < n_threads; i++)
        pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);
    for (int64_t i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N_CASES; i++) {
        const bench_case *c = &cases[i];
        if (c->best > 1e8)
            continue;
        double rate = c->work / c->best * 1e-9;
        double peak = cases[c->bound].work / cases[c->bound].best * 1e-9;
        printf("%-36s %9.1f us %8.1f %-8s %5.1f %% of peak\n", c->name, c->best * 1e6, rate,
               c->bound == BY_READ ? "GB/s" : "GFLOP/s", 100 * rate / peak);
    }
    return 0;
}
