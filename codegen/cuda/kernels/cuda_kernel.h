/// What CUDA C templates are written against. One source, two compilers: NVRTC takes it as CUDA C++, clang as C11 with
/// -DPM_EMU, for a CPU that plays blocks, warps and barriers (the functions pm_emu_… are the player's).
///
/// So templates are in the common subset: explicit casts, no designated initialisers, no variable length arrays. They
/// include this header and one another, nothing else. A kernel is `PM_GLOBAL void pm_cu_NAME(…)` at the start of a line;
/// each parameter is a word of 8 bytes: a pointer or an int64_t, a real number as the bits of a double (PM_WORD_F64).
/// Blocks are numbered in one dimension. No atomics but on integers: results don't depend on an order.
#ifndef PM_CUDA_KERNEL_H
#define PM_CUDA_KERNEL_H

#define PM_TEXT_(x) #x
#define PM_TEXT(x) PM_TEXT_(x)
#ifdef PM_EMU /* unrolled, templates take LLVM seconds, and are played no faster */
#define PM_UNROLL
#define PM_UNROLL_BY(n)
#else
#define PM_UNROLL _Pragma("unroll")
#define PM_UNROLL_BY(n) _Pragma(PM_TEXT(unroll n))
#endif
#define PM_NO_UNROLL _Pragma("unroll 1")
#define PM_ALIGN(n) __attribute__((aligned(n)))
#define PM_RESTRICT __restrict__

/* PM_BOUNDS: nothing, or what a file defines it to be before a kernel, PM_AT_ONCE(threads, blocks): few enough registers
 * for so many blocks at once on a multiprocessor. */
#define PM_BOUNDS

/* PM_SHARED(type, name, count): `name` points to shared memory of the block, whose content is not defined at first.
 * PM_FIXED(N, n): the constant PM_CONST_N where the kernel was compiled for one model, else the parameter n. Both are
 * the same number: what the host computes of it (blocks, extents) holds for either. */
#ifdef PM_EMU
#include <stdint.h>

#define PM_DEVICE static inline __attribute__((unused))
#define PM_GLOBAL
#define PM_AT_ONCE(threads, blocks)
#define PM_SHARED(type, name, count)                                                                           \
    static const char name##_key;                                                                              \
    type *name = (type *)pm_emu_shared(&name##_key, (uint64_t)(sizeof(type) * (count)))
#define PM_FIXED(N, n) (n)
#define PM_INFINITY __builtin_inff()
#define PM_NAN __builtin_nanf("")

/* The player (runtime/device/emu_play.h). Threads of a block take turns; those of a warp meet in pm_emu_shfl, _ballot
 * and the like. What they meet in must not be moved to where fewer of them come by. */
#ifdef __clang__
#define PM_MEETING __attribute__((convergent))
#else
#define PM_MEETING
#endif
int64_t pm_emu_thread(void);
int64_t pm_emu_threads(void);
int64_t pm_emu_block(void);
int64_t pm_emu_blocks(void);
void *pm_emu_shared(const void *key, uint64_t bytes);
void *pm_emu_dynamic_shared(void);
PM_MEETING void pm_emu_sync(void);
PM_MEETING void pm_emu_sync_warp(void);
PM_MEETING uint32_t pm_emu_shfl(uint32_t x, int32_t lane);
PM_MEETING uint32_t pm_emu_ballot(int32_t condition);
int32_t pm_emu_atomic_add(int32_t *at, int32_t x);
void pm_emu_fail(int32_t *status, int64_t mark);
void pm_emu_cp_async16(void *shared, const void *global, int32_t valid_bytes);
void pm_emu_cp_async_commit(void);
void pm_emu_cp_async_wait(int32_t groups);
PM_MEETING void pm_emu_ldmatrix(uint32_t *r, const void *row, int32_t is_turned);
PM_MEETING void pm_emu_mma(int32_t kind, void *d, const uint32_t *a, const uint32_t *b);
uint32_t pm_emu_shared_address(const void *shared);
PM_MEETING void pm_emu_wgmma(int32_t kind, int32_t n, float *d, uint64_t a, uint64_t b);
PM_MEETING void pm_emu_wgmma_fence(void);
PM_MEETING void pm_emu_wgmma_commit(void);
PM_MEETING void pm_emu_wgmma_wait(int32_t groups);
void pm_emu_fence_async(void);
void pm_emu_barrier_init(uint64_t *barrier, int32_t count);
void pm_emu_barrier_arrive(uint64_t *barrier, int32_t bytes);
PM_MEETING void pm_emu_barrier_wait(uint64_t *barrier, int32_t parity);
void pm_emu_bulk_load(void *shared, const void *global, int32_t bytes, uint64_t *barrier);
void pm_emu_tensor_map_acquire(const void *map);
void pm_emu_tensor_load(void *shared, const void *map, int32_t x, int32_t y, int32_t z, uint64_t *barrier);
enum { PM_EMU_MMA_BF16, PM_EMU_MMA_F16, PM_EMU_MMA_S8, PM_EMU_MMA_E4M3 };

PM_DEVICE double PM_WORD_F64(int64_t word)
{
    union {
        int64_t word;
        double value;
    } u = {word};
    return u.value;
}

PM_DEVICE uint32_t pm_bits_of_f32(float x)
{
    union {
        float value;
        uint32_t bits;
    } u = {x};
    return u.bits;
}

PM_DEVICE float pm_f32_of_bits(uint32_t bits)
{
    union {
        uint32_t bits;
        float value;
    } u = {bits};
    return u.value;
}

PM_DEVICE int32_t pm_thread(void) { return (int32_t)pm_emu_thread(); }
PM_DEVICE int32_t pm_threads(void) { return (int32_t)pm_emu_threads(); }
PM_DEVICE int64_t pm_block(void) { return pm_emu_block(); }
PM_DEVICE int64_t pm_blocks(void) { return pm_emu_blocks(); }
PM_DEVICE void *pm_dynamic_shared(void) { return pm_emu_dynamic_shared(); }
PM_DEVICE void pm_sync(void) { pm_emu_sync(); }
PM_DEVICE void pm_sync_warp(void) { pm_emu_sync_warp(); }
PM_DEVICE uint32_t pm_shfl_u32(uint32_t x, int32_t lane) { return pm_emu_shfl(x, lane); }
PM_DEVICE uint32_t pm_ballot(int32_t condition) { return pm_emu_ballot(condition); }
PM_DEVICE int32_t pm_atomic_add_i32(int32_t *at, int32_t x) { return pm_emu_atomic_add(at, x); }
PM_DEVICE void pm_fail(int32_t *status, int64_t mark) { pm_emu_fail(status, mark); }
PM_DEVICE void pm_cp_async_commit(void) { pm_emu_cp_async_commit(); }
#define pm_cp_async_wait(groups) pm_emu_cp_async_wait(groups)

PM_DEVICE void pm_cp_async16(void *shared, const void *global, int32_t valid_bytes)
{
    pm_emu_cp_async16(shared, global, valid_bytes);
}

PM_DEVICE void pm_ldmatrix_x4(uint32_t *r, const void *row) { pm_emu_ldmatrix(r, row, 0); }
PM_DEVICE void pm_ldmatrix_x4_trans(uint32_t *r, const void *row) { pm_emu_ldmatrix(r, row, 1); }

PM_DEVICE void pm_mma_bf16_16816(float *d, const uint32_t *a, const uint32_t *b)
{
    pm_emu_mma(PM_EMU_MMA_BF16, d, a, b);
}

PM_DEVICE void pm_mma_f16_16816(float *d, const uint32_t *a, const uint32_t *b)
{
    pm_emu_mma(PM_EMU_MMA_F16, d, a, b);
}

PM_DEVICE void pm_mma_s8_16832(int32_t *d, const uint32_t *a, const uint32_t *b)
{
    pm_emu_mma(PM_EMU_MMA_S8, d, a, b);
}

PM_DEVICE void pm_mma_e4m3_16832(float *d, const uint32_t *a, const uint32_t *b)
{
    pm_emu_mma(PM_EMU_MMA_E4M3, d, a, b);
}

PM_DEVICE uint16_t pm_bf16_of_f32(float x)
{
    uint32_t bits = pm_bits_of_f32(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

PM_DEVICE uint16_t pm_f16_of_f32(float x)
{
    union {
        _Float16 value;
        uint16_t bits;
    } u = {(_Float16)x};
    return u.bits;
}

/* two of them as one word, `low` in the lower half */
PM_DEVICE uint32_t pm_bf16x2_of_f32(float low, float high)
{
    return (uint32_t)pm_bf16_of_f32(low) | (uint32_t)pm_bf16_of_f32(high) << 16;
}

PM_DEVICE uint32_t pm_f16x2_of_f32(float low, float high)
{
    return (uint32_t)pm_f16_of_f32(low) | (uint32_t)pm_f16_of_f32(high) << 16;
}

PM_DEVICE float pm_f32_of_f16(uint16_t bits)
{
    union {
        uint16_t bits;
        _Float16 value;
    } u = {bits};
    return (float)u.value;
}

/* Loads of 16, 8, 4, 2 bytes at an address that is a multiple of as many: pm_load… of what is read again soon,
 * pm_stream… of what is read once. Of memory that the launch does not write. */
typedef uint32_t pm_four_words __attribute__((vector_size(16), may_alias));
typedef uint64_t pm_two_words __attribute__((may_alias));

PM_DEVICE void pm_load16(uint32_t *to, const void *from)
{
    pm_four_words four = *(const pm_four_words *)from;
    for (int32_t i = 0; i < 4; i++)
        to[i] = four[i];
}

PM_DEVICE void pm_stream8(uint32_t *to, const void *from)
{
    uint64_t two = *(const pm_two_words *)from;
    to[0] = (uint32_t)two;
    to[1] = (uint32_t)(two >> 32);
}

PM_DEVICE void pm_stream16(uint32_t *to, const void *from) { pm_load16(to, from); }
PM_DEVICE uint32_t pm_stream4(const void *from) { return *(const uint32_t *)from; }
PM_DEVICE uint32_t pm_stream2(const void *from) { return *(const uint16_t *)from; }

/// Four bytes of the eight of a, then b; byte i of the result is the one that the i-th four bits of `which` name.
PM_DEVICE uint32_t pm_bytes(uint32_t a, uint32_t b, uint32_t which)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t out = 0;
    for (int32_t i = 0; i < 4; i++)
        out |= (uint32_t)(both >> 8 * (which >> 4 * i & 7u) & 255u) << 8 * i;
    return out;
}

float expf(float), exp2f(float), logf(float), log1pf(float), sqrtf(float), tanhf(float), sinf(float), cosf(float);
float erff(float), fmaf(float, float, float), floorf(float), rintf(float);
#define pm_expf expf
#define pm_exp2f exp2f
#define pm_logf logf
#define pm_log1pf log1pf
#define pm_sqrtf sqrtf
#define pm_tanhf tanhf
#define pm_erff erff
#define pm_sinf sinf
#define pm_cosf cosf
#define pm_fmaf fmaf
#define pm_floorf floorf
#define pm_rintf rintf
#define pm_fabsf __builtin_fabsf

/* sm_90a: products of a warpgroup (four warps), beside what its threads do. See below. */
PM_DEVICE uint32_t pm_shared_address(const void *p) { return pm_emu_shared_address(p); }
PM_DEVICE void pm_fence_async(void) { pm_emu_fence_async(); }
PM_DEVICE void pm_wgmma_fence(void) { pm_emu_wgmma_fence(); }
PM_DEVICE void pm_wgmma_commit(void) { pm_emu_wgmma_commit(); }
#define pm_wgmma_wait(groups) pm_emu_wgmma_wait(groups)
#define pm_registers_down(n) ((void)0)
#define pm_registers_up(n) ((void)0)

PM_DEVICE void pm_mbarrier_init(uint64_t *barrier, int32_t count) { pm_emu_barrier_init(barrier, count); }
PM_DEVICE void pm_mbarrier_arrive(uint64_t *barrier) { pm_emu_barrier_arrive(barrier, 0); }
PM_DEVICE void pm_mbarrier_expect(uint64_t *barrier, int32_t bytes) { pm_emu_barrier_arrive(barrier, bytes); }
PM_DEVICE void pm_mbarrier_wait(uint64_t *barrier, int32_t parity) { pm_emu_barrier_wait(barrier, parity); }

PM_DEVICE void pm_bulk_load(void *shared, const void *global, int32_t bytes, uint64_t *barrier)
{
    pm_emu_bulk_load(shared, global, bytes, barrier);
}

PM_DEVICE void pm_tma_acquire(const void *map) { pm_emu_tensor_map_acquire(map); }

PM_DEVICE void pm_tma_load_3d(void *shared, const void *map, int32_t x, int32_t y, int32_t z, uint64_t *barrier)
{
    pm_emu_tensor_load(shared, map, x, y, z, barrier);
}

PM_DEVICE void pm_wgmma_bf16_n64(float *d, uint64_t a, uint64_t b) { pm_emu_wgmma(PM_EMU_MMA_BF16, 64, d, a, b); }
PM_DEVICE void pm_wgmma_bf16_n128(float *d, uint64_t a, uint64_t b) { pm_emu_wgmma(PM_EMU_MMA_BF16, 128, d, a, b); }
PM_DEVICE void pm_wgmma_f16_n64(float *d, uint64_t a, uint64_t b) { pm_emu_wgmma(PM_EMU_MMA_F16, 64, d, a, b); }
PM_DEVICE void pm_wgmma_f16_n128(float *d, uint64_t a, uint64_t b) { pm_emu_wgmma(PM_EMU_MMA_F16, 128, d, a, b); }
PM_DEVICE void pm_wgmma_bf16_n256(float *d, uint64_t a, uint64_t b) { pm_emu_wgmma(PM_EMU_MMA_BF16, 256, d, a, b); }
PM_DEVICE void pm_wgmma_f16_n256(float *d, uint64_t a, uint64_t b) { pm_emu_wgmma(PM_EMU_MMA_F16, 256, d, a, b); }
#define pm_wgmma_results(d, n) ((void)0)

#else /* NVRTC */

typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;

#define PM_DEVICE static __device__ __forceinline__
#define PM_GLOBAL extern "C" __global__ PM_BOUNDS
#define PM_AT_ONCE(threads, blocks) __launch_bounds__(threads, blocks)
#define PM_SHARED(type, name, count)                                                                           \
    __shared__ PM_ALIGN(16) type name##_of_block[count];                                                       \
    type *name = name##_of_block
#define PM_INFINITY __int_as_float(0x7f800000)
#define PM_NAN __int_as_float(0x7fc00000)

/// The number that a constant's text says.
__device__ constexpr int64_t pm_fixed_value(const char *text)
{
    int64_t value = 0;
    bool is_negative = *text == '-';
    for (text += is_negative; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (is_negative ? '0' - *text : *text - '0');
    return value;
}

template <int64_t value>
struct pm_fixed {
    static const int64_t is = value;
};
#define PM_FIXED(N, n)                                                                                         \
    (PM_TEXT(PM_CONST_##N)[0] == 'P' ? (int64_t)(n) : (int64_t)pm_fixed<pm_fixed_value(PM_TEXT(PM_CONST_##N))>::is)

extern __shared__ PM_ALIGN(16) uint8_t pm_dynamic_of_block[];

PM_DEVICE double PM_WORD_F64(int64_t word) { return __longlong_as_double(word); }
PM_DEVICE uint32_t pm_bits_of_f32(float x) { return __float_as_uint(x); }
PM_DEVICE float pm_f32_of_bits(uint32_t bits) { return __uint_as_float(bits); }
PM_DEVICE int32_t pm_thread(void) { return (int32_t)threadIdx.x; }
PM_DEVICE int32_t pm_threads(void) { return (int32_t)blockDim.x; }
PM_DEVICE int64_t pm_block(void) { return (int64_t)blockIdx.x; }
PM_DEVICE int64_t pm_blocks(void) { return (int64_t)gridDim.x; }
PM_DEVICE void *pm_dynamic_shared(void) { return pm_dynamic_of_block; }
PM_DEVICE void pm_sync(void) { __syncthreads(); }
PM_DEVICE void pm_sync_warp(void) { __syncwarp(); }
PM_DEVICE uint32_t pm_shfl_u32(uint32_t x, int32_t lane) { return __shfl_sync(~0u, x, lane); }
PM_DEVICE uint32_t pm_ballot(int32_t condition) { return __ballot_sync(~0u, condition); }
PM_DEVICE int32_t pm_atomic_add_i32(int32_t *at, int32_t x) { return atomicAdd(at, x); }
PM_DEVICE void pm_fail(int32_t *status, int64_t mark) { atomicCAS(status, 0, (int32_t)mark); }

PM_DEVICE uint32_t pm_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

PM_DEVICE void pm_cp_async16(void *shared, const void *global, int32_t valid_bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(pm_shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(valid_bytes)
                 : "memory");
}

PM_DEVICE void pm_cp_async_commit(void) { asm volatile("cp.async.commit_group;" : : : "memory"); }
/* groups: a literal */
#define pm_cp_async_wait(groups) asm volatile("cp.async.wait_group %0;" : : "n"((int32_t)(groups)) : "memory")

PM_DEVICE void pm_ldmatrix_x4(uint32_t *r, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(pm_shared_address(row))
                 : "memory");
}

PM_DEVICE void pm_ldmatrix_x4_trans(uint32_t *r, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(pm_shared_address(row))
                 : "memory");
}

#define PM_MMA(name, type, constraint, instruction)                                                            \
    PM_DEVICE void name(type *d, const uint32_t *a, const uint32_t *b)                                         \
    {                                                                                                          \
        asm volatile("mma.sync.aligned." instruction                                                           \
                     " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                        \
                     : "+" constraint(d[0]), "+" constraint(d[1]), "+" constraint(d[2]), "+" constraint(d[3])  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                      \
    }
PM_MMA(pm_mma_bf16_16816, float, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")
PM_MMA(pm_mma_f16_16816, float, "f", "m16n8k16.row.col.f32.f16.f16.f32")
PM_MMA(pm_mma_s8_16832, int32_t, "r", "m16n8k32.row.col.s32.s8.s8.s32")
#if __CUDA_ARCH__ >= 890
PM_MMA(pm_mma_e4m3_16832, float, "f", "m16n8k32.row.col.f32.e4m3.e4m3.f32")
#endif
#undef PM_MMA

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
PM_DEVICE void pm_fence_async(void) { asm volatile("fence.proxy.async.shared::cta;" : : : "memory"); }
PM_DEVICE void pm_wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }
PM_DEVICE void pm_wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }
/* groups: a literal */
#define pm_wgmma_wait(groups) asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"((int32_t)(groups)) : "memory")
/* n: a literal */
#define pm_registers_down(n) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"((int32_t)(n)))
#define pm_registers_up(n) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"((int32_t)(n)))

PM_DEVICE void pm_mbarrier_init(uint64_t *barrier, int32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(pm_shared_address(barrier)), "r"(count) : "memory");
}

PM_DEVICE void pm_mbarrier_arrive(uint64_t *barrier)
{
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared::cta.b64 state, [%0];\n}"
                 :
                 : "r"(pm_shared_address(barrier))
                 : "memory");
}

PM_DEVICE void pm_mbarrier_expect(uint64_t *barrier, int32_t bytes)
{
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n}"
                 :
                 : "r"(pm_shared_address(barrier)), "r"(bytes)
                 : "memory");
}

PM_DEVICE void pm_mbarrier_wait(uint64_t *barrier, int32_t parity)
{
    uint32_t is_over;
    do
        asm volatile("{\n.reg .pred over;\nmbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, over;\n}"
                     : "=r"(is_over)
                     : "r"(pm_shared_address(barrier)), "r"(parity)
                     : "memory");
    while (!is_over);
}

PM_DEVICE void pm_bulk_load(void *shared, const void *global, int32_t bytes, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :
                 : "r"(pm_shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(bytes),
                   "r"(pm_shared_address(barrier))
                 : "memory");
}

PM_DEVICE void pm_tma_acquire(const void *map)
{
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" : : "l"(map) : "memory");
}

PM_DEVICE void pm_tma_load_3d(void *shared, const void *map, int32_t x, int32_t y, int32_t z, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];"
                 :
                 : "r"(pm_shared_address(shared)), "l"(map), "r"(x), "r"(y), "r"(z), "r"(pm_shared_address(barrier))
                 : "memory");
}

#define PM_D4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PM_D16(d, i) PM_D4(d, i), PM_D4(d, i + 4), PM_D4(d, i + 8), PM_D4(d, i + 12)
#define PM_WGMMA_N64(name, type)                                                                         \
    PM_DEVICE void name(float *d, uint64_t a, uint64_t b)                                                \
    {                                                                                                    \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {"                    \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "            \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
                     "%32, %33, 1, 1, 1, 0, 0;"                                                          \
                     : PM_D16(d, 0), PM_D16(d, 16)                                                       \
                     : "l"(a), "l"(b)                                                                    \
                     : "memory");                                                                        \
    }
#define PM_WGMMA_N128(name, type)                                                                        \
    PM_DEVICE void name(float *d, uint64_t a, uint64_t b)                                                \
    {                                                                                                    \
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"                   \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "            \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "  \
                     "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "  \
                     "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
                     "%64, %65, 1, 1, 1, 0, 0;"                                                          \
                     : PM_D16(d, 0), PM_D16(d, 16), PM_D16(d, 32), PM_D16(d, 48)                         \
                     : "l"(a), "l"(b)                                                                    \
                     : "memory");                                                                        \
    }
#define PM_WGMMA_N256(name, type)                                                                                        \
    PM_DEVICE void name(float *d, uint64_t a, uint64_t b)                                                                \
    {                                                                                                                    \
        asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {"                                   \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                            \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                  \
                     "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                  \
                     "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                  \
                     "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                  \
                     "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                  \
                     "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "      \
                     "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, " \
                     "%128, %129, 1, 1, 1, 0, 0;"                                                                        \
                     : PM_D16(d, 0), PM_D16(d, 16), PM_D16(d, 32), PM_D16(d, 48),                                        \
                       PM_D16(d, 64), PM_D16(d, 80), PM_D16(d, 96), PM_D16(d, 112)                                       \
                     : "l"(a), "l"(b)                                                                                    \
                     : "memory");                                                                                        \
    }
PM_WGMMA_N64(pm_wgmma_bf16_n64, "bf16")
PM_WGMMA_N128(pm_wgmma_bf16_n128, "bf16")
PM_WGMMA_N256(pm_wgmma_bf16_n256, "bf16")
PM_WGMMA_N64(pm_wgmma_f16_n64, "f16")
PM_WGMMA_N128(pm_wgmma_f16_n128, "f16")
PM_WGMMA_N256(pm_wgmma_f16_n256, "f16")

/* n: a literal */
#define pm_wgmma_results(d, n)                                                                                 \
    PM_UNROLL for (int32_t i_ = 0; i_ < (n) / 2; i_ += 16) asm volatile("" : PM_D16((d), i_) : : "memory")
#undef PM_WGMMA_N64
#undef PM_WGMMA_N128
#undef PM_WGMMA_N256
#endif

PM_DEVICE uint16_t pm_bf16_of_f32(float x)
{
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

PM_DEVICE uint16_t pm_f16_of_f32(float x)
{
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

PM_DEVICE uint32_t pm_bf16x2_of_f32(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

PM_DEVICE uint32_t pm_f16x2_of_f32(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

PM_DEVICE float pm_f32_of_f16(uint16_t bits)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

PM_DEVICE void pm_load16(uint32_t *to, const void *from)
{
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
        : "l"(__cvta_generic_to_global(from)));
}

PM_DEVICE void pm_stream16(uint32_t *to, const void *from)
{
    asm("ld.global.nc.L1::evict_first.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
        : "l"(__cvta_generic_to_global(from)));
}

PM_DEVICE void pm_stream8(uint32_t *to, const void *from)
{
    asm("ld.global.nc.L1::evict_first.L2::128B.v2.u32 {%0, %1}, [%2];"
        : "=r"(to[0]), "=r"(to[1])
        : "l"(__cvta_generic_to_global(from)));
}

PM_DEVICE uint32_t pm_stream4(const void *from)
{
    uint32_t word;
    asm("ld.global.nc.L1::evict_first.L2::128B.u32 %0, [%1];" : "=r"(word) : "l"(__cvta_generic_to_global(from)));
    return word;
}

PM_DEVICE uint32_t pm_stream2(const void *from)
{
    uint16_t half;
    asm("ld.global.nc.L1::evict_first.L2::128B.u16 %0, [%1];" : "=h"(half) : "l"(__cvta_generic_to_global(from)));
    return half;
}

PM_DEVICE uint32_t pm_bytes(uint32_t a, uint32_t b, uint32_t which) { return __byte_perm(a, b, which); }

#define pm_expf expf
#define pm_exp2f exp2f
#define pm_logf logf
#define pm_log1pf log1pf
#define pm_sqrtf sqrtf
#define pm_tanhf tanhf
#define pm_erff erff
#define pm_sinf sinf
#define pm_cosf cosf
#define pm_fmaf fmaf
#define pm_floorf floorf
#define pm_rintf rintf
#define pm_fabsf fabsf
#endif

/* ---- the same for both -------------------------------------------------------------------------------------- */

PM_DEVICE int32_t pm_lane(void) { return pm_thread() % 32; }
PM_DEVICE int32_t pm_warp(void) { return pm_thread() / 32; }
PM_DEVICE int32_t pm_any(int32_t condition) { return pm_ballot(condition) != 0u; }
PM_DEVICE float pm_f32_of_bf16(uint16_t bits) { return pm_f32_of_bits((uint32_t)bits << 16); }

PM_DEVICE float pm_shfl_f32(float x, int32_t lane)
{
    return pm_f32_of_bits(pm_shfl_u32(pm_bits_of_f32(x), lane));
}

PM_DEVICE uint32_t pm_shfl_xor_u32(uint32_t x, int32_t lanes)
{
    return pm_shfl_u32(x, pm_lane() ^ lanes);
}

PM_DEVICE float pm_shfl_xor_f32(float x, int32_t lanes)
{
    return pm_shfl_f32(x, pm_lane() ^ lanes);
}

/// Lanes that have none `lanes` up get their own.
PM_DEVICE uint32_t pm_shfl_down_u32(uint32_t x, int32_t lanes)
{
    return pm_shfl_u32(x, pm_lane() + lanes < 32 ? pm_lane() + lanes : pm_lane());
}

PM_DEVICE float pm_shfl_down_f32(float x, int32_t lanes)
{
    return pm_f32_of_bits(pm_shfl_down_u32(pm_bits_of_f32(x), lanes));
}

/* sm_90a: barriers in shared memory (8 bytes). One thread makes them, then pm_fence_async and pm_sync. A phase is over
 * when `count` threads have arrived and all bytes that pm_mbarrier_expect (which arrives, too) told of have landed;
 * pm_mbarrier_wait(parity) lets go when the phase of this parity is over: the first one has 0. Copies land in shared
 * memory and count at the barrier: pm_bulk_load takes bytes as they lie, pm_tma_load_3d a box of the tensor map from
 * column x, row y of matrix z on (outside: zeros), swizzled as the map says; a thread calls pm_tma_acquire(map) before
 * its first one. */

/* sm_90a: pm_registers_down(n) gives registers of a warpgroup's threads back, all but n of each; pm_registers_up(n) waits
 * until there are so many. n: a multiple of 8. All four warps call it, in a kernel with PM_BOUNDS. */

/* sm_90a: d [64][n] += a [64][16] b [n][16], both in shared memory with k contiguous. Warp w of the warpgroup has rows
 * 16 w and the 15 behind; d[4 j + i] of a lane is row lane / 4 + i / 2 * 8 of these, column 8 j + lane % 4 * 2 + i % 2.
 * pm_wgmma_fence comes before, also behind writes to d; d is there, and a and b may be written again, behind
 * pm_wgmma_wait of the group that pm_wgmma_commit closed. What threads wrote to shared memory (cp.async too) needs
 * pm_fence_async by the writers before the barrier. pm_wgmma_results(d, n) comes between the wait and what looks at d:
 * compilers see no other tie between the two. */
enum { PM_SWIZZLE_NONE, PM_SWIZZLE_128, PM_SWIZZLE_64, PM_SWIZZLE_32 };

/// Where a matrix lies. Swizzled by 128, 64, 32 bytes: a row has that many, eight rows are a group, groups are `stride`
/// bytes apart; 16 bytes lie at their address with bits 4 and up xor bits 7 and up (three, two, one of them): a group
/// starts at a multiple of eight rows, and 16 of k further is 32 bytes further. Not swizzled: 8 rows of 16 bytes lie
/// together; the next 8 rows `stride` bytes further, the next 8 of k `leading` bytes.
PM_DEVICE uint64_t pm_wgmma_matrix(const void *start, int32_t leading, int32_t stride, int32_t swizzle)
{
    return ((uint64_t)pm_shared_address(start) & 0x3ffffu) >> 4 | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32 | (uint64_t)swizzle << 62;
}

/// The first place from `p` on where a swizzled matrix may start, at most PM_MATRIX_ALIGN - 16 bytes further: shared
/// memory begins at multiples of 16.
enum { PM_MATRIX_ALIGN = 1024 };
PM_DEVICE uint8_t *pm_aligned_matrix(void *p)
{
    return (uint8_t *)p + (0u - pm_shared_address(p)) % PM_MATRIX_ALIGN;
}

/// Where the 16 bytes at `offset` from the start of a swizzled matrix lie.
PM_DEVICE int32_t pm_swizzled(int32_t offset, int32_t swizzle)
{
    return swizzle == PM_SWIZZLE_NONE ? offset : offset ^ ((offset >> 7 & (16 >> swizzle) - 1) << 4);
}

/// e4m3: 4 bits of exponent, 3 of mantissa, no infinities; 0x7f and 0xff are no numbers.
PM_DEVICE float pm_f32_of_e4m3(uint8_t bits)
{
    uint32_t exponent = bits >> 3 & 15u, mantissa = bits & 7u, sign = (uint32_t)(bits & 0x80u) << 24;
    if ((bits & 0x7fu) == 0x7fu)
        return PM_NAN;
    if (exponent == 0u)
        return pm_f32_of_bits(sign | pm_bits_of_f32((float)mantissa * 0.001953125f));
    return pm_f32_of_bits(sign | (exponent + 120u) << 23 | mantissa << 20);
}

#endif
