/// Patterns over the IR as text: what a table of forms is made of.
///
///   pattern = ["%" result] op ["@" axis] "(" pattern {"," pattern} ")" | "?" name | "$" name | number
///
/// An op's name stands for a value that such an op computes (result 0, or of `%1topk(…)` result 1). `?x` is any
/// value, and everywhere the same one; `$x` is a constant of one number, which is noted; a number is that
/// constant. reduce_*, softmax and topk must work along the last axis alone, or with @2 the one before it. Views (reshape), casts between float types
/// and an expand of a constant are looked through everywhere, so extents have to be checked by whoever asks.
/// Operands of ops that commute match in both orders.
#ifndef PM_PASSES_MOE_PATTERN_H
#define PM_PASSES_MOE_PATTERN_H

#include "ir/graph.h"

enum { PM_PATTERN_NAMES = 8 };

typedef struct pm_match {
    pm_module *module;
    pm_value *values[26];  ///< of ?a to ?z, under views; NULL: not bound
    double numbers[26];    ///< of $a to $z
    bool has_number[26];
} pm_match;

/// Whether the value matches; `*match` then holds what the names stand for, and is unspecified otherwise.
/// Names are single letters.
bool pm_pattern_matches(const char *pattern, pm_value *v, pm_module *m, pm_match *match);

/// The value under views and casts between float types.
pm_value *pm_under_views(pm_value *v);

static inline pm_value *pm_match_value(const pm_match *match, char name)
{
    return match->values[name - 'a'];
}

#endif
