"""Writes the vectors that tests/unit/test_eval_vectors.c checks the ops' meaning with.

Usage: python make_eval_vectors.py [OUTDIR]      needs `numpy`, `onnx` and `ml_dtypes`

One file per family goes to tests/data/eval. The expected results come from onnx.reference where ONNX
has the op, else from numpy in float64 or exact fractions, rounded once to the element type. A case:

    case <name>
    op <op>
    attr <key> <value>            numbers are separated by commas
    in <elem> <dims> <hex>        little-endian bytes after `=`; `in -` is an absent operand
    out <elem> <dims> <hex>
    tol <ulps> <absolute>         1 ulp of the element type and 0 when left out; integers are exact
    fault                         instead of tol: the op must refuse the data
"""

import math
import pathlib
import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import onnx
from onnx import helper as h
from onnx.reference import ReferenceEvaluator

HERE = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "data" / "eval"

bf16 = ml_dtypes.bfloat16
ELEMS = {
    "f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": bf16,
    "i64": np.int64, "i32": np.int32, "i16": np.int16, "i8": np.int8,
    "u64": np.uint64, "u32": np.uint32, "u16": np.uint16, "u8": np.uint8, "bool": np.bool_,
}
NAMES = {np.dtype(v): k for k, v in ELEMS.items()}
FLOATS = ["f32", "f64", "f16", "bf16"]
INTS = ["i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8"]

rng = np.random.default_rng(20240229)
np.seterr(all="ignore")


# ---- rounding, exactly -------------------------------------------------------------------------


FORMATS = {"f64": (11, 52), "f32": (8, 23), "f16": (5, 10), "bf16": (8, 7)}


def round_one(value, elem):
    """The nearest number of the type as a float, halves to even; value: float, int or Fraction."""
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if math.isnan(value) or math.isinf(value) or value == 0:
            return value
    exponent_bits, mantissa_bits = FORMATS[elem]
    bias = (1 << (exponent_bits - 1)) - 1
    exact = Fraction(value)
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    exponent = max(exponent, 1 - bias)
    quantum = Fraction(2) ** (exponent - mantissa_bits)
    rounded = round(size / quantum) * quantum  # Python rounds halves to even
    if rounded >= Fraction(2) ** (bias + 1):
        rounded = math.inf
    result = float(rounded)
    negative = exact < 0
    return -result if negative else result


def round_to(values, elem):
    """float64 array to the element type, rounded once."""
    values = np.asarray(values, np.float64)
    if elem in ("f64", "f32"):  # the machine does these in one rounding
        return values.astype(ELEMS[elem])
    flat = [round_one(float(v), elem) for v in values.reshape(-1)]
    return np.array(flat, np.float64).astype(ELEMS[elem]).reshape(values.shape)


def wide(x):
    return np.asarray(x).astype(np.float64)


def wrap(value, elem):
    """A Python int as the integer type holds it, modulo its range."""
    bits = np.dtype(ELEMS[elem]).itemsize * 8
    value &= (1 << bits) - 1
    if elem[0] == "i" and value >> (bits - 1):
        value -= 1 << bits
    return value


def ints(values, elem, shape=None):
    array = np.array([wrap(int(v), elem) for v in values], ELEMS[elem])
    return array if shape is None else array.reshape(shape)


# ---- writing -----------------------------------------------------------------------------------


files = {}
current = None
names = set()


def family(name):
    global current
    current = files.setdefault(name, [])


def dims_text(shape):
    return "[" + ",".join(str(d) for d in shape) + "]"


def tensor_text(x):
    x = np.asarray(x)
    data = np.ascontiguousarray(x).tobytes()
    return f"{NAMES[x.dtype]} {dims_text(x.shape)} ={data.hex()}"


def attr_text(value):
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return ",".join(str(int(v)) for v in value)
    if isinstance(value, float):
        return value.hex()
    return str(value)


def case(op, name, inputs, outputs, tol=None, fault=False, **attrs):
    full = f"{op}.{name}"
    assert full not in names, full
    names.add(full)
    lines = [f"case {full}", f"op {op}"]
    lines += [f"attr {k} {attr_text(v)}" for k, v in attrs.items()]
    lines += ["in " + ("-" if x is None else tensor_text(x)) for x in inputs]
    lines += ["out " + tensor_text(x) for x in outputs]
    if tol:
        lines.append(f"tol {tol[0]} {float(tol[1]).hex()}")
    if fault:
        lines.append("fault")
    current.append("\n".join(lines) + "\n")


def faulty(op, name, inputs, outputs, **attrs):
    """The op must refuse; outputs only give types and extents."""
    case(op, name, inputs, [np.zeros(s, t) for s, t in outputs], fault=True, **attrs)


def onnx_run(op_type, inputs, n_out=1, opset=21, **attrs):
    """Outputs of onnx.reference for one node."""
    name_of = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    given = {n: np.asarray(x) for n, x in zip(name_of, inputs) if n}
    node = h.make_node(op_type, name_of, [f"y{i}" for i in range(n_out)], **attrs)
    info = [h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in given.items()]
    outs = [h.make_tensor_value_info(f"y{i}", onnx.TensorProto.UNDEFINED, None) for i in range(n_out)]
    graph = h.make_graph([node], "g", info, outs)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)])
    return ReferenceEvaluator(model).run(None, given)


def normal(shape, elem="f32", scale=1.0):
    return round_to(rng.standard_normal(shape) * scale, elem)


def integers(low, high, shape, elem="i64"):
    return rng.integers(low, high, shape).astype(ELEMS[elem])


def some(shape, elem):
    """Numbers of any type, with ties."""
    if elem == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if elem in FLOATS:
        return round_to(rng.integers(-6, 7, shape) / 4.0, elem)
    return integers(0 if elem[0] == "u" else -6, 7, shape, elem)


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.7, -3.2, 1e-3, 88.0, -88.0, 700.0,
           -700.0, 1e-30, -1e-30, 1e30, -1e30, 6e-8, 5.9e-8, 1e-40, 65504.0, 65519.9, 65520.0,
           math.inf, -math.inf, math.nan, 0.1, 1 / 3, -12.0, 20.25, 9.0]


def special(elem):
    return round_to(SPECIAL, elem)


def extremes(elem):
    info = np.iinfo(ELEMS[elem])
    values = [0, 1, 2, 3, 5, 100, info.max, info.max - 1, info.min, info.min + 1]
    if info.min < 0:
        values += [-1, -2, -3, -5, -100]
    return ints(values, elem)


# ---- elementwise -------------------------------------------------------------------------------


erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


UNARY = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "exp": np.exp, "log": np.log,
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "erf": erf, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sigmoid": lambda x: np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x))),
    "silu": lambda x: x / (1 + np.exp(-x)), "relu": lambda x: np.where(x < 0, 0.0, x),
    "softplus": lambda x: np.logaddexp(0, x), "floor": np.floor, "ceil": np.ceil, "round": np.rint,
}


def unary_cases():
    for op, function in UNARY.items():
        for elem in FLOATS:
            x = special(elem)
            y = function(wide(x))
            if op in ("sin", "cos") and elem == "f64":
                y = y.copy()
            case(op, elem, [x], [round_to(y, elem)], tol=(8, 1e-300) if elem == "f64" else None)
        case(op, "empty", [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.float32)])
        case(op, "scalar", [np.float32(0.25)], [round_to(function(np.float64(0.25)), "f32")])
    for elem in FLOATS:
        x = special(elem)
        exact = 0.5 * wide(x) * erfc(-wide(x) / math.sqrt(2))
        # erfc of a large argument magnifies the rounding of the argument
        case("gelu", elem, [x], [round_to(exact, elem)], tol=(600, 1e-300) if elem == "f64" else None)
        case("gelu", f"tanh_{elem}", [x], [round_to(gelu_tanh(wide(x)), elem)],
             tol=(8, 1e-15) if elem == "f64" else (1, 1e-15), tanh=True)
        case("isnan", elem, [x], [np.isnan(wide(x))])
        for negative in (True, False):
            for positive in (True, False):
                w = wide(x)
                y = (np.isposinf(w) & positive) | (np.isneginf(w) & negative)
                case("isinf", f"{elem}_{negative:d}{positive:d}", [x], [y], negative=negative,
                     positive=positive)
    for elem in INTS:
        x = extremes(elem)
        p = [int(v) for v in x]
        case("neg", elem, [x], [ints([-v for v in p], elem)])
        case("abs", elem, [x], [ints([abs(v) for v in p], elem)])
        case("sign", elem, [x], [ints([(v > 0) - (v < 0) for v in p], elem)])
        case("relu", elem, [x], [ints([max(v, 0) for v in p], elem)])
    b = np.array([True, False, True])
    case("not", "bool", [b], [~b])
    for elem in INTS:
        x = extremes(elem)
        case("not", elem, [x], [~x])
    pattern = np.array([1.0, -2.5, np.inf], np.float32)
    case("bitcast", "f32_i32", [pattern], [pattern.view(np.int32)], to="i32")
    case("bitcast", "i64_f64", [ints([0, -1, 1 << 62], "i64")], [ints([0, -1, 1 << 62], "i64").view(np.float64)], to="f64")
    faulty("exp", "dims", [np.zeros((2, 3), np.float32)], [((3, 2), np.float32)])


def shifted(value, places, width, is_signed, left):
    """As ONNX defines BitShift, in exact integers, wrapped to the type."""
    if not 0 <= places < width:
        return -1 if value < 0 and not left else 0
    bits = (value << places if left else value >> places) & ((1 << width) - 1)
    return bits - (1 << width) if is_signed and bits >> (width - 1) else bits


def cast_value(value, source, target):
    if target == "bool":
        return value != 0
    if target in FLOATS:
        return round_one(value, target)
    if source in FLOATS:  # truncates, saturates
        info = np.iinfo(ELEMS[target])
        if math.isnan(value):
            return 0
        return max(info.min, min(info.max, value if math.isinf(value) else math.trunc(value)))
    return wrap(int(value), target)


def cast_sources(elem):
    if elem == "bool":
        return np.array([True, False])
    if elem in FLOATS:
        more = [127.9, 128.0, -128.9, -129.0, 255.5, 256.0, 32767.5, -32768.9, 65535.9, 65536.0,
                2147483647.0, 2147483648.0, -2147483649.0, 4294967295.5, 2.0**63, -(2.0**63), 2.0**64,
                0.99, -0.99, 1.00390625, 1.01171875, 3.3895e38, -3.3895e38, 1.0000001, 2049.0, 2051.0]
        return round_to(SPECIAL + more, elem)
    values = [int(v) for v in extremes(elem)]
    # halves of bf16, f16 and f32, where a second rounding would show
    values += [257, 258, 259, 2049, 2051, 65519, 65520, (1 << 24) + 1, (1 << 24) + 3,
               (1 << 40) + (1 << 32), (1 << 40) + (1 << 32) + 1, (1 << 62) + (1 << 54) + 1,
               (1 << 62) + (1 << 54), (1 << 62) + (1 << 54) - 1, (1 << 62) + (1 << 38) + 1]
    return ints(values, elem)


def cast_cases():
    for source in ELEMS:
        x = cast_sources(source)
        python = [v.item() if source not in ("bf16",) else float(v) for v in x]
        for target in ELEMS:
            y = [cast_value(v, source, target) for v in python]
            if target in INTS:
                y = ints(y, target)
            elif target == "bool":
                y = np.array(y, bool)
            else:
                y = np.array(y, np.float64).astype(ELEMS[target])
            case("cast", f"{source}_{target}", [x], [y], tol=(0, 0), to=target)
    for elem in ("f32", "bf16", "i32", "i64", "u8", "bool"):
        for shape in ((), (5,), (0, 3), (2, 3)):
            x = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(ELEMS.get(elem, bool))
            case("transfer", f"{elem}_{len(shape)}_{'x'.join(map(str, shape))}", [x], [x], tol=(0, 0))


BROADCASTS = [((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((), (3,)), ((3,), ()), ((), ()), ((2, 3), (1, 3)),
              ((1, 1), (2, 2, 2)), ((0, 3), (1, 3)), ((2, 0), (2, 1)), ((2, 1, 2, 1), (3, 1, 4))]


def truncated(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INT_BINARY = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": truncated, "mod": lambda a, b: a % b, "min": min, "max": max,
    "equal": lambda a, b: a == b, "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b,
}
FLOAT_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "mod": np.mod,
    "pow": np.power, "min": np.minimum, "max": np.maximum, "equal": np.equal, "less": np.less,
    "less_equal": np.less_equal,
}
COMPARES = ("equal", "less", "less_equal")


def binary_cases():
    for op, function in FLOAT_BINARY.items():
        for elem in FLOATS:
            x = special(elem)
            y = x[rng.permutation(len(x))]
            pairs = np.concatenate([[x, y], [x, x], [x, np.full_like(x, 2.5)]], axis=1)
            r = function(wide(pairs[0]), wide(pairs[1]))
            r = r if op in COMPARES else round_to(r, elem)
            case(op, elem, [pairs[0], pairs[1]], [r], tol=(4, 0) if op == "pow" else None)
        for i, (s, t) in enumerate(BROADCASTS):
            x, y = np.abs(normal(s)) + np.float32(0.5), np.abs(normal(t)) + np.float32(0.5)
            r = np.asarray(function(wide(x), wide(y)))
            case(op, f"broadcast{i}", [x, y], [r if op in COMPARES else round_to(r, "f32")])
    for op, function in INT_BINARY.items():
        for elem in INTS:
            v = [int(a) for a in extremes(elem)]
            a = [p for p in v for _ in v]
            b = [q for _ in v for q in v]
            if op in ("div", "mod"):
                a, b = [p for p, q in zip(a, b) if q], [q for q in b if q]
            if elem not in ("i64", "u64", "i8"):  # the corners of a few types are enough
                keep = rng.choice(len(a), 40, replace=False)
                a, b = [a[i] for i in keep], [b[i] for i in keep]
            r = [function(p, q) for p, q in zip(a, b)]
            r = np.array(r, bool) if op in COMPARES else ints(r, elem)
            case(op, elem, [ints(a, elem), ints(b, elem)], [r])
            if op == "mod":
                r = [p - truncated(p, q) * q for p, q in zip(a, b)]
                case(op, f"fmod_{elem}", [ints(a, elem), ints(b, elem)], [ints(r, elem)], fmod=True)
            if op in ("div", "mod"):
                faulty(op, f"zero_{elem}", [ints([5, 6], elem), ints([1, 0], elem)], [((2,), ELEMS[elem])])
    for elem in FLOATS:
        x = special(elem)
        y = x[::-1].copy()
        case("mod", f"fmod_{elem}", [x, y], [round_to(np.fmod(wide(x), wide(y)), elem)], fmod=True)
    for elem in INTS:
        x = ints([0, 1, 2, 3, 7, 10, 11, 13], elem, (8, 1))
        y = ints([0, 1, 2, 3, 5, 62, 63, 64], elem)
        r = [int(a) ** int(b) for a in x[:, 0] for b in y]
        case("pow", elem, [x, y], [ints(r, elem, (8, 8))])
    case("pow", "negative_base", [ints([-2, -3, -1], "i32"), ints([3, 4, 5], "i32")],
         [ints([-8, 81, -1], "i32")])
    case("pow", "negative_exponent", [ints([1, -1, -1, 2, -7], "i64"), ints([-3, -3, -4, -1, -2], "i64")],
         [ints([1, -1, 1, 0, 0], "i64")])
    faulty("pow", "zero_negative", [ints([0], "i64"), ints([-1], "i64")], [((1,), np.int64)])
    case("pow", "int_float", [ints([2, 9, 10], "i32"), np.array([0.5, 0.5, -1], np.float32)],
         [ints([1, 3, 0], "i32")])
    case("pow", "float_int", [np.array([1.5, 2, -2], np.float32), ints([2, -1, 3], "i64")],
         [np.array([2.25, 0.5, -8], np.float32)])
    case("pow", "f32_f64", [np.array([2, 3], np.float32), np.array([0.5, 2], np.float64)],
         [np.array([math.sqrt(2), 9], np.float32)])
    a, b = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    case("and", "bool", [a, b], [a & b])
    case("or", "bool", [a, b], [a | b])
    case("xor", "bool", [a, b], [a ^ b])
    case("equal", "bool", [a, b], [a == b])
    for elem in INTS:
        x = extremes(elem)
        y = x[::-1].copy()
        case("and", elem, [x, y], [x & y])
        case("or", elem, [x, y], [x | y])
        case("xor", elem, [x, y], [x ^ y])
        width, info = x.dtype.itemsize * 8, np.iinfo(x.dtype)
        places = ints([min(v, info.max) for v in (0, 1, 2, width - 1, width, 100)] + ([-1] if info.min < 0 else []), elem)
        for left in (True, False):
            z = [[shifted(int(v), int(n), width, info.min < 0, left) for n in places] for v in x]
            case("shift", f"{elem}_{'left' if left else 'right'}", [x[:, None], places], [np.array(z, ELEMS[elem])], left=left)
    case("and", "broadcast", [a.reshape(4, 1), b], [a.reshape(4, 1) & b])
    for op in ("add", "less", "equal"):
        faulty(op, "dims", [np.zeros((2, 3), np.float32), np.zeros(2, np.float32)],
               [((2, 3), bool if op != "add" else np.float32)])
    for i, (c, s, t) in enumerate([((2, 3), (2, 3), (2, 3)), ((3,), (2, 1), ()), ((), (2,), (3, 1)),
                                   ((2, 1, 1), (3, 1), (4,)), ((0,), (1,), (1,))]):
        for elem in ELEMS:
            cond, x, y = some(c, "bool"), some(s, elem), some(t, elem)
            case("where", f"{i}_{elem}", [cond, x, y], [np.where(cond, x, y)])
    faulty("where", "dims", [np.zeros(2, bool), np.zeros(3, np.float32), np.zeros((), np.float32)],
           [((3,), np.float32)])


# ---- reductions --------------------------------------------------------------------------------


def reduce_cases():
    axes_of = [((2, 3, 4), (0,)), ((2, 3, 4), (1,)), ((2, 3, 4), (-1,)), ((2, 3, 4), (0, 2)), ((2, 3, 4), (0, 1, 2)),
               ((2, 3, 4), ()), ((5,), (0,)), ((), ()), ((2, 1, 3, 1, 2), (-2, 0)), ((2, 0, 3), (1,)),
               ((2, 0, 3), (0,)), ((0,), (0,))]
    functions = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}
    for op, function in functions.items():
        for i, (shape, axes) in enumerate(axes_of):
            for elem in ("f32", "bf16", "f64", "i32", "i64", "u8"):
                if i > 3 and elem in ("bf16", "f64", "u8"):
                    continue
                x = some(shape, elem)
                empty = 0 in [shape[a] for a in axes]
                info = np.iinfo(ELEMS[elem]) if elem in INTS else None
                kwargs = {}
                if op in ("max", "min"):
                    low = info.min if info else -np.inf
                    high = info.max if info else np.inf
                    kwargs["initial"] = low if op == "max" else high
                if op == "mean" and elem in INTS:
                    if empty:
                        faulty("reduce_mean", f"empty{i}_{elem}", [x],
                               [(np.sum(x, axis=axes, keepdims=True).shape, ELEMS[elem])], axes=axes,
                               keepdims=True)
                        continue
                    count = np.prod([shape[a] for a in axes], dtype=np.int64)
                    total = np.sum(x.astype(np.int64), axis=axes, keepdims=True)
                    total = total.astype(ELEMS[elem]).astype(np.int64)  # wraps
                    y = (np.sign(total) * (np.abs(total) // count)).astype(ELEMS[elem])
                elif elem in INTS:
                    y = function(x.astype(np.int64) if op not in ("max", "min") else x, axis=axes,
                                 keepdims=True, **kwargs).astype(ELEMS[elem])
                else:
                    y = round_to(function(wide(x), axis=axes, keepdims=True, **kwargs), elem)
                case(f"reduce_{op}", f"{i}_{elem}", [x], [y], axes=axes, keepdims=True)
                if i in (0, 3, 4, 8):
                    flat = y.reshape([d for k, d in enumerate(shape)
                                      if k not in [a % len(shape) for a in axes]])
                    case(f"reduce_{op}", f"{i}_{elem}_flat", [x], [flat], axes=axes, keepdims=False)
    nan = np.array([[1, math.nan, 3], [math.inf, -math.inf, 0]], np.float32)
    for op, function in functions.items():
        y = function(wide(nan), axis=1).astype(np.float32)
        case(f"reduce_{op}", "nan", [nan], [y], axes=[1], keepdims=False)
    big = np.concatenate([np.full(1, 2.0**24), np.ones(1000)]).astype(np.float32)
    case("reduce_sum", "in_double", [big], [np.array([2.0**24 + 1000], np.float32)], tol=(0, 0), axes=[0],
         keepdims=True)
    case("reduce_sum", "overflow_f16", [np.full(4, 60000, np.float16)], [np.array([np.inf], np.float16)],
         axes=[0], keepdims=True)
    case("reduce_mean", "no_overflow_f16", [np.full(4, 60000, np.float16)], [np.array([60000], np.float16)],
         axes=[0], keepdims=True)
    case("reduce_max", "u64", [ints([1, -1, 5], "u64")], [ints([-1], "u64")], axes=[0], keepdims=True)
    case("reduce_min", "u64", [ints([-1, -2], "u64")], [ints([-2], "u64")], axes=[0], keepdims=True)
    case("reduce_sum", "wraps", [ints([127, 1, 1], "i8")], [ints([-127], "i8")], axes=[0], keepdims=True)
    case("reduce_mean", "u64", [ints([1 << 63, 2], "u64")], [ints([(1 << 62) + 1], "u64")], axes=[0],
         keepdims=True)


def axis_cases():
    for i, (shape, axis) in enumerate([((2, 5), -1), ((2, 5), 0), ((2, 3, 4), 1), ((1,), 0), ((0, 3), 1),
                                       ((3, 0), 1), ((2, 3, 2, 2), -3)]):
        for elem in FLOATS:
            x = normal(shape, elem, 4)
            w = wide(x)
            m = np.max(w, axis=axis, keepdims=True, initial=-np.inf)
            e = np.exp(w - m)
            s = np.sum(e, axis=axis, keepdims=True)
            case("softmax", f"{i}_{elem}", [x], [round_to(e / s, elem)], axis=axis,
                 tol=(16, 0) if elem == "f64" else None)
            case("softmax", f"log{i}_{elem}", [x], [round_to(w - m - np.log(s), elem)], axis=axis, log=True,
                 tol=(16, 1e-15) if elem == "f64" else None)
    big = np.array([[1e4, 1e4 - 1, -1e4], [-np.inf, 0, 1]], np.float32)
    w = wide(big)
    e = np.exp(w - w.max(1, keepdims=True))
    case("softmax", "large", [big], [(e / e.sum(1, keepdims=True)).astype(np.float32)])
    nan = np.full((1, 3), np.nan, np.float32)
    case("softmax", "all_masked", [np.full((1, 3), -np.inf, np.float32)], [nan])
    case("softmax", "nan", [np.array([[1, np.nan, 2]], np.float32)], [nan])

    for i, shape in enumerate([(2, 8), (3,), (2, 2, 5), (0, 4), (1, 1)]):
        for elem in FLOATS:
            x, scale, bias = normal(shape, elem, 3), normal(shape[-1:], elem), normal(shape[-1:], elem)
            w = wide(x)
            r = w / np.sqrt(np.mean(w * w, axis=-1, keepdims=True) + 1e-5) * wide(scale)
            tol = (16, 1e-15) if elem == "f64" else (1, 1e-12)
            case("rms_norm", f"{i}_{elem}", [x, scale], [round_to(r, elem)], tol=tol, eps=1e-5)
            centred = w - np.mean(w, axis=-1, keepdims=True)
            r = centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + 1e-6) * wide(scale)
            case("layer_norm", f"{i}_{elem}", [x, scale], [round_to(r, elem)], tol=tol, eps=1e-6)
            case("layer_norm", f"bias{i}_{elem}", [x, scale, bias], [round_to(r + wide(bias), elem)], tol=tol,
                 eps=1e-6)
    case("rms_norm", "zeros", [np.zeros((1, 4), np.float32), np.ones(4, np.float32)],
         [np.zeros((1, 4), np.float32)], eps=1e-5)
    faulty("rms_norm", "scale", [np.zeros((1, 4), np.float32), np.ones(3, np.float32)],
           [((1, 4), np.float32)], eps=1e-5)

    for op, onnx_op in (("argmax", "ArgMax"), ("argmin", "ArgMin")):
        for i, (shape, axis) in enumerate([((4, 5), 0), ((4, 5), 1), ((2, 3, 4), -2), ((7,), 0), ((0, 3), 1)]):
            for elem in ("f32", "i32", "u8", "bf16", "u64"):
                for last in (False, True):
                    x = some(shape, elem)
                    y = onnx_run(onnx_op, [wide(x)], axis=axis, keepdims=1, select_last_index=int(last))[0]
                    case(op, f"{i}_{elem}_{last:d}", [x], [y], axis=axis, last=last)
                    if i == 2:
                        case(op, f"{i}_{elem}_{last:d}_flat", [x], [y.squeeze(axis)], axis=axis, last=last,
                             keepdims=False)
        nan = np.array([1, np.nan, 9, np.nan, -3], np.float32)
        case(op, "nan", [nan], [np.array([1])], axis=0)
        case(op, "nan_last", [nan], [np.array([3])], axis=0, last=True)
        faulty(op, "empty", [np.zeros((0, 2), np.float32)], [((1, 2), np.int64)], axis=0)
        case(op, "u64_large", [ints([1, -1, 2], "u64")], [np.array([1 if op == "argmax" else 0])], axis=0)

    for i, (shape, axis) in enumerate([((5,), 0), ((2, 3), 0), ((2, 3), -1), ((2, 3, 2), 1), ((0, 2), 0)]):
        for elem in ("f32", "f64", "i32", "i64"):
            for exclusive in (False, True):
                for reverse in (False, True):
                    x = some(shape, elem)
                    y = onnx_run("CumSum", [x, np.array(axis)], exclusive=int(exclusive),
                                 reverse=int(reverse), opset=14)[0] if x.size else x
                    case("cumsum", f"{i}_{elem}_{exclusive:d}{reverse:d}", [x], [y.astype(x.dtype)], axis=axis,
                         exclusive=exclusive, reverse=reverse)
                    if x.size and elem in ("f32", "i64"):
                        y = onnx_run("CumProd", [x, np.array(axis)], exclusive=int(exclusive), reverse=int(reverse), opset=26)[0]
                        case("cumprod", f"{i}_{elem}_{exclusive:d}{reverse:d}", [x], [y.astype(x.dtype)], axis=axis,
                             exclusive=exclusive, reverse=reverse, tol=(1, 1e-30) if elem == "f32" else None)
    big = np.concatenate([[2.0**24], np.ones(4)]).astype(np.float32)
    case("cumsum", "in_double", [big], [np.cumsum(wide(big)).astype(np.float32)], axis=0)


def topk_reference(x, k, axis, largest):
    """Sorted; among equals the lower index first; NaN is the largest."""
    moved = np.moveaxis(np.asarray(x), axis, -1)
    values = np.zeros(moved.shape[:-1] + (k,), x.dtype)
    indices = np.zeros(values.shape, np.int64)
    for lane in np.ndindex(moved.shape[:-1]):
        row = moved[lane]

        def key(i):
            v = row[i]
            nan = v != v
            size = (1, 0) if nan else (0, v.item() if x.dtype != bf16 else float(v))
            return size

        order = sorted(range(len(row)), key=lambda i: i)
        order = sorted(order, key=key, reverse=False)
        if largest:  # a stable sort by falling value keeps lower indices first
            order = []
            left = list(range(len(row)))
            while left:
                best = left[0]
                for i in left[1:]:
                    if key(i) > key(best):
                        best = i
                order.append(best)
                left.remove(best)
        indices[lane] = order[:k]
        values[lane] = row[order[:k]] if k else []
    return np.moveaxis(values, -1, axis), np.moveaxis(indices, -1, axis)


def topk_cases():
    shapes = [((10,), 0, 3), ((10,), -1, 10), ((2, 8), 1, 4), ((8, 2), 0, 5), ((2, 5, 3), 1, 2), ((3, 4), -1, 0),
              ((0, 4), 1, 2), ((4, 1), 1, 1), ((33,), 0, 17)]
    for i, (shape, axis, k) in enumerate(shapes):
        for elem in ("f32", "bf16", "i32", "u64", "f64", "i8"):
            for largest in (True, False):
                x = some(shape, elem)
                v, index = topk_reference(x, k, axis, largest)
                count = np.array([k]) if i % 2 else np.array(k)
                case("topk", f"{i}_{elem}_{largest:d}", [x, count], [v, index], axis=axis, largest=largest)
    x = normal((3, 20))
    v, index = onnx_run("TopK", [x, np.array([6])], n_out=2, axis=-1)
    case("topk", "onnx", [x, np.array([6])], [v, index])
    x = np.array([1, np.nan, 3, np.nan, -np.inf, np.inf], np.float32)
    for largest in (True, False):
        v, index = topk_reference(x, 6, 0, largest)
        case("topk", f"nan_{largest:d}", [x, np.array([6])], [v, index], largest=largest)
    case("topk", "u64_large", [ints([3, -1, 7], "u64"), np.array([2])], [ints([-1, 7], "u64"), np.array([1, 2])])
    outs = [((2,), np.float32), ((2,), np.int64)]
    faulty("topk", "k_large", [np.zeros(3, np.float32), np.array([4])], outs)
    faulty("topk", "k_negative", [np.zeros(3, np.float32), np.array([-1])], outs)
    case("topk", "unsorted", [np.array([1, 3, 2], np.float32), np.array([2])],
         [np.array([3, 2], np.float32), np.array([1, 2])], sorted=False)


# ---- shape -------------------------------------------------------------------------------------


def shape_cases():
    x = np.zeros((2, 3, 4), np.float32)
    for i, (start, end) in enumerate([(0, 2**63 - 1), (1, 2), (-1, 2**63 - 1), (-2, -1), (-9, 9), (2, 1), (3, 5)]):
        y = onnx_run("Shape", [x], start=start, end=max(-100, min(end, 100)))[0]
        case("shape", str(i), [x], [y], start=start, end=end)
    case("shape", "scalar", [np.float32(1)], [np.zeros(0, np.int64)])

    for i, (shape, to, allowzero) in enumerate([
            ((2, 3, 4), (6, 4), 0), ((2, 3, 4), (-1,), 0), ((2, 3, 4), (0, -1), 0), ((2, 3, 4), (4, 0, -1), 0),
            ((2, 3, 4), (2, -1, 2, 2), 0), ((), (1, 1), 0), ((1,), (), 0), ((0, 3), (3, 0), 1), ((0, 3), (0, -1), 0),
            ((0, 3), (0, 5), 1), ((2, 0), (2, 0), 0), ((2, 3), (3, 2, 1), 1)]):
        if i == 8:  # 0 elements: the rest is not defined
            faulty("reshape", str(i), [some(shape, "f32"), np.array(to)], [((0, 3), np.float32)])
            continue
        for elem in ("f32", "i64", "bf16", "u8"):
            x = some(shape, elem)
            y = onnx_run("Reshape", [wide(x), np.array(to, np.int64)], allowzero=allowzero)[0]
            case("reshape", f"{i}_{elem}", [x, np.array(to, np.int64)], [y.astype(x.dtype)],
                 allowzero=bool(allowzero))
    for name, to in [("count", (5,)), ("rest", (-1, 4)), ("two", (-1, -1)), ("negative", (-2, 3)), ("zero", (6, 1, 0)),
                     ("huge", (2**62, 2**62)), ("product", (2**32, 2**32, 6))]:
        faulty("reshape", name, [np.zeros((2, 3), np.float32), np.array(to, np.int64)], [((6,), np.float32)])

    for i, (shape, perm) in enumerate([((2, 3), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 1, 2)), ((), ()),
                                       ((5,), (0,)), ((2, 1, 3, 2), (3, 1, 0, 2)), ((0, 3), (1, 0)),
                                       ((2, 2, 2, 2, 2), (4, 2, 0, 3, 1))]):
        for elem in ("f32", "f64", "f16", "u8"):
            x = some(shape, elem)
            case("transpose", f"{i}_{elem}", [x], [np.transpose(x, perm)], perm=perm)

    for i, (shapes, axis) in enumerate([(((2, 3), (2, 1)), 1), (((2, 3), (1, 3), (4, 3)), 0), (((2, 3),), -1),
                                        (((2, 2, 3), (2, 5, 3)), -2), (((0, 3), (2, 3)), 0), (((2,), (0,), (3,)), 0)]):
        for elem in ("f32", "i64", "f16", "bool"):
            xs = [some(s, elem) for s in shapes]
            case("concat", f"{i}_{elem}", xs, [np.concatenate(xs, axis)], axis=axis)
    faulty("concat", "dims", [np.zeros((2, 3)), np.zeros((3, 3))], [((2, 6), np.float64)], axis=1)
    faulty("concat", "sum", [np.zeros((2, 3)), np.zeros((2, 4))], [((2, 6), np.float64)], axis=1)
    faulty("concat", "short", [np.zeros((2, 3))], [((2, 6), np.float64)], axis=1)

    xs = [some((2, 3), "bf16") for _ in range(3)]
    case("stack", "bf16", xs, [np.stack(xs)])
    case("stack", "scalar", [np.float32(1), np.float32(2)], [np.array([1, 2], np.float32)])
    faulty("stack", "dims", [np.zeros(2, np.float32), np.zeros(3, np.float32)], [((2, 2), np.float32)])

    for i, (shape, axis, sizes, parts) in enumerate([
            ((6, 2), 0, None, 3), ((7, 2), 0, None, 3), ((2, 7), -1, None, 2), ((2, 6), 1, (1, 2, 3), 3),
            ((5,), 0, (0, 5), 2), ((2, 3, 4), 1, (3,), 1), ((2,), 0, None, 4), ((0, 2), 0, None, 2)]):
        for elem in ("f32", "i32", "u8"):
            x = some(shape, elem)
            if sizes is None:
                chunk = -(-shape[axis] // parts)
                cuts = [min(shape[axis], chunk * (k + 1)) for k in range(parts - 1)]
            else:
                cuts = np.cumsum(sizes)[:-1]
            inputs = [x] if sizes is None else [x, np.array(sizes)]
            case("split", f"{i}_{elem}", inputs, np.split(x, cuts, axis), axis=axis)
    two = [((2, 2), np.float32), ((2, 2), np.float32)]
    for name, sizes in [("sum", (2, 1)), ("over", (2, 3)), ("negative", (-1, 5))]:
        faulty("split", name, [np.zeros((4, 2), np.float32), np.array(sizes)], two, axis=0)


def slice_cases():
    big = 2**63 - 1
    table = [
        ((5,), [1], [3], None, None), ((5,), [-3], [big], None, None), ((5,), [big], [-big - 1], None, [-1]),
        ((5,), [-1], [-6], [0], [-2]), ((5, 6), [1, 2], [4, 6], None, [1, 2]), ((5, 6), [0], [3], [1], None),
        ((5, 6), [0], [3], [-1], [2]), ((5,), [3], [1], None, None), ((5,), [-100], [100], None, None),
        ((5,), [10], [20], None, None), ((5,), [1], [2], None, [-1]), ((5,), [4], [0], None, [-3]),
        ((2, 3, 4), [1, 0], [2, 3], [2, 0], [1, 1]), ((0, 3), [0], [5], [0], [1]), ((0,), [-1], [-5], [0], [-1]),
        ((5,), [0], [5], None, [big]), ((5,), [4], [-big - 1], None, [-big - 1]), ((4, 4), [], [], None, None),
        ((5,), [0], [0], None, None), ((7,), [5], [-big], [0], [-2]), ((3, 4), [-1, -1], [-9, -9], [0, 1], [-1, -2]),
    ]
    for i, (shape, starts, ends, axes, steps) in enumerate(table):
        for elem, index in (("f32", np.int64), ("i64", np.int64), ("bf16", np.int64), ("u8", np.int32)):
            if index is np.int32 and any(abs(v) > 2**31 - 1 for v in starts + ends + (steps or [])):
                continue
            x = some(shape, elem)
            lists = [None if v is None else np.array(v, index) for v in (starts, ends, axes, steps)]
            while lists and lists[-1] is None:
                lists.pop()
            at = [slice(None)] * len(shape)
            for k, s in enumerate(starts):
                axis = axes[k] if axes else k
                step = steps[k] if steps else 1
                # Python's slices have the same clipping; its end can't be "before the first" but by None
                end = None if step < 0 and ends[k] < -shape[axis] else ends[k]
                at[axis] = slice(s, end, step)
            case("slice", f"{i}_{elem}", [x] + lists, [x[tuple(at)]])
    x = np.zeros((5, 6), np.float32)
    out = [((5, 6), np.float32)]
    for name, lists in [("step", ([0], [5], [0], [0])), ("axis", ([0], [5], [2])), ("axis_low", ([0], [5], [-3])),
                        ("twice", ([0, 0], [5, 5], [1, -1])), ("ends", ([0, 0], [5])), ("many", ([0] * 3, [1] * 3)),
                        ("dims", ([0], [3]))]:
        if name == "dims":  # the result's extents don't fit: eval refuses by itself
            continue
        faulty("slice", name, [x] + [np.array(v) for v in lists], out)


def expand_cases():
    for i, (shape, to) in enumerate([((3, 1), (2, 3, 4)), ((3, 1), (3, 4)), ((2, 3), (1,)), ((), (2, 2)), ((1,), (0,)),
                                     ((2, 1, 3), (1, 4, 1)), ((1, 1), ()), ((0, 1), (0, 3))]):
        for elem in ("f32", "i64", "bool"):
            x = some(shape, elem)
            y = np.broadcast_to(x, np.broadcast_shapes(shape, to))
            case("expand", f"{i}_{elem}", [x, np.array(to, np.int64)], [y])
    faulty("expand", "dims", [np.zeros((2, 3)), np.array([2, 4])], [((2, 4), np.float64)])
    faulty("expand", "negative", [np.zeros(1), np.array([-1])], [((1,), np.float64)])

    for i, (shape, repeats) in enumerate([((2, 3), (2, 2)), ((3,), (3,)), ((), ()), ((2, 1, 2), (1, 3, 1)), ((2,), (0,)),
                                          ((0, 2), (3, 2)), ((2, 0), (3, 2))]):
        for elem in ("f32", "i16", "f64"):
            x = some(shape, elem)
            case("tile", f"{i}_{elem}", [x, np.array(repeats, np.int64)], [np.tile(x, repeats)])
    for name, repeats in [("negative", (-1, 1)), ("rank", (1,)), ("huge", (2**62, 2**62))]:
        faulty("tile", name, [np.zeros((8, 3)), np.array(repeats)], [((8, 3), np.float64)])


def pad_one(x, before, after, axis, mode, value):
    """Negative pads cut first; then numpy pads."""
    n = x.shape[axis]
    cut = [slice(None)] * x.ndim
    cut[axis] = slice(max(0, -before), n - max(0, -after))
    x = x[tuple(cut)]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (max(0, before), max(0, after))
    if mode == "constant":
        return np.pad(x, widths, mode, constant_values=value)
    return np.pad(x, widths, mode)


def pad_cases():
    table = [((3, 4), (1, 0, 0, 2), None), ((5,), (2, 3), None), ((2, 3, 4), (0, 1, 1, 1, 0, 2), None),
             ((3, 4), (1, 2), [1]), ((3, 4), (1, 2), [-2]), ((4,), (-1, 2), None), ((4, 4), (-1, 1, 2, -2), None),
             ((2, 3), (0, 1, 3, 1), [1, 0]), ((3,), (5, 7), None), ((1,), (2, 2), None), ((), (), None)]
    for i, (shape, pads, axes) in enumerate(table):
        for mode in ("constant", "reflect", "edge", "wrap"):
            for elem in ("f32", "i64", "bf16"):
                x = some(shape, elem)
                value = some((), elem)
                order = axes if axes else range(len(shape))
                n, y = len(pads) // 2, x
                for k, axis in enumerate(order):
                    y = pad_one(y, pads[k], pads[n + k], axis, mode, value)
                inputs = [x, np.array(pads, np.int64), value] + ([np.array(axes)] if axes else [])
                case("pad", f"{i}_{mode}_{elem}", inputs, [y], mode=mode)
    x = some((2, 2), "f32")
    case("pad", "no_value", [x, np.array([1, 0, 0, 1])], [np.pad(x, ((1, 0), (0, 1)))], mode="constant")
    case("pad", "no_value_axes", [x, np.array([1, 0]), None, np.array([1])], [np.pad(x, ((0, 0), (1, 0)))],
         mode="constant")
    case("pad", "empty", [np.zeros((0, 2), np.float32), np.array([1, 0, 1, 0]), np.float32(7)],
         [np.full((2, 2), 7, np.float32)], mode="constant")
    case("pad", "cut_all", [x, np.array([-1, 0, -1, 0])], [np.zeros((0, 2), np.float32)], mode="constant")
    out = [((2, 2), np.float32)]
    faulty("pad", "cut_more", [x, np.array([-2, 0, -1, 0])], out, mode="constant")
    faulty("pad", "cut_far", [x, np.array([-3, 0, 3, 0])], out, mode="constant")
    faulty("pad", "length", [x, np.array([1, 1])], out, mode="constant")
    faulty("pad", "axis", [x, np.array([1, 1]), None, np.array([2])], out, mode="constant")
    faulty("pad", "twice", [x, np.array([1, 1, 1, 1]), None, np.array([1, -1])], out, mode="constant")
    faulty("pad", "overflow", [x, np.array([2**63 - 1, 0, 2**63 - 1, 0])], out, mode="constant")
    faulty("pad", "reflect_empty", [np.zeros((0, 2), np.float32), np.array([1, 0, 1, 0])], out, mode="reflect")


# ---- gather ------------------------------------------------------------------------------------


def gather_cases():
    for i, (shape, indices_shape, axis) in enumerate([((5, 3), (2,), 0), ((5, 3), (2, 2), 1), ((5,), (), 0),
                                                      ((2, 3, 4), (3, 1), -2), ((4, 3), (0,), 0), ((0, 3), (0,), 0),
                                                      ((3, 0), (2,), 0), ((2, 3, 2), (4,), -1)]):
        for elem, index in (("f32", "i64"), ("i64", "i32"), ("bf16", "i64"), ("bool", "i32")):
            x = some(shape, elem)
            n = shape[axis]
            idx = integers(-n, max(n, 1), indices_shape, index)
            case("gather", f"{i}_{elem}", [x, idx], [np.take(x, idx.astype(np.int64), axis)], axis=axis)
    for name, at in [("high", 5), ("low", -6), ("far", 2**63 - 1), ("far_low", -(2**63))]:
        idx = np.array([0, at])
        x = np.zeros((5, 3), np.float32)
        faulty("gather", name, [x, idx], [((2, 3), np.float32)], axis=0)
        two = np.array([[0, 0, 0], [0, at, 0]])
        faulty("gather_elements", name, [x, two], [((2, 3), np.float32)], axis=0)
        faulty("gather_nd", name, [x, np.array([[0, 0], [at, 1]])], [((2,), np.float32)])
        faulty("scatter_elements", name, [x, two, np.zeros((2, 3), np.float32)], [((5, 3), np.float32)], axis=0)
        faulty("scatter_nd", name, [x, np.array([[0], [at]]), np.zeros((2, 3), np.float32)], [((5, 3), np.float32)])
    faulty("gather", "u64", [np.zeros(5, np.float32), ints([-1], "u64")], [((1,), np.float32)], axis=0)
    faulty("gather", "of_nothing", [np.zeros((0, 2), np.float32), np.array([0])], [((1, 2), np.float32)], axis=0)

    for i, (shape, indices_shape, axis) in enumerate([((3, 4), (2, 4), 0), ((3, 4), (3, 2), 1), ((5,), (7,), 0),
                                                      ((2, 3, 4), (2, 5, 3), -2), ((3, 4), (0, 4), 0)]):
        for elem in ("f32", "u8", "f64"):
            x = some(shape, elem)
            idx = integers(-shape[axis], shape[axis], indices_shape)
            grid = list(np.meshgrid(*[np.arange(d) for d in indices_shape], indexing="ij"))
            grid[axis] = idx
            case("gather_elements", f"{i}_{elem}", [x, idx], [x[tuple(grid)]], axis=axis)
            for reduction in ("none", "add", "mul", "max", "min"):
                updates = some(indices_shape, elem)
                target = idx
                if reduction == "none":  # no duplicates, so that the order of writes doesn't matter
                    if indices_shape[axis] > shape[axis]:
                        continue
                    target = np.argsort(rng.random(indices_shape), axis=axis)
                y = onnx_run("ScatterElements", [x, np.where(target < 0, target + shape[axis], target), updates],
                             axis=axis, reduction=reduction, opset=18)[0] if idx.size else x
                case("scatter_elements", f"{i}_{elem}_{reduction}", [x, target, updates], [y.astype(x.dtype)],
                     axis=axis, reduction=reduction)
    faulty("gather_elements", "reaches_over", [np.zeros((2, 3)), np.zeros((2, 4), np.int64)],
           [((2, 4), np.float64)], axis=0)
    x = np.array([1, np.nan, 3], np.float32)
    case("scatter_elements", "nan", [x, np.array([0, 1]), np.array([np.nan, 1], np.float32)],
         [np.array([np.nan, np.nan, 3], np.float32)], axis=0, reduction="max")
    case("scatter_elements", "i32_index", [x[::2].copy(), np.array([1], np.int32), np.array([9], np.float32)],
         [np.array([1, 9], np.float32)], axis=0)

    for i, (shape, indices_shape, batch) in enumerate([
            ((3, 4), (2, 2), 0), ((3, 4), (2, 1), 0), ((2, 3, 4), (2, 2, 2), 1), ((2, 3, 4), (2, 1), 1),
            ((2, 3), (4, 0), 0), ((5,), (3, 1), 0), ((2, 3, 4), (2, 3, 5, 1), 2), ((3, 4), (0, 2), 0), ((3, 4), (2,), 0)]):
        for elem in ("f32", "i32", "f16"):
            x = some(shape, elem)
            n = indices_shape[-1]
            idx = np.zeros(indices_shape, np.int64)
            for k in range(n):
                d = shape[batch + k]
                idx[..., k] = rng.integers(-d, d, indices_shape[:-1])
            y = np.zeros(indices_shape[:-1] + shape[batch + n:], x.dtype)
            for t in np.ndindex(indices_shape[:-1]):
                y[t] = x[t[:batch] + tuple(idx[t])]
            case("gather_nd", f"{i}_{elem}", [x, idx], [y], batch_dims=batch)
    faulty("gather_nd", "batch", [np.zeros((2, 3)), np.zeros((3, 1), np.int64)], [((3,), np.float64)], batch_dims=1)

    for i, (shape, tuples, n) in enumerate([((5,), (3,), 1), ((4, 3), (2,), 1), ((4, 3), (2, 2), 2), ((2, 3, 4), (2,), 2),
                                            ((4, 3), (0,), 1), ((4, 3), (), 0)]):
        for elem in ("f32", "i64", "u8"):
            for reduction in ("none", "add", "mul", "max", "min"):
                x = some(shape, elem)
                count = int(np.prod(tuples))
                cells = int(np.prod(shape[:n]))
                flat = rng.choice(cells, count, replace=reduction != "none") if count else np.zeros(0, int)
                idx = np.zeros((count, n), np.int64)
                if n:
                    idx = np.stack(np.unravel_index(flat, shape[:n]), -1).astype(np.int64).reshape(count, n)
                signed = idx - np.where(rng.random(idx.shape) < 0.3, np.array(shape[:n], np.int64), 0)
                idx, signed = idx.reshape(tuples + (n,)), signed.reshape(tuples + (n,))
                updates = some(tuples + shape[n:], elem)
                y = x.copy()
                for t in np.ndindex(tuples):
                    at = tuple(idx[t])
                    u, old = updates[t], y[at]
                    y[at] = {"none": lambda: u, "add": lambda: old + u, "mul": lambda: old * u,
                             "max": lambda: np.maximum(old, u), "min": lambda: np.minimum(old, u)}[reduction]()
                case("scatter_nd", f"{i}_{elem}_{reduction}", [x, signed, updates], [y], reduction=reduction)
    case("scatter_nd", "last_wins", [np.zeros(2, np.float32), np.array([[1], [1]]), np.array([5, 6], np.float32)],
         [np.array([0, 6], np.float32)])
    faulty("scatter_nd", "updates", [np.zeros((4, 3)), np.zeros((2, 1), np.int64), np.zeros((2, 2))], [((4, 3), np.float64)])


def make_cases():
    for i, (elem, start, limit, delta) in enumerate([
            ("i64", 0, 5, 1), ("i64", 5, 0, -2), ("i32", 3, 3, 1), ("i64", 0, -3, 1), ("i16", 2, 11, 4), ("f32", 0, 1, 0.25),
            ("f32", 1, 0, -0.3), ("f64", 0.5, 3.1, 0.7), ("f32", 0, 1, 0.1), ("u8", 250, 255, 2), ("f16", 0, 3, 1)]):
        t = ELEMS[elem]
        s, l, d = (np.array(v, t) for v in (start, limit, delta))
        n = max(0, math.ceil((float(l) - float(s)) / float(d)))
        if elem in FLOATS:
            y = round_to(float(s) + np.arange(n) * float(d), elem)
        else:
            y = np.arange(start, limit, delta).astype(t)
        case("range", str(i), [s, l, d], [y])
    case("range", "one_element", [np.array([1]), np.array([4]), np.array([1])], [np.arange(1, 4)])
    low, high = -(2**63), 2**63 - 1
    case("range", "wide", [np.array(low), np.array(high), np.array(2**62)],
         [np.array([low, low + 2**62, 0, 2**62])])
    case("range", "lowest_step", [np.array(high), np.array(low), np.array(low)], [np.array([high, -1])])
    case("range", "u64", [ints([2**63 + 1], "u64"), ints([2**63 + 4], "u64"), ints([2], "u64")],
         [ints([2**63 + 1, 2**63 + 3], "u64")])
    case("range", "u64_falls", [ints([2**63], "u64"), ints([1], "u64"), ints([-1], "u64")], [ints([], "u64")])
    for name, v in [("zero", (0, 5, 0)), ("too_many", (low, high, 1))]:
        faulty("range", name, [np.array(a) for a in v], [((0,), np.int64)])
    for name, v in [("f_zero", (0, 5, 0)), ("nan", (0, np.nan, 1)), ("inf", (0, np.inf, 1))]:
        faulty("range", name, [np.array(a, np.float32) for a in v], [((0,), np.float32)])

    for elem in ELEMS:
        v = some((1,), elem)
        case("fill", elem, [np.array([2, 3]), v], [np.full((2, 3), v[0])])
        case("empty", elem, [np.array([2, 3])], [np.zeros((2, 3), ELEMS[elem])], elem=elem)
    case("fill", "scalar", [np.zeros(0, np.int64), np.float32(4)], [np.float32(4)])
    case("fill", "nothing", [np.array([2, 0], np.int32), np.float32(4)], [np.zeros((2, 0), np.float32)])
    faulty("fill", "negative", [np.array([-1]), np.float32(4)], [((1,), np.float32)])
    faulty("fill", "two", [np.array([1]), np.zeros(2, np.float32)], [((1,), np.float32)])

    for i, (shape, depth, axis) in enumerate([((3,), 4, -1), ((2, 3), 4, 1), ((2, 2), 3, 0), ((), 3, 0), ((3,), 0, -1),
                                              ((2, 3), 2, -2), ((0,), 3, -1)]):
        for elem in ("f32", "i64", "bool"):
            idx = integers(-depth - 1, depth + 2, shape)
            values = np.array([0, 1]).astype(ELEMS[elem]) if elem == "bool" else some((2,), elem)
            at = axis if axis >= 0 else axis + len(shape) + 1
            y = np.full(shape[:at] + (depth,) + shape[at:], values[0])
            for t in np.ndindex(shape):
                k = int(idx[t])
                if -depth <= k < depth:
                    y[t[:at] + (k % depth,) + t[at:]] = values[1]
            case("onehot", f"{i}_{elem}", [idx, np.array(depth) if i % 2 else np.array([depth]), values], [y], axis=axis)
    y = onnx_run("OneHot", [np.array([1, 9, 2, 4]), np.array(10), np.array([1.5, 3], np.float32)], axis=1)[0]
    case("onehot", "onnx", [np.array([1, 9, 2, 4]), np.array([10]), np.array([1.5, 3], np.float32)], [y], axis=1)
    case("onehot", "float_index", [np.array([1.0, -1.0], np.float32), np.array(3.0, np.float32),
                                   np.array([0, 1], np.float32)],
         [np.array([[0, 1, 0], [0, 0, 1]], np.float32)])
    faulty("onehot", "depth", [np.array([1]), np.array(-1), np.array([0, 1], np.float32)], [((1, 1), np.float32)])
    faulty("onehot", "values", [np.array([1]), np.array(2), np.array([0, 1, 2], np.float32)], [((1, 2), np.float32)])

    for i, shape in enumerate([(5,), (3, 4), (2, 3, 2), (0, 3), (2, 1, 2, 3)]):
        for elem in ("f32", "i32", "bool", "bf16"):
            x = some(shape, elem) if elem != "bool" else rng.random(shape) < 0.5
            case("nonzero", f"{i}_{elem}", [x], [np.array(np.nonzero(x), np.int64)])
    case("nonzero", "nan", [np.array([0, np.nan, -0.0, 1], np.float32)], [np.array([[1, 3]])])

    for i, (shape, k) in enumerate([((3, 4), None), ((4, 3), 1), ((4, 3), -1), ((2, 3, 3), 0), ((3, 3), 5), ((3, 3), -5),
                                    ((0, 3), 1), ((3, 3), 2**63 - 1), ((3, 3), -(2**63))]):
        for upper in (True, False):
            for elem in ("f32", "i64", "f16"):
                x = some(shape, elem)
                diagonal = 0 if k is None else max(-100, min(100, k))
                y = (np.triu if upper else np.tril)(x, diagonal)
                case("trilu", f"{i}_{elem}_{upper:d}", [x] if k is None else [x, np.array(k)], [y], upper=upper)
    faulty("trilu", "k", [np.zeros((2, 2)), np.array([1, 2])], [((2, 2), np.float64)])


# ---- products ----------------------------------------------------------------------------------


def product_tolerance(a, b, elem, k):
    """Double sums in another order, then one rounding."""
    size = float(np.max(np.abs(wide(a)), initial=0) * np.max(np.abs(wide(b)), initial=0)) * max(k, 1)
    return (1 if elem != "f64" else 4, size * 2.0**-50)


def matmul_cases():
    shapes = [((3, 4), (4, 5)), ((4,), (4,)), ((4,), (4, 2)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)),
              ((2, 1, 3, 4), (5, 4, 2)), ((0, 4), (4, 2)), ((3, 0), (0, 2)), ((2, 3, 0), (0, 4)), ((1, 17), (17, 1)),
              ((3, 4, 1, 2), (2, 3)), ((2,), (3, 2, 4)), ((0, 2, 3), (1, 3, 2)), ((3, 19), (19, 9))]
    for i, (s, t) in enumerate(shapes):
        for elem in ("f32", "f64", "f16", "bf16", "i32", "u8", "i64"):
            if i > 6 and elem in ("f16", "f64", "u8"):
                continue
            a, b = (normal(s, elem), normal(t, elem)) if elem in FLOATS else (some(s, elem), some(t, elem))
            if elem in FLOATS:
                y = round_to(np.matmul(wide(a), wide(b)), elem)
                tol = product_tolerance(a, b, elem, s[-1])
            else:
                y = np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64))).astype(ELEMS[elem])
                tol = None
            case("matmul", f"{i}_{elem}", [a, b], [y], tol=tol)
            if elem in ("f32", "i32") and len(s) > 1 and len(t) > 1:
                ta, tb = np.swapaxes(a, -1, -2).copy(), np.swapaxes(b, -1, -2).copy()
                case("matmul", f"{i}_{elem}_ta", [ta, b], [y], tol=tol, trans_a=True)
                case("matmul", f"{i}_{elem}_tb", [a, tb], [y], tol=tol, trans_b=True)
                case("matmul", f"{i}_{elem}_tab", [ta, tb], [y], tol=tol, trans_a=True, trans_b=True)
    case("matmul", "wraps", [ints([[100, 100]], "i8", None).reshape(1, 2) if False else np.array([[100, 100]], np.int8),
                             np.array([[2], [1]], np.int8)], [np.array([[44]], np.int8)])
    faulty("matmul", "inner", [np.zeros((2, 3)), np.zeros((4, 2))], [((2, 2), np.float64)])
    faulty("matmul", "batch", [np.zeros((2, 2, 3)), np.zeros((3, 3, 2))], [((3, 2, 2), np.float64)])


def linear_cases():
    for i, (lead, n, k) in enumerate([((3,), 4, 5), ((), 3, 7), ((2, 2), 5, 16), ((0,), 3, 2), ((2,), 3, 0), ((1,), 1, 33)]):
        for x_elem, w_elem in (("f32", "f32"), ("f32", "bf16"), ("bf16", "bf16"), ("f16", "f32"), ("f64", "f64")):
            x, w, bias = normal(lead + (k,), x_elem), normal((n, k), w_elem), normal((n,), "f32")
            y = np.matmul(wide(x), wide(w).T)
            tol = product_tolerance(x, w, x_elem, k)
            tag = f"{i}_{x_elem}_{w_elem}"
            case("linear", tag, [x, w], [round_to(y, x_elem)], tol=tol)
            case("linear", tag + "_bias", [x, w, bias], [round_to(y + wide(bias), x_elem)], tol=tol)
            y = np.matmul(wide(round_to(wide(x), "bf16")), wide(round_to(wide(w), "bf16")).T)
            case("linear", tag + "_bf16", [x, w, bias], [round_to(y + wide(bias), x_elem)], tol=tol, compute="bf16")
    half = np.float32(1 + 2.0**-8)  # a half of bf16: to even, 1
    case("linear", "bf16_half", [np.array([[half]]), np.array([[half]])], [np.array([[1]], np.float32)], tol=(0, 0),
         compute="bf16")
    faulty("linear", "inner", [np.zeros((2, 3), np.float32), np.zeros((4, 2), np.float32)], [((2, 4), np.float32)])
    faulty("linear", "bias", [np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros(3, np.float32)],
           [((2, 4), np.float32)])

    for i, (counts, n, k) in enumerate([((2, 0, 3), 4, 5), ((1,), 2, 3), ((0, 0), 2, 3), ((4, 1, 0, 2), 3, 9)]):
        rows, offsets = sum(counts), np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        owner = np.repeat(np.arange(len(counts)), counts)
        for x_elem, w_elem in (("f32", "f32"), ("f32", "bf16"), ("f16", "f16")):
            for compute in ("f32", "bf16"):
                x, w, bias = normal((rows, k), x_elem), normal((len(counts), n, k), w_elem), normal((len(counts), n))
                rounded = (lambda v: wide(round_to(wide(v), "bf16"))) if compute == "bf16" else wide
                y = np.einsum("rk,rnk->rn", rounded(x), rounded(w)[owner])
                tag = f"{i}_{x_elem}_{w_elem}_{compute}"
                tol = product_tolerance(x, w, x_elem, k)
                case("grouped_linear", tag, [x, w, offsets], [round_to(y, x_elem)], tol=tol, compute=compute)
                case("grouped_linear", tag + "_bias", [x, w, offsets, bias], [round_to(y + wide(bias)[owner], x_elem)],
                     tol=tol, compute=compute)
    x, w = np.zeros((3, 2), np.float32), np.zeros((2, 4, 2), np.float32)
    for name, offsets in [("falls", (0, 4, 3)), ("negative", (0, -1, 3)), ("starts", (1, 2, 3)),
                          ("over", (0, 1, 4)), ("length", (0, 3))]:
        faulty("grouped_linear", name, [x, w, np.array(offsets, np.int32)], [((3, 4), np.float32)])
    x, w = np.arange(1, 7, dtype=np.float32).reshape(3, 2), np.arange(1, 17, dtype=np.float32).reshape(2, 4, 2)
    y = np.stack([w[0] @ x[0], w[1] @ x[1], np.zeros(4, np.float32)])  # the last row is nobody's
    case("grouped_linear", "short", [x, w, np.array((0, 1, 2), np.int32)], [y], tol=(0, 0))


def conv_cases():
    table = [((1, 1, 7), (1, 1, 3), {}), ((2, 3, 8), (4, 3, 3), {"pads": [1, 1]}), ((1, 4, 9), (4, 2, 3), {"group": 2, "strides": [2]}),
             ((1, 2, 9), (2, 1, 3), {"group": 2, "dilations": [2], "pads": [2, 1]}), ((1, 1, 5, 5), (1, 1, 3, 3), {"pads": [1, 1, 1, 1]}),
             ((2, 2, 5, 6), (3, 2, 2, 3), {"strides": [2, 1]}), ((1, 4, 6, 5), (8, 1, 3, 2), {"group": 4, "dilations": [1, 2], "pads": [0, 1, 2, 3]}),
             ((1, 2, 4, 4, 3), (3, 2, 2, 2, 2), {"pads": [1, 0, 0, 0, 1, 1], "strides": [1, 2, 1]}), ((0, 1, 4), (2, 1, 2), {}),
             ((1, 6, 5), (6, 1, 4), {"group": 6, "pads": [3, 0]})]
    for i, (s, t, attrs) in enumerate(table):
        for elem in ("f32", "f64", "f16", "bf16"):
            x, w, bias = normal(s, elem), normal(t, elem), normal(t[:1], elem)
            n = len(s) - 2
            strides = attrs.get("strides", [1] * n)
            dilations = attrs.get("dilations", [1] * n)
            pads = attrs.get("pads", [0] * (2 * n))
            group = attrs.get("group", 1)
            y = conv_reference(wide(x), wide(w), strides, dilations, pads, group)
            tol = product_tolerance(x, w, elem, int(np.prod(t[1:])))
            case("conv", f"{i}_{elem}", [x, w], [round_to(y, elem)], tol=tol, **attrs)
            y = y + wide(bias).reshape((1, -1) + (1,) * n)
            case("conv", f"{i}_{elem}_bias", [x, w, bias], [round_to(y, elem)], tol=tol, **attrs)
            if elem == "f32" and x.size and n < 3:
                other = onnx_run("Conv", [x, w, bias], strides=strides, dilations=dilations, pads=pads, group=group)[0]
                assert np.allclose(other, y, atol=1e-4), i
    x, w = np.zeros((1, 4, 5), np.float32), np.zeros((2, 4, 3), np.float32)
    faulty("conv", "kernel", [x, np.zeros((2, 4, 6), np.float32)], [((1, 2, 1), np.float32)])
    faulty("conv", "channels", [x, np.zeros((2, 3, 3), np.float32)], [((1, 2, 3), np.float32)])
    faulty("conv", "extent", [x, w], [((1, 2, 4), np.float32)])
    faulty("conv", "bias", [x, w, np.zeros(3, np.float32)], [((1, 2, 3), np.float32)])


def conv_reference(x, w, strides, dilations, pads, group):
    n = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[d], pads[n + d]) for d in range(n)])
    extents = [(x.shape[2 + d] - dilations[d] * (w.shape[2 + d] - 1) - 1) // strides[d] + 1 for d in range(n)]
    y = np.zeros((x.shape[0], w.shape[0]) + tuple(extents))
    per = w.shape[0] // group
    for o in range(w.shape[0]):
        first = o // per * w.shape[1]
        for p in np.ndindex(*extents):
            window = tuple(slice(p[d] * strides[d], p[d] * strides[d] + dilations[d] * (w.shape[2 + d] - 1) + 1, dilations[d])
                           for d in range(n))
            part = x[(slice(None), slice(first, first + w.shape[1])) + window]
            y[(slice(None), o) + p] = np.sum(part * w[o], axis=tuple(range(1, part.ndim)))
    return y


# ---- language models ---------------------------------------------------------------------------


def table_of(past, inv_freq, tokens, scale=1.0):
    position = past[:, None] + np.arange(tokens)
    angle = (position.astype(np.float32)[:, :, None] * inv_freq).astype(np.float32)
    return np.concatenate([np.cos(wide(angle)), np.sin(wide(angle))], -1) * scale


def rope_cases():
    inv = (1 / 10000 ** (np.arange(4) / 4)).astype(np.float32)
    for i, (past, tokens, scale) in enumerate([((0,), 3, 1.0), ((5, 0), 2, 1.0), ((123456,), 4, 0.75), ((16777217, 3), 1, 1.0), ((2,), 0, 1.0)]):
        past = np.array(past)
        y = table_of(past, inv, tokens, scale).astype(np.float32)
        like = np.zeros((len(past), tokens, 5), np.float32)
        case("rope_table", str(i), [past, inv, like], [y], scale=scale)
        if tokens == 1:
            case("rope_table", f"{i}_alone", [past, inv], [y], scale=scale)
    faulty("rope_table", "past", [np.array([-1]), inv, np.zeros((1, 2, 1), np.float32)], [((1, 2, 8), np.float32)])
    faulty("rope_table", "past_far", [np.array([2**63 - 1]), inv, np.zeros((1, 2, 1), np.float32)], [((1, 2, 8), np.float32)])

    for i, (batch, tokens, heads, size, half) in enumerate([(1, 3, 2, 8, 4), (2, 2, 1, 8, 2), (1, 1, 3, 4, 1), (1, 0, 2, 4, 2), (2, 1, 1, 6, 0)]):
        for elem in ("f32", "bf16", "f64"):
            x = normal((batch, tokens, heads * size), elem)
            table = table_of(np.arange(batch) * 7, inv[:half], tokens).astype(np.float32)
            c, s = wide(table)[..., None, :half], wide(table)[..., None, half:]
            w = wide(x).reshape(batch, tokens, heads, size)
            # halves as Hugging Face's rotate_half, pairs as (2i, 2i + 1)
            rot = w[..., :2 * half]
            turned = np.concatenate([-rot[..., half:], rot[..., :half]], -1)
            y = np.concatenate([rot * np.concatenate([c, c], -1) + turned * np.concatenate([s, s], -1), w[..., 2 * half:]], -1)
            tol = (8, 1e-15) if elem == "f64" else (1, 1e-15)
            case("rope", f"{i}_{elem}", [x, table], [round_to(y.reshape(x.shape), elem)], tol=tol, head_dim=size)
            pairs = (rot[..., 0::2] + 1j * rot[..., 1::2]) * (c + 1j * s)
            y = w.copy()
            y[..., 0:2 * half:2], y[..., 1:2 * half:2] = pairs.real, pairs.imag
            case("rope", f"{i}_{elem}_pairs", [x, table], [round_to(y.reshape(x.shape), elem)], tol=tol, head_dim=size,
                 interleaved=True)
            shifted = np.concatenate([w[..., 2 * half:], w[..., :2 * half]], -1)
            y = np.concatenate([y[..., 2 * half:], y[..., :2 * half]], -1)
            case("rope", f"{i}_{elem}_behind", [round_to(shifted.reshape(x.shape), elem), table], [round_to(y.reshape(x.shape), elem)], tol=tol,
                 head_dim=size, interleaved=True, offset=size - 2 * half)
    faulty("rope", "table", [np.zeros((1, 2, 8), np.float32), np.zeros((1, 2, 6), np.float32)], [((1, 2, 8), np.float32)],
           head_dim=4)
    faulty("rope", "width", [np.zeros((1, 2, 6), np.float32), np.zeros((1, 2, 2), np.float32)], [((1, 2, 6), np.float32)],
           head_dim=4)


def key_layout(cache):
    """[B, KV, C, hd] as a key cache stores it, [B, KV, C/16, hd, 16]."""
    b, g, c, d = cache.shape
    return np.ascontiguousarray(cache.reshape(b, g, c // 16, 16, d).swapaxes(-1, -2))


def cache_cases():
    for i, (batch, heads, capacity, size, tokens, past) in enumerate([
            (1, 2, 16, 3, 2, (0,)), (2, 1, 32, 2, 3, (14, 29)), (1, 2, 16, 2, 16, (0,)), (1, 1, 48, 2, 17, (15,)), (1, 1, 16, 2, 0, (16,))]):
        keys, values = normal((batch, heads, capacity, size)), normal((batch, heads, capacity, size))
        new = normal((batch, tokens, heads * size))
        past = np.array(past)
        after_k, after_v = keys.copy(), values.copy()
        for b in range(batch):
            rows = new[b].reshape(tokens, heads, size).swapaxes(0, 1)
            after_k[b, :, past[b]:past[b] + tokens] = rows
            after_v[b, :, past[b]:past[b] + tokens] = rows
        case("cache_key", str(i), [key_layout(keys), new, past], [key_layout(after_k)])
        case("cache_value", str(i), [values, new, past], [after_v])
    key, value, new = np.zeros((1, 1, 1, 2, 16), np.float32), np.zeros((1, 1, 16, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    for name, past in [("full", 15), ("negative", -1), ("far", 2**63 - 1)]:
        faulty("cache_key", name, [key, new, np.array([past])], [(key.shape, np.float32)])
        faulty("cache_value", name, [value, new, np.array([past])], [(value.shape, np.float32)])


def attention_cases():
    table = [(1, 1, 1, 4, 16, 3, (0,), {}), (1, 4, 2, 4, 32, 2, (17,), {}), (2, 2, 1, 2, 16, 1, (0, 9), {}), (1, 2, 2, 4, 16, 5, (4,), {"window": 3}),
             (1, 2, 1, 4, 16, 3, (2,), {"softcap": 1.5}), (1, 2, 1, 3, 32, 4, (20,), {"window": 100, "softcap": 30.0}), (1, 1, 1, 130, 16, 2, (1,), {}),
             (1, 2, 2, 2, 16, 4, (0,), {"window": 1}), (1, 1, 1, 2, 16, 0, (0,), {})]
    # values of another size, sinks, chunks
    more = [(1, 2, 1, 4, 16, 4, (6,), {"chunk": 4}, 4, False), (1, 2, 2, 4, 16, 3, (2,), {}, 6, False), (2, 4, 2, 3, 16, 3, (0, 5), {}, 3, True),
            (1, 2, 1, 6, 32, 5, (15,), {"chunk": 8, "window": 3, "softcap": 5.0}, 2, True)]
    for i, (batch, heads, kv_heads, size, capacity, tokens, past, attrs, value_size, has_sinks) in enumerate(
            [row + (row[3], False) for row in table] + more):
        q = normal((batch, tokens, heads * size), scale=2)
        keys, values = normal((batch, kv_heads, capacity, size)), normal((batch, kv_heads, capacity, value_size))
        sinks = [normal((heads,))] if has_sinks else []
        past = np.array(past)
        scale = 1 / math.sqrt(size)
        y = np.zeros((batch, tokens, heads, value_size))
        for b in range(batch):
            for h_ in range(heads):
                k, v = wide(keys[b, h_ * kv_heads // heads]), wide(values[b, h_ * kv_heads // heads])
                s = wide(q[b].reshape(tokens, heads, size)[:, h_]) @ k.T * scale
                if attrs.get("softcap"):
                    s = attrs["softcap"] * np.tanh(s / attrs["softcap"])
                position, j = past[b] + np.arange(tokens)[:, None], np.arange(capacity)
                seen = j <= position
                if attrs.get("window"):
                    seen &= position - j < attrs["window"]
                if attrs.get("chunk"):
                    seen &= position // attrs["chunk"] == j // attrs["chunk"]
                s = np.where(seen, s, -np.inf)
                if has_sinks:
                    s = np.concatenate([s, np.full((tokens, 1), wide(sinks[0])[h_])], -1)
                p = np.exp(s - s.max(-1, keepdims=True))
                y[b, :, h_] = (p / p.sum(-1, keepdims=True))[:, :capacity] @ v
        # what lies beyond the past must not matter
        dirty_k, dirty_v = keys.copy(), values.copy()
        for b in range(batch):
            dirty_k[b, :, past[b] + tokens:] = np.nan
            dirty_v[b, :, past[b] + tokens:] = np.nan
        case("attention", str(i), [q, key_layout(dirty_k), dirty_v, past] + sinks, [y.reshape(batch, tokens, heads * value_size).astype(np.float32)],
             tol=(1, 1e-12), heads=heads, kv_heads=kv_heads, scale=scale, **attrs)
    q, key, value = np.zeros((1, 2, 4), np.float32), np.zeros((1, 1, 1, 2, 16), np.float32), np.zeros((1, 1, 16, 2), np.float32)
    for name, past in [("full", 15), ("negative", -1), ("far", 2**63 - 1)]:
        faulty("attention", name, [q, key, value, np.array([past])], [(q.shape, np.float32)], heads=2, kv_heads=1, scale=1.0)
    faulty("attention", "heads", [q, key, value, np.array([0])], [(q.shape, np.float32)], heads=3, kv_heads=1, scale=1.0)

    for i, shape in enumerate([(2, 3, 4), (1, 1, 2), (0, 2, 3)]):
        for elem in ("f32", "bf16", "i64"):
            x = some(shape, elem)
            case("last_rows", f"{i}_{elem}", [x], [x[:, -1:]])
    faulty("last_rows", "none", [np.zeros((1, 0, 2), np.float32)], [((1, 1, 2), np.float32)])


# ---- experts -----------------------------------------------------------------------------------


def route_reference(scores, bias, top_k, act="softmax", weigh="renorm", eps=0.0, scale=1.0, groups=1, keep_groups=1,
                    group_score="max"):
    x = wide(scores)
    m, e = x.shape
    if act == "softmax":
        s = np.exp(x - x.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
    else:
        s = {"sigmoid": lambda: 1 / (1 + np.exp(-x)), "sqrtsoftplus": lambda: np.sqrt(np.logaddexp(0, x)), "none": lambda: x}[act]()
    chosen_by = s + (wide(bias) if bias is not None else 0)
    if groups > 1:
        g = chosen_by.reshape(m, groups, e // groups)
        if group_score == "max" or e // groups == 1:
            score = g.max(-1)
        else:
            score = np.sort(g, -1)[..., -2:].sum(-1)
        order = np.argsort(-score, axis=-1, kind="stable")[:, :keep_groups]
        kept = np.zeros((m, groups), bool)
        np.put_along_axis(kept, order, True, -1)
        chosen_by = np.where(np.repeat(kept, e // groups, -1), chosen_by, -np.inf)
    expert = np.argsort(-chosen_by, axis=-1, kind="stable")[:, :top_k]
    w = np.take_along_axis(s, expert, -1)
    if weigh == "renorm":
        w = w / (w.sum(-1, keepdims=True) + eps)
    elif weigh == "softmax":
        w = np.exp(w - w.max(-1, keepdims=True))
        w /= w.sum(-1, keepdims=True)
    return expert.astype(np.int32), (w * scale).astype(np.float32)


def weigh_choices(w, weigh):
    if weigh == "softmax":
        w = np.exp(w - w.max(-1, keepdims=True))
    return (w if weigh == "as_is" else w / w.sum(-1, keepdims=True)).astype(np.float32)


def weighed_reference(scores, by, top_k, weigh):
    expert, _ = route_reference(scores, None, top_k)
    return expert, weigh_choices(np.take_along_axis(wide(by), expert.astype(np.int64), -1), weigh)


def sparse_mixer_reference(scores, top_k, weigh, jitter):
    """As its authors write it: masked, then the softmax of what is left, gathered."""
    x = wide(scores)
    left, experts, weights = x.copy(), [], []
    for _ in range(top_k):
        expert = left.argmax(-1, keepdims=True)
        top = np.take_along_axis(left, expert, -1)
        far = (top - x) / np.maximum(np.abs(x), top) > 2 * jitter
        masked = np.where(far, -np.inf, left)
        soft = np.exp(masked - masked.max(-1, keepdims=True))
        soft /= soft.sum(-1, keepdims=True)
        weights.append(np.take_along_axis(soft, expert, -1))
        experts.append(expert)
        np.put_along_axis(left, expert, -np.inf, -1)
    return np.concatenate(experts, -1).astype(np.int32), weigh_choices(np.concatenate(weights, -1), weigh)


def route_cases():
    i = 0
    for act in ("softmax", "sigmoid", "sqrtsoftplus", "none"):
        for weigh in ("as_is", "softmax", "renorm"):
            for elem in ("f32", "bf16"):
                for has_bias in (False, True):
                    x = normal((4, 8), elem, 2)
                    bias = normal((8,)) if has_bias else None
                    args = dict(act=act, weigh=weigh)
                    if i % 3 == 1:
                        args.update(eps=1e-9 if act != "none" else 0.25, scale=2.5)
                    y = route_reference(x, bias, 3, **args)
                    case("route", f"{act}_{weigh}_{elem}_{has_bias:d}", [x] + ([bias] if has_bias else []), y, tol=(1, 1e-12), top_k=3, **args)
                    i += 1
    for g, (experts, groups, keep, top_k) in enumerate([(8, 4, 2, 3), (8, 2, 1, 4), (6, 3, 3, 2), (16, 8, 4, 6), (4, 4, 2, 2), (8, 1, 1, 8)]):
        for group_score in ("max", "top2"):
            for act in ("softmax", "sigmoid"):
                x, bias = normal((3, experts), scale=1.5), normal((experts,), scale=0.1)
                args = dict(act=act, groups=groups, keep_groups=keep, group_score=group_score)
                case("route", f"groups{g}_{group_score}_{act}", [x, bias], route_reference(x, bias, top_k, **args), tol=(1, 1e-12),
                     top_k=top_k, **args)
    for weigh in ("as_is", "softmax", "renorm"):
        x, by = normal((4, 8), scale=2), np.abs(normal((4, 8)))
        case("route", f"weighed_{weigh}", [x, None, by], weighed_reference(x, by, 3, weigh), tol=(1, 1e-12), top_k=3, weigh=weigh)
        for jitter in (0.01, 0.2):
            args = dict(weigh=weigh, select="sparsemixer", jitter=jitter)
            if weigh != "softmax":
                case("route", f"sparsemixer_{weigh}_{jitter}", [x], sparse_mixer_reference(x, 2, weigh, jitter), tol=(1, 1e-12), top_k=2, **args)
    ties = np.array([[1, 2, 2, 1, 2, 0], [0] * 6], np.float32)
    case("route", "ties", [ties], route_reference(ties, None, 4), tol=(1, 0), top_k=4)
    case("route", "group_ties", [ties], route_reference(ties, None, 2, groups=3, keep_groups=1, group_score="max"), tol=(1, 0),
         top_k=2, groups=3, keep_groups=1)
    case("route", "no_rows", [np.zeros((0, 4), np.float32)], [np.zeros((0, 2), np.int32), np.zeros((0, 2), np.float32)], top_k=2)
    # NaN is the largest, so that k different experts are chosen whatever the scores are
    nan = np.array([[0, np.nan, 1, np.nan]], np.float32)
    case("route", "nan", [nan], [np.array([[1, 3, 2]], np.int32), np.array([[np.nan, np.nan, 1]], np.float32)], top_k=3, act="none",
         weigh="as_is")
    case("route", "all_nan", [nan], [np.array([[0, 1]], np.int32), np.full((1, 2), np.nan, np.float32)], top_k=2)
    outs = [((1, 5), np.int32), ((1, 5), np.float32)]
    faulty("route", "top_k", [np.zeros((1, 4), np.float32)], outs, top_k=5)
    faulty("route", "kept", [np.zeros((1, 8), np.float32)], outs, top_k=5, groups=2, keep_groups=1)
    for least in (0.125, 0.875):
        x = normal((4, 8))
        expert, weight = route_reference(x, None, 3, weigh="as_is")
        total = np.maximum(wide(weight).sum(-1, keepdims=True), least)
        case("route", f"least_{least}", [x], [expert, (wide(weight) / total).astype(np.float32)], tol=(2, 1e-12), top_k=3, least=least)


def expert_cases():
    for i, (tokens, k, experts) in enumerate([(4, 2, 3), (1, 1, 1), (0, 2, 4), (6, 3, 8), (5, 1, 2)]):
        expert = integers(0, experts, (tokens, k), "i32")
        flat = expert.reshape(-1)
        order = np.argsort(flat, kind="stable")
        slot = np.empty_like(flat)
        slot[order] = np.arange(flat.size)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=experts))]).astype(np.int32)
        token = (order // k).astype(np.int32)
        case("expert_order", str(i), [expert], [token, offsets, slot.reshape(tokens, k).astype(np.int32)], experts=experts)
        for elem in ("f32", "bf16"):
            x = normal((tokens, 3), elem)
            case("gather_rows", f"{i}_{elem}", [x, token], [x[token]])
            for e in range(experts):
                case("expert_rows", f"{i}_{elem}_{e}", [x, token, offsets], [x[token[offsets[e]:offsets[e + 1]]]], expert=e)
            y, weight = normal((tokens * k, 4), elem), normal((tokens, k))
            at = slot.reshape(tokens, k)
            r = np.einsum("mk,mkd->md", wide(weight), wide(y)[at]) if tokens else np.zeros((0, 4))
            case("combine", f"{i}_{elem}", [y, at.astype(np.int32), weight], [round_to(r, elem)], tol=(1, 1e-14))
    outs = [((2,), np.int32), ((4,), np.int32), ((1, 2), np.int32)]
    for name, e in [("high", 3), ("low", -1), ("far", 2**31 - 1), ("far_low", -(2**31))]:
        i32 = np.array([0, e], np.int32)
        faulty("expert_order", name, [i32.reshape(1, 2)], outs, experts=3)
        x = np.zeros((3, 2), np.float32)
        faulty("gather_rows", name, [x, i32], [((2, 2), np.float32)])
        faulty("expert_rows", name, [x, i32, np.array([0, 2], np.int32)], [((2, 2), np.float32)], expert=0)
        faulty("combine", name, [x, i32.reshape(1, 2), np.ones((1, 2), np.float32)], [((1, 2), np.float32)])
    x, token = np.zeros((3, 2), np.float32), np.zeros(2, np.int32)
    for name, offsets in [("falls", (2, 1)), ("negative", (-1, 1)), ("over", (0, 3)), ("short", (0,))]:
        faulty("expert_rows", name, [x, token, np.array(offsets, np.int32)], [((2, 2), np.float32)], expert=0)


def pack_reference(sources, panel, pair, elem):
    """As pm_layout says; sources are [.., N, K]."""
    ways = len(sources)
    share = panel // ways
    lead, (n, k) = sources[0].shape[:-2], sources[0].shape[-2:]
    panels, pairs = -(-n // share), -(-k // pair)
    y = np.zeros(lead + (panels, pairs, panel, pair))
    for e in np.ndindex(lead):
        for w, source in enumerate(sources):
            for row in range(n):
                for column in range(k):
                    y[e + (row // share, column // pair, w * share + row % share, column % pair)] = wide(source)[e + (row, column)]
    return round_to(y, elem)


def pack_cases():
    for i, (lead, n, k, panel, pair) in enumerate([((), 8, 4, 4, 1), ((), 5, 3, 4, 1), ((2,), 3, 5, 2, 2), ((3,), 16, 2, 16, 2), ((), 1, 1, 8, 2),
                                                   ((2, 2), 2, 3, 4, 1)]):
        for source, elem in (("f32", "f32"), ("bf16", "f32"), ("f32", "bf16"), ("f64", "bf16"), ("bf16", "bf16")):
            a, b = normal(lead + (n, k), source), normal(lead + (n, k), source)
            for ways in (1, 2):
                sources = [a, b][:ways]
                y = pack_reference(sources, panel, pair, elem)
                for trans in (False, True):
                    stored = [np.swapaxes(v, -1, -2).copy() if trans else v for v in sources]
                    packed_case(f"{i}_{source}_{elem}_{ways}{trans:d}", stored, lead + (n * ways, k), y, panel=panel, pair=pair, elem=elem,
                                trans=trans)


def packed_case(name, inputs, dims, packed, **attrs):
    """The result's extents are the logical ones; its bytes are more."""
    full = f"pack.{name}"
    lines = [f"case {full}", "op pack"]
    lines += [f"attr {k} {attr_text(v)}" for k, v in attrs.items()]
    lines += ["in " + tensor_text(x) for x in inputs]
    lines.append(f"out {NAMES[packed.dtype]} {dims_text(dims)} ={packed.tobytes().hex()}")
    lines.append("tol 0 0")
    current.append("\n".join(lines) + "\n")


# ---- all ---------------------------------------------------------------------------------------


# ---- recurrences -------------------------------------------------------------------------------


VARIANTS = [("f32", (4, 1e-5)), ("f64", (64, 1e-13)), ("f16", (2, 0.03))]  # states are rounded after each token


def started(state, past):
    """The state as an op sees it: zero where a sequence has no past."""
    return np.where((np.asarray(past) == 0).reshape(-1, *[1] * (state.ndim - 1)), 0, wide(state))


def causal_conv_cases():
    for elem, tol in VARIANTS:
        for i, (batch, tokens, channels, kernel, bias, past) in enumerate([
                (1, 5, 3, 4, True, None), (2, 1, 2, 3, False, (4, 0)), (1, 2, 4, 4, True, (1,)), (1, 0, 2, 3, False, (2,)), (2, 3, 1, 1, True, None)]):
            state, x = normal((batch, channels, kernel - 1), elem), normal((batch, tokens, channels), elem)
            w, c = normal((channels, 1, kernel), elem), normal((channels,), elem) if bias else None
            before = wide(state) if past is None else started(state, past)
            rows = np.concatenate([before, wide(x).swapaxes(1, 2)], 2)
            y = sum(rows[:, :, j:j + tokens] * wide(w)[:, 0, j, None] for j in range(kernel)) + (wide(c)[:, None] if bias else 0)
            case("causal_conv", f"{i}_{elem}", [state, x, w, c] + ([] if past is None else [np.array(past)]),
                 [round_to(rows[:, :, tokens:], elem), round_to(y.swapaxes(1, 2), elem)], tol=tol)
    faulty("causal_conv", "kernel", [np.zeros((1, 2, 3), np.float32), np.zeros((1, 1, 2), np.float32), np.zeros((2, 1, 3), np.float32)],
           [((1, 2, 3), np.float32), ((1, 1, 2), np.float32)])


def linear_attention_cases():
    # batch, tokens, heads of q, k and the state, sizes of keys and values, decay, beta, past, delta
    table = [(1, 3, 2, 2, 2, 3, 4, None, None, None, False), (2, 4, 1, 1, 2, 2, 3, "head", "head", (3, 0), True),
             (1, 2, 4, 2, 2, 3, 2, "key", "one", (0,), True), (1, 5, 1, 1, 4, 4, 2, "head", "head", None, False),
             (2, 1, 2, 2, 2, 2, 2, "constant", None, (1, 0), False), (1, 3, 3, 1, 1, 2, 5, None, "head", (7,), True),
             (1, 0, 1, 1, 1, 2, 2, "head", None, (7,), False)]
    for elem, tol in VARIANTS:
        for i, (batch, tokens, hq, hk, heads, dk, dv, decay, beta, past, delta) in enumerate(table):
            state = normal((batch, heads, dk, dv), elem)
            q, k, v = normal((batch, tokens, hq * dk), elem), normal((batch, tokens, hk * dk), elem), normal((batch, tokens, heads * dv), elem)
            g = {None: None, "head": normal((batch, tokens, heads), elem), "key": normal((batch, tokens, heads * dk), elem), "constant": normal((heads,), elem)}[decay]
            u = {None: None, "head": normal((batch, tokens, heads), elem), "one": normal((batch, tokens, 1), elem)}[beta]
            s = wide(state) if past is None else started(state, past)
            out = max(hq, heads)
            y = np.zeros((batch, tokens, out, dv))
            for t in range(tokens):
                if decay:
                    factor = np.exp(wide(g) if decay == "constant" else wide(g)[:, t])
                    s = s * factor.reshape((1 if decay == "constant" else batch, heads, -1, 1))
                key = np.repeat(wide(k)[:, t].reshape(batch, hk, dk), heads // hk, 1)
                new = wide(v)[:, t].reshape(batch, heads, dv) - (np.einsum("bhd,bhde->bhe", key, s) if delta else 0)
                new = new * (wide(u)[:, t].reshape(batch, -1, 1) if beta else 1)
                s = s + key[..., None] * new[..., None, :]
                query = np.repeat(wide(q)[:, t].reshape(batch, hq, dk), out // hq, 1)
                y[:, t] = 0.5 * np.einsum("bhd,bhde->bhe", query, np.repeat(s, out // heads, 1))
            case("linear_attention", f"{i}_{elem}", [state, q, k, v, g, u] + ([] if past is None else [np.array(past)]),
                 [round_to(s, elem), round_to(y.reshape(batch, tokens, out * dv), elem)], tol=tol, delta=delta, scale=0.5)
    zeros = [np.zeros(shape, np.float32) for shape in [(1, 2, 2, 2), (1, 1, 6), (1, 1, 4), (1, 1, 4)]]
    faulty("linear_attention", "heads", zeros, [((1, 2, 2, 2), np.float32), ((1, 1, 6), np.float32)], delta=False, scale=1.0)


def capacity_cases():
    for i, (groups, rows, k, experts, limit, fraction) in enumerate([(1, 6, 1, 2, 2, 0.0), (2, 5, 2, 3, 2, 0.0), (1, 7, 2, 2, 0, 0.4), (2, 4, 1, 4, 0, 0.0),
                                                                    (1, 0, 2, 2, 3, 0.0), (1, 1, 3, 3, 0, 0.5)]):
        expert = rng.integers(0, experts, (groups, rows, k)).astype(np.int32)
        weight = normal((groups, rows, k))
        most, y = math.ceil(fraction * rows) if fraction else limit, weight.copy()
        for g in range(groups):
            taken = [0] * experts
            for c in range(k):
                for r in range(rows):
                    y[g, r, c] = weight[g, r, c] if taken[expert[g, r, c]] < most else 0
                    taken[expert[g, r, c]] += 1
        case("capacity", str(i), [expert, weight], [y], experts=experts, capacity=limit, fraction=fraction)
    faulty("capacity", "expert", [np.array([[[2]]], np.int32), np.zeros((1, 1, 1), np.float32)], [((1, 1, 1), np.float32)], experts=2, capacity=1,
           fraction=0.0)


def biased_attention_cases():
    """Attention with biases by distance, and such that isn't causal."""
    for i, (batch, heads, size, capacity, tokens, past, reach, causal) in enumerate([
            (1, 2, 4, 16, 3, (2,), 3, True), (2, 1, 3, 32, 4, (20, 0), 7, True), (2, 2, 2, 16, 5, (5, 16), 5, False), (1, 1, 2, 16, 1, (7,), 1, False),
            (1, 2, 4, 16, 3, (1,), 0, False)]):
        q, keys, values = normal((batch, tokens, heads * size), scale=2), normal((batch, heads, capacity, size)), normal((batch, heads, capacity, size))
        bias, past = normal((heads, reach)) if reach else None, np.array(past)
        y = np.zeros((batch, tokens, heads, size))
        for b in range(batch):
            position, j = np.arange(tokens)[:, None] + (past[b] if causal else 0), np.arange(capacity)
            for h_ in range(heads):
                s = wide(q[b].reshape(tokens, heads, size)[:, h_]) @ wide(keys[b, h_]).T * 0.5
                if reach:
                    s = s + wide(bias)[h_, np.clip(j - position + reach // 2, 0, reach - 1)]
                s = np.where(j <= position if causal else j < past[b], s, -np.inf)
                p = np.exp(s - s.max(-1, keepdims=True))
                y[b, :, h_] = p / p.sum(-1, keepdims=True) @ wide(values[b, h_])
        case("attention", f"biased_{i}", [q, key_layout(keys), values, past, None, bias], [y.reshape(q.shape).astype(np.float32)], tol=(1, 1e-12),
             heads=heads, kv_heads=heads, scale=0.5, causal=causal)


def selective_scan_cases():
    for elem, tol in VARIANTS:
        for i, (batch, tokens, channels, size, past) in enumerate([(1, 4, 3, 2, None), (2, 3, 2, 4, (5, 0)), (1, 0, 2, 2, (1,)), (1, 1, 1, 17, None)]):
            state, x = normal((batch, channels, size), elem), normal((batch, tokens, channels), elem)
            dt = np.abs(normal((batch, tokens, channels), elem))
            a, b, c = -np.abs(normal((channels, size), elem)), normal((batch, tokens, size), elem), normal((batch, tokens, size), elem)
            s = wide(state) if past is None else started(state, past)
            y = np.zeros((batch, tokens, channels))
            for t in range(tokens):
                step = wide(dt)[:, t, :, None]
                s = np.exp(step * wide(a)) * s + step * wide(x)[:, t, :, None] * wide(b)[:, t, None]
                y[:, t] = (s * wide(c)[:, t, None]).sum(-1)
            case("selective_scan", f"{i}_{elem}", [state, x, dt, a, b, c] + ([] if past is None else [np.array(past)]),
                 [round_to(s, elem), round_to(y, elem)], tol=tol)
    shapes = [(1, 2, 3), (1, 1, 2), (1, 1, 2), (2, 3), (1, 1, 3), (1, 1, 2)]
    faulty("selective_scan", "size", [np.zeros(shape, np.float32) for shape in shapes], [((1, 2, 3), np.float32), ((1, 1, 2), np.float32)])


# ---- codes of few bits -------------------------------------------------------------------------


def pack_bits(codes, bits):
    """[.., n] to bytes [.., ceil(n * bits / 8)], the first in the lowest bits."""
    per = 8 // bits
    padded = np.zeros(codes.shape[:-1] + (-(-codes.shape[-1] // per) * per,), np.uint8)
    padded[..., : codes.shape[-1]] = codes
    parts = padded.reshape(codes.shape[:-1] + (-1, per))
    return np.bitwise_or.reduce(parts << (np.arange(per, dtype=np.uint8) * bits), axis=-1).astype(np.uint8)


# sign, 4 bits of exponent (bias 7), 3 of fraction; no infinities, all ones are NaN
E4M3 = np.array([(-1 if c & 128 else 1) * (np.nan if c & 127 == 127 else (c & 7) * 2.0 ** -9 if c & 120 == 0
                                           else (1 + (c & 7) / 8) * 2.0 ** ((c >> 3 & 15) - 7)) for c in range(256)])
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def dequantize_cases():
    i = 0
    for bits in (2, 4, 8):
        for block, k, lead in ((16, 40, (3,)), (0, 21, (2, 3)), (32, 64, ()), (24, 50, (2,))):
            for zero in ("none", "packed", "f32", "f16"):
                for scale_elem in ("f32", "f16", "bf16", "e8m0")[i % 4 : i % 4 + 2]:
                    size = block or k
                    blocks = -(-k // size)
                    codes = rng.integers(0, 1 << bits, lead + (k,)).astype(np.uint8)
                    inputs = [pack_bits(codes, bits)]
                    if block and i % 2:  # whole blocks, as some formats store them
                        inputs[0] = np.concatenate([inputs[0], np.zeros(lead + (3,), np.uint8)], -1)
                    if scale_elem == "e8m0":
                        scales = rng.integers(100, 150, lead + (blocks,)).astype(np.uint8)
                        factors = 2.0 ** (scales.astype(np.float64) - 127)
                    else:
                        scales = normal(lead + (blocks,), scale_elem)
                        factors = wide(scales)
                    inputs.append(scales)
                    zeros = np.full(lead + (blocks,), 2.0 ** (bits - 1))
                    if zero == "packed":
                        z = rng.integers(0, 1 << bits, lead + (blocks,)).astype(np.uint8)
                        zeros = z.astype(np.float64)
                        inputs.append(pack_bits(z, bits))
                    elif zero != "none":
                        inputs.append(normal(lead + (blocks,), zero))
                        zeros = wide(inputs[2])
                    of = np.arange(k) // size
                    y = ((codes - zeros[..., of]) * factors[..., of]).astype(np.float32)
                    case("dequantize", f"{bits}_{i}_{zero}_{scale_elem}", inputs, [y], tol=(1, 0), k=k, bits=bits, block=block)
                    i += 1
    codes = np.arange(64).reshape(2, 32).astype(np.uint8) % 16
    scales = np.array([[0], [130]], np.uint8)
    y = (E2M1[codes] * 2.0 ** (scales.astype(np.float64) - 127)).astype(np.float32)
    case("dequantize", "e2m1", [pack_bits(codes, 4), scales], [y], tol=(0, 0), k=32, block=32, format="e2m1")
    codes = np.arange(256, dtype=np.uint8).reshape(2, 128)
    for elem, block in (("f32", 0), ("bf16", 128), ("f16", 20), ("e8m0", 32)):
        n = -(-128 // (block or 128))
        scales = np.arange(120, 120 + 2 * n, dtype=np.uint8).reshape(2, n) if elem == "e8m0" else \
            round_to((1.37 ** -np.arange(2.0 * n)).reshape(2, n), elem)
        factors = 2.0 ** (scales.astype(np.float64) - 127) if elem == "e8m0" else wide(scales)
        y = (E4M3[codes] * factors[:, np.arange(128) // (block or 128)]).astype(np.float32)
        case("dequantize", f"e4m3_{elem}", [codes, scales], [y], tol=(0, 0), k=128, bits=8, block=block, format="e4m3")
    nan = np.full((2, 32), np.nan, np.float32)
    case("dequantize", "e8m0_nan", [pack_bits(codes, 4), np.full((2, 1), 255, np.uint8)], [nan], k=32, block=32)
    outs = [((2, 32), np.float32)]
    faulty("dequantize", "short", [np.zeros((2, 15), np.uint8), np.zeros((2, 1), np.float32)], outs, k=32)
    faulty("dequantize", "scales", [np.zeros((2, 16), np.uint8), np.zeros((2, 2), np.float32)], outs, k=32)
    faulty("dequantize", "bits", [np.zeros((2, 16), np.uint8), np.zeros((2, 1), np.float32)], outs, k=32, bits=3)
    faulty("dequantize", "e4m3_bits", [np.zeros((2, 16), np.uint8), np.zeros((2, 1), np.float32)], outs, k=32, bits=4, format="e4m3")
    faulty("dequantize", "zeros", [np.zeros((2, 16), np.uint8), np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8)], outs, k=32, block=16)


# ---- attention over whole tensors ---------------------------------------------------------------


def joined(x):
    """[B, heads, T, size] as [B, T, heads * size]."""
    return np.ascontiguousarray(x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3]))


def kv_append_cases():
    for i, (batch, heads, before, size, tokens, at, total) in enumerate([
            (1, 2, 4, 3, 2, (4,), 6), (2, 1, 8, 2, 3, (1, 5), 8), (2, 2, 0, 2, 3, (0,), 3), (1, 1, 6, 2, 2, (4,), 3), (1, 2, 5, 4, 0, (5,), 5),
            (1, 1, 2, 3, 1, (4,), 7), (2, 1, None, 2, 3, (0,), 3)]):
        past = None if before is None else normal((batch, heads, before, size))
        new = normal((batch, heads, tokens, size))
        whole = max(before or 0, total)
        y = np.zeros((batch, heads, whole, size), np.float32)
        if past is not None:
            y[:, :, :before] = past
        for b in range(batch):
            first = at[b % len(at)]
            y[b, :, first:first + tokens] = new[b]
        at, total = np.array(at), np.array([total])
        case("kv_append", f"{i}_apart", [new, at, total] + ([] if past is None else [past]), [y])
        if past is not None:
            case("kv_append", f"{i}_joined", [joined(new), at, total.reshape(()), past], [y])
    past, new = np.zeros((1, 1, 4, 2), np.float32), np.zeros((1, 1, 2, 2), np.float32)
    for name, at in [("full", 3), ("negative", -1), ("far", 2**63 - 1)]:
        faulty("kv_append", name, [new, np.array([at]), np.array([4]), past], [(past.shape, np.float32)])
    faulty("kv_append", "size", [np.zeros((1, 1, 2, 3), np.float32), np.array([0]), np.array([4]), past], [(past.shape, np.float32)])


def seen_keys(tokens, keys, first, left, right):
    position, j = first + np.arange(tokens)[:, None], np.arange(keys)
    seen = np.ones((tokens, keys), bool)
    if left >= 0:
        seen &= j >= position - left
    if right >= 0:
        seen &= j <= position + right
    return seen


def sdpa_reference(q, k, v, bias, seen, scale, softcap, sinks, nothing):
    """All in float64; bias and seen broadcast to [B, heads, T, S]."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(wide(k), group, 1), np.repeat(wide(v), group, 1)
    s = wide(q) @ k.swapaxes(-1, -2) * scale
    if softcap:
        s = softcap * np.tanh(s / softcap)
    s = np.where(seen & ~np.isneginf(bias), s + bias, -np.inf)
    sink = np.full(q.shape[1], -np.inf) if sinks is None else wide(sinks)
    sink = np.broadcast_to(sink[:, None, None], s.shape[:3] + (1,))
    largest = np.max(np.concatenate([s, sink], -1), -1, keepdims=True)
    empty = np.isneginf(largest)
    largest = np.where(empty, 0, largest)
    w = np.exp(s - largest)
    total = w.sum(-1, keepdims=True) + np.exp(sink - largest)
    return np.where(empty, nothing, w @ v / np.where(total == 0, 1, total))


def sdpa_cases():
    inf = -np.inf
    float_mask = np.where(rng.random((2, 1, 4, 7)) < 0.3, inf, rng.standard_normal((2, 1, 4, 7))).astype(np.float32)
    lowest = np.where(rng.random((4, 7)) < 0.5, np.finfo(np.float32).min, 0).astype(np.float32)
    lowest[2] = np.finfo(np.float32).min
    bools = rng.random((2, 4, 4, 7)) < 0.6
    bools[1, :, 1] = False
    table = [
        # batch, heads, kv, size, value size, T, S, past, total, mask, sinks, elem, attributes
        (1, 1, 1, 4, 4, 3, 3, None, None, None, False, "f32", {}),
        (2, 4, 2, 3, 5, 4, 7, None, None, None, False, "f32", {"right": 0}),
        (2, 4, 2, 3, 5, 4, 7, (3,), None, None, False, "f32", {"right": 0}),
        (2, 4, 4, 3, 2, 4, 7, (-2, 1), (2, 5), None, False, "f32", {"right": 0}),
        (2, 4, 1, 3, 2, 4, 7, (0, 3), None, None, False, "f32", {"left": 2, "right": 1, "softcap": 2.0}),
        (2, 4, 1, 3, 3, 4, 7, None, None, float_mask, False, "f32", {}),
        (2, 4, 2, 3, 3, 4, 7, None, None, lowest, False, "f32", {"unseen": "nan"}),
        (2, 4, 2, 3, 3, 4, 7, None, None, bools, False, "f32", {"left": 3}),
        (2, 4, 2, 3, 3, 4, 7, None, None, bools, False, "f32", {"unseen": "nan"}),
        (2, 4, 2, 3, 3, 4, 9, None, None, bools, True, "f32", {"softcap": 5.0}),
        (2, 2, 2, 4, 4, 3, 5, (2,), (5, 4), None, True, "f32", {"right": 0, "left": 1}),
        (1, 1, 1, 130, 130, 2, 5, None, None, None, False, "f32", {}),
        (1, 2, 1, 4, 4, 0, 3, None, None, None, False, "f32", {}),
        (1, 2, 1, 4, 4, 3, 0, None, None, None, False, "f32", {}),
        (2, 4, 2, 3, 5, 4, 7, (3,), None, None, False, "f16", {"right": 0}),
        (2, 4, 2, 3, 5, 4, 7, (3,), None, None, False, "bf16", {"right": 0}),
        (2, 4, 2, 3, 5, 4, 7, (3,), None, None, False, "f64", {"right": 0}),
    ]
    for i, (batch, heads, kv, size, value_size, tokens, keys, past, total, mask, has_sinks, elem, attrs) in enumerate(table):
        q, k = normal((batch, heads, tokens, size), elem, 2), normal((batch, kv, keys, size), elem)
        v = normal((batch, kv, keys, value_size), elem)
        sinks = normal((heads,)) if has_sinks else None
        seen = np.stack([seen_keys(tokens, keys, past[b % len(past)] if past else 0, attrs.get("left", -1), attrs.get("right", -1))
                         & (np.arange(keys) < (total[b % len(total)] if total else keys)) for b in range(batch)])[:, None]
        bias = np.zeros((1, 1, 1, keys))
        if mask is not None:
            given = np.where(mask, 0, inf) if mask.dtype == bool else wide(mask)
            given = np.broadcast_to(given, (2, 4, 4, 7))
            bias = np.concatenate([given, np.full((2, 4, 4, keys - 7), inf)], -1)
        y = sdpa_reference(q, k, v, bias, seen, 0.75, attrs.get("softcap", 0), sinks, np.nan if attrs.get("unseen") == "nan" else 0)
        extra = [mask, None if past is None else np.array(past), None if total is None else np.array(total), sinks]
        while extra and extra[-1] is None:
            extra.pop()
        tol = (8, 1e-14) if elem == "f64" else (1, 1e-6) if elem == "f32" else (1, 1e-6)
        case("sdpa", f"{i}_apart", [q, k, v] + extra, [round_to(y, elem)], tol=tol, heads=heads, kv_heads=kv, scale=0.75, **attrs)
        case("sdpa", f"{i}_joined", [joined(q), joined(k), joined(v)] + extra, [joined(round_to(y, elem))], tol=tol, heads=heads, kv_heads=kv,
             scale=0.75, **attrs)
        if i < 9 and past is None and "unseen" not in attrs and not has_sinks:
            other = onnx_run("Attention", [q, k, v, mask], opset=25, scale=0.75, softcap=attrs.get("softcap", 0.0),
                             left_window_size=attrs.get("left", -1), right_window_size=attrs.get("right", -1))[0]
            assert np.allclose(other, y, atol=1e-5), i
    q, k = np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 1, 5, 4), np.float32)
    same = {"heads": 2, "kv_heads": 1, "scale": 1.0}
    faulty("sdpa", "heads", [q, k, k], [(q.shape, np.float32)], heads=2, kv_heads=2, scale=1.0)
    faulty("sdpa", "values", [q, k, k[:, :, :4]], [(q.shape, np.float32)], **same)
    faulty("sdpa", "mask", [q, k, k, np.zeros((3, 6), np.float32)], [(q.shape, np.float32)], **same)
    faulty("sdpa", "mask_rows", [q, k, k, np.zeros((2, 5), np.float32)], [(q.shape, np.float32)], **same)
    faulty("sdpa", "total", [q, k, k, None, None, np.array([6])], [(q.shape, np.float32)], **same)
    faulty("sdpa", "past", [q, k, k, None, np.array([2**63 - 1])], [(q.shape, np.float32)], **same)



def main():
    family("elementwise")
    unary_cases()
    cast_cases()
    binary_cases()
    family("reduce")
    reduce_cases()
    axis_cases()
    topk_cases()
    family("shape")
    shape_cases()
    slice_cases()
    expand_cases()
    pad_cases()
    family("gather")
    gather_cases()
    make_cases()
    family("linalg")
    matmul_cases()
    linear_cases()
    conv_cases()
    family("lm")
    rope_cases()
    cache_cases()
    attention_cases()
    family("moe")
    route_cases()
    expert_cases()
    pack_cases()
    family("recurrent")
    causal_conv_cases()
    linear_attention_cases()
    selective_scan_cases()
    capacity_cases()
    family("lowbit")
    dequantize_cases()
    family("recurrent")
    biased_attention_cases()
    family("attention")
    kv_append_cases()
    sdpa_cases()
    OUT.mkdir(parents=True, exist_ok=True)
    for name, cases in files.items():
        text = f"# {len(cases)} cases, made by tests/tools/make_eval_vectors.py\n\n" + "\n".join(cases)
        (OUT / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    main()
