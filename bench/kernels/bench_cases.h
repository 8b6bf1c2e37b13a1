/* The cases of bench_kernels.c: included once to define their functions, and once (with BENCH_TABLE) to list them. */

#if PM_VW == 16
#ifndef BENCH_TABLE
LINEAR(f32, float, float, 64, 1, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 2, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 4, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 6, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 8, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 16, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 64, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 512, 1024, 1024, 0)
LINEAR(f32, float, float, 64, 1, 256, 256, 0)
LINEAR(f32, float, float, 64, 64, 256, 256, 0)
LINEAR(f32, float, float, 64, 512, 256, 256, 0)
LINEAR(f32, float, float, 64, 1, 4096, 4096, 1)
LINEAR(f32, float, float, 64, 4, 4096, 4096, 1)
LINEAR(f32, float, float, 64, 64, 4096, 4096, 1)
LINEAR(f32, float, float, 64, 512, 4096, 4096, 1)
LINEAR(f32, float, float, 16, 512, 16, 256, 0)
LINEAR(f32, float, float, 16, 1, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 64, 1, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 2, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 4, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 6, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 8, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 16, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 64, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 512, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 64, 1, 256, 256, 0)
LINEAR(b16, float, uint16_t, 64, 64, 256, 256, 0)
LINEAR(b16, float, uint16_t, 64, 512, 256, 256, 0)
LINEAR(b16, float, uint16_t, 64, 1, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 64, 4, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 64, 64, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 64, 512, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 16, 512, 16, 256, 0)
LINEAR(b16, float, uint16_t, 16, 1, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 64, 1, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 2, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 4, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 6, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 8, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 16, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 64, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 512, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 1, 256, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 64, 256, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 512, 256, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 64, 1, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 64, 4, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 64, 64, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 64, 512, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 16, 512, 16, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 1, 4096, 4096, 1)
GROUPED(f32, float, float, 64, even, 512, 256)
GROUPED(f32, float, float, 64, ragged, 512, 256)
GROUPED(f32, float, float, 64, two, 512, 256)
GROUPED(b16, float, uint16_t, 64, even, 512, 256)
GROUPED(b16, float, uint16_t, 64, ragged, 512, 256)
GROUPED(b16, float, uint16_t, 64, two, 512, 256)
GROUPED(dot, uint16_t, uint16_t, 64, even, 512, 256)
GROUPED(dot, uint16_t, uint16_t, 64, ragged, 512, 256)
GROUPED(dot, uint16_t, uint16_t, 64, two, 512, 256)
#else
    {"linear f32 p64 1 x 1024 x 1024", linear_f32_64_1_1024_1024, BY_FMA, 2097152.0, 95, 1e9},
    {"linear f32 p64 2 x 1024 x 1024", linear_f32_64_2_1024_1024, BY_FMA, 4194304.0, 47, 1e9},
    {"linear f32 p64 4 x 1024 x 1024", linear_f32_64_4_1024_1024, BY_FMA, 8388608.0, 23, 1e9},
    {"linear f32 p64 6 x 1024 x 1024", linear_f32_64_6_1024_1024, BY_FMA, 12582912.0, 15, 1e9},
    {"linear f32 p64 8 x 1024 x 1024", linear_f32_64_8_1024_1024, BY_FMA, 16777216.0, 11, 1e9},
    {"linear f32 p64 16 x 1024 x 1024", linear_f32_64_16_1024_1024, BY_FMA, 33554432.0, 5, 1e9},
    {"linear f32 p64 64 x 1024 x 1024", linear_f32_64_64_1024_1024, BY_FMA, 134217728.0, 1, 1e9},
    {"linear f32 p64 512 x 1024 x 1024", linear_f32_64_512_1024_1024, BY_FMA, 1073741824.0, 1, 1e9},
    {"linear f32 p64 1 x 256 x 256", linear_f32_64_1_256_256, BY_FMA, 131072.0, 1525, 1e9},
    {"linear f32 p64 64 x 256 x 256", linear_f32_64_64_256_256, BY_FMA, 8388608.0, 23, 1e9},
    {"linear f32 p64 512 x 256 x 256", linear_f32_64_512_256_256, BY_FMA, 67108864.0, 2, 1e9},
    {"linear f32 p64 1 x 4096 x 4096 walk", linear_f32_64_1_4096_4096, BY_READ, 67108864.0, 1, 1e9},
    {"linear f32 p64 4 x 4096 x 4096 walk", linear_f32_64_4_4096_4096, BY_READ, 67108864.0, 1, 1e9},
    {"linear f32 p64 64 x 4096 x 4096 walk", linear_f32_64_64_4096_4096, BY_FMA, 2147483648.0, 1, 1e9},
    {"linear f32 p64 512 x 4096 x 4096 walk", linear_f32_64_512_4096_4096, BY_FMA, 17179869184.0, 1, 1e9},
    {"linear f32 p16 512 x 16 x 256", linear_f32_16_512_16_256, BY_FMA, 4194304.0, 47, 1e9},
    {"linear f32 p16 1 x 4096 x 4096 walk", linear_f32_16_1_4096_4096, BY_READ, 67108864.0, 1, 1e9},
    {"linear b16 p64 1 x 1024 x 1024", linear_b16_64_1_1024_1024, BY_FMA, 2097152.0, 95, 1e9},
    {"linear b16 p64 2 x 1024 x 1024", linear_b16_64_2_1024_1024, BY_FMA, 4194304.0, 47, 1e9},
    {"linear b16 p64 4 x 1024 x 1024", linear_b16_64_4_1024_1024, BY_FMA, 8388608.0, 23, 1e9},
    {"linear b16 p64 6 x 1024 x 1024", linear_b16_64_6_1024_1024, BY_FMA, 12582912.0, 15, 1e9},
    {"linear b16 p64 8 x 1024 x 1024", linear_b16_64_8_1024_1024, BY_FMA, 16777216.0, 11, 1e9},
    {"linear b16 p64 16 x 1024 x 1024", linear_b16_64_16_1024_1024, BY_FMA, 33554432.0, 5, 1e9},
    {"linear b16 p64 64 x 1024 x 1024", linear_b16_64_64_1024_1024, BY_FMA, 134217728.0, 1, 1e9},
    {"linear b16 p64 512 x 1024 x 1024", linear_b16_64_512_1024_1024, BY_FMA, 1073741824.0, 1, 1e9},
    {"linear b16 p64 1 x 256 x 256", linear_b16_64_1_256_256, BY_FMA, 131072.0, 1525, 1e9},
    {"linear b16 p64 64 x 256 x 256", linear_b16_64_64_256_256, BY_FMA, 8388608.0, 23, 1e9},
    {"linear b16 p64 512 x 256 x 256", linear_b16_64_512_256_256, BY_FMA, 67108864.0, 2, 1e9},
    {"linear b16 p64 1 x 4096 x 4096 walk", linear_b16_64_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear b16 p64 4 x 4096 x 4096 walk", linear_b16_64_4_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear b16 p64 64 x 4096 x 4096 walk", linear_b16_64_64_4096_4096, BY_FMA, 2147483648.0, 1, 1e9},
    {"linear b16 p64 512 x 4096 x 4096 walk", linear_b16_64_512_4096_4096, BY_FMA, 17179869184.0, 1, 1e9},
    {"linear b16 p16 512 x 16 x 256", linear_b16_16_512_16_256, BY_FMA, 4194304.0, 47, 1e9},
    {"linear b16 p16 1 x 4096 x 4096 walk", linear_b16_16_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear dot p64 1 x 1024 x 1024", linear_dot_64_1_1024_1024, BY_DOT, 2097152.0, 95, 1e9},
    {"linear dot p64 2 x 1024 x 1024", linear_dot_64_2_1024_1024, BY_DOT, 4194304.0, 47, 1e9},
    {"linear dot p64 4 x 1024 x 1024", linear_dot_64_4_1024_1024, BY_DOT, 8388608.0, 23, 1e9},
    {"linear dot p64 6 x 1024 x 1024", linear_dot_64_6_1024_1024, BY_DOT, 12582912.0, 15, 1e9},
    {"linear dot p64 8 x 1024 x 1024", linear_dot_64_8_1024_1024, BY_DOT, 16777216.0, 11, 1e9},
    {"linear dot p64 16 x 1024 x 1024", linear_dot_64_16_1024_1024, BY_DOT, 33554432.0, 5, 1e9},
    {"linear dot p64 64 x 1024 x 1024", linear_dot_64_64_1024_1024, BY_DOT, 134217728.0, 1, 1e9},
    {"linear dot p64 512 x 1024 x 1024", linear_dot_64_512_1024_1024, BY_DOT, 1073741824.0, 1, 1e9},
    {"linear dot p64 1 x 256 x 256", linear_dot_64_1_256_256, BY_DOT, 131072.0, 1525, 1e9},
    {"linear dot p64 64 x 256 x 256", linear_dot_64_64_256_256, BY_DOT, 8388608.0, 23, 1e9},
    {"linear dot p64 512 x 256 x 256", linear_dot_64_512_256_256, BY_DOT, 67108864.0, 2, 1e9},
    {"linear dot p64 1 x 4096 x 4096 walk", linear_dot_64_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear dot p64 4 x 4096 x 4096 walk", linear_dot_64_4_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear dot p64 64 x 4096 x 4096 walk", linear_dot_64_64_4096_4096, BY_DOT, 2147483648.0, 1, 1e9},
    {"linear dot p64 512 x 4096 x 4096 walk", linear_dot_64_512_4096_4096, BY_DOT, 17179869184.0, 1, 1e9},
    {"linear dot p16 512 x 16 x 256", linear_dot_16_512_16_256, BY_DOT, 4194304.0, 47, 1e9},
    {"linear dot p16 1 x 4096 x 4096 walk", linear_dot_16_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"grouped f32 even 512 x 256", grouped_f32_64_even_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped f32 ragged 512 x 256", grouped_f32_64_ragged_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped f32 two 512 x 256", grouped_f32_64_two_512_256, BY_FMA, 524288.0, 381, 1e9},
    {"grouped b16 even 512 x 256", grouped_b16_64_even_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped b16 ragged 512 x 256", grouped_b16_64_ragged_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped b16 two 512 x 256", grouped_b16_64_two_512_256, BY_FMA, 524288.0, 381, 1e9},
    {"grouped dot even 512 x 256", grouped_dot_64_even_512_256, BY_DOT, 268435456.0, 1, 1e9},
    {"grouped dot ragged 512 x 256", grouped_dot_64_ragged_512_256, BY_DOT, 268435456.0, 1, 1e9},
    {"grouped dot two 512 x 256", grouped_dot_64_two_512_256, BY_DOT, 524288.0, 381, 1e9},
#endif
#else
#ifndef BENCH_TABLE
LINEAR(f32, float, float, 16, 1, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 2, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 4, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 6, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 8, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 16, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 64, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 512, 1024, 1024, 0)
LINEAR(f32, float, float, 16, 1, 256, 256, 0)
LINEAR(f32, float, float, 16, 64, 256, 256, 0)
LINEAR(f32, float, float, 16, 512, 256, 256, 0)
LINEAR(f32, float, float, 16, 1, 4096, 4096, 1)
LINEAR(f32, float, float, 16, 4, 4096, 4096, 1)
LINEAR(f32, float, float, 16, 64, 4096, 4096, 1)
LINEAR(f32, float, float, 16, 512, 4096, 4096, 1)
LINEAR(f32, float, float, 8, 512, 16, 256, 0)
LINEAR(f32, float, float, 8, 1, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 16, 1, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 2, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 4, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 6, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 8, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 16, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 64, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 512, 1024, 1024, 0)
LINEAR(b16, float, uint16_t, 16, 1, 256, 256, 0)
LINEAR(b16, float, uint16_t, 16, 64, 256, 256, 0)
LINEAR(b16, float, uint16_t, 16, 512, 256, 256, 0)
LINEAR(b16, float, uint16_t, 16, 1, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 16, 4, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 16, 64, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 16, 512, 4096, 4096, 1)
LINEAR(b16, float, uint16_t, 8, 512, 16, 256, 0)
LINEAR(b16, float, uint16_t, 8, 1, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 16, 1, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 2, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 4, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 6, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 8, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 16, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 64, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 512, 1024, 1024, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 1, 256, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 64, 256, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 512, 256, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 16, 1, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 16, 4, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 16, 64, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 16, 512, 4096, 4096, 1)
LINEAR(dot, uint16_t, uint16_t, 8, 512, 16, 256, 0)
LINEAR(dot, uint16_t, uint16_t, 8, 1, 4096, 4096, 1)
GROUPED(f32, float, float, 16, even, 512, 256)
GROUPED(f32, float, float, 16, ragged, 512, 256)
GROUPED(f32, float, float, 16, two, 512, 256)
GROUPED(b16, float, uint16_t, 16, even, 512, 256)
GROUPED(b16, float, uint16_t, 16, ragged, 512, 256)
GROUPED(b16, float, uint16_t, 16, two, 512, 256)
GROUPED(dot, uint16_t, uint16_t, 16, even, 512, 256)
GROUPED(dot, uint16_t, uint16_t, 16, ragged, 512, 256)
GROUPED(dot, uint16_t, uint16_t, 16, two, 512, 256)
#else
    {"linear f32 p16 1 x 1024 x 1024", linear_f32_16_1_1024_1024, BY_FMA, 2097152.0, 95, 1e9},
    {"linear f32 p16 2 x 1024 x 1024", linear_f32_16_2_1024_1024, BY_FMA, 4194304.0, 47, 1e9},
    {"linear f32 p16 4 x 1024 x 1024", linear_f32_16_4_1024_1024, BY_FMA, 8388608.0, 23, 1e9},
    {"linear f32 p16 6 x 1024 x 1024", linear_f32_16_6_1024_1024, BY_FMA, 12582912.0, 15, 1e9},
    {"linear f32 p16 8 x 1024 x 1024", linear_f32_16_8_1024_1024, BY_FMA, 16777216.0, 11, 1e9},
    {"linear f32 p16 16 x 1024 x 1024", linear_f32_16_16_1024_1024, BY_FMA, 33554432.0, 5, 1e9},
    {"linear f32 p16 64 x 1024 x 1024", linear_f32_16_64_1024_1024, BY_FMA, 134217728.0, 1, 1e9},
    {"linear f32 p16 512 x 1024 x 1024", linear_f32_16_512_1024_1024, BY_FMA, 1073741824.0, 1, 1e9},
    {"linear f32 p16 1 x 256 x 256", linear_f32_16_1_256_256, BY_FMA, 131072.0, 1525, 1e9},
    {"linear f32 p16 64 x 256 x 256", linear_f32_16_64_256_256, BY_FMA, 8388608.0, 23, 1e9},
    {"linear f32 p16 512 x 256 x 256", linear_f32_16_512_256_256, BY_FMA, 67108864.0, 2, 1e9},
    {"linear f32 p16 1 x 4096 x 4096 walk", linear_f32_16_1_4096_4096, BY_READ, 67108864.0, 1, 1e9},
    {"linear f32 p16 4 x 4096 x 4096 walk", linear_f32_16_4_4096_4096, BY_READ, 67108864.0, 1, 1e9},
    {"linear f32 p16 64 x 4096 x 4096 walk", linear_f32_16_64_4096_4096, BY_FMA, 2147483648.0, 1, 1e9},
    {"linear f32 p16 512 x 4096 x 4096 walk", linear_f32_16_512_4096_4096, BY_FMA, 17179869184.0, 1, 1e9},
    {"linear f32 p8 512 x 16 x 256", linear_f32_8_512_16_256, BY_FMA, 4194304.0, 47, 1e9},
    {"linear f32 p8 1 x 4096 x 4096 walk", linear_f32_8_1_4096_4096, BY_READ, 67108864.0, 1, 1e9},
    {"linear b16 p16 1 x 1024 x 1024", linear_b16_16_1_1024_1024, BY_FMA, 2097152.0, 95, 1e9},
    {"linear b16 p16 2 x 1024 x 1024", linear_b16_16_2_1024_1024, BY_FMA, 4194304.0, 47, 1e9},
    {"linear b16 p16 4 x 1024 x 1024", linear_b16_16_4_1024_1024, BY_FMA, 8388608.0, 23, 1e9},
    {"linear b16 p16 6 x 1024 x 1024", linear_b16_16_6_1024_1024, BY_FMA, 12582912.0, 15, 1e9},
    {"linear b16 p16 8 x 1024 x 1024", linear_b16_16_8_1024_1024, BY_FMA, 16777216.0, 11, 1e9},
    {"linear b16 p16 16 x 1024 x 1024", linear_b16_16_16_1024_1024, BY_FMA, 33554432.0, 5, 1e9},
    {"linear b16 p16 64 x 1024 x 1024", linear_b16_16_64_1024_1024, BY_FMA, 134217728.0, 1, 1e9},
    {"linear b16 p16 512 x 1024 x 1024", linear_b16_16_512_1024_1024, BY_FMA, 1073741824.0, 1, 1e9},
    {"linear b16 p16 1 x 256 x 256", linear_b16_16_1_256_256, BY_FMA, 131072.0, 1525, 1e9},
    {"linear b16 p16 64 x 256 x 256", linear_b16_16_64_256_256, BY_FMA, 8388608.0, 23, 1e9},
    {"linear b16 p16 512 x 256 x 256", linear_b16_16_512_256_256, BY_FMA, 67108864.0, 2, 1e9},
    {"linear b16 p16 1 x 4096 x 4096 walk", linear_b16_16_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear b16 p16 4 x 4096 x 4096 walk", linear_b16_16_4_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear b16 p16 64 x 4096 x 4096 walk", linear_b16_16_64_4096_4096, BY_FMA, 2147483648.0, 1, 1e9},
    {"linear b16 p16 512 x 4096 x 4096 walk", linear_b16_16_512_4096_4096, BY_FMA, 17179869184.0, 1, 1e9},
    {"linear b16 p8 512 x 16 x 256", linear_b16_8_512_16_256, BY_FMA, 4194304.0, 47, 1e9},
    {"linear b16 p8 1 x 4096 x 4096 walk", linear_b16_8_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear dot p16 1 x 1024 x 1024", linear_dot_16_1_1024_1024, BY_DOT, 2097152.0, 95, 1e9},
    {"linear dot p16 2 x 1024 x 1024", linear_dot_16_2_1024_1024, BY_DOT, 4194304.0, 47, 1e9},
    {"linear dot p16 4 x 1024 x 1024", linear_dot_16_4_1024_1024, BY_DOT, 8388608.0, 23, 1e9},
    {"linear dot p16 6 x 1024 x 1024", linear_dot_16_6_1024_1024, BY_DOT, 12582912.0, 15, 1e9},
    {"linear dot p16 8 x 1024 x 1024", linear_dot_16_8_1024_1024, BY_DOT, 16777216.0, 11, 1e9},
    {"linear dot p16 16 x 1024 x 1024", linear_dot_16_16_1024_1024, BY_DOT, 33554432.0, 5, 1e9},
    {"linear dot p16 64 x 1024 x 1024", linear_dot_16_64_1024_1024, BY_DOT, 134217728.0, 1, 1e9},
    {"linear dot p16 512 x 1024 x 1024", linear_dot_16_512_1024_1024, BY_DOT, 1073741824.0, 1, 1e9},
    {"linear dot p16 1 x 256 x 256", linear_dot_16_1_256_256, BY_DOT, 131072.0, 1525, 1e9},
    {"linear dot p16 64 x 256 x 256", linear_dot_16_64_256_256, BY_DOT, 8388608.0, 23, 1e9},
    {"linear dot p16 512 x 256 x 256", linear_dot_16_512_256_256, BY_DOT, 67108864.0, 2, 1e9},
    {"linear dot p16 1 x 4096 x 4096 walk", linear_dot_16_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear dot p16 4 x 4096 x 4096 walk", linear_dot_16_4_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"linear dot p16 64 x 4096 x 4096 walk", linear_dot_16_64_4096_4096, BY_DOT, 2147483648.0, 1, 1e9},
    {"linear dot p16 512 x 4096 x 4096 walk", linear_dot_16_512_4096_4096, BY_DOT, 17179869184.0, 1, 1e9},
    {"linear dot p8 512 x 16 x 256", linear_dot_8_512_16_256, BY_DOT, 4194304.0, 47, 1e9},
    {"linear dot p8 1 x 4096 x 4096 walk", linear_dot_8_1_4096_4096, BY_READ, 33554432.0, 1, 1e9},
    {"grouped f32 even 512 x 256", grouped_f32_16_even_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped f32 ragged 512 x 256", grouped_f32_16_ragged_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped f32 two 512 x 256", grouped_f32_16_two_512_256, BY_FMA, 524288.0, 381, 1e9},
    {"grouped b16 even 512 x 256", grouped_b16_16_even_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped b16 ragged 512 x 256", grouped_b16_16_ragged_512_256, BY_FMA, 268435456.0, 1, 1e9},
    {"grouped b16 two 512 x 256", grouped_b16_16_two_512_256, BY_FMA, 524288.0, 381, 1e9},
    {"grouped dot even 512 x 256", grouped_dot_16_even_512_256, BY_DOT, 268435456.0, 1, 1e9},
    {"grouped dot ragged 512 x 256", grouped_dot_16_ragged_512_256, BY_DOT, 268435456.0, 1, 1e9},
    {"grouped dot two 512 x 256", grouped_dot_16_two_512_256, BY_DOT, 524288.0, 381, 1e9},
#endif
#endif
#ifndef BENCH_TABLE
ATTENTION(512, 0, 8, 4, 32, 1024)
ATTENTION(512, 0, 8, 4, 64, 1024)
ATTENTION(512, 0, 8, 4, 128, 1024)
ATTENTION(1, 1000, 8, 4, 32, 1024)
ATTENTION(1, 65000, 8, 4, 64, 65536)
MATMUL(64, 512, 64, 1)
MATMUL(512, 64, 512, 0)
MATMUL(256, 256, 256, 0)
MATMUL(1, 512, 64, 1)
#else
    {"attention 512 past 0, 8/4 x 32", attention_512_0_8_4_32, BY_FMA, 134479872.0, 1, 1e9},
    {"attention 512 past 0, 8/4 x 64", attention_512_0_8_4_64, BY_FMA, 268959744.0, 1, 1e9},
    {"attention 512 past 0, 8/4 x 128", attention_512_0_8_4_128, BY_FMA, 537919488.0, 1, 1e9},
    {"attention 1 past 1000, 8/4 x 32", attention_1_1000_8_4_32, BY_READ, 1025024.0, 48, 1e9},
    {"attention 1 past 65000, 8/4 x 64", attention_1_65000_8_4_64, BY_READ, 133122048.0, 1, 1e9},
    {"matmul 4 x 64 x 512 x 64 trans 1", matmul_64_512_64_1, BY_FMA, 16777216.0, 11, 1e9},
    {"matmul 4 x 512 x 64 x 512 trans 0", matmul_512_64_512_0, BY_FMA, 134217728.0, 1, 1e9},
    {"matmul 4 x 256 x 256 x 256 trans 0", matmul_256_256_256_0, BY_FMA, 134217728.0, 1, 1e9},
    {"matmul 4 x 1 x 512 x 64 trans 1", matmul_1_512_64_1, BY_FMA, 262144.0, 762, 1e9},
#endif
