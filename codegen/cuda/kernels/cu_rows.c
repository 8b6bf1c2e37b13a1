/* Norms and softmax over the last axis: a warp for a short row, a block for a long one; rows picked and combined. */
#include "codegen/cuda/kernels/cu_common.h"

enum { CU_ROWS_THREADS = 256, CU_ROWS_WARPS = CU_ROWS_THREADS / CU_WARP };

/// Who works on a row: a whole block, or one of its warps.
typedef struct cu_team {
    float *parts; ///< shared, for sums over the block; NULL: a warp
    int32_t member, members;
} cu_team;

PM_DEVICE cu_team team_of(float *parts)
{
    cu_team team;
    team.parts = parts;
    team.member = parts ? pm_thread() : pm_lane();
    team.members = parts ? pm_threads() : CU_WARP;
    return team;
}

PM_DEVICE float team_sum(const cu_team *team, float x)
{
    return team->parts ? pm_cu_block_sum(x, team->parts) : pm_cu_warp_sum(x);
}

PM_DEVICE float team_max(const cu_team *team, float x)
{
    return team->parts ? pm_cu_block_max(x, team->parts) : pm_cu_warp_max(x);
}

/// Row of a block, or of a warp where blocks hold one row for each.
PM_DEVICE int64_t row_of(int32_t is_block)
{
    return is_block ? pm_block() : pm_block() * CU_ROWS_WARPS + pm_warp();
}

PM_DEVICE void norm_row(const cu_team *team, const float *x, const float *scale, const float *bias,
                              float *out, int64_t columns, float eps, int32_t is_centred)
{
    float mean = 0.0f, square = 0.0f;
    if (is_centred) {
        for (int64_t i = team->member; i < columns; i += team->members)
            mean += x[i];
        mean = team_sum(team, mean) / (float)columns;
    }
    for (int64_t i = team->member; i < columns; i += team->members) {
        float d = x[i] - mean;
        square = pm_fmaf(d, d, square);
    }
    square = team_sum(team, square) / (float)columns;
    float factor = 1.0f / pm_sqrtf(square + eps);
    for (int64_t i = team->member; i < columns; i += team->members) {
        float y = (x[i] - mean) * factor * scale[i];
        out[i] = bias ? y + bias[i] : y;
    }
}

/* rms_norm (is_centred 0) and layer_norm; bias may be NULL. A block for each row. */
PM_GLOBAL void pm_cu_norm(const float *x, const float *scale, const float *bias, float *out, int64_t rows,
                          int64_t columns, int64_t eps, int64_t is_centred)
{
    PM_SHARED(float, parts, CU_ROWS_WARPS);
    cu_team team = team_of(parts);
    int64_t n = PM_FIXED(COLUMNS, columns), row = row_of(1);
    if (row < rows)
        norm_row(&team, x + row * n, scale, bias, out + row * n, n, (float)PM_WORD_F64(eps),
                       (int32_t)PM_FIXED(CENTRED, is_centred));
}

/* The same, a warp for each row. */
PM_GLOBAL void pm_cu_norm_short(const float *x, const float *scale, const float *bias, float *out, int64_t rows,
                                int64_t columns, int64_t eps, int64_t is_centred)
{
    cu_team team = team_of((float *)0);
    int64_t n = PM_FIXED(COLUMNS, columns), row = row_of(0);
    if (row < rows)
        norm_row(&team, x + row * n, scale, bias, out + row * n, n, (float)PM_WORD_F64(eps),
                       (int32_t)PM_FIXED(CENTRED, is_centred));
}

/// Each thread reads back what it wrote itself; x and out may be the same.
PM_DEVICE void softmax_row(const cu_team *team, const float *x, float *out, int64_t columns,
                                 int32_t is_log)
{
    float largest = -PM_INFINITY, sum = 0.0f;
    for (int64_t i = team->member; i < columns; i += team->members)
        largest = pm_cu_larger(largest, x[i]);
    largest = team_max(team, largest);
    for (int64_t i = team->member; i < columns; i += team->members) {
        float shifted = x[i] - largest, power = pm_expf(shifted);
        sum += power;
        out[i] = is_log ? shifted : power;
    }
    sum = team_sum(team, sum);
    if (is_log)
        sum = pm_logf(sum);
    for (int64_t i = team->member; i < columns; i += team->members)
        out[i] = is_log ? out[i] - sum : out[i] / sum;
}

PM_GLOBAL void pm_cu_softmax(const float *x, float *out, int64_t rows, int64_t columns, int64_t is_log)
{
    PM_SHARED(float, parts, CU_ROWS_WARPS);
    cu_team team = team_of(parts);
    int64_t n = PM_FIXED(COLUMNS, columns), row = row_of(1);
    if (row < rows)
        softmax_row(&team, x + row * n, out + row * n, n, (int32_t)PM_FIXED(LOG, is_log));
}

PM_GLOBAL void pm_cu_softmax_short(const float *x, float *out, int64_t rows, int64_t columns, int64_t is_log)
{
    cu_team team = team_of((float *)0);
    int64_t n = PM_FIXED(COLUMNS, columns), row = row_of(0);
    if (row < rows)
        softmax_row(&team, x + row * n, out + row * n, n, (int32_t)PM_FIXED(LOG, is_log));
}

/* See gather_rows in ir/ops.def; rows of `words` times 4 bytes. A block for each row; a number that isn't one of a
 * row of x is the data's fault, and its row becomes zeros. */
PM_GLOBAL void pm_cu_gather_rows(const uint32_t *x, const int32_t *token, uint32_t *out, int64_t rows,
                                 int64_t words, int64_t x_rows, int32_t *status, int64_t mark)
{
    int64_t n = PM_FIXED(WORDS, words), row = pm_block();
    if (row >= rows)
        return;
    int64_t from = token[row];
    int32_t is_there = from >= 0 && from < x_rows;
    if (!is_there && pm_thread() == 0)
        pm_fail(status, mark);
    for (int64_t i = pm_thread(); i < n; i += pm_threads())
        out[row * n + i] = is_there ? x[from * n + i] : 0u;
}

/* See combine in ir/ops.def: the choices in their order. A block for each piece of pm_threads() columns of a row. */
PM_GLOBAL void pm_cu_combine(const float *y, const int32_t *slot, const float *weight, float *out, int64_t m,
                             int64_t top_k, int64_t columns, int64_t y_rows, int32_t *status, int64_t mark)
{
    int64_t n = PM_FIXED(COLUMNS, columns), k = PM_FIXED(TOP_K, top_k);
    int64_t pieces = pm_cu_ceil_div(n, pm_threads()), row = pm_block() / pieces;
    int64_t column = pm_block() % pieces * pm_threads() + pm_thread();
    float sum = 0.0f;
    if (row >= m || column >= n)
        return;
    for (int64_t j = 0; j < k; j++) {
        int64_t from = slot[row * k + j];
        if (from < 0 || from >= y_rows) {
            pm_fail(status, mark);
            return;
        }
        sum = pm_fmaf(weight[row * k + j], y[from * n + column], sum);
    }
    out[row * n + column] = sum;
}
