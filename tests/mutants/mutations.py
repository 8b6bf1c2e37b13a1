"""Small faults put into ONNX models of mixtures of experts, as broken exporters and people's edits make them.

Each mutation is a function (editor, random) -> text that says what it did, or None where the model has no such place.
The places are near a router (a TopK or a MoE node): what a compiler must recognise there is what is put to the test.
Nothing here says whether a mutant is still a valid model: a reference runtime decides that.
"""
import copy

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MUTATIONS = {}
ROUTERS = ("TopK", "MoE", "QMoE")


def mutation(function):
    MUTATIONS[function.__name__] = function
    return function


class Editor:
    """A copy of a model with what mutations ask: nodes near the routers, constants by name, who uses what."""

    def __init__(self, model):
        self.model = copy.deepcopy(model)
        self.graph = self.model.graph
        self.types = {}
        try:
            shown = onnx.shape_inference.infer_shapes(self.model).graph
            for info in list(shown.value_info) + list(shown.input) + list(shown.output):
                self.types[info.name] = info.type.tensor_type
        except Exception:
            pass
        del self.graph.value_info[:] # what it says of a mutant would be a second fault
        self.producers = {name: node for node in self.graph.node for name in node.output if name}
        self.users = {}
        for node in self.graph.node:
            for at, name in enumerate(node.input):
                self.users.setdefault(name, []).append((node, at))
        self.outputs = {o.name for o in self.graph.output}
        self.near = self.find_near()

    def find_near(self):
        """Nodes a little before each router and up to the next one; all of a small graph."""
        nodes = list(self.graph.node)
        if len(nodes) <= 150:
            return nodes
        near = set()
        for i, node in enumerate(nodes):
            if node.op_type in ROUTERS:
                near.update(range(max(0, i - 12), min(len(nodes), i + 260)))
        return [nodes[i] for i in sorted(near)] or nodes

    def of(self, *kinds):
        return [n for n in self.near if n.op_type in kinds]

    def constant(self, name):
        """The array of an initializer or of a Constant node; None for anything else."""
        for tensor in self.graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        node = self.producers.get(name)
        if node is not None and node.op_type == "Constant":
            for a in node.attribute:
                if a.name == "value":
                    return numpy_helper.to_array(a.t)
        return None

    def set_constant(self, name, array):
        array = np.ascontiguousarray(array)
        for tensor in self.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(array, name))
                return
        for a in self.producers[name].attribute:
            if a.name == "value":
                a.t.CopyFrom(numpy_helper.from_array(array, name))
                return
        raise KeyError(name)

    def own_constant(self, node, at):
        """The constant at an input, made this node's own, so that others keep theirs; (name, array) or None."""
        if at >= len(node.input) or not node.input[at]:
            return None
        array = self.constant(node.input[at])
        if array is None:
            return None
        name = self.fresh("mutant_constant")
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        node.input[at] = name
        return name, array

    def fresh(self, stem):
        taken = {t.name for t in self.graph.initializer} | set(self.producers) | {
            name for n in self.graph.node for name in n.output}
        number = 0
        while f"{stem}_{number}" in taken:
            number += 1
        return f"{stem}_{number}"

    def weights(self, *ranks):
        """(node, input, name, array) of float constants with one of the ranks that nodes near a router use."""
        found = []
        for node in self.near:
            for at, name in enumerate(node.input):
                array = self.constant(name) if name else None
                if array is not None and array.ndim in ranks and array.dtype.kind == "f" and array.size > 1:
                    found.append((node, at, name, array))
        return found

    def rank(self, name):
        t = self.types.get(name)
        return len(t.shape.dim) if t is not None and t.HasField("shape") else None

    def is_float(self, name):
        t = self.types.get(name)
        return t is not None and t.elem_type == TensorProto.FLOAT

    def insert(self, before, kind, inputs, **attributes):
        out = self.fresh("mutant_value")
        node = helper.make_node(kind, inputs, [out], name=out, **attributes)
        self.graph.node.insert(list(self.graph.node).index(before), node)
        return out

    def after(self, node):
        """A name for what the node gave, with its users left as they are: they see what is put in its place."""
        old = node.output[0]
        new = self.fresh("mutant_inner")
        node.output[0] = new
        return old, new

    def append_after(self, node, kind, old, inputs, **attributes):
        at = list(self.graph.node).index(node)
        self.graph.node.insert(at + 1, helper.make_node(kind, inputs, [old], name=self.fresh("mutant_node"),
                                                        **attributes))

    def sort(self):
        """Operands first, where an edit mixed them up."""
        known = {i.name for i in self.graph.input} | {t.name for t in self.graph.initializer} | {""}
        waiting, done = list(self.graph.node), []
        while waiting:
            ready = [n for n in waiting if all(i in known for i in n.input) or subgraphs(n)]
            if not ready:
                done += waiting
                break
            for n in ready:
                known.update(n.output)
            done += ready
            waiting = [n for n in waiting if not any(n is r for r in ready)]
        copies = [copy.deepcopy(n) for n in done]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def subgraphs(node):
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def pick(random, things):
    return things[random.integers(len(things))] if things else None


def attribute(node, name):
    return next((a for a in node.attribute if a.name == name), None)


def set_attribute(node, name, value):
    old = attribute(node, name)
    if old is not None:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, value))


def said(node, text):
    return f"{node.op_type} '{node.name or node.output[0]}': {text}"


# ---- experts ---------------------------------------------------------------------------------------------------

@mutation
def addend_lost(e, random):
    """An expert's part of the sum is left out."""
    node = pick(random, [n for n in e.of("Add", "ScatterND", "ScatterElements", "Sum") if n.output[0] in e.users])
    if node is None:
        return None
    at = int(random.integers(2)) if node.op_type in ("Add", "Sum") else 0
    if e.types.get(node.input[at]) is not None and e.rank(node.input[at]) != e.rank(node.output[0]):
        at = 1 - at if node.op_type == "Add" else at
    for user, k in e.users[node.output[0]]:
        user.input[k] = node.input[at]
    return said(node, f"left out; its input {at} goes on")


@mutation
def last_expert_cut(e, random):
    """The stacked weights hold one expert less."""
    stacked = e.weights(3)
    if not stacked:
        return None
    node, at, name, array = pick(random, stacked)
    e.set_constant(name, array[:-1])
    return said(node, f"input {at} loses its last slice")


@mutation
def expert_added(e, random):
    """The stacked weights hold one expert more."""
    found = pick(random, e.weights(3))
    if not found:
        return None
    node, at, name, array = found
    e.set_constant(name, np.concatenate([array, array[:1]]))
    return said(node, f"input {at} gets a slice too many")


@mutation
def weights_exchanged(e, random):
    """Two experts' tensors, or slices of a stack, change places."""
    found = pick(random, e.weights(2, 3))
    if not found:
        return None
    node, at, name, array = found
    if array.ndim == 3 and array.shape[0] > 1:
        i, k = random.choice(array.shape[0], 2, replace=False)
        array = array.copy()
        array[[i, k]] = array[[k, i]]
        e.set_constant(name, array)
        return said(node, f"slices {i} and {k} of input {at} change places")
    same = [w for w in e.weights(2) if w[3].shape == array.shape and w[2] != name]
    if not same:
        return None
    other, k, _, _ = pick(random, same)
    node.input[at], other.input[k] = other.input[k], node.input[at]
    return said(node, f"changes weights with {said(other, 'input %d' % k)}")


@mutation
def weight_repeated(e, random):
    """One expert gets another's tensor: two experts are equal."""
    found = pick(random, e.weights(2, 3))
    if not found:
        return None
    node, at, name, array = found
    if array.ndim == 3 and array.shape[0] > 1:
        array = array.copy()
        array[-1] = array[0]
        e.set_constant(name, array)
        return said(node, f"last slice of input {at} is the first")
    same = [w for w in e.weights(2) if w[3].shape == array.shape and w[2] != name]
    if not same:
        return None
    other = pick(random, same)
    node.input[at] = other[2]
    return said(node, f"gets the weights of {said(other[0], 'input %d' % other[1])}")


@mutation
def weight_transposed(e, random):
    found = pick(random, e.weights(2, 3))
    if not found:
        return None
    node, at, name, array = found
    e.set_constant(name, np.swapaxes(array, -1, -2))
    return said(node, f"input {at} {array.shape} is transposed")


@mutation
def weight_scaled(e, random):
    found = pick(random, e.weights(1, 2, 3))
    if not found:
        return None
    node, at, _, array = found
    name, _ = e.own_constant(node, at)
    e.set_constant(name, array * np.asarray(1.5, array.dtype))
    return said(node, f"input {at} is 1.5 times as large")


@mutation
def bias_added(e, random):
    """One product gets a bias that the others haven't."""
    node = pick(random, [n for n in e.of("MatMul", "Gemm") if e.is_float(n.output[0]) and n.output[0] not in e.outputs])
    if node is None:
        return None
    old, inner = e.after(node)
    bias = e.fresh("mutant_bias")
    e.graph.initializer.append(numpy_helper.from_array(np.array([0.25], np.float32), bias))
    e.append_after(node, "Add", old, [inner, bias])
    return said(node, "plus a bias")


@mutation
def biases_exchanged(e, random):
    adds = [(n, k) for n in e.of("Add", "Gemm") for k in range(len(n.input))
            if (a := e.constant(n.input[k])) is not None and a.ndim <= 2 and a.size > 1]
    first = pick(random, adds)
    if first is None:
        return None
    shape = e.constant(first[0].input[first[1]]).shape
    others = [(n, k) for n, k in adds if n is not first[0] and e.constant(n.input[k]).shape == shape]
    second = pick(random, others)
    if second is None:
        return None
    (a, i), (b, k) = first, second
    a.input[i], b.input[k] = b.input[k], a.input[i]
    return said(a, f"changes biases with {said(b, '')}")


@mutation
def gate_and_up_exchanged(e, random):
    """Two products of the same input change their weights."""
    pairs = []
    products = e.of("MatMul", "Gemm")
    for i, a in enumerate(products):
        for b in products[i + 1:i + 4]:
            x, y = e.constant(a.input[1]), e.constant(b.input[1])
            if a.input[0] == b.input[0] and x is not None and y is not None and x.shape == y.shape:
                pairs.append((a, b))
    found = pick(random, pairs)
    if found is None:
        return None
    a, b = found
    a.input[1], b.input[1] = b.input[1], a.input[1]
    return said(a, f"changes weights with {said(b, '')}")


@mutation
def activation_replaced(e, random):
    kinds = ["Sigmoid", "Relu", "Tanh", "Gelu", "Erf", "Swish", "Softplus", "Elu", "LeakyRelu", "HardSigmoid", "Exp"]
    node = pick(random, e.of(*kinds))
    if node is None:
        return None
    new = pick(random, [k for k in ("Sigmoid", "Relu", "Tanh", "Erf", "Softplus") if k != node.op_type])
    was = node.op_type
    node.op_type = new
    node.domain = ""
    del node.attribute[:]
    return said(node, f"was {was}")


# ---- weights of the choices ------------------------------------------------------------------------------------

@mutation
def share_before_product(e, random):
    """The weight of the choice multiplies what goes into the last product, not what comes out."""
    found = []
    for n in e.of("Mul"):
        for k in (0, 1):
            p = e.producers.get(n.input[k])
            if p is not None and p.op_type == "MatMul" and len(e.users[p.output[0]]) == 1:
                found.append((n, k, p))
    got = pick(random, found)
    if got is None:
        return None
    n, k, p = got
    share = n.input[1 - k]
    p.input[0] = e.insert(p, "Mul", [p.input[0], share])
    n.op_type = "Identity"
    only = n.input[k]
    del n.input[:]
    n.input.append(only)
    e.sort()
    return said(p, "is multiplied before instead of after")


@mutation
def share_before_activation(e, random):
    """The weight of the choice goes in front of the nonlinearity."""
    products = [n for n in e.of("Mul") if (p := e.producers.get(n.input[0])) is not None and p.op_type == "MatMul"
                or (p := e.producers.get(n.input[1])) is not None and p.op_type == "MatMul"]
    acts = [n for n in e.of("Sigmoid", "Relu", "Gelu", "Tanh", "Erf", "Swish")]
    n, act = pick(random, products), pick(random, acts)
    if n is None or act is None:
        return None
    k = 0 if (p := e.producers.get(n.input[0])) is not None and p.op_type == "MatMul" else 1
    share = n.input[1 - k]
    act.input[0] = e.insert(act, "Mul", [act.input[0], share])
    n.op_type = "Identity"
    only = n.input[k]
    del n.input[:]
    n.input.append(only)
    e.sort()
    return said(act, "gets the weight of the choice")


@mutation
def share_squared(e, random):
    """A factor of a product counts twice."""
    node = pick(random, e.of("Mul"))
    if node is None:
        return None
    twice = e.insert(node, "Mul", [node.input[1], node.input[1]])
    node.input[1] = twice
    return said(node, "its second factor is squared")


@mutation
def arithmetic_replaced(e, random):
    node = pick(random, [n for n in e.of("Mul", "Add", "Sub", "Div") if e.is_float(n.output[0])])
    if node is None:
        return None
    was = node.op_type
    node.op_type = pick(random, [k for k in ("Mul", "Add", "Sub", "Div") if k != was])
    return said(node, f"was {was}")


@mutation
def operands_exchanged(e, random):
    node = pick(random, [n for n in e.of("Div", "Sub", "MatMul", "Where", "Gather", "Less", "Greater")
                         if len(n.input) >= 2])
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return said(node, "its first two operands change places")


# ---- router ----------------------------------------------------------------------------------------------------

def router_weights(e):
    """The constants that the product before a TopK or MoE has: (product, input, array, axis of the experts)."""
    found = []
    for node in e.of(*ROUTERS):
        name = node.input[1] if node.op_type != "TopK" else node.input[0]
        for _ in range(12):
            p = e.producers.get(name)
            if p is None:
                break
            if p.op_type in ("MatMul", "Gemm"):
                w = e.constant(p.input[1])
                if w is not None and w.ndim == 2:
                    trans = p.op_type == "Gemm" and attribute(p, "transB") is not None and attribute(p, "transB").i
                    found.append((p, 1, w, 0 if trans else 1))
                    break
                q = e.producers.get(p.input[1])
                if q is not None and q.op_type == "Transpose" and e.constant(q.input[0]) is not None:
                    found.append((q, 0, e.constant(q.input[0]), 0))
                break
            name = p.input[0]
    return found


@mutation
def router_wider(e, random):
    found = pick(random, router_weights(e))
    if found is None:
        return None
    node, at, w, axis = found
    name, _ = e.own_constant(node, at)
    more = random.standard_normal(w.take([0], axis).shape).astype(w.dtype)
    e.set_constant(name, np.concatenate([w, more], axis))
    return said(node, "the router knows an expert more")


@mutation
def router_narrower(e, random):
    found = pick(random, router_weights(e))
    if found is None:
        return None
    node, at, w, axis = found
    name, _ = e.own_constant(node, at)
    e.set_constant(name, w.take(range(w.shape[axis] - 1), axis))
    return said(node, "the router knows an expert less")


@mutation
def router_ties(e, random):
    """Two rows of the router are equal: TopK chooses the lower number (of MoE nodes nobody says which)."""
    found = pick(random, router_weights(e)) if e.of("TopK") else None
    if found is None:
        return None
    node, at, w, axis = found
    name, _ = e.own_constant(node, at)
    w = w.copy()
    if axis == 0:
        w[-1] = w[0]
    else:
        w[:, -1] = w[:, 0]
    e.set_constant(name, w)
    return said(node, "the router's first and last rows are equal")


@mutation
def expert_barred(e, random):
    """A bias of minus infinity on one expert's score."""
    node = pick(random, e.of("TopK"))
    if node is None or not e.is_float(node.input[0]):
        return None
    shape = e.types[node.input[0]].shape.dim
    if not shape or not shape[-1].dim_value:
        return None
    bias = np.zeros(shape[-1].dim_value, np.float32)
    bias[random.integers(len(bias))] = -np.inf
    name = e.fresh("mutant_bias")
    e.graph.initializer.append(numpy_helper.from_array(bias, name))
    node.input[0] = e.insert(node, "Add", [node.input[0], name])
    return said(node, "one expert can't be chosen")


@mutation
def k_changed(e, random):
    node = pick(random, e.of("TopK"))
    if node is None:
        return None
    got = e.own_constant(node, 1)
    if got is None:
        return None
    k = got[1] + (1 if random.integers(2) else -1)
    e.set_constant(got[0], k)
    return said(node, f"k {got[1].ravel()} is {k.ravel()}")


@mutation
def topk_attributes(e, random):
    node = pick(random, e.of("TopK"))
    if node is None:
        return None
    name, value = pick(random, [("largest", 0), ("axis", 0), ("sorted", 0)])
    set_attribute(node, name, value)
    return said(node, f"{name} = {value}")


@mutation
def softmax_axis(e, random):
    node = pick(random, e.of("Softmax", "LogSoftmax"))
    if node is None:
        return None
    axis = int(random.integers(2))
    set_attribute(node, "axis", axis)
    return said(node, f"axis = {axis}")


@mutation
def moe_attributes(e, random):
    node = pick(random, e.of("MoE", "QMoE", "MatMulNBits", "GatherBlockQuantized"))
    if node is None:
        return None
    name, value = pick(random, {
        "MoE": [("k", 1), ("k", 3), ("k", 99), ("k", 0), ("activation_type", "gelu"), ("activation_type", "relu"),
                ("activation_type", "what"), ("normalize_routing_weights", 1), ("swiglu_fusion", 1),
                ("swiglu_limit", 0.5), ("activation_alpha", 1.7), ("use_sparse_mixer", 1)],
        "QMoE": [("k", 1), ("k", 99), ("activation_type", "gelu"), ("expert_weight_bits", 8), ("expert_weight_bits", 5),
                 ("block_size", 16), ("block_size", 7), ("quant_type", "what"), ("swiglu_fusion", 2),
                 ("weights_prepacked", 1)],
        "MatMulNBits": [("K", 31), ("N", 5), ("bits", 8), ("bits", 3), ("block_size", 16), ("block_size", 24)],
        "GatherBlockQuantized": [("bits", 8), ("block_size", 32), ("block_size", 5), ("gather_axis", 1),
                                 ("quantize_axis", 0)],
    }[node.op_type])
    set_attribute(node, name, value)
    return said(node, f"{name} = {value}")


@mutation
def quantised_shapes(e, random):
    """Codes, scales or zero points of another shape."""
    node = pick(random, e.of("QMoE", "MatMulNBits", "GatherBlockQuantized", "MoE"))
    if node is None:
        return None
    at = pick(random, [k for k in range(1, len(node.input)) if e.constant(node.input[k]) is not None])
    if at is None:
        return None
    name, array = e.own_constant(node, at)
    how = random.integers(4)
    if how == 0:
        new = array[:-1]
    elif how == 1:
        new = array.reshape(-1)
    elif how == 2:
        new = array[..., :-1]
    else:
        new = np.swapaxes(array, 0, -1)
    e.set_constant(name, new)
    return said(node, f"input {at} {array.shape} is {new.shape}")


@mutation
def quantised_values(e, random):
    """Other codes, scales or zero points: legal, and other numbers."""
    node = pick(random, e.of("QMoE", "MatMulNBits", "GatherBlockQuantized", "MoE"))
    if node is None:
        return None
    at = pick(random, [k for k in range(1, len(node.input)) if e.constant(node.input[k]) is not None])
    if at is None:
        return None
    name, array = e.own_constant(node, at)
    e.set_constant(name, np.flip(array, 0) if array.dtype.kind == "u" else array * np.asarray(0.5, array.dtype))
    return said(node, f"input {at} has other values")


# ---- masks, indices, extents -----------------------------------------------------------------------------------

@mutation
def mask_constant(e, random):
    """The number that a mask compares with, or picks by, is another one."""
    found = [(n, k) for n in e.of("Equal", "OneHot", "Less", "Greater", "Where", "GreaterOrEqual") for k in range(len(n.input))
             if (a := e.constant(n.input[k])) is not None and a.size <= 4 and a.dtype.kind in "if"]
    got = pick(random, found)
    if got is None:
        return None
    node, at = got
    name, array = e.own_constant(node, at)
    new = array + np.asarray(1, array.dtype)
    e.set_constant(name, new)
    return said(node, f"{array.tolist()} is {new.tolist()}")


@mutation
def index_off_by_one(e, random):
    found = [(n, 1) for n in e.of("Gather", "GatherND", "GatherElements")
             if (a := e.constant(n.input[1])) is not None and a.size <= 4 and a.dtype.kind == "i"]
    got = pick(random, found)
    if got is None:
        return None
    name, array = e.own_constant(*got)
    new = array + np.asarray(1 if random.integers(2) else -1, array.dtype)
    e.set_constant(name, new)
    return said(got[0], f"index {array.tolist()} is {new.tolist()}")


@mutation
def slice_bounds(e, random):
    node = pick(random, e.of("Slice"))
    if node is None:
        return None
    at = pick(random, [k for k in range(1, len(node.input)) if e.constant(node.input[k]) is not None])
    if at is None:
        return None
    name, array = e.own_constant(node, at)
    new = array + np.asarray(1 if random.integers(2) else -1, array.dtype)
    e.set_constant(name, new)
    return said(node, f"input {at} {array.tolist()} is {new.tolist()}")


@mutation
def extents_changed(e, random):
    found = [(n, 1) for n in e.of("Reshape", "Expand", "Split", "Tile")
             if len(n.input) > 1 and (a := e.constant(n.input[1])) is not None and a.size]
    got = pick(random, found)
    if got is None:
        return None
    name, array = e.own_constant(*got)
    new = array.copy()
    if array.size > 1 and random.integers(2):
        i, k = random.choice(array.size, 2, replace=False)
        new[[i, k]] = new[[k, i]]
    else:
        new[random.integers(array.size)] += 1
    e.set_constant(name, new)
    return said(got[0], f"{array.tolist()} is {new.tolist()}")


@mutation
def sum_axis(e, random):
    node = pick(random, e.of("ReduceSum", "ReduceMax", "ReduceMean"))
    if node is None:
        return None
    a = attribute(node, "axes")
    if a is not None:
        values = list(a.ints)
        set_attribute(node, "axes", [v - 1 if v else v + 1 for v in values])
        return said(node, f"axes {values} in another place")
    got = e.own_constant(node, 1)
    if got is None:
        return None
    new = np.where(got[1] != 0, got[1] - 1, got[1] + 1)
    e.set_constant(got[0], new)
    return said(node, f"axes {got[1].tolist()} are {new.tolist()}")


@mutation
def sum_replaced(e, random):
    node = pick(random, e.of("ReduceSum"))
    if node is None:
        return None
    node.op_type = pick(random, ["ReduceMax", "ReduceMean", "ReduceProd"])
    return said(node, "was ReduceSum")


@mutation
def keepdims_flipped(e, random):
    node = pick(random, e.of("ReduceSum", "ReduceMax", "ReduceMean"))
    if node is None:
        return None
    a = attribute(node, "keepdims")
    set_attribute(node, "keepdims", 0 if a is None or a.i else 1)
    return said(node, "keepdims is the other way")


@mutation
def scatter_reduction(e, random):
    node = pick(random, e.of("ScatterND", "ScatterElements"))
    if node is None:
        return None
    a = attribute(node, "reduction")
    was = a.s.decode() if a is not None else "none"
    new = pick(random, [r for r in ("none", "add", "mul", "max") if r != was])
    set_attribute(node, "reduction", new)
    return said(node, f"reduction {was} is {new}")


@mutation
def concat_mixed(e, random):
    node = pick(random, [n for n in e.of("Concat") if len(n.input) > 1])
    if node is None:
        return None
    i, k = random.choice(len(node.input), 2, replace=False)
    node.input[i], node.input[k] = node.input[k], node.input[i]
    return said(node, f"pieces {i} and {k} change places")


@mutation
def axis_changed(e, random):
    node = pick(random, [n for n in e.of("Gather", "Concat", "Split", "OneHot", "CumSum", "ScatterElements",
                                         "GatherElements", "ArgMax") if attribute(n, "axis") is not None])
    if node is None:
        return None
    a = attribute(node, "axis").i
    set_attribute(node, "axis", 1 if a == 0 else 0)
    return said(node, f"axis {a} is another")


@mutation
def perm_changed(e, random):
    node = pick(random, e.of("Transpose"))
    a = attribute(node, "perm") if node is not None else None
    if a is None or len(a.ints) < 2:
        return None
    perm = list(a.ints)
    i, k = random.choice(len(perm), 2, replace=False)
    perm[i], perm[k] = perm[k], perm[i]
    was = list(a.ints)
    set_attribute(node, "perm", perm)
    return said(node, f"perm {was} is {perm}")


# ---- types and wiring ------------------------------------------------------------------------------------------

@mutation
def cast_changed(e, random):
    node = pick(random, e.of("Cast"))
    if node is None:
        return None
    was = attribute(node, "to").i
    new = pick(random, [t for t in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE,
                                    TensorProto.INT32) if t != was])
    set_attribute(node, "to", new)
    return said(node, f"to {was} is {new}")


@mutation
def weight_of_other_type(e, random):
    found = pick(random, e.weights(1, 2, 3))
    if not found:
        return None
    node, at, _, array = found
    name, _ = e.own_constant(node, at)
    e.set_constant(name, array.astype(np.float64 if array.dtype == np.float32 else np.float32))
    return said(node, f"input {at} is of another type")


@mutation
def residual_in_the_sum(e, random):
    """Something that isn't an expert's is added within the sum of the experts."""
    adds = [n for n in e.of("Add", "ScatterND", "ScatterElements") if e.is_float(n.output[0]) and n.output[0] in e.users]
    node = pick(random, adds)
    if node is None:
        return None
    rank = e.rank(node.output[0])
    others = [n.input[0] for n in e.of("MatMul", "Gemm", "Gather", "Reshape") if e.rank(n.input[0]) == rank
              and e.is_float(n.input[0]) and e.constant(n.input[0]) is None]
    other = pick(random, others)
    if other is None:
        return None
    old, inner = e.after(node)
    e.append_after(node, "Add", old, [inner, other])
    e.sort()
    return said(node, f"'{other}' is added, too")


@mutation
def inner_value_used(e, random):
    """Someone else uses a value within an expert or a router."""
    out = next((o.name for o in e.graph.output if e.is_float(o.name)), None)
    node = pick(random, [n for n in e.near if n.output and e.is_float(n.output[0]) and n.output[0] != out])
    if out is None or node is None or out not in e.producers:
        return None
    last = e.producers[out]
    at = list(last.output).index(out)
    last.output[at] = "mutant_result"
    for other, k in e.users.get(out, []):
        other.input[k] = "mutant_result"
    e.graph.node.extend([
        helper.make_node("ReduceL2", [node.output[0]], ["mutant_norm"], keepdims=0),
        helper.make_node("Tanh", ["mutant_norm"], ["mutant_small"]),
        helper.make_node("Add", ["mutant_result", "mutant_small"], [out], name="mutant_last")])
    return said(node, "its result is used elsewhere, too")


@mutation
def inner_value_is_output(e, random):
    node = pick(random, [n for n in e.near if n.output and e.is_float(n.output[0]) and n.output[0] not in e.outputs
                         and e.rank(n.output[0]) is not None])
    if node is None:
        return None
    info = onnx.ValueInfoProto()
    info.name = node.output[0]
    info.type.tensor_type.CopyFrom(e.types[node.output[0]])
    e.graph.output.append(info)
    return said(node, "its result is an output of the model")


@mutation
def node_bypassed(e, random):
    """A node that keeps type and rank is left out."""
    found = [n for n in e.near if n.input and n.output and n.output[0] in e.users and len(n.output) == 1
             and e.rank(n.input[0]) is not None and e.rank(n.input[0]) == e.rank(n.output[0])
             and e.types[n.input[0]].elem_type == e.types[n.output[0]].elem_type]
    node = pick(random, found)
    if node is None:
        return None
    for user, k in e.users[node.output[0]]:
        user.input[k] = node.input[0]
    return said(node, "left out")


@mutation
def wires_crossed(e, random):
    """Two nodes of the same type change their first inputs."""
    node = pick(random, [n for n in e.near if n.input and n.op_type not in ("Constant", "Shape")])
    others = [n for n in e.near if n is not node and n.op_type == node.op_type and n.input
              and n.input[0] != node.input[0]] if node is not None else []
    other = pick(random, others)
    if other is None:
        return None
    node.input[0], other.input[0] = other.input[0], node.input[0]
    e.sort()
    return said(node, f"changes its input with {said(other, '')}")


def mutate(model, name, seed):
    """The mutant and what was done to it, or None."""
    random = np.random.default_rng(seed)
    editor = Editor(model)
    done = MUTATIONS[name](editor, random)
    return (editor.model, done) if done else None
