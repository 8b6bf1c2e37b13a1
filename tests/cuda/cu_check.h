/// Watches templates that are played: they are compiled with calls at each access of memory (clang's -fsanitize=thread;
/// cu_check.c is what it calls, nothing of its runtime is linked). Every access must lie in a buffer, in a piece of shared
/// memory or on the thread's own stack; two of different threads, of which one writes, must be ordered by barriers; what
/// is read of shared memory must have been written, and async copies must have arrived.
#ifndef PM_CU_CHECK_H
#define PM_CU_CHECK_H

#include "runtime/device/emu_play.h"

extern const pm_emu_watch cu_watch;
/// Before each launch; threads of a block.
void cu_check_begin(uint32_t threads);

#endif
