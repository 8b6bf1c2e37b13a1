"""Models with constants of FLOAT8E4M3FN (and of integers) behind DequantizeLinear and Cast; results by definition in numpy."""

import numpy as np
from onnx import TensorProto as T
from onnx import TensorProto

rng = np.random.default_rng(8)
K, N = 40, 12
# sign, 4 bits of exponent (bias 7), 3 of fraction; no infinities, all ones are NaN
VALUES = np.array([(-1 if c & 128 else 1) * (np.nan if c & 127 == 127 else (c & 7) * 2.0 ** -9 if c & 120 == 0
                                             else (1 + (c & 7) / 8) * 2.0 ** ((c >> 3 & 15) - 7)) for c in range(256)], np.float32)


def codes(*shape):
    """Codes of no large numbers, no NaN among them."""
    c = rng.integers(0, 96, shape) | rng.integers(0, 2, shape) << 7
    return c.astype(np.uint8)


def float8(name, array, typed=False, data_type=T.FLOAT8E4M3FN):
    t = TensorProto(name=name, data_type=data_type, dims=array.shape)
    if typed:
        t.int32_data.extend(array.ravel().tolist())
    else:
        t.raw_data = array.tobytes()
    return t


def factors(scale, shape, axis, block):
    """The scale of each element."""
    if block:
        return np.repeat(scale, block, axis)[tuple(slice(n) for n in shape)]
    return scale.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))]) if scale.size > 1 else scale.reshape(())


def cases(ok, bad, model, node, info, tensor):
    def product(op, w, scale, axis=None, block=0, zero=None, typed=False, weight=None, half=False, **attrs):
        """y = x times the weight `w`, by the node `op`."""
        elem = T.FLOAT16 if half else T.FLOAT
        initializers = [weight or float8("w", w, typed), tensor("s", scale)] + ([zero] if zero is not None else [])
        given = {} if axis is None else {"axis": axis} | ({"block_size": block} if block else {})
        nodes = [node("DequantizeLinear", ["w", "s"] + (["z"] if zero is not None else []), ["d"], **given),
                 node(op, ["x", "d"], ["y"], "product", **attrs)]
        return model(nodes, inputs=[info("x", elem, ["n", None])], outputs=[info("y", elem, None)], initializers=initializers, opset=21)

    def agrees(name, w, scale, op="MatMul", axis=None, block=0, **more):
        x = rng.standard_normal((3, w.shape[0] if op == "MatMul" else w.shape[1])).astype(np.float32)
        scale = np.asarray(scale)
        values = VALUES[w] * factors(scale.astype(np.float32), w.shape, axis or 0, block)
        made = product(op, w, scale, axis, block, half=scale.dtype == np.float16, **more)
        made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = x.shape[1]
        x, values = x.astype(scale.dtype), values.astype(scale.dtype).astype(np.float32)
        y = x.astype(np.float32) @ (values if op == "MatMul" else values.T)
        ok(f"float8_{name}", made, {"x": x}, {"y": y.astype(scale.dtype)})

    def some(*shape):
        return (0.02 + 0.03 * rng.random(shape)).astype(np.float32)

    agrees("one", codes(K, N), np.float32(0.03))
    agrees("one_line", codes(K, N), np.float32([0.03]), zero=float8("z", np.uint8([128])), typed=True)
    agrees("columns", codes(K, N), some(N), axis=1)
    agrees("half", codes(K, N), some(N).astype(np.float16), axis=-1)
    agrees("rows", codes(K, N), some(K), axis=0)
    agrees("blocks", codes(K, N), some(3, N), axis=0, block=16, zero=float8("z", np.zeros((3, N), np.uint8)))
    agrees("blocks_of_columns", codes(K, N), some(K, 2), axis=1, block=8)
    agrees("turned", codes(N, K), some(N), "Gemm", axis=0, transB=1)
    agrees("turned_blocks", codes(N, K), some(N, 3), "Gemm", axis=-1, block=16, transB=1)

    # all codes, through Cast; a line with scales of its own; a scale that is computed; a stack of matrices in blocks
    every = np.arange(256, dtype=np.uint8) & 0xFE  # without NaN
    x = np.ones((1, 256), np.float32)
    ok("float8_cast", model([node("Cast", ["w"], ["d"], to=T.FLOAT), node("Mul", ["x", "d"], ["y"], "mul")],
                            inputs=[info("x", shape=["n", 256])], initializers=[float8("w", every)]), {"x": x}, {"y": x * VALUES[every]})
    scale = some(256)
    ok("float8_line", model([node("DequantizeLinear", ["w", "s"], ["d"], axis=0), node("Mul", ["x", "d"], ["y"], "mul")],
                            inputs=[info("x", shape=["n", 256])], initializers=[float8("w", every), tensor("s", scale)], opset=21),
       {"x": x}, {"y": x * VALUES[every] * scale})
    w, x, scale = codes(K, N), rng.standard_normal((3, K)).astype(np.float32), some(N)
    ok("float8_scale_input", model([node("DequantizeLinear", ["w", "s"], ["d"]), node("MatMul", ["x", "d"], ["y"], "product")],
                                   inputs=[info("x", shape=["n", K]), info("s", shape=[N])], initializers=[float8("w", w)], opset=21),
       {"x": x, "s": scale}, {"y": x @ (VALUES[w] * scale)})
    w, x, scale = codes(2, K, N), rng.standard_normal((2, 3, K)).astype(np.float32), some(2, 3, N)
    ok("float8_stack", model([node("DequantizeLinear", ["w", "s"], ["d"], axis=1, block_size=16), node("MatMul", ["x", "d"], ["y"], "product")],
                             inputs=[info("x", shape=[2, "n", K])], outputs=[info("y", shape=None)], initializers=[float8("w", w), tensor("s", scale)], opset=21),
       {"x": x}, {"y": x @ (VALUES[w] * factors(scale, w.shape, 1, 16))})

    # integers
    x = rng.standard_normal((3, K)).astype(np.float32)
    w, scale, zero = rng.integers(-128, 128, (K, N)).astype(np.int8), some(N), rng.integers(-9, 9, N).astype(np.int8)
    ok("dequantize_i8", product("MatMul", w, scale, 1, zero=tensor("z", zero), weight=tensor("w", w)), {"x": x},
       {"y": x @ ((w.astype(np.float32) - zero) * scale)})
    w, scale, zero = rng.integers(0, 256, (K, N)).astype(np.uint8), some(3, N), rng.integers(0, 256, (3, N)).astype(np.uint8)
    spread = np.repeat(zero.astype(np.float32), 16, 0)[:K], np.repeat(scale, 16, 0)[:K]
    ok("dequantize_u8_blocks", product("MatMul", w, scale, 0, 16, zero=tensor("z", zero), weight=tensor("w", w)), {"x": x},
       {"y": x @ ((w - spread[0]) * spread[1])})

    # what is refused
    w = codes(4)
    for name, op in (("add", "Add"), ("identity", "Identity")):
        bad(f"float8_{name}", model([node(op, ["x", "w"] if op == "Add" else ["w"], ["y"])], initializers=[float8("w", w)]))
    bad("float8_output", model([node("Relu", ["x"], ["a"])], outputs=[info("w", T.UINT8, [4])], initializers=[float8("w", w)]))
    bad("float8_fill", model([node("ConstantOfShape", ["n"], ["y"], value=float8("", w[:1]))], initializers=[tensor("n", np.array([4]))]))
    for name, data_type in (("e5m2", T.FLOAT8E5M2), ("fnuz", T.FLOAT8E4M3FNUZ)):
        bad(f"float8_{name}", product("Add", w, np.float32(1), weight=float8("w", w, data_type=data_type)))
    bad("float8_input", model([node("Cast", ["x"], ["y"], to=T.FLOAT)], inputs=[info("x", T.FLOAT8E4M3FN)]))
    bad("float8_cast_to", model([node("Cast", ["x"], ["y"], to=T.FLOAT8E4M3FN)]))
    bad("float8_range", product("Add", w, np.float32(1), weight=float8("w", w.astype(np.int32) + 200, typed=True)))
    bad("float8_zero", product("Add", w, np.float32(1), zero=float8("z", np.uint8([1]))))
    bad("float8_zero_type", product("Add", w, np.float32(1), zero=tensor("z", np.uint8([0]))))
    bad("float8_scales", product("Add", codes(4, 4), some(3), 1))
    bad("float8_blocks", product("Add", codes(4, 4), some(2, 4), 0, 3, zero=float8("z", np.zeros((2, 3), np.uint8))))
    bad("dequantize_scale_type", product("Add", w, np.float64(1)))
    bad("dequantize_f32", product("Add", w, np.float32(1), weight=tensor("w", w.astype(np.float32))))
    bad("dequantize_block", product("Add", codes(4, 4), some(2, 4), 0, -2))
