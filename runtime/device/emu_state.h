/// The player's inside, shared by its files.
#ifndef PM_RUNTIME_EMU_STATE_H
#define PM_RUNTIME_EMU_STATE_H

#include <setjmp.h>

#include "runtime/device/emu_play.h"

/// Why a thread doesn't run.
typedef enum pm_emu_wait {
    PM_EMU_RUNS,
    PM_EMU_AT_BLOCK,    ///< at a barrier of the block
    PM_EMU_AT_WARP,     ///< at a barrier of the warp
    PM_EMU_AT_EXCHANGE, ///< shows its warp something
    PM_EMU_AT_PHASE,    ///< until a barrier in shared memory is past a phase
    PM_EMU_ENDED,
} pm_emu_wait;

/// What lanes of a warp do together: carried out when all 32 have come, on operands that lie on their stacks.
typedef enum pm_emu_exchange {
    PM_EMU_SHFL,     ///< in: uint32_t; number: the lane asked; out: uint32_t
    PM_EMU_BALLOT,   ///< in: uint32_t, 0 or 1; out: uint32_t
    PM_EMU_LDMATRIX, ///< in: the row's address; out: uint32_t[4]
    PM_EMU_LDMATRIX_TRANS,
    PM_EMU_WGMMA,      ///< in: pm_emu_product
    PM_EMU_WGMMA_WAIT, ///< number: groups that may be left
    PM_EMU_MMA, ///< and the kinds behind it; in: a, more: b; out: d
} pm_emu_exchange;

typedef struct pm_emu_copy {
    void *to;
    const void *from;
    int32_t valid, group;
} pm_emu_copy;

/// A product of the warpgroup on its way.
typedef struct pm_emu_product {
    int32_t kind, n, group;
    float *d, *sum; ///< where it goes, at last; so far
    uint64_t a, b;  ///< descriptors of matrices
} pm_emu_product;

enum { PM_EMU_MOST_PRODUCTS = 64, PM_EMU_MOST_MAPS = 4 };

typedef struct pm_emu_fiber {
    void *stack_pointer;
    pm_emu_wait waits;
    const void *place; ///< where a barrier was called
    uint32_t exchange;
    int32_t number;
    const void *in, *more;
    void *out;
    pm_emu_copy *copies; ///< not yet waited for
    int32_t n_copies, copy_room, group;
    pm_emu_product products[PM_EMU_MOST_PRODUCTS];
    int32_t n_products, product_group;
    bool fenced;
    const void *maps[PM_EMU_MOST_MAPS]; ///< acquired
    uint32_t n_maps;
} pm_emu_fiber;

typedef struct pm_emu_piece {
    const void *key; ///< NULL: dynamic
    uint64_t offset, size;
} pm_emu_piece;

/// In shared memory.
typedef struct pm_emu_barrier {
    uint64_t *at;
    int32_t count, pending, phase;
    int64_t bytes; ///< expected and not landed
} pm_emu_barrier;

/// A bulk copy on its way.
typedef struct pm_emu_bulk {
    void *to;
    const void *from;
    const pm_emu_tensor_map *map; ///< or NULL
    int32_t x, y, z;
    uint32_t bytes, thread;
    pm_emu_barrier *barrier;
} pm_emu_bulk;

enum { PM_EMU_MOST_BARRIERS = 64, PM_EMU_MOST_BULKS = 1024 };
#define PM_EMU_TENSOR_MAGIC 0x70616d726f736e65u

enum { PM_EMU_MOST_PIECES = 64, PM_EMU_GAP = 128 };

typedef struct pm_emu_player {
    pm_emu_launch launch;
    uint64_t words[PM_EMU_MOST_PARAMETERS];
    void *main_stack;
    pm_emu_fiber *fibers;
    uint8_t *stacks, *shared;
    uint64_t stack_size, stacks_size;
    uint64_t block;
    uint32_t now;
    pm_emu_piece pieces[PM_EMU_MOST_PIECES];
    uint32_t n_pieces;
    pm_emu_barrier barriers[PM_EMU_MOST_BARRIERS];
    pm_emu_bulk bulks[PM_EMU_MOST_BULKS]; ///< in order
    uint32_t n_barriers, n_bulks;
    uint64_t shared_used, shared_end; ///< bytes asked for; where the last piece ends
    bool in_scheduler; ///< carries out an exchange
    jmp_buf scheduler;
    char error[480];
} pm_emu_player;

/// The launch that this thread plays.
extern _Thread_local pm_emu_player *pm_emu_now;

static inline pm_emu_fiber *pm_emu_self(void)
{
    return &pm_emu_now->fibers[pm_emu_now->now];
}

static inline void pm_emu_tell(const void *at, uint64_t bytes, pm_emu_how how)
{
    if (pm_emu_now->launch.watch)
        pm_emu_now->launch.watch->access(at, bytes, how);
}

/// The oldest bulk copy lands; false: there is none.
bool pm_emu_land(pm_emu_player *p);
/// Threads whose phase is over run; false: none does.
bool pm_emu_wake(pm_emu_player *p);
/// Lets the others run until what is waited for has come.
void pm_emu_pause(pm_emu_wait wait);
/// Shows the warp operands; behind it the result is in `out`.
void pm_emu_meet(uint32_t what, const void *in, const void *more, int32_t number, void *out);
/// Notes a fault outside of threads: the launch ends.
void pm_emu_note(uint32_t thread, const char *format, ...) __attribute__((format(printf, 2, 3)));
/// Element `at` of a register that holds two of 16 bits or four of 8.
float pm_emu_element(uint32_t bits, int32_t kind, int at);
void pm_emu_carry_out_products(pm_emu_fiber *lanes);
/// All 32 lanes of the warp show the same kind of thing: carries it out.
void pm_emu_carry_out(pm_emu_fiber *lanes);

#endif
