/// What the kernel tests share: buffers that end at an unreadable page, numbers, packing, runs by workers.
#ifndef PM_KERNEL_TEST_H
#define PM_KERNEL_TEST_H

#include <stdbool.h>
#include <stdint.h>

#include "codegen/kernels/kernels.h"

/// Memory filled with NaN patterns, whose last byte is followed by a page that must not be touched. Never freed.
void *guarded(int64_t bytes);
float *guarded_floats(int64_t count);
/// The piece of such memory that `at` is in.
bool guarded_piece(const void *at, const void **out_start, int64_t *out_bytes);

/// Repeatable numbers in [-1, 1), and integers in [0, n).
float next_float(void);
int64_t next_below(int64_t n);
void fill_random(float *x, int64_t count);

uint16_t to_bf16(float x);
float from_bf16(uint16_t x);

/// Packs w [n][k] as pm_layout says (ir/type.h), guarded.
float *pack_f32(const float *w, int64_t n, int64_t k, int64_t panel);
uint16_t *pack_bf16(const float *w, int64_t n, int64_t k, int64_t panel);

/// Distance of got from the double, in units of the last place of a float there.
double ulps(double want, float got);

bool same_bits(const float *a, const float *b, int64_t count);

/// Runs all tests of a program whose Suite is made by `suite`; 77 when this CPU lacks what it needs.
struct Suite;
int run_suite(struct Suite *(*suite)(void));

#endif
