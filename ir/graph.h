/// The graph: modules, entries, ops, values. graph.c is the only file that edits links.
#ifndef PM_IR_GRAPH_H
#define PM_IR_GRAPH_H

#include "base/containers.h"
#include "base/file.h"
#include "ir/eval.h"
#include "ir/type.h"

typedef struct pm_graph pm_graph;
typedef struct pm_op pm_op;
typedef struct pm_value pm_value;

typedef enum pm_opcode {
#define PM_OP(id, ...) PM_OP_##id,
#include "ir/ops.def"
    PM_OP_COUNT
} pm_opcode;

/// Bytes of a constant: inline, or a range of a file. Immutable.
typedef struct pm_data {
    uint64_t size;
    const uint8_t *bytes; ///< inline bytes in the module's arena; NULL: in `file`
    const pm_file *file;
    uint64_t offset;
} pm_data;

typedef enum pm_attr_kind {
    PM_ATTR_I64,
    PM_ATTR_F64,
    PM_ATTR_STR,
    PM_ATTR_BOOL,
    PM_ATTR_ELEM,
    PM_ATTR_INTS,
    PM_ATTR_FLOATS,
    PM_ATTR_DATA, ///< only `const`
} pm_attr_kind;

typedef struct pm_attr {
    const char *key; ///< interned: equal keys are equal pointers
    pm_attr_kind kind;
    bool present; ///< false only in ops, for an optional attribute that was not given
    int64_t i; ///< i64, bool, elem
    double f;
    const char *s;
    const int64_t *ints;
    const double *floats;
    size_t n;
    const pm_data *data;
} pm_attr;

enum { PM_MAX_REGION_DEPTH = 64 }; ///< regions nested deeper are refused

/// One use of a value as an operand; links in the value's use list.
typedef struct pm_use {
    pm_op *op;
    uint32_t index;
    struct pm_use *next, *prev;
} pm_use;

/// Where a value lives in the emitted program; set by the memory plan.
typedef enum pm_place_kind {
    PM_PLACE_NONE,    ///< not planned (yet)
    PM_PLACE_ARENA,   ///< at `offset` (bytes, an expression over call symbols) of the call's arena
    PM_PLACE_DYNAMIC, ///< slot `index` of the dynamic region: size known only during the run
    PM_PLACE_INPUT,   ///< the caller's buffer of entry argument `index`
    PM_PLACE_OUTPUT,  ///< the caller's buffer of entry result `index`
    PM_PLACE_STATE,   ///< state `index` of the module, in place
    PM_PLACE_WEIGHT,  ///< constant: in the weights of the artifact
    PM_PLACE_ALIAS,   ///< the bytes of operand `index` of the defining op (views, in-place ops); of a region's
                      ///< argument: of operand `index` of the region's op; of a loop's result: of the
                      ///< region's argument `index`, where the carried value lies
    PM_PLACE_LOCAL,   ///< each worker's own scalar `index`: iteration and condition of a loop
    PM_PLACE_RESULT,  ///< in a branch: where result `index` of the `if` lies
} pm_place_kind;

typedef struct pm_place {
    pm_place_kind kind;
    uint32_t index;
    pm_dim offset;
} pm_place;

struct pm_value {
    const pm_type *type;
    pm_op *def;       ///< NULL: an argument of `graph`
    pm_graph *graph;
    uint32_t index;   ///< result or argument number
    uint32_t id;      ///< unique in the module, for printing and side tables
    const char *name; ///< hint from the input; may be NULL
    pm_use *uses;
    /// For integer tensors of rank 0 or 1 whose elements are known as expressions (shape
    /// arithmetic): the elements, row-major; NULL when unknown.
    const pm_dim *content;
    pm_place place;
};

struct pm_op {
    pm_opcode code;
    const pm_loc *loc; ///< never NULL
    const char *device; ///< interned name of where it runs; NULL: the host, or not decided yet (assign-devices)
    pm_graph *graph;
    pm_op *prev, *next;
    uint32_t serial; ///< unique in the module, for --break-on-op and messages
    uint32_t n_operands, n_results, n_regions, n_attrs;
    pm_value **operands; ///< NULL entries: optional operands that are absent
    pm_use *uses;        ///< parallel to operands
    pm_value **results;
    pm_graph **regions;
    pm_attr *attrs; ///< in the order of the op's attribute list; defaults filled in
    uint32_t mark; ///< scratch of the pass that runs
    bool is_clone; ///< not inferred since pm_op_clone: inference gives it extents of its own
};

/// Memory plan: a device's arena of a call.
typedef struct pm_device_arena {
    const char *device; ///< interned
    pm_dim bytes;
} pm_device_arena;

/// One block in SSA form. A module's entry, or a region of an op.
struct pm_graph {
    pm_module *module;
    const char *name;
    pm_op *parent; ///< the op whose region this is; NULL for entries
    pm_op *first, *last;
    PM_VEC(pm_value *) args;
    PM_VEC(pm_value *) results;
    PM_VEC(const char *) result_names; ///< entries only; parallel to results
    /// For entries, parallel to args / results: index of the state, or -1 for a plain tensor.
    PM_VEC(int32_t) arg_states;
    PM_VEC(int32_t) result_states;
    pm_dim arena_bytes;     ///< memory plan: bytes of the call's arena on the host
    PM_VEC(pm_device_arena) device_arenas; ///< memory plan: on the other devices that its ops use
    uint32_t n_dynamic;     ///< memory plan: number of dynamic slots
};

/// Memory that lives between calls (a key-value cache).
typedef struct pm_state {
    const char *name;
    const pm_type *type;
    const char *device; ///< interned name of where it lives; NULL: the host
} pm_state;

typedef PM_VEC(pm_symbol) pm_symbol_vec;

struct pm_module {
    pm_arena *arena;
    pm_diag *diag;
    const char *name;
    PM_VEC(pm_graph *) entries;
    PM_VEC(pm_state) states;
    pm_symbol_vec symbols;
    /// What the program carries beside the graph: strings by key ("model_type", "eos_token_id", …),
    /// and blobs ("tokenizer": the source file's bytes).
    pm_map meta;  ///< const char *
    pm_map blobs; ///< const pm_data *
    struct pm_interner *interner; ///< dims, types, strings, locations
    uint32_t next_value, next_serial;
    const char *device;   ///< what new ops get: a pass that rewrites sets it to that of the op whose place they take
    /// Told of every pair of extents that an op's hook wants to be equal, while somebody asks (extent_rules.c).
    void (*on_extents)(void *user, pm_dim found, pm_dim expected);
    void *on_extents_user;
    uint32_t break_on_op; ///< serial to trap on when created; 0: none
};

pm_module *pm_module_create(pm_arena *arena, pm_diag *diag, const char *name);

/// An interned copy of a string: equal text, equal pointer.
const char *pm_intern(pm_module *m, const char *text);
/// A copy of the location in the module's arena.
const pm_loc *pm_loc_intern(pm_module *m, const pm_loc *loc);
/// A location derived from `from` by the pass `by`.
const pm_loc *pm_loc_derive(pm_module *m, const pm_loc *from, const char *by);

pm_graph *pm_entry_create(pm_module *m, const char *name);
pm_graph *pm_region_create(pm_op *parent);
/// Adds an argument. `state`: index of the state that it is the content of, or -1.
pm_value *pm_graph_add_arg(pm_graph *g, const char *name, const pm_type *type, int32_t state);
void pm_graph_add_result(pm_graph *g, const char *name, pm_value *value, int32_t state);
/// An entry that runs where the devices of its namesake are missing, for the host alone (pass host-twins).
#define PM_HOST_SUFFIX "@host"
bool pm_graph_is_host_twin(const pm_graph *g);
int32_t pm_state_add(pm_module *m, const char *name, const pm_type *type);

/// Creates an op before `before` (NULL: at the end of `g`) without inferring: for the text parser
/// and the builder. Attributes are matched to the op's list; absent ones get their defaults.
/// Errors: unknown attribute, wrong kind, arity out of range.
PM_NODISCARD pm_status pm_op_create(pm_graph *g, pm_op *before, pm_opcode code, const pm_loc *loc,
                                    pm_value *const *operands, size_t n_operands,
                                    const pm_attr *attrs, size_t n_attrs, size_t n_results,
                                    size_t n_regions, pm_op **out_op);
/// Unlinks the op; its results must have no uses. Storage stays in the arena.
void pm_op_erase(pm_op *op);
void pm_op_move_before(pm_op *op, pm_op *before);
void pm_op_set_operand(pm_op *op, uint32_t index, pm_value *value);
/// Takes away an operand, and with it argument `arg`, which nothing may use, of each of the op's regions.
void pm_op_drop_captured(pm_op *op, uint32_t operand, uint32_t arg);
/// Every use of `old`, graph results included, becomes `value`.
void pm_value_replace(pm_value *old, pm_value *value);
uint32_t pm_value_use_count(const pm_value *value); ///< graph results count

/// Where the value's bytes lie: the device of its op, an argument's state; NULL: the host. Of constants: everywhere.
const char *pm_value_device(const pm_value *v);

/// The value whose place says where the bytes of `v` lie, through aliases.
const pm_value *pm_value_root(const pm_value *v);

static inline bool pm_value_is(const pm_value *v, pm_opcode code)
{
    return v && v->def && v->def->code == code;
}

/// The op after `op` in the order of the text, ops of regions included; NULL at the end of `top`.
pm_op *pm_op_next_nested(const pm_graph *top, pm_op *op);

/// Copies an op with its regions into `g` before `before`. `map[value id]` gives the new operand of
/// an old value (values not in the map are used as they are) and receives the new results.
/// Keys and values are those of pm_value_map_put. Types, content and names are copied: where operand
/// types differ, or the original stays, follow with pm_op_infer (which then makes new symbols for
/// data-dependent extents instead of sharing the original's).
PM_NODISCARD pm_status pm_op_clone(pm_op *op, pm_graph *g, pm_op *before, pm_map *value_map,
                                   pm_op **out_op);

/// Maps from values to values, for pm_op_clone.
pm_value *pm_value_map_get(const pm_map *value_map, const pm_value *key);
void pm_value_map_put(pm_map *value_map, const pm_value *key, pm_value *value);

/// Attributes by name; the op must declare the name (an assertion otherwise).
const pm_attr *pm_op_attr(const pm_op *op, const char *key);
int64_t pm_op_i64(const pm_op *op, const char *key);
double pm_op_f64(const pm_op *op, const char *key);
const char *pm_op_str(const pm_op *op, const char *key);
void pm_op_set_i64(pm_op *op, const char *key, int64_t value);
void pm_op_set_str(pm_op *op, const char *key, const char *value);

/// Attribute values for pm_op_create and the builder.
pm_attr pm_attr_i64(const char *key, int64_t value);
pm_attr pm_attr_f64(const char *key, double value);
pm_attr pm_attr_bool(const char *key, bool value);
pm_attr pm_attr_str(const char *key, const char *value);
pm_attr pm_attr_elem(const char *key, pm_elem value);
pm_attr pm_attr_data(const char *key, const pm_data *value); ///< pm_op_create copies the pm_data, not its bytes
pm_attr pm_attr_ints(const char *key, const int64_t *values, size_t n);
pm_attr pm_attr_floats(const char *key, const double *values, size_t n);

/// Bytes of a constant: pointer to inline bytes, or read from the file into the arena.
PM_NODISCARD pm_status pm_data_bytes(pm_module *m, const pm_data *data, const uint8_t **out_bytes);
/// Element i of a constant of integers or bools (an unsigned 64-bit one keeps its bits).
int64_t pm_data_int(const uint8_t *bytes, pm_elem elem, size_t i);
/// The data of a value defined by `const`, or NULL.
const pm_data *pm_value_const(const pm_value *value);
/// The elements of a constant integer tensor of at most `max` elements; false otherwise.
bool pm_value_const_ints(pm_value *value, int64_t *out, size_t max, size_t *out_n);

#endif
