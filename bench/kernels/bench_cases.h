/* The cases of bench_kernels.c: included once to define their functions, and once to list them.
 *   LINEAR(kind, panel, m, n, k, walk)   walk: other weights in each run, never found in a cache
 *   GROUPED(kind, panel, rows, n, k, walk)
 *   LOWBIT(kind, bits, m, n, k, block, scale, zero)   other weights in each run; GROUPED_LOWBIT of two rows
 *   ATTENTION(t, past, heads, kv, head_dim, capacity)
 *   SDPA(t, past, heads, kv, head_dim)
 *   MATMUL(m, n, k, trans_b)
 *   DELTA(t, heads, k_heads, key size, value size), SCAN(t, channels, state size)
 * Shapes: of models with small layers (256), of such with large ones (1024 wide, 2048 or 4096 deep, 32,000
 * words), and squares. */
#define BENCH_PRODUCTS(kind)                                                                       \
    LINEAR(kind, WIDE, 1, 1024, 1024, 0)                                                           \
    LINEAR(kind, WIDE, 2, 1024, 1024, 0)                                                           \
    LINEAR(kind, WIDE, 3, 1024, 1024, 0)                                                           \
    LINEAR(kind, WIDE, 4, 1024, 1024, 0)                                                           \
    LINEAR(kind, WIDE, 6, 1024, 1024, 0)                                                           \
    LINEAR(kind, WIDE, 8, 1024, 1024, 0)                                                           \
    LINEAR(kind, WIDE, 16, 1024, 1024, 0)                                                          \
    LINEAR(kind, WIDE, 64, 1024, 1024, 0)                                                          \
    LINEAR(kind, WIDE, 512, 1024, 1024, 0)                                                         \
    LINEAR(kind, WIDE, 1, 256, 256, 0)                                                             \
    LINEAR(kind, WIDE, 64, 256, 256, 0)                                                            \
    LINEAR(kind, WIDE, 512, 256, 256, 0)                                                           \
    LINEAR(kind, WIDE, 1, 4096, 1024, 1)                                                           \
    LINEAR(kind, WIDE, 1, 1024, 4096, 1)                                                           \
    LINEAR(kind, WIDE, 1, 32000, 1024, 1)                                                          \
    LINEAR(kind, WIDE, 2, 4096, 4096, 1)                                                           \
    LINEAR(kind, WIDE, 4, 4096, 4096, 1)                                                           \
    LINEAR(kind, WIDE, 512, 4096, 1024, 1)                                                         \
    LINEAR(kind, WIDE, 512, 1024, 4096, 1)                                                         \
    LINEAR(kind, WIDE, 512, 4096, 4096, 1)                                                         \
    LINEAR(kind, NARROW, 512, 16, 256, 0)                                                          \
    LINEAR(kind, NARROW, 1, 4096, 4096, 1)                                                         \
    GROUPED(kind, WIDE, each64, 512, 256, 0)                                                       \
    GROUPED(kind, WIDE, ragged, 512, 256, 0)                                                       \
    GROUPED(kind, WIDE, two, 512, 256, 0)                                                          \
    GROUPED(kind, WIDE, each16, 4096, 1024, 1)                                                     \
    GROUPED(kind, WIDE, ragged, 1024, 2048, 1)                                                     \
    GROUPED(kind, WIDE, two, 4096, 1024, 1)

BENCH_PRODUCTS(f32)
BENCH_PRODUCTS(b16)
BENCH_PRODUCTS(dot)
#define BENCH_LOWBIT(kind, bits, block, scale, zero)                                               \
    LOWBIT(kind, bits, 1, 4096, 1024, block, scale, zero)                                          \
    LOWBIT(kind, bits, 1, 4096, 4096, block, scale, zero)                                          \
    LOWBIT(kind, bits, 2, 4096, 4096, block, scale, zero)                                          \
    LOWBIT(kind, bits, 4, 4096, 4096, block, scale, zero)                                          \
    LOWBIT(kind, bits, 8, 4096, 4096, block, scale, zero)                                          \
    LOWBIT(kind, bits, 16, 4096, 4096, block, scale, zero)                                         \
    LOWBIT(kind, bits, 512, 4096, 1024, block, scale, zero)                                        \
    GROUPED_LOWBIT(kind, bits, two, 4096, 1024, block, scale, zero)                                \
    GROUPED_LOWBIT(kind, bits, ragged, 1024, 2048, block, scale, zero)
BENCH_LOWBIT(q2, 2, 32, 0, 0)
BENCH_LOWBIT(q4, 4, 32, 0, 0)
BENCH_LOWBIT(q4, 4, 32, 1, 1)
BENCH_LOWBIT(q8, 8, 32, 0, 0)
BENCH_LOWBIT(e2m1, 4, 32, 3, 0)
ATTENTION(512, 0, 8, 4, 32, 1024)
ATTENTION(512, 0, 8, 4, 64, 1024)
ATTENTION(512, 0, 8, 4, 128, 1024)
ATTENTION(1, 1000, 8, 4, 32, 1024)
ATTENTION(1, 65000, 8, 4, 64, 65536)
SDPA(512, 0, 8, 4, 32)
SDPA(512, 0, 8, 4, 64)
SDPA(512, 0, 8, 4, 128)
SDPA(1, 1000, 8, 4, 32)
SDPA(1, 65000, 8, 4, 64)
SDPA(1, 65000, 8, 8, 64)
MATMUL(64, 512, 64, 1)
MATMUL(512, 64, 512, 0)
MATMUL(256, 256, 256, 0)
MATMUL(1, 512, 64, 1)
DELTA(512, 32, 16, 128, 128)
DELTA(1, 32, 16, 128, 128)
SCAN(512, 1024, 16)
SCAN(1, 1024, 16)
#undef BENCH_LOWBIT
#undef BENCH_PRODUCTS
