/// Products, y [rows, n] = x [rows, k] w^T + bias: the words that all templates of linear and grouped_linear take, and
/// which rows a block has.
///
/// Grouped: rows are sorted by expert, expert e has rows offsets[e] to offsets[e + 1], and w is [experts, n, k]. Rows
/// behind the last offset are nobody's: they are not written. A weight has elements, or codes of few bits
/// (op dequantize): then w is [.., n, bytes], code i of a row is in the lowest bits first, and each `block` codes of a row
/// (0: all) share one of `scales` [.., n, blocks] and, in format CU_INT, of `zeros`.
///
/// Block b makes tile b / column_tiles of rows and tile b % column_tiles of columns (cu_product_sizes.h); there are as many
/// tiles of rows as there can be, whatever the offsets: pm_cu_rows_of finds a tile's rows, or that it has none.
#ifndef PM_CU_PRODUCT_H
#define PM_CU_PRODUCT_H

#include "codegen/cuda/kernels/cu_common.h"
#include "codegen/cuda/kernels/cu_product_sizes.h"

/* elements; CU_NONE: of zeros that are absent */
enum { CU_F32, CU_BF16, CU_F16, CU_U8, CU_NONE };
/* codes: unsigned minus zero (2^(bits - 1) without `zeros`); floats of 4 bits; floats of 8 bits */
enum { CU_INT, CU_E2M1, CU_E4M3 };

/* zeros: elements, or CU_U8: codes of `bits` bits, packed like w. Scales of CU_U8 are 2^(s - 127). expert_bytes: from one
 * expert's w to the next one's (scales, zeros and bias lie without gaps). A row of codes has no more bytes than it needs;
 * x and w begin at multiples of 16 bytes. bits 0: w has elements. rounds: factors are rounded to bf16 first. map: w as
 * the tensor memory accelerator takes it (pm_tma_load_3d: x in k, y in n, z the expert; boxes of 64 elements by
 * CU_WGMMA_COLUMNS rows, swizzled by 128 bytes); 0 where there is none. (The runtime knows these words as pm_rt_product_word.) */
#define CU_PRODUCT_PARAMETERS                                                                                   \
    const void *x, const void *w, const void *scales, const void *zeros, const int32_t *offsets, const void *bias,       \
        void *y, int64_t rows, int64_t n, int64_t k, int64_t experts, int64_t expert_bytes, int64_t x_elem,              \
        int64_t w_elem, int64_t y_elem, int64_t bias_elem, int64_t scale_elem, int64_t zero_elem, int64_t bits,          \
        int64_t block, int64_t format, int64_t rounds, const void *map

typedef struct cu_product {
    const void *x, *w, *scales, *zeros, *bias, *map;
    const int32_t *offsets; ///< NULL: one matrix for all rows
    void *y;
    int64_t rows, n, k, experts, expert_bytes;
    int64_t x_elem, w_elem, y_elem, bias_elem, scale_elem, zero_elem;
    int64_t bits, block, format, rounds;
} cu_product;

/// The words as a product; what is constant for a model is a constant.
#define CU_PRODUCT(p)                                                                                          \
    cu_product p;                                                                                              \
    p.x = x;                                                                                                   \
    p.w = w;                                                                                                   \
    p.scales = scales;                                                                                         \
    p.zeros = PM_FIXED(ZERO, zero_elem) == CU_NONE ? (const void *)0 : zeros;                                  \
    p.bias = bias;                                                                                             \
    p.map = map;                                                                                               \
    p.offsets = offsets;                                                                                       \
    p.y = y;                                                                                                   \
    p.rows = rows;                                                                                             \
    p.n = PM_FIXED(N, n);                                                                                      \
    p.k = PM_FIXED(K, k);                                                                                      \
    p.experts = PM_FIXED(EXPERTS, experts); /* 0: not grouped */                                               \
    p.expert_bytes = PM_FIXED(EXPERT_BYTES, expert_bytes);                                                     \
    p.x_elem = PM_FIXED(X, x_elem);                                                                            \
    p.w_elem = PM_FIXED(W, w_elem);                                                                            \
    p.y_elem = PM_FIXED(Y, y_elem);                                                                            \
    p.bias_elem = PM_FIXED(BIAS, bias_elem);                                                                   \
    p.scale_elem = PM_FIXED(SCALE, scale_elem);                                                                \
    p.zero_elem = PM_FIXED(ZERO, zero_elem);                                                                   \
    p.bits = PM_FIXED(BITS, bits);                                                                             \
    p.block = PM_FIXED(BLOCK, block);                                                                          \
    p.format = PM_FIXED(FORMAT, format);                                                                       \
    p.rounds = PM_FIXED(ROUNDS, rounds)

/// Rows first to first + count, of expert `expert` (0 when not grouped).
typedef struct cu_rows {
    int64_t first, count, expert;
} cu_rows;

/// Where expert e's rows begin, whatever the offsets say.
PM_DEVICE int64_t pm_cu_expert_begin(const cu_product *p, int64_t e)
{
    return pm_cu_max(0, pm_cu_min(p->offsets[e], p->rows));
}

/// An expert's rows; none of one that there isn't.
PM_DEVICE cu_rows pm_cu_expert_rows(const cu_product *p, int64_t e)
{
    cu_rows rows;
    rows.first = e < p->experts ? pm_cu_expert_begin(p, e) : 0;
    rows.count = e < p->experts ? pm_cu_max(0, pm_cu_expert_begin(p, e + 1) - rows.first) : 0;
    rows.expert = e;
    return rows;
}

/// Rows of tile number `tile` of `height` rows: an expert's tiles begin at its first row. Count 0: there is no such
/// tile. All threads of a block call it (whole warps): each warp looks at 32 experts at a time.
PM_DEVICE cu_rows pm_cu_rows_of(const cu_product *p, int64_t tile, int64_t height)
{
    cu_rows found;
    int64_t before = 0; /* tiles of the experts that were passed */
    found.first = tile * height;
    found.count = pm_cu_max(0, pm_cu_min(height, p->rows - found.first));
    found.expert = 0;
    if (p->experts == 0)
        return found;
    found.count = 0;
    cu_rows next = pm_cu_expert_rows(p, pm_lane());
    for (int64_t first = 0; first < p->experts; first += CU_WARP) {
        cu_rows own = next; /* while these are looked at, the next ones are on their way */
        next = pm_cu_expert_rows(p, own.expert + CU_WARP);
        int32_t tiles = (int32_t)pm_cu_ceil_div(own.count, height), sum;
        uint32_t some = pm_ballot(tiles > 0), several = pm_ballot(tiles > 1);
        if (several)
            sum = pm_cu_warp_sum_before(tiles);
        else
            sum = pm_cu_count_bits(some & 0xffffffffu >> (CU_WARP - 1 - pm_lane()));
        /* the first lane whose tiles reach beyond the wanted one */
        uint32_t reach = pm_ballot(before + sum > tile);
        if (reach) {
            int32_t lane = pm_cu_count_bits((reach & (0u - reach)) - 1u);
            int64_t passed = (int64_t)(int32_t)pm_shfl_u32((uint32_t)(sum - tiles), lane);
            int64_t start = (int64_t)(int32_t)pm_shfl_u32((uint32_t)(int32_t)own.first, lane);
            int64_t count = (int64_t)(int32_t)pm_shfl_u32((uint32_t)(int32_t)own.count, lane);
            int64_t skipped = (tile - before - passed) * height;
            found.expert = first + lane;
            found.first = start + skipped;
            found.count = pm_cu_min(height, count - skipped);
            return found;
        }
        before += (int64_t)(int32_t)pm_shfl_u32((uint32_t)sum, CU_WARP - 1);
    }
    return found;
}

#endif
