/// Times the CUDA templates on a GPU, beside cuBLASLt where that is found: one JSON object on standard output, a table on
/// standard error.
/// usage: gpu-bench [--gpu N] [--kernels FOLDER] [--seconds S] [--rounds N] [--only TEXT] [--tiny]
/// Exit code 0: all agreed; 1: something didn't, or failed; 3: no GPU.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/cli/json_out.h"
#include "tools/gpu_bench/gpu_bench.h"

enum { MOST_ROUNDS = 101, MOST_MEMORY = 256 };
static const double round_ms = 2; ///< of one contender

/// What chips do at best, by a part of their name: dense products of bf16 with sums in f32, bytes of memory. From NVIDIA's
/// data sheets.
static const struct {
    const char *name;
    double flops, bytes;
} peaks[] = {
    {"GH200", 989e12, 4.0e12},     {"H100 PCIe", 756e12, 2.04e12}, {"H100 NVL", 835e12, 3.94e12}, {"H100", 989e12, 3.35e12},
    {"H200", 989e12, 4.8e12},      {"H20", 148e12, 4.0e12},        {"H800", 989e12, 3.35e12},     {"B200", 2250e12, 8.0e12},
    {"B100", 1750e12, 8.0e12},     {"A100-SXM4-40GB", 312e12, 1.555e12}, {"A100-PCIE-40GB", 312e12, 1.555e12},
    {"A100", 312e12, 2.039e12},    {"A30", 165e12, 0.933e12},      {"L40S", 362e12, 0.864e12},    {"L40", 181e12, 0.864e12},
    {"L4", 121e12, 0.3e12},        {"RTX 4090", 165e12, 1.008e12}, {"A10", 125e12, 0.6e12},
};

static cu_address memory[MOST_MEMORY];
static int n_memory;

pm_status bench_check(const bench_gpu *g, const char *doing, cu_result result)
{
    return pm_cuda_check(g->cu, "the GPU", doing, result);
}

/// Given back after each case.
pm_status bench_alloc(bench_gpu *g, uint64_t bytes, cu_address *out)
{
    if (n_memory == MOST_MEMORY)
        return PM_ERR_NO_MEMORY;
    PM_TRY(bench_check(g, "memory", g->cu->cuMemAlloc_v2(out, bytes)));
    memory[n_memory++] = *out;
    return PM_OK;
}

static pm_status finish(bench_gpu *g, const char *doing)
{
    return bench_check(g, doing, g->cu->cuStreamSynchronize(g->stream));
}

pm_status bench_upload(bench_gpu *g, cu_address to, const void *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += BENCH_STAGING) {
        uint64_t n = bytes - at < BENCH_STAGING ? bytes - at : BENCH_STAGING;
        memcpy(g->staging, (const char *)from + at, n);
        PM_TRY(bench_check(g, "a copy", g->cu->cuMemcpyHtoDAsync_v2(to + at, g->staging, n, g->stream)));
        PM_TRY(finish(g, "a copy"));
    }
    return PM_OK;
}

pm_status bench_download(bench_gpu *g, void *to, cu_address from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += BENCH_STAGING) {
        uint64_t n = bytes - at < BENCH_STAGING ? bytes - at : BENCH_STAGING;
        PM_TRY(bench_check(g, "a copy", g->cu->cuMemcpyDtoHAsync_v2(g->staging, from + at, n, g->stream)));
        PM_TRY(finish(g, "a copy"));
        memcpy((char *)to + at, g->staging, n);
    }
    return PM_OK;
}

static pm_status fill_with(bench_gpu *g, cu_address to, uint64_t bytes, int value)
{
    memset(g->staging, value, bytes < BENCH_STAGING ? bytes : BENCH_STAGING);
    for (uint64_t at = 0; at < bytes; at += BENCH_STAGING) {
        uint64_t n = bytes - at < BENCH_STAGING ? bytes - at : BENCH_STAGING;
        PM_TRY(bench_check(g, "a copy", g->cu->cuMemcpyHtoDAsync_v2(to + at, g->staging, n, g->stream)));
    }
    return finish(g, "a copy");
}

/// Random numbers from -1 to 1, or random bytes; the same ones again after BENCH_STAGING bytes and a little.
pm_status bench_fill(bench_gpu *g, cu_address to, uint64_t bytes, int elem)
{
    enum { PERIOD = BENCH_STAGING - 4096 };
    static uint64_t state = 0x9e3779b97f4a7c15u;
    unsigned char *b = g->staging;
    uint64_t made = bytes < PERIOD ? (bytes + 3) / 4 * 4 : PERIOD;
    for (uint64_t i = 0; i < made; i += 4) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint32_t word = (uint32_t)(state >> 32);
        float x = (float)(int32_t)word / 2147483648.0f;
        if (elem != BENCH_U8)
            memcpy(&word, &x, 4);
        if (elem == BENCH_BF16)
            word = (word & 0xffff0000u) | (word >> 16 ^ 0x8000u);
        memcpy(b + i, &word, 4);
    }
    for (uint64_t at = 0; at < bytes; at += PERIOD) {
        uint64_t n = bytes - at < PERIOD ? bytes - at : PERIOD;
        PM_TRY(bench_check(g, "a copy", g->cu->cuMemcpyHtoDAsync_v2(to + at, b, n, g->stream)));
    }
    return finish(g, "a copy");
}

/// ---- time -----------------------------------------------------------------------------------------------------------

typedef struct contender {
    pm_status (*run)(bench_gpu *g, const bench_case *c, int64_t number);
    int64_t times; ///< runs of a round
    double us[MOST_ROUNDS];
} contender;

static pm_status run_ours(bench_gpu *g, const bench_case *c, int64_t number)
{
    for (int i = 0; i < c->n_steps; i++) {
        const bench_step *s = &c->steps[i];
        uint64_t words[BENCH_WORDS];
        void *parameters[BENCH_WORDS + 1] = {NULL};
        memcpy(words, s->words, sizeof words);
        for (int k = 0; k < 2; k++)
            if (c->walking[k].word)
                words[c->walking[k].word] += (uint64_t)(number % c->copies) * c->walking[k].bytes;
        for (int w = 0; w < s->n; w++)
            parameters[w] = &words[w];
        PM_TRY(bench_check(g, s->kernel, g->cu->cuLaunchKernel(s->function, s->blocks, 1, 1, s->threads, 1, 1, s->shared,
                                                               g->stream, parameters, NULL)));
    }
    return PM_OK;
}

static pm_status run_blas(bench_gpu *g, const bench_case *c, int64_t number)
{
    return bench_blas_run(g, &c->product, number, c->copies);
}

static pm_status run_copy(bench_gpu *g, const bench_case *c, int64_t number)
{
    (void)c, (void)number;
    uint64_t half = g->pool_bytes / 2;
    return bench_check(g, "a copy", g->cu->cuMemcpyDtoDAsync_v2(g->pool + half, g->pool, half, g->stream));
}

static pm_status measure(bench_gpu *g, const bench_case *c, const contender *k, double *out_us)
{
    float ms;
    PM_TRY(bench_check(g, "an event", g->cu->cuEventRecord(g->begin, g->stream)));
    for (int64_t i = 0; i < k->times; i++)
        PM_TRY(k->run(g, c, i));
    PM_TRY(bench_check(g, "an event", g->cu->cuEventRecord(g->end, g->stream)));
    PM_TRY(bench_check(g, c ? c->name : "copies", g->cu->cuEventSynchronize(g->end)));
    PM_TRY(bench_check(g, "time", g->cu->cuEventElapsedTime(&ms, g->begin, g->end)));
    *out_us = (double)ms * 1e3 / (double)k->times;
    return PM_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/// Rounds in turns. The first of all warms up and says how many runs a round has.
static pm_status race(bench_gpu *g, const bench_case *c, contender *contenders, int n, int rounds)
{
    for (int i = 0; i < n; i++) {
        double us;
        contenders[i].times = 2;
        PM_TRY(measure(g, c, &contenders[i], &us));
        PM_TRY(measure(g, c, &contenders[i], &us));
        double times = us > 0 ? round_ms * 1e3 / us : 1;
        contenders[i].times = g->is_tiny || times < 1 ? 1 : times > 400 ? 400 : (int64_t)times;
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < n; i++) {
            int which = round % 2 ? n - 1 - i : i;
            PM_TRY(measure(g, c, &contenders[which], &contenders[which].us[round]));
        }
    for (int i = 0; i < n; i++)
        qsort(contenders[i].us, (size_t)rounds, sizeof(double), ascending);
    return PM_OK;
}

/// ---- rows -----------------------------------------------------------------------------------------------------------

typedef struct bench {
    bench_gpu gpu;
    pm_json_out w;
    int rounds, number;
    double peak_flops, peak_bytes, copy_bytes;
    double seconds, began;
    const char *only;
    bool failed;
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/// Results that are not finite, or were not written at all.
static pm_status look_at(bench_gpu *g, const bench_case *c, double *out_error, double *out_most)
{
    uint64_t n = c->out_bytes / 4;
    *out_error = 0;
    *out_most = 0;
    if (c->is_product) {
        *out_most = 2e-5;
        return bench_product_error(g, &c->product, out_error);
    }
    float *out = malloc(n * 4 + 4);
    if (!out)
        return PM_ERR_NO_MEMORY;
    pm_status status = bench_download(g, out, c->out, n * 4);
    for (uint64_t i = 0; i < n && status == PM_OK; i++)
        if (!isfinite(out[i]))
            *out_error += 1;
    free(out);
    return status;
}

static void write_times(pm_json_out *w, const contender *k, int rounds)
{
    pm_jo_number(w, "best_us", k->us[0]);
    pm_jo_number(w, "median_us", k->us[rounds / 2]);
}

static void write_row(bench *b, const bench_case *c, const contender *k, int n, double error, bool is_right)
{
    double ours = k[0].us[b->rounds / 2] * 1e-6;
    pm_json_out *w = &b->w;
    pm_jo_object(w, NULL);
    pm_jo_text(w, "name", c->name);
    pm_jo_text(w, "kernel", c->steps[0].kernel);
    pm_jo_bool(w, "for_these_sizes", c->steps[0].is_variant);
    write_times(w, &k[0], b->rounds);
    fprintf(stderr, "| %-60s | %-15s | %9.2f |", c->name, c->steps[0].kernel, ours * 1e6);
    if (c->flops > 0) {
        pm_jo_number(w, "tflops", c->flops / ours * 1e-12);
        pm_jo_number(w, "of_peak", b->peak_flops > 0 ? c->flops / ours / b->peak_flops : NAN);
        fprintf(stderr, " %7.1f | %4.0f %% |", c->flops / ours * 1e-12, b->peak_flops > 0 ? 100 * c->flops / ours / b->peak_flops : 0);
    } else {
        fputs("         |        |", stderr);
    }
    pm_jo_number(w, "gbytes_per_second", c->bytes / ours * 1e-9);
    pm_jo_number(w, "of_bandwidth", b->peak_bytes > 0 ? c->bytes / ours / b->peak_bytes : NAN);
    pm_jo_number(w, "of_copies", b->copy_bytes > 0 ? c->bytes / ours / b->copy_bytes : NAN);
    fprintf(stderr, " %7.0f | %4.0f %% |", c->bytes / ours * 1e-9, b->peak_bytes > 0 ? 100 * c->bytes / ours / b->peak_bytes : 0);
    if (n > 1) {
        pm_jo_object(w, "cublaslt");
        write_times(w, &k[1], b->rounds);
        pm_jo_end(w);
        pm_jo_number(w, "of_cublaslt", k[1].us[b->rounds / 2] * 1e-6 / ours);
        fprintf(stderr, " %5.2f |", k[1].us[b->rounds / 2] * 1e-6 / ours);
    } else {
        fputs("       |", stderr);
    }
    fputs(is_right ? "\n" : " WRONG\n", stderr);
    pm_jo_number(w, "error", error);
    pm_jo_bool(w, "ok", is_right);
    pm_jo_end(w);
}

static pm_status run_case(bench *b, bench_case *c)
{
    bench_gpu *g = &b->gpu;
    contender k[2] = {{.run = run_ours}, {.run = run_blas}};
    double error, most;
    int n = 1;
    PM_TRY(fill_with(g, c->out, c->out_bytes, 0xff)); // no numbers, in any type of float
    PM_TRY(bench_check(g, "memory", g->cu->cuMemsetD8Async(g->status, 0, 4, g->stream)));
    PM_TRY(run_ours(g, c, 0));
    PM_TRY(finish(g, c->name));
    PM_TRY(look_at(g, c, &error, &most));
    if (c->is_product && bench_blas_can(g, &c->product) && bench_blas_prepare(g, &c->product) == PM_OK)
        n = 2;
    PM_TRY(race(g, c, k, n, b->rounds));
    bool is_right = error <= most;
    b->failed |= !is_right;
    write_row(b, c, k, n, error, is_right);
    return PM_OK;
}

static void write_error(bench *b, const char *name, const char *error)
{
    pm_jo_object(&b->w, NULL);
    pm_jo_text(&b->w, "name", name);
    pm_jo_text(&b->w, "error_text", error);
    pm_jo_bool(&b->w, "ok", false);
    pm_jo_end(&b->w);
    fprintf(stderr, "%s: %s\n", name, error);
    b->failed = true;
}

/// What each case took is given back; the pool stays.
static void give_back(bench_gpu *g, int keep)
{
    while (n_memory > keep)
        g->cu->cuMemFree_v2(memory[--n_memory]);
}

static void run_cases(bench *b)
{
    bench_case c;
    pm_status status;
    int keep = n_memory;
    fprintf(stderr, "| %-60s | %-15s | median us | TFLOP/s | peak   |    GB/s | memory | cublaslt |\n", "what", "kernel");
    pm_jo_array(&b->w, "rows");
    bool in_time = true;
    for (int i = 0; in_time && bench_case_next(&b->gpu, i, &c, &status); i++) {
        if (status == PM_OK && (!b->only || strstr(c.name, b->only) || strstr(c.steps[0].kernel, b->only)))
            status = run_case(b, &c);
        if (status != PM_OK && status != PM_ERR_UNSUPPORTED)
            write_error(b, c.name, pm_last_error());
        give_back(&b->gpu, keep);
        in_time = now() - b->began < b->seconds;
    }
    pm_jo_end(&b->w);
    pm_jo_bool(&b->w, "complete", in_time);
}

/// ---- the GPU --------------------------------------------------------------------------------------------------------

static pm_status open_gpu(bench *b)
{
    bench_gpu *g = &b->gpu;
    cu_device device;
    cu_context context;
    char name[128] = "";
    int major, minor, l2 = 0;
    PM_TRY(pm_cuda_load(&g->cu));
    PM_TRY(bench_check(g, "opening it", g->cu->cuDeviceGet(&device, b->number)));
    PM_TRY(bench_check(g, "its name", g->cu->cuDeviceGetName(name, sizeof name, device)));
    PM_TRY(bench_check(g, "its architecture", g->cu->cuDeviceGetAttribute(&major, PM_CU_COMPUTE_CAPABILITY_MAJOR, device)));
    PM_TRY(bench_check(g, "its architecture", g->cu->cuDeviceGetAttribute(&minor, PM_CU_COMPUTE_CAPABILITY_MINOR, device)));
    PM_TRY(bench_check(g, "its multiprocessors",
                       g->cu->cuDeviceGetAttribute(&g->multiprocessors, PM_CU_MULTIPROCESSOR_COUNT, device)));
    PM_TRY(bench_check(g, "its cache", g->cu->cuDeviceGetAttribute(&l2, PM_CU_L2_CACHE_SIZE, device)));
    PM_TRY(bench_check(g, "its context", g->cu->cuDevicePrimaryCtxRetain(&context, device)));
    PM_TRY(bench_check(g, "its context", g->cu->cuCtxSetCurrent(context)));
    PM_TRY(bench_check(g, "a stream", g->cu->cuStreamCreate(&g->stream, PM_CU_STREAM_NON_BLOCKING)));
    PM_TRY(bench_check(g, "an event", g->cu->cuEventCreate(&g->begin, 0)));
    PM_TRY(bench_check(g, "an event", g->cu->cuEventCreate(&g->end, 0)));
    PM_TRY(bench_check(g, "pinned memory", g->cu->cuMemHostAlloc(&g->staging, BENCH_STAGING, 0)));
    g->sm = major * 10 + minor;
    g->pool_bytes = g->is_tiny ? 8 << 20 : (uint64_t)1 << 30;
    PM_TRY(bench_alloc(g, g->pool_bytes, &g->pool));
    PM_TRY(bench_alloc(g, 256, &g->status));
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks && b->peak_flops == 0; i++)
        if (strstr(name, peaks[i].name)) {
            b->peak_flops = peaks[i].flops;
            b->peak_bytes = peaks[i].bytes;
        }
    bench_blas_open(g);
    pm_jo_text(&b->w, "gpu", name);
    pm_jo_int(&b->w, "sm", g->sm);
    pm_jo_int(&b->w, "l2_bytes", l2);
    pm_jo_number(&b->w, "peak_bf16_flops", b->peak_flops > 0 ? b->peak_flops : NAN);
    pm_jo_number(&b->w, "peak_bytes_per_second", b->peak_bytes > 0 ? b->peak_bytes : NAN);
    pm_jo_text(&b->w, "cublaslt", bench_blas_version(g));
    contender copies = {.run = run_copy};
    PM_TRY(bench_fill(g, g->pool, g->pool_bytes, BENCH_F32));
    PM_TRY(race(g, NULL, &copies, 1, b->rounds));
    b->copy_bytes = (double)g->pool_bytes / (copies.us[b->rounds / 2] * 1e-6); // half of it read, half written
    pm_jo_number(&b->w, "copy_bytes_per_second", b->copy_bytes);
    return PM_OK;
}

static int usage(void)
{
    fputs("usage: gpu-bench [--gpu N] [--kernels FOLDER] [--seconds S] [--rounds N] [--only TEXT] [--tiny]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    const char *folder = getenv("PIMOE_GPU_KERNELS");
    bench b = {.w = {.out = stdout}, .rounds = 15, .seconds = 1e9, .began = now(),
               .gpu = {.folder = folder ? folder : "kernels"}};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--tiny") == 0) {
            b.gpu.is_tiny = true;
            continue;
        }
        if (!value)
            return usage();
        if (strcmp(argv[i], "--gpu") == 0)
            b.number = atoi(value);
        else if (strcmp(argv[i], "--kernels") == 0)
            b.gpu.folder = value;
        else if (strcmp(argv[i], "--seconds") == 0)
            b.seconds = atof(value);
        else if (strcmp(argv[i], "--rounds") == 0)
            b.rounds = atoi(value) < 1 ? 1 : atoi(value) > MOST_ROUNDS ? MOST_ROUNDS : atoi(value);
        else if (strcmp(argv[i], "--only") == 0)
            b.only = value;
        else
            return usage();
        i++;
    }
    if (pm_cuda_load(&b.gpu.cu) != PM_OK) {
        fprintf(stderr, "error: %s\n", pm_last_error());
        return 3;
    }
    pm_jo_object(&b.w, NULL);
    pm_jo_int(&b.w, "schema_version", 1);
    if (open_gpu(&b) == PM_OK) {
        run_cases(&b);
    } else {
        pm_jo_text(&b.w, "error", pm_last_error());
        fprintf(stderr, "error: %s\n", pm_last_error());
        b.failed = true;
    }
    pm_jo_bool(&b.w, "ok", !b.failed);
    pm_jo_end(&b.w);
    return b.failed;
}
