/// What this machine reaches now: fp32 multiply-adds, bf16 dot products and reads of memory, with 1
/// thread and with all that are asked for. One JSON object on standard output.
///
///   cc -O3 -march=native -ffp-contract=fast -pthread calibrate.c -o calibrate && ./calibrate 2
///
/// `./calibrate 2 read` measures reads alone, `./calibrate 2 compute` all but reads.
///
/// A round is a piece of work between two barriers, timed by its slowest thread. `best` is the best
/// round, `median` the middle one: far apart, the machine was busy with something else.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined __AVX512F__
enum { LANES = 16 };
#elif !defined __FMA__
#error "compile with -march=native, or at least x86-64-v3"
#else
enum { LANES = 8 };
#endif
typedef float vec __attribute__((vector_size(LANES * 4)));

enum {
    CHAINS = 12, ///< independent sums: they hide the latency of an addition and fit 16 registers
    MAX_THREADS = 64,
    ROUNDS = 60,
    FMA_STEPS = 400000,
};
static const size_t BUFFER = (size_t)1 << 30; ///< far more than any cache
static const size_t SLICE = (size_t)96 << 20; ///< bytes read in a round, a multiple of 12 vectors per thread

static volatile float sink;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float total(const vec *sums)
{
    float all = 0;
    for (int i = 0; i < CHAINS; i++)
        for (int k = 0; k < LANES; k++)
            all += sums[i][k];
    return all;
}

/// ---- the pieces of work: what is done is returned -----------------------------------------------------------

// Sums are variables by name: an array of them is kept in memory by some compilers.
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define START(i) vec s##i = {0};
#define COLLECT(i) s[i] = s##i;
/// One operation, whose result stays in a register.
#define MULTIPLY_ADD(i)   \
    s##i = a * s##i + b;  \
    __asm__ volatile("" : "+v"(s##i));
#define DOT_BF16(i)                                              \
    s##i = (vec)_mm512_dpbf16_ps((__m512)s##i, x, x);            \
    __asm__ volatile("" : "+v"(s##i));

static double multiply_add(const char *from, size_t bytes)
{
    (void)from, (void)bytes;
    vec a = {0}, b = {0}, s[CHAINS];
    a += 1.0000001f;
    b += 1e-9f;
    EACH_CHAIN(START)
    for (long n = 0; n < FMA_STEPS; n++) {
        EACH_CHAIN(MULTIPLY_ADD)
    }
    EACH_CHAIN(COLLECT)
    sink = total(s);
    return 2.0 * LANES * CHAINS * FMA_STEPS;
}

#ifdef __AVX512BF16__
static double dot_bf16(const char *from, size_t bytes)
{
    (void)from, (void)bytes;
    vec s[CHAINS];
    __m512 one = _mm512_set1_ps(1.0f);
    __m512bh x = _mm512_cvtne2ps_pbh(one, one);
    EACH_CHAIN(START)
    for (long n = 0; n < FMA_STEPS; n++) {
        EACH_CHAIN(DOT_BF16)
    }
    EACH_CHAIN(COLLECT)
    sink = total(s);
    return 2.0 * 32 * CHAINS * FMA_STEPS;
}
#endif

static inline double read_ahead(const char *from, size_t bytes, size_t ahead)
{
    vec s[CHAINS] = {{0}};
    const vec *p = (const vec *)from;
    size_t n = bytes / sizeof(vec) / CHAINS * CHAINS;
    for (size_t i = 0; i < n; i += CHAINS) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++) {
            if (ahead)
                __builtin_prefetch((const char *)(p + i + k) + ahead, 0, 3);
            s[k] += p[i + k];
        }
    }
    sink = total(s);
    return (double)(n * sizeof(vec));
}

static double read_plain(const char *from, size_t bytes)
{
    return read_ahead(from, bytes, 0);
}

static double read_ahead_2k(const char *from, size_t bytes)
{
    return read_ahead(from, bytes, 2048);
}

static double read_ahead_4k(const char *from, size_t bytes)
{
    return read_ahead(from, bytes, 4096);
}

static double read_four(const char *from, size_t bytes)
{
    vec s[CHAINS] = {{0}};
    size_t quarter = bytes / 4, n = quarter / sizeof(vec) / 3 * 3;
    for (size_t i = 0; i < n; i += 3) {
#pragma GCC unroll 12
        for (size_t k = 0; k < CHAINS; k++)
            s[k] += ((const vec *)(from + k / 3 * quarter))[i + k % 3];
    }
    sink = total(s);
    return (double)(4 * n * sizeof(vec));
}

/// ---- rounds ---------------------------------------------------------------------------------------------------

typedef double work_fn(const char *from, size_t bytes);

typedef struct job {
    work_fn *work;
    const char *buffer;
    int thread, n_threads;
    double done, seconds[ROUNDS];
} job;

static pthread_barrier_t barrier;

static void *run(void *user)
{
    job *j = user;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(j->thread, &cpus);
    pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    size_t part = SLICE / (size_t)j->n_threads / 4096 * 4096;
    for (int r = 0; r < ROUNDS; r++) {
        size_t slice = (size_t)r * 7 % (BUFFER / SLICE) * SLICE;
        pthread_barrier_wait(&barrier);
        double start = now();
        j->done = j->work(j->buffer ? j->buffer + slice + (size_t)j->thread * part : NULL, part);
        j->seconds[r] = now() - start;
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

typedef struct result {
    double best, median;
} result;

/// Keeps in `inout` what is better.
static void measure(work_fn *work, const char *buffer, int n_threads, result *inout)
{
    static job jobs[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    pthread_barrier_init(&barrier, NULL, (unsigned)n_threads);
    for (int i = 0; i < n_threads; i++) {
        jobs[i] = (job){.work = work, .buffer = buffer, .thread = i, .n_threads = n_threads};
        if (pthread_create(&threads[i], NULL, run, &jobs[i]) != 0)
            exit(3);
    }
    double done = 0, seconds[ROUNDS] = {0};
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        done += jobs[i].done;
        for (int r = 0; r < ROUNDS; r++)
            seconds[r] = jobs[i].seconds[r] > seconds[r] ? jobs[i].seconds[r] : seconds[r];
    }
    pthread_barrier_destroy(&barrier);
    qsort(seconds, ROUNDS, sizeof *seconds, by_value);
    double best = done / seconds[0] * 1e-9, median = done / seconds[ROUNDS / 2] * 1e-9;
    inout->best = best > inout->best ? best : inout->best;
    inout->median = median > inout->median ? median : inout->median;
}

static void show(const char *name, int n_threads, result r, const char *end)
{
    printf("\"%s_%dt\": {\"best\": %.2f, \"median\": %.2f}%s", name, n_threads, r.best, r.median, end);
}

/// Reads alone, computing alone, or both.
static void measure_all(const char *buffer, int n_threads, bool read, bool compute, bool last)
{
    work_fn *readers[] = {read_plain, read_ahead_2k, read_ahead_4k, read_four};
    result fma = {0}, bf16 = {0}, reads = {0};
    if (compute) {
        measure(multiply_add, buffer, n_threads, &fma);
#ifdef __AVX512BF16__
        measure(dot_bf16, buffer, n_threads, &bf16);
#endif
        if (bf16.best > 0)
            show("bf16_gflops", n_threads, bf16, ", ");
        show("fma_gflops", n_threads, fma, last && !read ? "" : ", ");
    }
    for (size_t i = 0; read && i < sizeof readers / sizeof *readers; i++)
        measure(readers[i], buffer, n_threads, &reads);
    if (read)
        show("read_gbs", n_threads, reads, last ? "" : ", ");
}

int main(int argc, char **argv)
{
    int most = argc > 1 ? atoi(argv[1]) : 2;
    bool read = argc < 3 || strcmp(argv[2], "read") == 0, compute = argc < 3 || strcmp(argv[2], "compute") == 0;
    if (most < 1 || most > MAX_THREADS || (!read && !compute)) {
        fprintf(stderr, "usage: calibrate [THREADS [read|compute]]\n");
        return 2;
    }
    char *buffer = NULL;
    if (read) {
        char *raw = mmap(NULL, BUFFER + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (raw == MAP_FAILED)
            return 3;
        buffer = (char *)(((uintptr_t)raw + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
        madvise(buffer, BUFFER, MADV_HUGEPAGE);
        memset(buffer, 0, BUFFER);
    }
    printf("{");
    if (most > 1)
        measure_all(buffer, 1, read, compute, false);
    measure_all(buffer, most, read, compute, true);
    puts("}");
    return 0;
}
