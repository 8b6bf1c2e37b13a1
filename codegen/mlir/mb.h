/// A small builder over MLIR's C API: the ops that generated code is made of, one call each.
///
/// Dialects: llvm for functions, memory and calls, scf for loops, arith for arithmetic. All integers of
/// control are i64; memory is opaque pointers. A builder holds the insertion point; nested
/// regions are entered and left in stack order.
#ifndef PM_CODEGEN_MLIR_MB_H
#define PM_CODEGEN_MLIR_MB_H

#include <stdbool.h>
#include <stdint.h>

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/IR.h"

#include "base/containers.h"

typedef struct mb {
    pm_arena *arena;
    MlirContext context;
    MlirModule module;
    MlirBlock block; ///< where ops are appended
    MlirLocation loc;
    MlirType i1, i8, i16, i32, i64, f16, bf16, f32, f64, ptr;
    pm_map functions; ///< declared symbols
    uint32_t n_globals;
} mb;

/// A named attribute for mb_op.
typedef struct mb_attr {
    const char *name;
    MlirAttribute value;
} mb_attr;

void mb_init(mb *b, pm_arena *arena);
void mb_deinit(mb *b);

/// Any op. `result` with a NULL pointer: no result.
MlirValue mb_op(mb *b, const char *name, MlirType result, const MlirValue *operands,
                size_t n_operands, const mb_attr *attrs, size_t n_attrs);
MlirAttribute mb_parse_attr(mb *b, const char *text);

MlirValue mb_i64(mb *b, int64_t value);
MlirValue mb_int(mb *b, MlirType type, int64_t value);
MlirValue mb_float(mb *b, MlirType type, double value);

/// Binary and unary ops of arith by name ("addi", "mulf", …), result of the operands' type.
MlirValue mb_bin(mb *b, const char *name, MlirValue x, MlirValue y);
/// As mb_bin with fast-math flags ("reassoc").
MlirValue mb_bin_fast(mb *b, const char *name, MlirValue x, MlirValue y, const char *flags);
MlirValue mb_un(mb *b, const char *name, MlirValue x);
/// Conversions of arith by name ("sitofp", "extf", …).
MlirValue mb_convert(mb *b, const char *name, MlirValue x, MlirType to);
/// Comparisons: predicates by the names of arith's assembly ("slt", "oeq", …).
MlirValue mb_cmpi(mb *b, const char *predicate, MlirValue x, MlirValue y);
MlirValue mb_cmpf(mb *b, const char *predicate, MlirValue x, MlirValue y);
MlirValue mb_select(mb *b, MlirValue cond, MlirValue x, MlirValue y);

static inline MlirValue mb_add(mb *b, MlirValue x, MlirValue y) { return mb_bin(b, "addi", x, y); }
static inline MlirValue mb_sub(mb *b, MlirValue x, MlirValue y) { return mb_bin(b, "subi", x, y); }
static inline MlirValue mb_mul(mb *b, MlirValue x, MlirValue y) { return mb_bin(b, "muli", x, y); }

/// Memory.
MlirValue mb_load(mb *b, MlirType type, MlirValue pointer);
void mb_store(mb *b, MlirValue value, MlirValue pointer);
/// &((elem *)pointer)[index]
MlirValue mb_at(mb *b, MlirType elem, MlirValue pointer, MlirValue index);
MlirValue mb_at_const(mb *b, MlirType elem, MlirValue pointer, int64_t index);
/// Stack room for `n` elements, in the entry block of the function that is being built.
MlirValue mb_alloca(mb *b, MlirType elem, int64_t n);
MlirValue mb_null(mb *b);
/// Address of a constant byte array.
MlirValue mb_bytes(mb *b, const void *bytes, size_t size);
/// Address of a function.
MlirValue mb_address(mb *b, const char *function);

/// Declares an external function once. `result` with a NULL pointer: void.
void mb_declare(mb *b, const char *name, MlirType result, const MlirType *args, size_t n_args);
MlirValue mb_call(mb *b, const char *name, MlirType result, const MlirValue *args, size_t n_args);

/// Functions. Begin saves the insertion point; end restores it.
typedef struct mb_function {
    MlirBlock saved, entry;
    MlirLocation saved_loc;
    MlirOperation op;
} mb_function;
/// `noalias[i]`: argument i points to memory that no other argument reaches while one of them writes.
void mb_function_begin(mb *b, mb_function *f, const char *name, MlirType result,
                       const MlirType *args, size_t n_args, const bool *noalias, bool internal,
                       const char *passthrough);
MlirValue mb_function_arg(const mb_function *f, size_t i);
void mb_return(mb *b, MlirValue value); ///< NULL pointer: void
void mb_function_end(mb *b, mb_function *f);

/// for (i = from; i < to; i += step) with at most MB_MAX_CARRIED carried values.
enum { MB_MAX_CARRIED = 8 };
typedef struct mb_loop {
    MlirBlock saved, body;
    MlirOperation op;
    MlirValue index;
    MlirValue carried[MB_MAX_CARRIED]; ///< inside: the values so far
    size_t n_carried;
    MlirRegion region;
    MlirValue from, to, step, init[MB_MAX_CARRIED];
} mb_loop;
void mb_for_begin(mb *b, mb_loop *loop, MlirValue from, MlirValue to, MlirValue step,
                  const MlirValue *init, size_t n_carried);
/// Ends the loop; `next` are the carried values of the next round; `results` receive the last.
void mb_for_end(mb *b, mb_loop *loop, const MlirValue *next, MlirValue *results);

/// if (cond) { … } without results.
typedef struct mb_if {
    MlirBlock saved;
    MlirRegion region;
    MlirValue cond;
} mb_if;
void mb_if_begin(mb *b, mb_if *branch, MlirValue cond);
void mb_if_end(mb *b, mb_if *branch);

/// Blocks of the function, for branches that hold more than scf does (only outside scf regions).
MlirBlock mb_block(mb *b);            ///< a new one, at the end of the function
void mb_enter(mb *b, MlirBlock block); ///< goes on there
void mb_branch(mb *b, MlirBlock to);
void mb_branch_if(mb *b, MlirValue cond, MlirBlock yes, MlirBlock no);

/// if (cond) return; : ends the current block and goes on in a new one (only outside scf regions).
void mb_return_if(mb *b, MlirValue cond);

/// Prints the module as text.
char *mb_text(mb *b);

#endif
