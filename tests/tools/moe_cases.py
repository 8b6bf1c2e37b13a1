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


def cases(ok, model, node, info, tensor):
    def operator(name, op, attrs, inputs, given, y):
        elem = {np.dtype(np.float32): T.FLOAT, np.dtype(np.float16): T.FLOAT16, np.dtype(np.int64): T.INT64}
        names = [n if v is not None else "" for n, v in inputs.items()]
        while not names[-1]:
            names.pop()
        made = model([node(op, names, ["y"], domain="com.microsoft", **attrs)], domains=["com.microsoft"],
                     inputs=[info(n, elem[inputs[n].dtype], inputs[n].shape) for n in given],
                     outputs=[info("y", elem[y.dtype], None)],
                     initializers=[tensor(n, inputs[n]) for n in names if n and n not in given])
        ok(name, made, {n: inputs[n] for n in given}, {"y": y})

    for name, case in MOE.items():
        attrs, inputs, y = moe_case(case)
        operator(f"moe_{name}", "MoE", attrs, inputs, ["x", "scores"], y)
