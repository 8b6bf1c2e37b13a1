/* Products of matrices, y [.., m, n] = a [.., m, k] b [.., k, n] in exact f32, either of them turned or not; batches
 * broadcast. Tiles, and columns of few rows. */
#include "codegen/cuda/kernels/cu_f32_tile.h"
#include "codegen/cuda/kernels/cu_matmul_sizes.h"

/* e…: extents of the batch, the last one inside; a…, b…: how many matrices further an operand is from one to the next of
 * each (0: the same again). is_turned_a: a's matrices are [k, m]; b: [n, k]. elem: of all three. */
#define CU_MATMUL_PARAMETERS                                                                                   \
    const void *a, const void *b, void *y, int64_t m, int64_t n, int64_t k, int64_t e0, int64_t e1, int64_t e2, int64_t e3,  \
        int64_t a0, int64_t a1, int64_t a2, int64_t a3, int64_t b0, int64_t b1, int64_t b2, int64_t b3,                  \
        int64_t is_turned_a, int64_t is_turned_b, int64_t elem

/// One matrix of an operand, as lines of k: of b, its columns.
typedef struct cu_side {
    const void *data;
    int64_t first;      ///< element
    int64_t lines, k, elem;
    int32_t is_turned;  ///< k is the outer extent
    int32_t is_even;    ///< eights of the inner extent are there or not, at multiples of 16 bytes
} cu_side;

/// What a block has to do: one matrix, and which tile of it.
typedef struct cu_matmul {
    cu_side a, b;
    void *y;
    int64_t m, n, k, elem, y_first, row0, column0;
} cu_matmul;

PM_DEVICE cu_side side_of(const void *data, int64_t matrix, int64_t lines, int64_t k, int64_t elem, int32_t is_turned)
{
    cu_side s;
    s.data = data;
    s.first = matrix * lines * k;
    s.lines = lines;
    s.k = k;
    s.elem = elem;
    s.is_turned = is_turned;
    s.is_even = (is_turned ? lines : k) % CU_EIGHT == 0;
    return s;
}

/// Which matrix a block's is, of an operand, from its number.
PM_DEVICE int64_t matrix_of(int64_t number, const int64_t *extents, const int64_t *steps)
{
    int64_t matrix = 0;
    PM_UNROLL for (int32_t d = CU_MATMUL_BATCH - 1; d >= 0; d--)
    {
        matrix += number % extents[d] * steps[d];
        number /= extents[d];
    }
    return matrix;
}

/// The words as what this block has to do; what is constant for a model is a constant.
#define CU_MATMUL(t, height, width)                                                                            \
    cu_matmul t;                                                                                               \
    t.y = y;                                                                                                   \
    t.m = PM_FIXED(M, m);                                                                                      \
    t.n = PM_FIXED(N, n);                                                                                      \
    t.k = PM_FIXED(K, k);                                                                                      \
    t.elem = PM_FIXED(ELEM, elem);                                                                             \
    {                                                                                                          \
        const int64_t extents[CU_MATMUL_BATCH] = {e0, e1, e2, e3};                                             \
        const int64_t a_steps[CU_MATMUL_BATCH] = {a0, a1, a2, a3}, b_steps[CU_MATMUL_BATCH] = {b0, b1, b2, b3}; \
        int64_t columns = pm_cu_ceil_div(t.n, width), tiles = pm_cu_ceil_div(t.m, height) * columns;           \
        int64_t number = pm_block() / tiles;                                                                   \
        t.y_first = number * t.m * t.n;                                                                        \
        t.row0 = pm_block() % tiles / columns * (height);                                                      \
        t.column0 = pm_block() % columns * (width);                                                            \
        t.a = side_of(a, matrix_of(number, extents, a_steps), t.m, t.k, t.elem,                                \
                      (int32_t)PM_FIXED(TURNED_A, is_turned_a));                                               \
        t.b = side_of(b, matrix_of(number, extents, b_steps), t.n, t.k, t.elem,                                \
                      !PM_FIXED(TURNED_B, is_turned_b));                                                       \
    }

/// Eight elements that lie together: of line `line` from k on, or turned of k `k` from line on.
PM_DEVICE void side_load(const cu_side *s, int64_t line, int64_t k, uint32_t *words)
{
    int64_t i = s->first + (s->is_turned ? k * s->lines + line : line * s->k + k);
    int64_t count = s->is_turned ? s->lines - line : s->k - k;
    if (s->is_turned ? k >= s->k : line >= s->lines)
        count = 0;
    pm_cu_load_eight(words, s->data, s->elem, i, count, s->is_even);
}

/* ---- tiles ------------------------------------------------------------------------------------------------- */

/* A side whose lines hold k goes as factors of products do, eight of a line to a thread. One that is turned: a thread has
 * eight lines at one k, lanes 0 to 15 the step's k of one group of lines, the others those of the next; they write one
 * line at a time, half a group apart, so that all banks are touched. */

PM_DEVICE void tile_load(const cu_side *s, int64_t line0, int64_t k0, uint32_t *words)
{
    if (s->is_turned)
        side_load(s, line0 + pm_thread() / CU_F32_STEP * CU_EIGHT, k0 + pm_thread() % CU_F32_STEP, words);
    else
        side_load(s, line0 + pm_cu_f32_row(), k0 + pm_cu_f32_k(), words);
}

PM_DEVICE void tile_store(const cu_side *s, const uint32_t *words, float *tile)
{
    float eight[CU_EIGHT];
    pm_cu_eight_as_floats(words, s->elem, eight);
    if (!s->is_turned) {
        pm_cu_f32_put(tile, eight);
        return;
    }
    int32_t is_second = pm_lane() >= CU_F32_STEP;
    float *to = tile + pm_thread() / CU_F32_STEP * CU_EIGHT * CU_F32_LD + pm_thread() % CU_F32_STEP;
    PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
        to[(is_second ? j ^ 4 : j) * CU_F32_LD] = is_second ? eight[j ^ 4] : eight[j];
}

#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(CU_F32_THREADS, 4)
/* CU_MATMUL_ROWS rows by CU_MATMUL_COLUMNS columns of one matrix. */
PM_GLOBAL void pm_cu_matmul(CU_MATMUL_PARAMETERS)
{
    PM_SHARED(float, a_tiles, 2 * CU_F32_SIDE);
    PM_SHARED(float, b_tiles, 2 * CU_F32_SIDE);
    CU_MATMUL(t, CU_MATMUL_ROWS, CU_MATMUL_COLUMNS);
    uint32_t a_words[CU_EIGHT], b_words[CU_EIGHT];
    float sum[CU_F32_HIGH][CU_F32_WIDE];
    pm_cu_f32_clear(sum);
    tile_load(&t.a, t.row0, 0, a_words);
    tile_load(&t.b, t.column0, 0, b_words);
    tile_store(&t.a, a_words, a_tiles);
    tile_store(&t.b, b_words, b_tiles);
    pm_sync();
    for (int64_t k0 = 0, stage = 0; k0 < t.k; k0 += CU_F32_STEP, stage ^= 1) {
        int64_t next = k0 + CU_F32_STEP, there = (stage ^ 1) * CU_F32_SIDE;
        if (next < t.k) {
            tile_load(&t.a, t.row0, next, a_words);
            tile_load(&t.b, t.column0, next, b_words);
        }
        pm_cu_f32_multiply(a_tiles + stage * CU_F32_SIDE, b_tiles + stage * CU_F32_SIDE, sum);
        if (next < t.k) {
            tile_store(&t.a, a_words, a_tiles + there);
            tile_store(&t.b, b_words, b_tiles + there);
        }
        pm_sync();
    }
    PM_UNROLL for (int32_t i = 0; i < CU_F32_HIGH * CU_F32_WIDE; i++)
    {
        int64_t row = t.row0 + pm_thread() / CU_F32_X + i / CU_F32_WIDE * CU_F32_Y;
        int64_t column = t.column0 + pm_thread() % CU_F32_X + i % CU_F32_WIDE * CU_F32_X;
        if (row < t.m && column < t.n)
            pm_cu_store(t.y, t.elem, t.y_first + row * t.n + column, sum[i / CU_F32_WIDE][i % CU_F32_WIDE]);
    }
}

/* ---- few rows ---------------------------------------------------------------------------------------------- */

/* Eight warps share k; each takes eight of it at a time, for all columns of the block. Where b's lines hold k, the
 * lanes are columns that read eight factors each; where they hold columns, neighbours read neighbours. Sums: a warp's
 * factors in order, warps in order. */
enum { MATMUL_FEW_WARPS = 8, MATMUL_FEW_STEP = MATMUL_FEW_WARPS * CU_EIGHT };

/// Eight factors of a column, from k on.
PM_DEVICE void few_column(const cu_side *s, int64_t column, int64_t k, float *out)
{
    if (!s->is_turned) {
        uint32_t words[CU_EIGHT];
        side_load(s, column, k, words);
        pm_cu_eight_as_floats(words, s->elem, out);
        return;
    }
    PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
        out[j] = k + j < s->k && column < s->lines
                     ? pm_cu_element(s->data, s->elem, s->first + (k + j) * s->lines + column)
                     : 0.0f;
}

/* CU_MATMUL_FEW_ROWS rows by CU_MATMUL_FEW_COLUMNS columns of one matrix. */
#undef PM_BOUNDS
#define PM_BOUNDS PM_AT_ONCE(MATMUL_FEW_WARPS * CU_WARP, 3)
PM_GLOBAL void pm_cu_matmul_few(CU_MATMUL_PARAMETERS)
{
    PM_SHARED(float, parts, MATMUL_FEW_WARPS * CU_MATMUL_FEW_ROWS * CU_WARP);
    CU_MATMUL(t, CU_MATMUL_FEW_ROWS, CU_MATMUL_FEW_COLUMNS);
    int64_t rows = pm_cu_min(CU_MATMUL_FEW_ROWS, t.m - t.row0), column = t.column0 + pm_lane();
    float sum[CU_MATMUL_FEW_ROWS];
    PM_UNROLL for (int32_t r = 0; r < CU_MATMUL_FEW_ROWS; r++)
        sum[r] = 0.0f;
    for (int64_t k0 = pm_warp() * CU_EIGHT; k0 < t.k; k0 += MATMUL_FEW_STEP) {
        float b_eight[CU_EIGHT], a_eight[CU_EIGHT];
        few_column(&t.b, column, k0, b_eight);
        PM_UNROLL for (int32_t r = 0; r < CU_MATMUL_FEW_ROWS; r++)
        {
            if (r >= rows)
                break;
            few_column(&t.a, t.row0 + r, k0, a_eight);
            PM_UNROLL for (int32_t j = 0; j < CU_EIGHT; j++)
                sum[r] = pm_fmaf(a_eight[j], b_eight[j], sum[r]);
        }
    }
    PM_UNROLL for (int32_t r = 0; r < CU_MATMUL_FEW_ROWS; r++)
        parts[(pm_warp() * CU_MATMUL_FEW_ROWS + r) * CU_WARP + pm_lane()] = sum[r];
    pm_sync();
    /* warp r has row r */
    if (pm_warp() >= rows || column >= t.n)
        return;
    float total = 0.0f;
    for (int32_t w = 0; w < MATMUL_FEW_WARPS; w++)
        total += parts[(w * CU_MATMUL_FEW_ROWS + pm_warp()) * CU_WARP + pm_lane()];
    pm_cu_store(t.y, t.elem, t.y_first + (t.row0 + pm_warp()) * t.n + column, total);
}
