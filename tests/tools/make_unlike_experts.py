#!/usr/bin/env python3
"""Makes the files of samples/unlike-experts that aren't written by hand: the neural expert (trained
here, seeded), inputs and expected outputs. Needs numpy and onnx. Usage: make_unlike_experts.py OUT"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 24


def train(rng):
    """A two-layer network that learns the length of (a, b) for |a|, |b| <= 4, by Adam."""
    shapes = [(2, WIDTH), (WIDTH,), (WIDTH, WIDTH), (WIDTH,), (WIDTH, 1), (1,)]
    w = [rng.normal(0, np.sqrt(2 / s[0]), s) if len(s) == 2 else np.zeros(s) for s in shapes]
    m, v = [np.zeros(s) for s in shapes], [np.zeros(s) for s in shapes]
    for step in range(1, 6001):
        x = rng.uniform(-4, 4, (256, 2))
        want = np.hypot(x[:, :1], x[:, 1:])
        h1 = np.tanh(x @ w[0] + w[1])
        h2 = np.tanh(h1 @ w[2] + w[3])
        d = 2 * (h2 @ w[4] + w[5] - want) / len(x)
        d2 = (d @ w[4].T) * (1 - h2**2)
        d1 = (d2 @ w[2].T) * (1 - h1**2)
        grads = [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d, d.sum(0)]
        rate = 0.01 * (1 - step / 6001)
        for i, g in enumerate(grads):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            w[i] -= rate * (m[i] / (1 - 0.9**step)) / (np.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
    return [a.astype(np.float32) for a in w]


def neural(x, w):
    x = x[:, 2:4].astype(np.float32)
    return np.tanh(np.tanh(x @ w[0] + w[1]) @ w[2] + w[3]) @ w[4] + w[5]


def save_onnx(path, w):
    names = ["w1", "b1", "w2", "b2", "w3", "b3"]
    nodes = [
        helper.make_node("Slice", ["rows", "two", "four", "one"], ["x"], name="operands"),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a1"], name="layer1"),
        helper.make_node("Tanh", ["a1"], ["h1"], name="tanh1"),
        helper.make_node("Gemm", ["h1", "w2", "b2"], ["a2"], name="layer2"),
        helper.make_node("Tanh", ["a2"], ["h2"], name="tanh2"),
        helper.make_node("Gemm", ["h2", "w3", "b3"], ["answer"], name="layer3"),
    ]
    consts = [numpy_helper.from_array(a, n) for a, n in zip(w, names)]
    consts += [
        numpy_helper.from_array(np.array([k], np.int64), n)
        for n, k in (("two", 2), ("four", 4), ("one", 1))
    ]
    graph = helper.make_graph(
        nodes,
        "length",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 1])],
        consts,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main():
    out = sys.argv[1]
    rng = np.random.default_rng(7)
    w = train(rng)
    save_onnx(os.path.join(out, "length.onnx"), w)
    n = 32
    x = np.zeros((n, 4), np.float32)
    exact = rng.permutation(n) % 2 == 1
    x[~exact, 0] = 1
    x[exact, 1] = 1
    x[~exact, 2:] = rng.uniform(-4, 4, (n // 2, 2))
    x[exact, 2:] = rng.integers(-4095, 4096, (n // 2, 2))
    want = np.where(exact, x[:, 2] * x[:, 3], neural(x, w)[:, 0]).astype(np.float32)[:, None]
    error = np.abs(neural(x, w)[~exact, 0] - np.hypot(x[~exact, 2], x[~exact, 3])).max()
    print(f"neural expert: at most {error:.4f} off on these inputs")
    np.savez(os.path.join(out, "inputs.npz"), x=x)
    np.savez(os.path.join(out, "expected.npz"), answer=want)


if __name__ == "__main__":
    main()
