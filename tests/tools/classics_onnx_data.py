#!/usr/bin/env python3
"""Writes samples/classics/onnx/model.onnx.data, the float32 weights of the sample as ONNX.

They are those of model.safetensors, converted from bf16 (exactly), transposed where the graph has
them so, and the experts' stacked; so the repository doesn't hold them twice. The standard library
is enough. Usage: classics_onnx_data.py [SAMPLE [OUT]]
"""
import array
import hashlib
import json
import os
import struct
import sys

SHA256 = "bb0c2d4858e51d1b9de0c994b9afcf668bcc3bf13d4f8f1273476e838fd7d346"
LAYERS, EXPERTS = 4, 16


def read(path):
    with open(path, "rb") as f:
        raw = f.read()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    base = 8 + size

    def tensor(name):
        """Rows of float32 bit patterns."""
        entry = header[name]
        begin, end = entry["data_offsets"]
        halves = array.array("H", raw[base + begin : base + end])
        words = array.array("I", (h << 16 for h in halves))
        width = entry["shape"][-1]
        return [words[i : i + width] for i in range(0, len(words), width)]

    return tensor


def transposed(rows):
    return [array.array("I", column) for column in zip(*rows)]


def pieces(tensor):
    yield tensor("model.embed_tokens.weight")
    for layer in range(LAYERS):
        base = f"model.layers.{layer}."
        yield tensor(base + "block_sparse_moe.gate.weight")
        yield tensor(base + "input_layernorm.weight")
        yield tensor(base + "post_attention_layernorm.weight")
    yield tensor("model.norm.weight")
    for layer in range(LAYERS):
        base = f"model.layers.{layer}."
        for name in "qkvo":
            yield transposed(tensor(f"{base}self_attn.{name}_proj.weight"))
        expert = base + "block_sparse_moe.experts.%d.%s.weight"
        for e in range(EXPERTS):
            yield transposed(tensor(expert % (e, "w1")) + tensor(expert % (e, "w3")))
        for e in range(EXPERTS):
            yield transposed(tensor(expert % (e, "w2")))
    yield transposed(tensor("lm_head.weight"))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    sample = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../../samples/classics")
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.join(sample, "onnx/model.onnx.data")
    digest = hashlib.sha256()
    with open(out + ".new", "wb") as f:
        for rows in pieces(read(os.path.join(sample, "model.safetensors"))):
            for row in rows:
                data = row.tobytes()
                digest.update(data)
                f.write(data)
    if digest.hexdigest() != SHA256:
        sys.exit(f"{out}.new: not the weights that the graph was exported with")
    os.rename(out + ".new", out)


if __name__ == "__main__":
    main()
