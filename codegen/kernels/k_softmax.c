/* Softmax of rows: each exponential is computed once. */
#include "codegen/kernels/math_inline.h"

PM_INLINE float softmax_largest(const float *x, int64_t columns)
{
    pm_vf most = pm_v_splat(-__builtin_inff()), more = most;
    float largest = -__builtin_inff();
    int64_t i = 0;
    PM_NO_UNROLL for (; i + 2 * PM_VW <= columns; i += 2 * PM_VW)
    {
        most = pm_v_max(most, pm_v_load(x + i));
        more = pm_v_max(more, pm_v_load(x + i + PM_VW));
    }
    PM_NO_UNROLL for (; i < columns; i++)
        largest = largest > x[i] ? largest : x[i];
    float of_vectors = pm_v_largest(pm_v_max(most, more));
    return largest > of_vectors ? largest : of_vectors;
}

/// exp(x - largest) to out; their sum. A NaN in the row makes the sum one, and so the whole row.
PM_INLINE float softmax_exponentials(const float *x, float *out, int64_t columns, float largest)
{
    pm_vf sum = pm_v_splat(0.0f), sum_too = sum;
    int64_t i = 0;
    PM_NO_UNROLL for (; i + 2 * PM_VW <= columns; i += 2 * PM_VW)
    {
        pm_vf a = pm_v_exp(pm_v_load(x + i) - pm_v_splat(largest));
        pm_vf b = pm_v_exp(pm_v_load(x + i + PM_VW) - pm_v_splat(largest));
        pm_v_store(out + i, a);
        pm_v_store(out + i + PM_VW, b);
        sum = sum + a;
        sum_too = sum_too + b;
    }
    float total = pm_v_sum(sum + sum_too);
    PM_NO_UNROLL for (; i < columns; i++)
    {
        out[i] = pm_s_exp(x[i] - largest);
        total += out[i];
    }
    return total;
}

PM_KERNEL void pm_k_softmax(const float *x, float *out, int64_t rows, int64_t columns,
                            int64_t worker, int64_t n_workers)
{
    int64_t begin, end;
    pm_share(rows, worker, n_workers, &begin, &end);
    PM_NO_UNROLL for (int64_t row = begin; row < end; row++)
    {
        const float *from = x + row * columns;
        float *to = out + row * columns, sum;
        sum = softmax_exponentials(from, to, columns, softmax_largest(from, columns));
        int64_t i = 0;
        PM_NO_UNROLL for (; i + PM_VW <= columns; i += PM_VW)
            pm_v_store(to + i, pm_v_load(to + i) / pm_v_splat(sum));
        PM_NO_UNROLL for (; i < columns; i++)
            to[i] = to[i] / sum;
    }
}
