/// Plays the blocks of a kernel as a GPU would run them: threads take turns on stacks of their own and meet at barriers and
/// in exchanges within their warp. Kernels ask it who they are by the functions pm_emu_… of
/// codegen/cuda/kernels/cuda_kernel.h. One launch at a time.
#ifndef PM_RUNTIME_EMU_PLAY_H
#define PM_RUNTIME_EMU_PLAY_H

#include <stdbool.h>
#include <stdint.h>

enum { PM_EMU_WARP = 32, PM_EMU_MAX_THREADS = 1024, PM_EMU_MAX_WORDS = 100, PM_EMU_MAX_SHARED = 16 };

typedef struct pm_emu_launch {
    const char *kernel; ///< its name, for messages
    void (*function)(const uint64_t *words); ///< or one that takes the words as parameters
    bool parameters;    ///< the latter
    bool meets;         ///< threads meet: each gets a stack
    int32_t threads;
    int64_t blocks;
    uint64_t shared_bytes;
    const uint64_t *words;
    uint32_t n_words;
} pm_emu_launch;

/// What tests want to know: each access that the player makes itself, and each block that begins.
typedef struct pm_emu_watch {
    void (*access)(const void *at, int64_t bytes, bool writes);
    void (*block)(bool first);
} pm_emu_watch;

/// Where the player is: for who watches.
typedef struct pm_emu_now {
    const char *kernel;
    int32_t thread, n_threads;
    int64_t block, n_blocks;
    uint64_t block_time, warp_time[PM_EMU_MAX_THREADS / PM_EMU_WARP]; ///< barriers that were passed
    const char *stacks, *stacks_end;
    struct pm_emu_shared {
        const void *key;
        uint8_t *start, *pages;
        uint64_t bytes; ///< whole pages; one more behind them can't be touched
    } shared[PM_EMU_MAX_SHARED]; ///< the first: dynamic
    int32_t n_shared;
} pm_emu_now;

/// ---- what kernels ask for (see codegen/cuda/kernels/cuda_kernel.h) -------------------------------------------

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
enum { PM_EMU_MMA_BF16, PM_EMU_MMA_F16, PM_EMU_MMA_S8, PM_EMU_MMA_E4M3 };
/// The general road's exchanges.
float pm_dev_shfl_xor_f32(float x, int32_t lanes);
int32_t pm_dev_shfl_xor_i32(int32_t x, int32_t lanes);

/// ---- who plays ------------------------------------------------------------------------------------------------

/// Plays a launch. Threads that wait for others that never come, and the like, end the process with words.
/// False: out of memory.
bool pm_emu_play(const pm_emu_launch *launch, const pm_emu_watch *watch);
const pm_emu_now *pm_emu_where(void);
/// Ends the process, telling where the player is.
_Noreturn void pm_emu_stop(const char *what);

#endif
