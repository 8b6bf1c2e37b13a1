/// What is timed: shapes, launches, and what they must compute and move.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/kernels/cu_product_sizes.h"
#include "tools/gpu_bench/gpu_bench.h"
#include "tools/gpu_bench/gpu_images.h"

static const struct {
    const char *name;
    uint32_t threads, shared;
} templates[] = {
#define PM_CU(name, file, threads, shared, flags, help) {#name, threads, shared},
#include "codegen/cuda/templates.def"
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static uint64_t word_of(double x)
{
    uint64_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

/// ---- launches -----------------------------------------------------------------------------------------------------

/// The template, compiled for these sizes where the folder has that (not for tiny sizes).
static pm_status use(bench_gpu *g, bench_step *s, const char *name, const char *variant)
{
    enum { WITHOUT_ASKING = 48 << 10 };
    char file[128], function[128];
    size_t i = 0;
    while (i < sizeof templates / sizeof *templates && strcmp(templates[i].name, name) != 0)
        i++;
    if (i == sizeof templates / sizeof *templates)
        return PM_ERR_UNSUPPORTED;
    s->kernel = templates[i].name;
    s->threads = templates[i].threads;
    s->shared = templates[i].shared;
    snprintf(file, sizeof file, "%s.%s", name, variant);
    snprintf(function, sizeof function, "pm_cu_%s", name);
    char *image = g->is_tiny ? NULL : pm_gpu_image(g->folder, file, g->sm);
    s->is_variant = image != NULL;
    if (!image)
        image = pm_gpu_image(g->folder, name, g->sm);
    if (!image)
        return PM_ERR_UNSUPPORTED;
    cu_module module;
    pm_status status = bench_check(g, name, g->cu->cuModuleLoadDataEx(&module, image, 0, NULL, NULL));
    free(image);
    PM_TRY(status);
    PM_TRY(bench_check(g, name, g->cu->cuModuleGetFunction(&s->function, module, function)));
    if (s->shared > WITHOUT_ASKING)
        PM_TRY(bench_check(g, name, g->cu->cuFuncSetAttribute(s->function, PM_CU_MAX_DYNAMIC_SHARED, (int)s->shared)));
    return PM_OK;
}

static void push(bench_step *s, uint64_t word)
{
    if (s->n < BENCH_WORDS)
        s->words[s->n++] = word;
}

static pm_status result_of(bench_gpu *g, bench_case *c, uint64_t bytes)
{
    c->out_bytes = bytes;
    return bench_alloc(g, bytes, &c->out);
}

/// ---- products -----------------------------------------------------------------------------------------------------

typedef struct product_row {
    const char *name, *template_name, *variant;
    int64_t height, width; ///< of a tile
    int64_t rows, n, k, experts;
    int x, w, y;
    int64_t bits, block;
    bool rounds, map;
} product_row;

#define WGMMA "product_wgmma"
#define MMA "product_mma"
#define FEW "product_few"
static const product_row products[] = {
    {"grouped bf16, 8 experts", WGMMA, "grouped_1024", CU_WGMMA_ROWS, CU_WGMMA_COLUMNS, 4096, 1024, 1024, 8, 1, 1, 1, 0, 0, true, true},
    {"grouped bf16, 8 experts", WGMMA, "grouped_2048", CU_WGMMA_ROWS, CU_WGMMA_COLUMNS, 4096, 2048, 2048, 8, 1, 1, 1, 0, 0, true, true},
    {"grouped bf16, 8 experts", WGMMA, "grouped_4096", CU_WGMMA_ROWS, CU_WGMMA_COLUMNS, 4096, 4096, 4096, 8, 1, 1, 1, 0, 0, true, true},
    {"bf16", WGMMA, "plain_4096", CU_WGMMA_ROWS, CU_WGMMA_COLUMNS, 4096, 4096, 4096, 0, 1, 1, 1, 0, 0, true, true},
    {"grouped bf16, 8 experts", MMA, "grouped_1024", CU_MMA_ROWS, CU_MMA_COLUMNS, 4096, 1024, 1024, 8, 1, 1, 1, 0, 0, true, false},
    {"grouped bf16, 8 experts", MMA, "grouped_2048", CU_MMA_ROWS, CU_MMA_COLUMNS, 4096, 2048, 2048, 8, 1, 1, 1, 0, 0, true, false},
    {"grouped bf16, 8 experts", MMA, "grouped_4096", CU_MMA_ROWS, CU_MMA_COLUMNS, 4096, 4096, 4096, 8, 1, 1, 1, 0, 0, true, false},
    {"bf16", MMA, "plain_4096", CU_MMA_ROWS, CU_MMA_COLUMNS, 4096, 4096, 4096, 0, 1, 1, 1, 0, 0, true, false},
    {"f32", "product_f32", "plain_4096", CU_F32_ROWS, CU_F32_COLUMNS, 1024, 4096, 4096, 0, 0, 0, 0, 0, 0, false, false},
    {"decode, f32", FEW, "plain_f32", CU_FEW_ROWS, CU_FEW_COLUMNS, 1, 4096, 4096, 0, 0, 0, 0, 0, 0, false, false},
    {"decode, bf16", FEW, "plain_bf16", CU_FEW_ROWS, CU_FEW_COLUMNS, 1, 4096, 4096, 0, 0, 1, 0, 0, 0, false, false},
    {"decode, bf16", FEW, "plain_bf16", CU_FEW_ROWS, CU_FEW_COLUMNS, 4, 4096, 4096, 0, 0, 1, 0, 0, 0, false, false},
    {"decode, bf16", FEW, "plain_bf16", CU_FEW_ROWS, CU_FEW_COLUMNS, 8, 4096, 4096, 0, 0, 1, 0, 0, 0, false, false},
    {"decode, grouped bf16, a row for each of 32", FEW, "grouped_bf16", CU_FEW_ROWS, CU_FEW_COLUMNS, 32, 1024, 1024, 32, 0, 1, 0, 0, 0, false, false},
    {"decode, 4 bits", FEW, "plain_int4", CU_FEW_ROWS, CU_FEW_COLUMNS, 1, 4096, 4096, 0, 0, 3, 0, 4, 32, false, false},
};
enum { N_PRODUCTS = sizeof products / sizeof *products };

enum { WEIGHT = 1, MAP = 22, MAP_BYTES = 128 }; ///< words of products' templates
static const uint64_t elem_bytes[] = {4, 2, 2, 1};

/// As many experts' first rows as there are experts, and the end.
static pm_status offsets_of(bench_gpu *g, const bench_product *p, cu_address *out)
{
    int32_t offsets[256];
    for (int64_t e = 0; e <= p->experts; e++)
        offsets[e] = (int32_t)(p->rows * e / p->experts);
    PM_TRY(bench_alloc(g, sizeof offsets, out));
    return bench_upload(g, *out, offsets, (uint64_t)(p->experts + 1) * 4);
}

static pm_status tensor_maps(bench_gpu *g, const bench_case *c, cu_address *out)
{
    enum { COLUMNS = 64 };
    const bench_product *p = &c->product;
    uint64_t experts = p->experts ? (uint64_t)p->experts : 1;
    const uint64_t extents[] = {(uint64_t)p->k, (uint64_t)p->n, experts};
    const uint64_t strides[] = {(uint64_t)p->k * 2, p->weight_bytes / experts};
    const uint32_t box[] = {COLUMNS, CU_WGMMA_COLUMNS, 1}, steps[] = {1, 1, 1};
    if (!g->cu->cuTensorMapEncodeTiled || c->copies > 256)
        return PM_ERR_UNSUPPORTED;
    _Alignas(64) static unsigned char maps[256][MAP_BYTES];
    for (int64_t i = 0; i < c->copies; i++)
        PM_TRY(bench_check(g, "a tensor map",
                           g->cu->cuTensorMapEncodeTiled((cu_tensor_map *)maps[i], PM_CU_MAP_U16, 3,
                                                         (void *)(uintptr_t)(p->w + (uint64_t)i * p->weight_bytes), extents,
                                                         strides, box, steps, 0, PM_CU_MAP_SWIZZLE_128B, PM_CU_MAP_L2_256B,
                                                         0)));
    PM_TRY(bench_alloc(g, sizeof maps, out));
    return bench_upload(g, *out, maps, (uint64_t)c->copies * MAP_BYTES);
}

static pm_status product_case(bench_gpu *g, const product_row *row, bench_case *c)
{
    enum { TINY = 128, TINY_ROWS = 40 };
    bench_step *s = &c->steps[0];
    bench_product *p = &c->product;
    PM_TRY(use(g, s, row->template_name, row->variant));
    *p = (bench_product){.rows = row->rows, .n = row->n, .k = row->k, .experts = row->experts, .x_elem = row->x,
                         .w_elem = row->w, .y_elem = row->y, .bits = row->bits, .block = row->block, .w = g->pool};
    if (g->is_tiny) {
        p->rows = least(p->rows, TINY_ROWS);
        p->n = least(p->n, TINY);
        p->k = least(p->k, TINY);
    }
    uint64_t matrices = p->experts ? (uint64_t)p->experts : 1, n = (uint64_t)p->n, k = (uint64_t)p->k;
    uint64_t of_row = p->bits ? k * (uint64_t)p->bits / 8 : k * elem_bytes[p->w_elem];
    uint64_t scale_bytes = p->bits ? matrices * n * (k / (uint64_t)p->block) * 4 : 0;
    p->weight_bytes = matrices * n * of_row;
    snprintf(c->name, sizeof c->name, "%s: %ld x %ld x %ld", row->name, (long)p->rows, (long)p->n, (long)p->k);
    c->is_product = true;
    c->n_steps = 1;
    c->walking[0].word = WEIGHT;
    c->walking[0].bytes = p->weight_bytes;
    c->walking[1].word = row->map ? MAP : 0;
    c->walking[1].bytes = MAP_BYTES;
    c->copies = (int64_t)(g->pool_bytes / p->weight_bytes);
    c->copies = c->copies < 1 ? 1 : c->copies > 64 ? 64 : c->copies;
    c->flops = 2.0 * (double)p->rows * (double)p->n * (double)p->k;
    c->bytes = (double)p->weight_bytes + (double)scale_bytes + (double)p->rows * (double)k * (double)elem_bytes[p->x_elem] +
               (double)p->rows * (double)n * (double)elem_bytes[p->y_elem];
    cu_address offsets = 0, maps = 0;
    PM_TRY(bench_fill(g, g->pool, (uint64_t)c->copies * p->weight_bytes, p->w_elem));
    PM_TRY(bench_alloc(g, (uint64_t)p->rows * k * elem_bytes[p->x_elem], &p->x));
    PM_TRY(bench_fill(g, p->x, (uint64_t)p->rows * k * elem_bytes[p->x_elem], p->x_elem));
    if (scale_bytes) {
        PM_TRY(bench_alloc(g, scale_bytes, &p->scales));
        PM_TRY(bench_fill(g, p->scales, scale_bytes, BENCH_F32));
    }
    PM_TRY(result_of(g, c, (uint64_t)p->rows * n * elem_bytes[p->y_elem]));
    p->y = c->out;
    if (p->experts)
        PM_TRY(offsets_of(g, p, &offsets));
    if (row->map)
        PM_TRY(tensor_maps(g, c, &maps));
    const uint64_t words[] = {p->x, p->w, p->scales, 0, offsets, 0, p->y, (uint64_t)p->rows, n, k, (uint64_t)p->experts,
                              p->experts ? p->weight_bytes / matrices : 0, (uint64_t)p->x_elem, (uint64_t)p->w_elem,
                              (uint64_t)p->y_elem, 0, 0, 0, (uint64_t)p->bits, (uint64_t)p->block, 0,
                              (uint64_t)row->rounds, maps};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        push(s, words[i]);
    int64_t of_rows = p->experts ? (p->rows + p->experts * (row->height - 1)) / row->height : ceil_div(p->rows, row->height);
    s->blocks = (uint32_t)(of_rows * ceil_div(p->n, row->width));
    if (row->map) // PM_RT_KERNEL_WALKS
        s->blocks = (uint32_t)least(s->blocks, g->multiprocessors);
    return PM_OK;
}

/// ---- attention ----------------------------------------------------------------------------------------------------

typedef struct attention_row {
    const char *name, *template_name;
    int64_t batch, t, past;
} attention_row;

enum { HEADS = 32, KV_HEADS = 8, HEAD_DIM = 128, SPLIT_KEYS = 256, SPLIT_ROWS = 4, TILE_ROWS = 64, KEY_LANES = 16 };
static const attention_row attentions[] = {
    {"attention, decode", "attention_split", 1, 1, 8191},
    {"attention, decode", "attention_split", 16, 1, 2047},
    {"attention, prefill, bf16", "attention_bf16", 1, 2048, 0},
    {"attention, prefill, f32", "attention_tile", 1, 2048, 0},
};
enum { N_ATTENTIONS = sizeof attentions / sizeof *attentions };

static pm_status attention_case(bench_gpu *g, const attention_row *row, bench_case *c)
{
    bench_step *s = &c->steps[0];
    int64_t batch = row->batch, t = row->t, past = row->past, pasts[16];
    bool is_split = strcmp(row->template_name, "attention_split") == 0;
    if (g->is_tiny) {
        batch = least(batch, 2);
        t = least(t, 5);
        past = least(past, 31);
    }
    int64_t keys = past + t, capacity = ceil_div(keys, KEY_LANES) * KEY_LANES;
    uint64_t q_bytes = (uint64_t)(batch * t * HEADS * HEAD_DIM) * 4, cache = (uint64_t)(batch * KV_HEADS * capacity * HEAD_DIM) * 4;
    PM_TRY(use(g, s, row->template_name, "heads"));
    snprintf(c->name, sizeof c->name, "%s: %ld x %ld to %ld", row->name, (long)batch, (long)t, (long)keys);
    c->n_steps = is_split ? 2 : 1;
    c->walking[0].word = 1; // keys; values are where the pool's other half begins
    c->walking[1].word = 2;
    c->walking[0].bytes = c->walking[1].bytes = cache;
    c->copies = (int64_t)(g->pool_bytes / 2 / cache);
    c->copies = c->copies < 1 ? 1 : c->copies > 8 ? 8 : c->copies;
    c->flops = 4.0 * (double)(batch * HEADS * HEAD_DIM) * (double)t * ((double)past + ((double)t + 1) / 2);
    c->bytes = 2.0 * (double)cache + 2.0 * (double)q_bytes;
    cu_address q, past_at, partial = 0;
    PM_TRY(bench_fill(g, g->pool, g->pool_bytes, BENCH_F32));
    PM_TRY(bench_alloc(g, q_bytes, &q));
    PM_TRY(bench_fill(g, q, q_bytes, BENCH_F32));
    PM_TRY(result_of(g, c, q_bytes));
    PM_TRY(bench_alloc(g, sizeof pasts, &past_at));
    for (int64_t i = 0; i < batch; i++)
        pasts[i] = past;
    PM_TRY(bench_upload(g, past_at, pasts, (uint64_t)batch * 8));
    const uint64_t words[] = {q, g->pool, g->pool + g->pool_bytes / 2, past_at, 0, c->out, (uint64_t)batch, (uint64_t)t, HEADS,
                              KV_HEADS, HEAD_DIM, HEAD_DIM, (uint64_t)capacity, word_of(0.08838834764831845), 0, 0,
                              word_of(0), 0, 0, 1, g->status, 1};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        push(s, words[i]);
    int64_t rows = t * (HEADS / KV_HEADS), splits = ceil_div(capacity, SPLIT_KEYS);
    if (!is_split) {
        s->blocks = (uint32_t)(batch * KV_HEADS * ceil_div(rows, TILE_ROWS));
        return PM_OK;
    }
    PM_TRY(bench_alloc(g, (uint64_t)(batch * t * HEADS * splits * (HEAD_DIM + 2)) * 4, &partial));
    push(s, partial);
    push(s, 0);
    bench_step *join = &c->steps[1];
    PM_TRY(use(g, join, "attention_join", "heads"));
    memcpy(join->words, s->words, sizeof s->words);
    join->n = s->n;
    s->blocks = (uint32_t)(batch * KV_HEADS * ceil_div(rows, SPLIT_ROWS) * splits);
    join->blocks = (uint32_t)(batch * HEADS * t);
    return PM_OK;
}

/// ---- rows ---------------------------------------------------------------------------------------------------------

enum { NORM, GATHER, COMBINE, N_ROWS };

/// `rows` numbers below `below`, all over the place.
static pm_status numbers(bench_gpu *g, int64_t rows, int64_t below, cu_address *out)
{
    int32_t *at = malloc((size_t)rows * 4);
    if (!at)
        return PM_ERR_NO_MEMORY;
    for (int64_t i = 0; i < rows; i++)
        at[i] = (int32_t)(i * 40503 % below);
    pm_status status = bench_alloc(g, (uint64_t)rows * 4, out);
    if (status == PM_OK)
        status = bench_upload(g, *out, at, (uint64_t)rows * 4);
    free(at);
    return status;
}

static pm_status rows_case(bench_gpu *g, int which, bench_case *c)
{
    static const char *const names[] = {"norm", "gather_rows", "combine"};
    enum { CHOICES = 4, PIECE = 256 };
    bench_step *s = &c->steps[0];
    int64_t rows = g->is_tiny ? 9 : 8192, n = g->is_tiny ? 64 : 4096;
    uint64_t bytes = (uint64_t)(rows * n) * 4;
    cu_address token, weight;
    PM_TRY(use(g, s, names[which], "wide"));
    snprintf(c->name, sizeof c->name, "%s: %ld x %ld", which == NORM ? "rms norm" : names[which], (long)rows, (long)n);
    c->n_steps = 1;
    c->copies = 1; // more than caches hold
    c->bytes = 2.0 * (double)bytes;
    PM_TRY(bench_fill(g, g->pool, bytes, BENCH_F32));
    PM_TRY(result_of(g, c, bytes));
    PM_TRY(bench_alloc(g, bytes, &weight));
    PM_TRY(bench_fill(g, weight, bytes, BENCH_F32));
    if (which == NORM) {
        const uint64_t words[] = {g->pool, weight, 0, c->out, (uint64_t)rows, (uint64_t)n, word_of(1e-5), 0};
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            push(s, words[i]);
        s->blocks = (uint32_t)rows;
        return PM_OK;
    }
    PM_TRY(numbers(g, rows, rows, &token));
    if (which == GATHER) {
        const uint64_t words[] = {g->pool, token, c->out, (uint64_t)rows, (uint64_t)n, (uint64_t)rows, g->status, 1};
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            push(s, words[i]);
        s->blocks = (uint32_t)rows;
        return PM_OK;
    }
    int64_t m = rows / CHOICES;
    c->bytes = (double)bytes * (1.0 + 1.0 / CHOICES);
    c->out_bytes = (uint64_t)(m * n) * 4;
    const uint64_t words[] = {g->pool, token, weight, c->out, (uint64_t)m, CHOICES, (uint64_t)n, (uint64_t)rows, g->status, 1};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        push(s, words[i]);
    s->blocks = (uint32_t)(m * ceil_div(n, PIECE));
    return PM_OK;
}

bool bench_case_next(bench_gpu *g, int number, bench_case *out, pm_status *out_status)
{
    memset(out, 0, sizeof *out);
    if (number < N_PRODUCTS)
        *out_status = product_case(g, &products[number], out);
    else if (number < N_PRODUCTS + N_ATTENTIONS)
        *out_status = attention_case(g, &attentions[number - N_PRODUCTS], out);
    else if (number < N_PRODUCTS + N_ATTENTIONS + N_ROWS)
        *out_status = rows_case(g, number - N_PRODUCTS - N_ATTENTIONS, out);
    else
        return false;
    return true;
}

/// ---- what came out --------------------------------------------------------------------------------------------------

static double number_at(const unsigned char *bytes, int elem, int64_t i)
{
    uint16_t half;
    uint32_t word;
    float x;
    if (elem == BENCH_F32) {
        memcpy(&x, bytes + i * 4, 4);
        return (double)x;
    }
    memcpy(&half, bytes + i * 2, 2);
    word = (uint32_t)half << 16;
    memcpy(&x, &word, 4);
    return (double)x;
}

/// Factor i of a row of weights.
static double weight_at(const bench_product *p, const unsigned char *row, const unsigned char *scales, int64_t i)
{
    if (!p->bits)
        return number_at(row, p->w_elem, i);
    int64_t bit = i * p->bits;
    int code = row[bit / 8] >> (bit % 8) & ((1 << p->bits) - 1);
    return (code - (1 << (p->bits - 1))) * number_at(scales, BENCH_F32, i / p->block);
}

pm_status bench_product_error(bench_gpu *g, const bench_product *p, double *out_error)
{
    enum { SAMPLES = 48 };
    uint64_t x_row = (uint64_t)p->k * elem_bytes[p->x_elem];
    uint64_t w_row = p->bits ? (uint64_t)(p->k * p->bits / 8) : (uint64_t)p->k * elem_bytes[p->w_elem];
    uint64_t s_row = p->bits ? (uint64_t)(p->k / p->block) * 4 : 0;
    unsigned char *bytes = malloc(x_row + w_row + s_row + 4), got[4];
    if (!bytes)
        return PM_ERR_NO_MEMORY;
    unsigned char *x = bytes, *w = x + x_row, *scales = w + w_row;
    pm_status status = PM_OK;
    *out_error = 0;
    for (int64_t i = 0; i < SAMPLES && status == PM_OK; i++) {
        int64_t row = i * 7919 % p->rows, column = i * 104729 % p->n, matrix = 0;
        for (int64_t e = 0; e < p->experts; e++)
            if (p->rows * e / p->experts <= row)
                matrix = e;
        uint64_t at = (uint64_t)(matrix * p->n + column), size = elem_bytes[p->y_elem];
        status = bench_download(g, x, p->x + (uint64_t)row * x_row, x_row);
        if (status == PM_OK)
            status = bench_download(g, w, p->w + at * w_row, w_row);
        if (status == PM_OK && s_row)
            status = bench_download(g, scales, p->scales + at * s_row, s_row);
        if (status == PM_OK)
            status = bench_download(g, got, p->y + (uint64_t)(row * p->n + column) * size, size);
        double sum = 0, magnitude = 0;
        for (int64_t j = 0; j < p->k; j++) {
            double term = number_at(x, p->x_elem, j) * weight_at(p, w, scales, j);
            sum += term;
            magnitude += fabs(term);
        }
        double rounding = p->y_elem == BENCH_F32 ? 0 : fabs(sum) / 256;
        double error = fmax(fabs(number_at(got, p->y_elem, 0) - sum) - rounding, 0) / magnitude;
        *out_error = error <= *out_error ? *out_error : error; // no number is further than all
    }
    free(bytes);
    return status;
}
