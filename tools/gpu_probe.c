/// What scripts/gpu-check measures of the GPU itself: its description, links, memory, launches; one JSON object.
/// usage: gpu-probe [NUMBER]. Exit code 3: no GPU, and why on standard error.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pm/runtime.h"
#include "runtime/device/cuda_api.h"
#include "tools/cli/json_out.h"
#include "tools/pimoe/gpu_list.h"

enum { BYTES = 256 << 20, ROUNDS = 20, LEAST_ROUNDS = 2 };
static const double MOST_SECONDS = 0.2; ///< of one measurement, after the least rounds

typedef struct probe {
    const pm_cuda *cu;
    cu_stream stream;
    cu_address a, b;
    void *host;
} probe;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static cu_result up(const probe *p)
{
    return p->cu->cuMemcpyHtoDAsync_v2(p->a, p->host, BYTES, p->stream);
}

static cu_result down(const probe *p)
{
    return p->cu->cuMemcpyDtoHAsync_v2(p->host, p->a, BYTES, p->stream);
}

static cu_result within(const probe *p)
{
    return p->cu->cuMemcpyDtoDAsync_v2(p->b, p->a, BYTES, p->stream);
}

static cu_result fill(const probe *p)
{
    return p->cu->cuMemsetD8Async(p->a, 0, BYTES, p->stream);
}

static cu_result nothing(const probe *p)
{
    return p->cu->cuMemsetD8Async(p->a, 0, 4, p->stream);
}

/// Seconds of the best of some rounds; below 0: an error.
static double seconds(const probe *p, cu_result (*work)(const probe *), int times)
{
    double best = -1, end = now() + MOST_SECONDS;
    for (int round = 0; round < ROUNDS && (round < LEAST_ROUNDS || now() < end); round++) {
        double start = now();
        for (int i = 0; i < times; i++)
            if (work(p) != 0)
                return -1;
        if (p->cu->cuStreamSynchronize(p->stream) != 0)
            return -1;
        double took = (now() - start) / times;
        best = best < 0 || took < best ? took : best;
    }
    return best;
}

static pm_status measure(probe *p, int number, pm_json_out *w)
{
    cu_device device;
    cu_context context;
    const char *who = "the GPU";
    PM_TRY(pm_cuda_check(p->cu, who, "opening it", p->cu->cuDeviceGet(&device, number)));
    PM_TRY(pm_cuda_check(p->cu, who, "its context", p->cu->cuDevicePrimaryCtxRetain(&context, device)));
    PM_TRY(pm_cuda_check(p->cu, who, "its context", p->cu->cuCtxSetCurrent(context)));
    PM_TRY(pm_cuda_check(p->cu, who, "a stream", p->cu->cuStreamCreate(&p->stream, PM_CU_STREAM_NON_BLOCKING)));
    PM_TRY(pm_cuda_check(p->cu, who, "memory", p->cu->cuMemAlloc_v2(&p->a, BYTES)));
    PM_TRY(pm_cuda_check(p->cu, who, "memory", p->cu->cuMemAlloc_v2(&p->b, BYTES)));
    PM_TRY(pm_cuda_check(p->cu, who, "pinned memory", p->cu->cuMemHostAlloc(&p->host, BYTES, 0)));
    const struct {
        const char *name;
        cu_result (*work)(const probe *);
        double bytes;
    } rows[] = {{"upload_bytes_per_second", up, BYTES},
                {"download_bytes_per_second", down, BYTES},
                {"copy_bytes_per_second", within, 2.0 * BYTES}, // read and written
                {"fill_bytes_per_second", fill, BYTES}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double took = seconds(p, rows[i].work, 4);
        if (took <= 0)
            return pm_cuda_check(p->cu, who, rows[i].name, p->cu->cuStreamSynchronize(p->stream));
        pm_jo_number(w, rows[i].name, rows[i].bytes / took);
    }
    pm_jo_number(w, "command_seconds", seconds(p, nothing, 1000));
    pm_jo_number(w, "round_trip_seconds", seconds(p, nothing, 1));
    return PM_OK;
}

int main(int argc, char **argv)
{
    static pm_gpu_list list;
    int number = argc > 1 ? atoi(argv[1]) : 0;
    probe p = {0};
    if (pm_gpu_list_look(&list) != PM_OK || pm_cuda_load(&p.cu) != PM_OK || number >= list.n) {
        fprintf(stderr, "error: %s\n", list.n ? "there is no such GPU" : pm_last_error());
        return 3;
    }
    const pm_gpu *g = &list.gpus[number];
    char arch[32];
    snprintf(arch, sizeof arch, "sm_%d%d", g->major, g->minor);
    pm_json_out w = {.out = stdout};
    pm_jo_object(&w, NULL);
    pm_jo_text(&w, "name", g->name);
    pm_jo_text(&w, "arch", arch);
    pm_jo_text(&w, "driver", list.driver);
    pm_jo_int(&w, "cuda", list.cuda);
    pm_jo_uint(&w, "bytes", g->memory);
    pm_jo_number(&w, "peak_bytes_per_second", g->peak_bytes_per_second);
    pm_status status = measure(&p, number, &w);
    pm_gpu_list_refresh(&list); // warm by now
    pm_jo_uint(&w, "clock_mhz", g->clock_mhz);
    pm_jo_number(&w, "watts", g->watts);
    pm_jo_uint(&w, "celsius", g->celsius);
    pm_jo_text(&w, "error", status == PM_OK ? NULL : pm_last_error());
    pm_jo_end(&w);
    return pm_exit_code(status);
}
