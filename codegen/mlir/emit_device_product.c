/// Products on the general road of devices: a thread for each element of the result, one chain of multiply-adds over k,
/// as the CPU's kernels have it. Weights lie row by row; those of few bits are read from their codes.
#include <math.h>

#include "codegen/mlir/emit_scalar.h"
#include "codegen/mlir/launch_plan.h"
#include "codegen/mlir/lowerings.h"

typedef struct device_product {
    dispatch *d;
    mb *b;
    pm_value *x, *w, *offsets, *bias;
    pm_op *codes; ///< dequantize; NULL: w has elements
    MlirValue n, k;
    MlirValue expert;     ///< a NULL pointer: there is one matrix
    bool rounds;          ///< factors are rounded to bf16
} device_product;

static MlirValue last_dim(const device_product *p, const pm_value *v)
{
    return pm_emit_dim(p->d, v->type->dims[v->type->rank - 1]);
}

static MlirValue element(const device_product *p, const pm_value *v, MlirValue at)
{
    MlirValue pointer = mb_at(p->b, pm_emit_elem_type(p->b, v->type->elem), pm_emit_pointer(p->d, v), at);
    return pm_scalar_load(p->b, v->type->elem, pointer);
}

static MlirValue as_f32(const device_product *p, MlirValue value, pm_elem elem)
{
    return pm_scalar_cast(p->b, value, elem, PM_F32);
}

/// Row `row` of all matrices' rows.
static MlirValue weight_row(const device_product *p, MlirValue column)
{
    if (!p->expert.ptr)
        return column;
    MlirValue rows = pm_emit_dim(p->d, (p->codes ? p->codes->operands[0] : p->w)->type->dims[1]);
    return mb_add(p->b, mb_mul(p->b, p->expert, rows), column);
}

/// ---- codes ------------------------------------------------------------------------------------------------

/// Code number i of a row of bytes, as i64.
static MlirValue code_at(const device_product *p, const pm_value *bytes, MlirValue row, MlirValue i, int64_t bits)
{
    mb *b = p->b;
    int64_t each = 8 / bits;
    MlirValue at = mb_add(b, mb_mul(b, row, last_dim(p, bytes)), mb_bin(b, "divui", i, mb_i64(b, each)));
    MlirValue byte = mb_convert(b, "extui", mb_load(b, b->i8, mb_at(b, b->i8, pm_emit_pointer(p->d, bytes), at)), b->i64);
    MlirValue shift = mb_mul(b, mb_bin(b, "remui", i, mb_i64(b, each)), mb_i64(b, bits));
    return mb_bin(b, "andi", mb_bin(b, "shrui", byte, shift), mb_i64(b, (1 << bits) - 1));
}

/// 2^(s - 127).
static MlirValue power(mb *b, MlirValue s)
{
    MlirValue bits = mb_bin(b, "shli", mb_convert(b, "extui", s, b->i32), mb_int(b, b->i32, 23));
    MlirValue none = mb_cmpi(b, "eq", bits, mb_int(b, b->i32, 0));
    return mb_select(b, none, mb_float(b, b->f32, 0x1p-127), mb_convert(b, "bitcast", bits, b->f32));
}

static MlirValue scale_at(const device_product *p, MlirValue at)
{
    const pm_value *scales = p->codes->operands[1];
    if (scales->type->elem != PM_U8)
        return as_f32(p, element(p, scales, at), scales->type->elem);
    return power(p->b, mb_load(p->b, p->b->i8, mb_at(p->b, p->b->i8, pm_emit_pointer(p->d, scales), at)));
}

/// The floats of 4 bits: sign, 2 bits of exponent, 1 of mantissa.
static MlirValue small_float(mb *b, MlirValue code)
{
    static const float values[] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
    MlirValue value = mb_float(b, b->f32, 0), m = mb_bin(b, "andi", code, mb_i64(b, 7));
    for (int64_t i = 1; i < 8; i++)
        value = mb_select(b, mb_cmpi(b, "eq", m, mb_i64(b, i)), mb_float(b, b->f32, (double)values[i]), value);
    MlirValue negative = mb_cmpi(b, "uge", code, mb_i64(b, 8));
    return mb_select(b, negative, mb_un(b, "negf", value), value);
}

/// The floats of 8 bits: sign, 4 bits of exponent, 3 of mantissa. As in gemm_lowbit.h: their bits where those of a float
/// are; below the smallest exponent 1.m * 2^-6 less 2^-6.
static MlirValue float_of_8(mb *b, MlirValue code)
{
    MlirValue c = mb_convert(b, "trunci", code, b->i32);
    MlirValue size = mb_bin(b, "shli", mb_bin(b, "andi", c, mb_int(b, b->i32, 127)), mb_int(b, b->i32, 20));
    MlirValue small = mb_cmpi(b, "ult", size, mb_int(b, b->i32, 1 << 23));
    MlirValue base = mb_select(b, small, mb_int(b, b->i32, 121 << 23), mb_int(b, b->i32, 120 << 23));
    MlirValue value = mb_convert(b, "bitcast", mb_bin(b, "addi", size, base), b->f32);
    MlirValue less = mb_select(b, small, mb_float(b, b->f32, 0x1p-6), mb_float(b, b->f32, 0));
    value = mb_bin(b, "subf", value, less);
    value = mb_select(b, mb_cmpi(b, "eq", size, mb_int(b, b->i32, 127 << 20)), mb_float(b, b->f32, NAN), value);
    MlirValue negative = mb_cmpi(b, "uge", c, mb_int(b, b->i32, 128));
    return mb_select(b, negative, mb_un(b, "negf", value), value);
}

static MlirValue decoded(const device_product *p, MlirValue row, MlirValue i)
{
    mb *b = p->b;
    const pm_op *op = p->codes;
    int64_t bits = pm_op_i64(op, "bits"), block = pm_op_i64(op, "block");
    MlirValue code = code_at(p, op->operands[0], row, i, bits);
    MlirValue part = block ? mb_bin(b, "divui", i, mb_i64(b, block)) : mb_i64(b, 0);
    MlirValue at = mb_add(b, mb_mul(b, row, last_dim(p, op->operands[1])), part);
    MlirValue scale = scale_at(p, at), value;
    const pm_value *zeros = op->n_operands > 2 ? op->operands[2] : NULL;
    if (pm_op_str(op, "format")[0] == 'e')
        return mb_bin(b, "mulf", bits == 8 ? float_of_8(b, code) : small_float(b, code), scale);
    value = mb_convert(b, "sitofp", code, b->f32);
    MlirValue zero = mb_float(b, b->f32, (double)(1 << (bits - 1)));
    if (zeros && zeros->type->elem == PM_U8)
        zero = mb_convert(b, "sitofp", code_at(p, zeros, row, part, bits), b->f32);
    else if (zeros)
        zero = as_f32(p, element(p, zeros, mb_add(b, mb_mul(b, row, last_dim(p, zeros)), part)), zeros->type->elem);
    return mb_bin(b, "mulf", mb_bin(b, "subf", value, zero), scale);
}

/// ---- products ---------------------------------------------------------------------------------------------

static MlirValue weight_at(const device_product *p, MlirValue column, MlirValue i)
{
    mb *b = p->b;
    if (p->codes)
        return decoded(p, weight_row(p, column), i);
    int64_t stride = 0;
    MlirValue at = mb_add(b, mb_mul(b, column, p->k), i);
    if (p->expert.ptr) {
        stride = pm_value_is(p->w, PM_OP_pack)
                     ? (int64_t)pm_weights_expert_stride(p->d->e->weights, p->w) / pm_elem_size(p->w->type->elem)
                     : 0;
        MlirValue matrix = stride ? mb_i64(b, stride) : mb_mul(b, pm_emit_dim(p->d, p->w->type->dims[1]), p->k);
        at = mb_add(b, at, mb_mul(b, p->expert, matrix));
    }
    return as_f32(p, element(p, p->w, at), p->w->type->elem);
}

static MlirValue factor(const device_product *p, MlirValue value)
{
    return p->rounds ? pm_scalar_cast(p->b, value, PM_F32, PM_BF16) : value;
}

/// The expert whose row it is: how many experts but the first begin at or before it.
static MlirValue expert_of(const device_product *p, MlirValue row)
{
    mb *b = p->b;
    mb_loop loop;
    MlirValue zero = mb_i64(b, 0), one = mb_i64(b, 1), result;
    MlirValue experts = pm_emit_dim(p->d, (p->codes ? p->codes->operands[0] : p->w)->type->dims[0]);
    mb_for_begin(b, &loop, one, experts, one, &zero, 1);
    MlirValue begin = pm_scalar_cast(b, element(p, p->offsets, loop.index), p->offsets->type->elem, PM_I64);
    MlirValue behind = mb_convert(b, "extui", mb_cmpi(b, "sge", row, begin), b->i64);
    MlirValue next = mb_add(b, loop.carried[0], behind);
    mb_for_end(b, &loop, &next, &result);
    return result;
}

static MlirValue bias_at(const device_product *p, MlirValue column)
{
    MlirValue at = p->expert.ptr ? mb_add(p->b, mb_mul(p->b, p->expert, p->n), column) : column;
    return as_f32(p, element(p, p->bias, at), p->bias->type->elem);
}

pm_value *pm_device_codes(const pm_op *op)
{
    bool product = op->code == PM_OP_linear || op->code == PM_OP_grouped_linear;
    pm_value *w = product ? op->operands[1] : NULL;
    return pm_value_is(w, PM_OP_dequantize) && w->place.kind == PM_PLACE_NONE ? w : NULL;
}

pm_status pm_lower_device_product(dispatch *d)
{
    mb *b = d->b;
    const pm_op *op = d->op;
    bool grouped = op->code == PM_OP_grouped_linear;
    uint32_t bias = grouped ? 3 : 2;
    pm_value *codes = pm_device_codes(op), *out = op->results[0];
    device_product p = {.d = d, .b = b, .x = op->operands[0], .w = op->operands[1], .codes = codes ? codes->def : NULL,
                        .offsets = grouped ? op->operands[2] : NULL,
                        .bias = op->n_operands > bias ? op->operands[bias] : NULL,
                        .rounds = pm_op_attr(op, "compute")->i == PM_BF16};
    const pm_layout *layout = p.w->type->layout;
    if ((layout && (layout->panel != 1 || layout->ways != 1 || layout->bits)) || pm_op_i64(op, "source") != 0)
        return pm_error(d->e->diag, op->loc, PM_ERR_INTERNAL, "weights of a device are packed");
    p.n = last_dim(&p, out);
    p.k = last_dim(&p, p.x);
    MlirValue lo, hi, one = mb_i64(b, 1), zero = mb_float(b, b->f32, 0), sum;
    pm_emit_split(d, pm_emit_count(d, out->type, 0, out->type->rank), 1, &lo, &hi);
    mb_loop elements, chain;
    mb_for_begin(b, &elements, lo, hi, one, NULL, 0);
    MlirValue row = mb_bin(b, "divui", elements.index, p.n), column = mb_bin(b, "remui", elements.index, p.n);
    if (grouped)
        p.expert = expert_of(&p, row);
    MlirValue first = mb_mul(b, row, p.k);
    mb_for_begin(b, &chain, mb_i64(b, 0), p.k, one, &zero, 1);
    MlirValue x = as_f32(&p, element(&p, p.x, mb_add(b, first, chain.index)), p.x->type->elem);
    MlirValue terms[] = {factor(&p, x), factor(&p, weight_at(&p, column, chain.index)), chain.carried[0]};
    MlirValue next = mb_op(b, "llvm.intr.fma", b->f32, terms, 3, NULL, 0);
    mb_for_end(b, &chain, &next, &sum);
    if (p.bias)
        sum = mb_bin(b, "addf", sum, bias_at(&p, column));
    MlirValue to = mb_at(b, pm_emit_elem_type(b, out->type->elem), pm_emit_pointer(d, out), elements.index);
    pm_scalar_store(b, out->type->elem, pm_scalar_cast(b, sum, PM_F32, out->type->elem), to);
    mb_for_end(b, &elements, NULL, NULL);
    return PM_OK;
}
