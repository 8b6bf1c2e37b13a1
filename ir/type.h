/// Interned symbolic dims and tensor types.
#ifndef PM_IR_TYPE_H
#define PM_IR_TYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/diag.h"
#include "base/elem.h"

typedef struct pm_module pm_module;

/// Id of an interned integer expression over symbols, of one module. Equal id means equal for
/// every binding; unequal ids mean nothing. Canonical form: sums of products, constants folded.
typedef int32_t pm_dim;
enum { PM_DIM_NONE = -1 };

/// A symbol: a named extent with a range. `bound`: for a data-dependent extent, an expression over
/// earlier symbols that it never exceeds (PM_DIM_NONE: none known, the buffer is placed at run time).
typedef struct pm_symbol {
    const char *name;
    int64_t lo, hi;   ///< inclusive; hi INT64_MAX: unlimited
    bool data_dependent; ///< bound while an entry runs, by the op that finds it
    pm_dim bound;
} pm_symbol;

pm_dim pm_dim_const(pm_module *m, int64_t value);
/// A new symbol. The name is made unique by a numeric suffix when taken.
pm_dim pm_dim_symbol(pm_module *m, const char *name, int64_t lo, int64_t hi);
pm_dim pm_dim_fresh(pm_module *m, const char *name, pm_dim bound);
/// The symbol of that name, or PM_DIM_NONE.
pm_dim pm_dim_find(const pm_module *m, const char *name);
pm_dim pm_dim_add(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_sub(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_mul(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_floordiv(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_ceildiv(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_mod(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_min(pm_module *m, pm_dim a, pm_dim b);
pm_dim pm_dim_max(pm_module *m, pm_dim a, pm_dim b);

bool pm_dim_is_const(const pm_module *m, pm_dim d, int64_t *out_value);
/// True when `d` is exactly a symbol; its index into the module's symbols.
bool pm_dim_is_symbol(const pm_module *m, pm_dim d, uint32_t *out_symbol);
/// Range that holds for every binding (INT64_MIN/MAX when unlimited).
void pm_dim_range(const pm_module *m, pm_dim d, int64_t *out_lo, int64_t *out_hi);
/// `d` with each data-dependent symbol replaced by its bound; PM_DIM_NONE when one has none.
/// Only sound where d grows with those symbols (products and sums of extents do).
pm_dim pm_dim_upper(pm_module *m, pm_dim d);
/// True when `d` mentions a data-dependent symbol.
bool pm_dim_is_dynamic(const pm_module *m, pm_dim d);
/// Value for `bindings[symbol index]`; false on overflow, division by zero or a symbol at -1.
bool pm_dim_eval(const pm_module *m, pm_dim d, const int64_t *bindings, int64_t *out_value);
/// True when a and b differ for every binding; false when unknown.
bool pm_dim_differs(const pm_module *m, pm_dim a, pm_dim b);
/// True when a <= b for every binding; false when unknown.
bool pm_dim_at_most(const pm_module *m, pm_dim a, pm_dim b);
/// True for the result of arithmetic that overflowed or grew too large (it is the expression
/// floordiv(1, 0), which absorbs everything and never evaluates). Inference refuses such extents.
bool pm_dim_is_error(const pm_module *m, pm_dim d);
/// True when `d` mentions the symbol.
bool pm_dim_mentions(const pm_module *m, pm_dim d, uint32_t symbol);
/// The first symbol of `d` (in its own order) for which `test` is true; false when there is none.
bool pm_dim_find_symbol(const pm_module *m, pm_dim d,
                        bool test(const pm_module *m, uint32_t symbol, const void *arg),
                        const void *arg, uint32_t *out_symbol);
/// `d` with the symbol replaced by `value`, simplified.
pm_dim pm_dim_replace(pm_module *m, pm_dim d, uint32_t symbol, pm_dim value);
/// Equal to `d` for every binding, with as few min and max as looking at the extents that may be 0 by
/// cases can leave: min(T, 1)*T is T.
pm_dim pm_dim_simplify(pm_module *m, pm_dim d);
/// True when `a == b` for every binding; false when unknown.
static inline bool pm_dim_same(pm_dim a, pm_dim b)
{
    return a == b && a != PM_DIM_NONE;
}

/// How an expression is built, for code generation and printing.
typedef enum pm_dim_kind {
    PM_DIM_CONST,
    PM_DIM_SYMBOL,
    PM_DIM_ADD,
    PM_DIM_MUL,
    PM_DIM_FLOORDIV,
    PM_DIM_CEILDIV,
    PM_DIM_MOD,
    PM_DIM_MIN,
    PM_DIM_MAX,
} pm_dim_kind;

typedef struct pm_dim_info {
    pm_dim_kind kind;
    int64_t value;  ///< constant, or symbol index
    pm_dim a, b;    ///< operands of the binary kinds; ids smaller than the expression's own
} pm_dim_info;

pm_dim_info pm_dim_get(const pm_module *m, pm_dim d);
/// The text form, which the arithmetic above reads back to the same id:
///   sum    = ["-"] product { (" + " | " - ") product }
///   product = [number "*"] atom { "*" atom } | number
///   atom   = symbol | ("floordiv" | "ceildiv" | "mod" | "min" | "max") "(" sum ", " sum ")"
/// A symbol that isn't an identifier ([A-Za-z_][A-Za-z0-9_.]*, not a function's name) is written in
/// double quotes, with \" and \\ and \xHH (control characters). PM_DIM_NONE is "?".
char *pm_dim_text(pm_module *m, pm_dim d);

/// How a matrix [.., N, K] of weights is packed: panels of `panel` rows of N, each [K/pair][panel][pair],
/// with K padded to a multiple of `pair` and N to one of `panel` by zeros. With `ways` = 2 the type has two sources
/// (gate, up) and each panel holds panel/2 rows of each. NULL layout: row-major.
///
/// With `bits` the elements are as `dequantize` means them, and stored as codes: each panel is its blocks
/// of `block` codes along K, one after the other, each [scale][panel], [zero][panel] if any, and
/// [block * bits / 32][panel] words whose lowest bits are the first code. Codes of integers, and zeros, are
/// stored as what they are above 2^(bits - 1), in two's complement.
typedef struct pm_layout {
    int32_t panel;
    int32_t pair; ///< 1 or 2
    int32_t ways; ///< 1 or 2
    int32_t bits; ///< 0: elements as they are; 2, 4 or 8
    int32_t block; ///< codes that share a scale, whole words of them
    int32_t scale; ///< pm_scale_kind
    int32_t zero;  ///< pm_zero_kind
    int32_t floats; ///< 1: codes are floats, of 4 bits e2m1, of 8 e4m3
} pm_layout;

typedef enum pm_scale_kind { PM_SCALE_F32, PM_SCALE_F16, PM_SCALE_BF16, PM_SCALE_E8M0 } pm_scale_kind;
typedef enum pm_zero_kind { PM_ZERO_NONE, PM_ZERO_I8, PM_ZERO_F32 } pm_zero_kind;

/// Bytes of one block of a panel of low-bit weights, and of one panel whose rows have k elements.
int64_t pm_layout_block_bytes(const pm_layout *layout);
int64_t pm_layout_panel_bytes(const pm_layout *layout, int64_t k);

/// An interned tensor type: pointer equality is type equality.
typedef struct pm_type {
    pm_elem elem;
    int32_t rank;
    const pm_dim *dims;
    const pm_layout *layout; ///< interned; NULL: row-major
    uint32_t id;
} pm_type;

const pm_type *pm_type_get(pm_module *m, pm_elem elem, int32_t rank, const pm_dim *dims);
const pm_type *pm_type_packed(pm_module *m, pm_elem elem, int32_t rank, const pm_dim *dims,
                              pm_layout layout);
/// Number of elements (logical), as an expression.
pm_dim pm_type_count(pm_module *m, const pm_type *type);
/// Number of elements when all dims are constant; false otherwise or on overflow.
bool pm_type_const_count(const pm_module *m, const pm_type *type, int64_t *out_count);
/// Bytes of storage, layout padding included.
pm_dim pm_type_bytes(pm_module *m, const pm_type *type);
/// The text form: `f32[B, 2*T, 64]`, packed `f32[64, 32]{panel=16, pair=1, ways=1}`.
char *pm_type_text(pm_module *m, const pm_type *type);
/// Its part in braces.
void pm_layout_text(const pm_layout *layout, char *out);
enum { PM_LAYOUT_TEXT_SIZE = 160 };

const char *pm_elem_name(pm_elem elem);
uint32_t pm_elem_size(pm_elem elem);
bool pm_elem_is_float(pm_elem elem);
bool pm_elem_is_int(pm_elem elem); ///< signed or unsigned, not bool
/// By name in text form ("f32"), false when unknown.
bool pm_elem_parse(const char *name, pm_elem *out_elem);
/// By ONNX data type number.
bool pm_elem_from_onnx(int32_t data_type, pm_elem *out_elem);

#endif
