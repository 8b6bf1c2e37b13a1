"""Writes the small ONNX models that the unit tests read, into tests/data/onnx.

Usage: python make_onnx_cases.py [OUTDIR]      needs the `onnx` and `numpy` packages

bad_*.onnx    each is at fault in one way; tests/unit/test_onnx_hostile.c lists the diagnostics
ok_*.onnx     with ok_*.npz: inputs `in_<name>` and outputs `out_<name>` as onnx.reference computes them
"""

import pathlib
import struct
import sys

import float8_cases
import moe_cases
import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

HERE = pathlib.Path(__file__).resolve().parent
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "data" / "onnx"


# ---- raw wire format ---------------------------------------------------------------------------


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tag(number, wire_type):
    return varint(number << 3 | wire_type)


def field(number, payload):
    return tag(number, 2) + varint(len(payload)) + payload


def write(name, content):
    (OUT / name).write_bytes(content)


# ---- models -------------------------------------------------------------------------------------


def info(name, elem=T.FLOAT, shape=("n", 4)):
    return h.make_tensor_value_info(name, elem, shape)


def node(op, inputs, outputs, name="the_node", **attrs):
    return h.make_node(op, inputs, outputs, name=name, **attrs)


def model(nodes, inputs=None, outputs=None, initializers=(), opset=20, functions=(), domains=()):
    graph = h.make_graph(
        nodes,
        "case",
        inputs if inputs is not None else [info("x")],
        outputs if outputs is not None else [info("y", shape=None)],
        list(initializers),
    )
    opsets = [h.make_opsetid("", opset)] if opset is not None else []
    opsets += [h.make_opsetid(d, 1) for d in domains]
    made = h.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    made.producer_name = ""
    return made


def bad(name, made):
    write(f"bad_{name}.onnx", made.SerializeToString(deterministic=True))


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


RELU = node("Relu", ["x"], ["y"])


def wire_cases():
    good = model([RELU]).SerializeToString(deterministic=True)
    version = tag(1, 0) + varint(10)
    graph = field(7, b"")
    write("bad_wire_empty.onnx", b"")
    write("bad_wire_text.onnx", b"this is not a model\n")
    write("bad_wire_truncated_varint.onnx", tag(1, 0) + b"\x80")
    write("bad_wire_overlong_varint.onnx", tag(1, 0) + b"\xff" * 10 + b"\x01")
    write("bad_wire_varint_65_bits.onnx", tag(1, 0) + b"\xff" * 9 + b"\x02")
    write("bad_wire_tag_33_bits.onnx", b"\x80\x80\x80\x80\x10\x00")
    write("bad_wire_length.onnx", version + tag(7, 2) + varint(1000) + b"abc")
    write("bad_wire_length_64.onnx", tag(7, 2) + b"\xff" * 9 + b"\x01")
    inner = tag(1, 2) + varint(50) + b"\x00" * 10  # a node longer than its graph
    write("bad_wire_child_length.onnx", version + field(7, inner) + b"\x00" * 100)
    write("bad_wire_group.onnx", version + tag(30, 3) + tag(30, 4))
    write("bad_wire_group_known.onnx", version + tag(7, 3) + tag(7, 4))
    write("bad_wire_type_6.onnx", version + varint(30 << 3 | 6))
    write("bad_wire_type_of_field.onnx", tag(7, 0) + varint(1))
    write("bad_wire_field_0.onnx", varint(2) + varint(0))
    write("bad_wire_fixed32.onnx", tag(30, 5) + b"abc")
    write("bad_wire_fixed64.onnx", tag(30, 1) + b"abcdefg")
    write("bad_wire_two_graphs.onnx", version + graph + graph)
    nested = b""
    for _ in range(80):  # an attribute of a node of a graph of an attribute ...
        nested = field(6, field(1, field(5, nested)))
    write("bad_wire_nested.onnx", version + field(7, field(1, field(5, nested))))
    deep_type = b""
    for _ in range(5000):
        deep_type = field(4, field(1, deep_type))
    write(
        "bad_wire_nested_type.onnx",
        version + field(7, field(11, field(1, b"x") + field(2, deep_type))),
    )
    write("bad_wire_nul.onnx", version + field(7, field(1, field(4, b"Re\0lu"))))
    write("bad_wire_utf8.onnx", version + field(7, field(1, field(4, b"Rel\xff"))))
    write("bad_wire_long_name.onnx", version + field(7, field(1, field(4, b"a" * 65537))))
    floats = field(5, field(4, b"12345") + field(8, b"w") + tag(2, 0) + varint(1))
    write("bad_wire_packed.onnx", version + field(7, floats))
    ints = field(5, field(7, b"\x80\x80"))
    write("bad_wire_packed_varint.onnx", version + field(7, ints))
    write("bad_wire_cut.onnx", good[: len(good) // 2])


def meaning_cases():
    bad("opset_6", model([RELU], opset=6))
    bad("opset_99", model([RELU], opset=99))
    bad("no_opset", model([RELU], opset=None))
    made = model([RELU])
    made.opset_import.append(h.make_opsetid("ai.onnx", 21))
    bad("opset_twice", made)
    made = model([RELU])
    made.ir_version = 99
    bad("ir_version", made)
    bad("unknown_op", model([node("MatMull", ["x", "x"], ["y"])]))
    bad("unknown_op_in_domain", model([h.make_node("Foo", ["x"], ["y"], name="f", domain="acme")], domains=["acme"]))
    bad("unknown_domain", model([h.make_node("Foo", ["x"], ["y"], name="f", domain="acme")]))
    bad("op_too_new", model([node("Gelu", ["x"], ["y"])], opset=19))
    bad("two_unknown_ops", model([
        node("Foo", ["x"], ["a"], "n1"), node("Foo", ["a"], ["b"], "n2"), node("Relux", ["b"], ["y"], "n3")]))
    bad("no_op_type", model([node("", ["x"], ["y"])]))
    bad("refused_op", model([node("LSTM", ["x", "x", "x"], ["y"])]))
    bad("cycle", model([node("Add", ["x", "b"], ["a"], "first"), node("Relu", ["a"], ["b"], "second"),
                        node("Relu", ["a"], ["y"], "third")]))
    bad("self_cycle", model([node("Add", ["x", "y"], ["y"])]))
    bad("dangling", model([node("Add", ["x", "weihgt"], ["y"])], initializers=[tensor("weight", np.ones(4, np.float32))]))
    bad("dangling_output", model([node("Relu", ["x"], ["z"])]))
    bad("duplicate_output", model([node("Relu", ["x"], ["y"], "a"), node("Relu", ["x"], ["y"], "b")]))
    bad("duplicate_input", model([RELU], inputs=[info("x"), info("x")]))
    bad("duplicate_initializer", model([RELU], initializers=[tensor("w", [1.0]), tensor("w", [2.0])]))
    bad("duplicate_result", model([RELU], outputs=[info("y", shape=None), info("y", shape=None)]))
    bad("no_outputs", model([RELU], outputs=[]))
    bad("input_unnamed", model([RELU], inputs=[info("")]))
    bad("too_few_inputs", model([node("Add", ["x"], ["y"])]))
    bad("too_many_inputs", model([node("Relu", ["x", "x"], ["y"])]))
    bad("missing_input", model([node("Add", ["", "x"], ["y"])]))
    bad("too_many_outputs", model([node("Relu", ["x"], ["y", "z"])]))
    bad("attr_type", model([node("Concat", ["x"], ["y"], axis=1.5)]))
    bad("attr_unknown", model([node("Concat", ["x"], ["y"], axis=0, axes=1)]))
    bad("attr_missing", model([node("Concat", ["x"], ["y"])]))
    made = model([node("Concat", ["x"], ["y"], axis=0)])
    made.graph.node[0].attribute.append(h.make_attribute("axis", 1))
    bad("attr_twice", made)
    made = model([node("Softmax", ["x"], ["y"])])
    made.graph.node[0].attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="a")
    bad("attr_ref_outside", made)
    bad("cast_to", model([node("Cast", ["x"], ["y"], to=99)]))
    bad("axis_range", model([node("Softmax", ["x"], ["y"], axis=2)]))
    bad("shapes_differ", model([node("MatMul", ["x", "w"], ["y"])], initializers=[tensor("w", np.ones((5, 3), np.float32))]))
    bad("elems_differ", model([node("Add", ["x", "w"], ["y"])], initializers=[tensor("w", np.ones(4, np.int64))]))
    bad("squeeze", model([node("Squeeze", ["x", "a"], ["y"])], initializers=[tensor("a", np.array([1]))]))
    bad("squeeze_unknown", model([node("Squeeze", ["x"], ["y"])]))
    bad("unsqueeze_twice", model([node("Unsqueeze", ["x", "a"], ["y"])], initializers=[tensor("a", np.array([1, -3]))]))
    bad("axes_at_run_time", model([node("ReduceSum", ["x", "a"], ["y"])], inputs=[info("x"), info("a", T.INT64, [1])]))
    bad("output_type", model([RELU], outputs=[info("y", T.INT64, shape=None)]))
    bad("input_no_shape", model([RELU], inputs=[info("x", shape=None)]))
    bad("input_rank_9", model([RELU], inputs=[info("x", shape=[1] * 9)]))
    bad("input_negative", model([RELU], inputs=[info("x", shape=[-2, 4])]))
    bad("input_overflow", model([RELU], inputs=[info("x", shape=[2**40, 2**40])]))
    bad("input_elem", model([RELU], inputs=[info("x", T.STRING)]))
    sequence = h.make_tensor_sequence_value_info("x", T.FLOAT, ["n"])
    bad("input_sequence", model([RELU], inputs=[sequence]))
    bad("output_refused", model([node("BatchNormalization", ["x", "w", "w", "w", "w"], ["y", "m", "v"])],
                                outputs=[info("m", shape=None)], initializers=[tensor("w", np.ones(4, np.float32))]))
    sparse = onnx.SparseTensorProto()
    made = model([RELU])
    made.graph.sparse_initializer.append(sparse)
    bad("sparse", made)
    bad("constant_two", model([node("Constant", [], ["y"], value_int=1, value_float=1.0)]))
    bad("constant_string", model([node("Constant", [], ["y"], value_string="a")]))
    bad("split_outputs", model([node("Split", ["x"], ["y", "z"], num_outputs=3, axis=1)]))
    bad("topk_large", model([node("TopK", ["x", "k"], ["y", "i"])], initializers=[tensor("k", np.array([5]))]))
    bad("einsum", model([node("Einsum", ["x", "x"], ["y"], equation="ij->i")]))
    bad("gemm_rank", model([node("Gemm", ["x", "w"], ["y"])], initializers=[tensor("w", np.ones(4, np.float32))]))


def tensor_cases():
    def with_weight(**fields):
        weight = T(name="w", dims=[4], data_type=T.FLOAT)
        for key, value in fields.items():
            if isinstance(value, list):
                del getattr(weight, key)[:]
                getattr(weight, key).extend(value)
            else:
                setattr(weight, key, value)
        return model([node("Add", ["x", "w"], ["y"])], initializers=[weight])

    raw = b"\0" * 16
    bad("tensor_short", with_weight(raw_data=b"\0" * 15))
    bad("tensor_long", with_weight(raw_data=b"\0" * 20))
    bad("tensor_none", with_weight())
    bad("tensor_typed_count", with_weight(float_data=[1.0, 2.0]))
    bad("tensor_two_places", with_weight(float_data=[1.0] * 4, raw_data=raw))
    bad("tensor_wrong_field", with_weight(int64_data=[1] * 4))
    bad("tensor_elem", with_weight(raw_data=raw, data_type=77))
    bad("tensor_string", with_weight(data_type=T.STRING))
    bad("tensor_negative", with_weight(raw_data=raw, dims=[-4]))
    bad("tensor_overflow", with_weight(raw_data=raw, dims=[2**32, 2**32, 2**32]))
    bad("tensor_bytes_overflow", with_weight(raw_data=raw, dims=[2**31, 2**31]))
    bad("tensor_rank", with_weight(raw_data=raw, dims=[1] * 8 + [4]))
    bad("tensor_uint8_range", with_weight(int32_data=[1, 2, 3, 256], data_type=T.UINT8))
    bad("tensor_bool", with_weight(raw_data=b"\0\1\2\1", data_type=T.BOOL))
    unnamed = with_weight(raw_data=raw)
    unnamed.graph.initializer[0].name = ""
    bad("tensor_unnamed", unnamed)
    segmented = with_weight(raw_data=raw)
    segmented.graph.initializer[0].segment.begin = 0
    bad("tensor_segment", segmented)

    def external(**entries):
        made = with_weight()
        weight = made.graph.initializer[0]
        weight.data_location = T.EXTERNAL
        for key, value in entries.items():
            weight.external_data.add(key=key.rstrip("_"), value=value)
        return made

    (OUT / "weights.bin").write_bytes(struct.pack("<8f", *range(8)))
    bad("external_parent", external(location="../weights.bin"))
    bad("external_inside_parent", external(location="sub/../../onnx/weights.bin"))
    bad("external_absolute", external(location="/etc/passwd"))
    bad("external_missing", external(location="nowhere.bin"))
    bad("external_folder", external(location="."))
    bad("external_no_location", external(offset="0"))
    bad("external_past_end", external(location="weights.bin", offset="20"))
    bad("external_offset_negative", external(location="weights.bin", offset="-4"))
    bad("external_offset_huge", external(location="weights.bin", offset="18446744073709551608"))
    bad("external_offset_overflow", external(location="weights.bin", offset="18446744073709551616"))
    bad("external_offset_text", external(location="weights.bin", offset="0x10"))
    bad("external_length", external(location="weights.bin", length="12"))
    bad("external_twice", external(location="weights.bin", location_="weights.bin"))
    both = external(location="weights.bin")
    both.graph.initializer[0].raw_data = raw
    bad("external_and_raw", both)
    # the test makes what these name: a symbolic link, a hard link, a pipe
    bad("external_symlink", external(location="link.bin"))
    bad("external_symlink_folder", external(location="linkdir/weights.bin"))
    bad("external_hardlink", external(location="hard.bin"))
    bad("external_fifo", external(location="fifo.bin"))


def function(name, nodes, inputs=("a",), outputs=("b",), attrs=(), domain="local", opset=20, extra=()):
    opsets = [h.make_opsetid("", opset), h.make_opsetid("local", 1)]
    return h.make_function(domain, name, list(inputs), list(outputs), nodes, opsets, list(attrs), list(extra))


def call(name, inputs, outputs, label="call", **attrs):
    return h.make_node(name, inputs, outputs, name=label, domain="local", **attrs)


def function_cases():
    itself = function("Again", [call("Again", ["a"], ["b"], "inner")])
    bad("function_recursive", model([call("Again", ["x"], ["y"])], functions=[itself], domains=["local"]))
    ping = function("Ping", [call("Pong", ["a"], ["b"], "to_pong")])
    pong = function("Pong", [call("Ping", ["a"], ["b"], "to_ping")])
    bad("function_mutual", model([call("Ping", ["x"], ["y"])], functions=[ping, pong], domains=["local"]))
    relu = function("Mine", [node("Relu", ["a"], ["b"])])
    bad("function_twice", model([call("Mine", ["x"], ["y"])], functions=[relu, relu], domains=["local"]))
    bad("function_inputs", model([call("Mine", ["x", "x"], ["y"])], functions=[relu], domains=["local"]))
    bad("function_outputs", model([call("Mine", ["x"], ["y", "z"])], functions=[relu], domains=["local"]))
    bad("function_attr", model([call("Mine", ["x"], ["y"], alpha=1.0)], functions=[relu], domains=["local"]))
    inside = function("Mine", [node("Relu", ["a"], ["b"]), node("Foo", ["b"], ["c"], "inside")])
    bad("function_unknown_op", model([call("Mine", ["x"], ["y"])], functions=[inside], domains=["local"]))
    outer_name = function("Mine", [node("Add", ["a", "x"], ["b"])])
    bad("function_sees_outside", model([call("Mine", ["x"], ["y"])], functions=[outer_name], domains=["local"]))
    ref = node("Softmax", ["a"], ["b"])
    ref.attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="nope")
    bad("function_attr_ref", model([call("Mine", ["x"], ["y"])], functions=[function("Mine", [ref])], domains=["local"]))
    # each function calls the next one twice: 2^30 nodes
    bomb = [function("F0", [node("Identity", ["a"], ["b"])])]
    for i in range(1, 31):
        bomb.append(function(f"F{i}", [call(f"F{i - 1}", ["a"], ["t"]), call(f"F{i - 1}", ["t"], ["b"])]))
    bad("function_bomb", model([call("F30", ["x"], ["y"])], functions=bomb, domains=["local"]))


def graph(nodes, outputs, inputs=(), initializers=()):
    return h.make_graph(nodes, "sub", list(inputs), list(outputs), list(initializers))


def out(name, elem=T.FLOAT):
    return h.make_tensor_value_info(name, elem, None)


def scalar(name, elem):
    return h.make_tensor_value_info(name, elem, [])


def control_cases():
    cond = h.make_tensor_value_info("c", T.BOOL, [])
    yes = graph([node("Relu", ["x"], ["t"], "yes")], [out("t")])
    no = graph([node("Neg", ["x"], ["e"], "no")], [out("e")])
    hides = graph([node("Relu", ["x"], ["z"], "hides")], [out("z")])
    bad("if_shadow", model([node("Relu", ["x"], ["z"], "outer"),
                            node("If", ["c"], ["y"], then_branch=hides, else_branch=no)], inputs=[info("x"), cond]))
    bad("if_outputs", model([node("If", ["c"], ["y", "y2"], then_branch=yes, else_branch=no)], inputs=[info("x"), cond]))
    bad("if_condition", model([node("If", ["x"], ["y"], then_branch=yes, else_branch=no)]))
    bad("if_dangling", model([node("If", ["c"], ["y"], then_branch=yes,
                                   else_branch=graph([node("Neg", ["q"], ["e"], "no")], [out("e")]))], inputs=[info("x"), cond]))
    body = graph([node("Identity", ["ci"], ["co"], "b1")], [out("co", T.BOOL)],
                 [scalar("i", T.INT64), scalar("ci", T.BOOL)])
    bad("loop_inputs", model([node("Loop", ["", "", "x"], ["y"], body=body)]))
    # loops within loops whose shapes change: each level is imported more than once
    inner = None
    for level in reversed(range(20)):
        a, r = f"a{level}", f"r{level}"
        nodes = [node("Concat", [a, a], [f"t{level}"], f"cat{level}", axis=0)]
        nodes += [node("Loop", ["trips", "", f"t{level}"], [r], f"loop{level}", body=inner)] if inner else [node("Identity", [f"t{level}"], [r])]
        nodes += [node("Identity", [f"c{level}"], [f"d{level}"])]
        inner = graph(nodes, [out(f"d{level}", T.BOOL), out(r)],
                      [scalar(f"i{level}", T.INT64), scalar(f"c{level}", T.BOOL), h.make_tensor_value_info(a, T.FLOAT, ["m", 4])])
    bad("loop_bomb", model([node("Loop", ["trips", "", "x"], ["y"], body=inner)], initializers=[tensor("trips", np.array(2))]))
    # a subgraph needs what comes after its own node
    later = graph([node("Add", ["x", "y"], ["t"], "yes")], [out("t")])
    bad("if_cycle", model([node("If", ["c"], ["v"], then_branch=later, else_branch=no), node("Relu", ["v"], ["y"], "r")],
                          inputs=[info("x"), cond]))


# ---- models that work -----------------------------------------------------------------------------

RNG = np.random.default_rng(7)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ok(name, made, inputs, expected=None):
    write(f"ok_{name}.onnx", made.SerializeToString(deterministic=True))
    if expected is None:
        values = ReferenceEvaluator(made).run(None, inputs)
        expected = {o.name: v for o, v in zip(made.graph.output, values)}
    arrays = {f"in_{k}": np.asarray(v, order="C") for k, v in inputs.items()}
    arrays |= {f"out_{k}": np.asarray(v, order="C") for k, v in expected.items()}
    np.savez(OUT / f"ok_{name}.npz", **arrays)


def ok_cases():
    x = rand(3, 4)
    ok("relu", model([RELU]), {"x": x})
    made = model([node("Neg", ["x"], ["a"], "first"), node("Relu", ["a"], ["y"], "last")])
    values = ReferenceEvaluator(made).run(None, {"x": x})
    made.graph.node.reverse()
    write("ok_unsorted.onnx", made.SerializeToString(deterministic=True))
    np.savez(OUT / "ok_unsorted.npz", in_x=x, out_y=values[0])

    weight = tensor("w", rand(4, 5))
    ok("gemm", model([node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0)],
                     initializers=[weight, tensor("b", rand(5))]), {"x": x})
    ok("initializer_input", model([node("MatMul", ["x", "w"], ["y"])], inputs=[info("x"), info("w", shape=[4, 5])],
                                  initializers=[weight]), {"x": x})
    ok("shared_symbol", model([node("Add", ["x", "z"], ["y"])], inputs=[info("x"), info("z")]), {"x": x, "z": rand(3, 4)})
    ok("flatten_dynamic", model([node("Flatten", ["x"], ["y"], axis=2)],
                                inputs=[info("x", shape=["a", "b", "c", 2])]), {"x": rand(2, 3, 4, 2)})
    ok("squeeze_dynamic", model([node("Unsqueeze", ["x", "u"], ["t"], "u"), node("Squeeze", ["t", "s"], ["y"], "s")],
                                inputs=[info("x", shape=["a", "b"])],
                                initializers=[tensor("u", np.array([0, 3])), tensor("s", np.array([-1]))]), {"x": x})
    forms = [
        node("Constant", [], ["c1"], "c1", value=tensor("", np.float32([1, 2, 3, 4]))),
        node("Constant", [], ["c2"], "c2", value_float=2.5),
        node("Constant", [], ["c3"], "c3", value_floats=[1.0, 2.0, 3.0, 4.0]),
        node("Constant", [], ["c4"], "c4", value_int=2),
        node("Constant", [], ["c5"], "c5", value_ints=[1, 2, 3, 4]),
        node("Mul", ["x", "c1"], ["a"], "a"), node("Add", ["a", "c2"], ["b"], "b"), node("Add", ["b", "c3"], ["c"], "c"),
        node("Mul", ["c5", "c4"], ["d"], "d"), node("Cast", ["d"], ["e"], "e", to=T.FLOAT), node("Add", ["c", "e"], ["y"], "y"),
    ]
    ok("constants", model(forms), {"x": x})
    typed = [
        h.make_tensor("f", T.FLOAT, [4], [1.0, 2.0, 3.0, 4.0]),
        h.make_tensor("d", T.DOUBLE, [4], [0.5, 0.25, 2.0, 1.0]),
        h.make_tensor("i32", T.INT32, [4], [1, -2, 3, 4]),
        h.make_tensor("i8", T.INT8, [4], [1, -2, 3, -128]),
        h.make_tensor("u8", T.UINT8, [4], [1, 2, 3, 255]),
        h.make_tensor("i64", T.INT64, [4], [1, 2**40, 3, 4]),
        h.make_tensor("u32", T.UINT32, [4], [1, 2, 3, 2**32 - 1]),
        h.make_tensor("h", T.FLOAT16, [4], [1.5, 2.0, 3.0, 4.0]),
        h.make_tensor("t", T.BOOL, [4], [True, False, True, True]),
    ]
    casts, total = [], "x"
    for t in typed:
        casts.append(node("Cast", [t.name], [t.name + "_f"], t.name + "_c", to=T.FLOAT))
        casts.append(node("Add", [total, t.name + "_f"], [t.name + "_s"], t.name + "_a"))
        total = t.name + "_s"
    casts.append(node("Identity", [total], ["y"], "end"))
    ok("typed_data", model(casts, initializers=typed), {"x": x})

    made = model([node("Add", ["x", "w"], ["y"])], initializers=[T(name="w", dims=[4], data_type=T.FLOAT)])
    made.graph.initializer[0].data_location = T.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "16"), ("length", "16")):
        made.graph.initializer[0].external_data.add(key=key, value=value)
    write("ok_external.onnx", made.SerializeToString(deterministic=True))
    np.savez(OUT / "ok_external.npz", in_x=x, out_y=x + np.float32([4, 5, 6, 7]))

    # functions: default attribute, given attribute, optional input left out, nested call
    scale = node("LeakyRelu", ["a"], ["b"], "leaky")
    scale.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    leaky = function("Leaky", [scale], extra=[h.make_attribute("slope", 0.5)])
    twice = node("Softmax", ["t"], ["b"], "soft")
    twice.attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="axis")
    outer = function("Outer", [call("Leaky", ["a"], ["t"], "in_outer", slope=0.25), twice], attrs=["axis"])
    clip = function("Limit", [node("Clip", ["a", "lo", "hi"], ["b"], "clip")], inputs=["a", "lo", "hi"])
    nodes = [call("Leaky", ["x"], ["p"], "p"), call("Outer", ["p"], ["q"], "q", axis=0),
             node("Constant", [], ["hi"], "hi", value_float=0.4), call("Limit", ["q", "", "hi"], ["y"], "r")]
    made = model(nodes, functions=[outer, leaky, clip], domains=["local"])
    p = np.where(x < 0, x * np.float32(0.5), x)
    t = np.where(p < 0, p * np.float32(0.25), p)
    e = np.exp(t - t.max(0, keepdims=True))
    ok("functions", made, {"x": x}, {"y": np.minimum(e / e.sum(0, keepdims=True), np.float32(0.4))})

    cond = h.make_tensor_value_info("c", T.BOOL, [])
    yes = graph([node("Mul", ["x", "w"], ["t"], "yes")], [out("t")])
    no = graph([node("Add", ["z", "k"], ["e"], "no")], [out("e")], initializers=[tensor("k", np.float32([3]))])
    made = model([node("Neg", ["x"], ["z"], "z"), node("If", ["c"], ["y"], then_branch=yes, else_branch=no)],
                 inputs=[info("x"), cond], initializers=[tensor("w", rand(4))])
    ok("if_true", made, {"x": x, "c": np.array(True)})
    ok("if_false", made, {"x": x, "c": np.array(False)})
    # the condition follows from the rank, and the branches have different ranks
    cut = graph([node("Squeeze", ["x", "ax"], ["t"], "yes")], [out("t")], initializers=[tensor("ax", np.array([0]))])
    keep = graph([node("Identity", ["x"], ["e"], "no")], [out("e")])
    made = model([node("Shape", ["x"], ["s"], "s"), node("Gather", ["s", "zero"], ["d"], "d"),
                  node("Equal", ["d", "one"], ["c"], "c"), node("If", ["c"], ["y"], then_branch=cut, else_branch=keep)],
                 inputs=[info("x", shape=[1, "n"])],
                 initializers=[tensor("zero", np.array(0)), tensor("one", np.array(1))])
    ok("if_known", made, {"x": rand(1, 5)})

    body = graph([node("Add", ["acc", "step"], ["acc_out"], "add"), node("Identity", ["acc_out"], ["row"], "row"),
                  node("Identity", ["ci"], ["co"], "co")],
                 [out("co", T.BOOL), out("acc_out"), out("row")],
                 [scalar("i", T.INT64), scalar("ci", T.BOOL), h.make_tensor_value_info("acc", T.FLOAT, ["n", 4])])
    made = model([node("Neg", ["x"], ["step"], "step"), node("Loop", ["trips", "", "x"], ["y", "rows"], body=body)],
                 outputs=[info("y", shape=None), info("rows", shape=None)], inputs=[info("x"), scalar("trips", T.INT64)])
    rows = np.stack([x - x, x - x - x, x - x - x - x])  # onnx.reference needs a condition, the format doesn't
    ok("loop", made, {"x": x, "trips": np.array(3)}, {"y": rows[-1], "rows": rows})
    less = graph([node("Add", ["acc", "x"], ["acc_out"], "add"), node("ReduceSum", ["acc_out"], ["sum"], "sum", keepdims=0),
                  node("Less", ["sum", "limit"], ["co"], "co")],
                 [out("co", T.BOOL), out("acc_out")],
                 [scalar("i", T.INT64), scalar("ci", T.BOOL), h.make_tensor_value_info("acc", T.FLOAT, ["n", 4])])
    made = model([node("Loop", ["", "go", "x"], ["y"], body=less)],
                 initializers=[tensor("limit", np.float32(40)), tensor("go", np.array(True))])
    ok("loop_condition", made, {"x": np.abs(x)})
    grow = graph([node("Concat", ["acc", "x"], ["acc_out"], "cat", axis=0), node("Identity", ["ci"], ["co"], "co")],
                 [out("co", T.BOOL), out("acc_out")],
                 [scalar("i", T.INT64), scalar("ci", T.BOOL), h.make_tensor_value_info("acc", T.FLOAT, ["m", 4])])
    made = model([node("Loop", ["trips", "", "x"], ["y"], body=grow)], inputs=[info("x"), scalar("trips", T.INT64)])
    ok("loop_grows", made, {"x": x, "trips": np.array(2)}, {"y": np.concatenate([x, x, x])})
    body = graph([node("Add", ["s", "e"], ["s_out"], "add"), node("Mul", ["s_out", "e"], ["o"], "mul")],
                 [out("s_out"), out("o")],
                 [h.make_tensor_value_info("s", T.FLOAT, [4]), h.make_tensor_value_info("e", T.FLOAT, [4])])
    made = model([node("Scan", ["s0", "x"], ["last", "y"], body=body, num_scan_inputs=1)],
                 outputs=[info("last", shape=None), info("y", shape=None)], initializers=[tensor("s0", rand(4))])
    ok("scan", made, {"x": x})
    begin = np.float32([1, 2, 3])  # onnx.reference runs forwards only
    body = graph([node("Add", ["s", "e"], ["s_out"], "add"), node("Mul", ["s_out", "e"], ["o"], "mul")],
                 [out("s_out"), out("o")],
                 [h.make_tensor_value_info("s", T.FLOAT, [3]), h.make_tensor_value_info("e", T.FLOAT, [3])])
    made = model([node("Scan", ["s0", "x"], ["last", "y"], body=body, num_scan_inputs=1, scan_input_axes=[1],
                       scan_input_directions=[1], scan_output_axes=[-1], scan_output_directions=[1])],
                 inputs=[info("x", shape=[3, "n"])], outputs=[info("last", shape=None), info("y", shape=None)],
                 initializers=[tensor("s0", begin)])
    sums = begin[:, None] + np.cumsum(x[:, ::-1], axis=1)
    ok("scan_backwards", made, {"x": x}, {"last": sums[:, -1], "y": (sums * x[:, ::-1])[:, ::-1]})

    # an output that we don't compute doesn't matter while nothing uses it
    ok("unused_output", model([node("BatchNormalization", ["x", "w", "o", "o", "w"], ["y", "m", "v"], epsilon=0.0)],
                              initializers=[tensor("w", np.ones(4, np.float32)), tensor("o", np.zeros(4, np.float32))]),
       {"x": x}, {"y": x})
    ok("dropout", model([node("Dropout", ["x"], ["y", "mask"])], outputs=[info("y", shape=None), info("mask", T.BOOL, None)]),
       {"x": x}, {"y": x, "mask": np.ones((3, 4), bool)})
    made = model([node("ReduceLogSumExp", ["x"], ["y"], axes=[1], keepdims=0)], opset=13)
    big = x * np.float32(200)
    ok("log_sum_exp", made, {"x": big}, {"y": np.log(np.exp(big.astype(np.float64)).sum(1)).astype(np.float32)})
    # "a + b" is the sum of the two symbols, "2" the number
    made = model([node("Concat", ["x", "z"], ["t"], "t", axis=0), node("Add", ["t", "w"], ["y"], "y")],
                 inputs=[info("w", shape=["a + b", "2"]), info("x", shape=["a", 2]), info("z", shape=["b", 2])])
    ok("dim_expression", made, {"w": rand(5, 2), "x": rand(3, 2), "z": rand(2, 2)})

    # too large to be copied: stays a range of the file
    ok("large_weight", model([node("MatMul", ["x", "w"], ["y"])], initializers=[tensor("w", rand(4, 300))]), {"x": x})

    # versions of one operator
    cube = rand(2, 3, 4)  # onnx.reference knows only the newer meaning of axis
    e = np.exp(cube - cube.max((1, 2), keepdims=True))
    ok("softmax_11", model([node("Softmax", ["x"], ["y"], axis=1)], inputs=[info("x", shape=["a", 3, 4])], opset=11),
       {"x": cube}, {"y": e / e.sum((1, 2), keepdims=True)})
    ok("softmax_13", model([node("Softmax", ["x"], ["y"], axis=1)], inputs=[info("x", shape=["a", 3, 4])], opset=13), {"x": rand(2, 3, 4)})
    ok("clip_6", model([node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], opset=10), {"x": x})
    ok("slice_1", model([node("Slice", ["x"], ["y"], axes=[1], starts=[1], ends=[-1])], opset=9), {"x": x})
    ok("reduce_attr", model([node("ReduceMean", ["x"], ["y"], axes=[-1], keepdims=0)], opset=17), {"x": x})
    ok("reduce_input", model([node("ReduceL2", ["x", "a"], ["y"], keepdims=1)], opset=18,
                             initializers=[tensor("a", np.array([0]))]), {"x": x})
    ok("split_18", model([node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2)],
                         inputs=[info("x", shape=["n", 5])], outputs=[info("y", shape=None), info("z", shape=None)]), {"x": rand(3, 5)})
    ok("einsum", model([node("Einsum", ["x", "w"], ["y"], equation="bij,bkj->bik")],
                       inputs=[info("x", shape=["b", 3, 4]), info("w", shape=["b", 2, 4])]), {"x": rand(2, 3, 4), "w": rand(2, 2, 4)})
    ok("layer_norm", model([node("LayerNormalization", ["x", "s", "b"], ["y"], axis=-1, epsilon=1e-3)], opset=17,
                           initializers=[tensor("s", rand(4)), tensor("b", rand(4))]), {"x": x})
    ok("layer_norm_axis", model([node("LayerNormalization", ["x", "s", "b"], ["y"], axis=1)], opset=17,
                                inputs=[info("x", shape=["n", 3, 4])],
                                initializers=[tensor("s", rand(3, 4)), tensor("b", rand(3, 4))]), {"x": rand(2, 3, 4)})


def late_cases():
    # written last: the numbers of the others stay as they are
    ms = ["com.microsoft"]
    a, b = rand(3, 2, 4), rand(2, 4, 5)
    ok("fused_matmul", model([node("FusedMatMul", ["x", "b"], ["y"], domain=ms[0], alpha=0.5, transBatchA=1, transB=1)],
                             inputs=[info("x", shape=["m", 2, 4])], outputs=[info("y", shape=None)], domains=ms,
                             initializers=[tensor("b", b.transpose(0, 2, 1).copy())]),
       {"x": a}, {"y": 0.5 * a.transpose(1, 0, 2) @ b})
    x, w, indices = rand(3, 4), rand(5, 4, 2), np.array([[4, 0], [1, 1], [2, 3]])
    ok("grouped_matmul", model([node("GroupedMatMul", ["x", "w", "i"], ["y"], domain="proposal")], domains=["proposal"],
                               inputs=[info("x"), info("i", T.INT64, ["n", 2])], outputs=[info("y", shape=None)],
                               initializers=[tensor("w", w)]),
       {"x": x, "i": indices}, {"y": np.einsum("mk,mckn->mcn", x, w[indices])})


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.onnx"):
        old.unlink()
    for old in OUT.glob("*.npz"):
        old.unlink()
    wire_cases()
    meaning_cases()
    tensor_cases()
    function_cases()
    control_cases()
    ok_cases()
    moe_cases.cases(ok, bad, model, node, info, tensor)
    late_cases()
    float8_cases.cases(ok, bad, model, node, info, tensor)
    files = list(OUT.iterdir())
    print(f"{len(files)} files, {sum(f.stat().st_size for f in files)} bytes")


if __name__ == "__main__":
    main()
