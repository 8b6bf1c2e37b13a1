/// What is known of each op: ops.def, expanded.
#ifndef PM_IR_OP_TABLE_H
#define PM_IR_OP_TABLE_H

#include "ir/builder.h"

typedef pm_status pm_verify_fn(const pm_op *op, pm_diag *diag);
typedef pm_status pm_infer_fn(pm_infer *inf);
/// Tries to simplify: sets *out_value to an existing or new value that replaces the single result,
/// or leaves it NULL. New ops are created at `b`. Constants are folded generically through eval.
typedef pm_status pm_fold_fn(pm_builder *b, pm_op *op, pm_value **out_value);

enum pm_op_trait {
    PM_T_NONE = 0,
    PM_T_ELEMENTWISE = 1 << 0, ///< each result element depends on the same (broadcast) element of the operands
    PM_T_REDUCE = 1 << 1,      ///< reduces `axes` of operand 0
    PM_T_VIEW = 1 << 2,        ///< result 0 has the bytes of operand 0
    PM_T_INPLACE = 1 << 3,     ///< result 0 overwrites operand 0, which must not be used later
    PM_T_COMMUTES = 1 << 4,    ///< operands 0 and 1 may be swapped
    PM_T_IMPURE = 1 << 5,      ///< not removed or merged although unused or equal
    PM_T_WEIGHT = 1 << 6,      ///< of constant operands: computed when the artifact is written
    PM_T_SHAPE = 1 << 7,       ///< reads only the shape of operand 0, not its bytes
};

typedef struct pm_attr_decl {
    const char *key; ///< not interned: compare text
    pm_attr_kind kind;
    bool required, has_default;
    pm_attr def;
} pm_attr_decl;

enum { PM_ANY = 0xffff, PM_MAX_ATTRS = 16 };

typedef struct pm_op_info {
    const char *name;
    uint32_t min_in, max_in, n_out, n_regions; ///< PM_ANY: any number
    uint32_t traits;
    pm_verify_fn *verify;
    pm_infer_fn *infer;
    pm_fold_fn *fold;
    pm_extent_fn *extent; ///< NULL: results' dims follow from the operands' dims and content
    pm_eval_fn *eval;     ///< NULL: no meaning of its own (const, regions: the interpreter knows them)
    const char *eval_name; ///< symbol of eval in the reference bitcode ("pm_eval_softmax")
    const char *extent_name;
    const char *attr_text; ///< as written in ops.def
    const char *lower; ///< codegen's token, as written in ops.def
    const char *help;
} pm_op_info;

extern const pm_op_info pm_op_table[PM_OP_COUNT];

static inline const pm_op_info *pm_op_info_of(const pm_op *op)
{
    return &pm_op_table[op->code];
}
/// The op of that name; false when there is none.
bool pm_opcode_parse(const char *name, pm_opcode *out_code);
/// The op's attribute list, parsed from ops.def (static storage is the table's text; the array is
/// written to `out`, at most PM_MAX_ATTRS). Returns the number.
size_t pm_op_attr_decls(pm_opcode code, pm_attr_decl *out);
/// The attributes of a new op from those given: in declared order, defaults filled in, strings and
/// arrays copied into the module. Integers are taken for floats, empty lists for either kind.
/// Errors: unknown, twice given, missing, of the wrong kind.
PM_NODISCARD pm_status pm_attrs_fill(pm_module *m, const pm_loc *loc, pm_opcode code,
                                     const pm_attr *attrs, size_t n_attrs, pm_attr **out_attrs,
                                     size_t *out_n);
/// The op's attributes as eval takes them; `out` has room for op->n_attrs (at most PM_MAX_ATTRS).
void pm_op_attr_values(const pm_op *op, pm_attr_value *out);
const char *pm_attr_kind_name(pm_attr_kind kind); ///< "i64", "ints", … as in ops.def

#endif
