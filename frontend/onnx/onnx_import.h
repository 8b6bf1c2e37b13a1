/// Inside of the ONNX importer: contexts, scopes, and what a handler of an op sees.
///
/// One pm_onnx per model. A *frame* is a body in which operators and attribute references have one
/// meaning: the main graph, or one inlining of a model-local function. A *scope* maps names to
/// values: one per graph, function body and subgraph. A *call* is one node being imported.
#ifndef PM_FRONTEND_ONNX_IMPORT_H
#define PM_FRONTEND_ONNX_IMPORT_H

#include "frontend/onnx/onnx_model.pb-c.h"
#include "ir/builder.h"

enum {
    PM_ONNX_MIN_OPSET = 7,
    PM_ONNX_MAX_OPSET = 28,
    PM_ONNX_MAX_INLINE = 64,      ///< functions and subgraphs within one another
    PM_ONNX_MAX_EXPANDED = 500000, ///< nodes that functions and subgraphs may become
    PM_ONNX_MAX_ATTRS = 24,       ///< attributes of one op
    PM_ONNX_MAX_ELEMS = 4096,     ///< elements of an axes, sizes or shape input
};

typedef struct pm_onnx {
    pm_module *module;
    pm_arena *temp; ///< dies when the import ends
    pm_diag *diag;
    const char *path, *dir;
    const pm_file *file;
    const Onnx__Model *model;
    pm_map functions;   ///< by domain, name and overload, each with its NUL: const Onnx__Function *
    pm_map externals;   ///< by location: const pm_file *
    pm_map rows;        ///< rows found so far, by domain, name and version
    pm_map tensors;      ///< by the tensor's address: const pm_data * that was read inline
    pm_map float8;       ///< values that hold codes of FLOAT8E4M3FN as u8, by their address
    uint64_t n_expanded; ///< cost of the nodes of functions and subgraphs imported so far
} pm_onnx;

typedef struct pm_onnx_frame {
    const struct pm_onnx_frame *caller; ///< NULL: the main graph
    const Onnx__Function *function;
    Onnx__OpsetId *const *opsets;
    size_t n_opsets;
    Onnx__Attribute *const *attrs; ///< of the call, references resolved
    size_t n_attrs;
    const pm_loc *loc; ///< of the call
    uint32_t depth;
} pm_onnx_frame;

/// What a name stands for.
typedef struct pm_onnx_binding {
    pm_value *value;
    const Onnx__Tensor *tensor; ///< an initializer that nothing has used yet (then `value` is NULL)
    bool absent;                ///< an optional input that a function was called without
    const pm_loc *refused_by;   ///< a node that has this output, which we don't compute
    uint32_t producer;          ///< index of the node in its graph
} pm_onnx_binding;

typedef struct pm_onnx_scope {
    pm_onnx *onnx;
    const pm_onnx_frame *frame;
    struct pm_onnx_scope *outer; ///< NULL: the main graph or a function's body
    bool isolated;               ///< a region: sees only what was captured
    pm_map names;                ///< pm_onnx_binding *
    pm_graph *graph;             ///< where ops go
    uint32_t depth;
} pm_onnx_scope;

/// An attribute's value; which member is valid follows from the declared kind.
typedef struct pm_onnx_attr {
    bool present; ///< given or by default
    bool given;
    int64_t i; ///< int, bool, elem (pm_elem)
    double f;
    const char *s;
    size_t n;
    const int64_t *ints;
    const double *floats;
    const Onnx__Tensor *tensor;
    const Onnx__Graph *graph;
} pm_onnx_attr;

typedef enum pm_onnx_kind {
    PM_ONNX_INT,
    PM_ONNX_FLOAT,
    PM_ONNX_STR,
    PM_ONNX_BOOL,
    PM_ONNX_ELEM,
    PM_ONNX_INTS,
    PM_ONNX_FLOATS,
    PM_ONNX_TENSOR,
    PM_ONNX_GRAPH,
    PM_ONNX_STRS, ///< may only be present
} pm_onnx_kind;

typedef struct pm_onnx_decl {
    char name[40], ir[24]; ///< `ir` empty: the handler's business
    pm_onnx_kind kind;
    bool required;
    pm_onnx_attr def;
} pm_onnx_decl;

typedef struct pm_onnx_call pm_onnx_call;
typedef pm_status pm_onnx_handler(pm_onnx_call *call);

/// A row of onnx_ops.def.
typedef struct pm_onnx_row {
    const char *name, *domain;
    int since;
    uint32_t min_in, max_in, min_out, max_out;
    pm_onnx_handler *handler;
    int op;           ///< pm_opcode, or -1
    const char *text; ///< the handler's argument
    const char *attrs;
} pm_onnx_row;

struct pm_onnx_call {
    pm_onnx *onnx;
    pm_onnx_scope *scope;
    const Onnx__Node *node;
    const pm_onnx_row *row;
    pm_builder b;
    pm_value **in; ///< NULL: absent
    size_t n_in;
    pm_value **out; ///< set by the handler
    size_t n_out;   ///< named outputs, absent ones between them included
    size_t n_decls;
    pm_onnx_decl decls[PM_ONNX_MAX_ATTRS];
    pm_onnx_attr attrs[PM_ONNX_MAX_ATTRS];
};

/* ---- onnx_table.c ---- */

/// The row for an op in a version of its domain; NULL when there is none (then *out_other tells
/// whether the op exists in another version, and *out_nearest is a likely right name or NULL).
const pm_onnx_row *pm_onnx_find_row(const char *domain, const char *name, int64_t version,
                                    bool *out_other, const char **out_nearest);
/// Parses a row's attribute list; asserts that it is well formed.
size_t pm_onnx_parse_decls(const char *text, pm_onnx_decl *out);
size_t pm_onnx_n_rows(void);
const pm_onnx_row *pm_onnx_row_at(size_t i);

/* ---- onnx_attr.c ---- */

/// Resolves references to the function's attributes: the attributes that the node has in its frame.
PM_NODISCARD pm_status pm_onnx_resolve_attrs(pm_onnx *onnx, const pm_onnx_frame *frame,
                                             const pm_loc *loc, const Onnx__Node *node,
                                             Onnx__Attribute ***out_attrs, size_t *out_n);
/// Checks the node's attributes against the row's list and fills call->decls and call->attrs.
PM_NODISCARD pm_status pm_onnx_read_attrs(pm_onnx_call *call);
/// An attribute by name; the row must declare it.
const pm_onnx_attr *pm_onnx_attr_of(const pm_onnx_call *call, const char *name);

/* ---- onnx_tensor.c ---- */

/// A constant of the tensor at `b`. Its bytes stay in the file where they can.
PM_NODISCARD pm_status pm_onnx_const(pm_onnx *onnx, pm_builder *b, const Onnx__Tensor *tensor,
                                     const char *name, pm_value **out_value);
/// Whether its elements are codes of FLOAT8E4M3FN.
bool pm_onnx_is_float8(const pm_onnx *onnx, const pm_value *value);
/// Name of an element type by its ONNX number, for messages.
const char *pm_onnx_type_name(int32_t data_type);

/* ---- onnx_dims.c ---- */

/// A symbol for each plain name among the dims of the graph's inputs.
void pm_onnx_declare_dims(pm_onnx *onnx, const Onnx__Graph *graph);
/// A dim's name as an expression: numbers and declared names with + - *. PM_DIM_NONE: none.
pm_dim pm_onnx_parse_dim(pm_onnx *onnx, const char *text);

/* ---- onnx_graph.c ---- */

void pm_onnx_scope_init(pm_onnx_scope *scope, pm_onnx *onnx, const pm_onnx_frame *frame,
                        pm_onnx_scope *outer, pm_graph *graph);
/// Declares a name; an error when it is taken in this scope or visible from an outer one.
PM_NODISCARD pm_status pm_onnx_declare(pm_onnx_scope *scope, const pm_loc *loc, const char *name,
                                       pm_onnx_binding **out_binding);
/// The binding that a name has in the scope, or NULL.
pm_onnx_binding *pm_onnx_lookup(pm_onnx_scope *scope, const char *name);
/// The value of a name, made a constant first when it is an unused initializer. NULL for absent. Floats of 8 bits are
/// refused, which only some operators read; pm_onnx_coded_value gives those, too.
PM_NODISCARD pm_status pm_onnx_value(pm_onnx_scope *scope, const pm_loc *loc, const char *name,
                                     pm_value **out_value);
PM_NODISCARD pm_status pm_onnx_coded_value(pm_onnx_scope *scope, const pm_loc *loc, const char *name,
                                           pm_value **out_value);
/// The error of floats of 8 bits where they aren't read.
pm_status pm_onnx_unread_float8(pm_onnx_scope *scope, const pm_loc *loc, const char *name);
/// Declares initializers and node outputs, then imports all nodes in topological order.
PM_NODISCARD pm_status pm_onnx_import_body(pm_onnx_scope *scope, const pm_loc *loc,
                                           Onnx__Node *const *nodes, size_t n_nodes,
                                           Onnx__Tensor *const *tensors, size_t n_tensors);
/// Names that a subgraph uses from outside, in order of their first use: keys of `free_names`.
void pm_onnx_free_names(pm_onnx *onnx, const Onnx__Graph *graph, pm_map *free_names);
/// Version of a domain in the frame, or -1.
int64_t pm_onnx_version(const pm_onnx_frame *frame, const char *domain);
/// "" for the default domain under any of its names.
const char *pm_onnx_domain(const char *domain);
/// The model-local function of that name, or NULL.
const Onnx__Function *pm_onnx_function(pm_onnx *onnx, const char *domain, const char *name,
                                       const char *overload);
/// Enters a function; false when there is one of that name.
bool pm_onnx_add_function(pm_onnx *onnx, const Onnx__Function *function);

/* ---- onnx_node.c ---- */

/// Imports one node: inlines the function that it calls, or hands it to its row's handler.
PM_NODISCARD pm_status pm_onnx_import_node(pm_onnx_scope *scope, const Onnx__Node *node);
/// Reports each op that has no row, once per op, with its number of nodes.
PM_NODISCARD pm_status pm_onnx_check_ops(pm_onnx_scope *scope, Onnx__Node *const *nodes, size_t n);
/// The location of a node.
pm_loc pm_onnx_node_loc(const pm_onnx_scope *scope, const Onnx__Node *node);

/* ---- onnx_call.c: for handlers ---- */

pm_status pm_onnx_error(pm_onnx_call *call, pm_status code, const char *fmt, ...) PM_PRINTF(3, 4);
/// Shorthand of the builder with one result.
PM_NODISCARD pm_status pm_onnx_build(pm_onnx_call *call, pm_value **out, pm_opcode code,
                                     pm_value *const *operands, size_t n_operands,
                                     const pm_attr *attrs, size_t n_attrs);
/// A scalar constant of rank 0.
PM_NODISCARD pm_status pm_onnx_scalar(pm_onnx_call *call, pm_elem elem, double value,
                                      pm_value **out);
/// An i64 vector.
PM_NODISCARD pm_status pm_onnx_vector(pm_onnx_call *call, const int64_t *values, size_t n,
                                      pm_value **out);
/// The elements of an integer input that must be known now; `what` names it in the error.
PM_NODISCARD pm_status pm_onnx_ints(pm_onnx_call *call, pm_value *value, const char *what,
                                    const int64_t **out, size_t *out_n);
/// Axis in 0..rank-1 from one that may count from the end.
PM_NODISCARD pm_status pm_onnx_axis(pm_onnx_call *call, int64_t axis, int64_t rank, int64_t *out);
/// Axes as above, without duplicates, ascending.
PM_NODISCARD pm_status pm_onnx_axes(pm_onnx_call *call, const int64_t *axes, size_t n, int64_t rank,
                                    int64_t *out);
/// x seen with other dims; they must hold as many elements.
PM_NODISCARD pm_status pm_onnx_reshape(pm_onnx_call *call, pm_value *x, const pm_dim *dims,
                                       int32_t rank, pm_value **out);
PM_NODISCARD pm_status pm_onnx_cast(pm_onnx_call *call, pm_value *x, pm_elem elem, pm_value **out);
PM_NODISCARD pm_status pm_onnx_transpose(pm_onnx_call *call, pm_value *x, const int64_t *perm,
                                         pm_value **out);
/// Computes an expression of the table over args (x, y, z), numbers and attributes ($name), such
/// as "min(x, 6)". It ends at the end of the text or at a bar.
PM_NODISCARD pm_status pm_onnx_expr(pm_onnx_call *call, const char *text, pm_value *const *args,
                                    pm_value **out);
/// Whether a condition is known before the model runs; then *out_value.
bool pm_onnx_known_bool(pm_onnx_call *call, const pm_value *value, bool *out_value);
/// Input i, NULL when it is absent or i is negative.
pm_value *pm_onnx_input(const pm_onnx_call *call, int i);
/// An extent; 0 when it is not known.
int64_t pm_onnx_extent(const pm_onnx_call *call, const pm_value *v, int32_t i);
/// The error of an input of a wrong type; `what` names its role, `must` what it must be.
pm_status pm_onnx_wrong_shape(pm_onnx_call *call, int i, const char *what, const char *must);
/// Checks that input i, where there is one, has the element type of input `like`.
PM_NODISCARD pm_status pm_onnx_check_elem(pm_onnx_call *call, int i, const char *what, int like);
/// Checks an input's extents, which must be known; -1: any.
PM_NODISCARD pm_status pm_onnx_check_shape(pm_onnx_call *call, int i, const char *what, int32_t rank,
                                           const int64_t *dims);
/// What codes of `bits` bits along the last axis stand for (op dequantize); zeros may be NULL.
PM_NODISCARD pm_status pm_onnx_dequantize(pm_onnx_call *call, pm_value *codes, pm_value *scales,
                                          pm_value *zeros, int64_t k, int64_t bits, int64_t block,
                                          pm_value **out);
/// Slice of an axis with known bounds.
PM_NODISCARD pm_status pm_onnx_slice(pm_onnx_call *call, pm_value *x, int64_t axis, int64_t start,
                                     int64_t end, pm_value **out);

#endif
