/// Element types of tensors. Depends on nothing: included by the reference functions, which are also
/// compiled to bitcode and run inside emitted programs.
#ifndef PM_BASE_ELEM_H
#define PM_BASE_ELEM_H

#include <stdint.h>

/* id, name in text form, bytes, is_float, is_signed_int, ONNX TensorProto.DataType, npy descr */
#define PM_ELEMS(X)                                                                                \
    X(F32, "f32", 4, 1, 0, 1, "<f4")                                                               \
    X(F64, "f64", 8, 1, 0, 11, "<f8")                                                              \
    X(F16, "f16", 2, 1, 0, 10, "<f2")                                                              \
    X(BF16, "bf16", 2, 1, 0, 16, "<V2")                                                            \
    X(I64, "i64", 8, 0, 1, 7, "<i8")                                                               \
    X(I32, "i32", 4, 0, 1, 6, "<i4")                                                               \
    X(I16, "i16", 2, 0, 1, 5, "<i2")                                                               \
    X(I8, "i8", 1, 0, 1, 3, "|i1")                                                                 \
    X(U64, "u64", 8, 0, 0, 13, "<u8")                                                              \
    X(U32, "u32", 4, 0, 0, 12, "<u4")                                                              \
    X(U16, "u16", 2, 0, 0, 4, "<u2")                                                               \
    X(U8, "u8", 1, 0, 0, 2, "|u1")                                                                 \
    X(BOOL, "bool", 1, 0, 0, 9, "|b1")

typedef enum pm_elem {
#define X(id, ...) PM_##id,
    PM_ELEMS(X)
#undef X
        PM_ELEM_COUNT
} pm_elem;

/// Highest rank of a tensor anywhere.
enum { PM_MAX_RANK = 8 };

#endif
