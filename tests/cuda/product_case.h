/// Products of every kind for the tests of their templates: operands, words, and what the ops' meaning makes of them.
#ifndef PM_PRODUCT_CASE_H
#define PM_PRODUCT_CASE_H

#include "tests/cuda/cu_run.h"

/* as cu_product.h has them */
enum { ELEM_F32, ELEM_BF16, ELEM_F16, ELEM_U8, NO_ELEM };
enum { FORMAT_INT, FORMAT_E2M1, FORMAT_E4M3 };

/// What a weight is stored as. bits 0: elements.
typedef struct weight_kind {
    const char *name;
    int64_t elem, bits, block, format, scale_elem, zero_elem; ///< zero_elem NO_ELEM: no zeros
} weight_kind;

/// Which experts have the rows.
typedef enum spread { EVEN, ALL_TO_ONE, SOME_EMPTY, N_SPREADS } spread;

typedef struct product_case {
    const weight_kind *weight;
    int64_t rows, n, k, experts; ///< experts 0: not grouped
    int64_t x_elem, y_elem, bias_elem;
    spread spread;
    bool rounds, gap;            ///< gap: experts' matrices lie apart
} product_case;

/* CU_PRODUCT_PARAMETERS, as far as tests name them */
enum {
    WORD_X, WORD_W, WORD_SCALES, WORD_ZEROS, WORD_OFFSETS, WORD_BIAS, WORD_Y, WORD_ROWS, WORD_N,
    WORD_EXPERT_BYTES = 11, WORD_MAP = 22,
    PRODUCT_WORDS = 23
};

typedef struct product {
    product_case c;
    uint64_t words[PRODUCT_WORDS];
    void *x, *y;
    int32_t *offsets;
    float *want;    ///< [rows][n]
    int64_t owned;  ///< rows before this one are some expert's
    int64_t y_size; ///< of an element
    int64_t most_blocks; ///< 0: one for each tile
} product;

/// A template, its blocks, and the tile of the result that each makes.
typedef struct product_road {
    const char *kernel;
    int threads;
    int64_t shared, height, width;
} product_road;

extern const weight_kind weight_kinds[];
extern const int n_weight_kinds;

product product_of(const product_case *c);
/// Has w's tensor map among the words: boxes of 64 of k by `width` columns.
void product_map(product *p, int64_t width);
/// Runs a template; y is made anew. What was found, or NULL.
const char *product_try(product *p, const product_road *road);
void product_run(product *p, const product_road *road);
/// Fails unless y is what is wanted, within `tolerance`, and rows of nobody are not written.
void product_check(const product *p, const char *kernel, double tolerance);
/// One row alone, in a launch of its own: fails unless it has the bits it has among others.
void product_check_alone(product *p, int64_t row, const product_road *road);
/// Offsets of four experts that lie: whatever comes of it, it is read and written where there is something.
void product_check_lies(product *p, const product_road *road);

#endif
