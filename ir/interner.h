/// What a module interns: dims, types, layouts, strings, locations. For dim.c, type.c and graph.c.
#ifndef PM_IR_INTERNER_H
#define PM_IR_INTERNER_H

#include "ir/graph.h"

/// One interned expression. `size` counts the nodes of its tree.
typedef struct pm_dim_node {
    pm_dim_kind kind;
    uint32_t size;
    int64_t value;
    pm_dim a, b;
} pm_dim_node;

struct pm_interner {
    PM_VEC(pm_dim_node) dims;
    pm_map dim_ids;        ///< node -> id + 1
    pm_map symbol_ids;     ///< name -> symbol index + 1
    pm_map symbol_counter; ///< name -> last suffix given
    pm_dim zero, one, too_large;
    pm_map types, layouts;
    uint32_t next_type;
    pm_map strings;
    pm_map locations;
    pm_map file_bytes; ///< pm_data pointer -> bytes read
};

static inline const pm_dim_node *pm_dim_node_of(const pm_module *m, pm_dim d)
{
    PM_ASSERT(d >= 0 && (size_t)d < m->interner->dims.n);
    return &m->interner->dims.data[d];
}

/* Integer division that rounds down, rounds up, and the remainder with the divisor's sign; b is not
 * 0, and not -1 where a is INT64_MIN. */
static inline int64_t pm_floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static inline int64_t pm_ceil_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return a % b != 0 && (a < 0) == (b < 0) ? q + 1 : q;
}

static inline int64_t pm_floor_mod(int64_t a, int64_t b)
{
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/// The expression of that kind, not of a constant or a symbol.
pm_dim pm_dim_combine(pm_module *m, pm_dim_kind kind, pm_dim a, pm_dim b);

/// Sets up the interner of a new module.
void pm_dims_init(pm_module *m);

#endif
