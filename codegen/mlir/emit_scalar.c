#include "codegen/mlir/emit_scalar.h"

#include <math.h>

#include "ir/loop_space.h"

MlirType pm_scalar_type(mb *b, pm_elem elem)
{
    switch (elem) {
    case PM_F64: return b->f64;
    case PM_F32:
    case PM_F16:
    case PM_BF16: return b->f32;
    case PM_BOOL: return b->i1;
    default: return pm_emit_elem_type(b, elem);
    }
}

MlirValue pm_scalar_load(mb *b, pm_elem elem, MlirValue pointer)
{
    MlirValue v = mb_load(b, pm_emit_elem_type(b, elem), pointer);
    switch (elem) {
    case PM_BF16: {
        MlirValue wide = mb_convert(b, "extui", v, b->i32);
        return mb_convert(b, "bitcast", mb_bin(b, "shli", wide, mb_int(b, b->i32, 16)), b->f32);
    }
    case PM_F16: return mb_convert(b, "extf", v, b->f32);
    case PM_BOOL: return mb_cmpi(b, "ne", v, mb_int(b, b->i8, 0));
    default: return v;
    }
}

void pm_scalar_store(mb *b, pm_elem elem, MlirValue value, MlirValue pointer)
{
    if (elem == PM_BF16)
        value = mb_call(b, "pm_m_f32_to_bf16", b->i16, &value, 1);
    else if (elem == PM_F16)
        value = mb_convert(b, "truncf", value, b->f16);
    else if (elem == PM_BOOL)
        value = mb_convert(b, "extui", value, b->i8);
    mb_store(b, value, pointer);
}

MlirValue pm_scalar_const(mb *b, pm_elem elem, double value)
{
    MlirType type = pm_scalar_type(b, elem);
    return pm_elem_is_float(elem) ? mb_float(b, type, value) : mb_int(b, type, (int64_t)value);
}

static bool is_signed(pm_elem elem)
{
    return elem == PM_I64 || elem == PM_I32 || elem == PM_I16 || elem == PM_I8;
}

MlirValue pm_scalar_cast(mb *b, MlirValue value, pm_elem from, pm_elem to)
{
    MlirType target = pm_scalar_type(b, to);
    bool from_float = pm_elem_is_float(from), to_float = pm_elem_is_float(to);
    if (to == PM_BOOL) {
        if (from == PM_BOOL)
            return value;
        return from_float ? mb_cmpf(b, "une", value, pm_scalar_const(b, from, 0))
                          : mb_cmpi(b, "ne", value, pm_scalar_const(b, from, 0));
    }
    if (from_float && to_float) {
        if (to == PM_BF16) // rounded here, so that fused consumers see what memory would hold
            value = mb_call(b, "pm_m_f32_to_bf16", b->i16,
                            (MlirValue[]){from == PM_F64 ? mb_convert(b, "truncf", value, b->f32)
                                                         : value}, 1);
        else if (to == PM_F16)
            value = mb_convert(b, "truncf", value, b->f16);
        if (to == PM_BF16)
            return mb_convert(b, "bitcast",
                              mb_bin(b, "shli", mb_convert(b, "extui", value, b->i32),
                                     mb_int(b, b->i32, 16)), b->f32);
        if (to == PM_F16)
            return mb_convert(b, "extf", value, b->f32);
        if (mlirTypeEqual(mlirValueGetType(value), target))
            return value;
        return mb_convert(b, to == PM_F64 ? "extf" : "truncf", value, target);
    }
    if (from_float)
        return mb_convert(b, is_signed(to) ? "fptosi" : "fptoui", value, target);
    if (to_float) {
        MlirValue f = mb_convert(b, is_signed(from) ? "sitofp" : "uitofp", value, target);
        return to == PM_BF16 || to == PM_F16 ? pm_scalar_cast(b, f, PM_F32, to) : f;
    }
    uint32_t from_size = from == PM_BOOL ? 0 : pm_elem_size(from), to_size = pm_elem_size(to);
    if (from_size == to_size)
        return value;
    return mb_convert(b, to_size < from_size ? "trunci" : is_signed(from) ? "extsi" : "extui",
                      value, target);
}

static MlirValue call1(mb *b, const char *name, MlirValue x)
{
    return mb_call(b, name, b->f32, &x, 1);
}

/// Ops of LLVM and of the math library with one float operand.
static MlirValue intrinsic(mb *b, const char *name, MlirValue x)
{
    return mb_op(b, name, mlirValueGetType(x), &x, 1, NULL, 0);
}

static bool apply_unary(mb *b, const pm_op *op, pm_elem elem, MlirValue x, MlirValue *out)
{
    bool is_float = pm_elem_is_float(elem);
    static const struct {
        pm_opcode code;
        const char *call;
    } calls[] = {
        {PM_OP_exp, "pm_m_exp"},     {PM_OP_log, "pm_m_log"},         {PM_OP_sin, "pm_m_sin"},
        {PM_OP_cos, "pm_m_cos"},     {PM_OP_tanh, "pm_m_tanh"},       {PM_OP_erf, "pm_m_erf"},
        {PM_OP_silu, "pm_m_silu"},   {PM_OP_sigmoid, "pm_m_sigmoid"}, {PM_OP_softplus, "pm_m_softplus"},
    };
    for (size_t i = 0; i < PM_COUNT(calls); i++)
        if (op->code == calls[i].code) {
            *out = call1(b, calls[i].call, x);
            return true;
        }
    switch (op->code) {
    case PM_OP_gelu: *out = call1(b, pm_op_i64(op, "tanh") ? "pm_m_gelu_tanh" : "pm_m_gelu", x); break;
    case PM_OP_neg:
        *out = is_float ? mb_un(b, "negf", x) : mb_sub(b, pm_scalar_const(b, elem, 0), x);
        break;
    case PM_OP_abs:
        if (is_float)
            *out = intrinsic(b, "llvm.intr.fabs", x);
        else if (!is_signed(elem))
            *out = x;
        else
            *out = mb_bin(b, "maxsi", x, mb_sub(b, pm_scalar_const(b, elem, 0), x));
        break;
    case PM_OP_relu:
        *out = mb_bin(b, is_float ? "maximumf" : is_signed(elem) ? "maxsi" : "maxui", x,
                      pm_scalar_const(b, elem, 0));
        break;
    case PM_OP_not:
        *out = mb_bin(b, "xori", x, elem == PM_BOOL ? mb_int(b, b->i1, 1) : pm_scalar_const(b, elem, -1));
        break;
    case PM_OP_sqrt: *out = intrinsic(b, "llvm.intr.sqrt", x); break;
    case PM_OP_rsqrt:
        *out = mb_bin(b, "divf", pm_scalar_const(b, elem, 1), intrinsic(b, "llvm.intr.sqrt", x));
        break;
    case PM_OP_reciprocal: *out = mb_bin(b, "divf", pm_scalar_const(b, elem, 1), x); break;
    case PM_OP_floor: *out = intrinsic(b, "llvm.intr.floor", x); break;
    case PM_OP_ceil: *out = intrinsic(b, "llvm.intr.ceil", x); break;
    case PM_OP_round: *out = intrinsic(b, "llvm.intr.roundeven", x); break;
    case PM_OP_isnan: *out = mb_cmpf(b, "uno", x, x); break;
    case PM_OP_cast: *out = pm_scalar_cast(b, x, elem, (pm_elem)pm_op_i64(op, "to")); break;
    default: return false;
    }
    return true;
}

bool pm_scalar_apply(mb *b, const pm_op *op, const MlirValue *args, MlirValue *out)
{
    if (!pm_op_can_loop(op))
        return false;
    pm_elem elem = op->operands[0]->type->elem;
    bool is_float = pm_elem_is_float(elem), s = is_signed(elem);
    if (op->n_operands == 1)
        return apply_unary(b, op, elem, args[0], out);
    MlirValue x = args[0], y = args[1];
    switch (op->code) {
    case PM_OP_add: *out = mb_bin(b, is_float ? "addf" : "addi", x, y); break;
    case PM_OP_sub: *out = mb_bin(b, is_float ? "subf" : "subi", x, y); break;
    case PM_OP_mul: *out = mb_bin(b, is_float ? "mulf" : "muli", x, y); break;
    case PM_OP_div: *out = mb_bin(b, "divf", x, y); break;
    case PM_OP_pow: *out = mb_call(b, "pm_m_pow", b->f32, args, 2); break;
    case PM_OP_min: *out = mb_bin(b, is_float ? "minimumf" : s ? "minsi" : "minui", x, y); break;
    case PM_OP_max: *out = mb_bin(b, is_float ? "maximumf" : s ? "maxsi" : "maxui", x, y); break;
    case PM_OP_and: *out = mb_bin(b, "andi", x, y); break;
    case PM_OP_or: *out = mb_bin(b, "ori", x, y); break;
    case PM_OP_xor: *out = mb_bin(b, "xori", x, y); break;
    case PM_OP_equal: *out = is_float ? mb_cmpf(b, "oeq", x, y) : mb_cmpi(b, "eq", x, y); break;
    case PM_OP_less:
        *out = is_float ? mb_cmpf(b, "olt", x, y) : mb_cmpi(b, s ? "slt" : "ult", x, y);
        break;
    case PM_OP_less_equal:
        *out = is_float ? mb_cmpf(b, "ole", x, y) : mb_cmpi(b, s ? "sle" : "ule", x, y);
        break;
    case PM_OP_where: *out = mb_select(b, x, y, args[2]); break;
    default: return false;
    }
    return true;
}
