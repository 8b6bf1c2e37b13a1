/// Random modules and inputs for property tests: every pipeline and all native code must agree with
/// the interpreter on them. Everything follows from the seed alone, on every machine.
#ifndef PM_TESTS_RANDOM_GRAPH_H
#define PM_TESTS_RANDOM_GRAPH_H

#include "ir/interp.h"

/// What a module may hold beside elementwise ops, reductions, products, norms and plain data
/// movement, which are always there.
enum random_what {
    RANDOM_MOE = 1 << 0,         ///< route, experts of both kinds, and their lowered form
    RANDOM_DYNAMIC = 1 << 1,     ///< data-dependent extents: nonzero and what follows
    RANDOM_SYMBOLS = 1 << 2,     ///< symbolic extents, shape arithmetic; without it all is constant
    RANDOM_OTHER_ELEMS = 1 << 3, ///< f64, f16, bf16, integers beside f32, i64, i32 and bool
    RANDOM_CONTROL = 1 << 4,     ///< if and loop
    RANDOM_INDEXED = 1 << 5,     ///< gather, scatter, topk, onehot, … (reference code, mostly)
    RANDOM_MOST =
        RANDOM_MOE | RANDOM_DYNAMIC | RANDOM_SYMBOLS | RANDOM_OTHER_ELEMS | RANDOM_INDEXED,
};

/// A verified module of one entry "main". Its floating results are well conditioned: no result
/// amplifies rounding by more than some thousands, and what decides (comparisons, choices of
/// experts, indices) is computed exactly in any order and precision of f32.
/// NULL when building an op failed, with the error in `diag`: a bug of the builder or the
/// generator.
pm_module *random_module_of(pm_arena *arena, pm_diag *diag, uint64_t seed, unsigned what);
/// The same with RANDOM_MOST.
pm_module *random_module(pm_arena *arena, pm_diag *diag, uint64_t seed);

/// One array for each argument: symbols get small values within their ranges (equal for equal
/// seeds), floats are multiples of 1/8 in [-2, 2], integers are in [0, 3].
pm_array *random_inputs(pm_arena *arena, const pm_graph *entry, uint64_t seed);

/// The same with values for the module's symbols.
pm_array *random_inputs_bound(pm_arena *arena, const pm_graph *entry, uint64_t seed,
                              const int64_t *bindings);

/// NULL when `got` is `want`: types and sizes, integers and bools exactly, floats within
/// `tolerance` times (1 + the largest magnitude in `want`), where f16 and bf16 get the tolerance of
/// their precision. Else what differs.
const char *arrays_differ(pm_arena *arena, const pm_array *want, const pm_array *got,
                          double tolerance);
/// Element i as a double.
double array_element(const pm_array *array, int64_t i);
int64_t array_count(const pm_array *array);

/// The generator of random numbers (splitmix64).
typedef struct random_state {
    uint64_t state;
} random_state;
uint64_t random_next(random_state *r);
/// In [0, n).
uint32_t random_below(random_state *r, uint32_t n);

#endif
