#!/usr/bin/env python3
"""Makes digits.onnx and samples.txt of samples/digits: a 5x7 bitmap font, moved, dimmed and covered
with noise, is the data; a network of one hidden layer is trained on it (seeded). Prints the
accuracy on samples.txt, which training never sees. Needs numpy and onnx. Usage: make_digits.py OUT"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, HIDDEN, LEVELS = 8, 32, 15
FONT = """
.###. ..#.. .###. .###. ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. ..##. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
"""


def glyphs():
    rows = [line.split() for line in FONT.split("\n") if line]
    return np.array([[[c == "#" for c in rows[y][d]] for y in range(7)] for d in range(10)], float)


def draw(rng, font, n):
    """n digits on fields of 8x8, in whole levels 0..15, and which digits they are."""
    labels = rng.integers(0, 10, n)
    images = np.zeros((n, SIDE, SIDE))
    for image, label in zip(images, labels):
        y, x = rng.integers(0, SIDE - 7 + 1), rng.integers(0, SIDE - 5 + 1)
        ink = font[label] * rng.uniform(0.5, 1.0) * (rng.random((7, 5)) > 0.04)
        image[y : y + 7, x : x + 5] = ink
    images += rng.normal(0, 0.12, images.shape)
    return np.rint(np.clip(images, 0, 1) * LEVELS).reshape(n, -1), labels


def train(rng, font):
    shapes = [(SIDE * SIDE, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,)]
    w = [rng.normal(0, np.sqrt(2 / s[0]), s) if len(s) == 2 else np.zeros(s) for s in shapes]
    m, v = [np.zeros(s) for s in shapes], [np.zeros(s) for s in shapes]
    steps = 2000
    for step in range(1, steps + 1):
        levels, labels = draw(rng, font, 128)
        x = levels / LEVELS
        h = np.maximum(x @ w[0] + w[1], 0)
        scores = h @ w[2] + w[3]
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(p)), labels] -= 1
        p /= len(p)
        dh = (p @ w[2].T) * (h > 0)
        for i, g in enumerate([x.T @ dh, dh.sum(0), h.T @ p, p.sum(0)]):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            rate = 0.005 * (1 - step / (steps + 1))
            w[i] -= rate * (m[i] / (1 - 0.9**step)) / (np.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
    return [a.astype(np.float32) for a in w]


def main():
    out = sys.argv[1]
    rng = np.random.default_rng(8)
    font = glyphs()
    w1, b1, w2, b2 = train(rng, font)
    levels, labels = draw(np.random.default_rng(64), font, 500)
    hidden = np.maximum((levels / LEVELS).astype(np.float32) @ w1 + b1, 0)
    right = ((hidden @ w2 + b2).argmax(1) == labels).sum()
    print(f"{right} of {len(labels)} right")

    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["pixels", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", SIDE * SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(a, n) for a, n in ((w1, "w1"), (b1, "b1"), (w2, "w2"), (b2, "b2"))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, os.path.join(out, "digits.onnx"))
    with open(os.path.join(out, "samples.txt"), "w", encoding="ascii") as f:
        for label, image in zip(labels, levels.astype(int)):
            f.write(f"{label} {''.join(format(p, 'x') for p in image)}\n")


main()
