#include "tests/cuda/product_case.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/device/emu_play.h"

pm_eval_fn pm_eval_linear, pm_eval_grouped_linear, pm_eval_dequantize;

const weight_kind weight_kinds[] = {
    {"f32", ELEM_F32, 0, 0, FORMAT_INT, ELEM_F32, NO_ELEM},
    {"bf16", ELEM_BF16, 0, 0, FORMAT_INT, ELEM_F32, NO_ELEM},
    {"f16", ELEM_F16, 0, 0, FORMAT_INT, ELEM_F32, NO_ELEM},
    {"int4 of 32", ELEM_U8, 4, 32, FORMAT_INT, ELEM_F32, NO_ELEM},
    {"int4 of 16, zeros packed", ELEM_U8, 4, 16, FORMAT_INT, ELEM_BF16, ELEM_U8},
    {"int4 of 128, zeros in f16", ELEM_U8, 4, 128, FORMAT_INT, ELEM_F16, ELEM_F16},
    {"int4 of 32, zeros in f32", ELEM_U8, 4, 32, FORMAT_INT, ELEM_F32, ELEM_F32},
    {"int4 of rows, zeros packed", ELEM_U8, 4, 0, FORMAT_INT, ELEM_F32, ELEM_U8},
    {"int4 of 12, zeros packed", ELEM_U8, 4, 12, FORMAT_INT, ELEM_F16, ELEM_U8},
    {"int8 of rows", ELEM_U8, 8, 0, FORMAT_INT, ELEM_F32, NO_ELEM},
    {"int8 of 32, zeros packed", ELEM_U8, 8, 32, FORMAT_INT, ELEM_F16, ELEM_U8},
    {"int2 of 16, zeros packed", ELEM_U8, 2, 16, FORMAT_INT, ELEM_F32, ELEM_U8},
    {"int2 of rows", ELEM_U8, 2, 0, FORMAT_INT, ELEM_BF16, NO_ELEM},
    {"e2m1 of 32, e8m0", ELEM_U8, 4, 32, FORMAT_E2M1, ELEM_U8, NO_ELEM},
    {"e2m1 of 16, bf16", ELEM_U8, 4, 16, FORMAT_E2M1, ELEM_BF16, NO_ELEM},
    {"e4m3 of 128", ELEM_U8, 8, 128, FORMAT_E4M3, ELEM_F32, NO_ELEM},
    {"e4m3 of rows, bf16", ELEM_U8, 8, 0, FORMAT_E4M3, ELEM_BF16, NO_ELEM},
};
const int n_weight_kinds = sizeof weight_kinds / sizeof weight_kinds[0];

/// Memory at a multiple of 16 bytes.
static void *aligned(int64_t bytes)
{
    return guarded((bytes + 15) / 16 * 16);
}

static int64_t size_of(int64_t elem)
{
    return elem == ELEM_F32 ? 4 : elem == ELEM_U8 ? 1 : 2;
}

static int32_t ir_elem(int64_t elem)
{
    static const int32_t elems[] = {PM_F32, PM_BF16, PM_F16, PM_U8};
    return elems[elem];
}

static float value_at(const void *from, int64_t elem, int64_t i)
{
    if (elem == ELEM_F32)
        return ((const float *)from)[i];
    return elem == ELEM_BF16 ? from_bf16(((const uint16_t *)from)[i]) : (float)((const _Float16 *)from)[i];
}

static void put(void *to, int64_t elem, int64_t i, float x)
{
    if (elem == ELEM_F32)
        ((float *)to)[i] = x;
    else if (elem == ELEM_BF16)
        ((uint16_t *)to)[i] = to_bf16(x);
    else
        ((_Float16 *)to)[i] = (_Float16)x;
}

/// n numbers around `middle`, within `scale`; elem NO_ELEM: NULL.
static void *elements(int64_t elem, int64_t n, float middle, float scale)
{
    void *to = elem == NO_ELEM ? NULL : aligned(n * size_of(elem));
    for (int64_t i = 0; to && i < n; i++)
        put(to, elem, i, middle + scale * next_float());
    return to;
}

static uint8_t *random_bytes(int64_t n, int64_t first, int64_t below)
{
    uint8_t *to = aligned(n);
    for (int64_t i = 0; i < n; i++)
        to[i] = (uint8_t)(first + next_below(below - first));
    return to;
}

/// ---- weights ----------------------------------------------------------------------------------------------

/// [all][k] as f32 from codes that lie without gaps.
static float *decoded(const product_case *c, int64_t all, const uint8_t *codes, const void *scales, const void *zeros)
{
    const weight_kind *w = c->weight;
    static const char *const formats[] = {"int", "e2m1", "e4m3"};
    int64_t row_bytes = (c->k * w->bits + 7) / 8, blocks = w->block ? ceil_div(c->k, w->block) : 1;
    float *out = guarded_floats(all * c->k);
    const int64_t code_dims[] = {all, row_bytes}, scale_dims[] = {all, blocks}, dims[] = {all, c->k};
    const int64_t zero_dims[] = {all, w->zero_elem == ELEM_U8 ? (blocks * w->bits + 7) / 8 : blocks};
    pm_attr_value attrs[] = {{.i = c->k}, {.i = w->bits}, {.i = w->block}, {.s = formats[w->format]}};
    pm_tensor in[] = {tensor(codes, code_dims, 2, PM_U8), tensor(scales, scale_dims, 2, ir_elem(w->scale_elem)),
                      tensor(zeros, zero_dims, 2, zeros ? ir_elem(w->zero_elem) : PM_F32)};
    pm_tensor result = tensor(out, dims, 2, PM_F32);
    ck_assert_int_eq(pm_eval_dequantize(&(pm_eval_args){in, zeros ? 3 : 2, &result, 1, attrs}), 0);
    return out;
}

/// Stored matrices `stride` bytes apart; what lies between is no number.
static void *spaced(const void *from, int64_t experts, int64_t bytes, int64_t stride)
{
    uint8_t *to = aligned((experts - 1) * stride + bytes);
    for (int64_t e = 0; e < experts; e++)
        memcpy(to + e * stride, (const uint8_t *)from + e * bytes, (size_t)bytes);
    return to;
}

/// Sets the weight's words and returns it as f32.
static float *make_weight(product *p, int64_t experts, int64_t *out_bytes)
{
    const product_case *c = &p->c;
    const weight_kind *w = c->weight;
    int64_t all = experts * c->n, row_bytes = w->bits ? (c->k * w->bits + 7) / 8 : c->k * size_of(w->elem);
    int64_t blocks = w->block ? ceil_div(c->k, w->block) : 1, bytes = c->n * row_bytes;
    void *stored, *scales = NULL, *zeros = NULL;
    float *out;
    if (w->bits == 0) {
        stored = elements(w->elem, all * c->k, 0, 1);
        out = guarded_floats(all * c->k);
        for (int64_t i = 0; i < all * c->k; i++)
            out[i] = value_at(stored, w->elem, i);
    } else {
        stored = random_bytes(all * row_bytes, 0, 256);
        for (int64_t i = 0; i < all * row_bytes && w->format == FORMAT_E4M3; i++)
            ((uint8_t *)stored)[i] &= 0xbf; /* less than 2, and numbers */
        scales = w->scale_elem == ELEM_U8 ? (void *)random_bytes(all * blocks, 124, 128)
                                          : elements(w->scale_elem, all * blocks, 0, w->bits == 8 ? 0.01f : 0.2f);
        zeros = w->zero_elem == ELEM_U8 ? (void *)random_bytes(all * ((blocks * w->bits + 7) / 8), 0, 256)
                                        : elements(w->zero_elem, all * blocks, 7, 3);
        out = decoded(c, all, stored, scales, zeros);
    }
    *out_bytes = c->gap ? (bytes + 15) / 16 * 16 + 48 : bytes;
    p->words[WORD_W] = at(c->gap ? spaced(stored, experts, bytes, *out_bytes) : stored);
    p->words[WORD_SCALES] = at(scales);
    p->words[WORD_ZEROS] = at(zeros);
    return out;
}

/// ---- products ---------------------------------------------------------------------------------------------

static int32_t *spread_rows(const product_case *c)
{
    int32_t *offsets = guarded((c->experts + 1) * 4);
    int64_t owned = c->rows - c->rows / 8, one = c->experts / 2;
    offsets[0] = 0;
    for (int64_t e = 0; e < c->experts; e++) {
        int64_t end = c->spread == EVEN         ? owned * (e + 1) / c->experts
                      : c->spread == ALL_TO_ONE ? (e >= one ? owned : 0)
                                                : owned * (e / 3 * 3) / c->experts;
        offsets[e + 1] = (int32_t)end;
    }
    return offsets;
}

product product_of(const product_case *c)
{
    product p = {.c = *c, .owned = c->rows, .y_size = size_of(c->y_elem)};
    int64_t experts = c->experts ? c->experts : 1, expert_bytes;
    float *w = make_weight(&p, experts, &expert_bytes);
    p.x = elements(c->x_elem, c->rows * c->k, 0, 1);
    void *bias = elements(c->bias_elem, experts * c->n, 0, 1);
    p.want = guarded_floats(c->rows * c->n);
    if (c->experts) {
        p.offsets = spread_rows(c);
        p.owned = p.offsets[experts];
    }
    const int64_t x_dims[] = {c->rows, c->k}, w_dims[] = {experts, c->n, c->k}, y_dims[] = {c->rows, c->n};
    const int64_t offset_dims[] = {experts + 1}, bias_dims[] = {experts, c->n};
    pm_attr_value attrs[] = {{.i = c->rounds ? PM_BF16 : PM_F32}, {.i = 0}};
    pm_tensor xs = tensor(p.x, x_dims, 2, ir_elem(c->x_elem)), result = tensor(p.want, y_dims, 2, PM_F32);
    pm_tensor biases = tensor(bias, c->experts ? bias_dims : bias_dims + 1, c->experts ? 2 : 1,
                              bias ? ir_elem(c->bias_elem) : PM_F32);
    if (c->experts) {
        pm_tensor in[] = {xs, tensor(w, w_dims, 3, PM_F32), tensor(p.offsets, offset_dims, 1, PM_I32), biases};
        ck_assert_int_eq(pm_eval_grouped_linear(&(pm_eval_args){in, bias ? 4 : 3, &result, 1, attrs}), 0);
    } else {
        pm_tensor in[] = {xs, tensor(w, w_dims + 1, 2, PM_F32), biases};
        ck_assert_int_eq(pm_eval_linear(&(pm_eval_args){in, bias ? 3 : 2, &result, 1, attrs}), 0);
    }
    const weight_kind *k = c->weight;
    const int64_t sizes[] = {c->rows, c->n, c->k, c->experts, expert_bytes, c->x_elem, k->elem, c->y_elem,
                             bias ? c->bias_elem : ELEM_F32, k->scale_elem, k->zero_elem,
                             k->bits, k->block, k->format, c->rounds, 0};
    p.words[WORD_X] = at(p.x);
    p.words[WORD_OFFSETS] = at(p.offsets);
    p.words[WORD_BIAS] = at(bias);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        p.words[WORD_ROWS + i] = (uint64_t)sizes[i];
    return p;
}

void product_map(product *p, int64_t width)
{
    const product_case *c = &p->c;
    pm_emu_tensor_map *map = guarded(sizeof *map);
    uint64_t between = c->experts > 1 ? p->words[WORD_EXPERT_BYTES] : 16;
    const uint64_t extent[] = {(uint64_t)c->k, (uint64_t)c->n, c->experts ? (uint64_t)c->experts : 1};
    const uint64_t stride[] = {(uint64_t)c->k * 2, between};
    const uint32_t box[] = {64, (uint32_t)width};
    const void *w = (const void *)(uintptr_t)p->words[WORD_W];
    ck_assert(pm_emu_tensor_map_make(map, w, 2, extent, stride, box, 1));
    p->words[WORD_MAP] = at(map);
}

const char *product_try(product *p, const product_road *road)
{
    const product_case *c = &p->c;
    int64_t rows = (int64_t)p->words[WORD_ROWS];
    int64_t tiles = ceil_div(rows + (c->experts ? c->experts * (road->height - 1) : 0), road->height);
    p->y = guarded(c->rows * c->n * p->y_size);
    p->words[WORD_Y] = at(p->y);
    int64_t blocks = (tiles < rows ? tiles : rows) * ceil_div(c->n, road->width);
    blocks = p->most_blocks && p->most_blocks < blocks ? p->most_blocks : blocks;
    return cu_try(road->kernel, blocks, road->threads, road->shared, p->words, PRODUCT_WORDS);
}

void product_run(product *p, const product_road *road)
{
    const char *error = product_try(p, road);
    ck_assert_msg(!error, "%s of %s: %s", road->kernel, p->c.weight->name, error);
}

void product_check(const product *p, const char *kernel, double tolerance)
{
    const product_case *c = &p->c;
    char what[128];
    float *got = guarded_floats(p->owned * c->n);
    snprintf(what, sizeof what, "%s of %s, %ld rows of %ld to %ld columns", kernel, c->weight->name, (long)c->rows,
             (long)c->k, (long)c->n);
    for (int64_t i = 0; i < p->owned * c->n; i++)
        got[i] = value_at(p->y, c->y_elem, i);
    check_near(what, got, p->want, p->owned * c->n,
               tolerance + (c->y_elem == ELEM_F32 ? 0 : c->y_elem == ELEM_BF16 ? 0x1p-8 : 0x1p-10));
    for (int64_t i = p->owned * c->n * p->y_size; i < c->rows * c->n * p->y_size; i++)
        ck_assert_msg(((uint8_t *)p->y)[i] == 0xff, "%s: a row of nobody is written", what);
}

void product_check_alone(product *p, int64_t row, const product_road *road)
{
    const product_case *c = &p->c;
    int64_t bytes = c->n * p->y_size, x_bytes = c->k * size_of(c->x_elem);
    product alone = *p;
    const uint8_t *among = (const uint8_t *)p->y + row * bytes;
    alone.c.rows = 1;
    alone.x = aligned(x_bytes);
    memcpy(alone.x, (const uint8_t *)p->x + row * x_bytes, (size_t)x_bytes);
    alone.words[WORD_X] = at(alone.x);
    alone.words[WORD_ROWS] = 1;
    if (c->experts) {
        alone.offsets = guarded((c->experts + 1) * 4);
        for (int64_t e = 0; e <= c->experts; e++)
            alone.offsets[e] = p->offsets[e] > row;
        alone.words[WORD_OFFSETS] = at(alone.offsets);
    }
    product_run(&alone, road);
    ck_assert_msg(memcmp(alone.y, among, (size_t)bytes) == 0, "%s of %s: row %ld has other bits alone", road->kernel,
                  c->weight->name, (long)row);
}

void product_check_lies(product *p, const product_road *road)
{
    static const int32_t lies[][5] = {{-3, 4, 100, 100, 50},           {9, 4, -1, -1, -1},
                                      {0, INT32_MAX, INT32_MIN, 3, 9}, {INT32_MIN, INT32_MIN, -7, 2, INT32_MAX},
                                      {0, 9, 2, 9, 1},                 {12, 11, 10, 9, 8}};
    ck_assert_int_eq(p->c.experts, 4);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        memcpy(p->offsets, lies[i], sizeof lies[i]);
        const char *error = product_try(p, road);
        /* two experts may claim a row */
        ck_assert_msg(!error || strstr(error, "of another block writes with no barrier between"), "%s", error);
    }
}
