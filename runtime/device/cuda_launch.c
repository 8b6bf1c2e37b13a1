/// Launches. Those between two transfers are gathered; when the same kernels come again in the same order, the driver
/// repeats them as one graph, and only what differs of blocks and words is told to it.
#include <stdlib.h>
#include <string.h>

#include "runtime/device/cuda_device.h"
#include "runtime/rt_internal.h"

enum { WORTH_A_GRAPH = 4, PARAMETERS_MOST = 256 };

/// A launch as the driver wants it: `parameters` has room for a pointer to each word.
static cu_launch launch_of(const pm_rt_device_state *device, const pm_cuda_given *g, uint64_t *words, void **parameters)
{
    const pm_rt_kernel *k = &device->chip->desc->kernels[g->kernel];
    for (uint32_t i = 0; i < g->n_words; i++)
        parameters[i] = words + i;
    return (cu_launch){.func = device->chip->functions[g->kernel],
                       .gridDimX = g->blocks, .gridDimY = 1, .gridDimZ = 1,
                       .blockDimX = k->threads, .blockDimY = 1, .blockDimZ = 1,
                       .sharedMemBytes = k->shared_bytes, .kernelParams = parameters};
}

static pm_status launch_now(pm_rt_device_state *device, const pm_cuda_given *g, uint64_t *words)
{
    if (g->product && pm_cuda_blas_run(device, g->product, words))
        return PM_OK;
    void *parameters[PARAMETERS_MOST];
    cu_launch l = launch_of(device, g, words, parameters);
    cu_result result = device->chip->cuda->cuLaunchKernel(l.func, l.gridDimX, 1, 1, l.blockDimX, 1, 1, l.sharedMemBytes,
                                                          device->stream, parameters, NULL);
    return pm_cuda_told(device, device->chip->desc->kernels[g->kernel].name, result);
}

/// ---- graphs -------------------------------------------------------------------------------------------------

static void forget(const pm_cuda *cu, pm_cuda_graph *g)
{
    if (g->exec)
        cu->cuGraphExecDestroy(g->exec);
    if (g->graph)
        cu->cuGraphDestroy(g->graph);
    free(g->given);
    free(g->words);
    free(g->nodes);
    *g = (pm_cuda_graph){0};
}

/// The same kernels in the same order; blocks and words may differ, but not those of a library's products: what it gave
/// the stream for them stays as it is.
static bool repeats(const pm_cuda_launches *l, const pm_cuda_graph *g)
{
    if (l->n != g->n || l->n_words != g->n_words)
        return false;
    for (uint32_t i = 0; i < l->n; i++) {
        const pm_cuda_given *now = &l->given[i], *old = &g->given[i];
        if (now->kernel != old->kernel || now->n_words != old->n_words || !now->product != !old->product)
            return false;
        if (now->product &&
            memcmp(l->words + now->first_word, g->words + old->first_word, now->n_words * sizeof *l->words) != 0)
            return false;
    }
    return true;
}

static pm_cuda_graph *find(pm_cuda_launches *l)
{
    for (uint32_t i = 0; i < l->n_graphs; i++)
        if (repeats(l, &l->list[i]))
            return &l->list[i];
    return NULL;
}

/// Keeps what was gathered, to know it again; in place of what wasn't used for longest.
static void remember(const pm_cuda *cu, pm_cuda_launches *l)
{
    pm_cuda_graph *g = &l->list[0];
    if (l->n_graphs < PM_CUDA_GRAPHS) {
        g = &l->list[l->n_graphs++];
    } else {
        for (uint32_t i = 1; i < l->n_graphs; i++)
            if (l->list[i].used < g->used)
                g = &l->list[i];
        forget(cu, g);
    }
    *g = (pm_cuda_graph){.used = ++l->clock, .n = l->n, .n_words = l->n_words,
                         .given = malloc(l->n * sizeof *g->given),
                         .words = malloc((l->n_words + 1) * sizeof *g->words),
                         .nodes = calloc(l->n, sizeof *g->nodes)};
    if (!g->given || !g->words || !g->nodes) {
        forget(cu, g); // matches nothing: n is 0
        return;
    }
    memcpy(g->given, l->given, l->n * sizeof *g->given);
    memcpy(g->words, l->words, l->n_words * sizeof *g->words);
}

/// What a library gives the stream for a product, as a graph; NULL: it can't be had.
static cu_graph captured(pm_rt_device_state *device, pm_cuda_product *product, const uint64_t *words)
{
    const pm_cuda *cu = device->chip->cuda;
    cu_graph part = NULL;
    if (!cu->cuStreamBeginCapture_v2 || !cu->cuStreamEndCapture || !cu->cuGraphAddChildGraphNode ||
        cu->cuStreamBeginCapture_v2(device->stream, PM_CU_CAPTURE_RELAXED) != 0)
        return NULL;
    bool ran = pm_cuda_blas_run(device, product, words);
    if (cu->cuStreamEndCapture(device->stream, &part) != 0)
        return NULL;
    if (!ran && part)
        cu->cuGraphDestroy(part);
    return ran ? part : NULL;
}

static bool add_product(pm_rt_device_state *device, pm_cuda_graph *g, uint32_t i)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_product *product = device->launches.given[i].product; // that of now: the shape may have been forgotten since
    cu_graph part = captured(device, product, g->words + g->given[i].first_word);
    if (!part)
        return false;
    bool added = cu->cuGraphAddChildGraphNode(&g->nodes[i], g->graph, i ? &g->nodes[i - 1] : NULL, i > 0, part) == 0;
    cu->cuGraphDestroy(part);
    return added;
}

static bool add_kernel(pm_rt_device_state *device, pm_cuda_graph *g, uint32_t i)
{
    void *parameters[PARAMETERS_MOST];
    cu_launch l = launch_of(device, &g->given[i], g->words + g->given[i].first_word, parameters);
    return device->chip->cuda->cuGraphAddKernelNode(&g->nodes[i], g->graph, i ? &g->nodes[i - 1] : NULL, i > 0, &l) == 0;
}

/// One launch behind the other.
static bool build(pm_rt_device_state *device, pm_cuda_graph *g)
{
    const pm_cuda *cu = device->chip->cuda;
    if (cu->cuGraphCreate(&g->graph, 0) != 0) {
        g->graph = NULL;
        return false;
    }
    for (uint32_t i = 0; i < g->n; i++)
        if (!(g->given[i].product ? add_product(device, g, i) : add_kernel(device, g, i)))
            return false;
    if (cu->cuGraphInstantiateWithFlags(&g->exec, g->graph, 0) == 0)
        return true;
    g->exec = NULL;
    return false;
}

/// Tells the graph the blocks and words of now.
static bool update(const pm_rt_device_state *device, pm_cuda_graph *g)
{
    const pm_cuda_launches *l = &device->launches;
    void *parameters[PARAMETERS_MOST];
    for (uint32_t i = 0; i < g->n; i++) {
        pm_cuda_given *old = &g->given[i];
        const pm_cuda_given *now = &l->given[i];
        size_t bytes = now->n_words * sizeof(uint64_t);
        if (now->product || (old->blocks == now->blocks &&
            memcmp(g->words + old->first_word, l->words + now->first_word, bytes) == 0))
            continue;
        memcpy(g->words + old->first_word, l->words + now->first_word, bytes);
        old->blocks = now->blocks;
        cu_launch launch = launch_of(device, old, g->words + old->first_word, parameters);
        if (device->chip->cuda->cuGraphExecKernelNodeSetParams(g->exec, g->nodes[i], &launch) != 0)
            return false;
    }
    return true;
}

/// Whether what was gathered went as a graph; *out_status is its status then.
static bool run_as_graph(pm_rt_device_state *device, pm_status *out_status)
{
    const pm_cuda *cu = device->chip->cuda;
    pm_cuda_launches *l = &device->launches;
    pm_cuda_graph *g = find(l);
    if (!g) {
        remember(cu, l);
        return false;
    }
    g->used = ++l->clock;
    uint32_t refused = device->blas.refused;
    if ((!g->exec && !build(device, g)) || !update(device, g)) {
        // It goes without: one by one is slower, and as right. Where a library's product is why, without the library.
        forget(cu, g);
        l->graphs = device->blas.refused != refused;
        return false;
    }
    *out_status = pm_cuda_told(device, "launches as a graph", cu->cuGraphLaunch(g->exec, device->stream));
    return true;
}

/// ---- what devices are given -----------------------------------------------------------------------------------

pm_status pm_cuda_await_brought(pm_rt_device_state *device)
{
    if (!device->waits)
        return PM_OK;
    device->waits = false;
    return pm_cuda_told(device, "an upload",
                        device->chip->cuda->cuStreamWaitEvent(device->stream, device->brought, 0));
}

pm_status pm_cuda_flush(pm_rt_device_state *device)
{
    pm_cuda_launches *l = &device->launches;
    pm_status status = l->n ? pm_cuda_await_brought(device) : PM_OK;
    if (status != PM_OK) {
        l->n = l->n_words = 0;
        return status;
    }
    if (l->n < WORTH_A_GRAPH || !run_as_graph(device, &status))
        for (uint32_t i = 0; i < l->n && status == PM_OK; i++)
            status = launch_now(device, &l->given[i], l->words + l->given[i].first_word);
    l->n = l->n_words = 0;
    return status;
}

pm_status pm_cuda_launch(pm_rt_device_state *device, uint32_t kernel, uint32_t blocks, const uint64_t *words,
                         uint32_t n_words)
{
    pm_cuda_launches *l = &device->launches;
    if (n_words > PARAMETERS_MOST)
        return pm_rt_error_set(PM_ERR_INTERNAL, "%s: a launch with %u words", device->chip->desc->name, n_words);
    if (l->n == PM_CUDA_GRAPH_MOST || n_words > PM_CUDA_WORDS_MOST - l->n_words)
        PM_TRY(pm_cuda_flush(device));
    pm_cuda_product *product = NULL;
    PM_TRY(pm_cuda_blas_find(device, kernel, words, n_words, &product));
    pm_cuda_given *g = &l->given[l->n++];
    *g = (pm_cuda_given){kernel, blocks, l->n_words, n_words, product};
    memcpy(l->words + l->n_words, words, n_words * sizeof *words);
    l->n_words += n_words;
    return l->graphs ? PM_OK : pm_cuda_flush(device);
}

void pm_cuda_launches_drop(pm_rt_device_state *device)
{
    for (uint32_t i = 0; i < device->launches.n_graphs; i++)
        forget(device->chip->cuda, &device->launches.list[i]);
}
