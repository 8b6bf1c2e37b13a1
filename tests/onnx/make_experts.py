#!/usr/bin/env python3
"""Writes an ONNX model whose experts are spelled out, in one of the forms that exporters have. For tests of scale
(those that unroll the loop over experts write hundreds of thousands of nodes) and of correctness.

make_experts.py OUT.onnx [--form=dense|picked|gathered|tiled] [--layers=L] [--experts=E] [--top-k=K] [--hidden=H] [--inner=I]
                 [--activation=silu|relu]

dense    every expert on every token, times the sum of the weights of the choices that named it
picked   one-hot choices; NonZero names the rows of an expert, which are gathered and added back
gathered weights stacked [experts, ...] and gathered by the choices; batched products
tiled    the tokens once per expert, batched products, and weights that are zero where an expert isn't chosen
"""
import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes and tensors as they come; names say where in the model a node stands."""

    def __init__(self, options):
        self.o = options
        self.nodes, self.tensors = [], []
        self.random = np.random.default_rng(options.seed)

    def op(self, kind, inputs, name, n_outputs=1, **attributes):
        outputs = [name] + [f"{name}_output_{i}" for i in range(1, n_outputs)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def const(self, name, value):
        """A Constant node: exporters write most of theirs so."""
        tensor = numpy_helper.from_array(np.asarray(value), name)
        return self.op("Constant", [], name, value=tensor)

    def weight(self, name, *shape):
        value = (self.random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        self.tensors.append(numpy_helper.from_array(value, name))
        return name


def expert_mlp(g, at, x):
    """Gated products: act(x G) * (x U) D."""
    h, i = g.o.hidden, g.o.inner
    gate = g.op("MatMul", [x, g.weight(f"{at}.gate_proj.weight", h, i)], f"{at}/gate_proj/MatMul")
    if g.o.activation == "silu":
        act = g.op("Sigmoid", [gate], f"{at}/act_fn/Sigmoid")
        act = g.op("Mul", [gate, act], f"{at}/act_fn/Mul")
    else:
        act = g.op("Relu", [gate], f"{at}/act_fn/Relu")
    up = g.op("MatMul", [x, g.weight(f"{at}.up_proj.weight", h, i)], f"{at}/up_proj/MatMul")
    both = g.op("Mul", [act, up], f"{at}/Mul")
    return g.op("MatMul", [both, g.weight(f"{at}.down_proj.weight", i, h)], f"{at}/down_proj/MatMul")


def dense_experts(g, at, x, ids, weights):
    total = None
    for e in range(g.o.experts):
        own = f"{at}/experts.{e}"
        y = expert_mlp(g, own, x)
        here = g.op("Equal", [ids, g.const(f"{own}/number", np.int64(e))], f"{own}/Equal")
        here = g.op("Cast", [here], f"{own}/Cast", to=TensorProto.FLOAT)
        share = g.op("Mul", [weights, here], f"{own}/Mul_1")
        share = g.op("ReduceSum", [share, "last"], f"{own}/ReduceSum", keepdims=1)
        y = g.op("Mul", [y, share], f"{own}/Mul_2")
        total = y if total is None else g.op("Add", [total, y], f"{own}/Add")
    return total


def picked_experts(g, at, x, ids, weights):
    o = g.o
    mask = g.op("OneHot", [ids, g.const(f"{at}/depth", np.int64(o.experts)),
                           g.const(f"{at}/off_on", np.array([0, 1], np.int64))], f"{at}/OneHot", axis=-1)
    mask = g.op("Transpose", [mask], f"{at}/Transpose", perm=[2, 1, 0])
    total = g.op("ConstantOfShape", [g.op("Shape", [x], f"{at}/Shape")], f"{at}/ConstantOfShape",
                 value=numpy_helper.from_array(np.zeros(1, np.float32)))
    for e in range(o.experts):
        own = f"{at}/experts.{e}"
        hit = g.op("Gather", [mask, g.const(f"{own}/number", np.int64(e))], f"{own}/Gather", axis=0)
        hit = g.op("Cast", [hit], f"{own}/Cast", to=TensorProto.BOOL)
        where = g.op("NonZero", [hit], f"{own}/NonZero")
        where = g.op("Transpose", [where], f"{own}/Transpose", perm=[1, 0])
        choice, token = g.op("Split", [where, g.const(f"{own}/halves", np.array([1, 1], np.int64))],
                             f"{own}/Split", 2, axis=1)
        choice = g.op("Squeeze", [choice, g.const(f"{own}/axis_1", np.array([1], np.int64))], f"{own}/Squeeze")
        token = g.op("Squeeze", [token, g.const(f"{own}/axis_2", np.array([1], np.int64))], f"{own}/Squeeze_1")
        rows = g.op("Gather", [x, token], f"{own}/Gather_1", axis=0)
        rows = g.op("Reshape", [rows, g.const(f"{own}/shape", np.array([-1, o.hidden], np.int64))],
                    f"{own}/Reshape")
        y = expert_mlp(g, own, rows)
        flat = g.op("Reshape", [weights, g.const(f"{own}/shape_1", np.array([-1, 1], np.int64))],
                    f"{own}/Reshape_1")
        place = g.op("Mul", [token, g.const(f"{own}/choices", np.int64(o.top_k))], f"{own}/Mul_1")
        place = g.op("Add", [place, choice], f"{own}/Add")
        share = g.op("Gather", [flat, place], f"{own}/Gather_2", axis=0)
        y = g.op("Mul", [y, share], f"{own}/Mul_2")
        spot = g.op("Unsqueeze", [token, g.const(f"{own}/axis_3", np.array([1], np.int64))], f"{own}/Unsqueeze")
        spot = g.op("Expand", [spot, g.op("Shape", [y], f"{own}/Shape")], f"{own}/Expand")
        total = g.op("ScatterElements", [total, spot, y], f"{own}/ScatterElements", axis=0, reduction="add")
    return total


def stacked_mlp(g, at, x, gate_up, down):
    """Batched products [.., rows, hidden] with gate and up side by side."""
    i = g.o.inner
    both = g.op("MatMul", [x, gate_up], f"{at}/gate_up/MatMul")
    gate, up = g.op("Split", [both, g.const(f"{at}/halves", np.array([i, i], np.int64))], f"{at}/Split", 2, axis=-1)
    act = g.op("Sigmoid" if g.o.activation == "silu" else "Relu", [gate], f"{at}/act_fn/Sigmoid")
    if g.o.activation == "silu":
        act = g.op("Mul", [gate, act], f"{at}/act_fn/Mul")
    return g.op("MatMul", [g.op("Mul", [act, up], f"{at}/Mul"), down], f"{at}/down/MatMul")


def gathered_experts(g, at, x, ids, weights):
    o = g.o
    gate_up = g.weight(f"{at}.experts.gate_up_proj", o.experts, o.hidden, 2 * o.inner)
    down = g.weight(f"{at}.experts.down_proj", o.experts, o.inner, o.hidden)
    own_gate_up = g.op("Gather", [gate_up, ids], f"{at}/experts/Gather", axis=0)
    own_down = g.op("Gather", [down, ids], f"{at}/experts/Gather_1", axis=0)
    rows = g.op("Unsqueeze", [x, g.const(f"{at}/row_axes", np.array([1, 2], np.int64))], f"{at}/Unsqueeze")
    y = stacked_mlp(g, f"{at}/experts", rows, own_gate_up, own_down)
    y = g.op("Squeeze", [y, g.const(f"{at}/row_axis", np.array([2], np.int64))], f"{at}/Squeeze")
    share = g.op("Unsqueeze", [weights, "last"], f"{at}/Unsqueeze_1")
    y = g.op("Mul", [y, share], f"{at}/Mul")
    return g.op("ReduceSum", [y, g.const(f"{at}/choices", np.array([1], np.int64))], f"{at}/ReduceSum_1", keepdims=0)


def tiled_experts(g, at, x, ids, weights):
    o = g.o
    gate_up = g.weight(f"{at}.experts.gate_up_proj", o.experts, o.hidden, 2 * o.inner)
    down = g.weight(f"{at}.experts.down_proj", o.experts, o.inner, o.hidden)
    rows = g.op("Unsqueeze", [x, g.const(f"{at}/expert_axis", np.array([0], np.int64))], f"{at}/Unsqueeze")
    rows = g.op("Tile", [rows, g.const(f"{at}/copies", np.array([o.experts, 1, 1], np.int64))], f"{at}/Tile")
    y = stacked_mlp(g, f"{at}/experts", rows, gate_up, down)
    number = g.op("Shape", [f"{at}/Softmax"], f"{at}/Shape")
    zeros = g.op("ConstantOfShape", [number], f"{at}/ConstantOfShape",
                 value=numpy_helper.from_array(np.zeros(1, np.float32)))
    share = g.op("ScatterElements", [zeros, ids, weights], f"{at}/ScatterElements", axis=1)
    share = g.op("Transpose", [share], f"{at}/Transpose", perm=[1, 0])
    y = g.op("Mul", [y, g.op("Unsqueeze", [share, "last"], f"{at}/Unsqueeze_1")], f"{at}/Mul")
    return g.op("ReduceSum", [y, g.const(f"{at}/experts_axis", np.array([0], np.int64))], f"{at}/ReduceSum_1", keepdims=0)


FORMS = {"dense": dense_experts, "picked": picked_experts, "gathered": gathered_experts, "tiled": tiled_experts}


def layer(g, number, x):
    at = f"/layers.{number}/mlp"
    o = g.o
    scores = g.op("MatMul", [x, g.weight(f"{at}.gate.weight", o.hidden, o.experts)], f"{at}/gate/MatMul")
    scores = g.op("Softmax", [scores], f"{at}/Softmax", axis=-1)
    weights, ids = g.op("TopK", [scores, g.const(f"{at}/k", np.array([o.top_k], np.int64))], f"{at}/TopK", 2,
                        axis=-1, largest=1, sorted=1)
    weights = g.op("Div", [weights, g.op("ReduceSum", [weights, "last"], f"{at}/ReduceSum", keepdims=1)],
                   f"{at}/Div")
    y = FORMS[o.form](g, at, x, ids, weights)
    return g.op("Add", [x, y], f"{at}/Add")


def make(options):
    g = Graph(options)
    g.tensors.append(numpy_helper.from_array(np.array([-1], np.int64), "last"))
    shape = ["tokens", options.hidden]
    x = "x"
    for number in range(options.layers):
        x = layer(g, number, x)
    g.op("Identity", [x], "y")
    graph = helper.make_graph(
        g.nodes, "unrolled", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], g.tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--form", choices=list(FORMS), default="dense")
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--experts", type=int, default=8)
    p.add_argument("--top-k", type=int, default=2)
    p.add_argument("--hidden", type=int, default=16)
    p.add_argument("--inner", type=int, default=8)
    p.add_argument("--activation", choices=["silu", "relu"], default="silu")
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    model = make(options)
    onnx.save(model, options.out)
    print(f"{options.out}: {len(model.graph.node)} nodes, {len(model.graph.initializer)} tensors")


if __name__ == "__main__":
    main()
