/// A GPU's kernel played by the CPU: blocks one after the other, threads of a block in turns, each on a stack of its own
/// where they meet. What code for GPUs asks the player for are the functions pm_emu_… of codegen/cuda/kernels/cuda_kernel.h.
///
/// Nothing is better than silicon promises: shared memory holds no numbers at first, copies that go on beside arrive when
/// they are waited for and not before, all lanes of a warp must come to the same exchange, all threads to the same barrier.
#ifndef PM_RUNTIME_EMU_PLAY_H
#define PM_RUNTIME_EMU_PLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pm/status.h"
#include "runtime/runtime_abi.h"

enum {
    PM_EMU_WARP = 32,
    PM_EMU_MOST_THREADS = 1024,
    PM_EMU_MOST_PARAMETERS = 45,
    PM_EMU_MOST_SHARED = 227 * 1024, ///< of a block, static and dynamic
};

typedef enum pm_emu_how {
    PM_EMU_READS,
    PM_EMU_WRITES,
    PM_EMU_ADDS,   ///< atomically
    PM_EMU_SENDS,  ///< an async copy to here begins: nobody may look before it has arrived
    PM_EMU_LANDS,  ///< it has arrived
    /* by another way to memory than threads have (the async proxy) */
    PM_EMU_LANDS_BULK, ///< a bulk copy has arrived
    PM_EMU_MULTIPLIES, ///< a product of the warpgroup reads
} pm_emu_how;

/// Someone who watches (tests): accesses that the player makes for a kernel, and what orders threads.
typedef struct pm_emu_watch {
    void (*block)(void); ///< a block begins
    void (*access)(const void *at, uint64_t bytes, pm_emu_how how); ///< by thread pm_emu_thread()
    void (*met)(uint32_t first, uint32_t n);   ///< these threads met at a barrier
    void (*gave)(const void *barrier);         ///< this thread arrived at a barrier in shared memory
    void (*took)(const void *barrier);         ///< this thread found that a phase of it is over
    void (*fenced)(void);                      ///< what this thread wrote is there for products of the warpgroup
} pm_emu_watch;

typedef struct pm_emu_launch {
    const char *name;
    pm_rt_emu_kernel *kernel;
    bool parameters; ///< the kernel takes the words as parameters (PM_RT_KERNEL_TEMPLATE)
    const uint64_t *words;
    size_t n_words;
    uint64_t blocks;
    uint32_t threads, shared_bytes; ///< of a block; dynamic shared memory
    bool meets;                     ///< PM_RT_KERNEL_MEETS
    const pm_emu_watch *watch;      ///< or NULL
} pm_emu_launch;

/// Runs it to its end. PM_ERR_INTERNAL (told to pm_rt_error_set: kernel, block, thread, what) when threads don't meet as they
/// must, or the watch found a fault: the launch ends there.
pm_status pm_emu_play(const pm_emu_launch *launch);

/// ---- for the watch, while a kernel is played ---------------------------------------------------------------------

bool pm_emu_is_playing(void);
/// Ends the launch with an error; says kernel, block and thread before the text.
_Noreturn void pm_emu_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
/// Whether it is on this thread's own stack.
bool pm_emu_is_own(const void *at);
/// The piece of this block's shared memory that holds `at`: its number, start and size; false: none does.
bool pm_emu_shared_piece(const void *at, uint32_t *out_number, const uint8_t **out_start, uint64_t *out_size);
/// Distance from the start of the block's shared memory; -1: elsewhere.
int64_t pm_emu_shared_offset(const void *at);

/// What stands for a CUtensorMap of three dimensions: 128 bytes, 64-byte aligned, in memory that kernels read. Boxes are
/// of one matrix.
typedef struct pm_emu_tensor_map {
    uint64_t magic;
    const void *base;
    uint64_t extent[3]; ///< elements of a row, rows, matrices
    uint64_t stride[2]; ///< bytes from row to row, from matrix to matrix
    uint32_t box[2];
    uint32_t element_bytes, swizzle; ///< PM_SWIZZLE_… of cuda_kernel.h
    uint8_t rest[56];
} pm_emu_tensor_map;
_Static_assert(sizeof(pm_emu_tensor_map) == 128, "as a CUtensorMap");

/// False: silicon takes no such map (alignment, size of the box).
bool pm_emu_tensor_map_make(pm_emu_tensor_map *out_map, const void *base, uint32_t element_bytes,
                            const uint64_t extent[3], const uint64_t stride[2], const uint32_t box[2], int32_t swizzle);

/// ---- what kernels ask (the same in codegen/cuda/kernels/cuda_kernel.h) --------------------------------------------

int64_t pm_emu_thread(void);
int64_t pm_emu_threads(void);
int64_t pm_emu_block(void);
int64_t pm_emu_blocks(void);
void *pm_emu_shared(const void *key, uint64_t bytes);
void *pm_emu_dynamic_shared(void);
void pm_emu_sync(void);
void pm_emu_sync_warp(void);
uint32_t pm_emu_shfl(uint32_t x, int32_t lane);
uint32_t pm_emu_ballot(int32_t condition);
int32_t pm_emu_atomic_add(int32_t *at, int32_t x);
void pm_emu_fail(int32_t *status, int64_t mark);
void pm_emu_cp_async16(void *shared, const void *global, int32_t valid_bytes);
void pm_emu_cp_async_commit(void);
void pm_emu_cp_async_wait(int32_t groups);
void pm_emu_ldmatrix(uint32_t *r, const void *row, int32_t is_turned);
void pm_emu_mma(int32_t kind, void *d, const uint32_t *a, const uint32_t *b);
uint32_t pm_emu_shared_address(const void *shared);
void pm_emu_wgmma(int32_t kind, int32_t n, float *d, uint64_t a, uint64_t b);
void pm_emu_wgmma_fence(void);
void pm_emu_wgmma_commit(void);
void pm_emu_wgmma_wait(int32_t groups);
void pm_emu_fence_async(void);
void pm_emu_barrier_init(uint64_t *barrier, int32_t count);
void pm_emu_barrier_arrive(uint64_t *barrier, int32_t bytes);
void pm_emu_barrier_wait(uint64_t *barrier, int32_t parity);
void pm_emu_bulk_load(void *shared, const void *global, int32_t bytes, uint64_t *barrier);
void pm_emu_tensor_map_acquire(const void *map);
void pm_emu_tensor_load(void *shared, const void *map, int32_t x, int32_t y, int32_t z, uint64_t *barrier);
enum { PM_EMU_MMA_BF16, PM_EMU_MMA_F16, PM_EMU_MMA_S8, PM_EMU_MMA_E4M3 };
/// The general road's (codegen/mlir/emit_group.c).
float pm_dev_shfl_xor_f32(float x, int32_t lanes);
int32_t pm_dev_shfl_xor_i32(int32_t x, int32_t lanes);

#endif
