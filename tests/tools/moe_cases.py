"""Models of one com.microsoft operator (MoE, QMoE, MatMulNBits, GatherBlockQuantized) with results by their definitions in numpy.

Used by make_onnx_cases.py.
"""

import math

import numpy as np
from onnx import TensorProto as T

rng = np.random.default_rng(40)
erf = np.vectorize(math.erf)


def rand(*shape, scale=1.0, elem=np.float32):
    return (rng.standard_normal(shape) * scale).astype(elem)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "identity": lambda x: x,
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}


# ---- routing -----------------------------------------------------------------------------------


def top_k_weights(scores, k, weighing=None):
    x = scores.astype(np.float64)
    chosen = np.argsort(-x, axis=-1, kind="stable")[:, :k]
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return chosen, np.take_along_axis(p if weighing is None else weighing.astype(np.float64), chosen, -1)


def sparse_mixer(scores, k, jitter=0.01):
    x = scores.astype(np.float64)
    left, chosen, weights = x.copy(), [], []
    for _ in range(k):
        best = left.argmax(-1, keepdims=True)
        top = np.take_along_axis(left, best, -1)
        masked = np.where((top - x) / np.maximum(np.abs(x), top) > 2 * jitter, -np.inf, left)
        p = np.exp(masked - masked.max(-1, keepdims=True))
        weights.append(np.take_along_axis(p / p.sum(-1, keepdims=True), best, -1))
        chosen.append(best)
        np.put_along_axis(left, best, -np.inf, -1)
    return np.concatenate(chosen, -1), np.concatenate(weights, -1)


# ---- experts -----------------------------------------------------------------------------------


def unit(gate, up, activation_alpha=1.0, activation_beta=0.0, swiglu_limit=None, swiglu_limit_after_activation=0):
    limit = math.inf if swiglu_limit is None else swiglu_limit
    if not swiglu_limit_after_activation:
        gate = np.minimum(gate, limit)
    gate = gate * sigmoid(activation_alpha * gate)
    if swiglu_limit_after_activation:
        gate = np.minimum(gate, limit)
    return gate * (np.clip(up, -limit, limit) + activation_beta)


def expert(x, w, e, attrs):
    """w: name -> (weights [E, N, K], bias [E, N] or None)."""
    def project(name, x):
        weight, bias = w[name]
        return x @ weight[e].astype(np.float64).T + (0 if bias is None else bias[e].astype(np.float64))

    kind, fusion = attrs.get("activation_type", "relu"), attrs.get("swiglu_fusion", 0)
    first = project("fc1", x)
    if kind in ("swiglu", "geglu"):
        if fusion == 0:
            gate, up = first, project("fc3", x)
        elif fusion == 1:
            gate, up = first[:, 0::2], first[:, 1::2]
        else:
            gate, up = np.split(first, 2, -1)
        if kind == "swiglu":
            y = unit(gate, up, **{k: v for k, v in attrs.items() if k.startswith(("activation_a", "activation_b", "swiglu_limit"))})
        else:
            y = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * up
    else:
        y = ACTIVATIONS[kind](first)
        if "fc3" in w:
            y = y * project("fc3", x)
    return project("fc2", y)


def mixture(x, scores, w, attrs, weighing=None):
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    k = attrs.get("k", 1)
    if attrs.get("use_sparse_mixer"):
        chosen, weights = sparse_mixer(scores, k)
    else:
        chosen, weights = top_k_weights(scores, k, weighing)
    if attrs.get("normalize_routing_weights"):
        weights = weights / weights.sum(-1, keepdims=True)
    y = np.zeros_like(rows)
    for t in range(len(rows)):
        for e, weight in zip(chosen[t], weights[t]):
            y[t] += weight * expert(rows[t : t + 1], w, e, attrs)[0]
    return y.reshape(x.shape).astype(x.dtype)


def shapes_of(attrs, e, d, i, third):
    fused = 2 if attrs.get("swiglu_fusion", 0) else 1
    return {"fc1": (e, fused * i, d), "fc2": (e, d, i)} | ({"fc3": (e, i, d)} if third else {})


MOE = {
    "relu": dict(),
    "gelu_k2": dict(activation_type="gelu", k=2),
    "identity_bias": dict(activation_type="identity", k=3, bias=True, normalize_routing_weights=1),
    "silu_third": dict(activation_type="silu", k=2, third=True, bias=True),
    "separate": dict(activation_type="swiglu", k=2, third=True, activation_alpha=1.5, swiglu_limit=0.5),
    "interleaved": dict(activation_type="swiglu", k=2, swiglu_fusion=1, bias=True, activation_alpha=1.702, activation_beta=1.0,
                        swiglu_limit=0.75, normalize_routing_weights=1),
    "concatenated": dict(activation_type="swiglu", k=1, swiglu_fusion=2, bias=True, rank=3),
    "limit_after": dict(activation_type="swiglu", k=2, swiglu_fusion=2, swiglu_limit=0.25, swiglu_limit_after_activation=1),
    "geglu": dict(activation_type="geglu", k=2, swiglu_fusion=1),
    "sparse": dict(activation_type="relu2", k=2, use_sparse_mixer=1),
    "half": dict(activation_type="silu", k=2, bias=True, elem=np.float16),
}


def moe_case(case, e=4, d=6, i=5, t=7):
    """Node attributes, inputs in order (None: absent), names of those that are initializers, and y."""
    attrs = dict(case)
    bias, third, rank, elem = (attrs.pop(n, v) for n, v in (("bias", False), ("third", False), ("rank", 2), ("elem", np.float32)))
    x = rand(*((t, d) if rank == 2 else (1, t, d)), elem=elem)
    scores = rand(t, e, scale=2, elem=elem)
    w = {n: (rand(*s, scale=0.5, elem=elem), rand(*s[:2], elem=elem) if bias else None)
         for n, s in shapes_of(attrs, e, d, i, third).items()}
    inputs = {"x": x, "scores": scores}
    for n in ("fc1", "fc2", "fc3"):
        inputs[n], inputs[n + "_bias"] = w.get(n, (None, None))
    return attrs, inputs, mixture(x, scores, w, attrs)


# ---- weights of few bits -----------------------------------------------------------------------


def pack(codes, bits):
    """[.., n] to bytes [.., ceil(n * bits / 8)], the first in the lowest bits."""
    per = 8 // bits
    n = -(-codes.shape[-1] // per)
    padded = np.zeros(codes.shape[:-1] + (n * per,), np.uint8)
    padded[..., : codes.shape[-1]] = codes
    return np.bitwise_or.reduce(padded.reshape(codes.shape[:-1] + (n, per)) << (np.arange(per, dtype=np.uint8) * bits), -1).astype(np.uint8)


def quantised(shape, bits, block, zeros, elem=np.float32):
    """codes, scales [.., blocks], zeros [.., blocks] or None (integers or floats), and what they stand for."""
    k = shape[-1]
    size = block or k
    blocks = -(-k // size)
    codes = rng.integers(0, 1 << bits, shape).astype(np.uint8)
    scales = (rng.random(shape[:-1] + (blocks,)) * 0.5 / (1 << (bits - 1)) + 0.01).astype(elem)
    middle = np.full(scales.shape, 1 << (bits - 1), np.float64)
    z = None
    if zeros == "packed":
        z = rng.integers(0, 1 << bits, scales.shape).astype(np.uint8)
    elif zeros == "float":
        z = (middle + rng.standard_normal(scales.shape)).astype(elem)
    of = np.arange(k) // size
    values = (codes - (middle if z is None else z.astype(np.float64))[..., of]) * scales.astype(np.float64)[..., of]
    return codes, scales, z, values


QMOE = {
    "4_relu": dict(block_size=16),
    "4_interleaved": dict(activation_type="swiglu", k=2, swiglu_fusion=1, block_size=16, bias=True, zeros="packed", activation_alpha=1.702,
                          activation_beta=1.0, swiglu_limit=0.75, normalize_routing_weights=1),
    "8_concatenated": dict(expert_weight_bits=8, activation_type="swiglu", k=2, swiglu_fusion=2, block_size=16, weights_prepacked=0),
    "2_third": dict(expert_weight_bits=2, activation_type="silu", k=2, block_size=32, third=True, bias=True, zeros="packed", i=32, d=64),
    "4_channel": dict(activation_type="gelu", k=2, zeros="packed", bias=True),
    "8_channel": dict(expert_weight_bits=8, activation_type="silu", k=1, third=True),
    "mixed": dict(fc1_expert_weight_bits=4, fc2_expert_weight_bits=8, activation_type="swiglu", k=2, swiglu_fusion=1, block_size=16),
    "weighed": dict(block_size=16, k=2, activation_type="silu", weighing=True, normalize_routing_weights=1, rank=3),
    "half": dict(block_size=16, k=2, activation_type="silu", elem=np.float16),
}


def qmoe_case(case, e=3, t=6):
    attrs = dict(case)
    taken = (("bias", False), ("third", False), ("rank", 2), ("elem", np.float32), ("zeros", None), ("weighing", False), ("i", 16), ("d", 32))
    bias, third, rank, elem, zeros, weighing, i, d = (attrs.pop(n, v) for n, v in taken)
    x = rand(*((t, d) if rank == 2 else (2, t // 2, d)), elem=elem)
    scores = rand(t, e, scale=2, elem=elem)
    by = np.abs(rand(t, e)).astype(elem) if weighing else None
    inputs, w, zero_inputs = {"x": x, "scores": scores}, {}, {}
    for n, shape in shapes_of(attrs, e, d, i, third).items():
        bits = attrs.get(f"{n}_expert_weight_bits", attrs.get("expert_weight_bits", 4))
        codes, scales, z, values = quantised(shape, bits, attrs.get("block_size", 0), zeros, elem)
        b = rand(*shape[:2], elem=elem) if bias else None
        w[n] = (values, b)
        inputs[n], inputs[n + "_scales"], inputs[n + "_bias"] = pack(codes, bits), scales, b
        if not attrs.get("block_size"):
            inputs[n + "_scales"] = scales[..., 0]
            z = None if z is None else z[..., 0]
        zero_inputs[n + "_zeros"] = None if z is None else pack(z, bits)
    if not third:
        inputs |= {"fc3": None, "fc3_scales": None, "fc3_bias": None}
        zero_inputs["fc3_zeros"] = None
    inputs |= zero_inputs | {"weighing": by}
    return attrs, inputs, mixture(x, scores, w, attrs, by)


# bits, block, zeros, K, N, scales as one line, bias, elem
MATMUL = {
    "2": (2, 32, None, 80, 5, False, False, np.float32),
    "4_packed": (4, 16, "packed", 40, 7, True, True, np.float32),
    "4_float": (4, 32, "float", 33, 6, False, False, np.float32),
    "8_half": (8, 16, "packed", 32, 4, False, True, np.float16),
}


def matmul_case(bits, block, zeros, k, n, line, bias, elem):
    codes, scales, z, values = quantised((n, k), bits, block, zeros, elem)
    whole = np.zeros((n, -(-k // block) * block), np.uint8)
    whole[:, :k] = codes
    x = rand(2, 3, k, elem=elem)
    b = rand(n, elem=elem) if bias else None
    y = x.astype(np.float64) @ values.T + (0 if b is None else b.astype(np.float64))
    if z is not None and zeros == "packed":
        z = pack(z, bits)
    if line:
        scales, z = scales.reshape(-1), z.reshape(-1)
    inputs = {"x": x, "w": pack(whole, bits).reshape(n, -1, block * bits // 8), "scales": scales, "zeros": z, "groups": None, "bias": b}
    return dict(K=k, N=n, bits=bits, block_size=block), inputs, y.astype(elem)


GATHER = {"4": (4, None, np.float32), "8_packed": (8, "packed", np.float16), "2_packed": (2, "packed", np.float32)}


def gather_case(bits, zeros, elem):
    codes, scales, z, values = quantised((9, 32), bits, 16, zeros, elem)
    ids = rng.integers(0, 9, (2, 3))
    inputs = {"w": pack(codes, bits), "ids": ids, "scales": scales, "zeros": None if z is None else pack(z, bits)}
    return dict(bits=bits, block_size=16), inputs, values[ids].astype(elem)


# ---- faults: each is a model above with one thing changed --------------------------------------


def faults():
    base, inputs, _ = qmoe_case(QMOE["4_interleaved"])

    def changed(name, op="QMoE", attrs={}, **arrays):
        return name, op, base | attrs, inputs | arrays

    yield changed("qmoe_prepacked", attrs={"weights_prepacked": 1})
    yield changed("qmoe_type", attrs={"quant_type": "fp8"})
    yield changed("qmoe_bits", attrs={"expert_weight_bits": 3})
    yield changed("qmoe_scales", fc1_scales=inputs["fc1_scales"][:, :, :1])
    yield changed("qmoe_no_scales", fc2_scales=None)
    yield changed("qmoe_zeros", fc2_zeros=inputs["fc2_zeros"][:, :-1])
    yield changed("qmoe_weights", fc2=inputs["fc2"][:, :, :-1])
    yield changed("qmoe_bias", fc1_bias=inputs["fc1_bias"][:, :-1])
    yield changed("qmoe_experts", fc2=inputs["fc2"][:2])
    yield changed("qmoe_k", attrs={"k": 4})
    base, inputs, _ = moe_case(MOE["interleaved"])
    yield changed("moe_fusion", op="MoE", attrs={"swiglu_fusion": 0})
    yield changed("moe_width", op="MoE", fc1=inputs["fc1"][:, :, :-1])
    yield changed("moe_router", op="MoE", scores=inputs["scores"][:-1])
    yield changed("moe_swapped", op="MoE", fc1=inputs["fc2"], fc2=inputs["fc1"])
    base, inputs, _ = moe_case(MOE["relu"])
    yield changed("moe_activation", op="MoE", attrs={"activation_type": "tanhish"})
    base, inputs, _ = matmul_case(*MATMUL["4_packed"])
    yield changed("nbits_scales", op="MatMulNBits", scales=inputs["scales"][:-1])
    yield changed("nbits_zeros", op="MatMulNBits", zeros=inputs["zeros"].reshape(7, 2)[:, :1])
    yield changed("nbits_zeros_type", op="MatMulNBits", zeros=np.zeros((7, 3)))
    yield changed("nbits_scales_type", op="MatMulNBits", scales=inputs["scales"].astype(np.float16))
    yield changed("nbits_weights", op="MatMulNBits", w=inputs["w"][:, :, :-1])
    yield changed("nbits_width", op="MatMulNBits", x=inputs["x"][..., :-1])
    yield changed("nbits_prepacked", op="MatMulNBits", attrs={"weight_prepacked": 1})
    yield changed("nbits_block", op="MatMulNBits", attrs={"block_size": 24})
    base, inputs, _ = gather_case(*GATHER["8_packed"])
    yield changed("gather_block_scales", op="GatherBlockQuantized", scales=inputs["scales"][:, :1])
    yield changed("gather_block_axis", op="GatherBlockQuantized", attrs={"quantize_axis": 0})


def cases(ok, bad, model, node, info, tensor):
    elems = {np.dtype(np.float32): T.FLOAT, np.dtype(np.float16): T.FLOAT16, np.dtype(np.int64): T.INT64}
    given = ("x", "scores", "ids", "weighing")  # others are initializers

    def operator(op, attrs, inputs, y=None):
        names = [n if v is not None else "" for n, v in inputs.items()]
        while not names[-1]:
            names.pop()
        return model([node(op, names, ["y"], domain="com.microsoft", **attrs)], domains=["com.microsoft"],
                     inputs=[info(n, elems[v.dtype], v.shape) for n, v in inputs.items() if n in given and v is not None],
                     outputs=[info("y", T.FLOAT if y is None else elems[y.dtype], None)],
                     initializers=[tensor(n, v) for n, v in inputs.items() if n not in given and v is not None])

    kinds = ("moe", "MoE", MOE, moe_case), ("qmoe", "QMoE", QMOE, qmoe_case)
    made = [(f"{kind}_{name}", op, make(case)) for kind, op, table, make in kinds for name, case in table.items()]
    kinds = ("nbits", "MatMulNBits", MATMUL, matmul_case), ("gather_block", "GatherBlockQuantized", GATHER, gather_case)
    made += [(f"{kind}_{name}", op, make(*case)) for kind, op, table, make in kinds for name, case in table.items()]
    for name, op, (attrs, inputs, y) in made:
        ok(name, operator(op, attrs, inputs, y), {n: v for n, v in inputs.items() if n in given and v is not None}, {"y": y})
    for name, op, attrs, inputs in faults():
        bad(name, operator(op, attrs, inputs))
